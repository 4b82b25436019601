"""The five APIs of the gateway that stream, and a simple reader of their streams."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from gip_resilience.gateway import Gateway, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL = "azure/openai/gpt-5-mini"
PROMPT = "Say hello to the wörld, in 안녕 words."
TEXT = f"You said: {PROMPT} Ask again and the words will be the same."


@dataclass(frozen=True)
class Endpoint:
    """An API that streams: where it is, how it is asked, and where the words are."""

    name: str
    path: str
    ask: Callable[[str], dict[str, Any]]
    said: Callable[[Any], str]
    """The words of one event."""
    whole: Callable[[Any], str] | None
    """The words of the answer that is no stream, if there can be one."""
    id_of: Callable[[Any], str | None]
    """The id of the answer that an event names, if it does."""

    def __repr__(self) -> str:
        return self.name

    def post(self, client: httpx2.Client, prompt: str = PROMPT, **more: Any) -> httpx2.Response:
        """A stream for *prompt*; *more* fields go beside it."""
        headers = more.pop("headers", {})
        return client.post(self.path, json={**self.ask(prompt), "stream": True, **more}, headers=headers)

    def cold(self) -> list[dict[str, Any]]:
        """The fields that ask for the same words every time, in each way there is."""
        ways: list[dict[str, Any]] = [{"temperature": 0}, {"seed": 0}]
        return [{"generationConfig": way} for way in ways] if self.name == "gemini" else ways


def _messages(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 99, "messages": [{"role": "user", "content": prompt}]}


def _chat_text(event: Any) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def _parts(event: Any) -> str:
    return "".join(part["text"] for part in event["candidates"][0]["content"]["parts"])


CHAT = Endpoint(
    "chat",
    "/v1/chat/completions",
    _messages,
    _chat_text,
    lambda body: body["choices"][0]["message"]["content"],
    lambda event: event["id"],
)
COMPLETIONS = Endpoint(
    "completions",
    "/v1/completions",
    lambda prompt: {"model": MODEL, "prompt": prompt},
    lambda event: "".join(choice["text"] for choice in event["choices"]),
    lambda body: body["choices"][0]["text"],
    lambda event: event["id"],
)
RESPONSES = Endpoint(
    "responses",
    "/v1/responses",
    lambda prompt: {"model": MODEL, "input": prompt},
    lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
    lambda body: body["output"][0]["content"][0]["text"],
    lambda event: event["response"]["id"] if "response" in event else None,
)
ANTHROPIC = Endpoint(
    "anthropic",
    "/v1/messages",
    _messages,
    lambda event: event["delta"]["text"] if event["type"] == "content_block_delta" else "",
    lambda body: body["content"][0]["text"],
    lambda event: event["message"]["id"] if "message" in event else None,
)
GEMINI = Endpoint(
    "gemini",
    f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
    lambda prompt: {"contents": [{"role": "user", "parts": [{"text": prompt}]}]},
    _parts,
    None,
    lambda event: event["responseId"],
)
ENDPOINTS = [CHAT, COMPLETIONS, RESPONSES, ANTHROPIC, GEMINI]
WITH_IDS = [CHAT, COMPLETIONS, ANTHROPIC]
WITH_COMMENTS = [CHAT, COMPLETIONS, RESPONSES]

each = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=repr)


@dataclass(frozen=True)
class Events:
    """A stream, read as simply as can be: the gateway writes one ``data`` line per event."""

    blocks: list[str]

    @classmethod
    def of(cls, response: httpx2.Response) -> Events:
        """The events of *response*, which must be a stream and end with a whole one."""
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        text = response.text.replace("\r\n", "\n")
        assert text.endswith("\n\n") or not text
        return cls(text.split("\n\n")[:-1])

    @property
    def data(self) -> list[Any]:
        """What the events carry, without the marker."""
        lines = [line for block in self.blocks for line in block.split("\n") if line.startswith("data: ")]
        return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]

    @property
    def ids(self) -> list[str]:
        """The ids of the events."""
        lines = [line for block in self.blocks for line in block.split("\n")]
        return [line[4:] for line in lines if line.startswith("id: ")]

    def text(self, endpoint: Endpoint) -> str:
        """The words, joined."""
        return "".join(map(endpoint.said, self.data))

    def cuts(self, endpoint: Endpoint) -> list[str]:
        """The words as they were cut."""
        return list(filter(None, map(endpoint.said, self.data)))

    def names(self, endpoint: Endpoint) -> set[str]:
        """The ids of the answer."""
        return set(filter(None, map(endpoint.id_of, self.data)))


def refused(response: httpx2.Response) -> tuple[int, str]:
    """The status and the code of an error."""
    return response.status_code, response.json()["error"]["code"]


@contextmanager
def running(**options: bool) -> Iterator[httpx2.Client]:
    """A bare client of a gateway with these stream options."""
    with (
        Gateway(streams=StreamOptions(**options)) as gateway,
        httpx2.Client(base_url=gateway.url) as client,
    ):
        yield client
