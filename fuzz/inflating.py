"""Content encodings: what was compressed comes out, any cut of it; what is damaged is said to be, and bombs wait."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import brotli
import zstandard

from fuzz.given import Given, cut
from gip_resilience._inflating import PIECE, DamagedError, UnknownEncodingError, inflater

if TYPE_CHECKING:
    from collections.abc import Iterable

_ENCODINGS = ("gzip", "deflate", "br", "zstd", "x-gzip", " GZip ", "deflate")
_MOST = 1 << 20
"""Bytes of output that are looked at."""


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    encoding, whole, sizes = given.one_of(_ENCODINGS), given.flag(), given.sizes()
    if whole:
        # Sometimes more than a piece, which a short input by itself never is; rarely a power of two.
        repeated, raw = 1 + given.byte() * given.one_of((0, 0, 1, 256)), given.flag()
        text = (given.rest() * repeated)[: 4 * PIECE]
        packed = _packed(encoding, text, raw=raw)
        assert _inflated(encoding, cut(packed, sizes)) == (text, False)
        assert _inflated(encoding, [packed]) == (text, False)
        return
    packed = given.rest()
    _is_known(given.text(12) or packed[:12].decode("latin-1"))
    one, one_damaged = _inflated(encoding, [packed])
    other, other_damaged = _inflated(encoding, cut(packed, sizes))
    if len(one) > _MOST or len(other) > _MOST:
        return
    assert one_damaged == other_damaged
    # What the same piece held before the damage may be lost.
    assert other.startswith(one) if one_damaged else one == other


def _packed(encoding: str, text: bytes, *, raw: bool) -> bytes:
    match encoding:
        case "deflate":
            machine = zlib.compressobj(1, wbits=-zlib.MAX_WBITS if raw else zlib.MAX_WBITS)
            return machine.compress(text) + machine.flush()
        case "br":
            return bytes(brotli.compress(text, quality=1))
        case "zstd":
            return zstandard.compress(text, 1)
        case _:
            half = len(text) // 2
            members = (text[:half], text[half:]) if raw else (text,)
            return b"".join(gzip.compress(member, 1, mtime=0) for member in members) + (b"\0\0" * raw)


def _inflated(encoding: str, pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    """What comes out, up to a limit, and whether it was damaged."""
    machine = inflater(encoding)
    assert machine is not None
    out: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            for text in machine.feed(piece):
                assert 1 <= len(text) <= PIECE
                out.append(text)
                size += len(text)
                if size > _MOST:
                    return b"".join(out), False
    except DamagedError:
        return b"".join(out), True
    return b"".join(out), False


def _is_known(encoding: str) -> None:
    try:
        machine = inflater(encoding)
    except UnknownEncodingError:
        return
    assert (machine is None) == (encoding.strip().lower() in {"", "identity"})
