"""Five thousand calls in bad weather, from eight threads and an event loop: every count agrees with the server's.

The weather is seeded; who meets what depends on how threads take turns, and the sums agree whoever it is.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import httpx2
import pytest
import requests

import gip_resilience as gr
from gip_resilience import events
from gip_resilience.breaker import Cause, State
from gip_resilience.config import BudgetConfig
from gip_resilience.gateway import BreakStream, Close, Error, FaultPlan, Gateway, RateLimited, Status
from gip_resilience.gateway.plan import Rule
from gip_resilience.testing import FakeClock

if TYPE_CHECKING:
    from gip_resilience.snapshots import Snapshot

THREADS, EACH, AWAITED = 8, 400, 1800
IN_ALL = THREADS * EACH + AWAITED
SEED = 20260115

WEATHER = FaultPlan(
    rules=(
        Rule(Error("model_unavailable"), model="dead", p=0.9),
        Rule(BreakStream(events=1), model="stream-*", p=0.1),
        Rule(BreakStream(events=1, how="error"), model="stream-*", p=0.05),
        Rule(BreakStream(events=5), model="stream-*", p=0.02),
        Rule(Error("model_overloaded"), p=0.08),
        Rule(Error("model_overloaded", retry_after=2), p=0.04),
        Rule(Error("model_server_error"), p=0.03),
        Rule(Error("invalid_request"), p=0.03),
        Rule(RateLimited(1), p=0.02),
        Rule(Close("request"), p=0.02),
        Rule(Status(502, "html"), p=0.02),
    )
)
MODELS = ("dead", "a", "b", "c", "stream-a", "stream-b")

CODES = {
    "ok": "ok",
    "close": "connection_lost",
    "status": "http_502",
    "break_stream": "stream_terminated",
}
"""What we call a reply that carries no code."""


class Ledger:
    """Counts events by their type, and what some of them say."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.kinds: Counter[type] = Counter()
        self.said: Counter[Any] = Counter()

    def note(self, event: Any) -> None:
        """Count it."""
        with self._lock:
            self.kinds[type(event)] += 1
            match event:
                case events.AttemptEnded():
                    self.said["code", event.model, event.attempt.code] += 1
                case events.CallEnded():
                    self.said["outcome", event.report.outcome] += 1
                    self.said["attempts"] += len(event.report.attempts)
                case events.CallRefused():
                    self.said["refused", event.kind] += 1
                case events.StreamBroken():
                    self.said["stream", event.hop.action] += 1


for _name in events.METHODS.values():
    setattr(Ledger, _name, Ledger.note)


class Storm(NamedTuple):
    """What is left when it is over."""

    seen: Snapshot
    ledger: Ledger
    callers: Counter[str]
    served: Counter[tuple[str, str]]
    slept: float


def _body(model: str, number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"call {number}"}]
    return {"model": model, "messages": messages, "stream": model.startswith("stream")}


def _outcome(status: int, content: bytes) -> str:
    """An error may come inside a stream, which then has no marker at its end."""
    whole = not content.startswith(b"data:") or content.endswith(b"data: [DONE]\n\n")
    return "success" if status == 200 and whole else "failure"


def _blocking(client: Any, url: str, seed: int) -> Counter[str]:
    """What one thread's callers saw."""
    draw = random.Random(seed)
    seen: Counter[str] = Counter()
    for number in range(EACH):
        body = _body(draw.choice(MODELS), number)
        try:
            response = client.post(url, json=body, timeout=10)
            seen[_outcome(response.status_code, response.content)] += 1
        except (requests.RequestException, httpx.HTTPError, httpx2.HTTPError) as error:
            seen[
                "refused" if isinstance(error, gr.CircuitOpenError | gr.RateLimitedError) else "failure"
            ] += 1
    return seen


async def _awaiting(brain: gr.Resilience, url: str) -> Counter[str]:
    draw = random.Random(SEED)
    seen: Counter[str] = Counter()
    bodies = [_body(draw.choice(MODELS), number) for number in range(AWAITED)]
    async with httpx.AsyncClient(timeout=10) as client:
        gr.mount(client, brain)

        async def work() -> None:
            while bodies:
                try:
                    response = await client.post(url, json=bodies.pop())
                    seen[_outcome(response.status_code, response.content)] += 1
                except (gr.CircuitOpenError, gr.RateLimitedError):
                    seen["refused"] += 1
                except httpx.HTTPError:
                    seen["failure"] += 1

        await asyncio.gather(*(work() for _ in range(16)))
    return seen


@pytest.fixture(scope="module")
def storm() -> Storm:
    """One storm for all the tests: it takes some seconds."""
    clock, ledger = FakeClock(), Ledger()
    config = gr.Config(budget=BudgetConfig(capacity=40, min_capacity=40))
    brain = gr.Resilience(config, clock=clock, observers=[ledger], chance=random.Random(SEED).random)
    with Gateway(plan=WEATHER, seed=SEED) as gateway, ThreadPoolExecutor(THREADS + 1) as pool:
        url = gateway.url + "/v1/chat/completions"
        clients: list[Any] = [requests.Session() if n % 2 else httpx2.Client() for n in range(THREADS)]
        for client in clients:
            gr.mount(client, brain)
        running = [pool.submit(_blocking, client, url, SEED + n) for n, client in enumerate(clients)]
        running.append(pool.submit(asyncio.run, _awaiting(brain, url)))
        callers = sum((future.result(120) for future in running), Counter[str]())
        for client in clients:
            client.close()
        served = Counter(
            (seen.model or "", seen.code or CODES[seen.reply]) for seen in gateway.requests if seen.method
        )
    return Storm(brain.metrics.snapshot(), ledger, callers, served, sum(clock.slept))


def test_every_request_the_server_saw_is_counted_with_its_code(storm: Storm) -> None:
    """By model and code, to the unit; and the sum."""
    ours = Counter({(model, code): count for (_, model, code), count in storm.seen.attempts.items()})

    assert ours == storm.served
    assert storm.seen.sent() == sum(storm.served.values()) > IN_ALL * 0.8


def test_every_call_is_counted_with_what_its_caller_saw(storm: Storm) -> None:
    """Five thousand, by outcome."""
    outcomes = Counter({name: storm.seen.total(name) for name in ("success", "failure", "refused")})

    assert sum(storm.callers.values()) == storm.seen.total() == IN_ALL == 5000
    assert outcomes == storm.callers
    assert min(outcomes.values()) > 50


def test_histograms_count_what_the_counters_count(storm: Storm) -> None:
    """Each call and each request is in one bucket; seconds of waits are seconds slept."""
    seen = storm.seen

    assert sum(spread.count for spread in seen.call_seconds.values()) == IN_ALL
    assert sum(spread.count for spread in seen.call_attempts.values()) == IN_ALL
    assert sum(spread.total for spread in seen.call_attempts.values()) == seen.sent()
    assert sum(spread.count for spread in seen.attempt_seconds.values()) == seen.sent()
    assert sum(seen.waits.values()) == pytest.approx(storm.slept)
    assert {reason: spread.total for reason, spread in seen.wait_seconds.items()} == pytest.approx(
        dict(seen.waits)
    )


def test_events_tell_what_the_counters_count(storm: Storm) -> None:
    """To the unit, though nobody locks the two together."""
    seen, kinds, said = storm.seen, storm.ledger.kinds, storm.ledger.said

    assert kinds[events.CallStarted] == kinds[events.CallEnded] == IN_ALL
    assert kinds[events.AttemptStarted] == kinds[events.AttemptEnded] == said["attempts"] == seen.sent()
    assert {(m, c): n for (kind, m, c), n in _triples(said) if kind == "code"} == dict(storm.served)
    assert {name: said["outcome", name] for name in ("success", "failure", "refused")} == dict(storm.callers)
    assert kinds[events.RetryScheduled] >= seen.retries
    assert kinds[events.CallGaveUp] == seen.gave_up > 0
    assert (kinds[events.HintHonoured], kinds[events.HintRefused]) == (
        seen.hints.get("honoured", 0),
        seen.hints.get("refused", 0),
    )
    assert kinds[events.BudgetRefused] == seen.refusals.get("budget", 0)
    assert {
        kind: said["refused", kind] for kind in ("circuit_open", "rate_limited") if said["refused", kind]
    } == {kind: count for kind, count in seen.refusals.items() if kind != "budget"}
    assert kinds[events.ProbeSent] == sum(seen.probes.values()) > 0
    assert kinds[events.CircuitChanged] == sum(seen.transitions.values())
    assert kinds[events.StreamOpened] == seen.streams["opened"]
    assert {action: said["stream", action] for action in ("restart", "fail")} == {
        action: seen.streams[action] for action in ("restart", "fail")
    }


def _triples(said: Counter[Any]) -> list[tuple[tuple[str, str, str], int]]:
    return [(key, count) for key, count in said.items() if isinstance(key, tuple) and len(key) == 3]


def test_circuits_ended_where_their_transitions_lead(storm: Storm) -> None:
    """As often opened as counted; each state was entered as often as left, or once more."""
    for (host, model), circuit in storm.seen.circuits.items():
        moves = {
            (state, cause): n
            for (h, m, state, cause), n in storm.seen.transitions.items()
            if (h, m) == (host, model)
        }
        opened = sum(count for (state, _), count in moves.items() if state == State.OPEN)
        closed = sum(count for (state, _), count in moves.items() if state == State.CLOSED)
        half = moves.get((State.HALF_OPEN, Cause.PROBE), 0)
        assert circuit.opened == opened == storm.seen.opened.get((host, model), 0)
        first = opened - moves.get((State.OPEN, Cause.PROBE_FAILED), 0)
        now = circuit.state
        assert first - closed == (now is not State.CLOSED)
        assert opened - half == (now is State.OPEN)
