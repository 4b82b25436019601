"""Names that do not resolve, ports that do not answer, proxies that refuse, peers that stand still, full pools."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from faults.scenes import (
    BRIEF,
    FAIR,
    GOOD,
    JSON,
    PATIENT,
    Meanwhile,
    Outcome,
    Scene,
    ask,
    exchanges,
    good,
    scene,
)
from gip_resilience.testing import FakeClock
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Harness, Session
    from loopback import Exchange

HOST = "gateway.invalid"
"""A name that no resolver knows; who asks for it is told by the test."""

DEAD = "127.0.0.3"
"""An address of loopback at which nobody listens."""


@contextmanager
def resolving(answer: Callable[[int], list[str]]) -> Iterator[list[int]]:
    """Answer questions for `HOST`, by their number; no addresses is "unknown"."""
    real = socket.getaddrinfo
    asked: list[int] = []

    def lookup(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host not in {HOST, HOST.encode()}:
            return real(host, port, *args, **options)
        numeric = int(args[3] if len(args) > 3 else options.get("flags", 0)) & socket.AI_NUMERICHOST
        if numeric:  # trio's first try
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        asked.append(len(asked) + 1)
        found = answer(len(asked))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in one else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (one, int(port), 0, 0) if ":" in one else (one, int(port)),
            )
            for one in found
        ]

    socket.getaddrinfo = lookup
    try:
        yield asked
    finally:
        socket.getaddrinfo = real


def named(name: str, answer: Callable[[str, int], list[str]], **more: Any) -> None:
    """Register a fault of the name: what is found for it depends on the act and on how often it was asked."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        with Loopback(good) as peer, resolving(lambda number: answer(act, number)):
            port = peer.url.rpartition(":")[2]
            yield Scene(f"http://{HOST}:{port}/v1/chat/completions", **more)


named("name-unknown", lambda act, number: ["127.0.0.1"] if act == "once" and number > 1 else [])
named("name-moved", lambda act, number: ["127.0.0.1"] if act == "once" and number > 1 else [DEAD])
named("first-address-dead", lambda act, number: [DEAD, "127.0.0.1"])
named("ipv6-dead", lambda act, number: ["::1", "127.0.0.1"])


@scene("name-slow")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The resolver takes longer than the client would wait for a connection."""

    def answer(number: int) -> list[str]:
        if act == "always" or number == 1:
            threading.Event().wait(0.3)
        return ["127.0.0.1"]

    with Loopback(good) as peer, resolving(answer):
        port = peer.url.rpartition(":")[2]
        yield Scene(f"http://{HOST}:{port}/", timeout=(0.15, PATIENT))


@scene("refused")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Nobody listens; in the first pause somebody begins to."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        peers: list[Answering] = []
        clock = Meanwhile(lambda: peers.append(Answering(sock))) if act == "once" else FakeClock()
        try:
            yield Scene(f"http://127.0.0.1:{sock.getsockname()[1]}/", clock=clock)
        finally:
            for peer in peers:
                peer.close()


class Answering:
    """Listens at a socket that is bound already, and answers one connection well."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._sock.accept()
                with client, suppress(OSError):
                    client.settimeout(PATIENT)
                    if client.recv(65536):
                        client.sendall(
                            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n" % len(GOOD)
                        )
                        client.sendall(JSON.encode() + b"\r\n\r\n" + GOOD)

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(PATIENT)


@scene("backlog-full")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """A SYN is not answered: the line of those who wait is full. In the first pause the line is served."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        peers: list[Answering] = []

        def heal() -> None:
            for sock in waiting:
                sock.close()
            peers.append(Answering(listener))

        try:
            for sock in waiting:
                sock.setblocking(False)
                with suppress(BlockingIOError):
                    sock.connect(listener.getsockname())
            clock = Meanwhile(heal) if act == "once" else FakeClock()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            yield Scene(url, clock=clock, timeout=(FAIR if act == "once" else BRIEF, PATIENT))
        finally:
            for sock in waiting:
                sock.close()
            for peer in peers:
                peer.close()


@exchanges("never-accepted", silent=BRIEF)
def _(exchange: Exchange) -> None:
    """The connection stands, and nobody is at the other end of it."""
    exchange.wait_for_end()


@scene("rst-on-first-byte")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The peer resets as soon as it is spoken to, and reads nothing."""

    class Rude(Loopback):
        def _serve(self, sock: socket.socket) -> None:
            if act == "once" and self.connections > 1:
                super()._serve(sock)
                return
            with sock, suppress(OSError):
                # A socket that is closed with something unread in it is reset.
                while b"hello" not in sock.recv(65536, socket.MSG_PEEK):
                    threading.Event().wait(0.001)

    with Rude(good) as peer:
        yield Scene(peer.url, lambda: peer.connections)


FROZEN = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    with client:
        data = b""
        while b"}" not in data:
            data += client.recv(65536)
        client.sendall(%r)
"""


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A peer that is a process, and where it is."""
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n%b\r\ncontent-length: %d\r\n\r\n%b" % (
        JSON.encode(),
        len(GOOD),
        GOOD,
    )
    child = subprocess.Popen([sys.executable, "-ISc", FROZEN % answer], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield child, f"http://127.0.0.1:{child.stdout.readline().strip()}/"
    finally:
        child.kill()
        child.communicate()


@scene("peer-frozen")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """SIGSTOP: the system takes the connection, nobody reads. In the first pause it goes on."""
    with process() as (child, url):
        os.kill(child.pid, signal.SIGSTOP)
        clock = Meanwhile(lambda: os.kill(child.pid, signal.SIGCONT)) if act == "once" else FakeClock()
        yield Scene(url, clock=clock, timeout=(PATIENT, FAIR if act == "once" else BRIEF))


@scene("peer-killed")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """SIGKILL before the call: its port is closed by the system."""
    with process() as (child, url):
        child.kill()
        child.wait()
        yield Scene(url)


@scene("pool-exhausted")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The one connection that is allowed is in use."""
    hung = threading.Event()

    def serve(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.read_body()
            hung.wait(PATIENT)
        good(exchange)

    def play(session: Session, at: Scene) -> Outcome:
        threads = [threading.Thread(target=ask, args=(session, at))]
        threads[0].start()
        while not peer.count:
            threading.Event().wait(0.001)
        outcome = _with_pool_timeout(session, at)
        hung.set()
        threads[0].join()
        return outcome

    options = {} if harness.name == "requests" else {"limits": harness.library.Limits(max_connections=1)}
    with Loopback(serve) as peer:
        yield Scene(peer.url, lambda: peer.count, client=options, play=play, together=True)


def _with_pool_timeout(session: Session, at: Scene) -> Outcome:
    if session.harness.name == "requests":
        return ask(session, at)
    try:
        answer = session.post(at.url, timeout=session.harness.library.Timeout(PATIENT, pool=BRIEF))
    except Exception as error:
        return Outcome(error=error)
    return Outcome(answer.status, answer.content)


# ---- proxies ---------------------------------------------------------------------------------------------------


def through(harness: Harness, proxy: str) -> dict[str, Any]:
    """The options of a client that goes through a proxy."""
    return {"proxies": {"http": proxy, "https": proxy}} if harness.name == "requests" else {"proxy": proxy}


@scene("proxy-refused")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Nobody listens where the proxy should be."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{sock.getsockname()[1]}"
        yield Scene("http://gateway.invalid/", client=through(harness, proxy))


def proxied(name: str, refusal: bytes, url: str) -> None:
    """Register a proxy that answers by itself, at first or always."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        def serve(exchange: Exchange) -> None:
            if act == "once" and exchange.number > 1:
                good(exchange)
                return
            exchange.read_body()
            exchange.send(refusal)
            exchange.close()

        with Loopback(serve) as proxy:
            yield Scene(url, lambda: proxy.count, client=through(harness, proxy.url))


CLOSING = b"content-length: 0\r\nconnection: close\r\n\r\n"
proxied("proxy-502", b"HTTP/1.1 502 Bad Gateway\r\n" + CLOSING, "http://gateway.invalid/")
proxied("proxy-407", b"HTTP/1.1 407 Authenticate\r\n" + CLOSING, "http://gateway.invalid/")
