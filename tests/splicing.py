"""Streams of every protocol as events, and the splice they are fed to."""

from __future__ import annotations

from typing import Any

from gip_resilience._splice import Splice
from gip_resilience.config import Config, StreamConfig
from gip_resilience.recovery import Asked, Origin
from replays import (
    DONE,
    ROLE,
    STOP,
    anthropic,
    chat,
    closes,
    event,
    gemini,
    legacy,
    opens,
    says,
    starts,
    stops,
    usage,
)

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m:streamGenerateContent",
    "unknown": "/events",
}
PLAIN = Asked(known=True)
REPEATABLE = Asked(known=True, repeatable=True)
BACKGROUND = Asked(known=True, background=True)


def spliced(
    name: str = "chat",
    request: Asked = PLAIN,
    *,
    method: str = "POST",
    resumable: bool = False,
    **stream: Any,
) -> Splice:
    """A splice of a stream of the protocol that *name* promises."""
    path = PATHS[name]
    origin = Origin(method, f"https://gateway.example{path}", resumable)
    return Splice(Config(stream=StreamConfig(**stream)), path, origin, lambda: request, lambda: 1e9)


def fed(splice: Splice, *pieces: bytes) -> bytes:
    """What comes out of some bytes of the body, the way a stream is read: what follows the marker is drained."""
    out = b""
    for piece in pieces:
        if splice.broken is None:
            out += splice.after(piece) if splice.over else splice.feed(piece)
    return out


def read(splice: Splice, *pieces: bytes) -> bytes:
    """The same of a whole body, which ends in order."""
    out = fed(splice, *pieces)
    return out if splice.over or splice.broken else out + splice.end()


def cut(data: bytes, size: int) -> list[bytes]:
    """*data* in pieces; all of it for a size of 0."""
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


def run(number: int, type_: str, **fields: Any) -> bytes:
    """An event of the Responses API."""
    return event({"type": type_, "sequence_number": number, **fields}, type_)


def response(number: int, type_: str, *, background: bool = False, run_id: str = "resp_1") -> bytes:
    """One that holds the run."""
    return run(number, type_, response={"id": run_id, "background": background, "output": []})


def identified(raw: bytes, id_: str) -> bytes:
    """An event with an id."""
    return b"id: " + id_.encode() + b"\n" + raw


TEXTS = ("Hello", " wörld", " 日本")

STREAMS: dict[str, list[bytes]] = {
    "chat": [chat(ROLE), *(chat({"content": text}) for text in TEXTS), chat({}, "stop"), usage(), DONE],
    "completions": [*(legacy(text) for text in TEXTS), legacy("", "stop"), DONE],
    "responses": [
        response(0, "response.created"),
        response(1, "response.in_progress"),
        run(2, "response.output_item.added", output_index=0, item={"id": "msg_1"}),
        run(3, "response.content_part.added", output_index=0, content_index=0),
        *(run(n, "response.output_text.delta", delta=text) for n, text in enumerate(TEXTS, 4)),
        run(7, "response.output_text.done", text="".join(TEXTS)),
        response(8, "response.completed"),
    ],
    "anthropic": [
        starts(),
        opens(),
        anthropic("ping"),
        *map(says, TEXTS),
        closes(),
        stops(),
        STOP,
    ],
    "gemini": [*(gemini({"text": text}) for text in TEXTS), gemini({"text": ""}, finish="STOP")],
}
OPENERS = {"chat": 1, "completions": 0, "responses": 4, "anthropic": 3, "gemini": 0}
"""How many events come before the first of the answer."""

WHOLE = {name: b"".join(events) for name, events in STREAMS.items()}
NAMES = sorted(STREAMS)

SERVER_ERROR = {"error": {"type": "server_error", "code": "model_server_error", "message": "-"}}
FAILED = event(SERVER_ERROR)
