"""The GIP gateway's own taxonomy: its 23 codes, and what each of them means."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gip_resilience.facts import Category, Retry, Rule, Scope, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


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
