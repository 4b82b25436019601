"""What the names mean, dialect by dialect: data, loaded when an error is met that is not GIP's.

A row is ``code: (retry, category, scope)``; who is to blame and which policy applies follows from these.
Names are local to their dialect: another gateway's ``model_unavailable`` is a 403, so there is no common
table.

Sources: each service's own error page (OpenAI, Anthropic, Azure OpenAI, Mistral, OpenRouter, Groq, Together),
``google.rpc.Code`` and the Gemini documentation, botocore's service model for Bedrock, vLLM's and LiteLLM's
sources. Groq's 498 and 413, Azure's ``DeploymentNotFound`` and three OpenAI codes (``model_not_found``,
``context_length_exceeded``, ``content_policy_violation``) rest on common knowledge rather than a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gip_resilience.facts import Category, Retry, Rule, Scope, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = tuple[Retry, Category, Scope]

_ILL = frozenset(
    {
        Category.SERVER,
        Category.OVERLOAD,
        Category.UNAVAILABLE,
        Category.TIMEOUT,
        Category.STREAM,
        Category.UNKNOWN_5XX,
    }
)
"""Categories that are evidence against somebody's health."""

_BACKOFF_POLICY: Final[Mapping[Category, str]] = {
    Category.OVERLOAD: "overload",
    # Elsewhere "unavailable" means "not ready yet" and may be retried: it wants overload's longer waits.
    Category.UNAVAILABLE: "overload",
    Category.SERVER: "server",
    Category.TIMEOUT: "timeout",
}


def _policy(retry: Retry, category: Category) -> str:
    match retry:
        case Retry.NEVER:
            return "other"
        case Retry.AFTER_RESET | Retry.IF_HINT:
            return "rate_limit"
        case Retry.STREAM:
            return "stream"
        case Retry.LIMITED:
            return "timeout" if category is Category.TIMEOUT else "limited"
        case Retry.BACKOFF:  # pragma: no branch - there is no other
            return _BACKOFF_POLICY[category]


def _verdicts(category: Category, scope: Scope) -> tuple[Verdict, Verdict]:
    """Return what the host's and the model's circuit learn.

    Whoever refuses a request is well; what the model never saw says nothing about the model.
    """
    if category is Category.CANCELLED:
        return Verdict.NEUTRAL, Verdict.NEUTRAL
    if category in _ILL and scope is Scope.HOST:
        return Verdict.FAILURE, Verdict.NEUTRAL
    if category in _ILL and scope is Scope.MODEL:
        return Verdict.SUCCESS, Verdict.FAILURE
    return Verdict.SUCCESS, Verdict.NEUTRAL


def rule(code: str, row: Row) -> Rule:
    """Build the rule of one row."""
    retry, category, scope = row
    host, model = _verdicts(category, scope)
    return Rule(code, category, retry, scope, host, model, _policy(retry, category))


_NEVER, _BACKOFF, _AFTER_RESET = Retry.NEVER, Retry.BACKOFF, Retry.AFTER_RESET
_STREAM, _LIMITED, _IF_HINT = Retry.STREAM, Retry.LIMITED, Retry.IF_HINT

_AUTH: Row = (_NEVER, Category.AUTH, Scope.CREDENTIAL)
_PERMISSION: Row = (_NEVER, Category.PERMISSION, Scope.CREDENTIAL)
_BILLING: Row = (_NEVER, Category.BILLING, Scope.ACCOUNT)
_INVALID: Row = (_NEVER, Category.INVALID, Scope.REQUEST)
_NO_MODEL: Row = (_NEVER, Category.NOT_FOUND, Scope.MODEL)
_SAFETY: Row = (_NEVER, Category.SAFETY, Scope.REQUEST)
_QUOTA: Row = (_AFTER_RESET, Category.RATE_LIMIT, Scope.ACCOUNT)
_MODEL_QUOTA: Row = (_AFTER_RESET, Category.RATE_LIMIT, Scope.MODEL)
_MODEL_BUSY: Row = (_BACKOFF, Category.OVERLOAD, Scope.MODEL)
_HOST_BUSY: Row = (_BACKOFF, Category.OVERLOAD, Scope.HOST)
_MODEL_BROKEN: Row = (_BACKOFF, Category.SERVER, Scope.MODEL)
_HOST_BROKEN: Row = (_BACKOFF, Category.SERVER, Scope.HOST)
_MODEL_SLOW: Row = (_BACKOFF, Category.TIMEOUT, Scope.MODEL)
_MODEL_NOT_READY: Row = (_BACKOFF, Category.UNAVAILABLE, Scope.MODEL)
_STREAM_BROKE: Row = (_STREAM, Category.STREAM, Scope.MODEL)

_CODES: Final[Mapping[str, Mapping[str, Row]]] = {
    "openai": {
        "rate_limit_exceeded": _QUOTA,
        "slow_down": (_AFTER_RESET, Category.OVERLOAD, Scope.ACCOUNT),
        "server_is_overloaded": _MODEL_BUSY,
        "insufficient_quota": _BILLING,
        "credit_balance_exhausted": _BILLING,
        "organization_spend_limit_exceeded": _BILLING,
        "project_spend_limit_exceeded": _BILLING,
        "organization_usage_limit_exceeded": _BILLING,
        "invalid_api_key": _AUTH,
        "model_not_found": _NO_MODEL,
        "context_length_exceeded": _INVALID,
        "content_policy_violation": _SAFETY,
        "server_error": _MODEL_BROKEN,
    },
    "anthropic": {
        "invalid_request_error": _INVALID,
        "authentication_error": _AUTH,
        "billing_error": _BILLING,
        "permission_error": _PERMISSION,
        "not_found_error": (_NEVER, Category.NOT_FOUND, Scope.REQUEST),
        "conflict_error": _INVALID,
        "request_too_large": _INVALID,
        "rate_limit_error": _QUOTA,
        "rate_limit_error/enforced_spend_limit_reached": _BILLING,
        "rate_limit_error/contract_spend_limit_reached": _BILLING,
        "rate_limit_error/ramp_limit_exceeded": _QUOTA,
        "api_error": _HOST_BROKEN,
        "timeout_error": _MODEL_SLOW,
        "overloaded_error": _HOST_BUSY,
    },
    "google": {
        "INVALID_ARGUMENT": _INVALID,
        "FAILED_PRECONDITION": (_NEVER, Category.CONFIG, Scope.ACCOUNT),
        "UNAUTHENTICATED": _AUTH,
        "PERMISSION_DENIED": _PERMISSION,
        "NOT_FOUND": _NO_MODEL,
        "ABORTED": (_LIMITED, Category.SERVER, Scope.REQUEST),
        "RESOURCE_EXHAUSTED": _QUOTA,
        "CANCELLED": (_NEVER, Category.CANCELLED, Scope.REQUEST),
        "INTERNAL": _MODEL_BROKEN,
        "UNKNOWN": (_LIMITED, Category.UNKNOWN_5XX, Scope.MODEL),
        "UNIMPLEMENTED": (_NEVER, Category.CONFIG, Scope.REQUEST),
        "UNAVAILABLE": _MODEL_BUSY,
        "DEADLINE_EXCEEDED": (_LIMITED, Category.TIMEOUT, Scope.MODEL),
    },
    "bedrock": {
        "ThrottlingException": _QUOTA,
        "ServiceQuotaExceededException": _BILLING,
        "ModelNotReadyException": _MODEL_NOT_READY,
        "ModelTimeoutException": _MODEL_SLOW,
        "ModelErrorException": (_LIMITED, Category.SERVER, Scope.MODEL),
        "ModelStreamErrorException": _STREAM_BROKE,
        "InternalServerException": _HOST_BROKEN,
        "ServiceUnavailableException": _MODEL_BUSY,
        "ValidationException": _INVALID,
        "AccessDeniedException": _PERMISSION,
        "ResourceNotFoundException": _NO_MODEL,
        "ConflictException": _INVALID,
    },
    "azure_openai": {
        "content_filter": _SAFETY,
        "DeploymentNotFound": _NO_MODEL,
    },
    "mistral": {
        "1300": _QUOTA,
        "unknown_model": _NO_MODEL,
    },
    "openrouter": {},
    "groq": {
        "rate_limit_exceeded": _QUOTA,
    },
    "together": {
        "dynamic_request_limited": _MODEL_QUOTA,
        "dynamic_token_limited": _MODEL_QUOTA,
    },
    "vllm": {},
    "litellm": {
        "RateLimitError": _QUOTA,
        "BudgetExceededError": _BILLING,
        "ContextWindowExceededError": _INVALID,
        "ContentPolicyViolationError": _SAFETY,
        "Timeout": _MODEL_SLOW,
        "BadGatewayError": _MODEL_BROKEN,
        "ServiceUnavailableError": _MODEL_BUSY,
        "InternalServerError": _MODEL_BROKEN,
        "MidStreamFallbackError": _STREAM_BROKE,
    },
}

_STATUSES: Final[Mapping[str, Mapping[int, Row]]] = {
    "azure_openai": {401: _AUTH, 429: _MODEL_QUOTA, 503: _MODEL_BUSY},
    "mistral": {422: _INVALID, 500: _HOST_BROKEN, 503: _HOST_BUSY},
    "openrouter": {
        400: _INVALID,
        401: _AUTH,
        402: (_IF_HINT, Category.BILLING, Scope.ACCOUNT),
        403: _SAFETY,
        408: _MODEL_SLOW,
        429: _QUOTA,
        502: _MODEL_BROKEN,
        503: _MODEL_NOT_READY,
    },
    "groq": {413: _INVALID, 498: _MODEL_BUSY, 503: _MODEL_BUSY},
    "together": {402: _BILLING, 403: _INVALID, 503: _MODEL_BUSY},
    "vllm": {400: _INVALID, 404: _NO_MODEL, 500: _HOST_BROKEN},
}

ALIASES: Final[Mapping[str, Mapping[str, str]]] = {
    "openai": {
        "service_unavailable_error": "server_is_overloaded",
        "requests": "rate_limit_exceeded",
        "tokens": "rate_limit_exceeded",
    },
    "groq": {"requests": "rate_limit_exceeded", "tokens": "rate_limit_exceeded"},
    "mistral": {"rate_limited": "1300"},
    "litellm": {"budget_exceeded": "BudgetExceededError"},
}
"""Types that say the same as a code of their dialect."""

CODES: Final[Mapping[str, Mapping[str, Rule]]] = {
    dialect: {code: rule(code, row) for code, row in rows.items()} for dialect, rows in _CODES.items()
}
"""Dialect → code → rule."""

STATUSES: Final[Mapping[str, Mapping[int, Rule]]] = {
    dialect: {status: rule(f"http_{status}", row) for status, row in rows.items()}
    for dialect, rows in _STATUSES.items()
}
"""Dialect → HTTP status → rule, for the dialects that put the status where others have a code."""
