"""Everything that can happen to a call, as scenes to be played under each client, and what is told of each.

A `Scene` is played against the local gateway with a clock on which waiting is free. `Witness` writes down what it is
told, one line per event, without what differs from run to run (hosts, numbers of calls, measured times).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from gip_resilience import events
from gip_resilience.gateway import (
    BreakStream,
    Close,
    Error,
    FaultPlan,
    Gateway,
    Ok,
    RateLimited,
    StreamOptions,
)
from harness import CHAT
from live import Live
from streamed import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.gateway import Reply
    from gip_resilience.testing import FakeClock
    from harness import Harness, Session

MODEL = CHAT["model"]
EXACT = gr.Policy(jitter="none")


def _word(event: Any) -> str:
    match event:
        case events.CallStarted():
            return f"call {event.method}"
        case events.AttemptStarted():
            return f"attempt {event.number}"
        case events.AttemptEnded():
            doubt = " perhaps" if event.attempt.maybe_executed else ""
            return f"answer {event.attempt.number} {event.attempt.code} {event.attempt.status}{doubt}"
        case events.RetryScheduled():
            return f"retry {event.attempt}/{event.max_attempts} {event.code} {event.reason} {event.wait:g}"
        case events.HintHonoured():
            return f"hint {event.code} {event.hint.seconds:g} waited {event.wait:g}"
        case events.HintRefused():
            return f"hint {event.code} {event.hint.seconds:g} refused: {event.reason}"
        case events.BudgetRefused():
            return f"no budget {event.code} {event.cost:g}"
        case events.DeadlineReached():
            return f"deadline {event.deadline:g} after {event.elapsed:.1f}"
        case events.CallRefused():
            after = "-" if event.retry_after is None else f"{event.retry_after:.1f}"
            return f"refused {event.kind} {after}"
        case events.CallGaveUp():
            return f"gave up: {event.report.reason}"
        case events.CallEnded():
            return f"{event.report.outcome} {len(event.report.attempts)}"
        case events.GateClosed():
            return f"gate closed {event.seconds:.1f} {event.source}" + " longer" * event.lengthened
        case events.GateOpened():
            return f"gate opened {event.closed_for:.1f}"
        case events.GateWaited():
            return f"gate waited {event.wait:.2f}"
        case events.CircuitChanged():
            kind = "model" if event.circuit.model else "host"
            change = event.transition
            return f"{kind} {change.before} -> {change.after}: {change.reason}"
        case events.CircuitOverruled():
            return f"{'model' if event.circuit.model else 'host'} {event.control}"
        case events.ProbeSent():
            return f"probe {'model' if event.circuit.model else 'host'}"
        case events.ShadowRefused():
            return f"shadow {event.guard}"
        case events.StateDegraded():
            return f"degraded {event.component}"
        case events.StreamOpened():
            return "stream"
        case events.StreamBroken():
            return f"broken {event.hop.code} {event.hop.phase}: {event.hop.action}"
        case events.StreamContinued():
            return f"continued {event.action} {event.attempt}"
        case events.StreamDiverged():
            return f"diverged: {event.hop.action}"
        case events.MarkerSupplied():
            return "marker supplied"
        case events.ConfigReloaded():
            return f"reloaded {','.join(event.changed)}"
        case events.ConfigRejected():
            return "rejected"
    raise AssertionError(event)


class Witness:
    """Is told everything and writes it down."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    @property
    def words(self) -> list[str]:
        """In short."""
        return [_word(event) for event in self.events]


for _name in events.METHODS.values():
    setattr(Witness, _name, lambda self, event: self.events.append(event))


@dataclass
class Stage:
    """What a scene is played with."""

    session: Session
    gateway: Gateway
    brain: gr.Resilience
    clock: FakeClock
    file: Path = Path()
    """The configuration, where it is watched."""

    def post(self, model: str = MODEL) -> None:
        """One call, whatever becomes of it."""
        try:
            self.session.post(self.gateway.url + "/v1/chat/completions", json={**CHAT, "model": model})
        except Exception as error:  # the scene is what is told of it
            if gr.report(error) is None:
                raise

    def stream(self, **fields: Any) -> None:
        """One streamed call, read to its end."""
        body = {**CHAT, "stream": True, **fields}
        ask(self.session, self.gateway.url + "/v1/chat/completions", body)

    def leave(self) -> None:
        """A streamed call that is closed unread (trio warns of generators of httpx's own that were begun)."""
        Live(self.session, self.gateway.url + "/v1/chat/completions").close()


@dataclass(frozen=True)
class Scene:
    """One kind of thing that can happen.

    Attributes:
        name: of it.
        told: what observers are told, in order.
        counts: what is counted: fields of a snapshot that are not empty, histograms left out, names of hosts and
            models too.
        script: what the gateway answers, then it answers well.
        act: what the program does.
        config: what differs from the defaults; waits are exact.
        logs: level and kind of every log line.
        spans: of every span the name, the attempt's code and what happened in it.
        keys: how many keys a store remembers that is not the usual one.
        streams: what a gateway does that is not the usual one.
        watched: whether the configuration is a file that is watched.
    """

    name: str
    told: list[str]
    counts: dict[str, Any]
    script: list[Reply] = field(default_factory=list)
    act: Callable[[Stage], None] = Stage.post
    config: dict[str, Any] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    keys: int | None = None
    streams: StreamOptions | None = None
    watched: bool = False

    def __repr__(self) -> str:
        return self.name

    def play(self, harness: Harness, gateway: Gateway, clock: FakeClock, *observers: object) -> gr.Resilience:
        """Play it under a client; returns the brain."""
        if self.streams is not None:
            with Gateway(streams=self.streams) as other:
                return self._play(harness, other, clock, *observers)
        return self._play(harness, gateway, clock, *observers)

    def _play(
        self, harness: Harness, gateway: Gateway, clock: FakeClock, *observers: object
    ) -> gr.Resilience:
        gateway.plan = FaultPlan.script(self.script)
        if self.watched:
            return self._watch(harness, gateway, clock, *observers)
        policies = dict.fromkeys(("overload", "server", "stream", "timeout", "connect"), EXACT)
        config = gr.Config(**{"policies": policies, **self.config})
        store = None if self.keys is None else gr.MemoryStore(chance=lambda: 0.5, max_keys=self.keys)
        brain = gr.Resilience(config, store=store, clock=clock, chance=lambda: 0.5, observers=observers)
        with harness.open(brain) as session:
            self.act(Stage(session, gateway, brain, clock))
        return brain

    def _watch(
        self, harness: Harness, gateway: Gateway, clock: FakeClock, *observers: object
    ) -> gr.Resilience:
        with TemporaryDirectory() as folder:
            file = Path(folder, "gip.toml")
            file.write_text("deadline = 9")
            brain = gr.Resilience(gr.Config.watch(file), clock=clock, observers=observers)
            with harness.open(brain) as session:
                self.act(Stage(session, gateway, brain, clock, file))
        return brain


def counted(brain: gr.Resilience) -> dict[str, Any]:
    """What a brain has counted, without hosts and models, histograms, and what is there now."""
    left_out = {"call_attempts", "call_seconds", "attempt_seconds", "wait_seconds"}
    left_out |= {"circuits", "closed_gates", "budgets"}
    plain: dict[str, Any] = {}
    for name, value in brain.metrics.snapshot().as_dict().items():
        if name in left_out or not value:
            continue
        if isinstance(value, dict):
            short: dict[str, Any] = {}
            for key, number in value.items():
                parts = key.split("|")
                rest = "|".join(parts[2:]) if len(parts) > 1 else key
                short[rest] = round(short.get(rest, 0) + number, 6)
            plain[name] = short
        else:
            plain[name] = value
    return plain


def _twice(stage: Stage) -> None:
    stage.post()
    stage.post()


def _with_deadline(seconds: float) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        with stage.brain.override(deadline=seconds):
            stage.post()

    return act


def _recovers(stage: Stage) -> None:
    stage.post()
    stage.clock.advance(6.0)
    stage.post()


def _gate_meets_deadline(stage: Stage) -> None:
    with stage.brain.override(rate_limit=gr.Policy(max_attempts=1)):
        stage.post()
    _with_deadline(1.0)(stage)


def _closed_then_late(stage: Stage) -> None:
    with stage.brain.override(rate_limit=gr.Policy(max_attempts=1)):
        stage.post()
    stage.clock.advance(5.0)
    stage.post()


def _limited_twice(stage: Stage) -> None:
    with stage.brain.override(rate_limit=gr.Policy(max_attempts=1)):
        stage.post()
        stage.post()


def _reloads(stage: Stage) -> None:
    stage.brain.reload(gr.Config(deadline=7.0, on_open="raise"))
    stage.post()


def _watches(stage: Stage) -> None:
    for text in ("deadline = 8", "deadline = 'soon'"):
        stage.file.write_text(text)
        for _ in range(3):
            stage.clock.advance(1.0)
            stage.brain.check_config()


def _operator(stage: Stage) -> None:
    host = stage.gateway.url.removeprefix("http://")
    stage.brain.breakers.force_open(host)
    stage.post()
    stage.brain.breakers.reset()
    stage.post()


def _many_dead_models(stage: Stage) -> None:
    for number in range(12):
        stage.post(f"dead-{number}")


def _streams(**fields: Any) -> Callable[[Stage], None]:
    return lambda stage: stage.stream(**fields)


DEAD = [
    "call POST",
    "attempt 1",
    "answer 1 model_unavailable 502",
    "model closed -> open: tripped",
    "failure 1",
]
LOST = [DEAD[0], "degraded memory", *DEAD[1:]]
USED_UP = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "8"}
BUDGET_OF_NONE = {"capacity": 0.0, "min_capacity": 0.0}

SCENES: list[Scene] = [
    Scene(
        "success",
        ["call POST", "attempt 1", "answer 1 ok 200", "success 1"],
        {"calls": {"ok|success": 1}, "attempts": {"ok": 1}},
    ),
    Scene(
        "a failure nobody retries",
        ["call POST", "attempt 1", "answer 1 invalid_request 400", "failure 1"],
        {"calls": {"invalid_request|failure": 1}, "attempts": {"invalid_request": 1}},
        [Error("invalid_request")],
    ),
    Scene(
        "retry",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_overloaded 503",
            "retry 1/4 model_overloaded backoff 1",
            "attempt 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"model_overloaded": 1, "ok": 1},
            "retries": 1,
            "waits": {"backoff": 1.0},
        },
        [Error("model_overloaded")],
    ),
    Scene(
        "hint honoured",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_overloaded 503",
            "hint model_overloaded 3 waited 3.15",
            "retry 1/4 model_overloaded hint 3.15",
            "attempt 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"model_overloaded": 1, "ok": 1},
            "retries": 1,
            "waits": {"hint": 3.15},
            "hints": {"honoured": 1},
        },
        [Error("model_overloaded", retry_after=3)],
    ),
    Scene(
        "hint refused",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_overloaded 503",
            "hint model_overloaded 500 refused: the server asks for 500 s",
            "gave up: the server asks for 500 s",
            "failure 1",
        ],
        {
            "calls": {"model_overloaded|failure": 1},
            "attempts": {"model_overloaded": 1},
            "gave_up": 1,
            "hints": {"refused": 1},
        },
        [Error("model_overloaded", retry_after=500)],
    ),
    Scene(
        "hint past the deadline",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_overloaded 503",
            "deadline 2 after 0.0",
            "hint model_overloaded 3 refused: the deadline would pass",
            "gave up: the deadline would pass",
            "failure 1",
        ],
        {
            "calls": {"model_overloaded|failure": 1},
            "attempts": {"model_overloaded": 1},
            "gave_up": 1,
            "hints": {"refused": 1},
        },
        [Error("model_overloaded", retry_after=3)],
        _with_deadline(2.0),
    ),
    Scene(
        "gave up",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_server_error 500",
            "retry 1/3 model_server_error backoff 0.25",
            "attempt 2",
            "answer 2 model_server_error 500",
            "retry 2/3 model_server_error backoff 0.5",
            "attempt 3",
            "answer 3 model_server_error 500",
            "gave up: all 3 attempts used",
            "failure 3",
        ],
        {
            "calls": {"model_server_error|failure": 1},
            "attempts": {"model_server_error": 3},
            "retries": 2,
            "waits": {"backoff": 0.75},
            "gave_up": 1,
        },
        [Error("model_server_error")] * 3,
    ),
    Scene(
        "maybe executed",
        [
            "call POST",
            "attempt 1",
            "answer 1 connection_lost None perhaps",
            "retry 1/2 connection_lost backoff 0.5",
            "attempt 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"connection_lost": 1, "ok": 1},
            "retries": 1,
            "waits": {"backoff": 0.5},
        },
        [Close("request")],
    ),
    Scene(
        "gate",
        [
            "call POST",
            "attempt 1",
            "answer 1 rate_limit_exceeded 429",
            "gate closed 2.0 hint",
            "hint rate_limit_exceeded 2 waited 2",
            "retry 1/4 rate_limit_exceeded gate 2",
            "gate waited 0.50",
            "gate opened 2.0",
            "attempt 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"rate_limit_exceeded": 1, "ok": 1},
            "retries": 1,
            "waits": {"gate": 2.5},
            "hints": {"honoured": 1},
            "gates": {"": 1},
        },
        [RateLimited(2)],
    ),
    Scene(
        "gate opens",
        [
            "call POST",
            "attempt 1",
            "answer 1 rate_limit_exceeded 429",
            "gate closed 2.0 hint",
            "failure 1",
            "call POST",
            "gate opened 2.0",
            "attempt 1",
            "answer 1 ok 200",
            "success 1",
        ],
        {
            "calls": {"rate_limit_exceeded|failure": 1, "ok|success": 1},
            "attempts": {"rate_limit_exceeded": 1, "ok": 1},
            "gates": {"": 1},
        },
        [RateLimited(2)],
        _closed_then_late,
    ),
    Scene(
        "gate past the deadline",
        [
            "call POST",
            "attempt 1",
            "answer 1 rate_limit_exceeded 429",
            "gate closed 2.0 hint",
            "failure 1",
            "call POST",
            "refused rate_limited 2.0",
            "gave up: rate limited",
            "refused 0",
        ],
        {
            "calls": {"rate_limit_exceeded|failure": 1, "rate_limited|refused": 1},
            "attempts": {"rate_limit_exceeded": 1},
            "refusals": {"rate_limited": 1},
            "gave_up": 1,
            "gates": {"": 1},
        },
        [RateLimited(2)],
        _gate_meets_deadline,
    ),
    Scene(
        "gate closes again",
        [
            "call POST",
            "attempt 1",
            "answer 1 rate_limit_exceeded 429",
            "gate closed 2.0 hint",
            "hint rate_limit_exceeded 2 waited 2",
            "retry 1/4 rate_limit_exceeded gate 2",
            "gate waited 0.50",
            "gate opened 2.0",
            "attempt 2",
            "answer 2 rate_limit_exceeded 429",
            "gate closed 4.0 hint",
            "hint rate_limit_exceeded 4 waited 4",
            "retry 2/4 rate_limit_exceeded gate 4",
            "gate waited 1.00",
            "gate opened 4.0",
            "attempt 3",
            "answer 3 ok 200",
            "success 3",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"rate_limit_exceeded": 2, "ok": 1},
            "retries": 2,
            "waits": {"gate": 7.5},
            "hints": {"honoured": 2},
            "gates": {"": 2},
        },
        [RateLimited(2), RateLimited(4)],
    ),
    Scene(
        "quota",
        [
            "call POST",
            "attempt 1",
            "answer 1 ok 200",
            "gate closed 8.0 quota",
            "success 1",
            "call POST",
            "gate waited 8.00",
            "gate waited 2.00",
            "gate opened 8.0",
            "attempt 1",
            "answer 1 ok 200",
            "success 1",
        ],
        {"calls": {"ok|success": 2}, "attempts": {"ok": 2}, "waits": {"gate": 10.0}, "gates": {"": 1}},
        [Ok(headers=USED_UP)],
        _twice,
    ),
    Scene(
        "circuit opens",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_unavailable 502",
            "model closed -> open: tripped",
            "failure 1",
            "call POST",
            "refused circuit_open 5.0",
            "gave up: circuit open",
            "refused 0",
        ],
        {
            "calls": {"model_unavailable|failure": 1, "circuit_open|refused": 1},
            "attempts": {"model_unavailable": 1},
            "refusals": {"circuit_open": 1},
            "gave_up": 1,
            "opened": {"": 1},
            "transitions": {"open|tripped": 1},
        },
        [Error("model_unavailable")],
        _twice,
    ),
    Scene(
        "circuit closes",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_unavailable 502",
            "model closed -> open: tripped",
            "failure 1",
            "call POST",
            "model open -> half_open: probe",
            "probe model",
            "attempt 1",
            "answer 1 ok 200",
            "model half_open -> closed: probe succeeded",
            "success 1",
        ],
        {
            "calls": {"model_unavailable|failure": 1, "ok|success": 1},
            "attempts": {"model_unavailable": 1, "ok": 1},
            "opened": {"": 1},
            "transitions": {"open|tripped": 1, "half_open|probe": 1, "closed|probe succeeded": 1},
            "probes": {"": 1},
        },
        [Error("model_unavailable")],
        _recovers,
    ),
    Scene(
        "probe fails",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_unavailable 502",
            "model closed -> open: tripped",
            "failure 1",
            "call POST",
            "model open -> half_open: probe",
            "probe model",
            "attempt 1",
            "answer 1 model_unavailable 502",
            "model half_open -> open: probe failed",
            "failure 1",
        ],
        {
            "calls": {"model_unavailable|failure": 2},
            "attempts": {"model_unavailable": 2},
            "opened": {"": 2},
            "transitions": {"open|tripped": 1, "half_open|probe": 1, "open|probe failed": 1},
            "probes": {"": 1},
        },
        [Error("model_unavailable")] * 2,
        _recovers,
    ),
    Scene(
        "operator",
        [
            "host forced_open",
            "call POST",
            "refused circuit_open 5.0",
            "gave up: circuit open",
            "refused 0",
            "call POST",
            "attempt 1",
            "answer 1 ok 200",
            "success 1",
        ],
        {
            "calls": {"circuit_open|refused": 1, "ok|success": 1},
            "attempts": {"ok": 1},
            "refusals": {"circuit_open": 1},
            "gave_up": 1,
        },
        [],
        _operator,
    ),
    Scene(
        "budget",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_overloaded 503",
            "no budget model_overloaded 1",
            "gave up: retry budget exhausted",
            "failure 1",
        ],
        {
            "calls": {"model_overloaded|failure": 1},
            "attempts": {"model_overloaded": 1},
            "refusals": {"budget": 1},
            "gave_up": 1,
        },
        [Error("model_overloaded")],
        config={"budget": gr.BudgetConfig(**BUDGET_OF_NONE)},
    ),
    Scene(
        "deadline",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_overloaded 503",
            "deadline 0.5 after 0.0",
            "gave up: the deadline would pass",
            "failure 1",
        ],
        {"calls": {"model_overloaded|failure": 1}, "attempts": {"model_overloaded": 1}, "gave_up": 1},
        [Error("model_overloaded")],
        _with_deadline(0.5),
    ),
    Scene(
        "shadow circuit",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_unavailable 502",
            "model closed -> open: tripped",
            "failure 1",
            "call POST",
            "shadow circuit",
            "attempt 1",
            "answer 1 ok 200",
            "success 1",
        ],
        {
            "calls": {"model_unavailable|failure": 1, "ok|success": 1},
            "attempts": {"model_unavailable": 1, "ok": 1},
            "opened": {"": 1},
            "transitions": {"open|tripped": 1},
            "shadowed": {"circuit": 1},
        },
        [Error("model_unavailable")],
        _twice,
        {"breaker": gr.BreakerConfig(mode="metrics_only")},
    ),
    Scene(
        "shadow gate",
        [
            "call POST",
            "attempt 1",
            "answer 1 rate_limit_exceeded 429",
            "gate closed 20.0 hint",
            "failure 1",
            "call POST",
            "shadow gate",
            "attempt 1",
            "answer 1 ok 200",
            "success 1",
        ],
        {
            "calls": {"rate_limit_exceeded|failure": 1, "ok|success": 1},
            "attempts": {"rate_limit_exceeded": 1, "ok": 1},
            "gates": {"": 1},
            "shadowed": {"gate": 1},
        },
        [RateLimited(20)],
        _limited_twice,
        {"gate": gr.GateConfig(mode="metrics_only")},
    ),
    Scene(
        "shadow budget",
        [
            "call POST",
            "attempt 1",
            "answer 1 model_overloaded 503",
            "shadow budget",
            "retry 1/4 model_overloaded backoff 1",
            "attempt 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"model_overloaded": 1, "ok": 1},
            "retries": 1,
            "waits": {"backoff": 1.0},
            "shadowed": {"budget": 1},
        },
        [Error("model_overloaded")],
        config={"budget": gr.BudgetConfig(mode="metrics_only", **BUDGET_OF_NONE)},
    ),
    Scene(
        "stream",
        ["call POST", "attempt 1", "stream", "answer 1 ok 200", "success 1"],
        {"calls": {"ok|success": 1}, "attempts": {"ok": 1}, "streams": {"opened": 1}},
        [],
        _streams(),
    ),
    Scene(
        "stream left",
        ["call POST", "attempt 1", "stream", "answer 1 ok 200", "cancelled 1"],
        {"calls": {"ok|cancelled": 1}, "attempts": {"ok": 1}, "streams": {"opened": 1}},
        [],
        Stage.leave,
    ),
    Scene(
        "restart",
        [
            "call POST",
            "attempt 1",
            "stream",
            "answer 1 stream_terminated 200 perhaps",
            "retry 1/3 stream_terminated backoff 0.25",
            "broken stream_terminated none: restart",
            "attempt 2",
            "stream",
            "continued restart 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"stream_terminated": 1, "ok": 1},
            "retries": 1,
            "waits": {"backoff": 0.25},
            "streams": {"opened": 2, "restart": 1, "breaks": 1},
            "breaks": {"stream_terminated|restart": 1},
        },
        [BreakStream(events=1)],
        _streams(),
    ),
    Scene(
        "replay",
        [
            "call POST",
            "attempt 1",
            "stream",
            "answer 1 stream_terminated 200 perhaps",
            "retry 1/3 stream_terminated backoff 0.25",
            "broken stream_terminated output: replay",
            "attempt 2",
            "stream",
            "continued replay 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"stream_terminated": 1, "ok": 1},
            "retries": 1,
            "waits": {"backoff": 0.25},
            "streams": {"opened": 2, "replay": 1, "breaks": 1},
            "breaks": {"stream_terminated|replay": 1},
        },
        [BreakStream(events=4)],
        _streams(temperature=0),
    ),
    Scene(
        "divergence",
        [
            "call POST",
            "attempt 1",
            "stream",
            "answer 1 stream_terminated 200 perhaps",
            "retry 1/3 stream_terminated backoff 0.25",
            "broken stream_terminated output: replay",
            "attempt 2",
            "stream",
            "continued replay 2",
            "diverged: fail",
            "broken stream_diverged output: fail",
            "answer 2 stream_diverged 200 perhaps",
            "failure 2",
        ],
        {
            "calls": {"stream_diverged|failure": 1},
            "attempts": {"stream_terminated": 1, "stream_diverged": 1},
            "retries": 1,
            "waits": {"backoff": 0.25},
            "streams": {"opened": 2, "replay": 1, "breaks": 2, "diverged": 1, "fail": 1},
            "breaks": {"stream_terminated|replay": 1, "stream_diverged|fail": 1},
        },
        [BreakStream(events=5)],
        _streams(),
        {"stream": gr.StreamConfig(replay="always")},
        streams=StreamOptions(sampled=True),
    ),
    Scene(
        "resume",
        [
            "call POST",
            "attempt 1",
            "stream",
            "answer 1 stream_terminated 200 perhaps",
            "retry 1/3 stream_terminated backoff 0.25",
            "broken stream_terminated output: resume",
            "attempt 2",
            "stream",
            "continued resume 2",
            "answer 2 ok 200",
            "success 2",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"stream_terminated": 1, "ok": 1},
            "retries": 1,
            "waits": {"backoff": 0.25},
            "streams": {"opened": 2, "resume": 1, "breaks": 1},
            "breaks": {"stream_terminated|resume": 1},
        },
        [BreakStream(events=4)],
        _streams(),
        streams=StreamOptions(event_ids=True),
    ),
    Scene(
        "marker",
        [
            "call POST",
            "attempt 1",
            "stream",
            "broken stream_reset tail: marker",
            "marker supplied",
            "answer 1 ok 200",
            "success 1",
        ],
        {
            "calls": {"ok|success": 1},
            "attempts": {"ok": 1},
            "streams": {"opened": 1, "marker": 1, "breaks": 1},
            "breaks": {"stream_reset|marker": 1},
        },
        [BreakStream(events=11, how="fin")],
        _streams(),
    ),
    Scene(
        "stream fails",
        [
            "call POST",
            "attempt 1",
            "stream",
            "broken stream_terminated output: fail",
            "answer 1 stream_terminated 200 perhaps",
            "gave up: output was handed up, and another run would say something else (no temperature 0, no seed)",
            "failure 1",
        ],
        {
            "calls": {"stream_terminated|failure": 1},
            "attempts": {"stream_terminated": 1},
            "gave_up": 1,
            "streams": {"opened": 1, "fail": 1, "breaks": 1},
            "breaks": {"stream_terminated|fail": 1},
        },
        [BreakStream(events=4)],
        _streams(),
    ),
    Scene(
        "error in a stream",
        [
            "call POST",
            "attempt 1",
            "stream",
            "broken stream_error output: fail",
            "answer 1 stream_error 200",
            "gave up: output was handed up, and another run would say something else (no temperature 0, no seed)",
            "failure 1",
        ],
        {
            "calls": {"stream_error|failure": 1},
            "attempts": {"stream_error": 1},
            "gave_up": 1,
            "streams": {"opened": 1, "fail": 1, "breaks": 1},
            "breaks": {"stream_error|fail": 1},
        },
        [BreakStream(how="error", events=4)],
        _streams(),
    ),
    Scene(
        "reload",
        ["reloaded policies,deadline,on_open", "call POST", "attempt 1", "answer 1 ok 200", "success 1"],
        {"calls": {"ok|success": 1}, "attempts": {"ok": 1}, "reloads": {"applied": 1}},
        [],
        _reloads,
    ),
    Scene(
        "a watched file goes wrong",
        ["reloaded deadline", "rejected"],
        {"reloads": {"applied": 1, "rejected": 1}},
        [],
        _watches,
        watched=True,
    ),
    Scene(
        "state degraded",
        [*DEAD * 6, *LOST, *DEAD, *LOST, *DEAD, *LOST, *DEAD],
        {
            "calls": {"model_unavailable|failure": 12},
            "attempts": {"model_unavailable": 12},
            "opened": {"": 12},
            "transitions": {"open|tripped": 12},
            "degraded": {"memory": 3},
        },
        [Error("model_unavailable")] * 12,
        _many_dead_models,
        keys=2,
    ),
]
