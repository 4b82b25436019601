"""What a stream leaves behind: no connection, no permit, no task, no garbage, wherever its reader leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import gip_resilience as gr
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Gateway
from gip_resilience.testing import FakeClock
from harness import HARNESSES, Harness
from interposed import interpose
from leftovers import (
    STUBBORN,
    THEIRS,
    Ledger,
    assert_idle,
    cycles_of_ours,
    in_its_thread,
    one_connection,
    stepped,
    tasks,
)
from live import DONE, EXACT, ROLE, Live, answer_with, delta
from loopback import Exchange, Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.gateway import Reply
    from harness import Session

ASYNC = [harness for harness in HARNESSES if harness.colour == "async"]
SYNC = [harness for harness in HARNESSES if harness.colour == "sync"]
HTTPX = [harness for harness in HARNESSES if harness.name != "requests"]

PATIENCE = 10.0
"""Seconds a thread of a test may take: a defect must show as a failure, not as a hang."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """One of its own for each test: what a stream that was left still does there must not reach the next."""
    with Gateway() as started:
        yield started


def chat(gateway: Gateway) -> str:
    """Where chat requests go."""
    return gateway.base_url + "/chat/completions"


def assert_nothing_left(session: Session, store: Ledger, gateway: Gateway) -> None:
    """Every permit is back, no connection is in use, and the next call goes through on the only one there is."""
    assert (store.out, store.waiting) == (set(), 0)
    assert_idle(session)
    gateway.plan = FaultPlan()
    assert session.post(chat(gateway)).status == 200


# ---- closed ----------------------------------------------------------------------------------------------

BROKEN: dict[str, list[Reply]] = {
    "whole": [],
    "compressed": [BreakStream(events=99, gzip=True)],
    "begun anew": [BreakStream(how="fin", events=1)],
    "replayed": [BreakStream(how="rst", events=4)],
    "failed in band": [BreakStream(how="error", events=1, code="model_overloaded")],
    "without an end": [BreakStream(how="stall", events=99)],
}

PLACES: dict[str, Callable[[Live], object]] = {
    "before the first read": lambda live: None,
    "after the first piece": lambda live: live.take(),
    "after three events": lambda live: live.until(b"\n\n", 3),
    "after six events": lambda live: live.until(b"\n\n", 6),
    "at the marker": lambda live: live.until(DONE),
    "at the end": lambda live: live.read(),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_stream_may_be_closed_anywhere(
    broken: list[Reply], place: Callable[[Live], object], harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Once or twice: it sends nothing more, holds nothing, and says how far it was."""
    gateway.plan = FaultPlan.script(broken)
    store = Ledger()
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        live = Live(session, chat(gateway), EXACT)
        place(live)
        sent, slept = len(gateway.requests), len(clock.slept)

        live.close()
        live.close()

        report = gr.report(live.response)
        assert report is not None
        assert report.outcome == ("success" if DONE in live.body else "cancelled")
        assert_nothing_left(session, store, gateway)
        assert (len(gateway.requests), len(clock.slept)) == (sent + 1, slept)


class Meanwhile(FakeClock):
    """A clock under which, during each pause, something happens in another thread or task."""

    happens: Callable[[], Any] | None = None

    def sleep(self, seconds: float) -> None:
        """Let it happen, and pause for no time."""
        if self.happens is not None:
            thread = threading.Thread(target=self.happens)
            thread.start()
            thread.join(PATIENCE)
        super().sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """The same for those who await."""
        happens, self.happens = self.happens, None
        if happens is not None:
            async with anyio.create_task_group() as group:
                group.start_soon(happens)
        await super().asleep(seconds)


def close_of(session: Session, live: Live) -> Callable[[], Any]:
    """What closes a stream, to be called in another thread, or in another task of the client's loop."""
    return live.close if session.portal is None else live.response.aclose  # type: ignore[no-any-return]


def take_what_comes(live: Live) -> None:
    """Read on in a stream that was closed meanwhile: it may end, or say that it was interrupted, and nothing else."""
    with contextlib.suppress(gr.StreamInterruptedError):
        live.read()


@pytest.mark.parametrize("events", [1, 4], ids=["begun anew", "replayed"])
def test_a_stream_may_be_closed_during_the_pause_before_an_attempt(
    events: int, harness: Harness, gateway: Gateway
) -> None:
    """By another thread or task: the attempt is not made."""
    gateway.plan = FaultPlan.script([BreakStream(how="fin", events=events)])
    store, clock = Ledger(), Meanwhile()
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        live = Live(session, chat(gateway), EXACT)
        clock.happens = close_of(session, live)

        take_what_comes(live)

        assert len(clock.slept) == 1
        assert len(gateway.requests) == 1
        report = gr.report(live.response)
        assert report is not None
        assert report.outcome == "cancelled"
        assert_nothing_left(session, store, gateway)


class Closer:
    """Closes a stream from elsewhere at the given moment beneath us; see `interpose`."""

    def __init__(self, session: Session, where: str, times: int) -> None:
        self._where = where
        self._left = times
        self.close: Callable[[], Any] | None = None
        self.act = self._act if session.portal is None else self._aact

    def _now(self, where: str) -> bool:
        self._left -= where == self._where
        return where == self._where and self._left == 0 and self.close is not None

    def _act(self, where: str) -> None:
        if self._now(where):
            thread = threading.Thread(target=self.close)
            thread.start()
            thread.join(PATIENCE)

    async def _aact(self, where: str) -> None:
        if self._now(where) and self.close is not None:
            async with anyio.create_task_group() as group:
                group.start_soon(self.close)


@pytest.mark.parametrize(
    ("where", "times", "sent"),
    [("send", 2, 2), ("read", 1, 1), ("read", 3, 1), ("read", 7, 2)],
    ids=["request under way", "first read", "later read", "read after a restart"],
)
def test_a_stream_may_be_closed_while_it_is_busy(
    where: str, times: int, sent: int, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """By another thread or task: what is under way comes to its end, and its answer is closed."""
    gateway.plan = FaultPlan.script([BreakStream(how="fin", events=4)])
    store = Ledger()
    with one_connection(harness) as session:
        closer = Closer(session, where, times)
        interpose(session, closer.act)
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        live = Live(session, chat(gateway), EXACT)
        closer.close = close_of(session, live)

        take_what_comes(live)

        assert len(gateway.requests) == sent
        assert DONE not in live.body
        assert_nothing_left(session, store, gateway)
        assert len(gateway.requests) == sent + 1


@pytest.mark.parametrize("harness", HARNESSES, ids=repr)
def test_a_stream_may_be_closed_while_its_reader_waits(harness: Harness, clock: FakeClock) -> None:
    """The reader comes to an end as soon as the client's own read does, and asks for nothing more."""
    waiting, go_on = threading.Event(), threading.Event()

    def handler(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.number > 1:
            exchange.answer(200, b"{}")
            return
        exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", ROLE, delta("a"))
        go_on.wait(PATIENCE)
        exchange.send(delta("b"))
        exchange.wait_for_end()

    def act(where: str) -> None:
        if where == "read" and live is not None and live.body:
            waiting.set()

    async def aact(where: str) -> None:
        act(where)

    store = Ledger()
    live: Live | None = None
    with Loopback(handler) as server, one_connection(harness) as session:
        interpose(session, act if session.portal is None else aact)
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        live = Live(session, server.url + "/v1/chat/completions")
        live.take()
        reader = threading.Thread(target=take_what_comes, args=(live,))
        reader.start()
        assert waiting.wait(PATIENCE)
        closing = threading.Thread(target=live.close)  # under requests it waits for the read
        closing.start()
        closing.join(0.05)
        go_on.set()
        closing.join(PATIENCE)
        reader.join(PATIENCE)

        assert not reader.is_alive()
        assert server.count == 1
        assert (store.out, store.waiting) == (set(), 0)
        assert session.post(server.url).status == 200
        assert_idle(session)


# ---- left in the middle ----------------------------------------------------------------------------------

READERS = {
    "requests": ["iter_content", "iter_lines"],
    "httpx": ["iter_raw", "iter_bytes", "iter_text", "iter_lines"],
}
WAYS = [
    (harness, way)
    for harness in HARNESSES
    for way in READERS["requests" if harness.name == "requests" else "httpx"]
]


def leave_after(session: Session, url: str, way: str, pieces: int) -> None:
    """Read so many pieces, and leave the loop and the response."""
    client = session.client
    if session.harness.name == "requests":
        with client.post(url, json=EXACT, stream=True, timeout=5) as response:
            for number, _ in enumerate(getattr(response, way)(512), 1):
                if number == pieces:
                    break
        return
    if session.portal is None:
        with client.stream("POST", url, json=EXACT) as response:
            for number, _ in enumerate(getattr(response, way)(), 1):
                if number == pieces:
                    break
        return

    async def leave() -> None:
        async with client.stream("POST", url, json=EXACT) as response:
            left = pieces
            async for _ in getattr(response, "a" + way)():
                left -= 1
                if not left:
                    break

    session.portal.call(leave)


@THEIRS
@pytest.mark.parametrize("broken", [[], [BreakStream(how="rst", events=3)]], ids=["whole", "replayed"])
@pytest.mark.parametrize(("harness", "way"), WAYS, ids=str)
def test_a_loop_over_a_stream_may_be_left(
    harness: Harness, way: str, broken: list[Reply], gateway: Gateway, clock: FakeClock
) -> None:
    """With nothing left behind, and no warning that a bare client would not give too."""
    store = Ledger()
    gateway.plan = FaultPlan.script(broken)
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        leave_after(session, chat(gateway), way, 5)
        sent = len(gateway.requests)

        in_its_thread(session, gc.collect)

        assert_nothing_left(session, store, gateway)
        assert len(gateway.requests) == sent + 1


def test_a_dropped_stream_lets_go_of_what_it_holds(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Nobody closed it: its connection is there for the next call, as without us, and nothing is sent again."""

    def drop(session: Session) -> bool:
        live = Live(session, chat(gateway))
        live.take()
        del live
        for _ in range(20):  # a loop finalises one generator within another
            in_its_thread(session, gc.collect)
            with contextlib.suppress(AssertionError):
                assert_idle(session)
                break
            if session.portal is not None:
                session.portal.call(anyio.sleep, 0.001)
        return session.post(chat(gateway)).status == 200  # by the only connection there may be

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with one_connection(harness) as session:
            bare = drop(session)
        with one_connection(harness) as session:
            gr.mount(session.client, gr.Resilience(STUBBORN, clock=clock))
            idle = drop(session)

    assert (bare, idle) == (True, True)
    assert len(gateway.requests) == 4


def test_a_dropped_stream_holds_no_probe_for_ever(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The probe of a half-open circuit that nobody reads: its lease runs out."""
    brain = gr.Resilience(clock=clock)
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with harness.open(brain) as session:
            session.post(chat(gateway))
            clock.advance(10.0)
            Live(session, chat(gateway)).take()
            in_its_thread(session, gc.collect)
            clock.advance(60.0)

            assert session.post(chat(gateway)).status == 200


# ---- interrupts and errors of somebody else's ------------------------------------------------------------


class TheirOwnError(Exception):
    """What no library of ours knows."""


class Rude:
    """Raises beneath us at the given moment; see `interpose`."""

    def __init__(self, harness: Harness, where: str, times: int, error: BaseException) -> None:
        self._where = where
        self._left = times
        self._error = error
        self.act = self._aact if harness.colour == "async" else self._act

    def _act(self, where: str) -> None:
        self._left -= where == self._where
        if where == self._where and self._left == 0:
            raise self._error

    async def _aact(self, where: str) -> None:
        self._act(where)


RUDE = [
    (harness, kind)
    for harness in HARNESSES
    for kind in (TheirOwnError, KeyboardInterrupt, SystemExit)
    # An interrupt would end the loop that the awaiting clients of these tests share with the test.
    if harness.colour == "sync" or kind is TheirOwnError
]


@pytest.mark.parametrize(("harness", "kind"), RUDE, ids=str)
@pytest.mark.parametrize(
    ("where", "times", "sent"),
    [("read", 1, 1), ("read", 4, 1), ("send", 2, 1), ("read", 8, 2)],
    ids=["first read", "later read", "attempt", "read after an attempt"],
)
def test_what_is_not_about_the_stream_is_no_break(
    where: str,
    times: int,
    sent: int,
    kind: type[BaseException],
    harness: Harness,
    gateway: Gateway,
    clock: FakeClock,
) -> None:
    """The same object comes up, nothing is sent again, and nothing stays behind."""
    error = kind("theirs")
    store = Ledger()
    gateway.plan = FaultPlan.script([BreakStream(how="fin", events=4)])
    with one_connection(harness) as session:
        interpose(session, Rude(harness, where, times, error).act)
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        live = Live(session, chat(gateway), EXACT)

        with pytest.raises(kind) as caught:
            live.read()

        assert caught.value is error
        assert len(gateway.requests) == sent
        assert_nothing_left(session, store, gateway)
        live.close()
        assert len(gateway.requests) == sent + 1


@pytest.mark.parametrize("harness", SYNC, ids=repr)
def test_an_interrupt_during_the_pause_leaves_nothing(harness: Harness, gateway: Gateway) -> None:
    """The connection was given back before the pause, and the permit too."""

    class Interrupted(FakeClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    store = Ledger()
    gateway.plan = FaultPlan.script([BreakStream(how="fin", events=1)])
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=Interrupted()))
        live = Live(session, chat(gateway))

        with pytest.raises(KeyboardInterrupt):
            live.read()

        assert len(gateway.requests) == 1
        assert_nothing_left(session, store, gateway)


# ---- read again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harness", HARNESSES, ids=repr)
def test_a_second_iteration_goes_on_with_the_first(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Of the body itself: what one loop took the next one does not, and at the end there is nothing."""
    with one_connection(harness) as session:
        whole = Live(session, chat(gateway)).read()
        gr.mount(session.client, gr.Resilience(STUBBORN, clock=clock))
        live = Live(session, chat(gateway))
        body = bytearray()
        for pieces in (1, 3, 99, 99):
            _read_body(session, live.response, pieces, body)
        live.close()

    assert bytes(body) == whole


def _read_body(session: Session, response: Any, pieces: int, body: bytearray) -> None:
    if session.harness.name == "requests":
        body += b"".join(islice(response.raw.stream(), pieces))
        return
    ours = (
        response.stream._stream
    )  # around it is a generator of the library's, which ends with the first loop
    if session.portal is None:
        body += b"".join(islice(ours, pieces))
        return

    async def read() -> None:
        left = pieces
        async for piece in ours:
            body.extend(piece)
            left -= 1
            if not left:
                break

    session.portal.call(read)


# ---- cancelled -------------------------------------------------------------------------------------------

TWICE_AND_REFUSED = [
    BreakStream(how="fin", events=1),
    Error("model_overloaded"),
    BreakStream(how="rst", events=6),
]

CANCELLED: dict[str, tuple[list[Reply], float | None]] = {
    "whole": ([BreakStream(events=99, late=0.001)], None),
    "compressed": ([BreakStream(events=99, gzip=True)], None),
    "begun anew": ([BreakStream(how="fin", events=1)], None),
    "replayed": ([BreakStream(how="rst", events=4)], None),
    "broken twice, and refused": (TWICE_AND_REFUSED, None),
    "broken twice, and refused, in limited time": (TWICE_AND_REFUSED, 30.0),
    "without an end": ([BreakStream(how="stall", events=99)], None),
}


@THEIRS
@pytest.mark.parametrize("harness", ASYNC, ids=repr)
@pytest.mark.parametrize(("failures", "deadline"), CANCELLED.values(), ids=CANCELLED)
def test_a_stream_may_be_cancelled_at_any_await(
    failures: list[Reply], deadline: float | None, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Also between two attempts: nothing more is sent, no permit stays out, no connection in use, no task."""
    with one_connection(harness) as session:
        client = session.client

        async def read() -> None:
            async with client.stream("POST", chat(gateway), json=EXACT) as response:
                async for _ in response.aiter_raw():
                    pass

        async def left_at(number: int) -> bool:
            store = Ledger()
            gr.mount(client, gr.Resilience(STUBBORN.replace(deadline=deadline), store=store, clock=clock))
            gateway.plan = FaultPlan.script(failures)
            steps = 0

            def step() -> None:
                nonlocal steps
                steps += 1
                if steps == number:
                    scope.cancel()

            before = tasks()
            with anyio.CancelScope() as scope:
                await stepped(read(), step)
            assert (store.out, store.waiting) == (set(), 0)
            assert_idle(session)
            assert tasks() - before == set()
            gr.unmount(client)
            return steps >= number

        async def every() -> int:
            number = 1
            while await left_at(number):
                number += 1
            return number

        assert session.portal.call(every) > 5
        gateway.plan = FaultPlan()
        sent = len(gateway.requests)
        assert session.post(chat(gateway)).status == 200
        assert len(gateway.requests) == sent + 1
        in_its_thread(session, gc.collect)


@THEIRS
@pytest.mark.parametrize("harness", ASYNC, ids=repr)
@pytest.mark.parametrize("events", [1, 4], ids=["before any output", "after it"])
def test_a_cancelled_read_closes_the_stream(
    events: int, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """At once, also when its reader does not: nothing is held, and whoever reads on gets nothing more."""
    gateway.plan = FaultPlan.always(BreakStream(how="stall", events=events))
    store = Ledger()
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        client = session.client

        async def read() -> Any:
            request = client.build_request("POST", chat(gateway), json=EXACT)
            response = await client.send(request, stream=True)
            body = response.stream._stream
            with anyio.move_on_after(0.1):
                while await anext(body, b""):
                    pass
            assert (store.out, store.waiting) == (set(), 0)
            assert_idle(session)
            assert await anext(body, b"") == b""
            return response

        response = session.portal.call(read)

        report = gr.report(response)
        assert report is not None
        assert report.outcome == "cancelled"
        assert len(gateway.requests) == 1
        assert_nothing_left(session, store, gateway)
        session.portal.call(response.aclose)


@THEIRS
@pytest.mark.parametrize("harness", ASYNC, ids=repr)
def test_a_timeout_around_a_stream_is_no_break(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """``asyncio.timeout``, or trio's way: the caller's patience is the caller's, and nothing is sent again."""
    gateway.plan = FaultPlan.always(BreakStream(how="stall", events=1))
    store = Ledger()
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        client = session.client

        async def read() -> None:
            limit = asyncio.timeout(0.1) if harness.backend == "asyncio" else _fail_after(0.1)
            async with limit, client.stream("POST", chat(gateway), json=EXACT) as response:
                async for _ in response.aiter_raw():
                    pass

        with pytest.raises(TimeoutError):
            session.portal.call(read)
        assert len(gateway.requests) == 1
        assert clock.slept == []
        assert_nothing_left(session, store, gateway)
        in_its_thread(session, gc.collect)


@contextlib.asynccontextmanager
async def _fail_after(seconds: float) -> Any:
    with anyio.fail_after(seconds):
        yield


# ---- garbage ---------------------------------------------------------------------------------------------

NO_RETRY = STUBBORN.replace(policies={"stream": gr.Policy(max_attempts=1)})
TWICE = STUBBORN.replace(policies={"stream": gr.Policy(max_attempts=2)})


FAILED: dict[str, tuple[gr.Config, Callable[[Any], Iterator[bytes]]]] = {}


def failing(
    config: gr.Config,
) -> Callable[[Callable[[Any], Iterator[bytes]]], Callable[[Any], Iterator[bytes]]]:
    """Add an answer that fails to the table."""

    def add(answer: Callable[[Any], Iterator[bytes]]) -> Callable[[Any], Iterator[bytes]]:
        FAILED[answer.__name__] = (config, answer)
        return answer

    return add


@failing(STUBBORN)
def none(lost: type[Exception]) -> Iterator[bytes]:
    """Not at all."""
    yield from (ROLE, delta("a"), DONE)


@failing(NO_RETRY)
def ended(lost: type[Exception]) -> Iterator[bytes]:
    """In order, in the middle."""
    yield from (ROLE, delta("a"))


@failing(NO_RETRY)
def reset(lost: type[Exception]) -> Iterator[bytes]:
    """By an error of the client's."""
    yield from (ROLE, delta("a"))
    raise lost("gone")


@failing(TWICE)
def reset_again(lost: type[Exception]) -> Iterator[bytes]:
    """Twice, before any output."""
    yield ROLE
    raise lost("gone")


@failing(TWICE)
def reset_in_the_replay(lost: type[Exception]) -> Iterator[bytes]:
    """Twice, with output."""
    yield from (ROLE, delta("a"))
    raise lost("gone")


@failing(TWICE)
def garbled(lost: type[Exception]) -> Iterator[bytes]:
    """By an event that is not JSON."""
    yield from (ROLE, delta("a"), b"data: {\n\n")


@failing(NO_RETRY)
def failed(lost: type[Exception]) -> Iterator[bytes]:
    """By the server's own word."""
    yield from (ROLE, b'data: {"error":{"code":"model_overloaded","message":"no"}}\n\n')


@failing(STUBBORN)
def unknown(lost: type[Exception]) -> Iterator[bytes]:
    """A stream nobody understands, which we do not guard."""
    yield b"data: what\n\n"
    raise lost("gone")


def _lost(harness: Harness) -> type[Exception]:
    """How this client says that the connection broke."""
    if harness.name == "requests":
        return ConnectionResetError
    found: type[Exception] = harness.library.ReadError
    return found


@pytest.mark.parametrize("way", FAILED)
def test_streams_that_fail_leave_no_cycles(way: str, harness: Harness, clock: FakeClock) -> None:
    """Nothing of ours waits for the garbage collector: not a call, not a flow, not a frame, not an error."""
    config, answer = FAILED[way]
    lost = _lost(harness)
    with harness.open(
        **({} if harness.name == "requests" else {"verify": False, "trust_env": False})
    ) as session:
        answer_with(session, lambda: answer(lost))
        gr.mount(session.client, gr.Resilience(config, clock=clock))
        _fail(session, 2)  # what is made once is made now
        gc.collect()
        gc.disable()
        try:
            _fail(session, 20)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = list(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert cycles_of_ours(found) == []


def _fail(session: Session, times: int) -> None:
    """Streams that fail, in the client's own loop: what a thread hands to another makes cycles of its own."""
    url = "http://peer.invalid/v1/chat/completions"
    client = session.client
    if session.portal is None:
        for _ in range(times):
            with contextlib.suppress(Exception):
                if session.harness.name == "requests":
                    with client.post(url, json=EXACT, stream=True) as response:
                        list(response.iter_content(None))
                else:
                    with client.stream("POST", url, json=EXACT) as response:
                        list(response.iter_raw())
        return

    async def fail() -> None:
        for _ in range(times):
            with contextlib.suppress(Exception):
                async with client.stream("POST", url, json=EXACT) as response:
                    async for _ in response.aiter_raw():
                        pass

    session.portal.call(fail)
