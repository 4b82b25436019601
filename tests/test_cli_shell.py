"""The command line as a shell and a newcomer meet it: help, mistakes, completion."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gip_resilience.cli import main, parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands(
    root: argparse.ArgumentParser, name: str = "gip-resilience"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command there is, with its parser."""
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from commands(below, f"{name} {word}")
            return
    yield name, root


COMMANDS = dict(commands(parser()))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(name: str) -> None:
    """Each command's help has what it does, every argument in words, and examples that are right as they stand."""
    command = COMMANDS[name]
    text = command.format_help()
    examples = re.findall(
        r"(?:^  |; |=.*? |\()(gip-resilience [^;>|)\n]*)", text.partition("\nexamples:\n")[2], re.MULTILINE
    )

    assert str(command.description).endswith(".")
    assert [action.dest for action in command._actions if not action.help] == []
    assert any(example.startswith(name) for example in examples)
    for example in examples:
        parser().parse_args(shlex.split(re.split(r"\s{2,}", example)[0])[1:])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["explain", "model_overlode"], "unknown code"),
        (["explain", "503", "--config", "{missing}"], "No such file"),
        (["explain", "503", "--config", "{folder}"], "Is a directory"),
        (["check", "{missing}"], "No such file"),
        (["check", "{folder}"], "Is a directory"),
        (["check", "{binary}"], "expected UTF-8 text"),
        (["config", "init", "{binary}"], "exists"),
        (["config", "init", "{folder}/none/x.toml"], "No such file"),
        (["config", "init", "--force", "{folder}"], "Is a directory"),
        (["gateway", "--plan", "{missing}"], "No such file"),
        (["gateway", "--plan", "{binary}"], "utf-8|UTF-8"),
        (["simulate", "--scenario", "{missing}"], "No such file"),
        (["simulate", "--scenario", "nonsense"], "nonsense"),
        (["simulate", "--policy", "{missing}"], "No such file"),
        (["simulate", "--policy", "{binary}"], "expected UTF-8 text"),
        (["simulate", "--show", "nonsense"], "nonsense"),
        (["top", "--once", "{missing}"], "expected a file that exists"),
        (["top", "--once", "http://127.0.0.1:1/metrics"], "127.0.0.1"),
        (["fleet", "status", "--url", "redis://127.0.0.1:1"], "127.0.0.1"),
        (["fleet", "status", "--url", "nonsense"], "redis://"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_no_traceback(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the user got wrong is said in a line or two, with the command's name in front; exit code 1 or 2."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    places = {
        "{missing}": tmp_path / "missing.toml",
        "{folder}": tmp_path,
        "{binary}": tmp_path / "binary",
    }
    for place, path in places.items():
        arguments = [argument.replace(place, str(path)) for argument in arguments]

    assert main(arguments) in {1, 2}
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"gip-resilience {arguments[0]}")
    assert re.search(problem, printed.err), printed.err
    assert printed.err.count("\n") <= 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "powershell"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A script that knows commands, options and error codes."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("gip-resilience", "simulate", "model_unavailable", "schema"):
        assert word in script


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["gip-resilience", "exp"], {"explain"}),
        (["gip-resilience", "explain", "model_"], {"model_overloaded", "model_unavailable"}),
        (["gip-resilience", "config", ""], {"init", "schema"}),
        (["gip-resilience", "check", "--"], {"--json", "--help"}),
        (["gip-resilience", "check", "./mi"], {"./mine.toml"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(
    line: list[str], offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a real bash offers when Tab is pressed at the end of the line."""
    (tmp_path / "mine.toml").write_text("")
    assert main(["completion", "bash"]) == 0
    words = " ".join(map(shlex.quote, line))
    program = (
        f"{capsys.readouterr().out}\nCOMP_WORDS=({words}); COMP_CWORD={len(line) - 1}\n"
        f"COMP_LINE={shlex.quote(' '.join(line))}\n"
        'COMP_POINT=${#COMP_LINE}\nf=$(complete -p gip-resilience | sed "s/.*-F \\([^ ]*\\).*/\\1/")\n'
        f'"$f" gip-resilience {shlex.quote(line[-1])} {shlex.quote(line[-2])}\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
    )
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert {word.strip() for word in done.stdout.splitlines()} >= offered, done.stderr


def test_completion_without_shtab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says which extra brings it."""
    monkeypatch.setitem(sys.modules, "shtab", None)

    assert main(["completion", "bash"]) == 1
    assert "pip install 'gip-resilience[cli]'" in capsys.readouterr().err
