"""The gateway in good health: its endpoints, its checks, and its limits.

`Api.respond` is a function of the request, the time and what was used of the limits; nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gip_resilience.gateway import content
from gip_resilience.gateway.answers import Answer, Parts, error_answer, json_answer, pattern
from gip_resilience.gateway.limits import Quota, RateLimit, Windows
from gip_resilience.gateway.recording import Redactor, credential_of
from gip_resilience.gateway.wire import format_seconds

if TYPE_CHECKING:
    from gip_resilience.gateway.http1 import Headers, Request

DEFAULT_MODELS: Final = ("azure/openai/gpt-5-mini", "openai/text-embedding-3-small", "openai/whisper-1")
"""Listed by ``/v1/models`` when the gateway takes any model."""

MAX_BYTES: Final = 1 << 30
"""The most ``/bytes/{n}`` sends."""

_SSE: Final[Headers] = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
_MODEL_PATH: Final = "/v1/models/"
_BOUNDARY: Final = re.compile(r'boundary="?([^";]{1,200})"?', re.IGNORECASE)
_PART_NAME: Final = re.compile(rb'content-disposition:[^\r\n]*;[ \t]*name="([^"\r\n]*)"', re.IGNORECASE)


class Refusal(Exception):  # noqa: N818 - not an error of the gateway but its answer
    """The request cannot be served; carries the answer that says so."""

    def __init__(self, code: str, message: str | None = None, *, status: int | None = None) -> None:
        super().__init__(code)
        self.answer = error_answer(code, message, status=status)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, as far as it can be read.

    Attributes:
        payload: the JSON object or the form fields; empty when there is none.
        problem: why the body could not be read.
        model: the model it names.
        stream: whether it asks for a stream.
    """

    payload: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def model(self) -> str | None:
        """The model the request names."""
        model = self.payload.get("model")
        return model if isinstance(model, str) else None

    @property
    def stream(self) -> bool:
        """Whether the request asks for a stream."""
        return self.payload.get("stream") is True


def read(request: Request) -> Asked:
    """What *request* asks for. Never raises."""
    if request.path.startswith(_MODEL_PATH):
        return Asked({"model": request.path.removeprefix(_MODEL_PATH)})
    if request.method != "POST" or not request.path.startswith("/v1/"):
        return Asked()
    content_type = request.header("content-type", "application/json").lower()
    if content_type.startswith("multipart/form-data"):
        return Asked(_form_fields(request))
    if "json" not in content_type:
        return Asked(problem="content type")
    try:
        payload = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, RecursionError):
        return Asked(problem="JSON")
    return Asked(payload) if isinstance(payload, dict) else Asked(problem="object")


class Api:
    """The endpoints. Not thread-safe; one task must own it.

    Args:
        models: the models it knows; empty for any.
        keys: digests of the keys it takes, by *redactor*; `None` for any key and for none.
        limit: the rate limit of a key, if any.
        seed: decides the wording of the answers.
        redactor: turns keys into digests.
    """

    def __init__(
        self,
        models: tuple[str, ...],
        keys: frozenset[str] | None,
        limit: RateLimit | None,
        seed: int,
        redactor: Redactor,
    ) -> None:
        self.models = models
        self.seed = seed
        self._keys = keys
        self._windows = Windows(limit) if limit is not None else None
        self._redactor = redactor

    def respond(self, request: Request, asked: Asked, now: float) -> Answer:
        """The answer to *request* at *now*."""
        try:
            if not request.path.startswith("/v1/"):
                return _utility(request, self._redactor)
            return self._serve(request, asked, now)
        except Refusal as refusal:
            return refusal.answer

    def quota(self, request: Request, now: float) -> Quota | None:
        """What the key of *request* has left, where there is a limit and the endpoint is under it."""
        if self._windows is None or not request.path.startswith("/v1/"):
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
        return self._redactor.digest(credential_of(request))

    def _serve(self, request: Request, asked: Asked, now: float) -> Answer:
        self._authenticate(request)
        method, endpoint = _endpoint(request)
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
        credential = credential_of(request)
        if not credential:
            raise Refusal("missing_api_key")
        if self._redactor.digest(credential) not in self._keys:
            raise Refusal("invalid_api_key")

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


_Served = tuple[Answer, int]
_Endpoint = Callable[[Api, Asked], _Served]


def _endpoint(request: Request) -> tuple[str, _Endpoint]:
    found = _ENDPOINTS.get(request.path)
    if found is not None:
        return found
    if request.path.startswith(_MODEL_PATH):
        return "GET", _one_model
    raise Refusal("not_found")


def _unreadable(problem: str) -> Refusal:
    if problem == "content type":
        return Refusal("invalid_request", "The content type must be application/json.", status=415)
    if problem == "JSON":
        return Refusal("invalid_request", "The body is not valid JSON.")
    return Refusal("invalid_request", "The body must be a JSON object.")


def _chat(api: Api, asked: Asked) -> _Served:
    payload = asked.payload
    model = api.known_model(asked)
    prompt, prompt_tokens = _conversation(payload)
    _number(payload, "temperature", 0, 2)
    count = _integer(payload, "n", 1, 8) or 1
    limit = _integer(payload, "max_completion_tokens", 1) or _integer(payload, "max_tokens", 1)
    _boolean(payload, "stream")
    choices = [_completion(prompt, api.seed + index, limit) for index in range(count)]
    completion_tokens = sum(len(pieces) for pieces, _ in choices)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    head: dict[str, object] = {
        "id": content.identifier("chatcmpl-", api.seed, model, prompt),
        "created": content.CREATED,
        "model": model,
    }
    tokens = usage["total_tokens"]
    if asked.stream:
        options = payload.get("stream_options")
        wanted = isinstance(options, dict) and options.get("include_usage") is True
        return _stream(content.chat_events(head, choices, usage if wanted else None)), tokens
    answers = [
        {
            "index": index,
            "message": {"role": "assistant", "content": "".join(pieces)},
            "finish_reason": finish,
        }
        for index, (pieces, finish) in enumerate(choices)
    ]
    return json_answer({**head, "object": "chat.completion", "choices": answers, "usage": usage}), tokens


def _messages(api: Api, asked: Asked) -> _Served:
    payload = asked.payload
    model = api.known_model(asked)
    prompt, prompt_tokens = _conversation(payload)
    _number(payload, "temperature", 0, 1)
    limit = _integer(payload, "max_tokens", 1)
    if limit is None:
        raise Refusal("invalid_argument", "Missing 'max_tokens': an integer is required.")
    _boolean(payload, "stream")
    pieces, finish = _completion(prompt, api.seed, limit)
    stop = "max_tokens" if finish == "length" else "end_turn"
    message: dict[str, object] = {
        "id": content.identifier("msg_", api.seed, model, prompt),
        "type": "message",
        "role": "assistant",
        "model": model,
    }
    tokens = prompt_tokens + len(pieces)
    if asked.stream:
        return _stream(content.message_events(message, pieces, stop, prompt_tokens)), tokens
    whole = {
        **message,
        "content": [{"type": "text", "text": "".join(pieces)}],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": prompt_tokens, "output_tokens": len(pieces)},
    }
    return json_answer(whole), tokens


def _embeddings(api: Api, asked: Asked) -> _Served:
    payload = asked.payload
    model = api.known_model(asked)
    texts = _inputs(payload.get("input"))
    dimensions = _integer(payload, "dimensions", 1, 4096) or 8
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
    "/v1/chat/completions": ("POST", _chat),
    "/v1/embeddings": ("POST", _embeddings),
    "/v1/messages": ("POST", _messages),
    "/v1/audio/transcriptions": ("POST", _transcriptions),
    "/v1/models": ("GET", _all_models),
}


def _stream(events: Iterable[bytes]) -> Answer:
    return Answer(200, _SSE, Parts(tuple(events)))


def _completion(prompt: str, seed: int, limit: int | None) -> tuple[list[str], str]:
    """The words of an answer and why it ended."""
    pieces = content.words(content.reply_text(prompt, seed))
    return (pieces, "stop") if limit is None or len(pieces) <= limit else (pieces[:limit], "length")


def _conversation(payload: Mapping[str, Any]) -> tuple[str, int]:
    """The text of the last message, and the tokens of all of them."""
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal("invalid_argument", "Missing 'messages': a list with at least one message is required.")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise Refusal("invalid_argument", "Invalid 'messages': every message needs a role.")
    texts = [content.text_of(message.get("content")) for message in messages]
    tokens = sum(map(content.count_tokens, [content.text_of(payload.get("system")), *texts]))
    return texts[-1], tokens


def _inputs(value: object) -> list[str]:
    """The texts to embed; token numbers count as the text of the numbers."""
    items: list[Any] = [value]
    if isinstance(value, list) and not all(isinstance(item, int) for item in value):
        items = value
    if not all(item and isinstance(item, (str, list)) for item in items):
        raise Refusal("invalid_argument", "Missing 'input': text, or a list of texts, is required.")
    return [item if isinstance(item, str) else " ".join(str(part) for part in item) for item in items]


def _number(payload: Mapping[str, Any], name: str, lowest: float, highest: float) -> None:
    value = payload.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refusal("invalid_argument", f"Invalid '{name}': a number is required.")
    if not lowest <= value <= highest:
        bound = "above maximum" if value > highest else "below minimum"
        raise Refusal("invalid_argument", f"Invalid '{name}': decimal {bound} value.")


def _integer(payload: Mapping[str, Any], name: str, lowest: int, highest: int | None = None) -> int | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refusal("invalid_argument", f"Invalid '{name}': an integer is required.")
    if value < lowest or (highest is not None and value > highest):
        bound = "below minimum" if value < lowest else "above maximum"
        raise Refusal("invalid_argument", f"Invalid '{name}': integer {bound} value.")
    return value


def _boolean(payload: Mapping[str, Any], name: str) -> None:
    if not isinstance(payload.get(name), (bool, type(None))):
        raise Refusal("invalid_argument", f"Invalid '{name}': true or false is required.")


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
