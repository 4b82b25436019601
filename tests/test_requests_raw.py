"""The raw response of a mended stream, by every way there is to read a response of requests."""

from __future__ import annotations

import gc
import io
import pickle
import shutil
import ssl
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from gip_resilience._requests_streams import StreamedResponse, streamed
from gip_resilience.gateway import FaultPlan, Gateway, Gzip, HalfBody, Ok
from harness import CHAT
from reading import PATHS, BrokeError, Path, Pieces, gather, into, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVENTS = [f"data: {number} é€😀\n\n".encode() for number in range(5)]
BODY = b"".join(EVENTS)


def inner() -> HTTPResponse:
    """A raw response underneath, with a body that nobody is to read."""
    return HTTPResponse(
        io.BytesIO(b"of the wire"),
        headers={"content-type": "text/event-stream; charset=utf-8"},
        status=200,
        preload_content=False,
    )


def answer(source: Pieces) -> requests.Response:
    """A response of requests over *source*."""
    request = requests.Request("GET", "http://host/").prepare()
    return HTTPAdapter().build_response(request, streamed(inner(), source))


# ---- by every way -----------------------------------------------------------------------------------------------

STREAMS = {
    "events": EVENTS,
    "one-giant-piece": [b"".join(f"data: {number}\n\n".encode() for number in range(6500))],
    "bytes": [bytes([byte]) for byte in BODY],
    "odd-pieces": [BODY[at : at + 11] for at in range(0, len(BODY), 11)],
    "empty": [],
}

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
every_stream = pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS)


def assert_ended(raw: Any, source: Pieces) -> None:
    """Nothing more comes, by any way, and nothing more is asked for."""
    takes = source.takes
    assert (raw.read(), raw.read(9), raw.read1(), raw.readline()) == (b"", b"", b"", b"")
    assert raw.readinto(bytearray(9)) == 0
    assert list(raw.stream()) == list(raw.read_chunked()) == list(raw) == []
    assert (raw.closed, raw.isclosed(), source.closes, source.takes) == (True, True, 1, takes)


@every_path
@every_stream
def test_a_whole_stream(pieces: list[bytes], path: Path) -> None:
    """Every byte once; each as soon as it is there; nothing is taken before it is needed; then it has ended."""
    source = Pieces(pieces)
    response = answer(source)
    body = bytearray()
    for part in path.read(response):
        body += to_bytes(part)
        assert source.takes == (len(pieces) + 1 if path.at_once else source.needed(len(body)))
    assert body == b"".join(pieces)
    assert source.takes == len(pieces) + 1
    assert_ended(response.raw, source)


@pytest.mark.parametrize(
    "name",
    [
        "iter_content(512)",
        "iter_content(None)",
        "raw.stream",
        "raw.stream(None)",
        "raw.read_chunked",
        "raw.read1",
    ],
)
def test_an_event_comes_in_one_part(name: str) -> None:
    """What is there is not cut without need: at the size that was asked for, or at urllib3's own."""
    huge = b"x" * 100_000
    parts = list(PATHS[name].read(answer(Pieces([*EVENTS, huge]))))
    assert parts[: len(EVENTS)] == EVENTS
    cut = {"iter_content(512)": 512, "raw.stream": 65536}.get(name, len(huge))
    assert parts[len(EVENTS)] == huge[:cut]


@every_path
@every_stream
def test_a_failing_stream(pieces: list[bytes], path: Path) -> None:
    """What was there before the failure comes first; then the error itself, not wrapped, and once."""
    failure = BrokeError("it broke")
    source = Pieces(pieces, failure)
    response = answer(source)
    body = bytearray()
    with pytest.raises(BrokeError) as caught:
        gather(path.read(response), body)
    assert caught.value is failure
    assert (failure.__cause__, failure.__context__) == (None, None)
    assert body == (b"" if path.at_once else b"".join(pieces))
    assert source.takes == len(pieces) + 1
    assert_ended(response.raw, source)


@pytest.mark.parametrize(
    "failure",
    [
        requests.Timeout(),
        requests.ConnectionError(),
        TimeoutError(),
        ssl.SSLError(),
        ValueError(),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "name", ["iter_lines", "content", "raw.read", "raw.readinto", "raw.data", "TextIOWrapper"]
)
def test_any_failure_comes_up_as_it_is(name: str, failure: BaseException) -> None:
    """urllib3 makes something else of most of these. An interrupt, too, ends the stream."""
    source = Pieces(EVENTS, failure)
    response = answer(source)
    with pytest.raises(type(failure)) as caught:
        list(PATHS[name].read(response))
    assert caught.value is failure
    assert_ended(response.raw, source)


def test_copying_a_failing_stream() -> None:
    """What was there before the failure has been written."""
    target = io.BytesIO()
    with pytest.raises(BrokeError):
        shutil.copyfileobj(streamed(inner(), Pieces(EVENTS, BrokeError())), target)
    assert target.getvalue() == BODY


def test_draining_raises_nothing() -> None:
    """Who drains a connection does not want the rest; it is read, since that is what was asked for."""
    source = Pieces(EVENTS, BrokeError())
    response = answer(source)
    response.raw.drain_conn()
    assert source.takes == len(EVENTS) + 1
    assert_ended(response.raw, source)


READS: dict[str, Callable[[Any, int], bytes]] = {
    "read": lambda raw, size: raw.read(size),
    "read1": lambda raw, size: raw.read1(size),
    "readline": lambda raw, size: raw.readline(size),
    "readinto": lambda raw, size: next(into(raw, size), b"") if size else raw.read(0),
    "stream": lambda raw, size: next(raw.stream(size), b""),
    "read_chunked": lambda raw, size: next(raw.read_chunked(size), b""),
}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=9), max_size=9),
    st.lists(st.tuples(st.sampled_from(sorted(READS)), st.integers(0, 12)), max_size=40),
)
def test_any_mixture_of_reads(pieces: list[bytes], reads: list[tuple[str, int]]) -> None:
    """Whatever order they come in, they give the bytes in theirs, never more than asked for, never too early."""
    source = Pieces(pieces)
    raw = streamed(inner(), source)
    whole = b"".join(pieces)
    body = b""
    for name, size in reads:
        part = READS[name](raw, size)
        assert len(part) <= size
        assert bool(part) == (size > 0 and body != whole), "empty means the end"
        body += part
        assert whole.startswith(body)
        assert raw.tell() == len(body)
        assert source.takes == source.needed(len(body)) or body == whole


# ---- data, pickles, JSON ----------------------------------------------------------------------------------------


def test_data_is_kept() -> None:
    """``raw.data`` can be asked for again, as long as it was the first to read."""
    raw = streamed(inner(), Pieces(EVENTS))
    assert (raw.data, raw.data, raw.read()) == (BODY, BODY, b"")
    raw = streamed(inner(), Pieces(EVENTS))
    assert (raw.read(cache_content=True), raw.data) == (BODY, BODY)
    raw = streamed(inner(), Pieces(EVENTS))
    assert (raw.read(), raw.data) == (BODY, b"")
    raw = streamed(inner(), Pieces(EVENTS))
    assert (raw.read(3), raw.data, raw.data) == (BODY[:3], BODY[3:], b"")


@pytest.mark.parametrize("read_before", [True, False])
def test_pickling(read_before: bool) -> None:
    """A response pickles with what it holds, which it reads for it if nobody has."""
    response = answer(Pieces(EVENTS))
    if read_before:
        assert response.content == BODY
    copy = pickle.loads(pickle.dumps(response))
    assert (copy.content, copy.status_code, list(copy.iter_content(None))) == (BODY, 200, [BODY])


def test_json() -> None:
    """A stream is no JSON document, and one that is can be read as such."""
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer(Pieces(EVENTS)).json()
    assert answer(Pieces([b'{"a"', b":1}"])).json() == {"a": 1}
    assert streamed(inner(), Pieces([b'{"a"', b":1}"])).json() == {"a": 1}


# ---- closing ----------------------------------------------------------------------------------------------------

CLOSERS: dict[str, Callable[[requests.Response], None]] = {
    "response.close": lambda r: r.close(),
    "raw.close": lambda r: r.raw.close(),
    "with": lambda r: r.__exit__(),
    "BufferedReader.close": lambda r: io.BufferedReader(r.raw).close(),
}


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("close", CLOSERS.values(), ids=CLOSERS)
def test_closing_early(close: Callable[[requests.Response], None], begun: bool) -> None:
    """It closes the source, once; what was left is gone, as it is in urllib3."""
    source = Pieces(EVENTS)
    response = answer(source)
    if begun:
        assert response.raw.read(3) == BODY[:3]
    close(response)
    assert source.takes == int(begun)
    assert_ended(response.raw, source)
    close(response)
    assert source.closes == 1
    assert list(response.iter_lines()) == []


def test_a_raw_that_stays_open() -> None:
    """With ``auto_close`` off, its own end does not close it: urllib3's way to let a text reader find the end."""
    source = Pieces(EVENTS)
    raw = streamed(inner(), source)
    raw.auto_close = False
    text = io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8")
    assert (text.read(), text.read(), raw.closed, raw.isclosed()) == (BODY.decode(), "", False, True)
    text.close()
    assert (raw.closed, source.closes) == (True, 1)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing is freed but by its last reference."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@every_path
def test_dropping(path: Path) -> None:
    """A response that is dropped, new, begun or read, is gone at once; no cycle keeps it or its source."""
    for reads in (0, 1, 1000):
        source = Pieces(EVENTS)
        response = answer(source)
        gone = weakref.ref(response.raw)
        parts = path.read(response)
        for _, _ in zip(range(reads), parts, strict=False):
            pass
        del response, parts
        assert gone() is None
        assert source.closes + source.drops == 1
        left = weakref.ref(source)
        del source
        assert left() is None


def test_the_collector_takes_no_lock_of_ours() -> None:
    """A response in a cycle drops its source, and does not close it: that might ask for a lock its thread holds."""
    source = Pieces(EVENTS)
    cycle: list[Any] = [answer(source).raw]
    cycle.append(cycle)
    del cycle
    gc.collect()

    assert (source.closes, source.drops) == (0, 1)


@pytest.mark.usefixtures("no_collector")
@every_path
def test_an_error_keeps_nothing(path: Path) -> None:
    """The error, its traceback and the response form no cycle."""
    source = Pieces(EVENTS, BrokeError())
    response = answer(source)
    try:
        gather(path.read(response), bytearray())
    except BrokeError as error:
        gone = [weakref.ref(error), weakref.ref(response.raw), weakref.ref(source)]
    del response, source
    assert [reference() for reference in gone] == [None, None, None]


# ---- what it has from the response underneath -------------------------------------------------------------------


def test_what_is_copied() -> None:
    """All that is true of the stream, and nothing that was true of the wire only."""
    headers = HTTPHeaderDict({"Content-Type": "text/event-stream", "Content-Encoding": "gzip"})
    headers.update({"Content-Length": "12", "Transfer-Encoding": "chunked"})
    headers.add("set-cookie", "a=1")
    headers.add("set-cookie", "b=2")
    given = dict(headers)
    original: Any = type("Original", (), {"msg": "cookies"})()
    raw = HTTPResponse(
        io.BytesIO(),
        headers,
        201,
        11,
        reason="Made",
        preload_content=False,
        decode_content=False,
        original_response=original,
        msg=original.msg,
        retries=Retry(3),
        request_url="/path",
    )
    raw.version_string = "HTTP/1.1"
    copy = streamed(raw, Pieces([]))
    assert isinstance(copy, StreamedResponse)
    assert (copy.status, copy.version, copy.version_string, copy.reason) == (201, 11, "HTTP/1.1", "Made")
    assert (copy.url, copy.decode_content, copy.retries) == ("/path", False, raw.retries)
    assert (copy._original_response, copy.msg) == (original, "cookies")
    assert list(copy.headers) == ["Content-Type", "set-cookie"]
    assert copy.headers.getlist("set-cookie") == ["a=1", "b=2"]
    assert (copy.chunked, copy.length_remaining) == (False, None)
    assert dict(raw.headers) == given, "the one underneath keeps its own"


class Current:
    """A response in use, as far as its connection goes."""

    def __init__(self, connection: str) -> None:
        self.connection = connection
        self.seen: list[str] = []

    def release_conn(self) -> None:
        self.seen.append("release")

    def shutdown(self) -> None:
        self.seen.append("shutdown")


def test_the_connection_is_that_of_the_response_in_use() -> None:
    """It changes when the stream goes on over another one."""
    first, second = Current("first"), Current("second")
    use = [first]
    raw = streamed(first, Pieces(EVENTS), lambda: use[-1])
    assert raw.connection == "first"
    use.append(second)
    assert raw.connection == "second"
    raw.shutdown()
    raw.release_conn()
    assert (first.seen, second.seen) == ([], ["shutdown", "release"])
    raw = streamed(first, Pieces(EVENTS))
    raw.release_conn()
    assert (raw.connection, first.seen) == ("first", ["release"])


def test_a_raw_that_is_no_response() -> None:
    """A user's adapter may give any file."""
    raw = streamed(io.BytesIO(b"of the wire"), Pieces(EVENTS))
    raw.release_conn()
    assert (raw.connection, dict(raw.headers), raw.status, raw.read()) == (None, {}, 0, BODY)


# ---- on a session -----------------------------------------------------------------------------------------------


class Wire:
    """A source over a real response; its errors are ours."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def take(self) -> bytes:
        try:
            return self.raw.read1(65536, decode_content=True)
        except HTTPError:
            raise BrokeError("it broke") from None

    def close(self) -> None:
        self.raw.close()
        self.raw.release_conn()

    def drop(self) -> None:
        self.close()


class Streaming(HTTPAdapter):
    """Puts our raw response where the real one was."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().send(*args, **kwargs)
        response.raw = streamed(response.raw, Wire(response.raw))
        for name in ("content-encoding", "content-length", "transfer-encoding"):
            response.headers.pop(name, None)
        return response


class Chat:
    """A session with one connection, and the stream it asks for."""

    def __init__(self, gateway: Gateway, adapter: type[HTTPAdapter]) -> None:
        self.gateway = gateway
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("http://", adapter(pool_connections=1, pool_maxsize=1, pool_block=True))

    def post(self, **options: Any) -> requests.Response:
        options = {"stream": True, "timeout": 5, "json": {**CHAT, "stream": True}, **options}
        return self.session.post(self.gateway.base_url + "/chat/completions", **options)


@pytest.fixture
def chat(gateway: Gateway) -> Iterator[Chat]:
    """With our raw response."""
    made = Chat(gateway, Streaming)
    with made.session:
        yield made


@pytest.fixture
def bare(gateway: Gateway) -> Iterator[Chat]:
    """Without."""
    made = Chat(gateway, HTTPAdapter)
    with made.session:
        yield made


BARE_FAILS = ("BufferedReader", "BufferedReader.read1", "TextIOWrapper")
"""Ways that end with a ValueError in a bare session: urllib3 closes itself while it gives them the last bytes."""


@pytest.mark.parametrize("name", PATHS)
def test_a_real_stream(name: str, chat: Chat, bare: Chat) -> None:
    """The bytes are those of a bare session, and the connection is used again."""
    read = PATHS[name].read
    whole = bare.post().content
    if name not in BARE_FAILS:
        assert b"".join(map(to_bytes, read(bare.post()))) == whole
    chat.gateway.clear()
    for _ in range(3):
        assert b"".join(map(to_bytes, read(chat.post()))) == whole
    assert chat.gateway.connections == 1


@every_path
def test_a_compressed_stream(path: Path, chat: Chat, bare: Chat) -> None:
    """The source decodes, so no reader finds anything to decode, and nothing says that there is."""
    chat.gateway.plan = FaultPlan.always(Gzip())
    response = chat.post()
    assert {"content-encoding", "transfer-encoding", "content-length"}.isdisjoint(response.raw.headers)
    assert b"".join(map(to_bytes, path.read(response))) == bare.post().content


@pytest.mark.parametrize("how", ["fin", "rst"])
@every_path
def test_a_stream_that_breaks(how: str, path: Path, chat: Chat, bare: Chat) -> None:
    """The error is the source's, and the session goes on, with its one connection."""
    whole = bare.post().content
    chat.gateway.plan = FaultPlan.script([HalfBody(how)])
    body = bytearray()
    with pytest.raises(BrokeError):
        gather(path.read(chat.post()), body)
    assert whole.startswith(body)
    assert body or path.at_once or how == "rst"  # a reset may overtake what was sent before it
    assert chat.post().content == whole


def test_leaving_early(chat: Chat) -> None:
    """The connection is free for the next request, however little was read."""
    for _ in range(2):
        with chat.post() as response:
            assert next(response.iter_lines()).startswith(b"data: {")
        with chat.post():
            pass
        chat.post().close()
    assert chat.post(stream=False).content.endswith(b"data: [DONE]\n\n")


def test_cookies(chat: Chat, bare: Chat) -> None:
    """They come to the session."""
    chat.gateway.plan = FaultPlan.always(Ok(headers={"set-cookie": "a=1; Path=/"}))
    for session in (chat, bare):
        response = session.post()
        assert response.cookies.get_dict() == session.session.cookies.get_dict() == {"a": "1"}
