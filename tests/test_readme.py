"""What the README shows is true: its programs run, its files load, its commands exist, its table is the code's."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

import gip_resilience as gr
from gip_resilience.cli import explain, parser
from gip_resilience.gateway import FaultPlan, Gateway

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = "https://gateway.example"


def blocks(language: str) -> list[tuple[int, str]]:
    """(line, text) of every fenced block in *language*."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [(README[: block.start(1)].count("\n"), block[1]) for block in found]


@pytest.fixture
def programs(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every Python block run in order, in one namespace, against the local gateway; yields the namespace.

    It runs where the file is that the first TOML block shows.
    """
    monkeypatch.chdir(tmp_path)
    Path("gip-resilience.toml").write_text(blocks("toml")[0][1], encoding="utf-8")
    names: dict[str, Any] = {"__name__": "readme"}
    for line, text in blocks("python"):
        # Blank lines in front, so that a traceback names the README's own line.
        source = "\n" * line + text.replace(ELSEWHERE, gateway.url)
        exec(compile(source, "README.md", "exec"), names)
    yield names
    for value in names.values():
        if not isinstance(value, type) and callable(close := getattr(value, "close", None)):
            close()


def test_the_programs_run(programs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, one after the other, and the clients they made are mounted on and answered."""
    assert programs["response"].status_code == 200
    assert programs["answer"].choices[0].message.content.startswith("You said: hello")
    assert programs["message"].content[0].text.startswith("You said: hello")
    assert gr.report(programs["response"]) == programs["report"]


def test_the_same_policy_in_python_and_toml(programs: dict[str, Any]) -> None:
    """The file says exactly what the Python above it says."""
    _, text = blocks("toml")[0]

    assert gr.Config.from_dict(tomllib.loads(text)) == programs["config"]


def test_the_plan_loads() -> None:
    """The plan for the gateway is one it can play."""
    _, text = blocks("toml")[1]

    assert len(FaultPlan.from_toml(text).rules) == 2


def test_the_commands_exist() -> None:
    """Every command line is one that the parser, or the Makefile, knows."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [line.removeprefix("$ ") for _, text in blocks("console") for line in text.splitlines()]
    inline = re.findall(r"`(gip-resilience [^`]+)`", README)

    for line in lines + inline:
        command, *arguments = shlex.split(line)
        if command == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE)
        elif command == "gip-resilience":
            parser().parse_args(arguments)
        else:
            assert (command, arguments[0]) == ("pip", "install")


def test_the_table_of_codes_is_the_codes_own() -> None:
    """The table is what the command prints now."""
    shown = re.search(r"<!-- codes: .*? -->\n(.*?)\n<!-- /codes -->", README, re.DOTALL)

    assert shown is not None
    assert shown[1] == explain.markdown(gr.Config())


def test_the_extras_exist() -> None:
    """What ``pip install`` is told to install is in the package's metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = re.search(r"^Extras: (.*?)\.", README, re.MULTILINE | re.DOTALL)

    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) <= project["optional-dependencies"].keys()


def test_links_lead_somewhere() -> None:
    """Links within the repository name files that are there."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists()
