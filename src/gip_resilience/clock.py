"""The clock that drivers wait by; tests bring their own."""

from __future__ import annotations

import time
import weakref
from typing import ClassVar, Protocol

__all__ = ["Clock", "Follower", "SystemClock", "current", "follow", "stand_in"]


class Clock(Protocol):
    """Where time comes from, and how to wait. Implementations are thread-safe and bound to no event loop."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    def time(self) -> float:
        """Unix time in seconds; only used to read absolute dates a server sent."""

    def sleep(self, seconds: float, /) -> None:
        """Block for *seconds*."""

    async def asleep(self, seconds: float, /) -> None:
        """Wait for *seconds* under the event loop that is running, asyncio's or trio's."""


class SystemClock:
    """The machine's clock."""

    def __repr__(self) -> str:
        return "SystemClock()"

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)  # noqa: TID251 - this is the one place that may
    time = staticmethod(time.time)  # last: from here on the name no longer means the module

    async def asleep(self, seconds: float) -> None:
        """Wait; anyio is there whenever httpx or httpx2 is, and knows both event loops."""
        import anyio

        await anyio.sleep(seconds)


class Follower(Protocol):
    """What goes by the clock of this module, whichever that is."""

    def use_clock(self, clock: Clock, /) -> None:
        """Go by *clock* from now on; it is not behind the one before."""


class _Current:
    """The clock of those who were given none, and who they are."""

    clock: ClassVar[Clock] = SystemClock()
    followers: ClassVar[weakref.WeakSet[Follower]] = weakref.WeakSet()


def current() -> Clock:
    """The clock of those who were given none."""
    return _Current.clock


def follow(follower: Follower) -> Clock:
    """Have *follower* told when another clock takes the place of `current`, which is returned."""
    # First the name, then the look at the clock: who is not told of a new one sees it here. So no lock is needed,
    # which a fork could leave taken.
    _Current.followers.add(follower)
    return _Current.clock


def stand_in(clock: Clock) -> None:
    """Have *clock* take the place of the machine's; for `gip_resilience.testing.instant`."""
    _Current.clock = clock
    for follower in _all_followers():
        follower.use_clock(clock)


def _all_followers() -> list[Follower]:
    while True:
        try:
            return list(_Current.followers)
        except RuntimeError:  # another thread made one meanwhile
            continue
