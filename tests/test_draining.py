"""The rest of a body after its marker: read in time or given up, by real parsers off real sockets."""

from __future__ import annotations

import gc
import http.client
import socket
import ssl
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest
import trustme

from gip_resilience._draining import DRAIN_BYTES, DRAIN_TIME, adrain, drain
from gip_resilience._drains import Drains
from loopback import Exchange, Loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from gip_resilience.testing import FakeClock

BOUND = 1.0
"""Seconds in which any drain of the default limits is over, on however slow a machine."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MARKER = b"data: [DONE]\n\n"
CHUNK = b"%x\r\n%b\r\n" % (len(MARKER), MARKER)
END = b"0\r\n\r\n"

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# ---- peers ---------------------------------------------------------------------------------------------------


def pause(seconds: float) -> None:
    """Wait in a thread of the server's."""
    threading.Event().wait(seconds)


def together(exchange: Exchange) -> None:
    """The end comes with the marker."""
    exchange.send(HEAD, CHUNK, END)


def soon(exchange: Exchange) -> None:
    """The end comes 5 ms later."""
    exchange.send(HEAD, CHUNK)
    pause(0.005)
    exchange.send(END)


def in_pieces(exchange: Exchange) -> None:
    """The end comes byte by byte, but it comes."""
    exchange.send(HEAD, CHUNK)
    for index in range(len(END)):
        pause(0.001)
        exchange.send(END[index : index + 1])


def silent(exchange: Exchange) -> None:
    """Nothing comes."""
    exchange.send(HEAD, CHUNK)
    exchange.wait_for_end()


def trickling(exchange: Exchange) -> None:
    """One byte at a time inside a chunk's header: a client's own timeout starts anew with each."""
    exchange.send(HEAD, CHUNK)
    while exchange.send(b"0"):
        pause(0.002)


def trailing(exchange: Exchange) -> None:
    """Trailers, one after the other."""
    exchange.send(HEAD, CHUNK, b"0\r\n")
    while exchange.send(b"a: b\r\n"):
        pause(0.002)


def endless(exchange: Exchange) -> None:
    """The body goes on after its marker, as fast as it is read."""
    exchange.send(HEAD, CHUNK)
    while exchange.send(b"1000\r\n", bytes(0x1000), b"\r\n"):
        pass


def closing(exchange: Exchange) -> None:
    """The connection ends before the body does."""
    exchange.send(HEAD, CHUNK)
    exchange.close()


def resetting(exchange: Exchange) -> None:
    """The connection is reset."""
    exchange.send(HEAD, CHUNK)
    pause(0.005)
    exchange.reset()


PEERS = pytest.mark.parametrize(
    ("peer", "ends"),
    [
        (together, True),
        (soon, True),
        (in_pieces, True),
        (silent, False),
        (trickling, False),
        (trailing, False),
        (endless, False),
        (closing, False),
        (resetting, False),
    ],
)


def limit_of_time(ends: bool) -> float:
    """The default; or where that must not be what ends it, more than a slow machine needs for 5 ms."""
    return 20.0 if ends else DRAIN_TIME


class SecureLoopback(Loopback):
    """The same over TLS."""

    def __init__(self, handler: Callable[[Exchange], None], context: ssl.SSLContext) -> None:
        super().__init__(handler)
        self._context = context
        self.url = self.url.replace("http:", "https:")

    def _serve(self, sock: socket.socket) -> None:
        super()._serve(self._context.wrap_socket(sock, server_side=True))


class Contexts(NamedTuple):
    """TLS on both sides of a connection."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    """A certificate for loopback, and trust in it."""
    authority = trustme.CA()
    made = Contexts(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context())
    authority.issue_cert("127.0.0.1").configure_cert(made.server)
    authority.configure_trust(made.client)
    return made


@pytest.fixture(params=["plain", "tls"])
def serve(request: pytest.FixtureRequest, contexts: Contexts) -> Callable[..., Loopback]:
    """Makes a server, over TCP and over TLS."""
    if request.param == "plain":
        return Loopback
    return lambda handler: SecureLoopback(handler, contexts.server)


# ---- those who block -----------------------------------------------------------------------------------------


class Begun(NamedTuple):
    """A response that was read up to its marker."""

    pull: Callable[[], bytes | None]
    sock: socket.socket
    give_back: Callable[[bool], None]


@contextmanager
def with_h11(url: str, context: ssl.SSLContext) -> Iterator[Callable[[], Begun]]:
    """The parser and the pool of httpx and httpx2."""
    with httpx2.Client(verify=context, timeout=20.0) as client:

        def begin() -> Begun:
            response = client.send(client.build_request("GET", url), stream=True)
            assert isinstance(response.stream, httpx2.SyncByteStream)
            rest = iter(response.stream)
            assert next(rest) == MARKER
            sock = response.extensions["network_stream"].get_extra_info("socket")
            return Begun(lambda: next(rest, None), sock, lambda ended: response.close())

        yield begin


@contextmanager
def with_http_client(url: str, context: ssl.SSLContext) -> Iterator[Callable[[], Begun]]:
    """The parser under urllib3 and requests."""
    parts = urlsplit(url)
    connection = (
        http.client.HTTPSConnection(parts.netloc, timeout=20.0, context=context)
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.netloc, timeout=20.0)
    )

    def begin() -> Begun:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read1(DRAIN_BYTES) == MARKER

        def give_back(ended: bool) -> None:
            if not ended:
                connection.close()
            response.close()

        return Begun(lambda: response.read1(DRAIN_BYTES) or None, connection.sock, give_back)

    try:
        yield begin
    finally:
        connection.close()


def timers() -> list[threading.Thread]:
    """Threads that a drain left behind."""
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@PEERS
@pytest.mark.parametrize("client", [with_h11, with_http_client])
def test_a_drain(
    client: Callable[..., Any],
    serve: Callable[..., Loopback],
    contexts: Contexts,
    peer: Callable[[Exchange], None],
    ends: bool,
) -> None:
    """The connection is used again exactly when the end came in time; no peer can hold up the caller."""
    with serve(peer) as server, client(server.url, contexts.client) as begin:
        for _ in range(2):
            begun = begin()
            start = time.perf_counter()
            ended = drain(begun.pull, begun.sock, limit_of_time(ends))
            took = time.perf_counter() - start
            left = timers()
            begun.give_back(ended)

            assert ended is ends
            assert took < BOUND
            assert left == []
        assert server.connections == (1 if ends else 2)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection over TCP."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=20.0) as near,
    ):
        far, _ = listener.accept()
        with far:
            far.settimeout(20.0)
            yield near, far


def works(near: socket.socket, far: socket.socket) -> bool:
    """Whether a byte gets through, each way."""
    try:
        far.sendall(b"?")
        near.sendall(b"!")
        return near.recv(1) == b"?" and far.recv(1) == b"!"
    except OSError:
        return False


def test_it_is_true_exactly_when_the_socket_was_let_be() -> None:
    """Ends that come about when the time is up: the timer has fired or it never will."""
    limit = 0.002
    for number in range(200):
        near, far = socket.socketpair()
        with near, far:
            moment = limit * (0.5 + number / 200)
            ended = drain(lambda moment=moment: pause(moment), near, limit)  # type: ignore[misc]
            assert timers() == []
            assert works(near, far) is ended


def test_an_end_that_is_the_time_limit_itself(pair: tuple[socket.socket, socket.socket]) -> None:
    """A body without framing ends where the socket does, and ours was shut: that is no end in time."""
    near, far = pair

    assert drain(lambda: near.recv(1) or None, near, 0.01) is False
    assert works(near, far) is False


@pytest.mark.parametrize("sock", [None, object()], ids=["none", "something-else"])
def test_without_a_socket_nothing_is_pulled(sock: Any) -> None:
    """Nobody could end a read; so none is begun."""
    pulled: list[None] = []

    assert drain(lambda: pulled.append(None), sock) is False
    assert pulled == []


def test_without_a_thread_nothing_is_pulled(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the system has no more of them, or the interpreter is shutting down."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    near, far = pair
    pulled: list[None] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert drain(lambda: pulled.append(None), near) is False
    assert pulled == []
    assert works(near, far)


ERRORS = [
    OSError("reset"),
    TimeoutError(),
    ssl.SSLError("bad record"),
    httpx2.ReadError("lost"),
    http.client.IncompleteRead(b""),
    ValueError("I/O operation on closed file"),
    StopIteration(),
    AssertionError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_client_raises_is_swallowed(
    error: Exception, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The stream has ended well; what happens to the rest of its body is nobody's problem."""
    near, far = pair

    def pull() -> bytes | None:
        raise error

    assert drain(pull, near) is False
    assert timers() == []
    assert works(near, far)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_meant_for_the_caller_is_not(
    error: type[BaseException], pair: tuple[socket.socket, socket.socket]
) -> None:
    """And leaves no timer behind."""
    near, far = pair

    def pull() -> bytes | None:
        raise error

    with pytest.raises(error):
        drain(pull, near)
    assert timers() == []
    assert works(near, far)


@pytest.mark.parametrize(
    ("sizes", "limit", "ended", "pulls"),
    [
        ([], 0, True, 1),
        ([10], 10, True, 2),
        ([11], 10, False, 1),
        ([5, 5], 10, True, 3),
        ([5, 5, 1], 10, False, 3),
        ([5, 5, 1, 1], 10, False, 3),
        ([DRAIN_BYTES], DRAIN_BYTES, True, 2),
    ],
)
@pytest.mark.parametrize("colour", ["blocks", "awaits"])
def test_the_limit_of_bytes(
    colour: str,
    sizes: list[int],
    limit: int,
    ended: bool,
    pulls: int,
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """So many may come, and then the end; after one more, nothing is pulled."""
    pieces = [*map(bytes, sizes), None]
    given: list[bytes | None] = []

    def pull() -> bytes | None:
        given.append(pieces[len(given)])
        return given[-1]

    async def apull() -> bytes | None:
        return pull()

    if colour == "blocks":
        assert drain(pull, pair[0], limit=limit) is ended
    else:
        assert run("asyncio", lambda: adrain(apull, limit=limit)) is ended
    assert len(given) == pulls


def test_pieces_of_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    """They count against the time."""
    start = time.perf_counter()

    assert drain(lambda: b"", pair[0], 0.01) is False
    assert time.perf_counter() - start < BOUND


def test_a_peer_that_goes_on_after_the_time_limit(pair: tuple[socket.socket, socket.socket]) -> None:
    """It sends as fast as one pull reads, so the socket never runs dry; the read ends all the same."""
    near, far = pair
    start = time.perf_counter()

    def pull() -> bytes | None:
        while time.perf_counter() - start < BOUND:
            far.sendall(b"x")
            near.recv(1)
        return None

    assert drain(pull, near, 0.01) is False
    assert time.perf_counter() - start < BOUND


def test_a_socket_that_is_closed_meanwhile(pair: tuple[socket.socket, socket.socket]) -> None:
    """There is nothing to shut when the time is up."""
    near, _ = pair

    def pull() -> bytes | None:
        near.close()
        pause(0.03)
        return None

    assert drain(pull, near, 0.01) is False
    assert timers() == []


def test_the_state_of_tls_stays(contexts: Contexts) -> None:
    """Who is reading when the socket is shut still reads TLS, and not what is underneath."""
    with (
        SecureLoopback(silent, contexts.server) as server,
        with_http_client(server.url, contexts.client) as begin,
    ):
        begun = begin()
        assert isinstance(begun.sock, ssl.SSLSocket)
        assert drain(begun.pull, begun.sock, 0.01) is False
        assert begun.sock.cipher() is not None
        begun.give_back(False)


def test_a_timer_does_not_keep_the_interpreter(pair: tuple[socket.socket, socket.socket]) -> None:
    """One that is still running when the main thread ends is no reason to wait."""
    daemons: list[bool] = []

    def pull() -> bytes | None:
        daemons.extend(timer.daemon for timer in timers())
        return None

    assert drain(pull, pair[0]) is True
    assert daemons == [True]


def test_nothing_is_held_afterwards() -> None:
    """Neither what pulls nor the socket waits for the garbage collector."""
    near, far = socket.socketpair()
    gc.disable()
    try:
        with near, far:
            assert drain(lambda: None, near) is True
        gone = weakref.ref(near)
        del near
        assert gone() is None
    finally:
        gc.enable()


# ---- those who await -----------------------------------------------------------------------------------------


def run(backend: str, function: Callable[[], Awaitable[Any]]) -> Any:
    """Run under an event loop of its own."""

    async def main() -> Any:
        return await function()

    return anyio.run(main, backend=backend)


async def leave(rest: AsyncIterator[bytes]) -> None:
    """End the client's generators, from the innermost out: trio warns of those that are dropped."""
    with anyio.CancelScope() as scope, suppress(httpx2.HTTPError):
        scope.cancel()
        async for _ in rest:
            pass


@PEERS
@BACKENDS
def test_an_awaiting_drain(
    backend: str,
    serve: Callable[..., Loopback],
    contexts: Contexts,
    peer: Callable[[Exchange], None],
    ends: bool,
) -> None:
    """The same as for those who block."""

    async def main() -> None:
        async with httpx2.AsyncClient(verify=contexts.client, timeout=20.0) as client:
            for _ in range(2):
                response = await client.send(client.build_request("GET", server.url), stream=True)
                assert isinstance(response.stream, httpx2.AsyncByteStream)
                rest = aiter(response.stream)
                assert await anext(rest) == MARKER
                start = time.perf_counter()
                ended = await adrain(lambda rest=rest: anext(rest, None), limit_of_time(ends))  # type: ignore[misc]
                took = time.perf_counter() - start
                await leave(rest)
                await response.aclose()

                assert ended is ends
                assert took < BOUND

    with serve(peer) as server:
        run(backend, main)
        assert server.connections == (1 if ends else 2)


@BACKENDS
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_an_awaiting_client_raises_is_swallowed(backend: str, error: Exception) -> None:
    """The same as for those who block."""

    async def pull() -> bytes | None:
        raise error

    assert run(backend, lambda: adrain(pull)) is False


@BACKENDS
def test_a_cancellation_from_outside_goes_through(backend: str) -> None:
    """It is no time limit of ours, and what follows the drain is not run."""
    reached: list[bool] = []

    async def main() -> None:
        with anyio.CancelScope() as scope:

            async def pull() -> bytes | None:
                scope.cancel()
                await anyio.sleep_forever()
                return None

            reached.append(await adrain(pull))

    run(backend, main)
    assert reached == []


@BACKENDS
def test_a_pull_that_never_waits(backend: str) -> None:
    """It cannot be cancelled, and is not asked again when the time is up."""

    async def pull() -> bytes | None:
        return b""

    start = time.perf_counter()

    assert run(backend, lambda: adrain(pull, 0.01)) is False
    assert time.perf_counter() - start < BOUND


# ---- which origins are worth it ------------------------------------------------------------------------------


@pytest.fixture
def drains(clock: FakeClock) -> Drains:
    """Nothing is known of any origin."""
    return Drains(clock.monotonic)


def test_an_origin_is_left_alone_for_longer_and_longer(drains: Drains, clock: FakeClock) -> None:
    """A minute after its first failure, doubling up to ten; then it is tried again."""
    for rest in (60.0, 120.0, 240.0, 480.0, 600.0, 600.0):
        assert drains.worth("a")
        drains.tell("a", False)
        assert not drains.worth("a")
        clock.advance(rest - 0.5)
        assert not drains.worth("a")
        clock.advance(0.5)


def test_a_success_forgets_it(drains: Drains, clock: FakeClock) -> None:
    """Whatever was before, the next failure is a first one."""
    for _ in range(3):
        drains.tell("a", False)
    drains.tell("a", True)
    assert drains.worth("a")

    drains.tell("a", False)
    clock.advance(60.0)

    assert drains.worth("a")


def test_origins_have_nothing_to_do_with_each_other(drains: Drains) -> None:
    """The failure of one is not the other's, nor is its success."""
    drains.tell("a", False)
    drains.tell("b", True)

    assert not drains.worth("a")
    assert drains.worth("b")


def test_so_many_origins_are_remembered(drains: Drains) -> None:
    """Of 300, the last 256; one that failed again counts as new."""
    for number in range(256):
        drains.tell(str(number), False)
    drains.tell("0", False)
    for number in range(256, 300):
        drains.tell(str(number), False)

    forgotten = [number for number in range(300) if drains.worth(str(number))]

    assert forgotten == list(range(1, 45))


def test_many_threads_tell() -> None:
    """At the limit, where each that comes pushes another out, and a clock lets the others go first."""

    def monotonic() -> float:
        pause(1e-6)
        return 0.0

    drains = Drains(monotonic)
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def tell(thread: int) -> None:
        try:
            start.wait(20.0)
            for number in range(64):
                drains.tell(f"{thread}-{number}", False)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=tell, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)

    assert failures == []
    told = [f"{thread}-{number}" for thread in range(8) for number in range(64)]
    assert sum(not drains.worth(origin) for origin in told) == 256


def test_the_limits_are_those_of_the_design() -> None:
    """100 ms and 64 KiB."""
    assert (DRAIN_TIME, DRAIN_BYTES) == (0.1, 65536)
