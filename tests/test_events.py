"""What observers are told: in order, in the caller's thread, and without harm to the call."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience._announcer import Announcer
from gip_resilience.events import METHODS, CallEnded, CircuitChanged, GateWaited, RetryScheduled
from gip_resilience.gateway import Close, Error, FaultPlan, RateLimited
from harness import CHAT, HARNESSES

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway, Reply
    from gip_resilience.testing import FakeClock
    from harness import Harness


class Diary:
    """Writes everything down."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.threads: set[int] = set()

    def _write(self, event: Any) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())

    on_retry_scheduled = on_gate_waited = on_circuit_changed = on_stream_broken = on_call_ended = _write

    def words(self) -> list[str]:
        """The events in short."""
        return [_word(event) for event in self.events]


def _word(event: Any) -> str:
    match event:
        case RetryScheduled():
            return f"retry {event.attempt}/{event.max_attempts} {event.code} {event.reason}"
        case GateWaited():
            return "gate"
        case CircuitChanged():
            kind = "model" if event.circuit.model else "host"
            return f"{kind} {event.transition.before} -> {event.transition.after}"
        case CallEnded():
            return f"{event.report.outcome} {len(event.report.attempts)}"
    raise AssertionError(event)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([], ["success 1"]),
        ([Error("invalid_request")], ["failure 1"]),
        (
            [Error("model_overloaded")] * 2,
            ["retry 1/4 model_overloaded backoff", "retry 2/4 model_overloaded backoff", "success 3"],
        ),
        (
            [Error("model_overloaded", retry_after=3), Error("model_server_error")],
            ["retry 1/4 model_overloaded hint", "retry 2/4 model_server_error backoff", "success 3"],
        ),
        ([RateLimited(2)], ["retry 1/4 rate_limit_exceeded gate", "gate", "success 2"]),
        ([Close("request")], ["retry 1/2 connection_lost backoff", "success 2"]),
        ([Error("model_unavailable")], ["model closed -> open", "failure 1"]),
    ],
    ids=["ok", "invalid", "overloaded", "hint", "limited", "lost", "unavailable"],
)
def test_the_events_of_a_call_in_order(
    script: list[Reply], words: list[str], harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The same under every client."""
    diary = Diary()
    gateway.plan = FaultPlan.script(script)
    with harness.open(gr.Resilience(clock=clock, observers=[diary], chance=lambda: 0.9)) as session:
        session.post(gateway.base_url + "/chat/completions")

    assert diary.words() == words
    assert len(diary.threads) == 1


def test_a_circuit_from_its_opening_to_its_mending(gateway: Gateway, clock: FakeClock) -> None:
    """Opened by a trip, refused, probed in vain, probed again, closed."""
    diary = Diary()
    gateway.plan = FaultPlan.script([Error("model_unavailable")] * 2)
    with HARNESSES[0].open(gr.Resilience(clock=clock, observers=[diary])) as session:
        url = gateway.base_url + "/chat/completions"
        session.post(url)
        with pytest.raises(gr.CircuitOpenError):
            session.post(url)
        clock.advance(10.0)
        session.post(url)
        clock.advance(10.0)
        session.post(url)

    assert diary.words() == [
        "model closed -> open",
        "failure 1",
        "refused 0",
        "model open -> half_open",
        "model half_open -> open",
        "failure 1",
        "model open -> half_open",
        "model half_open -> closed",
        "success 1",
    ]


def test_a_call_that_meets_a_closed_gate_says_so(gateway: Gateway, clock: FakeClock) -> None:
    """Before its first attempt: until it opens, and until its turn."""
    diary = Diary()
    brain = gr.Resilience(clock=clock, observers=[diary], chance=lambda: 0.9)
    gateway.plan = FaultPlan.script([RateLimited(30)])
    with HARNESSES[0].open(brain) as session:
        url = gateway.base_url + "/chat/completions"
        with brain.override(rate_limit=gr.Policy(max_attempts=1)):
            session.post(url)
        session.post(url)

    assert diary.words() == ["failure 1", "gate", "gate", "success 1"]
    waits = [event for event in diary.events if isinstance(event, GateWaited)]
    where = (gateway.url.removeprefix("http://"), CHAT["model"])
    assert {(waited.host, waited.model) for waited in waits} == {where}
    assert clock.slept == [waited.wait for waited in waits] == [30.0, pytest.approx(13.5)]


def test_events_are_values(gateway: Gateway, clock: FakeClock) -> None:
    """Frozen, with a repr that says what happened and tells no secret."""
    diary = Diary()
    gateway.plan = FaultPlan.script([Error("model_overloaded", message="tell nobody")])
    with HARNESSES[0].open(gr.Resilience(clock=clock, observers=[diary])) as session:
        session.post(
            gateway.base_url + "/chat/completions", headers={"Authorization": "Bearer not-for-your-eyes"}
        )

    retry = diary.events[0]
    with pytest.raises(AttributeError):
        retry.wait = 0.0
    assert "model_overloaded" in repr(retry)
    assert not any(word in repr(diary.events) for word in ("tell nobody", "not-for-your-eyes", "hello"))


# ---- observers that misbehave ----------------------------------------------------------------------------


class Clumsy:
    """Raises whenever it is told anything."""

    def on_retry_scheduled(self, event: RetryScheduled) -> None:
        """Fail."""
        raise RuntimeError("clumsy")

    on_call_ended = on_circuit_changed = on_retry_scheduled  # type: ignore[assignment]


def test_an_observer_that_raises_is_reported_once_and_disturbs_nobody(
    gateway: Gateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on, the others are told, and the log is not flooded."""
    diary = Diary()
    gateway.plan = FaultPlan.script([Error("model_overloaded")] * 2)
    brain = gr.Resilience(clock=clock, observers=[Clumsy(), diary])
    with caplog.at_level(logging.ERROR, "gip_resilience"), HARNESSES[0].open(brain) as session:
        answer = session.post(gateway.base_url + "/chat/completions")
        session.post(gateway.base_url + "/chat/completions")

    assert answer.status == 200
    assert diary.words()[-1] == "success 1"
    assert len(diary.events) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "an observer failed; its further failures are not reported"
    ]
    assert caplog.records[0].exc_info is not None


def test_each_broken_observer_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Once each."""
    announcer = Announcer([Clumsy(), Clumsy()])
    event = RetryScheduled(1, "h", "m", "c", 1, 2, 0.0, "backoff", maybe_executed=False)
    for _ in range(3):
        announcer.tell(event)

    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "observer", [object(), "text", print, type("Almost", (), {"on_retry_scheduled": 7})()]
)
def test_what_observes_nothing_is_refused(observer: object) -> None:
    """It would be a silent mistake; the message names the methods."""
    with pytest.raises(
        TypeError,
        match=", ".join(METHODS.values()),
    ):
        gr.Resilience(observers=[observer])


def test_an_event_that_nobody_wants_is_not_made() -> None:
    """A healthy call then costs no report."""

    class OnlyCircuits:
        def on_circuit_changed(self, event: CircuitChanged) -> None: ...

    announcer = Announcer([OnlyCircuits()])

    assert announcer.wants(CircuitChanged)
    assert not announcer.wants(CallEnded)


def test_an_operator_who_closes_a_circuit_is_told_of_like_any_change(
    gateway: Gateway, clock: FakeClock
) -> None:
    """Once for each that was not closed already."""
    diary = Diary()
    brain = gr.Resilience(clock=clock, observers=[diary])
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    with HARNESSES[0].open(brain) as session:
        session.post(gateway.base_url + "/chat/completions")
    diary.events.clear()

    brain.breakers.reset()
    brain.breakers.reset()

    assert diary.words() == ["model open -> closed"]
    assert diary.events[0].transition.reason == "reset"
