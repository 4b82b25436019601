"""Streams made of pieces: any cut gives the same, nothing comes out that did not come in, and every break ends well."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fuzz.given import Given, cut
from gip_resilience._splice import Splice
from gip_resilience.config import Config, StreamConfig
from gip_resilience.recovery import Action, Asked, Origin, Phase

if TYPE_CHECKING:
    from gip_resilience.facts import Fact

_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
          "/v1beta/models/m:streamGenerateContent", "/events")  # fmt: skip
_ASKED = (
    Asked(known=True, repeatable=True),
    Asked(known=True),
    Asked(known=True, background=True),
    Asked(known=True, repeatable=True, choices=2, usage=True),
    Asked(),
)
_CONFIGS = (
    Config(),
    Config(stream=StreamConfig(replay="always")),
    Config(stream=StreamConfig(replay="always", max_held=200, max_delivered=400)),
    Config(stream=StreamConfig(mode="detect", marker=False)),
)
AGAIN = b"\n====\n"
"""Between the answer that breaks and the one to the next attempt."""


class Came(NamedTuple):
    """What became of a stream."""

    out: bytes
    actions: tuple[str, ...]
    broken: Fact | None
    phase: Phase
    events: int


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    path, asked, config = given.one_of(_PATHS), given.one_of(_ASKED), given.one_of(_CONFIGS)
    method, resumable = given.one_of(("POST", "GET")), given.below(4) == 3
    kind, sizes = given.one_of(("", "stream_reset", "stream_stalled")), given.sizes()
    answers = given.rest().split(AGAIN)[:4]
    origin = Origin(method, f"https://gateway.example{path}", resumable)

    def spliced(sizes: list[int]) -> Came:
        splice = Splice(config, path, origin, lambda: asked, lambda: 1e9)
        return _through(splice, answers, kind, sizes)

    whole = spliced([1 << 20])
    returns = any(b"\r" in answer for answer in answers)
    assert _comparable(spliced(sizes), returns) == _comparable(whole, returns)
    if len(answers) == 1 and "marker" not in whole.actions:
        stream = answers[0]
        assert stream.startswith(whole.out) or (stream.rstrip(b"\r\n") + b"\n\n").endswith(whole.out[-2:])


def _comparable(came: Came, returns: bool) -> Came:
    """But for line ends: the LF of a CRLF that was cut in two begins the next block, or is one, and may be left behind."""
    return came._replace(out=came.out.translate(None, b"\r\n")) if returns else came


def _through(splice: Splice, answers: list[bytes], kind: str, sizes: list[int]) -> Came:
    """The way a stream is read, with the next answer after each break."""
    out, actions = b"", list[str]()
    broken = None
    for number, answer in enumerate(answers):
        for piece in cut(answer, sizes):
            if splice.broken is not None:
                break
            out += splice.after(piece) if splice.over else splice.feed(piece)
        if not splice.over and splice.broken is None:
            if kind and number == 0:
                splice.lose(kind)
            else:
                out += splice.end()
        if splice.broken is None:
            break
        broken = splice.broken
        decision = splice.decide()
        actions.append(decision.action.value)
        assert decision.reason or decision.action is not Action.FAIL
        if decision.onward is not None and number + 1 < len(answers):
            decision.onward.headers([(b"content-type", b"application/json")])
            splice.begin(decision.action)
            continue
        out += (
            splice.complete(decision.action)
            if decision.action in (Action.END, Action.MARKER)
            else splice.fail()
        )
        assert splice.over
        break
    assert splice.text is None or isinstance(splice.text, str)
    return Came(out, tuple(actions), broken, splice.phase, splice.events)
