"""Reading what is left of a body after a stream ended at its marker, so that the connection can be used again.

It is a chunk's terminator as a rule, and there already or a few milliseconds late. But a peer that is slow or hostile
decides how long one read of the client's takes: a client's timeout counts from byte to byte, and one byte at a time
inside a chunk's header keeps it reading. So the limit comes from outside: a cancellation, or for those who block, a
timer in a thread of its own that shuts the socket down.

That thread costs 80 µs on a machine that is idle, and there is no safe way around it. Looking at what the socket has
does not tell whether a read will block, since the client's parser may hold the beginning of a chunk's header already.

For HTTP/1 only. Over HTTP/2 the socket belongs to other streams as well.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DRAIN_TIME = 0.1
"""Seconds a drain may take: less than what it spares, a connection and its handshakes, costs over a long line."""

DRAIN_BYTES = 64 * 1024
"""Bytes a drain may read. A terminator has 5; whoever sends this much has not come to the end."""


def drain(
    pull: Callable[[], bytes | None],
    sock: socket.socket | None,
    seconds: float = DRAIN_TIME,
    limit: int = DRAIN_BYTES,
) -> bool:
    """Read a body to its end, within limits.

    After ``False`` the connection is not fit for another request and is to be closed.

    Args:
        pull: gives the next bytes of the body, ``None`` at its end. What it raises ends the drain; but only an
            ``Exception`` is swallowed. It must not give the connection back to a pool, that is for the caller to do
            afterwards: in a pool it could be somebody else's when the time is up.
        sock: the connection's socket. Without one, or with something that only behaves like one, nobody could end a
            read: nothing is pulled.
        seconds: time limit.
        limit: bytes that may come, at most.

    Returns:
        Whether the end came in time. The socket is then as it was, and stays so.

    Thread-safe.
    """
    if not isinstance(sock, socket.socket):
        return False
    late = threading.Event()
    timer = threading.Timer(seconds, _shut, (sock, late))
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # too many threads, or the interpreter is shutting down
        return False
    ended = False
    try:
        while not late.is_set() and limit >= 0:
            data = pull()
            if data is None:
                ended = True
                break
            limit -= len(data)
    except Exception:  # noqa: S110 - any client's, for any reason: the end did not come
        pass
    finally:
        timer.cancel()
        timer.join()  # from here on it has fired, or never will
    return ended and not late.is_set()


def _shut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    # The base class's: an SSLSocket's own forgets its TLS state, under a thread that is reading. Both ways, because a
    # socket shut for reading alone still hands over what arrives later (Linux).
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


async def adrain(
    pull: Callable[[], Awaitable[bytes | None]], seconds: float = DRAIN_TIME, limit: int = DRAIN_BYTES
) -> bool:
    """The same for those who await, under asyncio or trio. A read is cancelled at the time limit.

    See `drain`. A cancellation from outside goes through.
    """
    import anyio  # there whenever httpx or httpx2 is

    with suppress(Exception), anyio.move_on_after(seconds) as scope:
        while limit >= 0:
            data = await pull()
            if data is None:
                return True
            limit -= len(data)
            if anyio.current_time() >= scope.deadline:  # a pull that never has to wait is not cancelled
                break
    return False
