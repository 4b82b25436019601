"""Shared state on Redis or Valkey: what one process learns, all know.

    from gip_resilience.redis import RedisStore

    res = gr.mount(client, gr.Resilience(store=RedisStore("rediss://user:password@redis.internal:6379")))

Extra ``redis``. What is shared, what is not, and what happens while the store is away: ``docs/fleet.md``.
"""

from __future__ import annotations

import atexit
import os
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Self

try:
    from gip_resilience._redis_clients import place_of
    from gip_resilience._redis_link import Link
except ImportError as error:
    raise ImportError("RedisStore needs redis-py: pip install gip-resilience[redis]") from error

from gip_resilience.fleet import SharedStore
from gip_resilience.memory import MAX_KEYS

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable

    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster
    from redis.cluster import RedisCluster

    from gip_resilience._keys import ScopeKey
    from gip_resilience.config import Config
    from gip_resilience.events import Event
    from gip_resilience.gate import Held, Place
    from gip_resilience.resilience import Resilience
    from gip_resilience.state import Pending, Permit, Refused

__all__ = ["RedisStore", "Traffic"]

PARTING: float = 0.5
"""Seconds that the end of the program waits for the last words."""


class Traffic(NamedTuple):
    """What a process has sent to the store; no caller waited for any of it.

    Attributes:
        trips: round trips (pipelines).
        scripts: scripts run.
    """

    trips: int
    scripts: int


class RedisStore(SharedStore):
    """Circuits, gates and (if wished) retry budgets that all processes with the same store share.

    A call asks nobody: it is decided from a copy in memory, which changes of others are pushed into. Only where a
    circuit that the fleet has opened may be probed is the store asked who does it; a caller waits for that answer at
    most ``store.timeout`` seconds (50 ms). While the store is away, full, read-only or slow, each process decides by
    itself, as with a `MemoryStore`, and what it learned is merged when the store is back; observers are told of both
    (`StateDegraded`, `StateRestored`). Nothing here raises because of the store, the constructor included.

    Args:
        server: a URL (``redis://``, ``rediss://``, ``unix://``), or a client of redis-py, of which only the address
            and the credentials are used: blocking or asyncio, of one server, of a cluster, or from
            ``Sentinel.master_for``.
        namespace: keeps fleets apart that share a server: 1 to 64 letters, digits, dots, dashes or underscores.
        secret: keys the digests that stand for credentials, the same in the whole fleet. Without it, whoever reads
            the server and has a list of keys could tell which of them are in use.
        cluster: whether the URL is of a node of a cluster.
        chance: random numbers in [0, 1), for the spread of a gate and the jitter of an open time.
        max_keys: scopes and circuits remembered at most, each; the oldest that is at rest is forgotten first.

    Raises:
        TypeError: ``server`` is neither a URL nor a client.
        ValueError: the URL or the namespace is not one.

    Thread-safe and task-safe; bound to no event loop. Two daemon threads do all talking; they start with the first
    call, anew in a forked process, and end with `close`, with the last reference to the store, or with the program.
    One made from a URL pickles as its arguments, the password in the URL and ``secret`` among them, because the copy
    must be able to connect: keep such a pickle as you keep the URL. How often it asks, how long: `StoreConfig`.
    """

    travels = True
    """Another process is given it together with the `Resilience` that has it."""

    def __init__(
        self,
        server: str | Redis | AsyncRedis | RedisCluster | AsyncRedisCluster,
        *,
        namespace: str = "default",
        secret: str | bytes = b"",
        cluster: bool = False,
        chance: Callable[[], float] = random.random,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._place = place_of(server, cluster=cluster)
        self._origin = (server, namespace, secret, cluster, max_keys) if isinstance(server, str) else None
        self._link = Link(self._place)
        super().__init__(
            self._link.say,
            node=_name(),
            namespace=namespace,
            secret=secret.encode() if isinstance(secret, str) else secret,
            chance=chance,
            max_keys=max_keys,
        )
        self._brains: tuple[weakref.ref[Resilience], ...] = ()
        self._clock: Callable[[], float] = time.monotonic
        self._idle = True
        self._ended = False
        self._starting = threading.Lock()
        _open_stores.add(self)

    def __repr__(self) -> str:
        return f"<{super().__repr__()[1:-1]}, at {self._place}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is None:
            raise TypeError(
                "RedisStore: expected one that was made from a URL to pickle, got one made from a client"
            )
        return _remake, self._origin

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    # ---- what the engine asks ------------------------------------------------------------------------------

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused | Pending:
        """See `Store.acquire`."""
        if self._idle:
            self._start()
        return super().acquire(key, config, now, first=first, place=place)

    # ---- life ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if not self._idle:
                return
            self._idle = False
            if self._ended:
                return
            weakref.finalize(self, self._link.stop).atexit = False
            try:
                self._link.start(self)
            except RuntimeError:
                # No thread can be started any more: the program is ending, and this call is decided alone.
                return

    def flush(self, timeout: float = 1.0) -> bool:
        """Tell and ask the store all there is, now.

        Args:
            timeout: seconds to wait for it.

        Returns:
            Whether that was done; the store may be away.
        """
        if self._idle:
            self._start()
        return not self._ended and self._link.flush(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """Say what is left to be said, and end the threads and connections. The store goes on by itself after that.

        Idempotent. In an event loop call it through a thread (``asyncio.to_thread``): it waits, mostly a
        millisecond.

        Args:
            timeout: seconds to wait for it at most.
        """
        with self._starting:
            self._ended = True
        self._link.stop()
        self._link.join(timeout)

    def bind(self, resilience: Resilience) -> None:
        """See that what happens in the background is told to its observers, too; called by `Resilience`."""
        self._clock = resilience.clock.monotonic
        alive = [brain for brain in self._brains if brain() not in {None, resilience}]
        self._brains = (*alive, weakref.ref(resilience))

    def _in_child(self) -> None:
        super()._in_child()
        self._starting = threading.Lock()
        self._link = Link(self._place)
        self._member.move(_name(), self._link.say)
        self._idle = True

    @property
    def traffic(self) -> Traffic:
        """What this process has sent to the store so far."""
        return Traffic(self._link.trips, self._link.commands)

    # ---- for the link --------------------------------------------------------------------------------------

    def now(self) -> float:
        """Monotonic seconds, by the clock of the calls."""
        return self._clock()

    @property
    def timeout(self) -> float:
        """Seconds a call may wait for an answer."""
        return self._member.settings.timeout

    @property
    def interval(self) -> float:
        """Seconds between two reports."""
        return self._member.settings.interval

    def tell(self, news: Iterable[Event]) -> None:
        """Something changed that no call of this process brought about."""
        for event in news:
            for reference in self._brains:
                brain = reference()
                if brain is not None:
                    brain.tell(event)


def _name() -> str:
    """A name that no other process has."""
    return os.urandom(8).hex()


def _remake(server: str, namespace: str, secret: str | bytes, cluster: bool, max_keys: int) -> RedisStore:
    return RedisStore(server, namespace=namespace, secret=secret, cluster=cluster, max_keys=max_keys)


_open_stores: weakref.WeakSet[RedisStore] = weakref.WeakSet()


@atexit.register
def _say_good_bye() -> None:
    """The last outcomes are told, and a lease is given back; who does not get to it is missed as after a crash."""
    for store in tuple(_open_stores):
        store.close(PARTING)
