"""What the gateway remembers beyond the request: whether the answer was whole, and which connections are open."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from gip_resilience.gateway import (
    BreakStream,
    Close,
    EmptyReply,
    Error,
    FaultPlan,
    Gateway,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Ok,
    Reset,
    Slow,
    Status,
)
from harness import CHAT

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.gateway import Reply

STREAMED = CHAT | {"stream": True}
ALL = 10_000

WHOLE: list[tuple[Reply, bool]] = [
    (Ok(), True),
    (Gzip(), True),
    (Slow(0.0), True),
    (Status(204, body="empty"), True),
    (Error("model_overloaded"), False),
    (Html(502), False),
    (EmptyReply(), False),
    (HalfHeaders(), False),
    (HalfBody("eof"), False),
    (HalfBody("short_length"), False),
    (HalfBody("truncated_gzip"), False),
    (HalfBody("bad_chunk"), False),
    (Reset("body"), False),
    (Close("headers"), False),
    (BreakStream(how="eof", events=2), False),
    (BreakStream(how="eof", events=ALL), True),
    (BreakStream(how="fin", events=ALL), True),
    (BreakStream(how="fin", events=2), False),
    (BreakStream(how="error", events=ALL), False),
    (BreakStream(how="garbled", events=ALL), False),
]


@pytest.mark.parametrize(("reply", "whole"), WHOLE, ids=[repr(reply) for reply, _ in WHOLE])
def test_whether_the_answer_was_whole(reply: Reply, whole: bool) -> None:
    """A good answer of which everything was sent; nothing else."""
    with Gateway(FaultPlan.always(reply)) as gateway:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(gateway.base_url + "/chat/completions", json=STREAMED)
        assert [seen.whole for seen in gateway.requests] == [whole]


def test_the_mark_of_the_end_may_be_missing() -> None:
    """Where everything but ``[DONE]`` was sent, nothing with a meaning is missing."""
    with Gateway() as gateway:
        events = httpx.post(gateway.base_url + "/chat/completions", json=STREAMED).text.count("\n\n")
        for missing, whole in ((1, True), (2, False)):
            gateway.plan = FaultPlan.always(BreakStream(how="eof", events=events - missing))
            gateway.clear()
            httpx.post(gateway.base_url + "/chat/completions", json=STREAMED)
            assert [seen.whole for seen in gateway.requests] == [whole]


def until(condition: Callable[[], bool]) -> None:
    """Wait for the other side to notice."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)  # noqa: TID251 - the gateway's thread is what is waited for


def test_open_connections() -> None:
    """From the moment they are accepted until either side has closed them; numbers go on after `clear`."""
    with Gateway() as gateway:
        assert gateway.open_connections == set()
        with httpx.Client() as one, httpx.Client() as other:
            one.get(gateway.url + "/healthz")
            other.get(gateway.url + "/healthz")
            assert gateway.open_connections == {1, 2}
            one.close()
            until(lambda: gateway.open_connections == {2})
            gateway.clear()
            assert (gateway.connections, gateway.open_connections) == (0, {2})
            httpx.get(gateway.url + "/healthz")
            assert (gateway.connections, gateway.requests[0].connection) == (1, 3)
        until(lambda: gateway.open_connections == set())


@pytest.mark.parametrize(
    "reply", [Reset("accept"), Close("accept"), Reset("request"), EmptyReply()], ids=repr
)
def test_broken_connections_are_not_open(reply: Reply) -> None:
    """However the connection ended, it is known to be gone."""
    with Gateway(FaultPlan.always(reply)) as gateway, httpx.Client() as client:
        with pytest.raises(httpx.TransportError):
            client.get(gateway.base_url + "/models")
        until(lambda: gateway.open_connections == set())
        assert gateway.connections == 1


def test_a_gateway_that_stopped_has_none() -> None:
    """Stopping closes them all."""
    with httpx.Client() as client:
        with Gateway() as gateway:
            client.get(gateway.url + "/healthz")
        assert gateway.open_connections == set()
