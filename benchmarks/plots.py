"""Plots as SVG written by hand: lines over a size, both axes by powers of ten, and bars; for white and for black."""

from __future__ import annotations

import math
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 36, 56, 32
COLOURS: Final = ("#8a8f98", "#d1495b", "#e8a33d", "#6a994e", "#8e6c8a")
"""Of the lines that are not ours, in their order (apart also for those who see no red)."""

OURS: Final = "#2a7f9e"
OTHERS: Final = "#8a8f98"
GREY: Final = "#808080"


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], ours: str) -> str:
    """Lines through points (size, value) that are greater than 0, by name; the one called *ours* stands out."""
    points = [point for one in series.values() for point in one]
    x_low, x_high = _decades(x for x, _ in points)
    y_low, y_high = _decades(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for power in range(y_low, y_high + 1):
        _, y = place(10.0**x_low, 10.0**power)
        parts += [
            _box(LEFT, y, WIDTH - LEFT - RIGHT, 1, GREY, 0.3),
            _text(LEFT - 6, y + 4, _number(power), "end"),
        ]
    for power in range(x_low, x_high + 1):
        x, _ = place(10.0**power, 10.0**y_low)
        parts.append(_text(x, HEIGHT - BOTTOM + 16, _number(power)))
    across = float(LEFT)
    others = cycle(COLOURS)
    for name, found in series.items():
        colour = OURS if name == ours else next(others)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(found)))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_box(across, 34, 12, 4, colour), _text(across + 16, 40, name, "start")]
        across += 7.0 * len(name) + 32
    return _svg(title, parts, HEIGHT)


def bars(title: str, found: Sequence[tuple[str, float]], ours: str) -> str:
    """A bar for each; those whose names begin with *ours* stand out."""
    left, step = 190, 22
    most = max(value for _, value in found) or 1.0
    parts = []
    for row, (name, value) in enumerate(found):
        top = 28 + row * step
        width = value / most * (WIDTH - left - 70)
        parts += [
            _text(left - 8, top + 13, name, "end"),
            _box(left, top, width, step - 6, OURS if name.startswith(ours) else OTHERS),
            _text(left + width + 6, top + 13, f"{value:.3g}", "start"),
        ]
    return _svg(title, parts, 28 + step * len(found) + 12)


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten around *values*."""
    logs = [math.log10(value) for value in values]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _number(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"


def _box(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{colour}" opacity="{opacity:g}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, parts: Sequence[str], height: int) -> str:
    style = f'font-family="sans-serif" font-size="12" fill="{GREY}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {style}>'
    heading = f'<text x="16" y="18" font-size="14">{escape(title)}</text>'
    return "\n".join((opening, f"<title>{escape(title)}</title>", heading, *parts, "</svg>\n"))
