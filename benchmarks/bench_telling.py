"""What being observed costs a call that succeeds at once: microseconds, and the ratio to the same call untold.

Interleaved in one process, medians. The engine's part of a call is measured by itself (admission, verdict, counting),
because a client around it would hide a microsecond in its own noise; the ratio to a whole call over a transport that
answers from memory is beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import httpx2
from bench_call import AUTH, BODY, URL, null_transport
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

import gip_resilience as gr
from gip_resilience._answers import success
from gip_resilience.otel import OpenTelemetry
from gip_resilience.prometheus import MultiProcessObserver, ResilienceCollector

if TYPE_CHECKING:
    from collections.abc import Callable

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


def engine(brain: gr.Resilience) -> Callable[[int], float]:
    """Calls without a client."""

    def asked() -> tuple[str, str]:
        return "POST", URL

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call = brain.call("gateway.test", "digest", BODY["model"], asked=asked)
            call.admit()
            with call.sending():
                pass
            call.succeed(GOOD)
            call.close()
        return time.perf_counter() - start

    return run


def client(brain: gr.Resilience) -> Callable[[int], float]:
    """Calls of a blocking httpx2 client."""
    made = httpx2.Client(transport=null_transport(httpx2))
    gr.mount(made, brain)

    def run(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            made.post(URL, json=BODY, headers=AUTH)
        return time.perf_counter() - start

    return run


def compare(
    kind: str, make: Callable[[gr.Resilience], Callable[[int], float]], rounds: int, calls: int
) -> None:
    """Print one line per brain."""
    runs = {name: make(brain) for name, brain in brains().items()}
    for run in runs.values():
        run(calls)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(run(calls) / calls * 1e6)
        collect()
    first = next(iter(taken.values()))
    print(f"\n{kind}, {rounds} rounds of {calls} calls")
    print(f"{'':28}{'µs':>9}{'more µs':>9}{'ratio':>8}{'min':>8}{'max':>8}")
    for name, found in taken.items():
        more = statistics.median(mine - theirs for mine, theirs in zip(found, first, strict=True))
        ratios = sorted(mine / theirs for mine, theirs in zip(found, first, strict=True))
        print(
            f"{name:28}{statistics.median(found):9.2f}{more:9.2f}"
            f"{statistics.median(ratios):8.3f}{ratios[0]:8.3f}{ratios[-1]:8.3f}"
        )


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    compare("the engine's part", engine, options.rounds, 500)
    compare("a whole call of httpx2", client, options.rounds, 200)


if __name__ == "__main__":
    main()
