"""The result of a run as a file: written anew at every quiet point, so that a run that was cut off has one, too."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .history import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .history import History
    from .settings import Settings


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

    def write(self, status: str, history: History, **rest: Any) -> None:
        """Write it, in one step: whoever reads it sees the last one or this one."""
        document: dict[str, Any] = {
            "status": status,
            "settings": asdict(self._settings),
            "versions": self._surroundings,
            **rest,
            "columns": COLUMNS,
            "gateway": history.peer(),
        }
        head = _lines(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
        rows = _lines(map(json.dumps, history.rows()))
        types = _lines(f"{json.dumps(kind)}: {json.dumps(found)}" for kind, found in history.ranges().items())
        text = f'{{{head},\n"samples": [\n{rows}\n],\n"types": {{\n{types}\n}}}}\n'
        waiting = self._path.with_suffix(".part")
        waiting.write_text(text, encoding="utf-8")
        waiting.replace(self._path)


def _lines(parts: Iterable[str]) -> str:
    return ",\n".join(parts)
