"""What varies the gateway's streams from request to request, and how its runs are taken up again."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoints import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    GEMINI,
    PROMPT,
    RESPONSES,
    TEXT,
    Endpoint,
    Events,
    each,
    refused,
    running,
)
from gip_resilience.gateway import FaultPlan, Gateway, HalfBody, StreamOptions
from gip_resilience.gateway.answers import Parts
from gip_resilience.gateway.api import Api, read
from gip_resilience.gateway.content import recut
from gip_resilience.gateway.http1 import Request
from gip_resilience.gateway.recording import Redactor
from gip_resilience.gateway.streaming import MAX_RUNS

if TYPE_CHECKING:
    from collections.abc import Iterator

WITH_IDS = [CHAT, COMPLETIONS, ANTHROPIC]
WITH_COMMENTS = [CHAT, COMPLETIONS, RESPONSES]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]

with_ids = pytest.mark.parametrize("endpoint", WITH_IDS, ids=repr)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    """A bare client of a gateway without options."""
    with httpx2.Client(base_url=gateway.url) as opened:
        yield opened


# ---------------------------------------------------------------------------------------------------- variations


@each
def test_sampled_words_differ_from_request_to_request(endpoint: Endpoint) -> None:
    """Each request has words and ids of its own, which go apart after the first word."""
    with running(sampled=True) as client:
        runs = [Events.of(endpoint.post(client)) for _ in range(9)]
    texts = [run.text(endpoint) for run in runs]

    assert len(set(texts)) == 9
    assert all(text.startswith("You ") and PROMPT in text for text in texts)
    assert all(a[:7] != b[:7] for a, b in pairwise(texts))
    assert len(set().union(*(run.names(endpoint) for run in runs))) == 9


@each
@pytest.mark.parametrize("way", [0, 1], ids=["temperature 0", "seed"])
def test_who_asks_for_the_same_words_gets_them(endpoint: Endpoint, way: int) -> None:
    """A sampling gateway says the same to requests with temperature 0 or a seed, whatever it said before."""
    with running(sampled=True) as client:
        first = endpoint.post(client, **endpoint.cold()[way])
        sampled = Events.of(endpoint.post(client)).text(endpoint)
        again = endpoint.post(client, **endpoint.cold()[way])

    assert Events.of(first).text(endpoint) == TEXT != sampled
    assert first.content == again.content


def test_a_sampled_call_has_other_arguments() -> None:
    """Who replays the call of a tool gets another one."""
    asked = {"tools": TOOLS, "tool_choice": "required"}
    with running(sampled=True) as client:
        bodies = [client.post(CHAT.path, json={**CHAT.ask(PROMPT), **asked}).json() for _ in range(2)]
    calls = [body["choices"][0]["message"]["tool_calls"][0] for body in bodies]

    assert calls[0]["function"]["arguments"] != calls[1]["function"]["arguments"]


@each
def test_rechunked_text_is_the_same_text(endpoint: Endpoint) -> None:
    """Other pieces and another id in every request, and the words and their number as ever."""
    with running(rechunk=True) as client:
        runs = [Events.of(endpoint.post(client)) for _ in range(5)]

    assert {run.text(endpoint) for run in runs} == {TEXT}
    assert len({tuple(run.cuts(endpoint)) for run in runs}) == 5
    assert len(set().union(*(run.names(endpoint) for run in runs))) == 5


def test_a_rechunked_call_is_the_same_call(client: httpx2.Client) -> None:
    """The arguments are cut anew, the id of the call is another; usage counts tokens and not pieces."""
    asked = {"tools": TOOLS, "tool_choice": "required", "stream_options": {"include_usage": True}}
    *_, usage = Events.of(CHAT.post(client, **asked)).data
    with running(rechunk=True) as other:
        runs = [Events.of(CHAT.post(other, **asked)).data for _ in range(3)]
    calls = [
        [
            delta["tool_calls"][0]
            for event in run[:-1]
            if "tool_calls" in (delta := event["choices"][0]["delta"])
        ]
        for run in runs
    ]
    cuts = [tuple(call["function"]["arguments"] for call in run) for run in calls]

    assert len({"".join(cut) for cut in cuts}) == 1
    assert len(set(cuts)) == len({run[0]["id"] for run in calls}) == 3
    assert [run[-1]["usage"] for run in runs] == [usage["usage"]] * 3


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200), st.text(max_size=9))
def test_recut_loses_nothing(text: str, salt: str) -> None:
    """Any text in pieces of 1 to 9 characters, joined, is the text."""
    pieces = recut(text, salt)

    assert "".join(pieces) == text
    assert all(1 <= len(piece) <= 9 for piece in pieces)


@pytest.mark.parametrize("endpoint", WITH_COMMENTS, ids=repr)
def test_comments_change_nothing_else(endpoint: Endpoint, client: httpx2.Client) -> None:
    """They come before the first event and before every fourth after it, in blocks of their own."""
    plain = Events.of(endpoint.post(client)).blocks
    with running(comments=True) as other:
        blocks = Events.of(endpoint.post(other)).blocks
    places = [place for place, block in enumerate(blocks) if block == ": keepalive"]

    assert [block for block in blocks if block != ": keepalive"] == plain
    assert places == list(range(0, len(blocks), 5))


@pytest.mark.parametrize("endpoint", [ANTHROPIC, GEMINI], ids=repr)
def test_who_has_no_comments_gets_none(endpoint: Endpoint, client: httpx2.Client) -> None:
    """Anthropic pings, and Gemini is silent, with the option as without."""
    with running(comments=True) as other:
        assert endpoint.post(other).content == endpoint.post(client).content


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES], ids=repr)
def test_obfuscation_differs_in_every_request(endpoint: Endpoint, client: httpx2.Client) -> None:
    """Each chunk (of responses, each delta) has padding of its own; nothing else differs."""
    plain = Events.of(endpoint.post(client)).data
    runs = [Events.of(endpoint.post(client, stream_options={"include_obfuscation": True})) for _ in range(2)]
    padding = [[event["obfuscation"] for event in run.data if "obfuscation" in event] for run in runs]
    bare = [{key: event[key] for key in event if key != "obfuscation"} for event in runs[0].data]
    padded = [event for event in plain if endpoint is not RESPONSES or "delta" in event]

    assert bare == plain
    assert len(padding[0]) == len(padding[1]) == len(padded)
    assert all(8 <= len(text) <= 23 for text in (*padding[0], *padding[1]))
    assert len({*padding[0], *padding[1]}) == 2 * len(padded)


@pytest.mark.parametrize("comments", [False, True], ids=["plain", "comments"])
@each
def test_one_part_for_each_event(endpoint: Endpoint, comments: bool) -> None:
    """What breaks a stream counts parts: comments are no events, and belong to the one they precede."""
    api = Api((), None, None, 0, Redactor(b"key"), StreamOptions(comments=comments))
    body = json.dumps({**endpoint.ask(PROMPT), "stream": True}).encode()
    request = Request("POST", endpoint.path, 1, (), body)
    answer = api.respond(request, read(request), 0.0)

    assert isinstance(answer.body, Parts)
    assert answer.body.length is None
    for part in answer.body.pieces:
        text = part.decode().replace("\r\n", "\n")
        assert text.endswith("\n\n")
        assert text.removeprefix(": keepalive\n\n").count("\n\n") == 1


# --------------------------------------------------------------------------------------------------- event ids


@with_ids
def test_events_have_ids(endpoint: Endpoint, client: httpx2.Client) -> None:
    """Numbered from 1 under the name of the run, announced in a header, and nothing else is different."""
    plain = endpoint.post(client)
    with running(event_ids=True) as other:
        response, again = endpoint.post(other), endpoint.post(other)
    events = Events.of(response)
    names = {name.rpartition("-")[0] for name in events.ids}

    assert "x-gip-resume" not in plain.headers
    assert response.headers["x-gip-resume"] == "last-event-id"
    assert [name.rpartition("-")[2] for name in events.ids] == [str(n + 1) for n in range(len(events.blocks))]
    assert len(names) == 1
    assert [block.partition("\n")[2] for block in events.blocks] == Events.of(plain).blocks
    assert not set(events.ids) & set(Events.of(again).ids)


@with_ids
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_run_goes_on_after_the_last_event_id(endpoint: Endpoint, method: str) -> None:
    """Whichever event was the last, the rest of that run follows, as it was; 204 when there is no rest."""
    with running(event_ids=True, rechunk=True, sampled=True) as client:
        events = Events.of(endpoint.post(client))
        endpoint.post(client)
        for had in range(1, len(events.ids) + 1):
            headers = {"last-event-id": events.ids[had - 1]}
            body = {**endpoint.ask(PROMPT), "stream": True} if method == "POST" else None
            response = client.request(method, endpoint.path, json=body, headers=headers)
            if had < len(events.ids):
                assert Events.of(response).blocks == events.blocks[had:]
                assert response.headers["x-gip-resume"] == "last-event-id"
            else:
                assert (response.status_code, response.content) == (204, b"")


@with_ids
def test_a_run_that_was_cut_goes_on(endpoint: Endpoint) -> None:
    """What the wire breaks is whole in the gateway: the two parts are the stream."""
    plan = FaultPlan.script([HalfBody(how="eof")])
    with (
        Gateway(plan, streams=StreamOptions(event_ids=True)) as gateway,
        httpx2.Client(base_url=gateway.url) as client,
    ):
        first = Events.of(endpoint.post(client))
        whole = Events.of(endpoint.post(client))
        rest = Events.of(endpoint.post(client, headers={"last-event-id": first.ids[-1]}))

    assert 0 < len(first.blocks) < len(whole.blocks)
    assert Events([*first.blocks, *rest.blocks]).data == whole.data
    assert [name.rpartition("-")[2] for name in (*first.ids, *rest.ids)] == [
        name.rpartition("-")[2] for name in whole.ids
    ]


@with_ids
def test_a_server_that_ignores_the_id_starts_again(endpoint: Endpoint) -> None:
    """The whole run with the same ids, also after its last event."""
    with running(event_ids=True, ignore_last_event_id=True) as client:
        response = endpoint.post(client)
        for name in (Events.of(response).ids[2], Events.of(response).ids[-1]):
            assert endpoint.post(client, headers={"last-event-id": name}).content == response.content


@pytest.mark.parametrize("endpoint", [RESPONSES, GEMINI], ids=repr)
def test_other_apis_have_no_ids(endpoint: Endpoint, client: httpx2.Client) -> None:
    """And a ``Last-Event-ID`` means nothing to them, as to every API without the option."""
    plain = endpoint.post(client).content
    with running(event_ids=True) as other:
        assert endpoint.post(other, headers={"last-event-id": "run-1"}).content == plain
    assert CHAT.post(client, headers={"last-event-id": "run-1"}).content == CHAT.post(client).content


@pytest.mark.parametrize(
    "wrong",
    ["{run}", "{run}-", "{run}-x", "{run}--1", "{run}-\xb2", "{run}-1234567890", "x{run}-1", "-1"],
    ids=ascii,
)
def test_an_id_that_is_none_is_refused(wrong: str) -> None:
    """No run of that name, or no number that an event could have."""
    with running(event_ids=True) as client:
        run = Events.of(CHAT.post(client)).ids[0].removesuffix("-1")
        name = wrong.format(run=run).encode("latin-1")

        assert refused(CHAT.post(client, headers={"last-event-id": name})) == (404, "not_found")
        assert CHAT.post(client, headers={"last-event-id": f"{run}-999"}).status_code == 204


def test_a_run_belongs_to_its_path() -> None:
    """The id of one API's event is unknown to another API."""
    with running(event_ids=True) as client:
        name = Events.of(CHAT.post(client)).ids[0]
        assert refused(ANTHROPIC.post(client, headers={"last-event-id": name})) == (404, "not_found")


def test_the_last_hundred_runs_are_kept() -> None:
    """The oldest goes first."""
    api = Api((), None, None, 0, Redactor(b"key"), StreamOptions(event_ids=True))
    body = json.dumps({**CHAT.ask("hi"), "stream": True}).encode()

    def ask(*headers: tuple[str, str]) -> Any:
        request = Request("POST", CHAT.path, 1, headers, body)
        return api.respond(request, read(request), 0.0)

    first_ids = [next(iter(ask().body.pieces)).split(b"\n")[0][4:].decode() for _ in range(MAX_RUNS + 1)]

    assert MAX_RUNS == 100
    assert ask(("last-event-id", first_ids[0])).code == "not_found"
    assert all(ask(("last-event-id", name)).status == 200 for name in first_ids[1:])


def test_options_that_mean_nothing_are_refused() -> None:
    """Ids that do not exist cannot be ignored."""
    with pytest.raises(ValueError, match="needs event_ids"):
        StreamOptions(ignore_last_event_id=True)


# ------------------------------------------------------------------------------------------ runs in the background


@pytest.mark.parametrize("options", [{}, {"rechunk": True, "sampled": True}], ids=["plain", "varying"])
def test_a_run_in_the_background_goes_on_after_any_event(options: dict[str, bool]) -> None:
    """Every cursor gives the rest of the very run; none gives all of it, and the response is to be had."""
    with running(**options) as client:
        events = Events.of(RESPONSES.post(client, background=True))
        other = Events.of(RESPONSES.post(client, background=True))
        created = events.data[0]["response"]
        url = f"{RESPONSES.path}/{created['id']}"
        for after in range(len(events.blocks)):
            rest = Events.of(client.get(url, params={"stream": "true", "starting_after": after}))
            assert rest.blocks == events.blocks[after + 1 :]
        assert Events.of(client.get(url, params={"stream": "true"})).blocks == events.blocks
        for params in ({}, {"stream": "false"}):
            assert client.get(url, params=params).json() == events.data[-1]["response"]

    assert created["background"] is True
    assert other.names(RESPONSES) != events.names(RESPONSES)


def test_a_run_in_the_background_without_a_stream(client: httpx2.Client) -> None:
    """It is queued, and over when it is asked for."""
    queued = client.post(RESPONSES.path, json={**RESPONSES.ask(PROMPT), "background": True}).json()
    done = client.get(f"{RESPONSES.path}/{queued['id']}").json()

    assert (queued["status"], queued["output"]) == ("queued", [])
    assert (done["status"], RESPONSES.whole(done)) == ("completed", TEXT)


@pytest.mark.parametrize(
    ("background", "params", "expected"),
    [
        pytest.param(False, {"stream": "true", "starting_after": "3"}, (404, "not_found"), id="foreground"),
        pytest.param(False, {}, (404, "not_found"), id="foreground, whole"),
        pytest.param(True, {"stream": "true", "starting_after": "x"}, (400, "invalid_argument"), id="text"),
        pytest.param(
            True, {"stream": "true", "starting_after": "-1"}, (400, "invalid_argument"), id="negative"
        ),
    ],
)
def test_a_run_that_cannot_be_taken_up(
    background: bool, params: dict[str, str], expected: tuple[int, str], client: httpx2.Client
) -> None:
    """What was not in the background is gone; a cursor is a number."""
    name = next(iter(Events.of(RESPONSES.post(client, background=background)).names(RESPONSES)))

    assert refused(client.get(f"{RESPONSES.path}/{name}", params=params)) == expected


def test_a_run_is_no_response(client: httpx2.Client) -> None:
    """The names of runs of other APIs are unknown here, and the endpoint takes GET alone."""
    with running(event_ids=True) as other:
        run = Events.of(CHAT.post(other)).ids[0].rpartition("-")[0]
        assert refused(other.get(f"{RESPONSES.path}/{run}")) == (404, "not_found")
    assert refused(client.post(f"{RESPONSES.path}/x", json={})) == (405, "invalid_request")


@given(st.text(alphabet="?&=%;+-ax19é", max_size=20))
@settings(deadline=None, max_examples=100)
def test_every_query_gets_an_answer(query: str) -> None:
    """Any query is fields or nothing."""
    api = Api((), None, None, 0, Redactor(b"key"))
    request = Request("GET", f"{RESPONSES.path}/x?{query}", 1, ())

    assert api.respond(request, read(request), 0.0).code == "not_found"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/x", {}),
        ("/x?", {}),
        ("/x?a=1&b=%20&c", {"a": "1", "b": " ", "c": ""}),
        ("/x?a=1&a=2", {"a": "2"}),
        ("http://h/x?a=?b", {"a": "?b"}),
    ],
)
def test_queries_are_read(target: str, expected: dict[str, str]) -> None:
    """As forms write them."""
    assert Request("GET", target, 1, ()).query == expected
