"""The programs in ``examples/`` run as a user would run them, with nothing set, and do what they say."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from gip_resilience.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
LINES = 120
"""What a reader takes in at once."""


def environment(**more: str) -> dict[str, str]:
    """This process's, without what an example looks at, and *more*."""
    ours = {"GIP_BASE_URL", "GIP_API_KEY", "STORE_URL"}
    return {name: value for name, value in os.environ.items() if name not in ours} | more


def run(name: str, *arguments: str, **settings: str) -> str:
    """The standard output of an example that ends well."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment(**settings),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_plain_script() -> None:
    """Ten answers on a bad day, and the codes in between."""
    said = run("plain_requests.py")

    assert "model_overloaded -> http_502 -> ok" in said
    assert "rate_limit_exceeded -> ok" in said
    assert "connection_lost -> ok" in said
    assert said.endswith("10 of 10 answered, 4 retries\n")


def test_embeddings_in_batches(tmp_path: Path) -> None:
    """A vector for each line of a file, in the file's order, the same as without any trouble."""
    lines = [f"text {number}" for number in range(100)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    body = {"model": "openai/text-embedding-3-small", "input": lines}
    with Gateway() as gateway:
        expected = httpx.post(f"{gateway.base_url}/embeddings", json=body).json()["data"]

    found = [json.loads(line) for line in run("embeddings.py", str(tmp_path / "lines.txt")).splitlines()]

    assert [one["text"] for one in found] == lines
    assert [one["embedding"] for one in found] == [one["embedding"] for one in expected]


def test_langchain() -> None:
    """Blocking, asyncio, and streams of both: each failed once, and each was answered in full by one more request."""
    said = run("langchain_chat.py").splitlines()

    # The gateway's answer to a question is the same every time, so a whole one can be told from a piece.
    for line, question in zip(
        said, ["hello", "hello, asyncio", "hello, asyncio stream", "hello, stream"], strict=False
    ):
        assert re.fullmatch(rf"\w+: +You said: {question} [A-Z][^.]+\.", line)
    assert said[4:] == ["4 of 4 answered, 8 requests"]


def test_an_agents_loop() -> None:
    """The tool ran once although each step failed once."""
    said = run("tools_loop.py").splitlines()

    assert said[0] == 'tool: count_letters -> {"letters": 10}'
    assert said[1].startswith('answer: You said: {"letters": 10}')
    assert said[2:] == ["2 of 2 steps answered, 4 requests"]


def test_a_fleet_of_workers() -> None:
    """Four requests: a good one of each of three processes, and the one that found out for all."""
    said = [line.split(":")[1].strip() for line in run("worker_fleet.py").splitlines()]

    assert said == [
        "['200', '200', '200']",
        said[1],
        "['open', 'open']",
        "['refused, nothing sent', 'refused, nothing sent']",
        "4",
    ]
    assert said[1].isdecimal()
    assert int(said[1]) >= 500


@contextmanager
def serving() -> Iterator[str]:
    """The chat application under its real server, at a port that the system chose."""
    command = [sys.executable, EXAMPLES / "chat_app.py", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stderr is not None
        try:
            told = ""
            for line in process.stderr:
                told += line
                if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                    yield found[1]
                    break
            else:
                raise AssertionError(told)
        finally:
            process.terminate()
            told += process.stderr.read()
    assert "Traceback" not in told


def test_the_chat_application() -> None:
    """One answer in whole events although it was refused and then cut off; a model that is gone is a 503 at once."""
    with serving() as url, httpx.Client(base_url=url, timeout=20) as browser:
        answer = browser.post("/chat", json={"text": "hello"})
        gone = [browser.post("/chat", json={"text": "hello", "model": "openai/retired"}) for _ in range(2)]
        health = browser.get("/health").json()

    words = [json.loads(word) for word in re.findall(r"^data: (.+)$", answer.text, re.MULTILINE)]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert re.fullmatch(r"You said: hello [A-Z][^.]+\.", "".join(words))
    assert answer.text.endswith("event: done\ndata:\n\n")
    assert gone[0].json() == {"detail": "model_unavailable"}
    assert gone[1].status_code == 503
    assert int(gone[1].headers["retry-after"]) >= 1
    assert [state for name, state in health["circuits"].items() if "retired" in name] == ["open"]
    assert health["sent"] == 4  # refused, cut off, whole; and one to the model that is gone
    assert health["streams"]["replay"] == 1


def test_the_notebook_says_what_it_shows() -> None:
    """Its cells run, and print and draw what is kept in the file, which knows nothing of the machine."""
    file = EXAMPLES / "retries.ipynb"
    text = file.read_text(encoding="utf-8")

    done = subprocess.run(
        [sys.executable, TESTS / "notebooks.py", file], capture_output=True, text=True, timeout=50, check=True
    )

    assert done.stdout == text
    assert "<svg" in text
    assert not re.search(r"/(home|root|tmp|usr|Users)/", text)


def test_they_go_where_they_are_told() -> None:
    """With a gateway's address and a key in the environment, none of their own is started."""
    with Gateway(api_keys=["sk-of-the-test"]) as gateway:
        for program in ("plain_requests.py", "tools_loop.py"):
            run(program, GIP_BASE_URL=gateway.base_url, GIP_API_KEY="sk-of-the-test")

        assert len(gateway.requests) == 12
        assert {seen.status for seen in gateway.requests} == {200}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_each_is_short_and_says_how_to_run_it(program: Path) -> None:
    """No more than a reader takes in, and a command line in its docstring."""
    text = program.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= LINES
    assert f"python examples/{program.name}" in (ast.get_docstring(ast.parse(text)) or "")


def test_the_page_has_a_row_for_each() -> None:
    """``examples/README.md`` lists what is there, and nothing else."""
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| \[`(.+?)`\]\(\1\) \|", page, re.MULTILINE)

    assert sorted(rows) == sorted(path.name for path in [*PROGRAMS, *EXAMPLES.glob("*.ipynb")])
