"""Exceptions, and how they relate.

::

    ResilienceError                 whatever we raise ourselves
    ├── CircuitOpenError            nothing was sent: the circuit of the host or the model is open
    ├── RateLimitedError            nothing was sent: the rate limit resets later than this call may wait
    └── DeadlineExceededError       the call's own deadline has passed

Each adapter raises its library's kin of them, so that ``except httpx.TransportError`` or
``except requests.exceptions.ConnectionError`` keeps working, and ``except CircuitOpenError`` from this module
catches those of every adapter. We raise these only when there is nothing else to hand up: a call that ran out
of attempts returns the server's last answer, or raises the last error, untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gip_resilience._report import CallReport


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
