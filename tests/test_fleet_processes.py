"""Several processes on one server, with real calls to a real gateway: what sharing saves, and what a crash costs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from fleet_worker import MODEL, Process
from gip_resilience.gateway import Error, FaultPlan, Gateway, Slow
from servers import Server, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 8
CALLS = 200
PACE = 0.01
OPEN_TIME = 0.4
CONFIG = {"breaker": {"open_time": OPEN_TIME, "open_jitter": 0.0, "probe_lease": 1.0}}
GONE = FaultPlan.always(Error("model_unavailable"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all of them."""
    with Server() as server:
        yield server


def fleet(
    stack: ExitStack, gateway: Gateway, store: str | None, number: int = PROCESSES, **job: Any
) -> list[Process]:
    """Processes that have met the model and wait for the word."""
    jobs = {
        "gateway": gateway.base_url,
        "host": gateway.base_url.split("/")[2],
        "models": [MODEL],
        "store": store,
        "config": CONFIG,
        "calls": CALLS,
        "pace": PACE,
    } | job
    processes = [Process(**jobs) for _ in range(number)]
    for process in processes:
        stack.callback(process.close)
    for process in processes:
        process.ready()
    return processes


def sends(server: Server, *, shared: bool) -> tuple[int, float]:
    """Requests that a dead model was sent by the whole fleet, and for how long it was called."""
    server.clean()
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(GONE))
        processes = fleet(stack, gateway, server.url if shared else None)
        for process in processes:
            process.go()
        results = [process.result() for process in processes]
        assert all(sum(result["outcomes"].values()) == CALLS for result in results)
        return len(gateway.requests), gateway.requests[-1].at - gateway.requests[0].at


def test_what_a_dead_model_costs(server: Server) -> None:
    """Alone, each of eight processes finds out for itself, and probes for itself; together they pay once.

    At most one process's worth, plus what was on its way when the first answer came.
    """
    alone, span = sends(server, shared=False)
    together, shared_span = sends(server, shared=True)

    one_process = 1 + max(span, shared_span) / OPEN_TIME
    assert alone >= PROCESSES * (1 + int(span / OPEN_TIME) // 2)
    assert together <= one_process + 1 + (PROCESSES - 1)


def test_one_probe_at_a_time(server: Server) -> None:
    """Whoever sends it: while it is under way nobody else does."""
    server.clean()
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(GONE))
        processes = fleet(stack, gateway, server.url)
        for process in processes:
            process.go()
        for process in processes:
            process.result()
        first = gateway.requests[0].at
        probes = [seen.at for seen in gateway.requests if seen.at > first + OPEN_TIME / 2]

        # Each failed one keeps the circuit open for the open time; two at once would be closer together.
        assert len(probes) > 1
        assert all(later - earlier > OPEN_TIME * 0.5 for earlier, later in pairwise(probes))


def test_a_process_that_dies_with_the_probe_in_hand(server: Server) -> None:
    """The next is sent when its lease ends, not later."""
    server.clean()
    lease = CONFIG["breaker"]["probe_lease"]
    with ExitStack() as stack:
        gateway = stack.enter_context(Gateway(GONE))
        victim, *others = fleet(stack, gateway, server.url, calls=400)
        victim.go()
        until(lambda: len(gateway.requests) == 1, "the first call is answered")
        gateway.plan = FaultPlan.always(Slow(30.0))
        until(lambda: len(gateway.requests) == 2, "the probe hangs")
        probing = time.monotonic()
        gateway.plan = GONE
        victim.kill()
        for process in others:
            process.go()
        until(lambda: len(gateway.requests) == 3, "the next probe is sent")
        waited = time.monotonic() - probing

        assert lease * 0.8 < waited < lease + 3.0


def test_a_429_holds_the_others(server: Server) -> None:
    """One process is told to wait; the other seven send nothing in the meantime, and are released over a span."""
    server.clean()
    wait, spread = 1.0, 0.5
    config = {"gate": {"spread": spread}}
    with ExitStack() as stack:
        gateway = stack.enter_context(
            Gateway(FaultPlan.script([Error("rate_limit_exceeded", retry_after=wait)]))
        )
        (first,) = fleet(stack, gateway, server.url, 1, calls=1, config=config)
        others = fleet(stack, gateway, server.url, PROCESSES - 1, calls=1, config=config, after="gate fleet")
        for process in others:
            process.go()
        first.go()
        results = [process.result() for process in (first, *others)]
        assert [result["outcomes"] for result in results] == [{"200": 1}] * PROCESSES
        limited, *released = [seen.at for seen in gateway.requests]

        assert len(released) == PROCESSES
        assert min(released) - limited >= wait - 0.05
        assert max(released) - limited <= wait * (1.0 + spread) + 3.0
        assert max(released) - min(released) > wait * spread * 0.2
