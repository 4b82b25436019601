"""Runs benches one after the other, prints what they find, and writes it down."""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measuring import Effort, Found

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measuring import Row, Spread

__all__ = ["BENCHES", "Effort", "run"]

BENCHES: Final = {
    "starting": "import time",
    "calls": "one call in process, over a transport that answers from memory",
    "loopback": "one call over a connection that is kept open, on loopback",
    "breaking": "leave to call, and the report of its success, under threads",
    "reading": "classification, hints, and the model of a request",
    "decoding": "splitting and decoding event streams",
    "flowing": "events of a stream, the first token, a recovery",
    "outages": "requests on the wire for each call of a user during an outage",
    "holding": "memory of streams that are under way at once",
    "growing": "cost against size",
    "counting": "machine instructions of the key paths",
    "telling": "what being observed adds: counters, exporters, spans",
    "storing": "what sharing state adds, what it sends, how soon others know",
    "pushing": "ways in which a server can push a change",
}
"""Name of a module of this package, which has ``bench(effort)``, to what it measures."""

_NUMBERS: Final = re.compile(r"\[\s+([-+.,e\d\s]+?)\s+\]")

PACKAGES: Final = (
    "requests",
    "urllib3",
    "httpx",
    "httpx2",
    "openai",
    "msgspec",
    "httpx-retries",
    "tenacity",
    "stamina",
    "pydantic-ai-slim",
    "interlock-cb",
    "pybreaker",
    "purgatory",
    "aiohttp",
    "aiohttp-retry",
    "httpx-sse",
)


def run(names: Sequence[str], effort: Effort, result: Path | None) -> int:
    """Run the benches called *names*; write to *result*, if there is one. The exit status."""
    benches: dict[str, Any] = {}
    logging.disable(logging.CRITICAL)  # outages are loud
    for name in names:
        print(f"\n{name}: {BENCHES[name]}", flush=True)
        began = time.perf_counter()
        found = bench(name)(effort)
        took = time.perf_counter() - began
        benches[name] = packed(found, took)
        show(found)
        print(f"({took:.1f} s)", flush=True)
    if result is not None:
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(written(document(benches, effort)))
    return 0


def bench(name: str) -> Callable[[Effort], Found]:
    """The bench that is called *name*."""
    found: Callable[[Effort], Found] = importlib.import_module(f"benchmarks.{name}").bench
    return found


def document(benches: dict[str, Any], effort: Effort) -> dict[str, Any]:
    """What is written down: machine, versions, how much was done, and what was found."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
        "versions": versions(),
        "rounds": effort.rounds,
        "benches": benches,
    }


def written(document: dict[str, Any]) -> str:
    """*document* as JSON, a number of a spread no line of its own."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return _NUMBERS.sub(lambda found: "[" + ", ".join(found[1].split()).replace(",,", ",") + "]", text) + "\n"


def machine() -> dict[str, Any]:
    """What ran it, and how busy it was with other things too; no name of a host."""
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
    }
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        found["processor"] = models[0] if models else ""
    return found


def versions() -> dict[str, str]:
    """Of what is compared; who is not installed is not in it."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def packed(found: Found, took: float) -> dict[str, Any]:
    """What a bench found, for JSON."""
    return {
        "seconds": round(took, 1),
        "rows": [_row(row) for row in found.rows],
        "skipped": found.skipped,
        "notes": found.notes,
    }


def _row(row: Row) -> dict[str, Any]:
    packed: dict[str, Any] = {"subject": row.subject, "case": row.case}
    if row.size is not None:
        packed["size"] = row.size
    packed |= {"unit": row.unit, "value": _spread(row.value)}
    if row.ratio is not None:
        packed["ratio"] = _spread(row.ratio)
    return packed


def _spread(spread: Spread) -> list[float]:
    return [float(f"{value:.5g}") for value in spread]


def show(found: Found) -> None:
    """Print a line per row."""
    for row in found.rows:
        subject = row.subject if row.size is None else f"{row.subject} {row.size:,}"
        value = f"{row.value.middle:12,.3f} {row.unit}"
        ratio = (
            ""
            if row.ratio is None
            else f"{row.ratio.middle:9.3f} ({row.ratio.low:.3f} to {row.ratio.high:.3f})"
        )
        print(f"  {subject:34} {row.case:34} {value:18} {ratio}")
    for name, reason in found.skipped.items():
        print(f"  skipped {name}: {reason}")
    for note in found.notes:
        print(f"  {note}")
