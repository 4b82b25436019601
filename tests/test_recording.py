"""Request bodies that are remembered while they are sent: every pass begins at the first byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience._recording import AsyncRecorder, Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator


class Sync:
    """Drives a `Recorder`."""

    def __init__(self, source: Iterable[bytes], limit: int) -> None:
        self.recorder = Recorder(source, limit)
        self.tape = self.recorder.tape

    def passes(self) -> Callable[[int | None], list[bytes]]:
        """Begin a pass; call the result to read so many chunks of it (all, with ``None``)."""
        one = iter(self.recorder)

        def read(count: int | None = None) -> list[bytes]:
            chunks = []
            while count is None or len(chunks) < count:
                try:
                    chunks.append(next(one))
                except StopIteration:
                    break
            return chunks

        return read


class Awaited:
    """An iterable as an asynchronous one; a generator would end with the event loop that began it."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._source:
            return chunk
        raise StopAsyncIteration


class Async:
    """Drives an `AsyncRecorder` from blocking code."""

    def __init__(self, source: Iterable[bytes], limit: int) -> None:
        self.recorder = AsyncRecorder(Awaited(source), limit)
        self.tape = self.recorder.tape

    def passes(self) -> Callable[[int | None], list[bytes]]:
        """See `Sync.passes`."""
        one = aiter(self.recorder)

        def read(count: int | None = None) -> list[bytes]:
            async def run() -> list[bytes]:
                chunks = []
                while count is None or len(chunks) < count:
                    try:
                        chunks.append(await anext(one))
                    except StopAsyncIteration:
                        break
                return chunks

            return anyio.run(run)

        return read


COLOURS = pytest.mark.parametrize("colour", [Sync, Async])


class Source:
    """An iterator that counts how far it was read, and may fail on the way."""

    def __init__(self, chunks: list[bytes], error: BaseException | None = None) -> None:
        self._chunks = iter(chunks)
        self._error = error
        self.read = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for chunk in self._chunks:
            self.read += 1
            return chunk
        if self._error is not None:
            raise self._error
        raise StopIteration


@COLOURS
def test_a_source_is_read_once(colour: Any) -> None:
    """However many passes are made, all complete, each chunk is asked for once."""
    source = Source([b"a", b"b", b"c"])
    driven = colour(source, 100)
    assert source.read == 0
    assert [driven.passes()(None) for _ in range(3)] == [[b"a", b"b", b"c"]] * 3
    assert source.read == 3


@COLOURS
def test_a_pass_goes_on_where_the_source_was_left(colour: Any) -> None:
    """What was recorded is played, then the source is read on; nothing is read ahead."""
    source = Source([b"a", b"b", b"c"])
    driven = colour(source, 100)
    driven.passes()(2)
    assert source.read == 2
    second = driven.passes()
    assert second(1) == [b"a"]
    assert source.read == 2
    assert second(None) == [b"b", b"c"]


@COLOURS
def test_an_old_pass_does_not_disturb_a_new_one(colour: Any) -> None:
    """An attempt that is still being read while the next begins sees the same bytes."""
    driven = colour([b"a", b"b", b"c", b"d"], 100)
    first, second = driven.passes(), driven.passes()
    assert (first(1), second(3), first(None), second(None)) == (
        [b"a"],
        [b"a", b"b", b"c"],
        [b"b", b"c", b"d"],
        [b"d"],
    )


@COLOURS
@pytest.mark.parametrize(("limit", "replayable"), [(6, True), (5, False), (0, False)])
def test_the_limit(colour: Any, limit: int, replayable: bool) -> None:
    """Up to the limit all is kept; over it nothing is, but the first pass is still whole."""
    driven = colour([b"aa", b"bb", b"cc"], limit)
    assert driven.passes()(None) == [b"aa", b"bb", b"cc"]
    assert driven.tape.replayable is replayable
    assert driven.tape.chunk(0) == (b"aa" if replayable else None)


@COLOURS
def test_untouched_means_replayable(colour: Any) -> None:
    """A body nothing was read of can be sent, whatever its size."""
    driven = colour(Source([b"x" * 1000]), 0)
    driven.passes()
    assert driven.tape.replayable


@COLOURS
def test_a_failing_source(colour: Any) -> None:
    """Its error comes out as it is, is remembered as the source's, and forbids another pass."""
    error = OSError("disk")
    driven = colour(Source([b"a"], error), 100)
    with pytest.raises(OSError, match="disk") as caught:
        driven.passes()(None)
    assert caught.value is error
    assert driven.tape.source_failed
    assert not driven.tape.replayable


@COLOURS
def test_no_error_no_blame(colour: Any) -> None:
    """A source that came to its end, or was not read to it, has not failed."""
    driven = colour([b"a", b"b"], 100)
    driven.passes()(1)
    assert not driven.tape.source_failed
    driven.passes()(None)
    assert not driven.tape.source_failed


@COLOURS
def test_a_buffer_that_is_used_again(colour: Any) -> None:
    """A source may hand out one buffer over and over: what is kept is a copy."""
    buffer = bytearray(b"aa")

    def source() -> Iterator[Any]:
        yield buffer
        buffer[:] = b"bb"
        yield buffer

    driven = colour(source(), 100)
    first = driven.passes()
    assert bytes(first(1)[0]) == b"aa"
    first(None)
    assert b"".join(map(bytes, driven.passes()(None))) == b"aabb"


@COLOURS
def test_an_empty_body(colour: Any) -> None:
    """No chunk at all, as often as it is asked for; and an empty chunk is a chunk."""
    driven = colour([], 0)
    assert [driven.passes()(None) for _ in range(2)] == [[], []]
    driven = colour([b"", b"a"], 10)
    assert [driven.passes()(None) for _ in range(2)] == [[b"", b"a"]] * 2


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.binary(max_size=5), max_size=8),
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(0, 40),
)
def test_every_pass_is_the_body_or_does_not_happen(chunks: list[bytes], stops: list[int], limit: int) -> None:
    """After any number of broken-off passes, a pass that may be made yields exactly the body."""
    driven = Sync(Source(chunks), limit)
    for stop in stops:
        if not driven.tape.replayable:
            break
        assert driven.passes()(stop) == chunks[:stop]
    if driven.tape.replayable:
        assert b"".join(driven.passes()(None)) == b"".join(chunks)
    else:
        assert sum(map(len, chunks)) > limit
