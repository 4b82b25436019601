"""Streams that are taken up where they broke, over the wire and under each client: by event id, and by cursor."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from endpoints import ANTHROPIC, CHAT, RESPONSES, TEXT, WITH_IDS, Endpoint
from gip_resilience.config import StreamConfig
from gip_resilience.gateway import BreakStream, FaultPlan, Gateway, StreamOptions
from gip_resilience.sse import ServerSentEvent, SSEDecoder
from replays import DONE, ROLE, anthropic, chat, event
from splicing import identified, response, run
from streamed import Outcome, Play, Script, asked_once, brain, deltas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.testing import FakeClock
    from harness import Harness

CASES = json.loads((Path(__file__).parent / "data" / "sse_cases.json").read_text())
LIVE = StreamConfig(resume=("/events",), idle_timeout=0.2)
"""A declared route; a server that falls silent is left after a moment."""

PATIENT = {"stream": gr.Policy(max_attempts=10)}
END = Play(status=204)


@pytest.fixture(scope="module")
def numbering() -> Iterator[Gateway]:
    """A gateway whose events have ids."""
    with Gateway(streams=StreamOptions(event_ids=True)) as started:
        yield started


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Gateway]:
    """One that sends everything again, whatever id it is asked to go on from."""
    with Gateway(streams=StreamOptions(event_ids=True, ignore_last_event_id=True)) as started:
        yield started


def events_of(content: bytes) -> list[ServerSentEvent]:
    """The events in some bytes, by the book."""
    decoder = SSEDecoder()
    return decoder.feed(content) + decoder.finish()


def live(harness: Harness, clock: FakeClock, url: str, method: str = "GET", **options: Any) -> Outcome:
    """What comes of a stream of no known protocol, on the declared route."""
    resilience = brain(clock, stream=LIVE, policies=PATIENT)
    return asked_once(harness, resilience, f"{url}/events", method=method, **options)


# ---- by event id -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", WITH_IDS, ids=repr)
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("how", ["eof", "fin", "error"])
def test_a_stream_goes_on_after_its_last_id(
    harness: Harness,
    numbering: Gateway,
    forgetful: Gateway,
    clock: FakeClock,
    endpoint: Endpoint,
    ignored: bool,
    how: Any,
) -> None:
    """Declared by the server, twice in a row, nothing twice; the body need not say temperature 0."""
    gateway = forgetful if ignored else numbering
    first, second = (4, 9) if ignored else (4, 3)  # the second of a rest, or of everything again
    gateway.plan = FaultPlan.script([BreakStream(how=how, events=first), BreakStream(how=how, events=second)])
    gateway.clear()
    body = {**endpoint.ask("Say hello to the wörld, in 안녕 words."), "stream": True}

    outcome = asked_once(harness, brain(clock), gateway.url + endpoint.path, body)

    assert outcome.events.text(endpoint) == TEXT
    ids = outcome.events.ids
    assert len(set(ids)) == len(ids) == len(outcome.events.blocks)
    assert [seen.header("last-event-id") for seen in gateway.requests] == [
        None,
        ids[first - 1],
        ids[8 if ignored else 6],
    ]
    assert {seen.method for seen in gateway.requests} == {"POST"}
    assert len({seen.body_sha256 for seen in gateway.requests}) == 1
    assert outcome.actions == ["resume", "resume"]
    assert outcome.report.outcome == "success"


def test_a_route_that_is_declared_here_needs_no_word_of_the_server(
    harness: Harness, clock: FakeClock
) -> None:
    """``stream.resume`` names it; and one that is not named is not asked."""
    first = Play(identified(chat({"content": "a"}), "1"), "fin")
    second = Play(identified(chat({"content": "b"}, "stop"), "2") + DONE)
    for paths, sent in ((("/v1/chat/*",), 2), (("/v1/messages",), 1)):
        with Script(first, second) as server:
            config = StreamConfig(resume=paths)
            outcome = asked_once(
                harness, brain(clock, stream=config), server.url + CHAT.path, {"stream": True}
            )
            assert len(server.heard) == sent
            assert (outcome.error is None) == (sent == 2)
            assert outcome.content == first.body + (second.body if sent == 2 else b"")


@pytest.mark.parametrize("name", ["chat", "anthropic"])
def test_another_run_is_not_taken_for_the_rest(harness: Harness, clock: FakeClock, name: str) -> None:
    """The server answered anew, under other ids: what was handed up stays, and the error says so."""
    raw = chat({"content": "a"}) if name == "chat" else anthropic("message_start", message={"id": "msg-1"})
    other = raw.replace(b"-1", b"-2")
    path = CHAT.path if name == "chat" else ANTHROPIC.path
    with Script(Play(identified(raw, "a"), "fin"), Play(identified(other, "b"))) as server:
        config = StreamConfig(resume=("*",))
        outcome = asked_once(harness, brain(clock, stream=config), server.url + path, {"stream": True})
        assert len(server.heard) == 2

    assert outcome.content == identified(raw, "a")
    assert outcome.interruption.code == "stream_gap"
    assert outcome.actions == ["resume", "fail"]


@pytest.mark.parametrize("known", [True, False])
def test_the_server_says_that_there_is_no_more(harness: Harness, clock: FakeClock, known: bool) -> None:
    """204: the end of a stream that has no marker, and of no other; it is not asked again."""
    raw = identified(chat({"content": "a"}) if known else b"data: tick\n\n", "1")
    with Script(Play(raw), END) as server:
        outcome = live(harness, clock, server.url)
        assert len(server.heard) == 2

    assert outcome.content == raw
    if known:
        assert outcome.interruption.code == "stream_terminated"
        assert outcome.report.reason == "the server has no more of it"
    else:
        assert outcome.error is None
        assert outcome.report.outcome == "success"


def test_a_stream_is_taken_up_where_the_server_says(harness: Harness, clock: FakeClock) -> None:
    """With a GET, and the key, and without what described the body."""
    there = Play(identified(chat({"content": "b"}), "2") + DONE)
    first = Play(
        identified(chat({"content": "a"}), "1"),
        "fin",
        headers=("location: /v1/runs/7/stream?x=1", "x-gip-resume: last-event-id"),
    )
    with Script(first, there) as server:
        outcome = asked_once(
            harness,
            brain(clock),
            server.url + CHAT.path,
            {"stream": True},
            headers={"authorization": "Bearer k", "accept": "text/event-stream", "last-event-id": "0"},
        )
        one, two = server.heard

    assert outcome.content == first.body + there.body
    assert (one.method, one.header("last-event-id")) == ("POST", b"0")
    assert (two.method, two.path, two.body) == ("GET", "/v1/runs/7/stream?x=1", b"")
    assert two.header("last-event-id") == b"1"
    assert two.header("authorization") == b"Bearer k"
    assert two.header("accept") == b"text/event-stream"
    assert two.header("content-type") is two.header("content-length") is None


@pytest.mark.parametrize("location", ["{other}/runs/1", "//{host}/runs/1", "http://[", "ftp://x/"])
def test_no_key_goes_to_another_origin(harness: Harness, clock: FakeClock, location: str) -> None:
    """Wherever the server may point: what was handed up cannot go on, and the error says why."""
    with Script() as other:
        place = location.format(other=other.url, host=other.url.removeprefix("http://"))
        headers = (f"location: {place}", "x-gip-resume: last-event-id")
        with Script(Play(identified(chat({"content": "a"}), "1"), "fin", headers=headers)) as server:
            outcome = asked_once(harness, brain(clock), server.url + CHAT.path, {"stream": True})
            assert len(server.heard) == 1
        assert other.heard == []

    assert outcome.interruption.code == "stream_reset"
    assert outcome.content == identified(chat({"content": "a"}), "1")


def test_after_a_restart_the_second_attempt_says_where_it_goes_on(harness: Harness, clock: FakeClock) -> None:
    """The first one's run is not asked for any more, also where only the second can be resumed."""
    resumable = "x-gip-resume: last-event-id"
    for headers in ((resumable, "location: /runs/1"), ()):
        plays = [
            Play(chat(ROLE), "fin", headers=headers),
            Play(
                chat(ROLE, run=2) + identified(chat({"content": "a"}, run=2), "1"),
                "fin",
                headers=(resumable, "location: /runs/2"),
            ),
            Play(identified(chat({"content": "b"}, "stop", run=2), "2") + DONE),
        ]
        with Script(*plays) as server:
            outcome = asked_once(harness, brain(clock), server.url + CHAT.path, {"stream": True})
            assert [heard.path for heard in server.heard] == [CHAT.path, CHAT.path, "/runs/2"]

        assert deltas(outcome.content)["text"] == "ab"
        assert outcome.actions == ["restart", "resume"]


def test_the_server_says_how_long_to_wait(harness: Harness, clock: FakeClock) -> None:
    """``retry`` in milliseconds, which is not more than the policy would ever wait."""
    with Script(Play(b"retry: 1500\n\nid: 1\ndata: a\n\n"), Play(b"id: 2\ndata: b\n\n"), END) as server:
        outcome = live(harness, clock, server.url)
        assert outcome.content == b"retry: 1500\n\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n"
        assert outcome.error is None
    assert clock.slept[0] == pytest.approx(1.575)  # and a little chance
    assert clock.slept[1] >= 1.5
    assert {attempt.hint.source for attempt in outcome.report.attempts if attempt.hint} == {"sse.retry"}

    with Script(Play(b"retry: 999999999\n\nid: 1\ndata: a\n\n")) as server:
        outcome = live(harness, clock, server.url)
        assert outcome.report.reason == "the server asks for 1e+06 s"
        assert len(server.heard) == 1


# ---- the public cases ------------------------------------------------------------------------------------


def play(connection: dict[str, Any]) -> Play:
    """How the server answers one connection of a case."""
    body = base64.b64decode(connection.get("response_b64", ""))
    how = connection.get("break", "")
    headers = tuple(f"{name}: {value}" for name, value in connection.get("headers", {}).items())
    end: Any = "fin" if how == "abort" else "stall" if how.startswith("stall") else "eof"
    return Play(body, end, connection.get("status", 200), headers)


@pytest.mark.parametrize("case", CASES["reconnect_cases"], ids=lambda case: case["id"])
def test_the_public_cases_of_reconnection(harness: Harness, clock: FakeClock, case: dict[str, Any]) -> None:
    """What is asked for after a break, and what comes out in all; a 204 ends each."""
    connections = case["connections"]
    plays = [play(connection) for connection in connections]
    method = connections[0].get("request_method", "GET")
    body = json.loads(connections[0].get("request_body", "null"))
    with Script(*plays, END) as server:
        outcome = live(harness, clock, server.url, method, **({} if body is None else {"json": body}))
        heard = server.heard

    if plays[0].status != 200:  # no stream, and none of our business
        assert len(heard) == 1
        assert outcome.response.status_code == plays[0].status
        return
    # A stream that was asked for with POST and ends in order is at its end.
    assert len(heard) == len(plays) + (method == "GET")
    for connection, request in zip(connections, heard, strict=False):
        for name in connection.get("request_headers_absent", ()):
            assert request.header(name) is None
        for name, value in connection.get("request_headers", {}).items():
            assert request.header(name) == value.encode()
        assert request.method == method
        assert json.loads(request.body or b"null") == body
    expected = [told for one in connections for told in one.get("expected_events", ())]
    if all("expected_events" in one for one in connections):
        found = events_of(outcome.content)
        assert [(one.event, one.data, one.id) for one in found] == [
            (told["event"], told["data"], told["id"]) for told in expected
        ]
    assert outcome.error is None
    assert outcome.report.outcome == "success"


@pytest.mark.parametrize(
    "case", [case for case in CASES["http_cases"] if "status" in case], ids=lambda case: case["id"]
)
def test_the_public_cases_of_answers(harness: Harness, clock: FakeClock, case: dict[str, Any]) -> None:
    """To an attempt to go on: only a 200 with the right type does; of anything else not a byte comes out."""
    first, more = b"id: 1\ndata: a\n\n", b"id: 2\ndata: b\n\n"
    statuses = case["status"] if isinstance(case["status"], list) else [case["status"]]
    for status in statuses:
        content_type = case.get("content_type", "text/event-stream")
        headers = ("location: /events",) if 300 <= status < 400 else ()
        second = Play(more, status=status, content_type=content_type, headers=headers)
        policy = gr.Policy(max_attempts=3 if case["expect"] == "open" else 2)
        resilience = brain(clock, stream=LIVE, policies=dict.fromkeys(gr.config.DEFAULTS, policy))
        with Script(Play(first), second, END) as server:
            outcome = asked_once(harness, resilience, f"{server.url}/events", method="GET")
            sent = len(server.heard)
        if case["expect"] == "open":
            assert outcome.content == first + more
            assert sent == 3
        else:
            assert outcome.content == first
            assert sent == 2
            assert (outcome.error is None) == (status == 204)


def test_every_attempt_asks_as_the_first_did(harness: Harness, clock: FakeClock) -> None:
    """Its headers are the caller's, on every attempt (the cases ``request-accept`` and ``request-cache-control``)."""
    headers = {"accept": "text/event-stream", "cache-control": "no-cache", "authorization": "Bearer k"}
    with Script(Play(b"id: 1\ndata: a\n\n", "fin"), Play(b"data: b\n\n"), END) as server:
        live(harness, clock, server.url, headers=headers)
        for name, value in headers.items():
            assert [heard.header(name) for heard in server.heard] == [value.encode()] * 3


def test_a_live_stream_without_ids_is_asked_for_anew(harness: Harness, clock: FakeClock) -> None:
    """Also one that broke before it said anything."""
    broken = (Play(b"", "fin"), Play(b": hello\n\n", "fin"))
    with Script(*broken, Play(b"data: a\n\n"), Play(b"data: b\n\n"), END) as server:
        outcome = live(harness, clock, server.url)
        assert [heard.header("last-event-id") for heard in server.heard] == [None] * 5

    assert outcome.content == b": hello\n\ndata: a\n\ndata: b\n\n"
    assert outcome.report.outcome == "success"


# ---- by cursor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eof", "fin", "error"])
@pytest.mark.parametrize("events", [1, 4, 9])
def test_a_run_in_the_background_goes_on_after_its_last_number(
    harness: Harness, gateway: Gateway, clock: FakeClock, how: Any, events: int
) -> None:
    """One run, asked for once; every number once and in order; the rest by GET."""
    gateway.plan = FaultPlan.script([BreakStream(how=how, events=events), BreakStream(how=how, events=2)])
    body = {**RESPONSES.ask("Say hello to the wörld, in 안녕 words."), "stream": True, "background": True}

    outcome = asked_once(harness, brain(clock), gateway.url + RESPONSES.path, body)

    found = outcome.events
    assert found.text(RESPONSES) == TEXT
    assert [said["sequence_number"] for said in found.data] == list(range(len(found.data)))
    (name,) = found.names(RESPONSES)
    assert [(seen.method, seen.path) for seen in gateway.requests] == [
        ("POST", "/v1/responses"),
        ("GET", f"/v1/responses/{name}"),
        ("GET", f"/v1/responses/{name}"),
    ]
    assert outcome.actions == ["resume", "resume"]
    assert found.data[-1]["type"] == "response.completed"


def test_what_the_cursor_is_asked_for_with(harness: Harness, clock: FakeClock) -> None:
    """Query, key and padding as in the first request; no body."""
    first = response(0, "response.created", background=True) + run(1, "response.output_text.delta", delta="a")
    rest = run(2, "response.output_text.delta", delta="b") + response(3, "response.completed")
    body = {"background": True, "stream": True, "stream_options": {"include_obfuscation": False}}
    with Script(Play(first, "fin"), Play(rest)) as server:
        outcome = asked_once(
            harness,
            brain(clock),
            f"{server.url}/openai/responses?api-version=2025-04-01",
            body,
            headers={"api-key": "k"},
        )
        _, two = server.heard

    assert outcome.content == first + rest
    assert (two.method, two.body) == ("GET", b"")
    assert two.path == (
        "/openai/responses/resp_1"
        "?api-version=2025-04-01&stream=true&starting_after=1&include_obfuscation=false"
    )
    assert two.header("api-key") == b"k"
    assert two.header("content-type") is None


@pytest.mark.parametrize(
    ("second", "code", "requests"),
    [
        (run(3, "response.output_text.delta", delta="c"), "stream_gap", 2),
        (response(2, "response.failed"), "error_200", 2),
    ],
)
def test_a_run_that_cannot_go_on(
    harness: Harness, clock: FakeClock, second: bytes, code: str, requests: int
) -> None:
    """An event is missing, or the run itself has failed: nothing is asked again, nothing comes twice."""
    first = response(0, "response.created", background=True) + run(1, "response.output_text.delta", delta="a")
    with Script(Play(first, "fin"), Play(second)) as server:
        outcome = asked_once(harness, brain(clock), server.url + RESPONSES.path, {"background": True})
        assert len(server.heard) == requests

    if code == "stream_gap":
        assert outcome.interruption.code == code
        assert outcome.content == first
    else:
        assert outcome.error is None
        assert outcome.content == first + second
    assert outcome.report.outcome == "failure"


def test_what_comes_again_is_dropped(harness: Harness, clock: FakeClock) -> None:
    """A server that takes no notice of the cursor sends it all again."""
    first = response(0, "response.created", background=True) + run(1, "response.output_text.delta", delta="a")
    rest = run(2, "response.output_text.delta", delta="b") + response(3, "response.completed")
    ping = event({"type": "keepalive"}, "keepalive")
    with Script(Play(first, "fin"), Play(first + ping + rest)) as server:
        outcome = asked_once(harness, brain(clock), server.url + RESPONSES.path, {"background": True})

    assert outcome.content == first + ping + rest
    assert outcome.report.outcome == "success"


def test_a_run_that_was_not_kept_fails(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Without ``background`` the server forgets it with its listener: nothing is asked for in vain."""
    gateway.plan = FaultPlan.always(BreakStream(events=6))
    body = {**RESPONSES.ask("hello"), "stream": True, "temperature": 0}

    outcome = asked_once(harness, brain(clock), gateway.url + RESPONSES.path, body)

    assert outcome.interruption.code == "stream_terminated"
    assert len(gateway.requests) == 1
    assert outcome.report.reason == "answers of this protocol cannot be compared"
