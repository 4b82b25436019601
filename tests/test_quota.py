"""A success that used up its quota: the gate closes before the next call is refused for it.

Chance is pinned to one half: alone in line, a caller's turn comes after half of the spread, a quarter of the wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.config import GateConfig
from gip_resilience.gateway import Error, FaultPlan, Gateway, Ok
from gip_resilience.testing import FakeClock
from harness import CHAT
from matrix import Pair, chat_url, raised

if TYPE_CHECKING:
    from gip_resilience.gateway import Reply

WINDOW = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "8"}
BUCKET = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1m0s",
}
DRAFT = {"RateLimit": '"default";r=0;t=12'}
LEFT = {**WINDOW, "x-ratelimit-remaining": "1"}


def brain_of(clock: FakeClock, **gate: Any) -> gr.Resilience:
    """One whose chance is one half."""
    return gr.Resilience(gr.Config(gate=GateConfig(**gate)), clock=clock, chance=lambda: 0.5)


@pytest.mark.parametrize(
    ("headers", "gate", "slept"),
    [
        (WINDOW, {}, [8.0, 2.0]),
        (BUCKET, {}, [1.0, 0.25]),
        (BUCKET, {"exhausted": "reset"}, [60.0, 15.0]),
        (DRAFT, {}, [12.0, 3.0]),
        (LEFT, {}, []),
        (WINDOW, {"exhausted": "off"}, []),
        (WINDOW, {"mode": "off"}, []),
        (WINDOW, {"max_wait": 7.0}, []),
    ],
    ids=["window", "bucket", "bucket as window", "draft", "one left", "not heeded", "no gate", "too long"],
)
def test_the_call_after_the_last_one_waits(
    headers: dict[str, str],
    gate: dict[str, Any],
    slept: list[float],
    clients: Pair,
    gateway: Gateway,
    clock: FakeClock,
) -> None:
    """It is not sent to be refused; what the first one got is untouched."""
    gateway.plan = FaultPlan.script([Ok(headers=headers)])
    brain = brain_of(clock, **gate)

    with clients.mounted(brain) as mounted:
        first = mounted.post(chat_url(gateway))
        second = mounted.post(chat_url(gateway))

    assert (first.status, second.status) == (200, 200)
    assert clock.slept == pytest.approx(slept)
    assert brain.metrics.snapshot().sent() == len(gateway.requests) == 2
    assert first.headers.items() >= {name.lower(): value for name, value in headers.items()}.items()


@pytest.mark.parametrize(
    "script",
    [[Ok(headers=WINDOW)], [Error("model_overloaded"), Ok(headers=WINDOW)]],
    ids=["at once", "after a retry"],
)
def test_a_stream_tells_it_too(
    script: list[Reply], clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """By the headers it begins with."""
    gateway.plan = FaultPlan.script(script)
    brain = brain_of(clock)

    with clients.mounted(brain) as mounted:
        mounted.stream("POST", chat_url(gateway), json={**CHAT, "stream": True})
        clock.slept.clear()
        mounted.post(chat_url(gateway))

    assert clock.slept == pytest.approx([8.0, 2.0])


def test_a_call_that_cannot_wait_is_refused_with_the_reset(
    clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """At once, by an error that says when it makes sense to come again."""
    gateway.plan = FaultPlan.script([Ok(headers=WINDOW)])
    brain = brain_of(clock)

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))
        with brain.override(deadline=5):
            error = raised(lambda: mounted.post(chat_url(gateway)))

    assert isinstance(error, gr.RateLimitedError)
    assert error.retry_after == pytest.approx(8.0)
    assert (clock.slept, len(gateway.requests)) == ([], 1)


def test_another_models_calls_are_not_held(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """A quota is the model's, unless it is configured to be the account's."""
    gateway.plan = FaultPlan.script([Ok(headers=WINDOW)])

    with clients.mounted(brain_of(clock)) as mounted:
        mounted.post(chat_url(gateway))
        mounted.post(chat_url(gateway), json={**CHAT, "model": "mistral/large"})

    assert clock.slept == []
