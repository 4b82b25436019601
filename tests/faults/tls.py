"""TLS that fails: in the handshake, by the certificate, and at the end."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, Any

import trustme

from faults.connecting import CLOSING, through
from faults.http1 import HALF, TYPED, sized
from faults.scenes import BRIEF, FAIR, GOOD, HELLO, PATIENT, Scene, good, listen, scene
from live import EXACT
from loopback import PATIENCE, Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Harness
    from loopback import Exchange

pause = Event().wait

ALERT = b"\x15\x03\x03\x00\x02\x02"
"""A fatal alert in plain text, up to its number."""


@cache
def authority() -> trustme.CA:
    """Who signs the certificates that are trusted."""
    return trustme.CA()


@cache
def context(kind: str = "good", alpn: str = "") -> ssl.SSLContext:
    """A server's context, with a good certificate or with one that is wrong in some way."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signer = trustme.CA() if kind == "stranger" else authority()
    host = "elsewhere.invalid" if kind == "wrong host" else "127.0.0.1"
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    options = {"not_before": past, "not_after": past + dt.timedelta(days=1)} if kind == "expired" else {}
    signer.issue_cert(host, **options).configure_cert(made)
    if kind == "asks back":
        made.verify_mode = ssl.CERT_REQUIRED
        made.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 the client hears of it after its handshake
        signer.configure_trust(made)
    if alpn:
        made.set_alpn_protocols([alpn])
    return made


@cache
def trusting() -> ssl.SSLContext:
    """What a client trusts."""
    made = ssl.create_default_context()
    authority().configure_trust(made)
    return made


@contextmanager
def trust(harness: Harness) -> Iterator[dict[str, Any]]:
    """The options of a client that trusts `authority`."""
    if harness.name != "requests":
        yield {"verify": trusting()}
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ca.pem"
        authority().cert_pem.write_to_path(path)
        yield {"verify": str(path)}


class Secure(Loopback):
    """Loopback over TLS, or whatever *greet* makes of a connection."""

    def __init__(
        self, handler: Callable[[Exchange], None], greet: Callable[[socket.socket, int], ssl.SSLSocket | None]
    ) -> None:
        super().__init__(handler)
        self._greet = greet
        self._secured: list[ssl.SSLSocket] = []
        self.url = self.url.replace("http:", "https:")
        self.greeted = 0

    def _serve(self, sock: socket.socket) -> None:
        self.greeted += 1
        sock.settimeout(PATIENCE)
        with sock, suppress(OSError):
            secured = self._greet(sock, self.greeted)
            if secured is not None:
                self._secured.append(secured)
                with secured:
                    super()._serve(secured)

    def __exit__(self, *exc: object) -> None:
        for one in self._secured:
            with suppress(OSError):  # the socket's own: that of TLS would wait for the client
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        super().__exit__(*exc)


def wrap(sock: socket.socket, kind: str = "good") -> ssl.SSLSocket:
    """Shake hands."""
    return context(kind).wrap_socket(sock, server_side=True)


def greets(name: str, bad: Callable[[socket.socket], ssl.SSLSocket | None], *, silent: bool = False) -> None:
    """Register a fault of the handshake."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        def greet(sock: socket.socket, number: int) -> ssl.SSLSocket | None:
            return wrap(sock) if act == "once" and number > 1 else bad(sock)

        with trust(harness) as client, Secure(good, greet) as peer:
            brief = FAIR if act == "once" else 2 * BRIEF
            timeout = (brief, brief) if silent else (PATIENT, PATIENT)
            yield Scene(peer.url, lambda: peer.greeted, client=client, timeout=timeout)


def hello(sock: socket.socket) -> None:
    """Read the client's first words."""
    sock.recv(65536)


def _says(*parts: bytes) -> Callable[[socket.socket], None]:
    def bad(sock: socket.socket) -> None:
        hello(sock)
        sock.sendall(b"".join(parts))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    return bad


def _stall(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def _reset(sock: socket.socket) -> None:
    sock.recv(1)  # the rest stays unread, so the close is a reset


for _kind in ("expired", "wrong host", "stranger"):
    greets(f"certificate-{_kind.replace(' ', '-')}", lambda sock, kind=_kind: wrap(sock, kind))  # type: ignore[misc]  # a default is no argument
greets("client-certificate-demanded", lambda sock: wrap(sock, "asks back"))
greets("handshake-silence", _stall, silent=True)
greets("handshake-fin", _says())
greets("handshake-rst", _reset)
greets("handshake-alert", _says(ALERT + b"\x28"))
greets("protocol-version-alert", _says(ALERT + b"\x46"))
greets("plain-http-on-tls-port", _says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"))
greets("garbage-on-tls-port", _says(b"\x00" * 64))


def ends(name: str, *parts: bytes, **more: Any) -> None:
    """Register a peer whose connection ends without a word of TLS after these bytes."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        def serve(exchange: Exchange) -> None:
            if act == "once" and exchange.number > 1:
                (more.get("well") or good)(exchange)
                return
            exchange.read_body()
            exchange.send(*parts)
            # The socket underneath is closed, with no close_notify.
            raw = socket.socket(fileno=exchange.sock.detach())
            raw.shutdown(socket.SHUT_WR)
            raw.close()
            exchange.close()

        chosen = {key: value for key, value in more.items() if key != "well"}
        with trust(harness) as client, Secure(serve, lambda sock, number: wrap(sock)) as peer:
            yield Scene(peer.url + "/v1/chat/completions", lambda: peer.count, client=client, **chosen)


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def stream_well(exchange: Exchange) -> None:
    """The right stream."""
    exchange.read_body()
    exchange.send(EVENTS, HELLO)
    exchange.close()


ends("no-close-notify-length", sized(HALF, len(GOOD)))
ends("no-close-notify-to-the-end", TYPED + b"connection: close\r\n\r\n" + HALF)
ends(
    "no-close-notify-stream",
    EVENTS + HELLO[:150],
    well=stream_well,
    play=listen(EXACT),
    right=lambda seen: seen.body == HELLO,
)


# ---- tunnels ---------------------------------------------------------------------------------------------------


def tunnel(name: str, refusal: bytes) -> None:
    """Register a proxy that does not make the tunnel it is asked for, at first or always."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        def serve(exchange: Exchange) -> None:
            exchange.close()
            if act == "always" or exchange.number == 1:
                exchange.send(refusal)
                return
            exchange.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            with suppress(OSError), wrap(exchange.sock) as secured:
                secured.settimeout(PATIENCE)
                if secured.recv(65536):
                    secured.sendall(sized(GOOD, head=TYPED + b"connection: close\r\n"))
                    secured.unwrap()

        with trust(harness) as client, Loopback(serve) as proxy:
            client |= through(harness, proxy.url)
            yield Scene("https://127.0.0.1:9/", lambda: proxy.count, client=client)


tunnel("proxy-refuses-tunnel", b"HTTP/1.1 503 No\r\n" + CLOSING)
tunnel("proxy-hangs-up-on-tunnel", b"")
