"""One gate and a crowd: threads, two asyncio loops and a trio run wait for one limit, and nobody is forgotten."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import pytest

import gip_resilience as gr
from facts import HOST, MODEL
from gip_resilience.config import Overrides
from gip_resilience.drive import adrive, drive
from gip_resilience.gate import Held
from gip_resilience.state import Permit
from lockstep import (
    EARLY,
    PATIENCE,
    START,
    AsyncExchange,
    Exchange,
    Lockstep,
    Server,
    Trap,
    TrappedClock,
    Witness,
)

if TYPE_CHECKING:
    from gip_resilience.engine import Call

SPREAD = 0.5

# ---- ten thousand calls ----------------------------------------------------------------------------------

THREADS, CALLS_OF_A_THREAD = 8, 200
LOOPS, TASKS, CALLS_OF_A_TASK = ("asyncio", "asyncio", "trio"), 40, 70
CALLERS = THREADS + len(LOOPS) * TASKS
IN_ALL = THREADS * CALLS_OF_A_THREAD + len(LOOPS) * TASKS * CALLS_OF_A_TASK
LIMIT = 400
"""Of a window. They would make some 600, so for the last third of every window the gate is closed; and all who then
stand in line fit into the next one, whoever comes in between."""

IMPATIENT = Overrides.build(deadline=1.0)
"""Every tenth call; some of these are refused, and say so."""


class Crowd:
    """Callers of one brain, and what came of their calls."""

    def __init__(self) -> None:
        self.clock = Lockstep(CALLERS)
        self.server = Server(self.clock, lambda window: LIMIT)
        self.store = Witness(random.Random(7).random)
        self.brain = gr.Resilience(clock=self.clock, store=self.store, chance=random.Random(8).random)
        self.outcomes: Counter[str] = Counter()
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def shout(self, number: int) -> None:
        """A thread's calls, with a pause of about two seconds between them."""
        chance = random.Random(number)
        try:
            for turn in range(CALLS_OF_A_THREAD):
                self.clock.sleep(1.0 + 2.0 * chance.random())
                call = self._call(number + turn)
                self._note(call, drive(call, Exchange(self.server, self.clock), self.clock))
        finally:
            self.clock.leave()

    async def murmur(self, number: int) -> None:
        """The same of a task."""
        chance = random.Random(number)
        try:
            for turn in range(CALLS_OF_A_TASK):
                await self.clock.asleep(1.0 + 2.0 * chance.random())
                call = self._call(number + turn)
                port = AsyncExchange(self.server, self.clock)
                self._note(call, await adrive(call, port, self.clock))  # type: ignore[arg-type]
        finally:
            self.clock.leave()

    def choir(self, number: int, backend: str) -> None:
        """All tasks of one loop."""

        async def sing() -> None:
            async with anyio.create_task_group() as group:
                for task in range(TASKS):
                    group.start_soon(self.murmur, 1000 * (number + 1) + task)

        anyio.run(sing, backend=backend)

    def run(self) -> None:
        """Everybody at once."""
        with ThreadPoolExecutor(THREADS + len(LOOPS)) as pool:
            work = [pool.submit(self.shout, number) for number in range(THREADS)]
            work += [pool.submit(self.choir, number, backend) for number, backend in enumerate(LOOPS)]
            for each in work:
                each.result(2 * PATIENCE)

    def _call(self, number: int) -> Call:
        return self.brain.call(HOST, "", MODEL, overrides=IMPATIENT if number % 10 == 0 else None)

    def _note(self, call: Call, outcome: str) -> None:
        with self._lock:
            self.calls.append(call)
            self.outcomes[outcome] += 1


class Standing:
    """One stay in line: from the first answer that said to wait to the last."""

    def __init__(self, since: float, latest: float, came: float, told: Held) -> None:
        self.since = since
        self.latest = latest
        self.came = came
        self.opening = came + told.seconds
        self.told = [told]
        self.went: float | None = None

    @property
    def window(self) -> int:
        """The opening it waited for."""
        return round((self.opening - START) / Server.WINDOW)


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    """After its ten thousand calls."""
    crowd = Crowd()
    crowd.run()
    return crowd


@pytest.fixture(scope="module")
def standings(crowd: Crowd) -> list[Standing]:
    """Every stay in line there was."""
    found = []
    for place, asked in crowd.store.asked.items():
        standing: Standing | None = None
        for each in asked:
            if isinstance(each.answer, Held) and each.answer.patient:
                if standing is None:
                    standing = Standing(place.since, place.latest, each.at, each.answer)
                    found.append(standing)
                else:
                    standing.told.append(each.answer)
            elif standing is not None:
                standing.went = each.at if isinstance(each.answer, Permit) else None
                standing = None
    return found


def test_every_one_of_ten_thousand_calls_is_counted_once(crowd: Crowd) -> None:
    """By us, by the callers and by the server alike."""
    counts = crowd.brain.metrics.snapshot()

    assert IN_ALL == 10_000 == len(crowd.calls) == counts.total()
    outcomes = Counter(call.outcome for call in crowd.calls)
    assert outcomes == {
        name: counts.total(name) for name in ("success", "failure", "refused") if outcomes[name]
    }
    assert crowd.outcomes["ok"] == counts.total("success") == counts.sent("ok")
    assert crowd.outcomes["rate_limited"] == counts.total("refused") > 0
    assert crowd.outcomes["rate_limit_exceeded"] == counts.total("failure")
    assert set(crowd.outcomes) <= {"ok", "rate_limited", "rate_limit_exceeded"}
    assert counts.sent() == crowd.server.sent
    assert counts.sent("rate_limit_exceeded") == crowd.server.refused > 0
    assert counts.retries == counts.sent() - sum(bool(call.report().attempts) for call in crowd.calls)


def test_whoever_has_the_time_gets_through(crowd: Crowd) -> None:
    """Only calls with a deadline end without a success; and the gate spares the server nearly every refusal."""
    patient = [call for call in crowd.calls if call.config.deadline is None]

    assert len(patient) > 8_000
    assert {call.outcome for call in patient} == {"success"}
    assert crowd.server.refused < crowd.server.sent / 50


def test_nothing_is_left_behind(crowd: Crowd) -> None:
    """No place in the line, no permit, no closed circuit."""
    assert crowd.store.waiting == 0
    assert crowd.store.out == set()
    assert {view.state for view in crowd.brain.breakers.all().values()} == {"closed"}


def test_nobody_starves(crowd: Crowd, standings: list[Standing]) -> None:
    """The longest wait is what the server asked for and the spread: nobody waits for a second opening."""
    assert len({standing.window for standing in standings}) > 10
    lengths: dict[int, float] = {}
    for standing in standings:
        lengths[standing.window] = max(lengths.get(standing.window, 0.0), standing.told[0].seconds)
    for standing in standings:
        assert len(standing.told) <= 2, "it was told to wait for another opening"
        last = standing.opening + SPREAD * lengths[standing.window]
        if standing.went is not None:
            assert standing.opening - EARLY <= standing.went <= last + EARLY
        if len(standing.told) == 2:
            assert standing.told[1].seconds <= SPREAD * lengths[standing.window] + EARLY
    longest = max(lengths.values())
    assert longest <= Server.WINDOW
    most = max(call.ended - call.started for call in crowd.calls)
    assert most <= (1.0 + SPREAD) * longest + 2.0 * Server.LATENCY + EARLY


def test_the_line_goes_in_order(standings: list[Standing]) -> None:
    """Of those who waited for the same opening, and were in no hurry, whose call began first goes first."""
    openings: dict[int, list[Standing]] = {}
    for standing in standings:
        if standing.latest > standing.opening + Server.WINDOW:
            assert standing.went is not None
            openings.setdefault(standing.window, []).append(standing)
    assert max(map(len, openings.values())) > CALLERS / 3
    for line in openings.values():
        line.sort(key=lambda standing: (standing.went or math.inf, standing.since))
        assert [standing.since for standing in line] == sorted(standing.since for standing in line)
        assert len({standing.went for standing in line}) == len(line), "two went at once"


# ---- cancelled, wherever it may be -----------------------------------------------------------------------

COLOURS = ("blocking", "asyncio", "trio")
ROLES = {"refused first": 0, "in the middle": 1, "last": 2}


class ThreeCallers:
    """Three callers, a second after each other, of a server that answers nobody for ten seconds.

    Args:
        colour: threads, or tasks of a loop.
        victim: the number of the one that is cancelled.
        at: at which point on its way; 0 for none.
        when: or when, in seconds.
    """

    def __init__(self, colour: str, victim: int, at: int = 0, when: float | None = None) -> None:
        self.colour = colour
        self._victim = victim
        self._when = when
        self.clock = Lockstep(3 if when is None else 4)
        self.server = Server(self.clock, lambda window: 0 if window == 0 else LIMIT)
        self.store = Witness(lambda: 0.5)
        self.brain = gr.Resilience(clock=self.clock, store=self.store, chance=lambda: 0.5)
        self.trap = Trap(at, self._spring)
        self.ends: dict[int, str] = {}
        self.times: dict[int, float] = {}
        self.sent_afterwards = ""

    def _spring(self) -> None:
        if self.colour == "blocking":
            raise KeyboardInterrupt
        self._scope.cancel()

    def run(self) -> None:
        """All three, and one more when they have gone."""
        if self.colour == "blocking":
            threads = [threading.Thread(target=self._call, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
        else:
            anyio.run(self._all, backend=self.colour)
        late = self.brain.call(HOST, "", MODEL)
        alone = Lockstep(1)
        self.sent_afterwards = drive(late, Exchange(self.server, alone), alone)

    async def _all(self) -> None:
        self._scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(self._acall, number)
            if self._when is not None:
                await self.clock.asleep(self._when)
                self._scope.cancel()
                self.clock.leave()

    def _call(self, number: int) -> None:
        clock = TrappedClock(self.clock, self._trap_of(number))
        try:
            self.clock.sleep(number)
            call = self.brain.call(HOST, "", MODEL)
            self._note(number, drive(call, Exchange(self.server, clock), clock))
        except KeyboardInterrupt:
            self._note(number, "interrupted")
        finally:
            self.clock.leave()

    async def _acall(self, number: int) -> None:
        clock = TrappedClock(self.clock, self._trap_of(number))
        try:
            await self.clock.asleep(number)
            with self._scope if number == self._victim else anyio.CancelScope() as scope:
                call = self.brain.call(HOST, "", MODEL)
                port = AsyncExchange(self.server, clock)
                self._note(number, await adrive(call, port, clock))  # type: ignore[arg-type]
            if scope.cancelled_caught:
                self._note(number, "interrupted")
        finally:
            self.clock.leave()

    def _trap_of(self, number: int) -> Trap:
        return self.trap if number == self._victim else Trap(0, lambda: None)

    def _note(self, number: int, end: str) -> None:
        self.ends[number] = end
        self.times[number] = self.clock.monotonic() - START


def assert_only_the_victim_is_gone(scene: ThreeCallers, victim: int, cancelled: bool) -> None:
    """The others go in order and in time, nothing is held, and who comes later passes."""
    ends = ["ok", "ok", "ok"]
    if cancelled:
        ends[victim] = "interrupted"
    assert [scene.ends[number] for number in range(3)] == ends
    assert scene.sent_afterwards == "ok"
    assert scene.store.waiting == 0
    assert scene.store.out == set()
    assert all(place.gate is None for place in scene.store.asked)
    counts = scene.brain.metrics.snapshot()
    assert (counts.total("success"), counts.total("cancelled")) == ((3, 1) if cancelled else (4, 0))
    assert counts.total() == 4
    rest = [scene.times[number] for number in range(3) if number != victim]
    assert rest == sorted(rest)
    assert 10.0 <= rest[0] < rest[1] <= 10.0 + SPREAD * 10.0 + Server.LATENCY + EARLY


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_caller_that_is_interrupted_leaves_nothing(colour: str, role: str) -> None:
    """At every point there is: before and after the attempt, the wait for the opening, that for the turn, and so on.

    A thread is interrupted by an error out of what it waits in, a task is cancelled.
    """
    victim = ROLES[role]
    for point in itertools.count(1):
        scene = ThreeCallers(colour, victim, point)
        scene.run()
        assert_only_the_victim_is_gone(scene, victim, scene.trap.sprung)
        if not scene.trap.sprung:
            break
    assert point > (8 if role == "refused first" else 6)


@pytest.mark.parametrize(
    ("role", "when", "cancelled"),
    [
        ("refused first", 0.01, True),
        ("refused first", 5.0, True),
        ("refused first", 10.4, True),
        ("in the middle", 1.5, True),
        ("in the middle", 9.9, True),
        ("in the middle", 11.0, True),
        ("in the middle", 20.0, False),
        ("last", 9.9, True),
        ("last", 13.0, True),
        ("last", 14.19, True),
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing(
    backend: str, role: str, when: float, cancelled: bool
) -> None:
    """In line before the opening, between it and its turn, and while its attempt is under way."""
    scene = ThreeCallers(backend, ROLES[role], when=when)

    scene.run()

    assert_only_the_victim_is_gone(scene, ROLES[role], cancelled)
