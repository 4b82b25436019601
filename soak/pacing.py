"""When callers call and when they rest."""

from __future__ import annotations

import threading
import time

import anyio

POLL = 0.02
"""Seconds between two looks of a caller that rests and may not block."""


class Pacer:
    """Brings all callers to rest, and lets them go on. Thread-safe.

    Attributes:
        ended: whether they are to leave.
    """

    def __init__(self) -> None:
        self._go = threading.Event()
        self._lock = threading.Lock()
        self._resting = 0
        self.ended = False

    def pause(self) -> None:
        """Let each caller finish what it does, and rest."""
        self._go.clear()

    def resume(self) -> None:
        """Let them go on."""
        self._go.set()

    def end(self) -> None:
        """Let them leave."""
        self.ended = True
        self._go.set()

    @property
    def resting(self) -> int:
        """How many rest."""
        return self._resting

    def all_rest(self, callers: int, patience: float) -> bool:
        """Wait until so many rest; whether they do in time."""
        until = time.monotonic() + patience
        while self._resting < callers:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)  # noqa: TID251 - other threads, in real time
        return True

    def _count(self, change: int) -> None:
        with self._lock:
            self._resting += change

    def rest(self) -> bool:
        """Rest if that is wanted. Returns whether to go on."""
        if not self._go.is_set():
            self._count(1)
            self._go.wait()
            self._count(-1)
        return not self.ended

    async def arest(self) -> bool:
        """The same for those who await."""
        if not self._go.is_set():
            self._count(1)
            while not self._go.is_set():  # noqa: ASYNC110 - whoever sets it is in another thread
                await anyio.sleep(POLL)
            self._count(-1)
        return not self.ended
