"""The library's stores, with a count of the permits that are out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from gip_resilience.memory import MemoryStore
from gip_resilience.redis import RedisStore
from gip_resilience.state import Permit

if TYPE_CHECKING:
    from gip_resilience.state import Store

    Base = MemoryStore
else:
    Base = object


class Counting(Base):
    """Counts what is given out and what comes back, over whatever store comes next.

    Attributes:
        granted: permits given out so far.
        reported: permits that came back with a verdict.
        abandoned: permits that came back without one.
        strays: permits that came back twice, or were never given out.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._tally = threading.Lock()
        self._out: dict[int, Permit] = {}
        self.granted = self.reported = self.abandoned = self.strays = 0
        super().__init__(*args, **options)

    @property
    def out(self) -> int:
        """Permits that have not come back."""
        return len(self._out)

    @property
    def waiting(self) -> int:
        """Callers that stand in line at a gate."""
        with self._lock:
            return sum(gate.waiting for gate in self._gates.values())

    def acquire(self, *args: Any, **options: Any) -> Any:
        """See `Store.acquire`."""
        answer = super().acquire(*args, **options)
        if isinstance(answer, Permit):
            with self._tally:
                self.granted += 1
                self._out[id(answer)] = answer
        return answer

    def report(self, key: Any, permit: Permit, *args: Any, **options: Any) -> Any:
        """See `Store.report`."""
        with self._tally:
            self.reported += 1
            self.strays += self._out.pop(id(permit), None) is None
        return super().report(key, permit, *args, **options)

    def abandon(self, permit: Permit, now: float) -> None:
        """See `Store.abandon`."""
        with self._tally:
            self.abandoned += 1
            self.strays += self._out.pop(id(permit), None) is None
        super().abandon(permit, now)


class CountingMemoryStore(Counting, MemoryStore):
    """Of a process that is alone."""


class CountingRedisStore(Counting, RedisStore):
    """Of a process that is one of a fleet."""


def counts(store: Store | Counting) -> dict[str, int]:
    """What is known of its permits."""
    if not isinstance(store, Counting):
        raise TypeError(f"expected a counting store, got {type(store).__name__}")
    return {
        name: getattr(store, name)
        for name in ("granted", "reported", "abandoned", "strays", "out", "waiting")
    }
