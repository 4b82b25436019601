"""The gateway in good health: its endpoints, its checks, and its limits.

`Api.respond` is a function of the request, the time, and the requests before it; nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gip_resilience.gateway import chat, content, gemini, messages, responses
from gip_resilience.gateway.answers import Answer, Parts, error_answer, json_answer, pattern
from gip_resilience.gateway.asked import Asked, Refusal, inputs, integer
from gip_resilience.gateway.limits import Quota, RateLimit, Windows
from gip_resilience.gateway.recording import Redactor, credential_of
from gip_resilience.gateway.streaming import CHAT, COMPLETIONS, MESSAGES, RESPONSES, StreamOptions, Streams
from gip_resilience.gateway.wire import format_seconds

if TYPE_CHECKING:
    from gip_resilience.gateway.http1 import Request

DEFAULT_MODELS: Final = ("azure/openai/gpt-5-mini", "openai/text-embedding-3-small", "openai/whisper-1")
"""Listed by ``/v1/models`` when the gateway takes any model."""

MAX_BYTES: Final = 1 << 30
"""The most ``/bytes/{n}`` sends."""

_UNDER_KEY: Final = ("/v1/", "/v1beta/")
_MODEL_PATH: Final = "/v1/models/"
_BOUNDARY: Final = re.compile(r'boundary="?([^";]{1,200})"?', re.IGNORECASE)
_PART_NAME: Final = re.compile(rb'content-disposition:[^\r\n]*;[ \t]*name="([^"\r\n]*)"', re.IGNORECASE)


def read(request: Request) -> Asked:
    """What *request* asks for. Never raises."""
    path = request.path
    if path.startswith(_MODEL_PATH):
        return Asked({"model": path.removeprefix(_MODEL_PATH)})
    if path.startswith(responses.PREFIX):
        query = request.query
        wanted = {"stream": query.get("stream") == "true", "starting_after": query.get("starting_after")}
        return Asked({"id": path.removeprefix(responses.PREFIX), **wanted})
    if request.method != "POST" or not path.startswith(_UNDER_KEY):
        return Asked()
    content_type = request.header("content-type", "application/json").lower()
    if content_type.startswith("multipart/form-data"):
        return Asked(_form_fields(request))
    if "json" not in content_type:
        return Asked(problem="content type")
    try:
        payload = msgspec.json.decode(request.body)
    except (ValueError, RecursionError):  # a text in it may be no UTF-8, which is no DecodeError
        return Asked(problem="JSON")
    if not isinstance(payload, dict):
        return Asked(problem="object")
    if _is_gemini(path):
        model = path.removeprefix(gemini.PREFIX).removesuffix(gemini.SUFFIX)
        payload |= {"model": model, "stream": request.query.get("alt") == "sse"}
    return Asked(payload)


_Served = tuple[Answer, int]
_Endpoint = Callable[["Api", Asked], _Served]


class Api:
    """The endpoints. Not thread-safe; one task must own it.

    Args:
        models: the models it knows; empty for any.
        keys: digests of the keys it takes, by *redactor*; `None` for any key and for none.
        limit: the rate limit of a key, if any.
        seed: decides the wording of the answers.
        redactor: turns keys into digests.
        options: how streams look.
    """

    def __init__(
        self,
        models: tuple[str, ...],
        keys: frozenset[str] | None,
        limit: RateLimit | None,
        seed: int,
        redactor: Redactor,
        options: StreamOptions | None = None,
    ) -> None:
        self.models = models
        self.streams = Streams(options or StreamOptions(), seed)
        self._keys = keys
        self._windows = Windows(limit) if limit is not None else None
        self._redactor = redactor

    def respond(self, request: Request, asked: Asked, now: float) -> Answer:
        """The answer to *request* at *now*."""
        try:
            if not request.path.startswith(_UNDER_KEY):
                return _utility(request, self._redactor)
            return self._serve(request, asked, now)
        except Refusal as refusal:
            return refusal.answer

    def quota(self, request: Request, now: float) -> Quota | None:
        """What the key of *request* has left, where there is a limit and the endpoint is under it."""
        if self._windows is None or not request.path.startswith(_UNDER_KEY):
            return None
        return self._windows.quota(self._owner(request), now)

    def rate_limited(self, request: Request, now: float, retry_after: float | str | None = None) -> Answer:
        """429 with ``Retry-After`` and an empty quota, whatever is left."""
        quota = self.quota(request, now)
        if quota is None:
            quota = Quota(RateLimit(), 0, 0, 1.0 if isinstance(retry_after, str | None) else retry_after)
        wait = quota.retry_after if retry_after is None else retry_after
        headers = (("retry-after", format_seconds(wait)), *replace(quota, requests=0, tokens=0).headers())
        return error_answer("rate_limit_exceeded", headers=headers)

    def _owner(self, request: Request) -> str:
        return self._redactor.digest(_credential(request))

    def _serve(self, request: Request, asked: Asked, now: float) -> Answer:
        self._authenticate(request)
        method, endpoint = self._endpoint(request)
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            refusal = Refusal("invalid_request", f"This endpoint takes {method}.", status=405)
            return refusal.answer.with_headers([("allow", method)])
        if asked.problem is not None:
            raise _unreadable(asked.problem)
        try:
            answer, tokens = endpoint(self, asked)
        except Refusal as refusal:
            answer, tokens = refusal.answer, 0
        # A refused request counts too, as it does at the vendors; reading the list of models is free.
        owner = self._owner(request)
        if self._windows is None or method != "POST" or self._windows.admit(owner, tokens, now):
            return answer
        wait = self._windows.quota(owner, now).retry_after
        return error_answer("rate_limit_exceeded", headers=(("retry-after", str(wait)),))

    def _authenticate(self, request: Request) -> None:
        if self._keys is None:
            return
        credential = _credential(request)
        if not credential:
            raise Refusal("missing_api_key")
        if self._redactor.digest(credential) not in self._keys:
            raise Refusal("invalid_api_key")

    def _endpoint(self, request: Request) -> tuple[str, _Endpoint]:
        path = request.path
        last_event_id = request.header("last-event-id")
        if last_event_id and self.streams.resumes(path):
            # With any method: a browser comes back with GET, others with what they sent first.
            return request.method, lambda api, _asked: (api.streams.resume(path, last_event_id), 0)
        found = _ENDPOINTS.get(path)
        if found is not None:
            return found
        if path.startswith(_MODEL_PATH):
            return "GET", _one_model
        if path.startswith(responses.PREFIX):
            return "GET", responses.retrieve
        if _is_gemini(path):
            return "POST", gemini.stream_generate_content
        raise Refusal("not_found")

    def known_model(self, asked: Asked) -> str:
        """The model of the request.

        Raises:
            Refusal: it names none, or one that does not exist.
        """
        model = asked.model
        if not model:
            raise Refusal("invalid_argument", "Missing 'model': a model name is required.")
        if self.models and model not in self.models:
            raise Refusal("unknown_model")
        return model


def _is_gemini(path: str) -> bool:
    return path.startswith(gemini.PREFIX) and path.endswith(gemini.SUFFIX)


def _credential(request: Request) -> str:
    return credential_of(request) or request.header("x-goog-api-key")


def _unreadable(problem: str) -> Refusal:
    if problem == "content type":
        return Refusal("invalid_request", "The content type must be application/json.", status=415)
    if problem == "JSON":
        return Refusal("invalid_request", "The body is not valid JSON.")
    return Refusal("invalid_request", "The body must be a JSON object.")


def _embeddings(api: Api, asked: Asked) -> _Served:
    payload = asked.payload
    model = api.known_model(asked)
    texts = inputs(payload, "input")
    dimensions = integer(payload, "dimensions", 1, 4096) or 8
    base64 = payload.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector = content.embedding(text, dimensions)
        encoded = content.packed(vector) if base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": encoded})
    tokens = sum(map(content.count_tokens, texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_answer({"object": "list", "data": data, "model": model, "usage": usage}), tokens


def _transcriptions(api: Api, asked: Asked) -> _Served:
    api.known_model(asked)
    audio = asked.payload.get("file")
    if not isinstance(audio, bytes):
        raise Refusal("invalid_argument", "Missing 'file': a form field with the audio is required.")
    text = f"Heard {len(audio)} bytes, sha256 {sha256(audio).hexdigest()[:16]}."
    if asked.payload.get("response_format") == "text":
        return Answer(200, (("content-type", "text/plain; charset=utf-8"),), f"{text}\n".encode()), 0
    return json_answer({"text": text}), content.count_tokens(text)


def _all_models(api: Api, _asked: Asked) -> _Served:
    return json_answer({"object": "list", "data": [_model(name) for name in api.models or DEFAULT_MODELS]}), 0


def _one_model(api: Api, asked: Asked) -> _Served:
    return json_answer(_model(api.known_model(asked))), 0


def _model(name: str) -> dict[str, object]:
    owner = name.partition("/")[0]
    return {"id": name, "object": "model", "created": content.CREATED, "owned_by": owner}


_ENDPOINTS: Final[dict[str, tuple[str, _Endpoint]]] = {
    CHAT: ("POST", chat.chat),
    COMPLETIONS: ("POST", chat.completions),
    MESSAGES: ("POST", messages.messages),
    RESPONSES: ("POST", responses.create),
    "/v1/embeddings": ("POST", _embeddings),
    "/v1/audio/transcriptions": ("POST", _transcriptions),
    "/v1/models": ("GET", _all_models),
}


def _form_fields(request: Request) -> dict[str, Any]:
    """The fields of a multipart form: text, but ``file`` as bytes."""
    match = _BOUNDARY.search(request.header("content-type"))
    if match is None:
        return {}
    fields: dict[str, Any] = {}
    delimiter = b"--" + match[1].encode("latin-1")
    for part in request.body.split(delimiter)[1:]:
        head, _, data = part.partition(b"\r\n\r\n")
        name = _PART_NAME.search(head)
        if name is not None:
            data = data.removesuffix(b"\r\n")
            key = name[1].decode("utf-8", "replace")
            fields[key] = data if key == "file" else data.decode("utf-8", "replace")
    return fields


def _utility(request: Request, redactor: Redactor) -> Answer:
    """The endpoints for tests; they need no key and know no limit."""
    path, method = request.path, request.method
    if path == "/echo" and method == "POST":
        body = {"sha256": sha256(request.body).hexdigest(), "size": len(request.body)}
        return json_answer({**body, "headers": redactor.headers(request)})
    if method not in ("GET", "HEAD"):
        known = path in ("/healthz", "/echo", "/cookies/set") or path.startswith("/bytes/")
        raise Refusal("invalid_request", status=405) if known else Refusal("not_found")
    if path == "/healthz":
        return json_answer({"status": "ok"})
    if path == "/cookies/set":
        return json_answer({"cookies": "set"}, headers=(("set-cookie", "gip=resilience; Path=/"),))
    if path.startswith("/bytes/"):
        return _bytes(path.removeprefix("/bytes/"))
    raise Refusal("invalid_request", status=405) if path == "/echo" else Refusal("not_found")


def _bytes(count: str) -> Answer:
    if not re.fullmatch("[0-9]{1,10}", count) or int(count) > MAX_BYTES:
        raise Refusal("invalid_argument", f"The number of bytes must be within 0 and {MAX_BYTES}.")
    size = int(count)
    return Answer(200, (("content-type", "application/octet-stream"),), Parts(pattern(size), size))
