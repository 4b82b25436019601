"""What installing and importing the package costs, and what it brings along."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

import gip_resilience as gr

PACKAGE = Path(gr.__file__).parent
PROJECT = Path(__file__).parents[1]

LIMIT = 0.030
"""Seconds of processor time that ``import gip_resilience`` may take."""

ROUNDS = 10

HEAVY = frozenset(
    {
        "anyio",
        "asyncio",
        "backoff",
        "brotli",
        "email",
        "h11",
        "h2",
        "http",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
        "openai",
        "opentelemetry",
        "prometheus_client",
        "redis",
        "requests",
        "rich",
        "shtab",
        "socket",
        "ssl",
        "trio",
        "urllib3",
        "valkey",
        "zstandard",
    }
)
"""What nobody who only imports us should pay for."""

CLIENTS = {"httpx": 0, "httpx2": 0, "requests": 0}.keys()
"""The libraries that have an adapter, in order."""


def loaded(code: str) -> set[str]:
    """The top-level modules that are there after *code* has run in a Python of its own."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def processor_time(code: str) -> float:
    """Seconds of processor time of a Python that runs *code*: other work on the machine does not count."""
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


def pyproject() -> dict[str, Any]:
    """The project's own description."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import gip_resilience", id="import"),
        pytest.param(
            "import gip_resilience as gr\nfor name in gr.__all__: getattr(gr, name)", id="every-public-name"
        ),
        pytest.param(
            "import gip_resilience as gr\nbrain = gr.Resilience()\nbrain.metrics.snapshot()\n"
            'gr.classify(503, {}, b\'{"error": {"code": "model_overloaded"}}\')',
            id="a-brain-without-a-client",
        ),
    ],
)
def test_importing_us_imports_no_library(code: str) -> None:
    """Neither HTTP libraries nor event loops nor observers' libraries are loaded before they are needed."""
    assert loaded(code) & HEAVY == set()


def test_importing_us_is_cheap() -> None:
    """``import gip_resilience`` costs less than 30 ms over a bare Python, by the best of several runs each."""
    processor_time("import gip_resilience")  # writes the bytecode, if need be

    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(processor_time("pass"))
        ours.append(processor_time("import gip_resilience"))

    assert min(ours) - min(bare) < LIMIT


@pytest.mark.parametrize("adapter", CLIENTS)
def test_an_adapter_imports_its_own_library_only(adapter: str) -> None:
    """A program that uses one of the libraries needs none of the others."""
    assert loaded(f"import gip_resilience.{adapter}") & CLIENTS == {adapter}


@pytest.mark.parametrize("library", CLIENTS)
def test_mounting_imports_no_other_library(library: str) -> None:
    """Nor does mounting on a client of one of them."""
    make = "requests.Session()" if library == "requests" else f"{library}.Client()"

    found = loaded(f"import {library}\nimport gip_resilience as gr\ngr.mount({make})")

    assert found & CLIENTS == {library}


def test_the_httpx_adapter_is_the_httpx2_adapter() -> None:
    """The two packages have one shape: their adapters are one text, but for the name."""
    httpx2 = (PACKAGE / "httpx2.py").read_text()

    assert (PACKAGE / "httpx.py").read_text() == httpx2.replace("httpx2", "httpx")


def test_the_version_is_that_of_the_metadata() -> None:
    """One number, wherever it is asked for."""
    assert gr.__version__ == metadata.version("gip-resilience")
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", gr.__version__)


def test_type_checkers_are_told_to_look() -> None:
    """``py.typed`` is inside the package, of which the wheel takes everything."""
    assert resources.files("gip_resilience").joinpath("py.typed").is_file()
    assert pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/gip_resilience"]
    assert "Typing :: Typed" in pyproject()["project"]["classifiers"]


def test_what_is_imported_is_declared() -> None:
    """Every library the source imports is a dependency, comes with one, or is used only if it is there."""
    project = pyproject()["project"]
    requirements = [
        *project["dependencies"],
        *(r for e in project["optional-dependencies"].values() for r in e),
    ]
    declared = {re.match(r"[A-Za-z0-9_-]+", requirement)[0].lower() for requirement in requirements}  # type: ignore[index]
    comes_along = {"anyio"}  # with httpx and with httpx2, which are all that needs it
    if_there = {"zstandard"}

    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"gip_resilience"}
    projects = {"opentelemetry": "opentelemetry-api", "prometheus_client": "prometheus-client"}
    foreign = {projects.get(name, name) for name in foreign}

    assert foreign - declared - comes_along - if_there == set()


def test_the_commands_exist() -> None:
    """What the installer is told to make a command of can be called."""
    for name, target in pyproject()["project"]["scripts"].items():
        module, _, function = target.partition(":")
        assert name == "gip-resilience"
        assert callable(getattr(__import__(module, fromlist=[function]), function))
