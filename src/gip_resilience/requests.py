"""Adapter for requests.

    session.mount("https://", ResilientAdapter())

`gip_resilience.mount` does the same for every adapter a session already has, and keeps those adapters: their
pools, certificates and proxies.

requests gives its transport adapters no per-request options, so overrides travel by `Resilience.override`. urllib3's
own retries are pinned off beneath us, or two layers would multiply; `gip_resilience.Policy.from_urllib3` turns a
``urllib3.Retry`` into a policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util.retry import Retry

from gip_resilience._answers import Noted
from gip_resilience._requests_errors import (
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    StreamDivergedError,
    StreamInterruptedError,
    StreamStalledError,
)
from gip_resilience._requests_port import Port, entries_of
from gip_resilience.above import Layer
from gip_resilience.drive import drive
from gip_resilience.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response

__all__ = [
    "CircuitOpenError",
    "DeadlineExceededError",
    "RateLimitedError",
    "ResilientAdapter",
    "StreamDivergedError",
    "StreamInterruptedError",
    "StreamStalledError",
]


class ResilientAdapter(HTTPAdapter):
    """An adapter that makes another one resilient.

    Args:
        resilience: policy, state and counters; one of its own by default.
        inner: the adapter that sends. By default this one does, with the pool options of ``HTTPAdapter``. The
            retries of an ``HTTPAdapter`` given here are switched off while we are around it.
        pool: ``pool_connections``, ``pool_maxsize`` and ``pool_block`` as for ``HTTPAdapter``; not with *inner*.

    Raises:
        TypeError: pool options together with *inner*, or ``max_retries``.

    Thread-safe as far as requests is. It pickles with its session: the `Resilience` as its configuration.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "resilience", "inner", "_unpinned"]  # noqa: RUF012 - as requests has it

    def __init__(
        self, resilience: Resilience | None = None, inner: BaseAdapter | None = None, **pool: Any
    ) -> None:
        if "max_retries" in pool:
            raise TypeError(
                "max_retries: retries are this adapter's own business; "
                "Policy.from_urllib3(retry) turns a urllib3.Retry into a policy"
            )
        if inner is not None and pool:
            raise TypeError(f"{', '.join(sorted(pool))}: the pool belongs to the inner adapter")
        super().__init__(max_retries=_no_retries(), **pool)
        self.resilience = Resilience() if resilience is None else resilience
        self.inner = inner
        self._unpinned: Retry | None = None
        if isinstance(inner, HTTPAdapter):
            self._unpinned = inner.max_retries
            inner.max_retries = _no_retries()

    def __repr__(self) -> str:
        return f"ResilientAdapter({self.resilience!r}, inner={self.inner!r})"

    def restore(self) -> BaseAdapter | None:
        """Give the inner adapter its retries back and return it; this adapter is not used afterwards."""
        if self._unpinned is not None and isinstance(self.inner, HTTPAdapter):
            self.inner.max_retries = self._unpinned
        return self.inner

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send *request*, as often as the policy of its failures says.

        Raises:
            CircuitOpenError: refused, the circuit is open.
            RateLimitedError: refused, the rate limit resets too late.
            DeadlineExceededError: the call's deadline has passed.
            requests.exceptions.RequestException: the last attempt's own error.
        """
        noted = Noted(
            entries_of(request.headers), Layer(self.resilience, request.method or "GET", request.url)
        )
        options = {"stream": stream, "verify": verify, "cert": cert, "proxies": proxies}
        send = super().send if self.inner is None else self.inner.send
        if noted.passes:
            return send(request, timeout=timeout, **options)
        port = Port(self, self.resilience, send, request, noted, timeout, options)
        return drive(port.call, port, self.resilience.clock)

    def close(self) -> None:
        """Close the pools, the inner adapter's too."""
        super().close()
        if self.inner is not None:
            self.inner.close()


def _no_retries() -> Retry:
    return Retry(0, read=False)
