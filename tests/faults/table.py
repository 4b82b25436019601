"""The table of faults: what each does, and what it comes to under each client.

An outcome is a line of text, so that the table, the run and the page say it in the same words:

* ``recovered: connection_lost, ok``: the caller got the right answer; the codes of the attempts it took.
* ``failed ReadTimeout: read_timeout ×2; all 2 attempts used``: the caller got this error of its client's own kind (or
  an answer with this status); the codes of the attempts, and the reason in the report.
* ``passed 200: ok``: the caller got exactly what the bare client gives, and nothing was tried.
* ``n/a: why``: the cell cannot exist.

``; stream: …`` tells what was done about each break of an event stream, ``; N on the wire`` of a number of
requests that differs from the number of attempts.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import HARNESSES, Harness

PATH = Path(__file__).parents[1] / "data" / "faults.toml"

ACTS = {"once": "once, then well", "always": "always"}
"""What may be played, and what it is called on the page; a fault may name its own."""

VERDICTS = ("recovered", "failed", "passed", "n/a")


@dataclass(frozen=True)
class Group:
    """Faults of one kind.

    Attributes:
        name: of the module that injects them.
        title: on the page.
        about: a sentence for the page.
        without: clients for which none of them can exist, and why.
    """

    name: str
    title: str
    about: str
    without: dict[str, str]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: unique.
        group: where it belongs.
        wire: what is done, in one sentence.
        acts: by act, the outcome by client: of all, of one library's, or of one.
        methods: with which it is played; each must come to the same.
    """

    name: str
    group: Group
    wire: str
    acts: dict[str, dict[str, str]]
    methods: tuple[str, ...]

    def expected(self, act: str, harness: Harness) -> str:
        """What is written down for a client."""
        word = self.word(act, harness)
        return self.acts[act][word] if word else f"n/a: {self.group.without[harness.name]}"

    def word(self, act: str, harness: Harness) -> str:
        """The word for a client under which it is written down: the most special one; none for all of a group."""
        if harness.name in self.group.without:
            return ""
        for word in selectors(harness):
            if word in self.acts[act]:
                return word
        raise KeyError(f"{self.name}, {act}: nothing is said of {harness}")


@dataclass(frozen=True)
class Cell:
    """One fault in one act under one client."""

    fault: Fault
    act: str
    harness: Harness

    def __str__(self) -> str:
        return f"{self.fault.name}-{self.act}-{self.harness}"

    @property
    def expected(self) -> str:
        """What is written down."""
        return self.fault.expected(self.act, self.harness)

    @property
    def exists(self) -> bool:
        """Whether there is anything to run."""
        return not self.expected.startswith("n/a")


def selectors(harness: Harness) -> list[str]:
    """The words that mean a client, the most special first."""
    if harness.name == "requests":
        return ["requests", "sync", "all"]
    return [harness.name, str(harness.backend or "sync"), harness.library.__name__, "family", "all"]


def load() -> list[Fault]:
    """All faults, in the order of the page."""
    document = tomllib.loads(PATH.read_text(encoding="utf-8"))
    groups = {
        name: Group(name, entry["title"], entry["about"], entry.get("without", {}))
        for name, entry in document["groups"].items()
    }
    return [_fault(entry, groups) for entry in document["fault"]]


def _fault(entry: dict[str, Any], groups: dict[str, Group]) -> Fault:
    known = {"name", "group", "wire", "methods"}
    acts = {
        act: {"all": outcome} if isinstance(outcome, str) else dict(outcome)
        for act, outcome in entry.items()
        if act not in known
    }
    methods = tuple(entry.get("methods", ["POST"]))
    return Fault(entry["name"], groups[entry["group"]], entry["wire"], acts, methods)


def cells(faults: list[Fault], group: str = "") -> list[Cell]:
    """Every fault in every act under every client."""
    chosen = [fault for fault in faults if group in {"", fault.group.name}]
    return [Cell(fault, act, harness) for fault in chosen for act in fault.acts for harness in HARNESSES]
