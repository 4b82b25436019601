"""Plots as SVG written by hand: lines over time, and bars. They read on white and on black."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 40, 40

OTHERS = "#8a8f98"
GREY = "#808080"


def lines(
    title: str,
    values: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
    load: Sequence[float],
    shaded: Iterable[tuple[float, float]],
    *,
    legend: str = "seconds; the fault is shaded",
    step: int = 30,
    unit: int = 1,
    per_mark: int = 1,
) -> str:
    """Lines over time.

    Args:
        title: stands on top.
        values: a line each, by name.
        colours: of the lines, by name.
        load: the same for the load, which is dashed.
        shaded: from when to when the fault was on.
        legend: stands below.
        step: values between two marks below.
        unit: seconds between two values.
        per_mark: seconds that a mark counts as one.
    """
    count = len(load)
    most = max(*map(max, values.values()), *load) * 1.05

    def x(place: float) -> float:
        return LEFT + place / count * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)

    def path(line: Sequence[float], style: str) -> str:
        points = " ".join(f"{x(place + 0.5):.1f},{y(value):.1f}" for place, value in enumerate(line))
        return f'<polyline points="{points}" fill="none" {style}/>'

    parts = [
        *(
            _box(x(begin / unit), TOP, x(end / unit) - x(begin / unit), HEIGHT - TOP - BOTTOM, GREY, 0.15)
            for begin, end in shaded
        ),
        *(_tick_y(value, y(value)) for value in _ticks(most)),
        *(
            _text(x(place), HEIGHT - BOTTOM + 16, str(place * unit // per_mark))
            for place in range(0, count, step)
        ),
        _text(WIDTH / 2, HEIGHT - 6, legend),
        path(_smooth(load), f'stroke="{GREY}" stroke-width="1" stroke-dasharray="3 3"'),
        *(path(_smooth(line), f'stroke="{colours[name]}" stroke-width="2"') for name, line in values.items()),
        *_legend({"load": GREY, **{name: colours[name] for name in values}}),
    ]
    return _svg(title, parts, HEIGHT)


def bars(title: str, values: Sequence[tuple[str, float]], colours: Mapping[str, str]) -> str:
    """A bar for each of *values*, in the colour of its name."""
    left, step = 160, 22
    height = TOP + step * len(values) + 12
    most = max(value for _, value in values) or 1.0
    parts = []
    for row, (name, value) in enumerate(values):
        top = TOP + row * step
        width = value / most * (WIDTH - left - 60)
        parts += [
            _text(left - 8, top + 13, name, anchor="end"),
            _box(left, top, width, step - 6, colours.get(name, OTHERS)),
            _text(left + width + 6, top + 13, f"{value:.2f}", anchor="start"),
        ]
    return _svg(title, parts, height)


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


def _legend(colours: Mapping[str, str]) -> list[str]:
    parts = []
    left = float(WIDTH - RIGHT)
    for name, colour in reversed(list(colours.items())):
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
