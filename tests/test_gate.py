"""The rate-limit gate as a machine: time and chance are arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gip_resilience.config import GateConfig
from gip_resilience.gate import TOLERANCE, Gate, Held, Place

NOW = 1000.0


def gate(**changes: Any) -> Gate:
    """A gate that nobody has closed."""
    return Gate(GateConfig(**changes))


def closed(hint: float | None, **changes: Any) -> Gate:
    """A gate that one answer closed at NOW."""
    machine = gate(**changes)
    assert machine.close(NOW, hint, machine.generation)
    return machine


def waiting(machine: Gate, since: float, latest: float = math.inf) -> Place:
    """The place of a call that began at *since* and met the closed gate at once."""
    place = Place(since, latest)
    assert machine.enter(since, 0.0, place) is not None
    assert place.gate is machine
    return place


def test_an_open_gate_holds_nobody() -> None:
    """Not at the start, and not from the moment the limit resets."""
    assert gate().enter(NOW, 0.9) is None
    assert closed(10.0).enter(NOW + 10.0, 0.9) is None


@pytest.mark.parametrize(("after", "left"), [(0.0, 10.0), (4.0, 6.0), (9.5, 0.5)])
def test_who_only_asks_is_told_what_is_left(after: float, left: float) -> None:
    """Without a place it waits nowhere, and the gate is not the fuller for it."""
    machine = closed(10.0)

    assert machine.enter(NOW + after, 0.9) == Held(left, left, patient=True)
    assert machine.waiting == 0


@pytest.mark.parametrize(
    ("count", "chance", "turns"),
    [
        (1, 0.1, [0.5]),
        (1, 0.5, [2.5]),
        (2, 0.0, [0.0, 2.5]),
        (2, 0.5, [1.25, 3.75]),
        (4, 0.0, [0.0, 1.25, 2.5, 3.75]),
        (5, 0.0, [0.0, 1.0, 2.0, 3.0, 4.0]),
        (11, 0.0, [0.0, *(1.0 + 0.4 * number for number in range(10))]),
    ],
)
def test_turns_are_dealt_out_over_half_the_wait(count: int, chance: float, turns: list[float]) -> None:
    """In order, each in a part of its own, the first ahead by a fifth or so: here 5 s after a gate of 10 s."""
    machine = closed(10.0)
    line = [waiting(machine, NOW + number * 0.1) for number in range(count)]

    now = NOW + 10.0
    machine.enter(now, chance, line[-1])

    assert [place.turn for place in line] == pytest.approx([now + turn for turn in turns])


@pytest.mark.parametrize(
    ("hint", "first", "second"), [(0.04, 0.0, 0.005), (2.0, 0.0, 0.25), (60.0, 0.0, 1.0)]
)
def test_the_first_goes_ahead_far_enough_for_a_refusal_to_come_back(
    hint: float, first: float, second: float
) -> None:
    """A quarter of the spread, and a second at most: a crowd behind it does not shorten that."""
    machine = closed(hint)
    line = [waiting(machine, NOW) for _ in range(100)]

    machine.enter(NOW + hint, 0.0, line[50])

    assert line[0].turn == pytest.approx(NOW + hint + first)
    assert line[1].turn == pytest.approx(NOW + hint + second)


@pytest.mark.parametrize(("spread", "last"), [(0.0, 0.0), (1.0, 7.5), (3.0, 22.5)])
def test_the_spread_is_a_setting(spread: float, last: float) -> None:
    """Zero releases everybody at the exact moment."""
    machine = closed(10.0, spread=spread)
    line = [waiting(machine, NOW) for _ in range(2)]

    machine.enter(NOW + 10.0, 0.5, line[0])

    assert line[1].turn == pytest.approx(NOW + 10.0 + last)


def test_a_turn_comes_once() -> None:
    """Before it the caller is told how long; at it the caller passes, and its place is free."""
    machine = closed(10.0)
    line = [waiting(machine, NOW) for _ in range(2)]

    assert machine.enter(NOW + 10.0, 0.5, line[1]) == Held(3.75, 3.75, patient=True)
    assert machine.enter(NOW + 12.0, 0.0, line[1]) == Held(1.75, 1.75, patient=True)
    assert machine.enter(NOW + 13.75, 0.0, line[1]) is None
    assert line[1].gate is None
    assert machine.waiting == 1


def test_newcomers_pass_while_turns_are_outstanding() -> None:
    """They delay nobody: every turn is a moment of its own."""
    machine = closed(10.0)
    place = waiting(machine, NOW)
    machine.enter(NOW + 10.0, 0.9, place)

    assert machine.enter(NOW + 10.5, 0.0) is None
    assert machine.enter(NOW + 10.5, 0.0, Place(NOW + 10.5)) is None
    assert machine.waiting == 1


def test_a_gate_that_closes_again_keeps_the_order() -> None:
    """Who was let through and refused stands where it stood: its call began before the others'."""
    machine = closed(10.0)
    line = [waiting(machine, NOW + number * 0.1) for number in range(3)]
    assert machine.enter(NOW + 10.0, 0.0, line[0]) is None

    machine.close(NOW + 10.2, 4.0, machine.generation)
    machine.enter(NOW + 10.3, 0.0, line[0])
    for place in reversed(line):
        held = machine.enter(NOW + 12.0, 0.0, place)
        assert held is not None
        assert held.seconds == pytest.approx(2.2)
    machine.enter(NOW + 14.2, 0.0, line[2])

    turns = [place.turn for place in line]
    assert turns == sorted(turns)
    assert turns[0] is not None


@pytest.mark.parametrize(
    ("latest", "turn"),
    [(math.inf, 5.0), (NOW + 100.0, 5.0), (NOW + 12.0, 2.0), (NOW + 10.5, 0.5)],
)
def test_who_must_be_gone_sooner_gets_an_earlier_turn(latest: float, turn: float) -> None:
    """Scaled to what it has, so that many who are in a hurry are still spread."""
    machine = closed(10.0)
    place = waiting(machine, NOW, latest)

    machine.enter(NOW + 10.0, 0.8, place)

    assert place.turn == pytest.approx(NOW + 10.0 + 0.8 * turn)


@pytest.mark.parametrize(("latest", "patient"), [(NOW + 10.0, False), (NOW + 10.1, True), (NOW + 3.0, False)])
def test_who_must_be_gone_before_the_gate_opens_is_told_at_once(latest: float, patient: bool) -> None:
    """With what the server said, and without a place."""
    machine = closed(10.0)
    place = Place(NOW, latest)

    assert machine.enter(NOW, 0.0, place) == Held(10.0, 10.0, patient)
    assert (place.gate is machine) is patient


def test_a_gate_that_closes_for_longer_than_a_waiter_has_lets_it_go() -> None:
    """It was promised an opening that has moved past its deadline."""
    machine = closed(10.0)
    place = waiting(machine, NOW, NOW + 15.0)
    machine.close(NOW + 5.0, 20.0, machine.generation)

    assert machine.enter(NOW + 10.0, 0.0, place) == Held(15.0, 15.0, patient=False)
    assert (place.gate, machine.waiting) == (None, 0)


def test_the_line_has_an_end() -> None:
    """Who finds it full is told at once; who stands in it is not affected; a place that is left is free."""
    machine = closed(10.0, max_waiters=2)
    line = [waiting(machine, NOW) for _ in range(2)]

    assert machine.enter(NOW, 0.0, Place(NOW)) == Held(10.0, 10.0, patient=False)
    assert machine.enter(NOW, 0.0, line[0]) == Held(10.0, 10.0, patient=True)

    machine.leave(line[0])
    machine.leave(line[0])
    assert machine.enter(NOW, 0.0, Place(NOW)) == Held(10.0, 10.0, patient=True)


def test_a_place_that_is_left_has_no_turn() -> None:
    """The others share the spread as if it had never been taken."""
    machine = closed(10.0)
    line = [waiting(machine, NOW) for _ in range(3)]
    machine.leave(line[1])

    machine.enter(NOW + 10.0, 0.0, line[2])

    assert (line[0].turn, line[1].turn, line[2].turn) == (NOW + 10.0, None, NOW + 12.5)


def test_who_comes_late_for_its_turn_passes() -> None:
    """A process that was stopped for a while missed nothing; and its line is dealt out when it comes back."""
    machine = closed(10.0)
    line = [waiting(machine, NOW) for _ in range(2)]

    assert machine.enter(NOW + 500.0, 0.0, line[0]) is None
    assert machine.enter(NOW + 500.0, 0.0, line[1]) == Held(2.5, 2.5, patient=True)
    assert machine.enter(NOW + 900.0, 0.0, line[1]) is None


@pytest.mark.parametrize("early", [0.0, 1e-9, 1e-7])
def test_a_clock_that_rounds_does_not_make_a_caller_early(early: float) -> None:
    """Waiting for what is left and reading the clock again may come out a hair short."""
    machine = closed(10.0)
    place = waiting(machine, NOW)

    assert machine.enter(NOW + 10.0 - early, 0.0, place) is None


def test_a_clock_that_rounds_by_as_much_as_is_allowed_makes_nobody_early() -> None:
    """At the gate, at a turn, and where somebody notes that it has opened."""
    machine = closed(10.0)
    place = waiting(machine, NOW)
    opens = machine.until - TOLERANCE

    assert machine.enter(opens, 0.5) is None
    held = machine.enter(opens, 0.5, place)
    assert held is not None
    assert place.turn is not None
    assert machine.opened(opens) == 10.0
    assert machine.enter(place.turn - TOLERANCE, 0.5, place) is None


def test_what_is_left_of_a_long_wait_is_waited_for_from_the_very_moment_it_can_be() -> None:
    """Then it counts whole."""
    machine = closed(90.0, max_wait=60.0)

    assert machine.enter(NOW + 30.0, 0.5) == Held(60.0, 60.0, patient=True)


def test_a_guess_is_not_said_to_be_longer_than_it_is() -> None:
    """The server asked for nothing."""
    machine = closed(None, base_delay=0.125)

    assert machine.enter(NOW, 0.5) == Held(0.125, 0.125, patient=True)


def test_a_hint_of_less_than_a_second_is_told_as_it_is() -> None:
    """Also where less than that is waited for."""
    machine = closed(0.75, max_wait=0.5)

    assert machine.enter(NOW, 0.5) == Held(0.5, 0.75, patient=False)


def test_every_answer_that_is_news_makes_late_what_was_sent_before() -> None:
    """The second as well as the first."""
    machine = closed(1.0)
    between = machine.generation
    assert machine.close(NOW + 2.0, 1.0, between)

    assert not machine.close(NOW + 2.5, 1.0, between)
    assert machine.close(NOW + 4.0, 1.0, machine.generation)
    assert not machine.close(NOW + 4.5, 1.0, between)


def test_a_wait_of_nothing_closes_nothing() -> None:
    """There is nothing to tell when somebody passes."""
    machine = gate()
    machine.close(NOW, 0.0, machine.generation)

    assert machine.opened(NOW) is None


@pytest.mark.parametrize("after", [10.0, 20.0])
def test_a_gate_that_nobody_found_open_closes_anew(after: float) -> None:
    """From the very moment it opens."""
    machine = closed(10.0)
    machine.close(NOW + after, 5.0, machine.generation)

    assert machine.opened(NOW + after + 5.0) == 5.0


def test_a_second_answer_that_says_the_same_does_not_narrow_the_spread() -> None:
    """It was the first that told everybody for how long."""
    machine = closed(10.0)
    place = waiting(machine, NOW)
    machine.close(NOW + 5.0, 5.0, machine.generation)

    assert machine.enter(NOW + 10.0, 0.5, place) == Held(2.5, 2.5, patient=True)


@pytest.mark.parametrize(
    ("seconds", "changes", "left"),
    [
        (7.0, {}, 7.0),
        (120.0, {}, 120.0),
        (120.1, {}, 0.0),
        (0.0, {}, 0.0),
        (7.0, {"exhausted": "off"}, 0.0),
        (7.0, {"mode": "off"}, 0.0),
    ],
)
def test_a_quota_that_is_used_up_closes_the_gate_before_the_next_answer(
    seconds: float, changes: dict[str, Any], left: float
) -> None:
    """A success says ``remaining: 0``. One that claims more than the longest wait is not believed."""
    machine = gate(**changes)

    machine.exhaust(NOW, seconds, machine.generation)

    assert machine.remaining(NOW) == left


def test_a_success_that_used_up_the_quota_makes_guesses_small_again() -> None:
    """It is a success all the same."""
    machine = closed(None)

    machine.exhaust(NOW + 10.0, 1.0, machine.generation)
    machine.close(NOW + 20.0, None, machine.generation)

    assert machine.remaining(NOW + 20.0) == 2.0


def test_what_was_under_way_when_the_quota_was_used_up_is_late_to_the_news() -> None:
    """Its 429 is no news: the gate is closed already."""
    machine = gate()
    machine.exhaust(NOW, 7.0, 0)

    assert machine.close(NOW, 5.0, 0) is False
    assert machine.remaining(NOW) == 7.0


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
    """What is refused at first is waited for in full once the rest of it is below the cap."""
    machine = closed(130.0)

    held = machine.enter(NOW + 15.0, 0.0)

    assert held == Held(115.0, 115.0, patient=True)
    assert machine.remaining(NOW + 15.0) == 115.0


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


@dataclass
class Waiter:
    """One caller, as the model sees it."""

    place: Place
    since: float
    latest: float
    asked: float = 0.0
    """When it was told to ask again."""
    dealt: int = 0
    """With whom it got its turn."""


class GateMachine(RuleBasedStateMachine):
    """Any order of answers, callers and time, against a list of ends and a list of callers."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = gate(max_waiters=4)
        self.now = NOW
        self.ends = [(0.0, 0.0)]
        self.claims = [0.0]
        self.guess = 2.0
        self.generations = [0]
        self.line: list[Waiter] = []
        self.deals = 0

    @property
    def until(self) -> float:
        """When the gate opens: the latest of all ends."""
        return max(end for end, _ in self.ends)

    @property
    def spread(self) -> float:
        """Over how long turns are dealt out: half of how long the gate was closed by the answer that counts."""
        return 0.5 * max(length for end, length in self.ends if end == self.until)

    @rule(seconds=st.floats(0.0, 40.0))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(hint=st.one_of(st.none(), st.floats(0.0, 300.0)), data=st.data())
    def limited(self, hint: float | None, data: st.DataObject) -> None:
        """A 429 arrives, of a request sent in any generation so far."""
        generation = data.draw(st.sampled_from(self.generations))
        news = generation == self.generations[-1]
        assert self.machine.close(self.now, hint, generation) is news
        if hint is not None:
            self._ends(min(hint, 120.0))
            self.claims.append(self.now + hint)
        elif news:
            self._ends(self.guess)
            self.guess = min(2.0 * self.guess, 30.0)
        if news:
            self.generations.append(self.machine.generation)

    @rule(seconds=st.floats(0.0, 200.0))
    def exhausted(self, seconds: float) -> None:
        """A success says that its quota is used up."""
        self.machine.exhaust(self.now, seconds, self.generations[-1])
        self.guess = 2.0
        if 0.0 < seconds <= 120.0:
            self._ends(seconds)
            self.claims.append(self.now + seconds)
            self.generations.append(self.machine.generation)

    def _ends(self, length: float) -> None:
        if self.now + length > self.until:
            self.ends.append((self.now + length, length))

    @rule()
    def succeeded(self) -> None:
        """A request of the present generation succeeds."""
        self.machine.passed(self.generations[-1])
        self.guess = 2.0

    @rule(patience=st.one_of(st.none(), st.floats(0.0, 60.0)), began=st.floats(0.0, 5.0))
    def come(self, patience: float | None, began: float) -> None:
        """A caller whose call began a while ago meets the gate."""
        latest = math.inf if patience is None else self.now + patience
        waiter = Waiter(Place(self.now - began, latest), self.now - began, latest)
        self._ask(waiter, 0.5)

    @precondition(lambda self: self.line)
    @rule(data=st.data(), chance=st.floats(0.0, 0.999), early=st.booleans())
    def ask_again(self, data: st.DataObject, chance: float, early: bool) -> None:
        """One of those in line asks again, when it was told to or before."""
        waiter = data.draw(st.sampled_from(self.line))
        if not early:
            self.now = max(self.now, waiter.asked)
        self._ask(waiter, chance)

    def _ask(self, waiter: Waiter, chance: float) -> None:
        known = waiter in self.line
        due = waiter.place.turn
        held = self.machine.enter(self.now, chance, waiter.place)
        if self.now < self.until - TOLERANCE and max(self.claims) <= self.now + 120.0:
            self.ends.append((max(self.until, *self.claims), 120.0))
        if self.now < self.until - TOLERANCE:
            assert held is not None
            claim = max(self.until, *self.claims) - self.now
            room = known or len(self.line) < 4
            patient = claim <= 120.0 and self.until < waiter.latest and room
            assert held == Held(pytest.approx(self.until - self.now), pytest.approx(claim), patient)
        elif not known:
            assert held is None
        elif held is None:
            assert due is None or self.now >= due - TOLERANCE
        else:
            assert held.patient
            assert self.now + held.seconds <= self.now + self.spread + TOLERANCE or due is not None
            assert self.now + held.seconds <= max(waiter.latest, self.now)
        if held is not None and held.patient:
            waiter.asked = self.now + held.seconds
        if known and (held is None or not held.patient):
            self.line.remove(waiter)
        elif not known and held is not None and held.patient:
            self.line.append(waiter)
        self.deals += 1
        for other in self.line:
            if other.place.turn is None:
                other.dealt = 0
            elif other.dealt == 0:
                other.dealt = self.deals

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """One of those in line is cancelled."""
        waiter = data.draw(st.sampled_from(self.line))
        self.machine.leave(waiter.place)
        self.line.remove(waiter)

    @invariant()
    def agrees(self) -> None:
        """The gate opens at the latest of all ends, and knows exactly those who stand in line."""
        assert self.machine.until == self.until
        assert self.machine.waiting == len(self.line)
        assert all(waiter.place.gate is self.machine for waiter in self.line)

    @invariant()
    def turns_are_in_order(self) -> None:
        """By the beginning of the calls, among those that were dealt out together and are not in a hurry."""
        rounds: dict[int, list[Waiter]] = {}
        for waiter in self.line:
            if waiter.place.turn is not None and waiter.latest == math.inf:
                rounds.setdefault(waiter.dealt, []).append(waiter)
        for waiters in rounds.values():
            in_order = sorted(waiters, key=lambda waiter: waiter.since)
            turns = [waiter.place.turn for waiter in in_order]
            assert turns == sorted(turns)  # type: ignore[type-var]  # none of them is None here


GateMachine.TestCase.settings = settings(
    deadline=None, derandomize=True, max_examples=150, stateful_step_count=40
)
TestGateMachine = GateMachine.TestCase
