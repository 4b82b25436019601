"""Response bodies of httpx and httpx2 that were begun, and how to close one for certain.

Class-based iterators, not generators: callers re-iterate and close them in ways a generator gets wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol, Self

import anyio

from gip_resilience._forgotten import begin, end, forget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gip_resilience._async_flow import AsyncFlow
    from gip_resilience._flow import Flow
    from gip_resilience._httpx_deadlines import Deadline

_LEFT_OVER = 64
"""Pieces of a body that may be there without waiting for the network: more than any client's buffer holds."""


class SyncStream(Protocol):
    """A request or response body of a blocking client."""

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None:
        """Give the connection back, or close it."""


class AsyncStream(Protocol):
    """A request or response body of an awaiting client."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None:
        """Give the connection back, or close it."""


class SyncRelay:
    """A response body that was begun: first what was read of it, then the rest, or the error that ended it.

    Args:
        chunks: what was read.
        rest: what was not.
        inner: the body as the client gave it.
        cause: the error that ended it.
        deadline: until when the rest may be read, if there is a limit.
    """

    __slots__ = ("_cause", "_chunks", "_deadline", "_inner", "_rest")

    def __init__(
        self,
        chunks: list[bytes],
        rest: Iterator[bytes] | None,
        inner: SyncStream,
        cause: Exception | None,
        deadline: Deadline | None = None,
    ) -> None:
        self._chunks = deque(chunks) if chunks else None  # an empty one takes 760 bytes
        self._rest = rest
        self._inner = inner
        self._cause = cause
        self._deadline = deadline
        if rest is not None:
            begin(rest)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._chunks:
            return self._chunks.popleft()
        if self._cause is not None:
            raise _taken(self)
        if self._rest is None:
            raise StopIteration
        try:
            return next(self._rest) if self._deadline is None else self._deadline.pull(self._rest)
        except StopIteration:
            self._let_go()
            raise
        except BaseException:
            self.close()  # one of the packages does not close a response whose body raised
            raise

    def close(self) -> None:
        """Close the response underneath. Idempotent. What was read stays, and is then all there is."""
        self._let_go()
        self._inner.close()

    def _let_go(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            end(rest)

    def __del__(self) -> None:
        """Nobody closed it: the next call does. See `gip_resilience._forgotten`."""
        if self._rest is not None:
            forget(partial(_close, self._rest, self._inner))


def _close(rest: Iterator[bytes], inner: SyncStream) -> None:
    end(rest)
    inner.close()


class AsyncRelay:
    """The same for an awaiting client; see `SyncRelay`."""

    __slots__ = ("_cause", "_chunks", "_deadline", "_inner", "_rest")

    def __init__(
        self,
        chunks: list[bytes],
        rest: AsyncIterator[bytes] | None,
        inner: AsyncStream,
        cause: Exception | None,
        deadline: Deadline | None = None,
    ) -> None:
        self._chunks = deque(chunks) if chunks else None  # an empty one takes 760 bytes
        self._rest = rest
        self._inner = inner
        self._cause = cause
        self._deadline = deadline

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks:
            return self._chunks.popleft()
        if self._cause is not None:
            raise _taken(self)
        if self._rest is None:
            raise StopAsyncIteration
        try:
            if self._deadline is not None:
                return await self._deadline.apull(self._rest)
            return await anext(self._rest)
        except StopAsyncIteration:
            raise
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the response underneath, and what iterates over it. Idempotent."""
        await aclose_for_certain(self._inner)
        rest = self._rest
        if isinstance(rest, AsyncGenerator):
            if getattr(rest, "ag_running", False):
                return  # another task is reading, and closes this once more when it comes back
            self._rest = None
            await _unwind(rest)
        self._rest = None


class SyncMended:
    """An event stream that we look after, as the body of a response. A second iteration goes on with the first."""

    __slots__ = ("_flow",)

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        piece = self._flow.take()
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Close the stream. Idempotent."""
        self._flow.close()

    def __del__(self) -> None:
        """Leave a note if it ends here: closing its connection takes locks that the collector may be inside of."""
        self._flow.forsake()


class AsyncMended:
    """The same for an awaiting client; see `SyncMended`."""

    __slots__ = ("_flow",)

    def __init__(self, flow: AsyncFlow) -> None:
        self._flow = flow

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._flow.take()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Close the stream, cancelled or not. Idempotent."""
        await self._flow.aclose()

    def __del__(self) -> None:
        """See `SyncMended`."""
        self._flow.forsake()


def _taken(relay: SyncRelay | AsyncRelay) -> Exception:
    """The error a relay ends with, no longer held by it: or error, traceback, frame and relay form a cycle."""
    cause, relay._cause = relay._cause, None  # noqa: SLF001
    if cause is None:
        raise AssertionError("no error to raise")
    try:
        return cause
    finally:
        del cause


async def _unwind(rest: AsyncGenerator[bytes, None]) -> None:
    """Bring the generators behind a body to their end, when it was begun and nobody reads on.

    They are nested. One that is dropped is finalised by the event loop, in a task of its own and with a warning
    under trio; and one that is closed drops the next. So the innermost is asked once more, in a scope that is
    cancelled: what it raises ends them all. A generator that is running is another task's, and ends by itself.
    """
    with anyio.CancelScope(shield=True) as scope, suppress(Exception):
        scope.cancel()
        for _ in range(_LEFT_OVER):
            await anext(rest)


@lru_cache(maxsize=256)
def _is_shielded(kind: type) -> bool:
    """Whether streams of this class see to it themselves that they are closed, cancelled or not.

    Those of httpx and httpx2 do (their connection pools shield it).
    """
    return kind.__module__.partition(".")[0] in {"httpx", "httpx2"}


async def aclose_read(stream: AsyncStream) -> None:
    """Close a body that was read to its end: for certain, too, and at less expense where that is possible."""
    if _is_shielded(type(stream)):
        await stream.aclose()
    else:
        await aclose_for_certain(stream)


async def aclose_for_certain(stream: AsyncStream) -> None:
    """Close for certain: a task that is being cancelled could not await anything otherwise (trio)."""
    with anyio.CancelScope(shield=True):
        await stream.aclose()
