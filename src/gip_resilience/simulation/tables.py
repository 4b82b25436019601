"""What is shown of a comparison: a table, JSON, and pages with plots. All of it is a function of the results."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from gip_resilience.simulation import svg
from gip_resilience.simulation.measures import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gip_resilience.simulation.runs import Result
    from gip_resilience.simulation.troubles import Trouble

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "sends": ("sends/call", "{:.2f}".format),
    "success": ("success", "{:.1%}".format),
    "goodput": ("goodput", "{:.1%}".format),
    "after": ("minute after", "{:.1%}".format),
    "recovery": ("recovery s", "{:.0f}".format),
    "p50": ("p50 s", "{:.2f}".format),
    "p99": ("p99 s", "{:.2f}".format),
    "peak": ("herd peak", "{:.2f}".format),
    "limited": ("429s", "{:.0f}".format),
    "others": ("other models", "{:.1%}".format),
    "silent": ("cut, untold", "{:.0f}".format),
}
"""Figures in the order of the table, what heads them, and how they are spelled."""

ALWAYS = frozenset({"sends", "success", "goodput", "after", "recovery", "p50", "p99", "peak"})
"""The others are left out where no policy has anything to say."""

COLOURS = {"naive": "#d1495b", "none": "#e8a33d", "defaults": "#2a7f9e"}
YOURS = "#5b8c3a"

STEP = 10
"""Seconds in a point of a plot: an hour of single seconds is a carpet."""


def rows(results: Sequence[Result]) -> list[list[str]]:
    """A heading, and a row of cells for each of *results*."""
    names = [name for name in COLUMNS if name in ALWAYS or any(getattr(one.figures, name) for one in results)]
    table = [["policy", *(COLUMNS[name][0] for name in names)]]
    table += [[one.policy, *(_cell(name, getattr(one.figures, name)) for name in names)] for one in results]
    return table


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return "never" if value == NEVER else COLUMNS[name][1](value)


def markdown(results: Sequence[Result]) -> str:
    """The table for a page."""
    head, *body = rows(results)
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def document(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Figures and tallies as plain values: ``null`` is nothing to measure, ``"never"`` is never."""
    return [
        {
            "policy": one.policy,
            "figures": {name: _plain(value) for name, value in one.figures._asdict().items()},
            "tally": one.tally,
        }
        for one in results
    ]


def _plain(value: float | None) -> float | str | None:
    if value is None or isinstance(value, int):
        return value
    return "never" if value == NEVER else round(value, 6)


def plots(trouble: Trouble, results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Names of files, and their SVG: goodput and sends over time, and sends per call."""
    colours = {one.policy: COLOURS.get(one.policy, YOURS) for one in results}
    load = _coarse(results[0].arrivals)
    for what, title in (("goodput", "calls that succeed"), ("sends", "requests sent")):
        yield (
            f"{trouble.name}-{what}.svg",
            svg.lines(
                f"{trouble.name}: {title}, per second",
                {one.policy: _coarse(getattr(one, what)) for one in results},
                colours,
                load,
                trouble.faults(),
                legend="minutes; the fault is shaded",
                step=_marks(len(load)),
                unit=STEP,
                per_mark=60,
            ),
        )
    per_call = [(one.policy, one.figures.sends or 0.0) for one in results]
    title = f"{trouble.name}: requests sent per call made during the fault"
    yield f"{trouble.name}-per-call.svg", svg.bars(title, per_call, colours)


def _coarse(values: Sequence[int]) -> list[float]:
    return [
        sum(values[at : at + STEP]) / len(values[at : at + STEP]) for at in range(0, len(values), STEP)
    ] or [0.0]


def _marks(count: int) -> int:
    minutes = max(1, count * STEP // 60)
    return max(1, minutes // 12) * 60 // STEP


def page(shown: Sequence[tuple[str, str, Sequence[Result], Sequence[str]]]) -> str:
    """A page of HTML that needs nothing but itself.

    Args:
        shown: of each scenario its name, its summary, its results and its plots as SVG.
    """
    parts = [_HEAD]
    for name, summary, results, pictures in shown:
        head, *body = rows(results)
        parts.append(f"<h2>{escape(name)}</h2>\n<p>{escape(summary)}</p>\n<table>")
        parts.append(f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>")
        parts += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in body]
        parts += ["</table>", *pictures]
    return "\n".join([*parts, "</html>\n"])


_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>gip-resilience simulate</title>
<style>
body { font-family: sans-serif; max-width: 60em; margin: 2em auto; color-scheme: light dark; }
td, th { padding: 0.2em 0.8em; text-align: right; }
td:first-child, th:first-child { text-align: left; }
</style>
<h1>gip-resilience simulate</h1>"""
