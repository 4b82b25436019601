"""The story of a call as a conversation: the test plays the driver, the store and the world."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facts import (
    FAILED,
    HOST,
    INVALID,
    LOST,
    MODEL,
    OK,
    OVERLOADED,
    SPARED,
    STALLED,
    UNAVAILABLE,
    UNREACHABLE,
    error,
    limited,
)
from gip_resilience._announcer import Announcer
from gip_resilience._record import Surroundings
from gip_resilience.breaker import Breaker, Cause, State, Transition
from gip_resilience.budget import Budget
from gip_resilience.config import BudgetConfig, Config, GateConfig
from gip_resilience.effects import Deliver, Pause, Refuse, Send
from gip_resilience.engine import Call, story
from gip_resilience.events import CircuitChanged
from gip_resilience.gate import TOLERANCE, Gate, Held, Place
from gip_resilience.hints import Hint
from gip_resilience.memory import MemoryStore
from gip_resilience.metrics import Metrics
from gip_resilience.policy import Policy
from gip_resilience.state import CircuitKey, Pending, Permit, Refused, Reported, ScopeKey
from gip_resilience.taxonomy import Fact, Verdict, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

KEY = ScopeKey(HOST, "credential", MODEL)
NOW = 1000.0
GATE = Gate(GateConfig())
EXACT = Policy(jitter="none")
"""Waits as they are written down: 1, 2, 4 s for an overload."""


class World:
    """A store that answers from a list, a clock that the pauses move, and chance that always says a half.

    Args:
        admissions: what `acquire` answers, in order; then permits.
        reports: what `report` answers, in order; then "nothing changed".
        affordable: what `withdraw` answers.
    """

    def __init__(
        self,
        admissions: Iterable[Held | Refused | Pending] = (),
        reports: Iterable[Reported] = (),
        *,
        affordable: bool = True,
        chance: float = 0.5,
    ) -> None:
        self.now = NOW
        self.said: list[str] = []
        self.verdicts: list[tuple[Verdict, Verdict]] = []
        self.costs: list[float] = []
        self.took: list[float] = []
        self.places: list[Place] = []
        self.room = True
        self._gate_wait = 0.0
        self._admissions = deque(admissions)
        self._reports = deque(reports)
        self._affordable = affordable
        self.metrics = Metrics()
        self.surroundings = Surroundings(
            self,
            lambda: self.now,
            lambda: chance,
            self.metrics,
            Announcer(()),  # type: ignore[arg-type]
        )

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def call(self, config: Config | None = None, **options: Any) -> Call:
        """A call in this world."""
        return Call(self.surroundings, config or Config(policies={"overload": EXACT}), KEY, **options)

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused | Pending:
        """See `Store.acquire`."""
        self.said.append("first" if first else "acquire")
        if self._admissions:
            return self._admissions.popleft()
        return _permit(config)

    def report(
        self,
        key: ScopeKey,
        permit: Permit,
        fact: Fact,
        host: Verdict,
        model: Verdict,
        now: float,
        *,
        took: float = 0.0,
    ) -> Reported:
        """See `Store.report`."""
        self.said.append(f"report {fact.code}")
        self.verdicts.append((host, model))
        self.took.append(took)
        reported = self._reports.popleft() if self._reports else Reported()
        self._gate_wait = reported.gate_wait
        return reported

    def queue(self, key: ScopeKey, config: Config, now: float, place: Place) -> Held | None:
        """See `Store.queue`: the wait is what the last report said."""
        if config.gate.mode == "off":
            return None
        self.said.append("queue")
        self.places.append(place)
        place.gate = GATE
        return Held(self._gate_wait, self._gate_wait, patient=self.room)

    def leave(self, place: Place) -> None:
        """See `Store.leave`."""
        self.said.append("leave")
        place.gate = None

    def exhausted(self, key: ScopeKey, permit: Permit, seconds: float, now: float) -> tuple[()]:
        """See `Store.exhausted`."""
        self.said.append(f"exhausted {seconds:g}")
        return ()

    def abandon(self, permit: Permit, now: float) -> None:
        """See `Store.abandon`."""
        self.said.append("abandon")

    def withdraw(self, key: ScopeKey, config: Config, cost: float, now: float) -> bool:
        """See `Store.withdraw`."""
        self.said.append("withdraw")
        self.costs.append(cost)
        return self._affordable


def _permit(config: Config) -> Permit:
    return Permit(Breaker(config.breaker), None, Gate(config.gate), Budget(config.budget, NOW))


def play(call: Call, facts: Iterable[Fact], move: Callable[[float], None]) -> list[Any]:
    """What a driver is told to do, given the *facts* its sends bring; pauses move the clock."""
    answers = iter(facts)
    effects: list[Any] = []
    try:
        fact = None
        if call.admit():
            effects.append("send")
            fact = next(answers)
            if fact.ok:
                call.succeed(fact)
                return effects
        script = story(call, fact)
        effect = next(script)
        while True:
            effects.append(effect)
            if isinstance(effect, Send):
                effect = script.send(next(answers))
            elif isinstance(effect, Pause):
                move(effect.seconds)
                effect = next(script)
            else:
                assert next(script, None) is None
                return effects
    finally:
        call.close()


def played(world: World, call: Call, *facts: Fact) -> list[str]:
    """The same, in words."""
    return [_word(effect) for effect in play(call, facts, world.wait)]


def _word(effect: Any) -> str:
    match effect:
        case Pause(seconds):
            return f"pause {seconds:g}"
        case Refuse(kind, _, _, retry_after, respond):
            return f"{'answer' if respond else 'raise'} {kind} {retry_after}"
        case _:
            return effect if isinstance(effect, str) else type(effect).__name__.lower()


# ---- the everyday path -----------------------------------------------------------------------------------


def test_a_call_that_succeeds_at_once_asks_twice() -> None:
    """One admission and one report; there is no story to tell."""
    world = World()

    assert played(world, world.call(), OK) == ["send"]
    assert world.said == ["first", "report ok"]


def test_a_retry_passes_the_store_like_any_other_request() -> None:
    """It is paid for before the wait, and asks for leave after it."""
    world = World()
    call = world.call()

    assert played(world, call, OVERLOADED, OVERLOADED, OK) == [
        "send",
        "pause 1",
        "send",
        "pause 2",
        "send",
        "deliver",
    ]
    assert world.said == [
        "first",
        "report model_overloaded",
        "withdraw",
        "acquire",
        "report model_overloaded",
        "withdraw",
        "acquire",
        "report ok",
    ]
    assert call.outcome == "success"
    assert [(attempt.code, attempt.waited) for attempt in call.report().attempts] == [
        ("model_overloaded", 0.0),
        ("model_overloaded", 1.0),
        ("ok", 2.0),
    ]


# ---- when to stop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "sends", "reason"),
    [
        ([OVERLOADED] * 9, 4, "all 4 attempts used"),
        ([FAILED] * 9, 3, "all 3 attempts used"),
        ([INVALID], 1, "invalid_request is not retried"),
        ([UNAVAILABLE], 1, "model_unavailable is not retried"),
        ([OVERLOADED, INVALID], 2, "invalid_request is not retried"),
        ([OVERLOADED, OVERLOADED, FAILED, FAILED], 4, "all 4 attempts used"),
        ([FAILED, LOST, LOST], 3, "all 3 attempts used"),
        ([OVERLOADED, LOST, LOST], 3, "all 2 attempts used that connection_lost allows"),
        ([LOST, OVERLOADED, LOST], 3, "all 2 attempts used that connection_lost allows"),
        ([LOST, LOST], 2, "all 2 attempts used"),
        ([error("model_overloaded", hint=121.0)], 1, "the server asks for 121 s"),
    ],
    ids=[
        "overload",
        "server",
        "invalid",
        "unavailable",
        "mixed",
        "generous",
        "turns",
        "class",
        "class-apart",
        "lost",
        "hint",
    ],
)
def test_a_call_ends_when_the_policy_of_its_last_failure_says_so(
    facts: list[Fact], sends: int, reason: str
) -> None:
    """Each class of failures has its own attempts; the call has as many as the most generous class it met."""
    world = World()
    call = world.call()

    effects = played(world, call, *facts)

    assert effects.count("send") == sends
    assert effects[-1] == "deliver"
    assert (call.outcome, call.report().reason) == ("failure", reason)


def test_under_an_sdk_that_is_retrying_one_attempt_is_made() -> None:
    """Its retries and ours would multiply."""
    world = World()
    call = world.call(sdk=True, single=True)

    assert played(world, call, OVERLOADED) == ["send", "deliver"]
    assert call.report().reason == "a layer above retries"
    assert "withdraw" not in world.said


def test_what_cannot_be_sent_again_is_not() -> None:
    """A body that is gone ends the call."""
    world = World()
    call = world.call()
    call.replayable = False

    assert played(world, call, OVERLOADED) == ["send", "deliver"]


def test_what_may_have_been_executed_is_not_repeated_where_that_is_forbidden() -> None:
    """The policy decides; a failure that provably did nothing is repeated all the same."""
    config = Config(
        policies={
            "timeout": Policy(on_ambiguous="fail"),
            "connect": Policy(on_ambiguous="fail", jitter="none"),
        }
    )
    world = World()

    assert played(world, world.call(config), LOST) == ["send", "deliver"]
    assert played(world, world.call(config), UNREACHABLE, OK) == ["send", "pause 0.1", "send", "deliver"]


def test_a_retry_that_cannot_be_paid_hands_up_the_answer() -> None:
    """The server's own last word, and nothing was waited for."""
    world = World(affordable=False)
    call = world.call()

    assert played(world, call, OVERLOADED) == ["send", "deliver"]
    assert call.report().reason == "retry budget exhausted"


@pytest.mark.parametrize(
    ("fact", "cost"),
    [(OVERLOADED, 1.0), (LOST, 2.0), (UNREACHABLE, 1.0)],
    ids=["overload", "lost", "connect"],
)
def test_what_a_retry_costs(fact: Fact, cost: float) -> None:
    """An ambiguous one counts double: the work may have been done."""
    world = World()
    played(world, world.call(), fact, OK)

    assert world.costs == [cost]


def test_a_request_that_was_not_processed_is_repeated_free_of_charge_once() -> None:
    """The server asked for it; a second time it is paid for."""
    world = World()
    played(world, world.call(), SPARED, SPARED, OK)

    assert world.costs == [1.0]


def test_a_budget_that_is_off_is_not_asked() -> None:
    """Every policy spends what it likes."""
    world = World(affordable=False)

    assert played(world, world.call(Config(budget=BudgetConfig(mode="off"))), OVERLOADED, OK)[-1] == "deliver"
    assert world.costs == []


def test_the_circuit_that_this_very_failure_opened_ends_the_call() -> None:
    """A retry would be refused; nothing is paid and nothing waited."""
    opened = Reported(
        (CircuitChanged(CircuitKey(HOST, MODEL), Transition(State.CLOSED, State.OPEN, Cause.TRIPPED, 5.0)),),
        open_for=5.0,
    )
    world = World(reports=[opened])
    call = world.call()

    assert played(world, call, OVERLOADED) == ["send", "deliver"]
    assert call.report().reason == "circuit open"
    assert world.metrics.snapshot().opened == {(HOST, MODEL): 1}


def test_a_circuit_that_closes_before_the_wait_is_over_does_not() -> None:
    """The retry comes after it, as the probe."""
    world = World(reports=[Reported(open_for=0.9)])

    assert played(world, world.call(), OVERLOADED, OK) == ["send", "pause 1", "send", "deliver"]


# ---- how long to wait ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chance", "hint", "wait"),
    [(0.0, 3.0, 3.0), (0.5, 3.0, 3.15), (0.5, 60.0, 60.5), (0.999, 0.04, 0.043996), (0.5, 0.0, 1.0)],
)
def test_a_hint_is_waited_in_full_and_a_little_more(chance: float, hint: float, wait: float) -> None:
    """Jitter goes up only, by ten per cent and at most a second; and "now" is not taken for a tight loop."""
    world = World(chance=chance)

    assert played(world, world.call(), error("model_overloaded", hint=hint), OK)[1] == f"pause {wait:g}"


def test_a_hint_that_did_not_help_is_not_followed_below_the_backoff() -> None:
    """A server that keeps saying "40 ms" gets the ordinary pauses from the second time on."""
    world = World(chance=0.0)
    hinted = error("model_overloaded", hint=0.04)

    effects = played(world, world.call(), hinted, hinted, hinted, OK)

    assert effects[1:-1:2] == ["pause 0.04", "pause 2", "pause 4"]


def test_each_code_has_its_own_waits() -> None:
    """What one failure has grown to is not another's beginning."""
    world = World()
    config = Config(policies={"overload": EXACT, "server": Policy(max_attempts=9, jitter="none")})

    effects = played(world, world.call(config), OVERLOADED, FAILED, OVERLOADED, OK)

    assert effects[1:-1:2] == ["pause 1", "pause 0.25", "pause 2"]


@pytest.mark.parametrize(
    ("gate_wait", "mode", "pause"), [(12.5, "on", 12.5), (0.5, "on", 1.0), (12.5, "off", 1.0)]
)
def test_the_gate_lengthens_the_wait_and_never_shortens_it(gate_wait: float, mode: str, pause: float) -> None:
    """Of backoff and gate the longer counts, unless the gate is off."""
    world = World(reports=[Reported(gate_wait=gate_wait)])
    config = Config.from_dict(
        {"gate": {"mode": mode}, "policies": {"rate_limit": {"jitter": "none", "base_delay": 1}}}
    )

    assert played(world, world.call(config), limited(), OK)[1] == f"pause {pause:g}"


def test_a_hint_is_not_lengthened_by_chance_where_the_gate_gives_out_turns() -> None:
    """Alone, a call adds up to a tenth to the wait it was asked for; in line it gets a turn of its own instead."""
    world = World(reports=[Reported(gate_wait=12.5)])

    assert played(world, world.call(), limited(12.5), OK)[1] == "pause 12.5"


def test_a_call_says_since_when_and_until_when_it_waits() -> None:
    """Places in line are by the beginning of the call; it must be gone by the earlier of its two limits."""
    world = World(reports=[Reported(gate_wait=3.0)])
    config = Config(deadline=9.0, max_elapsed=20.0)

    played(world, world.call(config), limited(3.0), OK)

    (place,) = world.places
    assert (place.since, place.latest) == (NOW, NOW + 9.0)


def test_a_call_that_finds_no_room_at_the_gate_hands_up_its_answer() -> None:
    """And it pays nothing for the retry that is not made."""
    world = World(reports=[Reported(gate_wait=3.0)])
    world.room = False
    call = world.call()

    assert played(world, call, limited(3.0)) == ["send", "deliver"]
    assert (call.report().reason, world.costs) == ("there is no use in waiting at the gate", [])


@pytest.mark.parametrize("end", ["budget", "broken off"])
def test_a_call_that_ends_leaves_the_line(end: str) -> None:
    """Whatever ends it while it has a place."""
    world = World(reports=[Reported(gate_wait=3.0)], affordable=end != "budget")
    call = world.call()
    assert call.admit()
    script = story(call, limited(3.0))
    next(script)
    script.close()
    call.close()

    assert world.said[-1] == "leave"
    assert world.places[0].gate is None


@pytest.mark.parametrize("retried", [False, True])
def test_a_success_that_used_up_its_quota_tells_the_gate(retried: bool) -> None:
    """Before the next call is refused for it."""
    world = World()
    spent = replace(OK, hint=Hint(7.0, "reset"))

    played(world, world.call(), *([OVERLOADED] if retried else []), spent)

    assert "exhausted 7" in world.said
    assert world.said[-1] == "report ok"


@pytest.mark.parametrize("retried", [False, True])
def test_a_stream_tells_the_gate_when_it_begins(retried: bool) -> None:
    """Calls that come while it flows must wait already; at its end it is not said again."""
    world = World()
    call = world.call()
    spent = replace(OK, hint=Hint(7.0, "reset"))
    assert call.admit()
    if retried:
        script = story(call, OVERLOADED)
        next(script)
        next(script)
        call.streaming = True
        script.send(spent)
    else:
        call.streaming = True
        call.succeed(spent)
    assert world.said[-1] == "exhausted 7"

    call.stream_ended()

    assert world.said.count("exhausted 7") == 1


def test_the_store_learns_how_long_an_attempt_took() -> None:
    """Each attempt for itself, without the pauses between them."""
    world = World()
    call = world.call()

    def answers() -> Iterator[Fact]:
        for seconds, fact in ((3.0, OVERLOADED), (0.5, OK)):
            world.now += seconds
            yield fact

    play(call, answers(), world.wait)

    assert world.took == [3.0, 0.5]


def test_who_is_only_late_to_the_news_waits_without_paying() -> None:
    """The request had been sent before the gate closed."""
    world = World(reports=[Reported(gate_wait=3.0, early=True)])

    assert played(world, world.call(), limited(), OK)[-1] == "deliver"
    assert world.costs == []


def test_without_a_gate_every_retry_of_a_rate_limit_is_paid_for() -> None:
    """Nobody holds such a call, so nothing but the budget bounds what it sends."""
    world = World(reports=[Reported(gate_wait=3.0, early=True)])

    played(world, world.call(Config(gate=GateConfig(mode="off"))), limited(), OK)

    assert world.costs == [1.0]


def test_waiting_at_the_gate_costs_nothing() -> None:
    """Held before the first attempt, and again before the retry."""
    world = World([HELD, Held(2.0, 2.0, patient=True), Held(1.0, 1.0, patient=True)])
    call = world.call()

    assert played(world, call, OK) == ["pause 2", "pause 1", "send", "deliver"]
    assert world.costs == []
    assert call.report().attempts[0].waited == 3.0
    assert world.metrics.snapshot().waits == {"gate": 3.0}


# ---- refusals --------------------------------------------------------------------------------------------

OPEN = Refused(CircuitKey(HOST, MODEL), 4.0)
HELD = Held(9.0, 9.0, patient=True)
"""What a call is told that did not say how long it can wait: it asks again, and says."""


@pytest.mark.parametrize(
    ("on_open", "sdk", "effects"),
    [
        ("raise", False, ["raise circuit_open 4.0"]),
        ("raise", True, ["raise circuit_open 4.0"]),
        ("respond", False, ["answer circuit_open 4.0"]),
        ("respond", True, ["answer circuit_open 4.0"]),
        ("auto", False, ["raise circuit_open 4.0"]),
        ("auto", True, ["answer circuit_open 4.0"]),
        ("wait", False, ["pause 4.2", "send", "deliver"]),
        ("wait", True, ["pause 4.2", "send", "deliver"]),
    ],
)
def test_what_an_open_circuit_does_with_a_call(on_open: str, sdk: bool, effects: list[str]) -> None:
    """As configured; "auto" answers under an SDK that would retry an exception, and raises elsewhere."""
    world = World([OPEN])
    call = world.call(Config.from_dict({"on_open": on_open}), sdk=sdk)

    assert played(world, call, OK) == effects
    assert call.outcome == ("success" if on_open == "wait" else "refused")


@pytest.mark.parametrize(
    ("settings_", "effects"),
    [({"deadline": 3.0}, ["raise circuit_open 4.0"]), ({"max_elapsed": 3.0}, ["raise circuit_open 4.0"])],
    ids=["deadline", "max_elapsed"],
)
def test_a_circuit_is_not_waited_for_beyond_the_end(settings_: dict[str, float], effects: list[str]) -> None:
    """A wait that cannot end in an attempt is not begun."""
    world = World([OPEN])

    assert played(world, world.call(Config.from_dict({"on_open": "wait", **settings_}))) == effects
    assert world.now == NOW


def test_a_circuit_that_opens_during_a_pause_hands_up_the_last_answer() -> None:
    """What was answered is the better last word, even where "wait" is said."""
    for on_open in ("raise", "respond", "wait"):
        world = World()
        call = world.call(
            Config.from_dict({"on_open": on_open, "policies": {"overload": {"jitter": "none"}}})
        )
        world._admissions = deque([_permit(call.config), OPEN])  # type: ignore[list-item]

        assert played(world, call, OVERLOADED) == ["send", "pause 1", "deliver"]
        assert (call.outcome, call.report().reason) == ("failure", "circuit open")


@pytest.mark.parametrize(
    ("held", "config"),
    [
        (Held(2.0, 400.0, patient=False), Config()),
        (Held(2.0, 2.0, patient=True), Config(deadline=1.5)),
        (Held(2.0, 2.0, patient=True), Config(deadline=2.0)),
        (Held(2.0, 2.0, patient=True), Config(max_elapsed=1.5)),
    ],
    ids=["over the cap", "past the deadline", "at the deadline", "past max_elapsed"],
)
def test_a_gate_that_cannot_be_waited_for_refuses_at_once(held: Held, config: Config) -> None:
    """Nothing is slept, and the caller learns when the limit resets."""
    world = World([HELD, held])
    call = world.call(config)

    assert played(world, call) == [f"raise rate_limited {held.retry_after}"]
    assert (world.now, call.outcome) == (NOW, "refused")
    assert world.metrics.snapshot().refusals == {"rate_limited": 1}


def test_refusals_answer_under_an_sdk() -> None:
    """The gate's refusal has the same choice as the circuit's."""
    world = World([HELD, Held(2.0, 400.0, patient=False)])

    assert played(world, world.call(sdk=True)) == ["answer rate_limited 400.0"]


ASKED = Pending(CircuitKey(HOST, MODEL), 0.25)
"""Others are asked whether they probe already."""


def test_while_others_are_asked_a_call_waits() -> None:
    """As often as it takes, and it is counted apart from other waits."""
    world = World([ASKED, ASKED])
    call = world.call()

    assert played(world, call, OK) == ["pause 0.25", "pause 0.25", "send", "deliver"]
    assert world.metrics.snapshot().waits == {"store": 0.5}


def test_an_answer_of_the_others_may_be_no() -> None:
    """Then it is an open circuit like any other."""
    world = World([ASKED, OPEN])

    assert played(world, world.call()) == ["pause 0.25", "raise circuit_open 4.0"]


@pytest.mark.parametrize("settings_", [{"deadline": 0.2}, {"max_elapsed": 0.2}], ids=str)
def test_an_answer_is_not_waited_for_beyond_the_end(settings_: dict[str, float]) -> None:
    """Nothing is slept that cannot end in an attempt."""
    world = World([ASKED])

    assert played(world, world.call(Config.from_dict(settings_))) == ["raise circuit_open 0.25"]
    assert world.now == NOW


# ---- deadlines -------------------------------------------------------------------------------------------


def test_an_attempt_is_told_what_is_left_of_the_deadline() -> None:
    """All that is left, and at least a millisecond: clients take zero for a mistake."""
    world = World()
    call = world.call(Config(deadline=10.0))
    assert call.timeout() == 10.0
    world.now += 7.0
    assert call.timeout() == 3.0
    world.now += 7.0
    assert call.timeout() == 0.001
    assert world.call().timeout() is None


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Config(deadline=2.9, policies={"overload": EXACT}), "the deadline would pass"),
        (Config(deadline=3.0, policies={"overload": EXACT}), "the deadline would pass"),
        (Config(max_elapsed=3.0, policies={"overload": EXACT}), "max_elapsed would pass"),
    ],
    ids=["deadline", "exactly", "max_elapsed"],
)
def test_a_wait_that_would_end_too_late_is_not_begun(config: Config, reason: str) -> None:
    """After one second of waiting, two more would be too many: the answer is handed up at once."""
    world = World()
    call = world.call(config)

    assert played(world, call, OVERLOADED, OVERLOADED) == ["send", "pause 1", "send", "deliver"]
    assert call.report().reason == reason
    assert world.now == NOW + 1.0


@pytest.mark.parametrize("early", [0.0, 1e-9, 1e-4])
def test_an_attempt_that_the_deadline_cut_short_is_a_passed_deadline(early: float) -> None:
    """Not a timeout of the client's; clocks that differ by a hair make no difference."""
    world = World()
    call = world.call(Config(deadline=2.0))
    assert call.admit()
    world.now += 2.0 - early

    assert call.judge(STALLED) == Refuse("deadline", HOST, MODEL, None, respond=False)
    assert call.report().reason == "deadline"


def test_a_deadline_that_passes_during_a_pause_hands_up_the_last_answer() -> None:
    """A sleep may take longer than it should."""
    world = World()
    call = world.call(Config(deadline=2.0, policies={"overload": EXACT}))

    def oversleep(seconds: float) -> None:
        world.now += seconds + 5.0

    assert [_word(effect) for effect in play(call, [OVERLOADED], oversleep)] == ["send", "pause 1", "deliver"]
    assert call.report().reason == "deadline"


# ---- permits ---------------------------------------------------------------------------------------------


def test_a_call_that_is_broken_off_abandons_its_permit_once() -> None:
    """However often it is closed."""
    world = World()
    call = world.call()
    assert call.admit()

    call.close()
    call.close()

    assert world.said == ["first", "abandon"]
    assert call.outcome == "cancelled"
    assert world.metrics.snapshot().calls == {(HOST, MODEL, "none", "cancelled"): 1}


def test_a_call_that_is_broken_off_during_a_pause_holds_nothing() -> None:
    """Its permit was reported before the wait."""
    world = World()
    call = world.call()
    assert call.admit()
    script = story(call, OVERLOADED)
    assert isinstance(next(script), Pause)

    script.close()
    call.close()

    assert "abandon" not in world.said
    assert call.outcome == "cancelled"


@pytest.mark.parametrize(
    ("rule", "verdicts"),
    [
        ("auto", (Verdict.SUCCESS, Verdict.FAILURE)),
        ("ignore", (Verdict.NEUTRAL, Verdict.NEUTRAL)),
        ("failure", (Verdict.SUCCESS, Verdict.FAILURE)),
        ("trip", (Verdict.SUCCESS, Verdict.TRIP)),
    ],
)
def test_the_policy_has_a_say_in_what_the_circuits_learn(
    rule: str, verdicts: tuple[Verdict, Verdict]
) -> None:
    """The host's verdict stays as it is, unless all is to be ignored."""
    world = World()
    played(
        world, world.call(Config.from_dict({"policies": {"overload": {"breaker": rule}}})), *[OVERLOADED] * 4
    )

    assert world.verdicts[0] == verdicts


# ---- whatever happens ------------------------------------------------------------------------------------

HINTS = st.one_of(
    st.none(), st.sampled_from([0.0, 0.5, 2.0, 9.0, 30.0, 119.0, 121.0, 130.0]), st.floats(0.0, 500.0)
)
AFTER = ["0", "0.5", "7", "119", "120, 7", "121", "-5", "NaN", "inf", "soon", "1e9", "9" * 400]
"""What a server may write into ``Retry-After``; from the seventh on it says nothing."""
FACTS = st.one_of(
    st.sampled_from([OK, FAILED, INVALID, UNAVAILABLE, LOST, UNREACHABLE, STALLED, SPARED]),
    st.builds(lambda hint: limited(hint), HINTS),
    st.builds(lambda hint: error("model_overloaded", hint=hint), HINTS),
    st.builds(lambda hint: error("never_heard_of", hint=hint), HINTS),
    st.builds(
        lambda after: classify(503, {"retry-after": after}, b'{"error":{"code":"model_overloaded"}}'),
        st.sampled_from(AFTER),
    ),
)
CONFIGS = st.builds(
    lambda deadline, max_elapsed, on_open, gate: Config(
        deadline=deadline, max_elapsed=max_elapsed, on_open=on_open, gate=GateConfig(mode=gate)
    ),
    st.one_of(st.none(), st.none(), st.floats(0.01, 60.0)),
    st.one_of(st.floats(0.01, 200.0), st.sampled_from([200.0, 1000.0])),
    st.sampled_from(["auto", "respond", "raise", "wait"]),
    st.sampled_from(["on", "off"]),
)


class Ledger(MemoryStore):
    """A store that keeps books of its permits."""

    def __init__(self, chance: Callable[[], float]) -> None:
        super().__init__(chance=chance)
        self.given: list[Permit] = []
        self.returned: list[Permit] = []

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused:
        """See `Store.acquire`."""
        answer = super().acquire(key, config, now, first=first, place=place)
        if isinstance(answer, Permit):
            self.given.append(answer)
        return answer

    def report(
        self,
        key: ScopeKey,
        permit: Permit,
        fact: Fact,
        host: Verdict,
        model: Verdict,
        now: float,
        *,
        took: float = 0.0,
    ) -> Reported:
        """See `Store.report`."""
        self.returned.append(permit)
        return super().report(key, permit, fact, host, model, now, took=took)

    def abandon(self, permit: Permit, now: float) -> None:
        """See `Store.abandon`."""
        self.returned.append(permit)
        super().abandon(permit, now)


@settings(deadline=None, derandomize=True, max_examples=250)
@given(
    data=st.data(),
    config=CONFIGS,
    single=st.sampled_from([False, False, True]),
    broken_off=st.one_of(st.none(), st.integers(0, 30)),
)
def test_whatever_comes_a_call_ends_well(
    data: st.DataObject, config: Config, single: bool, broken_off: int | None
) -> None:
    """It ends; sends no more than its policies allow; waits sensibly and never past its end; keeps no permit.

    It sends nothing again before the time that the last answer asked for, and nothing at all where that is more than
    the policy waits.

    Other calls of the same scope succeed and fail around it, and it may be broken off at any step.
    """
    now = [NOW]
    chance = st.floats(0.0, 1.0, exclude_max=True)
    store = Ledger(lambda: data.draw(chance))
    world = Surroundings(store, lambda: now[0], lambda: data.draw(chance), Metrics(), Announcer(()))
    call = Call(world, config, KEY, single=single)
    allowed, steps = 1, 0
    earliest = -math.inf
    ends = [NOW + end for end in (config.deadline, config.max_elapsed) if end is not None]

    class BrokenOffError(Exception):
        """The driver's caller has changed its mind."""

    def step() -> None:
        nonlocal steps
        steps += 1
        assert steps < 500, "it does not end"
        if steps == broken_off:
            raise BrokenOffError

    def facts() -> Iterable[Fact]:
        nonlocal allowed, earliest
        while True:
            step()
            assert now[0] >= earliest, "it is sent before the server wants it"
            fact = data.draw(FACTS)
            now[0] += data.draw(st.sampled_from([0.0, 0.1, 5.0]))
            policy = config.policy(fact.code, fact.policy)
            allowed = max(allowed, policy.max_attempts)
            asked = 0.0 if fact.hint is None else fact.hint.seconds
            # The clock's readings are sums, each of them rounded.
            earliest = math.inf if asked > policy.max_hint else now[0] + asked - TOLERANCE
            yield fact

    def move(seconds: float) -> None:
        step()
        assert math.isfinite(seconds)
        assert seconds >= 0.0
        now[0] += seconds
        assert all(now[0] < end for end in ends)
        for fact in data.draw(st.lists(FACTS, max_size=3)):
            permit = store.acquire(KEY, config, now[0], first=True)
            if isinstance(permit, Permit):
                store.report(KEY, permit, fact, fact.host, fact.model, now[0])

    try:
        effects = play(call, facts(), move)
    except BrokenOffError:
        assert call.outcome == "cancelled"
    else:
        sends = sum(effect == "send" or isinstance(effect, Send) for effect in effects)
        assert sends <= (1 if single else allowed)
        assert len(call.report().attempts) == sends
        assert effects[-1] == "send" or isinstance(effects[-1], (Deliver, Refuse))
        if isinstance(effects[-1], Deliver):
            assert sends > 0
        if isinstance(effects[-1], Refuse) and effects[-1].kind != "deadline":
            assert sends == 0
    assert sorted(map(id, store.given)) == sorted(map(id, store.returned))
