"""Prometheus in one process: what is scraped is what was counted, and can be read by whoever scrapes it."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import DuplicateTimeseries

import gip_resilience as gr
from gip_resilience import events
from gip_resilience.breaker import Cause, State, Transition
from gip_resilience.config import ObserveConfig
from gip_resilience.gateway import Error, FaultPlan, RateLimited
from gip_resilience.prometheus import FAMILIES, Family, MultiProcessObserver, ResilienceCollector
from gip_resilience.snapshots import Histogram
from gip_resilience.state import CircuitKey
from happenings import SCENES, Scene
from harness import CHAT, HARNESSES

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.gateway import Gateway
    from gip_resilience.snapshots import Snapshot
    from gip_resilience.testing import FakeClock

HOST, MODEL = "gateway.example", "azure/openai/gpt-5-mini"
WHERE = (HOST, MODEL)
FORMATS = {
    "text/plain; version=0.0.4": (generate_latest, parse_text),
    "application/openmetrics-text; version=1.0.0": (openmetrics.generate_latest, parse_openmetrics),
}
CLIENT = HARNESSES[0]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

BY_KEY = {
    "calls": ("calls_total", ("host", "model", "code", "outcome")),
    "attempts": ("attempts_total", ("host", "model", "code")),
    "refusals": ("refusals_total", ("reason",)),
    "hints": ("hints_total", ("verdict",)),
    "transitions": ("circuit_transitions_total", ("host", "model", "state", "cause")),
    "probes": ("probes_total", ("host", "model")),
    "gates": ("gate_closings_total", ("host", "model")),
    "shadowed": ("shadow_refusals_total", ("guard",)),
    "streams": ("streams_total", ("event",)),
    "breaks": ("stream_breaks_total", ("host", "model", "code", "action")),
    "reloads": ("config_reloads_total", ("result",)),
    "degraded": ("state_degraded_total", ("component",)),
    "restored": ("state_restored_total", ("component",)),
    "call_seconds": ("call_duration_seconds", ("host", "model")),
    "attempt_seconds": ("attempt_duration_seconds", ("host", "model")),
    "call_attempts": ("call_attempts", ("host", "model")),
    "wait_seconds": ("wait_seconds", ("reason",)),
}
"""Fields of a snapshot: what they are called when they are scraped, and the parts of their keys."""


def samples(text: str, parse: Callable[[str], Any] = parse_text) -> Samples:
    """What a scrape says, without what is 0 (shown so that it can be seen to increase) and when it began."""
    found: Samples = {}
    for family in parse(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted((name, value) for name, value in sample.labels.items() if value))
            assert key not in found, "twice"
            if sample.value and not sample.name.endswith("_created"):
                found[key] = sample.value
    return found


def scraped(registry: CollectorRegistry) -> Samples:
    """Everything on a registry."""
    return samples(generate_latest(registry).decode())


def expected(seen: Snapshot) -> Samples:
    """What a scrape of a snapshot has to say; written down apart from the table that is tested."""
    found: Samples = {}

    def put(name: str, value: float, **labels: str) -> None:
        if value:
            shown = tuple(sorted((label, text) for label, text in labels.items() if text))
            found["gip_resilience_" + name, shown] = value

    for field, (name, labels) in BY_KEY.items():
        for key, value in getattr(seen, field).items():
            where = dict(zip(labels, (key,) if isinstance(key, str) else key, strict=True))
            if not isinstance(value, Histogram):
                put(name, value, **where)
                continue
            for place, bound in enumerate((*value.bounds, None)):
                le = "+Inf" if bound is None else str(bound)
                put(name + "_bucket", sum(value.counts[: place + 1]), **where, le=le)
            put(name + "_count", value.count, **where)
            put(name + "_sum", value.total, **where)
    put("retries_total", seen.retries)
    put("gave_up_total", seen.gave_up)
    put("observer_failures_total", seen.observer_failures)
    for (host, model), circuit in seen.circuits.items():
        where = {"host": host, "model": model}
        put("circuit_state", 1, **where, state=str(circuit.state))
        if str(circuit.control) != "auto":
            put("circuit_forced", 1, **where, control=str(circuit.control))
        for state, seconds in circuit.times.items():
            put("circuit_state_seconds_total", seconds, **where, state=str(state))
    for (host, model), gate in seen.closed_gates.items():
        put("gate_closed_seconds", gate.remaining, host=host, model=model)
        put("gate_waiters", gate.waiting, host=host, model=model)
    for (host, model), budget in seen.budgets.items():
        put("budget_tokens", budget.tokens, host=host, model=model)
        put("budget_capacity_tokens", budget.capacity, host=host, model=model)
    put("info", 1, version=gr.__version__)
    return found


def only(found: Samples, *left_out: str) -> Samples:
    """Without some metrics."""
    return {key: value for key, value in found.items() if not key[0].startswith(left_out)}


@pytest.mark.parametrize("scene", SCENES, ids=repr)
def test_what_is_scraped_is_what_was_counted(scene: Scene, gateway: Gateway, clock: FakeClock) -> None:
    """To the unit, of everything that can happen, in both formats; and the same by way of events."""
    told, read = CollectorRegistry(), CollectorRegistry()

    brain = scene.play(CLIENT, gateway, clock, MultiProcessObserver(told))
    read.register(ResilienceCollector(brain))

    seen = expected(brain.metrics.snapshot())
    for generate, parse in FORMATS.values():
        assert samples(generate(read).decode(), parse) == pytest.approx(seen)
    untold = tuple(family.name for family in FAMILIES if not family.told)
    changing = ("gip_resilience_circuit_state", "gip_resilience_circuit_forced")
    assert only(scraped(told), *changing) == pytest.approx(only(seen, *untold, *changing))
    states = {key for key in scraped(told) if key[0] == changing[0]}
    assert states <= seen.keys() or scene.name == "state degraded"  # circuits were forgotten
    assert bool(states) == bool(brain.metrics.snapshot().transitions)


OPENED = Transition(State.CLOSED, State.OPEN, Cause.TRIPPED, 5.0)
TOLD = [
    events.CallPaused(1, *WHERE, 30.0, "circuit"),
    events.GateClosed(*WHERE, 2.0, "hint"),
    events.GateClosed(*WHERE, 3.0, "hint", lengthened=True),
    events.StreamBroken(1, *WHERE, gr.Hop("unguarded", "stream_reset", "output", 3)),
    events.StreamBroken(1, *WHERE, gr.Hop("fail", "stream_reset", "output", 3)),
    events.StreamDiverged(1, *WHERE, gr.Hop("fail", "stream_diverged", "output", 3)),
    events.StateDegraded("redis", "away"),
    events.StateRestored("redis"),
    events.ProbeSent(CircuitKey(HOST)),
    events.ProbeSent(CircuitKey(HOST, MODEL, "eu")),
    events.CircuitChanged(CircuitKey(HOST, MODEL, "eu"), OPENED),
]
"""What may happen besides, or in more ways than the scenes show."""


@pytest.mark.parametrize("event", TOLD, ids=lambda event: type(event).__name__)
def test_what_is_told_is_what_was_counted(event: events.Event) -> None:
    """By observers that share a registry as by the counters."""
    told = CollectorRegistry()
    brain = gr.Resilience(observers=[MultiProcessObserver(told)])
    other = gr.Resilience(observers=[MultiProcessObserver(told)])

    brain.tell(event)
    brain.tell(event)

    seen = expected(brain.metrics.snapshot())
    assert only(scraped(told), "gip_resilience_circuit_state") == only(seen)
    other.tell(event)
    for key, value in only(scraped(told), "gip_resilience_circuit_state", "gip_resilience_info").items():
        assert value == seen[key] * 1.5


def test_an_operators_word() -> None:
    """Is shown while it is in force."""
    told = CollectorRegistry()
    brain = gr.Resilience(observers=[MultiProcessObserver(told)])
    key = ("gip_resilience_circuit_forced", (("control", "forced_open"), ("host", HOST), ("model", MODEL)))

    brain.breakers.force_open(HOST, MODEL)
    assert {name: value for name, value in scraped(told).items() if name[0] == key[0]} == {key: 1}
    brain.breakers.auto(HOST, MODEL)
    assert key not in scraped(told)


@pytest.mark.parametrize("accept", FORMATS)
def test_over_http(accept: str, gateway: Gateway, clock: FakeClock) -> None:
    """As a server asks for it, all of it or a part."""
    (scene,) = (scene for scene in SCENES if scene.name == "circuit opens")
    brain = scene.play(CLIENT, gateway, clock)
    registry = CollectorRegistry()
    registry.register(ResilienceCollector(brain))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    url = f"http://127.0.0.1:{server.server_port}/metrics"

    def get(query: str = "") -> Samples:
        with urlopen(Request(url + query, headers={"Accept": accept})) as response:
            assert response.headers["Content-Type"].startswith(accept.partition(";")[0])
            return samples(response.read().decode(), FORMATS[accept][1])

    try:
        assert get() == expected(brain.metrics.snapshot())
        name = "gip_resilience_gave_up_total"
        assert get(f"?name[]={name}") == {(name, ()): brain.metrics.snapshot().gave_up}
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


# ---- registries and brains -----------------------------------------------------------------------------------


def brain_with(calls: int, model: str = MODEL, **config: Any) -> gr.Resilience:
    """One that has counted so many calls."""
    brain = gr.Resilience(gr.Config(**config))
    for _ in range(calls):
        brain.metrics.succeeded(HOST, model, 0.05)
    return brain


def calls_of(registry: CollectorRegistry, client: str = "", model: str = MODEL) -> float:
    """Successful calls."""
    labels = {"host": HOST, "model": model, "code": "ok", "outcome": "success"}
    key = tuple(sorted({**labels, **({"client": client} if client else {})}.items()))
    return scraped(registry).get(("gip_resilience_calls_total", key), 0)


def test_one_collector_on_several_registries() -> None:
    """Each shows everything; neither takes anything from the other."""
    brain = brain_with(3)
    collector = ResilienceCollector(brain)
    registries = [CollectorRegistry(), CollectorRegistry(auto_describe=True)]
    for registry in registries:
        registry.register(collector)

    assert scraped(registries[0]) == scraped(registries[1]) == expected(brain.metrics.snapshot())
    registries[0].unregister(collector)
    assert scraped(registries[0]) == {}


def test_several_brains_are_added_up() -> None:
    """Counters, histograms and budgets; the same brain is not counted twice."""
    one, two = brain_with(3), brain_with(4)
    registry = CollectorRegistry()
    collector = ResilienceCollector(one, two, one)
    registry.register(collector)
    collector.add(two)

    assert calls_of(registry) == 7
    key = ("gip_resilience_call_duration_seconds_sum", (("host", HOST), ("model", MODEL)))
    assert scraped(registry)[key] == pytest.approx(0.35)
    assert repr(collector) == "<ResilienceCollector of 2>"


def test_circuits_and_gates_of_several_brains(gateway: Gateway, clock: FakeClock) -> None:
    """The state of each circuit is shown, the gate that opens last, and all who wait."""
    config = gr.Config(policies={"rate_limit": gr.Policy(max_attempts=1)})
    brains = [gr.Resilience(config, clock=clock) for _ in range(3)]
    for brain, answer in zip(
        brains, (RateLimited(30), RateLimited(60), Error("model_unavailable")), strict=True
    ):
        gateway.plan = FaultPlan.script([answer])
        with CLIENT.open(brain) as session:
            session.post(gateway.base_url + "/chat/completions")
    registry = CollectorRegistry()
    registry.register(ResilienceCollector(*brains))

    found = scraped(registry)

    seen = [brain.metrics.snapshot() for brain in brains]
    host = gateway.url.removeprefix("http://")
    where = {"host": host, "model": CHAT["model"]}

    def value(name: str, **labels: str) -> float | None:
        return found.get(("gip_resilience_" + name, tuple(sorted({**where, **labels}.items()))))

    assert [value("circuit_state", state=str(state)) for state in State] == [1, 1, None]
    assert value("gate_closed_seconds") == max(
        gate.remaining for one in seen for gate in one.closed_gates.values()
    )
    tokens = [one.budgets[host, CHAT["model"]] for one in seen]
    assert value("budget_tokens") == pytest.approx(sum(view.tokens for view in tokens))
    assert value("budget_capacity_tokens") == pytest.approx(sum(view.capacity for view in tokens))


def test_brains_with_names_are_told_apart() -> None:
    """By a label; those without a name have none."""
    registry = CollectorRegistry()
    one, two, three = brain_with(3), brain_with(4), brain_with(5)
    registry.register(ResilienceCollector(three, chat=one, search=two))

    assert [calls_of(registry, name) for name in ("chat", "search", "")] == [3, 4, 5]
    for generate, parse in FORMATS.values():
        assert samples(generate(registry).decode(), parse) == scraped(registry)


def test_a_second_collector_is_refused() -> None:
    """Two would say everything twice, which no server takes; `add` is the way."""
    registry = CollectorRegistry()
    one, two = brain_with(3), brain_with(4)
    collector = ResilienceCollector(one)
    registry.register(collector)

    with pytest.raises(DuplicateTimeseries):
        registry.register(ResilienceCollector(two))
    collector.add(two)

    assert calls_of(registry) == 7


def test_only_brains_are_collected() -> None:
    """And none of several is taken if one is wrong."""
    collector = ResilienceCollector()
    brain = brain_with(1)

    with pytest.raises(TypeError, match=r"expected a gip_resilience\.Resilience, got Metrics"):
        collector.add(brain, brain.metrics)  # type: ignore[arg-type]  # what is tested

    assert repr(collector) == "<ResilienceCollector of 0>"


def test_a_brain_that_is_gone_stays_counted() -> None:
    """It is not kept alive; a counter does not go down, and what there was now is not shown any more."""
    registry = CollectorRegistry()
    one, two = brain_with(3), brain_with(4)
    one.breakers.force_open(HOST)
    registry.register(ResilienceCollector(one, two))
    assert calls_of(registry) == 7
    assert any(name == "gip_resilience_circuit_forced" for name, _ in scraped(registry))

    del one
    gc.collect()

    for _ in range(2):
        assert calls_of(registry) == 7
        assert not any(name == "gip_resilience_circuit_forced" for name, _ in scraped(registry))
    two.metrics.succeeded(HOST, MODEL, 0.1)
    del two
    gc.collect()
    assert calls_of(registry) == 7  # the eighth call was never scraped


# ---- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\\nb", 'ü\\"é', "模型", "a{b=c},d", "#x", "a\nb"])
def test_names_that_need_care(name: str) -> None:
    """Come back as they went in, in both formats."""
    brain = brain_with(2, name)
    registry = CollectorRegistry()
    registry.register(ResilienceCollector(brain))

    for generate, parse in FORMATS.values():
        assert samples(generate(registry).decode(), parse) == expected(brain.metrics.snapshot())


def test_there_is_an_end_to_names() -> None:
    """Of hosts, models and codes, and also of circuits; nothing is lost, and both ways count the same."""
    limits = ObserveConfig(max_hosts=3, max_models=4, max_codes=5)
    told, read = CollectorRegistry(), CollectorRegistry()
    observer = MultiProcessObserver(told)
    brain = gr.Resilience(gr.Config(observe=limits), observers=[observer])
    read.register(ResilienceCollector(brain))
    for number in range(100):
        host, model = f"host{number % 10}", f"model{number}"
        attempt = gr.Attempt(1, f"code{number}", 503, 0.25, 0.0, None, maybe_executed=False)
        report = gr.CallReport(host, model, "failure", "", (attempt,), 0.5, 0.0, None)
        brain.tell(events.AttemptEnded(number, host, model, attempt))
        brain.tell(events.CallEnded(number, report))
        brain.tell(events.CircuitChanged(CircuitKey(host, model), OPENED))
        brain.breakers.force_close(host, model)

    scopes = observer._book._scopes
    assert len(scopes) <= 3 * 4 + 1
    assert max(len(scope.calls) for scope in scopes.values()) <= 6
    assert max(len(scope.attempts) for scope in scopes.values()) <= 6
    found = scraped(read)
    now = ("gip_resilience_circuit_state", "gip_resilience_circuit_forced")
    untold = tuple(family.name for family in FAMILIES if not family.told)
    assert only(scraped(told), *now) == pytest.approx(only(found, *now, *untold))
    assert only(found, *now) == pytest.approx(only(expected(brain.metrics.snapshot()), *now))
    for registry in (told, read):
        labels = [dict(labels) for _, labels in scraped(registry)]
        assert {label.get("host") for label in labels} == {None, "host0", "host1", "host2", "other"}
        assert len({label.get("model") for label in labels}) == 6  # none, four and the others
        assert len({label.get("code") for label in labels}) == 7  # none, five and the others
        assert (
            sum(value for (name, _), value in scraped(registry).items() if name.endswith("calls_total"))
            == 100
        )


def overruled(registry: CollectorRegistry) -> set[str]:
    """Models whose circuits are."""
    return {dict(labels)["model"] for name, labels in scraped(registry) if name.endswith("circuit_forced")}


def test_the_limits_can_be_changed() -> None:
    """By a reload; what is told apart already stays so."""
    told, read = CollectorRegistry(), CollectorRegistry()
    observer = MultiProcessObserver(told)
    brain = gr.Resilience(gr.Config(observe=ObserveConfig(max_models=1)), observers=[observer])
    read.register(ResilienceCollector(brain))
    closed = [events.GateClosed(HOST, model, 1.0, "hint") for model in ("a", "b")]
    brain.tell(closed[0])
    brain.tell(closed[1])
    for model in ("a", "b"):
        brain.breakers.force_open(HOST, model)
    for registry in (told, read):
        assert overruled(registry) == {"a", "other"}
    brain.reload(gr.Config(observe=ObserveConfig(max_models=2)))
    brain.tell(closed[1])
    brain.breakers.force_open(HOST, "b")

    late = CollectorRegistry()
    late.register(ResilienceCollector(brain))

    assert overruled(read) == overruled(late) == {"a", "b"}
    assert overruled(told) == {"a", "b", "other"}  # it cannot be taken away
    for registry in (told, read):
        found = scraped(registry)
        assert {
            model: found["gip_resilience_gate_closings_total", (("host", HOST), ("model", model))]
            for model in ("a", "b", "other")
        } == {"a": 1, "b": 1, "other": 1}


# ---- conventions ---------------------------------------------------------------------------------------------

RESERVED = ("_bucket", "_count", "_sum", "_created", "_counter", "_gauge", "_histogram", "_summary")
ABBREVIATED = re.compile(r"_(s|ms|us|ns|sec|secs|min|mins|milliseconds|minutes|hours|b|kb|mb|bytes?)(_|$)")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_conventions_of_prometheus(family: Family) -> None:
    """What ``promtool check metrics`` looks for, and the advice on names."""
    assert re.fullmatch(r"gip_resilience_[a-z][a-z_]*[a-z]", family.name)
    assert "__" not in family.name
    assert not family.name.endswith(RESERVED)
    assert not ABBREVIATED.search(family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert ("seconds" in family.name) == (family.unit == "seconds")
    assert family.help.endswith(".")
    assert family.help != family.name
    assert "\n" not in family.help
    assert len(set(family.labels)) == len(family.labels)
    for label in family.labels:
        assert re.fullmatch(r"[a-z]+", label)
        assert label not in {"le", "quantile", "job", "instance", "client"}
        assert label not in family.name.split("_") or label in {"state", "model"}
    assert all(len(labels) == len(family.labels) for labels in family.known)


def test_the_names_are_those_of_the_manual() -> None:
    """Dashboards and alerts of others depend on them."""
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) == 28
    shown = {name for field in BY_KEY.values() for name in [field[0]]}
    assert {"gip_resilience_" + name for name in shown} <= {family.name for family in FAMILIES}
    assert {family.name for family in FAMILIES if family.kind == "gauge"} == {
        "gip_resilience_circuit_state",
        "gip_resilience_circuit_forced",
        "gip_resilience_gate_closed_seconds",
        "gip_resilience_gate_waiters",
        "gip_resilience_budget_tokens",
        "gip_resilience_budget_capacity_tokens",
        "gip_resilience_info",
    }


def test_nothing_happened_is_said_too() -> None:
    """What has fixed labels is there from the start, at 0: an increase from nothing is not seen as one."""
    registry = CollectorRegistry()
    brain = gr.Resilience()
    registry.register(ResilienceCollector(brain))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value("gip_resilience_" + name, labels)

    assert value("gave_up_total") == value("retries_total") == value("observer_failures_total") == 0
    assert value("refusals_total", reason="circuit_open") == 0
    assert value("streams_total", event="fail") == 0
    assert value("config_reloads_total", result="rejected") == 0
    assert value("info", version=gr.__version__) == 1


def test_it_says_what_is_missing() -> None:
    """Where ``prometheus_client`` is not installed."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "try: import gip_resilience.prometheus\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )

    assert done.stdout.strip() == (
        "gip_resilience.prometheus needs prometheus_client: pip install 'gip-resilience[prometheus]'"
    )
