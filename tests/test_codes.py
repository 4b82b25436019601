"""Each of the gateway's 23 codes, under each of the seven clients: sent as often as its policy says, no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan

if TYPE_CHECKING:
    from harness import Harness

    from gip_resilience.gateway import Gateway
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


def test_the_table_is_complete() -> None:
    """Every code of the gateway is in the table."""
    assert set(gr.Code) == ATTEMPTS.keys()


@pytest.mark.parametrize("code", ATTEMPTS)
def test_attempts(code: str, harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """A failure that goes on is sent as often as its policy says, and the server's own answer comes back."""
    gateway.plan = FaultPlan.always(Error(code))
    brain = gr.Resilience(clock=clock)
    with harness.open() as bare:
        expected = bare.post(gateway.base_url + "/chat/completions")
    gateway.clear()

    with harness.open(brain) as mounted:
        answer = mounted.post(gateway.base_url + "/chat/completions")

    assert len(gateway.requests) == ATTEMPTS[code]
    assert (answer.status, answer.content) == (expected.status, expected.content)
    assert answer.report.outcome == "failure"
    assert [attempt.code for attempt in answer.report.attempts] == [code] * ATTEMPTS[code]
