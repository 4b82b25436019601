"""How the deadline of a call is kept within an exchange of httpx or httpx2.

An awaiting client is easy: what takes too long is cancelled. A blocking one can only be given less and less time,
and both packages ask for the timeout of a read once for a whole header, and once for a whole body: a peer that drips
never meets it. So, where they can be reached, the reads of the connection itself are given what is left.

Nothing of this is in place for a call without a deadline.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from gip_resilience._httpx_kit import breakage, refusal_error
from gip_resilience.effects import Refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from gip_resilience._httpx_kit import Kit
    from gip_resilience.engine import Call
    from gip_resilience.errors import ResilienceError

_PHASES = ("connect", "read", "write", "pool")

_NESTED = 4
"""How many connections deep a socket is looked for; a tunnel through a proxy has three."""

_PIECE = 65536
"""Bytes sent with one timeout. A peer that takes them slowly can make each piece last as long as that."""


class Timeouts(dict[str, float]):
    """The timeouts of an attempt, of which none is ever longer than what is left.

    As a plain dictionary it holds what was left at the beginning.
    """

    __slots__ = ("_call",)

    def __init__(self, given: dict[str, float], call: Call) -> None:
        super().__init__(given)
        self._call = call

    def get(self, phase: str, default: Any = None) -> Any:
        """What both packages ask; for HTTP/2 before every read."""
        found, left = super().get(phase, default), self._call.timeout()
        if left is None or phase not in _PHASES:
            return found
        return left if found is None else min(found, left)

    def shorter(self, seconds: float) -> Timeouts:
        """The same with a read timeout of *seconds* at most."""
        return Timeouts({**self, "read": min(self["read"], seconds)}, self._call)


def hasten(extensions: dict[str, Any], left: float, call: Call, inner: Any) -> None:
    """Have the attempt of a request with these *extensions* end in *left* seconds.

    Args:
        extensions: of the request; changed.
        left: seconds until the deadline.
        call: whose deadline it is.
        inner: the transport that sends, if it blocks.
    """
    given = extensions.get("timeout")
    given = given if isinstance(given, dict) else {}
    shortened = {phase: left if given.get(phase) is None else min(given[phase], left) for phase in _PHASES}
    extensions["timeout"] = Timeouts(shortened, call)
    if inner is not None:
        extensions["trace"] = Wire(call, inner, extensions.get("trace"))


def shorter(given: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The timeouts *given*, with a read timeout of *seconds* at most."""
    if isinstance(given, Timeouts):
        return given.shorter(seconds)
    read = given.get("read")
    return {**given, "read": seconds if read is None else min(read, seconds)}


class Wire:
    """Gives the reads and writes of an HTTP/1.1 connection what is left, for as long as it belongs to one attempt.

    It is the ``trace`` of the attempt's request, which both packages tell what they are about to do. The connection
    is looked up in the pool, by attributes that are not public; where they are missing, nothing is changed, and
    only the timeouts bound the attempt.

    Args:
        call: whose deadline it is.
        inner: the transport that sends.
        given: the caller's own trace.
    """

    __slots__ = ("_call", "_given", "_inner", "_stream")

    def __init__(self, call: Call, inner: Any, given: Callable[[str, Any], Any] | None) -> None:
        self._call = call
        self._inner = inner
        self._given = given
        self._stream: Any = None

    def __call__(self, name: str, info: Any) -> Any:
        if name == "http11.send_request_headers.started":
            self._take(info)
        elif name == "http11.response_closed.started":
            self._leave()  # from here on the connection may be another call's
        return None if self._given is None else self._given(name, info)

    def _take(self, info: Any) -> None:
        self._leave()
        request = info.get("request")
        stream = _connection(self._inner, getattr(request, "extensions", None))
        if stream is None:
            return
        with suppress(AttributeError):
            stream.read, stream.write = self._reading(stream.read), self._writing(stream.write)
            self._stream = stream

    def _leave(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            vars(stream).pop("read", None)
            vars(stream).pop("write", None)

    def _reading(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        call = self._call

        def read_in_time(max_bytes: int, timeout: float | None = None) -> bytes:
            return read(max_bytes, timeout=_smaller(timeout, call.timeout()))

        return read_in_time

    def _writing(self, write: Callable[..., None]) -> Callable[..., None]:
        call = self._call

        def write_in_time(buffer: bytes, timeout: float | None = None) -> None:
            view = memoryview(buffer)
            for start in range(0, len(view), _PIECE):
                write(bytes(view[start : start + _PIECE]), timeout=_smaller(timeout, call.timeout()))

        return write_in_time


def _smaller(given: float | None, left: float | None) -> float | None:
    if given is None or left is None:
        return left if given is None else given
    return min(given, left)


def _connection(transport: Any, extensions: Any) -> Any:
    """The connection over which the request with these *extensions* is sent; ``None`` when it cannot be found."""
    while getattr(transport, "inner", None) is not None:
        transport = transport.inner  # another layer of ours
    pool = getattr(transport, "_pool", None)
    for entry in list(getattr(pool, "_requests", None) or ()):
        if (
            extensions is None
            or getattr(getattr(entry, "request", None), "extensions", None) is not extensions
        ):
            continue
        link = getattr(entry, "connection", None)
        for _ in range(_NESTED):
            stream = getattr(link, "_network_stream", None)
            if stream is not None:
                return stream
            link = getattr(link, "_connection", None)
    return None


class Deadline:
    """Keeps the deadline of a call while its caller reads the body."""

    __slots__ = ("_call", "_kit")

    def __init__(self, call: Call, kit: Kit) -> None:
        self._call = call
        self._kit = kit

    @classmethod
    def of(cls, call: Call, kit: Kit) -> Deadline | None:
        """What bounds a body of *call*; ``None`` if nothing does."""
        return None if call.config.deadline is None else cls(call, kit)

    def pull(self, rest: Iterator[bytes]) -> bytes:
        """The next piece, if it comes in time. How long a read takes is bounded below."""
        if self._call.overdue():
            raise self._passed()
        try:
            return next(rest)
        except Exception as error:
            if self._stalled(error):
                raise self._passed() from error
            raise

    async def apull(self, rest: AsyncIterator[bytes]) -> bytes:
        """The next piece, if it comes in time, to the instant."""
        left = self._call.timeout()
        if left is None or self._call.overdue():
            raise self._passed()
        try:
            with anyio.move_on_after(left):
                return await anext(rest)
        except Exception as error:
            if self._stalled(error):
                raise self._passed() from error
            raise
        raise self._passed()

    def _stalled(self, error: Exception) -> bool:
        return self._call.overdue() and breakage(error, self._kit) == "stream_stalled"

    def _passed(self) -> ResilienceError:
        key = self._call.key
        return refusal_error(Refuse("deadline", key.host, key.model, None, False), self._call, self._kit)
