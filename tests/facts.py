"""Facts for tests that need no wire: what an attempt taught, made the way an adapter makes it."""

from __future__ import annotations

import json
from dataclasses import replace

from gip_resilience.hints import Hint
from gip_resilience.taxonomy import Fact, classify, transport_fact

HOST = "gateway.example"
MODEL = "azure/openai/gpt-5-mini"

OK = classify(200)


def error(code: str, status: int = 503, *, hint: float | None = None) -> Fact:
    """The fact of an error answer of the gateway's, with a wait the server asked for."""
    fact = classify(status, {}, json.dumps({"error": {"type": "error", "code": code, "message": "-"}}))
    return replace(fact, hint=None if hint is None else Hint(hint, "retry-after"))


def limited(hint: float | None = None) -> Fact:
    """The fact of a 429."""
    return error("rate_limit_exceeded", 429, hint=hint)


FAILED = error("model_server_error", 500)
OVERLOADED = error("model_overloaded")
UNAVAILABLE = error("model_unavailable")
INVALID = error("invalid_request", 400)
LOST = transport_fact("connection_lost")
UNREACHABLE = transport_fact("connect_error")
STALLED = transport_fact("read_timeout")
SPARED = transport_fact("refused_stream")
