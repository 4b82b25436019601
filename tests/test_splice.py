"""What is handed up of one stream, and of several made into one: no socket, no wait, every cut and every chunking."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.recovery import Action, Asked, Phase
from gip_resilience.sse import BOM
from replays import (
    DONE,
    PING,
    ROLE,
    anthropic,
    calls,
    chat,
    event,
    gemini,
    legacy,
    usage,
)
from splicing import (
    BACKGROUND,
    FAILED,
    NAMES,
    OPENERS,
    PLAIN,
    REPEATABLE,
    SERVER_ERROR,
    STREAMS,
    TEXTS,
    WHOLE,
    cut,
    fed,
    identified,
    read,
    response,
    run,
    spliced,
)

# ---- nothing fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 64])
@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_stream_comes_out_as_it_went_in(name: str, size: int) -> None:
    """Byte for byte, however it is cut, and its end is known by what it says."""
    splice = spliced(name)

    assert read(splice, *cut(WHOLE[name], size)) == WHOLE[name]
    assert splice.over
    assert splice.broken is None
    assert splice.events == len(STREAMS[name])
    assert splice.phase is (Phase.TAIL if name == "gemini" else Phase.DONE)
    assert splice.text == "".join(TEXTS)


ODD: list[tuple[str, str, bytes]] = [
    ("byte order mark", "chat", BOM + WHOLE["chat"]),
    ("CRLF", "gemini", WHOLE["gemini"].replace(b"\n", b"\r\n")),
    ("CR", "chat", WHOLE["chat"].replace(b"\n", b"\r")),
    ("comments", "chat", PING + b"".join(PING + raw for raw in STREAMS["chat"])),
    ("extra blank lines", "chat", WHOLE["chat"].replace(b"\n\n", b"\n\n\n\n")[:-2]),
    ("ids", "chat", b"".join(identified(raw, str(n)) for n, raw in enumerate(STREAMS["chat"]))),
    ("retry", "anthropic", b"retry: 500\n\n" + WHOLE["anthropic"]),
    ("[DONE] after the end", "responses", WHOLE["responses"] + DONE),
    ("comments only, then the marker", "chat", PING * 3 + DONE),
    ("unknown events", "chat", event({"foo": 1, "object": "chat.completion.chunk"}) + event({"bar": 1}) + DONE),
    ("chat where responses were promised", "responses", WHOLE["chat"]),
    ("anthropic where chat was promised", "chat", WHOLE["anthropic"]),
    ("chat where nothing was promised", "unknown", WHOLE["chat"]),
    ("nothing known", "unknown", b"data: tick\n\n: ping\n\ndata: tock\n\nid: 4\n\n"),
    ("nothing known, unfinished", "unknown", b"data: tick\n\ndata: tock"),
    ("nothing known where chat was promised", "chat", event({"object": "list"}) + event({"b": 1})),
    ("comments where nothing was promised", "unknown", b": a\n\n: b\n\n: c"),
    ("empty", "unknown", b""),
]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 2, 7])
@pytest.mark.parametrize(("name", "data"), [row[1:] for row in ODD], ids=[row[0] for row in ODD])
def test_what_is_odd_and_whole_comes_out_as_it_went_in(name: str, data: bytes, size: int) -> None:
    """Also what nobody knows: it is passed on, untouched."""
    splice = spliced(name)

    assert read(splice, *cut(data, size)) == data
    assert splice.over
    assert not splice.notice


@pytest.mark.parametrize("name", NAMES)
def test_a_piece_of_whole_events_is_not_copied(name: str) -> None:
    """The everyday case costs no memory: the very same bytes come out."""
    splice = spliced(name)
    *most, last = STREAMS[name]
    rest = b"".join(most[OPENERS[name] + 1 :])
    fed(splice, *most[: OPENERS[name] + 1])

    assert splice.feed(rest) is rest
    assert splice.feed(last) is last


@pytest.mark.parametrize("name", NAMES)
def test_only_whole_events_come_out(name: str) -> None:
    """After every byte: nothing but events with the blank line that ends them."""
    splice = spliced(name)
    ends = {sum(map(len, STREAMS[name][:count])) for count in range(len(STREAMS[name]) + 1)}
    size = 0
    for number in range(len(WHOLE[name])):
        size += len(splice.feed(WHOLE[name][number : number + 1]))
        assert size in ends


def test_what_follows_the_marker_is_dropped() -> None:
    """But for a gateway's ``[DONE]`` after an end that is not spelled so, once."""
    assert read(spliced(), WHOLE["chat"] + chat({"content": "more"})) == WHOLE["chat"]
    assert read(spliced(), WHOLE["chat"] + DONE) == WHOLE["chat"]
    assert read(spliced("anthropic"), WHOLE["anthropic"] + DONE) == WHOLE["anthropic"]
    whole = WHOLE["responses"]
    assert read(spliced("responses"), whole + DONE + DONE) == whole + DONE
    assert read(spliced("responses"), whole + PING + DONE) == whole
    assert read(spliced("responses"), whole, DONE) == whole + DONE
    assert read(spliced("responses"), whole + b"data: [DO", b"NE]\n\n") == whole + DONE


# ---- what is held back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [b"\r\n", b"\n", b"\r"], ids=["crlf", "lf", "cr"])
def test_what_follows_the_marker_is_the_same_for_any_cut(ends: bytes) -> None:
    """A gateway's ``[DONE]`` is not lost where a read ends between the two halves of a line's end."""
    whole, added = WHOLE["responses"].replace(b"\n", ends), DONE.replace(b"\n", ends)

    for blank in (b"", ends):
        for size in (1, 7, 10_000):
            data = whole + blank + added
            out = fed(spliced("responses"), *(data[at : at + size] for at in range(0, len(data), size)))
            assert out.replace(b"\r", b"\n").replace(b"\n", b"").endswith(b"data: [DONE]"), (blank, size)


@pytest.mark.parametrize(
    "between", [b": keep-alive\n\n", b"\n", b"retry: 3000\n\n"], ids=["comment", "blank", "retry"]
)
def test_what_says_nothing_is_no_event(between: bytes) -> None:
    """Wherever it stands: behind what is held back until the first output, too. It goes up all the same."""
    splice = spliced()
    texts = [chat({"content": "a"}), between, chat({"content": "b"})]
    stream = [chat(ROLE), between, *texts, chat({}, "stop"), DONE]

    assert fed(splice, *stream) == b"".join(stream)
    assert splice.events == 5


@pytest.mark.parametrize("name", NAMES)
def test_what_opens_an_answer_waits_for_its_first_output(name: str) -> None:
    """Until then another attempt can take its place; then it comes out in order, before the output."""
    splice = spliced(name)
    count = OPENERS[name]

    for raw in STREAMS[name][:count]:
        assert splice.feed(raw) == b""
        assert splice.phase is Phase.NONE
    assert splice.events == 0
    assert splice.feed(STREAMS[name][count]) == b"".join(STREAMS[name][: count + 1])
    assert splice.phase is Phase.OUTPUT
    assert splice.events == count + 1


@pytest.mark.parametrize(
    "first",
    [
        chat({"content": "a"}),
        chat({"role": "assistant", "content": "a"}),
        chat({"refusal": "a"}),
        chat({"reasoning_content": "a"}),
        chat(calls(0, name="f", arguments="")),
        chat({}, "stop"),
        event({"object": "chat.completion.chunk", "foo": 1}),
    ],
)
def test_what_counts_as_output(first: bytes) -> None:
    """Anything of the answer, its end, and what nobody knows."""
    splice = spliced()

    assert splice.feed(chat(ROLE)) == b""
    assert splice.feed(first) == chat(ROLE) + first
    assert splice.phase is not Phase.NONE


def test_comments_are_not_held_back_but_keep_their_place() -> None:
    """At once while nothing is held; behind what is held, with it."""
    splice = spliced()

    assert splice.feed(PING) == PING
    assert splice.feed(chat(ROLE)) == b""
    assert splice.feed(PING) == b""
    assert splice.feed(chat({"content": "a"})) == chat(ROLE) + PING + chat({"content": "a"})
    assert splice.feed(PING) == PING


@pytest.mark.parametrize(
    ("name", "request_", "options", "first"),
    [
        ("responses", BACKGROUND, {}, response(0, "response.created")),
        ("responses", PLAIN, {}, response(0, "response.created", background=True)),
        ("responses", PLAIN, {"method": "GET"}, response(0, "response.created")),
        ("chat", PLAIN, {"resumable": True}, identified(chat(ROLE), "1")),
        ("unknown", PLAIN, {"resumable": True}, b"data: tick\n\n"),
    ],
)
def test_what_the_server_can_go_on_from_is_not_held_back(
    name: str, request_: Asked, options: dict[str, Any], first: bytes
) -> None:
    """A run it keeps, an event with an id."""
    assert spliced(name, request_, **options).feed(first) == first


def test_a_cursor_that_is_not_used_holds_back_all_the_same() -> None:
    """With cursors switched off a run in the background is like any other."""
    splice = spliced("responses", BACKGROUND, cursor=False)

    assert splice.feed(response(0, "response.created", background=True)) == b""


def test_no_more_is_held_back_than_allowed() -> None:
    """Then it comes out, and counts as output: another attempt can no longer take its place."""
    splice = spliced("anthropic", max_held=300)
    pings = [anthropic("ping") for _ in range(4)]

    assert fed(splice, *pings[:2]) == b""
    assert fed(splice, *pings[2:]) == b"".join(pings)
    assert splice.phase is Phase.OUTPUT
    splice.lose("stream_reset")
    assert splice.decide().action is Action.FAIL


# ---- how far it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "choices", "events", "phase"),
    [
        ("chat", 1, [], Phase.NONE),
        ("chat", 1, [PING, chat(ROLE)], Phase.NONE),
        ("chat", 1, [chat({"content": "a"})], Phase.OUTPUT),
        ("chat", 1, [chat({"content": "a"}), chat({}, "stop")], Phase.TAIL),
        ("chat", 1, [chat({"content": "a"}, "stop")], Phase.TAIL),
        ("chat", 1, [chat({"content": "a"}), chat({}, "stop"), usage()], Phase.TAIL),
        ("chat", 1, [chat({"content": "a"}), DONE], Phase.DONE),
        ("chat", 2, [chat({"content": "a"}), chat({}, "stop")], Phase.OUTPUT),
        (
            "chat",
            2,
            [event({"choices": [{"index": n, "delta": {}, "finish_reason": "stop"}]}) for n in (1, 0)],
            Phase.TAIL,
        ),
        # More choices came than were asked for.
        (
            "chat",
            1,
            [event({"choices": [{"index": 1, "delta": {"content": "b"}}]}), chat({}, "stop")],
            Phase.OUTPUT,
        ),
        ("completions", 1, [legacy("a"), legacy("", "stop")], Phase.TAIL),
        ("responses", 1, STREAMS["responses"][:-1], Phase.OUTPUT),
        ("responses", 1, STREAMS["responses"], Phase.DONE),
        ("responses", 1, [response(0, "response.incomplete")], Phase.DONE),
        ("anthropic", 1, STREAMS["anthropic"][:-2], Phase.OUTPUT),
        ("anthropic", 1, STREAMS["anthropic"][:-1], Phase.TAIL),
        ("gemini", 1, [gemini({"text": "a"})], Phase.OUTPUT),
        ("gemini", 1, [gemini({"text": "a"}, finish="STOP")], Phase.TAIL),
    ],
)
def test_how_far_an_answer_has_come(name: str, choices: int, events: list[bytes], phase: Phase) -> None:
    """As the caller has seen it."""
    splice = spliced(name, Asked(known=True, choices=choices))
    fed(splice, *events)

    assert splice.phase is phase


# ---- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat", "completions", "anthropic"])
@pytest.mark.parametrize("how", ["end", "stream_reset", "stream_stalled"])
def test_a_marker_that_alone_is_missing_is_supplied(name: str, how: str) -> None:
    """Every choice was finished: the stream ends as the protocol has it, and nothing else is made up."""
    splice = spliced(name)
    out = fed(splice, *STREAMS[name][:-1])

    if how == "end":
        assert splice.end() == b""
    else:
        splice.lose(how)
    assert splice.broken is not None
    decision = splice.decide()
    assert decision.action is Action.MARKER
    assert out + splice.complete(decision.action) == WHOLE[name]
    assert splice.over
    assert splice.broken is None
    assert splice.phase is Phase.DONE
    assert splice.events == len(STREAMS[name])


@pytest.mark.parametrize("how", ["end", "stream_reset"])
def test_a_protocol_without_a_marker_ends_with_its_last_finish(how: str) -> None:
    """Gemini's: in order, or not."""
    splice = spliced("gemini")
    assert fed(splice, WHOLE["gemini"]) == WHOLE["gemini"]

    if how == "end":
        assert splice.end() == b""
    else:
        splice.lose(how)
        assert splice.decide().action is Action.END
        assert splice.complete(Action.END) == b""
    assert splice.over
    assert splice.broken is None


@pytest.mark.parametrize(
    ("name", "count", "missing"),
    [("chat", 7, 1), ("chat", 7, 2), ("anthropic", 8, 1), ("anthropic", 8, 2), ("responses", 9, 2), ("chat", 1, 2)],
)  # fmt: skip
def test_a_marker_without_its_last_line_ends(name: str, count: int, missing: int) -> None:
    """Every byte of the answer is there: it is whole, and what comes out can be parsed."""
    data = b"".join(STREAMS[name][-count:])
    splice = spliced(name)

    assert read(splice, data[:-missing]) == data
    assert splice.over
    assert splice.broken is None


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_in_any_other_place_is_a_break(name: str) -> None:
    """An end in order, before the end that the protocol knows: nothing but whole events has come out."""
    ends = [sum(map(len, STREAMS[name][:count])) for count in range(len(STREAMS[name]) + 1)]
    last = len(WHOLE[name].rstrip(b"\n"))
    for at in range(last if name != "gemini" else len(WHOLE[name])):
        splice = spliced(name)
        out = read(splice, WHOLE[name][:at])
        whole = max(end for end in ends if end <= at)
        assert splice.broken is not None
        assert splice.broken.code == "stream_terminated"
        # What opens the answer is still held.
        assert out == (WHOLE[name][:whole] if splice.phase is not Phase.NONE else b"")


# ---- errors within ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "code"),
    [
        ("chat", FAILED, "model_server_error"),
        ("chat", event(SERVER_ERROR, "error"), "model_server_error"),
        ("chat", b'{"error": {"code": "model_server_error", "message": "-"}}\n\n', "model_server_error"),
        ("chat", b'{\n  "error": {\n    "code": "model_server_error"\n  }\n}\n\n', "model_server_error"),
        ("chat", event({"error": {"code": "invalid_request", "message": "-"}}), "invalid_request"),
        ("chat", b"event: error\ndata: something went wrong\n\n", "error_200"),
        ("anthropic", anthropic("error", error={"type": "overloaded_error", "message": "-"}), "overloaded_error"),
        ("unknown", FAILED, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("started", [0, 1, 2])
def test_an_error_within_the_stream_is_a_break(name: str, raw: bytes, code: str | None, started: int) -> None:
    """Nothing of it comes out before it is sure that nothing can be done; then it does, unchanged, and last."""
    stream = STREAMS["anthropic" if name == "anthropic" else "chat"]
    head = stream[: (0, 1, 4)[started]]
    splice = spliced(name)
    out = fed(splice, *head, raw + DONE)

    if name == "unknown" and not head:
        # Nothing says that this was ever to be an answer of ours.
        assert out == raw + DONE
        return
    fact = splice.broken
    assert fact is not None
    assert code is None or fact.code == code
    assert splice.in_band
    assert out == (b"".join(head) if started == 2 else b"")
    assert splice.decide().action is (Action.FAIL if started == 2 else Action.RESTART)
    assert out + splice.fail() == b"".join(head) + raw
    assert splice.over
    assert splice.broken is None


def test_an_error_that_is_the_last_line_of_the_body() -> None:
    """Bare JSON with no blank line after it never becomes an event, and is an error all the same."""
    tail = json.dumps(SERVER_ERROR).encode()
    splice = spliced()
    out = read(splice, *STREAMS["chat"][:2], tail)

    assert splice.broken is not None
    assert splice.broken.code == "model_server_error"
    assert splice.in_band
    assert out + splice.fail() == b"".join(STREAMS["chat"][:2]) + tail


@pytest.mark.parametrize(
    "raw", [b"data: {oops\n\n", b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n']
)
def test_garbage_within_an_answer_is_a_break(raw: bytes) -> None:
    """It does not come out, nor what follows it."""
    splice = spliced()
    out = fed(splice, *STREAMS["chat"][:2], raw + chat({"content": "a"}))

    assert out == b"".join(STREAMS["chat"][:2])
    assert splice.broken is not None
    assert splice.broken.code == "stream_garbled"
    assert not splice.in_band
    assert splice.fail() == b""


def test_the_server_says_how_long_to_wait_before_the_next_attempt() -> None:
    """The last ``retry`` field, in milliseconds; an error's own word outranks it."""
    for retry, hint in ((b"", None), (b"retry: 1500\n\n", 1.5), (b"retry: 1\n\nretry: 0\n\n", 0.0)):
        splice = spliced()
        fed(splice, retry)
        splice.lose("stream_reset")
        assert splice.broken is not None
        assert (None if splice.broken.hint is None else splice.broken.hint.seconds) == hint
    told = {"error": {"code": "model_overloaded", "message": "-", "retry_after": 9}}
    splice = spliced()
    fed(splice, b"retry: 1500\n\n" + event(told))
    assert splice.broken is not None
    assert splice.broken.hint is not None
    assert splice.broken.hint.seconds == 9.0


# ---- too long --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7, 100])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_event_that_is_too_long_goes_through_unguarded(size: int, count: int) -> None:
    """With all that follows; every byte comes out once, and what it means is not known any more."""
    head = b"".join(STREAMS["chat"][:count])
    long = chat({"content": "x" * 2000})
    data = head + long + WHOLE["chat"]
    splice = spliced(request=REPEATABLE, max_event=500)
    out = fed(splice, *cut(head, size), *cut(long[:1000], size))

    assert out == head + long[:1000]
    assert splice.notice == "an event is longer than stream.max_event"
    assert not splice.guarded
    assert splice.phase is Phase.OUTPUT
    out += fed(splice, *cut(data[len(out) :], size)) + splice.end()
    assert out == data
    assert splice.over


@pytest.mark.parametrize("count", [0, 1, 3])
def test_after_an_event_that_is_too_long_nothing_is_mended(count: int) -> None:
    """Part of it is with the caller: neither a restart nor a replay could tell what is missing."""
    for lost in ("stream_reset", "stream_stalled"):
        splice = spliced(request=REPEATABLE, max_event=500)
        fed(splice, *STREAMS["chat"][:count], chat({"content": "x" * 2000})[:1000])
        splice.lose(lost)
        decision = splice.decide()
        assert decision.action is Action.FAIL
        assert decision.reason == splice.notice


def test_an_event_that_came_whole_is_not_too_long() -> None:
    """The limit is on what is waited for."""
    splice = spliced(max_event=50)

    assert splice.feed(WHOLE["chat"]) == WHOLE["chat"]
    assert not splice.notice


@pytest.mark.parametrize("action", [Action.RESUME, Action.REPLAY])
def test_an_event_that_is_too_long_to_be_compared_is_a_break(action: Action) -> None:
    """Nobody can tell what of it is new."""
    splice = spliced(request=REPEATABLE, resumable=action is Action.RESUME, max_event=500)
    fed(splice, identified(chat({"content": "a"}), "1"))
    splice.lose("stream_reset")
    splice.begin(action)

    assert splice.feed(chat({"content": "x" * 2000})[:1000]) == b""
    assert splice.broken is not None
    assert splice.broken.code == "stream_garbled"


def test_a_stream_that_is_too_long_to_be_remembered_goes_on() -> None:
    """Every byte comes out, its end is known, and only a replay is no longer possible."""
    pieces = [chat({"content": "x" * 50}) for _ in range(10)]
    splice = spliced(request=REPEATABLE, max_delivered=1000)

    assert fed(splice, *pieces) == b"".join(pieces)
    assert splice.notice == "longer than stream.max_delivered"
    assert splice.guarded
    assert splice.text is None
    splice.lose("stream_reset")
    assert splice.decide().reason == "more was handed up than is remembered"

    splice = spliced(request=REPEATABLE, max_delivered=1000)
    fed(splice, *pieces, chat({}, "stop"))
    splice.lose("stream_reset")
    assert splice.decide().action is Action.MARKER

    splice = spliced(resumable=True, max_delivered=1000)
    fed(splice, *(identified(raw, str(n)) for n, raw in enumerate(pieces)))
    splice.lose("stream_reset")
    assert (
        splice.decide().action is Action.FAIL
    )  # what has come before could no longer be told from what is new


@pytest.mark.parametrize("cut", [0, 1, 137, 200])
def test_only_the_first_block_behind_the_end_belongs_to_the_stream(cut: int) -> None:
    """However what follows is cut: a gateway's ``[DONE]`` comes up, a second answer and its end do not."""
    first, last = STREAMS["responses"][0], STREAMS["responses"][-1]
    answer = first + last

    for more, kept in ((DONE, DONE), (first + last, b""), (first + DONE, b"")):
        splice = spliced("responses")
        assert fed(splice, answer + more[:cut], more[cut:]) == answer + kept


# ---- any sequence, any cut -------------------------------------------------------------------------------

POOLS = {
    "chat": [
        *STREAMS["chat"],
        PING,
        b"retry: 10\n\n",
        identified(PING, "7"),
        identified(chat({"content": "i"}), "8"),
        event({"object": "chat.completion.chunk", "foo": 1}),
        b"event: ping\ndata: {}\n\n",
        FAILED,
        json.dumps(SERVER_ERROR).encode() + b"\n\n",
        b"data: {oops\n\n",
    ],
    "responses": [*STREAMS["responses"], PING, DONE, response(9, "response.failed"), run(5, "error", code="x")],
    "anthropic": [*STREAMS["anthropic"], PING, anthropic("error", error={"type": "overloaded_error"})],
    "gemini": [*STREAMS["gemini"], PING, FAILED, b"data: \n\n"],
    "unknown": [*STREAMS["chat"], b"data: tick\n\n", PING, FAILED, b"id: 3\n\n"],
}  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_comes_out_is_whole_events_of_what_went_in(data: st.DataObject) -> None:
    """Any events in any order, cut anywhere, broken in any way: a prefix of the stream, at the end of an event."""
    name = data.draw(st.sampled_from(sorted(POOLS)))
    events = data.draw(st.lists(st.sampled_from(POOLS[name]), max_size=12))
    stream = b"".join(events)
    stop = data.draw(st.integers(0, len(stream)))
    places = sorted(data.draw(st.sets(st.integers(0, stop), max_size=8)) | {0, stop})
    splice = spliced(
        name, resumable=data.draw(st.booleans()), max_held=data.draw(st.sampled_from([0, 400, 1 << 16]))
    )
    out = fed(splice, *(stream[one:other] for one, other in pairwise(places)))
    guarded = splice.guarded

    if not splice.over and not splice.broken:
        if data.draw(st.booleans()):
            out += splice.end()
        else:
            splice.lose("stream_reset")
    assert stream.startswith(out)
    if guarded:
        assert out in {stream[: sum(map(len, events[:count]))] for count in range(len(events) + 1)}
    if splice.broken:
        last = splice.fail()
        assert stream.startswith(out + last)
