"""Gate and budget of a process that is one of a fleet, and what all its machines share.

Pure: ``now`` is an argument, nothing waits. See `gip_resilience._fleet_breaker` for how these machines are meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gip_resilience._fleet_words import Question, milliseconds
from gip_resilience._keys import CircuitKey
from gip_resilience.budget import Budget
from gip_resilience.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience._fleet_names import Names
    from gip_resilience._fleet_words import GateState
    from gip_resilience._keys import ScopeKey
    from gip_resilience.config import BudgetConfig, GateConfig, StoreConfig

SLACK: Final = 0.1
"""Seconds by which a gate may differ from what the others know before they are told: 429s of one burst carry the same
whole number of seconds, and each would be news to everybody."""

BATCH: Final = 5.0
"""Tokens taken from the fleet's budget at a time."""

BUDGET_REST: Final = 60.0
"""Seconds after which a fleet's budget that nobody asks is full again."""


class Member:
    """A process as one of a fleet: what all its machines share.

    Attributes:
        names: of the namespace.
        node: names this process, for the length of its life.
        up: whether the store can be asked.
        settings: how it is asked.
    """

    __slots__ = ("_say", "names", "node", "settings", "up")

    def __init__(
        self, names: Names, node: str, settings: StoreConfig, say: Callable[[Question], object]
    ) -> None:
        self.names = names
        self.node = node
        self.settings = settings
        self.up = False
        self._say = say

    def move(self, node: str, say: Callable[[Question], object]) -> None:
        """It was forked: this is another process now."""
        self.node = node
        self.up = False
        self._say = say

    def say(self, question: Question) -> None:
        """Ask or tell the store, soon. While it is away nothing is kept: what still holds is told when it is back."""
        if self.up:
            self._say(question)


class SharedGate(Gate):
    """One gate, and how long the fleet has it closed.

    Attributes:
        key: whose it is.
        tag: its name on the store.
        scopes: what an operator's word about it may be about (`Names.scopes`).
    """

    __slots__ = ("_known", "_member", "key", "scopes", "tag")

    def __init__(self, config: GateConfig, key: ScopeKey, member: Member) -> None:
        super().__init__(config)
        self._member = member
        self._known = 0.0
        self.key = key
        self.tag = member.names.gate(key)
        self.scopes = member.names.scopes(_labels(key))

    def look(self, now: float, length: float = 0.0) -> Question:
        """How long is it closed; and it is for *length* seconds at least."""
        names, key = self._member.names, self.key
        claimed = max(length, self._claimed - now) if length > 0.0 else 0.0
        return Question(
            "gate",
            self.tag,
            (names.key(self.tag, "gate"),),
            (
                names.channel,
                self.tag,
                self._member.node,
                *_labels(key),
                milliseconds(length),
                milliseconds(claimed),
                milliseconds(self._config.max_wait),
            ),
        )

    def close(self, now: float, hint: float | None, generation: int) -> bool:
        """See `Gate.close`; the others are told."""
        news = super().close(now, hint, generation)
        self._tell(now)
        return news

    def exhaust(self, now: float, seconds: float, generation: int) -> None:
        """See `Gate.exhaust`; the others are told."""
        super().exhaust(now, seconds, generation)
        self._tell(now)

    def _tell(self, now: float) -> None:
        if self.until > max(now, self._known + SLACK) and self._config.mode != "off":
            self._known = self.until
            self._member.say(self.look(now, self.until - now))

    def answered(self, state: GateState, now: float) -> bool:
        """The store's answer: as `follow`, and where it knows of less, it is told (it was restarted, or emptied)."""
        self._known = min(self._known, now + state.left)
        self._tell(now)
        return self.follow(state, now)

    def follow(self, state: GateState, now: float) -> bool:
        """What the others know. Returns whether it is closed for longer than we knew."""
        left = min(state.left, self._config.max_wait)
        self._known = max(self._known, now + left)
        if now + left <= max(self.until, now) + SLACK:
            return False
        self.extend(now, left, max(left, state.claimed))
        # What is on its way now was sent before this was known: its 429 will be no news.
        self.generation += 1
        return True

    def linked(self, now: float) -> Question:
        """The store is back."""
        self._known = self.until
        return self.look(now, max(0.0, self.until - now))

    def open(self, now: float) -> None:
        """An operator opened it."""
        self.until = min(self.until, now)
        self._claimed = self._known = self.until


class SharedBudget(Budget):
    """The retry budget of one scope, of which the fleet as a whole has only so much.

    Tokens of the fleet are taken a few at a time, in the background: a retry is paid in advance where it has not yet
    been asked for any, and not at all where the answer was that there are none.
    """

    __slots__ = ("_asking", "_brought", "_dry", "_leased", "_member", "_used", "key", "tag")

    def __init__(
        self, config: BudgetConfig, now: float, parent: Budget | None, key: ScopeKey, member: Member
    ) -> None:
        super().__init__(config, now, parent)
        self._member = member
        self.key = key
        self.tag = member.names.budget(key)
        self._leased = 0.0
        self._brought = 0.0
        self._asking = self._dry = self._used = False

    def withdraw(self, cost: float) -> bool:
        """See `Budget.withdraw`; while the store is away, what this process has of its own is enough."""
        if not self._member.up:
            return super().withdraw(cost)
        if self._leased < cost and not self._asking:
            self._asking = self._used = True
            self._member.say(self.look(max(BATCH, cost - self._leased)))
        if (self._dry and self._leased < cost) or not super().withdraw(cost):
            return False
        self._leased -= cost
        return True

    def deposit(self) -> None:
        """See `Budget.deposit`."""
        super().deposit()
        if self._used:
            self._brought += self._config.deposit

    def look(self, want: float) -> Question:
        """Give me some, and take what successes brought."""
        brought, self._brought = self._brought, 0.0
        return Question(
            "budget",
            self.tag,
            (self._member.names.key(self.tag, "budget"),),
            (
                *_labels(self.key),
                round(self._member.settings.budget_capacity * 1000),
                round(brought * 1000),
                round(want * 1000),
                milliseconds(BUDGET_REST),
            ),
        )

    def due(self) -> Question | None:
        """What the regular flush says."""
        if not self._used or self._asking or (self._brought == 0.0 and not self._dry):
            return None
        self._asking = True
        return self.look(max(0.0, BATCH - self._leased) if self._dry else 0.0)

    def answered(self, given: float, left: float) -> None:
        """An answer of the store."""
        self._asking = False
        self._leased = min(self._leased + given, 2.0 * BATCH)
        self._dry = left <= 0.0 and self._leased < 1.0
        if left >= self._member.settings.budget_capacity - BATCH and not self._dry:
            self._used = False  # full again, or nearly: successes need not be told

    def linked(self) -> None:
        """The store is back, or gone: whatever was asked is not answered any more."""
        self._asking = self._dry = False


def _labels(key: ScopeKey) -> CircuitKey:
    """What a person who looks at the store is shown: host and model, never a credential."""
    return CircuitKey(key.host, key.model, key.part)
