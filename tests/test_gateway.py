"""The gateway on a socket: its answers, every way it can fail, and what it remembers."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import anthropic
import httpx
import openai
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.gateway import (
    Close,
    EmptyReply,
    Error,
    FaultPlan,
    Garbage,
    Gateway,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Huge,
    Ok,
    RateLimit,
    RateLimited,
    Raw,
    Redirect,
    Reply,
    Reset,
    Rule,
    Slow,
    SlowBody,
    Stall,
    Status,
    WrongType,
    connections,
    server,
)
from gip_resilience.gateway.answers import STATUS_OF, Answer, Parts, gzipped, pattern
from gip_resilience.gateway.api import Api, read
from gip_resilience.gateway.http1 import Request
from gip_resilience.gateway.limits import Windows, go_duration
from gip_resilience.gateway.recording import Redactor
from gip_resilience.gateway.wire import GARBAGE, NOT_A_CHUNK, Pause, Write, operations, resolve

GIP: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "taxonomy.json").read_text())["gip"][
    "codes"
]
KEY = "sk-planted-0123456789abcdef"
PLAIN = "a-key-without-shape"
CHAT = {
    "model": "azure/openai/gpt-5-mini",
    "messages": [{"role": "user", "content": "Say hello to the world."}],
}

BODY = bytes(range(251)) * 3 + bytes(range(247))
"""What ``/bytes/1000`` sends."""

End = Literal["fin", "rst", "open"]


class Clock:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A healthy gateway."""
    with Gateway() as running:
        yield running


def dial(gateway: Gateway) -> socket.socket:
    """A raw connection."""
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def hear(client: socket.socket, end: End = "fin") -> tuple[bytes, End]:
    """All bytes until the connection ends or is silent, and how it ended.

    Where the connection is expected to end it is given all the time it may need. Where it should stay open,
    silence must be enough: all of an answer is in one packet, or in a few that follow each other at once.
    """
    heard = bytearray()
    client.settimeout(0.15 if end == "open" else 10)
    while True:
        try:
            data = client.recv(65536)
        except TimeoutError:
            return bytes(heard), "open"
        except ConnectionResetError:
            return bytes(heard), "rst"
        if not data:
            return bytes(heard), "fin"
        heard += data


def ask(gateway: Gateway, request: bytes, end: End = "fin") -> tuple[bytes, End]:
    """Send bytes on a connection of their own and hear what comes back."""
    with closing(dial(gateway)) as client:
        client.sendall(request)
        return hear(client, end)


def until(holds: Callable[[], object]) -> None:
    """Wait for something another thread does."""
    pause = threading.Event()
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        pause.wait(0.002)


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


GET_BYTES = get("/bytes/1000")
GET_AND_CLOSE = get("/bytes/1000", "Connection: close")


def split(answer: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and the rest."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, {name.lower(): value for name, _, value in (f.partition(b": ") for f in fields)}, rest


def fetch(method: str, url: str, **options: Any) -> httpx.Response:
    """A request on a connection of its own."""
    return httpx.request(method, url, verify=False, trust_env=False, timeout=10, **options)


def post(
    gateway: Gateway, body: Any = CHAT, path: str = "/chat/completions", **headers: str
) -> httpx.Response:
    """A request through httpx, on a connection of its own."""
    return fetch("POST", gateway.base_url + path, json=body, headers=headers)


# ---------------------------------------------------------------------------------------------- the bytes of faults


@pytest.mark.parametrize(
    ("reply", "line", "body", "end"),
    [
        pytest.param(Close("headers"), b"HTTP/1.1 200 OK", b"", "fin", id="close after the headers"),
        pytest.param(Reset("headers"), b"HTTP/1.1 200 OK", b"", "rst", id="reset after the headers"),
        pytest.param(Close("body"), b"HTTP/1.1 200 OK", BODY[:500], "fin", id="close in the body"),
        pytest.param(Reset("body"), b"HTTP/1.1 200 OK", BODY[:500], "rst", id="reset in the body"),
        pytest.param(HalfBody("fin"), b"HTTP/1.1 200 OK", BODY[:500], "fin", id="half body fin"),
        pytest.param(HalfBody("rst"), b"HTTP/1.1 200 OK", BODY[:500], "rst", id="half body rst"),
        pytest.param(HalfBody("stall"), b"HTTP/1.1 200 OK", BODY[:500], "open", id="half body stall"),
        pytest.param(HalfBody("eof"), b"HTTP/1.1 200 OK", BODY[:500], "fin", id="half body eof"),
        pytest.param(HalfBody("short_length"), b"HTTP/1.1 200 OK", BODY[:500], "open", id="half body short"),
        pytest.param(
            HalfBody("bad_chunk"),
            b"HTTP/1.1 200 OK",
            b"1f4\r\n" + BODY[:500] + b"\r\n" + NOT_A_CHUNK,
            "fin",
            id="half body bad chunk",
        ),
        pytest.param(SlowBody(400, 0.01), b"HTTP/1.1 200 OK", BODY, "open", id="slow body"),
        pytest.param(Slow(0.01, Reset("body")), b"HTTP/1.1 200 OK", BODY[:500], "rst", id="slow then reset"),
        pytest.param(Huge(1000), b"HTTP/1.1 200 OK", BODY, "open", id="huge"),
        pytest.param(
            Huge(1000, chunked=True),
            b"HTTP/1.1 200 OK",
            b"3e8\r\n" + BODY + b"\r\n0\r\n\r\n",
            "open",
            id="huge chunked",
        ),
        pytest.param(Redirect("/x"), b"HTTP/1.1 307 Temporary Redirect", b"", "open", id="redirect"),
        pytest.param(
            Status(503, "empty"), b"HTTP/1.1 503 Service Unavailable", b"", "open", id="empty status"
        ),
        pytest.param(
            Status(500, b"\xff"), b"HTTP/1.1 500 Internal Server Error", b"\xff", "open", id="bytes"
        ),
        pytest.param(Status(599, "empty"), b"HTTP/1.1 599 Unknown", b"", "open", id="unknown status"),
        pytest.param(WrongType(), b"HTTP/1.1 200 OK", BODY, "open", id="wrong type"),
    ],
)
def test_fault_on_the_wire(reply: Reply, line: bytes, body: bytes, end: End) -> None:
    """A fault sends exactly these bytes and ends the connection in exactly this way."""
    with Gateway(FaultPlan.script([reply])) as gateway:
        got, how = ask(gateway, GET_BYTES, end)
        status, _, rest = split(got)
        assert (status, rest, how) == (line, body, end)
        assert gateway.requests[0].reply == reply.kind
        assert gateway.requests[0].status == int(line.split()[1])
        assert ask(gateway, GET_AND_CLOSE)[0].endswith(BODY), "the next request is served in good health"


@pytest.mark.parametrize(
    ("reply", "expected", "end"),
    [
        pytest.param(Close(), b"", "fin", id="close"),
        pytest.param(Reset(), b"", "rst", id="reset"),
        pytest.param(EmptyReply(), b"", "fin", id="empty reply"),
        pytest.param(Stall(), b"", "open", id="stall"),
        pytest.param(Garbage(), GARBAGE, "fin", id="garbage"),
        pytest.param(Raw("HTTP/1.1 200 OK\r\n\r\n€"), "HTTP/1.1 200 OK\r\n\r\n€".encode(), "fin", id="raw"),
        pytest.param(Raw(b"\x00\x01", "rst"), b"\x00\x01", "rst", id="raw reset"),
        pytest.param(Raw(b"HTTP/1.1 20", "stall"), b"HTTP/1.1 20", "open", id="raw stall"),
        pytest.param(Gzip(EmptyReply()), b"", "fin", id="nothing can be compressed"),
        pytest.param(HalfBody("fin", Stall()), b"", "open", id="nothing can be halved"),
    ],
)
def test_fault_without_an_answer(reply: Reply, expected: bytes, end: End) -> None:
    """Where there is no HTTP answer the recording says so: no status."""
    with Gateway(FaultPlan.script([reply])) as gateway:
        assert ask(gateway, GET_BYTES, end) == (expected, end)
        assert gateway.requests[0].status is None


@pytest.mark.parametrize(("how", "end"), [("fin", "fin"), ("rst", "rst"), ("stall", "open")])
def test_half_headers(how: Literal["fin", "rst", "stall"], end: End) -> None:
    """Half a head is the beginning of a real one and has no end."""
    with Gateway(FaultPlan.script([HalfHeaders(how)])) as gateway:
        got, ended = ask(gateway, GET_BYTES, end)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in got
        assert ended == end
        assert gateway.requests[0].status is None


@pytest.mark.parametrize(
    ("reply", "end"), [(Reset("accept"), "rst"), (Close("accept"), "fin")], ids=["reset", "close"]
)
def test_fault_at_accept(reply: Reply, end: End) -> None:
    """The connection ends before a byte was sent; it is no request, but it is a step of the plan."""
    with Gateway(FaultPlan.script([reply])) as gateway:
        assert touch(gateway) == (b"", end)
        assert (gateway.requests, gateway.connections) == ([], 1)
        assert ask(gateway, GET_AND_CLOSE)[0].endswith(BODY)


def touch(gateway: Gateway) -> tuple[bytes, End]:
    """Connect and say nothing; a reset may be quicker than the end of connecting."""
    try:
        client = dial(gateway)
    except ConnectionResetError:
        return b"", "rst"
    with closing(client):
        return hear(client)


def test_reset_at_accept_on_a_connection_in_use() -> None:
    """When the step comes on a connection that is open already, the request is reset instead."""
    with Gateway(FaultPlan.script([Ok(), Reset("accept")])) as gateway, closing(dial(gateway)) as client:
        client.sendall(GET_BYTES)
        assert hear(client, "open")[1] == "open"
        client.sendall(GET_BYTES)
        assert hear(client) == (b"", "rst")


def test_what_was_sent_before_a_reset_arrives() -> None:
    """A reset never takes back bytes that belong before it, also when they are many and the reader is slow."""
    with Gateway(FaultPlan.always(Reset("body"))) as gateway, closing(dial(gateway)) as client:
        client.sendall(get(f"/bytes/{1 << 24}"))
        until(partial(_has_seen, gateway, 1))
        got, end = hear(client)
        assert end == "rst"
        assert split(got)[2] == b"".join(pattern(1 << 23))


def test_a_close_does_not_wait_for_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told at once, however long the gateway lingers for its last bytes."""
    monkeypatch.setattr(connections, "_LINGER", 60.0)
    with Gateway(FaultPlan.always(Close())) as gateway:
        assert ask(gateway, GET_BYTES) == (b"", "fin")


@pytest.mark.parametrize(
    ("reply", "length", "encoding"),
    [
        pytest.param(HalfBody("fin"), b"1000", None, id="a promise that is not kept"),
        pytest.param(HalfBody("short_length"), b"500", None, id="a true length"),
        pytest.param(HalfBody("eof"), None, None, id="no length"),
        pytest.param(HalfBody("bad_chunk"), None, b"chunked", id="chunked"),
    ],
)
def test_framing_of_half_bodies(reply: Reply, length: bytes | None, encoding: bytes | None) -> None:
    """What the head promises is what tells the ways of breaking apart."""
    with Gateway(FaultPlan.always(reply)) as gateway:
        _, headers, _ = split(ask(gateway, GET_AND_CLOSE)[0])
        assert headers.get(b"content-length") == length
        assert headers.get(b"transfer-encoding") == encoding


def test_gzip_of_any_reply() -> None:
    """A compressed answer says so, and unpacks to the plain one, streamed or not."""
    error = Error("model_overloaded")
    with Gateway(FaultPlan.script([error, Gzip(error), Gzip(Ok()), Ok()])) as gateway:
        plain, packed = post(gateway), post(gateway)
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.json() == plain.json()
        streamed, healthy = post(gateway, CHAT | {"stream": True}), post(gateway, CHAT | {"stream": True})
        assert streamed.headers["content-encoding"] == "gzip"
        assert streamed.content == healthy.content


def test_compressed_pieces_can_be_read_as_they_come() -> None:
    """A compressed stream is not held back until its end."""
    unpacker = zlib.decompressobj(wbits=31)
    body = gzipped(Answer(body=Parts((b"one", b"two")))).body
    assert isinstance(body, Parts)
    assert [unpacker.decompress(piece) for piece in body.pieces] == [b"one", b"two", b""]
    assert unpacker.eof


def test_truncated_gzip() -> None:
    """The length is true, and half of the gzip member is missing."""
    with Gateway(FaultPlan.always(HalfBody("truncated_gzip"))) as gateway:
        _, headers, body = split(ask(gateway, get("/v1/models", "Connection: close"))[0])
        assert headers[b"content-length"] == str(len(body)).encode()
        assert headers[b"content-encoding"] == b"gzip"
        unpacker = zlib.decompressobj(wbits=31)
        unpacker.decompress(body)
        assert not unpacker.eof


def test_half_of_a_stream_is_whole_events() -> None:
    """Half of a stream is its first events; without a terminating chunk, or with one when it ends cleanly."""
    plan = FaultPlan.script([Ok(), HalfBody("fin"), HalfBody("short_length")])
    body = json.dumps(CHAT | {"stream": True}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    with Gateway(plan) as gateway:
        whole, cut, clean = (ask(gateway, request, end) for end in ("open", "fin", "open"))
    _, _, full = split(whole[0])
    _, _, half = split(cut[0])
    assert full.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert full.startswith(half)
    assert half.endswith(b"\n\n\r\n")
    assert half.count(b"data:") == full.count(b"data:") // 2
    assert (cut[1], clean[1]) == ("fin", "open")
    assert split(clean[0])[2] == half + b"0\r\n\r\n"


def test_delays_are_pauses() -> None:
    """Latency and `Slow` add up before the first byte; `SlowBody` pauses between pieces."""
    backend = _Backend(Answer(body=b"abcdef"))
    request = Request("GET", "/", 1, ())
    steps = list(operations(resolve(Slow(1.0, Slow(2.0, SlowBody(4, 0.5))), backend), request))
    assert [step if isinstance(step, Pause) else "write" for step in steps] == [
        Pause(3.0),
        "write",
        "write",
        Pause(0.5),
        "write",
    ]
    assert [step.data for step in steps if isinstance(step, Write)][1:] == [b"abcd", b"ef"]


def test_slow_is_really_slow() -> None:
    """The delay is spent before the answer, and the latency is added to it."""
    with Gateway(FaultPlan.always(Slow(0.05)), latency=0.05) as gateway:
        begun = time.perf_counter()
        assert fetch("GET", gateway.base_url + "/models").status_code == 200
        assert time.perf_counter() - begun >= 0.1


def test_slow_body_keeps_the_events_of_a_stream() -> None:
    """With a piece size of 0 a stream is paced event by event."""
    backend = _Backend(Answer(body=Parts((b"one", b"two"))))
    steps = list(operations(resolve(SlowBody(0, 0.5), backend), Request("GET", "/", 1, ())))
    assert [s.data for s in steps if isinstance(s, Write)][1:] == [
        b"3\r\none\r\n",
        b"3\r\ntwo\r\n",
        b"0\r\n\r\n",
    ]
    assert steps.count(Pause(0.5)) == 1


class _Backend:
    """A healthy gateway with one answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def respond(self) -> Answer:
        return self._answer

    def rate_limited(self, retry_after: float | str | None) -> Answer:
        return Answer(429)


@pytest.mark.parametrize(
    "reply",
    [
        Ok(),
        Error("model_overloaded"),
        Status(503),
        Html(),
        RateLimited(),
        Redirect("/x"),
        Gzip(),
        WrongType(),
    ],
    ids=lambda reply: reply.kind,
)
def test_an_answer_leaves_in_one_write(reply: Reply) -> None:
    """Head and body go together; two small writes can cost a delayed acknowledgement."""
    steps = list(operations(resolve(reply, _Backend(Answer(body=b"x"))), Request("GET", "/", 1, ())))
    assert [type(step) for step in steps] == [Write]


def test_keep_alive_is_fast(gateway: Gateway) -> None:
    """20 requests on one connection take no time to speak of: nothing waits for an acknowledgement."""
    with requests.Session() as session:
        session.trust_env = False
        session.get(gateway.url + "/healthz")
        begun = time.perf_counter()
        for _ in range(20):
            assert session.post(gateway.base_url + "/chat/completions", json=CHAT).status_code == 200
        assert time.perf_counter() - begun < 0.5
    assert gateway.connections == 1


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("row", GIP, ids=lambda row: row["code"])
def test_every_documented_code(row: dict[str, Any]) -> None:
    """Each code has its usual status and the documented shape, and nothing else."""
    assert STATUS_OF[row["code"]] == row["http_inferred"][0]
    with Gateway(FaultPlan.always(Error(row["code"]))) as gateway:
        response = post(gateway)
        assert response.status_code == row["http_inferred"][0]
        assert response.headers["content-type"] == "application/json"
        assert set(response.json()) == {"error"}
        error = response.json()["error"]
        assert set(error) == {"type", "code", "message"}
        assert error["code"] == row["code"] == gateway.requests[0].code
        assert all(isinstance(value, str) and value for value in error.values())


def test_there_are_no_other_codes() -> None:
    """The table has the documented codes and no more."""
    assert set(STATUS_OF) == {row["code"] for row in GIP}


def test_an_error_can_be_dressed() -> None:
    """Status, type, message, headers and Retry-After can be set; an unknown code is a 500."""
    dressed = Error("x", 418, {"X-A": "b", "content-type": "text/x"}, 2.0, "words", "kind")
    with Gateway(
        FaultPlan.script([dressed, Error("new_code"), Error("new_code", retry_after="soon")])
    ) as gateway:
        first, second, third = post(gateway), post(gateway), post(gateway)
    assert first.status_code == 418
    assert first.json() == {"error": {"type": "kind", "code": "x", "message": "words"}}
    assert (first.headers["x-a"], first.headers["content-type"], first.headers["retry-after"]) == (
        "b",
        "text/x",
        "2",
    )
    assert second.status_code == 500
    assert second.json()["error"]["code"] == "new_code"
    assert third.headers["retry-after"] == "soon"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 429, 500, 502, 503])
def test_documented_statuses_without_a_code(status: int) -> None:
    """A bare status carries no error code, as JSON, HTML or nothing."""
    with Gateway(FaultPlan.script([Status(status), Html(status), Status(status, "empty")])) as gateway:
        as_json, html, empty = post(gateway), post(gateway), post(gateway)
        assert {as_json.status_code, html.status_code, empty.status_code} == {status}
        assert "error" not in as_json.json()
        assert html.headers["content-type"] == "text/html"
        assert html.headers["server"] == "nginx"
        assert f"<h1>{status} " in html.text
        assert empty.content == b""
        assert [seen.code for seen in gateway.requests] == [None] * 3


# ------------------------------------------------------------------------------------------------------- healthy API


def test_chat_is_a_function_of_the_prompt(gateway: Gateway) -> None:
    """The same prompt gets the same answer, another seed may word it differently, another prompt does."""
    first, again = post(gateway).json(), post(gateway).json()
    assert first == again
    text = first["choices"][0]["message"]["content"]
    assert text.startswith("You said: Say hello to the world.")
    assert first["choices"][0]["finish_reason"] == "stop"
    usage = first["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] == 6  # 23 bytes in quarters
    other = post(
        gateway, CHAT | {"messages": [{"role": "user", "content": [{"type": "text", "text": "안녕"}]}]}
    ).json()
    assert other["choices"][0]["message"]["content"].startswith("You said: 안녕 ")


def events(response: httpx.Response) -> list[str]:
    """The data of each event."""
    assert response.headers["content-type"] == "text/event-stream"
    return [block.removeprefix("data: ") for block in response.text.split("\n\n")[:-1]]


@pytest.mark.parametrize("usage", [True, False], ids=["with usage", "without usage"])
def test_streamed_chat_says_the_same(gateway: Gateway, usage: bool) -> None:
    """A stream is role, words, finish reason, usage if asked for, and the marker."""
    plain = post(gateway, CHAT | {"n": 2}).json()
    options = {"stream_options": {"include_usage": True}} if usage else {}
    *chunks, marker = events(post(gateway, CHAT | {"n": 2, "stream": True, **options}))
    parsed = [json.loads(chunk) for chunk in chunks]
    assert marker == "[DONE]"
    assert {chunk["id"] for chunk in parsed} == {plain["id"]}
    if usage:
        last = parsed.pop()
        assert (last["choices"], last["usage"]) == ([], plain["usage"])
    for index in (0, 1):
        deltas = [c["choices"][0] for c in parsed if c["choices"][0]["index"] == index]
        assert deltas[0]["delta"]["role"] == "assistant"
        assert [d["finish_reason"] for d in deltas] == [None] * (len(deltas) - 1) + ["stop"]
        text = "".join(d["delta"].get("content", "") for d in deltas)
        assert text == plain["choices"][index]["message"]["content"]


def test_max_tokens_cuts_the_answer(gateway: Gateway) -> None:
    """A limit ends the answer early and says so."""
    answer = post(gateway, CHAT | {"max_tokens": 3}).json()
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "You said: Say"},
        "finish_reason": "length",
    }
    assert answer["usage"]["completion_tokens"] == 3


def test_openai_sdk(gateway: Gateway) -> None:
    """The OpenAI SDK gets chat, stream, embeddings, models and transcriptions, and its errors."""
    gateway.plan = FaultPlan.always(Error("invalid_argument"), path="/v1/models")
    with openai.OpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as client:
        message: Any = {"role": "user", "content": "hi"}
        plain = client.chat.completions.create(model="m", messages=[message])
        stream = client.chat.completions.create(model="m", messages=[message], stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == plain.choices[0].message.content
        base64 = client.embeddings.create(model="m", input=["a", "b"], dimensions=4)
        floats = client.embeddings.create(model="m", input=["a", "b"], dimensions=4, encoding_format="float")
        for packed, vector in zip(base64.data, floats.data, strict=True):
            assert packed.embedding == pytest.approx(vector.embedding, abs=1e-6)
        assert client.models.retrieve("azure/openai/x").owned_by == "azure"
        heard = client.audio.transcriptions.create(model="whisper", file=("a.wav", b"RIFF\r\n--audio"))
        assert heard.text.startswith("Heard 13 bytes")
        with pytest.raises(openai.BadRequestError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_argument"
    assert {seen.model for seen in gateway.requests} == {"m", "azure/openai/x", "whisper", None}
    assert [seen.retry_count for seen in gateway.requests] == [0] * 7


def test_anthropic_sdk(gateway: Gateway) -> None:
    """The Anthropic SDK gets a message, plain and streamed."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        message: Any = {"role": "user", "content": "hi"}
        plain = client.messages.create(model="claude", max_tokens=99, messages=[message])
        with client.messages.stream(model="claude", max_tokens=99, messages=[message]) as stream:
            streamed = stream.get_final_message()
        assert streamed.content[0].model_dump() == plain.content[0].model_dump()
        assert (plain.stop_reason, streamed.stop_reason) == ("end_turn", "end_turn")
        assert streamed.usage.output_tokens == plain.usage.output_tokens
        cut = client.messages.create(model="claude", max_tokens=1, messages=[message])
        assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 1)


def chat(**changes: Any) -> dict[str, Any]:
    """A chat request with some fields changed."""
    return CHAT | changes


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        pytest.param("/chat/completions", "{", 400, "invalid_request", id="bad json"),
        pytest.param("/chat/completions", b"\xff\xfe", 400, "invalid_request", id="not utf-8"),
        pytest.param("/chat/completions", b'{"model":"\xc2"}', 400, "invalid_request", id="text not utf-8"),
        pytest.param("/chat/completions", "[" * 100_000, 400, "invalid_request", id="deep json"),
        pytest.param("/chat/completions", "[]", 400, "invalid_request", id="no object"),
        pytest.param("/chat/completions", "", 400, "invalid_request", id="empty body"),
        pytest.param(
            "/chat/completions", {"model": "azure/openai/gpt-5-mini"}, 400, "invalid_argument", id="messages"
        ),
        pytest.param("/chat/completions", chat(messages=[]), 400, "invalid_argument", id="no message"),
        pytest.param("/chat/completions", chat(messages=[{}]), 400, "invalid_argument", id="no role"),
        pytest.param("/chat/completions", chat(model=None), 400, "invalid_argument", id="no model"),
        pytest.param("/chat/completions", chat(model=5), 400, "invalid_argument", id="model is a number"),
        pytest.param("/chat/completions", chat(model="nope"), 404, "unknown_model", id="unknown model"),
        pytest.param("/chat/completions", chat(temperature=3), 400, "invalid_argument", id="temperature"),
        pytest.param("/chat/completions", chat(temperature=-1), 400, "invalid_argument", id="cold"),
        pytest.param(
            "/chat/completions", chat(temperature="1"), 400, "invalid_argument", id="temperature text"
        ),
        pytest.param("/chat/completions", chat(n=0), 400, "invalid_argument", id="n"),
        pytest.param("/chat/completions", chat(n=10**30), 400, "invalid_argument", id="huge n"),
        pytest.param("/chat/completions", chat(n=True), 400, "invalid_argument", id="n is true"),
        pytest.param("/chat/completions", chat(stream="yes"), 400, "invalid_argument", id="stream is text"),
        pytest.param("/messages", chat(), 400, "invalid_argument", id="no max_tokens"),
        pytest.param(
            "/embeddings", {"model": "azure/openai/gpt-5-mini"}, 400, "invalid_argument", id="no input"
        ),
        pytest.param(
            "/embeddings",
            {"model": "azure/openai/gpt-5-mini", "input": [True]},
            200,
            None,
            id="token numbers",
        ),
        pytest.param(
            "/embeddings",
            {"model": "azure/openai/gpt-5-mini", "input": [{}]},
            400,
            "invalid_argument",
            id="bad input",
        ),
        pytest.param(
            "/embeddings", {"model": "azure/openai/gpt-5-mini", "input": [[1, 2]]}, 200, None, id="tokens"
        ),
        pytest.param("/nothing", chat(), 404, "not_found", id="unknown path"),
        pytest.param("/chat/completions/", chat(), 404, "not_found", id="trailing slash"),
    ],
)
def test_requests_are_checked(path: str, body: Any, status: int, code: str | None) -> None:
    """Bad requests get the documented code."""
    with Gateway(models=["azure/openai/gpt-5-mini"]) as gateway:
        content = body if isinstance(body, (str, bytes)) else json.dumps(body)
        response = fetch("POST", gateway.base_url + path, content=content)
        assert response.status_code == status
        assert (response.json()["error"]["code"] if code else None) == code
        assert gateway.requests[0].reply == "ok"
        assert gateway.requests[0].code == code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Basic abc"}, "missing_api_key"),
        ({"authorization": "Bearer"}, "missing_api_key"),
        ({"authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"authorization": f"bearer {KEY}"}, None),
        ({"x-api-key": KEY}, None),
        ({"api-key": KEY}, None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_keys_are_checked_when_there_are_any(headers: dict[str, str], code: str | None) -> None:
    """A gateway with keys wants one; the endpoints for tests are open."""
    with Gateway(api_keys=[KEY]) as gateway:
        response = fetch("GET", gateway.base_url + "/models", headers=headers)
        assert response.status_code == (200 if code is None else 401)
        assert gateway.requests[0].code == code
        assert fetch("GET", gateway.url + "/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("PUT", "/v1/models/x", "GET"),
        ("DELETE", "/healthz", None),
        ("GET", "/echo", None),
    ],
)
def test_methods_are_checked(gateway: Gateway, method: str, path: str, allow: str | None) -> None:
    """Another method than the endpoint's is a 405 with the code for what cannot be parsed."""
    response = fetch(method, gateway.url + path)
    assert (response.status_code, response.json()["error"]["code"]) == (405, "invalid_request")
    assert allow is None or response.headers["allow"] == allow


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner)
    ),
    max_leaves=6,
)
fields = st.sampled_from(
    [
        "model",
        "messages",
        "input",
        "n",
        "stream",
        "max_tokens",
        "temperature",
        "stream_options",
        "dimensions",
        "system",
    ]
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.sampled_from(
        ["/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/v1/audio/transcriptions", "/v1/x"]
    ),
    st.dictionaries(fields, values, max_size=6),
    st.booleans(),
    st.binary(max_size=40),
)
def test_every_body_gets_an_answer(path: str, payload: dict[str, Any], valid: bool, noise: bytes) -> None:
    """Whatever a request says, the API answers it, and never with a failure of its own."""
    if valid:
        payload = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **payload}
    api = Api((), None, RateLimit(), 0, Redactor(b"key"))
    for body in (json.dumps(payload).encode(), noise):
        for content_type in ("application/json", "multipart/form-data; boundary=x"):
            request = Request("POST", path, 1, (("content-type", content_type),), body)
            answer = api.respond(request, read(request), 0.0)
            assert answer.status < 500
            assert (answer.code is None) == (answer.status == 200)
            if isinstance(answer.body, Parts):
                assert all(answer.body.pieces)


def test_endpoints_for_tests(gateway: Gateway) -> None:
    """Echo, bytes and cookies do what their names say."""
    with httpx.Client(base_url=gateway.url) as client:
        sent = b"".join(pattern(300_000))
        echo = client.post("/echo", content=sent, headers={"x-a": "b"}).json()
        assert (echo["size"], echo["sha256"]) == (300_000, sha256(sent).hexdigest())
        assert ["x-a", "b"] in echo["headers"]
        large = client.get("/bytes/300000")
        assert large.content == sent
        assert large.headers["content-length"] == "300000"
        assert client.get("/bytes/0").content == b""
        assert client.get("/bytes/x").json()["error"]["code"] == "invalid_argument"
        assert client.get("/bytes/99999999999").status_code == 400
        assert client.get("/cookies/set").json() == {"cookies": "set"}
        assert client.cookies["gip"] == "resilience"
        assert client.get("/nothing").json()["error"]["code"] == "not_found"
        assert gateway.connections == 1


def test_models(gateway: Gateway) -> None:
    """A gateway lists its models; one without a list knows every name."""
    assert len(fetch("GET", gateway.base_url + "/models").json()["data"]) == 3
    with Gateway(models=["a/b", "c"]) as other:
        listed = fetch("GET", other.base_url + "/models").json()["data"]
        assert [model["id"] for model in listed] == ["a/b", "c"]
        assert fetch("GET", other.base_url + "/models/a%2Fb").json()["id"] == "a/b"
        assert fetch("GET", other.base_url + "/models/d").json()["error"]["code"] == "unknown_model"


def test_content_types(gateway: Gateway) -> None:
    """JSON endpoints want JSON, the transcription wants a file."""
    text = {"content-type": "text/plain"}
    response = fetch("POST", gateway.base_url + "/embeddings", content="{}", headers=text)
    assert (response.status_code, response.json()["error"]["code"]) == (415, "invalid_request")
    url = gateway.base_url + "/audio/transcriptions"
    spoken = fetch("POST", url, data={"model": "w", "response_format": "text"}, files={"file": b"x"})
    assert spoken.headers["content-type"].startswith("text/plain")
    assert spoken.text.startswith("Heard 1 bytes")
    silent = fetch("POST", url, files={"model": (None, "w")})
    assert silent.json()["error"]["code"] == "invalid_argument"
    assert [seen.model for seen in gateway.requests] == [None, "w", "w"]
    no_boundary = {"content-type": "multipart/form-data"}
    assert fetch("POST", url, content="x", headers=no_boundary).status_code == 400


# -------------------------------------------------------------------------------------------------------------- HTTP


def test_chunked_and_waiting_clients(gateway: Gateway) -> None:
    """A chunked body and one that waits for permission arrive whole."""
    with closing(dial(gateway)) as client:
        client.sendall(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        assert sha256(b"abc").hexdigest().encode() in hear(client, "open")[0]
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert hear(client, "open")[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        answer, end = hear(client, "open")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert (end, gateway.connections) == ("open", 1)


def test_requests_sent_ahead_are_answered_in_order(gateway: Gateway) -> None:
    """Two requests in one packet get two answers."""
    answer, end = ask(gateway, get("/bytes/1") + get("/nothing") + get("/bytes/2", "Connection: close"))
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answer)
    assert (statuses, end) == ([b"200", b"404", b"200"], "fin")


@pytest.mark.parametrize("path", ["/bytes/1000", "/v1/models", "/nothing"])
def test_head_has_the_headers_and_no_body(gateway: Gateway, path: str) -> None:
    """HEAD is GET without the body."""
    _, headers, body = split(ask(gateway, get(path, "Connection: close", method="HEAD"))[0])
    _, same, whole = split(ask(gateway, get(path, "Connection: close"))[0])
    assert body == b""
    assert headers[b"content-length"] == same[b"content-length"] == str(len(whole)).encode()


@pytest.mark.parametrize(
    ("request_", "end", "connection"),
    [
        pytest.param(GET_BYTES, "open", None, id="1.1"),
        pytest.param(get("/bytes/1000", "Connection: close"), "fin", b"close", id="1.1 close"),
        pytest.param(b"GET /bytes/1000 HTTP/1.0\r\n\r\n", "fin", b"close", id="1.0"),
        pytest.param(
            b"GET /bytes/1000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "open",
            b"keep-alive",
            id="1.0 keep-alive",
        ),
    ],
)
def test_connections_end_when_they_should(
    gateway: Gateway, request_: bytes, end: End, connection: bytes | None
) -> None:
    """The connection stays open when the client wants it to, and the answer says what happens."""
    answer, how = ask(gateway, request_, end)
    _, headers, body = split(answer)
    assert (body, how, headers.get(b"connection")) == (BODY, end, connection)


def test_streams_for_http_1_0_end_with_the_connection(gateway: Gateway) -> None:
    """HTTP/1.0 knows no chunks."""
    body = json.dumps(CHAT | {"stream": True}).encode()
    answer, end = ask(
        gateway, b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    _, headers, rest = split(answer)
    assert b"transfer-encoding" not in headers
    assert rest.startswith(b"data: {")
    assert (rest[-14:], end) == (b"data: [DONE]\n\n", "fin")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA" + b"a" * 70_000 + b": b\r\n\r\n", 431),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n" + b"x" * 100_000, 413),
    ],
    ids=["tls", "http/2", "large head", "large body"],
)
def test_malformed_requests_are_answered_and_closed(gateway: Gateway, data: bytes, status: int) -> None:
    """The client gets to read the refusal, although it may still be sending; then the connection is closed."""
    answer, end = ask(gateway, data)
    line, headers, body = split(answer)
    assert int(line.split()[1]) == status
    assert headers[b"connection"] == b"close"
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert end == "fin"
    (seen,) = gateway.requests
    assert (seen.reply, seen.method, seen.status) == ("malformed", "", status)


def test_a_refused_client_may_go_on_sending(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """What still comes after a refusal is read and thrown away: a reset would overtake the answer."""
    monkeypatch.setattr(connections, "_LINGER", 60.0)
    with closing(dial(gateway)) as client:
        client.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        until(partial(_has_seen, gateway, 1))
        for _ in range(20):
            client.sendall(b"x" * 50_000)
        answer, end = hear(client)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert end == "fin"


def test_a_request_that_breaks_off_is_forgotten(gateway: Gateway) -> None:
    """Half a request is no request."""
    assert ask(gateway, GET_BYTES[:-2], "open") == (b"", "open")
    with closing(dial(gateway)) as client:
        client.sendall(GET_BYTES[:-2])
        client.shutdown(socket.SHUT_WR)
        assert hear(client) == (b"", "fin")
    assert gateway.requests == []


def test_a_client_may_close_its_half(gateway: Gateway) -> None:
    """Who has said everything still gets the answer."""
    with closing(dial(gateway)) as client:
        client.sendall(GET_BYTES)
        client.shutdown(socket.SHUT_WR)
        answer, end = hear(client)
        assert answer.endswith(BODY)
        assert end == "fin"


def test_every_answer_of_the_gateway_is_marked(gateway: Gateway) -> None:
    """Date and request id are on the gateway's answers, and not on those of what stands in front of it."""
    answers = [post(gateway), post(gateway)]
    assert all("date" in answer.headers for answer in answers)
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2
    gateway.plan = FaultPlan.always(Html())
    assert "x-request-id" not in post(gateway).headers


# ------------------------------------------------------------------------------------------------------- rate limits


def test_requests_are_limited_per_window_and_key() -> None:
    """The window is fixed, per key, and opens again by the clock alone."""
    clock = Clock()
    with Gateway(rate_limit=RateLimit(requests=2, tokens=10_000, window=90), clock=clock) as gateway:
        first = post(gateway, Authorization="Bearer a")
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"] == "1m30s"
        clock.now += 88.75
        assert post(gateway, Authorization="Bearer a").headers["x-ratelimit-reset-tokens"] == "1.25s"
        limited = post(gateway, Authorization="Bearer a")
        assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert limited.headers["retry-after"] == "2"
        assert limited.headers["x-ratelimit-remaining-requests"] == "0"
        assert post(gateway, Authorization="Bearer b").status_code == 200
        clock.now += 1.25
        assert post(gateway, Authorization="Bearer a").status_code == 200


def test_tokens_are_limited() -> None:
    """Prompt and completion both count; what does not fit is refused and takes nothing."""
    with Gateway(rate_limit=RateLimit(requests=100, tokens=50), clock=Clock()) as gateway:
        used = post(gateway).json()["usage"]["total_tokens"]
        assert 50 / 3 < used < 50 / 2
        second = post(gateway)
        assert second.headers["x-ratelimit-remaining-tokens"] == str(50 - 2 * used)
        third = post(gateway)
        assert third.status_code == 429
        assert third.headers["x-ratelimit-remaining-tokens"] == str(50 - 2 * used)
        assert third.headers["x-ratelimit-remaining-requests"] == "98"


def test_limits_in_detail() -> None:
    """A request larger than the window passes alone; ended windows do not pile up."""
    windows = Windows(RateLimit(requests=5, tokens=10, window=1.0))
    assert windows.admit("a", 50, 0.0)
    assert not windows.admit("a", 1, 0.5)
    assert windows.quota("a", 0.5).tokens == 0
    assert windows.admit("a", 1, 1.0)
    for number in range(1500):
        assert windows.admit(f"k{number}", 1, 1.0 + number)
    assert len(windows._windows) <= 1000


@pytest.mark.parametrize("limit", [{"requests": 0}, {"tokens": 0}, {"window": 0.0}, {"window": float("nan")}])
def test_senseless_limits_are_refused(limit: dict[str, Any]) -> None:
    """A limit of nothing is a mistake."""
    with pytest.raises(ValueError):
        RateLimit(**limit)


def test_announced_limits_without_a_limit() -> None:
    """A planned 429 carries the headers, whether there is a limit or not, and takes nothing."""
    with Gateway(FaultPlan.script([RateLimited(), RateLimited(7), RateLimited(0.5)])) as gateway:
        first, second, third = post(gateway), post(gateway), post(gateway)
        assert [r.status_code for r in (first, second, third)] == [429] * 3
        assert [r.headers["retry-after"] for r in (first, second, third)] == ["1", "7", "0.5"]
        assert [r.headers["x-ratelimit-reset-requests"] for r in (first, second, third)] == [
            "1s",
            "7s",
            "500ms",
        ]
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-ratelimit-limit-requests" not in post(gateway).headers
    clock = Clock()
    with Gateway(FaultPlan.script([Ok(), RateLimited()]), rate_limit=RateLimit(), clock=clock) as gateway:
        post(gateway)
        clock.now += 20.5
        assert post(gateway).headers["retry-after"] == "40"
        assert post(gateway).headers["x-ratelimit-remaining-requests"] == "58"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.0004, "0s"),
        (0.12, "120ms"),
        (0.9996, "1s"),
        (1.5, "1.5s"),
        (7.66, "7.66s"),
        (59.9999, "1m0s"),
        (179.56, "2m59.56s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (90061.001, "25h1m1.001s"),
    ],
)
def test_go_duration(seconds: float, text: str) -> None:
    """Durations are written as Go writes them."""
    assert go_duration(seconds) == text


# --------------------------------------------------------------------------------------------------------- recording


def test_what_is_recorded() -> None:
    """A request is recorded with what a test wants to know, in order, before its answer is sent."""
    clock = Clock()
    with Gateway(FaultPlan.script([Error("model_timeout")]), clock=clock, record_bodies=True) as gateway:
        clock.now += 2.5
        post(gateway, CHAT | {"stream": True}, **{"x-stainless-retry-count": "2"})
        (seen,) = gateway.requests
        assert (seen.at, seen.method, seen.path, seen.connection) == (2.5, "POST", "/v1/chat/completions", 1)
        assert (seen.model, seen.stream, seen.retry_count) == (CHAT["model"], True, 2)
        assert (seen.reply, seen.status, seen.code) == ("error", 504, "model_timeout")
        assert seen.body is not None
        assert json.loads(seen.body) == CHAT | {"stream": True}
        assert (seen.body_size, seen.body_sha256) == (len(seen.body), sha256(seen.body).hexdigest())
        assert seen.header("HOST") == gateway.url.removeprefix("http://")
        assert seen.header("x-none") is None
        gateway.requests.clear()
        assert len(gateway.requests) == 1, "the list is a copy"
        gateway.clear()
        assert (gateway.requests, gateway.connections) == ([], 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {PLAIN}"},
        {"X-Api-Key": PLAIN},
        {"api-key": PLAIN},
        {"X-Gipc-Api-Key": PLAIN},
        {"Cookie": f"session={PLAIN}"},
        {"Proxy-Authorization": f"Basic {PLAIN}"},
        {"X-Custom": KEY},
        {"X-Custom": PLAIN, "Authorization": f"Bearer {PLAIN}"},
    ],
    ids=lambda headers: "-".join(headers),
)
def test_no_secret_is_kept(headers: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    """A planted key is nowhere: not in the recording, the answers, the reprs, the logs or the gateway itself."""
    caplog.set_level(logging.DEBUG, "gip_resilience")
    with Gateway(api_keys=[KEY, PLAIN]) as gateway:
        answers = [
            fetch("POST", gateway.url + "/echo", headers=headers).text,
            fetch("GET", gateway.base_url + f"/models?key={KEY}", headers=headers).text,
            fetch("GET", gateway.base_url + "/models", headers=headers).text,
        ]
        reprs = [repr(gateway), repr(gateway.requests), repr(deep(gateway))]
        everything = "\n".join([*answers, *reprs, caplog.text])
        assert KEY not in everything
        assert PLAIN not in everything
        first, _, last = gateway.requests
        name = next(iter(headers))
        assert (first.header(name) or "").startswith("redacted:")
        assert first.header(name) == last.header(name), "the same key has the same digest"
    with Gateway() as other:
        fetch("POST", other.url + "/echo", headers=headers)
        assert other.requests[0].header(name) != first.header(name), "and another one elsewhere"


def deep(thing: object, depth: int = 6) -> object:
    """What hangs on an object, as far as it is plain."""
    if depth == 0 or isinstance(thing, (str, bytes, int, float, type(None), threading.Thread)):
        return thing if isinstance(thing, (str, bytes)) else None
    if isinstance(thing, dict):
        return [(deep(k, depth - 1), deep(v, depth - 1)) for k, v in list(thing.items())]
    if isinstance(thing, (list, tuple, set, frozenset)):
        return [deep(item, depth - 1) for item in list(thing)]
    names = [*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())]
    return [deep(getattr(thing, name, None), depth - 1) for name in names]


def test_bodies_are_not_kept_unless_asked(gateway: Gateway) -> None:
    """By default only size and digest of a body remain, and a kept one is not in the repr."""
    post(gateway)
    assert gateway.requests[0].body is None
    assert "hello" not in repr(deep(gateway))
    with Gateway(record_bodies=True) as other:
        post(other)
        assert "hello" not in repr(other.requests)


# -------------------------------------------------------------------------------------------------------------- plans


def test_the_plan_can_be_swapped_while_running(gateway: Gateway) -> None:
    """A new plan begins at its beginning, also in time."""
    plan = FaultPlan.always(Error("model_overloaded"), times=1, until=10.0)
    assert post(gateway).status_code == 200
    for _ in range(2):
        gateway.plan = plan
        assert gateway.plan == plan
        assert [post(gateway).status_code for _ in range(2)] == [503, 200]


def test_times_of_a_plan_follow_the_clock() -> None:
    """An outage begins and ends by the gateway's clock."""
    clock = Clock()
    with Gateway(FaultPlan.always(Error("model_unavailable"), after=5, until=10), clock=clock) as gateway:
        seen = []
        for _ in range(4):
            seen.append(post(gateway).status_code)
            clock.now += 4
        assert seen == [200, 200, 502, 200]


def test_per_model_faults_on_the_wire() -> None:
    """Only the model in trouble is in trouble."""
    with Gateway(FaultPlan.per_model({"azure/*": Error("model_overloaded")})) as gateway:
        assert post(gateway).status_code == 503
        assert post(gateway, CHAT | {"model": "openai/gpt"}).status_code == 200
        assert fetch("GET", gateway.base_url + "/models/azure%2Fx").status_code == 503


def test_a_rule_can_spare_everything_but_one_path() -> None:
    """A rule with a path leaves the rest alone."""
    with Gateway(
        FaultPlan((Rule(Html(), path="/echo"), Rule(Error("not_found"), path="/healthz")))
    ) as gateway:
        assert fetch("POST", gateway.url + "/echo").status_code == 502
        assert fetch("GET", gateway.url + "/healthz").status_code == 404
        assert post(gateway).status_code == 200


# ------------------------------------------------------------------------------------------------- life and death


def test_fifty_parallel_requests() -> None:
    """Counts are exact under concurrency."""
    plan = FaultPlan.script([Error("model_overloaded")] * 20 + [HalfBody("rst")] * 5)

    def call(gateway: Gateway) -> int:
        try:
            return post(gateway).status_code
        except httpx.TransportError:
            return 0

    with Gateway(plan) as gateway, ThreadPoolExecutor(50) as pool:
        got = list(pool.map(call, [gateway] * 50))
        assert (got.count(503), got.count(0), got.count(200)) == (20, 5, 25)
        assert len(gateway.requests) == gateway.connections == 50
        assert sorted(seen.connection for seen in gateway.requests) == list(range(1, 51))


def test_gateways_do_not_know_each_other() -> None:
    """Several gateways run at once, each with its own plan and recording."""
    with Gateway(FaultPlan.always(Html())) as one, Gateway() as two:
        assert (post(one).status_code, post(two).status_code) == (502, 200)
        assert one.url != two.url
        assert len(one.requests) == len(two.requests) == 1


@pytest.mark.parametrize(
    ("reply", "request_"),
    [
        pytest.param(Ok(), b"", id="silent client"),
        pytest.param(Ok(), GET_BYTES, id="idle"),
        pytest.param(Ok(), GET_BYTES[:-2], id="half a request"),
        pytest.param(Stall(), GET_BYTES, id="stalled"),
        pytest.param(Slow(600), GET_BYTES, id="slow"),
        pytest.param(HalfBody("stall"), GET_BYTES, id="half a body"),
        pytest.param(SlowBody(1, 600), GET_BYTES, id="slow body"),
        pytest.param(Close(), GET_BYTES, id="lingering"),
        pytest.param(Huge(1 << 30), GET_BYTES, id="a client that does not read"),
    ],
)
def test_stop_closes_everything(reply: Reply, request_: bytes) -> None:
    """Whatever a connection is doing, stopping ends it, its thread and every socket, without a warning."""
    threads = threading.active_count()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gateway = Gateway(FaultPlan.always(reply))
        gateway.start()
        with closing(dial(gateway)) as client:
            client.sendall(request_)
            until(partial(_has_begun, gateway, request_))
            begun = time.perf_counter()
            gateway.stop()
            assert time.perf_counter() - begun < 0.4
            assert hear(client)[1] in ("fin", "rst")
        del gateway
        gc.collect()
    assert threading.active_count() == threads
    assert caught == []


def _has_seen(gateway: Gateway, count: int) -> bool:
    return len(gateway.requests) == count


def _has_begun(gateway: Gateway, request: bytes) -> bool:
    return bool(gateway.requests if request == GET_BYTES else gateway.connections)


def test_starting_and_stopping() -> None:
    """Stop is idempotent, start is not; a stopped gateway has no URL and can be started again."""
    gateway = Gateway(FaultPlan.script([Html()]))
    gateway.stop()
    with pytest.raises(RuntimeError):
        _ = gateway.url
    gateway.start()
    try:
        with pytest.raises(RuntimeError):
            gateway.start()
        assert post(gateway).status_code == 502
        assert repr(gateway) == f"<Gateway '{gateway.url}', 1 requests on 1 connections>"
    finally:
        gateway.stop()
    gateway.stop()
    assert repr(gateway) == "<Gateway stopped, 1 requests on 1 connections>"
    with gateway:
        assert post(gateway).status_code == 502, "the plan plays from its beginning"


def test_a_port_can_be_asked_for() -> None:
    """A given port is used, and one that is taken is an error that leaves nothing behind."""
    with Gateway() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError):
            Gateway(port=port).start()
    with Gateway(port=port) as second:
        assert second.url.endswith(f":{port}")


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit an idle connection makes room; when all are busy a newcomer waits in the backlog."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(connections, "_IDLE", 0.01)
    stall = get("/echo", method="POST")
    with Gateway(FaultPlan.always(Stall(), path="/echo")) as gateway, ExitStack() as clients:

        def join() -> socket.socket:
            return clients.enter_context(closing(dial(gateway)))

        busy, idle = join(), join()
        for client in (busy, idle):
            client.sendall(GET_BYTES)
        until(partial(_has_seen, gateway, 2))
        busy.sendall(stall)
        until(partial(_has_seen, gateway, 3))
        newcomer = join()
        newcomer.sendall(stall)
        assert hear(idle)[0].endswith(BODY), "an idle connection is closed, in order"
        until(partial(_has_seen, gateway, 4))
        waiting = join()
        waiting.sendall(GET_AND_CLOSE)
        assert hear(waiting, "open") == (b"", "open")
        busy.close()
        assert hear(waiting)[0].endswith(BODY)


def test_a_long_body_does_not_stop_the_others() -> None:
    """Between two pieces everybody else gets a turn, even when the client takes all at once."""

    class Sink(asyncio.Transport):
        """A client with an endless appetite."""

        def write(self, data: object) -> None:
            """Take it."""

        def is_closing(self) -> bool:
            """Never."""
            return False

    async def download() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        connection = connections._Connection(cast(Any, None), 1)
        connection._transport = Sink()
        rival = asyncio.create_task(other())
        assert await connection._perform(iter([Write(b"x")] * 100))
        rival.cancel()
        return turns

    assert asyncio.run(download()) >= 99


def test_a_defect_shows_and_costs_one_connection(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Should the gateway itself fail on a request, it says so in the log and goes on."""

    def broken(*_: object) -> Answer:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Api, "respond", broken)
        assert ask(gateway, GET_BYTES) == (b"", "fin")
    assert [record.name for record in caplog.records] == ["gip_resilience.gateway"]
    assert ask(gateway, GET_AND_CLOSE)[0].endswith(BODY)


def test_a_client_that_leaves_is_not_waited_for(gateway: Gateway) -> None:
    """Clients that hang up at any point do no harm."""
    gateway.plan = FaultPlan.script(
        [Huge(1 << 28), Slow(600), Stall(), SlowBody(1, 0.001), HalfBody("stall")]
    )
    for number in range(1, 6):
        with closing(dial(gateway)) as client:
            connections._reset_on_close(client)
            client.sendall(GET_BYTES)
            until(partial(_has_seen, gateway, number))
    assert ask(gateway, GET_AND_CLOSE)[0].endswith(BODY)


def test_serve_prints_its_url_and_ends_on_interrupt() -> None:
    """The foreground form prints one line, answers, and ends quietly."""
    code = "from gip_resilience.gateway import serve; serve(':0')"
    process = subprocess.Popen([sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert fetch("GET", url + "/healthz").status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("host_port", "port"),
    [
        ("127.0.0.1:80", 80),
        ("localhost:0", 0),
        (":8080", 8080),
        ("8080", 8080),
        ("0.0.0.0:80", None),
        ("example.org:80", None),
        ("", None),
        (":x", None),
        (":65536", None),
        (":-1", None),
        ("[::1]:80", None),
    ],
)
def test_only_this_machine_is_served(host_port: str, port: int | None) -> None:
    """The address must be this machine's own, the port a port."""
    if port is None:
        with pytest.raises(ValueError):
            server._port_of(host_port)
    else:
        assert server._port_of(host_port) == port
