"""The spans of `gip_resilience.otel`: one for every request that is sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from gip_resilience import _otel_words as words
from gip_resilience import events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from gip_resilience._report import Attempt
    from gip_resilience.events import Event

# The keys are the instrumentations' own agreement. Without them (another version of the API) we are only less polite.
SUPPRESS = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
SUPPRESS_HTTP = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")

_HOPS = {"restart", "resume", "replay"}


def suppressed(now: Context) -> bool:
    """Whether nothing at all is to be recorded."""
    return bool(context.get_value(SUPPRESS, now) or context.get_value("suppress_instrumentation", now))


class Above(NamedTuple):
    """What instrumentations above us tell of, and count.

    Attributes:
        http: whether one has a span for the HTTP request.
        operation: which operation one has a span for, by the conventions for generative AI; mostly none.
    """

    http: bool
    operation: str


NOTHING_ABOVE = Above(http=False, operation="")


def above(now: Context) -> Above:
    """What is told of already where this is current. A span that is not sampled cannot be looked at."""
    http = bool(context.get_value(SUPPRESS_HTTP, now))
    span: Any = trace.get_current_span(now)
    if getattr(span, "kind", None) is not SpanKind.CLIENT:
        return Above(http, "")
    attributes = getattr(span, "attributes", None) or {}
    http = http or words.METHOD in attributes or "http.method" in attributes
    return Above(http, str(attributes.get(words.OPERATION, "")))


class Spans:
    """The spans of one call.

    A span begins as its request is sent and ends with the attempt's verdict, a stream's with its end. It is kept open
    until the next one begins or the call is over, so that what is decided about the attempt is told by its events;
    the time at which it ends is that of the verdict.

    Args:
        tracer: begins spans.
        about: what the call is.
        parent: what was current when the call began; also of spans that begin later, and somewhere else.
        above: whether the HTTP request has a span above, whose kind is client.
    """

    surrounds = True
    __slots__ = (
        "_about",
        "_above",
        "_began",
        "_early",
        "_ended_at",
        "_mending",
        "_parent",
        "_sent",
        "_span",
        "_token",
        "_tracer",
    )

    def __init__(self, tracer: Tracer, about: words.About, parent: Context, *, above: bool) -> None:
        self._tracer = tracer
        self._about = about
        self._parent = parent
        self._above = above
        self._began = time.time_ns()
        self._span: Span | None = None
        self._token: Token[Context] | None = None
        self._ended_at: int | None = None
        self._mending: Link | None = None
        self._sent = False
        self._early: list[tuple[Event, int]] = []

    def enter(self, number: int) -> Mapping[str, str]:
        """See `gip_resilience.events.Trace.enter`."""
        self._finish()
        attributes: dict[str, Any] = {**self._about.span, words.OURS + "attempt": number}
        if number > 1:
            attributes[words.RESEND_COUNT] = number - 1
        self._sent = True
        self._span = span = self._tracer.start_span(
            self._about.name,
            context=self._parent,
            kind=SpanKind.INTERNAL if self._above else SpanKind.CLIENT,
            attributes=attributes,
            links=None if self._mending is None else [self._mending],
        )
        self._catch_up(span)
        current = context.set_value(SUPPRESS_HTTP, True, trace.set_span_in_context(span, self._parent))
        headers: dict[str, str] = {}
        propagate.inject(headers, context=current)
        self._token = context.attach(current)
        return headers

    def leave(self) -> None:
        """See `gip_resilience.events.Trace.leave`."""
        token, self._token = self._token, None
        if token is not None:
            context.detach(token)

    def tell(self, event: Event) -> None:
        """See `gip_resilience.events.Trace.tell`."""
        match event:
            case events.CallPaused() if event.reason != "circuit":  # the others have events of their own
                return
            case events.AttemptEnded():
                self._verdict(event.attempt)
                return
            case events.CallEnded():
                self._end(event)
                return
            case events.StreamBroken() if event.hop.action in _HOPS and self._span is not None:
                # Until the next break every attempt is made to mend this stream.
                self._mending = Link(self._span.get_span_context(), {words.OURS + "hop": event.hop.action})
        if self._span is None:
            self._early.append((event, time.time_ns()))
        elif self._span.is_recording():
            self._span.add_event(words.event_name(event), words.event_attributes(event))

    def _catch_up(self, span: Span) -> None:
        """Say what happened before there was a span to say it."""
        early, self._early = self._early, []
        if span.is_recording():
            for event, when in early:
                span.add_event(words.event_name(event), words.event_attributes(event), when)

    def _verdict(self, attempt: Attempt) -> None:
        self._ended_at = time.time_ns()
        span = self._span
        if span is None or not span.is_recording():
            return
        if attempt.status is not None:
            span.set_attribute(words.STATUS, attempt.status)
        span.set_attribute(words.OURS + "code", attempt.code)
        if attempt.waited:
            span.set_attribute(words.OURS + "waited", attempt.waited)
        if attempt.hint is not None:
            span.set_attribute(words.OURS + "hint.seconds", attempt.hint.seconds)
            span.set_attribute(words.OURS + "hint.source", attempt.hint.source)
        if attempt.maybe_executed:
            span.set_attribute(words.OURS + "maybe_executed", value=True)
        if attempt.code != "ok":
            span.set_attribute(words.ERROR, attempt.code)
            span.set_status(Status(StatusCode.ERROR))

    def _end(self, event: events.CallEnded) -> None:
        report = event.report
        error = report.reason.replace(" ", "_") if report.outcome == "refused" else report.outcome
        if not self._sent:
            # Nothing was sent, and that should be seen: a span of no request, over what the call waited.
            self._span = self._tracer.start_span(
                self._about.name,
                context=self._parent,
                kind=SpanKind.INTERNAL,
                attributes=self._about.span,
                start_time=self._began,
            )
            self._catch_up(self._span)
        span = self._span
        if span is not None and span.is_recording():
            if self._ended_at is None:  # nothing was sent, or the attempt under way was left
                span.set_attribute(words.ERROR, error)
                span.set_status(Status(StatusCode.ERROR))
            span.set_attribute(words.OURS + "outcome", report.outcome)
            span.set_attribute(words.OURS + "attempts", len(report.attempts))
            if report.reason:
                span.set_attribute(words.OURS + "reason", report.reason)
        self._finish()

    def _finish(self) -> None:
        span, self._span = self._span, None
        if span is not None:
            span.end(self._ended_at)
        self._ended_at = None
