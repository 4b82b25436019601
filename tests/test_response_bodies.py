"""An answer that breaks off in its body is a failure like any other; what is healthy goes by untouched."""

from __future__ import annotations

import gzip
import json
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import gip_resilience as gr
from gip_resilience.gateway import (
    EmptyReply,
    Error,
    FaultPlan,
    Garbage,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Ok,
    Raw,
    Redirect,
    Reset,
    Status,
    WrongType,
)
from harness import CHAT, HARNESSES
from loopback import Loopback
from sending import open_session, read_pieces

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway
    from gip_resilience.gateway.replies import Reply
    from gip_resilience.testing import FakeClock
    from harness import Answer, Harness, Session
    from loopback import Exchange

MIB = 1 << 20

JSON = {"content-type": "application/json"}


# ---- an answer that breaks off --------------------------------------------------------------------------------


class Break(NamedTuple):
    """A way in which a good JSON answer does not arrive."""

    reply: Reply
    codes: tuple[str, ...]
    """What it is called; clients differ in where they notice."""


BREAKS = {
    "fin": Break(HalfBody("fin"), ("truncated_body",)),
    "rst": Break(HalfBody("rst"), ("truncated_body",)),
    "stall": Break(HalfBody("stall"), ("read_timeout",)),
    "short-length": Break(HalfBody("short_length"), ("truncated_body",)),
    "close-delimited": Break(HalfBody("eof"), ("truncated_body",)),
    "gzip": Break(HalfBody("truncated_gzip"), ("truncated_body",)),
    "gzip-fin": Break(HalfBody("fin", then=Gzip()), ("truncated_body",)),
    "bad-chunk": Break(HalfBody("bad_chunk"), ("truncated_body",)),
    "headers-only": Break(Reset("headers"), ("truncated_body",)),
    "half-head-fin": Break(HalfHeaders("fin"), ("connection_lost",)),
    "half-head-rst": Break(HalfHeaders("rst"), ("connection_lost",)),
    "half-head-stall": Break(HalfHeaders("stall"), ("read_timeout",)),
    "half-status-line": Break(Raw(b"HTTP/1."), ("connection_lost",)),
    "status-line": Break(Raw(b"HTTP/1.1 200 OK\r\n"), ("connection_lost",)),
    "half-header-line": Break(Raw(b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-ty"), ("connection_lost",)),
    "headers-without-end": Break(
        Raw(b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 100\r\n"), ("connection_lost", "truncated_body")
    ),
    "typed-headers-without-end": Break(
        Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"), ("connection_lost", "truncated_body")
    ),
    "nothing": Break(EmptyReply(), ("connection_lost",)),
    "garbage": Break(Garbage(), ("connection_lost", "protocol_error")),
    "chunk-cut": Break(
        Raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            b'5\r\n{"a":\r\n40\r\n"b'
        ),
        ("truncated_body",),
    ),
    "last-chunk-missing": Break(
        Raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            b'7\r\n{"a":1}\r\n'
        ),
        ("truncated_body",),
    ),
    "empty-although-json": Break(Status(200, b" ", headers=JSON), ("truncated_body",)),
    "cut-in-a-number": Break(Status(200, b'{"embedding": [0.12, -1.', headers=JSON), ("truncated_body",)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_answer_is_tried_again(
    name: str, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """However a JSON answer breaks off, the caller gets the whole one, and the report tells."""
    url = gateway.base_url + "/chat/completions"
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        expected = mounted.post(url)
        gateway.plan = FaultPlan.script([BREAKS[name].reply])
        gateway.clear()
        answer = mounted.post(url, timeout=0.3 if "stall" in name else 5.0)
    assert (answer.status, answer.content) == (200, expected.content)
    assert len(gateway.requests) == 2
    first, second = answer.report.attempts
    assert first.code in BREAKS[name].codes
    assert first.maybe_executed
    assert second.code == "ok"


def outcome(session: Session, url: str, timeout: float) -> tuple[Any, Answer | None, BaseException | None]:
    """What a caller sees: the bytes, or the type of the error."""
    try:
        answer = session.post(url, timeout=timeout)
    except Exception as error:
        return type(error), None, error
    return (answer.status, answer.content), answer, None


@pytest.mark.parametrize("name", BREAKS)
def test_an_answer_that_stays_broken(name: str, harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """When it never gets better the caller sees what a bare client sees, and the report says what it was."""
    url = gateway.base_url + "/chat/completions"
    gateway.plan = FaultPlan.always(BREAKS[name].reply)
    timeout = 0.1 if "stall" in name else 5.0
    with open_session(harness) as bare:
        expected, _, _ = outcome(bare, url, timeout)
    gateway.clear()
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        seen, answer, error = outcome(mounted, url, timeout)
    assert len(gateway.requests) == 2
    report = gr.report(answer.response if answer else error)
    assert report is not None
    assert report.outcome == "failure"
    assert [attempt.code in BREAKS[name].codes for attempt in report.attempts] == [True, True]
    if harness.name == "requests" and expected == (200, b""):
        # http.client takes the end of the connection for the end of the headers; ours may say more, never less.
        assert seen in {expected, harness.errors.ConnectionError}
    else:
        assert seen == expected


@pytest.mark.parametrize("how", ["fin", "rst", "stall"])
def test_what_arrived_of_a_broken_answer_can_be_read(
    how: str, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """A caller who streams gets the bytes that came, then the error a bare client raises there."""
    url = gateway.base_url + "/chat/completions"
    gateway.plan = FaultPlan.always(HalfBody(how))
    seen = []
    for brain in (None, gr.Resilience(clock=clock)):
        kept: list[bytes] = []
        with open_session(harness, brain) as session, pytest.raises(Exception) as caught:
            read_pieces(session, "POST", url, kept.append, json=CHAT, timeout=0.1 if how == "stall" else 5.0)
        seen.append((b"".join(kept), type(caught.value)))
    assert seen[0][0] or how == "rst"  # a reset may overtake what was sent before it
    if how == "rst":
        assert seen[0][1] is seen[1][1]
    else:
        assert seen[0] == seen[1]


# ---- errors in a 200 ------------------------------------------------------------------------------------------


def test_an_error_envelope_in_a_200(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Its code decides, as in any other answer."""
    url = gateway.base_url + "/chat/completions"
    gateway.plan = FaultPlan.script(
        [Error("model_overloaded", status=200), Error("model_server_error", status=200)]
    )
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(url)
        assert [attempt.code for attempt in answer.report.attempts] == [
            "model_overloaded",
            "model_server_error",
            "ok",
        ]
        gateway.clear()
        gateway.plan = FaultPlan.always(Error("unknown_model", status=200))
        answer = mounted.post(url)
    assert len(gateway.requests) == 1
    assert (answer.status, json.loads(answer.content)["error"]["code"]) == (200, "unknown_model")
    assert answer.report.outcome == "failure"


def test_an_error_envelope_in_a_compressed_200(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Compression hides nothing, and the caller gets it as compressed as it came."""
    gateway.plan = FaultPlan.always(Gzip(Error("model_server_error", status=200)))
    kept: list[bytes] = []
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        response = read_pieces(
            mounted, "POST", gateway.base_url + "/chat/completions", kept.append, json=CHAT
        )
    assert len(gateway.requests) == 3
    assert json.loads(gzip.decompress(b"".join(kept)))["error"]["code"] == "model_server_error"
    assert response.headers["content-encoding"] == "gzip"


def test_a_page_where_json_was_promised(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """A 200 with a web page in it comes from an intermediary: two attempts, and the page to the caller."""
    gateway.plan = FaultPlan.always(Html(200))
    with open_session(harness) as bare:
        expected = bare.post(gateway.base_url + "/chat/completions").content
    gateway.clear()
    brain = gr.Resilience(clock=clock)
    with open_session(harness, brain) as mounted:
        answer = mounted.post(gateway.base_url + "/chat/completions")
    assert len(gateway.requests) == 2
    assert [attempt.code for attempt in answer.report.attempts] == ["html_200", "html_200"]
    assert (answer.status, answer.content) == (200, expected)
    host = gateway.url.removeprefix("http://")
    assert brain.breakers[host, ""].failures == 2
    assert brain.breakers[host, CHAT["model"]].failures == 0


def test_a_page_that_was_asked_for(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """To a plain GET a page is an answer."""
    gateway.plan = FaultPlan.always(Html(200))
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.get(gateway.url + "/page")
    assert len(gateway.requests) == 1
    assert answer.report.outcome == "success"
    assert answer.content.startswith(b"<html>")


# ---- what is healthy ------------------------------------------------------------------------------------------

DEEP = b"[" * 100_000 + b"]" * 100_000
HEALTHY = {
    "deep": DEEP,
    "deep-in-a-field": b'{"error": ' + DEEP + b"}",
    "nan": b'{"logprob": NaN, "other": -Infinity}',
    "bom": b'\xef\xbb\xbf{"a": 1}',
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "utf-16": '{"a": "é"}'.encode("utf-16"),
    "utf-16-le": '{"a": "é"}'.encode("utf-16-le"),
    "scalar": b"12",
    "null": b"null",
    "blanks-around": b' \r\n {"a": 1}\n\n',
    "two-documents": b'{"a": 1}\n{"a": 2}\n',
    "trailing-comma": b'{"a": 1,}',
    "not-json": b"hello",
    "error-is-null": b'{"error": null, "a": 1}',
    "error-in-text": b'{"text": "the word \\"error\\" is {\\"error\\": {\\"code\\": \\"model_overloaded\\"}}"}',
    "error-is-nested": b'{"output": {"error": {"code": "model_overloaded"}}}',
    "large-number": b"[" + b"9" * 6000 + b"]",
}


@pytest.mark.parametrize("body", HEALTHY.values(), ids=HEALTHY)
def test_odd_json_is_the_callers_business(
    body: bytes, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """What came whole is handed up as it is, whatever a strict parser would say about it."""
    gateway.plan = FaultPlan.always(Status(200, body, headers=JSON))
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(gateway.base_url + "/chat/completions")
    assert len(gateway.requests) == 1
    assert (answer.content, answer.report.outcome) == (body, "success")


def test_a_gzip_answer_of_two_members(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Compressed data may be several members in a row (RFC 1952, 2.2); that is no truncation."""
    body = gzip.compress(b'{"a": ', mtime=0) + gzip.compress(b"1}", mtime=0)
    gateway.plan = FaultPlan.always(Status(200, body, headers={**JSON, "content-encoding": "gzip"}))
    kept: list[bytes] = []
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        read_pieces(mounted, "POST", gateway.base_url + "/chat/completions", kept.append, json=CHAT)
    assert len(gateway.requests) == 1
    assert b"".join(kept) == body


BODILESS = {
    "empty-json": ("POST", Status(200, "empty", headers=JSON)),
    "204": ("POST", Status(204, "empty", headers=JSON)),
    "204-delete": ("DELETE", Status(204, "empty")),
    "205": ("POST", Status(205, "empty")),
    "304": ("GET", Status(304, "empty", headers={"etag": '"x"', **JSON})),
    "head": ("HEAD", WrongType("application/json")),
    "head-of-a-failure": ("HEAD", Status(404, "empty")),
    "empty-page": ("GET", Status(200, "empty", headers={"content-type": "text/html"})),
}


@pytest.mark.parametrize("name", BODILESS)
def test_an_answer_without_a_body(name: str, harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Nothing is missing where nothing was promised; one attempt, and the answer as it is."""
    method, reply = BODILESS[name]
    gateway.plan = FaultPlan.always(reply)
    options = {"json": CHAT} if method == "POST" else {}
    with open_session(harness) as bare:
        expected = bare.request(method, gateway.url + "/bytes/100", **options)
    gateway.clear()
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        for _ in range(2):
            answer = mounted.request(method, gateway.url + "/bytes/100", **options)
            assert (answer.status, answer.content) == (expected.status, expected.content)
            assert answer.headers.keys() == expected.headers.keys()
    assert len(gateway.requests) == 2
    assert gateway.connections == 1, "the connection is used again"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(status: int, harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """They are left to the client: with the method, the body and the failures each hop has."""
    seen = []
    for brain in (None, gr.Resilience(clock=clock)):
        gateway.clear()
        gateway.plan = FaultPlan.script([Redirect("/echo", status)], path="/from")
        if brain is not None:
            gateway.plan += FaultPlan.script([Status(503), Status(503)], path="/echo")
        options = {} if harness.name == "requests" else {"follow_redirects": True}
        with open_session(harness, brain) as session:
            answer = session.post(gateway.url + "/from", data={"a": "b" * 5000}, **options)
        hops = [(r.method, r.path, r.body_sha256, r.header("content-length")) for r in gateway.requests]
        seen.append((answer.status, len(answer.history), hops))
    if seen[0][2][1][0] == "POST":
        assert seen[1][2] == [*seen[0][2], seen[0][2][1], seen[0][2][1]], "the second hop, three times"
    else:
        assert set(seen[1][2]) == set(seen[0][2])
    assert seen[1][:2] == seen[0][:2]


def test_a_redirect_with_a_body(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """What a redirect says in its body is not read by us, and is there for who wants it."""
    gateway.plan = FaultPlan.always(
        Status(302, b'{"error": {"code": "model_overloaded"', headers={"location": "/echo", **JSON})
    )
    options = {"allow_redirects": False} if harness.name == "requests" else {}
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(gateway.url + "/from", **options)
    assert len(gateway.requests) == 1
    assert answer.content == b'{"error": {"code": "model_overloaded"'


def test_a_body_that_waits_for_leave(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """``Expect: 100-continue`` works as it does without us: the interim answer is not taken for the answer."""
    gateway.plan = FaultPlan.script([Status(503)])
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(gateway.url + "/echo", headers={"expect": "100-continue"})
    assert (answer.status, json.loads(answer.content)["size"] > 0) == (200, True)
    assert len({seen.body_sha256 for seen in gateway.requests}) == 1
    assert len(gateway.requests) == 2


def test_other_interim_answers(harness: Harness, clock: FakeClock) -> None:
    """103 and its like come before the answer and are not it."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        exchange.answer(200, b'{"a": 1}', "content-type: application/json")

    with Loopback(handle) as server:
        with open_session(harness) as bare:
            expected = bare.post(server.url)
        with open_session(harness, gr.Resilience(clock=clock)) as mounted:
            answer = mounted.post(server.url)
    assert (answer.status, answer.content) == (expected.status, expected.content)
    # http.client skips 100 and no other: there the interim answer is all the caller gets, and a failure.
    assert answer.report.outcome == ("success" if answer.status == 200 else "failure")
    assert server.count == (2 if answer.status == 200 else 3)


def test_an_upgrade_is_not_ours(harness: Harness, clock: FakeClock) -> None:
    """A request for another protocol goes straight to the transport inside, and its socket to the caller."""

    def handle(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: thing\r\n\r\nhello")
        exchange.close()

    headers = {"connection": "upgrade", "upgrade": "thing"}
    brain = gr.Resilience(clock=clock)
    with Loopback(handle) as server, open_session(harness, brain) as mounted:
        if harness.name == "requests":
            with mounted.client.get(server.url, headers=headers, stream=True, timeout=5) as response:
                assert response.status_code == 101
        elif harness.colour == "sync":
            with mounted.client.stream("GET", server.url, headers=headers) as response:
                assert response.status_code == 101
                assert response.extensions["network_stream"].read(5) == b"hello"
        else:

            async def upgrade() -> tuple[int, bytes]:
                async with mounted.client.stream("GET", server.url, headers=headers) as response:
                    return response.status_code, await response.extensions["network_stream"].read(5)

            assert mounted.portal.call(upgrade) == (101, b"hello")
    assert gr.report(response if harness.colour == "sync" else None) is None
    assert brain.metrics.snapshot().total() == 0


# ---- what streams ---------------------------------------------------------------------------------------------

STREAMED = {
    "sse": "text/event-stream",
    "octet-stream": "application/octet-stream",
    "ndjson": "application/x-ndjson",
    "text": "text/plain",
    "page": "text/html",
    "json-over-the-limit": "application/json",
}


@pytest.mark.parametrize("kind", STREAMED)
def test_a_stream_is_not_held_up(kind: str, harness: Harness, clock: FakeClock) -> None:
    """The first piece is with the caller before the server has sent the last, and the bytes are the same."""
    got_first = threading.Event()
    first, last = b'data: {"a": 1}\n\n', b"data: [DONE]\n\n" + b" " * (MIB + 1 if "json" in kind else 0)
    in_time = []

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        length = len(first) + len(last)
        exchange.send(
            f"HTTP/1.1 200 OK\r\ncontent-type: {STREAMED[kind]}\r\ncontent-length: {length}\r\n\r\n".encode(),
            first,
        )
        in_time.append(got_first.wait(10))
        exchange.send(last)

    kept: list[bytes] = []

    def keep(piece: bytes) -> None:
        kept.append(piece)
        got_first.set()

    with Loopback(handle) as server, open_session(harness, gr.Resilience(clock=clock)) as mounted:
        response = read_pieces(mounted, "GET", server.url, keep)
    assert in_time == [True]
    assert b"".join(kept) == first + last
    report = gr.report(response)
    assert report is not None
    assert report.outcome == "success"


def test_json_of_unknown_length_over_the_limit(harness: Harness, clock: FakeClock) -> None:
    """The first mebibyte is read under the retry, then what there is goes up, and the rest as it comes."""
    got_first = threading.Event()
    body = b'{"a": "' + b"x" * (3 * MIB) + b'"}'
    in_time = []

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            b"%x\r\n%b\r\n" % (2 * MIB, body[: 2 * MIB]),
        )
        in_time.append(got_first.wait(10))
        exchange.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 2 * MIB, body[2 * MIB :]))

    kept: list[bytes] = []

    def keep(piece: bytes) -> None:
        kept.append(piece)
        got_first.set()

    with Loopback(handle) as server, open_session(harness, gr.Resilience(clock=clock)) as mounted:
        read_pieces(mounted, "POST", server.url, keep, json=CHAT)
        assert mounted.get(server.url).content == body
    assert in_time == [True, True]
    assert b"".join(kept) == body
    assert (server.count, server.connections) == (2, 1)


def test_a_large_download_is_not_held(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """50 MB go by in pieces: nobody keeps them."""
    size = 50_000_000
    total = 0

    def keep(piece: bytes) -> None:
        nonlocal total
        total += len(piece)

    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        mounted.get(gateway.url + "/healthz")
        tracemalloc.start()
        try:
            read_pieces(mounted, "GET", f"{gateway.url}/bytes/{size}", keep)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert total == size
    assert peak < 4 * MIB


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB])
@pytest.mark.parametrize("harness", [HARNESSES[0], HARNESSES[4], HARNESSES[5]], ids=repr)
def test_sizes_around_the_limit(size: int, harness: Harness, clock: FakeClock) -> None:
    """A JSON answer arrives byte for byte, on whichever side of the limit it is, framed either way."""
    body = b'"' + b"x" * (size - 2) + b'"' if size > 1 else b"1"[:size]

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.number == 1:
            exchange.answer(200, body, "content-type: application/json")
            return
        chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
        exchange.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            chunk,
            b"0\r\n\r\n",
        )

    with Loopback(handle) as server, open_session(harness, gr.Resilience(clock=clock)) as mounted:
        for _ in range(2):
            answer = mounted.post(server.url)
            assert answer.content == body
    # An empty body that nobody announced as empty may have been cut, and is asked for once more.
    assert server.count == (2 if size else 3)


def test_a_healthy_answer_is_the_librarys_own(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Reading under the retry leaves no trace: headers, decoding, ``elapsed``, cookies are as without us."""
    gateway.plan = FaultPlan.always(Gzip(Ok({"set-cookie": "a=b"})))
    with open_session(harness) as bare:
        expected = bare.post(gateway.base_url + "/chat/completions")
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(gateway.base_url + "/chat/completions")
        assert answer.content == expected.content
        assert answer.headers.keys() == expected.headers.keys()
        assert type(answer.response) is type(expected.response)
        assert answer.response.json() == expected.response.json()
        assert answer.response.elapsed.total_seconds() >= 0
        assert mounted.client.cookies["a"] == "b"
        assert answer.response.cookies["a"] == "b"
