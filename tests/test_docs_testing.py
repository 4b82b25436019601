"""What docs/testing.md shows is true: its programs are a test suite that passes, its tables are the code's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from gip_resilience.testing import judging

PAGE = (Path(__file__).parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")


def blocks(language: str, after: str = r"(?<!<!-- conftest -->\n)") -> list[str]:
    """Every fenced block in *language*."""
    return re.findall(rf"{after}^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_programs_run(tmp_path: Path) -> None:
    """The page is a test module with a plan and a ``conftest.py``, as a reader would put it together."""
    (tmp_path / "test_page.py").write_text("\n\n".join(blocks("python")))
    (tmp_path / "plan.toml").write_text(*blocks("toml"))
    (tmp_path / "conftest.py").write_text(*blocks("python", after=r"<!-- conftest -->\n"))
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{PAGE.count('def test_')} passed" in done.stdout


def test_the_faults_are_all_there() -> None:
    """The table has a line for each kind of finding, in the order of the findings."""
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(get_args(judging.Fault))


def test_the_numbers_are_the_codes() -> None:
    """How many attempts and calls the page speaks of."""
    assert f"more than {judging.MAX_ATTEMPTS} times, or ten calls and more twice each" in PAGE
    assert (judging._MANY, judging.MAX_AMPLIFICATION) == (10, 2.0)


def test_the_replies_are_all_there() -> None:
    """Each kind of reply of the gateway is named."""
    from gip_resilience.gateway import replies

    kinds = {kind.__name__ for kind in get_args(replies.Reply)}
    assert kinds - set(re.findall(r"\b[A-Z]\w+", PAGE)) == set()
