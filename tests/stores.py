"""Every kind of store, for what must hold of each: in memory, on a server, on a cluster; in the test's own time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

from gip_resilience._redis_asking import Script, load_scripts
from gip_resilience.memory import MAX_KEYS, MemoryStore
from gip_resilience.redis import RedisStore
from servers import BINARIES, Cluster, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.state import News

KINDS = ("memory", *BINARIES, "cluster")

EPOCH = 1_700_000_000.0
"""What the server takes for the beginning of the test's time, in seconds since 1970."""


class Timed(dict[str, Script]):
    """The scripts, with the test's time in place of the server's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(load_scripts())
        self._clock = clock
        self._made: dict[tuple[str, float], Script] = {}

    def __getitem__(self, name: str) -> Script:
        now = self._clock()
        if (name, now) not in self._made:
            self._made[name, now] = self._at(super().__getitem__(name), now)
        return self._made[name, now]

    @staticmethod
    def _at(script: Script, now: float) -> Script:
        micros = round((EPOCH + now) * 1e6)
        fixed = f"{{'{micros // 1_000_000}', '{micros % 1_000_000}'}}"
        assert "redis.call('TIME')" in script.text
        return Script.of(script.text.replace("redis.call('TIME')", fixed))


class SettledStore(RedisStore):
    """A `RedisStore` that can be waited for: what it asked is answered, and what others published has been heard."""

    def __init__(self, server: Server | Cluster, **options: Any) -> None:
        self._marks = 0
        self._heard = threading.Event()
        self._server = server if isinstance(server, Server) else server.servers[0]
        super().__init__(server.url, cluster=isinstance(server, Cluster), **options)
        self._clock = lambda: self.time
        self.time = 0.0

    def heard(self, payload: object, now: float) -> tuple[News, ...]:
        """See `SharedStore.heard`; recognises marks."""
        if payload == b"mark %d %s" % (self._marks, self._member.node.encode()):
            self._heard.set()
            return ()
        return super().heard(payload, now)

    def settle(self, now: float) -> None:
        """Let everything that is under way arrive, at that time."""
        self.time = now
        assert self.flush(10.0)
        self._marks += 1
        self._heard.clear()
        payload = b"mark %d %s" % (self._marks, self._member.node.encode())
        with self._server.client() as client:
            client.publish(self.names.channel, payload)
            while not self._heard.wait(0.2):
                client.publish(self.names.channel, payload)  # nobody listened yet
        assert self.flush(10.0)


class Kind:
    """One kind of store."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._server: Server | Cluster | None = None
        self._open: list[RedisStore] = []

    def make(self, chance: Callable[[], float], max_keys: int = MAX_KEYS) -> MemoryStore:
        """A store that no other test has used."""
        if self.name == "memory":
            return MemoryStore(chance=chance, max_keys=max_keys)
        if self._server is None:
            self._server = Cluster() if self.name == "cluster" else Server(self.name)
        store = SettledStore(self._server, chance=chance, max_keys=max_keys)
        self._open.append(store)
        return store

    def clean(self) -> None:
        """Forget what the last test did."""
        for store in self._open:
            store.close()
        self._open.clear()
        if self._server is not None:
            self._server.clean()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def now(self) -> float:
        """The time of the store that was made last."""
        last = self._open[-1]
        assert isinstance(last, SettledStore)
        return last.time

    def close(self) -> None:
        """End its servers."""
        self.clean()
        if self._server is not None:
            self._server.close()


def settle(store: MemoryStore, now: float) -> None:
    """Let everything that is under way arrive, where anything is."""
    if isinstance(store, SettledStore):
        store.settle(now)
