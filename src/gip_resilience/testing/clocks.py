"""What tests of resilient code need: a clock that costs no time.

`FakeClock` goes into ``Resilience(clock=...)``: every pause is over at once and is written down. The local gateway
(`gip_resilience.gateway`) is the other half: a real server on loopback that fails on a plan.
"""

from __future__ import annotations

import threading

from gip_resilience.gateway import FaultPlan, Gateway, StreamOptions

__all__ = ["FakeClock", "FaultPlan", "Gateway", "StreamOptions"]


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
