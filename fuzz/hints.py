"""Waits: whatever the server writes, the hint is finite and not negative, and what is made of it is within bounds."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from fuzz.given import Given
from fuzz.words import BODY_WORDS, HEADER_NAMES, HEADER_VALUES, decoded
from gip_resilience._moments import UNITS
from gip_resilience.config import GateConfig
from gip_resilience.gate import Gate
from gip_resilience.hints import Hint, retry_hint, should_retry, used_up

if TYPE_CHECKING:
    from collections.abc import Callable

_NOWS = (1767225600.0, 0.0, -1e9, 1e12, 1e300, 1767225600.5)
_STATUSES = (429, 503, 403, 400, 500, 200, None, 402)
_COSTS = (
    None,
    {},
    {"requests": 1.0},
    {"tokens": 5000.0, "": 2.0},
    {"": math.nan, "tokens": -1.0, "requests": math.inf},
)
_GATE = GateConfig()


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    status, now, costs = given.one_of(_STATUSES), given.one_of(_NOWS), given.one_of(_COSTS)
    units = {given.one_of(HEADER_NAMES): given.one_of((*UNITS, "parsecs"))} if given.flag() else None
    in_stream = given.flag()
    headers = given.headers(HEADER_NAMES, HEADER_VALUES)
    match given.below(5):
        case 0:
            body: object = given.value(BODY_WORDS, 5)
        case 1:
            body = json.dumps({"error": given.value(BODY_WORDS)})
        case 2:
            body = decoded(given.rest())
        case 3:
            body = {"error": {"message": "Please try again in " + given.rest().decode("latin-1")}}
        case _:
            body = given.rest()
    _is_usable(
        lambda: retry_hint(status, headers, body, now, in_stream=in_stream, units=units, request_cost=costs)
    )
    for refills in (True, False):
        _is_usable(lambda refills=refills: used_up(headers, now, units=units, refills=refills))  # type: ignore[misc]
    word = should_retry(status, headers, body)
    assert word in (None, True, False)
    assert word is should_retry(status, headers, body)


def _is_usable(ask: Callable[[], Hint | None]) -> None:
    hint = ask()
    assert hint == ask()
    if hint is None:
        return
    assert 0.0 <= hint.seconds < math.inf
    assert hint.source
    assert len(hint.source) <= 80
    gate = Gate(_GATE)
    gate.close(100.0, hint.seconds, gate.generation)
    assert 0.0 <= gate.remaining(100.0) <= _GATE.max_wait
