"""What an attempt can teach us: the words of the domain.

Every attempt ends in one `Fact`. A fact keeps three things apart that are often mixed up:

* **retry**: may the same request be sent again, and after what;
* **verdict**: what the answer says about the health of the *host* and of the *model* behind it;
* **hint**: how long the server asked us to wait.

They are separate because they do differ: ``internal_error`` is never retried, yet it is evidence against
the host; ``rate_limit_exceeded`` is retried, yet says nothing bad about anybody's health.

This module is pure: no clock, no chance, nothing that waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience.hints import Hint


class Category(StrEnum):
    """What kind of thing happened."""

    SUCCESS = "success"
    AUTH = "auth"
    PERMISSION = "permission"
    RATE_LIMIT = "rate_limit"
    BILLING = "billing"
    INVALID = "invalid"
    NOT_FOUND = "not_found"
    CONTENT = "content"
    SAFETY = "safety"
    CONFIG = "config"
    GATEWAY = "gateway"
    SERVER = "server"
    OVERLOAD = "overload"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    STREAM = "stream"
    INTERMEDIARY = "intermediary"
    PROTOCOL = "protocol"
    CANCELLED = "cancelled"
    CONNECT = "connect"
    POOL = "pool"
    UNKNOWN_4XX = "unknown_4xx"
    UNKNOWN_5XX = "unknown_5xx"


class Retry(StrEnum):
    """Whether, and after what, the same request may be sent again."""

    NEVER = "never"
    BACKOFF = "backoff"
    AFTER_RESET = "after_reset"
    STREAM = "stream"
    LIMITED = "limited"
    """Like `BACKOFF`, but once: the request may have been executed, or nobody knows."""
    IF_HINT = "if_hint"
    """Only when the server said how long to wait."""


class Scope(StrEnum):
    """What the failure is evidence about."""

    REQUEST = "request"
    CREDENTIAL = "credential"
    ACCOUNT = "account"
    MODEL = "model"
    HOST = "host"


class Verdict(StrEnum):
    """What a circuit breaker learns from one answer."""

    SUCCESS = "success"
    FAILURE = "failure"
    TRIP = "trip"
    NEUTRAL = "neutral"


class Sent(StrEnum):
    """How far the request got."""

    NEVER = "never"
    """Provably not processed: resending cannot execute it twice."""
    MAYBE = "maybe"
    """It went out and no answer came back: it may have been executed."""
    ANSWERED = "answered"


_SUCCESS = Category.SUCCESS
"""At hand for what is asked of every answer: a member of an enumeration is looked up by its name each time."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What one attempt taught us; the only thing the engine ever sees of an answer.

    Attributes:
        code: the error code (``model_overloaded``), or a synthetic one where the server gave none
            (``http_502``, ``connect_error``, ``read_timeout``, ``truncated_body``); ``ok`` for a success.
        category: the kind of failure.
        retry: whether the same request may be sent again.
        scope: what the failure is evidence about.
        host: verdict for the host's circuit.
        model: verdict for the circuit of (host, model).
        policy: the policy class that applies unless the code has a policy of its own.
        status: HTTP status; ``None`` when there was no answer.
        hint: the wait the server asked for, before caps and jitter.
        dialect: name of the error taxonomy that recognised the answer.
        type: the ``type`` the server sent, if any.
        sent: how far the request got.
        should_retry: the server's own word (``x-should-retry``, a daily quota); ``None`` when it gave none.
        known: ``False`` when no table knows the code: its type or status decided.
    """

    code: str
    category: Category
    retry: Retry
    scope: Scope
    host: Verdict = Verdict.NEUTRAL
    model: Verdict = Verdict.NEUTRAL
    policy: str = "other"
    status: int | None = None
    hint: Hint | None = None
    dialect: str = "gip"
    type: str | None = None
    sent: Sent = Sent.ANSWERED
    should_retry: bool | None = None
    known: bool = True

    @property
    def ok(self) -> bool:
        """Whether the attempt succeeded."""
        return self.category is _SUCCESS

    @property
    def maybe_executed(self) -> bool:
        """Whether the request may have been executed although no whole answer came back."""
        return self.sent is Sent.MAYBE


POLICY_CLASSES = (
    "rate_limit",
    "overload",
    "server",
    "timeout",
    "unavailable",
    "stream",
    "intermediary",
    "limited",
    "connect",
    "pool",
    "other",
)
"""The policy classes: what a policy may be keyed by, besides a code."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one code means. The fields are those of `Fact`."""

    code: str
    category: Category
    retry: Retry
    scope: Scope
    host: Verdict
    model: Verdict
    policy: str


def _unsent(
    code: str, category: Category, retry: Retry, policy: str, host: Verdict = Verdict.NEUTRAL
) -> Fact:
    """Return the fact of a request that was provably not processed."""
    scope = Scope.REQUEST if category is Category.INVALID else Scope.HOST
    return Fact(code, category, retry, scope, host, Verdict.NEUTRAL, policy, sent=Sent.NEVER)


def _ambiguous(code: str, category: Category = Category.TIMEOUT) -> Fact:
    """Return the fact of a request that went out and may have been executed."""
    return Fact(
        code,
        category,
        Retry.LIMITED,
        Scope.MODEL,
        Verdict.NEUTRAL,
        Verdict.FAILURE,
        "timeout",
        sent=Sent.MAYBE,
    )


TRANSPORT: Final[Mapping[str, Fact]] = {
    fact.code: fact
    for fact in (
        _unsent("connect_error", Category.CONNECT, Retry.BACKOFF, "connect", Verdict.FAILURE),
        _unsent("connect_timeout", Category.CONNECT, Retry.BACKOFF, "connect", Verdict.FAILURE),
        # HTTP/2 REFUSED_STREAM, or a GOAWAY below our stream: the host is well and drains this connection.
        _unsent("refused_stream", Category.CONNECT, Retry.BACKOFF, "connect"),
        # A certificate that does not verify: the same tomorrow, and as likely our clock or proxy as the host.
        _unsent("tls_error", Category.CONFIG, Retry.NEVER, "other"),
        _unsent("pool_timeout", Category.POOL, Retry.BACKOFF, "pool"),
        _unsent("invalid_request_local", Category.INVALID, Retry.NEVER, "other"),
        _ambiguous("read_timeout"),
        _ambiguous("write_timeout"),
        _ambiguous("connection_lost"),
        _ambiguous("protocol_error"),
        _ambiguous("truncated_body", Category.PROTOCOL),
    )
}


def transport_fact(kind: str) -> Fact:
    """Return the prebuilt fact of a failure that happened below HTTP.

    Args:
        kind: ``connect_error``, ``connect_timeout``, ``refused_stream``, ``tls_error``, ``pool_timeout``,
            ``read_timeout``, ``write_timeout``, ``connection_lost``, ``protocol_error``, ``truncated_body``
            or ``invalid_request_local``.

    Raises:
        ValueError: *kind* is none of these.
    """
    try:
        return TRANSPORT[kind]
    except KeyError:
        raise ValueError(f"unknown transport failure {kind!r}; expected one of {sorted(TRANSPORT)}") from None


def _broken(code: str, *, terminal: bool = False) -> Fact:
    """Return the fact of an event stream that broke after its 200."""
    return Fact(
        code,
        Category.STREAM,
        Retry.NEVER if terminal else Retry.STREAM,
        Scope.MODEL,
        Verdict.NEUTRAL,
        # A second answer that differs from the first is nobody's ill health.
        Verdict.NEUTRAL if terminal else Verdict.FAILURE,
        "other" if terminal else "stream",
        200,
        sent=Sent.MAYBE,
    )


STREAM: Final[Mapping[str, Fact]] = {
    fact.code: fact
    for fact in (
        _broken("stream_terminated"),
        _broken("stream_reset"),
        _broken("stream_stalled"),
        _broken("stream_garbled"),
        _broken("not_a_stream"),
        _broken("stream_diverged", terminal=True),
        _broken("stream_gap", terminal=True),
    )
}
"""How a stream breaks without a word of the server's.

``stream_terminated`` (the gateway's own code for it): it ended in order, but before its terminal marker;
``stream_reset``: the connection broke; ``stream_stalled``: silence for longer than the read or idle timeout;
``stream_garbled``: an event that is not what the protocol promises; ``not_a_stream``: the answer to an attempt to
go on is no event stream; ``stream_diverged``: a replay said something else; ``stream_gap``: a resume left events out.
"""


def stream_fact(kind: str) -> Fact:
    """Return the prebuilt fact of a stream that broke; *kind* is a key of `STREAM`."""
    return STREAM[kind]


OK: Final = Fact(
    "ok", Category.SUCCESS, Retry.NEVER, Scope.REQUEST, Verdict.SUCCESS, Verdict.SUCCESS, status=200
)
"""The fact of a plain 200."""
