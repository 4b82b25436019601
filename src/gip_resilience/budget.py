"""The retry budget: how many retries a scope can afford.

A pure machine; ``now`` is an argument, nothing here waits or locks. Tokens are spent by retries and come
back only with *successes*. Neither time nor new requests refill it: both were simulated, and both keep a
retry storm alive that a budget exists to end.

Its capacity follows the caller's own rate, because what an outage costs the server is the capacity times
the number of processes over the calls they make: ten tokens are little for a process that makes twenty calls
a second and ruinous for a thousand processes that make one every few seconds. Until the rate is known the
full capacity holds.

Not thread-safe by itself: the store guards it with its lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gip_resilience.config import BudgetConfig

RATE_WINDOW = 10.0
"""Seconds over which the caller's own rate is measured: the breaker's window, so that both see the same."""


class Budget:
    """Retry tokens of one scope.

    Args:
        config: capacity and deposits; see `gip_resilience.config.BudgetConfig`.
        now: monotonic seconds; the rate is measured from here.
    """

    __slots__ = ("_calls", "_config", "_since", "capacity", "tokens")

    def __init__(self, config: BudgetConfig, now: float) -> None:
        self._config = config
        self.capacity = config.capacity
        self.tokens = config.capacity
        self._since = now
        self._calls = 0

    def call(self, now: float) -> None:
        """Count one user's call (not its retries): the rate the capacity follows."""
        self._calls += 1
        if now - self._since >= RATE_WINDOW:
            self._measure(now)

    def _measure(self, now: float) -> None:
        config = self._config
        rate = self._calls / (now - self._since)
        self.capacity = min(config.capacity, max(config.min_capacity, config.per_rate * rate))
        self.tokens = min(self.tokens, self.capacity)
        self._since = now
        self._calls = 0

    def deposit(self) -> None:
        """A call succeeded."""
        tokens = self.tokens + self._config.deposit
        self.tokens = min(tokens, self.capacity)

    def withdraw(self, cost: float) -> bool:
        """Pay for one retry; ``False`` (and nothing is taken) when it cannot be afforded."""
        if cost > self.tokens:
            return False
        self.tokens -= cost
        return True
