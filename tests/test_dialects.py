"""Errors that are not GIP's: recognised by their shape, and read in their own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience import dialects
from gip_resilience.dialects import tables
from gip_resilience.taxonomy import DIALECTS, POLICY_CLASSES, Category, Fact, Retry, Scope, Verdict, classify

Body = dict[str, Any] | list[Any]


def outcome(fact: Fact) -> tuple[str, ...]:
    """Return what decides: category, retry, scope, verdicts and policy."""
    return (
        fact.category.value,
        fact.retry.value,
        fact.scope.value,
        fact.host.value,
        fact.model.value,
        fact.policy,
    )


# --- the shapes, as the services send them


def openai(code: str | None, type_: str | None = "invalid_request_error") -> Body:
    """Return an OpenAI error."""
    return {"error": {"message": "m", "type": type_, "param": None, "code": code}}


def anthropic(type_: str, error_code: str | None = None) -> Body:
    """Return an Anthropic error."""
    details = {} if error_code is None else {"details": {"error_code": error_code}}
    return {"type": "error", "error": {"type": type_, "message": "m", **details}, "request_id": "req_1"}


def google(status: str, code: int, *details: dict[str, Any]) -> Body:
    """Return a Google error."""
    return {"error": {"code": code, "message": "m", "status": status, "details": list(details)}}


def azure(code: str) -> Body:
    """Return an Azure OpenAI error."""
    return {"error": {"code": code, "message": "m"}}


def mistral(code: str | None, status: int, type_: str = "invalid_request") -> Body:
    """Return a Mistral error."""
    flat = {"object": "error", "message": "m", "type": type_, "param": None}
    return {**flat, "code": code, "raw_status_code": status}


def openrouter(code: int) -> Body:
    """Return an OpenRouter error."""
    return {"error": {"code": code, "message": "m", "metadata": {"provider_name": "p"}}, "user_id": "u"}


def vllm(code: int, type_: str = "BadRequestError") -> Body:
    """Return a vLLM error."""
    return {"error": {"message": "m", "type": type_, "param": None, "code": code}}


def litellm(name: str, code: int) -> Body:
    """Return a LiteLLM proxy error, which names its class in the message alone."""
    return {"error": {"message": f"litellm.{name}: m", "type": None, "param": None, "code": str(code)}}


BILLING = ("billing", "never", "account", "success", "neutral", "other")
AUTH = ("auth", "never", "credential", "success", "neutral", "other")
INVALID = ("invalid", "never", "request", "success", "neutral", "other")
NO_MODEL = ("not_found", "never", "model", "success", "neutral", "other")
SAFETY = ("safety", "never", "request", "success", "neutral", "other")
PERMISSION = ("permission", "never", "credential", "success", "neutral", "other")
QUOTA = ("rate_limit", "after_reset", "account", "success", "neutral", "rate_limit")
MODEL_QUOTA = ("rate_limit", "after_reset", "model", "success", "neutral", "rate_limit")
GIP_QUOTA = ("rate_limit", "after_reset", "credential", "success", "neutral", "rate_limit")
MODEL_BUSY = ("overload", "backoff", "model", "success", "failure", "overload")
HOST_BUSY = ("overload", "backoff", "host", "failure", "neutral", "overload")
MODEL_BROKEN = ("server", "backoff", "model", "success", "failure", "server")
HOST_BROKEN = ("server", "backoff", "host", "failure", "neutral", "server")
MODEL_SLOW = ("timeout", "backoff", "model", "success", "failure", "timeout")
NOT_READY = ("unavailable", "backoff", "model", "success", "failure", "overload")
STREAM = ("stream", "stream", "model", "success", "failure", "stream")

# dialect, status, body, headers, code, outcome
ROWS: list[tuple[str, int, Body, dict[str, str], str, tuple[str, ...]]] = [
    ("openai", 429, openai("slow_down", "requests"), {}, "slow_down", ("overload", *QUOTA[1:])),
    (
        "openai",
        503,
        openai("server_is_overloaded", "service_unavailable_error"),
        {},
        "server_is_overloaded",
        MODEL_BUSY,
    ),
    ("openai", 429, openai("insufficient_quota", "insufficient_quota"), {}, "insufficient_quota", BILLING),
    (
        "openai",
        429,
        openai("credit_balance_exhausted", "insufficient_quota"),
        {},
        "credit_balance_exhausted",
        BILLING,
    ),
    (
        "openai",
        429,
        openai("organization_spend_limit_exceeded", "insufficient_quota"),
        {},
        "organization_spend_limit_exceeded",
        BILLING,
    ),
    (
        "openai",
        429,
        openai("project_spend_limit_exceeded", "insufficient_quota"),
        {},
        "project_spend_limit_exceeded",
        BILLING,
    ),
    (
        "openai",
        429,
        openai("organization_usage_limit_exceeded", "x"),
        {},
        "organization_usage_limit_exceeded",
        BILLING,
    ),
    ("openai", 404, openai("model_not_found"), {}, "model_not_found", NO_MODEL),
    ("openai", 400, openai("context_length_exceeded"), {}, "context_length_exceeded", INVALID),
    ("openai", 400, openai("content_policy_violation"), {}, "content_policy_violation", SAFETY),
    ("openai", 500, openai("server_error", "server_error"), {}, "server_error", MODEL_BROKEN),
    # The same names in the same sense as GIP's: GIP's table has them first.
    ("gip", 429, openai("rate_limit_exceeded", "tokens"), {}, "rate_limit_exceeded", GIP_QUOTA),
    ("gip", 401, openai("invalid_api_key"), {}, "invalid_api_key", AUTH),
    ("anthropic", 400, anthropic("invalid_request_error"), {}, "invalid_request_error", INVALID),
    ("anthropic", 401, anthropic("authentication_error"), {}, "authentication_error", AUTH),
    ("anthropic", 402, anthropic("billing_error"), {}, "billing_error", BILLING),
    ("anthropic", 403, anthropic("permission_error"), {}, "permission_error", PERMISSION),
    ("anthropic", 404, anthropic("not_found_error"), {}, "not_found_error", ("not_found", *INVALID[1:])),
    ("anthropic", 409, anthropic("conflict_error"), {}, "conflict_error", INVALID),
    ("anthropic", 413, anthropic("request_too_large"), {}, "request_too_large", INVALID),
    ("anthropic", 429, anthropic("rate_limit_error"), {}, "rate_limit_error", QUOTA),
    (
        "anthropic",
        429,
        anthropic("rate_limit_error", "enforced_spend_limit_reached"),
        {},
        "rate_limit_error/enforced_spend_limit_reached",
        BILLING,
    ),
    (
        "anthropic",
        429,
        anthropic("rate_limit_error", "contract_spend_limit_reached"),
        {},
        "rate_limit_error/contract_spend_limit_reached",
        BILLING,
    ),
    (
        "anthropic",
        429,
        anthropic("rate_limit_error", "ramp_limit_exceeded"),
        {},
        "rate_limit_error/ramp_limit_exceeded",
        QUOTA,
    ),
    ("anthropic", 500, anthropic("api_error"), {}, "api_error", HOST_BROKEN),
    ("anthropic", 504, anthropic("timeout_error"), {}, "timeout_error", MODEL_SLOW),
    ("anthropic", 529, anthropic("overloaded_error"), {}, "overloaded_error", HOST_BUSY),
    ("google", 400, google("INVALID_ARGUMENT", 400), {}, "INVALID_ARGUMENT", INVALID),
    (
        "google",
        400,
        google("FAILED_PRECONDITION", 400),
        {},
        "FAILED_PRECONDITION",
        ("config", "never", "account", "success", "neutral", "other"),
    ),
    ("google", 401, google("UNAUTHENTICATED", 401), {}, "UNAUTHENTICATED", AUTH),
    ("google", 403, google("PERMISSION_DENIED", 403), {}, "PERMISSION_DENIED", PERMISSION),
    ("google", 404, google("NOT_FOUND", 404), {}, "NOT_FOUND", NO_MODEL),
    (
        "google",
        409,
        google("ABORTED", 409),
        {},
        "ABORTED",
        ("server", "limited", "request", "success", "neutral", "limited"),
    ),
    ("google", 429, google("RESOURCE_EXHAUSTED", 429), {}, "RESOURCE_EXHAUSTED", QUOTA),
    (
        "google",
        499,
        google("CANCELLED", 499),
        {},
        "CANCELLED",
        ("cancelled", "never", "request", "neutral", "neutral", "other"),
    ),
    ("google", 500, google("INTERNAL", 500), {}, "INTERNAL", MODEL_BROKEN),
    (
        "google",
        500,
        google("UNKNOWN", 500),
        {},
        "UNKNOWN",
        ("unknown_5xx", "limited", "model", "success", "failure", "limited"),
    ),
    (
        "google",
        501,
        google("UNIMPLEMENTED", 501),
        {},
        "UNIMPLEMENTED",
        ("config", "never", "request", "success", "neutral", "other"),
    ),
    ("google", 503, google("UNAVAILABLE", 503), {}, "UNAVAILABLE", MODEL_BUSY),
    (
        "google",
        504,
        google("DEADLINE_EXCEEDED", 504),
        {},
        "DEADLINE_EXCEEDED",
        ("timeout", "limited", "model", "success", "failure", "timeout"),
    ),
    ("azure_openai", 429, azure("429"), {}, "http_429", MODEL_QUOTA),
    ("azure_openai", 401, azure("401"), {}, "http_401", AUTH),
    ("azure_openai", 503, azure("503"), {}, "http_503", MODEL_BUSY),
    ("azure_openai", 404, azure("DeploymentNotFound"), {}, "DeploymentNotFound", NO_MODEL),
    (
        "azure_openai",
        400,
        {"error": {"code": "content_filter", "message": "m", "type": None, "status": 400, "innererror": {}}},
        {},
        "content_filter",
        SAFETY,
    ),
    ("mistral", 429, mistral("1300", 429, "rate_limited"), {}, "1300", QUOTA),
    ("mistral", 429, mistral(None, 429, "rate_limited"), {}, "1300", QUOTA),
    ("mistral", 404, mistral("unknown_model", 404), {}, "unknown_model", NO_MODEL),
    ("mistral", 422, mistral(None, 422), {}, "http_422", INVALID),
    ("mistral", 500, mistral(None, 500), {}, "http_500", HOST_BROKEN),
    ("mistral", 503, mistral(None, 503), {}, "http_503", HOST_BUSY),
    ("openrouter", 400, openrouter(400), {}, "http_400", INVALID),
    ("openrouter", 401, openrouter(401), {}, "http_401", AUTH),
    (
        "openrouter",
        402,
        openrouter(402),
        {"Retry-After": "3"},
        "http_402",
        ("billing", "if_hint", "account", "success", "neutral", "rate_limit"),
    ),
    ("openrouter", 403, openrouter(403), {}, "http_403", SAFETY),
    ("openrouter", 408, openrouter(408), {}, "http_408", MODEL_SLOW),
    ("openrouter", 429, openrouter(429), {}, "http_429", QUOTA),
    ("openrouter", 502, openrouter(502), {}, "http_502", MODEL_BROKEN),
    ("openrouter", 503, openrouter(503), {}, "http_503", NOT_READY),
    ("groq", 498, openai(None, None), {"x-groq-region": "r"}, "http_498", MODEL_BUSY),
    ("groq", 413, openai(None, None), {"x-groq-region": "r"}, "http_413", INVALID),
    ("groq", 503, openai(None, None), {"x-groq-region": "r"}, "http_503", MODEL_BUSY),
    (
        "together",
        429,
        {"error": {"message": "m", "type": "t"}, "error_type": "dynamic_request_limited"},
        {},
        "dynamic_request_limited",
        MODEL_QUOTA,
    ),
    (
        "together",
        429,
        {"error": {"message": "m", "type": "dynamic_token_limited", "code": None}},
        {},
        "dynamic_token_limited",
        MODEL_QUOTA,
    ),
    ("vllm", 400, vllm(400), {}, "http_400", INVALID),
    ("vllm", 404, vllm(404, "NotFoundError"), {}, "http_404", NO_MODEL),
    ("vllm", 500, vllm(500, "InternalServerError"), {}, "http_500", HOST_BROKEN),
    (
        "vllm",
        400,
        {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400},
        {},
        "http_400",
        INVALID,
    ),
    ("litellm", 429, litellm("RateLimitError", 429), {}, "RateLimitError", QUOTA),
    (
        "litellm",
        422,
        {"error": {"message": "m", "type": "budget_exceeded", "param": None, "code": "422"}},
        {},
        "BudgetExceededError",
        BILLING,
    ),
    (
        "litellm",
        400,
        litellm("ContextWindowExceededError", 400),
        {},
        "ContextWindowExceededError",
        INVALID,
    ),
    (
        "litellm",
        400,
        litellm("BadRequestError: litellm.ContentPolicyViolationError", 400),
        {"x-litellm-version": "1"},
        "ContentPolicyViolationError",
        SAFETY,
    ),
    ("litellm", 408, litellm("Timeout", 408), {}, "Timeout", MODEL_SLOW),
    ("litellm", 502, litellm("BadGatewayError", 502), {}, "BadGatewayError", MODEL_BROKEN),
    ("litellm", 503, litellm("ServiceUnavailableError", 503), {}, "ServiceUnavailableError", MODEL_BUSY),
    ("litellm", 500, litellm("InternalServerError", 500), {}, "InternalServerError", MODEL_BROKEN),
    ("litellm", 503, litellm("MidStreamFallbackError", 503), {}, "MidStreamFallbackError", STREAM),
]

BEDROCK = {
    "ThrottlingException": (429, QUOTA),
    "ServiceQuotaExceededException": (400, BILLING),
    "ModelNotReadyException": (429, NOT_READY),
    "ModelTimeoutException": (408, MODEL_SLOW),
    "ModelErrorException": (424, ("server", "limited", "model", "success", "failure", "limited")),
    "ModelStreamErrorException": (424, STREAM),
    "InternalServerException": (500, HOST_BROKEN),
    "ServiceUnavailableException": (503, MODEL_BUSY),
    "ValidationException": (400, INVALID),
    "AccessDeniedException": (403, PERMISSION),
    "ResourceNotFoundException": (404, NO_MODEL),
    "ConflictException": (400, INVALID),
}


@pytest.mark.parametrize(
    ("dialect", "status", "body", "headers", "code", "wanted"),
    ROWS,
    ids=[f"{row[0]}-{row[1]}-{row[4]}" for row in ROWS],
)
def test_each_row_of_each_dialect(
    dialect: str, status: int, body: Body, headers: dict[str, str], code: str, wanted: tuple[str, ...]
) -> None:
    """A realistic error is recognised by its shape and means what its service says it means."""
    for value in (body, json.dumps(body).encode()):
        fact = classify(status, headers, value)
        assert (fact.dialect, fact.code, fact.known) == (dialect, code, True)
        assert outcome(fact) == wanted


@pytest.mark.parametrize(
    ("dialect", "status", "body", "headers", "code", "wanted"),
    [row for row in ROWS if row[0] != "gip"],
    ids=[f"{row[0]}-{row[1]}-{row[4]}" for row in ROWS if row[0] != "gip"],
)
def test_a_forced_dialect_reads_its_own_errors_alike(
    dialect: str, status: int, body: Body, headers: dict[str, str], code: str, wanted: tuple[str, ...]
) -> None:
    """Naming the dialect changes nothing about errors that are in it."""
    fact = classify(status, headers, body, dialect=dialect)
    assert (fact.dialect, fact.code, outcome(fact)) == (dialect, code, wanted)


@pytest.mark.parametrize("code", BEDROCK)
def test_bedrock_names_its_exception_in_four_places(code: str) -> None:
    """In a header, in __type (each with or without decoration), or as a member of the event stream."""
    status, wanted = BEDROCK[code]
    member = code[:1].lower() + code[1:]
    answers: list[tuple[int, dict[str, str], Body | None, bool]] = [
        (status, {"x-amzn-ErrorType": code}, {"message": "m"}, False),
        (status, {"x-amzn-ErrorType": f"{code}:http://internal.example/"}, None, False),
        (status, {}, {"__type": code, "message": "m"}, False),
        (status, {}, {"__type": f"com.amazon.coral#{code}", "message": "m"}, False),
        (200, {}, {member: {"message": "m"}}, True),
    ]
    for answered, headers, body, in_stream in answers:
        fact = classify(answered, headers, body, in_stream=in_stream)
        assert (fact.dialect, fact.code, fact.known) == ("bedrock", code, True)
        assert outcome(fact) == wanted


def test_every_row_of_the_reference_is_in_a_table() -> None:
    """Retry, category and scope of each code and each status are those of the reference data."""
    data = json.loads((Path(__file__).parent / "data" / "taxonomy.json").read_bytes())
    left = {name: set(table) for name, table in tables.CODES.items()}
    left_statuses = {name: set(table) for name, table in tables.STATUSES.items()}
    for name in DIALECTS[2:]:
        for row in data[name]["codes"]:
            code = row["code"]
            is_status = code.isdigit() and int(code) < 600
            rule = tables.STATUSES[name][int(code)] if is_status else tables.CODES[name][code]
            retry = {"yes": "backoff"}.get(row["retry"], row["retry"])
            assert (rule.retry.value, rule.category.value, rule.scope.value) == (
                retry,
                row["category"],
                row["scope"],
            )
            (left_statuses if is_status else left)[name].discard(int(code) if is_status else code)
    assert not any(left.values())
    assert not any(left_statuses.values())


def test_every_rule_has_a_policy_that_fits_it() -> None:
    """What is not retried is "other", what is has a class with attempts; aliases lead somewhere."""
    rules = [rule for table in tables.CODES.values() for rule in table.values()]
    rules += [rule for table in tables.STATUSES.values() for rule in table.values()]
    for rule in rules:
        assert rule.policy in POLICY_CLASSES
        assert (rule.policy == "other") == (rule.retry is Retry.NEVER)
    for dialect, aliases in tables.ALIASES.items():
        assert set(aliases.values()) <= set(tables.CODES[dialect])
    assert set(tables.CODES) == set(DIALECTS) - {"auto", "gip"}


# --- whose error is it


@pytest.mark.parametrize("code", ["model_unavailable", "internal_error", "stream_error"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"x-groq-region": "r"}, {"x-litellm-version": "1"}, {"apim-request-id": "1"}],
    ids=["none", "groq", "litellm", "azure"],
)
def test_a_gip_code_in_gips_shape_is_gips(code: str, headers: dict[str, str]) -> None:
    """What a cloud in front of the gateway adds to the headers does not change whose code it is."""
    fact = classify(503, headers, {"error": {"type": "t", "code": code, "message": "m"}})
    assert (fact.dialect, fact.code) == ("gip", code)


def test_names_are_local_to_their_dialect() -> None:
    """Another gateway's model_unavailable is a refusal: named by force, it is not GIP's."""
    body = openai("model_unavailable", "access_error")
    assert classify(403, {}, body).model is Verdict.TRIP
    elsewhere = classify(403, {}, body, dialect="openai")
    assert (elsewhere.known, elsewhere.retry, elsewhere.model) == (False, Retry.NEVER, Verdict.NEUTRAL)
    assert (elsewhere.dialect, elsewhere.code) == ("openai", "model_unavailable")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "body",
    [
        openai("insufficient_quota"),
        openai(None, "insufficient_quota"),
        openai("rate_limit_exceeded", "insufficient_quota"),
        anthropic("insufficient_quota"),
        {"type": "insufficient_quota", "message": "m"},
    ],
    ids=["code", "type", "type-beside-code", "anthropic", "bare"],
)
def test_an_exhausted_quota_is_final_in_every_dialect(dialect: str, body: Body) -> None:
    """insufficient_quota is about money wherever it comes from, as a code or as a type."""
    fact = classify(429, {"Retry-After": "1"}, body, dialect=dialect)
    assert (fact.code, outcome(fact)) == ("insufficient_quota", BILLING)


def test_an_unknown_code_of_an_exhausted_quota_keeps_its_name() -> None:
    """The type decides, the name is kept."""
    fact = classify(429, {}, openai("team_spend_limit_exceeded", "insufficient_quota"))
    assert (fact.code, fact.known, outcome(fact)) == ("team_spend_limit_exceeded", False, BILLING)


@pytest.mark.parametrize(
    "details",
    [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
        },
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "QUOTA_EXHAUSTED"},
    ],
    ids=["per-day", "exhausted"],
)
def test_a_daily_quota_is_not_waited_for(details: dict[str, Any]) -> None:
    """When the body says "tomorrow", there is no second attempt and no gate to close."""
    fact = classify(429, {}, google("RESOURCE_EXHAUSTED", 429, details))
    assert (fact.code, fact.category, fact.should_retry) == ("RESOURCE_EXHAUSTED", Category.RATE_LIMIT, False)
    assert (fact.retry, fact.policy) == (Retry.NEVER, "other")


def test_a_header_veto_leaves_the_meaning_alone() -> None:
    """x-should-retry is the server's word on this request; the quota still comes back for the others."""
    fact = classify(429, {"x-should-retry": "false"}, google("RESOURCE_EXHAUSTED", 429))
    assert (fact.should_retry, fact.retry) == (False, Retry.AFTER_RESET)


def test_a_minutes_quota_is_waited_for() -> None:
    """RetryInfo in the details is the hint."""
    retry_info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
    for body in (
        google("RESOURCE_EXHAUSTED", 429, retry_info),
        [google("RESOURCE_EXHAUSTED", 429, retry_info)],
    ):
        fact = classify(429, {}, body)
        assert fact.hint is not None
        assert (fact.hint.seconds, fact.dialect, fact.retry) == (34.0, "google", Retry.AFTER_RESET)


def test_a_list_with_a_number_is_googles() -> None:
    """Google alone sends its errors in a list; without a status name the number is left."""
    fact = classify(429, {}, [{"error": {"code": 429, "message": "m"}}])
    assert (fact.dialect, fact.code, fact.retry) == ("google", "http_429", Retry.AFTER_RESET)


def test_mistrals_code_may_repeat_the_status() -> None:
    """A number that is a status is not a code of Mistral's."""
    fact = classify(422, {}, mistral("422", 422))
    assert (fact.code, fact.known, outcome(fact)) == ("http_422", True, INVALID)


def test_openrouters_402_is_retried_only_with_a_hint() -> None:
    """In-flight money comes back soon and says when; an empty account does not."""
    with_hint = classify(402, {"Retry-After": "3"}, openrouter(402))
    assert (with_hint.retry, with_hint.policy) == (Retry.IF_HINT, "rate_limit")
    without = classify(402, {}, openrouter(402))
    assert (without.retry, without.policy, without.category) == (Retry.NEVER, "other", Category.BILLING)


@pytest.mark.parametrize(
    ("event", "dialect", "code", "wanted"),
    [
        (anthropic("overloaded_error"), "anthropic", "overloaded_error", HOST_BUSY),
        (
            {"error": {"code": 502, "message": "m"}, "id": "x", "choices": [{"finish_reason": "error"}]},
            "openrouter",
            "http_502",
            MODEL_BROKEN,
        ),
        (vllm(500, "InternalServerError"), "vllm", "http_500", HOST_BROKEN),
        (google("UNAVAILABLE", 503), "google", "UNAVAILABLE", MODEL_BUSY),
        ({"type": "error", "code": "server_error", "message": "m"}, "openai", "server_error", MODEL_BROKEN),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}},
            "openai",
            "server_error",
            MODEL_BROKEN,
        ),
        (
            openai("server_is_overloaded", "service_unavailable_error"),
            "openai",
            "server_is_overloaded",
            MODEL_BUSY,
        ),
        (mistral("1300", 429, "rate_limited"), "mistral", "1300", QUOTA),
        (openai(None, "invalid_request_error"), "anthropic", "invalid_request_error", INVALID),
    ],
    ids=[
        "anthropic",
        "openrouter",
        "vllm",
        "google",
        "openai-flat",
        "openai-response-failed",
        "openai",
        "mistral",
        "type-only",
    ],
)
def test_each_dialect_inside_a_stream(event: Body, dialect: str, code: str, wanted: tuple[str, ...]) -> None:
    """The same names mean the same inside a 200, as data and as an event named error."""
    text = json.dumps(event)
    for body in (event, f"data: {text}\n\n", f"event: error\ndata: {text}\n\n"):
        fact = classify(200, {}, body, in_stream=True)
        assert (fact.dialect, fact.code, outcome(fact)) == (dialect, code, wanted)


def test_a_coarse_type_yields_to_the_status() -> None:
    """OpenAI puts invalid_request_error on every 4xx; the status knows better which."""
    assert classify(401, {}, openai(None)).category is Category.AUTH
    assert classify(429, {}, openai(None)).retry is Retry.AFTER_RESET
    assert classify(404, {}, openai("no_such_thing")).category is Category.NOT_FOUND


def test_a_type_alone_decides_in_openais_shape() -> None:
    """Types that say the same as a code stand in for it."""
    overloaded = classify(503, {}, openai(None, "service_unavailable_error"))
    assert (overloaded.code, overloaded.dialect) == ("server_is_overloaded", "openai")
    relayed = classify(529, {}, {"error": {"type": "overloaded_error", "message": "m"}})
    assert (relayed.code, relayed.dialect) == ("overloaded_error", "anthropic")


def test_a_page_from_an_intermediary_is_nobodys_dialect() -> None:
    """A 503 in HTML is an intermediary's, whichever dialect is expected or named in the headers."""
    for dialect in DIALECTS:
        fact = classify(503, {"x-groq-region": "r"}, b"<html>503</html>", dialect=dialect)
        assert (fact.code, fact.policy, fact.scope) == ("http_503", "intermediary", Scope.HOST)


@pytest.mark.parametrize(
    ("body", "headers", "name", "dialect"),
    [
        (google("DATA_LOSS", 500), {}, "DATA_LOSS", "google"),
        ({"__type": "NewException", "message": "m"}, {}, "NewException", "bedrock"),
        (anthropic("new_error"), {}, "http_500", "anthropic"),
        (mistral("new_code", 500), {}, "new_code", "mistral"),
        (mistral("3700", 500), {}, "3700", "mistral"),
        (openai("new_code", "new_type"), {"x-groq-region": "r"}, "new_code", "groq"),
    ],
    ids=["google", "bedrock", "anthropic", "mistral", "mistral-digits", "groq"],
)
def test_an_unknown_name_of_a_known_dialect(
    body: Body, headers: dict[str, str], name: str, dialect: str
) -> None:
    """The name is kept where the dialect keeps its names; the status decides."""
    fact = classify(500, headers, body)
    assert (fact.code, fact.dialect) == (name, dialect)
    assert fact.retry in {Retry.LIMITED, Retry.BACKOFF}
    assert fact.known == name.startswith("http_")


def test_openais_codes_are_understood_behind_a_relay() -> None:
    """Azure, Groq and LiteLLM pass OpenAI's own codes on."""
    for header in ("x-groq-region", "apim-request-id", "x-litellm-version"):
        fact = classify(400, {header: "1"}, openai("context_length_exceeded"))
        assert (fact.code, fact.known, fact.dialect) == ("context_length_exceeded", True, "openai")


def test_numbers_alone_do_not_make_an_openrouter() -> None:
    """Under a bad status {"error": {"code": 503}} may be anybody's: the status decides, as without a code."""
    fact = classify(503, {}, {"error": {"code": 503, "message": "m"}})
    assert (fact.dialect, fact.code, fact.policy) == ("gip", "http_503", "intermediary")


def test_a_cut_body_keeps_its_dialect() -> None:
    """The marks of a dialect before the cut still count."""
    cut = json.dumps(anthropic("overloaded_error"))[:-40]
    assert classify(529, {}, cut, complete=False).code == "overloaded_error"
    cut = json.dumps(google("RESOURCE_EXHAUSTED", 429, {"x": "y"}))[:-6]
    fact = classify(429, {}, cut, complete=False)
    assert (fact.code, fact.dialect) == ("RESOURCE_EXHAUSTED", "google")
    cut = '{"object":"error","message":"m","type":"rate_limited","code":"1300","raw_sta'
    assert classify(429, {}, cut, complete=False).code == "1300"
    cut = '{"__type":"com.amazon#ThrottlingException","mess'
    assert classify(429, {}, cut, complete=False).code == "ThrottlingException"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.sampled_from(ROWS), st.sampled_from(DIALECTS), st.sampled_from([200, 400, 403, 429, 500, 503, 529]))
def test_any_error_under_any_status_and_dialect(
    row: tuple[str, int, Body, dict[str, str], str, tuple[str, ...]], dialect: str, status: int
) -> None:
    """A wrong guess about the dialect costs precision, never a crash or the retry of a refusal."""
    fact = classify(status, row[3], row[2], dialect=dialect, in_stream=status == 200)
    assert fact.policy in POLICY_CLASSES
    if not fact.known and 400 <= status < 500 and status != 429:
        type_rule = any(fact.type in table for table in (*tables.CODES.values(), *tables.ALIASES.values()))
        assert fact.retry is Retry.NEVER or type_rule


def test_codes_are_those_of_the_tables() -> None:
    """`codes` lists what `known_codes` takes from here, without statuses."""
    assert {"1300", "ABORTED", "RateLimitError"} <= dialects.codes()
    assert not any(code.startswith("http_") for code in dialects.codes())
