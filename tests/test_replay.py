"""Replays, case by case: what of a second answer is new."""

from __future__ import annotations

from typing import Any

import pytest

from gip_resilience._replay import Replay
from gip_resilience.sse import BOM
from replays import (
    DONE,
    HELLO,
    MESSAGE,
    OPENED,
    PING,
    ROLE,
    STOP,
    USAGE,
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
    unnumbered,
    usage,
)


def moderation() -> bytes:
    """An event about the whole answer, under the first run's ids."""
    return event(
        {"id": "chat-1", "created": 1, "model": "m", "choices": [], "moderation": {"flagged": False}}
    )


@pytest.mark.parametrize(
    ("grammar", "delivered", "again", "expected"),
    [
        pytest.param(
            "chat",
            HELLO,
            [chat(ROLE, run=2), chat({"content": "Hello wor"}, run=2), chat({"content": "ld"}, run=2)],
            [chat({"content": " wor"}), chat({"content": "ld"})],
            id="straddling",
        ),
        pytest.param(
            "chat",
            HELLO,
            [
                chat({"role": "assistant", "content": "Hello"}, run=2),
                chat({"content": "!"}, "stop", run=2),
                DONE,
            ],
            [chat({"content": "!"}, "stop"), DONE],
            id="text-and-finish",
        ),
        pytest.param(
            "chat",
            HELLO,
            [chat({"role": "assistant", "content": "Hello"}, "stop", run=2), usage(2), DONE],
            [chat({"content": ""}, "stop"), usage(), DONE],
            id="nothing-new-but-the-finish",
        ),
        pytest.param(
            "chat",
            [*HELLO, chat(finish="stop")],
            [chat({"content": "Hello"}, run=2), chat(finish="stop", run=2), usage(2), DONE],
            [usage(), DONE],
            id="finish-not-twice",
        ),
        pytest.param(
            "chat",
            [*HELLO, chat(finish="stop"), usage()],
            [chat({"content": "Hello"}, run=2), chat(finish="stop", run=2), usage(2), DONE],
            [DONE],
            id="usage-not-twice",
        ),
        pytest.param(
            "chat",
            [*HELLO, chat(finish="stop", usage=USAGE)],
            [chat({"content": "Hello"}, "stop", run=2, usage=USAGE), chat(run=2, usage=USAGE), DONE],
            [DONE],
            id="usage-beside-not-twice",
        ),
        pytest.param(
            "chat",
            HELLO,
            [chat({"content": "Hello"}, "stop", run=2), chat(ROLE, "stop", run=2, usage=USAGE)],
            [chat({"content": ""}, "stop"), chat({"content": ""}, None, usage=USAGE)],
            id="finish-told-twice",
        ),
        pytest.param(
            "chat",
            [chat({"role": "assistant", "content": "Hel"}, usage={"n": 1})],
            [
                chat({"content": "Hel"}, run=2, usage={"n": 1}),
                chat({"content": "lo"}, run=2, usage={"n": 2}),
                usage(2),
            ],
            [chat({"content": "lo"}, usage={"n": 2}), usage()],
            id="counted-in-every-event",
        ),
        pytest.param(
            "chat",
            HELLO,
            [
                PING,
                usage(2),
                chat({"content": "Hello"}, run=2),
                PING,
                b": x\n\n",
                chat(ROLE, run=2),
                chat(run=2),
                event({"choices": [{"delta": {}, "text": "", "logprobs": {"content": []}}]}),
            ],
            [PING, b": x\n\n"],
            id="comments-and-empty-events",
        ),
        pytest.param(
            "chat",
            HELLO,
            [moderation(), chat({"content": "Hello"}, run=2), moderation()],
            [moderation()],
            id="about-no-choice",
        ),
        pytest.param(
            "chat",
            [chat({"content": "a"}, obfuscation="xxx")],
            [
                chat({"content": ""}, run=2, obfuscation="y"),
                chat({"content": "ab"}, run=2, obfuscation="zz"),
            ],
            [chat({"content": "b"}, obfuscation="zz")],
            id="obfuscation",
        ),
        pytest.param(
            "chat",
            OPENED,
            [
                chat({"role": "assistant", **calls(0, name="f", arguments="{")}, run=2),
                chat(calls(0, arguments='"a":1}'), run=2),
                chat(calls(1, name="g", arguments=""), run=2),
                chat(calls(1, arguments="{}"), run=2),
                chat(finish="tool_calls", run=2),
            ],
            [
                chat(calls(0, arguments="1}")),
                chat(calls(1, name="g", arguments="")),
                chat(calls(1, arguments="{}")),
                chat(finish="tool_calls"),
            ],
            id="tool-arguments",
        ),
        pytest.param(
            "chat",
            [chat(calls(0, name="f", arguments=""))],
            [chat(calls(0, name="f", arguments="{}"), run=2)],
            [chat(calls(0, arguments="{}"))],
            id="tool-opened-only",
        ),
        pytest.param(
            "chat",
            [chat(calls(0, name="f", arguments="{")), chat(calls(0, name="f", arguments="}"))],
            [chat(calls(0, name="f", arguments="{} "), run=2)],
            [chat(calls(0, arguments=" "))],
            id="tool-named-in-every-event",
        ),
        pytest.param(
            "chat",
            [chat({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]})],
            [chat({"tool_calls": [{"id": "b", "function": {"name": "f", "arguments": "{}"}}]}, run=2)],
            [chat({"tool_calls": [{"function": {"arguments": "}"}}]})],
            id="tool-without-an-index",
        ),
        pytest.param(
            "chat",
            [chat({"tool_calls": [unnumbered("f", "{"), unnumbered("g", "[")]})],
            [chat({"tool_calls": [unnumbered("f", "{}"), unnumbered("g", "[]")]}, run=2)],
            [chat({"tool_calls": [unnumbered("", "}"), unnumbered("", "]")]})],
            id="two-tools-without-an-index",
        ),
        pytest.param(
            "chat",
            [chat({"function_call": {"name": "f", "arguments": "{"}})],
            [chat({"function_call": {"name": "f", "arguments": "{}"}}, run=2)],
            [chat({"function_call": {"arguments": "}"}})],
            id="function-call",
        ),
        pytest.param(
            "chat",
            [chat({"reasoning_content": "hm"}), chat({"refusal": "N"})],
            [
                chat({"reasoning_content": "h"}, run=2),
                chat({"reasoning_content": "m", "refusal": "No"}, run=2),
            ],
            [chat({"reasoning_content": "", "refusal": "o"})],
            id="reasoning-and-refusal",
        ),
        pytest.param(
            "chat",
            HELLO,
            [
                chat({"content": "Hello"}, run=2),
                chat({"annotations": ["x"]}, run=2),
                chat({"audio": {"data": "x"}}, run=2),
            ],
            [chat({"annotations": ["x"]}), chat({"audio": {"data": "x"}})],
            id="unknown-after-the-seam",
        ),
        pytest.param(
            "chat",
            [chat({"content": "\ud83d"})],
            [chat({"content": "\U0001f600\ud83d"}, run=2), chat({"content": "\ude00."}, run=2)],
            [chat({"content": "\ude00\ud83d"}), chat({"content": "\ude00."})],
            id="half-a-surrogate-pair",
        ),
        pytest.param(
            "chat",
            [BOM + chat({"content": "a"})],
            [b"id: 7\r\nevent: x\r\ndata: " + chat({"content": "ab"}, run=2)[6:]],
            [b"event: x\n" + chat({"content": "b"})],
            id="other-line-ends-and-an-event-name",
        ),
        pytest.param(
            "chat",
            [],
            [chat(ROLE, run=2), chat({"role": "assistant", "content": "a"}, run=2)],
            [chat(ROLE, run=2), chat({"content": "a"}, run=2)],
            id="nothing-delivered",
        ),
        pytest.param(
            "chat",
            [chat({"content": "Hel"})],
            [
                chat({"role": "assistant", "content": "Hello"}, run=2),
                chat({"role": "assistant", "content": "."}),
            ],
            [chat({"role": "assistant", "content": "lo"}), chat({"content": "."})],
            id="no-role-delivered",
        ),
        pytest.param(
            "anthropic",
            [],
            [starts(), opens(), says("a")],
            [starts(), opens(), says("a")],
            id="anthropic-nothing-delivered",
        ),
        pytest.param(
            "completions",
            [legacy("Hel"), legacy("lo")],
            [
                legacy("", run=2),
                legacy("Hello wor", run=2),
                legacy("ld", run=2),
                legacy("", "stop", run=2),
                DONE,
            ],
            [legacy(" wor"), legacy("ld"), legacy("", "stop"), DONE],
            id="completions",
        ),
        pytest.param(
            "gemini",
            [gemini({"text": "Hel"}), gemini({"text": "lo"})],
            [
                gemini({"text": "Hello wo"}, run=2),
                gemini({"text": ""}, run=2),
                gemini({"text": "rld"}, finish="STOP", run=2),
            ],
            [
                gemini({"text": " wo"}),
                gemini({"text": "rld"}, finish="STOP"),
            ],
            id="gemini",
        ),
        pytest.param(
            "gemini",
            [gemini({"text": "hm", "thought": True}), gemini({"text": "a"})],
            [
                gemini({"text": "hm", "thought": True}, {"text": "ab"}),
                gemini(finish="STOP", avgLogprobs=-1.0),
            ],
            [gemini({"text": "", "thought": True}, {"text": "b"}), gemini(finish="STOP", avgLogprobs=-1.0)],
            id="gemini-thoughts",
        ),
        pytest.param(
            "gemini",
            [gemini({"text": "a"}, finish="STOP")],
            [
                gemini({"text": "a"}),
                gemini({"text": ""}, finish="STOP"),
                gemini({"text": ""}, finish="STOP", citationMetadata={"x": 1}),
            ],
            [gemini({"text": ""}, citationMetadata={"x": 1})],
            id="gemini-finish-not-twice",
        ),
        pytest.param(
            "anthropic",
            MESSAGE,
            [starts(2), opens(), anthropic("ping"), says("Hello wor"), says("ld"), closes(), stops(), STOP],
            [says(" wor"), says("ld"), closes(), stops(), STOP],
            id="anthropic",
        ),
        pytest.param(
            "anthropic",
            [*MESSAGE, closes(), opens(1), says("W", 1)],
            [
                starts(2),
                opens(),
                says("Hello"),
                closes(),
                opens(1),
                says("World", 1),
                closes(1),
                opens(2),
                STOP,
            ],
            [says("orld", 1), closes(1), opens(2), STOP],
            id="anthropic-blocks",
        ),
        pytest.param(
            "anthropic",
            [*MESSAGE, anthropic("ping"), closes(), stops()],
            [starts(2), opens(), says("Hello"), closes(), stops(), anthropic("ping"), STOP],
            [anthropic("ping"), STOP],
            id="anthropic-finish-not-twice",
        ),
        pytest.param(
            "anthropic",
            MESSAGE,
            [starts(2), opens(text="Hel"), says("lo"), opens(1, "tool_use", name="f"), STOP],
            [opens(1, "tool_use", name="f"), STOP],
            id="anthropic-tool-after-the-seam",
        ),
        pytest.param(
            "anthropic",
            [raw.partition(b"\n")[2] for raw in MESSAGE],
            [starts(2), opens(), says("Hello!").partition(b"\n")[2]],
            [says("!").partition(b"\n")[2]],
            id="anthropic-without-event-names",
        ),
        pytest.param(
            "anthropic",
            [b"event: content_block_delta\n" + event({"delta": {"type": "text_delta", "text": "a"}})],
            [b"event: content_block_delta\n" + event({"delta": {"type": "text_delta", "text": "ab"}})],
            [b"event: content_block_delta\n" + event({"delta": {"type": "text_delta", "text": "b"}})],
            id="anthropic-without-types",
        ),
    ],
)
def test_what_is_handed_up(
    grammar: str, delivered: list[bytes], again: list[bytes], expected: list[bytes]
) -> None:
    """Only what is new, in the words of the second answer and under the ids of the first."""
    replay = Replay(grammar, delivered)

    assert replay.obstacle == ""
    assert handed_up(replay, again) == expected
    assert replay.caught_up
    replay.finish()


def test_ids_are_those_of_the_first_event_that_has_them() -> None:
    """Azure's first event has none; an id that was not delivered is left as it is; the order of keys stays."""
    delivered = [
        event({"choices": [], "id": "", "created": 0, "model": "", "prompt_filter_results": [1]}),
        event(
            {"id": "a", "created": 1, "choices": [{"delta": {"content": "x"}}], "system_fingerprint": "fp"}
        ),
        event({"id": "z", "created": 9, "choices": [{"delta": {"content": "y"}}]}),
    ]

    new = Replay("chat", delivered).feed(
        event({"model": "n", "choices": [{"delta": {"content": "xyz"}}], "created": 2, "id": "b"})
    )

    assert new == event(
        {
            "model": "n",
            "choices": [{"delta": {"content": "z"}}],
            "created": 1,
            "id": "a",
            "system_fingerprint": "fp",
        }
    )


def test_what_a_filter_finds_is_handed_up_once_the_text_is() -> None:
    """Findings may come without text of their own; those about text the caller has are old."""

    def found(finding: int, text: str = "") -> bytes:
        return chat_with({"delta": {"content": text}, "filter": finding})

    replay = Replay("chat", HELLO)

    assert handed_up(replay, [found(1), found(2, "Hello"), found(3)]) == [found(3)]


def chat_with(choice: dict[str, Any]) -> bytes:
    """An event of the first run with this choice."""
    return event({"id": "chat-1", "created": 1, "model": "m", "choices": [choice]})


def test_it_knows_when_it_has_caught_up() -> None:
    """At the last character delivered, and not before its finish reason if that was."""
    replay = Replay("chat", [*HELLO, chat(finish="stop")])
    caught_up = [replay.caught_up]
    for raw in (chat({"content": "Hel"}), chat({"content": "lo"}), chat(finish="stop")):
        replay.feed(raw)
        caught_up.append(replay.caught_up)

    assert caught_up == [False, False, False, True]
