"""What a call holds, and the record of what it did. What it does is decided in `gip_resilience.engine`."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from gip_resilience._report import Attempt, CallReport
from gip_resilience.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallGaveUp,
    CallStarted,
    MarkerSupplied,
    StreamBroken,
    StreamContinued,
    StreamDiverged,
    StreamOpened,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from gip_resilience._announcer import Announcer
    from gip_resilience._report import Hop
    from gip_resilience.config import Config
    from gip_resilience.events import Event, Trace
    from gip_resilience.gate import Held, Place
    from gip_resilience.hints import Hint
    from gip_resilience.metrics import Metrics
    from gip_resilience.state import News, Pending, Permit, Refused, ScopeKey, Store
    from gip_resilience.taxonomy import Fact

SHORTEST_TIMEOUT = 0.001
"""Seconds; the clients take 0 or less for an error of the caller's (``ValueError``), not for a timeout."""


_numbers = count(1)
"""Numbers of calls; drawing one is a single step for the interpreter, so it needs no lock."""

_NO_HEADERS: Mapping[str, str] = {}


class Surroundings(NamedTuple):
    """What a call needs of the world.

    Attributes:
        store: shared state.
        monotonic: reads a clock that never goes back, in seconds.
        chance: random numbers in [0, 1).
        metrics: counters.
        announcer: tells observers.
        drop: takes note of a call whose answer was collected unread; may be called from within the collector.
    """

    store: Store
    monotonic: Callable[[], float]
    chance: Callable[[], float]
    metrics: Metrics
    announcer: Announcer
    drop: Callable[[Record], object] = id


class Record:
    """What a call holds, and what it did.

    Args:
        world: store, clock, chance, observers.
        config: the policy in force, overrides applied.
        key: whom it is for.
        sdk: the request comes from an SDK that retries by itself and says so.
        single: that SDK is already retrying, so this call gets one attempt.
        asked: says method and URL of the request; asked only where somebody follows the everyday.

    Attributes:
        number: unique in this process.
        carried: headers that the attempt under way carries besides the caller's.

    Belongs to one thread or task at a time, as the call does.
    """

    __slots__ = (
        "_allowance",
        "_attempts",
        "_deadline",
        "_delays",
        "_failures",
        "_flowed",
        "_gave_up",
        "_hinted",
        "_hops",
        "_opened",
        "_opened_at",
        "_paused",
        "_permit",
        "_place",
        "_proposed",
        "_reason",
        "_sent_at",
        "_spared",
        "_trace",
        "_turned_away",
        "_waited",
        "carried",
        "config",
        "ended",
        "fact",
        "key",
        "number",
        "outcome",
        "replayable",
        "sdk",
        "single",
        "started",
        "streaming",
        "world",
    )

    def __init__(
        self,
        world: Surroundings,
        config: Config,
        key: ScopeKey,
        *,
        sdk: bool = False,
        single: bool = False,
        asked: Callable[[], tuple[str, str]] | None = None,
    ) -> None:
        self.world = world
        self.config = config
        self.key = key
        self.sdk = sdk
        self.single = single
        self.number = next(_numbers)
        self.carried = _NO_HEADERS
        self.replayable = True
        self.streaming = False
        self.outcome = "pending"
        self.fact: Fact | None = None
        self.started = self.ended = self._sent_at = world.monotonic()
        self._deadline = None if config.deadline is None else self.started + config.deadline
        self._permit: Permit | None = None
        self._place: Place | None = None
        self._turned_away: Held | Refused | Pending | None = None
        self._attempts: list[Attempt] | None = None
        self._delays: dict[str, Iterator[float]] = {}
        self._failures: dict[str, int] = {}
        self._allowance = 0
        self._reason = ""
        self._paused = 0.0
        self._waited = 0.0
        self._hinted = False
        self._spared = False
        self._hops: list[Hop] | None = None
        self._proposed: Hop | None = None
        self._opened: Fact | None = None
        self._opened_at = 0.0
        self._flowed = 0.0
        self._gave_up = False
        self._trace: Trace | None = None
        if world.announcer.starts:
            self._begin(*(("", "") if asked is None else asked()))

    def _begin(self, method: str, url: str) -> None:
        """Tell those who follow every call that this one starts."""
        key, announcer = self.key, self.world.announcer
        started = CallStarted(self.number, key.host, key.model, key.part, method, url)
        announcer.tell(started)
        tracer = announcer.tracer
        if tracer is not None:
            try:
                self._trace = tracer.trace(started)
            except Exception as error:
                announcer.failed(tracer, error)

    def tell(self, event: Event) -> None:
        """Something happened: count it, and tell everybody who wants to know."""
        self.world.metrics.count(event)
        self.follow(event)

    def follow(self, event: Event) -> None:
        """Tell everybody who wants to know of what is counted already."""
        self.world.announcer.tell(event)
        if self._trace is not None:
            try:
                self._trace.tell(event)
            except Exception as error:
                self.world.announcer.failed(self.world.announcer.tracer, error)

    def tell_all(self, news: tuple[News, ...]) -> None:
        """What the store noticed."""
        for event in news:
            self.tell(event)

    def sending(self, layer: AbstractContextManager[object]) -> AbstractContextManager[object]:
        """What surrounds the sending of an attempt, up to its answer; `carried` holds within it.

        Args:
            layer: what the layers beneath know the call by; entered first, and left last.
        """
        trace = self._trace
        return layer if trace is None or not trace.surrounds else _Sending(self, trace, layer)

    def timeout(self) -> float | None:
        """Seconds left until the deadline, for the next attempt; ``None`` without a deadline."""
        if self._deadline is None:
            return None
        return max(SHORTEST_TIMEOUT, self._deadline - self.world.monotonic())

    def close(self) -> None:
        """Give back what the call still holds. Called whatever happens; does nothing after a normal end.

        A call whose stream was handed up goes on until that stream ends.
        """
        if self.streaming:
            return
        permit, self._permit = self._permit, None
        if permit is not None:
            self.world.store.abandon(permit, self.world.monotonic())
        if self.outcome == "pending":
            self._end("cancelled", "cancelled, or an error of the caller's own")

    # ---- streams -----------------------------------------------------------------------------------------

    # An adapter that finds an event stream in hand sets `streaming`. From then on a good answer is only a
    # beginning: the permit stays with the call, and the verdict falls when the stream ends.

    def _stream_opened(self, fact: Fact) -> None:
        self._opened = fact
        self._opened_at = now = self.world.monotonic()
        if fact.hint is not None and self._permit is not None:
            self.tell_all(self.world.store.exhausted(self.key, self._permit, fact.hint.seconds, now))
        self.tell(StreamOpened(self.number, self.key.host, self.key.model))

    def overdue(self) -> bool:
        """Whether the deadline has passed. A hair early is late: the clock that cut a read short need not be ours."""
        return self._deadline is not None and self.world.monotonic() >= self._deadline - SHORTEST_TIMEOUT

    def stream_left(self, reason: str = "the stream was closed before its end") -> None:
        """The caller left the stream early: nobody can say how it would have ended."""
        self.streaming = False
        permit, self._permit = self._permit, None
        if permit is not None:
            self.world.store.abandon(permit, self.world.monotonic())
        if self.outcome == "pending":
            if self._opened is not None:
                self._record(self._opened, self.world.monotonic())
            self._end("cancelled", reason)

    def drop(self) -> None:
        """The stream was collected before its end. Only a note is left: the collector may be inside our locks."""
        if self.streaming:
            self.world.drop(self)

    def propose(self, hop: Hop) -> None:
        """A break of the stream, and what would be done about it; if the call ends instead, nothing was."""
        self._proposed = hop

    def agree(self) -> None:
        """What was proposed is done."""
        proposed, self._proposed = self._proposed, None
        if proposed is not None:
            self.hop(proposed)

    def hop(self, hop: Hop) -> None:
        """Write down a break of the stream and what is done about it, and tell observers."""
        if self._hops is None:
            self._hops = []
        self._hops.append(hop)
        whose = self.number, self.key.host, self.key.model
        if hop.code == "stream_diverged":
            self.tell(StreamDiverged(*whose, hop))
        self.tell(StreamBroken(*whose, hop))
        if hop.action == "marker":
            self.tell(MarkerSupplied(*whose, hop))

    def continued(self, action: str) -> None:
        """The attempt to mend the stream was answered, and the stream goes on with it."""
        self.tell(StreamContinued(self.number, self.key.host, self.key.model, action, self.next_number))

    # ---- the record --------------------------------------------------------------------------------------

    def report(self) -> CallReport:
        """What the call did so far."""
        attempts = tuple(self._attempts or ())
        fact = self.fact
        if fact is not None and not attempts:
            attempts = (self._attempt(fact, self.ended),)
        now = self.world.monotonic() if self.outcome == "pending" else self.ended
        return CallReport(
            self.key.host,
            self.key.model,
            self.outcome,
            self._reason,
            attempts,
            now - self.started,
            self._waited,
            _last_hint(attempts),
            tuple(self._hops or ()),
            self.key.part,
        )

    def _took(self, now: float) -> float:
        """Seconds the attempt under way took: to its end, or to the beginning of its stream."""
        return (now if self._opened is None else self._opened_at) - self._sent_at

    @property
    def next_number(self) -> int:
        """Number of the attempt under way, or of the next."""
        return len(self._attempts or ()) + 1

    def _attempt(self, fact: Fact, now: float) -> Attempt:
        return Attempt(
            self.next_number,
            fact.code,
            fact.status,
            now - self._sent_at,
            self._paused,
            fact.hint,
            fact.maybe_executed,
            self._sent_at - self.started,
        )

    def _sent(self) -> None:
        """An attempt goes out."""
        event = AttemptStarted(self.number, self.key.host, self.key.model, self.next_number)
        self.world.announcer.tell(event)

    def _record(self, fact: Fact, now: float) -> int:
        """Write down one attempt; returns its number."""
        attempt = self._attempt(fact, now)
        if self._attempts is None:
            self._attempts = []
        self._attempts.append(attempt)
        self._paused = 0.0
        self.fact = fact
        self.tell(AttemptEnded(self.number, self.key.host, self.key.model, attempt))
        return attempt.number

    def _end(self, outcome: str, reason: str) -> None:
        self.streaming = False
        if self._place is not None and self._place.gate is not None:
            self.world.store.leave(self._place)
        self.outcome = outcome
        self._reason = reason
        self.ended = self.world.monotonic()
        if self._proposed is not None:
            self._proposed = replace(self._proposed, action="fail", reason=reason)
            self.agree()
        report = self.report()
        if self._gave_up and outcome != "cancelled":
            self.tell(CallGaveUp(self.number, report))
        self.tell(CallEnded(self.number, report))


class _Sending:
    """Surrounds the sending of an attempt with what its trace wants."""

    __slots__ = ("_call", "_layer", "_trace")

    def __init__(self, call: Record, trace: Trace, layer: AbstractContextManager[object]) -> None:
        self._call = call
        self._trace = trace
        self._layer = layer

    def __enter__(self) -> None:
        self._layer.__enter__()
        call = self._call
        try:
            call.carried = self._trace.enter(call.next_number)
        except Exception as error:
            call.world.announcer.failed(call.world.announcer.tracer, error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        call.carried = _NO_HEADERS
        try:
            self._trace.leave()
        except Exception as failure:
            call.world.announcer.failed(call.world.announcer.tracer, failure)
        finally:
            self._layer.__exit__(kind, error, traceback)


def _last_hint(attempts: tuple[Attempt, ...]) -> Hint | None:
    return attempts[-1].hint if attempts else None
