"""Counts of what was done: exact, cheap, and safe to read at any time.

A call that succeeds at its first attempt costs one look-up and a few additions under one lock. Everything else is
counted off the events that are told of it (`Metrics.count`), so that counts and events cannot disagree.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gip_resilience import events, snapshots
from gip_resilience._config_groups import ObserveConfig
from gip_resilience._names import Names
from gip_resilience.breaker import State
from gip_resilience.snapshots import Histogram, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gip_resilience._report import CallReport
    from gip_resilience.breaker import BreakerView
    from gip_resilience.budget import BudgetView
    from gip_resilience.events import Event
    from gip_resilience.gate import GateView

_SECONDS = snapshots.SECONDS


class Present(NamedTuple):
    """What there is now, by host and model: circuits, closed gates, budgets."""

    circuits: Mapping[tuple[str, str], BreakerView]
    gates: Mapping[tuple[str, str], GateView]
    budgets: Mapping[tuple[str, str], BudgetView]


NOTHING = Present({}, {}, {})


class _Spread:
    """A histogram that is being filled."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def view(self) -> Histogram:
        return Histogram(self.bounds, tuple(self.counts), self.total)


class _Scope:
    """What is counted of one model at one host.

    ``at_once`` holds the calls that succeeded at their first attempt: attempt and call in one.
    """

    __slots__ = ("at_once", "attempts", "calls", "host", "model", "per_call", "sent", "total")

    def __init__(self, host: str, model: str) -> None:
        self.host = host
        self.model = model
        self.at_once = _Spread(_SECONDS)
        self.total: _Spread | None = None
        self.sent: _Spread | None = None
        self.per_call: _Spread | None = None
        self.calls: Counter[tuple[str, str]] = Counter()
        self.attempts: Counter[str] = Counter()


class Metrics:
    """Counters of one `Resilience`.

    Args:
        limits: how many hosts, models and codes are counted apart.
        present: reads what there is now; nothing by default.

    Thread-safe and task-safe: one lock, held for an addition. Memory is bounded: beyond the limits, and beyond
    1000 pairs of host and model, things are counted under ``other``.
    """

    def __init__(
        self, limits: ObserveConfig | None = None, present: Callable[[], Present] = lambda: NOTHING
    ) -> None:
        self._limits = ObserveConfig() if limits is None else limits
        self._present = present
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._names = Names(self._limits)
        self._scopes: dict[tuple[str, str], _Scope] = {}
        self._retries = self._gave_up = self._observer_failures = 0
        self._waits: dict[str, _Spread] = {}
        self._refusals: Counter[str] = Counter()
        self._hints: Counter[str] = Counter()
        self._opened: Counter[tuple[str, str]] = Counter()
        self._transitions: Counter[tuple[str, str, str, str]] = Counter()
        self._probes: Counter[tuple[str, str]] = Counter()
        self._gates: Counter[tuple[str, str]] = Counter()
        self._shadowed: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        self._breaks: Counter[tuple[str, str, str, str]] = Counter()
        self._reloads: Counter[str] = Counter()
        self._degraded: Counter[str] = Counter()
        self._restored: Counter[str] = Counter()

    def __repr__(self) -> str:
        seen = self.snapshot()
        return f"<Metrics calls={seen.total()} attempts={seen.sent()}>"

    # ---- counting ----------------------------------------------------------------------------------------

    def succeeded(self, host: str, model: str, took: float) -> None:
        """A call succeeded at its first attempt, in *took* seconds: the everyday case, in one step."""
        with self._lock:
            scope = self._scopes.get((host, model))
            if scope is None:
                scope = self._scope(host, model)
            spread = scope.at_once
            spread.counts[bisect_left(_SECONDS, took)] += 1
            spread.total += took

    def observer_failed(self) -> None:
        """An observer raised."""
        with self._lock:
            self._observer_failures += 1

    def count(self, event: Event) -> None:
        """Count what happened."""
        if isinstance(event, _UNCOUNTED):
            return
        with self._lock:
            match event:
                case events.AttemptEnded():
                    self._attempt_ended(event)
                case events.CallEnded():
                    self._call_ended(event.report)
                case events.CallGaveUp():
                    self._gave_up += 1
                case events.CallPaused():
                    self._waits.setdefault(event.reason, _Spread(_SECONDS)).add(event.seconds)
                case events.CallRefused():
                    self._refusals[event.kind] += 1
                case events.BudgetRefused():
                    self._refusals["budget"] += 1
                case events.HintHonoured():
                    self._hints["honoured"] += 1
                case events.HintRefused():
                    self._hints["refused"] += 1
                case events.ShadowRefused():
                    self._shadowed[event.guard] += 1
                case events.CircuitChanged():
                    self._circuit_changed(event)
                case events.ProbeSent():
                    self._probes[self._names.where(*event.circuit)] += 1
                case events.GateClosed():
                    if not event.lengthened:
                        self._gates[self._names.where(event.host, event.model)] += 1
                case events.StreamOpened():
                    self._streams["opened"] += 1
                case events.StreamBroken():
                    self._stream_broken(event)
                case events.StreamDiverged():
                    self._streams["diverged"] += 1
                case events.ConfigReloaded():
                    self._reloads["applied"] += 1
                case events.ConfigRejected():
                    self._reloads["rejected"] += 1
                case events.StateDegraded():
                    self._degraded[event.component] += 1
                case events.StateRestored():  # pragma: no branch - there is no other
                    self._restored[event.component] += 1

    def _attempt_ended(self, event: events.AttemptEnded) -> None:
        attempt = event.attempt
        scope = self._scope(event.host, event.model)
        if scope.sent is None:
            scope.sent = _Spread(_SECONDS)
        scope.sent.add(attempt.elapsed)
        scope.attempts[self._names.code(attempt.code)] += 1
        self._retries += attempt.number > 1

    def _call_ended(self, report: CallReport) -> None:
        scope = self._scope(report.host, report.model)
        if scope.total is None or scope.per_call is None:
            scope.total, scope.per_call = _Spread(_SECONDS), _Spread(snapshots.ATTEMPTS)
        scope.total.add(report.elapsed)
        scope.per_call.add(len(report.attempts))
        scope.calls[self._names.code(report.code), report.outcome] += 1

    def _circuit_changed(self, event: events.CircuitChanged) -> None:
        host, model = self._names.where(*event.circuit)
        change = event.transition
        self._transitions[host, model, str(change.after), str(change.reason)] += 1
        if change.after is State.OPEN:
            self._opened[host, model] += 1

    def _stream_broken(self, event: events.StreamBroken) -> None:
        hop = event.hop
        self._streams[hop.action] += 1
        if hop.action != "unguarded":
            self._streams["breaks"] += 1
            where = self._names.where(event.host, event.model)
            self._breaks[(*where, self._names.code(hop.code), hop.action)] += 1

    # ---- reading -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All counts, taken at one moment."""
        present = self._present()
        with self._lock:
            return self._view(present)

    def reset(self) -> Snapshot:
        """Begin again at 0. Returns what was counted until now; nothing is lost or counted twice in between."""
        present = self._present()
        with self._lock:
            seen = self._view(present)
            self._clear()
        return seen

    def limit(self, limits: ObserveConfig) -> None:
        """Count other numbers of names apart. Names that are counted already stay."""
        with self._lock:
            self._limits = self._names.limits = limits

    def _view(self, present: Present) -> Snapshot:
        """Needs the lock."""
        scopes = {(scope.host, scope.model): scope for scope in self._scopes.values()}
        return Snapshot(
            calls=_frozen(_calls(scopes.values())),
            attempts=_frozen(_attempts(scopes.values())),
            retries=self._retries,
            call_attempts=_spreads((where, _per_call(scope)) for where, scope in scopes.items()),
            call_seconds=_spreads(
                (where, _sum(scope.at_once, scope.total)) for where, scope in scopes.items()
            ),
            attempt_seconds=_spreads(
                (where, _sum(scope.at_once, scope.sent)) for where, scope in scopes.items()
            ),
            waits=_frozen({reason: spread.total for reason, spread in self._waits.items()}),
            wait_seconds=_spreads((reason, spread.view()) for reason, spread in self._waits.items()),
            refusals=_frozen(self._refusals),
            gave_up=self._gave_up,
            hints=_frozen(self._hints),
            opened=_frozen(self._opened),
            transitions=_frozen(self._transitions),
            probes=_frozen(self._probes),
            gates=_frozen(self._gates),
            shadowed=_frozen(self._shadowed),
            streams=_frozen(self._streams),
            breaks=_frozen(self._breaks),
            reloads=_frozen(self._reloads),
            degraded=_frozen(self._degraded),
            restored=_frozen(self._restored),
            observer_failures=self._observer_failures,
            circuits=_frozen(present.circuits),
            closed_gates=_frozen(present.gates),
            budgets=_frozen(present.budgets),
        )

    def _scope(self, host: str, model: str) -> _Scope:
        """Needs the lock."""
        where = self._names.where(host, model)
        scope = self._scopes.get(where)
        if scope is None:
            scope = self._scopes[where] = _Scope(*where)
        return scope


_UNCOUNTED = (
    events.AttemptStarted,
    events.CallStarted,
    events.CircuitOverruled,
    events.DeadlineReached,
    events.GateOpened,
    events.GateWaited,
    events.MarkerSupplied,
    events.RetryScheduled,
    events.StreamContinued,
)
"""Counted by another event."""


def _frozen(table: Mapping[Any, Any]) -> Any:
    return MappingProxyType(dict(table))


def _spreads(pairs: Iterable[tuple[Any, Histogram]]) -> Any:
    return MappingProxyType({key: spread for key, spread in pairs if any(spread.counts)})


def _sum(at_once: _Spread, others: _Spread | None) -> Histogram:
    return at_once.view() if others is None else at_once.view() + others.view()


def _per_call(scope: _Scope) -> Histogram:
    """Every call that succeeded at once had one attempt."""
    once = sum(scope.at_once.counts)
    bounds = snapshots.ATTEMPTS
    first = Histogram(bounds, (once, *(0 for _ in bounds)), float(once))
    return first if scope.per_call is None else first + scope.per_call.view()


def _calls(scopes: Iterable[_Scope]) -> dict[tuple[str, str, str, str], int]:
    found = {}
    for scope in scopes:
        once = sum(scope.at_once.counts)
        counts = Counter(scope.calls)
        if once:
            counts["ok", "success"] += once
        found.update({(scope.host, scope.model, *key): count for key, count in counts.items()})
    return found


def _attempts(scopes: Iterable[_Scope]) -> dict[tuple[str, str, str], int]:
    found = {}
    for scope in scopes:
        once = sum(scope.at_once.counts)
        counts = Counter(scope.attempts)
        if once:
            counts["ok"] += once
        found.update({(scope.host, scope.model, code): count for code, count in counts.items()})
    return found
