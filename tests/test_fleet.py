"""One process as one of a fleet: what it says, and what it makes of what it hears. Answers are written out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facts import FAILED, HOST, MODEL, OK, UNAVAILABLE, limited
from gip_resilience._fleet_names import Names
from gip_resilience._fleet_words import (
    LONGEST,
    CircuitState,
    Freed,
    GateState,
    Opened,
    Overruled,
    Question,
    milliseconds,
    read_budget,
    read_circuit,
    read_gate,
    read_news,
)
from gip_resilience.breaker import TRANSITIONS, Cause, State
from gip_resilience.config import BreakerConfig, BudgetConfig, Config, GateConfig, StoreConfig
from gip_resilience.events import CircuitChanged, GateClosed, GateOpened
from gip_resilience.fleet import SharedStore
from gip_resilience.gate import Held
from gip_resilience.state import CircuitKey, Pending, Permit, Refused, Reported, ScopeKey
from gip_resilience.taxonomy import Fact

NOW = 1000.0
KEY = ScopeKey(HOST, "credential", MODEL)
CIRCUIT = CircuitKey(HOST, MODEL)
CONFIG = Config(breaker=BreakerConfig(open_jitter=0.0))
VERSION = 1_700_000_000_000_000


class Scene:
    """One process, and what it said."""

    def __init__(self, config: Config = CONFIG, *, up: bool = True) -> None:
        self.config = config
        self.said: list[Question] = []
        self.store = SharedStore(self.said.append, node="me", chance=lambda: 0.5)
        if up:
            self.store.linked(NOW, up=True)
        self.names = self.store.names
        self.tag = self.names.circuit(CIRCUIT)
        self.gate_tag = self.names.gate(KEY)
        self.ask()
        self.heard_of()

    def ask(self, now: float = NOW) -> Permit | Held | Refused | Pending:
        """May a request be sent?"""
        return self.store.acquire(KEY, self.config, now, first=True)

    def tell(self, permit: Permit, fact: Fact, now: float = NOW) -> Reported:
        """What became of it."""
        return self.store.report(KEY, permit, fact, fact.host, fact.model, now)

    def run(self, fact: Fact, times: int = 1, now: float = NOW) -> Reported:
        """Calls that all end with *fact*; what the last one changed."""
        reported = Reported()
        for _ in range(times):
            permit = self.ask(now)
            assert isinstance(permit, Permit), permit
            reported = self.tell(permit, fact, now)
        return reported

    def heard_of(self) -> list[Question]:
        """What was said since the last time."""
        said, self.said[:] = self.said[:], []
        return said

    def last(self, script: str) -> Question:
        """The one question of that script among what was said since the last time."""
        (question,) = [question for question in self.heard_of() if question.script == script]
        return question

    def answer(self, question: Question, *reply: Any, now: float = NOW) -> tuple[object, ...]:
        """The store answers, nonsense perhaps."""
        return self.store.answered(question, reply, now)

    def news(self, *words: object, now: float = NOW) -> tuple[object, ...]:
        """Something is published."""
        return self.store.heard(" ".join(map(str, words)).encode(), now)

    def flagged(
        self, kind: str = "trip", left: int = 5000, version: int = VERSION, now: float = NOW
    ) -> tuple[object, ...]:
        """Another process opened the circuit."""
        return self.news("c", self.tag, version, "open", left, kind, now=now)

    def closed(self, kind: str = "trip", version: int = VERSION + 1, now: float = NOW) -> tuple[object, ...]:
        """Another process closed it."""
        return self.news("c", self.tag, version, "closed", 0, kind, now=now)

    def state(self, now: float = NOW) -> State:
        """The state of the circuit."""
        return self.store.circuits(now)[CIRCUIT].state

    def asked_for_probe(self, now: float) -> Question:
        """The open time is over, and a call comes."""
        assert isinstance(self.ask(now), Pending)
        return self.last("probe")


# ---- what is said ----------------------------------------------------------------------------------------------


def test_a_success_says_nothing() -> None:
    """The everyday call is counted, and told with the next report."""
    scene = Scene()
    scene.run(OK, 1000)

    assert scene.heard_of() == []


def test_what_became_of_calls_is_told_in_sums() -> None:
    """One question per circuit that had calls, and each call once."""
    scene = Scene()
    scene.run(OK, 7)
    scene.run(FAILED, 3)

    due = {question.tag: question for question in scene.store.due(NOW) if question.script == "count"}
    assert due[scene.tag].args[5:8] == (10, 3, 0)
    assert [question for question in scene.store.due(NOW) if question.script == "count"] == []

    scene.run(FAILED)
    (question,) = [question for question in scene.store.due(NOW) if question.tag == scene.tag]
    assert question.args[5:8] == (1, 1, 0)


def test_what_is_too_old_is_not_told() -> None:
    """Calls that have left the window of this process have left that of the fleet."""
    scene = Scene()
    scene.run(FAILED, 4)
    scene.run(OK, 2, now=NOW + 60.0)

    (question,) = [question for question in scene.store.due(NOW + 60.0) if question.tag == scene.tag]
    assert question.args[5:8] == (2, 0, 0)


def test_nothing_is_said_by_one_that_rests() -> None:
    """No calls, nothing open: no command."""
    scene = Scene()
    scene.run(OK, 3)
    scene.store.due(NOW)

    assert [scene.store.due(NOW + second) for second in range(1, 60)] == [[]] * 59


def test_a_trip_is_said_at_once() -> None:
    """An answer that says by itself that the model is unavailable holds for everybody."""
    scene = Scene()
    scene.run(UNAVAILABLE)

    question = scene.last("open")
    assert question.tag == scene.tag
    assert question.args[3:] == (HOST, MODEL, "trip", 5000, "")


def test_an_opening_for_own_failures_is_evidence_and_no_order() -> None:
    """The failures are told at once; whether the fleet's circuit opens is for the sum to say."""
    scene = Scene()
    scene.run(FAILED, 5)

    assert scene.state() is State.OPEN
    question = scene.last("count")
    assert question.args[5:8] == (5, 5, 1)
    later = [question for question in scene.store.due(NOW) if question.tag == scene.tag]
    assert [question.args[5:8] for question in later] in ([], [(0, 0, 0)])


def test_a_429_is_said_at_once() -> None:
    """With the time the server asked for; once, however many calls had been on their way."""
    scene = Scene()
    permits = [scene.ask() for _ in range(10)]
    for permit in permits:
        assert isinstance(permit, Permit)
        scene.tell(permit, limited(30.0))

    question = scene.last("gate")
    assert question.tag == scene.gate_tag
    assert question.args[5:7] == (30000, 30000)


def test_a_429_without_a_hint_is_said_with_what_was_guessed() -> None:
    """The gate closes for a guess, and the others need not make their own."""
    scene = Scene()
    scene.run(limited())

    assert scene.last("gate").args[5:7] == (2000, 2000)


def test_while_the_store_is_away_nothing_is_kept_to_be_said() -> None:
    """An outage of the store must not fill the memory."""
    scene = Scene()
    scene.store.linked(NOW, up=False)
    scene.run(FAILED, 4)
    scene.run(UNAVAILABLE)

    assert scene.heard_of() == []


# ---- what is heard ---------------------------------------------------------------------------------------------


def test_a_trip_seen_by_another_opens_the_circuit() -> None:
    """For as long as the other one said, by our own clock."""
    scene = Scene()
    (news,) = scene.flagged(left=4000)

    assert isinstance(news, CircuitChanged)
    assert news.transition.reason is Cause.FLEET_OPENED
    assert news.transition.open_for == 4.0
    assert scene.ask() == Refused(CIRCUIT, 4.0)
    assert isinstance(scene.ask(NOW + 4.0), Pending)


def test_it_is_said_once() -> None:
    """A version that is known already changes nothing, and one that is older neither."""
    scene = Scene()
    scene.flagged()

    assert scene.flagged(left=60_000) == ()
    assert scene.flagged(left=60_000, version=VERSION - 1) == ()
    assert scene.ask() == Refused(CIRCUIT, 5.0)


def test_a_store_that_was_set_back_is_believed_in_the_end() -> None:
    """After a minute a smaller version counts: it must not be disbelieved for ever."""
    scene = Scene()
    scene.flagged()
    scene.closed()

    assert scene.flagged(version=17, now=NOW + 59.0) == ()
    assert scene.flagged(version=17, now=NOW + 61.0) != ()


def test_a_close_closes_what_the_fleet_had_opened() -> None:
    """One probe's success is everybody's."""
    scene = Scene()
    scene.flagged()
    (news,) = scene.closed()

    assert isinstance(news, CircuitChanged)
    assert news.transition.reason is Cause.FLEET_CLOSED
    assert isinstance(scene.ask(), Permit)


def test_a_close_does_not_close_what_this_process_opened_for_itself() -> None:
    """Its own network may be at fault: the others' success says nothing of that."""
    scene = Scene()
    scene.run(FAILED, 5)

    assert scene.closed() == ()
    assert scene.state() is State.OPEN


def test_an_operators_reset_closes_that_too() -> None:
    """A person has looked."""
    scene = Scene()
    scene.run(FAILED, 5)
    (news,) = scene.closed(kind="reset")

    assert isinstance(news, CircuitChanged)
    assert news.transition.reason is Cause.RESET
    assert scene.state() is State.CLOSED


def test_one_that_does_well_may_find_out_for_itself() -> None:
    """The sum of others' failures opens it half: one probe of its own, asked of nobody; then it goes on."""
    scene = Scene()
    scene.run(OK, 20)
    scene.flagged("ratio")
    assert scene.state() is State.OPEN
    scene.heard_of()

    permit = scene.ask()
    assert isinstance(permit, Permit)
    assert isinstance(scene.ask(), Refused)
    assert scene.heard_of() == []

    scene.tell(permit, OK)
    assert scene.state() is State.CLOSED
    assert scene.heard_of() == []
    assert scene.flagged("ratio", version=VERSION + 1) == ()
    scene.run(OK, 20)


def test_its_trust_in_itself_ends_with_its_luck() -> None:
    """One probe of its own that fails: it waits with the others, and probes with them."""
    scene = Scene()
    scene.run(OK, 20)
    scene.flagged("ratio")
    permit = scene.ask()
    assert isinstance(permit, Permit)
    scene.tell(permit, FAILED)

    assert scene.state() is State.OPEN
    assert [question.script for question in scene.heard_of()] == []
    assert isinstance(scene.ask(NOW + 6.0), Pending)


@pytest.mark.parametrize(
    ("good", "bad"), [(0, 0), (4, 0), (0, 4), (2, 3)], ids=["no calls", "few", "bad", "half"]
)
def test_one_that_does_not_know_better_believes_the_others(good: int, bad: int) -> None:
    """Five calls of its own, most of them good, are the least."""
    scene = Scene()
    scene.run(OK, good)
    scene.run(FAILED, bad)
    scene.flagged("ratio", left=5000)

    assert scene.ask() == Refused(CIRCUIT, 5.0)


def test_a_trip_is_believed_by_all() -> None:
    """It is no statistics: the server said it."""
    scene = Scene()
    scene.run(OK, 100)
    scene.flagged("trip")

    assert isinstance(scene.ask(), Refused)


def test_others_429_closes_the_gate() -> None:
    """For as long as is left, and calls under way do not make it longer."""
    scene = Scene()
    permit = scene.ask()
    assert isinstance(permit, Permit)
    (news,) = scene.news("g", scene.gate_tag, 3000, 3000)

    assert isinstance(news, GateClosed)
    assert (news.seconds, news.source) == (3.0, "fleet")
    assert isinstance(scene.ask(), Held)
    assert scene.heard_of() == []
    assert scene.tell(permit, limited(3.0)).early
    assert scene.heard_of() == []


def test_a_gate_only_ever_gets_longer() -> None:
    """The longest wait that anybody was told holds; a tenth of a second more is no news."""
    scene = Scene()
    scene.news("g", scene.gate_tag, 3000, 3000)

    assert scene.news("g", scene.gate_tag, 1000, 1000) == ()
    assert scene.news("g", scene.gate_tag, 3050, 3050) == ()
    assert scene.news("g", scene.gate_tag, 9000, 9000) != ()
    assert scene.store.gates(NOW)[KEY].remaining == 9.0


def test_a_gate_is_never_closed_for_longer_than_is_allowed() -> None:
    """By this process's own configuration, whatever others write."""
    scene = Scene()
    scene.news("g", scene.gate_tag, 80_000_000, 80_000_000)

    assert scene.store.gates(NOW)[KEY].remaining == CONFIG.gate.max_wait


def test_a_circuit_is_never_open_for_longer_than_is_allowed() -> None:
    """Likewise."""
    scene = Scene()
    scene.flagged(left=80_000_000)

    assert scene.ask() == Refused(CIRCUIT, CONFIG.breaker.max_open)


def test_a_store_that_knows_of_less_is_told() -> None:
    """It was emptied, and the connection did not show it; a hundredth of a second is no difference."""
    scene = Scene()
    scene.run(limited(30.0))
    question = scene.last("gate")

    scene.answer(question, 29_990, 29_990)
    assert scene.heard_of() == []
    scene.answer(question, 0, 0, now=NOW + 1.0)
    assert scene.last("gate").args[5] == 29_000
    assert scene.store.gates(NOW + 1.0)[KEY].remaining == 29.0


def test_an_operator_opens_a_gate() -> None:
    """For everybody, at once."""
    scene = Scene()
    scene.news("g", scene.gate_tag, 3000, 3000)
    (news,) = scene.news("o", scene.gate_tag, now=NOW + 1.0)

    assert isinstance(news, GateOpened)
    assert isinstance(scene.ask(NOW + 1.0), Permit)


MADE_UP = 2**53 - 1
"""A version that outranks all real ones."""


@pytest.mark.parametrize("scope", range(3), ids=["everything", "the host", "the model"])
@pytest.mark.parametrize("state", ["open", "closed"])
def test_an_operator_overrules_whatever_was_made_up(scope: int, state: str) -> None:
    """A record's version does not matter, nor whether there is one; what happens afterwards counts again."""
    scene = Scene()
    scene.news("c", scene.tag, MADE_UP, state, 60_000, "trip")
    scene.news("g", scene.gate_tag, 60_000, 60_000)
    assert scene.closed("reset") == ()
    assert scene.flagged(version=VERSION + 1) == ()
    said = scene.news("r", scene.names.scopes(CIRCUIT)[scope], VERSION + 5)

    causes = [news.transition.reason for news in said if isinstance(news, CircuitChanged)]
    assert causes == ([Cause.RESET] if state == "open" else [])
    assert [type(news) for news in said if not isinstance(news, CircuitChanged)] == [GateOpened]
    assert isinstance(scene.ask(), Permit)
    assert scene.flagged(version=VERSION + 4) == ()
    assert scene.flagged(version=VERSION + 6) != ()


def test_an_operators_word_is_about_nothing_else() -> None:
    """Not another host, nor another model of this one, nor the host's own circuit where a model was meant."""
    scene = Scene()
    scene.flagged()
    scene.news("g", scene.gate_tag, 60_000, 60_000)
    for other in (CircuitKey(HOST), CircuitKey(HOST, "another"), CircuitKey("another.example", MODEL)):
        assert scene.news("r", scene.names.circuit(other), VERSION + 5) == ()
    assert scene.news("r", scene.names.host("another.example"), VERSION + 5) == ()
    assert scene.news("r", scene.gate_tag, VERSION + 5) == ()

    assert scene.state() is State.OPEN
    assert scene.store.gates(NOW)[KEY].remaining == 60.0


def test_news_that_were_made_up_end_by_themselves() -> None:
    """Nobody has to overrule them: after this process's own longest times calls go out, and a probe is sent alone."""
    scene = Scene()
    scene.news("c", scene.tag, MADE_UP, "open", 80_000_000, "trip")
    scene.news("g", scene.gate_tag, 80_000_000, 80_000_000)
    longest = max(CONFIG.breaker.max_open, CONFIG.gate.max_wait)

    assert isinstance(scene.ask(NOW + longest - 0.001), Held)
    assert isinstance(scene.ask(NOW + longest), Pending)
    assert isinstance(scene.ask(NOW + longest + 2 * CONFIG.store.timeout), Permit)


# ---- the probe -------------------------------------------------------------------------------------------------


def probing() -> tuple[Scene, Question, float]:
    """The fleet's circuit has been open, and this process asks for the probe."""
    scene = Scene()
    scene.flagged()
    now = NOW + 5.0
    return scene, scene.asked_for_probe(now), now


def test_the_probe_is_asked_for() -> None:
    """The version it knows goes with the question, and the caller is to come back within milliseconds."""
    scene, question, now = probing()

    assert question.args[5:] == (str(VERSION), 5000)
    answer = scene.ask(now + 0.002)
    assert isinstance(answer, Pending)
    assert 0.0 < answer.seconds <= 0.05
    assert scene.heard_of() == []


def test_who_is_given_it_sends_one() -> None:
    """The first caller who comes back; the rest is refused."""
    scene, question, now = probing()
    scene.answer(question, 1, str(VERSION), 0, "trip", 1, 5000, now=now)

    assert isinstance(scene.ask(now), Permit)
    assert isinstance(scene.ask(now), Refused)


@pytest.mark.parametrize(
    ("fact", "script"), [(OK, "close"), (FAILED, "open"), (UNAVAILABLE, "open")], ids=str
)
def test_its_verdict_is_everybodys(fact: Fact, script: str) -> None:
    """Said at once, with the version it was sent under."""
    scene, question, now = probing()
    scene.answer(question, 1, str(VERSION), 0, "trip", 1, 5000, now=now)
    permit = scene.ask(now)
    assert isinstance(permit, Permit)
    scene.tell(permit, fact, now)

    said = scene.last(script)
    assert said.args[-1] == str(VERSION)
    assert (scene.state(now) is State.CLOSED) is fact.ok


def test_who_is_not_given_it_waits_as_long_as_the_others_lease() -> None:
    """A process that was killed with the probe in hand delays the next by that much."""
    scene, question, now = probing()
    scene.answer(question, 1, str(VERSION), 0, "trip", 0, 3000, now=now)

    assert scene.ask(now) == Refused(CIRCUIT, 3.0)
    assert isinstance(scene.ask(now + 3.0), Pending)


def test_a_probe_that_came_to_nothing_is_free_for_the_next() -> None:
    """Here and elsewhere."""
    scene, question, now = probing()
    scene.answer(question, 1, str(VERSION), 0, "trip", 0, 3000, now=now)
    scene.news("f", scene.tag, now=now + 1.0)

    question = scene.asked_for_probe(now + 1.0)
    scene.answer(question, 1, str(VERSION), 0, "trip", 1, 5000, now=now + 1.0)
    permit = scene.ask(now + 1.0)
    assert isinstance(permit, Permit)
    scene.store.abandon(permit, now + 1.0)
    assert scene.last("release").tag == scene.tag


def test_a_lease_that_nobody_comes_for_is_given_back() -> None:
    """The caller who asked has gone: the others need not wait for the lease to end."""
    scene, question, now = probing()
    scene.answer(question, 1, str(VERSION), 0, "trip", 1, 5000, now=now)

    scene.store.due(now + 0.4)
    assert scene.heard_of() == []
    scene.store.due(now + 0.5)
    scene.last("release")


def test_a_lease_that_comes_too_late_is_given_back() -> None:
    """The circuit has been closed in the meantime."""
    scene, question, now = probing()
    scene.closed(now=now)
    scene.answer(question, 1, str(VERSION), 0, "trip", 1, 5000, now=now)

    scene.last("release")


def test_no_answer_is_waited_for_no_longer_than_allowed() -> None:
    """Then this process decides alone, as without a store."""
    scene, _, now = probing()

    assert isinstance(scene.ask(now + 0.049), Pending)
    assert isinstance(scene.ask(now + 0.051), Permit)
    assert isinstance(scene.ask(now + 0.051), Refused)


def test_the_waits_for_an_answer_add_up_to_what_is_allowed() -> None:
    """Each is longer than the one before, and together they are ``store.timeout``."""
    scene, _, now = probing()
    waits = []
    while isinstance(answer := scene.ask(now), Pending):
        waits.append(answer.seconds)
        now += answer.seconds

    assert sum(waits) == pytest.approx(0.05, abs=0.002)
    assert waits[:-1] == sorted(waits[:-1])
    assert len(waits) < 10


def test_one_that_is_behind_catches_up() -> None:
    """Its circuit was opened anew and it has not heard of that: the answer says so, and it waits again."""
    scene, question, now = probing()
    (news,) = scene.answer(question, 1, str(VERSION + 9), 2500, "trip", -1, 2500, now=now) or (None,)

    assert news is None
    assert scene.ask(now) == Refused(CIRCUIT, 2.5)


def test_a_late_verdict_does_not_undo_what_came_after() -> None:
    """A probe's success is about the version it was sent under; here the fleet has opened the circuit anew."""
    scene, question, now = probing()
    scene.answer(question, 1, str(VERSION), 0, "trip", 1, 5000, now=now)
    permit = scene.ask(now)
    assert isinstance(permit, Permit)
    scene.flagged(version=VERSION + 1, now=now)
    scene.tell(permit, OK, now)

    assert scene.state(now) is State.OPEN
    assert [question for question in scene.heard_of() if question.script == "close"] == []


def test_with_the_store_away_the_probe_is_sent_alone() -> None:
    """Nobody is asked, nobody waits."""
    scene, _, now = probing()
    scene.store.linked(now, up=False)

    assert isinstance(scene.ask(now), Permit)


# ---- the store comes and goes ----------------------------------------------------------------------------------


def test_what_still_holds_is_told_when_the_store_is_back() -> None:
    """A trip it does not know of yet as an order, what it once had said as a reminder, a gate with what is left."""
    scene = Scene()
    scene.store.linked(NOW, up=False)
    scene.run(UNAVAILABLE)
    other = ScopeKey(HOST, "credential", "other/model")
    scene.store.acquire(other, scene.config, NOW, first=True)
    permit = scene.store.acquire(other, scene.config, NOW, first=True)
    assert isinstance(permit, Permit)
    scene.store.report(other, permit, limited(30.0), limited(30.0).host, limited(30.0).model, NOW)

    said = scene.store.linked(NOW + 1.0, up=True)
    found = {(question.script, question.tag): question.args for question in said}
    assert found["open", scene.tag][5:7] == ("trip", 4000)
    assert found["gate", scene.names.gate(other)][5] == 29000


def test_a_flag_the_store_lost_is_put_back_unless_it_knows_better() -> None:
    """It was restarted empty: who still has the circuit open says so, as a reminder that overrules nothing."""
    scene = Scene()
    scene.flagged("ratio")
    scene.store.linked(NOW, up=False)

    said = {question.tag: question for question in scene.store.linked(NOW + 1.0, up=True)}
    assert said[scene.tag].script == "open"
    assert said[scene.tag].args[5:] == ("kept", 4000, "ratio")


def test_an_order_that_was_not_confirmed_is_repeated() -> None:
    """The connection broke before the answer: perhaps nobody heard it."""
    scene = Scene()
    scene.run(UNAVAILABLE)
    lost = scene.last("open")
    scene.store.linked(NOW, up=False)
    (again,) = [question for question in scene.store.linked(NOW, up=True) if question.script == "open"]
    assert again.args == lost.args

    scene.answer(again, 1, str(VERSION), 5000, "trip")
    scene.store.linked(NOW, up=False)
    (reminder,) = [question for question in scene.store.linked(NOW, up=True) if question.script == "open"]
    assert reminder.args[5] == "kept"


def test_one_that_was_opened_for_itself_is_not_put_to_the_others() -> None:
    """Coming back changes nothing about that."""
    scene = Scene()
    scene.run(FAILED, 5)
    scene.store.linked(NOW, up=False)

    assert {question.script for question in scene.store.linked(NOW, up=True)} == {"count", "gate"}


def test_what_may_have_been_missed_is_asked_for() -> None:
    """Publications are at most once: after a break everything is looked at once more."""
    scene = Scene()
    assert scene.store.due(NOW) == []
    scene.store.missed()

    assert {question.tag for question in scene.store.due(NOW)} >= {scene.tag, scene.gate_tag}
    assert scene.store.due(NOW) == []


def test_the_last_words() -> None:
    """What has not been told, and that the probe under way will not be waited for."""
    scene, question, now = probing()
    scene.answer(question, 1, str(VERSION), 0, "trip", 1, 5000, now=now)
    assert isinstance(scene.ask(now), Permit)

    assert "release" in {question.script for question in scene.store.parting(now)}
    scene.store.linked(now, up=False)
    assert scene.store.parting(now) == []


# ---- the retry budget ------------------------------------------------------------------------------------------

FLEET_BUDGET = Config(store=StoreConfig(budget="fleet"), budget=BudgetConfig(capacity=100, deposit=0.2))


def test_by_default_a_budget_is_a_processs_own() -> None:
    """A shared one costs goodput in a brown-out."""
    scene = Scene()
    scene.store.withdraw(KEY, CONFIG, 1.0, NOW)

    assert scene.heard_of() == []


def test_tokens_of_the_fleet_are_taken_a_few_at_a_time() -> None:
    """The first retry is paid in advance; the question goes out while it waits."""
    scene = Scene(FLEET_BUDGET)
    assert scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)
    question = scene.last("budget")
    assert question.args[2:] == (50_000, 0, 5000, 60_000)
    scene.answer(question, 5000, 45_000)

    assert [scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW) for _ in range(4)] == [True] * 4
    assert scene.heard_of() == []
    assert scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)
    scene.last("budget")


def test_where_the_fleet_has_none_left_nothing_is_sent_again() -> None:
    """Until successes anywhere have brought some back."""
    scene = Scene(FLEET_BUDGET)
    scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)
    scene.answer(scene.last("budget"), 0, 0)
    assert not scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)

    scene.answer(scene.last("budget"), 2000, 0)
    assert scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)


def test_successes_bring_tokens_back_to_the_fleet() -> None:
    """Told with the regular report, while the budget is not full."""
    scene = Scene(FLEET_BUDGET)
    scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)
    scene.answer(scene.last("budget"), 5000, 20_000)
    scene.run(OK, 10)

    (question,) = [question for question in scene.store.due(NOW) if question.script == "budget"]
    assert question.args[3:5] == (2000, 0)


def test_with_the_store_away_the_own_budget_is_enough() -> None:
    """Also where the fleet's was used up."""
    scene = Scene(FLEET_BUDGET)
    scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)
    scene.answer(scene.last("budget"), 0, 0)
    scene.store.linked(NOW, up=False)

    assert scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)


# ---- names -----------------------------------------------------------------------------------------------------


def test_no_two_names_run_into_each_other() -> None:
    """Host, model and credential are told apart, circuit from gate, one namespace from another."""
    keys = [
        ScopeKey("ab", "c", "d"),
        ScopeKey("a", "bc", "d"),
        ScopeKey("a", "b", "cd"),
        ScopeKey("a", "b", "c", "d"),
    ]
    tags = [
        tag
        for names in (Names("one"), Names("two"))
        for key in keys
        for tag in (names.gate(key), names.budget(key))
    ]
    tags += [Names("one").circuit(CircuitKey("ab", "c")), Names("one").circuit(CircuitKey("a", "bc"))]

    assert len(set(tags)) == len(tags)


def test_all_keys_of_a_scope_have_its_tag_in_braces() -> None:
    """So they lie on one node of a cluster, and names cannot put anything else there."""
    hostile = CircuitKey("h}:{x}", "m {y}\r\nPUBLISH")
    names = Names("prod")
    keys = [names.key(names.circuit(hostile), kind) for kind in ("circuit", "window", "probe")]

    assert all(
        key.startswith("gip-resilience:1:prod:{") and key.count("{") == key.count("}") == 1 for key in keys
    )
    assert len({key.partition("}")[0] for key in keys}) == 1


def test_a_credential_is_digested_with_the_secret() -> None:
    """The same in the whole fleet; another secret or namespace, another digest."""
    digest = Names("a", b"secret").digest(b"sk-very-secret")

    assert digest == Names("a", b"secret").digest(b"sk-very-secret")
    assert (
        len({digest, Names("a").digest(b"sk-very-secret"), Names("b", b"secret").digest(b"sk-very-secret")})
        == 3
    )
    assert len(digest) == 16


@pytest.mark.parametrize("namespace", ["", "a b", "a:b", "{a}", "ä", "x" * 65, "a\n"])
def test_a_wrong_namespace(namespace: str) -> None:
    """It goes into keys and patterns."""
    with pytest.raises(ValueError, match="namespace: expected"):
        Names(namespace)


# ---- words that are not to be believed -----------------------------------------------------------------------------


JUNK = st.one_of(
    st.none(), st.integers(), st.binary(max_size=30), st.text(max_size=30), st.floats(allow_nan=True)
)


@given(reply=st.one_of(JUNK, st.lists(JUNK, max_size=7), st.lists(st.lists(JUNK, max_size=2), max_size=3)))
def test_no_reply_breaks_anything(reply: Any) -> None:
    """Whatever the store answers: something sensible and bounded, or nothing."""
    state = read_circuit(reply)
    gate = read_gate(reply)
    given_left = read_budget(reply)

    assert state is None or (0.0 <= state.left <= LONGEST and 0.0 <= state.wait <= LONGEST)
    assert gate is None or (0.0 <= gate.left <= LONGEST and 0.0 <= gate.claimed <= LONGEST)
    assert given_left is None or min(given_left) >= 0.0


@given(payload=st.one_of(st.binary(max_size=250), JUNK))
def test_no_publication_breaks_anything(payload: object) -> None:
    """Anybody who may publish may publish anything."""
    Scene().store.heard(payload, NOW)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"c 0123456789abcdef 17 open 5000 trip", CircuitState(True, 17, 5.0, "trip")),
        (b"c 0123456789abcdef 17 closed 0 ratio", CircuitState(False, 17, 0.0, "ratio")),
        (b"c 0123456789abcdef 17 open 999999999999 trip", CircuitState(True, 17, LONGEST, "trip")),
        (b"c 0123456789abcdef 17 open -5 trip", CircuitState(True, 17, 0.0, "trip")),
        (b"g 0123456789abcdef 5000 7000", GateState(5.0, 7.0)),
        (b"f 0123456789abcdef", Freed()),
        (b"o 0123456789abcdef", Opened()),
        (b"r 0123456789abcdef 17", Overruled(17)),
        (b"r 0123456789abcdef", None),
        (b"r 0123456789abcdef x", None),
        (b"r * 17", None),
        (b"c 0123456789ABCDEF 17 open 5000 trip", None),
        (b"c 0123456789abcdef 1e9 open 5000 trip", None),
        (b"c 0123456789abcdef 17 ajar 5000 trip", None),
        (b"c 0123456789abcdef 17 open 5000", None),
        (b"c 0123456789abcdef 17 open 5000 trip more", None),
        (b"c 0123456789abcdef 99999999999999999 open 5000 trip", None),
        (b"g 0123456789abcdef 5000", None),
        (b"g 0123456789abcdef nan nan", None),
        (b"f", None),
        (b"x 0123456789abcdef", None),
        (b"", None),
        (b"c 0123456789abcdef 17 open 5000 " + b"x" * 200, None),
        ("c 0123456789abcdef 17 open 5000 trip", None),
    ],
)
def test_what_is_news(payload: object, said: object) -> None:
    """And what is not."""
    found = read_news(payload)

    assert (found and found[1]) == said


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, 0), (-3.0, 0), (0.0001, 1), (1.0, 1000), (1.0004, 1001)]
)
def test_nobody_is_told_to_come_back_too_early(seconds: float, expected: int) -> None:
    """Milliseconds are rounded up."""
    assert milliseconds(seconds) == expected


def test_news_of_what_is_not_known_here() -> None:
    """Other processes call other models."""
    scene = Scene()

    assert scene.news("c", "0" * 16, VERSION, "open", 5000, "trip") == ()
    assert scene.news("g", scene.tag, 5000, 5000) == ()
    assert scene.news("c", scene.gate_tag, VERSION, "open", 5000, "trip") == ()
    assert isinstance(scene.ask(), Permit)


def test_every_cause_from_others_is_seen() -> None:
    """Each transition that only a fleet can bring about."""
    seen = set()
    for prepare in (lambda s: None, lambda s: s.flagged(), lambda s: half_open(s)):
        for word in (Scene.flagged, Scene.closed):
            scene = Scene()
            prepare(scene)
            before = scene.state()
            for news in word(scene, version=VERSION + 5, now=NOW + 5.0):
                assert isinstance(news, CircuitChanged)
                assert TRANSITIONS[before, news.transition.reason] is news.transition.after
                seen.add((before, news.transition.reason))

    assert seen == {
        (state, cause) for state, cause in TRANSITIONS if cause in {Cause.FLEET_OPENED, Cause.FLEET_CLOSED}
    }


def half_open(scene: Scene) -> None:
    """This process sends the probe."""
    scene.flagged()
    scene.answer(scene.asked_for_probe(NOW + 5.0), 1, str(VERSION), 0, "trip", 1, 5000, now=NOW + 5.0)
    assert isinstance(scene.ask(NOW + 5.0), Permit)


def test_many_names_are_forgotten_together() -> None:
    """Tags of circuits and gates that are no longer there are no longer kept."""
    said: list[Question] = []
    store = SharedStore(said.append, node="me", max_keys=8)
    store.linked(NOW, up=True)
    for number in range(1000):
        store.acquire(ScopeKey(HOST, "c", f"model/{number}"), CONFIG, NOW, first=True)

    assert len(store._tags) <= 8 * 8 + 3


def test_a_gate_for_all_models_of_a_credential() -> None:
    """One record, whichever model was called."""
    config = Config(gate=GateConfig(scope="credential"))
    scene = Scene(config)
    scene.run(limited(30.0))

    assert scene.last("gate").tag == scene.names.gate(ScopeKey(HOST, "credential", ""))
