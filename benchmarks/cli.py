"""The command line: benches by name, their report, and the check of instruction counts.

::

    python -m benchmarks                       # all of them, into docs/performance.json
    python -m benchmarks calls loopback        # these alone; printed, and written nowhere
    python -m benchmarks report                # docs/performance.md and its plots, from docs/performance.json
    python -m benchmarks check                 # instruction counts against those recorded
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import instructions, running

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULT = Path("docs/performance.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    match given[:1]:
        case ["check"]:
            return _check(given[1:])
        case ["counted"]:
            instructions.run_counted("".join(given[1:]))
            return 0
        case ["report"]:
            return _report(given[1:])
        case _:
            return _bench(given)


def _bench(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(running.BENCHES)}")
    parser.add_argument("--rounds", type=int, default=31, help="of each comparison (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        help="after which a comparison is content with fewer (%(default)s)",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts within a round (%(default)s)")
    parser.add_argument("--result", type=Path, help=f"the result file ({RESULT} for a run of all)")
    options = parser.parse_args(given)
    unknown = [name for name in options.names if name not in running.BENCHES]
    if unknown:
        parser.error(f"no bench is called {', '.join(unknown)}; there are {', '.join(running.BENCHES)}")
    result = options.result or (None if options.names else RESULT)
    effort = running.Effort(options.rounds, options.seconds, options.scale)
    return running.run(options.names or list(running.BENCHES), effort, result)


def _report(given: list[str]) -> int:
    from benchmarks import report

    parser = argparse.ArgumentParser(prog="python -m benchmarks report")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--page", type=Path, default=RESULT.with_suffix(".md"))
    options = parser.parse_args(given)
    report.write(options.result, options.page)
    return 0


def _check(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks check")
    parser.add_argument("--record", action="store_true", help="write the counts down")
    parser.add_argument("--show", action="store_true", help="print them, and compare nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="paths whose names contain it")
    options = parser.parse_args(given)
    os.environ["PYTHONHASHSEED"] = "0"
    return instructions.check(record=options.record, show=options.show, only=options.only)
