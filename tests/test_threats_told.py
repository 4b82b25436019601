"""What a hostile server has written into spans, attributes and labels; the list is docs/threats.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import gip_resilience as gr
from gip_resilience import _otel_words as words
from gip_resilience.gateway import FaultPlan, Status
from gip_resilience.otel import OpenTelemetry
from gip_resilience.prometheus import MultiProcessObserver, ResilienceCollector
from gip_resilience.testing import FakeClock, ScriptedUpstream
from harness import CHAT, HARNESSES
from test_testing_upstream import connect
from test_threats import CONTROL, HOSTILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Harness

LONGEST = 300
"""Characters of the longest attribute: the URL and the names of models have bounds of their own."""


class Told:
    """A brain, and what monitoring gets of it: spans, metrics of OpenTelemetry, and Prometheus's of both kinds."""

    def __init__(self, clock: FakeClock, observe: gr.ObserveConfig | None = None) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        telemetry = OpenTelemetry(tracer_provider=tracing, meter_provider=MeterProvider([self.reader]))
        self.read, self.counted = CollectorRegistry(), CollectorRegistry()
        self.brain = gr.Resilience(
            gr.Config(observe=observe or gr.ObserveConfig()),
            clock=clock,
            observers=[telemetry, MultiProcessObserver(self.counted)],
        )
        self.read.register(ResilienceCollector(self.brain))

    def attributes(self) -> Iterator[tuple[str, Any]]:
        """Of all spans, their events, and all points of metrics; names of spans, and what is said of an error."""
        for span in self.exporter.get_finished_spans():
            yield "name", span.name
            yield "status", span.status.description or ""
            yield from (span.attributes or {}).items()
            for event in span.events:
                yield "event", event.name
                yield from (event.attributes or {}).items()
        data = self.reader.get_metrics_data()
        for resource in () if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        yield from (point.attributes or {}).items()

    def scraped(self) -> list[str]:
        """What Prometheus reads, of each kind."""
        return [generate_latest(registry).decode() for registry in (self.read, self.counted)]

    def labels(self) -> Iterator[tuple[str, str]]:
        """What it makes of that."""
        for text in self.scraped():
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    assert sample.name.startswith("gip_resilience_"), "a sample of somebody else's making"
                    yield from sample.labels.items()


def body(**error: str) -> bytes:
    """An error's body; halves of surrogate pairs go as JSON writes them."""
    return json.dumps(
        {"error": {"type": "error", "code": "model_overloaded", "message": "-"} | error}
    ).encode()


NASTY = {
    "controls": HOSTILE,
    "quotes": 'a"}\nup{job="b\\',
    "long": "x" * 5_000,
    "megabyte": "x" * 1_000_000,
    "surrogates": "\ud800evil\udfff\ud800",
}
ANSWERS = {
    f"{field}-{name}": Status(503, body=body(**{field: text}))
    for name, text in NASTY.items()
    for field in ("code", "type", "message")
} | {
    "bytes-code": Status(503, body=b'{"error":{"code":"\xff\xfe\xed\xa0\x80"}}'),
    "bytes-page": Status(503, body=b"\xff\xfe\x00\n" * 50),
    "rate-limit": Status(
        429, body=body(code=HOSTILE), headers={"x-ratelimit-limit-requests": "\xa0\xff" * 100}
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_writes_into_spans_and_series(name: str) -> None:
    """Attributes and labels are of one line, short, and text; and what is scraped holds no sample of its making."""
    (harness,) = (one for one in HARNESSES if one.name == "requests")
    told = exchanged(harness, ANSWERS[name], CHAT["model"])

    assert dict(told.attributes())[words.ERROR]
    assert unfit(told) == []


@pytest.mark.parametrize("name", ["controls", "quotes", "long"])
def test_no_model_writes_into_spans_and_series(harness: Harness, name: str) -> None:
    """Nor does a model's name, that a program may have from anybody."""
    told = exchanged(harness, Status(503), NASTY[name])

    assert dict(told.attributes())[words.MODEL]
    assert unfit(told) == []


def exchanged(harness: Harness, reply: Status, model: str) -> Told:
    """What is told of a call that fails like that."""
    upstream = ScriptedUpstream(FaultPlan.always(reply))
    told = Told(upstream.clock)
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, told.brain)
        session.post(upstream.base_url + "/chat/completions", json=CHAT | {"model": model})
    return told


def unfit(told: Told) -> list[tuple[str, object]]:
    """What is no word to be told."""
    found = [*told.attributes(), *told.labels()]
    assert found
    return [
        (name, value)
        for name, value in found
        if isinstance(value, str)
        and (CONTROL.search(value) or not value.isprintable() or len(value) > LONGEST or not writable(value))
    ]


def writable(text: str) -> bool:
    """Whether it can go out as UTF-8."""
    return text == text.encode("utf-8", "replace").decode()


def test_made_up_codes_and_models_make_no_series_without_end() -> None:
    """So many as `ObserveConfig` allows, and one for the rest, in each kind of series."""
    limits = gr.ObserveConfig(max_codes=7, max_models=5, max_hosts=3)
    upstream = ScriptedUpstream(
        FaultPlan.script([Status(400, body=body(code=f"made_up_{number}")) for number in range(60)])
    )
    told = Told(upstream.clock, limits)
    (harness,) = (one for one in HARNESSES if one.name == "requests")
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, told.brain)
        for number in range(60):
            model = CHAT | {"model": f"made-up/{number}"}
            session.post(upstream.base_url + "/chat/completions", json=model)

    assert len(upstream.requests) == 60
    for kind in (told.labels(), point_attributes(told)):
        values: dict[str, set[str]] = {}
        for name, value in kind:
            values.setdefault(name, set()).add(value)
        codes = {value for value in set().union(*values.values()) if value.startswith("made_up_")}
        models = {value for value in set().union(*values.values()) if value.startswith("made-up/")}
        assert len(codes) == limits.max_codes
        assert len(models) == limits.max_models
        assert "other" in set().union(*values.values())


def point_attributes(told: Told) -> Iterator[tuple[str, str]]:
    """Of the metrics of OpenTelemetry alone: spans are no series."""
    told.exporter.clear()
    yield from ((name, value) for name, value in told.attributes() if isinstance(value, str))
