"""The simulation of overload: it can be trusted, and the shipped engine keeps its promises in it.

Twenty clients of two calls a second each, against a gateway of a tenth of the usual size. The figures that are
promised are those of `benchmarks/overload` with 200 clients; the bounds here leave room for what chance does to a
tenth of the calls.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overload import cli
from benchmarks.overload.cli import with_tables
from benchmarks.overload.policies import POLICIES
from benchmarks.overload.runs import Job, document, read, run, simulate, summarise
from benchmarks.overload.scenarios import SCENARIOS

from gip_resilience.simulation.clockwork import Trace
from gip_resilience.simulation.measures import NEVER, measure, recovery

CLIENTS = 20
SCALE = 0.1


@cache
def result(scenario: str, policy: str, seed: int = 1) -> dict[str, Any]:
    """A scaled-down run; several tests look at the same ones."""
    return run(Job(scenario, policy, CLIENTS, seed, scale=SCALE))


def figure(scenario: str, policy: str, name: str, seed: int = 1) -> float:
    """One figure of a scaled-down run."""
    value: float = result(scenario, policy, seed)["figures"][name]
    return value


@pytest.mark.parametrize("policy", ["ours", "full_jitter"])
def test_same_seed_same_run(policy: str) -> None:
    """A seed gives the same run, event by event; another seed gives another."""
    scenario = SCENARIOS["pulse"].scaled(SCALE)
    first, again, other = (simulate(scenario, POLICIES[policy], CLIENTS, seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert first.ended != other.ended


def test_every_policy_meets_the_same_calls() -> None:
    """What a policy does changes nothing about when its users call."""
    assert result("silence", "naive3")["arrivals"] == result("silence", "ours")["arrivals"]


@pytest.mark.parametrize("policy", ["naive3", "httpx_retries", "ours"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost(scenario: str, policy: str) -> None:
    """Every call ends once, and every request is answered or given up."""
    trace, tally = simulate(SCENARIOS[scenario].scaled(SCALE), POLICIES[policy], CLIENTS, 3)
    failed = sum(not call.succeeded for call in trace.ended)
    assert len(trace.ended) == trace.calls == sum(trace.arrivals)
    assert sum(call.sends for call in trace.ended) == sum(trace.sends) == trace.answers + trace.timeouts
    assert sum(trace.goodput) == trace.calls - failed
    assert max(call.ended - call.arrived for call in trace.ended) <= 60.0 + 0.01
    if policy == "ours":
        assert sum(tally["given_up"].values()) == failed


OUTAGE_SENDS = ("outage", "sends", 0.35)
SILENCE_SENDS = ("silence", "sends", 0.40)
BROWNOUT_SENDS = ("brownout30", "sends", 1.25)
LIMITED = ("ratelimit", "limited", 150)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("scenario", "name", "most"),
    [
        OUTAGE_SENDS,
        SILENCE_SENDS,
        ("silence", "fail50", 0.05),
        ("brownout10", "sends", 1.15),
        ("brownout10", "opened", 1),
        BROWNOUT_SENDS,
        ("pulse", "sends", 0.9),
        LIMITED,
        ("ratelimit", "first_second", 6.0),
        ("flapping", "sends", 1.2),
    ],
)
def test_no_more_than(scenario: str, name: str, most: float, seed: int) -> None:
    """What the default policy costs the gateway, and its users."""
    assert figure(scenario, "ours", name, seed) <= most


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("scenario", "name", "least"),
    [
        ("outage", "after", 0.88),
        ("silence", "after", 0.85),
        ("brownout10", "success", 0.985),
        ("brownout30", "success", 0.72),
        ("pulse", "after", 0.85),
        ("ratelimit", "success", 0.999),
        ("model_hangs", "others", 0.99),
        ("flapping", "after", 0.88),
    ],
)
def test_no_less_than(scenario: str, name: str, least: float, seed: int) -> None:
    """What the default policy keeps up, and how soon all is well again."""
    assert figure(scenario, "ours", name, seed) >= least


def test_the_budget_alone_ends_amplification() -> None:
    """Without a breaker, an outage costs what the tokens at its start allow."""
    assert figure("outage", "budget_only", "sends") <= 1.10


@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ("ours_without_breaker", OUTAGE_SENDS),
        ("ours_without_breaker", SILENCE_SENDS),
        ("ours_without_budget", BROWNOUT_SENDS),
        ("gate_only", ("outage", "sends", 1.10)),
        ("ours_without_gate", LIMITED),
    ],
)
def test_a_bound_is_broken_without_its_part(policy: str, bound: tuple[str, str, float]) -> None:
    """The bounds above can fail: each does when the part that keeps it is switched off."""
    scenario, name, most = bound
    assert figure(scenario, policy, name) > most


@pytest.mark.parametrize("policy", ["naive3", "exponential", "full_jitter", "openai", "gate_only"])
def test_retries_without_a_budget_never_end(policy: str) -> None:
    """The model shows the illness: a pulse of 30 s, and nobody is served from then on."""
    assert figure("pulse", policy, "after") < 0.05
    assert figure("pulse", policy, "recovery") == NEVER


def test_a_provider_can_say_what_is_left() -> None:
    """With quota headers on good answers the engine works as well as without."""
    changes = (("quota", True),)
    figures = run(Job("ratelimit", "ours", CLIENTS, 1, changes, SCALE))["figures"]
    assert figures["success"] >= 0.999
    assert figures["limited"] <= LIMITED[2]


@pytest.mark.parametrize(
    ("goodput", "expected"),
    [
        ([100] * 60, 0),
        ([0] * 7 + [100] * 53, 7),
        ([94] * 7 + [100] * 53, 3),
        ([100] * 17 + [0] * 43, NEVER),
        ([0] * 60, NEVER),
    ],
)
def test_recovery(goodput: list[int], expected: float) -> None:
    """A stretch is healthy from 95 % on, and only what lasts is a recovery."""
    trace = Trace(60)
    trace.arrivals = [100] * 60
    trace.goodput = goodput
    assert recovery(trace, 0, 60) == expected


def test_figures_of_calls_in_the_fault() -> None:
    """Sends and success are those of the calls made while the fault was on."""
    scenario = SCENARIOS["outage"].scaled(SCALE)
    trace, _ = simulate(scenario, POLICIES["none"], CLIENTS, 1)
    figures = measure(scenario, trace)
    assert (figures["sends"], figures["success"], figures["limited"]) == (1.0, 0.0, None)


def test_what_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The command prints a table, and writes results that hold nothing of the machine, and plots."""
    file = tmp_path / "results.json"
    arguments = "--scenario model_hangs --policy none ours --clients 4 --seeds 2 --why --set load=4 slots=20"
    cli.main([*arguments.split(), "--json", str(file), "--svg", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| none " in printed
    assert "ours 4 opened: " in printed
    rows = json.loads(file.read_text())["rows"]
    assert [(row["policy"], row["seeds"]) for row in rows] == [("none", [1, 2]), ("ours", [1, 2])]
    plots = {path.name: ET.parse(path).getroot() for path in tmp_path.glob("*.svg")}
    assert sorted(plots) == ["goodput-model_hangs.svg", "sends-model_hangs.svg"]
    assert len(plots["goodput-model_hangs.svg"].findall("{*}polyline")) == 2  # the load, and ours


def test_medians() -> None:
    """A summary holds the median, the least and the greatest over the seeds, and can say never."""
    runs = [result("pulse", "naive3", seed) for seed in (1, 2)]
    (summary,) = summarise(runs)
    sends = sorted(run["figures"]["sends"] for run in runs)
    assert summary["figures"]["sends"] == [sum(sends) / 2, *sends]
    assert document([summary])["rows"][0]["figures"]["recovery"] == ["never"] * 3


# ---- the record ------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[1] / "docs"
RECORD = read(json.loads((DOCS / "overload.json").read_text(encoding="utf-8")))
"""What the whole simulation gave when it was last run, over five seeds; ``docs/overload.md`` shows it."""


def recorded(scenario: str, policy: str = "ours", clients: int = 200) -> dict[str, list[float] | None]:
    """The figures of one row: median, least, greatest."""
    (row,) = (
        row
        for row in RECORD
        if (row["scenario"], row["policy"], row["clients"]) == (scenario, policy, clients)
    )
    assert row["seeds"] == [1, 2, 3, 4, 5]
    return dict(row["figures"])


@pytest.mark.parametrize(
    ("scenario", "figure", "least", "most", "policy"),
    [
        ("outage", "sends", 0.0, 0.25, "ours"),
        ("outage", "sends", 1.0, 1.1, "budget_only"),
        ("outage", "recovery", 0.0, 8.0, "ours"),
        ("silence", "sends", 0.0, 0.3, "ours"),
        ("silence", "recovery", 0.0, 10.0, "ours"),
        ("pulse", "after", 0.94, 2.0, "ours"),
        ("ratelimit", "first_second", 0.0, 5.0, "ours"),
        ("ratelimit", "limited", 0.0, 1100.0, "ours"),
        ("brownout10", "success", 0.999, 1.0, "ours"),
        ("brownout10", "sends", 1.0, 1.12, "ours"),
        ("brownout30", "success", 0.82, 1.0, "ours"),
        ("brownout30", "sends", 1.0, 1.2, "ours"),
        ("brownout30_server", "success", 0.82, 1.0, "ours"),
        ("brownout30_server", "sends", 1.0, 1.2, "ours"),
        ("model_hangs", "others", 0.99, 1.0, "ours"),
    ],
)
def test_what_is_promised_was_seen(
    scenario: str, figure: str, least: float, most: float, policy: str
) -> None:
    """Medians of five seeds at 200 clients."""
    values = recorded(scenario, policy)[figure]

    assert values is not None
    assert least <= values[0] <= most


def test_the_page_shows_the_record() -> None:
    """Every table on it is the one that the results make."""
    page = (DOCS / "overload.md").read_text(encoding="utf-8")

    assert with_tables(page, RECORD) == page
    assert {f"<!-- {row['scenario']} -->" for row in RECORD} <= set(page.splitlines())
    assert all((DOCS / path).is_file() for path in re.findall(r"!\[\]\(([^)]+)\)", page))
