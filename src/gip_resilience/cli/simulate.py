"""Try a configuration in bad weather: the library's own engine on a virtual clock, beside naive retries and none.

Nothing is sent and nothing waits. The same seed gives the same bytes. What the simulated gateway is, and what it
cannot tell, is said in docs/simulation.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gip_resilience._config_errors import closest
from gip_resilience.cli.output import CommandError, columns, paragraph
from gip_resilience.cli.settings import load
from gip_resilience.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gip_resilience.config import Config
    from gip_resilience.simulation.runs import Result
    from gip_resilience.simulation.scenarios import Scenario

DEFAULT = "outage"
ALL = "all"


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="NAME|FILE",
        help=f"one that --list names, a TOML file, or '{ALL}'; may be given more than once (default: {DEFAULT})",
    )
    parser.add_argument("--policy", metavar="FILE", help="your configuration (TOML), for a row of its own")
    parser.add_argument("--seed", type=int, default=1, help="decides all that is left to chance (default: 1)")
    parser.add_argument("--clients", type=_clients, help="how many (default: as the scenario says)")
    parser.add_argument(
        "--processes",
        type=_clients,
        help="that the clients share (default: as the scenario says, or one each)",
    )
    parser.add_argument("--minutes", type=_minutes, help="of virtual time (default: as the scenario says)")
    parser.add_argument("--list", action="store_true", help="name the scenarios that come with the library")
    parser.add_argument("--show", metavar="NAME", help="print a scenario's TOML, to start your own from")
    parser.add_argument("--json", action="store_true", help="print all figures, and why calls were given up")
    parser.add_argument("--markdown", action="store_true", help="print tables for a page")
    parser.add_argument("--plot", metavar="DIR", type=Path, help="write SVG plots and index.html there")
    parser.epilog = """\
examples:
  gip-resilience simulate                                an outage, under the defaults
  gip-resilience simulate --policy my.toml --scenario brownout --scenario ratelimit
  gip-resilience simulate --show outage > mine.toml; gip-resilience simulate --scenario mine.toml"""


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from gip_resilience.simulation.runs import compare
    from gip_resilience.simulation.scenarios import SHIPPED, text_of
    from gip_resilience.simulation.tables import document

    if arguments.list:
        _list()
        return 0
    if arguments.show is not None:
        if arguments.show not in SHIPPED:
            raise _unknown(arguments.show)
        print(text_of(arguments.show), end="")
        return 0
    configs: dict[str, Config] = {} if arguments.policy is None else {"yours": load(arguments.policy)}
    names = [
        name for given in arguments.scenario or [DEFAULT] for name in (SHIPPED if given == ALL else [given])
    ]
    # All of them are read before the first is run: a mistake in the last should not cost minutes.
    chosen = [(_called(name), _scenario(name, arguments)) for name in dict.fromkeys(names)]
    shown: list[tuple[str, Scenario, list[Result]]] = []
    for name, scenario in chosen:
        results = compare(
            scenario.trouble(name),
            configs,
            clients=scenario.traffic.clients,
            seed=arguments.seed,
            deadline=scenario.traffic.deadline,
            processes=scenario.traffic.processes,
            tell=partial(_tell, name),
        )
        _tell()
        shown.append((name, scenario, results))
        if not arguments.json:
            _print(name, scenario, results, arguments)
    if arguments.json:
        found: list[dict[str, Any]] = [
            {"scenario": name, "settings": scenario.to_dict(), "policies": document(results)}
            for name, scenario, results in shown
        ]
        print(json.dumps({"seed": arguments.seed, "scenarios": found}, indent=1))
    if arguments.plot is not None:
        _plot(arguments.plot, shown)
    return 0


def _list() -> None:
    from gip_resilience.simulation.scenarios import SHIPPED, Scenario

    print(columns((name, Scenario.shipped(name).summary) for name in SHIPPED))


def _scenario(name: str, arguments: argparse.Namespace) -> Scenario:
    """The scenario of that name, or in that file, with what the command line changes in it."""
    from gip_resilience.simulation.scenarios import SHIPPED, Scenario

    try:
        if name in SHIPPED:
            scenario = Scenario.shipped(name)
        elif name.endswith(".toml") or Path(name).is_file():
            scenario = Scenario.load(name)
        else:
            raise _unknown(name)
    except ConfigError as problem:
        raise CommandError(str(problem)) from None
    except OSError as problem:
        raise CommandError(f"{name}: {problem.strerror or problem}") from None
    try:
        return scenario.changed(
            clients=arguments.clients, processes=arguments.processes, minutes=arguments.minutes
        )
    except ConfigError as problem:
        raise CommandError(f"{name}: {problem}") from None


def _unknown(name: str) -> CommandError:
    from gip_resilience.simulation.scenarios import SHIPPED

    near = closest(name, SHIPPED)
    meant = (
        f"did you mean {near}?" if near else f"known are {', '.join(SHIPPED)}, and files that end in .toml"
    )
    return CommandError(f"there is no scenario {name!r}; {meant}")


def _called(name: str) -> str:
    """What a scenario is called in tables, and its files' names begin with."""
    return Path(name).name.removesuffix(".toml")


def _print(name: str, scenario: Scenario, results: Sequence[Result], arguments: argparse.Namespace) -> None:
    from gip_resilience.simulation.tables import markdown, rows

    traffic = scenario.traffic
    shared = f" in {traffic.processes} processes" if traffic.processes else ""
    title = (
        f"{name}: {scenario.summary}; {scenario.minutes:g} min of {traffic.clients} clients{shared} with a call each"
        f" {traffic.call_every:g} s, seed {arguments.seed}"
    )
    if arguments.markdown:
        print(f"{title}\n\n{markdown(results)}\n", flush=True)
        return
    table = rows(results)
    print(
        paragraph(title), columns(table, right=frozenset(range(1, len(table[0])))), "", sep="\n", flush=True
    )


def _plot(directory: Path, shown: Sequence[tuple[str, Scenario, list[Result]]]) -> None:
    from gip_resilience.simulation.tables import page, plots

    try:
        directory.mkdir(parents=True, exist_ok=True)
        sections = []
        for name, scenario, results in shown:
            pictures = list(plots(scenario.trouble(name), results))
            for file, picture in pictures:
                (directory / file).write_text(picture, encoding="utf-8")
            sections.append((name, scenario.summary, results, [picture for _, picture in pictures]))
        (directory / "index.html").write_text(page(sections), encoding="utf-8")
    except OSError as problem:
        raise CommandError(f"{directory}: {problem.strerror or problem}") from None


def _tell(*what: str) -> None:
    """Say on a terminal what is being run; nothing wipes it away again."""
    if sys.stderr.isatty():
        print(f"\r\033[K{': '.join(what)}", end="", file=sys.stderr, flush=True)


def _clients(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _minutes(text: str) -> float:
    number = float(text)
    if not 0.0 < number < inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return number
