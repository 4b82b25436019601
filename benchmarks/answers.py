"""Answers to classify, ways in which servers say "wait", and bodies that name a model. Made up, in real shapes."""

from __future__ import annotations

import json
from typing import Final, TypeAlias

from benchmarks.clients import MODEL

Answer: TypeAlias = tuple[int, dict[str, str], bytes]

_JSON: Final = {"content-type": "application/json"}


def _error(code: str, type_: str = "error", message: str = "-") -> bytes:
    return json.dumps({"error": {"type": type_, "code": code, "message": message}}).encode()


LIMITED: Final[Answer] = (
    429,
    _JSON
    | {
        "retry-after": "30",
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "30s",
    },
    _error("rate_limit_exceeded", "rate_limit_error", "Rate limit reached"),
)
UNAVAILABLE: Final[Answer] = (503, _JSON, _error("model_unavailable"))

ANSWERS: Final[dict[str, Answer]] = {
    "429 with a hint": LIMITED,
    "503 model_unavailable": UNAVAILABLE,
    "500 of nobody's dialect": (500, _JSON, _error("something_else", "server_error")),
    "502 web page": (
        502,
        {"content-type": "text/html"},
        b"<html><body>Bad Gateway</body></html>" + b" " * 400,
    ),
    "400 of 4 kB": (400, _JSON, _error("invalid_request", "invalid_request_error", "x" * 4000)),
}

HINTS: Final[dict[str, Answer]] = {
    "Retry-After": (429, {"retry-after": "30"}, b""),
    "quota headers": (
        429,
        {
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-limit-tokens": "200000",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        b"",
    ),
    "RetryInfo in the body": (
        429,
        {},
        json.dumps(
            {
                "error": {
                    "code": 429,
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}],
                }
            }
        ).encode(),
    ),
    "prose": (429, {}, _error("rate_limit_exceeded", message="Limit reached. Please try again in 6m6s.")),
}


def request_body(size: int, *, first: bool) -> bytes:
    """A request of about *size* bytes that names its model at once, or at the very end."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "A question. " * (size // 12)}]}]
    named, rest = {"model": MODEL}, {"messages": messages, "stream": True}
    return json.dumps(named | rest if first else rest | named).encode()
