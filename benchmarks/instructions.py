"""How many machine instructions the key paths take, counted by valgrind: no clock, so the same on a busy machine.

    python -m benchmarks check            # against benchmarks/instructions.json; fails on a rise of more than 5 %
    python -m benchmarks check --record   # write that file anew
    python -m benchmarks check --show     # print the counts and compare nothing

One process runs all paths under ``valgrind --tool=callgrind``, which writes a dump each time the process calls
``getpriority`` (nothing else does), so what lies between two marks is known exactly. Each path is warmed up and then
run in a shorter and a longer loop; the difference of the two, by the difference of their lengths, is the count of one
operation, in which neither start-up nor the marks have a part. A call's count is that of the client with ours mounted
less that of the bare client.

Counts belong to a build of Python: those of another one are not compared.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RECORDED: Final = Path(__file__).with_name("instructions.json")
TOLERANCE: Final = 0.05
"""How much a path may rise before the check fails."""

SHORT, LONG = 1, 3
"""Lengths of the two loops, in units of a path's own."""

_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)

BARE: Final = ", bare"
"""Ends the name of a call without ours: what is counted of the call with ours is what it takes more."""

Counts = dict[str, float]


class Way(NamedTuple):
    """A path that is counted: ``loop(n)`` runs it n times, *unit* is the length of the short loop."""

    name: str
    loop: Callable[[int], object]
    unit: int


# ---- what is counted -----------------------------------------------------------------------------------------


def ways() -> Iterator[Way]:
    """All of them."""
    yield from _calls()
    yield from _engine()
    yield from _answers()
    yield from _streams()


def _calls() -> Iterator[Way]:
    import httpx
    import httpx2

    from benchmarks.clients import NullAdapter, guarded, null_transport, post, session

    def again(client: Any) -> Callable[[int], object]:
        def loop(times: int) -> None:
            for _ in range(times):
                post(client)

        return loop

    def awaiting(client: Any) -> Callable[[int], object]:
        async def calls(times: int) -> None:
            for _ in range(times):
                await post(client)

        return lambda times: LOOP.run_until_complete(calls(times))

    yield Way("call, requests, bare", again(session(NullAdapter())), 20)
    yield Way("call, requests", again(guarded(session(NullAdapter()))), 20)
    for name, library in (("httpx", httpx), ("httpx2", httpx2)):
        kit: Any = library
        bare, ours = (kit.Client(transport=null_transport(library)) for _ in range(2))
        yield Way(f"call, {name}, bare", again(bare), 20)
        yield Way(f"call, {name}", again(guarded(ours)), 20)
        bare, ours = (kit.AsyncClient(transport=null_transport(library)) for _ in range(2))
        yield Way(f"call, {name} asyncio, bare", awaiting(bare), 20)
        yield Way(f"call, {name} asyncio", awaiting(guarded(ours)), 20)


def _engine() -> Iterator[Way]:
    import gip_resilience as gr
    from benchmarks.clients import HOST, MODEL, URL
    from gip_resilience._answers import success
    from gip_resilience.above import Layer
    from gip_resilience.breaker import Breaker
    from gip_resilience.state import Permit, ScopeKey
    from gip_resilience.taxonomy import Verdict

    good = success(200)
    brain = gr.Resilience()
    layer = Layer(brain, "POST", URL)

    def asked() -> tuple[str, str]:
        return "POST", URL

    def engine(times: int) -> None:
        for _ in range(times):
            call = brain.call(HOST, "digest", MODEL, asked=asked)
            call.admit()
            with call.sending(layer):
                pass
            call.succeed(good)
            call.close()

    yield Way("engine's part of a call", engine, 200)
    store, config, key = gr.MemoryStore(), gr.Config(), ScopeKey(HOST, "digest", MODEL)

    def stored(times: int) -> None:
        for _ in range(times):
            permit = store.acquire(key, config, 1.0, first=True)
            assert isinstance(permit, Permit)
            store.report(key, permit, good, good.host, good.model, 1.0)

    yield Way("store: acquire and report", stored, 200)
    breaker, success_ = Breaker(config.breaker, 0.0), Verdict.SUCCESS

    def machine(times: int) -> None:
        for _ in range(times):
            breaker.report(breaker.admit(1.0), success_, 1.0)

    yield Way("breaker: admit and report", machine, 500)


def _answers() -> Iterator[Way]:
    from benchmarks.answers import HINTS, LIMITED, UNAVAILABLE, request_body
    from gip_resilience.hints import retry_hint
    from gip_resilience.target import model_in_body
    from gip_resilience.taxonomy import classify

    def repeat(operation: Callable[[], object]) -> Callable[[int], object]:
        def loop(times: int) -> None:
            for _ in range(times):
                operation()

        return loop

    yield Way("classify: 429", repeat(lambda: classify(*LIMITED)), 50)
    yield Way("classify: 503 model_unavailable", repeat(lambda: classify(*UNAVAILABLE)), 50)
    for name, answer in HINTS.items():
        yield Way(f"hint: {name}", repeat(partial(retry_hint, *answer, 1e9)), 50)
    first, last = (request_body(1000, first=first) for first in (True, False))
    yield Way("model: first in 1 kB", repeat(lambda: model_in_body(first, "application/json")), 200)
    yield Way("model: last in 1 kB", repeat(lambda: model_in_body(last, "application/json")), 200)


def _streams() -> Iterator[Way]:
    from benchmarks.events import EVENT, NAMED_EVENT, opened
    from gip_resilience.sse import EventSplitter, SSEDecoder, parse

    splitter = EventSplitter()

    def split(times: int) -> None:
        for _ in range(times):
            for block in splitter.feed(EVENT):
                parse(block)

    yield Way("sse: split and parse an event", split, 200)
    decoder = SSEDecoder()

    def decode(times: int) -> None:
        for _ in range(times):
            decoder.feed(EVENT)

    yield Way("sse: decode an event", decode, 200)
    splice = opened()

    def handed(times: int) -> None:
        for _ in range(times):
            splice.feed(EVENT)

    yield Way("stream: an event of chat", handed, 200)
    messages = opened("/v1/messages")

    def handed_on(times: int) -> None:
        for _ in range(times):
            messages.feed(NAMED_EVENT)

    yield Way("stream: an event of messages", handed_on, 200)


# ---- in the process that is counted --------------------------------------------------------------------------

LOOP: asyncio.AbstractEventLoop


def mark() -> None:
    """Let callgrind write down what was counted since the last mark."""
    os.getpriority(os.PRIO_PROCESS, 0)


def run_counted(only: str) -> None:
    """Run the ways whose names contain *only*; print their names and units, in order."""
    global LOOP  # noqa: PLW0603 - the paths of a process share it
    LOOP = asyncio.new_event_loop()
    gc.disable()
    ran = []
    mark()
    for way in ways():
        if only not in way.name:
            continue
        way.loop(way.unit)  # caches are filled, and the interpreter has specialised its instructions
        gc.collect()
        mark()
        way.loop(SHORT * way.unit)
        mark()
        way.loop(LONG * way.unit)
        mark()
        ran.append((way.name, way.unit))
    LOOP.close()
    print(json.dumps(ran))


# ---- in the process that asks --------------------------------------------------------------------------------


def build() -> str:
    """Which build of Python on which machine: counts of another one are not comparable."""
    return f"{platform.python_version()} {platform.machine()} {platform.python_compiler()}"


def count(only: str = "") -> Counts:
    """Instructions of one operation of each path.

    Raises:
        RuntimeError: valgrind, or the process under it, failed.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--dump-before=getpriority",
                "--compress-strings=yes",
                f"--callgrind-out-file={out}",
                sys.executable,
                "-m",
                "benchmarks",
                "counted",
                only,
            ],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"valgrind failed:\n{done.stderr[-4000:]}")
        ran = json.loads(done.stdout.splitlines()[-1])
        dumps = [total(Path(f"{out}.{number + 1}").read_text()) for number in range(1 + 3 * len(ran))]
    return costs(ran, dumps)


def total(dump: str) -> int:
    """Instructions counted in a dump of callgrind.

    Raises:
        ValueError: it has no total.
    """
    found = _TOTALS.search(dump)
    if found is None:
        raise ValueError("a dump without its totals")
    return int(found[1])


def costs(ran: list[tuple[str, int]], dumps: list[int]) -> Counts:
    """From the dumps of a run to instructions per operation.

    Args:
        ran: names and units of the paths, in order.
        dumps: totals: first what came before, then of each path its warm-up, short loop and long loop.
    """
    raw = {}
    for place, (name, unit) in enumerate(ran):
        short, long = dumps[3 * place + 2], dumps[3 * place + 3]
        raw[name] = (long - short) / ((LONG - SHORT) * unit)
    return {name: round(cost - raw.get(f"{name}{BARE}", 0.0), 1) for name, cost in raw.items()}


class Verdict(NamedTuple):
    """What comparing came to: *lines* to print, and whether it *passed*."""

    passed: bool
    lines: list[str]


def judge(
    recorded: Mapping[str, float], counted: Mapping[str, float], tolerance: float = TOLERANCE
) -> Verdict:
    """Compare counts with those recorded.

    A path that rose by more than *tolerance*, is not recorded, or is recorded and gone, fails. One that fell by as
    much is said, so that it be recorded: else it could rise again unseen.
    """
    lines, passed = [], True
    for name in [*counted, *(name for name in recorded if name not in counted)]:
        if name.endswith(BARE):
            continue
        now, before = counted.get(name), recorded.get(name)
        if now is None:
            passed = False
            lines.append(f"GONE  {name}: recorded, and not counted any more (record anew)")
        elif before is None:
            passed = False
            lines.append(f"NEW   {name}: {now:,.0f}, not recorded (record anew)")
        else:
            change = now / before - 1.0
            word = "ok   "
            if now > before * (1.0 + tolerance):
                passed, word = False, "ROSE "
            elif now < before * (1.0 - tolerance):
                word = "fell "
            lines.append(f"{word} {name}: {now:,.0f} instructions, {before:,.0f} recorded ({change:+.2%})")
    return Verdict(passed, lines)


def repeated(runs: list[Counts]) -> tuple[Counts, float]:
    """The smallest count of each path in several runs, and by how much the worst of them differed at most."""
    smallest = {name: min(run[name] for run in runs) for name in runs[0]}
    worst = max(max(run[name] for run in runs) / least - 1.0 for name, least in smallest.items())
    return smallest, worst


def check(*, record: bool = False, show: bool = False, only: str = "", runs: int = 3) -> int:
    """Do as ``python -m benchmarks check`` says; the exit status."""
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed")
        return 0
    known: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    here = build()
    if record:
        counts, worst = repeated([count() for _ in range(runs)])
        known[here] = {"repeats_within": round(worst, 5), "counts": counts}
        RECORDED.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        print(f"{len(counts)} counts recorded for {here}; {runs} runs differed by {worst:.3%} at most")
        return 0
    if show:
        counts = count(only)
        for name, cost in counts.items():
            bare = counts.get(name + BARE)
            ratio = "" if bare is None else f"  (more than bare; {1 + cost / bare:.3f} of it)"
            print(f"{cost:12,.1f}  {name}{ratio}")
        return 0
    if here not in known:
        print(f"skipped: this is {here}, and counts are recorded for {'; '.join(known) or 'no other'}")
        return 0
    recorded = {name: cost for name, cost in known[here]["counts"].items() if only in name}
    verdict = judge(recorded, count(only))
    print("\n".join(verdict.lines))
    if not verdict.passed:
        print("\nIf that is meant: python -m benchmarks check --record, and say why in the commit")
    return 0 if verdict.passed else 1
