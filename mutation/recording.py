"""Which test runs which line, and how long each takes: the whole choice of tests once, on the code as it is."""

from __future__ import annotations

import json
import time
from array import array
from typing import TYPE_CHECKING, Any

import coverage
import pytest

from mutation import MODULES, path_of
from mutation.swapping import forget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Recorder:
    """A plugin of pytest's: a context of coverage's for each test."""

    def __init__(self) -> None:
        """Nothing is recorded until the first test."""
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._coverage = coverage.Coverage(
            data_file=None, config_file=False, include=[str(path_of(module)) for module in MODULES]
        )

    def pytest_runtestloop(self) -> None:
        """Start when all is imported: what runs at import is no test's."""
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """A test, its fixtures included, and what it would do were it the only one."""
        forget()
        self._coverage.switch_context(item.nodeid)
        start = time.process_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.process_time() - start
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails without a mutant."""
        if report.failed:
            self.failed.append(report.nodeid)

    def save(self, path: Path) -> None:
        """Write what was found."""
        self._coverage.stop()
        data = self._coverage.get_data()
        number = {test: index for index, test in enumerate(self.seconds)}
        lines = {
            module: {
                line: sorted(number[test] for test in tests if test)
                for line, tests in data.contexts_by_lineno(str(path_of(module))).items()
            }
            for module in MODULES
        }
        path.write_text(json.dumps({"failed": self.failed, "seconds": self.seconds, "lines": lines}))


class Record:
    """What was recorded.

    Attributes:
        seconds: the processor time of each test.
        failed: the tests that failed.
    """

    def __init__(self, path: Path) -> None:
        """Read it."""
        found = json.loads(path.read_text())
        self.seconds: dict[str, float] = found["seconds"]
        self.failed: list[str] = found["failed"]
        self._tests = list(self.seconds)
        # As few objects as can be: each copy of this process has to do with all of them.
        self._lines: dict[str, dict[str, array[int]]] = {
            module: {line: array("I", tests) for line, tests in lines.items()}
            for module, lines in found["lines"].items()
        }

    def tests_of(self, module: str, lines: tuple[int, int]) -> set[str]:
        """The tests that run one of these lines."""
        found: set[int] = set()
        for line in range(lines[0], lines[1] + 1):
            found.update(self._lines[module].get(str(line), ()))
        return {self._tests[number] for number in found}
