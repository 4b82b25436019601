"""What a call or a stream may leave behind, and how to look for it: permits, connections, tasks, cycles."""

from __future__ import annotations

import gc
import types
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import requests

import gip_resilience as gr
from gip_resilience.memory import MemoryStore
from gip_resilience.state import Permit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from harness import Harness, Session

STUBBORN = gr.Config(
    policies={
        name: gr.Policy(max_attempts=9) for name in ("overload", "server", "timeout", "stream", "limited")
    }
    | {"intermediary": gr.Policy(max_attempts=9), "rate_limit": gr.Policy(max_attempts=9)},
    breaker=gr.BreakerConfig(mode="off"),
    budget=gr.BudgetConfig(mode="off"),
    max_elapsed=None,
)
"""Retries everything that may be retried, without end as far as these tests go."""

THEIRS = pytest.mark.filterwarnings(
    r"ignore:Async generator 'httpx2?\._(client|content|models)\.:ResourceWarning"
)
"""Trio tells of the generators that the clients leave behind when a loop over a response is not run to its end."""


class Ledger(MemoryStore):
    """A store that counts the permits that are out."""

    def __init__(self) -> None:
        super().__init__()
        self.out: set[int] = set()
        self._kept: list[Permit] = []  # or an address could be given twice

    def acquire(self, *args: Any, **options: Any) -> Any:
        """See `Store.acquire`."""
        answer = super().acquire(*args, **options)
        if isinstance(answer, Permit):
            self._kept.append(answer)
            self.out.add(id(answer))
        return answer

    def report(self, key: Any, permit: Permit, *args: Any, **options: Any) -> Any:
        """See `Store.report`."""
        self.out.remove(id(permit))
        return super().report(key, permit, *args, **options)

    def abandon(self, permit: Permit, now: float) -> None:
        """See `Store.abandon`."""
        self.out.remove(id(permit))
        super().abandon(permit, now)

    @property
    def waiting(self) -> int:
        """Callers that stand in line at a gate."""
        return sum(gate.waiting for gate in self._gates.values())


def one_connection(harness: Harness) -> Session:
    """A bare client that has one connection and does not wait long for it."""
    if harness.name == "requests":
        session = harness.open()
        adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=1, pool_block=True)
        session.client.mount("http://", adapter)
        return session
    library = harness.library
    return harness.open(
        limits=library.Limits(max_connections=1),
        timeout=library.Timeout(5, pool=1),
        verify=False,
        trust_env=False,
    )


def network(session: Session) -> Any:
    """The library's own transport, under whatever was put on it."""
    client = session.client
    transport = client.get_adapter("http://") if session.harness.name == "requests" else client._transport
    while getattr(transport, "inner", None) is not None:
        transport = transport.inner
    return transport


def assert_idle(session: Session) -> None:
    """No connection is in use."""
    transport = network(session)
    if session.harness.name == "requests":
        for key in transport.poolmanager.pools.keys():  # noqa: SIM118 - a container that cannot be iterated
            pool = transport.poolmanager.pools[key].pool
            assert pool.qsize() == pool.maxsize, "a connection has not come back"
        return
    pool = transport._pool
    assert not pool._requests
    assert all(one.is_idle() or one.is_closed() for one in pool.connections), pool.connections


def in_its_thread(session: Session, function: Callable[[], Any]) -> Any:
    """Call *function* where the client lives: loops finalise what belongs to them."""
    portal = getattr(session, "portal", None)
    return function() if portal is None else portal.call(function)


@types.coroutine
def stepped(coroutine: Coroutine[Any, Any, Any], step: Callable[[], None]) -> Iterator[Any]:
    """*coroutine*, with *step* called each time it is about to give up control."""
    resume: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        try:
            trap = resume(value)
        except StopIteration as end:
            return end.value
        step()
        try:
            value = yield trap
            resume = coroutine.send
        except BaseException as error:
            value, resume = error, coroutine.throw


def tasks() -> set[tuple[int, str | None]]:
    """The tasks in this event loop, but for those that clean up after httpx itself (see `THEIRS`)."""
    tasks = {(task.id, task.name) for task in anyio.get_running_tasks()}
    return {(number, name) for number, name in tasks if "httpx._content" not in (name or "")}


def cycles_of_ours(garbage: list[object]) -> list[object]:
    """What of ours leads back to itself; not what merely hangs on a cycle that the library makes."""
    dead = {id(one) for one in garbage}
    return [one for one in garbage if _is_ours(one) and _leads_to_itself(one, dead)]


def _leads_to_itself(one: object, dead: set[int]) -> bool:
    seen: set[int] = set()
    waiting = gc.get_referents(one)
    while waiting:
        other = waiting.pop()
        if other is one:
            return True
        if id(other) in dead and id(other) not in seen:
            seen.add(id(other))
            waiting += gc.get_referents(other)
    return False


def _is_ours(one: object) -> bool:
    if isinstance(one, types.FrameType):
        return "/gip_resilience/" in one.f_code.co_filename
    return type(one).__module__.partition(".")[0] == "gip_resilience"
