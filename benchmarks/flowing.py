"""Event streams: an event within our wrapper, under a client and under the OpenAI SDK; first token; recovery."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import httpx2

import gip_resilience as gr
from benchmarks.clients import AUTH, BODY, URL, guarded
from benchmarks.events import EVENT, NAMED_EVENT, OPENING, each, opened
from benchmarks.measuring import Effort, Found, Row, Spread, busy, compare, rows
from benchmarks.peer import Peer
from benchmarks.rivals import fitting
from gip_resilience.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from benchmarks.measuring import Run

EVENTS: Final = 300
STREAM: Final = {**BODY, "stream": True}
HEADERS: Final = {"content-type": "text/event-stream"}


class Streaming(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes from memory, each event as bytes of its own, as off a socket."""

    def __init__(self, events: int, *, breaks: Callable[[], None] | None = None) -> None:
        self._events = events
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        for event in each(self._events):
            yield bytes(bytearray(event))
            if self._breaks is not None:
                self._breaks()
                raise httpx2.ReadError("the connection broke")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self:
            yield event


class Streams(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A transport that answers with a stream of *events* events, without waiting."""

    def __init__(self, events: int) -> None:
        self.events = events

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=HEADERS, stream=Streaming(self.events))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=HEADERS, stream=Streaming(self.events))


def bench(effort: Effort) -> Found:
    """From the inside to the outside."""
    found = Found()
    events = effort.times(EVENTS)
    for name, path, event in (
        ("chat", "/v1/chat/completions", EVENT),
        ("messages", "/v1/messages", NAMED_EVENT),
    ):
        runs = {"ours": _alone(path, event)}
        found.rows += compare(f"an event of {name}, our wrapper alone", runs, effort, events * 3)
    runs = {name: reading(client, events) for name, client in _clients(events).items()}
    found.rows += compare("an event under httpx2", runs, effort, events)
    _under_sdk(found, effort, events)
    with Peer() as peer:
        found.rows += _first_token(effort, f"{peer.url}/late/1/v1/chat/completions")
    found.rows += _recovery(effort)
    return found


def _alone(path: str, event: bytes) -> Run:
    def run(times: int) -> float:
        splice = opened(path)
        fresh = [bytes(bytearray(event)) for _ in range(times)]
        start = busy()
        for data in fresh:
            splice.feed(data)
        took = busy() - start
        if not splice.guarded or splice.broken is not None:
            raise AssertionError("the stream must be looked at to its end")
        return took

    return run


def _clients(events: int) -> dict[str, Any]:
    return {
        "bare": httpx2.Client(transport=Streams(events)),
        "ours": guarded(httpx2.Client(transport=Streams(events))),
    }


def reading(client: httpx2.Client, events: int) -> Run:
    """Read streams of *events* events, as bytes; the opening of each is part of it."""

    def run(times: int) -> float:
        rounds = max(1, times // events)
        start = busy()
        for _ in range(rounds):
            with client.stream("POST", URL, json=STREAM, headers=AUTH) as response:
                for _ in response.iter_bytes():
                    pass
        return (busy() - start) / (rounds * events) * times

    return run


def _under_sdk(found: Found, effort: Effort, events: int) -> None:
    made = fitting({"openai": _openai, "openai asyncio": _openai_async}, found.skipped, "streams")
    if "openai" in made:
        runs = {name: made["openai"](client, events) for name, client in _clients(events).items()}
        found.rows += compare("an event under the OpenAI SDK", runs, effort, events)
    if "openai asyncio" in made:
        loop = asyncio.new_event_loop()
        clients = {
            "bare": httpx2.AsyncClient(transport=Streams(events)),
            "ours": guarded(httpx2.AsyncClient(transport=Streams(events))),
        }
        runs = {name: made["openai asyncio"](client, events, loop) for name, client in clients.items()}
        found.rows += compare("an event under the OpenAI SDK asyncio", runs, effort, events)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _openai() -> Callable[[Any, int], Run]:
    import openai

    def make(client: httpx2.Client, events: int) -> Run:
        sdk: Any = openai.OpenAI(api_key="not-a-key", base_url="http://gateway.test/v1", http_client=client)

        def run(times: int) -> float:
            rounds = max(1, times // events)
            start = busy()
            for _ in range(rounds):
                count = 0
                for _ in sdk.chat.completions.create(**STREAM):
                    count += 1
                if count != events + 2:
                    raise AssertionError(f"{count} events of {events + 2}")
            return (busy() - start) / (rounds * events) * times

        return run

    return make


def _openai_async() -> Callable[[Any, int, asyncio.AbstractEventLoop], Run]:
    import openai

    def make(client: httpx2.AsyncClient, events: int, loop: asyncio.AbstractEventLoop) -> Run:
        sdk: Any = openai.AsyncOpenAI(
            api_key="not-a-key", base_url="http://gateway.test/v1", http_client=client
        )

        async def streams(rounds: int) -> float:
            start = busy()
            for _ in range(rounds):
                async for _ in await sdk.chat.completions.create(**STREAM):
                    pass
            return busy() - start

        def run(times: int) -> float:
            rounds = max(1, times // events)
            return loop.run_until_complete(streams(rounds)) / (rounds * events) * times

        return run

    return make


def _first_token(effort: Effort, url: str) -> list[Row]:
    """From the beginning of a call to the first bytes of its stream's text, over loopback."""
    taken: dict[str, list[float]] = {"bare": [], "ours": []}
    with httpx2.Client() as bare, httpx2.Client() as ours:
        clients = {"bare": bare, "ours": guarded(ours)}
        for number in range(effort.times(160) + 4):
            order = list(clients)
            for name in order if number % 2 else order[::-1]:
                start = time.perf_counter()
                with clients[name].stream("POST", url, json=STREAM, headers=AUTH) as response:
                    for piece in response.iter_bytes():
                        if b"hello" in piece:
                            took = time.perf_counter() - start
                            break
                    for _ in response.iter_raw() if not response.is_stream_consumed else ():
                        pass
                if number >= 4:
                    taken[name].append(took)
    found = rows("first token, loopback", taken, factor=1e3, unit="ms")
    more = Spread.of((a - b for a, b in zip(taken["ours"], taken["bare"], strict=True)), 1e3)
    return [*found, Row("first token, loopback", "ours less bare", more, "ms")]


def _recovery(effort: Effort) -> list[Row]:
    """From the break of a stream to the first event of the next attempt, in process; waits are skipped."""
    broke = [0.0]

    def breaks() -> None:
        broke[0] = time.perf_counter()

    class Breaking(httpx2.BaseTransport):
        sent = 0

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            self.sent += 1
            body = Streaming(3, breaks=breaks) if self.sent % 2 else Streaming(3)
            return httpx2.Response(200, headers=HEADERS, stream=body)

    taken = []
    quiet = gr.Config(budget=gr.BudgetConfig(mode="off"), breaker=gr.BreakerConfig(mode="off"))
    client = guarded(httpx2.Client(transport=Breaking()), gr.Resilience(quiet, clock=FakeClock()))
    for _ in range(effort.times(100) + 2):
        with client.stream("POST", URL, json=STREAM, headers=AUTH) as response:
            pieces = response.iter_bytes()
            next(pieces)
            taken.append(time.perf_counter() - broke[0])
            if not broke[0]:
                raise AssertionError("nothing broke")
            broke[0] = 0.0
            for _ in pieces:
                pass
    client.close()
    return [Row("a break to the first event after it", "ours", Spread.of(taken[2:], 1e6), "µs")]


__all__ = ["OPENING", "Streaming", "Streams", "bench", "reading"]
