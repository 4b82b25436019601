"""``python -m benchmarks.fleet``."""

from __future__ import annotations

import argparse
import json
from functools import partial
from multiprocessing import Pool
from statistics import median
from typing import Any

from benchmarks.fleet.runs import FAULTS, run

COLUMNS = {
    "sends": ("sends per call", "{:.2f}"),
    "success": ("success", "{:.0%}"),
    "everywhere": ("open everywhere", "{:.2f} s"),
    "herd": ("herd", "{:.1f}"),
    "limited": ("429s", "{:.0f}"),
    "recovery": ("recovery", "{:.0f} s"),
    "scripts": ("scripts/s", "{:.0f}"),
    "scripts_peak": ("peak", "{:.0f}"),
    "published": ("published", "{:.0f}"),
    "delivered_peak": ("delivered/s, peak", "{:.0f}"),
    "took": ("computed in", "{:.0f} s"),
}


def one(job: dict[str, Any]) -> dict[str, Any]:
    """A run, by names that travel between processes."""
    scenario = FAULTS[job["scenario"]]
    figures = run(
        scenario,
        job["clients"],
        job["seed"],
        shared=job["shared"],
        away=job["away"],
        settings=job["settings"],
    )
    return {**job, "figures": figures}


def main() -> None:
    """Run, and print a table for each scenario."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--scenario", nargs="*", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--clients", nargs="*", type=int, default=[10, 100, 1000, 10_000])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--away", action="store_true", help="the store dies 1 s into the fault, for 20 s")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON over the default configuration")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    jobs = [
        {
            "scenario": scenario,
            "clients": clients,
            "seed": seed,
            "shared": shared,
            "away": arguments.away,
            "settings": arguments.settings,
        }
        for scenario in arguments.scenario
        for clients in arguments.clients
        for shared in (False, True)
        for seed in range(1, arguments.seeds + 1)
    ]
    with Pool(arguments.jobs) as pool:
        results = pool.map(partial(one), jobs, chunksize=1)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    for scenario in arguments.scenario:
        print(f"\n### {scenario}\n")
        print("| processes | | " + " | ".join(heading for heading, _ in COLUMNS.values()) + " |")
        print("|---:|---|" + "---:|" * len(COLUMNS))
        for clients in arguments.clients:
            for shared in (False, True):
                chosen = [
                    result["figures"]
                    for result in results
                    if (result["scenario"], result["clients"], result["shared"])
                    == (scenario, clients, shared)
                ]
                cells = [cell(chosen, name, form) for name, (_, form) in COLUMNS.items()]
                print(f"| {clients} | {'shared' if shared else 'own'} | " + " | ".join(cells) + " |")


def cell(figures: list[dict[str, float | None]], name: str, form: str) -> str:
    """The median over the seeds; nothing where there is nothing to say, or it never came about."""
    values = [figure[name] for figure in figures]
    known = [value for value in values if value is not None]
    if len(known) * 2 <= len(values):
        return "never" if name == "everywhere" else ""
    return form.format(median(known))


if __name__ == "__main__":
    main()
