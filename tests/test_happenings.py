"""For each kind of thing that can happen: exactly the events, counters, spans and log lines that tell of it.

The scenes are `happenings.SCENES`, and ``data/happenings.toml`` says what is told of each. They are played under
every client, and the telling is the same under each.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gip_resilience import events
from gip_resilience.otel import OpenTelemetry
from happenings import SCENES, TOLD, Scene, Witness, counted

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from gip_resilience.gateway import Gateway
    from gip_resilience.testing import FakeClock
    from harness import Harness


def _word(span: ReadableSpan) -> str:
    found = span.attributes or {}
    code = found.get("gip_resilience.code", found.get("error.type"))
    parts = [span.kind.name.lower(), found.get("http.request.resend_count", "first"), code]
    parts += [event.name.removeprefix("gip_resilience.") for event in span.events]
    return " ".join(map(str, parts)) + (" -> link" if span.links else "")


@pytest.mark.parametrize("scene", SCENES, ids=repr)
def test_what_is_told_and_counted(
    scene: Scene, harness: Harness, gateway: Gateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every event in order, every counter, every span, every log line, and nothing else."""
    caplog.set_level(logging.INFO, "gip_resilience")
    witness, exporter, provider = Witness(), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = OpenTelemetry(tracer_provider=provider, metrics=False)

    brain = scene.play(harness, gateway, clock, witness, telemetry)

    assert witness.words == scene.expected("events")
    assert counted(brain) == scene.counts
    records = [record for record in caplog.records if record.name == "gip_resilience"]
    assert [f"{record.levelname} {vars(record)['gip_event']}" for record in records] == scene.expected("logs")
    assert [_word(span) for span in exporter.get_finished_spans()] == scene.expected("spans")
    calls = [event for event in witness.events if isinstance(event, events.CallStarted)]
    assert len({event.call for event in calls}) == len(calls)


def test_counts_do_not_need_an_observer(gateway: Gateway, clock: FakeClock, harness: Harness) -> None:
    """They are the same when nobody listens."""
    for scene in SCENES:
        assert counted(scene.play(harness, gateway, clock)) == scene.counts, scene


def test_the_scenes_show_everything_there_is() -> None:
    """Of the events, none is missing but those that no store of this package causes by itself."""
    told = " / ".join(line for scene in SCENES for line in [*scene.expected("events"), ""])
    words = {
        "call ", "attempt ", "answer ", "retry ", "waited ", "refused: ", "no budget ", "deadline ", "refused ",
        "gave up", "success ", "gate closed", "gate opened", "gate waited", "closed -> open", "forced_open",
        "probe ", "shadow ", "degraded ", "stream /", "broken ", "continued ", "diverged", "marker", "reloaded",
        "rejected", "pause ",
    }  # fmt: skip

    assert {word for word in words if word not in told} == set()
    assert len(words) == len(events.METHODS) - 1  # state is restored by stores that can be away
    assert {scene.name for scene in SCENES} == TOLD.keys()
