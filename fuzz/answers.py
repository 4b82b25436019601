"""Answers as they come over the wire, with their content encoding: judged without an error, the same each time."""

from __future__ import annotations

import gzip
import zlib

from fuzz.classify import _is_in_the_taxonomy
from fuzz.given import Given
from fuzz.words import HEADER_NAMES, HEADER_VALUES
from gip_resilience._answers import Noted, Question, Told
from gip_resilience.above import Layer
from gip_resilience.config import BodyConfig, Config, GateConfig
from gip_resilience.facts import OK

_NAMES = ("content-type", "content-length", "content-encoding", "transfer-encoding", "location", "x-gip-resume",
          "ratelimit", "x-ratelimit-remaining-requests", *HEADER_NAMES)  # fmt: skip
_VALUES = ("application/json", "text/event-stream", "text/html", "application/problem+json; charset=utf-8", "gzip",
           "deflate", "br", "zstd", "identity", "gzip, br", "last-event-id", "chunked", *HEADER_VALUES)  # fmt: skip
_LAYER = Layer(object(), "POST", "https://gateway.example/")
_PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/models/m:streamGenerateContent", "/", "")
_CONFIGS = (
    Config(),
    Config(body=BodyConfig(error_limit=16), gate=GateConfig(exhausted="reset")),
    Config(gate=GateConfig(exhausted="off"), dialect="gip"),
)


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    config, path = given.one_of(_CONFIGS), given.one_of(_PATHS)
    method = given.one_of(("POST", "GET", "HEAD"))
    status = given.one_of((200, 204, 206, 301, 400, 404, 429, 500, 503, 529))
    noted = Noted(
        [(b"Accept", b"accept", given.one_of((b"application/json", b"*/*", b"text/event-stream")))], _LAYER
    )
    pairs = given.headers(_NAMES, _VALUES)
    whole = given.flag()
    body = given.rest()
    told = Told((b"", name.encode("latin-1").lower(), value.encode("latin-1")) for name, value in pairs)
    if told.encoding == "gzip" and whole:
        body = gzip.compress(body, 1, mtime=0)
    elif told.encoding == "deflate" and whole:
        body = zlib.compress(body, 1)
    question = Question(method, path, noted, status, told)
    assert 0 <= question.wants(config) <= max(config.body.error_limit, config.body.json_limit)
    question.streams(config, None)
    question.origin(f"https://gateway.example{path}", config)
    facts = [
        question.judge(lambda: pairs, body, config, lambda: 1767225600.0, whole=whole, broken=None)
        for _ in "12"
    ]
    assert facts[0] == facts[1]
    _is_in_the_taxonomy(facts[0])
    assert not (facts[0].ok and status >= 400)
    hint = question.foresee(OK, lambda: pairs, config, lambda: 1767225600.0).hint
    assert hint is None or config.gate.exhausted != "off"
