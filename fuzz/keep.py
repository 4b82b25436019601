"""``python -m fuzz.keep FOLDER``: of the inputs in *FOLDER* and in the corpora, keep the few that reach everything.

*FOLDER* has a folder for each target, as ``make fuzz`` and `fuzz.seeds` leave it. Those that take the most steps are
looked at first; one is kept that takes a step from line to line, in gip_resilience, that none before it took.
"""

from __future__ import annotations

import importlib
import sys
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzz import TARGETS

if TYPE_CHECKING:
    from types import FrameType

    from fuzz.given import Check

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 2000


def steps(check: Check, data: bytes) -> set[tuple[str, int, int]]:
    """The steps that an input takes: file, line, and the line after it."""
    found: set[tuple[str, int, int]] = set()

    def enter(frame: FrameType, _event: str, _arg: object) -> Any:
        name = frame.f_code.co_filename
        if "gip_resilience" not in name:
            return None
        last = 0

        def step(frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal last
            if event == "line":
                found.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return found


def main(folder: str) -> None:
    """Renew the corpora."""
    seen: set[tuple[str, int, int]] = set()  # by any target: what two reach is kept once
    for name in TARGETS:
        check = importlib.import_module(f"fuzz.{name}").check
        paths = [path for where in (CORPUS / name, Path(folder, name)) for path in where.glob("*")]
        inputs = {data for path in paths if len(data := path.read_bytes()) <= LONGEST}
        check(b"")  # what is only done once, at first, is nobody's merit
        taken = {data: steps(check, data) - seen for data in inputs}
        kept = []
        while taken:
            best = min(taken, key=lambda data: (-len(taken[data]), len(data), data))
            new = taken.pop(best)
            seen |= new
            kept += [best] if new else []
            taken = {data: left for data, more in taken.items() if (left := more - new)}
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for path in (CORPUS / name).glob("*"):
            path.unlink()
        for data in kept:
            (CORPUS / name / blake2b(data, digest_size=8).hexdigest()).write_bytes(data)
        print(f"{name}: {len(kept)} of {len(inputs)} inputs, {len(seen)} steps")


if __name__ == "__main__":
    main(sys.argv[1])
