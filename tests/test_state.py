"""Every store, in memory or shared: its four questions, in the order a call asks them, and what it forgets."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from facts import FAILED, HOST, INVALID, LOST, MODEL, OK, UNAVAILABLE, UNREACHABLE, limited
from gip_resilience import _redis_link
from gip_resilience.breaker import Cause, Control, State, Transition
from gip_resilience.config import BreakerConfig, Config, GateConfig
from gip_resilience.events import CircuitChanged, GateClosed, GateOpened, ProbeSent
from gip_resilience.gate import Gate, Held, Place
from gip_resilience.hints import Hint
from gip_resilience.memory import MAX_KEYS
from gip_resilience.state import CircuitKey, Pending, Permit, Refused, Reported, ScopeKey
from gip_resilience.taxonomy import Fact, Verdict
from stores import KINDS, Kind, Timed, settle

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1000.0
KEY = ScopeKey(HOST, "credential", MODEL)
OTHER_MODEL = ScopeKey(HOST, "credential", "azure/openai/gpt-5")
OTHER_ACCOUNT = ScopeKey(HOST, "someone else", MODEL)
OTHER_HOST = ScopeKey("elsewhere.example", "credential", MODEL)
CONFIG = Config(breaker=BreakerConfig(open_jitter=0.0))


@pytest.fixture(scope="module", params=KINDS)
def kinds(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """One after the other; its servers run for as long as tests need them."""
    with Kind(request.param) as kind:
        yield kind


@pytest.fixture(autouse=True)
def kind(kinds: Kind, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of this holds of every store. Those that are shared live in a time of the test's."""
    monkeypatch.setattr(_redis_link, "load_scripts", lambda: Timed(lambda: kinds.now))
    monkeypatch.setattr(Scene, "kind", kinds)
    yield
    kinds.clean()


class Scene:
    """A store, and calls against it."""

    kind = Kind("memory")

    def __init__(self, config: Config = CONFIG, max_keys: int = MAX_KEYS) -> None:
        self.config = config
        self.now = NOW
        self.store = self.kind.make(lambda: 0.5, max_keys)

    def ask(
        self, key: ScopeKey = KEY, now: float = NOW, *, first: bool = True, place: Place | None = None
    ) -> Permit | Held | Refused:
        """May a request be sent? Where others are asked first, what comes of it."""
        self.be(now)
        answer = self.store.acquire(key, self.config, now, first=first, place=place)
        while isinstance(answer, Pending):
            settle(self.store, now)
            answer = self.store.acquire(key, self.config, now, first=False, place=place)
        return answer

    def be(self, now: float) -> None:
        """Time passes; what is under way to or from others arrives before it does."""
        if now != self.now:
            settle(self.store, self.now)
        self.now = now

    def gate(self, key: ScopeKey = KEY) -> Gate:
        """The gate that a scope leads to."""
        return self.admitted(key, NOW + 1e6).gate

    def stand(self, key: ScopeKey = KEY, now: float = NOW) -> Place:
        """A caller in line at a closed gate."""
        place = Place(now)
        assert isinstance(self.ask(key, now, place=place), Held)
        assert place.gate is not None
        return place

    def admitted(self, key: ScopeKey = KEY, now: float = NOW) -> Permit:
        """A permit; it must be given."""
        answer = self.ask(key, now)
        assert isinstance(answer, Permit), answer
        return answer

    def tell(
        self, permit: Permit, fact: Fact, key: ScopeKey = KEY, now: float = NOW, took: float = 0.0
    ) -> Reported:
        """What became of it."""
        self.be(now)
        reported = self.store.report(key, permit, fact, fact.host, fact.model, now, took=took)
        if reported.news and len(self.store.circuits(now)) < 50:  # in a flood it would take too long
            settle(self.store, now)
        return reported

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
    closed = GateClosed(HOST, MODEL if scope == "model" else "", 10.0, "hint")
    assert reported == Reported((closed,), gate_wait=10.0)

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
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, CONFIG, NOW)

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

    assert scene.tell(late, UNAVAILABLE, now=NOW + 6.0).news == ()
    assert scene.state(KEY) is State.CLOSED


def test_a_report_says_how_long_the_circuit_in_the_way_stays_open() -> None:
    """Also to a call whose own report did not open it: a retry would be refused."""
    scene = Scene()
    late = scene.admitted()
    opened = scene.run(UNAVAILABLE)
    assert opened.open_for == 5.0
    assert [(event.circuit, event.transition.after) for event in opened.news] == [
        (CircuitKey(HOST, MODEL), State.OPEN)
    ]

    assert scene.tell(late, FAILED, now=NOW + 2.0) == Reported(open_for=3.0)


def test_of_many_answers_under_way_one_is_news() -> None:
    """Fifty requests that were sent before the gate closed tell it one thing."""
    scene = Scene()
    permits = [scene.admitted() for _ in range(50)]

    reports = [scene.tell(permit, limited()) for permit in permits]

    assert [report.early for report in reports] == [False] + [True] * 49
    assert [report.news for report in reports] == [(GateClosed(HOST, MODEL, 2.0, "guess"),)] + [()] * 49
    held = scene.ask()
    assert isinstance(held, Held)
    assert held.retry_after == 2.0


def test_a_gate_that_stays_closed_for_longer_says_so() -> None:
    """By the late answer that asks for more; one that asks for less says nothing; it opened for who passes first."""
    scene = Scene(Config(gate=GateConfig(spread=0.0)))
    first, longer, shorter = (scene.admitted() for _ in range(3))

    assert scene.tell(first, limited(5.0)).news == (GateClosed(HOST, MODEL, 5.0, "hint"),)
    later = scene.tell(longer, limited(9.0), now=NOW + 1.0)
    assert later.news == (GateClosed(HOST, MODEL, 9.0, "hint", lengthened=True),)
    assert scene.tell(shorter, limited(1.0), now=NOW + 2.0).news == ()
    passing = [scene.admitted(now=NOW + 10.5).news for _ in range(2)]
    assert passing == [(GateOpened(HOST, MODEL, 10.0),), ()]


def test_a_gate_that_is_off_has_nothing_to_say() -> None:
    """It holds nobody."""
    scene = Scene(Config(gate=GateConfig(mode="off")))

    assert scene.run(limited(5.0)).news == ()
    assert scene.admitted(now=NOW + 6.0).news == ()


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
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, scene.config, NOW)

    assert scene.ask() == Refused(CircuitKey(HOST, MODEL), 5.0)
    assert scene.tell(permit, FAILED).open_for == 0.0
    scene.store.control(CircuitKey(HOST, MODEL), Control.AUTO, scene.config, NOW)
    assert isinstance(scene.ask(), Permit)


def test_a_circuit_becomes_half_open_once_however_many_probes_there_are() -> None:
    """The first probe changes the state, and its permit says so; a second one, after a hung first, does not."""
    scene = Scene()
    scene.run(UNAVAILABLE)

    first = scene.admitted(now=NOW + 6.0)
    second = scene.admitted(now=NOW + 12.0)

    circuit = CircuitKey(HOST, MODEL)
    changed = CircuitChanged(circuit, Transition(State.OPEN, State.HALF_OPEN, Cause.PROBE))
    assert (first.probe, first.news) == (True, (changed, ProbeSent(circuit)))
    assert (second.probe, second.news) == (True, (ProbeSent(circuit),))


def spend(scene: Scene, key: ScopeKey = KEY) -> int:
    """Retries of a scope, for as long as they can be paid; how many that were."""
    return sum(scene.store.withdraw(key, scene.config, 1.0, NOW) for _ in range(50))


def test_a_scope_spends_what_it_has_and_what_its_host_has() -> None:
    """Whichever is less; a host has twice what one scope has, and another host is not concerned."""
    scene = Scene()
    assert spend(scene, KEY) == 10
    for _ in range(6):
        assert scene.store.withdraw(OTHER_ACCOUNT, scene.config, 1.0, NOW)

    assert spend(scene, OTHER_MODEL) == 4
    assert scene.admitted(OTHER_MODEL).budget.tokens == 6.0
    assert scene.admitted(OTHER_ACCOUNT).budget.tokens == 4.0
    assert spend(scene, OTHER_HOST) == 10


def test_one_dead_model_leaves_the_others_their_retries() -> None:
    """All it can spend is half of what its host has."""
    scene = Scene()
    assert spend(scene, KEY) == 10

    assert spend(scene, OTHER_MODEL) == 10


@pytest.mark.parametrize("other", [KEY, OTHER_MODEL, OTHER_ACCOUNT], ids=["same", "model", "account"])
def test_when_a_host_has_spent_everything_nobody_on_it_retries(other: ScopeKey) -> None:
    """Until calls succeed there; whose they are does not matter to the host, but it does to the scope."""
    scene = Scene()
    third = ScopeKey(HOST, "credential", "a third model")
    assert spend(scene, KEY) + spend(scene, third) == 20
    assert spend(scene, other) == 0

    scene.run(OK, 6, OTHER_MODEL)

    assert spend(scene, KEY) == 0
    assert spend(scene, OTHER_MODEL) == 1
    assert spend(scene, OTHER_MODEL) == 0


def test_a_host_that_is_forgotten_takes_its_budget_along() -> None:
    """No scope leads to it any more."""
    scene = Scene(max_keys=4)
    for number in range(100):
        scene.run(OK, key=ScopeKey(f"host-{number}.example", "", MODEL))

    assert len(scene.store._budgets) <= 4


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
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, CONFIG, NOW)

    assert isinstance(scene.ask(), Refused)
    scene.store.reset(CircuitKey(HOST, MODEL), NOW)
    assert isinstance(scene.ask(), Permit)


def test_reset_without_a_name_resets_all() -> None:
    """Every circuit of every host."""
    scene = Scene()
    for key in (KEY, OTHER_MODEL, OTHER_HOST):
        scene.run(UNAVAILABLE, key=key)

    scene.store.reset(None, NOW)

    assert all(isinstance(scene.ask(key), Permit) for key in (KEY, OTHER_MODEL, OTHER_HOST))


@pytest.mark.parametrize("key", [None, CircuitKey(HOST, MODEL)], ids=["all", "one"])
def test_reset_says_what_it_changed(key: CircuitKey | None) -> None:
    """Circuits that were closed already are not named."""
    scene = Scene()
    scene.run(OK, key=OTHER_HOST)
    scene.run(UNAVAILABLE)
    scene.run(UNAVAILABLE, key=OTHER_MODEL)
    scene.admitted(OTHER_MODEL, NOW + 5.0)

    changes = {event.circuit: event.transition for event in scene.store.reset(key, NOW)}

    both = {
        CircuitKey(HOST, MODEL): Transition(State.OPEN, State.CLOSED, Cause.RESET),
        CircuitKey(HOST, OTHER_MODEL.model): Transition(State.HALF_OPEN, State.CLOSED, Cause.RESET),
    }
    assert changes == (both if key is None else {key: both[key]})
    assert scene.store.reset(key, NOW) == ()


# ---- slow calls ------------------------------------------------------------------------------------------

SLUGGISH = Config(breaker=BreakerConfig(open_jitter=0.0, slow_call=2.0, min_calls=3))


@pytest.mark.parametrize(
    ("fact", "model", "cause"),
    [
        (OK, MODEL, Cause.SLOW_CALLS),
        (OK, "", Cause.SLOW_CALLS),
        (FAILED, MODEL, Cause.FAILURE_RATIO),
        (INVALID, MODEL, None),
        (limited(0.0), MODEL, None),
        (INVALID, "", Cause.SLOW_CALLS),
    ],
    ids=["success", "success of nobody knows whom", "failure", "400", "429", "400 of nobody knows whom"],
)
def test_slow_answers_open_the_circuit(fact: Fact, model: str, cause: Cause | None) -> None:
    """Good ones too: the model's, and the host's only where no model is known; who is no evidence is none."""
    scene = Scene(SLUGGISH)
    key = ScopeKey(HOST, "credential", model)
    for _ in range(2):
        assert scene.tell(scene.admitted(key), fact, key, took=2.0).news == ()

    reported = scene.tell(scene.admitted(key), fact, key, took=2.0)

    if cause is None:
        assert reported.news == ()
        return
    opened = Transition(State.CLOSED, State.OPEN, cause, 5.0)
    assert reported.news == (CircuitChanged(CircuitKey(HOST, model), opened),)
    assert reported.open_for == 5.0
    assert scene.ask(key) == Refused(CircuitKey(HOST, model), 5.0)


def test_what_a_success_says_of_its_quota_is_not_how_long_a_circuit_stays_open() -> None:
    """The quota is the gate's affair: a slow success that opens the circuit opens it for the usual time."""
    scene = Scene(SLUGGISH)
    spent = replace(OK, hint=Hint(60.0, "reset"))
    for _ in range(2):
        scene.tell(scene.admitted(), spent, took=2.0)

    assert scene.tell(scene.admitted(), spent, took=2.0).open_for == 5.0


@pytest.mark.parametrize(("config", "timed"), [(CONFIG, False), (SLUGGISH, True)], ids=["off", "set"])
def test_a_permit_says_whether_time_matters(config: Config, timed: bool) -> None:
    """By default it does not, and an hour opens nothing."""
    scene = Scene(config)
    permits = [scene.admitted() for _ in range(20)]
    for permit in permits:
        scene.tell(permit, OK, took=3600.0)

    assert [permit.timed for permit in permits] == [timed] * 20
    assert isinstance(scene.ask(), Refused) is timed


def test_a_slow_probe_has_failed() -> None:
    """Though it succeeded; a quick one closes."""
    scene = Scene(SLUGGISH)
    scene.run(UNAVAILABLE)

    slow = scene.tell(scene.admitted(now=NOW + 5.0), OK, now=NOW + 7.0, took=2.0)
    quick = scene.tell(scene.admitted(now=NOW + 12.0), OK, now=NOW + 12.0, took=0.5)

    assert [event.transition.reason for event in slow.news] == [Cause.PROBE_FAILED]
    assert [event.transition.reason for event in quick.news] == [Cause.PROBE_SUCCEEDED]


# ---- parts of a model ------------------------------------------------------------------------------------

EAST, WEST = KEY._replace(part="east"), KEY._replace(part="west")


def test_a_part_has_a_circuit_of_its_own() -> None:
    """Its failures are not those of the model's other parts, nor of the model where no part is named."""
    scene = Scene()
    opened = scene.run(UNAVAILABLE, key=EAST)

    assert [event.circuit for event in opened.news] == [CircuitKey(HOST, MODEL, "east")]
    assert scene.ask(EAST) == Refused(CircuitKey(HOST, MODEL, "east"), 5.0)
    assert isinstance(scene.ask(WEST), Permit)
    assert isinstance(scene.ask(KEY), Permit)


def test_a_part_without_a_model_has_one_too() -> None:
    """Whoever names parts knows why; the host's circuit is not theirs."""
    scene = Scene()
    scene.run(UNAVAILABLE, key=ScopeKey(HOST, "", "", "east"))

    assert scene.store.circuits(NOW)[CircuitKey(HOST)].state is State.CLOSED
    assert scene.store.circuits(NOW)[CircuitKey(HOST, "", "east")].state is State.OPEN


@pytest.mark.parametrize(("scope", "shared"), [("model", False), ("credential", True)])
def test_parts_share_a_gate_where_all_calls_of_an_account_do(scope: str, shared: bool) -> None:
    """Otherwise each has its own."""
    scene = Scene(Config.from_dict({"gate": {"scope": scope}}))
    scene.run(limited(10.0), key=EAST)

    assert isinstance(scene.ask(EAST), Held)
    assert isinstance(scene.ask(WEST), Held) is shared
    assert (scene.gate(EAST) is scene.gate(WEST)) is shared


def test_parts_share_their_host() -> None:
    """Its circuit and its budget."""
    scene = Scene()
    assert scene.admitted(EAST).host is scene.admitted(WEST).host
    assert scene.admitted(EAST).budget is not scene.admitted(WEST).budget
    assert spend(scene, EAST) + spend(scene, WEST) == 20

    assert spend(scene, KEY) == 0


# ---- lines at a gate -------------------------------------------------------------------------------------


def test_who_asks_with_a_place_stands_in_line() -> None:
    """Until the gate opens, until its turn, and then it has a permit and its place is free."""
    scene = Scene()
    scene.run(limited(10.0))
    places = [scene.stand(), scene.stand()]

    assert scene.ask(now=NOW + 4.0, place=places[1]) == Held(6.0, 6.0, patient=True)
    assert scene.ask(now=NOW + 10.0, place=places[1]) == Held(3.75, 3.75, patient=True)
    assert isinstance(scene.ask(now=NOW + 13.75, place=places[1]), Permit)
    assert places[1].gate is None
    assert scene.gate().waiting == 1


def test_who_asks_without_one_does_not() -> None:
    """It is told how things are."""
    scene = Scene()
    scene.run(limited(10.0))

    assert scene.ask(now=NOW + 4.0) == Held(6.0, 6.0, patient=True)
    assert scene.gate().waiting == 0


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_call_that_was_refused_queues_for_its_next_attempt(mode: str) -> None:
    """At a closed gate; where gates are off, or open, there is nothing to wait for."""
    scene = Scene(Config.from_dict({"gate": {"mode": mode}}))
    early, late = Place(NOW), Place(NOW)
    assert scene.store.queue(KEY, scene.config, NOW, early) is None

    scene.run(limited(10.0))
    held = scene.store.queue(KEY, scene.config, NOW, late)

    assert held == (Held(10.0, 10.0, patient=True) if mode == "on" else None)
    assert (late.gate is not None) is (mode == "on")
    assert early.gate is None


def test_a_turn_that_was_given_is_kept() -> None:
    """The gate closed again and opened before it came: who asked meanwhile gets a new one, the other has its own."""
    scene = Scene()
    under_way = scene.admitted()
    scene.run(limited(10.0))
    first, second = scene.stand(), scene.stand(now=NOW + 1.0)
    assert scene.ask(now=NOW + 10.0, place=second) == Held(3.75, 3.75, patient=True)
    scene.tell(under_way, limited(3.0), now=NOW + 10.5)
    assert scene.ask(now=NOW + 11.25, place=first) == Held(2.25, 2.25, patient=True)

    assert scene.ask(now=NOW + 13.5, place=first) == Held(0.75, 0.75, patient=True)

    assert isinstance(scene.ask(now=NOW + 13.75, place=second), Permit)
    assert isinstance(scene.ask(now=NOW + 14.25, place=first), Permit)


def test_a_place_may_be_left_at_any_time() -> None:
    """Before it is taken, in line, with a turn, and twice."""
    scene = Scene()
    place = Place(NOW)
    scene.store.leave(place)
    scene.run(limited(10.0))
    for now in (NOW, NOW + 10.0):
        place, other = scene.stand(), scene.stand()
        scene.ask(now=now, place=place)
        scene.store.leave(place)
        scene.store.leave(place)
        assert (place.gate, place.turn) == (None, None)
        assert scene.gate().waiting == 1
        scene.store.leave(other)
    assert scene.gate().waiting == 0


def test_a_circuit_that_refuses_keeps_no_place() -> None:
    """Whose turn it was has had it."""
    scene = Scene()
    late = scene.admitted()
    scene.run(limited(10.0))
    place = scene.stand()
    scene.tell(late, UNAVAILABLE, now=NOW + 9.0)

    first = scene.ask(now=NOW + 10.0, place=place)
    assert isinstance(first, Held)
    assert isinstance(scene.ask(now=NOW + 10.0 + first.seconds, place=place), Refused)
    assert (place.gate, scene.gate(OTHER_MODEL).waiting) == (None, 0)


def test_a_quota_that_is_used_up_closes_the_gate_for_others() -> None:
    """The success that says so is a success; the next caller waits, and late news is none."""
    scene = Scene()
    permit, under_way = scene.admitted(), scene.admitted()

    scene.store.exhausted(KEY, permit, 7.0, NOW)

    assert scene.tell(permit, OK) == Reported()
    assert scene.ask(now=NOW + 1.0) == Held(6.0, 6.0, patient=True)
    assert isinstance(scene.ask(OTHER_MODEL), Permit)
    assert scene.tell(under_way, limited(5.0), now=NOW + 1.0) == Reported(gate_wait=6.0, early=True)


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
    scene.store.control(CircuitKey("third.example"), Control.FORCED_OPEN, CONFIG, NOW)
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
    scene.store.control(CircuitKey(HOST, MODEL), Control.FORCED_OPEN, CONFIG, NOW)
    flood(scene, 1000, UNAVAILABLE)

    assert isinstance(scene.ask(), Refused)


@pytest.mark.parametrize("max_keys", [4, 64])
def test_a_gate_with_a_line_outlives_a_flood(max_keys: int) -> None:
    """Its scope may be forgotten; it is not, and who stands there keeps its place and its order."""
    scene = Scene(max_keys=max_keys)
    scene.run(limited(10.0))
    places = [scene.stand(now=NOW + number) for number in range(2)]
    gate = places[0].gate

    for number in range(1000):
        scene.run(OK, key=ScopeKey(HOST, "credential", f"made-up-{number}"), now=NOW + 11.0)

    held = scene.ask(now=NOW + 11.0, place=places[1])
    assert isinstance(held, Held)
    assert [place.gate for place in places] == [gate, gate]
    assert isinstance(scene.ask(now=NOW + 11.0 + held.seconds, place=places[1]), Permit)
    assert isinstance(scene.ask(now=NOW + 11.0 + held.seconds, place=places[0]), Permit)


def test_a_gate_with_a_line_outlives_even_a_flood_of_closed_gates() -> None:
    """Gates are bounded by forgetting closed ones too, but none that somebody waits at."""
    scene = Scene(max_keys=16)
    scene.run(limited(60.0))
    place = scene.stand()

    flood(scene, 1000, limited(60.0))

    assert len(scene.store._gates) <= 3 * 16
    assert isinstance(scene.ask(now=NOW + 1.0, place=place), Held)


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
