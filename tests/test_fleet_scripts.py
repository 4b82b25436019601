"""The server's half: each script, run on a real server at a time of the test's choosing."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience
from gip_resilience._fleet_names import Names
from gip_resilience._redis_asking import load_scripts
from servers import BINARIES, Server
from stores import Timed

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = Names("scripts")


@pytest.fixture(scope="module", params=BINARIES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One for all of this."""
    with Server(request.param) as server:
        yield server


class Table:
    """A scope of its own on the server, and what nodes say about it."""

    tags = count(1)

    def __init__(self, server: Server) -> None:
        self.tag = f"{next(self.tags):016x}"
        self.now = 1000.0
        self.client = server.client()
        self.scripts = Timed(lambda: self.now)

    def run(self, script: str, kinds: tuple[str, ...], *args: Any) -> Any:
        """One run."""
        keys = [NAMES.key(self.tag, kind) for kind in kinds]
        return self.client.eval(self.scripts[script].text, len(keys), *keys, NAMES.channel, self.tag, *args)

    def count(
        self, node: str = "a", calls: int = 0, failures: int = 0, failing: int | None = None, **options: Any
    ) -> tuple[bool, str]:
        """Calls of a node. Returns whether the circuit is open, and why."""
        failing = int(failures * 2 >= calls > 0) if failing is None else failing
        settings = {"width": 1000, "parts": 10, "least": 20, "ratio": 500, "nodes": 2, "open": 5000} | options
        reply = self.run(
            "count", ("circuit", "window"), node, "h", "m", calls, failures, failing, *settings.values()
        )
        return bool(reply[0]), reply[3].decode()

    def open(self, why: str, length: int = 5000, detail: str = "", node: str = "a") -> Any:
        """An order, a probe's failure, or a reminder."""
        return self.run("open", ("circuit", "window", "probe"), node, "h", "m", why, length, detail)

    def probe(self, version: Any, node: str = "a", lease: int = 5000) -> tuple[int, int]:
        """Ask for the probe: the answer, and how long to wait."""
        reply = self.run("probe", ("circuit", "probe"), node, "h", "m", version, lease)
        return reply[4], reply[5]

    def close(self, version: Any) -> Any:
        """A probe succeeded."""
        return self.run("close", ("circuit", "window", "probe"), version)

    def gate(self, length: int = 0, claimed: int = 0, most: int = 120_000) -> list[int]:
        """Ask, or close."""
        reply: list[int] = self.run("gate", ("gate",), "a", "h", "m", length, claimed, most)
        return reply

    def budget(self, want: int, brought: int = 0, most: int = 50_000) -> list[int]:
        """Take, and bring."""
        keys = [NAMES.key(self.tag, "budget")]
        text = self.scripts["budget"].text
        reply: list[int] = self.client.eval(text, 1, *keys, "h", "m", most, brought, want, 60_000)
        return reply

    def ttl(self, kind: str) -> int:
        """Milliseconds that a record lives."""
        left: int = self.client.pttl(NAMES.key(self.tag, kind))
        return left


@pytest.fixture
def table(server: Server) -> Iterator[Table]:
    """With nothing on it."""
    table = Table(server)
    yield table
    table.client.close()


# ---- sums ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "is_open"),
    [
        ([("a", 20, 20)], False),  # one node is no quorum
        ([("a", 10, 5), ("b", 10, 5)], True),
        ([("a", 10, 5), ("b", 9, 5)], False),  # too few calls
        ([("a", 10, 4), ("b", 10, 5)], False),  # a failure short of half
        ([("a", 10, 10), ("b", 20, 0)], False),  # one fails, one does well
        ([("a", 50, 50), ("b", 51, 0), ("c", 2, 1)], False),  # 51 of 103
        ([("a", 50, 50), ("b", 50, 0), ("c", 2, 1)], True),
        ([(f"n{number}", 3, 2) for number in range(7)], True),
    ],
    ids=str,
)
def test_what_opens_a_circuit(table: Table, said: list[tuple[str, int, int]], is_open: bool) -> None:
    """Half of at least twenty calls, and two nodes that fail on the whole."""
    opened = [table.count(*one)[0] for one in said]

    assert opened[-1] is is_open
    assert opened[:-1] == [False] * (len(said) - 1)


def test_a_node_that_does_well_again_no_longer_counts(table: Table) -> None:
    """The quorum is of those who fail now."""
    table.count("a", 5, 5)
    table.count("a", 20, 0, failing=0)

    assert table.count("b", 30, 30) == (False, "")
    assert table.count("c", 1, 1) == (True, "ratio")


def test_the_window_slides(table: Table) -> None:
    """What is older than its length does not count, and is not kept."""
    table.count("a", 10, 10)
    table.now += 10.0
    assert table.count("b", 10, 10) == (False, "")
    assert table.count("c", 10, 10) == (True, "ratio")

    table.now += 100.0
    fresh = Table.__new__(Table)
    fresh.__dict__ = table.__dict__ | {"tag": table.tag[::-1]}
    for second in range(50):
        fresh.now = 2000.0 + second
        fresh.count("a", 1, 0)
    assert fresh.client.hlen(NAMES.key(fresh.tag, "window")) <= 11


def test_the_record_of_nodes_is_bounded(table: Table) -> None:
    """A few names are enough to know that there is more than one."""
    for number in range(1000):
        table.count(f"n{number}", 1, 1, least=10**6)

    assert table.client.hlen(NAMES.key(table.tag, "window")) <= 18


def test_an_open_circuit_counts_nothing(table: Table) -> None:
    """Its window begins anew when it closes."""
    version = table.open("trip")[1]
    assert table.count("a", 100, 100) == (True, "trip")
    assert table.ttl("window") == -2
    table.close(version)
    assert table.count("b", 10, 10) == (False, "trip")


def test_a_server_whose_clock_is_set_back(table: Table) -> None:
    """What is from the future is thrown away; nothing is open for longer than it was to be."""
    table.count("a", 100, 100)
    table.gate(30_000, 30_000)
    table.open("trip", 5000)
    table.now -= 500.0

    assert table.gate()[0] == 30_000
    reply = table.run("count", ("circuit", "window"), "a", "h", "m", 0, 0, 0, 1000, 10, 20, 500, 2, 5000)
    assert reply[2] == 5000
    version = int(reply[1])
    assert int(table.open("trip", 20_000)[1]) == version + 1


# ---- orders, probes ----------------------------------------------------------------------------------------------


def test_an_order_of_many_is_published_once(table: Table) -> None:
    """Eight processes find out at the same time: not everybody is told by each."""
    versions = {table.open("trip", 5000, node=f"n{number}")[1] for number in range(8)}

    assert len(versions) == 1
    assert table.open("trip", 7000)[1] not in versions


def test_versions_only_grow(table: Table) -> None:
    """Also when the record was forgotten in between."""
    versions = []
    for _ in range(5):
        versions.append(int(table.open("trip")[1]))
        versions.append(int(table.close(str(versions[-1]))[1]))
        table.now += 0.001
    table.client.delete(NAMES.key(table.tag, "circuit"))
    table.now += 1.0
    versions.append(int(table.open("trip")[1]))

    assert versions == sorted(set(versions))


def test_one_node_at_a_time_probes(table: Table) -> None:
    """The same node may ask again; the others wait for its lease."""
    version = table.open("trip", 5000)[1]
    assert table.probe(version)[0] == -1
    table.now += 5.0

    assert table.probe(version, "a") == (1, 5000)
    assert table.probe(version, "a") == (1, 5000)
    answer, wait = table.probe(version, "b")
    assert answer == 0
    assert 0 < wait <= 5000
    assert table.run("release", ("probe",), "b") == 0
    assert table.run("release", ("probe",), "a") == 1
    assert table.probe(version, "b") == (1, 5000)


@pytest.mark.parametrize("late", ["close", "open"])
def test_a_late_verdict_is_dropped(table: Table, late: str) -> None:
    """It is about a version that is over."""
    version = table.open("trip", 5000)[1]
    table.now += 5.0
    table.probe(version)
    newer = table.open("trip", 9000, node="b")[1]

    reply = table.close(version) if late == "close" else table.open("probe", 60_000, version)
    assert (reply[0], reply[1], reply[2]) == (1, newer, 9000)


def test_only_the_holders_failure_counts(table: Table) -> None:
    """A probe whose lease ran out, and was given to another, is over."""
    version = table.open("trip", 5000)[1]
    table.now += 5.0
    table.probe(version, "b")

    assert table.open("probe", 60_000, version, node="a")[2] == 0
    assert table.open("probe", 7000, version, node="b")[2] == 7000
    assert table.ttl("probe") == -2


def test_a_reminder_overrules_nothing(table: Table) -> None:
    """It stands in for a record that was lost."""
    version = table.open("trip", 5000)[1]
    closed = table.close(version)[1]
    assert table.open("kept", 60_000, "trip")[1] == closed

    table.client.delete(NAMES.key(table.tag, "circuit"))
    reply = table.open("kept", 3000, "ratio")
    assert (reply[0], reply[2], reply[3]) == (1, 3000, b"ratio")


def test_who_asks_for_the_probe_of_a_lost_record_stands_in_for_it(table: Table) -> None:
    """So that the next one is refused, and the verdict has a version."""
    assert table.probe(17)[0] == 1
    assert table.count("b", 0, 0) == (True, "trip")
    assert table.probe(0, "b")[0] == -1


# ---- gates, budgets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "left"),
    [
        ((5000, 5000), (1000, 1000), 5000),
        ((5000, 5000), (5040, 5040), 5000),  # no news
        ((5000, 5000), (9000, 9000), 9000),
        ((5000, 5000), (10**12, 10**12), 120_000),
        ((5000, 5000), (-7, -7), 5000),
        ((0, 0), (0, 0), 0),
    ],
)
def test_a_gate_only_gets_longer(
    table: Table, first: tuple[int, int], then: tuple[int, int], left: int
) -> None:
    """And never longer than is allowed."""
    table.gate(*first)

    assert table.gate(*then)[0] == left
    assert table.gate()[0] == left
    assert -2 <= table.ttl("gate") <= 120_000


def test_a_gate_opens_by_itself(table: Table) -> None:
    """When its time is over."""
    table.gate(5000, 8000)
    table.now += 4.0
    assert table.gate() == [1000, 4000]
    table.now += 1.0
    assert table.gate()[0] == 0


def test_a_gate_that_an_operator_opened(table: Table) -> None:
    """Whoever asks is told; a new 429 closes it like any other."""
    table.gate(60_000, 60_000)
    table.run("reset", ("gate",))
    assert table.gate() == [0, -1]
    assert table.gate(3000, 3000) == [3000, 3000]
    assert table.gate() == [3000, 3000]


def test_a_budget(table: Table) -> None:
    """Full at first; what is brought fills it up to the brim."""
    assert table.budget(5000) == [5000, 45_000]
    assert table.budget(60_000) == [45_000, 0]
    assert table.budget(5000) == [0, 0]
    assert table.budget(5000, brought=2000) == [2000, 0]
    assert table.budget(0, brought=10**15) == [0, 50_000]


# ---- all of them -----------------------------------------------------------------------------------------------


JUNK = ["", "x", "nan", "inf", "-inf", "1e400", "-1", "0x10", "9" * 40]


@pytest.mark.parametrize("script", sorted(load_scripts()))
@pytest.mark.parametrize("junk", JUNK)
def test_no_argument_breaks_a_script(table: Table, script: str, junk: str) -> None:
    """Numbers are bounded, whatever comes: the server runs it, and what is left has an end."""
    kinds = {
        "count": ("circuit", "window"),
        "open": ("circuit", "window", "probe"),
        "close": ("circuit", "window", "probe"),
        "probe": ("circuit", "probe"),
        "release": ("probe",),
        "gate": ("gate",),
        "budget": ("budget",),
        "hello": ("node",),
        "reset": ("circuit", "window", "probe"),
    }[script]
    keys = [NAMES.key(table.tag, kind) for kind in kinds]
    table.client.eval(table.scripts[script].text, len(keys), *keys, *[junk] * 14)

    assert all(table.client.pttl(key) != -1 for key in keys)


@pytest.mark.parametrize("script", sorted(load_scripts()))
def test_a_script_says_what_it_takes(script: str) -> None:
    """Its first lines name its keys."""
    text = (Path(gip_resilience.__file__).parent / "lua" / f"{script}.lua").read_text("utf-8")

    assert re.search(r"^-- KEYS: ", text, re.MULTILINE)
    assert re.search(r"^-- ARGV: ", text, re.MULTILINE)
