"""Bodies of blocking clients that nobody closed: the collector leaves them to the next call.

To close one takes a lock of the client's pool, and the collector may be at work in a thread that holds it: it would
wait for itself. So a finaliser of ours only says what is to be closed (`forget`), and the next call does it.

httpx reads a body by generators, and those the collector closes by itself where it finds them. Without us a generator
hangs on what its caller iterates over, and ends as soon as that is gone; with us it hangs on the response, and
responses of httpx lead back to themselves, so that only the collector finds it. Hence one that was begun has a
reference from here, out of its reach, until it ends.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_begun: dict[int, Iterator[bytes]] = {}
"""By their id: not every iterator can be hashed."""

forgotten: deque[Callable[[], object]] = deque()
"""What is to be closed; for a look whether there is anything."""


def begin(body: Iterator[bytes]) -> None:
    """A body is about to be read: keep the collector from it."""
    _begun[id(body)] = body


def end(body: Iterator[bytes]) -> None:
    """It has ended, or was closed."""
    _begun.pop(id(body), None)


def forget(close: Callable[[], object]) -> None:
    """Nobody closed a body, and now nobody can: *close* is called later. It takes no lock itself."""
    forgotten.append(close)


def close_forgotten() -> None:
    """Close what is left. Not to be called by a finaliser. Thread-safe."""
    while forgotten:
        with suppress(
            Exception
        ):  # another thread was quicker, or the connection is broken: nobody is there to know
            forgotten.popleft()()
