"""Nothing that is told holds a secret: twenty are planted, and everything that comes out is searched for them.

What comes out: events, counters, log lines with all their fields, spans, metrics of both exporters, reports, notes on
exceptions, and the text of exceptions and objects of ours.
"""

from __future__ import annotations

import json
import logging
import traceback
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

import gip_resilience as gr
from gip_resilience.gateway import BreakStream, Error, FaultPlan, RateLimited, Raw, Reset, Status
from gip_resilience.logs import DebugLog
from gip_resilience.otel import OpenTelemetry
from gip_resilience.prometheus import ResilienceCollector
from happenings import Witness
from harness import CHAT

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway, Reply
    from gip_resilience.testing import FakeClock
    from harness import Harness


def secret(number: int) -> str:
    """A word that is nowhere else."""
    return f"planted{number:02}secret"


(
    BEARER,
    API_KEY,
    COOKIE,
    HEADER,
    QUERY,
    FRAGMENT,
    USER,
    PASSWORD,
    PROMPT,
    SYSTEM,
    TOOL,
    METADATA,
    ERROR_TEXT,
    ERROR_TYPE,
    ANSWER_HEADER,
    SET_COOKIE,
    PAGE,
    ANSWER,
    ORGANISATION,
    BAGGAGE,
) = SECRETS = [secret(number) for number in range(1, 21)]

BODY = {
    **CHAT,
    "messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": PROMPT},
    ],
    "tools": [{"type": "function", "function": {"name": TOOL, "parameters": {}}}],
    "metadata": {"note": METADATA},
}
HEADERS = {
    "Authorization": f"Bearer {BEARER}",
    "x-api-key": API_KEY,
    "Cookie": f"session={COOKIE}",
    "x-note": HEADER,
    "OpenAI-Organization": ORGANISATION,
    "baggage": f"user={BAGGAGE}",
}
TELLING = {"x-note": ANSWER_HEADER, "set-cookie": f"session={SET_COOKIE}"}
JSON = {"content-type": "application/json"}
COMPLETION = json.dumps({"choices": [{"message": {"content": ANSWER}}]}).encode()


def failing(code: str, **more: Any) -> Error:
    """An error that says more than it should."""
    return Error(code, message=ERROR_TEXT, type=ERROR_TYPE, headers=TELLING, **more)


SCRIPTS: dict[str, list[Reply]] = {
    "success": [Status(200, COMPLETION, TELLING | JSON)],
    "retry": [failing("model_overloaded"), failing("model_overloaded", retry_after=2)],
    "gave up": [failing("model_server_error")] * 3,
    "rejected": [failing("invalid_request")],
    "prose for a code": [failing(f"{ERROR_TEXT} is no good")],
    "hint refused": [failing("model_overloaded", retry_after=999)],
    "limited": [RateLimited(2)],
    "unavailable": [failing("model_unavailable")] * 2,
    "page": [Status(502, PAGE.encode(), TELLING)] * 3,
    "lost": [Reset("request")] * 2,
    "garbage": [Raw(f"{PAGE} is no HTTP\r\n\r\n".encode())] * 2,
    "broken json": [Status(200, COMPLETION[:-9], TELLING | JSON)] * 2,
}
STREAMS: dict[str, list[Reply]] = {
    "whole": [],
    "restart": [BreakStream(events=1)],
    "cut": [BreakStream(events=4)],
    "error": [BreakStream(how="error", events=4)],
    "error first": [BreakStream(how="error", code=f"{ERROR_TEXT} is no good")] * 2,
}


class Collected:
    """A brain, and everything that can be got out of it."""

    def __init__(self, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
        self.witness = Witness()
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(self.spans))
        telemetry = OpenTelemetry(tracer_provider=tracing, meter_provider=MeterProvider([self.reader]))
        self.brain = gr.Resilience(clock=clock, observers=[self.witness, telemetry, DebugLog()])
        self.registry = CollectorRegistry()
        self.registry.register(ResilienceCollector(self.brain))
        self.caplog = caplog
        self.kept: list[Any] = []

    def keep(self, outcome: Any) -> None:
        """A response or an exception: what we wrote on it, or said by it."""
        self.kept += [gr.report(outcome), str(gr.report(outcome))]
        if isinstance(outcome, BaseException):
            self.kept += getattr(outcome, "__notes__", [])
        if isinstance(outcome, gr.ResilienceError):
            ours = traceback.TracebackException.from_exception(outcome, lookup_lines=False)
            self.kept += [str(outcome), repr(outcome), outcome.args, ours.exc_type, str(ours)]

    def text(self) -> str:
        """All of it."""
        brain, seen = self.brain, self.brain.metrics.snapshot()
        formatter = logging.Formatter("%(levelname)s %(message)s")
        records = [record for record in self.caplog.records if record.name == "gip_resilience"]
        things: list[Any] = [
            *self.kept,
            *self.witness.events,
            *(msgspec.json.encode(event, enc_hook=repr).decode() for event in self.witness.events),
            *(formatter.format(record) for record in records),
            *(vars(record) for record in records),
            *(span.to_json() for span in self.spans.get_finished_spans()),
            self.reader.get_metrics_data().to_json(),  # type: ignore[union-attr]  # there are some
            generate_latest(self.registry).decode(),
            seen,
            seen.as_dict(),
            brain,
            brain.breakers,
            brain.breakers.all(),
            brain.metrics,
            brain.store,
        ]
        return "\n".join(f"{thing!r}\n{thing!s}" for thing in things)


def url_of(gateway: Gateway) -> str:
    """With secrets wherever a URL may have them."""
    place = gateway.url.removeprefix("http://")
    return f"http://{USER}:{PASSWORD}@{place}/v1/chat/completions?key={QUERY}#{FRAGMENT}"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_no_secret_is_told(
    streamed: bool, harness: Harness, gateway: Gateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happens to a call, under every client."""
    caplog.set_level(logging.DEBUG, "gip_resilience")
    collected = Collected(clock, caplog)
    body = {**BODY, "stream": True} if streamed else BODY
    with harness.open(collected.brain) as session:
        for script in (STREAMS if streamed else SCRIPTS).values():
            gateway.plan = FaultPlan.script(script)
            for _ in range(2):
                try:
                    answer = session.post(url_of(gateway), json=body, headers=HEADERS)
                except Exception as error:  # the bare client's words are its own; ours are searched
                    collected.keep(error)
                else:
                    collected.keep(answer.response)
            clock.advance(300.0)

    text = collected.text()
    assert CHAT["model"] in text
    assert len(collected.witness.events) > 50
    assert len(collected.spans.get_finished_spans()) > 8
    assert [word for word in SECRETS if word in text] == []


def test_the_search_would_find_one(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it looks: a model's name is told everywhere, and here it is a planted word."""
    caplog.set_level(logging.DEBUG, "gip_resilience")
    collected = Collected(clock, caplog)
    brain = collected.brain
    call = brain.call("h", "", PROMPT)
    call.close()

    assert PROMPT in collected.text()
    for part in (repr(collected.witness.events), str(brain.metrics.snapshot()), caplog.text):
        assert PROMPT in part
    assert PROMPT in generate_latest(collected.registry).decode()
