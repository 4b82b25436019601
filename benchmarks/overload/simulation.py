"""A discrete-event simulation: a heap of events, one gateway, and calls that are generators of effects.

Nothing waits and nothing is random but by the seed. A call is a generator that yields the engine's own effects,
`Send` and `Pause`, and returns whether it succeeded; see `policies`. What is counted is in `Trace`.

The gateway is the worst case in one respect: it goes on working for clients that gave up.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from gip_resilience.effects import Pause, Send

from .scenarios import ATTEMPT_TIMEOUT, HUNG, MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .scenarios import Scenario

SWIFT = 0.005
"""Seconds an answer takes that costs the gateway no work."""

SERVICE_SIGMA = 0.5
SERVICE_MU = -(SERVICE_SIGMA**2) / 2
"""Makes the mean of the lognormal service time 1 s."""

BINS = 10
"""Bins of a second in which sends are counted."""


class Answer(NamedTuple):
    """What came of one attempt, before any policy has thought about it.

    Attributes:
        kind: ``ok``, ``unavailable``, ``gone``, ``server_error``, ``overloaded``, ``limited`` or ``silence``.
        status: HTTP status; ``None`` when nothing was answered in time.
        retry_after: seconds the server asks for.
        quota: what is left of a limit, and the seconds until it is reset.
    """

    kind: str
    status: int | None
    retry_after: float | None = None
    quota: tuple[int, float] | None = None


OK = Answer("ok", 200)
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

Script: TypeAlias = "Generator[Send | Pause, Answer | None, bool]"
"""One call, as a policy tells it: `Send` is answered with an `Answer`; it returns whether the call succeeded."""


class Fleet(Protocol):
    """Every client of one policy, each with a state of its own."""

    def call(self, client: int, model: str) -> Script:
        """Begin a call."""


class Clock:
    """Virtual time, and what `gip_resilience.Resilience` wants of a clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_767_225_600.0 + self.now

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")

    async def asleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


class _Call:
    """A user's call on its way."""

    __slots__ = ("arrived", "model", "script", "sends")

    def __init__(self, script: Script, arrived: float, model: str) -> None:
        self.script = script
        self.arrived = arrived
        self.model = model
        self.sends = 0


class _Attempt:
    """One request on its way. ``timed`` says that the end of its patience is on the heap."""

    __slots__ = ("call", "done", "hangs", "timed", "until")

    def __init__(self, call: _Call, until: float) -> None:
        self.call = call
        self.until = until
        self.done = False
        self.hangs = False
        self.timed = False


class Ended(NamedTuple):
    """A call that is over."""

    arrived: float
    ended: float
    succeeded: bool
    sends: int
    model: str


@dataclass(slots=True)
class Trace:
    """What happened.

    Attributes:
        calls: calls made.
        ended: the calls that are over, in the order of their ends.
        sends: requests sent, per tenth of a second.
        answers: requests answered in time.
        timeouts: requests whose client gave up.
        limited: requests that were answered with 429.
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
        scenario: the traffic and the fault.
        clock: the virtual clock, which the fleet reads too.
        fleet: the clients.
        clients: how many there are.
        seed: of everything that is drawn here. Every policy meets the same calls at the same moments.
    """

    def __init__(self, scenario: Scenario, clock: Clock, fleet: Fleet, clients: int, seed: int) -> None:
        self._scenario = scenario
        self._clock = clock
        self._fleet = fleet
        self._clients = clients
        self._users = random.Random(f"users {seed}")
        self._chance = random.Random(f"gateway {seed}")
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._number = 0
        self._busy = 0
        self._queue: deque[_Attempt] = deque()
        self._window = floor(-scenario.start / scenario.window)
        self._used = 0
        # Calls may end long after the last was made.
        self.trace = Trace(int(scenario.horizon) + 180)

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
        scenario = self._scenario
        borders = (scenario.start, scenario.end)
        while True:
            when = now + self._users.expovariate(scenario.rate(now))
            crossed = [border for border in borders if now < border <= when]
            if not crossed:
                break
            now = crossed[0]  # the rate changes here, and a Poisson process has no memory
        if when < scenario.horizon:
            self.at(when, self._user, None)

    def _user(self, _: None) -> None:
        now = self._clock.now
        self._expect_user(now)
        users = self._users
        client = int(users.random() * self._clients)
        model = MODELS[int(users.random() * self._scenario.models)]
        self.trace.calls += 1
        self.trace.arrivals[int(now)] += 1
        self._go_on(_Call(self._fleet.call(client, model), now, model), None)

    def _go_on(self, call: _Call, answer: Answer | None) -> None:
        try:
            effect = call.script.send(answer)
        except StopIteration as stop:
            self._end(call, succeeded=stop.value)
            return
        if isinstance(effect, Send):
            self._send(call, effect.timeout)
        else:
            self.at(self._clock.now + effect.seconds, self._resume, call)

    def _resume(self, call: _Call) -> None:
        self._go_on(call, None)

    def _end(self, call: _Call, *, succeeded: bool) -> None:
        now = self._clock.now
        self.trace.ended.append(Ended(call.arrived, now, succeeded, call.sends, call.model))
        if succeeded:
            self.trace.goodput[int(now)] += 1

    # ---- the wire ------------------------------------------------------------------------------------------

    def _send(self, call: _Call, timeout: float | None) -> None:
        now = self._clock.now
        patience = ATTEMPT_TIMEOUT if timeout is None else min(ATTEMPT_TIMEOUT, timeout)
        call.sends += 1
        self.trace.sends[int(now * BINS)] += 1
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
        scenario, now = self._scenario, self._clock.now
        if scenario.limit and not self._within_limit(now):
            self.trace.limited += 1
            # Counted from the moment it is read, so that obeying it to the letter hits the reset exactly.
            self._swift(attempt, Answer("limited", 429, max(0.0, self._reset() - now - SWIFT)))
            return
        if scenario.faulty(now):
            if scenario.fault == "silence":
                self._time(attempt)
                return
            if scenario.fault == "refuse" or (
                scenario.fault == "errors" and self._chance.random() < scenario.share
            ):
                self._swift(attempt, SWIFT_ANSWERS[scenario.error])
                return
        if self._busy < scenario.slots:
            self._serve(attempt)
        elif len(self._queue) < scenario.queue:
            self._queue.append(attempt)
            self.trace.backlog = max(self.trace.backlog, len(self._queue))
            self._time(attempt)
        else:
            self._swift(attempt, SWIFT_ANSWERS["overloaded"])

    def _serve(self, attempt: _Attempt) -> None:
        scenario, now = self._scenario, self._clock.now
        self._busy += 1
        length = self._chance.lognormvariate(SERVICE_MU, SERVICE_SIGMA)
        if scenario.fault == "hang" and attempt.call.model == HUNG and scenario.faulty(now):
            attempt.hangs = True
            length = scenario.held
        if attempt.hangs or now + length > attempt.until:
            self._time(attempt)
        self.at(now + length, self._finish, attempt)

    def _finish(self, attempt: _Attempt) -> None:
        self._busy -= 1
        if not attempt.hangs:
            self._answer(attempt, self._good() if self._scenario.quota else OK)
        elif not attempt.timed:
            raise AssertionError("a request that hangs ends by a timeout")
        if self._queue:
            self._serve(self._queue.popleft())

    def _within_limit(self, now: float) -> bool:
        scenario = self._scenario
        # A hair early is on time: a wait that ends at the reset must not be cut by rounding.
        window = floor((now - scenario.start) / scenario.window + 1e-9)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= scenario.limit:
            return False
        self._used += 1
        return True

    def _reset(self) -> float:
        return self._scenario.start + (self._window + 1) * self._scenario.window

    def _good(self) -> Answer:
        if not self._scenario.limit:
            return OK
        left = max(0, self._scenario.limit - self._used)
        return Answer("ok", 200, quota=(left, max(0.0, self._reset() - self._clock.now)))
