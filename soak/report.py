"""The page of a run: what was done, what was held, and a picture of it. Made from the result alone, whole or not."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from .checking import LEAST, slope
from .ledger import BOUNDS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIB = 1 << 20
WIDTH, PLOT, LEFT, RIGHT, TOP, GAP = 720, 110, 64, 16, 34, 44
GREY = "#808080"
LINES = {
    "resident memory, MiB": ("memory", 1 / MIB, "#2a7f9e"),
    "memory blocks, thousands": ("blocks", 1e-3, "#e8a33d"),
    "open files": ("files", 1, "#d1495b"),
}
"""What is drawn: of which column, in which unit, in which colour."""

STATUS = {
    "passed": "Everything held.",
    "failed": "**Not everything held; see below.**",
    "interrupted": "The run was ended early; what is said here is of the time until then, and everything held.",
    "running": "**The run has not come to its end (yet); this is what is known up to its last quiet point.**",
}

STEADY = {
    "files": "open files, without connections of the pools and of the store",
    "threads": "threads",
    "tasks": "tasks in event loops",
    "stored": "connections to the shared store",
    "pooled": "idle connections in the clients' pools",
    "accepted": "connections that the gateways had open",
    "used": "connections in use",
    "out": "permits that had not come back",
    "waiting": "callers in line at gates",
    "probing": "circuits waiting for a probe",
    "dropped": "dropped streams that nobody had ended",
}


HEAD = """Written by `python -m soak report` from `soak.json`, the result of the last `make soak`. How it is run, and
what it looks at, is told in [the README of the run](../soak/README.md).
"""
CALLS = ("requests seen", "compared to the unit", "cut off", "longest", "latest past its deadline")
PERMITS = (
    "permits",
    "reported",
    "abandoned",
    "out",
    "retries",
    "circuits opened",
    "gates closed",
    "streams broken",
    "mended",
)
GROWTH = "Growth is that of the regression line, from the first of them to the last."
SAME = """Of {} types of our own, {} had the same number of instances at every quiet point. The others:
"""


def write(result: Path, page: Path) -> None:
    """Write the page, and the picture beside it, with the page's own name."""
    found = json.loads(result.read_text(encoding="utf-8"))
    picture = page.with_suffix(".svg")
    page.write_text(text(found, picture.name), encoding="utf-8")
    picture.write_text(drawing(found), encoding="utf-8")


def rows(found: dict[str, Any]) -> list[dict[str, float]]:
    """The samples, by the names of their columns."""
    samples = [dict(zip(found["columns"], row, strict=True)) for row in found["samples"]]
    for sample in samples:
        sample["files"] = sample["descriptors"]
    return samples


def text(found: dict[str, Any], picture: str) -> str:
    """The page."""
    samples = rows(found)
    counted = samples[found["settings"]["warm_up"] :]
    parts = [
        "# Endurance\n",
        HEAD,
        STATUS[found["status"]] + "\n",
        _summary(found, samples),
        _problems(found["problems"]),
    ]
    if samples:
        parts += [f"![What was held at each quiet point]({picture})\n", _held(found, counted), _types(found)]
    parts += [_calls(found), _counts(found), _store(found), _versions(found)]
    return "\n".join(filter(None, parts)).rstrip() + "\n"


def _summary(found: dict[str, Any], samples: Sequence[dict[str, float]]) -> str:
    calls = sum(sum(account["calls"].values()) for account in found["accounts"].values())
    sends = sum(account["sends"] for account in found["accounts"].values())
    seconds = samples[-1]["at"] if samples else 0.0
    rate = calls / found["traffic"] if found["traffic"] else 0.0
    kinds = len(found["replies"])
    return (
        f"{seconds:,.0f} of {found['settings']['seconds']:,.0f} s, {calls:,} calls ({rate:,.0f} a second),"
        f" {sends:,} requests seen by the gateways in {kinds} kinds of replies, {len(samples)} quiet points.\n"
    )


def _problems(problems: dict[str, int]) -> str:
    if not problems:
        return ""
    return "\n".join(
        ["## What did not hold\n", *(f"- {what} ({count} ×)" for what, count in problems.items()), ""]
    )


def _held(found: dict[str, Any], counted: Sequence[dict[str, float]]) -> str:
    if not counted:
        return "There is no sample after the warm-up yet.\n"
    settings = found["settings"]
    lines = [
        "## What was held at quiet points\n",
        f"{len(counted)} samples after a warm-up of {settings['warm_up']} rounds. {GROWTH}\n",
        "| | first | least | most | last | growth | tolerated |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, unit, what, limit in (
        ("memory", 1 / MIB, "resident memory, MiB", settings["memory"]),
        ("blocks", 1, "memory blocks of the interpreter", settings["blocks"]),
    ):
        values = [sample[name] * unit for sample in counted]
        grown = "-"
        if len(counted) >= LEAST:
            points = [(sample["at"], value) for sample, value in zip(counted, values, strict=True)]
            grown = f"{slope(points) * (counted[-1]['at'] - counted[0]['at']):+,.1f}"
        lines.append(f"| {what} | {_range(values, 1 if unit < 1 else 0)} | {grown} | {limit:g} |")
    for name, what in STEADY.items():
        lines.append(f"| {what} | {_range([sample[name] for sample in counted], 0)} | | |")
    memory = [value / MIB for value in found["gateway"]["memory"] if value is not None]
    if memory:
        lines.append(
            f"| the gateway process: resident memory, MiB | {_range(memory, 1)} | | {settings['memory']:g} |"
        )
    return "\n".join([*lines, ""])


def _range(values: Sequence[float], digits: int) -> str:
    return " | ".join(f"{value:,.{digits}f}" for value in (values[0], min(values), max(values), values[-1]))


def _types(found: dict[str, Any]) -> str:
    if not any(found["types"].values()):
        return ""
    changing = {kind: values for kind, values in found["types"].items() if values and len(set(values)) > 1}
    lines = [
        SAME.format(len(found["types"]), len(found["types"]) - len(changing)),
        "| type | first | least | most | last |",
        "|---|---:|---:|---:|---:|",
        *(f"| `{kind}` | {_range(values, 0)} |" for kind, values in changing.items()),
        "",
    ]
    return "\n".join(lines)


def _calls(found: dict[str, Any]) -> str:
    lines = [
        "## Calls\n",
        f"| population | {' | '.join((*OUTCOMES, *CALLS))} |",
        "|---|" + "---:|" * (len(OUTCOMES) + len(CALLS)),
    ]
    for name, account in found["accounts"].items():
        cells = [f"{account['calls'].get(outcome, 0):,}" for outcome in OUTCOMES]
        exact = f"{account['exact']:,}" if account["exact"] else "in sum"
        lines.append(
            f"| {name} | {' | '.join(cells)} | {account['sends']:,} | {exact} | {account['bounded']:,}"
            f" | {account['longest']:.2f} s | {account['latest']:.2f} s |"
        )
    took = [sum(column) for column in zip(*(one["took"] for one in found["accounts"].values()), strict=True)]
    bounds = [*(f"≤ {bound:g} s" for bound in BOUNDS), f"> {BOUNDS[-1]:g} s"]
    lines += [
        "",
        "How long they took: "
        + ", ".join(f"{n:,} {bound}" for bound, n in zip(bounds, took, strict=False) if n)
        + ".\n",
        "What callers did: " + _listed(_kinds(found)) + ".\n",
    ]
    return "\n".join(lines)


def _kinds(found: dict[str, Any]) -> dict[str, int]:
    kinds: dict[str, int] = {}
    for account in found["accounts"].values():
        for kind, count in account["kinds"].items():
            name = kind.rpartition(", ")[0]
            kinds[name] = kinds.get(name, 0) + count
    return kinds


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _counts(found: dict[str, Any]) -> str:
    lines = [
        "## Permits and events\n",
        f"| population | {' | '.join(PERMITS)} |",
        "|---|" + "---:|" * len(PERMITS),
    ]
    for name, permits in found["permits"].items():
        seen = found["metrics"][name]
        streams = seen["streams"]
        mended = sum(streams.get(way, 0) for way in ("restart", "resume", "replay", "marker"))
        cells = [
            permits["granted"],
            permits["reported"],
            permits["abandoned"],
            permits["out"],
            seen["retries"],
        ]
        cells += [seen["opened"], seen["gates"], streams.get("breaks", 0), mended]
        lines.append(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return "\n".join([*lines, "", "Replies of the gateway: " + _listed(found["replies"]) + ".\n"])


def _store(found: dict[str, Any]) -> str:
    trouble = found["store"]
    told = {name: (seen["degraded"], seen["restored"]) for name, seen in found["metrics"].items()}
    heard = ", ".join(
        f"{name} {sum(away.values())} times away and {sum(back.values())} back"
        for name, (away, back) in told.items()
        if away or back
    )
    return (
        f"The Valkey was killed {trouble['kills']} times and frozen {trouble['freezes']} times"
        f"{'; noticed by ' + heard if heard else ''}. Notices about generators of the HTTP libraries that were"
        f" dropped before their end, as bare clients drop them too: {found['theirs']}.\n"
    )


def _versions(found: dict[str, Any]) -> str:
    return "Versions: " + ", ".join(f"{name} {number}" for name, number in found["versions"].items()) + ".\n"


# ---- the picture -----------------------------------------------------------------------------------------------


def drawing(found: dict[str, Any]) -> str:
    """Memory, blocks and open files over time; what comes before the first sample that counts is shaded."""
    samples = rows(found)
    height = TOP + len(LINES) * (PLOT + GAP)
    parts = []
    if len(samples) > 1:
        last = samples[-1]["at"]
        warm = samples[min(found["settings"]["warm_up"], len(samples) - 1)]["at"]
        for number, (title, (column, unit, colour)) in enumerate(LINES.items()):
            top = TOP + number * (PLOT + GAP)
            values = [sample[column] * unit for sample in samples]
            parts += _line(
                title, colour, top, [sample["at"] / last for sample in samples], values, warm / last
            )
        parts.append(_text(LEFT, height - 8, "0"))
        parts.append(_text(WIDTH - RIGHT, height - 8, f"{last:,.0f} s", "end"))
    style = f'font-family="sans-serif" font-size="12" fill="{GREY}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {style}>'
    title = "What was held at each quiet point"
    return "\n".join((opening, f"<title>{title}</title>", _text(LEFT, 16, title), *parts, "</svg>\n"))


def _line(
    title: str, colour: str, top: float, at: Sequence[float], values: Sequence[float], warm: float
) -> list[str]:
    # Not from zero, or a leak of some percent could not be seen; nor so near that noise fills the plot.
    middle = sum(values) / len(values)
    low = min(*values, 0.9 * middle)
    high = max(*values, 1.1 * middle) or 1.0
    wide = WIDTH - LEFT - RIGHT

    def y(value: float) -> float:
        return top + PLOT - (value - low) / ((high - low) or 1.0) * PLOT

    points = " ".join(f"{LEFT + wide * x:.1f},{y(value):.1f}" for x, value in zip(at, values, strict=True))
    return [
        f'<rect x="{LEFT}" y="{top}" width="{wide * warm:.1f}" height="{PLOT}" fill="{GREY}" opacity="0.15"/>',
        f'<rect x="{LEFT}" y="{top + PLOT}" width="{wide}" height="1" fill="{GREY}" opacity="0.5"/>',
        _text(LEFT - 6, y(high) + 10, f"{high:,.0f}", "end"),
        _text(LEFT - 6, y(low), f"{low:,.0f}", "end"),
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
        _text(LEFT, top - 6, title),
    ]


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
