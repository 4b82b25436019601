"""Whatever a server sends, we hold little of it, wait shortly for it, and hand all of it up.

A server may be broken, or be somebody else's. The answers here are too large, too slow, too deep, not what they
say they are, or not HTTP at all.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import brotli
import pytest
import zstandard

import gip_resilience as gr
from gip_resilience._answers import Question
from gip_resilience.clock import SystemClock
from gip_resilience.gateway import FaultPlan, Gateway, Huge, Raw, Status
from harness import CHAT
from loopback import Loopback
from sending import open_session, read_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.testing import FakeClock
    from harness import Harness, Session
    from loopback import Exchange

KIB = 1 << 10
MIB = 1 << 20

ENVELOPE = b'{"error": {"type": "overloaded", "code": "model_overloaded", "message": "'
LATE_CODE = b'", "code": "internal_error"}}'


class HastyClock(SystemClock):
    """The machine's time, but pauses are over at once."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:  # type: ignore[override]
        """Pause for no time."""
        self.slept.append(seconds)

    async def asleep(self, seconds: float) -> None:
        """Pause for no time."""
        self.slept.append(seconds)


class Watched:
    """A store that notes the memory in use at the moment each attempt's verdict is known."""

    def __init__(self, brain: gr.Resilience) -> None:
        self.peaks: list[int] = []
        self._store: Any = brain.store
        self._report = brain.store.report
        brain.store.report = self.report  # type: ignore[method-assign]

    def report(self, *arguments: Any, **options: Any) -> Any:
        """Note, and pass on."""
        self.peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
        return self._report(*arguments, **options)


# ---- large ----------------------------------------------------------------------------------------------------

BLOCK = b"all work and no play makes a dull error message " * 1365  # 65 520 bytes
BLOCKS = 1600  # 105 MB


def send_huge_error(exchange: Exchange) -> None:
    """Answer 503 with a JSON error whose message has 105 MB."""
    exchange.read_body()
    length = len(ENVELOPE) + len(BLOCK) * BLOCKS + len(LATE_CODE)
    head = f"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    if not exchange.send(head.encode(), ENVELOPE):
        return
    for _ in range(BLOCKS):
        if not exchange.send(BLOCK):
            return
    exchange.send(LATE_CODE)


def test_a_huge_error_body(harness: Harness, clock: FakeClock) -> None:
    """64 KiB decide; little more is held; and the caller can read every byte of the last one."""
    brain = gr.Resilience(clock=clock)
    received = 0
    tail = b""

    def keep(piece: bytes) -> None:
        nonlocal received, tail
        received += len(piece)
        tail = (tail + piece)[-len(LATE_CODE) :]

    with Loopback(send_huge_error) as server, open_session(harness, brain) as mounted:
        with pytest.raises(Exception):  # noqa: B017 - warm up: imports and pools are not what is measured
            mounted.post("http://127.0.0.1:1/")
        watched = Watched(brain)
        tracemalloc.start()
        try:
            response = read_pieces(mounted, "POST", server.url, keep, json=CHAT)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    report = gr.report(response)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["model_overloaded"] * 4
    assert received == len(ENVELOPE) + len(BLOCK) * BLOCKS + len(LATE_CODE)
    assert tail == LATE_CODE
    # The chunks read (at most the limit and one read more), once more where they are joined, and a client's own.
    assert max(watched.peaks) < 512 * KIB
    assert peak < MIB


def test_how_much_of_an_error_body_is_read(harness: Harness, clock: FakeClock) -> None:
    """The limit and one read more are enough: a server that sends no more has its verdict."""
    decided = threading.Event()
    size = 128 * KIB

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(f"HTTP/1.1 400 No\r\ncontent-length: {MIB}\r\n\r\n".encode(), ENVELOPE.ljust(size))
        decided.wait(10)
        exchange.send(b" " * (MIB - size))

    received = []

    def keep(piece: bytes) -> None:
        decided.set()
        received.append(len(piece))

    with Loopback(handle) as server, open_session(harness, gr.Resilience(clock=clock)) as mounted:
        read_pieces(mounted, "POST", server.url, keep, json=CHAT, timeout=5)
    assert sum(received) == MIB


def test_a_code_behind_the_limit_is_not_found(harness: Harness, clock: FakeClock) -> None:
    """What stands behind 64 KiB of an error body decides nothing: the status does."""
    body = b'{"error": {"message": "' + b"x" * (65 * KIB) + b'", "code": "internal_error"}}'

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.answer(503, body, "content-type: application/json")

    with Loopback(handle) as server, open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(server.url)
    assert [attempt.code for attempt in answer.report.attempts] == ["http_503"] * 3
    assert answer.content == body


BOMBS = {
    "gzip": gzip.compress(ENVELOPE + bytes(100 * MIB), mtime=0),
    "deflate": __import__("zlib").compress(ENVELOPE + bytes(100 * MIB)),
    "br": brotli.compress(ENVELOPE + bytes(100 * MIB), quality=1),
    "zstd": zstandard.ZstdCompressor().compress(ENVELOPE + bytes(100 * MIB)),
}


@pytest.mark.parametrize("encoding", BOMBS)
def test_a_compression_bomb(encoding: str, harness: Harness, clock: FakeClock) -> None:
    """An error of a few kilobytes that unpacks to 100 MB: we unpack no more of it than we look at."""
    brain = gr.Resilience(clock=clock)
    received: list[bytes] = []

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.answer(503, BOMBS[encoding], f"content-encoding: {encoding}")

    with Loopback(handle) as server, open_session(harness, brain) as mounted:
        watched = Watched(brain)
        tracemalloc.start()
        try:
            response = read_pieces(mounted, "POST", server.url, received.append, json=CHAT)
        finally:
            tracemalloc.stop()
    report = gr.report(response)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["model_overloaded"] * 4
    assert b"".join(received) == BOMBS[encoding]
    # zstd's decoder cannot be stopped in the middle: one slice of input may become 2 MiB.
    assert max(watched.peaks) < (4 * MIB if encoding == "zstd" else 2 * MIB)


# ---- slow -----------------------------------------------------------------------------------------------------

IMPATIENT = gr.Config.from_dict({"body": {"error_timeout": 0.15}})


def drip(exchange: Exchange) -> None:
    """Answer 503, a byte every 20 ms."""
    exchange.read_body()
    exchange.send(b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
    stop = threading.Event()
    for _ in range(500):
        if not exchange.send(b" "):
            return
        stop.wait(0.02)


def stall(exchange: Exchange) -> None:
    """Answer 503, ten bytes of a thousand, and then nothing."""
    exchange.read_body()
    exchange.send(
        b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n", b'{"error": '
    )
    exchange.wait_for_end()


def stall_at_once(exchange: Exchange) -> None:
    """Answer 503, and no body."""
    exchange.read_body()
    exchange.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 1000\r\n\r\n")
    exchange.wait_for_end()


@pytest.mark.parametrize("handle", [drip, stall, stall_at_once])
def test_a_slow_error_body(handle: Callable[[Exchange], None], harness: Harness) -> None:
    """It is not waited for: the status decides, and the attempts are made."""
    clock = HastyClock()
    brain = gr.Resilience(IMPATIENT, clock=clock)
    started = time.monotonic()
    with Loopback(handle) as server, open_session(harness, brain) as mounted:
        status, report = _status_of(mounted, server.url)
        assert (status, server.count) == (503, 3)
    assert [attempt.code for attempt in report.attempts] == ["http_503"] * 3
    assert len(clock.slept) == 2
    assert time.monotonic() - started < 3


def _status_of(session: Session, url: str) -> tuple[int, gr.CallReport]:
    """Send, do not read the body, and close."""
    options: dict[str, Any] = {"json": CHAT, "timeout": 10}
    if session.harness.name == "requests":
        with session.client.post(url, stream=True, **options) as response:
            pass
    elif session.harness.colour == "sync":
        with session.client.stream("POST", url, **options) as response:
            pass
    else:

        async def send() -> Any:
            async with session.client.stream("POST", url, **options) as response:
                return response

        response = session.portal.call(send)
    report = gr.report(response)
    assert report is not None
    return response.status_code, report


def test_a_slow_error_body_can_still_be_read(harness: Harness) -> None:
    """What came too late to decide is there for the caller all the same."""
    body = b'{"error": {"code": "internal_error"}}'
    stop = threading.Event()

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(f"HTTP/1.1 404 No\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        for at in range(0, len(body), 3):
            exchange.send(body[at : at + 3])
            stop.wait(0.03)

    with Loopback(handle) as server, open_session(harness, gr.Resilience(IMPATIENT)) as mounted:
        answer = mounted.post(server.url, timeout=10)
    assert (answer.status, answer.content) == (404, body)
    assert answer.report.attempts[0].code == "http_404"


# ---- not HTTP -------------------------------------------------------------------------------------------------

OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BUSY = b"HTTP/1.1 503 No\r\nconnection: close\r\n"
GARBLED = {
    "bytes": bytes(range(256)),
    "no-version": b"200 OK\r\n\r\n",
    "other-protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "tls-alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "status-is-text": b"HTTP/1.1 OK fine\r\n\r\n",
    "status-is-huge": b"HTTP/1.1 99999 What\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    "status-is-low": b"HTTP/1.1 042 What\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    "status-is-600": b"HTTP/1.1 666 What\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
    "status-is-999": b"HTTP/1.1 999 Denied\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    "no-reason": b"HTTP/1.1 503\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    "reason-not-ascii": b"HTTP/1.1 503 Besch\xc3\xa4ftigt\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    "newlines-only": b"HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: 2\n\n{}",
    "header-without-colon": OK_JSON + b"content-length: 2\r\nnonsense\r\n\r\n{}",
    "header-not-ascii": OK_JSON + b"content-length: 2\r\nx-name: \xff\xfe\r\n\r\n{}",
    "header-with-nul": OK_JSON + b"content-length: 2\r\nx-name: a\x00b\r\n\r\n{}",
    "folded-header": OK_JSON + b"content-length: 2\r\nx-name: a\r\n b\r\n\r\n{}",
    "length-is-text": OK_JSON + b"content-length: two\r\n\r\n{}",
    "length-is-negative": OK_JSON + b"content-length: -2\r\n\r\n{}",
    "length-is-absurd": OK_JSON + b"content-length: " + b"9" * 30 + b"\r\n\r\n{}",
    "two-lengths": OK_JSON + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "chunk-size-is-text": OK_JSON + b"transfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
    "chunk-size-is-absurd": OK_JSON + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n{}\r\n",
    "unknown-transfer-encoding": OK_JSON + b"transfer-encoding: rot13\r\n\r\n{}",
    "large-header": OK_JSON + b"content-length: 2\r\nx-name: " + b"a" * MIB + b"\r\n\r\n{}",
    "many-headers": OK_JSON + b"content-length: 2\r\n" + b"x-name: a\r\n" * 5000 + b"\r\n{}",
    "long-status-line": b"HTTP/1.1 200 " + b"O" * MIB + b"\r\n\r\n",
    "odd-retry-after": BUSY + b"retry-after: \xff\xfe soon\r\ncontent-length: 0\r\n\r\n",
    "odd-content-type": BUSY + b"content-type: \xff\xfe;;;\x7f\r\ncontent-length: 2\r\n\r\n{}",
}


def seen(session: Session, url: str) -> tuple[Any, Any]:
    """What a caller sees: the answer, or the type of the error; and what leads to the report."""
    try:
        answer = session.post(url)
    except Exception as error:
        return type(error), error
    return (answer.status, answer.content), answer.response


@pytest.mark.parametrize("name", GARBLED)
def test_what_is_not_quite_http(name: str, harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """The caller sees what a bare client makes of it, after a few attempts at most, and a report."""
    gateway.plan = FaultPlan.always(Raw(GARBLED[name]))
    with open_session(harness) as bare:
        expected, _ = seen(bare, gateway.base_url + "/chat/completions")
    gateway.clear()
    brain = gr.Resilience(clock=clock)
    with open_session(harness, brain) as mounted:
        found, carrier = seen(mounted, gateway.base_url + "/chat/completions")
    assert found == expected
    assert 1 <= len(gateway.requests) <= 3
    assert gr.report(carrier) is not None
    assert brain.metrics.snapshot().total() == 1
    assert brain.metrics.snapshot().total("cancelled") == 0


# ---- not what it says -----------------------------------------------------------------------------------------

DEEP = b'{"error": ' + b'{"a": ' * 5000 + b"1" + b"}" * 5001
ODD_ERRORS = {
    "empty": b"",
    "blanks": b" \n",
    "deep": DEEP,
    "very-deep": b"[" * 60_000,
    "deep-strings": b'{"error": "' + b"\\" * 1001,
    "null": b"null",
    "number": b"503",
    "list": b"[[], {}, [1]]",
    "list-of-errors": b'[{"error": null}]',
    "error-is-a-list": b'{"error": [1, 2]}',
    "error-is-true": b'{"error": true}',
    "code-is-a-list": b'{"error": {"code": ["model_overloaded"]}}',
    "code-is-an-object": b'{"error": {"code": {}}}',
    "code-is-nan": b'{"error": {"code": NaN}}',
    "code-is-long": b'{"error": {"code": "' + b"x" * 50_000 + b'"}}',
    "code-with-lines": b'{"error": {"code": "a\\r\\nERROR forged\\u001b[31m"}}',
    "code-is-a-surrogate": b'{"error": {"code": "\\ud800"}}',
    "code-not-utf-8": b'{"error": {"code": "\xff\xfe"}}',
    "latin-1": '{"error": {"message": "überlastet"}}'.encode("latin-1"),
    "utf-16": json.dumps({"error": {"message": "no"}}).encode("utf-16"),
    "binary": bytes(range(256)) * 10,
    "cut": b'{"error": {"message": "no',
    "page": b"<html><body>" + b"<div>" * 5000,
    "stream": b'event: error\ndata: {"error": {"message": "no"}}\n\n',
    "nul": b"\0" * 1000,
    "large-numbers": b'{"error": {"retry_after": ' + b"9" * 5000 + b"}}",
}


@pytest.mark.parametrize("name", ODD_ERRORS)
@pytest.mark.parametrize("status", [503, 400], ids=["503", "400"])
def test_an_odd_error_body(
    status: int,
    name: str,
    harness: Harness,
    gateway: Gateway,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No body of an error breaks us: it decides nothing, the status does, and it goes up unchanged."""
    body = ODD_ERRORS[name]
    gateway.plan = FaultPlan.always(
        Status(status, body or "empty", headers={"content-type": "application/json"})
    )
    with open_session(harness, gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(gateway.base_url + "/chat/completions")
    assert (answer.status, answer.content) == (status, body)
    assert 1 <= len(gateway.requests) <= (3 if status == 503 else 1)
    for attempt in answer.report.attempts:
        assert len(attempt.code) <= 200
        assert attempt.code.isprintable()
        attempt.code.encode()
    assert not any("\n" in line or "\x1b" in line for line in caplog.messages)


MISLABELLED = {
    "gzip-that-is-not": (b'{"error": {"code": "model_overloaded"}}', "gzip"),
    "gzip-that-ends": (gzip.compress(b'{"error": {"code": "x"}}')[:12], "gzip"),
    "brotli-that-is-not": (b"\xff" * 40, "br"),
    "zstd-that-is-not": (b"\xff" * 40, "zstd"),
    "deflate-that-is-not": (b"\xff" * 40, "deflate"),
    "unknown": (b'{"error": {"code": "x"}}', "rot13"),
    "several": (gzip.compress(gzip.compress(b"{}")), "gzip, gzip"),
}


@pytest.mark.parametrize("name", MISLABELLED)
def test_an_error_body_in_the_wrong_encoding(
    name: str, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """It decides nothing; reading it raises what it raises in a bare client, and raw it is all there."""
    body, encoding = MISLABELLED[name]
    gateway.plan = FaultPlan.always(
        Status(503, body, headers={"content-type": "application/json", "content-encoding": encoding})
    )
    url = gateway.base_url + "/chat/completions"
    received: list[bytes] = []
    with open_session(harness) as bare, open_session(harness, gr.Resilience(clock=clock)) as mounted:
        if (
            harness.backend != "trio"
        ):  # there httpx leaves its own generators to the collector, which complains
            assert seen(mounted, url)[0] == seen(bare, url)[0]
            assert len(gateway.requests) == 4
        read_pieces(mounted, "POST", url, received.append, json=CHAT)
    assert b"".join(received) == body


def test_how_much_of_an_error_body_is_held(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit, and no byte more where we say how much is read; httpx hands out pieces of its own size.

    There the piece that crosses the limit is held too: it has left the network, and the caller must get it.
    """
    held: list[int] = []
    judge = Question.judge

    def weighed(self: Question, pairs: Any, raw: bytes, *rest: Any, **options: Any) -> Any:
        held.append(len(raw))
        return judge(self, pairs, raw, *rest, **options)

    monkeypatch.setattr(Question, "judge", weighed)
    limit = gr.Config().body.error_limit
    with (
        Gateway(FaultPlan.always(Huge(4 * MIB, status=400))) as gateway,
        open_session(harness, gr.Resilience()) as session,
    ):
        assert len(session.post(gateway.base_url + "/chat/completions").content) == 4 * MIB

    assert len(held) == 1
    assert limit <= held[0] <= (limit if harness.name == "requests" else 2 * limit - 1)
