"""The circuit breaker as a machine: time and chance are arguments, so every edge of it is one line of a table."""

from __future__ import annotations

import pytest

from breakers import FAILURE, NEUTRAL, NOW, SUCCESS, TRIP, breaker, probing, run, tripped
from gip_resilience.breaker import REFUSED, SHADOWED, UNCOUNTED, Breaker, Control, State, Transition, Window
from gip_resilience.config import BreakerConfig
from gip_resilience.taxonomy import Verdict

# ---- closed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ("ffff", None),
        ("fffff", "consecutive failures"),
        ("ffffsf", None),
        ("ffffnf", "consecutive failures"),
        ("ffffnnnn", None),
        ("sssssfffff", "failure ratio"),
        ("ssssssffff", None),
        ("ssssssfffff", None),
        ("ssssssffffff", "failure ratio"),
        ("ffffsffffsff", "failure ratio"),
        ("ssssssssss" + "fffff", None),
        ("ssssssssss" + "nnnnnnnnnnnn", None),
        ("t", "tripped"),
        ("sssssssssst", "tripped"),
    ],
)
def test_what_opens_a_closed_circuit(verdicts: str, reason: str | None) -> None:
    """Half of ten calls, five in a row while the window is thin, or a trip; nothing less, and never neutral."""
    machine = breaker()

    changes = run(machine, verdicts)

    assert changes == ([Transition(State.CLOSED, State.OPEN, reason, 5.0)] if reason else [])
    assert machine.state is (State.OPEN if reason else State.CLOSED)


def test_a_run_of_failures_counts_only_while_the_window_is_thin() -> None:
    """In a busy window five failures in a row are chance; once the window has slid away they are evidence."""
    machine = breaker()
    run(machine, "s" * 20 + "fffff")
    assert machine.state is State.CLOSED

    (change,) = run(machine, "f", NOW + 11.0)

    assert change.reason == "consecutive failures"


@pytest.mark.parametrize(("later", "opens"), [(8.0, True), (12.0, False)], ids=["inside", "slid away"])
def test_the_window_slides(later: float, opens: bool) -> None:
    """Failures older than the window are no evidence."""
    machine = breaker(consecutive=100)
    run(machine, "f" * 9)

    changes = run(machine, "f", NOW + later)

    assert bool(changes) is opens


def test_the_window_forgets_bucket_by_bucket() -> None:
    """Totals fall as buckets leave the window, and a bucket that is used again starts from nothing."""
    window = Window(10.0, 10)
    for second in range(10):
        window.record(NOW + second, failed=second % 2 == 0)

    assert window.totals(NOW + 9) == (10, 5, 0)
    assert window.totals(NOW + 12) == (7, 3, 0)
    assert window.totals(NOW + 30) == (0, 0, 0)
    window.record(NOW + 10, failed=False)
    assert window.totals(NOW + 10) == (10, 4, 0)


@pytest.mark.parametrize("now", [0.0, 4.0, 9.5, 1000.0])
def test_a_cleared_window_is_empty_and_still_remembers_how_much_there_was(now: float) -> None:
    """Also while the clock reads less than the length of the window, as it does after a start of the machine."""
    window = Window(10.0, 10)
    for failed in (True, False, True):
        window.record(now, failed=failed, slow=True)
    assert window.totals(now) == (3, 2, 3)

    window.clear()

    assert window.totals(now) == (0, 0, 0)
    assert window.tally() == (3, 2)
    window.record(now, failed=True)
    assert window.totals(now) == (1, 1, 0)
    assert window.tally() == (4, 3)


# ---- open ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "admitted"), [(0.0, False), (4.999, False), (5.0, True), (60.0, True)])
def test_an_open_circuit_refuses_until_its_time_is_over(after: float, admitted: bool) -> None:
    """Then the first caller is the probe."""
    machine = tripped()

    ticket = machine.admit(NOW + after)

    assert (ticket != REFUSED) is admitted
    assert machine.state is (State.HALF_OPEN if admitted else State.OPEN)
    assert machine.is_probe(ticket) is admitted


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("before", ["open", "half-open", "closed again"])
def test_a_late_report_changes_nothing(before: str, verdict: Verdict) -> None:
    """A call that set out before the circuit opened says nothing about what is now, whatever became of it."""
    machine = breaker()
    late = machine.admit(NOW)
    run(machine, "t")
    if before != "open":
        probe = machine.admit(NOW + 5.0)
        if before == "closed again":
            machine.report(probe, SUCCESS, NOW + 5.5)
    seen = machine.view(NOW + 6.0)

    assert machine.report(late, verdict, NOW + 6.0, hint=60.0) is None
    assert machine.view(NOW + 6.0) == seen


@pytest.mark.parametrize(
    ("hint", "open_for"),
    [(None, 5.0), (0.0, 5.0), (1.0, 5.0), (30.0, 30.0), (120.0, 120.0), (1e9, 120.0)],
)
def test_a_hint_lengthens_the_open_time_up_to_a_limit(hint: float | None, open_for: float) -> None:
    """It never shortens it."""
    machine = breaker()

    change = machine.report(machine.admit(NOW), TRIP, NOW, hint=hint)

    assert change is not None
    assert change.open_for == open_for
    assert machine.admit(NOW + open_for - 0.01) == REFUSED
    assert machine.admit(NOW + open_for) != REFUSED


@pytest.mark.parametrize(("chance", "open_for"), [(0.0, 4.0), (0.5, 5.0), (0.75, 5.5)])
def test_chance_spreads_the_open_time(chance: float, open_for: float) -> None:
    """Twenty per cent up or down, so that processes do not probe together."""
    machine = Breaker(BreakerConfig())

    change = machine.report(machine.admit(NOW), TRIP, NOW, chance=chance)

    assert change is not None
    assert change.open_for == pytest.approx(open_for)


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 0.9, 0.999999])
@pytest.mark.parametrize("jitter", [0.0, 0.2, 1.0])
def test_the_open_time_stays_within_its_jitter(jitter: float, chance: float) -> None:
    """Never further up or down than that part of it, and in the middle at a chance of a half."""
    machine = breaker(open_jitter=jitter)

    change = machine.report(machine.admit(NOW), TRIP, NOW, chance=chance)

    assert change is not None
    assert change.open_for is not None
    assert 5.0 * (1.0 - jitter) <= change.open_for <= 5.0 * (1.0 + jitter)
    assert change.open_for == pytest.approx(5.0 + 5.0 * jitter * (2.0 * chance - 1.0))
    assert machine.retry_after(NOW) == pytest.approx(change.open_for)


# ---- half-open -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "change"),
    [
        (SUCCESS, Transition(State.HALF_OPEN, State.CLOSED, "probe succeeded")),
        (FAILURE, Transition(State.HALF_OPEN, State.OPEN, "probe failed", 5.0)),
        (TRIP, Transition(State.HALF_OPEN, State.OPEN, "probe failed", 5.0)),
        (NEUTRAL, None),
    ],
)
def test_the_probe_decides(verdict: Verdict, change: Transition | None) -> None:
    """Its success closes, its failure opens again, and no verdict leaves everything as it is."""
    machine, probe = probing()

    assert machine.report(probe, verdict, NOW + 5.5) == change


def test_one_probe_at_a_time() -> None:
    """While the probe is out, everybody else is refused."""
    machine, _ = probing()

    assert [machine.admit(NOW + 5.0 + n / 100) for n in range(50)] == [REFUSED] * 50


def test_a_neutral_probe_frees_its_slot() -> None:
    """A cancelled probe is no evidence; the next caller probes at once."""
    machine, probe = probing()

    machine.report(probe, NEUTRAL, NOW + 5.5)

    assert machine.state is State.HALF_OPEN
    assert machine.retry_after(NOW + 5.5) == 0.0
    assert machine.is_probe(machine.admit(NOW + 5.5))
    assert machine.admit(NOW + 5.5) == REFUSED


def test_a_hung_probe_delays_the_next_by_one_interval() -> None:
    """Its lease runs out; it does not block the circuit for ever."""
    machine, _ = probing()

    assert machine.admit(NOW + 9.99) == REFUSED
    assert machine.retry_after(NOW + 9.0) == pytest.approx(1.0)
    assert machine.is_probe(machine.admit(NOW + 10.0))


@pytest.mark.parametrize(
    ("who", "verdict", "after"),
    [
        ("first", SUCCESS, State.CLOSED),
        ("first", FAILURE, None),
        ("first", TRIP, None),
        ("second", SUCCESS, State.CLOSED),
        ("second", FAILURE, State.OPEN),
        ("second", TRIP, State.OPEN),
    ],
)
def test_of_overlapping_probes(who: str, verdict: Verdict, after: State | None) -> None:
    """One that outlived its lease may still close the circuit; that it failed is no news, as another is under way.

    Once one has decided, the other is late.
    """
    machine, first = probing()
    second = machine.admit(NOW + 10.0)
    early, late = (first, second) if who == "first" else (second, first)

    change = machine.report(early, verdict, NOW + 11.0)

    if after is None:
        assert change is None
        assert machine.state is State.HALF_OPEN
        assert machine.admit(NOW + 11.0) == REFUSED
        return
    assert change is not None
    assert change.after is after
    for other in Verdict:
        assert machine.report(late, other, NOW + 12.0) is None
    assert machine.state is after


def test_a_hung_probe_that_is_cancelled_late_does_not_free_anothers_slot() -> None:
    """The slot belongs to the newest probe."""
    machine, first = probing()
    machine.admit(NOW + 10.0)

    machine.report(first, NEUTRAL, NOW + 11.0)

    assert machine.admit(NOW + 11.0) == REFUSED


def test_a_mended_circuit_starts_with_a_clean_window() -> None:
    """What opened it is not held against it."""
    machine = breaker()
    run(machine, "fffff")
    machine.report(machine.admit(NOW + 5.0), SUCCESS, NOW + 5.0)

    assert run(machine, "ffff", NOW + 5.0) == []
    assert machine.view(NOW + 5.0).calls == 4


# ---- operators -------------------------------------------------------------------------------------------


def test_forced_open_refuses_for_as_long_as_it_is_said() -> None:
    """Time does not open it; taking the word away does."""
    machine = breaker()
    machine.override(Control.FORCED_OPEN)

    assert machine.admit(NOW + 1e6) == REFUSED
    assert machine.retry_after(NOW + 1e6) == 5.0
    machine.override(Control.AUTO)
    assert machine.admit(NOW) not in {REFUSED, UNCOUNTED}


def test_forced_closed_lets_through_and_learns_nothing() -> None:
    """Even an open circuit lets calls through, and none of them is evidence."""
    machine = tripped()
    machine.override(Control.FORCED_CLOSED)

    assert machine.admit(NOW) == UNCOUNTED
    assert run(machine, "ssttffff", NOW + 20.0) == []
    assert machine.state is State.OPEN
    assert machine.retry_after(NOW) == 0.0


def test_metrics_only_goes_through_the_motions() -> None:
    """It opens, probes and closes as it would, and refuses nobody."""
    machine = breaker(mode="metrics_only")

    assert [change.after for change in run(machine, "fffff")] == [State.OPEN]
    assert machine.admit(NOW + 1.0) == SHADOWED
    assert machine.retry_after(NOW + 1.0) == 0.0
    probe = machine.admit(NOW + 5.0)
    assert machine.is_probe(probe)
    assert machine.admit(NOW + 5.0) == SHADOWED
    change = machine.report(probe, SUCCESS, NOW + 5.0)
    assert change is not None
    assert change.after is State.CLOSED


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("state", ["open", "half-open", "forced open", "metrics_only"])
def test_reset_forgets_everything_and_everybody_under_way(state: str, verdict: Verdict) -> None:
    """Closed, counts gone, and answers still on their way are late."""
    machine, ticket = probing()
    if state == "open":
        machine.report(ticket, FAILURE, NOW + 5.0)
    elif state != "half-open":
        machine.override(Control.FORCED_OPEN if state == "forced open" else Control.METRICS_ONLY)

    machine.reset(0.0)

    assert machine.report(ticket, verdict, NOW + 6.0) is None
    seen = machine.view(NOW + 6.0)
    assert (seen.state, seen.control, seen.calls, seen.consecutive) == (State.CLOSED, Control.AUTO, 0, 0)
    assert machine.admit(NOW + 6.0) != REFUSED


@pytest.mark.parametrize("word", ["reset", "auto"])
def test_a_shadow_breaker_stays_one(word: str) -> None:
    """Taking an operator's word away leaves what the configuration says, which here is to refuse nobody."""
    machine = breaker(mode="metrics_only")
    machine.override(Control.FORCED_OPEN)

    if word == "reset":
        machine.reset(0.0)
    else:
        machine.override(Control.AUTO)
    run(machine, "t")

    assert machine.admit(NOW) == SHADOWED


@pytest.mark.parametrize(
    ("mode", "control", "at_rest"),
    [
        ("on", Control.AUTO, True),
        ("on", Control.FORCED_OPEN, False),
        ("on", Control.FORCED_CLOSED, False),
        ("on", Control.METRICS_ONLY, False),
        ("metrics_only", Control.AUTO, True),
        ("metrics_only", Control.METRICS_ONLY, True),
    ],
)
def test_what_may_be_forgotten(mode: str, control: Control, at_rest: bool) -> None:
    """A closed circuit, unless an operator has said something about it."""
    machine = breaker(mode=mode)
    machine.override(control)

    assert machine.at_rest is at_rest
    machine.override(Control.AUTO)
    run(machine, "t")
    assert not machine.at_rest


def test_who_is_a_probe() -> None:
    """The caller that was let through to see, for as long as nobody knows; no caller of another time."""
    machine = breaker()
    before = machine.admit(NOW)
    run(machine, "t")
    ticket = machine.admit(NOW + 5.0)

    assert [machine.is_probe(before), machine.is_probe(ticket)] == [False, True]
    machine.report(ticket, SUCCESS, NOW + 5.0)
    assert [machine.is_probe(ticket), machine.is_probe(machine.admit(NOW + 5.0))] == [False, False]


def test_a_shadow_probe_that_hangs_makes_room_when_its_lease_is_over() -> None:
    """Not before, and from that very moment on."""
    machine = breaker(mode="metrics_only", probe_lease=2.0)
    run(machine, "t")
    first = machine.admit(NOW + 5.0)

    assert machine.admit(NOW + 6.999) == SHADOWED
    second = machine.admit(NOW + 7.0)
    assert machine.is_probe(first)
    assert machine.is_probe(second)
    assert second != first


def test_a_reset_of_a_closed_circuit_makes_late_what_is_under_way() -> None:
    """Its answers would be about what was forgotten."""
    machine = breaker()
    early = machine.admit(NOW)

    machine.reset(NOW)

    assert machine.report(early, TRIP, NOW) is None
    assert machine.state is State.CLOSED
    assert machine.report(machine.admit(NOW), TRIP, NOW) is not None
