"""A request body arrives whole every time it is sent, or the request is not sent again.

The failures tested for are the silent ones: an iterator that is exhausted, a file that is at its end, a multipart
part that cannot be rewound. Some clients send an empty or a shortened body then, and get a 200 for it.
"""

from __future__ import annotations

import copy
import io
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.breaker import State
from gip_resilience.gateway import FaultPlan, Gateway, Status
from gip_resilience.testing import FakeClock
from harness import HARNESSES
from loopback import Loopback
from sending import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from gip_resilience.gateway import Seen
    from harness import Harness, Session
    from loopback import Exchange

PAYLOAD = bytes(range(251)) * 500
"""125 500 bytes: more than one read of anybody's, less than the replay limit."""

LARGE = bytes(range(251)) * 12_500
"""3 MB: over the replay limit."""

PIECE = 40_000


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A local gateway that keeps the bodies it is sent."""
    with Gateway(record_bodies=True) as running:
        yield running


# ---- the kinds of bodies --------------------------------------------------------------------------------------


class Unseekable(io.RawIOBase):
    """A file that can be read once, such as a pipe."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        """A raw file must say so."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        return self._data.readinto(buffer)


class Reader:
    """The least that passes for a file: it gives what it has, whatever size is asked for."""

    def __init__(self, data: bytes) -> None:
        self._pieces = pieces(data)

    def read(self, size: int = -1) -> bytes:
        """Give the next piece."""
        return next(self._pieces, b"")

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


class Pieces:
    """A body that can be iterated anew."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return pieces(self._data)


class AsyncPieces:
    """A body that can be iterated anew."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return apieces(self._data)


class AsyncOnce:
    """An asynchronous iterator that is not a generator: iterating it anew gives nothing, and no error."""

    def __init__(self, data: bytes) -> None:
        self._pieces = pieces(data)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


def pieces(data: bytes) -> Iterator[bytes]:
    """*data* from a generator."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


async def apieces(data: bytes) -> AsyncIterator[bytes]:
    """*data* from an asynchronous generator."""
    for piece in pieces(data):
        yield piece


def file_at(data: bytes, position: int) -> io.BytesIO:
    """A file of which the first *position* bytes were read."""
    file = io.BytesIO(data)
    file.seek(position)
    return file


RAW_ONCE = {
    "generator": pieces,
    "iter-of-a-list": lambda data: iter(list(pieces(data))),
    "map": lambda data: map(bytes, pieces(data)),
    "re-iterable": Pieces,
    "file": io.BytesIO,
    "file-at-an-offset": lambda data: file_at(data, 2),
    "unseekable-file": Unseekable,
    "reader": Reader,
}
RAW_ASYNC = {"async-generator": apieces, "async-iterator": AsyncOnce, "async-re-iterable": AsyncPieces}


def _raw(library: str, make: Callable[[bytes], Any]) -> Callable[[bytes], dict[str, Any]]:
    name = "data" if library == "requests" else "content"
    return lambda data: {name: make(data)}


def _multipart(make: Callable[[bytes], Any]) -> Callable[[bytes], dict[str, Any]]:
    return lambda data: {"data": {"model": "whisper"}, "files": {"file": ("a.bin", make(data))}}


def kinds_of(harness: Harness) -> dict[str, Callable[[bytes], dict[str, Any]]]:
    """Every kind of body the client supports: from the bytes of the body to the options of a request."""
    library = harness.name.partition("-")[0]
    kinds: dict[str, Callable[[bytes], dict[str, Any]]] = {
        "none": lambda _: {},
        "empty": lambda _: _raw(library, bytes)(b""),
        "bytes": _raw(library, bytes),
        "text": _raw(library, lambda data: data.decode("latin-1")),
        "json": lambda data: {"json": {"model": "m", "image": data.hex()}},
        "form": lambda data: {"data": {"model": "m", "image": data.hex()}},
        "multipart-bytes": _multipart(bytes),
        "multipart-file": _multipart(io.BytesIO),
        "multipart-file-at-an-offset": _multipart(lambda data: file_at(data, 2)),
        "multipart-unseekable": _multipart(Unseekable),
    }
    if harness.colour == "async":
        kinds |= {name: _raw(library, make) for name, make in RAW_ASYNC.items()}
        return kinds
    kinds |= {name: _raw(library, make) for name, make in RAW_ONCE.items()}
    if library == "requests":
        kinds["text-generator"] = lambda data: {"data": (p.decode("latin-1") for p in pieces(data))}
        kinds["text-reader"] = lambda data: {"data": TextReader(data)}
        del kinds["multipart-unseekable"]  # it asks a file for its size by seeking in it
    else:
        kinds["list"] = lambda data: {"content": list(pieces(data))}
        if library == "httpx":
            del kinds["file-at-an-offset"]  # httpx announces the length from the file's beginning
    return kinds


class TextReader(io.TextIOBase):
    """A file of text that can be read once."""

    def __init__(self, data: bytes) -> None:
        self._text = io.StringIO(data.decode("latin-1"))

    def read(self, size: int | None = -1, /) -> str:
        """Read on."""
        return self._text.read(size)

    def seekable(self) -> bool:
        """It cannot."""
        return False

    def tell(self) -> int:
        """It cannot."""
        raise io.UnsupportedOperation("tell")


KINDS = [
    pytest.param(harness, make, id=f"{harness}-{name}")
    for harness in HARNESSES
    for name, make in kinds_of(harness).items()
]

_BOUNDARY = re.compile(r"boundary=(\S+)")


def what_arrived(seen: Seen) -> tuple[bytes, str | None, str | None, str | None]:
    """A request's body and framing, with a neutral multipart boundary."""
    body = seen.body
    assert body is not None
    kind = seen.header("content-type")
    boundary = _BOUNDARY.search(kind or "")
    if boundary:
        body = body.replace(boundary[1].encode(), b"BOUNDARY")
        kind = "multipart"
    length = seen.header("content-length")
    return body, kind, str(len(seen.body or b"")) if length else None, seen.header("transfer-encoding")


# ---- sent again, whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("harness", "make"), KINDS)
def test_every_attempt_sends_the_whole_body(
    harness: Harness,
    make: Callable[[bytes], dict[str, Any]],
    gateway: Gateway,
    clock: FakeClock,
) -> None:
    """Whatever a body is made of, attempts two and three send what a bare client sends once."""
    with open_session(harness) as bare:
        bare.request("POST", gateway.url + "/echo", **make(PAYLOAD))
    (expected,) = map(what_arrived, gateway.requests)
    gateway.clear()
    gateway.plan = FaultPlan.script([Status(503), Status(503)])

    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.request("POST", gateway.url + "/echo", **make(PAYLOAD))

    assert answer.status == 200
    assert [what_arrived(seen) for seen in gateway.requests] == [expected] * 3


def test_a_length_that_does_not_fit_the_body_is_the_callers_error(gateway: Gateway, clock: FakeClock) -> None:
    """A client announces a file's length (httpx) from its beginning; at an offset it fails as it does bare, once."""
    (harness,) = (h for h in HARNESSES if h.name == "httpx")
    with open_session(harness) as bare, pytest.raises(Exception, match="Too little data") as expected:
        bare.post(gateway.url + "/echo", content=file_at(b"0123456789", 2))
    with open_session(harness, gr.Resilience(clock=clock)) as mounted, pytest.raises(type(expected.value)):
        mounted.post(gateway.url + "/echo", content=file_at(b"0123456789", 2))
    assert clock.slept == []
    assert gateway.requests == []


LARGE_KINDS = {
    # name: (whether it can be sent again, body)
    "bytes": (True, lambda _harness, data: data),
    "generator": (
        False,
        lambda harness, data: apieces(data) if harness.colour == "async" else pieces(data),
    ),
}


@pytest.mark.parametrize("kind", LARGE_KINDS)
def test_a_body_over_the_replay_limit(
    kind: str, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """3 MB in memory are sent again; 3 MB from a generator are not, and the caller gets the server's answer."""
    again, make = LARGE_KINDS[kind]
    gateway.plan = FaultPlan.script([Status(503), Status(503)])

    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(gateway.url + "/echo", **mounted.content(make(harness, LARGE)))

    assert [seen.body == LARGE for seen in gateway.requests] == [True] * (3 if again else 1)
    assert answer.status == (200 if again else 503)
    if not again:
        assert answer.report.reason == "the body cannot be sent again"


def test_a_large_file_is_rewound(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """What can be rewound needs no recording and so has no limit: a file (requests), a multipart file (httpx)."""
    gateway.plan = FaultPlan.script([Status(503), Status(503)])
    options: dict[str, Any] = {"files": {"file": ("a.bin", io.BytesIO(LARGE))}}
    if harness.name == "requests":
        options = {"data": io.BytesIO(LARGE)}

    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(gateway.url + "/echo", **options)

    assert answer.status == 200
    assert [LARGE in (seen.body or b"") for seen in gateway.requests] == [True] * 3
    assert len({seen.body_sha256 for seen in gateway.requests}) == 1


def test_the_replay_limit_is_a_setting(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """A body from an iterator is remembered up to ``body.replay_limit`` bytes, and not one more."""
    body = apieces if harness.colour == "async" else pieces
    for limit, attempts in ((len(PAYLOAD), 3), (len(PAYLOAD) - 1, 1)):
        gateway.clear()
        gateway.plan = FaultPlan.script([Status(503), Status(503)])
        config = gr.Config.from_dict({"body": {"replay_limit": limit}})
        with open_session(harness, gr.Resilience(config, clock=clock)) as mounted:
            mounted.post(gateway.url + "/echo", **mounted.content(body(PAYLOAD)))
        assert [seen.body == PAYLOAD for seen in gateway.requests] == [True] * attempts


# ---- where it fails -------------------------------------------------------------------------------------------


class StartingClock(FakeClock):
    """A clock whose first pause lets something happen."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self._happens = happens

    def sleep(self, seconds: float) -> None:
        """Let it happen, then pause."""
        if not self.slept:
            self._happens()
        super().sleep(seconds)


@pytest.mark.parametrize("size", [PAYLOAD, LARGE], ids=["small", "over-the-limit"])
def test_a_refused_connection_leaves_the_body_untouched(size: bytes, harness: Harness) -> None:
    """Where nothing was read of a body, any body may be sent in the next attempt."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gateway = Gateway(record_bodies=True, port=port)
    clock = StartingClock(gateway.start)
    body = apieces if harness.colour == "async" else pieces
    try:
        with open_session(harness, gr.Resilience(clock=clock)) as mounted:
            answer = mounted.post(f"http://127.0.0.1:{port}/echo", **mounted.content(body(size)))
        assert [attempt.code for attempt in answer.report.attempts] == ["connect_error", "ok"]
        assert [seen.body == size for seen in gateway.requests] == [True]
    finally:
        gateway.stop()


class Breaking:
    """A server that breaks the first exchange while the body is still being sent, and tells when it has."""

    def __init__(self, how: str) -> None:
        self.broke = threading.Event()
        self.bodies: list[bytes | None] = []
        self._how = how

    def handle(self, exchange: Exchange) -> None:
        """Serve one request."""
        if exchange.number > 1:
            self.bodies.append(exchange.read_body())
            exchange.answer(200, b"{}", "content-type: application/json")
            return
        if self._how == "answer":
            exchange.answer(503, b"", "connection: close")
        exchange.reset()
        self.broke.set()

    def pieces(self) -> Iterator[bytes]:
        """Three pieces; from the second on, the connection is broken."""
        for number, piece in enumerate(pieces(PAYLOAD)):
            if number == 1:
                assert self.broke.wait(10)
            yield piece

    async def apieces(self) -> AsyncIterator[bytes]:
        """The same for an awaiting client."""
        for piece in self.pieces():
            yield piece


@pytest.mark.parametrize("how", ["reset", "answer"])
def test_a_connection_that_breaks_while_the_body_is_sent(
    how: str, harness: Harness, clock: FakeClock
) -> None:
    """The next attempt begins at the first byte and goes on where the source was left."""
    breaking = Breaking(how)
    body = breaking.apieces() if harness.colour == "async" else breaking.pieces()
    with Loopback(breaking.handle) as server, open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(server.url, **mounted.content(body))
    assert answer.status == 200
    assert len(answer.report.attempts) == 2
    assert breaking.bodies == [PAYLOAD]


def test_a_large_body_that_was_half_sent(harness: Harness, clock: FakeClock) -> None:
    """Once more was read of a source than is remembered, a broken connection ends the call."""
    broke = threading.Event()
    bodies: list[bytes | None] = []

    def handle(exchange: Exchange) -> None:
        if exchange.number > 1:
            bodies.append(exchange.read_body())
            exchange.answer(200, b"{}")
            return
        while len(exchange.received) < 1_500_000:
            exchange.received += exchange.sock.recv(1 << 18)
        exchange.reset()
        broke.set()

    def source() -> Iterator[bytes]:
        sent = 0
        for piece in pieces(LARGE):
            if sent > 2_000_000:
                assert broke.wait(10)
            yield piece
            sent += len(piece)

    async def asource() -> AsyncIterator[bytes]:
        for piece in source():
            yield piece

    body = asource() if harness.colour == "async" else source()
    brain = gr.Resilience(clock=clock)
    with Loopback(handle) as server, open_session(harness, brain) as mounted:
        name = "RequestException" if harness.name == "requests" else "TransportError"
        with pytest.raises(getattr(harness.errors, name)) as caught:
            mounted.post(server.url, **mounted.content(body))
        report = gr.report(caught.value)
    assert report is not None
    assert report.reason == "the body cannot be sent again"
    assert (server.count, bodies) == (1, [])


# ---- the caller's own -----------------------------------------------------------------------------------------


HURRIED = {
    "error-timeout": gr.Config.from_dict({"body": {"error_timeout": 3.0}}),
    "deadline": gr.Config.from_dict({"deadline": 4.0, "body": {"error_timeout": 3.0}}),
}
"""Limits below those the clients bring (5 s), so that attempts are sent, or read, with limits of their own."""


@pytest.mark.parametrize("config", HURRIED.values(), ids=HURRIED)
@pytest.mark.parametrize("harness", HARNESSES[1:], ids=repr)
def test_an_httpx_request_is_untouched(
    config: gr.Config, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """After retries and a deadline the caller's request is what it was: it can be sent by someone else."""
    gateway.plan = FaultPlan.script([Status(503), Status(503)])
    brain = gr.Resilience(config, clock=clock, chance=lambda: 0.0)
    body = AsyncPieces(PAYLOAD) if harness.colour == "async" else Pieces(PAYLOAD)
    with open_session(harness, brain) as mounted:
        for options in ({"json": {"model": "m"}}, {"content": body}):
            request = mounted.client.build_request(
                "POST", gateway.url + "/echo", extensions={"note": {"a": [1]}}, **options
            )
            before = (request.method, str(request.url), list(request.headers.raw))
            stream, extensions = request.stream, request.extensions
            copied = copy.deepcopy(extensions)
            send(mounted, request)
            assert (request.method, str(request.url), list(request.headers.raw)) == before
            assert request.stream is stream
            assert request.extensions is extensions
            assert extensions == copied


def send(session: Session, request: Any) -> Any:
    """Send a request the caller has made."""
    if session.harness.colour == "async":
        return session.portal.call(session.client.send, request)
    return session.client.send(request)


def test_a_prepared_request_is_untouched(gateway: Gateway, clock: FakeClock) -> None:
    """The same for a prepared request of requests, whatever its body is made of."""
    harness = HARNESSES[0]
    for name, make in kinds_of(harness).items():
        gateway.plan = FaultPlan.script([Status(503), Status(503)])
        brain = gr.Resilience(HURRIED["deadline"], clock=clock, chance=lambda: 0.0)
        with open_session(harness, brain) as mounted:
            request = mounted.client.prepare_request(
                harness.library.Request("POST", gateway.url + "/echo", **make(PAYLOAD))
            )
            before = {
                **vars(request),
                "headers": dict(request.headers),
                "hooks": copy.deepcopy(request.hooks),
            }
            response = mounted.client.send(request)
            assert response.status_code == 200, name
            assert response.request is request
            assert {**vars(request), "headers": dict(request.headers)} == before, name
            assert request.body is before["body"]


class MineError(Exception):
    """An error of the caller's."""


def failing_body(harness: Harness, error: BaseException) -> Any:
    """A body whose source raises after its first piece."""

    def source() -> Iterator[bytes]:
        yield b"first"
        raise error

    async def asource() -> AsyncIterator[bytes]:
        yield b"first"
        raise error

    return asource() if harness.colour == "async" else source()


@pytest.mark.parametrize(
    ("harness", "error"),
    # A body may well be the answer to another request, and break like one (requests would wrap that: see below).
    [pytest.param(harness, MineError("mine"), id=f"{harness}-own") for harness in HARNESSES]
    + [pytest.param(h, h.errors.ReadTimeout("mine"), id=f"{h}-of-the-library") for h in HARNESSES[1:]],
)
def test_an_error_of_the_source_passes_through(
    harness: Harness, error: Exception, gateway: Gateway, clock: FakeClock
) -> None:
    """It comes out as the same object, is not retried, and teaches nobody anything."""
    brain = gr.Resilience(clock=clock)
    with open_session(harness, brain) as mounted:
        mounted.post(gateway.url + "/echo")
        before = brain.breakers.all()
        with pytest.raises(type(error)) as caught:
            mounted.post(gateway.url + "/echo", **mounted.content(failing_body(harness, error)))
    assert caught.value is error
    assert clock.slept == []
    assert len(gateway.requests) == 1
    snapshot = brain.metrics.snapshot()
    assert (snapshot.total("cancelled"), snapshot.total("success"), snapshot.sent()) == (1, 1, 1)
    after = brain.breakers.all()
    assert {key: view for key, view in after.items() if key in before} == before
    assert all(view.state is State.CLOSED and not view.failures for view in after.values())


def test_an_io_error_of_the_source_is_not_retried(gateway: Gateway, clock: FakeClock) -> None:
    """An OSError of a source is wrapped (requests) as if the connection had failed; yet it is the caller's."""
    harness = HARNESSES[0]
    with open_session(harness) as bare, pytest.raises(harness.errors.RequestException) as expected:
        bare.post(gateway.url + "/echo", **bare.content(failing_body(harness, OSError(5, "disk"))))
    brain = gr.Resilience(clock=clock)
    with open_session(harness, brain) as mounted, pytest.raises(type(expected.value)):
        mounted.post(gateway.url + "/echo", **mounted.content(failing_body(harness, OSError(5, "disk"))))
    assert clock.slept == []
    assert brain.metrics.snapshot().total("cancelled") == 1


def test_a_failing_source_frees_the_probe(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """The permit is given back: a half-open circuit whose probe failed in the caller's hands probes again."""
    host = gateway.url.removeprefix("http://")
    brain = gr.Resilience(clock=clock)
    gateway.plan = FaultPlan.script([Status(503)] * 12)
    with open_session(harness, brain) as mounted:
        while not brain.breakers.all() or brain.breakers[host, ""].state is State.CLOSED:
            mounted.post(gateway.url + "/echo")
        clock.advance(60)
        gateway.plan = FaultPlan()
        with pytest.raises(MineError):
            mounted.post(gateway.url + "/echo", **mounted.content(failing_body(harness, MineError())))
        assert mounted.post(gateway.url + "/echo").status == 200
    assert brain.breakers[host, ""].state is State.CLOSED


def test_a_source_is_asked_only_once_it_is_needed(harness: Harness, clock: FakeClock) -> None:
    """Nothing is read of a body before the connection stands, so that a refusal of ours costs it nothing."""
    asked = []

    def source() -> Iterator[bytes]:
        asked.append(True)
        yield b"x"

    async def asource() -> AsyncIterator[bytes]:
        asked.append(True)
        yield b"x"

    brain = gr.Resilience(clock=clock)
    brain.breakers.force_open("127.0.0.1:1")
    body = asource() if harness.colour == "async" else source()
    with open_session(harness, brain) as mounted, pytest.raises(gr.CircuitOpenError):
        mounted.post("http://127.0.0.1:1/", **mounted.content(body))
    assert asked == []
