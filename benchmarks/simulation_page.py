"""Put the tables of docs/simulation/results.json into docs/simulation.md, and keep the plots that it shows.

``make simulation`` makes the results, and then runs ``python -m benchmarks.simulation_page``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gip_resilience.simulation.measures import NEVER, Figures
from gip_resilience.simulation.runs import Result
from gip_resilience.simulation.tables import markdown

DOCS = Path(__file__).parents[1] / "docs"


def with_tables(page: str, record: dict[str, Any]) -> str:
    """*page* with the table of each scenario between ``<!-- name -->`` and ``<!-- /name -->``."""
    for found in record["scenarios"]:
        results = [
            Result(row["policy"], _figures(row["figures"]), row["tally"], [], [], [])
            for row in found["policies"]
        ]
        opening, closing = f"<!-- {found['scenario']} -->", f"<!-- /{found['scenario']} -->"
        before, mark, rest = page.partition(opening)
        _, end, after = rest.partition(closing)
        if mark and end:
            page = f"{before}{opening}\n{markdown(results)}\n{closing}{after}"
    return page


def _figures(values: dict[str, Any]) -> Figures:
    return Figures(**{name: NEVER if value == "never" else value for name, value in values.items()})


def main() -> None:
    """Write the page, and remove what it does not show."""
    file = DOCS / "simulation.md"
    page = with_tables(file.read_text(), json.loads((DOCS / "simulation" / "results.json").read_text()))
    file.write_text(page)
    shown = set(re.findall(r"\(simulation/([^)]+)\)", page))
    for path in (DOCS / "simulation").iterdir():
        if path.suffix in {".svg", ".html"} and path.name not in shown:
            path.unlink()


if __name__ == "__main__":
    main()
