"""What happened, as frozen values, and how to be told of it.

An observer is any object; it has a method for each kind of event it wants, named after the event::

    class Pager:
        def on_circuit_changed(self, event: CircuitChanged) -> None: ...

Observers are called in the thread or task of the call that caused the event, outside every lock. One that
raises is logged once and does not disturb the call.

No event holds a key, a prompt, a header's value or a body.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gip_resilience._report import CallReport, Hop
    from gip_resilience.breaker import Transition
    from gip_resilience.state import CircuitKey

logger = logging.getLogger("gip_resilience")


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """An attempt failed and another one follows.

    Attributes:
        host: whom the call is for.
        model: the model, or an empty string.
        code: the code of the failure.
        attempt: number of the attempt that failed, from 1.
        max_attempts: how many the call has, by the policies of what it met so far.
        wait: seconds until the next attempt.
        reason: what the wait is: ``backoff``, ``hint`` or ``gate``.
        maybe_executed: whether the failed attempt may have been executed all the same.
    """

    host: str
    model: str
    code: str
    attempt: int
    max_attempts: int
    wait: float
    reason: str
    maybe_executed: bool


@dataclass(frozen=True, slots=True)
class GateWaited:
    """A call found the rate-limit gate closed and waits ``wait`` seconds before its next attempt."""

    host: str
    model: str
    wait: float


@dataclass(frozen=True, slots=True)
class CircuitChanged:
    """A circuit opened, closed, or let a probe through."""

    circuit: CircuitKey
    transition: Transition


@dataclass(frozen=True, slots=True)
class StreamBroken:
    """An event stream broke, and this is what is done about it.

    Attributes:
        host: whom the call is for.
        model: the model, or an empty string.
        hop: how it broke, and what is done.
    """

    host: str
    model: str
    hop: Hop


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is over, one way or another."""

    report: CallReport


Event = RetryScheduled | GateWaited | CircuitChanged | StreamBroken | CallEnded

_METHODS: dict[type[Event], str] = {
    RetryScheduled: "on_retry_scheduled",
    GateWaited: "on_gate_waited",
    CircuitChanged: "on_circuit_changed",
    StreamBroken: "on_stream_broken",
    CallEnded: "on_call_ended",
}


class Announcer:
    """Tells observers. Immutable but for remembering which of them has already been reported as broken.

    Args:
        observers: objects with any of the methods ``on_retry_scheduled``, ``on_gate_waited``,
            ``on_circuit_changed``, ``on_stream_broken``, ``on_call_ended``.

    Raises:
        TypeError: an observer has none of these methods.
    """

    __slots__ = ("_broken", "_listeners")

    def __init__(self, observers: Iterable[object]) -> None:
        self._broken: set[int] = set()
        self._listeners: dict[type[Event], list[object]] = {}
        for observer in observers:
            wanted = [kind for kind, method in _METHODS.items() if callable(getattr(observer, method, None))]
            if not wanted:
                expected = ", ".join(_METHODS.values())
                raise TypeError(f"observer {observer!r} has none of the methods {expected}")
            for kind in wanted:
                self._listeners.setdefault(kind, []).append(observer)

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody listens: an event nobody wants need not be made."""
        return kind in self._listeners

    def tell(self, event: Event) -> None:
        """Tell everybody who wants this kind of event."""
        for observer in self._listeners.get(type(event), ()):
            try:
                getattr(observer, _METHODS[type(event)])(event)
            except Exception:
                if id(observer) not in self._broken:
                    self._broken.add(id(observer))
                    logger.exception("an observer failed; its further failures are not reported")
