"""The result of a run as a file: written anew at every quiet point, so that a run that was cut off has one, too."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .sampling import Sample
    from .settings import Settings

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


class Results:
    """Writes the result of one run.

    Args:
        path: where to.
        settings: of the run.
        surroundings: versions.
    """

    def __init__(self, path: Path, settings: Settings, surroundings: Mapping[str, str]) -> None:
        self._path = path
        self._settings = settings
        self._surroundings = surroundings

    def write(self, status: str, samples: Sequence[Sample], **rest: Any) -> None:
        """Write it, in one step: whoever reads it sees the last one or this one."""
        document: dict[str, Any] = {
            "status": status,
            "settings": asdict(self._settings),
            "versions": self._surroundings,
            **rest,
            "columns": COLUMNS,
        }
        head = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
        rows = ",\n".join(json.dumps([_short(getattr(one, name)) for name in COLUMNS]) for one in samples)
        counted = samples[self._settings.warm_up :]
        types = {
            kind: [one.objects.get(kind, 0) for one in counted]
            for kind in sorted({kind for one in counted for kind in one.objects})
        }
        peer = {
            name: [one.peer.get(name) for one in counted]
            for name in ("memory", "blocks", "descriptors", "connections", "threads")
        }
        kinds = ",\n".join(
            f"{json.dumps(kind)}: {json.dumps(_run(values))}" for kind, values in types.items()
        )
        text = f'{{{head},\n"samples": [\n{rows}\n],\n"gateway": {json.dumps(peer)},\n"types": {{\n{kinds}\n}}}}\n'
        waiting = self._path.with_suffix(".part")
        waiting.write_text(text, encoding="utf-8")
        waiting.replace(self._path)


def _short(value: float) -> float:
    return round(value, 3) if isinstance(value, float) else value


def _run(values: Sequence[int]) -> list[int]:
    """First, least, most and last."""
    return [values[0], min(values), max(values), values[-1]] if values else []
