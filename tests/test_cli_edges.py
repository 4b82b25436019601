"""The commands where they are rarely entered: interrupted, without what they need, asked for the unusual."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from gip_resilience import cli
from gip_resilience.cli import explain, top
from gip_resilience.config import Config
from gip_resilience.policy import Policy


def run(*arguments: str) -> int:
    """The command's exit code."""
    return cli.main(list(arguments))


def test_an_interrupted_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control-C ends a command with the code shells know, and without a traceback."""

    def interrupted(*args: object, **options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("gip_resilience.cli.explain.run", interrupted)
    assert run("explain") == cli.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_a_wait_of_ones_own_is_told_as_such() -> None:
    """A function can be called, but not be described."""
    config = Config().replace(
        policies={"model_overloaded": Policy(jitter=lambda delay: delay / 2, max_delay=30.0)}
    )
    text = explain._waits(config.policy("model_overloaded", "overloaded"))
    assert text.startswith("by a function of yours, up to 30 s")


def test_a_policy_that_ignores_the_circuit() -> None:
    """It says nothing to the host's circuit and nothing to the model's."""
    from gip_resilience import taxonomy

    config = Config().replace(policies={"model_overloaded": Policy(breaker="ignore")})
    rule = taxonomy.GIP[taxonomy.Code.MODEL_OVERLOADED]
    policy = config.policy("model_overloaded", rule.policy)
    assert explain._told(rule, policy) == "-"
    assert explain._circuits(rule, policy).count(explain._VERDICTS[taxonomy.Verdict.NEUTRAL]) == 2


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"], ids=["too-long", "impossible"])
def test_what_cannot_be_a_file_is_none(name: str) -> None:
    """It may be a URL still."""
    assert not top._is_file(name)


WITHOUT = """
import sys
sys.modules[{missing!r}] = None
from gip_resilience.cli import main
sys.exit(main({arguments!r}))
"""


@pytest.mark.parametrize(
    ("missing", "arguments", "said"),
    [
        ("rich", ["top", "http://127.0.0.1:9"], "pip install 'gip-resilience[cli]'"),
        ("redis", ["fleet", "status", "--url", "redis://127.0.0.1:9"], "pip install gip-resilience[redis]"),
    ],
)
def test_what_is_missing_is_named(missing: str, arguments: list[str], said: str) -> None:
    """A command that needs an extra says which, and how to get it."""
    script = WITHOUT.format(missing=missing, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_without_its_library_says_so() -> None:
    """The import names the extra."""
    script = "import sys; sys.modules['redis'] = None; import gip_resilience.redis"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert "ImportError: RedisStore needs redis-py: pip install gip-resilience[redis]" in done.stderr


def test_a_fleet_that_cannot_be_reached(capsys: pytest.CaptureFixture[str]) -> None:
    """The place, and what it said."""
    assert run("fleet", "status", "--url", "redis://127.0.0.1:9") == 1
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_windows_are_longer_than_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A limit per no time is none."""
    with pytest.raises(SystemExit):
        run("gateway", "--limit-window", "0")
    assert "must be more than 0" in capsys.readouterr().err


def in_a_terminal(command: list[str]) -> str:
    """What a person sees of *command*."""
    here, there = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, env=environment)
    os.close(there)
    said = b""
    try:
        while piece := os.read(here, 65536):
            said += piece
    except OSError:  # the other side is gone
        pass
    finally:
        os.close(here)
        process.wait(timeout=50)
    return said.decode("utf-8", "replace")


def test_the_demonstration_in_a_terminal() -> None:
    """Bars that move while it runs, then the table."""
    said = in_a_terminal([sys.executable, "-m", "gip_resilience", "demo", "--client", "httpx"])
    assert "mounted" in said
    assert "in all" in said
