"""``python -m release``: build, test as installed, try every extra.

python -m release build                  # dist/: sdist, wheel, SHA256SUMS
python -m release test [PYTEST OPTIONS]  # the suite against the wheel in a new environment
python -m release extras [NAME ...]      # each extra in a new environment of its own
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from release.building import ROOT, build_both, digest
from release.installing import extras, run_suite, try_extra

USAGE = 2


def main(arguments: list[str]) -> int:
    """Do what the command line says. Returns the exit code."""
    match arguments:
        case ["build"]:
            shutil.rmtree(ROOT / "dist", ignore_errors=True)
            built = build_both(ROOT / "dist")
            sums = "".join(f"{digest(path)}  {path.name}\n" for path in built)
            (ROOT / "dist" / "SHA256SUMS").write_text(sums)
            print(sums, end="")
            return 0
        case ["test", *rest]:
            with tempfile.TemporaryDirectory(prefix="gip-wheel-") as folder:
                built = build_both(Path(folder, "dist"))
                return run_suite(built.wheel, Path(folder), rest)
        case ["extras", *names]:
            with tempfile.TemporaryDirectory(prefix="gip-extras-") as folder:
                built = build_both(Path(folder, "dist"))
                failed = 0
                for name in names or extras():
                    began = time.monotonic()
                    kept = try_extra(built.wheel, name, Path(folder, name or "none"))
                    failed += not kept
                    took = time.monotonic() - began
                    print(f"{name or '(none)':12} {'works' if kept else 'FAILED'}  {took:5.1f} s", flush=True)
                return 1 if failed else 0
    print(__doc__, file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
