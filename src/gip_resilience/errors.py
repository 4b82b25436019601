"""Exceptions, and how they relate.

::

    ResilienceError                 whatever we raise ourselves
    ├── CircuitOpenError            nothing was sent: the circuit of the host or the model is open
    ├── RateLimitedError            nothing was sent: the rate limit resets later than this call may wait
    ├── DeadlineExceededError       the call's own deadline has passed
    └── StreamInterruptedError      an event stream broke after its 200, and could not be mended
        └── StreamDivergedError     ... because the answer to the replay was another one

Each adapter raises its library's kin of them, so that ``except httpx.TransportError`` or
``except requests.exceptions.ConnectionError`` keeps working, and ``except CircuitOpenError`` from this module
catches those of every adapter. We raise these only when there is nothing else to hand up: a call that ran out
of attempts returns the server's last answer, or raises the last error, untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gip_resilience._report import CallReport

__all__ = [
    "CircuitOpenError",
    "DeadlineExceededError",
    "RateLimitedError",
    "ResilienceError",
    "StreamDivergedError",
    "StreamInterruptedError",
]


class ResilienceError(Exception):
    """Base of everything this library raises of its own accord during a call.

    Attributes:
        report: what the call did.
        retry_after: seconds after which it makes sense to try again; ``None`` when nobody knows.
    """

    report: CallReport | None = None
    retry_after: float | None = None


class CircuitOpenError(ResilienceError):
    """Refused at once: the circuit of the host, or of the model, is open."""


class RateLimitedError(ResilienceError):
    """Refused at once: waiting for the rate limit to reset would take longer than this call may wait."""


class DeadlineExceededError(ResilienceError):
    """The deadline of the whole call has passed, or would pass before another attempt."""


class StreamInterruptedError(ResilienceError):
    """An event stream ended before its answer did, and could not be mended.

    Everything handed up before it is whole events of one answer, in order; nothing of it is repeated or made up.
    The message never quotes it.

    Attributes:
        code: how it broke: ``stream_terminated``, ``stream_reset``, ``stream_stalled``, ``stream_garbled``,
            ``not_a_stream``, ``stream_gap``, or the code of an error within the stream.
        phase: how far it was: ``none`` (no output yet), ``output``, ``tail`` (every choice was finished).
        delivered: the text of the answer that was handed up, as a person would have read it; ``None`` when it was
            too long to be remembered (``stream.max_delivered``).
        events: how many events were handed up.
        attempts: how many requests were sent.
    """

    code: str = ""
    phase: str = ""
    delivered: str | None = ""
    events: int = 0
    attempts: int = 0


class StreamDivergedError(StreamInterruptedError):
    """A broken stream was replayed, and the new answer was not the one that had been handed up in part.

    Attributes:
        at: how many characters agreed, within the part of the answer (content, a tool's arguments) that differs.
    """

    at: int = 0
