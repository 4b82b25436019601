"""OpenAI's newer API: responses, and the runs in the background that can be taken up again.

A stream is the growing of one response: it is created, an output item is added to it, the item grows by deltas, and
each of them is done. Every event has its place in ``sequence_number``, from 0; there is no ``[DONE]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gip_resilience.gateway import content
from gip_resilience.gateway.answers import json_answer
from gip_resilience.gateway.asked import Refusal, boolean, integer, natural, number, prompt_of, stream_option
from gip_resilience.gateway.streaming import RESPONSES, Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gip_resilience.gateway.answers import Answer
    from gip_resilience.gateway.asked import Asked, Prompt
    from gip_resilience.gateway.content import Said, Turn
    from gip_resilience.gateway.streaming import Service

PREFIX: Final = RESPONSES + "/"
"""Where a run is found: this and its id."""

_Event = dict[str, object]


def create(api: Service, asked: Asked) -> tuple[Answer, int]:
    """``POST /v1/responses``.

    A run in the background is over as soon as it is asked for, but without a stream the answer does not say so.
    """
    payload = asked.payload
    model = api.known_model(asked)
    prompt = _prompt(payload)
    number(payload, "temperature", 0, 2)
    limit = integer(payload, "max_output_tokens", 1)
    boolean(payload, "stream")
    background = boolean(payload, "background")
    turn = api.streams.begin(payload, renamed=background)
    said = turn.answer(prompt.text, prompt.tool, limit=limit)
    name = turn.identifier("resp_", model, prompt.text)
    head = _head(payload, name, model)
    item = _item(turn, said, model, prompt.text)
    whole = _whole(head, said, item, prompt.tokens)
    tokens = prompt.tokens + said.tokens
    events = tuple(_numbered(_growth(head, whole, item, said), turn if _padded(payload) else None))
    if background:
        api.streams.keep(name, Run(RESPONSES, events, whole))
    if asked.stream:
        return api.streams.send(RESPONSES, events, turn), tokens
    return json_answer({**head, "status": "queued"} if background else whole), tokens


def retrieve(api: Service, asked: Asked) -> tuple[Answer, int]:
    """``GET /v1/responses/{id}``: the response, or its events after ``starting_after``."""
    run = api.streams.kept(asked.payload["id"], RESPONSES)
    if not asked.stream:
        return json_answer(run.response), 0
    given = asked.payload["starting_after"]
    after = -1 if given is None else natural(given)
    if after is None:
        raise Refusal("invalid_argument", "Invalid 'starting_after': an integer is required.")
    return api.streams.answer(RESPONSES, run.events[after + 1 :]), 0


def _prompt(payload: Mapping[str, Any]) -> Prompt:
    given = payload.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise Refusal("invalid_argument", "Missing 'input': text, or a list of items, is required.")
    # What a tool gave back is an item without a role.
    texts = [(item.get("role"), content.text_of(item.get("content", item.get("output")))) for item in items]
    return prompt_of(payload, texts, content.text_of(payload.get("instructions")))


def _padded(payload: Mapping[str, Any]) -> bool:
    return stream_option(payload, "include_obfuscation")


def _head(payload: Mapping[str, Any], name: str, model: str) -> _Event:
    """The response before anything is in it."""
    return {
        "id": name,
        "object": "response",
        "created_at": content.CREATED,
        "status": "in_progress",
        "background": payload.get("background") is True,
        "error": None,
        "incomplete_details": None,
        "instructions": payload.get("instructions"),
        "metadata": payload.get("metadata") or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": payload.get("temperature"),
        "tool_choice": payload.get("tool_choice") or "auto",
        "tools": payload.get("tools") or [],
        "top_p": payload.get("top_p"),
        "usage": None,
    }


def _item(turn: Turn, said: Said, model: str, prompt: str) -> _Event:
    """The one item of the output: a message, or the call of a tool."""
    if said.tool is None:
        return {
            "id": turn.identifier("msg_", model, prompt),
            "type": "message",
            "status": "completed" if said.whole else "incomplete",
            "role": "assistant",
            "content": [_part(said.text)],
        }
    return {
        "id": turn.identifier("fc_", model, prompt),
        "type": "function_call",
        "status": "completed",
        "call_id": turn.identifier("call_", model, prompt),
        "name": said.tool,
        "arguments": said.text,
    }


def _part(text: str) -> _Event:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _whole(head: _Event, said: Said, item: _Event, prompt_tokens: int) -> _Event:
    """The response when everything is in it."""
    usage = {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + said.tokens,
    }
    end: _Event = {"status": "completed"}
    if not said.whole:
        end = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return {**head, **end, "output": [item], "usage": usage}


def _growth(head: _Event, whole: _Event, item: _Event, said: Said) -> Iterator[_Event]:
    """The events, without their numbers."""
    place = {"item_id": item["id"], "output_index": 0}
    empty: _Event = {"content": []} if said.tool is None else {"arguments": ""}
    yield {"type": "response.created", "response": head}
    yield {"type": "response.in_progress", "response": head}
    added = {**item, "status": "in_progress", **empty}
    yield {"type": "response.output_item.added", "output_index": 0, "item": added}
    if said.tool is None:
        yield from _text_growth({**place, "content_index": 0}, said)
    else:
        kind = "response.function_call_arguments"
        yield from ({"type": f"{kind}.delta", **place, "delta": piece} for piece in said.pieces)
        yield {"type": f"{kind}.done", **place, "name": said.tool, "arguments": said.text}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _text_growth(place: _Event, said: Said) -> Iterator[_Event]:
    yield {"type": "response.content_part.added", **place, "part": _part("")}
    for piece in said.pieces:
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": said.text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _part(said.text)}


def _numbered(events: Iterable[_Event], padded: Turn | None) -> Iterator[bytes]:
    """The events as they are sent; with a turn, deltas get its padding."""
    for position, event in enumerate(events):
        padding = {"obfuscation": padded.padding(position)} if padded and "delta" in event else {}
        yield content.named_event({"type": event["type"], "sequence_number": position, **event, **padding})
