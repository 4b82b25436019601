"""Where an event of each protocol has its output, for `gip_resilience._replay`. Pure.

A reader walks over one event and shows every piece of the answer in it to the `Past`. While a broken answer is
recorded, that is all. While a second one is compared with it, the reader takes out of the event what the caller has,
and tells whether anything is left that is worth handing up once nothing is missing.

What a reader does not know it calls unknown, and that cannot be compared. What only describes the answer (padding,
a content filter's findings, counts) is no output, and may differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from gip_resilience._replay_past import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from gip_resilience._replay_past import Past

_Object = dict[str, Any]

_TOOL = "a tool was used"
_THINKING = "thinking was delivered"
_AUDIO = "audio was delivered"
_LOGPROBS = "log probabilities were delivered"
_CHOICES = "more than one choice"


class Reader(Protocol):
    """Reads the events of one protocol."""

    def __call__(self, past: Past, event: dict[str, Any], name: bytes, /) -> bool:
        """Take an event, and what the caller has out of it.

        Args:
            past: what was delivered.
            event: the decoded data; changed in place.
            name: the event field of its block.

        Returns:
            Whether anything is left to hand up.

        Raises:
            gip_resilience._replay.Diverged: it is not what was delivered.
        """
        ...


# ---- chat completions, and the older completions ---------------------------------------------------------

_CHUNK_IDS = ("id", "created", "model", "system_fingerprint")
_CHOICE = {"index", "delta", "text", "logprobs"}
_DELTA_TEXTS = {"content", "refusal", "reasoning", "reasoning_content"}


def read_chunk(past: Past, chunk: _Object, _name: bytes) -> bool:
    """`Reader` of both kinds: a choice has a ``delta``, or a ``text``."""
    past.identify(chunk, _CHUNK_IDS)
    caught_up = not past.behind
    left = False
    choices = list(_objects(past, chunk.get("choices")))
    for choice in choices:
        if _is_another(past, choice):
            continue
        left |= _read_delta(past, _object(past, choice.get("delta")))
        _read_text(past, choice, "text", "text")
        if any(_object(past, choice.get("logprobs")).values()):
            past.hinder(_LOGPROBS)
        reason = choice.get("finish_reason")
        if reason and past.end(str(reason)):
            choice["finish_reason"] = None
        left |= caught_up and _has_others(choice, _CHOICE)
    return _is_left(past, chunk.get("usage"), choices) or left


def _read_delta(past: Past, delta: _Object) -> bool:
    """Take a delta; return whether it opens the answer."""
    opens = False
    for key, value in list(delta.items()):
        if key in _DELTA_TEXTS:
            _read_text(past, delta, key, key)
        elif key == "tool_calls":
            for position, call in enumerate(_objects(past, value)):
                _read_call(past, call, position)
        elif key == "function_call":
            _read_function(past, _object(past, value), key)
        elif key == "role":
            if past.replaying and past.opened:
                del delta[key]
            elif value:
                past.opened = opens = True
        elif value:
            past.unknown(_AUDIO if key == "audio" else UNKNOWN)
    return opens


def _read_call(past: Past, call: _Object, position: int) -> None:
    channel = f"tool_calls[{_index(call, position)}]"
    if past.mark(channel):
        call.pop("id", None)  # a client would join it to the first one
        call.pop("type", None)
    _read_function(past, _object(past, call.get("function")), f"{channel}.function")
    if _has_others(call, {"index", "id", "type", "function"}):
        past.unknown()


def _read_function(past: Past, function: _Object, channel: str) -> None:
    name = function.get("name")
    if name and past.mark(f"{channel}.name", str(name)):
        del function["name"]
    _read_text(past, function, "arguments", f"{channel}.arguments")
    if _has_others(function, {"name", "arguments"}):
        past.unknown()


# ---- Gemini ----------------------------------------------------------------------------------------------

_GEMINI_IDS = ("responseId", "modelVersion", "createTime")
_CANDIDATE = {"index", "content"}
_PARTS = {"functionCall": _TOOL, "thoughtSignature": _THINKING}


def read_gemini(past: Past, chunk: _Object, _name: bytes) -> bool:
    """`Reader` of ``streamGenerateContent``."""
    past.identify(chunk, _GEMINI_IDS)
    caught_up = not past.behind
    left = False
    candidates = list(_objects(past, chunk.get("candidates")))
    for candidate in candidates:
        if _is_another(past, candidate):
            continue
        content = _object(past, candidate.get("content"))
        for part in _objects(past, content.get("parts")):
            _read_part(past, part)
        if candidate.get("logprobsResult"):
            past.hinder(_LOGPROBS)
        reason = candidate.get("finishReason")
        if reason and past.end(str(reason)):
            del candidate["finishReason"]
        left |= caught_up and _has_others(candidate, _CANDIDATE)
    return _is_left(past, chunk.get("usageMetadata"), candidates) or left


def _read_part(past: Past, part: _Object) -> None:
    for key, value in list(part.items()):
        if key == "text":
            _read_text(past, part, key, "thought" if part.get("thought") else "text")
        elif value and key != "thought":
            past.unknown(_PARTS.get(key, UNKNOWN))


# ---- Anthropic messages ----------------------------------------------------------------------------------

_TYPES = {
    "tool_use": _TOOL,
    "server_tool_use": _TOOL,
    "input_json_delta": _TOOL,
    "thinking": _THINKING,
    "redacted_thinking": _THINKING,
    "thinking_delta": _THINKING,
    "signature_delta": _THINKING,
}
"""What hinders, by the type of a block or of a delta."""


def read_anthropic(past: Past, event: _Object, name: bytes) -> bool:
    """`Reader` of messages, whose text comes in numbered blocks that are opened and closed."""
    kind = _type(event, name)
    channel = f"content[{_index(event)}]"
    if kind == "message_start":
        had, past.opened = past.opened, True
        return not had
    if kind == "content_block_start":
        return _open_block(past, _object(past, event.get("content_block")), channel)
    if kind == "content_block_delta":
        delta = _object(past, event.get("delta"))
        if delta.get("type") == "text_delta":
            _read_text(past, delta, "text", channel)
        else:
            past.unknown(_TYPES.get(str(delta.get("type")), UNKNOWN))
        return bool(past.news)
    if kind == "content_block_stop":
        return not past.mark(f"the end of {channel}")
    if kind == "message_delta":
        reason = _object(past, event.get("delta")).get("stop_reason")
        return not (reason and past.end(str(reason)))
    if kind == "message_stop":
        past.ends = True
    elif kind != "ping":
        past.hinder(UNKNOWN)
    return True


def _open_block(past: Past, block: _Object, channel: str) -> bool:
    kind = str(block.get("type"))
    had = past.mark(f"the type of {channel}", kind)
    if kind == "text":
        _read_text(past, block, "text", channel)
        if _has_others(block, {"type", "text"}):
            past.unknown()
    else:
        past.hinder(_TYPES.get(kind, UNKNOWN))
    if past.replaying and had and past.news:
        raise past.divergence()  # a block cannot be opened twice, not even for what is new in it
    return not had


# ---- the others ------------------------------------------------------------------------------------------


def read_responses(past: Past, event: _Object, name: bytes) -> bool:
    """`Reader` of the text of responses: they are resumed by their cursor, and not compared."""
    if _type(event, name) == "response.output_text.delta":
        _read_text(past, event, "delta", "text")
    return False


def read_nothing(_past: Past, _event: _Object, _name: bytes) -> bool:
    """`Reader` of what nobody knows."""
    return False


READERS: dict[str, Reader] = {
    "chat": read_chunk,
    "completions": read_chunk,
    "gemini": read_gemini,
    "anthropic": read_anthropic,
    "responses": read_responses,
}
"""By the name of the protocol."""


# ---- pieces ----------------------------------------------------------------------------------------------


def _object(past: Past, value: object) -> _Object:
    if isinstance(value, dict):
        return value
    if value:
        past.unknown()
    return {}


def _objects(past: Past, value: object) -> Iterator[_Object]:
    if isinstance(value, list):
        for item in value:
            yield _object(past, item)
    elif value:
        past.unknown()


def _read_text(past: Past, holder: _Object, key: str, channel: str) -> None:
    piece = holder.get(key)
    if isinstance(piece, str):
        holder[key] = past.text(channel, piece)
    elif piece:
        past.unknown()


def _has_others(holder: _Object, known: Collection[str]) -> bool:
    return any(value and key not in known for key, value in holder.items())


def _index(holder: _Object, default: int = 0) -> int:
    # Never anything else than a number: it becomes part of a name, and names are told.
    index = holder.get("index")
    return index if isinstance(index, int) else default


def _type(event: _Object, name: bytes) -> str:
    return str(event.get("type") or name.decode("utf-8", "replace"))


def _is_another(past: Past, choice: _Object) -> bool:
    """Whether this is not the first choice. A replay has but one, so a second one is never handed up."""
    if not _index(choice):
        return False
    if past.replaying:
        past.news = "another choice"
        raise past.divergence()
    past.hinder(_CHOICES)
    return True


def _is_left(past: Past, usage: object, choices: Collection[_Object]) -> bool:
    """Whether an event has anything new in it, or a usage the caller lacks, or is about no choice at all."""
    if usage and past.meter(alone=not choices):
        return bool(past.news)
    return bool(past.news or usage or not choices)
