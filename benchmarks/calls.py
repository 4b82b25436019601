"""One call that succeeds, in process: the transport underneath answers from memory, so only clients are measured."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx2

from benchmarks.clients import (
    NullAdapter,
    PassingAdapter,
    guarded,
    null_transport,
    pass_through,
    post,
    session,
)
from benchmarks.measuring import Effort, Found, awaited, compare, looped
from benchmarks.rivals import adapters, arounds, fitting, transports

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

CALLS: Final = 40
"""A turn, which takes some milliseconds."""


def bench(effort: Effort) -> Found:
    """Each client, in both colours, and each rival that can be used with it."""
    found = Found()
    times = effort.times(CALLS)
    runs = {name: looped(call) for name, call in _of_requests(found).items()}
    found.rows += compare("requests", runs, effort, times)
    loop = asyncio.new_event_loop()
    for library in (httpx, httpx2):
        runs = {name: looped(call) for name, call in _of_httpx(library, found, awaiting=False).items()}
        found.rows += compare(library.__name__, runs, effort, times)
        runs = {name: awaited(loop, call) for name, call in _of_httpx(library, found, awaiting=True).items()}
        found.rows += compare(f"{library.__name__} asyncio", runs, effort, times)
    loop.close()
    return found


def _of_requests(found: Found) -> dict[str, Callable[[], Any]]:
    adapter = NullAdapter()
    made = {
        "bare": session(adapter),
        "pass-through": session(PassingAdapter(adapter)),
        "ours": guarded(session(adapter)),
    }
    made |= {name: session(rival) for name, rival in fitting(adapters(), found.skipped, "in process").items()}
    calls = {name: calling(client) for name, client in made.items()}
    return calls | _around(found, calls["bare"], "requests", awaiting=False)


def _of_httpx(library: ModuleType, found: Found, *, awaiting: bool) -> dict[str, Callable[[], Any]]:
    kit: Any = library
    client = kit.AsyncClient if awaiting else kit.Client
    null = null_transport(library)
    made = {
        "bare": client(transport=null),
        "pass-through": client(transport=pass_through(library, null)),
        "ours": guarded(client(transport=null)),
    }
    where = library.__name__ + (" asyncio" if awaiting else "")
    for name, around in fitting(transports(library, awaiting=awaiting), found.skipped, where).items():
        made[name] = client(transport=around(null))
    calls = {name: calling(one) for name, one in made.items()}
    return calls | _around(found, calls["bare"], where, awaiting=awaiting)


def _around(found: Found, bare: Any, where: str, *, awaiting: bool) -> dict[str, Any]:
    rivals = fitting(arounds(awaiting=awaiting), found.skipped, where)
    return {name: around(bare_of(bare, awaiting=awaiting)) for name, around in rivals.items()}


def calling(client: Any) -> Callable[[], Any]:
    """One call of *client*."""
    return lambda: post(client)


def bare_of(call: Callable[[], Any], *, awaiting: bool) -> Callable[[], Any]:
    """*call*, as a function of the colour that decorators look for."""
    if not awaiting:
        return call

    async def acall() -> Any:
        return await call()

    return acall
