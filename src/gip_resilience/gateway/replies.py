"""What the gateway may be told to answer: whole answers, damaged ones, and none at all.

A reply is a frozen value. Replies that damage or delay take the answer they work on as *then*, so they nest:
``Slow(2.0, then=HalfBody("rst", then=Error("model_overloaded")))`` waits two seconds and then resets the
connection in the middle of an error body. The outermost cut wins.

In a plan file a reply is a table whose ``kind`` is the class name in snake case:
``{kind = "half_body", how = "rst"}``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import msgspec

if TYPE_CHECKING:
    StatusBody: TypeAlias = Literal["json", "html", "empty"] | bytes
    Payload: TypeAlias = bytes | str
else:
    # msgspec cannot tell bytes from text in one field, so these two are checked by hand.
    StatusBody = Payload = Any

Break: TypeAlias = Literal["eof", "fin", "rst", "stall", "error", "garbled"]
BodyFraming: TypeAlias = Literal["chunked", "close", "length"]
ErrorShape: TypeAlias = Literal[
    "nested",
    "flat",
    "list",
    "event",
    "event_flat",
    "event_text",
    "choices",
    "openrouter",
    "bare",
    "anthropic",
    "failed",
]

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _check_status(status: int) -> None:
    _check(200 <= status <= 999, "status must be within 200 and 999")


def _check_retry_after(value: float | str | None) -> None:
    if value is not None:
        _check_headers({"retry-after": str(value)})


def _check_headers(headers: dict[str, str]) -> None:
    # What would break the framing is refused here; a plan that wants broken bytes has `Raw`.
    for name, value in headers.items():
        _check(_NAME.fullmatch(name) is not None, "a header name must be a token")
        _check(_VALUE.fullmatch(value) is not None, f"header {name} must be printable Latin-1")


def _kind(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class _Reply(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    repr_omit_defaults=True,
    tag_field="kind",
    tag=_kind,
):
    """What all replies share."""

    @property
    def kind(self) -> str:
        """The name of the reply in plan files and recordings."""
        return _kind(type(self).__name__)


class Ok(_Reply, frozen=True):
    """What a healthy gateway answers: the request is checked, limited and served.

    "Ok" means that no fault is injected; an invalid request still gets its error.

    Attributes:
        headers: added to the answer, replacing headers of the same name.
    """

    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        _check_headers(self.headers)


class Error(_Reply, frozen=True):
    """An error of the gateway, as JSON ``{"error": {"type", "code", "message"}}``.

    Attributes:
        code: one of the documented codes, or any other text to play a future one.
        status: HTTP status; by default the usual one of the code (500 for an unknown code).
        headers: added to the answer.
        retry_after: value of ``Retry-After``: seconds, or text that is sent as it is (a date).
        message: text for humans; by default one per code.
        type: the error's ``type``; by default one per status.
    """

    code: str
    status: int | None = None
    headers: dict[str, str] = {}
    retry_after: float | str | None = None
    message: str | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        if self.status is not None:
            _check_status(self.status)
        _check_headers(self.headers)
        _check_retry_after(self.retry_after)


class Status(_Reply, frozen=True):
    """A bare status whose body carries no error code: what something in between answers.

    Attributes:
        status: HTTP status.
        body: ``"json"`` (an object without a code), ``"html"``, ``"empty"``, or the bytes to send.
        headers: added to the answer.
        retry_after: value of ``Retry-After``: seconds, or text that is sent as it is.
    """

    status: int
    body: StatusBody = "json"
    headers: dict[str, str] = {}
    retry_after: float | str | None = None

    def __post_init__(self) -> None:
        _check_status(self.status)
        _check_headers(self.headers)
        _check_retry_after(self.retry_after)
        if self.body not in ("json", "html", "empty") and not isinstance(self.body, bytes):
            raise ValueError('body must be "json", "html", "empty" or bytes')


class Html(_Reply, frozen=True):
    """The error page of a reverse proxy in front of the gateway.

    Attributes:
        status: HTTP status, 502 by default.
    """

    status: int = 502

    def __post_init__(self) -> None:
        _check_status(self.status)


class RateLimited(_Reply, frozen=True):
    """429 ``rate_limit_exceeded`` with the rate-limit headers, whatever the real limits say.

    Attributes:
        retry_after: seconds in ``Retry-After``; by default what is left of the rate-limit window.
    """

    retry_after: float | str | None = None

    def __post_init__(self) -> None:
        _check_retry_after(self.retry_after)


class Redirect(_Reply, frozen=True):
    """A redirect without a body.

    Attributes:
        to: value of ``Location``.
        status: 307 by default, which keeps method and body.
    """

    to: str
    status: int = 307

    def __post_init__(self) -> None:
        _check_status(self.status)
        _check_headers({"location": self.to})


class Huge(_Reply, frozen=True):
    """A body of *size* bytes, made while it is sent.

    Attributes:
        size: bytes.
        status: HTTP status.
        content_type: what the body claims to be.
        chunked: send it chunked, without telling the size.
    """

    size: int
    status: int = 200
    content_type: str = "application/octet-stream"
    chunked: bool = False

    def __post_init__(self) -> None:
        _check_status(self.status)
        _check_headers({"content-type": self.content_type})
        _check(self.size >= 0, "size must not be negative")


class Raw(_Reply, frozen=True):
    """These bytes instead of an answer.

    Attributes:
        data: bytes, or text (sent as UTF-8).
        end: what follows: ``"fin"`` closes, ``"rst"`` resets, ``"stall"`` goes silent.
    """

    data: Payload
    end: Literal["fin", "rst", "stall"] = "fin"

    def __post_init__(self) -> None:
        _check(isinstance(self.data, (bytes, str)), "data must be text or bytes")


class Garbage(_Reply, frozen=True):
    """Bytes that are not HTTP, then the connection is closed."""


class EmptyReply(_Reply, frozen=True):
    """The request is read and the connection closed without a byte."""


class Slow(_Reply, frozen=True):
    """A delay before the first byte.

    Attributes:
        seconds: how long.
        then: what follows.
    """

    seconds: float
    then: Reply = Ok()

    def __post_init__(self) -> None:
        _check(self.seconds >= 0, "seconds must not be negative")


class SlowBody(_Reply, frozen=True):
    """The headers at once, the body in pieces.

    Attributes:
        chunk: bytes of a piece; 0 keeps the pieces the answer has by itself (the events of a stream).
        interval: seconds before each piece but the first.
        then: the answer to send so.
    """

    chunk: int
    interval: float
    then: Reply = Ok()

    def __post_init__(self) -> None:
        _check(self.chunk >= 0, "chunk must not be negative")
        _check(self.interval >= 0, "interval must not be negative")


class Reset(_Reply, frozen=True):
    """A TCP reset.

    Attributes:
        when: ``"accept"`` (as soon as the connection is there; the client may notice while it connects, sends
            or waits, and on a connection in use it is as ``"request"``), ``"request"`` (the request was read),
            ``"headers"`` (the headers were sent), ``"body"`` (half the body was sent).
        then: the answer that is cut off.
    """

    when: Literal["accept", "request", "headers", "body"] = "request"
    then: Reply = Ok()


class Close(_Reply, frozen=True):
    """A TCP close, in order but too early.

    Attributes:
        when: as for `Reset`.
        then: the answer that is cut off.
    """

    when: Literal["accept", "request", "headers", "body"] = "request"
    then: Reply = Ok()


class HalfHeaders(_Reply, frozen=True):
    """Half of the response head.

    Attributes:
        how: what follows: ``"fin"`` closes, ``"rst"`` resets, ``"stall"`` goes silent.
        then: the answer that is cut off.
    """

    how: Literal["fin", "rst", "stall"] = "fin"
    then: Reply = Ok()


class HalfBody(_Reply, frozen=True):
    """Half of the body; of a stream, the first half of its events.

    Attributes:
        how: the way it breaks.

            * ``"fin"``, ``"rst"``, ``"stall"``: the framing promises all of it; then close, reset or silence.
            * ``"eof"``: no length is promised and the connection is closed: HTTP sees a whole body.
            * ``"short_length"``: the length is true for the half that is sent: HTTP sees a whole body.
            * ``"truncated_gzip"``: the same, with half of a gzip member.
            * ``"bad_chunk"``: chunked, and after the half comes something that is not a chunk.
        then: the answer that is cut off.
    """

    how: Literal["fin", "rst", "stall", "eof", "short_length", "truncated_gzip", "bad_chunk"] = "fin"
    then: Reply = Ok()


class BreakStream(_Reply, frozen=True, kw_only=True):
    """A stream that breaks at a chosen place in a chosen way; any other body is a stream of one event.

    The place is *events* or *byte*, or by default before the first byte of the body. A place beyond the end
    stands for the end: all is sent, and then it breaks. *char* moves the place on into a character. In the
    middle of an event, what ``"error"`` and ``"garbled"`` put in goes on the line that was cut.

    Attributes:
        how: the way it breaks.

            * ``"eof"``: in order, as if this were all: the last chunk, the close, or a length that is true.
            * ``"fin"``: closed although more was promised: no last chunk, or a length larger than what is sent.
              Framing by ``"close"`` promises nothing, so there it is the same as ``"eof"``.
            * ``"rst"``, ``"stall"``: the same, but reset, or silent until the client leaves.
            * ``"error"``: an event says that it failed; then the end, in order.
            * ``"garbled"``: an event whose data is not JSON, under the name of the event it stands before; the
              rest of the stream follows.
        events: after so many whole events.
        byte: after so many bytes of the body, before compression and chunking.
        char: inside the first multi-byte UTF-8 character from the place on; where there is none, in the middle
            of the body, but not before the place.
        framing: how the end of the body is marked: ``"chunked"``, ``"close"`` (the end of the connection), or
            ``"length"``. HTTP/1.0 has no chunks and gets ``"close"``.
        gzip: compress the body, each event so that it can be read when it arrives. A body that is cut off
            lacks the end of its gzip member.
        chunk: bytes of a write, and of an HTTP chunk, wherever events begin; 0 for one per event.
        late: seconds between the last byte of the body and the end.
        trickle: seconds between the bytes of an endless last chunk that comes before the end; it ends after
            about 10 seconds all the same. Only with chunks. 0 for none.
        code: error code, recorded like that of any other answer.
        shape: where ``"error"`` says so. All but ``"bare"`` are server-sent events:

            * ``"nested"``: ``{"error": {"type", "code", "message"}}``
            * ``"flat"``: ``{"object": "error", "type", "code", "message"}``
            * ``"list"``: ``[{"error": …}]``
            * ``"event"``: as ``"nested"``, named ``error``
            * ``"event_flat"``: ``{"type": "error", "code", "message", "sequence_number"}``, named ``error``
            * ``"event_text"``: the message as plain text, named ``error``
            * ``"choices"``: a chunk of the stream with no choices, and the error
            * ``"openrouter"``: a chunk with ``{"code", "message"}`` and the finish reason ``error``
            * ``"bare"``: as ``"nested"``, but a line of JSON without ``data:``
            * ``"anthropic"``: ``{"type": "error", "error": {"type", "message"}}``, named ``error``
            * ``"failed"``: ``response.failed`` of the Responses API
        message: text for humans, one line; by default one per code.
        type: the error's ``type``, where the shape has one; by default ``overloaded_error`` for
            ``"anthropic"``, else ``internal_server_error``.
        done: send ``data: [DONE]`` after the error.
        then: the answer that breaks.
    """

    how: Break = "eof"
    events: int | None = None
    byte: int | None = None
    char: bool = False
    framing: BodyFraming = "chunked"
    gzip: bool = False
    chunk: int = 0
    late: float = 0.0
    trickle: float = 0.0
    code: str | int = "stream_error"
    shape: ErrorShape = "nested"
    message: str | None = None
    type: str | None = None
    done: bool = False
    then: Reply = Ok()

    def __post_init__(self) -> None:
        # msgspec checks types where it decodes, but not where Python makes a value.
        for name, value, known in (
            ("how", self.how, get_args(Break)),
            ("framing", self.framing, get_args(BodyFraming)),
            ("shape", self.shape, get_args(ErrorShape)),
        ):
            _check(value in known, f"{name} must be one of {', '.join(known)}")
        _check(self.events is None or self.byte is None, "events and byte are two places: give one")
        for name, number in (
            ("events", self.events),
            ("byte", self.byte),
            ("chunk", self.chunk),
            ("late", self.late),
        ):
            _check(number is None or number >= 0, f"{name} must not be negative")
        _check(self.trickle == 0 or 0.01 <= self.trickle <= 10, "trickle must be 0, or within 0.01 and 10")
        _check(self.trickle == 0 or self.framing == "chunked", 'trickle needs framing "chunked"')
        of_error = (self.code, self.shape, self.message, self.type, self.done)
        _check(
            self.how == "error" or of_error == ("stream_error", "nested", None, None, False),
            'code, shape, message, type and done need how "error"',
        )
        _check(not re.search(r"[\r\n]", self.message or ""), "message must be one line")


class Stall(_Reply, frozen=True):
    """The request is read and never answered; the connection stays open until the client leaves."""


class Gzip(_Reply, frozen=True):
    """The answer with ``Content-Encoding: gzip``, asked for or not.

    Attributes:
        then: the answer to compress.
    """

    then: Reply = Ok()


class WrongType(_Reply, frozen=True):
    """The answer under a content type that is not its own.

    Attributes:
        content_type: what it claims to be.
        then: the answer.
    """

    content_type: str = "text/html; charset=utf-8"
    then: Reply = Ok()

    def __post_init__(self) -> None:
        _check_headers({"content-type": self.content_type})


Reply: TypeAlias = (
    Ok
    | Error
    | Status
    | Html
    | RateLimited
    | Redirect
    | Huge
    | Raw
    | Garbage
    | EmptyReply
    | Slow
    | SlowBody
    | Reset
    | Close
    | HalfHeaders
    | HalfBody
    | BreakStream
    | Stall
    | Gzip
    | WrongType
)


def at_accept(reply: Reply) -> bool:
    """Whether *reply* is given before any request was read."""
    return isinstance(reply, (Reset, Close)) and reply.when == "accept"
