"""OpenTelemetry: spans and metrics as the conventions have them, under every client, and beside others."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.semconv.metrics import http_metrics
from opentelemetry.trace import SpanKind, StatusCode

import gip_resilience as gr
from gip_resilience import _otel_metrics, events
from gip_resilience import _otel_words as words
from gip_resilience.gateway import BreakStream, Error, FaultPlan
from gip_resilience.otel import OpenTelemetry
from gip_resilience.snapshots import SECONDS
from harness import CHAT, HARNESSES
from live import EXACT, Live

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from gip_resilience.gateway import Gateway
    from gip_resilience.testing import FakeClock
    from harness import Harness, Session

MODEL = CHAT["model"]


class Telemetry:
    """An observer with a real SDK behind it, all in memory."""

    def __init__(self, sampler: Any = None, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing = TracerProvider(sampler)
        self.tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.metering = MeterProvider([self.reader])
        self.observer = OpenTelemetry(tracer_provider=self.tracing, meter_provider=self.metering, **options)

    def brain(self, clock: FakeClock, **config: Any) -> gr.Resilience:
        """One that is observed."""
        return gr.Resilience(gr.Config(**config), clock=clock, chance=lambda: 0.5, observers=[self.observer])

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def points(self) -> dict[str, list[Any]]:
        """Every data point by the metric's name, as a reader gets them."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found


def url(gateway: Gateway) -> str:
    """Where to."""
    return gateway.url + "/v1/chat/completions"


def run_in(session: Session, work: Any) -> Any:
    """Run a function where the client lives: in its event loop, or here."""
    if session.portal is None:
        return work()

    async def inside() -> Any:
        return work()

    return session.portal.call(inside)


def post_under(session: Session, tracer: Any, where: str) -> Any:
    """A call under a span of the caller's; returns that span."""
    if session.portal is None:
        with tracer.start_as_current_span("caller") as span:
            session.post(where)
        return span

    async def inside() -> Any:
        with tracer.start_as_current_span("caller") as span:
            await session.client.post(where, json=CHAT)
        return span

    return session.portal.call(inside)


# ---- names -----------------------------------------------------------------------------------------------


def test_names_are_those_of_the_conventions() -> None:
    """Letter for letter; and what is ours is under a name of ours."""
    assert {name: name for name in (
        words.METHOD, words.RESEND_COUNT, words.STATUS, words.ADDRESS, words.PORT, words.URL, words.ERROR,
        words.OPERATION, words.MODEL, words.PROVIDER, words.HTTP_DURATION, words.CALL_DURATION,
    )} == {
        words.METHOD: http_attributes.HTTP_REQUEST_METHOD,
        words.RESEND_COUNT: http_attributes.HTTP_REQUEST_RESEND_COUNT,
        words.STATUS: http_attributes.HTTP_RESPONSE_STATUS_CODE,
        words.ADDRESS: server_attributes.SERVER_ADDRESS,
        words.PORT: server_attributes.SERVER_PORT,
        words.URL: url_attributes.URL_FULL,
        words.ERROR: error_attributes.ERROR_TYPE,
        words.OPERATION: gen_ai_attributes.GEN_AI_OPERATION_NAME,
        words.MODEL: gen_ai_attributes.GEN_AI_REQUEST_MODEL,
        words.PROVIDER: gen_ai_attributes.GEN_AI_PROVIDER_NAME,
        words.HTTP_DURATION: http_metrics.HTTP_CLIENT_REQUEST_DURATION,
        words.CALL_DURATION: gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION,
    }  # fmt: skip


def test_operations_and_providers_are_words_of_the_convention() -> None:
    """Where it has one."""
    operations = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    providers = {value.value for value in gen_ai_attributes.GenAiProviderNameValues}

    assert {name for _, name in words._OPERATIONS} <= operations
    assert {name for _, name in words._HOSTS} | set(words._VENDORS.values()) <= providers


@pytest.mark.parametrize(
    ("method", "target", "model", "name", "expected"),
    [
        ("POST", "https://gw.example/v1/chat/completions", "m", "chat m", {"server.port": 443}),
        ("POST", "http://gw.example:81/v1/completions", "m", "text_completion m", {"server.port": 81}),
        ("POST", "https://gw.example/v1/embeddings", "m", "embeddings m", {}),
        ("POST", "https://gw.example/v1/responses", "m", "chat m", {}),
        ("POST", "https://api.anthropic.com/v1/messages", "m", "chat m", {words.PROVIDER: "anthropic"}),
        ("POST", "https://gw.example/v1beta/models/g:streamGenerateContent", "g", "generate_content g", {}),
        ("POST", "https://gw.example/v1/chat/completions", "", "POST", {words.MODEL: None}),
        ("GET", "https://gw.example/v1/models", "", "GET", {words.OPERATION: None}),
        ("BREW", "https://gw.example/pot", "", "HTTP", {"http.request.method": "_OTHER"}),
        ("POST", "https://[::1]:8080/v1/chat/completions", "m", "chat m", {words.ADDRESS: "::1", words.PORT: 8080}),
        ("POST", "https://gw.example:99999/v1/embeddings", "m", "embeddings m", {words.PORT: 443}),
        ("POST", "https://x.openai.azure.com/v1/embeddings", "m", "embeddings m",
         {words.PROVIDER: "azure.ai.openai"}),
        ("POST", "https://gw.example/v1/embeddings", "azure/openai/m", "embeddings azure/openai/m",
         {words.PROVIDER: "azure.ai.openai"}),
        ("POST", "https://gw.example/v1/embeddings", "acme/m", "embeddings acme/m", {words.PROVIDER: "acme"}),
        ("POST", "https://gw.example/v1/embeddings", "m", "embeddings m", {words.PROVIDER: "gw.example"}),
    ],
)  # fmt: skip
def test_what_a_call_is(method: str, target: str, model: str, name: str, expected: dict[str, Any]) -> None:
    """Read off the method, the URL and the model."""
    about = words.about(events.CallStarted(1, "host", model, "", method, target))

    assert about.name == name
    assert {key: about.span.get(key) for key in expected} == expected
    assert about.span[words.URL] == target


# ---- spans -----------------------------------------------------------------------------------------------


def test_a_span_for_each_request(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Children of the caller's span, with what the conventions require; the second says that it is a resend."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Error("model_overloaded")])
    with harness.open(telemetry.brain(clock)) as session:
        caller = post_under(session, telemetry.tracing.get_tracer("test"), url(gateway))

    sent = [span for span in telemetry.spans if span.name != "caller"]
    host, port = gateway.url.removeprefix("http://").split(":")
    common = {
        "http.request.method": "POST",
        "server.address": host,
        "server.port": int(port),
        "url.full": url(gateway),
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": MODEL,
    }
    assert [span.name for span in sent] == [f"chat {MODEL}"] * 2
    assert [span.kind for span in sent] == [SpanKind.CLIENT] * 2
    assert [span.parent for span in sent] == [caller.get_span_context()] * 2
    assert [span.status.status_code for span in sent] == [StatusCode.ERROR, StatusCode.UNSET]
    first, second = (dict(span.attributes or {}) for span in sent)
    assert first == common | {
        "http.response.status_code": 503,
        "error.type": "model_overloaded",
        "gip_resilience.attempt": 1,
        "gip_resilience.code": "model_overloaded",
    }
    assert second == common | {
        "http.response.status_code": 200,
        "http.request.resend_count": 1,
        "gip_resilience.attempt": 2,
        "gip_resilience.attempts": 2,
        "gip_resilience.code": "ok",
        "gip_resilience.outcome": "success",
        "gip_resilience.waited": pytest.approx(0.5),
    }
    assert (sent[0].end_time or 0) <= (sent[1].start_time or 0)
    assert sent[0].instrumentation_scope is not None
    assert sent[0].instrumentation_scope.name == "gip_resilience"


def test_each_request_carries_the_context_of_its_span(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """In the place of what the caller's request had, which is not changed."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Error("model_overloaded")])
    old = f"00-{'1' * 32}-{'2' * 16}-01"
    with harness.open(telemetry.brain(clock)) as session:
        answer = session.post(url(gateway), headers={"TraceParent": old, "x-note": "kept"})

    carried = [seen.header("traceparent") for seen in gateway.requests]
    assert carried == [
        f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
        for span in telemetry.spans
    ]
    assert [seen.header("x-note") for seen in gateway.requests] == ["kept"] * 2
    assert len([name for name, _ in gateway.requests[0].headers if name.lower() == "traceparent"]) == 1
    assert answer.response.request.headers["traceparent"] == old


def test_nothing_is_left_current(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Neither after a call, nor while a stream is read, nor after one that failed."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Error("model_server_error")] * 3 + [BreakStream(events=4)])
    with harness.open(telemetry.brain(clock)) as session:
        before = run_in(session, context.get_current)
        session.post(url(gateway))
        assert run_in(session, context.get_current) == before
        with Live(session, url(gateway), EXACT) as live:
            live.take()
            assert run_in(session, context.get_current) == before
            live.read()
        assert run_in(session, context.get_current) == before
    assert not trace.get_current_span().is_recording()


def test_a_hop_is_a_child_of_the_first_caller_and_linked_to_what_broke(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Though it is sent where and when the stream is read."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([BreakStream(events=4)])
    tracer = telemetry.tracing.get_tracer("test")
    with harness.open(telemetry.brain(clock)) as session, tracer.start_as_current_span("opener") as opener:
        if session.portal is not None:
            session.portal.call(_attach, trace.set_span_in_context(opener))
        live = Live(session, url(gateway), EXACT)
        with tracer.start_as_current_span("reader"):
            live.read()
        live.close()

    broken, resent = [span for span in telemetry.spans if span.kind is SpanKind.CLIENT]
    assert resent.parent == broken.parent
    if session.portal is None:
        assert broken.parent == opener.get_span_context()
    (link,) = resent.links
    assert link.context == broken.context
    assert dict(link.attributes or {}) == {"gip_resilience.hop": "replay"}
    assert (resent.attributes or {})["http.request.resend_count"] == 1


async def _attach(found: Any) -> None:
    context.attach(found)


def test_a_call_that_sends_nothing_has_a_span(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Of kind internal: there was no request."""
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    with harness.open(telemetry.brain(clock, on_open="respond")) as session:
        for _ in range(2):
            session.post(url(gateway))

    _, refused = telemetry.spans
    assert refused.kind is SpanKind.INTERNAL
    assert (refused.attributes or {})["error.type"] == "circuit_open"
    assert [event.name for event in refused.events] == [
        "gip_resilience.call_refused",
        "gip_resilience.call_gave_up",
    ]


def test_one_observer_for_several_brains(gateway: Gateway, clock: FakeClock, harness: Harness) -> None:
    """Their counters are added up, and one that is gone is not kept alive."""
    telemetry = Telemetry()
    brains = [telemetry.brain(clock) for _ in range(2)]
    for brain in brains:
        with harness.open(brain) as session:
            session.post(url(gateway))

    (point,) = telemetry.points()["gip_resilience.calls"]
    assert point.value == 2
    del brains, brain, session
    gc.collect()
    assert "gip_resilience.calls" not in telemetry.points()


class Broken:
    """A tracer that raises at everything."""

    surrounds = True

    def __init__(self, when: str) -> None:
        self.when = when

    def trace(self, started: events.CallStarted) -> Any:
        """Or gives a trace that does."""
        if self.when == "trace":
            raise RuntimeError("broken tracer")
        return self

    def enter(self, number: int) -> dict[str, str]:
        if self.when == "enter":
            raise RuntimeError("broken tracer")
        return {}

    def leave(self) -> None:
        if self.when == "leave":
            raise RuntimeError("broken tracer")

    def tell(self, event: events.Event) -> None:
        if self.when == "tell":
            raise RuntimeError("broken tracer")


@pytest.mark.parametrize("when", ["trace", "enter", "leave", "tell"])
def test_a_tracer_that_raises_disturbs_nobody(
    when: str, harness: Harness, gateway: Gateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and counted."""
    gateway.plan = FaultPlan.script([Error("model_overloaded")])
    brain = gr.Resilience(clock=clock, observers=[Broken(when)])
    with caplog.at_level(logging.ERROR), harness.open(brain) as session:
        answer = session.post(url(gateway))

    assert answer.status == 200
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert brain.metrics.snapshot().observer_failures >= 1


def test_two_tracers_are_one_too_many() -> None:
    """Both would want to be the current span."""
    with pytest.raises(TypeError, match="traces calls, and so does"):
        gr.Resilience(observers=[OpenTelemetry(), OpenTelemetry()])


# ---- beside others ---------------------------------------------------------------------------------------

OTHERS = ("httpx global", "httpx below", "httpx above", "requests")


@contextmanager
def instrumented(how: str, telemetry: Telemetry, harness: Harness, brain: gr.Resilience) -> Iterator[Session]:
    """A mounted client that another instrumentation has a hand in."""
    providers: dict[str, Any] = {
        "tracer_provider": telemetry.tracing,
        "meter_provider": telemetry.metering,
    }
    with ExitStack() as stack:
        if how in {"httpx global", "requests"}:
            instrumentor: Any = HTTPXClientInstrumentor() if how == "httpx global" else RequestsInstrumentor()
            instrumentor.instrument(**providers)
            stack.callback(instrumentor.uninstrument)
            yield stack.enter_context(harness.open(brain))
            return
        session = stack.enter_context(harness.open())
        if how == "httpx above":
            gr.mount(session.client, brain)
        HTTPXClientInstrumentor.instrument_client(session.client, **providers)
        stack.callback(HTTPXClientInstrumentor.uninstrument_client, session.client)
        if how == "httpx below":
            gr.mount(session.client, brain)
        yield session


BESIDE = [
    pytest.param(how, harness, id=f"{how}-{harness}")
    for how in OTHERS
    for harness in HARNESSES
    if (harness.name == "requests") == (how == "requests") and not harness.name.startswith("httpx2")
]
"""Each with the clients it instruments."""


@pytest.mark.parametrize(("how", "harness"), BESIDE)
def test_beside_another_instrumentation_nothing_is_counted_twice(
    how: str, harness: Harness, gateway: Gateway, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One client span for each request where they are below us, one for the call where they are above."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    from opentelemetry.instrumentation import _semconv

    monkeypatch.setattr(_semconv._OpenTelemetrySemanticConventionStability, "_initialized", False)
    telemetry = Telemetry()
    gateway.plan = FaultPlan.script([Error("model_overloaded")] * 2)
    with instrumented(how, telemetry, harness, telemetry.brain(clock)) as session:
        session.post(url(gateway))

    kinds = Counter(span.kind for span in telemetry.spans)
    scopes = Counter(
        (point.attributes.get("http.response.status_code"), point.count)
        for point in telemetry.points().get("http.client.request.duration", [])
    )
    above = how in {"httpx above", "requests"}
    if above:
        assert kinds == {SpanKind.CLIENT: 1, SpanKind.INTERNAL: 3}
        assert scopes == {(200, 1): 1}
        outer = next(span for span in telemetry.spans if span.kind is SpanKind.CLIENT)
        parents = [span.parent.span_id for span in telemetry.spans if span.parent is not None]
        assert parents == [outer.context.span_id] * 3
    else:
        assert kinds == {SpanKind.CLIENT: 3}
        assert scopes == {(503, 2): 1, (200, 1): 1}
    assert len({seen.header("traceparent") for seen in gateway.requests}) == 3


@pytest.mark.parametrize("what", ["everything", "http"])
def test_where_instrumentation_is_suppressed(what: str, gateway: Gateway, clock: FakeClock) -> None:
    """All of it: silence. HTTP's alone: spans that are no client's, and no count of requests."""
    telemetry = Telemetry()
    quiet = suppress_instrumentation if what == "everything" else suppress_http_instrumentation
    with HARNESSES[0].open(telemetry.brain(clock)) as session, quiet():
        session.post(url(gateway))

    assert [span.kind for span in telemetry.spans] == ([] if what == "everything" else [SpanKind.INTERNAL])
    points = telemetry.points()
    assert "http.client.request.duration" not in points
    assert ("gen_ai.client.operation.duration" in points) is (what == "http")
    assert gateway.requests[0].header("traceparent") is None or what == "http"


# ---- metrics ---------------------------------------------------------------------------------------------


def test_durations(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Of requests and of calls, with the attributes and the buckets of the conventions."""
    telemetry = Telemetry(traces=False)
    gateway.plan = FaultPlan.script([Error("model_overloaded"), Error("invalid_request")])
    with harness.open(telemetry.brain(clock)) as session:
        for _ in range(3):
            session.post(url(gateway))

    points = telemetry.points()
    host, port = gateway.url.removeprefix("http://").split(":")
    where = {"server.address": host, "server.port": int(port)}
    http = {"http.request.method": "POST", **where}
    requests = {frozenset(point.attributes.items()): point for point in points[words.HTTP_DURATION]}
    assert {key: point.count for key, point in requests.items()} == {
        frozenset({**http, "http.response.status_code": 200}.items()): 2,
        frozenset({**http, "http.response.status_code": 503, "error.type": "model_overloaded"}.items()): 1,
        frozenset({**http, "http.response.status_code": 400, "error.type": "invalid_request"}.items()): 1,
    }
    calls = {frozenset(point.attributes.items()): point for point in points[words.CALL_DURATION]}
    call = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": MODEL,
        **where,
    }
    assert {key: point.count for key, point in calls.items()} == {
        frozenset(call.items()): 2,
        frozenset({**call, "error.type": "invalid_request"}.items()): 1,
    }
    assert {point.explicit_bounds for point in requests.values()} == {words.HTTP_BUCKETS}
    assert {point.explicit_bounds for point in calls.values()} == {SECONDS}
    assert telemetry.spans == []
    assert gateway.requests[0].header("traceparent") is None


def test_counters_say_what_the_snapshot_says(gateway: Gateway, clock: FakeClock, harness: Harness) -> None:
    """Every one of them, and every one has a unit and a description."""
    telemetry = Telemetry(traces=False)
    gateway.plan = FaultPlan.script([Error("model_overloaded", retry_after=1), Error("model_unavailable")])
    brain = telemetry.brain(clock, on_open="respond")
    with harness.open(brain) as session:
        for _ in range(3):
            session.post(url(gateway))

    points, seen = telemetry.points(), brain.metrics.snapshot()
    assert sum(point.value for point in points["gip_resilience.calls"]) == seen.total()
    assert sum(point.value for point in points["gip_resilience.attempts"]) == seen.sent()
    assert points["gip_resilience.retries"][0].value == seen.retries
    assert points["gip_resilience.wait.time"][0].value == pytest.approx(sum(seen.waits.values()))
    states = {
        (point.attributes.get(words.MODEL), point.attributes["gip_resilience.circuit.state"]): point.value
        for point in points["gip_resilience.circuit.state"]
    }
    assert states[MODEL, "open"] == 1.0
    assert states[MODEL, "closed"] == states[None, "open"] == 0.0
    assert {"gip_resilience." + metric.name for metric in _otel_metrics.METRICS} >= {
        name for name in points if name.startswith("gip_resilience.")
    }
    assert all(metric.unit and metric.description.endswith(".") for metric in _otel_metrics.METRICS)


def test_nothing_that_is_put_aside_is_lost(clock: FakeClock) -> None:
    """Neither when there is too much of it, nor before a shutdown."""
    telemetry = Telemetry(traces=False)
    brain = telemetry.brain(clock)
    for number in range(_otel_metrics.MAX_ASIDE + 5):
        call = brain.call("h", "", "m", asked=lambda: ("POST", "https://h/v1/chat/completions"))
        call.close() if number % 2 else call.stream_left()
    assert telemetry.observer._durations is not None
    assert 0 < telemetry.observer._durations.waiting() < _otel_metrics.MAX_ASIDE + 5
    telemetry.observer.flush()

    assert telemetry.points()[words.CALL_DURATION][0].count == _otel_metrics.MAX_ASIDE + 5


def test_names_in_metrics_are_bounded(clock: FakeClock) -> None:
    """A client that invents models and a server that invents codes meet ``other``."""
    telemetry = Telemetry(traces=False)
    observer = telemetry.observer
    for number in range(1500):
        started = events.CallStarted(1, "h", f"m{number}", "", "POST", "https://h/v1/chat/completions")
        found = observer.trace(started)
        assert found is not None
        attempt = gr.Attempt(1, f"code{number}", 500, 0.1, 0.0, None, maybe_executed=False)
        found.tell(events.AttemptEnded(1, "h", "m", attempt))
        report = gr.CallReport("h", f"m{number}", "failure", "", (attempt,), 0.1, 0.0, None)
        found.tell(events.CallEnded(1, report))
    points = telemetry.points()

    models = {point.attributes[words.MODEL] for point in points[words.CALL_DURATION]}
    assert len(models) == 201
    assert "other" in models
    assert sum(point.count for point in points[words.CALL_DURATION]) == 1500


def test_without_opentelemetry_there_is_a_word_for_it() -> None:
    """And the package itself does not need it."""
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import gip_resilience as gr; gr.Resilience()\n"
        "try:\n    import gip_resilience.otel\n"
        "except ImportError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "pip install 'gip-resilience[otel]'" in ran.stdout
