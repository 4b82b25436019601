"""What happens to the program itself, as far as its own process can play it: loops, tasks, threads and their ends.

What needs a process of its own is in `programs`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import trio

import gip_resilience as gr
from faults.scenes import GOOD, JSON, QUICK, Outcome, Scene, ask, good, scene
from gip_resilience.clock import SystemClock
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Harness, Session
    from loopback import Exchange

CROWD = 32
"""Callers at once."""

LONG = QUICK.replace(policies={"intermediary": gr.Policy(base_delay=30.0, max_delay=30.0)})
"""A policy under which a call would pause until nobody waits for it any more."""


def failing_first(act: str, times: int = 1) -> Any:
    """A handler that answers 503 so often, or always."""

    def handle(exchange: Exchange) -> None:
        exchange.read_body()
        if act == "always" or exchange.number <= times:
            exchange.answer(503, b"")
        else:
            exchange.answer(200, GOOD, JSON)

    return handle


async def _request(session: Session, at: Scene) -> Any:
    return await session.client.post(at.url, json={"model": "m"}, **at.options(session))


@scene("cancelled-in-the-wait")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The task is cancelled while its call pauses; the next call of the client is as ever."""

    def play(session: Session, at: Scene) -> Outcome:
        async def cancelled() -> bool:
            with anyio.move_on_after(0.1) as scope:
                await _request(session, at)
            return scope.cancelled_caught

        assert session.portal.call(cancelled)
        return ask(session, at)

    with Loopback(failing_first("once")) as peer:
        yield Scene(peer.url, lambda: peer.count, config=LONG, clock=SystemClock(), play=play)


@scene("cancelled-in-flight")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The task is cancelled while its request is under way; the next call of the client is as ever."""

    def play(session: Session, at: Scene) -> Outcome:
        async def cancelled() -> bool:
            with anyio.move_on_after(0.1) as scope:
                await _request(session, at)
            return scope.cancelled_caught

        assert session.portal.call(cancelled)
        return ask(session, at)

    def silent_first(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.wait_for_end()
        else:
            good(exchange)

    with Loopback(silent_first) as peer:
        yield Scene(peer.url, clock=SystemClock(), play=play)


@scene("loop-blocked")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Something in the program blocks the event loop for longer than the read timeout, while the answer is there."""

    def play(session: Session, at: Scene) -> Outcome:
        async def call() -> Any:
            async def block() -> None:
                await anyio.sleep(0.02)
                time.sleep(0.3)  # noqa: ASYNC251, TID251 - this is the fault

            async with anyio.create_task_group() as group:
                group.start_soon(block)
                return await _request(session, at)

        try:
            response = session.portal.call(call)
        except Exception as error:
            return Outcome(error=error)
        return Outcome(response.status_code, response.content)

    def late(exchange: Exchange) -> None:
        exchange.read_body()
        threading.Event().wait(0.08)
        exchange.answer(200, GOOD, JSON)

    with Loopback(late) as peer:
        yield Scene(peer.url, clock=SystemClock(), timeout=(5.0, 0.2), play=play)


@scene("new-loop-old-client")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The client was used in an event loop that has ended, and is used in a new one."""

    def play(session: Session, at: Scene) -> Outcome:
        ask(session, at)
        outcomes: list[Outcome] = []

        async def again() -> None:
            try:
                response = await _request(session, at)
                outcomes.append(Outcome(response.status_code, response.content))
            except Exception as error:
                outcomes.append(Outcome(error=error))
            await session.client.aclose()

        session._stack.close()
        if harness.backend == "asyncio":
            asyncio.run(again())
        else:
            trio.run(again)
        session.portal = None
        gc.collect()  # what belonged to the loop that has ended is finalised now, and in no other test
        session.close = lambda: None  # type: ignore[method-assign]  # closed above, in its last loop
        return outcomes[0]

    with Loopback(good) as peer:
        yield Scene(peer.url, play=play)


@scene("thread-dies-in-the-wait")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The thread of a call is told to exit while the call pauses; the next call of the client is as ever."""

    class Pausing(SystemClock):
        def sleep(self, seconds: float) -> None:
            paused.set()
            for _ in range(2000):
                time.sleep(0.001)  # noqa: TID251 - in steps, so that the exception can arrive

    paused = threading.Event()

    def play(session: Session, at: Scene) -> Outcome:
        ended: list[str] = []

        def die() -> None:
            try:
                ask(session, at)
            except SystemExit:
                ended.append("exit")

        thread = threading.Thread(target=die)
        thread.start()
        assert paused.wait(5)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
        )
        thread.join(5)
        assert ended == ["exit"]
        return ask(session, at)

    with Loopback(failing_first("once")) as peer:
        yield Scene(peer.url, lambda: peer.count, clock=Pausing(), play=play)


@scene("crowd")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Many callers at once, of whom the first two meet an error: none is lost, and none gets another's answer."""

    def play(session: Session, at: Scene) -> Outcome:
        outcomes: list[Outcome] = []

        async def one() -> None:
            response = await _request(session, at)
            outcomes.append(Outcome(response.status_code, response.content))

        async def together() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(CROWD):
                    group.start_soon(one)

        if session.portal is not None:
            session.portal.call(together)
        else:
            threads = [
                threading.Thread(target=lambda: outcomes.append(ask(session, at))) for _ in range(CROWD)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(outcomes) == CROWD
        return next((one for one in outcomes if one.status != 200), outcomes[0])

    with Loopback(failing_first("once", 2)) as peer:
        yield Scene(peer.url, lambda: peer.count, play=play, together=True)
