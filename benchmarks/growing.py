"""Cost against size: calls in flight, models, and the length of a stream. What grows with none of them is flat."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import httpx2

import gip_resilience as gr
from benchmarks.clients import AUTH, BODY, HEADERS, HOST, REPLY, URL, guarded
from benchmarks.flowing import Streams, reading
from benchmarks.measuring import Effort, Found, busy, compare
from gip_resilience._answers import success
from gip_resilience.above import Layer
from gip_resilience.memory import MAX_KEYS

if TYPE_CHECKING:
    from benchmarks.measuring import Run

SIZES: Final = (1, 10, 100, 1_000, 10_000)
LENGTHS: Final = (10, 100, 1_000, 10_000, 100_000)

GOOD: Final = success(200)


class _Together(httpx2.AsyncBaseTransport):
    """Answers from memory, once so many requests are there."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._waiting = 0
        self._all = asyncio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._waiting += 1
        if self._waiting == self._number:
            self._all.set()
        await self._all.wait()
        self._waiting -= 1
        if not self._waiting:
            self._all = asyncio.Event()
        return httpx2.Response(200, headers=HEADERS, stream=httpx2.ByteStream(REPLY))


def bench(effort: Effort) -> Found:
    """The three of them."""
    found = Found()

    def short(size: int) -> Effort:
        return Effort(min(effort.rounds, 11 if size < 10_000 else 3), min(effort.seconds, 3.0), effort.scale)

    for number in (effort.times(size) for size in SIZES if effort.scale == 1.0 or size <= 10):
        runs = {name: _in_flight(number, ours=name == "ours") for name in ("bare", "ours")}
        found.rows += compare("calls in flight", runs, short(number), max(number, 100), size=number)
    for number in (effort.times(size) for size in SIZES if effort.scale == 1.0 or size <= 10):
        run = {"engine's part": _models(number)}
        found.rows += compare("models", run, short(number), max(number, 100), size=number)
    for length in (effort.times(size) for size in LENGTHS if effort.scale == 1.0 or size <= 10):
        clients: dict[str, Any] = {
            "bare": httpx2.Client(transport=Streams(length)),
            "ours": guarded(httpx2.Client(transport=Streams(length))),
        }
        runs = {name: reading(client, length) for name, client in clients.items()}
        found.rows += compare("events of a stream", runs, short(length), max(length, 100), size=length)
    found.notes.append(
        "Per call, per call and per event. The engine's part of a call is what is left of it without a client."
    )
    found.notes.append(
        f"Circuits are kept for {MAX_KEYS:,} models; of more, met by turns, each is made anew when it comes."
    )
    return found


def _in_flight(number: int, *, ours: bool) -> Run:
    client = httpx2.AsyncClient(transport=_Together(number))
    if ours:
        guarded(client)

    async def together(rounds: int) -> float:
        start = busy()
        for _ in range(rounds):
            await asyncio.gather(*(client.post(URL, json=BODY, headers=AUTH) for _ in range(number)))
        return busy() - start

    def run(times: int) -> float:
        rounds = max(1, times // number)
        return asyncio.run(together(rounds)) / (rounds * number) * times

    return run


def _models(number: int) -> Run:
    brain = gr.Resilience()
    layer = Layer(brain, "POST", URL)
    names = [f"model-{place}" for place in range(number)]

    def run(times: int) -> float:
        rounds = max(1, times // number)
        start = busy()
        for _ in range(rounds):
            for name in names:
                call = brain.call(HOST, "digest", name)
                call.admit()
                with call.sending(layer):
                    pass
                call.succeed(GOOD)
                call.close()
        return (busy() - start) / (rounds * number) * times

    return run
