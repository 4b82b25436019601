"""Environments that have the wheel and nothing of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

from release.building import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NEEDED = (
    *("tests", "benchmarks", "docs", "examples", "fuzz", "mutation", "observability", "release", "soak"),
    *("pyproject.toml", "mkdocs.yml", "Makefile", "README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"),
    *("CONTRIBUTING.md", "CODE_OF_CONDUCT.md"),
)
"""What the tests read of the checkout: everything but ``src``."""

FOR_DEVELOPERS = frozenset({"bench", "dev", "docs", "examples", "fuzz", "mutants"})
"""Extras that the Makefile installs; they are pinned, and nobody else asks for them."""

PROMISES = {
    "": "gr.classify(503, {}, b'{}'); gr.sse.SSEDecoder().feed(b'data: 1\\n\\n'); gr.Config().replace(deadline=3)",
    "requests": """
import requests
with Gateway(plan) as gateway, requests.Session() as client:
    brain = gr.mount(client)
    assert client.post(gateway.base_url + "/chat/completions", json=question, timeout=9).status_code == 200
""",
    "httpx": """
import httpx
with Gateway(plan) as gateway, httpx.Client() as client:
    brain = gr.mount(client)
    assert client.post(gateway.base_url + "/chat/completions", json=question).status_code == 200
""",
    "httpx2": """
import asyncio, httpx2
async def call():
    with Gateway(plan) as gateway:
        async with httpx2.AsyncClient() as client:
            brain = gr.mount(client)
            assert (await client.post(gateway.base_url + "/chat/completions", json=question)).status_code == 200
            return brain
brain = asyncio.run(call())
""",
    "cli": """
import rich, subprocess, sys
said = subprocess.run([sys.executable, "-m", "gip_resilience", "explain", "model_overloaded"], capture_output=True)
assert said.returncode == 0 and b"attempts" in said.stdout, said
subprocess.run([sys.executable, "-m", "gip_resilience", "completion", "bash"], check=True, capture_output=True)
""",
    "prometheus": """
from prometheus_client import CollectorRegistry, generate_latest
from gip_resilience.prometheus import ResilienceCollector
registry = CollectorRegistry()
registry.register(ResilienceCollector(gr.Resilience()))
assert b"gip_resilience" in generate_latest(registry)
""",
    "otel": """
from gip_resilience.otel import OpenTelemetry
gr.Resilience(observers=[OpenTelemetry()])
""",
    "redis": """
from gip_resilience.redis import RedisStore
with RedisStore("redis://127.0.0.1:1") as store:  # nobody is there: each process goes on by itself
    gr.Resilience(store=store)
    assert not store.up
""",
}
"""What each extra makes possible, as a program; the one without a name needs none."""

HEAD = """
import sys
import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, Ok
question = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
plan = FaultPlan.script([Error("model_overloaded", retry_after=0.01), Ok()])
brain = None
assert "site-packages" in gr.__file__, gr.__file__
"""
TAIL = "\nassert brain is None or brain.metrics.snapshot().retries == 1\n"

CLIENTS = ("requests", "httpx", "httpx2")


def program(extra: str) -> str:
    """What to run where *extra* is installed; ``all`` promises all of it. No other client library is there."""
    absent = set(CLIENTS) - {extra} if extra != "all" else set[str]()
    check = (
        "import importlib.util\n"
        f"found = [name for name in {sorted(absent)} if importlib.util.find_spec(name)]\n"
        "assert not found, found\n"
    )
    parts = (
        [PROMISES[extra] + TAIL] if extra != "all" else [f"{HEAD}{text}{TAIL}" for text in PROMISES.values()]
    )
    return HEAD + check + "\n".join(parts)


def fresh(folder: Path, requirement: str) -> Path:
    """A new virtual environment with *requirement* in it. Returns its interpreter.

    Raises:
        subprocess.CalledProcessError: it cannot be made.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "-qq", "--disable-pip-version-check", "install", requirement]
    subprocess.run(command, check=True)
    return python


def extras() -> list[str]:
    """Those for users, and the bare package."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return ["", *(name for name in declared if name not in FOR_DEVELOPERS)]


def try_extra(wheel: Path, extra: str, folder: Path) -> bool:
    """Install the wheel with one extra, and nothing else, and see it keep its promise."""
    python = fresh(folder, f"{wheel}[{extra}]" if extra else str(wheel))
    done = subprocess.run([str(python), "-I", "-c", program(extra)], cwd=folder, check=False)
    return done.returncode == 0


def run_suite(wheel: Path, folder: Path, arguments: Sequence[str]) -> int:
    """Run the tests against the installed wheel, where there is no ``src``. Returns pytest's exit code."""
    python = fresh(folder / "venv", f"{wheel}[dev]")
    place = folder / "suite"
    place.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place / name)
    environment = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }
    command = [str(python), "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=place, env=environment, check=False).returncode
