"""Pages of the documentation as tests read them: their blocks, their tables, and what their programs print."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from bisect import bisect
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ELSEWHERE = "https://gateway.example"

FENCE = re.compile(
    r"^(?P<fence>```|~~~)(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL
)
MADE = re.compile(r"<!-- table: .*?<!-- /table -->", re.DOTALL)
FILE = re.compile(r"<!-- file: (\S+) -->\n\Z")
"""A comment before a block: the programs of the page find it under this name."""


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        line: the number of its first line, from 0.
        language: what it is written in.
        text: what is in it.
        file: the name under which programs find it, or an empty string.
    """

    line: int
    language: str
    text: str
    file: str


class Page:
    """A page.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")
        made = [range(*table.span()) for table in MADE.finditer(self.text)]
        self.blocks = [
            Block(
                self.text[: fence.start("text")].count("\n"),
                fence["language"],
                fence["text"],
                found[1] if (found := FILE.search(self.text[: fence.start()])) else "",
            )
            for fence in FENCE.finditer(self.text)
            if not any(fence.start() in table for table in made)
        ]

    def __repr__(self) -> str:
        return self.name

    @property
    def prose(self) -> str:
        """The page without its blocks."""
        return FENCE.sub("", self.text)

    def written_in(self, language: str) -> list[Block]:
        """The blocks in one language."""
        return [block for block in self.blocks if block.language == language]

    def commands(self) -> list[str]:
        """Every command line: those at a prompt, and those of ours in the text."""
        shown = [
            line.removeprefix("$ ")
            for block in self.written_in("console")
            for line in block.text.splitlines()
            if line.startswith("$ ")
        ]
        return shown + re.findall(r"`(gip-resilience [^`]+)`", self.prose)

    def table(self, heading: str) -> list[list[str]]:
        """Cells of the first table whose first column has this heading."""
        _, rows = self.text.split(f"\n| {heading} |", 1)
        lines = rows.split("\n\n", 1)[0].splitlines()[2:]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]

    def run(self, url: str, names: dict[str, Any]) -> list[tuple[Block, str]]:
        """Run every Python block in order, in one namespace and in the current directory.

        Args:
            url: what stands for the gateway of the page.
            names: the namespace.

        Returns:
            What each printed, with the address of whatever gateway it was as the page has it.
        """
        for block in self.blocks:
            if block.file:
                Path(block.file).write_text(block.text, encoding="utf-8")
        printed = []
        for block in self.written_in("python"):
            # Blank lines in front, so that a traceback names the page's own line.
            source = "\n" * block.line + block.text.replace(ELSEWHERE, url)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(source, self.name, "exec"), names)
            printed.append((block, re.sub(r"127\.0\.0\.1:\d+", "gateway.example", out.getvalue())))
        return printed

    def promised(self, printed: list[tuple[Block, str]]) -> list[tuple[str, str]]:
        """(shown, printed) for each block of text: it shows what the last program before it printed."""
        starts = [block.line for block, _ in printed]
        return [(block.text, printed[bisect(starts, block.line) - 1][1]) for block in self.written_in("text")]


def close(names: dict[str, Any]) -> None:
    """Close and stop whatever programs left open; nobody calls an awaiting client outside an event loop."""
    for value in reversed(list(names.values())):
        if isinstance(value, type) or getattr(value, "is_closed", False):
            continue
        for ending in ("close", "stop"):
            if inspect.ismethod(end := getattr(value, ending, None)):
                end()
                break


PAGES = [Page(path) for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))]
