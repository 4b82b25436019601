"""What is kept of a run: counts by module, and every mutant that no test failed for."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mutation import MODULES, REASONS

if TYPE_CHECKING:
    from pathlib import Path

    from mutation.mutants import Mutant
    from mutation.running import Outcome


def keep(path: Path, module: str, outcomes: list[Outcome], *, again: bool = False) -> None:
    """Put the outcomes of a module's mutants in place of those kept before, and leave the other modules' be.

    Args:
        path: the result.
        module: whose mutants.
        outcomes: of all of them.
        again: not of all, but of those that were left.
    """
    result = read(path)
    counts = Counter(outcome.status for outcome in outcomes)
    if again:
        counts.update({word: result["modules"][module][word] for word in ("killed", "hung")})
    left = [
        {
            "function": outcome.mutant.function,
            "was": outcome.mutant.was,
            "now": outcome.mutant.now,
            "status": outcome.status,
        }
        for outcome in sorted(outcomes, key=lambda outcome: outcome.mutant.statement)
        if outcome.status in {"survived", "untested", "unfit"}
    ]
    killed, hung = counts["killed"], counts["hung"]
    modules = result["modules"] | {
        module: {"mutants": killed + hung + len(left), "killed": killed, "hung": hung, "left": left}
    }
    kept = {
        "operators": f"mutmut {version('mutmut')}",
        "modules": {name: modules[name] for name in MODULES if name in modules},
    }
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """The result that is kept, or an empty one."""
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"modules": {}}
    return result


def left_of(path: Path, mutants: list[Mutant]) -> list[Mutant]:
    """Of all mutants of a module those that were left.

    Raises:
        ValueError: they are not those of the result: the module has changed since.
    """
    kept = read(path)["modules"].get(mutants[0].module, {"mutants": 0, "left": []})
    keys = {(each["function"], each["was"], each["now"]) for each in kept["left"]}
    found = [mutant for mutant in mutants if (mutant.function, mutant.was, mutant.now) in keys]
    if (kept["mutants"], len(kept["left"])) != (len(mutants), len(found)):
        raise ValueError(f"{mutants[0].module} is not what it was: try all of it")
    return found


HEAD = """# Mutation testing

Written by `python -m mutation report` from `mutation.json`, the result of the last `make mutants`. How it is run,
what is changed and what is not, is told in [its README](../mutation/README.md).

A mutant is a module with one thing changed: an operator, a number, a string, an argument. It is *killed* when a test
fails, *stopped* when a test does not come to its end (within 20 times its processor time and 5 s), and *left* when
every test passes that runs the changed line, or none does. Killed and stopped ones make the score. Each that is left
has its reason below.
"""


def reasons(path: Path = REASONS) -> dict[tuple[str, str, str, str], str]:
    """Why a mutant is left, by its module, its function, what was and what is there."""
    return {
        (module, function, was, now): entry["why"]
        for entry in tomllib.loads(path.read_text()).get("left", ())
        for module, function, was, now in entry["mutants"]
    }


def unexplained(
    result: dict[str, Any], known: dict[tuple[str, str, str, str], str]
) -> list[tuple[str, str, str, str]]:
    """The mutants that are left without a reason."""
    return [key for key in _left(result) if not known.get(key)]


def score(modules: list[dict[str, Any]]) -> float:
    """Per cent of the mutants that a test noticed."""
    return 100 * sum(one["killed"] + one["hung"] for one in modules) / sum(one["mutants"] for one in modules)


def page(result: dict[str, Any], known: dict[tuple[str, str, str, str], str]) -> str:
    """The page, made from the result and the reasons alone."""
    modules = result["modules"]
    rows = [_row(f"`{name}`", [one]) for name, one in modules.items()] + [_row("all", list(modules.values()))]
    parts = [
        HEAD,
        f"Operators: {result['operators']}.\n",
        "| module | mutants | killed | stopped | left | score, % |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n",
        "## What is left, and why\n",
    ]
    groups: dict[str, list[tuple[str, str, str, str]]] = {}
    for key in _left(result):
        groups.setdefault(known.get(key, "No reason is known."), []).append(key)
    for why, keys in groups.items():
        lines = []
        for module, function, was, now in dict.fromkeys(keys):
            times = keys.count((module, function, was, now))
            lines.append(
                f"- `{module}.{function}`{f' ({times} times)' if times > 1 else ''}: {_code(was)} → {_code(now)}"
            )
        parts.append(f"{why}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _left(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (module, each["function"], each["was"], each["now"])
        for module, one in result["modules"].items()
        for each in one["left"]
    ]


def _row(name: str, modules: list[dict[str, Any]]) -> str:
    sums = [sum(one[word] for one in modules) for word in ("mutants", "killed", "hung")]
    left = sum(len(one["left"]) for one in modules)
    return f"| {name} | {' | '.join(map(str, sums))} | {left} | {score(modules):.1f} |"


def _code(text: str) -> str:
    """As code in Markdown, whatever is in it."""
    if not text:
        return "nothing"
    return f"`` {text} ``" if "`" in text else f"`{text}`"
