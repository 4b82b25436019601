"""Two threads between a `gip_resilience.fleet.SharedStore` and its server: one asks and tells, one listens.

No call ever does. What should be said is put into a queue; what comes back changes the store's copy. The threads
start with the first call (so a program that forks its workers first gives each its own), hold no reference to the
store while they wait (so one that is dropped ends them), and end with the program.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis import exceptions

from gip_resilience._redis_asking import Asker, load_scripts
from gip_resilience.events import StateDegraded, StateRestored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redis.client import PubSub

    from gip_resilience._fleet_words import Question
    from gip_resilience._redis_asking import Script
    from gip_resilience._redis_clients import Place
    from gip_resilience.redis import RedisStore

PATIENCE: Final = 5.0
"""How many times ``store.timeout`` an answer may take in the background before the store counts as away."""

LEAST_PATIENCE: Final = 0.25
"""Seconds; a TLS handshake with a server in the same region takes a tenth of it."""

HELLO: Final = 5.0
"""Seconds between two signs of life, on both connections: how long one may be dead unnoticed while no call has
anything to tell."""

FIRST_RETRY: Final = 0.1
"""Seconds before the second attempt to connect; the first is made at once. Then twice as long each time, up to the
regular flush's interval, less up to half of it by chance."""

BATCH: Final = 500
"""Questions in one pipeline."""

STOP: Final = None


class Flush(NamedTuple):
    """Wanted now instead of with the next interval."""

    done: threading.Event | None = None


class Link:
    """What keeps a store and its server together.

    Args:
        place: where the server is.

    Thread-safe.
    """

    def __init__(self, place: Place) -> None:
        self._store: Callable[[], RedisStore | None] = lambda: None
        self._place = place
        self._outbox: SimpleQueue[Question | Flush | None] = SimpleQueue()
        self._scripts: dict[str, Script] = {}
        self._asker: Asker | None = None
        self._degraded = self._met = False
        self._failures = self._misses = 0
        self._stopping = threading.Event()
        self._subscription: PubSub | None = None
        self._threads: list[threading.Thread] = []
        self._next_flush = self._next_hello = self._next_try = 0.0
        self.say = self._outbox.put
        """Takes a question. Never waits, and may be called from a finaliser."""
        self.trips = self.commands = 0
        """Pipelines sent, scripts run: for measurements."""

    # ---- from any thread -----------------------------------------------------------------------------------

    def start(self, store: RedisStore) -> None:
        """Start the threads. They do not keep the store alive.

        Raises:
            RuntimeError: no thread can be started (the program is ending).
        """
        self._store = weakref.ref(store)
        for name, work in (("tells", self._tell_and_ask), ("listens", self._listen)):
            thread = threading.Thread(target=work, name=f"gip-resilience-store-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def flush(self, timeout: float) -> bool:
        """Say all there is to say. Returns whether that was done in time, to a store that is there."""
        done = threading.Event()
        self._outbox.put(Flush(done))
        return done.wait(timeout) and self._asker is not None

    def stop(self) -> None:
        """End the threads, soon. Never waits, and may be called from a finaliser."""
        self._outbox.put(STOP)

    def join(self, timeout: float) -> None:
        """Wait for the end of the threads."""
        until = time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    # ---- the thread that tells -----------------------------------------------------------------------------

    def _tell_and_ask(self) -> None:
        self._scripts = load_scripts()
        try:
            while self._round():
                pass
        finally:
            self._stopping.set()
            self._drop_subscription()
            self._leave()
            store = self._store()
            if store is not None:
                store.linked(store.now(), up=False)

    def _round(self) -> bool:
        """Wait for something to say, and say it. Returns whether to go on."""
        said, flushes, stopping = self._gather()
        store = self._store()
        if store is None:
            return False
        now = time.monotonic()
        if stopping:
            said += store.parting(store.now())
        elif self._asker is not None and (flushes or now >= self._next_flush):
            said += store.due(store.now())
            self._next_flush = now + store.interval
        if self._asker is None:
            # What was said before is out of date: what still holds is said once there is somebody to hear it.
            if (flushes or now >= self._next_try) and not stopping:
                self._try_to_connect(store)
        else:
            if now >= self._next_hello:
                said.append(self._hello(store))
            if said:
                self._exchange(store, said)
        for flush in flushes:
            if flush.done is not None:
                flush.done.set()
        return not stopping

    def _gather(self) -> tuple[list[Question], list[Flush], bool]:
        said: list[Question] = []
        flushes: list[Flush] = []
        due = self._next_flush if self._asker is not None else self._next_try
        wait = max(0.0, due - time.monotonic())
        try:
            item = self._outbox.get(timeout=wait) if wait else self._outbox.get_nowait()
            while item is not STOP:
                if isinstance(item, Flush):
                    flushes.append(item)
                else:
                    said.append(item)
                if len(said) >= BATCH:
                    break
                item = self._outbox.get_nowait()
            else:
                return said, flushes, True
        except Empty:
            pass
        return said, flushes, False

    def _exchange(self, store: RedisStore, said: list[Question]) -> None:
        """Say it, over a new connection if the old one turns out to be dead."""
        try:
            try:
                self._ask(store, said)
            except exceptions.ConnectionError:
                self._leave()
                self._connect(store)
                # Some of it perhaps for the second time, which does no harm: only counts are not idempotent.
                self._ask(store, said)
        except Exception as error:  # whatever it is, it is no reason to stop trying
            self._fail(store, error)

    def _ask(self, store: RedisStore, said: Sequence[Question]) -> None:
        asker = self._asker
        if asker is None:
            return
        trips, commands = asker.trips, asker.commands
        try:
            for start in range(0, len(said), BATCH):
                part = said[start : start + BATCH]
                for question, reply in zip(part, asker.ask(part), strict=True):
                    store.tell(store.answered(question, reply, store.now()))
        finally:
            self.trips += asker.trips - trips
            self.commands += asker.commands - commands

    def _hello(self, store: RedisStore) -> Question:
        self._next_hello = time.monotonic() + HELLO
        return store.hello(3.0 * HELLO)

    def _try_to_connect(self, store: RedisStore) -> None:
        try:
            self._connect(store)
        except Exception as error:  # whatever it is, it is no reason to stop trying
            self._fail(store, error)

    def _connect(self, store: RedisStore) -> None:
        """Connect, see that the store works, and tell it and ask it what is due."""
        self._asker = Asker(self._place.open(_patience(store)), self._scripts)
        self._ask(store, [self._hello(store)])
        self._ask(store, store.linked(store.now(), up=True))
        self._failures = 0
        if self._met:
            self._drop_subscription()  # wherever that may still lead
        self._met = True
        if self._degraded:
            self._degraded = False
            store.tell([StateRestored("store")])

    def _leave(self) -> None:
        asker, self._asker = self._asker, None
        if asker is not None:
            asker.close()

    def _fail(self, store: RedisStore, error: Exception) -> None:
        self._leave()
        store.linked(store.now(), up=False)
        self._next_try = time.monotonic() + _delay(self._failures, store.interval)
        self._failures += 1
        if not self._degraded:
            self._degraded = True
            store.tell([StateDegraded("store", describe(error))])

    # ---- the thread that listens ---------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._stopping.is_set():
            store = self._store()
            if store is None:
                return
            patience, interval, channel = _patience(store), store.interval, store.names.channel
            del store  # while we wait, it may go
            began = time.monotonic()
            try:
                self._subscribe(channel, patience)
            except Exception:
                # Told by the other thread, if it is worth telling. Where it had worked for a while, the first attempt
                # to mend it is made at once.
                if time.monotonic() - began > interval + patience:
                    self._misses = 0
                self._stopping.wait(_delay(self._misses, interval) if self._misses else 0.0)
                self._misses += 1

    def _subscribe(self, channel: str, patience: float) -> None:
        """Listen until the connection ends, which raises, or we do."""
        wire = self._place.open(patience)
        try:
            subscription = wire.subscriber()
            try:
                subscription.subscribe(channel)
                self._subscription = subscription
                self._hear(subscription, patience)
            finally:
                self._subscription = None
                subscription.close()
        finally:
            wire.close()

    def _hear(self, subscription: PubSub, patience: float) -> None:
        asked = False
        while not self._stopping.is_set():
            message = subscription.get_message(timeout=patience if asked else HELLO)
            if message is not None:
                asked = False
                self._take(message)
            elif asked:
                raise exceptions.ConnectionError("no sign of life")
            else:
                subscription.ping()
                asked = True

    def _take(self, message: Mapping[str, Any]) -> None:
        store = self._store()
        if store is None:
            return
        if message["type"] == "message":
            store.tell(store.heard(message["data"], store.now()))
        elif message["type"] == "subscribe":
            store.missed()
            self._outbox.put(Flush())

    def _drop_subscription(self) -> None:
        subscription = self._subscription
        connection: Any = None if subscription is None else subscription.connection
        if connection is not None:
            connection.disconnect()


def describe(error: Exception) -> str:
    """What is wrong, in a line."""
    return f"{type(error).__name__}: {error}"[:200].replace("\n", " ")


def _patience(store: RedisStore) -> float:
    return max(LEAST_PATIENCE, PATIENCE * store.timeout)


def _delay(failures: int, most: float) -> float:
    return min(most, FIRST_RETRY * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)
