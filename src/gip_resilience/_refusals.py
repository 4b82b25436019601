"""Answers of our own, in the gateway's error shape, for callers who take a response better than an exception.

Under an SDK that retries, a response with ``x-should-retry: false`` is the only refusal that costs nothing:
an exception of the transport is retried there, with sleeps in between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gip_resilience.effects import Refuse

MARK = "x-gip-resilience"
"""Header on every answer we made ourselves, so that nobody takes it for the server's."""

_ERRORS = {
    "circuit_open": (503, "model_error", "model_unavailable", "circuit breaker is open for"),
    "rate_limited": (429, "rate_limit", "rate_limit_exceeded", "rate limit has not reset yet for"),
}


def refusal_message(refusal: Refuse) -> str:
    """One line for people: what was refused, for whom, and when it makes sense to try again."""
    target = f"{refusal.host} {refusal.model}".rstrip()
    if refusal.kind == "deadline":
        return f"the deadline of the call has passed: {target}"
    text = f"{_ERRORS[refusal.kind][3]} {target}"
    return text if refusal.retry_after is None else f"{text}; try again in {refusal.retry_after:.3f} s"


def refusal_answer(refusal: Refuse) -> tuple[int, list[tuple[str, str]], bytes]:
    """(status, headers, body) of the answer for a refusal."""
    status, kind, code, _ = _ERRORS[refusal.kind]
    error = {"type": kind, "code": code, "message": refusal_message(refusal)}
    body = msgspec.json.encode({"error": error})
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("x-should-retry", "false"),
        (MARK, refusal.kind.replace("_", "-")),
    ]
    if refusal.retry_after is not None:
        headers.append(("retry-after", str(math.ceil(refusal.retry_after))))
    return status, headers, body
