"""`ScriptedUpstream`: what a client gets without a socket is what it gets over one."""

from __future__ import annotations

import gzip
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.gateway import (
    BreakStream,
    Close,
    EmptyReply,
    Error,
    FaultPlan,
    Garbage,
    Gateway,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Huge,
    Ok,
    PlanError,
    RateLimit,
    RateLimited,
    Raw,
    Redirect,
    Reset,
    Slow,
    SlowBody,
    Stall,
    Status,
    StreamOptions,
    WrongType,
)
from gip_resilience.gateway.http1 import Request
from gip_resilience.testing import FakeClock, ScriptedUpstream, assert_resilient
from harness import CHAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gip_resilience.gateway import Reply
    from harness import Harness, Session

STREAMED = CHAT | {"stream": True}

REPLIES: list[Reply] = [
    Ok(),
    Ok(headers={"x-mine": "yes"}),
    Error("model_overloaded", retry_after=2),
    Error("invalid_api_key"),
    RateLimited(3),
    Status(204, body="empty"),
    Status(503, body="html"),
    Html(502),
    Huge(100_000),
    Huge(100_000, chunked=True),
    Gzip(Ok()),
    WrongType(then=Ok()),
    SlowBody(40, 0.0),
    EmptyReply(),
    Garbage(),
    Reset("request"),
    Reset("headers"),
    Reset("body"),
    Close("request"),
    Close("headers"),
    Close("body"),
    HalfHeaders("fin"),
    HalfBody("fin"),
    HalfBody("rst"),
    HalfBody("eof"),
    HalfBody("short_length"),
    HalfBody("truncated_gzip"),
    HalfBody("bad_chunk"),
    BreakStream(how="eof", events=2),
    BreakStream(how="fin", events=2),
    BreakStream(how="fin", events=2, framing="close"),
    BreakStream(how="fin", events=2, framing="length"),
    BreakStream(how="rst", byte=70),
    BreakStream(how="error", events=2, code="model_overloaded", done=True),
    BreakStream(how="garbled", events=1),
    BreakStream(how="eof", events=3, gzip=True),
    BreakStream(how="eof", char=True),
]
"""Each kind of reply that needs no time."""

BRIEF = 0.05
"""Seconds that a client waits for an upstream that says nothing."""

TIMED: list[Reply] = [
    Stall(),
    HalfHeaders("stall"),
    HalfBody("stall"),
    Slow(30.0),
    BreakStream(how="stall", events=2),
]
"""Replies that a client gives up on."""


def connect(session: Session, upstream: ScriptedUpstream) -> None:
    """Have *upstream* answer an open client; to be called before anything is mounted."""
    name = session.harness.name
    if name == "requests":
        session.client.mount("http://", upstream.requests_adapter())
    elif name.startswith("httpx2"):
        session.client._transport = upstream.httpx2_transport()
    else:
        session.client._transport = upstream.httpx_transport()


def outcome(session: Session, url: str, body: dict[str, Any], timeout: float = 5.0) -> tuple[Any, ...]:
    """What the caller of a client gets: status, headers and body, or the class of the error."""
    try:
        answer = session.post(url, json=body, timeout=timeout)
    except Exception as error:
        return (type(error).__module__.partition(".")[0], type(error).__name__)
    changing = {"date", "x-request-id"}
    headers = {name: value for name, value in answer.headers.items() if name not in changing}
    return answer.status, headers, answer.content


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("reply", REPLIES, ids=repr)
def test_the_same_as_over_a_socket(harness: Harness, reply: Reply, streamed: bool) -> None:
    """Status, headers, body and class of error of a bare client are those that the gateway brings about."""
    body = STREAMED if streamed else CHAT
    plan = FaultPlan.always(reply)
    with Gateway(plan) as gateway, harness.open() as session:
        over_a_socket = outcome(session, gateway.base_url + "/chat/completions", body)
        seen = gateway.requests
    upstream = ScriptedUpstream(plan)
    with harness.open() as session:
        connect(session, upstream)
        without = outcome(session, upstream.base_url + "/chat/completions", body)

    assert without == over_a_socket
    told = [(s.status, s.code, s.whole, s.reply, s.body_sha256, s.model) for s in upstream.requests]
    assert told == [(s.status, s.code, s.whole, s.reply, s.body_sha256, s.model) for s in seen]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("reply", TIMED, ids=repr)
def test_what_takes_too_long_is_given_up(harness: Harness, reply: Reply, streamed: bool) -> None:
    """A client meets with the same error as over a socket, after as long on the clock and no time at all."""
    body = STREAMED if streamed else CHAT
    plan = FaultPlan.always(reply)
    with Gateway(plan) as gateway, harness.open() as session:
        over_a_socket = outcome(session, gateway.base_url + "/chat/completions", body, BRIEF)
    clock = FakeClock()
    upstream = ScriptedUpstream(plan, clock=clock)
    before = clock.monotonic()
    with harness.open() as session:
        connect(session, upstream)
        without = outcome(session, upstream.base_url + "/chat/completions", body, BRIEF)

    assert without == over_a_socket
    assert clock.monotonic() - before == pytest.approx(BRIEF)
    assert clock.slept == []


@pytest.mark.parametrize("reply", [Reset("accept"), Close("accept")], ids=repr)
def test_a_connection_that_is_refused(harness: Harness, reply: Reply) -> None:
    """The client's own error for a connection that ends before a word."""
    upstream = ScriptedUpstream([reply])
    with harness.open() as session:
        connect(session, upstream)
        errors = harness.errors
        kinds = (
            (errors.ConnectionError,)
            if harness.name == "requests"
            else (errors.ConnectError, errors.RemoteProtocolError)
        )
        with pytest.raises(kinds):
            session.post(upstream.base_url + "/chat/completions")
        assert session.post(upstream.base_url + "/chat/completions").status == 200
    assert len(upstream.requests) == 1


def test_who_waits_for_ever_is_told(harness: Harness) -> None:
    """A test in which nothing would ever happen again ends with the reason."""
    upstream = ScriptedUpstream([Stall()])
    with harness.open() as session:
        connect(session, upstream)
        with pytest.raises(RuntimeError, match="would wait for ever"):
            session.post(upstream.base_url + "/chat/completions", timeout=None)
    assert upstream.open_connections == set()


def test_a_call_is_mended(harness: Harness) -> None:
    """Mounted, waiting included: the hint is honoured on the clock that both share."""
    upstream = ScriptedUpstream(FaultPlan.script([Error("model_overloaded", retry_after=7), Html(502)]))
    brain = gr.Resilience(clock=upstream.clock)
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, brain)
        answer = session.post(upstream.base_url + "/chat/completions")
        assert answer.status == 200
    first, second, third = upstream.requests
    assert [first.code, second.status, third.status] == ["model_overloaded", 502, 200]
    assert second.at - first.at >= 7
    assert upstream.clock.total >= 7
    assert_resilient(upstream, answered=1, closed=True)


@pytest.mark.parametrize("at_once", [False, True], ids=["piece by piece", "at once"])
@pytest.mark.parametrize("how", ["eof", "rst"])
def test_a_stream_is_mended(harness: Harness, how: Any, at_once: bool) -> None:
    """A stream that breaks after its 200 is made whole without a socket, too, however it is read."""
    fault = BreakStream(how=how, events=3)
    upstream = ScriptedUpstream([fault])
    body = STREAMED | {"temperature": 0}
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(clock=upstream.clock))
        url = upstream.base_url + "/chat/completions"
        answer = session.post(url, json=body) if at_once else session.stream("POST", url, json=body)[0]
        assert answer.content.endswith(b"data: [DONE]\n\n")
        assert answer.report.outcome == "success"
    assert [seen.whole for seen in upstream.requests] == [False, True]
    assert_resilient(upstream, answered=1, closed=True)


def test_a_deadline_holds(harness: Harness) -> None:
    """The library gives a stalled attempt what is left of the call's time, and no more."""
    upstream = ScriptedUpstream(FaultPlan.always(Slow(500.0)))
    with harness.open() as session:
        connect(session, upstream)
        brain = gr.Resilience(gr.Config(deadline=3.0), clock=upstream.clock)
        gr.mount(session.client, brain)
        with pytest.raises(gr.DeadlineExceededError):
            session.post(upstream.base_url + "/chat/completions", timeout=60.0)
    assert upstream.clock.monotonic() - 1000.0 == pytest.approx(3.0)


def test_connections_are_pooled(harness: Harness) -> None:
    """An answer that is read gives its connection back; one that is left open keeps it until it is closed."""
    upstream = ScriptedUpstream()
    url = upstream.base_url + "/chat/completions"
    with harness.open() as session:
        connect(session, upstream)
        session.post(url)
        session.post(url)
        assert (upstream.connections, len(upstream.open_connections)) == (1, 1)
        assert {seen.connection for seen in upstream.requests} == {1}
    assert upstream.open_connections == set()


def test_rate_limits_count_by_the_clock() -> None:
    """A window is over when the clock says so."""
    upstream = ScriptedUpstream(rate_limit=RateLimit(requests=1, window=60.0))
    import httpx

    with httpx.Client(transport=upstream.httpx_transport(), base_url=upstream.base_url) as client:
        statuses = [client.post("/chat/completions", json=CHAT).status_code for _ in range(2)]
        upstream.clock.advance(60.0)
        statuses.append(client.post("/chat/completions", json=CHAT).status_code)
    assert statuses == [200, 429, 200]


BODIES: list[tuple[str, Any]] = [
    ("text", "ä"),
    ("bytes", b"abc"),
    ("pieces", lambda: iter([b"a", b"bc"])),
    ("none", b""),
]


async def awaited(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same for an awaiting client."""
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(("kind", "body"), BODIES, ids=[kind for kind, _ in BODIES])
def test_bodies_arrive(harness: Harness, kind: str, body: Any) -> None:
    """Whatever a body is made of, its bytes are recorded when that was asked for."""
    upstream = ScriptedUpstream(record_bodies=True)
    given = body() if callable(body) else body
    if harness.colour == "async" and kind == "pieces":
        given = awaited(given)
    with harness.open() as session:
        connect(session, upstream)
        session.post(upstream.url + "/echo", **session.content(given))
    wanted = {"text": "ä".encode(), "bytes": b"abc", "pieces": b"abc", "none": b""}[kind]
    assert [seen.body for seen in upstream.requests] == [wanted]


def test_cookies_are_kept(harness: Harness) -> None:
    """What the upstream sets comes back with the next request."""
    upstream = ScriptedUpstream()
    with harness.open() as session:
        connect(session, upstream)
        session.get(upstream.url + "/cookies/set")
        session.get(upstream.url + "/healthz")
    assert [seen.header("cookie") is not None for seen in upstream.requests] == [False, True]


def test_redirects_are_followed(harness: Harness) -> None:
    """A redirect leads to the next request of the script."""
    upstream = ScriptedUpstream([Redirect("/v1/models", status=303), Ok()])
    options = {} if harness.name == "requests" else {"follow_redirects": True}
    with harness.open(**options) as session:
        connect(session, upstream)
        assert session.post(upstream.base_url + "/chat/completions").status == 200
    assert [(seen.method, seen.path) for seen in upstream.requests] == [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
    ]


def test_a_slow_body_takes_its_time(harness: Harness) -> None:
    """Each piece but the first comes after its interval, on the clock; so does an end that is late."""
    fault = BreakStream(how="eof", events=10_000, late=2.0)
    upstream = ScriptedUpstream([SlowBody(0, 1.0, then=fault)], streams=StreamOptions())
    with harness.open() as session:
        connect(session, upstream)
        answer, _ = session.stream("POST", upstream.base_url + "/chat/completions", json=STREAMED)
    events = answer.content.count(b"\n\n")
    assert upstream.clock.monotonic() - 1000.0 == pytest.approx(events - 1 + 2.0)


def test_a_trickling_end_takes_ten_seconds(harness: Harness) -> None:
    """The bytes of a last chunk that hardly ends come in time, one by one."""
    upstream = ScriptedUpstream([BreakStream(how="eof", events=10_000, trickle=0.5)])
    with harness.open() as session:
        connect(session, upstream)
        session.stream("POST", upstream.base_url + "/chat/completions", json=STREAMED)
    assert upstream.clock.monotonic() - 1000.0 == pytest.approx(10.0)


@pytest.mark.parametrize(
    "plan", [[Ok(), Raw(b"x")], [Ok(), Slow(1.0, then=Raw(b"x"))]], ids=["bare", "nested"]
)
def test_raw_bytes_need_a_socket(plan: list[Reply]) -> None:
    """A plan that cannot be played here is refused, with the place."""
    with pytest.raises(PlanError, match=r"rules\[1\].reply: expected an answer"):
        ScriptedUpstream(plan)
    upstream = ScriptedUpstream()
    with pytest.raises(PlanError, match="Gateway"):
        upstream.plan = plan  # type: ignore[assignment]  # a setter takes more than the getter gives
    assert upstream.plan == FaultPlan()


def test_a_new_plan_and_a_new_record() -> None:
    """Both may be changed between two calls."""
    import requests

    upstream = ScriptedUpstream()
    session = requests.Session()
    session.mount("http://", upstream.requests_adapter())
    session.post(upstream.base_url + "/chat/completions", json=CHAT)
    upstream.plan = FaultPlan.always(Error("model_overloaded"))
    upstream.clear()
    assert session.post(upstream.base_url + "/chat/completions", json=CHAT).status_code == 503
    assert [seen.code for seen in upstream.requests] == ["model_overloaded"]
    assert "1 requests on 0 connections" in repr(upstream)
    assert "ScriptedUpstream" in repr(session.get_adapter("http://"))
    assert "ScriptedUpstream" in repr(upstream.httpx_transport())


def test_a_gzip_answer_is_read_by_the_client(harness: Harness) -> None:
    """Compressed bytes are what arrives; the client decodes them."""
    upstream = ScriptedUpstream([Gzip(Ok())])
    with harness.open() as session:
        connect(session, upstream)
        _, raw = session.stream_raw("POST", upstream.base_url + "/chat/completions", json=CHAT)
    assert b"chat.completion" in gzip.decompress(raw)


def test_many_threads_at_once() -> None:
    """No request is lost, and no connection carries two answers at a time."""
    upstream = ScriptedUpstream(FaultPlan.always(Error("model_overloaded"), p=0.3))
    request = Request("GET", "/v1/models", 1, ())
    busy: set[int | None] = set()
    twice: list[int | None] = []

    def work() -> None:
        for _ in range(50):
            exchange = upstream.exchange(request, None)
            number = exchange._number
            if number in busy:
                twice.append(number)
            busy.add(number)
            first = next(exchange.pieces())
            busy.discard(number)
            assert first
            exchange.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(upstream.requests) == 400
    assert twice == []
    assert 60 < sum(seen.code is not None for seen in upstream.requests) < 180
    assert upstream.open_connections == set()
