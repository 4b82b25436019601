"""The gateway's streams in good health: what each API says, and how, to a bare client and to its SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoints import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    ENDPOINTS,
    GEMINI,
    MODEL,
    PROMPT,
    RESPONSES,
    TEXT,
    Endpoint,
    Events,
    each,
    refused,
)
from gip_resilience.gateway import Error, FaultPlan, Gateway, RateLimit, Rule, StreamOptions
from gip_resilience.gateway.answers import Parts
from gip_resilience.gateway.api import Api, read
from gip_resilience.gateway.http1 import Request
from gip_resilience.gateway.recording import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USE_TOOL = "Please use the tool, 안녕."
KEY = "sk-planted-0123456789abcdef"


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    """A bare client of a gateway without options."""
    with httpx2.Client(base_url=gateway.url) as opened:
        yield opened


# ------------------------------------------------------------------------------------------------------- grammars


@each
def test_a_stream_says_what_the_whole_answer_says(endpoint: Endpoint, client: httpx2.Client) -> None:
    """The words are those of the answer that is no stream, under one id, and the same every time."""
    first = endpoint.post(client)
    events = Events.of(first)

    assert events.text(endpoint) == TEXT
    assert len(events.cuts(endpoint)) > 10
    assert len(events.names(endpoint)) == 1
    assert endpoint.post(client).content == first.content
    if endpoint.whole is not None:
        assert endpoint.whole(client.post(endpoint.path, json=endpoint.ask(PROMPT)).json()) == TEXT


@pytest.mark.parametrize(
    ("endpoint", "limit", "reason"),
    [
        (CHAT, {"max_tokens": 3}, lambda data: data[-1]["choices"][0]["finish_reason"] == "length"),
        (COMPLETIONS, {"max_tokens": 3}, lambda data: data[-1]["choices"][0]["finish_reason"] == "length"),
        (ANTHROPIC, {"max_tokens": 3}, lambda data: data[-2]["delta"]["stop_reason"] == "max_tokens"),
        (
            GEMINI,
            {"generationConfig": {"maxOutputTokens": 3}},
            lambda data: data[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS",
        ),
        (
            RESPONSES,
            {"max_output_tokens": 3},
            lambda data: (
                data[-1]["type"] == "response.incomplete"
                and data[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
                and data[-1]["response"]["output"][0]["status"] == "incomplete"
            ),
        ),
    ],
    ids=["chat", "completions", "anthropic", "gemini", "responses"],
)
def test_a_limit_is_the_reason_given(
    endpoint: Endpoint, limit: dict[str, Any], reason: Callable[[Any], bool], client: httpx2.Client
) -> None:
    """An answer that a limit cuts short says so, in the words of its API."""
    events = Events.of(endpoint.post(client, **limit))

    assert events.text(endpoint) == "You said: Say"
    assert reason(events.data)


@pytest.mark.parametrize(
    ("endpoint", "system", "used"),
    [
        (ANTHROPIC, {"system": "12345678"}, lambda data: data[0]["message"]["usage"]["input_tokens"]),
        (RESPONSES, {"instructions": "12345678"}, lambda data: data[-1]["response"]["usage"]["input_tokens"]),
        (
            GEMINI,
            {"systemInstruction": {"parts": [{"text": "12345678"}]}},
            lambda data: data[0]["usageMetadata"]["promptTokenCount"],
        ),
    ],
    ids=["anthropic", "responses", "gemini"],
)
def test_instructions_count_as_tokens(
    endpoint: Endpoint, system: dict[str, Any], used: Callable[[Any], int], client: httpx2.Client
) -> None:
    """What is said beside the messages is part of the prompt."""
    plain, longer = Events.of(endpoint.post(client)).data, Events.of(endpoint.post(client, **system)).data

    assert used(longer) == used(plain) + 2


def test_legacy_completions(client: httpx2.Client) -> None:
    """Prompts times choices, each with its finish reason; usage if asked for; the marker."""
    payload = {"model": MODEL, "prompt": ["a", [1, 2]], "n": 2}
    whole = client.post(COMPLETIONS.path, json=payload).json()
    response = client.post(
        COMPLETIONS.path, json={**payload, "stream": True, "stream_options": {"include_usage": True}}
    )
    events = Events.of(response)
    *chunks, usage = events.data

    assert whole["object"] == "text_completion"
    assert [c["index"] for c in whole["choices"]] == [0, 1, 2, 3]
    assert whole["choices"][2]["text"].startswith("You said: 1 2 ")
    assert events.blocks[-1] == "data: [DONE]"
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert whole["usage"]["prompt_tokens"] == 2
    for choice in whole["choices"]:
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(c["text"] for c in own) == choice["text"]
        assert [c["finish_reason"] for c in own] == [None] * (len(own) - 1) + ["stop"]


def test_responses_grammar(client: httpx2.Client) -> None:
    """The events come in the order of OpenAI's, numbered from 0, each named after its type."""
    events = Events.of(RESPONSES.post(client))
    types = [event["type"] for event in events.data]
    deltas = types.count("response.output_text.delta")
    first, last = events.data[0]["response"], events.data[-1]["response"]

    assert types == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [block.split("\n")[0] for block in events.blocks] == [f"event: {name}" for name in types]
    assert [event["sequence_number"] for event in events.data] == list(range(len(types)))
    assert (first["status"], first["output"], first["background"]) == ("in_progress", [], False)
    item = last["output"][0]
    assert events.data[2]["item"] == {**item, "status": "in_progress", "content": []}
    assert events.data[3]["part"] == {**item["content"][0], "text": ""}
    assert last == client.post(RESPONSES.path, json=RESPONSES.ask(PROMPT)).json()
    assert last["usage"]["output_tokens"] == deltas


def test_gemini_grammar(client: httpx2.Client) -> None:
    """CRLF line ends, a finish reason in the last chunk beside words, no marker; without ``alt=sse`` a list."""
    response = GEMINI.post(client)
    *chunks, last = Events.of(response).data

    assert response.content.count(b"\r\n\r\n") == len(chunks) + 1
    assert response.content.count(b"\n") == 2 * response.content.count(b"\r\n\r\n")
    assert all("finishReason" not in chunk["candidates"][0] for chunk in chunks)
    assert (last["candidates"][0]["finishReason"], GEMINI.said(last) != "") == ("STOP", True)
    assert last["usageMetadata"]["candidatesTokenCount"] == len(chunks) + 1
    assert {chunk["modelVersion"] for chunk in (*chunks, last)} == {MODEL}
    assert client.post(GEMINI.path.partition("?")[0], json=GEMINI.ask(PROMPT)).json() == [*chunks, last]


# ---------------------------------------------------------------------------------------------------------- tools

FUNCTIONS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look", "find")]
FLAT = [{"type": "function", "name": name, "parameters": {}} for name in ("look", "find")]
SCHEMAS = [{"name": name, "input_schema": {"type": "object"}} for name in ("look", "find")]


def called(endpoint: Endpoint, body: Any) -> str | None:
    """The tool that an answer calls."""
    if endpoint is CHAT:
        calls = body["choices"][0]["message"].get("tool_calls")
        return calls[0]["function"]["name"] if calls else None
    items = body["output"] if endpoint is RESPONSES else body["content"]
    name: str | None = items[0].get("name")
    return name


@pytest.mark.parametrize(
    ("prompt", "choice", "expected"),
    [
        pytest.param(USE_TOOL, None, "look", id="asked for"),
        pytest.param("A Tool!", None, "look", id="asked for in capitals"),
        pytest.param(PROMPT, None, None, id="not asked for"),
        pytest.param("toolbox", None, None, id="another word"),
        pytest.param(USE_TOOL, "none", None, id="forbidden"),
        pytest.param(PROMPT, "any", "look", id="any"),
        pytest.param(PROMPT, "find", "find", id="named"),
    ],
)
@pytest.mark.parametrize(
    ("endpoint", "tools"),
    [(CHAT, FUNCTIONS), (RESPONSES, FLAT), (ANTHROPIC, SCHEMAS)],
    ids=["chat", "responses", "anthropic"],
)
def test_when_a_tool_is_called(
    endpoint: Endpoint,
    tools: list[Any],
    prompt: str,
    choice: str | None,
    expected: str | None,
    client: httpx2.Client,
) -> None:
    """When the user says "tool" or the choice forces it, said in each API's own way."""
    said: Any = {
        CHAT.name: {
            "none": "none",
            "any": "required",
            "find": {"type": "function", "function": {"name": "find"}},
        },
        RESPONSES.name: {"none": "none", "any": "required", "find": {"type": "function", "name": "find"}},
        ANTHROPIC.name: {
            "none": {"type": "none"},
            "any": {"type": "any"},
            "find": {"type": "tool", "name": "find"},
        },
    }
    forced = {} if choice is None else {"tool_choice": said[endpoint.name][choice]}
    response = client.post(endpoint.path, json={**endpoint.ask(prompt), "tools": tools, **forced})

    assert called(endpoint, response.json()) == expected


def test_a_result_of_a_tool_is_answered_in_words(client: httpx2.Client) -> None:
    """A program that runs the tool and tells what came of it gets an answer, not the call once more."""
    asked = [{"role": "user", "content": USE_TOOL}, {"role": "tool", "content": "the tool says 4"}]
    body = client.post(CHAT.path, json={"model": MODEL, "messages": asked, "tools": FUNCTIONS}).json()
    output = [{"role": "user", "content": USE_TOOL}, {"type": "function_call_output", "output": "a tool"}]
    response = client.post(RESPONSES.path, json={"model": MODEL, "input": output, "tools": FLAT}).json()

    assert body["choices"][0]["message"]["content"].startswith("You said: the tool says 4 ")
    assert response["output"][0]["content"][0]["text"].startswith("You said: a tool ")


def test_a_streamed_call_of_chat(client: httpx2.Client) -> None:
    """Role, an opener with id and name, arguments in pieces, and its own finish reason."""
    payload = {**CHAT.ask(USE_TOOL), "tools": FUNCTIONS}
    events = Events.of(client.post(CHAT.path, json={**payload, "stream": True}))
    whole = client.post(CHAT.path, json=payload).json()["choices"][0]
    deltas = [event["choices"][0]["delta"] for event in events.data]
    call = whole["message"]["tool_calls"][0]
    opener = {"index": 0, **call, "function": {"name": "look", "arguments": ""}}
    pieces = [delta["tool_calls"][0] for delta in deltas[2:-1]]

    assert whole["message"] == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert deltas[:2] == [{"role": "assistant", "content": None}, {"tool_calls": [opener]}]
    assert len(pieces) > 3
    assert all(piece.keys() == {"index", "function"} for piece in pieces)
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert arguments == call["function"]["arguments"]
    assert json.loads(arguments)["text"] == USE_TOOL[:12]
    assert 30 <= len(arguments) <= 50
    assert whole["finish_reason"] == events.data[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_streamed_call_of_responses(client: httpx2.Client) -> None:
    """An item that opens without arguments and grows by them."""
    *_, last = data = Events.of(RESPONSES.post(client, USE_TOOL, tools=FLAT)).data
    item = last["response"]["output"][0]
    deltas = [event["delta"] for event in data if event["type"] == "response.function_call_arguments.delta"]

    assert data[2]["item"] == {**item, "status": "in_progress", "arguments": ""}
    assert "".join(deltas) == data[-3]["arguments"] == data[-2]["item"]["arguments"] == item["arguments"]
    assert data[-3]["type"] == "response.function_call_arguments.done"
    assert (item["id"][:3], item["call_id"][:5], len(deltas) > 3) == ("fc_", "call_", True)


# ------------------------------------------------------------------------------------------------- under the SDKs


def test_openai_sdk_reads_every_stream(gateway: Gateway) -> None:
    """Chat with a call, legacy completions, and responses in both of the SDK's ways."""
    with openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": USE_TOOL}], "tools": FUNCTIONS}
        plain = client.chat.completions.create(**asked)
        with client.chat.completions.stream(**asked) as stream:
            final = stream.get_final_completion()
        streamed = final.choices[0].message.tool_calls[0].function
        assert streamed.arguments == plain.choices[0].message.tool_calls[0].function.arguments
        assert (streamed.name, final.choices[0].finish_reason) == ("look", "tool_calls")

        chunks = client.completions.create(model=MODEL, prompt=PROMPT, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT
        assert client.completions.create(model=MODEL, prompt=PROMPT).choices[0].text == TEXT

        events = list(client.responses.create(model=MODEL, input=PROMPT, stream=True))
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
        assert client.responses.create(model=MODEL, input=PROMPT).output_text == TEXT
        with client.responses.stream(model=MODEL, input=PROMPT) as helper:
            assert helper.get_final_response().output_text == TEXT
        tools: Any = FLAT
        with client.responses.stream(model=MODEL, input=USE_TOOL, tools=tools) as helper:
            call: Any = helper.get_final_response().output[0]
        assert (call.type, call.name, json.loads(call.arguments)["text"]) == (
            "function_call",
            "look",
            USE_TOOL[:12],
        )


def test_openai_sdk_takes_up_a_run_in_the_background(gateway: Gateway) -> None:
    """By the SDK's own methods: the rest of the events, all of them under its helper, and the response."""
    with openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
        events = list(client.responses.create(model=MODEL, input=PROMPT, stream=True, background=True))
        name = events[0].response.id
        rest = list(client.responses.retrieve(name, stream=True, starting_after=5))
        assert rest == events[6:]
        with client.responses.stream(response_id=name, starting_after=5) as helper:
            assert [event.sequence_number for event in helper] == [e.sequence_number for e in events[6:]]
        assert client.responses.retrieve(name).output_text == TEXT


def test_anthropic_sdk_reads_a_call(gateway: Gateway) -> None:
    """The helper puts the pieces together; they are the input of the call that is no stream."""
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client:
        asked: Any = {**ANTHROPIC.ask(USE_TOOL), "tools": SCHEMAS}
        plain = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            events = list(stream)
            final = stream.get_final_message()

    assert final.content[0].model_dump() == plain.content[0].model_dump()
    assert (final.stop_reason, plain.stop_reason) == ("tool_use", "tool_use")
    assert final.content[0].input["text"] == USE_TOOL[:12]
    assert sum(event.type == "input_json" for event in events) > 3


@pytest.mark.parametrize(
    "options",
    [{"sampled": True}, {"rechunk": True}, {"event_ids": True}, {"comments": True}],
    ids=lambda options: next(iter(options)),
)
def test_the_sdks_read_streams_with_options(options: dict[str, bool]) -> None:
    """No option makes a stream that its SDK cannot read."""
    with Gateway(streams=StreamOptions(**options)) as gateway:
        with openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
            message: Any = {"role": "user", "content": PROMPT}
            chunks = client.chat.completions.create(model=MODEL, messages=[message], stream=True, seed=1)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
            with client.responses.stream(model=MODEL, input=PROMPT, temperature=0) as helper:
                assert helper.get_final_response().output_text == TEXT
        with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as claude:
            asked: Any = ANTHROPIC.ask(PROMPT)
            with claude.messages.stream(**asked, extra_body={"temperature": 0}) as stream:
                assert stream.get_final_text() == TEXT


# ---------------------------------------------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    ("endpoint", "change"),
    [
        (COMPLETIONS, {"prompt": None}),
        (COMPLETIONS, {"prompt": []}),
        (COMPLETIONS, {"prompt": [""]}),
        (COMPLETIONS, {"prompt": ["x"] * 21}),
        (COMPLETIONS, {"n": 9}),
        (COMPLETIONS, {"max_tokens": 0}),
        (COMPLETIONS, {"temperature": 3}),
        (RESPONSES, {"input": None}),
        (RESPONSES, {"input": []}),
        (RESPONSES, {"input": ["x"]}),
        (RESPONSES, {"background": "yes"}),
        (RESPONSES, {"max_output_tokens": 0}),
        (RESPONSES, {"temperature": "0"}),
        (GEMINI, {"contents": None}),
        (GEMINI, {"contents": []}),
        (GEMINI, {"contents": ["x"]}),
        (GEMINI, {"generationConfig": {"temperature": -1}}),
        (GEMINI, {"generationConfig": {"maxOutputTokens": "x"}}),
        (CHAT, {"tools": {}}),
        (CHAT, {"tools": ["look"]}),
        (CHAT, {"tools": FUNCTIONS, "tool_choice": {"type": "function", "function": {"name": "fly"}}}),
        *((endpoint, {"stream": "yes"}) for endpoint in ENDPOINTS if endpoint is not GEMINI),
        *((endpoint, {"model": None}) for endpoint in ENDPOINTS if endpoint is not GEMINI),
    ],
    ids=lambda value: repr(value) if isinstance(value, Endpoint) else json.dumps(value)[:40],
)
def test_what_makes_no_sense_is_refused(
    endpoint: Endpoint, change: dict[str, Any], client: httpx2.Client
) -> None:
    """In the documented shape, before a word is said."""
    assert refused(endpoint.post(client, **change)) == (400, "invalid_argument")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "parts", "name", "type", "function"]), inner
        )
    ),
    max_leaves=6,
)
fields = st.sampled_from(
    [
        "prompt",
        "input",
        "contents",
        "messages",
        "tools",
        "tool_choice",
        "stream_options",
        "generationConfig",
        "n",
        "background",
        "instructions",
        "systemInstruction",
        "metadata",
        "temperature",
        "seed",
        "stream",
    ]
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.sampled_from(ENDPOINTS),
    st.dictionaries(fields, values, max_size=5),
    st.text(max_size=12),
    st.booleans(),
)
def test_every_request_gets_an_answer(
    endpoint: Endpoint, change: dict[str, Any], last_event_id: str, vary: bool
) -> None:
    """Whatever a request says, the API answers it, and never with a failure of its own."""
    options = StreamOptions(sampled=vary, rechunk=vary, event_ids=vary, comments=vary)
    api = Api((), None, RateLimit(), 0, Redactor(b"key"), options)
    body = json.dumps({**endpoint.ask("a tool"), "stream": True, **change}).encode()
    for headers in ((), (("last-event-id", last_event_id),)):
        request = Request("POST", endpoint.path, 1, headers, body)
        answer = api.respond(request, read(request), 0.0)

        assert answer.status in (200, 400, 404)
        assert (answer.code is None) == (answer.status == 200)
        if isinstance(answer.body, Parts):
            assert all(answer.body.pieces)


# --------------------------------------------------------------------------------------------------- under the rest


def test_gemini_is_under_key_model_and_limit() -> None:
    """Its path is another, its key comes in a header of its own; all else is as for the other APIs."""
    with (
        Gateway(models=[MODEL], api_keys=[KEY], rate_limit=RateLimit(requests=2)) as gateway,
        httpx2.Client(base_url=gateway.url) as client,
    ):
        assert refused(GEMINI.post(client)) == (401, "missing_api_key")
        key = {"x-goog-api-key": KEY}
        other = GEMINI.path.replace(MODEL, "nobody")
        assert refused(client.post(other, json=GEMINI.ask(PROMPT), headers=key)) == (404, "unknown_model")
        response = GEMINI.post(client, headers=key)
        assert Events.of(response).text(GEMINI) == TEXT
        assert response.headers["x-ratelimit-remaining-requests"] == "0"  # a refused request counts
        assert refused(GEMINI.post(client, headers=key)) == (429, "rate_limit_exceeded")
        assert refused(client.get(GEMINI.path, headers=key)) == (405, "invalid_request")
        assert refused(client.post("/v1beta/models/x:other", json={}, headers=key)) == (404, "not_found")
        assert [seen.model for seen in gateway.requests[:3]] == [MODEL, "nobody", MODEL]
        assert KEY not in repr(gateway.requests)


@each
def test_a_plan_rules_over_every_stream(endpoint: Endpoint, gateway: Gateway, client: httpx2.Client) -> None:
    """Rules choose by path and by model, and the recording tells of streams."""
    path = endpoint.path.partition("?")[0]
    gateway.plan = FaultPlan((Rule(Error("model_overloaded"), path=path, model=MODEL, times=1),))

    assert refused(endpoint.post(client)) == (503, "model_overloaded")
    assert Events.of(endpoint.post(client)).text(endpoint) == TEXT
    assert [(seen.path, seen.model, seen.stream) for seen in gateway.requests] == [(path, MODEL, True)] * 2
