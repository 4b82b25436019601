"""Reading HTTP/1.1 requests: bytes in, requests out; no I/O.

The parser is strict where leniency would make two readers disagree about where a message ends (bare line
feeds, folded headers, two lengths) and bounded everywhere, so that no input can crash it, stall it or make it
grow. Every refusal is a `BadRequest` with the status to answer; after one the connection cannot be used
again, because nobody knows where the next request begins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

MAX_HEAD: Final = 64 * 1024
"""Bytes of request line and headers together; beyond it the answer is 431."""

MAX_BODY: Final = 64 * 1024 * 1024
"""Bytes of a decoded body; beyond it the answer is 413."""

_MAX_CHUNK_LINE: Final = 1024
_LONGEST_METHOD: Final = 32

# RFC 9110, 5.6.2 (token) and 5.5 (field-value); a request target is visible ASCII, as in RFC 9112, 3.2.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_BEGINNING: Final = re.compile(_TOKEN + rb"{1,32}(?: |\Z)")
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?[ \t]*")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")

Headers = tuple[tuple[str, str], ...]


class BadRequest(Exception):  # noqa: N818 - named like the answer it stands for
    """The bytes are no request that can be served.

    Attributes:
        status: the HTTP status to answer with.
        reason: what is wrong, without any byte of the input.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request.

    Attributes:
        method: as sent; methods are case-sensitive.
        target: the request target as sent, query included.
        version: minor version of HTTP/1: 0 or 1.
        headers: pairs in order of arrival, values decoded as Latin-1.
        body: without transfer coding; content coding is left alone.
    """

    method: str
    target: str
    version: int
    headers: Headers
    body: bytes = b""

    def header(self, name: str, default: str = "") -> str:
        """The first value of header *name* (any case), or *default*."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), default)

    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query (which may carry a key)."""
        target = self.target.partition("?")[0]
        if not target.startswith("/") and "://" in target:
            target = "/" + target.partition("://")[2].partition("/")[2]
        return unquote(target)

    @property
    def query(self) -> dict[str, str]:
        """The fields of the query, percent-decoded; of a name that is there twice the last one."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to use the connection again."""
        options = {option.strip().lower() for option in self.header("connection").split(",")}
        return "close" not in options if self.version else "keep-alive" in options


@dataclass(frozen=True, slots=True)
class _Head:
    request: Request
    length: int | None
    """Bytes of the body; `None` when it is chunked."""


class RequestParser:
    """Turns the bytes of one connection into requests: `feed`, then `poll` until it returns `None`.

    Not thread-safe. After a `BadRequest` the parser must not be used again.

    Args:
        max_head: bytes of request line and headers, 64 KiB.
        max_body: bytes of one body, 64 MiB.
    """

    def __init__(self, *, max_head: int = MAX_HEAD, max_body: int = MAX_BODY) -> None:
        self._max_head = max_head
        self._max_body = max_body
        self._buffer = bytearray()
        self._scanned = 0
        self._line_checked = False
        self._head: _Head | None = None
        self._expects = False
        self._chunks = bytearray()
        self._chunk_left = 0
        self._in_trailers = False

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet turned into a request."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def poll(self) -> Request | None:
        """The next whole request, or `None` when more bytes are needed.

        Raises:
            BadRequest: the bytes are malformed, or larger than the limits.
        """
        if self._head is None:
            self._head = self._read_head()
            if self._head is None:
                return None
        body = self._read_body(self._head)
        if body is None:
            return None
        request = self._head.request
        self._head = None
        self._expects = False
        return Request(request.method, request.target, request.version, request.headers, body)

    def take_continue(self) -> bool:
        """Whether the client now waits for ``100 Continue``; true once per request."""
        expects, self._expects = self._expects, False
        return expects

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _read_head(self) -> _Head | None:
        # RFC 9112, 2.2: empty lines before a request line are ignored.
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        if not self._buffer or self._buffer == b"\r":
            return None
        if self._scanned <= _LONGEST_METHOD and not _BEGINNING.match(self._buffer):
            raise BadRequest(400, "not an HTTP request")
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if self._exceeds(end):
            raise BadRequest(431, "request line and headers are too large")
        if end < 0:
            self._check_request_line()
            self._scanned = len(self._buffer)
            return None
        self._scanned = 0
        self._line_checked = False
        head = _parse_head(self._take(end + 4)[:-4])
        if head.length is not None and head.length > self._max_body:
            raise BadRequest(413, "body is too large")
        self._expects = head.request.header("expect").lower() == "100-continue" and head.request.version == 1
        return head

    def _exceeds(self, end: int) -> bool:
        """Whether the lines that end at *end* are too long; without an end, whether they are however they go on."""
        # Up to three bytes of what ends them may have come already.
        return (end if end >= 0 else len(self._buffer) - 3) > self._max_head

    def _check_request_line(self) -> None:
        """Judge the request line as soon as it is there: who speaks nonsense may never send a blank line."""
        if self._line_checked:
            return
        end = self._buffer.find(b"\r\n", max(0, self._scanned - 1))
        if end >= 0:
            _parse_request_line(bytes(self._buffer[:end]))
            self._line_checked = True

    def _read_body(self, head: _Head) -> bytes | None:
        if head.length is None:
            return self._read_chunked()
        if len(self._buffer) < head.length:
            return None
        return self._take(head.length)

    def _read_chunked(self) -> bytes | None:
        while not self._in_trailers:
            if self._chunk_left:
                if not self._read_chunk_data():
                    return None
            else:
                size = self._read_chunk_size()
                if size is None:
                    return None
                self._in_trailers = size == 0
                # The CRLF that ends the data is part of what is left to read.
                self._chunk_left = size + 2 if size else 0
        return self._read_trailers()

    def _read_chunk_size(self) -> int | None:
        end = self._buffer.find(b"\r\n", 0, _MAX_CHUNK_LINE)
        if end < 0:
            if len(self._buffer) >= _MAX_CHUNK_LINE:
                raise BadRequest(400, "chunk size line is too long")
            return None
        match = _CHUNK_SIZE.fullmatch(self._take(end + 2)[:-2])
        if match is None:
            raise BadRequest(400, "malformed chunk size")
        size = int(match[1], 16)
        if len(self._chunks) + size > self._max_body:
            raise BadRequest(413, "body is too large")
        return size

    def _read_chunk_data(self) -> bool:
        data = min(self._chunk_left - 2, len(self._buffer))
        if data > 0:
            self._chunks += self._take(data)
            self._chunk_left -= data
        if self._chunk_left > 2 or len(self._buffer) < 2:
            return False
        if self._take(2) != b"\r\n":
            raise BadRequest(400, "chunk is longer than its size")
        self._chunk_left = 0
        return True

    def _read_trailers(self) -> bytes | None:
        if self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        else:
            end = self._buffer.find(b"\r\n\r\n")
            if self._exceeds(end):
                raise BadRequest(431, "trailers are too large")
            if end < 0:
                return None
            _parse_fields(self._take(end + 4)[:-4])
        self._in_trailers = False
        body = bytes(self._chunks)
        self._chunks = bytearray()
        return body


def _parse_request_line(line: bytes) -> tuple[str, str, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest(400, "malformed request line")
    if match[3] != b"1" or match[4] not in (b"0", b"1"):
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    return match[1].decode("ascii"), match[2].decode("ascii"), int(match[4])


def _parse_fields(block: bytes) -> Headers:
    if not block:
        return ()
    pairs = []
    for line in block.split(b"\r\n"):
        match = _FIELD.fullmatch(line)
        if match is None:
            raise BadRequest(400, "malformed header")
        pairs.append((match[1].decode("ascii"), match[2].decode("latin-1").rstrip(" \t")))
    return tuple(pairs)


def _parse_head(block: bytes) -> _Head:
    line, _, fields = block.partition(b"\r\n")
    method, target, version = _parse_request_line(line)
    request = Request(method, target, version, _parse_fields(fields))
    if version and sum(name.lower() == "host" for name, _ in request.headers) != 1:
        raise BadRequest(400, "exactly one Host header is required")
    return _Head(request, _body_length(request))


def _body_length(request: Request) -> int | None:
    headers = [(name.lower(), value) for name, value in request.headers]
    codings = [value.lower() for name, value in headers if name == "transfer-encoding"]
    lengths = {value for name, value in headers if name == "content-length"}
    if codings:
        # Both at once is how requests are smuggled past a proxy (RFC 9112, 6.1).
        if lengths:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if codings != ["chunked"]:
            raise BadRequest(501, "unknown transfer coding")
        return None
    if not lengths:
        return 0
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise BadRequest(400, "malformed Content-Length")
    return int(length)
