"""Everything that can happen to a call, as scenes to be played under each client, and what is told of each.

A `Scene` is played against the local gateway with a clock on which waiting is free. `Witness` writes down what it is
told, one line per event, without what differs from run to run (hosts, numbers of calls, measured times).
"""

from __future__ import annotations

import tomllib
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
TOLD: dict[str, dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "data" / "happenings.toml").read_text("utf-8")
)
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
        case events.CallPaused():
            return f"pause {event.seconds:.2f} {event.reason}"
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
        script: what the gateway answers, then it answers well.
        act: what the program does.
        config: what differs from the defaults; waits are exact.
        keys: how many keys a store remembers that is not the usual one.
        streams: what a gateway does that is not the usual one.
        watched: whether the configuration is a file that is watched.
    """

    name: str
    script: list[Reply] = field(default_factory=list)
    act: Callable[[Stage], None] = Stage.post
    config: dict[str, Any] = field(default_factory=dict)
    keys: int | None = None
    streams: StreamOptions | None = None
    watched: bool = False

    def __repr__(self) -> str:
        return self.name

    def expected(self, what: str) -> list[str]:
        """What is told of it: ``events``, ``logs`` or ``spans``, a line each."""
        return str(TOLD[self.name][what]).splitlines()

    @property
    def counts(self) -> dict[str, Any]:
        """What is counted: fields of a snapshot that are not empty, without histograms, hosts and models."""
        return dict(TOLD[self.name]["counts"])

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
    """Long enough that no machine is too slow for it: the clock of an attempt under way is the real one."""

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
    _with_deadline(30.0)(stage)


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


USED_UP = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "8"}
BUDGET_OF_NONE = {"capacity": 0.0, "min_capacity": 0.0}

SCENES = [
    Scene("success"),
    Scene("a failure nobody retries", [Error("invalid_request")]),
    Scene("retry", [Error("model_overloaded")]),
    Scene("hint honoured", [Error("model_overloaded", retry_after=3)]),
    Scene("hint refused", [Error("model_overloaded", retry_after=500)]),
    Scene("hint past the deadline", [Error("model_overloaded", retry_after=60)], _with_deadline(30.0)),
    Scene("gave up", [Error("model_server_error")] * 3),
    Scene("maybe executed", [Close("request")]),
    Scene("gate", [RateLimited(2)]),
    Scene("gate opens", [RateLimited(2)], _closed_then_late),
    Scene("gate past the deadline", [RateLimited(60)], _gate_meets_deadline),
    Scene("gate closes again", [RateLimited(2), RateLimited(4)]),
    Scene("quota", [Ok(headers=USED_UP)], _twice),
    Scene("circuit opens", [Error("model_unavailable")], _twice),
    Scene("circuit closes", [Error("model_unavailable")], _recovers),
    Scene("circuit waited for", [Error("model_unavailable")], _twice, {"on_open": "wait"}),
    Scene("probe fails", [Error("model_unavailable")] * 2, _recovers),
    Scene("operator", [], _operator),
    Scene("budget", [Error("model_overloaded")], config={"budget": gr.BudgetConfig(**BUDGET_OF_NONE)}),
    Scene(
        "deadline",
        [Error("model_overloaded")],
        _with_deadline(30.0),
        {"policies": {"overload": gr.Policy(jitter="none", base_delay=60.0, max_delay=60.0)}},
    ),
    Scene(
        "shadow circuit",
        [Error("model_unavailable")],
        _twice,
        {"breaker": gr.BreakerConfig(mode="metrics_only")},
    ),
    Scene("shadow gate", [RateLimited(20)], _limited_twice, {"gate": gr.GateConfig(mode="metrics_only")}),
    Scene(
        "shadow budget",
        [Error("model_overloaded")],
        config={"budget": gr.BudgetConfig(mode="metrics_only", **BUDGET_OF_NONE)},
    ),
    Scene("stream", [], _streams()),
    Scene("stream left", [], Stage.leave),
    Scene("restart", [BreakStream(events=1)], _streams()),
    Scene("replay", [BreakStream(events=4)], _streams(temperature=0)),
    Scene(
        "divergence",
        [BreakStream(events=5)],
        _streams(),
        {"stream": gr.StreamConfig(replay="always")},
        streams=StreamOptions(sampled=True),
    ),
    Scene("resume", [BreakStream(events=4)], _streams(), streams=StreamOptions(event_ids=True)),
    Scene("marker", [BreakStream(events=11, how="fin")], _streams()),
    Scene("stream fails", [BreakStream(events=4)], _streams()),
    Scene("error in a stream", [BreakStream(how="error", events=4)], _streams()),
    Scene("reload", [], _reloads),
    Scene("a watched file goes wrong", [], _watches, watched=True),
    Scene("state degraded", [Error("model_unavailable")] * 12, _many_dead_models, keys=2),
]
