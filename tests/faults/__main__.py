"""``python tests/faults``: run the whole matrix, and write ``docs/faults.md`` if every cell is as expected.

``--check`` runs nothing and says whether the page is the table's; ``--observe`` prints what is seen, without judging.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from faults.observing import observe  # noqa: E402 - the folder above is not on the path before


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__)
    parser.add_argument("--check", action="store_true", help="whether docs/faults.md is that of the table")
    parser.add_argument("--observe", metavar="NAME", help="print what is seen of a fault, or of a group")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    if chosen.observe:
        observe(chosen.observe)
        return 0
    from faults import page

    return page.check() if chosen.check else page.write()


if __name__ == "__main__":
    sys.exit(main())
