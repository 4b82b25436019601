"""The rate-limit gate: one caller's 429 is everybody's.

A pure machine; ``now`` and chance are arguments, nothing here waits or locks. It holds one moment,
*closed until*, which later answers can only move further away (max-merge): answers overtake each other on
the wire, and the one that says "wait longer" is right.

A caller who meets a closed gate is told how long to wait: until the gate opens, plus a random share of how
long it was closed. Releasing everybody at the exact reset would make the herd that closes it again: exact
release puts 21 times the mean load into the first second, a spread of half the wait 4.6 times.

A server that asks for more than ``max_wait`` closes the gate for ``max_wait`` only, so that nobody is locked
out by an absurd header; but callers are then refused at once instead of being left waiting, since the wait
they could be given would end too early to help them.

Not thread-safe by itself: the store guards it with its lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gip_resilience.config import GateConfig


class Held(NamedTuple):
    """The gate is closed for this caller.

    Attributes:
        seconds: wait this long, then ask again.
        retry_after: what the server said, counted from now; more than ``seconds`` when that was capped.
        patient: whether waiting helps; ``False`` when the server asked for more than we ever wait.
    """

    seconds: float
    retry_after: float
    patient: bool


class Gate:
    """When callers of one scope may send again.

    Args:
        config: spread, cap and guesses; see `gip_resilience.config.GateConfig`.
    """

    __slots__ = ("_claimed", "_config", "_guesses", "_length", "generation", "until")

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self.generation = 0
        self.until = 0.0
        self._claimed = 0.0
        self._length = 0.0
        self._guesses = 0

    def enter(self, now: float, chance: float) -> Held | None:
        """``None`` when the gate is open; else how long this caller waits, its share of the spread included."""
        if now >= self.until:
            return None
        left = self.until - now
        claimed = max(left, self._claimed - now)
        if claimed > self._config.max_wait:
            return Held(left, claimed, patient=False)
        return Held(left + self._config.spread * self._length * chance, claimed, patient=True)

    def close(self, now: float, hint: float | None, generation: int) -> bool:
        """A rate-limited answer arrived.

        Args:
            now: monotonic seconds.
            hint: seconds the server asked for; without one the gate guesses, 2 s doubling to 30 s.
            generation: the gate's generation when the request was sent.

        Returns:
            Whether this answer is news: ``False`` when the request had been sent before the gate closed, so
            that its fate was sealed by what the gate already knew.
        """
        news = generation == self.generation
        if hint is None:
            if not news:
                return False
            length = min(self._config.base_delay * 2.0 ** min(self._guesses, 32), self._config.max_delay)
            self._guesses += 1
        else:
            length = min(hint, self._config.max_wait)
            self._claimed = max(self._claimed, now + hint)
        if now + length > self.until:
            self.until = now + length
            self._length = length
        if news:
            self.generation += 1
        return news

    def passed(self, generation: int) -> None:
        """A call that was sent in the present generation succeeded: the next guess starts small again."""
        if generation == self.generation:
            self._guesses = 0

    def remaining(self, now: float) -> float:
        """Seconds until the gate opens; 0 when it is open."""
        return max(0.0, self.until - now)
