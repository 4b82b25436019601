"""Streams of events: their bytes, their ids, and the runs that can be taken up again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from gip_resilience.gateway.answers import Answer, Parts
from gip_resilience.gateway.asked import Refusal, natural
from gip_resilience.gateway.content import Turn, identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gip_resilience.gateway.asked import Asked
    from gip_resilience.gateway.http1 import Headers

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
MESSAGES: Final = "/v1/messages"
RESPONSES: Final = "/v1/responses"

DONE: Final = b"data: [DONE]\n\n"
"""The event that ends OpenAI's older streams."""

MAX_RUNS: Final = 100
"""Runs that are kept; then the oldest goes."""

_SSE: Final[Headers] = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
_RESUMABLE: Final[Headers] = (("x-gip-resume", "last-event-id"),)
_EVENTS_PER_COMMENT: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How streams look, beyond what a request can ask for.

    Nothing here is left to chance: what differs from request to request is decided by their count.

    Attributes:
        sampled: the wording differs from request to request, after the first word, as under a model that samples.
            A request with ``temperature`` 0 or a ``seed`` gets the same words every time.
        rechunk: the same text is cut into other pieces in every request, and has other ids.
        event_ids: the events of ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/messages`` have ids, which
            the header ``x-gip-resume: last-event-id`` announces. A request to the same path with ``Last-Event-ID``
            gets the rest of that run; 204 when there is none; 404 when the run is not one of the last 100.
        ignore_last_event_id: such a request gets the whole run again, with the same ids. Needs *event_ids*.
        comments: OpenAI's streams have a comment before their first event and before every fourth after it. (The
            OpenAI SDK cannot read a comment after an id, so that with *event_ids* it fails.)
    """

    sampled: bool = False
    rechunk: bool = False
    event_ids: bool = False
    ignore_last_event_id: bool = False
    comments: bool = False

    def __post_init__(self) -> None:
        if self.ignore_last_event_id and not self.event_ids:
            raise ValueError("ignore_last_event_id needs event_ids")


@dataclass(frozen=True, slots=True)
class Run:
    """A stream that can be taken up again.

    Attributes:
        path: where it can be had.
        events: all of its events.
        response: what came of it, for an API that can say so.
    """

    path: str
    events: tuple[bytes, ...]
    response: Mapping[str, Any] = field(default_factory=dict)


class Streams:
    """The streams of one gateway: how many requests there were, and the last runs. Not thread-safe.

    Args:
        options: how streams look.
        seed: decides the wording of answers.
    """

    def __init__(self, options: StreamOptions, seed: int) -> None:
        self.options = options
        self._seed = seed
        self._turns = 0
        self._runs: dict[str, Run] = {}

    def begin(self, settings: Mapping[str, Any], *, renamed: bool = False) -> Turn:
        """The next request to a model.

        Args:
            settings: where the request has its ``temperature`` and its ``seed``.
            renamed: it gets ids of its own whatever the options say.
        """
        self._turns += 1
        options = self.options
        sampled = options.sampled and settings.get("temperature") != 0 and settings.get("seed") is None
        take = self._turns if sampled else 0
        own_ids = renamed or sampled or options.rechunk
        return Turn(self._turns, self._seed, take, own_ids, options.rechunk)

    def send(self, path: str, events: Iterable[bytes], turn: Turn) -> Answer:
        """The answer that streams *events* from *path*, in parts of one event each."""
        if not self.resumes(path):
            return self.answer(path, events)
        run = identifier("run_", self._seed, str(turn.number))
        with_ids = (f"id: {run}-{number}\n".encode() + event for number, event in enumerate(events, 1))
        kept = Run(path, tuple(with_ids))
        self.keep(run, kept)
        return self.answer(path, kept.events, _RESUMABLE)

    def answer(self, path: str, events: Iterable[bytes], headers: Headers = ()) -> Answer:
        """The same for *events* that need no ids any more; a comment is part of the event it precedes."""
        if self.options.comments and path in (CHAT, COMPLETIONS, RESPONSES):
            events = (_comment(place) + event for place, event in enumerate(events))
        return Answer(200, (*_SSE, *headers), Parts(tuple(events)))

    def resumes(self, path: str) -> bool:
        """Whether the events from *path* have ids, and ``Last-Event-ID`` has a meaning there."""
        return self.options.event_ids and path in (CHAT, COMPLETIONS, MESSAGES)

    def resume(self, path: str, last_event_id: str) -> Answer:
        """What comes after *last_event_id*.

        Raises:
            Refusal: no run that is kept has such an id.
        """
        name, _, digits = last_event_id.rpartition("-")
        number = natural(digits)
        if number is None:
            raise Refusal("not_found", "There is no such event.")
        events = self.kept(name, path).events
        rest = events if self.options.ignore_last_event_id else events[number:]
        return self.answer(path, rest, _RESUMABLE) if rest else Answer(204)

    def keep(self, name: str, run: Run) -> None:
        """Keep *run* under *name*, and forget the oldest if there are more than 100."""
        self._runs[name] = run
        if len(self._runs) > MAX_RUNS:
            del self._runs[next(iter(self._runs))]

    def kept(self, name: str, path: str) -> Run:
        """The run of that *name* that came from *path*.

        Raises:
            Refusal: there is none, or it was forgotten.
        """
        run = self._runs.get(name)
        if run is None or run.path != path:
            raise Refusal("not_found", "There is no such run.")
        return run


def _comment(place: int) -> bytes:
    """What precedes the event at *place*."""
    return b"" if place % _EVENTS_PER_COMMENT else b": keepalive\n\n"


class Service(Protocol):
    """What an endpoint needs of the gateway it belongs to.

    Attributes:
        streams: sends and keeps its streams.
    """

    streams: Streams

    def known_model(self, asked: Asked) -> str:
        """The model of the request.

        Raises:
            Refusal: it names none, or one that does not exist.
        """
        ...
