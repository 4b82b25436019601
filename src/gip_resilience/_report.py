"""The story of one call, for people: attempts, waits, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gip_resilience.hints import Hint


MARK = "gip_resilience"
"""Where a response (its extensions, or itself) and an exception keep what leads to their report."""


class Attempt(msgspec.Struct, frozen=True):
    """One request as it was sent.

    Attributes:
        number: from 1.
        code: ``ok``, or the code of the failure.
        status: HTTP status, ``None`` without an answer.
        elapsed: seconds from sending to the verdict.
        waited: seconds paused before it was sent (backoff, hint or gate).
        hint: the wait the server asked for in its answer; of a success, for how long it used up the quota.
        maybe_executed: whether it may have been executed although no whole answer came back.
        started: seconds from the start of the call to its sending.
    """

    number: int
    code: str
    status: int | None
    elapsed: float
    waited: float
    hint: Hint | None
    maybe_executed: bool
    started: float = 0.0


class Hop(msgspec.Struct, frozen=True):
    """A break of an event stream, and what was done about it.

    Attributes:
        action: ``restart``, ``resume``, ``replay`` (what was tried); ``marker`` (only the terminal marker was
            missing, and was supplied); ``end`` (nothing was missing); ``fail``; ``unguarded`` (no break: the stream
            holds an event, or is itself, longer than what is remembered, and goes on without our help).
        code: how it broke.
        phase: how far it was: ``none``, ``output``, ``tail``, ``done``.
        events: how many events had been handed up.
        reason: why nothing better could be done; empty otherwise.
    """

    action: str
    code: str
    phase: str
    events: int
    reason: str = ""

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.code} after {self.events} event(s), {self.phase}: {self.action}{why}"


class CallReport(msgspec.Struct, frozen=True):
    """What one call did; ``str()`` of it is a short timeline.

    Attributes:
        host: whom it was for.
        model: the model, or an empty string.
        outcome: ``success``; ``failure`` (the server's last answer was handed up, or its last error raised);
            ``refused`` (nothing was sent, or nothing more: circuit open, gate closed, deadline);
            ``cancelled``; ``pending`` while it runs.
        reason: why it ended, or why it was not tried again.
        attempts: every request that was sent.
        elapsed: seconds from the start of the call to its end.
        waited: seconds of them spent in pauses.
        hint: the wait the server asked for in its last answer, also when it was too long to be waited.
        hops: every break of its event stream, if it has one; grows until the stream has ended, as `attempts` do.
        part: which part of the model it was for; mostly empty.
    """

    host: str
    model: str
    outcome: str
    reason: str
    attempts: tuple[Attempt, ...]
    elapsed: float
    waited: float
    hint: Hint | None
    hops: tuple[Hop, ...] = ()
    part: str = ""

    @property
    def maybe_executed(self) -> bool:
        """Whether an attempt before the last may have been executed: the work may have been done twice."""
        return any(attempt.maybe_executed for attempt in self.attempts)

    def __str__(self) -> str:
        where = f"{self.host} {self.model}".rstrip()
        lines = [f"{self.outcome} after {len(self.attempts)} attempt(s), {self.elapsed:.3f} s: {where}"]
        for attempt in self.attempts:
            paused = f"waited {attempt.waited:.3f} s, " if attempt.waited else ""
            hint = f", server asked for {attempt.hint.seconds:g} s" if attempt.hint else ""
            doubt = ", may have been executed" if attempt.maybe_executed else ""
            status = attempt.status if attempt.status is not None else "no answer"
            lines.append(
                f"  {attempt.number}. {paused}{attempt.code} ({status}) in {attempt.elapsed:.3f} s{hint}{doubt}"
            )
        lines += [f"  stream: {hop}" for hop in self.hops]
        if self.reason:
            lines.append(f"  ended: {self.reason}")
        return "\n".join(lines)


def report(outcome: Any) -> CallReport | None:
    """What the call behind a response, or behind an exception, did.

    Args:
        outcome: a response of requests, httpx or httpx2; an exception one of our clients raised; or an object
            that carries such a response (as the exceptions of SDKs do, in ``.response``, or their raw responses,
            in ``.http_response``). For an exception its causes are searched too.

    Returns:
        The report, or ``None`` when no call of ours is behind it.
    """
    seen: set[int] = set()
    waiting = [outcome]
    while waiting:
        candidate = waiting.pop(0)
        if candidate is None or id(candidate) in seen:
            continue
        seen.add(id(candidate))
        found = _found_on(candidate)
        if found is not None:
            return found
        waiting += [getattr(candidate, name, None) for name in ("response", "http_response")]
        if isinstance(candidate, BaseException):
            waiting += [candidate.__cause__, candidate.__context__]
    return None


def _found_on(candidate: Any) -> CallReport | None:
    extensions = getattr(candidate, "extensions", None)
    marks = [extensions.get(MARK)] if isinstance(extensions, dict) else []
    marks += [getattr(candidate, MARK, None), getattr(candidate, "report", None)]
    for mark in marks:
        if isinstance(mark, CallReport):
            return mark
        if hasattr(mark, "config") and callable(made := getattr(mark, "report", None)):
            made_report = made()
            if isinstance(made_report, CallReport):
                return made_report
    return None
