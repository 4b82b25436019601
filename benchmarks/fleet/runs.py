"""Runs, and what is read off them."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import gip_resilience as gr
from benchmarks.fleet.network import Sharing
from benchmarks.overload.scenarios import SCENARIOS
from gip_resilience.simulation.clockwork import BINS, Clock, Simulation
from gip_resilience.simulation.measures import measure
from gip_resilience.simulation.runs import quiet
from gip_resilience.simulation.troubles import DEADLINE, Trouble

FAULTS = {
    scenario.name: replace(scenario, after=60.0)
    for scenario in (
        # One answer tells: `model_unavailable`.
        Trouble("dead", "refuse", "gone"),
        # Counted failures: a 502 from the model, a page from the gateway itself, and silence.
        Trouble("failing", "refuse", "server_error"),
        SCENARIOS["outage"],
        SCENARIOS["silence"],
        # A third of all calls fail: nothing should open.
        SCENARIOS["brownout30"],
        SCENARIOS["ratelimit"],
    )
}
EVERYWHERE = 0.99
"""Share of the clients that had been there before."""


def run(
    scenario: Trouble, clients: int, seed: int, *, shared: bool, away: bool = False, settings: Any = None
) -> dict[str, float | None]:
    """One run.

    Args:
        scenario: the fault.
        clients: processes.
        seed: of everything that is drawn.
        shared: whether they share their state.
        away: whether the server dies with the first second of the fault, and comes back empty 20 s later.
        settings: laid over the default configuration.
    """
    began = time.perf_counter()
    clock = Clock()
    config = gr.Config.from_dict({"deadline": DEADLINE, **(settings or {})})
    fleet = Sharing(config, clock, clients, random.Random(f"policy {seed}"), shared=shared)
    simulation = Simulation(scenario, clock, fleet, clients, seed)
    fleet.network.at = simulation.at
    simulation.at(scenario.start, fleet.watch, None)
    if away:
        simulation.at(scenario.start + 1.0, lambda _: fleet.network.leave(), None)
        simulation.at(scenario.start + 21.0, lambda _: fleet.network.come_back(), None)
    with quiet():
        trace = simulation.run()
    figures = measure(scenario, trace)
    end = int(scenario.end)
    released = [
        count * BINS / scenario.rate(end + slot / BINS)
        for slot, count in enumerate(trace.sends[end * BINS : (end + 30) * BINS])
    ]
    times = sorted(fleet.opened[client] for client in fleet.known if client in fleet.opened)
    enough = int(EVERYWHERE * len(fleet.known))
    load = fleet.network.load
    watched = range(int(scenario.start), int(scenario.end) + 30)
    return {
        "sends": figures["sends"],
        "success": figures["success"],
        "everywhere": times[enough - 1] - scenario.start if 0 < enough <= len(times) else None,
        "opened": len(times) / max(1, len(fleet.known)),
        "herd": max(released),
        "first_second": figures["first_second"],
        "limited": figures["limited"],
        "recovery": figures["recovery"],
        "scripts": sum(load.scripts[second] for second in watched) / len(watched),
        "scripts_peak": float(max(load.scripts[second] for second in watched)),
        "published": float(sum(load.published[second] for second in watched)),
        "delivered_peak": float(max(load.delivered[second] for second in watched)),
        "took": time.perf_counter() - began,
    }
