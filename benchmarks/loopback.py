"""One call that succeeds, over a connection that is kept open, to a server of its own on loopback."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx2
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from benchmarks.clients import AUTH, BODY, PassingAdapter, guarded, pass_through, session
from benchmarks.measuring import Effort, Found, awaited, compare, looped, wall
from benchmarks.peer import Peer
from benchmarks.rivals import ATTEMPTS, RETRIED, arounds, fitting, transports

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

CALLS: Final = 30


def bench(effort: Effort) -> Found:
    """Each client, in both colours, and each rival; aiohttp, which we do not guard, for scale."""
    found = Found()
    times = effort.times(CALLS)
    loop = asyncio.new_event_loop()
    with Peer() as peer:
        url = f"{peer.url}/plain/v1/chat/completions"
        with ExitStack() as stack:
            runs = {name: looped(call, wall) for name, call in _of_requests(url, found, stack).items()}
            found.rows += compare("requests", runs, effort, times)
        for library in (httpx, httpx2):
            with ExitStack() as stack:
                calls = _of_httpx(library, url, found, stack)
                runs = {name: looped(call, wall) for name, call in calls.items()}
                found.rows += compare(library.__name__, runs, effort, times)
            with ExitStack() as stack:
                calls = _of_httpx(library, url, found, stack, loop)
                runs = {name: awaited(loop, call, wall) for name, call in calls.items()}
                found.rows += compare(f"{library.__name__} asyncio", runs, effort, times)
        _of_aiohttp(loop, url, found, effort, times)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return found


def _posting(client: Any, url: str) -> Callable[[], Any]:
    return lambda: client.post(url, json=BODY, headers=AUTH)


def _of_requests(url: str, found: Found, stack: ExitStack) -> dict[str, Callable[[], Any]]:
    retry = Retry(ATTEMPTS - 1, allowed_methods=None, status_forcelist=RETRIED, raise_on_status=False)
    made = {
        "bare": session(HTTPAdapter()),
        "pass-through": session(PassingAdapter(HTTPAdapter())),
        "ours": guarded(session(HTTPAdapter())),
        "urllib3.Retry": session(HTTPAdapter(max_retries=retry)),
    }
    try:
        from interlock.integrations.requests import CircuitBreakerAdapter
    except ImportError as error:
        found.skipped["interlock-cb"] = f"not installed ({error.name})"
    else:
        made["interlock-cb"] = session(CircuitBreakerAdapter())
    calls = {name: _posting(stack.enter_context(client), url) for name, client in made.items()}
    around = fitting(arounds(awaiting=False), found.skipped, requests.__name__)
    return calls | {name: wrap(calls["bare"]) for name, wrap in around.items()}


def _of_httpx(
    library: ModuleType,
    url: str,
    found: Found,
    stack: ExitStack,
    loop: asyncio.AbstractEventLoop | None = None,
) -> dict[str, Callable[[], Any]]:
    awaiting = loop is not None
    kit: Any = library
    client = kit.AsyncClient if awaiting else kit.Client
    transport = kit.AsyncHTTPTransport if awaiting else kit.HTTPTransport
    made = {
        "bare": client(transport=transport()),
        "pass-through": client(transport=pass_through(library, transport())),
        "ours": guarded(client(transport=transport())),
    }
    where = library.__name__ + (" asyncio" if awaiting else "")
    for name, around in fitting(transports(library, awaiting=awaiting), found.skipped, where).items():
        made[name] = client(transport=around(transport()))
    for one in made.values():
        if loop is None:
            stack.callback(one.close)
        else:
            stack.callback(lambda one=one: loop.run_until_complete(one.aclose()))  # type: ignore[misc]  # a default binds it
    calls = {name: _posting(one, url) for name, one in made.items()}
    bare = calls["bare"]

    async def abare() -> Any:
        return await bare()

    for name, wrap in fitting(arounds(awaiting=awaiting), found.skipped, where).items():
        calls[name] = wrap(abare if awaiting else bare)
    return calls


def _of_aiohttp(loop: asyncio.AbstractEventLoop, url: str, found: Found, effort: Effort, times: int) -> None:
    try:
        import aiohttp
        import aiohttp_retry
    except ImportError as error:
        found.skipped["aiohttp-retry"] = f"not installed ({error.name})"
        return

    def posting(client: Any) -> Callable[[], Any]:
        async def post() -> None:
            async with client.post(url, json=BODY, headers=AUTH) as response:
                await response.read()

        return post

    async def compare_both() -> dict[str, Any]:
        bare = aiohttp.ClientSession()
        options = aiohttp_retry.ExponentialRetry(attempts=ATTEMPTS, statuses=set(RETRIED))
        return {"bare": bare, "aiohttp-retry": aiohttp_retry.RetryClient(bare, retry_options=options)}

    clients = loop.run_until_complete(compare_both())
    runs = {name: awaited(loop, posting(client), wall) for name, client in clients.items()}
    found.rows += compare("aiohttp asyncio", runs, effort, times)
    loop.run_until_complete(clients["bare"].close())
