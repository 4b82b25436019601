"""What an HTTP status means when the body names nothing anybody knows.

502 and 503 mean "temporarily unavailable"; without a code they come from something between the caller and the
models (nginx, a load balancer, a CDN), so they are evidence about the host. A server that knows its own error
says so in JSON, hence a bare 500 is not GIP's ``internal_error``. 504 may mean that the model is still
generating: once more, at a higher price. 409 is "already exists", which no repetition cures.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from gip_resilience.facts import Category, Retry, Rule, Scope, Verdict


def _refused(category: Category, scope: Scope = Scope.REQUEST, host: Verdict = Verdict.SUCCESS) -> Rule:
    return Rule("", category, Retry.NEVER, scope, host, Verdict.NEUTRAL, "other")


def _down(category: Category, retry: Retry, policy: str) -> Rule:
    return Rule("", category, retry, Scope.HOST, Verdict.FAILURE, Verdict.NEUTRAL, policy)


_INVALID = _refused(Category.INVALID)
_CONFIG = _refused(Category.CONFIG)
_NOT_SUPPORTED = _refused(Category.CONFIG, Scope.HOST, Verdict.NEUTRAL)
_TEMPORARY = _down(Category.INTERMEDIARY, Retry.BACKOFF, "intermediary")
_GATEWAY_TIMEOUT = _down(Category.INTERMEDIARY, Retry.LIMITED, "limited")
_ANY_4XX = _refused(Category.UNKNOWN_4XX)
_ANY_5XX = _down(Category.UNKNOWN_5XX, Retry.LIMITED, "limited")

_RULES: Final[dict[int, Rule]] = {
    400: _INVALID,
    401: _refused(Category.AUTH, Scope.CREDENTIAL),
    402: _refused(Category.BILLING, Scope.ACCOUNT),
    403: _refused(Category.PERMISSION, Scope.CREDENTIAL),
    404: _refused(Category.NOT_FOUND),
    405: _CONFIG,
    406: _CONFIG,
    407: _NOT_SUPPORTED,  # the proxy on the way out wants credentials: nothing about the host
    # The server gave up waiting for the request: nobody's health, and it may have begun to execute it.
    408: Rule(
        "", Category.TIMEOUT, Retry.LIMITED, Scope.REQUEST, Verdict.NEUTRAL, Verdict.NEUTRAL, "timeout"
    ),
    409: _INVALID,
    410: _refused(Category.NOT_FOUND),
    411: _INVALID,
    413: _INVALID,
    414: _INVALID,
    415: _INVALID,
    422: _INVALID,
    425: Rule(
        "", Category.UNKNOWN_4XX, Retry.LIMITED, Scope.REQUEST, Verdict.SUCCESS, Verdict.NEUTRAL, "limited"
    ),
    429: Rule(
        "",
        Category.RATE_LIMIT,
        Retry.AFTER_RESET,
        Scope.CREDENTIAL,
        Verdict.SUCCESS,
        Verdict.NEUTRAL,
        "rate_limit",
    ),
    431: _INVALID,
    499: Rule("", Category.CANCELLED, Retry.NEVER, Scope.REQUEST, Verdict.NEUTRAL, Verdict.NEUTRAL, "other"),
    500: _ANY_5XX,
    # Not implemented, version not supported, negotiation loops, "log in to this network": the same tomorrow.
    501: _NOT_SUPPORTED,
    502: _TEMPORARY,
    503: _TEMPORARY,
    504: _GATEWAY_TIMEOUT,
    505: _NOT_SUPPORTED,
    506: _NOT_SUPPORTED,
    508: _NOT_SUPPORTED,
    510: _NOT_SUPPORTED,
    511: _NOT_SUPPORTED,
    # A CDN in front of the host (Cloudflare's own range).
    **dict.fromkeys((*range(520, 528), 530), _GATEWAY_TIMEOUT),
    # "Overloaded", first sent by Anthropic and since by gateways in front of others.
    529: _down(Category.OVERLOAD, Retry.BACKOFF, "overload"),
}


@lru_cache(maxsize=512)
def by_status(status: int, *, is_json: bool) -> Rule:
    """Return what *status*, 400 or above, means by itself.

    Args:
        status: the HTTP status; outside 400-599 it is taken as an unknown 5xx.
        is_json: whether the body was JSON. A refusal that is not may be a firewall's block page: it does not
            show that the host is well, and a 403 is then about the host, not about the key.
    """
    rule = _RULES.get(status) or (_ANY_4XX if 400 <= status < 500 else _ANY_5XX)
    if not is_json and 400 <= status < 500 and rule.retry is Retry.NEVER:
        scope = Scope.HOST if status == 403 else rule.scope
        rule = replace(rule, host=Verdict.NEUTRAL, scope=scope)
    return replace(rule, code=f"http_{status}")


@lru_cache(maxsize=512)
def behind_200(status: int) -> Rule:
    """Return what *status* means when it is a number in the body of an answer whose own status was good.

    The host answered, so it is well: what failed is behind it.
    """
    rule = by_status(status, is_json=True)
    if status < 500:
        return rule
    return replace(rule, scope=Scope.MODEL, host=Verdict.SUCCESS, model=Verdict.FAILURE)


UNNAMED: Final = "error_200"

UNNAMED_IN_200: Final = Rule(
    UNNAMED, Category.PROTOCOL, Retry.LIMITED, Scope.HOST, Verdict.NEUTRAL, Verdict.NEUTRAL, "limited"
)
"""A good status, an error in the body, and no name or number for it."""

UNNAMED_IN_STREAM: Final = Rule(
    UNNAMED, Category.STREAM, Retry.LIMITED, Scope.MODEL, Verdict.SUCCESS, Verdict.FAILURE, "limited"
)
"""The same inside a stream: an unknown error is tried once more, as an unknown 5xx is."""
