"""What is read of answers and requests: their meaning, how long to wait, and which model they are for."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.answers import ANSWERS, HINTS, request_body
from benchmarks.measuring import Effort, Found, compare, looped
from gip_resilience.hints import retry_hint
from gip_resilience.target import model_in_body
from gip_resilience.taxonomy import classify

JSON: Final = "application/json"
SIZES: Final = {"1 kB": 1_000, "1 MB": 1_000_000, "20 MB": 20_000_000}


def bench(effort: Effort) -> Found:
    """The three of them."""
    found = Found()
    for name, answer in ANSWERS.items():
        run = looped(lambda answer=answer: classify(*answer))  # type: ignore[misc]  # a default binds it
        found.rows += compare(f"classify: {name}", {"ours": run}, effort, effort.times(200))
    for name, answer in HINTS.items():
        run = looped(lambda answer=answer: retry_hint(*answer, 1e9))  # type: ignore[misc]  # likewise
        found.rows += compare(f"hint: {name}", {"ours": run}, effort, effort.times(200))
    for name, size in SIZES.items():
        if effort.scale < 0.1 and size > 1_000_000:
            continue
        first, last = (request_body(size, first=first) for first in (True, False))
        times = effort.times(max(1, 200_000 // size))
        runs = {
            "json.loads": looped(lambda last=last: json.loads(last)["model"]),  # type: ignore[misc]  # likewise
            "ours, named first": looped(lambda first=first: model_in_body(first, JSON)),  # type: ignore[misc]  # likewise
            "ours, named last": looped(lambda last=last: model_in_body(last, JSON)),  # type: ignore[misc]  # likewise
        }
        found.rows += compare(f"model of a body of {name}", runs, effort, times)
    return found
