"""The metrics of `gip_resilience.prometheus`: names, and where their values come from.

Names follow the conventions of Prometheus: base units, ``_total`` for what only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gip_resilience._names import OTHER
from gip_resilience._version import __version__
from gip_resilience.breaker import Control, State
from gip_resilience.snapshots import ATTEMPTS, SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gip_resilience._names import Names
    from gip_resilience.snapshots import Snapshot

Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric, by its name.

    Attributes:
        name: as it is scraped; of a histogram without ``_bucket``, ``_count`` and ``_sum``.
        kind: its type.
        help: what it is.
        labels: names of its labels.
        rows: reads it off a snapshot.
        known: values of the labels that are shown from the start, at 0, so that the first increase is seen as one.
        most: several values of the same labels make the largest of them, not the sum.
        told: whether a `MultiProcessObserver` has it.
        counted: whether it was counted by us; otherwise it is what there is now.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels
    rows: Callable[[Snapshot], Iterable[tuple[Labels, Any]]]
    known: tuple[Labels, ...] = ()
    most: bool = False
    told: bool = True
    counted: bool = True

    @property
    def unit(self) -> str:
        """Of its values; empty for plain numbers."""
        return "seconds" if self.name.removesuffix("_total").endswith("_seconds") else ""

    @property
    def bounds(self) -> tuple[float, ...]:
        """Of its buckets, if it is a histogram."""
        return SECONDS if self.unit else ATTEMPTS


def _by(field: str) -> Callable[[Snapshot], Iterator[tuple[Labels, Any]]]:
    """A mapping of a snapshot."""

    def rows(seen: Snapshot) -> Iterator[tuple[Labels, Any]]:
        for key, value in getattr(seen, field).items():
            yield (key,) if isinstance(key, str) else tuple(key), value

    return rows


def _single(field: str) -> Callable[[Snapshot], Iterator[tuple[Labels, Any]]]:
    return lambda seen: iter([((), getattr(seen, field))])


def _states(seen: Snapshot) -> Iterator[tuple[Labels, Any]]:
    for where, circuit in seen.circuits.items():
        for state in State:
            yield (*where, str(state)), int(state is circuit.state)


def _times(seen: Snapshot) -> Iterator[tuple[Labels, Any]]:
    for where, circuit in seen.circuits.items():
        for state, seconds in circuit.times.items():
            yield (*where, str(state)), seconds


def _forced(seen: Snapshot) -> Iterator[tuple[Labels, Any]]:
    for where, circuit in seen.circuits.items():
        if circuit.control is not Control.AUTO:
            yield (*where, str(circuit.control)), 1


def _view(field: str, part: str) -> Callable[[Snapshot], Iterator[tuple[Labels, Any]]]:
    """One number of each gate or budget."""

    def rows(seen: Snapshot) -> Iterator[tuple[Labels, Any]]:
        for where, view in getattr(seen, field).items():
            yield tuple(where), getattr(view, part)

    return rows


def _each(*names: str) -> tuple[Labels, ...]:
    return tuple((name,) for name in names)


PREFIX = "gip_resilience_"
WHERE = ("host", "model")

FAMILIES: tuple[Family, ...] = (
    Family(PREFIX + "calls_total", "counter", "Calls that ended.", (*WHERE, "code", "outcome"), _by("calls")),
    Family(PREFIX + "attempts_total", "counter", "Requests sent.", (*WHERE, "code"), _by("attempts")),
    Family(
        PREFIX + "retries_total",
        "counter",
        "Requests that were not the first of their call.",
        (),
        _single("retries"),
    ),
    Family(
        PREFIX + "gave_up_total",
        "counter",
        "Calls that ended with a failure that is retried by policy, and was not, or not any more.",
        (),
        _single("gave_up"),
    ),
    Family(
        PREFIX + "refusals_total",
        "counter",
        "Calls, or further attempts of them, that were not sent.",
        ("reason",),
        _by("refusals"),
        _each("circuit_open", "rate_limited", "deadline", "budget"),
    ),
    Family(
        PREFIX + "hints_total",
        "counter",
        "Waits that servers asked for, by what became of them.",
        ("verdict",),
        _by("hints"),
        _each("honoured", "refused"),
    ),
    Family(
        PREFIX + "circuit_transitions_total",
        "counter",
        "State changes of circuits, by the state entered and the cause.",
        (*WHERE, "state", "cause"),
        _by("transitions"),
    ),
    Family(
        PREFIX + "probes_total", "counter", "Requests sent through half-open circuits.", WHERE, _by("probes")
    ),
    Family(
        PREFIX + "gate_closings_total", "counter", "How often rate-limit gates closed.", WHERE, _by("gates")
    ),
    Family(
        PREFIX + "shadow_refusals_total",
        "counter",
        "Requests that a guard in metrics_only mode would have refused or held.",
        ("guard",),
        _by("shadowed"),
        _each("circuit", "gate", "budget"),
    ),
    Family(
        PREFIX + "streams_total",
        "counter",
        "Event streams that opened and broke, and what was done about the breaks.",
        ("event",),
        _by("streams"),
        _each(
            "opened",
            "breaks",
            "restart",
            "resume",
            "replay",
            "marker",
            "end",
            "fail",
            "diverged",
            "unguarded",
        ),
    ),
    Family(
        PREFIX + "stream_breaks_total",
        "counter",
        "Breaks of event streams, by their code and what was done.",
        (*WHERE, "code", "action"),
        _by("breaks"),
    ),
    Family(
        PREFIX + "config_reloads_total",
        "counter",
        "Changes of the configuration, by whether they took effect.",
        ("result",),
        _by("reloads"),
        _each("applied", "rejected"),
    ),
    Family(
        PREFIX + "state_degraded_total",
        "counter",
        "How often shared state was not what it should be, by store.",
        ("component",),
        _by("degraded"),
    ),
    Family(
        PREFIX + "state_restored_total",
        "counter",
        "How often shared state was whole again, by store.",
        ("component",),
        _by("restored"),
    ),
    Family(
        PREFIX + "observer_failures_total",
        "counter",
        "How often an observer raised.",
        (),
        _single("observer_failures"),
        told=False,
    ),
    Family(
        PREFIX + "call_duration_seconds",
        "histogram",
        "Time from the start of a call to its end, waits included.",
        WHERE,
        _by("call_seconds"),
    ),
    Family(
        PREFIX + "attempt_duration_seconds",
        "histogram",
        "Time from the sending of a request to its verdict.",
        WHERE,
        _by("attempt_seconds"),
    ),
    Family(PREFIX + "call_attempts", "histogram", "Requests per call.", WHERE, _by("call_attempts")),
    Family(
        PREFIX + "wait_seconds",
        "histogram",
        "Length of the pauses that calls make.",
        ("reason",),
        _by("wait_seconds"),
    ),
    # What there is now comes last: names that were counted are the first to be told apart.
    Family(
        PREFIX + "circuit_state_seconds_total",
        "counter",
        "Time that circuits spent in each state.",
        (*WHERE, "state"),
        _times,
        told=False,
        counted=False,
    ),
    Family(
        PREFIX + "circuit_state",
        "gauge",
        "1 for the state that a circuit is in, 0 for the others.",
        (*WHERE, "state"),
        _states,
        most=True,
        counted=False,
    ),
    Family(
        PREFIX + "circuit_forced",
        "gauge",
        "1 where something else than a circuit itself has the last word.",
        (*WHERE, "control"),
        _forced,
        most=True,
        counted=False,
    ),
    Family(
        PREFIX + "gate_closed_seconds",
        "gauge",
        "Time until a closed rate-limit gate opens.",
        WHERE,
        _view("closed_gates", "remaining"),
        most=True,
        told=False,
        counted=False,
    ),
    Family(
        PREFIX + "gate_waiters",
        "gauge",
        "Calls that wait at a closed rate-limit gate.",
        WHERE,
        _view("closed_gates", "waiting"),
        told=False,
        counted=False,
    ),
    Family(
        PREFIX + "budget_tokens",
        "gauge",
        "Retry tokens that are left.",
        WHERE,
        _view("budgets", "tokens"),
        told=False,
        counted=False,
    ),
    Family(
        PREFIX + "budget_capacity_tokens",
        "gauge",
        "Retry tokens that there can be.",
        WHERE,
        _view("budgets", "capacity"),
        told=False,
        counted=False,
    ),
    Family(
        PREFIX + "info",
        "gauge",
        "1, labelled with the version of the library.",
        ("version",),
        lambda _seen: [((__version__,), 1)],
        most=True,
    ),
)
"""Every metric there is, in the order in which they are shown."""


def bounded(names: Names, family: Family, labels: Labels) -> Labels:
    """Values of a family's labels, with no more names than are told apart.

    What was counted has bounded names; we take note of them, so that the rest goes by the same ones.
    """
    if family.labels[:2] != WHERE or (family.counted and OTHER in labels[:2]):
        return labels
    where = names.where(labels[0], labels[1])
    return labels if family.counted else (*where, *labels[2:])
