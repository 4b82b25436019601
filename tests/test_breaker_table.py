"""The table of a circuit's transitions: each of them happens, and nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import pytest

from breakers import FAILURE, NOW, SLOW, SUCCESS, TRIP, breaker
from gip_resilience.breaker import TRANSITIONS, Breaker, Cause, Control, State, Transition
from gip_resilience.taxonomy import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable


def swept() -> Breaker:
    """One with every rule in force, and thresholds that few calls reach."""
    return breaker(
        min_calls=4, consecutive=3, slow_call=SLOW, slow_ratio=0.5, success_threshold=2, growth=2.0
    )


@dataclass
class Scene:
    """A breaker, the tickets it gave out, and every change of its state, checked one by one."""

    machine: Breaker = field(default_factory=swept)
    now: float = NOW
    tickets: list[int] = field(default_factory=list)
    seen: list[Transition] = field(default_factory=list)

    def admit(self, after: float = 0.0) -> int:
        """A caller comes."""
        self.now += after
        before = self.machine.state
        ticket = self.machine.admit(self.now)
        self.tickets.append(ticket)
        if self.machine.state is not before:
            self.note(before, Transition(before, self.machine.state, Cause.PROBE))
        return ticket

    def report(self, ticket: int, verdict: Verdict, took: float = 0.0) -> None:
        """A call ends."""
        before = self.machine.state
        self.note(before, self.machine.report(ticket, verdict, self.now, took=took))

    def call(self, verdict: Verdict, took: float = 0.0) -> None:
        """Both at once."""
        self.report(self.admit(), verdict, took)

    def reset(self) -> None:
        """An operator resets."""
        before = self.machine.state
        self.note(before, self.machine.reset(0.0))

    def override(self, control: Control) -> None:
        """An operator overrules; that changes no state."""
        before = self.machine.state
        self.machine.override(control)
        self.note(before, None)

    def note(self, before: State, change: Transition | None) -> None:
        """What was said to have changed is what did change, and the table has it."""
        if change is None:
            assert self.machine.state is before
            return
        assert (change.before, change.after) == (before, self.machine.state)
        assert TRANSITIONS.get((before, change.reason)) is change.after
        assert (change.open_for is not None) is (change.after is State.OPEN)
        self.seen.append(change)


SETUPS: dict[str, Callable[[Scene], object]] = {
    "new": lambda scene: None,
    "one short of a run": lambda scene: [scene.call(FAILURE) for _ in range(2)],
    "one short of half": lambda scene: [scene.call(verdict) for verdict in (FAILURE, SUCCESS, SUCCESS)],
    "one short of slow": lambda scene: [scene.call(SUCCESS, took) for took in (SLOW, 0.0, 0.0)],
    "open": lambda scene: scene.call(TRIP),
    "probing": lambda scene: [scene.call(TRIP), scene.admit(6.0)],
    "probing twice": lambda scene: [scene.call(TRIP), scene.admit(6.0), scene.admit(6.0)],
    "one probe well": lambda scene: [scene.call(TRIP), scene.report(scene.admit(6.0), SUCCESS)],
    "closed again": lambda scene: [scene.call(TRIP), scene.admit(6.0), scene.reset()],
}

# A lambda's default makes it a function of two to a type checker.
EVENTS: list[Callable[[Scene], object]] = [
    lambda scene: scene.admit(),
    lambda scene: scene.admit(6.0),
    lambda scene: scene.admit(600.0),
    lambda scene: scene.reset(),
    *(lambda scene, control=control: scene.override(control) for control in Control),  # type: ignore[misc]
    *(
        lambda scene, which=which, verdict=verdict, took=took: scene.report(  # type: ignore[misc]
            scene.tickets[which] if which is not None else scene.admit(), verdict, took
        )
        # the first ticket is a late one (where anything has changed), the last that of the probe, None a fresh one
        for which, verdict, took in product((0, -1, None), Verdict, (0.0, SLOW))
    ),
]


@pytest.fixture(scope="module")
def observed() -> set[tuple[State, Cause]]:
    """Which cause was seen in which state: any two events, under any control, from any of the setups."""
    found = set()
    for setup, control, *events in product(SETUPS.values(), Control, EVENTS, EVENTS):
        scene = Scene()
        scene.admit()
        setup(scene)
        scene.override(control)
        for event in events:
            event(scene)
        found.update((change.before, change.reason) for change in scene.seen)
    return found


@pytest.mark.parametrize(("state", "cause"), list(product(State, Cause)), ids=str)
def test_what_happens_is_what_the_table_says(
    state: State, cause: Cause, observed: set[tuple[State, Cause]]
) -> None:
    """Each pair in it, and none that is not; nor could one be brought about by mistake.

    What others say takes part in it only where circuits are shared.
    """
    assert ((state, cause) in observed) is ((state, cause) in TRANSITIONS and cause not in FROM_OTHERS)
    machine = swept()
    machine.state = state
    if (state, cause) not in TRANSITIONS:
        with pytest.raises(KeyError):
            machine._move(cause, 0.0)


FROM_OTHERS = {Cause.FLEET_OPENED, Cause.FLEET_CLOSED}

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN


@pytest.mark.parametrize(
    ("setup", "event", "change"),
    [
        ("new", lambda scene: scene.call(TRIP), Transition(CLOSED, OPEN, Cause.TRIPPED, 5.0)),
        (
            "one short of half",
            lambda scene: scene.call(FAILURE),
            Transition(CLOSED, OPEN, Cause.FAILURE_RATIO, 5.0),
        ),
        (
            "one short of slow",
            lambda scene: scene.call(SUCCESS, SLOW),
            Transition(CLOSED, OPEN, Cause.SLOW_CALLS, 5.0),
        ),
        (
            "one short of a run",
            lambda scene: scene.call(FAILURE),
            Transition(CLOSED, OPEN, Cause.CONSECUTIVE, 5.0),
        ),
        ("open", lambda scene: scene.admit(5.0), Transition(OPEN, HALF_OPEN, Cause.PROBE)),
        ("open", lambda scene: scene.reset(), Transition(OPEN, CLOSED, Cause.RESET)),
        (
            "probing",
            lambda scene: scene.report(scene.tickets[-1], FAILURE),
            Transition(HALF_OPEN, OPEN, Cause.PROBE_FAILED, 10.0),
        ),
        (
            "one probe well",
            lambda scene: scene.call(SUCCESS),
            Transition(HALF_OPEN, CLOSED, Cause.PROBE_SUCCEEDED),
        ),
        ("probing", lambda scene: scene.reset(), Transition(HALF_OPEN, CLOSED, Cause.RESET)),
    ],
    ids=lambda value: value.reason if isinstance(value, Transition) else None,
)
def test_each_change_there_is(setup: str, event: Callable[[Scene], object], change: Transition) -> None:
    """Brought about on its own, and said exactly."""
    scene = Scene()
    SETUPS[setup](scene)
    before = len(scene.seen)

    event(scene)

    assert scene.seen[before:] == [change]
