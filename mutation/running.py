"""Mutants against tests: one process of the tests, in which each mutant gets a copy (a fork) to be tried in.

All that is imported and collected is so once. A copy runs the tests that reach the line, those first that killed the
function's last mutants, and ends with the first that fails.
"""

from __future__ import annotations

import os
import resource
import signal
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import pytest
from _pytest.runner import runtestprotocol

from mutation.swapping import CannotSwapError, swap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mutation.mutants import Mutant
    from mutation.recording import Record

SURVIVED, KILLED, UNFIT = 0, 1, 2
MEMORY = 1 << 30
"""Bytes that a mutant may use more than the tests do without it."""


class Outcome(NamedTuple):
    """What became of a mutant.

    Attributes:
        mutant: which.
        status: ``killed``, ``survived``, ``hung`` (and stopped), ``untested``, ``unfit`` (it could not be tried).
        killer: the test that failed.
    """

    mutant: Mutant
    status: str
    killer: str = ""


class _Try(NamedTuple):
    mutant: Mutant
    pipe: int


class Trials:
    """A plugin of pytest's that tries mutants in place of running the tests."""

    def __init__(
        self, mutants: Iterable[Mutant], record: Record, jobs: int, tell: Callable[[Outcome], None]
    ) -> None:
        """Nothing is done before pytest has collected the tests."""
        self._mutants = mutants
        self._record = record
        self._jobs = jobs
        self._tell = tell
        self._items: dict[str, pytest.Item] = {}
        self._killers: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._under_way: dict[int, _Try] = {}
        self._killer = -1

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own."""
        self._items = {item.nodeid: item for item in session.items}
        for mutant in self._mutants:
            tests = self._record.tests_of(mutant.module, mutant.statement) & self._items.keys()
            if not tests:
                self._tell(Outcome(mutant, "untested"))
                continue
            while len(self._under_way) >= self._jobs:
                self._reap()
            self._start(mutant, self._ordered(mutant, tests))
        while self._under_way:
            self._reap()
        return True

    def _ordered(self, mutant: Mutant, tests: set[str]) -> list[pytest.Item]:
        """The cheap files first, each in its own order, for the sake of its fixtures; before them, known killers."""
        first = [test for test in reversed(self._killers[mutant.module, mutant.function]) if test in tests][
            :8
        ]
        files: dict[str, list[str]] = defaultdict(list)
        for test in self._items:
            if test in tests and test not in first:
                files[test.partition("::")[0]].append(test)
        seconds = self._record.seconds
        rest = sorted(files.values(), key=lambda those: sum(seconds[test] for test in those) / len(those))
        return [self._items[test] for test in [*first, *(test for those in rest for test in those)]]

    def _start(self, mutant: Mutant, items: list[pytest.Item]) -> None:
        """Try a mutant in a copy of this process."""
        reading, writing = os.pipe()
        process = os.fork()
        if process:
            os.close(writing)
            self._under_way[process] = _Try(mutant, reading)
            return
        try:
            os.close(reading)
            self._killer = writing
            code = self._try(mutant, items)
        except BaseException:
            code = KILLED
        os._exit(code)

    def _try(self, mutant: Mutant, items: list[pytest.Item]) -> int:
        """In the copy: the tests, until one fails."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - a file of the kernel's
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        try:
            swap(mutant)
        except CannotSwapError as error:
            os.write(self._killer, str(error).encode()[:500])
            return UNFIT
        for item, following in zip(items, [*items[1:], None], strict=True):
            allowed = self._record.seconds[item.nodeid]
            # Processor time is the same on a busy machine; the other is for one that waits for what never comes.
            signal.setitimer(signal.ITIMER_PROF, 5 + 20 * allowed)
            signal.setitimer(signal.ITIMER_REAL, 60 + 200 * allowed)
            if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
                self._end(item)
        return SURVIVED

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """In the copy: a failure is all there is to know, nobody will read its traceback."""
        error = call.excinfo
        if (
            error
            and not isinstance(error.value, pytest.skip.Exception)
            and not item.get_closest_marker("xfail")
        ):
            self._end(item)

    def _end(self, item: pytest.Item) -> NoReturn:
        os.write(self._killer, item.nodeid.encode()[:500])
        os._exit(KILLED)

    def _reap(self) -> None:
        """Wait for one to end."""
        process, status = os.wait()
        if process not in self._under_way:
            return
        mutant, pipe = self._under_way.pop(process)
        said = os.read(pipe, 1000).decode(errors="replace")
        os.close(pipe)
        code = os.waitstatus_to_exitcode(status)
        if code in {-signal.SIGPROF, -signal.SIGALRM}:
            outcome = Outcome(mutant, "hung", said)
        elif code == UNFIT:
            outcome = Outcome(mutant, "unfit", said)
        elif code == SURVIVED:
            outcome = Outcome(mutant, "survived")
        else:
            outcome = Outcome(mutant, "killed", said)
            known = self._killers[mutant.module, mutant.function]
            if said:
                if said in known:
                    known.remove(said)
                known.append(said)
        self._tell(outcome)


class Profile:
    """A plugin that sets Hypothesis for what is run thousands of times.

    Always the same inputs, nothing kept; and a failure is enough, it need not be made small.
    """

    def pytest_configure(self) -> None:
        """Before the tests are imported, and not before pytest has set up its imports."""
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "mutation",
            database=None,
            derandomize=True,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutation")


def pytest_main(arguments: list[str], plugin: object) -> int:
    """Run pytest in this process."""
    options = ["--capture=no", "--override-ini=timeout=0", "--no-header", "-qq"]
    return int(pytest.main([*options, *arguments], plugins=[Profile(), plugin]))
