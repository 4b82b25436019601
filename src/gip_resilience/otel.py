"""OpenTelemetry: spans and metrics, by the semantic conventions for HTTP and for generative AI.

    from gip_resilience.otel import OpenTelemetry

    res = gr.Resilience(observers=[OpenTelemetry()])

Needs ``opentelemetry-api``: ``pip install 'gip-resilience[otel]'``; the program brings the SDK.
"""

from __future__ import annotations

import copy
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

    from gip_resilience._otel_metrics import Series
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
        self._others: dict[tuple[str, str], _Kind] = {}
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
        if now and suppressed(now):  # mostly it is empty
            return None
        kind = self._kind(started)
        above = bool(now) and counted_above(now)
        if self._tracer is None:
            return None if self._durations is None else _Measured(kind, above=above)
        spans = Spans(self._tracer, kind.about, now, above=above)
        if self._durations is None:
            return spans
        return _Traced(spans, kind, above=above)

    def _kind(self, started: CallStarted) -> _Kind:
        key = started.method, started.url, started.host, started.model, started.part
        kind = self._kinds.get(key)
        if kind is not None:
            return kind
        about = words.about(started)
        if len(self._kinds) < _KEPT:
            kind = self._kinds[key] = _Kind(about, self._durations)
            return kind
        # Of those that are too many each has spans of its own, and all have one set of measures by operation.
        operation = str(about.call.get(words.OPERATION, ""))
        other = self._others.get((started.method, operation))
        if other is None:
            other = self._others[started.method, operation] = _Kind(about, self._durations, other=True)
        return other.like(about)

    def _snapshots(self) -> list[Snapshot]:
        brains = [known() for known in self._brains]
        return [brain.metrics.snapshot() for brain in brains if brain is not None]


class _Kind:
    """Calls that have all their attributes in common: looked up by most calls, made by few.

    Args:
        about: what they are.
        durations: where their durations go.
        other: whether metrics do not tell them from others.
    """

    __slots__ = ("_call", "_calls", "_durations", "_http", "_requests", "about")

    def __init__(self, about: About, durations: Durations | None, *, other: bool = False) -> None:
        self.about = about
        self._durations = durations
        self._http = _anonymous(about.http) if other else about.http
        self._call = _anonymous(about.call) if other else about.call
        self._requests: dict[tuple[str, int | None], Series] = {}
        self._calls: dict[str, Series] = {}

    def like(self, about: About) -> _Kind:
        """The same measures, of another call."""
        made = copy.copy(self)
        made.about = about
        return made

    def measure(self, event: Event, *, above: bool) -> None:
        """Put aside how long something took."""
        if isinstance(event, events.AttemptEnded):
            attempt = event.attempt
            if not above:
                self._request(attempt.code, attempt.status).put(attempt.elapsed)
        elif isinstance(event, events.CallEnded) and self._call:
            report = event.report
            error = ""
            if report.outcome != "success":
                error = report.outcome if report.code in {"ok", "none"} else report.code
            self._ended(error).put(report.elapsed)

    def _request(self, code: str, status: int | None) -> Series:
        found = self._requests.get((code, status))
        if found is not None:
            return found
        if len(self._requests) >= _CODES:
            code, status = OTHER, None
            if (code, status) in self._requests:
                return self._requests[code, status]
        attributes = dict(self._http)
        if status is not None:
            attributes[words.STATUS] = status
        if code != "ok":
            attributes[words.ERROR] = code
        made = self._requests[code, status] = _present(self._durations).request(attributes)
        return made

    def _ended(self, error: str) -> Series:
        found = self._calls.get(error)
        if found is not None:
            return found
        if len(self._calls) >= _CODES:
            error = OTHER
            if error in self._calls:
                return self._calls[error]
        attributes = {**self._call, words.ERROR: error} if error else self._call
        made = self._calls[error] = _present(self._durations).call(attributes)
        return made


def _present(durations: Durations | None) -> Durations:
    if durations is None:
        raise AssertionError("nothing is measured")
    return durations


def _anonymous(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    return {
        name: OTHER if name in {words.ADDRESS, words.MODEL, words.PROVIDER} else value
        for name, value in attributes.items()
        if name != words.PORT
    }


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
