"""What telling costs a call that succeeds at once, in functions called: the same on every machine.

Microseconds are measured by ``python -m benchmarks telling``.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

import gip_resilience as gr
from gip_resilience._answers import success
from gip_resilience.otel import OpenTelemetry
from gip_resilience.prometheus import ResilienceCollector

if TYPE_CHECKING:
    from types import FrameType

GOOD = success(200)


class Untold:
    """Counters that count nothing."""

    def succeeded(self, host: str, model: str, took: float) -> None:
        """Nothing."""


def untold() -> gr.Resilience:
    """A brain that counts nothing."""
    brain = gr.Resilience()
    brain._world = brain._world._replace(metrics=Untold())  # type: ignore[arg-type]  # the measure of the others
    return brain


def exported() -> gr.Resilience:
    """One with both exporters, metrics only."""
    meters = MeterProvider([InMemoryMetricReader()])
    brain = gr.Resilience(observers=[OpenTelemetry(meter_provider=meters, traces=False)])
    CollectorRegistry().register(ResilienceCollector(brain))
    return brain


def call(brain: gr.Resilience) -> None:
    """The engine's part of a call."""
    one = brain.call("h", "digest", "m", asked=lambda: ("POST", "https://h/v1/chat/completions"))
    one.admit()
    with one.sending(nullcontext()):
        pass
    one.succeed(GOOD)
    one.close()


def functions(brain: gr.Resilience) -> int:
    """Python functions that one call calls, once all is warm."""
    for _ in range(3):
        call(brain)
    called = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal called
        called += event == "call"

    sys.setprofile(count)
    try:
        call(brain)
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.parametrize(
    ("make", "most"), [(gr.Resilience, 0), (exported, 30)], ids=["counters", "exporters"]
)
def test_what_a_healthy_call_pays_to_be_told_of(make: Any, most: int) -> None:
    """Counting is one function, as counting nothing is; exporters add about two dozen."""
    assert functions(make()) - functions(untold()) <= most
