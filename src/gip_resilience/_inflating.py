"""Content encodings undone piece by piece, for streams. Pure.

An event must be out as soon as the bytes that hold it are in, so nothing is kept back until more comes. And what
comes out is made while it is asked for, a piece at a time: a few bytes may decode to gigabytes, and these never stand
in memory. A hostile zstd stream can make it hold about 4 MiB at a moment (see `gip_resilience._bodies.SLICE`), any
other encoding 0.3 MiB.

That the compressed data breaks off is no error here: a stream has its own sign that it is whole.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from gip_resilience._bodies import SLICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 64 * 1024
"""Bytes in a piece, at most."""

_FED = 16 * 1024
"""Bytes zlib is fed at a time: it copies what it did not get to, so a long input would be copied again and again."""

_ZSTD_WINDOW = 8 * 1024 * 1024
"""Bytes of memory a zstd frame may ask for: what RFC 9659 allows in a content encoding (the format: terabytes)."""

_GZIP_MAGIC = b"\x1f\x8b"


class DamagedError(Exception):
    """The compressed data is damaged, or not what its name says. The inflater is of no further use."""


class UnknownEncodingError(Exception):
    """An encoding that cannot be undone here: unknown, several in a row, or its library is missing."""


class Inflater(Protocol):
    """Undoes one content encoding. Holds the state of one body; not thread-safe."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Everything that can be decoded now, in pieces of 1 to `PIECE` bytes.

        The work is done while the pieces are taken: take them all before feeding more.

        Args:
            data: the next bytes of the body, any number of them.

        Raises:
            DamagedError: the data is damaged. What this very *data* held before the damage may be lost.
        """


def inflater(encoding: str) -> Inflater | None:
    """What undoes *encoding* for one body.

    Args:
        encoding: as in the header, in any case: ``gzip``, ``x-gzip``, ``deflate`` (with its zlib wrapper or, as some
            servers send it, without), ``br``, ``zstd``.

    Returns:
        The inflater, or ``None`` when there is nothing to undo (an empty *encoding*, or ``identity``).

    Raises:
        UnknownEncodingError: any other encoding, or its library is not installed.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return None
    maker = _INFLATERS.get(encoding)
    if maker is None:
        raise UnknownEncodingError(encoding)
    try:
        return maker()
    except ImportError as error:
        raise UnknownEncodingError(encoding) from error


class _Deflate:
    """Deflate, wrapped or raw. What follows its end is ignored."""

    def __init__(self) -> None:
        self._machine: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._machine is None and data:
            # The wrapper's first half byte names the method: 8. Raw deflate begins so only with a stored block that
            # has junk in its padding, and nobody writes that.
            wrapped = data[0] & 0x0F == 8
            self._machine = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        for part in _parts(data, _FED):
            if self._machine is not None and not self._machine.eof:
                yield from _unzip(self._machine, part)


class _Gzip:
    """One or more gzip members in a row (RFC 1952, 2.2); what follows them and is none is ignored, as clients do."""

    def __init__(self) -> None:
        self._machine = _gzip_machine()
        self._over = False
        self._between = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        for part in _parts(data, _FED):
            while part and not self._over:
                if self._machine.eof:
                    part = self._between + part
                    self._between = b""
                    if part == _GZIP_MAGIC[:1]:
                        self._between = part
                        break
                    if not part.startswith(_GZIP_MAGIC):
                        self._over = True
                        break
                    self._machine = _gzip_machine()
                yield from _unzip(self._machine, part)
                part = self._machine.unused_data


def _gzip_machine() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _unzip(machine: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What zlib makes of *data*, up to the end of its member."""
    while True:
        try:
            text = machine.decompress(data, PIECE)
        except zlib.error as error:
            raise DamagedError(str(error)) from error
        if text:
            yield text
        data = machine.unconsumed_tail
        # A full piece may have more behind it even when all the data is used up.
        if machine.eof or (not data and len(text) < PIECE):
            return


class _Brotli:
    """Brotli (RFC 7932). Anything after its end is damage."""

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]  # optional: present when the client can ask for it

        self._machine = brotli.Decompressor()
        self._error: type[Exception] = brotli.error
        if not hasattr(self._machine, "can_accept_more_data"):
            raise ImportError("brotli before 1.2 knows no limit of its output")

    def feed(self, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                text: bytes = self._machine.process(data, output_buffer_limit=PIECE)
            except self._error as error:
                raise DamagedError(str(error)) from error
            yield from _parts(text, PIECE)  # it takes the limit as a hint
            data = b""
            if not text:
                return


class _Zstandard:
    """One or more zstd frames in a row (RFC 8878, 3.1). Anything else after them is damage."""

    def __init__(self) -> None:
        import zstandard  # optional: present when the client can ask for it

        self._new = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj
        self._machine = self._new()
        self._error = zstandard.ZstdError

    def feed(self, data: bytes) -> Iterator[bytes]:
        for part in _parts(data, SLICE):
            while part:
                if self._machine.eof:
                    self._machine = self._new()
                try:
                    text = self._machine.decompress(part)
                except self._error as error:
                    raise DamagedError(str(error)) from error
                part = self._machine.unused_data
                yield from _parts(text, PIECE)


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    """*data* in parts of at most *size* bytes; none when it is empty."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


_INFLATERS: dict[str, Callable[[], Inflater]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstandard,
}
