"""The adapters where they are rarely entered: strange transports, second closes, errors of no known kind."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.exceptions import EmptyPoolError

import gip_resilience as gr
from gip_resilience import _httpx_deadlines, _httpx_kit, _requests_deadlines, _requests_errors
from gip_resilience._requests_bodies import Rest, read_some
from gip_resilience._requests_port import _within
from gip_resilience.errors import ResilienceError
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Ok
from gip_resilience.requests import ResilientAdapter
from gip_resilience.testing import FakeClock, ScriptedUpstream
from harness import CHAT, HARNESSES
from live import DONE, Live, answer_with, delta
from test_testing_upstream import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Harness

JSON = {"content-type": "application/json"}
EXACT = CHAT | {"stream": True, "temperature": 0}


# ---- both families -------------------------------------------------------------------------------------------------


def test_a_stream_is_closed_twice(harness: Harness) -> None:
    """The second time nothing is left to do."""
    upstream = ScriptedUpstream()
    brain = gr.Resilience(clock=upstream.clock)
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, brain)
        live = Live(session, upstream.base_url + "/chat/completions", EXACT)
        live.take()
        live.close()
        live.close()
    assert brain.metrics.snapshot().total() == 1
    assert upstream.open_connections == set()


def test_what_comes_after_the_end_is_read_on(harness: Harness) -> None:
    """A comment behind the marker of the end is handed up, and ends nothing."""
    late = b": good bye\n\n"

    def answer() -> Iterator[bytes]:
        yield delta("hello") + DONE
        yield late

    with harness.open() as session:
        answer_with(session, answer)
        gr.mount(session.client, gr.Resilience(clock=FakeClock()))
        with Live(session, "http://peer.invalid/v1/chat/completions", EXACT) as live:
            assert live.read().startswith(delta("hello") + DONE)


def test_an_encoding_nobody_knows_is_passed_through(harness: Harness) -> None:
    """What cannot be looked into is the caller's own business."""
    upstream = ScriptedUpstream(FaultPlan.always(Ok(headers={"content-encoding": "x-own"})))
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(clock=upstream.clock))
        answer, raw = session.stream_raw("POST", upstream.base_url + "/chat/completions", json=EXACT)
    assert answer.status == 200
    assert raw.endswith(DONE)


# ---- requests ------------------------------------------------------------------------------------------------------


def test_retries_are_the_adapters_own_business() -> None:
    """Two who retry would multiply."""
    with pytest.raises(TypeError, match=r"max_retries: .*Policy.from_urllib3"):
        ResilientAdapter(max_retries=3)
    with pytest.raises(TypeError, match="pool_maxsize: the pool belongs to the inner adapter"):
        ResilientAdapter(inner=HTTPAdapter(), pool_maxsize=3)


def test_an_inner_adapter_of_another_kind_is_given_back() -> None:
    """It had no retries to be taken away, so it is given none."""

    class Own(BaseAdapter):
        pass

    inner = Own()
    assert ResilientAdapter(inner=inner).restore() is inner
    assert ResilientAdapter().restore() is None


@pytest.mark.parametrize(
    ("given", "left", "wanted"),
    [
        (None, 2.0, (2.0, 2.0)),
        (1.0, 2.0, (1.0, 1.0)),
        ((1.0, 9.0), 2.0, (1.0, 2.0)),
        (urllib3.Timeout(connect=1.0, read=9.0), 2.0, (1.0, 2.0)),
        (urllib3.Timeout(), 2.0, (2.0, 2.0)),
    ],
    ids=repr,
)
def test_every_way_to_say_a_timeout(given: Any, left: float, wanted: tuple[float, float]) -> None:
    """None of them lasts longer than what is left."""
    assert _within(given, left) == wanted


def pool_error(reason: Exception) -> requests.ConnectionError:
    """What requests makes of an error of the pool."""
    return requests.ConnectionError(reason)


POOL = urllib3.HTTPConnectionPool("host")

KINDS = [
    (pool_error(EmptyPoolError(POOL, "full")), "pool_timeout"),
    (requests.exceptions.ContentDecodingError("bad gzip"), "truncated_body"),
    (requests.exceptions.InvalidHeader("two lengths"), "protocol_error"),
]


@pytest.mark.parametrize(("error", "code"), KINDS, ids=[code for _, code in KINDS])
def test_what_an_error_of_requests_means(error: Exception, code: str) -> None:
    """One class stands for several things; the reason tells them apart."""
    fact = _requests_errors.explain(error)
    assert fact is not None
    assert fact.code == code


def test_an_error_of_the_callers_own_is_none_of_ours() -> None:
    """Neither a failed exchange nor a stream that broke."""
    assert _requests_errors.explain(requests.exceptions.MissingSchema("no scheme")) is None
    assert _requests_errors.breakage(ValueError("mine")) == ""
    assert _requests_errors.breakage(ResilienceError("ours")) == ""


def test_a_raw_body_of_another_kind_is_read_too() -> None:
    """A user's adapter may give any file."""
    assert read_some(io.BytesIO(b"abc"), 2) == b"ab"


class FileAdapter(BaseAdapter):
    """An adapter of the user's own, whose raw bodies are files."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        super().__init__()
        self.answers = list(answers)

    def send(self, request: Any, **options: Any) -> requests.Response:
        """See `BaseAdapter.send`."""
        response = requests.Response()
        response.status_code, body = self.answers.pop(0)
        response.headers["content-type"] = "application/json"
        response.request, response.url, response.raw = request, request.url, io.BytesIO(body)
        return response

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("body", ["text", b"bytes"], ids=repr)
def test_an_adapter_of_the_users_own(body: Any) -> None:
    """Its answers are retried like any other, though its raw bodies know nothing of urllib3."""
    error = b'{"error": {"code": "model_server_error"}}'
    session = requests.Session()
    session.mount("http://", FileAdapter((500, error), (200, b'{"ok": true}')))
    gr.mount(session, gr.Resilience(gr.Config(deadline=60.0), clock=FakeClock()))
    response = session.post("http://host/v1/chat/completions", data=body, stream=True)
    assert response.json() == {"ok": True}
    response.close()


def test_a_stream_of_an_adapter_of_the_users_own() -> None:
    """An event stream out of a file ends like any other."""

    class Streaming(FileAdapter):
        def send(self, request: Any, **options: Any) -> requests.Response:
            response = super().send(request, **options)
            response.headers["content-type"] = "text/event-stream"
            return response

    session = requests.Session()
    session.mount("http://", Streaming((200, delta("hello") + DONE)))
    brain = gr.Resilience(clock=FakeClock())
    gr.mount(session, brain)
    response = session.post("http://host/v1/chat/completions", data='{"stream": true}', stream=True)
    assert response.content == delta("hello") + DONE
    assert brain.metrics.snapshot().total() == 1


def test_a_wire_is_a_file() -> None:
    """What stands between http.client and the socket has its number, and closes once."""
    closes: list[int] = []

    class Raw(io.BytesIO):
        def fileno(self) -> int:
            return 7

        def close(self) -> None:
            closes.append(1)
            super().close()

    call: Any = SimpleNamespace(timeout=lambda: None)
    raw: Any = Raw(b"abc")
    wire = _requests_deadlines._Wire(call, None, raw)
    buffer = bytearray(2)
    assert (wire.fileno(), wire.readinto(buffer), bytes(buffer)) == (7, 2, b"ab")
    wire.close()
    wire.close()
    assert closes[:1] == [1]
    assert wire.closed


def test_what_is_no_response_of_urllib3_is_left_alone() -> None:
    """A deadline is kept where the reads can be bounded."""
    raw = io.BytesIO(b"abc")
    _requests_deadlines.bounded(raw, Any, Any)  # type: ignore[arg-type]  # neither is looked at
    assert type(raw) is io.BytesIO


def test_layers_of_ours_share_the_shorter_time() -> None:
    """Without a deadline a layer leaves the other one's in force."""
    from math import inf

    unbounded: Any = SimpleNamespace(timeout=lambda: None)
    bounded: Any = SimpleNamespace(timeout=lambda: 2.0)
    assert _requests_deadlines._left(unbounded) == inf
    seen: list[object] = []

    def send(request: Any, **options: Any) -> Any:
        seen.append(_requests_deadlines._current.call)
        return request

    def within(request: Any, **options: Any) -> Any:
        return _requests_deadlines.send_in_time(unbounded, send, request, options)

    request = requests.Request("GET", "http://host/").prepare()
    _requests_deadlines.send_in_time(bounded, within, request, {})
    assert seen == [bounded]


@pytest.mark.parametrize("stream", [False, True])
def test_reads_of_another_error_stay_what_they_are(stream: bool) -> None:
    """An error while a body is read in time is handed up as it came."""
    call: Any = SimpleNamespace(timeout=lambda: 5.0, overdue=lambda: False, key=None)

    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise KeyError("theirs")

    raw = HTTPResponse(body=io.BufferedReader(Broken()), status=200, preload_content=False)
    _requests_deadlines.bounded(raw, call, Any)  # type: ignore[arg-type]  # not looked at
    with pytest.raises(KeyError, match="theirs"):
        raw.read1(10) if stream else raw.read(10)


# ---- httpx and httpx2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "left", "smaller"), [(None, None, None), (1.0, None, 1.0), (None, 2.0, 2.0), (3.0, 2.0, 2.0)]
)
def test_the_smaller_of_two_times(given: float | None, left: float | None, smaller: float | None) -> None:
    """Either may be missing."""
    assert _httpx_deadlines._smaller(given, left) == smaller


def entry(extensions: Any, connection: Any) -> Any:
    """A request in a pool."""
    return SimpleNamespace(request=SimpleNamespace(extensions=extensions), connection=connection)


def test_a_connection_is_found_in_the_pool() -> None:
    """Beneath other layers of ours, a few links deep, and only that of this very request."""
    mine: dict[str, Any] = {}
    stream = object()
    link = SimpleNamespace(_connection=SimpleNamespace(_network_stream=stream))
    pool = SimpleNamespace(_requests=[entry({}, None), entry(mine, link)])
    layered = SimpleNamespace(inner=SimpleNamespace(_pool=pool))

    assert _httpx_deadlines._connection(layered, mine) is stream
    assert _httpx_deadlines._connection(layered, None) is None
    assert (
        _httpx_deadlines._connection(
            SimpleNamespace(_pool=SimpleNamespace(_requests=[entry(mine, None)])), mine
        )
        is None
    )
    assert _httpx_deadlines._connection(object(), mine) is None


def kit() -> Any:
    """As much of a kit as errors are explained by."""
    return SimpleNamespace(transport_error=httpx.TransportError)


def test_what_an_error_of_httpx_means() -> None:
    """A stream that HTTP/2 refused was not processed; a certificate is looked for a few causes deep."""
    refused = httpx.RemoteProtocolError("<StreamReset stream_id:1, error_code:7, remote_reset:True>")
    fact = _httpx_kit.explain(refused, kit())
    assert fact is not None
    assert fact.code == "refused_stream"

    error: BaseException = ValueError("deep down")
    for _ in range(20):
        outer = ValueError("further up")
        outer.__cause__ = error
        error = outer
    assert not _httpx_kit._is_certificate_error(error)
    assert _httpx_kit.breakage(ResilienceError("ours"), kit()) == ""


@pytest.mark.parametrize("harness", [h for h in HARNESSES if h.name != "requests"], ids=repr)
def test_a_request_without_a_table_of_timeouts(harness: Harness) -> None:
    """Who takes the client's own timeouts away gets his error's body all the same."""
    upstream = ScriptedUpstream(FaultPlan.always(Error("invalid_argument")))
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(clock=upstream.clock))
        request = session.client.build_request("POST", upstream.base_url + "/chat/completions", json=CHAT)
        request.extensions = {name: value for name, value in request.extensions.items() if name != "timeout"}
        if session.portal is None:
            answer = session.client.send(request)
        else:
            answer = session.portal.call(session.client.send, request)
    assert answer.json()["error"]["code"] == "invalid_argument"


def test_nothing_is_mounted_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of a library that is not there cannot be one of its clients."""
    monkeypatch.delitem(sys.modules, "httpx")
    monkeypatch.delitem(sys.modules, "httpx2")
    with pytest.raises(TypeError):
        gr.mount(object())


def test_mounts_of_a_client_are_unwrapped(harness: Harness) -> None:
    """Proxies and schemes of their own, too."""
    if harness.name == "requests":
        session = requests.Session()
        mine = HTTPAdapter()
        session.mount("https://own/", mine)
        gr.mount(session)
        gr.unmount(session)
        assert session.get_adapter("https://own/x") is mine
        return
    library = harness.library
    kind = library.AsyncHTTPTransport if harness.colour == "async" else library.HTTPTransport
    own = kind()
    with harness.open(mounts={"all://own": own, "all://none": None}) as opened:
        gr.mount(opened.client)
        assert own not in opened.client._mounts.values()
        gr.unmount(opened.client)
        assert own in opened.client._mounts.values()


def test_a_broken_stream_that_is_drained_breaks_nothing(harness: Harness) -> None:
    """After the marker of the end a connection may break as it likes."""
    upstream = ScriptedUpstream([BreakStream(how="rst", events=10_000)])
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(clock=upstream.clock))
        answer, _ = session.stream("POST", upstream.base_url + "/chat/completions", json=EXACT)
    assert answer.content.endswith(DONE)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("harness", [h for h in HARNESSES if h.name != "requests"], ids=repr)
def test_the_stream_of_a_response_is_closed_twice(harness: Harness) -> None:
    """By its own hand, without the response's looking."""
    upstream = ScriptedUpstream()
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(clock=upstream.clock))
        live = Live(session, upstream.base_url + "/chat/completions", EXACT)
        live.take()
        for _ in range(2):
            if session.portal is None:
                live.response.stream.close()
            else:
                session.portal.call(live.response.stream.aclose)
    assert upstream.open_connections == set()


def test_timeouts_that_nothing_shortens() -> None:
    """Without a deadline they are what was given; so is what is no timeout of theirs."""
    call: Any = SimpleNamespace(timeout=lambda: None)
    assert _httpx_deadlines.Timeouts({"read": 5.0}, call).get("read") == 5.0
    call = SimpleNamespace(timeout=lambda: 1.0)
    timeouts = _httpx_deadlines.Timeouts({"read": 5.0, "own": 7.0}, call)
    assert (timeouts.get("read"), timeouts.get("own"), timeouts.get("write")) == (1.0, 7.0, 1.0)


def test_a_body_that_was_begun_is_a_file() -> None:
    """What was read of it, then the rest; let go of, what was read is all there is."""
    raw = io.BytesIO(b"rest")
    body = Rest([b"be", b"gun "], raw, None, whole=False)
    assert body.readable()
    assert body.read(4) == b"begu"
    body.let_go()
    body.let_go()
    assert body.read() == b"n "
    assert raw.closed


def test_a_stream_that_was_asked_for_in_text() -> None:
    """A body that is text is read like one of bytes."""
    upstream = ScriptedUpstream([BreakStream(how="eof", events=3)])
    session = requests.Session()
    session.mount("http://", upstream.requests_adapter())
    gr.mount(session, gr.Resilience(clock=upstream.clock))
    asked = json.dumps(EXACT)
    response = session.post(upstream.base_url + "/chat/completions", data=asked, headers=JSON)
    assert response.content.endswith(DONE)
    assert len(upstream.requests) == 2
