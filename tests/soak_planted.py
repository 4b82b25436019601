"""A short endurance run with leaks that were planted on purpose, for `test_soak`: run as a program, it must fail.

What is planted leaves behind, at every call, what the checks are there to find.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak.callers import Company
from soak.running import Run
from soak.settings import Settings
from soak.stores import Counting

kept: list[Any] = []
forever = threading.Event()
end, abandon = Company.end, Counting.abandon


def leaky_end(company: Company, note: Any, began: float) -> None:
    """A caller that opens a file, fills a list, and miscounts, after every call."""
    end(company, note, began)
    kept.append(Path("/dev/null").open())  # noqa: SIM115 - on purpose
    kept.append([[number] for number in range(50)])
    if len(kept) % 20 == 2:
        threading.Thread(target=forever.wait, daemon=True).start()
        company.ledger.close(company.ledger.open("nothing", door=False, deadline=None))


def forgetful_abandon(store: Counting, permit: Any, now: float) -> None:
    """A store that does not hear of a call that was given up."""
    if store.granted > 50:
        return
    abandon(store, permit, now)


Company.end = leaky_end  # type: ignore[method-assign]  # the defect is the point
Counting.abandon = forgetful_abandon  # type: ignore[method-assign]

if __name__ == "__main__":
    settings = Settings(
        seconds=1.0,
        round=0.3,
        warm_up=1,
        tasks=1,
        threads=1,
        store=False,
        settling=0.3,
        blocks=2_000,
        memory=16.0,
    )
    sys.exit(0 if Run(settings, Path(sys.argv[1]), print)() else 1)
