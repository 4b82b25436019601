"""What is read of answers and requests: their meaning, how long to wait, and which model they are for."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.answers import ANSWERS, HINTS, request_body
from benchmarks.measuring import Effort, Found, busy, compare, looped
from gip_resilience.hints import retry_hint
from gip_resilience.target import model_in_body
from gip_resilience.taxonomy import classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measuring import Run

JSON: Final = "application/json"
SIZES: Final = {"1 kB": 1_000, "1 MB": 1_000_000, "20 MB": 20_000_000}


def bench(effort: Effort) -> Found:
    """The three of them."""
    found = Found()
    for name, answer in ANSWERS.items():
        run = looped(partial(classify, *answer))
        found.rows += compare(f"classify: {name}", {"ours": run}, effort, effort.times(200))
    for name, answer in HINTS.items():
        run = looped(partial(retry_hint, *answer, 1e9))
        found.rows += compare(f"hint: {name}", {"ours": run}, effort, effort.times(200))
    for name, size in SIZES.items():
        if effort.scale < 0.1 and size > 1_000_000:
            continue
        first, last = (request_body(size, first=first) for first in (True, False))
        quick = max(1, 200_000 // size)
        runs = {
            "json.loads": _each(partial(_loaded, last), quick),
            "ours, named first": _each(partial(model_in_body, first, JSON), 200),
            "ours, named last": _each(partial(model_in_body, last, JSON), quick),
        }
        found.rows += compare(f"model of a body of {name}", runs, effort, 1)
    return found


def _loaded(body: bytes) -> object:
    return json.loads(body)["model"]


def _each(operation: Callable[[], object], count: int) -> Run:
    """*operation*, *count* times for each time it is asked for; what some do in a blink takes others milliseconds."""

    def run(times: int) -> float:
        start = busy()
        for _ in range(times * count):
            operation()
        return (busy() - start) / count

    return run
