"""One cell: the fault is put in place, the call is made, what came of it is said, and what it left is looked for."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from faults import answers, connecting, http1, http2, processes, shared, streams, tls
from faults.scenes import SCENES, Outcome
from leftovers import Ledger, network, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.scenes import Scene
    from faults.table import Cell
    from gip_resilience.events import AttemptEnded, CallEnded, StreamBroken
    from harness import Harness, Session

MODULES = (connecting, tls, http1, http2, answers, streams, processes, shared)
"""Whose faults are registered by being imported."""

LIMIT = 10.0
"""Seconds a cell may take."""

SETTLING = 3.0
"""Seconds the system has to end the threads and sockets of what was closed."""

FILES = Path("/proc/self/fd")


class Diary:
    """What the library told of the calls of a cell."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.hops: list[str] = []
        self.outcome = ""
        self.reason = ""

    def on_attempt_ended(self, event: AttemptEnded) -> None:
        """A request was answered, or not."""
        self.codes.append(event.attempt.code)

    def on_stream_broken(self, event: StreamBroken) -> None:
        """A stream broke."""
        self.hops.append(event.hop.action)

    def on_call_ended(self, event: CallEnded) -> None:
        """A call is over. Of several, the last one is what the caller sees."""
        self.outcome, self.reason = event.report.outcome, event.report.reason


def run(cell: Cell) -> set[str]:
    """Play a cell with each of its methods; what was seen, in the words of the table."""
    return {_run(cell, method) for method in cell.fault.methods}


def _run(cell: Cell, method: str) -> str:
    began = time.monotonic()
    with nothing_left():
        said, passed = _play(cell, method)
    if passed is not None:
        with nothing_left():
            bare = _bare(cell, method)
        if bare != passed:
            said = f"altered: {passed} instead of {bare}"
    took = time.monotonic() - began
    return said if took < LIMIT else f"{said}; took {took:.1f} s"


def _play(cell: Cell, method: str) -> tuple[str, tuple[str, int, bytes] | None]:
    """What was seen; and what the caller saw, if it must be what a bare client sees."""
    diary = Diary()
    with SCENES[cell.fault.name](cell.act, cell.harness) as scene:
        scene.method = method
        ledger = scene.store or Ledger()
        brain = gr.Resilience(
            scene.config, clock=scene.clock, chance=lambda: 0.5, store=ledger, observers=[diary]
        )
        with cell.harness.open(brain, **{"trust_env": False, **scene.client}) as session:
            before = _tasks(session)
            outcome = scene.act(session)
            assert_at_rest(session)
            _settle(lambda: session.portal is None or _tasks(session) == before, "a task is left")
        if isinstance(ledger, Ledger):
            assert not ledger.out, "a permit is out"
            assert not ledger.waiting, "somebody stands in line"
        said, passed = say(diary, outcome, scene, cell.harness)
        return said, outcome.sight if passed else None


def _bare(cell: Cell, method: str) -> tuple[str, int, bytes]:
    with (
        SCENES[cell.fault.name](cell.act, cell.harness) as scene,
        cell.harness.open(**{"trust_env": False, **scene.client}) as session,
    ):
        scene.method = method
        return scene.act(session).sight


def say(diary: Diary, outcome: Outcome, scene: Scene, harness: Harness) -> tuple[str, bool]:
    """What was seen, in the words of the table; and whether it must be what a bare client sees."""
    attempts = repeated(sorted(diary.codes) if scene.together else diary.codes) or "none"
    tail = f"; stream: {repeated(diary.hops)}" if diary.hops else ""
    if scene.arrived is not None and scene.lags:
        until = time.monotonic() + SETTLING
        while scene.arrived() < len(diary.codes) and time.monotonic() < until:
            time.sleep(0.001)  # noqa: TID251 - the peer's time
    if scene.arrived is not None and (arrived := scene.arrived()) != len(diary.codes):
        tail += f"; {arrived} on the wire"
    if outcome.error is None and scene.right(outcome):
        return f"recovered: {attempts}{tail}", False
    seen = _kind(outcome.error, harness) if outcome.error is not None else str(outcome.status)
    if isinstance(outcome.error, gr.ResilienceError) and diary.outcome == "success":
        return f"failed {seen}: {attempts}; while the caller read{tail}", False
    told = gr.report(outcome.error) or diary
    if told.outcome in {"failure", "refused"}:
        return f"failed {seen}: {attempts}; {told.reason}{tail}", False
    return f"passed {seen}: {attempts}{tail}", True


def _kind(error: BaseException, harness: Harness) -> str:
    own = harness.errors.RequestException if harness.name == "requests" else harness.library.HTTPError
    name = type(error).__name__
    return name if isinstance(error, own) else f"foreign {name}"


def repeated(words: list[str]) -> str:
    """Words in a row, those that come several times counted."""
    counted = [(word, len(list(same))) for word, same in groupby(words)]
    return ", ".join(f"{word} ×{number}" if number > 1 else word for word, number in counted)


# ---- what is left ----------------------------------------------------------------------------------------------


def assert_at_rest(session: Session) -> None:
    """No connection of the client is in use."""
    if session.harness.name == "requests":
        for adapter in session.client.adapters.values():
            inner = getattr(adapter, "inner", None) or adapter
            managers = [inner.poolmanager, *inner.proxy_manager.values()]
            for pools in (manager.pools for manager in managers):
                for key in pools.keys():  # noqa: SIM118 - a container that cannot be iterated
                    queue = pools[key].pool
                    assert queue.qsize() == queue.maxsize, "a connection has not come back"
        return
    transports = [network(session), *filter(None, session.client._mounts.values())]
    for transport in transports:
        while getattr(transport, "inner", None) is not None:
            transport = transport.inner
        pool = transport._pool
        assert not pool._requests, pool
        assert all(one.is_idle() or one.is_closed() for one in pool.connections), pool.connections


def _tasks(session: Session) -> int:
    return 0 if session.portal is None else len(session.portal.call(tasks))


@contextmanager
def nothing_left() -> Iterator[None]:
    """Files and threads are as before when what is done in here has ended."""
    before = _present()
    yield
    _settle(lambda: not _present() - before, "threads or files are left")


def _settle(done: Callable[[], bool], otherwise: str) -> None:
    """What was closed ends within a moment: threads, sockets, the clients' own finalisers."""
    until = time.monotonic() + SETTLING
    polls = 0
    while not done():
        assert time.monotonic() < until, otherwise
        polls += 1
        if polls % 20 == 0:
            gc.collect()
        time.sleep(0.001)  # noqa: TID251 - they end in real time


def _present() -> Counter[str]:
    """Threads that are ours to end, and open files, as far as the system tells."""
    found: Counter[str] = Counter(
        # Trio and AnyIO keep idle threads for the next one who needs one.
        f"thread {one.name}"
        for one in threading.enumerate()
        if not one.name.startswith("Trio thread")
    )
    if FILES.is_dir():
        found["files"] = len(list(FILES.iterdir()))
    return found


def warm_up(harness: Any) -> None:
    """Open once what stays open for as long as the process: random devices, event loops' own."""
    with harness.open():
        pass
