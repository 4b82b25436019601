"""A stream as a call: its circuit, budget, gate, deadline, attempts, and what is told about it, under each client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from endpoints import CHAT, RESPONSES
from gip_resilience.breaker import State
from gip_resilience.config import BodyConfig, BreakerConfig, BudgetConfig, GateConfig, StreamConfig
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Gateway, RateLimited
from harness import CHAT as ASKED
from harness import HARNESSES
from leftovers import THEIRS
from live import DONE, EXACT, STREAMED, Live
from replays import ROLE, chat
from sending import open_session
from splicing import response, run
from streamed import Play, Script, ask, asked_once, brain, deltas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.events import StreamBroken
    from gip_resilience.testing import FakeClock
    from harness import Harness

MODEL = ASKED["model"]
BROKEN = BreakStream(events=4)
ONCE = {"stream": gr.Policy(max_attempts=1)}
IN_A_ROW = BreakerConfig(consecutive=3, open_jitter=0.0)


def host(gateway: Gateway) -> str:
    """The gateway as circuits name it."""
    return gateway.url.removeprefix("http://")


# ---- circuits --------------------------------------------------------------------------------------------


def test_a_broken_stream_counts_when_it_ends(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Against the model, once per attempt, and not while it still flows; the host has answered and is well."""
    gateway.plan = FaultPlan.always(BROKEN)
    resilience = brain(clock, breaker=IN_A_ROW, policies=ONCE)
    with open_session(harness, resilience) as session:
        for _ in range(2):
            assert ask(session, gateway.url + CHAT.path, STREAMED).error is not None
        with Live(session, gateway.url + CHAT.path) as stream:
            stream.take()
            assert resilience.breakers[host(gateway), MODEL].state is State.CLOSED
            with pytest.raises(gr.StreamInterruptedError):
                stream.read()
        assert resilience.breakers[host(gateway), MODEL].state is State.OPEN
        assert resilience.breakers[host(gateway), ""].state is State.CLOSED

        gateway.clear()
        error = ask(session, gateway.url + CHAT.path, STREAMED).error
        assert isinstance(error, gr.CircuitOpenError)
        assert len(gateway.requests) == 0


def test_a_whole_stream_counts_as_a_success(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """It ends a row of failures, at its marker."""
    gateway.plan = FaultPlan.script([BROKEN, BROKEN])
    resilience = brain(clock, breaker=IN_A_ROW, policies=ONCE)
    with open_session(harness, resilience) as session:
        for _ in range(3):
            ask(session, gateway.url + CHAT.path, STREAMED)
        gateway.plan = FaultPlan.always(BROKEN)
        for _ in range(2):
            ask(session, gateway.url + CHAT.path, STREAMED)
    assert resilience.breakers[host(gateway), MODEL].state is State.CLOSED


@THEIRS
def test_a_stream_that_was_left_says_nothing(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Neither good nor bad: the row of failures goes on."""
    gateway.plan = FaultPlan.always(BROKEN)
    resilience = brain(clock, breaker=IN_A_ROW, policies=ONCE)
    with open_session(harness, resilience) as session:
        for _ in range(2):
            ask(session, gateway.url + CHAT.path, STREAMED)
        gateway.plan = FaultPlan()
        for _ in range(3):
            with Live(session, gateway.url + CHAT.path) as stream:
                stream.take()
            left = gr.report(stream.response)
            assert left is not None
            assert (left.outcome, left.reason) == ("cancelled", "the stream was closed before its end")
        assert resilience.breakers[host(gateway), MODEL].state is State.CLOSED
        gateway.plan = FaultPlan.always(BROKEN)
        ask(session, gateway.url + CHAT.path, STREAMED)
    assert resilience.breakers[host(gateway), MODEL].state is State.OPEN


@THEIRS
def test_a_probe_that_was_left_makes_room_for_another(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """At once: a half-open circuit lets one stream through at a time, and one that ends well closes it."""
    gateway.plan = FaultPlan.always(BROKEN)
    resilience = brain(clock, breaker=IN_A_ROW, policies=ONCE)
    with open_session(harness, resilience) as session:
        for _ in range(3):
            ask(session, gateway.url + CHAT.path, STREAMED)
        gateway.plan = FaultPlan()
        clock.advance(6.0)
        with Live(session, gateway.url + CHAT.path) as probe:
            probe.take()
            assert resilience.breakers[host(gateway), MODEL].state is State.HALF_OPEN
            refused = ask(session, gateway.url + CHAT.path, STREAMED)
            assert isinstance(refused.error, gr.CircuitOpenError)
        assert ask(session, gateway.url + CHAT.path, STREAMED).error is None
    assert resilience.breakers[host(gateway), MODEL].state is State.CLOSED


def test_a_circuit_that_opens_meanwhile_ends_the_call(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """No further attempt goes through it; the error is that of the stream."""
    gateway.plan = FaultPlan.always(BreakStream(events=1))
    resilience = brain(clock, breaker=BreakerConfig(consecutive=2))

    outcome = asked_once(harness, resilience, gateway.url + CHAT.path, STREAMED)

    assert outcome.interruption.code == "stream_terminated"
    assert len(gateway.requests) == 2
    assert outcome.report.reason == "circuit open"


# ---- what further attempts cost --------------------------------------------------------------------------


@pytest.mark.parametrize("events", [1, 4])
def test_without_budget_a_stream_is_not_mended(
    harness: Harness, gateway: Gateway, clock: FakeClock, events: int
) -> None:
    """Each attempt to go on is paid for like any retry."""
    gateway.plan = FaultPlan.script([BreakStream(events=events)] * 2)
    budget = BudgetConfig(capacity=1.0, min_capacity=1.0)

    outcome = asked_once(harness, brain(clock, budget=budget), gateway.url + CHAT.path, EXACT)

    assert outcome.interruption.code == "stream_terminated"
    assert outcome.report.reason == "retry budget exhausted"
    assert [(hop.action, hop.reason) for hop in outcome.report.hops][-1] == ("fail", "retry budget exhausted")
    assert len(gateway.requests) == 2


def test_a_closed_gate_is_waited_for(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """The attempt to go on is rate limited: it waits as long as the server says, and then goes on."""
    gateway.plan = FaultPlan.script([BROKEN, RateLimited(retry_after=7)])
    resilience = brain(clock, gate=GateConfig(spread=0.0))

    outcome = asked_once(harness, resilience, gateway.url + CHAT.path, EXACT)

    assert outcome.error is None
    assert [attempt.code for attempt in outcome.report.attempts] == [
        "stream_terminated",
        "rate_limit_exceeded",
        "ok",
    ]
    assert len(clock.slept) >= 2
    assert sum(clock.slept) >= 7.0


@pytest.mark.parametrize(
    ("plan", "codes"),
    [
        ([Error("model_overloaded"), BreakStream(), BROKEN], ["model_overloaded", *["stream_terminated"] * 2]),
        ([BROKEN, Error("model_overloaded"), BROKEN], ["stream_terminated", "model_overloaded", "stream_terminated"]),
        ([BreakStream(events=1), Error("model_overloaded"), Error("model_overloaded")], None),
        ([Error("model_overloaded")] * 2 + [BROKEN], None),
    ],
)  # fmt: skip
def test_a_call_has_one_number_of_attempts(
    harness: Harness, gateway: Gateway, clock: FakeClock, plan: list[Any], codes: list[str] | None
) -> None:
    """Before the headers and after them together: failures that take turns do not add up."""
    gateway.plan = FaultPlan.script([*plan, BROKEN, BROKEN])
    resilience = brain(clock, policies={"overload": gr.Policy(max_attempts=3)})

    outcome = asked_once(harness, resilience, gateway.url + CHAT.path, EXACT)

    assert len(gateway.requests) == len(outcome.report.attempts) == 3
    assert outcome.report.reason == "all 3 attempts used"
    assert outcome.interruption.attempts == 3
    assert codes is None or [attempt.code for attempt in outcome.report.attempts] == codes


def test_a_failure_before_and_one_within_are_both_mended(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """While attempts are left."""
    gateway.plan = FaultPlan.script([Error("model_overloaded"), BROKEN])

    outcome = asked_once(harness, brain(clock), gateway.url + CHAT.path, EXACT)

    assert outcome.error is None
    assert [attempt.code for attempt in outcome.report.attempts] == [
        "model_overloaded",
        "stream_terminated",
        "ok",
    ]


def test_an_sdk_that_retries_by_itself_never_retries_a_stream(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """So we do, whatever it says of its own retries."""
    gateway.plan = FaultPlan.script([BROKEN])
    headers = {"x-stainless-retry-count": "1"}

    outcome = asked_once(harness, brain(clock), gateway.url + CHAT.path, EXACT, headers=headers)

    assert outcome.error is None
    assert outcome.actions == ["replay"]


@pytest.mark.parametrize("background", [False, True])
def test_a_body_that_is_gone(harness: Harness, clock: FakeClock, background: bool) -> None:
    """It was not remembered, so the request cannot be sent again; to ask for the rest takes no body."""
    head = response(0, "response.created", background=background)
    rest = run(1, "response.output_text.delta", delta="a") + response(2, "response.completed")

    async def apieces() -> Any:
        yield b'{"model": "m"'
        yield b' "padding": "0123456789"}'

    def pieces() -> Iterator[bytes]:
        yield b'{"model": "m"'
        yield b' "padding": "0123456789"}'

    with Script(Play(head, "fin"), Play(rest)) as server:
        resilience = brain(clock, body=BodyConfig(replay_limit=16))
        with open_session(harness, resilience) as session:
            body = session.content(apieces() if harness.colour == "async" else pieces())
            outcome = ask(session, server.url + RESPONSES.path, **body)
        sent = len(server.heard)

    if background:
        assert outcome.content == head + rest
        assert sent == 2
    else:
        assert outcome.interruption.code == "stream_reset"
        assert outcome.report.reason == "the body cannot be sent again"
        assert sent == 1


# ---- time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "reason"),
    [({"deadline": 4.0}, "the deadline would pass"), ({"max_elapsed": 4.0}, "max_elapsed would pass")],
)
def test_a_wait_that_would_be_too_long_is_not_begun(
    harness: Harness, clock: FakeClock, config: dict[str, Any], reason: str
) -> None:
    """The server asks for five seconds."""
    with Script(Play(b"retry: 5000\n\n" + chat(ROLE), "fin")) as server:
        outcome = asked_once(harness, brain(clock, **config), server.url + CHAT.path, EXACT)
        assert len(server.heard) == 1

    assert outcome.interruption.code == "stream_reset"
    assert outcome.report.reason == reason
    assert clock.slept == []


def test_while_a_stream_flows_no_time_is_lost(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """``max_elapsed`` is for waits and failures: an answer of an hour is mended, and twice."""
    gateway.plan = FaultPlan.script([BROKEN, BROKEN])
    with (
        open_session(harness, brain(clock, max_elapsed=5.0)) as session,
        Live(session, gateway.url + CHAT.path, EXACT) as stream,
    ):
        stream.take()
        clock.advance(3600.0)
        content = stream.read()
        told = gr.report(stream.response)

    assert deltas(content)["done"] == 1
    assert told is not None
    assert told.outcome == "success"
    assert told.elapsed >= 3600.0


def test_when_the_deadline_has_passed_the_stream_is_given_up(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """A deadline is for the whole call: what was handed up stays, and the error says so."""
    with (
        open_session(harness, brain(clock, deadline=5.0)) as session,
        Live(session, gateway.url + CHAT.path, EXACT) as stream,
    ):
        stream.take()
        clock.advance(6.0)
        with pytest.raises(gr.DeadlineExceededError):
            stream.read()
    assert DONE not in stream.body
    assert len(gateway.requests) == 1


# ---- what is told ----------------------------------------------------------------------------------------


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[StreamBroken] = []

    def on_stream_broken(self, event: StreamBroken) -> None:
        self.told.append(event)


def test_observers_are_told_of_every_break(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """As the report tells it: what was done, why, and how far the answer was."""
    listener = Listener()
    gateway.plan = FaultPlan.script([BreakStream(events=1), BROKEN])

    outcome = asked_once(harness, brain(clock, listener), gateway.url + CHAT.path, EXACT)

    assert [event.hop for event in listener.told] == list(outcome.report.hops)
    assert {(event.host, event.model) for event in listener.told} == {(host(gateway), MODEL)}
    assert [(hop.action, hop.code, hop.phase, hop.events, hop.reason) for hop in outcome.report.hops] == [
        ("restart", "stream_terminated", "none", 0, ""),
        ("replay", "stream_terminated", "output", 4, ""),
    ]


def test_a_report_grows_until_the_stream_has_ended(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Pending while it flows; over when the marker was handed up, whether the caller reads on or not."""
    gateway.plan = FaultPlan.script([BROKEN])
    resilience = brain(clock)
    with (
        open_session(harness, resilience) as session,
        Live(session, gateway.url + CHAT.path, EXACT) as stream,
    ):
        stream.take()
        told = gr.report(stream.response)
        assert told is not None
        assert (told.outcome, told.hops, len(told.attempts)) == ("pending", (), 0)
        assert resilience.metrics.snapshot().total() == 0
        stream.until(DONE)
        told = gr.report(stream.response)
        assert told is not None
        assert (told.outcome, len(told.hops), len(told.attempts)) == ("success", 1, 2)
    counts = resilience.metrics.snapshot()
    assert counts.total("success") == counts.total() == 1
    assert (counts.sent(), counts.sent("ok"), counts.retries) == (2, 1, 1)
    assert counts.streams == {"opened": 2, "breaks": 1, "replay": 1}


def test_what_is_counted_of_streams(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Every break once, and once what was done about it."""
    whole = asked_once(harness, brain(clock), gateway.url + CHAT.path, STREAMED).content
    gateway.plan = FaultPlan.script(
        [BreakStream(events=1), BreakStream(events=whole.count(b"\n\n") - 1), BROKEN]
    )
    resilience = brain(clock, stream=StreamConfig(max_delivered=2000))
    with open_session(harness, resilience) as session:
        for _ in range(2):
            ask(session, gateway.url + CHAT.path, STREAMED)

    assert resilience.metrics.snapshot().streams == {
        "opened": 3,
        "breaks": 3,
        "restart": 1,
        "unguarded": 1,
        "marker": 1,
        "fail": 1,
    }


def test_a_stream_that_is_too_long_to_be_remembered_says_so(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """In the report, and in the error, which then does not know what was handed up."""
    gateway.plan = FaultPlan.always(BreakStream(events=8))
    resilience = brain(clock, stream=StreamConfig(max_delivered=800))

    outcome = asked_once(harness, resilience, gateway.url + CHAT.path, EXACT)

    assert outcome.interruption.delivered is None
    assert outcome.report.reason == "more was handed up than is remembered"
    assert [(hop.action, hop.reason) for hop in outcome.report.hops] == [
        ("unguarded", "longer than stream.max_delivered"),
        ("fail", "more was handed up than is remembered"),
    ]


# ---- settings for a while --------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [StreamConfig(replay="always"), {"replay": "always"}])
def test_settings_for_the_calls_of_a_block(
    harness: Harness, gateway: Gateway, clock: FakeClock, setting: Any
) -> None:
    """They hold for as long as the stream flows, and for no call after it."""
    gateway.plan = FaultPlan.script([BROKEN, BreakStream(events=30), BROKEN])
    resilience = brain(clock)
    with open_session(harness, resilience) as session:
        with resilience.override(stream=setting):
            mended = ask(session, gateway.url + CHAT.path, STREAMED)
        failed = ask(session, gateway.url + CHAT.path, STREAMED)

    assert deltas(mended.content)["text"] == _text(harness, gateway, clock)
    assert mended.actions[0] == "replay"
    assert failed.actions == ["fail"]


@pytest.mark.parametrize("harness", HARNESSES[1:], ids=repr)
def test_settings_for_one_request(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Clients other than requests have a place for them."""
    gateway.plan = FaultPlan.always(BROKEN)
    overrides = gr.Overrides(stream=StreamConfig(mode="off"))

    outcome = asked_once(
        harness,
        brain(clock),
        gateway.url + CHAT.path,
        STREAMED,
        extensions={"gip_resilience": overrides},
    )

    assert outcome.error is None
    assert outcome.report.outcome == "success"
    assert outcome.report.hops == ()


def _text(harness: Harness, gateway: Gateway, clock: FakeClock) -> str:
    """What the whole answer says."""
    gateway.plan = FaultPlan()
    found = deltas(asked_once(harness, brain(clock), gateway.url + CHAT.path, STREAMED).content)["text"]
    assert isinstance(found, str)
    return found
