"""Counts: exact, bounded, and safe to read at any time."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, RateLimited, Status
from gip_resilience.metrics import MAX_NAMES, OTHER, Metrics
from harness import CHAT

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway, Reply
    from gip_resilience.testing import FakeClock
    from harness import Harness


def test_counts_are_exact_under_threads() -> None:
    """Eight threads, each thousand of everything; readers in between see sums that belong together."""
    metrics = Metrics()
    start = threading.Barrier(9)

    def count(number: int) -> None:
        start.wait(10)
        for _ in range(1000):
            metrics.succeeded("h", f"m{number % 2}")
            metrics.attempted("h", "m", "model_overloaded", retry=True)
            metrics.waited("backoff", 0.5)
            metrics.refused("circuit_open")
            metrics.opened("h", "")
            metrics.ended("h", "m", "failure")

    threads = [threading.Thread(target=count, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    start.wait(10)
    while any(thread.is_alive() for thread in threads):
        seen = metrics.snapshot()
        assert seen.sent("ok") == seen.total("success")
    for thread in threads:
        thread.join(10)

    seen = metrics.snapshot()
    assert seen.calls == {
        ("h", "m0", "success"): 4000,
        ("h", "m1", "success"): 4000,
        ("h", "m", "failure"): 8000,
    }
    assert seen.attempts == {
        ("h", "m0", "ok"): 4000,
        ("h", "m1", "ok"): 4000,
        ("h", "m", "model_overloaded"): 8000,
    }
    assert (seen.retries, seen.waits, seen.refusals, seen.opened) == (
        8000,
        {"backoff": 4000.0},
        {"circuit_open": 8000},
        {("h", ""): 8000},
    )
    assert (seen.total(), seen.total("failure"), seen.sent(), seen.sent("ok")) == (16_000, 8000, 16_000, 8000)


def test_names_are_bounded() -> None:
    """Past two hundred hosts, models or codes the rest is counted together; nothing is lost."""
    metrics = Metrics()
    for number in range(1000):
        metrics.succeeded(f"host{number}", f"model{number}")
        metrics.attempted("host0", "model0", f"code{number}", retry=False)
        metrics.opened(f"host{number}", "")
        metrics.ended(f"host{number}", f"model{number}", "failure")

    seen = metrics.snapshot()
    assert len(seen.calls) == 2 * (MAX_NAMES + 1)
    assert seen.calls[OTHER, OTHER, "success"] == 800
    assert len(seen.attempts) <= 2 * (MAX_NAMES + 1)
    assert (seen.total(), seen.sent()) == (2000, 2000)
    assert sum(seen.opened.values()) == 1000


def test_a_snapshot_does_not_change() -> None:
    """Not by what happens later, and not by its reader."""
    metrics = Metrics()
    metrics.succeeded("h", "m")
    seen = metrics.snapshot()

    metrics.succeeded("h", "m")

    assert seen.total() == 1
    assert seen != metrics.snapshot()
    with pytest.raises(TypeError):
        seen.calls["h", "m", "success"] = 7  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.retries = 7  # type: ignore[misc]


def test_it_is_ready_for_json() -> None:
    """Plain dictionaries with text for keys, and back again without a loss."""
    metrics = Metrics()
    metrics.succeeded("gateway.example:8080", "azure/openai/gpt-5-mini")
    metrics.attempted("gateway.example:8080", "", "http_502", retry=True)
    metrics.waited("hint", 1.5)
    metrics.refused("deadline")
    metrics.opened("gateway.example:8080", "")

    plain = metrics.snapshot().as_dict()

    assert json.loads(json.dumps(plain)) == plain
    assert plain == {
        "calls": {"gateway.example:8080|azure/openai/gpt-5-mini|success": 1},
        "attempts": {
            "gateway.example:8080|azure/openai/gpt-5-mini|ok": 1,
            "gateway.example:8080||http_502": 1,
        },
        "retries": 1,
        "waits": {"hint": 1.5},
        "refusals": {"deadline": 1},
        "opened": {"gateway.example:8080|": 1},
        "streams": {},
    }


@pytest.mark.parametrize(
    ("script", "outcome", "codes", "waits"),
    [
        ([], "success", {"ok": 1}, set()),
        ([Error("model_overloaded")] * 2, "success", {"model_overloaded": 2, "ok": 1}, {"backoff"}),
        ([Error("invalid_request")], "failure", {"invalid_request": 1}, set()),
        ([RateLimited(2)], "success", {"rate_limit_exceeded": 1, "ok": 1}, {"gate"}),
        ([Status(503)] * 3, "failure", {"http_503": 3}, {"backoff"}),
        ([Error("model_unavailable")], "failure", {"model_unavailable": 1}, set()),
    ],
    ids=["ok", "overloaded", "invalid", "limited", "intermediary", "unavailable"],
)
def test_one_call_is_counted_once_and_each_of_its_requests(
    script: list[Reply],
    outcome: str,
    codes: dict[str, int],
    waits: set[str],
    harness: Harness,
    gateway: Gateway,
    clock: FakeClock,
) -> None:
    """By host, model and code, whatever the client."""
    gateway.plan = FaultPlan.script(script)
    brain = gr.Resilience(clock=clock, chance=lambda: 0.9)
    with harness.open(brain) as session:
        session.post(gateway.base_url + "/chat/completions")

    host, model = gateway.url.removeprefix("http://"), CHAT["model"]
    seen = brain.metrics.snapshot()
    assert seen.calls == {(host, model, outcome): 1}
    assert seen.attempts == {(host, model, code): count for code, count in codes.items()}
    assert seen.sent() == len(gateway.requests)
    assert seen.retries == len(gateway.requests) - 1
    assert set(seen.waits) == waits
    assert sum(seen.waits.values()) == pytest.approx(sum(clock.slept))
    assert sum(seen.opened.values()) == (codes.keys() == {"model_unavailable"})


def test_the_repr_says_how_much() -> None:
    """Enough for a bug report."""
    metrics = Metrics()
    metrics.succeeded("h", "m")

    assert repr(metrics) == "<Metrics calls=1 attempts=1>"
