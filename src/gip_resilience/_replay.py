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

from gip_resilience._replay_past import UNKNOWN, Past
from gip_resilience._replay_readers import READERS, read_nothing
from gip_resilience.sse import BOM, parse

if TYPE_CHECKING:
    from collections.abc import Sequence


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
