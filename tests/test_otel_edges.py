"""OpenTelemetry where it is rarely looked at: names without end, other instrumentations, retried hops, readers."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation import _semconv
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.semconv._incubating.attributes import http_attributes
from opentelemetry.trace import SpanKind, StatusCode

import gip_resilience as gr
from gip_resilience import _otel_metrics, events
from gip_resilience import _otel_words as words
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Stall
from gip_resilience.otel import OpenTelemetry
from harness import CHAT, HARNESSES
from live import EXACT, Live
from test_otel import MODEL, Telemetry, post_under, url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gip_resilience.gateway import Gateway
    from gip_resilience.testing import FakeClock
    from harness import Harness

OK = gr.Attempt(1, "ok", 200, 0.1, 0.0, None, maybe_executed=False)


def started(host: str = "h", model: str = "m", path: str = "/v1/chat/completions") -> events.CallStarted:
    """A call that begins."""
    return events.CallStarted(1, host, model, "", "POST", f"https://{host}{path}")


def tell_one(
    observer: OpenTelemetry, call: events.CallStarted, attempt: gr.Attempt = OK, outcome: str = "success"
) -> None:
    """A whole call of one attempt."""
    found = observer.trace(call)
    assert found is not None
    found.tell(events.AttemptEnded(1, call.host, call.model, attempt))
    found.tell(
        events.CallEnded(1, gr.CallReport(call.host, call.model, outcome, "", (attempt,), 0.1, 0.0, None))
    )


def values(points: Iterable[Any], name: str) -> set[Any]:
    """What an attribute is in them."""
    return {point.attributes.get(name) for point in points}


def aside(telemetry: Telemetry) -> int:
    """How many durations wait."""
    durations = telemetry.observer._durations
    assert durations is not None
    return durations.waiting()


# ---- spans -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "linked"),
    [
        ([BreakStream(events=4), Error("model_overloaded")], [None, 0, 0]),
        ([BreakStream(events=4), BreakStream(events=6)], [None, 0, 1]),
        ([Error("model_overloaded"), BreakStream(events=4)], [None, None, 1]),
        ([BreakStream(events=4), Error("model_overloaded"), BreakStream(events=6)], [None, 0, 0, 2]),
    ],
    ids=["a hop is retried", "breaks twice", "a retry is none", "retried, then breaks again"],
)
def test_links_lead_to_the_attempt_whose_stream_broke(
    script: list[Any], linked: list[int | None], harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Of every attempt to mend it, until one is answered; never to an attempt that had no stream."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script(script)
    with harness.open(telemetry.brain(clock)) as session, Live(session, url(gateway), EXACT) as live:
        live.read()

    spans = telemetry.spans
    contexts = [span.context for span in spans]
    found = [contexts.index(span.links[0].context) if span.links else None for span in spans]
    assert found == linked
    assert [(span.attributes or {}).get(words.RESEND_COUNT) for span in spans] == [
        None,
        *range(1, len(spans)),
    ]


def test_a_span_ends_with_the_verdict(gateway: Gateway, clock: FakeClock) -> None:
    """What is decided about an attempt comes after it: the wait is no part of the request."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Error("model_overloaded")])
    with HARNESSES[0].open(telemetry.brain(clock)) as session:
        session.post(url(gateway))

    first, second = telemetry.spans
    (retry,) = first.events
    assert (first.end_time or 0) <= retry.timestamp <= (second.start_time or 0)


def test_a_stream_is_taken_up_in_another_thread(gateway: Gateway, clock: FakeClock) -> None:
    """Its spans stay children of the caller's, and nothing is left current in either thread."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([BreakStream(events=4)])
    tracer = telemetry.tracing.get_tracer("test")
    with HARNESSES[0].open(telemetry.brain(clock)) as session:
        with tracer.start_as_current_span("caller") as caller:
            live = Live(session, url(gateway), EXACT)
        reader = threading.Thread(target=live.read)
        reader.start()
        reader.join()
        live.close()

    sent = [span for span in telemetry.spans if span.name != "caller"]
    assert [span.parent for span in sent] == [caller.get_span_context()] * 2


def test_a_call_that_is_dropped_leaves_nothing(clock: FakeClock) -> None:
    """What is kept of a call is kept by the call."""
    telemetry = Telemetry()
    brain = telemetry.brain(clock)
    call = brain.call("h", "", "m", asked=lambda: ("POST", "https://h/v1/chat/completions"))
    call.admit()
    with call.sending(nullcontext()):
        pass
    span = weakref.ref(call._trace._spans._span)  # type: ignore[union-attr]  # it is traced
    del call
    gc.collect()

    assert span() is None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_cancelled_request_ends_its_span(
    backend: str, library: str, gateway: Gateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As an error, though there is no verdict; and its context is put away where it was made."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Stall()])
    harness = next(harness for harness in HARNESSES if harness.name == f"{library}-{backend}")
    with harness.open(telemetry.brain(clock)) as session:

        async def cancelled() -> None:
            with anyio.move_on_after(0.2):
                await session.client.post(url(gateway), json=CHAT)

        session.portal.call(cancelled)

    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})[words.ERROR] == "cancelled"
    assert "detach" not in caplog.text


def test_a_method_without_a_name_of_its_own() -> None:
    """The span of an unknown method is named ``HTTP``, and has the method as it was."""
    about = words.about(events.CallStarted(1, "h", "", "", "BREW", "https://h/pot"))

    assert about.name == "HTTP"
    assert about.span[words.METHOD] == "_OTHER"
    assert about.span[http_attributes.HTTP_REQUEST_METHOD_ORIGINAL] == "BREW"
    assert http_attributes.HTTP_REQUEST_METHOD_ORIGINAL not in about.http


# ---- beside others ---------------------------------------------------------------------------------------


def test_beneath_an_instrumentation_for_generative_ai(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Where an SDK's instrumentation has the operation's span, ours are plain HTTP, and it counts the operation."""
    telemetry = Telemetry()
    tracer = telemetry.tracing.get_tracer("sdk")

    class Sdk:
        def start_as_current_span(self, name: str) -> Any:
            described = {words.OPERATION: "chat", words.PROVIDER: "openai", words.MODEL: MODEL}
            return tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=described)

    with harness.open(telemetry.brain(clock)) as session:
        outer = post_under(session, Sdk(), url(gateway))

    (sent,) = [span for span in telemetry.spans if span.parent is not None]
    assert sent.parent == outer.get_span_context()
    assert (sent.name, sent.kind) == ("POST", SpanKind.CLIENT)
    assert not {name for name in sent.attributes or {} if name.startswith("gen_ai.")}
    points = telemetry.points()
    assert words.CALL_DURATION not in points
    assert sum(point.count for point in points[words.HTTP_DURATION]) == 1


def test_requests_instrumentation_above_is_recognised_unsampled(
    gateway: Gateway, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It suppresses what is beneath it, whether or not its span is recorded."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    monkeypatch.setattr(_semconv._OpenTelemetrySemanticConventionStability, "_initialized", False)
    telemetry = Telemetry(ALWAYS_OFF)
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracing, meter_provider=telemetry.metering)
    try:
        with HARNESSES[0].open(telemetry.brain(clock)) as session:
            session.post(url(gateway))
    finally:
        instrumentor.uninstrument()

    assert telemetry.spans == []
    assert [point.count for point in telemetry.points()[words.HTTP_DURATION]] == [1]


def test_what_is_not_sampled_is_propagated(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """The next service is told that nobody records this, in each attempt's own name."""
    telemetry = Telemetry(ALWAYS_OFF)
    gateway.plan = FaultPlan.script([Error("model_overloaded")])
    with harness.open(telemetry.brain(clock)) as session:
        session.post(url(gateway))

    carried = [str(seen.header("traceparent")) for seen in gateway.requests]
    assert telemetry.spans == []
    assert len(set(carried)) == 2
    assert {int(header.rpartition("-")[2], 16) & trace.TraceFlags.SAMPLED for header in carried} == {0}
    assert sum(point.count for point in telemetry.points()[words.HTTP_DURATION]) == 2


def test_baggage_travels(gateway: Gateway, clock: FakeClock) -> None:
    """With every attempt: it is part of the context that the caller had."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Error("model_overloaded")])
    token = context.attach(baggage.set_baggage("team", "blue"))
    try:
        with HARNESSES[0].open(telemetry.brain(clock)) as session:
            session.post(url(gateway))
    finally:
        context.detach(token)

    assert [seen.header("baggage") for seen in gateway.requests] == ["team=blue"] * 2


def test_beneath_an_agent_the_operation_is_ours(gateway: Gateway, clock: FakeClock) -> None:
    """A span for something larger is another operation."""
    telemetry = Telemetry()
    tracer = telemetry.tracing.get_tracer("agent")
    described = {words.OPERATION: "invoke_agent", words.PROVIDER: "openai"}
    with (
        HARNESSES[0].open(telemetry.brain(clock)) as session,
        tracer.start_as_current_span("agent", kind=SpanKind.CLIENT, attributes=described),
    ):
        session.post(url(gateway))

    assert [span.name for span in telemetry.spans if span.parent is not None] == [f"chat {MODEL}"]
    assert telemetry.points()[words.CALL_DURATION][0].count == 1


# ---- metrics: names --------------------------------------------------------------------------------------


def test_urls_without_end_do_not_use_up_the_names(clock: FakeClock) -> None:
    """Metrics have no URL: a program that polls a thousand jobs goes on telling its models apart."""
    telemetry = Telemetry(traces=False)
    for number in range(2500):
        tell_one(telemetry.observer, started(model="", path=f"/v1/batches/{number}"))
    tell_one(telemetry.observer, started(model="late"))
    points = telemetry.points()

    assert values(points[words.CALL_DURATION], words.MODEL) == {"late"}
    assert [point.count for point in points[words.HTTP_DURATION]] == [2501]
    assert len(telemetry.observer._kinds) <= 1000


def test_names_are_bounded_as_configured(clock: FakeClock) -> None:
    """By ``observe``, as everywhere; what is too much is counted as ``other`` and not lost."""
    telemetry = Telemetry(traces=False)
    brain = telemetry.brain(clock, observe=gr.ObserveConfig(max_hosts=2, max_models=3, max_codes=4))
    for number in range(10):
        failed = gr.Attempt(1, f"code{number}", 500, 0.1, 0.0, None, maybe_executed=False)
        tell_one(telemetry.observer, started(f"h{number}", "m0"), failed, "failure")
        tell_one(telemetry.observer, started("h0", f"m{number}"), failed, "failure")
    points = telemetry.points()

    calls, requests = points[words.CALL_DURATION], points[words.HTTP_DURATION]
    assert values(calls, words.ADDRESS) == {"h0", "h1", "other"}
    assert values(calls, words.MODEL) == {"m0", "m1", "m2", "other"}
    assert values(requests, words.ERROR) == {"code0", "code1", "code2", "code3", "other"}
    assert {p.attributes.get(words.PORT) for p in requests if p.attributes[words.ADDRESS] == "other"} == {
        None
    }
    assert sum(p.count for p in calls) == sum(p.count for p in requests) == 20
    assert brain.config.observe.max_hosts == 2


def test_series_without_end_are_one(clock: FakeClock) -> None:
    """Host, code and status multiply: beyond what the SDK holds, the rest has the attribute it gives such itself."""
    telemetry = Telemetry(traces=False)
    for number in range(3000):
        odd = gr.Attempt(1, f"c{number % 150}", 400 + number % 199, 0.1, 0.0, None, maybe_executed=False)
        tell_one(telemetry.observer, started(f"h{number % 190}", "m"), odd, "failure")
    points = telemetry.points()[words.HTTP_DURATION]

    assert len(points) == _otel_metrics.MAX_SERIES + 1
    assert sum(point.count for point in points) == 3000
    assert [p.count for p in points if p.attributes.get("otel.metric.overflow")] == [
        3000 - _otel_metrics.MAX_SERIES
    ]


def test_circuits_without_end_are_bounded_too(clock: FakeClock) -> None:
    """What is there now is named by the same limits as what is counted."""
    telemetry = Telemetry(traces=False)
    brain = telemetry.brain(clock, observe=gr.ObserveConfig(max_models=5))
    for number in range(20):
        brain.breakers.force_open("h", f"m{number}")
    points = telemetry.points()

    states, times = points["gip_resilience.circuit.state"], points["gip_resilience.circuit.time"]
    assert values(states, words.MODEL) <= {*(f"m{number}" for number in range(20)), "other", None}
    assert len(values(states, words.MODEL) - {"other", None}) == 5
    assert {point.value for point in states} == {0, 1}
    assert values(times, words.MODEL) == values(states, words.MODEL)


def test_a_host_is_said_in_the_words_of_the_convention(gateway: Gateway, clock: FakeClock) -> None:
    """Address and port apart, so that counters and durations can be laid side by side."""
    telemetry = Telemetry(traces=False)
    with HARNESSES[0].open(telemetry.brain(clock)) as session:
        session.post(url(gateway))
    points = telemetry.points()

    host, port = gateway.url.removeprefix("http://").split(":")
    for name in (words.HTTP_DURATION, words.CALL_DURATION, "gip_resilience.calls", "gip_resilience.attempts"):
        (point,) = points[name]
        assert (point.attributes[words.ADDRESS], point.attributes[words.PORT]) == (host, int(port)), name


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("h", {words.ADDRESS: "h"}),
        ("h:81", {words.ADDRESS: "h", words.PORT: 81}),
        ("[::1]:81", {words.ADDRESS: "::1", words.PORT: 81}),
        ("[::1]", {words.ADDRESS: "::1"}),
        ("h:no", {words.ADDRESS: "h:no"}),
        ("other", {words.ADDRESS: "other"}),
        ("", {}),
    ],
)
def test_hosts_are_split(host: str, expected: dict[str, Any]) -> None:
    """Into address and port, where there is one."""
    assert words.address(host) == expected


# ---- metrics: nothing is lost ----------------------------------------------------------------------------


class Kept(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **options: Any) -> MetricExportResult:
        self.given.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        pass

    def count(self, name: str) -> int:
        """Values in the last data point of a histogram."""
        last = self.given[-1]
        return sum(
            point.count
            for resource in last.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        )


def test_a_shutdown_exports_what_was_put_aside() -> None:
    """The reader collects once more, and collecting is what records."""
    exporter = Kept()
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)])
    observer = OpenTelemetry(traces=False, meter_provider=provider)
    for _ in range(7):
        tell_one(observer, started())
    provider.shutdown()

    assert exporter.count(words.HTTP_DURATION) == exporter.count(words.CALL_DURATION) == 7


def test_every_reader_gets_everything() -> None:
    """Whichever of them collects first."""
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    observer = OpenTelemetry(traces=False, meter_provider=MeterProvider(readers))
    counts = []
    for reader in (*readers, *readers):
        tell_one(observer, started())
        data = reader.get_metrics_data()
        assert data is not None
        (metrics,) = (scope.metrics for resource in data.resource_metrics for scope in resource.scope_metrics)
        (requests,) = [metric for metric in metrics if metric.name == words.HTTP_DURATION]
        counts.append(sum(point.count for point in requests.data.data_points))

    assert counts == [1, 2, 3, 4]


def test_threads_lose_nothing() -> None:
    """While others collect, and while the deque runs over."""
    telemetry = Telemetry(traces=False)

    def work() -> None:
        for number in range(4000):
            tell_one(telemetry.observer, started(model=f"m{number % 3}"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        telemetry.points()
    points = telemetry.points()

    assert sum(point.count for point in points[words.HTTP_DURATION]) == 16_000
    assert {p.attributes[words.MODEL]: p.count for p in points[words.CALL_DURATION]} == {
        "m0": 5336, "m1": 5332, "m2": 5332
    }  # fmt: skip


def test_a_call_records_but_a_few_at_once() -> None:
    """Without a reader that collects: memory is bounded, and no call pays for thousands of others."""
    observer = OpenTelemetry(traces=False, meter_provider=MeterProvider())
    durations = observer._durations
    assert durations is not None
    longest = before = 0
    for _ in range(_otel_metrics.MAX_ASIDE):
        tell_one(observer, started())
        now = durations.waiting()
        longest, before = max(longest, before + 2 - now), now

    assert before <= _otel_metrics.MAX_ASIDE + 2
    assert longest <= 2 * _otel_metrics.AT_ONCE


def test_exemplars_are_of_no_wrong_trace() -> None:
    """A call that records for others does so while a span of its own caller's is current."""
    telemetry = Telemetry(traces=False)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], exemplar_filter=AlwaysOnExemplarFilter())
    observer = OpenTelemetry(traces=False, meter_provider=provider)
    with telemetry.tracing.get_tracer("test").start_as_current_span("unlucky"):
        tell_one(observer, started())
        observer.flush()
    data = reader.get_metrics_data()

    assert data is not None
    exemplars = [
        exemplar
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name in {words.HTTP_DURATION, words.CALL_DURATION}
        for point in metric.data.data_points
        for exemplar in getattr(point, "exemplars", [])
    ]
    assert len(exemplars) == 2
    assert {exemplar.trace_id for exemplar in exemplars} == {None}


def test_what_a_collection_itself_ends_is_in_it(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Reading the counters ends calls whose streams were dropped: their durations are in the same collection."""
    telemetry = Telemetry()
    with harness.open(telemetry.brain(clock)) as session:
        live = Live(session, url(gateway))
        live.take()
        if harness.name == "requests":
            del live
            gc.collect()
        else:
            live.close()
        points = telemetry.points()

    assert sum(point.value for point in points["gip_resilience.calls"]) == 1
    assert sum(point.count for point in points[words.CALL_DURATION]) == 1
    assert aside(telemetry) == 0


def test_what_there_is_now() -> None:
    """Every part of it has a gauge, and so has an operator's word."""
    telemetry = Telemetry(traces=False)
    brain = gr.Resilience(observers=[telemetry.observer])
    brain.breakers.force_open("h", "m")
    tell_one(telemetry.observer, started())
    points = telemetry.points()

    (forced,) = points["gip_resilience.circuit.forced"]
    assert (forced.value, forced.attributes["gip_resilience.circuit.control"]) == (1, "forced_open")
    names = {metric.name for metric in _otel_metrics.METRICS}
    assert {"gate.closed", "gate.waiters", "budget.tokens", "budget.capacity", "state.degraded"} <= names
