"""Waits and last words in error bodies. Pure.

Only known places are looked at, and never recursively, so depth and size of a body cost nothing here. No text
of the server leaves this module: prose yields a number, codes yield a verdict.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gip_resilience._hint_headers import MAX_VALUE, RETRY_AFTER, collect, members, reset, retry_after
from gip_resilience._moments import COUNT, NUMBER, SECONDS, Clock, Wait, duration, longest, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_BODY = 64 * 1024
_MAX_TEXT = 4096
_MAX_MEMBERS = 16


def decoded(body: object) -> object:
    """The JSON value of a raw body; ``None`` if it is too large, broken, too deep, or no JSON at all."""
    if not isinstance(body, bytes | bytearray | str):
        return body
    if len(body) > _MAX_BODY:
        return None
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None


def _mappings(value: object) -> Sequence[dict[str, Any]]:
    """The value if it is a mapping; the mappings at the head of it if it is a list."""
    if isinstance(value, dict):
        return (value,)
    if isinstance(value, list):
        return [member for member in value[:_MAX_MEMBERS] if isinstance(member, dict)]
    return ()


def _errors(body: object) -> list[dict[str, Any]]:
    """Wherever dialects keep their errors, innermost first: under a key, in a list, flat."""
    errors: list[dict[str, Any]] = []
    for root in _mappings(body):
        for key in ("error", "errors", "detail"):
            errors += _mappings(root.get(key))
        # OpenAI's response.failed event.
        for response in _mappings(root.get("response")):
            errors += _mappings(response.get("error"))
        errors.append(root)
    return errors


def _texts(error: dict[str, Any]) -> list[str]:
    """The prose of an error, in lower case."""
    values = (error.get("message"), error.get("error"), error.get("detail"))
    return [value[:_MAX_TEXT].lower() for value in values if isinstance(value, str)]


def _is_google(detail: dict[str, Any], kind: str) -> bool:
    name = detail.get("@type")
    return isinstance(name, str) and name.endswith(f"google.rpc.{kind}")


# --- waits ------------------------------------------------------------------------------------------------

_FIELDS: Final[Mapping[str, str]] = {
    "retry_after_ms": "delta_ms",
    "retryAfterMs": "delta_ms",
    "retry_after": "",
    "retryAfter": "",
    "retry_after_seconds": "delta_s",
    "retryAfterSeconds": "delta_s",
    "retry_in_seconds": "delta_s",
}
"""Fields that hold a wait, and their units; ``""`` is seconds unless the magnitude says a Unix time."""
_FIELD_NAMES = frozenset(_FIELDS)
_PLACES = ("metadata", "extensions", "details", "parameters")
"""Where dialects put such fields besides the error itself."""
_QUOTED = ("retry-after-ms", "retry-after", "x-ratelimit-reset")

_WORDS: Final[Mapping[str, float]] = {
    **{unit.lower(): seconds for unit, seconds in SECONDS.items()},
    **dict.fromkeys(("millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("second", "seconds", "sec", "secs"), 1.0),
    **dict.fromkeys(("minute", "minutes", "min", "mins"), 60.0),
    **dict.fromkeys(("hour", "hours", "hr", "hrs"), 3600.0),
    **dict.fromkeys(("day", "days"), 86_400.0),
}
# "Please try again in 59.977s" (OpenAI, Groq), "Please retry after 37 seconds" (Azure), "Please retry in
# 34.07s" (Google). A number without a unit is not read. The pattern starts with a literal, which makes
# searching for it fast; the look-behinds keep "country in 5 days" out.
_ADVICE = re.compile(
    r"try(?:(?<=\btry)|(?<=\bretry))(?: again| your request| the request)? (?:in|after) (?:about )?"
)
_AMOUNT = re.compile(
    r"(?: and | )?([0-9]{1,9}(?:\.[0-9]{1,15})?) ?"
    rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![a-z])"
)


def from_body(body: object, clock: Clock) -> Wait | None:
    """The wait in a decoded body: a field made for it before quoted headers, and prose last."""
    errors = _errors(body)
    for read in (_retry_info, _field, _quoted_header, _advice):
        for error in errors:
            if wait := read(error, clock):
                return wait
    return None


def _retry_info(error: dict[str, Any], clock: Clock) -> Wait | None:
    """``google.rpc.RetryInfo`` in ``details``."""
    if "details" not in error:
        return None
    infos = [detail for detail in _mappings(error.get("details")) if _is_google(detail, "RetryInfo")]
    return longest((_protobuf_duration(info.get("retryDelay"), clock), "body.RetryInfo") for info in infos)


def _protobuf_duration(value: object, clock: Clock) -> float | None:
    """``34.07s``, or ``{"seconds": 34, "nanos": 70000000}``."""
    if not isinstance(value, dict):
        return _amount(value, "delta_s", clock)
    seconds = _amount(value.get("seconds", 0), "delta_s", clock)
    nanos = _amount(value.get("nanos", 0), "delta_s", clock)
    return None if seconds is None or nanos is None else seconds + nanos / 1e9


def _field(error: dict[str, Any], clock: Clock) -> Wait | None:
    """``retry_after`` and its kin."""
    holders = [error]
    for place in _PLACES:
        if place in error:
            holders += _mappings(error[place])
    for holder in holders:
        if _FIELD_NAMES.isdisjoint(holder):
            continue
        for name, unit in _FIELDS.items():
            if name in holder and (wait := longest([(_amount(holder[name], unit, clock), f"body.{name}")])):
                return wait
    return None


def _quoted_header(error: dict[str, Any], clock: Clock) -> Wait | None:
    """Headers quoted in ``metadata.headers`` (OpenRouter)."""
    metadata = error.get("metadata")
    quoted = metadata.get("headers") if isinstance(metadata, dict) else None
    if not isinstance(quoted, dict):
        return None
    fields = collect({name: _as_header(value) for name, value in quoted.items()})
    if any(parsed(COUNT, text) for text in fields.get("x-ratelimit-remaining", ())):
        fields.pop("x-ratelimit-reset", None)
    for name in _QUOTED:
        read = reset if name == "x-ratelimit-reset" else retry_after
        unit = RETRY_AFTER.get(name, "")
        waits = ((read(text, unit, clock), name) for text in members(fields.get(name, ())))
        if wait := longest(waits):
            return wait[0], f"body.metadata.headers.{name}"
    return None


def _as_header(value: object) -> str:
    if isinstance(value, int) and abs(value) < 10**20:
        return str(value)
    return value if isinstance(value, str) else ""


def _advice(error: dict[str, Any], _: Clock) -> Wait | None:
    """The prose, for people; only the number is kept."""
    for text in _texts(error):
        for advice in _ADVICE.finditer(text):
            total, position = 0.0, advice.end()
            while amount := _AMOUNT.match(text, position):
                total += float(amount[1]) * _WORDS[amount[2]]
                position = amount.end()
            if position > advice.end():
                return total, "body.message"
    return None


def _amount(value: object, unit: str, clock: Clock) -> float | None:
    """A number, a number in a string, or a duration such as ``34.07s``."""
    if isinstance(value, str) and len(value) <= MAX_VALUE:
        number = parsed(NUMBER, value)
        if number is None:
            return duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e20:
        number = float(value)
    else:
        return None
    return clock.number(number, unit)


# --- last words -------------------------------------------------------------------------------------------

# Money, not time. From the error tables of OpenAI, Anthropic and LiteLLM.
_TERMINAL_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
        "billing_error",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "BudgetExceededError",
        "budget_exceeded",
    }
)
_DAILY_QUOTA = re.compile(r"PerDay|Daily")


def is_terminal(body: object) -> bool:
    """Whether a decoded body names a quota that no reasonable wait refills: money, or a day's worth."""
    for error in _errors(body):
        if _is_terminal_code(error.get("code")) or _is_terminal_code(error.get("type")):
            return True
        for detail in _mappings(error.get("details")):
            if _is_terminal_code(detail.get("error_code")) or _is_spent_google_quota(detail):
                return True
    return False


def names_daily_limit(body: object) -> bool:
    """Whether the limit that was hit is called ``...-per-day`` (OpenRouter: ``free-models-per-day``)."""
    return any("-per-day" in text for error in _errors(body) for text in _limit_names(error))


def _limit_names(error: dict[str, Any]) -> list[str]:
    metadata = error.get("metadata")
    source = metadata.get("limit_source") if isinstance(metadata, dict) else None
    return [*_texts(error), source[:MAX_VALUE].lower()] if isinstance(source, str) else _texts(error)


def _is_terminal_code(code: object) -> bool:
    return isinstance(code, str) and code in _TERMINAL_CODES


def _is_spent_google_quota(detail: dict[str, Any]) -> bool:
    if _is_google(detail, "ErrorInfo"):
        return detail.get("reason") == "QUOTA_EXHAUSTED"
    if not _is_google(detail, "QuotaFailure"):
        return False
    ids = (violation.get("quotaId") for violation in _mappings(detail.get("violations")))
    return any(isinstance(name, str) and _DAILY_QUOTA.search(name[:MAX_VALUE]) for name in ids)
