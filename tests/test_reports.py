"""What a call leaves behind: its report, its log lines, its counts; and in none of them a secret."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

import gip_resilience as gr
from gip_resilience.gateway import (
    BreakStream,
    Close,
    Error,
    FaultPlan,
    Gateway,
    Html,
    RateLimited,
    Reset,
    Status,
)
from matrix import Pair, chat_url, raised

if TYPE_CHECKING:
    from collections.abc import Callable

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
        f"success after 1 attempt(s), 0.000 s: {host(gateway)} {MODEL}\n  +0.000 1. ok (200) in 0.000 s"
    )


def test_a_success_after_failures(
    clients: Pair, gateway: Gateway, brain: gr.Resilience, clock: FakeClock
) -> None:
    """The timeline tells what happened, in order and when: attempts, and the pauses between them."""
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
        "  +0.000 1. model_overloaded (503) in 0.000 s, server asked for 2 s",
        "  +0.000 waited 2.100 s as the server asked",
        "  +2.100 2. http_502 (502) in 0.000 s",
        "  +2.100 waited 0.250 s",
        "  +2.350 3. ok (200) in 0.000 s",
    ]


def test_a_failure(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """It says why it was not tried again."""
    gateway.plan = FaultPlan.always(Error("unknown_model"))

    with clients.mounted(brain) as mounted:
        report = mounted.post(chat_url(gateway)).report

    assert (report.outcome, report.reason) == ("failure", "unknown_model is not retried")
    assert str(report).endswith(
        "\n  +0.000 1. unknown_model (404) in 0.000 s\n  +0.000 ended: unknown_model is not retried"
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
        "  +0.000 1. connection_lost (no answer) in 0.000 s, may have been executed",
        "  +0.000 waited 0.250 s",
        "  +0.250 2. connection_lost (no answer) in 0.000 s, may have been executed",
        "  +0.250 ended: all 2 attempts used",
    ]


def attempt(number: int, code: str, started: float, **more: Any) -> gr.Attempt:
    """An attempt of half a second."""
    options: dict[str, Any] = {"status": 503, "waited": 0.0, "hint": None, "maybe_executed": False, **more}
    return gr.Attempt(number, code, elapsed=0.5, started=started, **options)


def call(attempts: list[gr.Attempt], elapsed: float, **more: Any) -> gr.CallReport:
    """The report of a call that failed."""
    options: dict[str, Any] = {
        "outcome": "failure",
        "reason": "all used",
        "waited": 0.0,
        "hint": None,
        **more,
    }
    return gr.CallReport("api.test", "gpt-5", attempts=tuple(attempts), elapsed=elapsed, **options)


def hop(action: str, code: str = "stream_reset", reason: str = "") -> gr.Hop:
    """A break of a stream after three events."""
    return gr.Hop(action, code, "output", 3, reason)


TIMELINES: dict[str, tuple[gr.CallReport, list[str]]] = {
    "refused": (
        call([], 0.0, outcome="refused", reason="circuit open"),
        ["refused after 0 attempt(s), 0.000 s: api.test gpt-5", "  +0.000 ended: circuit open"],
    ),
    "a part": (
        call([attempt(1, "ok", 0.0, status=200)], 0.5, outcome="success", reason="", part="eu"),
        ["success after 1 attempt(s), 0.500 s: api.test gpt-5@eu", "  +0.000 1. ok (200) in 0.500 s"],
    ),
    "waited for leave": (
        call([attempt(1, "ok", 2.0, status=200, waited=2.0)], 2.5, outcome="success", reason="", waited=2.0),
        [
            "success after 1 attempt(s), 2.500 s: api.test gpt-5",
            "  +0.000 waited 2.000 s",
            "  +2.000 1. ok (200) in 0.500 s",
        ],
    ),
    "hints": (
        call(
            [
                attempt(1, "rate_limit_exceeded", 0.0, status=429, hint=gr.Hint(2.0, "retry-after")),
                attempt(
                    2, "rate_limit_exceeded", 2.6, status=429, waited=2.1, hint=gr.Hint(0.0, "retry-after")
                ),
                attempt(3, "connection_lost", 3.6, status=None, waited=0.5, maybe_executed=True),
            ],
            4.1,
            waited=2.6,
        ),
        [
            "failure after 3 attempt(s), 4.100 s: api.test gpt-5",
            "  +0.000 1. rate_limit_exceeded (429) in 0.500 s, server asked for 2 s",
            "  +0.500 waited 2.100 s as the server asked",
            "  +2.600 2. rate_limit_exceeded (429) in 0.500 s, server asked for 0 s",
            "  +3.100 waited 0.500 s",
            "  +3.600 3. connection_lost (no answer) in 0.500 s, may have been executed",
            "  +4.100 ended: all used",
        ],
    ),
    "a last pause": (
        call([attempt(1, "http_503", 0.0)], 3.5, reason="rate limited", waited=3.0),
        [
            "failure after 1 attempt(s), 3.500 s: api.test gpt-5",
            "  +0.000 1. http_503 (503) in 0.500 s",
            "  +0.500 waited 3.000 s, sent nothing more",
            "  +3.500 ended: rate limited",
        ],
    ),
    "a stream": (
        call(
            [
                attempt(1, "stream_reset", 0.0, status=200),
                attempt(2, "http_503", 0.75, waited=0.25),
                attempt(3, "stream_reset", 1.5, status=200, waited=0.25),
                attempt(4, "ok", 2.25, status=200, waited=0.25),
            ],
            2.75,
            outcome="success",
            reason="",
            waited=0.75,
            hops=(hop("replay"), hop("resume"), hop("marker", "stream_terminated")),
        ),
        [
            "success after 4 attempt(s), 2.750 s: api.test gpt-5",
            "  +0.000 1. stream_reset (200) in 0.500 s",
            "  +0.500 stream: stream_reset after 3 event(s), output: replay",
            "  +0.500 waited 0.250 s",
            "  +0.750 2. http_503 (503) in 0.500 s",
            "  +1.250 waited 0.250 s",
            "  +1.500 3. stream_reset (200) in 0.500 s",
            "  +2.000 stream: stream_reset after 3 event(s), output: resume",
            "  +2.000 waited 0.250 s",
            "  +2.250 4. ok (200) in 0.500 s",
            "  +2.750 stream: stream_terminated after 3 event(s), output: marker",
        ],
    ),
    "too long": (
        call(
            [attempt(n, "http_503", n - 1.0, waited=0.5 * (n > 1)) for n in range(1, 101)], 99.5, waited=49.5
        ),
        [
            "failure after 100 attempt(s), 99.500 s: api.test gpt-5",
            "  +0.000 1. http_503 (503) in 0.500 s",
            "  +0.500 waited 0.500 s",
            "  +1.000 2. http_503 (503) in 0.500 s",
            "  +1.500 waited 0.500 s",
            "  ... 190 lines left out",
            "  +97.000 98. http_503 (503) in 0.500 s",
            "  +97.500 waited 0.500 s",
            "  +98.000 99. http_503 (503) in 0.500 s",
            "  +98.500 waited 0.500 s",
            "  +99.000 100. http_503 (503) in 0.500 s",
            "  +99.500 ended: all used",
        ],
    ),
}


@pytest.mark.parametrize(("report", "expected"), TIMELINES.values(), ids=TIMELINES)
def test_a_timeline(report: gr.CallReport, expected: list[str]) -> None:
    """A dozen lines at most, each with its seconds from the start of the call; a long one lacks its middle."""
    assert str(report).splitlines() == expected
    assert len(expected) <= 12


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


def test_a_report_behind_an_error_status(clients: Pair, gateway: Gateway, brain: gr.Resilience) -> None:
    """What ``raise_for_status`` raises leads to it, alone and however it was wrapped."""
    gateway.plan = FaultPlan.always(Error("invalid_request"))

    with clients.mounted(brain) as mounted:
        answer = mounted.post(chat_url(gateway))

    error = raised(answer.response.raise_for_status)
    assert gr.report(error) == answer.report
    for wrap in WRAPPED.values():
        assert gr.report(wrap(error)) == answer.report


def notes(error: BaseException | None) -> list[str]:
    """Notes on an error and on what led to it: requests makes errors of a body that breaks off anew."""
    found: list[str] = []
    while error is not None:
        found += getattr(error, "__notes__", [])
        error = error.__cause__ or error.__context__
    return found


NOTED: dict[str, tuple[Reply, dict[str, Any], int]] = {
    "lost": (Reset("request"), {}, 1),
    "cut off": (Close("body"), {}, 1),
    "deadline": (RateLimited(30), {"deadline": 5.0}, 2),
    "circuit open": (Error("model_unavailable"), {}, 2),
}


@pytest.mark.parametrize(("reply", "config", "calls"), NOTED.values(), ids=NOTED)
def test_every_error_leads_to_the_report(
    reply: Reply, config: dict[str, Any], calls: int, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Ours and the library's, alone and however they were wrapped. The note on the library's is the timeline."""
    gateway.plan = FaultPlan.always(reply)
    brain = gr.Resilience(gr.Config(**config), clock=clock, chance=lambda: 0.5)

    with clients.mounted(brain) as mounted:
        for _ in range(calls - 1):
            mounted.post(chat_url(gateway))
        error = raised(lambda: mounted.post(chat_url(gateway)))

    report = gr.report(error)
    assert report is not None
    assert report.host == host(gateway)
    if isinstance(error, gr.ResilienceError):
        assert error.report == report
    else:
        assert notes(error) == [f"gip_resilience: {report}"]
    for wrap in WRAPPED.values():
        assert gr.report(wrap(error)) == report


def test_a_broken_stream_leads_to_the_report(
    clients: Pair, gateway: Gateway, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its breaks are in the timeline, and the error tells it; each break, and the end, has its line."""
    gateway.plan = FaultPlan.always(BreakStream(events=0))
    caplog.set_level(logging.WARNING, "gip_resilience")
    brain = gr.Resilience(clock=clock, chance=lambda: 0.5)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}

    with clients.mounted(brain) as mounted:
        error = raised(lambda: mounted.stream("POST", chat_url(gateway), json=body))

    report = gr.report(error)
    assert report is not None
    assert isinstance(error, gr.StreamInterruptedError)
    assert gr.report(in_groups(error)) == report
    assert [line for line in str(report).splitlines() if " stream: " in line] == [
        f"  +{ended.started + ended.elapsed:.3f} stream: {broken}"
        for ended, broken in zip(report.attempts, report.hops, strict=True)
    ]
    assert [level for level, _ in lines(caplog)] == [logging.WARNING, logging.ERROR]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(Error("invalid_request"), "APIStatusError"), (Reset("request"), "APIConnectionError")],
    ids=["status", "connection"],
)
@pytest.mark.parametrize("sdk", [openai, anthropic], ids=lambda sdk: sdk.__name__)
def test_the_errors_of_sdks_lead_to_the_report(
    sdk: Any, reply: Reply, kind: str, gateway: Gateway, brain: gr.Resilience
) -> None:
    """By the response they carry, or by the error they were made from."""
    gateway.plan = FaultPlan.always(reply)
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}

    if sdk is openai:
        client: Any = openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0)
        endpoint = client.chat.completions
    else:
        client = anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0)
        endpoint, asked = client.messages, {**asked, "max_tokens": 5}
    with client:
        gr.mount(client, brain)
        error = raised(lambda: endpoint.create(**asked))

    assert isinstance(error, getattr(sdk, kind))
    report = gr.report(error)
    assert report is not None
    assert (report.outcome, report.model) == ("failure", MODEL)
    assert gr.report(in_groups(from_cause(error))) == report


def from_cause(error: BaseException) -> BaseException:
    """``raise X from error``."""
    outer = ValueError("outer")
    outer.__cause__ = error
    return outer


def in_context(error: BaseException) -> BaseException:
    """``raise X`` while *error* was handled, and ``from None``."""
    outer = ValueError("outer")
    outer.__context__ = error
    outer.__suppress_context__ = True
    return outer


def in_groups(error: BaseException) -> BaseException:
    """What a task group of a task group raises."""
    return BaseExceptionGroup("outer", [ValueError(), BaseExceptionGroup("inner", [KeyError(), error])])


WRAPPED: dict[str, Callable[[BaseException], BaseException]] = {
    "cause": from_cause,
    "context": in_context,
    "groups": in_groups,
    "all of them": lambda error: in_groups(from_cause(in_context(in_groups(error)))),
}


def chain(length: int, last: BaseException) -> BaseException:
    """A chain of *length* causes that ends in *last*."""
    for _ in range(length):
        last = from_cause(last)
    return last


def test_the_search_is_bounded() -> None:
    """Long chains, wide groups and circles end, with the report if it is near enough."""
    signed = gr.ResilienceError("signed")
    signed.report = call([], 0.0)
    circle = from_cause(ValueError())
    circle.__cause__.__context__ = circle  # type: ignore[union-attr]  # it was just set
    wide = ExceptionGroup("wide", [ValueError() for _ in range(10_000)])

    assert gr.report(chain(900, signed)) is signed.report
    assert gr.report(chain(10_000, signed)) is None
    assert gr.report(circle) is None
    assert gr.report(wide) is None


def test_a_property_that_raises_is_no_report() -> None:
    """Asking is no error, whatever is asked."""

    class ThingError(Exception):
        @property
        def response(self) -> None:
            raise RuntimeError("not now")

        report = extensions = response

    assert gr.report(ThingError()) is None


def test_no_report_without_us(clients: Pair, gateway: Gateway) -> None:
    """A response of a bare client has none."""
    assert gr.report(clients.bare.get(gateway.url + "/healthz").response) is None


# ---- log lines ---------------------------------------------------------------------------------------------


def test_one_line_per_retry(
    clients: Pair, gateway: Gateway, brain: gr.Resilience, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO, with host, model, code, attempt and wait, and one for a hint; nothing for a success."""
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
        (logging.INFO, f"hint {where}: model_overloaded, server asked for 3 s (retry-after), honoured"),
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
    """When it opens; so is every call it refuses, as far as there are not too many of them. The 502 is no line."""
    gateway.plan = FaultPlan.always(Error("model_unavailable"))
    caplog.set_level(logging.INFO, "gip_resilience")

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))
        for _ in range(100):
            raised(lambda: mounted.post(chat_url(gateway)))

    where = f"{host(gateway)} {MODEL}"
    (level, line), *refused = lines(caplog)
    assert level == logging.WARNING
    assert line.startswith(f"circuit {where}: closed -> open (tripped, for ")
    refusal = (logging.WARNING, f"gave up {where}: nothing was sent, 0.000 s (circuit open)")
    assert refused == [refusal] * brain.config.observe.log_burst


@pytest.mark.parametrize("code", ["invalid_request", "invalid_api_key", "unknown_model"])
def test_an_error_of_the_callers_is_no_line(
    code: str, clients: Pair, gateway: Gateway, brain: gr.Resilience, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is paged for a request that was wrong."""
    gateway.plan = FaultPlan.always(Error(code))
    caplog.set_level(logging.DEBUG, "gip_resilience")

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))

    assert lines(caplog) == []


def test_a_call_that_is_given_up_is_an_error(
    clients: Pair, gateway: Gateway, brain: gr.Resilience, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with what the report says; that is at hand, as a caller may catch the error and say nothing."""
    gateway.plan = FaultPlan.always(Html(502))
    caplog.set_level(logging.WARNING, "gip_resilience")

    with clients.mounted(brain) as mounted:
        report = mounted.post(chat_url(gateway)).report

    ((level, line),) = lines(caplog)
    assert level == logging.ERROR
    assert line == (
        f"gave up {host(gateway)} {MODEL}: http_502, {len(report.attempts)} attempt(s) in {report.elapsed:.3f} s"
        f" ({report.reason})"
    )


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
