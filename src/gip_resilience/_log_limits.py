"""How many log lines of one kind are written while a storm lasts.

Pure: nothing here waits or reads a clock, and nothing is written while the lock is held.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

MAX_KINDS = 64
"""Kinds counted apart. There are two dozen; the bound is for kinds that would be made up while running."""

_REST = "rest"


class LeftOut(NamedTuple):
    """What was not written since the last line of the kind.

    Attributes:
        lines: how many.
        seconds: since the first of them.
    """

    lines: int
    seconds: float


NONE = LeftOut(0, 0.0)


class _Bucket:
    """Tokens of one kind of line, and what was left out for want of them."""

    __slots__ = ("at", "left_out", "since", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.at = now
        self.left_out = 0
        self.since = now


class LineLimits:
    """A token bucket per kind of line.

    Args:
        burst: lines that are written at once.
        rate: lines per second in the long run.

    Thread-safe; memory is bounded by `MAX_KINDS`, beyond which kinds share a bucket.
    """

    def __init__(self, burst: int, rate: float) -> None:
        self._lock = threading.Lock()
        self._burst = burst
        self._rate = rate
        self._buckets: dict[str, _Bucket] = {}

    def limit(self, burst: int, rate: float) -> None:
        """Change the limits. What was left out stays counted."""
        with self._lock:
            self._burst = burst
            self._rate = rate

    def take(self, kind: str, now: float) -> LeftOut | None:
        """Ask leave to write a line.

        Args:
            kind: of the line.
            now: seconds on a clock that does not go back.

        Returns:
            What was left out before it, to be said by the line; ``None`` when it must not be written.
        """
        with self._lock:
            bucket = self._buckets.get(kind)
            if bucket is None:
                bucket = self._add(kind, now)
            gained = max(0.0, now - bucket.at) * self._rate
            bucket.tokens = min(float(self._burst), bucket.tokens + gained)
            bucket.at = max(now, bucket.at)
            if bucket.tokens < 1.0:
                if not bucket.left_out:
                    bucket.since = now
                bucket.left_out += 1
                return None
            bucket.tokens -= 1.0
            if not bucket.left_out:
                return NONE
            said = LeftOut(bucket.left_out, max(0.0, now - bucket.since))
            bucket.left_out = 0
            return said

    def waiting(self) -> dict[str, int]:
        """Lines left out that no line has told of yet, by kind."""
        with self._lock:
            return {kind: bucket.left_out for kind, bucket in self._buckets.items() if bucket.left_out}

    def _add(self, kind: str, now: float) -> _Bucket:
        """Needs the lock."""
        if len(self._buckets) >= MAX_KINDS:
            kind = _REST
        return self._buckets.setdefault(kind, _Bucket(float(self._burst), now))
