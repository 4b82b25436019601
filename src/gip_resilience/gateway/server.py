"""The gateway: what it decides about a request, and how it is started and asked.

Everything that changes while the gateway runs (the playing of the plan, the limits, the recording) is touched
by the loop's thread alone, except where a lock says otherwise; the methods of `Gateway` may be called from
any thread.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from typing import TYPE_CHECKING, Final, cast

from gip_resilience.gateway.answers import Answer, error_answer
from gip_resilience.gateway.api import Api, read
from gip_resilience.gateway.asked import Asked
from gip_resilience.gateway.connections import Decisions, Runner
from gip_resilience.gateway.http1 import BadRequest, Request
from gip_resilience.gateway.plan import FaultPlan, Playback
from gip_resilience.gateway.recording import Redactor, Seen, retry_count_of
from gip_resilience.gateway.wire import Operation, Outgoing, operations, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from gip_resilience.gateway.limits import RateLimit
    from gip_resilience.gateway.replies import Reply
    from gip_resilience.gateway.streaming import StreamOptions

HOST: Final = "127.0.0.1"
"""The only address the gateway listens on: it takes any key by default and injects faults on purpose."""

_BACKLOG: Final = 1024
"""Connections the system holds for us while all of ours are taken."""


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
        streams: how streams look: sampled, cut anew, with ids, with comments; by default none of it.
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
        streams: StreamOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        port: int = 0,
    ) -> None:
        self._redactor = Redactor(secrets.token_bytes(32))
        keys = None if api_keys is None else frozenset(map(self._redactor.digest, api_keys))
        self._api = Api(tuple(models), keys, rate_limit, seed, self._redactor, streams)
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
        self._runner: Runner | None = None

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
        self._runner = Runner(Decisions(self._accept, self._answer, self._refuse), listener)
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
