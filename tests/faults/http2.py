"""HTTP/2 that breaks: streams refused and reset, connections given up, wrong frames, windows that stay shut."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from faults.http1 import CUT, DRIP, HALF, twice
from faults.scenes import BEGUN, BRIEF, FAIR, GOOD, PATIENT, Outcome, Scene, ask, good, scene
from faults.tls import Secure, context, trust
from loopback import Loopback

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from harness import Harness, Session

pause = threading.Event().wait

HEADERS = [(":status", "200"), ("content-type", "application/json")]


class Talk:
    """One connection, as its server sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        # What is wrong on purpose must not be refused by our own side.
        config = h2.config.H2Configuration(client_side=False, validate_outbound_headers=False)
        self.http2 = h2.connection.H2Connection(config)
        self.http2.initiate_connection()
        self._waiting: list[int] = []

    def flush(self) -> None:
        """Send what there is to send."""
        self.sock.sendall(self.http2.data_to_send())

    def request(self) -> int:
        """Wait for the next whole request; its stream, or 0 when the client has left."""
        while not self._waiting:
            data = self.sock.recv(65536)
            if not data:
                return 0
            for event in self.http2.receive_data(data):
                if isinstance(event, h2.events.StreamEnded) and event.stream_id:
                    self._waiting.append(event.stream_id)
                elif isinstance(event, h2.events.DataReceived) and event.stream_id:
                    self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.flush()
        return self._waiting.pop(0)

    def answer(self, stream: int, body: bytes = GOOD, *, end: bool = True, length: int | None = None) -> None:
        """Answer a request, or begin to."""
        more = [] if length is None else [("content-length", str(length))]
        self.http2.send_headers(stream, HEADERS + more)
        if body or end:
            self.http2.send_data(stream, body, end_stream=end)
        self.flush()

    def reset(self, stream: int, code: ErrorCodes) -> None:
        """Reset a stream."""
        self.http2.reset_stream(stream, code)
        self.flush()

    def go_away(self, last: int, code: ErrorCodes) -> None:
        """Give the connection up."""
        self.http2.close_connection(code, last_stream_id=last)
        self.flush()

    def linger(self) -> None:
        """Say nothing more until the client leaves."""
        while self.sock.recv(65536):
            pass


def conversation(
    act: str, peer: list[int], bad: Callable[[Talk, int], None]
) -> Callable[[socket.socket], None]:
    """Serve a connection: the first request of all badly, or every one."""

    def serve(sock: socket.socket) -> None:
        with suppress(OSError, h2.exceptions.ProtocolError):
            talk = Talk(sock)
            talk.flush()
            while stream := talk.request():
                peer.append(stream)
                if act == "once" and len(peer) > 1:
                    talk.answer(stream)
                else:
                    bad(talk, stream)

    return serve


class Plain(Loopback):
    """Loopback that speaks HTTP/2 at once."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__(good)
        self._talk = serve

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            self._talk(sock)


def http2(
    name: str,
    *,
    silent: float = 0.0,
    secure: bool = False,
    **more: Any,
) -> Callable[[Callable[[Talk, int], None]], None]:
    """Register a fault of an HTTP/2 peer: what it does with a request."""

    def register(bad: Callable[[Talk, int], None]) -> None:
        @scene(name)
        def _(act: str, harness: Harness) -> Iterator[Scene]:
            requests: list[int] = []
            serve = conversation(act, requests, bad)
            options = dict(more)
            if silent:
                options["timeout"] = (PATIENT, FAIR if act == "once" else silent)
            if secure:

                def greet(sock: socket.socket, number: int) -> None:
                    with context("good", "h2").wrap_socket(sock, server_side=True) as secured:
                        serve(secured)

                with trust(harness) as client, Secure(good, greet) as peer:
                    yield Scene(peer.url, lambda: len(requests), client=client | {"http2": True}, **options)
            else:
                with Plain(serve) as plain:
                    client = {"http1": False, "http2": True}
                    yield Scene(plain.url, lambda: len(requests), client=client, **options)

    return register


# ---- streams ---------------------------------------------------------------------------------------------------


@http2("h2-refused-stream")
def _(talk: Talk, stream: int) -> None:
    talk.reset(stream, ErrorCodes.REFUSED_STREAM)


@http2("h2-refused-stream-tls", secure=True)
def _(talk: Talk, stream: int) -> None:
    talk.reset(stream, ErrorCodes.REFUSED_STREAM)


@http2("h2-internal-error")
def _(talk: Talk, stream: int) -> None:
    talk.reset(stream, ErrorCodes.INTERNAL_ERROR)


@http2("h2-cancel")
def _(talk: Talk, stream: int) -> None:
    talk.reset(stream, ErrorCodes.CANCEL)


@http2("h2-http11-required")
def _(talk: Talk, stream: int) -> None:
    talk.reset(stream, ErrorCodes.HTTP_1_1_REQUIRED)


@http2("h2-reset-mid-body")
def _(talk: Talk, stream: int) -> None:
    talk.answer(stream, HALF, end=False)
    pause(DRIP)  # the half is read before the reset
    talk.reset(stream, ErrorCodes.CANCEL)


@http2("h2-silent-stream", silent=BRIEF)
def _(talk: Talk, stream: int) -> None:
    pass


@http2("h2-silent-body", silent=BEGUN)
def _(talk: Talk, stream: int) -> None:
    talk.answer(stream, HALF, end=False)


@http2("h2-length-mismatch")
def _(talk: Talk, stream: int) -> None:
    talk.answer(stream, HALF, length=len(GOOD))


@http2("h2-body-cut-upstream")
def _(talk: Talk, stream: int) -> None:
    talk.answer(stream, HALF)


# ---- the connection --------------------------------------------------------------------------------------------


@http2("h2-goaway-unprocessed")
def _(talk: Talk, stream: int) -> None:
    talk.go_away(0, ErrorCodes.NO_ERROR)


@http2("h2-goaway-enhance-your-calm")
def _(talk: Talk, stream: int) -> None:
    talk.go_away(0, ErrorCodes.ENHANCE_YOUR_CALM)


@http2("h2-goaway-processed")
def _(talk: Talk, stream: int) -> None:
    talk.go_away(stream, ErrorCodes.INTERNAL_ERROR)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@http2("h2-goaway-then-answer")
def _(talk: Talk, stream: int) -> None:
    """As a server that is about to stop does it: this one is still served, in one breath."""
    talk.http2.send_headers(stream, HEADERS)
    talk.http2.send_data(stream, GOOD, end_stream=True)
    talk.sock.sendall(_frame(7, 0, 0, stream.to_bytes(4, "big") + bytes(4)) + talk.http2.data_to_send())


@http2("h2-goaway-mid-body")
def _(talk: Talk, stream: int) -> None:
    talk.answer(stream, HALF, end=False)
    pause(DRIP)
    talk.go_away(stream, ErrorCodes.NO_ERROR)
    talk.sock.close()


@http2("h2-fin-after-request")
def _(talk: Talk, stream: int) -> None:
    talk.sock.shutdown(1)
    talk.linger()


@http2("h2-malformed-frame")
def _(talk: Talk, stream: int) -> None:
    talk.sock.sendall(_frame(1, 4, 2, b"\xff" * 20))
    talk.linger()


@http2("h2-garbage", silent=BRIEF)
def _(talk: Talk, stream: int) -> None:
    talk.sock.sendall(b"\xff" * 64)
    talk.linger()


@http2("h2-http1-answer")
def _(talk: Talk, stream: int) -> None:
    talk.sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    talk.sock.shutdown(1)
    talk.linger()


@http2("h2-data-before-headers")
def _(talk: Talk, stream: int) -> None:
    talk.sock.sendall(_frame(0, 1, stream, GOOD))
    talk.linger()


@http2("h2-push-promise")
def _(talk: Talk, stream: int) -> None:
    talk.sock.sendall(_frame(5, 4, stream, (2).to_bytes(4, "big") + b"\x82\x84\x86"))
    talk.linger()


@http2("h2-headers-too-large")
def _(talk: Talk, stream: int) -> None:
    talk.http2.send_headers(stream, [*HEADERS, *((f"x-{n}", "y" * 8000) for n in range(10))])
    talk.http2.send_data(stream, GOOD, end_stream=True)
    talk.flush()


@http2("h2-ping-flood")
def _(talk: Talk, stream: int) -> None:
    talk.sock.sendall(_frame(6, 0, 0, b"01234567") * 500)
    talk.answer(stream)


@http2("h2-settings-flood")
def _(talk: Talk, stream: int) -> None:
    talk.sock.sendall(_frame(4, 0, 0, b"") * 500)
    talk.answer(stream)


@http2("h2-pings-without-end", **CUT)
def _(talk: Talk, stream: int) -> None:
    for _ in range(200):
        talk.http2.ping(b"01234567")
        talk.flush()
        pause(DRIP)


@http2("h2-body-drips", **CUT)
def _(talk: Talk, stream: int) -> None:
    talk.answer(stream, b" ", end=False)
    for _ in range(200):
        talk.http2.send_data(stream, b" ")
        talk.flush()
        pause(DRIP)


def second(name: str, setting: SettingCodes) -> None:
    """Register a setting of 0 that comes with the first answer; what becomes of the next request."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        requests: list[int] = []

        def serve(sock: socket.socket) -> None:
            with suppress(OSError, h2.exceptions.ProtocolError):
                talk = Talk(sock)
                talk.flush()
                while stream := talk.request():
                    if not requests or act == "always":
                        talk.http2.update_settings({setting: 0})
                    requests.append(stream)
                    talk.answer(stream)

        with Plain(serve) as peer:
            brief = FAIR if act == "once" else BRIEF
            yield Scene(
                peer.url,
                client={"http1": False, "http2": True},
                play=twice,
                timeout=(PATIENT, brief),
            )


second("h2-window-shut", SettingCodes.INITIAL_WINDOW_SIZE)
second("h2-no-streams", SettingCodes.MAX_CONCURRENT_STREAMS)


@http2("h2-forbidden-header", sending={"headers": {"te": "gzip"}})
def _(talk: Talk, stream: int) -> None:
    """Not even reached: the caller's own mistake."""
    talk.answer(stream)


@scene("h2-siblings-die")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The connection breaks under several requests at once; each is its own call's to mend."""
    requests: list[int] = []

    def serve(sock: socket.socket) -> None:
        with suppress(OSError, h2.exceptions.ProtocolError):
            talk = Talk(sock)
            talk.flush()
            while stream := talk.request():
                requests.append(stream)
                if act == "always" or len(requests) <= SIBLINGS:
                    if len(requests) % SIBLINGS == 0:
                        return
                else:
                    talk.answer(stream)

    def together(session: Session, at: Scene) -> Outcome:
        outcomes: list[Outcome] = []
        threads = [
            threading.Thread(target=lambda: outcomes.append(ask(session, at))) for _ in range(SIBLINGS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return next((one for one in outcomes if one.error), outcomes[0])

    with Plain(serve) as peer:
        yield Scene(peer.url, client={"http1": False, "http2": True}, play=together, together=True)


SIBLINGS = 3
