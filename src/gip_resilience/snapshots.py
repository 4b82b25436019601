"""All counts at one moment, as frozen values: to read, to compare, and to subtract.

Pure: nothing here waits, reads a clock or locks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience.breaker import BreakerView
    from gip_resilience.budget import BudgetView
    from gip_resilience.gate import GateView

__all__ = ["ATTEMPTS", "SECONDS", "Histogram", "Snapshot", "Where"]

SECONDS: tuple[float, ...] = tuple(0.01 * 2.0**power for power in range(14))
"""Upper bounds of the histograms of seconds, 10 ms doubling to 81.92 s: those that the GenAI semantic conventions of
OpenTelemetry give ``gen_ai.client.operation.duration``."""

ATTEMPTS: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""Upper bounds of the histogram of attempts per call. The default policies go to 4; a stream adds its hops."""

Where: TypeAlias = tuple[str, str]
"""Host and model; an empty model is the host's own, or not known."""


class Histogram(msgspec.Struct, frozen=True):
    """How values are spread over fixed buckets.

    Attributes:
        bounds: upper bounds of the buckets, inclusive; one more bucket holds what is above the last.
        counts: values in each bucket (not cumulative); one more than there are bounds.
        total: sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Their mean; 0 without any."""
        count = self.count
        return self.total / count if count else 0.0

    def quantile(self, share: float) -> float:
        """About the value below which *share* of them lie: linear within its bucket, as Prometheus does it.

        Args:
            share: 0 to 1.

        Returns:
            0 without values; the last bound for what lies above it.
        """
        rank = share * self.count
        below = 0
        low = 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= rank:
                return low + (bound - low) * max(0.0, rank - below) / count
            below += count
            low = bound
        return self.bounds[-1] if below < self.count else 0.0

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.total + other.total)

    def __sub__(self, other: Histogram) -> Histogram:
        counts = tuple(mine - theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.total - other.total)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment; does not change. What counts only grows, until `Metrics.reset`.

    The last three are not counts but what is there now.

    Attributes:
        calls: by (host, model, code, outcome). The code is that of the last attempt, ``ok`` for a success; of a
            call that sent nothing what it was refused for, or ``none``. The outcomes are those of
            `gip_resilience.CallReport`.
        attempts: requests sent, by (host, model, code); ``ok`` is the code of a success.
        retries: attempts that were not a call's first.
        call_attempts: attempts per call, by (host, model).
        call_seconds: seconds from a call's start to its end, waits included, by (host, model).
        attempt_seconds: seconds from sending to the verdict (a stream's falls when it ends), by (host, model).
        waits: seconds paused, by reason (``backoff``, ``hint``, ``gate``, ``circuit``,
            ``store``).
        wait_seconds: how long the pauses were, by reason.
        refusals: calls, or further attempts of them, that were not sent, by reason (``circuit_open``,
            ``rate_limited``, ``deadline``, ``budget``).
        gave_up: calls whose failure is tried again by policy, and was not, or not any more.
        hints: what became of the waits that servers asked for: ``honoured``, ``refused``.
        opened: how often a circuit opened, by (host, model).
        transitions: of circuits, by (host, model, state entered, cause).
        probes: requests sent through half-open circuits, by (host, model).
        gates: how often a gate closed, by (host, model).
        shadowed: requests that a guard in ``metrics_only`` mode would have stopped, by guard (``circuit``, ``gate``,
            ``budget``).
        streams: event streams: ``opened``, ``breaks``, and what was done about these: ``restart``, ``resume``,
            ``replay``, ``marker`` (supplied), ``end`` (nothing was missing), ``fail``; ``diverged`` (replays);
            ``unguarded`` (too long for us). A stream that is begun anew is opened once more.
        breaks: of event streams, by (host, model, code, action).
        reloads: of the configuration, by result: ``applied``, ``rejected``.
        degraded: how often shared state was not what it should be, by store.
        restored: how often it was whole again, by store.
        observer_failures: how often an observer raised.
        circuits: every circuit as it looks now, by (host, model).
        closed_gates: every gate that is closed, by (host, model); of several credentials the longest.
        budgets: tokens left, by (host, model); of several credentials the fewest. A model that is empty is the
            host's own budget.
    """

    calls: Mapping[tuple[str, str, str, str], int]
    attempts: Mapping[tuple[str, str, str], int]
    retries: int
    call_attempts: Mapping[Where, Histogram]
    call_seconds: Mapping[Where, Histogram]
    attempt_seconds: Mapping[Where, Histogram]
    waits: Mapping[str, float]
    wait_seconds: Mapping[str, Histogram]
    refusals: Mapping[str, int]
    gave_up: int
    hints: Mapping[str, int]
    opened: Mapping[Where, int]
    transitions: Mapping[tuple[str, str, str, str], int]
    probes: Mapping[Where, int]
    gates: Mapping[Where, int]
    shadowed: Mapping[str, int]
    streams: Mapping[str, int]
    breaks: Mapping[tuple[str, str, str, str], int]
    reloads: Mapping[str, int]
    degraded: Mapping[str, int]
    restored: Mapping[str, int]
    observer_failures: int
    circuits: Mapping[Where, BreakerView]
    closed_gates: Mapping[Where, GateView]
    budgets: Mapping[Where, BudgetView]

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, ready for JSON: keys of several parts are joined by ``|``."""
        plain: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int):
                value = {k if isinstance(k, str) else "|".join(k): _plain(v) for k, v in value.items()}
            plain[field.name] = value
        return plain

    def diff(self, earlier: Snapshot) -> Snapshot:
        """What was counted since *earlier*; what is there now stays as it is.

        Args:
            earlier: a snapshot of the same counters, taken before this one and after their last reset.
        """
        changes = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in changes.items():
            if name not in _NOW:
                changes[name] = _less(value, getattr(earlier, name))
        return replace(self, **changes)

    def total(self, outcome: str | None = None) -> int:
        """Calls that ended, all or with this *outcome*."""
        return sum(n for (_, _, _, ended), n in self.calls.items() if outcome in {None, ended})

    def sent(self, code: str | None = None) -> int:
        """Requests sent, all or with this *code*."""
        return sum(n for (_, _, answered), n in self.attempts.items() if code in {None, answered})


_NOW = frozenset({"circuits", "closed_gates", "budgets"})
"""Not counts."""


def _less(later: Any, earlier: Any) -> Any:
    if isinstance(later, int):
        return later - earlier
    differences = {key: value - earlier[key] if key in earlier else value for key, value in later.items()}
    # What did not happen in between is not there, as in the first snapshot of all.
    return MappingProxyType({key: value for key, value in differences.items() if _counts(value)})


def _counts(value: Any) -> bool:
    return any(value.counts) if isinstance(value, Histogram) else bool(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, tuple):  # named, as the views of gates and budgets are
        return value._asdict()  # type: ignore[attr-defined]  # a named tuple
    plain = msgspec.to_builtins(value, str_keys=True)
    return {key: list(part) if isinstance(part, tuple) else part for key, part in plain.items()}
