"""The circuit breaker: a pure machine; ``now`` and chance are arguments, nothing here waits or locks.

Three states, and a table of what leads from one to another (`TRANSITIONS`)::

    CLOSED ──(enough failed or was slow, or a trip)──► OPEN ──(open time over, next caller)──► HALF_OPEN
       ▲                                                ▲                                      │      │
       │                                                └──────────(a probe failed)────────────┘      │
       └───────────────────────────────(enough probes succeeded)──────────────────────────────────────┘

and one number, the *ticket*. It grows with every transition and with every probe, and each admitted call
carries the ticket that was current when it set out. A report whose ticket is older than the present state
is a late answer: it belongs to a state that is gone and changes nothing. That one rule is what keeps a
straggling success from closing an open circuit and a straggling failure from re-opening a mended one, so
there are no special cases for either (sony/gobreaker's generation, extended to single probes).

Three outcomes of a call: success, failure, and *neutral* (cancelled, abandoned, a client error, a rate
limit). A neutral report is no evidence; all it does is to free the probe slot it may hold.

One probe is under way at a time. It holds its slot for its lease at most: a probe that hangs, or whose process
died, delays the next one by that and never blocks it. If such a probe fails in the end, that is no news: another one
was sent since, and knows more.

Not thread-safe by itself: the store guards it with its lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from gip_resilience.taxonomy import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience.config import BreakerConfig

__all__ = [
    "ASKED",
    "REFUSED",
    "SHADOWED",
    "TRANSITIONS",
    "UNCOUNTED",
    "Breaker",
    "BreakerView",
    "Cause",
    "Control",
    "State",
    "Transition",
    "Window",
]

REFUSED = 0
"""Not a ticket: what `Breaker.admit` returns instead of one."""

UNCOUNTED = -1
"""The ticket of a call that is let through without being evidence (forced closed)."""

SHADOWED = -2
"""The ticket of a call that a circuit in ``metrics_only`` mode lets through, and would have refused."""

ASKED = -3
"""Not a ticket: this caller would be the probe, and others are being asked whether one of them is already."""


class State(StrEnum):
    """Where a circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Cause(StrEnum):
    """Why a circuit changes its state."""

    TRIPPED = "tripped"
    """One answer that says it all (``model_unavailable``)."""
    FAILURE_RATIO = "failure ratio"
    SLOW_CALLS = "slow calls"
    CONSECUTIVE = "consecutive failures"
    PROBE = "probe"
    """The open time is over and a caller came."""
    PROBE_FAILED = "probe failed"
    PROBE_SUCCEEDED = "probe succeeded"
    FLEET_OPENED = "fleet opened"
    """Other processes found it out."""
    FLEET_CLOSED = "fleet closed"
    """Another process's probe succeeded."""
    RESET = "reset"
    """An operator's word."""


TRANSITIONS: Mapping[tuple[State, Cause], State] = MappingProxyType(
    {
        (State.CLOSED, Cause.TRIPPED): State.OPEN,
        (State.CLOSED, Cause.FAILURE_RATIO): State.OPEN,
        (State.CLOSED, Cause.SLOW_CALLS): State.OPEN,
        (State.CLOSED, Cause.CONSECUTIVE): State.OPEN,
        (State.OPEN, Cause.PROBE): State.HALF_OPEN,
        (State.CLOSED, Cause.FLEET_OPENED): State.OPEN,
        (State.OPEN, Cause.FLEET_CLOSED): State.CLOSED,
        (State.OPEN, Cause.RESET): State.CLOSED,
        (State.HALF_OPEN, Cause.PROBE_FAILED): State.OPEN,
        (State.HALF_OPEN, Cause.PROBE_SUCCEEDED): State.CLOSED,
        (State.HALF_OPEN, Cause.FLEET_OPENED): State.OPEN,
        (State.HALF_OPEN, Cause.FLEET_CLOSED): State.CLOSED,
        (State.HALF_OPEN, Cause.RESET): State.CLOSED,
    }
)
"""All there are. What is not in it does not happen."""


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
    reason: Cause
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
        slow: calls among them that took as long as ``slow_call``; 0 where that is not set.
        consecutive: failures in a row.
        retry_after: seconds until the next call would be admitted; 0 when one would be now.
        opened: how often it has opened since it was made.
        times: seconds spent in each state since it was made, up to now.
    """

    state: State
    control: Control
    calls: int
    failures: int
    slow: int
    consecutive: int
    retry_after: float
    opened: int
    times: Mapping[State, float] = field(default_factory=dict, compare=False)


_CLOSED, _SUCCESS, _AUTO = State.CLOSED, Verdict.SUCCESS, Control.AUTO
"""What every call meets, at hand: a member of an enumeration is looked up by its name each time."""


class Window:
    """Calls, failures and slow calls of the last ``length`` seconds, in ``buckets`` equal parts.

    Recording is O(1); the sum over the buckets is taken only when there is a reason to open.
    """

    __slots__ = (
        "_calls",
        "_failures",
        "_past_calls",
        "_past_failures",
        "_slot",
        "_slow",
        "_stamp",
        "_stamps",
        "_width",
    )

    def __init__(self, length: float, buckets: int) -> None:
        self._width = length / buckets
        self._past_calls = self._past_failures = 0
        self._stamp = -1.0
        self._slot = 0
        self._stamps = [-1] * buckets
        self._calls = [0] * buckets
        self._failures = [0] * buckets
        self._slow = [0] * buckets

    def record(self, now: float, *, failed: bool = False, slow: bool = False) -> None:
        """Count one call at *now*."""
        stamp = now // self._width
        if stamp != self._stamp:
            self._turn(stamp)
        slot = self._slot
        self._calls[slot] += 1
        if failed:
            self._failures[slot] += 1
        if slow:
            self._slow[slot] += 1

    def _turn(self, stamp: float) -> None:
        """Another part of the window is the present one."""
        number = int(stamp)
        self._stamp = stamp
        self._slot = slot = number % len(self._stamps)
        if self._stamps[slot] != number:
            self._past_calls += self._calls[slot]
            self._past_failures += self._failures[slot]
            self._stamps[slot] = number
            self._calls[slot] = 0
            self._failures[slot] = 0
            self._slow[slot] = 0

    def totals(self, now: float) -> tuple[int, int, int]:
        """(calls, failures, slow calls) within the window that ends at *now*."""
        newest = int(now // self._width)
        oldest = newest - len(self._stamps)
        calls = failures = slow = 0
        for slot, stamp in enumerate(self._stamps):
            if oldest < stamp <= newest:
                calls += self._calls[slot]
                failures += self._failures[slot]
                slow += self._slow[slot]
        return calls, failures, slow

    def tally(self) -> tuple[int, int]:
        """(calls, failures) ever counted, whether they are still in the window or not."""
        return self._past_calls + sum(self._calls), self._past_failures + sum(self._failures)

    def clear(self) -> None:
        """Let the window be empty; what it held has been counted all the same."""
        self._past_calls, self._past_failures = self.tally()
        # Not by their stamps alone: a clock that has just begun may be within a window's length of any of them.
        self._calls = [0] * len(self._stamps)
        self._failures = [0] * len(self._stamps)
        self._slow = [0] * len(self._stamps)


class Breaker:
    """One circuit.

    Args:
        config: thresholds and times; see `gip_resilience.config.BreakerConfig`.
        now: monotonic seconds; time in a state is measured from here.
    """

    __slots__ = (
        "_config",
        "_configured",
        "_consecutive",
        "_entered",
        "_lease",
        "_longest",
        "_open_time",
        "_passed",
        "_probe",
        "_probe_until",
        "_since",
        "_ticket",
        "_times",
        "_until",
        "_window",
        "control",
        "opened",
        "state",
    )

    def __init__(self, config: BreakerConfig, now: float = 0.0) -> None:
        self.state = State.CLOSED
        self.opened = 0
        self._entered = now
        self._times = dict.fromkeys(State, 0.0)
        self._ticket = 1
        self._since = 1
        self._until = 0.0
        self._probe = REFUSED
        self._probe_until = 0.0
        self._passed = 0
        self._consecutive = 0
        self._window = Window(config.window, config.buckets)
        self._configured = self.control = Control.AUTO
        self._set(config)

    def _set(self, config: BreakerConfig) -> None:
        self._config = config
        self._longest = config.open_time * (1.0 + config.open_jitter)
        self._lease = self._longest if config.probe_lease is None else config.probe_lease
        self._open_time = config.open_time
        overruled = self.overruled
        self._configured = Control.METRICS_ONLY if config.mode == "metrics_only" else Control.AUTO
        if not overruled:
            self.control = self._configured

    def configure(self, config: BreakerConfig) -> None:
        """Take other settings. The state stays, an open time that runs is not changed, and an operator's word holds.

        The window is kept unless its own measures change; growth of the open time begins anew.
        """
        if (config.window, config.buckets) != (self._config.window, self._config.buckets):
            self._window = Window(config.window, config.buckets)
        self._set(config)

    def admit(self, now: float) -> int:
        """A ticket for one call, or `REFUSED`; `SHADOWED` for a call that only the mode lets through.

        Where processes share their circuits it may also be `ASKED`.

        After the open time the first caller becomes the probe; everybody else is refused until that probe
        has reported, or has used up its lease.
        """
        if self.control is not _AUTO:
            return self._admit_overridden(now)
        if self.state is _CLOSED:
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
            return SHADOWED
        return self._grant_probe(now)

    def _grant_probe(self, now: float) -> int:
        if self.state is State.OPEN:
            self._move(Cause.PROBE, now)
        else:
            self._ticket += 1
        self._probe = self._ticket
        self._probe_until = now + self._lease
        return self._ticket

    def is_probe(self, ticket: int) -> bool:
        """Whether *ticket* was given to a probe of the present half-open state."""
        return self.state is State.HALF_OPEN and ticket >= self._since

    def report(
        self,
        ticket: int,
        verdict: Verdict,
        now: float,
        *,
        hint: float | None = None,
        chance: float = 0.5,
        took: float = 0.0,
    ) -> Transition | None:
        """What became of an admitted call.

        Args:
            ticket: what `admit` returned for it.
            verdict: success, failure, trip (open at once) or neutral (no evidence).
            now: monotonic seconds.
            hint: seconds the server asked callers to stay away; lengthens the open time, never shortens it.
            chance: a number in [0, 1) for the jitter on the open time.
            took: seconds the call took.

        Returns:
            The change of state it caused, if any.
        """
        if ticket < self._since:
            return None
        if verdict is _SUCCESS and self.state is _CLOSED and self._config.slow_call is None:
            self._window.record(now)
            self._consecutive = 0
            return None
        if verdict is Verdict.NEUTRAL:
            self._free(ticket, now)
            return None
        slow = self._config.slow_call is not None and took >= self._config.slow_call
        if self.state is State.HALF_OPEN:
            return self._judge_probe(ticket, verdict is Verdict.SUCCESS and not slow, now, hint, chance)
        failed = verdict is not Verdict.SUCCESS
        self._window.record(now, failed=failed, slow=slow)
        self._consecutive = self._consecutive + 1 if failed else 0
        if not failed and not slow:
            return None
        cause = Cause.TRIPPED if verdict is Verdict.TRIP else self._cause_to_open(now)
        return self._open(cause, now, hint, chance) if cause else None

    def _free(self, ticket: int, now: float) -> None:
        """The slot of the probe under way is free again, if it was this call's."""
        if ticket == self._probe:
            self._probe_until = now

    def _judge_probe(
        self, ticket: int, passed: bool, now: float, hint: float | None, chance: float
    ) -> Transition | None:
        config = self._config
        if not passed and ticket != self._probe:
            return None
        if not passed:
            self._open_time = min(self._open_time * config.growth, max(config.open_time, config.max_open))
            return self._open(Cause.PROBE_FAILED, now, hint, chance)
        self._passed += 1
        if self._passed < config.success_threshold:
            self._free(ticket, now)
            return None
        return self._close(Cause.PROBE_SUCCEEDED, now)

    def _cause_to_open(self, now: float) -> Cause | None:
        config = self._config
        calls, failures, slow = self._window.totals(now)
        if calls < config.min_calls:
            # Only while the window is too thin for a ratio: as a general rule it would open on chance runs.
            return Cause.CONSECUTIVE if self._consecutive >= config.consecutive else None
        if failures >= config.ratio * calls:
            return Cause.FAILURE_RATIO
        if slow >= config.slow_ratio * calls:
            return Cause.SLOW_CALLS
        return None

    def _open(self, cause: Cause, now: float, hint: float | None, chance: float) -> Transition:
        config = self._config
        open_for = self._open_time * (1.0 + config.open_jitter * (2.0 * chance - 1.0))
        open_for = min(open_for, max(self._longest, config.max_open))
        if hint is not None:
            open_for = max(open_for, min(hint, config.max_open))
        change = Transition(self.state, self._move(cause, now), cause, open_for)
        self._until = now + open_for
        self.opened += 1
        return change

    def _close(self, cause: Cause, now: float) -> Transition:
        change = Transition(self.state, self._move(cause, now), cause)
        self._open_time = self._config.open_time
        self._forget()
        return change

    def _move(self, cause: Cause, now: float) -> State:
        """Enter the state the table names; every ticket given out before is late from now on."""
        self._times[self.state] += max(0.0, now - self._entered)
        self._entered = max(now, self._entered)
        self.state = TRANSITIONS[self.state, cause]
        self._ticket += 1
        self._since = self._ticket
        self._probe = REFUSED
        self._probe_until = 0.0
        self._passed = 0
        return self.state

    def _forget(self) -> None:
        self._consecutive = 0
        self._window.clear()

    def retry_after(self, now: float) -> float:
        """Seconds until the next caller would be admitted; 0 when one would be now."""
        if self.control is Control.FORCED_OPEN:
            return self._config.open_time
        if self.control is not Control.AUTO or self.state is State.CLOSED:
            return 0.0
        return max(0.0, self._until - now, self._probe_until - now)

    def answer_due(self, now: float) -> float:  # noqa: ARG002 - for circuits that ask
        """Seconds after which to come back when it was `ASKED`."""
        return 0.0

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

    def reset(self, now: float) -> Transition | None:
        """Close, and forget all that was learned; answers still on their way are late ones.

        Returns:
            The change of state, if it was not closed already.
        """
        self.control = self._configured
        if self.state is not State.CLOSED:
            return self._close(Cause.RESET, now)
        self._ticket += 1
        self._since = self._ticket
        self._forget()
        return None

    def view(self, now: float) -> BreakerView:
        """What the circuit looks like now."""
        calls, failures, slow = self._window.totals(now)
        times = dict(self._times)
        times[self.state] += max(0.0, now - self._entered)
        return BreakerView(
            self.state,
            self.control,
            calls,
            failures,
            slow,
            self._consecutive,
            self.retry_after(now),
            self.opened,
            times,
        )
