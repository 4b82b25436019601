"""What goes back: a status, headers and a body, before anybody thinks about sockets."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gip_resilience.gateway.http1 import Headers
    from gip_resilience.gateway.replies import StatusBody

BLOCK: Final = 64 * 1024
"""Bytes made at a time where a body is made while it is sent."""

JSON: Final = "application/json"

STATUS_OF: Final[dict[str, int]] = {
    "missing_api_key": 401,
    "invalid_api_key": 401,
    "unauthorized": 403,
    "rate_limit_exceeded": 429,
    "invalid_request": 400,
    "invalid_argument": 400,
    "not_found": 404,
    "unknown_model": 404,
    "invalid_content_media": 400,
    "unavailable_content_media": 400,
    "unsafe_content": 400,
    "unknown_app": 404,
    "invalid_app": 400,
    "unsupported_interface": 400,
    "unknown_workspace": 500,
    "failed_request": 500,
    "internal_error": 500,
    "model_server_error": 500,
    "model_overloaded": 503,
    "model_unavailable": 502,
    "model_timeout": 504,
    "stream_error": 200,
    "stream_terminated": 200,
}
"""The usual status of each documented code. The documentation lists codes and statuses but does not pair
them; the pairs are inferred from the descriptions (the stream codes arrive inside a 200)."""

# Only `bad_request` is documented, in the sample error; the others follow its pattern.
_TYPE_OF: Final[dict[int, str]] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    429: "rate_limit",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "gateway_timeout",
}

_MESSAGE_OF: Final[dict[str, str]] = {
    "missing_api_key": "No API key was provided.",
    "invalid_api_key": "The API key is not valid.",
    "unauthorized": "The API key has no permission for this resource.",
    "rate_limit_exceeded": "The quota is used up. Wait until it resets.",
    "not_found": "This endpoint does not exist.",
    "unknown_model": "The model does not exist.",
    "model_overloaded": "The model is overloaded.",
    "model_unavailable": "The model cannot be reached.",
    "model_timeout": "The request to the model timed out.",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """A body that is sent piece by piece.

    Attributes:
        pieces: the pieces; iterated once.
        length: bytes of all of them, or `None` when that is not known beforehand.
    """

    pieces: Iterable[bytes]
    length: int | None = None


Body = bytes | Parts
Framing = Literal["auto", "chunked", "close"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response as a value.

    Attributes:
        status: HTTP status.
        headers: pairs, without those that frame the message.
        body: bytes, or `Parts` for what is streamed.
        code: error code in the body, for the recording.
        framing: how the end of the body is marked: ``"auto"`` (a length where it is known, else chunked),
            ``"chunked"``, or ``"close"`` (the end of the connection).
        foreign: made by something in front of the gateway, so none of the gateway's own headers are added.
        broken: the body lacks something, or holds what does not belong there; HTTP may not show it.
    """

    status: int = 200
    headers: Headers = ()
    body: Body = b""
    code: str | None = None
    framing: Framing = "auto"
    foreign: bool = False
    broken: bool = False

    def with_headers(self, headers: Iterable[tuple[str, str]]) -> Answer:
        """The answer with *headers* added; they replace headers of the same name."""
        added = tuple(headers)
        names = {name.lower() for name, _ in added}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return replace(self, headers=kept + added)

    def with_defaults(self, headers: Iterable[tuple[str, str]]) -> Answer:
        """The answer with those of *headers* added that it does not have yet."""
        names = {name.lower() for name, _ in self.headers}
        return replace(self, headers=self.headers + tuple(p for p in headers if p[0].lower() not in names))


def reason_of(status: int) -> str:
    """The reason phrase of *status*."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def json_answer(value: object, status: int = 200, headers: Headers = (), code: str | None = None) -> Answer:
    """*value* as JSON."""
    return Answer(status, (("content-type", JSON), *headers), msgspec.json.encode(value), code)


def error_answer(
    code: str,
    message: str | None = None,
    *,
    status: int | None = None,
    type: str | None = None,  # noqa: A002 - the name of the field
    headers: Headers = (),
) -> Answer:
    """An error in the documented shape, by default with the usual status, type and message of *code*."""
    if status is None:
        status = STATUS_OF.get(code, 500)
    error = {
        "type": type or _TYPE_OF.get(status, "bad_request" if status < 500 else "internal_server_error"),
        "code": code,
        "message": message or message_of(code),
    }
    return json_answer({"error": error}, status, headers, code)


def message_of(code: str) -> str:
    """What is told to humans about *code*."""
    return _MESSAGE_OF.get(code) or f"The request failed with {code}."


def codeless_answer(status: int, body: StatusBody) -> Answer:
    """An answer of something in front of the gateway, which knows no error codes."""
    if body == "json":
        return replace(json_answer({"message": reason_of(status)}, status), foreign=True)
    if body == "html":
        return html_answer(status)
    content = b"" if body == "empty" else body
    return Answer(status, (("content-type", "text/plain"),) if content else (), content, foreign=True)


def html_answer(status: int) -> Answer:
    """The error page of a reverse proxy, in the shape nginx gives it."""
    title = f"{status} {reason_of(status)}"
    page = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    headers = (("server", "nginx"), ("content-type", "text/html"))
    return Answer(status, headers, page.encode("ascii"), foreign=True)


def gzipped(answer: Answer) -> Answer:
    """The answer with its body compressed; each piece of a streamed body can be read when it arrives."""
    body = answer.body
    packed = gzip.compress(body, mtime=0) if isinstance(body, bytes) else Parts(gzip_pieces(body.pieces))
    return replace(answer.with_headers([("content-encoding", "gzip")]), body=packed)


def half(body: Body) -> Body:
    """The first half: of the bytes where their number is known, else of the pieces."""
    if isinstance(body, bytes):
        return body[: len(body) // 2]
    if body.length is not None:
        return Parts(_first_bytes(body.pieces, body.length // 2), body.length // 2)
    pieces = list(body.pieces)
    return Parts(pieces[: len(pieces) // 2])


def pattern(length: int) -> Iterator[bytes]:
    """*length* bytes that anybody can compute: byte *i* is ``i % 251``.

    251 is prime, so that no power-of-two offset lines up with it and a lost or repeated block shows.
    """
    period = bytes(range(251))
    block = period * (BLOCK // len(period) + 2)
    for start in range(0, length, BLOCK):
        offset = start % len(period)
        yield block[offset : offset + min(BLOCK, length - start)]


def gzip_pieces(pieces: Iterable[bytes], *, ended: bool = True) -> Iterator[bytes]:
    """*pieces* compressed one by one, each readable when it arrives; then the end of the member, if *ended*."""
    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    if ended:
        yield packer.flush()


def _first_bytes(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count <= 0:
            return
        yield piece[:count]
        count -= len(piece)
