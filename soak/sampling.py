"""What this process holds at a quiet point: memory, descriptors, threads, and objects by their type."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")

TRANSIENT = (
    "engine.Call",
    "state.Permit",
    "gate.Place",
    "_flow.Flow",
    "_async_flow.AsyncFlow",
    "_splice.Splice",
    "_httpx_family.SyncPort",
    "_httpx_family.AsyncPort",
    "_requests_port.Port",
    "_report.CallReport",
)
"""Types of which nothing may be alive while nobody calls."""


@dataclass(slots=True)
class Sample:
    """What was there at one quiet point.

    Attributes:
        at: seconds since the run began.
        calls: calls so far.
        memory: bytes resident, after everything that can be given back was.
        blocks: memory blocks of the interpreter.
        descriptors: open ones, but for what `pooled` and `stored` count.
        pooled: idle connections that the clients say they hold, and ``sockets`` to the gateways that there are.
        used: connections that the clients say are in use.
        stored: connections to the Valkey.
        accepted: connections that the gateways have open.
        threads: of this process; ``tasks`` in its event loops.
        out: permits that have not come back, and ``waiting`` callers in line at gates.
        probing: circuits whose probe has not reported, and ``dropped`` streams that no call has ended.
        objects: instances of our own types.
        others: instances of all other types, of which there are many.
        peer: the gateway process: the same of it.
        lag: seconds that the machine was late, at worst, since the last quiet point.
    """

    at: float = 0.0
    calls: int = 0
    memory: int = 0
    blocks: int = 0
    descriptors: int = 0
    pooled: int = 0
    sockets: int = 0
    used: int = 0
    stored: int = 0
    accepted: int = 0
    threads: int = 0
    tasks: int = 0
    out: int = 0
    waiting: int = 0
    probing: int = 0
    dropped: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    peer: dict[str, Any] = field(default_factory=dict)
    lag: float = 0.0


def give_back() -> None:
    """Collect all garbage, and hand freed memory back to the system."""
    for _ in range(2):
        gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)


def few_arenas() -> None:
    """Have all threads share two of the allocator's arenas: what each would keep for itself looks like growth."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE


def descriptors() -> int:
    """How many files, sockets and pipes are open."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - of a directory that changes while it is read


def threads() -> int:
    """How many threads there are, whoever started them."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - as above


RESET = 0
"""Stands for the port at the other end of a connection that the other end has reset: the system lists it no more."""


def sockets() -> Counter[int]:
    """TCP connections of this process, by the port at the other end."""
    mine = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
        with suppress(OSError):
            target = str(Path(f"/proc/self/fd/{name}").readlink())
            if target.startswith("socket:["):
                mine.add(target[8:-1])
    found: Counter[int] = Counter()
    for line in Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]:
        parts = line.split()
        if parts[9] in mine:
            mine.discard(parts[9])
            port = int(parts[2].rpartition(":")[2], 16)
            if port:
                found[port] += 1
    for line in Path("/proc/self/net/unix").read_text("utf-8", "replace").splitlines()[1:]:
        mine.discard(line.split()[6])
    if mine:
        found[RESET] = len(mine)
    return found


def own() -> Counter[str]:
    """Instances of this package's types, and of whatever else is alive only while a call is."""
    found: Counter[str] = Counter()
    for one in gc.get_objects():
        kind = type(one)
        module = kind.__module__
        if isinstance(module, str) and module.startswith("gip_resilience."):
            found[f"{module.removeprefix('gip_resilience.')}.{kind.__qualname__}"] += 1
    return found


def others(least: int = 100) -> Counter[str]:
    """Instances of all types of which there are many: names what grows, where something does."""
    found: Counter[str] = Counter()
    for one in gc.get_objects():
        kind = type(one)
        found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return Counter({name: count for name, count in found.items() if count >= least})


class _Errors(logging.Handler):
    """Counts what was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "gip_resilience" and "observer" not in record.getMessage():
            return  # it says of calls that failed that they did
        self.lines[f"{record.name}: {record.getMessage()}"[:300]] += 1


_errors = _Errors()


def listen_for_errors() -> None:
    """Count the errors that are logged from now on."""
    logging.getLogger().addHandler(_errors)


def errors_logged() -> dict[str, int]:
    """What was logged as an error so far."""
    return dict(_errors.lines)
