"""When no answer comes: the caller gets the library's own error, with what was done about it, under every client.

Whether the request may have been executed decides how often it is sent: a connection that never stood up is tried
three times, a request that went out and was never answered once more, and only where the policy allows it.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import h2.connection
import httpcore
import httpcore2
import pytest
import trustme

import gip_resilience as gr
from gip_resilience._httpx_kit import Kit, explain
from gip_resilience.gateway import (
    Close,
    EmptyReply,
    Error,
    FaultPlan,
    Garbage,
    Gateway,
    HalfHeaders,
    Ok,
    Raw,
    Reset,
    Stall,
)
from gip_resilience.httpx import KIT as HTTPX_KIT
from gip_resilience.httpx2 import KIT as HTTPX2_KIT
from gip_resilience.testing import FakeClock
from harness import CHAT
from matrix import Pair, chat_url, perform, raised, read_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.gateway import Reply
    from harness import Harness


CLOSE = {"connection": "close"}

SILENCES: dict[str, tuple[Reply, str]] = {
    "reset after the request": (Reset("request"), "connection_lost"),
    "closed after the request": (EmptyReply(), "connection_lost"),
    "closed after a part of the status line": (Raw("HTTP/1."), "connection_lost"),
    "reset inside the headers": (HalfHeaders("rst"), "connection_lost"),
    "not HTTP": (Garbage(), "connection_lost"),
    "another protocol": (Raw("SSH-2.0-OpenSSH_9.6\r\n"), "connection_lost"),
    "silence": (Stall(), "read_timeout"),
    "silence inside the headers": (HalfHeaders("stall"), "read_timeout"),
}
"""Ways not to answer a request that went out, and what they are called."""


@pytest.fixture(params=SILENCES.values(), ids=SILENCES)
def silence(request: pytest.FixtureRequest) -> tuple[Reply, str]:
    """Each of them in turn."""
    found: tuple[Reply, str] = request.param
    return found


def test_an_unanswered_request_is_sent_once_more(
    silence: tuple[Reply, str], clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """It may have been executed: two sends, then the client's own error, of its own type, with a note."""
    reply, code = silence
    options = read_timeout(clients.harness, 0.1)
    gateway.plan = FaultPlan.always(reply)
    theirs = raised(lambda: clients.bare.post(chat_url(gateway), **options))
    gateway.clear()

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        ours = raised(lambda: mounted.post(chat_url(gateway), **options))

    assert type(ours) is type(theirs)
    assert len(gateway.requests) == 2
    report = gr.report(ours)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == [code, code]
    assert report.maybe_executed
    assert (report.outcome, report.reason) == ("failure", "all 2 attempts used")
    assert [note for note in ours.__notes__ if note.startswith("gip_resilience: failure after 2 attempt(s)")]


def test_an_unanswered_request_that_is_answered_at_last(
    silence: tuple[Reply, str], clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """The good answer is returned, and its report says that the work may have been done twice."""
    reply, code = silence
    options = read_timeout(clients.harness, 0.4)
    gateway.plan = FaultPlan.script([reply])

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway), **options)

    assert answer.status == 200
    assert [(a.code, a.maybe_executed) for a in answer.report.attempts] == [(code, True), ("ok", False)]
    assert answer.report.maybe_executed


def test_on_ambiguous_fail(
    silence: tuple[Reply, str], clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """A policy can forbid to send again what may have been executed."""
    reply, _ = silence
    options = read_timeout(clients.harness, 0.1)
    gateway.plan = FaultPlan.always(reply)
    config = gr.Config(policies={"timeout": gr.Policy(on_ambiguous="fail")})

    with clients.mounted(gr.Resilience(config, clock=clock)) as mounted:
        error = raised(lambda: mounted.post(chat_url(gateway), **options))

    assert isinstance(error, own_errors(clients.harness))
    assert len(gateway.requests) == 1
    report = gr.report(error)
    assert report is not None
    assert report.reason == "the request may have been executed"


def test_on_ambiguous_fail_does_not_forbid_what_was_answered(
    clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """An error answer is no doubt: it is retried under that policy as ever."""
    gateway.plan = FaultPlan.script([Error("model_timeout")])
    config = gr.Config(policies={"timeout": gr.Policy(on_ambiguous="fail")})

    with clients.mounted(gr.Resilience(config, clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert (answer.status, len(gateway.requests)) == (200, 2)


def test_a_lost_connection_after_an_answer_costs_its_own_attempts(
    clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """A class of failures has attempts of its own: an overload, then two losses, is three sends and the error."""
    gateway.plan = FaultPlan.script([Error("model_overloaded"), Reset("request"), Reset("request"), Ok()])

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        error = raised(lambda: mounted.post(chat_url(gateway)))

    report = gr.report(error)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == [
        "model_overloaded",
        "connection_lost",
        "connection_lost",
    ]
    assert len(gateway.requests) == 3


def test_an_answer_after_a_lost_connection_is_returned(
    clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """The last word counts: an error answer that ends the call is returned although an exception came first."""
    gateway.plan = FaultPlan.script([Reset("request"), Error("invalid_request")])

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.status == 400
    assert [attempt.code for attempt in answer.report.attempts] == ["connection_lost", "invalid_request"]


@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object ByteStream")
@pytest.mark.filterwarnings("ignore:Async generator .*ByteStream.__aiter__:ResourceWarning")
@pytest.mark.parametrize("reply", [Reset("accept"), Close("accept")], ids=["reset", "closed"])
def test_a_connection_that_is_dropped_at_once(
    reply: Reply, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The error is the client's own, after two tries, or three where the connection never quite stood up.

    Which of the two it was depends on whether the client noticed before it wrote. Under trio the client's own
    generator of the request's body is left behind then, with us as without us.
    """
    gateway.plan = FaultPlan.always(reply)

    with harness.open(gr.Resilience(clock=clock), verify=False) as mounted:
        error = raised(lambda: mounted.post(chat_url(gateway)))

    assert gateway.requests == []
    assert isinstance(error, own_errors(harness))
    report = gr.report(error)
    assert report is not None
    assert len(report.attempts) == gateway.connections in {2, 3}
    codes = {attempt.code for attempt in report.attempts}
    assert codes <= {"connection_lost", "connect_error"}
    assert report.maybe_executed == ("connection_lost" in codes)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of loopback that is ours and does not listen; somebody of ours may listen on it later."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_connection_refused(clients: Pair, clock: FakeClock) -> None:
    """Nothing was sent: three tries, 0.1 s doubling, and not a word about anything having been executed."""
    brain = gr.Resilience(clock=clock, chance=lambda: 0.5)
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        theirs = raised(lambda: clients.bare.post(url))
        with clients.mounted(brain) as mounted:
            ours = raised(lambda: mounted.post(url))

    assert type(ours) is type(theirs)
    assert type(ours).__name__ == ("ConnectionError" if is_requests(clients) else "ConnectError")
    assert clock.slept == [0.05, 0.1]
    report = gr.report(ours)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["connect_error"] * 3
    assert not report.maybe_executed
    assert brain.metrics.snapshot().sent("connect_error") == 3


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port that takes no further connection: its queue is full and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                with suppress(BlockingIOError):
                    sock.connect(address)
            yield address[1]
        finally:
            for sock in waiting:
                sock.close()


def test_connect_timeout(clients: Pair, clock: FakeClock) -> None:
    """A connection that does not come up is tried three times; the caller's own timeout holds for each."""
    with full_backlog() as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        theirs = raised(lambda: clients.bare.post(url, timeout=0.05))
        with clients.mounted(gr.Resilience(clock=clock)) as mounted:
            ours = raised(lambda: mounted.post(url, timeout=0.05))

    assert type(ours) is type(theirs)
    assert type(ours).__name__ == "ConnectTimeout"
    report = gr.report(ours)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["connect_timeout"] * 3
    assert not report.maybe_executed


def test_a_gateway_that_comes_back(clients: Pair) -> None:
    """A restart shorter than the waits is not noticed: the clock brings the gateway up during the first pause."""
    with closed_port() as port:
        revived = Gateway(port=port)
        try:
            with clients.mounted(gr.Resilience(clock=_Meanwhile(revived.start))) as mounted:
                answer = mounted.post(f"http://127.0.0.1:{port}/v1/chat/completions")
        finally:
            revived.stop()

    assert answer.status == 200
    assert [attempt.code for attempt in answer.report.attempts] == ["connect_error", "ok"]


class _Meanwhile(FakeClock):
    """A clock during whose first pause something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self._happens = happens

    def sleep(self, seconds: float) -> None:
        """Pause, and let it happen."""
        if not self.slept:
            self._happens()
        super().sleep(seconds)


class _TlsServer:
    """A TLS server whose certificate nobody trusts; counts the handshakes that were tried."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.handshakes = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.handshakes += 1
            client.settimeout(5)
            # A client that refuses the certificate says so and leaves.
            with client, suppress(OSError), self._context.wrap_socket(client, server_side=True) as secured:
                secured.recv(1)

    def stop(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture(scope="module")
def tls() -> Iterator[_TlsServer]:
    """A server with a certificate of its own."""
    server = _TlsServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def suspicious() -> ssl.SSLContext:
    """Trusts nobody, and is quickly made."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def test_a_certificate_that_does_not_verify(
    harness: Harness, tls: _TlsServer, suspicious: ssl.SSLContext, clock: FakeClock
) -> None:
    """It will not verify in a second either: one try, and the client's own error."""
    url = f"https://127.0.0.1:{tls.port}/v1/chat/completions"
    options: dict[str, Any] = {} if harness.name == "requests" else {"verify": suspicious}
    brain = gr.Resilience(clock=clock)
    with harness.open(**options) as bare:
        theirs = raised(lambda: bare.post(url))
    tls.handshakes = 0

    with harness.open(brain, **options) as mounted:
        ours = raised(lambda: mounted.post(url))

    assert type(ours) is type(theirs)
    assert tls.handshakes == 1
    report = gr.report(ours)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["tls_error"]
    assert report.reason == "tls_error is not retried"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("ftp://127.0.0.1/file", {}),
        ("http://", {}),
        ("", {"headers": {"x-bad": "line\r\nbreak"}}),
    ],
    ids=["scheme", "no host", "header"],
)
def test_the_callers_own_mistakes_are_not_ours(
    url: str, options: dict[str, Any], clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """A request that cannot be sent at all raises what it raises bare, and nothing is tried again."""
    url = url or gateway.url
    theirs = raised(lambda: clients.bare.get(url, **options))
    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        ours = raised(lambda: mounted.get(url, **options))

    assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    assert clock.slept == []
    assert gateway.requests == []


def test_the_error_knows_its_request(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """``error.request`` is the caller's request, as without us."""
    gateway.plan = FaultPlan.always(Reset("request"))

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        request = _built(mounted, chat_url(gateway))
        error: Any = raised(lambda: perform(mounted, lambda: mounted.client.send(request)))

    assert error.request is request


@pytest.mark.parametrize("kit", [HTTPX_KIT, HTTPX2_KIT], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("use", "code"),
    [
        # An answer after a GOAWAY, which h2 does not accept: in one read, as of a server that is about to stop.
        (lambda http2: http2.receive_data(GOAWAY + HEADERS_FRAME), "protocol_error"),
        (lambda http2: http2.receive_data(b"\0\0\4\1\4\0\0\0\1\xff\xff\xff\xff"), "protocol_error"),
        (lambda http2: http2.send_headers(1, [("te", "gzip")]), "invalid_request_local"),
    ],
    ids=["answer after GOAWAY", "damaged header block", "forbidden header"],
)
def test_who_broke_http2(use: Callable[[Any], object], code: str, kit: Kit) -> None:
    """h2 has one error for both sides: what it says while it reads is the peer's doing, not the caller's."""
    library: Any = sys.modules[kit.transport_error.__module__.partition(".")[0]]
    http2 = h2.connection.H2Connection()
    http2.initiate_connection()
    http2.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
    broke = raised(lambda: use(http2))

    told = library.LocalProtocolError(str(broke))
    told.__cause__ = _of_httpcore(library, broke)
    fact = explain(told, kit)
    assert fact is not None
    assert fact.code == code


GOAWAY = b"\0\0\x08\x07\0\0\0\0\0" + b"\0\0\0\1" + b"\0\0\0\0"
HEADERS_FRAME = b"\0\0\1\1\5\0\0\0\1\x88"


def _of_httpcore(library: Any, cause: BaseException) -> BaseException:
    """How the pool below hands it on: as an argument."""
    core: Any = httpcore if library.__name__ == "httpx" else httpcore2
    error: BaseException = core.LocalProtocolError(cause)
    return error


@pytest.mark.parametrize("kind", ["circuit", "gate"])
def test_refusals_are_kin_of_the_clients_errors(
    kind: str, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Nothing is sent while the circuit is open or the limit too far away, and existing handlers catch it."""
    brain = gr.Resilience(clock=clock)
    circuit, gate = Error("model_unavailable", retry_after=7), Error("rate_limit_exceeded", retry_after=500)
    gateway.plan = FaultPlan.always(circuit if kind == "circuit" else gate)

    with clients.mounted(brain) as mounted:
        mounted.post(chat_url(gateway))
        gateway.clear()
        error: Any = raised(lambda: mounted.post(chat_url(gateway)))

    assert gateway.requests == []
    assert isinstance(error, gr.CircuitOpenError if kind == "circuit" else gr.RateLimitedError)
    assert isinstance(error, own_errors(clients.harness))
    assert error.retry_after == pytest.approx(7 if kind == "circuit" else 500, rel=0.25)
    report = gr.report(error)
    assert report is not None
    assert (report.outcome, report.attempts) == ("refused", ())


def test_errors_of_an_inner_layer_pass_through(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """What is not the client's word for a failed exchange is not touched, retried or counted as a failure."""
    if is_requests(clients):
        adapter = clients.session.client.adapters["http://"]
    brain = gr.Resilience(clock=clock)
    problem = KeyError("a fault of the transport's own")

    with clients.mounted(brain) as mounted:
        inner = (
            mounted.client.adapters["http://"].inner
            if is_requests(clients)
            else mounted.client._transport.inner
        )
        name = (
            "send"
            if is_requests(clients)
            else "handle_request"
            if clients.harness.colour == "sync"
            else "handle_async_request"
        )

        def fail(*_: Any, **__: Any) -> Any:
            raise problem

        setattr(inner, name, fail)
        try:
            error = raised(lambda: mounted.post(chat_url(gateway)))
        finally:
            delattr(inner, name)

    assert error is problem
    assert not getattr(error, "__notes__", [])
    assert brain.metrics.snapshot().total("cancelled") == 1
    if is_requests(clients):
        assert clients.session.client.adapters["http://"] is adapter


def is_requests(clients: Pair) -> bool:
    """Whether these are sessions of requests."""
    return clients.harness.name == "requests"


def own_errors(harness: Harness) -> type[Exception]:
    """The base of what a transport of this library raises."""
    errors = harness.errors
    found: type[Exception] = errors.RequestException if harness.name == "requests" else errors.TransportError
    return found


def _built(session: Any, url: str) -> Any:
    """A request that was made and not sent."""
    if session.harness.name != "requests":
        return session.client.build_request("POST", url, json=CHAT)
    return session.client.prepare_request(session.harness.library.Request("POST", url, json=CHAT))
