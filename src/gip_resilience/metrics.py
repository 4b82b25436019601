"""Counts of what was done: exact, cheap, and safe to read at any time."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAMES = 200
"""Hosts, models and codes counted apart, each; the rest is counted under `OTHER`, so memory is bounded."""

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment; does not change.

    Attributes:
        calls: by (host, model, outcome); the outcomes are those of `gip_resilience.CallReport`.
        attempts: requests sent, by (host, model, code); ``ok`` is the code of a success.
        retries: attempts that were not a call's first.
        waits: seconds paused, by reason (``backoff``, ``hint``, ``gate``, ``circuit``).
        refusals: calls, or further attempts of them, that were not sent, by reason.
        opened: how often a circuit opened, by (host, model).
        streams: event streams: ``opened``, ``breaks``, and what was done about these: ``restart``, ``resume``,
            ``replay``, ``marker`` (supplied), ``end`` (nothing was missing), ``fail``; ``diverged`` (replays);
            ``unguarded`` (too long for us).
    """

    calls: Mapping[tuple[str, str, str], int]
    attempts: Mapping[tuple[str, str, str], int]
    retries: int
    waits: Mapping[str, float]
    refusals: Mapping[str, int]
    opened: Mapping[tuple[str, str], int]
    streams: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """The same as plain dictionaries, ready for JSON: keys of several parts are joined by ``|``."""
        plain: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int):
                value = {k if isinstance(k, str) else "|".join(k): v for k, v in value.items()}
            plain[field.name] = value
        return plain

    def total(self, outcome: str | None = None) -> int:
        """Calls that ended, all or with this *outcome*."""
        return sum(n for (_, _, ended), n in self.calls.items() if outcome in {None, ended})

    def sent(self, code: str | None = None) -> int:
        """Requests sent, all or with this *code*."""
        return sum(n for (_, _, answered), n in self.attempts.items() if code in {None, answered})


class Metrics:
    """Counters of one `Resilience`. Thread-safe and task-safe: one lock, held for an addition."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str, str]] = Counter()
        self._attempts: Counter[tuple[str, str, str]] = Counter()
        self._waits: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._opened: Counter[tuple[str, str]] = Counter()
        self._streams: Counter[str] = Counter()
        self._retries = 0
        self._hosts: set[str] = set()
        self._models: set[str] = set()
        self._codes: set[str] = set()

    def __repr__(self) -> str:
        return f"<Metrics calls={sum(self._calls.values())} attempts={sum(self._attempts.values())}>"

    def succeeded(self, host: str, model: str) -> None:
        """A call succeeded at its first attempt: the everyday case, in one step."""
        with self._lock:
            if model not in self._models or host not in self._hosts:
                host, model = self._names(host, model)
            self._attempts[host, model, "ok"] += 1
            self._calls[host, model, "success"] += 1

    def attempted(self, host: str, model: str, code: str, *, retry: bool) -> None:
        """A request was sent and this is the code of its answer."""
        with self._lock:
            host, model = self._names(host, model)
            self._attempts[host, model, _bounded(self._codes, code)] += 1
            self._retries += retry

    def waited(self, reason: str, seconds: float) -> None:
        """A call begins a pause."""
        with self._lock:
            self._waits[reason] += seconds  # type: ignore[assignment]  # Counter's stub knows only int

    def refused(self, reason: str) -> None:
        """A request was not sent."""
        with self._lock:
            self._refusals[reason] += 1

    def opened(self, host: str, model: str) -> None:
        """A circuit opened."""
        with self._lock:
            self._opened[self._names(host, model)] += 1

    def streamed(self, what: str) -> None:
        """Something happened to an event stream."""
        with self._lock:
            self._streams[what] += 1

    def ended(self, host: str, model: str, outcome: str) -> None:
        """A call that did not succeed at once is over."""
        with self._lock:
            host, model = self._names(host, model)
            self._calls[host, model, outcome] += 1

    def snapshot(self) -> Snapshot:
        """All counts, taken at one moment."""
        with self._lock:
            return Snapshot(
                MappingProxyType(dict(self._calls)),
                MappingProxyType(dict(self._attempts)),
                self._retries,
                MappingProxyType(dict(self._waits)),
                MappingProxyType(dict(self._refusals)),
                MappingProxyType(dict(self._opened)),
                MappingProxyType(dict(self._streams)),
            )

    def _names(self, host: str, model: str) -> tuple[str, str]:
        """Needs the lock."""
        return _bounded(self._hosts, host), _bounded(self._models, model)


def _bounded(seen: set[str], name: str) -> str:
    if name in seen:
        return name
    if len(seen) >= MAX_NAMES:
        return OTHER
    seen.add(name)
    return name
