"""Event streams of language models, as bytes, and what looks after them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from benchmarks.clients import HOST, MODEL
from gip_resilience._splice import Splice
from gip_resilience.config import Config
from gip_resilience.recovery import Asked, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator


def chunk(content: str, *, finish: str | None = None) -> bytes:
    """One event of a chat, as OpenAI writes it."""
    event = {
        "id": "chatcmpl-0123456789abcdefghijklmno",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "delta": {"content": content} if finish is None else {},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
        "usage": None,
        "obfuscation": "aBcDeFgH",
    }
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _opening() -> bytes:
    return chunk("").replace(b'{"content":""}', b'{"role":"assistant","content":"","refusal":null}')


OPENING: Final = _opening()
EVENT: Final = chunk(" hello")
CLOSING: Final = chunk("", finish="stop") + b"data: [DONE]\n\n"
NAMED_EVENT: Final = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" hello"}}\n\n'
)
NAMED_OPENING: Final = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"id":"msg_0","type":"message","role":"assistant","content":[],'
    b'"model":"m","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}\n\n'
)


def chat(events: int) -> bytes:
    """A whole answer of *events* events with text."""
    return OPENING + EVENT * events + CLOSING


def pieces(text: bytes, size: int) -> list[bytes]:
    """*text* in chunks of *size* bytes."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def each(events: int) -> Iterator[bytes]:
    """The chunks of a whole answer, an event each."""
    yield OPENING
    for _ in range(events):
        yield EVENT
    yield CLOSING


def opened(path: str = "/v1/chat/completions") -> Splice:
    """What looks after a stream, where the answer has begun."""
    splice = Splice(
        Config(), path, Origin("POST", f"http://{HOST}{path}"), lambda: Asked(known=True), lambda: 1e9
    )
    splice.feed(NAMED_OPENING + NAMED_EVENT if path.endswith("/messages") else OPENING + EVENT)
    return splice
