"""Counts: exact, bounded, and safe to read at any time."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience import events
from gip_resilience._names import MAX_SCOPES, OTHER
from gip_resilience.breaker import Cause, Control, State, Transition
from gip_resilience.budget import BudgetView
from gip_resilience.config import ObserveConfig
from gip_resilience.gateway import Error, FaultPlan, RateLimited, Status
from gip_resilience.metrics import Metrics, Present
from gip_resilience.snapshots import ATTEMPTS, SECONDS, Histogram
from gip_resilience.state import CircuitKey
from harness import CHAT, HARNESSES

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway, Reply
    from gip_resilience.testing import FakeClock
    from harness import Harness


HOST, MODEL = "gateway.example", "azure/openai/gpt-5-mini"
OPENED = Transition(State.CLOSED, State.OPEN, Cause.TRIPPED, 5.0)
HINT = gr.Hint(2.0, "retry-after")


def attempt(code: str, number: int = 1, elapsed: float = 0.03) -> gr.Attempt:
    """One that failed, or not."""
    return gr.Attempt(number, code, None, elapsed, 0.0, None, maybe_executed=False)


def sent(code: str, number: int = 1, *, host: str = HOST, model: str = MODEL) -> events.AttemptEnded:
    """The event of it."""
    return events.AttemptEnded(1, host, model, attempt(code, number))


def over(outcome: str, *attempts: gr.Attempt, host: str = HOST, model: str = MODEL) -> events.CallEnded:
    """The end of a call of three seconds."""
    return events.CallEnded(1, gr.CallReport(host, model, outcome, "circuit open", attempts, 3.0, 0.0, None))


def hop(action: str, code: str = "stream_reset") -> gr.Hop:
    """A break of a stream."""
    return gr.Hop(action, code, "output", 3)


WHERE = (HOST, MODEL)
CALL = (1, HOST, MODEL)


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (events.CallStarted(*CALL, "", "POST", "https://gateway.example/v1"), {}),
        (events.AttemptStarted(*CALL, 1), {}),
        (sent("ok"), {"attempts": {(*WHERE, "ok"): 1}}),
        (sent("model_overloaded", 2), {"attempts": {(*WHERE, "model_overloaded"): 1}, "retries": 1}),
        (over("success", attempt("x"), attempt("ok")), {"calls": {(*WHERE, "ok", "success"): 1}}),
        (over("failure", attempt("x")), {"calls": {(*WHERE, "x", "failure"): 1}}),
        (over("refused"), {"calls": {(*WHERE, "circuit_open", "refused"): 1}}),
        (over("cancelled"), {"calls": {(*WHERE, "none", "cancelled"): 1}}),
        (events.CallGaveUp(1, over("failure").report), {"gave_up": 1}),
        (events.RetryScheduled(*CALL, "x", 1, 4, 0.5, "backoff", False), {}),
        (events.CallPaused(*CALL, 0.5, "gate"), {"waits": {"gate": 0.5}}),
        (events.HintHonoured(*CALL, "x", HINT, 2.1), {"hints": {"honoured": 1}}),
        (events.HintRefused(*CALL, "x", HINT, "too long"), {"hints": {"refused": 1}}),
        (events.BudgetRefused(*CALL, "x", 1.0), {"refusals": {"budget": 1}}),
        (events.DeadlineReached(*CALL, 3.0, 2.5), {}),
        (events.CallRefused(*CALL, "rate_limited", 2.0), {"refusals": {"rate_limited": 1}}),
        (events.GateClosed(*WHERE, 2.0, "hint"), {"gates": {WHERE: 1}}),
        (events.GateClosed(*WHERE, 2.0, "hint", lengthened=True), {}),
        (events.GateOpened(*WHERE, 2.0), {}),
        (events.GateWaited(*CALL, 2.0), {}),
        (
            events.CircuitChanged(CircuitKey(*WHERE), OPENED),
            {"opened": {WHERE: 1}, "transitions": {(*WHERE, "open", "tripped"): 1}},
        ),
        (
            events.CircuitChanged(CircuitKey(HOST), Transition(State.OPEN, State.HALF_OPEN, Cause.PROBE)),
            {"transitions": {(HOST, "", "half_open", "probe"): 1}},
        ),
        (events.CircuitOverruled(CircuitKey(*WHERE), Control.FORCED_OPEN), {}),
        (events.ProbeSent(CircuitKey(*WHERE)), {"probes": {WHERE: 1}}),
        (events.ShadowRefused(*WHERE, "gate"), {"shadowed": {"gate": 1}}),
        (events.StateDegraded("memory", "full"), {"degraded": {"memory": 1}}),
        (events.StateRestored("memory"), {"restored": {"memory": 1}}),
        (events.StreamOpened(*CALL), {"streams": {"opened": 1}}),
        (
            events.StreamBroken(*CALL, hop("replay")),
            {"streams": {"breaks": 1, "replay": 1}, "breaks": {(*WHERE, "stream_reset", "replay"): 1}},
        ),
        (events.StreamBroken(*CALL, hop("unguarded", "ok")), {"streams": {"unguarded": 1}}),
        (events.StreamContinued(*CALL, "replay", 2), {}),
        (events.StreamDiverged(*CALL, hop("fail", "stream_diverged")), {"streams": {"diverged": 1}}),
        (events.MarkerSupplied(*CALL, hop("marker")), {}),
        (events.ConfigReloaded("gip.toml", ("deadline",)), {"reloads": {"applied": 1}}),
        (events.ConfigRejected("gip.toml", "deadline: expected a number"), {"reloads": {"rejected": 1}}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_what_each_event_counts_as(event: Any, counts: dict[str, Any]) -> None:
    """Once, in its place, and nowhere else; histograms besides."""
    metrics = Metrics()
    nothing = metrics.snapshot()

    metrics.count(event)

    seen = metrics.snapshot()
    spreads = {"call_attempts", "call_seconds", "attempt_seconds", "wait_seconds"}
    changed = {
        name: getattr(seen, name)
        for name in seen.as_dict()
        if name not in spreads and getattr(seen, name) != getattr(nothing, name)
    }
    assert changed == counts


def test_every_kind_of_event_is_in_the_table() -> None:
    """A new event is counted, or said not to be."""
    marks = test_what_each_event_counts_as.pytestmark  # type: ignore[attr-defined]  # pytest puts it there
    assert {type(row[0]) for row in marks[0].args[1]} == events.METHODS.keys()


def test_counts_are_exact_under_threads() -> None:
    """Eight threads, each thousand of everything; readers in between see sums that belong together."""
    metrics = Metrics()
    start = threading.Barrier(9)
    told: list[Any] = [
        sent("model_overloaded", 2),
        over("failure", attempt("x", elapsed=0.5), attempt("model_overloaded", 2)),
        events.CallRefused(*CALL, "circuit_open", None),
        events.CircuitChanged(CircuitKey(HOST), OPENED),
    ]

    def count(number: int) -> None:
        start.wait(10)
        for _ in range(1000):
            metrics.succeeded(HOST, f"m{number % 2}", 0.25)
            metrics.count(events.CallPaused(*CALL, 0.5, "backoff"))
            for event in told:
                metrics.count(event)

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
        (HOST, "m0", "ok", "success"): 4000,
        (HOST, "m1", "ok", "success"): 4000,
        (*WHERE, "model_overloaded", "failure"): 8000,
    }
    assert seen.attempts == {
        (HOST, "m0", "ok"): 4000,
        (HOST, "m1", "ok"): 4000,
        (*WHERE, "model_overloaded"): 8000,
    }
    assert (seen.retries, seen.waits, seen.refusals, seen.opened) == (
        8000,
        {"backoff": 4000.0},
        {"circuit_open": 8000},
        {(HOST, ""): 8000},
    )
    assert (seen.total(), seen.total("failure"), seen.sent(), seen.sent("ok")) == (16_000, 8000, 16_000, 8000)
    assert seen.call_seconds[HOST, "m0"] == spread_of(SECONDS, 0.25, times=4000)
    assert seen.attempt_seconds[HOST, "m0"] == seen.call_seconds[HOST, "m0"]
    assert seen.call_attempts[HOST, "m0"] == spread_of(ATTEMPTS, 1.0, times=4000)
    assert seen.call_attempts[WHERE] == spread_of(ATTEMPTS, 2.0, times=8000)
    assert seen.wait_seconds["backoff"] == spread_of(SECONDS, 0.5, times=8000)


def spread_of(bounds: tuple[float, ...], value: float, *, times: int) -> Histogram:
    """A histogram of one value; found without a search, so that the search is checked."""
    place = sum(value > bound for bound in bounds)
    counts = [0] * (len(bounds) + 1)
    counts[place] = times
    return Histogram(bounds, tuple(counts), value * times)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.01, 0), (0.010001, 1), (81.92, 13), (82.0, 14), (1e9, 14)],
)
def test_the_bucket_of_a_value(seconds: float, bucket: int) -> None:
    """Bounds are inclusive, as those of Prometheus; what is above the last has a bucket of its own."""
    metrics = Metrics()
    metrics.count(events.CallPaused(*CALL, seconds, "hint"))

    spread = metrics.snapshot().wait_seconds["hint"]
    assert [place for place, count in enumerate(spread.counts) if count] == [bucket]
    assert (spread.count, spread.total, spread.mean) == (1, seconds, seconds)


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 0.01), (0.25, 0.015), (0.5, 0.02), (0.75, 0.02), (0.76, 81.92), (1.0, 81.92)]
)
def test_quantiles(share: float, value: float) -> None:
    """Linear within a bucket; what lies above the last bound counts as the bound."""
    spread = Histogram(SECONDS, (0, 2, *[0] * 12, 1), 100.0)
    if share == 0.75:
        spread = Histogram(SECONDS, (0, 3, *[0] * 12, 1), 100.0)
    if share in {0.25, 0.5}:
        spread = Histogram(SECONDS, (0, 4, *[0] * 12, 4), 100.0)

    assert spread.quantile(share) == pytest.approx(value)
    assert Histogram(SECONDS, (0,) * 15, 0.0).quantile(share) == 0.0
    assert Histogram(SECONDS, (0,) * 15, 0.0).mean == 0.0


def test_names_are_bounded() -> None:
    """Past the limits the rest is counted together; nothing is lost."""
    metrics = Metrics(ObserveConfig(max_hosts=3, max_models=4, max_codes=5))
    for number in range(100):
        metrics.succeeded(f"host{number}", f"model{number}", 0.1)
        metrics.count(sent(f"code{number}"))
        metrics.count(events.CircuitChanged(CircuitKey(f"host{number}"), OPENED))
        metrics.count(over("failure", attempt(f"code{number}"), host=f"host{number}", model=f"model{number}"))

    seen = metrics.snapshot()
    assert {host for host, *_ in seen.calls} == {"host0", "host1", OTHER}
    assert len({model for _, model, *_ in seen.calls}) <= 5
    assert len({code for _, _, code in seen.attempts}) == 7  # five, the others, and ok
    assert (seen.total(), seen.sent(), sum(seen.opened.values())) == (200, 200, 100)


def test_pairs_are_bounded() -> None:
    """Two hundred hosts with two hundred models each would be forty thousand."""
    metrics = Metrics()
    for host in range(100):
        for model in range(100):
            metrics.succeeded(f"host{host}", f"model{model}", 0.1)

    seen = metrics.snapshot()
    assert len(seen.calls) == MAX_SCOPES + 1
    assert seen.calls[OTHER, OTHER, "ok", "success"] == 10_000 - MAX_SCOPES
    assert seen.total() == 10_000


def test_a_snapshot_does_not_change() -> None:
    """Not by what happens later, and not by its reader."""
    metrics = Metrics()
    metrics.succeeded(*WHERE, 0.1)
    seen = metrics.snapshot()

    metrics.succeeded(*WHERE, 0.1)

    assert seen.total() == 1
    assert seen != metrics.snapshot()
    with pytest.raises(TypeError):
        seen.calls[*WHERE, "ok", "success"] = 7  # type: ignore[index]  # read-only, which is what is tested
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.retries = 7  # type: ignore[misc]  # frozen, which is what is tested


def test_what_happened_between_two_snapshots() -> None:
    """A difference holds what happened in between and nothing else; what is there now is that of the later one."""
    now = [Present({}, {}, {(HOST, ""): BudgetView(9.0, 10.0)})]
    metrics = Metrics(present=lambda: now[0])
    metrics.succeeded(*WHERE, 0.1)
    metrics.count(events.CallPaused(*CALL, 1.0, "hint"))
    metrics.count(sent("x", 2))
    earlier = metrics.snapshot()
    now[0] = Present({}, {}, {(HOST, ""): BudgetView(7.0, 10.0)})
    metrics.succeeded(*WHERE, 5.0)
    metrics.succeeded(HOST, "another", 5.0)
    metrics.count(sent("y", 2))

    between = metrics.snapshot().diff(earlier)

    assert between.calls == {(*WHERE, "ok", "success"): 1, (HOST, "another", "ok", "success"): 1}
    assert between.attempts == {
        (*WHERE, "ok"): 1,
        (*WHERE, "y"): 1,
        (HOST, "another", "ok"): 1,
    }
    assert between.retries == 1
    assert between.waits == between.wait_seconds == {}
    assert between.call_seconds[WHERE] == spread_of(SECONDS, 5.0, times=1)
    assert between.budgets == {(HOST, ""): (7.0, 10.0)}
    now[0] = Present({}, {}, {})
    same = metrics.snapshot()
    assert same.diff(same) == Metrics().snapshot()


def test_reset_begins_at_nothing_and_loses_nothing() -> None:
    """Under threads that count on: the sum of what the resets returned and of what is left is everything."""
    metrics = Metrics()
    start = threading.Barrier(5)

    def count() -> None:
        start.wait(10)
        for _ in range(2000):
            metrics.succeeded(*WHERE, 0.1)
            metrics.count(sent("x"))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait(10)
    taken = []
    while any(thread.is_alive() for thread in threads):
        taken.append(metrics.reset())
    for thread in threads:
        thread.join(10)
    taken.append(metrics.reset())

    assert sum(seen.total() for seen in taken) == 8000
    assert sum(seen.sent() for seen in taken) == 16_000
    assert metrics.snapshot() == Metrics().snapshot()


def test_it_is_ready_for_json() -> None:
    """Plain dictionaries with text for keys, and back again without a loss."""
    metrics = Metrics()
    metrics.succeeded(*WHERE, 0.015)
    metrics.count(events.CallPaused(*CALL, 1.5, "hint"))
    metrics.count(events.CallRefused(*CALL, "deadline", None))

    plain = metrics.snapshot().as_dict()

    assert json.loads(json.dumps(plain)) == plain
    where = f"{HOST}|{MODEL}"
    spread = {"bounds": list(SECONDS), "counts": [0, 1, *[0] * 13], "total": 0.015}
    kept = {name: value for name, value in plain.items() if value not in ({}, 0)}
    assert kept == {
        "calls": {f"{where}|ok|success": 1},
        "attempts": {f"{where}|ok": 1},
        "call_attempts": {where: {"bounds": list(ATTEMPTS), "counts": [1, *[0] * 8], "total": 1.0}},
        "call_seconds": {where: spread},
        "attempt_seconds": {where: spread},
        "waits": {"hint": 1.5},
        "wait_seconds": {"hint": {"bounds": list(SECONDS), "counts": [*[0] * 8, 1, *[0] * 6], "total": 1.5}},
        "refusals": {"deadline": 1},
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
    (key,) = seen.calls
    assert key == (host, model, list(codes)[-1], outcome)
    assert seen.attempts == {(host, model, code): count for code, count in codes.items()}
    assert seen.sent() == len(gateway.requests)
    assert seen.retries == len(gateway.requests) - 1
    assert set(seen.waits) == waits
    assert sum(seen.waits.values()) == pytest.approx(sum(clock.slept))
    assert sum(seen.opened.values()) == (codes.keys() == {"model_unavailable"})


def test_the_repr_says_how_much() -> None:
    """Enough for a bug report."""
    metrics = Metrics()
    metrics.succeeded("h", "m", 0.1)

    assert repr(metrics) == "<Metrics calls=1 attempts=1>"


def test_a_snapshot_shows_circuits_gates_and_budgets(gateway: Gateway, clock: FakeClock) -> None:
    """As they are now: states and how long they lasted, closed gates, tokens; of several accounts the worst."""
    chat = gateway.base_url + "/chat/completions"
    config = gr.Config(
        breaker=gr.BreakerConfig(open_jitter=0.0), policies={"rate_limit": gr.Policy(max_hint=1.0)}
    )
    brain = gr.Resilience(config, clock=clock, chance=lambda: 0.5)
    host = gateway.url.removeprefix("http://")
    plan = [
        Error("model_overloaded"),
        Status(200),
        Error("model_unavailable"),
        RateLimited(30),
        RateLimited(60),
    ]
    gateway.plan = FaultPlan.script(plan)
    with HARNESSES[0].open(brain) as session:
        session.post(chat, json={**CHAT, "model": "good"})
        clock.advance(7.0)
        session.post(chat, json={**CHAT, "model": "dead"})
        for key in ("a", "b"):
            session.post(chat, json={**CHAT, "model": "busy"}, headers={"Authorization": f"Bearer {key}"})
        clock.advance(2.0)

    seen = brain.metrics.snapshot()

    assert set(seen.circuits) == {(host, ""), (host, "good"), (host, "dead"), (host, "busy")}
    dead = seen.circuits[host, "dead"]
    assert (dead.state, dead.opened) == (State.OPEN, 1)
    assert dead.times == {State.CLOSED: 0.0, State.OPEN: pytest.approx(2.0), State.HALF_OPEN: 0.0}
    assert seen.circuits[host, "good"].times[State.CLOSED] == pytest.approx(9.0 + sum(clock.slept))
    assert seen.closed_gates == {(host, "busy"): (pytest.approx(58.0), 0)}
    assert seen.budgets[host, "good"] == (pytest.approx(9.2), 10.0)
    assert seen.budgets[host, ""] == (pytest.approx(19.2), 20.0)
    assert json.loads(json.dumps(seen.as_dict()))["circuits"][f"{host}|dead"]["state"] == "open"
