"""What the events of each protocol look like, and what they say: from decoded JSON to a `Said`. Pure.

Each protocol has a shape, the few fields of an event that matter, and a function that judges it. Shapes are as wide
as they can be: a field of another type than documented must not hide what the event says. A judge that does not
know an event says nothing, and `gip_resilience.streams` looks at it more closely.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import msgspec


class Kind(StrEnum):
    """What an event is to the one who waits for the answer."""

    NOTHING = "nothing"
    """No event: a comment, an id or a retry time alone, a name without data, blank data."""
    LIFECYCLE = "lifecycle"
    """Opens the answer, keeps it alive or accounts for it; nothing of the answer is in it."""
    OUTPUT = "output"
    """Something of the answer; also whatever nobody knows."""
    FINISH = "finish"
    """At least one choice ended. The event may carry output too."""
    END = "end"
    """The terminal marker."""
    ERROR = "error"
    """An error in the stream."""
    GARBLED = "garbled"
    """Not JSON, or not UTF-8, where the protocol has nothing else."""


class Said(NamedTuple):
    """What one event says.

    Attributes:
        kind: what it is.
        finished: the choices (Gemini: candidates) that ended with it; they are among *indexes*.
        indexes: the choices it speaks of. Anthropic has one, named only when it ends; the Responses API has none.
        final: whether the run itself failed, so that resuming it gives the same failure again.
        sequence: the event's ``sequence_number``. Responses API only.
        response_id: the run's id, in events that hold the run. Responses API only.
        background: whether the run goes on without a listener. Responses API only.
        usage: whether the tokens used are in it. Chat and completions only.
    """

    kind: Kind
    finished: tuple[int, ...] = ()
    indexes: tuple[int, ...] = ()
    final: bool = False
    sequence: int | None = None
    response_id: str = ""
    background: bool = False
    usage: bool = False


NOTHING: Final = Said(Kind.NOTHING)
LIFECYCLE: Final = Said(Kind.LIFECYCLE)
OUTPUT: Final = Said(Kind.OUTPUT)
END: Final = Said(Kind.END)
ERROR: Final = Said(Kind.ERROR)
GARBLED: Final = Said(Kind.GARBLED)

# Nearly every answer has one choice.
_FIRST_OPENS: Final = Said(Kind.LIFECYCLE, indexes=(0,))
_FIRST_SPEAKS: Final = Said(Kind.OUTPUT, indexes=(0,))
_FIRST_ENDS: Final = Said(Kind.FINISH, (0,), (0,))

_FAILED_REASONS = ("error", "insufficient_system_resource")
"""Of OpenRouter and of DeepSeek: the choice did not finish, the model broke down."""


def type_of(type_: object, name: bytes) -> str:
    """What an event is called: by the ``type`` in its data, or where that is silent by the event's name."""
    return type_ if type_ and isinstance(type_, str) else name.decode("latin-1")


def _of_choices(finished: list[int], indexes: list[int], *, speaks: bool, usage: bool = False) -> Said:
    if indexes == [0] and not usage:
        return _FIRST_ENDS if finished else _FIRST_SPEAKS if speaks else _FIRST_OPENS
    kind = Kind.FINISH if finished else Kind.OUTPUT if speaks else Kind.LIFECYCLE
    return Said(kind, tuple(finished), tuple(indexes), usage=usage)


# ---- chat, and the completions before it -----------------------------------------------------------------


class _Choice(msgspec.Struct, gc=False):
    index: Any = 0
    delta: Any = None
    text: Any = None
    finish_reason: Any = None


class Chunk(msgspec.Struct, gc=False):
    """An event of chat, or of the completions, whose choices hold a ``text`` and no ``delta``."""

    choices: list[_Choice] | None = None
    error: Any = None
    usage: Any = None


def judge_chunk(chunk: Chunk, _: bytes) -> Said | None:
    """Say what *chunk* means; ``None`` when it is of a kind nobody knows."""
    if chunk.error:
        return ERROR
    choices, usage = chunk.choices, chunk.usage is not None
    if not choices:
        if usage:
            return Said(Kind.LIFECYCLE, usage=True)
        return None if choices is None else LIFECYCLE  # Azure's word on the prompt
    first = choices[0]
    if len(choices) == 1 and first.index == 0 and not (first.finish_reason or usage):
        return _FIRST_SPEAKS if _speaks(first) else _FIRST_OPENS  # as below; nearly every chunk
    speaks = False
    finished, indexes = list[int](), list[int]()
    for choice in choices:
        index = choice.index if type(choice.index) is int else 0
        indexes.append(index)
        if choice.finish_reason:  # Ollama's was "" until there was one
            if choice.finish_reason in _FAILED_REASONS:
                return ERROR
            finished.append(index)
        speaks = speaks or _speaks(choice)
    return _of_choices(finished, indexes, speaks=speaks, usage=usage)


def _speaks(choice: _Choice) -> bool:
    delta = choice.delta
    if isinstance(delta, dict):
        for key, value in delta.items():
            if value and key != "role":
                return True
        return bool(choice.text)
    # Neither: a choice of a kind nobody knows.
    return bool(delta or choice.text) or (delta is None and choice.text is None)


# ---- the Responses API -----------------------------------------------------------------------------------


class _Run(msgspec.Struct, gc=False):
    id: Any = ""
    background: Any = None


class ResponseEvent(msgspec.Struct, gc=False):
    """An event of the Responses API."""

    type: Any = ""
    sequence_number: Any = None
    response: _Run | None = None
    error: Any = None


_RESPONSE_EVENTS: Final = {
    "response.created": Kind.LIFECYCLE,
    "response.queued": Kind.LIFECYCLE,
    "response.in_progress": Kind.LIFECYCLE,
    "response.output_item.added": Kind.LIFECYCLE,
    "response.content_part.added": Kind.LIFECYCLE,
    "response.reasoning_summary_part.added": Kind.LIFECYCLE,
    "keepalive": Kind.LIFECYCLE,
    "ping": Kind.LIFECYCLE,
    "response.completed": Kind.END,
    "response.incomplete": Kind.END,
    "response.cancelled": Kind.END,
    "response.failed": Kind.ERROR,
    "error": Kind.ERROR,
}


def judge_response_event(event: ResponseEvent, name: bytes) -> Said | None:
    """Say what *event*, named *name* or not, means; ``None`` when it is of a kind nobody knows."""
    type_ = type_of(event.type, name)
    sequence = event.sequence_number if type(event.sequence_number) is int else None
    if event.error and sequence is None and not event.type:
        return ERROR  # a gateway's, whatever the event is called: the service's own say what they are
    kind = _RESPONSE_EVENTS.get(type_)
    if kind is None:
        if not type_.startswith("response."):
            if event.error:
                return ERROR
            if sequence is None:
                return None
        kind = Kind.OUTPUT
    run = event.response
    final = type_ == "response.failed"
    if run is None:
        return Said(kind, (), (), final, sequence)
    run_id = run.id if isinstance(run.id, str) else ""
    return Said(kind, (), (), final, sequence, run_id, run.background is True)


# ---- Anthropic's Messages --------------------------------------------------------------------------------


class MessageEvent(msgspec.Struct, gc=False):
    """An event of Anthropic's."""

    type: Any = ""
    delta: Any = None
    content_block: Any = None
    error: Any = None


_MESSAGE_EVENTS: Final = {
    "content_block_delta": OUTPUT,
    "message_start": LIFECYCLE,
    "content_block_stop": LIFECYCLE,
    "ping": LIFECYCLE,
    "message_stop": END,
    "error": ERROR,
}


def judge_message_event(event: MessageEvent, name: bytes) -> Said | None:
    """Say what *event*, named *name* or not, means; ``None`` when it is of a kind nobody knows."""
    if event.error:  # a gateway's, whatever the event is called
        return ERROR
    type_ = type_of(event.type, name)
    said = _MESSAGE_EVENTS.get(type_)
    if said is not None:
        return said
    if type_ == "message_delta":
        delta = event.delta
        return _FIRST_ENDS if isinstance(delta, dict) and delta.get("stop_reason") else LIFECYCLE
    if type_ == "content_block_start":
        block = event.content_block
        if isinstance(block, dict) and not any(value for key, value in block.items() if key != "type"):
            return LIFECYCLE
        return OUTPUT  # a tool's name and id are something of the answer
    return None


# ---- Gemini ----------------------------------------------------------------------------------------------


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    index: Any = 0
    content: Any = None
    finish_reason: Any = None


class GeminiChunk(msgspec.Struct, gc=False, rename="camel"):
    """An event of Gemini's ``streamGenerateContent``."""

    candidates: list[_Candidate] | None = None
    prompt_feedback: Any = None
    usage_metadata: Any = None
    error: Any = None


def judge_gemini_chunk(chunk: GeminiChunk, _: bytes) -> Said | None:
    """Say what *chunk* means; ``None`` when it is of a kind nobody knows."""
    if chunk.error:
        return ERROR
    if not chunk.candidates:
        feedback = chunk.prompt_feedback
        if isinstance(feedback, dict) and feedback.get("blockReason"):
            return _FIRST_ENDS  # a refused prompt has no candidate: this is the whole answer
        known = (chunk.candidates, feedback, chunk.usage_metadata) != (None, None, None)
        return LIFECYCLE if known else None
    speaks = False
    finished, indexes = list[int](), list[int]()
    for candidate in chunk.candidates:
        index = candidate.index if type(candidate.index) is int else 0
        indexes.append(index)
        if candidate.finish_reason:
            finished.append(index)
        speaks = speaks or not _is_empty(candidate.content)
    return _of_choices(finished, indexes, speaks=speaks)


def _is_empty(content: object) -> bool:
    parts = content.get("parts") if isinstance(content, dict) else None
    return isinstance(parts, list) and all(part == {"text": ""} for part in parts)


# ---- at a glance -----------------------------------------------------------------------------------------

# Nearly every event is a little more of an answer that has begun: no end, no error, nothing to account for. To see
# that takes less than to read it, and whoever only passes it on need not know what it says. The shapes are as narrow
# as they can be: what does not fit is looked into. What they leave out is checked to be JSON, and skipped.


class _GlancedChoice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: None = None


class _GlancedChunk(msgspec.Struct, gc=False):
    choices: tuple[_GlancedChoice]
    error: None = None
    usage: None = None


class _GlancedDelta(msgspec.Struct, gc=False):
    type: Literal["response.output_text.delta"]
    sequence_number: int
    response: None = None
    error: None = None


class _GlancedBlock(msgspec.Struct, gc=False):
    type: Literal["content_block_delta"]
    error: None = None


_as_chunk: Final = msgspec.json.Decoder(_GlancedChunk).decode
_as_delta: Final = msgspec.json.Decoder(_GlancedDelta).decode
_as_block: Final = msgspec.json.Decoder(_GlancedBlock).decode

LOOK: Final = -1
"""What a glance cannot tell."""


def no_glance(_: bytes) -> int:
    """Of a protocol whose events are always looked into."""
    return LOOK


def glance_at_chunk(data: bytes) -> int:
    """The one choice that a chunk is more of, or `LOOK`."""
    try:
        if not data.isascii():
            data.decode()  # what is skipped is not checked
        return _as_chunk(data).choices[0].index
    except (ValueError, RecursionError):
        return LOOK


def glance_at_response_event(data: bytes) -> int:
    """The number of an event that has text, or `LOOK`."""
    try:
        if not data.isascii():
            data.decode()  # as above
        return _as_delta(data).sequence_number
    except (ValueError, RecursionError):
        return LOOK


def glance_at_message_event(data: bytes) -> int:
    """0 for an event that has a piece of a content block, or `LOOK`."""
    try:
        if not data.isascii():
            data.decode()  # as above
        _as_block(data)
    except (ValueError, RecursionError):
        return LOOK
    return 0
