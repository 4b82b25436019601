"""Several layers of ours in one client, and scenarios that are written once for clients that block or await."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import httpx
import httpx2

import gip_resilience as gr
import gip_resilience.httpx
import gip_resilience.httpx2
import gip_resilience.requests
from gip_resilience.testing import FakeClock
from harness import CHAT
from streamed import QUIET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from harness import Session

_OURS: dict[Any, Any] = {httpx: gip_resilience.httpx, httpx2: gip_resilience.httpx2}


def brains(count: int, **config: Any) -> list[gr.Resilience]:
    """So many brains that have nothing in common, in whose pauses no time passes."""
    return [gr.Resilience(gr.Config(**{**QUIET, **config}), clock=FakeClock()) for _ in range(count)]


def add_layers(session: Session, *layers: gr.Resilience) -> None:
    """Put layers over what the client sends with, the first undermost."""
    client = session.client
    for brain in layers:
        if session.harness.name == "requests":
            inner = client.adapters["http://"]
            client.adapters["http://"] = gip_resilience.requests.ResilientAdapter(brain, inner)
            continue
        ours = _OURS[session.harness.library]
        made = ours.ResilientTransport if session.portal is None else ours.AsyncResilientTransport
        client._transport = made(brain, client._transport)


def chat(client: Any, url: str, **options: Any) -> Any:
    """A chat request; to be awaited where the client awaits."""
    return client.post(url, **{"json": CHAT, **options})


async def settled(sent: Any) -> Any:
    """What was sent, answered, whichever kind of client sent it."""
    return await sent if inspect.isawaitable(sent) else sent


def play(session: Session, scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a scenario in one thread and one context; in the client's own loop if it has one."""
    if session.portal is not None:
        return session.portal.call(scenario)
    try:
        scenario().send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a client that blocks has nothing to wait for")


def acting(session: Session, act: Callable[[str], Awaitable[None]]) -> Callable[[str], Any]:
    """*act* as `interposed.interpose` wants it."""

    def blocking(where: str) -> None:
        coroutine: Any = act(where)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("a client that blocks has nothing to wait for")

    return act if session.portal is not None else blocking
