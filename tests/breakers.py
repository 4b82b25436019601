"""Breakers for tests, closed, open and half-open, and a short way to write down what they are told."""

from __future__ import annotations

from typing import Any

from gip_resilience.breaker import Breaker, State, Transition
from gip_resilience.config import BreakerConfig
from gip_resilience.taxonomy import Verdict

SUCCESS, FAILURE, TRIP, NEUTRAL = Verdict.SUCCESS, Verdict.FAILURE, Verdict.TRIP, Verdict.NEUTRAL
NOW = 1000.0
SLOW = 2.0
"""Seconds from which a call is slow, where that is set."""


def breaker(**changes: Any) -> Breaker:
    """A breaker whose open time is exactly five seconds, and for whose ratio ten calls are enough."""
    return Breaker(BreakerConfig(**{"open_jitter": 0.0, "min_calls": 10, **changes}))


def tripped(**changes: Any) -> Breaker:
    """One that opened at NOW."""
    machine = breaker(**changes)
    machine.report(machine.admit(NOW), TRIP, NOW)
    assert machine.state is State.OPEN
    return machine


def probing(**changes: Any) -> tuple[Breaker, int]:
    """One whose probe set out at NOW + 5, and the probe's ticket."""
    machine = tripped(**changes)
    ticket = machine.admit(NOW + 5.0)
    assert machine.state is State.HALF_OPEN
    assert machine.is_probe(ticket)
    return machine, ticket


def run(machine: Breaker, verdicts: str, now: float = NOW) -> list[Transition]:
    """Report one call per letter (s, f, t, n; a capital took `SLOW`), all at *now*; returns what changed."""
    words = {"s": SUCCESS, "f": FAILURE, "t": TRIP, "n": NEUTRAL}
    changes = [
        machine.report(machine.admit(now), words[letter.lower()], now, took=SLOW * letter.isupper())
        for letter in verdicts
    ]
    return [change for change in changes if change]
