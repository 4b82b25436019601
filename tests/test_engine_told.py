"""The story of a call to the letter: every question to the store and every event, with all that is in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from facts import FAILED, HOST, INVALID, LOST, MODEL, OK, OVERLOADED, SPARED, error, limited
from gip_resilience._announcer import Announcer
from gip_resilience._record import Surroundings
from gip_resilience._report import Attempt, CallReport, Hop
from gip_resilience.breaker import Breaker, Cause, State, Transition
from gip_resilience.budget import Budget
from gip_resilience.config import BudgetConfig, Config
from gip_resilience.effects import Pause, Refuse, Send
from gip_resilience.engine import Call, story
from gip_resilience.events import METHODS, CallStarted, CircuitChanged
from gip_resilience.facts import stream_fact
from gip_resilience.gate import Gate, Held, Place
from gip_resilience.hints import Hint
from gip_resilience.metrics import Metrics
from gip_resilience.policy import BreakerRule, Policy
from gip_resilience.state import CircuitKey, Pending, Permit, Refused, Reported, ScopeKey
from gip_resilience.taxonomy import Fact, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEY = ScopeKey(HOST, "credential", MODEL, "eu")
CIRCUIT = CircuitKey(HOST, "")
EXACT = Config(policies={"overload": Policy(jitter="none"), "timeout": Policy(jitter="none")})
NEWS = CircuitChanged(CIRCUIT, Transition(State.CLOSED, State.OPEN, Cause.TRIPPED, 5.0))
MINUTES = Path(__file__).parent / "data" / "engine_told.txt"
SENDING = 0.25
"""Seconds that each attempt takes."""


class Minutes:
    """A store that answers from lists and writes down what it is asked; an observer that writes down what it is told.

    Args:
        admissions: what `acquire` answers, in order; then permits.
        reports: what `report` answers, in order; then "nothing changed".
        affordable: what `withdraw` answers.
        held: what `queue` answers.
    """

    def __init__(
        self,
        admissions: Iterable[Permit | Held | Refused | Pending] = (),
        reports: Iterable[Reported] = (),
        *,
        affordable: bool = True,
        held: Held | None = None,
    ) -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.number = 0
        self.metrics = Metrics()
        self._admissions = list(admissions)
        self._reports = list(reports)
        self._affordable = affordable
        self._held = held
        for name in METHODS.values():
            setattr(self, name, self._told)

    def call(self, config: Config = EXACT, *, replayable: bool = True, **options: Any) -> Call:
        """A call whose minutes these are."""
        world = Surroundings(self, lambda: self.now, lambda: 0.5, self.metrics, Announcer([self]))  # type: ignore[arg-type]
        call = Call(world, config, KEY, **options)
        call.replayable = replayable
        return call

    def _told(self, event: Any) -> None:
        if isinstance(event, CallStarted):
            self.number = event.call
        self.lines.append("news" if event is NEWS else f"{type(event).__name__} {self._said(event)}".rstrip())

    def _said(self, thing: Any) -> str:
        said = []
        for name, value in msgspec.structs.asdict(thing).items():
            usual = {
                "call": self.number,
                "host": HOST,
                "model": MODEL,
                "reason": "",
                "hops": (),
                "part": "eu",
            }
            if name in usual and value == usual[name]:
                continue
            if isinstance(value, Attempt | CallReport | Hop):
                said.append(f"{name}=({self._said(value)})")
            elif isinstance(value, tuple):
                said.append(f"{name}=[{', '.join(self._said(each) for each in value)}]")
            elif isinstance(value, Hint):
                said.append(f"{name}={value.seconds:g}")
            elif isinstance(value, float):
                said.append(f"{name}={value:g}")
            else:
                said.append(f"{name}={value}")
        return " ".join(said)

    def _asked(self, *words: object) -> None:
        self.lines.append(" ".join(["-", *map(str, words)]).rstrip())

    def acquire(
        self, key: ScopeKey, config: Config, now: float, *, first: bool, place: Place | None = None
    ) -> Permit | Held | Refused | Pending:
        """See `Store.acquire`."""
        assert (key, now) == (KEY, self.now)
        assert isinstance(first, bool)
        line = "" if place is None else f"in line since {place.since:g} until {place.latest:g}"
        self._asked("acquire", "first" if first else "again", line)
        return self._admissions.pop(0) if self._admissions else permit(config)

    def report(self, key: ScopeKey, held: Permit, fact: Fact, *verdicts: Any, took: float = 0.0) -> Reported:
        """See `Store.report`."""
        host, model, now = verdicts
        assert (key, now) == (KEY, self.now)
        assert isinstance(held, Permit)
        self._asked("report", fact.code, host.name, model.name, f"took {took:g}")
        return self._reports.pop(0) if self._reports else Reported()

    def queue(self, key: ScopeKey, config: Config, now: float, place: Place) -> Held | None:
        """See `Store.queue`."""
        assert (key, now) == (KEY, self.now)
        assert isinstance(config, Config)
        self._asked("queue", f"in line since {place.since:g} until {place.latest:g}")
        return self._held

    def exhausted(self, key: ScopeKey, held: Permit, seconds: float, now: float) -> tuple[CircuitChanged]:
        """See `Store.exhausted`."""
        assert (key, now) == (KEY, self.now)
        assert isinstance(held, Permit)
        self._asked("exhausted", seconds)
        return (NEWS,)

    def abandon(self, held: Permit, now: float) -> None:
        """See `Store.abandon`."""
        assert isinstance(held, Permit)
        assert now == self.now
        self._asked("abandon")

    def withdraw(self, key: ScopeKey, config: Config, cost: float, now: float) -> bool:
        """See `Store.withdraw`."""
        assert (key, now) == (KEY, self.now)
        assert isinstance(config, Config)
        self._asked("withdraw", cost)
        return self._affordable

    def leave(self, place: Place) -> None:
        """See `Store.leave`."""
        self._asked("leave", f"{place.since:g}")


def permit(config: Config = EXACT, *, news: bool = False) -> Permit:
    """Leave to send, with or without news."""
    made = Permit(Breaker(config.breaker), None, Gate(config.gate), Budget(config.budget, 0.0))
    made.news = (NEWS,) if news else ()
    return made


def play(minutes: Minutes, call: Call, *facts: Fact | Callable[[Call], Fact]) -> list[str]:
    """Drive a call to its end; each attempt takes a quarter of a second, each pause as long as it says."""
    answers = iter(facts)

    def answer(timeout: float | None) -> Fact:
        minutes.lines.append("> send" if timeout is None else f"> send, {timeout:g} s left")
        minutes.now += SENDING
        found = next(answers)
        return found if isinstance(found, Fact) else found(call)

    try:
        fact = None
        if call.admit():
            fact = answer(call.timeout())
            if fact.ok:
                call.succeed(fact)
                return minutes.lines
        script = story(call, fact)
        effect = next(script)
        while True:
            if isinstance(effect, Send):
                effect = script.send(answer(effect.timeout))
            elif isinstance(effect, Pause):
                minutes.lines.append(f"> pause {effect.seconds:g}")
                minutes.now += effect.seconds
                effect = next(script)
            else:
                minutes.lines.append(f"> {effect}")
                return minutes.lines
    finally:
        call.close()


BROKEN = stream_fact("stream_terminated")


def told(word: BreakerRule) -> Config:
    """The settings where a circuit is told this of overloads and of what is invalid."""
    policy = Policy(jitter="none", breaker=word)
    return Config(policies={"overload": policy, "invalid_request": policy})


HINTED = error("model_overloaded", hint=3.0)
QUOTA = replace(OK, hint=Hint(7.0, "ratelimit-reset"))
OPEN = Refused(CIRCUIT, 4.0, (NEWS,))
HELD = Held(1.5, 9.0, patient=True)
PATIENT = msgspec.structs.replace(EXACT, on_open="wait")
DEADLINE = msgspec.structs.replace(EXACT, deadline=2.0)
ELAPSED = msgspec.structs.replace(EXACT, max_elapsed=2.0)
SHADOW = msgspec.structs.replace(EXACT, budget=BudgetConfig(mode="metrics_only"))

CAREFUL = Config(policies={"timeout": Policy(on_ambiguous="fail")})
SLOW = Config(policies={"overload": Policy(max_hint=7200.0)}, max_elapsed=None)
PAYS_NOTHING = msgspec.structs.replace(EXACT, budget=BudgetConfig(mode="off"))

STORIES: dict[str, tuple[dict[str, Any], Config, dict[str, Any], list[Fact]]] = {
    "at once": ({}, EXACT, {}, [OK]),
    "at once, its quota used up": ({"reports": [Reported((NEWS,))]}, EXACT, {}, [QUOTA]),
    "admitted with news": ({"admissions": [permit(news=True)]}, DEADLINE, {}, [OK]),
    "invalid": ({}, EXACT, {}, [INVALID]),
    "a retry": (
        {"reports": [Reported((NEWS,))]},
        EXACT,
        {"asked": lambda: ("POST", f"https://{HOST}/v1/chat/completions")},
        [OVERLOADED, QUOTA],
    ),
    "a hint, honoured": ({}, EXACT, {}, [HINTED, HINTED, OK]),
    "a hint, not honoured": ({}, EXACT, {}, [error("model_overloaded", hint=500.0)]),
    "a hint past the deadline": ({}, DEADLINE, {}, [HINTED]),
    "a hint past the last start": ({}, ELAPSED, {}, [HINTED]),
    "a wait past the deadline": ({}, DEADLINE, {}, [OVERLOADED, OVERLOADED]),
    "a wait past the last start": ({}, ELAPSED, {}, [OVERLOADED, OVERLOADED]),
    "all attempts used": ({}, EXACT, {}, [LOST, LOST]),
    "the circuit opens meanwhile": ({"reports": [Reported(open_for=5.0)]}, EXACT, {}, [OVERLOADED]),
    "the gate closes": (
        {"reports": [Reported(gate_wait=2.0)], "held": Held(2.5, 2.5, patient=True)},
        EXACT,
        {},
        [limited(2.0), OK],
    ),
    "no use at the gate": (
        {"reports": [Reported(gate_wait=2.0)], "held": Held(2.5, 2.5, patient=False)},
        EXACT,
        {},
        [limited(2.0)],
    ),
    "too early for the news, so free": (
        {"reports": [Reported(gate_wait=2.0, early=True)], "held": Held(2.5, 2.5, patient=True)},
        msgspec.structs.replace(EXACT, deadline=100.0),
        {},
        [limited(), OK],
    ),
    "no budget": ({"affordable": False}, EXACT, {}, [OVERLOADED]),
    "a budget that only counts": ({"affordable": False}, SHADOW, {}, [OVERLOADED, OK]),
    "spared once": ({"affordable": False}, EXACT, {}, [SPARED, SPARED]),
    "refused at once": ({"admissions": [OPEN]}, EXACT, {}, []),
    "refused, with an answer of ours": ({"admissions": [OPEN]}, EXACT, {"sdk": True}, []),
    "refused, an answer of ours is wanted": (
        {"admissions": [OPEN]},
        msgspec.structs.replace(EXACT, on_open="respond"),
        {},
        [],
    ),
    "waits for the circuit": ({"admissions": [OPEN]}, PATIENT, {}, [OK]),
    "cannot wait for the circuit": (
        {"admissions": [OPEN]},
        msgspec.structs.replace(PATIENT, deadline=4.0),
        {},
        [],
    ),
    "refused after an answer": ({"admissions": [permit(), OPEN]}, PATIENT, {}, [OVERLOADED]),
    "asks the others": (
        {"admissions": [Pending(CIRCUIT, 0.005, (NEWS,)), permit(news=True)]},
        EXACT,
        {},
        [OK],
    ),
    "cannot ask the others": (
        {"admissions": [Pending(CIRCUIT, 0.5, (NEWS,))]},
        msgspec.structs.replace(EXACT, deadline=0.5),
        {},
        [],
    ),
    "held at the gate": ({"admissions": [HELD, HELD]}, DEADLINE, {}, [OK]),
    "held, and no use in waiting": ({"admissions": [HELD, Held(1.5, 9.0, patient=False)]}, EXACT, {}, []),
    "held for too long": ({"admissions": [HELD, HELD]}, msgspec.structs.replace(EXACT, deadline=1.5), {}, []),
    "held twice": (
        {"admissions": [HELD, HELD, Held(0.25, 0.25, patient=True)]},
        msgspec.structs.replace(EXACT, max_elapsed=9.0),
        {},
        [OK],
    ),
    "late without an answer": ({}, msgspec.structs.replace(EXACT, deadline=0.25), {}, [LOST]),
    "late, where answers of ours are wanted": (
        {},
        msgspec.structs.replace(EXACT, deadline=0.25, on_open="respond"),
        {"sdk": True},
        [LOST],
    ),
    "late with an answer": ({}, msgspec.structs.replace(EXACT, deadline=0.25), {}, [OVERLOADED]),
    "the server wants what no table would do": ({}, EXACT, {}, [replace(INVALID, should_retry=True)] * 2),
    "the server wants what is done anyway": ({}, EXACT, {}, [replace(OVERLOADED, should_retry=True), OK]),
    "the server forbids it": ({}, EXACT, {}, [replace(OVERLOADED, should_retry=False)]),
    "only with a hint, and there is none": ({}, EXACT, {}, [replace(OVERLOADED, retry=Retry.IF_HINT)]),
    "only with a hint, and there is one": ({}, EXACT, {}, [replace(HINTED, retry=Retry.IF_HINT), OK]),
    "what may have been executed is not repeated": ({}, CAREFUL, {}, [LOST]),
    "the body is gone": ({}, EXACT, {"replayable": False}, [OVERLOADED]),
    "a hint that is just heeded": ({}, EXACT, {}, [error("model_overloaded", hint=120.0)]),
    "the server says now": ({}, EXACT, {}, [error("model_overloaded", hint=0.0), OK]),
    "a hint shorter than the backoff, again": (
        {},
        EXACT,
        {},
        [error("model_overloaded", hint=0.5), error("model_overloaded", hint=0.5), OK],
    ),
    "a hint of an hour, heeded with little chance": (
        {},
        SLOW,
        {},
        [error("model_overloaded", hint=3600.0), OK],
    ),
    "the circuit is told of a failure": ({}, told("failure"), {}, [INVALID]),
    "the circuit trips": ({}, told("trip"), {}, [INVALID]),
    "the circuit is told nothing": ({}, told("ignore"), {}, [OVERLOADED, OK]),
    "no budget is kept": ({"affordable": False}, PAYS_NOTHING, {}, [OVERLOADED, OK]),
    "any time will do": ({}, msgspec.structs.replace(EXACT, max_elapsed=None), {}, [OVERLOADED, OK]),
    "the circuit opens for as long as the wait": (
        {"reports": [Reported(open_for=1.0)]},
        EXACT,
        {},
        [OVERLOADED, OK],
    ),
    "a turn at the gate before the backoff": (
        {"reports": [Reported(gate_wait=0.5)], "held": Held(0.5, 0.5, patient=True)},
        EXACT,
        {},
        [OVERLOADED, OK],
    ),
    "late, and only seen when it asks": (
        {"admissions": [HELD, HELD, HELD]},
        msgspec.structs.replace(EXACT, deadline=1.6),
        {},
        [],
    ),
    "two classes of failures": ({}, EXACT, {}, [OVERLOADED, LOST, LOST]),
    "under an SDK that retries": ({}, EXACT, {"sdk": True, "single": True}, [FAILED]),
}
"""What the store does, the settings, what is special about the call, and what its attempts come to."""

STREAMS: dict[str, tuple[Config, list[str]]] = {
    "a stream": (EXACT, ["opens", "ends"]),
    "a stream, its quota used up": (EXACT, ["opens with a hint", "ends"]),
    "a stream that is left": (EXACT, ["opens", "left"]),
    "a stream that breaks, and another": (EXACT, ["opens", "breaks", "opens", "ends"]),
    "two that break, and what flowed does not count": (ELAPSED, ["opens", "breaks", "opens", "breaks"]),
    "a stream that breaks, and no other": (EXACT, ["opens", "breaks", "fails"]),
    "a stream that breaks past its deadline": (DEADLINE, ["opens", "breaks"]),
    "a stream that breaks, and nothing can be done": (EXACT, ["opens", "breaks for good"]),
}
"""What becomes of streams; each flows for two seconds."""


def stream(minutes: Minutes, call: Call, events: list[str]) -> list[str]:
    """Drive a call whose answers are streams."""
    assert call.admit()
    script = None
    for event in events:
        match event.split():
            case ["opens", *hinted]:
                minutes.now += SENDING
                call.streaming = True
                fact = QUOTA if hinted else OK
                if script is None:
                    call.succeed(fact)
                else:
                    effect = script.send(fact)
                    minutes.lines.append(f"> {effect}")
                    call.continued("replay")
                minutes.now += 2.0
                minutes.lines.append(f"> overdue: {call.overdue()}")
            case ["fails"]:
                minutes.now += SENDING
                assert script is not None
                minutes.lines.append(f"> {script.send(OVERLOADED)}")
            case ["ends"]:
                call.stream_ended()
            case ["left"]:
                call.stream_left()
            case ["breaks", *hopeless]:
                call.propose(Hop("replay", "stream_terminated", "output", 3))
                decision = call.judge(BROKEN, " ".join(hopeless))
                minutes.lines.append(f"> {decision}")
                if isinstance(decision, Pause):
                    call.agree()
                    minutes.now += decision.seconds
                    script = story(call, None)
                    effect = next(script)
                    minutes.lines.append(f"> {effect}")
    call.close()
    return minutes.lines


def expected(name: str) -> list[str]:
    """What is written down of a story."""
    _, _, rest = MINUTES.read_text().partition(f"== {name}\n")
    return rest.partition("== ")[0].splitlines()


@pytest.mark.parametrize("name", STORIES)
def test_a_story_is_told_to_the_letter(name: str) -> None:
    """Who is asked what, who is told what, and what the driver is to do, in this order."""
    world, config, options, facts = STORIES[name]
    minutes = Minutes(**world)

    assert play(minutes, minutes.call(config, **options), *facts) == expected(name)


@pytest.mark.parametrize("name", STREAMS)
def test_a_streams_story_is_told_to_the_letter(name: str) -> None:
    """The same of calls whose answers are streams."""
    config, events = STREAMS[name]
    minutes = Minutes()

    assert stream(minutes, minutes.call(config), events) == expected(name)


def test_who_comes_at_the_very_deadline_is_late() -> None:
    """Nobody can be answered in no time at all."""
    minutes = Minutes([HELD])
    call = minutes.call(DEADLINE)
    assert not call.admit()
    minutes.now += 2.0

    assert call.enter() == Refuse("deadline", HOST, MODEL, None, respond=False)


def test_the_everyday_call_is_counted() -> None:
    """A success at once is counted by host and model, with the time it took."""
    minutes = Minutes()

    play(minutes, minutes.call(), OK)

    counted = minutes.metrics.snapshot()
    assert counted.calls == {(HOST, MODEL, "ok", "success"): 1}
    assert counted.attempts == {(HOST, MODEL, "ok"): 1}
    assert counted.call_seconds[HOST, MODEL].total == SENDING
