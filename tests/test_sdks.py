"""Under the OpenAI and Anthropic SDKs as their users make them, with the retries they come with.

The SDKs retry by themselves, twice, and sleep in between; nobody but us can tell them when that is of no use. So
what counts here is how many requests reach the gateway, and that the exceptions are those of the bare SDK.

The SDKs' own sleep is real: no test lets one happen that can show the same without.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anthropic
import anyio.from_thread
import httpx
import openai
import pytest

import gip_resilience as gr
from gip_resilience.gateway import (
    Error,
    FaultPlan,
    Gateway,
    HalfBody,
    Ok,
    RateLimited,
    Reset,
    Stall,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.testing import FakeClock

MODEL = "azure/openai/gpt-5-mini"
ASKED: Any = [{"role": "user", "content": "hello"}]
CODES = [code.value for code in gr.Code]


@dataclass(frozen=True)
class Sdk:
    """One SDK client, as a user makes it."""

    name: str
    make: Callable[..., Any]
    library: Any
    backend: str | None = None
    """The event loop of an awaiting client."""

    def __repr__(self) -> str:
        return self.name

    def ask_options(self) -> dict[str, Any]:
        """What both endpoints are given."""
        limit = {} if self.library is openai else {"max_tokens": 50}
        return {"model": MODEL, "messages": ASKED, **limit}


def _legacy(library: Any) -> Callable[..., Any]:
    """An OpenAI client over an httpx client, which it goes on accepting."""

    def make(**options: Any) -> Any:
        sync = library is openai.OpenAI
        return library(http_client=httpx.Client() if sync else httpx.AsyncClient(), **options)

    return make


SDKS = [
    Sdk("openai", openai.OpenAI, openai),
    Sdk("openai-httpx", _legacy(openai.OpenAI), openai),
    Sdk("openai-asyncio", openai.AsyncOpenAI, openai, "asyncio"),
    Sdk("openai-trio", openai.AsyncOpenAI, openai, "trio"),
    Sdk("openai-httpx-asyncio", _legacy(openai.AsyncOpenAI), openai, "asyncio"),
    Sdk("anthropic", anthropic.Anthropic, anthropic),
    Sdk("anthropic-asyncio", anthropic.AsyncAnthropic, anthropic, "asyncio"),
    Sdk("anthropic-trio", anthropic.AsyncAnthropic, anthropic, "trio"),
]


class Session:
    """An SDK client that is open, with one blocking face for all of them."""

    def __init__(self, sdk: Sdk, base_url: str) -> None:
        self.sdk = sdk
        self.client = sdk.make(base_url=base_url, api_key="any")
        self._stack = contextlib.ExitStack()
        if sdk.backend is not None:
            portal = anyio.from_thread.start_blocking_portal(sdk.backend)
            self._portal: Any = self._stack.enter_context(portal)

    def close(self) -> None:
        """Close the client, and end its event loop."""
        try:
            self._run(self.client.close)
        finally:
            self._stack.close()

    def ask(self, **options: Any) -> Any:
        """One answer; *options* are the client's (``max_retries``, ``timeout``, ``base_url``)."""
        return self._run(lambda: self._endpoint(options).create(**self.sdk.ask_options()))

    def raw(self) -> Any:
        """One answer with its headers, the SDK's way to see them."""
        return self._run(lambda: self._endpoint({}).with_raw_response.create(**self.sdk.ask_options()))

    def stream(self, **options: Any) -> str:
        """The text of one streamed answer."""
        if self.sdk.backend is not None:
            text = str(self._portal.call(self._astream, options))
            if self.sdk.backend == "trio":
                gc.collect()  # what the SDK forgot to close is finalised here, where the warning is expected
            return text
        stream = self._endpoint(options).create(stream=True, **self.sdk.ask_options())
        return "".join(map(_text, stream))

    def failure(self, **options: Any) -> Any:
        """What one call that fails raises."""
        with pytest.raises(Exception) as caught:
            self.ask(**options)
        return caught.value

    def outcome(self, **options: Any) -> type:
        """The type of what one call raises, or else of what it returns."""
        try:
            return type(self.ask(**options))
        except Exception as error:
            return type(error)

    async def _astream(self, options: dict[str, Any]) -> str:
        stream = await self._endpoint(options).create(stream=True, **self.sdk.ask_options())
        return "".join([_text(event) async for event in stream])

    def _endpoint(self, options: dict[str, Any]) -> Any:
        client = self.client.with_options(**options) if options else self.client
        return client.chat.completions if self.sdk.library is openai else client.messages

    def _run(self, function: Callable[[], Any]) -> Any:
        if self.sdk.backend is None:
            return function()

        async def awaited() -> Any:
            return await function()

        return self._portal.call(awaited)


def _text(event: Any) -> str:
    if hasattr(event, "choices"):
        return (event.choices[0].delta.content or "") if event.choices else ""
    return getattr(getattr(event, "delta", None), "text", "") or ""


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    """One gateway for all clients of this module, which take long to make."""
    with Gateway() as running:
        yield running


@pytest.fixture(scope="module")
def sessions(server: Gateway) -> Iterator[dict[str, Session]]:
    """The clients, bare."""
    opened = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for sdk in SDKS:
            opened[sdk.name] = Session(sdk, server.base_url if sdk.library is openai else server.url)
    yield opened
    for session in opened.values():
        session.close()


@pytest.fixture
def gateway(server: Gateway) -> Gateway:
    """The gateway, in good health and with nothing recorded."""
    server.plan = FaultPlan()
    server.clear()
    return server


@pytest.fixture(params=SDKS, ids=repr)
def session(request: pytest.FixtureRequest, sessions: dict[str, Session]) -> Iterator[Session]:
    """Each of the clients in turn; bare again afterwards."""
    session = sessions[request.param.name]
    yield session
    gr.unmount(session.client)


@pytest.fixture
def brain(clock: FakeClock) -> gr.Resilience:
    """A brain of its own for every test, on a clock that costs no time."""
    return gr.Resilience(clock=clock)


def refused_url(session: Session) -> str:
    """A base URL where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}" + ("/v1" if session.sdk.library is openai else "")


# ---- how often is sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        pytest.param(Status(503), 3, id="503-without-a-code"),
        pytest.param(Error("model_server_error"), 3, id="model_server_error"),
        pytest.param(Error("model_timeout"), 2, id="model_timeout"),
        pytest.param(Error("internal_error"), 1, id="internal_error"),
        pytest.param(Error("failed_request"), 1, id="failed_request"),
        pytest.param(Status(409), 1, id="409"),
        pytest.param(Error("model_unavailable"), 1, id="model_unavailable"),
    ],
)
def test_the_sdk_does_not_multiply_our_attempts(
    reply: Any, sent: int, session: Session, brain: gr.Resilience, gateway: Gateway
) -> None:
    """A failure that goes on is sent as often as our policy says, whatever retries the SDK has of its own."""
    gateway.plan = FaultPlan.always(reply)
    gr.mount(session.client, brain)

    error = session.failure()

    assert session.client.max_retries == 2
    assert [seen.retry_count for seen in gateway.requests] == [0] * sent
    assert error.response.headers["x-should-retry"] == "false"
    assert brain.metrics.snapshot().sent() == sent


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_refused_connection_is_tried_five_times_at_most(
    name: str, sessions: dict[str, Session], brain: gr.Resilience
) -> None:
    """An exception cannot tell the SDK to stop, but its retries get one attempt each: 3 + 1 + 1, not 9."""
    session = sessions[name]
    gr.mount(session.client, brain)
    try:
        error = session.failure(base_url=refused_url(session))
    finally:
        gr.unmount(session.client)

    assert isinstance(error, session.sdk.library.APIConnectionError)
    assert brain.metrics.snapshot().sent("connect_error") == 5


def test_a_refused_connection_without_the_sdk_retrying(session: Session, brain: gr.Resilience) -> None:
    """With the SDK's retries switched off our three attempts are all there is."""
    gr.mount(session.client, brain)

    error = session.failure(base_url=refused_url(session), max_retries=0)

    assert isinstance(error, session.sdk.library.APIConnectionError)
    assert brain.metrics.snapshot().sent("connect_error") == 3


# ---- circuits -------------------------------------------------------------------------------------------------


def test_a_dead_model_is_asked_once(session: Session, brain: gr.Resilience, gateway: Gateway) -> None:
    """``model_unavailable`` opens the circuit: the next call of the SDK sends nothing and fails likewise."""
    gateway.plan = FaultPlan.always(Error("model_unavailable"))
    gr.mount(session.client, brain)
    session.failure()

    error = session.failure()

    assert len(gateway.requests) == 1
    assert isinstance(error, session.sdk.library.InternalServerError)
    assert error.response.status_code == 503
    assert int(error.response.headers["retry-after"]) >= 1
    assert error.response.headers["x-gip-resilience"] == "circuit-open"
    report = gr.report(error)
    assert report is not None
    assert (report.outcome, report.attempts) == ("refused", ())


def test_another_model_is_still_asked(session: Session, brain: gr.Resilience, gateway: Gateway) -> None:
    """The circuit of one model leaves the others alone, wherever in its body the SDK names the model."""
    gateway.plan = FaultPlan.per_model({MODEL: Error("model_unavailable")})
    gr.mount(session.client, brain)
    session.failure()

    with brain.override(model="azure/openai/another"):
        session.failure()

    assert len(gateway.requests) == 2
    assert [circuit.model for circuit in brain.breakers if circuit.model] == [MODEL, "azure/openai/another"]


def test_an_open_circuit_answers_within_five_milliseconds(
    session: Session, brain: gr.Resilience, gateway: Gateway
) -> None:
    """Nothing is sent and nothing slept: the SDK's own pauses would be half a second each."""
    gr.mount(session.client, brain)
    host = gateway.url.removeprefix("http://")
    brain.breakers.force_open(host)

    took = []
    for _ in range(15):
        begin = time.perf_counter()
        outcome = session.outcome()
        took.append(time.perf_counter() - begin)

    assert issubclass(outcome, session.sdk.library.InternalServerError)
    assert gateway.connections == 0
    assert gateway.requests == []
    assert min(took) < 0.005


def test_an_open_circuit_can_be_raised(session: Session, clock: FakeClock, gateway: Gateway) -> None:
    """Told to raise, the SDK wraps our exception, and the report is found through it."""
    brain = gr.Resilience(gr.Config(on_open="raise"), clock=clock)
    gr.mount(session.client, brain)
    brain.breakers.force_open(gateway.url.removeprefix("http://"))

    error = session.failure(max_retries=0)

    assert isinstance(error, session.sdk.library.APIConnectionError)
    assert isinstance(error.__cause__, gr.CircuitOpenError)
    report = gr.report(error)
    assert report is not None
    assert report.outcome == "refused"
    assert gateway.requests == []


# ---- waiting --------------------------------------------------------------------------------------------------


def test_a_rate_limit_is_waited_for_inside_one_call(
    session: Session, brain: gr.Resilience, gateway: Gateway, clock: FakeClock
) -> None:
    """The SDK sees one call that took its time."""
    gateway.plan = FaultPlan.script([RateLimited(3), RateLimited(2), Ok()])
    gr.mount(session.client, brain)

    session.ask()

    assert [seen.retry_count for seen in gateway.requests] == [0, 0, 0]
    assert clock.slept[0] == 3.0, "until the gate opens; a turn follows"
    assert sum(clock.slept) >= 5.0
    assert brain.metrics.snapshot().total("success") == 1


def test_a_rate_limit_too_long_to_wait_for_comes_up_at_once(
    session: Session, brain: gr.Resilience, gateway: Gateway, clock: FakeClock
) -> None:
    """The server's answer comes up as the SDK's own exception, and the SDK does not wait in our place."""
    gateway.plan = FaultPlan.always(RateLimited(300))
    gr.mount(session.client, brain)

    error = session.failure()

    assert isinstance(error, session.sdk.library.RateLimitError)
    assert error.response.headers["retry-after"] == "300"
    assert (len(gateway.requests), clock.slept) == (1, [])


def test_a_deadline_ends_a_silent_call(session: Session, gateway: Gateway) -> None:
    """A deadline is the SDK's timeout, and reaches through it by a context variable."""
    gateway.plan = FaultPlan.always(Stall())
    brain = gr.Resilience()
    gr.mount(session.client, brain)

    with brain.override(deadline=0.1):
        error = session.failure(max_retries=0)

    assert isinstance(error, session.sdk.library.APITimeoutError)
    assert isinstance(error.__cause__, gr.DeadlineExceededError)


# ---- the same exceptions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_a_code_raises_what_the_bare_sdk_raises(
    code: str, session: Session, brain: gr.Resilience, gateway: Gateway
) -> None:
    """For each of the 23 codes: the type of the exception is the SDK's own, bare and mounted."""
    gateway.plan = FaultPlan.always(Error(code))
    bare = session.outcome(max_retries=0)
    gr.mount(session.client, brain)

    assert session.outcome() is bare


@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        pytest.param(Stall(), 2, id="read-timeout"),
        pytest.param(Reset("request"), 2, id="reset-after-the-request"),
        pytest.param(Reset("headers"), 2, id="reset-after-the-headers"),
        pytest.param(HalfBody("fin"), 2, id="half-a-body"),
        pytest.param(HalfBody("rst", then=Error("internal_error")), 2, id="half-an-error-body"),
    ],
)
def test_a_broken_exchange_raises_what_the_bare_sdk_raises(
    reply: Any, sent: int, session: Session, brain: gr.Resilience, gateway: Gateway
) -> None:
    """So do failures below HTTP; one that may have been executed is tried once more."""
    gateway.plan = FaultPlan.always(reply)
    options = {"max_retries": 0, "timeout": 0.1}
    bare = session.outcome(**options)
    gateway.clear()
    gr.mount(session.client, brain)

    assert session.outcome(**options) is bare
    assert len(gateway.requests) == sent


def test_a_refused_connection_raises_what_the_bare_sdk_raises(session: Session, brain: gr.Resilience) -> None:
    """So does a connection that is refused."""
    options = {"base_url": refused_url(session), "max_retries": 0}
    bare = session.outcome(**options)
    gr.mount(session.client, brain)

    assert session.outcome(**options) is bare


# ---- streams, raw answers, reports ----------------------------------------------------------------------------

# Under trio the OpenAI SDK, bare as well, leaves generators behind that trio warns about.
forgets_generators = pytest.mark.filterwarnings(
    "ignore:Async generator '(httpx|httpcore|openai):ResourceWarning"
)


@forgets_generators
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(FaultPlan(), id="well"),
        pytest.param(FaultPlan.script([Error("model_overloaded"), Status(502)]), id="after-two-failures"),
    ],
)
def test_a_stream_reads_as_under_the_bare_sdk(
    plan: FaultPlan, session: Session, brain: gr.Resilience, gateway: Gateway
) -> None:
    """A stream yields the same text, and what fails before it begins is retried."""
    bare = session.stream()
    gr.mount(session.client, brain)
    gateway.plan = plan

    assert session.stream() == bare != ""
    assert brain.metrics.snapshot().total("success") == 1


@forgets_generators
def test_streams_cost_no_more_connections_than_bare(
    session: Session, brain: gr.Resilience, gateway: Gateway
) -> None:
    """An SDK that re-iterates and closes its stream keeps its connections under us."""
    session.ask()
    gateway.clear()
    for _ in range(4):
        session.stream()
    bare = gateway.connections
    gr.mount(session.client, brain)
    session.ask()
    gateway.clear()
    for _ in range(4):
        session.stream()

    assert gateway.connections <= bare


def test_a_raw_answer_leads_to_its_report(session: Session, brain: gr.Resilience, gateway: Gateway) -> None:
    """``with_raw_response`` works, and `gip_resilience.report` takes what it returns."""
    gateway.plan = FaultPlan.script([Error("model_overloaded"), Ok()])
    gr.mount(session.client, brain)

    raw = session.raw()

    report = gr.report(raw)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["model_overloaded", "ok"]
    assert raw.headers["x-request-id"].startswith("req_")
    assert "x-should-retry" not in raw.headers


def test_an_error_leads_to_its_report(session: Session, brain: gr.Resilience, gateway: Gateway) -> None:
    """The SDK's exception leads to the report of the call behind it, with an answer and without one."""
    gateway.plan = FaultPlan.always(Error("model_timeout"))
    gr.mount(session.client, brain)

    answered = gr.report(session.failure())
    unanswered = gr.report(session.failure(base_url=refused_url(session), max_retries=0))

    assert answered is not None
    assert unanswered is not None
    assert (answered.model, answered.outcome) == (MODEL, "failure")
    assert [attempt.code for attempt in answered.attempts] == ["model_timeout"] * 2
    assert [attempt.code for attempt in unanswered.attempts] == ["connect_error"] * 3


def test_the_key_is_nowhere(session: Session, brain: gr.Resilience, gateway: Gateway) -> None:
    """Neither the brain nor the report says anything of the key the SDK sent."""
    gr.mount(session.client, brain)
    session.client.api_key = "sk-planted-0123456789"
    try:
        raw = session.raw()
    finally:
        session.client.api_key = "any"

    told = f"{brain!r} {brain.store!r} {brain.breakers!r} {gr.report(raw)!r} {brain.metrics.snapshot()!r}"
    assert "planted" not in told
