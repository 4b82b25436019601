"""The command line: ``gip-resilience COMMAND``.

Each command is a module with ``describe(parser)`` and ``run(arguments)``; only the one that is asked for does
any work, so ``gip-resilience --help`` is quick and needs no HTTP library.

Exit codes: 0 done, 1 the command failed (and said why), 2 wrong usage, 130 interrupted from the keyboard.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from gip_resilience._version import __version__
from gip_resilience.cli import check, completion, config, demo, explain, fleet, gateway, simulate, top
from gip_resilience.cli.output import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""What shells report for a command that was ended with Ctrl-C (128 + SIGINT)."""


class _Formatter(argparse.HelpFormatter):
    """Wraps what is one paragraph, and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """A parser whose commands, and theirs, are formatted alike."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, **options)


EPILOG = """\
to begin with:
  gip-resilience demo                      what it is good for, in half a minute
  gip-resilience explain model_overloaded  what one error means, what is done, why
  gip-resilience config init my.toml       a configuration file with every setting in it
  gip-resilience simulate --policy my.toml how it fares in an hour of bad weather

exit codes: 0 done, 1 it could not be done (the last line says why), 2 wrong usage,
130 interrupted from the keyboard"""


def parser() -> argparse.ArgumentParser:
    """The command line as argparse knows it."""
    root = _Parser(
        prog="gip-resilience",
        description="Resilience for HTTP clients that decides by the error code.",
        epilog=EPILOG,
    )
    root.add_argument("--version", action="version", version=f"gip-resilience {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {
        "demo": demo,
        "gateway": gateway,
        "explain": explain,
        "check": check,
        "config": config,
        "simulate": simulate,
        "top": top,
        "fleet": fleet,
        "completion": completion,
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
