"""What a run is made of, in absolute numbers: the traffic, the gateway, and what goes wrong with it.

One model of a gateway serves all of them: slots that work on one request each, a lognormal service time, a queue, and
clients that give up on an attempt after a while. `gip_resilience.simulation.scenarios` makes these out of what users
write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal, NamedTuple

ATTEMPT_TIMEOUT = 10.0
"""Seconds after which a client gives up an attempt that was not answered, unless the trouble says otherwise."""

DEADLINE = 60.0
"""Seconds a user waits for the call as a whole; the same for every policy."""

WATCHED = 60.0
"""Seconds after a fault whose calls count as having met it."""

Fault = Literal["none", "refuse", "silence", "errors", "hang", "streams"]
Break = Literal["end", "reset", "stall", "error"]


class Streams(NamedTuple):
    """Every answer is an event stream.

    Attributes:
        words: of an answer; an event each.
        repeatable: share of the calls that ask for the same answer every time (temperature 0).
        divergent: share of the repeated answers that differ all the same.
        breaks: how streams break while they do; one of them by chance.
        error: code of an error within the stream.
    """

    words: int = 40
    repeatable: float = 0.0
    divergent: float = 0.0
    breaks: tuple[Break, ...] = ("end", "reset", "stall", "error")
    error: str = "stream_error"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of trouble.

    Attributes:
        name: what it is called on the command line.
        fault: what the gateway does while it is on.
        error: the answer the fault gives: a name of `gip_resilience.simulation.clockwork`, or status and code, such
            as ``"503 model_overloaded"``; without a code it is a page of HTML.
        load: calls a second that all clients make together.
        fault_load: the same while the fault is on, where the fault is in the load.
        start: second at which it begins.
        length: seconds it lasts.
        after: seconds that are watched once it is over for the first time.
        slots: requests the gateway works on at once.
        queue: requests it lets wait; one more is refused at once.
        share: part of the answers that are errors (``errors``), or of the streams that break (``streams``).
        held: seconds a request to a model that hangs keeps its slot (``hang``).
        period: seconds between going down and coming up again; 0 for a fault that stays.
        models: how many models the calls are spread over.
        hit: how many of them the fault is about; 0 for all.
        limit: requests the provider accepts per window; 0 for no limit.
        window: seconds of the provider's fixed window; one begins at ``start``.
        quota: whether good answers say what is left of the limit, and when it is reset.
        every: seconds from one beginning of the fault to the next; 0 for once.
        service: mean seconds of work on a request.
        spread: standard deviation of the logarithm of that.
        patience: seconds after which a client gives up an attempt that was not answered.
        even: whether calls come at even intervals; else they are a Poisson process.
        streams: whether answers are streams, and of what kind; ``None`` for plain answers.
    """

    name: str
    fault: Fault = "none"
    error: str = "unavailable"
    load: float = 400.0
    fault_load: float | None = None
    start: float = 30.0
    length: float = 60.0
    after: float = 120.0
    slots: int = 500
    queue: int = 6000
    share: float = 1.0
    held: float = 0.0
    period: float = 0.0
    models: int = 1
    hit: int = 0
    limit: int = 0
    window: float = 20.0
    quota: bool = False
    every: float = 0.0
    service: float = 1.0
    spread: float = 0.5
    patience: float = ATTEMPT_TIMEOUT
    even: bool = False
    streams: Streams | None = None

    @property
    def end(self) -> float:
        """Second at which the fault is over for the first time."""
        return self.start + self.length

    @property
    def horizon(self) -> float:
        """Second at which the last call is made."""
        return self.end + self.after

    def faults(self, watched: float = 0.0) -> list[tuple[float, float]]:
        """When the fault begins and is over, each time that leaves *watched* seconds for what follows."""
        found, begin = [], self.start
        while begin + self.length + watched <= self.horizon:
            found.append((begin, begin + self.length))
            if not self.every:
                break
            begin += self.every
        return found

    def on(self, now: float) -> bool:
        """Whether the fault is on at *now*, be it in an upper half of its flapping or not."""
        since = now - self.start
        if since < 0.0:
            return False
        return (since % self.every if self.every else since) < self.length

    def border(self, now: float) -> float:
        """When the fault next begins or is over, after *now*; infinity for never."""
        if now < self.start:
            return self.start
        if self.every:
            begin = self.start + (now - self.start) // self.every * self.every
            following = (begin + self.length, begin + self.every, begin + self.every + self.length)
            return next(when for when in following if when > now)
        return self.end if now < self.end else inf

    def rate(self, now: float) -> float:
        """Calls a second at *now*."""
        if self.fault_load is not None and self.on(now):
            return self.fault_load
        return self.load

    def faulty(self, now: float, model: int = 0) -> bool:
        """Whether the gateway misbehaves at *now* towards calls of *model*, counted from 0."""
        if self.fault == "none" or (self.hit and model >= self.hit) or not self.on(now):
            return False
        since = now - self.start
        if self.every:
            since %= self.every
        return not self.period or int(since // self.period) % 2 == 0

    def scaled(self, factor: float) -> Trouble:
        """The same shape with *factor* times the traffic and a gateway of *factor* times the size."""
        return replace(
            self,
            load=self.load * factor,
            fault_load=None if self.fault_load is None else self.fault_load * factor,
            slots=max(1, round(self.slots * factor)),
            queue=round(self.queue * factor),
            limit=round(self.limit * factor),
        )
