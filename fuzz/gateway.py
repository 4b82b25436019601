"""What the gateway is asked: any request that could be read has an answer, and never an exception."""

from __future__ import annotations

import json

from fuzz.given import Given
from gip_resilience.gateway import api as gateway_api
from gip_resilience.gateway.api import Api
from gip_resilience.gateway.asked import Asked
from gip_resilience.gateway.http1 import Request
from gip_resilience.gateway.limits import RateLimit
from gip_resilience.gateway.recording import Redactor

_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/models",
          "/v1/audio/transcriptions", "/v1beta/models/m:streamGenerateContent", "/v1/models/azure%2Fm", "/echo",
          "/v1/responses/resp_1", "/bytes/12", "/cookies/set", "/healthz", "/v1/nothing")  # fmt: skip
_QUERIES = ("", "?alt=sse", "?stream=true&starting_after=3", "?key=x&key=y", "?%zz=%ff&&=")
_TYPES = ("application/json", "text/plain", "multipart/form-data; boundary=b", "multipart/form-data; boundary=\"x y\"",
          "multipart/form-data", "application/vnd.x+json")  # fmt: skip
_WORDS = ("model", "messages", "role", "user", "content", "stream", "stream_options", "include_usage", "tools", "tool",
          "tool_choice", "function", "name", "required", "none", "auto", "max_tokens", "max_completion_tokens", "n",
          "temperature", "top_p", "input", "text", "type", "input_text", "output_text", "image_url", "url", "prompt",
          "logprobs", "top_logprobs", "seed", "stop", "background", "store", "max_output_tokens", "system",
          "instructions", "contents", "parts", "generationConfig", "maxOutputTokens", "dimensions",
          "encoding_format", "base64", "parameters", "previous_response_id", "")  # fmt: skip


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    target = given.one_of(_PATHS) if given.below(8) else "/" + given.text(24)
    target += given.one_of(_QUERIES)
    method = given.one_of(("POST", "POST", "POST", "GET", "HEAD"))
    headers = [("content-type", given.one_of(_TYPES)), ("authorization", "Bearer " + given.text(8))]
    if given.below(4) == 3:
        headers.append(("last-event-id", given.text(16)))
    body = _body(given)
    request = Request(method, target, 1, tuple(headers), body)
    asked = gateway_api.read(request)
    assert isinstance(asked, Asked)
    assert asked.model is None or isinstance(asked.model, str)
    assert asked.stream in (True, False)
    api = Api((), None, RateLimit(), 1, Redactor(b"key"))
    answer = api.respond(request, asked, 0.0)
    assert 200 <= answer.status < 600
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in answer.headers)


def _body(given: Given) -> bytes:
    match given.below(4):
        case 0:
            return given.rest()
        case 1:
            parts = [b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (given.piece(8), given.piece(24))
                     for _ in range(given.below(4))]  # fmt: skip
            return b"".join(parts) + b"--b--"
        case kind:
            value = given.value(_WORDS, 5)
            if kind == 2 and isinstance(value, dict):
                said = {"role": "user", "content": given.value(_WORDS, 3)}
                value = {
                    "model": "m",
                    "messages": [said],
                    "input": given.value(_WORDS, 4),
                    "contents": [said],
                } | value
            return json.dumps(value).encode()
