"""Numbers, durations and dates as servers write them, turned into seconds from now. Pure.

The grammars are spelled out in ASCII instead of leaving the work to ``float`` and ``strptime``: ``float``
reads ``nan``, ``inf``, ``1_000`` and ``٣``, and the month names of ``strptime`` are the locale's. Each
grammar is matched against the whole value, bounds its digits (nothing overflows to infinity), and is linear.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Wait: TypeAlias = tuple[float, str]
"""Seconds, finite and not negative, and the name of what said so."""

UNITS: Final[Mapping[str, tuple[bool, float]]] = {
    "delta_s": (False, 1.0),
    "delta_ms": (False, 1e3),
    "delta_us": (False, 1e6),
    "epoch_s": (True, 1.0),
    "epoch_ms": (True, 1e3),
    "epoch_us": (True, 1e6),
    "epoch_ns": (True, 1e9),
}
"""The units a bare number may have: whether it is a Unix time, and how many make a second."""

NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
"""A wait or a Unix time: 20 digits hold one in nanoseconds."""
COUNT: Final = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?")
"""What is left of a quota; negative where the server does not know."""

_YEAR = 365 * 86_400

# µ is U+00B5 or U+03BC; the two-letter forms are their UTF-8 bytes read as Latin-1, as HTTP/1.1 clients do.
SECONDS: Final[Mapping[str, float]] = {
    "ns": 1e-9,
    **dict.fromkeys(("us", "\u00b5s", "\u03bcs", "\u00c2\u00b5s", "\u00ce\u00bcs"), 1e-6),
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}
"""Seconds in each unit of a written duration: those of Go's ``time.ParseDuration``, and days."""
_DURATION_PART = re.compile(rf"([0-9]{{1,15}}(?:\.[0-9]{{1,15}})?)({'|'.join(SECONDS)})")

_MONTHS: Final[Mapping[str, int]] = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_UNIX_EPOCH = date(1970, 1, 1).toordinal()

HTTP_DATES: Final = (
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{1,2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} (?:GMT|UTC)"),
    re.compile(rf"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
"""RFC 9110, 5.6.7: IMF-fixdate, RFC 850, asctime; a recipient must accept all three."""

DATES: Final = (
    # RFC 3339, and LiteLLM's "2026-01-01 00:01:00 UTC". Without a zone it would be a guess.
    re.compile(
        rf"(?P<year>[0-9]{{4}})-(?P<month>[0-9]{{2}})-(?P<day>[0-9]{{2}})[Tt ]{_TIME}"
        r"(?P<fraction>\.[0-9]{1,9})?(?:[Zz]| UTC|(?P<offset>[+-][0-9]{2}:?[0-5][0-9]))"
    ),
    *HTTP_DATES,
    # JavaScript's Date.prototype.toString().
    re.compile(
        rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[0-9]{{2}}) (?P<year>[0-9]{{4}}) {_TIME}"
        r" GMT(?P<offset>[+-][0-9]{2}[0-5][0-9])(?: \([^()]*\))?"
    ),
)
"""Every form of an absolute time that has been seen in a reset header."""


class Clock:
    """Turns what a server wrote into seconds from now; knows whose clock to trust.

    An absolute time is compared with the answer's own ``Date``, so a client whose clock is wrong still waits
    right; with *now* if there is none, or if a cache held the answer (``Age`` above 0).
    """

    __slots__ = ("_age", "_date", "_now")

    def __init__(self, now: float, sent: str | None = None, age: str = "") -> None:
        self._now = now
        self._date = sent
        self._age = age

    def number(self, number: float, unit: str) -> float | None:
        """Read a bare number by its unit; by its magnitude where *unit* is empty."""
        absolute, per_second = UNITS[unit] if unit else _guess(number)
        if not per_second:
            return None
        seconds = number / per_second
        return self._until(seconds) if absolute else seconds

    def moment(self, text: str, forms: Iterable[re.Pattern[str]] = DATES) -> float | None:
        """Read a date in one of *forms*."""
        timestamp = _timestamp(text, forms, self._now)
        return None if timestamp is None else self._until(timestamp)

    def _until(self, timestamp: float) -> float:
        reference = None
        if self._date and not parsed(NUMBER, self._age):
            reference = _timestamp(self._date, HTTP_DATES, self._now)
        return timestamp - (self._now if reference is None else reference)


def longest(waits: Iterable[tuple[float | None, str]]) -> Wait | None:
    """The longest usable wait; ``None`` if none is. A moment that has passed is a wait of 0."""
    best: Wait | None = None
    for seconds, source in waits:
        if seconds is None or not math.isfinite(seconds):
            continue
        if best is None or seconds > best[0]:
            best = max(0.0, seconds), source
    return best


def parsed(grammar: re.Pattern[str], text: str) -> float | None:
    """The number *text* is under *grammar*; ``None`` if it is not one."""
    return float(text) if grammar.fullmatch(text) else None


def duration(text: str) -> float | None:
    """Seconds of a duration as Go prints it: ``1h2m3.5s``, ``850µs``."""
    total, position = 0.0, 0
    while position < len(text):
        part = _DURATION_PART.match(text, position)
        if part is None:
            return None
        total += float(part[1]) * SECONDS[part[2]]
        position = part.end()
    return total if text else None


def _guess(number: float) -> tuple[bool, float]:
    """Guess the unit of a number; ``(False, 0)`` where no guess is better than another.

    A year, because daily and monthly quotas exist and their resets are deltas too; nobody means 56 years.
    """
    if number <= _YEAR:
        return False, 1.0
    if number < 1e9:
        return False, 0.0
    if number < 1e11:
        return True, 1.0
    if number < 1e14:
        return True, 1e3
    return (True, 1e6) if number < 1e17 else (True, 1e9)


def _timestamp(text: str, forms: Iterable[re.Pattern[str]], now: float) -> float | None:
    for form in forms:
        if found := form.fullmatch(text):
            return _unix_time(found.groupdict(), now)
    return None


def _unix_time(part: Mapping[str, str | None], now: float) -> float | None:
    year, month, day = part["year"] or "", part["month"] or "", int(part["day"] or 0)
    hour, minute, second = (int(part[name] or 0) for name in ("hour", "minute", "second"))
    # 60 is a leap second.
    if hour > 23 or minute > 59 or second > 60:
        return None
    century = 2000 if len(year) == 2 else 0
    try:
        days = date(century + int(year), _MONTHS.get(month) or int(month), day).toordinal() - _UNIX_EPOCH
    except ValueError:
        return None
    # RFC 9110, 5.6.7: a two-digit year that seems over 50 years ahead is the most recent one in the past.
    if century and days - now / 86_400 > 50 * 365.25:
        days -= 36_525
    seconds = days * 86_400.0 + hour * 3600 + minute * 60 + second
    return seconds + float(part.get("fraction") or 0) - _offset(part.get("offset"))


def _offset(text: str | None) -> int:
    """Seconds east of UTC: ``+0100``, ``-05:30``."""
    if not text:
        return 0
    seconds = int(text[1:3]) * 3600 + int(text[-2:]) * 60
    return -seconds if text[0] == "-" else seconds
