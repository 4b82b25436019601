"""What the gateway decides about a request, and what it remembers; it neither reads nor writes a byte.

The gateway on a socket (`Gateway`) and the upstream without one (`gip_resilience.testing.ScriptedUpstream`) are two
ways to carry the same answers.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from typing import TYPE_CHECKING

from gip_resilience.gateway.answers import Answer, error_answer
from gip_resilience.gateway.api import Api, read
from gip_resilience.gateway.asked import Asked
from gip_resilience.gateway.http1 import BadRequest, Request
from gip_resilience.gateway.plan import FaultPlan, Playback
from gip_resilience.gateway.recording import Redactor, Seen, asked_to_wait, retry_count_of
from gip_resilience.gateway.wire import Outgoing, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gip_resilience.gateway.limits import RateLimit
    from gip_resilience.gateway.replies import Reply
    from gip_resilience.gateway.streaming import StreamOptions


class Service:
    """Plays a plan, asks the endpoints, and keeps the record.

    The decisions (`accept`, `decide`, `refuse`) belong to one thread, or to who holds a lock around them; what is
    read may be read from any thread.

    Args:
        plan: which request gets which fault.
        models: the models it knows; empty for any.
        api_keys: the keys it takes; `None` for any key and for none.
        seed: decides the wording of answers and what happens by chance.
        rate_limit: limit per key.
        latency: seconds before every answer.
        record_bodies: keep request bodies.
        streams: how streams look.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        plan: FaultPlan | None,
        *,
        models: Iterable[str],
        api_keys: Iterable[str] | None,
        seed: int,
        rate_limit: RateLimit | None,
        latency: float,
        record_bodies: bool,
        streams: StreamOptions | None,
        clock: Callable[[], float],
    ) -> None:
        self._redactor = Redactor(secrets.token_bytes(32))
        keys = None if api_keys is None else frozenset(map(self._redactor.digest, api_keys))
        self._api = Api(tuple(models), keys, rate_limit, seed, self._redactor, streams)
        self._seed = seed
        self._latency = latency
        self._record_bodies = record_bodies
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._open: set[int] = set()
        self._accepted = self._forgotten = 0
        self._started_at = clock()
        self._playing = _Playing(Playback(plan or FaultPlan(), seed), self._started_at)

    def start(self) -> None:
        """Time begins to count, and the plan to play."""
        self._started_at = self._clock()
        self.plan = self.plan

    @property
    def requests(self) -> list[Seen]:
        """The requests so far, in the order in which they were read."""
        with self._lock:
            return list(self._seen)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        with self._lock:
            return self._accepted - self._forgotten

    @property
    def open_connections(self) -> frozenset[int]:
        """The numbers of the connections that neither side has closed yet."""
        with self._lock:
            return frozenset(self._open)

    @property
    def plan(self) -> FaultPlan:
        """The plan that is played; a new one plays from its beginning."""
        return self._playing.playback.plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        """Play another one from its beginning; requests that were decided keep their replies."""
        # One assignment: who decides reads the attribute once per request.
        self._playing = _Playing(Playback(plan, self._seed), self._clock())

    def clear(self) -> None:
        """Forget the recorded requests and connections; the plan plays on."""
        with self._lock:
            self._seen.clear()
            self._forgotten = self._accepted

    def accept(self) -> tuple[int, Reply | None]:
        """Count a connection; returns its number and what it gets before it says anything."""
        with self._lock:
            self._accepted += 1
            number = self._accepted
            self._open.add(number)
        playing = self._playing
        return number, playing.playback.reply_to_connection(self._clock() - playing.since)

    def closed(self, connection: int) -> None:
        """The connection of that number is gone."""
        with self._lock:
            self._open.discard(connection)

    def decide(self, request: Request, connection: int) -> Outgoing:
        """Decide about *request*, and record it."""
        now = self._clock()
        asked = read(request)
        playing = self._playing
        reply = playing.playback.reply_to(request.path, request.method, asked.model, now - playing.since)
        outgoing = self._finished(resolve(reply, _Bound(self._api, request, asked, now)), request, now)
        self._record(request, asked, reply.kind, outgoing, connection, now)
        return outgoing

    def refuse(self, problem: BadRequest, connection: int) -> tuple[Outgoing, Request]:
        """Answer bytes that are no request, and record them as such."""
        nothing = Request("", "", 1, (("connection", "close"),))
        outgoing = Outgoing(error_answer("invalid_request", problem.reason, status=problem.status))
        self._record(nothing, Asked(), "malformed", outgoing, connection, self._clock())
        return outgoing, nothing

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

    def _record(
        self, request: Request, asked: Asked, reply: str, outgoing: Outgoing, connection: int, now: float
    ) -> None:
        at = now - self._started_at
        wait = asked_to_wait(outgoing.answer.headers) if outgoing.answer and outgoing.status else None
        seen = Seen(
            at=at,
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
            whole=outgoing.whole,
            not_before=None if wait is None else at + outgoing.delay + wait,
            body=request.body if self._record_bodies else None,
        )
        with self._lock:
            self._seen.append(seen)


class Front:
    """What a gateway may be asked, from any thread, however its answers travel."""

    _service: Service

    @property
    def requests(self) -> list[Seen]:
        """The requests so far, in the order in which they were read."""
        return self._service.requests

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._service.connections

    @property
    def open_connections(self) -> frozenset[int]:
        """The numbers of the connections that neither side has closed yet; see `Seen.connection`."""
        return self._service.open_connections

    @property
    def plan(self) -> FaultPlan:
        """The plan that is played; a new one may be put in at any time and plays from its beginning."""
        return self._service.plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        """See `Service.plan`."""
        self._service.plan = plan

    def clear(self) -> None:
        """Forget the recorded requests and connections; the plan plays on."""
        self._service.clear()


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
