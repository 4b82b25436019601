"""A server on loopback whose every byte a test decides: what `gip_resilience.gateway` has no reply for.

The handler gets one `Exchange` per request and writes what it likes, when it likes, on a blocking socket, in a
thread of its connection. Nothing is sent, and nothing of a request's body is read, unless the handler does it.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

PATIENCE = 20.0
"""Seconds a read or a write of the server may take: a defect must show as a failure, not as a hang."""


class Exchange:
    """One request, with the socket it came by.

    Attributes:
        number: of the request at this server, from 1.
        head: the request line and the headers, as they came.
        received: what of the body came together with the head, or was read since.
    """

    def __init__(self, sock: socket.socket, number: int, head: bytes, received: bytes) -> None:
        self.sock = sock
        self.number = number
        self.head = head
        self.received = received
        self.keep_alive = True

    def header(self, name: str) -> str:
        """The value of a header of the request, or an empty string."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.lower().encode():
                return value.strip().decode("latin-1")
        return ""

    def read_body(self) -> bytes | None:
        """The whole body, unframed; ``None`` when the client broke off."""
        if "chunked" in self.header("transfer-encoding"):
            return self._read_chunks()
        length = int(self.header("content-length") or 0)
        while len(self.received) < length:
            if not self._more():
                return None
        return self.received[:length]

    def _read_chunks(self) -> bytes | None:
        body, position = bytearray(), 0
        while True:
            end = self.received.find(b"\r\n", position)
            size = int(self.received[position:end], 16) if end >= 0 else -1
            if end < 0 or len(self.received) < end + 4 + size:
                if not self._more():
                    return None
                continue
            if size == 0:
                return bytes(body)
            body += self.received[end + 2 : end + 2 + size]
            position = end + 4 + size

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 18)
        except OSError:
            return False
        self.received += data
        return bool(data)

    def send(self, *parts: bytes) -> bool:
        """Send; whether the client was still there."""
        try:
            self.sock.sendall(b"".join(parts))
        except OSError:
            self.keep_alive = False
            return False
        return True

    def answer(self, status: int, body: bytes, *headers: str) -> bool:
        """Send a whole answer with its true length."""
        lines = [f"HTTP/1.1 {status} Any", f"content-length: {len(body)}", *headers, "", ""]
        return self.send("\r\n".join(lines).encode("latin-1"), body)

    def wait_for_end(self) -> None:
        """Say nothing more until the client closes the connection."""
        while self._more():
            pass
        self.keep_alive = False

    def close(self) -> None:
        """Close the connection in order."""
        self.keep_alive = False

    def reset(self) -> None:
        """Reset the connection."""
        self.keep_alive = False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Loopback:
    """Serve *handler* on 127.0.0.1 while in use as a context manager."""

    def __init__(self, handler: Callable[[Exchange], None]) -> None:
        self._handler = handler
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._stopping = False
        self.count = 0
        """Requests so far."""
        self.connections = 0
        """Connections so far."""
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(PATIENCE)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._sockets.append(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            received = b""
            while True:
                while b"\r\n\r\n" not in received:
                    try:
                        data = sock.recv(1 << 16)
                    except OSError:
                        return
                    if not data:
                        return
                    received += data
                head, _, received = received.partition(b"\r\n\r\n")
                with self._lock:
                    self.count += 1
                    exchange = Exchange(sock, self.count, head, received)
                self._handler(exchange)
                if not exchange.keep_alive:
                    return
                received = b""
