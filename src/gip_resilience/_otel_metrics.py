"""The metrics of `gip_resilience.otel`.

On a call's way only a value is put aside, in a deque. The histograms of OpenTelemetry take it when they are
collected (one `record` takes 7 to 14 µs, several times what all the rest of the telling takes together), and what is
counted anyway is read from the counters then.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

from gip_resilience import _otel_words as words
from gip_resilience.breaker import Control
from gip_resilience.snapshots import SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import Histogram, Meter

    from gip_resilience._names import Names
    from gip_resilience.snapshots import Snapshot

MAX_ASIDE = 100_000
"""Values put aside at most, 3 MB of them: a minute, the usual time between two collections, of some 800 calls a
second (each puts two aside). Whoever puts aside more records as well."""

AT_ONCE = 50
"""Values that a call records where there is no room left: half a millisecond. The mean is one a call all the same."""

MAX_SERIES = 1999
"""Sets of attributes of each histogram: with one for all the rest as many as the SDK holds by default."""

_ROOM = 10
"""Values that a series may hold however many series there are."""

_NOWHERE = trace.set_span_in_context(trace.INVALID_SPAN, Context())
"""Durations are recorded wherever there is time: no exemplar of them may lead to the trace that is current there."""

_Value = str | int
_Row = tuple[float, dict[str, _Value]]


class Series:
    """Durations with the same attributes that wait for their histogram.

    Bare numbers in a deque, whose ends are thread-safe: nothing the garbage collector has to look at.
    """

    __slots__ = ("_all", "_attributes", "_histogram", "aside")

    def __init__(self, durations: Durations, histogram: Histogram, attributes: Mapping[str, _Value]) -> None:
        self._all = durations
        self._histogram = histogram
        self._attributes = attributes
        self.aside: deque[float] = deque()

    def put(self, seconds: float) -> None:
        """Put one aside."""
        self.aside.append(seconds)
        if len(self.aside) > self._all.room:
            self.record(AT_ONCE)

    def record(self, most: int) -> None:
        """Give the histogram what is its, *most* at a time."""
        for _ in range(min(most, len(self.aside))):
            try:
                seconds = self.aside.popleft()
            except IndexError:  # another thread was quicker
                return
            self._histogram.record(seconds, self._attributes, _NOWHERE)


class Durations:
    """The histograms, and what waits for them. Thread-safe.

    Attributes:
        room: values each series may hold.
    """

    __slots__ = ("_call", "_http", "_listed", "_series", "room")

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
        self._series: dict[Histogram, dict[frozenset[tuple[str, _Value]], Series]] = {
            self._http: {},
            self._call: {},
        }
        self._listed: list[Series] = []
        self.room = MAX_ASIDE

    def request(self, attributes: Mapping[str, _Value]) -> Series:
        """For durations of requests with these attributes."""
        return self._find(self._http, attributes)

    def call(self, attributes: Mapping[str, _Value]) -> Series:
        """For durations of calls with these attributes."""
        return self._find(self._call, attributes)

    def _find(self, histogram: Histogram, attributes: Mapping[str, _Value]) -> Series:
        series = self._series[histogram]
        key = frozenset(attributes.items())
        found = series.get(key)
        if found is not None:
            return found
        if len(series) >= MAX_SERIES:
            attributes = {words.OVERFLOW: True}
            key = frozenset(attributes.items())
        made = Series(self, histogram, attributes)
        found = series.setdefault(key, made)  # another thread may have been quicker
        if found is made:
            self._listed.append(made)
            self.room = max(_ROOM, MAX_ASIDE // len(self._listed))
        return found

    def record(self) -> None:
        """Give the histograms what is theirs by now."""
        for series in tuple(self._listed):
            series.record(len(series.aside))

    def waiting(self) -> int:
        """How many durations wait."""
        return sum(len(series.aside) for series in tuple(self._listed))


class Metric(NamedTuple):
    """A counter or a gauge that is read off a snapshot.

    Attributes:
        rows: its values and their attributes.
        counts: whether it only grows.
        most: of values with the same attributes the greatest is shown, and not the sum.
    """

    name: str
    unit: str
    description: str
    rows: Callable[[Snapshot], Iterable[_Row]]
    counts: bool = True
    most: bool = False


_CODE, _OUTCOME, _STATE = words.OURS + "code", words.OURS + "outcome", words.OURS + "circuit.state"
_WHERE = (words.ADDRESS, words.MODEL)


def _by(field: str, *names: str) -> Callable[[Snapshot], Iterator[_Row]]:
    """A mapping of a snapshot; *names* of the parts of its keys."""

    def rows(seen: Snapshot) -> Iterator[_Row]:
        for key, value in getattr(seen, field).items():
            parts = (key,) if isinstance(key, str) else key
            yield value, {name: str(part) for name, part in zip(names, parts, strict=True)}

    return rows


def _single(field: str) -> Callable[[Snapshot], Iterator[_Row]]:
    def rows(seen: Snapshot) -> Iterator[_Row]:
        yield getattr(seen, field), {}

    return rows


def _view(field: str, part: str) -> Callable[[Snapshot], Iterator[_Row]]:
    """A part of what there is now, by host and model."""

    def rows(seen: Snapshot) -> Iterator[_Row]:
        for where, view in getattr(seen, field).items():
            yield getattr(view, part), _place(where)

    return rows


def _place(where: tuple[str, str]) -> dict[str, _Value]:
    return dict(zip(_WHERE, where, strict=True))


def _states(seen: Snapshot) -> Iterator[_Row]:
    for where, circuit in seen.circuits.items():
        for state in circuit.times:
            yield float(state is circuit.state), {**_place(where), _STATE: str(state)}


def _forced(seen: Snapshot) -> Iterator[_Row]:
    for where, circuit in seen.circuits.items():
        if circuit.control is not Control.AUTO:
            yield 1, {**_place(where), words.OURS + "circuit.control": str(circuit.control)}


def _times(seen: Snapshot) -> Iterator[_Row]:
    for where, circuit in seen.circuits.items():
        for state, seconds in circuit.times.items():
            yield seconds, {**_place(where), _STATE: str(state)}


METRICS = (
    Metric("calls", "{call}", "Calls that ended.", _by("calls", *_WHERE, _CODE, _OUTCOME)),
    Metric("attempts", "{request}", "Requests sent.", _by("attempts", *_WHERE, _CODE)),
    Metric("retries", "{request}", "Requests that were not a call's first.", _single("retries")),
    Metric("gave_up", "{call}", "Calls whose failure was not tried again any more.", _single("gave_up")),
    Metric("wait.time", "s", "Time spent in pauses.", _by("waits", words.OURS + "wait.reason")),
    Metric("refusals", "{request}", "Requests not sent.", _by("refusals", words.OURS + "reason")),
    Metric("hints", "{hint}", "Waits asked for by servers.", _by("hints", words.OURS + "verdict")),
    Metric(
        "circuit.transitions",
        "{transition}",
        "State changes of circuits.",
        _by("transitions", *_WHERE, _STATE, words.OURS + "cause"),
    ),
    Metric("probes", "{request}", "Requests sent through half-open circuits.", _by("probes", *_WHERE)),
    Metric("gate.closings", "{closing}", "How often rate-limit gates closed.", _by("gates", *_WHERE)),
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
        "state.degraded",
        "{event}",
        "How often shared state was not what it should be.",
        _by("degraded", words.OURS + "component"),
    ),
    Metric(
        "state.restored",
        "{event}",
        "How often shared state was whole again.",
        _by("restored", words.OURS + "component"),
    ),
    Metric(
        "observer.failures", "{failure}", "Observers that raised an exception.", _single("observer_failures")
    ),
    # What there is now comes last: names that were counted are the first to be told apart.
    Metric("circuit.time", "s", "Time circuits spent in each state.", _times),
    Metric("circuit.state", "1", "1 for the state a circuit is in.", _states, counts=False, most=True),
    Metric(
        "circuit.forced",
        "1",
        "1 where something else than a circuit itself has the last word.",
        _forced,
        counts=False,
        most=True,
    ),
    Metric(
        "gate.closed",
        "s",
        "Time until a closed gate opens.",
        _view("closed_gates", "remaining"),
        counts=False,
        most=True,
    ),
    Metric(
        "gate.waiters",
        "{call}",
        "Calls that wait at a closed gate.",
        _view("closed_gates", "waiting"),
        counts=False,
    ),
    Metric(
        "budget.tokens", "{token}", "Retry tokens that are left.", _view("budgets", "tokens"), counts=False
    ),
    Metric(
        "budget.capacity",
        "{token}",
        "Retry tokens that there can be.",
        _view("budgets", "capacity"),
        counts=False,
    ),
)
"""Each is called ``gip_resilience.<name>``."""


class Observed:
    """The counters and gauges, and the moment at which durations are recorded.

    Args:
        meter: makes them.
        durations: are recorded first of all.
        snapshots: reads the counters of every brain there is.
        names: bounds the names of what there is now; what is counted is bounded already.
    """

    def __init__(
        self, meter: Meter, durations: Durations, snapshots: Callable[[], list[Snapshot]], names: Names
    ) -> None:
        self._durations = durations
        self._snapshots = snapshots
        self._names = names
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
                # In this order: reading the counters ends the calls whose streams were dropped.
                self._seen = self._snapshots()
                self._durations.record()
            return self._observations(metric)

        return observe

    def _observations(self, metric: Metric) -> list[Observation]:
        """One for each set of attributes, whatever the brains and the names behind it."""
        found: dict[frozenset[tuple[str, _Value]], float] = {}
        for seen in self._seen:
            for value, raw in metric.rows(seen):
                key = frozenset(self._bounded(raw).items())
                known = found.get(key, 0.0)
                found[key] = max(known, value) if metric.most else known + value
        return [Observation(value, dict(key)) for key, value in found.items()]

    def _bounded(self, attributes: dict[str, _Value]) -> dict[str, _Value]:
        if words.ADDRESS not in attributes:
            return attributes
        rest = dict(attributes)
        host, model = self._names.where(str(rest.pop(words.ADDRESS)), str(rest.pop(words.MODEL)))
        if model:
            rest[words.MODEL] = model
        return words.address(host) | rest
