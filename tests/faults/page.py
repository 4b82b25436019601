"""``docs/faults.md``: the matrix as tables, and what it adds up to."""

from __future__ import annotations

import platform
import re
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from faults import programs
from faults.running import run, warm_up
from faults.table import VERDICTS, Cell, Fault, Group, cells, load
from harness import HARNESSES

__all__ = ["PATH", "VERDICTS", "check", "last_run", "render", "verdict", "write"]

PATH = Path(__file__).parents[2] / "docs" / "faults.md"

FAMILIES = {
    "requests": ["requests"],
    "httpx": ["httpx", "httpx-asyncio", "httpx-trio"],
    "httpx2": ["httpx2", "httpx2-asyncio", "httpx2-trio"],
}
"""The columns of a table, and whose cells are in each."""

HEADING = """\
# Faults, and what becomes of them

{faults} kinds of fault, injected for real on loopback, under each of seven clients with the library mounted:
`requests`, and `httpx` and `httpx2`, each blocking, under asyncio and under trio. Policy, breaker, gate and budget
are the defaults, but for the deadlines and long or short pauses that a fault speaks of. A peer behaves badly
**once** and is well after that, or **always**; where both come to the same there is one row.

* **recovered**: the caller got the right answer. The words after it are the codes of the attempts it took, from the
  call's report.
* **failed**: the caller got an error of its client's own kind, or an answer with that status; then the codes, and
  the reason in the report. There are as many attempts as the policy allows.
* **passed**: the caller got exactly what the bare client gives, which is played, too, and compared.
* **n/a**: the cell cannot exist.

Each cell ends within 10 s, and leaves no connection in use, no open file, no thread, no task, no permit and nobody
in line. A fault is met by a POST, as to a model; where it says (POST, GET) by both, and both come to the same.

"""

ABOUT = """\
This page is made of `tests/data/faults.toml` by `python tests/faults`, which plays every cell first and writes
nothing if one comes to something else. `tests/test_faults.py` checks every cell, and that this page is that of the
table.
"""

_LAST = re.compile(r"^Last run: .*$", re.MULTILINE)


def verdict(outcome: str) -> str:
    """The first word of an outcome."""
    return re.split(r"[ :]", outcome, maxsplit=1)[0]


def last_run() -> str:
    """What the page says of the run it was written after."""
    found = _LAST.search(PATH.read_text(encoding="utf-8")) if PATH.exists() else None
    return found[0] if found else "Last run: never."


def render(faults: list[Fault], last: str) -> str:
    """The page."""
    parts = [HEADING.format(faults=len(faults)), _counts(faults), f"\n{last}\n\n{ABOUT}"]
    groups = {fault.group.name: fault.group for fault in faults}
    parts += [_table(group, [one for one in faults if one.group is group]) for group in groups.values()]
    return "".join(parts)


def _counts(faults: list[Fault]) -> str:
    lines = [
        "| group | faults | cells | recovered | failed, typed | passed | n/a |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    groups = {fault.group.name: fault.group for fault in faults}
    for name, title in [*((name, group.title) for name, group in groups.items()), ("", "**all**")]:
        chosen = [fault for fault in faults if name in {"", fault.group.name}]
        every = cells(chosen)
        found = Counter(verdict(cell.expected) for cell in every)
        numbers = [len(chosen), len(every), *(found[word] for word in VERDICTS)]
        lines.append(f"| {title} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines) + "\n"


def _table(group: Group, faults: list[Fault]) -> str:
    families = {family: members for family, members in FAMILIES.items() if family not in group.without}
    lines = [f"\n## {group.title}\n", group.about + "\n"]
    lines += [f"Not applicable to {family}: {why}.\n" for family, why in group.without.items()]
    lines += [
        "| fault | peer | " + " | ".join(families) + " |",
        "|---|---|" + "---|" * len(families),
    ]
    for fault in faults:
        for number, act in enumerate(fault.acts):
            said = "" if number else f"**{fault.name}**: {fault.wire}"
            if not number and len(fault.methods) > 1:
                said += f" ({', '.join(fault.methods)})"
            columns = [_column(fault, act, members) for members in families.values()]
            lines.append(f"| {said} | {act} | " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n"


def _column(fault: Fault, act: str, members: list[str]) -> str:
    outcomes = {one.name: fault.expected(act, one) for one in HARNESSES if one.name in members}
    if len(set(outcomes.values())) == 1:
        return outcomes[members[0]]
    grouped: dict[str, list[str]] = {}
    for name, outcome in outcomes.items():
        grouped.setdefault(outcome, []).append(name.partition("-")[2] or "blocking")
    return "<br>".join(f"{', '.join(names)}: {outcome}" for outcome, names in grouped.items())


def check() -> int:
    """Whether the page is that of the table."""
    same = PATH.exists() and PATH.read_text(encoding="utf-8") == render(load(), last_run())
    print("docs/faults.md is that of the table" if same else "docs/faults.md is stale: python tests/faults")
    return 0 if same else 1


def write() -> int:
    """Play everything; write the page if every cell is as expected."""
    faults = load()
    began = time.monotonic()
    chosen = [cell for cell in cells(faults) if cell.exists]
    differ = 0
    # Threads and files are counted, so each process plays one cell at a time.
    with ProcessPoolExecutor(2, get_context("spawn"), _prepare) as pool:
        played = [cell for cell in chosen if cell.fault.name not in programs.PROGRAMS]
        names = [(cell.fault.name, cell.act, cell.harness.name) for cell in played]
        for cell, seen in zip(played, pool.map(_played, names), strict=True):
            differ += _compare(cell, seen)
    rest = [cell for cell in chosen if cell.fault.name in programs.PROGRAMS]
    acts = sorted({(cell.fault.name, cell.act) for cell in rest})
    told = dict(zip(acts, programs.run(acts), strict=True))
    for cell in rest:
        differ += _compare(cell, {told[cell.fault.name, cell.act][cell.harness.name]})
    if differ:
        print(f"{differ} of {len(chosen)} cells differ; nothing is written")
        return 1
    libraries = ("requests", "urllib3", "httpx", "httpx2", "h2", "trio")
    PATH.write_text(
        render(
            faults,
            f"Last run: {datetime.now(UTC):%Y-%m-%d}, {len(chosen)} cells in {time.monotonic() - began:.0f} s, "
            f"all as below; Python {platform.python_version()} on {sys.platform}, "
            + ", ".join(f"{name} {version(name)}" for name in libraries)
            + ".",
        ),
        encoding="utf-8",
    )
    print(f"{len(chosen)} cells are as expected; docs/faults.md is written")
    return 0


@cache
def _faults() -> dict[str, Fault]:
    return {fault.name: fault for fault in load()}


def _prepare() -> None:
    import logging
    import warnings

    logging.disable()
    warnings.simplefilter("ignore")
    for harness in HARNESSES:
        warm_up(harness)


def _played(name: tuple[str, str, str]) -> set[str]:
    fault, act, client = name
    try:
        return run(Cell(_faults()[fault], act, next(one for one in HARNESSES if one.name == client)))
    except Exception as error:
        return {f"{type(error).__name__}: {error}"}


def _compare(cell: Cell, seen: set[str]) -> int:
    if seen == {cell.expected}:
        return 0
    print(f"{cell}:\n  expected {cell.expected}\n  seen     {' and '.join(sorted(seen))}")
    return 1
