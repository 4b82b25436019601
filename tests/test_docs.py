"""What docs/observability.md shows is true: its programs run, its tables are the code's, its commands exist."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from bisect import bisect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from prometheus_client import REGISTRY

import gip_resilience as gr
from gip_resilience.cli import parser
from gip_resilience.events import METHODS
from gip_resilience.logs import DebugLog, LogObserver
from gip_resilience.prometheus import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.gateway import Gateway

PATH = Path(__file__).parents[1] / "docs" / "observability.md"
PAGE = PATH.read_text(encoding="utf-8")
ELSEWHERE = "https://gateway.example"
PORT = "9100"
LEVELS = r"DEBUG|INFO|WARNING|ERROR"


def blocks(language: str) -> list[tuple[int, str]]:
    """(line, text) of every fenced block in *language*."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [(PAGE[: block.start(1)].count("\n"), block[1]) for block in found]


def table(heading: str) -> list[list[str]]:
    """Cells of the first table whose first column has this heading."""
    _, rows = PAGE.split(f"\n| {heading} |", 1)
    lines = rows.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class Ran:
    """What the programs left behind: their names, what each of them printed, and their lines of log."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "observability"}
        self.printed: list[str] = []
        self.logged: list[dict[str, Any]] = []


@pytest.fixture
def programs(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Ran]:
    """Every Python block run in order, in one namespace, against the local gateway, with the page's own file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    (tmp_path / "gip-resilience.toml").write_text(blocks("toml")[0][1], encoding="utf-8")
    logger = logging.getLogger("gip_resilience")
    level, handlers = logger.level, logger.handlers[:]
    ran = Ran()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    try:
        for line, text in blocks("python"):
            # Blank lines in front, so that a traceback names the page's own line.
            source = "\n" * line + text.replace(ELSEWHERE, gateway.url).replace(PORT, port)
            exec(compile(source, PATH.name, "exec"), ran.names)
            said = capsys.readouterr()
            ran.printed.append(said.out)
            ran.logged += map(json.loads, said.err.splitlines())
            structlog.reset_defaults()  # else it would take the lines of the programs after it
        yield ran
    finally:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        structlog.reset_defaults()
        for instrumentor in (HTTPXClientInstrumentor(), RequestsInstrumentor()):
            if instrumentor.is_instrumented_by_opentelemetry:
                instrumentor.uninstrument()
        if "server" in ran.names:
            ran.names["server"].shutdown()
            ran.names["server"].server_close()
            ran.names["thread"].join()
        if "collector" in ran.names:
            REGISTRY.unregister(ran.names["collector"])


def test_the_programs_run(programs: Ran) -> None:
    """All of them, one after the other; what they say happens does."""
    names = programs.names
    everything = "".join(programs.printed)

    assert names["response"].status_code == 200
    assert "metrics_only\n" in everything
    assert [line["gip_event"] for line in programs.logged] == [
        "retry_scheduled",
        "config_reloaded",
        "circuit_overruled",
        "circuit_overruled",
    ]
    assert names["res"].config == gr.Config.from_dict(tomllib.loads(blocks("toml")[0][1]))


def test_what_is_shown_is_what_is_printed(programs: Ran) -> None:
    """The outputs on the page are those of the programs before them, but for the gateway's address."""
    starts = [start for start, _ in blocks("python")]
    for line, text in blocks("text"):
        printed = programs.printed[bisect(starts, line) - 1]
        assert re.sub(r"127\.0\.0\.1:\d+", "gateway.example", printed) == text


def test_the_line_of_log_is_what_is_logged(programs: Ran) -> None:
    """The line on the page is the first one logged, but for the address and the call's number."""
    line = json.dumps({**programs.logged[0], "gip_call": 1})

    assert re.sub(r"127\.0\.0\.1:\d+", "gateway.example", line) == blocks("json")[0][1].rstrip()


def test_the_program_for_several_processes_runs(tmp_path: Path) -> None:
    """In a process of its own: what it needs is looked at when ``prometheus_client`` is imported."""
    text = next(text for _, text in blocks("python") if "MultiProcessObserver()" in text)
    program = f"import gip_resilience as gr\n{text}\nprint(res)"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.startswith("Resilience(")
    assert list(tmp_path.glob("counter_*.db"))


def test_the_table_of_events_is_complete() -> None:
    """Every event, once, in the order of the code."""
    assert [row[0] for row in table("event")] == [f"`{kind.__name__}`" for kind in METHODS]


@pytest.mark.parametrize("row", table("event"), ids=lambda row: row[0].strip("`"))
def test_an_event_is_logged_as_the_table_says(row: list[str]) -> None:
    """The levels are those that the observers' own words name; what only a DebugLog has is DEBUG."""
    method = next(method for kind, method in METHODS.items() if f"`{kind.__name__}`" == row[0])
    always = getattr(LogObserver, method, None)
    said = re.findall(LEVELS, always.__doc__) if always else ["DEBUG"] if hasattr(DebugLog, method) else []

    assert set(re.findall(LEVELS, row[2])) == set(said)


def test_the_table_of_metrics_is_the_codes_own() -> None:
    """Names, types, labels, help, and which of them several processes cannot share."""
    shown = [
        [
            f"`{family.name}`" + ("" if family.told else " ¹"),
            family.kind,
            ", ".join(family.labels) or "–",
            family.help,
        ]
        for family in FAMILIES
    ]

    assert table("metric") == shown


def test_the_limits_are_the_defaults() -> None:
    """The numbers of lines that the page names."""
    observe = gr.ObserveConfig()

    assert f"{observe.log_burst} are written at once and {observe.log_rate:g} per second" in PAGE


def test_the_commands_exist() -> None:
    """Every command line is one that the parser knows."""
    lines = [line.removeprefix("$ ") for _, text in blocks("console") for line in text.splitlines()]
    for line in lines + re.findall(r"`(gip-resilience [^`]+)`", PAGE):
        command, *arguments = shlex.split(line)
        assert command == "gip-resilience"
        parser().parse_args(arguments)


def test_links_lead_somewhere() -> None:
    """To files that are there, and to headings of the page."""
    headings = {
        re.sub(r"[^\w -]", "", text).strip().lower().replace(" ", "-")
        for text in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE):
        path, _, heading = target.partition("#")
        if path:
            assert (PATH.parent / path).exists(), path
        else:
            assert heading in headings
