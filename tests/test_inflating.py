"""Content encodings undone piece by piece: at once, bounded, and the same however the bytes arrive."""

from __future__ import annotations

import gzip
import random
import struct
import sys
import tracemalloc
import types
import zlib
from itertools import chain
from typing import TYPE_CHECKING

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience._inflating import PIECE, DamagedError, Inflater, UnknownEncodingError, inflater

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Flushed = Callable[[Iterable[bytes]], list[bytes]]

MIB = 1 << 20
WHOLE = 10 * MIB

EVENTS = [b'data: {"n": %d, "word": "w\xc3\xb6rter"}\n\n' % number for number in range(12)]
TEXT = b"".join(EVENTS)


def flushed_zlib(events: Iterable[bytes], wbits: int) -> list[bytes]:
    """Each event flushed by itself, and the end."""
    packer = zlib.compressobj(wbits=wbits)
    return [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in events] + [packer.flush()]


def flushed_gzip(events: Iterable[bytes]) -> list[bytes]:
    """As nginx sends a stream."""
    return flushed_zlib(events, 16 + zlib.MAX_WBITS)


def flushed_deflate(events: Iterable[bytes]) -> list[bytes]:
    """With the zlib wrapper, as the name means it."""
    return flushed_zlib(events, zlib.MAX_WBITS)


def flushed_raw_deflate(events: Iterable[bytes]) -> list[bytes]:
    """Without it, as some servers send it."""
    return flushed_zlib(events, -zlib.MAX_WBITS)


def flushed_brotli(events: Iterable[bytes]) -> list[bytes]:
    """Each event flushed by itself, and the end."""
    packer = brotli.Compressor(quality=4)
    return [packer.process(event) + packer.flush() for event in events] + [packer.finish()]


def flushed_zstd(events: Iterable[bytes]) -> list[bytes]:
    """Each event in blocks of its own, and the end."""
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return [packer.compress(event) + packer.flush(flush) for event in events] + [packer.flush()]


def checked_frame(event: bytes) -> bytes:
    """A zstd frame with a checksum."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(event)


PACKERS: dict[str, tuple[str, Flushed]] = {
    "gzip": ("gzip", flushed_gzip),
    "x-gzip": ("x-gzip", flushed_gzip),
    "upper-case": (" GZIP ", flushed_gzip),
    "deflate": ("deflate", flushed_deflate),
    "raw-deflate": ("deflate", flushed_raw_deflate),
    "br": ("br", flushed_brotli),
    "zstd": ("zstd", flushed_zstd),
}

ENCODINGS = pytest.mark.parametrize(("encoding", "flushed"), PACKERS.values(), ids=PACKERS)
SIZES = pytest.mark.parametrize("size", [1, 2, 3, 7, WHOLE])


def machine(encoding: str) -> Inflater:
    """The inflater of an encoding that has one."""
    made = inflater(encoding)
    assert made is not None
    return made


def parts(data: bytes, size: int) -> Iterator[bytes]:
    """As a network might bring it."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def inflated(encoding: str, arriving: Iterable[bytes]) -> bytes:
    """All that comes out; each piece of it is of the promised size."""
    feed = machine(encoding).feed
    pieces = [piece for data in arriving for piece in feed(data)]
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


# ---- whole bodies, at once -----------------------------------------------------------------------------------


@ENCODINGS
@SIZES
def test_an_event_is_out_when_its_bytes_are_in(encoding: str, flushed: Flushed, size: int) -> None:
    """However they arrive, nothing waits for what comes next."""
    feed = machine(encoding).feed
    text = b""
    for event, packed in zip([*EVENTS, b""], flushed(EVENTS), strict=True):
        before = len(text)
        for data in parts(packed, size):
            text += b"".join(feed(data))
        assert text[before:] == event


@ENCODINGS
def test_several_events_in_one_read(encoding: str, flushed: Flushed) -> None:
    """What is decoded of one read does not stop at a flush; the end may be split anywhere."""
    packed = b"".join(flushed(EVENTS))
    for cut in range(len(packed) + 1):
        assert inflated(encoding, [packed[:cut], packed[cut:]]) == TEXT, cut


@ENCODINGS
def test_a_body_that_breaks_off_is_no_error(encoding: str, flushed: Flushed) -> None:
    """What is there is given: every event that is whole, and a beginning of the text in any case."""
    blocks = flushed(EVENTS)
    packed = b"".join(blocks)
    for length in range(len(packed)):
        text = inflated(encoding, [packed[:length]])
        assert TEXT.startswith(text), length
        whole = sum(len(b"".join(blocks[: count + 1])) <= length for count in range(len(EVENTS)))
        assert len(text) >= len(b"".join(EVENTS[:whole])), length


@ENCODINGS
@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 3])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_an_event_of_many_pieces(encoding: str, flushed: Flushed, length: int, kind: str) -> None:
    """All of it comes at once, its last piece too when that is full."""
    event = bytes(length) if kind == "zeros" else random.Random(1).randbytes(length)
    feed = machine(encoding).feed
    for packed, expected in zip(flushed([event, b"next"]), [event, b"next", b""], strict=True):
        pieces = list(feed(packed))
        assert all(0 < len(piece) <= PIECE for piece in pieces)
        assert b"".join(pieces) == expected


@pytest.mark.parametrize(
    ("encoding", "packed", "unlimited"),
    [
        ("gzip", gzip.compress(bytes(PIECE * 3)), lambda: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress),
        ("deflate", zlib.compress(bytes(PIECE * 3)), lambda: zlib.decompressobj().decompress),
        (
            "br",
            brotli.compress(random.Random(1).randbytes(300) * 1000),
            lambda: brotli.Decompressor().process,
        ),
        (
            "zstd",
            checked_frame(bytes(PIECE * 3)),
            lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
        ),
    ],
    ids=["gzip", "deflate", "br", "zstd"],
)
def test_a_limit_keeps_nothing_back(
    encoding: str, packed: bytes, unlimited: Callable[[], Callable[[bytes], bytes]]
) -> None:
    """Wherever the data breaks off, as much is out as the library gives without one."""
    for length in range(1, len(packed)):
        expected = unlimited()(packed[:length])
        assert inflated(encoding, [packed[:length]]) == expected, length


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    packer=st.sampled_from(sorted(PACKERS)),
    events=st.lists(st.binary(max_size=300), max_size=6),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8),
)
def test_round_trip(packer: str, events: list[bytes], sizes: list[int]) -> None:
    """Any text, packed event by event, arriving in any pieces."""
    encoding, flushed = PACKERS[packer]
    packed = b"".join(flushed(events))
    arriving: list[bytes] = []
    while packed:
        size = sizes[len(arriving) % len(sizes)]
        arriving.append(packed[:size])
        packed = packed[size:]

    assert inflated(encoding, arriving) == b"".join(events)


@ENCODINGS
def test_nothing_in_nothing_out(encoding: str, flushed: Flushed) -> None:
    """Empty reads do no harm: at the start, in between, and after the end."""
    arriving = [b""]
    for packed in flushed(EVENTS):
        arriving += [packed, b""]

    assert inflated(encoding, arriving) == TEXT


@ENCODINGS
def test_two_bodies_at_a_time(encoding: str, flushed: Flushed) -> None:
    """One inflater knows nothing of another."""
    one, other = machine(encoding), machine(encoding)
    texts = [b"", b""]
    for mine, yours in zip(flushed(EVENTS), flushed(EVENTS[::-1]), strict=True):
        texts[0] += b"".join(one.feed(mine))
        texts[1] += b"".join(other.feed(yours))

    assert texts == [TEXT, b"".join(EVENTS[::-1])]


# ---- members, frames, and what follows -----------------------------------------------------------------------


def members(events: Sequence[bytes]) -> list[bytes]:
    """Each event a gzip member of its own."""
    return [gzip.compress(event, mtime=0) for event in events]


def frames(events: Sequence[bytes]) -> list[bytes]:
    """Each event a zstd frame of its own, with one between that carries no content (RFC 8878, 3.1.2)."""
    skipped = struct.pack("<II", 0x184D2A50, 5) + b"12345"
    return [zstandard.ZstdCompressor().compress(event) + skipped for event in events]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", members), ("zstd", frames)])
@SIZES
def test_members_in_a_row_are_one_body(
    encoding: str, pack: Callable[[Sequence[bytes]], list[bytes]], size: int
) -> None:
    """Each is out when its bytes are in; empty ones do no harm; all of them may come in one read."""
    events = [*EVENTS, b"", b"", *EVENTS]
    feed = machine(encoding).feed
    for event, packed in zip(events, pack(events), strict=True):
        assert b"".join(chain.from_iterable(map(feed, parts(packed, size)))) == event

    assert inflated(encoding, parts(b"".join(pack(events)), size)) == b"".join(events)


FOLLOWING = {
    "padding": bytes(100),
    "text": b"after",
    "half-a-magic-number": b"\x1f",
    "almost-a-magic-number": b"\x1f\x8c",
    "then-another-member": b"\0" + gzip.compress(b"no"),
}


@pytest.mark.parametrize("following", FOLLOWING.values(), ids=FOLLOWING)
@SIZES
def test_what_follows_the_last_gzip_member(following: bytes, size: int) -> None:
    """It is ignored to the end, as the clients ignore it."""
    packed = b"".join(members([TEXT[:100], TEXT[100:]]))

    assert inflated("gzip", parts(packed + following, size)) == TEXT


@pytest.mark.parametrize("flushed", [flushed_deflate, flushed_raw_deflate])
@SIZES
def test_what_follows_deflate(flushed: Flushed, size: int) -> None:
    """It is ignored."""
    packed = b"".join(flushed(EVENTS))

    assert inflated("deflate", parts(packed + packed + b"after", size)) == TEXT


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(TEXT)), ("deflate", zlib.compress(TEXT))],
    ids=["gzip", "deflate"],
)
def test_what_follows_is_not_kept(encoding: str, packed: bytes) -> None:
    """However much it is."""
    feed = machine(encoding).feed
    text = b"".join(feed(packed))
    junk = bytes(PIECE)
    tracemalloc.start()
    try:
        for _ in range(50):
            text += b"".join(feed(junk))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert text == TEXT
    assert peak < 2 * PIECE


# ---- damage --------------------------------------------------------------------------------------------------


def wide_window(event: bytes) -> bytes:
    """A zstd frame whose header asks for 16 MiB of memory."""
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(event) + packer.flush()


DAMAGED = {
    "not-gzip": ("gzip", b"", TEXT),
    "gzip-begun": ("gzip", flushed_gzip([TEXT])[0], b"\xff" * 20),
    "gzip-checksum": ("gzip", gzip.compress(TEXT)[:-8], bytes(8)),
    "second-gzip-member": ("gzip", gzip.compress(TEXT), b"\x1f\x8b" + b"\xff" * 20),
    "not-deflate": ("deflate", b"", b"\xff" * 20),
    "zlib-header": ("deflate", b"", b"\x78\xff" + b"\0" * 20),
    "deflate-begun": ("deflate", flushed_deflate([TEXT])[0], b"\xff" * 20),
    "deflate-checksum": ("deflate", zlib.compress(TEXT)[:-4], bytes(4)),
    "raw-deflate-begun": ("deflate", flushed_raw_deflate([TEXT])[0], b"\xff" * 20),
    "not-brotli": ("br", b"", b"\xff" * 20),
    "brotli-begun": ("br", flushed_brotli([TEXT])[0], b"\xff" * 20),
    "after-brotli": ("br", brotli.compress(TEXT), b"after"),
    "not-zstd": ("zstd", b"", TEXT),
    "zstd-begun": ("zstd", flushed_zstd([TEXT])[0], b"\xff" * 20),
    "zstd-checksum": ("zstd", checked_frame(TEXT)[:-4], bytes(4)),
    "after-zstd": ("zstd", checked_frame(TEXT), b"after"),
    "zstd-asks-for-too-much": ("zstd", b"", wide_window(TEXT)),
}


@pytest.mark.parametrize(("encoding", "good", "bad"), DAMAGED.values(), ids=DAMAGED)
@SIZES
def test_damage(encoding: str, good: bytes, bad: bytes, size: int) -> None:
    """It is told, with the library's own error behind it; what came before it is out."""
    feed = machine(encoding).feed
    text = b"".join(piece for data in parts(good, size) for piece in feed(data))

    assert text == (TEXT if good else b"")
    with pytest.raises(DamagedError) as caught:
        list(chain.from_iterable(map(feed, parts(bad, size))))
    assert isinstance(caught.value.__cause__, (zlib.error, brotli.error, zstandard.ZstdError))


# ---- bombs ---------------------------------------------------------------------------------------------------


def blocks_of_one_byte(count: int) -> bytes:
    """A zstd frame of *count* blocks, each 4 bytes that stand for 128 KiB: as small as a bomb can be."""
    header = struct.pack("<IBB", 0xFD2FB528, 0x00, 0x38)
    block = struct.pack("<I", (128 * 1024) << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", (128 * 1024) << 3 | 1 << 1 | 1)[:3] + b"\0"
    return header + block * (count - 1) + last


def raw_deflate(data: bytes) -> bytes:
    """Deflate without its zlib wrapper."""
    return b"".join(flushed_raw_deflate([data]))


BOMBS = {
    "gzip": ("gzip", gzip.compress(bytes(32 * MIB))),
    "many-members": ("gzip", gzip.compress(bytes(MIB)) * 32),
    "deflate": ("deflate", zlib.compress(bytes(32 * MIB))),
    "raw-deflate": ("deflate", raw_deflate(bytes(32 * MIB))),
    "br": ("br", brotli.compress(bytes(32 * MIB), quality=5)),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress(bytes(32 * MIB))),
    "zstd-smallest": ("zstd", blocks_of_one_byte(256)),
}


@pytest.mark.parametrize(("encoding", "bomb"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_never_stands_in_memory(encoding: str, bomb: bytes) -> None:
    """32 MiB come out in small pieces, and only while they are taken."""
    feed = machine(encoding).feed
    tracemalloc.start()
    try:
        size = 0
        for piece in feed(bomb):
            assert len(piece) <= PIECE
            size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(bomb) < 32 * MIB // 900
    assert size == 32 * MIB
    assert peak < 5 * MIB if encoding == "zstd" else peak < MIB


# ---- encodings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["", "identity", " Identity ", " "])
def test_nothing_to_undo(encoding: str) -> None:
    """A body without an encoding needs no inflater."""
    assert inflater(encoding) is None


@pytest.mark.parametrize(
    "encoding", ["compress", "gzip, br", "gzip,gzip", "identity, gzip", "aes128gcm", "gzipp"]
)
def test_what_cannot_be_undone(encoding: str) -> None:
    """An unknown encoding, and several in a row."""
    with pytest.raises(UnknownEncodingError):
        inflater(encoding)


@pytest.mark.parametrize(("encoding", "library"), [("br", "brotli"), ("zstd", "zstandard")])
def test_a_library_that_is_missing(encoding: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoding is then as good as unknown; the others are not touched."""
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(UnknownEncodingError):
        inflater(encoding)
    assert inflater("gzip") is not None


def test_a_brotli_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.2 a few bytes could fill the memory: it counts as missing."""
    old = types.ModuleType("brotli")
    old.Decompressor = type("Decompressor", (), {"process": lambda self, data: data})  # type: ignore[attr-defined]
    old.error = ValueError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "brotli", old)

    with pytest.raises(UnknownEncodingError):
        inflater("br")
