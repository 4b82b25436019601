"""How `gip-resilience top` draws what it has read, with `rich`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from gip_resilience.cli.output import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from gip_resilience.cli.scrape import Place, View

_STATES = {"closed": ("closed", "green"), "half_open": ("half-open", "yellow"), "open": ("OPEN", "bold red")}
_FRAME = 2
"""Lines above the places: an empty one, and what the columns are."""


def draw(view: View, source: str, *, width: int, height: int, note: str = "") -> RenderableType:
    """One frame.

    Args:
        view: what to show.
        source: where it comes from.
        width: columns there are.
        height: lines there are.
        note: what is wrong with the source, if anything is.
    """
    lines = [_head(view, source, note), _calls(view), _requests(view)]
    lines += [line for line in (_waits(view), _streams(view)) if line is not None]
    return Group(*lines, Text(), _places(view, width, max(1, height - len(lines) - _FRAME)))


def _head(view: View, source: str, note: str) -> Text:
    span = "since the process began" if view.span is None else f"in the last {seconds(view.span)}"
    head = Text("gip_resilience  ", style="bold", overflow="ellipsis", no_wrap=True)
    head.append(f"{source}  {span}", style="dim")
    if note:
        head.append(f"  {note}", style="bold red")
    return head


def _line(name: str, *parts: tuple[str, str] | str) -> Text:
    line = Text(f"{name:<10}", style="bold", overflow="ellipsis", no_wrap=True)
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        line.append(text + "  ", style=style or "not bold")
    return line


def _rate(count: float, view: View) -> str:
    if view.span is None:
        return f"{count:,.0f}"
    return f"{count / view.span:,.1f}/s"


def _calls(view: View) -> Text:
    share = view.success
    style = "green" if share >= 0.99 else "yellow" if share >= 0.9 else "bold red"
    outcomes = [f"{name} {_rate(count, view)}" for name, count in view.calls.items() if name != "success"]
    return _line(
        "calls",
        _rate(view.total, view),
        (f"{share:.1%} succeeded", style),
        f"median {seconds(view.median)}, 95% within {seconds(view.slow)}",
        *outcomes,
    )


def _requests(view: View) -> Text:
    per_call = view.sent / view.total if view.total else 0.0
    codes = [f"{code} {_rate(count, view)}" for code, count in view.codes.items() if code != "ok"]
    gave_up = [(f"gave up {_rate(view.gave_up, view)}", "bold red")] if view.gave_up else []
    return _line(
        "requests",
        f"{_rate(view.sent, view)} ({per_call:.2f} per call)",
        f"retries {_rate(view.retries, view)}",
        *gave_up,
        *(codes or ["no failures"]),
    )


def _waits(view: View) -> Text | None:
    waits = [
        f"{reason} {count:,.0f} x {seconds(total / count)}" for reason, (count, total) in view.waits.items()
    ]
    refused = [(f"refused: {reason} {_rate(n, view)}", "yellow") for reason, n in view.refusals.items()]
    shadowed = [f"shadow {guard} {_rate(n, view)}" for guard, n in view.shadowed.items()]
    return _line("waits", *waits, *refused, *shadowed) if waits or refused or shadowed else None


def _streams(view: View) -> Text | None:
    order = (
        "opened",
        "breaks",
        "restart",
        "resume",
        "replay",
        "marker",
        "end",
        "fail",
        "diverged",
        "unguarded",
    )
    parts = [_counted(name, view.streams, view) for name in order if view.streams.get(name)]
    codes = [f"{code} {_rate(count, view)}" for code, count in view.breaks.items()]
    return _line("streams", *parts, *(["broken by:", *codes] if codes else [])) if parts or codes else None


def _counted(name: str, counts: Mapping[str, float], view: View) -> tuple[str, str]:
    return f"{name} {_rate(counts[name], view)}", "bold red" if name in {"fail", "diverged"} else ""


def _places(view: View, width: int, room: int) -> RenderableType:
    table = Table(box=None, width=width, pad_edge=False, header_style="dim", padding=(0, 1))
    wide = width >= 100
    hosts = {place.host for place in view.places}
    alone = len(hosts) == 1
    heading = Text("".join(hosts) if alone else "host / model")
    table.add_column(heading, overflow="ellipsis", no_wrap=True, ratio=1)
    table.add_column("circuit", no_wrap=True)
    if wide:
        table.add_column("not closed", justify="right", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("failed", justify="right", no_wrap=True)
    table.add_column("95%", justify="right", no_wrap=True)
    table.add_column("gate", justify="right", no_wrap=True)
    table.add_column("budget", justify="right", no_wrap=True)
    if wide:
        table.add_column("codes", overflow="ellipsis", no_wrap=True, ratio=1)
    shown = view.places if len(view.places) <= room else view.places[: room - 1]
    for place in shown:
        name = place.model or "(the host itself)" if alone else f"{place.host} {place.model or '(itself)'}"
        table.add_row(Text(name), *_row(place, view, wide=wide))
    rest = view.places[len(shown) :]
    if rest:
        calls, failed = sum(place.calls for place in rest), sum(place.failed for place in rest)
        cells = [_rate(calls, view), _rate(failed, view), "", "", ""]
        blank = [""] if wide else []
        table.add_row(f"and {len(rest)} more", "", *blank, *cells, *blank, style="dim")
    return table


def _row(place: Place, view: View, *, wide: bool) -> list[RenderableType]:
    name, style = _STATES.get(place.state, (place.state, ""))
    if place.forced:
        name, style = place.forced.replace("_", " "), "bold magenta"
    gate = ""
    if place.gate:
        gate = seconds(place.gate) + (f" ({place.waiting:.0f} wait)" if place.waiting else "")
    cells: list[RenderableType] = [
        Text(name, style=style),
        *([_share(place.away)] if wide else []),
        _rate(place.calls, view),
        Text(_rate(place.failed, view), style="red" if place.failed else "dim"),
        seconds(place.slow) if place.calls else "",
        Text(gate, style="yellow"),
        "" if place.tokens is None else f"{place.tokens:.1f}",
    ]
    if wide:
        cells.append(Text(", ".join(f"{code} {_rate(count, view)}" for code, count in place.codes[:4])))
    return cells


def _share(value: float | None) -> str:
    """Of a time; nothing where there was none."""
    if value is None or value < 0.0005:  # or what is left over from a subtraction
        return ""
    return f"{value:.0%}" if value >= 0.005 else "< 1%"
