"""The retry budget as a machine: only successes fill it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gip_resilience.budget import Budget
from gip_resilience.config import BudgetConfig

NOW = 1000.0


def budget(**changes: Any) -> Budget:
    """A budget that was made at NOW."""
    return Budget(BudgetConfig(**changes), NOW)


def spent(**changes: Any) -> Budget:
    """One with nothing left."""
    machine = budget(**changes)
    assert machine.withdraw(machine.tokens)
    return machine


def test_it_starts_full() -> None:
    """Ten retries, and not an eleventh."""
    machine = budget()

    assert [machine.withdraw(1.0) for _ in range(12)] == [True] * 10 + [False] * 2


def test_a_refused_withdrawal_takes_nothing() -> None:
    """What is too dear leaves what is there for something cheaper."""
    machine = budget(capacity=2.0)
    machine.withdraw(1.0)

    assert machine.withdraw(2.0) is False
    assert machine.tokens == 1.0
    assert machine.withdraw(1.0) is True


def test_something_free_can_always_be_paid() -> None:
    """Even with nothing left."""
    assert spent().withdraw(0.0) is True


@pytest.mark.parametrize(("successes", "retries"), [(4, 0), (5, 1), (50, 10), (500, 10)])
def test_five_successes_pay_for_one_retry(successes: int, retries: int) -> None:
    """And they never pay for more than the capacity."""
    machine = spent()
    for _ in range(successes):
        machine.deposit()
    machine.tokens = round(machine.tokens, 9)

    assert sum(machine.withdraw(1.0) for _ in range(20)) == retries


def test_neither_time_nor_calls_fill_it() -> None:
    """Both would keep a retry storm alive."""
    machine = spent()
    for second in range(3600):
        machine.call(NOW + second)

    assert machine.tokens == 0.0


@pytest.mark.parametrize(
    ("per_second", "capacity"),
    [(0.1, 2.0), (0.4, 2.0), (1.0, 5.0), (2.0, 10.0), (50.0, 10.0)],
)
def test_the_capacity_follows_the_rate_of_calls(per_second: float, capacity: float) -> None:
    """Five tokens per call per second, within two and ten: many small clients must not add up to a storm."""
    machine = budget()
    for number in range(1, int(per_second * 10) + 1):
        machine.call(NOW + number / per_second)

    assert machine.capacity == pytest.approx(capacity)
    assert machine.tokens <= machine.capacity


def test_until_the_rate_is_known_the_whole_capacity_holds() -> None:
    """A process that has just started has a right to retry, too."""
    machine = budget()
    machine.call(NOW + 9.9)

    assert machine.capacity == 10.0


def test_a_rate_that_rises_again_gives_room_and_no_tokens() -> None:
    """Room is filled by successes alone."""
    machine = budget()
    machine.call(NOW + 100.0)
    assert (machine.capacity, machine.tokens) == (2.0, 2.0)

    for number in range(1, 101):
        machine.call(NOW + 100.0 + number / 10)

    assert (machine.capacity, machine.tokens) == (10.0, 2.0)


class BudgetMachine(RuleBasedStateMachine):
    """Any order of calls, successes and retries, against plain bookkeeping."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = budget()
        self.now = NOW
        self.tokens = 10.0

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def call(self) -> None:
        """A user's call begins."""
        self.machine.call(self.now)
        self.tokens = min(self.tokens, self.machine.capacity)

    @rule()
    def success(self) -> None:
        """A call succeeds."""
        self.machine.deposit()
        self.tokens = min(self.tokens + 0.2, self.machine.capacity)

    @rule(cost=st.sampled_from([0.0, 0.5, 1.0, 2.0, 11.0]))
    def retry(self, cost: float) -> None:
        """A retry asks to be paid."""
        affordable = cost <= self.tokens
        assert self.machine.withdraw(cost) is affordable
        self.tokens -= cost if affordable else 0.0

    @invariant()
    def agrees(self) -> None:
        """The tokens are those of the books, within their bounds."""
        assert self.machine.tokens == self.tokens
        assert 0.0 <= self.machine.tokens <= self.machine.capacity
        assert 2.0 <= self.machine.capacity <= 10.0


BudgetMachine.TestCase.settings = settings(
    deadline=None, derandomize=True, max_examples=60, stateful_step_count=40
)
TestBudgetMachine = BudgetMachine.TestCase
