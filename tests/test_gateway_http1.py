"""The gateway's reader of HTTP/1.1: strict, bounded, and never surprised."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gip_resilience.gateway.http1 import BadRequest, Request, RequestParser

HOST = b"Host: localhost\r\n"


def outcome(chunks: list[bytes], **limits: int) -> list[Request | int]:
    """The requests in *chunks*, and at the end the status of a refusal if there was one."""
    parser = RequestParser(**limits)
    found: list[Request | int] = []
    for chunk in chunks:
        parser.feed(chunk)
        try:
            while (request := parser.poll()) is not None:
                found.append(request)
        except BadRequest as problem:
            return [*found, problem.status]
    return found


def one(data: bytes) -> Request:
    """The only request in *data*."""
    (request,) = outcome([data])
    assert isinstance(request, Request)
    return request


def test_a_plain_request() -> None:
    """Method, target, headers and body arrive as they were sent."""
    request = one(
        b"POST /v1/a%2Fb?key=x HTTP/1.1\r\n" + HOST + b"X-A:  b c \t\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert (request.method, request.path, request.body, request.version) == ("POST", "/v1/a/b", b"abc", 1)
    assert request.headers == (("Host", "localhost"), ("X-A", "b c"), ("Content-Length", "3"))
    assert request.header("x-a") == "b c"
    assert request.header("x-b", "none") == "none"


CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "bodies"),
    [
        pytest.param(
            CHUNKED + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", [b"abc0123456789"], id="chunks"
        ),
        pytest.param(CHUNKED + b"1\r\na\r\n0\r\nX-T: 1\r\n\r\n", [b"a"], id="trailers"),
        pytest.param(CHUNKED + b"0\r\n\r\n", [b""], id="no chunks"),
        pytest.param(b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", [b""], id="empty lines before"),
        pytest.param((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 3, [b""] * 3, id="pipelined"),
        pytest.param(
            CHUNKED + b"1\r\na\r\n0\r\n\r\n" + b"GET / HTTP/1.0\r\n\r\n",
            [b"a", b""],
            id="pipelined after chunks",
        ),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", [b""], id="http/1.0 needs no host"),
        pytest.param(
            b"PUT / HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", [b"x"], id="equal lengths"
        ),
    ],
)
def test_bodies(data: bytes, bodies: list[bytes]) -> None:
    """Every framing is read, whole and byte by byte."""
    whole = outcome([data])
    assert [request.body for request in whole if isinstance(request, Request)] == bodies
    assert outcome([data[i : i + 1] for i in range(len(data))]) == whole


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00", 400, id="tls hello"),
        pytest.param(b"GET /\r\n", 400, id="http/0.9"),
        pytest.param(b"GET  / HTTP/1.1\r\n", 400, id="two spaces"),
        pytest.param(b"GET /\x00 HTTP/1.1\r\n", 400, id="control character"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="http/2 preface"),
        pytest.param(b"GET / HTTP/1.2\r\n", 505, id="http/1.2"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", 400, id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b"A : b\r\n\r\n", 400, id="space before colon"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n", 400, id="folded"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\nC: d\r\n\r\n", 400, id="bare line feed"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b"A: \x00\r\n\r\n", 400, id="nul in value"),
        pytest.param(b"PUT / HTTP/1.0\r\nContent-Length: +1\r\n\r\n", 400, id="signed length"),
        pytest.param(b"PUT / HTTP/1.0\r\nContent-Length: 1, 1\r\n\r\n", 400, id="list of lengths"),
        pytest.param(
            b"PUT / HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, id="two lengths"
        ),
        pytest.param(b"PUT / HTTP/1.0\r\nContent-Length: 99999999\r\n\r\n", 413, id="length too large"),
        pytest.param(
            b"PUT / HTTP/1.0\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400, id="length absurd"
        ),
        pytest.param(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n"), 400, id="both lengths"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip, chunked"), 501, id="unknown coding"),
        pytest.param(CHUNKED + b"x\r\n", 400, id="chunk size"),
        pytest.param(CHUNKED + b"-1\r\n", 400, id="negative chunk size"),
        pytest.param(CHUNKED + b"1\r\nabc", 400, id="chunk too long"),
        pytest.param(CHUNKED + b"1" * 1024, 400, id="endless chunk size"),
        pytest.param(CHUNKED + b"fffffff\r\n", 413, id="chunk too large"),
        pytest.param(CHUNKED + b"200\r\n" + b"x" * 512 + b"\r\n201\r\n", 413, id="chunks too large together"),
        pytest.param(CHUNKED + b"0\r\nbad trailer\r\n\r\n", 400, id="trailer"),
        pytest.param(CHUNKED + b"0\r\n" + b"A: b\r\n" * 300, 431, id="endless trailers"),
        pytest.param(b"GET /" + b"x" * 1100, 431, id="endless target"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 300, 431, id="endless headers"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n", 431, id="headers too large"),
    ],
)
def test_malformed_requests_are_refused(data: bytes, status: int) -> None:
    """What is malformed or too large gets its status as soon as it shows, also byte by byte."""
    assert outcome([data], max_head=1024, max_body=1024)[-1] == status
    assert outcome([data[i : i + 1] for i in range(len(data))], max_head=1024, max_body=1024)[-1] == status


@pytest.mark.parametrize("spare", range(5))
@pytest.mark.parametrize(
    ("before", "block"),
    [
        pytest.param(b"", b"GET / HTTP/1.1\r\n" + HOST + b"X-Padding: 0123456789", id="head"),
        pytest.param(CHUNKED + b"0\r\n", b"A: " + b"b" * 61, id="trailers"),
    ],
)
def test_the_limit_is_the_same_for_any_cut(before: bytes, block: bytes, spare: int) -> None:
    """What just fits fits also when the blank line that ends it comes piece by piece."""
    data = before + block + b"\r\n\r\n"
    limit = len(block) + spare - 2
    whole = outcome([data], max_head=limit)
    for at in range(len(data)):
        assert outcome([data[:at], data[at:]], max_head=limit) == whole
    assert [type(one) for one in whole] == [Request if spare >= 2 else int]


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST, True),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Close\r\n", False),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Connection: x, close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_keep_alive(head: bytes, keep_alive: bool) -> None:
    """HTTP/1.1 stays open unless told otherwise, HTTP/1.0 the other way round."""
    assert one(head + b"\r\n").keep_alive is keep_alive


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a?b=/c", "/a"),
        ("http://h:1/a/b?c", "/a/b"),
        ("http://h", "/"),
        ("*", "*"),
        ("/%E2%82%AC%ff", "/€�"),
    ],
)
def test_path(target: str, path: str) -> None:
    """The path is decoded, has no query, and is found in an absolute target too."""
    assert Request("GET", target, 1, ()).path == path


def test_continue_is_wanted_once() -> None:
    """A client that waits for permission gets it once, and only while the body is missing."""
    parser = RequestParser()
    parser.feed(b"PUT / HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n")
    assert parser.poll() is None
    assert parser.take_continue()
    assert not parser.take_continue()
    parser.feed(b"x")
    assert parser.poll() is not None
    assert not parser.take_continue()


pieces = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n",
            b"POST /v1/x HTTP/1.1\r\n",
            HOST,
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"\r\n",
            b"hello",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"\n",
            b"\r",
            b"\x00",
        ]
    )
    | st.binary(max_size=8),
    max_size=14,
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(pieces, st.lists(st.integers(0, 120), max_size=6))
@example([b"GET / HTTP/1.1\r\n", HOST, b"\r\n"], [17])
def test_any_bytes_in_any_chunks(pieces: list[bytes], cuts: list[int]) -> None:
    """Nothing but BadRequest is ever raised, and how the bytes were cut changes nothing."""
    data = b"".join(pieces)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    chunks = [data[a:b] for a, b in pairwise(edges)]
    assert outcome(chunks) == outcome([data])
