"""What a call holds, and the record of what it did. What it does is decided in `gip_resilience.engine`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from gip_resilience._report import Attempt, CallReport
from gip_resilience.breaker import State
from gip_resilience.events import CallEnded, CircuitChanged, StreamBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience._report import Hop
    from gip_resilience.config import Config
    from gip_resilience.events import Announcer
    from gip_resilience.gate import Held, Place
    from gip_resilience.hints import Hint
    from gip_resilience.metrics import Metrics
    from gip_resilience.state import Change, Permit, Refused, ScopeKey, Store
    from gip_resilience.taxonomy import Fact

SHORTEST_TIMEOUT = 0.001
"""Seconds; the clients take 0 or less for an error of the caller's (``ValueError``), not for a timeout."""


class Surroundings(NamedTuple):
    """What a call needs of the world.

    Attributes:
        store: shared state.
        monotonic: reads a clock that never goes back, in seconds.
        chance: random numbers in [0, 1).
        metrics: counters.
        announcer: tells observers.
    """

    store: Store
    monotonic: Callable[[], float]
    chance: Callable[[], float]
    metrics: Metrics
    announcer: Announcer


class Record:
    """What a call holds, and what it did.

    Args:
        world: store, clock, chance, observers.
        config: the policy in force, overrides applied.
        key: whom it is for.
        sdk: the request comes from an SDK that retries by itself and says so.
        single: that SDK is already retrying, so this call gets one attempt.

    Belongs to one thread or task at a time, as the call does.
    """

    __slots__ = (
        "_allowance",
        "_attempts",
        "_deadline",
        "_delays",
        "_failures",
        "_flowed",
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
        "_turned_away",
        "_waited",
        "config",
        "ended",
        "fact",
        "key",
        "outcome",
        "replayable",
        "sdk",
        "single",
        "started",
        "streaming",
        "world",
    )

    def __init__(
        self, world: Surroundings, config: Config, key: ScopeKey, *, sdk: bool = False, single: bool = False
    ) -> None:
        self.world = world
        self.config = config
        self.key = key
        self.sdk = sdk
        self.single = single
        self.replayable = True
        self.streaming = False
        self.outcome = "pending"
        self.fact: Fact | None = None
        self.started = self.ended = self._sent_at = world.monotonic()
        self._deadline = None if config.deadline is None else self.started + config.deadline
        self._permit: Permit | None = None
        self._place: Place | None = None
        self._turned_away: Held | Refused | None = None
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
            self.world.store.exhausted(self._permit, fact.hint.seconds, now)
        self.world.metrics.streamed("opened")

    def overdue(self) -> bool:
        """Whether the deadline has passed. A hair early is late: the clock that cut a read short need not be ours."""
        return self._deadline is not None and self.world.monotonic() >= self._deadline - SHORTEST_TIMEOUT

    def stream_left(self) -> None:
        """The caller closed the stream early: nobody can say how it would have ended."""
        self.streaming = False
        permit, self._permit = self._permit, None
        if permit is not None:
            self.world.store.abandon(permit, self.world.monotonic())
        if self.outcome == "pending":
            if self._opened is not None:
                self._record(self._opened, self.world.monotonic())
            self._end("cancelled", "the stream was closed before its end")

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
        if hop.action != "unguarded":
            self.world.metrics.streamed("breaks")
        if hop.code == "stream_diverged":
            self.world.metrics.streamed("diverged")
        self.world.metrics.streamed(hop.action)
        self.world.announcer.tell(StreamBroken(self.key.host, self.key.model, hop))

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
        )

    def _took(self, now: float) -> float:
        """Seconds the attempt under way took: to its end, or to the beginning of its stream."""
        return (now if self._opened is None else self._opened_at) - self._sent_at

    def _attempt(self, fact: Fact, now: float) -> Attempt:
        number = len(self._attempts or ()) + 1
        return Attempt(
            number, fact.code, fact.status, now - self._sent_at, self._paused, fact.hint, fact.maybe_executed
        )

    def _record(self, fact: Fact, now: float) -> int:
        """Write down one attempt; returns its number."""
        attempt = self._attempt(fact, now)
        if self._attempts is None:
            self._attempts = []
        self._attempts.append(attempt)
        self._paused = 0.0
        self.fact = fact
        self.world.metrics.attempted(self.key.host, self.key.model, fact.code, retry=attempt.number > 1)
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
        self.world.metrics.ended(self.key.host, self.key.model, outcome)
        if self.world.announcer.wants(CallEnded):
            self.world.announcer.tell(CallEnded(self.report()))

    def _announce(self, changes: tuple[Change, ...]) -> None:
        for circuit, change in changes:
            if change.after is State.OPEN:
                self.world.metrics.opened(circuit.host, circuit.model)
            self.world.announcer.tell(CircuitChanged(circuit, change))


def _last_hint(attempts: tuple[Attempt, ...]) -> Hint | None:
    return attempts[-1].hint if attempts else None
