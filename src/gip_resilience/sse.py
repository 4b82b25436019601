"""The event-stream format (WHATWG HTML 9.2.5, 9.2.6) as pure machines: bytes in, events out, nothing waits.

Two of them, one on top of the other::

    bytes ──► EventSplitter ──► blocks ──► parse ──► Block ──► SSEDecoder ──► ServerSentEvent
              finds boundaries             undecoded           text, and what persists from event to event

Who only forwards a stream needs the splitter and, for a look inside, `parse`: no byte is changed or decoded, and the
blocks joined are what came in. Who consumes one needs the decoder.

What the format asks for, and many parsers miss: a line ends with CRLF, LF or CR and with nothing else; bytes that
are no UTF-8 become U+FFFD and never an error; a blank line without data before it is no event, yet it commits the
id; what has no blank line when the connection ends is thrown away.

Every machine takes time linear in what it is fed, however it is cut, and holds at most one unfinished event. None
is thread-safe: each belongs to one connection.
"""

from __future__ import annotations

import re
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, NamedTuple, cast

from gip_resilience.errors import ResilienceError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BOM",
    "MAX_EVENT",
    "Block",
    "EventSplitter",
    "EventTooLargeError",
    "SSEDecoder",
    "ServerSentEvent",
    "parse",
]

MAX_EVENT = 16 * 1024 * 1024
"""Bytes of one event, with its line ends. A picture comes as one line of base64, and 10 MB of it have been seen; a
stream that goes on without a blank line must not fill the memory."""

BOM = b"\xef\xbb\xbf"
"""The byte order mark: at the very start of a connection it is not part of the first line."""

_MAX_RETRY_DIGITS = 18
"""Digits of a ``retry`` field that is believed: what fits 64 bits. `int` refuses some thousands of them, and a
float overflows before that."""

# A CR never leaves its LF behind, or CRLF would be two line ends. Only at the end of what has come can the LF of
# the second line end be missing: the event is complete without it.
_BLANK_LINE = re.compile(rb"(?:\n|\r\n?+)(?:\n|\r\n?)")

_LF, _CR = b"\n\r"
"""To look for one of them as a number is ten times as fast as to look for a string of one."""

_LINE = re.compile(rb"[^\r\n]+")


class EventTooLargeError(ResilienceError, ValueError):
    """One event of a stream is longer than the machine was told to accept; the message names the limit in bytes.

    The call that raises it has taken nothing of its argument: the machine is as it was before.
    """


class ServerSentEvent(NamedTuple):
    """One event, as a browser would dispatch it.

    Attributes:
        event: its type.
        data: its data lines, joined with LF.
        id: the last event id at that moment, which an earlier event may have set; empty when there is none.
        retry: the reconnection time this event's own block has set, in milliseconds.
    """

    event: str = "message"
    data: str = ""
    id: str = ""
    retry: int | None = None


class Block(NamedTuple):
    """The fields of one block, undecoded.

    Attributes:
        event: the last ``event`` field; empty when there is none.
        data: the ``data`` fields, joined with LF; ``None`` when there is none, and then the block is no event.
        id: the last valid ``id`` field; ``None`` when there is none. An empty one resets the last event id.
        retry: the last valid ``retry`` field, in milliseconds.
    """

    event: bytes
    data: bytes | None
    id: bytes | None
    retry: int | None


class EventSplitter:
    """Cuts the bytes of one connection into blocks, each with the blank line that ends it.

    At any moment the blocks handed out, joined, and `pending` are what was fed. A block may consist of line ends
    alone, and a byte order mark stays where it is.

    A CR that ends a chunk may be half of a CRLF. The block is handed out without waiting for the LF, which then
    begins the next block; `parse` passes over it.

    Args:
        max_event: how long a block may be, in bytes.
    """

    __slots__ = ("_max_event", "_pending")

    def __init__(self, *, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._pending = bytearray()

    @property
    def pending(self) -> bytes:
        """A copy of the block that has not ended yet."""
        return bytes(self._pending)

    @property
    def size(self) -> int:
        """The length of `pending`, without copying it."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the connection, and return the blocks that end in them.

        Raises:
            EventTooLargeError: a block is too long. Nothing of *data* was taken, not even the blocks before it.
        """
        pending = self._pending
        held = len(pending)
        pending += data
        # What was held has been searched, but its last byte may end the line before the blank one.
        ends = _block_ends(pending, max(held - 1, 0))
        if len(pending) > self._max_event:
            for start, end in pairwise((0, *ends, len(pending))):
                if end - start > self._max_event:
                    del pending[held:]
                    raise EventTooLargeError(f"an event is longer than {self._max_event} bytes")
        if not ends:
            return []
        text = bytes(pending) if held else data
        blocks, start = [], 0
        for end in ends:
            blocks.append(text[start:end])
            start = end
        del pending[:start]
        return blocks


def _block_ends(text: bytearray, scan: int) -> list[int]:
    """Find where blocks end in *text*; no blank line begins before *scan*."""
    if text.find(b"\r", scan) >= 0:
        return [match.end() for match in _BLANK_LINE.finditer(text, scan)]
    # Nearly every stream has LF alone, and finding that takes a third of the time.
    ends = []
    while (scan := text.find(b"\n\n", scan) + 2) > 1:
        ends.append(scan)
    return ends


def parse(block: bytes) -> Block:
    """Read the fields of one block.

    Any bytes have a meaning: there is no error. The first block of a connection may begin with a byte order mark,
    which the caller takes off (``block.removeprefix(BOM)``); here it would be part of the first field's name.

    Args:
        block: what `EventSplitter` hands out; line ends in front of the first field are passed over.
    """
    # Nearly every block is one data line, with or without an event line before it. The one byte after its LF is the
    # blank line's: no field is so short.
    start = block.find(b"\n") + 1 if block.startswith(b"event: ") else 0
    if (
        block.startswith(b"data: ", start)
        and block.find(b"\n", start) == len(block) - 2
        and b"\r" not in block
    ):
        return Block(block[7 : start - 1] if start else b"", block[start + 6 : -2], None, None)
    return _parse_lines(block)


def _parse_lines(block: bytes) -> Block:
    event = b""
    data = bytearray()  # a list of lines, were they very short, would take many times the block
    last_id = retry = None
    for match in _LINE.finditer(block):
        name, _, value = match[0].partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data += value
            data += b"\n"
        elif name == b"event":
            event = value
        elif name == b"id":
            if b"\0" not in value:
                last_id = value
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            retry = int(value)
    return Block(event, bytes(data[:-1]) if data else None, last_id, retry)


_new = cast(
    "Callable[[type[ServerSentEvent], tuple[str, str, str, int | None]], ServerSentEvent]", tuple.__new__
)
"""Makes an event without the call of ``ServerSentEvent.__new__`` in between, which costs more than the event."""


_SHORT = 1024
"""Bytes of an unfinished event that are held as they are and joined with what comes. However a stream is cut, no more
than this is copied and searched again with each piece; a longer beginning grows, and is searched once."""


class SSEDecoder:
    """Decodes the events of a stream, over as many connections as it takes.

    Args:
        max_event: how long an event may be, in bytes with its line ends.
        last_event_id: the id to begin with, from an earlier stream.

    Attributes:
        last_event_id: what to send as ``Last-Event-ID`` (UTF-8) to go on after the last event; send none when it
            is empty. A blank line commits it, also that of a block without data.
        retry: the reconnection time the stream has set, in milliseconds; ``None`` while it has not.
    """

    __slots__ = ("_at_start", "_held", "_max_event", "_splitter", "last_event_id", "retry")

    def __init__(self, *, max_event: int = MAX_EVENT, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._max_event = max_event
        self._held: bytes | bytearray | None = (
            b""  # the beginning of an event; None while the splitter has it
        )
        self._at_start = True
        self._connect()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes of the connection, and return the events that end in them.

        Raises:
            EventTooLargeError: an event is too long. Nothing of *data* was taken, not even the events before it.
        """
        held = self._held
        if type(held) is not bytes or _CR in data or len(held) + len(data) > self._max_event:
            return self._feed_more(data)
        line_ends = _LF in data
        if held:
            data = held + data
        if not line_ends or (end := data.rfind(b"\n\n")) < 0:
            self._held = data if len(data) <= _SHORT else bytearray(data)
            return []
        try:
            text = str(data[:end] if end <= _SHORT else memoryview(data)[:end], "utf-8")
        except UnicodeDecodeError:
            return self._feed_splitter(data[len(held) :])
        self._hold(data[end + 2 :])
        return self._events(text)

    def _hold(self, rest: bytes) -> None:
        """Keep the beginning of an event."""
        self._held = rest if len(rest) <= _SHORT else bytearray(rest)

    def _feed_more(self, data: bytes) -> list[ServerSentEvent]:
        """See `feed`; for events that are long, or have lines that end otherwise."""
        held = self._held
        if type(held) is not bytearray or _CR in data or len(held) + len(data) > self._max_event:
            return self._feed_splitter(data)
        ended = _LF in data and (
            data.rfind(b"\n\n") >= 0 or (data.startswith(b"\n") and held.endswith(b"\n"))
        )
        before = len(held)
        held += data
        if not ended:
            return []
        end = held.rfind(b"\n\n")
        alone = held.startswith(b"data: ") and held.find(b"\n") == end  # one data line: spare a copy of it
        try:
            text = str(memoryview(held)[6 if alone else 0 : end], "utf-8")
        except UnicodeDecodeError:
            del held[before:]
            return self._feed_splitter(data)
        self._hold(bytes(held[end + 2 :]))
        if alone:
            self._at_start = False
            return [_new(ServerSentEvent, ("message", text, self.last_event_id, None))]
        return self._events(text)

    def _feed_splitter(self, data: bytes) -> list[ServerSentEvent]:
        """See `feed`; for what is not said by LF and UTF-8 alone, and what may be too long."""
        splitter = self._splitter
        if self._held:
            splitter.feed(bytes(self._held))
        self._held = None
        blocks = splitter.feed(data)
        if not splitter.size:
            self._held = b""
        return self._decode(blocks)

    def _events(self, text: str) -> list[ServerSentEvent]:
        """The events of whole blocks without the last blank line, where LF alone ends lines."""
        if self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        if text.startswith("data: "):
            if "\n" not in text:
                return [_new(ServerSentEvent, ("message", text[6:], self.last_event_id, None))]
            parts = text.split("\n\ndata: ")
            if "\n" not in "".join(parts):  # one data line each, as most streams are from end to end
                parts[0] = parts[0][6:]
                fields = zip(repeat("message"), parts, repeat(self.last_event_id), repeat(None))
                return list(map(_new, repeat(ServerSentEvent), fields))
        return self._read(text)

    def _read(self, text: str) -> list[ServerSentEvent]:
        """The same, one by one."""
        events: list[ServerSentEvent] = []
        for part in text.split("\n\n"):
            name, data_at = "message", 6
            if part.startswith("event: "):
                data_at = part.find("\n") + 7
                name = part[7 : data_at - 7]
            if part.startswith("data: ", data_at - 6) and name and part.find("\n", data_at) < 0:
                events.append(_new(ServerSentEvent, (name, part[data_at:], self.last_event_id, None)))
            else:
                events += self._decode([part.encode() + b"\n\n"])
        return events

    def _decode(self, blocks: list[bytes]) -> list[ServerSentEvent]:
        events = []
        for raw in blocks:
            block = self._parse(raw)
            if block.id is not None:
                self.last_event_id = _text(block.id)
            if block.data is not None:
                event = _text(block.event) or "message"
                events.append(ServerSentEvent(event, _text(block.data), self.last_event_id, block.retry))
        return events

    def finish(self) -> list[ServerSentEvent]:
        """End the connection, and be ready for the next one.

        Returns:
            Nothing, ever: an event that has not ended is thrown away, and its id with it. (A ``retry`` counts from
            its own line on, so one of the unfinished event is kept.)
        """
        rest = bytes(self._held or b"") or self._splitter.pending
        self._parse(rest[: max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1])
        self._connect()
        return []

    def _connect(self) -> None:
        self._splitter = EventSplitter(max_event=self._max_event)
        self._held = b""
        self._at_start = True

    def _parse(self, raw: bytes) -> Block:
        if self._at_start:
            self._at_start = False
            raw = raw.removeprefix(BOM)
        block = parse(raw)
        if block.retry is not None:
            self.retry = block.retry
        return block


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
