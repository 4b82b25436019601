"""The clock that drivers wait by; tests bring their own."""

from __future__ import annotations

import time
from typing import Protocol


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
