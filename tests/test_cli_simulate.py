"""``gip-resilience simulate``, as its user meets it: what is printed, what is written, and which exit code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.simulation_page import with_tables

from gip_resilience.cli import main, parser
from gip_resilience.simulation.scenarios import SHIPPED, Scenario

ROOT = Path(__file__).parents[1]
QUICK = ("simulate", "--clients", "12", "--minutes", "4")

POLICY = "[breaker]\nmode = 'off'\n[budget]\nmode = 'off'\n[policies.intermediary]\nmax_attempts = 2\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A user's configuration: two attempts, and nothing that keeps anybody from them."""
    file = tmp_path / "mine.toml"
    file.write_text(POLICY)
    return file


def table(text: str) -> dict[str, list[str]]:
    """Rows of the printed table, by policy; the heading under ``policy``."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) > 3}


def test_a_policy_beside_the_others(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row each, in order; an outage shows the attempts of each policy."""
    assert main([*QUICK, "--policy", str(policy)]) == 0
    rows = table(capsys.readouterr().out)

    assert list(rows) == ["policy", "yours", "defaults", "naive", "none"]
    sends = rows["policy"].index("sends/call")
    assert (rows["yours"][sends], rows["none"][sends]) == ("2.00", "1.00")
    assert 3.8 < float(rows["naive"][sends]) <= 4.0
    assert {"success", "goodput", "recovery s", "p50 s", "p99 s", "herd peak"} < set(rows["policy"])


def test_a_changed_policy_changes_the_table(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the row of the configuration that changed."""
    before, after = [], []
    for text, rows in ((POLICY, before), (POLICY.replace("= 2", "= 3"), after)):
        policy.write_text(text)
        main([*QUICK, "--policy", str(policy)])
        rows.append(table(capsys.readouterr().out))
    assert before[0]["yours"][0] == "2.00"
    assert float(after[0]["yours"][0]) > 2.8
    assert {**before[0], "yours": after[0]["yours"]} == after[0]


def test_the_same_seed_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables, JSON and plots; another seed gives others."""
    written = []
    for run, seed in enumerate(("1", "1", "2")):
        directory = tmp_path / str(run)
        assert main([*QUICK, "--json", "--seed", seed, "--plot", str(directory)]) == 0
        files = {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
        written.append((json.loads(capsys.readouterr().out)["scenarios"], files))
    assert written[0] == written[1]
    assert written[0][0] != written[2][0]
    assert written[0][1] != written[2][1]


def test_what_is_plotted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines for every policy and the load, the fault shaded, and a page that needs no other file."""
    assert main([*QUICK, "--scenario", "outage", "--scenario", "flapping", "--plot", str(tmp_path)]) == 0
    plots = {path.name: ET.parse(path).getroot() for path in tmp_path.glob("*.svg")}
    page = (tmp_path / "index.html").read_text()

    assert sorted(plots) == [
        f"{name}-{what}.svg" for name in ("flapping", "outage") for what in ("goodput", "per-call", "sends")
    ]
    assert len(plots["outage-goodput.svg"].findall("{*}polyline")) == 4
    assert len(plots["outage-per-call.svg"].findall("{*}rect")) == 3
    assert (page.count("<svg"), page.count("<table>"), page.count("src=")) == (6, 2, 0)
    capsys.readouterr()


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that was measured, what was run, and why calls were given up."""
    assert main([*QUICK, "--json", "--seed", "7", "--processes", "2"]) == 0
    found = json.loads(capsys.readouterr().out)

    (scenario,) = found["scenarios"]
    assert (found["seed"], scenario["scenario"]) == (7, "outage")
    assert scenario["settings"]["traffic"] == {"clients": 12, "processes": 2}
    defaults, *_ = scenario["policies"]
    figures = defaults["figures"]
    assert figures["issued"] == figures["succeeded"] + figures["failed"]
    assert sum(defaults["tally"]["given_up"].values()) == figures["failed"]


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """A table that can be pasted into a page."""
    assert main([*QUICK, "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| policy | sends/call |")
    assert lines[3].startswith("| --- | ---: |")


def test_list_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes with the library can be named, and printed to start one's own from."""
    assert main(["simulate", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SHIPPED)
    assert main(["simulate", "--show", "dead-model"]) == 0
    own = tmp_path / "own.toml"
    own.write_text(capsys.readouterr().out)
    assert Scenario.load(own) == Scenario.shipped("dead-model")
    assert main([*QUICK, "--scenario", str(own)]) == 0
    assert capsys.readouterr().out.startswith("own: one model of five hangs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minutes = 60\n[fault]\nkind = 'reffuse'\n", 'fault.kind: expected one of "none", "refuse"'),
        ("\n[fault]\nstart = -1\n", "fault.start: expected float >= 0, got -1 (in own.toml, line 3)"),
        ("[gateway]\nslots = 3\n", 'gateway.slots: expected a known setting, got "slots" (in own.toml'),
        ("minutes = \n", "expected valid TOML: "),
        ("fault = 3\n", "fault: expected a table, got 3 (in own.toml, line 1)"),
    ],
)
def test_a_wrong_scenario(
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that names the setting, what would do, and where it stands; exit code 1."""
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(text)
    assert main(["simulate", "--scenario", "own.toml"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gip-resilience simulate: ")
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "outag"], "there is no scenario 'outag'; did you mean outage?"),
        (["--scenario", "quake"], "there is no scenario 'quake'; known are outage, "),
        (["--show", "quake"], "there is no scenario 'quake'"),
        (["--scenario", "away.toml"], "away.toml: No such file or directory"),
        (["--policy", "away.toml"], "away.toml: No such file or directory"),
        (["--policy", "wrong.toml"], "breaker.open_time: expected float > 0, got -1 (in wrong.toml, line 2)"),
        (["--minutes", "1"], "outage: minutes: expected float >= 4, for the fault and the minute after it"),
        (["--clients", "1000000"], "outage: traffic.clients: expected int >= 1 and <= 100000"),
        (["--clients", "4", "--minutes", "4", "--plot", "wrong.toml"], "wrong.toml: File exists"),
    ],
)
def test_what_cannot_be_done(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line on standard error, exit code 1, no traceback."""
    monkeypatch.chdir(tmp_path)
    Path("wrong.toml").write_text("[breaker]\nopen_time = -1\n")
    assert main(["simulate", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--clients", "0"),
        ("--clients", "many"),
        ("--processes", "0"),
        ("--minutes", "-1"),
        ("--minutes", "nan"),
        ("--seed", "x"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *arguments])
    assert ended.value.code == 2
    assert "usage: gip-resilience simulate" in capsys.readouterr().err


def test_it_needs_no_http_library() -> None:
    """Nor rich, nor anyio: plain Python, and what the core needs."""
    script = (
        "import sys\n"
        "for name in ('rich', 'requests', 'urllib3', 'httpx', 'httpx2', 'anyio', 'redis', 'trio'):\n"
        "    sys.modules[name] = None\n"
        "from gip_resilience.cli import main\n"
        "sys.exit(main(['simulate', '--clients', '5', '--minutes', '5', '--scenario', 'streams']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "defaults" in table(done.stdout)


# ---- the page ----------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
RECORD = json.loads((ROOT / "docs" / "simulation" / "results.json").read_text(encoding="utf-8"))


def test_the_page_shows_the_record() -> None:
    """Every table on it is the one that the recorded results make, of every scenario, as it is shipped today."""
    assert with_tables(PAGE, RECORD) == PAGE
    assert [found["scenario"] for found in RECORD["scenarios"]] == list(SHIPPED)
    for found in RECORD["scenarios"]:
        assert f"<!-- {found['scenario']} -->" in PAGE
        assert Scenario.from_dict(found["settings"]) == Scenario.shipped(found["scenario"])
        assert [row["policy"] for row in found["policies"]] == ["yours", "defaults", "naive", "none"]


def test_the_page_can_fail() -> None:
    """A record that says something else makes another page."""
    changed = json.loads(json.dumps(RECORD))
    changed["scenarios"][0]["policies"][0]["figures"]["sends"] = 77.0
    assert with_tables(PAGE, changed) != PAGE


def test_the_page_is_in_order() -> None:
    """Its commands are understood, its plots are there, and its policy is one."""
    commands = re.findall(r"^\$ (gip-resilience .*)$", PAGE, re.MULTILINE)
    assert commands
    for command in commands:
        parser().parse_args(shlex.split(command.partition(" >")[0])[1:])
    plots = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE)
    assert plots
    for plot in plots:
        assert ET.parse(ROOT / "docs" / plot).getroot().tag.endswith("svg")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "simulate --scenario all --policy docs/simulation/policy.toml --json" in makefile
