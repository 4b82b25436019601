"""Shared state: the questions a call asks about its scope, and what a store that answers them has to keep to.

A store is asked four things: may this call go (`Store.acquire`), here is what became of it (`Store.report`),
can a retry be afforded (`Store.withdraw`), and never mind (`Store.abandon`); and where a gate is closed, for a
place in its line (`Store.queue`, `Store.leave`). The contract for every store, in memory or not:

* it never raises and never waits: an answer about a remote state comes from a local copy, and where a question
  must be asked it is asked in the background, and the caller told to come back (`Pending`);
* no lock is held when a method returns, so none is ever held across a request or a pause;
* nobody is woken: a caller that must wait is told how long, and asks again with its `Place` in the line;
* what it notices on the way (a circuit that changed, a gate that closed) it returns as `News`, and whoever asked
  tells it on;
* a `Permit` carries the generation it was given in, so a late report cannot change a newer state;
* permits of calls that never come back run out by themselves (a probe's lease).

`gip_resilience.memory.MemoryStore` is the one that needs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from gip_resilience._keys import CircuitKey, ScopeKey
from gip_resilience.breaker import UNCOUNTED
from gip_resilience.events import (
    CircuitChanged,
    CircuitOverruled,
    GateClosed,
    GateOpened,
    ProbeSent,
    ShadowRefused,
    StateDegraded,
)

if TYPE_CHECKING:
    from gip_resilience.breaker import Breaker, BreakerView, Control
    from gip_resilience.budget import Budget, BudgetView
    from gip_resilience.config import Config
    from gip_resilience.gate import Gate, GateView, Held, Place
    from gip_resilience.taxonomy import Fact, Verdict

__all__ = [
    "UNCHANGED",
    "CircuitKey",
    "News",
    "Pending",
    "Permit",
    "Refused",
    "Reported",
    "ScopeKey",
    "Store",
]

News: TypeAlias = (
    CircuitChanged | CircuitOverruled | ProbeSent | GateClosed | GateOpened | ShadowRefused | StateDegraded
)
"""What a store notices while it is asked."""


class Permit:
    """Leave to send once. Given back by `Store.report` or `Store.abandon`, whichever comes first.

    Attributes:
        probe: whether this call is a half-open circuit's probe.
        timed: whether it matters how long the call takes.
        news: what was noticed when it was given.
    """

    # What a permit seldom has is said here: one is made for every attempt.
    host_ticket: int = UNCOUNTED
    model_ticket: int = UNCOUNTED
    probe: bool = False
    timed: bool = False
    news: tuple[News, ...] = ()

    def __init__(self, host: Breaker, model: Breaker | None, gate: Gate, budget: Budget) -> None:
        self.host = host
        self.model = model
        self.gate = gate
        self.budget = budget
        self.gate_generation = gate.generation


class Refused(NamedTuple):
    """The circuit is open.

    Attributes:
        circuit: which one.
        retry_after: seconds until the next call would be admitted.
        news: what was noticed on the way.
    """

    circuit: CircuitKey
    retry_after: float
    news: tuple[News, ...] = ()


class Reported(NamedTuple):
    """What a report changed.

    Attributes:
        news: what changed.
        gate_wait: seconds the gate stays closed; 0 when it is open.
        early: whether the request was sent before the gate closed, by another's answer.
        open_for: seconds the circuit in the way stays open; 0 when none is.
    """

    news: tuple[News, ...] = ()
    gate_wait: float = 0.0
    early: bool = False
    open_for: float = 0.0


class Pending(NamedTuple):
    """Others are being asked, in the background; come back.

    Attributes:
        circuit: which one it is about.
        seconds: after how long.
        news: what was noticed on the way.
    """

    circuit: CircuitKey
    seconds: float
    news: tuple[News, ...] = ()


UNCHANGED = Reported()


class Store(Protocol):
    """What the engine asks. See the module's docstring for the contract."""

    def digest(self, credential: bytes) -> str:
        """What stands for a credential in a `ScopeKey`: keyed, so that it is of no use to whoever sees it."""

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused | Pending:
        """May a request for *key* be sent now?

        Args:
            key: whom it is for.
            config: the settings in force.
            now: monotonic seconds.
            first: whether this is the first time its call asks.
            place: what it waits in line with at a closed gate. Without one it is told of the gate and does not
                wait.
        """

    def queue(self, key: ScopeKey, config: Config, now: float, place: Place) -> Held | None:
        """Wait in line for the next attempt; ``None`` where no gate is closed."""

    def leave(self, place: Place) -> None:
        """Give a place in a line back, if it is still held. Idempotent."""

    def report(
        self,
        key: ScopeKey,
        permit: Permit,
        fact: Fact,
        host: Verdict,
        model: Verdict,
        now: float,
        *,
        took: float = 0.0,
    ) -> Reported:
        """The request was answered, or failed, after *took* seconds.

        Host and model verdicts may differ from the fact's by policy.
        """

    def exhausted(self, key: ScopeKey, permit: Permit, seconds: float, now: float) -> tuple[News, ...]:
        """A good answer says that its quota is used up for *seconds*."""

    def abandon(self, permit: Permit, now: float) -> None:
        """Nothing can be learned from this request (cancelled, the caller's own error)."""

    def withdraw(self, key: ScopeKey, config: Config, cost: float, now: float) -> bool:
        """Can a retry be paid for? If so it is."""

    def circuits(self, now: float) -> dict[CircuitKey, BreakerView]:
        """All circuits that exist, as they look now."""

    def gates(self, now: float) -> dict[ScopeKey, GateView]:
        """All gates that are closed now."""

    def budgets(self) -> dict[ScopeKey, BudgetView]:
        """What is left of every budget; a host's own has neither credential nor model."""

    def control(self, key: CircuitKey, control: Control, config: Config, now: float) -> None:
        """Put an operator's decision over a circuit, made first if need be."""

    def reset(self, key: CircuitKey | None, now: float) -> tuple[News, ...]:
        """Close a circuit (all, with ``None``), forget what it learned, and take an operator's word away."""

    def configure(self, config: Config) -> None:
        """Take other settings for everything shared, what exists included. Nothing that was learned is lost."""
