"""Runs: one policy in one trouble, and several policies side by side."""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gip_resilience.config import Config
from gip_resilience.simulation.clockwork import BINS, Clock, Simulation
from gip_resilience.simulation.fleets import Naive, Ours, Rival
from gip_resilience.simulation.measures import read_off

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gip_resilience.simulation.clockwork import Script, Trace
    from gip_resilience.simulation.measures import Figures
    from gip_resilience.simulation.troubles import Trouble

RIVALS: Mapping[str, Rival] = {"naive": Naive(), "none": Rival()}
"""What a configuration is compared with besides the default one, by the name it has in tables."""


class Counting(Protocol):
    """A fleet that can say what it did; see `gip_resilience.simulation.clockwork.Fleet`."""

    def call(self, client: int, model: int, *, repeatable: bool = False) -> Script:
        """Begin a call."""

    def tally(self) -> dict[str, Any]:
        """Why circuits opened and calls were given up, as counts by reason."""


class Result(NamedTuple):
    """What came of a policy.

    Attributes:
        policy: its name.
        figures: what was measured.
        tally: what the engine said of it: ``opened``, ``given_up``, ``streams``, each counts by reason.
        goodput: successes, per second of their ends.
        arrivals: calls made, per second.
        sends: requests sent, per second.
    """

    policy: str
    figures: Figures
    tally: dict[str, Any]
    goodput: list[int]
    arrivals: list[int]
    sends: list[int]


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of the library is logged meanwhile: thousands of circuits open, and each would say so."""
    logger = logging.getLogger("gip_resilience")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def one(
    trouble: Trouble, fleet_of: Callable[[Clock, int, random.Random], Counting], clients: int, seed: int
) -> tuple[Trace, dict[str, Any]]:
    """One run, and what the policy itself counted.

    Args:
        trouble: the traffic and the fault.
        fleet_of: makes the clients, from the clock, their number, and chance.
        clients: how many there are.
        seed: of everything that is drawn. Every policy meets the same calls at the same moments.
    """
    with quiet():
        clock = Clock()
        fleet = fleet_of(clock, clients, random.Random(f"policy {seed}"))
        trace = Simulation(trouble, clock, fleet, clients, seed).run()
    return trace, fleet.tally()


def run(
    trouble: Trouble,
    policy: Config | Rival,
    *,
    name: str,
    clients: int,
    seed: int,
    deadline: float | None,
    processes: int = 0,
) -> Result:
    """One run of a policy.

    Args:
        trouble: the traffic and the fault.
        policy: a configuration of the engine, or a rival.
        name: of the policy.
        clients: how many there are.
        seed: of everything that is drawn.
        deadline: seconds a user waits for a call; a configuration's own deadline outranks it.
        processes: how many processes the clients share; 0 for one each.
    """
    if isinstance(policy, Config):
        config = policy if policy.deadline is not None else policy.replace(deadline=deadline)

        def shipped(clock: Clock, clients: int, chance: random.Random) -> Ours:
            return Ours(config, clock, processes or clients, chance)

        trace, tally = one(trouble, shipped, clients, seed)
    else:
        trace, tally = one(trouble, partial(policy.fleet, deadline=deadline), clients, seed)
    last = int(trouble.horizon)
    return Result(
        name,
        read_off(trouble, trace),
        tally,
        trace.goodput[:last],
        trace.arrivals[:last],
        [sum(trace.sends[second * BINS : (second + 1) * BINS]) for second in range(last)],
    )


def compare(
    trouble: Trouble,
    configs: Mapping[str, Config],
    *,
    clients: int,
    seed: int,
    deadline: float | None,
    processes: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """The same calls under each of *configs*, under the default configuration, and without a library.

    Args:
        trouble: the traffic and the fault.
        configs: configurations by name.
        clients: how many clients there are.
        seed: of everything that is drawn.
        deadline: seconds a user waits for a call.
        processes: how many processes the clients share; 0 for one each.
        tell: is told the name of each policy before it is run.
    """
    policies: dict[str, Config | Rival] = {**configs, "defaults": Config(), **RIVALS}
    results = []
    for name, policy in policies.items():
        tell(name)
        results.append(
            run(
                trouble,
                policy,
                name=name,
                clients=clients,
                seed=seed,
                deadline=deadline,
                processes=processes,
            )
        )
    return results
