"""Vectors are replayed by these: a store and a clock (`Replay`), and calls against them (`Conversation`).

Nothing is read from the inside: what is left of a budget is what it still pays for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facts import HOST, MODEL
from gip_resilience._announcer import Announcer
from gip_resilience._record import Surroundings
from gip_resilience.config import Config
from gip_resilience.effects import Deliver, Pause, Refuse, Send
from gip_resilience.engine import Call, story
from gip_resilience.memory import MemoryStore
from gip_resilience.metrics import Metrics
from gip_resilience.state import CircuitKey, Permit, ScopeKey
from gip_resilience.taxonomy import Fact
from gip_resilience.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Generator

    from gip_resilience.effects import Effect

Step = dict[str, Any]

KEY = ScopeKey(HOST, "credential", MODEL)
CIRCUITS = {"host": CircuitKey(HOST), "model": CircuitKey(HOST, MODEL)}
NOW = 1000.0
FINEST = 20
"""Tokens are measured to the 2**-20."""

REASONS = {
    "circuit open": "circuit_open",
    "retry budget exhausted": "retry_quota_exceeded",
}
"""Why a call ended, in the words of the vectors."""


def outcome_of(call: Call) -> str:
    """How a call ended, in the words of the vectors; a reason that is not known here is an error."""
    report = call.report()
    if report.outcome == "success":
        return "success"
    if report.reason.startswith("all "):
        return "max_attempts_exceeded"
    if report.reason.endswith(" is not retried"):
        return "fail_request"
    if report.reason.startswith("the server asks for "):
        return "hint_too_long"
    return REASONS[report.reason]


@dataclass
class Played:
    """What became of one response.

    Attributes:
        outcome: in the words of the vectors.
        delay: seconds until the next attempt, turns at the gate included; ``None`` when there is none.
        attempts: requests the call has sent so far.
        retry_after: seconds the caller is told to stay away, in a refusal of ours or in the server's last answer.
    """

    outcome: str
    delay: float | None
    attempts: int
    retry_after: float | None


class Replay:
    """One process: a store, a clock and pinned chance, for any number of calls.

    Args:
        config: the settings in force.
        chance: what every random number is.
    """

    def __init__(self, config: Config, chance: float) -> None:
        self.config = config
        self.clock = FakeClock(NOW)
        self.store = MemoryStore(chance=lambda: chance)
        self.world = Surroundings(self.store, self.clock.monotonic, lambda: chance, Metrics(), Announcer(()))

    def begin(self) -> Conversation:
        """A call that has not sent anything yet."""
        return Conversation(self)

    def tokens(self) -> float:
        """What the budget can still pay for; nothing is left of it then.

        Halving the price each time finds it, since a price that is too high takes nothing.
        """
        left = 0.0
        for power in range(10, -FINEST - 1, -1):
            if self.store.withdraw(KEY, self.config, 2.0**power, self.clock.monotonic()):
                left += 2.0**power
        return left

    def circuit(self, key: CircuitKey) -> str:
        """The state of a circuit."""
        return str(self.store.circuits(self.clock.monotonic())[key].state)

    def closed_for(self) -> float:
        """Seconds until the gate opens, as a caller is told who asks and does not wait."""
        now = self.clock.monotonic()
        answer = self.store.acquire(KEY, self.config, now, first=False)
        if isinstance(answer, Permit):
            self.store.abandon(answer, now)
            return 0.0
        return getattr(answer, "seconds", 0.0)


class Conversation:
    """One call, answered one response at a time.

    Args:
        replay: where it takes place.

    Attributes:
        over: whether it has ended.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._call = Call(replay.world, replay.config, KEY)
        self._script: Generator[Effect, Fact | None, None] | None = None
        self._pause: Pause | None = None
        self.over = False

    def refused(self) -> Played:
        """The first attempt is asked for, and not admitted."""
        assert not self._call.admit(), "it was admitted"
        return self._ended(next(story(self._call, None)))

    def answer(self, fact: Fact, *, broken: Fact | None = None) -> Played:
        """The attempt that is due is sent, and brings *fact*; a stream that began well may be *broken* later."""
        self._call.streaming = broken is not None
        effect = self._send(fact)
        if broken is not None and isinstance(effect, Deliver):
            if broken.ok:
                self._call.stream_ended()
            else:
                self._script = story(self._call, broken)
                effect = next(self._script)
        if isinstance(effect, Pause):
            self._pause = effect
            return Played("retry_request", effect.seconds, len(self._call.report().attempts), None)
        return self._ended(effect)

    def wait(self) -> float:
        """Wait until the next attempt may be sent: the pause, and a turn at the gate where one is given."""
        waited = 0.0
        effect: Effect | None = self._pause
        assert self._script is not None
        while isinstance(effect, Pause):
            waited += effect.seconds
            self._replay.clock.sleep(effect.seconds)
            effect = next(self._script)
        assert isinstance(effect, Send), f"nothing is sent after the wait: {effect}"
        self._pause = None
        return waited

    def _send(self, fact: Fact) -> Effect:
        if self._script is not None:
            return self._script.send(fact)
        assert self._call.admit(), "it was not admitted"
        if fact.ok:
            self._call.succeed(fact)
            return Deliver()
        self._script = story(self._call, fact)
        return next(self._script)

    def _ended(self, effect: Effect) -> Played:
        self._call.close()
        self.over = True
        report = self._call.report()
        if isinstance(effect, Refuse):
            return Played(effect.kind, None, len(report.attempts), effect.retry_after)
        assert isinstance(effect, Deliver)
        hint = report.attempts[-1].hint
        return Played(outcome_of(self._call), None, len(report.attempts), hint.seconds if hint else None)
