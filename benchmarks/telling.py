"""What being observed costs a call that succeeds at once: microseconds, and the ratio to the same call untold.

Interleaved in one process, medians. The engine's part of a call is measured by itself (admission, verdict, counting),
because a client around it would hide a microsecond in its own noise; the ratio to a whole call over a transport that
answers from memory is beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

import gip_resilience as gr
from benchmarks.clients import BODY, URL, guarded, null_transport, post
from benchmarks.measuring import Effort, Found, busy, compare
from gip_resilience._answers import success
from gip_resilience.above import Layer
from gip_resilience.otel import OpenTelemetry
from gip_resilience.prometheus import MultiProcessObserver, ResilienceCollector

if TYPE_CHECKING:
    from benchmarks.measuring import Run

GOOD = success(200)


class Untold:
    """Counters that count nothing."""

    def succeeded(self, host: str, model: str, took: float) -> None:
        """Nothing."""

    def count(self, event: object) -> None:
        """Nothing."""


def telemetry(**options: Any) -> OpenTelemetry:
    """With a real SDK that exports nothing by itself."""
    READERS.append(InMemoryMetricReader())
    meters = MeterProvider(READERS[-1:])
    return OpenTelemetry(tracer_provider=TracerProvider(), meter_provider=meters, **options)


READERS: list[InMemoryMetricReader] = []


def collect() -> None:
    """What a periodic reader does, in a thread of its own: histograms take what was put aside."""
    for reader in READERS:
        reader.get_metrics_data()


def brains() -> dict[str, gr.Resilience]:
    """Those that are compared; the first is the measure."""
    found = {
        "nothing counted": gr.Resilience(),
        "counters": gr.Resilience(),
        "+ Prometheus, OTel metrics": gr.Resilience(observers=[telemetry(traces=False)]),
        "+ OTel spans too": gr.Resilience(observers=[telemetry()]),
        "Prometheus, many processes": gr.Resilience(observers=[MultiProcessObserver(CollectorRegistry())]),
    }
    untold = found["nothing counted"]
    untold._world = untold._world._replace(metrics=Untold())  # type: ignore[arg-type]  # noqa: SLF001 - for want of a way
    CollectorRegistry().register(ResilienceCollector(found["+ Prometheus, OTel metrics"]))
    return found


def engine(brain: gr.Resilience) -> Run:
    """Calls without a client."""
    layer = Layer(brain, "POST", URL)

    def asked() -> tuple[str, str]:
        return "POST", URL

    def run(calls: int) -> float:
        start = busy()
        for _ in range(calls):
            call = brain.call("gateway.test", "digest", str(BODY["model"]), asked=asked)
            call.admit()
            with call.sending(layer):
                pass
            call.succeed(GOOD)
            call.close()
        return busy() - start

    return run


def client(brain: gr.Resilience) -> Run:
    """Calls of a blocking httpx2 client."""
    made = guarded(httpx2.Client(transport=null_transport(httpx2)), brain)

    def run(calls: int) -> float:
        start = busy()
        for _ in range(calls):
            post(made)
        return busy() - start

    return run


def bench(effort: Effort) -> Found:
    """Each brain, by itself and under a client."""
    found = Found()
    for subject, make, calls in (("the engine's part", engine, 500), ("a whole call of httpx2", client, 100)):
        runs = {name: collecting(make(brain)) for name, brain in brains().items()}
        found.rows += compare(subject, runs, effort, effort.times(calls))
        READERS.clear()
    return found


def collecting(run: Run) -> Run:
    """*run*, and then what the readers do, which is not counted."""

    def both(calls: int) -> float:
        took = run(calls)
        collect()
        return took

    return both
