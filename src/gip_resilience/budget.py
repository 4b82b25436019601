"""The retry budget: how many retries a scope can afford.

A pure machine; ``now`` is an argument, nothing here waits or locks. Tokens are spent by retries and come
back only with *successes*. Neither time nor new requests refill it: both keep a
retry storm alive that a budget exists to end.

Every scope has tokens of its own, so that a dead model cannot spend what the others need, and a host has twice as
many for all its models together, so that a host that is down is not asked for as many retries as it has models.

The capacity follows the caller's own rate, because what an outage costs the server is the capacity times
the number of processes over the calls they make: ten tokens are little for a process that makes twenty calls
a second and ruinous for a thousand processes that make one every few seconds. Until the rate is known the
full capacity holds.

Not thread-safe by itself: the store guards it with its lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gip_resilience.defaults import BUDGET_RATE_WINDOW

if TYPE_CHECKING:
    from gip_resilience.config import BudgetConfig


class BudgetView(NamedTuple):
    """What a budget looks like at one moment.

    Attributes:
        tokens: what is left.
        capacity: what there can be.
    """

    tokens: float
    capacity: float


class Budget:
    """Retry tokens of one scope.

    Args:
        config: capacity and deposits; see `gip_resilience.config.BudgetConfig`.
        now: monotonic seconds; the rate is measured from here.
        parent: what several scopes share; every retry is paid for there too.
        factor: how many times the capacity it has that one scope has.
    """

    __slots__ = ("_calls", "_config", "_factor", "_parent", "_since", "capacity", "tokens")

    def __init__(
        self, config: BudgetConfig, now: float, parent: Budget | None = None, *, factor: float = 1.0
    ) -> None:
        self._config = config
        self._parent = parent
        self._factor = factor
        self.capacity = self.tokens = factor * config.capacity
        self._since = now
        self._calls = 0

    def call(self, now: float) -> None:
        """Count one user's call (not its retries): the rate the capacity follows."""
        self._calls += 1
        if now - self._since >= BUDGET_RATE_WINDOW:
            self._measure(now)
        parent = self._parent
        if parent is not None:
            parent.call(now)

    def _measure(self, now: float) -> None:
        config = self._config
        rate = self._calls / (now - self._since)
        capacity = min(config.capacity, max(config.min_capacity, config.per_rate * rate))
        self.capacity = self._factor * capacity
        self.tokens = min(self.tokens, self.capacity)
        self._since = now
        self._calls = 0

    def deposit(self) -> None:
        """A call succeeded."""
        if self.tokens < self.capacity:
            self.tokens = min(self.tokens + self._config.deposit, self.capacity)
        parent = self._parent
        if parent is not None and parent.tokens < parent.capacity:
            parent.deposit()

    def withdraw(self, cost: float) -> bool:
        """Pay for one retry; ``False`` (and nothing is taken) when it cannot be afforded."""
        if cost > self.tokens:
            return False
        if self._parent is not None and not self._parent.withdraw(cost):
            return False
        self.tokens -= cost
        return True

    def configure(self, config: BudgetConfig) -> None:
        """Take other settings. The share of the capacity that is left stays what it was."""
        share = self.tokens / self.capacity if self.capacity else 1.0
        self._config = config
        self.capacity = self._factor * config.capacity
        self.tokens = share * self.capacity

    def view(self) -> BudgetView:
        """What it looks like now."""
        return BudgetView(self.tokens, self.capacity)
