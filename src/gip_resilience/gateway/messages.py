"""Anthropic's API: messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gip_resilience.gateway.answers import json_answer
from gip_resilience.gateway.asked import Refusal, boolean, conversation, integer, number
from gip_resilience.gateway.content import named_event
from gip_resilience.gateway.streaming import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience.gateway.answers import Answer
    from gip_resilience.gateway.asked import Asked
    from gip_resilience.gateway.content import Said
    from gip_resilience.gateway.streaming import Service


def messages(api: Service, asked: Asked) -> tuple[Answer, int]:
    """``POST /v1/messages``."""
    payload = asked.payload
    model = api.known_model(asked)
    prompt = conversation(payload)
    number(payload, "temperature", 0, 1)
    limit = integer(payload, "max_tokens", 1)
    if limit is None:
        raise Refusal("invalid_argument", "Missing 'max_tokens': an integer is required.")
    boolean(payload, "stream")
    turn = api.streams.begin(payload)
    said = turn.answer(prompt.text, prompt.tool, limit=limit)
    message: dict[str, object] = {
        "id": turn.identifier("msg_", model, prompt.text),
        "type": "message",
        "role": "assistant",
        "model": model,
    }
    call = turn.identifier("toolu_", model, prompt.text)
    tokens = prompt.tokens + said.tokens
    if asked.stream:
        return api.streams.send(MESSAGES, _events(message, said, call, prompt.tokens), turn), tokens
    whole = {
        **message,
        "content": [_block(said, call, said.text)],
        "stop_reason": _stop(said),
        "stop_sequence": None,
        "usage": {"input_tokens": prompt.tokens, "output_tokens": said.tokens},
    }
    return json_answer(whole), tokens


def _block(said: Said, call: str, text: str) -> dict[str, object]:
    """The block of content that says *text*, or calls the tool with it."""
    if said.tool is None:
        return {"type": "text", "text": text}
    arguments = msgspec.json.decode(text) if text else {}
    return {"type": "tool_use", "id": call, "name": said.tool, "input": arguments}


def _stop(said: Said) -> str:
    if said.tool is not None:
        return "tool_use"
    return "end_turn" if said.whole else "max_tokens"


def _events(message: dict[str, object], said: Said, call: str, prompt_tokens: int) -> Iterator[bytes]:
    """The stream, from ``message_start`` to ``message_stop``."""
    usage = {"input_tokens": prompt_tokens, "output_tokens": 1}
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    kind, field = ("text_delta", "text") if said.tool is None else ("input_json_delta", "partial_json")
    yield named_event({"type": "message_start", "message": start})
    yield named_event({"type": "content_block_start", "index": 0, "content_block": _block(said, call, "")})
    yield named_event({"type": "ping"})
    for piece in said.pieces:
        delta = {"type": kind, field: piece}
        yield named_event({"type": "content_block_delta", "index": 0, "delta": delta})
    yield named_event({"type": "content_block_stop", "index": 0})
    yield named_event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": _stop(said), "stop_sequence": None},
            "usage": {"output_tokens": said.tokens},
        }
    )
    yield named_event({"type": "message_stop"})
