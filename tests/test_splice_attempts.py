"""One stream made of several attempts: restarted, replayed, resumed; and how far each may be trusted."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.recovery import Action, Phase
from gip_resilience.sse import BOM
from replays import (
    DONE,
    PING,
    ROLE,
    chat,
    event,
    usage,
)
from splicing import (
    BACKGROUND,
    FAILED,
    NAMES,
    OPENERS,
    REPEATABLE,
    STREAMS,
    TEXTS,
    WHOLE,
    cut,
    fed,
    identified,
    read,
    response,
    spliced,
)

# ---- a new attempt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_leaves_no_trace_of_what_was_held(name: str) -> None:
    """The caller sees the second attempt only, whatever opened the first."""
    splice = spliced(name)
    held = b"".join(STREAMS[name][: OPENERS[name]]).replace(b"-1", b"-0").replace(b"_1", b"_0")
    out = fed(splice, held)
    splice.lose("stream_reset")

    assert splice.decide().action is Action.RESTART
    splice.begin(Action.RESTART)
    assert splice.broken is None
    assert out + read(splice, WHOLE[name]) == WHOLE[name]
    assert splice.over
    assert splice.events == len(STREAMS[name])


def test_the_mark_at_the_start_of_a_later_attempt_is_taken_off() -> None:
    """In the middle of a stream it would be part of a field's name. The first one stays where it is."""
    splice = spliced()
    assert splice.feed(BOM + PING) == BOM + PING
    splice.lose("stream_reset")
    splice.begin(Action.RESTART)
    assert read(splice, BOM + WHOLE["chat"]) == WHOLE["chat"]

    splice = spliced(resumable=True)
    assert splice.feed(identified(chat({"content": "a"}), "1")) == identified(chat({"content": "a"}), "1")
    splice.lose("stream_reset")
    splice.begin(Action.RESUME)
    assert read(splice, BOM + DONE) == DONE


@pytest.mark.parametrize("promised", ["chat", "anthropic", "unknown"])
@pytest.mark.parametrize("name", ["chat", "anthropic", "gemini"])
@pytest.mark.parametrize("first", [b"", PING, FAILED, STREAMS["responses"][0]])
def test_a_restart_learns_the_protocol_afresh(promised: str, name: str, first: bytes) -> None:
    """What the failed attempt was says nothing: perhaps another server answers now."""
    if promised == "unknown" and first == FAILED:
        return  # passed on: it is no protocol of ours
    splice = spliced(promised)
    out = fed(splice, first)
    if splice.broken is None:
        splice.lose("stream_reset")
    assert splice.decide().action is Action.RESTART
    splice.begin(Action.RESTART)

    assert read(splice, WHOLE[name]) == WHOLE[name]
    assert out == (first if first == PING else b"")
    assert splice.over
    assert splice.broken is None


def test_after_a_restart_too_what_nobody_knows_is_passed_on() -> None:
    """And is then nothing to mend."""
    splice = spliced()
    splice.lose("stream_reset")
    splice.begin(Action.RESTART)

    assert splice.feed(b'data: {"a": 1}\n\ndata: b') == b'data: {"a": 1}\n\ndata: b'
    assert splice.feed(b"c\n\n") == b"c\n\n"
    splice.lose("stream_reset")
    assert splice.decide().action is Action.FAIL


@pytest.mark.parametrize("action", [Action.RESUME, Action.REPLAY])
@pytest.mark.parametrize("other", ["anthropic", "responses", "gemini"])
def test_an_answer_cannot_go_on_in_another_protocol(action: Action, other: str) -> None:
    """Nothing of it comes out."""
    splice = spliced(request=REPEATABLE, resumable=action is Action.RESUME)
    fed(splice, chat(ROLE), identified(chat({"content": "a"}), "1"))
    splice.lose("stream_reset")
    assert splice.decide().action is action
    splice.begin(action)

    assert splice.feed(WHOLE[other]) == b""
    assert splice.broken is not None
    assert splice.broken.code == "stream_garbled"


# ---- replay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(2, 7))
def test_a_replay_goes_on_where_the_first_attempt_broke(count: int) -> None:
    """Of another run, cut into other pieces: the text is what one attempt would have said, everything else once."""
    text = "".join(TEXTS)
    again = [
        PING,
        chat(ROLE, run=2),
        *(chat({"content": c}, run=2) for c in text),
        chat({}, "stop", run=2),
        usage(2),
        DONE,
    ]
    splice = spliced(request=REPEATABLE, marker=False)
    out = fed(splice, *STREAMS["chat"][:count])
    splice.lose("stream_reset")
    assert splice.decide().action is Action.REPLAY
    splice.begin(Action.REPLAY)
    out += read(splice, b"".join(again))

    said = [json.loads(block[6:]) for block in out.split(b"\n\n")[:-2]]
    deltas = [said_["choices"][0]["delta"] for said_ in said if said_["choices"]]
    assert out.endswith(b"\n\n" + DONE)
    assert out.count(DONE) == 1
    assert "".join(delta.get("content", "") for delta in deltas) == text == splice.text
    assert sum("role" in delta for delta in deltas) == 1
    assert [s["choices"][0]["finish_reason"] for s in said if s["choices"]].count("stop") == 1
    assert sum("usage" in said_ for said_ in said) == 1
    assert {said_["id"] for said_ in said} == {"chat-1"}
    assert splice.over
    assert splice.phase is Phase.DONE
    assert splice.events == len(said) + 1


def test_a_replay_that_says_something_else_is_noticed_before_it_comes_out() -> None:
    """The text so far is the first attempt's; where the two parted is known; and that is the end of it."""
    splice = spliced(request=REPEATABLE)
    out = fed(splice, *STREAMS["chat"][:3])
    splice.lose("stream_reset")
    splice.begin(Action.REPLAY)

    assert read(splice, chat(ROLE) + chat({"content": "Hello there"})) == b""
    assert splice.broken is not None
    assert splice.broken.code == "stream_diverged"
    assert splice.diverged_at == 6
    decision = splice.decide()
    assert decision.action is Action.FAIL
    assert decision.reason == "stream_diverged is not retried"
    assert splice.text == "Hello wörld"
    assert splice.fail() == b""
    assert out == b"".join(STREAMS["chat"][:3])


@pytest.mark.parametrize("how", ["done", "end", "stream_reset", "error"])
def test_a_replay_may_break_too(how: str) -> None:
    """Before it has caught up nothing comes out; an end in order, marker and all, is another answer."""
    splice = spliced(request=REPEATABLE)
    fed(splice, *STREAMS["chat"][:4])
    splice.lose("stream_reset")
    splice.begin(Action.REPLAY)
    assert fed(splice, *STREAMS["chat"][:2]) == b""

    if how == "done":
        assert splice.feed(DONE) == b""
    elif how == "end":
        assert splice.end() == b""
    elif how == "error":
        assert splice.feed(FAILED) == b""
    else:
        splice.lose(how)
    assert splice.broken is not None
    assert splice.broken.code == {
        "done": "stream_diverged",
        "end": "stream_terminated",
        "error": "model_server_error",
    }.get(how, how)
    assert splice.decide().action is (Action.FAIL if how == "done" else Action.REPLAY)
    if how != "done":
        splice.begin(Action.REPLAY)
        assert read(splice, WHOLE["chat"]).endswith(chat({}, "stop") + usage() + DONE)
        assert splice.over


# ---- resume ----------------------------------------------------------------------------------------------

LONG_RUN = [response(0, "response.created", background=True), *STREAMS["responses"][1:]]


@pytest.mark.parametrize("back", [0, 1, 3, 9])
@pytest.mark.parametrize("count", range(1, 9))
def test_a_run_is_taken_up_after_its_last_number(count: int, back: int) -> None:
    """What comes again is dropped, however far back the server begins."""
    splice = spliced("responses", BACKGROUND)
    out = fed(splice, *LONG_RUN[:count])
    splice.lose("stream_reset")
    decision = splice.decide()
    assert decision.action is Action.RESUME
    assert decision.onward is not None
    assert decision.onward.url.endswith(f"/resp_1?stream=true&starting_after={count - 1}")
    splice.begin(Action.RESUME)

    assert out + read(splice, b"".join(LONG_RUN[max(count - back, 0) :])) == b"".join(LONG_RUN)
    assert splice.over
    assert splice.events == len(LONG_RUN)


def test_a_run_with_a_gap_is_not_taken_up() -> None:
    """An event is missing: nothing comes out any more."""
    splice = spliced("responses", BACKGROUND)
    fed(splice, *LONG_RUN[:5])
    splice.lose("stream_reset")
    splice.begin(Action.RESUME)

    assert splice.feed(b"".join(LONG_RUN[6:])) == b""
    assert splice.broken is not None
    assert splice.broken.code == "stream_gap"
    assert splice.decide().action is Action.FAIL
    assert splice.decide().reason == "stream_gap is not retried"


def test_a_gap_is_noticed_in_the_middle_too() -> None:
    """And what came before it is whole."""
    splice = spliced("responses", BACKGROUND)
    fed(splice, *LONG_RUN[:2])
    splice.lose("stream_reset")
    splice.begin(Action.RESUME)

    assert splice.feed(b"".join([*LONG_RUN[2:4], *LONG_RUN[5:]])) == b"".join(LONG_RUN[2:4])
    assert splice.broken is not None
    assert splice.broken.code == "stream_gap"


def test_keepalives_between_numbers_are_no_gap() -> None:
    """They have none."""
    ping = event({"type": "ping"}, "ping")
    splice = spliced("responses", BACKGROUND)
    fed(splice, *LONG_RUN[:5])
    splice.lose("stream_reset")
    splice.begin(Action.RESUME)

    rest = b"".join([PING, ping, *LONG_RUN[5:7], ping, *LONG_RUN[7:]])
    assert read(splice, rest) == rest
    assert splice.over


WITH_IDS = [identified(raw, f"run-1:{n}") for n, raw in enumerate(STREAMS["chat"])]


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 2), (2, 5), (4, 4), (5, 6)])
def test_a_stream_is_taken_up_after_its_last_id(one: int, other: int, ignored: bool) -> None:
    """Twice; what comes again under an id that was seen is dropped, should the server begin anew."""
    splice = spliced(resumable=True, marker=False)
    out = fed(splice, *WITH_IDS[:one])
    for start, stop in ((one, other), (other, len(WITH_IDS))):
        splice.lose("stream_reset")
        decision = splice.decide()
        assert decision.action is Action.RESUME
        assert decision.onward is not None
        assert decision.onward.last_event_id == f"run-1:{start - 1}".encode()
        splice.begin(Action.RESUME)
        out += fed(splice, *WITH_IDS[0 if ignored else start : stop])

    assert out == b"".join(WITH_IDS)
    assert splice.over
    assert splice.events == len(WITH_IDS)


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("name", ["chat", "anthropic"])
def test_another_run_is_not_taken_for_the_rest_of_the_first(name: str, with_ids: bool) -> None:
    """The server did not resume, it answered anew."""
    splice = spliced(name, resumable=True)
    head = [identified(raw, f"a{n}") for n, raw in enumerate(STREAMS[name][:5])]
    assert fed(splice, *head) == b"".join(head)
    splice.lose("stream_reset")
    splice.begin(Action.RESUME)
    other = [raw.replace(b"-1", b"-2") for raw in STREAMS[name]]
    if with_ids:
        other = [identified(raw, f"b{n}") for n, raw in enumerate(other)]

    assert splice.feed(b"".join(other)) == b""
    assert splice.broken is not None
    assert splice.broken.code == "stream_gap"
    assert splice.decide().action is Action.FAIL


@pytest.mark.parametrize(
    ("head", "id_"),
    [
        (b"id: 1\ndata: a\n\n", b"1"),
        (b"id: 1\ndata: a\n\ndata: b\n\n", b"1"),
        (b"id: 1\ndata: a\n\nid: 2\n\n", b"2"),
        (b"id: 1\ndata: a\n\nid: 2\n: just a comment\n\n", b"2"),
        (b"id: 1\ndata: a\n\nid: 2\ndata: b", b"1"),
        (b"id: 1\ndata: a\n\nid: 2\ndata: b\n", b"1"),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n", b""),
        (b"id: 1\ndata: a\n\nid: \0\ndata: b\n\n", b"1"),
        ("id: …\ndata: a\n\n".encode(), "…".encode()),
        (b"id: 1\nid: 2\ndata: a\n\n", b"2"),
        (b"id: 5\n\n", b"5"),
        (b"data: a\n\n", b""),
    ],
)
@pytest.mark.parametrize("size", [0, 1])
def test_the_last_id_is_that_of_the_last_finished_block(head: bytes, id_: bytes, size: int) -> None:
    """With or without data; one that was taken back is none, and then only a GET is asked again."""
    for method in ("GET", "POST"):
        splice = spliced("unknown", resumable=True, method=method)
        fed(splice, *cut(head, size))
        splice.lose("stream_reset")
        decision = splice.decide()
        if id_ or method == "GET":
            assert decision.action is Action.RESUME
        else:
            assert decision.action is Action.FAIL
        assert (decision.onward.last_event_id if decision.onward else None) == (id_ or None)


@pytest.mark.parametrize(
    ("method", "head", "broken"),
    [
        ("GET", b"", True),
        ("GET", b": hello\n\n", True),
        ("GET", b"data: a\n\n", True),
        ("POST", b"id: 1\ndata: a\n\n", True),
        ("POST", b"id: 1\n\n", True),
        ("POST", b"data: a\n\n", False),
        ("POST", b"", False),
    ],
)
def test_a_resumable_stream_of_no_known_protocol_ends_when_the_server_says_so(
    method: str, head: bytes, broken: bool
) -> None:
    """The end of a body says nothing where the server can be asked again; what is unfinished is dropped."""
    splice = spliced("unknown", method=method, resumable=True)

    assert read(splice, head + b"data: unfinished\n") == head
    assert bool(splice.broken) == broken
    assert splice.over != broken
    if broken:
        assert splice.decide().action is Action.RESUME
        splice.begin(Action.RESUME)
        assert splice.feed(b"id: 2\ndata: b\n\n") == b"id: 2\ndata: b\n\n"
        splice.lose("stream_reset")
        assert splice.stop()
        assert splice.over
        assert splice.broken is None


def test_that_the_server_has_no_more_ends_no_answer_of_a_known_protocol() -> None:
    """Its marker has not come."""
    splice = spliced(resumable=True)
    fed(splice, *WITH_IDS[:3])
    splice.lose("stream_reset")

    assert not splice.stop()
    assert splice.broken is not None


def test_a_resumable_path_with_a_known_protocol_is_known() -> None:
    """A declared route may speak any protocol: its end is then the protocol's."""
    splice = spliced("unknown", resumable=True)

    assert fed(splice, *WITH_IDS) == b"".join(WITH_IDS)
    assert splice.over


def test_what_was_held_before_an_id_comes_before_what_is_new() -> None:
    """In one piece with something that is dropped, and with as many events as that piece."""
    splice = spliced(resumable=True)
    role, seen = chat(ROLE), identified(PING, "1")
    assert splice.feed(seen) == seen
    assert splice.feed(role) == b""
    splice.lose("stream_reset")
    assert splice.decide().action is Action.RESUME
    splice.begin(Action.RESUME)
    hello = identified(chat({"content": "a"}), "2")

    assert splice.feed(PING + seen + hello) == role + PING + hello


# ---- any cut -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_answer_comes_out_of_any_number_of_attempts(data: st.DataObject) -> None:
    """Restarted, replayed, its marker supplied: each attempt of another run, in other pieces, cut anywhere."""
    text = data.draw(st.text(min_size=1, max_size=12))
    splice = spliced(request=REPEATABLE)
    out = b""
    for attempt in range(1, 8):
        places = sorted(data.draw(st.sets(st.integers(1, len(text)))) | {0, len(text)})
        events = [chat(ROLE, run=attempt)]
        events += [chat({"content": text[one:other]}, run=attempt) for one, other in pairwise(places)]
        stream = b"".join([*events, chat({}, "stop", run=attempt), DONE])
        stop = data.draw(st.integers(0, len(stream))) if attempt < 7 else len(stream)
        out += read(splice, *cut(stream[:stop], data.draw(st.sampled_from([0, 1, 30]))))
        if splice.over:
            break
        decision = splice.decide()
        if decision.action is Action.MARKER:
            out += splice.complete(decision.action)
            break
        assert decision.action in (Action.RESTART, Action.REPLAY)
        splice.begin(decision.action)

    blocks = out.split(b"\n\n")
    assert blocks[-2:] == [b"data: [DONE]", b""]
    said = [json.loads(block[6:]) for block in blocks[:-2]]
    deltas = [said_["choices"][0] for said_ in said]
    assert "".join(delta["delta"].get("content", "") for delta in deltas) == text
    assert ["role" in delta["delta"] for delta in deltas].count(True) == 1
    assert [delta["finish_reason"] for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    assert len({said_["id"] for said_ in said}) == 1
