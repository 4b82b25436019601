"""Counting into metrics that processes share; see `gip_resilience.prometheus`."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, values
from prometheus_client.registry import CollectorRegistry

from gip_resilience._config_groups import ObserveConfig
from gip_resilience._names import Names
from gip_resilience._prometheus_families import FAMILIES, PREFIX, Family
from gip_resilience._version import __version__
from gip_resilience.breaker import Control, State

if TYPE_CHECKING:
    from gip_resilience import events
    from gip_resilience.resilience import Resilience


class _Scope:
    """The counters of one model at one host, found once."""

    __slots__ = ("attempt_seconds", "attempts", "call_attempts", "call_seconds", "calls", "where")

    def __init__(self, book: _Book, host: str, model: str) -> None:
        self.where = host, model
        self.call_seconds = book[PREFIX + "call_duration_seconds"].labels(host, model)
        self.attempt_seconds = book[PREFIX + "attempt_duration_seconds"].labels(host, model)
        self.call_attempts = book[PREFIX + "call_attempts"].labels(host, model)
        self.attempts: dict[str, Counter] = {}
        self.calls: dict[tuple[str, str], Counter] = {}


class _Book:
    """The metrics of a process, and the names they tell apart. All observers of a process write into one."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.lock = threading.Lock()
        self.names = Names(ObserveConfig())
        self._scopes: dict[tuple[str, str], _Scope] = {}
        self._metrics: dict[str, Any] = {}
        for family in FAMILIES:
            if family.told:
                self._metrics[family.name] = self._make(family, registry)

    @staticmethod
    def _make(family: Family, registry: CollectorRegistry | None) -> Counter | Gauge | Histogram:
        said: dict[str, Any] = {"labelnames": family.labels, "unit": family.unit, "registry": registry}
        made: Counter | Gauge | Histogram
        match family.kind:
            case "counter":
                made = Counter(family.name, family.help, **said)
            case "gauge":
                made = Gauge(family.name, family.help, multiprocess_mode="livemax", **said)
            case "histogram":  # pragma: no branch - there is no other
                made = Histogram(family.name, family.help, buckets=family.bounds, **said)
        for labels in family.known:
            made.labels(*labels)
        return made

    def __getitem__(self, name: str) -> Any:
        return self._metrics[name]

    def increase(self, name: str, *labels: str) -> None:
        """Count one."""
        metric = self._metrics[PREFIX + name]
        (metric.labels(*labels) if labels else metric).inc()

    def pair(self, host: str, model: str) -> tuple[str, str]:
        with self.lock:
            return self.names.where(host, model)

    def code(self, code: str) -> str:
        with self.lock:
            return self.names.code(code)

    def scope(self, host: str, model: str) -> _Scope:
        found = self._scopes.get((host, model))
        if found is None:
            with self.lock:
                pair = self.names.where(host, model)
                found = self._scopes.get(pair)
                if found is None:
                    found = self._scopes[pair] = _Scope(self, *pair)
        return found

    def attempts(self, scope: _Scope, code: str) -> Any:
        """The counter of a code; one that is not told apart is looked up each time."""
        with self.lock:
            name = self.names.code(code)
            found = self._metrics[PREFIX + "attempts_total"].labels(*scope.where, name)
            scope.attempts[name] = found
        return found

    def calls(self, scope: _Scope, code: str, outcome: str) -> Any:
        """The counter of a code and an outcome."""
        with self.lock:
            name = self.names.code(code)
            found = self._metrics[PREFIX + "calls_total"].labels(*scope.where, name, outcome)
            scope.calls[name, outcome] = found
        return found


_books: weakref.WeakKeyDictionary[CollectorRegistry, _Book] = weakref.WeakKeyDictionary()
_books_lock = threading.Lock()
_everybody = CollectorRegistry()
"""Stands for the files of multi-process mode, of which a process has one set."""


def _book(registry: CollectorRegistry) -> _Book:
    """The book of a registry, made once: a second set of the same metrics would overwrite the first."""
    shared = values.ValueClass is not values.MutexValue  # chosen when prometheus_client is imported
    if not shared and "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        raise RuntimeError(
            "PROMETHEUS_MULTIPROC_DIR was set after prometheus_client was imported, which is too late:"
            " set it before the program starts"
        )
    with _books_lock:
        key = _everybody if shared else registry
        found = _books.get(key)
        if found is None:
            found = _books[key] = _Book(None if shared else registry)
    return found


class MultiProcessObserver:
    """Counts into metrics of ``prometheus_client``, which processes can share.

    For servers that have several worker processes, scraped as one. The metrics are those of `ResilienceCollector`,
    by the same names; each is exact as soon as a call has ended::

        res = gr.Resilience(observers=[MultiProcessObserver()])

    What ``prometheus_client`` asks for besides: ``PROMETHEUS_MULTIPROC_DIR`` names a directory before the program
    starts, which is emptied when the server does; what is scraped is ``MultiProcessCollector(registry)``; and the
    server says which of its workers have ended, so that their circuits are not shown for ever (what they counted
    stays)::

        # gunicorn.conf.py
        from prometheus_client import multiprocess

        def child_exit(server, worker):
            multiprocess.mark_process_dead(worker.pid)

    Each worker has circuits of its own. ``gip_resilience_circuit_state`` is 1 where the circuit of any living worker
    is in that state, so two states may be. A circuit is shown from its first change on, in a child that was forked
    from its next, and as it was last also when it was forgotten (`StateDegraded`).

    What is not to be had this way, because it is no event but has to be looked at when it is scraped: the level of
    budgets, the time until gates open and who waits there, the time spent in each state of a circuit (the average of
    ``gip_resilience_circuit_state`` over time says as much), and failures of observers.

    Args:
        registry: where the metrics are registered if ``prometheus_client`` is not in multi-process mode, so that the
            same program may run in one process. In multi-process mode they belong to no registry.

    Raises:
        RuntimeError: ``PROMETHEUS_MULTIPROC_DIR`` was set too late to have an effect.

    Thread-safe and task-safe. Any number of them, and of brains, may be in a process; all count into the same
    metrics. Names of hosts, models and codes that are too many (``observe``, of the brain that was made last) are
    counted as ``other``.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._book = _book(registry)
        self._brains: list[weakref.ref[Resilience]] = []

    def __repr__(self) -> str:
        return "MultiProcessObserver()"

    def bind(self, resilience: Resilience) -> None:
        """Take its limits. Called by `Resilience` itself."""
        self._brains = [*(known for known in self._brains if known() is not None), weakref.ref(resilience)]
        self._limit(resilience.config.observe)
        self._book[PREFIX + "info"].labels(__version__).set(1)

    def _limit(self, limits: ObserveConfig) -> None:
        with self._book.lock:
            self._book.names.limits = limits

    # ---- calls -------------------------------------------------------------------------------------------

    def on_attempt_ended(self, event: events.AttemptEnded) -> None:
        """A request has its verdict."""
        attempt, book = event.attempt, self._book
        scope = book.scope(event.host, event.model)
        counter = scope.attempts.get(attempt.code)
        if counter is None:
            counter = book.attempts(scope, attempt.code)
        counter.inc()
        scope.attempt_seconds.observe(attempt.elapsed)
        if attempt.number > 1:
            book.increase("retries_total")

    def on_call_ended(self, event: events.CallEnded) -> None:
        """A call is over."""
        report, book = event.report, self._book
        scope = book.scope(report.host, report.model)
        counter = scope.calls.get((report.code, report.outcome))
        if counter is None:
            counter = book.calls(scope, report.code, report.outcome)
        counter.inc()
        scope.call_seconds.observe(report.elapsed)
        scope.call_attempts.observe(len(report.attempts))

    def on_call_gave_up(self, event: events.CallGaveUp) -> None:  # noqa: ARG002 - that it came is all
        """A call is given up."""
        self._book.increase("gave_up_total")

    def on_call_refused(self, event: events.CallRefused) -> None:
        """A request was not sent."""
        self._book.increase("refusals_total", event.kind)

    def on_budget_refused(self, event: events.BudgetRefused) -> None:  # noqa: ARG002 - that it came is all
        """A retry was not sent."""
        self._book.increase("refusals_total", "budget")

    def on_call_paused(self, event: events.CallPaused) -> None:
        """A call waits."""
        self._book[PREFIX + "wait_seconds"].labels(event.reason).observe(event.seconds)

    def on_hint_honoured(self, event: events.HintHonoured) -> None:  # noqa: ARG002 - that it came is all
        """A wait was asked for, and is waited."""
        self._book.increase("hints_total", "honoured")

    def on_hint_refused(self, event: events.HintRefused) -> None:  # noqa: ARG002 - that it came is all
        """A wait was asked for, and is not waited."""
        self._book.increase("hints_total", "refused")

    # ---- what calls share --------------------------------------------------------------------------------

    def on_circuit_changed(self, event: events.CircuitChanged) -> None:
        """A circuit is in another state."""
        where, change = self._book.pair(*event.circuit), event.transition
        self._book.increase("circuit_transitions_total", *where, str(change.after), str(change.reason))
        for state in State:
            shown = self._book[PREFIX + "circuit_state"].labels(*where, str(state))
            shown.set(int(state is change.after))

    def on_circuit_overruled(self, event: events.CircuitOverruled) -> None:
        """An operator took a circuit over, or gave it back. What was shown once cannot be taken away, only be 0."""
        where = self._book.pair(*event.circuit)
        for control in Control:
            if control is not Control.AUTO:
                shown = self._book[PREFIX + "circuit_forced"].labels(*where, str(control))
                shown.set(int(control is event.control))

    def on_probe_sent(self, event: events.ProbeSent) -> None:
        """A request went through a half-open circuit."""
        self._book.increase("probes_total", *self._book.pair(*event.circuit))

    def on_gate_closed(self, event: events.GateClosed) -> None:
        """A gate closed."""
        if not event.lengthened:
            self._book.increase("gate_closings_total", *self._book.pair(event.host, event.model))

    def on_shadow_refused(self, event: events.ShadowRefused) -> None:
        """A guard would have refused a request."""
        self._book.increase("shadow_refusals_total", event.guard)

    def on_state_degraded(self, event: events.StateDegraded) -> None:
        """A store is not what it should be."""
        self._book.increase("state_degraded_total", event.component)

    def on_state_restored(self, event: events.StateRestored) -> None:
        """It is whole again."""
        self._book.increase("state_restored_total", event.component)

    # ---- event streams, configuration --------------------------------------------------------------------

    def on_stream_opened(self, event: events.StreamOpened) -> None:  # noqa: ARG002 - that it came is all
        """A stream begins."""
        self._book.increase("streams_total", "opened")

    def on_stream_broken(self, event: events.StreamBroken) -> None:
        """A stream broke, or is left to itself."""
        hop, book = event.hop, self._book
        book.increase("streams_total", hop.action)
        if hop.action != "unguarded":
            book.increase("streams_total", "breaks")
            where = book.pair(event.host, event.model)
            book.increase("stream_breaks_total", *where, book.code(hop.code), hop.action)

    def on_stream_diverged(self, event: events.StreamDiverged) -> None:  # noqa: ARG002 - that it came is all
        """A replay was another answer."""
        self._book.increase("streams_total", "diverged")

    def on_config_reloaded(self, event: events.ConfigReloaded) -> None:
        """The limits may be others."""
        self._book.increase("config_reloads_total", "applied")
        if "observe" in event.changed:
            for known in self._brains:
                brain = known()
                if brain is not None:
                    self._limit(brain.config.observe)

    def on_config_rejected(self, event: events.ConfigRejected) -> None:  # noqa: ARG002 - that it came is all
        """The configuration stays as it was."""
        self._book.increase("config_reloads_total", "rejected")
