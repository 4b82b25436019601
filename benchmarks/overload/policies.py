"""Who retries how: rivals in a few lines each, and ours as it is shipped.

A policy is told of every answer and decides; see `gip_resilience.simulation.fleets`. All obey the user's deadline,
which is generous to the rivals: few of them have one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from gip_resilience.simulation.fleets import Naive, Ours, Rival
from gip_resilience.simulation.troubles import DEADLINE

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from gip_resilience.simulation.clockwork import Answer, Clock


class Exponential(Rival):
    """Three more attempts after 0.5, 1 and 2 s, or what Retry-After says if that is longer."""

    attempts = 4

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        return max(_doubled(number), answer.retry_after or 0.0)


class FullJitter(Exponential):
    """The same with full jitter."""

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        return max(_doubled(number) * chance.random(), answer.retry_after or 0.0)


class OpenAI(Rival):
    """The SDK's own retries, as of openai 3.54.0 (``_should_retry``, ``_calculate_retry_timeout``).

    ``max_retries=2``; 408, 409, 429, 5xx and timeouts; Retry-After as it stands up to 120 s, beyond it no retry;
    else 0.5 s doubling to 8 s, less up to a quarter.
    """

    attempts = 3

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        status, asked = answer.status, answer.retry_after
        if status is not None and status not in {408, 409, 429} and status < 500:
            return None
        if asked is not None and asked > 0.0:
            return asked if asked <= 120.0 else None
        return _doubled(number) * (1.0 - 0.25 * chance.random())


class HttpxRetries(Rival):
    """``Retry()`` of httpx-retries 0.6.0, with POST allowed: by default it sends a POST once, as `none` does.

    ``total=10``; statuses 429, 502, 503 and 504, timeouts and network errors; Retry-After up to 120 s;
    ``backoff_factor=0`` and so no wait otherwise. It reads whole seconds only, and is told the exact moment here as
    everybody else is.
    """

    attempts = 11

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        if answer.status is not None and answer.status not in {429, 502, 503, 504}:
            return None
        return min(answer.retry_after or 0.0, 120.0)


def _doubled(number: int) -> float:
    return min(0.5 * 2.0 ** (number - 1), 8.0)


# ---- ours ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shipped:
    """The shipped engine.

    Attributes:
        settings: what differs from the default configuration, as `gip_resilience.Config.from_dict` takes it.
        shared: whether all clients ask one store, as if what one knows reached the others in no time. The budget
            is the fleet's then, and so of a fleet's size.
    """

    settings: Mapping[str, Any]
    shared: bool = False

    def fleet(self, clock: Clock, clients: int, chance: random.Random) -> Ours:
        config = gr.Config.from_dict({"deadline": DEADLINE, **self.settings})
        return Ours(config, clock, 1 if self.shared else clients, chance)


def _without(*parts: str) -> Shipped:
    return Shipped({part: {"mode": "off"} for part in parts})


POLICIES: Mapping[str, Rival | Shipped] = {
    "none": Rival(),
    "naive3": Naive(),
    "exponential": Exponential(),
    "full_jitter": FullJitter(),
    "openai": OpenAI(),
    "httpx_retries": HttpxRetries(),
    "ours": Shipped({}),
    "budget_only": _without("breaker", "gate"),
    "breaker_only": _without("budget", "gate"),
    "gate_only": _without("budget", "breaker"),
    "ours_without_budget": _without("budget"),
    "ours_without_breaker": _without("breaker"),
    "ours_without_gate": _without("gate"),
    "ours_larger_budget": Shipped({"budget": {"deposit": 0.5}}),
    "ours_shared": Shipped({"budget": {"capacity": 50.0}, "gate": {"max_waiters": 10_000}}, shared=True),
}
