"""Streams that are cut, what a caller got of them, and what must be true of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gip_resilience as gr

if TYPE_CHECKING:
    from harness import Session

ASK = [{"role": "user", "content": "Grüße"}]
"""Short, and with characters of two bytes."""


@dataclass(frozen=True)
class Fixture:
    """A request that is answered with a stream.

    Attributes:
        name: for test ids.
        path: where it goes.
        body: the request.
        mended: whether a cut after output can be mended (replayed, or resumed by the server's cursor).
        final: what the last event is: the ``type`` of its data, or ``[DONE]``.
    """

    name: str
    path: str
    body: dict[str, Any]
    mended: bool
    final: str


MODEL = "azure/openai/gpt-5-mini"
CHAT = Fixture(
    "chat",
    "/v1/chat/completions",
    {
        "model": MODEL,
        "messages": ASK,
        "stream": True,
        "temperature": 0,
        "max_tokens": 4,
        "stream_options": {"include_usage": True},
    },
    mended=True,
    final="[DONE]",
)
TWO = Fixture("two choices", CHAT.path, {**CHAT.body, "n": 2}, mended=False, final="[DONE]")
TOOL = Fixture(
    "tool",
    CHAT.path,
    {
        **CHAT.body,
        "messages": [{"role": "user", "content": "tool"}],
        "max_tokens": 400,
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
    },
    mended=True,
    final="[DONE]",
)
ANTHROPIC = Fixture(
    "anthropic",
    "/v1/messages",
    {"model": "claude", "messages": ASK, "stream": True, "temperature": 0, "max_tokens": 4},
    mended=True,
    final="message_stop",
)
RESPONSES = Fixture(
    "responses",
    "/v1/responses",
    {"model": MODEL, "input": "Grüße", "stream": True, "max_output_tokens": 4},
    mended=False,
    final="response.incomplete",
)
BACKGROUND = Fixture(
    "background", RESPONSES.path, {**RESPONSES.body, "background": True}, mended=True, final=RESPONSES.final
)


@dataclass
class Taken:
    """What a caller got: bytes, and what ended them.

    Attributes:
        data: all that was handed up.
        error: what was raised, if anything was.
        response: the response, once there was one.
    """

    data: bytes = b""
    error: Exception | None = None
    response: Any = None


def take(session: Session, url: str, body: dict[str, Any], **options: Any) -> Taken:
    """Send, and read the body piece by piece, as far as it goes."""
    taken = Taken()
    if session.portal is not None:
        session.portal.call(_atake, session.client, url, body, taken, options)
        return taken
    try:
        if session.harness.name == "requests":
            options.setdefault("timeout", 5)
            with session.client.post(url, json=body, stream=True, **options) as response:
                taken.response = response
                for piece in response.iter_content(None):
                    taken.data += piece
            return taken
        with session.client.stream("POST", url, json=body, **options) as response:
            taken.response = response
            for piece in response.iter_bytes():
                taken.data += piece
    except Exception as error:
        taken.error = error
    return taken


async def _atake(client: Any, url: str, body: dict[str, Any], taken: Taken, options: dict[str, Any]) -> None:
    try:
        async with client.stream("POST", url, json=body, **options) as response:
            taken.response = response
            async for piece in response.aiter_bytes():
                taken.data += piece
    except Exception as error:
        taken.error = error


@dataclass
class Told:
    """A stream as its reader understands it.

    Attributes:
        text: by channel: content by choice, arguments by tool.
        counts: how often there was a role, a finish, a usage, a marker, an error.
        names: ids, and names of tools, as far as they were said.
        last: the ``type`` of the last event, or its data.
    """

    text: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, set[str]] = field(default_factory=dict)
    last: str = ""

    def add(self, channel: str, text: object) -> None:
        """Text of a channel."""
        if isinstance(text, str) and text:
            self.text[channel] = self.text.get(channel, "") + text

    def name(self, what: str, value: object) -> None:
        """Something that must stay the same."""
        if value:
            self.names.setdefault(what, set()).add(str(value))


def read(data: bytes) -> Told:
    """Read a stream to its last byte; what is not whole events is an error of the test."""
    splitter = gr.sse.EventSplitter()
    blocks = splitter.feed(data)
    assert not splitter.pending, splitter.pending
    decoder = gr.sse.SSEDecoder()
    told = Told()
    for block in blocks:
        for event in decoder.feed(block):
            told.last = ""
            if event.data.startswith("[DONE]"):  # as the SDKs read it
                told.last = "[DONE]"
                told.counts["marker"] += 1
            else:
                _tell(told, json.loads(event.data))
    return told


def _tell(told: Told, value: dict[str, Any]) -> None:
    kind = value.get("type", "")
    told.last = kind
    if value.get("error") or kind == "error":
        told.counts["error"] += 1
        return
    if kind:
        told.counts[kind] += 1
        _tell_typed(told, kind, value)
        return
    for name in ("id", "created", "model"):
        told.name(name, value.get(name))
    told.counts["usage"] += bool(value.get("usage"))
    for choice in value["choices"]:
        index, delta = choice["index"], choice["delta"]
        told.counts[f"role {index}"] += "role" in delta
        told.counts[f"finish {index}"] += choice["finish_reason"] is not None
        told.add(f"content {index}", delta.get("content"))
        for call in delta.get("tool_calls", ()):
            told.name(f"tool {call['index']}", call.get("id"))
            told.counts[f"tool {call['index']}"] += "id" in call
            told.name("tool name", call["function"].get("name"))
            told.add(f"arguments {call['index']}", call["function"].get("arguments"))


def _tell_typed(told: Told, kind: str, value: dict[str, Any]) -> None:
    told.name("id", value.get("message", {}).get("id") or value.get("response", {}).get("id"))
    if kind in {"message_stop", "response.completed", "response.incomplete"}:
        told.counts["marker"] += 1
    if kind == "content_block_delta":
        told.add(f"content {value['index']}", value["delta"].get("text"))
    elif kind == "response.output_text.delta":
        told.add("content 0", value["delta"])


SINGLE = ("marker", "usage", "role ", "finish ", "tool ", "message_", "response.c", "content_block_st")
"""What there is once, or not yet."""


def assert_one_stream(got: Told, whole: Told) -> None:
    """What was handed up is the beginning of the whole stream, or all of it: nothing twice, nothing made up."""
    for channel, text in got.text.items():
        assert whole.text[channel].startswith(text), (channel, text)
    for what, values in got.names.items():
        assert len(values) == 1, (what, values)
    for what, count in got.counts.items():
        if what.startswith(SINGLE):
            assert count <= whole.counts[what], (what, count)
