"""Leave to call and the report of its success, under one and more threads: what a breaker costs when all is well.

Ours is what every call asks of a store, under its lock: gate, budget, and the circuits of host and model. One circuit
of ours behind a lock is what a rival's breaker is. `Breaker` alone is the bare machine, which is not thread-safe. A
rival's calls a function that does nothing; the cost of calling it is part of its own, as it is of a program that uses
it. purgatory has no lock. The ratio is to ours.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

import gip_resilience as gr
from benchmarks.clients import HOST, MODEL
from benchmarks.measuring import Effort, Found, compare
from benchmarks.rivals import fitting
from gip_resilience._answers import success
from gip_resilience.breaker import Breaker
from gip_resilience.state import Permit, ScopeKey
from gip_resilience.taxonomy import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measuring import Run

OPERATIONS: Final = 3200
"""A turn, of all threads together."""

THREADS: Final = (1, 4, 16)


def bench(effort: Effort) -> Found:
    """Each number of threads."""
    found = Found()
    makers: dict[str, Callable[[], Any]] = {
        "pybreaker": _pybreaker,
        "purgatory": _purgatory,
        "interlock-cb": _interlock,
    }
    loops = {"ours": _ours(), "ours, one circuit": _circuit()} | fitting(makers, found.skipped, "threads")
    for threads in THREADS:
        runs = {name: threaded(loop, threads) for name, loop in loops.items()}
        subject = "1 thread" if threads == 1 else f"{threads} threads"
        found.rows += compare(subject, runs, effort, effort.times(OPERATIONS))
    found.rows += compare("the machine alone", {"Breaker": _machine()}, effort, effort.times(OPERATIONS))
    return found


def threaded(loop: Callable[[int], object], threads: int) -> Run:
    """Run *loop* in so many threads at once, which share the operations; seconds from their start to the last end."""

    def run(times: int) -> float:
        each = max(1, times // threads)
        gate = threading.Barrier(threads + 1)

        def work() -> None:
            gate.wait()
            loop(each)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        start = time.perf_counter()
        gate.wait()
        for worker in workers:
            worker.join()
        return (time.perf_counter() - start) * times / (each * threads)

    return run


def _ours() -> Callable[[int], None]:
    store, config, key, good = gr.MemoryStore(), gr.Config(), ScopeKey(HOST, "digest", MODEL), success(200)
    now = time.monotonic

    def loop(times: int) -> None:
        for _ in range(times):
            permit = store.acquire(key, config, now(), first=True)
            if isinstance(permit, Permit):
                store.report(key, permit, good, good.host, good.model, now())

    return loop


def _circuit() -> Callable[[int], None]:
    breaker, lock, good, now = Breaker(gr.BreakerConfig()), threading.Lock(), Verdict.SUCCESS, time.monotonic

    def loop(times: int) -> None:
        for _ in range(times):
            with lock:
                permit = breaker.admit(now())
            with lock:
                breaker.report(permit, good, now())

    return loop


def _machine() -> Run:
    breaker, good, now = Breaker(gr.BreakerConfig()), Verdict.SUCCESS, time.monotonic

    def run(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            breaker.report(breaker.admit(now()), good, now())
        return time.perf_counter() - start

    return run


def _nothing() -> None:
    """What is called."""


def _pybreaker() -> Callable[[int], None]:
    import pybreaker

    breaker = pybreaker.CircuitBreaker(fail_max=5)

    def loop(times: int) -> None:
        for _ in range(times):
            breaker.call(_nothing)

    return loop


def _purgatory() -> Callable[[int], None]:
    import purgatory

    breaker = purgatory.SyncCircuitBreakerFactory().get_breaker(HOST)

    def loop(times: int) -> None:
        for _ in range(times):
            with breaker:
                pass

    return loop


def _interlock() -> Callable[[int], None]:
    import interlock

    breaker = interlock.CircuitBreaker(name=HOST)

    def loop(times: int) -> None:
        for _ in range(times):
            breaker.call_sync(_nothing)

    return loop
