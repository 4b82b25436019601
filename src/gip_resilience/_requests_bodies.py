"""Response bodies of requests that were begun: read under the retry, and put back as if nobody had.

A body is read off ``response.raw`` as it came over the wire and put back in a raw response of the same class, so
that every way to read it (``content``, ``iter_content``, ``raw.read``, ``raw.stream``) works as it would have.
"""

from __future__ import annotations

import io
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import HTTPResponse

from gip_resilience.drive import untraced
from gip_resilience.taxonomy import transport_fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response

    from gip_resilience.engine import Call
    from gip_resilience.taxonomy import Fact

CHUNK = 65536
"""Bytes asked for at a time; what is there comes, so a larger number would not make anything faster."""


class Reading:
    """A body read under the retry: what came of it, and what ended it."""

    __slots__ = ("_call", "_give_up", "_monotonic", "_raw", "_response", "broken", "cause", "chunks", "whole")

    def __init__(
        self, monotonic: Callable[[], float], response: Response, error_timeout: float, call: Call
    ) -> None:
        self._call = call
        self._monotonic = monotonic
        self._response = response
        self._raw = response.raw
        self._give_up: float | None = None
        if response.status_code >= 400:
            self._give_up = monotonic() + error_timeout
            shorten_timeout(response.raw, error_timeout)
        self.chunks: list[bytes] = []
        self.whole = False
        self.broken: Fact | None = None
        self.cause: Exception | None = None

    def read(self, limit: int) -> None:
        """Read until the end, the limit, an error, the deadline, or (an error body) until it takes too long."""
        size = 0
        timed = self._call.config.deadline is not None
        try:
            while size < limit and not (timed and self._hurry()):
                chunk = read_some(self._raw, min(CHUNK, limit - size))
                if not chunk:
                    self.whole = True
                    break
                self.chunks.append(chunk)
                size += len(chunk)
                if self._give_up is not None and self._monotonic() >= self._give_up:
                    break
        except (HTTPError, HTTPException, OSError) as error:
            self.broken = transport_fact(
                "read_timeout" if isinstance(error, (ReadTimeoutError, TimeoutError)) else "truncated_body"
            )
            # It is raised anew when the caller reads that far; the way it came to us is of no use to anybody.
            self.cause = untraced(error)
        if self.whole:
            release = getattr(self._raw, "release_conn", None)
            if callable(release):
                release()

    def _hurry(self) -> bool:
        """Whether the deadline has passed; if it has not, the next read ends before it does."""
        left = self._call.timeout()
        if left is None or self._call.overdue():
            return True
        shorten_timeout(self._raw, left)
        return False

    def cut(self) -> bool:
        """Whether the deadline of the call has ended it."""
        if self.whole or not self._call.overdue():
            return False
        return self.broken is None or self.broken.code == "read_timeout"


def read_some(raw: Any, amount: int) -> bytes:
    """What is there of a raw body, still encoded; an empty result is its end."""
    if isinstance(raw, HTTPResponse):
        # Not `read`: that waits until *amount* bytes are there.
        return raw.read1(amount, decode_content=False) or b""
    return raw.read(amount) or b""


def shorten_timeout(raw: Any, seconds: float) -> None:
    """Let a read take no longer than *seconds*.

    For an error body, since a stalled one must not hold up the decision; and before a deadline. The socket belongs
    to this answer until its end, and urllib3 sets the timeout anew for every request.
    """
    sock = getattr(getattr(raw, "connection", None), "sock", None)
    if sock is None:
        return
    given = sock.gettimeout()
    sock.settimeout(seconds if given is None else min(given, seconds))


class Rest(io.RawIOBase):
    """The body after a part of it was read: that part, then the rest, or the error that ended it."""

    def __init__(self, chunks: list[bytes], raw: Any, cause: Exception | None, *, whole: bool) -> None:
        self._head = io.BytesIO(b"".join(chunks))
        self._raw = raw
        self._cause = cause
        self._whole = whole

    def readable(self) -> bool:
        """See `io.IOBase`; urllib3 asks."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, fewer at the end only; all of them by default."""
        if size < 0:
            return b"".join(iter(lambda: self.read1(CHUNK), b""))
        parts = []
        while size > 0 and (part := self.read1(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def read1(self, size: int = CHUNK, /) -> bytes:
        """What is there, at most so many bytes; nothing at the end, which closes it."""
        part = self._head.read(size)
        if not part and size:
            part = self._read_on(size)
            if not part:
                self.close()  # or urllib3's `stream`, which asks until its source is closed, never ends
        return part

    def _read_on(self, size: int) -> bytes:
        if self._cause is not None:
            cause, self._cause = self._cause, None
            self._whole = True
            try:
                raise cause
            finally:
                del cause
        return b"" if self._whole or self.closed else read_some(self._raw, size)

    def let_go(self) -> None:
        """Give the connection back. What was read stays, and is now all there is."""
        if not self._whole:
            self._whole = True
            self._raw.close()
            release = getattr(self._raw, "release_conn", None)
            if callable(release):
                release()

    def close(self) -> None:
        """Close it, and give the connection back. Idempotent."""
        if not self.closed:
            super().close()
            self.let_go()


def put_back(raw: Any, rest: Rest) -> HTTPResponse:
    """A raw response like *raw*, from its first byte.

    It keeps what others read off the original: ``_original_response`` has the cookies.
    """
    return HTTPResponse(
        body=rest,
        headers=getattr(raw, "headers", {}),
        status=getattr(raw, "status", 0),
        version=getattr(raw, "version", 0),
        version_string=getattr(raw, "version_string", "HTTP/?"),
        reason=getattr(raw, "reason", None),
        preload_content=False,
        decode_content=getattr(raw, "decode_content", True),
        original_response=getattr(raw, "_original_response", None),
        retries=getattr(raw, "retries", None),
        enforce_content_length=False,  # it was, where the bytes were read
    )
