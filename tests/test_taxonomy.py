"""What an answer means: GIP's codes, statuses without one, and everything that only looks like a success."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience import taxonomy
from gip_resilience.hints import Hint
from gip_resilience.taxonomy import (
    DIALECTS,
    GIP,
    POLICY_CLASSES,
    Category,
    Code,
    Fact,
    Retry,
    Scope,
    Sent,
    Verdict,
    classify,
    known_codes,
    transport_fact,
)

JSON = {"Content-Type": "application/json"}
HTML = {"Content-Type": "text/html; charset=utf-8"}
NGINX = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"


def gip(code: str | None = None, type_: str | None = "bad_request", message: str = "m") -> bytes:
    """Return an error body in GIP's shape."""
    return json.dumps({"error": {"type": type_, "code": code, "message": message}}).encode()


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


# --- GIP's codes

GIP_TABLE: dict[str, tuple[str, ...]] = {
    "missing_api_key": ("auth", "never", "request", "success", "neutral", "other"),
    "invalid_api_key": ("auth", "never", "credential", "success", "neutral", "other"),
    "unauthorized": ("permission", "never", "credential", "success", "neutral", "other"),
    "rate_limit_exceeded": (
        "rate_limit",
        "after_reset",
        "credential",
        "success",
        "neutral",
        "rate_limit",
    ),
    "invalid_request": ("invalid", "never", "request", "success", "neutral", "other"),
    "invalid_argument": ("invalid", "never", "request", "success", "neutral", "other"),
    "not_found": ("not_found", "never", "request", "success", "neutral", "other"),
    "unknown_model": ("not_found", "never", "model", "success", "neutral", "other"),
    "invalid_content_media": ("content", "never", "request", "success", "neutral", "other"),
    "unavailable_content_media": ("content", "never", "request", "success", "neutral", "other"),
    "unsafe_content": ("safety", "never", "request", "success", "neutral", "other"),
    "unknown_app": ("not_found", "never", "request", "success", "neutral", "other"),
    "invalid_app": ("config", "never", "request", "success", "neutral", "other"),
    "unsupported_interface": ("config", "never", "model", "success", "neutral", "other"),
    "unknown_workspace": ("gateway", "never", "account", "neutral", "neutral", "other"),
    "failed_request": ("gateway", "never", "request", "neutral", "neutral", "other"),
    "internal_error": ("gateway", "never", "host", "failure", "neutral", "other"),
    "model_server_error": ("server", "backoff", "model", "success", "failure", "server"),
    "model_overloaded": ("overload", "backoff", "model", "success", "failure", "overload"),
    "model_unavailable": ("unavailable", "never", "model", "success", "trip", "unavailable"),
    "model_timeout": ("timeout", "backoff", "model", "success", "failure", "timeout"),
    "stream_error": ("stream", "stream", "model", "success", "failure", "stream"),
    "stream_terminated": ("stream", "stream", "model", "success", "failure", "stream"),
}

GIP_STATUSES = (400, 401, 403, 404, 409, 429, 500, 502, 503)


@pytest.mark.parametrize("code", GIP_TABLE)
def test_a_gip_code_means_the_same_under_every_status(code: str) -> None:
    """A code decides alone: whatever the status, and inside a stream."""
    for status in (*GIP_STATUSES, 413, 418, 504, 529, 599):
        fact = classify(status, JSON, gip(code))
        assert (fact.code, outcome(fact)) == (code, GIP_TABLE[code]), status
        assert (fact.status, fact.known, fact.dialect, fact.type) == (status, True, "gip", "bad_request")
    streamed = classify(200, {"Content-Type": "text/event-stream"}, gip(code), in_stream=True)
    assert (streamed.code, outcome(streamed)) == (code, GIP_TABLE[code])


def test_there_are_23_gip_codes() -> None:
    """The enum, the table and the error page hold the same 23 codes, and each policy is a class."""
    assert set(Code) == set(GIP) == set(GIP_TABLE)
    assert len(Code) == 23
    assert {rule.policy for rule in GIP.values()} <= set(POLICY_CLASSES)


def test_the_gip_table_is_the_documented_one() -> None:
    """Category, retry, scope and verdicts are those of the reference data, row by row."""
    taxonomy_data = json.loads((Path(__file__).parent / "data" / "taxonomy.json").read_bytes())
    words = {"yes": "backoff"}
    for row in taxonomy_data["gip"]["codes"]:
        rule = GIP[row["code"]]
        wanted = (row["category"], words.get(row["retry"], row["retry"]), row["scope"])
        assert (rule.category.value, rule.retry.value, rule.scope.value) == wanted
        breaker = row["breaker"]
        assert (rule.host.value, rule.model.value) == (
            breaker.get("host", "neutral"),
            breaker.get("model", "neutral"),
        )
        assert (rule.retry is not Retry.NEVER) == row["doc_retryable"].startswith("Yes")


@pytest.mark.parametrize("code", ["internal_error", "failed_request", "unknown_workspace"])
def test_a_gateway_error_is_not_retried_although_it_is_a_500(code: str) -> None:
    """Retry and health are separate: only internal_error counts against the host, none is retried."""
    fact = classify(500, JSON, gip(code))
    assert fact.retry is Retry.NEVER
    assert (fact.host is Verdict.FAILURE) == (code == "internal_error")


def test_a_rejection_says_nothing_about_the_model() -> None:
    """What never reached the model must not close or open the model's circuit."""
    for code in ("invalid_api_key", "invalid_argument", "unsafe_content", "rate_limit_exceeded"):
        fact = classify(400, JSON, gip(code))
        assert (fact.host, fact.model) == (Verdict.SUCCESS, Verdict.NEUTRAL)


def test_a_type_that_is_a_code_stands_in_for_a_missing_code() -> None:
    """Without a code, a type that names one decides."""
    for body in (gip(None, "model_unavailable"), b'{"error":{"type":"model_unavailable","message":"m"}}'):
        fact = classify(503, JSON, body)
        assert (fact.code, fact.retry, fact.model) == ("model_unavailable", Retry.NEVER, Verdict.TRIP)
        assert fact.known


def test_the_more_specific_code_wins() -> None:
    """details.error_code outranks code, and code outranks type."""
    error = {"type": "model_timeout", "code": "model_overloaded", "message": "m"}
    assert classify(500, JSON, {"error": error}).code == "model_overloaded"
    detailed = {"type": "model_timeout", "message": "m", "details": {"error_code": "model_unavailable"}}
    assert classify(500, JSON, {"error": detailed}).code == "model_unavailable"


def test_the_hint_and_the_servers_word_come_along() -> None:
    """The wait and x-should-retry are reported beside the code, not mixed into it."""
    headers = {**JSON, "Retry-After": "7", "x-should-retry": "false"}
    fact = classify(429, headers, gip("rate_limit_exceeded"))
    assert fact.hint is not None
    assert (fact.hint.seconds, fact.hint.source) == (7.0, "retry-after")
    assert (fact.should_retry, fact.retry) == (False, Retry.AFTER_RESET)


def test_an_error_in_a_200_has_a_hint_too() -> None:
    """Once the body says that it is an error, the headers of the 200 say how long to wait."""
    fact = classify(200, {**JSON, "Retry-After": "9"}, gip("rate_limit_exceeded"))
    assert fact.hint is not None
    assert fact.hint.seconds == 9.0


# --- no code: the status decides

NO_CODE = {
    "json": (JSON, b'{"error":{"message":"m"}}'),
    "gip-without-code": (JSON, b'{"error":{"type":"bad_request","message":"m"}}'),
    "empty-object": (JSON, b"{}"),
    "json-null": (JSON, b"null"),
    "html": (HTML, NGINX),
    "text": ({"Content-Type": "text/plain"}, b"upstream connect error"),
    "empty": ({}, b""),
    "not-read": ({}, None),
}
BY_STATUS = {
    400: ("never", "other"),
    401: ("never", "other"),
    403: ("never", "other"),
    404: ("never", "other"),
    409: ("never", "other"),
    429: ("after_reset", "rate_limit"),
    500: ("limited", "limited"),
    502: ("backoff", "intermediary"),
    503: ("backoff", "intermediary"),
}


@pytest.mark.parametrize("body", NO_CODE)
@pytest.mark.parametrize("status", BY_STATUS)
def test_without_a_code_the_status_decides(status: int, body: str) -> None:
    """JSON without a code, HTML, text and nothing mean the same: what the status means."""
    headers, raw = NO_CODE[body]
    fact = classify(status, headers, raw)
    assert fact.code == f"http_{status}"
    assert (fact.retry.value, fact.policy) == BY_STATUS[status]
    assert fact.known
    assert fact.model is Verdict.NEUTRAL
    assert (fact.host is Verdict.FAILURE) == (status >= 500)


@pytest.mark.parametrize("body", [NGINX, b'{"error":{"message":"m"}}', b"", None], ids=repr)
def test_a_bare_502_or_503_is_an_intermediary(body: bytes | None) -> None:
    """Nobody who knows the models said this: it is evidence about the host alone."""
    for status in (502, 503):
        fact = classify(status, {}, body)
        assert outcome(fact) == ("intermediary", "backoff", "host", "failure", "neutral", "intermediary")


OTHER_STATUSES = [
    (402, "never", "other", "billing"),
    (405, "never", "other", "config"),
    (407, "never", "other", "config"),
    (408, "limited", "timeout", "timeout"),
    (410, "never", "other", "not_found"),
    (413, "never", "other", "invalid"),
    (418, "never", "other", "unknown_4xx"),
    (422, "never", "other", "invalid"),
    (425, "limited", "limited", "unknown_4xx"),
    (498, "never", "other", "unknown_4xx"),
    (499, "never", "other", "cancelled"),
    (501, "never", "other", "config"),
    (504, "limited", "limited", "intermediary"),
    (505, "never", "other", "config"),
    (507, "limited", "limited", "unknown_5xx"),
    (508, "never", "other", "config"),
    (511, "never", "other", "config"),
    (520, "limited", "limited", "intermediary"),
    (529, "backoff", "overload", "overload"),
    (599, "limited", "limited", "unknown_5xx"),
    (600, "limited", "limited", "unknown_5xx"),
]


@pytest.mark.parametrize(("status", "retry", "policy", "category"), OTHER_STATUSES, ids=lambda v: str(v))
def test_statuses_gip_does_not_list(status: int, retry: str, policy: str, category: str) -> None:
    """An unknown 4xx is final, an unknown 5xx is tried once more; the named ones have reasons."""
    fact = classify(status, JSON, b"{}")
    assert (fact.retry.value, fact.policy, fact.category.value) == (retry, policy, category)


def test_a_block_page_is_not_evidence_that_the_host_is_well() -> None:
    """A 403 page in HTML comes from a firewall: about the host, not the key, and no success of the host."""
    page = classify(403, HTML, b"<html>Attention Required!</html>")
    assert (page.scope, page.host, page.retry) == (Scope.HOST, Verdict.NEUTRAL, Retry.NEVER)
    refusal = classify(403, JSON, b'{"message":"Forbidden"}')
    assert (refusal.scope, refusal.host) == (Scope.CREDENTIAL, Verdict.SUCCESS)


# --- unknown codes

UNKNOWN = [(status, *BY_STATUS[status]) for status in BY_STATUS] + [
    (408, "limited", "timeout"),
    (425, "limited", "limited"),
    (418, "never", "other"),
    (504, "limited", "limited"),
    (599, "limited", "limited"),
]


@pytest.mark.parametrize(("status", "retry", "policy"), UNKNOWN, ids=lambda v: str(v))
def test_an_unknown_code_keeps_its_name_and_its_status_decides(status: int, retry: str, policy: str) -> None:
    """A code of the future neither crashes nor is retried for ever, and its name is kept for the metrics."""
    fact = classify(status, JSON, gip("model_haunted", "ghost_error"))
    assert (fact.code, fact.known, fact.type) == ("model_haunted", False, "ghost_error")
    assert (fact.retry.value, fact.policy) == (retry, policy)


def test_an_unknown_code_with_a_known_type_follows_the_type() -> None:
    """The type is the second word: it decides where the code is unknown."""
    fact = classify(503, JSON, gip("model_haunted", "model_unavailable"))
    assert (fact.code, fact.known, fact.retry) == ("model_haunted", False, Retry.NEVER)
    assert fact.model is Verdict.TRIP


def test_an_unknown_error_in_a_stream_is_tried_once_more() -> None:
    """There is no status to go by: like an unknown 5xx, but evidence about the model."""
    for body in (gip("model_haunted"), b'{"error":{"type":"ghost_error","message":"m"}}'):
        fact = classify(200, {}, body, in_stream=True)
        assert (fact.known, fact.retry, fact.policy) == (False, Retry.LIMITED, "limited")
        assert (fact.category, fact.model, fact.host) == (Category.STREAM, Verdict.FAILURE, Verdict.SUCCESS)
    assert classify(200, {}, gip("model_haunted"), in_stream=True).code == "model_haunted"
    assert classify(200, {}, b'{"error":{"type":"ghost_error"}}', in_stream=True).code == "ghost_error"
    assert classify(200, {}, b'{"error":{"message":"m"}}', in_stream=True).code == "error_200"
    assert classify(200, {}, b'{"type":"error","message":"m"}', in_stream=True).code == "error_200"


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("x" * 500, "x" * 64),
        ("a\x00b\x1b[31mc\r\nd", "ab[31mcd"),
        ("quota_dépassé", "quota_dpass"),
        ("  spaced  ", "spaced"),
        ("MODEL_OVERLOADED", "MODEL_OVERLOADED"),
    ],
    ids=["long", "control", "accents", "blanks", "case-matters"],
)
def test_an_unknown_code_is_kept_printable_and_short(code: str, kept: str) -> None:
    """What is kept of a name from outside is printable ASCII of at most 64 characters."""
    fact = classify(500, JSON, gip(code, code))
    assert (fact.code, fact.type, fact.known) == (kept, kept, False)


def test_prose_is_no_name() -> None:
    """A code or type with a blank in it is prose, which may quote the caller: the status decides, none is kept."""
    fact = classify(500, JSON, gip("your prompt is not allowed", "neither is this"))
    assert (fact.code, fact.type) == ("http_500", None)


@pytest.mark.parametrize("code", ["\x00", "é", "   ", ""], ids=repr)
def test_a_code_with_nothing_printable_is_no_code(code: str) -> None:
    """If nothing of the name can be kept, the status names the failure."""
    assert classify(503, JSON, gip(code, None)).code == "http_503"


@pytest.mark.parametrize(
    "code", ["429", 429, "503", 503, "0", 7, "1300", 1300, "20012", True, 1.5, [], {}, None]
)
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_digits_are_not_codes(status: int, code: object) -> None:
    """A number in code, and any other non-name, changes nothing: the status decides."""
    body = {"error": {"type": "some_error", "code": code, "message": "m"}}
    fact = classify(status, JSON, body)
    assert fact.code == f"http_{status}"
    assert (fact.retry.value, fact.policy) == BY_STATUS[status]


@pytest.mark.parametrize(("number", "retry"), [(400, "never"), (429, "after_reset"), (503, "backoff")])
def test_a_number_in_a_stream_stands_for_the_status(number: int, retry: str) -> None:
    """Inside a 200 the number is the only status there is; the host, which answered, is well."""
    for code in (number, str(number)):
        body = {"error": {"type": "some_error", "code": code, "message": "m"}}
        fact = classify(200, {}, body, in_stream=True)
        assert (fact.code, fact.retry.value, fact.host) == (f"http_{number}", retry, Verdict.SUCCESS)


# --- where the error is

ERROR = '{"type":"model_error","code":"model_overloaded","message":"say \\"code\\":\\"invalid_api_key\\""}'
POSITIONS = {
    "top": f'{{"error":{ERROR}}}',
    "spaced": f'\n  {{ "error" : {ERROR} }}\n',
    "bom": f'\ufeff{{"error":{ERROR}}}',
    "list": f'[{{"error":{ERROR}}}]',
    "list-inside": f'{{"error":[{ERROR}]}}',
    "twice-wrapped": f'{{"error":{{"error":{ERROR}}}}}',
    "flat-object": '{"object":"error","type":"model_error","code":"model_overloaded","message":"m"}',
    "flat-type": '{"type":"error","code":"model_overloaded","message":"m"}',
    "anthropic-envelope": f'{{"type":"error","error":{ERROR}}}',
    "bare": '{"type":"model_error","code":"model_overloaded","message":"m"}',
    "string": '{"error":"model_overloaded"}',
    "string-and-code": '{"error":"The model is busy","code":"model_overloaded"}',
    "errors": '{"errors":[{"message":"m","code":"model_overloaded"}]}',
    "errors-extensions": '{"errors":[{"message":"m","extensions":{"code":"model_overloaded"}}]}',
    "detail": '{"detail":{"code":"model_overloaded","message":"m"}}',
    "detail-wrapped": f'{{"detail":{{"error":{ERROR}}}}}',
    "problem": '{"type":"about:blank","title":"t","status":503,"code":"model_overloaded"}',
    "data": f'data: {{"error":{ERROR}}}\n\n',
    "data-no-blank-line": f'data: {{"error":{ERROR}}}',
    "data-crlf": f': ping\r\ndata: {{"error":{ERROR}}}\r\n\r\ndata: [DONE]\r\n\r\n',
    "data-two-lines": f'data: {{"error":\ndata: {ERROR}}}\n\n',
    "event-wrapped": f'event: error\ndata: {{"error":{ERROR}}}\n\n',
    "event-flat": f"event: error\ndata: {ERROR}\n\n",
    "event-after-output": f'data: {{"choices":[{{}}]}}\n\nevent: error\ndata: {{"error":{ERROR}}}\n\n',
    "choices-empty": f'data: {{"id":"x","choices":[],"error":{ERROR}}}\n\n',
    "json-after-lines": f'data: {{"choices":[{{}}]}}\n\n{{"error":{ERROR}}}\n',
    "json-after-lines-pretty": 'data: {"choices":[{}]}\n\n{\n "error": {\n "code":"model_overloaded"\n}\n}\n',
    "json-lines": f'{{"choices":[{{}}]}}\n{{"error":{ERROR}}}\n',
}


def is_document(text: str) -> bool:
    """Whether *text* is one JSON document."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


@pytest.mark.parametrize("position", POSITIONS)
def test_the_error_is_found_wherever_it_is(position: str) -> None:
    """Under a bad status, and inside a stream, every known place is looked into, as bytes and as text."""
    text = POSITIONS[position]
    for body in (text, text.encode()):
        assert classify(503, {}, body).code == "model_overloaded"
    if position not in {"detail", "detail-wrapped", "problem", "bare", "errors-extensions"}:
        fact = classify(200, {}, text, in_stream=True)
        assert (fact.code, fact.retry, fact.status) == ("model_overloaded", Retry.BACKOFF, 200)


@pytest.mark.parametrize("position", [key for key, text in POSITIONS.items() if is_document(text)])
def test_a_decoded_body_means_the_same(position: str) -> None:
    """A body may be handed over decoded; a read-only mapping is one too."""
    value = json.loads(POSITIONS[position])
    assert classify(503, {}, value).code == "model_overloaded"
    if isinstance(value, dict):
        assert classify(503, {}, MappingProxyType(value)).code == "model_overloaded"


@pytest.mark.parametrize(
    "body", ["event: error\ndata: it broke\n\n", "event: error\n\n", "it broke"], ids=repr
)
def test_plain_text_in_a_stream_is_an_unnamed_error(body: str) -> None:
    """`event: error` is an error whatever its data; its text is not kept."""
    fact = classify(200, {}, body, in_stream=True)
    assert (fact.code, fact.retry, fact.policy) == ("error_200", Retry.LIMITED, "limited")
    assert "broke" not in repr(fact)


def test_the_message_is_never_kept() -> None:
    """No word of the server's prose gets into a fact."""
    body = gip("model_overloaded", "model_error", "the secret prompt was: sesame")
    for fact in (
        classify(503, {}, body),
        classify(503, {}, b'{"error":"the secret prompt was: sesame"}'),
        classify(503, {}, b"the secret prompt was: sesame"),
        classify(503, {}, body[:70], complete=False),
    ):
        assert "sesame" not in repr(fact)
        assert "secret" not in repr(fact)


# --- bodies that break off

LONG = json.dumps({"error": {"type": "model_error", "code": "model_unavailable", "message": "x" * 90_000}})


@pytest.mark.parametrize("complete", [True, False])
def test_a_cut_error_body_still_gives_its_code(complete: bool) -> None:
    """A body cut at 64 KiB is no JSON, but the code before the cut counts."""
    fact = classify(503, JSON, LONG.encode()[:65536], complete=complete)
    assert (fact.code, fact.type, fact.retry) == ("model_unavailable", "model_error", Retry.NEVER)


def test_a_body_longer_than_64_kib_is_read_no_further() -> None:
    """What comes after 64 KiB is not looked at."""
    late = '{"error":{"message":"' + "x" * 65536 + '","code":"model_unavailable"}}'
    assert classify(503, JSON, LONG).code == "model_unavailable"
    assert classify(503, JSON, late).code == "http_503"


@pytest.mark.parametrize("cut", range(1, 75))
def test_a_body_cut_anywhere_gives_its_code_or_its_status(cut: int) -> None:
    """At every cut the answer is the whole code or the status, never half a code."""
    whole = gip("model_unavailable")
    fact = classify(503, JSON, whole[:cut], complete=False)
    expected = "model_unavailable" if b'"model_unavailable"' in whole[:cut] else "http_503"
    assert fact.code == expected


def test_a_code_quoted_in_a_cut_message_is_not_a_code() -> None:
    """JSON quoted inside a message has escaped quotes, which tells it from a key."""
    body = '{"error":{"message":"upstream said {\\"code\\":\\"model_unavailable\\"} and'
    assert classify(503, JSON, body, complete=False).code == "http_503"


def test_bytes_that_are_not_utf8_do_not_hide_the_code() -> None:
    """A message in another encoding leaves the names readable."""
    body = '{"error":{"message":"dépassé","code":"model_unavailable"}}'.encode("latin-1")
    assert classify(503, JSON, body).code == "model_unavailable"


# --- successes, and what only looks like one

ANSWER = {"id": "c1", "object": "chat.completion", "choices": [{"message": {"content": "an error: no"}}]}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226])
def test_a_2xx_is_a_success(status: int) -> None:
    """Without an error in the body a 2xx is good news about host and model."""
    for body in (None, ANSWER, json.dumps(ANSWER).encode(), json.dumps(ANSWER)):
        fact = classify(status, JSON, body)
        assert (fact.ok, fact.code, fact.status) == (True, "ok", status)
        assert (fact.host, fact.model, fact.known) == (Verdict.SUCCESS, Verdict.SUCCESS, True)


@pytest.mark.parametrize("status", [301, 304, 307])
def test_a_3xx_says_nothing_about_the_model(status: int) -> None:
    """A redirect shows that the host is there, and no more."""
    fact = classify(status, {}, b"")
    assert (fact.ok, fact.host, fact.model) == (True, Verdict.SUCCESS, Verdict.NEUTRAL)


GOOD_200 = {
    "answer": json.dumps(ANSWER),
    "error-null": '{"id":"r1","output":[],"error":null}',
    "stored-failure": '{"id":"r1","status":"failed","output":[],"error":{"code":"server_error"}}',
    "error-in-data": '{"data":[],"error":"none"}',
    "no-error-key": '{"message":"hello","code":"greeting"}',
    "list": "[1,2]",
    "string": '"error"',
    "nan": '{"id":"x","logprob":-Infinity,"top":NaN}',
    "deep": "[" * 20_000 + "]" * 20_000,
    "deep-nan": "[NaN," + "[" * 20_000 + "]" * 20_001,
    "big-number": '{"id":"x","n":' + "9" * 6000 + "}",
    "two-documents": '{"id":"x"}\n{"id":"y"}',
    "pretty": json.dumps(ANSWER, indent=2) + "\n",
    "stream": 'data: {"choices":[{"delta":{"content":"an error"}}]}\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("body", GOOD_200)
def test_a_whole_answer_is_not_a_failure(body: str) -> None:
    """What a client's own parser accepts is left alone, even where it speaks of errors."""
    headers = {"Content-Type": "text/event-stream"} if body == "stream" else JSON
    assert classify(200, headers, GOOD_200[body].encode()).ok


def test_another_encoding_is_not_a_break() -> None:
    """JSON in UTF-16, or in Latin-1 against the rules, is whole."""
    text = '{"id":"x","content":"é"}'
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"):
        assert classify(200, JSON, text.encode(encoding), expect_json=True).ok, encoding


@pytest.mark.parametrize(
    "body",
    [
        '{"error":{"type":"t","code":"model_overloaded","message":"m"}}',
        '{"error":{"code":"model_overloaded","message":"m"},"user_id":"u"}',
        '{"choices":[],"error":{"code":"model_overloaded"}}',
        '{"error":"model_overloaded"}',
        '{"object":"error","code":"model_overloaded","message":"m"}',
        '{"type":"error","error":{"code":"model_overloaded"}}',
        '[{"error":{"code":"model_overloaded"}}]',
    ],
    ids=lambda body: body[:40],
)
def test_an_error_in_a_200_is_an_error(body: str) -> None:
    """The code decides although the status is good; the status is reported as it was."""
    for value in (body, body.encode(), json.loads(body)):
        fact = classify(200, JSON, value)
        assert (fact.code, fact.retry, fact.status) == ("model_overloaded", Retry.BACKOFF, 200)


def test_an_unnamed_error_in_a_200_is_tried_once_more() -> None:
    """Neither name nor number: nobody knows, so once."""
    fact = classify(200, JSON, b'{"error":"something went wrong"}')
    assert (fact.code, fact.category, fact.retry) == ("error_200", Category.PROTOCOL, Retry.LIMITED)


def test_a_page_instead_of_json_is_a_failure_where_json_is_expected() -> None:
    """A captive portal answers 200; the SDKs hand its HTML on as the answer."""
    for headers, body in ((HTML, b"<p>log in"), ({}, b"  <!DOCTYPE html><p>"), ({}, "<HTML>"), (HTML, None)):
        fact = classify(200, headers, body, expect_json=True)
        assert outcome(fact) == ("protocol", "limited", "host", "failure", "neutral", "limited")
        assert (fact.code, fact.status) == ("html_200", 200)
        assert classify(200, headers, body).ok


@pytest.mark.parametrize("cut", range(1, len(json.dumps(ANSWER)) - 1, 7))
def test_an_answer_that_breaks_off_is_a_failure(cut: int) -> None:
    """JSON cut anywhere is no success: it may have been executed, and it is the model's failure."""
    body = json.dumps(ANSWER).encode()[:cut]
    fact = classify(200, JSON, body)
    assert outcome(fact) == ("protocol", "limited", "model", "neutral", "failure", "timeout")
    assert (fact.code, fact.status, fact.sent) == ("truncated_body", 200, Sent.MAYBE)
    assert fact.maybe_executed


def test_a_body_known_to_be_incomplete_is_a_failure_even_if_it_parses() -> None:
    """The transport knows better than the parser: fewer bytes than promised is a break."""
    assert classify(200, JSON, b'{"id":1}', complete=False).code == "truncated_body"
    assert classify(200, {"Content-Type": "application/problem+json"}, b"{").code == "truncated_body"
    assert classify(200, {"Content-Type": "text/plain"}, b"some", complete=False).ok
    assert classify(200, {"Content-Type": "application/x-ndjson"}, b"{").ok
    assert classify(200, {"Content-Type": "application/stream+json"}, b"{").ok


def test_an_empty_200_is_a_failure_only_where_json_is_expected() -> None:
    """A HEAD or a 204 has no body and is well; a completion without one is not."""
    assert classify(200, JSON, b"").ok
    assert classify(204, JSON, b"", expect_json=True).ok
    assert classify(200, JSON, b"", expect_json=True).code == "truncated_body"


@pytest.mark.parametrize(
    "event",
    [
        '{"id":"x","choices":[{"delta":{"content":"error"}}]}',
        '{"id":"x","choices":[],"usage":{"total_tokens":3}}',
        '{"type":"ping"}',
        '{"type":"message_start","message":{"id":"m","content":[]}}',
        '{"type":"response.completed","response":{"error":null}}',
        "[DONE]",
        "",
    ],
    ids=lambda event: event[:40] or "empty",
)
def test_an_ordinary_event_is_not_an_error(event: str) -> None:
    """The events of a healthy stream are successes."""
    assert classify(200, {}, event, in_stream=True).ok


# --- no answer at all

TRANSPORT = {
    "connect_error": ("connect", "backoff", "host", "failure", "neutral", "connect", "never"),
    "connect_timeout": ("connect", "backoff", "host", "failure", "neutral", "connect", "never"),
    "refused_stream": ("connect", "backoff", "host", "neutral", "neutral", "connect", "never"),
    "tls_error": ("config", "never", "host", "neutral", "neutral", "other", "never"),
    "pool_timeout": ("pool", "backoff", "host", "neutral", "neutral", "pool", "never"),
    "invalid_request_local": ("invalid", "never", "request", "neutral", "neutral", "other", "never"),
    "read_timeout": ("timeout", "limited", "model", "neutral", "failure", "timeout", "maybe"),
    "write_timeout": ("timeout", "limited", "model", "neutral", "failure", "timeout", "maybe"),
    "connection_lost": ("timeout", "limited", "model", "neutral", "failure", "timeout", "maybe"),
    "protocol_error": ("timeout", "limited", "model", "neutral", "failure", "timeout", "maybe"),
    "truncated_body": ("protocol", "limited", "model", "neutral", "failure", "timeout", "maybe"),
}


@pytest.mark.parametrize("kind", TRANSPORT)
def test_a_transport_failure_has_a_prebuilt_fact(kind: str) -> None:
    """What was provably not processed may be sent again; what may have been executed, once."""
    fact = transport_fact(kind)
    assert (*outcome(fact), fact.sent.value) == TRANSPORT[kind]
    assert (fact.code, fact.status, fact.hint) == (kind, None, None)
    assert fact is transport_fact(kind)
    assert fact.policy in POLICY_CLASSES


def test_an_unknown_transport_failure_is_refused() -> None:
    """A misspelt kind is the caller's bug, and the error lists the right ones."""
    with pytest.raises(ValueError, match=r"'gremlins'.*connect_error"):
        transport_fact("gremlins")


def test_no_status_and_no_body_is_a_lost_connection() -> None:
    """Without an answer nothing else is known."""
    assert classify(None) is transport_fact("connection_lost")
    assert classify(None, {}, gip("model_overloaded")).code == "model_overloaded"


# --- around the edges


def test_an_unknown_dialect_is_refused() -> None:
    """A misspelt dialect is the caller's bug, even on a success."""
    with pytest.raises(ValueError, match=r"'klingon'.*anthropic"):
        classify(200, dialect="klingon")


def test_gip_by_force_knows_gip_alone() -> None:
    """Under dialect="gip" other services' names are unknown; their status decides."""
    fact = classify(400, JSON, gip("context_length_exceeded"), dialect="gip")
    assert (fact.code, fact.known, fact.retry) == ("context_length_exceeded", False, Retry.NEVER)
    assert classify(500, JSON, gip("internal_error"), dialect="gip").retry is Retry.NEVER


def test_known_codes_hold_every_code_a_table_knows() -> None:
    """GIP's, the synthetic ones and the other dialects': what a policy may be keyed by."""
    codes = known_codes()
    assert set(Code) | set(TRANSPORT) | {"ok", "html_200", "error_200", "http_429", "http_529"} <= codes
    assert {"overloaded_error", "RESOURCE_EXHAUSTED", "insufficient_quota", "ThrottlingException"} <= codes
    assert "429" not in codes
    assert codes is known_codes()


def test_known_codes_hold_what_only_a_status_or_a_page_says() -> None:
    """Of statuses those of errors, from first to last."""
    codes = known_codes()

    assert {"ok", "html_200", "error_200", "http_400", "http_401", "http_599"} <= codes
    assert codes & {"http_0", "http_399", "http_600"} == set()


def test_a_dialect_that_nobody_speaks_is_the_callers_mistake() -> None:
    """The error names what could have been said."""
    with pytest.raises(ValueError, match=r"^unknown dialect 'elvish'; expected one of auto, gip, "):
        classify(400, dialect="elvish")


def test_who_does_not_say_what_time_it_is_means_the_beginning_of_time() -> None:
    """A date is compared with that."""
    fact = classify(503, {"Retry-After": "Thu, 01 Jan 1970 00:00:30 GMT"})

    assert fact.hint == Hint(30.0, "retry-after")


def test_facts_are_values() -> None:
    """Equal answers give equal, hashable, immutable facts."""
    one, two = classify(503, JSON, gip("model_overloaded")), classify(503, JSON, gip("model_overloaded"))
    assert one == two
    assert hash(one) == hash(two)
    with pytest.raises(FrozenInstanceError):
        one.code = "x"  # type: ignore[misc]


class Headers(dict[str, str]):
    """A library's header object: a mapping with a method for repeated names."""

    def multi_items(self) -> list[tuple[str, str]]:
        """Return all pairs."""
        return list(self.items())


@pytest.mark.parametrize(
    "headers",
    [
        {"CONTENT-TYPE": "Application/JSON; charset=utf-8"},
        [("Content-Type", "application/json")],
        (pair for pair in [("content-type", "application/json")]),
        Headers({"content-type": "application/json"}),
    ],
    ids=["mapping", "pairs", "iterator", "library"],
)
def test_headers_come_in_many_forms(headers: Any) -> None:
    """Mappings, pairs, iterators of pairs; names and media types in any case."""
    assert classify(200, headers, b"{").code == "truncated_body"


def test_an_iterator_of_headers_is_read_once_and_used_throughout() -> None:
    """Hint, veto and dialect all see headers that can be read only once."""
    pairs = iter([("Retry-After", "3"), ("x-should-retry", "true"), ("x-groq-region", "r")])
    fact = classify(498, pairs, b"{}")
    assert fact.hint is not None
    assert (fact.dialect, fact.hint.seconds, fact.should_retry) == ("groq", 3.0, True)


def test_other_dialects_are_loaded_when_one_is_met() -> None:
    """Importing the taxonomy, and classifying GIP's own errors, loads no other table and no heavy module."""
    script = (
        "import sys\n"
        "from gip_resilience.taxonomy import classify\n"
        'body = b\'{"error":{"type":"t","code":"model_overloaded","message":"m"}}\'\n'
        "assert classify(503, {}, body).code == 'model_overloaded'\n"
        "loaded = set(sys.modules)\n"
        "assert not loaded & {'gip_resilience.dialects', 'gip_resilience.dialects.tables',\n"
        "                     'asyncio', 'backoff', 'httpx', 'requests'}, loaded\n"
        "assert classify(529, {}, b'{}').code == 'http_529'\n"
        "assert 'gip_resilience.dialects.tables' in sys.modules\n"
    )
    package = next(iter(sys.modules["gip_resilience"].__path__))
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {package!r} + '/..')\n{script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# --- total on anything

HOSTILE = {
    "deep-list": b"[" * 65_000,
    "deep-object": b'{"error":' * 7_000,
    "deep-whole": b'{"error":' * 5_000 + b"1" + b"}" * 5_000,
    "zeros": b"\x00" * 65_536,
    "newlines": b"{" + b"\n" * 65_535,
    "brace-lines": b"{\n" * 32_768,
    "data-lines": b"data:\n\n" * 9_000,
    "quotes": b'{"code"' + b" " * 65_000,
    "many-codes": b'{"code" ' * 8_000,
    "high-bytes": b'{"error":{"code":"' + b"\xff" * 60_000,
    "long-code": b'{"error":{"code":"' + b"x" * 60_000 + b'"}}',
    "huge-int": b'{"error":{"code":' + b"9" * 60_000 + b"}}",
    "exponent": b'{"error":{"code":1e999}}',
    "surrogate": b'{"error":{"code":"\\ud800"}}',
}


@pytest.mark.parametrize("body", HOSTILE)
@pytest.mark.parametrize("in_stream", [False, True])
@pytest.mark.timeout(2)
def test_hostile_bodies_are_cheap_and_harmless(body: str, in_stream: bool) -> None:
    """64 KiB of anything gives a fact in no time, whatever the status."""
    for status in (None, 200, 429, 503):
        fact = classify(status, JSON, HOSTILE[body], in_stream=in_stream)
        assert fact.policy in POLICY_CLASSES


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["error", "errors", "code", "type", "message", "object", "details", "detail", "status", "metadata", "id"]
)
NAMES = NAMES | st.sampled_from(
    ["error_code", "error_type", "__type", "choices", "raw_status_code", "param", "extensions", "response"]
)
WORDS = st.sampled_from([*GIP_TABLE, "error", "insufficient_quota", "overloaded_error", "429", "UNAVAILABLE"])
ENVELOPES = st.recursive(
    JSON_VALUES | WORDS | st.integers(0, 2000),
    lambda inner: st.dictionaries(NAMES, inner, max_size=5) | st.lists(inner, max_size=2),
    max_leaves=12,
)
BODIES = (
    st.none()
    | st.binary(max_size=200)
    | st.text(max_size=100)
    | ENVELOPES
    | ENVELOPES.map(lambda value: json.dumps(value).encode())
    | ENVELOPES.map(lambda value: b"event: error\ndata: " + json.dumps(value).encode() + b"\n\n")
)
STATUSES = st.none() | st.sampled_from(range(100, 600)) | st.integers()
HEADERS = st.dictionaries(
    st.sampled_from(["Content-Type", "Retry-After", "x-amzn-errortype", "x-groq-region", "x-should-retry"])
    | st.text(max_size=10),
    st.sampled_from(["application/json", "text/html", "1", "ThrottlingException:http://x", "false"])
    | st.text(max_size=20),
    max_size=4,
)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    STATUSES,
    HEADERS,
    BODIES,
    st.sampled_from(DIALECTS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.floats(),
)
def test_classify_is_total(
    status: int | None,
    headers: dict[str, str],
    body: object,
    dialect: str,
    in_stream: bool,
    complete: bool,
    expect_json: bool,
    now: float,
) -> None:
    """Whatever arrives, there is a fact, and it is fit to be kept and acted upon."""
    fact = classify(
        status,
        headers,
        body,
        dialect=dialect,
        now=now,
        in_stream=in_stream,
        complete=complete,
        expect_json=expect_json,
    )
    assert fact.policy in POLICY_CLASSES
    for name in (fact.code, fact.type or "x"):
        assert name.isascii()
        assert name.isprintable()
        assert 0 < len(name) <= 64
    assert fact.known <= (fact.code in known_codes() or not 400 <= (status or 0) < 600)
    assert not (fact.ok and (status or 0) >= 400)
    if fact.policy in {"other", "unavailable"}:
        assert fact.retry is Retry.NEVER


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(max_size=80), st.sampled_from([*range(400, 500)]))
def test_no_unknown_code_makes_a_4xx_retryable(code: str, status: int) -> None:
    """Whatever a server invents under a 4xx is final, but for the three statuses that ask for another try."""
    if code in known_codes() or status in {408, 425, 429}:
        return
    assert classify(status, JSON, gip(code, None)).retry is Retry.NEVER


@settings(deadline=None, derandomize=True, max_examples=150)
@given(ENVELOPES, st.sampled_from([200, 400, 429, 503]))
def test_bytes_text_and_decoded_bodies_agree(value: object, status: int) -> None:
    """The form in which a body is handed over does not change what it means."""
    try:
        raw = msgspec.json.encode(value)
    except UnicodeEncodeError:
        return  # lone surrogates: no JSON text has them
    decoded = msgspec.json.decode(raw)
    if isinstance(decoded, str):
        return  # a decoded string cannot be told from a body in text
    facts = [classify(status, {}, body) for body in (raw, raw.decode(), decoded)]
    assert facts[0] == facts[1]
    assert facts[0] == facts[2]


def test_the_module_has_no_clock_and_no_chance() -> None:
    """Time is an argument: a date in the answer is compared with the caller's now."""
    headers = {"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}
    fact = classify(503, headers, b"", now=1767225600.0)
    assert fact.hint is not None
    assert fact.hint.seconds == pytest.approx(30.0)
    assert not {"time", "random", "datetime", "asyncio"} & set(vars(taxonomy))
