"""`judge` and `assert_resilient`: what bad clients do is found, and nothing is found in ours."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest
import requests
from httpx_retries import Retry as HttpxRetry
from httpx_retries import RetryTransport
from requests.adapters import HTTPAdapter
from urllib3.util import Retry as UrllibRetry

import gip_resilience as gr
from gip_resilience.gateway import (
    BreakStream,
    EmptyReply,
    Error,
    FaultPlan,
    Gateway,
    HalfBody,
    Ok,
    RateLimited,
    Seen,
)
from gip_resilience.testing import FakeClock, Finding, assert_resilient, judge
from gip_resilience.testing.judging import Fault
from harness import CHAT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Harness

EXACT = CHAT | {"temperature": 0}
STREAMED = EXACT | {"stream": True}

# ---- by the record alone ----------------------------------------------------------------------------------


@dataclass
class Recorded:
    """A record made by hand."""

    requests: list[Seen]
    open_connections: set[int] = field(default_factory=set)


def seen(at: float, status: int | None = 200, code: str | None = None, **other: Any) -> Seen:
    """A request that arrived at *at*; whole if its answer was good, unless something else is said."""
    values: dict[str, Any] = {
        "at": at,
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": (),
        "body_size": 1,
        "body_sha256": "a",
        "model": "m",
        "stream": False,
        "connection": 1,
        "retry_count": None,
        "reply": "ok",
        "status": status,
        "code": code,
        "whole": status == 200 and code is None,
    }
    return Seen(**(values | other))


def overloaded(at: float, **other: Any) -> Seen:
    """A request that met with an overload without a hint."""
    return seen(at, 503, "model_overloaded", **other)


RETRIEVAL = {"method": "GET", "path": "/v1/responses/r1"}
RESPONSES = {"path": "/v1/responses"}

VERDICTS: list[tuple[str, list[Seen], dict[str, Any], list[tuple[str, tuple[int, ...]]]]] = [
    ("nothing", [], {}, []),
    ("one good call", [seen(0)], {"answered": 1}, []),
    ("the same again after a good answer is a new call", [seen(0), seen(0)], {"answered": 2}, []),
    ("after the hint", [seen(0, 429, not_before=2.0), seen(2.0)], {}, []),
    ("a timer's error before the hint", [seen(0, 429, not_before=2.0), seen(1.995)], {}, []),
    ("before the hint", [seen(0, 429, not_before=2.0), seen(1.9)], {}, [("early", (0, 1))]),
    ("another call before the hint", [seen(0, 429, not_before=2.0), seen(1.0, body_sha256="b")], {}, []),
    ("a status that stays", [seen(0, 400), seen(5)], {}, [("hopeless", (0, 1))]),
    ("a code that stays", [seen(0, 429, "insufficient_quota"), seen(5)], {}, [("hopeless", (0, 1))]),
    ("the same with another key", [seen(0, 401, headers=(("x-api-key", "1"),)), seen(5)], {}, []),
    ("the same elsewhere", [seen(0, 404), seen(5, path="/v2")], {}, []),
    ("one short wait", [overloaded(0), seen(0.001)], {}, []),
    ("two short waits", [overloaded(0), overloaded(0.001), seen(0.002)], {}, [("no_backoff", (1, 2))]),
    ("a short wait and a long one", [overloaded(0), overloaded(0.001), seen(0.5)], {}, []),
    (
        "two short waits, as allowed",
        [overloaded(0), overloaded(0.001), seen(0.002)],
        {"min_backoff": 0.0},
        [],
    ),
    ("broken connections need no wait", [seen(0, None), seen(0, None), seen(0)], {}, []),
    (
        "many calls with a short wait each",
        [make(0.001 * n, body_sha256=str(n)) for make in (overloaded, seen) for n in range(10)],
        {},
        [("no_backoff", tuple(range(10, 20)))],
    ),
    (
        "many calls with a wait each",
        [
            make(at + 0.001 * n, body_sha256=str(n))
            for make, at in ((overloaded, 0), (seen, 1))
            for n in range(10)
        ],
        {},
        [],
    ),
    ("six attempts", [*(overloaded(n) for n in range(5)), seen(9)], {}, []),
    ("seven attempts", [*(overloaded(n) for n in range(6)), seen(9)], {}, [("storm", tuple(range(7)))]),
    (
        "three attempts, two allowed",
        [overloaded(0), overloaded(1), seen(9)],
        {"max_attempts": 2},
        [("storm", (0, 1, 2))],
    ),
    (
        "ten calls sent three times each",
        [overloaded(n, body_sha256=str(call)) for n in range(3) for call in range(10)],
        {},
        [("storm", ())],
    ),
    (
        "ten calls sent twice each",
        [overloaded(n, body_sha256=str(call)) for n in range(2) for call in range(10)],
        {},
        [],
    ),
    ("a broken stream that is asked for again", [seen(0, whole=False), seen(1)], {}, []),
    ("a broken stream that is left", [seen(0, whole=False)], {}, [("truncated", (0,))]),
    ("a broken stream that the caller was told of", [seen(0, whole=False)], {"answered": 0}, []),
    (
        "a broken stream that was taken for whole",
        [seen(0, whole=False)],
        {"answered": 1},
        [("truncated", (0,))],
    ),
    ("an error is no broken stream", [seen(0, 400)], {}, []),
    (
        "a broken response that is retrieved",
        [seen(0, whole=False, **RESPONSES), seen(1, **RETRIEVAL)],
        {"answered": 1},
        [],
    ),
    (
        "a broken response, retrieved in vain",
        [seen(0, whole=False, **RESPONSES), seen(1, whole=False, **RETRIEVAL)],
        {},
        [("truncated", (1,))],
    ),
    (
        "a broken stream, resumed by an event's id",
        [
            seen(0, whole=False),
            seen(1, method="GET", body_sha256="", headers=(("last-event-id", "7"),)),
        ],
        {"answered": 1},
        [],
    ),
    (
        "reading something else is no retrieval",
        [seen(0, whole=False, **RESPONSES), seen(1, method="GET")],
        {"answered": 1},
        [],
    ),
]


@pytest.mark.parametrize(
    ("record", "options", "found"), [row[1:] for row in VERDICTS], ids=[row[0] for row in VERDICTS]
)
def test_what_is_found(
    record: list[Seen], options: dict[str, Any], found: list[tuple[str, tuple[int, ...]]]
) -> None:
    """The kind of fault, and the requests it is about."""
    findings = judge(Recorded(record), **options)

    assert [(finding.fault, finding.requests) for finding in findings] == found
    if found:
        with pytest.raises(
            AssertionError, match=f"not resilient, in {len(record)} requests:\n  {found[0][0]}: "
        ):
            assert_resilient(Recorded(record), **options)
    else:
        assert_resilient(Recorded(record), **options)
    assert_resilient(Recorded(record), allow=get_args(Fault), **options)


GIVEN_UP = [overloaded(0, connection=1), seen(5, connection=2)]

LEAKS: list[tuple[str, list[Seen], set[int], dict[str, Any], list[tuple[int, ...]]]] = [
    ("closed", GIVEN_UP, {2}, {}, []),
    ("open", GIVEN_UP, {1, 2}, {}, [(0,)]),
    ("open, and used again", [*GIVEN_UP, seen(6, connection=1, body_sha256="b")], {1, 2}, {}, []),
    ("the same connection", [overloaded(0), seen(5)], {1}, {}, []),
    ("a pool that is in use", [seen(0)], {1}, {}, []),
    ("a pool that was closed", [seen(0)], set(), {"closed": True}, []),
    ("a pool that should be closed", [seen(0)], {1}, {"closed": True}, [(0,)]),
    ("both", GIVEN_UP, {1, 2}, {"closed": True}, [(0,), (1,)]),
    ("a connection without a request", [], {3}, {"closed": True}, [()]),
]


@pytest.mark.parametrize(
    ("record", "open_now", "options", "found"), [row[1:] for row in LEAKS], ids=[row[0] for row in LEAKS]
)
def test_what_is_leaked(
    record: list[Seen],
    open_now: set[int],
    options: dict[str, Any],
    found: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that a retry left behind, or that is open when none should be."""
    monkeypatch.setattr("gip_resilience.testing.judging._SETTLE", 0.0)
    findings = judge(Recorded(record, open_now), **options)

    assert [finding.requests for finding in findings] == found
    assert {finding.fault for finding in findings} <= {"leaked"}


def test_a_connection_may_take_a_moment_to_close() -> None:
    """The gateway is given the time to notice."""

    class Closing(Recorded):
        looks = 0

        @property
        def open_connections(self) -> set[int]:  # type: ignore[override]  # computed, here
            self.looks += 1
            return {1} if self.looks < 3 else set()

        @open_connections.setter
        def open_connections(self, value: set[int]) -> None:
            pass

    record = Closing([seen(0)])
    assert judge(record, closed=True) == []
    assert record.looks == 3


def test_all_faults_in_their_order() -> None:
    """Findings are sorted by kind, so that a text can be compared."""
    record = [
        seen(0, whole=False, body_sha256="t"),
        seen(0, 429, not_before=9.0),
        seen(1, 400),
        *(overloaded(1) for _ in range(6)),
    ]
    faults = [finding.fault for finding in judge(Recorded(record))]
    assert faults == ["early", "hopeless", "no_backoff", "storm", "truncated"]


def test_the_text_says_what_and_nothing_secret() -> None:
    """Requests are named by place, method, path and answer; no header and no body is told."""
    secret = (("authorization", "redacted:0123"), ("x-note", "private words"))
    record = [seen(0, 503, "model_overloaded", not_before=7.0, headers=secret), seen(1, headers=secret)]
    with pytest.raises(AssertionError) as caught:
        assert_resilient(Recorded(record))
    assert str(caught.value) == (
        "the client is not resilient, in 2 requests:\n"
        "  early: request 1 came 1.000 s after request 0 (POST /v1/chat/completions: 503 model_overloaded),"
        " which had asked for 7.000 s"
    )


def test_the_text_says_where_no_answer_came() -> None:
    """A connection that broke has no status."""
    (finding,) = judge(Recorded([seen(n, None) for n in range(7)]))
    assert str(finding) == (
        "storm: request 0 (POST /v1/chat/completions: no answer) was sent 7 times, more than 6"
    )


def test_an_unknown_fault_cannot_be_allowed() -> None:
    """A slip of the pen must not pass for permission."""
    with pytest.raises(ValueError, match=r"allow: expected some of early, hopeless, .* got haste"):
        assert_resilient(Recorded([]), allow=["haste"])  # type: ignore[list-item]  # that is the point


# ---- bad clients ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def naive_loop(gateway: Gateway) -> Iterator[Callable[[dict[str, Any]], bool]]:
    """Sends again whatever came back, at once, without a look at it; leaves every answer but the last unread."""
    with requests.Session() as session:
        kept = []

        def call(body: dict[str, Any]) -> bool:
            for _ in range(8):
                response = session.post(
                    gateway.base_url + "/chat/completions", json=body, stream=True, timeout=5
                )
                kept.append(response)
                if response.ok:
                    with contextlib.suppress(requests.RequestException):
                        return bool(response.content)
            return False

        try:
            yield call
        finally:
            for response in kept:
                response.close()


@contextlib.contextmanager
def urllib3_retry(gateway: Gateway) -> Iterator[Callable[[dict[str, Any]], bool]]:
    """`urllib3.Retry` as it is often copied: every bad status, any method, no backoff, hints not heeded."""
    retry = UrllibRetry(
        total=8,
        status_forcelist=[400, 429, 500, 502, 503, 504],
        allowed_methods=None,
        respect_retry_after_header=False,
        raise_on_status=False,
    )
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))

        def call(body: dict[str, Any]) -> bool:
            with contextlib.suppress(requests.RequestException):
                return session.post(gateway.base_url + "/chat/completions", json=body, timeout=5).ok
            return False

        yield call


@contextlib.contextmanager
def httpx_retries(gateway: Gateway) -> Iterator[Callable[[dict[str, Any]], bool]]:
    """`httpx-retries`, told the same."""
    retry = HttpxRetry(
        total=8,
        allowed_methods=["POST"],
        status_forcelist=[400, 429, 500, 502, 503, 504],
        respect_retry_after_header=False,
    )
    with httpx.Client(transport=RetryTransport(retry=retry)) as client:

        def call(body: dict[str, Any]) -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return client.post(gateway.base_url + "/chat/completions", json=body).is_success
            return False

        yield call


HALF = FaultPlan.script([HalfBody("eof")])
CUT = FaultPlan.script([BreakStream(how="eof", events=2)])
SCENES: dict[str, tuple[FaultPlan, int, dict[str, Any]]] = {
    "early": (FaultPlan.script([RateLimited(2)]), 1, CHAT),
    "hopeless": (FaultPlan.always(Error("invalid_argument")), 1, CHAT),
    "no_backoff": (FaultPlan.script([Error("model_overloaded")] * 3), 1, CHAT),
    "storm": (FaultPlan.always(Error("model_overloaded")), 1, CHAT),
    "storm of many": (FaultPlan.always(Error("model_server_error")), 12, CHAT),
    "truncated answer": (HALF, 1, CHAT),
    "truncated stream": (CUT, 1, STREAMED),
    "leaked": (FaultPlan.script([Error("model_overloaded")]), 1, CHAT),
}
"""What happens, how many calls are made, and what they ask."""

BAD = [
    (naive_loop, [*SCENES]),
    (urllib3_retry, [name for name in SCENES if name != "leaked"]),
    (httpx_retries, [name for name in SCENES if name != "leaked"]),
]
"""Bad clients, and the scenes in which they do wrong. The two libraries do give connections back."""


def bodies(body: dict[str, Any], calls: int) -> list[dict[str, Any]]:
    """A body for each call, all different."""
    return [body | {"user": f"user {number}"} for number in range(calls)]


@pytest.mark.parametrize(
    ("client", "scene"),
    [
        pytest.param(client, scene, id=f"{client.__name__}-{scene}")
        for client, scenes in BAD
        for scene in scenes
    ],
)
def test_bad_clients_are_found(client: Any, scene: str) -> None:
    """Each of the faults, in a client that commits it over a real connection."""
    plan, calls, body = SCENES[scene]
    with Gateway(plan, clock=FakeClock().monotonic) as gateway, client(gateway) as call:
        answered = sum(call(asked) for asked in bodies(body, calls))
        found = judge(gateway, answered=answered)
        with pytest.raises(
            AssertionError, match=scene.partition(" ")[0].replace("truncated", "taken for answered")
        ):
            assert_resilient(gateway, answered=answered)
    assert scene.partition(" ")[0] in {finding.fault for finding in found}


@pytest.mark.parametrize("scene", SCENES)
def test_nothing_is_found_in_ours(harness: Harness, scene: str) -> None:
    """In every one of these scenes, under every client."""
    plan, calls, body = SCENES[scene]
    clock = FakeClock()
    with Gateway(plan, clock=clock.monotonic) as gateway:
        brain = gr.Resilience(clock=clock, chance=lambda: 0.5)
        answered = 0
        with harness.open(brain) as session:
            for asked in bodies(body, calls):
                with contextlib.suppress(gr.ResilienceError):
                    answered += session.post(gateway.base_url + "/chat/completions", json=asked).status == 200
            assert_resilient(gateway, answered=answered)
        assert_resilient(gateway, answered=answered, closed=True)
        assert judge(gateway, answered=answered, closed=True) == []


def test_a_caller_who_was_told_is_not_deceived(harness: Harness) -> None:
    """A stream that cannot be mended ends with an error: nothing was taken for whole."""
    clock = FakeClock()
    plan = FaultPlan.always(BreakStream(how="eof", events=4))
    told = False
    with Gateway(plan, clock=clock.monotonic) as gateway:
        with harness.open(gr.Resilience(clock=clock, chance=lambda: 0.5)) as session:
            try:
                session.stream("POST", gateway.base_url + "/chat/completions", json=CHAT | {"stream": True})
            except (
                gr.StreamInterruptedError
            ):  # not held: requests keeps a pool open for as long as an error of it lives
                told = True
        assert told
        assert_resilient(gateway, answered=0, closed=True)
        assert {finding.fault for finding in judge(gateway)} == {"truncated"}


def test_a_leak_is_seen_on_a_real_connection() -> None:
    """A client that is closed while an answer of it is still held open."""
    with Gateway() as gateway:
        client = httpx.Client()
        response = client.send(client.build_request("GET", gateway.url + "/healthz"), stream=True)
        (finding,) = judge(gateway, closed=True)
        assert finding.fault == "leaked"
        response.close()
        client.close()
        assert judge(gateway, closed=True) == []


def test_an_early_answer_counts_from_when_it_was_sent() -> None:
    """What is asked for counts from the moment the answer left, delay included; a date is read by its own Date."""
    from gip_resilience.gateway import Slow, Status

    sent = "Sun, 22 Nov 2026 10:00:00 GMT"
    until = "Sun, 22 Nov 2026 10:00:30 GMT"
    plan = FaultPlan.script(
        [
            Slow(0.02, then=RateLimited(2)),
            Status(503, headers={"retry-after-ms": "1500"}, retry_after=9),
            Status(503, headers={"date": sent}, retry_after=until),
            Status(503, headers={"date": sent}, retry_after="soon"),
            EmptyReply(),
            Ok(),
        ]
    )
    with Gateway(plan, clock=FakeClock().monotonic) as gateway, httpx.Client() as client:
        for _ in range(6):
            with contextlib.suppress(httpx.RemoteProtocolError):
                client.get(gateway.base_url + "/models")
        assert [request.not_before for request in gateway.requests] == [2.02, 1.5, 30.0, None, None, None]


def test_a_finding_reads_well() -> None:
    """Kind first."""
    assert str(Finding("storm", "too many", (1, 2))) == "storm: too many"
