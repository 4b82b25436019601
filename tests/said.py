"""Events as servers send them, and words for what they say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gip_resilience.sse import parse
from gip_resilience.streams import ANTHROPIC, CHAT, COMPLETIONS, GEMINI, RESPONSES, Kind, Said

if TYPE_CHECKING:
    from gip_resilience.streams import Grammar

GRAMMARS = [CHAT, COMPLETIONS, RESPONSES, ANTHROPIC, GEMINI]

NOTHING = Said(Kind.NOTHING)
LIFECYCLE = Said(Kind.LIFECYCLE)
OUTPUT = Said(Kind.OUTPUT)
END = Said(Kind.END)
ERROR = Said(Kind.ERROR)
GARBLED = Said(Kind.GARBLED)
# The same, of the first of the answer's choices.
OPENS = Said(Kind.LIFECYCLE, indexes=(0,))
SPEAKS = Said(Kind.OUTPUT, indexes=(0,))
ENDS = Said(Kind.FINISH, (0,), (0,))


def read(grammar: Grammar, raw: bytes) -> Said:
    """What *grammar* makes of one event."""
    return grammar.read(parse(raw), raw)


def event(data: Any, name: str = "") -> bytes:
    """An event with *data* as JSON, or as it is."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def choice(**fields: Any) -> dict[str, Any]:
    """A chunk of chat with one choice."""
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, **fields}]}


def delta(**fields: Any) -> dict[str, Any]:
    """The same, with this delta."""
    return choice(delta=fields, finish_reason=None)


def candidate(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A chunk of Gemini's with one candidate."""
    return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, **fields}]}


RUN = {"id": "resp_1", "object": "response", "status": "in_progress", "background": False, "output": []}
"""The run that an event of the Responses API holds."""
