"""The protocols: what the events of each say, one table per protocol; and how a stream's protocol is told."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import pytest
from openai.types.responses import ResponseStreamEvent

from gip_resilience.sse import parse
from gip_resilience.streams import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    GEMINI,
    RESPONSES,
    Kind,
    Said,
    confirm,
    grammar_for,
)
from said import (
    END,
    ENDS,
    ERROR,
    GRAMMARS,
    LIFECYCLE,
    OPENS,
    OUTPUT,
    RUN,
    SPEAKS,
    candidate,
    choice,
    delta,
    event,
    read,
)

if TYPE_CHECKING:
    from gip_resilience.streams import Grammar

ODDITY = {"odd": float("nan")}
"""Makes an event one that only lenient parsers read, Python's among them. It must say what it said without."""

# ---- chat and completions --------------------------------------------------------------------------------

CHAT_EVENTS = [
    ("role", delta(role="assistant"), OPENS),
    ("role, empty content", delta(role="assistant", content="", refusal=None), OPENS),
    ("empty", delta(), OPENS),
    ("nothing but nulls", delta(role="assistant", content=None, tool_calls=None, audio=None), OPENS),
    ("no tools", delta(content="", tool_calls=[]), OPENS),
    ("null delta", choice(delta=None, text=""), OPENS),
    ("empty reason", choice(delta={"content": ""}, finish_reason=""), OPENS),
    ("content", delta(content="Hello"), SPEAKS),
    ("content beside the role", delta(role="assistant", content="Hello"), SPEAKS),
    ("content that is a blank", delta(content=" "), SPEAKS),
    ("content in UTF-8", delta(content="日本"), SPEAKS),
    ("content, empty reason", choice(delta={"content": "Hello"}, finish_reason=""), SPEAKS),
    ("content in parts", delta(content=[{"type": "thinking", "thinking": []}]), SPEAKS),
    ("refusal", delta(content=None, refusal="No"), SPEAKS),
    ("reasoning", delta(content="", reasoning="Let"), SPEAKS),
    ("reasoning_content", delta(content=None, reasoning_content="Let"), SPEAKS),
    ("tool call", delta(tool_calls=[{"index": 0, "id": "t1", "function": {"arguments": ""}}]), SPEAKS),
    ("function call", delta(function_call={"name": "f", "arguments": ""}), SPEAKS),
    ("audio", delta(audio={"id": "a1", "data": "AAAA"}), SPEAKS),
    ("unknown", delta(content="", annotations=[{"url": "u"}]), SPEAKS),
    ("half of a surrogate pair", delta(content="\ud83d"), SPEAKS),
    ("delta of another type", choice(delta="Hello"), SPEAKS),
    ("empty delta of another type", choice(delta=[]), OPENS),
    ("unknown kind of choice", choice(message={"content": "Hello"}), SPEAKS),
    ("no index", {"choices": [{"delta": {"content": "Hello"}}]}, SPEAKS),
    ("index of another type", {"choices": [{"index": "0", "delta": {"content": "Hello"}}]}, SPEAKS),
    ("no object", {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}, SPEAKS),
    ("padding", {**delta(role="assistant"), "obfuscation": "xyz"}, OPENS),
    ("stop", choice(delta={}, finish_reason="stop"), ENDS),
    ("stop without delta", choice(finish_reason="stop"), ENDS),
    ("content and stop", choice(delta={"content": "Hello"}, finish_reason="length"), ENDS),
    ("reason of another type", choice(delta={}, finish_reason=["stop"]), ENDS),
    ("no error", {**delta(content="Hello"), "error": None}, SPEAKS),
    ("empty error", {**delta(content="Hello"), "error": {}}, SPEAKS),
    ("error beside output", {**delta(content="Hello"), "error": {"code": 502, "message": "m"}}, ERROR),
    ("error as reason", choice(delta={"content": ""}, finish_reason="error"), ERROR),
    ("error as reason, and an error", {**choice(finish_reason="error"), "error": {"code": 502}}, ERROR),
    ("DeepSeek out of resources", choice(delta={}, finish_reason="insufficient_system_resource"), ERROR),
    ("verdict on the prompt", {"choices": [], "prompt_filter_results": [{}], "object": ""}, LIFECYCLE),
    ("usage", {"choices": [], "usage": {"total_tokens": 3}}, Said(Kind.LIFECYCLE, usage=True)),
    ("usage without choices", {"usage": {"total_tokens": 3}}, Said(Kind.LIFECYCLE, usage=True)),
    ("no usage yet", {**delta(content="Hello"), "usage": None}, SPEAKS),
    ("running usage", {**delta(content="Hello"), "usage": {"total_tokens": 3}}, SPEAKS._replace(usage=True)),
    ("usage at the stop", {**choice(delta={}, finish_reason="stop"), "usage": {}}, ENDS._replace(usage=True)),
    ("choices of another type", {"choices": {"0": {"delta": {}}}}, OUTPUT),
    ("a choice of another type", {"choices": ["Hello"]}, OUTPUT),
    ("text", choice(text="Hello"), SPEAKS),
    ("empty text", choice(text="", finish_reason=None), OPENS),
    ("text and stop", choice(text="Hello", finish_reason="stop"), ENDS),
    ("text beside an empty delta", choice(text="Hello", delta={}), SPEAKS),
    (
        "two choices",
        {"choices": [{"index": 0, "delta": {"role": "assistant"}}, {"index": 1, "delta": {"content": "b"}}]},
        Said(Kind.OUTPUT, (), (0, 1)),
    ),
    (
        "two choices, the first speaks",
        {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {}}]},
        Said(Kind.OUTPUT, (), (0, 1)),
    ),
    (
        "two choices open",
        {"choices": [{"index": 1, "delta": {}}, {"index": 0, "delta": {"role": "assistant"}}]},
        Said(Kind.LIFECYCLE, (), (1, 0)),
    ),
    (
        "one of two ends",
        {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "finish_reason": "stop"}]},
        Said(Kind.FINISH, (1,), (0, 1)),
    ),
    (
        "both end",
        {"choices": [{"index": 2, "finish_reason": "stop"}, {"index": 1, "finish_reason": "length"}]},
        Said(Kind.FINISH, (2, 1), (2, 1)),
    ),
    (
        "one of two fails",
        {"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": "error"}]},
        ERROR,
    ),
    ("another choice", {"choices": [{"index": 3, "delta": {"content": "a"}}]}, Said(Kind.OUTPUT, (), (3,))),
]


@pytest.mark.parametrize("grammar", [CHAT, COMPLETIONS], ids=lambda grammar: grammar.name)
@pytest.mark.parametrize(("data", "said"), [pytest.param(*row, id=name) for name, *row in CHAT_EVENTS])
def test_an_event_of_chat(grammar: Grammar, data: Any, said: Said) -> None:
    """A delta speaks when anything but its role is not empty; a reason ends its choice."""
    assert read(grammar, event(data)) == said
    assert read(grammar, event(data | ODDITY)) == said


# ---- the Responses API -----------------------------------------------------------------------------------


def sequenced(kind: Kind, number: int | None = 5, **fields: Any) -> Said:
    """What an event of the Responses API with a sequence number says."""
    return Said(kind, sequence=number, **fields)


RESPONSE_EVENTS = [
    ("response.created", {"response": RUN}, sequenced(Kind.LIFECYCLE, response_id="resp_1")),
    ("response.in_progress", {"response": RUN}, sequenced(Kind.LIFECYCLE, response_id="resp_1")),
    (
        "response.queued",
        {"response": {**RUN, "background": True}},
        sequenced(Kind.LIFECYCLE, response_id="resp_1", background=True),
    ),
    (
        "response.created",
        {"response": {**RUN, "background": "no"}},
        sequenced(Kind.LIFECYCLE, response_id="resp_1"),
    ),
    ("response.created", {"response": {**RUN, "id": 7}}, sequenced(Kind.LIFECYCLE)),
    ("response.created", {"response": {"status": "in_progress"}}, sequenced(Kind.LIFECYCLE)),
    ("response.created", {"response": None}, sequenced(Kind.LIFECYCLE)),
    ("response.output_item.added", {"item": {"type": "message"}}, sequenced(Kind.LIFECYCLE)),
    ("response.content_part.added", {"part": {"text": ""}}, sequenced(Kind.LIFECYCLE)),
    ("response.reasoning_summary_part.added", {}, sequenced(Kind.LIFECYCLE)),
    ("keepalive", {}, sequenced(Kind.LIFECYCLE)),
    ("ping", {"cost": "0"}, sequenced(Kind.LIFECYCLE)),
    ("response.output_text.delta", {"delta": "Hello"}, sequenced(Kind.OUTPUT)),
    ("response.function_call_arguments.delta", {"delta": "{"}, sequenced(Kind.OUTPUT)),
    ("response.output_item.done", {"item": {"error": "of a tool"}}, sequenced(Kind.OUTPUT)),
    ("response.mcp_call.failed", {"error": "of a tool"}, sequenced(Kind.OUTPUT)),
    ("response.of_tomorrow", {"message": "Hello"}, sequenced(Kind.OUTPUT)),
    ("of.tomorrow", {"message": "Hello"}, sequenced(Kind.OUTPUT)),
    ("response.completed", {"response": RUN}, sequenced(Kind.END, response_id="resp_1")),
    ("response.incomplete", {"response": RUN}, sequenced(Kind.END, response_id="resp_1")),
    ("response.cancelled", {"response": RUN}, sequenced(Kind.END, response_id="resp_1")),
    (
        "response.failed",
        {"response": {**RUN, "error": {"code": "server_error"}}},
        sequenced(Kind.ERROR, response_id="resp_1", final=True),
    ),
    ("error", {"code": "server_error", "message": "m", "param": None}, sequenced(Kind.ERROR)),
    ("error", {"error": {"code": "server_error", "message": "m"}}, sequenced(Kind.ERROR)),
    ("of.tomorrow", {"error": {"message": "m"}}, ERROR),
]


@pytest.mark.parametrize("named", ["in the data", "by the event", "in both"])
@pytest.mark.parametrize(("type_", "fields", "said"), RESPONSE_EVENTS)
def test_an_event_of_the_responses_api(type_: str, fields: dict[str, Any], said: Said, named: str) -> None:
    """Its type may be in the data, in the event's name, or in both."""
    data = fields | {"sequence_number": 5}
    if named != "by the event":
        data = {"type": type_, **data}
    name = "" if named == "in the data" else type_

    for sent in (data, data | ODDITY):
        # What is named an error is one at once: it may be any text.
        assert read(RESPONSES, event(sent, name)) == (ERROR if name == "error" else said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"type": "response.output_text.delta", "delta": "a"}, OUTPUT),
        ({"type": "response.output_text.delta", "sequence_number": 0}, sequenced(Kind.OUTPUT, 0)),
        ({"type": "response.output_text.delta", "sequence_number": "5"}, OUTPUT),
        ({"type": "response.output_text.delta", "sequence_number": True}, OUTPUT),
        (
            {"type": "response.output_text.delta", "delta": "\ud83d", "sequence_number": 5},
            sequenced(Kind.OUTPUT),
        ),
        ({"type": "response.created", "response": "resp_1"}, OUTPUT),
        ({"type": 7, "sequence_number": 5}, sequenced(Kind.OUTPUT)),
    ],
)
def test_an_event_of_the_responses_api_that_lacks_something(data: dict[str, Any], said: Said) -> None:
    """A number that is missing, or is none, is not made up."""
    assert read(RESPONSES, event(data)) == said


def test_every_event_the_openai_sdk_knows_is_output_but_these() -> None:
    """An event that is new with a release of the SDK is something of the answer until somebody has looked."""
    union = typing.get_args(ResponseStreamEvent)[0]
    types = {typing.get_args(model.model_fields["type"].annotation)[0] for model in typing.get_args(union)}

    known = {type_ for type_ in types if read(RESPONSES, event({"type": type_})).kind is not Kind.OUTPUT}

    assert known == {
        "error",
        "response.completed",
        "response.content_part.added",
        "response.created",
        "response.failed",
        "response.in_progress",
        "response.incomplete",
        "response.output_item.added",
        "response.queued",
        "response.reasoning_summary_part.added",
    }


# ---- Anthropic -------------------------------------------------------------------------------------------

MESSAGE_EVENTS = [
    ("message_start", {"message": {"id": "msg_1", "role": "assistant", "content": []}}, LIFECYCLE),
    ("ping", {}, LIFECYCLE),
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}, LIFECYCLE),
    ("content_block_start", {"content_block": {"type": "text", "text": "", "citations": []}}, LIFECYCLE),
    (
        "content_block_start",
        {"content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        LIFECYCLE,
    ),
    ("content_block_start", {"content_block": {"type": "text", "text": "Hello"}}, OUTPUT),
    (
        "content_block_start",
        {"content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
        OUTPUT,
    ),
    ("content_block_start", {"content_block": {"type": "redacted_thinking", "data": "x"}}, OUTPUT),
    ("content_block_start", {}, OUTPUT),
    ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Hello"}}, OUTPUT),
    ("content_block_delta", {"delta": {"type": "input_json_delta", "partial_json": "{"}}, OUTPUT),
    ("content_block_delta", {"delta": {"type": "text_delta", "text": "\ud83d"}}, OUTPUT),
    ("content_block_stop", {"index": 0}, LIFECYCLE),
    ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}, ENDS),
    ("message_delta", {"delta": {"stop_reason": None}, "usage": {"output_tokens": 2}}, LIFECYCLE),
    ("message_delta", {"delta": {}}, LIFECYCLE),
    ("message_delta", {"delta": None}, LIFECYCLE),
    ("message_stop", {}, END),
    ("error", {"error": {"type": "overloaded_error", "message": "Overloaded"}}, ERROR),
    ("of_tomorrow", {"delta": {}}, OUTPUT),
    ("of_tomorrow", {"error": {"type": "api_error"}}, ERROR),
    ("content_block_delta", {"delta": {"text": "Hello"}, "error": {"type": "api_error"}}, ERROR),
    ("message_stop", {"error": "upstream went away"}, ERROR),
    ("message_stop", {"error": None}, END),
]


@pytest.mark.parametrize("named", ["in the data", "by the event", "in both"])
@pytest.mark.parametrize(("type_", "fields", "said"), MESSAGE_EVENTS)
def test_an_event_of_anthropic(type_: str, fields: dict[str, Any], said: Said, named: str) -> None:
    """Its type may be in the data, in the event's name, or in both."""
    data = fields if named == "by the event" else {"type": type_, **fields}

    for sent in (data, data | ODDITY):
        assert read(ANTHROPIC, event(sent, "" if named == "in the data" else type_)) == said


# ---- Gemini ----------------------------------------------------------------------------------------------


GEMINI_EVENTS = [
    ("text", candidate({"text": "Hello"}), SPEAKS),
    ("text, index 0", candidate({"text": "Hello"}, index=0), SPEAKS),
    ("function call", candidate({"functionCall": {"name": "f", "args": {}}}), SPEAKS),
    ("empty text with a signature", candidate({"text": "", "thoughtSignature": "x"}), SPEAKS),
    ("text after empty text", candidate({"text": ""}, {"text": "Hello"}), SPEAKS),
    ("half of a surrogate pair", candidate({"text": "\ud83d"}), SPEAKS),
    ("unknown kind of candidate", {"candidates": [{"groundingMetadata": {}}]}, SPEAKS),
    ("parts of another type", {"candidates": [{"content": {"parts": "Hello"}}]}, SPEAKS),
    ("empty text", candidate({"text": ""}), OPENS),
    ("no parts", candidate(), OPENS),
    ("end", candidate({"text": ""}, finishReason="STOP"), ENDS),
    ("text and end", candidate({"text": "Hello"}, finishReason="MAX_TOKENS", index=0), ENDS),
    ("end without content", {"candidates": [{"finishReason": "SAFETY"}]}, ENDS),
    ("index of another type", candidate(finishReason="STOP", index="0"), ENDS),
    ("another candidate", candidate({"text": "Hello"}, index=2), Said(Kind.OUTPUT, (), (2,))),
    (
        "one of two ends",
        {"candidates": [{"content": {"parts": [{"text": "a"}]}}, {"index": 1, "finishReason": "STOP"}]},
        Said(Kind.FINISH, (1,), (0, 1)),
    ),
    (
        "two candidates, the first speaks",
        {"candidates": [{"content": {"parts": [{"text": "a"}]}}, {"index": 1, "content": {"parts": []}}]},
        Said(Kind.OUTPUT, (), (0, 1)),
    ),
    ("refused prompt", {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}, ENDS),
    ("refused prompt, no candidates", {"candidates": [], "promptFeedback": {"blockReason": "OTHER"}}, ENDS),
    (
        "feedback and an answer",
        {**candidate({"text": "a"}), "promptFeedback": {"blockReason": "OTHER"}},
        SPEAKS,
    ),
    ("prompt looked at", {"promptFeedback": {"safetyRatings": []}}, LIFECYCLE),
    ("usage", {"usageMetadata": {"totalTokenCount": 3}, "modelVersion": "gemini-3"}, LIFECYCLE),
    ("no candidates", {"candidates": []}, LIFECYCLE),
    ("error beside output", {**candidate({"text": "a"}), "error": {"code": 503}}, ERROR),
    ("candidates of another type", {"candidates": {"content": {}}}, OUTPUT),
]


@pytest.mark.parametrize(("data", "said"), [pytest.param(*row, id=name) for name, *row in GEMINI_EVENTS])
def test_an_event_of_gemini(data: Any, said: Said) -> None:
    """A candidate ends with its reason; a refused prompt ends the answer before there is one."""
    for sent in (data, data | ODDITY):
        assert read(GEMINI, event(sent).replace(b"\n", b"\r\n")) == said


# ---- which grammar ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "grammar"),
    [
        ("/v1/chat/completions", CHAT),
        ("/chat/completions", CHAT),
        ("/v1/chat/completions/", CHAT),
        ("/openai/deployments/gpt-5/chat/completions?api-version=2026-01-01", CHAT),
        ("/api/v1/chat/completions?next=/v1/messages", CHAT),
        ("/v1/completions", COMPLETIONS),
        ("/v1/fim/completions", COMPLETIONS),
        ("/v1/responses", RESPONSES),
        ("/v1/responses/resp_123", RESPONSES),
        ("/v1/responses/resp_123?stream=true&starting_after=4", RESPONSES),
        ("/v1/responses/resp_123/input_items", None),
        ("/v1/responses/resp_123/cancel", None),
        ("/v1/messages", ANTHROPIC),
        ("/anthropic/v1/messages?beta=true", ANTHROPIC),
        ("/v1/messages/count_tokens", None),
        ("/v1/messages/batches", None),
        ("/v1beta/models/gemini-3-pro:streamGenerateContent", GEMINI),
        ("/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse", GEMINI),
        ("/v1beta/models/gemini-3-pro:generateContent", None),
        ("/v1/chat/completions/chatcmpl-1", None),
        ("/v1/embeddings", None),
        ("/completionsx", None),
        ("completions", COMPLETIONS),
        ("/", None),
        ("", None),
    ],
)
def test_what_a_path_promises(path: str, grammar: Grammar | None) -> None:
    """The end of the path counts, whatever a gateway puts in front of it."""
    assert grammar_for(path) is grammar


KEEPS = "what was expected"

FIRST_EVENTS = [
    ("chat", event({"object": "chat.completion.chunk", "choices": []}), CHAT),
    ("chat without object", event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}), CHAT),
    ("chat with an error", event({"choices": [{"delta": {}}], "error": {"message": "m"}}), CHAT),
    ("completions", event({"object": "text_completion", "choices": []}), COMPLETIONS),
    (
        "completions with a delta",
        event({"object": "text_completion", "choices": [{"delta": None}]}),
        COMPLETIONS,
    ),
    ("completions without object", event({"choices": [{"text": "a", "index": 0}]}), COMPLETIONS),
    ("responses", event({"type": "response.created", "response": RUN}), RESPONSES),
    ("responses by name", event({"response": RUN}, "response.created"), RESPONSES),
    ("responses, error", event({"type": "error", "message": "m", "sequence_number": 0}, "error"), RESPONSES),
    ("anthropic", event({"type": "message_start", "message": {}}, "message_start"), ANTHROPIC),
    ("anthropic by name", event({"message": {}}, "message_start"), ANTHROPIC),
    ("anthropic from the middle", event({"type": "content_block_delta", "delta": {}}), ANTHROPIC),
    ("anthropic from its end", event({"type": "message_delta", "delta": {}}), ANTHROPIC),
    ("gemini", event(candidate({"text": "a"})), GEMINI),
    ("gemini, refused", event({"promptFeedback": {"blockReason": "SAFETY"}}), GEMINI),
    ("comment", b": hello\n\n", KEEPS),
    ("bare error", b'{"error": {"message": "m"}}\n\n', KEEPS),
    ("blank data", b"data: \n\n", KEEPS),
    ("error", event({"error": {"message": "m"}}), KEEPS),
    ("error by name", event("upstream went away", "error"), KEEPS),
    ("error by type", event({"type": "error", "error": {"type": "overloaded_error"}}), KEEPS),
    ("keepalive", event({"type": "keepalive"}), KEEPS),
    ("garbage", event("<html>"), KEEPS),
    ("not UTF-8", b"data: \xff\n\n", KEEPS),
    ("no object", event("[1]"), None),
    ("null", event("null"), None),
    ("choices of another type", event({"choices": {"delta": {}}}), None),
    ("a choice of another type", event({"choices": ["delta"]}), None),
    ("another protocol", event({"event": "agent_message", "answer": "a"}), None),
    ("another protocol, named", event({"run_id": "r"}, "message_end"), None),
    ("another protocol, numbered", event({"type": "status", "sequence_number": 0}), None),
    ("another protocol, typed", event({"type": "conversation.response.started"}), None),
]


@pytest.mark.parametrize("expected", [*GRAMMARS, None], ids=lambda grammar: getattr(grammar, "name", "none"))
@pytest.mark.parametrize(("raw", "found"), [pytest.param(*row, id=name) for name, *row in FIRST_EVENTS])
def test_what_the_first_event_tells(expected: Grammar | None, raw: bytes, found: Any) -> None:
    """An event that is clearly of a protocol outweighs the path; one that may be of any changes nothing."""
    assert confirm(expected, parse(raw), raw) is (expected if found is KEEPS else found)


@pytest.mark.parametrize(
    ("raw", "keeps", "otherwise"),
    [
        pytest.param(event("[DONE]"), [CHAT, COMPLETIONS, RESPONSES, ANTHROPIC, GEMINI], None, id="[DONE]"),
        pytest.param(event({"type": "ping"}, "ping"), GRAMMARS, ANTHROPIC, id="ping"),
        pytest.param(
            event({"choices": [], "prompt_filter_results": []}), [CHAT, COMPLETIONS], None, id="azure"
        ),
        pytest.param(event({"usageMetadata": {}}), [GEMINI], None, id="gemini's usage"),
        pytest.param(event({"type": "of.tomorrow"}), [], None, id="unknown"),
    ],
)
def test_a_first_event_that_is_nothing_strange_to_some(
    raw: bytes, keeps: list[Grammar], otherwise: Grammar | None
) -> None:
    """Where the path's own protocol knows the event, the path is believed."""
    for expected in [*GRAMMARS, None]:
        assert confirm(expected, parse(raw), raw) is (expected if expected in keeps else otherwise)


@pytest.mark.parametrize(
    ("grammar", "name"),
    [
        (RESPONSES, b"response.output_text.delta"),
        (RESPONSES, b"response.completed"),
        (ANTHROPIC, b"content_block_delta"),
        (ANTHROPIC, b"message_stop"),
    ],
)
def test_a_gateways_error_under_the_name_of_an_event(grammar: Grammar, name: bytes) -> None:
    """An error that a gateway wrote where an event had begun is an error, and neither output nor an end."""
    raw = b'event: %b\ndata: {"error": {"type": "server_error", "code": "stream_error"}}\n\n' % name

    assert grammar.read(parse(raw), raw).kind is Kind.ERROR
