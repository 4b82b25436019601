"""A stream in the hands of its reader, piece by piece and under each client the same, and peers that make one.

The peer is the network (a gateway, a `loopback.Loopback`), or a function in the test's own process (`answer_with`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Self

import httpx
import httpx2
import requests
from requests.adapters import BaseAdapter
from urllib3.response import HTTPResponse

from harness import CHAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from harness import Session

STREAMED = CHAT | {"stream": True}
"""A request whose answer may not be compared with another one."""

EXACT = STREAMED | {"temperature": 0}
"""A request whose answer is the same every time, so that a replay may go on with it."""

DONE = b"data: [DONE]\n\n"

URL = "http://peer.invalid/v1/chat/completions"
"""Where an `answer_with` answers; anywhere would do."""


def delta(text: str, size: int = 0) -> bytes:
    """An event with output, padded to *size* bytes."""
    padding = "x" * max(0, size - len(delta(text))) if size else ""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (text + padding).encode()


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


class Live:
    """One streamed answer. Under an awaiting client, each step awaits in the client's own loop.

    Args:
        session: an open client.
        url: where to.
        body: what to ask.
        options: of the library's own way to send.
    """

    def __init__(self, session: Session, url: str, body: dict[str, Any] = STREAMED, **options: Any) -> None:
        self._session = session
        self.body = bytearray()
        """What was taken so far."""
        client = session.client
        if session.harness.name == "requests":
            options.setdefault("timeout", 5)
            self.response: Any = client.post(url, json=body, stream=True, **options)
            self._pieces: Any = self.response.iter_content(None)
            return
        request = client.build_request("POST", url, json=body, **options)
        if session.portal is None:
            self.response = client.send(request, stream=True)
            self._pieces = self.response.iter_bytes()
            return

        async def send() -> Any:
            return await client.send(request, stream=True)

        self.response = session.portal.call(send)
        self._pieces = self.response.aiter_bytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def take(self) -> bytes:
        """The next piece; empty at the end."""
        portal = self._session.portal
        piece: bytes = next(self._pieces, b"") if portal is None else portal.call(anext, self._pieces, b"")
        self.body += piece
        return piece

    def until(self, mark: bytes, times: int = 1) -> bytes:
        """Read until *mark* has come so often, or to the end; returns all that was taken so far."""
        while self.body.count(mark) < times and self.take():
            pass
        return bytes(self.body)

    def read(self) -> bytes:
        """Read to the end; returns all that was taken."""
        while self.take():
            pass
        return bytes(self.body)

    def close(self) -> None:
        """Close the answer."""
        if self._session.portal is None:
            self.response.close()
        else:
            self._session.portal.call(self.response.aclose)


# ---- peers in this process -------------------------------------------------------------------------------


def answer_with(session: Session, answer: Callable[[], Iterator[bytes]]) -> None:
    """Have *answer* answer every request of a client with an event stream: its pieces, or what it raises.

    To be called before anything is mounted. An awaiting client gets the pieces without a wait between them.
    """
    client = session.client
    if session.harness.name == "requests":
        client.mount("http://", _Adapter(answer))
        return
    blocking, awaiting = _CLASSES[session.harness.library]
    client._transport = (blocking if session.portal is None else awaiting)(answer)


HEADERS = {"content-type": "text/event-stream"}


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read1(self, size: int = -1, /) -> bytes:
        piece = next(self._pieces, b"")
        if not piece:
            self.close()
        return piece

    read = read1


class _Adapter(BaseAdapter):
    def __init__(self, answer: Callable[[], Iterator[bytes]]) -> None:
        super().__init__()
        self._answer = answer

    def send(self, request: Any, **options: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.headers.update(HEADERS)
        response.request = request
        response.url = request.url
        body = _Pieces(self._answer())
        response.raw = HTTPResponse(body=body, headers=HEADERS, status=200, preload_content=False)
        return response

    def close(self) -> None:
        pass


def _classes(library: Any) -> tuple[type, type]:
    """The same for httpx and httpx2, whose classes must be their own."""

    class Stream(library.SyncByteStream):
        def __init__(self, pieces: Iterator[bytes]) -> None:
            self._pieces = pieces

        def __iter__(self) -> Iterator[bytes]:
            return self._pieces

    class Transport(library.BaseTransport):
        def __init__(self, answer: Callable[[], Iterator[bytes]]) -> None:
            self._answer = answer

        def handle_request(self, request: Any) -> Any:
            return library.Response(200, headers=HEADERS, stream=Stream(self._answer()))

    class AsyncStream(library.AsyncByteStream):
        def __init__(self, pieces: Iterator[bytes]) -> None:
            self._pieces = pieces

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            for piece in self._pieces:
                return piece
            raise StopAsyncIteration

    class AsyncTransport(library.AsyncBaseTransport):
        def __init__(self, answer: Callable[[], Iterator[bytes]]) -> None:
            self._answer = answer

        async def handle_async_request(self, request: Any) -> Any:
            return library.Response(200, headers=HEADERS, stream=AsyncStream(self._answer()))

    return Transport, AsyncTransport


_CLASSES = {library: _classes(library) for library in (httpx, httpx2)}
