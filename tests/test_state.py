"""The store in memory: its four questions, in the order in which a call asks them, and what it forgets."""

from __future__ import annotations

import threading

import pytest

from facts import FAILED, HOST, INVALID, LOST, MODEL, OK, UNAVAILABLE, UNREACHABLE, limited
from gip_resilience.breaker import Control, State, Transition
from gip_resilience.config import BreakerConfig, Config, GateConfig
from gip_resilience.gate import Held
from gip_resilience.state import MAX_KEYS, CircuitKey, MemoryStore, Permit, Refused, Reported, ScopeKey
from gip_resilience.taxonomy import Fact, Verdict

NOW = 1000.0
KEY = ScopeKey(HOST, "credential", MODEL)
OTHER_MODEL = ScopeKey(HOST, "credential", "azure/openai/gpt-5")
OTHER_ACCOUNT = ScopeKey(HOST, "someone else", MODEL)
OTHER_HOST = ScopeKey("elsewhere.example", "credential", MODEL)
CONFIG = Config(breaker=BreakerConfig(open_jitter=0.0))


class Scene:
    """A store, and calls against it."""

    def __init__(self, config: Config = CONFIG, max_keys: int = MAX_KEYS) -> None:
        self.config = config
        self.store = MemoryStore(chance=lambda: 0.5, max_keys=max_keys)

    def ask(self, key: ScopeKey = KEY, now: float = NOW, *, first: bool = True) -> Permit | Held | Refused:
        """May a request be sent?"""
        return self.store.acquire(key, self.config, now, first=first)

    def admitted(self, key: ScopeKey = KEY, now: float = NOW) -> Permit:
        """A permit; it must be given."""
        answer = self.ask(key, now)
        assert isinstance(answer, Permit), answer
        return answer

    def tell(self, permit: Permit, fact: Fact, key: ScopeKey = KEY, now: float = NOW) -> Reported:
        """What became of it."""
        return self.store.report(key, permit, fact, fact.host, fact.model, now)

    def run(self, fact: Fact, times: int = 1, key: ScopeKey = KEY, now: float = NOW) -> Reported:
        """Calls that all end with *fact*; what the last one changed."""
        return [self.tell(self.admitted(key, now), fact, key, now) for _ in range(times)][-1]

    def state(self, key: ScopeKey, *, model: bool = True, now: float = NOW) -> State:
        """The state of a circuit."""
        return self.store.circuits(now)[CircuitKey(key.host, key.model if model else "")].state


@pytest.mark.parametrize(
    ("fact", "host", "model"),
    [
        (UNREACHABLE, State.OPEN, State.CLOSED),
        (FAILED, State.CLOSED, State.OPEN),
        (LOST, State.CLOSED, State.OPEN),
    ],
    ids=["unreachable", "model failed", "connection lost"],
)
def test_each_circuit_has_its_own_evidence(fact: Fact, host: State, model: State) -> None:
    """What an intermediary can cause opens the host's circuit, what a model does opens that model's."""
    scene = Scene()
    scene.run(fact, 5)

    assert (scene.state(KEY, model=False), scene.state(KEY)) == (host, model)


@pytest.mark.parametrize("fact", [limited(), limited(0.0), INVALID], ids=["429", "429 now", "400"])
def test_what_is_no_evidence_opens_nothing(fact: Fact) -> None:
    """Rate limits and refused requests say that the host is well."""
    scene = Scene(Config(gate=GateConfig(mode="off")))
    scene.run(fact, 100)

    assert {view.state for view in scene.store.circuits(NOW).values()} == {State.CLOSED}


def test_a_trip_opens_one_model_for_everybody_on_that_host() -> None:
    """Circuits are not about accounts."""
    scene = Scene()
    scene.run(UNAVAILABLE)

    assert isinstance(scene.ask(KEY), Refused)
    assert isinstance(scene.ask(OTHER_ACCOUNT), Refused)
    assert isinstance(scene.ask(OTHER_MODEL), Permit)
    assert isinstance(scene.ask(OTHER_HOST), Permit)


def test_an_open_host_refuses_all_its_models() -> None:
    """And names the circuit that is in the way."""
    scene = Scene()
    scene.run(UNREACHABLE, 5)

    assert scene.ask(OTHER_MODEL) == Refused(CircuitKey(HOST), 5.0)
    assert isinstance(scene.ask(OTHER_HOST), Permit)


def test_a_request_without_a_model_has_the_hosts_circuit_alone() -> None:
    """There is no circuit of nobody."""
    scene = Scene()
    scene.run(UNAVAILABLE, key=ScopeKey(HOST, "", ""))

    assert set(scene.store.circuits(NOW)) == {CircuitKey(HOST)}


@pytest.mark.parametrize(
    ("scope", "key", "held"),
    [
        ("model", KEY, True),
        ("model", OTHER_MODEL, False),
        ("model", OTHER_ACCOUNT, False),
        ("model", OTHER_HOST, False),
        ("credential", OTHER_MODEL, True),
        ("credential", OTHER_ACCOUNT, False),
        ("credential", OTHER_HOST, False),
    ],
)
def test_who_shares_a_gate(scope: str, key: ScopeKey, held: bool) -> None:
    """The calls of one account and one model, or all calls of one account, as configured."""
    scene = Scene(Config.from_dict({"gate": {"scope": scope}}))
    reported = scene.run(limited(10.0))
    assert reported == Reported(gate_wait=12.5)

    assert isinstance(scene.ask(key), Held) is held


def test_a_gate_that_is_off_holds_nobody() -> None:
    """Every call waits for itself."""
    scene = Scene(Config(gate=GateConfig(mode="off")))
    scene.run(limited(10.0))

    assert isinstance(scene.ask(), Permit)


def test_the_gate_comes_before_the_circuits() -> None:
    """A caller who is held takes no probe slot."""
    scene = Scene()
    under_way = scene.admitted()
    scene.run(UNAVAILABLE)
    scene.tell(under_way, limited(60.0))

    assert isinstance(scene.ask(now=NOW + 30.0), Held)
    assert scene.state(KEY) is State.OPEN
    probe = scene.admitted(now=NOW + 60.0)
    assert probe.probe


def test_a_refusing_model_gives_the_hosts_probe_slot_back() -> None:
    """The host's probe is for a call that is made."""
    scene = Scene()
    scene.run(UNREACHABLE, 4)
    late = scene.admitted()
    scene.run(UNAVAILABLE)
    scene.store.report(KEY, late, UNREACHABLE, Verdict.TRIP, Verdict.NEUTRAL, NOW)
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, CONFIG)

    assert isinstance(scene.ask(now=NOW + 5.0), Refused)

    probe = scene.admitted(OTHER_MODEL, NOW + 5.0)
    assert probe.probe
    assert probe.host.is_probe(probe.host_ticket)


@pytest.mark.parametrize("end", ["abandon", "400", "429"])
def test_a_probe_without_a_verdict_frees_its_slot(end: str) -> None:
    """Cancelled, refused or rate-limited: the model's circuit learns nothing and the next caller probes."""
    scene = Scene(Config(breaker=BreakerConfig(open_jitter=0.0), gate=GateConfig(mode="off")))
    scene.run(UNAVAILABLE)
    probe = scene.admitted(now=NOW + 5.0)
    assert isinstance(scene.ask(now=NOW + 5.0), Refused)

    if end == "abandon":
        scene.store.abandon(probe, NOW + 6.0)
    else:
        scene.tell(probe, INVALID if end == "400" else limited(), now=NOW + 6.0)

    assert scene.state(KEY) is State.HALF_OPEN
    assert scene.admitted(now=NOW + 6.0).probe


def test_a_probe_of_the_host_that_is_abandoned_frees_its_slot() -> None:
    """The host's circuit has the same rule as a model's."""
    scene = Scene()
    scene.run(UNREACHABLE, 5)
    probe = scene.admitted(now=NOW + 5.0)
    assert isinstance(scene.ask(OTHER_MODEL, NOW + 5.0), Refused)

    scene.store.abandon(probe, NOW + 5.0)

    assert scene.state(KEY, model=False) is State.HALF_OPEN
    assert scene.admitted(OTHER_MODEL, NOW + 5.0).probe


def test_a_late_success_does_not_close_an_open_circuit() -> None:
    """It was sent before the circuit opened."""
    scene = Scene()
    late = scene.admitted()
    scene.run(UNAVAILABLE)

    assert scene.tell(late, OK, now=NOW + 1.0) == Reported()
    assert scene.state(KEY) is State.OPEN


def test_a_late_failure_does_not_open_a_mended_circuit() -> None:
    """It was sent before the circuit opened, and the probe that closed it knew better."""
    scene = Scene()
    late = scene.admitted()
    scene.run(UNAVAILABLE)
    scene.tell(scene.admitted(now=NOW + 5.0), OK, now=NOW + 5.0)

    assert scene.tell(late, UNAVAILABLE, now=NOW + 6.0).changes == ()
    assert scene.state(KEY) is State.CLOSED


def test_a_report_says_how_long_the_circuit_in_the_way_stays_open() -> None:
    """Also to a call whose own report did not open it: a retry would be refused."""
    scene = Scene()
    late = scene.admitted()
    opened = scene.run(UNAVAILABLE)
    assert opened.open_for == 5.0
    assert [(circuit, change.after) for circuit, change in opened.changes] == [
        (CircuitKey(HOST, MODEL), State.OPEN)
    ]

    assert scene.tell(late, FAILED, now=NOW + 2.0) == Reported(open_for=3.0)


def test_of_many_answers_under_way_one_is_news() -> None:
    """Fifty requests that were sent before the gate closed tell it one thing."""
    scene = Scene()
    permits = [scene.admitted() for _ in range(50)]

    news = [scene.tell(permit, limited()).gate_news for permit in permits]

    assert news == [True] + [False] * 49
    held = scene.ask()
    assert isinstance(held, Held)
    assert held.retry_after == 2.0


def test_breaker_off_asks_no_circuit() -> None:
    """And teaches none."""
    scene = Scene(Config(breaker=BreakerConfig(mode="off")))
    scene.run(UNAVAILABLE, 20)

    assert isinstance(scene.ask(), Permit)
    assert {view.calls for view in scene.store.circuits(NOW).values()} == {0}


def test_an_operators_word_counts_where_breakers_are_off() -> None:
    """Off means that nothing is learned; a circuit that is forced open refuses all the same, until it is let go."""
    scene = Scene(Config(breaker=BreakerConfig(mode="off")))
    permit = scene.admitted()
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, scene.config)

    assert scene.ask() == Refused(CircuitKey(HOST, MODEL), 5.0)
    assert scene.tell(permit, FAILED).open_for == 0.0
    scene.store.control(CircuitKey(HOST, MODEL), Control.AUTO, scene.config)
    assert isinstance(scene.ask(), Permit)


def test_a_circuit_becomes_half_open_once_however_many_probes_there_are() -> None:
    """The first probe changes the state, and its permit says so; a second one, after a hung first, does not."""
    scene = Scene()
    scene.run(UNAVAILABLE)

    first = scene.admitted(now=NOW + 6.0)
    second = scene.admitted(now=NOW + 12.0)

    changed = CircuitKey(HOST, MODEL), Transition(State.OPEN, State.HALF_OPEN, "probe")
    assert (first.probe, first.changes) == (True, (changed,))
    assert (second.probe, second.changes) == (True, ())


def test_the_budget_is_one_per_scope() -> None:
    """What one model's outage costs is not taken from another's calls."""
    scene = Scene()
    while scene.store.withdraw(KEY, scene.config, 1.0, NOW):
        pass

    assert scene.store.withdraw(OTHER_MODEL, scene.config, 1.0, NOW)
    scene.run(OK, 6)
    assert scene.store.withdraw(KEY, scene.config, 1.0, NOW)
    assert not scene.store.withdraw(KEY, scene.config, 1.0, NOW)


def test_retries_do_not_count_as_calls() -> None:
    """The capacity follows what users ask for, not what retries make of it."""
    scene = Scene()
    permit = scene.admitted()
    for number in range(1, 200):
        scene.ask(now=NOW + number / 10, first=False)
    scene.ask(now=NOW + 20.0)

    assert permit.budget.capacity == 2.0


def test_operators_need_no_call_to_have_been_made() -> None:
    """A circuit is there as soon as something is said about it."""
    scene = Scene()
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, CONFIG)

    assert isinstance(scene.ask(), Refused)
    scene.store.reset(CircuitKey(HOST, MODEL))
    assert isinstance(scene.ask(), Permit)


def test_reset_without_a_name_resets_all() -> None:
    """Every circuit of every host."""
    scene = Scene()
    for key in (KEY, OTHER_MODEL, OTHER_HOST):
        scene.run(UNAVAILABLE, key=key)

    scene.store.reset(None)

    assert all(isinstance(scene.ask(key), Permit) for key in (KEY, OTHER_MODEL, OTHER_HOST))


# ---- forgetting ------------------------------------------------------------------------------------------


def flood(scene: Scene, count: int, fact: Fact = OK) -> None:
    """Calls for made-up models."""
    for number in range(count):
        scene.run(fact, key=ScopeKey(HOST, "credential", f"made-up-{number}"))


def test_ten_thousand_names_do_not_fill_the_memory() -> None:
    """Scopes, circuits and gates stay bounded."""
    scene = Scene()
    flood(scene, 10_000)

    store = scene.store
    assert len(store._lines) <= MAX_KEYS
    assert len(store._circuits) <= MAX_KEYS + 1
    assert len(store._gates) <= MAX_KEYS


def test_what_is_open_or_closed_outlives_a_flood() -> None:
    """An open circuit, a closed gate and an operator's word are not lost to ten thousand other names."""
    scene = Scene()
    scene.run(UNAVAILABLE, key=OTHER_HOST)
    scene.run(limited(60.0), key=OTHER_ACCOUNT)
    scene.store.control(CircuitKey("third.example"), Control.FORCED_OPEN, CONFIG)
    probe = scene.admitted(OTHER_HOST, NOW + 5.0)

    flood(scene, 10_000)

    assert isinstance(scene.ask(OTHER_ACCOUNT, NOW + 5.0), Held)
    assert isinstance(scene.ask(ScopeKey("third.example", "", "")), Refused)
    assert isinstance(scene.ask(OTHER_HOST, NOW + 5.0), Refused)
    scene.tell(probe, OK, OTHER_HOST, NOW + 5.0)
    assert isinstance(scene.ask(OTHER_HOST, NOW + 5.0), Permit)


def test_a_scope_in_use_outlives_a_flood() -> None:
    """Its budget is not refilled by being forgotten."""
    scene = Scene()
    while scene.store.withdraw(KEY, scene.config, 1.0, NOW):
        pass
    for number in range(10_000):
        scene.run(INVALID, key=ScopeKey(HOST, "", f"made-up-{number}"))
        if number % 100 == 0:
            scene.ask()

    assert not scene.store.withdraw(KEY, scene.config, 1.0, NOW)


def test_even_open_circuits_are_bounded() -> None:
    """When every made-up name trips, the oldest of them go; the host's own, which all share, does not."""
    scene = Scene(max_keys=64)
    first = scene.admitted()
    flood(scene, 1000, UNAVAILABLE)
    scene.tell(first, OK)

    assert len(scene.store._circuits) <= 3 * 64
    assert scene.admitted(OTHER_MODEL).host is first.host
    assert isinstance(scene.ask(ScopeKey(HOST, "credential", "made-up-999")), Refused)


def test_an_operators_word_outlives_even_that() -> None:
    """It is the oldest circuit of all, and stays."""
    scene = Scene(max_keys=64)
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, CONFIG)
    flood(scene, 1000, UNAVAILABLE)

    assert isinstance(scene.ask(), Refused)


# ---- threads ---------------------------------------------------------------------------------------------


def test_one_probe_for_many_threads() -> None:
    """Half-open, fifty threads ask at the same moment, one is let through."""
    scene = Scene()
    scene.run(UNAVAILABLE)
    start = threading.Barrier(50)
    answers: list[object] = []

    def ask() -> None:
        start.wait(10)
        answers.append(scene.ask(now=NOW + 5.0))

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert sum(isinstance(answer, Permit) for answer in answers) == 1
    assert sum(isinstance(answer, Refused) for answer in answers) == 49
