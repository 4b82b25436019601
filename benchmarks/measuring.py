"""How anything is measured: in turns within one process, short blocks, medians of ratios with their quartiles.

Machines differ and so do their neighbours; a ratio of two blocks that ran one after the other survives that, a number
of microseconds does not. Whoever goes first changes from round to round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

FEWEST_ROUNDS: Final = 5
"""Rounds that are run whatever the time: less has no quartiles worth the name."""

Run: TypeAlias = Callable[[int], float]
"""Does something so many times, and returns the seconds it took."""


class Spread(NamedTuple):
    """A median and its quartiles."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float], factor: float = 1.0) -> Spread:
        """Of *values*, each times *factor*."""
        found = sorted(value * factor for value in values)
        if len(found) == 1:
            return cls(found[0], found[0], found[0])
        low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
        return cls(middle, low, high)


class Row(NamedTuple):
    """One thing that was measured.

    Attributes:
        subject: what is done (a client, a size of chunk).
        case: by what (``bare``, ``ours``, a rival).
        value: what it took, or how many there were.
        unit: of the value: ``µs``, ``ms``, ``s``, ``B``, ``requests``.
        ratio: to the base of its subject, a median of ratios and no ratio of medians; ``None`` for the base.
        size: where a cost is measured against a size: that size, and ``subject`` names what it is of.
    """

    subject: str
    case: str
    value: Spread
    unit: str = "µs"
    ratio: Spread | None = None
    size: int | None = None


@dataclass(slots=True)
class Found:
    """What a bench brings home.

    Attributes:
        rows: what was measured.
        skipped: who was not, and why.
        notes: what a reader of the rows should know.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done: rounds, and seconds after which a comparison is content with fewer.

    Attributes:
        rounds: of each comparison.
        seconds: of each comparison, roughly; at least five rounds are run.
        scale: of the counts within a round; tests run with a small one.
    """

    rounds: int = 31
    seconds: float = 6.0
    scale: float = 1.0

    def times(self, count: int) -> int:
        """*count*, scaled, and at least one."""
        return max(1, round(count * self.scale))

    @property
    def fewest(self) -> int:
        """Rounds that are run whatever the time."""
        return min(self.rounds, FEWEST_ROUNDS)


def compare(
    subject: str,
    runs: Mapping[str, Run],
    effort: Effort,
    times: int,
    *,
    unit: str = "µs",
    size: int | None = None,
) -> list[Row]:
    """Let *runs* take turns, *times* operations a turn; the first is the base of the ratios.

    Times are of one operation, in *unit*. A block of each is run first and not counted.
    """
    factor = {"µs": 1e6, "ms": 1e3, "s": 1.0}[unit]
    for run in runs.values():
        run(max(1, times // 4))
    gc.collect()
    names = list(runs)
    taken: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for number in range(effort.rounds):
        if number >= effort.fewest and time.perf_counter() - began > effort.seconds:
            break
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(runs[name](times) / times)
    return rows(subject, taken, factor=factor, unit=unit, size=size)


def rows(
    subject: str,
    taken: Mapping[str, Sequence[float]],
    *,
    factor: float = 1.0,
    unit: str = "µs",
    size: int | None = None,
) -> list[Row]:
    """The rows of what was taken in turns, round by round; the first is the base of the ratios."""
    base = next(iter(taken))
    found = []
    for name, values in taken.items():
        ratio = None
        if name != base:
            ratio = Spread.of(mine / theirs for mine, theirs in zip(values, taken[base], strict=True))
        found.append(Row(subject, name, Spread.of(values, factor), unit, ratio, size))
    return found


busy: Final = time.process_time
"""Seconds of the processor that this process took: where nobody waits, what neighbours take is no part of it."""

wall: Final = time.perf_counter
"""Seconds, where waiting is what is measured."""


def looped(operation: Callable[[], object], clock: Callable[[], float] = busy) -> Run:
    """Run *operation* in a loop."""

    def run(times: int) -> float:
        start = clock()
        for _ in range(times):
            operation()
        return clock() - start

    return run


def awaited(
    loop: asyncio.AbstractEventLoop, operation: Callable[[], Any], clock: Callable[[], float] = busy
) -> Run:
    """Await *operation* in a loop, within *loop*, whose start is not counted."""

    async def turns(times: int) -> float:
        start = clock()
        for _ in range(times):
            await operation()
        return clock() - start

    def run(times: int) -> float:
        return loop.run_until_complete(turns(times))

    return run
