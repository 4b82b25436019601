"""What the bytes of a body tell: whole or cut, JSON or not."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import brotli
import msgspec
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gip_resilience import _bodies
from gip_resilience._bodies import breaks_off, inflated, is_html, is_json, streams_json

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20

TEXT = json.dumps({"words": [random.Random(1).randrange(10**9) for _ in range(40)]}).encode()


def raw_deflate(data: bytes) -> bytes:
    """Deflate without its zlib wrapper, as some servers send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", lambda data: gzip.compress(data, mtime=0)),
    "x-gzip": ("x-gzip", lambda data: gzip.compress(data, mtime=0)),
    "upper-case": (" GZIP ", lambda data: gzip.compress(data, mtime=0)),
    "deflate": ("deflate", zlib.compress),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd-sized-unknown": (
        "zstd",
        zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress,
    ),
}

ENCODINGS = pytest.mark.parametrize(("encoding", "pack"), PACKERS.values(), ids=PACKERS)


@ENCODINGS
def test_a_whole_body(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    """It is unpacked and known to be whole; so is one of nothing."""
    assert inflated(pack(TEXT), encoding) == (TEXT, "whole")
    assert inflated(pack(b""), encoding) == (b"", "whole")


@ENCODINGS
def test_a_body_cut_anywhere(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    """At every byte the cut is seen, and what could be unpacked is a beginning of the text."""
    packed = pack(TEXT)
    for length in range(1, len(packed)):
        text, state = inflated(packed[:length], encoding)
        assert state == "cut", length
        assert TEXT.startswith(text), length


def test_raw_deflate() -> None:
    """Without its wrapper it can be read, but nobody can say whether it is whole."""
    packed = raw_deflate(TEXT)
    assert inflated(packed, "deflate") == (TEXT, "unknown")
    for length in range(1, len(packed)):
        text, state = inflated(packed[:length], "deflate")
        assert state in {"cut", "unknown"}, length
        assert TEXT.startswith(text) or state == "unknown"


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_several_members(name: str) -> None:
    """Two in a row are one body; a cut inside the second is a cut."""
    encoding, pack = PACKERS[name]
    packed = pack(TEXT[:100]) + pack(TEXT[100:])
    assert inflated(packed, encoding) == (TEXT, "whole")
    assert inflated(packed, encoding, 50) == (TEXT[:50], "unknown")
    for length in range(len(pack(TEXT[:100])) + 3, len(packed)):
        assert inflated(packed[:length], encoding).state == "cut", length


def test_what_follows_a_gzip_member_and_is_none() -> None:
    """Padding is ignored, as the clients ignore it."""
    assert inflated(gzip.compress(TEXT) + b"\0" * 100, "gzip") == (TEXT, "whole")


UNKNOWN = {
    "no-such-encoding": (b"abc", "compress"),
    "several": (gzip.compress(gzip.compress(TEXT)), "gzip, gzip"),
    "not-gzip": (TEXT, "gzip"),
    "not-deflate": (b"\xff\xff\xff", "deflate"),
    "not-brotli": (b"\xff" * 50, "br"),
    "not-zstd": (TEXT, "zstd"),
    "damaged-gzip": (gzip.compress(TEXT)[:40] + b"\0\xff" * 40, "gzip"),
    "wrong-checksum": (gzip.compress(TEXT)[:-8] + b"\0" * 8, "gzip"),
}


@pytest.mark.parametrize(("raw", "encoding"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_nobody_can_say(raw: bytes, encoding: str) -> None:
    """Damaged, mislabelled or foreign: no error, and no claim that it was cut."""
    assert inflated(raw, encoding).state == "unknown"


def test_without_an_encoding() -> None:
    """The body is the text; an empty one is whole in any encoding."""
    for encoding in ("", "identity", " Identity "):
        assert inflated(TEXT, encoding) == (TEXT, "whole")
    for encoding in ("gzip", "br", "nonsense"):
        assert inflated(b"", encoding) == (b"", "whole")


@ENCODINGS
def test_a_bomb_stays_packed(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    """200 MB in a few kilobytes are unpacked up to the limit and no further."""
    packed = pack(bytes(200 * MIB)) if encoding != "br" else _brotli_bomb()
    inflated(pack(b"x"), encoding)  # imports are not what is measured
    tracemalloc.start()
    try:
        text, state = inflated(packed, encoding, 2 * MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) == 2 * MIB
    assert state == "unknown"
    assert peak < 16 * MIB


def _brotli_bomb() -> bytes:
    return bytes(brotli.compress(bytes(50 * MIB), quality=1))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.binary(max_size=100), st.sampled_from(sorted(_bodies._INFLATERS)))
def test_no_bytes_break_it(raw: bytes, encoding: str) -> None:
    """Anything under any label gives a text and a state."""
    text, state = inflated(raw, encoding, 1000)
    assert len(text) <= 1000
    assert state in {"whole", "cut", "unknown"}


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the decoder nothing is said: the client could not have asked for that encoding."""
    monkeypatch.setitem(__import__("sys").modules, "brotli", None)
    assert inflated(brotli.compress(TEXT), "br") == (b"", "unknown")


# ---- JSON that breaks off -------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def is_document(text: bytes) -> bool:
    """Whether the standard library takes *text* for a JSON document."""
    try:
        json.loads(text.decode("utf-8", "surrogatepass"))
    except ValueError:
        return False
    return True


@settings(deadline=None, derandomize=True, max_examples=200)
@given(VALUES, st.booleans(), st.sampled_from([None, 1]), st.booleans())
@example([-0.5e-10, 1.25e300, -7, 12.5], True, None, False)
@example({"é€😀": '\ud83d\ude00 \\ " \n'}, False, None, True)
@example([True, False, None], True, 1, False)
def test_every_beginning_of_a_document_breaks_off(
    value: Any, ascii_only: bool, indent: int | None, marked: bool
) -> None:
    """At whatever byte a document is cut, it shows, unless what is left is a document itself."""
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return
    if marked:
        text = b"\xef\xbb\xbf" + text
    assert not breaks_off(text)
    assert not breaks_off(b" \n" + text + b"\r\n " if not marked else text)
    start = 3 if marked else 0
    for length in range(start, len(text)):
        begun = text[:length]
        assert breaks_off(begun) is not is_document(begun[start:]), begun


WHOLE = {
    "nan": b'{"a": NaN}',
    "infinity": b"[Infinity, -Infinity]",
    "stray-comma": b"[1,]",
    "single-quotes": b"{'a': 1}",
    "comment": b"[1 /* one */]",
    "control-character": b'"a\nb"',
    "latin-1": b'{"a": "\xe9"}',
    "two-documents": b'{"a": 1}\n{"b": 2}',
    "text": b"hello",
    "page": b"<html></html>",
    "stream": b'data: {"a": 1}\n\n',
    "too-deep": b"[" * 100_000 + b"]" * 100_000,
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "utf-32": '{"a": 1}'.encode("utf-32"),
    "leading-zero": b"[01]",
    "closed-twice": b'{"a": 1}}',
}


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_wrong_is_not_cut(text: bytes) -> None:
    """A body that no cut explains is what the server meant to send."""
    assert not breaks_off(text)


BEGUN = {
    "nothing": b"",
    "blanks": b" \r\n\t",
    "only-a-mark": b"\xef\xbb\xbf",
    "open": b'{"a": [1, 2',
    "after-a-comma": b'{"a": 1, ',
    "in-a-key": b'{"ab',
    "before-a-value": b'{"a":',
    "in-a-word": b"[tru",
    "after-a-point": b"[0.12, 3.",
    "after-a-minus": b"[1, -",
    "in-an-exponent": b"[1e",
    "in-an-escape": b'["\\u00',
    "in-a-character": '["€'.encode()[:-1],
    "trailing-blanks": b'{"a": 1 \n',
}


@pytest.mark.parametrize("text", BEGUN.values(), ids=BEGUN)
def test_cut(text: bytes) -> None:
    """What a cut leaves."""
    assert breaks_off(text)


def test_the_parsers_words() -> None:
    """`breaks_off` reads the parser's messages; a release that words them anew must not pass unnoticed."""
    words = {
        b"": "Input data was truncated",
        b'{"a": [1': "Input data was truncated",
        b"[1.": "JSON is malformed: invalid number (byte 3)",
        b"[-": "JSON is malformed: invalid character (byte 2)",
        b"[NaN]": "JSON is malformed: invalid character (byte 1)",
        b"[1]x": "JSON is malformed: trailing characters (byte 4)",
    }
    for text, message in words.items():
        with pytest.raises(msgspec.DecodeError) as caught:
            msgspec.json.decode(text, type=msgspec.Raw)
        assert str(caught.value) == message


KINDS = {
    # content type: (JSON, page)
    "application/json": (True, False),
    "Application/JSON; charset=utf-8": (True, False),
    " application/json ;a=b": (True, False),
    "application/problem+json": (True, False),
    "application/vnd.api+json": (True, False),
    "text/html": (False, True),
    "TEXT/HTML; charset=utf-8": (False, True),
    "application/x-ndjson": (False, False),
    "application/jsonl": (False, False),
    "application/json-seq": (False, False),
    "text/event-stream": (False, False),
    "text/json": (False, False),
    "text/plain": (False, False),
    "": (False, False),
}


@pytest.mark.parametrize(("kind", "expected"), KINDS.items(), ids=KINDS)
def test_content_types(kind: str, expected: tuple[bool, bool]) -> None:
    """One JSON document, a web page, or neither."""
    assert (is_json(kind), is_html(kind)) == expected


def test_streams_inside_a_document() -> None:
    """A service that streams the elements of one JSON list is told by its path."""
    assert streams_json("/v1beta/models/gemini-3-pro:streamGenerateContent")
    assert not streams_json("/v1beta/models/gemini-3-pro:generateContent")
