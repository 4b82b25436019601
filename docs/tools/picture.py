"""The picture in the README: the demo's numbers, before and after.

python -m docs.tools.picture          lives through the demo, and writes docs/demo.json and docs/demo.svg
python -m docs.tools.picture --draw   draws what docs/demo.json holds
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

ROOT: Final = Path(__file__).parents[2]
NUMBERS: Final = ROOT / "docs" / "demo.json"
PICTURE: Final = ROOT / "docs" / "demo.svg"

WIDTH: Final = 760
LEFT: Final = 132
"""Where bars begin, in pixels: the names of clients stand before."""
BAR: Final = 13
ROW: Final = 40

STYLE: Final = """
  .card { fill: #ffffff; stroke: #d0d7de }
  text { fill: #1f2328; font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
  .title { font-size: 15px; font-weight: 600 }
  .small { font-size: 12px; fill: #57606a }
  .track { fill: #eaeef2 }
  .bare { fill: #8c959f }
  .ours { fill: #1a7f37 }
  .short { fill: #bc4c00 }
  .failed { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    .card { fill: #161b22; stroke: #30363d }
    text { fill: #e6edf3 }
    .small { fill: #9ea7b3 }
    .track { fill: #2b323b }
    .bare { fill: #768390 }
    .ours { fill: #3fb950 }
    .short { fill: #f0883e }
    .failed { fill: #768390 }
  }
"""


def live() -> dict[str, Any]:
    """What came of the demo, lived through now."""
    from gip_resilience.cli import breaks
    from gip_resilience.cli.afternoon import Afternoon
    from gip_resilience.cli.clients import CLIENTS
    from gip_resilience.cli.running import Run

    logging.getLogger().addHandler(logging.NullHandler())
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    afternoon = Afternoon()
    scores = []
    for mounted in (False, True):  # one half after the other, as the demo does
        runs = [Run(client, afternoon, mounted=mounted) for client in CLIENTS]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
            if run.score is None:
                raise RuntimeError(f"{run.client.name}: {run.problem!r}")
            scores.append(run.score)
    return {
        "possible": afternoon.possible,
        "ways": len(breaks.WAYS),
        "calls": [
            {
                "client": score.client,
                "mounted": score.mounted,
                "answered": score.answered,
                "requests_per_call": round(score.requests / score.calls, 2),
                "to_dead": score.to_dead,
            }
            for score in scores
        ],
        "streams": [
            {
                "client": tally.name,
                "mounted": tally.mounted,
                "whole": tally.counts["whole"],
                "short": tally.counts["short"],
                "failed": tally.counts["failed"],
            }
            for tally in breaks.run([client.name for client in CLIENTS])
        ],
    }


def draw(numbers: dict[str, Any]) -> str:
    """The numbers as a picture."""
    calls, streams = _pairs(numbers["calls"]), _pairs(numbers["streams"])
    top = 62
    below = top + ROW * len(calls) + 74
    height = below + ROW * len(streams) + 8
    answered = [f"{low} to {high}" if low != high else str(low) for low, high in _ranges(numbers)]
    label = (
        f"Of {numbers['possible']} calls that can be answered, bare clients get {answered[0]} answered, mounted "
        f"ones {answered[1]}. Below: {numbers['ways']} broken streams, and how many come whole."
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">',
        f"<title>{label}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text(20, 30, f"A bad afternoon: calls answered, of {numbers['possible']} that can be", "title"),
        *_legend(49, (("bare", "bare"), ("ours", "mounted"))),
    ]
    for place, (name, bare, ours) in enumerate(calls):
        y = top + ROW * place
        parts.append(_text(20, y + 20, name))
        for which, kind, score in ((0, "bare", bare), (1, "ours", ours)):
            said = f"{score['answered']}, {score['requests_per_call']:.2f} requests per call"
            parts += _bar(y + 2 + which * (BAR + 3), ((kind, score["answered"]),), numbers["possible"], said)
    parts.append(_text(20, below - 32, f"{numbers['ways']} streams that break, each in another way", "title"))
    parts += _legend(
        below - 13, (("ours", "whole"), ("short", "cut short, and nobody noticed"), ("failed", "error"))
    )
    for place, (name, bare, ours) in enumerate(streams):
        y = below + ROW * place
        parts.append(_text(20, y + 20, name))
        for which, how, tally in ((0, "bare", bare), (1, "mounted", ours)):
            pieces = (("ours", tally["whole"]), ("short", tally["short"]), ("failed", tally["failed"]))
            said = f"{how}: {tally['whole']} whole, {tally['short']} short"
            parts += _bar(y + 2 + which * (BAR + 3), pieces, numbers["ways"], said)
    return "\n".join([*parts, "</svg>", ""])


def _ranges(numbers: dict[str, Any]) -> list[tuple[int, int]]:
    found = []
    for mounted in (False, True):
        answered = [score["answered"] for score in numbers["calls"] if score["mounted"] is mounted]
        found.append((min(answered), max(answered)))
    return found


def _pairs(scores: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    names = dict.fromkeys(score["client"] for score in scores)
    found = {(score["client"], score["mounted"]): score for score in scores}
    return [(name, found[name, False], found[name, True]) for name in names]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{style}>{escape(text)}</text>'


def _legend(y: float, entries: tuple[tuple[str, str], ...]) -> list[str]:
    parts, x = [], 20.0
    for kind, said in entries:
        parts.append(f'<rect class="{kind}" x="{x:g}" y="{y - 9:g}" width="10" height="10" rx="2"/>')
        parts.append(_text(x + 16, y, said, "small"))
        x += 42 + 6.2 * len(said)
    return parts


def _bar(y: float, pieces: tuple[tuple[str, int], ...], whole: int, said: str) -> list[str]:
    scale = 400 / whole
    parts = [f'<rect class="track" x="{LEFT}" y="{y:g}" width="400" height="{BAR}" rx="3"/>']
    x = float(LEFT)
    for kind, count in pieces:
        if count:
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y:g}" width="{count * scale:.1f}" height="{BAR}" rx="3"/>'
            )
            x += count * scale
    return [*parts, _text(LEFT + 410, y + BAR - 2, said, "small")]


def main() -> int:
    """Live and draw, or draw."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--draw", action="store_true", help="draw what docs/demo.json holds")
    if not arguments.parse_args().draw:
        NUMBERS.write_text(json.dumps(live(), indent=1) + "\n", encoding="utf-8")
    PICTURE.write_text(draw(json.loads(NUMBERS.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
