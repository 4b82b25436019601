"""Who retries how: callers without a library, and the shipped engine.

A policy is told of every answer and decides; see `gip_resilience.simulation.clockwork.Script`. `Ours` is no model of
the engine. It is `gip_resilience.engine`, with the store, circuits, gate and budget of a `Resilience`, driven on
virtual time in place of `gip_resilience.drive`; and for streams the splice and `gip_resilience._flow.Stage`, which
decide what is done about a break.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

from gip_resilience._flow import Stage, message
from gip_resilience._splice import Splice
from gip_resilience.breaker import State
from gip_resilience.effects import Pause, Refuse, Send
from gip_resilience.engine import story
from gip_resilience.errors import (
    DeadlineExceededError,
    ResilienceError,
    StreamDivergedError,
    StreamInterruptedError,
)
from gip_resilience.hints import Hint, used_up
from gip_resilience.recovery import Action, Asked, Origin
from gip_resilience.resilience import Resilience
from gip_resilience.simulation.clockwork import Answer, Lost, Read
from gip_resilience.simulation.troubles import DEADLINE
from gip_resilience.taxonomy import classify, transport_fact

if TYPE_CHECKING:
    import random
    from collections.abc import Generator

    from gip_resilience.config import Config
    from gip_resilience.drive import Script as Story
    from gip_resilience.effects import Deliver, Effect
    from gip_resilience.engine import Call
    from gip_resilience.events import CircuitChanged
    from gip_resilience.recovery import Onward
    from gip_resilience.simulation.clockwork import Clock, Reply, Script
    from gip_resilience.taxonomy import Fact

HOST = "gateway.example"
CREDENTIAL = "0123456789abcdef"
PATH = "/v1/chat/completions"


def model_name(number: int) -> str:
    """What the model of that number is called."""
    return f"azure/openai/gpt-{number}"


# ---- without a library ---------------------------------------------------------------------------------------


class Rival:
    """A policy without a state. Alone it makes one attempt."""

    attempts = 1

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        """Seconds before the next attempt, after *number* of them; ``None`` gives up."""
        del number, answer, chance
        return None

    def fleet(
        self, clock: Clock, clients: int, chance: random.Random, deadline: float | None = DEADLINE
    ) -> Rivals:
        """The clients, of whom it does not matter how many there are."""
        del clients
        return Rivals(self, clock, chance, deadline)


class Naive(Rival):
    """Three more attempts, half a second apart, whatever the server says."""

    attempts = 4

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        """See `Rival.wait`."""
        del number, answer, chance
        return 0.5


class Rivals:
    """Clients that know nothing of each other, nor of their own last call."""

    def __init__(self, policy: Rival, clock: Clock, chance: random.Random, deadline: float | None) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._deadline = deadline

    def call(self, client: int, model: int, *, repeatable: bool = False) -> Script:
        """See `gip_resilience.simulation.clockwork.Fleet.call`."""
        del client, model, repeatable
        policy, clock = self._policy, self._clock
        deadline = inf if self._deadline is None else clock.now + self._deadline
        number = 0
        while True:
            number += 1
            answer = _an_answer((yield Send(None if deadline == inf else deadline - clock.now)))
            if answer.kind == "ok":
                return True
            if answer.kind == "stream":
                return (yield from _read_bare(clock, deadline))
            wait = policy.wait(number, answer, self._chance) if number < policy.attempts else None
            if wait is None or clock.now + wait >= deadline:
                return False
            yield Pause(wait)

    def tally(self) -> dict[str, Any]:
        """Nothing; see `Ours.tally`."""
        return {}


def _read_bare(clock: Clock, deadline: float) -> Generator[Read, Reply, bool | bytes]:
    """Read a stream as the common SDKs do: an error or a break is raised; an end in order is an end."""
    out: list[bytes] = []
    while True:
        piece = yield Read(None if deadline == inf else deadline - clock.now)
        if not isinstance(piece, bytes):
            return not (isinstance(piece, Lost) and piece.kind) and b"".join(out)
        if b'data: {"error"' in piece:
            return False
        out.append(piece)


# ---- ours ----------------------------------------------------------------------------------------------------


@cache
def _fact(kind: str, dialect: str) -> Fact:
    """The fact of a kind of answer; classifying each of a million anew would only take longer."""
    if kind in {"ok", "stream"}:
        return classify(200, dialect=dialect)
    if kind == "silence":
        return transport_fact("read_timeout")
    status, _, code = _CODES.get(kind, kind).partition(" ")
    if not code:
        # A gateway that is away cannot name a code: the status decides, and it speaks of the host.
        page = b"<html>Service Unavailable</html>"
        return classify(int(status), {"content-type": "text/html"}, page, dialect=dialect)
    body = json.dumps({"error": {"type": "error", "code": code, "message": "-"}})
    return classify(int(status), {"content-type": "application/json"}, body, dialect=dialect)


_CODES = {
    "unavailable": "503",
    "gone": "502 model_unavailable",
    "server_error": "502 model_server_error",
    "overloaded": "503 model_overloaded",
    "limited": "429 rate_limit_exceeded",
}


def fact_of(answer: Answer, now: float, dialect: str = "auto") -> Fact:
    """What *answer* means, by the shipped taxonomy."""
    fact = _fact(answer.kind, dialect)
    if answer.quota is not None:
        left, reset = answer.quota
        headers = {"x-ratelimit-remaining": str(left), "x-ratelimit-reset": f"{reset:.3f}"}
        return replace(fact, hint=used_up(headers, now))
    if answer.retry_after is not None:
        return replace(fact, hint=Hint(answer.retry_after, "retry-after"))
    return fact


class Ours:
    """Clients with a `Resilience` of their own each, and so with a store of their own.

    Args:
        config: their configuration.
        clock: the virtual one.
        brains: how many there are; the clients take turns if these are fewer.
        chance: for jitter.
    """

    def __init__(self, config: Config, clock: Clock, brains: int, chance: random.Random) -> None:
        self._clock = clock
        self._opened: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._hops: Counter[str] = Counter()
        self._brains = [self._brain(number, config, chance) for number in range(brains)]

    def _brain(self, number: int, config: Config, chance: random.Random) -> Resilience:
        del number
        return Resilience(config, clock=self._clock, chance=chance.random, observers=[self])

    def on_circuit_changed(self, event: CircuitChanged) -> None:
        """See `gip_resilience.events.Observer`."""
        if event.transition.after is State.OPEN:
            whose = "model" if event.circuit.model else "host"
            self._opened[f"{whose}: {event.transition.reason}"] += 1

    def call(self, client: int, model: int, *, repeatable: bool = False) -> Script:
        """What `gip_resilience.drive.drive` does, on a virtual clock."""
        brain = self._brains[client % len(self._brains)]
        call = brain.call(HOST, CREDENTIAL, model_name(model))
        dialect = call.config.dialect
        try:
            fact = None
            if call.admit():
                answer = _an_answer((yield Send(call.timeout())))
                fact = self._read(call, answer, dialect)
                if fact.ok:
                    call.succeed(fact)
                    if call.streaming:
                        return (yield from self._flow(brain, call, repeatable=repeatable))
                    return True
            effect = yield from self._perform(call, story(call, fact))
            if call.streaming and not isinstance(effect, Refuse):
                return (yield from self._flow(brain, call, repeatable=repeatable))
            return self._ended(call)
        finally:
            call.close()

    def _read(self, call: Call, answer: Answer, dialect: str) -> Fact:
        if answer.kind == "stream":
            call.streaming = True
        return fact_of(answer, self._clock.time(), dialect)

    def _perform(
        self, call: Call, script: Story, effect: Effect | None = None
    ) -> Generator[Send | Pause, Reply, Deliver | Refuse]:
        """What `gip_resilience.drive.perform` does."""
        effect = next(script) if effect is None else effect
        while True:
            if isinstance(effect, Send):
                answer = _an_answer((yield effect))
                effect = script.send(self._read(call, answer, call.config.dialect))
            elif isinstance(effect, Pause):
                yield effect
                effect = next(script)
            else:
                return effect

    def _flow(self, brain: Resilience, call: Call, *, repeatable: bool) -> Script:
        asked = Asked(known=True, repeatable=repeatable)
        splice = Splice(call.config, PATH, _Port.ORIGIN, lambda: asked, self._clock.time)
        flow = _Flow(call, splice, brain, self._perform)
        out: list[bytes] = []
        try:
            while piece := (yield from flow.take()):
                out.append(piece)
        except ResilienceError:
            return self._ended(call)
        finally:
            for hop in call.report().hops:
                self._hops[f"{hop.action}: {hop.code}"] += 1
            call.stream_left()
        if call.outcome == "success":
            return b"".join(out)
        return self._ended(call)  # the server's own error went up

    def _ended(self, call: Call) -> bool:
        if call.outcome == "success":
            return True
        report = call.report()
        self._endings[f"{report.outcome}: {report.reason}"] += 1
        return False

    def tally(self) -> dict[str, Any]:
        """Why circuits opened, why calls were given up, and what was done about streams that broke."""
        return {
            "opened": dict(sorted(self._opened.items())),
            "given_up": dict(sorted(self._endings.items())),
            "streams": dict(sorted(self._hops.items())),
        }


class _Port:
    """The client's side of a stream, as `gip_resilience._flow.Stage` wants it."""

    ORIGIN = Origin("POST", f"https://{HOST}{PATH}")

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.stopped = self.closed = False
        self.onward: Onward | None = None

    def prepare(self, onward: Onward) -> None:
        """What the next attempt sends: the same again, as this gateway takes nothing up."""
        self.onward = onward

    def origin(self) -> Origin:
        """See `gip_resilience._flow.Flow`."""
        return self.ORIGIN

    def interruption(self, code: str) -> StreamInterruptedError:
        """See `gip_resilience._flow.Flow`."""
        kind = StreamDivergedError if code == "stream_diverged" else StreamInterruptedError
        return kind(message(code))

    def refuse(self, refusal: Refuse, call: Call) -> None:
        """The only refusal within a stream."""
        del call
        raise DeadlineExceededError(refusal.kind)


class _Flow(Stage):
    """What `gip_resilience._flow.Flow` does, on virtual time: every decision is `Stage`'s and the splice's."""

    def __init__(self, call: Call, splice: Splice, brain: Resilience, perform: Any) -> None:
        super().__init__(call, _Port(), splice, brain.clock, brain.drains)
        self._perform = perform

    def take(self) -> Generator[Any, Reply, bytes]:
        """The next piece, whole events; empty at the end. Raises what no attempt could mend, once."""
        while True:
            if self._splice.broken is not None:
                out = yield from self._mend()
            elif self._splice.over:
                return b""
            else:
                out = yield from self._read_on()
            if out:
                return out

    def _read_on(self) -> Generator[Read, Reply, bytes]:
        piece = yield Read(self._limit())
        if isinstance(piece, Lost) and piece.kind:
            self._splice.lose(piece.kind)
            return b""
        if self._overdue():
            return b""
        return self._took(self._splice.feed(piece) if isinstance(piece, bytes) else self._splice.end())

    def _mend(self) -> Generator[Any, Reply, bytes]:
        fact, decision, script = self._decide()
        if decision.action in (Action.END, Action.MARKER):
            return self._complete(decision)
        if script is not None:
            effect = yield from self._perform(self._call, script, self._first)
            if isinstance(effect, Refuse):
                self._refuse(effect, None)
            if self._call.streaming and self._goes_on(decision):
                return b""
            if self._splice.over:
                return b""
        else:
            self._call.judge(fact, decision.reason)
        return self._give_up(fact)


def _an_answer(reply: Reply) -> Answer:
    if not isinstance(reply, Answer):
        raise AssertionError("Send is answered with an Answer")  # noqa: TRY004 - a fault of ours, no caller's
    return reply
