"""What the commands share: their one kind of failure, and plain text in columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 80
"""Columns of a terminal nobody has made wider."""


class CommandError(Exception):
    """The command cannot be done; its text is all the user is told."""


def columns(rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset(), gap: str = "  ") -> str:
    """Rows of cells as lines with aligned columns.

    Args:
        rows: cells of one line each; all rows have the same number of them.
        right: numbers of the columns that are aligned to the right.
        gap: what stands between two columns.
    """
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        gap.join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def paragraph(text: str, *, first: str = "", rest: str = "") -> str:
    """Text wrapped at the width of the screen, with these indents."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def seconds(value: float) -> str:
    """Seconds for people, as exactly as they care: ``28 ms``, ``4.3 s``, ``120 s``."""
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"
