"""Gemini's API, as far as it streams: ``POST /v1beta/models/{model}:streamGenerateContent``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gip_resilience.gateway import content
from gip_resilience.gateway.answers import json_answer
from gip_resilience.gateway.asked import Refusal, integer, number, prompt_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gip_resilience.gateway.answers import Answer
    from gip_resilience.gateway.asked import Asked, Prompt
    from gip_resilience.gateway.content import Said
    from gip_resilience.gateway.streaming import Service

PREFIX: Final = "/v1beta/models/"
SUFFIX: Final = ":streamGenerateContent"


def stream_generate_content(api: Service, asked: Asked) -> tuple[Answer, int]:
    """The answer as a stream of events, or as one JSON array where ``alt=sse`` is missing.

    There is no marker: the last chunk has a ``finishReason``, and words too.
    """
    payload = asked.payload
    model = api.known_model(asked)
    prompt = _prompt(payload)
    given = payload.get("generationConfig")
    config: dict[str, Any] = given if isinstance(given, dict) else {}
    number(config, "temperature", 0, 2)
    limit = integer(config, "maxOutputTokens", 1)
    turn = api.streams.begin(config)
    said = turn.answer(prompt.text, limit=limit)
    head = {"modelVersion": model, "responseId": turn.identifier("", model, prompt.text)}
    chunks = [{**chunk, **head} for chunk in _chunks(said, prompt.tokens)]
    tokens = prompt.tokens + said.tokens
    if not asked.stream:
        return json_answer(chunks), tokens
    events = (content.data_event(chunk).replace(b"\n", b"\r\n") for chunk in chunks)
    return api.streams.send(PREFIX, events, turn), tokens


def _prompt(payload: Mapping[str, Any]) -> Prompt:
    contents = payload.get("contents")
    if not isinstance(contents, list) or not contents or not all(isinstance(one, dict) for one in contents):
        raise Refusal("invalid_argument", "Missing 'contents': a list of objects is required.")
    system = payload.get("systemInstruction")
    instruction = content.text_of(system.get("parts")) if isinstance(system, dict) else ""
    texts = [(one.get("role"), content.text_of(one.get("parts"))) for one in contents]
    # Tools are declared in a way of their own here, and none is ever called.
    return prompt_of({}, texts, instruction)


def _chunks(said: Said, prompt_tokens: int) -> Iterator[dict[str, object]]:
    *pieces, last = said.pieces
    usage = {"promptTokenCount": prompt_tokens, "totalTokenCount": prompt_tokens}
    for piece in pieces:
        yield {"candidates": [_candidate(piece)], "usageMetadata": usage}
    finish = "STOP" if said.whole else "MAX_TOKENS"
    total = {"candidatesTokenCount": said.tokens, "totalTokenCount": prompt_tokens + said.tokens}
    yield {"candidates": [{**_candidate(last), "finishReason": finish}], "usageMetadata": {**usage, **total}}


def _candidate(text: str) -> dict[str, object]:
    return {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
