"""The libraries under test: how each is opened, asked, read and looked into."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import requests

import gip_resilience as gr

from .settings import READ_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .errands import Errand

ERRORS = (requests.RequestException, httpx.HTTPError, httpx2.HTTPError)
"""What a call may end in. All that the library raises itself is of one of these kinds, too."""


@cache
def _certificates(library: Any) -> Any:
    """What a client would make for itself; the greater part of the work of opening one."""
    return library.create_ssl_context()


def _network(transport: Any) -> Any:
    """The library's own transport, under ours."""
    while getattr(transport, "inner", None) is not None:
        transport = transport.inner
    return transport


class Requests:
    """requests."""

    name = "requests"

    def open(self, brain: gr.Resilience) -> Any:
        """A session with *brain* mounted."""
        session = requests.Session()
        session.trust_env = False
        gr.mount(session, brain)
        return session

    def send(self, client: Any, url: str, errand: Errand, headers: dict[str, str]) -> Any:
        """Send, and read the answer unless it is a stream."""
        return client.post(
            url,
            json=errand.body,
            headers=headers,
            stream=errand.stream,
            timeout=(10, READ_TIMEOUT),
            allow_redirects=False,
        )

    def pieces(self, response: Any) -> Iterator[bytes]:
        """What comes of a stream."""
        found: Iterator[bytes] = response.iter_content(None)
        return found

    def pool(self, client: Any) -> tuple[int, int]:
        """Connections that are held idle, and that are in use."""
        idle = used = 0
        network = _network(client.get_adapter("http://"))
        for key in network.poolmanager.pools.keys():  # noqa: SIM118 - a container that cannot be iterated
            queue = network.poolmanager.pools[key].pool
            used += queue.maxsize - queue.qsize()
            idle += sum(one is not None and one.sock is not None for one in list(queue.queue))
        return idle, used


class Blocking:
    """httpx or httpx2, blocking."""

    def __init__(self, library: Any) -> None:
        self.name = library.__name__
        self._library = library

    def open(self, brain: gr.Resilience) -> Any:
        """A client with *brain* mounted."""
        client = self._library.Client(
            verify=_certificates(self._library),
            trust_env=False,
            timeout=self._library.Timeout(10, read=READ_TIMEOUT),
        )
        gr.mount(client, brain)
        return client

    def send(self, client: Any, url: str, errand: Errand, headers: dict[str, str]) -> Any:
        """Send, and read the answer unless it is a stream."""
        request = client.build_request("POST", url, json=errand.body, headers=headers)
        return client.send(request, stream=errand.stream)

    def pieces(self, response: Any) -> Iterator[bytes]:
        """What comes of a stream."""
        found: Iterator[bytes] = response.iter_bytes()
        return found

    def pool(self, client: Any) -> tuple[int, int]:
        """Connections that are held idle, and that are in use."""
        return pool_of(client)


class Awaiting:
    """httpx or httpx2 under an event loop."""

    def __init__(self, library: Any) -> None:
        self.name = library.__name__
        self._library = library

    def open(self, brain: gr.Resilience) -> Any:
        """A client with *brain* mounted."""
        client = self._library.AsyncClient(
            verify=_certificates(self._library),
            trust_env=False,
            timeout=self._library.Timeout(10, read=READ_TIMEOUT),
        )
        gr.mount(client, brain)
        return client

    async def send(self, client: Any, url: str, errand: Errand, headers: dict[str, str]) -> Any:
        """Send, and read the answer unless it is a stream."""
        request = client.build_request("POST", url, json=errand.body, headers=headers)
        return await client.send(request, stream=errand.stream)

    def pieces(self, response: Any) -> AsyncIterator[bytes]:
        """What comes of a stream."""
        found: AsyncIterator[bytes] = response.aiter_bytes()
        return found


def pool_of(client: Any) -> tuple[int, int]:
    """Connections that a client of httpx or httpx2 holds idle, and that are in use."""
    pool = _network(client._transport)._pool  # noqa: SLF001 - there is no public way
    used = sum(not (one.is_idle() or one.is_closed()) for one in pool.connections)
    return len(pool.connections) - used, used + len(pool._requests)  # noqa: SLF001 - as above


BLOCKING: tuple[Requests | Blocking, ...] = (Requests(), Blocking(httpx), Blocking(httpx2))
AWAITING = (Awaiting(httpx), Awaiting(httpx2))
BACKENDS = ("asyncio", "trio")
