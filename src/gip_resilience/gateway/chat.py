"""OpenAI's older APIs: chat completions, and the completions before them."""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

from gip_resilience.gateway import content
from gip_resilience.gateway.answers import json_answer
from gip_resilience.gateway.asked import (
    Refusal,
    boolean,
    conversation,
    inputs,
    integer,
    number,
    stream_option,
)
from gip_resilience.gateway.streaming import CHAT, COMPLETIONS, DONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gip_resilience.gateway.answers import Answer
    from gip_resilience.gateway.asked import Asked
    from gip_resilience.gateway.content import Said, Turn
    from gip_resilience.gateway.streaming import Service

MAX_PROMPTS: Final = 20
"""The most prompts of one legacy request."""

_Choice = dict[str, object]


def chat(api: Service, asked: Asked) -> tuple[Answer, int]:
    """``POST /v1/chat/completions``."""
    payload = asked.payload
    model = api.known_model(asked)
    prompt = conversation(payload)
    number(payload, "temperature", 0, 2)
    count = integer(payload, "n", 1, 8) or 1
    limit = integer(payload, "max_completion_tokens", 1) or integer(payload, "max_tokens", 1)
    boolean(payload, "stream")
    turn = api.streams.begin(payload)
    said = [turn.answer(prompt.text, prompt.tool, index, limit) for index in range(count)]
    calls = [turn.identifier("call_", model, prompt.text, str(index)) for index in range(count)]
    usage = _usage(prompt.tokens, said)
    head = _head(turn.identifier("chatcmpl-", model, prompt.text), model)
    if asked.stream:
        choices = chain.from_iterable(map(_chat_deltas, range(count), said, calls))
        events = _events(payload, turn, {**head, "object": "chat.completion.chunk"}, choices, usage)
        return api.streams.send(CHAT, events, turn), usage["total_tokens"]
    answers = [
        {"index": index, "message": _message(one, call), "finish_reason": _finish(one)}
        for index, (one, call) in enumerate(zip(said, calls, strict=True))
    ]
    whole = {**head, "object": "chat.completion", "choices": answers, "usage": usage}
    return json_answer(whole), usage["total_tokens"]


def completions(api: Service, asked: Asked) -> tuple[Answer, int]:
    """``POST /v1/completions``: a text for every prompt, and no tools."""
    payload = asked.payload
    model = api.known_model(asked)
    prompts = inputs(payload, "prompt")
    if len(prompts) > MAX_PROMPTS:
        raise Refusal("invalid_argument", f"Invalid 'prompt': at most {MAX_PROMPTS} prompts are taken.")
    number(payload, "temperature", 0, 2)
    count = integer(payload, "n", 1, 8) or 1
    limit = integer(payload, "max_tokens", 1)
    boolean(payload, "stream")
    turn = api.streams.begin(payload)
    said = [turn.answer(prompt, None, index, limit) for prompt in prompts for index in range(count)]
    usage = _usage(sum(map(content.count_tokens, prompts)), said)
    head = {**_head(turn.identifier("cmpl-", model, *prompts), model), "object": "text_completion"}
    if asked.stream:
        choices = chain.from_iterable(map(_texts, range(len(said)), said))
        events = _events(payload, turn, head, choices, usage)
        return api.streams.send(COMPLETIONS, events, turn), usage["total_tokens"]
    answers = [_text(index, one.text, _finish(one)) for index, one in enumerate(said)]
    return json_answer({**head, "choices": answers, "usage": usage}), usage["total_tokens"]


def _head(name: str, model: str) -> dict[str, object]:
    return {"id": name, "created": content.CREATED, "model": model}


def _usage(prompt_tokens: int, said: Iterable[Said]) -> dict[str, int]:
    completion_tokens = sum(one.tokens for one in said)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _finish(said: Said) -> str:
    if said.tool is not None:
        return "tool_calls"
    return "stop" if said.whole else "length"


def _message(said: Said, call: str) -> dict[str, object]:
    if said.tool is None:
        return {"role": "assistant", "content": said.text}
    function = {"name": said.tool, "arguments": said.text}
    calls = [{"id": call, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _events(
    payload: Mapping[str, object],
    turn: Turn,
    head: dict[str, object],
    choices: Iterable[_Choice],
    usage: dict[str, int],
) -> Iterator[bytes]:
    """The stream: a chunk for each of *choices*, usage if asked for, and the marker."""
    padded = stream_option(payload, "include_obfuscation")
    chunks: Iterable[dict[str, object]] = ({"choices": [choice]} for choice in choices)
    if stream_option(payload, "include_usage"):
        chunks = chain(chunks, [{"choices": [], "usage": usage}])
    for position, chunk in enumerate(chunks):
        if padded:
            chunk["obfuscation"] = turn.padding(position)
        yield content.data_event({**head, **chunk})
    yield DONE


def _chat_deltas(index: int, said: Said, call: str) -> Iterator[_Choice]:
    """One choice of a chat: role, words or the pieces of a tool call, and the finish reason."""
    if said.tool is None:
        yield _delta(index, {"role": "assistant", "content": ""})
        yield from (_delta(index, {"content": piece}) for piece in said.pieces)
    else:
        opener = {
            "index": 0,
            "id": call,
            "type": "function",
            "function": {"name": said.tool, "arguments": ""},
        }
        yield _delta(index, {"role": "assistant", "content": None})
        yield _delta(index, {"tool_calls": [opener]})
        for piece in said.pieces:
            yield _delta(index, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    yield _delta(index, {}, _finish(said))


def _delta(index: int, delta: dict[str, object], finish: str | None = None) -> _Choice:
    return {"index": index, "delta": delta, "finish_reason": finish}


def _texts(index: int, said: Said) -> Iterator[_Choice]:
    """One choice of a legacy completion: words, and the finish reason."""
    yield from map(_text, repeat(index), said.pieces)
    yield _text(index, "", _finish(said))


def _text(index: int, text: str, finish: str | None = None) -> _Choice:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
