"""Log lines: one table of what is said of each event, to the logging module and to structlog."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import structlog

import gip_resilience as gr
from gip_resilience import events
from gip_resilience._announcer import Announcer
from gip_resilience.breaker import Cause, Control, State, Transition
from gip_resilience.logs import DebugLog, LogObserver
from gip_resilience.state import CircuitKey
from gip_resilience.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

WHOSE = (7, "api.test", "gpt-5")
CALL = {"call": 7, "host": "api.test", "model": "gpt-5"}
SCOPE = {"host": "api.test", "model": "gpt-5"}
HINT = gr.Hint(2.0, "retry-after")
LOST = gr.Attempt(2, "connection_lost", None, 0.5, 1.0, None, True, 1.25)
FAILED = gr.CallReport(
    "api.test", "gpt-5", "failure", "all 2 attempts used", (LOST, LOST), 1.75, 1.0, None, (), "eu"
)
REFUSED = gr.CallReport("api.test", "", "refused", "circuit open", (), 0.0, 0.0, None)
REPORTED = {
    **CALL,
    "part": "eu",
    "outcome": "failure",
    "reason": "all 2 attempts used",
    "code": "connection_lost",
    "status": None,
    "attempts": 2,
    "elapsed": 1.75,
    "waited": 1.0,
    "maybe_executed": True,
}


class Line(NamedTuple):
    """An event and what is said of it."""

    event: events.Event
    level: int
    text: str
    fields: dict[str, Any]


def hop(action: str, code: str = "stream_reset", reason: str = "") -> gr.Hop:
    """A break after three events."""
    return gr.Hop(action, code, "output", 3, reason)


def broken(action: str, code: str = "stream_reset", reason: str = "") -> dict[str, Any]:
    """The fields of that break."""
    return {**CALL, "code": code, "action": action, "phase": "output", "events": 3, "reason": reason}


def change(before: State, after: State, cause: Cause, open_for: float | None = None) -> events.CircuitChanged:
    """A change of the model's circuit."""
    return events.CircuitChanged(CircuitKey("api.test", "gpt-5"), Transition(before, after, cause, open_for))


def changed(before: str, after: str, reason: str, open_for: float | None = None) -> dict[str, Any]:
    """The fields of that change."""
    return {**SCOPE, "before": before, "after": after, "reason": reason, "open_for": open_for}


LINES = [
    Line(
        events.RetryScheduled(*WHOSE, "http_503", 1, 4, 0.25, "backoff", maybe_executed=False),
        INFO,
        "retry api.test gpt-5: http_503, attempt 1 of 4, waiting 0.250 s (backoff)",
        {
            **CALL,
            "code": "http_503",
            "attempt": 1,
            "max_attempts": 4,
            "wait": 0.25,
            "reason": "backoff",
            "maybe_executed": False,
        },
    ),
    Line(
        events.HintHonoured(*WHOSE, "http_503", HINT, 2.1),
        INFO,
        "hint api.test gpt-5: http_503, server asked for 2 s (retry-after), honoured",
        {**CALL, "code": "http_503", "hint": 2.0, "hint_source": "retry-after", "wait": 2.1},
    ),
    Line(
        events.HintRefused(*WHOSE, "http_503", HINT, "the deadline would pass"),
        WARNING,
        "hint api.test gpt-5: http_503, server asked for 2 s (retry-after), not waited: the deadline would pass",
        {
            **CALL,
            "code": "http_503",
            "hint": 2.0,
            "hint_source": "retry-after",
            "reason": "the deadline would pass",
        },
    ),
    Line(
        events.BudgetRefused(*WHOSE, "http_503", 5.0),
        WARNING,
        "budget api.test gpt-5: http_503 is not tried again, the retry budget is spent",
        {**CALL, "code": "http_503", "cost": 5.0},
    ),
    Line(
        events.CallGaveUp(7, FAILED),
        ERROR,
        "gave up api.test gpt-5@eu: connection_lost, 2 attempt(s) in 1.750 s (all 2 attempts used),"
        " may have been executed",
        REPORTED,
    ),
    Line(
        events.CallGaveUp(7, REFUSED),
        WARNING,
        "gave up api.test -: nothing was sent, 0.000 s (circuit open)",
        {
            **REPORTED,
            "model": "",
            "part": "",
            "outcome": "refused",
            "reason": "circuit open",
            "code": None,
            "attempts": 0,
            "elapsed": 0.0,
            "waited": 0.0,
            "maybe_executed": False,
        },
    ),
    Line(
        events.GateWaited(*WHOSE, 1.5),
        INFO,
        "rate limited api.test gpt-5: waiting 1.500 s",
        {**CALL, "wait": 1.5},
    ),
    Line(
        events.GateClosed("api.test", "gpt-5", 3.0, "hint"),
        INFO,
        "gate api.test gpt-5: closed for 3.000 s (hint)",
        {**SCOPE, "wait": 3.0, "source": "hint", "lengthened": False},
    ),
    Line(
        events.GateClosed("api.test", "", 3.0, "guess", lengthened=True),
        DEBUG,
        "gate api.test -: stays closed for 3.000 s (guess)",
        {"host": "api.test", "model": "", "wait": 3.0, "source": "guess", "lengthened": True},
    ),
    Line(
        events.GateOpened("api.test", "gpt-5", 3.0),
        INFO,
        "gate api.test gpt-5: open again after 3.000 s",
        {**SCOPE, "closed_for": 3.0},
    ),
    Line(
        change(State.CLOSED, State.OPEN, Cause.FAILURE_RATIO, 30.0),
        WARNING,
        "circuit api.test gpt-5: closed -> open (failure ratio, for 30.000 s)",
        changed("closed", "open", "failure ratio", 30.0),
    ),
    Line(
        change(State.OPEN, State.HALF_OPEN, Cause.PROBE),
        INFO,
        "circuit api.test gpt-5: open -> half_open (probe)",
        changed("open", "half_open", "probe"),
    ),
    Line(
        change(State.HALF_OPEN, State.CLOSED, Cause.PROBE_SUCCEEDED),
        INFO,
        "circuit api.test gpt-5: half_open -> closed (probe succeeded)",
        changed("half_open", "closed", "probe succeeded"),
    ),
    Line(
        events.CircuitOverruled(CircuitKey("api.test", "gpt-5"), Control.FORCED_OPEN),
        WARNING,
        "circuit api.test gpt-5: set to forced_open by an operator",
        {**SCOPE, "control": "forced_open"},
    ),
    Line(
        events.CircuitOverruled(CircuitKey("api.test"), Control.AUTO),
        INFO,
        "circuit api.test: set to auto by an operator",
        {"host": "api.test", "model": "", "control": "auto"},
    ),
    Line(
        events.ProbeSent(CircuitKey("api.test")),
        INFO,
        "circuit api.test: probe sent",
        {"host": "api.test", "model": ""},
    ),
    Line(
        events.ShadowRefused("api.test", "gpt-5", "gate"),
        INFO,
        "metrics only api.test gpt-5: the gate would have refused or held a request",
        {**SCOPE, "guard": "gate"},
    ),
    Line(
        events.StateDegraded("memory", "lost\r\nWARNING forged\x1b[31m"),
        WARNING,
        "state memory: degraded: lost  WARNING forged [31m",
        {"component": "memory", "reason": "lost  WARNING forged [31m"},
    ),
    Line(
        events.StateRestored("memory"),
        INFO,
        "state memory: whole again",
        {"component": "memory"},
    ),
    Line(
        events.StreamBroken(*WHOSE, hop("restart")),
        INFO,
        "stream api.test gpt-5: stream_reset after 3 event(s), output: restart",
        broken("restart"),
    ),
    Line(
        events.StreamBroken(*WHOSE, hop("fail", reason="all 2 attempts used")),
        WARNING,
        "stream api.test gpt-5: stream_reset after 3 event(s), output: fail (all 2 attempts used)",
        broken("fail", reason="all 2 attempts used"),
    ),
    Line(
        events.StreamBroken(*WHOSE, hop("unguarded", "ok", "an event is too long")),
        WARNING,
        "stream api.test gpt-5: ok after 3 event(s), output: unguarded (an event is too long)",
        broken("unguarded", "ok", "an event is too long"),
    ),
    Line(
        events.StreamContinued(*WHOSE, "replay", 2),
        INFO,
        "stream api.test gpt-5: goes on by replay, attempt 2",
        {**CALL, "action": "replay", "attempt": 2},
    ),
    Line(
        events.StreamDiverged(*WHOSE, hop("fail", "stream_diverged")),
        WARNING,
        "stream api.test gpt-5: the replay is another answer, nothing of it was used: fail",
        broken("fail", "stream_diverged"),
    ),
    Line(
        events.MarkerSupplied(*WHOSE, hop("marker", "stream_terminated")),
        INFO,
        "stream api.test gpt-5: stream_terminated with only the terminal marker missing, supplied",
        broken("marker", "stream_terminated"),
    ),
    Line(
        events.ConfigReloaded("/etc/gip.yaml", ("gate", "breaker")),
        INFO,
        "config reloaded from /etc/gip.yaml, changed: gate, breaker",
        {"source": "/etc/gip.yaml", "changed": "gate, breaker"},
    ),
    Line(
        events.ConfigReloaded("", ()),
        INFO,
        "config reloaded, changed: nothing",
        {"source": "", "changed": ""},
    ),
    Line(
        events.ConfigRejected("/etc/gip.yaml", "gate.spread: expected a number"),
        WARNING,
        "config /etc/gip.yaml rejected, the old one stays in force: gate.spread: expected a number",
        {"source": "/etc/gip.yaml", "reason": "gate.spread: expected a number"},
    ),
]

DEBUG_LINES = [
    Line(
        events.CallStarted(*WHOSE, "eu", "POST", "https://api.test/v1/chat"),
        DEBUG,
        "call 7 api.test gpt-5: POST https://api.test/v1/chat",
        {**CALL, "part": "eu", "method": "POST", "url": "https://api.test/v1/chat"},
    ),
    Line(
        events.AttemptStarted(*WHOSE, 2),
        DEBUG,
        "call 7 api.test gpt-5: attempt 2",
        {**CALL, "attempt": 2},
    ),
    Line(
        events.AttemptEnded(*WHOSE, LOST),
        DEBUG,
        "call 7 api.test gpt-5: attempt 2: connection_lost (no answer) in 0.500 s, may have been executed",
        {
            **CALL,
            "attempt": 2,
            "code": "connection_lost",
            "status": None,
            "elapsed": 0.5,
            "waited": 1.0,
            "hint": None,
            "maybe_executed": True,
        },
    ),
    Line(
        events.AttemptEnded(*WHOSE, gr.Attempt(1, "http_503", 503, 0.5, 0.0, HINT, False)),
        DEBUG,
        "call 7 api.test gpt-5: attempt 1: http_503 (503) in 0.500 s",
        {
            **CALL,
            "attempt": 1,
            "code": "http_503",
            "status": 503,
            "elapsed": 0.5,
            "waited": 0.0,
            "hint": 2.0,
            "maybe_executed": False,
        },
    ),
    Line(
        events.StreamOpened(*WHOSE),
        DEBUG,
        "call 7 api.test gpt-5: stream opened",
        CALL,
    ),
    Line(
        events.CallRefused(*WHOSE, "circuit_open", 12.0),
        DEBUG,
        "call 7 api.test gpt-5: not sent (circuit_open, again in 12.000 s)",
        {**CALL, "kind": "circuit_open", "retry_after": 12.0},
    ),
    Line(
        events.CallPaused(*WHOSE, 0.5, "backoff"),
        DEBUG,
        "call 7 api.test gpt-5: waits 0.500 s (backoff)",
        {**CALL, "seconds": 0.5, "reason": "backoff"},
    ),
    Line(
        events.DeadlineReached(*WHOSE, 30.0, 29.5),
        DEBUG,
        "call 7 api.test gpt-5: deadline of 30 s after 29.500 s",
        {**CALL, "deadline": 30.0, "elapsed": 29.5},
    ),
    Line(
        events.CallEnded(7, FAILED),
        DEBUG,
        "call 7 api.test gpt-5@eu: failure after 2 attempt(s) in 1.750 s (all 2 attempts used)",
        REPORTED,
    ),
]

SILENT: list[events.Event] = [
    events.StreamBroken(*WHOSE, hop("fail", "stream_diverged")),
    events.StreamBroken(*WHOSE, hop("marker", "stream_terminated")),
]
"""Told by another event as well, which has the line."""

ALL = [*LINES, *DEBUG_LINES]
BY_KIND = [f"{number}-{type(line.event).__name__}" for number, line in enumerate(ALL)]
every_line = pytest.mark.parametrize("line", ALL, ids=BY_KIND)


def name_of(event: events.Event) -> str:
    """How an event is called in a line."""
    return events.METHODS[type(event)].removeprefix("on_")


def tell(event: events.Event) -> None:
    """Tell both observers, as a `Resilience` with both would."""
    Announcer([LogObserver(FakeClock().monotonic), DebugLog()], failed=_fail).tell(event)


def _fail() -> None:
    raise AssertionError("an observer failed")


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was said to our logger."""
    return [record for record in caplog.records if record.name == "gip_resilience"]


@pytest.fixture
def entries() -> Iterator[list[dict[str, Any]]]:
    """What structlog was told, by a program that has configured it."""
    heard: list[dict[str, Any]] = []

    def keep(_: object, level: str, entry: dict[str, Any]) -> str:
        heard.append({"level": level, **entry})
        raise structlog.DropEvent

    structlog.configure(
        processors=[keep],
        wrapper_class=structlog.make_filtering_bound_logger(DEBUG),
        cache_logger_on_first_use=False,
    )
    yield heard
    structlog.reset_defaults()


# ---- what is said --------------------------------------------------------------------------------------------


def test_the_table_is_complete() -> None:
    """Every kind of event has a line."""
    assert {type(line.event) for line in ALL} == set(events.METHODS)


@every_line
def test_line(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """One line each: its level, its words, and plain fields for machines."""
    caplog.set_level(DEBUG, "gip_resilience")

    tell(line.event)

    (record,) = ours(caplog)
    extra = {name: value for name, value in vars(record).items() if name.startswith("gip_")}
    expected = {f"gip_{name}": value for name, value in line.fields.items()}
    assert (record.levelno, record.getMessage()) == (line.level, line.text)
    assert extra == {"gip_event": name_of(line.event), **expected}
    assert {type(value) for value in extra.values()} <= {str, int, float, bool, type(None)}
    assert line.text.isprintable()


@every_line
def test_line_of_structlog(
    line: Line, entries: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """The same event, level and fields; nothing goes to the logging module then."""
    caplog.set_level(DEBUG, "gip_resilience")

    tell(line.event)

    level = logging.getLevelName(line.level).lower()
    assert entries == [{"level": level, "event": name_of(line.event), **line.fields}]
    assert ours(caplog) == []


@pytest.mark.parametrize("event", SILENT, ids=["diverged", "marker"])
def test_no_second_line(event: events.Event, caplog: pytest.LogCaptureFixture) -> None:
    """What another event tells better has no line of its own."""
    caplog.set_level(DEBUG, "gip_resilience")

    tell(event)

    assert ours(caplog) == []


@every_line
def test_a_formatter_may_print_every_field(line: Line) -> None:
    """A handler that writes records as JSON, with whatever is on them, can: no clash, nothing that has no JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    usual = set(vars(logging.makeLogRecord({})))

    class AsJson(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            extra = {name: value for name, value in vars(record).items() if name not in usual}
            return json.dumps({"message": record.getMessage(), **extra})

    handler.setFormatter(AsJson())
    logger = logging.getLogger("gip_resilience")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(DEBUG)
    try:
        tell(line.event)
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)

    (written,) = stream.getvalue().splitlines()
    assert json.loads(written)["message"] == line.text
    assert {name.partition("_")[0] for name in json.loads(written)} == {"message", "gip"}


# ---- what it costs -------------------------------------------------------------------------------------------


def test_the_everyday_is_not_listened_to() -> None:
    """Calls that succeed at once make no events for the log; with the one for DEBUG they do."""
    assert not Announcer([LogObserver()]).everyday
    assert Announcer([DebugLog()]).everyday


@every_line
def test_nothing_is_made_when_the_level_is_off(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the line nor a token: when the level is on again, nothing was left out."""
    clock = FakeClock()
    observer = LogObserver(clock.monotonic, gr.ObserveConfig(log_burst=1, log_rate=1.0))
    announcer = Announcer([observer], failed=_fail)
    caplog.set_level(logging.CRITICAL, "gip_resilience")
    for _ in range(5):
        announcer.tell(line.event)

    caplog.set_level(DEBUG, "gip_resilience")
    announcer.tell(line.event)

    assert [record.getMessage() for record in ours(caplog)] == [line.text] * (line in LINES)


# ---- storms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.level >= INFO], ids=lambda line: name_of(line.event)
)
def test_a_storm(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """Of 10,000 events in ten seconds few have a line, and what the lines tell adds up."""
    clock = FakeClock()
    observer = LogObserver(clock.monotonic, gr.ObserveConfig(log_burst=20, log_rate=5.0))
    announcer = Announcer([observer], failed=_fail)
    caplog.set_level(INFO, "gip_resilience")

    for _ in range(10_000):
        clock.advance(0.001)
        announcer.tell(line.event)
    clock.advance(60.0)
    announcer.tell(line.event)

    records = ours(caplog)
    assert 20 + 45 <= len(records) <= 20 + 51 + 1
    assert len(records) + sum(getattr(record, "gip_left_out", 0) for record in records) == 10_001
    assert {record.getMessage() for record in records[:20]} == {line.text}


def test_a_line_tells_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """How many, and for how long; the kinds do not take each other's lines."""
    clock = FakeClock()
    observer = LogObserver(clock.monotonic, gr.ObserveConfig(log_burst=2, log_rate=0.25))
    waited = events.GateWaited(*WHOSE, 1.0)
    caplog.set_level(INFO, "gip_resilience")

    for _ in range(414):
        observer.on_gate_waited(waited)
    observer.on_state_restored(events.StateRestored("memory"))
    clock.advance(4.25)
    observer.on_gate_waited(waited)

    first, second, other, last = ours(caplog)
    assert first.getMessage() == second.getMessage() == "rate limited api.test gpt-5: waiting 1.000 s"
    assert other.getMessage() == "state memory: whole again"
    assert last.getMessage() == "rate limited api.test gpt-5: waiting 1.000 s (412 more like it in 4.2 s)"
    assert (vars(last)["gip_left_out"], vars(last)["gip_left_out_seconds"]) == (412, 4.25)
    assert not hasattr(first, "gip_left_out")


def test_a_level_is_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Circuits that close do not hide the one that opens."""
    observer = LogObserver(FakeClock().monotonic, gr.ObserveConfig(log_burst=1, log_rate=1.0))
    caplog.set_level(INFO, "gip_resilience")

    for _ in range(3):
        observer.on_circuit_changed(change(State.HALF_OPEN, State.CLOSED, Cause.PROBE_SUCCEEDED))
        observer.on_circuit_changed(change(State.CLOSED, State.OPEN, Cause.TRIPPED, 30.0))

    assert [record.levelno for record in ours(caplog)] == [INFO, WARNING]


def test_limits_are_reloaded(caplog: pytest.LogCaptureFixture) -> None:
    """Other limits hold from the next line on."""
    clock = FakeClock()
    observer = LogObserver(clock.monotonic, gr.ObserveConfig(log_burst=50))
    caplog.set_level(INFO, "gip_resilience")

    observer.limit(gr.ObserveConfig(log_burst=1))
    for _ in range(10):
        observer.on_state_restored(events.StateRestored("memory"))

    assert len(ours(caplog)) == 1


def test_a_handler_that_causes_more_lines() -> None:
    """A handler that sends lines through a client of ours, which fails, ends: no lock is held, and lines are few."""
    observer = LogObserver(FakeClock().monotonic, gr.ObserveConfig(log_burst=10))
    handled: list[str] = []

    class Sends(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            handled.append(record.getMessage())
            observer.on_state_degraded(events.StateDegraded("log", "gone"))

    logger, handler = logging.getLogger("gip_resilience"), Sends()
    logger.addHandler(handler)
    try:
        observer.on_state_degraded(events.StateDegraded("log", "gone"))
    finally:
        logger.removeHandler(handler)

    assert len(handled) == 10


# ---- structlog -----------------------------------------------------------------------------------------------

RESTORED = events.StateRestored("memory")


def test_structlog_tells_what_was_left_out(entries: list[dict[str, Any]]) -> None:
    """As two more fields."""
    clock = FakeClock()
    observer = LogObserver(clock.monotonic, gr.ObserveConfig(log_burst=1, log_rate=1.0))

    for _ in range(3):
        observer.on_state_restored(RESTORED)
    clock.advance(2.0)
    observer.on_state_restored(RESTORED)

    assert [(entry.get("left_out"), entry.get("left_out_seconds")) for entry in entries] == [
        (None, None),
        (2, 2.0),
    ]


def test_the_level_of_structlog_counts(
    entries: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """What structlog would drop takes no token, and does not go to the logging module instead."""
    caplog.set_level(DEBUG, "gip_resilience")
    observer = LogObserver(FakeClock().monotonic, gr.ObserveConfig(log_burst=1))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    observer.on_state_restored(RESTORED)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(INFO))
    observer.on_state_restored(RESTORED)

    assert [entry.get("left_out") for entry in entries] == [None]
    assert ours(caplog) == []


@pytest.mark.usefixtures("entries")
@pytest.mark.parametrize(
    "wrapper",
    [
        structlog.BoundLogger,
        structlog.stdlib.BoundLogger,
        structlog.stdlib.AsyncBoundLogger,
        structlog.BoundLoggerBase,
    ],
    ids=lambda wrapper: f"{wrapper.__module__}.{wrapper.__name__}",
)
def test_other_loggers_of_structlog(wrapper: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever wraps the program's logger, the line is written once; where structlog cannot, by logging."""
    caplog.set_level(DEBUG, "gip_resilience")
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=wrapper,
    )

    tell(events.GateWaited(*WHOSE, 1.5))

    (record,) = [
        record for record in caplog.records if "gate_waited" in record.getMessage() or "rate" in record.msg
    ]
    assert record.levelno == INFO


@pytest.mark.usefixtures("entries")
def test_an_awaiting_logger_of_structlog(caplog: pytest.LogCaptureFixture) -> None:
    """Within a loop such a logger can be made, and its line is written though nobody awaits it."""
    caplog.set_level(DEBUG, "gip_resilience")
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.AsyncBoundLogger,
    )

    async def within() -> None:
        tell(RESTORED)

    asyncio.run(within())

    (record,) = [record for record in caplog.records if record.name != "asyncio"]
    assert (record.levelno, record.getMessage()) == (INFO, "state_restored")


def test_structlog_that_is_not_configured(caplog: pytest.LogCaptureFixture) -> None:
    """That somebody imported it says nothing."""
    structlog.reset_defaults()
    caplog.set_level(INFO, "gip_resilience")

    tell(RESTORED)

    assert len(ours(caplog)) == 1


@pytest.mark.parametrize("module", [None, object()], ids=["absent", "being imported"])
def test_without_structlog(
    module: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not needed."""
    monkeypatch.setitem(sys.modules, "structlog", module)
    caplog.set_level(INFO, "gip_resilience")

    tell(RESTORED)

    assert len(ours(caplog)) == 1
