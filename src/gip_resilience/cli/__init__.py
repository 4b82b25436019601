"""The command line: ``gip-resilience demo | gateway | explain | check | simulate | top | fleet``.

Each command is a module with ``describe(parser)`` and ``run(arguments)``; only the one that is asked for does
any work, so ``gip-resilience --help`` is quick and needs no HTTP library.

Exit codes: 0 done, 1 the command failed (and said why), 2 wrong usage, 130 interrupted from the keyboard.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from gip_resilience._version import __version__
from gip_resilience.cli import check, demo, explain, fleet, gateway, simulate, top
from gip_resilience.cli.output import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""What shells report for a command that was ended with Ctrl-C (128 + SIGINT)."""


def parser() -> argparse.ArgumentParser:
    """The command line as argparse knows it."""
    root = argparse.ArgumentParser(
        prog="gip-resilience", description="Resilience for HTTP clients that decides by the error code."
    )
    root.add_argument("--version", action="version", version=f"gip-resilience {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {
        "demo": demo,
        "gateway": gateway,
        "explain": explain,
        "check": check,
        "simulate": simulate,
        "top": top,
        "fleet": fleet,
    }
    for name, module in modules.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.describe(command)
        command.set_defaults(run=module.run)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its arguments; those of the process by default.

    Returns:
        The exit code; see the module's text.

    Raises:
        SystemExit: the usage was wrong (2), or ``--help`` or ``--version`` was asked for (0).
    """
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except CommandError as problem:
        print(f"gip-resilience {arguments.command}: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us (head, less) has read enough. The interpreter would flush once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
