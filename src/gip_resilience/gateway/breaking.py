"""Breaking a body: where it stops, what is put in, what is promised and what is sent; no I/O."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gip_resilience.gateway.answers import Answer, Framing, Parts, gzip_pieces, message_of
from gip_resilience.gateway.content import data_event, named_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gip_resilience.gateway.replies import BodyFraming, BreakStream

DONE: Final = b"data: [DONE]\n\n"
NOT_JSON: Final = b'data: {"garbled":\n\n'

_MULTIBYTE: Final = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_MARK: Final = re.compile(rb"(?:id:[^\r\n]*\n)?(?:data: \[DONE\]|event: message_stop)")
_NAME: Final = re.compile(rb"^event:[^\r\n]*\r?\n", re.MULTILINE)

# An answer marks its end by a length wherever it knows one.
_FRAMING_OF: Final[dict[BodyFraming, Framing]] = {"chunked": "chunked", "close": "close", "length": "auto"}


def broken(answer: Answer, fault: BreakStream) -> Answer:
    """*answer* with the body that is still sent, and the length that is promised. Holds all of the body."""
    pieces = (answer.body,) if isinstance(answer.body, bytes) else tuple(answer.body.pieces)
    place = _place(pieces, fault)
    sent, rest = _parted(pieces, place)
    ended = not rest
    # Where the last event only marks the end, nothing with a meaning is missing without it.
    mark = len(pieces[-1]) if pieces and _MARK.match(pieces[-1]) else 0
    lacking = place < _size(pieces) - mark or fault.how == "garbled"
    if fault.how == "error":
        sent += [error_event(fault, pieces, place), *([DONE] if fault.done else [])]
        answer, ended = replace(answer, code=str(fault.code)), True
    elif fault.how == "garbled":
        name = _NAME.search(rest[0]) if rest else None
        sent += [(name.group() if name else b"") + NOT_JSON, *rest]
        ended = True
    if fault.gzip:
        pieces = tuple(gzip_pieces(pieces))
        sent = list(gzip_pieces(sent, ended=ended))
        answer = answer.with_headers([("content-encoding", "gzip")])
    if fault.chunk:
        sent = [b"".join(sent)]
    length = _size(sent)
    if fault.how in ("fin", "rst", "stall"):
        # A promise that is kept would be an end in order, also where the whole body was sent.
        length = max(_size(pieces), length + 1)
    body = Parts(sent, length if fault.framing == "length" else None)
    return replace(answer, body=body, framing=_FRAMING_OF[fault.framing], broken=lacking)


def error_event(fault: BreakStream, pieces: Sequence[bytes], place: int) -> bytes:
    """What tells of the error at byte *place* of a stream of *pieces*."""
    message = fault.message or message_of(str(fault.code))
    coded = {"code": fault.code, "message": message}
    error = {"type": fault.type or "internal_server_error", **coded}
    match fault.shape:
        case "nested":
            return data_event({"error": error})
        case "flat":
            return data_event({"object": "error", **error})
        case "list":
            return data_event([{"error": error}])
        case "event":
            return b"event: error\n" + data_event({"error": error})
        case "event_flat":
            number = _sequence_number(pieces, place)
            return named_event({"type": "error", **coded, "sequence_number": number})
        case "event_text":
            return b"event: error\ndata: " + message.encode() + b"\n\n"
        case "choices":
            return data_event({**_chunk_head(pieces), "choices": [], "error": error})
        case "openrouter":
            choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
            return data_event({**_chunk_head(pieces), "error": coded, "choices": [choice]})
        case "bare":
            return msgspec.json.encode({"error": error}) + b"\n\n"
        case "anthropic":
            kind = fault.type or "overloaded_error"
            return named_event({"type": "error", "error": {"type": kind, "message": message}})
        case "failed":  # pragma: no branch - there is no other
            response = {**_response(pieces), "status": "failed", "error": coded, "output": []}
            number = _sequence_number(pieces, place)
            return named_event({"type": "response.failed", "sequence_number": number, "response": response})


def _place(pieces: Sequence[bytes], fault: BreakStream) -> int:
    """How many bytes of the body come before the break; it may be more than there are."""
    place = _size(pieces[: fault.events or 0]) + (fault.byte or 0)
    if not fault.char:
        return place
    body = b"".join(pieces)
    found = _MULTIBYTE.search(body, place)
    return found.start() + 1 if found else max(place, len(body) // 2)


def _parted(pieces: Sequence[bytes], place: int) -> tuple[list[bytes], list[bytes]]:
    """The pieces before byte *place* and those after it; the one it lies in is parted."""
    before, after = [], []
    for piece in pieces:
        before.append(piece[:place])
        after.append(piece[place:])
        place = max(0, place - len(piece))
    return [piece for piece in before if piece], [piece for piece in after if piece]


def _size(pieces: Sequence[bytes]) -> int:
    return sum(map(len, pieces))


def _data(event: bytes) -> dict[str, Any]:
    """The data of *event* if it is a JSON object, else nothing."""
    for line in event.splitlines():
        if line.startswith(b"data:"):
            with suppress(msgspec.DecodeError):
                return msgspec.json.decode(line[5:], type=dict[str, Any])
    return {}


def _chunk_head(pieces: Sequence[bytes]) -> dict[str, Any]:
    """What every chunk of the stream repeats."""
    first = next(filter(None, map(_data, pieces)), {})
    return {name: first[name] for name in ("id", "object", "created", "model") if name in first}


def _response(pieces: Sequence[bytes]) -> dict[str, Any]:
    """The response that the stream is about."""
    found = (_data(piece).get("response") for piece in pieces)
    return next((value for value in found if isinstance(value, dict)), {"object": "response"})


def _sequence_number(pieces: Sequence[bytes], place: int) -> int:
    """The number of the first event that is not wholly before byte *place*, or the one after the last."""
    number = end = 0
    for piece in pieces:
        end += len(piece)
        found = _data(piece).get("sequence_number")
        if isinstance(found, int):
            if end > place:
                return found
            number = found + 1
    return number
