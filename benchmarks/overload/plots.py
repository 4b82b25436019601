"""Which plots there are, and who is drawn in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gip_resilience.simulation import svg

from .scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LINES = {"naive3": "#d1495b", "full_jitter": "#e8a33d", "ours": "#2a7f9e"}
"""The policies that are drawn over time, and their colours (apart also for those who see no red)."""


def draw(summaries: Iterable[dict[str, Any]], directory: Path) -> None:
    """A plot of goodput per scenario, where its seconds are known, and one of sends per call.

    Of several fleet sizes, the one that comes first is drawn.
    """
    by_scenario: dict[str, list[dict[str, Any]]] = {}
    for row in summaries:
        rows = by_scenario.setdefault(row["scenario"], [])
        if not rows or rows[0]["clients"] == row["clients"]:
            rows.append(row)
    for name, rows in by_scenario.items():
        lines = {
            row["policy"]: row["series"]["goodput"]
            for row in rows
            if row["policy"] in LINES and "series" in row
        }
        if lines:
            trouble, load = SCENARIOS[name], rows[0]["series"]["arrivals"]
            title = f"{name}: calls that succeed, per second"
            shaded = [(trouble.start, trouble.end)]
            (directory / f"goodput-{name}.svg").write_text(svg.lines(title, lines, LINES, load, shaded))
        bars = [(row["policy"], row["figures"]["sends"][0]) for row in rows]
        title = f"{name}: requests sent per call made during the fault"
        (directory / f"sends-{name}.svg").write_text(svg.bars(title, bars, LINES))
