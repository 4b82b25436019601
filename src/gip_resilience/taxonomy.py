"""What an answer means: from status, headers and body to a `Fact`.

The words a fact is made of are in `gip_resilience.facts`, and can be imported from here too.

This module and everything it imports is pure: no clock, no chance, nothing that waits.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from gip_resilience import _shapes
from gip_resilience._gip import GIP, Code
from gip_resilience.facts import (
    OK,
    POLICY_CLASSES,
    STREAM,
    TRANSPORT,
    Category,
    Fact,
    Retry,
    Rule,
    Scope,
    Sent,
    Verdict,
    stream_fact,
    transport_fact,
)
from gip_resilience.hints import retry_hint, should_retry

if TYPE_CHECKING:
    from gip_resilience._shapes import Found
    from gip_resilience.hints import Headers

__all__ = [
    "DIALECTS",
    "GIP",
    "POLICY_CLASSES",
    "Category",
    "Code",
    "Fact",
    "Retry",
    "Rule",
    "Scope",
    "Sent",
    "Verdict",
    "classify",
    "known_codes",
    "stream_fact",
    "transport_fact",
]

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


@cache
def known_codes() -> frozenset[str]:
    """Return every code a fact can carry that some table knows: what a policy may be keyed by."""
    from gip_resilience import dialects

    synthetic = {"ok", "html_200", "error_200", *(f"http_{status}" for status in range(400, 600))}
    return frozenset({*GIP, *TRANSPORT, *STREAM, *synthetic, *dialects.codes()})


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
        return OK
    if status is None and body is None:
        return TRANSPORT["connection_lost"]
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
        return replace(OK, status=status, model=Verdict.NEUTRAL)
    fault = _fault_of_200(status, headers, body, complete=complete, expect_json=expect_json)
    return fault or replace(OK, status=status)


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
        return replace(TRANSPORT["truncated_body"], status=status)
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
