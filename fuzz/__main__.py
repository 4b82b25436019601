"""``python -m fuzz TARGET [options of libFuzzer]``: the one place that needs atheris."""

from __future__ import annotations

import importlib
import sys

import atheris

from fuzz import TARGETS


def main() -> None:
    """Fuzz one target. Only gip_resilience is instrumented: what it stands on is not what is looked at."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: python -m fuzz {{{','.join(TARGETS)}}} [options of libFuzzer]")
    with atheris.instrument_imports(include=["gip_resilience"]):
        target = importlib.import_module(f"fuzz.{name}")
    atheris.Setup(sys.argv, target.check, internal_libfuzzer=True)
    atheris.Fuzz()


main()
