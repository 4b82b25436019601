"""What is left of a broken stream: the events that are put in, the bytes that stay, and how it is written down."""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.gateway import BreakStream, Error, FaultPlan, Ok, PlanError, Slow
from gip_resilience.gateway.answers import Answer, Parts
from gip_resilience.gateway.breaking import NOT_JSON, broken

FAILED = (
    b'data: {"error":{"type":"internal_server_error","code":"stream_error",'
    b'"message":"The request failed with stream_error."}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def event(value: object, name: str = "") -> bytes:
    """A server-sent event."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + msgspec.json.encode(value) + b"\n\n"


CHUNKS = [
    b": comment\n\n",
    event({"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [1]}),
    event({"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [2]}),
    DONE,
]
RUN = [
    event(
        {"type": name, "sequence_number": 3 + number, "response": {"id": "r1", "status": "x", "output": [1]}},
        name,
    )
    for number, name in enumerate(("response.created", "response.in_progress", "response.completed"))
]
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
CODED = {"code": "stream_error", "message": "The request failed with stream_error."}
NESTED = {"error": {"type": "internal_server_error", **CODED}}
CHOICE = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}


@pytest.mark.parametrize(
    ("shape", "stream", "expected"),
    [
        pytest.param("nested", CHUNKS, FAILED, id="nested"),
        pytest.param("flat", CHUNKS, event({"object": "error", **NESTED["error"]}), id="flat"),
        pytest.param("list", CHUNKS, event([NESTED]), id="list"),
        pytest.param("event", CHUNKS, event(NESTED, "error"), id="event"),
        pytest.param(
            "event_flat",
            RUN,
            event({"type": "error", **CODED, "sequence_number": 5}, "error"),
            id="event_flat",
        ),
        pytest.param(
            "event_flat",
            CHUNKS,
            event({"type": "error", **CODED, "sequence_number": 0}, "error"),
            id="event_flat without numbers",
        ),
        pytest.param(
            "event_text",
            CHUNKS,
            b"event: error\ndata: The request failed with stream_error.\n\n",
            id="event_text",
        ),
        pytest.param("choices", CHUNKS, event({**HEAD, "choices": [], **NESTED}), id="choices"),
        pytest.param("choices", [b"text"], event({"choices": [], **NESTED}), id="choices of no stream"),
        pytest.param(
            "openrouter", CHUNKS, event({**HEAD, "error": CODED, "choices": [CHOICE]}), id="openrouter"
        ),
        pytest.param("bare", CHUNKS, FAILED.removeprefix(b"data: "), id="bare"),
        pytest.param(
            "anthropic",
            CHUNKS,
            event(
                {"type": "error", "error": {"type": "overloaded_error", "message": CODED["message"]}}, "error"
            ),
            id="anthropic",
        ),
        pytest.param(
            "failed",
            RUN,
            event(
                {
                    "type": "response.failed",
                    "sequence_number": 5,
                    "response": {"id": "r1", "status": "failed", "output": [], "error": CODED},
                },
                "response.failed",
            ),
            id="failed",
        ),
        pytest.param(
            "failed",
            CHUNKS,
            event(
                {
                    "type": "response.failed",
                    "sequence_number": 0,
                    "response": {"object": "response", "status": "failed", "error": CODED, "output": []},
                },
                "response.failed",
            ),
            id="failed without a response",
        ),
    ],
)
@pytest.mark.parametrize("done", [False, True], ids=["", "done"])
def test_shapes_of_errors(shape: Any, stream: list[bytes], expected: bytes, done: bool) -> None:
    """Each shape is exactly this, and the marker follows it where it was asked for."""
    reply = BreakStream(how="error", events=2, shape=shape, done=done)
    answer = broken(Answer(body=Parts(iter(stream))), reply)
    assert isinstance(answer.body, Parts)
    *before, error = list(answer.body.pieces)[: -1 if done else None]
    assert before == stream[:2]
    assert _parsed(error) == _parsed(expected)
    assert len(error) == len(expected)
    assert (list(answer.body.pieces)[-1] == DONE) == done
    assert answer.code == "stream_error"


def _parsed(event: bytes) -> list[object]:
    """The lines of an event, JSON without regard to the order of its keys."""
    lines: list[object] = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b": ") if line.startswith(b"data: ") else (b"", b"", line)
        try:
            lines += [name, json.loads(value)]
        except ValueError:
            lines += [name, value]
    return lines


@pytest.mark.parametrize(
    ("events", "number"), [(0, 3), (1, 4), (2, 5), (3, 6), (9, 6)], ids=lambda value: str(value)
)
def test_errors_are_numbered_on(events: int, number: int) -> None:
    """An error takes the number of the first event that is missing, also in a stream that was resumed."""
    answer = broken(
        Answer(body=Parts(RUN)), BreakStream(how="error", shape="event_flat", events=events, code="c")
    )
    assert isinstance(answer.body, Parts)
    *_, error = answer.body.pieces
    assert json.loads(error.partition(b"data: ")[2])["sequence_number"] == number


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("nested", {"error": {"type": "kind", "code": 529, "message": "words"}}),
        ("openrouter", {"error": {"code": 529, "message": "words"}, "choices": [CHOICE]}),
        ("anthropic", {"type": "error", "error": {"type": "kind", "message": "words"}}),
    ],
)
def test_an_error_can_be_dressed(shape: Any, expected: object) -> None:
    """Code, type and message can be set; a code may be a number."""
    reply = BreakStream(how="error", shape=shape, code=529, type="kind", message="words")
    answer = broken(Answer(), reply)
    assert isinstance(answer.body, Parts)
    (error,) = answer.body.pieces
    assert json.loads(error.partition(b"data: ")[2]) == expected
    assert answer.code == "529"


@pytest.mark.parametrize("before", [b"", b"id: 7\n", b": comment\n\n"], ids=["", "id", "comment"])
def test_a_garbled_event_keeps_its_name(before: bytes) -> None:
    """Clients that pass over events without a name must see this one."""
    run = [before + event for event in RUN]
    answer = broken(Answer(body=Parts(run)), BreakStream(how="garbled", events=1))
    assert isinstance(answer.body, Parts)
    first, garbled, *rest = answer.body.pieces
    assert garbled == b"event: response.in_progress\n" + NOT_JSON
    assert [first, *rest] == run
    with pytest.raises(ValueError):
        json.loads(NOT_JSON.partition(b": ")[2])


def beyond_ascii(body: bytes) -> list[int]:
    """Where each character beyond ASCII begins."""
    text = body.decode()
    return [len(text[:place].encode()) for place, char in enumerate(text) if not char.isascii()]


hows = st.sampled_from(["eof", "fin", "rst", "stall", "error", "garbled"])


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.lists(st.text(max_size=6).map(str.encode), max_size=6),
    hows,
    st.one_of(
        st.just({}), st.builds(dict, byte=st.integers(0, 40)), st.builds(dict, events=st.integers(0, 7))
    ),
    st.booleans(),
    st.booleans(),
    st.integers(0, 5),
)
def test_a_break_keeps_what_comes_before_it(
    pieces: list[bytes], how: Any, where: dict[str, Any], char: bool, gzip: bool, chunk: int
) -> None:
    """Any body, any place: a prefix is sent, nothing of it changes, and no length is true that must not be."""
    whole = b"".join(pieces)
    reply = BreakStream(how=how, char=char, framing="length", gzip=gzip, chunk=chunk, **where)
    body = broken(Answer(body=Parts(iter(pieces))), reply).body
    assert isinstance(body, Parts)
    sent = b"".join(body.pieces)
    assert (body.length == len(sent)) == (how in ("eof", "error", "garbled"))
    assert (body.length or 0) >= len(sent)
    plain = zlib.decompressobj(wbits=31).decompress(sent) if gzip else sent
    prefix = plain.partition({"error": FAILED, "garbled": NOT_JSON}.get(how, b"\xff"))[0]
    place = min(len(whole), where.get("byte", len(b"".join(pieces[: where.get("events", 0)]))))
    if char:
        place = next(
            (start + 1 for start in beyond_ascii(whole) if start >= place), max(place, len(whole) // 2)
        )
    assert prefix == whole[:place]


# -------------------------------------------------------------------------------------------- plan files

EVERYTHING = BreakStream(
    how="error",
    byte=100,
    char=True,
    framing="length",
    gzip=True,
    chunk=3,
    late=0.5,
    code=503,
    shape="openrouter",
    message="words",
    type="kind",
    done=True,
    then=Slow(1.0, Error("model_overloaded")),
)
TOML = """
[[rules]]
nth = 1
reply = {kind = "break_stream"}

[[rules]]
nth = 2
reply = {kind = "break_stream", how = "fin", events = 999, trickle = 0.5}

[[rules]]
[rules.reply]
kind = "break_stream"
how = "error"
byte = 100
char = true
framing = "length"
gzip = true
chunk = 3
late = 0.5
code = 503
shape = "openrouter"
message = "words"
type = "kind"
done = true
then = {kind = "slow", seconds = 1, then = {kind = "error", code = "model_overloaded"}}
"""


def test_breaks_in_a_plan_file() -> None:
    """Every option can be written down, and comes back."""
    plan = FaultPlan.from_toml(TOML)
    assert [rule.reply for rule in plan.rules] == [
        BreakStream(),
        BreakStream(how="fin", events=999, trickle=0.5),
        EVERYTHING,
    ]
    assert FaultPlan.from_dict(msgspec.to_builtins(plan)) == plan
    assert repr(BreakStream(events=2)) == "BreakStream(events=2)"


REFUSED = [
    pytest.param({"how": "reset"}, "", id="how"),
    pytest.param({"framing": "http2"}, "", id="framing"),
    pytest.param({"how": "error", "shape": "round"}, "", id="shape"),
    pytest.param({"events": 1, "byte": 1}, "two places", id="two places"),
    pytest.param({"events": -1}, "events must not", id="events"),
    pytest.param({"byte": -1}, "byte must not", id="byte"),
    pytest.param({"chunk": -1}, "chunk must not", id="chunk"),
    pytest.param({"late": -0.1}, "late must not", id="late"),
    pytest.param({"late": float("nan")}, "late must not", id="late nan"),
    pytest.param({"trickle": -1.0}, "trickle must be", id="trickle"),
    pytest.param({"trickle": 0.009}, "trickle must be", id="trickle too fast"),
    pytest.param({"trickle": 11.0}, "trickle must be", id="trickle too slow"),
    pytest.param({"trickle": float("nan")}, "trickle must be", id="trickle nan"),
    pytest.param({"trickle": 1.0, "framing": "close"}, "needs framing", id="trickle without chunks"),
    pytest.param({"code": "x"}, "need how", id="code of no error"),
    pytest.param({"shape": "flat"}, "need how", id="shape of no error"),
    pytest.param({"message": "x"}, "need how", id="message of no error"),
    pytest.param({"type": "x"}, "need how", id="type of no error"),
    pytest.param({"done": True}, "need how", id="done of no error"),
    pytest.param({"how": "error", "message": "a\nb"}, "one line", id="message of two lines"),
]


@pytest.mark.parametrize(("options", "problem"), REFUSED)
def test_senseless_breaks_are_refused(options: dict[str, Any], problem: str) -> None:
    """A break that cannot be played does not exist, neither in Python nor in a plan."""
    with pytest.raises(ValueError, match=problem or "must be one of"):
        BreakStream(**options)
    with pytest.raises(PlanError, match=problem or "Invalid enum value|invalid enum value") as caught:
        FaultPlan.from_dict({"rules": [{"reply": {"kind": "break_stream", **options}}]})
    assert caught.value.path.startswith("rules[0].reply")


@pytest.mark.parametrize("options", [{"events": "2"}, {"char": 1}, {"gzip": "yes"}, {"then": {"kind": "x"}}])
def test_wrong_types_are_refused(options: dict[str, Any]) -> None:
    """A plan says which value is wrong."""
    with pytest.raises(PlanError) as caught:
        FaultPlan.from_dict({"rules": [{"reply": {"kind": "break_stream", **options}}]})
    assert caught.value.path.startswith(f"rules[0].reply.{next(iter(options))}")


def test_a_break_is_named_in_full() -> None:
    """It has so many options that a place in a list would mean nothing to a reader."""
    with pytest.raises(TypeError):
        BreakStream("eof")  # type: ignore[call-arg]
    assert BreakStream() == BreakStream(then=Ok())
