"""What to do when a stream breaks: the table, as a pure function.

Given how far the answer had come, what is known of the request and how it broke, `decide` names the first row that
applies:

===  ====================================================  =====================================================
row  situation                                             action
===  ====================================================  =====================================================
0    the terminal marker was handed up; then anything      end: nothing is missing
1    every choice was finished, only the marker is missing  supply the marker
2    the server keeps the run and gave a cursor            resume by the cursor, without a gap or not at all
3    event ids were seen, and the server resumes by them   resume by ``Last-Event-ID``, nothing twice
4    no output was handed up yet                           restart: the caller sees one attempt only
5    output was handed up, and can be compared             replay, and go on where it is the same; or fail
7    anything else                                         fail
===  ====================================================  =====================================================

Row 6 (asking the model to go on from a partial answer) is left out: its text is not what one run would have said.
What is never done, under any setting: sending again blindly after output.

Whether an attempt may be made at all (attempts, budget, circuit, gate, deadline) is the engine's to say, as for any
other failure.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gip_resilience.config import StreamConfig


class Phase(StrEnum):
    """How far the answer has come, as the caller has seen it."""

    NONE = "none"
    """No output yet: nothing, comments, or what was held back."""
    OUTPUT = "output"
    TAIL = "tail"
    """Every choice has its finish reason; the marker is missing."""
    DONE = "done"
    """The marker was handed up."""


class Action(StrEnum):
    """What is done about a break."""

    END = "end"
    MARKER = "marker"
    RESUME = "resume"
    RESTART = "restart"
    REPLAY = "replay"
    FAIL = "fail"


class Asked(NamedTuple):
    """What a request asked for, as far as it decides about its stream.

    Attributes:
        known: whether its body could be read.
        choices: how many answers (``n``, ``candidateCount``).
        logprobs: whether log probabilities, which differ from run to run.
        repeatable: whether the same question is meant to get the same answer (temperature 0, or a seed).
        background: whether the server keeps the run.
        usage: whether a usage chunk was asked for.
        obfuscation: whether padding was asked for; ``None`` when the request does not say.
    """

    known: bool = False
    choices: int = 1
    logprobs: bool = False
    repeatable: bool = False
    background: bool = False
    usage: bool = False
    obfuscation: bool | None = None


UNKNOWN = Asked()

_LOGPROBS = ("logprobs", "top_logprobs", "responseLogprobs")

_FIELDS = {
    "n",
    "candidateCount",
    "logprobs",
    "top_logprobs",
    "responseLogprobs",
    "temperature",
    "seed",
    "background",
}


def asked(body: bytes | None) -> Asked:
    """Read a request's body. Costs one scan of it; only done once a stream has broken, or runs in the background."""
    if not body:
        return UNKNOWN
    try:
        top = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        said: dict[str, Any] = {name: msgspec.json.decode(top[name]) for name in _FIELDS & top.keys()}
        nested = top.get("generationConfig") or top.get("generation_config")
        if nested is not None:
            inner = msgspec.json.decode(nested, type=dict[str, msgspec.Raw])
            said |= {name: msgspec.json.decode(inner[name]) for name in _FIELDS & inner.keys()}
        options = msgspec.json.decode(top["stream_options"]) if "stream_options" in top else None
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return UNKNOWN
    options = options if isinstance(options, dict) else {}
    obfuscation = options.get("include_obfuscation")
    count = said.get("n") or said.get("candidateCount") or 1
    temperature = said.get("temperature")
    return Asked(
        known=True,
        choices=count if isinstance(count, int) and count > 0 else 1,
        logprobs=any(said.get(name) is not None and said[name] is not False for name in _LOGPROBS),
        repeatable=(temperature is not None and temperature is not False and temperature == 0)
        or said.get("seed") is not None,
        background=said.get("background") is True,
        usage=options.get("include_usage") is True,
        obfuscation=obfuscation if isinstance(obfuscation, bool) else None,
    )


class Origin(NamedTuple):
    """The request a stream answers, and what its answer says about taking it up again.

    Attributes:
        method: HTTP method.
        url: its whole URL.
        resumable: whether the server takes up a stream by ``Last-Event-ID``.
        location: where from, if it is not the same place.
    """

    method: str
    url: str
    resumable: bool = False
    location: str = ""


_SENDABLE = re.compile(rb"[!-~\x80-\xff](?:[ -~\x80-\xff]{0,1022}[!-~\x80-\xff])?")
"""An event's id that can be the value of a header, whole and under every client (RFC 9110, 5.5, without the tab). The
server chose it, so its length has a limit; those in use are far shorter."""

_LONGEST_NAME = 1024
_LONGEST_PLACE = 8192
"""Characters of a run's id and of ``Location``: both become addresses, and httpx refuses what is far longer."""

_OF_THE_BODY = frozenset(
    {b"last-event-id", b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"}
)


class Onward(NamedTuple):
    """How the next request differs from the first.

    Attributes:
        method: HTTP method.
        url: the whole URL, of the same origin.
        body: whether the first request's body goes with it.
        last_event_id: value of ``Last-Event-ID``; ``None`` for no such header.
    """

    method: str
    url: str
    body: bool = True
    last_event_id: bytes | None = None

    @property
    def resumes(self) -> bool:
        """Whether it asks for the rest, and not for all of it again."""
        return not self.body or self.last_event_id is not None

    def headers(self, first: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The request's headers, from those of the first."""
        left_out = {b"last-event-id"} if self.body else _OF_THE_BODY
        own = [(name, value) for name, value in first if name.lower() not in left_out]
        return own if self.last_event_id is None else [*own, (b"Last-Event-ID", self.last_event_id)]


class Broken(NamedTuple):
    """How a stream broke, and how far it was.

    Attributes:
        phase: how far the answer had come.
        in_band: whether the server said so within the stream.
        known: whether the code of that error is one we know.
        final: whether it also said that the run itself is over.
        response_id: of a run that the server may keep.
        sequence: number of the last event handed up, where they are numbered.
        background: whether the server said that it keeps the run.
        last_event_id: the last id handed up; ``None`` when there was none.
        eventful: whether the protocol is known.
        markered: whether the protocol has a terminal marker that can be supplied.
        too_long: whether more was handed up than is remembered.
    """

    phase: Phase
    in_band: bool = False
    known: bool = True
    final: bool = False
    response_id: str = ""
    sequence: int | None = None
    background: bool = False
    last_event_id: bytes | None = None
    eventful: bool = True
    markered: bool = True
    too_long: bool = False


class Decision(NamedTuple):
    """What is done about a break.

    Attributes:
        action: what.
        reason: why nothing better; empty otherwise.
        onward: the request to send, for a resume, a restart or a replay.
    """

    action: Action
    reason: str = ""
    onward: Onward | None = None


def decide(
    broken: Broken, origin: Origin, request: Asked, settings: StreamConfig, obstacle: Callable[[], str]
) -> Decision:
    """The first row of the table that applies.

    Args:
        broken: how the stream broke.
        origin: the request.
        request: what it asked for.
        settings: what is allowed.
        obstacle: tells what in the delivered output cannot be compared, if anything; asked last, it costs most.
    """
    if broken.phase is Phase.DONE:
        return Decision(Action.END)
    if broken.phase is Phase.TAIL and not broken.in_band:
        if not broken.markered:
            return Decision(Action.END)
        if settings.marker:
            return Decision(Action.MARKER)
    if settings.mode != "on":
        return Decision(Action.FAIL, "nothing is sent again in this mode")
    again = Onward(origin.method, origin.url)
    if settings.cursor and broken.sequence is not None and not broken.final:
        kept = request.background or broken.background or origin.method == "GET"
        if kept and _is_name(broken.response_id):
            return Decision(Action.RESUME, onward=_by_cursor(origin, broken, request))
    if origin.resumable and not broken.final:
        onward = _by_last_event_id(origin, broken, again)
        if onward is not None:
            return Decision(Action.RESUME, onward=onward)
    if broken.phase is Phase.NONE:
        if settings.restart:
            return Decision(Action.RESTART, onward=again)
        return Decision(Action.FAIL, "restarts are switched off")
    reason = _obstacle(broken, request, settings) or obstacle()
    if reason:
        return Decision(Action.FAIL, reason)
    return Decision(Action.REPLAY, onward=again)


def _obstacle(broken: Broken, request: Asked, settings: StreamConfig) -> str:
    """Why output that was handed up cannot be compared with a replay, as far as the request tells."""
    if not broken.eventful:
        return "the protocol is not known"
    if broken.in_band and not broken.known:
        return "nobody knows the error's code"
    if settings.replay == "never":
        return "output was handed up, and replays are switched off"
    if not request.known:
        return "the request's body cannot be read"
    if settings.replay == "auto" and not request.repeatable:
        return "output was handed up, and another run would say something else (no temperature 0, no seed)"
    if request.choices > 1:
        return "more than one choice was asked for"
    if request.logprobs:
        return "log probabilities were asked for"
    if broken.too_long:
        return "more was handed up than is remembered"
    return ""


def _is_name(run: str) -> bool:
    """Whether it can be one part of a path: clients take dots for a way up, and none can send half a character."""
    return 0 < len(run) <= _LONGEST_NAME and run not in {".", ".."} and run.isprintable()


def _by_cursor(origin: Origin, broken: Broken, request: Asked) -> Onward:
    """Ask for the events after the last one: ``GET .../responses/{id}?stream=true&starting_after=N``."""
    parts = urlsplit(origin.url)
    path = (
        parts.path
        if origin.method == "GET"
        else f"{parts.path.rstrip('/')}/{quote(broken.response_id, safe='')}"
    )
    mine = {"stream": "true", "starting_after": str(broken.sequence)}
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in mine]
    if request.obfuscation is not None:
        mine["include_obfuscation"] = "true" if request.obfuscation else "false"
    url = parts._replace(path=path, query=urlencode([*query, *mine.items()])).geturl()
    return Onward("GET", url, body=False)


def _by_last_event_id(origin: Origin, broken: Broken, again: Onward) -> Onward | None:
    """Ask for the events after the last id; ``None`` where that cannot be done without repeating anything.

    A stream of which no protocol is known is asked for anew without an id too, as a browser would, when asking is a
    GET: such a stream tells what happens from now on.
    """
    if not broken.last_event_id:  # none yet, or taken back by an empty one
        live = not broken.eventful and origin.method == "GET"
        return again if live else None
    if not _SENDABLE.fullmatch(broken.last_event_id):
        return None
    if not origin.location:
        return again._replace(last_event_id=broken.last_event_id)
    if len(origin.location) > _LONGEST_PLACE or not origin.location.isprintable():
        return None
    try:
        there = urljoin(origin.url, origin.location)
        own = urlsplit(there)[:2] == urlsplit(origin.url)[:2]
    except ValueError:
        own = False  # a server may write anything there
    if not own:
        return None  # the key goes with the request, and belongs to nobody else
    return Onward("GET", there, body=False, last_event_id=broken.last_event_id)
