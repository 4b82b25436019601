"""Waits in headers: ``Retry-After`` and its kin, quotas, IETF ``RateLimit``. Pure.

Quota headers describe a quota, not a wait, and many servers send them with every answer. So they count only
where a quota can be the reason for a failure, and only for quotas that are used up: the reset of a token
quota that still has tokens says nothing about the request quota that refused us.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from gip_resilience._moments import COUNT, HTTP_DATES, NUMBER, Clock, Wait, duration, longest, parsed

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Response headers: a mapping, a library's header object, or pairs (names may repeat); in any case."""

Fields: TypeAlias = Mapping[str, list[str]]
"""The headers that may matter: lower-case name to values, in order."""

RETRY_AFTER: Final[Mapping[str, str]] = {
    "retry-after-ms": "delta_ms",
    "x-ms-retry-after-ms": "delta_ms",
    "x-amz-retry-after": "delta_ms",
    "retry-after": "",
}
"""The headers that say nothing but "wait", in order of precedence, and their units."""

MAX_VALUE: Final = 256
"""Characters of a value worth reading; no grammar here but ``RateLimit`` needs a quarter of them."""
_MAX_LIST = 4096
"""The same for ``RateLimit``, which lists policies."""
_MAX_NAME = 64

_PLAIN_FIELDS = frozenset({*RETRY_AFTER, "date", "age", "ratelimit", "reset_at"})
_WEEKDAY = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}")


def pairs(headers: Headers) -> Iterator[tuple[str, str]]:
    """The headers one by one. ``multi_items`` (httpx) keeps repeated names apart; ``items`` may join them."""
    items = getattr(headers, "multi_items", None) or getattr(headers, "items", None)
    entries: Any = headers if items is None else items()
    for name, value in entries:
        if isinstance(name, str) and isinstance(value, str) and len(name) <= _MAX_NAME:
            yield name, value


def collect(headers: Headers) -> dict[str, list[str]]:
    """The headers that may matter, without surrounding blanks and without huge values."""
    fields: dict[str, list[str]] = {}
    for name, value in pairs(headers):
        name = name.lower()
        if name in _PLAIN_FIELDS or "ratelimit-" in name or "rate-limit-" in name:
            if len(value) > (_MAX_LIST if name == "ratelimit" else MAX_VALUE):
                continue
            # Blanks only: str.strip would also take the control characters and exotic spaces that make a
            # value malformed.
            fields.setdefault(name, []).append(value.strip(" \t"))
    return fields


def clock_of(fields: Fields, now: float) -> Clock:
    """The clock the absolute times of this answer are measured by."""
    sent = next(iter(fields.get("date", ())), None)
    return Clock(now, sent, next(iter(fields.get("age", ())), ""))


def members(values: Iterable[str]) -> Iterator[str]:
    """Every value of a repeated header; clients join repeated ones with a comma and a blank.

    A comma after a weekday belongs to its HTTP-date.
    """
    for value in values:
        weekday = ""
        for member in value.split(", "):
            if _WEEKDAY.fullmatch(member):
                weekday = f"{member}, "
            else:
                yield weekday + member
                weekday = ""


def retry_after(text: str, unit: str, clock: Clock) -> float | None:
    """Seconds of a ``Retry-After``: a number or an HTTP-date."""
    number = parsed(NUMBER, text)
    return clock.moment(text, HTTP_DATES) if number is None else clock.number(number, unit)


def reset(text: str, unit: str, clock: Clock) -> float | None:
    """Seconds of a reset: a number, a Go duration or a date; the latter two need no unit."""
    number = parsed(NUMBER, text)
    if number is not None:
        return clock.number(number, unit)
    seconds = duration(text)
    return clock.moment(text) if seconds is None else seconds


def from_retry_after(fields: Fields, clock: Clock, units: Mapping[str, str]) -> Wait | None:
    """The first of the plain "wait" headers that can be read; of a repeated one, the longest."""
    for name, unit in RETRY_AFTER.items():
        if name in fields:
            unit = units.get(name, unit)
            waits = ((retry_after(text, unit, clock), name) for text in members(fields[name]))
            if wait := longest(waits):
                return wait
    return None


# --- quotas -----------------------------------------------------------------------------------------------

# One vendor name may stand in the middle (anthropic-ratelimit-, x-jigsaw-rate-limit-). A prefix before the
# "x-" is a gateway quoting its upstream (llm_provider-x-ratelimit-): not about our quota.
_FAMILY = re.compile(r"((?:x-)?(?:[a-z0-9]+-)?rate-?limit)-([a-z0-9_-]{1,40})")
_NEXT_CALL = ("retry-after", "reset-after", "next")
_QUOTA_PARTS = ("limit", "remaining", "reset")


@dataclass(slots=True)
class _Quota:
    """What the headers say about one quota; a part that is missing or malformed is ``None``."""

    name: str
    limit: float | None = None
    remaining: float | None = None
    resets: list[tuple[str, str]] = field(default_factory=list)
    next_calls: list[tuple[str, str]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """What a hint from the quota's reset is called."""
        return f"reset:{self.name}" if self.name else "reset"

    def lacks(self, cost: float | None) -> bool:
        """Whether the next request does not fit. Negative means unknown (Azure sends -1, -1 and 0)."""
        if self.remaining is None or self.remaining < 0:
            return False
        return self.remaining == 0 if cost is None else self.remaining < cost

    def refill(self, full_in: float | None, cost: float | None) -> float | None:
        """Time until *cost* fits if the quota refills linearly and is full in *full_in* s; never longer."""
        if full_in is None or cost is None or self.limit is None or self.remaining is None:
            return full_in
        if self.limit <= self.remaining:
            return full_in
        return min(1.0, (cost - self.remaining) / (self.limit - self.remaining)) * full_in


def from_quotas(
    status: int | None, fields: Fields, clock: Clock, units: Mapping[str, str], costs: Mapping[str, float]
) -> Wait | None:
    """The wait for the quotas that can have refused us; never on statuses that merely carry the headers."""
    if status == 503:
        # The draft's temporary-reduced-capacity. A 500 or a 502 has other reasons.
        return _from_ratelimit(fields)
    if status == 403:
        # Most are about permission. A quota with nothing left at all makes one a rate limit (GitHub).
        spent = [quota for quota in _quotas(fields) if quota.lacks(None)]
        return _from_suspects(spent, fields, clock, units, {})
    if status != 429:
        return None
    quotas = _quotas(fields)
    spent = [quota for quota in quotas if quota.lacks(_cost(costs, quota))]
    # Some quota is used up. If none admits it, at least it is none of those that show what they have left.
    suspects = spent or [quota for quota in quotas if quota.remaining is None]
    return _from_suspects(suspects, fields, clock, units, costs) or longest(
        (clock.moment(text), "reset_at") for text in fields.get("reset_at", ())
    )


def _from_suspects(
    quotas: Iterable[_Quota],
    fields: Fields,
    clock: Clock,
    units: Mapping[str, str],
    costs: Mapping[str, float],
) -> Wait | None:
    """The longest wait: until the next call is allowed where that is said, else until the reset."""
    return (
        longest(
            (reset(text, units.get(header, ""), clock), header)
            for quota in quotas
            for header, text in quota.next_calls
        )
        or _from_ratelimit(fields)
        or longest(
            (quota.refill(reset(text, units.get(header, ""), clock), _cost(costs, quota)), quota.source)
            for quota in quotas
            for header, text in quota.resets
        )
    )


def from_used_up(fields: Fields, clock: Clock, units: Mapping[str, str], *, refills: bool) -> Wait | None:
    """How long the next request, however small, is certain to be refused, by an answer that was a success.

    A plain number and IETF ``RateLimit`` tell when a window ends, so nothing passes before. A duration or a date is
    when a bucket is *full* again, as OpenAI and Anthropic send them: it refills all the time, and one unit of it is
    there after ``reset / limit``.
    """
    spent = [quota for quota in _quotas(fields) if quota.lacks(None)]
    waits: list[tuple[float | None, str]] = []
    for quota in spent:
        waits += ((reset(text, units.get(header, ""), clock), header) for header, text in quota.next_calls)
        for header, text in quota.resets:
            seconds = reset(text, units.get(header, ""), clock)
            if refills and parsed(NUMBER, text) is None:
                seconds = quota.refill(seconds, 1.0) if quota.limit else None
            waits.append((seconds, quota.source))
    if policies := _from_ratelimit(fields):
        waits.append(policies)
    return longest(waits)


def _cost(costs: Mapping[str, float], quota: _Quota) -> float | None:
    cost = costs.get(quota.name)
    return cost if cost is not None and 0 <= cost < math.inf else None


def _quotas(fields: Fields) -> list[_Quota]:
    """Group the quota headers by family and quota name."""
    quotas: dict[tuple[str, str], _Quota] = {}
    for header, values in fields.items():
        if not (found := _FAMILY.fullmatch(header)):
            continue
        family, rest = found.groups()
        part, name = _part_and_name(rest)
        if not part:
            continue
        quota = quotas.setdefault((family, name), _Quota(name))
        if part == "reset":
            quota.resets += ((header, text) for text in members(values))
        elif part == "remaining":
            quota.remaining = _smallest(values)
        elif part == "limit":
            quota.limit = _smallest(values)
        else:
            quota.next_calls += ((header, text) for text in members(values))
    return list(quotas.values())


def _part_and_name(rest: str) -> tuple[str, str]:
    """Both ``remaining-tokens`` and ``tokens-remaining`` are the remaining of ``tokens``."""
    if rest in _NEXT_CALL or rest in _QUOTA_PARTS:
        return rest, ""
    for part in _QUOTA_PARTS:
        if rest.startswith(f"{part}-"):
            return part, rest[len(part) + 1 :]
        if rest.endswith(f"-{part}"):
            return part, rest[: -len(part) - 1]
    return "", ""


def _smallest(values: Iterable[str]) -> float | None:
    """The smallest count. Early drafts list policies behind a limit (``100, 100;w=60``): skipped."""
    counts = (parsed(COUNT, text) for text in members(values))
    return min((count for count in counts if count is not None), default=None)


# --- IETF RateLimit ---------------------------------------------------------------------------------------

# The parts of an RFC 8941 list that the field uses.
_STRING = r'"[^"\\]*(?:\\["\\][^"\\]*)*"'
_NAME = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
_KEY = r"[a-z*][a-z0-9_.*-]*"
_ITEM = re.compile(rf"[ \t]*(?:{_STRING}|{_NAME})")
_PARAMETER = re.compile(
    rf";[ ]*({_KEY})(?:=({_STRING}|{_NAME}|-?[0-9]{{1,15}}(?:\.[0-9]{{1,3}})?|:[A-Za-z0-9+/=]*:|\?[01]))?"
)
_END = re.compile(r"[ \t]*(?:,(?=[ \t]*[^ \t])|\Z)")
_MEMBER = re.compile(rf"[ \t]*({_KEY})=([0-9]{{1,15}})(?:;[^,]*)?[ \t]*")


def _from_ratelimit(fields: Fields) -> Wait | None:
    """The longest ``t`` of the policies with nothing left (draft-ietf-httpapi-ratelimit-headers)."""
    if "ratelimit" not in fields:
        return None
    text = ", ".join(fields["ratelimit"])
    policies = _dictionary(text) or _list(text)
    return longest(
        (float(seconds), "ratelimit")
        for left, seconds in policies
        if left.isdigit() and int(left) == 0 and seconds.isdigit()
    )


def _list(text: str) -> list[tuple[str, str]]:
    """(left, seconds) of each policy of ``"default";r=0;t=30`` (draft 08 to 10); none if it is malformed."""
    policies: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        item = _ITEM.match(text, position)
        if item is None:
            return []
        position = item.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            parameters[parameter[1]] = parameter[2] or ""
            position = parameter.end()
        end = _END.match(text, position)
        if end is None:
            return []
        position = end.end()
        policies.append((parameters.get("r", ""), parameters.get("t", "")))
    return policies


def _dictionary(text: str) -> list[tuple[str, str]]:
    """(left, seconds) of ``limit=100, remaining=0, reset=53`` (draft 07); none if it is not of that form."""
    found = [_MEMBER.fullmatch(part) for part in text.split(",")]
    values = {member[1]: member[2] for member in found if member}
    return [(values.get("remaining", ""), values.get("reset", ""))] if all(found) else []
