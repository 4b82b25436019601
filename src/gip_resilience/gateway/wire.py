"""From a reply to what happens on the socket: a list of writes, pauses and ends; no I/O.

`resolve` folds a nested reply into one `Outgoing`: the answer, and what is done to it on the way.
`operations` tells it as steps for the connection to perform. Whole answers are one write, headers and body
together: a second small write can wait for the client's delayed acknowledgement, 40 ms on loopback. What is left of
a broken stream is made by `breaking`; how it ends is a `Cut`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from gip_resilience.gateway import replies
from gip_resilience.gateway.answers import (
    Answer,
    Body,
    Parts,
    codeless_answer,
    error_answer,
    gzipped,
    half,
    html_answer,
    pattern,
    reason_of,
)
from gip_resilience.gateway.breaking import broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gip_resilience.gateway.http1 import Headers, Request

GARBAGE: Final = bytes(range(0x80, 0x100)) + b"\r\n\r\n"
NOT_A_CHUNK: Final = b"not a chunk size\r\n"

LONGEST_TRICKLE: Final = 10.0
"""Seconds after which even an endless last chunk ends."""

_LAST_CHUNK: Final = b"0\r\n\r\n"

End: TypeAlias = Literal["fin", "rst", "stall"]


@dataclass(frozen=True, slots=True)
class Write:
    """Send these bytes at once."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """End the connection: close it, reset it, or keep it open and silent until the client leaves."""

    how: End = "fin"


Operation: TypeAlias = Write | Pause | Finish


@dataclass(frozen=True, slots=True)
class Cut:
    """Where an answer breaks off, and how.

    Attributes:
        where: before its first byte, in the middle of its head, after its head, in the middle of its body, or
            at its end, where the framing would mark it.
        how: what happens to the connection; `None` at an end in order.
        rubbish: sent after the last good byte.
        late: seconds before the end.
        trickle: seconds between the bytes of the extension of a last chunk that hardly ends; 0 for none.
    """

    where: Literal["start", "head", "headers", "body", "end"]
    how: End | None
    rubbish: bytes = b""
    late: float = 0.0
    trickle: float = 0.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An answer and what happens to it on the way.

    Attributes:
        answer: the whole answer; `None` where none will ever be sent.
        delay: seconds before the first byte.
        pace: (bytes of a piece, seconds between pieces) of the body.
        cut: where it breaks off.
        raw: sent instead of an answer.
    """

    answer: Answer | None = None
    delay: float = 0.0
    pace: tuple[int, float] | None = None
    cut: Cut | None = None
    raw: bytes = b""

    @property
    def status(self) -> int | None:
        """The status the client gets to see, if any."""
        hidden = self.cut is not None and self.cut.where in ("start", "head")
        return None if self.answer is None or hidden else self.answer.status

    @property
    def code(self) -> str | None:
        """The error code of the answer, if the client gets to see its status."""
        return None if self.answer is None or self.status is None else self.answer.code

    @property
    def whole(self) -> bool:
        """Whether the client is sent all of a good answer that has a meaning, however the connection ends."""
        answer, cut = self.answer, self.cut
        if answer is None or answer.broken or answer.code is not None or not 200 <= answer.status < 300:
            return False
        return cut is None or cut.where == "end"


class Backend(Protocol):
    """What answers one request in good health."""

    def respond(self) -> Answer:
        """The real answer."""
        ...

    def rate_limited(self, retry_after: float | str | None) -> Answer:
        """A refusal for lack of quota."""
        ...


def resolve(reply: replies.Reply, backend: Backend) -> Outgoing:
    """What *reply* sends, with the answers of *backend* where it wants them."""
    match reply:
        case replies.Slow(seconds, then):
            inner = resolve(then, backend)
            return replace(inner, delay=inner.delay + seconds)
        case replies.SlowBody(chunk, interval, then):
            return replace(resolve(then, backend), pace=(chunk, interval))
        case replies.Reset(when, then):
            return _cut(resolve(then, backend), _place(when), "rst")
        case replies.Close(when, then):
            return _cut(resolve(then, backend), _place(when), "fin")
        case replies.HalfHeaders(how, then):
            return _cut(resolve(then, backend), "head", how)
        case replies.HalfBody(how, then):
            return _halve(resolve(then, backend), how)
        case replies.BreakStream(then=then):
            return _break(resolve(then, backend), reply)
        case replies.Gzip(then):
            return _change(resolve(then, backend), gzipped)
        case replies.WrongType(content_type, then):
            return _change(resolve(then, backend), lambda a: a.with_headers([("content-type", content_type)]))
        case replies.Raw(data, end):
            raw = data.encode() if isinstance(data, str) else data
            return Outgoing(cut=Cut("start", end), raw=raw)
        case replies.Garbage():
            return Outgoing(cut=Cut("start", "fin"), raw=GARBAGE)
        case replies.EmptyReply():
            return Outgoing(cut=Cut("start", "fin"))
        case replies.Stall():
            return Outgoing(cut=Cut("start", "stall"))
        case _:
            return Outgoing(_answer(reply, backend))


def operations(outgoing: Outgoing, request: Request) -> Iterator[Operation]:
    """The steps that send *outgoing* as the answer to *request*.

    When the steps end without a `Finish`, the connection serves the next request.
    """
    if outgoing.delay:
        yield Pause(outgoing.delay)
    if outgoing.raw:
        yield Write(outgoing.raw)
    cut = outgoing.cut
    how = None if cut is None else cut.how
    answer = outgoing.answer
    if answer is None or (cut is not None and cut.where == "start"):
        yield Finish(how or "fin")
        return
    framing, headers = head_of(answer, request)
    head = head_bytes(answer.status, headers)
    place = "body" if cut is None else cut.where
    if place == "head":
        yield Write(half_head(head))
    elif place == "headers" or is_bodiless(answer, request):
        yield Write(head)
    else:
        yield from _message(head, answer.body, framing, outgoing.pace, cut)
    if how is not None:
        yield Finish(how)
    elif framing == "close" or not request.keep_alive:
        yield Finish()


def _answer(reply: replies.Reply, backend: Backend) -> Answer:
    match reply:
        case replies.Error(code, status, headers, retry_after, message, type_):
            answer = error_answer(code, message, status=status, type=type_, headers=_retry_after(retry_after))
            return answer.with_headers(headers.items())
        case replies.Status(status, body, headers, retry_after):
            answer = codeless_answer(status, body).with_headers(_retry_after(retry_after))
            return answer.with_headers(headers.items())
        case replies.Html(status):
            return html_answer(status)
        case replies.RateLimited(retry_after):
            return backend.rate_limited(retry_after)
        case replies.Redirect(to, status):
            return Answer(status, (("location", to),), foreign=True)
        case replies.Huge(size, status, content_type, chunked):
            length = None if chunked else size
            return Answer(status, (("content-type", content_type),), Parts(pattern(size), length))
        case replies.Ok(headers):
            return backend.respond().with_headers(headers.items())
        case _:  # pragma: no cover - `resolve` handles the rest
            raise AssertionError(reply.kind)


def _retry_after(value: float | str | None) -> Headers:
    return () if value is None else (("retry-after", format_seconds(value)),)


def format_seconds(value: float | str) -> str:
    """Seconds without a needless fraction (``2``, ``0.5``); text as it is."""
    return value if isinstance(value, str) else f"{value:.15g}"


def _place(when: Literal["accept", "request", "headers", "body"]) -> Literal["start", "headers", "body"]:
    return "start" if when in ("accept", "request") else "headers" if when == "headers" else "body"


def _cut(
    outgoing: Outgoing, where: Literal["start", "head", "headers", "body"], how: End, rubbish: bytes = b""
) -> Outgoing:
    """*outgoing* cut; what never becomes an answer stays as it is."""
    return outgoing if outgoing.answer is None else replace(outgoing, cut=Cut(where, how, rubbish))


def _change(outgoing: Outgoing, change: Callable[[Answer], Answer]) -> Outgoing:
    return outgoing if outgoing.answer is None else replace(outgoing, answer=change(outgoing.answer))


def _halve(outgoing: Outgoing, how: str) -> Outgoing:
    match how:
        case "eof":
            return _change(outgoing, lambda a: replace(a, body=half(a.body), framing="close", broken=True))
        case "short_length":
            return _change(outgoing, lambda a: replace(a, body=half(a.body), broken=True))
        case "truncated_gzip":
            packed = _change(outgoing, gzipped)
            return _change(packed, lambda a: replace(a, body=half(a.body), broken=True))
        case "bad_chunk":
            chunked = _change(outgoing, lambda a: replace(a, framing="chunked"))
            return _cut(chunked, "body", "fin", NOT_A_CHUNK)
        case "fin" | "rst" | "stall":
            return _cut(outgoing, "body", how)
        case _:
            raise ValueError(f"unknown way to halve a body: {how!r}")


def _break(outgoing: Outgoing, fault: replies.BreakStream) -> Outgoing:
    if outgoing.answer is None:
        return outgoing
    how = fault.how if fault.how in ("fin", "rst", "stall") else None
    cut = Cut("end", how, late=fault.late, trickle=fault.trickle)
    _, interval = outgoing.pace or (0, 0.0)
    pace = (fault.chunk, interval) if fault.chunk else outgoing.pace
    return replace(outgoing, answer=broken(outgoing.answer, fault), cut=cut, pace=pace)


def is_bodiless(answer: Answer, request: Request) -> bool:
    """Whether HTTP allows the answer no body."""
    return request.method == "HEAD" or answer.status in (204, 304)


def _length(body: Body) -> int | None:
    return len(body) if isinstance(body, bytes) else body.length


def _framing(answer: Answer, request: Request) -> Literal["length", "chunked", "close"]:
    if answer.framing == "close":
        return "close"
    if answer.framing == "auto" and _length(answer.body) is not None:
        return "length"
    return "chunked" if request.version else "close"


def head_of(answer: Answer, request: Request) -> tuple[Literal["length", "chunked", "close"], Headers]:
    """How the end of the body is marked, and the headers with those that say so."""
    framing = _framing(answer, request)
    headers = list(answer.headers)
    if framing == "length" and answer.status not in (204, 304):
        headers.append(("content-length", str(_length(answer.body))))
    elif framing == "chunked" and answer.status not in (204, 304):
        headers.append(("transfer-encoding", "chunked"))
    if framing == "close" or not request.keep_alive:
        headers.append(("connection", "close"))
    elif not request.version:
        headers.append(("connection", "keep-alive"))
    return framing, tuple(headers)


def head_bytes(status: int, headers: Headers) -> bytes:
    """Status line and headers as they are sent."""
    lines = [f"HTTP/1.1 {status} {reason_of(status)}", *(f"{k}: {v}" for k, v in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def half_head(head: bytes) -> bytes:
    """What is sent of a head that breaks off."""
    return head[: len(head) // 2]


def _message(
    head: bytes,
    body: Body,
    framing: Literal["length", "chunked", "close"],
    pace: tuple[int, float] | None,
    cut: Cut | None,
) -> Iterator[Operation]:
    """Head and body; where the body is cut, its first half; then what marks its end, or stands there instead."""
    cut = cut or Cut("end", None)
    if cut.where == "body":
        body = half(body)
    frame, tail = (_chunk, _LAST_CHUNK) if framing == "chunked" else (bytes, b"")
    if cut.how is not None:
        tail = cut.rubbish
    if isinstance(body, bytes) and pace is None:
        yield Write(head + frame(body) + tail)
        return
    yield Write(head)
    size, interval = pace or (0, 0.0)
    pieces: Iterable[bytes] = (body,) if isinstance(body, bytes) else body.pieces
    for number, piece in enumerate(cut_up(pieces, size) if size else pieces):
        if number and interval:
            yield Pause(interval)
        if piece:
            yield Write(frame(piece))
    if cut.late:
        yield Pause(cut.late)
    if cut.trickle and framing == "chunked":
        yield Write(b"0;")
        for _ in range(int(LONGEST_TRICKLE / cut.trickle)):
            yield Pause(cut.trickle)
            yield Write(b"x")
        tail = tail[1:]  # the 0 was sent
    if tail:
        yield Write(tail)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def cut_up(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """*pieces* in pieces of *size* bytes at most."""
    for piece in pieces:
        for start in range(0, len(piece), size):
            yield piece[start : start + size]
