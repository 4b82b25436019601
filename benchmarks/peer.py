"""A server in a process of its own, which answers at once from what it made beforehand, so that clients are measured.

It does as the first part of the path says, whatever stands behind it::

    /plain/...      a JSON answer
    /events/N/...   an event stream of N events
    /down/...       503
    /late/...       a stream whose first event comes 5 ms after its head, so that the two are read apart

Connections are kept open. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

_LIMIT: Final = 20.0
"""Seconds it may take to end."""

LATE: Final = 0.005


class Peer:
    """The server, as its parent sees it. A context manager.

    Attributes:
        url: where it listens, without a slash at the end.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Connection(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._answer(head.split(b" ", 2)[1].decode().split("/"))

    def _answer(self, path: list[str]) -> None:
        match path[1:3]:
            case ["events", number]:
                self._transport.write(_stream(int(number)))
            case ["down", _]:
                self._transport.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
            case ["late", _]:
                self._transport.write(_HEAD)
                asyncio.get_running_loop().call_later(LATE, self._transport.write, _rest_of_stream(1))
            case _:
                self._transport.write(_plain())


_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


@cache
def _plain() -> bytes:
    from benchmarks.clients import REPLY

    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(REPLY),
        REPLY,
    )


@cache
def _stream(events: int) -> bytes:
    return _HEAD + _rest_of_stream(events)


@cache
def _rest_of_stream(events: int) -> bytes:
    from benchmarks.events import each

    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in each(events)) + b"0\r\n\r\n"


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
