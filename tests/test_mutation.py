"""The page about mutants says what the result says, each mutant that is left has its reason, and the tool works."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import mutation
from mutation import swapping
from mutation.results import page, reasons, score, unexplained

from gip_resilience import budget
from gip_resilience.budget import Budget
from gip_resilience.config import BudgetConfig
from gip_resilience.taxonomy import known_codes
from test_layers import PURE

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT: dict[str, Any] = json.loads(mutation.RESULT.read_text())
KNOWN = reasons()


def test_the_page_is_made_of_the_result() -> None:
    """Nothing in it is written by hand."""
    assert mutation.PAGE.read_text() == page(RESULT, KNOWN)


def test_what_is_left_has_a_reason() -> None:
    """No mutant is left for no reason, and no reason is left over."""
    left = {
        (module, each["function"], each["was"], each["now"])
        for module, one in RESULT["modules"].items()
        for each in one["left"]
    }

    assert unexplained(RESULT, KNOWN) == []
    assert set(KNOWN) - left == set()


def test_the_score() -> None:
    """At least 95 of 100 mutants are noticed; what is counted is all there is."""
    modules = RESULT["modules"]

    assert score(list(modules.values())) >= 95.0
    for one in modules.values():
        assert one["mutants"] == one["killed"] + one["hung"] + len(one["left"])


def test_every_module_is_pure_and_has_a_result() -> None:
    """What is mutated decides, and waits for nothing."""
    assert list(RESULT["modules"]) == list(mutation.MODULES)
    assert set(mutation.MODULES) <= set(PURE)
    assert all(mutation.path_of(module).is_file() for module in mutation.MODULES)


def test_every_file_of_tests_exists() -> None:
    """A file that is renamed is not left out in silence."""
    folder = Path(__file__).parent

    assert [name for name in mutation.TESTS if not (folder / f"test_{name}.py").is_file()] == []


@pytest.mark.parametrize("status", ["survived", "untested", "unfit"])
def test_a_mutant_without_a_reason_is_seen(status: str) -> None:
    """The check of the reasons can fail, and the page says that there is none."""
    left = {"function": "f", "was": "a", "now": "b", "status": status}
    result = {"operators": "", "modules": {"m": {"mutants": 2, "killed": 1, "hung": 0, "left": [left]}}}

    assert unexplained(result, {}) == [("m", "f", "a", "b")]
    assert unexplained(result, {("m", "f", "a", "b"): "it is so"}) == []
    assert "No reason is known." in page(result, {})
    assert "| `m` | 2 | 1 | 0 | 1 | 50.0 |" in page(result, {})


@pytest.fixture
def untouched() -> Iterator[None]:
    """What is exchanged comes back."""
    function = Budget.view
    code, defaults, keywords = function.__code__, function.__defaults__, function.__kwdefaults__
    yield
    function.__code__, function.__defaults__, function.__kwdefaults__ = code, defaults, keywords


def mutant(source: str, first: int = 0) -> Any:
    """A mutant of `Budget.view`."""
    line = first or Budget.view.__code__.co_firstlineno
    return SimpleNamespace(
        module="budget", function="Budget.view", lines=(line, line), source=f"class Budget:\n    {source}\n"
    )


@pytest.mark.usefixtures("untouched")
def test_a_mutant_takes_the_place_for_all_who_hold_the_function() -> None:
    """Its defaults, too, and it sees the names of the module."""
    held = Budget.view

    swapping.swap(mutant("def view(self, *, what='gone'): return what, BudgetView"))

    assert held(Budget(BudgetConfig(), 0.0)) == ("gone", budget.BudgetView)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("source", "first", "message"),
    [
        ("def view(self): return __class__", 0, "free vars"),
        ("def view(self): pass", 1, "is not to be found"),
        ("def view(self, other=nothing): pass", 0, "'nothing' is not defined"),
    ],
)
def test_what_cannot_take_the_place_is_not_counted_as_killed(source: str, first: int, message: str) -> None:
    """It is said why."""
    with pytest.raises(swapping.CannotSwapError, match=message):
        swapping.swap(mutant(source, first))


def test_caches_are_emptied() -> None:
    """What was worked out before is worked out again."""
    known_codes()
    assert known_codes.cache_info().currsize == 1

    swapping.forget()

    assert known_codes.cache_info().currsize == 0
