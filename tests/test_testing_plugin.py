"""The pytest plugin: loaded where it is asked for and nowhere else; its fixtures do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PLUGIN = "gip_resilience.testing.pytest_plugin"

PLAN = """
[[rules]]
reply = { kind = "rate_limited", retry_after = 2 }
times = 2

[[rules]]
reply = { kind = "break_stream", how = "fin", events = 3 }
times = 1
"""

TESTS = '''
import httpx
import pytest
import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Ok, RateLimited
from gip_resilience.testing import assert_resilient

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def test_healthy(gip_gateway):
    assert httpx.get(gip_gateway.url + "/healthz").status_code == 200
    assert gip_gateway.requests[0].at < 100


def test_times_are_the_clocks(gip_gateway, gip_clock):
    gip_clock.advance(50.0)
    httpx.get(gip_gateway.url + "/healthz")
    assert gip_gateway.requests[0].at == 50.0


@pytest.mark.gip_plan("plan.toml")
def test_a_file(gip_gateway, gip_clock):
    """429 with Retry-After 2, twice; then a stream that is cut after 3 events."""
    with httpx.Client(base_url=gip_gateway.base_url) as client:
        gr.mount(client, gr.Resilience(clock=gip_clock))
        answer = client.post("/chat/completions", json=QUESTION | {"stream": True})
    assert answer.text.endswith("[DONE]\\n\\n")
    assert [seen.status for seen in gip_gateway.requests] == [429, 429, 200, 200]
    assert_resilient(gip_gateway, answered=1, closed=True)


@pytest.mark.gip_plan(RateLimited(1), Error("model_overloaded"))
def test_replies(gip_upstream, gip_clock):
    assert gip_upstream.clock is gip_clock
    with httpx.Client(transport=gip_upstream.httpx_transport(), base_url=gip_upstream.base_url) as client:
        statuses = [client.post("/chat/completions", json=QUESTION).status_code for _ in range(3)]
    assert statuses == [429, 503, 200]


@pytest.mark.gip_plan(Error("model_overloaded"))
def test_one_reply(gip_upstream):
    with httpx.Client(transport=gip_upstream.httpx_transport(), base_url=gip_upstream.base_url) as client:
        statuses = [client.post("/chat/completions", json=QUESTION).status_code for _ in range(2)]
    assert statuses == [503, 200]


@pytest.mark.gip_plan(FaultPlan.always(Error("invalid_api_key")))
def test_a_plan(gip_gateway):
    for _ in range(3):
        assert httpx.get(gip_gateway.base_url + "/models").status_code == 401
'''


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run pytest on a project of somebody else's."""
    (tmp_path / "plan.toml").write_text(PLAN)

    def run_pytest(tests: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_theirs.py").write_text(tests)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--strict-markers",
            *options,
        ]
        # From here only where the package is found, which need not be installed.
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False
        )

    return run_pytest


@pytest.mark.parametrize("way", ["conftest", "option"])
def test_the_fixtures(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, way: str) -> None:
    """All of them, asked for in either way, with plans as code and as a file, under strict markers."""
    if way == "conftest":
        (tmp_path / "conftest.py").write_text(f'pytest_plugins = ["{PLUGIN}"]\n')
    done = run(TESTS, *(["-p", PLUGIN] if way == "option" else []))
    assert "6 passed" in done.stdout, done.stdout + done.stderr


def test_it_is_loaded_only_when_asked_for(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Who did not ask has no fixture of ours, and pays for no import."""
    tests = (
        "import sys\n"
        "def test_nothing_was_imported():\n"
        "    assert not [name for name in sys.modules if name.startswith('gip_resilience')]\n"
        "def test_no_fixture(gip_gateway):\n"
        "    pass\n"
    )
    done = run(tests)
    assert "fixture 'gip_gateway' not found" in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_nothing_is_registered() -> None:
    """There is no entry point by which pytest would load it for everybody."""
    assert [entry for entry in distribution("gip-resilience").entry_points if entry.group == "pytest11"] == []


def test_a_slip_in_a_plan_file_is_told(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The error names the place in the plan."""
    (tmp_path / "plan.toml").write_text('[[rules]]\nreply = { kind = "error" }\n')
    done = run(TESTS, "-p", PLUGIN, "-k", "test_a_file")
    assert "PlanError: rules[0].reply: object missing required field code" in done.stdout, done.stdout
