"""`ScriptedUpstream` under requests."""

from __future__ import annotations

import io
from contextlib import suppress
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected, responses
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter

from gip_resilience.gateway.http1 import Request
from gip_resilience.testing.upstream import HOST, Broken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience.gateway.http1 import Headers
    from gip_resilience.testing.upstream import Exchange, ScriptedUpstream


class RequestsAdapter(BaseAdapter):
    """An adapter for sessions; see `gip_resilience.testing.ScriptedUpstream`.

    Args:
        upstream: what answers.
    """

    def __init__(self, upstream: ScriptedUpstream) -> None:
        super().__init__()
        self._upstream = upstream
        self._built = HTTPAdapter()

    def __repr__(self) -> str:
        return f"<RequestsAdapter of {self._upstream!r}>"

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - requests' signature; the session reads what is not to be streamed
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,  # noqa: ARG002
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> requests.Response:
        """One exchange."""
        pairs = tuple((name, _text(value)) for name, value in request.headers.items())
        asked = Request(str(request.method), request.path_url, 1, pairs, _body(request.body))
        read_timeout = timeout[1] if isinstance(timeout, tuple) else timeout
        body: io.RawIOBase | io.BytesIO
        try:
            exchange = self._upstream.exchange(asked, read_timeout)
            status, headers, body = exchange.status, exchange.headers, _Pieces(exchange)
        except Broken as broken:
            status, headers, body = _what_came(broken, request)
        raw = urllib3.HTTPResponse(
            body=body,
            headers=urllib3.HTTPHeaderDict(headers),
            status=status,
            reason=responses.get(status, "Unknown"),
            version=11,
            version_string="HTTP/1.1",
            preload_content=False,
            decode_content=False,
            original_response=_Original(headers),  # type: ignore[arg-type]  # as much of one as is used
            request_method=request.method,
        )
        return self._built.build_response(request, raw)

    def close(self) -> None:
        """Close what waits in the pool."""
        self._upstream.close()


class _Pieces(io.RawIOBase):
    """A body as urllib3 reads it; what breaks it is raised as the socket and http.client would."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces = exchange.pieces()
        self._left = b""

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            if size is None or size < 0:
                data = self._left + b"".join(self._pieces)
                self._left = b""
            else:
                data = self._left or next(self._pieces, b"")
                data, self._left = data[:size], data[size:]
        except Broken as broken:
            raise _cut_short(broken) from None
        if not data and size != 0:
            self.close()
        return data

    read1 = read

    def close(self) -> None:
        self._exchange.close()
        super().close()


class _Original:
    """What requests looks for cookies in."""

    def __init__(self, headers: Headers) -> None:
        self.msg = Message()
        for name, value in headers:
            self.msg[name] = value

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        """There is nothing to close."""


class _Socket:
    """As much of a socket as http.client needs to read a head."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def makefile(self, mode: str) -> io.BytesIO:  # noqa: ARG002 - the socket's signature
        return io.BytesIO(self._head)


def _what_came(
    broken: Broken, request: requests.PreparedRequest
) -> tuple[int, Headers, io.RawIOBase | io.BytesIO]:
    """An answer of which no head came; http.client takes half of one for a whole answer without a body."""
    if broken.kind == "half_head":
        parsed = HTTPResponse(_Socket(broken.head))  # type: ignore[arg-type]  # a `_Socket` will do
        with suppress(HTTPException):
            parsed.begin()
            return parsed.status, tuple(parsed.getheaders()), io.BytesIO()
    raise _no_answer(broken, request)


def _no_answer(broken: Broken, request: requests.PreparedRequest) -> requests.RequestException:
    pool = urllib3.HTTPConnectionPool(HOST)
    reason: Exception
    match broken.kind:
        case "timeout":
            timed_out = urllib3.exceptions.ReadTimeoutError(pool, request.url or "", "Read timed out.")
            return requests.exceptions.ReadTimeout(timed_out, request=request)
        case "refused" | "reset":
            reason = ConnectionResetError(104, "Connection reset by peer")
        case _:
            reason = RemoteDisconnected("Remote end closed connection without response")
    error = urllib3.exceptions.ProtocolError("Connection aborted.", reason)
    return requests.exceptions.ConnectionError(error, request=request)


def _cut_short(broken: Broken) -> Exception:
    match broken.kind:
        case "timeout":
            return TimeoutError("timed out")
        case "reset":
            return ConnectionResetError(104, "Connection reset by peer")
        case _:
            return IncompleteRead(b"")


def _body(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    data = body.read() if callable(getattr(body, "read", None)) else b"".join(body)
    return data.encode() if isinstance(data, str) else bytes(data)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
