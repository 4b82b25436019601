"""Replays of what cannot be put together: another answer, and what cannot be compared."""

from __future__ import annotations

import pickle

import pytest

from gip_resilience._replay import Replay
from gip_resilience._replay_past import Diverged
from replays import (
    DONE,
    HELLO,
    MESSAGE,
    OPENED,
    STOP,
    anthropic,
    calls,
    chat,
    closes,
    event,
    gemini,
    handed_up,
    legacy,
    opens,
    says,
    starts,
    stops,
)


@pytest.mark.parametrize(
    ("grammar", "delivered", "again", "at", "channel"),
    [
        pytest.param("chat", HELLO, [chat({"content": "Help"})], 3, "content", id="text"),
        pytest.param(
            "chat", HELLO, [chat({"content": "He"}), chat({"content": "y"})], 2, "content", id="later"
        ),
        pytest.param("chat", HELLO, [chat({"content": "He"}, "stop")], 2, "content", id="early-finish"),
        pytest.param("chat", HELLO, [chat({"content": "He"}), DONE], 2, "content", id="early-marker"),
        pytest.param("chat", HELLO, [DONE], 0, "content", id="marker-alone"),
        pytest.param("chat", HELLO, [chat(calls(0, name="f"))], 0, "content", id="a-tool-instead"),
        pytest.param(
            "chat", HELLO, [chat({"content": "He", "refusal": "x"})], 2, "content", id="a-refusal-too"
        ),
        pytest.param("chat", HELLO, [chat({"audio": {"data": "x"}})], 0, "content", id="unknown-instead"),
        pytest.param(
            "chat", [*HELLO, chat(finish="stop")], [chat({"content": "Hello."})], 5, "content", id="goes-on"
        ),
        pytest.param(
            "chat",
            [*HELLO, chat(finish="stop")],
            [chat({"content": "Hello"}, "length")],
            0,
            "the finish reason",
            id="other-finish",
        ),
        pytest.param(
            "chat",
            [*HELLO, chat(finish="stop")],
            [chat({"content": "Hello"}, "stop"), chat({"content": "."})],
            5,
            "content",
            id="goes-on-after-the-finish",
        ),
        pytest.param(
            "chat",
            [*HELLO, chat(finish="stop")],
            [chat({"content": "He"}, "stop")],
            2,
            "content",
            id="ends-sooner",
        ),
        pytest.param(
            "chat",
            [*HELLO, chat(finish="stop")],
            [chat({"content": "Hello"}), DONE],
            0,
            "the finish reason",
            id="no-finish",
        ),
        pytest.param(
            "chat",
            HELLO,
            [event({"choices": [{"index": 1, "delta": {}}]})],
            0,
            "content",
            id="another-choice",
        ),
        pytest.param(
            "chat",
            HELLO,
            [chat({"content": "Hello"}), event({"choices": [{"index": 1, "delta": {"content": "x"}}]})],
            0,
            "another choice",
            id="another-choice-later",
        ),
        pytest.param("chat", HELLO, [event({"choices": "He"})], 0, "content", id="unheard-of"),
        pytest.param(
            "chat",
            [chat({"content": "\U0001f600"})],
            [chat({"content": "\U0001f601"})],
            0,
            "content",
            id="the-second-half-of-a-pair",
        ),
        pytest.param(
            "chat", OPENED, [chat(calls(0, name="g"))], 0, "tool_calls[0].function.name", id="another-tool"
        ),
        pytest.param(
            "chat", OPENED, [chat(calls(0, name="ff"))], 0, "tool_calls[0].function.name", id="a-longer-name"
        ),
        pytest.param(
            "chat",
            OPENED,
            [chat(calls(0, name="f", arguments='{"b"'))],
            2,
            "tool_calls[0].function.arguments",
            id="tool-arguments",
        ),
        pytest.param(
            "chat",
            OPENED,
            [chat(calls(0, name="f", arguments='{"a')), chat(calls(1, name="g"))],
            3,
            "tool_calls[0].function.arguments",
            id="tool-arguments-short",
        ),
        pytest.param(
            "chat",
            [*OPENED, chat(calls(1, name="g", arguments=""))],
            [chat(calls(0, name="f", arguments='{"a":')), chat(finish="tool_calls")],
            0,
            "tool_calls[1]",
            id="a-tool-less",
        ),
        pytest.param(
            "chat",
            [chat({"reasoning": "hm"}), chat({"content": "a"})],
            [chat({"reasoning": "hm, so"})],
            0,
            "content",
            id="longer-reasoning",
        ),
        pytest.param(
            "chat",
            [chat({"function_call": {"name": "f", "arguments": "{}"}})],
            [chat({"function_call": {"name": "f", "arguments": "[]"}})],
            0,
            "function_call.arguments",
            id="function-call",
        ),
        pytest.param("completions", [legacy("Hello")], [legacy("Help")], 3, "text", id="completions"),
        pytest.param("gemini", [gemini({"text": "ab"})], [gemini({"text": "ax"})], 1, "text", id="gemini"),
        pytest.param(
            "gemini",
            [gemini({"text": "ab"})],
            [gemini({"text": "a"}, finish="STOP")],
            1,
            "text",
            id="gemini-early",
        ),
        pytest.param(
            "gemini",
            [gemini({"text": "ab"})],
            [gemini({"text": "ab", "thought": True})],
            0,
            "text",
            id="gemini-thought",
        ),
        pytest.param(
            "gemini",
            [gemini({"text": "a"})],
            [gemini({"functionCall": {"name": "f"}})],
            0,
            "text",
            id="gemini-tool",
        ),
        pytest.param(
            "anthropic", MESSAGE, [starts(), opens(), says("Help")], 3, "content[0]", id="anthropic"
        ),
        pytest.param(
            "anthropic", MESSAGE, [opens(), says("He"), stops()], 2, "content[0]", id="anthropic-early"
        ),
        pytest.param(
            "anthropic", MESSAGE, [opens(), says("He"), STOP], 2, "content[0]", id="anthropic-marker"
        ),
        pytest.param(
            "anthropic", MESSAGE, [opens(), says("He"), closes()], 2, "content[0]", id="anthropic-closed"
        ),
        pytest.param(
            "anthropic", MESSAGE, [opens(0, "tool_use")], 0, "the type of content[0]", id="anthropic-tool"
        ),
        pytest.param(
            "anthropic",
            [*MESSAGE, closes()],
            [opens(), says("Hello.")],
            5,
            "content[0]",
            id="anthropic-longer-block",
        ),
        pytest.param(
            "anthropic",
            [*MESSAGE, closes(), opens(1)],
            [opens(), says("Hello"), closes(), stops()],
            0,
            "the type of content[1]",
            id="anthropic-a-block-less",
        ),
        pytest.param(
            "anthropic",
            [*MESSAGE, closes(), stops()],
            [opens(), says("He"), stops()],
            2,
            "content[0]",
            id="anthropic-ends-sooner",
        ),
        pytest.param(
            "anthropic",
            MESSAGE,
            [opens(text="Hello.")],
            5,
            "content[0]",
            id="anthropic-new-text-in-an-opener",
        ),
    ],
)
def test_another_answer(
    grammar: str, delivered: list[bytes], again: list[bytes], at: int, channel: str
) -> None:
    """The event that gives it away is refused, and none before it was handed up."""
    replay = Replay(grammar, delivered)
    *before, last = again

    assert handed_up(replay, before) == []
    with pytest.raises(Diverged) as caught:
        replay.feed(last)
    assert (caught.value.at, caught.value.channel) == (at, channel)


@pytest.mark.parametrize(
    ("grammar", "block", "obstacle"),
    [
        pytest.param("chat", chat({"audio": {"data": "x"}}), "audio was delivered", id="audio"),
        pytest.param("chat", chat({"annotations": [1]}), "unknown output", id="unknown-key"),
        pytest.param("chat", chat({"content": [{"type": "text"}]}), "unknown output", id="no-text"),
        pytest.param("chat", chat({"tool_calls": "x"}), "unknown output", id="no-list"),
        pytest.param("chat", chat({"tool_calls": ["x"]}), "unknown output", id="no-objects"),
        pytest.param("chat", chat(calls(0, name="f") | {"x": 1}), "unknown output", id="beside-calls"),
        pytest.param(
            "chat", chat({"tool_calls": [{"custom": {"input": "x"}}]}), "unknown output", id="custom-tool"
        ),
        pytest.param(
            "chat", chat({"function_call": {"name": "f", "x": 1}}), "unknown output", id="in-a-function"
        ),
        pytest.param("chat", b"data: {\n\n", "unknown output", id="no-json"),
        pytest.param("chat", b'data: "text"\n\n', "unknown output", id="no-object"),
        pytest.param("chat", b'data: {"choices":[],"x":1e999}\n\n', "unknown output", id="no-number"),
        pytest.param("chat", b'data: {"choices":[],"x":NaN}\n\n', "unknown output", id="not-a-number"),
        pytest.param("chat", b"data: " + b"[" * 9**5 + b"\n\n", "unknown output", id="deep"),
        pytest.param("chat", b'data: {"choices":"\xff"}\n\n', "unknown output", id="no-utf-8"),
        pytest.param(
            "chat",
            event({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]}),
            "log probabilities were delivered",
            id="logprobs",
        ),
        pytest.param(
            "chat", event({"choices": [{"index": 1, "delta": {}}]}), "more than one choice", id="choices"
        ),
        pytest.param("chat", chat({"audio": {"id": 1}, "x": 1}), "audio was delivered", id="the-first-one"),
        pytest.param(
            "completions",
            event({"choices": [{"text": "a", "logprobs": {"tokens": ["a"]}}]}),
            "log probabilities were delivered",
            id="completions-logprobs",
        ),
        pytest.param("gemini", gemini({"functionCall": {"name": "f"}}), "a tool was used", id="gemini-tool"),
        pytest.param("gemini", gemini({"inlineData": {"data": "x"}}), "unknown output", id="gemini-picture"),
        pytest.param(
            "gemini",
            gemini({"text": "", "thoughtSignature": "x"}),
            "thinking was delivered",
            id="gemini-signature",
        ),
        pytest.param(
            "gemini",
            gemini(logprobsResult={"x": 1}),
            "log probabilities were delivered",
            id="gemini-logprobs",
        ),
        pytest.param("gemini", gemini(index=1), "more than one choice", id="gemini-candidates"),
        pytest.param("anthropic", opens(0, "thinking"), "thinking was delivered", id="thinking"),
        pytest.param("anthropic", opens(0, "redacted_thinking"), "thinking was delivered", id="redacted"),
        pytest.param("anthropic", opens(0, "tool_use"), "a tool was used", id="tool"),
        pytest.param("anthropic", opens(0, "server_tool_use"), "a tool was used", id="server-tool"),
        pytest.param("anthropic", opens(0, "web_search_tool_result"), "unknown output", id="result"),
        pytest.param("anthropic", opens(citations=[1]), "unknown output", id="citations"),
        pytest.param("anthropic", anthropic("message_edit"), "unknown output", id="unknown-event"),
        *(
            pytest.param(
                "anthropic",
                anthropic("content_block_delta", index=0, delta={"type": kind}),
                obstacle,
                id=kind,
            )
            for kind, obstacle in {
                "thinking_delta": "thinking was delivered",
                "signature_delta": "thinking was delivered",
                "input_json_delta": "a tool was used",
                "citations_delta": "unknown output",
            }.items()
        ),
        pytest.param(
            "responses", event({"type": "x"}), "answers of this protocol cannot be compared", id="responses"
        ),
        pytest.param("", event({}), "answers of this protocol cannot be compared", id="foreign"),
    ],
)
def test_what_cannot_be_replayed(grammar: str, block: bytes, obstacle: str) -> None:
    """It is said before anything is sent again; and nothing is spliced by one who does not listen."""
    replay = Replay(grammar, [block])

    assert replay.obstacle == obstacle
    with pytest.raises(ValueError, match="cannot be replayed"):
        replay.feed(block)


def test_a_name_that_comes_in_pieces_cannot_be_replayed() -> None:
    """Whether it is whole cannot be told."""
    pieces = [chat(calls(0, name="get_")), chat(calls(0, name="weather"))]

    assert Replay("chat", pieces).obstacle == "unknown output"


@pytest.mark.parametrize(
    ("grammar", "delivered", "text"),
    [
        pytest.param("chat", [*HELLO, chat({"reasoning": "x", "refusal": "y"})], "Hello", id="chat"),
        pytest.param(
            "chat", [*HELLO, chat({"audio": {"id": "x"}}), chat({"content": "!"})], "Hello!", id="obstacle"
        ),
        pytest.param(
            "chat",
            [event({"choices": [{"index": i, "delta": {"content": str(i)}} for i in (1, 0, 2)]})],
            "0",
            id="choices",
        ),
        pytest.param("chat", OPENED, "", id="tool"),
        pytest.param(
            "chat",
            [chat({"content": "a\ud83d"}), chat({"content": "\ude00\ud83d"})],
            "a\U0001f600\ufffd",
            id="surrogates",
        ),
        pytest.param("completions", [legacy("Hel"), legacy("lo")], "Hello", id="completions"),
        pytest.param(
            "gemini", [gemini({"text": "hm", "thought": True}), gemini({"text": "a"})], "a", id="gemini"
        ),
        pytest.param("anthropic", [*MESSAGE, closes(), opens(1), says("!", 1)], "Hello!", id="anthropic"),
        pytest.param(
            "responses",
            [
                event({"type": "response.output_text.delta", "delta": "Hel"}),
                event({"type": "response.reasoning_text.delta", "delta": "x"}),
                event({"delta": "lo"}, "response.output_text.delta"),
            ],
            "Hello",
            id="responses",
        ),
        pytest.param("", HELLO, "", id="foreign"),
    ],
)
def test_what_a_person_has_read(grammar: str, delivered: list[bytes], text: str) -> None:
    """The text of the answer, whether or not it can be replayed."""
    assert Replay(grammar, delivered).text == text


def test_a_divergence_quotes_nothing() -> None:
    """Its message names a place, and it can be pickled like any exception."""
    secret = "hunter2"
    replay = Replay("chat", [chat(calls(0, name=secret, arguments=secret))])

    with pytest.raises(Diverged) as caught:
        replay.feed(
            chat({"tool_calls": [{"index": secret, "function": {"name": secret, "arguments": "hunter3"}}]})
        )
    assert (
        str(caught.value) == "the new answer differs after 6 characters of tool_calls[0].function.arguments"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_answer_that_ends_early_is_another_one() -> None:
    """Whoever sees the end tells, and is told."""
    replay = Replay("chat", HELLO)
    replay.feed(chat({"content": "Hell"}))

    with pytest.raises(Diverged) as caught:
        replay.finish()
    assert (caught.value.at, caught.value.channel) == (4, "content")
