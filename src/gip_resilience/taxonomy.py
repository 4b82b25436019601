"""What an answer means: the words of the domain.

Every attempt ends in one `Fact`. A fact keeps three things apart that are often mixed up:

* **retry**: may the same request be sent again, and after what;
* **verdict**: what the answer says about the health of the *host* and of the *model* behind it;
* **hint**: how long the server asked us to wait.

They are separate because they do differ: ``internal_error`` is never retried, yet it is evidence against
the host; ``rate_limit_exceeded`` is retried, yet says nothing bad about anybody's health.

This module and everything it imports is pure: no clock, no chance, nothing that waits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final

from gip_resilience import _shapes
from gip_resilience.hints import retry_hint, should_retry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience._shapes import Found
    from gip_resilience.hints import Headers, Hint


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
        return self.category is Category.SUCCESS

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


class Code(StrEnum):
    """The 23 codes of the GIP gateway."""

    MISSING_API_KEY = "missing_api_key"
    INVALID_API_KEY = "invalid_api_key"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INVALID_REQUEST = "invalid_request"
    INVALID_ARGUMENT = "invalid_argument"
    NOT_FOUND = "not_found"
    UNKNOWN_MODEL = "unknown_model"
    INVALID_CONTENT_MEDIA = "invalid_content_media"
    UNAVAILABLE_CONTENT_MEDIA = "unavailable_content_media"
    UNSAFE_CONTENT = "unsafe_content"
    UNKNOWN_APP = "unknown_app"
    INVALID_APP = "invalid_app"
    UNSUPPORTED_INTERFACE = "unsupported_interface"
    UNKNOWN_WORKSPACE = "unknown_workspace"
    FAILED_REQUEST = "failed_request"
    INTERNAL_ERROR = "internal_error"
    MODEL_SERVER_ERROR = "model_server_error"
    MODEL_OVERLOADED = "model_overloaded"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_TIMEOUT = "model_timeout"
    STREAM_ERROR = "stream_error"
    STREAM_TERMINATED = "stream_terminated"


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


def _refused(code: Code, category: Category, scope: Scope = Scope.REQUEST) -> Rule:
    """Return the rule of a request that was refused: the host is well, and the model never saw it."""
    return Rule(code.value, category, Retry.NEVER, scope, Verdict.SUCCESS, Verdict.NEUTRAL, "other")


def _gateway(code: Code, scope: Scope, host: Verdict = Verdict.NEUTRAL) -> Rule:
    """Return the rule of a 500 that repeats itself: not retried, whatever the status says."""
    return Rule(code.value, Category.GATEWAY, Retry.NEVER, scope, host, Verdict.NEUTRAL, "other")


def _model(code: Code, category: Category, retry: Retry, verdict: Verdict = Verdict.FAILURE) -> Rule:
    """Return the rule of a model that failed behind a healthy gateway."""
    return Rule(code.value, category, retry, Scope.MODEL, Verdict.SUCCESS, verdict, category.value)


GIP: Final[Mapping[str, Rule]] = {
    rule.code: rule
    for rule in (
        _refused(Code.MISSING_API_KEY, Category.AUTH),
        _refused(Code.INVALID_API_KEY, Category.AUTH, Scope.CREDENTIAL),
        # The name says 401, the description "lacks permission": never refresh the key on it.
        _refused(Code.UNAUTHORIZED, Category.PERMISSION, Scope.CREDENTIAL),
        Rule(
            Code.RATE_LIMIT_EXCEEDED.value,
            Category.RATE_LIMIT,
            Retry.AFTER_RESET,
            Scope.CREDENTIAL,
            Verdict.SUCCESS,
            Verdict.NEUTRAL,
            "rate_limit",
        ),
        _refused(Code.INVALID_REQUEST, Category.INVALID),
        _refused(Code.INVALID_ARGUMENT, Category.INVALID),
        _refused(Code.NOT_FOUND, Category.NOT_FOUND),
        _refused(Code.UNKNOWN_MODEL, Category.NOT_FOUND, Scope.MODEL),
        _refused(Code.INVALID_CONTENT_MEDIA, Category.CONTENT),
        _refused(Code.UNAVAILABLE_CONTENT_MEDIA, Category.CONTENT),
        _refused(Code.UNSAFE_CONTENT, Category.SAFETY),
        _refused(Code.UNKNOWN_APP, Category.NOT_FOUND),
        _refused(Code.INVALID_APP, Category.CONFIG),
        _refused(Code.UNSUPPORTED_INTERFACE, Category.CONFIG, Scope.MODEL),
        _gateway(Code.UNKNOWN_WORKSPACE, Scope.ACCOUNT),
        # The request or the answer was at fault: a poisonous request must not open a circuit.
        _gateway(Code.FAILED_REQUEST, Scope.REQUEST),
        _gateway(Code.INTERNAL_ERROR, Scope.HOST, Verdict.FAILURE),
        _model(Code.MODEL_SERVER_ERROR, Category.SERVER, Retry.BACKOFF),
        _model(Code.MODEL_OVERLOADED, Category.OVERLOAD, Retry.BACKOFF),
        _model(Code.MODEL_UNAVAILABLE, Category.UNAVAILABLE, Retry.NEVER, Verdict.TRIP),
        _model(Code.MODEL_TIMEOUT, Category.TIMEOUT, Retry.BACKOFF),
        _model(Code.STREAM_ERROR, Category.STREAM, Retry.STREAM),
        _model(Code.STREAM_TERMINATED, Category.STREAM, Retry.STREAM),
    )
}
"""The GIP gateway's codes. `Rule.retry` is its error page's; statuses are not on it and play no part."""

DIALECTS: Final = (
    "auto",
    "gip",
    "openai",
    "anthropic",
    "google",
    "bedrock",
    "azure_openai",
    "mistral",
    "openrouter",
    "groq",
    "together",
    "vllm",
    "litellm",
)
"""What `classify` takes as *dialect*."""


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


_TRANSPORT: Final[Mapping[str, Fact]] = {
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
        return _TRANSPORT[kind]
    except KeyError:
        raise ValueError(
            f"unknown transport failure {kind!r}; expected one of {sorted(_TRANSPORT)}"
        ) from None


@cache
def known_codes() -> frozenset[str]:
    """Return every code a fact can carry that some table knows: what a policy may be keyed by."""
    from gip_resilience import dialects

    synthetic = {"ok", "html_200", "error_200", *(f"http_{status}" for status in range(400, 600))}
    return frozenset({*GIP, *_TRANSPORT, *synthetic, *dialects.codes()})


_OK = Fact("ok", Category.SUCCESS, Retry.NEVER, Scope.REQUEST, Verdict.SUCCESS, Verdict.SUCCESS, status=200)

_HTML_200 = Rule(
    "html_200", Category.PROTOCOL, Retry.LIMITED, Scope.HOST, Verdict.FAILURE, Verdict.NEUTRAL, "limited"
)


def classify(
    status: int | None,
    headers: Headers = (),
    body: object = None,
    *,
    dialect: str = "auto",
    now: float = 0.0,
    in_stream: bool = False,
    complete: bool = True,
    expect_json: bool = False,
) -> Fact:
    """Say what an answer means.

    The most specific word wins: the body's ``code``, then its ``type``, then the HTTP status. It never raises
    on anything a server can send, reads at most 64 KiB of an error body, and is safe to call from any thread.

    Args:
        status: HTTP status; ``None`` when there was none.
        headers: response headers, as a mapping or as pairs; names in any case.
        body: the body as received (bytes or text, possibly of an event stream), or a decoded JSON value;
            ``None`` when it was not read.
        dialect: whose codes these are, one of `DIALECTS`; ``auto`` recognises it by the error's shape.
        now: the client's Unix time in seconds, for waits given as a point in time.
        in_stream: whether *body* is an event of a stream that had begun well, so that *status* says nothing.
        complete: ``False`` when *body* is only the beginning of what was sent: an error's names are then
            read as far as they go, and a JSON answer is ``truncated_body``.
        expect_json: whether the caller can do nothing with a 2xx answer that is not JSON.

    Returns:
        The fact. ``ok`` for a status below 400, unless the body says otherwise: an error in a stream or in a
        200, JSON that breaks off (``truncated_body``), HTML instead of JSON (``html_200``).

    Raises:
        ValueError: *dialect* is none of `DIALECTS`.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"unknown dialect {dialect!r}; expected one of {', '.join(DIALECTS)}")
    if status == 200 and body is None and not expect_json:
        return _OK
    if status is None and body is None:
        return _TRANSPORT["connection_lost"]
    if not hasattr(headers, "items"):
        headers = tuple(headers)  # it may be an iterator, and is read more than once
    failed = status is not None and status >= 400
    found = _shapes.find_error(body, failed=failed, in_stream=in_stream)
    if found is None:
        return _without_error(status, headers, body, complete=complete, expect_json=expect_json)
    rule = GIP.get(found.code or "") if found.shape == "nested" and dialect in {"auto", "gip"} else None
    if rule is not None and found.type != "insufficient_quota":
        known, dialect = True, "gip"
    else:
        from gip_resilience import dialects

        rule, dialect, known = dialects.read(found, status, headers, dialect, streaming=in_stream)
    return _fact(rule, found, status, headers, dialect=dialect, known=known, now=now)


def _without_error(
    status: int | None, headers: Headers, body: object, *, complete: bool, expect_json: bool
) -> Fact:
    """Return the fact of a good status whose body does not say that it is an error."""
    if status is not None and not 200 <= status < 300:
        return replace(_OK, status=status, model=Verdict.NEUTRAL)
    fault = _fault_of_200(status, headers, body, complete=complete, expect_json=expect_json)
    return fault or replace(_OK, status=status)


def _fault_of_200(
    status: int | None, headers: Headers, body: object, *, complete: bool, expect_json: bool
) -> Fact | None:
    raw = _shapes.as_bytes(body)
    media = _shapes.media_type(headers)
    if expect_json and (media == "text/html" or (raw is not None and _shapes.is_html(raw))):
        return _rule_fact(_HTML_200, status)
    if raw is None or not (expect_json or _shapes.is_json_type(media)):
        return None
    if not complete or (_shapes.is_broken_json(raw) if raw else expect_json and status != 204):
        return replace(_TRANSPORT["truncated_body"], status=status)
    return None


def _rule_fact(rule: Rule, status: int | None) -> Fact:
    return Fact(rule.code, rule.category, rule.retry, rule.scope, rule.host, rule.model, rule.policy, status)


def _fact(
    rule: Rule,
    found: Found,
    status: int | None,
    headers: Headers,
    *,
    dialect: str,
    known: bool,
    now: float,
) -> Fact:
    """Put a rule and what the server says about waiting together."""
    hint = retry_hint(status, headers, found.root, now, in_stream=True)  # whatever the status, an error
    wanted = should_retry(status, headers, found.root)
    retry, policy = rule.retry, rule.policy
    if (retry is Retry.IF_HINT and hint is None) or (
        retry is Retry.AFTER_RESET and wanted is False and should_retry(status, (), found.root) is False
    ):
        # The body itself says that no reset is near: a daily quota, an empty account.
        retry, policy = Retry.NEVER, "other"
    return Fact(
        rule.code,
        rule.category,
        retry,
        rule.scope,
        rule.host,
        rule.model,
        policy,
        status,
        hint,
        dialect,
        _shapes.clean(found.type) if found.type else None,
        Sent.ANSWERED,
        wanted,
        known,
    )
