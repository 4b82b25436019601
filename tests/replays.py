"""Answers of each protocol, event by event, for those who put two of them together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gip_resilience._replay import Replay

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


def event(data: dict[str, Any], name: str = "") -> bytes:
    """One block, as we write them."""
    line = f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
    return (f"event: {name}\n{line}" if name else line).encode()


def chat(delta: dict[str, Any] | None = None, finish: str | None = None, run: int = 1, **more: Any) -> bytes:
    """An event of a chat completion; *more* goes to the top."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return event({"id": f"chat-{run}", "created": run, "model": "m", "choices": [choice], **more})


def legacy(text: str, finish: str | None = None, run: int = 1) -> bytes:
    """An event of a completion of the older kind."""
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
    return event({"id": f"chat-{run}", "created": run, "choices": [choice], "model": "m"})


def gemini(*parts: dict[str, Any], finish: str | None = None, run: int = 1, **more: Any) -> bytes:
    """An event of Gemini's; *more* goes to the candidate."""
    candidate = {"content": {"parts": list(parts), "role": "model"}, **more}
    if finish:
        candidate["finishReason"] = finish
    ids = {"modelVersion": f"v{run}", "createTime": f"t{run}", "responseId": f"g{run}"}
    return event({"candidates": [candidate], "usageMetadata": {"totalTokenCount": 3}, **ids})


def anthropic(kind: str, **fields: Any) -> bytes:
    """An event of Anthropic's."""
    return event({"type": kind, **fields}, kind)


def says(text: str, index: int = 0) -> bytes:
    """A piece of text of Anthropic's."""
    return anthropic("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def opens(index: int = 0, kind: str = "text", **fields: Any) -> bytes:
    """The beginning of a block of Anthropic's."""
    block = {"type": kind, **({"text": ""} if kind == "text" else {}), **fields}
    return anthropic("content_block_start", index=index, content_block=block)


def closes(index: int = 0) -> bytes:
    """The end of a block of Anthropic's."""
    return anthropic("content_block_stop", index=index)


def stops(reason: str = "end_turn") -> bytes:
    """The end of an answer of Anthropic's, but for the marker."""
    return anthropic("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 7})


def starts(run: int = 1) -> bytes:
    """The beginning of an answer of Anthropic's."""
    return anthropic("message_start", message={"id": f"msg-{run}", "content": []})


def calls(index: int, **function: str) -> dict[str, Any]:
    """A delta that opens a tool call if it names one, and goes on with it otherwise."""
    opener = {"id": f"call-{index}", "type": "function"} if "name" in function else {}
    return {"tool_calls": [{"index": index, **opener, "function": function}]}


def unnumbered(name: str, arguments: str) -> dict[str, Any]:
    """A piece of a tool call, as written by those who leave the index out."""
    return {"function": {**({"name": name} if name else {}), "arguments": arguments}}


USAGE = {"total_tokens": 3}


def usage(run: int = 1) -> bytes:
    """The event that counts, with no choice in it."""
    return event({"id": f"chat-{run}", "created": run, "model": "m", "choices": [], "usage": USAGE})


def handed_up(replay: Replay, answer: Sequence[bytes]) -> list[bytes]:
    """What comes out of a whole answer."""
    return [new for raw in answer if (new := replay.feed(raw))]


ROLE = {"role": "assistant", "content": ""}
HELLO = [chat(ROLE), chat({"content": "Hel"}), chat({"content": "lo"})]
OPENED = [chat(ROLE), chat(calls(0, name="f", arguments="")), chat(calls(0, arguments='{"a":'))]
MESSAGE = [starts(), opens(), says("Hel"), says("lo")]
STOP = anthropic("message_stop")
