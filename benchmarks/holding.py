"""What 1,000 streams that are under way at once hold in memory, with ours and bare, per stream.

The streams come from memory, under one asyncio client, each event as bytes of its own. When all have been read to
where they wait, `tracemalloc` says what is held; the bodies' own state is the same on both sides. A stream that could
be replayed after a break is remembered, so what ours holds more includes the text that was delivered.
"""

from __future__ import annotations

import _weakrefset
import asyncio
import gc
import tracemalloc
from typing import TYPE_CHECKING, Final

import httpx2

from benchmarks.clients import AUTH, URL, guarded
from benchmarks.events import EVENT, OPENING
from benchmarks.flowing import HEADERS, STREAM
from benchmarks.measuring import Effort, Found, Row, Spread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STREAMS: Final = 1000
EVENTS: Final = 20
"""Read of each before it waits."""


class _Held(httpx2.AsyncByteStream):
    def __init__(self, events: int) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield bytes(bytearray(OPENING))
        for _ in range(self._events):
            yield bytes(bytearray(EVENT))
        await asyncio.Event().wait()  # nobody ever says go


class _Holding(httpx2.AsyncBaseTransport):
    def __init__(self, events: int) -> None:
        self._events = events

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=HEADERS, stream=_Held(self._events))


def bench(effort: Effort) -> Found:
    """Before the first event of text, and after some."""
    found = Found()
    streams = effort.times(STREAMS)
    for events in (0, EVENTS):
        subject = f"a stream, {events} events delivered"
        taken: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(3):
            for name, values in taken.items():
                values.append(asyncio.run(_held(streams, events, ours=name == "ours")))
        for name, values in taken.items():
            found.rows.append(Row(subject, name, Spread.of(values), "B"))
        more = [a - b for a, b in zip(taken["ours"], taken["bare"], strict=True)]
        found.rows.append(Row(subject, "ours less bare", Spread.of(more), "B"))
        text = len(OPENING) + events * len(EVENT)
        found.rows.append(Row(subject, "ours less bare and text", Spread.of(a - text for a in more), "B"))
    found.notes.append(f"{streams} streams at once; text is counted as it came: {len(EVENT)} B an event.")
    return found


async def _held(streams: int, events: int, *, ours: bool) -> float:
    """Bytes that a stream holds."""
    client = httpx2.AsyncClient(transport=_Holding(events))
    if ours:
        guarded(client)
    await _cancelled(await _waiting(client, 2, events))  # imports and caches are no stream's
    gc.collect()
    tracemalloc.start()
    tasks = await _waiting(client, streams, events)
    gc.collect()
    # asyncio's set of all tasks grows in leaps, now on this side and now on that.
    others = tracemalloc.Filter(inclusive=False, filename_pattern=_weakrefset.__file__)
    held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([others]).traces)
    tracemalloc.stop()
    await _cancelled(tasks)
    await client.aclose()
    return held / streams


async def _waiting(client: httpx2.AsyncClient, streams: int, events: int) -> list[asyncio.Task[None]]:
    """So many tasks that have read all that there is of their streams, and wait for more."""
    ready = asyncio.Semaphore(0)

    async def one() -> None:
        async with client.stream("POST", URL, json=STREAM, headers=AUTH) as response:
            count = 0
            if not events:
                ready.release()  # the next read never ends
            async for piece in response.aiter_bytes():
                count += piece.count(b'"content":" hello"')
                if count == events and count:
                    ready.release()

    tasks = [asyncio.create_task(one()) for _ in range(streams)]
    for _ in tasks:
        await ready.acquire()
    for _ in range(10):
        await asyncio.sleep(0)
    return tasks


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
