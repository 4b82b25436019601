"""``gip-resilience top``: what a scrape says, what is drawn of it, and what is said when there is none."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.openmetrics.exposition import generate_latest as generate_open
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

import gip_resilience as gr
from gip_resilience.cli import main, top
from gip_resilience.cli.board import draw
from gip_resilience.cli.output import CommandError
from gip_resilience.cli.scrape import NotAScrapeError, Scrape, View, compare, read
from gip_resilience.gateway import Error, FaultPlan, RateLimited
from gip_resilience.prometheus import ResilienceCollector
from harness import CHAT, HARNESSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.gateway import Gateway
    from gip_resilience.testing import FakeClock

ROOT = Path(__file__).parents[1]
SCRAPE = ROOT / "docs" / "observability" / "scrape.txt"


def parsed(text: str, at: float = 0.0) -> Scrape:
    """A scrape in the classic format."""
    return read(text, at, text_string_to_metric_families)


@pytest.fixture
def registry(gateway: Gateway, clock: FakeClock) -> CollectorRegistry:
    """Of a process that has seen some trouble."""
    config = gr.Config(policies={"rate_limit": gr.Policy(max_attempts=1)}, on_open="respond")
    brain = gr.Resilience(config, clock=clock, chance=lambda: 0.5)
    gateway.plan = FaultPlan.per_model(
        {
            "dead": Error("model_unavailable"),
            "busy": [RateLimited(30)],
            "slow": [Error("model_overloaded")] * 2,
        }
    )
    with HARNESSES[0].open(brain) as session:
        for model in ("dead", "dead", "busy", "slow", "good", "good"):
            session.post(gateway.url + "/v1/chat/completions", json={**CHAT, "model": model})
    made = CollectorRegistry()
    made.register(ResilienceCollector(brain))
    made.brain = brain  # type: ignore[attr-defined]  # or nobody holds it
    return made


def frame(view: View, width: int = 80, height: int = 24, note: str = "") -> list[str]:
    """The lines that are drawn."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(draw(view, "here", width=width, height=height, note=note))
    return console.export_text().splitlines()


# ---- reading ---------------------------------------------------------------------------------------------


def test_a_view_says_what_the_snapshot_says(registry: CollectorRegistry) -> None:
    """Counts since the process began, from one scrape; the model in trouble first."""
    seen = registry.brain.metrics.snapshot()  # type: ignore[attr-defined]  # see `registry`

    view = compare(parsed(generate_latest(registry).decode()), None)

    assert view.span is None
    assert view.calls == {"success": 3, "failure": 2, "refused": 1}
    assert view.success == 0.5
    assert view.sent == seen.sent()
    assert view.retries == seen.retries == 2
    assert view.codes["model_overloaded"] == 2
    assert {reason: (count, round(total, 3)) for reason, (count, total) in view.waits.items()} == {
        reason: (spread.count, round(spread.total, 3)) for reason, spread in seen.wait_seconds.items()
    }
    assert view.refusals == {"circuit_open": 1}
    dead, busy = view.places[:2]
    assert (dead.model, dead.state, dead.calls, dead.failed) == ("dead", "open", 2, 2)
    assert dead.codes == (("model_unavailable", 1.0),)
    assert (busy.model, busy.state, busy.gate) == ("busy", "closed", pytest.approx(28.5, abs=2))
    assert {place.model for place in view.places} == {"", "dead", "busy", "slow", "good"}
    assert all(place.tokens is not None for place in view.places)


def test_both_formats_say_the_same(registry: CollectorRegistry, tmp_path: Path) -> None:
    """Text and OpenMetrics."""
    plain, opened = tmp_path / "plain.txt", tmp_path / "open.txt"
    plain.write_bytes(generate_latest(registry))
    opened.write_bytes(generate_open(registry))

    views = [compare(top.fetcher(str(path))(), None) for path in (plain, opened)]

    assert views[0] == views[1]
    assert views[0].total == 6


def test_rates_between_two_scrapes() -> None:
    """What was counted in between; what there is now as it is now."""
    text = (
        "# TYPE gip_resilience_calls_total counter\n"
        'gip_resilience_calls_total{{host="h",model="m",code="ok",outcome="success"}} {0}\n'
        "# TYPE gip_resilience_budget_tokens gauge\n"
        'gip_resilience_budget_tokens{{host="h",model="m"}} {1}\n'
    )
    before, now = parsed(text.format(100, 10), 5.0), parsed(text.format(130, 8), 15.0)

    view = compare(now, before)

    assert (view.span, view.total) == (10.0, 30.0)
    assert view.places[0].tokens == 8.0
    again = compare(parsed(text.format(7, 10), 25.0), now)
    assert (again.span, again.total) == (None, 7.0), "the process began anew"


@pytest.mark.parametrize(
    "text", ["", "hello", "<html>", "up 1\n", '{"json": true}', "a{b=1} 2 3 4 5\n", "\x00"]
)
def test_what_is_no_scrape_of_ours(text: str) -> None:
    """Said in words."""
    with pytest.raises(NotAScrapeError, match=r"not what Prometheus scrapes|no metric in it"):
        parsed(text)


def test_names_cannot_speak_to_the_terminal() -> None:
    """Control characters in a label are gone before anything is drawn."""
    text = 'gip_resilience_calls_total{host="h\x1b[2J",model="\x07m",code="ok",outcome="success"} 1\n'

    lines = "\n".join(frame(compare(parsed(text), None)))

    assert "\x1b" not in lines
    assert "\x07" not in lines


# ---- drawing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (200, 60), (60, 12)])
@pytest.mark.parametrize("models", [1, 7, 300])
def test_a_frame_fits(width: int, height: int, models: int) -> None:
    """However many models there are: the worst first, the rest in a line of its own."""
    rows = [
        f'gip_resilience_calls_total{{host="a-rather-long-host-name.example",model="model-{number}",'
        f'code="{"ok" if number % 2 else "failed"}",outcome="{"success" if number % 2 else "failure"}"}} {number + 1}'
        for number in range(models)
    ]
    view = compare(parsed("\n".join(rows) + "\n"), None)

    lines = frame(view, width, height)

    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    rest = [line for line in lines if re.search(r"and \d+ more", line)]
    assert bool(rest) is (models > height - 5)
    if rest:
        shown = sum("model-" in line for line in lines)
        assert f"and {models - shown} more" in rest[0]


def test_a_frame_says_what_is_wrong_with_its_source(registry: CollectorRegistry) -> None:
    """In its first line."""
    view = compare(parsed(generate_latest(registry).decode()), None)

    assert "no answer since 12:00:00" in frame(view, 120, note="no answer since 12:00:00")[0]


# ---- fetching --------------------------------------------------------------------------------------------


class _Peer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.answer  # type: ignore[attr-defined]  # set by `peer`
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def peer() -> Iterator[HTTPServer]:
    """A server that answers everything alike."""
    server = HTTPServer(("127.0.0.1", 0), _Peer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_a_running_process(registry: CollectorRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """By its address alone, with or without scheme and path."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    place = f"127.0.0.1:{server.server_port}"
    try:
        for source in (place, f"http://{place}", f"http://{place}/", f"http://{place}/metrics"):
            assert main(["top", source, "--once"]) == 0
            out = capsys.readouterr().out
            assert "50.0% succeeded" in out
            assert "OPEN" in out
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b"nothing here"), "HTTP Error 404"),
        ((200, b"<html></html>"), "not what Prometheus scrapes"),
        ((200, b"up 1\n"), "no metric in it that is called gip_resilience_"),
        ((200, b"\xff\xfe"), "not UTF-8"),
        ((200, b"x" * (top.MAX_SIZE + 1)), "more than 10 MiB"),
    ],
)
def test_a_wrong_answer(
    answer: tuple[int, bytes], words: str, peer: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and a code that says so."""
    peer.answer = answer  # type: ignore[attr-defined]  # what `_Peer` reads

    assert main(["top", f"http://127.0.0.1:{peer.server_port}", "--once"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("127.0.0.1:9", "refused"),
        ("ftp://127.0.0.1/x", "expected a file that exists, or a URL"),
        ("http://", "expected a file that exists, or a URL"),
    ],
)
def test_no_answer(source: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same."""
    assert main(["top", source, "--once"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "x", "1e9"])
def test_a_wrong_interval(interval: str) -> None:
    """Is wrong usage."""
    with pytest.raises(SystemExit) as ended:
        main(["top", "x", "--interval", interval])

    assert ended.value.code == 2


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says why."""
    file = tmp_path / "scrape.txt"
    file.write_text("x")

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CommandError, match="Permission denied"):
        top.fetcher(str(file))()


# ---- the picture -----------------------------------------------------------------------------------------


def test_the_picture_is_made_by_its_command(tmp_path: Path) -> None:
    """The one in the docs, from the scrape beside it, to the letter."""
    target = tmp_path / "top.svg"
    command = [sys.executable, "-m", "gip_resilience", "top", "docs/observability/scrape.txt"]
    subprocess.run([*command, "--width", "110", "--svg", str(target)], check=True, cwd=ROOT)

    assert target.read_text() == (SCRAPE.parent / "top.svg").read_text()


def test_without_prometheus_client_there_is_a_word_for_it() -> None:
    """And the command line works otherwise."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from gip_resilience.cli import main\n"
        f"sys.exit(main(['top', {str(SCRAPE)!r}, '--once']))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ran.returncode == 1
    assert "pip install 'gip-resilience[prometheus]'" in ran.stderr
