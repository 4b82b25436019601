"""What an event of a stream means, for the protocols that language models are streamed in.

A stream that ends in order may still be cut short: nothing in HTTP tells the two apart. What tells is the protocol,
and each ends its streams, and puts errors into them, in its own way::

                 ends with             a choice ends with   an error is
    chat         [DONE]                finish_reason        error, object "error", finish_reason "error"
    completions  as chat
    responses    response.completed    -                    error, response.failed
    anthropic    message_stop          stop_reason          error
    gemini       the end of the body   finishReason         error

In any of them an event may also be named ``error``, or an error be no event at all but bare JSON between events.
``[DONE]`` after an error is no success. What nobody knows counts as output, for output is never thrown away.

Pure, and cheap enough for every event of a healthy stream: one decode into the few fields that matter. Everything
here is immutable and can be used from any thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from gip_resilience import _grammars
from gip_resilience._grammars import END, ERROR, GARBLED, LIFECYCLE, NOTHING, OUTPUT, Kind, Said
from gip_resilience.sse import BOM
from gip_resilience.taxonomy import classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.sse import Block

__all__ = [
    "ANTHROPIC",
    "CHAT",
    "COMPLETIONS",
    "GEMINI",
    "RESPONSES",
    "Grammar",
    "Kind",
    "Said",
    "confirm",
    "grammar_for",
    "is_bare_error",
    "is_event_stream",
]

_KEEPALIVES = ("ping", "keepalive")

_MAX_INT_DIGITS = 400
"""Digits of an integer that is read as one: `int` refuses some thousands of them, and they are valid JSON."""

_BROKEN: Final = object()


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """How one protocol speaks.

    Attributes:
        name: ``chat``, ``completions``, ``responses``, ``anthropic`` or ``gemini``.
        marker: the block that ends a stream, to be supplied where it alone is missing; empty where only the
            server can write it (``responses``) and where there is none (``gemini``).
        trailing_done: whether a gateway may add ``[DONE]`` after the protocol's own end. Both are `Kind.END`.
        opening: how nearly every event begins, up to its data.
        glance: told the data of such an event, gives its mark; less than 0 where there may be more to say of it.
        mark: what that is: the ``choice`` that the event is more of, its ``number``, or ``nothing``.
    """

    name: str
    _decoder: msgspec.json.Decoder[Any] = field(repr=False)
    _judge: Callable[[Any, bytes], Said | None] = field(repr=False)
    _knows_done: bool = field(default=False, repr=False)
    marker: bytes = b""
    trailing_done: bool = False
    opening: bytes = b"data: "
    glance: Callable[[bytes], int] = field(default=_grammars.no_glance, repr=False)
    mark: Literal["choice", "number", "nothing"] = "nothing"

    def read(self, block: Block, raw: bytes) -> Said:
        """Say what an event means. It never raises: any bytes mean something.

        Args:
            block: the event's fields.
            raw: the event as it came.
        """
        event, data, _, _ = block
        if not data:
            return ERROR if data is None and is_bare_error(raw) else NOTHING
        if event == b"error":
            return ERROR
        try:
            said = self._judge(self._decoder.decode(data), event)
            if not data.isascii():
                data.decode()  # what was skipped has not been checked
            if said is not None:
                return said
        except (ValueError, RecursionError):
            pass
        return self._read_oddity(event, data)

    def _read_oddity(self, event: bytes, data: bytes) -> Said:
        """Read what is no JSON by the book, or of a shape the judge does not know."""
        if self._knows_done and data.startswith(b"[DONE]"):
            return END
        value = _value(data)
        if value is _BROKEN:
            if data.isspace():
                return NOTHING  # some relays keep a connection alive with it
            return LIFECYCLE if event.decode("latin-1") in _KEEPALIVES else GARBLED
        try:
            said = self._judge(msgspec.convert(value, self._decoder.type), event)
        except msgspec.ValidationError:
            said = None
        if said is not None:
            return said
        if isinstance(value, dict | list) and _is_error(value):
            return ERROR
        is_keepalive = isinstance(value, dict) and _grammars.type_of(value.get("type"), event) in _KEEPALIVES
        return LIFECYCLE if is_keepalive else OUTPUT


_chunks: Final = msgspec.json.Decoder(_grammars.Chunk)
_DONE: Final = b"data: [DONE]\n\n"

CHAT: Final = Grammar(
    "chat",
    _chunks,
    _grammars.judge_chunk,
    _knows_done=True,
    marker=_DONE,
    glance=_grammars.glance_at_chunk,
    mark="choice",
)
"""OpenAI's Chat Completions, and whoever speaks like it."""

COMPLETIONS: Final = Grammar(
    "completions",
    _chunks,
    _grammars.judge_chunk,
    _knows_done=True,
    marker=_DONE,
    glance=_grammars.glance_at_chunk,
    mark="choice",
)
"""The completions before chat."""

RESPONSES: Final = Grammar(
    "responses",
    msgspec.json.Decoder(_grammars.ResponseEvent),
    _grammars.judge_response_event,
    _knows_done=True,
    trailing_done=True,
    opening=b"event: response.output_text.delta\ndata: ",
    glance=_grammars.glance_at_response_event,
    mark="number",
)
"""OpenAI's Responses API."""

ANTHROPIC: Final = Grammar(
    "anthropic",
    msgspec.json.Decoder(_grammars.MessageEvent),
    _grammars.judge_message_event,
    marker=b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    opening=b"event: content_block_delta\ndata: ",
    glance=_grammars.glance_at_message_event,
)
"""Anthropic's Messages."""

GEMINI: Final = Grammar("gemini", msgspec.json.Decoder(_grammars.GeminiChunk), _grammars.judge_gemini_chunk)
"""Gemini's ``streamGenerateContent`` with ``alt=sse``."""


def grammar_for(path: str) -> Grammar | None:
    """Return the grammar that a request's path promises; ``None`` when it promises none of ours.

    Args:
        path: of the request's URL, with or without a query.
    """
    head, _, last = path.partition("?")[0].rstrip("/").rpartition("/")
    if last == "completions":
        return CHAT if head.endswith("/chat") else COMPLETIONS
    if last == "responses" or head.endswith("/responses"):
        return RESPONSES
    if last == "messages":
        return ANTHROPIC
    return GEMINI if last.endswith(":streamGenerateContent") else None


def confirm(expected: Grammar | None, block: Block, raw: bytes) -> Grammar | None:
    """Say which grammar a stream has, from its first event with data.

    A path promises little: gateways serve one protocol under another's path, and paths of their own.

    Args:
        expected: what the path promises.
        block: the event's fields.
        raw: the event as it came.

    Returns:
        The grammar the event clearly is of; *expected* where the event may be of any (an error, a keepalive, a
        marker, garbage) or is nothing strange to it; ``None`` when nobody knows the event.
    """
    value = _value(block.data) if block.data else None
    if isinstance(value, dict):
        recognised = _recognised(value, block.event)
        if recognised is not None:
            return recognised
        if _grammars.type_of(value.get("type"), block.event) == "ping":
            return expected or ANTHROPIC
    if expected is None or expected.read(block, raw).kind is Kind.OUTPUT:
        return None
    return expected


def _recognised(value: dict[str, Any], event: bytes) -> Grammar | None:
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    keys = choice if isinstance(choice, dict) else {}
    object_ = value.get("object")
    if object_ == "chat.completion.chunk" or (object_ != "text_completion" and "delta" in keys):
        return CHAT
    if object_ == "text_completion" or "text" in keys:
        return COMPLETIONS
    type_ = _grammars.type_of(value.get("type"), event)
    if type_.startswith("response.") or (type_ == "error" and "sequence_number" in value):
        return RESPONSES
    if type_ in ("message_start", "message_delta", "message_stop") or type_.startswith("content_block_"):
        return ANTHROPIC
    return GEMINI if "candidates" in value or "promptFeedback" in value else None


def is_event_stream(content_type: str) -> bool:
    """Whether a ``Content-Type`` is that of an event stream, whatever its parameters."""
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


def is_bare_error(raw: bytes) -> bool:
    """Whether bytes between events are an error as plain JSON, perhaps over several lines, perhaps cut short.

    The last one of a stream has no blank line after it and so never becomes a block: ask about the unfinished rest.
    """
    text = raw.removeprefix(BOM).strip()
    return text.startswith((b"{", b"[")) and _is_error(text)


def _is_error(body: object) -> bool:
    return not classify(200, (), body, in_stream=True).ok


def _value(data: bytes) -> Any:
    """The JSON value in *data*, or `_BROKEN`. As lenient as Python's own parser, which reads NaN."""
    try:
        return json.loads(data.decode(), parse_int=_integer)
    except (ValueError, RecursionError):
        return _BROKEN


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_INT_DIGITS else float(digits)
