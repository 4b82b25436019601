"""The metrics of `gip_resilience.otel`.

On a call's way only a value is put aside, in a deque. The histograms of OpenTelemetry take it when they are
collected (one `record` takes 7 to 14 µs, several times what all the rest of the telling takes together), and what is
counted anyway is read from the counters then.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.metrics import CallbackOptions, Observation

from gip_resilience import _otel_words as words
from gip_resilience.snapshots import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import Histogram, Meter

    from gip_resilience.snapshots import Snapshot

MAX_ASIDE = 20_000
"""Values put aside at most, in all: a minute, the usual time between two collections, of some 160 calls a second of
one kind. Whoever puts aside one more takes the time to record them all."""

_Value = str | int
_Row = tuple[float, dict[str, _Value]]


class Series:
    """Durations with the same attributes that wait for their histogram.

    Bare numbers in a deque, whose ends are thread-safe: nothing the garbage collector has to look at.
    """

    __slots__ = ("_all", "_aside", "_attributes", "_histogram")

    def __init__(self, durations: Durations, histogram: Histogram, attributes: Mapping[str, _Value]) -> None:
        self._all = durations
        self._histogram = histogram
        self._attributes = attributes
        self._aside: deque[float] = deque()

    def put(self, seconds: float) -> None:
        """Put one aside."""
        self._aside.append(seconds)
        if len(self._aside) > self._all.room:
            self._all.record()

    def record(self) -> None:
        """Give the histogram what is its."""
        while self._aside:
            try:
                seconds = self._aside.popleft()
            except IndexError:  # another thread was quicker
                return
            self._histogram.record(seconds, self._attributes)


class Durations:
    """The histograms, and what waits for them. Thread-safe.

    Attributes:
        room: values each series may hold.
    """

    __slots__ = ("_call", "_http", "_series", "room")

    def __init__(self, meter: Meter) -> None:
        self._http = meter.create_histogram(
            words.HTTP_DURATION,
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=words.HTTP_BUCKETS,
        )
        self._call = meter.create_histogram(
            words.CALL_DURATION,
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._series: deque[Series] = deque()
        self.room = MAX_ASIDE

    def request(self, attributes: Mapping[str, _Value]) -> Series:
        """For durations of requests with these attributes."""
        return self._add(self._http, attributes)

    def call(self, attributes: Mapping[str, _Value]) -> Series:
        """For durations of calls with these attributes."""
        return self._add(self._call, attributes)

    def _add(self, histogram: Histogram, attributes: Mapping[str, _Value]) -> Series:
        made = Series(self, histogram, attributes)
        self._series.append(made)
        self.room = MAX_ASIDE // len(self._series)
        return made

    def record(self) -> None:
        """Give the histograms what is theirs."""
        for series in tuple(self._series):
            series.record()


class Metric(NamedTuple):
    """A counter or a gauge that is read off a snapshot."""

    name: str
    unit: str
    description: str
    rows: Callable[[Snapshot], Iterable[_Row]]
    counts: bool = True


_CODE, _OUTCOME, _STATE = words.OURS + "code", words.OURS + "outcome", words.OURS + "circuit.state"


def _by(field: str, *names: str) -> Callable[[Snapshot], Iterator[_Row]]:
    """A mapping of a snapshot; *names* of the parts of its keys."""

    def rows(seen: Snapshot) -> Iterator[_Row]:
        for key, value in getattr(seen, field).items():
            parts = (key,) if isinstance(key, str) else key
            yield value, {name: str(part) for name, part in zip(names, parts, strict=True) if part}

    return rows


def _single(field: str) -> Callable[[Snapshot], Iterator[_Row]]:
    def rows(seen: Snapshot) -> Iterator[_Row]:
        yield getattr(seen, field), {}

    return rows


_WHERE = (words.ADDRESS, words.MODEL)


def _place(where: tuple[str, str]) -> dict[str, _Value]:
    return {name: part for name, part in zip(_WHERE, where, strict=True) if part}


def _states(seen: Snapshot) -> Iterator[_Row]:
    for where, circuit in seen.circuits.items():
        for state in circuit.times:
            yield float(state is circuit.state), {**_place(where), _STATE: str(state)}


def _times(seen: Snapshot) -> Iterator[_Row]:
    for where, circuit in seen.circuits.items():
        for state, seconds in circuit.times.items():
            yield seconds, {**_place(where), _STATE: str(state)}


def _waits(seen: Snapshot) -> Iterator[_Row]:
    for reason, seconds in seen.waits.items():
        yield seconds, {words.OURS + "wait.reason": reason}


METRICS = (
    Metric("calls", "{call}", "Calls that ended.", _by("calls", *_WHERE, _CODE, _OUTCOME)),
    Metric("attempts", "{request}", "Requests sent.", _by("attempts", *_WHERE, _CODE)),
    Metric("retries", "{request}", "Requests that were not a call's first.", _single("retries")),
    Metric("gave_up", "{call}", "Calls whose failure was not tried again any more.", _single("gave_up")),
    Metric("wait.time", "s", "Time spent in pauses.", _waits),
    Metric("refusals", "{request}", "Requests not sent.", _by("refusals", words.OURS + "reason")),
    Metric("hints", "{hint}", "Waits asked for by servers.", _by("hints", words.OURS + "verdict")),
    Metric(
        "circuit.transitions",
        "{transition}",
        "State changes of circuits.",
        _by("transitions", *_WHERE, _STATE, words.OURS + "cause"),
    ),
    Metric("circuit.time", "s", "Time circuits spent in each state.", _times),
    Metric("circuit.state", "1", "1 for the state a circuit is in.", _states, counts=False),
    Metric("probes", "{request}", "Requests sent through half-open circuits.", _by("probes", *_WHERE)),
    Metric("gate.closings", "{closing}", "How often rate-limit gates closed.", _by("gates", *_WHERE)),
    Metric(
        "gate.closed",
        "s",
        "Time until a closed gate opens.",
        lambda seen: ((gate.remaining, _place(where)) for where, gate in seen.closed_gates.items()),
        counts=False,
    ),
    Metric(
        "budget.tokens",
        "{token}",
        "Retries that can be afforded.",
        lambda seen: ((budget.tokens, _place(where)) for where, budget in seen.budgets.items()),
        counts=False,
    ),
    Metric(
        "shadow_refusals",
        "{request}",
        "Requests that a guard in metrics_only mode would have stopped.",
        _by("shadowed", words.OURS + "guard"),
    ),
    Metric("streams", "{event}", "What happened to event streams.", _by("streams", words.OURS + "event")),
    Metric(
        "stream.breaks",
        "{break}",
        "Breaks of event streams.",
        _by("breaks", *_WHERE, _CODE, words.OURS + "action"),
    ),
    Metric("config.reloads", "{reload}", "Changes of configuration.", _by("reloads", words.OURS + "result")),
    Metric(
        "observer.failures", "{failure}", "Observers that raised an exception.", _single("observer_failures")
    ),
)
"""Each is called ``gip_resilience.<name>``."""


class Observed:
    """The counters and gauges, and the moment at which durations are recorded.

    Args:
        meter: makes them.
        durations: are recorded first of all.
        snapshots: reads the counters of every brain there is.
    """

    def __init__(self, meter: Meter, durations: Durations, snapshots: Callable[[], list[Snapshot]]) -> None:
        self._durations = durations
        self._snapshots = snapshots
        self._seen: list[Snapshot] = []
        for number, metric in enumerate(METRICS):
            make: Any = meter.create_observable_counter if metric.counts else meter.create_observable_gauge
            make(
                words.OURS + metric.name,
                callbacks=[self._callback(metric, first=number == 0)],
                unit=metric.unit,
                description=metric.description,
            )

    def _callback(self, metric: Metric, *, first: bool) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:  # noqa: ARG001 - theirs to give
            if first:
                self._durations.record()
                self._seen = self._snapshots()
            return self._observations(metric)

        return observe

    def _observations(self, metric: Metric) -> list[Observation]:
        """What several brains have counted is added up; of what they have now the most is shown."""
        found: dict[frozenset[tuple[str, _Value]], float] = {}
        for seen in self._seen:
            for value, attributes in metric.rows(seen):
                key = frozenset(attributes.items())
                known = found.get(key, 0.0)
                found[key] = known + value if metric.counts else max(known, value)
        return [Observation(value, dict(key)) for key, value in found.items()]
