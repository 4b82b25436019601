"""Prometheus: what was counted, for ``prometheus_client`` to show.

    from prometheus_client import REGISTRY
    from gip_resilience.prometheus import ResilienceCollector

    REGISTRY.register(ResilienceCollector(res))

Counts are read when they are scraped; a call pays nothing. Where several processes are scraped as one (gunicorn and
the like) it takes a `MultiProcessObserver` instead.

Needs ``prometheus_client``: ``pip install 'gip-resilience[prometheus]'``.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeAlias

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise ImportError(
        "gip_resilience.prometheus needs prometheus_client: pip install 'gip-resilience[prometheus]'"
    ) from error

from gip_resilience._names import Names
from gip_resilience._prometheus_families import FAMILIES, Family, Labels, bounded
from gip_resilience._prometheus_shared import MultiProcessObserver
from gip_resilience.resilience import Resilience
from gip_resilience.snapshots import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

__all__ = ["FAMILIES", "Family", "MultiProcessObserver", "ResilienceCollector"]

_Table: TypeAlias = dict[str, dict[Labels, Any]]
"""By the name of the family and the values of its labels: numbers, or a `Histogram`."""


class _Member:
    """A brain that is collected, and what it had counted when it was seen last."""

    def __init__(self, brain: Resilience, client: str, names: Names) -> None:
        self.brain = weakref.ref(brain)
        self.client = client
        self._names = names
        self.last: _Table = {}

    def read(self, brain: Resilience) -> _Table:
        self._names.limits = brain.config.observe
        seen = brain.metrics.snapshot()
        table: _Table = {}
        for family in FAMILIES:
            rows = ((bounded(self._names, family, labels), value) for labels, value in family.rows(seen))
            _merge(table.setdefault(family.name, {}), rows, most=family.most)
        self.last = table
        return table


def _merge(into: dict[Labels, Any], rows: Iterable[tuple[Labels, Any]], *, most: bool) -> None:
    for labels, value in rows:
        known = into.get(labels)
        if known is None:
            into[labels] = value
        else:
            into[labels] = max(known, value) if most else known + value


class ResilienceCollector(Collector):
    """Shows what any number of brains have counted, read when it is scraped.

    What several of them have counted is added up. Of their circuits the state of each is shown (so that one that is
    open is seen), of closed gates the one that opens last; budgets and waiters are added up. To tell them apart give
    them names: ``ResilienceCollector(chat=one, search=another)`` adds a label ``client`` to everything.

    A registry takes one collector (it raises ``DuplicateTimeseries``, a ``ValueError``, at a second one): `add`
    further brains to that one. A collector may be on any number of registries.

    Brains are held weakly. Of one that is gone the last that was scraped remains counted, since a counter must not
    go down; what there was of circuits, gates and budgets goes with it.

    Hosts and models are told apart up to the limits of ``observe``, in circuits and gates too; the rest is ``other``.

    In multi-process mode ``prometheus_client`` shows no collectors: see `MultiProcessObserver`.

    Args:
        brains: what is to be shown without a name.
        named: what is to be shown with one.

    Raises:
        TypeError: something is not a `Resilience`.

    Thread-safe.
    """

    def __init__(self, *brains: Resilience, **named: Resilience) -> None:
        self._lock = threading.RLock()  # a scrape may end calls, and so call observers
        self._members: list[_Member] = []
        self._gone: dict[str, _Table] = {}
        self._names: dict[str, Names] = {}  # of each client, so that brains that come and go do not add up
        self.add(*brains)
        for client, brain in named.items():
            self.add(brain, client=client)

    def __repr__(self) -> str:
        return f"<ResilienceCollector of {len(self._members)}>"

    def add(self, *brains: Resilience, client: str = "") -> None:
        """Show further brains; one that is there already is left as it is.

        Args:
            brains: which.
            client: their name; empty for none.

        Raises:
            TypeError: one is not a `Resilience`.
        """
        for brain in brains:
            if not isinstance(brain, Resilience):
                raise TypeError(f"expected a gip_resilience.Resilience, got {type(brain).__name__}")
        with self._lock:
            for brain in brains:
                if all(member.brain() is not brain for member in self._members):
                    names = self._names.setdefault(client, Names(brain.config.observe))
                    self._members.append(_Member(brain, client, names))

    def describe(self) -> Iterable[Metric]:
        """Names without values, which a registry asks for."""
        return [_empty(family, family.labels) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        """Everything as it is now."""
        with self._lock:
            found = self._read()
        named = any(found)
        shown = []
        for family in FAMILIES:
            metric = _empty(family, (*family.labels, "client") if named else family.labels)
            for client, table in found.items():
                rows = dict.fromkeys(family.known, 0)
                rows.update(table.get(family.name, {}))
                for labels, value in rows.items():
                    _show(metric, [*labels, client] if named else list(labels), value)
            shown.append(metric)
        return shown

    def _read(self) -> dict[str, _Table]:
        """By the name of the client (needs the lock)."""
        living: list[_Member] = []
        tables: list[tuple[str, _Table]] = []
        for member in self._members:
            brain = member.brain()
            if brain is None:
                self._retire(member)
            else:
                living.append(member)
                tables.append((member.client, member.read(brain)))
        self._members = living
        found: dict[str, _Table] = {client: {} for client, _ in tables}
        for client, table in (*self._gone.items(), *tables):
            mine = found.setdefault(client, {})
            for family in FAMILIES:
                rows = table.get(family.name, {}).items()
                _merge(mine.setdefault(family.name, {}), rows, most=family.most)
        return found or {"": {}}

    def _retire(self, member: _Member) -> None:
        """Keep what a brain had counted."""
        kept = self._gone.setdefault(member.client, {})
        for family in FAMILIES:
            if family.kind != "gauge":
                _merge(kept.setdefault(family.name, {}), member.last.get(family.name, {}).items(), most=False)


_KINDS: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _empty(family: Family, labels: Labels) -> Any:
    return _KINDS[family.kind](family.name, family.help, labels=labels, unit=family.unit)


def _show(metric: Any, labels: list[str], value: float | Histogram) -> None:
    if not isinstance(value, Histogram):
        metric.add_metric(labels, value)
        return
    below, buckets = 0, []
    for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
        below += count
        le = floatToGoString(bound)  # type: ignore[no-untyped-call]  # as their own histograms write it
        buckets.append((le, below))
    metric.add_metric(labels, buckets, value.total)
