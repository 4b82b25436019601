"""What goes wrong: the faults, and the traffic they meet.

One size of a gateway serves all of them: 500 slots, a lognormal service time with a mean of 1 s (so 500 answers a
second), a queue of 6000, clients that give up on an attempt after 10 s, and 400 calls a second: 80 % load.
"""

from __future__ import annotations

from gip_resilience.simulation.troubles import Trouble

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        # The gateway itself is away: a 503 without a code, which is what its error page calls "temporarily
        # unavailable" and what a proxy in front of it would say.
        Trouble("outage", "refuse"),
        # Requests go out and nothing comes back, nor do they reach the slots: clients see read timeouts.
        Trouble("silence", "silence"),
        # A model that turns a part of its requests away: `model_overloaded`, which gets four attempts.
        Trouble("brownout10", "errors", "overloaded", share=0.1),
        Trouble("brownout30", "errors", "overloaded", share=0.3),
        # Some of the model's servers are broken: `model_server_error`, which gets three.
        Trouble("brownout10_server", "errors", "server_error", share=0.1),
        Trouble("brownout30_server", "errors", "server_error", share=0.3),
        # Nothing is broken but 1000 calls a second for 500 slots: timeouts, and `model_overloaded` from a full
        # queue. What is looked at is what remains of it afterwards.
        Trouble("pulse", fault_load=1000.0, length=30.0),
        # 8000 requests per 20 s is 400 a second; 500 are wanted. `rate_limit_exceeded` with an exact Retry-After.
        # Slots are not what is short here, as in a provider that limits tokens.
        Trouble("ratelimit", load=300.0, fault_load=500.0, slots=100_000, limit=8000),
        # The gateway is large enough to live with 80 calls a second that hang for 15 s, and with no more.
        Trouble("model_hangs", "hang", slots=2000, held=15.0, models=5, hit=1),
        Trouble("flapping", "refuse", period=7.0),
    )
}
