"""The simulated fleet: its server does what a real one does, and sharing keeps its promises in it."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.fleet.runs import FAULTS, run
from benchmarks.fleet.server import Server as Virtual

from gip_resilience._fleet_names import Names
from gip_resilience._fleet_words import Question
from servers import BINARIES, Server
from stores import EPOCH, Timed

NAMES = Names("simulated")
CLIENTS = 20


class Dice:
    """Questions about one scope, drawn at random; they take the version that the last answer had."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._tag = f"{seed:016x}"
        self.version = "0"

    def _question(self, script: str, kinds: tuple[str, ...], *args: str | int) -> Question:
        keys = tuple(NAMES.key(self._tag, kind) for kind in kinds)
        return Question(script, self._tag, keys, args)

    def draw(self) -> Question:
        """One of all there are."""
        chance = self._chance
        who = (NAMES.channel, self._tag, chance.choice("abc"), "h", "m")
        calls = chance.randrange(12)
        failures = chance.randrange(calls + 1)
        all_three = ("circuit", "window", "probe")
        return chance.choice(
            [
                self._question(
                    "count",
                    all_three[:2],
                    *who,
                    calls,
                    failures,
                    int(2 * failures >= calls > 0),
                    1000,
                    10,
                    20,
                    500,
                    2,
                    3,
                ),
                self._question("open", all_three, *who, "trip", chance.choice([3, 5000]), ""),
                self._question("open", all_three, *who, "probe", 5, self.version),
                self._question("open", all_three, *who, "kept", 5000, "ratio"),
                self._question("close", all_three, *who[:2], self.version),
                self._question("probe", ("circuit", "probe"), *who, self.version, 60_000),
                self._question("release", ("probe",), *who[:3]),
                self._question("gate", ("gate",), *who, chance.choice([0, 0, 500, 90_000]), 700, 60_000),
                self._question("reset", ("gate",), *who[:2]),
                self._question("reset", all_three, *who[:2]),
                self._question("budget", ("budget",), "h", "m", 50_000, chance.randrange(3000), 5000, 60_000),
                self._question("hello", ("node",), "1", 60_000),
            ]
        )


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("seed", range(5))
def test_the_virtual_server_answers_as_a_real_one(binary: str, seed: int) -> None:
    """The same questions at the same moments get the same answers, and publish the same."""
    now = 1000.0
    published: list[bytes] = []
    virtual = Virtual(lambda: EPOCH + now, published.append)
    scripts = Timed(lambda: now)
    dice = Dice(seed)
    with Server(binary) as server, server.client() as client, client.pubsub() as listener:
        listener.subscribe(NAMES.channel)
        assert listener.get_message(timeout=5.0)
        for _ in range(300):
            question = dice.draw()
            mine = virtual.run(question)
            real = client.eval(
                scripts[question.script].text, len(question.keys), *question.keys, *question.args
            )
            if question.script == "probe" and isinstance(real, list) and real[4] == 0:
                assert isinstance(mine, list)
                assert 0 < real[5] <= 60_000  # its time goes on by itself
                mine[5] = real[5]
            if question.script == "reset" and len(question.keys) == 1:
                mine = real  # how many listeners there are
            assert mine == real, question
            if question.script in {"count", "open", "probe"} and isinstance(real, list):
                dice.version = real[1].decode()
            now += 0.001
        said = []
        while (message := listener.get_message(timeout=0.2)) is not None:
            said.append(message["data"])
        assert said == published
        assert published


@cache
def figures(scenario: str, *, shared: bool, away: bool = False, seed: int = 1) -> dict[str, Any]:
    """A small run; several tests look at the same ones."""
    fault = replace(FAULTS[scenario].scaled(0.1), start=15.0, length=30.0, after=30.0)
    return run(fault, CLIENTS, seed, shared=shared, away=away)


def test_same_seed_same_run() -> None:
    """But for the time it takes."""
    fault = replace(FAULTS["failing"].scaled(0.05), start=10.0, length=15.0, after=20.0)
    first, again, other = (run(fault, 5, seed, shared=True) | {"took": 0.0} for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_a_dead_model_is_found_out_once() -> None:
    """By one process for all: within a few milliseconds, with a few requests in all."""
    together, alone = figures("dead", shared=True), figures("dead", shared=False)

    assert together["everywhere"] < 0.2 < alone["everywhere"]
    assert together["sends"] < alone["sends"] / 4


def test_failures_are_found_out_sooner() -> None:
    """Where each process has too few calls to be sure."""
    together, alone = figures("failing", shared=True), figures("failing", shared=False)

    assert together["sends"] < alone["sends"]
    assert together["everywhere"] <= alone["everywhere"]


def test_a_brown_out_opens_no_more_than_it_does_alone() -> None:
    """A third of all calls fail: that is no reason to open, and sharing makes it none."""
    together, alone = figures("brownout30", shared=True), figures("brownout30", shared=False)

    assert together["success"] >= alone["success"] - 0.05
    assert together["opened"] <= alone["opened"] + 0.1


def test_a_rate_limit_is_learnt_once() -> None:
    """Fewer 429s, and no worse a herd when it resets."""
    together, alone = figures("ratelimit", shared=True), figures("ratelimit", shared=False)

    assert together["limited"] < alone["limited"] / 2
    assert together["first_second"] <= alone["first_second"] + 0.5


@pytest.mark.parametrize("scenario", ["dead", "failing", "ratelimit"])
def test_without_the_store_it_is_as_alone(scenario: str) -> None:
    """It dies a second into the fault and comes back empty twenty later: no worse than without it."""
    broken, alone = figures(scenario, shared=True, away=True), figures(scenario, shared=False)

    assert broken["success"] >= alone["success"] - 0.05
    assert broken["sends"] <= alone["sends"] * 1.2
    assert broken["recovery"] <= alone["recovery"] + 5.0


def test_what_the_store_has_to_do() -> None:
    """Two small pipelines a second and process while there are calls, and no storm of publications."""
    load = figures("dead", shared=True)

    assert load["scripts"] <= CLIENTS * 2 * 3 + 10
    assert load["published"] <= 40
