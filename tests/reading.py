"""The ways to read a streamed response of requests, and a source to read from.

Each way gives its parts one by one, as soon as the response does; together they are the body.
"""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class BrokeError(requests.exceptions.ChunkedEncodingError):
    """What our sources fail with: an ``OSError``, as all errors of requests are."""


class Pieces:
    """A source with everything there, and perhaps an error at the end."""

    def __init__(self, pieces: list[bytes], failure: BaseException | None = None) -> None:
        self.pieces = pieces
        self.failure = failure
        self.takes = 0
        self.closes = self.drops = 0

    def take(self) -> bytes:
        self.takes += 1
        if self.takes <= len(self.pieces):
            return self.pieces[self.takes - 1]
        failure, self.failure = self.failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure
        return b""

    def close(self) -> None:
        self.closes += 1

    def drop(self) -> None:
        self.drops += 1

    def needed(self, position: int) -> int:
        """How many pieces it takes to know that many bytes."""
        needed = 0
        while position > 0:
            position -= len(self.pieces[needed])
            needed += 1
        return needed


def to_bytes(part: Any) -> bytes:
    """A part as it is in the body."""
    return part.encode() if isinstance(part, str) else bytes(part)


def gather(parts: Iterator[Any], body: bytearray) -> None:
    """Read on, and keep what comes; when an error ends it, too."""
    for part in parts:
        body += to_bytes(part)


def in_lines(lines: Iterator[Any]) -> Iterator[Any]:
    """With the ends that the lines have lost."""
    for line in lines:
        yield line + ("\n" if isinstance(line, str) else b"\n")


def until_empty(read: Callable[[], bytes]) -> Iterator[bytes]:
    """One read after the other."""
    yield from iter(read, b"")


def into(raw: Any, size: int) -> Iterator[bytes]:
    """By way of a buffer of the reader's own."""
    buffer = bytearray(size)
    while count := raw.readinto(buffer):
        yield bytes(buffer[:count])


def by_sseclient(response: requests.Response) -> Iterator[bytes]:
    """Event by event, as the SSE clients on PyPI do it."""
    event = b""
    for chunk in response:
        for line in chunk.splitlines(keepends=True):
            event += line
            if event.endswith(b"\n\n"):
                yield event
                event = b""
    if event:
        yield event


def in_a_with(response: requests.Response) -> Iterator[bytes]:
    """As one should."""
    with response:
        yield from response.iter_content(64)


def while_open(raw: Any) -> Iterator[bytes]:
    """As long as it says that it is open."""
    while not raw.closed:
        if part := raw.read(64):
            yield part


def copied(raw: Any) -> Iterator[bytes]:
    """Into a file."""
    target = io.BytesIO()
    shutil.copyfileobj(raw, target)
    yield target.getvalue()


class Path(NamedTuple):
    """A way to read a response: its parts, in order, make up the body."""

    read: Callable[[requests.Response], Iterator[Any]]
    at_once: bool = False
    """Whether it gives nothing before it has everything."""


def once(read: Callable[[requests.Response], Any]) -> Path:
    """A way that reads everything in one go."""

    def parts(response: requests.Response) -> Iterator[Any]:
        yield read(response)

    return Path(parts, at_once=True)


PATHS: dict[str, Path] = {
    "iter_content(1)": Path(lambda r: r.iter_content(1)),
    "iter_content(512)": Path(lambda r: r.iter_content(512)),
    "iter_content(None)": Path(lambda r: r.iter_content(None)),
    "iter_content-text": Path(lambda r: r.iter_content(512, decode_unicode=True)),
    "iter_content(1)-text": Path(lambda r: r.iter_content(1, decode_unicode=True)),
    "iter_lines": Path(lambda r: in_lines(r.iter_lines())),
    "iter_lines(1)": Path(lambda r: in_lines(r.iter_lines(chunk_size=1))),
    "iter_lines-text": Path(lambda r: in_lines(r.iter_lines(decode_unicode=True))),
    "for-in-response": Path(iter),
    "sseclient": Path(by_sseclient),
    "with": Path(in_a_with),
    "content": once(lambda r: r.content),
    "text": once(lambda r: r.text),
    "raw.read": once(lambda r: r.raw.read()),
    "raw.read(-1)": once(lambda r: r.raw.read(-1)),
    "raw.read-encoded": once(lambda r: r.raw.read(decode_content=False)),
    "raw.read(7)": Path(lambda r: until_empty(lambda: r.raw.read(7))),
    "raw.read(1000)": Path(lambda r: until_empty(lambda: r.raw.read(1000))),
    "raw.read1": Path(lambda r: until_empty(r.raw.read1)),
    "raw.read1(7)": Path(lambda r: until_empty(lambda: r.raw.read1(7, decode_content=True))),
    "raw.stream": Path(lambda r: r.raw.stream()),
    "raw.stream(7)": Path(lambda r: r.raw.stream(7, decode_content=True)),
    "raw.stream(None)": Path(lambda r: r.raw.stream(None)),
    "raw.read_chunked": Path(lambda r: r.raw.read_chunked()),
    "raw.read_chunked(7)": Path(lambda r: r.raw.read_chunked(7, decode_content=True)),
    "raw.data": once(lambda r: r.raw.data),
    "for-in-raw": Path(lambda r: iter(r.raw)),
    "while-not-closed": Path(lambda r: while_open(r.raw)),
    "raw.readline": Path(lambda r: until_empty(r.raw.readline)),
    "raw.readlines": once(lambda r: b"".join(r.raw.readlines())),
    "raw.readinto": Path(lambda r: into(r.raw, 512)),
    "BufferedReader.read": once(lambda r: io.BufferedReader(r.raw).read()),
    "BufferedReader.read1": Path(lambda r: until_empty(io.BufferedReader(r.raw).read1)),
    "BufferedReader": Path(lambda r: iter(io.BufferedReader(r.raw))),
    "TextIOWrapper": Path(lambda r: iter(io.TextIOWrapper(io.BufferedReader(r.raw), encoding="utf-8"))),
    "TextIOWrapper-of-raw": Path(lambda r: iter(io.TextIOWrapper(r.raw, encoding="utf-8"))),
    "copyfileobj": once(lambda r: b"".join(copied(r.raw))),
}
