"""What a call leaves behind: its report, its log lines, its counts; and in none of them a secret."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, Html, RateLimited, Reset, Status
from matrix import Pair, chat_url, raised

if TYPE_CHECKING:
    from gip_resilience.gateway import Reply
    from gip_resilience.testing import FakeClock

MODEL = "azure/openai/gpt-5-mini"


@pytest.fixture
def brain(clock: FakeClock) -> gr.Resilience:
    """A brain whose chance always says one half."""
    return gr.Resilience(clock=clock, chance=lambda: 0.5)


def host(gateway: Gateway) -> str:
    """How the gateway is called in reports and counts."""
    return gateway.url.removeprefix("http://")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What was said to our loggers."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name.split(".")[0] == "gip_resilience"
    ]


# ---- the report --------------------------------------------------------------------------------------------


def test_a_success_at_once(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """One attempt, no wait, nothing to explain."""
    with clients.mounted(brain) as mounted:
        report = mounted.post(chat_url(gateway)).report

    (attempt,) = report.attempts
    assert (attempt.number, attempt.code, attempt.status, attempt.waited) == (1, "ok", 200, 0.0)
    assert (attempt.hint, attempt.maybe_executed) == (None, False)
    assert (report.host, report.model) == (host(gateway), MODEL)
    assert (report.outcome, report.reason, report.waited, report.hint) == ("success", "", 0.0, None)
    assert str(report) == (
        f"success after 1 attempt(s), 0.000 s: {host(gateway)} {MODEL}\n  1. ok (200) in 0.000 s"
    )


def test_a_success_after_failures(
    clients: Pair, gateway: Gateway, brain: gr.Resilience, clock: FakeClock
) -> None:
    """The timeline tells what happened, in order, one line per attempt."""
    gateway.plan = FaultPlan.script([Error("model_overloaded", retry_after=2), Html(502)])

    with clients.mounted(brain) as mounted:
        report = mounted.post(chat_url(gateway)).report

    assert [(a.number, a.code, a.status) for a in report.attempts] == [
        (1, "model_overloaded", 503),
        (2, "http_502", 502),
        (3, "ok", 200),
    ]
    assert [a.waited for a in report.attempts] == [0.0, *clock.slept] == pytest.approx([0.0, 2.1, 0.25])
    assert [a.hint for a in report.attempts] == [gr.Hint(2.0, "retry-after"), None, None]
    assert (report.outcome, report.reason) == ("success", "")
    assert (report.elapsed, report.waited) == pytest.approx((2.35, 2.35))
    assert str(report).splitlines() == [
        f"success after 3 attempt(s), 2.350 s: {host(gateway)} {MODEL}",
        "  1. model_overloaded (503) in 0.000 s, server asked for 2 s",
        "  2. waited 2.100 s, http_502 (502) in 0.000 s",
        "  3. waited 0.250 s, ok (200) in 0.000 s",
    ]


def test_a_failure(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """It says why it was not tried again."""
    gateway.plan = FaultPlan.always(Error("unknown_model"))

    with clients.mounted(brain) as mounted:
        report = mounted.post(chat_url(gateway)).report

    assert (report.outcome, report.reason) == ("failure", "unknown_model is not retried")
    assert str(report).endswith(
        "\n  1. unknown_model (404) in 0.000 s\n  ended: unknown_model is not retried"
    )


def test_a_failure_that_allows_fewer_attempts_than_were_made(
    clients: Pair, gateway: Gateway, brain: gr.Resilience
) -> None:
    """A class of failures has attempts of its own; the reason says so where its number is the smaller one."""
    gateway.plan = FaultPlan.script(
        [Error("model_overloaded"), Error("model_timeout"), Error("model_timeout")]
    )

    with clients.mounted(brain) as mounted:
        report = mounted.post(chat_url(gateway)).report

    assert report.reason == "all 2 attempts used that model_timeout allows"


def test_a_failure_without_an_answer(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """The note on the error is the timeline, and says what may have been executed."""
    gateway.plan = FaultPlan.always(Reset("request"))

    with clients.mounted(brain) as mounted:
        error = raised(lambda: mounted.post(chat_url(gateway)))

    report = gr.report(error)
    (note,) = error.__notes__
    assert note == f"gip_resilience: {report}"
    assert note.splitlines()[1:] == [
        "  1. connection_lost (no answer) in 0.000 s, may have been executed",
        "  2. waited 0.250 s, connection_lost (no answer) in 0.000 s, may have been executed",
        "  ended: all 2 attempts used",
    ]


def test_a_report_does_not_change(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """Asked twice, later, and after other calls, it says the same."""
    gateway.plan = FaultPlan.script([Status(503)])

    with clients.mounted(brain) as mounted:
        answer = mounted.post(chat_url(gateway))
        before = answer.report
        mounted.post(chat_url(gateway))

    assert answer.report == before
    with pytest.raises(AttributeError):
        before.outcome = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "thing", [None, 5, "text", ValueError(), object()], ids=lambda thing: type(thing).__name__
)
def test_no_report_where_no_call_is(thing: object) -> None:
    """Anything else has none, and asking is no error."""
    assert gr.report(thing) is None


def test_no_report_without_us(clients: Pair, gateway: Gateway) -> None:
    """A response of a bare client has none."""
    assert gr.report(clients.bare.get(gateway.url + "/healthz").response) is None


# ---- log lines ---------------------------------------------------------------------------------------------


def test_one_line_per_retry(
    clients: Pair, gateway: Gateway, brain: gr.Resilience, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO, with host, model, code, attempt and wait; nothing for a success."""
    gateway.plan = FaultPlan.script(
        [Error("model_overloaded"), Error("model_overloaded", retry_after=3), Html(503)]
    )
    caplog.set_level(logging.DEBUG, "gip_resilience")

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))
        mounted.post(chat_url(gateway))

    where = f"{host(gateway)} {MODEL}"
    assert lines(caplog) == [
        (logging.INFO, f"retry {where}: model_overloaded, attempt 1 of 4, waiting 0.500 s (backoff)"),
        (logging.INFO, f"retry {where}: model_overloaded, attempt 2 of 4, waiting 3.150 s (hint)"),
        (logging.INFO, f"retry {where}: http_503, attempt 3 of 4, waiting 0.250 s (backoff)"),
    ]


def test_a_line_says_what_may_have_been_executed(
    clients: Pair, gateway: Gateway, brain: gr.Resilience, caplog: pytest.LogCaptureFixture
) -> None:
    """So that whoever reads the log can tell a double execution when there was one."""
    gateway.plan = FaultPlan.script([Reset("request")])
    caplog.set_level(logging.INFO, "gip_resilience")

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))

    ((level, line),) = lines(caplog)
    assert level == logging.INFO
    assert line.endswith("connection_lost, attempt 1 of 2, waiting 0.250 s (backoff), may have been executed")


def test_a_circuit_that_opens_is_a_warning(
    clients: Pair, gateway: Gateway, brain: gr.Resilience, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, when it opens; refusals by it are not logged one by one."""
    gateway.plan = FaultPlan.always(Error("model_unavailable"))
    caplog.set_level(logging.INFO, "gip_resilience")

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))
        for _ in range(3):
            raised(lambda: mounted.post(chat_url(gateway)))

    ((level, line),) = lines(caplog)
    assert level == logging.WARNING
    assert line.startswith(f"circuit {host(gateway)} {MODEL}: closed -> open")


def test_nothing_is_logged_when_nobody_listens(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """A program that has not set up logging gets no output of ours: INFO is below what Python prints."""
    gateway.plan = FaultPlan.script([Status(503)])
    logger = logging.getLogger("gip_resilience")

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))

    assert logger.level == logging.NOTSET
    assert not logger.isEnabledFor(logging.DEBUG)


# ---- counts ------------------------------------------------------------------------------------------------


def test_counts(clients: Pair, gateway: Gateway, brain: gr.Resilience, clock: FakeClock) -> None:
    """By host, model, code and outcome, to the last request."""
    plan: list[Reply] = [
        Error("model_overloaded"),
        Status(503, "html"),
        RateLimited(3),
        Error("invalid_request"),
    ]
    gateway.plan = FaultPlan.script(plan)

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))
        mounted.post(chat_url(gateway))
        mounted.get(gateway.base_url + "/models")

    where = (host(gateway), MODEL)
    snapshot = brain.metrics.snapshot()
    assert snapshot.calls == {
        (*where, "invalid_request", "failure"): 1,
        (*where, "ok", "success"): 1,
        (host(gateway), "", "ok", "success"): 1,
    }
    assert snapshot.attempts == {
        (*where, "model_overloaded"): 1,
        (*where, "http_503"): 1,
        (*where, "rate_limit_exceeded"): 1,
        (*where, "invalid_request"): 1,
        (*where, "ok"): 1,
        (host(gateway), "", "ok"): 1,
    }
    assert snapshot.retries == 3
    assert snapshot.waits == pytest.approx({"backoff": 0.75, "gate": 3.75})
    assert (snapshot.refusals, snapshot.opened) == ({}, {})
    assert (snapshot.total(), snapshot.total("success"), snapshot.sent()) == (3, 2, 6)
    assert sum(clock.slept) == pytest.approx(sum(snapshot.waits.values()))
    assert json.loads(json.dumps(snapshot.as_dict()))["retries"] == 3


def test_counts_of_refusals(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """Calls that were not sent are counted apart from those that failed, and so is what opened."""
    gateway.plan = FaultPlan.always(Error("model_unavailable"))

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))
        for _ in range(2):
            raised(lambda: mounted.post(chat_url(gateway)))

    where = (host(gateway), MODEL)
    snapshot = brain.metrics.snapshot()
    assert snapshot.calls == {
        (*where, "model_unavailable", "failure"): 1,
        (*where, "circuit_open", "refused"): 2,
    }
    assert snapshot.attempts == {(*where, "model_unavailable"): 1}
    assert snapshot.refusals == {"circuit_open": 2}
    assert snapshot.opened == {where: 1}


# ---- secrets -----------------------------------------------------------------------------------------------

KEY = "sk-planted-key-4711"
PROMPT = "planted-prompt-4711"
HEADER = "planted-header-4711"
BODY = "planted-body-4711"
SECRETS = (KEY, PROMPT, HEADER, BODY)


class Everything:
    """An observer that keeps all it is told."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def on_retry_scheduled(self, event: object) -> None:
        """Keep it."""
        self.events.append(event)

    on_gate_waited = on_circuit_changed = on_call_ended = on_retry_scheduled


PLANTED: dict[str, Reply] = {
    "overloaded": Error("model_overloaded", message=BODY, headers={"x-note": HEADER}),
    "limited": Error("rate_limit_exceeded", message=BODY, headers={"x-note": HEADER}),
    "rejected key": Error("invalid_api_key", message=f"{BODY} {KEY}", headers={"x-note": HEADER}),
    "unavailable": Error("model_unavailable", message=BODY, headers={"x-note": HEADER}),
    "page": Status(502, f"<html>{BODY} {HEADER}</html>".encode(), {"content-type": "text/html"}),
    "prose for a code": Error(f"{BODY} is what you sent", message=BODY),
    "lost": Reset("request"),
}


@pytest.mark.parametrize("reply", PLANTED.values(), ids=PLANTED)
def test_no_secret_is_kept(
    reply: Reply, clients: Pair, gateway: Gateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """No key, prompt, header or text of the server is in a log line, report, count, event, error or repr."""
    gateway.plan = FaultPlan.always(reply)
    caplog.set_level(logging.DEBUG, "gip_resilience")
    observer = Everything()
    brain = gr.Resilience(clock=clock, observers=[observer])
    options: dict[str, Any] = {
        "headers": {"authorization": f"Bearer {KEY}", "x-api-key": KEY, "x-note": HEADER},
        "json": {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]},
    }
    kept: list[object] = []

    with clients.mounted(brain) as mounted:
        for _ in range(3):
            try:
                answer = mounted.post(chat_url(gateway) + f"?key={KEY}", **options)
            except Exception as error:  # what is searched is what we wrote on it
                kept += [gr.report(error), getattr(error, "__notes__", [])]
                if isinstance(error, gr.ResilienceError):
                    kept += [str(error), repr(error), error.args]
            else:
                kept += [answer.report, str(answer.report)]
        transports = getattr(mounted.client, "adapters", None) or [mounted.client._transport]
        kept += [
            brain,
            brain.config,
            brain.store,
            vars(brain.store),
            brain.metrics,
            brain.breakers,
            clock,
            transports,
        ]

    snapshot = brain.metrics.snapshot()
    kept += [snapshot, snapshot.as_dict(), brain.breakers.all(), observer.events, lines(caplog)]
    kept += [vars(record) for record in caplog.records if record.name.startswith("gip_resilience")]
    text = "\n".join(f"{thing!r} {thing!s}" for thing in kept)
    assert MODEL in text
    assert [secret for secret in SECRETS if secret in text] == []
