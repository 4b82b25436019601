"""What the semantic conventions call things, and what of a call they are. Pure.

HTTP: https://opentelemetry.io/docs/specs/semconv/http/ (stable). GenAI:
https://github.com/open-telemetry/semantic-conventions-genai (in development). The names are written out, because
the package that lists them marks half of it as private and the other as deprecated; a test compares them with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience.events import CallStarted, Event

METHOD = "http.request.method"
METHOD_ORIGINAL = "http.request.method_original"
RESEND_COUNT = "http.request.resend_count"
STATUS = "http.response.status_code"
ADDRESS = "server.address"
PORT = "server.port"
URL = "url.full"
ERROR = "error.type"
OPERATION = "gen_ai.operation.name"
MODEL = "gen_ai.request.model"
PROVIDER = "gen_ai.provider.name"
OVERFLOW = "otel.metric.overflow"
OURS = "gip_resilience."

HTTP_DURATION = "http.client.request.duration"
HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
CALL_DURATION = "gen_ai.client.operation.duration"

_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_PORTS = {"http": 80, "https": 443}
_PORT_DIGITS = 5
_MAX_METHOD = 40

_OPERATIONS = (
    ("/chat/completions", "chat"),
    ("/messages", "chat"),
    ("/responses", "chat"),
    ("/completions", "text_completion"),
    ("/embeddings", "embeddings"),
    (":embedContent", "embeddings"),
    (":generateContent", "generate_content"),
    (":streamGenerateContent", "generate_content"),
)
"""Ends of paths."""

OPERATIONS = frozenset(name for _, name in _OPERATIONS)
"""What one request can be; an agent's run, say, is larger."""

_HOSTS = (
    ("openai.azure.com", "azure.ai.openai"),
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("amazonaws.com", "aws.bedrock"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.deepseek.com", "deepseek"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("api.cohere.com", "cohere"),
)
"""Ends of hosts."""

_VENDORS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex": "gcp.vertex_ai",
    "x-ai": "x_ai",
}
"""First parts of a gateway's model names, where the convention has another word for the vendor."""


class About(NamedTuple):
    """What a call is, in the words of the conventions.

    Attributes:
        name: of a span.
        http: attributes of an HTTP request.
        span: those, and what a span of it has besides.
        call: attributes of the operation; empty where nobody knows the model.
    """

    name: str
    http: dict[str, str | int]
    span: dict[str, str | int]
    call: dict[str, str | int]


def about(started: CallStarted) -> About:
    """What a call is."""
    method = started.method if started.method in _METHODS else "_OTHER"
    parts = urlsplit(started.url)
    host = parts.hostname or started.host
    http: dict[str, str | int] = {METHOD: method, ADDRESS: host}
    port = _port(started.url) or _PORTS.get(parts.scheme)
    if port is not None:
        http[PORT] = port
    operation = next((name for end, name in _OPERATIONS if parts.path.endswith(end)), "")
    call: dict[str, str | int] = {}
    if started.model and operation:
        call = {
            OPERATION: operation,
            PROVIDER: provider(host, started.model),
            MODEL: started.model,
            ADDRESS: host,
        }
        if port is not None:
            call[PORT] = port
    span = {**http, **call, URL: started.url}
    if method != started.method:
        span[METHOD_ORIGINAL] = started.method[:_MAX_METHOD]
    if started.part:
        span[OURS + "part"] = started.part
    return About(f"{operation} {started.model}" if call else _name(http), http, span, call)


def as_request(known: About) -> About:
    """The same call where somebody else tells of the operation: a request like any other."""
    span = {name: value for name, value in known.span.items() if name not in {OPERATION, PROVIDER, MODEL}}
    return About(_name(known.http), known.http, span, {})


def _name(http: Mapping[str, str | int]) -> str:
    method = str(http[METHOD])
    return "HTTP" if method == "_OTHER" else method


def address(host: str) -> dict[str, str | int]:
    """A host, as calls and circuits have it, in the words of the conventions; a port only where it is unusual."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and not port.startswith("0") and len(port) <= _PORT_DIGITS:
        return {ADDRESS: name.strip("[]"), PORT: int(port)}
    return {ADDRESS: host.strip("[]")} if host else {}


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return None


def provider(host: str, model: str) -> str:
    """Who serves a model, as the convention calls it: by the host, else by the vendor in front of the model's name.

    Where neither says anything it is the host: the convention wants a word.
    """
    for end, name in _HOSTS:
        if host.endswith(end):
            return name
    vendor, slash, _ = model.partition("/")
    return _VENDORS.get(vendor, vendor) if slash and vendor else host


def event_name(event: Event) -> str:
    """What happened, as the name of a span's event."""
    return OURS + "".join("_" + c.lower() if c.isupper() else c for c in type(event).__name__).lstrip("_")


def event_attributes(event: Event) -> dict[str, str | int | float | bool]:
    """What an event says, flat, under names of ours; what the span says anyway is left out."""
    found: dict[str, str | int | float | bool] = {}
    for name in event.__struct_fields__:
        if name not in {"call", "host", "model", "report"}:
            _flatten(OURS + name, getattr(event, name), found)
    return found


def _flatten(name: str, value: object, into: dict[str, str | int | float | bool]) -> None:
    if isinstance(value, str):
        into[name] = str.__str__(value)  # an enumeration's too
    elif isinstance(value, (bool, int, float)):
        into[name] = value
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        for key, part in value._asdict().items():
            _flatten(f"{name}.{key}", part, into)
    elif isinstance(value, tuple):
        into[name] = ",".join(map(str, value))
    elif value is not None:
        for key, part in msgspec.to_builtins(value).items():
            _flatten(f"{name}.{key}", part, into)
