"""Request bodies that can be sent again: they remember what was sent while it is sent.

A body that comes from an iterator or a file can be read once. Sending it a second time is the classic silent
failure: some clients send an empty body and get a 200 for it. So a body that is not in memory is wrapped
before the first attempt: every chunk is kept (up to a limit) before it goes out, and a second attempt sends
the chunks that were kept, then goes on with the source where it stopped. Past the limit the body cannot be
sent again and the call is not retried.

An error of the source itself is the caller's own: that it happened is remembered, so that nobody takes it for a
failure of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator


class Tape:
    """What was recorded of one body.

    Attributes:
        source_failed: whether the source itself raised.
    """

    __slots__ = ("_chunks", "_limit", "_size", "ended", "overflowed", "source_failed")

    def __init__(self, limit: int) -> None:
        self._chunks: list[bytes] = []
        self._limit = limit
        self._size = 0
        self.overflowed = False
        self.ended = False
        self.source_failed = False

    @property
    def replayable(self) -> bool:
        """Whether everything that was read from the source is still here."""
        return not self.overflowed and not self.source_failed

    def add(self, chunk: bytes) -> None:
        """Keep one chunk, or, past the limit, give up and keep none."""
        self._size += len(chunk)
        if self._size > self._limit:
            self.overflowed = True
            self._chunks.clear()
        elif not self.overflowed:
            self._chunks.append(bytes(chunk))

    def content(self) -> bytes | None:
        """The whole body, once all of it went out and is still here."""
        return b"".join(self._chunks) if self.ended and self.replayable else None

    def chunk(self, number: int) -> bytes | None:
        """The recorded chunk *number*, counted from 0, if there is one."""
        return self._chunks[number] if number < len(self._chunks) else None


def pieces(body: Any, size: int) -> Iterator[bytes]:
    """The pieces of a body that can be read once; of a file, *size* bytes each. Text is UTF-8, as for urllib3."""
    source = iter(lambda: body.read(size) or None, None) if hasattr(body, "read") else body
    for piece in source:
        yield piece.encode() if isinstance(piece, str) else piece


class Recorder:
    """An iterable body, recorded. Every `iter` of it begins at the first byte."""

    def __init__(self, source: Iterable[bytes], limit: int) -> None:
        self.tape = Tape(limit)
        self._source = source
        self._rest: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return _Playback(self)

    def read_on(self) -> bytes | None:
        """The source's next chunk, recorded; ``None`` at its end."""
        tape = self.tape
        if tape.ended:
            return None
        try:
            if self._rest is None:
                self._rest = iter(self._source)
            chunk = next(self._rest)
        except StopIteration:
            tape.ended = True
            return None
        except BaseException:
            tape.source_failed = True
            raise
        tape.add(chunk)
        return chunk


class _Playback:
    """One pass over a `Recorder`: first what is on the tape, then on."""

    __slots__ = ("_position", "_recorder")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._position = 0

    def __iter__(self) -> _Playback:
        return self

    def __next__(self) -> bytes:
        chunk = self._recorder.tape.chunk(self._position)
        if chunk is None:
            chunk = self._recorder.read_on()
            if chunk is None:
                raise StopIteration
        self._position += 1
        return chunk


class AsyncRecorder:
    """An asynchronous body, recorded. See `Recorder`."""

    def __init__(self, source: AsyncIterable[bytes], limit: int) -> None:
        self.tape = Tape(limit)
        self._source = source
        self._rest: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _AsyncPlayback(self)

    async def read_on(self) -> bytes | None:
        """The source's next chunk, recorded; ``None`` at its end."""
        tape = self.tape
        if tape.ended:
            return None
        try:
            if self._rest is None:
                self._rest = aiter(self._source)
            chunk = await anext(self._rest)
        except StopAsyncIteration:
            tape.ended = True
            return None
        except BaseException:
            tape.source_failed = True
            raise
        tape.add(chunk)
        return chunk


class _AsyncPlayback:
    """One pass over an `AsyncRecorder`."""

    __slots__ = ("_position", "_recorder")

    def __init__(self, recorder: AsyncRecorder) -> None:
        self._recorder = recorder
        self._position = 0

    def __aiter__(self) -> _AsyncPlayback:
        return self

    async def __anext__(self) -> bytes:
        chunk = self._recorder.tape.chunk(self._position)
        if chunk is None:
            chunk = await self._recorder.read_on()
            if chunk is None:
                raise StopAsyncIteration
        self._position += 1
        return chunk
