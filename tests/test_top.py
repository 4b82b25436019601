"""``gip-resilience top``: what a scrape says, what is drawn of it, and what is said when there is none."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.openmetrics.exposition import generate_latest as generate_open
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

import gip_resilience as gr
from gip_resilience.cli import board, main, top
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


def sample(name: str, value: object, **labels: str) -> str:
    """One line of a scrape."""
    said = ",".join(f'{label}="{text}"' for label, text in {"host": "h", "model": "m", **labels}.items())
    return f"gip_resilience_{name}{{{said}}} {value}\n"


CALL = sample("calls_total", 4, code="ok", outcome="success")


def test_a_count_that_began_anew_counts_in_full() -> None:
    """It alone: nothing is negative, as in Prometheus itself."""
    refused = 'gip_resilience_refusals_total{{reason="budget"}} {}\n'
    before, now = parsed(CALL + refused.format(9), 1.0), parsed(CALL + refused.format(2), 2.0)

    assert compare(now, before).refusals == {"budget": 2.0}


def test_how_long_a_circuit_was_not_closed() -> None:
    """As a share of the time between two scrapes, or of all of it; unknown where nobody measures."""
    spent = "circuit_state_seconds_total"

    def at(now: float, closed: float, opened: float, half: float) -> Scrape:
        times = {"closed": closed, "open": opened, "half_open": half}
        return parsed("".join(sample(spent, value, state=state) for state, value in times.items()), now)

    first, second = at(0.0, 90, 8, 2), at(20.0, 95, 20, 5)

    assert away(first) == pytest.approx(0.1)
    assert away(second, first) == pytest.approx(0.75)
    assert away(parsed(CALL)) is None


def away(now: Scrape, before: Scrape | None = None) -> float | None:
    """Of the only place there is."""
    (place,) = compare(now, before).places
    return place.away


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ({"a": "closed", "b": "open"}, "open"),
        ({"a": "open", "b": "closed"}, "open"),
        ({"a": "half_open", "b": "closed"}, "half_open"),
        ({"a": "open", "b": "half_open"}, "open"),
    ],
)
def test_of_several_clients_the_worst_is_shown(states: dict[str, str], worst: str) -> None:
    """Of a circuit the state that lets least through, of a gate the one that opens last."""
    text = "".join(sample("circuit_state", 1, state=state, client=client) for client, state in states.items())
    text += sample("gate_closed_seconds", 5, client="a") + sample("gate_closed_seconds", 7, client="b")

    (place,) = compare(parsed(text), None).places

    assert (place.state, place.gate) == (worst, 7.0)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
@pytest.mark.parametrize("name", ["calls_total", "gate_closed_seconds", "call_duration_seconds_bucket"])
def test_what_is_no_number_is_left_out(name: str, value: str) -> None:
    """As if it were not there."""
    labels = {"le": "1"} if name.endswith("_bucket") else {}
    text = CALL + sample(name, value, **labels)

    assert compare(parsed(text), None) == compare(parsed(CALL), None)


def test_buckets_may_be_missing() -> None:
    """Also the last of all."""
    text = sample("call_duration_seconds_bucket", 10, le="1") + CALL

    assert compare(parsed(text), None).median == pytest.approx(0.5)


def test_a_thousand_models_take_no_time() -> None:
    """Every sample is looked at a few times, not once for each model."""
    looked = 0

    class Series(dict[frozenset[tuple[str, str]], float]):
        def items(self) -> Any:
            nonlocal looked
            looked += len(self)
            return super().items()

    bounds = ("0.1", "1", "+Inf")
    one = {
        name: Series(
            (frozenset({("host", "h"), ("model", str(number)), ("le", bound)}), 1.0)
            for number in range(1000)
            for bound in bounds
        )
        for name in ("calls_total", "call_duration_seconds_bucket")
    }

    assert len(compare(Scrape(0.0, one), None).places) == 1000
    assert looked < 20 * 3000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "<html>",
        "up 1\n",
        '{"json": true}',
        "a{b=1} 2 3 4 5\n",
        "\x00",
        'gip_resilience_call_duration_seconds_bucket{le="abc"} 1\n',
        'gip_resilience_call_duration_seconds_bucket{le="NaN"} 1\n',
        "gip_resilience_call_duration_seconds_bucket 1\n",
    ],
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


def test_names_are_no_markup() -> None:
    """Brackets are shown as they are, in the heading too."""
    text = sample("calls_total", 1, host="[red]h[/red]", model="[/m]", code="ok", outcome="[/x]")

    lines = "\n".join(frame(compare(parsed(text), None), 120))

    for name in ("[red]h[/red]", "[/m]", "[/x]"):
        assert name in lines


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


def test_a_frame_says_how_much_was_tried_again_and_what_broke() -> None:
    """Retries, breaks of streams by code, and the share of the time that a circuit was not closed."""
    text = (
        CALL
        + "gip_resilience_retries_total 3\n"
        + sample("stream_breaks_total", 7, code="stream_stalled", action="fail")
        + sample("circuit_state", 1, state="open")
        + sample("circuit_state_seconds_total", 30, state="open")
        + sample("circuit_state_seconds_total", 70, state="closed")
    )

    said = "\n".join(frame(compare(parsed(text), None), 110))

    for part in ("retries 3", "broken by:  stream_stalled 7", "not closed", "30%"):
        assert part in said


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


def test_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """The same; the query of the URL, which may hold a key, is not said."""
    assert main(["top", "127.0.0.1:9/metrics?token=hunter2", "--once"]) == 1

    said = capsys.readouterr().err
    assert "refused" in said
    assert "nor is there a file" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "source",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/hostname",
        "http://",
        "http://[::1",
        "http://127.0.0.1:abc",
        "127.0.0.1:99999",
        "/no/such/file",
        "./no-such-file.txt",
        "~/no-such-file",
        "two words",
        "\x00",
        ".",
    ],
)
def test_neither_a_file_nor_a_url(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage, in one line."""
    assert main(["top", source, "--once"]) == 2
    said = capsys.readouterr().err
    assert "expected a file that exists, or a URL" in said
    assert said.count("\n") == 1
    assert "\x00" not in said


def test_a_password_in_a_url_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not supported, and not shown."""
    assert main(["top", "http://someone:hunter2@127.0.0.1:9100", "--once"]) == 2
    assert "hunter2" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"hello\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\nshort", "breaks off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "breaks off"),
        (b"HTTP/1.1 500 \x1b[2Jno\r\ncontent-length: 0\r\n\r\n", "HTTP Error 500: ?[2Jno"),
        (b"", "breaks off"),
    ],
)
def test_an_answer_that_is_none(answer: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No more than a line about it, which cannot speak to the terminal."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        code = main(["top", f"127.0.0.1:{server.getsockname()[1]}", "--once"])
        thread.join(10)

    said = capsys.readouterr().err
    assert code == 1
    assert words in said
    assert "\x1b" not in said
    assert said.count("\n") == 1


def test_an_answer_that_comes_too_slowly(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole of it has a time limit, not each byte alone."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(top.time, "monotonic", lambda: float(next(hours)))
    try:
        assert main(["top", f"127.0.0.1:{server.server_port}", "--once"]) == 1
    finally:
        monkeypatch.undo()
        server.shutdown()
        thread.join(10)
        server.server_close()
    assert "takes longer than 5 s" in capsys.readouterr().err


# ---- watching --------------------------------------------------------------------------------------------


def test_a_process_that_goes_away_and_comes_back() -> None:
    """What was seen last stays, with since when; then it goes on, over the time in between."""
    lost = CommandError("refused")
    answers: list[Scrape | CommandError] = [
        parsed(CALL, 2.0),
        lost,
        lost,
        parsed(CALL.replace(" 4", " 10"), 8.0),
    ]
    times = iter(["12:00:00", "12:00:02"])

    def fetch() -> Scrape:
        answer = answers.pop(0)
        if isinstance(answer, CommandError):
            raise answer
        return answer

    seen = list(islice(top.watched(fetch, parsed(CALL, 0.0), lambda: next(times)), 5))

    assert [note for _, note in seen] == ["", "", *["no answer since 12:00:00"] * 2, ""]
    assert [(view.span, view.total) for view, _ in seen] == [(None, 4), (2, 0), (2, 0), (2, 0), (6, 6)]


def test_it_is_left_by_an_interrupt(registry: CollectorRegistry) -> None:
    """On a terminal, quietly."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    ours, theirs = pty.openpty()
    program = (
        "import signal, sys; from gip_resilience.cli import main\n"
        # Where tests run in the background of a shell, interrupts are ignored unless one asks for them.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(main(['top', '127.0.0.1:{server.server_port}', '--interval', '60']))\n"
    )
    command = [sys.executable, "-c", program]
    seen = b""
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment)
        os.close(theirs)
        while b"slow" not in seen:  # a model, in the last lines of a frame
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # how a terminal says that nobody is left at the other end
            while os.read(ours, 65536):
                pass
        _, said = process.communicate(timeout=20)
    finally:
        os.close(ours)
        server.shutdown()
        thread.join(10)
        server.server_close()

    assert (process.returncode, said) == (0, b"")


def test_an_interrupt_is_not_lost_in_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while a frame is written, and is swallowed there, is noticed behind it."""
    drawn: list[str] = []

    def draw(*_: object, **__: object) -> str:
        drawn.append("frame")
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return "frame"

    monkeypatch.setattr(board, "draw", draw)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        views = [(compare(parsed(CALL, 0.0), None), "")] * 3
        top._watch(Console(file=io.StringIO()), iter(views), "here", 0.0)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)

    assert drawn == ["frame"]


@pytest.mark.parametrize("interval", ["0", "x", "1e9"])
def test_a_wrong_interval(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Is wrong usage."""
    with pytest.raises(SystemExit) as ended:
        main(["top", "x", "--interval", interval])

    assert ended.value.code == 2
    assert "expected a number from 0.1 to 3600" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["-5", "0", "19", "1e9", "x"])
def test_a_wrong_width(width: str) -> None:
    """The same."""
    with pytest.raises(SystemExit) as ended:
        main(["top", "x", "--width", width])

    assert ended.value.code == 2


def test_a_picture_that_cannot_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says why."""
    assert main(["top", str(SCRAPE), "--svg", str(tmp_path / "no" / "such.svg")]) == 1
    assert "such.svg: No such file or directory" in capsys.readouterr().err


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


def test_the_picture_asks_nobody_for_a_font() -> None:
    """Whoever opens it loads nothing from anywhere: the viewer's own fonts do."""
    picture = (SCRAPE.parent / "top.svg").read_text()

    assert "url(http" not in picture.replace('"', "")
    assert "@font-face" not in picture


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
