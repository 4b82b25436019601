"""`ScriptedUpstream` under httpx2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httpx2

from gip_resilience.testing._carrying import Carrier, Stream

if TYPE_CHECKING:
    from types import ModuleType


class _Stream(Stream, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    library: ClassVar[ModuleType] = httpx2


class Httpx2Transport(Carrier, httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A transport for clients of both colours; see `gip_resilience.testing.ScriptedUpstream`."""

    library: ClassVar[ModuleType] = httpx2
    stream: ClassVar[type[Any]] = _Stream
