"""The streams of the simulated gateway: chat completions, word by word, that may break anywhere. Real bytes.

They come in a few pieces of equal size, which is all that a reader's clock can tell of forty events, and are cut for
a break at any byte: before the first word, within an event, behind the finish reason.
"""

from __future__ import annotations

import re
from functools import cache
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

    from gip_resilience.simulation.troubles import Streams

PIECES = 8
"""Reads that a whole stream takes."""

KINDS = 7
"""Different answers there are; two that are not meant to be the same are so by chance, as rarely as in life."""

DONE = b"data: [DONE]\n\n"

_SAID = re.compile(rb'"content":"([^"]*)"')
_FINISHED = b'"finish_reason":"stop"'


class Spoken(NamedTuple):
    """One stream as it goes over the wire.

    Attributes:
        began: second of its first byte.
        over: second at which the gateway is done with it.
        body: its bytes, up to where they end.
        length: seconds the whole of it takes.
        size: bytes of the whole of it.
        how: how it breaks; empty when it does not.
    """

    began: float
    over: float
    body: bytes
    length: float
    size: int
    how: str = ""

    def piece(self, place: int) -> tuple[float, bytes | None]:
        """When the piece at *place* arrives, and its bytes; ``None`` where no more come."""
        step = -(-self.size // PIECES)
        first = place * step
        if first >= len(self.body):
            return (inf if self.how == "stall" else self.over), None
        last = min(first + step, len(self.body))
        return self.began + self.length * min(1.0, last / self.size), self.body[first:last]

    @staticmethod
    def whole(told: bytes, streams: Streams) -> bool:
        """Whether what was handed up is one whole answer: every word of it once, in order, and its end."""
        return _FINISHED in told and b"".join(_SAID.findall(told)) in _texts(streams.words)


def speak(
    streams: Streams,
    chance: random.Random,
    *,
    began: float,
    length: float,
    attempt: int,
    repeatable: bool,
    breaks: bool,
) -> Spoken:
    """The answer to one attempt.

    Args:
        streams: what they are like.
        chance: the gateway's.
        began: second of the first byte.
        length: seconds the whole of it takes.
        attempt: which one of its call it is; a second run has another id.
        repeatable: whether it shall be the same answer every time.
        breaks: whether it breaks.
    """
    kind = 0
    if not repeatable or chance.random() < streams.divergent:
        kind = 1 + int(chance.random() * (KINDS - 1))
    body = stream(streams.words, kind, attempt)
    size = len(body)
    if not breaks:
        return Spoken(began, began + length, body, length, size)
    how = streams.breaks[int(chance.random() * len(streams.breaks))]
    cut = int(chance.random() * size)
    if how == "error":
        # The gateway says so between two events, as it must.
        cut = body.rfind(b"\n\n", 0, cut) + 2 if b"\n\n" in body[:cut] else 0
        error = b'data: {"error":{"type":"error","code":"%s","message":"-"}}\n\n' % streams.error.encode()
        return Spoken(began, began + length * cut / size, body[:cut] + error, length, size, how)
    over = began + length * (1.0 if how == "stall" else cut / size)
    return Spoken(began, over, body[:cut], length, size, how)


@cache
def stream(words: int, kind: int, attempt: int) -> bytes:
    """A whole stream of chat completions: a role, *words* words, the reason of its end, and the marker."""
    head = (
        f'data: {{"id":"chatcmpl-{kind}-{attempt}","object":"chat.completion.chunk","choices":[{{"index":0,'
    )
    deltas = [
        '"delta":{"role":"assistant"}',
        *(f'"delta":{{"content":"{word}"}}' for word in _words(words, kind)),
    ]
    events = [f'{head}{delta},"finish_reason":null}}]}}\n\n' for delta in deltas]
    events.append(f'{head}"delta":{{}},"finish_reason":"stop"}}]}}\n\n')
    return "".join(events).encode() + DONE


def _words(words: int, kind: int) -> list[str]:
    return [f"w{kind if number else 'k'}{number} " for number in range(words)]


@cache
def _texts(words: int) -> frozenset[bytes]:
    return frozenset("".join(_words(words, kind)).encode() for kind in range(KINDS))
