"""Rate limits as the gateway keeps and announces them: fixed windows of requests and tokens, per key.

Pure: `now` is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_MANY: Final = 1000
"""Keys above which windows that have ended are thrown away."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How much one key may use.

    Attributes:
        requests: requests in a window.
        tokens: tokens in a window, prompt and completion together.
        window: seconds. A window begins with the first request after the last one ended.
    """

    requests: int = 60
    tokens: int = 100_000
    window: float = 60.0

    def __post_init__(self) -> None:
        if self.requests < 1 or self.tokens < 1 or not self.window > 0:
            raise ValueError("requests and tokens must be at least 1, window more than 0")


@dataclass(frozen=True, slots=True)
class Quota:
    """What one key has left.

    Attributes:
        limit: the limit it is measured against.
        requests: requests left in the window.
        tokens: tokens left in the window.
        reset: seconds until the window ends and all of it is there again.
    """

    limit: RateLimit
    requests: int
    tokens: int
    reset: float

    def headers(self) -> tuple[tuple[str, str], ...]:
        """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, resets as Go durations."""
        reset = go_duration(self.reset)
        return (
            ("x-ratelimit-limit-requests", str(self.limit.requests)),
            ("x-ratelimit-limit-tokens", str(self.limit.tokens)),
            ("x-ratelimit-remaining-requests", str(self.requests)),
            ("x-ratelimit-remaining-tokens", str(self.tokens)),
            ("x-ratelimit-reset-requests", reset),
            ("x-ratelimit-reset-tokens", reset),
        )

    @property
    def retry_after(self) -> int:
        """Whole seconds until the window has ended, at least 1."""
        return max(1, math.ceil(self.reset))


@dataclass(slots=True)
class _Window:
    start: float
    requests: int = 0
    tokens: int = 0


class Windows:
    """The windows of all keys. Not thread-safe; one task must own it."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._windows: dict[str, _Window] = {}

    def quota(self, key: str, now: float) -> Quota:
        """What *key* has left at *now*."""
        window = self._current(key, now)
        reset = self.limit.window if window is None else window.start + self.limit.window - now
        requests, tokens = (0, 0) if window is None else (window.requests, window.tokens)
        return Quota(self.limit, self.limit.requests - requests, max(0, self.limit.tokens - tokens), reset)

    def admit(self, key: str, tokens: int, now: float) -> bool:
        """Take one request and *tokens* from *key*'s window; `False`, with nothing taken, if they do not fit.

        A request that is larger than a whole window is let through when the window is untouched; otherwise it
        could never be served.
        """
        window = self._current(key, now)
        if window is None:
            if len(self._windows) >= _MANY:
                self._windows = {k: w for k, w in self._windows.items() if self._current(k, now) is w}
            window = self._windows[key] = _Window(now)
        untouched = window.requests == 0
        fits = window.requests < self.limit.requests and window.tokens + tokens <= self.limit.tokens
        if not (fits or untouched):
            return False
        window.requests += 1
        window.tokens += tokens
        return True

    def _current(self, key: str, now: float) -> _Window | None:
        window = self._windows.get(key)
        return window if window is not None and now < window.start + self.limit.window else None


def go_duration(seconds: float) -> str:
    """*seconds* as Go prints a duration, to the millisecond: ``120ms``, ``1.5s``, ``6m0s``, ``1h0m0s``."""
    millis = max(0, round(seconds * 1000))
    if 0 < millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
