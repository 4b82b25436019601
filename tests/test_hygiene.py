"""What a call leaves behind: no connection, no permit, no task, no garbage, however it ends."""

from __future__ import annotations

import contextlib
import gc
import threading
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
    HalfHeaders,
    Html,
    Huge,
    RateLimited,
    Reset,
    Status,
)
from gip_resilience.testing import FakeClock
from harness import CHAT, HARNESSES
from interposed import interpose
from leftovers import (
    STUBBORN,
    Ledger,
    assert_idle,
    cycles_of_ours,
    one_connection,
    stepped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.gateway import Reply
    from harness import Answer, Harness, Session


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """One of its own for each test: what a cancelled request still does there must not reach the next."""
    with Gateway() as started:
        yield started


ASYNC = [harness for harness in HARNESSES if harness.colour == "async"]
SYNC = [harness for harness in HARNESSES if harness.colour == "sync"]

FAILURES: list[Reply] = [
    Status(503),
    Error("model_overloaded"),
    Html(502),
    Huge(300_000, status=503),
    Huge(300_000, status=500, chunked=True),
    RateLimited(1),
    HalfBody("fin"),
    HalfBody("rst"),
    HalfBody("bad_chunk"),
    HalfHeaders("rst"),
    Reset("request"),
    Close("headers"),
]


def mounted(harness: Harness, brain: gr.Resilience) -> Session:
    """A client with *brain* mounted, and without the certificates that cost most of the time of making one."""
    if harness.name == "requests":
        return harness.open(brain)
    return harness.open(brain, verify=False, trust_env=False)


def chat(gateway: Gateway) -> str:
    """Where chat requests go."""
    return gateway.base_url + "/chat/completions"


# ---- connections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [Status(503), Error("model_overloaded"), Html(502), RateLimited(1), Error("model_timeout")],
    ids=lambda reply: reply.kind,
)
def test_failing_answers_are_read_and_their_connection_used_again(
    reply: Reply, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Five failures and a success take one connection, not six."""
    gateway.plan = FaultPlan.script([reply] * 5)
    with mounted(harness, gr.Resilience(STUBBORN, clock=clock)) as session:
        answer = session.post(chat(gateway))

    assert answer.status == 200
    assert (len(gateway.requests), gateway.connections) == (6, 1)


def test_a_pool_of_one_never_runs_dry(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Failures, big bodies, broken ones, refusals: whatever happens, the one connection comes back."""
    brain = gr.Resilience(STUBBORN.replace(breaker=gr.BreakerConfig()), clock=clock)
    with one_connection(harness) as session:
        gr.mount(session.client, brain)
        for failure in FAILURES:
            brain.breakers.reset()
            gateway.plan = FaultPlan.script([failure] * 2)
            assert session.post(chat(gateway)).status == 200, failure
            assert_idle(session)
        brain.breakers.force_open(gateway.url.removeprefix("http://"))
        with pytest.raises(gr.CircuitOpenError):
            session.post(chat(gateway))
        brain.breakers.reset()
        gateway.plan = FaultPlan.always(Huge(300_000, status=503))
        assert len(session.post(chat(gateway)).content) == 300_000
        brain.breakers.reset()
        gateway.plan = FaultPlan()
        assert session.post(chat(gateway)).status == 200
        assert_idle(session)


@pytest.mark.parametrize(
    ("reply", "size"),
    [(Huge(300_000, status=503), 64 * 1024), (Error("model_overloaded"), 1)],
    ids=["big", "small"],
)
def test_an_answer_given_up_for_a_retry_is_still_the_last_word(
    reply: Reply, size: int, harness: Harness, gateway: Gateway
) -> None:
    """When the retry is then refused it is handed up as far as it was read, under each client the same."""

    class Meanwhile(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            brain.breakers.force_open(gateway.url.removeprefix("http://"))

    gateway.plan = FaultPlan.always(reply)
    brain = gr.Resilience(clock=Meanwhile())
    with one_connection(harness) as session:
        whole = session.post(chat(gateway)).content
        gr.mount(session.client, brain)
        answer = session.post(chat(gateway))

        assert answer.status == 503
        assert len(answer.content) >= size
        assert whole.startswith(answer.content)
        assert answer.report.reason == "circuit open"
        assert len(answer.report.attempts) == 1
        assert_idle(session)


def test_a_big_answer_that_nobody_reads_is_let_go(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """A failing answer of which we read the beginning leaves nothing behind when its reader closes it unread."""
    gateway.plan = FaultPlan.always(Huge(300_000, status=500))
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(clock=clock))
        for _ in range(3):
            assert _closed_unread(session, chat(gateway)) == 500
            assert_idle(session)
            _in_its_thread(session, gc.collect)


def _closed_unread(session: Session, url: str) -> int:
    client = session.client
    if session.harness.name == "requests":
        with client.post(url, json=CHAT, stream=True, timeout=5) as response:
            return int(response.status_code)
    if session.harness.colour == "sync":
        with client.stream("POST", url, json=CHAT) as response:
            return int(response.status_code)

    async def send() -> int:
        async with client.stream("POST", url, json=CHAT) as response:
            return int(response.status_code)

    return int(session.portal.call(send))


def _in_its_thread(session: Session, function: Callable[[], Any]) -> Any:
    """Call *function* where the client lives: loops finalise what belongs to them."""
    portal = getattr(session, "portal", None)
    return function() if portal is None else portal.call(function)


# ---- cancellation ----------------------------------------------------------------------------------------


THEIRS = pytest.mark.filterwarnings(r"ignore:Async generator 'httpx\._content:ResourceWarning")
"""httpx 0.28 makes a generator of a request's body and drops it when it is cancelled while sending; trio says so."""

CANCELLED = {
    "while it succeeds": [],
    "while it retries": [Error("model_overloaded"), Html(502)],
    "while it reads a big error": [Huge(150_000, status=503)],
    "while bodies break": [HalfBody("fin"), HalfBody("rst", then=Error("model_overloaded"))],
    "while it waits for the limit": [RateLimited(3)],
}


@THEIRS
@pytest.mark.parametrize("harness", ASYNC, ids=repr)
@pytest.mark.parametrize("deadline", [None, 30.0], ids=["no deadline", "deadline"])
@pytest.mark.parametrize("failures", CANCELLED.values(), ids=CANCELLED)
def test_a_call_may_be_cancelled_at_any_await(
    failures: list[Reply], deadline: float | None, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Whichever await it is: no permit stays out, no connection in use, no task, and the next call works.

    The call is a half-open circuit's probe, and its client has a single connection.
    """
    with one_connection(harness) as session:

        async def broken_off_at(number: int) -> bool:
            store = Ledger()
            brain = gr.Resilience(STUBBORN.replace(deadline=deadline), store=store, clock=clock)
            gr.mount(session.client, brain)
            gateway.plan = FaultPlan.script(failures)
            steps = 0

            def step() -> None:
                nonlocal steps
                steps += 1
                if steps == number:
                    scope.cancel()

            before = _tasks()
            with anyio.CancelScope() as scope:
                await stepped(session.client.post(chat(gateway), json=CHAT), step)
            assert (store.out, store.waiting) == (set(), 0)
            assert_idle(session)
            assert _tasks() - before == set()
            gateway.plan = FaultPlan()
            assert (await session.client.post(chat(gateway), json=CHAT)).status_code == 200
            gr.unmount(session.client)
            return steps >= number

        async def every() -> int:
            number = 1
            while await broken_off_at(number):
                number += 1
            return number

        assert session.portal.call(every) > 3
        _in_its_thread(session, gc.collect)


def _tasks() -> set[tuple[int, str | None]]:
    """The tasks in this event loop, but for those that clean up after httpx itself (see `THEIRS`)."""
    tasks = {(task.id, task.name) for task in anyio.get_running_tasks()}
    return {(number, name) for number, name in tasks if "httpx._content" not in (name or "")}


@THEIRS
@pytest.mark.parametrize("harness", ASYNC, ids=repr)
def test_a_cancelled_probe_lets_the_next_one_through(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Cancelled while it waits for its answer: the circuit stays half-open, and its slot is free."""
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    brain = gr.Resilience(clock=clock)
    with harness.open(brain) as session:
        session.post(chat(gateway))
        clock.advance(10.0)
        host = gateway.url.removeprefix("http://")

        async def probe() -> None:
            with anyio.CancelScope() as scope:
                await stepped(session.client.post(chat(gateway), json=CHAT), scope.cancel)
            assert scope.cancelled_caught

        session.portal.call(probe)

        assert brain.breakers[host, CHAT["model"]].state == "half_open"  # type: ignore[index]
        assert brain.breakers[host, CHAT["model"]].retry_after == 0.0  # type: ignore[index]
        assert session.post(chat(gateway)).status == 200
        assert brain.breakers[host, CHAT["model"]].state == "closed"  # type: ignore[index]


# ---- interrupts and errors of the caller's ---------------------------------------------------------------


class Rude:
    """Raises what it is told, where it is told; in either colour."""

    def __init__(self, harness: Harness, where: str, error: BaseException) -> None:
        self._where = where
        self._error: BaseException | None = error
        self.act = self._aact if harness.colour == "async" else self._act

    def _act(self, where: str) -> None:
        if where == self._where and self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _aact(self, where: str) -> None:
        self._act(where)


class OfTheirOwnError(Exception):
    """What no library of ours knows."""


RUDE = [
    (harness, kind)
    for harness in HARNESSES
    for kind in (OfTheirOwnError, KeyboardInterrupt, OSError)
    # An interrupt would end the loop that the awaiting clients of these tests share with the test.
    if harness.colour == "sync" or kind is not KeyboardInterrupt
]


def ours_among(error: BaseException) -> int:
    """How many frames of ours an error came through."""
    count, trace = 0, error.__traceback__
    while trace is not None:
        count += "/gip_resilience/" in trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    return count


def raised_in(error: BaseException) -> str:
    """The function an error was raised in."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name


@pytest.mark.parametrize(
    ("harness", "kind", "where"),
    # While requests reads a body, an OSError is how the connection's own failure looks.
    [
        (one, kind, where)
        for one, kind in RUDE
        for where in ("send", "read")
        if (one.name, where, kind) != ("requests", "read", OSError)
    ],
    ids=str,
)
def test_what_is_not_about_the_exchange_passes_through(
    kind: type[BaseException], where: str, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The same object, through few frames of ours, and nothing stays behind."""
    error = kind("theirs")
    store = Ledger()
    with one_connection(harness) as session:
        interpose(session, Rude(harness, where, error).act)
        gr.mount(session.client, gr.Resilience(store=store, clock=clock))
        gateway.plan = FaultPlan.always(Huge(200_000, status=503))

        with pytest.raises(kind) as caught:
            session.post(chat(gateway))

        assert caught.value is error
        assert ours_among(error) <= 3
        assert raised_in(error) == "_act"
        assert not getattr(error, "__notes__", None)
        assert (store.out, store.waiting) == (set(), 0)
        gateway.plan = FaultPlan()
        assert session.post(chat(gateway)).status == 200
        assert_idle(session)


@pytest.mark.parametrize(("harness", "kind"), RUDE, ids=str)
def test_an_error_of_the_body_that_is_sent_passes_through(
    kind: type[BaseException], harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """A generator that raises is the caller's own business: no retry, no other error in its place."""
    error = kind("theirs")

    def body() -> Iterator[bytes]:
        yield b'{"model": '
        raise error

    async def abody() -> Any:
        for piece in body():
            yield piece

    def bare() -> type[BaseException]:
        with harness.open() as session, pytest.raises(BaseException) as caught:
            session.post(chat(gateway), **session.content(abody() if harness.colour == "async" else body()))
        return caught.type

    expected = bare()
    store = Ledger()
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(store=store, clock=clock))
        with pytest.raises(expected) as caught:
            session.post(chat(gateway), **session.content(abody() if harness.colour == "async" else body()))
        if expected is kind:
            assert caught.value is error
            # An interrupt is nobody's to touch: there the recording of the body shows too.
            assert ours_among(error) <= (3 if isinstance(error, Exception) else 6)
        assert clock.slept == []
        assert (store.out, store.waiting) == (set(), 0)
        assert session.post(chat(gateway)).status == 200
        assert_idle(session)


@pytest.mark.parametrize("harness", SYNC, ids=repr)
def test_an_interrupt_during_a_pause_leaves_nothing(harness: Harness, gateway: Gateway) -> None:
    """The connection was given back before it began."""

    class Interrupted(FakeClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    store = Ledger()
    gateway.plan = FaultPlan.script([Huge(200_000, status=503)])
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(store=store, clock=Interrupted()))

        with pytest.raises(KeyboardInterrupt):
            session.post(chat(gateway))

        assert (store.out, store.waiting) == (set(), 0)
        assert_idle(session)
        assert session.post(chat(gateway)).status == 200


class Trap:
    """An observer that an interrupt reaches."""

    armed = True

    def on_retry_scheduled(self, event: object) -> None:
        """Interrupted before the pause, with the failed answer in hand."""
        self._spring()

    def on_call_ended(self, event: object) -> None:
        """Interrupted at the end, with the answer in hand."""
        self._spring()

    def _spring(self) -> None:
        if self.armed:
            self.armed = False
            raise SystemExit


@pytest.mark.parametrize("harness", SYNC, ids=repr)
@pytest.mark.parametrize(
    "reply", [Huge(200_000, status=503), Huge(200_000, status=400), Huge(200_000)], ids=["retry", "end", "ok"]
)
def test_an_interrupt_between_answer_and_decision_leaves_nothing(
    reply: Reply, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """What has begun to arrive is closed, and the permit given back."""
    store = Ledger()
    gateway.plan = FaultPlan.script([reply])
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(store=store, clock=clock, observers=[Trap()]))

        with pytest.raises(SystemExit):
            session.post(chat(gateway))

        assert (store.out, store.waiting) == (set(), 0)
        assert_idle(session)
        assert session.post(chat(gateway)).status == 200


# ---- garbage ---------------------------------------------------------------------------------------------

SINGLE = gr.Config(
    policies={name: gr.Policy(max_attempts=1) for name in STUBBORN.policies}
    | {"connect": gr.Policy(max_attempts=1)},
    breaker=gr.BreakerConfig(mode="off"),
)
"""One attempt, so that the garbage of fifty calls is that of fifty calls of the bare client."""


BROKEN = {
    "status": Error("model_overloaded"),
    "big": Huge(150_000, status=503),
    "truncated": HalfBody("fin"),
    "reset": Reset("request"),
    "unreachable": None,
    "refused": None,
}


@pytest.mark.parametrize(
    ("failure", "config"),
    [(name, SINGLE) for name in BROKEN]
    + [("status", STUBBORN), ("truncated", STUBBORN), ("reset", STUBBORN)],
    ids=[*BROKEN, "status, retried", "truncated, retried", "reset, retried"],
)
def test_failed_calls_leave_no_cycles(
    failure: str, config: gr.Config, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Nothing of ours waits for the garbage collector: not a call, not a frame, not an error."""
    times, single = (50, True) if config is SINGLE else (5, False)
    if failure == "refused":
        config = config.replace(breaker=gr.BreakerConfig())
    brain = gr.Resilience(config, clock=clock)
    url = chat(gateway)
    reply = BROKEN[failure]
    if reply is not None:
        gateway.plan = FaultPlan.always(reply)
    elif failure == "unreachable":
        url = "http://127.0.0.1:9/v1/chat/completions"
    else:
        brain.breakers.force_open(gateway.url.removeprefix("http://"))

    def garbage(session: Session) -> list[object]:
        _fail(session, url, 1)  # what is made once is made now
        gc.collect()
        gc.disable()
        try:
            _fail(session, url, times)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return list(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    with mounted(harness, brain) as session:
        found = garbage(session)
        gr.unmount(session.client)
        bare = garbage(session)

    assert cycles_of_ours(found) == []
    if single:
        assert _errors(found) <= _errors(bare)


def _fail(session: Session, url: str, times: int) -> None:
    """Calls that fail, in the client's own loop: what a thread hands to another makes cycles of its own."""
    if session.harness.colour == "sync":
        for _ in range(times):
            with contextlib.suppress(Exception):
                session.post(url)
        return

    async def fail() -> None:
        for _ in range(times):
            with contextlib.suppress(Exception):
                await session.client.post(url, json=CHAT)

    session.portal.call(fail)


def _errors(garbage: list[object]) -> int:
    return sum(isinstance(one, BaseException) for one in garbage)


def test_no_threads_are_started(gateway: Gateway, clock: FakeClock) -> None:
    """A call runs where it is made."""
    before = threading.active_count()
    gateway.plan = FaultPlan.script([Error("model_overloaded"), RateLimited(1)])
    with HARNESSES[0].open(gr.Resilience(clock=clock)) as session:
        answer: Answer = session.post(chat(gateway))

    assert answer.status == 200
    assert threading.active_count() == before
