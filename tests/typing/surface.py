"""The rest of the public surface, for type checkers; see ``api.py``. Never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import gip_resilience as gr
import gip_resilience.httpx as on_httpx
import gip_resilience.httpx2 as on_httpx2
import gip_resilience.requests as on_requests
from gip_resilience import events, hints, taxonomy
from gip_resilience.breaker import BreakerView, Cause, Control, State, Transition
from gip_resilience.gateway import (
    BreakStream,
    Close,
    EmptyReply,
    Error,
    FaultPlan,
    Garbage,
    Gateway,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Huge,
    PlanError,
    Raw,
    Redirect,
    Reply,
    Reset,
    Rule,
    Slow,
    SlowBody,
    Stall,
    Status,
    StreamOptions,
    WrongType,
    serve,
)
from gip_resilience.logs import LogObserver
from gip_resilience.snapshots import Histogram, Snapshot, Where
from gip_resilience.state import CircuitKey, ScopeKey, Store
from gip_resilience.testing import FakeClock
from gip_resilience.testing import StreamOptions as TheSameOptions

if TYPE_CHECKING:
    import httpx
    import httpx2
    import requests


def event_streams(chunk: bytes) -> list[str]:
    """The decoder by itself."""
    decoder = gr.sse.SSEDecoder(max_event=gr.sse.MAX_EVENT, last_event_id="7")
    found = decoder.feed(chunk)
    assert_type(found, list[gr.sse.ServerSentEvent])
    assert_type(decoder.finish(), list[gr.sse.ServerSentEvent])
    assert_type(found[0].retry, int | None)
    splitter = gr.sse.EventSplitter(max_event=1024)
    try:
        assert_type(splitter.feed(chunk), list[bytes])
    except gr.sse.EventTooLargeError as error:
        ours: gr.ResilienceError = error
        del ours
    assert_type(gr.sse.parse(chunk), gr.sse.Block)
    mark: bytes = gr.sse.BOM
    del mark
    decoder.feed("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return [event.data for event in found]


def streams(report: gr.CallReport) -> gr.Config:
    """Settings of streams, and what became of one."""
    for hop in report.hops:
        assert_type(hop, gr.Hop)
        assert_type(hop.action, str)
        assert_type(hop.events, int)
    stream = gr.StreamConfig(replay="always", idle_timeout=180, resume=("/v1/events/*",), max_event=1 << 20)
    gr.StreamConfig(replay="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return gr.Config(stream=stream)


def broken(client: httpx.Client, other: httpx2.Client, session: requests.Session) -> str | None:
    """Every adapter's kin of a broken stream is ours, and its library's."""
    try:
        client.get("https://gip.invalid")
    except on_httpx.StreamDivergedError as diverged:
        assert_type(diverged.at, int)
        of_httpx: httpx.TransportError = diverged
        del of_httpx
    except (on_httpx.StreamInterruptedError, on_httpx.StreamStalledError) as error:
        assert_type(error.delivered, str | None)
        return error.code
    try:
        other.get("https://gip.invalid")
    except on_httpx2.StreamStalledError as stalled:
        of_httpx2: httpx2.ReadTimeout = stalled
        del of_httpx2
    except (on_httpx2.StreamDivergedError, on_httpx2.StreamInterruptedError) as error2:
        assert_type(error2.events, int)
    try:
        session.get("https://gip.invalid")
    except (on_requests.StreamDivergedError, on_requests.StreamStalledError) as error3:
        of_requests: requests.exceptions.RequestException = error3
        return of_requests.__class__.__name__
    except on_requests.StreamInterruptedError as error4:
        assert_type(error4.phase, str)
    except gr.StreamDivergedError as error5:
        kin: gr.StreamInterruptedError = error5
        return kin.delivered
    except gr.ConfigError as wrong:
        return str(wrong)
    return gr.__version__


REPLIES: list[Reply] = [
    Error("model_overloaded", retry_after=1.5),
    Status(503, body="json"),
    Html(502),
    Redirect("/elsewhere", status=308),
    Huge(1 << 20, chunked=True),
    Raw(b"HTTP/1.1 200 OK\r\n\r\n", end="rst"),
    Garbage(),
    EmptyReply(),
    Slow(1.0, then=Gzip()),
    SlowBody(64, 0.1),
    Reset("body"),
    Close("request"),
    HalfHeaders("stall"),
    HalfBody("truncated_gzip"),
    BreakStream(how="rst", events=3),
    Stall(),
    WrongType(),
]


def gateways() -> Gateway:
    """Plans and their rules, in Python and as data."""
    plan = FaultPlan.script(REPLIES, path="/v1/*", model="azure/*")
    assert_type(plan + FaultPlan.always(Html(502), p=0.5), FaultPlan)
    assert_type(FaultPlan((Rule(Html(502)),)), FaultPlan)
    try:
        assert_type(FaultPlan.from_toml("plan.toml"), FaultPlan)
    except PlanError as wrong:
        value_error: ValueError = wrong
        del value_error
    options: StreamOptions = TheSameOptions()
    BreakStream(how="sideways")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    BreakStream("rst")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Html("502")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    serve("127.0.0.1:8080", plan, models=["m"])
    return Gateway(
        plan, models=["m"], api_keys=None, streams=options, latency=0.1, record_bodies=True, port=0
    )


class Everything:
    """An observer with a method for every kind of event: what each is told."""

    def on_call_started(self, event: events.CallStarted) -> None:
        """Every event of a call names its host and model."""
        of_call: events.CallEvent = event
        assert_type(of_call.host, str)
        assert_type(of_call.model, str)

    def on_event(self, event: events.Event) -> str:
        """An event is one of these."""
        match event:
            case events.AttemptStarted():
                assert_type(event.number, int)
            case events.AttemptEnded():
                assert_type(event.attempt, gr.Attempt)
            case events.RetryScheduled():
                assert_type(event.wait, float)
            case events.CallGaveUp() | events.CallEnded():
                assert_type(event.report, gr.CallReport)
            case events.CallPaused() | events.CallRefused():
                assert_type(event.host, str)
            case events.CircuitChanged() | events.CircuitOverruled() | events.ProbeSent():
                assert_type(event.circuit, CircuitKey)
            case events.GateClosed() | events.GateOpened() | events.GateWaited():
                assert_type(event.model, str)
            case (
                events.HintHonoured()
                | events.HintRefused()
                | events.BudgetRefused()
                | events.DeadlineReached()
            ):
                assert_type(event.model, str)
            case (
                events.StreamOpened()
                | events.StreamBroken()
                | events.StreamContinued()
                | events.StreamDiverged()
            ):
                assert_type(event.model, str)
            case events.MarkerSupplied() | events.ShadowRefused():
                assert_type(event.host, str)
            case events.StateDegraded() | events.StateRestored():
                assert_type(event.component, str)
            case events.ConfigReloaded() | events.ConfigRejected():
                assert_type(event.source, str)
            case _:
                pass
        return type(event).__name__


def codes(fact: gr.Fact) -> gr.Hint | None:
    """The taxonomy's tables, and hints by themselves."""
    assert_type(taxonomy.known_codes(), frozenset[str])
    assert_type(fact.hint, gr.Hint | None)
    assert_type(fact.known, bool)
    assert_type(hints.should_retry(503, {}, None), bool | None)
    gr.classify("503", {}, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return gr.Hint(1.5, "retry-after")


def seen_from_outside(view: BreakerView, snapshot: Snapshot, where: Where) -> float:
    """Views and counts are plain values."""
    assert_type(view.state, State)
    assert_type(view.retry_after, float)
    assert_type(snapshot.call_seconds[where], Histogram)
    assert_type(snapshot.closed_gates[where].remaining, float)
    assert_type(snapshot.budgets[where].tokens, float)
    return snapshot.call_seconds[where].mean


def transitions(change: Transition) -> tuple[State, Cause | str]:
    """What a circuit's event carries."""
    assert_type(Control("auto"), Control)
    return change.after, change.reason


def stores(store: Store) -> gr.Resilience:
    """A store of one's own is anything with the methods of the protocol, and ours have them."""
    ours: Store = gr.MemoryStore()
    assert_type(ScopeKey("gip.invalid", "", "m"), ScopeKey)
    gr.Resilience(store=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return gr.Resilience(
        store=store if isinstance(store, gr.MemoryStore) else ours,
        clock=FakeClock(),
        observers=[Everything(), LogObserver()],
    )
