"""The gateway's reader of HTTP/1.1: any bytes are requests, or one refusal; the same for any cut of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.given import Given, cut
from gip_resilience.gateway.http1 import BadRequest, Request, RequestParser

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIMITS = ((64 * 1024, 64 * 1024 * 1024), (64, 16), (128, 0), (200, 40))


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    head, body = given.one_of(_LIMITS)
    sizes = given.sizes()
    stream = given.rest()
    whole, refused = _read([stream], head, body)
    again, refused_again = _read(cut(stream, sizes), head, body)
    assert again == whole
    # What is wrong in two ways may be refused for the other one when it comes piece by piece.
    assert (refused is None) == (refused_again is None)
    for request in whole:
        assert len(request.body) <= body
        assert request.path is not None
        assert all(isinstance(value, str) for value in request.query.values())
        assert request.keep_alive in (True, False)
        assert request.header("host") or not request.version or ("host" in _names(request))
        # Two readers must not disagree about where a message ends.
        assert not {"content-length", "transfer-encoding"} <= _names(request)


def _names(request: Request) -> set[str]:
    return {name.lower() for name, _ in request.headers}


def _read(pieces: Iterable[bytes], head: int, body: int) -> tuple[list[Request], int | None]:
    parser = RequestParser(max_head=head, max_body=body)
    found: list[Request] = []
    fed = 0
    for piece in pieces:
        parser.feed(piece)
        fed += len(piece)
        assert parser.buffered <= fed
        try:
            while (request := parser.poll()) is not None:
                found.append(request)
        except BadRequest as problem:
            assert problem.status in (400, 413, 431, 501, 505)
            assert problem.reason
            return found, problem.status
        if parser.take_continue():
            assert not parser.take_continue()
    return found, None
