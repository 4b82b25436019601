"""A discrete-event simulation: a heap of events, one gateway, and calls that are generators of effects.

Nothing waits and nothing is random but by the seed. A call is a generator that yields the engine's own effects,
`Send` and `Pause`, and `Read` while it reads a stream; it returns what its caller was told. See
`gip_resilience.simulation.fleets`. What is counted is in `Trace`.

The gateway is the worst case in one respect: it goes on working for clients that gave up.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import floor, log
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from gip_resilience.effects import Pause, Send
from gip_resilience.simulation.streams import Spoken, speak

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from gip_resilience.simulation.troubles import Trouble

SWIFT = 0.005
"""Seconds an answer takes that costs the gateway no work."""

HEADERS = 0.2
"""Part of a stream's time that passes before its first byte."""

BINS = 10
"""Bins of a second in which sends are counted."""

TAIL = 180
"""Seconds after the last call was made in which things are still counted by the second."""


class Answer(NamedTuple):
    """What came of one attempt, before any policy has thought about it.

    Attributes:
        kind: ``ok``, ``stream``, ``unavailable``, ``gone``, ``server_error``, ``overloaded``, ``limited``,
            ``silence``, or status and code.
        status: HTTP status; ``None`` when nothing was answered in time.
        retry_after: seconds the server asks for.
        quota: what is left of a limit, and the seconds until it is reset.
    """

    kind: str
    status: int | None
    retry_after: float | None = None
    quota: tuple[int, float] | None = None


class Read(NamedTuple):
    """Read on in the stream in hand; answered with its next bytes, or `LOST`. At most *timeout* seconds."""

    timeout: float | None


class Lost(NamedTuple):
    """Reading came to no bytes: the stream ended, or ``kind`` says how it broke."""

    kind: str


ENDED, RESET, STALLED = Lost(""), Lost("stream_reset"), Lost("stream_stalled")

OK = Answer("ok", 200)
STREAM = Answer("stream", 200)
SILENCE = Answer("silence", None)
SWIFT_ANSWERS = {
    answer.kind: answer
    for answer in (
        Answer("unavailable", 503),
        Answer("server_error", 502),
        Answer("overloaded", 503),
        Answer("gone", 502),
    )
}

Reply: TypeAlias = "Answer | bytes | Lost | None"

Script: TypeAlias = "Generator[Send | Pause | Read, Reply, bool | bytes]"
"""One call, as a policy tells it: `Send` is answered with an `Answer`, `Read` with bytes or `Lost`, `Pause` with
nothing. It returns whether the caller was given an answer; of a stream, all that was handed up of it."""


class Fleet(Protocol):
    """Every client of one policy, each with a state of its own."""

    def call(self, client: int, model: int, *, repeatable: bool = False) -> Script:
        """Begin a call."""


class Clock:
    """Virtual time, and what `gip_resilience.Resilience` wants of a clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds since the run began."""
        return self.now

    def time(self) -> float:
        """Unix time; every run begins with the year 2026."""
        return 1_767_225_600.0 + self.now

    def sleep(self, seconds: float) -> None:
        """Nothing waits here: pauses are effects."""
        raise AssertionError(f"nothing waits here, {seconds} s")

    async def asleep(self, seconds: float) -> None:
        """See `sleep`."""
        raise AssertionError(f"nothing waits here, {seconds} s")


class _Call:
    """A user's call on its way."""

    __slots__ = ("arrived", "attempt", "model", "repeatable", "script", "sends")

    def __init__(self, script: Script, arrived: float, model: int, *, repeatable: bool) -> None:
        self.script = script
        self.arrived = arrived
        self.model = model
        self.repeatable = repeatable
        self.sends = 0
        self.attempt: _Attempt | None = None


class _Attempt:
    """One request on its way. ``timed`` says that the end of its patience is on the heap."""

    __slots__ = ("call", "done", "hangs", "number", "place", "spoken", "timed", "until")

    def __init__(self, call: _Call, until: float) -> None:
        self.call = call
        self.number = call.sends
        self.until = until
        self.done = False
        self.hangs = False
        self.timed = False
        self.spoken: Spoken | None = None
        self.place = 0


class Ended(NamedTuple):
    """A call that is over.

    Attributes:
        arrived: second at which it was made.
        ended: second at which it was over.
        succeeded: whether the caller has the whole answer.
        sends: requests sent for it.
        model: number of its model.
        silent: whether the caller took what was not the whole answer for one.
    """

    arrived: float
    ended: float
    succeeded: bool
    sends: int
    model: int
    silent: bool = False


@dataclass(slots=True)
class Trace:
    """What happened.

    Attributes:
        seconds: for how many of them it is counted by the second; later ones count with the last.
        calls: calls made.
        ended: the calls that are over, in the order of their ends.
        sends: requests sent, per tenth of a second.
        answers: requests answered in time.
        timeouts: requests whose client gave up.
        limited: requests that were answered with 429.
        broken: streams that broke.
        arrivals: calls made, per second.
        goodput: calls that succeeded, per second of their end.
        backlog: the longest the gateway's queue was.
    """

    seconds: int
    calls: int = 0
    ended: list[Ended] = field(default_factory=list)
    answers: int = 0
    timeouts: int = 0
    limited: int = 0
    broken: int = 0
    backlog: int = 0
    sends: list[int] = field(init=False)
    arrivals: list[int] = field(init=False)
    goodput: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.sends = [0] * (self.seconds * BINS)
        self.arrivals = [0] * self.seconds
        self.goodput = [0] * self.seconds


class Simulation:
    """One run.

    Args:
        trouble: the traffic and the fault.
        clock: the virtual clock, which the fleet reads too.
        fleet: the clients.
        clients: how many there are.
        seed: of everything that is drawn here. Every policy meets the same calls at the same moments.
    """

    def __init__(self, trouble: Trouble, clock: Clock, fleet: Fleet, clients: int, seed: int) -> None:
        self._trouble = trouble
        self._clock = clock
        self._fleet = fleet
        self._clients = clients
        self._users = random.Random(f"users {seed}")
        self._chance = random.Random(f"gateway {seed}")
        self._mu = log(trouble.service) - trouble.spread**2 / 2  # the mean is what was asked for
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._number = 0
        self._busy = 0
        self._queue: deque[_Attempt] = deque()
        self._window = floor(-trouble.start / trouble.window)
        self._used = 0
        # Calls may end long after the last was made.
        self.trace = Trace(int(trouble.horizon) + TAIL)

    def run(self) -> Trace:
        """Until the last call is over and the gateway idle."""
        self._expect_user(0.0)
        heap, clock = self._heap, self._clock
        while heap:
            clock.now, _, action, subject = heappop(heap)
            action(subject)
        return self.trace

    def at(self, when: float, action: Callable[[Any], None], subject: Any) -> None:
        """Let *action* be called with *subject* then."""
        self._number += 1
        heappush(self._heap, (when, self._number, action, subject))

    # ---- users and their calls -----------------------------------------------------------------------------

    def _expect_user(self, now: float) -> None:
        trouble = self._trouble
        while True:
            rate = trouble.rate(now)
            when = now + (1.0 / rate if trouble.even else self._users.expovariate(rate))
            border = trouble.border(now)
            if border > when or trouble.even:
                break
            now = border  # the rate changes here, and a Poisson process has no memory
        if when < trouble.horizon:
            self.at(when, self._user, None)

    def _user(self, _: None) -> None:
        now, trouble = self._clock.now, self._trouble
        self._expect_user(now)
        users = self._users
        client = int(users.random() * self._clients)
        model = int(users.random() * trouble.models)
        repeatable = trouble.streams is not None and users.random() < trouble.streams.repeatable
        self.trace.calls += 1
        self.trace.arrivals[int(now)] += 1
        script = self._fleet.call(client, model, repeatable=repeatable)
        self._go_on(_Call(script, now, model, repeatable=repeatable), None)

    def _go_on(self, call: _Call, reply: Reply) -> None:
        try:
            effect = call.script.send(reply)
        except StopIteration as stop:
            self._end(call, stop.value)
            return
        if isinstance(effect, Send):
            self._send(call, effect.timeout)
        elif isinstance(effect, Pause):
            self.at(self._clock.now + effect.seconds, self._resume, call)
        else:
            self._read(call, effect.timeout)

    def _resume(self, call: _Call) -> None:
        self._go_on(call, None)

    def _end(self, call: _Call, told: bool | bytes) -> None:
        now, trace = self._clock.now, self.trace
        silent = False
        succeeded = bool(told)
        if isinstance(told, bytes):
            streams = self._trouble.streams
            succeeded = streams is not None and Spoken.whole(told, streams)
            silent = not succeeded
        trace.ended.append(Ended(call.arrived, now, succeeded, call.sends, call.model, silent))
        if succeeded:
            trace.goodput[min(int(now), trace.seconds - 1)] += 1

    # ---- the wire ------------------------------------------------------------------------------------------

    def _send(self, call: _Call, timeout: float | None) -> None:
        now, trace = self._clock.now, self.trace
        patience = self._trouble.patience if timeout is None else min(self._trouble.patience, timeout)
        call.sends += 1
        trace.sends[min(int(now * BINS), trace.seconds * BINS - 1)] += 1
        self._accept(_Attempt(call, now + patience))

    def _time(self, attempt: _Attempt) -> None:
        if not attempt.timed:
            attempt.timed = True
            self.at(attempt.until, self._give_up, attempt)

    def _give_up(self, attempt: _Attempt) -> None:
        if not attempt.done:
            attempt.done = True
            self.trace.timeouts += 1
            self._go_on(attempt.call, SILENCE)

    def _answer(self, attempt: _Attempt, answer: Answer) -> None:
        if not attempt.done:
            attempt.done = True
            self.trace.answers += 1
            self._go_on(attempt.call, answer)

    def _swift(self, attempt: _Attempt, answer: Answer) -> None:
        # Nobody's patience is shorter than this, but for a deadline that has as good as passed.
        self.at(self._clock.now + SWIFT, self._arrive, (attempt, answer))

    def _arrive(self, sent: tuple[_Attempt, Answer]) -> None:
        self._answer(*sent)

    # ---- the gateway ---------------------------------------------------------------------------------------

    def _accept(self, attempt: _Attempt) -> None:
        trouble, now = self._trouble, self._clock.now
        if trouble.limit and not self._within_limit(now):
            self.trace.limited += 1
            # Counted from the moment it is read, so that obeying it to the letter hits the reset exactly.
            self._swift(attempt, Answer("limited", 429, max(0.0, self._reset() - now - SWIFT)))
            return
        if trouble.faulty(now, attempt.call.model):
            if trouble.fault == "silence":
                self._time(attempt)
                return
            if trouble.fault == "refuse" or (
                trouble.fault == "errors" and self._chance.random() < trouble.share
            ):
                self._swift(attempt, error_answer(trouble.error))
                return
        if self._busy < trouble.slots:
            self._serve(attempt)
        elif len(self._queue) < trouble.queue:
            self._queue.append(attempt)
            self.trace.backlog = max(self.trace.backlog, len(self._queue))
            self._time(attempt)
        else:
            self._swift(attempt, SWIFT_ANSWERS["overloaded"])

    def _serve(self, attempt: _Attempt) -> None:
        trouble, now = self._trouble, self._clock.now
        self._busy += 1
        length = self._chance.lognormvariate(self._mu, trouble.spread) if trouble.spread else trouble.service
        if trouble.fault == "hang" and trouble.faulty(now, attempt.call.model):
            attempt.hangs = True
            length = trouble.held
        if trouble.streams is not None and not attempt.hangs:
            self._stream(attempt, length)
            return
        if attempt.hangs or now + length > attempt.until:
            self._time(attempt)
        self.at(now + length, self._finish, attempt)

    def _finish(self, attempt: _Attempt) -> None:
        if not attempt.hangs:
            self._free()
            self._answer(attempt, self._good(OK))
        elif attempt.timed:
            self._free()
        else:
            raise AssertionError("a request that hangs ends by a timeout")
        self._next()

    def _free(self) -> None:
        self._busy -= 1

    def _next(self) -> None:
        if self._queue and self._busy < self._trouble.slots:
            self._serve(self._queue.popleft())

    def _within_limit(self, now: float) -> bool:
        trouble = self._trouble
        # A hair early is on time: a wait that ends at the reset must not be cut by rounding.
        window = floor((now - trouble.start) / trouble.window + 1e-9)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= trouble.limit:
            return False
        self._used += 1
        return True

    def _reset(self) -> float:
        return self._trouble.start + (self._window + 1) * self._trouble.window

    def _good(self, answer: Answer) -> Answer:
        trouble = self._trouble
        if not (trouble.quota and trouble.limit):
            return answer
        left = max(0, trouble.limit - self._used)
        return answer._replace(quota=(left, max(0.0, self._reset() - self._clock.now)))

    # ---- streams -------------------------------------------------------------------------------------------

    def _stream(self, attempt: _Attempt, length: float) -> None:
        """A slot is at work on a stream: its headers, its pieces, and perhaps its early end."""
        trouble, now, call = self._trouble, self._clock.now, attempt.call
        if trouble.streams is None:
            raise AssertionError("no streams here")
        breaks = trouble.fault == "streams" and trouble.faulty(now, call.model)
        if breaks:
            breaks = self._chance.random() < trouble.share
        spoken = speak(
            trouble.streams,
            self._chance,
            began=now + HEADERS * length,
            length=(1.0 - HEADERS) * length,
            attempt=attempt.number,
            repeatable=call.repeatable,
            breaks=breaks,
        )
        self.trace.broken += breaks
        attempt.spoken = spoken
        if spoken.began > attempt.until:
            self._time(attempt)
        self.at(spoken.began, self._begin_stream, attempt)
        self.at(spoken.over, self._finish_stream, None)

    def _begin_stream(self, attempt: _Attempt) -> None:
        if not attempt.done:
            attempt.call.attempt = attempt
        self._answer(attempt, self._good(STREAM))

    def _finish_stream(self, _: None) -> None:
        self._free()
        self._next()

    def _read(self, call: _Call, timeout: float | None) -> None:
        attempt = call.attempt
        if attempt is None or attempt.spoken is None:
            raise AssertionError("no stream in hand")
        now, spoken = self._clock.now, attempt.spoken
        patience = self._trouble.patience if timeout is None else min(self._trouble.patience, timeout)
        due, piece = spoken.piece(attempt.place)
        due = max(now, due)
        if due - now >= patience:
            self.at(now + patience, self._deliver, (call, STALLED))
            return
        attempt.place += 1
        self.at(due, self._deliver, (call, piece if piece is not None else _LOST[spoken.how]))

    def _deliver(self, read: tuple[_Call, Reply]) -> None:
        self._go_on(*read)


_LOST = {"end": ENDED, "error": ENDED, "reset": RESET, "stall": STALLED, "": ENDED}


def error_answer(error: str) -> Answer:
    """The answer that *error* stands for: one of `SWIFT_ANSWERS` by name, or status and code."""
    found = SWIFT_ANSWERS.get(error)
    if found is None:
        found = SWIFT_ANSWERS[error] = Answer(error, int(error.partition(" ")[0]))
    return found
