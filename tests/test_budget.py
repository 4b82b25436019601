"""The retry budget as a machine: only successes fill it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gip_resilience.budget import Budget, BudgetView
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


# ---- a host's budget, and those of its scopes ------------------------------------------------------------


def shared(scopes: int = 2, host: float = 10.0, **changes: Any) -> tuple[Budget, list[Budget]]:
    """A host's budget of *host* tokens, and those of scopes that are paid for there too."""
    parent = budget(capacity=host, min_capacity=min(host, 2.0))
    return parent, [Budget(BudgetConfig(**changes), NOW, parent) for _ in range(scopes)]


def test_a_retry_is_paid_for_twice() -> None:
    """By its scope and by the host; another scope pays nothing."""
    parent, (one, other) = shared()

    assert one.withdraw(2.0)

    assert (parent.tokens, one.tokens, other.tokens) == (8.0, 8.0, 10.0)


@pytest.mark.parametrize(("models", "sent"), [(1, 10), (2, 10), (30, 10)])
def test_a_host_that_is_down_is_not_asked_for_as_many_retries_as_it_has_models(
    models: int, sent: int
) -> None:
    """Ten in all."""
    _, scopes = shared(models)

    assert sum(scope.withdraw(1.0) for scope in scopes for _ in range(20)) == sent


@pytest.mark.parametrize(
    ("host", "scope", "cost"),
    [(1.0, 10.0, 2.0), (10.0, 2.0, 3.0), (1.0, 2.0, 4.0)],
    ids=["the host cannot", "the scope cannot", "neither can"],
)
def test_what_one_of_them_cannot_pay_costs_nobody_anything(host: float, scope: float, cost: float) -> None:
    """Both are taken from, or neither is."""
    parent, (one, other) = shared(host=host, capacity=scope)

    assert one.withdraw(cost) is False

    assert (parent.tokens, one.tokens, other.tokens) == (host, scope, scope)


def test_a_success_of_any_scope_fills_the_host() -> None:
    """And its own scope, not the others."""
    parent, (one, other) = shared(capacity=5.0)
    assert one.withdraw(5.0)
    assert other.withdraw(5.0)

    for _ in range(5):
        other.deposit()

    assert parent.tokens == pytest.approx(1.0)
    assert (one.tokens, other.tokens) == (0.0, pytest.approx(1.0))
    assert one.withdraw(1.0) is False


def test_the_hosts_capacity_follows_the_calls_of_all_its_scopes() -> None:
    """A tenth of a call a second each: two tokens for a scope, ten for the twenty of them."""
    parent, scopes = shared(20)
    for number, scope in enumerate(scopes):
        scope.call(NOW + 1.0 + number / 20)
    scopes[0].call(NOW + 10.0)

    assert parent.capacity == pytest.approx(10.0)
    assert scopes[0].capacity == 2.0


@dataclass
class Books:
    """What a budget should hold."""

    tokens: float = 10.0
    capacity: float = 10.0
    since: float = NOW
    calls: int = 0

    def call(self, now: float) -> None:
        """A call; the first after ten seconds says what the rate was."""
        self.calls += 1
        seconds = now - self.since
        if seconds >= 10.0:
            self.capacity = sorted([2.0, 5.0 * (self.calls / seconds), 10.0])[1]
            self.tokens = min(self.tokens, self.capacity)
            self.since, self.calls = now, 0

    def success(self) -> None:
        """A fifth of a retry."""
        self.tokens = min(self.tokens + 0.2, self.capacity)


class BudgetMachine(RuleBasedStateMachine):
    """Any order of calls, successes and retries of two scopes of one host, against plain bookkeeping."""

    def __init__(self) -> None:
        super().__init__()
        self.parent, self.scopes = shared()
        self.host, self.books = Books(), [Books(), Books()]
        self.now = NOW

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        """Let time pass; nobody has more for it."""
        self.now += seconds

    @rule(which=st.integers(0, 1), times=st.integers(1, 30))
    def call(self, which: int, times: int) -> None:
        """A user's calls begin; nobody has more for it."""
        before = self.held()
        for _ in range(times):
            self.scopes[which].call(self.now)
            self.books[which].call(self.now)
            self.host.call(self.now)
        assert all(now <= then for now, then in zip(self.held(), before, strict=True))

    @rule(which=st.integers(0, 1), times=st.integers(1, 12))
    def success(self, which: int, times: int) -> None:
        """Calls of one scope succeed."""
        for _ in range(times):
            self.scopes[which].deposit()
            self.books[which].success()
            self.host.success()

    @rule(which=st.integers(0, 1), cost=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 11.0]))
    def retry(self, which: int, cost: float) -> None:
        """A retry asks to be paid: by both, or by neither."""
        payers = [self.books[which], self.host]
        affordable = all(cost <= payer.tokens for payer in payers)
        assert self.scopes[which].withdraw(cost) is affordable
        for payer in payers if affordable else []:
            payer.tokens -= cost

    def held(self) -> list[float]:
        """The tokens of the host and of its scopes."""
        return [each.tokens for each in (self.parent, *self.scopes)]

    @invariant()
    def agrees(self) -> None:
        """Tokens and capacities are those of the books, within their bounds."""
        for machine, books in zip((self.parent, *self.scopes), (self.host, *self.books), strict=True):
            assert (machine.tokens, machine.capacity) == (books.tokens, books.capacity)
            assert 0.0 <= machine.tokens <= machine.capacity
            assert 2.0 <= machine.capacity <= 10.0


BudgetMachine.TestCase.settings = settings(
    deadline=None, derandomize=True, max_examples=100, stateful_step_count=40
)
TestBudgetMachine = BudgetMachine.TestCase


def test_what_it_looks_like() -> None:
    """What is left, and what there could be."""
    machine = budget(capacity=4.0)
    machine.withdraw(1.0)

    assert machine.view() == BudgetView(3.0, 4.0)


@pytest.mark.parametrize(
    ("factor", "withdrawn", "tokens", "capacity"),
    [(1.0, 0.0, 8.0, 8.0), (1.0, 1.0, 6.0, 8.0), (1.0, 4.0, 0.0, 8.0), (3.0, 3.0, 18.0, 24.0)],
)
def test_other_settings_leave_the_share_that_is_left(
    factor: float, withdrawn: float, tokens: float, capacity: float
) -> None:
    """Of a budget of several scopes, too; a spent one stays spent."""
    machine = Budget(BudgetConfig(capacity=4.0), NOW, factor=factor)
    assert machine.withdraw(withdrawn)

    machine.configure(BudgetConfig(capacity=8.0, deposit=0.5))

    assert machine.view() == BudgetView(tokens, capacity)
    machine.withdraw(machine.tokens)
    machine.deposit()
    assert machine.tokens == 0.5


def test_a_budget_of_nothing_that_gets_something_is_full() -> None:
    """There is no share of nothing."""
    machine = budget(capacity=0.0, min_capacity=0.0)

    machine.configure(BudgetConfig(capacity=8.0))

    assert machine.view() == BudgetView(8.0, 8.0)
