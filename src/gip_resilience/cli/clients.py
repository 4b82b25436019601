"""Eight ways to ask the gateway, each bare or with resilience mounted, behind one face.

A client is a context manager (blocking or awaiting) that yields a function from a job to the text of its
answer. The functions do what a program would do with that library: raise on a bad status, decode, look into
the message. Whatever is raised on the way is a call that failed.
"""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gip_resilience.clock import SystemClock
from gip_resilience.mounting import mount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from gip_resilience.cli.afternoon import Afternoon, Job
    from gip_resilience.resilience import Resilience

Ask: TypeAlias = "Callable[[Job], str]"
AsyncAsk: TypeAlias = "Callable[[Job], Awaitable[str]]"
Note: TypeAlias = "Callable[[Job, bool, float], None]"
"""Told of each call that is over: whether its answer was right, and how many seconds it took."""

KEY = "demo"
"""Any will do: the local gateway takes them all."""

PATIENCE = 10.0
"""Seconds a client waits for bytes. Nothing in the demo stalls; this is for a machine that does."""


@dataclass(frozen=True, slots=True)
class Client:
    """One way to ask.

    Attributes:
        name: what it is called on the screen.
        needs: the modules it takes.
        begin: goes through the afternoon with it: at a base URL, mounted or bare; returns when all is over.
    """

    name: str
    needs: tuple[str, ...]
    begin: Callable[[str, Resilience | None, Afternoon, Note], None]

    @property
    def missing(self) -> list[str]:
        """Modules it takes that are not installed."""
        return [module for module in self.needs if find_spec(module) is None]


def _payload(job: Job) -> dict[str, Any]:
    return {"model": job.model, "messages": [{"role": "user", "content": job.prompt}]}


def _text(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


# ---- the clients -------------------------------------------------------------------------------------------


@contextmanager
def _requests(base_url: str, brain: Resilience | None) -> Iterator[Ask]:
    import requests

    with requests.Session() as session:
        session.headers["authorization"] = f"Bearer {KEY}"
        if brain is not None:
            mount(session, brain)

        def ask(job: Job) -> str:
            response = session.post(f"{base_url}/chat/completions", json=_payload(job), timeout=PATIENCE)
            response.raise_for_status()
            return _text(response.json())

        yield ask


def _httpx_like(library: str) -> Callable[[str, Resilience | None], AbstractContextManager[Ask]]:
    @contextmanager
    def opened(base_url: str, brain: Resilience | None) -> Iterator[Ask]:
        httpx: Any = __import__(library)
        with httpx.Client(**_options(base_url)) as client:
            if brain is not None:
                mount(client, brain)

            def ask(job: Job) -> str:
                response = client.post("/chat/completions", json=_payload(job))
                response.raise_for_status()
                return _text(response.json())

            yield ask

    return opened


def _async_httpx_like(
    library: str,
) -> Callable[[str, Resilience | None], AbstractAsyncContextManager[AsyncAsk]]:
    @asynccontextmanager
    async def opened(base_url: str, brain: Resilience | None) -> AsyncIterator[AsyncAsk]:
        httpx: Any = __import__(library)
        async with httpx.AsyncClient(**_options(base_url)) as client:
            if brain is not None:
                mount(client, brain)

            async def ask(job: Job) -> str:
                response = await client.post("/chat/completions", json=_payload(job))
                response.raise_for_status()
                return _text(response.json())

            yield ask

    return opened


def _options(base_url: str) -> dict[str, Any]:
    # No proxy of the environment's may come between the demo and its own gateway.
    headers = {"authorization": f"Bearer {KEY}"}
    return {"base_url": base_url, "headers": headers, "timeout": PATIENCE, "trust_env": False}


@contextmanager
def _openai(base_url: str, brain: Resilience | None) -> Iterator[Ask]:
    import openai

    with openai.OpenAI(base_url=base_url, api_key=KEY, timeout=PATIENCE) as client:
        if brain is not None:
            mount(client, brain)

        def ask(job: Job) -> str:
            answer = client.chat.completions.create(
                model=job.model, messages=[{"role": "user", "content": job.prompt}]
            )
            return str(answer.choices[0].message.content)

        yield ask


# ---- going through the afternoon ---------------------------------------------------------------------------


def _right(job: Job, text: str) -> bool:
    # The gateway repeats the question; the blank keeps "question 1" from being taken for "question 11".
    return text.startswith(f"You said: {job.prompt} ")


def _blocking(
    opened: Callable[[str, Resilience | None], AbstractContextManager[Ask]],
) -> Callable[[str, Resilience | None, Afternoon, Note], None]:
    def begin(base_url: str, brain: Resilience | None, afternoon: Afternoon, note: Note) -> None:
        clock = SystemClock()

        def make(ask: Ask, job: Job) -> None:
            started = time.monotonic()
            try:
                right = _right(job, ask(job))
            except Exception:
                right = False
            note(job, right, time.monotonic() - started)

        with opened(base_url, brain) as ask:
            started = time.monotonic()
            threads = []
            for job in afternoon.jobs():
                clock.sleep(max(0.0, started + job.at - time.monotonic()))
                # A daemon: an interrupted demo must not linger until the last call is through with waiting.
                thread = threading.Thread(target=make, args=(ask, job), daemon=True)
                thread.start()
                threads.append(thread)
            for thread in threads:
                thread.join()

    return begin


def _awaiting(
    opened: Callable[[str, Resilience | None], AbstractAsyncContextManager[AsyncAsk]],
    backend: Literal["asyncio", "trio"],
) -> Callable[[str, Resilience | None, Afternoon, Note], None]:
    def begin(base_url: str, brain: Resilience | None, afternoon: Afternoon, note: Note) -> None:
        import anyio

        async def make(ask: AsyncAsk, job: Job) -> None:
            started = time.monotonic()
            try:
                right = _right(job, await ask(job))
            except Exception:
                right = False
            note(job, right, time.monotonic() - started)

        async def all_of_it() -> None:
            async with opened(base_url, brain) as ask, anyio.create_task_group() as tasks:
                started = time.monotonic()
                for job in afternoon.jobs():
                    await anyio.sleep(max(0.0, started + job.at - time.monotonic()))
                    tasks.start_soon(make, ask, job)

        anyio.run(all_of_it, backend=backend)

    return begin


CLIENTS = (
    Client("requests", ("requests",), _blocking(_requests)),
    Client("httpx", ("httpx",), _blocking(_httpx_like("httpx"))),
    Client("httpx asyncio", ("httpx",), _awaiting(_async_httpx_like("httpx"), "asyncio")),
    Client("httpx trio", ("httpx", "trio"), _awaiting(_async_httpx_like("httpx"), "trio")),
    Client("httpx2", ("httpx2",), _blocking(_httpx_like("httpx2"))),
    Client("httpx2 asyncio", ("httpx2",), _awaiting(_async_httpx_like("httpx2"), "asyncio")),
    Client("httpx2 trio", ("httpx2", "trio"), _awaiting(_async_httpx_like("httpx2"), "trio")),
    Client("openai", ("openai",), _blocking(_openai)),
)
"""All of them, in the order of the table. The SDK is the blocking one, with the retries it comes with."""
