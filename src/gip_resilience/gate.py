"""The rate-limit gate: one caller's 429 is everybody's.

A pure machine; ``now`` and chance are arguments, nothing here waits or locks. It holds one moment,
*closed until*, which later answers can only move further away (max-merge): answers overtake each other on
the wire, and the one that says "wait longer" is right.

Whoever meets a closed gate gets a `Place` in its line and waits twice: until the gate opens, and then until
its turn. Turns are dealt out at the opening, in the order in which callers came, over a share of the time the
gate was closed (``spread``), because releasing everybody at the exact reset makes the herd that closes it
again: 20 times the mean load in the first second, with half the wait under 5 times. The first in line goes
ahead of the others. If it is refused again, the gate is closed again before they have gone, and they wait on,
each in its old place.

Nobody is woken by anybody, so no wake-up can be lost: a caller is told how long to wait, and asks again. A turn
is a moment of its own, so a caller that never comes back holds up nobody. Whoever has to be gone sooner than its
turn gets an earlier one. Callers that come while turns are outstanding pass: they delay nobody.

A server that asks for more than ``max_wait`` closes the gate for ``max_wait`` only, so that nobody is locked
out by an absurd header; but callers are then refused at once instead of being left waiting, since the wait
they could be given would end too early to help them. Once no more than ``max_wait`` is left of it they wait.

Not thread-safe by itself: the store guards it with its lock.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from gip_resilience.defaults import GATE_PROBE_LEAD, GATE_PROBE_SHARE

if TYPE_CHECKING:
    from gip_resilience.config import GateConfig


TOLERANCE = 1e-6
"""Seconds. Who comes this much too early is not early: adding a wait to a clock's reading rounds."""


class Place:
    """One caller's place in a line. Made by the caller; taken and given back at the gate.

    Attributes:
        since: when its call began; the line is ordered by this, so that a call which was let through and refused
            again is not behind those that came later.
        latest: when the caller must be gone.
        turn: when it may go; ``None`` while the gate is closed.
        gate: where it stands in line; ``None`` when it does not.
    """

    __slots__ = ("gate", "latest", "since", "turn")

    def __init__(self, since: float, latest: float = inf) -> None:
        self.since = since
        self.latest = latest
        self.turn: float | None = None
        self.gate: Gate | None = None


class Held(NamedTuple):
    """The gate is closed for this caller.

    Attributes:
        seconds: wait this long, then ask again.
        retry_after: what the server said, counted from now; more than ``seconds`` when that was capped.
        patient: whether waiting helps; ``False`` when the server asked for more than we ever wait, when the wait
            would last longer than the caller can, or when there is no room in the line.
    """

    seconds: float
    retry_after: float
    patient: bool


class GateView(NamedTuple):
    """What a gate looks like at one moment.

    Attributes:
        remaining: seconds until it opens; 0 when it is open.
        waiting: callers in line.
    """

    remaining: float
    waiting: int


class Gate:
    """When callers of one scope may send again.

    Args:
        config: spread, cap and guesses; see `gip_resilience.config.GateConfig`.
    """

    __slots__ = ("_claimed", "_config", "_guesses", "_length", "_line", "closed_at", "generation", "until")

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self.generation = 0
        self.until = 0.0
        self._claimed = 0.0
        self._length = 0.0
        self._guesses = 0
        self._line: dict[Place, None] = {}
        self.closed_at: float | None = None
        """When it closed; ``None`` once somebody has found it open again."""

    def enter(self, now: float, chance: float, place: Place | None = None) -> Held | None:
        """May this caller send?

        Args:
            now: monotonic seconds.
            chance: a number in [0, 1), for the turns.
            place: what the caller waits in line with; without one it does not wait, and only asks.

        Returns:
            ``None`` when it may, and its place is given back; else how long it waits.
        """
        if now < self.until - TOLERANCE:
            return self._queue(now, place)
        if place is None or place.gate is not self:
            return None
        if place.turn is None:
            self._deal(now, chance)
        turn = now if place.turn is None else place.turn
        if now >= turn - TOLERANCE:
            self.leave(place)
            return None
        return Held(turn - now, turn - now, patient=True)

    def _queue(self, now: float, place: Place | None) -> Held:
        if self.until < self._claimed <= now + self._config.max_wait:
            # The cap cut it short, but what is left of it by now can be waited for.
            self.until = self._claimed
        left = self.until - now
        claimed = max(left, self._claimed - now)
        patient = claimed <= self._config.max_wait
        if place is None:
            return Held(left, claimed, patient)
        if place.gate is not self:
            patient = patient and len(self._line) < self._config.max_waiters
        if not patient or self.until >= place.latest:
            self.leave(place)
            return Held(left, claimed, patient=False)
        if place.gate is not self:
            self._line[place] = None
            place.gate = self
        place.turn = None
        return Held(left, claimed, patient=True)

    def _deal(self, now: float, chance: float) -> None:
        """Give everybody in line a turn, in order, each in a part of the spread of its own.

        The same chance moves all of them within their parts: that is enough to keep processes apart.
        """
        waiting = sorted((place for place in self._line if place.turn is None), key=lambda place: place.since)
        spread = self._config.spread * self._length
        others = len(waiting) - 1
        lead = 1.0
        if others:
            share = min(GATE_PROBE_SHARE, GATE_PROBE_LEAD / spread) if spread else 0.0
            lead = max(share, 1.0 / len(waiting))
        for number, place in enumerate(waiting):
            part = chance * lead if number == 0 else lead + (1.0 - lead) * (number - 1 + chance) / others
            # Never quite to the end of what the caller has: it would then be too late to go.
            place.turn = now + min(spread, max(0.0, place.latest - now)) * part

    def leave(self, place: Place) -> None:
        """Give a place back. Idempotent."""
        if place.gate is self:
            del self._line[place]
            place.gate = None
            place.turn = None

    @property
    def config(self) -> GateConfig:
        """Its settings."""
        return self._config

    @property
    def waiting(self) -> int:
        """Callers in line."""
        return len(self._line)

    def close(self, now: float, hint: float | None, generation: int) -> bool:
        """A rate-limited answer arrived, or one that says that the next would be.

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
        self.extend(now, length, 0.0 if hint is None else hint)
        if news:
            self.generation += 1
        return news

    def extend(self, now: float, length: float, claimed: float) -> None:
        """Stay closed for *length* seconds at least; the server asked for *claimed*."""
        if claimed > 0.0:
            self._claimed = max(self._claimed, now + claimed)
        if length > 0.0 and (self.closed_at is None or now >= self.until):
            self.closed_at = now
        if now + length > self.until:
            self.until = now + length
            self._length = length

    def exhaust(self, now: float, seconds: float, generation: int) -> None:
        """A call succeeded, and its answer says that the next within *seconds* would be refused.

        More than ``max_wait`` is not believed: if it is true, the next answer will say so itself.
        """
        self.passed(generation)
        config = self._config
        if config.exhausted != "off" and config.mode != "off" and 0.0 < seconds <= config.max_wait:
            self.close(now, seconds, generation)

    def opened(self, now: float) -> float | None:
        """Somebody passes at *now*: seconds the gate had been closed, if nobody has passed since."""
        closed_at = self.closed_at
        if closed_at is None or now < self.until - TOLERANCE:
            return None
        self.closed_at = None
        return self.until - closed_at

    def passed(self, generation: int) -> None:
        """A call that was sent in the present generation succeeded: the next guess starts small again."""
        if generation == self.generation:
            self._guesses = 0

    def remaining(self, now: float) -> float:
        """Seconds until the gate opens; 0 when it is open."""
        return max(0.0, self.until - now)

    def view(self, now: float) -> GateView:
        """What it looks like now."""
        return GateView(self.remaining(now), len(self._line))

    def configure(self, config: GateConfig) -> None:
        """Take other settings. A gate that is closed stays closed until it would have opened."""
        self._config = config

    def inherit(self, other: Gate) -> None:
        """Stay closed for as long as *other*, whose callers come here from now on."""
        if other.until > self.until:
            self.until, self._length, self.closed_at = other.until, other._length, other.closed_at
        self._claimed = max(self._claimed, other._claimed)
