"""What the transports for httpx and httpx2 share: everything but the classes they descend from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from gip_resilience.gateway.http1 import Request
from gip_resilience.testing.upstream import Broken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from types import ModuleType

    from gip_resilience.testing.upstream import Exchange, Kind, ScriptedUpstream

_ERRORS: Mapping[Kind, tuple[str, str]] = {
    "refused": ("ConnectError", "Connection reset by peer"),
    "reset": ("ReadError", "Connection reset by peer"),
    "closed": ("RemoteProtocolError", "Server disconnected without sending a complete response."),
    "half_head": ("RemoteProtocolError", "Server disconnected without sending a response."),
    "malformed": ("RemoteProtocolError", "illegal response"),
    "timeout": ("ReadTimeout", "The read operation timed out"),
}
"""What either package raises over a real connection that breaks so; see `gip_resilience.gateway`."""


class Carrier:
    """The transport, but for its base class.

    Args:
        upstream: what answers.
    """

    library: ClassVar[ModuleType]
    stream: ClassVar[type[Any]]

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._upstream!r}>"

    def handle_request(self, request: Any) -> Any:
        """One exchange."""
        return self._answer(request, b"".join(request.stream))

    async def handle_async_request(self, request: Any) -> Any:
        """One exchange; others get their turn."""
        import anyio.lowlevel

        body = b"".join([piece async for piece in request.stream])
        await anyio.lowlevel.checkpoint()
        return self._answer(request, body)

    def close(self) -> None:
        """Close what waits in the pool."""
        self._upstream.close()

    async def aclose(self) -> None:
        """Close what waits in the pool."""
        self._upstream.close()

    def _answer(self, request: Any, body: bytes) -> Any:
        pairs = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw
        )
        asked = Request(request.method, request.url.raw_path.decode("latin-1"), 1, pairs, body)
        timeout = request.extensions.get("timeout", {}).get("read")
        try:
            exchange = self._upstream.exchange(asked, timeout)
        except Broken as broken:
            raise error_of(self.library, broken, request) from None
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in exchange.headers]
        extensions = {"http_version": b"HTTP/1.1"}
        stream = self.stream(exchange, request)
        return self.library.Response(exchange.status, headers=headers, stream=stream, extensions=extensions)


class Stream:
    """The body of an answer, but for its base classes."""

    library: ClassVar[ModuleType]

    def __init__(self, exchange: Exchange, request: Any) -> None:
        self._exchange = exchange
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._exchange.pieces()
        except Broken as broken:
            raise error_of(self.library, broken, self._request) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        import anyio.lowlevel

        for piece in self:
            await anyio.lowlevel.checkpoint()
            yield piece

    def close(self) -> None:
        """The client has done with it."""
        self._exchange.close()

    async def aclose(self) -> None:
        """The client has done with it."""
        self._exchange.close()


def error_of(library: ModuleType, broken: Broken, request: Any) -> Exception:
    """What *library* raises when a connection breaks like that."""
    name, text = _ERRORS[broken.kind]
    error: Exception = getattr(library, name)(text, request=request)
    return error
