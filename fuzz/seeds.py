"""The beginning of the corpora: the real cases in tests/data, in the form that the targets read.

``python -m fuzz.seeds FOLDER`` writes them below *FOLDER*, a folder for each target. A fuzzer's merge keeps of these,
and of what it has found, the few that reach everything; those are in ``fuzz/corpus``.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATA = Path(__file__).parents[1] / "tests" / "data"
_CHUNK = b"data: " + json.dumps({
    "id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hi"}}]
}).encode() + b"\n\n"  # fmt: skip
_STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
_DONE = b"data: [DONE]\n\n"
_STREAMS = (
    (0, _CHUNK + _CHUNK + _STOP + _DONE),
    (1, b'data: {"choices":[{"index":0,"text":"Hi","finish_reason":"length"}]}\n\n' + _DONE),
    (2, b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"r",'
        b'"background":true}}\n\nevent: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
        b'"sequence_number":1,"delta":"Hi"}\n\ndata: {"type":"response.completed","sequence_number":2}\n\n'),
    (3, b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\nevent: content_block_start\n'
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        b'"text":"Hi"}}\n\nevent: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    (4, b'data: {"candidates":[{"index":0,"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}\r\n\r\n'),
    (5, b"id: 1\ndata: tick\n\nid: 2\ndata: tock\n\n"),
)  # fmt: skip
_ERROR = b'data: {"error":{"code":"model_server_error","type":"server_error","message":"-"}}\n\n'


def _cases(name: str) -> Any:
    return json.loads((_DATA / name).read_text("utf-8"))


def _sse() -> Iterator[bytes]:
    cases = _cases("sse_cases.json")
    for case in cases["parse_cases"]:
        yield b"\x50\x00\x03" + b"".join(map(b64decode, case["chunks_b64"]))
    for case in cases["reconnect_cases"]:
        for connection in case["connections"]:
            yield b"\x14\x00\x01" + b64decode(connection.get("response_b64", ""))


def _inflating() -> Iterator[bytes]:
    from fuzz.inflating import _ENCODINGS, _packed

    for number, encoding in enumerate(_ENCODINGS[:4]):
        for raw in (False, True):
            yield bytes((number, 1, 0, 4, 3, 2, raw)) + _CHUNK
            yield bytes((number, 1, 0, 4, 251, 3, raw)) + _CHUNK[:50]
            packed = _packed(encoding, _CHUNK * 3, raw=raw)
            yield bytes((number, 0, 0, 6, 0)) + packed
            yield bytes((number, 0, 0, 6, 0)) + packed[:-5] + b"\0" + packed


def _error_bodies() -> Iterator[bytes]:
    for case in _cases("hint_cases.json")["cases"]:
        if "body" in case:
            body = case["body"]
            yield body.encode() if isinstance(body, str) else json.dumps(body).encode()
    for dialect in _cases("taxonomy.json").values():
        for row in dialect.get("codes", ()):
            yield json.dumps(
                {"error": {"code": row["code"], "type": row.get("category"), "message": "-"}}
            ).encode()
    yield b'[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"3s"}]}}]'
    yield b'{"object":"error","message":"x","type":"rate_limited","code":"1300","raw_status_code":429}'
    yield b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'
    yield b'{"choices":[],"error":{"code":502}}'
    yield b"<!doctype html><html><body>502 Bad Gateway</body></html>"
    yield b'{"error":{"code":"model_overlo'


def _headers(case: dict[str, Any]) -> bytes:
    from fuzz.words import HEADER_NAMES

    names = [name.lower() for name in HEADER_NAMES]
    known = {
        name.lower(): value for name, value in (case.get("headers") or {}).items() if name.lower() in names
    }
    out = bytes((len(known) % 6,))
    for name, value in list(known.items())[:5]:
        text = str(value).encode("latin-1", "replace")[:47]
        out += bytes((0, names.index(name), 0, len(text))) + text
    return out


def _classify() -> Iterator[bytes]:
    for body in _error_bodies():
        for form in (5, 2):
            yield bytes((18, 1, 1, 2, 0, form)) + body


def _answers() -> Iterator[bytes]:
    for body in _error_bodies():
        yield bytes((0, 0, 0, 6, 0, 0, 1)) + body


def _hints() -> Iterator[bytes]:
    for case in _cases("hint_cases.json")["cases"]:
        body = case.get("body") or ""
        text = body if isinstance(body, str) else json.dumps(body)
        yield bytes((0, 0, 1, 0, 0)) + _headers(case) + b"\x04" + text.encode()
        yield bytes((2, 5, 2, 0, 1)) + _headers(case) + b"\x02" + text.encode()


def _grammars() -> Iterator[bytes]:
    for number, stream in _STREAMS[:5]:
        for block in stream.split(b"\n\n"):
            yield bytes((number, 3)) + block + b"\n\n"
    yield bytes((0, 3)) + _ERROR


def _config() -> Iterator[bytes]:
    yield b"\x00" + (
        b'deadline = 10\non_open = "respond"\n[policies.model_overloaded]\nmax_attempts = 5\nbase_delay = 0.5\n'
        b'[breaker]\nopen_time = 3\n[stream]\nresume = ["/v1/*"]\n[store]\nbudget = "fleet"\n'
    )
    for mode in range(1, 5):
        for seed in range(12):
            yield bytes((mode,)) + blake2b(bytes((mode, seed)), digest_size=48).digest()


def _http1() -> Iterator[bytes]:
    host = b"Host: localhost\r\n"
    for limits in range(3):
        for request in (
            b"POST /v1/a%2Fb?key=x HTTP/1.1\r\n"
            + host
            + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
            b"PUT / HTTP/1.1\r\n"
            + host
            + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
            b"\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\n" + host + b"\r\n",
        ):
            yield bytes((limits, 0, 5)) + request


def _gateway() -> Iterator[bytes]:
    asked = {"model": "m", "messages": [{"role": "user", "content": "a tool"}], "stream": True, "max_tokens": 4,
             "tools": [{"type": "function", "function": {"name": "look"}}], "input": "text", "prompt": "text",
             "contents": [{"role": "user", "parts": [{"text": "text"}]}]}  # fmt: skip
    for path in range(15):
        yield bytes((1, path, path % 2, 0, 0, 0, 0, 0)) + json.dumps(asked).encode()
        yield bytes((1, path, 0, 3, 0, 0, 0, 1, 1, 5)) + b"model" + b"\x01m"


def _plan() -> Iterator[bytes]:
    yield b'\x02[[rules]]\nreply = {kind = "error", code = "model_overloaded", retry_after = 3}\ntimes = 2\np = 0.5\n'
    yield b'\x02[[rules]]\npath = "/v1/*"\nafter = 1\nreply = {kind = "half_body", how = "rst", then = {kind = "ok"}}\n'
    yield b'\x02[[rules]]\nreply = {kind = "slow", seconds = 2.0, then = {kind = "status", status = 503}}\n'
    for mode in range(2):
        for seed in range(12):
            yield bytes((mode,)) + blake2b(bytes((mode, seed)), digest_size=40).digest()


def _splice() -> Iterator[bytes]:
    from fuzz.splice import AGAIN

    for number, stream in _STREAMS:
        half = stream[: len(stream) // 2]
        for config in range(3):
            front = bytes((number, 0, config, 0, 3 * (number == 5), config, 0, 6))
            yield front + stream
            yield front + half + AGAIN + stream
            yield front + half + _ERROR + AGAIN + stream
            yield front[:4] + b"\x03" + front[5:] + stream[:-3] + AGAIN + stream


def _records() -> Iterator[bytes]:
    tag = b"0123456789abcdef"
    for news in (b"c %b 3 open 5000 trip", b"g %b 5000 6000", b"f %b", b"o %b"):
        yield b"\x00" + news % tag
    for seed in range(24):
        yield bytes((1 + seed % 2,)) + blake2b(bytes((seed,)), digest_size=60).digest()


_SEEDS = {
    "sse": _sse,
    "inflating": _inflating,
    "classify": _classify,
    "answers": _answers,
    "hints": _hints,
    "grammars": _grammars,
    "config": _config,
    "http1": _http1,
    "gateway": _gateway,
    "plan": _plan,
    "splice": _splice,
    "records": _records,
}


def main(folder: str) -> None:
    """Write the seeds of every target."""
    for name, seeds in _SEEDS.items():
        into = Path(folder, name)
        into.mkdir(parents=True, exist_ok=True)
        for seed in seeds():
            (into / blake2b(seed, digest_size=8).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    main(sys.argv[1])
