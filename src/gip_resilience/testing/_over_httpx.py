"""`ScriptedUpstream` under httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httpx

from gip_resilience.testing._carrying import Carrier, Stream

if TYPE_CHECKING:
    from types import ModuleType


class _Stream(Stream, httpx.SyncByteStream, httpx.AsyncByteStream):
    library: ClassVar[ModuleType] = httpx


class HttpxTransport(Carrier, httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for clients of both colours; see `gip_resilience.testing.ScriptedUpstream`."""

    library: ClassVar[ModuleType] = httpx
    stream: ClassVar[type[Any]] = _Stream
