"""`FakeClock` and `instant`: waiting costs nothing, and what would have been waited is known."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import gip_resilience as gr
from gip_resilience.clock import SystemClock, follow
from gip_resilience.gateway import Error, FaultPlan, RateLimited
from gip_resilience.testing import FakeClock, instant
from gip_resilience.testing.clocks import InstantClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.clock import Clock
    from gip_resilience.gateway import Gateway
    from harness import Harness


def blocking(clock: Clock, seconds: float) -> None:
    """Wait by blocking."""
    clock.sleep(seconds)


def under_asyncio(clock: Clock, seconds: float) -> None:
    """Wait under asyncio."""
    asyncio.run(clock.asleep(seconds))


def under_trio(clock: Clock, seconds: float) -> None:
    """Wait under trio."""
    trio.run(clock.asleep, seconds)


WAYS = [blocking, under_asyncio, under_trio]
ways = pytest.mark.parametrize("wait", WAYS, ids=lambda way: way.__name__)


@ways
def test_sleeping_is_free_and_recorded(wait: Callable[[Clock, float], None]) -> None:
    """The clock moves by as much as was slept, and by nothing else."""
    clock = FakeClock(monotonic=5.0, time=100.0)
    wait(clock, 3.0)
    wait(clock, 0.5)
    clock.advance(1.0)
    assert (clock.monotonic(), clock.time(), clock.slept, clock.total) == (9.5, 104.5, [3.0, 0.5], 3.5)


@ways
def test_a_negative_pause_does_not_turn_time_back(wait: Callable[[Clock, float], None]) -> None:
    """What was asked for is recorded all the same."""
    clock = FakeClock()
    wait(clock, -1.0)
    assert (clock.monotonic(), clock.slept) == (1000.0, [-1.0])


def test_time_is_not_turned_back() -> None:
    """A clock that goes back is no clock."""
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-0.1)


def test_others_run_meanwhile() -> None:
    """A pause is a checkpoint: another task gets its turn, and a cancellation arrives."""
    clock = FakeClock()
    turns: list[str] = []

    async def both() -> None:
        async def other() -> None:
            turns.append("other")

        task = asyncio.create_task(other())
        await clock.asleep(1.0)
        turns.append("slept")
        await task

    asyncio.run(both())
    assert turns == ["other", "slept"]


@ways
def test_instant_skips_the_wait(wait: Callable[[Clock, float], None]) -> None:
    """Time on the clock has passed, time of the machine has not."""
    brain = gr.Resilience()
    began = time.monotonic()
    with instant() as clock:
        before = brain.clock.monotonic(), brain.clock.time()
        wait(brain.clock, 3600.0)
        after = brain.clock.monotonic(), brain.clock.time()
    assert clock.slept == [3600.0]
    assert clock.total == 3600.0
    assert time.monotonic() - began < 60
    assert min(new - old for new, old in zip(after, before, strict=True)) >= 3600.0


@ways
def test_after_the_block_waiting_is_real(wait: Callable[[Clock, float], None]) -> None:
    """A pause takes its time again, and time does not go back."""
    brain = gr.Resilience()
    with instant() as clock:
        brain.clock.sleep(100.0)
        inside = brain.clock.monotonic()
    assert brain.clock.monotonic() >= inside
    began = time.monotonic()
    wait(brain.clock, 0.02)
    assert time.monotonic() - began >= 0.02
    assert clock.slept == [100.0]


def test_blocks_nest_and_begin_anew() -> None:
    """An inner block goes on with the record of the outer one; the next block has one of its own."""
    brain = gr.Resilience()
    with instant() as clock:
        brain.clock.sleep(1.0)
        with instant() as inner:
            brain.clock.sleep(2.0)
        brain.clock.sleep(3.0)
        assert inner is clock
        assert clock.slept == [1.0, 2.0, 3.0]
    with instant() as clock:
        assert clock.slept == []
    assert repr(clock).startswith("<InstantClock +")


def test_an_error_ends_the_block() -> None:
    """What is raised inside comes out, and waiting is real again."""
    brain = gr.Resilience()
    with pytest.raises(KeyError), instant():
        raise KeyError
    began = time.monotonic()
    brain.clock.sleep(0.02)
    assert time.monotonic() - began >= 0.02


@pytest.mark.parametrize("inside", [False, True], ids=["before", "inside"])
def test_calls_do_not_wait(harness: Harness, gateway: Gateway, inside: bool) -> None:
    """Under every client: brains made before the block and within it, for retries and for the gate."""
    gateway.plan = FaultPlan.script([Error("model_overloaded", retry_after=30), RateLimited(20)])
    brain = None if inside else gr.Resilience()
    began = time.monotonic()
    with instant() as clock:
        brain = brain or gr.Resilience()
        with harness.open(brain) as session:
            answer = session.post(gateway.base_url + "/chat/completions")
    assert answer.status == 200
    assert [attempt.code for attempt in answer.report.attempts] == [
        "model_overloaded",
        "rate_limit_exceeded",
        "ok",
    ]
    assert clock.total >= 50.0
    assert time.monotonic() - began < 30.0


def test_a_gate_stays_closed_for_its_time(harness: Harness, gateway: Gateway) -> None:
    """A moment that was written down inside the block is still that far away after it."""
    gateway.plan = FaultPlan.always(RateLimited(40))
    config = gr.Config.from_dict({"policies": {"rate_limit_exceeded": {"max_attempts": 1}}})
    brain = gr.Resilience(config)
    with instant(), harness.open(brain) as session:
        brain.clock.sleep(1_000.0)
        session.post(gateway.base_url + "/chat/completions")
    (gate,) = brain.metrics.snapshot().closed_gates.values()
    assert 0 < gate.remaining <= 60


def test_a_clock_that_was_given_stays() -> None:
    """Who was told which clock to go by is left alone."""
    mine = FakeClock()
    brain = gr.Resilience(clock=mine)
    with instant():
        assert brain.clock is mine
    assert brain.clock is mine


def test_all_parts_go_by_the_new_clock() -> None:
    """Circuits, log limits and drains count by the same time as the calls do."""
    brain = gr.Resilience()
    with instant() as clock:
        clock.sleep(10_000.0)
        readers = [
            brain._world.monotonic,
            brain._logs._say.__self__._monotonic,
            brain.drains._monotonic,
        ]
        now = clock.monotonic()
        assert all(abs(reader() - now) < 100.0 for reader in readers)


def test_brains_are_not_kept_alive() -> None:
    """Being told of another clock is no reason to live."""
    import weakref

    gone = weakref.ref(gr.Resilience())
    gc.collect()
    assert gone() is None


def test_brains_made_by_other_threads_meanwhile() -> None:
    """A block that begins while brains are being made reaches every one of them."""
    made: list[gr.Resilience] = []
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            made.append(gr.Resilience())
            if len(made) > 3000:
                return

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with instant() as clock:
            pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(brain.clock is clock for brain in made)


def test_a_follower_is_told_once_more_when_the_list_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of followers that changes while it is read is read again."""
    from gip_resilience import clock as module

    class Changing:
        reads = 0

        def __iter__(self) -> Any:
            self.reads += 1
            if self.reads == 1:
                raise RuntimeError("Set changed size during iteration")
            return iter(())

        def add(self, follower: Any) -> None:
            pass

    changing = Changing()
    monkeypatch.setattr(module._Current, "followers", changing)
    monkeypatch.setattr(module._Current, "clock", module._Current.clock)
    module.stand_in(module._Current.clock)
    assert changing.reads == 2


def test_the_machines_clock_is_what_is_followed_first() -> None:
    """A process that never tested anything goes by the machine's clock itself, with nothing in between."""
    import subprocess
    import sys

    script = (
        "import gip_resilience as gr, time;"
        "brain = gr.Resilience();"
        "print(type(brain.clock).__name__, brain._world.monotonic is time.monotonic)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["SystemClock", "True"]


def test_repr() -> None:
    """Fit for a bug report."""
    clock = FakeClock()
    clock.sleep(1.5)
    assert repr(clock) == "<FakeClock +1.500 s, slept 1 times>"
    assert repr(InstantClock()) == "<InstantClock +0.000 s, slept 0 times>"
    assert isinstance(follow(gr.Resilience()), (SystemClock, InstantClock))


def test_many_threads_sleep_at_once() -> None:
    """No pause is lost."""
    clock = FakeClock()
    pause = partial(clock.sleep, 0.001)
    threads = [threading.Thread(target=lambda: [pause() for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clock.slept) == 4000
    assert clock.monotonic() == pytest.approx(1004.0)
