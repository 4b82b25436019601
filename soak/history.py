"""All samples of a run, kept so that keeping them does not look like a leak: in columns, not as objects."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from .sampling import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = (
    "at",
    "calls",
    "memory",
    "blocks",
    "descriptors",
    "pooled",
    "sockets",
    "stored",
    "accepted",
    "threads",
    "tasks",
    "used",
    "out",
    "waiting",
    "probing",
    "dropped",
    "lag",
)
"""What is kept of each sample."""

SECONDS = ("at", "lag")
"""Those that are no whole numbers."""

PEER = ("memory", "blocks", "descriptors", "connections", "threads")
"""What is kept of the gateway process."""


class History:
    """The samples so far.

    Args:
        warm_up: how many do not count.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._count = 0
        self._columns = {name: array("d") for name in COLUMNS}
        self._peer = {name: array("d") for name in PEER}
        self.types: dict[str, array[int]] = {}
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def add(self, sample: Sample) -> None:
        """One more."""
        for name, column in self._columns.items():
            column.append(getattr(sample, name))
        for name, column in self._peer.items():
            column.append(sample.peer[name])
        for kind in sample.objects.keys() - self.types.keys():
            self.types[kind] = array("l", bytes(self._count * array("l").itemsize))
        for kind, counts in self.types.items():
            counts.append(sample.objects.get(kind, 0))
        if self._count == self._warm_up:
            self._first = sample.others
        self._last = sample.others
        self._count += 1

    def last(self) -> Sample | None:
        """The latest sample."""
        return self.samples(self._count - 1)[0] if self._count else None

    def counted(self) -> list[Sample]:
        """Those after the warm-up."""
        return self.samples(self._warm_up)

    def samples(self, start: int = 0) -> list[Sample]:
        """Those from number *start* on."""
        found = []
        for number in range(start, self._count):
            values = {name: _plain(name, column[number]) for name, column in self._columns.items()}
            sample = Sample(**values)  # type: ignore[arg-type]  # by name
            sample.peer = {name: int(column[number]) for name, column in self._peer.items()}
            sample.objects = {kind: counts[number] for kind, counts in self.types.items()}
            if number == self._warm_up:
                sample.others = self._first
            if number == self._count - 1:
                sample.others = self._last
            found.append(sample)
        return found

    def rows(self) -> list[list[float]]:
        """The columns, row by row."""
        return [
            [_plain(name, column[number]) for name, column in self._columns.items()]
            for number in range(self._count)
        ]

    def peer(self) -> dict[str, list[int]]:
        """What was counted of the gateway process."""
        return {
            name: [int(value) for value in column[self._warm_up :]] for name, column in self._peer.items()
        }

    def ranges(self) -> dict[str, list[int]]:
        """First, least, most and last number of instances of each type."""
        return {kind: _range(counts[self._warm_up :]) for kind, counts in sorted(self.types.items())}


def _plain(name: str, value: float) -> float:
    return round(value, 3) if name in SECONDS else int(value)


def _range(values: Sequence[int]) -> list[int]:
    return [values[0], min(values), max(values), values[-1]] if values else []
