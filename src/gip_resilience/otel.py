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
from gip_resilience._names import OTHER
from gip_resilience._otel_metrics import Durations, Observed
from gip_resilience._otel_traces import Spans, counted_above, suppressed
from gip_resilience._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from gip_resilience._otel_words import About
    from gip_resilience.events import CallStarted, Event, Trace
    from gip_resilience.resilience import Resilience
    from gip_resilience.snapshots import Snapshot

__all__ = ["OpenTelemetry"]

_SCOPE = "gip_resilience"
_KEPT = 1000
"""Kinds of call (method, URL, model) that metrics tell apart; the rest is one kind, so that memory is bounded."""

_CODES = 50
"""Codes of a kind that are told apart; the rest is one."""


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
    leave counting HTTP requests to it. Where instrumentation is suppressed, we are silent.

    Args:
        tracer_provider: the program's global one by default.
        meter_provider: the program's global one by default.
        traces: whether to make spans.
        metrics: whether to make metrics.

    Thread-safe and task-safe. One may serve several `Resilience`. Names of hosts, models and codes that are too many
    are all called ``other`` in metrics.
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
        if metrics:
            meter = _meter(meter_provider)
            self._durations = Durations(meter)
            self._observed = Observed(meter, self._durations, self._snapshots)

    def __repr__(self) -> str:
        return f"OpenTelemetry(traces={self._tracer is not None}, metrics={self._durations is not None})"

    def bind(self, resilience: Resilience) -> None:
        """Take its counters in. Called by `Resilience` itself."""
        self._brains = [known for known in self._brains if known() is not None]
        self._brains.append(weakref.ref(resilience))

    def flush(self) -> None:
        """Record the durations that wait for the next collection; before the meter provider is shut down, say."""
        if self._durations is not None:
            self._durations.record()

    def trace(self, started: CallStarted) -> Trace | None:
        """Follow a call. Called when it starts."""
        now = context.get_current()
        if suppressed(now):
            return None
        kind = self._kind(started)
        above = counted_above(now)
        if self._tracer is None:
            return None if self._durations is None else _Measured(kind, self._durations, above=above)
        spans = Spans(self._tracer, kind.about, now, above=above)
        if self._durations is None:
            return spans
        return _Traced(spans, kind, self._durations, above=above)

    def _kind(self, started: CallStarted) -> _Kind:
        key = started.method, started.url, started.host, started.model, started.part
        kind = self._kinds.get(key)
        if kind is None:
            kind = _Kind(words.about(started), known=len(self._kinds) < _KEPT)
            if kind.known:
                self._kinds[key] = kind
        return kind

    def _snapshots(self) -> list[Snapshot]:
        brains = [known() for known in self._brains]
        return [brain.metrics.snapshot() for brain in brains if brain is not None]


class _Kind:
    """Calls that have all their attributes in common: looked up by most calls, made by few.

    Args:
        about: what they are.
        known: whether metrics tell them apart from others.
    """

    __slots__ = ("_call", "_http", "_requests", "about", "known")

    def __init__(self, about: About, *, known: bool) -> None:
        self.about = about
        self.known = known
        self._http, self._call = about.http, about.call
        if not known:
            self._http, self._call = _anonymous(about.http), _anonymous(about.call)
        self._requests: dict[tuple[str, int | None], dict[str, str | int]] = {}

    def request(self, code: str, status: int | None) -> Mapping[str, str | int]:
        """The attributes of a request with this end."""
        found = self._requests.get((code, status))
        if found is not None:
            return found
        kept = len(self._requests) < _CODES
        found = dict(self._http)
        if status is not None:
            found[words.STATUS] = status
        if code != "ok":
            found[words.ERROR] = code if kept else OTHER
        if kept:
            self._requests[code, status] = found
        return found

    def call(self, error: str) -> Mapping[str, str | int]:
        """The attributes of a call that ended so; nothing where nobody knows what it was."""
        if not error or not self._call:
            return self._call
        return {**self._call, words.ERROR: error}


def _anonymous(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    return {
        name: OTHER if name in {words.ADDRESS, words.MODEL, words.PROVIDER} else value
        for name, value in attributes.items()
        if name != words.PORT
    }


class _Measured:
    """Measures one call."""

    __slots__ = ("_above", "_durations", "_kind")

    def __init__(self, kind: _Kind, durations: Durations, *, above: bool) -> None:
        self._kind = kind
        self._durations = durations
        self._above = above

    def enter(self, number: int) -> Mapping[str, str]:  # noqa: ARG002 - it makes no span, and there is no context
        """See `gip_resilience.events.Trace.enter`."""
        return _NO_HEADERS

    def leave(self) -> None:
        """See `gip_resilience.events.Trace.leave`."""

    def tell(self, event: Event) -> None:
        """See `gip_resilience.events.Trace.tell`."""
        if isinstance(event, events.AttemptEnded):
            attempt = event.attempt
            if not self._above:
                self._durations.request(attempt.elapsed, self._kind.request(attempt.code, attempt.status))
        elif isinstance(event, events.CallEnded):
            report = event.report
            error = ""
            if report.outcome != "success":
                error = report.attempts[-1].code if report.attempts else report.outcome
            attributes = self._kind.call(report.outcome if error == "ok" else error)
            if attributes:
                self._durations.call(report.elapsed, attributes)


_NO_HEADERS: Mapping[str, str] = {}


class _Traced(_Measured):
    """Measures one call, and makes its spans."""

    __slots__ = ("_spans",)

    def __init__(self, spans: Spans, kind: _Kind, durations: Durations, *, above: bool) -> None:
        super().__init__(kind, durations, above=above)
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
