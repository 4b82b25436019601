"""How long a server asks us to wait, and whether it wants us back at all."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from gip_resilience.hints import UNITS, Hint, retry_hint, should_retry, used_up

NOW = 1767225600.0
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
CASES = json.loads((Path(__file__).parent / "data" / "hint_cases.json").read_text("utf-8"))["cases"]


def header_pairs(case: dict[str, Any]) -> list[tuple[str, str]]:
    """The headers of a case, repeated ones one by one."""
    return [
        (name, value)
        for name, values in case["headers"].items()
        for value in (values if isinstance(values, list) else [values])
    ]


def seconds(headers: Any = (), body: Any = None, status: int | None = 429, **options: Any) -> float | None:
    """Only the wait."""
    hint = retry_hint(status, headers, body, NOW, **options)
    return None if hint is None else hint.seconds


def source(headers: Any = (), body: Any = None, status: int | None = 429, **options: Any) -> str | None:
    """Only the source."""
    hint = retry_hint(status, headers, body, NOW, **options)
    return None if hint is None else hint.source


# --- the collected cases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["decoded", "str", "bytes"])
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_collected_case(case: dict[str, Any], form: str) -> None:
    """Every answer seen in the wild, in a specification or in an SDK yields its wait, source and verdict."""
    headers, body = header_pairs(case), case.get("body")
    if form != "decoded" and body is not None:
        text = body if isinstance(body, str) else json.dumps(body)
        body = text if form == "str" else text.encode()
    units = dict.fromkeys(case["headers"], case["reset_unit"]) if "reset_unit" in case else None

    hint = retry_hint(
        case["status"], headers, body, case["now"], in_stream=case.get("in_stream", False), units=units
    )

    if case["expected_wait_s"] is None:
        assert hint is None
    else:
        assert hint is not None
        assert hint.seconds == pytest.approx(case["expected_wait_s"], abs=case.get("tolerance_s", 1e-6))
        assert hint.source == case["expected_signal"]
    assert should_retry(case["status"], headers, body) is case["expected_retry"]


def test_every_case_was_collected() -> None:
    """The case file is whole: a truncated copy would make the test above pass by testing less."""
    assert len(CASES) == 88
    assert len({case["id"] for case in CASES}) == 88


@pytest.mark.parametrize("case", [c for c in CASES if "request_cost" in c], ids=lambda case: case["id"])
def test_wait_for_the_cost_of_the_next_request(case: dict[str, Any]) -> None:
    """With a known cost, a quota that refills linearly is waited for until the request fits."""
    hint = retry_hint(
        case["status"], header_pairs(case), None, case["now"], request_cost=case["request_cost"]
    )

    assert hint is not None
    assert hint.seconds == pytest.approx(case["expected_wait_if_refill_linear_s"])
    assert hint.source == case["expected_signal"]


# --- garbage ----------------------------------------------------------------------------------------------

GARBAGE = {
    "empty": "",
    "blank": " ",
    "tab": "\t",
    "nan": "nan",
    "NaN": "NaN",
    "inf": "inf",
    "minus-inf": "-inf",
    "infinity": "Infinity",
    "negative": "-5",
    "negative-zero": "-0",
    "plus": "+5",
    "overflow": "1e999",
    "exponent": "1e3",
    "underscore": "1_000",
    "hex": "0x10",
    "octal": "0o17",
    "arabic-indic-digit": "٣",
    "fullwidth-digits": "１２",
    "superscript": "5²",
    "leading-point": ".5",
    "trailing-point": "5.",
    "two-points": "1.2.3",
    "thousands": "1,000",
    "inner-blank": "5 5",
    "newline": "5\n",
    "leading-newline": "\n5",
    "carriage-return": "5\r",
    "nul": "5\x00",
    "escape": "\x1b5",
    "vertical-tab": "\x0b5",
    "no-break-space": "\u00a05",
    "em-space": "5\u2003",
    "zero-width": "5\u200b",
    "word": "soon",
    "true": "true",
    "quoted": '"5"',
    "parameter": "5;a=b",
    "21-digits": "9" * 21,
    "many-digits": "9" * 1_000_000,
    "many-fraction-digits": "0." + "0" * 1_000_000,
    "many-minus": "-" * 1_000_000,
    "surrogate": "\ud800",
}
garbage = pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE.keys())


@garbage
@pytest.mark.parametrize(
    "name",
    [
        "retry-after-ms",
        "x-ms-retry-after-ms",
        "x-amz-retry-after",
        "retry-after",
        "x-ratelimit-retry-after",
        "x-ratelimit-reset-after",
        "x-ratelimit-next",
        "ratelimit",
        "x-ratelimit-reset",
        "anthropic-ratelimit-tokens-reset",
        "reset_at",
    ],
)
def test_garbage_in_a_header_is_no_hint(name: str, value: str) -> None:
    """Only what the grammar of a header allows is a wait; `float` would accept several of these."""
    assert retry_hint(429, {name: value}, None, NOW) is None


@garbage
def test_garbage_falls_through_to_the_next_source(value: str) -> None:
    """A malformed value does not hide a good one further down."""
    headers = {"retry-after-ms": value, "retry-after": value, "x-ratelimit-reset": "3"}

    assert retry_hint(429, headers, {"retry_after": value}, NOW) == Hint(3.0, "reset")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        math.nan,
        math.inf,
        -math.inf,
        -5,
        -0.1,
        1e300,
        pytest.param(10**5000, id="huge"),
        [],
        {},
        [5],
        {"seconds": 5},
        *GARBAGE.values(),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_garbage_in_a_body_is_no_hint(value: object) -> None:
    """A decoded body may hold anything, also what JSON cannot."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": value}]
    quoted = {"headers": {"Retry-After": value, "X-RateLimit-Reset": value}}

    assert retry_hint(429, {}, {"retry_after": value}, NOW) is None
    assert retry_hint(429, {}, {"error": {"metadata": {"retry_after_ms": value}}}, NOW) is None
    if not isinstance(value, dict):
        assert retry_hint(429, {}, {"error": {"details": details}}, NOW) is None
    assert retry_hint(429, {}, {"error": {"metadata": quoted}}, NOW) is None


@pytest.mark.parametrize("value", [" 5", "5 ", "\t5\t", "5"])
def test_blanks_around_a_value_do_not_matter(value: str) -> None:
    """HTTP allows spaces and tabs around a field value; some libraries leave them there."""
    assert retry_hint(429, {"Retry-After": value}, None, NOW) == Hint(5.0, "retry-after")


@pytest.mark.parametrize("body", [b'{"retry_after": 1e999}', b'{"retry_after": NaN}', b'{"retry_after": -1}'])
def test_raw_garbage_number_is_no_hint(body: bytes) -> None:
    """Numbers that are not finite waits are refused before or after decoding."""
    assert retry_hint(429, {}, body, NOW) is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe{", id="not-utf8"),
        pytest.param(b'{"message": "\xff try again in 5s"}', id="not-utf8-inside"),
        pytest.param('{"message": "\ud800 try again in 5s"}', id="lone-surrogate"),
        pytest.param(b'{"retry_after": 5', id="cut-off"),
        pytest.param(b"[" * 60_000, id="deep-list"),
        pytest.param(b'{"error":' * 7_000, id="deep-cut-off"),
        pytest.param(b'{"error":' * 5_000 + b"1" + b"}" * 5_000, id="deep"),
        pytest.param(b'{"retry_after": 5, "x": "' + b"x" * 65_536 + b'"}', id="too-large"),
        pytest.param("<html>Please try again in 5s</html>", id="html"),
        pytest.param("Please try again in 5s", id="plain-text"),
        pytest.param(b'"Please try again in 5s"', id="json-string"),
        pytest.param(b"5", id="json-number"),
        pytest.param(b"null", id="json-null"),
        pytest.param(object(), id="no-json-value"),
    ],
)
def test_body_that_cannot_be_read_is_no_hint(body: object) -> None:
    """A body that is no JSON object or list, or too large or too deep, is passed over; headers still count."""
    assert retry_hint(429, {}, body, NOW) is None
    assert retry_hint(429, {"x-ratelimit-reset": "3"}, body, NOW) == Hint(3.0, "reset")
    assert should_retry(429, {}, body) is None


def test_deep_decoded_body_is_no_hint() -> None:
    """A decoded body is not searched recursively."""
    body: dict[str, object] = {}
    for _ in range(100_000):
        body = {"error": body}

    assert retry_hint(429, {}, body, NOW) is None
    assert should_retry(429, {}, body) is None
    while body:  # Unnested by hand: the interpreter itself may not survive freeing it.
        body = body["error"]  # type: ignore[assignment]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "attack",
    [
        "1" * 255 + "x",
        "1s" * 2_000_000,
        "1 minute and " * 300_000,
        "try again in " * 300_000,
        "try again in 1" * 300_000,
        "retry " * 600_000,
        '"' * 4_000_000,
        '"a";r=0;' * 500_000,
        '"' + "\\" * 4_000_000,
        "a;r=0;t=1," * 400_000,
        ";" * 4_000_000,
        "," * 4_000_000,
        ", " * 2_000_000,
        "Thu, " * 800_000,
        " " * 4_000_000,
        "Thu, 01 Jan 2026 00:00:30 GMT, " * 100_000,
    ],
    ids=lambda attack: f"{attack[:14]!r}x{len(attack)}",
)
def test_huge_values_cost_no_more_than_a_scan(attack: str) -> None:
    """No grammar backtracks: what a hostile server sends is dropped, or read once, at its length limit."""
    names = ("retry-after", "ratelimit", "x-ratelimit-reset", "date", "age", "reset_at", "x-should-retry")

    for value in (attack, attack[:4096], attack[:256]):
        for body in ({"error": {"message": value, "retry_after": value}}, json.dumps({"message": value})):
            retry_hint(429, dict.fromkeys(names, value), body, NOW)
            should_retry(429, dict.fromkeys(names, value), body)
    retry_hint(429, {attack: "1", "x-ratelimit-" + attack: "1"}, None, NOW)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("x-ratelimit-reset", "0s" * 127 + "5s", 5),
        ("x-ratelimit-reset", "0s" * 128 + "5s", None),
        ("retry-after", ", ".join(["5"] * 80), 5),
        ("retry-after", ", ".join(["5"] * 90), None),
        ("ratelimit", ", ".join(['"a";r=0;t=5'] * 300), 5),
        ("ratelimit", ", ".join(['"a";r=0;t=5'] * 400), None),
    ],
)
def test_longer_values_are_not_read(name: str, value: str, expected: float | None) -> None:
    """256 characters are read of any header, 4096 of RateLimit, which lists policies."""
    assert seconds({name: value}) == expected


# --- precedence -------------------------------------------------------------------------------------------

RETRY_INFO = {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "105s"}]}
# In order; each with a wait of its own. A source is headers, or the inside of an error body.
SOURCES: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("retry-after-ms", {"retry-after-ms": "101000"}, {}),
    ("x-ms-retry-after-ms", {"x-ms-retry-after-ms": "102000"}, {}),
    ("x-amz-retry-after", {"x-amz-retry-after": "103000"}, {}),
    ("retry-after", {"retry-after": "104"}, {}),
    ("body.RetryInfo", {}, RETRY_INFO),
    ("body.retry_after_ms", {}, {"retry_after_ms": 106_000}),
    ("body.retry_after", {}, {"retry_after": 107}),
    ("body.metadata.headers.retry-after", {}, {"metadata": {"headers": {"Retry-After": "108"}}}),
    ("body.message", {}, {"message": "Try again in 109s"}),
    ("x-ratelimit-reset-after", {"x-ratelimit-reset-after": "110"}, {}),
    ("ratelimit", {"ratelimit": '"a";r=0;t=111'}, {}),
    ("reset:tokens", {"x-ratelimit-reset-tokens": "112"}, {}),
    ("reset_at", {"reset_at": "2026-01-01 00:01:53 UTC"}, {}),
]
ORDER = [source for source, _, _ in SOURCES]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(SOURCES, 2)), ids=lambda s: s[0])
def test_precedence(
    first: tuple[str, dict[str, str], dict[str, Any]], second: tuple[str, dict[str, str], dict[str, Any]]
) -> None:
    """Of two sources the earlier one wins, although the later one has the longer wait."""
    headers = {**second[1], **first[1]}
    error = {**second[2], **first[2]}

    hint = retry_hint(429, headers, {"error": error}, NOW)

    assert hint == Hint(101.0 + ORDER.index(first[0]), first[0])


def test_an_error_is_read_from_the_inside_out() -> None:
    """The error object outranks what stands beside it."""
    body = {"error": {"retry_after": 1}, "errors": [{"retry_after": 2}], "retry_after": 3}

    assert seconds(body=body) == 1


# --- when headers count -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [100, 200, 202, 204, 301, 304, 399])
def test_a_success_asks_for_no_wait(status: int) -> None:
    """Below 400 nothing is a hint, neither headers nor body, unless the error came inside the answer."""
    headers, body = {"retry-after": "5"}, {"error": {"retry_after": 6}}

    assert retry_hint(status, headers, body, NOW) is None
    assert retry_hint(status, headers, body, NOW, in_stream=True) == Hint(5.0, "retry-after")
    assert retry_hint(status, {}, body, NOW, in_stream=True) == Hint(6.0, "body.retry_after")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "9"},
        {"ratelimit": '"a";r=0;t=9'},
    ],
    ids=["reset", "reset-after", "ratelimit"],
)
def test_quota_headers_of_a_success_are_no_hint_for_its_stream(headers: dict[str, str]) -> None:
    """The quota that let the request in is not why its stream broke."""
    assert retry_hint(200, headers, None, NOW, in_stream=True) is None


@pytest.mark.parametrize(
    "status", [None, 400, 401, 402, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 529]
)
def test_plain_waits_count_on_every_failure(status: int | None) -> None:
    """Retry-After and bodies say "wait", whatever failed."""
    assert source({"retry-after": "5"}, status=status) == "retry-after"
    assert source(body={"retry_after": 5}, status=status) == "body.retry_after"


@pytest.mark.parametrize(
    ("status", "ratelimit", "spent", "unknown"),
    [
        (None, False, False, False),
        (400, False, False, False),
        (403, True, True, False),
        (429, True, True, True),
        (500, False, False, False),
        (502, False, False, False),
        (503, True, False, False),
        (504, False, False, False),
        (529, False, False, False),
    ],
)
def test_quota_headers_count_where_a_quota_can_be_the_reason(
    status: int | None, ratelimit: bool, spent: bool, unknown: bool
) -> None:
    """OpenAI sends the family with every answer: a 500 must not inherit a reset of six minutes."""
    reset = {"x-ratelimit-reset": "6m0s"}

    assert (source({"ratelimit": '"a";r=0;t=9'}, status=status) is not None) is ratelimit
    assert (source({**reset, "x-ratelimit-remaining": "0"}, status=status) is not None) is spent
    assert (source({"reset_at": "2026-01-01T00:00:09Z"}, status=status) is not None) is unknown
    assert (source(reset, status=status) is not None) is unknown
    assert source({**reset, "x-ratelimit-remaining": "7"}, status=status) is None


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("0.25", 0.25),
        ("007", 7),
        ("86400", 86_400),
        ("31536000", 31_536_000),
        ("31536001", None),
        ("999999999", None),
        ("1000000000", 0),
        ("1767225645", 45),
        ("1767225645.5", 45.5),
        ("1767225590", 0),
        ("1767225645000", 45),
        ("1767225645000000", 45),
        ("1767225645000000000", 45),
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset", "x-ratelimit-reset-after"])
def test_number_without_a_unit_is_read_by_its_magnitude(
    name: str, value: str, expected: float | None
) -> None:
    """Up to a year is a delay, from 1e9 on a Unix time in s, ms, µs, ns; between them nothing."""
    assert seconds({name: value}) == (expected if expected is None else pytest.approx(expected, abs=1e-3))


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("delta_s", "600000", 600_000),
        ("delta_ms", "600000", 600),
        ("delta_us", "600000", 0.6),
        ("delta_s", "100000000", 100_000_000),
        ("epoch_s", "1767225645", 45),
        ("epoch_ms", "1767225645000", 45),
        ("epoch_us", "1767225645000000", 45),
        ("epoch_ns", "1767225645000000000", 45),
        ("epoch_s", "30", 0),
        ("fortnights", "600000", 600_000),
        ("", "600000", 600_000),
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "x-rate-limit-reset"])
def test_declared_unit_outranks_magnitude(name: str, unit: str, value: str, expected: float) -> None:
    """What a dialect declares for a header is not guessed; an unknown unit is as good as none."""
    assert seconds({name: value}, units={name.title(): unit}) == pytest.approx(expected, abs=1e-3)


def test_every_unit_is_declared_once() -> None:
    """The tests above know all units."""
    assert set(UNITS) == {"delta_s", "delta_ms", "delta_us", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns"}


def test_declared_unit_is_for_its_own_header() -> None:
    """A unit declared for our header says nothing about the same header quoted from an upstream."""
    body = {"error": {"metadata": {"headers": {"X-RateLimit-Reset": "1767225645000"}}}}
    units = {"x-ratelimit-reset": "delta_ms"}

    assert seconds({"x-ratelimit-reset": "5000"}, units=units) == 5
    assert seconds(body=body, units=units) == 45


@pytest.mark.parametrize("name", ["retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after"])
@pytest.mark.parametrize(("value", "expected"), [("0", 0), ("43", 0.043), ("1500.5", 1.5005), ("60000", 60)])
def test_millisecond_headers(name: str, value: str, expected: float) -> None:
    """These names carry milliseconds, unless something else is declared for them."""
    assert seconds({name: value}) == pytest.approx(expected)
    assert seconds({name: value}, units={name: "delta_s"}) == pytest.approx(float(value))
    assert seconds({name: value}, units={name: "nonsense"}) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("120ms", 0.12),
        ("2m59.56s", 179.56),
        ("850µs", 850e-6),
        ("850μs", 850e-6),
        ("850us", 850e-6),
        ("850Âµs", 850e-6),
        ("5ns", 5e-9),
        ("0s", 0),
        ("1d2h", 93_600),
        ("s", None),
        ("5", 5),
        ("5s5", None),
        ("5 s", None),
        ("-5s", None),
        ("5S", None),
        ("5w", None),
        ("1.s", None),
        ("5s ", 5),
    ],
)
def test_go_duration(value: str, expected: float | None) -> None:
    """OpenAI, Groq and others write resets as Go prints durations; µ may arrive as UTF-8 read as Latin-1."""
    assert seconds({"x-ratelimit-reset": value}) == (
        expected if expected is None else pytest.approx(expected)
    )


@pytest.mark.parametrize("value", ["5s", "6m0s", "2026-01-01T00:00:30Z"])
def test_retry_after_is_a_number_or_an_http_date(value: str) -> None:
    """What RFC 9110 does not allow in Retry-After is malformed."""
    assert retry_hint(429, {"retry-after": value}, None, NOW) is None


# --- dates and clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("Thu, 1 Jan 2026 00:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 00:00:30 UTC", 30),
        ("Thursday, 01-Jan-26 00:00:30 GMT", 30),
        ("Thu Jan  1 00:00:30 2026", 30),
        ("Wed Feb 11 00:00:00 2026", 41 * 86_400),
        ("Sun, 29 Feb 2032 00:00:00 GMT", 2250 * 86_400),
        ("Wed, 31 Dec 2025 23:59:60 GMT", 0),
        ("Thu, 01 Jan 2026 00:00:60 GMT", 60),
        ("Friday, 01-Jan-93 00:00:30 GMT", 0),
        ("Friday, 01-Jan-75 00:00:30 GMT", 1_546_300_830),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("Thu, 30 Feb 2026 00:00:30 GMT", None),
        ("Thu, 00 Jan 2026 00:00:30 GMT", None),
        ("Thu, 01 Jan 0000 00:00:30 GMT", None),
        ("Thu, 01 Jan 2026 24:00:00 GMT", None),
        ("Thu, 01 Jan 2026 00:60:00 GMT", None),
        ("Thu, 01 Jan 2026 00:00:61 GMT", None),
        ("Thu, 01 Jän 2026 00:00:30 GMT", None),
        ("jeu, 01 janv 2026 00:00:30 GMT", None),
        ("Thu, 01 Jan 2026 00:00:30 CET", None),
        ("Thu, 01 Jan 2026 00:00:30", None),
        ("Thu, 01 Jan ٢٠٢٦ 00:00:30 GMT", None),
        ("Thu,  01 Jan 2026 00:00:30 GMT", None),
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
def test_http_date(name: str, value: str, expected: float | None) -> None:
    """The three forms of RFC 9110 are read, whatever the locale; impossible dates are malformed."""
    assert seconds({name: value}) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-01T00:00:17Z", 17),
        ("2026-01-01t00:00:17z", 17),
        ("2026-01-01T00:00:17.25Z", 17.25),
        ("2026-01-01T01:00:17+01:00", 17),
        ("2026-01-01T01:00:17+0100", 17),
        ("2025-12-31T18:30:17-05:30", 17),
        ("2026-01-01 00:00:17 UTC", 17),
        ("2026-01-01 00:00:17+00:00", 17),
        ("Thu Jan 01 2026 01:00:17 GMT+0100 (Central European Standard Time)", 17),
        ("Wed Dec 31 2025 19:00:17 GMT-0500", 17),
        ("2026-01-01T00:00:17", None),
        ("2026-01-01", None),
        ("2026-13-01T00:00:17Z", None),
        ("2026-00-01T00:00:17Z", None),
        ("2026-01-01T00:00:17+01:99", None),
        ("Thu Jan 01 2026 01:00:17 GMT+0100 (a (b))", None),
    ],
)
@pytest.mark.parametrize("name", ["x-ratelimit-reset", "x-ratelimit-next", "reset_at"])
def test_other_dates(name: str, value: str, expected: float | None) -> None:
    """Resets also come as RFC 3339 or as JavaScript prints dates; a date without a zone is a guess."""
    assert seconds({name: value}) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        pytest.param({}, 130, id="no-date"),
        pytest.param({"Date": DATE}, 30, id="date"),
        pytest.param({"Date": "Thursday, 01-Jan-26 00:00:00 GMT"}, 30, id="old-date"),
        pytest.param({"Date": "yesterday"}, 130, id="broken-date"),
        pytest.param({"Date": DATE, "Age": "0"}, 30, id="fresh"),
        pytest.param({"Date": DATE, "Age": "12"}, 130, id="cached"),
        pytest.param({"Date": DATE, "Age": "old"}, 30, id="broken-age"),
    ],
)
@pytest.mark.parametrize(
    "wait",
    [
        {"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"},
        {"Retry-After": "1767225630"},
        {"x-ratelimit-reset": "1767225630"},
        {"x-ratelimit-reset": "2026-01-01T00:00:30Z"},
    ],
    ids=["http-date", "epoch", "reset-epoch", "reset-date"],
)
def test_absolute_times_are_measured_by_the_answers_own_clock(
    wait: dict[str, str], clock: dict[str, str], expected: float
) -> None:
    """A client clock that is 100 s slow does not matter if the answer says when it was sent."""
    hint = retry_hint(429, wait | clock, None, NOW - 100)

    assert hint is not None
    assert hint.seconds == expected


@pytest.mark.parametrize(
    ("year", "expected"), [("93", 30), ("94", 31_536_030), ("92", 0), ("26", 1_041_379_230)]
)
def test_two_digit_years_are_near(year: str, expected: float) -> None:
    """A two-digit year is at most 50 years ahead, also when it is still the last century."""
    hint = retry_hint(503, {"retry-after": f"Friday, 01-Jan-{year} 00:00:30 GMT"}, None, 725_846_400.0)

    assert hint == Hint(float(expected), "retry-after")


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
def test_useless_clock_gives_no_absolute_hint(now: float) -> None:
    """Without any usable clock an absolute time says nothing; a delay still does."""
    assert retry_hint(429, {"retry-after": "Thursday, 01-Jan-26 00:00:30 GMT"}, None, now) is None
    assert retry_hint(429, {"retry-after": "5"}, None, now) == Hint(5.0, "retry-after")


# --- repeated headers, header objects ---------------------------------------------------------------------

FIRST, SECOND = "Thu, 01 Jan 2026 00:00:10 GMT", "Thu, 01 Jan 2026 00:00:30 GMT"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["5", "10"], 10),
        (["10", "5"], 10),
        (["5, 10"], 10),
        (["abc", "5"], 5),
        (["abc, 5"], 5),
        (["5, , 7"], 7),
        ([FIRST, SECOND], 30),
        ([f"{SECOND}, {FIRST}"], 30),
        ([f"5, {SECOND}"], 30),
        (["Thursday, 01-Jan-26 00:00:30 GMT, 5"], 30),
        (["Thu, 5"], None),
        (["a", "b"], None),
    ],
)
def test_of_a_repeated_header_the_longest_wait_counts(values: list[str], expected: float | None) -> None:
    """Two proxies may each add one, and clients join them with a comma, which dates contain too."""
    assert seconds([("Retry-After", value) for value in values]) == expected


@pytest.mark.parametrize(
    "make",
    [
        dict,
        lambda pairs: pairs,
        tuple,
        iter,
        lambda pairs: httpx.Headers(pairs),
        lambda pairs: httpx2.Headers(pairs),
        lambda pairs: CaseInsensitiveDict(pairs),
        lambda pairs: urllib3.HTTPHeaderDict(pairs),
        lambda pairs: dict(pairs).items(),
    ],
    ids=["dict", "list", "tuple", "iterator", "httpx", "httpx2", "requests", "urllib3", "items"],
)
def test_header_objects(make: Any) -> None:
    """Any library's headers will do, in any case of letters."""
    assert seconds(make([("X-Other", "1"), ("RETRY-After", "7")])) == 7
    assert should_retry(429, make([("X-Should-RETRY", "false")]), None) is False


@pytest.mark.parametrize(
    "make", [httpx.Headers, httpx2.Headers, urllib3.HTTPHeaderDict], ids=["httpx", "httpx2", "urllib3"]
)
def test_header_objects_with_repeated_names(make: Any) -> None:
    """Repeated names are all read, also where plain ``items()`` would join them."""
    assert seconds(make([("retry-after", "7"), ("Retry-After", "9"), ("retry-after", "8")])) == 9
    assert should_retry(429, make([("x-should-retry", "true"), ("x-should-retry", "false")]), None) is False


def test_headers_that_are_no_text_are_passed_over() -> None:
    """Raw headers as bytes are not read, and do no harm."""
    assert retry_hint(429, [(b"retry-after", b"5"), ("retry-after", None)], None, NOW) is None  # type: ignore[list-item]


# --- quotas -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family",
    [
        "x-ratelimit-{}",
        "x-rate-limit-{}",
        "ratelimit-{}",
        "rate-limit-{}",
        "x-acme-ratelimit-{}",
        "x-acme-rate-limit-{}",
        "acme-ratelimit-{}",
        "X-RateLimit-{}",
    ],
)
@pytest.mark.parametrize(
    ("remaining", "reset", "expected"),
    [
        ("remaining", "reset", "reset"),
        ("remaining-tokens", "reset-tokens", "reset:tokens"),
        ("tokens-remaining", "tokens-reset", "reset:tokens"),
        ("remaining-input-tokens", "reset-input-tokens", "reset:input-tokens"),
        ("remaining-tokens_usage_based", "reset-tokens_usage_based", "reset:tokens_usage_based"),
    ],
)
def test_quota_families(family: str, remaining: str, reset: str, expected: str) -> None:
    """Vendors put their name and the quota's name in different places."""
    spent = {family.format(remaining): "0", family.format(reset): "9"}
    left = {family.format(remaining): "1", family.format(reset): "9"}

    assert retry_hint(429, spent, None, NOW) == Hint(9.0, expected)
    assert retry_hint(429, left, None, NOW) is None


@pytest.mark.parametrize(
    "prefix", ["llm_provider-x-ratelimit-", "upstream-x-ratelimit-", "notratelimit-", "x-a-b-ratelimit-"]
)
def test_quotas_of_somebody_else_are_ignored(prefix: str) -> None:
    """A gateway that quotes its upstream's headers under a prefix does not speak of our quota."""
    assert retry_hint(429, {prefix + "remaining": "0", prefix + "reset": "9"}, None, NOW) is None


TOKENS = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "60"}
REQUESTS = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(TOKENS, Hint(60.0, "reset:tokens"), id="one"),
        pytest.param(TOKENS | REQUESTS, Hint(60.0, "reset:tokens"), id="two: the longest"),
        pytest.param(REQUESTS | TOKENS, Hint(60.0, "reset:tokens"), id="in any order"),
        pytest.param(
            REQUESTS | TOKENS | {"x-ratelimit-remaining-tokens": "5"},
            Hint(1.0, "reset:requests"),
            id="one spent, one not",
        ),
        pytest.param(
            REQUESTS | {"x-ratelimit-reset-tokens": "60"},
            Hint(1.0, "reset:requests"),
            id="one spent, one unknown",
        ),
        pytest.param(
            TOKENS | {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-requests": "1"},
            Hint(1.0, "reset:requests"),
            id="by elimination",
        ),
        pytest.param(
            {"x-ratelimit-reset-tokens": "60", "x-ratelimit-reset-requests": "1"},
            Hint(60.0, "reset:tokens"),
            id="both unknown: the longest",
        ),
        pytest.param(
            TOKENS | {"x-ratelimit-remaining-tokens": "many"}, Hint(60.0, "reset:tokens"), id="malformed"
        ),
        pytest.param(TOKENS | {"x-ratelimit-remaining-tokens": "5"}, None, id="quota left"),
        pytest.param(TOKENS | {"x-ratelimit-remaining-tokens": "-1"}, None, id="sentinel"),
        pytest.param(TOKENS | {"x-ratelimit-remaining-tokens": "0.0"}, Hint(60.0, "reset:tokens"), id="0.0"),
        pytest.param(
            TOKENS | {"x-ratelimit-remaining-tokens": "5, 0"}, Hint(60.0, "reset:tokens"), id="repeated"
        ),
        pytest.param(TOKENS | {"x-ratelimit-reset-tokens": "soon"}, None, id="malformed reset"),
        pytest.param({"x-ratelimit-remaining-tokens": "0"}, None, id="no reset"),
        pytest.param({"x-ratelimit-limit-tokens": "0", "x-ratelimit-used": "5"}, None, id="only a limit"),
        pytest.param(
            {"x-ratelimit-remaining": "5", "x-ratelimit-reset-after": "9"}, None, id="reset-after, quota left"
        ),
        pytest.param(
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "9", "x-ratelimit-reset": "1767225601"},
            Hint(9.0, "x-ratelimit-reset-after"),
            id="reset-after before reset",
        ),
    ],
)
def test_only_quotas_that_can_have_refused_us_count(headers: dict[str, str], expected: Hint | None) -> None:
    """Spent quotas first; then those that do not say what they have left; the longest of them."""
    assert retry_hint(429, headers, None, NOW) == expected


@pytest.mark.parametrize(
    ("remaining", "limit", "cost", "expected"),
    [
        ("0", "150000", 5000, 12),
        ("4000", "150000", 5000, pytest.approx(360 * 1000 / 146_000)),
        ("5000", "150000", 5000, None),
        ("4999", "150000", 4999.5, pytest.approx(360 * 0.5 / 145_001)),
        ("0", "150000", 150_000, 360),
        ("0", "150000", 900_000, 360),
        ("0", "150000", 0, None),
        ("10", "10", 20, 360),
        ("0", None, 5000, 360),
        ("0", "0", 5000, 360),
        ("0", "many", 5000, 360),
        ("0", "150000", math.nan, 360),
        ("0", "150000", math.inf, 360),
        ("0", "150000", -1, 360),
        ("-1", "150000", 5000, None),
        (None, "150000", 5000, 360),
        ("0", "150000, 150000;w=60", 5000, 12),
    ],
)
def test_request_cost(remaining: str | None, limit: str | None, cost: float, expected: Any) -> None:
    """The wait is until the request fits, never beyond the reset; a useless cost is as good as none."""
    headers = {
        "x-ratelimit-reset-tokens": "6m0s",
        **({"x-ratelimit-remaining-tokens": remaining} if remaining else {}),
        **({"x-ratelimit-limit-tokens": limit} if limit else {}),
    }

    assert seconds(headers, request_cost={"tokens": cost}) == expected


def test_request_cost_of_another_quota_changes_nothing() -> None:
    """A quota without a known cost is waited for until its reset; ``""`` is the one without a name."""
    assert seconds(TOKENS | {"x-ratelimit-limit-tokens": "10"}, request_cost={"requests": 1}) == 60
    unnamed = {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "60"}
    assert seconds(unnamed, request_cost={"": 1}) == 6


def test_request_cost_makes_no_permission_error_a_rate_limit() -> None:
    """On a 403, only a quota with nothing left counts."""
    headers = {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "60"}

    assert seconds(headers, status=403, request_cost={"": 5}) is None
    assert seconds(headers | {"x-ratelimit-remaining": "0"}, status=403, request_cost={"": 5}) == 60


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"default";r=0;t=30', 30),
        ('"default"; r=0; t=30', 30),
        ("default;r=0;t=30", 30),
        ('"a";r=0;t=12, "b";r=0;t=90', 90),
        ('"a";r=0;t=12,"b";r=5;t=90', 12),
        ('"a";r=0, "b";r=0;t=9', 9),
        ('"a,b;c";r=0;t=30', 30),
        ('"a\\"b";r=0;t=30', 30),
        ('"a";r=0;t=30;pk=:QXBwLTk5OQ==:', 30),
        ('"a";pk="x;r=9";r=0;t=30', 30),
        ('"a";flag;x=?1;y=1.5;z=tok/en;r=0;t=30', 30),
        ('"a";r=5;r=0;t=30', 30),
        ('"a";t=30', None),
        ('"a";r=0', None),
        ('"a";r=1;t=30', None),
        ('"a";r=0;t=-30', None),
        ('"a";r=0;t=1.5', None),
        ('"a";r=0;t="30"', None),
        ('"a";r=0;t=9999999999999999', None),
        ('"a";r=0;t=30,', None),
        ('"a";r=0;t=30 x', None),
        ('"a;r=0;t=30', None),
        ("r=0", None),
        ("limit=100, remaining=0, reset=53", 53),
        ("limit=100,remaining=0,reset=53", 53),
        ("limit=100;w=60, remaining=0, reset=53", 53),
        ("limit=100, remaining=1, reset=53", None),
        ("limit=100, remaining=0", None),
        ("limit=100, remaining=0, reset=soon", None),
    ],
)
def test_ietf_ratelimit(value: str, expected: float | None) -> None:
    """The longest reset of the policies with nothing left; a malformed field is ignored as a whole."""
    assert seconds({"RateLimit": value}) == expected


def test_ietf_ratelimit_in_several_lines() -> None:
    """A list may be spread over several header lines."""
    assert seconds([("RateLimit", '"a";r=0;t=5'), ("RateLimit", '"b";r=0;t=9')]) == 9


# --- bodies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        lambda error: {"error": error},
        lambda error: error,
        lambda error: [{"error": error}],
        lambda error: {"errors": [{"message": "first"}, error]},
        lambda error: {"detail": error},
        lambda error: {"type": "error", "error": error, "request_id": "r"},
        lambda error: {"object": "error", **error},
        lambda error: {"type": "response.failed", "response": {"error": error}},
        lambda error: {"choices": [], "error": error},
        lambda error: [[], 5, error],
    ],
    ids=["error", "flat", "list", "errors", "detail", "anthropic", "object", "response", "chunk", "mixed"],
)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"retry_after": 64.57}, Hint(64.57, "body.retry_after")),
        ({"retry_after": "30"}, Hint(30.0, "body.retry_after")),
        ({"retry_after": "30s"}, Hint(30.0, "body.retry_after")),
        ({"retry_after": 1767225645}, Hint(45.0, "body.retry_after")),
        ({"retry_after": 0}, Hint(0.0, "body.retry_after")),
        ({"retryAfter": 5}, Hint(5.0, "body.retryAfter")),
        ({"retry_after_seconds": 5}, Hint(5.0, "body.retry_after_seconds")),
        ({"retryAfterSeconds": 5}, Hint(5.0, "body.retryAfterSeconds")),
        ({"retry_after_ms": 500}, Hint(0.5, "body.retry_after_ms")),
        ({"retryAfterMs": "500"}, Hint(0.5, "body.retryAfterMs")),
        ({"extensions": {"retry_in_seconds": 30}}, Hint(30.0, "body.retry_in_seconds")),
        ({"metadata": {"retry_after_seconds": 30}}, Hint(30.0, "body.retry_after_seconds")),
        ({"details": {"retry_after": 30}}, Hint(30.0, "body.retry_after")),
        ({"parameters": {"retry_after": 30}}, Hint(30.0, "body.retry_after")),
        ({"retry_after": None, "retry_after_seconds": 3}, Hint(3.0, "body.retry_after_seconds")),
        ({"message": "Please try again in 6m6s."}, Hint(366.0, "body.message")),
        ({"metadata": "x", "details": 5, "code": [], "message": {}}, None),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_body_fields(place: Any, error: dict[str, Any], expected: Hint | None) -> None:
    """A wait is found in every place where dialects put their errors."""
    assert retry_hint(429, {}, place(error), NOW) == expected


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        ("34s", 34),
        ("34.074824224s", 34.074824224),
        ("900ms", 0.9),
        ("0s", 0),
        ({"seconds": 34, "nanos": 500_000_000}, 34.5),
        ({"seconds": "34"}, 34),
        ({"nanos": 5}, 5e-9),
        ({"seconds": -1}, None),
        ({"seconds": 1, "nanos": "x"}, None),
        ("-34s", None),
        ("34 seconds", None),
        (None, None),
    ],
)
def test_google_retry_info(delay: object, expected: float | None) -> None:
    """A protobuf Duration, as JSON writes it or as an object."""
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    body = {"error": {"details": ["x", {"@type": 5}, detail]}}

    assert seconds(body=body) == (expected if expected is None else pytest.approx(expected))


def test_retry_delay_of_another_type_is_no_retry_info() -> None:
    """The type says what the field means."""
    detail = {"@type": "type.googleapis.com/google.rpc.Help", "retryDelay": "5s"}

    assert retry_hint(429, {}, {"error": {"details": [detail]}}, NOW) is None


@pytest.mark.parametrize(
    ("quoted", "expected"),
    [
        ({"X-RateLimit-Reset": "1767225645000"}, Hint(45.0, "body.metadata.headers.x-ratelimit-reset")),
        ({"X-RateLimit-Reset": 1767225645000}, Hint(45.0, "body.metadata.headers.x-ratelimit-reset")),
        (
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"},
            Hint(5.0, "body.metadata.headers.x-ratelimit-reset"),
        ),
        (
            {"Retry-After": "5", "X-RateLimit-Reset": "9"},
            Hint(5.0, "body.metadata.headers.retry-after"),
        ),
        ({"Retry-After-Ms": 5}, Hint(0.005, "body.metadata.headers.retry-after-ms")),
        ({"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Reset": [5]}, None),
        ({}, None),
        ([], None),
    ],
)
def test_headers_quoted_in_a_body(quoted: object, expected: Hint | None) -> None:
    """OpenRouter quotes the headers of its upstream in the error."""
    assert retry_hint(429, {}, {"error": {"metadata": {"headers": quoted}}}, NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please try again in 59.977s. Visit https://console.example.com", 59.977),
        ("Please try again in 648ms.", 0.648),
        ("Please try again in 6m6s.", 366),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("Please try again in 850µs", 850e-6),
        ("Please retry after 37 seconds. Please contact support.", 37),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("PLEASE RETRY AFTER 1 MINUTE", 60),
        ("retry your request after 2 hours", 7200),
        ("Try again in about 1 minute and 30 seconds.", 90),
        ("try again in 1 minute 30 secs", 90),
        ("Try again in a while. Retry after 5 sec", 5),
        ("try again in 3 days", 259_200),
        ("한도 초과: Please try again in 20s", 20),
        ("retry after 37", None),
        ("retry after 3 attempts", None),
        ("retry in 5x", None),
        ("retry after 3 months", None),
        ("retry after 3 servers are back", None),
        ("try again in -5s", None),
        ("try again in 1e3s", None),
        ("try again in 1_000s", None),
        ("try again in ٣s", None),
        ("try again in 5ſ", None),
        ("the country in 5 days", None),
        ("poetry in 5 days", None),
        ("try again later", None),
        ("please wait 5 seconds", None),
        ("x" * 5000 + " try again in 5s", None),
        ("try again in " + "9" * 400 + "s", None),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else "",
)
@pytest.mark.parametrize("shape", [{"error": {"message": 0}}, {"error": 0}, {"detail": 0}], ids=json.dumps)
def test_prose(shape: dict[str, Any], text: str, expected: float | None) -> None:
    """The phrases of OpenAI, Groq, Azure and Google are read, with their unit; other numbers are not."""
    body = json.loads(json.dumps(shape).replace("0", json.dumps(text)))

    assert seconds(body=body) == (expected if expected is None else pytest.approx(expected))


def test_only_the_head_of_a_list_is_searched() -> None:
    """A body with a thousand errors costs what one with sixteen does."""
    assert seconds(body={"errors": [{}] * 15 + [{"retry_after": 5}]}) == 5
    assert seconds(body={"errors": [{}] * 16 + [{"retry_after": 5}]}) is None


# --- the server's own word --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["true"], True),
        (["false"], False),
        (["true", "false"], False),
        (["false", "true"], False),
        (["maybe", "true"], True),
        (["True"], None),
        (["FALSE"], None),
        (["1"], None),
        ([""], None),
        (["true, true"], None),
        (["truе"], None),
    ],
)
def test_should_retry_header(values: list[str], expected: bool | None) -> None:
    """Exactly ``true`` or ``false``; in doubt the server is spared."""
    assert should_retry(500, [("X-Should-Retry", value) for value in values], None) is expected


def test_should_retry_header_outranks_the_body() -> None:
    """The header was made for the question."""
    assert should_retry(429, {"x-should-retry": "true"}, {"error": {"code": "insufficient_quota"}}) is True


def google(kind: str, **fields: object) -> dict[str, object]:
    """A Google error with one detail."""
    return {
        "error": {"code": 429, "details": [{"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}]}
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"code": "insufficient_quota"}}, False),
        ({"error": {"type": "insufficient_quota", "code": "something_new"}}, False),
        ({"error": {"code": "credit_balance_exhausted"}}, False),
        ({"error": {"code": "organization_spend_limit_exceeded"}}, False),
        ({"error": {"code": "project_spend_limit_exceeded"}}, False),
        ({"error": {"code": "organization_usage_limit_exceeded"}}, False),
        ({"error": {"code": "billing_hard_limit_reached"}}, False),
        ({"error": {"type": "BudgetExceededError"}}, False),
        ({"error": {"type": "budget_exceeded"}}, False),
        ({"type": "error", "error": {"type": "billing_error"}}, False),
        ({"error": {"type": "x", "details": {"error_code": "enforced_spend_limit_reached"}}}, False),
        ({"error": {"type": "x", "details": {"error_code": "contract_spend_limit_reached"}}}, False),
        ({"error": {"type": "x", "details": {"error_code": "something_else"}}}, None),
        ({"response": {"error": {"code": "insufficient_quota"}}}, False),
        ([{"error": {"code": "insufficient_quota"}}], False),
        (google("ErrorInfo", reason="QUOTA_EXHAUSTED"), False),
        (google("ErrorInfo", reason="RATE_LIMIT_EXCEEDED"), None),
        (google("ErrorInfo", reason=["QUOTA_EXHAUSTED"]), None),
        (google("QuotaFailure", violations=[{"quotaId": "GenerateRequestsPerDayPerProject"}]), False),
        (google("QuotaFailure", violations=[{"quotaId": "A"}, {"quotaId": "DailyTokens"}]), False),
        (google("QuotaFailure", violations=[{"quotaId": "RequestsPerMinutePerProject"}]), None),
        (google("QuotaFailure", violations=[{"quotaId": 5}, 5]), None),
        (google("QuotaFailure"), None),
        (google("Help", reason="QUOTA_EXHAUSTED"), None),
        ({"error": {"message": "Rate limit exceeded: free-models-per-day. Add credits"}}, False),
        ({"error": {"metadata": {"limit_source": "free-models-per-day"}}}, False),
        ({"error": {"message": "Rate limit exceeded: free-models-per-min."}}, None),
        ({"error": {"message": "Rate limit reached on requests per day. Try again in 6m6s"}}, None),
        ({"error": {"message": "insufficient_quota"}}, None),
        ({"error": {"code": 429, "type": None, "details": "x", "metadata": "x"}}, None),
        ({"error": {"code": ["insufficient_quota"]}}, None),
        ({"error": {"code": "rate_limit_exceeded"}}, None),
        ({"error": None}, None),
        ({}, None),
        ("", None),
        (None, None),
    ],
    ids=lambda value: json.dumps(value)[-48:] if isinstance(value, dict | list) else "",
)
def test_terminal_bodies(body: object, expected: bool | None) -> None:
    """Money and daily quotas end it; everything else is left to the code's policy."""
    assert should_retry(429, {}, body) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, False),
        (200, False),
        (402, False),
        (403, False),
        (429, False),
        (400, None),
        (500, None),
        (503, None),
    ],
)
def test_name_of_a_limit_counts_where_a_limit_can_be_the_reason(
    status: int | None, expected: bool | None
) -> None:
    """Prose is weak evidence: on a 500 it is not even about a quota. A code is, wherever it stands."""
    assert should_retry(status, {}, {"error": {"message": "free-models-per-day"}}) is expected
    assert should_retry(status, {}, {"error": {"code": "insufficient_quota"}}) is False


# --- values and properties --------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [-1.0, -1e-9, math.nan, math.inf, -math.inf])
def test_hint_refuses_what_nobody_can_wait(wait: float) -> None:
    """A hint is a finite wait of at least 0 s, whoever makes it."""
    with pytest.raises(ValueError, match="finite wait"):
        Hint(wait, "retry-after")


def test_hint_is_a_value() -> None:
    """Hints compare, hash and print as what they are, and cannot be changed."""
    hint = Hint(5.0, "retry-after")

    assert {hint: 1}[Hint(5.0, "retry-after")] == 1
    assert repr(hint) == "Hint(seconds=5.0, source='retry-after')"
    with pytest.raises(AttributeError):
        hint.seconds = 6.0  # type: ignore[misc]


NAMES = st.sampled_from(
    [name.title() for case in CASES for name in case["headers"]]
    + ["x-should-retry", "ratelimit", "retry-after-ms", "age", "date", "anthropic-ratelimit-a-reset"]
) | st.text(max_size=12)
PIECES = st.sampled_from(
    [value for case in CASES for _, value in header_pairs(case)] + list(GARBAGE.values())[:38] + ["9" * 300]
)
VALUES = PIECES | st.text(max_size=20) | st.lists(PIECES, min_size=2, max_size=3).map(", ".join)
KEYS = st.sampled_from(
    [
        "error",
        "errors",
        "message",
        "code",
        "type",
        "details",
        "metadata",
        "headers",
        "retry_after",
        "retryAfterMs",
        "retry_in_seconds",
        "extensions",
        "response",
        "detail",
        "@type",
        "retryDelay",
        "violations",
        "quotaId",
        "reason",
        "seconds",
        "nanos",
        "X-RateLimit-Reset",
        "Retry-After",
        "limit_source",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | PIECES.filter(str.isascii)
    | st.sampled_from(["try again in 5s", "retry after 5 minutes", "google.rpc.RetryInfo", "free-per-day"])
)
TREES = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=4),
    max_leaves=12,
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
STATUSES = st.none() | st.sampled_from([200, 402, 403, 429, 500, 503]) | st.integers(-1, 1000)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    status=STATUSES,
    headers=HEADERS,
    body=TREES | st.binary(max_size=40) | st.text(max_size=40) | st.floats(),
    now=st.floats() | st.just(NOW),
    in_stream=st.booleans(),
    units=st.none() | st.dictionaries(NAMES, st.sampled_from([*UNITS, "days"]), max_size=2),
    cost=st.none() | st.dictionaries(st.sampled_from(["", "tokens", "requests"]), st.floats(), max_size=2),
)
def test_total(
    status: int | None,
    headers: list[tuple[str, str]],
    body: object,
    now: float,
    in_stream: bool,
    units: dict[str, str] | None,
    cost: dict[str, float] | None,
) -> None:
    """Whatever the answer: no exception, and a finite wait of at least 0 s from a source with a plain name."""
    hint = retry_hint(status, headers, body, now, in_stream=in_stream, units=units, request_cost=cost)

    if hint is not None:
        assert isinstance(hint.seconds, float)
        assert 0 <= hint.seconds < math.inf
        assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,80}", hint.source)
    assert should_retry(status, headers, body) in (True, False, None)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(status=STATUSES, headers=HEADERS, body=TREES.filter(lambda tree: isinstance(tree, dict | list)))
def test_raw_and_decoded_bodies_agree(
    status: int | None, headers: list[tuple[str, str]], body: object
) -> None:
    """It does not matter who decodes the body."""
    text = json.dumps(body, ensure_ascii=False)
    hint, verdict = retry_hint(status, headers, body, NOW), should_retry(status, headers, body)

    for raw in (text, text.encode(), bytearray(text.encode())):
        assert retry_hint(status, headers, raw, NOW) == hint
        assert should_retry(status, headers, raw) is verdict


@settings(deadline=None, derandomize=True, max_examples=200)
@given(wait=st.floats(0, 31_536_000), name=st.sampled_from(["retry-after", "x-ratelimit-reset"]))
def test_a_delay_is_read_back(wait: float, name: str) -> None:
    """Any delay of up to a year, written with nine decimals, is the delay that is read."""
    text = f"{wait:.9f}"

    assert seconds({name: text}) == float(text)


# --- quotas that a success used up ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "9"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}, 9.0),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "9"}, None),
        ({"x-ratelimit-remaining": "-1", "x-ratelimit-reset": "9"}, None),
        ({"x-ratelimit-remaining": "nan", "x-ratelimit-reset": "9"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "0"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) + 7), "date": DATE}, 7.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) - 7), "date": DATE}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "60", "x-ratelimit-reset-after": "2"}, 60.0),
        # OpenAI and Anthropic say when the bucket is full.
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1m0s",
            },
            1.0,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0s"}, None),
        (
            {
                "anthropic-ratelimit-requests-limit": "4",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:01:00Z",
                "date": DATE,
            },
            15.0,
        ),
        # One that has something left says nothing; of several that have not, the longest counts.
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "5",
                "x-ratelimit-remaining-tokens": "900",
                "x-ratelimit-reset-tokens": "50",
            },
            5.0,
        ),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "5",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "50",
            },
            50.0,
        ),
        ({"ratelimit": '"default";r=0;t=30'}, 30.0),
        ({"ratelimit": '"default";r=3;t=30, "day";r=0;t=4000'}, 4000.0),
        ({"ratelimit": "limit=100, remaining=0, reset=53"}, 53.0),
        # What a gateway tells of its upstream is not our quota.
        ({"llm_provider-x-ratelimit-remaining": "0", "llm_provider-x-ratelimit-reset": "9"}, None),
    ],
)
def test_a_success_may_say_that_the_next_would_be_refused(
    headers: dict[str, str], wait: float | None
) -> None:
    """Only for as long as that is certain, however small the next request is."""
    hint = used_up(headers, NOW)

    assert (None if hint is None else hint.seconds) == wait


def test_a_duration_may_be_the_end_of_a_window() -> None:
    """Where the user knows that nothing refills before the reset."""
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }

    assert used_up(headers, NOW, refills=False) == Hint(60.0, "reset:requests")


@pytest.mark.parametrize(
    ("reset", "units", "wait"),
    [
        ("30000", None, 30000.0),
        ("30000", {"X-RateLimit-Reset": "delta_ms"}, 30.0),
        ("30000", {"X-RateLimit-Reset": "fortnights"}, 30000.0),
        (str(int(NOW) + 30), None, 30.0),
    ],
)
def test_what_a_success_says_is_read_in_the_units_of_a_failure(
    reset: str, units: dict[str, str] | None, wait: float
) -> None:
    """Names of headers in any case; a unit that nobody knows is as good as none; dates are of the caller's clock."""
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}

    hint = used_up(headers, NOW, units=units)

    assert hint == Hint(wait, "reset")


@given(
    st.dictionaries(st.sampled_from(["x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit"]), st.text())
)
def test_whatever_a_success_says_of_quotas_is_a_wait_or_nothing(headers: dict[str, str]) -> None:
    """Total on anything that headers can hold."""
    hint = used_up(headers, NOW)

    assert hint is None or 0.0 < hint.seconds < math.inf
