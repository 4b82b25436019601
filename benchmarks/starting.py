"""Import time: a fresh interpreter that imports something, less one that imports nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Final

from benchmarks.measuring import Effort, Found, Row, Spread, rows

LONGEST: Final = 8
"""Times as long as another comparison this one may take, being of so many."""

IMPORTS: Final = {
    "bare Python": "pass",
    "gip_resilience": "import gip_resilience",
    "gip_resilience, mounted on httpx2": (
        "import httpx2, gip_resilience; gip_resilience.mount(httpx2.Client(transport=httpx2.MockTransport(id)))"
    ),
    "httpx2, with such a client": "import httpx2; httpx2.Client(transport=httpx2.MockTransport(id))",
    "httpx_retries": "import httpx_retries",
    "tenacity": "import tenacity",
    "stamina": "import stamina",
    "pydantic_ai.retries": "import pydantic_ai.retries",
    "interlock": "import interlock",
    "pybreaker": "import pybreaker",
    "purgatory": "import purgatory",
    "openai": "import openai",
}


def bench(effort: Effort) -> Found:
    """In turns; what was compiled before is used."""
    found = Found()
    scripts = {}
    for name, script in IMPORTS.items():
        package = name.partition(".")[0].partition(",")[0]
        if " " in package or find_spec(package) is not None:
            scripts[name] = script
        else:
            found.skipped[name] = "not installed"
    taken: dict[str, list[float]] = {name: [] for name in scripts}
    began = time.perf_counter()
    for number in range(max(2, effort.times(min(effort.rounds, 15)))):
        if number > effort.fewest and time.perf_counter() - began > LONGEST * effort.seconds:
            break
        for name, script in scripts.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)
            if number:  # the first has compiled
                taken[name].append(time.perf_counter() - start)
    found.rows += [row._replace(ratio=None) for row in rows("start and import", taken, factor=1e3, unit="ms")]
    bare = taken["bare Python"]
    for name, values in taken.items():
        if name != "bare Python":
            more = Spread.of((a - b for a, b in zip(values, bare, strict=True)), 1e3)
            found.rows.append(Row("import, less bare Python", name, more, "ms"))
    return found
