"""What the models say: a function of the prompt and the seed, so that runs can be compared word for word."""

from __future__ import annotations

import base64
import math
import re
import struct
from dataclasses import dataclass
from hashlib import blake2b, shake_256
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

CREATED: Final = 1_700_000_000
"""The ``created`` of everything; a clock here would make answers differ."""

_MAX_ECHO: Final = 4096
_MAX_QUOTE: Final = 12
_LONGEST_PIECE: Final = 9
_WORD: Final = re.compile(r"\s*\S+\s*?(?=\s|\Z)|\s+")
_ENDINGS: Final = (
    "That is all there is to say.",
    "The gateway has nothing to add.",
    "Ask again and the words will be the same.",
    "One plus one is still two.",
)

# Wordings that are sampled have their first word in common: a comparison must not end where it begins.
_OPENINGS: Final = ("You said:", "You wrote:", "You asked:", "You told me:")


def identifier(prefix: str, seed: int, *about: str) -> str:
    """An id that is the same for the same seed and subject."""
    return prefix + blake2b("\0".join([str(seed), *about]).encode(), digest_size=12).hexdigest()


def reply_text(prompt: str, seed: int, take: int = 0) -> str:
    """The answer to *prompt*: its first 4096 characters, and an ending chosen by prompt and seed.

    Every *take* but 0 has a wording of its own, which differs from that of the next one after its first word.
    """
    ending = _ENDINGS[int(identifier("", seed, prompt), 16) % len(_ENDINGS)]
    opening = _OPENINGS[take % len(_OPENINGS)]
    return f"{opening} {prompt[:_MAX_ECHO]} {ending}" + (f" (Take {take}.)" if take else "")


def words(text: str) -> list[str]:
    """*text* in pieces of about one word; joined, they are the text again."""
    return _WORD.findall(text)


def recut(text: str, salt: str) -> list[str]:
    """*text* in pieces of 1 to 9 characters, cut as *salt* decides; joined, they are the text again."""
    pieces = []
    start = 0
    for chance in shake_256(salt.encode()).digest(len(text)):
        if start >= len(text):
            break
        end = start + 1 + chance % _LONGEST_PIECE
        pieces.append(text[start:end])
        start = end
    return pieces


def tool_arguments(prompt: str, seed: int, take: int = 0) -> str:
    """The arguments of a tool call: about 40 characters of JSON that quote *prompt*."""
    key = identifier("", seed, prompt, str(take))[:8]
    return msgspec.json.encode({"text": prompt[:_MAX_QUOTE], "key": key}).decode()


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


def named_event(value: Mapping[str, object]) -> bytes:
    """The same, named after its ``type``, as Anthropic and OpenAI's newer API stream them."""
    return f"event: {value['type']}\n".encode() + data_event(value)


@dataclass(frozen=True, slots=True)
class Said:
    """What a model says, or which tool it calls.

    Attributes:
        pieces: the text as it is streamed; of a call, the arguments.
        tokens: how many it took to say it.
        whole: false where a limit cut it short.
        tool: the tool that is called.
    """

    pieces: list[str]
    tokens: int
    whole: bool = True
    tool: str | None = None

    @property
    def text(self) -> str:
        """The text, or the arguments, in one piece."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Turn:
    """One request to a model: what decides its words, its ids, and where it is cut.

    Attributes:
        number: of the request, from 1.
        seed: decides the words.
        take: which wording; 0 is the one that everybody gets.
        renamed: it has ids of its own.
        recut: it is cut in its own way, not word by word.
    """

    number: int
    seed: int
    take: int = 0
    renamed: bool = False
    recut: bool = False

    def identifier(self, prefix: str, *about: str) -> str:
        """An id for what the request is *about*."""
        own = [str(self.number)] if self.renamed else []
        return identifier(prefix, self.seed, *about, *own)

    def answer(self, prompt: str, tool: str | None = None, index: int = 0, limit: int | None = None) -> Said:
        """The answer to *prompt* in choice *index*.

        Args:
            prompt: what was asked.
            tool: the tool to call, if one is called.
            index: which of several choices.
            limit: the most tokens of a text; a word is one. Calls have no limit.
        """
        if tool is not None:
            text = tool_arguments(prompt, self.seed + index, self.take)
            pieces = [text[start : start + 8] for start in range(0, len(text), 8)]
            said = Said(pieces, count_tokens(text), tool=tool)
        else:
            pieces = words(reply_text(prompt, self.seed + index, self.take))
            kept = pieces[:limit]
            said = Said(kept, len(kept), len(kept) == len(pieces))
        if self.recut:
            said = Said(recut(said.text, f"{self.number}.{index}"), said.tokens, said.whole, said.tool)
        return said

    def padding(self, position: int) -> str:
        """What hides the length of the event at *position*: 8 to 23 characters, others in every request."""
        digest = blake2b(f"{self.seed}.{self.number}.{position}".encode(), digest_size=12)
        return digest.hexdigest()[: 8 + digest.digest()[0] % 16]
