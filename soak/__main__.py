"""``python -m soak``: run, or write the report of a run."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .settings import SEED, Settings


def main() -> int:
    """Returns the exit code: 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the run")
    run.add_argument("--seconds", type=float, default=3600.0, help="of traffic (default: %(default)g)")
    run.add_argument("--seed", type=int, default=SEED, help="of what is left to chance")
    run.add_argument("--result", type=Path, default=Path("docs/soak.json"), help="(default: %(default)s)")
    report = commands.add_parser("report", help="write the page of a run, whole or not")
    report.add_argument("--result", type=Path, default=Path("docs/soak.json"), help="(default: %(default)s)")
    report.add_argument("--page", type=Path, default=Path("docs/soak.md"), help="(default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "report":
        from .report import write

        write(arguments.result, arguments.page)
        return 0
    from .running import Run

    made = Run(
        Settings.of(arguments.seconds, arguments.seed), arguments.result, lambda line: print(line, flush=True)
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: made.interrupted.set())
    return 0 if made() else 1


if __name__ == "__main__":
    sys.exit(main())
