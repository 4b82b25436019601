"""What a stream may cost: connections, stack, memory, time to its first token, and time in which nothing comes."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.gateway import BreakStream, FaultPlan, Gateway
from harness import HARNESSES, Harness
from leftovers import STUBBORN, THEIRS, Ledger, assert_idle, one_connection
from live import DONE, EXACT, FINISH, ROLE, STREAMED, URL, Live, answer_with, delta
from loopback import Exchange, Loopback
from sending import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.gateway import Reply
    from gip_resilience.testing import FakeClock
    from harness import Session

KB, MB = 1 << 10, 1 << 20

BLOCKING = next(harness for harness in HARNESSES if harness.name == "httpx")
"""For what does not depend on the client, but would take long."""

ONE_EACH = [harness for harness in HARNESSES if harness.name in ("requests", "httpx", "httpx-asyncio")]
"""One of each way to read."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """One of its own for each test: streams that were left must not reach the next."""
    with Gateway() as started:
        yield started


def chat(gateway: Gateway) -> str:
    """Where chat requests go."""
    return gateway.base_url + "/chat/completions"


def lost(harness: Harness) -> Exception:
    """How this client says that the connection broke."""
    if harness.name == "requests":
        return ConnectionResetError("gone")
    error: Exception = harness.library.ReadError("gone")
    return error


def report_of(live: Live) -> gr.CallReport:
    """What the call behind a stream did."""
    report = gr.report(live.response)
    assert report is not None
    return report


# ---- connections -----------------------------------------------------------------------------------------

WHOLE = BreakStream(events=99)

IN_A_POOL_OF_ONE: dict[str, list[Reply]] = {
    "begun anew": [BreakStream(how="fin", events=1)],
    "begun anew, cut in order": [BreakStream(how="eof", events=1)],
    "begun anew, failed in band": [BreakStream(how="error", events=1, code="model_overloaded")],
    "replayed": [BreakStream(how="rst", events=4)],
    "replayed twice": [BreakStream(how="eof", events=4), BreakStream(how="fin", events=7)],
    "garbled": [BreakStream(how="garbled", events=3)],
    "compressed, and cut": [BreakStream(how="fin", events=4, gzip=True)],
    "without a marker": [BreakStream(how="eof", events=10)],
    "without an end": [BreakStream(how="stall", events=99)],
}


def test_a_pool_of_one_never_runs_dry(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """However streams break, one after the other: the one connection is there for the next attempt, and call."""
    store = Ledger()
    with one_connection(harness) as session:
        whole = Live(session, chat(gateway), EXACT).read()
        gr.mount(session.client, gr.Resilience(STUBBORN, store=store, clock=clock))
        for name, broken in IN_A_POOL_OF_ONE.items():
            gateway.plan = FaultPlan.script(broken)

            assert Live(session, chat(gateway), EXACT).read() == whole, name

            assert_idle(session)
            assert (store.out, store.waiting) == (set(), 0)


@pytest.mark.parametrize("late", [0.0, 0.005], ids=["at once", "5 ms late"])
def test_streams_use_their_connection_again(
    late: float, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The end of the body comes after the marker, perhaps a little later: it is waited for."""
    gateway.plan = FaultPlan.always(BreakStream(events=99, late=late))
    with open_session(harness, gr.Resilience(STUBBORN, clock=clock)) as session:
        for _ in range(4):
            assert Live(session, chat(gateway)).read().endswith(DONE)
        closed_at_the_marker = Live(session, chat(gateway))
        closed_at_the_marker.until(DONE)
        closed_at_the_marker.close()
        Live(session, chat(gateway)).read()

    assert (len(gateway.requests), gateway.connections) == (6, 1)


@THEIRS
@pytest.mark.parametrize(
    "peer",
    [BreakStream(how="stall", events=99), BreakStream(events=99, trickle=0.02)],
    ids=["silent", "trickling"],
)
@pytest.mark.parametrize("closed", [False, True], ids=["read", "closed"])
def test_a_peer_that_does_not_end_keeps_nobody(
    closed: bool, peer: Reply, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The answer is whole at its marker; the rest gets a tenth of a second, and the origin a rest from it."""
    gateway.plan = FaultPlan.always(peer)
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(STUBBORN, clock=clock))
        for _ in range(2):
            live = Live(session, chat(gateway))
            live.until(DONE)
            begun = time.perf_counter()
            if not closed:
                live.read()
            live.close()
            took = time.perf_counter() - begun

            assert took < 0.6
            assert live.body.endswith(DONE)
            assert report_of(live).outcome == "success"
            assert_idle(session)


# ---- a thousand breaks -----------------------------------------------------------------------------------

BREAKS = 1000


@pytest.mark.parametrize(
    ("harness", "output"),
    [(harness, False) for harness in ONE_EACH] + [(BLOCKING, True)],
    ids=["requests", "httpx", "httpx-asyncio", "httpx, replayed"],
)
def test_a_thousand_breaks_take_no_stack_and_little_memory(
    output: bool, harness: Harness, clock: FakeClock
) -> None:
    """The last attempt is as deep in the stack as the first; what grows is the record of them."""
    depths: list[int] = []
    sizes: list[int] = []
    broken = [ROLE, delta("a")] if output else [ROLE]

    def answer() -> Iterator[bytes]:
        depths.append(_depth())
        sizes.append(tracemalloc.get_traced_memory()[0])
        if len(depths) > BREAKS:
            yield from (ROLE, delta("a"), delta("b"), FINISH, DONE)
            return
        yield from broken
        raise lost(harness)

    config = STUBBORN.replace(policies={"stream": gr.Policy(max_attempts=2 * BREAKS)})
    with open_session(harness) as session:
        answer_with(session, answer)
        gr.mount(session.client, gr.Resilience(config, clock=clock))
        tracemalloc.start()
        try:
            live = Live(session, URL, EXACT)
            body = live.read()
        finally:
            tracemalloc.stop()

    assert body == b"".join((ROLE, delta("a"), delta("b"), FINISH, DONE))
    assert len(report_of(live).hops) == BREAKS
    assert depths[10] == depths[-10]
    assert (sizes[-10] - sizes[10]) / BREAKS < KB


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


# ---- memory ----------------------------------------------------------------------------------------------


def consumed(session: Session, body: dict[str, Any] = STREAMED) -> tuple[Live, str, int]:
    """Read a stream and keep nothing of it; the stream, a hash of it, and how long it was."""
    live, digest, length = Live(session, URL, body), hashlib.sha256(), 0
    while piece := live.take():
        digest.update(piece)
        length += len(piece)
        live.body.clear()
    return live, digest.hexdigest(), length


def joined(events: Iterator[bytes], size: int = 64 * KB) -> Iterator[bytes]:
    """Events as a network hands them over: a bufferful at a time."""
    buffer = bytearray()
    for event in events:
        buffer += event
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
    yield bytes(buffer)


def long_stream(size: int) -> Iterator[bytes]:
    """So many bytes, in events of 1 KB."""
    yield ROLE
    for number in range(size // KB):
        yield delta(f"{number:08}", KB)
    yield FINISH
    yield DONE


@pytest.mark.parametrize(
    ("size", "most"),
    [
        pytest.param(8 * MB, 256 * KB, id="small"),
        pytest.param(12 * MB, 4 * MB, id="default"),
        pytest.param(100 * MB, 4 * MB, id="100 MB", marks=[pytest.mark.exhaustive, pytest.mark.timeout(600)]),
    ],
)
def test_a_long_stream_takes_no_more_memory_than_it_is_allowed(
    size: int, most: int, clock: FakeClock
) -> None:
    """Every byte of it comes through; what is remembered of it has a bound, and the report says when it is passed."""
    config = STUBBORN.replace(stream=gr.StreamConfig(max_delivered=most))
    expected = hashlib.sha256()
    for piece in long_stream(size):
        expected.update(piece)
    with open_session(BLOCKING) as session:
        answer_with(session, lambda: joined(long_stream(size)))
        gr.mount(session.client, gr.Resilience(config, clock=clock))
        tracemalloc.start()
        try:
            live, digest, length = consumed(session)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert digest == expected.hexdigest()
    assert length > size * 0.99
    # Twice: a list of what is remembered may be copied when it grows.
    assert most / 2 < peak < most + 700 * KB
    assert [hop.action for hop in report_of(live).hops] == ["unguarded"]
    assert report_of(live).outcome == "success"


@pytest.mark.parametrize("harness", ONE_EACH, ids=repr)
def test_one_long_event_is_held_and_mended(harness: Harness, clock: FakeClock) -> None:
    """10 MB without a blank line, and the connection breaks in the middle of it: it comes whole, once."""
    event = delta("picture", 10 * MB)
    attempts: list[int] = []

    def answer() -> Iterator[bytes]:
        attempts.append(1)
        if len(attempts) == 1:
            yield from joined(iter([ROLE, event[: 6 * MB]]))
            raise lost(harness)
        yield from joined(iter([ROLE, event, FINISH, DONE]))

    with open_session(harness) as session:
        answer_with(session, answer)
        gr.mount(session.client, gr.Resilience(STUBBORN, clock=clock))
        body = Live(session, URL).read()

    assert body == ROLE + event + FINISH + DONE
    assert len(attempts) == 2


@pytest.mark.parametrize("harness", ONE_EACH, ids=repr)
def test_an_event_over_the_limit_goes_through_untouched(harness: Harness, clock: FakeClock) -> None:
    """And all that follows, without our help; the report says so. A break is then what it is without us."""
    config = STUBBORN.replace(stream=gr.StreamConfig(max_event=64 * KB))
    pieces = [ROLE, *joined(iter([delta("picture", 200 * KB), FINISH, b"data: [DO"]), 10 * KB)]
    attempts: list[int] = []
    bare = harness.errors.ChunkedEncodingError if harness.name == "requests" else harness.library.ReadError

    def answer() -> Iterator[bytes]:
        attempts.append(1)
        yield from pieces
        raise lost(harness)

    with open_session(harness) as session:
        answer_with(session, answer)
        gr.mount(session.client, gr.Resilience(config, clock=clock))
        live = Live(session, URL, EXACT)
        with pytest.raises(bare) as caught:
            live.read()

    assert bytes(live.body) == b"".join(pieces)
    assert not isinstance(caught.value, gr.ResilienceError)
    assert len(attempts) == 1
    assert [hop.action for hop in report_of(live).hops] == ["unguarded", "fail"]


@pytest.mark.parametrize("harness", ONE_EACH, ids=repr)
def test_what_opens_an_answer_is_held_up_to_a_limit(harness: Harness, clock: FakeClock) -> None:
    """Then it is handed up, and the stream cannot be begun anew any more."""
    config = STUBBORN.replace(stream=gr.StreamConfig(max_held=2 * KB))
    pulled: list[int] = []

    def answer() -> Iterator[bytes]:
        for number in range(100):
            pulled.append(number)
            yield ROLE
        raise lost(harness)

    with open_session(harness) as session:
        answer_with(session, answer)
        gr.mount(session.client, gr.Resilience(config, clock=clock))
        live = Live(session, URL)
        first = live.take()
        with pytest.raises(gr.StreamInterruptedError) as caught:
            live.read()

    assert first == ROLE * (first.count(b"\n\n"))
    assert len(first) < 2 * KB
    assert live.body == ROLE * 100
    assert caught.value.phase == "output"


# ---- time ------------------------------------------------------------------------------------------------


def test_bytes_that_come_one_by_one(clock: FakeClock) -> None:
    """200 KB of them: the same bytes come out, in whole events, each as soon as its last byte is there."""
    events = list(long_stream(200 * KB))
    stream = b"".join(events)
    with open_session(BLOCKING) as session:
        answer_with(session, lambda: (stream[at : at + 1] for at in range(len(stream))))
        gr.mount(session.client, gr.Resilience(STUBBORN, clock=clock))
        live = Live(session, URL)
        pieces = list(iter(live.take, b""))

    assert pieces == [events[0] + events[1], *events[2:]]


def cost(make: Callable[[int], Iterator[bytes]], number: int, clock: FakeClock) -> float:
    """CPU seconds of this thread to read a stream of that size, the best of three."""
    best = float("inf")
    with open_session(BLOCKING) as session:
        answer_with(session, lambda: make(number))
        gr.mount(session.client, gr.Resilience(STUBBORN, clock=clock))
        for _ in range(3):
            begun = time.thread_time()
            consumed(session)
            best = min(best, time.thread_time() - begun)
    return best


def tiny(number: int) -> Iterator[bytes]:
    """Events of about ten bytes, which is output nobody knows."""
    yield ROLE
    yield from joined(b'data: {"%d":1}\n\n' % (one % 10) for one in range(number))
    yield FINISH + DONE


def one_event(number: int) -> Iterator[bytes]:
    """One event, in small pieces."""
    yield ROLE
    yield from joined(iter([delta("a", 100 * number)]), KB)
    yield FINISH + DONE


def trickled(number: int) -> Iterator[bytes]:
    """One event, byte by byte."""
    yield ROLE
    event = delta("a", number)
    yield from (event[at : at + 1] for at in range(len(event)))
    yield FINISH + DONE


@pytest.mark.parametrize(
    "number", [5_000, pytest.param(100_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(600)])]
)
@pytest.mark.parametrize("make", [tiny, one_event, trickled])
def test_a_stream_takes_time_linear_in_its_length(
    make: Callable[[int], Iterator[bytes]], number: int, clock: FakeClock
) -> None:
    """Four times as much takes about four times as long; were it quadratic, sixteen times."""
    assert cost(make, 4 * number, clock) / cost(make, number, clock) < 9


# ---- no reading ahead ------------------------------------------------------------------------------------


def test_nothing_is_read_ahead(harness: Harness, clock: FakeClock) -> None:
    """No piece is asked for before the one before it was taken, and nothing before the first is."""
    pulled: list[bytes] = []
    events = [ROLE, *(delta(str(number)) for number in range(5)), FINISH, DONE]

    def answer() -> Iterator[bytes]:
        for event in events:
            pulled.append(event)
            yield event

    with open_session(harness) as session:
        answer_with(session, answer)
        gr.mount(session.client, gr.Resilience(STUBBORN, clock=clock))
        live = Live(session, URL)
        assert pulled == []
        for number in range(2, len(events) + 1):
            live.take()
            assert pulled == events[:number]
            assert bytes(live.body) == b"".join(pulled)
        assert live.take() == b""


@pytest.mark.parametrize("harness", ONE_EACH, ids=repr)
def test_the_first_token_is_not_late(harness: Harness, clock: FakeClock) -> None:
    """From the request to the first output: what we add to a client of its own, at best, for machines are busy."""
    with open_session(harness) as bare, open_session(harness) as mounted:
        for session in (bare, mounted):
            answer_with(session, partial(iter, [ROLE + delta("a"), FINISH, DONE]))
        gr.mount(mounted.client, gr.Resilience(STUBBORN, clock=clock))
        took: dict[Session, list[float]] = {bare: [], mounted: []}
        for _ in range(50):
            for session, times in took.items():
                begun = time.perf_counter()
                live = Live(session, URL)
                live.take()
                times.append(time.perf_counter() - begun)
                live.read()

    added = min(took[mounted]) - min(took[bare])
    assert added < 0.005


# ---- silence ---------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


def pause(seconds: float) -> None:
    """Wait in a thread of the server's."""
    threading.Event().wait(seconds)


def limited(harness: Harness, read: float, brain: gr.Resilience) -> tuple[Session, dict[str, Any]]:
    """A client with a read timeout, and the options of a request that has the same."""
    if harness.name == "requests":
        return open_session(harness, brain), {"timeout": read}
    return open_session(harness, brain, timeout=read), {}


STALLS: dict[str, tuple[float | None, float, float]] = {
    "idle timeout": (0.15, 5.0, 0.15),
    "longer than the client's": (5.0, 0.15, 0.15),
    "the client's alone": (None, 0.15, 0.15),
}


@pytest.mark.parametrize(("idle", "read", "after"), STALLS.values(), ids=STALLS)
def test_a_silent_stream_is_noticed(
    idle: float | None, read: float, after: float, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Within the shorter of the two limits; then it is mended like any other."""
    gateway.plan = FaultPlan.script([BreakStream(how="stall", events=3)])
    config = STUBBORN.replace(stream=gr.StreamConfig(idle_timeout=idle))
    session, options = limited(harness, read, gr.Resilience(config, clock=clock))
    with session:
        live = Live(session, chat(gateway), EXACT, **options)
        live.until(b"\n\n", 3)
        begun = time.perf_counter()
        live.take()
        took = time.perf_counter() - begun

        assert live.read().endswith(DONE)
    assert after * 0.9 < took < after + 1.0
    assert [(hop.code, hop.action) for hop in report_of(live).hops] == [("stream_stalled", "replay")]


def test_a_sign_of_life_is_no_silence(harness: Harness, clock: FakeClock) -> None:
    """Comments and pings, at intervals shorter than the limit, for longer than the limit."""

    def handler(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(HEAD, ROLE)
        for number in range(6):
            pause(0.1)
            exchange.send(b": ping\n\n" if number % 2 else b"event: ping\ndata: {}\n\n")
        exchange.send(delta("a"), FINISH, DONE)
        exchange.close()

    config = STUBBORN.replace(stream=gr.StreamConfig(idle_timeout=0.4))
    with Loopback(handler) as server, open_session(harness, gr.Resilience(config, clock=clock)) as session:
        body = Live(session, server.url + "/v1/chat/completions").read()

        assert body.endswith(delta("a") + FINISH + DONE)
        assert server.count == 1


DEADLINE = 0.3

PEERS: dict[str, tuple[float, bytes]] = {
    "trickling": (0.02, delta("a")),
    "silent": (5.0, b""),
}


@pytest.mark.parametrize(("interval", "event"), PEERS.values(), ids=PEERS)
def test_a_deadline_ends_a_stream(interval: float, event: bytes, harness: Harness) -> None:
    """To the instant for who awaits; who blocks hears of it with the next bytes, or when the read times out."""
    left = threading.Event()

    def handler(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(HEAD, ROLE, delta("a"))
        while not left.wait(interval) and exchange.send(event):
            pass
        exchange.close()

    store = Ledger()
    brain = gr.Resilience(STUBBORN.replace(deadline=DEADLINE), store=store)
    with Loopback(handler) as server:
        session, options = limited(harness, 5.0, brain)
        with session:
            begun = time.perf_counter()
            live = Live(session, server.url + "/v1/chat/completions", EXACT, **options)
            with pytest.raises(gr.DeadlineExceededError) as caught:
                live.read()
            took = time.perf_counter() - begun
            left.set()

            assert DEADLINE * 0.9 < took < 2 * DEADLINE + 1.0
            assert live.body.startswith(ROLE + delta("a"))
            assert caught.value.report is not None
            assert caught.value.report.outcome == "failure"
            assert (store.out, store.waiting) == (set(), 0)
