"""What is read off a run.

All shares are of the calls made in a stretch of time, except goodput: that is successes that *ended* in it over calls
made in it, and may exceed 1 while a backlog is worked off.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from gip_resilience.simulation.clockwork import BINS
from gip_resilience.simulation.troubles import WATCHED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gip_resilience.simulation.clockwork import Ended, Trace
    from gip_resilience.simulation.troubles import Trouble

NEVER = float("inf")

HEALTHY = 0.95
"""Goodput over load from which a stretch counts as healthy..."""

STRETCH = 5
"""...over this many seconds..."""

STEADY = 15
"""...and every second for this many seconds."""


def measure(trouble: Trouble, trace: Trace) -> dict[str, float | None]:
    """The figures of one run; ``None`` where there is nothing to measure, infinity for never."""
    start, end = int(trouble.start), int(trouble.end)
    hit = [call for call in trace.ended if start <= call.arrived < end]
    seen = [call for call in trace.ended if start <= call.arrived < end + 60]
    waits = sorted(call.ended - call.arrived for call in seen if call.succeeded)
    failures = [call.ended - call.arrived for call in hit if not call.succeeded]
    figures: dict[str, float | None] = {
        "sends": sum(call.sends for call in hit) / len(hit),
        "success": _success(hit),
        "during": _goodput(trace, start, end),
        "after": _goodput(trace, end, end + 60),
        "recovery": recovery(trace, end, int(trouble.horizon)),
        "p50": _quantile(waits, 0.5),
        "p99": _quantile(waits, 0.99),
        "fail50": median(failures) if failures else None,
        "peak": _peak(trouble, trace, start, end + 60),
        "first_second": None,
        "limited": float(trace.limited) if trouble.limit else None,
        "others": None,
        "backlog": float(trace.backlog),
    }
    if trouble.limit:
        figures["first_second"] = _first_second(trouble, trace)
    if trouble.models > 1:
        figures["others"] = _success([call for call in hit if call.model >= trouble.hit])
    return figures


def recovery(trace: Trace, end: int, horizon: int) -> float:
    """Seconds after the fault until every stretch that begins in the next 15 s is healthy.

    15 s, because a gateway that is about to drown looks well until its queue is as long as its clients' patience.
    """
    return settled(trace.arrivals, trace.goodput, end, horizon)


def settled(made: Sequence[int], good: Sequence[int], end: int, until: int) -> float:
    """The same of any two counts by the second."""
    healthy = [
        sum(good[begin : begin + STRETCH]) >= HEALTHY * sum(made[begin : begin + STRETCH])
        for begin in range(end, until - STRETCH + 1)
    ]
    for second in range(len(healthy) - STEADY + 1):
        if all(healthy[second : second + STEADY]):
            return float(second)
    return NEVER


class Figures(NamedTuple):
    """What is read off a run, over all the times its fault was on. ``None`` where there is nothing to measure.

    Attributes:
        calls: made during the faults.
        sends: requests sent for each of them.
        success: share of them that succeeded.
        goodput: successes that ended during the faults, over the calls made in that time.
        after: the same of the minute after.
        recovery: seconds from the end of a fault until, for 15 s, of the calls made in any 5 s at least 95 % succeed;
            the median of the faults, infinity for never.
        p50: seconds a call took that succeeded, of those made during the faults and in the minute after; the median.
        p99: the same, of the slowest hundredth the fastest.
        peak: requests in the busiest second of that time, over the calls to be expected in it.
        silent: calls whose caller took for a whole answer what was none.
        others: share that succeeded of the calls for models the fault is not about.
        limited: requests answered with 429, in the whole run.
        requests: sent in the whole run.
        issued: calls made in the whole run.
        succeeded: of these.
        failed: of these.
    """

    calls: int
    sends: float | None
    success: float | None
    goodput: float | None
    after: float | None
    recovery: float
    p50: float | None
    p99: float | None
    peak: float
    silent: int
    others: float | None
    limited: int
    requests: int
    issued: int
    succeeded: int
    failed: int


def read_off(trouble: Trouble, trace: Trace) -> Figures:
    """The figures of a run whose fault may come again and again.

    Recovery goes by when calls were made, not by when they ended: at fifty calls a second the number of those that
    happen to end within a second differs too much from the number that begin.
    """
    faults = [(int(begin), int(end)) for begin, end in trouble.faults(WATCHED)]
    watched = [(begin, end + int(WATCHED)) for begin, end in faults]
    made, good = [0] * trace.seconds, [0] * trace.seconds
    for call in trace.ended:
        made[int(call.arrived)] += 1
        good[int(call.arrived)] += call.succeeded
    hit = [call for call in trace.ended if _within(call.arrived, faults)]
    waits = sorted(
        call.ended - call.arrived for call in trace.ended if call.succeeded and _within(call.arrived, watched)
    )
    borders = [*(begin for begin, _ in faults[1:]), int(trouble.horizon)][: len(faults)]
    recoveries = [settled(made, good, end, border) for (_, end), border in zip(faults, borders, strict=True)]
    seconds = [second for begin, end in watched for second in range(begin, end)]
    others = [call for call in hit if call.model >= trouble.hit] if trouble.hit else []
    succeeded = sum(call.succeeded for call in trace.ended)
    return Figures(
        calls=len(hit),
        sends=sum(call.sends for call in hit) / len(hit) if hit else None,
        success=_success(hit) if hit else None,
        goodput=_share(trace, faults),
        after=_share(trace, [(end, end + int(WATCHED)) for _, end in faults]),
        recovery=median(recoveries) if recoveries else NEVER,
        p50=_quantile(waits, 0.5),
        p99=_quantile(waits, 0.99),
        peak=max(
            (sum(trace.sends[at * BINS : (at + 1) * BINS]) / trouble.rate(at) for at in seconds), default=0.0
        ),
        silent=sum(call.silent for call in trace.ended),
        others=_success(others) if others else None,
        limited=trace.limited,
        requests=sum(trace.sends),
        issued=trace.calls,
        succeeded=succeeded,
        failed=len(trace.ended) - succeeded,
    )


def _within(when: float, spans: Sequence[tuple[int, int]]) -> bool:
    return any(begin <= when < end for begin, end in spans)


def _share(trace: Trace, spans: Sequence[tuple[int, int]]) -> float | None:
    made = sum(sum(trace.arrivals[begin:end]) for begin, end in spans)
    return sum(sum(trace.goodput[begin:end]) for begin, end in spans) / made if made else None


def _success(calls: Sequence[Ended]) -> float:
    return sum(call.succeeded for call in calls) / len(calls)


def _goodput(trace: Trace, begin: int, end: int) -> float:
    return sum(trace.goodput[begin:end]) / sum(trace.arrivals[begin:end])


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def _peak(trouble: Trouble, trace: Trace, begin: int, end: int) -> float:
    """The busiest tenth of a second over the load of its moment; a Poisson process alone makes 1.5 to 1.6."""
    sends = trace.sends[begin * BINS : end * BINS]
    return max(count * BINS / trouble.rate(begin + slot / BINS) for slot, count in enumerate(sends))


def _first_second(trouble: Trouble, trace: Trace) -> float:
    """The busiest first second of a window, of those since the fault began, over the load of its moment."""
    window = int(trouble.window)
    resets = range(int(trouble.start) + window, int(trouble.horizon), window)
    return max(sum(trace.sends[reset * BINS : (reset + 1) * BINS]) / trouble.rate(reset) for reset in resets)
