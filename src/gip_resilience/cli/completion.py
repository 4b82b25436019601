"""Print a script that lets a shell complete the commands, their options, files and error codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gip_resilience import taxonomy
from gip_resilience.cli.output import CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SHELLS: Final = ("bash", "zsh", "fish", "tcsh", "powershell")


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="whose script it is to be")
    parser.epilog = """\
examples:
  eval "$(gip-resilience completion bash)"                        in ~/.bashrc
  gip-resilience completion zsh > ~/.zfunc/_gip-resilience        a folder of $fpath
  gip-resilience completion fish > ~/.config/fish/completions/gip-resilience.fish"""


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from gip_resilience.cli import parser

    try:
        import shtab
    except ModuleNotFoundError:
        raise CommandError("it needs shtab: pip install 'gip-resilience[cli]'") from None
    root = parser()
    _tell_what_completes(root, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(root, arguments.shell))
    return 0


def _tell_what_completes(root: argparse.ArgumentParser, file: object, directory: object) -> None:
    """Say of each argument what it may be: shtab reads the attribute ``complete``, and choices."""
    for action in _actions(root):
        metavar = str(action.metavar)
        if "FILE" in metavar:
            action.complete = file  # type: ignore[attr-defined]  # it is shtab's own
        elif "DIR" in metavar:
            action.complete = directory  # type: ignore[attr-defined]  # likewise
        elif metavar.startswith("CODE"):
            action.choices = sorted(taxonomy.known_codes())


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments, those of the commands too."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way; shtab does the same
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _actions(command)
