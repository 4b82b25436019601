"""What the models say: a function of the prompt and the seed, so that runs can be compared word for word."""

from __future__ import annotations

import base64
import math
import re
import struct
from hashlib import blake2b, shake_256
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CREATED: Final = 1_700_000_000
"""The ``created`` of everything; a clock here would make answers differ."""

_MAX_ECHO: Final = 4096
_WORD: Final = re.compile(r"\s*\S+\s*?(?=\s|\Z)|\s+")
_ENDINGS: Final = (
    "That is all there is to say.",
    "The gateway has nothing to add.",
    "Ask again and the words will be the same.",
    "One plus one is still two.",
)


def identifier(prefix: str, seed: int, *about: str) -> str:
    """An id that is the same for the same seed and subject."""
    return prefix + blake2b("\0".join([str(seed), *about]).encode(), digest_size=12).hexdigest()


def reply_text(prompt: str, seed: int) -> str:
    """The answer to *prompt*: its first 4096 characters, and an ending chosen by prompt and seed."""
    choice = int(identifier("", seed, prompt), 16) % len(_ENDINGS)
    return f"You said: {prompt[:_MAX_ECHO]} {_ENDINGS[choice]}"


def words(text: str) -> list[str]:
    """*text* in pieces of about one word; joined, they are the text again."""
    return _WORD.findall(text)


def count_tokens(text: str) -> int:
    """An estimate: a quarter of the UTF-8 bytes, rounded up."""
    return math.ceil(len(text.encode()) / 4)


def text_of(content: object) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in parts if isinstance(text, str))
    return ""


def embedding(text: str, dimensions: int) -> list[float]:
    """A unit vector that depends on *text* alone."""
    raw = struct.unpack(f"<{dimensions}i", shake_256(text.encode()).digest(4 * dimensions))
    norm = math.sqrt(sum(x * x for x in raw)) or 1.0
    return [x / norm for x in raw]


def packed(vector: list[float]) -> str:
    """*vector* as the base64 of little-endian 32-bit floats, as the SDKs ask for it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def data_event(value: object) -> bytes:
    """One server-sent event whose data is *value* as JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def named_event(value: dict[str, object]) -> bytes:
    """The same, named after its ``type``, as Anthropic streams them."""
    return f"event: {value['type']}\n".encode() + data_event(value)


def chat_events(
    head: dict[str, object], choices: Iterable[tuple[list[str], str]], usage: dict[str, int] | None
) -> Iterator[bytes]:
    """A chat completion as a stream: role, words and finish reason by choice; usage if any; ``[DONE]``."""

    def chunk(index: int, delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return data_event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    for index, (pieces, finish) in enumerate(choices):
        yield chunk(index, {"role": "assistant", "content": ""})
        for piece in pieces:
            yield chunk(index, {"content": piece})
        yield chunk(index, {}, finish)
    if usage is not None:
        yield data_event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def message_events(
    message: dict[str, object], pieces: list[str], stop: str, prompt_tokens: int
) -> Iterator[bytes]:
    """An Anthropic message as a stream, from ``message_start`` to ``message_stop``."""
    usage = {"input_tokens": prompt_tokens, "output_tokens": 1}
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    block = {"type": "text", "text": ""}
    yield named_event({"type": "message_start", "message": start})
    yield named_event({"type": "content_block_start", "index": 0, "content_block": block})
    yield named_event({"type": "ping"})
    for piece in pieces:
        delta = {"type": "text_delta", "text": piece}
        yield named_event({"type": "content_block_delta", "index": 0, "delta": delta})
    yield named_event({"type": "content_block_stop", "index": 0})
    yield named_event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": len(pieces)},
        }
    )
    yield named_event({"type": "message_stop"})
