"""A gateway without a socket: it plays a `FaultPlan` inside the client, and time passes only as its clock says.

What it answers and what it records are those of `gip_resilience.gateway.Gateway`. How the answer gets to the client
is made by hand: an `Exchange` is what each of the three libraries is given in its own words.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from gip_resilience.gateway.answers import Parts, half
from gip_resilience.gateway.plan import FaultPlan, PlanError
from gip_resilience.gateway.replies import Raw, Reset
from gip_resilience.gateway.service import Front, Service
from gip_resilience.gateway.wire import (
    LONGEST_TRICKLE,
    Cut,
    cut_up,
    half_head,
    head_bytes,
    head_of,
    is_bodiless,
)
from gip_resilience.testing.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gip_resilience.gateway import RateLimit, StreamOptions
    from gip_resilience.gateway.http1 import Headers, Request
    from gip_resilience.gateway.replies import Reply
    from gip_resilience.gateway.wire import Outgoing
    from gip_resilience.testing._over_httpx import HttpxTransport
    from gip_resilience.testing._over_httpx2 import Httpx2Transport
    from gip_resilience.testing._over_requests import RequestsAdapter

Kind: TypeAlias = Literal["refused", "reset", "closed", "half_head", "malformed", "timeout"]

HOST: Final = "upstream.invalid"
"""A name that no resolver knows (RFC 2606), should a client that was not given the upstream look for it."""


class Broken(Exception):  # noqa: N818 - never seen by a caller: each library raises its own
    """The exchange breaks here.

    Attributes:
        kind: the way it does.
        head: of a head that broke off, what came of it.
    """

    def __init__(self, kind: Kind, head: bytes = b"") -> None:
        super().__init__(kind)
        self.kind = kind
        self.head = head


class ScriptedUpstream(Front):
    """An upstream for tests without sockets: give a client one of its transports.

    Args:
        plan: which request gets which fault: a `FaultPlan`, or replies to give one after the other. By default all is
            well. `Raw` bytes need a real connection, so they need a `Gateway`.
        models: the models it knows; empty for any.
        api_keys: the keys it takes; `None` for any key and for none.
        seed: decides the wording of answers and what happens by chance.
        rate_limit: limit per key.
        latency: seconds before every answer.
        record_bodies: keep request bodies in `requests`.
        streams: how streams look.
        clock: time passes on it when an answer is slow, and the read timeout of the client is told by it. Give the
            same to ``Resilience(clock=...)``; by default one of its own (`clock`).

    Its `connections` are those that a client with a pool would have needed; one is open while its answer was neither
    read to its end nor closed, and while it waits in the pool.

    Raises:
        PlanError: the plan has `Raw` bytes in it.

    Thread-safe and task-safe; bound to no event loop.
    """

    def __init__(
        self,
        plan: FaultPlan | Iterable[Reply] = (),
        *,
        models: Iterable[str] = (),
        api_keys: Iterable[str] | None = None,
        seed: int = 0,
        rate_limit: RateLimit | None = None,
        latency: float = 0.0,
        record_bodies: bool = False,
        streams: StreamOptions | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = FakeClock() if clock is None else clock
        self._service = Service(
            _checked(plan),
            models=models,
            api_keys=api_keys,
            seed=seed,
            rate_limit=rate_limit,
            latency=latency,
            record_bodies=record_bodies,
            streams=streams,
            clock=self.clock.monotonic,
        )
        self._lock = threading.Lock()
        self._idle: list[int] = []

    def __repr__(self) -> str:
        return f"<ScriptedUpstream {len(self.requests)} requests on {self.connections} connections>"

    url: Final = f"http://{HOST}"
    """Where it is, for the client that was given it; any other address will do as well."""

    base_url: Final = f"{url}/v1"
    """The base URL for OpenAI-shaped clients."""

    def httpx_transport(self) -> HttpxTransport:
        """A transport for ``httpx.Client`` and ``httpx.AsyncClient``."""
        from gip_resilience.testing._over_httpx import HttpxTransport

        return HttpxTransport(self)

    def httpx2_transport(self) -> Httpx2Transport:
        """A transport for ``httpx2.Client`` and ``httpx2.AsyncClient``."""
        from gip_resilience.testing._over_httpx2 import Httpx2Transport

        return Httpx2Transport(self)

    def requests_adapter(self) -> RequestsAdapter:
        """An adapter for ``requests.Session.mount``."""
        from gip_resilience.testing._over_requests import RequestsAdapter

        return RequestsAdapter(self)

    @property
    def plan(self) -> FaultPlan:
        """The plan that is played; a new one, or replies in order, may be put in at any time."""
        return self._service.plan

    @plan.setter
    def plan(self, plan: FaultPlan | Iterable[Reply]) -> None:
        """Play another one from its beginning."""
        self._service.plan = _checked(plan)

    def close(self) -> None:
        """Close what waits in the pool; for the transports."""
        with self._lock:
            while self._idle:
                self._service.closed(self._idle.pop())

    def exchange(self, request: Request, timeout: float | None) -> Exchange:
        """Answer *request*; for the transports.

        Args:
            request: as the gateway would have read it.
            timeout: seconds the client waits for a byte; `None` for ever.

        Raises:
            Broken: there is no answer.
        """
        with self._lock:
            number, at_accept = (self._idle.pop(), None) if self._idle else self._service.accept()
            if at_accept is not None:
                self._service.closed(number)
                raise Broken("refused" if isinstance(at_accept, Reset) else "closed")
            outgoing = self._service.decide(request, number)
        return Exchange(self, number, outgoing, request, timeout)

    def give_back(self, number: int, *, usable: bool) -> None:
        """A connection is not needed any more; for `Exchange`."""
        with self._lock:
            if usable:
                self._idle.append(number)
            else:
                self._service.closed(number)


class Exchange:
    """One answer on its way: its head, then its pieces, then its end or its break.

    Args:
        upstream: where it comes from.
        number: of the connection.
        outgoing: what is sent.
        request: what it answers.
        timeout: seconds the client waits for a byte.

    Attributes:
        status: HTTP status.
        headers: pairs.

    Raises:
        Broken: there is no head.
    """

    def __init__(
        self,
        upstream: ScriptedUpstream,
        number: int,
        outgoing: Outgoing,
        request: Request,
        timeout: float | None,
    ) -> None:
        self._upstream = upstream
        self._number: int | None = number
        self._timeout = timeout
        self._cut = outgoing.cut or Cut("end", None)
        self._pace = outgoing.pace or (0, 0.0)
        answer = outgoing.answer
        try:
            self._wait(outgoing.delay)
            if outgoing.raw:
                raise Broken("malformed")
            if answer is None or self._cut.where == "start":
                raise self._break()
            self.status = answer.status
            self.headers: Headers
            self._framing, self.headers = head_of(answer, request)
            if self._cut.where == "head":
                broken = self._break()
                if broken.kind == "closed":
                    broken = Broken("half_head", half_head(head_bytes(self.status, self.headers)))
                raise broken
        except Broken:
            self.close()
            raise
        self._body = b"" if is_bodiless(answer, request) or self._cut.where == "headers" else answer.body

    def pieces(self) -> Iterator[bytes]:
        """The body, as it arrives.

        Raises:
            Broken: it breaks off.
        """
        try:
            yield from self._pieces()
            self._end(usable=self._framing != "close")
        finally:
            self.close()

    def close(self) -> None:
        """The client has done with it. Idempotent."""
        self._end(usable=False)

    def _pieces(self) -> Iterator[bytes]:
        cut = self._cut
        body = half(self._body) if cut.where == "body" else self._body
        size, interval = self._pace
        pieces = body.pieces if isinstance(body, Parts) else (body,)
        for place, piece in enumerate(cut_up(pieces, size) if size else pieces):
            if place:
                self._wait(interval)
            if piece:
                yield piece
        self._wait(cut.late)
        if cut.trickle:
            self._upstream.clock.advance(LONGEST_TRICKLE)  # each byte of it comes in time
        if cut.rubbish:
            raise Broken("malformed")
        if cut.how is not None and not (cut.how == "fin" and self._framing == "close"):
            raise self._break()

    def _break(self) -> Broken:
        match self._cut.how:
            case "rst":
                return Broken("reset")
            case "stall":
                return self._stalled()
            case _:
                return Broken("closed")

    def _wait(self, seconds: float) -> None:
        if self._timeout is not None and seconds > self._timeout:
            raise self._stalled()
        self._upstream.clock.advance(seconds)

    def _stalled(self) -> Broken:
        if self._timeout is None:
            self.close()
            raise RuntimeError("the upstream stalls, and a client without a read timeout would wait for ever")
        self._upstream.clock.advance(self._timeout)
        return Broken("timeout")

    def _end(self, *, usable: bool) -> None:
        number, self._number = self._number, None
        if number is not None:
            self._upstream.give_back(number, usable=usable)


def _checked(plan: FaultPlan | Iterable[Reply]) -> FaultPlan:
    plan = plan if isinstance(plan, FaultPlan) else FaultPlan.script(plan)
    for place, rule in enumerate(plan.rules):
        reply: Reply | None = rule.reply
        while reply is not None:
            if isinstance(reply, Raw):
                problem = "expected an answer, got raw bytes: they need a Gateway"
                raise PlanError(f"rules[{place}].reply", problem)
            reply = getattr(reply, "then", None)
    return plan
