"""The plots, as SVG written by hand: lines over time, and bars. They read on white and on black."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from .scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 40, 40
LINES = {"naive3": "#d1495b", "full_jitter": "#e8a33d", "ours": "#2a7f9e"}
"""The policies that are drawn over time, and their colours (apart also for those who see no red)."""

OTHERS = "#8a8f98"
GREY = "#808080"


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
            load = rows[0]["series"]["arrivals"]
            (directory / f"goodput-{name}.svg").write_text(_goodput(name, lines, load))
        bars = [(row["policy"], row["figures"]["sends"][0]) for row in rows]
        (directory / f"sends-{name}.svg").write_text(_bars(name, bars))


def _goodput(name: str, lines: dict[str, Sequence[float]], load: Sequence[float]) -> str:
    scenario = SCENARIOS[name]
    seconds = len(load)
    most = max(*map(max, lines.values()), *load) * 1.05

    def x(second: float) -> float:
        return LEFT + second / seconds * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)

    def path(values: Sequence[float], style: str) -> str:
        points = " ".join(f"{x(second + 0.5):.1f},{y(value):.1f}" for second, value in enumerate(values))
        return f'<polyline points="{points}" fill="none" {style}/>'

    parts = [
        _box(x(scenario.start), TOP, x(scenario.end) - x(scenario.start), HEIGHT - TOP - BOTTOM, GREY, 0.15),
        *(_tick_y(value, y(value)) for value in _ticks(most)),
        *(_text(x(second), HEIGHT - BOTTOM + 16, str(second)) for second in range(0, seconds, 30)),
        _text(WIDTH / 2, HEIGHT - 6, "seconds; the fault is shaded"),
        path(_smooth(load), f'stroke="{GREY}" stroke-width="1" stroke-dasharray="3 3"'),
        *(path(_smooth(values), f'stroke="{LINES[key]}" stroke-width="2"') for key, values in lines.items()),
        *_legend({"load": GREY, **{key: LINES[key] for key in lines}}),
    ]
    return _svg(f"{name}: calls that succeed, per second", parts, HEIGHT)


def _bars(name: str, bars: Sequence[tuple[str, float]]) -> str:
    left, step = 160, 22
    height = TOP + step * len(bars) + 12
    most = max(value for _, value in bars)
    parts = []
    for row, (policy, value) in enumerate(bars):
        top = TOP + row * step
        width = value / most * (WIDTH - left - 60)
        colour = LINES.get(policy, OTHERS)
        parts += [
            _text(left - 8, top + 13, policy, anchor="end"),
            _box(left, top, width, step - 6, colour),
            _text(left + width + 6, top + 13, f"{value:.2f}", anchor="start"),
        ]
    return _svg(f"{name}: requests sent per call made during the fault", parts, height)


def _smooth(values: Sequence[float], width: int = 3) -> list[float]:
    """A running mean: a second's count of a Poisson process is noise to look at."""
    around = range(-(width // 2), width // 2 + 1)
    last = len(values) - 1
    return [sum(values[min(max(at + off, 0), last)] for off in around) / width for at in range(len(values))]


def _ticks(most: float) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10**9) if most / step <= 6)
    return list(range(0, int(most) + 1, step))


def _box(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}" opacity="{opacity:g}"/>'


def _tick_y(value: int, y: float) -> str:
    line = _box(LEFT, y, WIDTH - LEFT - RIGHT, 1, GREY, 0.3)
    return line + _text(LEFT - 6, y + 4, str(value), anchor="end")


def _legend(colours: dict[str, str]) -> list[str]:
    parts = []
    left = float(WIDTH - RIGHT)
    for name, colour in reversed(colours.items()):
        left -= 7.0 * len(name) + 26
        parts.append(_box(left, 26, 12, 4, colour))
        parts.append(_text(left + 16, 32, name, anchor="start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, parts: Sequence[str], height: int) -> str:
    style = f'font-family="sans-serif" font-size="12" fill="{GREY}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {style}>'
    heading = f'<text x="{LEFT}" y="16" font-size="14">{escape(title)}</text>'
    return "\n".join((opening, f"<title>{escape(title)}</title>", heading, *parts, "</svg>\n"))
