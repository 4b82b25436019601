"""Who retries how: rivals in a few lines each, and ours as it is shipped.

A policy is told of every answer and decides; see `simulation.Script`. All obey the user's deadline, which is generous
to the rivals: few of them have one.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from gip_resilience.breaker import State
from gip_resilience.effects import Pause, Send
from gip_resilience.engine import story
from gip_resilience.hints import Hint, used_up
from gip_resilience.taxonomy import classify, transport_fact

from .scenarios import DEADLINE

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from gip_resilience.engine import Call
    from gip_resilience.events import CircuitChanged
    from gip_resilience.taxonomy import Fact

    from .simulation import Answer, Clock, Script

HOST = "gateway.example"
CREDENTIAL = "0123456789abcdef"


# ---- rivals --------------------------------------------------------------------------------------------------


class Rival:
    """A policy without a state. Alone it makes one attempt."""

    attempts = 1

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        """Seconds before the next attempt, after *number* of them; ``None`` gives up."""
        return None

    def fleet(self, clock: Clock, clients: int, chance: random.Random) -> Rivals:
        return Rivals(self, clock, chance)


class Rivals:
    """Clients that know nothing of each other, nor of their own last call."""

    def __init__(self, policy: Rival, clock: Clock, chance: random.Random) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance

    def call(self, client: int, model: str) -> Script:
        policy, clock = self._policy, self._clock
        deadline = clock.now + DEADLINE
        number = 0
        while True:
            number += 1
            answer = yield Send(deadline - clock.now)
            if answer is None:
                raise AssertionError("Send is answered with an Answer")
            if answer.kind == "ok":
                return True
            wait = policy.wait(number, answer, self._chance) if number < policy.attempts else None
            if wait is None or clock.now + wait >= deadline:
                return False
            yield Pause(wait)

    def tally(self) -> dict[str, Any]:
        return {}


class Naive(Rival):
    """Three more attempts, half a second apart, whatever the server says."""

    attempts = 4

    def wait(self, number: int, answer: Answer, chance: random.Random) -> float | None:
        return 0.5


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


def _error(status: int, code: str) -> Fact:
    """The fact of an error in the gateway's shape."""
    body = json.dumps({"error": {"type": "error", "code": code, "message": "-"}})
    return classify(status, {"content-type": "application/json"}, body)


@cache
def _facts() -> Mapping[str, Fact]:
    """A fact for every kind of answer; classifying each of a hundred thousand anew would only take longer."""
    return {
        "ok": classify(200),
        # A gateway that is away cannot name a code: the status decides, and it speaks of the host.
        "unavailable": classify(503, {"content-type": "text/html"}, b"<html>Service Unavailable</html>"),
        "gone": _error(502, "model_unavailable"),
        "server_error": _error(502, "model_server_error"),
        "overloaded": _error(503, "model_overloaded"),
        "limited": _error(429, "rate_limit_exceeded"),
        "silence": transport_fact("read_timeout"),
    }


def fact_of(answer: Answer, now: float) -> Fact:
    """What *answer* means, by the shipped taxonomy."""
    if answer.quota is not None:
        left, reset = answer.quota
        headers = {"x-ratelimit-remaining": str(left), "x-ratelimit-reset": f"{reset:.3f}"}
        return replace(_facts()["ok"], hint=used_up(headers, now))
    fact = _facts()[answer.kind]
    if answer.retry_after is not None:
        return replace(fact, hint=Hint(answer.retry_after, "retry-after"))
    return fact


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


class Ours:
    """Clients with a `Resilience` of their own each, and so with a store of their own.

    Args:
        config: their configuration.
        clock: the virtual one.
        brains: how many there are; the clients take turns if these are fewer.
        chance: for jitter.
    """

    def __init__(self, config: gr.Config, clock: Clock, brains: int, chance: random.Random) -> None:
        self._clock = clock
        self._opened: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._brains = [self._brain(number, config, chance) for number in range(brains)]

    def _brain(self, number: int, config: gr.Config, chance: random.Random) -> gr.Resilience:
        return gr.Resilience(config, clock=self._clock, chance=chance.random, observers=[self])

    def on_circuit_changed(self, event: CircuitChanged) -> None:
        if event.transition.after is State.OPEN:
            whose = "model" if event.circuit.model else "host"
            self._opened[f"{whose}: {event.transition.reason}"] += 1

    def call(self, client: int, model: str) -> Script:
        """What `gip_resilience.drive.drive` does, on a virtual clock."""
        call = self._brains[client % len(self._brains)].call(HOST, CREDENTIAL, model)
        try:
            fact = None
            if call.admit():
                fact = self._read((yield Send(call.timeout())))
                if fact.ok:
                    call.succeed(fact)
                    return True
            script = story(call, fact)
            effect = next(script)
            while True:
                if isinstance(effect, Send):
                    effect = script.send(self._read((yield effect)))
                elif isinstance(effect, Pause):
                    yield effect
                    effect = next(script)
                else:
                    return self._ended(call)
        finally:
            call.close()

    def _read(self, answer: Answer | None) -> Fact:
        if answer is None:
            raise AssertionError("Send is answered with an Answer")
        return fact_of(answer, self._clock.time())

    def _ended(self, call: Call) -> bool:
        if call.outcome == "success":
            return True
        report = call.report()
        self._endings[f"{report.outcome}: {report.reason}"] += 1
        return False

    def tally(self) -> dict[str, Any]:
        """Why circuits opened, and why calls were given up."""
        return {"opened": dict(sorted(self._opened.items())), "given_up": dict(sorted(self._endings.items()))}


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
