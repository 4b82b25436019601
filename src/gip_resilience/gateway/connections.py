"""Connections: a thread with an event loop of its own, and one task per connection.

A connection performs the operations of `wire` and decides nothing; who decides is told by `Decisions`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from gip_resilience.gateway.http1 import BadRequest, Request, RequestParser
from gip_resilience.gateway.replies import Reset
from gip_resilience.gateway.wire import Finish, Operation, Pause, Write

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import Callable, Iterator

    from gip_resilience.gateway.replies import Reply

MAX_CONNECTIONS: Final = 256
"""Open connections; more wait in the backlog until one ends."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# Bytes of further requests a client may send ahead before the gateway stops reading.
_READ_AHEAD: Final = 256 * 1024

# How long, in seconds, a closing connection waits for the client to have read what was sent. Closing a socket
# with unread input resets it, and a reset can overtake the answer.
_LINGER: Final = 0.5

# How long, in seconds, a connection must have waited for its next request to be given up for a new one. A
# client that is about to use its connection must not lose it.
_IDLE: Final = 1.0

# How long, in seconds, a reset waits for a slow reader to take the bytes that come before it.
_LAST_BYTES: Final = 5.0

_SIOCOUTQNSD: Final = 0x894B  # linux/sockios.h

# How long, in seconds, nothing is accepted after the system refused a connection.
_OUT_OF_FILES_PAUSE: Final = 0.05

_RESET: Final = struct.pack("ii", 1, 0)

_logger = logging.getLogger("gip_resilience.gateway")


class Decisions(NamedTuple):
    """Who decides what a connection does. All are called by the loop's thread alone.

    Attributes:
        accept: counts a connection; gives its number and what it gets before it says anything.
        answer: what to do about a request, by the number of its connection.
        refuse: what to do about bytes that are no request.
        closed: takes note that the connection of that number is gone.
    """

    accept: Callable[[], tuple[int, Reply | None]]
    answer: Callable[[Request, int], Iterator[Operation]]
    refuse: Callable[[BadRequest, int], Iterator[Operation]]
    closed: Callable[[int], None]


class Runner:
    """The thread, its loop, and the connections in it."""

    def __init__(self, decisions: Decisions, listener: socket.socket) -> None:
        self.decisions = decisions
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="gip-gateway", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        # A dict for its order: the connection that was opened first is the first to be given up.
        self._connections: dict[_Connection, None] = {}
        self._accepting = False

    def start(self) -> None:
        """Begin to serve."""
        # The listener is bound already: who connects before the thread is up waits in the backlog.
        self._thread.start()

    def stop(self) -> None:
        """End all connections and the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def opened(self, connection: _Connection) -> None:
        """A connection is there."""
        self._connections[connection] = None

    def ended(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._connections.pop(connection, None)
        self.decisions.closed(connection.number)
        self.room_made()

    def room_made(self) -> None:
        """Who waits in the backlog may be let in, or take the place of an idle connection."""
        if not self._accepting and not self._stopping.is_set():
            self._accepting = True
            self._loop.add_reader(self._listener, self._accept)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()
            self._listener.close()

    async def _main(self) -> None:
        self.room_made()
        await self._stopping.wait()
        self._pause_accepting()
        await asyncio.gather(*self._opening, return_exceptions=True)
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.task for connection in connections), return_exceptions=True)
        await asyncio.gather(*(connection.closed.wait() for connection in connections))

    def _pause_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        if len(self._connections) + len(self._opening) >= MAX_CONNECTIONS:
            self._pause_accepting()
            idle = next((connection for connection in self._connections if connection.idle), None)
            if idle is not None:
                idle.abort()
            else:
                self._loop.call_later(_IDLE, self.room_made)
            return
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of file descriptors, or the client was gone already: neither must end the gateway.
            self._pause_accepting()
            self._loop.call_later(_OUT_OF_FILES_PAUSE, self.room_made)
            return
        number, reply = self.decisions.accept()
        if reply is not None:
            if isinstance(reply, Reset):
                _reset_on_close(client)
            client.close()
            self.decisions.closed(number)
            return
        opening = self._loop.create_task(self._open(client, number))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket, number: int) -> None:
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(lambda: _Connection(self, number), client)
        except OSError:  # the client was gone before it was let in
            client.close()
            self.decisions.closed(number)


class _Connection(asyncio.Protocol):
    """One TCP connection: reads requests, performs operations, one request after the other."""

    task: asyncio.Task[None]

    def __init__(self, runner: Runner, number: int) -> None:
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._runner = runner
        self.number = number
        self._parser = RequestParser()
        self._received = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._client_done = False
        self._listening = True
        self._busy = False
        self._reading = True
        self._idle_since: float | None = None

    @property
    def idle(self) -> bool:
        """Whether the connection has been between two requests for a while."""
        if self._busy or self._parser.buffered or self._idle_since is None:
            return False
        return self._loop.time() - self._idle_since >= _IDLE

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # No buffer of our own: when a write has been awaited, its bytes are in the kernel.
        self._transport.set_write_buffer_limits(0)
        self._runner.opened(self)
        self.task = self._loop.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if not self._listening:
            return
        self._parser.feed(data)
        if self._busy and self._parser.buffered > _READ_AHEAD:
            self._reading = False
            self._transport.pause_reading()
        self._received.set()

    def eof_received(self) -> bool:
        self._client_done = True
        self._received.set()
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._client_done = True
        self.closed.set()
        self._received.set()
        self._writable.set()
        self._runner.ended(self)

    def abort(self) -> None:
        """Drop the connection and end its task."""
        self._transport.abort()
        self.task.cancel()

    # The one task of the connection

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except Exception:
            # A defect of the gateway must show, and must not end the thread or leave the client hanging.
            _logger.exception("the gateway failed on a request")
        finally:
            self._transport.close()

    async def _exchange(self) -> bool:
        """Serve one request; whether the connection goes on."""
        decisions = self._runner.decisions
        try:
            request = await self._next_request()
        except BadRequest as problem:
            return await self._perform(decisions.refuse(problem, self.number))
        if request is None:
            return False
        self._busy = True
        goes_on = await self._perform(decisions.answer(request, self.number))
        self._busy = False
        self._idle_since = self._loop.time()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        return goes_on

    async def _next_request(self) -> Request | None:
        while not self.closed.is_set():
            request = self._parser.poll()
            if request is not None:
                return request
            if self._parser.take_continue():
                self._transport.write(_CONTINUE)
            if self._client_done:
                return None
            self._received.clear()
            await self._received.wait()
        return None

    async def _perform(self, steps: Iterator[Operation]) -> bool:
        for step in steps:
            if self._transport.is_closing():
                return False
            match step:
                case Write(data):
                    self._transport.write(data)
                    await self._writable.wait()
                    # An event that is set does not suspend: without this a long body would stop all others.
                    await asyncio.sleep(0)
                case Pause(seconds):
                    await self._pause(seconds)
                case Finish(how):  # pragma: no branch - there is no other
                    await self._finish(how)
                    return False
        return True

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for a client that is gone."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.closed.wait(), seconds)

    async def _finish(self, how: str) -> None:
        self._listening = False
        if how == "stall":
            await self._client_leaves()
        elif how == "rst":
            client = self._transport.get_extra_info("socket")
            await self._all_sent(client)
            _reset_on_close(client)
            self._transport.abort()
        else:
            with suppress(OSError):  # the client was faster
                self._transport.write_eof()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._client_leaves(), _LINGER)

    async def _all_sent(self, client: TransportSocket) -> None:
        """Wait until the kernel has sent what it took: a reset throws the rest away."""
        deadline = self._loop.time() + _LAST_BYTES
        # The kernel tells nobody when it is done, so this has to ask.
        while _unsent(client.fileno()) and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def _client_leaves(self) -> None:
        while not self._client_done:
            self._received.clear()
            await self._received.wait()


def _unsent(descriptor: int) -> int:
    """Bytes in the kernel that were never put on the wire; 0 where the system does not tell.

    `SIOCOUTQ` would count bytes without an acknowledgement too, which may be delayed by 40 ms.
    """
    if sys.platform != "linux" or descriptor < 0:
        return 0
    import fcntl

    with suppress(OSError):
        return int.from_bytes(fcntl.ioctl(descriptor, _SIOCOUTQNSD, bytes(4)), sys.byteorder)
    return 0


def _reset_on_close(client: socket.socket | TransportSocket) -> None:
    """Make `close` send RST: that is what a linger time of zero means (socket(7), SO_LINGER)."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
