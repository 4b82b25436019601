"""Answers without an error code: the status decides, whatever the body, under each of the seven clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, Ok, Status
from matrix import Pair, chat_url, header_pairs

if TYPE_CHECKING:
    from gip_resilience.gateway import Reply
    from gip_resilience.testing import FakeClock

ATTEMPTS = {
    400: 1,
    401: 1,
    403: 1,
    404: 1,
    408: 2,
    409: 1,
    418: 1,
    425: 2,
    429: 4,
    500: 2,
    501: 1,
    502: 3,
    503: 3,
    504: 2,
    529: 4,
    599: 2,
}
"""Requests per status: the nine of the error page, those that other servers use, and two nobody uses."""

BODIES = ("json", "html", "empty")


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", ATTEMPTS)
def test_a_status_without_a_code(
    status: int, body: str, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """It is sent as often as the status' policy says, and the last answer comes back as it is."""
    gateway.plan = FaultPlan.always(Status(status, body))
    bare = clients.bare.post(chat_url(gateway))
    gateway.clear()

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert len(gateway.requests) == ATTEMPTS[status]
    assert (answer.status, answer.content) == (status, bare.content)
    assert header_pairs(answer) == header_pairs(bare)
    assert [attempt.code for attempt in answer.report.attempts] == [f"http_{status}"] * ATTEMPTS[status]
    # At the gate a call waits twice: until it opens, and for its turn.
    assert len(clock.slept) == (2 if status == 429 else 1) * (ATTEMPTS[status] - 1)


RECOVERIES: dict[str, list[Reply]] = {
    "bad gateway, once": [Status(502, "html")],
    "unavailable, twice": [Status(503, "empty"), Status(503, "empty")],
    "a balancer first, then the model": [Status(502, "html"), Error("model_overloaded")],
    "limited, then the gateway restarts": [Error("rate_limit_exceeded"), Status(503, "json")],
    "each code pays by its own policy": [Error("model_timeout"), Error("model_overloaded")],
}


@pytest.mark.parametrize("failures", RECOVERIES.values(), ids=RECOVERIES)
def test_a_failure_that_passes_is_not_seen(
    failures: list[Reply], clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """When the server recovers in time, the caller gets the one good answer."""
    gateway.plan = FaultPlan.script([*failures, Ok()])

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.status == 200
    assert answer.response.json()["object"] == "chat.completion"
    assert answer.report.outcome == "success"
    assert [attempt.status for attempt in answer.report.attempts][-1] == 200
    assert len(gateway.requests) == len(failures) + 1


def test_every_attempt_sends_the_same_request(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Method, path, headers and body of a retry are those of the first attempt, to the byte."""
    gateway.plan = FaultPlan.script([Status(503), Status(503)])

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        mounted.post(chat_url(gateway), headers={"authorization": "Bearer k-1", "x-tag": "one"})

    first, *others = gateway.requests
    assert len(others) == 2
    assert first.body_size > 0
    for seen in others:
        assert (seen.method, seen.path, seen.headers) == (first.method, first.path, first.headers)
        assert (seen.body_size, seen.body_sha256) == (first.body_size, first.body_sha256)
    assert {seen.connection for seen in gateway.requests} == {first.connection}


@pytest.mark.parametrize("status", [502, 503, 429, 500])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT"])
def test_other_methods(status: int, method: str, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """The same rules hold whatever the method: the answer says whether a repetition makes sense."""
    gateway.plan = FaultPlan.always(Status(status, "html"))

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.request(method, gateway.base_url + "/models")

    assert len(gateway.requests) == ATTEMPTS[status]
    assert answer.status == status
    assert (answer.content == b"") == (method == "HEAD")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299, 304, 400, 404])
def test_what_is_no_failure_to_retry(status: int, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Successes, not-modified and refusals are one request, and as without us."""
    gateway.plan = FaultPlan.always(Status(status, b"" if status in {204, 304} else b"some text"))
    bare = clients.bare.get(gateway.base_url + "/models")
    gateway.clear()

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.get(gateway.base_url + "/models")

    assert len(gateway.requests) == 1
    assert (answer.status, answer.content) == (bare.status, bare.content)
    assert header_pairs(answer) == header_pairs(bare)
    assert answer.report.outcome == ("success" if status < 400 else "failure")
