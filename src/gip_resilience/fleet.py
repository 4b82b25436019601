"""The deciding half of shared state: a process as one of a fleet, without the wire.

`SharedStore` answers what `gip_resilience.memory.MemoryStore` answers, from what is in memory, and besides

* says what others should know, and asks what only they can know, as `Question` values;
* takes in answers (`SharedStore.answered`) and what others publish (`SharedStore.heard`);
* is told whether the store can be reached (`SharedStore.linked`), and goes on by itself while it cannot.

Who carries the questions is not its business: `gip_resilience.redis.RedisStore` does over a socket, a simulation on
a virtual clock. Nothing here waits.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from gip_resilience._fleet_breaker import SharedBreaker
from gip_resilience._fleet_machines import Member, SharedBudget, SharedGate
from gip_resilience._fleet_names import Names
from gip_resilience._fleet_words import (
    CircuitState,
    Freed,
    GateState,
    Opened,
    Overruled,
    Question,
    milliseconds,
    read_budget,
    read_circuit,
    read_gate,
    read_news,
)
from gip_resilience._keys import CircuitKey, ScopeKey
from gip_resilience._version import __version__
from gip_resilience.config import StoreConfig
from gip_resilience.events import CircuitChanged, GateOpened
from gip_resilience.memory import MAX_KEYS, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience._fleet_words import Reply, Said
    from gip_resilience.breaker import Breaker
    from gip_resilience.budget import Budget
    from gip_resilience.config import Config
    from gip_resilience.gate import Gate
    from gip_resilience.state import News

__all__ = ["Question", "SharedStore"]


class SharedStore(MemoryStore):
    """State that several processes share.

    Args:
        say: takes a question that should be asked at once. Called under the store's lock: it must not wait.
        node: a name for this process that no other has; letters and digits.
        namespace: keeps fleets apart that share a store.
        secret: keys the digests of credentials; the same for the whole fleet.
        chance: random numbers in [0, 1), for the spread of a gate and the jitter of an open time.
        max_keys: scopes and circuits remembered at most, each; the oldest that is at rest is forgotten first.

    Raises:
        ValueError: the namespace holds something else than letters, digits, dots, dashes and underscores.

    Thread-safe and task-safe; bound to no event loop.
    """

    def __init__(
        self,
        say: Callable[[Question], object],
        *,
        node: str,
        namespace: str = "default",
        secret: bytes = b"",
        chance: Callable[[], float] = random.random,
        max_keys: int = MAX_KEYS,
    ) -> None:
        super().__init__(chance=chance, max_keys=max_keys)
        self._member = Member(Names(namespace, secret), node, StoreConfig(), say)
        self._tags: dict[str, CircuitKey | ScopeKey] = {}
        self._unsure = False

    def __repr__(self) -> str:
        state = "shared" if self._member.up else "on its own"
        return f"<{type(self).__name__} {self._member.names.namespace!r} {state}, circuits={len(self._circuits)}>"

    @property
    def up(self) -> bool:
        """Whether the shared state can be reached."""
        return self._member.up

    @property
    def names(self) -> Names:
        """What its records are called."""
        return self._member.names

    def digest(self, credential: bytes) -> str:
        """See `Store.digest`; the same in the whole fleet."""
        return self._member.names.digest(credential)

    def configure(self, config: Config) -> None:
        """See `Store.configure`."""
        self._member.settings = config.store
        super().configure(config)

    # ---- machines that say and follow ----------------------------------------------------------------------

    def _new_circuit(self, key: CircuitKey, config: Config, now: float) -> Breaker:
        self._member.settings = config.store
        breaker = SharedBreaker(config.breaker, now, key, self._member)
        self._remember(breaker.tag, key)
        self._member.say(breaker.look(now))
        return breaker

    def _new_gate(self, key: ScopeKey, config: Config) -> Gate:
        gate = SharedGate(config.gate, key, self._member)
        self._remember(gate.tag, key)
        self._member.say(gate.look(0.0))
        return gate

    def _new_budget(self, key: ScopeKey, config: Config, now: float, shared: Budget) -> Budget:
        if config.store.budget != "fleet":
            return super()._new_budget(key, config, now, shared)
        budget = SharedBudget(config.budget, now, shared, key, self._member)
        self._remember(budget.tag, key)
        return budget

    def _remember(self, tag: str, key: CircuitKey | ScopeKey) -> None:
        """Needs the lock."""
        if len(self._tags) >= 8 * self._max_keys:
            self._tags = {tag: key for tag, key in self._tags.items() if self._machine(tag) is not None}
        self._tags[tag] = key

    def _machine(self, tag: str) -> SharedBreaker | SharedGate | SharedBudget | None:
        """What a tag is of, if it is still there (needs the lock)."""
        key = self._tags.get(tag)
        found: object = None
        if isinstance(key, CircuitKey):
            found = self._circuits.get(key)
        elif key is not None:
            found = self._gates.get(key)
            if not isinstance(found, SharedGate) or found.tag != tag:
                line = self._lines.get(key)
                found = None if line is None else line.budget
        if isinstance(found, (SharedBreaker, SharedGate, SharedBudget)) and found.tag == tag:
            return found
        return None

    def _of_all(self) -> tuple[list[SharedBreaker], list[SharedGate], list[SharedBudget]]:
        """Needs the lock."""
        circuits = [breaker for breaker in self._circuits.values() if isinstance(breaker, SharedBreaker)]
        gates = [gate for gate in self._gates.values() if isinstance(gate, SharedGate)]
        lines = [line.budget for line in self._lines.values()]
        return circuits, gates, [budget for budget in lines if isinstance(budget, SharedBudget)]

    # ---- the wire ----------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Question]:
        """What the regular flush asks and tells; nothing where nothing happened.

        What is in use is asked about too, because an answer costs no more than a report; what rests is not, because
        changes are published. Where publications may have been lost (`missed`) everything is asked about once.
        """
        with self._lock:
            circuits, gates, budgets = self._of_all()
            unsure, self._unsure = self._unsure, False
            busy = {id(breaker) for breaker in circuits if breaker.news}
            for breaker in circuits:
                breaker.tend(now)
            asked = [breaker.look(now) for breaker in circuits if unsure or id(breaker) in busy]
            used = {
                id(line.gate)
                for line in self._lines.values()
                if id(line.host if line.model is None else line.model) in busy
            }
            asked += [gate.look(now) for gate in gates if unsure or id(gate) in used]
            asked += filter(None, [budget.due() for budget in budgets])
        return asked

    def answered(self, question: Question, reply: Reply, now: float) -> tuple[News, ...]:
        """The store answered. What is not an answer to such a question is ignored."""
        with self._lock:
            machine = self._machine(question.tag)
            if isinstance(machine, SharedBudget):
                given = read_budget(reply)
                if given is not None:
                    machine.answered(*given)
            elif isinstance(machine, SharedGate):
                closed = read_gate(reply)
                if closed is not None:
                    if closed.opened:
                        return self._open_gate(machine, now)
                    until = machine.until
                    news = machine.answered(closed, now)
                    return self._closed(machine.key, machine, until, "fleet", now) if news else ()
            elif machine is not None:
                state = read_circuit(reply)
                if state is not None:
                    change = machine.answered(state, now, question.script)
                    return () if change is None else (CircuitChanged(machine.key, change),)
        return ()

    def heard(self, payload: object, now: float) -> tuple[News, ...]:
        """Something was published. What is not for us, or not news, is ignored."""
        news = read_news(payload)
        if news is None:
            return ()
        with self._lock:
            return self._take(*news, now)

    def _take(self, tag: str, said: Said, now: float) -> tuple[News, ...]:
        """Needs the lock."""
        if isinstance(said, Overruled):
            return self._overrule(tag, said.version, now)
        machine = self._machine(tag)
        if isinstance(machine, SharedBreaker):
            if isinstance(said, CircuitState):
                change = machine.follow(said, now)
                return () if change is None else (CircuitChanged(machine.key, change),)
            if isinstance(said, Freed):
                machine.freed(now)
        elif isinstance(machine, SharedGate):
            if isinstance(said, GateState):
                return self._follow_gate(machine, said, now)
            if isinstance(said, Opened):
                return self._open_gate(machine, now)
        return ()

    def _overrule(self, scope: str, version: int, now: float) -> tuple[News, ...]:
        """An operator says so, of all that the scope has (needs the lock)."""
        circuits, gates, _ = self._of_all()
        changes = [
            (breaker.key, breaker.closed_by_operator(version, now))
            for breaker in circuits
            if scope in breaker.scopes
        ]
        news: list[News] = [CircuitChanged(key, change) for key, change in changes if change is not None]
        for gate in gates:
            if scope in gate.scopes:
                news += self._open_gate(gate, now)
        return tuple(news)

    def _open_gate(self, gate: SharedGate, now: float) -> tuple[News, ...]:
        """An operator says so (needs the lock)."""
        gate.open(now)
        closed_for = gate.opened(now)
        return () if closed_for is None else (GateOpened(gate.key.host, gate.key.model, closed_for),)

    def _follow_gate(self, gate: SharedGate, said: GateState, now: float) -> tuple[News, ...]:
        """Needs the lock."""
        until = gate.until
        return self._closed(gate.key, gate, until, "fleet", now) if gate.follow(said, now) else ()

    def missed(self) -> None:
        """Publications may have been lost: the next flush asks about everything."""
        with self._lock:
            self._unsure = True

    def linked(self, now: float, *, up: bool) -> list[Question]:
        """The store is there (again), or it is away.

        Returns:
            What to tell and ask it first.
        """
        with self._lock:
            self._member.up = up
            circuits, gates, budgets = self._of_all()
            for budget in budgets:
                budget.linked()
            if not up:
                return []
            self._unsure = False
            return [breaker.linked(now) for breaker in circuits] + [gate.linked(now) for gate in gates]

    def parting(self, now: float) -> list[Question]:
        """What is said last, before this process ends: what it has not told yet, and that it does not probe."""
        if not self._member.up:
            return []
        with self._lock:
            circuits, _, _ = self._of_all()
            free = [question for breaker in circuits for question in breaker.parting(now)]
        return self.due(now) + free

    def hello(self, seconds: float) -> Question:
        """A sign of life, good for so long; and a way to see whether the store takes anything."""
        member = self._member
        key = member.names.key(member.node, "node")
        return Question("hello", member.node, (key,), (__version__, milliseconds(seconds)))
