"""What can be told from the bytes of a body: is it whole, is it JSON, what does it say. Pure, bounded."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

INFLATED_LIMIT = 16 * 1024 * 1024
"""Bytes a compressed body may grow to while we look at it; beyond, we stop looking (a bomb stays packed)."""

SLICE = 64
"""Bytes of zstd data decoded at a time: its decoder knows no limit, and a block of 4 bytes may hold 128 KiB."""

_BOM = b"\xef\xbb\xbf"
_ODD = _BOM[:1] + b" \t\n\r\v\f"
"""How a text begins that has a mark of its byte order, or may be all blank."""
_INVALID = re.compile(r"invalid (?:number|character) \(byte (\d+)\)$")
_json = msgspec.json.Decoder(msgspec.Raw)


class _Inflater(Protocol):
    """What zlib's decompressors have, and what the others are adapted to."""

    def inflate(self, data: bytes, limit: int) -> bytes: ...

    def ended(self) -> bool: ...


class _Zlib:
    def __init__(self) -> None:
        self._machine = zlib.decompressobj()

    def inflate(self, data: bytes, limit: int) -> bytes:
        return self._machine.decompress(data, limit)

    def ended(self) -> bool:
        return self._machine.eof


class _Gzip:
    """One or more gzip members in a row (RFC 1952, 2.2); what follows them and is none is ignored, as clients do."""

    def __init__(self) -> None:
        self._machine = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def inflate(self, data: bytes, limit: int) -> bytes:
        text = self._machine.decompress(data, limit)
        while self._machine.eof and len(text) < limit and self._machine.unused_data.startswith(b"\x1f\x8b"):
            data = self._machine.unused_data
            self._machine = zlib.decompressobj(16 + zlib.MAX_WBITS)
            text += self._machine.decompress(data, limit - len(text))
        return text

    def ended(self) -> bool:
        return self._machine.eof


class _Brotli:
    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]  # optional: present when the client can ask for it

        self._machine = brotli.Decompressor()

    def inflate(self, data: bytes, limit: int) -> bytes:
        return bytes(self._machine.process(data, output_buffer_limit=limit)[:limit])  # it takes it as a hint

    def ended(self) -> bool:
        return bool(self._machine.is_finished())


class _Zstandard:
    """One or more zstd frames in a row (RFC 8878, 3.1)."""

    def __init__(self) -> None:
        import zstandard  # optional: present when the client can ask for it

        self._new = zstandard.ZstdDecompressor().decompressobj
        self._machine = self._new()

    def inflate(self, data: bytes, limit: int) -> bytes:
        text = bytearray()
        for start in range(0, len(data), SLICE):
            piece = data[start : start + SLICE]
            while piece:
                if self._machine.eof:
                    self._machine = self._new()
                text += self._machine.decompress(piece)
                piece = self._machine.unused_data
            if len(text) >= limit:
                break
        return bytes(text[:limit])

    def ended(self) -> bool:
        return bool(self._machine.eof)


_INFLATERS: dict[str, Callable[[], _Inflater]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Zlib,
    "br": _Brotli,
    "zstd": _Zstandard,
}


class Text(NamedTuple):
    """A body without its content encoding.

    Attributes:
        text: what could be decoded, bounded.
        state: ``whole``: all of it; ``cut``: the compressed data does not come to its own end, which is the one
            sign of a truncated gzip answer (every client reads it as an empty body and no error); ``unknown``:
            nobody can say (an encoding we do not know, several of them, damaged, or over the limit).
    """

    text: bytes
    state: Literal["whole", "cut", "unknown"]


def inflated(raw: bytes, encoding: str, limit: int = INFLATED_LIMIT) -> Text:
    """*raw* without its content encoding, at most *limit* bytes of it."""
    encoding = encoding.strip().lower()
    if not encoding or encoding == "identity":
        return Text(raw, "whole")
    maker = _INFLATERS.get(encoding)
    if maker is None or not raw:
        return Text(b"", "unknown" if raw else "whole")
    try:
        machine = maker()
        text = machine.inflate(raw, limit)
    except ImportError:
        return Text(b"", "unknown")
    except zlib.error:
        return Text(_raw_deflate(raw, limit) if encoding == "deflate" else b"", "unknown")
    except Exception:  # each library has an error type of its own; damaged is damaged
        return Text(b"", "unknown")
    if len(text) >= limit:
        return Text(text, "unknown")
    return Text(text, "whole" if machine.ended() else "cut")


def _raw_deflate(raw: bytes, limit: int) -> bytes:
    """Some servers send deflate without its zlib wrapper."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, limit)
    except zlib.error:
        return b""


def breaks_off(text: bytes) -> bool:
    """Whether *text* is the beginning of a JSON document and not the whole of it.

    Only a document that ends too early counts. One that is wrong in another way (``NaN``, a stray comma) is
    what the server meant to send, and the caller's to judge; so is one nested too deeply for us to follow.
    """
    if not text or text[0] in _ODD:
        text = text.removeprefix(_BOM)
        if not text.strip():
            return True
    try:
        _json.decode(text)
    except RecursionError:
        return False
    except msgspec.DecodeError as error:
        problem = str(error)
        # A document cut inside a number is called malformed, at the byte that is not there.
        place = _INVALID.search(problem)
        return int(place[1]) >= len(text) if place else "truncated" in problem
    return False


def is_json(content_type: str) -> bool:
    """Whether a content type promises one JSON document (not a stream of them)."""
    if content_type == "application/json":
        return True
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def is_html(content_type: str) -> bool:
    """Whether a content type says web page."""
    return content_type.lstrip()[:9].lower() == "text/html"


def streams_json(path: str) -> bool:
    """Whether a path belongs to a service that streams *inside* one JSON document (Gemini without SSE)."""
    return path.endswith(":streamGenerateContent")
