"""A clock for many threads and event loops at once, which moves when everybody waits; and a server for it."""

from __future__ import annotations

import asyncio
import heapq
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import sniffio
import trio

from facts import OK, limited
from gip_resilience.memory import MemoryStore
from gip_resilience.state import Permit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.gate import Held, Place
    from gip_resilience.state import Refused
    from gip_resilience.taxonomy import Fact

PATIENCE = 30.0
"""Real seconds after which somebody who is not woken is taken to be forgotten."""

START = 1000.0
EARLY = 1e-6
"""Seconds that adding up times may be off by."""


@dataclass(order=True)
class _Sleeper:
    until: float
    number: int
    wake: Callable[[], object] = field(compare=False)
    up: bool = field(default=False, compare=False)


class Lockstep:
    """Time that stands still while anybody has something to do, then goes on to the moment the next one wakes.

    What happens at the same moment may happen in any order, and really does so at the same time; what happens at
    different moments is in order, however slow the machine.

    Args:
        callers: how many there are; each says `leave` in the end.
    """

    def __init__(self, callers: int) -> None:
        self._lock = threading.Lock()
        self._now = START
        self._awake = callers
        self._numbers = 0
        self._sleepers: list[_Sleeper] = []

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._now

    def time(self) -> float:
        """See `Clock`."""
        return 1_767_225_600.0 + self._now

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        alarm = threading.Event()
        self._lie_down(seconds, alarm.set)
        assert alarm.wait(PATIENCE), "forgotten"

    async def asleep(self, seconds: float) -> None:
        """See `Clock`."""
        alarm = anyio.Event()
        if sniffio.current_async_library() == "trio":
            token = trio.lowlevel.current_trio_token()
            sleeper = self._lie_down(seconds, lambda: token.run_sync_soon(alarm.set))
        else:
            loop = asyncio.get_running_loop()
            sleeper = self._lie_down(seconds, lambda: loop.call_soon_threadsafe(alarm.set))
        try:
            with anyio.fail_after(PATIENCE):
                await alarm.wait()
        finally:
            self._get_up(sleeper)

    def leave(self) -> None:
        """One caller has nothing more to do."""
        with self._lock:
            self._awake -= 1
            self._go_on()

    def _lie_down(self, seconds: float, wake: Callable[[], object]) -> _Sleeper:
        with self._lock:
            self._numbers += 1
            sleeper = _Sleeper(self._now + seconds, self._numbers, wake)
            heapq.heappush(self._sleepers, sleeper)
            self._awake -= 1
            self._go_on()
            return sleeper

    def _get_up(self, sleeper: _Sleeper) -> None:
        """Cancelled; does nothing for one that was woken."""
        with self._lock:
            if not sleeper.up:
                sleeper.up = True
                self._awake += 1

    def _go_on(self) -> None:
        """Needs the lock."""
        while self._awake == 0 and self._sleepers:
            self._now = max(self._now, self._sleepers[0].until)
            while self._sleepers and self._sleepers[0].until <= self._now:
                sleeper = heapq.heappop(self._sleepers)
                if not sleeper.up:
                    sleeper.up = True
                    self._awake += 1
                    sleeper.wake()


class Server:
    """Answers *limit* requests in each window of ten seconds, and says of the others when the next one begins.

    Args:
        clock: what its windows are counted by.
        limit: requests in a window, by its number.
    """

    WINDOW = 10.0
    LATENCY = 0.05

    def __init__(self, clock: Lockstep, limit: Callable[[int], int]) -> None:
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._served: dict[int, int] = {}
        self.sent = 0
        self.refused = 0

    def answer(self) -> Fact:
        """A request arrives."""
        since = self._clock.monotonic() - START + EARLY
        window = int(since // self.WINDOW)
        with self._lock:
            self.sent += 1
            served = self._served.get(window, 0)
            if served < self._limit(window):
                self._served[window] = served + 1
                return OK
            self.refused += 1
        return limited(START + (window + 1) * self.WINDOW - self._clock.monotonic())


@dataclass
class Asked:
    """One question at the gate, and what came of it."""

    at: float
    answer: Permit | Held | Refused


class Witness(MemoryStore):
    """A store that writes down what callers in line were told, and which permits are out."""

    def __init__(self, chance: Callable[[], float]) -> None:
        super().__init__(chance=chance)
        self._writing = threading.Lock()
        self.asked: dict[Place, list[Asked]] = {}
        self.out: set[Permit] = set()

    def acquire(self, *args: Any, place: Place | None = None, **options: Any) -> Permit | Held | Refused:
        """See `Store.acquire`."""
        answer = super().acquire(*args, place=place, **options)
        self._note(place, args[2], answer)
        return answer

    def queue(self, *args: Any) -> Held | None:
        """See `Store.queue`."""
        answer = super().queue(*args)
        if answer is not None:
            self._note(args[3], args[2], answer)
        return answer

    def report(self, key: Any, permit: Permit, *args: Any, **options: Any) -> Any:
        """See `Store.report`."""
        with self._writing:
            self.out.remove(permit)
        return super().report(key, permit, *args, **options)

    def abandon(self, permit: Permit, now: float) -> None:
        """See `Store.abandon`."""
        with self._writing:
            self.out.remove(permit)
        super().abandon(permit, now)

    def _note(self, place: Place | None, now: float, answer: Permit | Held | Refused) -> None:
        with self._writing:
            if isinstance(answer, Permit):
                self.out.add(answer)
            if place is not None:
                self.asked.setdefault(place, []).append(Asked(now, answer))

    @property
    def waiting(self) -> int:
        """Callers in any line."""
        return sum(gate.waiting for gate in self._gates.values())


class Trap:
    """Springs at one of the points that a caller passes, counted from 1; at none with 0."""

    def __init__(self, at: int, spring: Callable[[], object]) -> None:
        self._at = at
        self._spring = spring
        self.passed = 0

    @property
    def sprung(self) -> bool:
        """Whether the caller came that far."""
        return 0 < self._at <= self.passed

    def step(self) -> None:
        """A point is passed."""
        self.passed += 1
        if self.passed == self._at:
            self._spring()


class TrappedClock:
    """A clock with a trap before and after each pause."""

    def __init__(self, clock: Lockstep, trap: Trap) -> None:
        self._clock = clock
        self._trap = trap
        self.monotonic = clock.monotonic
        self.time = clock.time

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        self._trap.step()
        self._clock.sleep(seconds)
        self._trap.step()

    async def asleep(self, seconds: float) -> None:
        """See `Clock`."""
        self._trap.step()
        await self._clock.asleep(seconds)
        self._trap.step()
        await anyio.lowlevel.checkpoint()


class Exchange:
    """A blocking port: some time passes, and the server answers."""

    def __init__(self, server: Server, clock: Lockstep | TrappedClock) -> None:
        self._server = server
        self._clock = clock
        self.failure: Exception | None = None
        self._last = ""

    def attempt(self, timeout: float | None) -> Fact:
        """See `Port.attempt`."""
        self._clock.sleep(self._server.LATENCY)
        return self._heard()

    def release(self) -> None:
        """See `Port.release`."""

    def deliver(self, call: Call) -> str:
        """See `Port.deliver`."""
        return self._last

    def refuse(self, refusal: Refuse, call: Call) -> str:
        """See `Port.refuse`."""
        return refusal.kind

    def _heard(self) -> Fact:
        fact = self._server.answer()
        self._last = fact.code
        return fact


class AsyncExchange(Exchange):
    """The same, awaiting."""

    async def attempt(self, timeout: float | None) -> Fact:  # type: ignore[override]  # the other colour
        """See `AsyncPort.attempt`."""
        await self._clock.asleep(self._server.LATENCY)
        return self._heard()

    async def release(self) -> None:  # type: ignore[override]  # the other colour
        """See `AsyncPort.release`."""
