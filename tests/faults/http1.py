"""HTTP/1.1 that breaks: heads, lengths, chunks, encodings, endless and contradictory answers."""

from __future__ import annotations

import gzip
import zlib
from threading import Event
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from faults.scenes import BEGUN, BRIEF, FAIR, GOOD, JSON, QUICK, Outcome, Scene, ask, exchanges, good, scene
from gip_resilience.clock import SystemClock
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Harness, Session
    from loopback import Exchange

DEADLINE = 0.25
"""Seconds. Real ones, since the network's time is what is bounded."""

CUT: dict[str, Any] = {
    "config": QUICK.replace(deadline=DEADLINE, policies={"intermediary": gr.Policy(base_delay=0.001)}),
    "clock": SystemClock(),
}
"""For peers that never come to an end: the call has one."""

DRIP = 0.02
"""Seconds from one drop to the next."""

LOTS = 1500
"""Drops or pieces after which a peer ends by itself, whatever the client does."""

BOMB = 20 << 20
"""Bytes that a bomb makes of very few."""

OK = b"HTTP/1.1 200 OK\r\n"
TYPED = OK + b"content-type: application/json\r\n"
CHUNKED = TYPED + b"transfer-encoding: chunked\r\n\r\n"
BINARY = OK + b"content-type: application/octet-stream\r\n"

pause = Event().wait


def sized(body: bytes, length: int | None = None, head: bytes = TYPED) -> bytes:
    """An answer that announces a length, its own by default."""
    return head + b"content-length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def says(name: str, *parts: bytes, then: str = "close", **more: Any) -> None:
    """Register a peer that answers with these bytes, then closes, resets, goes silent or keeps the connection."""

    @exchanges(name, **more)
    def _(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(*parts)
        if then == "close":
            exchange.close()
        elif then == "reset":
            pause(DRIP)  # or the reset would overtake what was sent
            exchange.reset()
        elif then == "silence":
            exchange.wait_for_end()


def twice(session: Session, at: Scene) -> Outcome:
    """Two requests, one after the other, over one connection if that is possible; what the second came to."""
    ask(session, at)
    return ask(session, at)


def drips(name: str, first: bytes, drop: bytes) -> None:
    """Register a peer that answers drop by drop."""

    @exchanges(name, **CUT)
    def _(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(first)
        for _ in range(LOTS):
            if not exchange.send(drop):
                break
            pause(DRIP)
        exchange.close()


def pours(name: str, first: bytes, piece: bytes, *, deadline: bool = True) -> None:
    """Register a peer that answers without an end, as fast as it can."""
    unhurried = {"once": {"config": CUT["config"].replace(deadline=None)}}

    @exchanges(name, **({**CUT, **unhurried} if deadline else {}))
    def _(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(first)
        for _ in range(LOTS * 10):
            if not exchange.send(piece):
                break
        exchange.close()


# ---- no head, or half of one -----------------------------------------------------------------------------------

says("fin-after-request")
says("rst-after-request", then="reset")
says("silence-after-request", then="silence", silent=BRIEF)
says("partial-status-line", b"HTTP/1.")
says("status-line-only", b"HTTP/1.1 200")
says("headers-cut-fin", TYPED + b"content-le")
says("headers-cut-rst", TYPED + b"content-le", then="reset")
says("headers-cut-silence", TYPED + b"content-le", then="silence", silent=BEGUN)
says("garbage-instead-of-http", b"\x00\xff\xfe garbage \x80\r\n\r\n")
says("another-protocol", b"SSH-2.0-OpenSSH_9.6\r\n")
says("http-0.9", b"<html>hello</html>\n")
says("status-not-a-number", b"HTTP/1.1 2OO OK\r\ncontent-length: 0\r\n\r\n")
says("status-000", b"HTTP/1.1 000 Nothing\r\ncontent-length: 0\r\n\r\n")
says("status-999", b"HTTP/1.1 999 Request denied\r\ncontent-length: 0\r\n\r\n", then="keep")
says("http-version-unknown", b"HTTP/7.3 200 OK\r\n" + sized(GOOD, head=b""))
drips("status-line-drips", b"HTTP/1.1 200 ", b"O")
drips("headers-drip", OK, b"x-drip: y\r\n")
pours("endless-headers", OK, b"x-more: " + b"y" * 1000 + b"\r\n", deadline=False)
says("header-200kb", OK + b"x-long: " + b"y" * 200_000 + b"\r\n" + sized(GOOD, head=b""))
says("headers-300", OK + b"x-many: y\r\n" * 300 + sized(GOOD, head=b""))
says("header-without-colon", OK + b"nonsense\r\n" + sized(GOOD, head=b""))
says("header-space-before-colon", OK + b"content-type : application/json\r\n" + sized(GOOD, head=b""))
says("header-nul", OK + b"x-nul: a\x00b\r\n" + sized(GOOD, head=b""))
says("header-folded", OK + b"x-folded: a\r\n  b\r\n" + sized(GOOD, head=b""), then="keep")

# ---- interim answers -------------------------------------------------------------------------------------------

EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"
says("100-unasked", b"HTTP/1.1 100 Continue\r\n\r\n", sized(GOOD), then="keep")
says("103-then-200", EARLY, sized(GOOD), then="keep")
says("1xx-flood", EARLY * 200, sized(GOOD), then="keep")
says("103-then-fin", EARLY)
says("101-unasked", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")


@exchanges("100-continue-never-comes", sending={"headers": {"expect": "100-continue"}}, timeout=(5.0, 1.0))
def _(exchange: Exchange) -> None:
    good(exchange)


# ---- lengths and chunks ----------------------------------------------------------------------------------------

HALF = GOOD[: len(GOOD) // 2]
says("length-too-long-fin", sized(HALF, len(GOOD)))
says("length-too-long-silence", sized(HALF, len(GOOD)), then="silence", silent=BEGUN)
says("length-too-short", sized(GOOD, len(HALF)), then="keep")
says("rst-mid-body", sized(HALF, len(GOOD)), then="reset")
says("two-lengths", TYPED + b"content-length: 10\r\n" + sized(GOOD, head=b""))
says("length-negative", TYPED + b"content-length: -1\r\n\r\n" + GOOD)
says("length-not-a-number", TYPED + b"content-length: many\r\n\r\n" + GOOD)
says(
    "length-and-chunked",
    TYPED + b"content-length: 3\r\n" + b"transfer-encoding: chunked\r\n\r\n",
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD),
)
says("no-length-cut", TYPED + b"\r\n" + HALF)
says("chunks-cut", CHUNKED + b"%x\r\n%b\r\n" % (len(HALF), HALF))
says("chunk-cut-inside", CHUNKED + b"%x\r\n%b" % (len(GOOD), HALF))
says("chunk-size-garbage", CHUNKED + b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n")
says("chunk-size-huge", CHUNKED + b"ffffffffffffffff\r\n" + GOOD)
says(
    "chunk-extension-flood",
    CHUNKED + b"".join(b"1;%b\r\n%c\r\n" % (b"x" * 500, byte) for byte in GOOD) + b"0\r\n\r\n",
    then="keep",
)
says("trailers", CHUNKED + b"%x\r\n%b\r\n0\r\nx-checksum: 1\r\n\r\n" % (len(GOOD), GOOD), then="keep")
says("transfer-encoding-unknown", TYPED + b"transfer-encoding: snappy\r\n\r\n" + GOOD)
says(
    "bytes-after-the-answer",
    sized(GOOD) + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
    then="keep",
    counted=False,
    play=twice,
)
drips("body-drips", TYPED + b"content-length: 99999\r\n\r\n", b" ")
drips("chunks-drip", CHUNKED, b"1\r\n \r\n")
drips("error-body-drips", b"HTTP/1.1 400 No\r\ncontent-length: 99999\r\n\r\n", b" ")
pours("endless-json", CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n")
pours("endless-binary", BINARY + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n")
pours(
    "endless-error",
    b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n",
    b"10000\r\n" + b"x" * 65536 + b"\r\n",
)
says("binary-cut", sized(b"x" * 5000, 10_000, BINARY))
says("binary-rst", sized(b"x" * 5000, 10_000, BINARY), then="reset")

# ---- encodings -------------------------------------------------------------------------------------------------

GZIP = TYPED + b"content-encoding: gzip\r\n"
says("gzip-that-is-none", sized(GOOD, head=GZIP), then="keep")
says("gzip-truncated", sized(gzip.compress(GOOD)[:40], head=GZIP), then="keep")
says("gzip-bad-checksum", sized(gzip.compress(GOOD)[:-8] + b"\x00" * 8, head=GZIP), then="keep")
says("encoding-unknown", sized(GOOD, head=TYPED + b"content-encoding: rot13\r\n"), then="keep")
_spaces = zlib.compressobj(9, zlib.DEFLATED, 31)
SMALL_BOMB = b"".join([*(_spaces.compress(b" " * (1 << 20)) for _ in range(BOMB >> 20)), _spaces.flush()])
says("gzip-bomb-error", sized(SMALL_BOMB, head=b"HTTP/1.1 503 No\r\ncontent-encoding: gzip\r\n"), then="keep")
says(
    "charset-unknown",
    sized(GOOD, head=OK + b"content-type: application/json; charset=klingon\r\n"),
    then="keep",
)

# ---- a whole answer that is none ---------------------------------------------------------------------------------

PAGE = b"<!doctype html><html><body>Sign in to the network</body></html>"
HTML = OK + b"content-type: text/html\r\n"
says("captive-portal", sized(PAGE, head=HTML), then="keep")
says("html-called-json", sized(PAGE), then="keep")
says("json-called-text", sized(GOOD, head=OK + b"content-type: text/plain\r\n"), then="keep")
says("no-content-type", sized(GOOD, head=OK), then="keep")
says("json-cut-upstream", sized(HALF), then="keep")
says("json-empty", sized(b""), then="keep")
says("json-empty-chunked", CHUNKED + b"0\r\n\r\n", then="keep")
says(
    "error-in-a-200",
    sized(b'{"error":{"type":"server_error","code":"model_overloaded","message":"busy"}}'),
    then="keep",
)
says("204-instead", b"HTTP/1.1 204 No Content\r\n\r\n", then="keep")
says(
    "204-with-a-body",
    b"HTTP/1.1 204 No Content\r\ncontent-length: %d\r\n\r\n" % len(GOOD) + GOOD,
    then="keep",
    play=twice,
    right=lambda seen: seen.status in {200, 204},
)
says("205-instead", b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", then="keep")
says("304-unasked", b"HTTP/1.1 304 Not Modified\r\n\r\n", then="keep")


# ---- uploads ---------------------------------------------------------------------------------------------------

BIG = b'{"model":"azure/openai/gpt-5-mini","padding":"' + b"x" * (8 << 20) + b'"}'
UPLOAD: dict[str, Any] = {"headers": {"content-type": "application/json"}}


def upload(session: Session, at: Scene) -> Outcome:
    """A request larger than the system's buffers."""
    options = {**at.options(session), **UPLOAD, **session.content(BIG)}
    if session.harness.name != "requests":
        options["timeout"] = session.harness.library.Timeout(5, read=at.timeout[1], write=at.timeout[1])
    try:
        answer = session.request("POST", at.url, **options)
    except Exception as error:
        return Outcome(error=error)
    return Outcome(answer.status, answer.content)


TOO_LARGE = b"HTTP/1.1 413 Too large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@exchanges("early-413-body-read", play=upload)
def _(exchange: Exchange) -> None:
    exchange.send(TOO_LARGE)
    exchange.read_body()
    exchange.close()


@exchanges("upload-not-read", play=upload, silent=BRIEF)
def _(exchange: Exchange) -> None:
    # Longer than the client waits. Its leaving cannot be seen: that stands in line behind what is not read.
    pause(FAIR + 0.5)
    exchange.reset()


# ---- other places ----------------------------------------------------------------------------------------------


def redirect(status: int, to: str) -> bytes:
    """An answer that sends the caller elsewhere."""
    return b"HTTP/1.1 %d Elsewhere\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % (status, to.encode())


def following(session: Session, at: Scene) -> Outcome:
    """A caller that follows redirects, and shows a key."""
    options = at.options(session)
    options |= {"headers": {"authorization": "Bearer key"}}
    options |= {"follow_redirects": True} if session.harness.name != "requests" else {}
    try:
        answer = session.get(at.url, **options)
    except Exception as error:
        return Outcome(error=error)
    return Outcome(answer.status, answer.content)


says("redirect-loop", redirect(302, "/v1/chat/completions"), then="keep", play=following)
says("redirect-nowhere", redirect(302, "http://127.0.0.1:1/"), then="keep", play=following)
says(
    "redirect-without-location",
    b"HTTP/1.1 302 Elsewhere\r\ncontent-length: 0\r\n\r\n",
    then="keep",
    play=following,
)


@scene("redirect-to-a-sick-origin")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    keys: list[str] = []

    def sick(exchange: Exchange) -> None:
        keys.append(exchange.header("authorization"))
        if act == "always" or exchange.number == 1:
            exchange.answer(503, b"")
        else:
            good(exchange)

    with (
        Loopback(sick) as second,
        Loopback(lambda exchange: exchange.send(redirect(302, f"{second.url}/")) and None) as first,
    ):
        # Another port is another origin: nobody may learn the key there.
        yield Scene(
            first.url,
            lambda: first.count + second.count + 100 * sum(map(bool, keys)),
            play=following,
        )


@scene("digest-auth-then-503")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    challenge = 'www-authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
    authorized: list[int] = []

    def serve(exchange: Exchange) -> None:
        exchange.read_body()
        if not exchange.header("authorization"):
            exchange.answer(401, b"", challenge)
            return
        authorized.append(exchange.number)
        if act == "always" or len(authorized) == 1:
            exchange.answer(503, b"")
        else:
            exchange.answer(200, GOOD, JSON)

    auth = harness.library.auth.HTTPDigestAuth if harness.name == "requests" else harness.library.DigestAuth
    with Loopback(serve) as peer:
        yield Scene(peer.url, lambda: peer.count, sending={"auth": auth("user", "password")})


@scene("idle-connection-closed")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The peer gives the connection up while nobody uses it."""

    def serve(exchange: Exchange) -> None:
        good(exchange)
        if act == "always" or exchange.number == 1:
            exchange.close()

    def wait_between(session: Session, at: Scene) -> Outcome:
        ask(session, at)
        pause(2 * DRIP)  # the close is on its way
        return ask(session, at)

    with Loopback(serve) as peer:
        yield Scene(peer.url, lambda: peer.count, play=wait_between)


@scene("closed-as-the-next-request-comes")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The keep-alive race: the peer gives the connection up just as it is used again."""

    def serve(exchange: Exchange) -> None:
        if exchange.number == 1 or (act == "once" and exchange.number > 2):
            good(exchange)
        else:
            exchange.read_body()
            exchange.reset()

    with Loopback(serve) as peer:
        yield Scene(peer.url, lambda: peer.count, play=twice)


@scene("gzip-bomb-json")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The caller reads it in pieces; what is unpacked is never held at once by us."""

    def serve(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(sized(SMALL_BOMB, head=GZIP))

    def sip(session: Session, at: Scene) -> Outcome:
        answer, pieces = session.stream("POST", at.url, json={"model": "m"})
        return Outcome(answer.status, b"%d bytes" % sum(map(len, pieces)))

    with Loopback(serve) as peer:
        yield Scene(
            peer.url, lambda: peer.count, play=sip, right=lambda seen: seen.body == b"%d bytes" % BOMB
        )
