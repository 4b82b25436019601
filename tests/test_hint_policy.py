"""How long a call waits, end to end: the server's hints, the policy's waits, deadlines, and what overrides change.

Chance is pinned to one half, so every wait is a number that can be written down: a backoff is half of the generator's
value (full jitter), a hint gets half of its upward jitter, a caller at the gate half of its spread.
"""

from __future__ import annotations

from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any

import backoff
import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, RateLimited, Raw, Stall, Status
from gip_resilience.testing import FakeClock
from harness import HARNESSES
from matrix import Pair, chat_url, pair, perform, raised, read_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.gateway import Reply
    from harness import Session


@pytest.fixture(scope="module")
def one() -> Iterator[Pair]:
    """Two open clients of one kind, for what does not depend on the client."""
    with pair(HARNESSES[1]) as both:
        yield both


def evenly() -> float:
    """Chance that always says one half."""
    return 0.5


# ---- hints -----------------------------------------------------------------------------------------------


def google(delay: str) -> bytes:
    """The body of a rate-limited answer of Google's, which asks for *delay*."""
    return (
        b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"@type":'
        b' "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "' + delay.encode() + b'"}]}}'
    )


JSON = {"content-type": "application/json"}
UNAVAILABLE = "HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n"
"""The beginning of an answer that is written by hand."""

HINTED: dict[str, tuple[Reply, float]] = {
    "seconds": (Error("model_overloaded", retry_after=7), 7.0),
    "a fraction": (Error("model_overloaded", retry_after="2.5"), 2.5),
    "milliseconds": (Error("model_overloaded", headers={"retry-after-ms": "1500"}), 1.5),
    "milliseconds before seconds": (
        Error("model_overloaded", retry_after=9, headers={"retry-after-ms": "1500"}),
        1.5,
    ),
    "Azure's milliseconds": (Error("model_overloaded", headers={"x-ms-retry-after-ms": "2500"}), 2.5),
    "of a server error": (Error("model_server_error", retry_after=3), 3.0),
    "of a balancer": (Status(503, "html", retry_after=4), 4.0),
    "of a timeout": (Error("model_timeout", retry_after=6), 6.0),
    "the longest that is waited": (Error("model_overloaded", retry_after=100), 100.0),
    "in a body that is not the gateway's": (
        Status(503, b'{"error": {"code": "model_overloaded", "message": "busy", "retry_after": 5}}', JSON),
        5.0,
    ),
}
"""Answers with a hint, and the wait they ask for."""


@pytest.mark.parametrize(("reply", "seconds"), HINTED.values(), ids=HINTED)
def test_a_hint_is_waited_in_full(
    reply: Reply, seconds: float, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Never less than the server asked for; up to a tenth of it more, at most one second."""
    gateway.plan = FaultPlan.script([reply])

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.status == 200
    assert clock.slept == [pytest.approx(seconds + 0.5 * min(0.1 * seconds, 1.0))]
    hint = answer.report.attempts[0].hint
    assert hint is not None
    assert hint.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999], ids=str)
def test_a_hints_jitter_is_upward(chance: float, one: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Whatever chance says, the wait lies between the hint and a second more."""
    gateway.plan = FaultPlan.script([Error("model_overloaded", retry_after=20)])

    with one.mounted(gr.Resilience(clock=clock, chance=lambda: chance)) as mounted:
        mounted.post(chat_url(gateway))

    assert clock.slept == [pytest.approx(20 + chance)]


LIMITED: dict[str, tuple[Reply, float]] = {
    "seconds": (RateLimited(10), 10.0),
    "milliseconds": (Error("rate_limit_exceeded", headers={"retry-after-ms": "40"}), 0.04),
    "a duration until the reset": (
        Error(
            "rate_limit_exceeded",
            headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m6s"},
        ),
        66.0,
    ),
    "RetryInfo in the body": (Status(429, google("34s"), JSON), 34.0),
    "prose in the body": (
        Status(
            429, b'{"error": {"code": "rate_limit_exceeded", "message": "Please try again in 12s."}}', JSON
        ),
        12.0,
    ),
}
"""Rate limits, and the wait they ask for."""


@pytest.mark.parametrize(("reply", "seconds"), LIMITED.values(), ids=LIMITED)
def test_a_rate_limit_is_waited_for_at_the_gate(
    reply: Reply, seconds: float, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """All of the hint, then a share of the spread, so that callers do not return in the same instant."""
    gateway.plan = FaultPlan.script([reply])

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.status == 200
    assert clock.slept == [pytest.approx(seconds), pytest.approx(seconds * 0.5 * 0.5)]


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0], ids=["behind", "right", "ahead"])
def test_a_date_is_read_by_the_servers_clock(skew: float, clients: Pair, gateway: Gateway) -> None:
    """A client whose clock is an hour wrong still waits the seconds the server meant."""
    now = 1_767_225_600.0
    headers = {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 8, usegmt=True)}
    gateway.plan = FaultPlan.script([Error("model_overloaded", headers=headers)])
    clock = FakeClock(time=now + skew)

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        mounted.post(chat_url(gateway))

    assert clock.slept == [pytest.approx(8.4)]


def test_a_date_without_the_servers_clock(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Without a ``Date`` in the answer, the client's own clock is all there is."""
    date = formatdate(clock.time() + 9, usegmt=True)
    gateway.plan = FaultPlan.script([Raw(f"{UNAVAILABLE}retry-after: {date}\r\n\r\n")])

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        mounted.post(chat_url(gateway))

    assert clock.slept == [pytest.approx(9.45)]


NO_HINTS = [
    "nan",
    "inf",
    "-inf",
    "-5",
    "1e999",
    "1e3",
    "0x10",
    "soon",
    "",
    " ",
    "1_000",
    "٣",
    "9" * 400,
    "Never",
]


@pytest.mark.parametrize("text", NO_HINTS, ids=[f"{text[:8]!a}" for text in NO_HINTS])
def test_what_is_no_hint_falls_back_to_the_backoff(
    text: str, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """A ``Retry-After`` that nobody can wait for is as good as none: the policy's own wait, a finite one."""
    gateway.plan = FaultPlan.always(Raw(f"{UNAVAILABLE}retry-after: {text}\r\n\r\n"))

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert clock.slept == [0.25, 0.5]
    assert answer.report.hint is None


def test_a_header_of_a_megabyte(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """The clients refuse it, each in its own way; that is the error the caller gets, after a try more."""
    gateway.plan = FaultPlan.always(Raw(f"{UNAVAILABLE}retry-after: {'7' * (1 << 20)}\r\n\r\n"))
    theirs = raised(lambda: clients.bare.post(chat_url(gateway)))
    gateway.clear()

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        ours = raised(lambda: mounted.post(chat_url(gateway)))

    assert type(ours) is type(theirs)
    assert clock.slept == [0.25]
    assert len(gateway.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [Error("model_overloaded", retry_after=300), RateLimited(300), Status(503, "html", retry_after="121")],
    ids=["overloaded", "rate limited", "balancer"],
)
def test_a_hint_above_the_cap_ends_the_call(
    reply: Reply, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Nobody is kept waiting for minutes: the server's answer comes back at once, the hint is on the report."""
    gateway.plan = FaultPlan.always(reply)

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert len(gateway.requests) == 1
    assert clock.slept == []
    assert answer.report.hint is not None
    assert answer.report.hint.seconds in {300.0, 121.0}
    assert answer.report.reason == f"the server asks for {answer.report.hint.seconds:g} s"
    assert answer.headers["retry-after"] == f"{answer.report.hint.seconds:g}"


@pytest.mark.parametrize("code", ["model_overloaded", "rate_limit_exceeded"])
def test_a_hint_past_the_deadline_ends_the_call(
    code: str, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """A wait that would end too late is not begun."""
    gateway.plan = FaultPlan.always(Error(code, retry_after=10))

    with clients.mounted(gr.Resilience(gr.Config(deadline=10.0), clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert len(gateway.requests) == 1
    assert clock.slept == []
    assert answer.report.reason == "the deadline would pass"
    assert answer.report.hint == gr.Hint(10.0, "retry-after")


def test_a_cap_of_ones_own(one: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """``max_hint`` says how long a hint may be, by code."""
    gateway.plan = FaultPlan.script([Error("model_overloaded", retry_after=3)])
    config = gr.Config(policies={"model_overloaded": gr.Policy(max_hint=2.9)})

    with one.mounted(gr.Resilience(config, clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.status == 503
    assert clock.slept == []


def test_a_hint_of_zero_is_no_tight_loop(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """A server that says "now" and fails again meets the backoff all the same."""
    gateway.plan = FaultPlan.always(Error("model_overloaded", retry_after=0))

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        mounted.post(chat_url(gateway))

    assert clock.slept == [0.5, 1.0, 2.0]


def test_a_short_hint_that_did_not_help(one: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """The first hint is believed; the same again is waited with the growing backoff underneath."""
    gateway.plan = FaultPlan.always(Error("model_overloaded", retry_after="0.1"))

    with one.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        mounted.post(chat_url(gateway))

    assert clock.slept == [pytest.approx(0.105), 1.0, 2.0]


WORDS: dict[str, tuple[Reply, int]] = {
    "a retry of what is not retried": (
        Error("internal_error", headers={"x-should-retry": "true"}),
        2,
    ),
    "a retry of a bad request": (Status(400, "json", {"x-should-retry": "true"}), 2),
    "no retry of an overload": (Error("model_overloaded", headers={"x-should-retry": "false"}), 1),
    "no retry of a rate limit": (Error("rate_limit_exceeded", headers={"x-should-retry": "false"}), 1),
    "no retry of a balancer's page": (Status(503, "html", {"x-should-retry": "false"}), 1),
    "nonsense": (Error("model_overloaded", headers={"x-should-retry": "perhaps"}), 4),
    "a retry that is allowed anyway": (Error("model_overloaded", headers={"x-should-retry": "true"}), 4),
}


@pytest.mark.parametrize(("reply", "sent"), WORDS.values(), ids=WORDS)
def test_the_servers_own_word(
    reply: Reply, sent: int, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """``x-should-retry`` outranks the table: false ends the call, true allows one more try."""
    gateway.plan = FaultPlan.always(reply)

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert len(gateway.requests) == sent
    assert answer.headers["x-should-retry"] == dict(reply.headers)["x-should-retry"]  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["code", "type"])
@pytest.mark.parametrize("hint", [None, 1], ids=["without a hint", "with a hint"])
def test_an_empty_account_is_not_a_rate_limit(
    field: str, hint: int | None, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """``insufficient_quota`` on a 429 is terminal, whatever else the answer says: no wait brings money."""
    body = b'{"error": {"%b": "insufficient_quota", "message": "You exceeded your quota"}}' % field.encode()
    gateway.plan = FaultPlan.always(Status(429, body, JSON, retry_after=hint))

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))
        answer_after = mounted.post(chat_url(gateway))

    assert (answer.status, answer_after.status) == (429, 429)
    assert len(gateway.requests) == 2
    assert clock.slept == []


# ---- the policy's waits ------------------------------------------------------------------------------------

WAITS: dict[str, list[float]] = {
    "model_overloaded": [0.5, 1.0, 2.0],
    "model_server_error": [0.125, 0.25],
    "model_timeout": [0.25],
    "stream_error": [0.125, 0.25],
    "stream_terminated": [0.125, 0.25],
    "rate_limit_exceeded": [2.0, 0.5, 4.0, 1.0, 8.0, 2.0],
    "model_unavailable": [],
    "internal_error": [],
}


@pytest.mark.parametrize(("code", "waits"), WAITS.items(), ids=WAITS)
def test_the_waits_of_each_code(
    code: str, waits: list[float], clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Base doubled each time, times chance; a rate limit without a hint guesses 2, 4, 8 s at the gate, and a turn."""
    gateway.plan = FaultPlan.always(Error(code))

    with clients.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert clock.slept == pytest.approx(waits)
    waited = [attempt.waited for attempt in answer.report.attempts]
    assert waited[0] == 0.0
    assert sum(waited) == pytest.approx(sum(waits))


STATUS_WAITS = {
    502: [0.25, 0.5],
    503: [0.25, 0.5],
    504: [0.25],
    500: [0.25],
    429: [2.0, 0.5, 4.0, 1.0, 8.0, 2.0],
    529: [0.5, 1, 2],
}


@pytest.mark.parametrize(("status", "waits"), STATUS_WAITS.items(), ids=map(str, STATUS_WAITS))
def test_the_waits_of_each_status(
    status: int, waits: list[float], one: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Without a code the status' class decides the waits too."""
    gateway.plan = FaultPlan.always(Status(status, "html"))

    with one.mounted(gr.Resilience(clock=clock, chance=evenly)) as mounted:
        mounted.post(chat_url(gateway))

    assert clock.slept == pytest.approx(waits)


def flaky_generator() -> Any:
    """A wait generator that fails at its second value."""
    yield 0.75
    raise RuntimeError("no more")


def short_generator() -> Any:
    """One that ends."""
    yield 0.75


def mad_generator() -> Any:
    """One that yields what cannot be waited."""
    yield from (float("nan"), float("inf"), -3.0)


POLICIES: dict[str, tuple[gr.Policy, list[float]]] = {
    "backoff.expo": (gr.Policy(wait=partial(backoff.expo, base=3), jitter="none"), [1, 3, 9, 27]),
    "backoff.expo, capped": (gr.Policy(wait=backoff.expo, jitter="none", max_delay=4), [1, 2, 4, 4]),
    "backoff.fibo": (gr.Policy(wait=backoff.fibo, jitter="none"), [1, 1, 2, 3]),
    "backoff.constant": (gr.Policy(wait=partial(backoff.constant, interval=2), jitter="none"), [2, 2, 2, 2]),
    "backoff.constant of several": (
        gr.Policy(wait=partial(backoff.constant, interval=[1, 5]), jitter="none"),
        [1, 5, 5, 5],
    ),
    "by name": (gr.Policy(wait="fibo", base_delay=0.5, jitter="none"), [0.5, 0.5, 1.0, 1.5]),
    "constant by name": (gr.Policy(wait="constant", base_delay=3, jitter="none"), [3, 3, 3, 3]),
    "full jitter": (gr.Policy(jitter="full"), [0.5, 1, 2, 4]),
    "random jitter": (gr.Policy(jitter="random"), [1.5, 2.5, 4.5, 8.5]),
    "no jitter": (gr.Policy(jitter="none"), [1, 2, 4, 8]),
    "a jitter of one's own": (gr.Policy(jitter=lambda wait: wait + 0.25), [1.25, 2.25, 4.25, 8.25]),
    "a jitter that fails": (gr.Policy(jitter=lambda wait: wait / 0), [1, 2, 4, 8]),
    "a jitter that says never": (gr.Policy(jitter=lambda wait: float("inf")), [1, 2, 4, 8]),
    "a generator that fails": (gr.Policy(wait=flaky_generator, jitter="none"), [0.75] * 4),
    "a generator that ends": (gr.Policy(wait=short_generator, jitter="none"), [0.75] * 4),
    "a generator gone mad": (gr.Policy(wait=mad_generator, jitter="none"), [30, 30, 0, 0]),
    "no wait at all": (gr.Policy(base_delay=0), [0, 0, 0, 0]),
}


@pytest.mark.parametrize(("policy", "waits"), POLICIES.values(), ids=POLICIES)
def test_waits_of_ones_own(
    policy: gr.Policy, waits: list[float], one: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Any wait generator and any jitter function of the backoff package's kind can be plugged in."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    policies = {"model_overloaded": policy, "overload": gr.Policy(max_attempts=5)}

    with one.mounted(gr.Resilience(gr.Config(policies=policies), clock=clock, chance=evenly)) as mounted:
        mounted.post(chat_url(gateway))

    assert clock.slept == pytest.approx(waits)


def test_backoffs_own_jitter(one: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """The package's jitter functions bring their own chance; the waits stay within their bounds."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    policy = gr.Policy(wait=backoff.expo, jitter=backoff.full_jitter)

    with one.mounted(gr.Resilience(gr.Config(policies={"overload": policy}), clock=clock)) as mounted:
        mounted.post(chat_url(gateway))

    assert len(clock.slept) == 3
    assert all(0 <= wait <= longest for wait, longest in zip(clock.slept, [1, 2, 4], strict=True))


# ---- limits in time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deadline", "max_elapsed"])
def test_no_attempt_after_the_limit(name: str, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Waits are 1, 2, 4 s: the third would end at 7 s, so with 5 s there are three attempts and not four."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    policy = gr.Policy(jitter="none")
    config = gr.Config(policies={"overload": policy}).replace(**{name: 5.0})

    with clients.mounted(gr.Resilience(config, clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert clock.slept == [1, 2]
    assert answer.status == 503
    assert answer.report.reason == (
        "the deadline would pass" if name == "deadline" else "max_elapsed would pass"
    )


def test_max_elapsed_holds_by_default(one: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """A policy of many attempts ends after two minutes, unless told otherwise."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    policy = gr.Policy(
        max_attempts=100, wait="constant", base_delay=10, jitter="none", cost=0, breaker="ignore"
    )

    with one.mounted(gr.Resilience(gr.Config(policies={"overload": policy}), clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert sum(clock.slept) == 110
    assert answer.report.reason == "max_elapsed would pass"


def test_a_deadline_is_enforced_on_a_silent_server(clients: Pair, gateway: Gateway) -> None:
    """The wait for a server that says nothing ends at the deadline, in the library's own kin of a timeout."""
    gateway.plan = FaultPlan.always(Stall())
    brain = gr.Resilience(gr.Config(deadline=0.2))

    with clients.mounted(brain) as mounted:
        error = raised(lambda: mounted.post(chat_url(gateway)))

    assert isinstance(error, gr.DeadlineExceededError)
    errors = clients.harness.errors
    assert isinstance(
        error, errors.Timeout if clients.harness.name == "requests" else errors.TimeoutException
    )
    report = gr.report(error)
    assert report is not None
    assert report.outcome == "failure"
    assert [attempt.code for attempt in report.attempts] == ["read_timeout"]
    assert 0.2 <= report.elapsed < 2.0
    assert report.maybe_executed
    assert len(gateway.requests) == 1
    assert brain.metrics.snapshot().refusals == {"deadline": 1}


def test_a_deadline_holds_for_later_attempts_too(clients: Pair, gateway: Gateway) -> None:
    """An answer that was given up for a retry is gone; what is left is the deadline, with the whole story."""
    gateway.plan = FaultPlan.script([Status(503), Stall()])
    config = gr.Config(deadline=0.5, policies={"intermediary": gr.Policy(base_delay=0.01, max_delay=0.01)})

    with clients.mounted(gr.Resilience(config)) as mounted:
        error = raised(lambda: mounted.post(chat_url(gateway)))

    assert isinstance(error, gr.DeadlineExceededError)
    report = gr.report(error)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["http_503", "read_timeout"]
    assert report.elapsed < 2.0


def test_a_deadline_that_is_far_away_changes_nothing(
    clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """The answer is the same, and the caller's own shorter timeout holds."""
    with clients.mounted(gr.Resilience(gr.Config(deadline=20.0), clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))
        gateway.plan = FaultPlan.always(Stall())
        error = raised(lambda: mounted.post(chat_url(gateway), **read_timeout(clients.harness, 0.1)))

    assert answer.status == 200
    assert not isinstance(error, gr.ResilienceError)
    assert type(error).__name__ == "ReadTimeout"


# ---- overrides ---------------------------------------------------------------------------------------------


def within(session: Session, brain: gr.Resilience, changes: dict[str, Any], url: str) -> Any:
    """The response of a call made inside ``brain.override(**changes)``, in the client's own task."""
    options: dict[str, Any] = {"json": {"messages": [], "model": "m"}}
    if session.harness.colour == "sync":
        with brain.override(**changes):
            return session.client.post(url, **options)

    async def overridden() -> Any:
        with brain.override(**changes):
            return await session.client.post(url, **options)

    return perform(session, overridden)


OVERRIDES: dict[str, tuple[dict[str, Any], int]] = {
    "a code": ({"model_overloaded": gr.Policy(max_attempts=2)}, 2),
    "a code, plainly": ({"model_overloaded": {"max_attempts": 1}}, 1),
    "a class": ({"overload": gr.Policy(max_attempts=3)}, 3),
    "another code": ({"model_timeout": gr.Policy(max_attempts=1)}, 4),
    "a deadline": ({"deadline": 3.0}, 3),
    "max_elapsed": ({"max_elapsed": 0.4}, 1),
    "nothing": ({}, 4),
}


@pytest.mark.parametrize(("changes", "sent"), OVERRIDES.values(), ids=OVERRIDES)
def test_override(
    changes: dict[str, Any], sent: int, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """It changes the policy of the calls made inside the block, and of no others."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    brain = gr.Resilience(clock=clock, chance=evenly)

    with clients.mounted(brain) as mounted:
        response = within(mounted, brain, changes, chat_url(gateway))
        inside = len(gateway.requests)
        brain.breakers.reset()
        mounted.post(chat_url(gateway))

    assert response.status_code == 503
    assert inside == sent
    assert len(gateway.requests) - inside == 4


def test_overrides_nest(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """The inner word wins, field by field, and is forgotten when its block ends."""
    gateway.plan = FaultPlan.always(Error("model_server_error"))
    brain = gr.Resilience(clock=clock)
    numbers = []

    def count(session: Session) -> None:
        gateway.clear()
        session.post(chat_url(gateway))
        numbers.append((len(gateway.requests), clock.slept[-1] if clock.slept else None))
        brain.breakers.reset()
        clock.slept.clear()

    with clients.mounted(brain) as mounted:
        with brain.override(server=gr.Policy(max_attempts=2, jitter="none", base_delay=1, max_delay=1)):
            count(mounted)
            with brain.override(server=gr.Policy(base_delay=2, max_delay=2)):
                count(mounted)
                with brain.override(model_server_error=gr.Policy(max_attempts=1)):
                    count(mounted)
            count(mounted)
        count(mounted)

    assert numbers[:4] == [(2, 1.0), (2, 2.0), (1, None), (2, 1.0)]
    assert numbers[4][0] == 3


def test_an_override_names_the_model(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """For requests whose body does not say: circuits, limits, counts and report go by that name."""
    brain = gr.Resilience(clock=clock)

    with clients.mounted(brain) as mounted, brain.override(model="azure/openai/whisper-1"):
        answer = mounted.get(gateway.base_url + "/models")

    host = gateway.url.removeprefix("http://")
    assert answer.report.model == "azure/openai/whisper-1"
    assert (host, "azure/openai/whisper-1") in set(brain.breakers)


def test_an_override_is_one_brains_own(one: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """What is said to one brain does not reach another."""
    gateway.plan = FaultPlan.always(Error("model_server_error"))
    brain = gr.Resilience(clock=clock)

    with one.mounted(brain) as mounted, gr.Resilience().override(server=gr.Policy(max_attempts=1)):
        mounted.post(chat_url(gateway))

    assert len(gateway.requests) == 3


def test_an_override_ends_with_its_block_whatever_happens(
    one: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Also when the block ends in an error."""
    gateway.plan = FaultPlan.always(Error("model_server_error"))
    brain = gr.Resilience(clock=clock)

    with pytest.raises(KeyError), brain.override(server=gr.Policy(max_attempts=1)):
        raise KeyError
    with one.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))

    assert len(gateway.requests) == 3


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model_overlaoded": gr.Policy()}, "policies.model_overlaoded"),
        ({"deadline": -1}, "deadline"),
        ({"deadline": "soon"}, "deadline"),
        ({"model": ""}, "model"),
        ({"on_open": "explode"}, "on_open"),
        ({"model_overloaded": {"max_attempts": 0}}, "policies.model_overloaded.max_attempts"),
        ({"model_overloaded": 3}, "policies.model_overloaded"),
    ],
    ids=["unknown code", "negative", "text", "empty model", "unknown word", "no attempt", "no policy"],
)
def test_a_bad_override_is_refused_where_it_is_said(changes: dict[str, Any], path: str) -> None:
    """Before any call is made, with the setting's name."""
    brain = gr.Resilience()

    with pytest.raises(gr.ConfigError) as caught, brain.override(**changes):
        raise AssertionError("the block must not run")

    assert caught.value.path == path


@pytest.fixture(scope="module", params=HARNESSES[1:], ids=repr)
def with_extensions(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Clients whose requests have extensions."""
    with pair(request.param) as both:
        yield both


@pytest.mark.parametrize(
    ("overrides", "sent"),
    [
        (gr.Overrides(policies={"model_overloaded": gr.Policy(max_attempts=2)}), 2),
        (gr.Overrides(max_elapsed=0.4), 1),
        (gr.Overrides(), 4),
    ],
    ids=["a policy", "max_elapsed", "nothing"],
)
def test_overrides_in_the_extensions(
    overrides: gr.Overrides, sent: int, with_extensions: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """A single request brings its own, over those of the block around it."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    brain = gr.Resilience(clock=clock, chance=evenly)

    with with_extensions.mounted(brain) as mounted, brain.override(overload=gr.Policy(max_attempts=4)):
        answer = mounted.post(chat_url(gateway), extensions={"gip_resilience": overrides})

    assert len(gateway.requests) == sent
    assert answer.report.outcome == "failure"


@pytest.mark.parametrize(
    "wrong", [{"deadline": 1}, "deadline=1", gr.Config(), 5], ids=["mapping", "text", "config", "number"]
)
def test_wrong_overrides_in_the_extensions(
    wrong: object, with_extensions: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Anything but an ``Overrides`` is refused aloud: ignored, it would be noticed in an outage."""
    with with_extensions.mounted(gr.Resilience(clock=clock)) as mounted:
        error = raised(lambda: mounted.post(chat_url(gateway), extensions={"gip_resilience": wrong}))

    assert isinstance(error, gr.ConfigError)
    assert error.path == "extensions.gip_resilience"
    assert gateway.requests == []
