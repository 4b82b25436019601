"""Splitting and decoding event streams, cut in chunks of many sizes, and one very long line.

Every decoder is given bytes and gives events. Those of httpx-sse and httpx2 take text, so they are given what an
incremental decoder makes of the bytes, as their clients do; the responses around them are left out. The ratio is to
httpx-sse, or to ours where it is not installed.
"""

from __future__ import annotations

import codecs
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from benchmarks.events import chat, pieces
from benchmarks.measuring import Effort, Found, busy, compare
from benchmarks.rivals import fitting
from gip_resilience.sse import EventSplitter, SSEDecoder, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.measuring import Run

Decoders: TypeAlias = "dict[str, Callable[[Sequence[bytes]], int]]"

CHUNKS: Final = (1, 16, 256, 1024, 4096, 16_384, 65_536)
EVENTS: Final = 400
LINES: Final = (100_000, 1_000_000, 10_000_000)
LINE: Final = "a line, in chunks of 64 KiB"
PATIENCE: Final = 3.0
"""Seconds one line may take a decoder; a longer one is not tried with it."""


def bench(effort: Effort) -> Found:
    """Sizes of chunks, then lengths of a line."""
    found = Found()
    makers: dict[str, Callable[[], Any]] = {"httpx-sse": _httpx_sse, "httpx2": _httpx2, "openai": _openai}
    rivals = fitting(makers, found.skipped, "decoding")
    decoders: Decoders = {}
    if "httpx-sse" in rivals:
        decoders["httpx-sse"] = rivals["httpx-sse"]
    decoders |= {"ours": _ours, **rivals, "ours, split and parsed": _split}
    events = effort.times(EVENTS)
    text = chat(events)
    for size in CHUNKS:
        chunks = pieces(text, size)
        runs = {name: _run(decode, chunks, events + 3) for name, decode in decoders.items()}
        found.rows += compare("an event, in chunks", runs, effort, events + 3, size=size)
    slow: set[str] = set()
    for length in LINES:
        line = b"data: " + b"x" * effort.times(length) + b"\n\n"
        chunks = pieces(line, 65_536)
        runs = {}
        for name, decode in decoders.items():
            if name in slow:
                continue
            began = time.perf_counter()
            decode(chunks)
            if time.perf_counter() - began > PATIENCE:
                slow.add(name)
                found.skipped[f"{name}, longer lines"] = (
                    f"one of {_bytes(length)} takes it over {PATIENCE:g} s"
                )
            else:
                runs[name] = _run(decode, chunks, 1)
        found.rows += compare(LINE, runs, effort, 1, unit="ms", size=length)
        least = {"the least there is to do": _run(_least, chunks, 1), "ours": runs["ours"]}
        found.rows += compare(
            "the same, beside the least there is to do", least, effort, 1, unit="ms", size=length
        )
    return found


def _least(chunks: Sequence[bytes]) -> int:
    """What any decoder has to do: put a line together, and make it text."""
    return len([str(b"".join(chunks), "utf-8")])


def _bytes(size: int) -> str:
    if size >= 1_000_000:
        return f"{size // 1_000_000} MB"
    return f"{size // 1024} KiB" if size % 1024 == 0 else f"{size:,} B"


def _run(decode: Callable[[Sequence[bytes]], int], chunks: Sequence[bytes], events: int) -> Run:
    def run(times: int) -> float:
        rounds = max(1, round(times / events))
        start = busy()
        for _ in range(rounds):
            count = decode(chunks)
        took = busy() - start
        if count != events:
            raise AssertionError(f"{count} events of {events}")
        return took / (rounds * events) * times

    return run


def _ours(chunks: Sequence[bytes]) -> int:
    decoder, count = SSEDecoder(), 0
    for chunk in chunks:
        for _ in decoder.feed(chunk):
            count += 1
    return count


def _split(chunks: Sequence[bytes]) -> int:
    splitter, count = EventSplitter(), 0
    for chunk in chunks:
        for block in splitter.feed(chunk):
            parse(block)
            count += 1
    return count


def _httpx_sse() -> Callable[[Sequence[bytes]], int]:
    from httpx_sse._decoders import SSEDecoder as Decoder
    from httpx_sse._decoders import SSELineDecoder

    def decode(chunks: Sequence[bytes]) -> int:
        text, lines, events, count = (
            codecs.getincrementaldecoder("utf-8")("replace"),
            SSELineDecoder(),
            Decoder(),
            0,
        )
        for chunk in chunks:
            for line in lines.decode(text.decode(chunk)):
                if events.decode(line.rstrip("\n")) is not None:
                    count += 1
        for line in lines.flush():
            if events.decode(line.rstrip("\n")) is not None:
                count += 1
        return count

    return decode


def _httpx2() -> Callable[[Sequence[bytes]], int]:
    from httpx2._sse import _SSEParser

    def decode(chunks: Sequence[bytes]) -> int:
        text, parser, count = codecs.getincrementaldecoder("utf-8")("replace"), _SSEParser(), 0
        for chunk in chunks:
            for _ in parser.decode(text.decode(chunk)):
                count += 1
        for _ in parser.flush():
            count += 1
        return count

    return decode


def _openai() -> Callable[[Sequence[bytes]], int]:
    from openai._streaming import SSEDecoder as Decoder

    def decode(chunks: Sequence[bytes]) -> int:
        count = 0
        for _ in Decoder().iter_bytes(iter(chunks)):
            count += 1
        return count

    return decode
