"""The circuit breaker against a second, plainer one, which says beforehand what every call and report will do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from breakers import FAILURE, NEUTRAL, NOW, SLOW, SUCCESS, TRIP, breaker
from gip_resilience.breaker import (
    REFUSED,
    SHADOWED,
    TRANSITIONS,
    UNCOUNTED,
    Cause,
    Control,
    State,
    Transition,
)
from gip_resilience.taxonomy import Verdict

WINDOW, BUCKETS = 10.0, 5
MIN_CALLS, CONSECUTIVE, RATIO, SLOW_RATIO = 4, 3, 0.5, 0.75
OPEN_TIME, GROWTH, MAX_OPEN, LEASE, PROBES = 5.0, 2.0, 30.0, 3.0, 2


@dataclass
class Seen:
    """A call with a verdict."""

    at: float
    failed: bool
    slow: bool


@dataclass(eq=False)
class Sent:
    """A call that was let through."""

    epoch: int
    """How many changes of state and resets there had been."""
    counted: bool = True


@dataclass
class Model:
    """A circuit in as few words as possible: it keeps every call, and counts them when it is asked."""

    state: State = State.CLOSED
    control: Control = Control.AUTO
    epoch: int = 0
    calls: list[Seen] = field(default_factory=list)
    until: float = 0.0
    """When an open circuit lets a probe through."""
    open_for: float = OPEN_TIME
    """For how long it opens the next time a probe fails, or the first time."""
    opened: int = 0
    probe: Sent | None = None
    leased: float = 0.0
    """Until when the probe keeps others away."""
    passed: int = 0
    run: int = 0

    def wait(self, now: float) -> float:
        """Seconds until a caller is let through."""
        ends = {State.CLOSED: now, State.OPEN: self.until, State.HALF_OPEN: self.leased}
        if self.control is Control.FORCED_OPEN:
            return OPEN_TIME
        return max(0.0, ends[self.state] - now) if self.control is Control.AUTO else 0.0

    def admit(self, now: float) -> Sent | None:
        """A call that comes now, if it is let through."""
        if self.control is Control.FORCED_OPEN:
            return None
        if self.control is Control.FORCED_CLOSED:
            return Sent(self.epoch, counted=False)
        if self.state is State.CLOSED:
            return Sent(self.epoch)
        if now < (self.until if self.state is State.OPEN else self.leased):
            return None if self.control is Control.AUTO else Sent(self.epoch, counted=False)
        if self.state is State.OPEN:
            self._enter(State.HALF_OPEN)
        self.probe, self.leased = Sent(self.epoch), now + LEASE
        return self.probe

    def report(
        self, sent: Sent, verdict: Verdict, slow: bool, now: float, hint: float | None
    ) -> Transition | None:
        """What this changes."""
        if not sent.counted or sent.epoch != self.epoch:
            return None
        good = verdict is SUCCESS and not slow
        if self.state is State.HALF_OPEN:
            if verdict is NEUTRAL:
                self._free(sent, now)
                return None
            return self._probed(sent, good, now, hint)
        if verdict is NEUTRAL:
            return None
        self.calls.append(Seen(now, verdict is not SUCCESS, slow))
        self.run = 0 if verdict is SUCCESS else self.run + 1
        cause = None if good else Cause.TRIPPED if verdict is TRIP else self._cause(now)
        return cause and self._open(cause, now, hint)

    def _probed(self, sent: Sent, good: bool, now: float, hint: float | None) -> Transition | None:
        if good:
            self.passed += 1
            if self.passed == PROBES:
                return self.close(Cause.PROBE_SUCCEEDED)
            self._free(sent, now)
        elif sent is self.probe:
            self.open_for = min(GROWTH * self.open_for, MAX_OPEN)
            return self._open(Cause.PROBE_FAILED, now, hint)
        return None

    def _free(self, sent: Sent, now: float) -> None:
        if sent is self.probe:
            self.leased = now

    def _cause(self, now: float) -> Cause | None:
        calls, failed, slow = self.counts(now)
        if calls < MIN_CALLS:
            return Cause.CONSECUTIVE if self.run >= CONSECUTIVE else None
        if failed / calls >= RATIO:
            return Cause.FAILURE_RATIO
        return Cause.SLOW_CALLS if slow / calls >= SLOW_RATIO else None

    def counts(self, now: float) -> tuple[int, int, int]:
        """Calls, failed and slow ones, of the present bucket and of those before it that are in the window."""
        bucket = WINDOW / BUCKETS
        recent = [seen for seen in self.calls if now // bucket - seen.at // bucket < BUCKETS]
        return len(recent), sum(seen.failed for seen in recent), sum(seen.slow for seen in recent)

    def _open(self, cause: Cause, now: float, hint: float | None) -> Transition:
        seconds = max(self.open_for, min(hint or 0.0, MAX_OPEN))
        change = Transition(self.state, State.OPEN, cause, seconds)
        self.until = now + seconds
        self.opened += 1
        self._enter(State.OPEN)
        return change

    def close(self, cause: Cause) -> Transition:
        """Start anew."""
        change = Transition(self.state, State.CLOSED, cause)
        self.open_for, self.calls, self.run = OPEN_TIME, [], 0
        self._enter(State.CLOSED)
        return change

    def _enter(self, state: State) -> None:
        self.state, self.probe, self.passed, self.leased = state, None, 0, 0.0
        self.epoch += 1


class BreakerMachine(RuleBasedStateMachine):
    """Any order of callers, answers, operators' words and time; the two never differ."""

    reached: set[tuple[State, Cause]]

    def __init__(self) -> None:
        super().__init__()
        self.machine = breaker(
            window=WINDOW,
            buckets=BUCKETS,
            min_calls=MIN_CALLS,
            consecutive=CONSECUTIVE,
            ratio=RATIO,
            slow_call=SLOW,
            slow_ratio=SLOW_RATIO,
            open_time=OPEN_TIME,
            growth=GROWTH,
            max_open=MAX_OPEN,
            probe_lease=LEASE,
            success_threshold=PROBES,
        )
        self.model = Model()
        self.now = NOW
        self.out: list[tuple[int, Sent]] = []

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def wait_as_told(self) -> None:
        """Let just as much time pass as a caller is told."""
        self.now += self.machine.retry_after(self.now)

    @rule()
    def call(self) -> None:
        """A caller comes."""
        before = self.machine.state
        ticket = self.machine.admit(self.now)
        sent = self.model.admit(self.now)
        assert (ticket == REFUSED) is (sent is None)
        if sent is None:
            return
        assert (ticket in {UNCOUNTED, SHADOWED}) is not sent.counted
        assert self.machine.is_probe(ticket) is (sent is self.model.probe)
        self.out.append((ticket, sent))
        if self.machine.state is not before:
            self.reached.add((before, Cause.PROBE))

    @precondition(lambda self: self.out)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(Verdict),
        slow=st.booleans(),
        hint=st.sampled_from([None, 0.0, 8.0, 900.0]),
    )
    def answer(self, data: st.DataObject, verdict: Verdict, slow: bool, hint: float | None) -> None:
        """One of the calls under way ends."""
        self._answer(data.draw(st.integers(0, len(self.out) - 1)), verdict, slow, hint)

    @precondition(lambda self: self.model.state is State.CLOSED)
    @rule(slow=st.booleans())
    def trip(self, slow: bool) -> None:
        """One answer says it all."""
        known = len(self.out)
        self.call()
        if len(self.out) > known:
            self._answer(known, TRIP, slow, None)

    @precondition(lambda self: self.model.state is State.OPEN)
    @rule()
    def probe(self) -> None:
        """A caller comes as soon as it may."""
        self.wait_as_told()
        self.call()

    @precondition(lambda self: self.model.state is State.HALF_OPEN)
    @rule()
    def hang(self) -> None:
        """The probe under way does not come back for so long that another is sent."""
        self.now += LEASE
        self.call()

    @precondition(lambda self: any(sent.epoch == self.model.epoch for _, sent in self.out))
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), slow=st.booleans())
    def answer_in_time(self, data: st.DataObject, verdict: Verdict, slow: bool) -> None:
        """One of the calls under way ends that were sent since the last change of state."""
        current = [n for n, (_, sent) in enumerate(self.out) if sent.epoch == self.model.epoch]
        self._answer(data.draw(st.sampled_from(current)), verdict, slow, None)

    @rule(verdicts=st.lists(st.sampled_from([SUCCESS, FAILURE]), max_size=6), slow=st.booleans())
    def calls(self, verdicts: list[Verdict], slow: bool) -> None:
        """Some calls come, one after the other, and end at once."""
        for verdict in verdicts:
            known = len(self.out)
            self.call()
            if len(self.out) > known:
                self._answer(known, verdict, slow, None)

    def _answer(self, which: int, verdict: Verdict, slow: bool, hint: float | None) -> None:
        ticket, sent = self.out.pop(which)
        took = SLOW if slow else 0.0
        change = self.machine.report(ticket, verdict, self.now, hint=hint, took=took)
        assert change == self.model.report(sent, verdict, slow, self.now, hint)
        self._reach(change)

    @rule(control=st.sampled_from([Control.AUTO, *Control, Control.AUTO]))
    def override(self, control: Control) -> None:
        """An operator overrules, or thinks better of it."""
        self.machine.override(control)
        self.model.control = control

    @precondition(lambda self: self.model.control is not Control.AUTO)
    @rule()
    def think_better_of_it(self) -> None:
        """He leaves it alone, most of the time: nothing much happens while he does not."""
        self.override(Control.AUTO)

    @rule()
    def reset(self) -> None:
        """He resets it."""
        closed = self.model.state is State.CLOSED
        expected = self.model.close(Cause.RESET)
        self.model.control = Control.AUTO
        change = self.machine.reset(self.now)
        assert change == (None if closed else expected)
        self._reach(change)

    def _reach(self, change: Transition | None) -> None:
        if change is not None:
            self.reached.add((change.before, change.reason))

    @invariant()
    def agrees(self) -> None:
        """State, counts, and what callers are told."""
        seen, model = self.machine.view(self.now), self.model
        assert (seen.state, seen.control, seen.opened) == (model.state, model.control, model.opened)
        assert (seen.calls, seen.failures, seen.slow) == model.counts(self.now)
        assert seen.consecutive == model.run
        assert seen.retry_after == model.wait(self.now)

    @invariant()
    def lives(self) -> None:
        """Whoever waits as long as he is told gets through, unless an operator has said otherwise."""
        if self.model.control is not Control.FORCED_OPEN:
            assert self.machine.retry_after(self.now + self.machine.retry_after(self.now)) == 0.0


def test_the_breaker_does_what_the_model_says() -> None:
    """And in the course of it does everything the table says."""
    reached: set[tuple[State, Cause]] = set()
    attributes: dict[str, Any] = {"reached": reached}

    run_state_machine_as_test(
        type("Run", (BreakerMachine,), attributes),
        settings=settings(deadline=None, derandomize=True, max_examples=300, stateful_step_count=50),
    )

    others = {Cause.FLEET_OPENED, Cause.FLEET_CLOSED}  # where circuits are shared
    assert reached == {(state, cause) for state, cause in TRANSITIONS if cause not in others}
