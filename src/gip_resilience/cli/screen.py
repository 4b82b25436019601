"""What the demo shows: progress while it runs, then a table, then how to read it.

With `rich`, on a terminal, the progress is live; everywhere else it is lines of plain text. Both show the same
table, and it fits 80 columns.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from gip_resilience.cli import breaks
from gip_resilience.cli.output import columns, paragraph, seconds

if TYPE_CHECKING:
    from gip_resilience.cli.afternoon import Afternoon
    from gip_resilience.cli.breaks import Tally
    from gip_resilience.cli.clients import Client
    from gip_resilience.cli.running import Run, Score

Look = Callable[[], None]
"""Shows how far the runs are."""

_BAR = 26
"""Characters of a progress bar: two of them, and the names, in 80 columns."""

_HEADINGS = (
    ("client", ""),
    ("", ""),
    ("answered", "of {possible}"),
    ("requests", "per call"),
    ("to the", "dead"),
    ("circuits", "opened"),
    ("connec-", "tions"),
    ("waited", "in all"),
    ("slowest", "call"),
)
_NUMBERS = frozenset(range(2, len(_HEADINGS)))

_WAITS = {
    "gate": "held together until the rate limit resets",
    "hint": "as long as the server asked for",
    "backoff": "backing off",
    "circuit": "for a circuit to close",
}
"""The reasons of a wait, in words."""


class Screen(Protocol):
    """Where the demo is shown."""

    def introduce(self, afternoon: Afternoon, missing: Sequence[Client]) -> None:
        """Say what is going to happen, and which clients will not take part."""

    def watching(self, bare: Sequence[Run], mounted: Sequence[Run]) -> AbstractContextManager[Look]:
        """Show progress while inside."""

    def conclude(self, scores: Sequence[Score]) -> None:
        """Show what came of it."""

    def conclude_streams(self, tallies: Sequence[Tally], took: float) -> None:
        """Show what came of the streams, and how long all of it took."""


def choose(*, plain: bool) -> Screen:
    """The screen that suits standard output."""
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    # NO_COLOR: https://no-color.org
    if plain or dumb or not sys.stdout.isatty() or find_spec("rich") is None:
        return PlainScreen()
    return RichScreen()


def introduction(afternoon: Afternoon, missing: Sequence[Client]) -> str:
    """What is going to happen, in lines."""
    lines = [f"A bad afternoon (seed {afternoon.seed}), the same for every client, bare and mounted:"]
    lines += [paragraph(fact, first="  - ", rest="    ") for fact in afternoon.describe()]
    for client in missing:
        lines.append(f"Not taking part: {client.name} (not installed: {', '.join(client.missing)})")
    return "\n".join(lines)


def table(scores: Sequence[Score]) -> list[list[str]]:
    """The cells of the table: two rows of headings, then a row per run."""
    possible = str(scores[0].possible)
    headings = [[heading[line].format(possible=possible) for heading in _HEADINGS] for line in (0, 1)]
    return headings + [_row(score) for score in scores]


def _row(score: Score) -> list[str]:
    return [
        "" if score.mounted else score.client,
        "mounted" if score.mounted else "bare",
        str(score.answered),
        f"{score.requests / score.calls:.2f}",
        str(score.to_dead),
        "-" if score.opened is None else str(score.opened),
        str(score.connections),
        seconds(sum(score.waits.values())) if score.mounted else "-",
        seconds(score.slowest),
    ]


def _lines(scores: Sequence[Score]) -> list[str]:
    """The table as text: two lines of headings, a rule, a line per run."""
    lines = columns(table(scores), right=_NUMBERS, gap=" ").split("\n")
    return [*lines[:2], "-" * max(map(len, lines)), *lines[2:]]


def reading(scores: Sequence[Score]) -> list[str]:
    """How to read the table, in sentences: what was gained, and what it cost."""
    bare = [score for score in scores if not score.mounted]
    ours = [score for score in scores if score.mounted]
    possible = sum(score.possible for score in ours)
    calls = sum(score.calls for score in ours)
    dead = calls - possible
    gained = f"{_sum(bare, 'answered')} did bare and {_sum(ours, 'answered')} did mounted"
    said = [f"Of {possible} calls that could succeed, {gained}."]
    if dead:
        said.append(
            f"Calls to the dead model ({dead}) fail either way, by design. Bare they cost"
            f" {_sum(bare, 'to_dead')} requests, mounted {_sum(ours, 'to_dead')}: one answer opens that model's"
            " circuit, calls that follow fail at once, and now and then a single one may try."
        )
    sdk = next((score for score in bare if score.client == "openai"), None)
    if sdk is not None:
        said.append(
            f"The bare OpenAI SDK retries by itself, up to twice, by status alone: {sdk.answered} of"
            f" {sdk.possible}, with {sdk.to_dead} requests to the dead model. Mounted, its own retries are told"
            " to stand back, so attempts do not multiply."
        )
    waits = sum((Counter(score.waits) for score in ours), Counter[str]())
    shares = ", ".join(
        f"{waited / waits.total():.0%} {_WAITS.get(kind, kind)}"
        for kind, waited in waits.most_common()
        if waited
    )
    said.append(
        f"The price is patience: {seconds(waits.total() / calls)} of waiting per call on average"
        + (f" ({shares})" if shares else "")
        + f", and {seconds(max(score.slowest for score in ours))} for the slowest call; a deadline would bound"
        f" it. Sent were {_sum(ours, 'requests') / calls:.2f} requests per call, bare"
        f" {_sum(bare, 'requests') / calls:.2f}."
    )
    lost = possible - _sum(ours, "answered")
    if lost:
        reasons = sum((Counter(score.reasons) for score in ours), Counter[str]())
        why = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        said.append(f"{lost} of the mounted calls failed although they need not have: {why}.")
    return said


def _sum(scores: Sequence[Score], name: str) -> int:
    return sum(getattr(score, name) for score in scores)


class PlainScreen:
    """Lines of text: for pipes, logs, and terminals without `rich`."""

    def introduce(self, afternoon: Afternoon, missing: Sequence[Client]) -> None:
        """See `Screen.introduce`."""
        print(introduction(afternoon, missing), end="\n\n", flush=True)

    @contextmanager
    def watching(self, bare: Sequence[Run], mounted: Sequence[Run]) -> Iterator[Look]:
        """See `Screen.watching`: a line per run, when it is over."""
        waiting = [*bare, *mounted]

        def look() -> None:
            for run in [run for run in waiting if run.score is not None or run.problem is not None]:
                waiting.remove(run)
                how = "mounted" if run.brain is not None else "bare"
                answered, failed = run.progress
                print(f"  {run.client.name:<16}{how:<9}{answered} answered, {failed} failed", flush=True)

        yield look
        print()

    def conclude(self, scores: Sequence[Score]) -> None:
        """See `Screen.conclude`."""
        self._conclude(_lines(scores), reading(scores))

    def conclude_streams(self, tallies: Sequence[Tally], took: float) -> None:
        """See `Screen.conclude_streams`."""
        if tallies:
            self._conclude(breaks.table(tallies), breaks.reading(tallies))
        print(f"{took:.0f} s in all.")

    def _conclude(self, lines: Sequence[str], sentences: Sequence[str]) -> None:
        print("\n".join(lines), end="\n\n")
        for sentence in sentences:
            print(paragraph(sentence, first="- ", rest="  "))
        print(flush=True)


class RichScreen:
    """A terminal, with live progress. Made only where `rich` is installed."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def introduce(self, afternoon: Afternoon, missing: Sequence[Client]) -> None:
        """See `Screen.introduce`."""
        first, _, rest = introduction(afternoon, missing).partition("\n")
        self._console.print(first, style="bold", markup=False)
        self._console.print(rest, markup=False)
        self._console.print()

    @contextmanager
    def watching(self, bare: Sequence[Run], mounted: Sequence[Run]) -> Iterator[Look]:
        """See `Screen.watching`: two bars per client."""
        from rich.live import Live

        with Live(_progress(bare, mounted), console=self._console, auto_refresh=False) as live:
            yield lambda: live.update(_progress(bare, mounted), refresh=True)

    def conclude(self, scores: Sequence[Score]) -> None:
        """See `Screen.conclude`."""
        self._conclude(_lines(scores), [score.mounted for score in scores], reading(scores))

    def conclude_streams(self, tallies: Sequence[Tally], took: float) -> None:
        """See `Screen.conclude_streams`."""
        if tallies:
            lines, mounted = breaks.table(tallies), [tally.mounted for tally in tallies]
            self._conclude(lines, mounted, breaks.reading(tallies))
        self._console.print(f"{took:.0f} s in all.", style="dim")

    def _conclude(self, lines: Sequence[str], mounted: Sequence[bool], sentences: Sequence[str]) -> None:
        from rich.text import Text

        first, second, rule, *rows = lines
        self._console.print(Text(f"\n{first}\n{second}", style="bold"))
        self._console.print(Text(rule, style="dim"))
        for row, ours in zip(rows, mounted, strict=True):
            self._console.print(Text(row, style="green" if ours else ""))
        self._console.print()
        for sentence in sentences:
            self._console.print(paragraph(sentence, first="- ", rest="  "), markup=False)
        self._console.print()


def _progress(bare: Sequence[Run], mounted: Sequence[Run]) -> Any:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_row("", Text("bare", style="bold"), Text("mounted", style="bold"))
    for left, right in zip(bare, mounted, strict=True):
        grid.add_row(left.client.name, _bar(left), _bar(right))
    return grid


def _bar(run: Run) -> Any:
    from rich.text import Text

    answered, failed = run.progress
    calls = run.afternoon.calls
    good = _BAR * answered // calls
    over = _BAR * (answered + failed) // calls
    return Text.assemble(
        ("█" * good, "green"),
        ("█" * (over - good), "red"),
        ("░" * (_BAR - over), "dim"),
        f" {answered:>3}",
    )
