"""The only two loops that wait: one blocks, one awaits. They decide nothing.

A port is what an adapter brings: it can send one attempt, keep what came of it in hand, and hand it up. The
port keeps the response or the error, so that the engine needs no reference to either, and so that no
reference cycle (error, traceback, frame, error) outlives the call.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from gip_resilience.effects import Effect, Pause, Refuse, Send
from gip_resilience.engine import Call, story
from gip_resilience.taxonomy import Fact

if TYPE_CHECKING:
    from types import TracebackType

    from gip_resilience.clock import Clock
    from gip_resilience.effects import Deliver

R_co = TypeVar("R_co", covariant=True)

Script: TypeAlias = Generator[Effect, Fact | None, None]
"""A story being told."""

_CAUSES = 8
"""How many errors deep a traceback is looked for; no client chains more, and a chain may be circular."""


class Port(Protocol[R_co]):
    """One call's access to a blocking client.

    Attributes:
        failure: the error the last attempt ended with; taken by the driver, which raises it.
    """

    failure: Exception | None

    def attempt(self, timeout: float | None) -> Fact:
        """Send once; keep the response, or the error, in hand and say what it means.

        Lets everything through that is not the client's own word for a failed exchange: a cancellation, an
        interrupt, an error of the caller's. Nothing is left open when it does.
        """

    def release(self) -> None:
        """Give the connection of the response in hand back. Idempotent. What was read of it stays."""

    def deliver(self, call: Call) -> R_co:
        """Hand up the response in hand."""

    def refuse(self, refusal: Refuse, call: Call) -> R_co:
        """Answer, or raise, in our own words."""


class AsyncPort(Protocol[R_co]):
    """One call's access to an awaiting client; see `Port`. Its ``release`` finishes even when cancelled."""

    failure: Exception | None

    async def attempt(self, timeout: float | None) -> Fact:
        """See `Port.attempt`."""

    async def release(self) -> None:
        """See `Port.release`."""

    def deliver(self, call: Call) -> R_co:
        """See `Port.deliver`."""

    def refuse(self, refusal: Refuse, call: Call) -> R_co:
        """See `Port.refuse`."""


def drive(call: Call, port: Port[R_co], clock: Clock) -> R_co:
    """Perform *call* by blocking; return or raise what its last attempt gave."""
    try:
        fact: Fact | None = None
        if call.admit():
            fact = port.attempt(call.timeout())
            if fact.ok:
                call.succeed(fact)
                return port.deliver(call)
        effect = perform(story(call, fact), port, clock)
        if isinstance(effect, Refuse):
            return port.refuse(effect, call)
        if port.failure is None:
            return port.deliver(call)
        raise note(port, call)
    except BaseException:
        call.streaming = False
        port.release()  # an interrupt may come between an answer and what is done with it
        raise
    finally:
        port.failure = None
        call.close()


def perform(script: Script, port: Port[R_co], clock: Clock, effect: Effect | None = None) -> Deliver | Refuse:
    """Do what *script* says, by blocking, up to its last word; *effect* is its first, if that was heard already."""
    effect = next(script) if effect is None else effect
    while True:
        if isinstance(effect, Send):
            effect = script.send(port.attempt(effect.timeout))
        elif isinstance(effect, Pause):
            port.release()
            clock.sleep(effect.seconds)
            effect = next(script)
        else:
            return effect


async def adrive(call: Call, port: AsyncPort[R_co], clock: Clock) -> R_co:
    """Perform *call* by awaiting; return or raise what its last attempt gave."""
    try:
        fact: Fact | None = None
        if call.admit():
            fact = await port.attempt(call.timeout())
            if fact.ok:
                call.succeed(fact)
                return port.deliver(call)
        effect = await aperform(story(call, fact), port, clock)
        if isinstance(effect, Refuse):
            return port.refuse(effect, call)
        if port.failure is None:
            return port.deliver(call)
        raise note(port, call)
    except BaseException:
        call.streaming = False
        await port.release()
        raise
    finally:
        port.failure = None
        call.close()


async def aperform(
    script: Script, port: AsyncPort[R_co], clock: Clock, effect: Effect | None = None
) -> Deliver | Refuse:
    """Do what *script* says, by awaiting, up to its last word; see `perform`."""
    effect = next(script) if effect is None else effect
    while True:
        if isinstance(effect, Send):
            effect = script.send(await port.attempt(effect.timeout))
        elif isinstance(effect, Pause):
            await port.release()
            await clock.asleep(effect.seconds)
            effect = next(script)
        else:
            return effect


def note(port: Port[R_co] | AsyncPort[R_co], call: Call) -> Exception:
    """Take the error out of the port and write on it what was done about it."""
    failure, port.failure = port.failure, None
    if failure is None:
        raise AssertionError("no error in hand")
    try:
        sign(failure, call)
        return failure
    finally:
        del failure


def untraced(failure: Exception) -> Exception:
    """*failure* without the way it came, nor those of its causes: it is kept, to be raised again elsewhere.

    A traceback holds frames, and a frame what its function had in hand: in the end the failure itself.
    """
    link: BaseException | None = failure
    for _ in range(_CAUSES):
        if link is None:
            break
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return failure


def uncovered(error: BaseException) -> None:
    """Take our inner frames out of the traceback of an error that is not ours, in place.

    It should lead from the caller's call to the caller's code (a body's generator, an inner transport), and what we
    had to do in between is of no use there. Where the last frame is ours the error may be too, and nothing is
    hidden.
    """
    link = error.__traceback__
    if link is None:
        return
    last = link
    while last.tb_next is not None:
        last = last.tb_next
    if _is_ours(last):
        return
    while link is not None:
        while link.tb_next is not None and _is_ours(link.tb_next):
            link.tb_next = link.tb_next.tb_next
        link = link.tb_next


def _is_ours(link: TracebackType) -> bool:
    name: str = link.tb_frame.f_globals.get("__name__", "")
    return name.startswith("gip_resilience.")


def sign(failure: Exception, call: Call) -> None:
    """Write on an error what was done about it."""
    report = call.report()
    failure.add_note(f"gip_resilience: {report}")
    failure.gip_resilience = report  # type: ignore[attr-defined]  # how report(error) finds it again
