"""``python -m mutation run`` tries the mutants; ``python -m mutation report`` makes the page again."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from mutation import LEFT_OUT, MODULES, PAGE, PROJECT, RESULT, TESTS
from mutation.results import keep, left_of, page, reasons, unexplained
from mutation.running import Outcome, Trials, pytest_main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mutation.mutants import Mutant


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="try the mutants of all modules, or of some")
    run.add_argument(
        "modules", nargs="*", metavar="MODULE", help="one of mutation.MODULES; all of them if none"
    )
    run.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    run.add_argument(
        "--again", action="store_true", help="only those that were left, and count the others as before"
    )
    run.add_argument("--result", type=Path, default=RESULT)
    run.add_argument("--record", type=Path, help="where to keep, or to find, which test runs which line")
    commands.add_parser("report", help="make docs/mutation.md from docs/mutation.json")
    given = parser.parse_args()
    if given.command == "report":
        _report()
    else:
        _run(given.modules or list(MODULES), given.jobs, given.result, given.record, again=given.again)


def _report() -> None:
    """Write the page, and complain of what has no reason."""
    result, known = json.loads(RESULT.read_text()), reasons()
    PAGE.write_text(page(result, known))
    for key in unexplained(result, known):
        print("no reason:", *key, sep="\n    ")


def _run(modules: list[str], jobs: int, result: Path, kept: Path | None, *, again: bool) -> None:
    """Try the mutants of *modules*, and put what became of them into the result."""
    from mutation.mutants import mutants_of
    from mutation.recording import Record

    os.chdir(PROJECT)
    sys.path.insert(0, str(PROJECT / "src"))
    tests = [f"tests/test_{name}.py" for name in TESTS]
    arguments = ["-k", f"not ({LEFT_OUT})", *tests]
    with tempfile.TemporaryDirectory() as folder:
        path = kept or Path(folder) / "record.json"
        if not path.exists():
            _record(arguments, path)
        record = Record(path)
    if record.failed:
        sys.exit(f"these fail without a mutant: {', '.join(record.failed)}")
    outcomes: dict[str, list[Outcome]] = defaultdict(list)

    expected: dict[str, int] = {}

    def tell(outcome: Outcome) -> None:
        module = outcome.mutant.module
        outcomes[module].append(outcome)
        if outcome.status != "killed":
            mutant = outcome.mutant
            where = f"{outcome.status} {module}:{mutant.statement[0]} {mutant.function}"
            print(f"{where}\n    {mutant.was}\n    {mutant.now}\n    {outcome.killer}", flush=True)
        if len(outcomes[module]) == expected[module]:
            keep(result, module, outcomes[module], again=again)
            print(f"{module}: {Counter(one.status for one in outcomes[module])}", flush=True)

    def all_mutants() -> Iterator[Mutant]:
        for module in modules:
            found = list(mutants_of(module))
            if again:
                found = left_of(result, found)
            expected[module] = len(found)
            print(f"{module}: {len(found)} mutants", flush=True)
            yield from found

    code = pytest_main(arguments, Trials(all_mutants(), record, jobs, tell))
    if code:
        sys.exit(code)


def _record(arguments: list[str], path: Path) -> None:
    """Run the tests once, in a process of its own, so that this one stays as it is."""
    process = os.fork()
    if process == 0:
        from mutation.recording import Recorder

        recorder = Recorder()
        code = 1
        try:
            code = pytest_main(arguments, recorder)
            recorder.save(path)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(process, 0)
    if status:
        sys.exit("the tests do not pass without a mutant")


main()
