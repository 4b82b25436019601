"""The simulation that ``gip-resilience simulate`` runs: it adds up, and it is the shipped engine that runs in it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gip_resilience as gr
from gip_resilience import _splice, engine
from gip_resilience.config import ConfigError
from gip_resilience.facts import POLICY_CLASSES
from gip_resilience.recovery import Action, Decision
from gip_resilience.simulation.clockwork import Ended, Trace
from gip_resilience.simulation.fleets import Naive, Ours, Rival
from gip_resilience.simulation.measures import NEVER, read_off
from gip_resilience.simulation.runs import compare, one, run
from gip_resilience.simulation.scenarios import SHIPPED, FaultKind, Scenario
from gip_resilience.simulation.streams import DONE, Spoken, speak, stream
from gip_resilience.simulation.troubles import Streams, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.simulation.clockwork import Clock

STEADY: dict[str, Any] = {"breaker": {"mode": "off"}, "budget": {"mode": "off"}, "gate": {"mode": "off"}}


class Least:
    """Chance that always says 0: every jitter is none."""

    def random(self) -> float:
        return 0.0


def ours(**settings: Any) -> Callable[[Clock, int, random.Random], Ours]:
    """Clients with the shipped engine, without jitter."""
    config = gr.Config.from_dict(settings)
    return lambda clock, clients, _: Ours(config, clock, clients, Least())  # type: ignore[arg-type]


def figures(scenario: Scenario, config: gr.Config | Rival, seed: int = 1) -> Any:
    """What is measured of one run."""
    traffic = scenario.traffic
    return run(
        scenario.trouble("x"), config, name="x", clients=traffic.clients, seed=seed, deadline=traffic.deadline
    ).figures


# ---- by hand -----------------------------------------------------------------------------------------------

LONELY = Trouble(
    "lonely", "refuse", load=0.1, start=25.0, length=30.0, after=15.0, slots=1, spread=0.0, even=True
)
"""One client that calls at 10, 20, ... 60 s; the gateway refuses in 5 ms from 25 to 55 s, and else serves in 1 s."""

FOUR = {"policies": {"intermediary": {"base_delay": 4, "max_delay": 4, "wait": "constant", "jitter": "none"}}}


def test_an_outage_by_hand() -> None:
    """Three attempts 4 s after each refusal: the call at 50 s meets the end of the outage with its third."""
    trace, tally = one(LONELY, ours(**STEADY, **FOUR), 1, 1)

    assert [tuple(round(value, 9) for value in call[:4]) for call in trace.ended] == [
        (10, 11, True, 1),
        (20, 21, True, 1),
        (30, 38.015, False, 3),  # 30, 34.005, 38.010
        (40, 48.015, False, 3),
        (50, 59.010, True, 3),  # 50, 54.005, 58.010
        (60, 61, True, 1),
    ]
    busy = {at / 10: count for at, count in enumerate(trace.sends) if count}
    assert busy == dict.fromkeys([10, 20, 30, 34, 38, 40, 44, 48, 50, 54, 58, 60], 1)
    assert tally["given_up"] == {"failure: all 3 attempts used": 2}


def test_callers_without_a_library_by_hand() -> None:
    """Three naive retries half a second after each refusal, and none at all."""
    naive, _ = one(LONELY, Naive().fleet, 1, 1)
    none, _ = one(LONELY, Rival().fleet, 1, 1)

    assert [round(call.ended, 9) for call in naive.ended] == [11, 21, 31.52, 41.52, 51.52, 61]
    assert [call.sends for call in naive.ended] == [1, 1, 4, 4, 4, 1]
    assert [round(call.ended, 9) for call in none.ended] == [11, 21, 30.005, 40.005, 50.005, 61]


def test_a_circuit_by_hand() -> None:
    """Five failures open the circuit, in the second attempt of the second call; the next call finds it open.

    At 30: 30, 34.005, 38.010. At 40: 40, 44.005, and that was the fifth. Open for 15 s - 20 % (the least chance), to
    56.010: the call at 50 is refused at once, and the one at 60 is sent.
    """
    configuration = {**STEADY, **FOUR, "breaker": {"open_time": 15, "consecutive": 5}}
    trace, tally = one(LONELY, ours(**configuration), 1, 1)

    assert [(round(call.ended, 9), call.sends) for call in trace.ended[2:]] == [
        (38.015, 3),
        (44.010, 2),
        (50, 0),
        (61, 1),
    ]
    assert tally["opened"] == {"host: consecutive failures": 1}


def test_a_reset_by_hand() -> None:
    """Two requests in 40 s: the third call is told at 30.005 to come back in 9.995 s, and is served at 40."""
    limited = replace(LONELY, fault="none", start=0.0, length=40.0, after=15.0, slots=9, limit=2, window=40.0)
    trace, _ = one(limited, ours(), 1, 1)

    assert [(call.arrived, round(call.ended, 9), call.sends) for call in sorted(trace.ended)] == [
        (10, 11, 1),
        (20, 21, 1),
        (30, 41, 2),
        (40, 41, 1),
        (50, 80 + 1, 2),  # 50.005 + 29.995
    ]
    assert trace.limited == 2


def test_silence_by_hand() -> None:
    """Nothing comes back: the client gives an attempt up after 10 s, and may send once more."""
    config = {**STEADY, "policies": {"timeout": {"jitter": "none", "base_delay": 0.5}}}
    trace, _ = one(replace(LONELY, fault="silence"), ours(**config), 1, 1)

    waited = {call.arrived: (round(call.ended, 9), call.succeeded, call.sends) for call in trace.ended}
    assert waited[30] == (50.5, False, 2)  # 30, 40.5
    assert waited[50] == (62, True, 2)  # 50, 60.5: the call of 60 has the one slot until 61


def test_a_deadline_cuts_a_call_short() -> None:
    """A wait that would end past it is not begun; the scenario's counts where the configuration has none."""
    config = gr.Config.from_dict({**STEADY, **FOUR})
    patient, hasty = (
        run(LONELY, config, name="x", clients=1, seed=1, deadline=deadline) for deadline in (60.0, 5.0)
    )
    own = run(LONELY, config.replace(deadline=60.0), name="x", clients=1, seed=1, deadline=5.0)

    assert patient.figures.requests == own.figures.requests == 12
    assert hasty.figures.requests == 9  # 30, 34; 40, 44; 50, 54


# ---- it is the shipped engine ------------------------------------------------------------------------------

SMALL = Scenario.shipped("outage").changed(clients=20, minutes=4)
BROWN = Scenario.shipped("brownout").changed(clients=40, minutes=5)
STREAMED = Scenario.shipped("streams").changed(clients=100, minutes=5)


def test_another_policy_another_table() -> None:
    """What the table says follows the configuration."""
    fewer = gr.Config(policies={"intermediary": gr.Policy(max_attempts=1)})
    assert figures(SMALL, fewer).sends <= 1.0 < figures(SMALL, gr.Config()).sends
    eager = gr.Config.from_dict({"budget": {"deposit": 1.0}, "breaker": {"mode": "off"}})
    assert figures(BROWN, eager).success > figures(BROWN, gr.Config()).success


def test_one_process_knows_what_all_its_clients_met() -> None:
    """Clients that share a process share its circuit."""
    trouble = SMALL.trouble("x")
    own, shared = (
        run(trouble, gr.Config(), name="x", clients=20, seed=1, deadline=60.0, processes=processes).figures
        for processes in (0, 1)
    )
    assert shared.sends < own.sends / 2


def test_a_broken_engine_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own decisions are what the simulation shows: without them it shows something else."""
    whole = figures(BROWN, gr.Config())
    monkeypatch.setattr(engine.Call, "_exhausted", lambda *_: "broken on purpose")
    broken = figures(BROWN, gr.Config())
    assert broken.sends == 1.0 < whole.sends
    assert broken.success < whole.success


def test_a_broken_recovery_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done about a stream that breaks is decided by the shipped table of recovery."""
    whole = figures(STREAMED, gr.Config())
    monkeypatch.setattr(_splice, "decide", lambda *_: Decision(Action.FAIL, "broken on purpose"))
    broken = figures(STREAMED, gr.Config())
    assert broken.success < whole.success
    assert broken.sends == 1.0 < whole.sends


def test_every_way_to_mend_a_stream_is_met() -> None:
    """Breaks fall before the first word, among the words, and behind the last; nobody is told less than was said."""
    scenario = Scenario.from_dict(
        {
            "minutes": 4,
            "traffic": {"clients": 60, "call_every": 15},
            "gateway": {"answers": "streams", "service": 2, "capacity": 3},
            "streams": {"words": 4, "repeatable": 0.7, "divergent": 0.3},
            "fault": {"kind": "streams", "share": 0.5, "start": 10, "length": 120},
        }
    )
    config = gr.Config.from_dict({"breaker": {"mode": "off"}, "budget": {"mode": "off"}})
    result = run(scenario.trouble("x"), config, name="x", clients=60, seed=1, deadline=60.0)
    bare = figures(scenario, Rival())
    hops = result.tally["streams"]

    assert {hop.partition(":")[0] for hop in hops} == {"replay", "restart", "marker", "fail"}
    assert any(hop.endswith(": stream_diverged") for hop in hops)
    assert result.figures.silent == 0 < bare.silent
    assert result.figures.success > bare.success
    never = config.replace(stream=gr.StreamConfig(replay="never"))
    assert figures(scenario, never).success < result.figures.success


def test_a_silent_stream_is_given_up_when_the_policy_says_so() -> None:
    """``stream.idle_timeout`` goes on virtual time, too."""
    stalling = replace(
        STREAMED.trouble("x"), share=1.0, streams=Streams(words=8, repeatable=1.0, breaks=("stall",))
    )
    impatient = gr.Config.from_dict({"stream": {"idle_timeout": 3}})
    slow, quick = (
        run(stalling, config, name="x", clients=100, seed=1, deadline=60.0).figures
        for config in (gr.Config(), impatient)
    )
    assert quick.p99 is not None
    assert slow.p99 is not None
    assert quick.p99 < slow.p99


# ---- the gateway's streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["", "end", "reset", "stall", "error"])
def test_a_stream_in_pieces(how: Any) -> None:
    """Pieces make up the body, in order of time; a whole answer is known as one, and a part of one is not."""
    shape = Streams(words=5, breaks=(how,) if how else ())
    for seed in range(20):
        spoken = speak(
            shape, random.Random(seed), began=1.0, length=4.0, attempt=1, repeatable=True, breaks=bool(how)
        )
        pieces = []
        while (found := spoken.piece(len(pieces)))[1] is not None:
            pieces.append(found)
        assert b"".join(piece for _, piece in pieces if piece) == spoken.body
        assert [at for at, _ in pieces] == sorted(at for at, _ in pieces)
        assert found[0] >= (pieces[-1][0] if pieces else 1.0) or how == "error"
        assert (found[0] == NEVER) == (how == "stall")
        if not how:
            assert spoken.body == stream(5, 0, 1)
            assert Spoken.whole(spoken.body, shape)
    whole = stream(5, 2, 1).removesuffix(DONE)
    assert Spoken.whole(whole, shape)
    assert not Spoken.whole(whole[:-120], shape)
    assert not Spoken.whole(whole + whole, shape)


# ---- properties --------------------------------------------------------------------------------------------

FAULTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["refuse", "silence", "errors", "hang", "load", "streams"]),
        "start": st.sampled_from([0, 7, 20]),
        "length": st.sampled_from([1, 20, 45]),
        "share": st.floats(0, 1),
        "status": st.sampled_from([429, 500, 502, 503, 504]),
        "code": st.sampled_from(["none", "model_overloaded", "model_unavailable", "no_such_code"]),
        "load": st.floats(1, 4),
        "period": st.sampled_from(["none", 3]),
    }
)
SCENARIOS = st.builds(
    lambda fault, clients, every, rate: Scenario.from_dict(
        {
            "minutes": 2.5,
            "traffic": {"clients": clients, "call_every": every},
            "gateway": {"answers": "streams" if fault["kind"] == "streams" else "plain", "queue": 2},
            "limit": {"rate": rate},
            "fault": fault,
        }
    ),
    FAULTS,
    st.integers(1, 8),
    st.floats(2, 20),
    st.sampled_from(["none", 0.5, 1.0]),
)


@settings(max_examples=40, deadline=None)
@given(SCENARIOS, st.integers(0, 3), st.integers(1, 4))
def test_calls_are_conserved(scenario: Scenario, seed: int, attempts: int) -> None:
    """Issued is succeeded plus failed, under every policy; none is left open; and nobody sends more than it may."""
    limited = gr.Config(
        policies={group: gr.Policy(max_attempts=attempts) for group in POLICY_CLASSES},
    )
    for policy, most in ((limited, attempts), (Naive(), 4), (Rival(), 1)):
        trouble = scenario.trouble("x")
        fleet_of: Any = (
            policy.fleet
            if isinstance(policy, Rival)
            else lambda clock, clients, chance: Ours(limited, clock, clients, chance)
        )
        trace, tally = one(trouble, fleet_of, scenario.traffic.clients, seed)
        found = read_off(trouble, trace)
        assert found.issued == found.succeeded + found.failed == len(trace.ended) == sum(trace.arrivals)
        assert found.requests == sum(call.sends for call in trace.ended)
        assert max((call.sends for call in trace.ended), default=0) <= most
        if isinstance(policy, gr.Config):
            assert sum(tally["given_up"].values()) == found.failed
            assert found.silent == 0


@settings(max_examples=15, deadline=None)
@given(SCENARIOS, st.integers(0, 3))
def test_a_seed_is_a_run(scenario: Scenario, seed: int) -> None:
    """The same seed gives the same results, and every policy meets the same calls at the same moments."""
    first, again = (
        compare(scenario.trouble("x"), {}, clients=scenario.traffic.clients, seed=seed, deadline=60.0)
        for _ in range(2)
    )
    assert first == again
    assert len({tuple(result.arrivals) for result in first}) == 1


# ---- figures -----------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    """Ten calls a second, a fault of 10 s in which every second call fails, and 5 s more until all is well."""
    trouble = Trouble("x", "refuse", load=10.0, start=20.0, length=10.0, after=90.0)
    trace = Trace(200)
    for second in range(120):
        for number in range(10):
            failed = 20 <= second < 35 and number % 2 == 0
            trace.ended.append(Ended(second, second + (0.5 if number < 9 else 2.0), not failed, 3, 0))
            trace.arrivals[second] += 1
            trace.goodput[second] += not failed
            trace.sends[second * 10 + number] += 3
    trace.calls = 1200
    found = read_off(trouble, trace)

    assert (found.calls, found.sends, found.success, found.goodput) == (100, 3.0, 0.5, 0.5)
    assert found.after == (5 * 5 + 55 * 10) / 600
    assert found.recovery == 5.0
    assert (found.p50, found.p99, found.peak) == (0.5, 2.0, 3.0)
    assert (found.issued, found.succeeded, found.failed, found.requests) == (1200, 1125, 75, 3600)


def test_a_fault_that_comes_again() -> None:
    """It is on each time, its borders are where the traffic changes, and the last one must leave a minute."""
    trouble = Trouble("x", "refuse", start=10.0, length=5.0, after=205.0, every=100.0, fault_load=800.0)

    assert trouble.faults(60.0) == [(10.0, 15.0), (110.0, 115.0)]
    assert trouble.faults() == [(10.0, 15.0), (110.0, 115.0), (210.0, 215.0)]
    assert [trouble.faulty(now) for now in (9, 10, 14.9, 15, 109, 110, 114, 115)] == [
        False, True, True, False, False, True, True, False,
    ]  # fmt: skip
    assert [trouble.border(now) for now in (0, 10, 15, 110, 114)] == [10, 15, 110, 115, 115]
    assert (trouble.rate(12), trouble.rate(50), trouble.rate(112)) == (800, 400, 800)


# ---- scenarios ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios(name: str) -> None:
    """Each is an hour, has more than one fault in it, and survives being written down."""
    scenario = Scenario.shipped(name)
    assert len(scenario.trouble(name).faults(60.0)) == 5
    assert (scenario.minutes, scenario.traffic.clients) == (60, 1000)
    assert Scenario.from_dict(scenario.to_dict()) == scenario


def test_size_follows_the_clients() -> None:
    """Twice the clients meet a gateway of twice the size."""
    small, large = (
        Scenario.shipped("ratelimit").changed(clients=clients).trouble("x") for clients in (300, 600)
    )
    assert (large.load, large.slots, large.queue, large.limit) == (40.0, 4000, 480, 800)
    assert (small.load, small.slots, small.queue, small.limit) == (20.0, 2000, 240, 400)


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({"minutes": 2}, "minutes", "expected float >= 4, for the fault and the minute after it, got 2.0"),
        ({"minuts": 2}, "minuts", 'expected a known setting, got "minuts" (did you mean "minutes"?)'),
        ({"traffic": 5}, "traffic", "expected a table, got 5"),
        ({"traffic": {"clients": 0}}, "traffic.clients", "expected int >= 1, got 0"),
        ({"traffic": {"clients": 10**6}}, "traffic.clients", "expected int >= 1 and <= 100000, got 1000000"),
        (
            {"traffic": {"call_every": 1e-9}},
            "traffic.call_every",
            "expected so many that no more than 20000000 calls are made, got 1e-09",
        ),
        ({"streams": {"words": 10**6}}, "streams.words", "expected int >= 1 and <= 10000, got 1000000"),
        (
            {"fault": {"kind": "streams"}},
            "gateway.answers",
            'expected "streams", as it is them that break, got "plain"',
        ),
        ({"fault": {"models": 2}}, "fault.models", "expected int <= gateway.models (1), got 2"),
        ({"fault": {"status": 600}}, "fault.status", "expected int >= 400 and <= 599, got 600"),
        (
            {"fault": {"code": "a b"}},
            "fault.code",
            'expected an error code of letters, digits and _, got "a b"',
        ),
        (
            {"fault": {"breaks": ["eof"]}},
            "fault.breaks",
            'expected some of "end", "reset", "stall", "error", got "eof"',
        ),
        (
            {"fault": {"every": 100}},
            "fault.every",
            "expected float >= fault.length + 60 (120), got 100.0",
        ),
        ({"gateway": {"capacity": 0}}, "gateway.capacity", "expected float > 0, got 0"),
    ],
)
def test_wrong_settings(values: dict[str, Any], path: str, message: str) -> None:
    """Every wrong setting is named, with what would do."""
    with pytest.raises(ConfigError) as caught:
        Scenario.from_dict(values)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {message}"


def test_breaks_must_be_some() -> None:
    """Streams that break in no way do not break."""
    with pytest.raises(ConfigError, match=r"fault\.breaks"):
        FaultKind(breaks=())
