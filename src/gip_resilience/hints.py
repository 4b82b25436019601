"""Every way a server says "wait", as one pure question: `retry_hint`.

There are a dozen dialects of the same sentence, and most clients read two of them. They are read here in one
order, and a value that does not parse falls through to the next source:

1. ``retry-after-ms``, ``x-ms-retry-after-ms``, ``x-amz-retry-after``, ``Retry-After`` (RFC 9110, 10.2.3);
2. the body: ``google.rpc.RetryInfo``, ``retry_after`` and its kin, headers quoted in ``metadata.headers``,
   and at last the prose ("Please try again in 6m6s");
3. quota headers, on a 429 (or a 403 whose quota is used up): ``*-retry-after``, ``*-reset-after`` and
   ``*-next``, then IETF ``RateLimit`` (also on a 503), then ``*-reset-*``, then ``reset_at``.

How values are read is told in `_moments`, which quota headers count in `_hint_headers`, and where bodies are
searched in `_hint_bodies`. Hints are raw: caps, pads and jitter are policy and are applied elsewhere. All
parsing is linear in its input and bounded, since an error answer may come from anybody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gip_resilience._hint_bodies import decoded, from_body, is_terminal, names_daily_limit
from gip_resilience._hint_headers import (
    Headers,
    clock_of,
    collect,
    from_quotas,
    from_retry_after,
    from_used_up,
    pairs,
)
from gip_resilience._moments import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["UNITS", "Body", "Headers", "Hint", "retry_hint", "should_retry", "used_up"]

Body: TypeAlias = object
"""An error body: ``bytes`` or ``str`` as received, the JSON value decoded from it, or ``None``."""


@dataclass(frozen=True, slots=True)
class Hint:
    """How long the server asked us to wait.

    Attributes:
        seconds: the wait, finite and not negative; neither capped, padded nor jittered. 0 is a hint too.
        source: which header or body field said so: ``retry-after``, ``reset:tokens``, ``body.RetryInfo``.

    Raises:
        ValueError: the wait is negative, NaN or infinite.
    """

    seconds: float
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"a hint needs a finite wait of at least 0 s, got {self.seconds!r}")


def retry_hint(
    status: int | None,
    headers: Headers,
    body: Body,
    now: float,
    *,
    in_stream: bool = False,
    units: Mapping[str, str] | None = None,
    request_cost: Mapping[str, float] | None = None,
) -> Hint | None:
    """Find out how long the server wants the client to wait before the next attempt.

    Pure and total: whatever the answer contains, the result is a usable hint or ``None``. Safe to call from
    any thread or task.

    Args:
        status: HTTP status, or ``None`` where there is none.
        headers: response headers.
        body: error body, raw or decoded. Raw bodies over 64 KiB are not read.
        now: the client's Unix time in seconds, for absolute times when the answer has no usable ``Date``.
        in_stream: the error was found *inside* an answer that began as a success (an SSE event, an error
            envelope in a 200). Without it, nothing in an answer below 400 is a hint.
        units: unit of bare numbers by header name, one of `UNITS`; any other is ignored. Without one, a
            number is read by its magnitude: up to a year as seconds, from 1e9 as a Unix time in s, ms, µs
            or ns; what lies between means nothing and is ignored.
        request_cost: what the next request takes from each quota (``{"requests": 1, "tokens": 5000}``; ``""``
            is the quota without a name). On a 429, a quota that lacks it is waited for until a linear refill
            has made room, ``(cost - remaining) * reset / (limit - remaining)``, instead of until its reset;
            right for servers whose reset is the time until the quota is full (OpenAI).

    Returns:
        The hint of the first source that has one, or ``None``.
    """
    if status is not None and status < 400 and not in_stream:
        return None
    fields = collect(headers)
    clock = clock_of(fields, now)
    known = {name.lower(): unit for name, unit in units.items() if unit in UNITS} if units else {}
    wait = (
        from_retry_after(fields, clock, known)
        or from_body(decoded(body), clock)
        or from_quotas(status, fields, clock, known, request_cost or {})
    )
    return Hint(*wait) if wait else None


def used_up(
    headers: Headers, now: float, *, units: Mapping[str, str] | None = None, refills: bool = True
) -> Hint | None:
    """Find out how long the next request would be refused, by the headers of a success.

    A server that counts requests says with each answer how many are left; after the one that took the last, the
    next is refused until the quota's reset. Only what is certain counts: quotas whose ``remaining`` is 0, and of a
    bucket that refills all the time only the time for one unit of it.

    Pure and total, like `retry_hint`.

    Args:
        headers: response headers of an answer that was a success.
        now: the client's Unix time in seconds.
        units: see `retry_hint`.
        refills: whether a reset given as a duration or date is that of a bucket that refills all the time;
            otherwise it is the end of a window, like a plain number.

    Returns:
        The longest of these waits, or ``None`` where no quota is used up.
    """
    fields = collect(headers)
    known = {name.lower(): unit for name, unit in units.items() if unit in UNITS} if units else {}
    wait = from_used_up(fields, clock_of(fields, now), known, refills=refills)
    return Hint(*wait) if wait and wait[0] > 0.0 else None


def should_retry(status: int | None, headers: Headers, body: Body) -> bool | None:
    """Return the server's own word on whether a retry makes sense, where it gave one.

    That is ``x-should-retry`` (exactly ``true`` or ``false``; of several, ``false`` wins), and after it what
    the body says about a quota that no reasonable wait refills: billing and spend limits, Google's
    ``QUOTA_EXHAUSTED`` and per-day quotas, OpenRouter's ``...-per-day`` limits. Prose about "requests per
    day" is not enough: OpenAI writes it above a wait of a few minutes.

    Pure and total, like `retry_hint`. Names of codes are local to a dialect; the few read here mean the same
    wherever they come from.

    Args:
        status: HTTP status; the name of a limit counts only where a limit can be the reason.
        headers: response headers.
        body: error body, raw or decoded.

    Returns:
        ``True`` or ``False`` if the server decided, ``None`` to leave it to the code's policy.
    """
    words = {value for name, value in pairs(headers) if len(name) == 14 and name.lower() == "x-should-retry"}
    if words & {"true", "false"}:
        return "false" not in words
    value = decoded(body)
    if is_terminal(value):
        return False
    can_be_limit = status is None or status < 400 or status in (402, 403, 429)
    return False if can_be_limit and names_daily_limit(value) else None
