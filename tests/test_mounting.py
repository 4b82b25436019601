"""`mount` and `unmount`: what a client was made with stays, and everything it sends goes through us."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anthropic
import h2.config
import h2.connection
import h2.events
import httpx
import httpx2
import openai
import pytest
import requests
import trustme
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPDigestAuth

import gip_resilience as gr
import gip_resilience.httpx
import gip_resilience.httpx2
import gip_resilience.requests
from gip_resilience.gateway import Error, FaultPlan, Gateway, Gzip, HalfBody, Ok, Redirect, SlowBody, Status
from harness import CHAT, HARNESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.testing import FakeClock
    from harness import Harness

FAMILY = [harness for harness in HARNESSES if harness.name != "requests"]
ADAPTERS: dict[Any, Any] = {httpx: gip_resilience.httpx, httpx2: gip_resilience.httpx2}
FAIL_ONCE = FaultPlan.script([Status(503), Ok()])

family = pytest.mark.parametrize("harness", FAMILY, ids=repr)
both = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@pytest.fixture
def brain(clock: FakeClock) -> gr.Resilience:
    """A brain of its own for every test, on a clock that costs no time."""
    return gr.Resilience(clock=clock)


def transports(client: Any) -> list[Any]:
    """What a client of any library sends by, in the order in which it is asked."""
    if isinstance(client, requests.Session):
        return list(client.adapters.values())
    return [client._transport, *client._mounts.values()]


def is_ours(transport: Any) -> bool:
    """Whether a transport or adapter is one of ours."""
    return type(transport).__module__.startswith("gip_resilience")


def mock(harness: Harness, handler: Callable[[Any], Any]) -> Any:
    """The library's own mock transport, which takes a handler of its client's colour."""
    if harness.colour == "sync":
        return harness.library.MockTransport(handler)

    async def answer(request: Any) -> Any:
        return handler(request)

    return harness.library.MockTransport(answer)


# ---- mounting, twice, and taking it off -----------------------------------------------------------------------


def test_every_transport_is_wrapped_and_put_back(harness: Harness, brain: gr.Resilience) -> None:
    """`mount` wraps what is there, in its place; `unmount` puts the very objects back."""
    with harness.open() as session:
        before = transports(session.client)

        assert gr.mount(session.client, brain) is brain
        during = transports(session.client)
        gr.unmount(session.client)

        assert [transport.inner for transport in during] == before
        assert all(transport.resilience is brain for transport in during)
        assert all(a is b for a, b in zip(transports(session.client), before, strict=True))


def test_mounting_twice_is_mounting_once(harness: Harness, brain: gr.Resilience) -> None:
    """A second `mount` returns the brain that is there and wraps nothing again."""
    with harness.open(brain) as session:
        before = transports(session.client)

        again = gr.mount(session.client)
        same = gr.mount(session.client, brain)

        assert again is same is brain
        assert transports(session.client) == before
        assert not any(is_ours(transport.inner) for transport in before)


def test_another_brain_is_refused(harness: Harness, brain: gr.Resilience) -> None:
    """Two brains on one client would both retry: the second is refused, the first stays."""
    with harness.open(brain) as session:
        with pytest.raises(ValueError, match="unmount it first"):
            gr.mount(session.client, gr.Resilience())

        assert all(transport.resilience is brain for transport in transports(session.client))


def test_unmounting_what_is_not_mounted_does_nothing(harness: Harness) -> None:
    """`unmount` of a bare client leaves it as it is."""
    with harness.open() as session:
        before = transports(session.client)

        gr.unmount(session.client)

        assert transports(session.client) == before


def test_after_unmounting_it_can_be_mounted_anew(harness: Harness, gateway: Gateway) -> None:
    """A client that was mounted and unmounted is bare again, and takes another brain."""
    gateway.plan = FaultPlan.always(Status(503))
    with harness.open(gr.Resilience()) as session:
        gr.unmount(session.client)
        answer = session.get(gateway.base_url + "/models")

        assert (answer.status, len(gateway.requests)) == (503, 1)
        assert gr.report(answer.response) is None
        assert gr.mount(session.client, other := gr.Resilience()) is other


def test_one_brain_serves_several_clients(brain: gr.Resilience, gateway: Gateway) -> None:
    """Clients that share a brain share its circuits: what one learns the other six are spared."""
    gateway.plan = FaultPlan.always(Error("model_unavailable"))
    url = gateway.base_url + "/chat/completions"
    for number, harness in enumerate(HARNESSES):
        with harness.open(brain) as session:
            if number == 0:
                assert session.post(url).status == 502
                continue
            with pytest.raises(gr.CircuitOpenError):
                session.post(url)

    assert len(gateway.requests) == 1
    assert brain.metrics.snapshot().total("refused") == 6


def test_what_is_added_later_is_covered_by_mounting_again(brain: gr.Resilience) -> None:
    """An adapter mounted on the session afterwards is bare until `mount` is called again."""
    session = requests.Session()
    gr.mount(session, brain)
    late = HTTPAdapter()
    session.mount("https://late.invalid", late)

    gr.mount(session)

    assert session.adapters["https://late.invalid"].inner is late
    assert [is_ours(adapter.inner) for adapter in session.adapters.values()] == [False] * 3


def test_closing_and_entering_reach_the_transport_once(harness: Harness, brain: gr.Resilience) -> None:
    """A client used as a context manager, and closed, treats its transport mounted as it does bare."""

    def lives(*, mounted: bool) -> list[str]:
        log: list[str] = []
        with harness.open() as session:
            inner = _lifecycle_recorder(harness, log)
            if harness.name == "requests":
                session.client.mount("https://", inner)
                del session.client.adapters["http://"]
            else:
                session.client._transport = inner
            if mounted:
                gr.mount(session.client, brain)
            if harness.colour == "sync":
                with session.client:
                    pass
            else:
                session.portal.call(_enter_and_exit, session.client)
        return log

    assert lives(mounted=True) == lives(mounted=False) != []


async def _enter_and_exit(client: Any) -> None:
    async with client:
        pass


def _lifecycle_recorder(harness: Harness, log: list[str]) -> Any:
    """A transport that writes down how it is entered, left and closed."""
    if harness.name == "requests":

        class Adapter(HTTPAdapter):
            def close(self) -> None:
                log.append("close")
                super().close()

        return Adapter()

    if harness.colour == "sync":

        class Transport(harness.library.BaseTransport):
            def __enter__(self) -> Any:
                log.append("enter")
                return self

            def __exit__(self, *exc: object) -> None:
                log.append("exit")

            def close(self) -> None:
                log.append("close")

        return Transport()

    class AsyncTransport(harness.library.AsyncBaseTransport):
        async def __aenter__(self) -> Any:
            log.append("enter")
            return self

        async def __aexit__(self, *exc: object) -> None:
            log.append("exit")

        async def aclose(self) -> None:
            log.append("close")

    return AsyncTransport()


# ---- what a client was made with stays ------------------------------------------------------------------------


def test_the_proxies_of_the_environment_stay(
    harness: Harness, brain: gr.Resilience, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that goes through the environment's proxy still does, and its requests there are retried."""
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", gateway.url)
    gateway.plan = FAIL_ONCE

    with harness.open(brain) as session:
        answer = session.get("http://upstream.invalid/v1/models")

    assert answer.status == 200
    assert [attempt.code for attempt in answer.report.attempts] == ["http_503", "ok"]
    assert answer.report.host == "upstream.invalid"
    assert [seen.header("host") for seen in gateway.requests] == ["upstream.invalid"] * 2


@family
def test_no_proxy_falls_back_to_the_clients_own_transport(
    harness: Harness, brain: gr.Resilience, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment says "not by the proxy", the request goes straight, and through us all the same."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    gateway.plan = FAIL_ONCE

    with harness.open(brain) as session:
        answer = session.get(gateway.base_url + "/models")

    assert (answer.status, len(answer.report.attempts)) == (200, 2)


@family
def test_transports_mounted_by_the_user_stay(harness: Harness, brain: gr.Resilience) -> None:
    """A transport given for some URLs still gets those, wrapped; the others go where they went."""
    asked: list[str] = []

    def handler(request: Any) -> Any:
        asked.append(request.url.host)
        return harness.library.Response(503 if len(asked) == 1 else 200)

    options = {"mounts": {"all://special.invalid": mock(harness, handler)}}
    with harness.open(brain, **options) as session:
        answer = session.get("http://special.invalid/")

    assert asked == ["special.invalid"] * 2
    assert (answer.status, len(answer.report.attempts)) == (200, 2)


@family
def test_the_options_of_the_pool_stay(harness: Harness, brain: gr.Resilience) -> None:
    """``http2``, ``limits`` and the rest live in the transport the client made, which is the one that sends."""
    limits = harness.library.Limits(max_connections=7, max_keepalive_connections=3)
    with harness.open(http2=True, limits=limits) as session:
        pool = session.client._transport._pool
        gr.mount(session.client, brain)

        kept = session.client._transport.inner._pool

        assert kept is pool
        assert (kept._http2, kept._max_connections, kept._max_keepalive_connections) == (True, 7, 3)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority nobody else trusts."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its certificate, in a file."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(authority.cert_pem.bytes())
    return str(path)


def _server_context(authority: trustme.CA, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


class _Handler(BaseHTTPRequestHandler):
    """Answers 503, then 200, in turn."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked += 1
        body = b"{}"
        self.send_response(503 if server.asked % 2 else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def tls_url(authority: trustme.CA) -> Iterator[str]:
    """A TLS server that fails every other request."""

    class Server(ThreadingHTTPServer):
        asked = 0

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that does not trust us hangs up."""

    with Server(("127.0.0.1", 0), _Handler) as server:
        context = _server_context(authority)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_certificates_a_client_trusts_stay(
    harness: Harness,
    brain: gr.Resilience,
    tls_url: str,
    ca_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that verifies by an authority of its own still does, and is retried."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)  # requests prefers them to its session's own
    verify: Any = ca_file if harness.name == "requests" else ssl.create_default_context(cafile=ca_file)

    with harness.open(brain, verify=verify) as session:
        answer = session.get(tls_url)

    assert (answer.status, len(answer.report.attempts)) == (200, 2)


def test_certificates_a_client_does_not_trust_are_refused_as_before(
    harness: Harness, brain: gr.Resilience, tls_url: str
) -> None:
    """A certificate that does not verify is not retried, and raises what the bare client raises."""
    with harness.open() as bare, pytest.raises(Exception) as expected:
        bare.get(tls_url)

    with harness.open(brain) as session, pytest.raises(type(expected.value)) as raised:
        session.get(tls_url)

    assert type(raised.value) is type(expected.value)
    report = gr.report(raised.value)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["tls_error"]


def while_a_certificate_error_is_handled(send: Callable[[], object]) -> None:
    """Send where a caller would fall back to another host."""
    try:
        raise ssl.SSLError("CERTIFICATE_VERIFY_FAILED")
    except ssl.SSLError:
        send()


@family
def test_a_failure_around_the_call_is_not_taken_for_its_cause(harness: Harness, brain: gr.Resilience) -> None:
    """A call made while a certificate error is being handled is judged by what happened to it alone."""

    def handler(request: Any) -> Any:
        raise harness.library.ConnectError("refused")

    with (
        harness.open(brain, transport=mock(harness, handler)) as session,
        pytest.raises(harness.library.ConnectError) as caught,
    ):
        while_a_certificate_error_is_handled(lambda: session.get("http://any.invalid/"))

    report = gr.report(caught.value)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["connect_error"] * 3


@pytest.fixture
def http2_url(authority: trustme.CA) -> Iterator[str]:
    """An HTTP/2 server that fails every other request, on one connection at a time."""
    context = _server_context(authority, "h2")

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        asked = 0
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), context.wrap_socket(client, server_side=True) as secure:
                connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
                connection.initiate_connection()
                secure.sendall(connection.data_to_send())
                while data := secure.recv(65536):
                    for event in connection.receive_data(data):
                        if isinstance(event, h2.events.StreamEnded):
                            asked += 1
                            status = "503" if asked % 2 else "200"
                            connection.send_headers(event.stream_id, [(":status", status)])
                            connection.send_data(event.stream_id, b"whole", end_stream=True)
                    secure.sendall(connection.data_to_send())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@family
def test_http2_goes_on_being_spoken(
    harness: Harness, brain: gr.Resilience, http2_url: str, ca_file: str
) -> None:
    """A client that was made for HTTP/2 speaks it, and a retry goes out on the same connection."""
    with harness.open(brain, http2=True, verify=ssl.create_default_context(cafile=ca_file)) as session:
        answer = session.get(http2_url)

    assert answer.response.http_version == "HTTP/2"
    assert (answer.status, answer.content) == (200, b"whole")
    assert [attempt.code for attempt in answer.report.attempts] == ["http_503", "ok"]


# ---- requests -------------------------------------------------------------------------------------------------


class OwnAdapter(BaseAdapter):
    """A user's adapter that is no HTTPAdapter: answers by itself, the first time badly."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def send(self, request: Any, **options: Any) -> requests.Response:
        """Answer."""
        self.asked += 1
        response = requests.Response()
        response.status_code = 503 if self.asked == 1 else 200
        response.url = request.url
        response.request = request
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(b"{}"), headers={"content-type": "application/json"}, preload_content=False
        )
        return response

    def close(self) -> None:
        """Nothing to close."""


def test_an_adapter_of_the_users_own_still_sends(brain: gr.Resilience) -> None:
    """An adapter that is no ``HTTPAdapter`` does the sending, and is retried."""
    own = OwnAdapter()
    session = requests.Session()
    session.mount("own://", own)
    gr.mount(session, brain)

    response = session.get("own://anything")

    assert (response.status_code, own.asked) == (200, 2)


def test_the_longest_prefix_goes_on_winning(brain: gr.Resilience) -> None:
    """The adapters keep their order, so each URL goes to the adapter it went to before."""
    session = requests.Session()
    prefixes = ["https://api.invalid/v1/", "https://api.invalid", "http://api.invalid:8080/"]
    for prefix in prefixes:
        session.mount(prefix, HTTPAdapter())
    urls = [*(prefix + "x" for prefix in prefixes), "https://elsewhere.invalid/", "http://api.invalid/"]
    order = list(session.adapters)
    before = [session.get_adapter(url) for url in urls]

    gr.mount(session, brain)

    assert list(session.adapters) == order
    assert all(session.get_adapter(u).inner is a for u, a in zip(urls, before, strict=True))


def test_retries_of_an_adapter_are_off_while_we_are_around_it(brain: gr.Resilience, gateway: Gateway) -> None:
    """urllib3's retries would multiply ours: they are pinned off, and given back by `unmount`."""
    retries = urllib3.Retry(5, status_forcelist=[503], allowed_methods=None)
    session = requests.Session()
    adapter = HTTPAdapter(max_retries=retries)
    session.mount("http://", adapter)
    gr.mount(session, brain)
    gateway.plan = FaultPlan.always(Status(503))

    with session:
        session.get(gateway.base_url + "/models", timeout=5)
    pinned = adapter.max_retries.total
    gr.unmount(session)

    assert len(gateway.requests) == 3
    assert pinned == 0
    assert adapter.max_retries is retries


def test_an_adapter_under_two_prefixes_gets_its_retries_back(brain: gr.Resilience) -> None:
    """One adapter is often mounted for http and https: it is wrapped once and put back as it was."""
    retries = urllib3.Retry(5)
    session = requests.Session()
    adapter = HTTPAdapter(max_retries=retries)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    gr.mount(session, brain)

    gr.unmount(session)

    assert adapter.max_retries is retries
    assert set(session.adapters.values()) == {adapter}


def test_a_session_survives_pickling(gateway: Gateway) -> None:
    """A pickled session comes back resilient, under the same policy, and can be unmounted."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=5))
    gr.mount(
        session, gr.Resilience(gr.Config(policies={"http_503": gr.Policy(max_attempts=2, base_delay=0)}))
    )
    gateway.plan = FaultPlan.always(Status(503))

    with pickle.loads(pickle.dumps(session)) as copied:
        response = copied.get(gateway.base_url + "/models", timeout=5)
        brains = {id(adapter.resilience) for adapter in copied.adapters.values()}
        gr.unmount(copied)
        retries = copied.adapters["http://"].max_retries.total

    report = gr.report(response)
    assert report is not None
    assert len(report.attempts) == len(gateway.requests) == 2
    assert len(brains) == 1
    assert retries == 5


def test_policy_and_brain_can_be_copied() -> None:
    """Deep copies and pickles of a configuration are equal to it; a brain is copied as its configuration."""
    config = gr.Config(policies={"model_overloaded": gr.Policy(max_attempts=7)}, deadline=9.0)
    brain = gr.Resilience(config)

    for made in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert made == config
    for other in (copy.deepcopy(brain), pickle.loads(pickle.dumps(brain))):
        assert other.config == config
        assert other.store is not brain.store


# ---- SDK objects ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(openai.OpenAI, id="openai"),
        pytest.param(openai.AsyncOpenAI, id="openai-async"),
        pytest.param(anthropic.Anthropic, id="anthropic"),
        pytest.param(anthropic.AsyncAnthropic, id="anthropic-async"),
    ],
)
def test_an_sdk_object_is_mounted_on_the_client_it_owns(make: Any, brain: gr.Resilience) -> None:
    """The SDK's own HTTP client is wrapped, its retries and options untouched; copies of the SDK share it."""
    sdk = make(api_key="any", base_url="http://127.0.0.1:9")
    before = transports(sdk._client)

    assert gr.mount(sdk, brain) is brain
    assert gr.mount(sdk.with_options(max_retries=0)) is brain
    assert all(map(is_ours, transports(sdk._client)))
    assert sdk.max_retries == 2
    gr.unmount(sdk)
    assert transports(sdk._client) == before


def test_an_sdk_object_with_two_clients_gets_one_brain() -> None:
    """Mistral's SDK owns a blocking and an awaiting client: both are mounted, on one brain."""
    mistral = pytest.importorskip("mistralai.client").Mistral(api_key="any")

    brain = gr.mount(mistral)

    owned = mistral.sdk_configuration.client, mistral.sdk_configuration.async_client
    assert [client._transport.resilience for client in owned] == [brain, brain]
    gr.unmount(mistral)
    assert not any(is_ours(client._transport) for client in owned)


def test_a_sibling_of_the_openai_sdk_is_mounted() -> None:
    """Groq's SDK is made like OpenAI's, over httpx."""
    groq = pytest.importorskip("groq").Groq(api_key="any")

    brain = gr.mount(groq)

    assert groq._client._transport.resilience is brain


def test_clients_of_one_sdk_may_share_a_brain_with_bare_clients(brain: gr.Resilience) -> None:
    """A brain is not bound to a kind of client."""
    clients = [openai.OpenAI(api_key="any"), anthropic.AsyncAnthropic(api_key="any"), requests.Session()]

    assert [gr.mount(client, brain) for client in clients] == [brain] * 3


@pytest.mark.parametrize(
    "thing",
    [
        pytest.param(None, id="none"),
        pytest.param(5, id="number"),
        pytest.param("client", id="text"),
        pytest.param(object(), id="object"),
        pytest.param(httpx.Client, id="class"),
        pytest.param(openai, id="module"),
        pytest.param([requests.Session()], id="list"),
        pytest.param(urllib3.PoolManager(), id="urllib3"),
    ],
)
@pytest.mark.parametrize("function", [gr.mount, gr.unmount])
def test_what_is_not_supported_is_told_what_is(function: Any, thing: Any) -> None:
    """A `TypeError` names what was given and what would do."""
    with pytest.raises(TypeError, match=r"requests\.Session.*httpx2\.AsyncClient.*SDK"):
        function(thing)


def test_a_configuration_is_no_brain() -> None:
    """The second argument must be a `Resilience`; anything else is refused before anything is changed."""
    session = requests.Session()

    with pytest.raises(TypeError, match=r"expected a gip_resilience\.Resilience, got Config"):
        gr.mount(session, gr.Config())  # type: ignore[arg-type]

    assert not any(map(is_ours, transports(session)))


def test_a_client_whose_transports_cannot_be_found_is_refused() -> None:
    """A future httpx that keeps its transports elsewhere gets an error that says what to do instead."""

    class FutureClient(httpx.Client):
        def __init__(self) -> None:
            """Keep nothing where it used to be."""

        def __del__(self) -> None:
            """Nothing to close."""

    with pytest.raises(TypeError, match="give the client a ResilientTransport instead"):
        gr.mount(FutureClient())


ALIASED = """
import httpx2
httpx2.alias_httpx()
import httpx
import gip_resilience as gr, gip_resilience.httpx, gip_resilience.httpx2
answers = iter([503, 200])
client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(next(answers))))
clock = __import__("gip_resilience.testing").testing.FakeClock()
brain = gr.mount(client, gr.Resilience(clock=clock))
assert gr.mount(client) is brain
assert client.get("http://any.invalid").status_code == 200
gr.unmount(client)
with gip_resilience.httpx.ResilientTransport(inner=httpx.MockTransport(lambda request: httpx.Response(200))) as own:
    assert httpx2.Client(transport=own).get("http://any.invalid").status_code == 200
"""


def test_httpx_may_be_an_alias_of_httpx2() -> None:
    """After ``httpx2.alias_httpx()``, which is for the whole process, mounting works under either name."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALIASED],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


# ---- one class per package, and what it may hand up -----------------------------------------------------------


@both
def test_a_transport_belongs_to_one_package(library: Any) -> None:
    """No class of ours inherits from both packages: SDKs look at the whole ancestry and refuse such a class."""
    other = httpx2 if library is httpx else httpx
    foreign = (other.BaseTransport, other.AsyncBaseTransport, other.TransportError)
    own = (library.BaseTransport, library.AsyncBaseTransport, library.TransportError)

    for name in ADAPTERS[library].__all__:
        exported = getattr(ADAPTERS[library], name)
        assert issubclass(exported, own)
        assert not issubclass(exported, foreign)


def test_an_sdk_takes_our_transport_by_hand(gateway: Gateway, clock: FakeClock) -> None:
    """The SDK's own default client, given our transport, is accepted and resilient."""
    gateway.plan = FaultPlan.script([Status(503), Ok()])
    transport = gip_resilience.httpx2.ResilientTransport(gr.Resilience(clock=clock))
    client = anthropic.Anthropic(
        api_key="any",
        base_url=gateway.url,
        http_client=anthropic.DefaultHttpxClient(transport=transport),
    )

    with client:
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}])

    assert len(gateway.requests) == 2


@family
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(FaultPlan(), id="success"),
        pytest.param(FaultPlan.always(Error("internal_error")), id="failure"),
        pytest.param(FaultPlan.always(HalfBody("fin", then=Status(503))), id="cut-failure"),
    ],
)
def test_an_answer_is_of_the_clients_own_package(
    plan: FaultPlan, harness: Harness, brain: gr.Resilience, gateway: Gateway
) -> None:
    """Response and stream are of the package's own classes, whatever was done to them."""
    gateway.plan = plan
    library = harness.library
    streams: list[Any] = []
    with harness.open(brain) as session:
        inner = session.client._transport
        handle = "handle_request" if harness.colour == "sync" else "handle_async_request"
        real = getattr(inner, handle)

        def note(response: Any) -> Any:
            streams.append(response.stream)
            return response

        async def anote(request: Any) -> Any:
            return note(await real(request))

        setattr(inner, handle, anote if harness.colour == "async" else lambda request: note(real(request)))
        with suppress(library.TransportError):
            answer = session.get(gateway.base_url + "/models")
            assert type(answer.response) is library.Response

    wanted = library.SyncByteStream if harness.colour == "sync" else library.AsyncByteStream
    assert [isinstance(stream, wanted) for stream in streams] == [True]


@both
def test_a_begun_body_is_its_own_iterator(library: Any) -> None:
    """Callers re-iterate a body after its end, and close it: that must not begin it anew, as a generator's would."""
    inner = library.ByteStream(b"")
    relay = ADAPTERS[library]._Relay([b"a", b"b"], iter([b"c"]), inner, None)

    assert iter(relay) is relay
    assert (list(relay), list(relay)) == ([b"a", b"b", b"c"], [])
    asynchronous = ADAPTERS[library]._AsyncRelay([], None, inner, None)
    assert aiter(asynchronous) is asynchronous


@both
def test_refusals_are_kin_of_the_packages_own_errors(library: Any) -> None:
    """A refusal is a `TransportError` that no other layer retries; a deadline is a timeout."""
    ours = ADAPTERS[library]

    for refusal in (ours.CircuitOpenError, ours.RateLimitedError):
        assert issubclass(refusal, library.TransportError)
        assert not issubclass(refusal, (library.NetworkError, library.TimeoutException))
    assert issubclass(ours.DeadlineExceededError, library.TimeoutException)


def test_refusals_are_kin_of_the_errors_of_requests() -> None:
    """The same for requests."""
    ours = gip_resilience.requests

    assert issubclass(ours.CircuitOpenError, requests.exceptions.ConnectionError)
    assert not issubclass(ours.CircuitOpenError, requests.exceptions.Timeout)
    assert issubclass(ours.DeadlineExceededError, requests.exceptions.Timeout)


@family
def test_the_last_error_is_raised_itself(harness: Harness, brain: gr.Resilience) -> None:
    """When attempts are used up the client's own last error comes out, the same object, with a note."""
    raised: list[Exception] = []

    def handler(request: Any) -> Any:
        raised.append(harness.library.ConnectError("refused"))
        raise raised[-1]

    with (
        harness.open(brain, transport=mock(harness, handler)) as session,
        pytest.raises(harness.library.ConnectError) as caught,
    ):
        session.get("http://any.invalid/")

    assert len(raised) == 3
    assert caught.value is raised[-1]
    assert "failure after 3 attempt(s)" in caught.value.__notes__[0]


# ---- what the client does around us ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "sent", "told"),
    [
        pytest.param({}, 3, None, id="no-sdk"),
        pytest.param({"x-stainless-retry-count": "0"}, 3, "false", id="first-try-of-an-sdk"),
        pytest.param({"x-stainless-retry-count": "1"}, 1, "false", id="retry-of-an-sdk"),
    ],
)
def test_an_sdk_above_is_told_when_to_stop(
    header: dict[str, str],
    sent: int,
    told: str | None,
    harness: Harness,
    brain: gr.Resilience,
    gateway: Gateway,
) -> None:
    """Only who says that it retries is told not to; when it is retrying already, we make one attempt."""
    gateway.plan = FaultPlan.always(Status(503))

    with harness.open(brain) as session:
        answer = session.post(gateway.base_url + "/chat/completions", headers=header)

    assert answer.headers.get("x-should-retry") == told
    count = header.get("x-stainless-retry-count")
    assert [seen.header("x-stainless-retry-count") for seen in gateway.requests] == [count] * sent


def test_what_the_client_sets_is_what_it_sets_bare(
    harness: Harness, brain: gr.Resilience, gateway: Gateway
) -> None:
    """Request, elapsed time, history and extensions of an answer are as without us, after retries too."""
    url = gateway.base_url + "/chat/completions"
    with harness.open() as bare:
        expected = bare.post(url).response
    gateway.plan = FAIL_ONCE
    with harness.open(brain) as session:
        answer = session.post(url).response

    assert (answer.request.method, str(answer.request.url)) == ("POST", str(expected.request.url))
    assert answer.request.headers.keys() == expected.request.headers.keys()
    assert answer.elapsed.total_seconds() > 0
    assert list(answer.history) == []
    if harness.name != "requests":
        assert answer.extensions.keys() - expected.extensions.keys() == {"gip_resilience"}
        assert expected.extensions.keys() <= answer.extensions.keys()
        assert answer.http_version == "HTTP/1.1"


@family
def test_an_upgrade_is_not_for_us(harness: Harness, brain: gr.Resilience) -> None:
    """A request for another protocol goes straight through: once, uncounted, its answer untouched."""
    answers = [harness.library.Response(503), harness.library.Response(200)]
    given = list(answers)

    with harness.open(brain, transport=mock(harness, lambda request: answers.pop(0))) as session:
        answer = session.get("http://any.invalid/", headers={"upgrade": "websocket"})

    assert answer.response is given[0]
    assert brain.metrics.snapshot().total() == 0


@family
def test_the_callers_request_is_not_changed(harness: Harness, brain: gr.Resilience, gateway: Gateway) -> None:
    """Auth flows send one Request object again, with the same extensions: it must come back as it went."""
    gateway.plan = FaultPlan.script([HalfBody("rst"), Ok(), Status(503), Ok()])
    seen: list[Any] = []

    class Auth(harness.library.Auth):
        """Sends the same request twice, whatever the answer."""

        def auth_flow(self, request: Any) -> Any:
            extensions = request.extensions
            before = dict(extensions), list(request.headers.raw), request.stream
            for _ in range(2):
                yield request
                assert request.extensions is extensions
                seen.append((dict(request.extensions), list(request.headers.raw), request.stream) == before)

    with harness.open(brain, auth=Auth()) as session, brain.override(deadline=3):
        answer = session.post(gateway.base_url + "/chat/completions")

    assert (answer.status, seen) == (200, [True, True])
    assert len(gateway.requests) == 4
    assert {seen.body_sha256 for seen in gateway.requests} == {gateway.requests[0].body_sha256}


@pytest.mark.parametrize("harness", HARNESSES, ids=repr)
def test_a_digest_challenge_is_answered_through_us(
    harness: Harness, brain: gr.Resilience, gateway: Gateway
) -> None:
    """Both legs of a digest authentication are calls of ours, the second one retried like any other."""
    challenge = {"www-authenticate": 'Digest realm="gip", nonce="abc", qop="auth", algorithm=MD5'}
    gateway.plan = FaultPlan.script([Status(401, headers=challenge), Status(503), Ok()])
    kind = HTTPDigestAuth if harness.name == "requests" else harness.library.DigestAuth

    with harness.open(brain, auth=kind("user", "secret")) as session:
        answer = session.get(gateway.base_url + "/models")

    assert answer.status == 200
    assert [seen.header("authorization") is not None for seen in gateway.requests] == [False, True, True]
    assert [attempt.code for attempt in answer.report.attempts] == ["http_503", "ok"]
    assert brain.metrics.snapshot().total() == 2


def test_every_hop_of_a_redirect_is_a_call_of_ours(
    harness: Harness, brain: gr.Resilience, gateway: Gateway
) -> None:
    """Each hop is sent, retried and reported by itself; the last answer is the caller's."""
    gateway.plan = FaultPlan.script(
        [Status(503), Redirect("/v1/models"), Status(502), Redirect("/v1/models/m"), Ok()]
    )
    options = {} if harness.name == "requests" else {"follow_redirects": True}

    with harness.open(brain, **options) as session:
        answer = session.get(gateway.base_url + "/models")

    assert answer.status == 200
    assert answer.response.json()["id"] == "m"
    hops = [gr.report(response) for response in (*answer.history, answer.response)]
    codes = [[attempt.code for attempt in report.attempts] for report in hops if report]
    assert codes == [["http_503", "ok"], ["http_502", "ok"], ["ok"]]
    assert brain.metrics.snapshot().total("success") == 3


def test_a_redirect_keeps_body_and_overrides(
    harness: Harness, brain: gr.Resilience, gateway: Gateway
) -> None:
    """A 307 sends the body again, on every hop and every attempt, under the overrides of the whole."""
    url = gateway.base_url + "/chat/completions"
    gateway.plan = FaultPlan.script([Redirect(url), Status(503), Ok()])
    options = {} if harness.name == "requests" else {"follow_redirects": True}

    with harness.open(brain, **options) as session, brain.override(model="elsewhere"):
        answer = session.post(url, json=CHAT)

    assert answer.status == 200
    assert len({seen.body_sha256 for seen in gateway.requests}) == 1
    assert answer.report.model == "elsewhere"


# ---- streams are not touched ----------------------------------------------------------------------------------


def _stream_request(gateway: Gateway) -> tuple[str, dict[str, Any]]:
    return gateway.base_url + "/chat/completions", {"json": {**CHAT, "stream": True}}


def test_a_stream_arrives_as_it_was_meant(harness: Harness, brain: gr.Resilience, gateway: Gateway) -> None:
    """The text of an event stream, a compressed one too, is what the bare client gets; nobody decodes it twice."""
    gateway.plan = FaultPlan.always(Gzip())
    url, options = _stream_request(gateway)
    with harness.open() as bare:
        expected, _ = bare.stream("POST", url, **options)
    with harness.open(brain) as session:
        answer, _ = session.stream("POST", url, **options)
        _, raw = session.stream_raw("POST", url, **options)

    assert answer.content == raw == expected.content != b""
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-type"] == expected.headers["content-type"]


@contextmanager
def _raises_like(expected: type[BaseException]) -> Iterator[None]:
    with pytest.raises(expected) as caught:
        yield
    assert issubclass(caught.type, gr.StreamInterruptedError)


def test_a_cut_stream_is_not_sent_again(harness: Harness, brain: gr.Resilience, gateway: Gateway) -> None:
    """A POST whose answer breaks after it began to reach the caller is never repeated behind their back.

    What is raised is ours, and kin of what the bare client raises.
    """
    gateway.plan = FaultPlan.always(HalfBody("rst"))
    url, options = _stream_request(gateway)
    with harness.open() as bare, pytest.raises(Exception) as expected:
        bare.stream("POST", url, **options)
    gateway.clear()

    with harness.open(brain) as session, _raises_like(type(expected.value)):
        session.stream("POST", url, **options)

    assert len(gateway.requests) == 1


@pytest.mark.filterwarnings("ignore:Async generator 'httpx|Async generator 'httpcore:ResourceWarning")
def test_a_stream_that_is_left_early_is_over(
    harness: Harness, brain: gr.Resilience, gateway: Gateway
) -> None:
    """A caller who closes a stream in the middle causes no further request and leaves no connection in use."""
    gateway.plan = FaultPlan.always(SlowBody(0, 0.01))
    url, options = _stream_request(gateway)
    with harness.open(brain) as session:
        if harness.name == "requests":
            with session.client.post(url, stream=True, timeout=5, **options) as response:
                next(response.iter_content(None))
        elif harness.colour == "sync":
            with session.client.stream("POST", url, **options) as response:
                next(response.iter_raw())
        else:
            session.portal.call(_leave_early, session.client, url, options)
            gc.collect()  # trio warns of what both libraries, bare as well, forget to close; here it is expected
        gateway.plan = FaultPlan()
        again = session.get(gateway.base_url + "/models")

        assert again.status == 200
        if harness.name != "requests":
            pool = session.client._transport.inner._pool
            assert [connection.is_idle() for connection in pool.connections] == [True]

    assert len(gateway.requests) == 2


async def _leave_early(client: Any, url: str, options: dict[str, Any]) -> None:
    async with client.stream("POST", url, **options) as response:
        chunks = response.aiter_raw()
        await anext(chunks)
        await chunks.aclose()
