"""One client on its way through the afternoon, and what came of it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gip_resilience.cli.afternoon import DEAD, Afternoon
from gip_resilience.gateway import Gateway
from gip_resilience.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience.cli.afternoon import Job
    from gip_resilience.cli.clients import Client
    from gip_resilience.events import CallEnded


@dataclass(frozen=True, slots=True)
class Score:
    """What came of one run.

    Attributes:
        client: the client's name.
        mounted: whether resilience was mounted.
        calls: calls made.
        possible: those that could be answered at all.
        answered: those that were, rightly.
        requests: requests the gateway saw.
        to_dead: those of them that asked for the dead model.
        connections: TCP connections the gateway accepted.
        opened: how often a circuit opened; ``None`` without circuits.
        waits: seconds calls were paused, by reason; empty for a bare client, where nobody counts them.
        slowest: seconds the slowest call took.
        reasons: why mounted calls that could be answered were not, with counts.
    """

    client: str
    mounted: bool
    calls: int
    possible: int
    answered: int
    requests: int
    to_dead: int
    connections: int
    opened: int | None
    waits: Mapping[str, float]
    slowest: float
    reasons: Mapping[str, int]


class Reasons:
    """An observer that counts why calls to living models failed.

    Attributes:
        counts: by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def on_call_ended(self, event: CallEnded) -> None:
        """Count the reason."""
        if event.report.outcome != "success" and event.report.model != DEAD:
            self.counts[event.report.reason] += 1


class Run:
    """One client, bare or mounted, on its way through the afternoon. Thread-safe to look at.

    Args:
        client: the client.
        afternoon: what it goes through.
        mounted: whether resilience is mounted.
    """

    def __init__(self, client: Client, afternoon: Afternoon, *, mounted: bool) -> None:
        self.client = client
        self.afternoon = afternoon
        self._reasons = Reasons()
        self.brain = Resilience(observers=[self._reasons]) if mounted else None
        self.score: Score | None = None
        self.problem: Exception | None = None
        self._over: list[tuple[Job, bool, float]] = []
        self._thread = threading.Thread(target=self._live, name=client.name, daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def join(self) -> None:
        """Wait until it is over."""
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether it is still on its way."""
        return self._thread.is_alive()

    @property
    def progress(self) -> tuple[int, int]:
        """(answered, failed) calls so far."""
        over = list(self._over)
        answered = sum(right for _, right, _ in over)
        return answered, len(over) - answered

    def _live(self) -> None:
        try:
            with Gateway(
                self.afternoon.plan, seed=self.afternoon.seed, rate_limit=self.afternoon.limit
            ) as gateway:
                self.client.begin(gateway.base_url, self.brain, self.afternoon, self._note)
                self.score = self._tally(gateway)
        except Exception as problem:
            self.problem = problem

    def _note(self, job: Job, right: bool, took: float) -> None:
        self._over.append((job, right, took))

    def _tally(self, gateway: Gateway) -> Score:
        seen = gateway.requests
        counts = None if self.brain is None else self.brain.metrics.snapshot()
        return Score(
            client=self.client.name,
            mounted=self.brain is not None,
            calls=self.afternoon.calls,
            possible=self.afternoon.possible,
            answered=sum(right for _, right, _ in self._over),
            requests=len(seen),
            to_dead=sum(request.model == DEAD for request in seen),
            connections=gateway.connections,
            opened=None if counts is None else sum(counts.opened.values()),
            waits={} if counts is None else dict(counts.waits),
            slowest=max((took for _, _, took in self._over), default=0.0),
            reasons=dict(self._reasons.counts),
        )
