"""Event streams: the same events for any cut of the bytes, those the standard says, and no byte lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fuzz.given import Given, cut
from gip_resilience.sse import EventSplitter, EventTooLargeError, ServerSentEvent, SSEDecoder, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

Seen = tuple[list[ServerSentEvent], str, int | None]

_LINE_END = re.compile("\r\n|\r|\n")
_DIGITS = re.compile("[0-9]{1,18}")


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    limit, sizes = given.byte(), given.sizes()
    stream = given.rest()
    expected = _modelled(stream)
    assert _decoded([stream]) == expected
    assert _decoded(cut(stream, sizes)) == expected
    _split(stream, sizes)
    _limited(stream, sizes, limit)


def _decoded(pieces: Iterable[bytes]) -> Seen:
    decoder = SSEDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    assert decoder.finish() == []
    return events, decoder.last_event_id, decoder.retry


def _modelled(data: bytes) -> Seen:
    """What the standard says, over the whole text and one line at a time."""
    events = []
    buffer = kind = last_id = id_buffer = ""
    own = retry = None
    for line in _LINE_END.split(data.decode(errors="replace").removeprefix("\ufeff"))[:-1]:
        if not line:
            last_id = id_buffer
            if buffer:
                events.append(ServerSentEvent(kind or "message", buffer[:-1], last_id, own))
            buffer, kind, own = "", "", None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            buffer += value + "\n"
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            retry = own = int(value)
    return events, last_id, retry


def _split(stream: bytes, sizes: list[int]) -> None:
    """At any moment the blocks and what is pending are what was fed."""
    splitter = EventSplitter()
    out, fed = b"", 0
    for piece in cut(stream, sizes):
        blocks = splitter.feed(piece)
        fed += len(piece)
        out += b"".join(blocks)
        assert len(out) + splitter.size == fed
        for block in blocks:
            assert block
            parse(block)
    assert out + splitter.pending == stream


def _limited(stream: bytes, sizes: list[int], limit: int) -> None:
    """No block is longer than the limit, and a call that refuses has taken nothing."""
    splitter = EventSplitter(max_event=limit)
    for piece in cut(stream, sizes):
        before = splitter.pending
        try:
            blocks = splitter.feed(piece)
        except EventTooLargeError:
            assert splitter.pending == before
            return
        assert all(len(block) <= limit for block in blocks)
        assert splitter.size <= limit
