"""Each of the gateway's 23 codes, under each of the seven clients: sent as often as its policy says, no more.

And what the caller gets is the server's own last answer, as a client without us gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway
from harness import HARNESSES
from matrix import Pair, chat_url, header_pairs, pair, raised

if TYPE_CHECKING:
    from gip_resilience.testing import FakeClock

ATTEMPTS = {
    "missing_api_key": 1,
    "invalid_api_key": 1,
    "unauthorized": 1,
    "rate_limit_exceeded": 4,
    "invalid_request": 1,
    "invalid_argument": 1,
    "not_found": 1,
    "unknown_model": 1,
    "invalid_content_media": 1,
    "unavailable_content_media": 1,
    "unsafe_content": 1,
    "unknown_app": 1,
    "invalid_app": 1,
    "unsupported_interface": 1,
    "unknown_workspace": 1,
    "failed_request": 1,
    "internal_error": 1,
    "model_server_error": 3,
    "model_overloaded": 4,
    "model_unavailable": 1,
    "model_timeout": 2,
    "stream_error": 3,
    "stream_terminated": 3,
}

STATUS = {
    **dict.fromkeys(ATTEMPTS, 400),
    **dict.fromkeys(("missing_api_key", "invalid_api_key"), 401),
    "unauthorized": 403,
    **dict.fromkeys(("not_found", "unknown_model", "unknown_app"), 404),
    "rate_limit_exceeded": 429,
    **dict.fromkeys(("unknown_workspace", "failed_request", "internal_error", "model_server_error"), 500),
    "model_unavailable": 502,
    "model_overloaded": 503,
    "model_timeout": 504,
    **dict.fromkeys(("stream_error", "stream_terminated"), 200),
}
"""The gateway's own; nothing here may depend on it, so another one is played as well."""


def test_the_table_is_complete() -> None:
    """Every code of the gateway is in the table."""
    assert set(gr.Code) == ATTEMPTS.keys()


@pytest.mark.parametrize("code", ATTEMPTS)
def test_attempts(code: str, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """A failure that goes on is sent as often as its policy says, and all of it is in the report."""
    gateway.plan = FaultPlan.always(Error(code))
    brain = gr.Resilience(clock=clock)

    with clients.mounted(brain) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert len(gateway.requests) == ATTEMPTS[code]
    assert [seen.code for seen in gateway.requests] == [code] * ATTEMPTS[code]
    # At the gate a call waits twice: until it opens, and for its turn.
    waits = 2 if code == "rate_limit_exceeded" else 1
    assert len(clock.slept) == waits * (ATTEMPTS[code] - 1)
    report = answer.report
    assert report.outcome == "failure"
    assert [(a.number, a.code, a.status) for a in report.attempts] == [
        (number, code, STATUS[code]) for number in range(1, ATTEMPTS[code] + 1)
    ]
    assert report.waited == pytest.approx(sum(clock.slept))
    assert not report.maybe_executed
    assert brain.metrics.snapshot().sent(code) == ATTEMPTS[code]
    assert brain.metrics.snapshot().retries == ATTEMPTS[code] - 1


@pytest.mark.parametrize("code", ATTEMPTS)
def test_the_answer_is_the_servers_own(code: str, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Status, headers, body, JSON, text, elapsed, history and ``raise_for_status`` are as without us."""
    headers = {"set-cookie": "who=gateway; Path=/", "x-trace": "t-1", "content-language": "en"}
    gateway.plan = FaultPlan.always(Error(code, headers=headers))
    bare = clients.bare.post(chat_url(gateway))

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert (answer.status, answer.content) == (bare.status, bare.content)
    assert header_pairs(answer) == header_pairs(bare)
    ours, theirs = answer.response, bare.response
    assert ours.json() == theirs.json()
    assert ours.json()["error"]["code"] == code
    assert (ours.text, ours.encoding) == (theirs.text, theirs.encoding)
    assert ours.elapsed.total_seconds() >= 0
    assert answer.history == []
    assert str(ours.url) == str(theirs.url)
    assert dict(ours.cookies) == {"who": "gateway"}
    if bare.status >= 400:
        error = raised(ours.raise_for_status)
        assert type(error) is type(raised(theirs.raise_for_status))
        assert gr.report(error) == answer.report


@pytest.mark.parametrize("code", ATTEMPTS)
def test_the_code_decides_whatever_the_status(code: str, gateway: Gateway, clock: FakeClock) -> None:
    """The same code under a status that means something else is retried all the same, and as often."""
    status = 500 if STATUS[code] != 500 else 400
    gateway.plan = FaultPlan.always(Error(code, status=status))

    with pair(HARNESSES[0]) as requests, requests.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert len(gateway.requests) == ATTEMPTS[code]
    assert answer.status == status
