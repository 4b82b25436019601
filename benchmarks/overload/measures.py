"""What is read off a run.

All shares are of the calls made in a stretch of time, except goodput: that is successes that *ended* in it over calls
made in it, and may exceed 1 while a backlog is worked off.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from .scenarios import HUNG
from .simulation import BINS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scenarios import Scenario
    from .simulation import Ended, Trace

NEVER = float("inf")

HEALTHY = 0.95
"""Goodput over load from which a stretch counts as healthy..."""

STRETCH = 5
"""...over this many seconds..."""

STEADY = 15
"""...and every second for this many seconds."""


def measure(scenario: Scenario, trace: Trace) -> dict[str, float | None]:
    """The figures of one run; ``None`` where there is nothing to measure, infinity for never."""
    start, end = int(scenario.start), int(scenario.end)
    hit = [call for call in trace.ended if start <= call.arrived < end]
    seen = [call for call in trace.ended if start <= call.arrived < end + 60]
    waits = sorted(call.ended - call.arrived for call in seen if call.succeeded)
    failures = [call.ended - call.arrived for call in hit if not call.succeeded]
    figures: dict[str, float | None] = {
        "sends": sum(call.sends for call in hit) / len(hit),
        "success": _success(hit),
        "during": _goodput(trace, start, end),
        "after": _goodput(trace, end, end + 60),
        "recovery": recovery(trace, end, int(scenario.horizon)),
        "p50": _quantile(waits, 0.5),
        "p99": _quantile(waits, 0.99),
        "fail50": median(failures) if failures else None,
        "peak": _peak(scenario, trace, start, end + 60),
        "first_second": None,
        "limited": float(trace.limited) if scenario.limit else None,
        "others": None,
        "backlog": float(trace.backlog),
    }
    if scenario.limit:
        figures["first_second"] = _first_second(scenario, trace)
    if scenario.models > 1:
        figures["others"] = _success([call for call in hit if call.model != HUNG])
    return figures


def recovery(trace: Trace, end: int, horizon: int) -> float:
    """Seconds after the fault until every stretch that begins in the next 15 s is healthy.

    15 s, because a gateway that is about to drown looks well until its queue is as long as its clients' patience.
    """
    healthy = []
    for begin in range(end, horizon - STRETCH + 1):
        goodput = sum(trace.goodput[begin : begin + STRETCH])
        healthy.append(goodput >= HEALTHY * sum(trace.arrivals[begin : begin + STRETCH]))
    for second in range(len(healthy) - STEADY + 1):
        if all(healthy[second : second + STEADY]):
            return float(second)
    return NEVER


def _success(calls: Sequence[Ended]) -> float:
    return sum(call.succeeded for call in calls) / len(calls)


def _goodput(trace: Trace, begin: int, end: int) -> float:
    return sum(trace.goodput[begin:end]) / sum(trace.arrivals[begin:end])


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def _peak(scenario: Scenario, trace: Trace, begin: int, end: int) -> float:
    """The busiest tenth of a second over the load of its moment; a Poisson process alone makes 1.5 to 1.6."""
    sends = trace.sends[begin * BINS : end * BINS]
    return max(count * BINS / scenario.rate(begin + slot / BINS) for slot, count in enumerate(sends))


def _first_second(scenario: Scenario, trace: Trace) -> float:
    """The busiest first second of a window, of those since the fault began, over the load of its moment."""
    window = int(scenario.window)
    resets = range(int(scenario.start) + window, int(scenario.horizon), window)
    return max(sum(trace.sends[reset * BINS : (reset + 1) * BINS]) / scenario.rate(reset) for reset in resets)
