"""The fault matrix: every cell comes to what is written down for it, within its time, and leaves nothing behind.

What is played, and by whom, is in the package `faults`; what it must come to, in ``tests/data/faults.toml``; what it
says of the library, in ``docs/faults.md``.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from faults import page, programs
from faults.running import LIMIT, run, warm_up
from faults.scenes import SCENES
from faults.table import Cell, cells, load
from harness import HARNESSES

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTS = load()
CELLS = [cell for cell in cells(FAULTS) if cell.exists]
PLAYED = [cell for cell in CELLS if cell.fault.name not in programs.PROGRAMS]
PROGRAMS = [(fault, act) for fault in FAULTS if fault.name in programs.PROGRAMS for act in fault.acts]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="faults of the system are made as Linux makes them"),
    # Of the clients themselves, under trio: they leave generators behind where a call or a body breaks.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object"),
    pytest.mark.filterwarnings("ignore:Async generator .*:ResourceWarning"),
    # Of asyncio, where a client outlives its loop.
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _warm() -> Iterator[None]:
    """What is opened once for the process is no cell's; and no log keeps an error, with all that it holds."""
    for harness in HARNESSES:
        warm_up(harness)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(4 * LIMIT)
@pytest.mark.parametrize("cell", PLAYED, ids=str)
def test_a_cell(cell: Cell) -> None:
    """The caller gets what the table says, the wire sees as much of it, and nothing is left."""
    assert run(cell) == {cell.expected}


@pytest.mark.timeout(len(PROGRAMS) * LIMIT)
def test_the_programs() -> None:
    """The same for what needs processes of its own; in one go, since their start is what takes long."""
    seen = programs.run([(fault.name, act) for fault, act in PROGRAMS])

    assert dict(zip(((fault.name, act) for fault, act in PROGRAMS), seen, strict=True)) == {
        (fault.name, act): {one.name: fault.expected(act, one) for one in HARNESSES}
        for fault, act in PROGRAMS
    }


def test_the_table_and_the_scenes_are_one() -> None:
    """Every fault is played, and everything that can be played is in the table, once."""
    names = [fault.name for fault in FAULTS]

    assert sorted(names) == sorted([*SCENES, *programs.PROGRAMS])


def test_every_outcome_is_a_verdict() -> None:
    """No cell is left open, none is of a kind that the page does not count, and none speaks of a client in vain."""
    for cell in cells(FAULTS):
        assert page.verdict(cell.expected) in page.VERDICTS, cell
    for fault in FAULTS:
        for act, outcomes in fault.acts.items():
            used = {fault.word(act, harness) for harness in HARNESSES}
            assert set(outcomes) <= used, (fault.name, act)


def test_nothing_foreign_comes_up() -> None:
    """What a caller must catch is of its client's own kind, but for what the bare client lets through."""
    foreign = {cell.fault.name for cell in CELLS if "foreign" in cell.expected}

    assert foreign == {"new-loop-old-client"}  # asyncio's own: the loop of the connection is closed
    assert all(cell.expected.startswith("passed") for cell in CELLS if "foreign" in cell.expected)


def test_the_page_is_that_of_the_table() -> None:
    """``docs/faults.md`` says what the table says: ``python tests/faults`` writes it, after a run."""
    assert page.PATH.read_text(encoding="utf-8") == page.render(FAULTS, page.last_run())
