"""The command line, and the tables it prints."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gip_resilience.simulation.measures import NEVER

from .policies import POLICIES
from .runs import Job, document, read, run_all, summarise
from .scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXTRA_POLICIES, EXTRA_CLIENTS = ("ours",), (20, 1000)
"""Run too, unless something else is asked for: whether it matters over how many clients the same load is spread."""

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "sends": ("sends/call", "{:.2f}".format),
    "success": ("success", "{:.2%}".format),
    "during": ("goodput during", "{:.1%}".format),
    "after": ("minute after", "{:.1%}".format),
    "recovery": ("recovery s", "{:.0f}".format),
    "p50": ("p50 s", "{:.2f}".format),
    "p99": ("p99 s", "{:.2f}".format),
    "fail50": ("to failure s", "{:.2f}".format),
    "peak": ("peak 0.1 s", "{:.1f}".format),
    "first_second": ("1st second", "{:.1f}".format),
    "limited": ("429s", "{:.0f}".format),
    "others": ("other models", "{:.2%}".format),
    "opened": ("opened", "{:.0f}".format),
}


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """One Markdown table of runs of one scenario; a column that says nothing is left out."""
    names = [name for name in COLUMNS if any(row["figures"][name] is not None for row in summaries)]
    lines = [["policy", "clients", *(COLUMNS[name][0] for name in names)]]
    for row in summaries:
        cells = [_cell(name, row["figures"][name]) for name in names]
        lines.append([row["policy"], str(row["clients"]), *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        [
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _cell(name: str, values: list[float] | None) -> str:
    if values is None:
        return "-"
    return "never" if values[0] == NEVER else COLUMNS[name][1](values[0])


def _changes(texts: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    pairs = [text.partition("=") for text in texts]
    return tuple((name, json.loads(value)) for name, _, value in pairs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--policy", nargs="+", choices=POLICIES, metavar="NAME")
    parser.add_argument(
        "--clients",
        nargs="+",
        type=int,
        help=f"how many; without it 200, and {EXTRA_CLIENTS} for {EXTRA_POLICIES} too if no policy is named",
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many; they are 1, 2, 3...")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--svg", type=Path, help="write plots into this directory")
    parser.add_argument("--page", type=Path, help="put the tables into this page, between its marks")
    parser.add_argument(
        "--results",
        type=Path,
        help="run nothing: take those of an earlier --json, which has no seconds to plot",
    )
    parser.add_argument("--why", action="store_true", help="say why circuits opened and calls were given up")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="FIELD=JSON", help="change the scenario: quota=true, load=200"
    )
    parser.add_argument(
        "--config", default="", metavar="JSON", help='settings of ours: {"breaker": {"open_time": 2}}'
    )
    options = parser.parse_args(arguments)
    if options.results:
        summaries = read(json.loads(options.results.read_text()))
        for scenario in dict.fromkeys(row["scenario"] for row in summaries):
            print(f"\n{scenario}\n\n{table([row for row in summaries if row['scenario'] == scenario])}")
    else:
        summaries = _run(options)
    if options.json:
        options.json.write_text(_lines(document(summaries)))
    if options.svg:
        from .plots import draw

        options.svg.mkdir(parents=True, exist_ok=True)
        draw(summaries, options.svg)
    if options.page:
        options.page.write_text(with_tables(options.page.read_text(), summaries))


def _run(options: argparse.Namespace) -> list[dict[str, Any]]:
    summaries = []
    for scenario in options.scenario:
        jobs = [
            Job(scenario, policy, clients, seed, _changes(options.set), config=options.config)
            for policy, clients in _who(options)
            for seed in range(1, options.seeds + 1)
        ]
        found = summarise(run_all(jobs, options.jobs, _tell))
        summaries += found
        print(f"\n{scenario}\n\n{table(found)}", flush=True)
        if options.why:
            print("", *(line for row in found for line in _why(row)), sep="\n")
    return summaries


def _who(options: argparse.Namespace) -> list[tuple[str, int]]:
    who = [(policy, clients) for policy in options.policy or POLICIES for clients in options.clients or [200]]
    if options.policy is None and options.clients is None:
        who += [(policy, clients) for policy in EXTRA_POLICIES for clients in EXTRA_CLIENTS]
    return who


def with_tables(page: str, summaries: Sequence[dict[str, Any]]) -> str:
    """*page* with the table of each scenario between ``<!-- name -->`` and ``<!-- /name -->``."""
    for scenario in dict.fromkeys(row["scenario"] for row in summaries):
        rows = [row for row in summaries if row["scenario"] == scenario]
        opening, closing = f"<!-- {scenario} -->", f"<!-- /{scenario} -->"
        before, mark, rest = page.partition(opening)
        _, end, after = rest.partition(closing)
        if mark and end:
            page = f"{before}{opening}\n{table(rows)}\n{closing}{after}"
    return page


def _why(row: dict[str, Any]) -> list[str]:
    return [
        f"  {row['policy']} {row['clients']} {kind}: "
        + ", ".join(f"{reason} x{n}" for reason, n in counts.items())
        for kind, counts in row["tally"].items()
        if counts
    ]


def _lines(found: dict[str, Any]) -> str:
    """JSON with a line per row, so that two result files can be compared."""
    head = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items() if name != "rows"
    )
    rows = ",\n".join(json.dumps(row) for row in found["rows"])
    return f'{{{head},\n"rows": [\n{rows}\n]}}\n'


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)
