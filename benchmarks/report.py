"""The page about performance and its plots, from a result file: nothing on it is written by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from benchmarks import plots
from benchmarks.running import BENCHES
from benchmarks.targets import OURS, outcomes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.targets import Outcome

BARS: Final = {
    "calls": ("httpx2", "requests"),
    "loopback": ("httpx2", "requests"),
    "outages": ("503 with the code model_unavailable",),
}
"""Subjects of which a plot shows every case, besides all that is measured against a size."""

INTRO: Final = """\
# Performance

Made by `make bench` and `make bench-report`; `docs/performance.json` has every number. Cases take turns in one
process, a ratio is the median of the ratios of neighbouring turns, and its quartiles are in brackets: times of one
machine say little about another, ratios say more. Times in process are the processor's, so that neighbours count for
little; on loopback, under threads and where something waits they are the clock's. What each bench does is told at the
top of its file in `benchmarks/`.
"""


def write(result: Path, page: Path) -> None:
    """Write *page*, and its plots into a folder of its name beside it."""
    found: dict[str, Any] = json.loads(result.read_text())
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(found)
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture)
    for stale in folder.glob("*.svg"):
        if stale.stem not in drawn:
            stale.unlink()
    page.write_text(text(found, folder.name, drawn))


def text(result: Mapping[str, Any], folder: str, drawn: Mapping[str, str]) -> str:
    """The page."""
    return "\n".join(
        [
            INTRO,
            *_setting(result),
            *_targets(outcomes(result)),
            *_rivals(result),
            *_benches(result, folder, drawn),
        ]
    )


def _setting(result: Mapping[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    yield (
        f"{result['date']}: {machine['python']} ({machine['compiler']}) on {machine['system']},"
        f" {machine['cores']} cores ({machine.get('processor') or 'processor unknown'}), load {machine['load']:g}."
        f" Up to {result['rounds']} rounds of each comparison."
    )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    yield f"Versions: {versions}.\n"


def _targets(found: Sequence[Outcome]) -> Iterator[str]:
    met = sum(outcome.met for outcome in found)
    yield f"## Targets\n\n{met} of {len(found)} met.\n"
    yield "| what | limit | measured | |\n|---|---|---|---|"
    for outcome in found:
        target, measured = outcome
        unit = "" if target.unit == "×" else f" {target.unit}"
        limit = f"{'at least' if target.least else 'at most'} {target.limit:g}{unit}"
        said = "not measured" if measured is None else spread(measured, unit)
        verdict = ("pass" if outcome.met else "**miss**") + (", within the spread" if outcome.close else "")
        yield f"| {target.what} | {limit} | {said} | {verdict} |"
    yield ""
    missed: dict[str, list[str]] = {}
    for outcome in found:
        if not outcome.met and outcome.target.why:
            missed.setdefault(outcome.target.why, []).append(outcome.target.what)
    if missed:
        yield "## What is missed, and what it would take\n"
        for why, what in missed.items():
            yield f"- **{'; '.join(what)}**: {why}"
        yield ""


DOES: Final = {
    "httpx-retries": "it looks at the status, and at nothing else",
    "urllib3.Retry": "it looks at the status, within urllib3, which is called anyway",
    "interlock-cb": "a breaker: no retry, and no look at the answer's body",
    "tenacity": "a loop around the call: no breaker, no look at the answer but for its status",
    "stamina": "a loop around the call: no breaker, no look at the answer but for its status",
    "pybreaker": "a breaker: it counts failures in a row",
    "purgatory": "a breaker without a lock: it counts failures in a row",
    "pydantic-ai": "tenacity within a transport: no breaker, no look at the answer but for its status",
}
"""What those do who may be quicker somewhere."""


def _rivals(result: Mapping[str, Any]) -> Iterator[str]:
    """Where others are quicker, and what they leave undone: on every row that they and we have."""
    ahead: dict[str, list[str]] = {}
    compared = 0
    for bench in ("calls", "loopback", "breaking", "decoding"):
        rows = result["benches"].get(bench, {}).get("rows", ())
        ours = {(row["subject"], row.get("size")): row["value"][0] for row in rows if row["case"] == OURS}
        for row in rows:
            place = row["subject"], row.get("size")
            if (
                place not in ours
                or row["unit"] == "×"
                or row["case"].startswith((OURS, "bare", "pass-through", "the least"))
            ):
                continue
            compared += 1
            if row["value"][0] < ours[place]:
                size = "" if row.get("size") is None else f" of {row['size']:,} B"
                ahead.setdefault(row["case"], []).append(f"{bench}: {row['subject']}{size}")
    if not compared:
        return
    behind = sum(map(len, ahead.values()))
    yield f"## Beside rivals\n\nOf {compared} comparisons of time, ours takes less in {compared - behind}."
    if ahead:
        yield "Who takes less than ours, and does less:\n"
    for name, places in ahead.items():
        does = f" ({DOES[name]})" if name in DOES else ""
        yield f"- **{name}**{does}: {'; '.join(places)}."
    yield ""


def _benches(result: Mapping[str, Any], folder: str, drawn: Mapping[str, str]) -> Iterator[str]:
    for name, bench in result["benches"].items():
        title = BENCHES.get(name, name)
        yield f"## {title[:1].upper()}{title[1:]}\n"
        yield f"`python -m benchmarks {name}`, {bench['seconds']:g} s.\n"
        for picture in (one for one in drawn if one.startswith(f"{name}-")):
            yield f"![{picture}]({folder}/{picture}.svg)\n"
        yield from _table(bench["rows"])
        for note in bench["notes"]:
            yield f"{note}\n"
        if bench["skipped"]:
            yield "Not measured:\n"
            yield from (f"- {who}: {reason}" for who, reason in bench["skipped"].items())
            yield ""


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| of | by | takes | ratio |\n|---|---|---|---|"
    before = ""
    for row in rows:
        subject = row["subject"] if "size" not in row else f"{row['subject']}, {row['size']:,}"
        said = "" if subject == before else subject
        before = subject
        ratio = spread(row["ratio"]) if "ratio" in row else ""
        unit = row["unit"]
        yield f"| {said} | {row['case']} | {figure(row['value'][0])} {unit} | {ratio} |"
    yield ""


def spread(found: Sequence[float], unit: str = "") -> str:
    """A median with its quartiles."""
    middle, low, high = found
    if middle == low == high:
        return f"{figure(middle)}{unit}"
    return f"{figure(middle)}{unit} ({figure(low)} to {figure(high)})"


def figure(value: float) -> str:
    """A number with as many digits as mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}"


def draw(result: Mapping[str, Any]) -> dict[str, str]:
    """The plots, by name."""
    drawn = {}
    for bench, found in result["benches"].items():
        by_subject: dict[str, list[Mapping[str, Any]]] = {}
        for row in found["rows"]:
            by_subject.setdefault(row["subject"], []).append(row)
        for subject, rows in by_subject.items():
            name = f"{bench}-{''.join(c if c.isalnum() else '-' for c in subject.lower())}"
            if all("size" in row for row in rows):
                lines: dict[str, list[tuple[float, float]]] = {}
                for row in rows:
                    lines.setdefault(row["case"], []).append((row["size"], row["value"][0]))
                drawn[name] = plots.lines(f"{subject}: {rows[0]['unit']}", lines, OURS)
            elif subject in BARS.get(bench, ()):
                rated = any("ratio" in row for row in rows)
                bars = [
                    (row["case"], (row.get("ratio") or [1.0])[0] if rated else row["value"][0])
                    for row in rows
                ]
                title = f"{subject}: {'times bare' if rated else rows[0]['unit']}"
                drawn[name] = plots.bars(title, bars, OURS)
    return drawn
