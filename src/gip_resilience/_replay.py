"""Whether a second answer goes on where the first one broke off, and what of it is new. Pure.

A stream broke with output delivered, and the same request was sent again. The two answers are never the same event
by event: the text is cut elsewhere, ids and padding differ. So they are compared by *channel*, each the text that a
client puts together from many events (the content, a refusal, the arguments of the second tool call)::

    delivered:   content  "The answ"
    again:       content  "The" " answer" " is"
    handed up:                      "er"  " is"

While the new answer repeats what was delivered it is swallowed. The event that straddles the end is cut to its new
part, and what follows is handed up under the ids of the first answer. Where the two differ, or where one channel goes
on while another has not got so far, nothing can be handed up any more: `Diverged`, before a character of it leaks.

Beside texts there are *marks*, which are delivered once and whole: a tool's name, the opening of a block, the finish
reason. A mark that was delivered must come again, the same, and is not handed up twice.

JSON strings are compared as UTF-16, the units they are written in: one event may end with half a surrogate pair and
the next one begin with the other half.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from gip_resilience._replay_readers import READERS, UNKNOWN, read_nothing
from gip_resilience.sse import BOM, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FINISH = "the finish reason"


class Diverged(Exception):  # noqa: N818 - it says what became of an answer; callers never see it
    """The new answer is another one. The message tells where, and quotes nothing.

    Attributes:
        at: how many characters agreed, of the channel.
        channel: which part of the answer differs, or was left out.
    """

    def __init__(self, at: int, channel: str) -> None:
        super().__init__(at, channel)
        self.at = at
        self.channel = channel

    def __str__(self) -> str:
        return f"the new answer differs after {self.at} characters of {self.channel}"


class Replay:
    """Compares the answer to a repeated request with what the first one has delivered.

    Takes memory and time linear in the two answers. Not thread-safe: it belongs to one stream.

    Args:
        grammar: the protocol: ``chat``, ``completions``, ``anthropic`` or ``gemini``. Of ``responses`` only the
            `text` is read; of any other, nothing.
        delivered: the blocks the caller has got, in order. Some may have come out of an earlier replay.
    """

    __slots__ = ("_past", "_read")

    def __init__(self, grammar: str, delivered: Sequence[bytes]) -> None:
        self._past = past = Past()
        self._read = read = READERS.get(grammar, read_nothing)
        for number, raw in enumerate(delivered):
            block = parse(raw if number else raw.removeprefix(BOM))
            if block.data is None:
                continue
            event = _decode(block.data)
            if event is None:
                past.hinder(UNKNOWN)
            else:
                read(past, event, block.event)
        if grammar not in {"chat", "completions", "anthropic", "gemini"}:
            past.hinder("answers of this protocol cannot be compared")
        past.replaying = True

    @property
    def obstacle(self) -> str:
        """Why this answer cannot be replayed; empty when it can."""
        return self._past.obstacle

    @property
    def text(self) -> str:
        """What a person would have read so far, also of an answer that cannot be replayed."""
        return self._past.prose()

    @property
    def caught_up(self) -> bool:
        """Whether everything delivered has been seen again."""
        return not self._past.behind

    def feed(self, raw: bytes) -> bytes:
        """Take one whole block of the new answer; return what to hand up in its place, nothing while it is old.

        Raises:
            Diverged: this is another answer. Nothing more can be fed.
            ValueError: there is an `obstacle`.
        """
        past = self._past
        if past.obstacle:
            raise ValueError(f"cannot be replayed: {past.obstacle}")
        block = parse(raw)
        event = None if block.data is None else _decode(block.data)
        if event is None:  # a comment, or the marker
            if block.data is not None and block.data.startswith(b"[DONE]"):
                self.finish()
            return b"" if past.behind else raw
        past.news, past.ends = "", False
        left = self._read(past, event, block.event)
        past.settle()
        return _encode(block.event, event) if left and not past.behind else b""

    def finish(self) -> None:
        """Take note that the new answer has ended.

        Raises:
            Diverged: it has ended before it said all that was delivered.
        """
        if self._past.behind:
            raise self._past.divergence()


class Past:
    """What was delivered, and how much of it the new answer has said again.

    First it records, then (`replaying`) it compares. The same readers walk over the events of both answers, and
    replace what they find by what this says is new of it.

    Attributes:
        replaying: whether it compares.
        obstacle: why the answer cannot be replayed.
        opened: whether the caller has been told what begins an answer: a role, or a ``message_start``.
        behind: the channels and marks that have not been seen again, in the order of their delivery.
        news: the last channel or mark of the present event that goes beyond what was delivered.
        ends: whether the present event ends the answer.
    """

    __slots__ = (
        "_at",
        "_ended",
        "_ids",
        "_marks",
        "_metered",
        "_texts",
        "behind",
        "ends",
        "news",
        "obstacle",
        "opened",
        "replaying",
    )

    def __init__(self) -> None:
        self.replaying = False
        self.obstacle = ""
        self.opened = False
        self.behind: dict[str, None] = {}
        self.news = ""
        self.ends = False
        self._texts: dict[str, bytearray] = {}
        self._at: dict[str, int] = {}
        self._marks: dict[str, str] = {}
        self._ids: dict[str, Any] = {}
        self._metered: set[bool] = set()
        self._ended = False

    def hinder(self, obstacle: str) -> None:
        """Record what cannot be replayed."""
        if not self.replaying and not self.obstacle:
            self.obstacle = obstacle

    def unknown(self, obstacle: str = UNKNOWN) -> None:
        """Take output that cannot be compared."""
        self.hinder(obstacle)
        self.news = UNKNOWN

    def text(self, channel: str, piece: str) -> str:
        """Take a piece of text; return what of it is new."""
        if not piece:
            return ""
        units = piece.encode("utf-16-le", "surrogatepass")
        if not self.replaying:
            self.behind[channel] = None
            self._texts.setdefault(channel, bytearray()).extend(units)
            return piece
        if channel not in self.behind:
            self.news = channel
            return piece
        whole, at = self._texts[channel], self._at.get(channel, 0)
        old = units[: len(whole) - at]
        if not whole.startswith(old, at):
            pairs = enumerate(zip(_string(whole), _string(whole[:at] + units), strict=False))
            raise Diverged(next(number for number, (one, other) in pairs if one != other), channel)
        self._at[channel] = at + len(old)
        if self._at[channel] == len(whole):
            del self.behind[channel]
        if len(old) < len(units):
            self.news = channel
        return _string(units[len(old) :])

    def mark(self, name: str, value: str = "") -> bool:
        """Take a mark; return whether the caller has it."""
        if not self.replaying:
            self.behind[name] = None
            if self._marks.setdefault(name, value) != value:
                self.hinder(UNKNOWN)  # it came in pieces
            return True
        if name not in self._marks:
            self.news = name
            return False
        if self._marks[name] != value:
            raise Diverged(0, name)
        self.behind.pop(name, None)
        return True

    def end(self, reason: str) -> bool:
        """Take a finish reason; return whether the caller has one."""
        if self._ended:
            return True  # this answer has told it, and tells it again
        self.ends = True
        had = self.mark(_FINISH, reason)
        self._ended = not had
        return had

    def meter(self, *, alone: bool) -> bool:
        """Take a usage; return whether the caller has one of its kind.

        Some servers tell one beside every piece of the answer, and another one *alone* when all is said.
        """
        if not self.replaying:
            self._metered.add(alone)
        return alone in self._metered

    def identify(self, event: dict[str, Any], keys: Iterable[str]) -> None:
        """Learn the ids of the first answer, and put them into the events of the second one."""
        if self.replaying:
            event.update(self._ids)
            return
        for key in keys:
            # Azure's first event has them all, and all are empty.
            if key not in self._ids and event.get(key):
                self._ids[key] = event[key]

    def settle(self) -> None:
        """Raise `Diverged` if the event just read goes on, or ends, where it must not."""
        if (self.behind and (self.news or self.ends)) or (self.news and _FINISH in self._marks):
            raise self.divergence()

    def divergence(self) -> Diverged:
        """Where the new answer left the first one, when all it has said is the same."""
        for channel in self.behind:
            if channel in self._texts:
                return Diverged(len(_string(self._texts[channel][: self._at.get(channel, 0)])), channel)
        if self.news in self._texts:
            return Diverged(len(_string(self._texts[self.news])), self.news)
        return Diverged(0, next(iter(self.behind), self.news))

    def prose(self) -> str:
        """The channels that are meant to be read, joined."""
        found = [text for channel, text in self._texts.items() if channel.startswith(("content", "text"))]
        return b"".join(found).decode("utf-16-le", "replace")


def _string(units: bytes | bytearray) -> str:
    return units.decode("utf-16-le", "surrogatepass")


def _decode(data: bytes) -> dict[str, Any] | None:
    """The object in *data*; ``None`` when it holds none."""
    try:
        # Not msgspec: it refuses half a surrogate pair.
        found = json.loads(data.decode(), parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("it could not be written again")
    return number


def _encode(name: bytes, event: dict[str, Any]) -> bytes:
    # In ASCII: half a surrogate pair has no UTF-8, and some parsers take U+2028 for the end of a line.
    data = json.dumps(event, separators=(",", ":")).encode()
    return b"event: %b\ndata: %b\n\n" % (name, data) if name else b"data: %b\n\n" % data
