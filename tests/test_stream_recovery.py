"""Streams that break over the wire, under each client: begun anew, replayed, or given up, and never made up."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from endpoints import ANTHROPIC, CHAT, COMPLETIONS, ENDPOINTS, GEMINI, RESPONSES, TEXT, Endpoint
from gip_resilience.config import StreamConfig
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Gateway, Gzip, Ok, StreamOptions
from loopback import Exchange, Loopback
from replays import DONE, ROLE, chat
from streamed import Play, Script, ask, asked_once, brain, deltas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.testing import FakeClock
    from harness import Harness

SHAPES = {
    "nested": CHAT,
    "flat": CHAT,
    "list": CHAT,
    "event": CHAT,
    "event_text": CHAT,
    "choices": CHAT,
    "openrouter": CHAT,
    "bare": CHAT,
    "anthropic": ANTHROPIC,
    "event_flat": RESPONSES,
    "failed": RESPONSES,
}


@pytest.fixture(scope="module")
def changing() -> Iterator[Gateway]:
    """A gateway whose every run has ids of its own and is cut in another way."""
    with Gateway(streams=StreamOptions(rechunk=True), record_bodies=True) as started:
        yield started


@pytest.fixture
def varied(changing: Gateway) -> Gateway:
    """The same, with a clean slate."""
    changing.plan = FaultPlan()
    changing.clear()
    return changing


@pytest.fixture(scope="module")
def sampling() -> Iterator[Gateway]:
    """A gateway whose every run says something else."""
    with Gateway(streams=StreamOptions(sampled=True, rechunk=True)) as started:
        yield started


def once(*faults: Any) -> FaultPlan:
    """The faults in turn; then all is well."""
    return FaultPlan.script(faults)


def request_to(endpoint: Endpoint, **fields: Any) -> dict[str, Any]:
    """The body of a request for a stream."""
    return {**endpoint.ask("Say hello to the wörld, in 안녕 words."), "stream": True, **fields}


def begins(endpoint: Endpoint) -> int:
    """How many events come before the first output."""
    return {"chat": 1, "responses": 4, "anthropic": 3}.get(endpoint.name, 0)


# ---- restart ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eof", "fin", "garbled", "error"])
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=repr)
def test_a_stream_that_breaks_before_its_first_output_is_begun_anew(
    harness: Harness, varied: Gateway, clock: FakeClock, endpoint: Endpoint, how: Any
) -> None:
    """The caller sees one attempt, whatever had opened the first; the pause is the policy's; nothing is special."""
    varied.plan = once(BreakStream(how=how, events=begins(endpoint)))
    resilience = brain(clock)

    outcome = asked_once(harness, resilience, varied.url + endpoint.path, request_to(endpoint))

    assert outcome.events.text(endpoint) == TEXT
    assert len(outcome.events.names(endpoint)) == 1
    assert len(varied.requests) == 2
    assert varied.requests[0].body == varied.requests[1].body
    assert outcome.actions == ["restart"]
    assert outcome.report.outcome == "success"
    assert [attempt.code for attempt in outcome.report.attempts][1:] == ["ok"]
    assert len(clock.slept) == 1
    streams = resilience.metrics.snapshot().streams
    assert streams == {"opened": 2, "breaks": 1, "restart": 1}


def test_a_stream_is_begun_anew_as_often_as_the_policy_allows(
    harness: Harness, varied: Gateway, clock: FakeClock
) -> None:
    """Three attempts, pauses that grow, and one role, id, finish, usage and marker in the end."""
    varied.plan = once(BreakStream(events=1), BreakStream(how="fin"))
    body = request_to(CHAT, stream_options={"include_usage": True})

    outcome = asked_once(harness, brain(clock), varied.url + CHAT.path, body)

    found = deltas(outcome.content)
    assert found["text"] == TEXT
    assert (found["roles"], found["finish"], found["usage"], found["done"]) == (1, ["stop"], 1, 1)
    assert len(found["ids"]) == 1
    assert [attempt.code for attempt in outcome.report.attempts] == [
        "stream_terminated",
        "stream_reset",
        "ok",
    ]
    assert outcome.actions == ["restart", "restart"]
    assert len(clock.slept) == 2


def test_a_silent_stream_is_begun_anew(harness: Harness, varied: Gateway, clock: FakeClock) -> None:
    """Silence for longer than ``stream.idle_timeout`` is a break."""
    varied.plan = once(BreakStream(how="stall", events=1))
    resilience = brain(clock, stream=StreamConfig(idle_timeout=0.15))

    outcome = asked_once(harness, resilience, varied.url + CHAT.path, request_to(CHAT))

    assert deltas(outcome.content)["text"] == TEXT
    assert [attempt.code for attempt in outcome.report.attempts] == ["stream_stalled", "ok"]


def test_when_no_attempt_is_left_the_error_says_all(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """It is kin of the library's own, and of ours; nothing was handed up; the report is on it."""
    gateway.plan = FaultPlan.always(BreakStream(events=1))

    outcome = asked_once(harness, brain(clock), gateway.url + CHAT.path, request_to(CHAT))

    error = outcome.interruption
    kin = (
        harness.errors.ChunkedEncodingError
        if harness.name == "requests"
        else harness.errors.RemoteProtocolError
    )
    assert isinstance(error, kin)
    assert outcome.content == b""
    assert (error.code, error.phase, error.delivered, error.events) == ("stream_terminated", "none", "", 0)
    assert error.attempts == len(gateway.requests) == 3
    assert outcome.report.outcome == "failure"
    assert outcome.report.reason == "all 3 attempts used"
    assert not isinstance(error, gr.StreamDivergedError)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": "detect"}, "nothing is sent again in this mode"),
        ({"restart": False}, "restarts are switched off"),
    ],
)
def test_a_stream_is_not_begun_anew_where_that_is_not_wanted(
    harness: Harness, gateway: Gateway, clock: FakeClock, changes: dict[str, Any], reason: str
) -> None:
    """The break is found all the same, and says why nothing was done."""
    gateway.plan = FaultPlan.always(BreakStream(events=1))
    resilience = brain(clock, stream=StreamConfig(**changes))

    outcome = asked_once(harness, resilience, gateway.url + CHAT.path, request_to(CHAT))

    assert outcome.interruption.code == "stream_terminated"
    assert len(gateway.requests) == 1
    assert outcome.report.reason == reason
    assert outcome.actions == ["fail"]
    assert resilience.metrics.snapshot().streams == {"opened": 1, "breaks": 1, "fail": 1}


def test_without_us_a_stream_that_ends_early_is_a_good_one(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Nothing is looked at when it is switched off."""
    gateway.plan = FaultPlan.always(BreakStream(events=1))

    outcome = asked_once(
        harness, brain(clock, stream=StreamConfig(mode="off")), gateway.url + CHAT.path, request_to(CHAT)
    )

    assert outcome.error is None
    assert outcome.report.outcome == "success"
    assert outcome.content.startswith(b"data: ")


# ---- errors within ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_an_error_that_comes_first_is_tried_again(
    harness: Harness, gateway: Gateway, clock: FakeClock, shape: Any
) -> None:
    """In every shape there is."""
    endpoint = SHAPES[shape]
    gateway.plan = once(BreakStream(how="error", shape=shape, done=shape == "nested"))

    outcome = asked_once(harness, brain(clock), gateway.url + endpoint.path, request_to(endpoint))

    assert outcome.events.text(endpoint) == TEXT
    assert outcome.actions == ["restart"]
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("events", [0, 1, 3])
@pytest.mark.parametrize("shape", ["nested", "event", "bare"])
def test_an_error_that_would_come_again_is_handed_up_unchanged(
    harness: Harness, gateway: Gateway, clock: FakeClock, shape: Any, events: int
) -> None:
    """The request is wrong: no second one is sent, and the SDK above sees what the server said."""
    gateway.plan = FaultPlan.always(
        BreakStream(how="error", shape=shape, code="invalid_request", events=events)
    )
    with harness.open() as bare:
        expected = ask(bare, gateway.url + CHAT.path, request_to(CHAT, temperature=0)).content
    gateway.clear()

    outcome = asked_once(harness, brain(clock), gateway.url + CHAT.path, request_to(CHAT, temperature=0))

    assert outcome.content == expected
    assert b"invalid_request" in outcome.content
    assert outcome.error is None
    assert len(gateway.requests) == 1
    assert clock.slept == []
    assert outcome.report.outcome == "failure"
    assert [attempt.code for attempt in outcome.report.attempts] == ["invalid_request"]


def test_a_marker_after_an_error_makes_no_success(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The error comes up unchanged and last, and the call has failed."""
    gateway.plan = FaultPlan.always(BreakStream(how="error", events=3, done=True))
    with harness.open() as bare:
        expected = ask(bare, gateway.url + CHAT.path, request_to(CHAT)).content

    outcome = asked_once(harness, brain(clock), gateway.url + CHAT.path, request_to(CHAT))

    assert expected.endswith(DONE)
    assert outcome.content == expected.removesuffix(DONE)
    assert outcome.report.outcome == "failure"
    assert outcome.report.attempts[-1].code == "stream_error"
    assert len(outcome.report.hops) == 1


def test_an_error_that_nobody_knows_is_tried_again_only_before_output(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """After it, not even where the answer could be compared."""
    for events, requests in ((1, 2), (3, 1)):
        gateway.plan = once(BreakStream(how="error", code="quux_failed", events=events))
        gateway.clear()
        body = request_to(CHAT, temperature=0)
        outcome = asked_once(harness, brain(clock), gateway.url + CHAT.path, body)
        assert len(gateway.requests) == requests
        assert (b"quux_failed" in outcome.content) == (events == 3)


# ---- replay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eof", "fin", "error", "garbled"])
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, ANTHROPIC, GEMINI], ids=repr)
@pytest.mark.parametrize("way", [0, 1])
def test_an_answer_that_can_be_repeated_goes_on(
    harness: Harness, varied: Gateway, clock: FakeClock, endpoint: Endpoint, how: Any, way: int
) -> None:
    """At temperature 0, or with a seed; cut into other pieces, under other ids: the caller cannot tell."""
    varied.plan = once(BreakStream(how=how, events=begins(endpoint) + 4))
    body = request_to(endpoint, **endpoint.cold()[way])

    outcome = asked_once(harness, brain(clock), varied.url + endpoint.path, body)

    assert outcome.events.text(endpoint) == TEXT
    assert len(outcome.events.names(endpoint)) == 1
    assert outcome.actions == ["replay"]
    assert outcome.report.outcome == "success"
    assert len(varied.requests) == 2


@pytest.mark.parametrize("events", range(2, 7))
def test_a_tool_call_goes_on(harness: Harness, varied: Gateway, clock: FakeClock, events: int) -> None:
    """One id, one name, and arguments that are JSON; also twice in a row, with padding, and counted once."""
    function = {"type": "function", "function": {"name": "lookup", "parameters": {}}}
    body = {
        **CHAT.ask("tool"),
        "stream": True,
        "temperature": 0,
        "tools": [function],
        "stream_options": {"include_usage": True, "include_obfuscation": True},
    }
    varied.plan = FaultPlan()
    whole = deltas(asked_once(harness, brain(clock), varied.url + CHAT.path, body).content)
    assert whole["tools"]
    varied.plan = once(BreakStream(events=events), BreakStream(how="fin", events=8 - events))

    outcome = asked_once(harness, brain(clock), varied.url + CHAT.path, body)

    found = deltas(outcome.content)
    ids = {tool.pop("id") for tool in found["tools"].values()}
    assert len(ids) == 1
    assert all(
        len(id_) == len(tool.pop("id")) for id_, tool in zip(ids, whole["tools"].values(), strict=True)
    )
    assert found["tools"] == whole["tools"]
    json.loads(found["tools"][0]["arguments"])
    assert (found["roles"], found["finish"], found["usage"], found["done"]) == (1, ["tool_calls"], 1, 1)
    assert len(found["ids"]) == 1
    assert outcome.actions == ["replay", "replay"]


def test_any_answer_is_replayed_where_that_is_wanted(
    harness: Harness, varied: Gateway, clock: FakeClock
) -> None:
    """``replay="always"``: behind a cache, say. By default it would not be."""
    for replay, actions in (("always", ["replay"]), ("auto", ["fail"]), ("never", ["fail"])):
        varied.plan = once(BreakStream(events=4))
        resilience = brain(clock, stream=StreamConfig(replay=replay))
        outcome = asked_once(harness, resilience, varied.url + CHAT.path, request_to(CHAT))
        assert outcome.actions == actions
        assert (outcome.error is None) == (replay == "always")


def test_another_answer_never_leaks(harness: Harness, sampling: Gateway, clock: FakeClock) -> None:
    """The error says where the two parted; what was handed up is the beginning of the first."""
    for events in range(2, 9):
        sampling.plan = once(BreakStream(events=events))
        sampling.clear()
        resilience = brain(clock, stream=StreamConfig(replay="always"))
        outcome = asked_once(harness, resilience, sampling.url + CHAT.path, request_to(CHAT))
        if outcome.error is None:  # nothing but the first word, which they have in common, was handed up
            assert events < 4
            continue
        error = outcome.error
        assert isinstance(error, gr.StreamDivergedError)
        found = deltas(outcome.content)
        assert found["done"] == 0
        assert found["text"] == error.delivered
        assert 4 <= error.at <= len(found["text"])  # "You "
        assert len(found["ids"]) == 1
        assert error.code == "stream_diverged"
        assert len(sampling.requests) == 2
        assert outcome.actions == ["replay", "fail"]
        assert resilience.metrics.snapshot().streams == {
            "opened": 2,
            "breaks": 2,
            "replay": 1,
            "diverged": 1,
            "fail": 1,
        }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"n": 2}, "more than one choice was asked for"),
        ({"logprobs": True}, "log probabilities were asked for"),
    ],
)
def test_what_cannot_be_compared_is_not_replayed(
    harness: Harness, gateway: Gateway, clock: FakeClock, fields: dict[str, Any], reason: str
) -> None:
    """Not even when told to: what was handed up stays, and the error says why."""
    gateway.plan = once(BreakStream(events=4))
    resilience = brain(clock, stream=StreamConfig(replay="always"))

    outcome = asked_once(
        harness, resilience, gateway.url + CHAT.path, request_to(CHAT, temperature=0, **fields)
    )

    error = outcome.interruption
    assert (error.code, error.phase, error.events) == ("stream_terminated", "output", 4)
    assert deltas(outcome.content)["text"] == error.delivered != ""
    assert outcome.report.reason == reason
    assert len(gateway.requests) == 1


def test_a_marker_that_alone_is_missing_is_supplied(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Nothing is sent for it, and the call has succeeded."""
    whole = asked_once(harness, brain(clock), gateway.url + CHAT.path, request_to(CHAT)).content
    last = whole.count(b"\n\n") - 1
    for how in ("eof", "fin", "rst"):
        gateway.plan = FaultPlan.always(BreakStream(how=how, events=last, late=0.02))
        gateway.clear()
        outcome = asked_once(harness, brain(clock), gateway.url + CHAT.path, request_to(CHAT))
        assert outcome.content == whole
        assert outcome.report.outcome == "success"
        assert outcome.actions == ["marker"]
        assert len(gateway.requests) == 1


# ---- what the body is packed in --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eof", "fin"])
@pytest.mark.parametrize("events", [1, 5])
def test_a_compressed_stream_is_mended_too(
    harness: Harness, varied: Gateway, clock: FakeClock, how: Any, events: int
) -> None:
    """What comes up is not compressed, and does not say it is; the second attempt may be packed differently."""
    varied.plan = once(BreakStream(how=how, events=events, gzip=True), Gzip())

    outcome = asked_once(harness, brain(clock), varied.url + CHAT.path, request_to(CHAT, temperature=0))

    assert deltas(outcome.content)["text"] == TEXT
    assert "content-encoding" not in outcome.response.headers
    assert "content-length" not in outcome.response.headers
    assert outcome.actions == ["restart" if events == 1 else "replay"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate"])
def test_other_encodings_are_mended_too(harness: Harness, clock: FakeClock, encoding: str) -> None:
    """Each piece is unpacked as it comes."""
    events = [chat(ROLE), *(chat({"content": word}) for word in ("a", "b", "c")), chat({}, "stop"), DONE]
    packed = _packed(encoding, events)
    headers = (f"content-encoding: {encoding}",)
    cut = Play(b"".join(packed[:3]), "fin", headers=headers)
    with Script(cut, Play(b"".join(packed), headers=headers)) as server:
        outcome = asked_once(harness, brain(clock), server.url + CHAT.path, request_to(CHAT, seed=1))

    assert deltas(outcome.content)["text"] == "abc"
    assert "content-encoding" not in outcome.response.headers
    assert outcome.actions == ["replay"]


def _packed(encoding: str, events: list[bytes]) -> list[bytes]:
    """Each event so that it can be read when it arrives."""
    import zlib

    import brotli
    import zstandard

    if encoding == "br":
        packer = brotli.Compressor()
        return [packer.process(raw) + packer.flush() for raw in events] + [packer.finish()]
    if encoding == "zstd":
        writer = zstandard.ZstdCompressor().compressobj()
        flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        return [writer.compress(raw) + writer.flush(flush) for raw in events] + [writer.flush()]
    deflater = zlib.compressobj()
    return [deflater.compress(raw) + deflater.flush(zlib.Z_SYNC_FLUSH) for raw in events] + [deflater.flush()]


# ---- the second request ----------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [1, 4])
def test_an_error_instead_of_the_rest(
    harness: Harness, gateway: Gateway, clock: FakeClock, events: int
) -> None:
    """Is one more failed attempt; the caller gets an error of ours, and nothing of its body."""
    for reply, sent, code in (
        (Error("model_overloaded"), 3, "model_overloaded"),
        (Error("invalid_api_key", 401), 2, "invalid_api_key"),
    ):
        gateway.plan = once(BreakStream(events=events), reply, reply, reply, reply)
        gateway.clear()
        outcome = asked_once(
            harness,
            brain(clock, policies={"overload": gr.Policy(max_attempts=3)}),
            gateway.url + CHAT.path,
            request_to(CHAT, temperature=0),
        )
        assert outcome.interruption.code == "stream_terminated"
        assert len(gateway.requests) == sent == outcome.interruption.attempts
        assert [attempt.code for attempt in outcome.report.attempts] == ["stream_terminated"] + [code] * (
            sent - 1
        )
        assert len(deltas(outcome.content)["text"]) == len(outcome.interruption.delivered or "")


@pytest.mark.parametrize(
    "second",
    [
        Play(b'{"id": "c", "choices": []}', content_type="application/json"),
        Play(b"<html></html>", content_type="text/html"),
        Play(b"data: {}\n\n", content_type=None),
    ],
    ids=["JSON", "HTML", "no type"],
)
def test_an_answer_that_is_no_stream_is_a_failed_attempt(
    harness: Harness, clock: FakeClock, second: Play
) -> None:
    """Whatever else it is; the next one may be a stream again."""
    whole = Play(chat(ROLE) + chat({"content": "a"}) + chat({"content": "b"}) + chat({}, "stop") + DONE)
    with Script(Play(chat(ROLE) + chat({"content": "a"}), "fin"), second, whole) as server:
        outcome = asked_once(harness, brain(clock), server.url + CHAT.path, request_to(CHAT, seed=1))

    assert deltas(outcome.content)["text"] == "ab"
    codes = [attempt.code for attempt in outcome.report.attempts]
    assert (codes[0], codes[2]) == ("stream_reset", "ok")
    assert len(server.heard) == 3


def test_a_server_that_is_gone(harness: Harness, clock: FakeClock) -> None:
    """Its connections are refused: as many attempts as that allows, and then the error of the stream."""

    def answer(exchange: Exchange) -> None:
        exchange.read_body()
        server._listener.shutdown(socket.SHUT_RDWR)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\n"
        exchange.send(head, chat({"content": "a"}))
        exchange.close()

    with Loopback(answer) as server:
        outcome = asked_once(harness, brain(clock), server.url + CHAT.path, request_to(CHAT, seed=1))

    assert outcome.interruption.code == "stream_reset"
    assert [attempt.code for attempt in outcome.report.attempts] == [
        "stream_reset",
        "connect_error",
        "connect_error",
    ]
    assert outcome.content == chat({"content": "a"})


def test_a_redirect_of_the_second_request_is_not_followed_blindly(harness: Harness, clock: FakeClock) -> None:
    """It is no stream: the attempt failed, and no key goes anywhere else."""
    with Script() as other:
        there = Play(status=307, headers=(f"location: {other.url}/v1/chat/completions",))
        with Script(Play(chat({"content": "a"}), "fin"), there, there) as server:
            outcome = asked_once(harness, brain(clock), server.url + CHAT.path, request_to(CHAT, seed=1))
        assert other.heard == []

    assert outcome.interruption.code == "stream_reset"
    assert len(server.heard) == 3


def test_a_healthy_plan_asks_once(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Nothing is done about a stream that is whole."""
    gateway.plan = FaultPlan.always(Ok())
    resilience = brain(clock)

    outcome = asked_once(harness, resilience, gateway.url + CHAT.path, request_to(CHAT))

    assert deltas(outcome.content)["text"] == TEXT
    assert outcome.report.hops == ()
    assert len(gateway.requests) == 1
    assert resilience.metrics.snapshot().streams == {"opened": 1}
