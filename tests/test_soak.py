"""The endurance run: a few seconds of it pass, one with planted leaks does not, and each of its checks can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak import checking, report
from soak.errands import CANCELLED, FORGOTTEN, Errands
from soak.guarding import Guard
from soak.history import History
from soak.ledger import Account, Ledger, plain, sums
from soak.results import Results
from soak.sampling import TRANSIENT, Sample
from soak.settings import Settings
from soak.weather import STORM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

PROJECT = Path(__file__).parents[1]
SETTINGS = Settings()
MARGIN = SETTINGS.deadline_margin
PEER = {"memory": 50 << 20, "blocks": 1, "threads": 3, "descriptors": 30, "connections": 20}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of the project, to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        timeout=50,
    )


# ---- the run itself ------------------------------------------------------------------------------------------


def test_a_short_run_passes_and_makes_a_page(tmp_path: Path) -> None:
    """A second of traffic of three populations, with a Valkey, and the report of it."""
    result, page = tmp_path / "soak.json", tmp_path / "page.md"

    done = run("-m", "soak", "run", "--seconds", "1", "--result", str(result))

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert found["status"] == "passed"
    assert found["problems"] == {}
    assert {name: sum(one["calls"].values()) > 20 for name, one in found["accounts"].items()} == {
        "alone": True,
        "node-1": True,
        "node-2": True,
    }
    report.write(result, page)
    assert "Everything held." in page.read_text()
    assert ET.parse(tmp_path / "page.svg").getroot().tag.endswith("svg")


def test_planted_leaks_are_named(tmp_path: Path) -> None:
    """A leaked file, thread and list, lost permits and miscounted calls: the exit code is 1, and each is told."""
    result = tmp_path / "soak.json"

    done = run("tests/soak_planted.py", str(result))

    assert done.returncode == 1, done.stdout + done.stderr
    problems = "\n".join(json.loads(result.read_text())["problems"])
    for words in (
        "open files besides pooled connections",
        "threads: ",
        "memory blocks grew",
        "builtins.list",
        "permits have not come back",
        "permits were given out",
        "state.Permit are alive",
        "a call was started 0 and ended 0 times",
        "calls were made and",
    ):
        assert words in problems, problems


# ---- checks of samples ---------------------------------------------------------------------------------------


def samples(count: int = 10, **changes: Callable[[int], Any]) -> list[Sample]:
    """Samples of a run that holds all the same, but for what *changes*, by the number of the sample."""
    found = []
    for number in range(count):
        sample = Sample(
            at=15.0 * number, memory=80 << 20, blocks=300_000, descriptors=31, threads=30, tasks=60
        )
        sample.pooled = sample.sockets = 20
        sample.accepted = 19
        sample.peer = dict(PEER)
        for name, change in changes.items():
            setattr(sample, name, change(number))
        found.append(sample)
    return found


def test_a_flat_run_has_no_problem() -> None:
    """What only breathes is no growth."""
    breathing = samples(40, blocks=lambda n: 300_000 + 2_000 * (n % 3), memory=lambda n: (80 + n % 2) << 20)

    assert checking.steady(breathing) == checking.flat(breathing, SETTINGS) == []
    assert [checking.at_rest(sample) for sample in breathing] == [[]] * 40


@pytest.mark.parametrize("name", checking.NOTHING)
def test_what_is_under_way_at_a_quiet_point(name: str) -> None:
    """One is one too many."""
    (problem,) = checking.at_rest(samples(1, **{name: lambda _: 1})[0])

    assert problem == f"1 {checking.NOTHING[name]}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sockets": 21}, "21 connections are open, and the clients know of 20"),
        ({"accepted": 22}, "the gateway has 22 connections open"),
        ({"objects": {TRANSIENT[0]: 2}}, f"2 {TRANSIENT[0]} are alive"),
        ({"peer": PEER | {"logged": {"it failed": 1}}}, "the gateway logged: it failed"),
    ],
)
def test_what_is_not_accounted_for_at_a_quiet_point(changes: dict[str, Any], words: str) -> None:
    """Connections that no pool holds, objects of a call, errors of the gateway."""
    (problem,) = checking.at_rest(samples(1, **{name: lambda _, v=v: v for name, v in changes.items()})[0])

    assert words in problem


@pytest.mark.parametrize("name", checking.STEADY)
def test_what_must_not_change(name: str) -> None:
    """One more at the last quiet point is told, with its numbers."""
    (problem,) = checking.steady(samples(10, **{name: lambda number: 5 + (number == 9)}))

    assert problem == f"{checking.STEADY[name]}: 5 at first, then 5 to 6, 6 at last"


def test_what_must_not_change_at_the_gateway() -> None:
    """Its threads and files, without its connections."""
    (problem,) = checking.steady(samples(3, peer=lambda n: PEER | {"threads": 3 + n}))

    assert "the gateway's threads and open files" in problem


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": lambda n: (80 + n) << 20}, "resident memory grew by 9.0 MiB (tolerated: 8)"),
        ({"blocks": lambda n: 300_000 + 1200 * n}, "memory blocks grew by 10800 (tolerated: 10000)"),
        ({"objects": lambda n: {"gate.Gate": 20 * n}}, "instances of gate.Gate grew by 180 (tolerated: 100)"),
        (
            {"peer": lambda n: PEER | {"memory": n << 20}},
            "the gateway's memory grew by 9.0 MiB (tolerated: 8)",
        ),
    ],
)
def test_growth(changes: dict[str, Any], words: str) -> None:
    """By the regression line over all samples."""
    (problem,) = checking.flat(samples(10, **changes), SETTINGS)

    assert problem.startswith(words)


def test_what_grew_is_named() -> None:
    """The types of which there are more, most first."""
    grown = samples(
        10, blocks=lambda n: 2000 * n, others=lambda n: {"builtins.list": 9 * n, "builtins.set": 7}
    )

    assert checking.flat(grown, SETTINGS)[0].endswith("; there are more of builtins.list (+81)")


def test_too_few_samples_prove_nothing() -> None:
    """A trend needs some."""
    assert checking.flat(samples(2), SETTINGS) == ["2 samples are too few to see a trend in"]


def test_slope_is_that_of_least_squares() -> None:
    """Of a known set of points."""
    assert checking.slope([(0, 1), (1, 3), (2, 2), (3, 6)]) == pytest.approx(1.4)


@pytest.mark.parametrize(
    ("account", "lag", "late"),
    [
        (Account(latest=MARGIN - 0.1, longest=29.0), 0.0, 0),
        (Account(latest=MARGIN + 0.1), 0.0, 1),
        (Account(latest=MARGIN + 1.9), 0.2, 0),
        (Account(latest=MARGIN + 2.1), 0.2, 1),
        (Account(longest=31.0), 0.5, 1),
    ],
)
def test_time(account: Account, lag: float, late: int) -> None:
    """A margin behind the deadline, and what the machine was late by; and a limit for every call."""
    assert len(checking.on_time(account, SETTINGS, lag)) == late


@pytest.mark.parametrize(
    ("permits", "problems"),
    [
        ({"granted": 5, "reported": 3, "abandoned": 2, "strays": 0}, 0),
        ({"granted": 6, "reported": 3, "abandoned": 2, "strays": 0}, 1),
        ({"granted": 5, "reported": 3, "abandoned": 2, "strays": 1}, 1),
    ],
)
def test_permits(permits: dict[str, int], problems: int) -> None:
    """Each comes back once."""
    assert len(checking.given_back("alone", permits)) == problems


def test_what_is_left_when_all_is_closed() -> None:
    """A thread more than before the beginning."""
    before, after = Sample(threads=2, descriptors=5), Sample(threads=3, descriptors=5)

    assert checking.left_over(before, after) == ["threads after the end: 3, before the beginning: 2"]
    assert checking.left_over(before, before) == []


# ---- checks of calls -----------------------------------------------------------------------------------------


def settled(sends: int, **changes: Any) -> Sequence[str]:
    """The problems of one call that went well, but for what *changes*; by what the gateway saw of it."""
    ledger = Ledger("alone", observed=True)
    note = ledger.open("answer read", door=False, deadline=changes.pop("deadline", None))
    values = {
        "seen": "success",
        "outcome": "success",
        "started": 1,
        "ended": [("ok", 200)],
        "begun": 1,
        "closed": 1,
    }
    for name, value in (values | changes).items():
        setattr(note, name, value)
    ledger.close(note)
    return ledger.settle({note.name: sends})[1]


TIMED_OUT = [("read_timeout", None)]


@pytest.mark.parametrize(
    ("sends", "changes"),
    [
        (1, {}),
        (2, {"started": 2, "ended": [("model_overloaded", 503), ("ok", 200)]}),
        (1, {"started": 2, "ended": [("connect_error", None), ("ok", 200)]}),
        (0, {"started": 0, "ended": [], "seen": "refused", "outcome": "refused"}),
        (0, {"ended": [], "seen": "cancelled", "outcome": "cancelled"}),
        (1, {"ended": [], "seen": "cancelled", "outcome": "cancelled"}),
        (0, {"deadline": 1.0, "ended": TIMED_OUT, "seen": "failure", "outcome": "failure"}),
        (1, {"seen": "cancelled", "outcome": "failure"}),
        (0, {"ended": [("write_timeout", None)], "seen": "failure", "outcome": "failure"}),
    ],
)
def test_calls_that_agree(sends: int, changes: dict[str, Any]) -> None:
    """What was cut off with a request on its way may have been seen, or not."""
    assert settled(sends, **changes) == []


@pytest.mark.parametrize(
    ("sends", "changes", "words"),
    [
        (2, {}, "1 requests were sent (ok), 2 were seen"),
        (0, {}, "1 requests were sent (ok), 0 were seen"),
        (1, {"ended": []}, "1 requests were sent (), 1 were seen"),
        (0, {"ended": TIMED_OUT, "seen": "failure", "outcome": "failure"}, "0 were seen"),
        (2, {"ended": [], "seen": "cancelled", "outcome": "cancelled"}, "between 0 and 1 requests were sent"),
        (1, {"seen": "failure"}, "its caller saw failure, and it was counted as success"),
        (1, {"closed": 0}, "a call was started 1 and ended 0 times"),
        (1, {"closed": 2}, "a call was started 1 and ended 2 times"),
    ],
)
def test_calls_that_do_not_agree(sends: int, changes: dict[str, Any], words: str) -> None:
    """The gateway, the caller and the library must tell the same story."""
    (problem,) = settled(sends, **changes)

    assert words in problem


def test_requests_that_nobody_sent() -> None:
    """The gateway saw a call that no caller made."""
    assert Ledger("alone", observed=True).settle({"alone-7": 1})[1] == [
        "alone: requests were seen of calls that nobody made: 1"
    ]


def test_sums() -> None:
    """Without events: what callers saw against what was counted."""
    seen = Account(calls=Counter(success=5, failure=2, cancelled=1))
    counted = {"success": 5, "failure": 2, "refused": 0, "cancelled": 1}

    assert sums(seen, counted) == []
    assert sums(seen, counted | {"failure": 3, "cancelled": 0}) == []  # cancelled with an answer in hand
    assert sums(seen, counted | {"success": 6}) == [
        "8 calls were made and 9 counted",
        "5 calls ended in success, and 6 were counted",
    ]


# ---- what goes wrong behind everybody's back -----------------------------------------------------------------


HEARD = """
import sys, threading, warnings
from soak.guarding import Guard

class Bad:
    def __del__(self):
        raise ValueError("in a finaliser")

def fail():
    raise KeyError("in a thread")

with Guard() as guard:
    Bad()
    open("/dev/null")
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    warnings.warn("Async generator 'httpx._models.Response.aiter_raw' was dropped", ResourceWarning)
    import asyncio
    async def forget():
        asyncio.get_running_loop().call_exception_handler({"message": "Task was destroyed but it is pending!"})
    asyncio.run(forget())
    print(*guard.problems(), guard.theirs, sep="\\n")
"""


def test_what_nobody_sees_is_heard() -> None:
    """Unraisable errors, threads that die, warnings, what asyncio logs; others' generators are only counted."""
    told = run("-c", HEARD).stdout

    for words in (
        "unraisable ValueError: in a finaliser",
        "thread worker ended in KeyError",
        "ResourceWarning: unclosed file",
        "asyncio: Task was destroyed",
    ):
        assert words in told
    assert told.splitlines()[-1] == "1"


def test_the_guard_puts_back_what_it_found() -> None:
    """Its hooks are gone after it."""
    before = sys.unraisablehook
    with Guard():
        assert sys.unraisablehook is not before
    assert sys.unraisablehook is before


# ---- weather, errands, results -------------------------------------------------------------------------------


def test_every_kind_of_reply_is_in_the_weather() -> None:
    """Nothing that the gateway can do is left out, but what comes before a request."""
    from gip_resilience.gateway import Reply

    inside = {type(rule.reply) for rule in STORM.rules}

    assert inside == set(Reply.__args__)  # type: ignore[attr-defined]  # a union


def test_errands_are_the_same_for_the_same_seed() -> None:
    """And an awaiting caller is cancelled where a blocking one forgets."""
    import random

    def drawn(*, awaiting: bool) -> list[Any]:
        source = Errands(random.Random(1), awaiting=awaiting, name="x")
        return [source.next() for _ in range(2000)]

    assert drawn(awaiting=True) == drawn(awaiting=True)
    for awaiting, has, has_not in ((True, CANCELLED, FORGOTTEN), (False, FORGOTTEN, CANCELLED)):
        treatments = {one.treatment for one in drawn(awaiting=awaiting)}
        assert has in treatments
        assert has_not not in treatments


def test_samples_come_back_as_they_were() -> None:
    """Kept in columns, with types that appear later, and names of the first that counts and of the last only."""
    history = History(1)
    made = samples(4, objects=lambda n: {"a": 1} | ({"b": n} if n > 1 else {}), others=lambda n: {"x": n})
    for sample in made:
        history.add(sample)

    found = history.counted()
    assert [one.objects for one in found] == [{"a": 1, "b": 0}, {"a": 1, "b": 2}, {"a": 1, "b": 3}]
    assert [one.others for one in found] == [{"x": 1}, {}, {"x": 3}]
    assert [(one.at, one.blocks, one.peer) for one in found] == [
        (one.at, one.blocks, PEER) for one in made[1:]
    ]


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_page_of_a_run_that_was_cut_off(status: str, count: int, tmp_path: Path) -> None:
    """Whatever is there is shown, with what it is, and with what did not hold."""
    history = History(1)
    for sample in samples(count):
        history.add(sample)
    Results(tmp_path / "soak.json", SETTINGS, {"python": "3"}).write(
        status,
        history,
        accounts={"alone": plain(Account(calls=Counter(success=3)))},
        permits={"alone": dict.fromkeys(("granted", "reported", "abandoned", "out"), 0)},
        metrics={
            "alone": {"retries": 0, "opened": 0, "gates": 0, "streams": {}, "degraded": {}, "restored": {}}
        },
        replies={"ok": 3},
        problems={"it leaks": 2},
        traffic=1.0,
        store={"kills": 0, "freezes": 0},
        theirs=0,
    )

    report.write(tmp_path / "soak.json", tmp_path / "soak.md")

    page = (tmp_path / "soak.md").read_text()
    assert report.STATUS[status] in page
    assert "- it leaks (2 ×)" in page
    ET.parse(tmp_path / "soak.svg")
