"""Look at what processes share on Redis or Valkey, and overrule it.

``status`` shows the circuits that the fleet has open, the gates that are closed, and who is there; ``reset`` closes
circuits and opens gates, for every process at once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Final

from gip_resilience.cli.output import CommandError, columns, seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from gip_resilience._redis_records import Fleet, Records

PATIENCE: Final = 5.0
"""Seconds the server may take for an answer: here somebody waits who wants to know."""

VARIABLE: Final = "REDIS_URL"

WRONG_USAGE: Final = 2


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summaries = "Show circuits, gates and processes.", "Close circuits and open gates, for every process."
    status, reset = (
        actions.add_parser(name, help=text, description=text)
        for name, text in zip(("status", "reset"), summaries, strict=True)
    )
    for action in (status, reset):
        action.add_argument(
            "--url",
            default=None,
            help=f"where the store is, redis://… or rediss://…; by default what {VARIABLE} says, which no other user"
            " of the machine can read off the process list",
        )
        action.add_argument("--namespace", default="default", help="whose records (default)")
        action.add_argument("--cluster", action="store_true", help="the server is a node of a cluster")
        action.add_argument("--json", action="store_true", help="for programs")
    reset.add_argument("--host", help="of this host only (as status shows it)")
    reset.add_argument("--model", help='of this model only; "" for the host itself')
    reset.add_argument("--all", action="store_true", help="everything")
    status.epilog = f"""\
examples:
  {VARIABLE}=redis://127.0.0.1:6379 gip-resilience fleet status
  gip-resilience fleet status --url redis://127.0.0.1:6379 --namespace shop --json"""
    reset.epilog = """\
examples:
  gip-resilience fleet reset --url redis://127.0.0.1:6379 --all
  gip-resilience fleet reset --url redis://127.0.0.1:6379 --host gateway.example --model azure/openai/gpt-5-mini"""


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.action == "reset" and arguments.all == (arguments.host is not None):
        return _wrong("reset: expected --all, or --host and perhaps --model")
    if arguments.action == "reset" and arguments.model is not None and arguments.host is None:
        return _wrong("reset: expected --host with --model")
    url = arguments.url or os.environ.get(VARIABLE)
    if not url:
        return _wrong(f"expected --url, or {VARIABLE} in the environment")
    try:
        from redis import RedisError

        from gip_resilience._redis_asking import UnusableError
        from gip_resilience._redis_clients import place_of
        from gip_resilience._redis_records import Records
    except ImportError as error:
        raise CommandError("it needs redis-py: pip install gip-resilience[redis]") from error
    try:
        place = place_of(url, cluster=arguments.cluster)
        records = Records(place, arguments.namespace, PATIENCE)
    except ValueError as error:
        return _wrong(str(error))
    except (RedisError, OSError) as error:
        raise CommandError(f"{place}: {error}") from error
    try:
        return _status(records, arguments) if arguments.action == "status" else _reset(records, arguments)
    except (RedisError, OSError, UnusableError) as error:
        raise CommandError(f"{place}: {error}") from error
    finally:
        records.close()


def _wrong(what: str) -> int:
    print(f"gip-resilience fleet: {what}", file=sys.stderr)
    return WRONG_USAGE


def _status(records: Records, arguments: argparse.Namespace) -> int:
    fleet = records.look()
    if arguments.json:
        print(json.dumps(_plain(fleet), indent=2))
    else:
        print("\n\n".join(_sections(fleet)))
    return 0


def _plain(fleet: Fleet) -> dict[str, object]:
    plain = {name: [record._asdict() for record in getattr(fleet, name)] for name in fleet._fields[1:]}
    return {"nodes": fleet.nodes, **plain}


def _sections(fleet: Fleet) -> Iterator[str]:
    versions = sorted(set(fleet.nodes.values()))
    yield f"{_count(len(fleet.nodes), 'process', 'processes')} (version {', '.join(versions) or '-'})"
    if fleet.circuits:
        rows = [("circuit", "", "state", "why", "left", "probe", "opened by")]
        rows += [
            (
                record.host,
                record.model or "-",
                record.state,
                record.kind,
                seconds(record.left) if record.left else "-",
                f"under way, {seconds(record.probing)} at most" if record.probing else "-",
                record.node,
            )
            for record in fleet.circuits
        ]
        yield columns(rows)
    else:
        yield "No circuit has been opened by the fleet within the last minute."
    if fleet.gates:
        gates = [("gate", "", "closed for", "closed by")]
        gates += [(gate.host, gate.model or "-", seconds(gate.left), gate.node) for gate in fleet.gates]
        yield columns(gates)
    else:
        yield "No gate is closed."
    if fleet.budgets:
        budgets = [("retry budget", "", "tokens left")]
        budgets += [(one.host, one.model or "-", f"{one.tokens:.1f}") for one in fleet.budgets]
        yield columns(budgets, right=frozenset({2}))


def _reset(records: Records, arguments: argparse.Namespace) -> int:
    circuits, gates = records.reset(arguments.host, arguments.model)
    if arguments.json:
        print(json.dumps({"circuits": [key._asdict() for key in circuits], "gates": gates}, indent=2))
        return 0
    for key in circuits:
        print(f"closed: {' '.join(filter(None, key))}")
    print(
        f"{_count(len(circuits), 'circuit')}, {_count(gates, 'gate')}: every process that is there has been told."
    )
    return 0


def _count(number: int, word: str, words: str = "") -> str:
    return f"{number} {word if number == 1 else words or word + 's'}"
