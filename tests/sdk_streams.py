"""Streams as the users of SDKs read them: one function per SDK and way to read, all with the same face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anthropic
import groq
import httpx
import httpx2
import mistralai.client
import openai

import gip_resilience as gr

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "azure/openai/gpt-5-mini"
ASKED: Any = [{"role": "user", "content": "Grüße"}]
SILENCE = 0.2
"""Seconds after which the SDKs take a stream for stalled."""


@dataclass
class Reading:
    """What a reader got.

    Attributes:
        text: of the answer.
        error: what was raised.
        told: whether an event of the stream said that it failed (one SDK hands such events on).
        final: what a helper makes of the whole, where there is a helper: the finish reason.
    """

    text: str = ""
    error: Exception | None = None
    told: bool = False
    final: str | None = None

    @property
    def chain(self) -> list[str]:
        """Names of the exception's class and of its causes'."""
        names, link = [], self.error
        while link is not None:
            names.append(type(link).__name__)
            link = link.__cause__ or link.__context__  # type: ignore[assignment]
        return names


@dataclass(frozen=True)
class Reader:
    """One SDK, and one way to read with it.

    Attributes:
        name: as in the table of measurements.
        make: makes the SDK's client.
        path: where its requests go.
        read: reads one answer.
        error: base of what it raises for a stream that broke off.
        timeout: the same for one that stalled.
        gateway_path: what is between the gateway's URL and the SDK's paths.
        exact: what makes it ask for the same answer every time; ``None`` when it cannot.
    """

    name: str
    make: Callable[..., Any]
    path: str
    read: Callable[[Any, Reading, dict[str, Any]], Any]
    error: type[Exception]
    timeout: type[Exception]
    gateway_path: str = "/v1"
    exact: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return self.name

    @property
    def awaits(self) -> bool:
        """Whether it is read by awaiting."""
        return "async" in self.name

    def client(self, url: str) -> Any:
        """A client for the gateway at *url*."""
        if self.make is mistralai.client.Mistral:
            return self.make(server_url=url, api_key="any", timeout_ms=int(SILENCE * 1000))
        return self.make(base_url=url + self.gateway_path, api_key="any", timeout=_timeout(self.make))


def _timeout(make: Any) -> Any:
    library = httpx if make is _groq else httpx2
    return library.Timeout(5, read=SILENCE)


def _groq(**options: Any) -> Any:
    """A Groq client for a gateway that is not Groq's, and has no ``/openai`` before its paths."""

    def rewrite(request: httpx.Request) -> None:
        request.url = request.url.copy_with(path=request.url.path.removeprefix("/openai"))

    return groq.Groq(http_client=httpx.Client(event_hooks={"request": [rewrite]}), **options)


def _chat(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, **options)
    for chunk in stream:
        for choice in chunk.choices:
            reading.text += choice.delta.content or ""


async def _achat(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True, **options)
    async for chunk in stream:
        for choice in chunk.choices:
            reading.text += choice.delta.content or ""


def _chat_helper(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ASKED, **options) as stream:
        for event in stream:
            if event.type == "content.delta":
                reading.text += event.delta
        choice = stream.get_final_completion().choices[0]
        reading.final = choice.finish_reason
        assert choice.message.role == "assistant"


def _responses(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    for event in client.responses.create(model=MODEL, input="Grüße", stream=True, **options):
        _response_event(event, reading)


async def _aresponses(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    stream = await client.responses.create(model=MODEL, input="Grüße", stream=True, **options)
    async for event in stream:
        _response_event(event, reading)


def _response_event(event: Any, reading: Reading) -> None:
    if event.type == "response.output_text.delta":
        reading.text += event.delta
    elif event.type in {"error", "response.failed"}:
        reading.told = True


def _responses_helper(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    with client.responses.stream(model=MODEL, input="Grüße", **options) as stream:
        for event in stream:
            _response_event(event, reading)
        reading.final = stream.get_final_response().status


def _messages(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    for event in client.messages.create(model=MODEL, messages=ASKED, max_tokens=50, stream=True, **options):
        if event.type == "content_block_delta":
            reading.text += event.delta.text


def _messages_helper(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    with client.messages.stream(model=MODEL, messages=ASKED, max_tokens=50, **options) as stream:
        for text in stream.text_stream:
            reading.text += text
        reading.final = stream.get_final_message().stop_reason


def _mistral(client: Any, reading: Reading, options: dict[str, Any]) -> None:
    with client.chat.stream(model=MODEL, messages=ASKED, **options) as stream:
        for event in stream:
            reading.text += event.data.choices[0].delta.content or "" if event.data.choices else ""


_ZERO = {"temperature": 0}
_EXTRA = {"extra_body": _ZERO}  # Anthropic's SDK has no parameter for it any more
_OPENAI = (openai.APIConnectionError, openai.APITimeoutError)

READERS = {
    reader.name: reader
    for reader in (
        Reader("oai_chat", openai.OpenAI, "/v1/chat/completions", _chat, *_OPENAI, exact=_ZERO),
        Reader("oai_chat_async", openai.AsyncOpenAI, "/v1/chat/completions", _achat, *_OPENAI, exact=_ZERO),
        Reader("oai_chat_helper", openai.OpenAI, "/v1/chat/completions", _chat_helper, *_OPENAI, exact=_ZERO),
        Reader("oai_resp", openai.OpenAI, "/v1/responses", _responses, *_OPENAI),
        Reader("oai_resp_async", openai.AsyncOpenAI, "/v1/responses", _aresponses, *_OPENAI),
        Reader("oai_resp_helper", openai.OpenAI, "/v1/responses", _responses_helper, *_OPENAI),
        Reader(
            "anth_raw",
            anthropic.Anthropic,
            "/v1/messages",
            _messages,
            httpx2.TransportError,
            httpx2.ReadTimeout,
            gateway_path="",
            exact=_EXTRA,
        ),
        Reader(
            "anth_helper",
            anthropic.Anthropic,
            "/v1/messages",
            _messages_helper,
            httpx2.TransportError,
            httpx2.ReadTimeout,
            gateway_path="",
            exact=_EXTRA,
        ),
        Reader(
            "groq_chat",
            _groq,
            "/v1/chat/completions",
            _chat,
            httpx.TransportError,
            httpx.ReadTimeout,
            gateway_path="",
            exact=_ZERO,
        ),
        Reader(
            "mistral_chat",
            mistralai.client.Mistral,
            "/v1/chat/completions",
            _mistral,
            httpx2.TransportError,
            httpx2.ReadTimeout,
            exact=_ZERO,
        ),
    )
}
"""By the names the measurements have."""


def read(reader: Reader, client: Any, portal: Any, **options: Any) -> Reading:
    """One answer, as far as it comes."""
    reading = Reading()
    try:
        if reader.awaits:
            portal.call(reader.read, client, reading, options)
        else:
            reader.read(client, reading, options)
    except Exception as error:
        reading.error = error
    return reading


def report_of(reading: Reading) -> gr.CallReport | None:
    """The report behind what was raised."""
    return gr.report(reading.error) if reading.error is not None else None
