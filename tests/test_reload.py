"""Another configuration while calls are under way: whole, at once, for those that start after it."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from facts import FAILED, HOST, MODEL, OK, UNAVAILABLE, limited
from gip_resilience import events
from gip_resilience.breaker import Control, State
from gip_resilience.config import BreakerConfig, BudgetConfig, Config, GateConfig, ObserveConfig
from gip_resilience.gate import Held
from gip_resilience.gateway import Error, FaultPlan, RateLimited
from gip_resilience.memory import MemoryStore
from gip_resilience.state import CircuitKey, Permit, Refused, ScopeKey
from gip_resilience.taxonomy import Verdict
from happenings import Witness
from harness import CHAT
from live import EXACT, Live

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway
    from gip_resilience.taxonomy import Fact
    from gip_resilience.testing import FakeClock
    from harness import Harness

KEY = ScopeKey(HOST, "credential", MODEL)
OTHER = ScopeKey(HOST, "credential", "another")
NOW = 1000.0
FIRST = Config(
    breaker=BreakerConfig(open_jitter=0.0),
    policies={"overload": gr.Policy(max_attempts=2, jitter="none")},
)


def path(gateway: Gateway) -> str:
    """Where to."""
    return gateway.url + "/v1/chat/completions"


# ---- calls -----------------------------------------------------------------------------------------------


def test_the_next_call_has_the_new_policy(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Under each client; and observers are told what differs."""
    witness = Witness()
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    brain = gr.Resilience(FIRST, clock=clock, observers=[witness])
    with harness.open(brain) as session:
        before = session.post(path(gateway)).report
        brain.reload(FIRST.replace(policies={"overload": gr.Policy(max_attempts=3)}, deadline=60.0))
        after = session.post(path(gateway)).report

    assert [len(before.attempts), len(after.attempts)] == [2, 3]
    assert witness.words.count("reloaded policies,deadline") == 1
    assert brain.metrics.snapshot().reloads == {"applied": 1}


def test_what_calls_share_takes_the_new_settings_too(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Circuits that exist: here one failure opens them from now on."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    brain = gr.Resilience(FIRST, clock=clock)
    with harness.open(brain) as session:
        session.post(path(gateway))
        states = [view.state for view in brain.breakers.all().values()]
        brain.reload(FIRST.replace(breaker=BreakerConfig(consecutive=1)))
        session.post(path(gateway))

    assert set(states) == {State.CLOSED}
    assert brain.breakers[gateway.url.removeprefix("http://"), MODEL].state is State.OPEN


class Reloader:
    """Puts another configuration in force in the middle of a call."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.brain: gr.Resilience | None = None

    def on_retry_scheduled(self, event: events.RetryScheduled) -> None:
        """Once."""
        brain, self.brain = self.brain, None
        if brain is not None:
            brain.reload(self.config)


def test_a_call_under_way_keeps_its_policy(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """From its first attempt to its last."""
    reloader = Reloader(Config(policies={"overload": gr.Policy(max_attempts=1)}))
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    reloader.brain = brain = gr.Resilience(FIRST, clock=clock, observers=[reloader])
    with harness.open(brain) as session:
        during = session.post(path(gateway)).report
        after = session.post(path(gateway)).report

    assert [len(during.attempts), len(after.attempts)] == [2, 1]


def test_a_stream_under_way_keeps_its_policy(harness: Harness, clock: FakeClock, gateway: Gateway) -> None:
    """Also where it breaks after the change."""
    from gip_resilience.gateway import BreakStream

    gateway.plan = FaultPlan.script([BreakStream(events=4)])
    brain = gr.Resilience(clock=clock)
    with harness.open(brain) as session, Live(session, path(gateway), EXACT) as live:
        live.take()
        brain.reload(Config(stream=gr.StreamConfig(mode="off")))
        content = live.read()
        report = gr.report(live.response)

    assert content.endswith(b"data: [DONE]\n\n")
    assert report is not None
    assert [hop.action for hop in report.hops] == ["replay"]


def test_what_an_override_says_goes_on_top(gateway: Gateway, clock: FakeClock, harness: Harness) -> None:
    """Of whichever configuration is in force."""
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    brain = gr.Resilience(FIRST, clock=clock)
    with harness.open(brain) as session, brain.override(model_overloaded=gr.Policy(max_attempts=4)):
        brain.reload(FIRST.replace(policies={"overload": gr.Policy(max_attempts=3)}))
        report = session.post(path(gateway)).report

    assert len(report.attempts) == 4


def test_each_call_sees_one_configuration_or_the_other(clock: FakeClock) -> None:
    """Eight threads begin calls while another goes back and forth; never a mixture."""
    one = Config(deadline=1.0, on_open="raise", policies={"overload": gr.Policy(max_attempts=1)})
    other = Config(deadline=2.0, on_open="respond", policies={"overload": gr.Policy(max_attempts=2)})
    brain = gr.Resilience(one, clock=clock)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            brain.reload(other)
            brain.reload(one)

    def begin() -> set[int]:
        return {id(brain.call("h", "", "m").config) for _ in range(2000)}

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            seen = set().union(*(future.result() for future in [pool.submit(begin) for _ in range(8)]))
    finally:
        done.set()
        swapper.join(10)

    assert seen <= {id(one), id(other)}


@pytest.mark.parametrize("config", [None, {}, "gip.toml", gr.Policy()])
def test_only_a_configuration_will_do(config: Any) -> None:
    """And the old one stays."""
    brain = gr.Resilience(FIRST)

    with pytest.raises(TypeError, match=r"expected a gip_resilience\.Config"):
        brain.reload(config)

    assert brain.config is FIRST


# ---- what calls share ------------------------------------------------------------------------------------


class Shared:
    """A store, and what is asked of it."""

    def __init__(self, config: Config = FIRST) -> None:
        self.config = config
        self.store = MemoryStore(chance=lambda: 0.5)

    def reload(self, **changes: Any) -> None:
        """Other settings."""
        self.config = self.config.replace(**changes)
        self.store.configure(self.config)

    def ask(self, key: ScopeKey = KEY, now: float = NOW) -> Permit | Held | Refused:
        """May a call go?"""
        return self.store.acquire(key, self.config, now, first=True)

    def run(self, fact: Fact, times: int = 1, key: ScopeKey = KEY, now: float = NOW) -> None:
        """Calls with this end."""
        for _ in range(times):
            permit = self.ask(key, now)
            assert isinstance(permit, Permit)
            self.store.report(key, permit, fact, fact.host, fact.model, now)

    def state(self, model: str = MODEL, now: float = NOW) -> State:
        """Of a model's circuit."""
        return self.store.circuits(now)[CircuitKey(HOST, model)].state


def test_an_open_circuit_stays_open_until_it_would_have_closed() -> None:
    """A shorter open time is for the next time."""
    shared = Shared()
    shared.run(UNAVAILABLE)

    shared.reload(breaker=BreakerConfig(open_time=1.0, open_jitter=0.0))

    assert shared.ask(now=NOW + 4.9) == Refused(CircuitKey(HOST, MODEL), pytest.approx(0.1))
    shared.run(UNAVAILABLE, now=NOW + 5.0)
    assert shared.ask(now=NOW + 5.5) == Refused(CircuitKey(HOST, MODEL), pytest.approx(0.5))


def test_what_a_circuit_has_counted_counts_for_the_new_thresholds() -> None:
    """Unless the window has other measures: then it begins anew."""
    for breaker, opens in (
        (BreakerConfig(consecutive=4), True),
        (BreakerConfig(consecutive=4, window=20.0), True),
        (BreakerConfig(min_calls=3, ratio=0.9), True),
        (BreakerConfig(min_calls=3, ratio=0.9, window=20.0), False),
    ):
        shared = Shared()
        shared.run(FAILED, 3)
        shared.reload(breaker=breaker)
        shared.run(FAILED, now=NOW + 1.0)
        assert (shared.state() is State.OPEN) is opens, breaker


@pytest.mark.parametrize("mode", ["off", "metrics_only"])
def test_a_mode_takes_effect_at_once(mode: Any) -> None:
    """For circuits, gates and budgets that exist; and back again."""
    shared = Shared()
    shared.run(UNAVAILABLE)
    shared.run(limited(60.0), key=OTHER)
    assert not isinstance(shared.ask(), Permit)
    assert isinstance(shared.ask(OTHER), Held)

    shared.reload(breaker=BreakerConfig(mode=mode), gate=GateConfig(mode=mode))
    assert isinstance(shared.ask(), Permit)
    assert isinstance(shared.ask(OTHER), Permit)

    shared.reload(breaker=FIRST.breaker, gate=FIRST.gate)
    assert isinstance(shared.ask(), Refused)
    assert isinstance(shared.ask(OTHER), Held)


def test_an_operators_word_holds() -> None:
    """A circuit that is forced open stays so, also when the mode changes."""
    shared = Shared()
    shared.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, shared.config, NOW)

    shared.reload(breaker=BreakerConfig(mode="metrics_only"))
    assert isinstance(shared.ask(), Refused)

    shared.store.control(CircuitKey(HOST, MODEL), Control.AUTO, shared.config, NOW)
    assert shared.store.circuits(NOW)[CircuitKey(HOST, MODEL)].control is Control.METRICS_ONLY


def test_a_half_spent_budget_is_half_spent() -> None:
    """Of a larger capacity too."""
    shared = Shared()
    shared.run(OK)
    for _ in range(5):
        assert shared.store.withdraw(KEY, shared.config, 1.0, NOW)

    shared.reload(budget=BudgetConfig(capacity=100.0))

    assert shared.store.budgets()[KEY] == (50.0, 100.0)
    assert shared.store.budgets()[ScopeKey(HOST, "", "")] == (150.0, 200.0)


def test_a_gate_of_another_scope_stays_closed() -> None:
    """Where limits turn out to be the credential's, the gate of one model is everybody's; and back."""
    shared = Shared()
    shared.run(OK, key=OTHER)
    shared.run(limited(60.0))
    assert isinstance(shared.ask(OTHER), Permit)

    shared.reload(gate=GateConfig(scope="credential"))
    held = shared.ask(OTHER, NOW + 1.0)
    assert isinstance(held, Held)
    assert held.seconds == pytest.approx(59.0)

    shared.reload(gate=GateConfig(scope="model"))
    assert isinstance(shared.ask(KEY, NOW + 2.0), Held)


def test_a_late_call_makes_nothing_by_the_old_settings() -> None:
    """It began before the change and asks for the first time after it."""
    shared = Shared()
    old = shared.config
    shared.reload(breaker=BreakerConfig(consecutive=1))

    permit = shared.store.acquire(KEY, old, NOW, first=True)
    assert isinstance(permit, Permit)
    shared.store.report(KEY, permit, FAILED, Verdict.NEUTRAL, FAILED.model, NOW)

    assert shared.state() is State.OPEN


def test_names_that_are_counted_stay_so() -> None:
    """Of others, as many as the new limit has room for."""
    brain = gr.Resilience(Config(observe=ObserveConfig(max_models=1)))
    for model in ("a", "b"):
        brain.metrics.succeeded("h", model, 0.1)
    brain.reload(Config(observe=ObserveConfig(max_models=2)))
    for model in ("a", "b", "c"):
        brain.metrics.succeeded("h", model, 0.1)

    calls = brain.metrics.snapshot().calls
    assert {key[1]: count for key, count in calls.items()} == {"a": 2, "other": 2, "b": 1}


# ---- shadows ---------------------------------------------------------------------------------------------


def test_a_shadow_gate_holds_nobody_and_counts_whom_it_would_have(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """Every call waits for itself, as if there were no gate."""
    config = Config(gate=GateConfig(mode="metrics_only"), policies={"rate_limit": gr.Policy(max_attempts=1)})
    gateway.plan = FaultPlan.script([RateLimited(30)])
    brain = gr.Resilience(config, clock=clock)
    with harness.open(brain) as session:
        answers = [session.post(path(gateway)) for _ in range(4)]

    assert [answer.status for answer in answers] == [429, 200, 200, 200]
    assert clock.slept == []
    seen = brain.metrics.snapshot()
    assert (seen.shadowed, sum(seen.gates.values())) == ({"gate": 3}, 1)
    assert len(seen.closed_gates) == 1


def test_a_shadow_budget_lets_retries_go_and_counts_them(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """What can be afforded is paid; what cannot is sent all the same."""
    budget = BudgetConfig(mode="metrics_only", capacity=4, min_capacity=4)
    config = Config(budget=budget, breaker=BreakerConfig(mode="off"))
    gateway.plan = FaultPlan.always(Error("model_overloaded"))
    brain = gr.Resilience(config, clock=clock, chance=lambda: 0.5)
    with harness.open(brain) as session:
        session.post(path(gateway), json={**CHAT, "model": "a"})
        session.post(path(gateway), json={**CHAT, "model": "a"})

    seen = brain.metrics.snapshot()
    assert (seen.sent(), seen.retries, seen.shadowed) == (8, 6, {"budget": 2})


# ---- followed files --------------------------------------------------------------------------------------


def test_a_brain_that_follows_a_file_pickles_with_it(tmp_path: Any, clock: FakeClock) -> None:
    """The copy follows it too."""
    file = tmp_path / "gip.toml"
    file.write_text("deadline = 5")
    brain = gr.Resilience(gr.Config.watch(file))

    copy = pickle.loads(pickle.dumps(brain))

    assert copy.config == brain.config == Config(deadline=5.0)
    assert repr(brain).startswith("Resilience(Config(")
