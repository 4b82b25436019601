"""Shared state: the questions a call asks about its scope, and the store that answers them.

A store is asked four things: may this call go (`Store.acquire`), here is what became of it (`Store.report`),
can a retry be afforded (`Store.withdraw`), and never mind (`Store.abandon`); and where a gate is closed, for a
place in its line (`Store.queue`, `Store.leave`). The contract for every store, in memory or not:

* it never raises and never waits: an answer about a remote state comes from a local copy;
* no lock is held when a method returns, so none is ever held across a request or a pause;
* nobody is woken: a caller that must wait is told how long, and asks again with its `Place` in the line;
* a `Permit` carries the generation it was given in, so a late report cannot change a newer state;
* permits of calls that never come back run out by themselves (a probe's lease).

`MemoryStore` answers with the pure machines under one `threading.Lock`. Nothing in it belongs to an event
loop, so threads, several asyncio loops and trio runs may share one.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeVar

from gip_resilience.breaker import (
    REFUSED,
    UNCOUNTED,
    Breaker,
    BreakerView,
    Cause,
    Control,
    State,
    Transition,
)
from gip_resilience.budget import Budget
from gip_resilience.defaults import BUDGET_HOST_FACTOR
from gip_resilience.gate import Gate, Held, Place
from gip_resilience.taxonomy import Retry, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.config import Config
    from gip_resilience.taxonomy import Fact

K = TypeVar("K")
V = TypeVar("V")

MAX_KEYS = 1024
"""Scopes, circuits and gates remembered at most, each: a client that invents model names must not grow us."""


class ScopeKey(NamedTuple):
    """Whom a call is for, and on whose account.

    Attributes:
        host: host and, unless it is the scheme's own, port.
        credential: a keyed digest of the key the request carries, never the key; empty without one.
        model: the model's full name; empty when it is not known.
        part: which of several that serve the model (a deployment, a region); empty where there is one.
    """

    host: str
    credential: str
    model: str
    part: str = ""


class _HostAndModel(NamedTuple):
    host: str
    model: str = ""


class CircuitKey(_HostAndModel):
    """Names a circuit: of a host (``model`` is empty), or of a model behind it. Compares and unpacks as the two.

    Args:
        host: host and, unless it is the scheme's own, port.
        model: the model's full name; empty for the host's own circuit.
        part: which part of the model it is of, where parts are told apart; it goes into the model's name, behind
            an ``@``.
    """

    __slots__ = ()

    def __new__(cls, host: str, model: str = "", part: str = "") -> Self:
        """One tuple of two."""
        return super().__new__(cls, host, f"{model}@{part}" if part else model)


Change = tuple[CircuitKey, Transition]
"""A circuit, and how its state changed."""


class Permit:
    """Leave to send once. Given back by `Store.report` or `Store.abandon`, whichever comes first.

    Attributes:
        probe: whether this call is a half-open circuit's probe.
        timed: whether it matters how long the call takes.
        changes: circuits that this call made half-open by becoming their probe.
    """

    __slots__ = (
        "budget",
        "changes",
        "gate",
        "gate_generation",
        "host",
        "host_ticket",
        "model",
        "model_ticket",
        "probe",
        "timed",
    )

    def __init__(self, host: Breaker, model: Breaker | None, gate: Gate, budget: Budget) -> None:
        self.host = host
        self.model = model
        self.gate = gate
        self.budget = budget
        self.host_ticket = UNCOUNTED
        self.model_ticket = UNCOUNTED
        self.gate_generation = gate.generation
        self.probe = False
        self.timed = False
        self.changes: tuple[Change, ...] = ()


class Refused(NamedTuple):
    """The circuit is open.

    Attributes:
        circuit: which one.
        retry_after: seconds until the next call would be admitted.
    """

    circuit: CircuitKey
    retry_after: float


class Reported(NamedTuple):
    """What a report changed.

    Attributes:
        changes: circuits that changed their state.
        gate_wait: seconds the gate stays closed; 0 when it is open.
        gate_news: whether this answer closed the gate (and not one that was sent before it closed).
        open_for: seconds the circuit in the way stays open; 0 when none is.
    """

    changes: tuple[Change, ...] = ()
    gate_wait: float = 0.0
    gate_news: bool = True
    open_for: float = 0.0


UNCHANGED = Reported()


class Store(Protocol):
    """What the engine asks. See the module's docstring for the contract."""

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused:
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

    def exhausted(self, permit: Permit, seconds: float, now: float) -> None:
        """A good answer says that its quota is used up for *seconds*."""

    def abandon(self, permit: Permit, now: float) -> None:
        """Nothing can be learned from this request (cancelled, the caller's own error)."""

    def withdraw(self, key: ScopeKey, config: Config, cost: float, now: float) -> bool:
        """Can a retry be paid for? If so it is."""

    def circuits(self, now: float) -> dict[CircuitKey, BreakerView]:
        """All circuits that exist, as they look now."""

    def control(self, key: CircuitKey, control: Control, config: Config) -> None:
        """Put an operator's decision over a circuit, made first if need be."""

    def reset(self, key: CircuitKey | None) -> tuple[Change, ...]:
        """Close a circuit (all, with ``None``) and forget what it learned. Returns what changed its state."""


class _Line:
    """Everything one scope key leads to, found once.

    ``used`` means more than once: a scope that is met a single time is the first to be forgotten.
    """

    __slots__ = ("budget", "gate", "host", "model", "used")

    def __init__(self, host: Breaker, model: Breaker | None, gate: Gate, budget: Budget) -> None:
        self.host = host
        self.model = model
        self.gate = gate
        self.budget = budget
        self.used = False

    @property
    def overruled(self) -> bool:
        """Whether an operator has a word in either circuit."""
        return self.host.overruled or (self.model is not None and self.model.overruled)


class MemoryStore:
    """Shared state of this process.

    Args:
        chance: random numbers in [0, 1), for the spread of a gate and the jitter of an open time.
        max_keys: scopes and circuits remembered at most, each; the oldest that is at rest is forgotten first.

    Thread-safe and task-safe; bound to no event loop.
    """

    def __init__(self, *, chance: Callable[[], float] = random.random, max_keys: int = MAX_KEYS) -> None:
        self._chance = chance
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._lines: dict[ScopeKey, _Line] = {}
        self._circuits: dict[CircuitKey, Breaker] = {}
        self._gates: dict[ScopeKey, Gate] = {}
        self._budgets: dict[str, Budget] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore scopes={len(self._lines)} circuits={len(self._circuits)}>"

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused:
        """Gate first, then the circuits of the host and of the model. See `Store.acquire`."""
        with self._lock:
            line = self._lines.get(key)
            if line is None:
                line = self._add_line(key, config, now)
            else:
                line.used = True
            if first:
                line.budget.call(now)
            if (line.gate.until > now or place is not None) and config.gate.mode != "off":
                held = line.gate.enter(now, self._chance(), place)
                if held is not None:
                    return held
            permit = Permit(line.host, line.model, line.gate, line.budget)
            permit.timed = config.breaker.slow_call is not None
            if config.breaker.mode == "off" and not line.overruled:
                return permit
            return _pass_circuits(key, permit, now)

    def queue(self, key: ScopeKey, config: Config, now: float, place: Place) -> Held | None:
        """See `Store.queue`."""
        with self._lock:
            line = self._lines.get(key) or self._add_line(key, config, now)
            return line.gate.enter(now, self._chance(), place) if config.gate.mode != "off" else None

    def leave(self, place: Place) -> None:
        """See `Store.leave`."""
        with self._lock:
            if place.gate is not None:
                place.gate.leave(place)

    def exhausted(self, permit: Permit, seconds: float, now: float) -> None:
        """See `Store.exhausted`."""
        with self._lock:
            permit.gate.exhaust(now, seconds, permit.gate_generation)

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
        """See `Store.report`."""
        with self._lock:
            if fact.ok:
                permit.budget.deposit()
                permit.gate.passed(permit.gate_generation)
                if not permit.probe and not permit.timed:
                    # The everyday case: nothing can change but two counters.
                    permit.host.report(permit.host_ticket, host, now)
                    if permit.model is not None:
                        permit.model.report(permit.model_ticket, model, now)
                    return UNCHANGED
            hint = fact.hint.seconds if fact.hint and not fact.ok else None
            changes = []
            open_for = 0.0
            # A slow model is no slow host, unless nobody knows whose answer it was.
            whose = took if permit.model is None else 0.0
            for circuit, breaker, ticket, verdict, seconds in (
                (CircuitKey(key.host), permit.host, permit.host_ticket, host, whose),
                (CircuitKey(key.host, key.model, key.part), permit.model, permit.model_ticket, model, took),
            ):
                if breaker is None or ticket == UNCOUNTED:
                    continue
                change = breaker.report(ticket, verdict, now, hint=hint, chance=self._chance(), took=seconds)
                if change:
                    changes.append((circuit, change))
                open_for = max(open_for, breaker.retry_after(now))
            if fact.retry is not Retry.AFTER_RESET:
                return Reported(tuple(changes), open_for=open_for)
            news = permit.gate.close(now, hint, permit.gate_generation)
            return Reported(tuple(changes), permit.gate.remaining(now), news, open_for)

    def abandon(self, permit: Permit, now: float) -> None:
        """See `Store.abandon`."""
        with self._lock:
            permit.host.report(permit.host_ticket, Verdict.NEUTRAL, now)
            if permit.model is not None:
                permit.model.report(permit.model_ticket, Verdict.NEUTRAL, now)

    def withdraw(self, key: ScopeKey, config: Config, cost: float, now: float) -> bool:
        """See `Store.withdraw`."""
        with self._lock:
            line = self._lines.get(key) or self._add_line(key, config, now)
            return line.budget.withdraw(cost)

    def circuits(self, now: float) -> dict[CircuitKey, BreakerView]:
        """See `Store.circuits`."""
        with self._lock:
            return {key: breaker.view(now) for key, breaker in self._circuits.items()}

    def control(self, key: CircuitKey, control: Control, config: Config) -> None:
        """See `Store.control`."""
        with self._lock:
            self._circuit(key, config).override(control)

    def reset(self, key: CircuitKey | None) -> tuple[Change, ...]:
        """See `Store.reset`."""
        with self._lock:
            chosen = [(name, breaker) for name, breaker in self._circuits.items() if key in {None, name}]
            changes = [(name, breaker.reset()) for name, breaker in chosen]
        return tuple((name, change) for name, change in changes if change is not None)

    def _add_line(self, key: ScopeKey, config: Config, now: float) -> _Line:
        """Needs the lock."""
        if len(self._lines) >= self._max_keys:
            self._forget(now)
        host = self._circuit(CircuitKey(key.host), config)
        name = CircuitKey(key.host, key.model, key.part)
        model = self._circuit(name, config) if key.model or key.part else None
        gated = key if config.gate.scope == "model" else ScopeKey(key.host, key.credential, "")
        gate = self._gates.get(gated)
        if gate is None:
            gate = self._gates[gated] = Gate(config.gate)
        shared = self._budgets.get(key.host)
        if shared is None:
            shared = Budget(config.budget, now, factor=BUDGET_HOST_FACTOR)
            self._budgets[key.host] = shared
        line = self._lines[key] = _Line(host, model, gate, Budget(config.budget, now, shared))
        return line

    def _circuit(self, key: CircuitKey, config: Config) -> Breaker:
        """Needs the lock."""
        breaker = self._circuits.get(key)
        if breaker is None:
            breaker = self._circuits[key] = Breaker(config.breaker)
        return breaker

    def _forget(self, now: float) -> None:
        """Make room (needs the lock): second chance for scopes, then what no scope leads to and is at rest.

        Half of the table goes at once, so the sweep costs nothing per call. An open circuit and a closed gate
        outlive their scopes: what they know must not be lost to a flood of other names.
        """
        idle = [key for key, line in self._lines.items() if not line.used]
        for key in (idle or list(self._lines))[: self._max_keys // 2 + 1]:
            del self._lines[key]
        for line in self._lines.values():
            line.used = False
        breakers = {id(line.host) for line in self._lines.values()}
        breakers |= {id(line.model) for line in self._lines.values()}
        gates = {id(line.gate) for line in self._lines.values()}
        _drop(self._circuits, lambda breaker: id(breaker) not in breakers and breaker.at_rest)
        _drop(self._gates, lambda gate: id(gate) not in gates and gate.until <= now and not gate.waiting)
        hosts = {key.host for key in self._lines}
        for host in [host for host in self._budgets if host not in hosts]:
            del self._budgets[host]
        # Nothing at rest and still too many: someone makes up names faster than circuits close. What a scope
        # leads to stays all the same (a host's circuit is the oldest of all), and so does an operator's word, and a
        # gate with somebody in line.
        excess = len(self._circuits) - 2 * self._max_keys
        _drop(self._circuits, lambda b: id(b) not in breakers and not b.overruled, excess)
        excess = len(self._gates) - 2 * self._max_keys
        _drop(self._gates, lambda gate: id(gate) not in gates and not gate.waiting, excess)


def _pass_circuits(key: ScopeKey, permit: Permit, now: float) -> Permit | Refused:
    """The host's circuit, then the model's (needs the store's lock)."""
    ticket = _admit(CircuitKey(key.host), permit.host, permit, now)
    if ticket == REFUSED:
        return Refused(CircuitKey(key.host), permit.host.retry_after(now))
    permit.host_ticket = ticket
    if permit.model is None:
        return permit
    circuit = CircuitKey(key.host, key.model, key.part)
    ticket = _admit(circuit, permit.model, permit, now)
    if ticket == REFUSED:
        # The host's slot must not stay taken by a call that is not made.
        permit.host.report(permit.host_ticket, Verdict.NEUTRAL, now)
        return Refused(circuit, permit.model.retry_after(now))
    permit.model_ticket = ticket
    return permit


def _admit(circuit: CircuitKey, breaker: Breaker, permit: Permit, now: float) -> int:
    before = breaker.state
    ticket = breaker.admit(now)
    if before is not State.CLOSED and breaker.is_probe(ticket):
        permit.probe = True
        if before is State.OPEN:
            permit.changes += ((circuit, Transition(before, breaker.state, Cause.PROBE)),)
    return ticket


def _drop(table: dict[K, V], when: Callable[[V], bool], most: int | None = None) -> None:
    """Remove the values that *when* picks: all, or of the oldest at most *most*."""
    chosen = [key for key, value in table.items() if when(value)]
    for key in chosen if most is None else chosen[: max(0, most)]:
        del table[key]
