"""What the gateway answers: every kind of reply it has, by chance and by the model that is asked for.

``fair`` models are mostly well; ``wild`` ones meet everything; ``dead`` is unavailable, ``limited`` rate-limited and
``slow`` late, or silent. Any other model is well.
"""

from __future__ import annotations

from gip_resilience.gateway import (
    BreakStream,
    Close,
    EmptyReply,
    Error,
    FaultPlan,
    Garbage,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Huge,
    Ok,
    RateLimited,
    Raw,
    Redirect,
    Reply,
    Reset,
    Rule,
    Slow,
    SlowBody,
    Stall,
    Status,
    WrongType,
)

OVERLOADED = Error("model_overloaded")

ERRORS: tuple[Reply, ...] = (
    OVERLOADED,
    Error("model_overloaded", retry_after=0.05),
    Error("model_server_error"),
    Error("model_timeout"),
    Error("internal_error"),
    Error("invalid_request"),
    Error("a_code_of_the_future", status=500),
    Error("insufficient_quota", status=429),
    Error("model_unavailable", retry_after=0.2),
    RateLimited(0.05),
    RateLimited(30),
    Status(500),
    Status(502, "html"),
    Status(503, "empty", retry_after=0.05),
    Status(504, b"not JSON"),
    Status(404, "html"),
    Html(502),
    Redirect("/v1/models", 307),
    Redirect("/v1/models", 303),
    Huge(100_000, status=503),
    Huge(100_000, status=500, chunked=True),
)

BROKEN: tuple[Reply, ...] = (
    Reset("request"),
    Reset("headers"),
    Reset("body"),
    Close("request"),
    Close("headers"),
    Close("body"),
    EmptyReply(),
    Garbage(),
    Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\nhalf"),
    HalfHeaders("fin"),
    HalfHeaders("rst"),
    HalfBody("fin"),
    HalfBody("rst"),
    HalfBody("eof"),
    HalfBody("short_length"),
    HalfBody("truncated_gzip"),
    HalfBody("bad_chunk"),
    HalfBody("rst", then=OVERLOADED),
)

ODD: tuple[Reply, ...] = (
    Gzip(),
    Gzip(OVERLOADED),
    WrongType(),
    WrongType("text/plain", then=OVERLOADED),
    Slow(0.03),
    SlowBody(200, 0.005),
    SlowBody(0, 0.002, then=HalfBody("fin")),
    Ok({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "50ms"}),
    Huge(1_500_000, content_type="application/json"),
)

STREAMS: tuple[Reply, ...] = (
    *(
        BreakStream(how=how, events=events)
        for how in ("eof", "fin", "rst", "error", "garbled")
        for events in (0, 1, 5)
    ),
    *(BreakStream(how="eof", byte=place) for place in (40, 333, 1200)),
    *(BreakStream(how="rst", events=2, framing=framing) for framing in ("close", "length")),
    *(BreakStream(how="eof", events=3, char=True, gzip=gzip) for gzip in (False, True)),
    *(
        BreakStream(how="error", events=2, shape=shape)
        for shape in (
            "flat",
            "list",
            "event",
            "event_text",
            "choices",
            "openrouter",
            "bare",
            "anthropic",
            "failed",
        )
    ),
    BreakStream(how="error", events=1, code="model_overloaded"),
    BreakStream(how="error", events=4, done=True),
    BreakStream(how="eof", events=10_000),
    BreakStream(how="rst", events=10_000),
    BreakStream(how="stall", events=10_000),
    BreakStream(events=10_000, late=0.02),
    BreakStream(events=10_000, chunk=7),
)

SILENT: tuple[Reply, ...] = (
    Stall(),
    HalfHeaders("stall"),
    HalfBody("stall"),
    Raw(b"HTTP/1.1 200 OK\r\n", end="stall"),
    BreakStream(how="stall", events=1),
    BreakStream(how="stall", events=4),
)

LATE: tuple[Reply, ...] = (
    Slow(0.1),
    Slow(0.4),
    Slow(1.2),
    SlowBody(20, 0.02),
    SlowBody(1, 0.05),
    SlowBody(0, 0.1),
    HalfHeaders("stall"),
    HalfBody("stall"),
    Stall(),
    BreakStream(how="stall", events=3),
    BreakStream(events=10_000, trickle=0.05),
    Slow(0.1, then=OVERLOADED),
)


def each(replies: tuple[Reply, ...], model: str, share: float) -> tuple[Rule, ...]:
    """Rules that give *share* of the requests for a model one of *replies*, each as often as the others."""
    alike = share / len(replies)
    return tuple(
        Rule(reply, model=model, p=alike / (1.0 - alike * place)) for place, reply in enumerate(replies)
    )


STORM = FaultPlan(
    (
        Rule(Error("model_unavailable", retry_after=0.2), model="dead", p=0.7),
        *each(
            (RateLimited(0.05), RateLimited(0.15), Error("rate_limit_exceeded", status=429)), "limited", 0.3
        ),
        *each(LATE, "slow", 0.9),
        *each(ERRORS + BROKEN + ODD + STREAMS, "wild-*", 0.3),
        *each(SILENT, "wild-*", 0.01),
        *each(
            (OVERLOADED, Error("model_server_error"), BreakStream(events=1), BreakStream(events=4)),
            "fair-*",
            0.08,
        ),
    )
)
"""What is played by the gateway that most calls go to."""

DOOR = FaultPlan(
    (*(Rule(reply, p=0.2) for reply in (Reset("accept"), Close("accept"))), Rule(OVERLOADED, p=0.05))
)
"""What is played by another one, which turns connections away before it has read anything of them."""
