"""Prometheus over several processes: nothing is lost and nothing is counted twice, also of those that died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gip_resilience.prometheus import FAMILIES
from test_prometheus import Samples, only, scraped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.gateway import Gateway

STATE = "gip_resilience_circuit_state"
UNTOLD = tuple(family.name for family in FAMILIES if not family.told)
GAUGES = tuple(family.name for family in FAMILIES if family.kind == "gauge")

WORKER = """
import json, sys, threading
import gip_resilience as gr
from gip_resilience import events
from gip_resilience.breaker import Cause, State, Transition
from gip_resilience.gateway import Gateway
from gip_resilience.prometheus import MultiProcessObserver
from gip_resilience.state import CircuitKey
from gip_resilience.testing import FakeClock
from happenings import SCENES
from harness import CHAT, HARNESSES
from test_prometheus import expected

url, calls, state = sys.argv[1], int(sys.argv[2]), State(sys.argv[3])
brains = []
with Gateway() as own:
    for scene in SCENES:
        brains.append(scene.play(HARNESSES[0], own, FakeClock(), MultiProcessObserver()))
shared = gr.Resilience(clock=FakeClock(), observers=[MultiProcessObserver()])
def drive():
    with HARNESSES[0].open(shared) as session:
        for _ in range(calls):
            session.post(url, json=CHAT)
threads = [threading.Thread(target=drive) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
shared.tell(events.CircuitChanged(CircuitKey("gw.example"), Transition(State.CLOSED, state, Cause.TRIPPED, 5.0)))
said = [[name, labels, value] for brain in [*brains, shared]
        for (name, labels), value in expected(brain.metrics.snapshot()).items()]
print(json.dumps(said), flush=True)
sys.stdin.read()
"""
"""Plays everything that can happen, calls a gateway that others call too, says what it counted, and stays."""

FORKING = """
import os
import gip_resilience as gr
from gip_resilience._answers import success
from gip_resilience.prometheus import MultiProcessObserver

brains = [gr.Resilience(observers=[MultiProcessObserver()]) for _ in range(2)]
def calls(number):
    for _ in range(number):
        for brain in brains:
            one = brain.call("gw.example", "digest", "m")
            assert one.admit()
            one.succeed(success(200))
            one.close()
calls(2)
child = os.fork()
if not child:
    calls(3)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
calls(1)
"""

LATE = """
import os, prometheus_client
from gip_resilience.prometheus import MultiProcessObserver
os.environ["PROMETHEUS_MULTIPROC_DIR"] = "."
try: MultiProcessObserver()
except RuntimeError as error: print(error)
"""


def environment(**more: str) -> dict[str, str]:
    """Of a worker: it can import what tests share."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **more}


def together(folder: Path) -> Samples:
    """What is scraped of all processes."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return scraped(registry)


class Worker:
    """A process that has done its calls, and lives on."""

    def __init__(self, folder: Path, url: str, calls: int, state: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(calls), state],
            env=environment(PROMETHEUS_MULTIPROC_DIR=str(folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def counted(self) -> list[Any]:
        """What it says it counted."""
        assert self.process.stdout is not None
        return list(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        """As an operating system does that has no memory left."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def workers(tmp_path: Path, gateway: Gateway) -> Iterator[list[Worker]]:
    """Three, one of whose circuits is open."""
    url = gateway.base_url + "/chat/completions"
    with ExitStack() as stack:
        started = []
        for calls, state in ((4, "open"), (5, "closed"), (6, "closed")):
            started.append(Worker(tmp_path, url, calls, state))
            stack.callback(started[-1].kill)
        yield started


def test_the_sum_is_what_all_have_counted(workers: list[Worker], tmp_path: Path, gateway: Gateway) -> None:
    """While they live, after they were killed in the midst of it, and after the server took note of that."""
    total: Counter[Any] = Counter()
    for worker in workers:
        for name, labels, value in worker.counted():
            total[name, tuple(map(tuple, labels))] += value
    counted = only(dict(total), *UNTOLD, *GAUGES)
    # Told to the observers alone, so that it is a state of theirs and not of a store.
    said = {
        state: (STATE, (("host", "gw.example"), ("state", state)))
        for state in ("open", "closed", "half_open")
    }

    alive = together(tmp_path)

    assert only(alive, *GAUGES) == pytest.approx(counted)
    calls = sum(value for (name, _), value in alive.items() if name == "gip_resilience_calls_total")
    assert calls > len(gateway.requests) == 3 * (4 + 5 + 6)
    assert [alive.get(said[state]) for state in said] == [1, 1, None]
    assert [value for (name, _), value in alive.items() if name == "gip_resilience_info"] == [1]

    workers[0].kill()
    assert together(tmp_path) == alive
    mark_process_dead(workers[0].pid, str(tmp_path))  # type: ignore[no-untyped-call]  # not typed by them
    left = together(tmp_path)
    assert only(left, *GAUGES) == pytest.approx(counted)
    assert [left.get(said[state]) for state in said] == [None, 1, None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_forks(tmp_path: Path) -> None:
    """As gunicorn does with ``preload_app``: what was counted before stays the parent's, and is counted once.

    Two brains with an observer each take turns: neither overwrites what the other has counted.
    """
    subprocess.run(
        [sys.executable, "-c", FORKING],
        env=environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path)),
        timeout=50,
        check=True,
    )

    found = together(tmp_path)
    where = (("host", "gw.example"), ("model", "m"))
    ended = (("code", "ok"), *where, ("outcome", "success"))
    assert found["gip_resilience_calls_total", ended] == 12
    assert found["gip_resilience_attempts_total", (("code", "ok"), *where)] == 12
    assert found["gip_resilience_call_duration_seconds_count", where] == 12
    assert len(list(tmp_path.glob("counter_*.db"))) == 2


def test_the_directory_has_to_be_named_in_time() -> None:
    """Or nothing would be shared, and nobody would notice."""
    done = subprocess.run(
        [sys.executable, "-c", LATE],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    assert done.stdout.startswith("PROMETHEUS_MULTIPROC_DIR was set after prometheus_client was imported")
