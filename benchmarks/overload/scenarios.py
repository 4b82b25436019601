"""What goes wrong: the faults, and the traffic they meet.

One model of a gateway serves all of them: 500 slots, a lognormal service time with a mean of 1 s (so 500 answers a
second), a queue of 6000, clients that give up on an attempt after 10 s, and 400 calls a second: 80 % load.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

MODELS = tuple(f"azure/openai/gpt-{number}" for number in range(5))
HUNG = MODELS[0]
"""The model that hangs, where one does."""

ATTEMPT_TIMEOUT = 10.0
DEADLINE = 60.0
"""Seconds a user waits for the call as a whole; the same for every policy."""

Fault = Literal["none", "refuse", "silence", "errors", "hang"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of trouble.

    Attributes:
        name: what it is called on the command line.
        fault: what the gateway does while it is on.
        error: the kind of answer the fault gives; a key of `policies.ANSWERS`.
        load: calls a second that all clients make together.
        fault_load: the same while the fault is on, where the fault is in the load.
        start: second at which it begins.
        length: seconds it lasts.
        after: seconds that are watched once it is over.
        slots: requests the gateway works on at once.
        queue: requests it lets wait; one more is refused at once.
        share: part of the answers that are errors (``errors``).
        held: seconds a request to the model that hangs keeps its slot (``hang``).
        period: seconds between going down and coming up again; 0 for a fault that stays.
        models: how many models the calls are spread over.
        limit: requests the provider accepts per window; 0 for no limit.
        window: seconds of the provider's fixed window; one begins at ``start``.
        quota: whether good answers say what is left of the limit, and when it is reset.
    """

    name: str
    fault: Fault = "none"
    error: str = "unavailable"
    load: float = 400.0
    fault_load: float | None = None
    start: float = 30.0
    length: float = 60.0
    after: float = 120.0
    slots: int = 500
    queue: int = 6000
    share: float = 1.0
    held: float = 0.0
    period: float = 0.0
    models: int = 1
    limit: int = 0
    window: float = 20.0
    quota: bool = False

    @property
    def end(self) -> float:
        """Second at which the fault is over."""
        return self.start + self.length

    @property
    def horizon(self) -> float:
        """Second at which the last call is made."""
        return self.end + self.after

    def rate(self, now: float) -> float:
        """Calls a second at *now*."""
        if self.fault_load is not None and self.start <= now < self.end:
            return self.fault_load
        return self.load

    def faulty(self, now: float) -> bool:
        """Whether the gateway misbehaves at *now*."""
        if self.fault == "none" or not self.start <= now < self.end:
            return False
        return not self.period or int((now - self.start) // self.period) % 2 == 0

    def scaled(self, factor: float) -> Scenario:
        """The same shape with *factor* times the traffic and a gateway of *factor* times the size."""
        return replace(
            self,
            load=self.load * factor,
            fault_load=None if self.fault_load is None else self.fault_load * factor,
            slots=max(1, round(self.slots * factor)),
            queue=round(self.queue * factor),
            limit=round(self.limit * factor),
        )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        # The gateway itself is away: a 503 without a code, which is what its error page calls "temporarily
        # unavailable" and what a proxy in front of it would say.
        Scenario("outage", "refuse"),
        # Requests go out and nothing comes back, nor do they reach the slots: clients see read timeouts.
        Scenario("silence", "silence"),
        # A model that turns a part of its requests away: `model_overloaded`, which gets four attempts.
        Scenario("brownout10", "errors", "overloaded", share=0.1),
        Scenario("brownout30", "errors", "overloaded", share=0.3),
        # Some of the model's servers are broken: `model_server_error`, which gets three.
        Scenario("brownout10_server", "errors", "server_error", share=0.1),
        Scenario("brownout30_server", "errors", "server_error", share=0.3),
        # Nothing is broken but 1000 calls a second for 500 slots: timeouts, and `model_overloaded` from a full
        # queue. What is looked at is what remains of it afterwards.
        Scenario("pulse", fault_load=1000.0, length=30.0),
        # 8000 requests per 20 s is 400 a second; 500 are wanted. `rate_limit_exceeded` with an exact Retry-After.
        # Slots are not what is short here, as in a provider that limits tokens.
        Scenario("ratelimit", load=300.0, fault_load=500.0, slots=100_000, limit=8000),
        # The gateway is large enough to live with 80 calls a second that hang for 15 s, and with no more.
        Scenario("model_hangs", "hang", slots=2000, held=15.0, models=5),
        Scenario("flapping", "refuse", period=7.0),
    )
}
