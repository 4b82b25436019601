"""The story of one call, for people: attempts, waits, and how it ended."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.hints import Hint


MARK = "gip_resilience"
"""Where a response (its extensions, or itself) and an exception keep what leads to their report."""

MAX_STEPS = 10
"""Lines of a timeline between its first and its end; of a longer one the middle is left out."""

MAX_SEARCHED = 1000
"""Objects that are looked at for a report: chains of causes may be long, and circular."""

_FIRST = 4
"""Lines that stay before the gap: how it began."""

_NEGLIGIBLE = 0.0005
"""Seconds of a pause that would be shown as none."""


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
    def code(self) -> str:
        """What it came to: the code of the last attempt, or what was refused without one; ``none`` otherwise."""
        if self.attempts:
            return self.attempts[-1].code
        return self.reason.replace(" ", "_") if self.outcome == "refused" else "none"

    @property
    def maybe_executed(self) -> bool:
        """Whether an attempt before the last may have been executed: the work may have been done twice."""
        return any(attempt.maybe_executed for attempt in self.attempts)

    def __str__(self) -> str:
        model = f"{self.model}@{self.part}" if self.part else self.model
        where = f"{self.host} {model}".rstrip()
        head = f"{self.outcome} after {len(self.attempts)} attempt(s), {self.elapsed:.3f} s: {where}"
        lines = [f"  +{offset:.3f} {text}" for offset, text in self._steps()]
        if len(lines) > MAX_STEPS:
            left_out = len(lines) - MAX_STEPS + 1
            lines[_FIRST : _FIRST + left_out] = [f"  ... {left_out} lines left out"]
        if self.reason:
            lines.append(f"  +{self.elapsed:.3f} ended: {self.reason}")
        return "\n".join([head, *lines])

    def _steps(self) -> Iterator[tuple[float, str]]:
        """What happened, in order, by the seconds from the start of the call; all but its end.

        A break of a stream has no time of its own: it is that of the end of the attempt that broke.
        """
        hops = deque(self.hops)
        paused = 0.0
        asked: Hint | None = None
        for attempt in self.attempts:
            if attempt.waited:
                paused += attempt.waited
                yield max(0.0, attempt.started - attempt.waited), _pause(attempt.waited, asked)
            asked = attempt.hint
            yield attempt.started, _sent(attempt)
            if hops and hops[0].code == attempt.code:
                yield attempt.started + attempt.elapsed, f"stream: {hops.popleft()}"
        rest = self.waited - paused
        if rest > _NEGLIGIBLE:
            yield max(0.0, self.elapsed - rest), f"{_pause(rest, asked)}, sent nothing more"
        for hop in hops:
            yield self.elapsed, f"stream: {hop}"


def _pause(seconds: float, asked: Hint | None) -> str:
    heeded = asked is not None and 0.0 < asked.seconds <= seconds
    return f"waited {seconds:.3f} s{' as the server asked' if heeded else ''}"


def _sent(attempt: Attempt) -> str:
    status = "no answer" if attempt.status is None else attempt.status
    hint = f", server asked for {attempt.hint.seconds:g} s" if attempt.hint else ""
    doubt = ", may have been executed" if attempt.maybe_executed else ""
    return f"{attempt.number}. {attempt.code} ({status}) in {attempt.elapsed:.3f} s{hint}{doubt}"


def report(outcome: Any) -> CallReport | None:
    """What the call behind a response, or behind an exception, did.

    Args:
        outcome: a response of requests, httpx or httpx2; an exception one of our clients raised; or an object
            that carries such a response (as the exceptions of SDKs do, in ``.response``, or their raw responses,
            in ``.http_response``). For an exception its causes, its context and the members of a group are searched
            too, the nearest first, `MAX_SEARCHED` at most.

    Returns:
        The report, or ``None`` when no call of ours is behind it.
    """
    seen: dict[int, Any] = {}  # keeps what it has seen, or another thing might get its id
    waiting = deque([outcome])
    while waiting and len(seen) < MAX_SEARCHED:
        candidate = waiting.popleft()
        if id(candidate) in seen:
            continue
        seen[id(candidate)] = candidate
        found = _found_on(candidate)
        if found is not None:
            return found
        further = [_value(candidate, name) for name in ("response", "http_response")]
        if isinstance(candidate, BaseException):
            further += [candidate.__cause__, candidate.__context__]
        if isinstance(candidate, BaseExceptionGroup):
            further += islice(candidate.exceptions, MAX_SEARCHED)
        waiting.extend(thing for thing in further if thing is not None)
    return None


def _value(thing: Any, name: str) -> Any:
    """An attribute of whatever it is, or ``None``: what is behind it may be a property that raises."""
    try:
        return getattr(thing, name, None)
    except Exception:  # asking for a report must not become an error of its own
        return None


def _found_on(candidate: Any) -> CallReport | None:
    extensions = _value(candidate, "extensions")
    marks = [extensions.get(MARK)] if isinstance(extensions, dict) else []
    marks += [_value(candidate, MARK), _value(candidate, "report")]
    for mark in marks:
        if isinstance(mark, CallReport):
            return mark
        if hasattr(mark, "config") and callable(made := getattr(mark, "report", None)):
            made_report = made()
            if isinstance(made_report, CallReport):
                return made_report
    return None
