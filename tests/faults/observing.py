"""What is seen of faults, in the form of the table: to be judged by a person before it goes in there."""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path

from faults.running import run, warm_up
from faults.scenes import SCENES
from faults.table import ACTS, Cell, Fault, Group, selectors
from harness import HARNESSES

GUESSES = ("all", "requests", "family", "sync", "asyncio", "trio", "httpx", "httpx2")


def observe(name: str) -> None:
    """Print what is seen of a fault, or of all of a group's module."""
    for harness in HARNESSES:
        warm_up(harness)
    file = Path(__file__).with_name(f"{name}.py")
    source = file.read_text(encoding="utf-8") if file.exists() else ""
    for fault in SCENES:
        if f'"{fault}"' in source if source else name in fault:
            print(f'\n[[fault]]\nname = "{fault}"')
            for act in ACTS:
                print(f"{act} = {_act(fault, act)}", flush=True)


def _act(name: str, act: str) -> str:
    group = Group("", "", "", {})
    fault = Fault(name, group, "", {act: {}}, ("POST",))
    seen = {}
    for harness in HARNESSES:
        if harness.name == "requests" and name.startswith("h2-"):
            continue
        try:
            seen[harness] = "; ".join(run(Cell(fault, act, harness)))
        except Exception as error:
            trace = traceback.extract_tb(error.__traceback__)[-1]
            seen[harness] = f"BROKEN {type(error).__name__}: {error} ({trace.filename}:{trace.lineno})"
    left = dict(seen)
    said: dict[str, str] = {}
    for word in GUESSES:
        fits = [harness for harness in HARNESSES if word in selectors(harness) and harness in seen]
        open_ones = [harness for harness in fits if harness in left]
        if not open_ones:
            continue
        [(outcome, _)] = Counter(left[harness] for harness in open_ones).most_common(1)
        if all(seen[h] == outcome for h in open_ones):
            said[word] = outcome
            for harness in open_ones:
                del left[harness]
    said |= {harness.name: outcome for harness, outcome in left.items()}
    if list(said) == ["all"]:
        return f'"{said["all"]}"'
    return "{ " + ", ".join(f'{word} = "{outcome}"' for word, outcome in said.items()) + " }"
