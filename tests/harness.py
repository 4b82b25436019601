"""Seven clients, one way to use them.

Every behaviour is promised for requests, and for httpx and httpx2, each blocking, under asyncio and under trio. A
`Harness` is one of these seven with the same blocking face, so that a test is written once. An awaiting client
lives in one event loop for as long as it is open, in a thread of its own, as it would in a program.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

import anyio.from_thread
import httpx
import httpx2
import requests

import gip_resilience as gr

CHAT = {"model": "azure/openai/gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
"""What a user of the gateway sends."""


@cache
def certificates(library: Any) -> Any:
    """What *library* makes anew for each client that is not told otherwise: most of the work of making one."""
    return library.create_ssl_context()


@dataclass
class Answer:
    """What the caller of any client gets."""

    status: int
    headers: dict[str, str]
    content: bytes
    response: Any
    """The library's own response object."""
    history: list[Any] = field(default_factory=list)

    @property
    def report(self) -> gr.CallReport:
        """The report of the call behind it."""
        report = gr.report(self.response)
        assert report is not None
        return report


class Harness:
    """One of the seven clients, closed. `open` it to use it."""

    library: Any = None
    colour = "sync"
    backend: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    @property
    def errors(self) -> Any:
        """Where the library keeps its exceptions."""
        return self.library

    def open(self, resilience: gr.Resilience | None = None, **options: Any) -> Session:
        """A client with *resilience* mounted (bare without), made with the library's own *options*."""
        raise NotImplementedError


class Session:
    """An open client."""

    portal: Any = None
    """Runs coroutine functions in the client's event loop; only an awaiting client has one."""

    def __init__(self, harness: Harness, client: Any) -> None:
        self.harness = harness
        self.client = client
        """The library's own client object."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def request(self, method: str, url: str, **options: Any) -> Answer:
        """Send and read everything."""
        return self._answer(self.client.request(method, url, **options))

    def post(self, url: str, **options: Any) -> Answer:
        """Send a POST; a chat request unless *options* bring a body."""
        if not {"json", "data", "content", "files"} & options.keys():
            options["json"] = CHAT
        return self.request("POST", url, **options)

    def get(self, url: str, **options: Any) -> Answer:
        """Send a GET."""
        return self.request("GET", url, **options)

    def stream(self, method: str, url: str, **options: Any) -> tuple[Answer, list[bytes]]:
        """Send, then read the body piece by piece, decoded."""
        with self.client.stream(method, url, **options) as response:
            pieces = list(response.iter_bytes())
        return Answer(response.status_code, dict(response.headers), b"".join(pieces), response), pieces

    def stream_raw(self, method: str, url: str, **options: Any) -> tuple[Answer, bytes]:
        """Send, then read the body as it came over the wire."""
        with self.client.stream(method, url, **options) as response:
            raw = b"".join(response.iter_raw())
        return Answer(response.status_code, dict(response.headers), raw, response), raw

    def content(self, body: Any) -> dict[str, Any]:
        """How this library is given a raw body."""
        return {"content": body}

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    @staticmethod
    def _answer(response: Any) -> Answer:
        return Answer(
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
            response.content,
            response,
            list(response.history),
        )


class RequestsHarness(Harness):
    library = requests

    @property
    def errors(self) -> Any:
        return requests.exceptions

    def open(self, resilience: gr.Resilience | None = None, **options: Any) -> Session:
        client = requests.Session()
        for name, value in options.items():
            setattr(client, name, value)
        if resilience is not None:
            gr.mount(client, resilience)
        return RequestsSession(self, client)


class RequestsSession(Session):
    def request(self, method: str, url: str, **options: Any) -> Answer:
        options.setdefault("timeout", 5)
        return super().request(method, url, **options)

    def stream(self, method: str, url: str, **options: Any) -> tuple[Answer, list[bytes]]:
        options.setdefault("timeout", 5)
        with self.client.request(method, url, stream=True, **options) as response:
            pieces = list(response.iter_content(None))
        return Answer(response.status_code, dict(response.headers), b"".join(pieces), response), pieces

    def stream_raw(self, method: str, url: str, **options: Any) -> tuple[Answer, bytes]:
        options.setdefault("timeout", 5)
        with self.client.request(method, url, stream=True, **options) as response:
            raw = response.raw.read(decode_content=False)
        return Answer(response.status_code, dict(response.headers), raw, response), raw

    def content(self, body: Any) -> dict[str, Any]:
        return {"data": body}


class SyncHarness(Harness):
    def __init__(self, name: str, library: Any) -> None:
        super().__init__(name)
        self.library = library

    def open(self, resilience: gr.Resilience | None = None, **options: Any) -> Session:
        client = self.library.Client(**{"verify": certificates(self.library), **options})
        if resilience is not None:
            gr.mount(client, resilience)
        return Session(self, client)


class AsyncHarness(Harness):
    colour = "async"

    def __init__(self, name: str, library: Any, backend: str) -> None:
        super().__init__(name)
        self.library = library
        self.backend = backend

    def open(self, resilience: gr.Resilience | None = None, **options: Any) -> Session:
        client = self.library.AsyncClient(**{"verify": certificates(self.library), **options})
        if resilience is not None:
            gr.mount(client, resilience)
        return AsyncSession(self, client, self.backend)


class AsyncSession(Session):
    def __init__(self, harness: Harness, client: Any, backend: str | None) -> None:
        super().__init__(harness, client)
        self._stack = contextlib.ExitStack()
        self.portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal(backend or "asyncio"))

    def request(self, method: str, url: str, **options: Any) -> Answer:
        async def send() -> Any:
            return await self.client.request(method, url, **options)

        return self._answer(self.portal.call(send))

    def stream(self, method: str, url: str, **options: Any) -> tuple[Answer, list[bytes]]:
        async def send() -> tuple[Any, list[bytes]]:
            async with self.client.stream(method, url, **options) as response:
                return response, [piece async for piece in response.aiter_bytes()]

        response, pieces = self.portal.call(send)
        return Answer(response.status_code, dict(response.headers), b"".join(pieces), response), pieces

    def stream_raw(self, method: str, url: str, **options: Any) -> tuple[Answer, bytes]:
        async def send() -> tuple[Any, bytes]:
            async with self.client.stream(method, url, **options) as response:
                return response, b"".join([piece async for piece in response.aiter_raw()])

        response, raw = self.portal.call(send)
        return Answer(response.status_code, dict(response.headers), raw, response), raw

    def close(self) -> None:
        try:
            self.portal.call(self.client.aclose)
        finally:
            self._stack.close()


HARNESSES = [
    RequestsHarness("requests"),
    SyncHarness("httpx", httpx),
    AsyncHarness("httpx-asyncio", httpx, "asyncio"),
    AsyncHarness("httpx-trio", httpx, "trio"),
    SyncHarness("httpx2", httpx2),
    AsyncHarness("httpx2-asyncio", httpx2, "asyncio"),
    AsyncHarness("httpx2-trio", httpx2, "trio"),
]
"""The seven."""
