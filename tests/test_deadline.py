"""The deadline of a call holds for all of it: connecting, header, waits, hops, and the body its caller reads."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import h2.config
import h2.connection
import h2.events
import pytest
from urllib3.response import HTTPResponse

import gip_resilience as gr
from harness import CHAT, HARNESSES
from leftovers import THEIRS, assert_idle, one_connection, tasks
from live import EXACT, ROLE, Live, delta
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.testing import FakeClock
    from harness import Harness, Session
    from loopback import Exchange

DEADLINE = 0.25
"""Seconds. Real ones: what is bounded here is the time of the operating system and of the event loops."""

SLACK = 0.25
"""Seconds a call may take longer on a busy machine; what the peers below do takes ten times as long."""

DRIP = 0.05

pause = threading.Event().wait
"""What a peer does between two bytes."""

ASYNC = [harness for harness in HARNESSES if harness.colour == "async"]
HTTPX = [harness for harness in HARNESSES if harness.name != "requests"]

BINARY = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
MEBIBYTE = 1 << 20

PEERS: dict[str, tuple[bytes, bytes]] = {
    # What comes at once, and what comes again and again; nothing does if that is empty.
    "silent": (b"", b""),
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "header": (b"HTTP/1.1 200 OK\r\n", b"x-drip: y\r\n"),
    "json": (JSON + b"content-length: 9999\r\n\r\n", b" "),
    "json in chunks": (JSON + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "long json": (JSON + b"content-length: 9999999\r\n\r\n" + b" " * (MEBIBYTE + 1), b" "),
    "error": (b"HTTP/1.1 503 No\r\ncontent-length: 9999\r\n\r\n", b" "),
    "long error": (b"HTTP/1.1 400 No\r\ncontent-length: 9999999\r\n\r\n" + b" " * (MEBIBYTE >> 2), b" "),
    "binary": (BINARY + b"content-length: 9999\r\n\r\n", b"x"),
    "binary in chunks": (BINARY + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "one chunk's head": (BINARY + b"transfer-encoding: chunked\r\n\r\n1;", b"x"),
    "binary to the end": (BINARY + b"connection: close\r\n\r\n", b"x"),
    "silent binary": (BINARY + b"content-length: 9999\r\n\r\nxxx", b""),
    "stream": (SSE + b"connection: close\r\n\r\n" + ROLE, delta("a")),
    "silent stream": (SSE + b"connection: close\r\n\r\n" + ROLE, b""),
}

UNGUARDED = gr.StreamConfig(mode="off")

CONFIG = gr.Config(
    deadline=DEADLINE,
    policies={"overload": gr.Policy(base_delay=0.001)},
    breaker=gr.BreakerConfig(mode="off"),
)


class Peer(Loopback):
    """Makes the first request wait, answers all others at once."""

    def __init__(self, first: bytes, again: bytes) -> None:
        super().__init__(self._handle)
        self._first = first
        self._again = again
        self.left = threading.Event()
        """Whether the client has closed that connection."""

    def _handle(self, exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.number > 1:
            exchange.answer(200, b"{}", "content-type: application/json")
            return
        exchange.send(self._first)
        if self._again:
            for _ in range(100):
                if not exchange.send(self._again):
                    break
                pause(DRIP)
        else:
            exchange.wait_for_end()
        exchange.close()
        self.left.set()


@contextmanager
def mounted(harness: Harness, config: gr.Config = CONFIG, **options: Any) -> Iterator[Session]:
    """A client with one connection and a brain of its own."""
    with one_connection(harness) as session:
        gr.mount(session.client, gr.Resilience(config, **options))
        yield session


@contextmanager
def cut(harness: Harness, slack: float = SLACK) -> Iterator[list[gr.DeadlineExceededError]]:
    """What is done in here ends at the deadline, and says so in the library's own way."""
    said: list[gr.DeadlineExceededError] = []
    begun = time.perf_counter()
    with pytest.raises(gr.DeadlineExceededError) as caught:
        yield said
    said.append(caught.value)
    took = time.perf_counter() - begun
    kin = harness.errors.Timeout if harness.name == "requests" else harness.library.TimeoutException
    assert isinstance(caught.value, kin)
    assert caught.value.report is not None
    assert 0.8 * DEADLINE < took < DEADLINE + slack


def assert_usable(session: Session, url: str) -> None:
    """The one connection a client may have is free."""
    gr.unmount(session.client)
    assert_idle(session)
    assert session.post(url).content == b"{}"


# ---- whatever the peer does ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "again"), PEERS.values(), ids=PEERS)
def test_a_call_ends_at_its_deadline(first: bytes, again: bytes, harness: Harness) -> None:
    """Its connection is closed, and the client can be used as before."""
    config = CONFIG.replace(stream=UNGUARDED)
    with Peer(first, again) as peer, mounted(harness, config) as session:
        with cut(harness):
            session.post(peer.url)

        assert peer.left.wait(5)
        assert peer.count == 1
        assert_usable(session, peer.url)


@pytest.mark.parametrize("way", ["stream", "stream_raw"])
@pytest.mark.parametrize("name", ["binary", "one chunk's head", "silent binary", "stream", "long error"])
def test_a_body_that_is_read_later_ends_at_the_deadline(name: str, way: str, harness: Harness) -> None:
    """Decoded or as it came over the wire; and the connection is closed with it."""
    config = CONFIG.replace(stream=UNGUARDED)
    with Peer(*PEERS[name]) as peer, mounted(harness, config) as session:
        with cut(harness):
            getattr(session, way)("POST", peer.url, json=CHAT)

        assert peer.left.wait(5)
        assert_usable(session, peer.url)


def test_what_came_in_time_is_handed_up(harness: Harness) -> None:
    """Piece by piece, and then the error; after that there is nothing more."""
    with Peer(*PEERS["binary in chunks"]) as peer, mounted(harness) as session:
        with cut(harness):
            live = Live(session, peer.url)
            live.read()

        assert 2 <= len(live.body) <= DEADLINE / DRIP + 1
        assert live.body.strip(b"x") == b""
        live.close()
        assert_usable(session, peer.url)


def test_a_guarded_stream_ends_at_the_deadline(harness: Harness) -> None:
    """In the middle of its answer, by an error that is no interruption."""
    with Peer(*PEERS["stream"]) as peer, mounted(harness) as session:
        with cut(harness):
            live = Live(session, peer.url + "/v1/chat/completions", EXACT)
            live.read()

        assert live.body.startswith(ROLE + delta("a"))
        assert peer.left.wait(5)
        assert_usable(session, peer.url)


def test_a_peer_that_does_not_accept(harness: Harness) -> None:
    """Connecting counts."""
    with socket.socket() as listener, mounted(harness) as session:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)
        try:
            with cut(harness):
                session.post(f"http://127.0.0.1:{address[1]}/")
        finally:
            for one in waiting:
                one.close()


@THEIRS
def test_a_peer_that_does_not_read(harness: Harness) -> None:
    """Sending counts. The slack is for copying what is more than all buffers between the two can hold."""
    done = threading.Event()
    with Loopback(lambda exchange: (done.wait(10), exchange.close())) as server, mounted(harness) as session:  # type: ignore[arg-type,return-value]
        try:
            with cut(harness, slack=4 * SLACK):
                session.post(server.url, **session.content(b"x" * 16 * MEBIBYTE))
        finally:
            done.set()


# ---- attempts, waits, hops -------------------------------------------------------------------------------

OVERLOADED = b'{"error":{"code":"model_overloaded","message":"busy"}}'


def test_attempts_share_one_deadline(harness: Harness) -> None:
    """The second has what the first left."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.number == 1:
            pause(0.6 * DEADLINE)
            exchange.answer(503, OVERLOADED, "content-type: application/json")
        else:
            exchange.wait_for_end()

    with Loopback(handle) as server, mounted(harness) as session:
        with cut(harness) as caught:
            session.post(server.url)

        report = caught[0].report
        assert report is not None
        assert [attempt.code for attempt in report.attempts] == ["model_overloaded", "read_timeout"]
        assert server.count == 2


def test_a_wait_that_would_pass_the_deadline_is_not_begun(harness: Harness) -> None:
    """The answer there is is handed up at once."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.answer(503, OVERLOADED, "content-type: application/json", "retry-after: 3")

    with Loopback(handle) as server, mounted(harness) as session:
        begun = time.perf_counter()
        answer = session.post(server.url)

        assert time.perf_counter() - begun < SLACK
        assert (answer.status, answer.content, server.count) == (503, OVERLOADED, 1)
        assert answer.report.reason == "the deadline would pass"


@pytest.mark.parametrize("name", ["silent", "header"])
def test_a_hop_ends_at_the_deadline(name: str, harness: Harness) -> None:
    """The attempt to mend a stream is part of its call."""
    first, again = PEERS[name]

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.number == 1:
            exchange.send(SSE + b"connection: close\r\n\r\n" + ROLE)
            exchange.close()
        elif not again:
            exchange.wait_for_end()
        else:
            exchange.send(first)
            while exchange.send(again):
                pause(DRIP)

    config = CONFIG.replace(policies={"stream": gr.Policy(base_delay=0.001)})
    with Loopback(handle) as server, mounted(harness, config) as session:
        with cut(harness):
            Live(session, server.url + "/v1/chat/completions", EXACT).read()

        assert server.count == 2
        assert_idle(session)


def test_max_elapsed_cuts_nothing(harness: Harness) -> None:
    """No attempt starts after it; one that was begun goes on."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(BINARY + b"content-length: 6\r\n\r\n")
        for _ in range(6):
            exchange.send(b"x")
            pause(DRIP)

    with Loopback(handle) as server, mounted(harness, gr.Config(max_elapsed=0.1)) as session:
        assert session.post(server.url).content == b"x" * 6


# ---- in time ---------------------------------------------------------------------------------------------


BODY = b'{"abc":[1, 2]}'


def in_pieces(exchange: Exchange) -> None:
    """A body that no retry would read, in three pieces."""
    exchange.read_body()
    exchange.send(BINARY + f"content-length: {len(BODY)}\r\n\r\n".encode())
    for part in (BODY[:5], BODY[5:9], BODY[9:]):
        pause(0.01)
        exchange.send(part)


def test_what_comes_in_time_is_as_without_a_deadline(harness: Harness) -> None:
    """The body, by every way, and all that the response tells about itself; the connection is kept."""
    with Loopback(in_pieces) as server, mounted(harness, gr.Config(deadline=20)) as session:
        answer = session.post(server.url)
        response = answer.response

        assert answer.content == BODY
        assert response.json() == {"abc": [1, 2]}
        assert response.elapsed.total_seconds() > (0 if harness.name == "requests" else 0.02)
        assert session.stream("POST", server.url, json=CHAT)[0].content == BODY
        assert session.stream_raw("POST", server.url, json=CHAT)[1] == BODY
        assert server.connections == 1
        if harness.name == "requests":
            copy = pickle.loads(pickle.dumps(response))
            assert (copy.content, copy.elapsed) == (BODY, response.elapsed)
        else:
            assert response.num_bytes_downloaded == len(BODY)
            assert {"trace", "gip_resilience"} & response.request.extensions.keys() == set()


def test_a_deadline_that_has_passed_leaves_the_connection_alone(harness: Harness) -> None:
    """The next call over it may take longer."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        for _ in range(8 if exchange.number == 2 else 1):
            pause(DRIP if exchange.number == 2 else 0)
        exchange.answer(200, BODY, "content-type: application/octet-stream")

    with Loopback(handle) as server, one_connection(harness) as session:
        brain = gr.Resilience(CONFIG)
        gr.mount(session.client, brain)
        assert session.post(server.url).content == BODY
        with brain.override(deadline=None):
            assert session.post(server.url).content == BODY
        assert session.post(server.url).content == BODY
        assert (server.connections, server.count) == (1, 3)


@pytest.mark.parametrize("deadline", [None, 20.0])
def test_without_a_deadline_nothing_is_wrapped(deadline: float | None, harness: Harness) -> None:
    """The body is the client's own."""
    with Loopback(in_pieces) as server, mounted(harness, gr.Config(deadline=deadline)) as session:
        live = Live(session, server.url)
        response = live.response
        if harness.name == "requests":
            untouched = type(response.raw) is HTTPResponse
        else:
            untouched = type(response.stream._stream).__module__.startswith(harness.library.__name__ + ".")
        assert untouched == (deadline is None)
        assert live.read() == BODY


@pytest.mark.parametrize(
    ("kind", "held"),
    [(b"application/json", True), (b"application/octet-stream", False)],
    ids=["held", "not-held"],
)
def test_a_body_read_after_the_deadline(kind: bytes, held: bool, harness: Harness, clock: FakeClock) -> None:
    """What was read under the retry is there for ever; what is still on its way is not waited for."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.answer(200, BODY, f"content-type: {kind.decode()}")

    with Loopback(handle) as server, mounted(harness, gr.Config(deadline=5), clock=clock) as session:
        live = Live(session, server.url)
        clock.sleep(6)
        if held:
            assert live.read() == BODY
        else:
            with pytest.raises(gr.DeadlineExceededError) as caught:
                live.read()
            assert caught.value.report is not None
        assert_idle(session)


@pytest.mark.parametrize("head", [JSON, b"HTTP/1.1 503 No\r\n"], ids=["json", "error"])
def test_a_body_whose_end_comes_late_is_cut_under_the_retry(
    head: bytes, harness: Harness, clock: FakeClock
) -> None:
    """No read of it takes long; the clock is looked at between them."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(head, b"connection: close\r\n\r\n ")
        clock.sleep(6)
        exchange.send(b" " * 1024)
        exchange.close()

    with Loopback(handle) as server, mounted(harness, gr.Config(deadline=5), clock=clock) as session:
        with pytest.raises(gr.DeadlineExceededError) as caught:
            session.post(server.url)
        assert caught.value.report is not None
        assert caught.value.report.outcome == "failure"
        assert_idle(session)


# ---- what is the caller's ---------------------------------------------------------------------------------


@THEIRS
@pytest.mark.parametrize("harness", ASYNC, ids=repr)
@pytest.mark.parametrize("name", ["header", "json", "binary", "stream"])
def test_a_timeout_of_the_callers_own_is_not_ours(name: str, harness: Harness) -> None:
    """A cancellation passes through as what it is, and leaves nothing."""
    with Peer(*PEERS[name]) as peer, mounted(harness, gr.Config(deadline=20)) as session:

        async def impatiently() -> None:
            before = tasks()
            with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.1):
                await session.client.post(peer.url + "/v1/chat/completions", json=EXACT)
            assert not isinstance(caught.value, gr.ResilienceError)
            assert tasks() - before == set()

        assert session.portal is not None
        session.portal.call(impatiently)
        assert peer.left.wait(5)
        assert_usable(session, peer.url)


@THEIRS
@pytest.mark.parametrize("harness", ASYNC, ids=repr)
@pytest.mark.parametrize("name", ["header", "binary"])
def test_no_task_is_left(name: str, harness: Harness) -> None:
    """Not when the deadline ends an attempt, nor when it ends a body."""
    with Peer(*PEERS[name]) as peer, mounted(harness) as session:

        async def call() -> None:
            before = tasks()
            with pytest.raises(gr.DeadlineExceededError):
                await session.client.post(peer.url, json=CHAT)
            assert tasks() - before == set()

        assert session.portal is not None
        session.portal.call(call)


@pytest.mark.parametrize("harness", HTTPX, ids=repr)
def test_a_trace_of_the_callers_own_is_kept(harness: Harness) -> None:
    """It hears what it hears without a deadline."""
    told: list[list[str]] = []

    def note(name: str, info: object) -> None:
        told[-1].append(name)

    async def anote(name: str, info: object) -> None:
        note(name, info)

    trace: Callable[..., Any] = note if harness.colour == "sync" else anote
    with Loopback(in_pieces) as server:
        for deadline in (None, 20.0):
            told.append([])
            with mounted(harness, gr.Config(deadline=deadline)) as session:
                session.post(server.url, extensions={"trace": trace})

    assert told[0] == told[1] != []


# ---- HTTP/2 ----------------------------------------------------------------------------------------------


@contextmanager
def http2_peer(*, dripping: str) -> Iterator[str]:
    """A server that speaks HTTP/2 at once, and drips: a ``header`` that does not end (as pings), or a ``body``."""

    def drip(sock: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        number = 0
        while not number:
            for event in connection.receive_data(sock.recv(65536)):
                if isinstance(event, h2.events.RequestReceived):
                    number = event.stream_id or 0
        if dripping == "body":
            headers = [(":status", "200"), ("content-type", "application/octet-stream")]
            connection.send_headers(number, headers)
        for _ in range(100):
            if dripping == "body":
                connection.send_data(number, b"x")
            else:
                connection.ping(b"12345678")
            sock.sendall(connection.data_to_send())
            pause(DRIP)

    def serve() -> None:
        with suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                drip(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("harness", HTTPX, ids=repr)
@pytest.mark.parametrize("dripping", ["header", "body"])
def test_http2(dripping: str, harness: Harness) -> None:
    """A connection that is shared is not touched: each of its reads is told what is left."""
    with (
        http2_peer(dripping=dripping) as url,
        harness.open(gr.Resilience(CONFIG), http1=False, http2=True) as session,
        cut(harness),
    ):
        session.post(url)
