"""One call that succeeds, in process: the transport underneath answers from memory, so only clients are measured."""

from __future__ import annotations

import asyncio
from typing import Any

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

CALLS = 60


def bench(effort: Effort) -> Found:
    """Each client, in both colours."""
    found = Found()
    times = effort.times(CALLS)
    adapter = NullAdapter()
    sessions = {
        "bare": session(adapter),
        "pass-through": session(PassingAdapter(adapter)),
        "ours": guarded(session(adapter)),
    }
    runs = {name: looped(lambda client=client: post(client)) for name, client in sessions.items()}
    found.rows += compare("requests", runs, effort, times)
    loop = asyncio.new_event_loop()
    for name, library in (("httpx", httpx), ("httpx2", httpx2)):
        kit: Any = library
        for colour, make in (("", kit.Client), (" asyncio", kit.AsyncClient)):
            clients = {
                "bare": make(transport=null_transport(library)),
                "pass-through": make(transport=pass_through(library, null_transport(library))),
                "ours": guarded(make(transport=null_transport(library))),
            }
            if colour:
                runs = {n: awaited(loop, lambda client=client: post(client)) for n, client in clients.items()}
            else:
                runs = {n: looped(lambda client=client: post(client)) for n, client in clients.items()}
            found.rows += compare(name + colour, runs, effort, times)
    loop.close()
    return found
