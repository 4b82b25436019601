"""Populations: a `Resilience`, the clients it is mounted on, and the callers that use them, in threads and tasks."""

from __future__ import annotations

import random
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import anyio

import gip_resilience as gr
from gip_resilience.breaker import State
from gip_resilience.state import Permit, ScopeKey

from .callers import AwaitingCaller, BlockingCaller, Company
from .errands import Errands
from .kinds import AWAITING, BACKENDS, BLOCKING, pool_of
from .ledger import Account, Ledger
from .pacing import POLL
from .settings import CONFIG, MAX_KEYS
from .stores import Counting, CountingMemoryStore, CountingRedisStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .pacing import Pacer
    from .peer import Peer
    from .settings import Settings

ANSWER_TIME = 10.0
"""Seconds a loop may take to answer a question."""


class Loop:
    """An event loop in a thread of its own, with the clients and callers in it."""

    def __init__(self, backend: str, company: Company, settings: Settings, seed: str) -> None:
        self._backend = backend
        self._company = company
        self._settings = settings
        self._seed = seed
        self._questions: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()
        self.clients: list[Any] = []
        self.thread = threading.Thread(target=self._run, name=f"soak-{seed}-{backend}", daemon=True)

    @property
    def callers(self) -> int:
        """How many call in it."""
        return len(AWAITING) * self._settings.tasks

    def ask(self, question: Callable[[], Any]) -> Any:
        """What *question* says in the loop."""
        answer: SimpleQueue[Any] = SimpleQueue()
        self._questions.put((question, answer))
        return answer.get(timeout=ANSWER_TIME)

    def _run(self) -> None:
        anyio.run(self._live, backend=self._backend)

    async def _live(self) -> None:
        brain, pacer = self._company.brain, self._company.pacer
        async with anyio.create_task_group() as group:
            for kind in AWAITING:
                client = kind.open(brain)
                self.clients.append(client)
                for number in range(self._settings.tasks):
                    name = f"{self._seed}-{self._backend}-{kind.name}-{number}"
                    errands = Errands(random.Random(name), awaiting=True, name=name)
                    group.start_soon(AwaitingCaller(self._company, kind, client, errands).run)
            while not pacer.ended:
                self._answer()
                await anyio.sleep(POLL)
        for client in self.clients:
            await client.aclose()

    def _answer(self) -> None:
        try:
            while True:
                question, answer = self._questions.get_nowait()
                answer.put(question())
        except Empty:
            return


class Population:
    """Callers with one `Resilience` between them: seven kinds of client, in threads, asyncio and trio.

    Args:
        name: of it.
        peer: whom they call.
        pacer: when.
        settings: how many there are.
        store: URL of the Valkey that it shares its state on; ``None`` for none.
        observed: whether every event is looked at.
    """

    def __init__(
        self, name: str, peer: Peer, pacer: Pacer, settings: Settings, store: str | None, *, observed: bool
    ) -> None:
        self.name = name
        self.ledger = Ledger(name, observed=observed)
        self.total = Account()
        self.store: Counting = (
            CountingMemoryStore(max_keys=MAX_KEYS)
            if store is None
            else CountingRedisStore(store, max_keys=MAX_KEYS)
        )
        self.shared = store is not None
        self.brain = gr.Resilience(
            CONFIG,
            store=self.store,
            observers=[self.ledger] if observed else [],  # type: ignore[arg-type]  # a mixin
        )
        self._company = Company(self.brain, self.ledger, pacer, peer.url, peer.door)
        self._blocking: list[tuple[Any, Any]] = []
        self._threads: list[threading.Thread] = []
        self._seed = f"{settings.seed}-{name}"
        for kind in BLOCKING:
            client = kind.open(self.brain)
            self._blocking.append((kind, client))
            for number in range(settings.threads):
                who = f"{self._seed}-{kind.name}-{number}"
                errands = Errands(random.Random(who), awaiting=False, name=who)
                caller = BlockingCaller(self._company, kind, client, errands)
                self._threads.append(threading.Thread(target=caller.run, name=f"soak-{who}", daemon=True))
        self._loops = [Loop(backend, self._company, settings, self._seed) for backend in BACKENDS]

    @property
    def callers(self) -> int:
        """How many there are."""
        return len(self._threads) + sum(loop.callers for loop in self._loops)

    def start(self) -> None:
        """Let them live. The store's tables are filled first, so that they do not grow while they are looked at."""
        for number in range(4 * MAX_KEYS):
            key = ScopeKey("filled.invalid", "", f"model-{number}")
            permit = self.store.acquire(key, CONFIG, self.brain.clock.monotonic(), first=True)
            if isinstance(permit, Permit):
                self.store.abandon(permit, self.brain.clock.monotonic())
        for thread in self._all():
            thread.start()

    def _all(self) -> Iterator[threading.Thread]:
        yield from self._threads
        yield from (loop.thread for loop in self._loops)

    # ---- at a quiet point ------------------------------------------------------------------------------------

    def pools(self) -> tuple[int, int]:
        """Connections that the clients hold idle, and that are in use."""
        found = [kind.pool(client) for kind, client in self._blocking]
        found += [pool_of(client) for loop in self._loops for client in loop.clients]
        return sum(idle for idle, _ in found), sum(used for _, used in found)

    def tasks(self) -> int:
        """Tasks in the event loops."""
        return sum(len(loop.ask(anyio.get_running_tasks)) for loop in self._loops)

    def linked(self) -> bool:
        """Whether everything is said to the shared store, if there is one."""
        return not isinstance(self.store, CountingRedisStore) or self.store.flush(5.0)

    def probing(self) -> int:
        """Circuits that wait for the report of a probe."""
        circuits = self.brain.breakers.all().values()
        return sum(one.state is State.HALF_OPEN and one.retry_after > 0.0 for one in circuits)

    def dropped(self) -> int:
        """Dropped streams whose calls nobody has ended."""
        return len(self.brain._dropped)  # noqa: SLF001 - nobody else needs to know

    @property
    def links(self) -> int:
        """Connections to the shared store: one to ask and tell, one to listen."""
        return 2 * isinstance(self.store, CountingRedisStore)

    def overdrawn(self) -> int:
        """Retry budgets that hold less than nothing, or more than they can."""
        budgets = self.brain.store.budgets().values()
        return sum(not -1e-6 <= one.tokens <= one.capacity + 1e-6 for one in budgets)

    # ---- the end -----------------------------------------------------------------------------------------------

    def close(self, patience: float) -> list[str]:
        """End it, when it was told to leave. Returns the names of the threads that have not ended."""
        for thread in self._all():
            if thread.ident is not None:
                thread.join(patience)
        for _, client in self._blocking:
            client.close()
        if isinstance(self.store, CountingRedisStore):
            self.store.close()
        return [thread.name for thread in self._all() if thread.is_alive()]
