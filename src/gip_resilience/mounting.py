"""`mount` and `unmount`: put resilience under a client that exists already.

The transports inside the client are wrapped where they are, so everything the client was made with stays:
proxies (the environment's too), certificates, HTTP/2, limits, and adapters of the user's own. httpx offers no
public way to do that; the two attributes used here (``_transport`` and ``_mounts``) are those that the
instrumentation and mocking libraries rely on, and a client without them is refused with a clear error.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gip_resilience.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SUPPORTED", "mount", "unmount"]

SUPPORTED = (
    "a requests.Session, an httpx.Client or httpx.AsyncClient, an httpx2.Client or httpx2.AsyncClient, "
    "or an SDK object that owns one of them"
)

_OWNED = (
    ("_client",),  # openai, anthropic, groq and all their siblings
    ("sdk_configuration", "client"),  # mistralai
    ("sdk_configuration", "async_client"),
    ("_api_client", "_httpx_client"),  # google-genai
    ("_api_client", "_async_httpx_client"),
    ("root_client",),  # langchain-openai: SDK objects again
    ("root_async_client",),
    ("client",),
    ("async_client",),
    ("session",),
    ("http_client",),
)
"""Where SDK objects keep their HTTP client."""

_DEPTH = 3
"""How many objects may own each other on the way to an HTTP client."""


def mount(client: Any, resilience: Resilience | None = None) -> Resilience:
    """Make a client resilient, in place.

    Args:
        client: a ``requests.Session``, an ``httpx`` or ``httpx2`` client of either colour, or an SDK object that
            owns one (openai, anthropic, groq, mistralai, …).
        resilience: policy, state and counters; give the same one to several clients to share them. By default
            the one already mounted, else a new one.

    Returns:
        The `Resilience` that is mounted now.

    Raises:
        TypeError: the object is not supported, or *resilience* is not a `Resilience`.
        ValueError: another `Resilience` is mounted on it; `unmount` it first.

    Mounting twice is a no-op. Not meant to race with requests of that client in other threads.
    """
    if resilience is not None and not isinstance(resilience, Resilience):
        raise TypeError(f"resilience: expected a gip_resilience.Resilience, got {type(resilience).__name__}")
    owners = _http_clients(client)
    mounted = [owner.mounted() for owner in owners]
    present = next((one for one in mounted if one is not None), None)
    if present is not None and resilience not in {None, present}:
        raise ValueError("another Resilience is mounted on this client; unmount it first")
    brain = present or resilience or Resilience()
    for owner in owners:
        owner.wrap(brain)
    return brain


def unmount(client: Any) -> None:
    """Put the very transports back that `mount` found. Does nothing on a client that has nothing mounted.

    Raises:
        TypeError: the object is not supported.
    """
    for owner in _http_clients(client):
        owner.unwrap()


class _Session:
    """A ``requests.Session``."""

    def __init__(self, session: Any) -> None:
        from gip_resilience.requests import ResilientAdapter

        self._adapters: dict[str, Any] = session.adapters
        self._ours = ResilientAdapter

    def mounted(self) -> Resilience | None:
        for adapter in self._adapters.values():
            if isinstance(adapter, self._ours):
                return adapter.resilience
        return None

    def wrap(self, brain: Resilience) -> None:
        # Assigned in place: `session.mount` would change the order, and with it which prefix wins. An adapter under
        # several prefixes is wrapped once: a second wrapping would take our "no retries" for the adapter's own.
        wrapped: dict[int, Any] = {}
        for prefix, adapter in self._adapters.items():
            if not isinstance(adapter, self._ours):
                if id(adapter) not in wrapped:
                    wrapped[id(adapter)] = self._ours(brain, adapter)
                self._adapters[prefix] = wrapped[id(adapter)]

    def unwrap(self) -> None:
        for prefix, adapter in self._adapters.items():
            if isinstance(adapter, self._ours) and adapter.inner is not None:
                self._adapters[prefix] = adapter.restore()


class _Client:
    """An httpx or httpx2 client, of either colour."""

    def __init__(self, client: Any, ours: Any) -> None:
        self._client = client
        self._ours = ours
        if not hasattr(client, "_transport") or not isinstance(getattr(client, "_mounts", None), dict):
            raise TypeError(
                f"this version of {type(client).__module__} keeps its transports where we cannot find them; "
                "give the client a ResilientTransport instead"
            )

    def mounted(self) -> Resilience | None:
        for transport in (self._client._transport, *self._client._mounts.values()):  # noqa: SLF001
            if isinstance(transport, self._ours):
                return transport.resilience  # type: ignore[no-any-return]  # checked the line above
        return None

    def wrap(self, brain: Resilience) -> None:
        client = self._client
        client._transport = self._wrapped(client._transport, brain)  # noqa: SLF001
        for pattern, transport in client._mounts.items():  # noqa: SLF001
            # None stands for "not by this proxy": the client falls back to its own transport, which is wrapped.
            if transport is not None:
                client._mounts[pattern] = self._wrapped(transport, brain)  # noqa: SLF001

    def _wrapped(self, transport: Any, brain: Resilience) -> Any:
        return transport if isinstance(transport, self._ours) else self._ours(brain, transport)

    def unwrap(self) -> None:
        client = self._client
        client._transport = self._unwrapped(client._transport)  # noqa: SLF001
        for pattern, transport in client._mounts.items():  # noqa: SLF001
            client._mounts[pattern] = self._unwrapped(transport)  # noqa: SLF001

    def _unwrapped(self, transport: Any) -> Any:
        return transport.inner if isinstance(transport, self._ours) else transport


def _http_clients(client: Any) -> list[_Session | _Client]:
    found = list(_search(client, _DEPTH, set()))
    if not found:
        raise TypeError(
            f"cannot mount on {type(client).__module__}.{type(client).__qualname__}: expected {SUPPORTED}"
        )
    return found


def _search(candidate: Any, depth: int, seen: set[int]) -> Iterator[_Session | _Client]:
    """The HTTP clients that *candidate* is, or owns."""
    if candidate is None or id(candidate) in seen:
        return
    seen.add(id(candidate))
    owner = _recognise(candidate)
    if owner is not None:
        yield owner
        return
    if depth == 0 or isinstance(candidate, (str, bytes, int, float, type, dict, list, tuple)):
        return
    for path in _OWNED:
        yield from _search(_follow(candidate, path), depth - 1, seen)


def _follow(candidate: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        candidate = getattr(candidate, name, None)
        if candidate is None:
            return None
    return candidate


def _recognise(candidate: Any) -> _Session | _Client | None:
    """An HTTP client we know. Its library has been imported, or there would be no such object."""
    requests = sys.modules.get("requests")
    if requests is not None and isinstance(candidate, requests.Session):
        return _Session(candidate)
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is not None:
        if isinstance(candidate, httpx2.Client):
            from gip_resilience.httpx2 import ResilientTransport

            return _Client(candidate, ResilientTransport)
        if isinstance(candidate, httpx2.AsyncClient):
            from gip_resilience.httpx2 import AsyncResilientTransport

            return _Client(candidate, AsyncResilientTransport)
    httpx = sys.modules.get("httpx")
    if httpx is not None:
        if isinstance(candidate, httpx.Client):
            from gip_resilience.httpx import ResilientTransport as Legacy

            return _Client(candidate, Legacy)
        if isinstance(candidate, httpx.AsyncClient):
            from gip_resilience.httpx import AsyncResilientTransport as AsyncLegacy

            return _Client(candidate, AsyncLegacy)
    return None
