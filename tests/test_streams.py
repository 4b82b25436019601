"""What a stream says, whatever its protocol: errors, garbage, whole streams as servers send them, and any bytes."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.sse import Block, EventSplitter, parse
from gip_resilience.streams import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    GEMINI,
    RESPONSES,
    Grammar,
    Kind,
    Said,
    confirm,
    is_bare_error,
    is_event_stream,
)
from said import (
    END,
    ERROR,
    GARBLED,
    GRAMMARS,
    LIFECYCLE,
    NOTHING,
    OUTPUT,
    RUN,
    candidate,
    delta,
    event,
    read,
)

DEEP = 100_000
"""Brackets within brackets: more than any parser follows."""

# ---- in every protocol -----------------------------------------------------------------------------------

IN_EVERY_PROTOCOL = [
    ("comment", b": OPENROUTER PROCESSING\n\n", NOTHING),
    ("blank lines", b"\n\n", NOTHING),
    ("id alone", b"id: 7\n\n", NOTHING),
    ("retry alone", b"retry: 3000\n\n", NOTHING),
    ("name without data", b"event: ping\n\n", NOTHING),
    ("error without data", b"event: error\n\n", NOTHING),
    ("empty data", b"data:\n\n", NOTHING),
    ("blank data", b"data:   \n\n", NOTHING),
    ("two empty lines of data", b"data\ndata\n\n", NOTHING),
    ("ping with a date", b"event: ping\ndata: 2026-01-01 00:00\n\n", LIFECYCLE),
    ("ping by name", b"event: ping\ndata: {}\n\n", LIFECYCLE),
    ("ping by type", b'data: {"type": "ping"}\n\n', LIFECYCLE),
    ("keepalive", b'data: {"type": "keepalive"}\n\n', LIFECYCLE),
    # Where an error sits: (a) as an object of its own, (b) flat, (c) in a list, (d) in a data line, ...
    ("a: bare, on one line", b'{"error": {"message": "m", "code": "stream_error"}}\n\n', ERROR),
    (
        "a: bare, over several lines",
        b'{\n  "error": {\r\n    "code": 503,\n    "status": "X"\n  }\n}\n\n',
        ERROR,
    ),
    ("a: bare, after half of a CRLF", b'\n{"error": {"message": "m"}}\n\n', ERROR),
    ("a: bare, after a byte order mark", b'\xef\xbb\xbf{"error": {"message": "m"}}\n\n', ERROR),
    ("b: flat, bare", b'{"object": "error", "message": "m", "code": 400}\n\n', ERROR),
    ("b: flat", event({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}), ERROR),
    ("b: flat, by its type", event({"type": "error", "code": "server_error", "message": "m"}), ERROR),
    ("b: unmarked", event({"message": "m", "code": "model_overloaded"}), ERROR),
    (
        "c: in a list, bare",
        b'[{\n  "error": {\n    "code": 503,\n    "status": "UNAVAILABLE"\n  }\n}\n]\n\n',
        ERROR,
    ),
    ("c: in a list", event([{"error": {"code": 503, "status": "UNAVAILABLE"}}]), ERROR),
    ("d: nested", event({"error": {"message": "m", "type": "server_error", "code": None}}), ERROR),
    ("d: a string", event({"error": "upstream went away"}), ERROR),
    ("d: a list of strings", event({"error": ["upstream", "went away"]}), ERROR),
    ("d: a number", event({"error": 503}), ERROR),
    ("d: over two data lines", b'data: {"error":\ndata: {"message": "m"}}\n\n', ERROR),
    ("e: named, nested", event({"error": {"message": "m"}}, "error"), ERROR),
    ("e: named, flat", event({"message": "m"}, "error"), ERROR),
    ("e: named, plain text", event("upstream went away", "error"), ERROR),
    ("e: named, not UTF-8", b"event: error\ndata: \xff\n\n", ERROR),
    ("f: beside no choices", event({"id": "c1", "choices": [], "error": {"message": "m"}}), ERROR),
    ("bare JSON that is no error", b'{"choices": []}\n\n', NOTHING),
    ("bare text", b"upstream went away\n\n", NOTHING),
    ("bare end mark", b"[DONE]\n\n", NOTHING),
    ("no JSON", event("<html>"), GARBLED),
    ("JSON cut short", event('{"id": "c1", "choices": [{"index": 0, "del'), GARBLED),
    ("two documents", event('{"a": 1}{"b": 2}'), GARBLED),
    ("a control character in a string that nobody reads", event('{"a": "\x01"}'), GARBLED),
    ("not UTF-8", b'data: {"a": "\xc3"}\n\n', GARBLED),
    ("a byte order mark", b'data: \xef\xbb\xbf{"a": 1}\n\n', GARBLED),
    ("too deep", event("[" * DEEP), GARBLED),
    ("too deep within", event('{"a": ' + "[" * DEEP + "]" * DEEP + "}"), GARBLED),
    ("nothing known", event({"a": 1}), OUTPUT),
    ("nothing known, named", event({"a": 1}, "metadata"), OUTPUT),
    ("no error after all", event({"error": None, "a": 1}), OUTPUT),
    ("an empty object", event({}), OUTPUT),
    ("an empty list", event([]), OUTPUT),
    ("a string", event('"error"'), OUTPUT),
    ("a number", event("0"), OUTPUT),
    ("null", event("null"), OUTPUT),
    ("what Python reads, though it is no JSON", event('{"a": [NaN, -Infinity]}'), OUTPUT),
    ("a number too long for int()", event('{"a": ' + "9" * 5000 + "}"), OUTPUT),
]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar.name)
@pytest.mark.parametrize(("raw", "said"), [pytest.param(*row, id=name) for name, *row in IN_EVERY_PROTOCOL])
def test_what_is_the_same_in_every_protocol(grammar: Grammar, raw: bytes, said: Said) -> None:
    """Keepalives, errors in every place a server may put them, garbage, and what nobody knows."""
    assert read(grammar, raw) == said


@pytest.mark.parametrize("grammar", [CHAT, COMPLETIONS, RESPONSES], ids=lambda grammar: grammar.name)
@pytest.mark.parametrize("data", ["[DONE]", "[DONE] ", "[DONE]\ndata: "])
def test_the_end_mark_of_openai(grammar: Grammar, data: str) -> None:
    """It is data that begins with it, as the SDK sees it; in the Responses API a gateway adds it."""
    assert read(grammar, event(data)) == END


@pytest.mark.parametrize("grammar", [ANTHROPIC, GEMINI], ids=lambda grammar: grammar.name)
def test_the_end_mark_of_others_is_no_end(grammar: Grammar) -> None:
    """It must not pass for the end of a stream that has another."""
    assert read(grammar, event("[DONE]")) == GARBLED


# ---- whole streams ---------------------------------------------------------------------------------------

OPENAI_CHAT = b"".join(
    event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **rest})
    for rest in [
        {
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}}],
            "usage": None,
        },
        {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}], "usage": None},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": None}], "usage": None},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
    ]
) + event("[DONE]")

AZURE = (
    event({"choices": [], "created": 0, "id": "", "object": "", "prompt_filter_results": [{}]}) + OPENAI_CHAT
)

OPENROUTER_BREAKS = (
    b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n"
    + event(delta(role="assistant", content="Hello"))
    + event(
        {
            "id": "gen-1",
            "object": "chat.completion.chunk",
            "provider": "p",
            "error": {"code": "server_error", "message": "Provider disconnected unexpectedly"},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        }
    )
)

VLLM_BREAKS = (
    event(delta(content="Hello")) + event({"error": {"message": "m", "code": 500}}) + event("[DONE]")
)

RESPONSES_STREAM = b"".join(
    event({"type": type_, "sequence_number": number, **fields}, type_)
    for number, (type_, fields) in enumerate(
        [
            ("response.created", {"response": RUN}),
            ("response.in_progress", {"response": RUN}),
            ("response.output_item.added", {"output_index": 0, "item": {"id": "msg_1", "content": []}}),
            ("response.content_part.added", {"part": {"type": "output_text", "text": ""}}),
            ("response.output_text.delta", {"delta": "Hel", "obfuscation": "x"}),
            ("keepalive", {}),
            ("response.output_text.delta", {"delta": "lo", "obfuscation": "xyz"}),
            ("response.output_text.done", {"text": "Hello"}),
            ("response.content_part.done", {"part": {"type": "output_text", "text": "Hello"}}),
            ("response.output_item.done", {"output_index": 0, "item": {"id": "msg_1"}}),
            ("response.completed", {"response": RUN}),
        ]
    )
)

ANTHROPIC_STREAM = b"".join(
    event({"type": type_, **fields}, type_)
    for type_, fields in [
        ("message_start", {"message": {"id": "msg_1", "content": [], "stop_reason": None}}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        ("ping", {}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Let me see"}}),
        ("content_block_stop", {"index": 0}),
        ("content_block_start", {"index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f"}}),
        ("content_block_delta", {"index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}}),
        ("content_block_stop", {"index": 1}),
        ("message_delta", {"delta": {"stop_reason": "tool_use", "stop_sequence": None}}),
        ("message_stop", {}),
    ]
)

GEMINI_STREAM = b"".join(
    event({**chunk, "usageMetadata": {"totalTokenCount": 9}, "modelVersion": "m", "responseId": "r"})
    for chunk in [
        candidate({"text": "Hel"}, index=0),
        candidate({"text": "lo"}, index=0),
        candidate({"text": ""}, index=0, finishReason="STOP"),
    ]
).replace(b"\n", b"\r\n")


LETTERS = {
    Kind.NOTHING: "n",
    Kind.LIFECYCLE: "l",
    Kind.OUTPUT: "o",
    Kind.FINISH: "f",
    Kind.END: ".",
    Kind.ERROR: "!",
    Kind.GARBLED: "?",
}


@pytest.mark.parametrize(
    ("grammar", "stream", "expected"),
    [
        pytest.param(CHAT, OPENAI_CHAT, "loofl.", id="chat"),
        pytest.param(CHAT, AZURE, "lloofl.", id="azure"),
        pytest.param(CHAT, OPENROUTER_BREAKS, "nno!", id="openrouter breaks"),
        pytest.param(CHAT, VLLM_BREAKS, "o!.", id="vllm breaks, and says that it is done"),
        pytest.param(RESPONSES, RESPONSES_STREAM, "lllloloooo.", id="responses"),
        pytest.param(RESPONSES, RESPONSES_STREAM + event("[DONE]"), "lllloloooo..", id="responses, gateway"),
        pytest.param(ANTHROPIC, ANTHROPIC_STREAM, "llloloolf.", id="anthropic"),
        pytest.param(GEMINI, GEMINI_STREAM, "oof", id="gemini"),
    ],
)
def test_a_whole_stream(grammar: Grammar, stream: bytes, expected: str) -> None:
    """Openers, output, the ends of choices, and the end or an error, each where it belongs."""
    assert "".join(LETTERS[read(grammar, raw).kind] for raw in EventSplitter().feed(stream)) == expected


@pytest.mark.parametrize(
    ("grammar", "stream"),
    [
        (CHAT, OPENAI_CHAT),
        (CHAT, AZURE),
        (CHAT, VLLM_BREAKS),
        (RESPONSES, RESPONSES_STREAM),
        (ANTHROPIC, ANTHROPIC_STREAM),
        (GEMINI, GEMINI_STREAM),
    ],
)
def test_an_event_cut_anywhere_is_garbled_and_nothing_else(grammar: Grammar, stream: bytes) -> None:
    """Where a gateway frames what its upstream cut, the rest must not pass for output or for an end."""
    for raw in EventSplitter().feed(stream):
        data = parse(raw).data
        if data is None or data == b"[DONE]":
            continue
        for cut in range(1, len(data)):
            said = grammar.read(Block(b"", data[:cut], None, None), b"")
            assert said == GARBLED, data[:cut]


# ---- markers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grammar", [CHAT, COMPLETIONS, ANTHROPIC], ids=lambda grammar: grammar.name)
def test_a_marker_is_one_event_and_the_end(grammar: Grammar) -> None:
    """What is supplied in a server's place is read as if the server had sent it."""
    assert EventSplitter().feed(grammar.marker) == [grammar.marker]
    assert read(grammar, grammar.marker) == END


def test_anthropics_marker_is_named() -> None:
    """Its SDK passes over events without a name."""
    assert parse(ANTHROPIC.marker).event == b"message_stop"


def test_what_sets_the_grammars_apart() -> None:
    """Names are unique; two protocols have no marker that we could write; one may get a second one."""
    assert [grammar.name for grammar in GRAMMARS] == [
        "chat",
        "completions",
        "responses",
        "anthropic",
        "gemini",
    ]
    assert [grammar for grammar in GRAMMARS if not grammar.marker] == [RESPONSES, GEMINI]
    assert [grammar for grammar in GRAMMARS if grammar.trailing_done] == [RESPONSES]


def test_a_grammar_cannot_be_changed() -> None:
    """All streams of the process share it."""
    with pytest.raises(FrozenInstanceError):
        CHAT.marker = b""  # type: ignore[misc]


# ---- what else a body can be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("text/event-stream;charset=utf-8", True),
        (" Text/Event-Stream ", True),
        ("text/event-streams", False),
        ("application/json", False),
        ("application/json; note=text/event-stream", False),
        ("", False),
    ],
)
def test_what_an_event_stream_is(content_type: str, expected: bool) -> None:
    """The media type alone, in any case, with any parameters."""
    assert is_event_stream(content_type) is expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"error": {"message": "m"}}', True),
        (b'{"error": {"message": "m"}}\n', True),
        (b'\r\n {"error": {"message": "m"}}\r\n', True),
        (b'\xef\xbb\xbf{"error": {"message": "m"}}', True),
        (b'{\n "error": {\n  "code": "stream_error",\n  "mess', True),
        (b'[{"error": {"code": 503}}]', True),
        (b'{"object": "error", "message": "m"}', True),
        (b'data: {"error": {"message": "m"}}', False),
        (b'event: error\ndata: {"err', False),
        (b'{"error": null}', False),
        (b'{"id": "c1", "choices": []}', False),
        (b'{"mess', False),
        (b"[DONE]", False),
        (b"error", False),
        (b"", False),
    ],
)
def test_what_a_bare_error_is(raw: bytes, expected: bool) -> None:
    """JSON that is an error, whole or cut; an event that is not finished is none."""
    assert is_bare_error(raw) is expected


# ---- any bytes -------------------------------------------------------------------------------------------

REAL = [
    json.loads(data)
    for stream in (AZURE, OPENROUTER_BREAKS, RESPONSES_STREAM, ANTHROPIC_STREAM, GEMINI_STREAM)
    for data in (parse(raw).data for raw in EventSplitter().feed(stream))
    if data not in (None, b"[DONE]")
]


def names(value: Any) -> set[str]:
    """Every key and every text in a JSON value."""
    if isinstance(value, dict):
        return {*value, *(name for inside in value.values() for name in names(inside))}
    if isinstance(value, list):
        return {name for inside in value for name in names(inside)}
    return {value} if isinstance(value, str) else set()


WORDS = st.sampled_from(sorted({"error", "ping", *names(REAL)}))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=4),
    max_leaves=12,
)
# A real event, some fields of which are anything.
EVENTS = st.builds(
    lambda real, strange: real | strange, st.sampled_from(REAL), st.dictionaries(WORDS, VALUES, max_size=3)
)
NAMES = st.sampled_from(
    [b"", b"ping", b"message_start", b"message_delta", b"response.created", b"\xff", b"x"]
)
FUZZY = settings(max_examples=100, deadline=None)


@FUZZY
@given(data=st.binary() | st.binary().map(b"data: ".__add__), name=NAMES | st.just(b"error"))
def test_any_bytes_mean_something(data: bytes, name: bytes) -> None:
    """Whatever a server sends, there is an answer and no exception."""
    is_bare_error(data)
    for grammar in GRAMMARS:
        for block in (Block(name, data, None, None), parse(data)):
            said = grammar.read(block, data)
            assert set(said.finished) <= set(said.indexes)
            assert (said.kind is Kind.FINISH) is bool(said.finished)
            assert confirm(grammar, block, data) in [*GRAMMARS, None]
            confirm(None, block, data)


@FUZZY
@given(value=VALUES | EVENTS, name=NAMES, cut=st.integers(0, 60), broken=st.binary(max_size=2))
def test_only_what_no_client_could_parse_is_garbled(value: Any, name: bytes, cut: int, broken: bytes) -> None:
    """Any valid JSON is something, however strange; anything else is not."""
    text = json.dumps(value, ensure_ascii=False).encode()
    for data in (text, text[:cut] + broken + text[cut:], text[:cut]):
        try:
            json.loads(data.decode())
            valid = True
        except ValueError:
            valid = not data.strip() or name == b"ping"
        for grammar in GRAMMARS:
            said = grammar.read(Block(name, data, None, None), b"")
            assert (said.kind is Kind.GARBLED) is not valid


@FUZZY
@given(value=EVENTS, name=NAMES)
def test_a_careful_look_and_a_quick_one_agree(value: dict[str, Any], name: bytes) -> None:
    """What takes the long way round, here for a number only Python reads, means what it would mean otherwise."""
    quick, careful = (json.dumps({**value, "z": z}).encode() for z in (0.0, float("nan")))
    for grammar in GRAMMARS:
        reads = [grammar.read(Block(name, data, None, None), b"") for data in (quick, careful)]
        assert reads[0] == reads[1]
