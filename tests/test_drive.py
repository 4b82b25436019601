"""The two drivers against a port that plays what it is told: they perform, in order, and decide nothing."""

from __future__ import annotations

import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import gip_resilience as gr
from facts import FAILED, HOST, LOST, MODEL, OK, OVERLOADED
from gip_resilience._recording import Recorder
from gip_resilience.drive import adrive, drive, uncovered, untraced
from gip_resilience.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.taxonomy import Fact


class FakePort:
    """A port that plays facts and errors, and writes down what it was asked."""

    def __init__(self, *plays: Fact | BaseException, clock: FakeClock, log: list[str]) -> None:
        self._plays = deque(plays)
        self._clock = clock
        self.log = log
        self.failure: Exception | None = None

    def attempt(self, timeout: float | None) -> Fact:
        """Play the next fact; raise it when it is an error."""
        self.log.append("attempt" if timeout is None else f"attempt within {timeout:g}")
        self.failure = None
        play = self._plays.popleft()
        if isinstance(play, BaseException):
            raise play
        if play.status is None:
            self.failure = ConnectionError("lost")
        return play

    def release(self) -> None:
        """Write it down."""
        self.log.append("release")

    def deliver(self, call: Call) -> str:
        """What the caller gets."""
        self.log.append("deliver")
        return "the answer"

    def refuse(self, refusal: Refuse, call: Call) -> str:
        """What the caller gets, or is raised."""
        self.log.append(f"refuse {refusal.kind}")
        if refusal.respond:
            return "our answer"
        raise gr.CircuitOpenError


class AsyncFakePort(FakePort):
    """The same, awaiting."""

    async def attempt(self, timeout: float | None) -> Fact:  # type: ignore[override]
        """See `FakePort.attempt`."""
        await anyio.lowlevel.checkpoint()
        return super().attempt(timeout)

    async def release(self) -> None:  # type: ignore[override]
        """See `FakePort.release`."""
        super().release()


class Stage:
    """Either driver, with a clock that writes into the same log as the port."""

    def __init__(self, colour: str) -> None:
        self.colour = colour
        self.log: list[str] = []
        self.clock = _LoggingClock(self.log)
        self.brain = gr.Resilience(
            gr.Config(policies={"overload": gr.Policy(jitter="none")}), clock=self.clock, chance=lambda: 0.5
        )

    def run(self, *plays: Fact | BaseException, **options: Any) -> tuple[Any, FakePort]:
        """Drive one call; what came of it (an error as a value), and its port."""
        call = self.brain.call(HOST, "", MODEL, **options)
        if self.colour == "blocking":
            port = FakePort(*plays, clock=self.clock, log=self.log)
            return _outcome(lambda: drive(call, port, self.clock)), port
        aport = AsyncFakePort(*plays, clock=self.clock, log=self.log)

        async def main() -> Any:
            return await adrive(call, aport, self.clock)  # type: ignore[arg-type]

        return _outcome(lambda: anyio.run(main, backend=self.colour)), aport


def _outcome(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception as error:
        return error


class _LoggingClock(FakeClock):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def sleep(self, seconds: float) -> None:
        self._log.append(f"sleep {seconds:g}")
        super().sleep(seconds)


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Each driver in turn."""
    return Stage(request.param)


def test_a_healthy_call_is_sent_and_delivered(stage: Stage) -> None:
    """Nothing else is done."""
    outcome, _ = stage.run(OK)

    assert outcome == "the answer"
    assert stage.log == ["attempt", "deliver"]


def test_the_connection_is_given_back_before_each_pause(stage: Stage) -> None:
    """Or a pool of one would wait for itself."""
    outcome, _ = stage.run(OVERLOADED, OVERLOADED, OK)

    assert outcome == "the answer"
    assert stage.log == [
        "attempt",
        "release",
        "sleep 1",
        "attempt",
        "release",
        "sleep 2",
        "attempt",
        "deliver",
    ]


def test_what_is_handed_up_is_not_given_back_first(stage: Stage) -> None:
    """The last answer belongs to the caller, who has yet to read it."""
    stage.run(OVERLOADED, OVERLOADED, OVERLOADED, OVERLOADED)

    assert stage.log[-2:] == ["attempt", "deliver"]


def test_the_last_error_is_raised_with_a_report(stage: Stage) -> None:
    """The client's own error, and a note on it about what was done."""
    outcome, port = stage.run(LOST, LOST)

    assert type(outcome) is ConnectionError
    assert port.failure is None
    assert [attempt.code for attempt in gr.report(outcome).attempts] == ["connection_lost"] * 2  # type: ignore[union-attr]
    assert outcome.__notes__[0].startswith("gip_resilience: failure after 2 attempt(s)")


def test_an_answer_after_an_error_is_the_last_word(stage: Stage) -> None:
    """What is handed up is what came last."""
    outcome, _ = stage.run(LOST, FAILED, FAILED)

    assert outcome == "the answer"


@pytest.mark.parametrize(("sdk", "expected"), [(True, "our answer"), (False, gr.CircuitOpenError)])
def test_a_refusal_is_answered_or_raised(stage: Stage, sdk: bool, expected: Any) -> None:
    """Without a single attempt."""
    stage.brain.breakers.force_open(HOST)

    outcome, _ = stage.run(sdk=sdk)

    assert outcome == expected or isinstance(outcome, expected)
    assert stage.log[0] == "refuse circuit_open"
    assert "attempt" not in stage.log


def test_a_port_is_told_what_is_left_of_the_deadline(stage: Stage) -> None:
    """Of the whole call, not of the attempt."""
    with stage.brain.override(deadline=10.0):
        stage.run(OVERLOADED, OK)

    assert [line for line in stage.log if line.startswith("attempt")] == [
        "attempt within 10",
        "attempt within 9",
    ]


@pytest.mark.parametrize("place", [0, 1], ids=["first attempt", "retry"])
def test_an_error_that_is_not_the_clients_passes_through(stage: Stage, place: int) -> None:
    """The same object, unmarked; what was in hand is released, and the call counts as cancelled."""
    theirs = LookupError("theirs")

    outcome, _ = stage.run(*[OVERLOADED] * place, theirs)

    assert outcome is theirs
    assert not hasattr(theirs, "gip_resilience")
    assert stage.log[-1] == "release"
    assert stage.brain.metrics.snapshot().total("cancelled") == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pause_can_be_cancelled(backend: str) -> None:
    """At once, and no further attempt is made."""
    stage = Stage(backend)

    class Impatient(_LoggingClock):
        async def asleep(self, seconds: float) -> None:
            scope.cancel()
            await super().asleep(seconds)

    clock = Impatient(stage.log)
    call = stage.brain.call(HOST, "", MODEL)
    scope: anyio.CancelScope

    async def main() -> None:
        nonlocal scope
        with anyio.CancelScope() as scope:
            await adrive(call, AsyncFakePort(OVERLOADED, OK, clock=clock, log=stage.log), clock)  # type: ignore[arg-type]
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)

    assert stage.log.count("attempt") == 1
    assert call.outcome == "cancelled"


def test_a_failure_that_is_kept_holds_no_frames() -> None:
    """Neither its own nor those of its causes, even where these form a circle."""
    try:
        try:
            raise LookupError("below")
        except LookupError as below:
            raise ConnectionError("above") from below
    except ConnectionError as error:
        kept = error
    assert kept.__traceback__ is not None

    untraced(kept)

    assert kept.__traceback__ is None
    cause = kept.__cause__
    assert cause is not None
    assert cause.__traceback__ is None
    cause.__cause__ = kept
    assert untraced(kept) is kept


def traced(call: Callable[[], object]) -> BaseException:
    """The error that a call ends with, and the way it came."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it was expected to fail")


def modules_on_the_way(error: BaseException) -> list[str]:
    """The modules an error came through, outermost first."""
    return [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]


def test_the_callers_error_leads_to_the_callers_code() -> None:
    """What lies between his call and his code is taken out of the traceback; the two ends stay."""

    def theirs() -> Iterator[bytes]:
        yield b"begun"
        raise LookupError("theirs")

    error = traced(lambda: list(Recorder(theirs(), 100)))
    assert "gip_resilience._recording" in modules_on_the_way(error)

    uncovered(error)

    assert set(modules_on_the_way(error)) == {__name__}


def test_an_error_of_our_own_is_not_hidden() -> None:
    """Where the last frame is ours nothing is taken out, or nobody could find our mistake."""
    error = traced(lambda: list(Recorder([None], 100)))  # type: ignore[list-item]
    way = modules_on_the_way(error)
    assert way[-1].startswith("gip_resilience.")

    uncovered(error)

    assert modules_on_the_way(error) == way
