"""Broken streams under the unmodified SDKs: the rows of a table of measurements, bare and mounted.

`data/sdk_break_matrix.json` says what each SDK does when a stream breaks at a certain point in a certain way. Bare,
most of them take a stream that ends in order for the whole answer. Mounted, there is one whole answer or an error.
"""

from __future__ import annotations

import contextlib
import gc
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.from_thread
import httpx2
import openai
import pytest

import gip_resilience as gr
from gip_resilience.gateway import FaultPlan, Gateway
from gip_resilience.gateway.replies import BreakStream
from gip_resilience.gateway.streaming import StreamOptions
from gip_resilience.testing import FakeClock
from sdk_streams import ASKED, MODEL, READERS, Reader, Reading, read, report_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MATRIX = json.loads((Path(__file__).parent / "data" / "sdk_break_matrix.json").read_text(encoding="utf-8"))
SILENT_BARE = {
    (row["client"], row["break_point"], row["how"]) for row in MATRIX["rows"] if row["silent_truncation"]
}
"""Where the bare SDK takes a part of the answer for all of it, as measured."""

CONFIG = gr.Config(
    breaker={"mode": "off"},  # type: ignore[arg-type]
    budget={"mode": "off"},  # type: ignore[arg-type]
    policies={"stream": gr.Policy(max_attempts=2)},
)

HOW: dict[str, dict[str, Any]] = {
    "eof": {"how": "eof"},
    "fin": {"how": "fin"},
    "rst": {"how": "rst"},
    "stall": {"how": "stall"},
    "close_eof": {"how": "eof", "framing": "close"},
    "cl_fin": {"how": "fin", "framing": "length"},
}
POINTS = [point for point in MATRIX["break_points"] if not point.startswith("perr")]
ROWS = [(point, how) for point in POINTS for how in HOW if how != "stall" or point in {"pn", "pfinal"}]
"""Stalls take their time, so of these only two; the rest is for the exhaustive run."""

STALLS = [(point, "stall") for point in POINTS if (point, "stall") not in ROWS]


@dataclass(frozen=True)
class Places:
    """Where in the bytes of one answer the points of the table are."""

    data: bytes
    ends: list[int]
    first: int
    """Number of events up to the first that holds text."""

    def cut(self, point: str) -> dict[str, Any]:
        """The place of *point*, for a `BreakStream`."""
        ends, n = self.ends, self.first
        match point:
            case "p0":
                return {"events": 0}
            case "pn":
                return {"events": n}
            case "pmid":
                return {"byte": (ends[n - 1] + ends[n]) // 2}
            case "putf":
                return {"events": n, "char": True}
            case "pnonl":
                return {"byte": ends[n] - 1}
            case "pfinal":
                return {"events": len(ends) - 1}
        return {"events": len(ends)}


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect before and after, and not in between.

    Streams are left open here. A collector that finds one of httpx while httpcore holds the lock of its pool waits
    for that lock for ever: closing the stream takes it.
    """
    gc.collect()
    gc.freeze()  # what is alive by now is not this test's, and the SDKs' models take long to look through
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.fixture(scope="module")
def portal() -> Iterator[Any]:
    """An event loop for the SDKs that await."""
    with anyio.from_thread.start_blocking_portal("asyncio") as started:
        yield started


@pytest.fixture(scope="module", params=READERS.values(), ids=repr)
def reader(request: pytest.FixtureRequest) -> Reader:
    """Each SDK, and way to read with it, in turn."""
    found: Reader = request.param
    return found


@dataclass
class Both:
    """The same SDK client twice."""

    bare: Any
    mounted: Any


@pytest.fixture(scope="module")
def clients(reader: Reader, running: Gateway, portal: Any) -> Iterator[Both]:
    """A bare and a mounted client of the SDK."""
    both = Both(reader.client(running.url), reader.client(running.url))
    gr.mount(both.mounted, gr.Resilience(CONFIG, clock=FakeClock()))
    yield both
    for client in (both.bare, both.mounted):
        with contextlib.suppress(AttributeError):
            if reader.awaits:
                portal.call(client.close)
            else:
                client.close()


@pytest.fixture(scope="module")
def whole(reader: Reader, clients: Both, running: Gateway, portal: Any) -> str:
    """The whole answer."""
    running.plan = FaultPlan()
    reading = read(reader, clients.bare, portal)
    assert reading.error is None
    assert "ü" in reading.text
    return reading.text


@cache
def places(url: str, path: str) -> Places:
    """The bytes of the answer to what the SDKs ask here."""
    body: dict[str, Any] = {"model": MODEL, "stream": True, "max_tokens": 50, "messages": ASKED}
    if path.endswith("responses"):
        body = {"model": MODEL, "stream": True, "input": "Grüße"}
    data = httpx2.post(url + path, json=body).content
    blocks = gr.sse.EventSplitter().feed(data)
    ends = [len(b"".join(blocks[: number + 1])) for number in range(len(blocks))]
    first = next(number for number, block in enumerate(blocks, 1) if b"You" in block)
    return Places(data, ends, first)


def broken(running: Gateway, reader: Reader, point: str, how: str, *, always: bool) -> None:
    """Let the gateway break the next stream, or all."""
    running.plan = FaultPlan()
    where = places(running.url, reader.path).cut(point)
    reply = BreakStream(**where, **HOW[how])
    running.plan = FaultPlan.always(reply) if always else FaultPlan.script([reply])
    running.clear()


def assert_honest(reading: Reading, whole: str, reader: Reader, point: str, how: str) -> None:
    """Either the whole answer, or an error of the kind that the SDK has for it; never a part as the whole."""
    assert "UnicodeDecodeError" not in reading.chain
    if reading.error is None:
        assert reading.text == whole, "a part of the answer passes for the whole"
        return
    assert whole.startswith(reading.text)
    assert isinstance(reading.error, reader.timeout if how == "stall" else reader.error), reading.chain
    report = report_of(reading)
    assert report is not None
    assert report.outcome == "failure"
    complete = point == "pall" or (point == "pfinal" and "resp" not in reader.name)
    assert not complete, "the whole answer is reported as a failure"


@pytest.mark.parametrize(("point", "how"), ROWS)
def test_a_stream_that_always_breaks(
    reader: Reader, clients: Both, whole: str, running: Gateway, portal: Any, point: str, how: str
) -> None:
    """No part passes for the whole, no whole is called a failure, and no decoder's error gets out."""
    broken(running, reader, point, how, always=True)

    assert_honest(read(reader, clients.mounted, portal), whole, reader, point, how)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("point", "how"), STALLS)
def test_a_stream_that_always_stalls(
    reader: Reader, clients: Both, whole: str, running: Gateway, portal: Any, point: str, how: str
) -> None:
    """The same where it falls silent."""
    broken(running, reader, point, how, always=True)

    assert_honest(read(reader, clients.mounted, portal), whole, reader, point, how)


@pytest.mark.parametrize(("point", "how"), [row for row in ROWS if row[1] != "stall"])
def test_a_stream_that_breaks_once(
    reader: Reader, clients: Both, whole: str, running: Gateway, portal: Any, point: str, how: str
) -> None:
    """With a good second attempt the answer is whole; after output, where it is meant to be the same every time."""
    broken(running, reader, point, how, always=False)
    reading = read(reader, clients.mounted, portal, **(reader.exact or {}))

    if reader.exact is None and point not in {"p0", "pall"}:
        assert_honest(reading, whole, reader, point, how)
        return
    assert reading.error is None
    assert reading.text == whole
    assert len(running.requests) == 1 + (point not in {"pfinal", "pall"})
    if "helper" in reader.name:
        assert reading.final in {"stop", "end_turn", "completed"}


@pytest.mark.parametrize("events", [0, 3])
def test_an_error_in_the_stream_that_stays(
    reader: Reader, clients: Both, whole: str, running: Gateway, portal: Any, events: int
) -> None:
    """What the server says in the end is what the SDK gets: the same exception as bare, or the same event."""
    shape = {"anth": "anthropic", "oai_resp": "event_flat"}
    kind: Any = next((shape[start] for start in shape if reader.name.startswith(start)), "nested")
    running.plan = FaultPlan.always(BreakStream(how="error", events=events, shape=kind, done=True))
    bare = read(reader, clients.bare, portal)
    mounted = read(reader, clients.mounted, portal)

    assert type(mounted.error) is type(bare.error)
    assert mounted.told == bare.told
    assert mounted.text == bare.text != whole
    assert mounted.error is not None or mounted.told


def test_how_much_is_lost_without_a_word(
    reader: Reader, clients: Both, whole: str, running: Gateway, portal: Any
) -> None:
    """Over the ten ways to end in order but too early: bare as it was measured, mounted none."""
    lost = {"bare": 0, "mounted": 0}
    undecoded = {"bare": 0, "mounted": 0}
    for point in ("p0", "pn", "pmid", "putf", "pnonl"):
        for how in ("eof", "close_eof"):
            for kind, client in (("bare", clients.bare), ("mounted", clients.mounted)):
                broken(running, reader, point, how, always=True)
                reading = read(reader, client, portal)
                lost[kind] += reading.error is None and reading.text != whole
                undecoded[kind] += "UnicodeDecodeError" in reading.chain

    assert lost["mounted"] == undecoded["mounted"] == 0
    assert lost["bare"] + undecoded["bare"] > 0
    if reader.name.startswith("oai_chat") and "helper" not in reader.name:
        assert (lost["bare"], undecoded["bare"]) == (8, 2)
        assert sum(row[0] == "oai_chat" for row in SILENT_BARE) == 8


# ---- what helpers make of a mended stream ------------------------------------------------------------------


@pytest.fixture
def brain() -> gr.Resilience:
    """A brain that neither a circuit nor a budget stops."""
    return gr.Resilience(CONFIG, clock=FakeClock())


@pytest.fixture(scope="module")
def rechunking() -> Iterator[Gateway]:
    """A gateway whose answers differ from request to request in all but their text."""
    with Gateway(streams=StreamOptions(rechunk=True)) as started:
        yield started


TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("events", range(1, 8))
def test_a_tool_call_is_not_put_together_from_two(
    rechunking: Gateway, brain: gr.Resilience, events: int
) -> None:
    """One id, one name, whole arguments: what a naive replay gets wrong without a word."""
    rechunking.plan = FaultPlan.script([BreakStream(how="rst", events=events)])
    asked: Any = [{"role": "user", "content": "use the tool"}]
    with openai.OpenAI(base_url=rechunking.base_url, api_key="any") as client:
        gr.mount(client, brain)
        with client.chat.completions.stream(
            model=MODEL, messages=asked, tools=TOOLS, temperature=0
        ) as stream:
            message = stream.get_final_completion().choices[0].message

    assert message.role == "assistant"
    assert message.tool_calls is not None
    [call] = message.tool_calls
    assert call.function.name == "look"
    assert isinstance(json.loads(call.function.arguments), dict)
    assert call.id.count("call") == 1


@pytest.mark.parametrize("events", range(2, 9))
def test_a_background_response_is_taken_up_where_it_was(
    running: Gateway, brain: gr.Resilience, events: int
) -> None:
    """The run goes on at the server; the rest is asked for by number, and the POST is not repeated."""
    running.plan = FaultPlan.script([BreakStream(how="fin", events=events)])
    running.clear()
    with openai.OpenAI(base_url=running.base_url, api_key="any") as client:
        gr.mount(client, brain)
        stream = client.responses.create(model=MODEL, input="Grüße", stream=True, background=True)
        seen = [(event.sequence_number, event.type) for event in stream]

    assert [number for number, _ in seen] == list(range(len(seen)))
    assert seen[-1][1] == "response.completed"
    assert [request.method for request in running.requests] == ["POST", "GET"]


# ---- connections and attempts ------------------------------------------------------------------------------


@pytest.mark.parametrize("mounted", [False, True], ids=["bare", "mounted"])
@pytest.mark.parametrize("name", ["oai_chat", "oai_resp", "anth_raw", "groq_chat", "mistral_chat"])
def test_six_streams_use_one_connection(portal: Any, name: str, mounted: bool) -> None:
    """The terminator of the body is read before the connection is given back; bare, OpenAI's throws it away."""
    reader = READERS[name]
    with Gateway(FaultPlan.always(BreakStream(how="eof", events=99, late=0.002))) as gateway:
        client = reader.client(gateway.url)
        if mounted:
            gr.mount(client)
        for _ in range(6):
            assert read(reader, client, portal).error is None
        connections = gateway.connections
        with contextlib.suppress(AttributeError):
            client.close()

    if mounted:
        assert connections == 1
    elif name == "oai_chat":
        assert connections == 6


def test_attempts_do_not_multiply(running: Gateway) -> None:
    """An SDK with retries of its own, and a stream that always breaks: our attempts, and no more."""
    brain = gr.Resilience(
        gr.Config(breaker={"mode": "off"}),  # type: ignore[arg-type]
        clock=FakeClock(),
    )
    running.plan = FaultPlan.always(BreakStream(how="fin", events=1))
    running.clear()
    with openai.OpenAI(base_url=running.base_url, api_key="any", max_retries=2) as client:
        gr.mount(client, brain)
        with pytest.raises(openai.APIConnectionError):
            list(client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))

    assert len(running.requests) == 3
