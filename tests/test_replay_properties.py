"""Replays, whatever is said, however it is cut, and wherever it breaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gip_resilience._replay import Replay
from gip_resilience._replay_past import Diverged
from gip_resilience.sse import parse
from replays import (
    DONE,
    ROLE,
    STOP,
    calls,
    chat,
    closes,
    gemini,
    handed_up,
    legacy,
    opens,
    says,
    starts,
    stops,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Pieces = list[list[str]]
"""What an answer says: for each of its channels, the text in pieces."""


def chat_answer(pieces: Pieces, run: int) -> list[bytes]:
    """Reasoning, content, and a tool call with its arguments."""
    reasoning, content, arguments = pieces
    deltas = [
        ROLE,
        *({"reasoning": text} for text in reasoning),
        *({"content": text} for text in content),
        calls(0, name="f", arguments=""),
        *(calls(0, arguments=text) for text in arguments),
    ]
    padded = [chat(delta, run=run, obfuscation="x" * (run + n % 3)) for n, delta in enumerate(deltas)]
    return [*padded, chat(finish="stop", run=run), usage(run), DONE]


def legacy_answer(pieces: Pieces, run: int) -> list[bytes]:
    """A text."""
    return [*(legacy(text, run=run) for text in pieces[0]), legacy("", "stop", run), usage(run), DONE]


def gemini_answer(pieces: Pieces, run: int) -> list[bytes]:
    """Thoughts, and a text; there is no marker."""
    thoughts = [gemini({"text": text, "thought": True}, run=run) for text in pieces[0]]
    return [
        *thoughts,
        *(gemini({"text": text}, run=run) for text in pieces[1]),
        gemini(finish="STOP", run=run),
    ]


def anthropic_answer(pieces: Pieces, run: int) -> list[bytes]:
    """Two blocks of text."""
    blocks = []
    for index, texts in enumerate(pieces):
        blocks += [opens(index), *(says(text, index) for text in texts), closes(index)]
    return [starts(run), *blocks, stops(), STOP]


class Protocol(NamedTuple):
    """How to write an answer, and where to find its channels again.

    Attributes:
        write: makes the blocks of an answer.
        channels: by our name, the path in its events.
    """

    write: Callable[[Pieces, int], list[bytes]]
    channels: dict[str, str]


PROTOCOLS = {
    "chat": Protocol(
        chat_answer,
        {
            "reasoning": ".choices[0].delta.reasoning",
            "content": ".choices[0].delta.content",
            "tool_calls[0].function.arguments": ".choices[0].delta.tool_calls[0].function.arguments",
        },
    ),
    "completions": Protocol(legacy_answer, {"text": ".choices[0].text"}),
    "gemini": Protocol(
        gemini_answer,
        {
            "thought": ".candidates[0].content.parts[True].text",
            "text": ".candidates[0].content.parts[0].text",
        },
    ),
    "anthropic": Protocol(anthropic_answer, {"content[0]": "[0].delta.text", "content[1]": "[1].delta.text"}),
}

CONSTANT = {
    ".id",
    ".created",
    ".model",
    ".responseId",
    ".modelVersion",
    ".createTime",
    ".candidates[0].content.role",
}
"""What every event repeats."""

IGNORED = {"index", "thought", "obfuscation", "totalTokenCount"}
REPEATED = {"content_block_delta", "text_delta"}


class Heard(NamedTuple):
    """What a client has heard that joins whatever it hears, and so notices all that comes twice.

    Attributes:
        told: by path, all values joined.
        constant: by path, the different values of what every event repeats.
    """

    told: dict[str, str]
    constant: dict[str, set[Any]]


def hear(blocks: Sequence[bytes]) -> Heard:
    """Listen to a stream."""
    heard = Heard({}, {})
    for raw in blocks:
        data = parse(raw).data or b""
        if data == b"[DONE]":
            heard.told["marker"] = heard.told.get("marker", "") + "[DONE]"
            continue
        chunk = json.loads(data)
        for path, value in leaves(chunk, f"[{chunk['index']}]" if "index" in chunk else ""):
            if path in CONSTANT:
                heard.constant.setdefault(path, set()).add(value)
            elif value and value not in REPEATED and path.rpartition(".")[2] not in IGNORED:
                heard.told[path] = heard.told.get(path, "") + str(value)
    return heard._replace(told={path: whole(text) for path, text in heard.told.items()})


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every leaf of an event with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, f"{path}[{item.get('index') or item.get('thought') or 0}]")
    else:
        yield path, value


def whole(text: str) -> str:
    """*text* with the halves of surrogate pairs put together."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def cut(text: str, places: Sequence[int]) -> list[str]:
    """*text* in pieces; a piece may end in the middle of a surrogate pair."""
    units = text.encode("utf-16-le")
    ends = sorted(2 * min(place, len(units) // 2) for place in places)
    spans = zip([0, *ends], [*ends, len(units)], strict=True)
    return [units[start:end].decode("utf-16-le", "surrogatepass") for start, end in spans]


CHARACTERS = st.sampled_from('ab\u00e9\u2028\U0001f600\U0001f601"') | st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, max_size=12)
PLACES = st.lists(st.integers(0, 16), max_size=4)
SEVERAL = settings(max_examples=100, deadline=None)

every_protocol = pytest.mark.parametrize("grammar", PROTOCOLS)


def answers(data: st.DataObject, grammar: str, texts: Sequence[str], run: int) -> list[bytes]:
    """One of the ways to tell *texts*."""
    return PROTOCOLS[grammar].write([cut(text, data.draw(PLACES)) for text in texts], run)


def broken(data: st.DataObject, blocks: list[bytes]) -> list[bytes]:
    """What has come of *blocks*: at least one, and not the last."""
    return blocks[: data.draw(st.integers(1, len(blocks) - 1))]


@every_protocol
@SEVERAL
@given(data=st.data())
def test_two_broken_answers_and_a_whole_one_are_one(grammar: str, data: st.DataObject) -> None:
    """Every text in full; one role, one id, one finish reason, one usage, one marker."""
    texts = data.draw(st.tuples(*[TEXTS] * len(PROTOCOLS[grammar].channels)))
    first = answers(data, grammar, texts, 1)
    delivered = broken(data, first)
    for run in range(2, data.draw(st.integers(2, 4))):
        delivered += handed_up(Replay(grammar, delivered), broken(data, answers(data, grammar, texts, run)))
    replay = Replay(grammar, delivered)
    delivered += handed_up(replay, answers(data, grammar, texts, 4))
    replay.finish()

    assert replay.obstacle == ""
    assert hear(delivered) == hear(first)


@every_protocol
@SEVERAL
@given(data=st.data())
def test_one_other_character_is_found_before_anything_leaks(grammar: str, data: st.DataObject) -> None:
    """It is found wherever it is in what was delivered, and said where."""
    protocol = PROTOCOLS[grammar]
    texts = data.draw(st.tuples(*[st.text(CHARACTERS, min_size=1, max_size=12)] * len(protocol.channels)))
    delivered = broken(data, answers(data, grammar, texts, 1))
    told = hear(delivered).told
    places = [
        (number, at)
        for number, path in enumerate(protocol.channels.values())
        for at in range(sum(not is_half(character) for character in told.get(path, "")))
    ]
    assume(places)
    number, at = data.draw(st.sampled_from(places))
    other = data.draw(CHARACTERS.filter(lambda character: character != texts[number][at]))
    changed = list(texts)
    changed[number] = texts[number][:at] + other + texts[number][at + 1 :]
    replay = Replay(grammar, delivered)
    handed: list[bytes] = []

    with pytest.raises(Diverged) as caught:
        handed.extend(map(replay.feed, answers(data, grammar, changed, 2)))
    assert (caught.value.channel, caught.value.at) == (list(protocol.channels)[number], at)
    assert not any(handed)


@every_protocol
@SEVERAL
@given(data=st.data())
def test_an_answer_that_is_cut_short_is_never_taken_for_whole(grammar: str, data: st.DataObject) -> None:
    """It ends before it has caught up: what it said so far was not handed up, and the end is refused."""
    texts = data.draw(st.tuples(*[TEXTS] * len(PROTOCOLS[grammar].channels)))
    replay = Replay(grammar, broken(data, answers(data, grammar, texts, 1)))
    handed = handed_up(replay, broken(data, answers(data, grammar, texts, 2)))

    if replay.caught_up:
        replay.finish()
        return
    assert handed == []
    with pytest.raises(Diverged):
        replay.finish()


KEYS = [
    *("choices", "delta", "text", "content", "role", "tool_calls", "function_call", "function", "name"),
    *("arguments", "finish_reason", "logprobs", "usage", "id", "index", "candidates", "parts", "thought"),
    *("finishReason", "type", "content_block", "stop_reason"),
]
VALUES = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "text_delta", "text"]
)
STRANGE = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
).map(lambda value: f"data: {json.dumps(value)}\n\n".encode())
BLOCKS = st.lists(st.binary() | STRANGE, max_size=4)


@every_protocol
@SEVERAL
@given(delivered=BLOCKS, again=BLOCKS)
def test_nothing_is_too_strange(grammar: str, delivered: list[bytes], again: list[bytes]) -> None:
    """Any bytes can be recorded and compared; nothing comes out before all of it has come again."""
    replay = Replay(grammar, delivered)
    assert isinstance(replay.text, str)
    if replay.obstacle:
        return
    for raw in again:
        try:
            new = replay.feed(raw)
        except Diverged:
            return
        assert replay.caught_up or not new


def is_half(character: str) -> bool:
    """Whether this is half of a surrogate pair."""
    return "\ud800" <= character <= "\udfff"
