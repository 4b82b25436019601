"""Breaking streams in the gateway: every place, every way, every framing, byte for byte on a socket."""

from __future__ import annotations

import json
import socket
import threading
import time
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from gip_resilience.gateway import (
    BreakStream,
    EmptyReply,
    Error,
    FaultPlan,
    Gateway,
    Gzip,
    HalfHeaders,
    Reply,
    Reset,
    Slow,
    SlowBody,
    WrongType,
)
from gip_resilience.gateway.answers import Answer, Parts
from gip_resilience.gateway.breaking import NOT_JSON
from gip_resilience.gateway.http1 import Request
from gip_resilience.gateway.wire import LONGEST_TRICKLE, Finish, Operation, Pause, Write, operations, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHAT = "/v1/chat/completions"
BODY = json.dumps(
    {"model": "m", "stream": True, "messages": [{"role": "user", "content": "one 안녕 two 😀 three"}]}
).encode()
ASK = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(BODY), BODY)
NEXT = b"GET /bytes/5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
FAILED = (
    b'data: {"error":{"type":"internal_server_error","code":"stream_error",'
    b'"message":"The request failed with stream_error."}}\n\n'
)
DONE = b"data: [DONE]\n\n"

End = Literal["fin", "rst", "open"]
ENDS: dict[str, End] = {"fin": "fin", "rst": "rst", "stall": "open"}


class Heard(NamedTuple):
    """One answer.

    Attributes:
        headers: by lower-case name.
        pieces: the body as it was framed: its chunks, or all of it.
        ended: whether the framing marks the end of the body.
        rest: what came after it.
    """

    headers: dict[bytes, bytes]
    pieces: list[bytes]
    ended: bool
    rest: bytes

    @property
    def body(self) -> bytes:
        """The body without its framing."""
        return b"".join(self.pieces)

    def unpacked(self) -> tuple[bytes, bool]:
        """The body without its compression, and whether it is all there."""
        if self.headers.get(b"content-encoding") != b"gzip":
            return self.body, True
        unpacker = zlib.decompressobj(wbits=31)
        return unpacker.decompress(self.body), unpacker.eof


def read(data: bytes) -> Heard:
    """The answer at the beginning of *data*."""
    head, _, rest = data.partition(b"\r\n\r\n")
    headers = {
        name.lower(): value for name, _, value in (f.partition(b": ") for f in head.split(b"\r\n")[1:])
    }
    if b"content-length" in headers:
        length = int(headers[b"content-length"])
        return Heard(headers, [rest[:length]], len(rest) >= length, rest[length:])
    if b"transfer-encoding" not in headers:
        return Heard(headers, [rest], False, b"")
    pieces: list[bytes] = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        piece, end, rest = rest[:length], rest[length : length + 2], rest[length + 2 :]
        assert end == b"\r\n"
        if not length:
            return Heard(headers, pieces, True, rest)
        assert len(piece) == length
        pieces.append(piece)
    return Heard(headers, pieces, False, b"")


def dial(gateway: Gateway) -> socket.socket:
    """A raw connection."""
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def hear(client: socket.socket, enough: Callable[[bytes], bool] = lambda _: False) -> tuple[bytes, End]:
    """All bytes until the connection ends, or until it is silent after there was *enough*."""
    heard = b""
    while True:
        try:
            data = client.recv(65536)
        except TimeoutError:
            assert enough(heard), heard
            return heard, "open"
        except ConnectionResetError:
            return heard, "rst"
        if not data:
            return heard, "fin"
        heard += data
        client.settimeout(0.05 if enough(heard) else 10)


def ask(gateway: Gateway, reply: Reply, request: bytes = ASK + NEXT) -> tuple[bytes, End]:
    """Let *reply* answer the stream on a connection of its own, and a healthy gateway the request after it."""
    gateway.plan = FaultPlan.always(reply, path=CHAT)
    with closing(dial(gateway)) as client:
        client.sendall(request)
        return hear(client)


def until(holds: Callable[[], object]) -> None:
    """Wait for something another thread does."""
    pause, deadline = threading.Event(), time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        pause.wait(0.002)


@pytest.fixture(scope="module")
def events(running: Gateway) -> list[bytes]:
    """The healthy stream."""
    running.plan = FaultPlan()
    with closing(dial(running)) as client:
        client.sendall(ASK + NEXT)
        pieces = read(hear(client)[0]).pieces
    assert len(pieces) > 10
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    return pieces


# ------------------------------------------------------------------------------------------- on the wire


def size(events: Iterable[bytes]) -> int:
    """Bytes of all of them."""
    return sum(map(len, events))


def beyond_ascii(body: bytes) -> list[int]:
    """Where each character beyond ASCII begins."""
    text = body.decode()
    return [len(text[:place].encode()) for place, char in enumerate(text) if not char.isascii()]


def in_char(events: Iterable[bytes], earliest: int = 0) -> int:
    """The byte after the first one of the first character beyond ASCII, from *earliest* on."""
    return 1 + next(start for start in beyond_ascii(b"".join(events)) if start >= earliest)


PLACES: dict[str, tuple[dict[str, Any], Callable[[list[bytes]], int]]] = {
    "nowhere": ({}, lambda _: 0),
    "no event": ({"events": 0}, lambda _: 0),
    "3 events": ({"events": 3}, lambda e: size(e[:3])),
    "all events": ({"events": 999}, size),
    "byte 0": ({"byte": 0}, lambda _: 0),
    "byte 400": ({"byte": 400}, lambda _: 400),
    "all bytes": ({"byte": 10**9}, size),
    "char": ({"char": True}, in_char),
    "char after events": ({"char": True, "events": 6}, lambda e: in_char(e, size(e[:6]))),
    "char after bytes": ({"char": True, "byte": 5}, lambda e: in_char(e, 5)),
}


def parted(events: Iterable[bytes], place: int) -> tuple[list[bytes], list[bytes]]:
    """The events before *place* and those after it."""
    before, after, start = [], [], 0
    for event in events:
        cut = min(max(place - start, 0), len(event))
        before += [event[:cut]] if cut else []
        after += [event[cut:]] if cut < len(event) else []
        start += len(event)
    return before, after


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
@pytest.mark.parametrize("how", ["eof", "fin", "rst", "stall", "error", "garbled"])
@pytest.mark.parametrize("where", PLACES)
def test_a_break_on_the_wire(
    gateway: Gateway, events: list[bytes], where: str, how: Any, framing: Any, gzip: bool
) -> None:
    """It sends exactly the bytes before the place, and ends in exactly the way that was asked for."""
    options, find = PLACES[where]
    before, after = parted(events, find(events))
    put_in = {"error": [FAILED], "garbled": [NOT_JSON, *after]}.get(how, [])
    expected = before + put_in
    reply = BreakStream(how=how, framing=framing, gzip=gzip, **options)

    def enough(data: bytes) -> bool:
        return b"\r\n\r\n" in data and read(data).unpacked()[0] == b"".join(expected)

    gateway.plan = FaultPlan.always(reply, path=CHAT)
    with closing(dial(gateway)) as client:
        client.sendall(ASK + NEXT)
        data, end = hear(client, enough if how == "stall" else lambda _: False)
    heard = read(data)
    body, unpacked = heard.unpacked()

    assert body == b"".join(expected)
    assert heard.headers[b"content-type"] == b"text/event-stream"
    assert (b"content-encoding" in heard.headers) == gzip
    if gzip:
        assert unpacked == (not after or how in ("error", "garbled"))
    elif framing == "chunked":
        assert heard.pieces == expected
    assert (b"transfer-encoding" in heard.headers) == (framing == "chunked")
    assert (b"content-length" in heard.headers) == (framing == "length")
    assert (b"connection" in heard.headers) == (framing == "close")
    if framing == "length" and how in ENDS and not gzip:
        assert int(heard.headers[b"content-length"]) == size(events) + (not after)
    in_order = how not in ENDS
    assert end == ENDS.get(how, "fin")
    assert heard.ended == (in_order and framing != "close")
    if heard.ended:
        assert read(heard.rest).body == bytes(range(5)), "the connection serves the next request"
    assert heard.rest.startswith(b"HTTP/1.1 200 OK\r\n") == heard.ended


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_compressed_promise(gateway: Gateway, how: Any) -> None:
    """The length that is not kept is that of the whole body as it would have been sent."""
    whole = read(ask(gateway, BreakStream(events=999, gzip=True, framing="length"))[0]).body
    cut = read(ask(gateway, BreakStream(events=3, gzip=True, framing="length", how=how))[0])
    assert int(cut.headers[b"content-length"]) == len(whole) > len(cut.body)


def test_what_is_recorded(gateway: Gateway) -> None:
    """The recording names the reply, the status that was seen, and the code of an error in the stream."""
    ask(gateway, BreakStream(how="fin"))
    ask(gateway, BreakStream(how="error", code=503))
    seen = [(seen.reply, seen.status, seen.code) for seen in gateway.requests if seen.path == CHAT]
    assert seen == [("break_stream", 200, None), ("break_stream", 200, "503")]


def test_a_stream_under_another_type(gateway: Gateway, events: list[bytes]) -> None:
    """A stream may claim to be something else, whole or broken."""
    for reply, expected in (
        (WrongType(), events),
        (WrongType("application/json", BreakStream(events=2)), events[:2]),
        (BreakStream(events=2, then=WrongType("application/json")), events[:2]),
    ):
        heard = read(ask(gateway, reply)[0])
        assert heard.pieces == expected
        assert heard.headers[b"content-type"] in (b"text/html; charset=utf-8", b"application/json")


def test_http_1_0_has_no_chunks(gateway: Gateway, events: list[bytes]) -> None:
    """A client that does not know chunks gets the same bytes up to the close."""
    request = ASK.replace(b"HTTP/1.1", b"HTTP/1.0")
    data, end = ask(gateway, BreakStream(events=3, trickle=0.01), request)
    heard = read(data)
    assert b"transfer-encoding" not in heard.headers
    assert (heard.body, end) == (b"".join(events[:3]), "fin")


def test_a_late_end_is_late(events: list[bytes]) -> None:
    """All events are there before the end is."""
    plan = FaultPlan.always(BreakStream(events=999, late=60.0))
    with Gateway(plan) as gateway, closing(dial(gateway)) as client:
        client.sendall(ASK)
        data, end = hear(client, lambda data: data.endswith(DONE + b"\r\n"))
    assert (read(data).pieces, read(data).ended, end) == (events, False, "open")


def test_a_trickle_ends_when_the_client_leaves() -> None:
    """After the whole stream comes an endless chunk extension, byte by byte, as long as somebody listens."""
    with Gateway(FaultPlan.always(BreakStream(events=999, trickle=0.01))) as gateway:
        with closing(dial(gateway)) as client:
            client.sendall(ASK)
            data = b""
            while not data.endswith(b"xxx"):
                data += client.recv(65536)
        assert data.partition(DONE)[2].rstrip(b"x") == b"\r\n0;"
        runner = gateway._runner
        assert runner is not None
        until(lambda: not runner._connections)


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_chunks_are_cut_wherever_events_begin(gateway: Gateway, events: list[bytes], gzip: bool) -> None:
    """Every chunk has the size that was asked for, but the last; the stream is the same."""
    for chunk in (1, 7, 10**6):
        heard = read(ask(gateway, BreakStream(events=999, chunk=chunk, gzip=gzip))[0])
        assert {len(piece) for piece in heard.pieces[:-1]} <= {chunk}
        assert 0 < len(heard.pieces[-1]) <= chunk
        assert heard.unpacked() == (b"".join(events), True)
        assert heard.ended


# -------------------------------------------------------------------------------------------- as steps


class _Backend:
    """A healthy gateway with one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def respond(self) -> Answer:
        return self._answer

    def rate_limited(self, retry_after: float | str | None) -> Answer:
        return Answer(429)


def steps(reply: Reply, *pieces: bytes, method: str = "GET") -> list[Operation]:
    """What is done after the head was written."""
    outgoing = resolve(reply, _Backend(Answer(body=Parts(pieces))))
    head, *rest = operations(outgoing, Request(method, "/", 1, ()))
    assert isinstance(head, Write)
    assert head.data.endswith(b"\r\n\r\n")
    return rest


WHOLE: dict[str, Any] = {"events": 9}
ONE, TWO, LAST = Write(b"3\r\none\r\n"), Write(b"3\r\ntwo\r\n"), Write(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(BreakStream(), [LAST], id="nothing"),
        pytest.param(BreakStream(framing="close"), [Finish("fin")], id="nothing until the close"),
        pytest.param(BreakStream(events=1, how="fin"), [ONE, Finish("fin")], id="one event"),
        pytest.param(BreakStream(late=2.0, **WHOLE), [ONE, TWO, Pause(2.0), LAST], id="late"),
        pytest.param(
            BreakStream(late=2.0, how="rst", **WHOLE), [ONE, TWO, Pause(2.0), Finish("rst")], id="late reset"
        ),
        pytest.param(
            BreakStream(late=2.0, framing="close", **WHOLE),
            [Write(b"one"), Write(b"two"), Pause(2.0), Finish("fin")],
            id="late close",
        ),
        pytest.param(
            BreakStream(trickle=4.0, **WHOLE),
            [ONE, TWO, Write(b"0;"), Pause(4.0), Write(b"x"), Pause(4.0), Write(b"x"), Write(b"\r\n\r\n")],
            id="trickle",
        ),
        pytest.param(
            BreakStream(trickle=6.0, late=1.0, how="rst", **WHOLE),
            [ONE, TWO, Pause(1.0), Write(b"0;"), Pause(6.0), Write(b"x"), Finish("rst")],
            id="late trickle reset",
        ),
        pytest.param(
            BreakStream(chunk=4, framing="length", **WHOLE), [Write(b"onet"), Write(b"wo")], id="chunk"
        ),
        pytest.param(
            BreakStream(chunk=4, then=SlowBody(1, 0.5), **WHOLE),
            [Write(b"4\r\nonet\r\n"), Pause(0.5), Write(b"2\r\nwo\r\n"), LAST],
            id="chunk, paced",
        ),
        pytest.param(
            SlowBody(0, 0.5, BreakStream(how="stall", **WHOLE)),
            [ONE, Pause(0.5), TWO, Finish("stall")],
            id="events, paced",
        ),
        pytest.param(
            BreakStream(how="rst", then=SlowBody(0, 0.5), **WHOLE),
            [ONE, Pause(0.5), TWO, Finish("rst")],
            id="paced inside",
        ),
        pytest.param(
            BreakStream(how="fin", events=1, then=Reset("headers")), [ONE, Finish("fin")], id="outermost wins"
        ),
        pytest.param(Reset("headers", BreakStream(late=1.0, **WHOLE)), [Finish("rst")], id="the other way"),
    ],
)
def test_steps_of_a_break(reply: Reply, expected: list[Operation]) -> None:
    """The end comes after what belongs before it, and breaks nest like all replies."""
    assert steps(reply, b"one", b"two") == expected


@pytest.mark.parametrize("trickle", [0.01, 0.3, 3.0, 10.0])
def test_a_trickle_is_bounded(trickle: float) -> None:
    """An endless chunk extension ends, and is well formed."""
    done = steps(BreakStream(trickle=trickle), b"one")
    assert 0 < sum(step.seconds for step in done if isinstance(step, Pause)) <= LONGEST_TRICKLE + 1e-6
    assert b"".join(step.data for step in done if isinstance(step, Write)).rstrip(b"\r\nx") == b"0;"


def test_a_break_waits_like_others() -> None:
    """A delay before the first byte stays one."""
    first, *_ = operations(resolve(Slow(1.5, BreakStream()), _Backend(Answer())), Request("GET", "/", 1, ()))
    assert first == Pause(1.5)


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_what_has_no_body_has_none_that_breaks(framing: Any) -> None:
    """HEAD gets the head and the end of the connection."""
    reply = BreakStream(how="rst", framing=framing, late=1.0, **WHOLE)
    assert steps(reply, b"one", method="HEAD") == [Finish("rst")]


@pytest.mark.parametrize("inner", [EmptyReply(), HalfHeaders(then=EmptyReply())], ids=lambda r: r.kind)
def test_what_never_answers_does_not_break(inner: Reply) -> None:
    """Where no answer begins there is nothing to break."""
    broken_off = resolve(BreakStream(how="stall", then=inner), _Backend(Answer()))
    assert broken_off == resolve(inner, _Backend(Answer()))


def test_any_body_can_break(gateway: Gateway) -> None:
    """A body that is no stream is one event; one that is compressed is broken in its compressed form."""
    whole = read(ask(gateway, Error("model_overloaded"))[0]).body
    for reply, expected in (
        (BreakStream(byte=9, then=Error("model_overloaded")), whole[:9]),
        (BreakStream(events=1, then=Error("model_overloaded")), whole),
        (BreakStream(char=True, then=Error("model_overloaded")), whole[: len(whole) // 2]),
        (BreakStream(char=True, byte=80, then=Error("model_overloaded")), whole[:80]),
        (BreakStream(byte=2, then=Gzip(Error("model_overloaded"))), b"\x1f\x8b"),
    ):
        heard = read(ask(gateway, reply)[0])
        assert (heard.body, heard.ended) == (expected, True)
    assert len(whole) // 2 < 80
    assert gateway.requests[-2].code == "model_overloaded"
