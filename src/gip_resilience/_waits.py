"""How long to wait: the sequences, and what chance does to them.

The sequences come from the wait generators of the ``backoff`` package, and users may bring generators of that
kind. What leaves this module is always seconds that can be waited: finite and not negative, whatever went in.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import repeat
from math import ceil, inf, isfinite, isnan
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def delays(wait: str | Callable[[], Iterable[Any]], base: float, longest: float) -> Iterator[float]:
    """Endless waits in seconds, each within 0 and ``longest``.

    Args:
        wait: ``"expo"``, ``"fibo"``, ``"constant"``, or something that returns a generator of backoff's kind.
        base: factor of a named sequence; stands in when a generator yields nothing.
        longest: seconds; the cap.
    """
    last = min(base, longest)
    values: Iterator[object] = iter(())
    with suppress(Exception):  # as below; and without a file left to open, backoff cannot be loaded
        values = iter(_values(wait, base, longest))
    while True:
        try:
            value = next(values)
        except Exception:  # it ended, or it failed: a fault in it must not hide the server's answer
            break
        last = min(max(_number(value, longest), 0.0), longest)
        yield last
    yield from repeat(last)


def jittered(jitter: str | Callable[[float], float], delay: float, chance: float) -> float:
    """One wait moved by chance; see `gip_resilience.policy.Policy.jittered`."""
    unmoved = _waitable(delay, 0.0)
    if callable(jitter):
        return _waitable(_called(jitter, delay), unmoved)
    match jitter:
        case "random":
            return _waitable(delay + chance, unmoved)
        case "none":
            return unmoved
        case _:
            return _waitable(delay * chance, unmoved)


def _values(wait: str | Callable[[], Iterable[Any]], base: float, longest: float) -> Iterator[object]:
    """The values of a generator as it yields them. It may do anything: end, raise, yield nonsense."""
    import backoff  # imports asyncio: tens of milliseconds that a program without a failure need not pay

    if callable(wait):
        return _started(wait)
    if base == 0:
        return repeat(0.0)  # backoff.expo would raise 2 to ever higher powers until that overflows
    match wait:
        case "fibo":
            # The numbers themselves are capped as well: they would grow to thousands of digits.
            most = ceil(min(longest / base, 1e9))
            return (base * number for number in _started(partial(backoff.fibo, max_value=most)))
        case "constant":
            return _started(partial(backoff.constant, interval=repeat(base)))
        case _:
            return _started(partial(backoff.expo, factor=base, max_value=longest))


def _started(factory: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Values of a wait generator past its first ``yield``, which only starts it and gives ``None``."""
    values = iter(factory())
    first = next(values, None)
    if first is not None:
        yield first
    yield from values


def _called(jitter: Callable[[float], float], delay: float) -> float:
    try:
        return _number(jitter(delay), delay)
    except Exception:  # a fault in a jitter function must not hide the server's answer
        return delay


def _waitable(seconds: float, otherwise: float) -> float:
    return max(seconds, 0.0) if isfinite(seconds) else otherwise


def _number(value: object, otherwise: float) -> float:
    """``value`` as a float that is a number, possibly an infinite one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    try:
        number = float(value)
    except OverflowError:
        return inf if value > 0 else -inf
    return otherwise if isnan(number) else number
