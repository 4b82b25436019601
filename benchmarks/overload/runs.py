"""Many runs, their medians, and what is written down of them."""

from __future__ import annotations

import json
import multiprocessing
import platform
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import gip_resilience
from gip_resilience.simulation.measures import NEVER, measure
from gip_resilience.simulation.runs import one

from .policies import POLICIES, Shipped
from .scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gip_resilience.simulation.clockwork import Trace
    from gip_resilience.simulation.fleets import Rival
    from gip_resilience.simulation.troubles import Trouble


class Job(NamedTuple):
    """One run, by names that travel between processes."""

    scenario: str
    policy: str
    clients: int
    seed: int
    changes: tuple[tuple[str, Any], ...] = ()
    scale: float = 1.0
    config: str = ""
    """JSON laid over the settings of a policy of ours."""


def simulate(
    scenario: Trouble, policy: Rival | Shipped, clients: int, seed: int
) -> tuple[Trace, dict[str, Any]]:
    """One run, and what the policy itself counted."""
    return one(scenario, policy.fleet, clients, seed)


def run(job: Job) -> dict[str, Any]:
    """One run as plain values."""
    scenario = replace(SCENARIOS[job.scenario].scaled(job.scale), **dict(job.changes))
    policy = POLICIES[job.policy]
    if job.config and isinstance(policy, Shipped):
        policy = replace(policy, settings={**policy.settings, **json.loads(job.config)})
    trace, tally = simulate(scenario, policy, job.clients, job.seed)
    opened = tally.get("opened")
    figures = measure(scenario, trace)
    figures["opened"] = None if opened is None else float(sum(opened.values()))
    last = int(scenario.horizon)
    return {
        "scenario": job.scenario,
        "policy": job.policy,
        "clients": job.clients,
        "seed": job.seed,
        "figures": figures,
        "tally": tally,
        "goodput": trace.goodput[:last],
        "arrivals": trace.arrivals[:last],
        "sends": [sum(trace.sends[s * 10 : s * 10 + 10]) for s in range(last)],
    }


def run_all(jobs: Iterable[Job], processes: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every job, in as many processes; results in the order of the jobs."""
    jobs = list(jobs)
    results = []
    if processes == 1:
        results = [_told(run(job), tell) for job in jobs]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            results = [_told(result, tell) for result in pool.imap(run, jobs)]
    return results


def _told(result: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    tell("{scenario} {policy} {clients} seed {seed}".format(**result))
    return result


def summarise(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the seeds, with the least and the greatest; tallies are summed."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["scenario"], result["policy"], result["clients"]), []).append(result)
    return [_summary(*key, runs) for key, runs in groups.items()]


def _summary(scenario: str, policy: str, clients: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in runs[0]["figures"]:
        values = sorted(value for run in runs if (value := run["figures"][name]) is not None)
        figures[name] = [median(values), values[0], values[-1]] if values else None
    tally: dict[str, dict[str, int]] = {}
    for run in runs:
        for kind, counts in run["tally"].items():
            total = tally.setdefault(kind, {})
            for reason, count in counts.items():
                total[reason] = total.get(reason, 0) + count
    return {
        "scenario": scenario,
        "policy": policy,
        "clients": clients,
        "seeds": [run["seed"] for run in runs],
        "figures": figures,
        "tally": tally,
        "series": {name: _typical(runs, name) for name in ("arrivals", "goodput", "sends")},
    }


def _typical(runs: list[dict[str, Any]], name: str) -> list[float]:
    """The median of every second."""
    return [median(second) for second in zip(*(run[name] for run in runs), strict=True)]


def document(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The result file: what depends on the machine is left out. ``null`` is none, ``"never"`` is never."""
    return {
        "about": "figures are [median, least, greatest] over the seeds; tallies are sums over them",
        "gip_resilience": gip_resilience.__version__,
        "python": platform.python_version(),
        "rows": [
            {
                **{name: value for name, value in summary.items() if name != "series"},
                "figures": {
                    name: None if values is None else [_plain(value) for value in values]
                    for name, values in summary["figures"].items()
                },
            }
            for summary in summaries
        ],
    }


def _plain(value: float) -> float | str:
    return "never" if value == NEVER else round(value, 4)


def read(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a result file, as `summarise` gives them, but for what was drawn."""
    return [
        {
            **row,
            "figures": {
                name: None if values is None else [NEVER if value == "never" else value for value in values]
                for name, values in row["figures"].items()
            },
        }
        for row in found["rows"]
    ]
