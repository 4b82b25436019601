"""How long a run is, how dense its samples are, and what is tolerated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import gip_resilience as gr
from gip_resilience.config import (
    BreakerConfig,
    BudgetConfig,
    GateConfig,
    ObserveConfig,
    StoreConfig,
    StreamConfig,
)

QUICK = {
    name: gr.Policy(base_delay=0.01, max_delay=0.1)
    for name in (
        "rate_limit",
        "overload",
        "server",
        "timeout",
        "stream",
        "intermediary",
        "limited",
        "connect",
    )
}
"""The default policies with waits so short that an hour holds as many retries as a year of production."""

CONFIG = gr.Config(
    policies=QUICK,
    breaker=BreakerConfig(open_time=0.3, max_open=1.0),
    gate=GateConfig(base_delay=0.05, max_delay=0.2, max_wait=2.0),
    budget=BudgetConfig(capacity=50.0, min_capacity=10.0),
    stream=StreamConfig(idle_timeout=0.5),
    observe=ObserveConfig(max_models=40, max_codes=60),
    store=StoreConfig(budget="fleet"),
    max_elapsed=10.0,
)
"""What the calls run under. The tables of names are small, so that they are full, and turned over, within seconds."""

MAX_KEYS = 24
"""Scopes and circuits a store remembers, for the same reason."""

READ_TIMEOUT = 0.6
"""Seconds the clients wait for bytes: a peer that stalls costs a caller that much."""


TURNS = 10
"""How often a call takes its turn at the interpreter between its deadline and its end: each time it is late by what a
thread that only sleeps is late by."""

SEED = 20260115


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run.

    Attributes:
        seconds: length of the run, without its beginning and end.
        seed: of everything that is left to chance.
        round: seconds of traffic between two quiet points.
        warm_up: rounds before the first sample that counts.
        tasks: callers of each awaiting client.
        threads: callers of each blocking client.
        store: whether there are populations that share their state on a Valkey, beside the one that does not.
        patience: seconds until every caller must have come to rest at a quiet point. A call may be tried for
            ``max_elapsed``, and end one attempt later.
        settling: seconds until what the last calls left to do in the background is done: closing, finalising,
            connecting anew. It takes a tenth of one as a rule.
        deadline_margin: seconds a call may take beyond its deadline; what the machine itself was seen to be late by
            is added to it, `TURNS` times.
        memory: MiB that resident memory may grow by from the first sample that counts to the last, by the slope of a
            linear regression.
        blocks: the same of the interpreter's memory blocks. They breathe by some thousands, and counters of rare
            things (a break of this kind with that model) go on filling for a while.
        objects: the same of the instances of one of our own types.
    """

    seconds: float = 3600.0
    seed: int = SEED
    round: float = 15.0
    warm_up: int = 4
    tasks: int = 4
    threads: int = 2
    store: bool = True
    patience: float = 30.0
    settling: float = 15.0
    deadline_margin: float = 1.5
    memory: float = 8.0
    blocks: int = 10_000
    objects: int = 100

    @classmethod
    def of(cls, seconds: float, seed: int) -> Settings:
        """A run of that length: a short one has shorter rounds, so that there are samples, and is tolerated more."""
        if seconds >= 600:
            return cls(seconds=seconds, seed=seed, warm_up=round(seconds / 10 / 15))
        # What is not full yet after some seconds (arenas, tables of names) looks like growth.
        found = cls(
            seconds=seconds,
            seed=seed,
            round=max(0.3, seconds / 12),
            warm_up=2,
            memory=16.0,
            objects=400,
        )
        return found if seconds >= 10 else replace(found, tasks=1, threads=1, warm_up=1)
