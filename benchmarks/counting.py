"""Machine instructions of the key paths: no clock, so neighbours do not matter, and runs differ by some 1 % at most.

How they are counted is told in `instructions.py`. The ratio is to the same call of the bare client.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from benchmarks.instructions import BARE, count
from benchmarks.measuring import Effort, Found, Row, Spread

if TYPE_CHECKING:
    from benchmarks.instructions import Counts


def bench(effort: Effort) -> Found:  # noqa: ARG001 - every bench is told
    """One run of them all, whatever the effort."""
    if shutil.which("valgrind") is None:
        return Found(skipped={"instructions": "valgrind is not installed"})
    return Found(counted(count()))


def counted(counts: Counts) -> list[Row]:
    """The rows of *counts*, in which a call is what it takes more than the bare one."""
    found = []
    for name, cost in counts.items():
        bare = counts.get(name + BARE)
        if name.endswith(BARE):
            continue
        if bare is None:
            found.append(Row(name, "ours", _one(cost), "instructions"))
        else:
            found += [
                Row(name, "bare", _one(bare), "instructions"),
                Row(name, "ours", _one(bare + cost), "instructions", _one(1.0 + cost / bare)),
            ]
    return found


def _one(value: float) -> Spread:
    return Spread(value, value, value)
