"""One brain for many callers at once: threads, tasks, two asyncio loops and a trio run."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import gip_resilience as gr
from gip_resilience.gateway import (
    Close,
    Error,
    FaultPlan,
    Gateway,
    HalfBody,
    RateLimited,
    Reset,
    Rule,
    Status,
)
from gip_resilience.memory import MemoryStore
from gip_resilience.state import ScopeKey
from harness import CHAT, HARNESSES
from interposed import interpose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.testing import FakeClock
    from harness import Harness, Session


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """One of its own for each test: what a cancelled request still does there must not reach the next."""
    with Gateway() as started:
        yield started


PATIENCE = 30.0
"""Seconds after which a call that has not ended is taken to be deadlocked."""

MODEL = str(CHAT["model"])


class Crowd:
    """Many callers of one client at once: threads for a blocking client, tasks for an awaiting one."""

    def __init__(self, session: Session, url: str) -> None:
        self._session = session
        self._url = url
        self._threads = ThreadPoolExecutor(64)

    def start(self, model: str = MODEL) -> Future[Any]:
        """Begin a call; its status, or what it raised."""
        chat = {**CHAT, "model": model}
        client = self._session.client
        if self._session.harness.colour == "async":

            async def send() -> int:
                return int((await client.post(self._url, json=chat, timeout=PATIENCE)).status_code)

            return self._session.portal.start_task_soon(send)
        return self._threads.submit(lambda: client.post(self._url, json=chat, timeout=PATIENCE).status_code)

    def close(self) -> None:
        """Wait for all."""
        self._threads.shutdown()


class Turnstile:
    """Holds requests up before they are sent, once it is closed; counts who has come."""

    def __init__(self, harness: Harness) -> None:
        self.came = 0
        self._lock = threading.Lock()
        self._someone = threading.Condition(self._lock)
        self._open = threading.Event()
        self._open.set()
        self.act = self._aact if harness.colour == "async" else self._act

    def shut(self) -> None:
        """From now on, nobody passes."""
        self.came = 0
        self._open.clear()

    def open(self) -> None:
        """Let pass who waits, and who will come."""
        self._open.set()

    def wait_for(self, count: int) -> None:
        """Until so many have come."""
        with self._someone:
            assert self._someone.wait_for(lambda: self.came >= count, PATIENCE)

    def _act(self, where: str) -> None:
        if where != "send":
            return
        with self._someone:
            self.came += 1
            self._someone.notify_all()
        assert self._open.wait(PATIENCE)

    async def _aact(self, where: str) -> None:
        if where == "send":
            await anyio.to_thread.run_sync(self._act, where, limiter=anyio.CapacityLimiter(1))


class Stopped:
    """A clock that stands still until it is told to go on, and knows who sleeps."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._changed = threading.Condition()
        self.sleepers = 0
        self.sleeps = 0

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._now

    def time(self) -> float:
        """See `Clock`."""
        return 1_767_225_600.0 + self._now

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        with self._changed:
            until = self._now + seconds
            self.sleepers += 1
            self.sleeps += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._now >= until, PATIENCE)
            self.sleepers -= 1

    async def asleep(self, seconds: float) -> None:
        """See `Clock`."""
        await anyio.to_thread.run_sync(self.sleep, seconds, limiter=anyio.CapacityLimiter(1))

    def wait_for_sleepers(self, count: int) -> None:
        """Until so many sleep at the same time."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.sleepers == count, PATIENCE)

    def wait_for_sleeps(self, count: int) -> None:
        """Until so many pauses have been begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.sleeps == count, PATIENCE)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._changed:
            self._now += seconds
            self._changed.notify_all()


@pytest.fixture
def turnstile(harness: Harness) -> Turnstile:
    """Under the client, over the network."""
    return Turnstile(harness)


@pytest.fixture
def brain(clock: FakeClock) -> gr.Resilience:
    """One that never sleeps for long."""
    return gr.Resilience(clock=clock)


@pytest.fixture
def crowd(harness: Harness, gateway: Gateway, brain: gr.Resilience, turnstile: Turnstile) -> Iterator[Crowd]:
    """Callers of a client with *brain* mounted and *turnstile* beneath it."""
    with harness.open() as session:
        interpose(session, turnstile.act)
        gr.mount(session.client, brain)
        callers = Crowd(session, gateway.base_url + "/chat/completions")
        try:
            yield callers
        finally:
            turnstile.open()
            callers.close()


def host_of(gateway: Gateway) -> str:
    """How a circuit calls the gateway."""
    return gateway.url.removeprefix("http://")


# ---- circuits --------------------------------------------------------------------------------------------


def test_of_fifty_callers_at_a_half_open_circuit_one_is_the_probe(
    crowd: Crowd, gateway: Gateway, brain: gr.Resilience, turnstile: Turnstile, clock: FakeClock
) -> None:
    """The others are refused while it is under way, and nothing of theirs is sent."""
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    assert crowd.start().result(PATIENCE) == 502
    gateway.clear()
    clock.advance(10.0)
    turnstile.shut()

    calls = [crowd.start() for _ in range(50)]
    turnstile.wait_for(1)
    refused = _ended(calls, 49)
    turnstile.open()

    assert {type(call.exception()).__name__ for call in refused} == {"CircuitOpenError"}
    (probe,) = set(calls) - set(refused)
    assert probe.result(PATIENCE) == 200
    assert (turnstile.came, len(gateway.requests)) == (1, 1)
    assert brain.breakers[host_of(gateway), MODEL].state == "closed"
    assert crowd.start().result(PATIENCE) == 200


def _ended(calls: list[Future[Any]], count: int) -> list[Future[Any]]:
    """The first *count* of the calls that end."""
    done: set[Future[Any]] = set()
    pending = set(calls)
    while len(done) < count:
        finished, pending = wait_for(pending, PATIENCE, "FIRST_COMPLETED")
        assert finished, "nobody ends"
        done |= finished
    return list(done)


def test_a_success_that_comes_late_does_not_close_an_open_circuit(
    crowd: Crowd, gateway: Gateway, brain: gr.Resilience, turnstile: Turnstile
) -> None:
    """It was sent when all was well; since then the model has said that it is not."""
    turnstile.shut()
    late = crowd.start()
    turnstile.wait_for(1)
    brain.store.report(*_trip(brain, gateway))
    turnstile.open()

    assert late.result(PATIENCE) == 200
    assert brain.breakers[host_of(gateway), MODEL].state == "open"
    with pytest.raises(gr.CircuitOpenError):
        crowd.start().result(PATIENCE)


def test_a_failure_that_comes_late_does_not_open_a_mended_circuit(
    crowd: Crowd, gateway: Gateway, brain: gr.Resilience, turnstile: Turnstile
) -> None:
    """A reset is the shortest way to mend one."""
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    turnstile.shut()
    late = crowd.start()
    turnstile.wait_for(1)
    brain.breakers.reset()
    turnstile.open()

    assert late.result(PATIENCE) == 502
    assert brain.breakers[host_of(gateway), MODEL].state == "closed"
    assert crowd.start().result(PATIENCE) == 200


def _trip(brain: gr.Resilience, gateway: Gateway) -> tuple[Any, ...]:
    """What another client of the same brain reports when the model is unavailable."""
    key = ScopeKey(host_of(gateway), "", MODEL)
    now = brain.clock.monotonic()
    permit = brain.store.acquire(key, brain.config, now, first=True)
    body = b'{"error": {"type": "error", "code": "model_unavailable", "message": "-"}}'
    fact = gr.classify(503, {}, body)
    return key, permit, fact, fact.host, fact.model, now


def test_rate_limits_open_no_circuit(crowd: Crowd, gateway: Gateway, brain: gr.Resilience) -> None:
    """However many there are, from however many callers."""
    gateway.plan = FaultPlan.always(RateLimited(1))

    statuses = {call.result(PATIENCE) for call in [crowd.start() for _ in range(20)]}

    assert statuses <= {429}
    assert len(gateway.requests) >= 20
    assert {view.state for view in brain.breakers.all().values()} == {"closed"}
    assert {view.failures for view in brain.breakers.all().values()} == {0}


# ---- the gate --------------------------------------------------------------------------------------------


class TestGate:
    """With time that stands still."""

    @pytest.fixture
    def clock(self) -> Stopped:
        """In place of the clock that costs nothing."""
        return Stopped()

    def test_the_first_429_holds_everybody_of_its_scope(
        self, crowd: Crowd, gateway: Gateway, brain: gr.Resilience, clock: Stopped
    ) -> None:
        """While the gate is closed nothing is sent for that model; other models are not concerned."""
        gateway.plan = FaultPlan.script([RateLimited(30)])
        calls = [crowd.start()]
        clock.wait_for_sleepers(1)
        calls += [crowd.start() for _ in range(49)]
        clock.wait_for_sleepers(50)
        assert len(gateway.requests) == 1

        assert crowd.start("openai/gpt-5").result(PATIENCE) == 200

        clock.advance(29.9)
        assert clock.sleepers == 50
        assert [seen.model for seen in gateway.requests] == [MODEL, "openai/gpt-5"]

        clock.advance(0.2)
        clock.wait_for_sleeps(2 * 50)
        assert len(gateway.requests) == 2
        clock.advance(60.0)
        assert {call.result(PATIENCE) for call in calls} == {200}
        assert len(gateway.requests) == 2 + 50
        assert brain.metrics.snapshot().sent("rate_limit_exceeded") == 1

    def test_they_are_not_released_at_the_same_moment(
        self, crowd: Crowd, gateway: Gateway, clock: Stopped
    ) -> None:
        """But each at its turn, over half as long again as the gate was closed."""
        gateway.plan = FaultPlan.script([RateLimited(30)])
        calls = [crowd.start()]
        clock.wait_for_sleepers(1)
        calls += [crowd.start() for _ in range(49)]
        clock.wait_for_sleepers(50)

        clock.advance(30.0)
        clock.wait_for_sleeps(2 * 50)
        clock.advance(7.5)
        _ended(calls, 20)
        early = len([call for call in calls if call.done()])
        clock.advance(60.0)

        assert {call.result(PATIENCE) for call in calls} == {200}
        assert 20 <= early <= 30


# ---- everything at once ----------------------------------------------------------------------------------

MIXED = FaultPlan(
    (
        Rule(Error("model_unavailable"), model="dead"),
        Rule(Error("model_overloaded"), p=0.08),
        Rule(Error("model_server_error", retry_after=0.5), p=0.05),
        Rule(Status(503), p=0.04),
        Rule(RateLimited(0.2), p=0.04),
        Rule(Error("invalid_request"), p=0.05),
        Rule(HalfBody("fin"), p=0.03),
        Rule(Reset("request"), p=0.03),
        Rule(Close("headers"), p=0.02),
    )
)
MODELS = (MODEL, "openai/gpt-5", "mistral/large", "dead")


def test_counts_add_up_whoever_calls(clock: FakeClock) -> None:
    """Eight threads, two asyncio loops and a trio run share one brain; it knows exactly what the gateway saw.

    Some 1,300 calls. Nothing deadlocks, every call has a report, every request is counted once, and the budgets
    stay within their bounds.
    """
    brain = gr.Resilience(clock=clock)
    reports: list[gr.CallReport | None] = []
    with Gateway(MIXED) as gateway, ExitStack() as stack:
        url = gateway.base_url + "/chat/completions"
        blocking = [HARNESSES[number] for number in (0, 1, 4)]
        awaiting = [HARNESSES[number] for number in (2, 5, 6)]
        sessions = [stack.enter_context(one.open(brain)) for one in blocking]
        loops = [stack.enter_context(one.open(brain)) for one in awaiting]

        def shout(number: int) -> None:
            session = sessions[number % len(sessions)]
            for call in range(100):
                chat = {**CHAT, "model": MODELS[(number + call) % 4]}
                try:
                    outcome = session.client.post(url, json=chat, timeout=PATIENCE)
                except Exception as error:
                    outcome = error
                reports.append(gr.report(outcome))

        async def murmur(client: Any, number: int) -> None:
            for call in range(30):
                chat = {**CHAT, "model": MODELS[(number + call) % 4]}
                try:
                    outcome = await client.post(url, json=chat, timeout=PATIENCE)
                except Exception as error:
                    outcome = error
                reports.append(gr.report(outcome))

        async def choir(client: Any) -> None:
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(murmur, client, number)

        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(shout, number) for number in range(8)]
            calls += [loop.portal.start_task_soon(choir, loop.client) for loop in loops]
            for call in calls:
                call.result(2 * PATIENCE)
        seen = gateway.requests

    made = [report for report in reports if report is not None]
    assert len(made) == len(reports) == 8 * 100 + 3 * 5 * 30
    counts = brain.metrics.snapshot()
    assert counts.sent() == len(seen) == sum(len(report.attempts) for report in made)
    assert counts.total() == len(made)
    assert {outcome: counts.total(outcome) for outcome in ("success", "failure", "refused", "cancelled")} == {
        "cancelled": 0,
        **Counter(report.outcome for report in made),
    }
    by_model: Counter[str] = Counter()
    for (_, model, _), count in counts.attempts.items():
        by_model[model] += count
    assert by_model == Counter(str(request.model) for request in seen)
    assert counts.retries == sum(len(report.attempts) - 1 for report in made if report.attempts)
    assert sum(counts.waits.values()) == pytest.approx(sum(clock.slept))
    _assert_sound(brain, clock)


def _assert_sound(brain: gr.Resilience, clock: FakeClock) -> None:
    store = brain.store
    assert isinstance(store, MemoryStore)
    for line in store._lines.values():
        assert 0.0 <= line.budget.tokens <= line.budget.capacity <= 10.0
    for view in store.circuits(clock.monotonic()).values():
        assert 0 <= view.failures <= view.calls
    clock.advance(1000.0)
    assert all(view.retry_after == 0.0 for view in store.circuits(clock.monotonic()).values()), (
        "a probe is still out"
    )
