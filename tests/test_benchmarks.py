"""The benches: how they measure, what is made of it, the check of instruction counts, and that each bench runs."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import counting, instructions, plots, report, rivals, running
from benchmarks.decoding import _run as decoding_run
from benchmarks.events import EVENT, chat, opened, pieces
from benchmarks.measuring import Effort, Found, Row, Spread, compare, rows
from benchmarks.targets import RIVALS, TARGETS, Outcome, Target, measured, outcomes

from gip_resilience.streams import CHAT

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[1]
TINY = Effort(rounds=2, seconds=0.0, scale=0.01)


# ---- how it is measured --------------------------------------------------------------------------------------


def test_a_spread_is_a_median_and_its_quartiles() -> None:
    """In the unit that is asked for; of one value it is that value."""
    assert Spread.of([5, 1, 2, 4, 3], 10) == (30, 20, 40)
    assert Spread.of([7]) == (7, 7, 7)


def test_a_ratio_is_a_median_of_ratios() -> None:
    """Round by round, so that what slows a whole round down is in none of them; a ratio of medians would be 5.5."""
    base, other = rows("s", {"bare": [1, 10, 100], "ours": [2, 20, 100]}, unit="B")

    assert base == Row("s", "bare", Spread(10, 5.5, 55), "B")
    assert other.ratio == Spread(2, 1.5, 2)


def test_cases_take_turns_and_each_goes_first() -> None:
    """A, B; B, A: who goes first changes, and a warm-up is not counted."""
    order: list[str] = []

    def noting(name: str, seconds: float) -> Callable[[int], float]:
        def run(times: int) -> float:
            order.append(f"{name}{times}")
            return seconds * times

        return run

    bare, ours = compare("s", {"bare": noting("a", 1e-6), "ours": noting("b", 3e-6)}, Effort(3, 60.0), 8)

    assert order == ["a2", "b2", "a8", "b8", "b8", "a8", "a8", "b8"]
    assert bare.value.middle == pytest.approx(1.0)
    assert ours.ratio is not None
    assert ours.ratio.middle == pytest.approx(3.0)


def test_a_comparison_is_content_with_fewer_rounds_when_time_is_up() -> None:
    """But not with fewer than five."""
    runs = count()

    def run(times: int) -> float:
        next(runs)
        return 1.0 * times

    compare("s", {"bare": run}, Effort(rounds=50, seconds=0.0), 1)

    assert next(runs) == 1 + 5


def test_a_decoder_that_loses_events_is_not_measured() -> None:
    """What is fast because it does less is no rival."""
    with pytest.raises(AssertionError, match="2 events of 3"):
        decoding_run(lambda _: 2, [b""], 3)(3)


def test_the_events_are_events_of_a_chat_that_is_guarded() -> None:
    """What is fed to our wrapper is looked at, and handed up."""
    splice = opened()

    assert splice.feed(EVENT) == EVENT
    assert splice.guarded
    assert splice.events == 3
    assert CHAT.marker in chat(1)
    assert b"".join(pieces(chat(3), 7)) == chat(3)


def test_rivals_that_cannot_take_part_are_named_with_the_reason() -> None:
    """One that is not installed, and one that does not fit."""

    def absent() -> Any:
        raise ImportError(name="absent")

    def unfit() -> Any:
        raise rivals.Unfit("it knows no asyncio")

    skipped: dict[str, str] = {}

    assert rivals.fitting({"a": absent, "b": unfit, "c": lambda: 1}, skipped, "here") == {"c": 1}
    assert skipped == {"a": "not installed (absent)", "b, here": "it knows no asyncio"}


# ---- each bench runs -----------------------------------------------------------------------------------------


PROCESSES = {"storing", "starting", "counting"}
"""Benches that are processes of some seconds, whatever the scale."""


@pytest.mark.parametrize("name", [name for name in running.BENCHES if name not in PROCESSES])
def test_a_bench_runs(name: str) -> None:
    """With hardly any work: it measures something of ours, and says of everybody else why not."""
    found: Found = running.bench(name)(TINY)

    assert found.rows
    assert all(row.value.middle > 0 or row.unit in {"B", "ms"} for row in found.rows)
    assert all(found.skipped.values())
    assert running.packed(found, 1.0)["rows"]


def test_the_command_runs_a_bench_and_writes_what_it_found(tmp_path: Path) -> None:
    """``python -m benchmarks NAME --result FILE``."""
    result = tmp_path / "deep" / "result.json"
    arguments = ["reading", "--rounds", "2", "--seconds", "0", "--scale", "0.01", "--result", str(result)]

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=PROJECT,
        env={"PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert done.returncode == 0, done.stderr
    assert "hint: Retry-After" in done.stdout
    written = json.loads(result.read_text())
    assert written["benches"]["reading"]["rows"][0]["unit"] == "µs"
    assert written["versions"]["httpx2"]
    assert sorted(written["machine"]) == ["compiler", "cores", "load", "processor", "python", "system"]


def test_a_result_is_written_with_a_spread_on_a_line() -> None:
    """A diff of two results can be read; and it is what it was."""
    found = result(ratio("ours", -1e-9), Row("s", "one", Spread(1, 2.5, 1e20)))

    text = running.written(found)

    assert '"value": [1.0, 2.5, 1e+20]' in text
    assert json.loads(text) == found


def test_an_unknown_bench_is_refused() -> None:
    """With the names of those there are."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nonsense"],
        cwd=PROJECT,
        env={"PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert done.returncode == 2
    assert "no bench is called nonsense; there are starting, calls" in done.stderr


# ---- targets and the page ------------------------------------------------------------------------------------


def result(*found: Row, bench: str = "calls") -> dict[str, Any]:
    """A result file of one bench."""
    benches = {bench: running.packed(Found(list(found), {"rival": "not installed"}, ["A note."]), 1.5)}
    return running.document(benches, Effort()) | {"date": "2026-01-02", "versions": {"httpx2": "2"}}


def ratio(case: str, middle: float, subject: str = "httpx2", **more: Any) -> Row:
    """A row with a ratio, whose quartiles are a tenth off."""
    return Row(subject, case, Spread(50, 40, 60), ratio=Spread(middle, middle - 0.1, middle + 0.1), **more)


AT_MOST = Target("a call", 1.05, "calls", "httpx2")
AT_LEAST = Target("faster", 3.0, "calls", "httpx2", least=True, reverse=True)
BEST_RIVAL = Target("than rivals", 2.0, "calls", "httpx2", RIVALS, least=True)


@pytest.mark.parametrize(
    ("target", "found", "expected", "met"),
    [
        pytest.param(AT_MOST, [ratio("ours", 1.04)], 1.04, True, id="below"),
        pytest.param(AT_MOST, [ratio("ours", 1.05)], 1.05, True, id="just"),
        pytest.param(AT_MOST, [ratio("ours", 1.06)], 1.06, False, id="above"),
        pytest.param(AT_MOST, [ratio("ours", 1.01), ratio("ours", 1.2)], 1.2, False, id="the worst counts"),
        pytest.param(AT_MOST, [ratio("bare", 1.0)], None, False, id="not measured"),
        pytest.param(AT_MOST, [ratio("ours", 1.0, "httpx")], None, False, id="another subject"),
        pytest.param(AT_LEAST, [ratio("ours", 0.25)], 4.0, True, id="four times faster"),
        pytest.param(
            AT_LEAST, [ratio("ours", 0.25), ratio("ours", 0.5)], 2.0, False, id="the slowest counts"
        ),
        pytest.param(
            BEST_RIVAL, [ratio("ours", 9.0), ratio("a", 5.0), ratio("b", 1.5)], 1.5, False, id="the best"
        ),
        pytest.param(BEST_RIVAL, [ratio("ours, too", 1.0), ratio("a", 2.5)], 2.5, True, id="not our own"),
    ],
)
def test_a_target_is_judged_by_the_worst_of_its_rows(
    target: Target, found: list[Row], expected: float | None, met: bool
) -> None:
    """And what was not measured is missed."""
    what = measured(target, result(*found))

    assert (None if what is None else round(what[0], 6)) == expected
    assert Outcome(target, what).met is met


def test_a_target_within_the_quartiles_is_called_close() -> None:
    """Another run may say otherwise."""
    assert Outcome(AT_MOST, (1.04, 1.0, 1.1)).close
    assert not Outcome(AT_MOST, (1.01, 1.0, 1.02)).close
    assert not Outcome(AT_MOST, None).close


def test_a_ratio_turned_round_turns_its_quartiles() -> None:
    """The lower of the two is the lower one still."""
    what = measured(AT_LEAST, result(ratio("ours", 0.3)))

    assert what is not None
    middle, low, high = what
    assert low < middle < high


def test_every_target_is_of_a_bench_that_there_is() -> None:
    """A typing error would be a target that is never measured."""
    assert {target.bench for target in TARGETS} <= set(running.BENCHES)


def test_the_page_says_what_became_of_every_target() -> None:
    """What was measured, and pass or miss; rivals have rows of their own, and who is missing a reason."""
    found = result(
        Row("httpx2", "bare", Spread(50, 45, 55)),
        ratio("ours", 1.5),
        Row("httpx2", "tenacity", Spread(49, 40, 60), ratio=Spread(1.6, 1.5, 1.7)),
        Row("calls in flight", "ours", Spread(1, 1, 1), size=1000),
        Row("calls in flight", "ours", Spread(3, 1, 1), size=10_000),
    )

    page = report.text(found, "performance", report.draw(found))

    assert f"0 of {len(TARGETS)} met." in page
    missed = page.partition("## What is missed, and what it would take")[2].partition("\n## ")[0]
    assert all(target.what in missed for target in TARGETS if target.why)
    assert "Of 1 comparisons of time, ours takes less in 0." in page
    assert "- **tenacity** (a loop around the call" in page
    assert (
        "| a call of httpx2, in process, over bare | at most 1.05 | 1.500 (1.400 to 1.600) | **miss** |"
        in page
    )
    assert "| import, over bare Python | at most 20 ms | not measured | **miss** |" in page
    assert "|  | tenacity | 49.0 µs | 1.600 (1.500 to 1.700) |" in page
    assert "| calls in flight, 1,000 | ours | 1.000 µs |  |" in page
    assert "![calls-calls-in-flight](performance/calls-calls-in-flight.svg)" in page
    assert "- rival: not installed" in page
    assert "A note." in page


def test_the_command_writes_page_and_plots_and_removes_stale_ones(tmp_path: Path) -> None:
    """From the file alone."""
    (tmp_path / "result.json").write_text(json.dumps(result(ratio("bare", 1.0), ratio("ours", 1.5))))
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "old.svg").write_text("")

    report.write(tmp_path / "result.json", tmp_path / "page.md")

    assert [path.name for path in (tmp_path / "page").iterdir()] == ["calls-httpx2.svg"]
    assert "# Performance" in (tmp_path / "page.md").read_text()


def test_lines_are_drawn_by_powers_of_ten() -> None:
    """Equal factors are equal distances, on both axes."""
    picture = ET.fromstring(plots.lines("title <", {"ours": [(1, 1.0), (10, 10.0), (100, 100.0)]}, "ours"))
    line = next(part for part in picture.iter() if part.tag.endswith("polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    (x1, y1), (x2, y2), (x3, y3) = points

    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert x3 > x1
    assert y3 < y1
    assert line.attrib["stroke"] == plots.OURS


def test_bars_are_as_long_as_their_values() -> None:
    """And ours stands out."""
    picture = ET.fromstring(plots.bars("title", [("bare", 1.0), ("ours, mounted", 2.0)], "ours"))
    boxes = [part.attrib for part in picture.iter() if part.tag.endswith("rect")]

    assert float(boxes[1]["width"]) == pytest.approx(2 * float(boxes[0]["width"]), abs=0.2)
    assert [box["fill"] for box in boxes] == [plots.OTHERS, plots.OURS]


@pytest.mark.parametrize(
    ("value", "text"),
    [(12_345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.2345, "1.234"), (0.05, "0.050")],
)
def test_figures_have_the_digits_that_mean_something(value: float, text: str) -> None:
    """Three or four of them."""
    assert report.figure(value) == text


def test_the_page_in_docs_is_made_of_the_result_in_docs(tmp_path: Path) -> None:
    """Nobody has written in it, and it is of that run."""
    report.write(PROJECT / "docs/performance.json", tmp_path / "performance.md")

    assert (tmp_path / "performance.md").read_text() == (PROJECT / "docs/performance.md").read_text()
    made = {path.name: path.read_text() for path in (tmp_path / "performance").iterdir()}
    assert made == {path.name: path.read_text() for path in (PROJECT / "docs/performance").iterdir()}
    assert len(outcomes(json.loads((PROJECT / "docs/performance.json").read_text()))) == len(TARGETS)


# ---- instruction counts --------------------------------------------------------------------------------------


def test_a_count_is_the_difference_of_two_loops() -> None:
    """Start-up, warm-up and what surrounds the loops cancel; a call's count is less that of the bare client."""
    ran = [("call, bare", 10), ("call", 10), ("parse", 100)]
    #        before  warm  1x     3x     warm   1x     3x     warm  1x   3x
    dumps = [999_999, 50, 1_100, 3_100, 77_777, 3_500, 9_500, 5, 1_000, 2_000]

    assert instructions.costs(ran, dumps) == {"call, bare": 100.0, "call": 200.0, "parse": 5.0}


@pytest.mark.parametrize(
    ("recorded", "counted", "passed", "line"),
    [
        ({"a": 1000}, {"a": 1000}, True, "ok    a: 1,000 instructions, 1,000 recorded (+0.00%)"),
        ({"a": 1000}, {"a": 1050}, True, "ok    a: 1,050 instructions, 1,000 recorded (+5.00%)"),
        ({"a": 1000}, {"a": 1051}, False, "ROSE  a: 1,051 instructions, 1,000 recorded (+5.10%)"),
        ({"a": 1000}, {"a": 900}, True, "fell  a: 900 instructions, 1,000 recorded (-10.00%)"),
        ({}, {"a": 900}, False, "NEW   a: 900, not recorded (record anew)"),
        ({"a": 900}, {}, False, "GONE  a: recorded, and not counted any more (record anew)"),
    ],
)
def test_a_rise_of_more_than_5_percent_fails(
    recorded: dict[str, float], counted: dict[str, float], passed: bool, line: str
) -> None:
    """And a path that nobody recorded, or that is gone; a fall is said."""
    assert instructions.judge(recorded, counted) == (passed, [line])


def test_a_bare_client_is_not_ours_to_judge() -> None:
    """Another release of it may cost what it likes."""
    assert instructions.judge({"a, bare": 1}, {"a, bare": 99}) == (True, [])


def test_counts_are_rows_whose_ratio_is_to_the_bare_call() -> None:
    """Of what has no bare counterpart there is none."""
    bare, ours, other = counting.counted({"call, bare": 200.0, "call": 100.0, "hint": 5.0})

    assert (bare.case, bare.value.middle, bare.ratio) == ("bare", 200.0, None)
    assert (ours.case, ours.value.middle, ours.ratio) == ("ours", 300.0, Spread(1.5, 1.5, 1.5))
    assert (other.subject, other.value.middle, other.ratio) == ("hint", 5.0, None)


def test_repeated_counts_are_the_smallest_and_their_difference() -> None:
    """What is recorded of several runs."""
    counts, worst = instructions.repeated([{"a": 100.0, "b": 200.0}, {"a": 101.0, "b": 198.0}])

    assert counts == {"a": 100.0, "b": 198.0}
    assert worst == pytest.approx(2 / 198)


def test_a_dump_says_its_total() -> None:
    """The line that callgrind ends a part with; a dump without one is no zero."""
    assert instructions.total("events: Ir\nfn=(1)\n1 2\ntotals: 123\n") == 123
    with pytest.raises(ValueError, match="totals"):
        instructions.total("events: Ir\n")


def test_the_check_is_skipped_where_it_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without valgrind, and under a Python whose counts nobody recorded."""
    monkeypatch.setenv("PATH", "")
    assert instructions.check() == 0
    assert capsys.readouterr().out == "skipped: valgrind is not installed\n"

    (tmp_path / "valgrind").write_text("")
    (tmp_path / "valgrind").chmod(0o755)
    (tmp_path / "counts.json").write_text('{"3.9 abacus": {"counts": {}}}')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(instructions, "RECORDED", tmp_path / "counts.json")
    assert instructions.check() == 0
    said = capsys.readouterr().out
    assert said == f"skipped: this is {instructions.build()}, and counts are recorded for 3.9 abacus\n"


def test_the_check_fails_with_the_way_to_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What is recorded is compared with what is counted."""
    recorded = {instructions.build(): {"counts": {"call, httpx2": 100.0, "hint": 50.0}}}
    (tmp_path / "counts.json").write_text(json.dumps(recorded))
    monkeypatch.setattr(instructions, "RECORDED", tmp_path / "counts.json")
    monkeypatch.setattr(instructions.shutil, "which", lambda _: "/usr/bin/valgrind")
    monkeypatch.setattr(instructions, "count", lambda only: {"call, httpx2": 110.0})

    assert instructions.check(only="call") == 1
    assert "ROSE  call, httpx2" in capsys.readouterr().out


def test_all_paths_are_recorded() -> None:
    """A path that is added is recorded with it."""
    known = json.loads(instructions.RECORDED.read_text())

    for build, found in known.items():
        assert set(found["counts"]) == {way.name for way in instructions.ways()}, build
        assert found["repeats_within"] < 0.01, build


def test_every_path_runs_outside_of_valgrind(capsys: pytest.CaptureFixture[str]) -> None:
    """What is counted does what its name says, and marks are harmless."""
    instructions.run_counted("")

    ran = json.loads(capsys.readouterr().out)
    assert [name for name, _ in ran] == [way.name for way in instructions.ways()]
