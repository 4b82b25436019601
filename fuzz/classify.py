"""Classification: any status, headers and body has a meaning, always the same, in the words of the taxonomy."""

from __future__ import annotations

import json

from fuzz.given import Given
from fuzz.words import BODY_WORDS, HEADER_NAMES, HEADER_VALUES, decoded
from gip_resilience.config import Config
from gip_resilience.taxonomy import (
    DIALECTS,
    POLICY_CLASSES,
    Category,
    Fact,
    Retry,
    Scope,
    Sent,
    Verdict,
    classify,
    known_codes,
)

_STATUSES = (None, 200, 201, 204, 304, 400, 401, 402, 403, 404, 408, 409, 413, 425, 429, 498, 499, 500, 502, 503,
             504, 520, 529, 599)  # fmt: skip
_AGAIN = (408, 425, 429)
_CONFIG = Config()


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    status = given.one_of(_STATUSES) if given.below(8) else given.below(256) * 4
    dialect = "auto" if given.flag() else given.one_of(DIALECTS)
    in_stream, complete, expect_json = (bool(given_bit) for given_bit in _bits(given.byte()))
    headers = given.headers(HEADER_NAMES, HEADER_VALUES)
    body = _body(given)

    def classified() -> Fact:
        return classify(
            status,
            headers,
            body,
            dialect=dialect,
            now=1767225600.0,
            in_stream=in_stream,
            complete=complete,
            expect_json=expect_json,
        )

    fact = classified()
    assert fact == classified()
    _is_in_the_taxonomy(fact)
    if status is not None:
        assert fact.status == status
        assert not (fact.ok and status >= 400)
    if body is None and not headers and dialect == "auto" and status is not None and 400 <= status < 500:
        assert (fact.retry is Retry.NEVER) == (status not in _AGAIN)


def _bits(byte: int) -> tuple[int, int, int]:
    return byte & 1, byte & 2, byte & 4


def _body(given: Given) -> object:
    match given.below(6):
        case 0:
            return given.value(BODY_WORDS, 5)
        case 1:
            return json.dumps({"error": given.value(BODY_WORDS)}).encode()
        case 2:
            return decoded(given.rest())
        case 3:
            return given.rest().decode("utf-8", "replace")
        case 4:
            return None
        case _:
            return given.rest()


def _is_in_the_taxonomy(fact: Fact) -> None:
    assert isinstance(fact.category, Category)
    assert isinstance(fact.retry, Retry)
    assert isinstance(fact.scope, Scope)
    assert isinstance(fact.host, Verdict)
    assert isinstance(fact.model, Verdict)
    assert isinstance(fact.sent, Sent)
    assert fact.policy in POLICY_CLASSES
    assert fact.dialect in DIALECTS
    assert fact.should_retry in (None, True, False)
    # A name reaches logs and metrics: printable, short, and no prose.
    for name in (fact.code, fact.type):
        assert name is None or (
            0 < len(name) <= 64 and name.isascii() and name.isprintable() and " " not in name
        )
    assert isinstance(fact.code, str)
    if fact.known:
        assert fact.code in known_codes() or fact.code.startswith("http_"), fact.code
    assert _CONFIG.policy(fact.code, fact.policy).max_attempts >= 1
