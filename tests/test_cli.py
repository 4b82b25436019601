"""The command line, as its user meets it: what is printed, and which exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import gip_resilience as gr
from gip_resilience import taxonomy
from gip_resilience.cli import breaks, check, demo, explain, main, meanings, running, screen
from gip_resilience.cli.afternoon import DEAD, Afternoon
from gip_resilience.cli.clients import CLIENTS, Client
from gip_resilience.dialects.statuses import by_status
from gip_resilience.gateway import FaultPlan, Gateway, HalfBody, Html, Rule
from gip_resilience.gateway.answers import STATUS_OF
from gip_resilience.gateway.plan import Playback


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo turns proxies off for its process; the other tests' process must not keep that."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def usage_error(*arguments: str) -> int:
    """The exit code of a wrong usage."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


# ---- in general --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("check",),
        ("demo", "--calls", "0"),
        ("demo", "--client", "curl"),
        ("gateway", "--host", "0.0.0.0"),
        ("gateway", "--port", "65536"),
        ("gateway", "--port", "http"),
        ("gateway", "--latency", "-1"),
        ("gateway", "--limit-window", "0"),
        ("gateway", "--limit-requests", "0"),
        ("explain", "--json", "--markdown"),
        ("config",),
        ("config", "print"),
        ("completion",),
        ("completion", "cmd.exe"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and how to use it on standard error."""
    assert usage_error(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: gip-resilience")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints it and is a success."""
    assert usage_error("--version") == 0
    assert capsys.readouterr().out == f"gip-resilience {gr.__version__}\n"


def test_help_needs_no_http_library() -> None:
    """The command answers before any HTTP library is imported."""
    program = (
        "import sys; from gip_resilience.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('requests', 'httpx', 'httpx2', 'openai', 'rich')))"
    )

    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL).returncode == 0


def test_module_and_closed_pipe() -> None:
    """``python -m gip_resilience`` is the command; whoever stops reading causes no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-u", "-m", "gip_resilience", "explain"], stdout=closed, stderr=subprocess.PIPE
        )

    assert ended.returncode == 1
    assert ended.stderr == b""


# ---- explain -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [str(code) for code in gr.Code])
def test_explain_every_code(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the gateway's codes is explained with the attempts its policy allows, in 80 columns."""
    assert main(["explain", code]) == 0
    text = capsys.readouterr().out
    attempts = gr.Config().policy(code, taxonomy.GIP[code].policy).max_attempts
    assert text.startswith(f"{code}: error code of the gateway\n  meaning ")
    assert ("sent again  no\n" if attempts == 1 else f"sent again  yes, {attempts} attempts in all") in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("502", "yes, 3 attempts"),
        ("http_503", "the host's counts a failure, the model's learns nothing"),
        ("504", "yes, 2 attempts"),
        ("409", "sent again  no"),
        ("200", "no need"),
        ("429", "gate "),
        ("599", "yes, 2 attempts"),
        ("connect_error", "yes, 3 attempts"),
        ("read_timeout", "it may have been executed; on_ambiguous=retry"),
        ("html_200", "yes, 2 attempts"),
        ("error_200", "yes, 2 attempts"),
        ("insufficient_quota", "in the openai dialect"),
        ("model_unavailable", "the model's opens at once"),
        ("unknown_model", "sent again  no"),
    ],
)
def test_explain_other_names(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Statuses, failures without an answer, and other dialects' codes are explained as well."""
    assert main(["explain", name]) == 0
    assert said in capsys.readouterr().out


DOCUMENTED = (400, 401, 403, 404, 409, 429, 500, 502, 503, 504)
"""The statuses the gateway documents for errors."""


@pytest.mark.parametrize("status", DOCUMENTED)
def test_explain_every_status(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says, what is done, why, and which codes to ask for in its place, in 80 columns."""
    assert main(["explain", str(status)]) == 0
    text = capsys.readouterr().out
    rule = by_status(status, is_json=True)
    attempts = gr.Config().policy("", rule.policy).max_attempts
    assert text.startswith(f"http_{status}: status {status} without a known error code\n  meaning ")
    assert ("sent again  no\n" if attempts == 1 else f"sent again  yes, {attempts} attempts in all") in text
    assert max(map(len, text.splitlines())) <= 80
    usual = {code for code, often in STATUS_OF.items() if often == status}
    assert set(re.findall(r"\w+_\w+|\w+", text.partition("  codes ")[2].partition("  kind ")[0])) >= usual


@pytest.mark.parametrize(
    "name", [*map(str, gr.Code), *map(str, DOCUMENTED), "read_timeout", "insufficient_quota"]
)
def test_explain_says_why(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A reason stands at the end of each."""
    assert main(["explain", name]) == 0
    why = re.search(r"^  why         \S.*(?:\n {14}\S.*)*\n", capsys.readouterr().out, re.MULTILINE)
    assert why is not None
    assert why[0].rstrip().endswith(".")


def test_every_category_has_a_reason() -> None:
    """None of them is explained by nothing; reasons of single codes are of codes that exist."""
    assert set(meanings.REASONS) == set(taxonomy.Category)
    assert meanings.WHY.keys() <= meanings.MEANINGS.keys()
    assert meanings.STATUS_REASONS.keys() <= meanings.STATUSES.keys()


def test_explain_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of objects: one for each meaning of a name, or for each of the 23 codes."""
    assert main(["explain", "--json"]) == 0
    everything = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in everything] == list(map(str, gr.Code))
    assert main(["explain", "--json", "model_overloaded"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one in everything
    assert one["policy"]["max_attempts"] == 4
    assert one["circuits"] == {"host": "success", "model": "failure"}
    assert (one["retry"], one["gate"], one["status"], one["maybe_executed"]) == (
        "backoff",
        False,
        None,
        False,
    )
    assert main(["explain", "--json", "429"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["code"], one["status"], one["gate"]) == ("http_429", 429, True)


def test_explain_knows_every_code_there_is() -> None:
    """Nothing a policy may be keyed by is unknown to the command, and what is ours has a meaning in words."""
    known = taxonomy.known_codes()

    assert [code for code in known if code != "ok" and not explain.find(code)] == []
    assert taxonomy.GIP.keys() <= meanings.MEANINGS.keys()
    assert meanings.MEANINGS.keys() <= known


def test_explain_unknown_code(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown code is said to be unknown, with the one that was probably meant; exit code 1."""
    assert main(["explain", "model_overlode"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "unknown code: model_overlode (did you mean model_overloaded?)" in printed.err


def test_explain_under_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a configuration, its numbers are the ones that are explained; so are codes it adds."""
    file = tmp_path / "config.toml"
    file.write_text(
        "[policies.internal_error]\nmax_attempts = 7\nbreaker = 'trip'\n"
        "[policies.timeout]\non_ambiguous = 'fail'\n[policies.'custom:on_fire']\nmax_attempts = 2\n"
    )

    assert main(["explain", "internal_error", "--config", str(file)]) == 0
    text = capsys.readouterr().out
    assert "why         by default: The gateway publishes" in text
    assert "yes, 7 attempts in all" in text
    assert "the model's opens at once" in text
    assert main(["explain", "read_timeout", "--config", str(file)]) == 0
    assert "unless it may have been executed" in capsys.readouterr().out
    assert main(["explain", "on_fire", "--config", str(file)]) == 0
    assert "yes, 2 attempts in all" in capsys.readouterr().out


def test_explain_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name, a line for each of the 23 codes, in 80 columns."""
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(map(str, gr.Code))
    assert max(map(len, lines)) <= 80


# ---- check -------------------------------------------------------------------------------------------------


def test_check_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound file is OK, with every setting that is not the default beside the default."""
    file = tmp_path / "config.toml"
    file.write_text(
        "deadline = 10\nmax_elapsed = 'none'\non_open = 'auto'\n"
        "[breaker]\nopen_time = 3\nratio = 0.5\n"
        "[policies.overload]\nmax_attempts = 6\n"
        "[policies.model_overloaded]\nmax_attempts = 2\n"
        "[policies.'custom:on_fire']\ncost = 0\n"
    )

    assert main(["check", str(file)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{file}: OK"
    assert [" ".join(line.split()) for line in lines] == [
        "policies.overload.max_attempts = 6 (default: 4)",
        "policies.model_overloaded.max_attempts = 2 (default: 6)",
        "policies.custom:on_fire.cost = 0 (default: 1)",
        "breaker.open_time = 3 (default: 5)",
        "deadline = 10 (default: none)",
        "max_elapsed = none (default: 120)",
    ]


def test_check_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that says nothing is OK and differs in nothing."""
    file = tmp_path / "config.toml"
    file.write_text("")

    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: OK, the same as the defaults\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[breaker]\nopen_tim = 3\n", 'did you mean "open_time"?) (in {file}, line 2)'),
        ("deadline = 'soon'\n", "deadline: expected float > 0 or none"),
        ("deadline = \n", "line 1"),
    ],
    ids=["unknown setting", "wrong value", "not TOML"],
)
def test_check_finds_faults(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A faulty file is refused with the setting, the file and the line; exit code 1."""
    file = tmp_path / "config.toml"
    file.write_text(text)

    assert main(["check", str(file)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said.format(file=file) in printed.err


def test_check_without_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is the user's mistake, not ours: one line, exit code 1."""
    assert main(["check", str(tmp_path / "none.toml")]) == 1
    assert capsys.readouterr().err.endswith("none.toml: No such file or directory\n")


def test_every_setting_is_compared() -> None:
    """Each setting of the configuration can show up as a difference."""
    changed = gr.Config(
        policies={"other": gr.Policy(max_attempts=9)},
        breaker=gr.BreakerConfig(buckets=9),
        gate=gr.GateConfig(spread=9),
        budget=gr.BudgetConfig(deposit=9),
        body=gr.BodyConfig(json_limit=9),
        stream=gr.StreamConfig(resume=("/events",)),
        observe=gr.ObserveConfig(max_codes=9),
        store=gr.StoreConfig(quorum=9),
        deadline=9,
        max_elapsed=9,
        on_open="wait",
        dialect="gip",
        idempotency_header="Idempotency-Key",
    )

    tops = [name.partition(".")[0] for name, _, _ in check.differences(changed)]
    assert tops == list(changed.kinds)


# ---- gateway -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_gateway(ending: signal.Signals, tmp_path: Path) -> None:
    """It prints its URL, plays the plan, keeps the limit, and ends cleanly when it is told to."""
    plan = tmp_path / "plan.toml"
    plan.write_text('[[rules]]\nreply = { kind = "error", code = "model_overloaded" }\nnth = 1\n')
    command = [sys.executable, "-m", "gip_resilience", "gateway", "--port", "0", "--plan", str(plan)]
    with subprocess.Popen(
        [*command, "--limit-requests", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs us may ignore SIGINT (a shell does, for what runs in the background), and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        with httpx.Client(trust_env=False) as client:
            chat = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            statuses = [client.post(f"{url}/chat/completions", json=chat).status_code for _ in range(3)]
        process.send_signal(ending)
        try:
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()

    assert statuses == [503, 200, 429]
    assert out == "\n3 requests on 1 connections\n"
    assert err == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rules]]\nreply = { kind = 'nonsense' }\n", "plan.toml: rules[0].reply"),
        ("rules = \n", "plan.toml: not TOML"),
        (None, "plan.toml: No such file"),
    ],
    ids=["no such reply", "not TOML", "no file"],
)
def test_gateway_with_a_faulty_plan(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan that cannot be played is refused with the place in it; exit code 1."""
    file = tmp_path / "plan.toml"
    if text is not None:
        file.write_text(text)

    assert main(["gateway", "--plan", str(file), "--port", "0"]) == 1
    assert said in capsys.readouterr().err


def test_gateway_on_a_taken_port(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that somebody has is said to be taken; exit code 1."""
    port = gateway.url.rpartition(":")[2]

    assert main(["gateway", "--port", port]) == 1
    assert f"port {port} cannot be had: " in capsys.readouterr().err


# ---- demo --------------------------------------------------------------------------------------------------


def test_the_afternoon_is_the_same_for_everybody() -> None:
    """Same seed, same work and same faults; another seed, other faults."""

    def faults(seed: int) -> list[str]:
        afternoon = Afternoon(seed=seed)
        playback = Playback(afternoon.plan, seed)
        return [
            playback.reply_to("/v1/chat/completions", "POST", job.model, job.at).kind
            for job in afternoon.jobs()
        ]

    assert list(Afternoon().jobs()) == list(Afternoon().jobs())
    assert faults(1) == faults(1)
    assert faults(1) != faults(2)
    assert {"ok", "error"} < set(faults(4))


def test_some_calls_are_hopeless_and_are_counted_so() -> None:
    """Calls to the dead model are not among the possible ones, and nobody ever gets an answer from it."""
    afternoon = Afternoon()
    hopeless = [job for job in afternoon.jobs() if job.model == DEAD]
    playback = Playback(afternoon.plan, afternoon.seed)

    assert afternoon.possible == afternoon.calls - len(hopeless)
    assert len(hopeless) == 6
    assert {playback.reply_to("/v1/x", "POST", DEAD, job.at).kind for job in hopeless} == {"error"}


@pytest.mark.timeout(50)
def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    """Every client lives through it bare and mounted; the table has them all, in plain text and 80 columns."""
    assert main(["demo", "--calls", "20"]) == 0
    text = capsys.readouterr().out
    head = [line for line in text.splitlines() if not line.startswith("- ")]

    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    begin = next(place for place, line in enumerate(head) if line.startswith("-----"))
    rows = head[begin + 1 : begin + 1 + 2 * len(CLIENTS)]
    assert [row[:14].strip() for row in rows[::2]] == [client.name for client in CLIENTS]
    assert [row[15:].split()[0] for row in rows] == ["bare", "mounted"] * len(CLIENTS)
    # Two of twenty calls go to the dead model: a request each, three under the SDK that retries by itself, and
    # none after the first once a circuit is open.
    assert [row[15:].split()[3] for row in rows[::2]] == ["2"] * 7 + ["6"]
    assert [row[15:].split()[3] for row in rows[1::2]] == ["1"] * 8


class Shower(Afternoon):
    """An afternoon in which two certain requests are hit, so that what comes of it is certain too."""

    @property
    def plan(self) -> FaultPlan:
        """A proxy's page and a broken body; nothing by chance, nothing by the clock."""
        return FaultPlan((Rule(Html(502), nth=9), Rule(HalfBody("short_length"), nth=1)))


def test_what_mounting_changes() -> None:
    """Bare clients lose the calls that are hit (the SDK mends one by itself); mounted ones lose none."""
    shower = Shower(calls=10)
    runs = [running.Run(client, shower, mounted=mounted) for client in CLIENTS for mounted in (False, True)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()

    scores = [each.score for each in runs]
    assert [score and score.answered for score in scores] == [8, 10] * 7 + [9, 10]
    assert [score and score.requests for score in scores] == [10, 12] * 7 + [11, 12]


def test_broken_streams_come_whole_when_mounted() -> None:
    """Every reader gets every stream whole, mounted; bare, some are cut short and nobody can tell."""
    tallies = breaks.run([client.name for client in CLIENTS])
    bare = [tally for tally in tallies if not tally.mounted]
    mounted = [tally for tally in tallies if tally.mounted]
    ways = len(breaks.WAYS)

    assert [tally.name for tally in mounted] == ["requests", "httpx", "httpx2", "openai"]
    assert [tally.counts["whole"] for tally in mounted] == [ways] * 4
    # One more request for each way but the one in which nothing is missing.
    assert [tally.requests for tally in mounted] == [2 * ways - 1] * 4
    assert all(tally.counts["short"] for tally in bare)
    assert [tally.requests for tally in bare] == [ways] * 4
    assert max(len(line) for line in breaks.table(tallies)) <= 80


def test_demo_of_one_client(capsys: pytest.CaptureFixture[str]) -> None:
    """A client can be chosen, and the others then take no part."""
    assert main(["demo", "--calls", "3", "--client", "httpx trio"]) == 0
    text = capsys.readouterr().out
    assert "httpx trio      mounted  3 answered, 0 failed" in text
    assert "requests        bare" not in text


def test_demo_without_any_client(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no HTTP library is installed the demo says what to install; exit code 1."""
    nothing = Client("nothing", ("no_such_module",), CLIENTS[0].begin)
    monkeypatch.setattr(demo, "CLIENTS", (nothing,))

    assert main(["demo"]) == 1
    assert "pip install 'gip-resilience[all]'" in capsys.readouterr().err


def test_clients_that_are_not_installed_are_named() -> None:
    """A client whose library is missing is left out, and said to be."""
    missing = Client("curl", ("no_such_module",), CLIENTS[0].begin)

    assert missing.missing == ["no_such_module"]
    assert "Not taking part: curl (not installed: no_such_module)" in screen.introduction(
        Afternoon(), [missing]
    )


SCORES = [
    running.Score("requests", False, 10, 9, 5, 10, 1, 3, None, {}, 0.02, {}),
    running.Score("requests", True, 10, 9, 8, 12, 1, 4, 1, {"gate": 3.0, "hint": 1.0}, 4.2, {"budget": 1}),
]


def test_the_reading_follows_from_the_numbers() -> None:
    """What is said under the table is computed from it: gains, costs, and what was lost all the same."""
    text = " ".join(screen.reading(SCORES))

    assert "Of 9 calls that could succeed, 5 did bare and 8 did mounted." in text
    assert "Calls to the dead model (1) fail either way" in text
    assert "0.4 s of waiting per call on average (75% held together" in text
    assert "1 of the mounted calls failed although they need not have: budget (1)." in text
    assert "OpenAI" not in text


@pytest.mark.parametrize(
    ("terminal", "environment", "live"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
    ],
    ids=["terminal", "pipe", "NO_COLOR", "dumb terminal"],
)
def test_live_progress_only_on_a_terminal(
    terminal: bool, environment: dict[str, str], live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live progress is for terminals that want it; everything else gets lines of plain text."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)

    assert isinstance(screen.choose(plain=False), screen.RichScreen) is live
    assert isinstance(screen.choose(plain=True), screen.PlainScreen)


def test_both_screens_show_the_same_table(capsys: pytest.CaptureFixture[str]) -> None:
    """With rich or without, the words and numbers are the same."""
    tallies = [breaks.Tally("httpx", mounted=False), breaks.Tally("httpx", mounted=True)]
    shown = []
    for each in (screen.PlainScreen(), screen.RichScreen()):
        each.conclude(SCORES)
        each.conclude_streams(tallies, 1.0)
        shown.append(capsys.readouterr().out)
    plain, rich = shown

    assert [line.rstrip() for line in rich.split("\n") if line] == [
        line for line in plain.split("\n") if line
    ]
