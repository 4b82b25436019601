"""Shared state of one process: the pure machines under one `threading.Lock`.

Nothing here belongs to an event loop, so threads, several asyncio loops and trio runs may share one store.
"""

from __future__ import annotations

import os
import random
import threading
import weakref
from typing import TYPE_CHECKING, TypeVar

from gip_resilience._keys import CircuitKey, ScopeKey
from gip_resilience.breaker import (
    ASKED,
    REFUSED,
    SHADOWED,
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
from gip_resilience.events import (
    CircuitChanged,
    CircuitOverruled,
    GateClosed,
    GateOpened,
    ProbeSent,
    ShadowRefused,
    StateDegraded,
)
from gip_resilience.gate import Gate, Held, Place
from gip_resilience.state import UNCHANGED, Pending, Permit, Refused, Reported
from gip_resilience.target import credential_digest
from gip_resilience.taxonomy import Retry, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.budget import BudgetView
    from gip_resilience.config import Config
    from gip_resilience.gate import GateView
    from gip_resilience.state import News
    from gip_resilience.taxonomy import Fact

__all__ = ["MAX_KEYS", "MemoryStore"]

K = TypeVar("K")
V = TypeVar("V")

MAX_KEYS = 1024
"""Scopes, circuits and gates remembered at most, each: a client that invents model names must not grow us."""


_CLOSED = State.CLOSED

_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()
_stores_lock = threading.Lock()


def _keep_whole(store: MemoryStore) -> None:
    """A fork in the middle of a change must not leave the child half of it, and a lock that nobody will release."""
    with _stores_lock:
        _stores.add(store)


def _before_fork() -> None:
    _stores_lock.acquire()
    for store in _stores:
        store._lock.acquire()  # noqa: SLF001 - our own class


def _after_fork_in_parent() -> None:
    for store in _stores:
        store._lock.release()  # noqa: SLF001 - our own class
    _stores_lock.release()


def _after_fork_in_child() -> None:
    for store in _stores:
        store._in_child()  # noqa: SLF001 - our own class
    _stores_lock.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )


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
        self._config: Config | None = None
        self._lost = 0
        _keep_whole(self)

    def __repr__(self) -> str:
        return f"<MemoryStore scopes={len(self._lines)} circuits={len(self._circuits)}>"

    def digest(self, credential: bytes) -> str:
        """See `Store.digest`; the key of this process."""
        return credential_digest(credential)

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused | Pending:
        """Gate first, then the circuits of the host and of the model. See `Store.acquire`."""
        with self._lock:
            line = self._lines.get(key)
            if line is None:
                line = self._add_line(key, config, now)
            else:
                line.used = True
            if first:
                line.budget.call(now)
            gate = line.gate
            news: tuple[News, ...] = ()
            if (gate.closed_at is not None or place is not None) and config.gate.mode != "off":
                held, news = self._pass_gate(key, gate, config, now, place)
                if held is not None:
                    return held
            host, model = line.host, line.model
            permit = Permit(host, model, gate, line.budget)
            settings = config.breaker
            if settings.slow_call is not None:
                permit.timed = True
            if self._lost:
                news += (self._degraded(),)
            if news:
                permit.news = news
            if settings.mode == "off" and not line.overruled:
                return permit
            if host.state is _CLOSED and (model is None or model.state is _CLOSED):
                # The everyday case: a closed circuit that nobody has a word in gives tickets and changes nothing.
                permit.host_ticket = ticket = host.admit(now)
                if model is not None and ticket > REFUSED:
                    permit.model_ticket = ticket = model.admit(now)
                if ticket > REFUSED:
                    return permit
            return _pass_circuits(key, permit, now)

    def _pass_gate(
        self, key: ScopeKey, gate: Gate, config: Config, now: float, place: Place | None
    ) -> tuple[Held | None, tuple[News, ...]]:
        """Needs the lock."""
        host, model = key.host, key.model if config.gate.scope == "model" else ""
        if config.gate.mode == "metrics_only":
            if gate.remaining(now) > 0.0:
                return None, (ShadowRefused(key.host, key.model, "gate"),)
        else:
            held = gate.enter(now, self._chance(), place)
            if held is not None:
                return held, ()
        closed_for = gate.opened(now)
        return None, () if closed_for is None else (GateOpened(host, model, closed_for),)

    def queue(self, key: ScopeKey, config: Config, now: float, place: Place) -> Held | None:
        """See `Store.queue`."""
        with self._lock:
            line = self._lines.get(key) or self._add_line(key, config, now)
            return line.gate.enter(now, self._chance(), place) if config.gate.mode == "on" else None

    def leave(self, place: Place) -> None:
        """See `Store.leave`."""
        with self._lock:
            if place.gate is not None:
                place.gate.leave(place)

    def exhausted(self, key: ScopeKey, permit: Permit, seconds: float, now: float) -> tuple[News, ...]:
        """See `Store.exhausted`."""
        with self._lock:
            gate = permit.gate
            until = gate.until
            gate.exhaust(now, seconds, permit.gate_generation)
            return self._closed(key, gate, until, "quota", now)

    def _closed(self, key: ScopeKey, gate: Gate, until: float, source: str, now: float) -> tuple[News, ...]:
        """What to say of a gate that was closed *until* then (needs the lock)."""
        if gate.until <= max(until, now) or gate.config.mode == "off":
            return ()
        model = key.model if gate.config.scope == "model" else ""
        return (GateClosed(key.host, model, gate.until - now, source, lengthened=until > now),)

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
                    circuit_of_model = permit.model
                    if circuit_of_model is not None:
                        circuit_of_model.report(permit.model_ticket, model, now)
                    return UNCHANGED
            hint = fact.hint.seconds if fact.hint and not fact.ok else None
            news: list[News] = []
            open_for = 0.0
            # A slow model is no slow host, unless nobody knows whose answer it was.
            whose = took if permit.model is None else 0.0
            for circuit, breaker, ticket, verdict, seconds in (
                (CircuitKey(key.host), permit.host, permit.host_ticket, host, whose),
                (CircuitKey(key.host, key.model, key.part), permit.model, permit.model_ticket, model, took),
            ):
                if breaker is None or ticket in {UNCOUNTED, SHADOWED}:
                    continue
                change = breaker.report(ticket, verdict, now, hint=hint, chance=self._chance(), took=seconds)
                if change:
                    news.append(CircuitChanged(circuit, change))
                open_for = max(open_for, breaker.retry_after(now))
            if fact.retry is not Retry.AFTER_RESET:
                return Reported(tuple(news), open_for=open_for)
            gate = permit.gate
            until = gate.until
            early = not gate.close(now, hint, permit.gate_generation)
            news += self._closed(key, gate, until, "guess" if hint is None else "hint", now)
            return Reported(tuple(news), gate.remaining(now), early, open_for)

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

    def gates(self, now: float) -> dict[ScopeKey, GateView]:
        """See `Store.gates`."""
        with self._lock:
            return {key: gate.view(now) for key, gate in self._gates.items() if gate.until > now}

    def budgets(self) -> dict[ScopeKey, BudgetView]:
        """See `Store.budgets`."""
        with self._lock:
            found = {ScopeKey(host, "", ""): budget.view() for host, budget in self._budgets.items()}
            return found | {key: line.budget.view() for key, line in self._lines.items() if key.model}

    def control(self, key: CircuitKey, control: Control, config: Config, now: float) -> None:
        """See `Store.control`."""
        with self._lock:
            self._circuit(key, config, now).override(control)

    def reset(self, key: CircuitKey | None, now: float) -> tuple[News, ...]:
        """See `Store.reset`."""
        with self._lock:
            chosen = [(name, breaker) for name, breaker in self._circuits.items() if key in {None, name}]
            overruled = [
                CircuitOverruled(name, Control.AUTO) for name, breaker in chosen if breaker.overruled
            ]
            changes = [(name, breaker.reset(now)) for name, breaker in chosen]
        changed = [CircuitChanged(name, change) for name, change in changes if change is not None]
        return (*overruled, *changed)

    def configure(self, config: Config) -> None:
        """See `Store.configure`. Of several brains that share a store the last word counts."""
        with self._lock:
            self._config = config
            for breaker in self._circuits.values():
                breaker.configure(config.breaker)
            for budget in self._budgets.values():
                budget.configure(config.budget)
            for gate in self._gates.values():
                gate.configure(config.gate)
            for key, line in self._lines.items():
                line.budget.configure(config.budget)
                gate = self._gate(key, config)
                if gate is not line.gate:  # another scope
                    gate.inherit(line.gate)
                    line.gate = gate

    def _add_line(self, key: ScopeKey, config: Config, now: float) -> _Line:
        """Needs the lock."""
        if self._config is not None:
            config = self._config  # a call that began before it came may still be under way
        if len(self._lines) >= self._max_keys:
            self._forget(now)
        host = self._circuit(CircuitKey(key.host), config, now)
        name = CircuitKey(key.host, key.model, key.part)
        model = self._circuit(name, config, now) if key.model or key.part else None
        shared = self._budgets.get(key.host)
        if shared is None:
            shared = Budget(config.budget, now, factor=BUDGET_HOST_FACTOR)
            self._budgets[key.host] = shared
        line = _Line(host, model, self._gate(key, config), self._new_budget(key, config, now, shared))
        self._lines[key] = line
        return line

    def _gate(self, key: ScopeKey, config: Config) -> Gate:
        """Needs the lock."""
        name = key if config.gate.scope == "model" else ScopeKey(key.host, key.credential, "")
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = self._new_gate(name, config)
        return gate

    def _new_gate(self, key: ScopeKey, config: Config) -> Gate:  # noqa: ARG002 - for stores that share it
        """Needs the lock."""
        return Gate(config.gate)

    def _circuit(self, key: CircuitKey, config: Config, now: float) -> Breaker:
        """Needs the lock."""
        breaker = self._circuits.get(key)
        if breaker is None:
            breaker = self._circuits[key] = self._new_circuit(key, config, now)
        return breaker

    def _new_circuit(self, key: CircuitKey, config: Config, now: float) -> Breaker:  # noqa: ARG002 - as above
        """Needs the lock."""
        return Breaker(config.breaker, now)

    def _new_budget(self, key: ScopeKey, config: Config, now: float, shared: Budget) -> Budget:  # noqa: ARG002 - as above
        """Needs the lock."""
        return Budget(config.budget, now, shared)

    def _degraded(self) -> StateDegraded:
        """Needs the lock."""
        lost, self._lost = self._lost, 0
        return StateDegraded(
            "memory", f"{lost} circuits or gates forgotten that were not at rest: too many names"
        )

    def _in_child(self) -> None:
        """The process was forked, and this is the child. The lock is held, and only this thread is left."""
        self._lock = threading.Lock()

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
        self._lost += _drop(self._circuits, lambda b: id(b) not in breakers and not b.overruled, excess)
        excess = len(self._gates) - 2 * self._max_keys
        self._lost += _drop(self._gates, lambda gate: id(gate) not in gates and not gate.waiting, excess)


def _pass_circuits(key: ScopeKey, permit: Permit, now: float) -> Permit | Refused | Pending:
    """The host's circuit, then the model's (needs the store's lock)."""
    ticket = _admit(key, permit.host, permit, now, host=True)
    if ticket == ASKED:
        return Pending(CircuitKey(key.host), permit.host.answer_due(now), permit.news)
    if ticket == REFUSED:
        return Refused(CircuitKey(key.host), permit.host.retry_after(now), permit.news)
    permit.host_ticket = ticket
    if permit.model is None:
        return permit
    ticket = _admit(key, permit.model, permit, now, host=False)
    if ticket in {REFUSED, ASKED}:
        # The host's slot must not stay taken by a call that is not made.
        permit.host.report(permit.host_ticket, Verdict.NEUTRAL, now)
        circuit = CircuitKey(key.host, key.model, key.part)
        if ticket == ASKED:
            return Pending(circuit, permit.model.answer_due(now), permit.news)
        return Refused(circuit, permit.model.retry_after(now), permit.news)
    permit.model_ticket = ticket
    return permit


def _admit(key: ScopeKey, breaker: Breaker, permit: Permit, now: float, *, host: bool) -> int:
    before = breaker.state
    ticket = breaker.admit(now)
    if before is State.CLOSED or ticket in {REFUSED, ASKED, UNCOUNTED}:
        return ticket
    if ticket == SHADOWED:
        permit.news += (ShadowRefused(key.host, key.model, "circuit"),)
        return ticket
    permit.probe = True
    circuit = CircuitKey(key.host) if host else CircuitKey(key.host, key.model, key.part)
    if before is State.OPEN:
        permit.news += (CircuitChanged(circuit, Transition(before, breaker.state, Cause.PROBE)),)
    permit.news += (ProbeSent(circuit),)
    return ticket


def _drop(table: dict[K, V], when: Callable[[V], bool], most: int | None = None) -> int:
    """Remove the values that *when* picks: all, or of the oldest at most *most*. Returns how many."""
    chosen = [key for key, value in table.items() if when(value)]
    if most is not None:
        chosen = chosen[: max(0, most)]
    for key in chosen:
        del table[key]
    return len(chosen)
