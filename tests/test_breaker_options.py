"""What a circuit can be told to do beyond the default: growing open times, several probes, slow calls."""

from __future__ import annotations

from typing import Any

import pytest

from breakers import FAILURE, NOW, SLOW, SUCCESS, TRIP, breaker, probing, run, tripped
from gip_resilience.breaker import REFUSED, Cause, State, Transition

# ---- growth -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        ({}, [5.0] * 6),
        ({"growth": 2.0}, [5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0]),
        ({"growth": 2.0, "max_open": 30.0}, [5.0, 10.0, 20.0, 30.0, 30.0]),
        ({"growth": 1.5, "open_time": 4.0}, [4.0, 6.0, 9.0, 13.5]),
        ({"growth": 3.0, "max_open": 2.0}, [5.0] * 4),
        ({"growth": 1e300}, [5.0, 120.0, 120.0]),
    ],
    ids=["default", "doubling", "capped", "own", "cap below", "absurd"],
)
@pytest.mark.parametrize("end", ["closed", "reset"])
def test_every_probe_that_fails_lengthens_the_open_time(
    changes: dict[str, Any], lengths: list[float], end: str
) -> None:
    """By a factor, up to a limit that is never below the open time; not at all by default; until it closes."""
    machine = breaker(**changes)
    now = NOW
    seen = []
    for verdict in [TRIP] + [FAILURE] * (len(lengths) - 1):
        change = machine.report(machine.admit(now), verdict, now)
        assert change is not None
        assert change.open_for is not None
        seen.append(change.open_for)
        assert machine.admit(now + change.open_for - 0.01) == REFUSED
        now += change.open_for

    assert seen == lengths
    assert machine.opened == len(lengths)
    if end == "closed":
        machine.report(machine.admit(now), SUCCESS, now)
    else:
        machine.reset(0.0)
    (again,) = run(machine, "t", now)
    assert again.open_for == lengths[0]


def test_five_thousand_failed_probes_do_not_overflow() -> None:
    """A dead model stays dead over a weekend."""
    machine = tripped(growth=10.0, open_jitter=0.2)
    now = NOW
    for _ in range(5000):
        now += machine.retry_after(now)
        change = machine.report(machine.admit(now), FAILURE, now, chance=0.5)
        assert change is not None
        assert change.reason is Cause.PROBE_FAILED
        assert change.open_for is not None
        assert change.open_for <= 120.0


def test_a_hung_probe_that_fails_late_does_not_lengthen_it() -> None:
    """Another one was sent since, and knows more."""
    machine, first = probing(growth=2.0)
    second = machine.admit(NOW + 10.0)

    assert machine.report(first, FAILURE, NOW + 11.0) is None
    change = machine.report(second, FAILURE, NOW + 12.0)

    assert change == Transition(State.HALF_OPEN, State.OPEN, Cause.PROBE_FAILED, 10.0)


@pytest.mark.parametrize(
    ("hint", "open_for"), [(None, 10.0), (3.0, 10.0), (10.0, 10.0), (11.0, 11.0), (500.0, 120.0)]
)
def test_a_hint_on_a_failed_probe_counts_where_it_is_longer(hint: float | None, open_for: float) -> None:
    """Than what growth has made of the open time; and it does not take part in the growth."""
    machine, probe = probing(growth=2.0)
    change = machine.report(probe, FAILURE, NOW + 5.0, hint=hint)
    assert change is not None
    assert change.open_for == open_for

    later = NOW + 5.0 + open_for
    again = machine.report(machine.admit(later), FAILURE, later)

    assert again is not None
    assert again.open_for == 20.0


# ---- several probes --------------------------------------------------------------------------------------


def test_several_probes_must_succeed_one_after_the_other() -> None:
    """The next is admitted as soon as one has succeeded, and nobody beside it."""
    machine, probe = probing(success_threshold=3)
    for second in (6.0, 7.0):
        assert machine.admit(NOW + second) == REFUSED
        assert machine.report(probe, SUCCESS, NOW + second) is None
        assert machine.state is State.HALF_OPEN
        assert machine.retry_after(NOW + second) == 0.0
        probe = machine.admit(NOW + second)
        assert machine.is_probe(probe)
        assert machine.admit(NOW + second) == REFUSED

    change = machine.report(probe, SUCCESS, NOW + 8.0)

    assert change == Transition(State.HALF_OPEN, State.CLOSED, Cause.PROBE_SUCCEEDED)


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ("s", State.HALF_OPEN),
        ("ss", State.CLOSED),
        ("sns", State.CLOSED),
        ("nnsnns", State.CLOSED),
        ("sf", State.OPEN),
        ("st", State.OPEN),
        ("sS", State.OPEN),
        ("nn", State.HALF_OPEN),
    ],
)
def test_of_two_probes_that_must_succeed(verdicts: str, state: State) -> None:
    """A neutral one frees its slot and neither counts nor spoils the count; a failed or slow one opens."""
    machine = tripped(success_threshold=2, slow_call=SLOW)

    run(machine, verdicts, NOW + 5.0)

    assert machine.state is state


@pytest.mark.parametrize(("first", "reset"), [("sf", False), ("s", True)], ids=["failure", "reset"])
def test_what_ends_half_open_starts_the_count_over(first: str, reset: bool) -> None:
    """One success of the last time is no head start."""
    machine = tripped(success_threshold=2)
    run(machine, first, NOW + 5.0)
    if reset:
        machine.reset(0.0)
        run(machine, "t", NOW + 5.0)

    assert run(machine, "s", NOW + 10.0) == []
    assert machine.state is State.HALF_OPEN
    assert [change.after for change in run(machine, "s", NOW + 10.0)] == [State.CLOSED]


def test_a_hung_probe_that_succeeds_late_counts_and_frees_nobodys_slot() -> None:
    """It is evidence; the slot belongs to the newest probe."""
    machine, first = probing(success_threshold=2)
    second = machine.admit(NOW + 10.0)

    assert machine.report(first, SUCCESS, NOW + 11.0) is None
    assert machine.admit(NOW + 11.0) == REFUSED
    change = machine.report(second, SUCCESS, NOW + 12.0)

    assert change is not None
    assert change.after is State.CLOSED


@pytest.mark.parametrize(
    ("changes", "lease"),
    [
        ({}, 5.0),
        ({"open_time": 8.0}, 8.0),
        ({"probe_lease": 0.5}, 0.5),
        ({"probe_lease": 60.0}, 60.0),
        ({"probe_lease": 60.0, "growth": 4.0}, 60.0),
    ],
)
def test_how_long_a_probe_keeps_the_others_away(changes: dict[str, Any], lease: float) -> None:
    """As long as its setting says, or else as the open time; every probe has a lease of its own."""
    machine = tripped(**changes)
    start = NOW + machine.retry_after(NOW)
    for _ in range(3):
        assert machine.is_probe(machine.admit(start))
        assert machine.retry_after(start) == lease
        assert machine.admit(start + lease - 0.01) == REFUSED
        start += lease


# ---- slow calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "verdicts", "reason"),
    [
        ({}, "S" * 9, None),
        ({}, "S" * 10, Cause.SLOW_CALLS),
        ({}, "ssSSSSSSSS", Cause.SLOW_CALLS),
        ({}, "sssSSSSSSS", None),
        ({}, "SSSSSSSSss", None),
        ({}, "SSSSSSSSssS", Cause.SLOW_CALLS),
        ({}, "N" * 50, None),
        ({}, "S" * 9 + "N" * 50, None),
        ({}, "FFFFF", Cause.CONSECUTIVE),
        ({}, "FFFFSF", None),
        ({}, "sssssFFFFF", Cause.FAILURE_RATIO),
        ({}, "SSSSSSSSsf", Cause.SLOW_CALLS),
        ({"ratio": 1.0}, "ssSSSSFFFF", Cause.SLOW_CALLS),
        ({"ratio": 1.0}, "sssSSSSFFF", None),
        ({}, "T", Cause.TRIPPED),
        ({"slow_ratio": 0.5}, "sssssSSSSS", Cause.SLOW_CALLS),
        ({"slow_ratio": 1.0}, "s" + "S" * 50, None),
        ({"slow_ratio": 1.0}, "S" * 10, Cause.SLOW_CALLS),
        ({"min_calls": 3}, "SS", None),
        ({"min_calls": 3}, "SSS", Cause.SLOW_CALLS),
        ({"min_calls": 20}, "S" * 19, None),
        ({"slow_call": None}, "S" * 100, None),
    ],
)
def test_slow_calls_open_a_closed_circuit(
    changes: dict[str, Any], verdicts: str, reason: Cause | None
) -> None:
    """Where a duration is set: eight of ten calls, failed ones too, and never in a thin window."""
    machine = breaker(**{"slow_call": SLOW, **changes})

    changed = run(machine, verdicts)

    assert changed == ([Transition(State.CLOSED, State.OPEN, reason, 5.0)] if reason else [])


@pytest.mark.parametrize(("took", "slow"), [(0.0, 0), (1.999, 0), (2.0, 1), (1e9, 1)])
def test_from_when_a_call_is_slow(took: float, slow: int) -> None:
    """From the very duration that is set; the view counts it, and that it succeeded."""
    machine = breaker(slow_call=SLOW)
    machine.report(machine.admit(NOW), SUCCESS, NOW, took=took)

    seen = machine.view(NOW)

    assert (seen.calls, seen.failures, seen.slow) == (1, 0, slow)


def test_no_call_is_slow_by_default() -> None:
    """However long it takes."""
    machine = breaker()
    for _ in range(100):
        assert machine.report(machine.admit(NOW), SUCCESS, NOW, took=1e6) is None

    assert machine.view(NOW).slow == 0


def test_slow_calls_leave_the_window_with_the_others() -> None:
    """What was slow eleven seconds ago is no evidence, and a bucket that is used again starts from nothing."""
    machine = breaker(slow_call=SLOW)
    run(machine, "S" * 9)

    assert run(machine, "S" * 9, NOW + 10.0) == []
    seen = machine.view(NOW + 10.0)
    assert (seen.calls, seen.slow) == (9, 9)
    assert [change.reason for change in run(machine, "S", NOW + 10.0)] == [Cause.SLOW_CALLS]


@pytest.mark.parametrize("verdicts", ["S", "F", "T", "f"])
def test_a_slow_probe_has_failed(verdicts: str) -> None:
    """What took too long is not mended, whatever came of it."""
    machine = tripped(slow_call=SLOW)

    changed = run(machine, verdicts, NOW + 5.0)

    assert changed == [Transition(State.HALF_OPEN, State.OPEN, Cause.PROBE_FAILED, 5.0)]


def test_a_mended_circuit_has_seen_nothing_slow() -> None:
    """Neither what opened it nor its probes are held against it."""
    machine = breaker(slow_call=SLOW)
    run(machine, "S" * 10)
    assert machine.view(NOW).slow == 10
    run(machine, "s", NOW + 5.0)

    assert machine.view(NOW + 5.0).slow == 0
    assert run(machine, "S" * 9, NOW + 5.0) == []
