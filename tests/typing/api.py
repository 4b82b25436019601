"""The public surface as a user's type checker sees it. Checked by mypy and basedpyright; never run.

Each ``assert_type`` is a promise about what an annotation says; a line with an ``ignore`` must be an error, and the
checkers complain when it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import httpx
import httpx2
import openai
import redis
import redis.asyncio
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry as Urllib3Retry

import gip_resilience as gr
from gip_resilience.breaker import BreakerView, State
from gip_resilience.events import CallEnded, CircuitChanged, GateWaited, RetryScheduled
from gip_resilience.gateway import Error, FaultPlan, Gateway, Ok, RateLimit, RateLimited, Seen
from gip_resilience.httpx import AsyncResilientTransport as LegacyAsyncTransport
from gip_resilience.httpx import ResilientTransport as LegacyTransport
from gip_resilience.httpx2 import AsyncResilientTransport, ResilientTransport
from gip_resilience.logs import DebugLog
from gip_resilience.otel import OpenTelemetry
from gip_resilience.prometheus import MultiProcessObserver, ResilienceCollector
from gip_resilience.redis import RedisStore, Traffic
from gip_resilience.requests import CircuitOpenError as RequestsCircuitOpenError
from gip_resilience.requests import ResilientAdapter
from gip_resilience.snapshots import Histogram, Snapshot
from gip_resilience.state import CircuitKey
from gip_resilience.testing import FakeClock, Finding, ScriptedUpstream, assert_resilient, instant, judge

if TYPE_CHECKING:
    from collections.abc import Generator


def mounting(session: requests.Session, sync: httpx2.Client, asynchronous: httpx.AsyncClient) -> None:
    """Any client, and SDK objects that own one."""
    brain = gr.mount(session)
    assert_type(brain, gr.Resilience)
    assert_type(gr.mount(sync, brain), gr.Resilience)
    gr.mount(asynchronous, resilience=brain)
    gr.mount(openai.OpenAI(), brain)
    gr.unmount(session)
    gr.mount(session, gr.Config())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def own_wait() -> Generator[float, None, None]:
    """A wait generator of the kind the ``backoff`` package has."""
    yield 1.0


def policies(path: Path, retry: Urllib3Retry) -> gr.Config:
    """The policy model, from Python, a dictionary, a file, the environment."""
    patient = gr.Policy(
        max_attempts=5,
        base_delay=0.5,
        max_delay=30,
        jitter="full",
        wait="expo",
        max_hint=60.0,
        on_ambiguous="fail",
        breaker="ignore",
        cost=1.0,
    )
    own = gr.Policy(jitter=lambda wait: wait / 2, wait=own_wait)
    assert_type(patient.merged(own), gr.Policy)
    assert_type(gr.Policy.from_urllib3(retry, count="read"), gr.Policy)
    config = gr.Config(
        policies={"model_overloaded": patient, gr.Code.MODEL_TIMEOUT: own},
        breaker=gr.BreakerConfig(open_time=3),
        gate=gr.GateConfig(),
        budget=gr.BudgetConfig(mode="off"),
        body=gr.BodyConfig(json_limit=0),
        deadline=None,
        on_open="respond",
        dialect="gip",
        idempotency_header="Idempotency-Key",
    )
    assert_type(config.replace(deadline=3.0), gr.Config)
    assert_type(config.overlaid({"deadline": 3}), gr.Config)
    assert_type(gr.Config.load(path), gr.Config)
    assert_type(gr.Config.load("gip-resilience.toml"), gr.Config)
    assert_type(gr.Config.from_dict({"deadline": 3}), gr.Config)
    assert_type(gr.Config.from_env({"X_DEADLINE": "3"}, prefix="X_"), gr.Config)
    gr.Policy(jitter="fuller")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gr.Config(on_open="shrug")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    config.deadline = 5.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return config


class Pager:
    """An observer has the methods it wants."""

    def on_retry_scheduled(self, event: RetryScheduled) -> None:
        """A failure is tried again."""
        assert_type(event.wait, float)
        assert_type(event.maybe_executed, bool)

    def on_gate_waited(self, event: GateWaited) -> None:
        """A rate limit is waited for."""
        assert_type(event.model, str)

    def on_circuit_changed(self, event: CircuitChanged) -> None:
        """A circuit opens or closes."""
        assert_type(event.circuit, CircuitKey)
        assert_type(event.transition.after, State)

    def on_call_ended(self, event: CallEnded) -> None:
        """A call is over."""
        assert_type(event.report, gr.CallReport)


def by_region(target: gr.Target) -> str:
    """A key function."""
    assert_type(target.method, str)
    assert_type(target.url, str)
    assert_type(target.host, str)
    assert_type(target.model, str)
    assert_type(target.headers, Mapping[str, str])
    target.headers["x-region"] = "east"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    return target.headers.get("x-region", "")


def loops(client: httpx2.Client) -> httpx2.Response:
    """A loop of one's own says that it retries."""
    response = client.get("https://gip.invalid")
    for attempt in range(3):
        with gr.outer_retry(attempt) as nothing:
            assert_type(nothing, None)
            response = client.get("https://gip.invalid")
    gr.outer_retry("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return response


def brains(config: gr.Config) -> gr.Resilience:
    """A brain with everything given, its circuits and its counts."""
    clock: gr.Clock = FakeClock()
    clock = gr.SystemClock()
    brain = gr.Resilience(
        config, store=gr.MemoryStore(max_keys=10), observers=[Pager()], clock=clock, chance=lambda: 0.5
    )
    with brain.override(deadline=10, model_overloaded=gr.Policy(max_attempts=1)) as nothing:
        assert_type(nothing, None)
    for circuit in brain.breakers:
        assert_type(circuit, CircuitKey)
        assert_type(brain.breakers[circuit], BreakerView)
    brain.breakers.force_open("gip.invalid", "azure/openai/gpt-5-mini")
    brain.breakers.force_close("gip.invalid")
    brain.breakers.metrics_only("gip.invalid")
    brain.breakers.auto("gip.invalid")
    brain.breakers.reset()
    snapshot = brain.metrics.snapshot()
    assert_type(snapshot, Snapshot)
    assert_type(snapshot.retries, int)
    assert_type(snapshot.as_dict(), dict[str, object])
    assert_type(snapshot.total("success"), int)
    gr.Resilience(part=by_region)
    assert_type(brain.breakers["gip.invalid", "azure/openai/gpt-5-mini"], BreakerView)
    assert_type(brain.breakers["gip.invalid", "azure/openai/gpt-5-mini", "east"], BreakerView)
    brain.breakers.force_open("gip.invalid", "azure/openai/gpt-5-mini", part="east")
    brain.breakers.reset("gip.invalid", "azure/openai/gpt-5-mini", "east")
    with brain.override(idempotency_header="Idempotency-Key"):
        pass
    gr.Overrides(idempotency_header=None)
    gr.Resilience(part=lambda target: 1)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    gr.Resilience(deadline=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    return brain


def fleets(
    client: redis.Redis, asynchronous: redis.asyncio.Redis, cluster: redis.RedisCluster
) -> gr.Resilience:
    """State that processes share, from a URL or from any client."""
    with RedisStore("rediss://user:password@redis.invalid", namespace="shop", secret="s") as store:
        assert_type(store.flush(0.5), bool)
        assert_type(store.traffic, Traffic)
        assert_type(store.up, bool)
    RedisStore(client, secret=b"s")
    RedisStore(asynchronous, max_keys=10)
    RedisStore(cluster)
    config = gr.Config(store=gr.StoreConfig(timeout=0.02, interval=1.0, quorum=3, budget="fleet"))
    return gr.Resilience(config, store=store)


def seen(brain: gr.Resilience, error: Exception) -> None:
    """Counts, exporters, and another policy while it runs."""
    snapshot = brain.metrics.snapshot()
    assert_type(snapshot.diff(snapshot), Snapshot)
    assert_type(brain.metrics.reset(), Snapshot)
    for (host, model), spread in snapshot.call_seconds.items():
        assert_type(host + model, str)
        assert_type(spread, Histogram)
        assert_type(spread.quantile(0.95), float)
    assert_type(snapshot.circuits["gip.invalid", ""], BreakerView)
    found = gr.report(error)
    assert_type(found, gr.CallReport | None)
    if found is not None:
        assert_type(found.code, str)
        assert_type(found.attempts[0].started, float)
    watch = gr.Config.watch("gip.toml", interval=2)
    assert_type(watch, gr.ConfigWatch[gr.Config])
    assert_type(watch.config, gr.Config)
    brain = gr.Resilience(watch, observers=[OpenTelemetry(traces=False), DebugLog(), MultiProcessObserver()])
    brain.check_config()
    brain.reload(gr.Config(observe=gr.ObserveConfig(max_models=10)), source="console")
    ResilienceCollector(brain)
    brain.reload({})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    gr.GateConfig(mode="metrics_only")
    gr.BudgetConfig(mode="shadow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def by_hand(brain: gr.Resilience) -> None:
    """The adapters, mounted the way each library documents. Each takes its own library's transport and no other."""
    session = requests.Session()
    session.mount("https://", ResilientAdapter(brain, pool_maxsize=5))
    session.mount("http://", ResilientAdapter(resilience=brain, inner=HTTPAdapter()))
    with httpx2.Client(transport=ResilientTransport(brain, inner=httpx2.HTTPTransport(http2=True))) as client:
        response = client.get("https://gip.invalid", extensions={"gip_resilience": gr.Overrides(deadline=3)})
        assert_type(gr.report(response), gr.CallReport | None)
    httpx2.AsyncClient(transport=AsyncResilientTransport(resilience=brain))
    httpx.Client(transport=LegacyTransport(resilience=brain, inner=httpx.HTTPTransport()))
    httpx.AsyncClient(transport=LegacyAsyncTransport())
    httpx.Client(transport=ResilientTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    LegacyTransport(inner=httpx2.HTTPTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncResilientTransport(inner=httpx2.HTTPTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def failures(session: requests.Session, client: httpx2.Client) -> gr.CallReport | None:
    """Our exceptions are those of the library too, and all of them are ours."""
    try:
        session.get("https://gip.invalid")
        client.get("https://gip.invalid")
    except RequestsCircuitOpenError as error:
        as_requests_has_it: requests.exceptions.ConnectionError = error
        as_we_have_it: gr.CircuitOpenError = error
        assert_type(error.retry_after, float | None)
        return as_we_have_it.report or gr.report(as_requests_has_it)
    except (gr.RateLimitedError, gr.DeadlineExceededError) as refused:
        assert_type(refused.report, gr.CallReport | None)
    except gr.ResilienceError as error:
        return error.report
    return None


def reports(report: gr.CallReport) -> str:
    """What a call did."""
    for attempt in report.attempts:
        assert_type(attempt, gr.Attempt)
        assert_type(attempt.status, int | None)
        assert_type(attempt.hint, gr.Hint | None)
    assert_type(report.maybe_executed, bool)
    report.outcome = "success"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return str(report)


def taxonomy() -> gr.Fact:
    """The taxonomy and the hints by themselves."""
    fact = gr.classify(503, {"retry-after": "2"}, b'{"error": {"code": "model_overloaded"}}', dialect="gip")
    assert_type(fact, gr.Fact)
    assert_type(fact.category, gr.Category)
    assert_type(fact.retry, gr.Retry)
    assert_type(fact.scope, gr.Scope)
    assert_type(fact.host, gr.Verdict)
    assert_type(gr.hints.retry_hint(429, [("retry-after", "2")], None, 0.0), gr.Hint | None)
    assert_type(gr.hints.should_retry(429, {}, {"error": {}}), bool | None)
    return fact


def fakes() -> list[Seen]:
    """What tests are made of."""
    plan = FaultPlan.script([Error("model_overloaded", retry_after=1), RateLimited(2), Ok()])
    with Gateway(plan + FaultPlan.always(Ok(), p=0.5), rate_limit=RateLimit(requests=10)) as gateway:
        assert_type(gateway.base_url, str)
        gateway.plan = FaultPlan.per_model({"azure/*": Error("model_unavailable")})
        FaultPlan.always("ok")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return gateway.requests


def testing_kit() -> None:
    """Clocks, upstreams and the judge."""
    upstream = ScriptedUpstream([Ok()], clock=FakeClock())
    httpx.Client(transport=upstream.httpx_transport())
    httpx.AsyncClient(transport=upstream.httpx_transport())
    httpx2.Client(transport=upstream.httpx2_transport())
    httpx2.AsyncClient(transport=upstream.httpx2_transport())
    requests.Session().mount("https://", upstream.requests_adapter())
    with instant() as clock:
        assert_type(clock.slept, list[float])
    assert_type(judge(upstream, answered=1, closed=True), list[Finding])
    assert_resilient(upstream, allow=["early", "leaked"], min_backoff=0.1)
    with Gateway() as gateway:
        assert_resilient(gateway)
    assert_resilient(gateway, allow=["haste"])  # type: ignore[list-item]  # no such fault
