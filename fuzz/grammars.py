"""The events of the five protocols: any block means something, and what it is said to mean hangs together."""

from __future__ import annotations

import json

from fuzz.given import Given
from fuzz.words import STREAM_WORDS
from gip_resilience.sse import parse
from gip_resilience.streams import (
    ANTHROPIC,
    CHAT,
    COMPLETIONS,
    GEMINI,
    RESPONSES,
    Kind,
    Said,
    confirm,
    grammar_for,
    is_bare_error,
    is_event_stream,
)

_GRAMMARS = (CHAT, COMPLETIONS, RESPONSES, ANTHROPIC, GEMINI)


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    grammar, shape = given.one_of(_GRAMMARS), given.below(4)
    if shape < 2:
        name = given.one_of(STREAM_WORDS).encode() if shape else b""
        text = json.dumps(given.value(STREAM_WORDS, 5)).encode()
        raw = b"event: %b\ndata: %b\n\n" % (name, text) if name else b"data: %b\n\n" % text
    elif shape == 2:
        raw = b"data: " + given.rest() + b"\n\n"
    else:
        raw = given.rest()
    block = parse(raw)
    said = grammar.read(block, raw)
    assert said == grammar.read(block, raw)
    _hangs_together(said)
    found = confirm(grammar, block, raw)
    assert found is None or found in _GRAMMARS
    assert confirm(None, block, raw) in (None, *_GRAMMARS)
    is_bare_error(raw)
    path = raw[:64].decode("latin-1")
    assert grammar_for(path) in (None, *_GRAMMARS)
    is_event_stream(path)


def _hangs_together(said: Said) -> None:
    assert isinstance(said.kind, Kind)
    assert set(said.finished) <= set(said.indexes)
    assert all(type(index) is int for index in said.indexes)
    assert said.sequence is None or type(said.sequence) is int
    assert isinstance(said.response_id, str)
    if said.kind in (Kind.NOTHING, Kind.ERROR, Kind.GARBLED, Kind.OUTPUT):
        assert not said.finished
