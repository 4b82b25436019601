"""The wire between processes and the server, and what a process does with it: what the two threads of a store do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import gip_resilience as gr
from benchmarks.fleet.server import Server
from gip_resilience.breaker import State
from gip_resilience.events import CircuitChanged
from gip_resilience.fleet import Question, SharedStore
from gip_resilience.simulation.fleets import Ours

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from gip_resilience._fleet_words import Reply
    from gip_resilience.simulation.clockwork import Clock, Script
    from gip_resilience.state import News

LATENCY = 0.0005
"""Seconds one way, in the median; lognormal."""

SIGMA = 0.5
EPOCH = 1_700_000_000.0


class Load(NamedTuple):
    """What one second brings to the server.

    Attributes:
        trips: pipelines.
        scripts: scripts run.
        published: messages published.
        delivered: messages sent to listeners.
    """

    trips: Counter[int]
    scripts: Counter[int]
    published: Counter[int]
    delivered: Counter[int]


class Network:
    """Everybody's connection to the one server.

    Args:
        clock: the virtual one.
        clients: how many there are.
        chance: for latencies.

    Attributes:
        away: whether the server cannot be reached.
        load: what it has had to do.
        at: calls a function with a value at a time; set before the first call is made.
    """

    def __init__(self, clock: Clock, clients: int, chance: random.Random) -> None:
        self._clock = clock
        self._chance = chance
        self._server = Server(lambda: EPOCH + clock.now, self._publish)
        self._arrived = [0.0] * (3 * clients)
        self.members: list[Member] = []
        self.away = False
        self.load = Load(Counter(), Counter(), Counter(), Counter())
        self.at: Callable[[float, Callable[[Any], None], Any], None] = _not_yet

    def _later(self, lane: int) -> float:
        """When something sent now arrives: on one lane in the order in which it was sent."""
        due = self._clock.now + self._chance.lognormvariate(0.0, SIGMA) * LATENCY
        due = self._arrived[lane] = max(due, self._arrived[lane])
        return due

    def ask(self, member: Member, questions: list[Question]) -> None:
        """A pipeline."""
        self.load.trips[int(self._clock.now)] += 1
        self.at(self._later(3 * member.number), self._run, (member, questions))

    def _run(self, sent: tuple[Member, list[Question]]) -> None:
        member, questions = sent
        if self.away:
            member.lost()
            return
        self.load.scripts[int(self._clock.now)] += len(questions)
        replies = [(question, self._server.run(question)) for question in questions]
        self.at(self._later(3 * member.number + 1), member.answered, replies)

    def _publish(self, payload: bytes) -> None:
        second = int(self._clock.now)
        self.load.published[second] += 1
        self.load.delivered[second] += len(self.members)
        for member in self.members:
            self.at(self._later(3 * member.number + 2), member.heard, payload)

    def leave(self) -> None:
        """The server goes away, with all it had."""
        self.away = True
        self._server.clear()

    def come_back(self) -> None:
        """It is back, empty; everybody finds that out at the next attempt to connect."""
        self.away = False


def _not_yet(*event: object) -> None:
    raise AssertionError(f"the network has no clockwork yet: {event}")


class Member:
    """What carries one store's words: at once where the store says so, else with the next report."""

    def __init__(
        self, number: int, network: Network, clock: Clock, chance: random.Random, interval: float
    ) -> None:
        self.number = number
        self._network = network
        self._clock = clock
        self._interval = interval
        self._phase = chance.random() * interval
        self._outbox: list[Question] = []
        self._expected = False
        self.opened: Callable[[], None] = lambda: None
        self.store = SharedStore(self._say, node=f"{number:016x}", chance=chance.random)
        self.store.linked(0.0, up=True)
        network.members.append(self)

    def _say(self, question: Question) -> None:
        # What is said in one breath goes in one pipeline.
        if not self._outbox:
            self._network.at(self._clock.now, self._send, None)
        self._outbox.append(question)

    def _send(self, _: None) -> None:
        said, self._outbox = self._outbox, []
        self._network.ask(self, said)

    def used(self) -> None:
        """A call was made: there will be something to report."""
        if not self._expected:
            self._expected = True
            rest = self._interval - (self._clock.now - self._phase) % self._interval
            self._network.at(self._clock.now + max(rest, 0.001), self._report, None)

    def _report(self, _: None) -> None:
        self._expected = False
        due = self.store.due(self._clock.now)
        if not self.store.up:
            self._try_to_connect(None)
        elif due:
            self._network.ask(self, due)
            self.used()

    def answered(self, replies: list[tuple[Question, Reply]]) -> None:
        """The server's answer to a pipeline."""
        for question, reply in replies:
            self._look(self.store.answered(question, reply, self._clock.now))

    def heard(self, payload: bytes) -> None:
        """Something was published."""
        self._look(self.store.heard(payload, self._clock.now))

    def _look(self, news: tuple[News, ...]) -> None:
        if any(isinstance(one, CircuitChanged) and one.transition.after is State.OPEN for one in news):
            self.opened()

    def lost(self) -> None:
        """The server could not be reached."""
        self.store.linked(self._clock.now, up=False)

    def _try_to_connect(self, _: None) -> None:
        if self._network.away:
            self.used()
        else:
            questions = self.store.linked(self._clock.now, up=True)
            if questions:
                self._network.ask(self, questions)


class Sharing(Ours):
    """Clients with a `Resilience` of their own each, which share their state, or do not.

    Attributes:
        network: theirs.
        opened: when a circuit of each client first opened since `watch` was called.
        known: clients that had made a call when it was.
    """

    def __init__(
        self, config: gr.Config, clock: Clock, clients: int, chance: random.Random, *, shared: bool
    ) -> None:
        self.network = Network(clock, clients, chance)
        self._shared = shared
        self._met: set[int] = set()
        self.known: frozenset[int] = frozenset()
        self.opened: dict[int, float] = {}
        super().__init__(config, clock, clients, chance)

    def _brain(self, number: int, config: gr.Config, chance: random.Random) -> gr.Resilience:
        store = None
        if self._shared:
            member = Member(number, self.network, self._clock, chance, config.store.interval)
            member.opened = lambda: self._note(number)
            store = member.store
        observers = [self, _Opening(lambda: self._note(number))]
        return gr.Resilience(
            config, clock=self._clock, chance=chance.random, observers=observers, store=store
        )

    def call(self, client: int, model: int, *, repeatable: bool = False) -> Script:
        """See `Ours.call`."""
        self._met.add(client)
        if self._shared:
            self.network.members[client].used()
        return super().call(client, model, repeatable=repeatable)

    def _note(self, number: int) -> None:
        self.opened.setdefault(number, self._clock.now)

    def watch(self, _: None = None) -> None:
        """From now on."""
        self.opened.clear()
        self.known = frozenset(self._met)


class _Opening:
    """Observes a client's own circuits."""

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    def on_circuit_changed(self, event: CircuitChanged) -> None:
        if event.transition.after is State.OPEN:
            self._note()
