"""The gateway on a socket: a thread with an event loop of its own, and one task per connection.

Everything that changes while the gateway runs (the playing of the plan, the limits, the recording) is touched
by the loop's thread alone, except where a lock says otherwise; the methods of `Gateway` may be called from
any thread. A connection performs the operations of `wire` and decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from typing import TYPE_CHECKING, Final, cast

from gip_resilience.gateway.answers import Answer, error_answer
from gip_resilience.gateway.api import Api, Asked, read
from gip_resilience.gateway.http1 import BadRequest, Request, RequestParser
from gip_resilience.gateway.plan import FaultPlan, Playback
from gip_resilience.gateway.recording import Redactor, Seen, retry_count_of
from gip_resilience.gateway.replies import Reset
from gip_resilience.gateway.wire import Finish, Operation, Outgoing, Pause, Write, operations, resolve

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from gip_resilience.gateway.limits import RateLimit
    from gip_resilience.gateway.replies import Reply

HOST: Final = "127.0.0.1"
"""The only address the gateway listens on: it takes any key by default and injects faults on purpose."""

MAX_CONNECTIONS: Final = 256
"""Open connections; more wait in the backlog until one ends."""

_BACKLOG: Final = 1024
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


class Gateway:
    """A local GIP gateway that fails on request.

    Use it as a context manager, or with `start` and `stop`. All methods may be called from any thread.

    Args:
        plan: which request gets which fault; by default none does.
        models: the models it knows; empty for any.
        api_keys: the keys it takes; `None` for any key and for none. Only digests of them are kept.
        seed: decides the wording of answers and what happens by chance.
        rate_limit: limit per key, announced in headers; `None` for none.
        latency: seconds before every answer.
        record_bodies: keep request bodies in `requests`.
        clock: monotonic seconds, for rate windows, the times of a plan and of the recording. Delays are real.
        port: TCP port; 0 lets the system choose.
    """

    def __init__(
        self,
        plan: FaultPlan | None = None,
        *,
        models: Iterable[str] = (),
        api_keys: Iterable[str] | None = None,
        seed: int = 0,
        rate_limit: RateLimit | None = None,
        latency: float = 0.0,
        record_bodies: bool = False,
        clock: Callable[[], float] = time.monotonic,
        port: int = 0,
    ) -> None:
        self._redactor = Redactor(secrets.token_bytes(32))
        keys = None if api_keys is None else frozenset(map(self._redactor.digest, api_keys))
        self._api = Api(tuple(models), keys, rate_limit, seed, self._redactor)
        self._seed = seed
        self._latency = latency
        self._record_bodies = record_bodies
        self._clock = clock
        self._wanted_port = port
        self._port: int | None = None
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._accepted = 0
        self._started_at = clock()
        self._playing = _Playing(Playback(plan or FaultPlan(), seed), self._started_at)
        self._runner: _Runner | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = repr(self.url) if self._port is not None else "stopped"
        return f"<Gateway {where}, {len(self.requests)} requests on {self.connections} connections>"

    def start(self) -> None:
        """Listen and serve in a thread of its own; returns when connections are taken.

        Raises:
            RuntimeError: it runs already.
            OSError: the port cannot be had.
        """
        if self._runner is not None:
            raise RuntimeError("the gateway runs already")
        listener = socket.create_server((HOST, self._wanted_port), backlog=_BACKLOG)
        listener.setblocking(False)
        self._port = cast("int", listener.getsockname()[1])
        self._started_at = self._clock()
        self.plan = self.plan
        self._runner = _Runner(self, listener)
        self._runner.start()

    def stop(self) -> None:
        """Close every connection and end the thread; does nothing when it does not run."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self._port = None
            runner.stop()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``.

        Raises:
            RuntimeError: the gateway does not run.
        """
        if self._port is None:
            raise RuntimeError("the gateway does not run")
        return f"http://{HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """The base URL for OpenAI-shaped clients: `url` and ``/v1``."""
        return self.url + "/v1"

    @property
    def requests(self) -> list[Seen]:
        """The requests so far, in the order in which they were read."""
        with self._lock:
            return list(self._seen)

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        with self._lock:
            return self._accepted

    @property
    def plan(self) -> FaultPlan:
        """The plan that is played; a new one may be put in at any time and plays from its beginning."""
        return self._playing.playback.plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        # One assignment: the loop's thread reads the attribute once per request.
        self._playing = _Playing(Playback(plan, self._seed), self._clock())

    def clear(self) -> None:
        """Forget the recorded requests and connections; the plan plays on."""
        with self._lock:
            self._seen.clear()
            self._accepted = 0

    # What follows is called by the loop's thread.

    def _accept(self) -> tuple[int, Reply | None]:
        """Count a connection; returns its number and what it gets before it says anything."""
        with self._lock:
            self._accepted += 1
            number = self._accepted
        playing = self._playing
        return number, playing.playback.reply_to_connection(self._clock() - playing.since)

    def _answer(self, request: Request, connection: int) -> Iterator[Operation]:
        """Decide about *request*, record it, and tell what to do."""
        now = self._clock()
        asked = read(request)
        playing = self._playing
        reply = playing.playback.reply_to(request.path, request.method, asked.model, now - playing.since)
        outgoing = self._finished(resolve(reply, _Bound(self._api, request, asked, now)), request, now)
        self._record(request, asked, reply.kind, outgoing, connection, now)
        return operations(outgoing, request)

    def _finished(self, outgoing: Outgoing, request: Request, now: float) -> Outgoing:
        """*outgoing* after the latency, and with the headers every answer of the gateway has."""
        answer = outgoing.answer
        if answer is not None:
            headers = [("date", formatdate(usegmt=True))]
            if not answer.foreign:
                quota = self._api.quota(request, now)
                headers += [
                    ("server", "gip-gateway"),
                    ("x-request-id", f"req_{secrets.token_hex(8)}"),
                    *(quota.headers() if quota is not None else ()),
                ]
            answer = answer.with_defaults(headers)
        return Outgoing(answer, outgoing.delay + self._latency, outgoing.pace, outgoing.cut, outgoing.raw)

    def _refuse(self, problem: BadRequest, connection: int) -> Iterator[Operation]:
        """Answer bytes that are no request, and record them as such."""
        nothing = Request("", "", 1, (("connection", "close"),))
        outgoing = Outgoing(error_answer("invalid_request", problem.reason, status=problem.status))
        self._record(nothing, Asked(), "malformed", outgoing, connection, self._clock())
        return operations(outgoing, nothing)

    def _record(
        self, request: Request, asked: Asked, reply: str, outgoing: Outgoing, connection: int, now: float
    ) -> None:
        seen = Seen(
            at=now - self._started_at,
            method=request.method,
            path=request.path,
            headers=self._redactor.headers(request),
            body_size=len(request.body),
            body_sha256=sha256(request.body).hexdigest(),
            model=asked.model,
            stream=asked.stream,
            connection=connection,
            retry_count=retry_count_of(request),
            reply=reply,
            status=outgoing.status,
            code=outgoing.code,
            body=request.body if self._record_bodies else None,
        )
        with self._lock:
            self._seen.append(seen)


@dataclass(frozen=True, slots=True)
class _Playing:
    """A playing of a plan and when it began."""

    playback: Playback
    since: float


@dataclass(frozen=True, slots=True)
class _Bound:
    """The API, bound to one request: what `resolve` asks when a reply wants the real answer."""

    api: Api
    request: Request
    asked: Asked
    now: float

    def respond(self) -> Answer:
        return self.api.respond(self.request, self.asked, self.now)

    def rate_limited(self, retry_after: float | str | None) -> Answer:
        return self.api.rate_limited(self.request, self.now, retry_after)


class _Runner:
    """The thread, its loop, and the connections in it."""

    def __init__(self, gateway: Gateway, listener: socket.socket) -> None:
        self.gateway = gateway
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="gip-gateway", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        # A dict for its order: the connection that was opened first is the first to be given up.
        self._connections: dict[_Connection, None] = {}
        self._accepting = False

    def start(self) -> None:
        # The listener is bound already: who connects before the thread is up waits in the backlog.
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def opened(self, connection: _Connection) -> None:
        self._connections[connection] = None

    def ended(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)
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
        number, reply = self.gateway._accept()  # noqa: SLF001 - one object, seen from its other thread
        if reply is not None:
            if isinstance(reply, Reset):
                _reset_on_close(client)
            client.close()
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


class _Connection(asyncio.Protocol):
    """One TCP connection: reads requests, performs operations, one request after the other."""

    task: asyncio.Task[None]

    def __init__(self, runner: _Runner, number: int) -> None:
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._runner = runner
        self._number = number
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
        gateway = self._runner.gateway
        try:
            request = await self._next_request()
        except BadRequest as problem:
            return await self._perform(gateway._refuse(problem, self._number))  # noqa: SLF001
        if request is None:
            return False
        self._busy = True
        goes_on = await self._perform(gateway._answer(request, self._number))  # noqa: SLF001
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
                case Finish(how):
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


def serve(
    host_port: str = f"{HOST}:0",
    plan: FaultPlan | None = None,
    *,
    models: Iterable[str] = (),
    api_keys: Iterable[str] | None = None,
    seed: int = 0,
    rate_limit: RateLimit | None = None,
    latency: float = 0.0,
) -> None:
    """Run a gateway in the foreground: print its URL, then serve until interrupted from the keyboard.

    Args:
        host_port: ``"127.0.0.1:8080"``, ``"localhost:8080"``, ``":8080"`` or ``"8080"``.
        plan: as for `Gateway`, like the other arguments.
        models: the models it knows.
        api_keys: the keys it takes.
        seed: decides the wording of answers and what happens by chance.
        rate_limit: limit per key.
        latency: seconds before every answer.

    Raises:
        ValueError: *host_port* is not an address of this machine alone.
        OSError: the port cannot be had.
    """
    gateway = Gateway(
        plan,
        models=models,
        api_keys=api_keys,
        seed=seed,
        rate_limit=rate_limit,
        latency=latency,
        port=_port_of(host_port),
    )
    with gateway, suppress(KeyboardInterrupt):
        print(gateway.url, flush=True)
        threading.Event().wait()


def _port_of(host_port: str) -> int:
    host, _, port = host_port.rpartition(":")
    if host not in ("", HOST, "localhost"):
        raise ValueError(f"the gateway listens on {HOST} only")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError("a port is a number from 0 to 65535")
    return int(port)
