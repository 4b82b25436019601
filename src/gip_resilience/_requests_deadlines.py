"""How the deadline of a call is kept within an exchange of requests.

A session blocks, and urllib3 sets the timeout of a socket once for a whole answer: a peer that drips never meets it.
So what is read off the connection is read through a file of ours, which gives each read what is left. Where the
connection is not one of urllib3's, only the timeouts bound the attempt.

Nothing of this is in place for a call without a deadline.
"""

from __future__ import annotations

import io
import threading
import weakref
from contextlib import suppress
from functools import cache, partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from urllib3.response import HTTPResponse

from gip_resilience._requests_bodies import shorten_timeout
from gip_resilience._requests_errors import breakage, refusal_error
from gip_resilience.effects import Refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from requests import PreparedRequest, Response

    from gip_resilience.engine import Call
    from gip_resilience.errors import ResilienceError

T = TypeVar("T")


class _Current(threading.local):
    """The call whose attempt this thread sends, if it has a deadline."""

    call: Call | None = None


_current = _Current()


def send_in_time(
    call: Call, send: Callable[..., Response], request: PreparedRequest, options: dict[str, Any]
) -> Response:
    """Send *request* and read the header of its answer, as far as it comes before the deadline of *call*.

    Args:
        call: whose deadline it is.
        send: of an adapter.
        request: what is sent.
        options: how, with the timeouts that hold besides.
    """
    _reach(getattr(send, "__self__", None), request, options)
    above = _current.call
    _current.call = (
        call if above is None else min(above, call, key=_left)
    )  # another layer of ours may be around us
    try:
        return send(request, **options)
    finally:
        _current.call = above


def _left(call: Call) -> float:
    left = call.timeout()
    return inf if left is None else left


def _reach(adapter: Any, request: PreparedRequest, options: dict[str, Any]) -> None:
    """Have the pool that *adapter* is about to use hand out connections that ask us how long they may read."""
    find = getattr(adapter, "get_connection_with_tls_context", None)
    if find is None:
        return
    with suppress(Exception):  # the adapter is about to ask the same, and it is for it to say what is wrong
        pool = find(request, options["verify"], proxies=options["proxies"], cert=options["cert"])
        if "_get_conn" not in vars(pool) and hasattr(pool, "_get_conn"):
            pool._get_conn = partial(_hand_out, weakref.ref(pool))  # noqa: SLF001 - there is no public way


def _hand_out(pool: weakref.ref[Any], *args: Any, **options: Any) -> Any:
    found: Any = pool()
    kind: Any = type(found)
    connection = kind._get_conn(found, *args, **options)  # noqa: SLF001 - what we stand in for
    if _current.call is not None and "response_class" not in vars(connection):
        answers = getattr(connection, "response_class", None)
        if answers is not None:
            connection.response_class = partial(_answer, answers)
    return connection


def _answer(kind: Callable[..., Any], sock: Any, *args: Any, **options: Any) -> Any:
    """An answer of ``http.client``, which reads its header and its body off *sock*."""
    answer = kind(sock, *args, **options)
    call = _current.call
    if call is not None and isinstance(answer.fp, io.BufferedReader):
        answer.fp = io.BufferedReader(_Wire(call, sock, answer.fp.detach()))
    return answer


class _Wire(io.RawIOBase):
    """A connection as a file, of which no read takes longer than what is left."""

    def __init__(self, call: Call, sock: Any, raw: io.RawIOBase) -> None:
        self._call = call
        self._sock = sock  # some look for it by this name, in the file of the standard library
        self._raw = raw

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._call.timeout()
        if left is not None:
            given = self._sock.gettimeout()
            self._sock.settimeout(left if given is None else min(given, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._raw.close()


def bounded(raw: Any, call: Call, request: PreparedRequest) -> None:
    """Keep the deadline of *call* while *raw*, the answer to *request*, is read by its caller.

    It stays the object it is, for those who hold it; only its class is another one. What is no response of urllib3's
    is left alone.
    """
    if isinstance(raw, HTTPResponse):
        # An attribute of the class it is given in the next line.
        raw._deadline = Deadline(call, request)  # type: ignore[attr-defined]  # noqa: SLF001
        raw.__class__ = _in_time(type(raw))


class Deadline:
    """Keeps the deadline of a call while its caller reads the body."""

    __slots__ = ("_call", "_request")

    def __init__(self, call: Call, request: PreparedRequest) -> None:
        self._call = call
        self._request = request

    def pull(self, raw: HTTPResponse, read: Callable[[], T]) -> T:
        """What *read* gives of *raw*, if it comes in time; otherwise the connection is closed."""
        left = self._call.timeout()
        if left is not None and not raw.closed:
            if self._call.overdue():
                _drop(raw)
                raise self._passed()
            shorten_timeout(raw, left)
        try:
            return read()
        except Exception as error:
            if self._call.overdue() and breakage(error) == "stream_stalled":
                _drop(raw)
                raise self._passed() from error
            raise

    def _passed(self) -> ResilienceError:
        key = self._call.key
        refusal = Refuse("deadline", key.host, key.model, None, respond=False)
        return refusal_error(refusal, self._call, self._request)


def _drop(raw: HTTPResponse) -> None:
    """Close the connection. Its place in the pool is free then."""
    raw.close()
    raw.release_conn()


class _InTime(HTTPResponse):
    """A response that is read until the deadline of its call. All ways to read it come down to these methods."""

    _deadline: Deadline

    def read(
        self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False
    ) -> bytes:
        read = super().read
        return self._deadline.pull(self, lambda: read(amt, decode_content, cache_content))

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        read = super().read1
        return self._deadline.pull(self, lambda: read(amt, decode_content))

    def read_chunked(
        self, amt: int | None = None, decode_content: bool | None = None
    ) -> Generator[bytes, None, None]:
        parts = super().read_chunked(amt, decode_content)
        while (part := self._deadline.pull(self, lambda: next(parts, None))) is not None:
            yield part


@cache
def _in_time(kind: type[HTTPResponse]) -> type[HTTPResponse]:
    """The class of those of *kind* that have a deadline."""
    return _InTime if kind is HTTPResponse else type(kind.__name__, (_InTime, kind), {})
