"""A layer between ours and the network, under each of the clients, on which a test can act.

`interpose` puts it there before anything is mounted. What it calls is told where it is: ``"send"`` before a
request goes out, ``"read"`` before each piece of a body is read. An awaiting client awaits what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import httpx2
from requests.adapters import BaseAdapter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from harness import Session


def interpose(session: Session, act: Callable[[str], Any]) -> None:
    """Have *act* called beneath everything else; as a coroutine function for an awaiting client."""
    client = session.client
    if session.harness.name == "requests":
        for prefix, adapter in client.adapters.items():
            client.adapters[prefix] = _Adapter(adapter, act)
        return
    blocking, awaiting = _CLASSES[session.harness.library]
    made = awaiting if session.harness.colour == "async" else blocking
    client._transport = made(client._transport, act)


class _Adapter(BaseAdapter):
    def __init__(self, inner: Any, act: Callable[[str], None]) -> None:
        super().__init__()
        self.inner = inner
        self._act = act

    def send(self, request: Any, **options: Any) -> Any:
        self._act("send")
        response = self.inner.send(request, **options)
        raw = response.raw
        read1 = raw.read1

        def read(*args: Any, **kwargs: Any) -> bytes:
            self._act("read")
            return read1(*args, **kwargs)

        raw.read1 = read
        return response

    def close(self) -> None:
        self.inner.close()


def _classes(library: Any) -> tuple[type, type]:
    """The same for httpx and httpx2, whose classes must be their own."""

    class Stream(library.SyncByteStream):
        def __init__(self, inner: Any, act: Callable[[str], None]) -> None:
            self._inner = inner
            self._act = act

        def __iter__(self) -> Iterator[bytes]:
            pieces = iter(self._inner)
            while True:
                self._act("read")
                try:
                    yield next(pieces)
                except StopIteration:
                    return

        def close(self) -> None:
            self._inner.close()

    class Transport(library.BaseTransport):
        def __init__(self, inner: Any, act: Callable[[str], None]) -> None:
            self.inner = inner
            self._act = act

        def handle_request(self, request: Any) -> Any:
            self._act("send")
            response = self.inner.handle_request(request)
            response.stream = Stream(response.stream, self._act)
            return response

        def close(self) -> None:
            self.inner.close()

    class AsyncStream(library.AsyncByteStream):
        def __init__(self, inner: Any, act: Callable[[str], Any]) -> None:
            self._inner = inner
            self._act = act

        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces = aiter(self._inner)
            while True:
                await self._act("read")
                try:
                    yield await anext(pieces)
                except StopAsyncIteration:
                    return

        async def aclose(self) -> None:
            await self._inner.aclose()

    class AsyncTransport(library.AsyncBaseTransport):
        def __init__(self, inner: Any, act: Callable[[str], Any]) -> None:
            self.inner = inner
            self._act = act

        async def handle_async_request(self, request: Any) -> Any:
            await self._act("send")
            response = await self.inner.handle_async_request(request)
            response.stream = AsyncStream(response.stream, self._act)
            return response

        async def aclose(self) -> None:
            await self.inner.aclose()

    return Transport, AsyncTransport


_CLASSES = {library: _classes(library) for library in (httpx, httpx2)}
