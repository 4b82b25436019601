"""OpenTelemetry: spans and metrics, by the semantic conventions for HTTP and for generative AI.

    from gip_resilience.otel import OpenTelemetry

    res = gr.Resilience(observers=[OpenTelemetry()])

Needs ``opentelemetry-api``: ``pip install 'gip-resilience[otel]'``; the program brings the SDK.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

try:
    from opentelemetry import context, metrics, trace
except ImportError as error:
    raise ImportError(
        "gip_resilience.otel needs OpenTelemetry: pip install 'gip-resilience[otel]'"
    ) from error

from gip_resilience import _otel_words as words
from gip_resilience import events
from gip_resilience._config_groups import ObserveConfig
from gip_resilience._names import OTHER, Names
from gip_resilience._otel_metrics import Durations, Observed
from gip_resilience._otel_traces import NOTHING_ABOVE, Spans, above, suppressed
from gip_resilience._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from gip_resilience._otel_metrics import Series
    from gip_resilience._otel_words import About
    from gip_resilience.events import CallStarted, Event, Trace
    from gip_resilience.resilience import Resilience
    from gip_resilience.snapshots import Snapshot

__all__ = ["OpenTelemetry"]

_SCOPE = "gip_resilience"
_KEPT = 1000
"""Kinds of call (method, URL, model) that are remembered. Beyond that all are forgotten, and made anew as they come:
URLs may be without end, and metrics have none."""

_CODES = 100
"""Codes and statuses of a kind that are remembered; the others are looked up each time."""


class OpenTelemetry:
    """An observer that makes spans and metrics.

    **Spans.** One for every request that is sent: kind client, child of what was current when the call began (also
    where a stream is taken up later, elsewhere), named after the operation and the model (``chat gpt-5-mini``; the
    method where these are not known), with ``http.request.resend_count`` from the second on. It lasts until the
    verdict, a stream's until its end. What happened besides (a wait, a gate) are events of the request before
    it, and of the first what came before that. An attempt that goes on with a broken stream has a link to the one
    that broke. A call that sent nothing has a span of kind internal. While a request is sent its span is current, and
    its context goes with it in the headers (``traceparent``), in place of what was there.

    **Metrics.** ``http.client.request.duration`` per request, ``gen_ai.client.operation.duration`` per call, and
    ``gip_resilience.*``, read from `Resilience.metrics` when they are collected.

    **Beside other instrumentations.** Beneath us they are told to be silent while a request is sent, so that it has
    one span and is counted once. Where one above has a span for the HTTP request, ours are of kind internal, and we
    leave counting HTTP requests to it. Where one above has a span for the operation (that of an SDK), ours are of
    plain HTTP requests, and we leave counting operations to it. Where instrumentation is suppressed, we are silent.
    A span above that is not sampled cannot be recognised: then both count, unless the one above suppresses HTTP
    instrumentation as that of requests does. Mount after instrumenting a client, and it is beneath.

    Args:
        tracer_provider: the program's global one by default.
        meter_provider: the program's global one by default.
        traces: whether to make spans. Without them nothing beneath is silent, and an instrumentation there counts
            HTTP requests as well as we do.
        metrics: whether to make metrics. Without them an instrumentation beneath is silent all the same while we
            make spans, and nobody counts HTTP requests.

    Thread-safe and task-safe. One may serve several `Resilience`. Names of hosts, models and codes that are more than
    ``observe`` allows are all called ``other`` in metrics. Durations have no exemplars: they are recorded later.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        traces: bool = True,
        metrics: bool = True,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider) if traces else None
        self._brains: list[weakref.ref[Resilience]] = []
        self._durations: Durations | None = None
        self._kinds: dict[tuple[str, str, str, str, str], _Kind] = {}
        self._names = Names(ObserveConfig())
        if metrics:
            meter = _meter(meter_provider)
            self._durations = Durations(meter)
            self._observed = Observed(meter, self._durations, self._snapshots, self._names)

    def __repr__(self) -> str:
        return f"OpenTelemetry(traces={self._tracer is not None}, metrics={self._durations is not None})"

    def bind(self, resilience: Resilience) -> None:
        """Take its counters in. Called by `Resilience` itself."""
        self._brains = [known for known in self._brains if known() is not None]
        self._brains.append(weakref.ref(resilience))

    def flush(self) -> None:
        """Record the durations that wait for the next collection. A reader that collects at shutdown needs none."""
        if self._durations is not None:
            self._durations.record()

    def trace(self, started: CallStarted) -> Trace | None:
        """Follow a call. Called when it starts."""
        now = context.get_current()
        if now and suppressed(now):  # mostly it is empty
            return None
        kind = self._kind(started)
        told = above(now) if now else NOTHING_ABOVE
        if told.operation in words.OPERATIONS:
            kind = kind.as_request()
        if self._tracer is None:
            return None if self._durations is None else _Measured(kind, above=told.http)
        spans = Spans(self._tracer, kind.about, now, above=told.http)
        if self._durations is None:
            return spans
        return _Traced(spans, kind, above=told.http)

    def _kind(self, started: CallStarted) -> _Kind:
        key = started.method, started.url, started.host, started.model, started.part
        kind = self._kinds.get(key)
        if kind is not None:
            return kind
        about = words.about(started)
        if len(self._kinds) >= _KEPT:
            self._kinds.clear()
        kind = self._kinds[key] = _Kind(about, self._bounded(started, about), self._durations, self._names)
        return kind

    def _bounded(self, started: CallStarted, about: About) -> About:
        """What metrics may say of a call."""
        for brain in self._living():
            self._names.limits = brain.config.observe
        host, model = self._names.where(started.host, started.model)
        http, call = dict(about.http), dict(about.call)
        for attributes in (http, call):
            if host == OTHER and attributes:
                attributes[words.ADDRESS] = OTHER
                attributes.pop(words.PORT, None)
        if model == OTHER and call:
            call[words.MODEL] = call[words.PROVIDER] = OTHER
        return about._replace(http=http, call=call)

    def _living(self) -> list[Resilience]:
        return [brain for known in self._brains if (brain := known()) is not None]

    def _snapshots(self) -> list[Snapshot]:
        brains = self._living()
        for brain in brains:
            self._names.limits = brain.config.observe
        return [brain.metrics.snapshot() for brain in brains]


class _Kind:
    """Calls that have all their attributes in common: looked up by most calls, made by few.

    Args:
        about: what they are.
        bounded: what metrics say of them.
        durations: where their durations go.
        names: bounds the codes.
    """

    __slots__ = ("_bounded", "_calls", "_durations", "_names", "_request", "_requests", "about")

    def __init__(self, about: About, bounded: About, durations: Durations | None, names: Names) -> None:
        self.about = about
        self._bounded = bounded
        self._durations = durations
        self._names = names
        self._request: _Kind | None = None
        self._requests: dict[tuple[str, int | None], Series] = {}
        self._calls: dict[str, Series] = {}

    def as_request(self) -> _Kind:
        """The same calls where somebody else tells of the operation."""
        if self._request is None:
            known, bounded = words.as_request(self.about), words.as_request(self._bounded)
            self._request = _Kind(known, bounded, self._durations, self._names)
        return self._request

    def measure(self, event: Event, *, above: bool) -> None:
        """Put aside how long something took."""
        if isinstance(event, events.AttemptEnded):
            attempt = event.attempt
            if not above:
                answer = attempt.code, attempt.status
                (self._requests.get(answer) or self._answered(answer)).put(attempt.elapsed)
        elif isinstance(event, events.CallEnded) and self._bounded.call:
            report = event.report
            error = ""
            if report.outcome != "success":
                error = report.outcome if report.code in {"ok", "none"} else report.code
            (self._calls.get(error) or self._ended(error)).put(report.elapsed)

    def _answered(self, answer: tuple[str, int | None]) -> Series:
        code, status = answer
        attributes = dict(self._bounded.http)
        if status is not None:
            attributes[words.STATUS] = status
        if code != "ok":
            attributes[words.ERROR] = self._names.code(code)
        series = _present(self._durations).request(attributes)
        if len(self._requests) < _CODES:
            self._requests[answer] = series
        return series

    def _ended(self, error: str) -> Series:
        attributes = dict(self._bounded.call)
        if error:
            attributes[words.ERROR] = self._names.code(error)
        series = _present(self._durations).call(attributes)
        if len(self._calls) < _CODES:
            self._calls[error] = series
        return series


def _present(durations: Durations | None) -> Durations:
    if durations is None:
        raise AssertionError("nothing is measured")
    return durations


class _Measured:
    """Measures one call."""

    __slots__ = ("_above", "_kind")
    surrounds = False

    def __init__(self, kind: _Kind, *, above: bool) -> None:
        self._kind = kind
        self._above = above

    def enter(self, number: int) -> Mapping[str, str]:  # noqa: ARG002 - it makes no span, and there is no context
        """See `gip_resilience.events.Trace.enter`."""
        return _NO_HEADERS

    def leave(self) -> None:
        """See `gip_resilience.events.Trace.leave`."""

    def tell(self, event: Event) -> None:
        """See `gip_resilience.events.Trace.tell`."""
        self._kind.measure(event, above=self._above)


_NO_HEADERS: Mapping[str, str] = {}


class _Traced(_Measured):
    """Measures one call, and makes its spans."""

    __slots__ = ("_spans",)
    surrounds = True

    def __init__(self, spans: Spans, kind: _Kind, *, above: bool) -> None:
        super().__init__(kind, above=above)
        self._spans = spans

    def enter(self, number: int) -> Mapping[str, str]:
        """See `gip_resilience.events.Trace.enter`."""
        return self._spans.enter(number)

    def leave(self) -> None:
        """See `gip_resilience.events.Trace.leave`."""
        self._spans.leave()

    def tell(self, event: Event) -> None:
        """See `gip_resilience.events.Trace.tell`."""
        super().tell(event)
        self._spans.tell(event)


def _meter(provider: MeterProvider | None) -> metrics.Meter:
    return metrics.get_meter(_SCOPE, __version__, provider)
