"""The gateway where it is rarely entered: requests sent far ahead, replies that are wrong, and ends of steps."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from gip_resilience.gateway import EmptyReply, Error, FaultPlan, Gateway, HalfBody, Ok, Slow, SlowBody
from gip_resilience.gateway.answers import Answer, Parts
from gip_resilience.gateway.connections import _unsent
from gip_resilience.gateway.http1 import Request
from gip_resilience.gateway.wire import Finish, Outgoing, Write, operations, resolve

GET = Request("GET", "/healthz", 1, ())


class Backend:
    """Good health."""

    def respond(self) -> Answer:
        """An answer of two events and nothing between."""
        return Answer(200, (), Parts([b"one", b"", b"two"]))

    def rate_limited(self, retry_after: float | str | None) -> Answer:
        """Not asked for here."""
        raise NotImplementedError


def test_requests_that_are_sent_far_ahead() -> None:
    """A client that sends a quarter of a megabyte ahead is read on when its turn comes, and answered in order."""
    count, padding = 40, "x" * 10_000
    request = f"GET /healthz HTTP/1.1\r\nhost: h\r\nx-padding: {padding}\r\n\r\n".encode()
    with Gateway(FaultPlan.script([Slow(0.2)], path="/healthz")) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(request * count)
            heard = b""
            while heard.count(b"HTTP/1.1 200") < count:
                piece = client.recv(65536)
                assert piece
                heard += piece
        assert len(gateway.requests) == count


def test_steps_end_with_the_connection() -> None:
    """Where no answer will ever come there is one step, and nothing behind it."""
    assert list(operations(resolve(EmptyReply(), Backend()), GET)) == [Finish("fin")]
    assert list(operations(Outgoing(), GET)) == [Finish("fin")]


def test_nothing_is_no_piece() -> None:
    """A piece without bytes would be the end of a chunked body."""
    written = [
        step.data for step in operations(resolve(SlowBody(0, 0.0), Backend()), GET) if isinstance(step, Write)
    ]
    assert written[1:] == [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]


def test_a_way_to_halve_that_nobody_knows() -> None:
    """Msgspec checks where it decodes, but not where Python makes a value."""
    how: Any = "sideways"
    with pytest.raises(ValueError, match="unknown way to halve a body: 'sideways'"):
        resolve(HalfBody(how), Backend())


def test_a_socket_that_is_gone_has_nothing_left() -> None:
    """Neither one that was closed nor one that is none."""
    assert _unsent(-1) == 0
    with open("/dev/null", "rb") as no_socket:  # noqa: PTH123 - a descriptor is wanted
        assert _unsent(no_socket.fileno()) == 0


def test_replies_read_well() -> None:
    """Fit for a failure's text: what is as usual is left out."""
    assert (
        repr(Slow(1.0, then=Error("model_overloaded")))
        == "Slow(seconds=1.0, then=Error(code='model_overloaded'))"
    )
    assert repr(Ok()) == "Ok()"
