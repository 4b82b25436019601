"""The rate-limit gate as a machine: time and chance are arguments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gip_resilience.config import GateConfig
from gip_resilience.gate import Gate, Held

NOW = 1000.0


def gate(**changes: Any) -> Gate:
    """A gate that nobody has closed."""
    return Gate(GateConfig(**changes))


def closed(hint: float | None, **changes: Any) -> Gate:
    """A gate that one answer closed at NOW."""
    machine = gate(**changes)
    assert machine.close(NOW, hint, machine.generation)
    return machine


def test_an_open_gate_holds_nobody() -> None:
    """Not at the start, and not from the moment the limit resets."""
    assert gate().enter(NOW, 0.9) is None
    assert closed(10.0).enter(NOW + 10.0, 0.9) is None


@pytest.mark.parametrize(
    ("after", "chance", "seconds"),
    [(0.0, 0.0, 10.0), (0.0, 0.5, 12.5), (4.0, 0.0, 6.0), (4.0, 0.999, 10.995), (9.5, 0.2, 1.5)],
)
def test_callers_are_released_over_half_the_wait(after: float, chance: float, seconds: float) -> None:
    """What is left, and a random share of half of how long the gate is closed; never less than what is left."""
    held = closed(10.0).enter(NOW + after, chance)

    assert held == Held(pytest.approx(seconds), pytest.approx(10.0 - after), patient=True)


@pytest.mark.parametrize(("spread", "seconds"), [(0.0, 10.0), (1.0, 15.0), (3.0, 25.0)])
def test_the_spread_is_a_setting(spread: float, seconds: float) -> None:
    """Zero releases everybody at the exact moment."""
    held = closed(10.0, spread=spread).enter(NOW, 0.5)

    assert held is not None
    assert held.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [(10.0, 4.0, 10.0), (10.0, 30.0, 30.0), (10.0, 0.0, 10.0), (10.0, -5.0, 10.0), (10.0, 10.0, 10.0)],
)
def test_of_two_answers_the_longer_wait_counts(first: float, second: float, left: float) -> None:
    """Answers overtake each other; the gate only ever closes for longer."""
    machine = closed(first)

    machine.close(NOW, second, 0)

    assert machine.remaining(NOW) == left


def test_a_hint_of_milliseconds_closes_for_milliseconds() -> None:
    """There is no floor: some gateways mean it."""
    machine = closed(0.04)

    assert machine.remaining(NOW) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("hint", "patient"), [(119.0, True), (120.0, True), (120.5, False), (86_400.0, False)]
)
def test_a_wait_beyond_the_cap_refuses_instead(hint: float, patient: bool) -> None:
    """The gate closes for the cap only, but nobody is left waiting for something that cannot help."""
    machine = closed(hint)

    held = machine.enter(NOW, 0.0)

    assert held == Held(min(hint, 120.0), hint, patient)
    assert machine.enter(NOW + 120.0, 0.0) is None


def test_a_long_wait_that_has_nearly_passed_is_waited_for() -> None:
    """What is refused at first is patient again once the rest of it is below the cap."""
    machine = closed(130.0)

    held = machine.enter(NOW + 15.0, 0.0)

    assert held == Held(105.0, 115.0, patient=True)


def test_guesses_double_up_to_a_limit() -> None:
    """Without a hint: 2, 4, 8, 16, 30, 30 seconds; each for an answer that is news."""
    machine = gate()
    now = NOW
    lengths = []
    for _ in range(7):
        assert machine.close(now, None, machine.generation)
        lengths.append(machine.remaining(now))
        now += 40.0

    assert lengths == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_only_news_makes_the_guess_grow() -> None:
    """Fifty requests that were on their way when the gate closed are one event, not fifty."""
    machine = gate()
    told = [machine.close(NOW, None, 0) for _ in range(50)]

    assert told == [True] + [False] * 49
    assert machine.remaining(NOW) == 2.0


def test_late_news_with_a_hint_still_lengthens() -> None:
    """It is not news that the limit is reached, but how long it lasts may be."""
    machine = closed(2.0)

    assert machine.close(NOW, 20.0, 0) is False
    assert machine.remaining(NOW) == 20.0


@pytest.mark.parametrize(("generation", "length"), [(1, 2.0), (0, 4.0)], ids=["present", "late"])
def test_a_success_makes_guesses_small_again(generation: int, length: float) -> None:
    """But only of a call that was sent after the gate had opened again."""
    machine = closed(None)

    machine.passed(generation)
    machine.close(NOW + 10.0, None, machine.generation)

    assert machine.remaining(NOW + 10.0) == length


class GateMachine(RuleBasedStateMachine):
    """Any order of answers and time, against a list of promises."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = gate()
        self.now = NOW
        self.ends = [0.0]
        self.claims = [0.0]
        self.guess = 2.0
        self.generations = [0]

    @rule(seconds=st.floats(0.0, 40.0))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(hint=st.one_of(st.none(), st.floats(0.0, 300.0)), data=st.data())
    def limited(self, hint: float | None, data: st.DataObject) -> None:
        """A 429 arrives, of a request sent in any generation so far."""
        generation = data.draw(st.sampled_from(self.generations))
        news = generation == self.generations[-1]
        before = self.machine.until
        assert self.machine.close(self.now, hint, generation) is news
        assert self.machine.until >= before
        if hint is not None:
            self.ends.append(self.now + min(hint, 120.0))
            self.claims.append(self.now + hint)
        elif news:
            self.ends.append(self.now + self.guess)
            self.guess = min(2.0 * self.guess, 30.0)
        if news:
            self.generations.append(self.machine.generation)

    @rule()
    def succeeded(self) -> None:
        """A request of the present generation succeeds."""
        self.machine.passed(self.generations[-1])
        self.guess = 2.0

    @invariant()
    def agrees(self) -> None:
        """The gate opens at the latest of all ends, and releases nobody earlier."""
        until = max(self.ends)
        assert self.machine.until == until
        low, high = self.machine.enter(self.now, 0.0), self.machine.enter(self.now, 0.999)
        if self.now >= until:
            assert low is high is None
            return
        assert low is not None
        assert high is not None
        assert until - self.now == low.seconds <= high.seconds <= low.seconds + 60.0
        claim = max(until - self.now, max(self.claims) - self.now)
        assert low.retry_after == pytest.approx(claim)
        assert low.patient is (low.retry_after <= 120.0)


GateMachine.TestCase.settings = settings(
    deadline=None, derandomize=True, max_examples=60, stateful_step_count=30
)
TestGateMachine = GateMachine.TestCase
