"""Which origins are worth draining.

When a stream has ended at its marker, what is left of the body (a chunk's terminator) is read for a moment, so that
the connection can be used again. A peer that does not send it in time costs that moment at every stream; it is left
alone for a while.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REST = 60.0
"""Seconds an origin is left alone after a drain that failed; doubles with every further one."""

LONGEST_REST = 600.0

MAX_ORIGINS = 256
"""Origins remembered at most; the oldest is forgotten first."""


class Drains:
    """What is known of origins that could not be drained. Thread-safe: one lock, held for a lookup.

    Args:
        monotonic: reads a clock that never goes back, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._resting: dict[str, tuple[float, float]] = {}

    def use_clock(self, monotonic: Callable[[], float]) -> None:
        """Count time by another clock, which is not behind."""
        self._monotonic = monotonic

    def worth(self, origin: str) -> bool:
        """Whether to drain a body of this origin."""
        if not self._resting:  # the everyday case; reading a dict's size needs no lock
            return True
        with self._lock:
            until, _ = self._resting.get(origin, (0.0, 0.0))
        return self._monotonic() >= until

    def tell(self, origin: str, ok: bool) -> None:
        """Remember how a drain ended."""
        if ok and not self._resting:
            return
        with self._lock:
            until, rest = self._resting.pop(origin, (0.0, 0.0))
            if ok:
                return
            if self._monotonic() < until:
                self._resting[origin] = (until, rest)  # several began before the first of them had failed
                return
            rest = min(2.0 * rest, LONGEST_REST) if rest else REST
            if len(self._resting) >= MAX_ORIGINS:
                del self._resting[next(iter(self._resting))]
            self._resting[origin] = (self._monotonic() + rest, rest)
