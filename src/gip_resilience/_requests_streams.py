"""The raw response of an event stream that is mended while it is read.

Under a ``requests.Response`` lies a response of urllib3, and every way to read the one comes down to a few methods of
the other. They are written anew here, for two reasons. urllib3 waits until as many bytes are there as were asked for;
of an event stream, what is there is wanted at once. And urllib3 wraps each ``OSError`` that comes from below in an
error of its own; those of requests are such errors, and ours are to reach the caller as they are.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

CHUNK = 65536
"""Bytes `StreamedResponse.stream` gives at most at a time, unless told otherwise; as urllib3 has it."""

_OF_THE_WIRE = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that were true of the bytes as they were sent, and are not of those handed up."""


class Source(Protocol):
    """Where the bytes of a stream come from. One thread reads; another may close."""

    def take(self) -> bytes:
        """The next piece, without content encoding: what is there, of any size. Blocks until there is one.

        Empty at the end, however often it is asked again. What it raises it raises once; then it has ended.
        """
        ...

    def close(self) -> None:
        """Ask for nothing more, and give the connection back. Idempotent."""
        ...

    def drop(self) -> None:
        """Give the connection back, and take no lock: the collector may be at work in a thread that holds one."""
        ...


class _Body(io.RawIOBase):
    """A source as a file. Its end, or its failure, closes it: urllib3 reads "closed" as "ended"."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._piece = b""
        self._used = 0

    def read1(self, size: int = -1, /) -> bytes:
        """What is left of a piece, *size* bytes at most; the next one is taken when nothing is."""
        if self.closed or not size:
            return b""
        if self._used == len(self._piece):
            self._piece, self._used = self._take(), 0
        end = len(self._piece) if size < 0 else self._used + size
        part = self._piece[self._used : end]
        self._used += len(part)
        return part

    def _take(self) -> bytes:
        try:
            piece = self._source.take()
        except BaseException:
            self.close()
            raise
        if not piece:
            self.close()
        return piece

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._source.close()

    def __del__(self) -> None:
        """Drop the source, where a file closes itself: see `Source.drop`."""
        if not self.closed:
            self._source.drop()


class StreamedResponse(HTTPResponse):
    """An event stream as a response of urllib3.

    A read gives what is there, of one piece of the source at most, unless it is asked for everything; so
    ``read(amt)`` may give fewer than *amt* bytes, and gives none at the end only. urllib3 promises of it what
    ``io.BufferedIOBase`` does, and that allows a short result of an interactive stream. *decode_content* is
    accepted and means nothing: the source has decoded already.

    What the source raises comes up as it is, once; then the stream has ended. Its end closes the response and the
    source; so does closing the response. One thread may read at a time, as with urllib3.

    Args:
        raw: the response underneath, from which all but the body is copied; any object.
        source: the body.
        current: gives the response that is being read now, for what concerns its connection.
    """

    _fp: Any  # a `_Body`, which urllib3 knows by this name: `closed`, `close` and `data` are built on it

    def __init__(self, raw: Any, source: Source, current: Callable[[], Any]) -> None:
        headers = HTTPHeaderDict(getattr(raw, "headers", {}))
        for name in _OF_THE_WIRE:
            headers.discard(name)
        self._current = current
        super().__init__(
            body=_Body(source),
            headers=headers,
            status=getattr(raw, "status", 0),
            version=getattr(raw, "version", 0),
            reason=getattr(raw, "reason", None),
            preload_content=False,
            decode_content=getattr(raw, "decode_content", True),
            original_response=getattr(raw, "_original_response", None),  # it has the cookies
            msg=getattr(raw, "msg", None),
            retries=getattr(raw, "retries", None),
            request_url=getattr(raw, "url", None),
        )
        self.version_string = getattr(raw, "version_string", "HTTP/?")  # no parameter before urllib3 2.3

    @property
    def connection(self) -> Any:
        """The connection the stream comes over now, if any."""
        return getattr(self._current(), "connection", None)

    def release_conn(self) -> None:
        """Give the connection the stream comes over now back to its pool."""
        release = getattr(self._current(), "release_conn", None)
        if callable(release):
            release()

    def shutdown(self) -> None:
        """Shut the connection the stream comes over now for reading, from another thread; since urllib3 2.3."""
        self._current().shutdown()

    def read(
        self,
        amt: int | None = None,
        decode_content: bool | None = None,  # noqa: ARG002
        cache_content: bool = False,
    ) -> bytes:
        """What is there, *amt* bytes at most; everything up to the end for ``None`` or a negative number.

        With *cache_content*, ``data`` gives everything once more.
        """
        if amt is not None and amt >= 0:
            return self.read1(amt)
        untouched = not self.tell()
        body = b"".join(iter(self.read1, b""))
        if cache_content and untouched:
            self._body = body
        return body

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:  # noqa: ARG002
        """What is there, *amt* bytes at most, all of it for ``None`` or a negative number."""
        part: bytes = self._fp.read1(-1 if amt is None else amt)
        self._fp_bytes_read += len(part)
        return part

    def stream(
        self, amt: int | None = CHUNK, decode_content: bool | None = None
    ) -> Generator[bytes, None, None]:
        """Everything, as it comes, in parts of *amt* bytes at most."""
        while part := self.read1(amt, decode_content):
            yield part

    def read_chunked(
        self, amt: int | None = None, decode_content: bool | None = None
    ) -> Generator[bytes, None, None]:
        """As `stream`, whether the server sends chunks or not."""
        return self.stream(amt, decode_content)

    def __del__(self) -> None:
        """Do nothing, where a file closes itself: see `_Body`."""

    def drain_conn(self) -> None:
        """Read to the end, and forget it, and what it raises."""
        with suppress(HTTPError, OSError):
            for _ in self.stream():
                pass


def streamed(raw: Any, source: Source, current: Callable[[], Any] | None = None) -> StreamedResponse:
    """A raw response for requests that is *raw* in all but its body, which comes from *source*.

    The headers that told how the body was sent are gone from it. They are to be taken off the ``requests.Response``
    above as well.

    Args:
        raw: the response underneath: urllib3's, or what a user's own adapter gave.
        source: the body. Nothing is taken from it before somebody reads.
        current: gives the raw response in use, when it is no longer *raw*.
    """
    return StreamedResponse(raw, source, (lambda: raw) if current is None else current)
