"""What is quick says the same as what is thorough: the short ways that nearly every call and event takes."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import httpx2
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gip_resilience as gr
from gip_resilience import target
from gip_resilience._answers import _SAYS_NOTHING, Noted, Told
from gip_resilience._delivered import Delivered
from gip_resilience._httpx_kit import content_of, entries_of
from gip_resilience._httpx_streams import aclose_read
from gip_resilience._requests_port import entries_of as requests_entries
from gip_resilience._splice import Splice
from gip_resilience.above import Layer
from gip_resilience.sse import BOM, EventSplitter, EventTooLargeError, SSEDecoder, parse
from gip_resilience.target import credential_digest, model_in_body, model_in_json
from replays import (
    DONE,
    ROLE,
    anthropic,
    chat,
    closes,
    event,
    gemini,
    legacy,
    opens,
    says,
    starts,
    stops,
    usage,
)
from splicing import PATHS, identified, response, spliced

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

# ---- streams ---------------------------------------------------------------------------------------------

KEPT = [name for name in Delivered.__slots__ if name != "_settings"]

TEXT = "response.output_text.delta"
MESSAGE_STOP = anthropic("message_stop")


def more(text: str) -> bytes:
    """A piece of a chat."""
    return chat({"content": text})


EVENTS = {
    "chat": [chat(ROLE), more("a"), more("ü"), more("b"), chat(finish="stop"), usage(), DONE],
    "completions": [legacy("a"), legacy("b"), legacy("ü"), legacy("c"), legacy("", "stop"), DONE],
    "responses": [
        response(0, "response.created"),
        *(event({"type": TEXT, "sequence_number": number, "delta": "x"}, TEXT) for number in (1, 2, 3, "4")),
        response(5, "response.completed"),
    ],
    "anthropic": [starts(), opens(), says("a"), says("ü"), closes(), stops(), MESSAGE_STOP],
    "gemini": [gemini({"text": "a"}), gemini({"text": "b"}), gemini(finish="STOP")],
}
ODD = [
    b"\n",
    b": comment\n\n",
    b"data: \n\n",
    b"data: {}\n\n",
    b"data: [1]\n\n",
    more("a") + b"x",
    more("a")[:-1] + b"x",
    more("a")[:-1] + b"x" + b"\n\n",
    chat({"content": "a"}, "stop", choices=[{"index": 3, "delta": {"content": "a"}, "finish_reason": None}]),
    b"data: {\n\n",
    b"data: \xff\n\n",
    b"data: nothing\n\n",
    b"retry: 3\n\n",
    BOM,
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"error":""}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"error":{"code":"model_overloaded"}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":""}]}\n\n',
    b'data: {"choices":[{"index":"0","delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"index":-1,"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[],"usage":{}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
    b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"index":0,\r"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\r\n\r\n',
    b'event: error\ndata: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
    b'event: content_block_delta\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
    b'event: content_block_delta\ndata: {"type":"message_stop"}\n\n',
    b'{"error":{"code":"model_unavailable"}}\n\n',
    identified(more("a"), "7"),
]


class Thorough(Splice):
    """A splice that looks into every event."""

    __slots__ = ()

    def _flows(self) -> bool:
        return False


def state(splice: Splice) -> dict[str, Any]:
    """All that may be asked of a splice, and all that it keeps."""
    had = attrgetter("_had")(splice)
    asked = {
        name: getattr(splice, name) for name in ("over", "broken", "events", "phase", "notice", "guarded")
    }
    return asked | {name: getattr(had, name) for name in KEPT}


def thorough(name: str, **stream: Any) -> Splice:
    """As `spliced` makes it."""
    quick = spliced(name, **stream)
    made = [attrgetter(f"_{part}")(quick) for part in ("config", "origin", "body", "time")]
    return Thorough(made[0], PATHS[name], made[1], made[2], made[3])


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A protocol, and a stream in pieces: it begins well, most events are its own, most pieces are whole events."""
    name = draw(st.sampled_from(sorted(EVENTS)))
    own = st.sampled_from(EVENTS[name])
    some = st.lists(st.one_of(own, own, own, st.sampled_from(ODD)), min_size=1, max_size=3).map(b"".join)
    pieces = EVENTS[name][:4] + draw(st.lists(some, max_size=12))
    cut = draw(st.integers(0, 12))
    if cut < len(pieces):  # one of them comes in two
        at = draw(st.integers(0, len(pieces[cut])))
        pieces[cut : cut + 1] = [pieces[cut][:at], pieces[cut][at:]]
    return name, pieces


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(stream=streams(), limit=st.sampled_from([1000, 1 << 20]))
def test_a_glance_sees_what_a_look_would(stream: tuple[str, list[bytes]], limit: int) -> None:
    """Whatever the events, and however they are cut: the same comes out, is known and is remembered."""
    name, pieces = stream
    quick, slow = spliced(name, max_delivered=limit), thorough(name, max_delivered=limit)
    for piece in pieces:
        if quick.broken is not None or quick.over:
            break
        assert quick.feed(piece) == slow.feed(piece)
        assert state(quick) == state(slow)


@pytest.mark.parametrize("piece", ODD)
@pytest.mark.parametrize("name", EVENTS)
def test_no_oddity_is_overlooked(name: str, piece: bytes) -> None:
    """Alone, before and after other events, and not yet whole: what is not more of the answer is looked into."""
    begun = EVENTS[name][:4]
    for pieces in (
        [piece],
        [piece + begun[1]],
        [begun[1] + piece],
        [begun[1], piece[:-1], piece[-1:] + begun[1]],
    ):
        quick, slow = spliced(name), thorough(name)
        for data in (*begun, *pieces, begun[1]):
            if quick.broken is None and not quick.over:
                assert quick.feed(data) == slow.feed(data)
                assert state(quick) == state(slow)


@pytest.mark.parametrize("name", ["chat", "completions", "responses", "anthropic"])
def test_nearly_every_event_is_only_glanced_at(name: str) -> None:
    """Once an answer has begun, more of it is not looked into: that is what makes it cheap."""
    splice = spliced(name)
    further = {
        "chat": more("a"),
        "completions": legacy("a"),
        "responses": EVENTS["responses"][2],
        "anthropic": next(block for block in EVENTS["anthropic"] if b"content_block_delta" in block),
    }[name]
    for block in EVENTS[name]:
        if splice.flowing:
            break
        splice.feed(block)
    assert splice.flowing

    def look(data: bytes) -> bytes:
        raise AssertionError(data)

    class Glancing(Splice):
        __slots__ = ()
        _look_into = staticmethod(look)

    splice.__class__ = Glancing  # type: ignore[assignment]  # the same slots
    assert splice.feed(further) == further
    assert splice.feed(further * 3) == further * 3


LINES = [
    b"data: a",
    b"data: \xc3\xbc",
    b"data:b",
    b"event: x",
    b"event: ",
    b"id: 7",
    b"retry: 5",
    b": c",
    b"data: \xff",
    b"data",
    b"",
    b"data: " + b"long" * 300,
]


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(
    blocks=st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=3), max_size=12),
    end=st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"]),
    mark=st.booleans(),
    sizes=st.lists(st.integers(1, 60) | st.integers(900, 1300), max_size=12),
)
@example(blocks=[[b"event: ", b"data: a"]], end=b"\n", mark=False, sizes=[])
@example(blocks=[[b"data: " + b"long" * 300], [b"data: a"]], end=b"\n", mark=False, sizes=[1100, 50, 50])
@example(blocks=[[b"data: \xff"], [b"data: a"]], end=b"\n", mark=False, sizes=[3, 6])
@example(blocks=[[b"data: a", b"id: 7"], [b"data: b"]], end=b"\n", mark=False, sizes=[])
@example(blocks=[[b"data: a"], [b"data: b"]], end=b"\r\n", mark=True, sizes=[11, 1, 1])
def test_a_lump_is_decoded_as_its_blocks_are(
    blocks: list[list[bytes]], end: bytes, mark: bool, sizes: list[int]
) -> None:
    """The decoder, which takes many events at a time, gives what its own parts give block by block."""
    data = (BOM if mark else b"") + b"".join(end.join(lines) + end + end for lines in blocks)
    decoder, found = SSEDecoder(), []
    rest = data
    for size in [*sizes, len(data)]:
        found += decoder.feed(rest[:size])
        rest = rest[size:]
    last_id, expected = "", []
    for number, raw in enumerate(EventSplitter().feed(data)):
        block = parse(raw if number else raw.removeprefix(BOM))
        if block.id is not None:
            last_id = block.id.decode("utf-8", "replace")
        if block.data is not None:
            name = block.event.decode("utf-8", "replace") or "message"
            expected.append((name, block.data.decode("utf-8", "replace"), last_id, block.retry))
    assert found == expected
    assert decoder.last_event_id == last_id


LONG = b"data: " + b"long" * 300


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(
    "lines",
    [
        [LONG],
        [BOM + LONG],
        [LONG, b"id: 7"],
        [b"event: x", LONG],
        [b"id: 7", LONG],
        [b": c" * 400],
        [b"event: x" * 200],
        [LONG + b"\xff"],
        [LONG, b"data: \xff"],
    ],
    ids=[
        "alone",
        "mark",
        "id after",
        "event",
        "id",
        "comment",
        "no data",
        "no UTF-8",
        "no UTF-8 in the last",
    ],
)
def test_a_long_event_is_decoded_wherever_it_is_cut(lines: list[bytes], end: bytes) -> None:
    """Behind its beginning, and at every byte around its end; what follows it, too."""
    data = end.join(lines) + end + end
    for cut in range(len(data) - 16, len(data) + 3):
        stream = data + b"data: a\n\n"
        for rest in ([stream[cut:]], [stream[cut : cut + 1], stream[cut + 1 :]]):
            decoder, whole = SSEDecoder(), SSEDecoder()
            found = [
                event for piece in (stream[:1150], stream[1150:cut], *rest) for event in decoder.feed(piece)
            ]
            assert found == [event for block in EventSplitter().feed(stream) for event in whole.feed(block)]
            assert found[-1].data == "a"
            assert decoder.last_event_id == whole.last_event_id


@pytest.mark.parametrize("held", [b"data: 012345", b"data: 0123\r\ndata: 4"], ids=["LF", "CRLF"])
def test_what_is_too_long_is_not_taken(held: bytes) -> None:
    """Neither it, nor anything of what came with it; what was there before is as it was."""
    decoder = SSEDecoder(max_event=30)
    assert decoder.feed(held) == []
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"\n\ndata: b\n\ndata: " + b"x" * 40)
    assert [event.data for event in decoder.feed(b"\n\n")] == [
        held[6:].replace(b"\r\ndata: ", b"\n").decode()
    ]
    assert [event.data for event in decoder.feed(b"data: c\n\n")] == ["c"]


def test_half_a_line_end_is_kept_in_mind() -> None:
    """A CR that came before makes what follows no lump, although that has LF alone."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert [event.data for event in decoder.feed(b"\n\ndata: b\n\n")] == ["a", "b"]


# ---- requests --------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(name=st.text(max_size=220), space=st.booleans(), rest=st.binary(max_size=30))
@example(name='a"b', space=False, rest=b"")
@example(name="a\\", space=False, rest=b'"')
@example(name="", space=True, rest=b'","x":1}')
def test_a_model_is_the_same_when_it_is_met_again(name: str, space: bool, rest: bytes) -> None:
    """A name that was read before is found by how it stands there; never another, and never a part of one."""
    body = (b'{"model": "' if space else b'{"model":"') + name.encode("utf-8", "surrogatepass") + rest
    first = model_in_json(body)
    assert model_in_body(body, "application/json") == first == model_in_body(body + b" ", "application/json")


def test_a_name_that_has_not_ended_is_none() -> None:
    """Not even one that is known, with something behind it."""
    assert model_in_body(b'{"model":"known"}', "application/json") == "known"
    assert model_in_body(b'{"model":"known?', "application/json") == ""


def test_names_and_digests_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up names, or keys, does not fill the memory; and of a key nothing is kept but its digest."""
    monkeypatch.setattr(target, "_REMEMBERED", 10)
    for number in range(100):
        assert model_in_json(b'{"model":"m%d"}' % number) == f"m{number}"
        assert credential_digest(b"secret-%d" % number) == credential_digest(b"secret-%d" % number)
    cleaned, digests = attrgetter("_cleaned", "_digests")(target)
    assert len(cleaned) <= 10
    assert len(digests) <= 10
    assert "secret" not in repr(digests)


def test_each_credential_has_a_digest_of_its_own() -> None:
    """Also of those that are remembered."""
    made = {credential_digest(b"key-%d" % number) for number in range(500)}
    assert len(made) == 500
    assert made == {credential_digest(b"key-%d" % number) for number in range(500)}


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_headers_and_bodies_are_got_at_in_either_way(library: Any) -> None:
    """Without a copy where a package keeps them as we know it, and by what it promises where it does not."""

    class Other:
        def __init__(self, given: Any) -> None:
            self.raw = given

    headers = library.Headers([("Accept", "a"), ("X-B", "c")])
    expected = [(b"Accept", b"accept", b"a"), (b"X-B", b"x-b", b"c")]
    assert list(entries_of(library.Headers)(headers)) == expected
    assert list(entries_of(Other)(headers)) == expected
    assert isinstance(entries_of(library.Headers), attrgetter)
    body = library.ByteStream(b"abc")
    assert content_of(library.ByteStream)(body) == content_of(Other)(body) == b"abc"


def test_headers_of_requests_may_be_a_plain_mapping() -> None:
    """A prepared request's headers can be replaced by what the user likes."""
    assert requests_entries({"Accept": "a"}) == [(b"", b"accept", b"a")]


def test_what_a_header_says_is_found_however_many_were_met() -> None:
    """Names that say nothing are remembered up to a limit; those that say something are never among them."""
    layer = Layer(None, "POST", "http://x/")
    for number in range(3000):
        name = b"x-other-%d" % number
        told = Told([(name, name, b"0"), (b"", b"content-length", b"3"), (b"", b"x-remaining", b"0")])
        assert told.length == 3
        assert told.spent
        assert Noted([(name, name, b"1"), (b"", b"x-api-key", b"k")], layer).credential == b"k"
    assert len(_SAYS_NOTHING) <= 1024


# ---- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shields", [False, True], ids=["of somebody else's", "of the package's own"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_body_that_was_read_is_closed_for_certain(shields: bool, backend: str) -> None:
    """A stream of an unknown class is closed in a scope that cannot be cancelled; the packages' own see to it."""
    closed: list[str] = []

    class Stream:
        async def aclose(self) -> None:
            await anyio.lowlevel.checkpoint()
            closed.append("closed")

    Stream.__module__ = "httpx.other" if shields else "elsewhere"

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await aclose_read(Stream())

    anyio.run(main, backend=backend)
    assert closed == ([] if shields else ["closed"])


def test_what_a_session_would_read_was_read(gateway: Gateway) -> None:
    """A whole answer is handed up as the session itself would have left it: read, and its connection given back."""
    with requests.Session() as bare, requests.Session() as session:
        gr.mount(session)
        answers = [by.post(f"{gateway.url}/v1/chat/completions", json=ASK) for by in (bare, session, session)]
        assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
        assert [answer.raw.read() for answer in answers] == [b"", b"", b""]
        assert [b"".join(answer.iter_content(7)) for answer in answers] == [
            answer.content for answer in answers
        ]
        streamed = session.post(f"{gateway.url}/v1/chat/completions", json=ASK, stream=True)
        assert streamed.raw.read() == answers[1].content
    assert len({seen.connection for seen in gateway.requests[1:]}) == 1
