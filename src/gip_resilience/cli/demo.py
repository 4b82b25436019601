"""Live through a bad afternoon at a local gateway, and read streams that break, with and without resilience.

Every client does the same work twice, bare and mounted, each time at a gateway of its own that plays the same
plan with the same seed. Nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from typing import TYPE_CHECKING

from gip_resilience.cli import breaks, screen
from gip_resilience.cli.afternoon import Afternoon
from gip_resilience.cli.clients import CLIENTS
from gip_resilience.cli.output import CommandError
from gip_resilience.cli.running import Run
from gip_resilience.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gip_resilience.cli.running import Score

TICK = 0.1
"""Seconds between two looks at the progress."""


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--seed", type=int, default=Afternoon().seed, help="decides which requests are hit")
    parser.add_argument(
        "--calls", type=_count, default=Afternoon().calls, help="calls of each client (default: %(default)s)"
    )
    parser.add_argument(
        "--client",
        action="append",
        choices=[client.name for client in CLIENTS],
        help="only this client; may be given more than once",
    )
    parser.add_argument("--plain", action="store_true", help="plain text, even on a terminal")
    parser.epilog = """\
examples:
  gip-resilience demo
  gip-resilience demo --client httpx --client requests --calls 200"""


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    # The clients warn of full pools and the like on standard error; here the table tells what happened.
    logging.getLogger().addHandler(logging.NullHandler())
    # requests and openai read proxies from the environment; the gateway is on this machine.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    afternoon = Afternoon(arguments.calls, arguments.seed)
    chosen = [client for client in CLIENTS if not arguments.client or client.name in arguments.client]
    present = [client for client in chosen if not client.missing]
    if not present:
        raise CommandError("no client is installed; try: pip install 'gip-resilience[all]'")
    bare = [Run(client, afternoon, mounted=False) for client in present]
    mounted = [Run(client, afternoon, mounted=True) for client in present]
    shown = screen.choose(plain=arguments.plain)
    started = time.monotonic()
    shown.introduce(afternoon, [client for client in chosen if client.missing])
    with shown.watching(bare, mounted) as look:
        # One half after the other: sixteen clients at once would compete for the machine, and it would show.
        for half in (bare, mounted):
            _wait_for(half, look)
    scores = [_score(run) for pair in zip(bare, mounted, strict=True) for run in pair]
    shown.conclude(scores)
    tallies = breaks.run([client.name for client in present])
    shown.conclude_streams(tallies, time.monotonic() - started)
    return 0


def _wait_for(runs: Sequence[Run], look: screen.Look) -> None:
    clock = SystemClock()
    for each in runs:
        each.start()
    while any(each.running for each in runs):
        clock.sleep(TICK)
        look()
    look()


def _score(run: Run) -> Score:
    if run.score is None:
        raise CommandError(f"{run.client.name} came to nothing: {run.problem!r}")
    return run.score
