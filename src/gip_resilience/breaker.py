"""The circuit breaker: a pure machine; ``now`` and chance are arguments, nothing here waits or locks.

Three states and one number::

    CLOSED ──(enough failures, or a trip)──► OPEN ──(open time over, next caller)──► HALF_OPEN
       ▲                                      ▲                                        │    │
       │                                      └──────────(a probe failed)──────────────┘    │
       └──────────────────────────────(a probe succeeded)───────────────────────────────────┘

The number is the *ticket*. It grows with every transition and with every probe, and each admitted call
carries the ticket that was current when it set out. A report whose ticket is older than the present state
is a late answer: it belongs to a state that is gone and changes nothing. That one rule is what keeps a
straggling success from closing an open circuit and a straggling failure from re-opening a mended one, so
there are no special cases for either (sony/gobreaker's generation, extended to single probes).

Three outcomes of a call: success, failure, and *neutral* (cancelled, abandoned, a client error, a rate
limit). A neutral report is no evidence; all it does is to free the probe slot it may hold.

A probe holds its slot for one open interval at most. A probe that hangs, or whose process died, therefore
delays the next one by that interval and never blocks it.

Not thread-safe by itself: the store guards it with its lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gip_resilience.taxonomy import Verdict

if TYPE_CHECKING:
    from gip_resilience.config import BreakerConfig

REFUSED = 0
"""Not a ticket: what `Breaker.admit` returns instead of one."""

UNCOUNTED = -1
"""The ticket of a call that is let through without being evidence (forced closed, or a shadow breaker)."""


class State(StrEnum):
    """Where a circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Control(StrEnum):
    """Who decides: the machine, or an operator over its head."""

    AUTO = "auto"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    METRICS_ONLY = "metrics_only"
    """Decide and count, but let every call through."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state, for those who observe it."""

    before: State
    after: State
    reason: str
    open_for: float | None = None
    """How long the circuit stays open, in seconds; ``None`` unless it opened."""


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What a circuit looks like at one moment (a copy: it does not change).

    Attributes:
        state: closed, open or half-open.
        control: whether an operator has overridden it.
        calls: calls with a verdict in the sliding window.
        failures: failures among them.
        consecutive: failures in a row.
        retry_after: seconds until the next call would be admitted; 0 when one would be now.
        opened: how often it has opened since it was made.
    """

    state: State
    control: Control
    calls: int
    failures: int
    consecutive: int
    retry_after: float
    opened: int


class Window:
    """Calls and failures of the last ``length`` seconds, in ``buckets`` equal parts.

    Recording is O(1); the sum over the buckets is taken only when a failure asks for it.
    """

    __slots__ = ("_calls", "_failures", "_stamps", "_width")

    def __init__(self, length: float, buckets: int) -> None:
        self._width = length / buckets
        self._stamps = [-1] * buckets
        self._calls = [0] * buckets
        self._failures = [0] * buckets

    def record(self, now: float, *, failed: bool) -> None:
        """Count one call at *now*."""
        stamp = int(now // self._width)
        slot = stamp % len(self._stamps)
        if self._stamps[slot] != stamp:
            self._stamps[slot] = stamp
            self._calls[slot] = 0
            self._failures[slot] = 0
        self._calls[slot] += 1
        if failed:
            self._failures[slot] += 1

    def totals(self, now: float) -> tuple[int, int]:
        """(calls, failures) within the window that ends at *now*."""
        newest = int(now // self._width)
        oldest = newest - len(self._stamps)
        calls = failures = 0
        for slot, stamp in enumerate(self._stamps):
            if oldest < stamp <= newest:
                calls += self._calls[slot]
                failures += self._failures[slot]
        return calls, failures

    def clear(self) -> None:
        """Forget everything."""
        self._stamps = [-1] * len(self._stamps)


class Breaker:
    """One circuit.

    Args:
        config: thresholds and times; see `gip_resilience.config.BreakerConfig`.
    """

    __slots__ = (
        "_config",
        "_configured",
        "_consecutive",
        "_probe",
        "_probe_until",
        "_since",
        "_ticket",
        "_until",
        "_window",
        "control",
        "opened",
        "state",
    )

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._configured = Control.METRICS_ONLY if config.mode == "metrics_only" else Control.AUTO
        self.state = State.CLOSED
        self.control = self._configured
        self.opened = 0
        self._ticket = 1
        self._since = 1
        self._until = 0.0
        self._probe = REFUSED
        self._probe_until = 0.0
        self._consecutive = 0
        self._window = Window(config.window, config.buckets)

    def admit(self, now: float) -> int:
        """A ticket for one call, or `REFUSED`.

        After the open time the first caller becomes the probe; everybody else is refused until that probe
        has reported, or has used up its lease.
        """
        if self.control is not Control.AUTO:
            return self._admit_overridden(now)
        if self.state is State.CLOSED:
            return self._ticket
        if now < self._until or now < self._probe_until:
            return REFUSED
        return self._grant_probe(now)

    def _admit_overridden(self, now: float) -> int:
        if self.control is Control.FORCED_OPEN:
            return REFUSED
        if self.control is Control.FORCED_CLOSED:
            return UNCOUNTED
        if self.state is State.CLOSED:
            return self._ticket
        if now < self._until or now < self._probe_until:
            return UNCOUNTED
        return self._grant_probe(now)

    def _grant_probe(self, now: float) -> int:
        self._ticket += 1
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN
            self._since = self._ticket
        self._probe = self._ticket
        self._probe_until = now + self._config.open_time
        return self._ticket

    def is_probe(self, ticket: int) -> bool:
        """Whether *ticket* was given to a probe of the present half-open state."""
        return self.state is State.HALF_OPEN and ticket >= self._since

    def report(
        self, ticket: int, verdict: Verdict, now: float, *, hint: float | None = None, chance: float = 0.5
    ) -> Transition | None:
        """What became of an admitted call.

        Args:
            ticket: what `admit` returned for it.
            verdict: success, failure, trip (open at once) or neutral (no evidence).
            now: monotonic seconds.
            hint: seconds the server asked callers to stay away; lengthens the open time, never shortens it.
            chance: a number in [0, 1) for the jitter on the open time.

        Returns:
            The change of state it caused, if any.
        """
        if ticket < self._since:
            return None
        if verdict is Verdict.NEUTRAL:
            if ticket == self._probe:
                self._probe_until = now
            return None
        if self.state is State.HALF_OPEN:
            if verdict is Verdict.SUCCESS:
                return self._close("probe succeeded")
            return self._open(now, hint, chance, "probe failed")
        if verdict is Verdict.SUCCESS:
            self._consecutive = 0
            self._window.record(now, failed=False)
            return None
        self._consecutive += 1
        self._window.record(now, failed=True)
        if verdict is Verdict.TRIP:
            return self._open(now, hint, chance, "tripped")
        reason = self._reason_to_open(now)
        return self._open(now, hint, chance, reason) if reason else None

    def _reason_to_open(self, now: float) -> str | None:
        config = self._config
        calls, failures = self._window.totals(now)
        if calls >= config.min_calls:
            return "failure ratio" if failures >= config.ratio * calls else None
        # Only while the window is too thin for a ratio: as a general rule it would open on chance runs.
        return "consecutive failures" if self._consecutive >= config.consecutive else None

    def _open(self, now: float, hint: float | None, chance: float, reason: str) -> Transition:
        config = self._config
        open_for = config.open_time * (1.0 + config.open_jitter * (2.0 * chance - 1.0))
        if hint is not None:
            open_for = max(open_for, min(hint, config.max_open))
        change = Transition(self.state, State.OPEN, reason, open_for)
        self._enter(State.OPEN)
        self._until = now + open_for
        self.opened += 1
        return change

    def _close(self, reason: str) -> Transition:
        change = Transition(self.state, State.CLOSED, reason)
        self._enter(State.CLOSED)
        self._consecutive = 0
        self._window.clear()
        return change

    def _enter(self, state: State) -> None:
        self.state = state
        self._ticket += 1
        self._since = self._ticket
        self._probe = REFUSED
        self._probe_until = 0.0

    def retry_after(self, now: float) -> float:
        """Seconds until the next caller would be admitted; 0 when one would be now."""
        if self.control is Control.FORCED_OPEN:
            return self._config.open_time
        if self.control is not Control.AUTO or self.state is State.CLOSED:
            return 0.0
        return max(0.0, self._until - now, self._probe_until - now)

    @property
    def at_rest(self) -> bool:
        """Whether forgetting this circuit would lose nothing but its window."""
        return self.state is State.CLOSED and not self.overruled

    @property
    def overruled(self) -> bool:
        """Whether an operator's decision is in force."""
        return self.control is not self._configured

    def override(self, control: Control) -> None:
        """Put an operator's decision over the configured one, or (`Control.AUTO`) take it away."""
        self.control = self._configured if control is Control.AUTO else control

    def reset(self) -> None:
        """Close, and forget all that was learned; answers still on their way are late ones."""
        self._enter(State.CLOSED)
        self.control = self._configured
        self._consecutive = 0
        self._window.clear()

    def view(self, now: float) -> BreakerView:
        """What the circuit looks like now."""
        calls, failures = self._window.totals(now)
        return BreakerView(
            self.state, self.control, calls, failures, self._consecutive, self.retry_after(now), self.opened
        )
