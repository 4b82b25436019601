"""The circuit of a process that is one of a fleet. Pure: ``now`` is an argument, nothing waits.

Like gate and budget (`gip_resilience._fleet_machines`) it is the machine of one process, which goes on deciding by
itself, and besides says what others should know and follows what they say. So a process whose store is away is a
process by itself, and nothing has to be switched over.

What is shared of a circuit is one record, the *flag*: open until then, and why. Two things raise it: an answer that
says by itself that the model is unavailable, seen by anybody; or the failures of all processes together, where more
than one process sees them. A circuit that a process opened for its own failures stays its own affair. Under the flag
one process at a time sends the probe, and its verdict holds for all: success closes every circuit that the flag had
opened. A process whose own calls go well need not believe the sum of others': one probe of its own, and if that
succeeds too it goes on by itself for as long as its calls do.

Records have versions. A verdict is about the version it was sent under, and is dropped when that is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gip_resilience._fleet_words import RATIO, TRIP, Question, milliseconds
from gip_resilience.breaker import ASKED, REFUSED, Breaker, Cause, Control, State, Transition

if TYPE_CHECKING:
    from gip_resilience._fleet_machines import Member
    from gip_resilience._fleet_words import CircuitState
    from gip_resilience._keys import CircuitKey
    from gip_resilience.config import BreakerConfig

WELL: Final = 5
"""Calls of its own that a process must have in its window before it trusts them more than the others': fewer may have
succeeded before the trouble began."""

FORGOTTEN: Final = 60.0
"""Seconds after which the version of a record that was seen no longer outranks a smaller one: a store that was set
back must not be disbelieved for ever."""

FIRST_LOOK: Final = 0.001
"""Seconds until an answer of the store is looked for: it takes a fifth of that on the same machine."""


class SharedBreaker(Breaker):
    """One circuit, and what the fleet says of it.

    Attributes:
        key: its name.
        tag: its name on the store.
        scopes: what an operator's word about it may be about (`Names.scopes`).
        flagged: whether it is open (or half-open) by the fleet's flag.
        version: of the record as last seen; 0 before.
    """

    __slots__ = (
        "_alone",
        "_asked_at",
        "_kind",
        "_leased_at",
        "_leased_until",
        "_member",
        "_outstanding",
        "_seen_at",
        "_stands_apart",
        "_told",
        "_unsaid",
        "flagged",
        "key",
        "scopes",
        "tag",
        "version",
    )

    def __init__(self, config: BreakerConfig, now: float, key: CircuitKey, member: Member) -> None:
        super().__init__(config, now)
        self._member = member
        self.key = key
        self.tag = member.names.circuit(key)
        self.scopes = member.names.scopes(key)
        self.flagged = False
        self.version = 0
        self._kind = ""
        self._seen_at = 0.0
        self._told = (0, 0)
        self._asked_at: float | None = None
        """Since when an answer is waited for, should it take several questions."""
        self._outstanding = False
        self._leased_at = self._leased_until = 0.0
        self._alone = False
        """The next probe, or the one under way, is for this process only."""
        self._stands_apart = False
        """Such a probe succeeded: the sum of the others' failures is not believed."""
        self._unsaid = False
        """It tripped, and the store has not answered to that yet."""

    # ---- what is said ------------------------------------------------------------------------------------

    def _ask(self, script: str, kinds: tuple[str, ...], *args: str | int) -> Question:
        names, node, key = self._member.names, self._member.node, self.key
        keys = tuple(names.key(self.tag, kind) for kind in kinds)
        return Question(script, self.tag, keys, (names.channel, self.tag, node, key.host, key.model, *args))

    def look(self, now: float) -> Question:
        """How is this circuit, and what became of the calls since the last time that was told."""
        config = self._config
        calls, failures = tally = self._window.tally()
        seen, seen_failures, _ = self._window.totals(now)
        if self.state is State.CLOSED:
            # What is no longer in our own window is too old for theirs.
            new = min(seen, max(0, calls - self._told[0]))
            failed = min(new, seen_failures, max(0, failures - self._told[1]))
            failing = seen_failures > 0 and seen_failures >= config.ratio * seen
        else:
            new, failed, failing = 0, 0, False
        self._told = tally
        return self._ask(
            "count",
            ("circuit", "window"),
            new,
            failed,
            int(failing),
            milliseconds(config.window / config.buckets),
            config.buckets,
            config.min_calls,
            round(config.ratio * 1000),
            self._member.settings.quorum,
            milliseconds(config.open_time),
        )

    @property
    def news(self) -> bool:
        """Whether calls have been counted that the others do not know of."""
        return self._window.tally() != self._told

    def _say_open(self, why: str, seconds: float, detail: str = "") -> None:
        question = self._ask("open", ("circuit", "window", "probe"), why, milliseconds(seconds), detail)
        self._member.say(question)

    def _say_free(self) -> None:
        question = self._ask("release", ("probe",))
        self._leased_until = 0.0
        self._member.say(question)

    def _open(self, cause: Cause, now: float, hint: float | None, chance: float) -> Transition:
        change = super()._open(cause, now, hint, chance)
        alone, self._alone = self._alone, False
        self._stands_apart = False
        open_for = change.open_for or 0.0
        if cause is Cause.TRIPPED:
            self.flagged, self._kind = True, TRIP
            self._unsaid = True
            self._say_open("trip", open_for)
        elif cause is not Cause.PROBE_FAILED:
            self._member.say(self._evidence(now))
        elif self.flagged and not alone:
            self._say_open("probe", open_for, str(self.version))
        self._stop_asking()
        self._leased_until = 0.0
        return change

    def _evidence(self, now: float) -> Question:
        """What this circuit has just been opened for."""
        state, self.state = self.state, State.CLOSED
        try:
            return self.look(now)
        finally:
            self.state = state

    def _close(self, cause: Cause, now: float) -> Transition:
        change = super()._close(cause, now)
        if cause is Cause.PROBE_SUCCEEDED and self.flagged:
            if self._alone:
                self._stands_apart = True
            else:
                names = self._member.names
                keys = tuple(names.key(self.tag, kind) for kind in ("circuit", "window", "probe"))
                args = (names.channel, self.tag, str(self.version))
                self._member.say(Question("close", self.tag, keys, args))
        self.flagged = self._alone = self._unsaid = False
        self._stop_asking()
        self._leased_until = 0.0
        return change

    def _free(self, ticket: int, now: float) -> None:
        if ticket == self._probe and self.flagged and not self._alone:
            self._say_free()
        super()._free(ticket, now)

    # ---- the probe ---------------------------------------------------------------------------------------

    def _grant_probe(self, now: float) -> int:
        if self.flagged and not self._alone and self._member.up and self.control is Control.AUTO:
            if now < self._leased_until:
                self._leased_until = 0.0
            elif not self._waited(now):
                return ASKED
        return super()._grant_probe(now)

    def _waited(self, now: float) -> bool:
        """Ask for the lease, and say whether the store has had its time to answer: then we decide alone."""
        timeout = self._member.settings.timeout
        if not self._outstanding:
            if self._asked_at is None or now - self._asked_at >= 2.0 * timeout:
                self._asked_at = now
            lease = milliseconds(self._lease)
            self._outstanding = True
            self._member.say(self._ask("probe", ("circuit", "probe"), str(self.version), lease))
        if self._asked_at is not None and now - self._asked_at < timeout:
            return False
        self._stop_asking()
        return True

    def _stop_asking(self) -> None:
        self._asked_at = None
        self._outstanding = False

    def answer_due(self, now: float) -> float:
        """See `Breaker.answer_due`: soon, and then each time after as long again."""
        if self._asked_at is None:
            return FIRST_LOOK
        waited = now - self._asked_at
        return max(FIRST_LOOK, min(waited, self._member.settings.timeout - waited))

    def tend(self, now: float) -> None:
        """Give back a lease that nobody came for."""
        if self._leased_until > 0.0 and now - self._leased_at >= self._member.settings.interval:
            self._say_free()

    def parting(self, now: float) -> list[Question]:
        """What is said of a lease when this process ends."""
        probing = self.state is State.HALF_OPEN and now < self._probe_until
        if self.flagged and not self._alone and (probing or now < self._leased_until):
            return [self._ask("release", ("probe",))]
        return []

    # ---- what is heard -----------------------------------------------------------------------------------

    def answered(self, state: CircuitState, now: float, script: str) -> Transition | None:
        """An answer of the store to that script.

        Returns:
            The change of state it caused, if any.
        """
        if state.version == 0 and script == "count" and self.version > 0 and self._holds:
            # It was restarted, or somebody emptied it, and the connection did not show it.
            self.version = 0
            self._member.say(self._reminder(now))
            return None
        change = self.follow(state, now)
        if script == "open":
            self._unsaid = False
        elif script == "probe":
            asked, self._outstanding = self._outstanding, False
            if state.granted >= 0:
                self._asked_at = None
            if state.granted == 1:
                if asked and self.state is not State.CLOSED:
                    self._leased_at, self._leased_until = now, now + state.wait
                elif self._probe == REFUSED:
                    self._say_free()  # too late
            elif state.granted == 0 and asked:
                self._probe_until = max(self._probe_until, now + min(state.wait, self._lease))
            elif state.version != self.version:
                self.version = (
                    0  # another one has it from a store that was set back: the next answer is believed
                )
            elif state.open and self.state is State.OPEN:
                self._until = max(self._until, now + min(state.left, self._longest))
        return change

    def freed(self, now: float) -> None:
        """The probe under way somewhere came to nothing."""
        if self._probe == REFUSED:
            self._probe_until = min(self._probe_until, now)

    def follow(self, state: CircuitState, now: float) -> Transition | None:
        """What the fleet's record says.

        Returns:
            The change of state it caused, if any.
        """
        if state.version == 0 or state.version == self.version:
            return None
        if state.version < self.version and now - self._seen_at < FORGOTTEN:
            return None
        self.version, self._seen_at = state.version, now
        if not state.open:
            return self._follow_closed(state, now)
        self._kind = state.kind
        calls, failures, _ = self._window.totals(now)
        well = self.state is State.CLOSED and failures < self._config.ratio * max(1, calls)
        if state.kind == RATIO and well and self._stands_apart:
            return None
        if state.kind == RATIO and well and calls >= WELL:
            self._alone = True
        else:
            self._alone = self._stands_apart = False
        return self._follow_open(0.0 if self._alone else state.left, now)

    def _follow_closed(self, state: CircuitState, now: float) -> Transition | None:
        self._stands_apart = False
        if self.state is State.CLOSED:
            return None
        if state.kind == "reset":
            return self._close(Cause.RESET, now)
        return self._close(Cause.FLEET_CLOSED, now) if self.flagged else None

    def closed_by_operator(self, version: int, now: float) -> Transition | None:
        """An operator closed it. Believed whatever was known: news that somebody made up may have any version.

        Returns:
            The change of state, if it was not closed already.
        """
        self.version, self._seen_at = version, now
        self._stands_apart = False
        return None if self.state is State.CLOSED else self._close(Cause.RESET, now)

    def _follow_open(self, left: float, now: float) -> Transition | None:
        left = min(left, max(self._longest, self._config.max_open))
        self.flagged = True
        if self.state is State.OPEN:
            self._until = max(self._until, now + left)
            self._probe_until = 0.0
            return None
        change = Transition(self.state, self._move(Cause.FLEET_OPENED, now), Cause.FLEET_OPENED, left)
        self._until = now + left
        self._stop_asking()
        self._leased_until = 0.0
        self.opened += 1
        return change

    def linked(self, now: float) -> Question:
        """The store is back. Records may have been lost or set back; it is told what still holds."""
        self.version = 0
        self._stop_asking()
        self._leased_until = 0.0
        return self._reminder(now) if self._holds else self.look(now)

    @property
    def _holds(self) -> bool:
        """Whether it is open, or half-open, by the fleet's flag."""
        return self.flagged and not self._alone and self.state is not State.CLOSED

    def _reminder(self, now: float) -> Question:
        """That it is open; as an order where that was given and not heard."""
        left = max(0.0, self._until - now)
        keys = ("circuit", "window", "probe")
        if self._unsaid and left > 0.0:
            return self._ask("open", keys, "trip", milliseconds(left), "")
        return self._ask("open", keys, "kept", milliseconds(left), self._kind)

    def reset(self, now: float) -> Transition | None:
        """See `Breaker.reset`. What the others have is not touched."""
        self.flagged = self._alone = self._stands_apart = self._unsaid = False
        return super().reset(now)
