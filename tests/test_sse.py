"""The event-stream format: the public suites' cases, any cut of any bytes, and what the machines may cost."""

from __future__ import annotations

import itertools
import json
import re
import time
import tracemalloc
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gip_resilience import sse
from gip_resilience.errors import ResilienceError
from gip_resilience.sse import (
    BOM,
    Block,
    EventSplitter,
    EventTooLargeError,
    ServerSentEvent,
    SSEDecoder,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CASES = json.loads((Path(__file__).parent / "data" / "sse_cases.json").read_text("utf-8"))

CHAT_LINE = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'


Machine = type[EventSplitter | SSEDecoder]


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """*data* in pieces of these sizes, and what is left over in one."""
    start = 0
    for size in sizes:
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size
    yield data[start:]


def every(size: int, data: bytes) -> list[bytes]:
    """*data* in pieces of one size."""
    return list(cut(data, itertools.repeat(size)))


# ---- two readers and a model -----------------------------------------------------------------------------


def plain(events: list[ServerSentEvent]) -> list[dict[str, str]]:
    """Events as the cases write them."""
    return [{"event": one.event, "data": one.data, "id": one.id} for one in events]


Seen = tuple[list[ServerSentEvent], str, int | None]
"""What one connection gave: events, last event id, retry."""


def decoded(chunks: Iterable[bytes]) -> Seen:
    """What the decoder makes of a connection."""
    decoder = SSEDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    events += decoder.finish()
    return events, decoder.last_event_id, decoder.retry


def folded(chunks: Iterable[bytes]) -> Seen:
    """What splitter and parser make of it; of a `retry` they see only that of blocks that have ended."""
    splitter = EventSplitter()
    events, last_id, retry = [], "", None
    raws = [raw for chunk in chunks for raw in splitter.feed(chunk)]
    if raws:
        raws[0] = raws[0].removeprefix(BOM)
    for event, data, block_id, block_retry in map(parse, raws):
        last_id = last_id if block_id is None else block_id.decode(errors="replace")
        retry = retry if block_retry is None else block_retry
        if data is not None:
            name = event.decode(errors="replace") or "message"
            events.append(ServerSentEvent(name, data.decode(errors="replace"), last_id, block_retry))
    return events, last_id, retry


def modelled(data: bytes) -> Seen:
    """What the standard says, step by step as it says it: over the whole text, and one line at a time."""
    text = data.decode(errors="replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\r|\n", text)
    events = []
    buffer = kind = last_id = id_buffer = ""
    own = retry = None
    for line in lines[:-1]:
        if not line:
            last_id = id_buffer
            if buffer:
                events.append(ServerSentEvent(kind or "message", buffer[:-1], last_id, own))
            buffer, kind, own = "", "", None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            buffer += value + "\n"
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and re.fullmatch("[0-9]{1,18}", value):
            retry = own = int(value)
    return events, last_id, retry


@pytest.mark.parametrize(
    ("data", "blocks"),
    [
        (b"\n\ndata: x\n\n", [b"\n\n", b"data: x\n\n"]),
        (b"\r\rdata: x\n\n", [b"\r\r", b"data: x\n\n"]),
        (b"\r\n\r\ndata: x\n\n", [b"\r\n\r\n", b"data: x\n\n"]),
        (b"\r\ndata: x\n\n", [b"\r\ndata: x\n\n"]),
    ],
)
def test_blank_lines_at_the_very_beginning(data: bytes, blocks: list[bytes]) -> None:
    """They are a block of their own, as soon as there are two."""
    assert EventSplitter().feed(data) == blocks


# ---- the public suites -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [decoded, folded])
@pytest.mark.parametrize("size", [1, 2, 3, 7, "whole", "given"])
@pytest.mark.parametrize("case", CASES["parse_cases"], ids=lambda case: case["id"])
def test_a_case_of_the_public_suites(
    case: dict[str, Any], size: int | str, read: Callable[[Iterable[bytes]], Seen]
) -> None:
    """The same events, id and reconnection time, however the bytes come."""
    chunks = [b64decode(chunk) for chunk in case["chunks_b64"]]
    if size != "given":
        data = b"".join(chunks)
        chunks = [data] if size == "whole" else every(int(size), data)

    events, last_id, retry = read(chunks)

    assert plain(events) == case["expected_events"]
    assert last_id == case["last_event_id_for_reconnect"]
    assert retry == case["expected_retry_ms"]


RECONNECTS = [case for case in CASES["reconnect_cases"] if "response_b64" in case["connections"][0]]


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("case", RECONNECTS, ids=lambda case: case["id"])
def test_what_a_reconnection_carries(case: dict[str, Any], size: int) -> None:
    """The last id that was committed, over any number of connections; never that of an unfinished event."""
    decoder = SSEDecoder()
    for connection in case["connections"]:
        sent = connection.get("request_headers", {}).get("Last-Event-ID")
        if sent is not None:
            assert decoder.last_event_id == sent
        if "Last-Event-ID" in connection.get("request_headers_absent", ()):
            assert decoder.last_event_id == ""
        if "request_header_value_bytes_hex" in connection:
            assert decoder.last_event_id.encode().hex() == connection["request_header_value_bytes_hex"]

        data = b64decode(connection.get("response_b64", ""))
        events = [event for chunk in every(size, data) for event in decoder.feed(chunk)]

        if "expected_events" in connection:
            assert plain(events) == connection["expected_events"]
        assert decoder.finish() == []


# ---- any bytes, any cut ----------------------------------------------------------------------------------

PIECES = b"data event id retry x 7 : \0 \x85 \xe2\x80\xa8 \xe2\x82 \xac \xff".split(b" ")
PIECES += [BOM, b" ", b"\t", b"\x0b", b"\x0c", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n"]
PIECES += [b"data: x\n", b"id: 1\n", b"retry: 20\r", b"event: e\r\n", b": c\n", CHAT_LINE]

streams = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join) | st.binary(max_size=60)
cuts = st.lists(st.integers(0, 9), max_size=40)
properties = settings(max_examples=100, deadline=None)


@properties
@given(streams, cuts)
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [1] * 40)
@example(BOM + b"data: a\r\r" + BOM + b"data: b\r\r", [1] * 40)
@example(b"\n" + BOM + b"data: a\n\n", [])
@example(b"\n\ndata: a\n\n", [])
@example(BOM + BOM + b"data: a\n\n", [2])
def test_any_cut_gives_what_the_standard_says(data: bytes, sizes: list[int]) -> None:
    """Events, id and reconnection time are those of the model; no bytes are an error."""
    expected = modelled(data)

    assert decoded(cut(data, sizes)) == expected
    assert folded(cut(data, sizes))[:2] == expected[:2]


@properties
@given(streams, cuts)
def test_the_splitter_changes_no_byte(data: bytes, sizes: list[int]) -> None:
    """After each piece the blocks and what is pending are what came in, and a block is one event at most."""
    splitter = EventSplitter()
    fed, blocks = b"", b""
    for chunk in cut(data, sizes):
        fed += chunk
        for block in splitter.feed(chunk):
            assert re.search(rb"[\r\n][\r\n]\Z", block)
            assert len(modelled(block)[0]) <= 1
            blocks += block

        assert blocks + splitter.pending == fed
        assert splitter.size == len(splitter.pending)


@properties
@given(streams)
@example(b"data: a\n")
@example(b"data: \n\n")
@example(b"data: a\r\n\n")
@example(b"data: a\ndata: b\n\n")
@example(b"event: a\rdata: b\ndata: c\n\n")
@example(b"event: a\n\n")
@example(b"data: a\nb")
def test_the_short_way_is_the_long_way(data: bytes) -> None:
    """What `parse` reads without looking at lines is what it would have read line by line."""
    for block in [data, *EventSplitter().feed(data)]:
        assert parse(block) == sse._parse_lines(block)


@properties
@given(streams, cuts, st.integers(1, 40))
def test_what_is_held_has_a_limit(data: bytes, sizes: list[int], limit: int) -> None:
    """No block and nothing pending is longer; a piece that is refused leaves no trace."""
    splitter = EventSplitter(max_event=limit)
    for chunk in cut(data, sizes):
        before = splitter.pending
        try:
            blocks = splitter.feed(chunk)
        except EventTooLargeError:
            assert splitter.pending == before
            unlimited = EventSplitter()
            assert max(map(len, [*unlimited.feed(before + chunk), unlimited.pending])) > limit
        else:
            assert all(len(block) <= limit for block in blocks)
        assert splitter.size <= limit


# ---- rules, one by one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "counts"),
    [
        pytest.param([b"data: a\r\r", b"\ndata: b\r", b"\r"], [1, 0, 1], id="cr"),
        pytest.param([b"data: a\r\n\r", b"\n", b"data: b\r\n\r"], [1, 0, 1], id="crlf"),
        pytest.param([b"data: a\r", b"\n", b"\r", b"\n", b"data: b\n\r"], [0, 0, 1, 0, 1], id="bytewise"),
        pytest.param([b"data: a\r", b"\r", b"\n\r", b"\n"], [0, 1, 0, 0], id="blank lines after it"),
        pytest.param([b"data: a\r\n", b"data: b\r", b"\n", b"\n"], [0, 0, 0, 1], id="between two lines"),
        pytest.param([b"data: a\n", b"\n"], [0, 1], id="lf"),
    ],
)
def test_an_event_is_not_kept_waiting_for_half_a_line_end(chunks: list[bytes], counts: list[int]) -> None:
    """A CR completes it at once; the LF that may follow is no line end of its own."""
    decoder, splitter = SSEDecoder(), EventSplitter()

    assert [len(decoder.feed(chunk)) for chunk in chunks] == counts
    blocks = [[parse(block) for block in splitter.feed(chunk)] for chunk in chunks]
    assert [sum(block.data is not None for block in some) for some in blocks] == counts


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\n\r", b"\r\r\n"])
def test_a_block_keeps_its_blank_line(end: bytes) -> None:
    """All of it, in any spelling, when it is there."""
    splitter = EventSplitter()
    block = b"data: a" + end

    assert splitter.feed(block + block + b"data") == [block, block]
    pending = splitter.pending
    assert splitter.feed(b": a" + end) == [block]
    assert (pending, splitter.pending) == (b"data", b"")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_nothing_else_ends_a_line(mark: str) -> None:
    """What `str.splitlines` takes for a line end is text."""
    (event,) = SSEDecoder().feed(f"data: a{mark}{mark}b\n\n".encode())

    assert event.data == f"a{mark}{mark}b"


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"data: a\n\n", Block(b"", b"a", None, None)),
        (b"data:  a \n\n", Block(b"", b" a ", None, None)),
        (b"data: \n\n", Block(b"", b"", None, None)),
        (b"data\n\n", Block(b"", b"", None, None)),
        (b"event: e\ndata: a\n\n", Block(b"e", b"a", None, None)),
        (b"event:e\ndata: a\n\n", Block(b"e", b"a", None, None)),
        (b"event: e\revent: f\rdata: a\r\r", Block(b"f", b"a", None, None)),
        (b"event: e\nevent\ndata: a\n\n", Block(b"", b"a", None, None)),
        (b"event: e\n\n", Block(b"e", None, None, None)),
        (b"data: a\ndata\ndata: b\n\n", Block(b"", b"a\n\nb", None, None)),
        (b"data: a\r\n\r\n", Block(b"", b"a", None, None)),
        (b"data: \xff\xe2\x82\n\n", Block(b"", b"\xff\xe2\x82", None, None)),
        (b"\ndata: a\n\n", Block(b"", b"a", None, None)),
        (b"\ndata: a\r\n\r", Block(b"", b"a", None, None)),
        (b": a\ndata: a\n\n", Block(b"", b"a", None, None)),
        (b"\n\n", Block(b"", None, None, None)),
        (b"Data: a\nDATA: a\n data: a\ndata : a\n\n", Block(b"", None, None, None)),
        (BOM + b"data: a\n\n", Block(b"", None, None, None)),
        (b"id: 1\n\n", Block(b"", None, b"1", None)),
        (b"id: 1\nid: 2\0\n\n", Block(b"", None, b"1", None)),
        (b"id: 1\nid\n\n", Block(b"", None, b"", None)),
        (b"retry: 10\nretry: x\n\n", Block(b"", None, None, 10)),
    ],
)
def test_the_fields_of_a_block(block: bytes, fields: Block) -> None:
    """Undecoded, and what is absent is not what is empty."""
    assert parse(block) == fields


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        (b"0", 0),
        (b"0100", 100),
        (b"9" * 18, 10**18 - 1),
        *((b"9" * digits, None) for digits in (19, 5_000, 5_000_000)),
        *((value.encode(), None) for value in ("", "1.5", "1e3", "1_0", "-1", "+1", " 1", "1 ", "٣", "²")),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_reconnection_time_is_ascii_digits(value: bytes, retry: int | None) -> None:
    """And not so many of them that nobody can have meant it: they would cost time, or an error."""
    decoder = SSEDecoder()

    (event,) = decoder.feed(b"data: a\nretry: " + value + b"\n\n")

    assert event.retry == decoder.retry == retry


def test_a_reconnection_time_is_the_streams_and_the_events() -> None:
    """The stream keeps it; only the event that brought it shows it."""
    decoder = SSEDecoder()

    events = decoder.feed(b"retry: 5\ndata: a\n\ndata: b\n\n")

    assert [event.retry for event in events] == [5, None]
    assert decoder.retry == 5


def test_an_id_is_committed_by_the_blank_line() -> None:
    """Not before it, with or without data, and it stays until another one comes."""
    decoder = SSEDecoder(last_event_id="0")
    seen = []
    for chunk in [b"data: a\n\n", b"id: 1\n", b"\n", b"data: b\n\n", b"id: \xff\n\n", b"id\n\n"]:
        events = decoder.feed(chunk)
        seen.append((decoder.last_event_id, *(event.id for event in events)))

    assert seen == [("0", "0"), ("0",), ("1",), ("1", "1"), ("\ufffd",), ("",)]


@pytest.mark.parametrize(
    ("first", "last_id", "retry"),
    [
        pytest.param(b"", "1", 5, id="nothing"),
        pytest.param(b"id: 2\ndata: cut\n", "1", 5, id="no blank line"),
        pytest.param(b"id: 2\ndata: c", "1", 5, id="no line end"),
        pytest.param(b"data: \xe2\x82", "1", 5, id="within a character"),
        pytest.param(b"data: cut\r", "1", 5, id="half a line end"),
        pytest.param(b"id: 2\r\r", "2", 5, id="half a blank line"),
        pytest.param(b"id: 2\nretry: 70\n", "1", 70, id="retry"),
        pytest.param(b"id: 2\nretry: 70\rdata", "1", 70, id="retry, cr"),
        pytest.param(b"id: 2\nretry: 70", "1", 5, id="retry, cut"),
    ],
)
def test_the_end_of_a_connection(first: bytes, last_id: str, retry: int) -> None:
    """What is unfinished is gone; id and reconnection time stay; the next connection starts at its beginning."""
    decoder = SSEDecoder()
    decoder.feed(BOM + b"id: 1\nretry: 5\ndata: a\n\n" + first)

    assert decoder.finish() == []
    assert (decoder.last_event_id, decoder.retry) == (last_id, retry)
    assert decoder.feed(b"\xef") == []
    assert decoder.feed(BOM[1:] + b"data: b\n\n") == [ServerSentEvent("message", "b", last_id)]
    assert decoder.feed(BOM + b"data: c\n\n") == []

    decoder.finish()
    decoder.feed(BOM + b"retry: 90\n")
    decoder.finish()
    assert decoder.retry == 90


# ---- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("machine", [EventSplitter, SSEDecoder])
@pytest.mark.parametrize("length", [20, 21])
def test_how_long_an_event_may_be(length: int, machine: Machine, size: int) -> None:
    """Counted in bytes, with its line ends; a stream of many short ones has no limit."""
    reader = machine(max_event=20)
    if isinstance(reader, SSEDecoder):
        reader.finish()  # the next connection has the same limit
    data = 2 * (b"data: " + b"x" * (length - 8) + b"\n\n")
    for _ in range(100):
        reader.feed(b"data: a\n\n")

    if length == 20:
        assert sum(len(reader.feed(chunk)) for chunk in every(size, data)) == 2
        return
    with pytest.raises(EventTooLargeError, match="longer than 20 bytes") as caught:
        sum(len(reader.feed(chunk)) for chunk in every(size, data))
    assert isinstance(caught.value, ResilienceError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"x" * 20, id="never ends"),
        pytest.param(b"x" * 20 + b"\n\n", id="ends"),
        pytest.param(b"\n\nid: 3\ndata: b\n\ndata: " + b"x" * 20, id="after another one"),
        pytest.param(b"\n\ndata: " + b"x" * 20 + b"\n\ndata: b\n\n", id="before another one"),
    ],
)
def test_a_refused_piece_leaves_no_trace(chunk: bytes) -> None:
    """Whole events beside the long one are not taken either: what was held before goes on as it was."""
    splitter, decoder = EventSplitter(max_event=20), SSEDecoder(max_event=20, last_event_id="1")
    splitter.feed(b"data: a")
    decoder.feed(b"data: a")

    for reader in (splitter, decoder):
        with pytest.raises(EventTooLargeError):
            reader.feed(chunk)

    assert (splitter.pending, splitter.size) == (b"data: a", 7)
    assert splitter.feed(b"b\n\n") == [b"data: ab\n\n"]
    assert decoder.last_event_id == "1"
    assert decoder.feed(b"b\n\n") == [ServerSentEvent("message", "ab", "1")]


def test_a_picture_is_not_too_long() -> None:
    """Ten million bytes of base64 in one line come through, as they are."""
    decoder = SSEDecoder()
    picture = b"iVBORw0KGgo" * 1_000_000

    (event,) = [one for chunk in every(65_536, b"data: " + picture + b"\n\n") for one in decoder.feed(chunk)]

    assert event.data == picture.decode()


# ---- cost ------------------------------------------------------------------------------------------------


def seconds(machine: Machine, data: bytes, size: int) -> float:
    """The least time it takes to read *data* in pieces of *size*."""
    chunks, times = every(size, data), []
    for _ in range(3):
        reader = machine(max_event=10**9)
        start = time.process_time()
        for chunk in chunks:
            reader.feed(chunk)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("machine", [EventSplitter, SSEDecoder])
@pytest.mark.parametrize(
    ("unit", "count", "size"),
    [
        pytest.param(b"x", 20_000, 1, id="one line, byte by byte"),
        pytest.param(b"x", 200_000, 256, id="one line, in chunks"),
        pytest.param(b"data: x\r", 2_500, 1, id="one event of many lines, byte by byte"),
        pytest.param(b"data: x\r\n", 10_000, 256, id="one event of many lines, in chunks"),
        pytest.param(b"\n\ndata: x", 4_000, 4_099, id="many events, in chunks"),
        pytest.param(b"\n\ndata: x", 4_000, 10**9, id="many events, at once"),
    ],
)
def test_time_is_linear(unit: bytes, count: int, size: int, machine: Machine) -> None:
    """Eight times as much takes about eight times as long; looking back would make it sixty-four times."""
    short, long = (b"data: " + unit * n + b"\n\n" for n in (count, 8 * count))

    # A busy machine may spoil a measurement, but it cannot spoil three and let none pass.
    assert any(seconds(machine, long, size) < 3 * 8 * seconds(machine, short, size) for _ in range(3))


def test_memory_is_that_of_one_event() -> None:
    """What has been handed out is not kept, and very short lines take no more than long ones."""
    splitter = EventSplitter()
    tracemalloc.start()
    try:
        for _ in range(2_000):
            splitter.feed(CHAT_LINE * 20 + b"data: ")
            splitter.feed(b"\n\n")
        assert tracemalloc.get_traced_memory()[0] < 100_000

        block = b"data:xy\n" * 20_000 + b"\n"
        tracemalloc.reset_peak()
        parse(block)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(block) + 100_000
    finally:
        tracemalloc.stop()
