"""Shared state in trouble: a real server that is away, frozen, full, read-only, forgetful or poisoned.

The gateway has one sick model and is well otherwise. Whatever the store does, no call fails or waits because of it:
the sick model's circuit opens and refuses, and calls of the other model are answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from faults.scenes import Outcome, Scene, answered, ask, scene
from gip_resilience.clock import SystemClock
from gip_resilience.gateway import Error, FaultPlan, Gateway, Rule
from gip_resilience.redis import RedisStore
from harness import CHAT
from servers import Proxy, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Harness, Session

SICK = {**CHAT, "model": "sick"}

SLOW = 1.0
"""Seconds no call may take, whatever the store does; what a store can do to one that waits for it takes longer."""

CONFIG = gr.Config(store=gr.StoreConfig(interval=0.05))


def nothing(server: Server) -> None:
    """It goes on as it is."""


def troubled(
    name: str, begin: Callable[[Server], None], end: Callable[[Server], None] = nothing, *, back: bool = True
) -> None:
    """Register a trouble of the store's server, from which it recovers or does not.

    Args:
        name: of the fault.
        begin: what happens to it.
        end: what mends it.
        back: whether it can be talked to again after that.
    """

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        with Server() as server:
            yield from _with(
                server, server.url, begin, end if act == "once" else nothing, act == "once" and back
            )


def _with(
    server: Server, url: str, begin: Callable[[Server], None], end: Callable[[Server], None], back: bool
) -> Iterator[Scene]:
    def timed(session: Session, at: Scene) -> Outcome:
        began = time.monotonic()
        outcome = ask(session, at)
        took = time.monotonic() - began
        assert took < SLOW, f"a call took {took:.1f} s"
        return outcome

    def play(session: Session, at: Scene) -> Outcome:
        assert timed(session, at).status == 200
        assert store.flush(5.0)
        begin(server)
        at.sending = {"json": SICK}
        timed(session, at)
        refused = timed(session, at)
        if type(refused.error).__name__ != "CircuitOpenError":
            return refused
        end(server)
        if back:
            until = time.monotonic() + 5.0
            while not store.flush(1.0):
                assert time.monotonic() < until, "the store is not back"
        at.sending = {}
        return timed(session, at)

    store = RedisStore(url, chance=lambda: 0.5)
    plan = FaultPlan(rules=(Rule(Error("model_unavailable"), model="sick"),))
    try:
        with Gateway(plan) as gateway:
            yield Scene(
                gateway.base_url + "/chat/completions",
                lambda: len(gateway.requests),
                config=CONFIG,
                clock=SystemClock(),
                store=store,
                play=play,
                right=answered,
            )
    finally:
        server.thaw()
        store.close(5.0)


def poison(server: Server) -> None:
    """Something else stands at each of our keys."""
    with server.client() as client:
        keys: Any = client.keys("*")
        for key in keys:
            client.delete(key)
            client.set(key, b"\xff poison")


def junk(server: Server) -> None:
    """Somebody talks nonsense on all channels."""
    with server.client() as client:
        channels: Any = client.pubsub_channels()
        for channel in channels:
            for word in (b"", b"\xff", b"c x y z", b"g " + b"9" * 4000):
                client.publish(channel, word)


troubled("store-killed", Server.kill, Server.start)
troubled("store-frozen", Server.freeze, Server.thaw)
troubled("store-paused", lambda server: server.run("CLIENT", "PAUSE", "150", "ALL"))
troubled(
    "store-full",
    lambda server: server.run("CONFIG", "SET", "maxmemory", "1"),
    lambda server: server.run("CONFIG", "SET", "maxmemory", "0"),
)
troubled(
    "store-read-only",
    lambda server: server.run("REPLICAOF", "127.0.0.1", "1"),
    lambda server: server.run("REPLICAOF", "NO", "ONE"),
)
troubled("store-scripts-flushed", lambda server: server.run("SCRIPT", "FLUSH"))
troubled("store-flushed", lambda server: server.run("FLUSHALL"))
troubled("store-push-cut", lambda server: server.run("CLIENT", "KILL", "TYPE", "pubsub"))
troubled("store-poisoned", poison)
troubled("store-junk", junk)


@scene("store-never-there")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Nobody listens where the store should be."""
    store = RedisStore(f"redis://127.0.0.1:{free_port()}", chance=lambda: 0.5)
    try:
        with Gateway() as gateway:
            yield Scene(
                gateway.base_url + "/chat/completions",
                lambda: len(gateway.requests),
                config=CONFIG,
                clock=SystemClock(),
                store=store,
                right=answered,
            )
    finally:
        store.close(5.0)


@scene("store-lossy")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Half of what is said to it and by it is lost on the way, and neither side is told."""
    with Server() as server, Proxy(server.port, seed=7) as proxy:
        yield from _with(
            server,
            proxy.url,
            lambda _: proxy.lose(0.5),
            (lambda _: proxy.lose(0.0)) if act == "once" else nothing,
            act == "once",
        )
