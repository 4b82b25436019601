"""Event streams that break after their 200, stall, say that they failed, or are strangely written."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from faults.http1 import PAGE
from faults.scenes import BEGUN, HELLO, QUICK, Scene, exchanges, listen, scene
from gip_resilience.clock import SystemClock
from gip_resilience.gateway import BreakStream, FaultPlan, Gateway, StreamOptions
from live import DONE, EXACT, FINISH, ROLE, STREAMED, delta
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Harness
    from loopback import Exchange

pause = Event().wait

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
OPEN = HEAD + b"connection: close\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
FIRST = ROLE + delta("Hello")
"""As far as a stream got that broke after its first output."""

WHOLE: dict[str, Any] = {"right": lambda seen: (seen.status, seen.body) == (200, HELLO)}


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def well(exchange: Exchange) -> None:
    """The right stream."""
    exchange.read_body()
    exchange.send(CHUNKED, chunk(HELLO), b"0\r\n\r\n")


def breaks(name: str, *parts: bytes, then: str = "close", body: dict[str, Any] = EXACT, **more: Any) -> None:
    """Register a stream of these bytes, and what comes then.

    Args:
        name: of the fault.
        parts: sent one by one.
        then: ``close``, ``reset``, ``silence``, or ``keep`` the connection.
        body: of the request: one whose answer is the same each time, by default.
        more: attributes of the scene.
    """

    @exchanges(name, **{"well": well, "play": listen(body), **WHOLE, **more})
    def _(exchange: Exchange) -> None:
        exchange.read_body()
        for part in parts:
            if not exchange.send(part):
                return
            pause(0.003 if len(parts) > 1 else 0)
        if then == "close":
            exchange.close()
        elif then == "reset":
            pause(0.03)  # or the reset would overtake what was sent
            exchange.reset()
        elif then == "silence":
            exchange.wait_for_end()


# ---- ends before its end -----------------------------------------------------------------------------------------

breaks("sse-empty", OPEN)
breaks("sse-eof-before-output", OPEN + ROLE)
breaks("sse-eof-after-output", OPEN + FIRST)
breaks("sse-eof-after-output-any", OPEN + FIRST, body=STREAMED)
breaks("sse-chunked-eof", CHUNKED + chunk(FIRST) + b"0\r\n\r\n", then="keep")
breaks("sse-chunks-cut", CHUNKED + chunk(FIRST))
breaks("sse-cut-inside-event", OPEN + FIRST + delta(" wor")[:20])
breaks("sse-cut-inside-character", OPEN + FIRST + delta("w\u00f6r".encode().decode("latin-1"))[:44])
breaks("sse-rst", CHUNKED + chunk(FIRST), then="reset")
breaks("sse-rst-before-output", CHUNKED + chunk(ROLE), then="reset")
breaks("sse-marker-missing", OPEN + HELLO.removesuffix(DONE))
breaks("sse-rst-after-marker", CHUNKED + chunk(HELLO), then="reset")
breaks("sse-silence-after-marker", CHUNKED + chunk(HELLO), then="silence", timeout=(5.0, 0.3))

# ---- falls silent ------------------------------------------------------------------------------------------------

breaks("sse-stall-before-output", OPEN + ROLE, then="silence", silent=BEGUN)
breaks("sse-stall-after-output", OPEN + FIRST, then="silence", silent=BEGUN)


def pings(name: str, first: bytes, **more: Any) -> None:
    """Register a stream in which after *first* there are only comments."""

    @exchanges(name, **{"well": well, "play": listen(EXACT), **WHOLE, **more})
    def _(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(OPEN, first)
        for _ in range(200):
            if not exchange.send(b": ping\n\n"):
                break
            pause(0.03)
        exchange.close()


DEADLINE: dict[str, Any] = {"config": QUICK.replace(deadline=0.2), "clock": SystemClock()}
pings("sse-only-pings", FIRST, **DEADLINE)

# ---- says that it failed -----------------------------------------------------------------------------------------

ERROR = b'data: {"error":{"type":"server_error","code":"stream_error","message":"broke"}}\n\n'
OVERLOADED = (
    b'event: error\ndata: {"error":{"type":"server_error","code":"model_overloaded","message":"busy"}}\n\n'
)
HOPELESS = (
    b'data: {"error":{"type":"invalid_request_error","code":"context_length_exceeded","message":"long"}}\n\n'
)
breaks("sse-error-before-output", OPEN + ROLE + ERROR)
breaks("sse-error-after-output", OPEN + FIRST + ERROR)
breaks("sse-error-after-output-any", OPEN + FIRST + ERROR, body=STREAMED)
breaks("sse-error-overloaded", OPEN + OVERLOADED)
breaks("sse-error-hopeless", OPEN + ROLE + HOPELESS)
breaks("sse-error-then-done", OPEN + FIRST + ERROR + DONE)

# ---- says nonsense -----------------------------------------------------------------------------------------------

breaks("sse-garbled", OPEN + FIRST + b'data: {"choices":[{"ind\n\n' + delta(" wor") + FINISH + DONE)
breaks("sse-html-inside", OPEN + PAGE)
breaks(
    "sse-html-instead",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(PAGE) + PAGE,
    then="keep",
)
breaks(
    "sse-json-instead",
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    then="keep",
)
breaks("sse-503-instead", b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", then="keep")
breaks("sse-204-instead", b"HTTP/1.1 204 No Content\r\n\r\n", then="keep")


@scene("sse-another-answer")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Asked again, the model says something else, although it should not."""

    def serve(exchange: Exchange) -> None:
        exchange.read_body()
        if exchange.number == 1:
            exchange.send(OPEN, FIRST)
        else:
            exchange.send(OPEN, ROLE + delta("Good evening") + FINISH + DONE)
        exchange.close()

    with Loopback(serve) as peer:
        yield Scene(peer.url + "/v1/chat/completions", lambda: peer.count, play=listen(EXACT), **WHOLE)


# ---- is strangely written ------------------------------------------------------------------------------------------


def odd(name: str, text: bytes, *, pieces: int = 0) -> None:
    """Register a stream that is right, though nobody would write it so; its bytes must come as they are."""
    parts = [text] if not pieces else [text[n : n + pieces] for n in range(0, len(text), pieces)]
    breaks(name, CHUNKED, *map(chunk, parts), b"0\r\n\r\n", then="keep", right=lambda seen: seen.body == text)


UMLAUTS = (
    ROLE + 'data: {"choices":[{"index":0,"delta":{"content":"Grüße, 안녕"}}]}\n\n'.encode() + FINISH + DONE
)
odd("sse-split-characters", UMLAUTS, pieces=7)
odd("sse-crlf-split", HELLO.replace(b"\n", b"\r\n"), pieces=11)
odd("sse-cr-only", HELLO.replace(b"\n", b"\r"))
odd("sse-bom", b"\xef\xbb\xbf" + HELLO)
odd("sse-retry-and-ids", b"retry: 1\n\n" + HELLO.replace(b"data: {", b"id: 1\ndata: {"))
odd("sse-event-1mb", ROLE + delta("x", 1 << 20) + FINISH + DONE)
odd("sse-comments-between", HELLO.replace(b"\n\n", b"\n\n: still here\n\n").removesuffix(b": still here\n\n"))

# ---- over the gateway's own streams --------------------------------------------------------------------------------


def gateway(
    name: str, broken: BreakStream, body: dict[str, Any], path: str = "/chat/completions", **streams: Any
) -> None:
    """Register a break of a stream that the local gateway makes; what is whole is what it says unbroken."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        import httpx2

        plan = FaultPlan.script([broken]) if act == "once" else FaultPlan.always(broken)
        with Gateway(streams=StreamOptions(**streams), seed=0) as running:
            url = running.base_url + path
            with httpx2.Client(verify=False, trust_env=False) as plain:
                whole = text_of(plain.post(url, json=body).content)
            running.plan = plan
            running.clear()
            yield Scene(
                url,
                lambda: len(running.requests),
                play=listen(body),
                right=lambda seen: seen.status == 200 and text_of(seen.body) == whole,
            )


def text_of(data: bytes) -> tuple[str, ...]:
    """Every event's data without what differs from run to run: ids and times."""
    import json

    found = []
    for event in gr.sse.SSEDecoder().feed(data):
        if not event.data.startswith("{"):
            found.append(event.data)
            continue
        value = json.loads(event.data)
        for key in ("id", "created", "sequence_number", "obfuscation"):
            value.pop(key, None)
        found.append(json.dumps(value, sort_keys=True))
    return tuple(found)


ASK = {"model": "azure/openai/gpt-5-mini", "stream": True, "temperature": 0, "max_tokens": 6}
CHAT = {**ASK, "messages": [{"role": "user", "content": "Hello"}]}
gateway("sse-gzip-cut", BreakStream(how="fin", events=3, gzip=True), CHAT)
gateway("sse-length-short", BreakStream(how="fin", events=3, framing="length"), CHAT)
gateway("sse-resume-by-id", BreakStream(how="rst", events=3), CHAT | {"temperature": 1}, event_ids=True)
