"""Clocks on which waiting costs no time: one to hand over, and one that takes the machine's place."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gip_resilience.clock import SystemClock, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeClock:
    """A clock that only moves when told to, or slept by.

    Sleeping returns at once, moves the clock by as much, and is recorded. Under an event loop it still is a
    checkpoint: other tasks get their turn, and a cancellation arrives.

    Args:
        monotonic: what `monotonic` starts from, in seconds.
        time: Unix time at the start; 2026-01-01 00:00:00 UTC by default.

    Attributes:
        slept: every pause so far, in seconds.

    Thread-safe and task-safe; bound to no event loop.
    """

    def __init__(self, monotonic: float = 1000.0, time: float = 1_767_225_600.0) -> None:
        self._lock = threading.Lock()
        self._start = monotonic
        self._now = monotonic
        self._time = time
        self.slept: list[float] = []

    def __repr__(self) -> str:
        return f"<FakeClock +{self._now - self._start:.3f} s, slept {len(self.slept)} times>"

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self._now

    def time(self) -> float:
        """Unix time in seconds."""
        return self._time + (self._now - self._start)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: *seconds* is negative.
        """
        if seconds < 0:
            raise ValueError("a clock does not go back")
        with self._lock:
            self._now += seconds

    @property
    def total(self) -> float:
        """Seconds slept in all."""
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        """Pause for no time at all, and write it down."""
        with self._lock:
            self._now += max(0.0, seconds)
            self.slept.append(seconds)

    async def asleep(self, seconds: float) -> None:
        """Pause for no time at all, write it down, and let others run."""
        import anyio.lowlevel

        self.sleep(seconds)
        await anyio.lowlevel.checkpoint()


class InstantClock:
    """The machine's clock, ahead by what would have been slept; see `instant`.

    It goes on when the block is over: circuits and gates have written down moments that are still to come.

    Attributes:
        slept: the pauses of this block, in seconds.

    Thread-safe and task-safe; bound to no event loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._real = SystemClock()
        self._ahead = 0.0
        self._blocks = 0
        self.slept: list[float] = []

    def __repr__(self) -> str:
        return f"<InstantClock +{self._ahead:.3f} s, slept {len(self.slept)} times>"

    @property
    def total(self) -> float:
        """Seconds slept in this block."""
        return sum(self.slept)

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic() + self._ahead

    def time(self) -> float:
        """Unix time in seconds."""
        return time.time() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Pause for no time at all, and write it down; for real when no block is open."""
        if not self._skip(seconds):
            self._real.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """The same under an event loop; others get their turn."""
        import anyio.lowlevel

        if self._skip(seconds):
            await anyio.lowlevel.checkpoint()
        else:
            await self._real.asleep(seconds)

    def _enter(self) -> None:
        with self._lock:
            if not self._blocks:
                self.slept = []
            self._blocks += 1

    def _leave(self) -> None:
        with self._lock:
            self._blocks -= 1

    def _skip(self, seconds: float) -> bool:
        with self._lock:
            if self._blocks:
                self._ahead += max(0.0, seconds)
                self.slept.append(seconds)
            return self._blocks > 0


_instant = InstantClock()
"""One for all blocks: each goes on where the one before was, so that no brain's time goes back."""


@contextmanager
def instant() -> Iterator[InstantClock]:
    """No waits inside the block: pauses are over at once, for every `Resilience` that was given no clock.

    For code that makes its own, at import or deep inside, where `FakeClock` cannot be handed over. It holds for
    the whole process, in all threads and event loops, and for those that are made within the block. What happens
    elsewhere (connecting, the answer itself, timeouts of the client) takes the time it takes. Blocks may be nested.

    Yields:
        The clock; `InstantClock.slept` tells what would have been waited.
    """
    _instant._enter()  # noqa: SLF001 - a block of ours
    try:
        stand_in(_instant)
        yield _instant
    finally:
        _instant._leave()  # noqa: SLF001
