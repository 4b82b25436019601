"""The table of what is done about a break: every row and every switch, and what a request says about its stream."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.config import StreamConfig
from gip_resilience.recovery import (
    UNKNOWN,
    Action,
    Asked,
    Broken,
    Decision,
    Onward,
    Origin,
    Phase,
    asked,
    decide,
)

END, MARKER, RESUME = Action.END, Action.MARKER, Action.RESUME
RESTART, REPLAY, FAIL = Action.RESTART, Action.REPLAY, Action.FAIL
NONE, OUTPUT, TAIL, DONE = Phase.NONE, Phase.OUTPUT, Phase.TAIL, Phase.DONE

URL = "https://gateway.example/v1/chat/completions"
POST = Origin("POST", URL)
GET = Origin("GET", "https://gateway.example/events?topic=a")
LIVE = GET._replace(resumable=True)
RESUMABLE = POST._replace(resumable=True)
RUN = Origin("POST", "https://gateway.example/v1/responses")
"""Where a run of the Responses API is begun."""

PLAIN = Asked(known=True)
REPEATABLE = Asked(known=True, repeatable=True)
BACKGROUND = Asked(known=True, background=True)
CURSOR: dict[str, Any] = {"response_id": "resp_1", "sequence": 4, "markered": False}
ID: dict[str, Any] = {"last_event_id": b"7"}

DETECT = StreamConfig(mode="detect")


def decided(
    phase: Phase,
    broken: dict[str, Any],
    origin: Origin = POST,
    request: Asked = PLAIN,
    settings: StreamConfig | None = None,
    obstacle: str = "",
) -> Decision:
    """What is done about a break."""
    return decide(Broken(phase, **broken), origin, request, settings or StreamConfig(), lambda: obstacle)


# ---- the table -------------------------------------------------------------------------------------------

ROWS: list[tuple[str, Phase, dict[str, Any], Origin, Asked, dict[str, Any], Action]] = [
    # 0: the marker was handed up
    ("done", DONE, {}, POST, PLAIN, {}, END),
    ("done, then an error", DONE, {"in_band": True, "final": True}, POST, PLAIN, {}, END),
    ("done, only detecting", DONE, {}, POST, PLAIN, {"mode": "detect"}, END),
    ("done, could be resumed", DONE, {**CURSOR, **ID}, RESUMABLE, BACKGROUND, {}, END),
    ("done, could be replayed", DONE, {}, POST, REPEATABLE, {}, END),
    # 1: only the marker is missing
    ("tail", TAIL, {}, POST, PLAIN, {}, MARKER),
    ("tail, only detecting", TAIL, {}, POST, PLAIN, {"mode": "detect"}, MARKER),
    ("tail, could be resumed", TAIL, {**CURSOR, **ID, "markered": True}, RESUMABLE, BACKGROUND, {}, MARKER),
    ("tail, could be replayed", TAIL, {}, POST, REPEATABLE, {}, MARKER),
    ("tail of a protocol without a marker", TAIL, {"markered": False}, POST, PLAIN, {}, END),
    ("the same, no marker wanted", TAIL, {"markered": False}, POST, PLAIN, {"marker": False}, END),
    ("tail, no marker wanted", TAIL, {}, POST, PLAIN, {"marker": False}, FAIL),
    ("tail, no marker wanted, resumable", TAIL, ID, RESUMABLE, PLAIN, {"marker": False}, RESUME),
    ("tail, no marker wanted, repeatable", TAIL, {}, POST, REPEATABLE, {"marker": False}, REPLAY),
    ("tail, then an error", TAIL, {"in_band": True}, POST, PLAIN, {}, FAIL),
    ("tail, then an error, repeatable", TAIL, {"in_band": True}, POST, REPEATABLE, {}, REPLAY),
    ("tail without marker, then an error", TAIL, {"in_band": True, "markered": False}, POST, PLAIN, {}, FAIL),
    # Nothing is sent in this mode
    ("nothing yet, only detecting", NONE, {}, POST, PLAIN, {"mode": "detect"}, FAIL),
    ("cursor, only detecting", OUTPUT, CURSOR, RUN, BACKGROUND, {"mode": "detect"}, FAIL),
    ("id, only detecting", OUTPUT, ID, RESUMABLE, PLAIN, {"mode": "detect"}, FAIL),
    ("repeatable, only detecting", OUTPUT, {}, POST, REPEATABLE, {"mode": "detect"}, FAIL),
    # 2: by cursor
    ("cursor, asked for", OUTPUT, CURSOR, RUN, BACKGROUND, {}, RESUME),
    ("cursor, nothing yet", NONE, CURSOR, RUN, BACKGROUND, {}, RESUME),
    ("cursor, said by the server", OUTPUT, {**CURSOR, "background": True}, RUN, UNKNOWN, {}, RESUME),
    ("cursor, of a GET", OUTPUT, CURSOR, RUN._replace(method="GET"), UNKNOWN, {}, RESUME),
    ("cursor at zero", OUTPUT, {**CURSOR, "sequence": 0}, RUN, BACKGROUND, {}, RESUME),
    ("cursor, after an error", OUTPUT, {**CURSOR, "in_band": True}, RUN, BACKGROUND, {}, RESUME),
    ("cursor, unknown error", OUTPUT, {**CURSOR, "in_band": True, "known": False}, RUN, BACKGROUND, {}, RESUME),
    ("cursor, too long to remember", OUTPUT, {**CURSOR, "too_long": True}, RUN, BACKGROUND, {}, RESUME),
    ("cursor, the run failed", OUTPUT, {**CURSOR, "in_band": True, "final": True}, RUN, BACKGROUND, {}, FAIL),
    ("nothing yet, the run failed", NONE, {**CURSOR, "in_band": True, "final": True}, RUN, BACKGROUND, {}, RESTART),
    ("no run kept", OUTPUT, CURSOR, RUN, PLAIN, {}, FAIL),
    ("no run kept, nothing yet", NONE, CURSOR, RUN, PLAIN, {}, RESTART),
    ("no run named", OUTPUT, {"sequence": 4}, RUN, BACKGROUND, {}, FAIL),
    ("no number", OUTPUT, {"response_id": "resp_1"}, RUN, BACKGROUND, {}, FAIL),
    ("cursors switched off", OUTPUT, CURSOR, RUN, BACKGROUND, {"cursor": False}, FAIL),
    ("cursors switched off, nothing yet", NONE, CURSOR, RUN, BACKGROUND, {"cursor": False}, RESTART),
    # 3: by event id
    ("id", OUTPUT, ID, RESUMABLE, PLAIN, {}, RESUME),
    ("id, nothing yet", NONE, ID, RESUMABLE, PLAIN, {}, RESUME),
    ("id, repeatable", OUTPUT, ID, RESUMABLE, REPEATABLE, {}, RESUME),
    ("id, body unknown", OUTPUT, ID, RESUMABLE, UNKNOWN, {}, RESUME),
    ("id, protocol unknown", OUTPUT, {**ID, "eventful": False}, RESUMABLE, UNKNOWN, {}, RESUME),
    ("id, unknown error", OUTPUT, {**ID, "in_band": True, "known": False}, RESUMABLE, PLAIN, {}, RESUME),
    ("id, final error", OUTPUT, {**ID, "in_band": True, "final": True}, RESUMABLE, PLAIN, {}, FAIL),
    ("id, nobody resumes", OUTPUT, ID, POST, PLAIN, {}, FAIL),
    ("no id", OUTPUT, {}, RESUMABLE, PLAIN, {}, FAIL),
    ("id taken back", OUTPUT, {"last_event_id": b""}, RESUMABLE, PLAIN, {}, FAIL),
    ("no id, nothing yet", NONE, {}, RESUMABLE, PLAIN, {}, RESTART),
    ("no id, live", OUTPUT, {"eventful": False}, LIVE, PLAIN, {}, RESUME),
    ("id taken back, live", OUTPUT, {"eventful": False, "last_event_id": b""}, LIVE, PLAIN, {}, RESUME),
    ("no id, live but undeclared", OUTPUT, {"eventful": False}, GET, PLAIN, {}, FAIL),
    ("no id, live by POST", OUTPUT, {"eventful": False}, RESUMABLE, PLAIN, {}, FAIL),
    ("no id, GET of an answer", OUTPUT, {}, LIVE, PLAIN, {}, FAIL),
    # 4: restart
    ("nothing yet", NONE, {}, POST, PLAIN, {}, RESTART),
    ("nothing yet, body unknown", NONE, {}, POST, UNKNOWN, {}, RESTART),
    ("nothing yet, several choices", NONE, {}, POST, Asked(known=True, choices=3, logprobs=True), {}, RESTART),
    ("nothing yet, unknown error", NONE, {"in_band": True, "known": False}, POST, PLAIN, {}, RESTART),
    ("nothing yet, protocol unknown", NONE, {"eventful": False}, POST, PLAIN, {}, RESTART),
    ("restarts switched off", NONE, {}, POST, PLAIN, {"restart": False}, FAIL),
    ("restarts switched off, repeatable", NONE, {}, POST, REPEATABLE, {"restart": False}, FAIL),
    ("replays switched off, nothing yet", NONE, {}, POST, PLAIN, {"replay": "never"}, RESTART),
    # 5: replay
    ("repeatable", OUTPUT, {}, POST, REPEATABLE, {}, REPLAY),
    ("repeatable, always", OUTPUT, {}, POST, REPEATABLE, {"replay": "always"}, REPLAY),
    ("repeatable, never", OUTPUT, {}, POST, REPEATABLE, {"replay": "never"}, FAIL),
    ("not repeatable", OUTPUT, {}, POST, PLAIN, {}, FAIL),
    ("not repeatable, always", OUTPUT, {}, POST, PLAIN, {"replay": "always"}, REPLAY),
    ("not repeatable, never", OUTPUT, {}, POST, PLAIN, {"replay": "never"}, FAIL),
    ("known error", OUTPUT, {"in_band": True}, POST, REPEATABLE, {}, REPLAY),
    ("unknown error", OUTPUT, {"in_band": True, "known": False}, POST, REPEATABLE, {}, FAIL),
    ("unknown error, always", OUTPUT, {"in_band": True, "known": False}, POST, PLAIN, {"replay": "always"}, FAIL),
    ("a broken connection has no unknown code", OUTPUT, {"known": False}, POST, REPEATABLE, {}, REPLAY),
    ("body unknown, always", OUTPUT, {}, POST, UNKNOWN, {"replay": "always"}, FAIL),
    ("several choices", OUTPUT, {}, POST, REPEATABLE._replace(choices=2), {"replay": "always"}, FAIL),
    ("log probabilities", OUTPUT, {}, POST, REPEATABLE._replace(logprobs=True), {"replay": "always"}, FAIL),
    ("too long to remember", OUTPUT, {"too_long": True}, POST, REPEATABLE, {"replay": "always"}, FAIL),
    ("protocol unknown, always", OUTPUT, {"eventful": False}, POST, REPEATABLE, {"replay": "always"}, FAIL),
    ("restarts switched off, output", OUTPUT, {}, POST, REPEATABLE, {"restart": False}, REPLAY),
]  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "broken", "origin", "request_", "changes", "action"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_every_row_of_the_table(
    phase: Phase,
    broken: dict[str, Any],
    origin: Origin,
    request_: Asked,
    changes: dict[str, Any],
    action: Action,
) -> None:
    """The first row that applies names the action; a request to send comes with it, or a reason, never both."""
    decision = decided(phase, broken, origin, request_, StreamConfig(**changes))

    assert decision.action is action
    assert bool(decision.onward) == (action in (RESUME, RESTART, REPLAY))
    assert bool(decision.reason) == (action is FAIL)


@pytest.mark.parametrize(
    ("phase", "broken", "request_", "settings", "reason"),
    [
        (NONE, {}, PLAIN, DETECT, "nothing is sent again in this mode"),
        (NONE, {}, PLAIN, StreamConfig(restart=False), "restarts are switched off"),
        (OUTPUT, {"eventful": False}, PLAIN, None, "the protocol is not known"),
        (OUTPUT, {"in_band": True, "known": False}, PLAIN, None, "nobody knows the error's code"),
        (OUTPUT, {}, REPEATABLE, StreamConfig(replay="never"), "output was handed up, and replays are switched off"),
        (OUTPUT, {}, UNKNOWN, None, "the request's body cannot be read"),
        (
            OUTPUT,
            {},
            PLAIN,
            None,
            "output was handed up, and another run would say something else (no temperature 0, no seed)",
        ),
        (OUTPUT, {}, REPEATABLE._replace(choices=2), None, "more than one choice was asked for"),
        (OUTPUT, {}, REPEATABLE._replace(logprobs=True), None, "log probabilities were asked for"),
        (OUTPUT, {"too_long": True}, REPEATABLE, None, "more was handed up than is remembered"),
    ],
)  # fmt: skip
def test_a_failure_says_why(
    phase: Phase, broken: dict[str, Any], request_: Asked, settings: StreamConfig | None, reason: str
) -> None:
    """What stood in the way, in words for people."""
    assert decided(phase, broken, request=request_, settings=settings) == Decision(FAIL, reason)


def test_what_was_delivered_is_looked_at_last() -> None:
    """Comparing costs most: only asked when nothing else decides, and its word is the reason."""
    assert decided(OUTPUT, {}, request=REPEATABLE, obstacle="a picture") == Decision(FAIL, "a picture")

    def unwanted() -> str:
        raise AssertionError("asked")

    for phase, request in ((NONE, PLAIN), (OUTPUT, PLAIN), (TAIL, REPEATABLE), (DONE, REPEATABLE)):
        decide(Broken(phase), POST, request, StreamConfig(), unwanted)
    decide(Broken(OUTPUT, **CURSOR), RUN, BACKGROUND, StreamConfig(), unwanted)
    decide(Broken(OUTPUT, **ID), RESUMABLE, PLAIN, StreamConfig(), unwanted)


# ---- what is sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "phase", "request_"), [(POST, NONE, PLAIN), (POST, OUTPUT, REPEATABLE), (GET, NONE, UNKNOWN)]
)
def test_a_restart_and_a_replay_are_the_same_request_again(
    origin: Origin, phase: Phase, request_: Asked
) -> None:
    """Method, URL, body and headers are the first one's; only an old ``Last-Event-ID`` does not come along."""
    onward = decided(phase, {}, origin, request_).onward

    assert onward == Onward(origin.method, origin.url)
    assert onward.headers([(b"A", b"1"), (b"last-event-ID", b"3")]) == [(b"A", b"1")]


@pytest.mark.parametrize(
    ("origin", "response_id", "sequence", "obfuscation", "url"),
    [
        ("POST /v1/responses", "resp_1", 4, None, "/v1/responses/resp_1?stream=true&starting_after=4"),
        ("POST /v1/responses/", "resp_1", 0, None, "/v1/responses/resp_1?stream=true&starting_after=0"),
        (
            "POST /openai/responses?api-version=2025-04-01-preview",
            "resp_1",
            4,
            None,
            "/openai/responses/resp_1?api-version=2025-04-01-preview&stream=true&starting_after=4",
        ),
        (
            "POST /v1/responses",
            "resp_1",
            4,
            False,
            "/v1/responses/resp_1?stream=true&starting_after=4&include_obfuscation=false",
        ),
        (
            "POST /v1/responses",
            "resp_1",
            4,
            True,
            "/v1/responses/resp_1?stream=true&starting_after=4&include_obfuscation=true",
        ),
        ("POST /runs", "../a/ü?&#", 1, None, "/runs/..%2Fa%2F%C3%BC%3F%26%23?stream=true&starting_after=1"),
        ("POST /runs?flag=&x=a%26b", "r", 1, None, "/runs/r?flag=&x=a%26b&stream=true&starting_after=1"),
        (
            "GET /v1/responses/resp_1?stream=true&starting_after=2&include_obfuscation=false",
            "resp_1",
            9,
            None,
            "/v1/responses/resp_1?include_obfuscation=false&stream=true&starting_after=9",
        ),
        ("GET /v1/responses/resp_1", "resp_1", 9, None, "/v1/responses/resp_1?stream=true&starting_after=9"),
    ],
)  # fmt: skip
def test_the_request_for_what_comes_after_the_cursor(
    origin: str, response_id: str, sequence: int, obfuscation: bool | None, url: str
) -> None:
    """A GET of the run after the last number; what else the query says stays, and the id is quoted."""
    method, _, path = origin.partition(" ")
    broken = {"response_id": response_id, "sequence": sequence}
    asked_for = Asked(known=True, background=True, obfuscation=obfuscation)

    decision = decided(OUTPUT, broken, Origin(method, f"https://h:8443{path}"), asked_for)

    assert decision == Decision(RESUME, onward=Onward("GET", f"https://h:8443{url}", body=False))


@pytest.mark.parametrize("body", [True, False])
def test_the_headers_of_the_next_request(body: bool) -> None:
    """Those of the first; without its body, also without those that describe one. Always one id, or none."""
    first = [
        (b"Authorization", b"Bearer k"),
        (b"Accept", b"text/event-stream"),
        (b"X-Twice", b"1"),
        (b"X-Twice", b"2"),
        (b"Last-Event-ID", b"2"),
        (b"Content-Type", b"application/json"),
        (b"CONTENT-LENGTH", b"7"),
        (b"content-encoding", b"gzip"),
        (b"Transfer-Encoding", b"chunked"),
    ]
    kept = first[:4] + (first[5:] if body else [])

    assert Onward("POST", URL, body=body).headers(iter(first)) == kept
    onward = Onward("POST", URL, body=body, last_event_id="…".encode())
    assert onward.headers(first) == [*kept, (b"Last-Event-ID", b"\xe2\x80\xa6")]


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/v1/runs/1/stream", "https://gateway.example/v1/runs/1/stream"),
        ("../runs/1?a=b", "https://gateway.example/v1/runs/1?a=b"),
        ("https://gateway.example/r", "https://gateway.example/r"),
        ("HTTPS://gateway.example/r", "https://gateway.example/r"),
        ("//gateway.example/r", "https://gateway.example/r"),
        ("https://other.example/r", None),
        ("//other.example/r", None),
        ("http://gateway.example/r", None),
        ("https://gateway.example:444/r", None),
        ("https://gateway.example@other.example/r", None),
        ("https://gateway.example.other.example/r", None),
        ("http://[", None),
        ("data:text/event-stream,", None),
    ],
)
def test_a_stream_is_taken_up_where_the_server_says_but_at_the_same_origin(
    location: str, url: str | None
) -> None:
    """A GET there with the id; a place of another origin, or none at all, would get the key, and is not asked."""
    origin = RESUMABLE._replace(location=location)

    decision = decided(OUTPUT, ID, origin)

    if url is None:
        assert decision.action is FAIL
        assert decided(NONE, ID, origin).onward == Onward("POST", URL)
    else:
        assert decision.action is RESUME
        assert decision.onward is not None
        assert decision.onward._replace(url="") == Onward("GET", "", body=False, last_event_id=b"7")
        assert decision.onward.url.replace("HTTPS", "https") == url


def test_a_stream_is_taken_up_as_it_was_asked_for() -> None:
    """Without a place to go: the same request, with the id; live streams without one too."""
    assert decided(OUTPUT, ID, RESUMABLE).onward == Onward("POST", URL, last_event_id=b"7")
    live = GET._replace(resumable=True, location="/other")
    assert decided(OUTPUT, {"eventful": False}, live).onward == Onward("GET", GET.url)


# ---- what was asked for ----------------------------------------------------------------------------------

KNOWN = Asked(known=True)

BODIES: list[tuple[Any, Asked]] = [
    ({}, KNOWN),
    ({"model": "m", "messages": [{"role": "user", "content": "temperature: 0"}]}, KNOWN),
    # choices
    ({"n": 1}, KNOWN),
    ({"n": 3}, KNOWN._replace(choices=3)),
    ({"n": 0}, KNOWN),
    ({"n": None}, KNOWN),
    ({"n": -2}, KNOWN),
    ({"n": "3"}, KNOWN),
    ({"n": 2.5}, KNOWN),
    # another run would say the same
    ({"temperature": 0}, KNOWN._replace(repeatable=True)),
    ({"temperature": 0.0}, KNOWN._replace(repeatable=True)),
    ({"temperature": -0.0}, KNOWN._replace(repeatable=True)),
    ({"temperature": 0.01}, KNOWN),
    ({"temperature": None}, KNOWN),
    ({"temperature": False}, KNOWN),
    ({"temperature": "0"}, KNOWN),
    ({"temperature": []}, KNOWN),
    ({"seed": 0}, KNOWN._replace(repeatable=True)),
    ({"seed": 7, "temperature": 1}, KNOWN._replace(repeatable=True)),
    ({"seed": None}, KNOWN),
    # log probabilities
    ({"logprobs": True}, KNOWN._replace(logprobs=True)),
    ({"logprobs": 2}, KNOWN._replace(logprobs=True)),
    ({"logprobs": 0}, KNOWN._replace(logprobs=True)),
    ({"logprobs": False}, KNOWN),
    ({"logprobs": None, "top_logprobs": None}, KNOWN),
    ({"top_logprobs": 3}, KNOWN._replace(logprobs=True)),
    # the rest
    ({"background": True}, KNOWN._replace(background=True)),
    ({"background": False}, KNOWN),
    ({"background": "true"}, KNOWN),
    ({"stream_options": None}, KNOWN),
    ({"stream_options": {}}, KNOWN),
    ({"stream_options": ["include_usage"]}, KNOWN),
    ({"stream_options": {"include_usage": True}}, KNOWN._replace(usage=True)),
    ({"stream_options": {"include_usage": 1}}, KNOWN),
    ({"stream_options": {"include_obfuscation": False}}, KNOWN._replace(obfuscation=False)),
    ({"stream_options": {"include_obfuscation": True}}, KNOWN._replace(obfuscation=True)),
    ({"stream_options": {"include_obfuscation": "no"}}, KNOWN),
    # Gemini
    ({"generationConfig": {"temperature": 0}}, KNOWN._replace(repeatable=True)),
    ({"generationConfig": {"seed": 5, "candidateCount": 2}}, KNOWN._replace(repeatable=True, choices=2)),
    ({"generationConfig": {"responseLogprobs": True}}, KNOWN._replace(logprobs=True)),
    ({"generationConfig": {"responseLogprobs": False, "temperature": 1}}, KNOWN),
    ({"generation_config": {"candidateCount": 2}}, KNOWN._replace(choices=2)),
    ({"generationConfig": {}}, KNOWN),
    ({"generationConfig": []}, UNKNOWN),
    # no requests of ours
    ([], UNKNOWN),
    ("text", UNKNOWN),
    (None, UNKNOWN),
]


@pytest.mark.parametrize(("body", "expected"), BODIES, ids=[json.dumps(body) for body, _ in BODIES])
def test_what_a_request_asks_for(body: Any, expected: Asked) -> None:
    """As far as it decides about the stream; a value of another type than documented asks for nothing."""
    assert asked(json.dumps(body).encode()) == expected


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"{",
        b"\xff\xfe{}",
        b"model=m&n=2",
        b'{"n": 1e400}',
        b'{"n": NaN}',
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"n": ' + b"[" * 100_000,
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"temperature": 0} {"temperature": 0}',
        b"--boundary\r\nContent-Disposition: form-data\r\n\r\n1\r\n--boundary--",
    ],
    ids=lambda body: repr(body)[:30],
)
def test_a_body_that_cannot_be_read_asks_for_nothing_known(body: bytes | None) -> None:
    """It raises nothing, and nothing is replayed for it."""
    assert asked(body) == UNKNOWN


def test_a_body_of_a_megabyte_is_read_in_one_scan() -> None:
    """What is not looked at is skipped, not decoded."""
    messages = [{"role": "user", "content": "x" * 1000}] * 1000
    body = json.dumps({"messages": messages, "n": 2, "seed": 1}).encode()
    began = time.perf_counter()

    found = asked(body)

    assert found == Asked(known=True, choices=2, repeatable=True)
    assert time.perf_counter() - began < 2.0


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
LIST = st.lists(LEAF, max_size=3)
JSON = LEAF | LIST | st.dictionaries(st.text(max_size=5), LEAF | LIST, max_size=3)
NAMES = [
    "n",
    "candidateCount",
    "logprobs",
    "temperature",
    "seed",
    "background",
    "stream_options",
    "generationConfig",
]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_no_value_is_too_strange(fields: dict[str, Any]) -> None:
    """Whatever the fields hold: no error, at least one choice, and true or false where that is promised."""
    found = asked(json.dumps(fields).encode())

    assert found.choices >= 1
    assert {type(value) for value in (found.known, found.logprobs, found.repeatable, found.background)} == {
        bool
    }


PHASES = st.sampled_from(list(Phase))
BROKEN = st.builds(
    Broken,
    PHASES,
    in_band=st.booleans(),
    known=st.booleans(),
    final=st.booleans(),
    response_id=st.sampled_from(["", "r"]),
    sequence=st.sampled_from([None, 0, 3]),
    background=st.booleans(),
    last_event_id=st.sampled_from([None, b"", b"7"]),
    eventful=st.booleans(),
    markered=st.booleans(),
    too_long=st.booleans(),
)
ORIGINS = st.builds(
    Origin,
    st.sampled_from(["GET", "POST"]),
    st.just(URL),
    st.booleans(),
    st.sampled_from(["", "/r", "https://other.example/"]),
)
ASKED = st.builds(
    Asked, *[st.booleans() if isinstance(default, bool) else st.just(default) for default in UNKNOWN]
)
SETTINGS = st.builds(
    StreamConfig,
    mode=st.sampled_from(["on", "detect"]),
    marker=st.booleans(),
    restart=st.booleans(),
    cursor=st.booleans(),
    replay=st.sampled_from(["auto", "always", "never"]),
)


@settings(max_examples=100, deadline=None)
@given(BROKEN, ORIGINS, ASKED, SETTINGS)
def test_what_is_never_done(broken: Broken, origin: Origin, request: Asked, config: StreamConfig) -> None:
    """Nothing is restarted after output, replayed before it, sent elsewhere, or sent when only detecting."""
    action, reason, onward = decide(broken, origin, request, config, lambda: "")

    if action is RESTART:
        assert broken.phase is NONE
    if action is REPLAY:
        assert broken.phase in (OUTPUT, TAIL)
        assert broken.eventful
        assert request.known
        assert not request.logprobs
        assert not broken.too_long
    if action is MARKER:
        assert broken.phase is TAIL
        assert broken.markered
        assert not broken.in_band
    if action is RESUME:
        assert not broken.final
    if onward is not None:
        assert config.mode == "on"
        assert onward.url.startswith("https://gateway.example/")
    assert bool(reason) == (action is FAIL)
