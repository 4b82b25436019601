"""Transports for httpx.

    client = httpx.Client(transport=ResilientTransport())

For a client that exists already, `gip_resilience.mount` is better: ``Client(transport=...)`` makes httpx ignore
``verify``, ``cert``, ``http2``, ``limits`` and the environment's proxies without a word, and mounting keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from gip_resilience import errors
from gip_resilience._answers import Noted
from gip_resilience._httpx_family import AsyncPort, SyncPort
from gip_resilience._httpx_kit import Kit, content_of, entries_of
from gip_resilience._httpx_streams import AsyncMended, AsyncRelay, SyncMended, SyncRelay
from gip_resilience.above import Layer
from gip_resilience.drive import adrive, drive
from gip_resilience.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType
    from typing import Self

    from gip_resilience._recording import AsyncRecorder, Recorder

__all__ = [
    "AsyncResilientTransport",
    "CircuitOpenError",
    "DeadlineExceededError",
    "RateLimitedError",
    "ResilientTransport",
    "StreamDivergedError",
    "StreamInterruptedError",
    "StreamStalledError",
]


class CircuitOpenError(errors.CircuitOpenError, httpx.TransportError):
    """The circuit is open; nothing was sent. Not a ``NetworkError``, which other layers would retry."""


class RateLimitedError(errors.RateLimitedError, httpx.TransportError):
    """The rate limit resets later than this call may wait; nothing was sent."""


class DeadlineExceededError(errors.DeadlineExceededError, httpx.TimeoutException):
    """The deadline of the whole call has passed."""


class StreamInterruptedError(errors.StreamInterruptedError, httpx.RemoteProtocolError, httpx.ReadError):
    """An event stream broke, and could not be mended. Kin of both errors that httpx has for that."""


class StreamStalledError(errors.StreamInterruptedError, httpx.ReadTimeout):
    """An event stream fell silent, and could not be mended."""


class StreamDivergedError(errors.StreamDivergedError, httpx.RemoteProtocolError):
    """A broken event stream was replayed, and the answer was another one."""


class _Recording(httpx.SyncByteStream):
    """A request body that is remembered while it is sent."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._recorder)


class _AsyncRecording(httpx.AsyncByteStream):
    """A request body that is remembered while it is sent."""

    def __init__(self, recorder: AsyncRecorder) -> None:
        self._recorder = recorder

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._recorder)


class _Relay(SyncRelay, httpx.SyncByteStream):
    """A response body that was begun."""


class _AsyncRelay(AsyncRelay, httpx.AsyncByteStream):
    """A response body that was begun."""


class _Mended(SyncMended, httpx.SyncByteStream):
    """An event stream that we look after."""


class _AsyncMended(AsyncMended, httpx.AsyncByteStream):
    """An event stream that we look after."""


KIT = Kit(
    request=httpx.Request,
    response=httpx.Response,
    byte_stream=httpx.ByteStream,
    entries=entries_of(httpx.Headers),
    content=content_of(httpx.ByteStream),
    transport_error=httpx.TransportError,
    read_timeout=httpx.ReadTimeout,
    refusals={
        "circuit_open": CircuitOpenError,
        "rate_limited": RateLimitedError,
        "deadline": DeadlineExceededError,
    },
    interruptions={
        "": StreamInterruptedError,
        "stream_stalled": StreamStalledError,
        "stream_diverged": StreamDivergedError,
    },
    sync_recording=_Recording,
    async_recording=_AsyncRecording,
    sync_relay=_Relay,
    async_relay=_AsyncRelay,
    sync_mended=_Mended,
    async_mended=_AsyncMended,
)


_entries = KIT.entries


class ResilientTransport(httpx.BaseTransport):
    """A transport that makes another one resilient.

    Args:
        resilience: policy, state and counters; one of its own by default.
        inner: the transport that sends; an ``httpx.HTTPTransport()`` by default.

    Thread-safe as far as *inner* is. Closing it closes *inner*, and only that: the `Resilience` has nothing to
    close and may serve other clients.
    """

    def __init__(
        self, resilience: Resilience | None = None, inner: httpx.BaseTransport | None = None
    ) -> None:
        self.resilience = Resilience() if resilience is None else resilience
        self.inner = httpx.HTTPTransport() if inner is None else inner

    def __repr__(self) -> str:
        return f"ResilientTransport({self.resilience!r}, inner={self.inner!r})"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, as often as the policy of its failures says.

        Raises:
            CircuitOpenError: refused, the circuit is open.
            RateLimitedError: refused, the rate limit resets too late.
            DeadlineExceededError: the call's deadline has passed.
            ConfigError: the request's extension ``gip_resilience`` is not an `Overrides`.
            httpx.TransportError: the last attempt's own error.
        """
        noted = Noted(_entries(request.headers), Layer(self.resilience, request.method, request.url))
        if noted.passes:
            return self.inner.handle_request(request)
        port = SyncPort(KIT, self.resilience, self.inner, request, noted)
        response: httpx.Response = drive(port.call, port, self.resilience.clock)
        return response

    def close(self) -> None:
        """Close the transport inside."""
        self.inner.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.inner.__exit__(exc_type, exc_value, traceback)


class AsyncResilientTransport(httpx.AsyncBaseTransport):
    """A transport that makes another one resilient, under asyncio and trio. See `ResilientTransport`.

    Args:
        resilience: policy, state and counters; one of its own by default.
        inner: the transport that sends; an ``httpx.AsyncHTTPTransport()`` by default.
    """

    def __init__(
        self, resilience: Resilience | None = None, inner: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.resilience = Resilience() if resilience is None else resilience
        self.inner = httpx.AsyncHTTPTransport() if inner is None else inner

    def __repr__(self) -> str:
        return f"AsyncResilientTransport({self.resilience!r}, inner={self.inner!r})"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, as often as the policy of its failures says. See `ResilientTransport.handle_request`."""
        noted = Noted(_entries(request.headers), Layer(self.resilience, request.method, request.url))
        if noted.passes:
            return await self.inner.handle_async_request(request)
        port = AsyncPort(KIT, self.resilience, self.inner, request, noted)
        response: httpx.Response = await adrive(port.call, port, self.resilience.clock)
        return response

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.inner.__aexit__(exc_type, exc_value, traceback)
