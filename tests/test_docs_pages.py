"""What the documentation shows is so: programs run and print what is shown, files load, commands exist."""

from __future__ import annotations

import contextlib
import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.cli import parser
from gip_resilience.gateway import FaultPlan, Gateway, PlanError
from gip_resilience.simulation.scenarios import Scenario
from gip_resilience.testing import instant
from pages import PAGES, ROOT, Page, close

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = {
    "README.md": "test_readme.py",
    "docs/fleet.md": "test_docs_fleet.py",
    "docs/observability.md": "test_docs.py",
    "docs/testing.md": "test_docs_testing.py",
}
"""Pages whose programs need more than this, and the module that runs them."""

REAL_TIME = "<!-- clock: real -->"
"""Says that a page's programs must really wait. On the others waiting is free."""

RUN = [page for page in PAGES if page.written_in("python") and page.name not in ELSEWHERE]

LANGUAGES = {"console", "json", "python", "text", "toml"}


@pytest.mark.parametrize("page", RUN, ids=repr)
@pytest.mark.timeout(120)
def test_the_programs_run(
    page: Page, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a page, one after the other; what it shows as printed is what they print."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    waiting = contextlib.nullcontext() if REAL_TIME in page.text else instant()
    try:
        with waiting:
            printed = page.run(gateway.url, names)
    finally:
        close(names)

    for shown, said in page.promised(printed):
        assert said == shown


@pytest.mark.parametrize("page", sorted(ELSEWHERE))
def test_what_is_run_elsewhere_is_run(page: str) -> None:
    """The module is there and reads the page."""
    assert page.rpartition("/")[2] in (ROOT / "tests" / ELSEWHERE[page]).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_files_load(page: Page) -> None:
    """A file in TOML is a configuration, a plan for the gateway, or weather to simulate."""
    for block in page.written_in("toml"):
        values = tomllib.loads(block.text)
        if "rules" in values:
            with contextlib.suppress(PlanError):
                FaultPlan.from_dict(values)
                continue
        if "summary" in values:
            assert Scenario.from_dict(values).summary
            continue
        assert gr.Config.from_dict(values) != gr.Config(), f"{page}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_commands_exist(page: Page) -> None:
    """Every command line is one that our parser, the Makefile, a module or pip's knows."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for line in page.commands():
        command, *arguments = shlex.split(line.partition(" > ")[0])
        match command, arguments:
            case "make", [target, *_]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
            case "gip-resilience", [] | ["--version"]:
                pass
            case "gip-resilience", _:
                parser().parse_args(arguments)
            case "pip", ["install", wanted]:
                assert set(re.findall(r"\w+", wanted.partition("[")[2])) <= extras.keys(), line
            case "export", _:
                pass
            case "python", ["-m", module, *_]:
                assert (ROOT / module.replace(".", "/")).exists() or (
                    ROOT / f"{module.replace('.', '/')}.py"
                ).exists(), line
            case "python", [script, *_]:
                assert (ROOT / script).exists(), line
            case _:
                raise AssertionError(f"what is this? {line}")


@pytest.mark.parametrize("page", PAGES, ids=repr)
def test_every_block_says_what_it_is(page: Page) -> None:
    """Or nothing would look at it."""
    assert {block.language for block in page.blocks} <= LANGUAGES
