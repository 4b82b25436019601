"""Words of the grammars, for structured values and for the fuzzer's dictionaries."""

from __future__ import annotations

import json
from typing import Any

HEADER_NAMES = (
    "Retry-After", "retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after", "Date", "Age", "RateLimit",
    "RateLimit-Policy", "reset_at", "x-should-retry", "x-ratelimit-limit", "x-ratelimit-remaining",
    "x-ratelimit-reset", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
    "x-ratelimit-limit-tokens", "ratelimit-reset", "ratelimit-remaining", "x-ratelimit-reset-after",
    "x-ratelimit-next", "x-rate-limit-retry-after", "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-requests-remaining", "content-type", "x-amzn-errortype", "x-litellm-version",
    "llm_provider-x", "x-groq-region", "apim-request-id",
)  # fmt: skip
HEADER_VALUES = (
    "0", "1", "30", "-1", "1.5", "1767225630", "1767225630000", "99999999999999999999", "6m0s", "1h2m3.5s", "850µs",
    "1d", "Thu, 01 Jan 2026 00:00:30 GMT", "Thursday, 01-Jan-26 00:00:30 GMT", "Thu Jan  1 00:00:30 2026",
    "2026-01-01T00:00:30Z", "2026-01-01 00:00:30+01:00", "limit=100, remaining=0, reset=53",
    '"default";r=0;t=30, "day";r=5;t=9', "true", "false", "nan", "inf", "1e9", "0, 5", "application/json", "text/html",
    "com.amazon#ThrottlingException:http://x",
)  # fmt: skip
BODY_WORDS = (
    "error", "errors", "code", "type", "message", "status", "details", "detail", "metadata", "headers", "object",
    "choices", "data", "response", "retry_after", "retry_after_ms", "retryAfterMs", "retryDelay", "@type", "reason",
    "error_code", "error_type", "raw_status_code", "status_code", "__type", "innererror", "failed_generation",
    "user_id", "extensions", "parameters", "seconds", "nanos", "violations", "quotaId", "limit_source", "param",
    "type.googleapis.com/google.rpc.RetryInfo", "google.rpc.ErrorInfo", "google.rpc.QuotaFailure", "34.07s",
    "QUOTA_EXHAUSTED", "free-models-per-day", "PerDay", "insufficient_quota", "rate_limit_exceeded",
    "model_overloaded", "internal_error", "RESOURCE_EXHAUSTED", "overloaded_error", "throttlingException",
    "ThrottlingException", "invalid_request_error", "x-ratelimit-reset", "x-ratelimit-remaining", "retry-after", "429",
    "503", "1300", "tool_use_failed", "litellm.RateLimitError: x", "Please try again in 6m6s", "Retry after 3 hours",
    "²", "٣", "",
)  # fmt: skip
STREAM_WORDS = (
    "choices", "delta", "index", "finish_reason", "text", "content", "role", "usage", "error", "object", "stop", "type",
    "chat.completion.chunk", "text_completion", "response", "sequence_number", "response.created",
    "response.completed", "response.failed", "response.output_text.delta", "background", "id", "ping", "keepalive",
    "message_start", "message_delta", "message_stop", "content_block_delta", "content_block_start", "content_block",
    "stop_reason", "candidates", "finishReason", "promptFeedback", "blockReason", "usageMetadata", "parts", "message",
    "code", "tool_calls", "function", "name", "arguments", "logprobs", "refusal", "partial_json", "text_delta",
    "input_json_delta", "thinking_delta", "[DONE]", "length", "functionCall", "model", "",
)  # fmt: skip


def decoded(raw: bytes) -> Any:
    """The JSON value in *raw* as the most lenient parser reads it, with numbers of any size; else the bytes."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw
