"""Errors that are not GIP's: whose are they, and what do they mean?

Recognition goes by the shape of the error, and by headers only where no name of GIP's is in the way. Evidence
is either *evident* (Anthropic's envelope, Google's ``status``, Amazon's header…), and then the names are read
in that dialect alone, or absent: then the error has the shape OpenAI gave to everybody, and the dialects that
share it are asked in turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gip_resilience._gip import GIP
from gip_resilience._shapes import Found, clean, is_status, pairs
from gip_resilience.dialects.statuses import (
    UNNAMED,
    UNNAMED_IN_200,
    UNNAMED_IN_STREAM,
    behind_200,
    by_status,
)
from gip_resilience.dialects.tables import ALIASES, CODES, STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gip_resilience.facts import Rule
    from gip_resilience.hints import Headers

_OPENAI_SHAPED: Final = ("gip", "openai", "groq", "together", "litellm", "azure_openai", "anthropic")
"""Dialects of ``{"error": {"type", "code", "message"}}``, in the order in which a name is looked up."""

_RELAYS: Final = frozenset({"groq", "together", "litellm", "azure_openai"})
"""Dialects whose errors may carry OpenAI's own codes."""

_TABLES: Final[Mapping[str, Mapping[str, Rule]]] = {"gip": GIP, **CODES}

_TERMINAL_TYPE: Final = "insufficient_quota"

_COARSE: Final = frozenset({"invalid_request_error"})
"""Types that, outside Anthropic's dialect, are put on every 4xx: the status says more."""

_HEADER_MARKS: Final = (
    ("x-amzn-errortype", "bedrock"),
    ("x-litellm-", "litellm"),
    ("llm_provider-", "litellm"),
    ("x-groq-", "groq"),
    ("apim-request-id", "azure_openai"),
    ("x-ms-region", "azure_openai"),
    ("anthropic-ratelimit-", "anthropic"),
)

_LITELLM_NAME: Final = re.compile(r"\blitellm\.([A-Za-z]{1,40})")
"""LiteLLM names its exception class only at the head of the message."""


class Reading(NamedTuple):
    """What an error means.

    Attributes:
        rule: the rule that applies; its ``code`` is what to report.
        dialect: the dialect whose table had it.
        known: whether a table knew the error's own code, as opposed to its type or status.
    """

    rule: Rule
    dialect: str
    known: bool


def read(found: Found, status: int | None, headers: Headers, dialect: str, *, streaming: bool) -> Reading:
    """Say what an error means.

    Args:
        found: the error's names.
        status: HTTP status of the answer; ``None`` when there was none.
        headers: headers of the answer.
        dialect: a dialect's name, or ``auto`` to recognise it.
        streaming: whether the error came inside a stream.
    """
    forced = dialect != "auto"
    evident = dialect if forced else recognise(found, status, headers)
    own = _own_name(found, headers, evident)
    raw = clean(own) if own else None
    if _TERMINAL_TYPE in (found.code, found.type, found.detail):
        return _exhausted(found, raw, evident or "openai")
    code_tables, type_tables = _tables(found, evident, forced=forced)
    hit = _first(_codes(found, own, evident), code_tables)
    if hit is not None:
        return Reading(*hit, known=True)
    if found.type and not _is_coarse(found.type, evident, status):
        hit = _first((found.type,), type_tables)
        if hit is not None:
            rule, home = hit
            return Reading(replace(rule, code=raw or rule.code), home, known=raw is None)
    rule, home = _by_number(found, status, evident, streaming=streaming), evident or "gip"
    if raw is None and rule.code == UNNAMED and found.type:
        raw = clean(found.type)  # no code and no number: a type nobody knows is the only name there is
    return Reading(replace(rule, code=raw), home, known=False) if raw else Reading(rule, home, known=True)


def _tables(found: Found, evident: str | None, *, forced: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the dialects in which an error's code, and then its type, is looked up."""
    if evident is None:
        return _OPENAI_SHAPED, _OPENAI_SHAPED
    alone = (evident,)
    if forced:
        return alone, alone
    if found.shape in {"flat", "bare"}:
        return (evident, "gip"), alone  # a shape anybody may use; types are too common to be taken for GIP's
    if evident in _RELAYS:
        both = (evident, *_OPENAI_SHAPED)
        return both, both
    return alone, alone


def _first(names: Iterable[str], order: tuple[str, ...]) -> tuple[Rule, str] | None:
    """Return the rule, and its dialect, of the first of *names* that one of the dialects in *order* knows."""
    for name in names:
        for dialect in order:
            rule = _lookup(dialect, name)
            if rule is not None:
                return rule, dialect
    return None


def _lookup(dialect: str, name: str) -> Rule | None:
    table = _TABLES[dialect]
    rule = table.get(name)
    if rule is None:
        alias = ALIASES.get(dialect, {}).get(name)
        rule = table[alias] if alias else None
    return rule


def _exhausted(found: Found, raw: str | None, home: str) -> Reading:
    """Say what an exhausted account means: the same in every dialect, however the rest of the error reads."""
    openai = CODES["openai"]
    rule = openai[_TERMINAL_TYPE]
    named = openai.get(found.code or "")
    if raw is None or raw == _TERMINAL_TYPE:
        return Reading(rule, home, known=True)
    if named is not None and named.category is rule.category:
        return Reading(named, "openai", known=True)
    if named is not None or any(raw in table for table in _TABLES.values()):
        return Reading(rule, home, known=True)  # the code belies the type: the type decides, and is reported
    return Reading(replace(rule, code=raw), home, known=False)


def _own_name(found: Found, headers: Headers, evident: str | None) -> str | None:
    """Return the name an error gives itself, wherever its dialect keeps it."""
    if evident == "google":
        status = found.error.get("status")
        return status if isinstance(status, str) else found.code
    if evident == "bedrock":
        return next(_exception_names(found.error, headers), found.code)
    if evident == "mistral" and found.digits and not is_status(int(found.digits)):
        return found.digits
    return found.code


def _codes(found: Found, own: str | None, evident: str | None) -> Iterator[str]:
    """Yield the codes to look up, most specific first."""
    if found.detail:
        if found.type:
            yield f"{found.type}/{found.detail}"
        yield found.detail
    if own:
        yield own
    for mapping in (found.error, _top(found)):
        if isinstance(extra := mapping.get("error_type"), str):
            yield extra
    message = found.error.get("message")
    if evident in {None, "litellm"} and isinstance(message, str):
        yield from _LITELLM_NAME.findall(message[:512])


def _is_coarse(type_: str, evident: str | None, status: int | None) -> bool:
    return type_ in _COARSE and evident != "anthropic" and status is not None and status >= 400


def _exception_names(error: Mapping[str, Any], headers: Headers) -> Iterator[str]:
    """Yield Amazon's exception names: ``com.amazon#ThrottlingException``, ``ThrottlingException:http://…``."""
    from_header = (value for name, value in pairs(headers) if name == "x-amzn-errortype")
    for value in (*from_header, error.get("__type")):
        if isinstance(value, str):
            name = value[:256].partition(":")[0].rpartition("#")[2]
            if name:
                yield name


def _by_number(found: Found, status: int | None, evident: str | None, *, streaming: bool) -> Rule:
    failed = status is not None and status >= 400
    number = status if failed else found.number
    if number is None or number < 400:
        return UNNAMED_IN_STREAM if streaming else UNNAMED_IN_200
    # An intermediary's page is nobody's dialect, whatever dialect was expected.
    own = STATUSES.get(evident or "", {}).get(number) if found.is_json or number < 500 else None
    if own is not None:
        return own
    return by_status(number, is_json=found.is_json) if failed else behind_200(number)


def recognise(found: Found, status: int | None, headers: Headers) -> str | None:
    """Name the dialect an error is evidently written in; ``None`` when its shape is the common one."""
    error = found.error
    if found.shape == "flat":
        return _recognise_flat(found)
    if found.shape == "nested":
        top = _top(found)
        if top.get("type") == "error":
            return "anthropic"
        if _is_google(found):
            return "google"
        if _is_openrouter(found, top, status):
            return "openrouter"
        if "innererror" in error or (
            isinstance(error.get("code"), str) and found.digits and "type" not in error
        ):
            return "azure_openai"
        if "param" in error and found.type and isinstance(error.get("code"), int):
            return "vllm"
        if "failed_generation" in error:
            return "groq"
    return _by_header(headers)


def _top(found: Found) -> Mapping[str, Any]:
    """Return the outermost mapping of a body; an empty one where there is none."""
    top = found.root[0] if found.listed and found.root else found.root
    return top if isinstance(top, Mapping) else {}


def _recognise_flat(found: Found) -> str | None:
    error = found.error
    if "__type" in error:
        return "bedrock"
    if error.get("object") != "error":
        return None
    # Both send a flat error; Mistral repeats the status beside a code of its own, vLLM has it as the code.
    return "vllm" if found.number is not None and "raw_status_code" not in error else "mistral"


def _is_google(found: Found) -> bool:
    status = found.error.get("status")
    named = isinstance(status, str) and status.isascii() and status.isupper()
    return named or (found.listed and found.number is not None)


def _is_openrouter(found: Found, top: Mapping[str, Any], status: int | None) -> bool:
    """OpenRouter's code is the status as a number, and there is no type.

    Under a bad status others write that too, so there it takes one of its own fields.
    """
    error = found.error
    if not isinstance(error.get("code"), int) or found.number is None or found.type:
        return False
    return isinstance(error.get("metadata"), Mapping) or "user_id" in top or status is None or status < 400


def _by_header(headers: Headers) -> str | None:
    names = [name for name, _ in pairs(headers)]
    for mark, dialect in _HEADER_MARKS:
        if any(name.startswith(mark) for name in names):
            return dialect
    return None


@lru_cache(maxsize=1)
def codes() -> frozenset[str]:
    """Return every code of every dialect here."""
    return frozenset(code for table in CODES.values() for code in table)
