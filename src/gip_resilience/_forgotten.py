"""Bodies of blocking clients that were begun and that nobody closed.

httpx reads a body by generators. One that the collector finds is closed by it, in whatever thread it is at work; and
closing takes the lock of the client's pool, which that very thread may hold: it would wait for itself. So those of
ours have a reference from here, out of the collector's reach, until they end; and when their response is gone, the
next call closes them.

Without us a generator hangs on what its caller iterates over, and is closed as soon as that is gone. With us it hangs
on the response, and responses of httpx lead back to themselves: only the collector finds them.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_begun: dict[int, Iterator[bytes]] = {}
"""By their id: not every iterator can be hashed."""

_forgotten: deque[tuple[Iterator[bytes], Callable[[], object]]] = deque()


def begin(body: Iterator[bytes]) -> None:
    """A body is about to be read: keep the collector from it."""
    _begun[id(body)] = body


def end(body: Iterator[bytes]) -> None:
    """It has ended, or was closed."""
    _begun.pop(id(body), None)


def forget(body: Iterator[bytes], close: Callable[[], object]) -> None:
    """Its response is gone; *close* is to be called later. May be called by a finaliser: it takes no lock."""
    _forgotten.append((body, close))


def close_forgotten() -> None:
    """Close what is left. Not to be called by a finaliser. Thread-safe."""
    while _forgotten:
        with suppress(
            Exception
        ):  # another thread was quicker, or the connection is broken: nobody is there to know
            body, close = _forgotten.popleft()
            end(body)
            close()
