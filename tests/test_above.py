"""Who is above a call and retries too: other layers of ours, and loops. Attempts never multiply.

What counts is how many requests reach the gateway.
"""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import gip_resilience as gr
from gip_resilience.above import Layer
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Gateway, HalfBody, Ok, RateLimited, Status
from interposed import interpose
from layered import acting, add_layers, brains, chat, play, settled
from live import EXACT, Live
from matrix import chat_url
from sending import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Harness, Session

MODELS = "/v1/models"
OVERLOADED = Error("model_overloaded")


@pytest.fixture
def session(harness: Harness) -> Iterator[Session]:
    """Each of the seven clients, bare."""
    with open_session(harness) as opened:
        yield opened


def nowhere(gateway: Gateway) -> str:
    """A path the gateway is not asked for by `chat_url`."""
    return gateway.base_url + "/models"


def asked(gateway: Gateway, path: str = "/v1/chat/completions") -> int:
    """How many requests for *path* reached the gateway."""
    return sum(seen.path == path for seen in gateway.requests)


# ---- layers of ours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        pytest.param(OVERLOADED, 4, id="model_overloaded"),
        pytest.param(RateLimited(1), 4, id="rate-limited"),
        pytest.param(Status(503), 3, id="503"),
        pytest.param(HalfBody("fin"), 2, id="half-a-body"),
        pytest.param(Error("model_unavailable"), 1, id="model_unavailable"),
    ],
)
def test_layers_do_not_multiply(
    reply: Any, sent: int, layers: int, session: Session, gateway: Gateway
) -> None:
    """However many layers there are, as much is sent as by one, and the uppermost knows of each attempt."""
    gateway.plan = FaultPlan.always(reply)
    stack = brains(layers, gate=gr.GateConfig(mode="off"))
    add_layers(session, *stack)

    async def scenario() -> Any:
        try:
            return await settled(chat(session.client, chat_url(gateway)))
        except Exception as error:
            return error

    outcome = play(session, scenario)

    report = gr.report(outcome)
    assert report is not None
    assert (len(gateway.requests), len(report.attempts)) == (sent, sent)
    assert [brain.metrics.snapshot().sent() for brain in stack] == [sent] * layers
    assert [brain.metrics.snapshot().retries for brain in stack] == [0] * (layers - 1) + [sent - 1]


def test_what_an_upper_layer_mends_is_whole(session: Session, gateway: Gateway) -> None:
    """The lower layer hands a failure up as it is, and the upper one tries again."""
    gateway.plan = FaultPlan.script([OVERLOADED, Status(502), Ok()])
    lower, upper = brains(2)
    add_layers(session, lower, upper)

    answer = session.post(chat_url(gateway))

    assert answer.status == 200
    assert [attempt.code for attempt in answer.report.attempts] == ["model_overloaded", "http_502", "ok"]
    assert lower.metrics.snapshot().total("success") == 1
    assert lower.metrics.snapshot().total("failure") == 2


@pytest.mark.parametrize("layers", [2, 3])
def test_a_brain_that_is_there_twice_counts_once(layers: int, session: Session, gateway: Gateway) -> None:
    """Two layers of one brain are one: a failure told twice would open circuits twice as early."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    (brain,) = brains(1)
    add_layers(session, *[brain] * layers)

    session.post(chat_url(gateway))

    assert len(gateway.requests) == brain.metrics.snapshot().sent() == 4


def test_a_brain_that_is_there_twice_around_another_counts_once(session: Session, gateway: Gateway) -> None:
    """So they are with another brain's layer in between."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    outer, middle = brains(2)
    add_layers(session, outer, middle, outer)

    session.post(chat_url(gateway))

    assert [len(gateway.requests), *(b.metrics.snapshot().sent() for b in (outer, middle))] == [4, 4, 4]


@pytest.mark.parametrize(("count", "sent"), [("0", 4), ("1", 1)])
def test_an_sdk_over_two_layers_is_told_by_the_upper_one(
    count: str, sent: int, session: Session, gateway: Gateway
) -> None:
    """``x-should-retry: false`` is a word for the SDK. From the lower layer, the upper one would heed it."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    add_layers(session, *brains(2))

    answer = session.post(chat_url(gateway), headers={"x-stainless-retry-count": count})

    assert (len(gateway.requests), answer.headers["x-should-retry"]) == (sent, "false")


def test_nobody_is_told_without_an_sdk(session: Session, gateway: Gateway) -> None:
    """An answer goes up as the server gave it."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    add_layers(session, *brains(2))

    assert "x-should-retry" not in session.post(chat_url(gateway)).headers


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("plan", "sent", "whole"),
    [
        pytest.param(FaultPlan.script([BreakStream(how="fin"), Ok()]), 2, True, id="restarted"),
        pytest.param(FaultPlan.script([BreakStream(how="fin", events=3)]), 2, True, id="replayed"),
        pytest.param(FaultPlan.always(BreakStream(how="rst")), 3, False, id="given-up"),
    ],
)
def test_one_layer_mends_a_stream(
    plan: FaultPlan, sent: int, whole: bool, layers: int, session: Session, gateway: Gateway
) -> None:
    """The uppermost: a stream that two layers mend is asked for as often as their attempts multiplied."""
    with open_session(session.harness) as bare, Live(bare, chat_url(gateway), EXACT) as live:
        text = content(live.read())
    gateway.clear()
    gateway.plan = plan
    stack = brains(layers)
    add_layers(session, *stack)

    with Live(session, chat_url(gateway), EXACT) as live:
        if whole:
            assert content(live.read()) == text
        else:
            with pytest.raises(gr.StreamInterruptedError):
                live.read()

    assert len(gateway.requests) == sent
    breaks = [brain.metrics.snapshot().streams.get("breaks", 0) for brain in stack]
    assert breaks == [0] * (layers - 1) + [sent - 1 if whole else sent]


def content(stream: bytes) -> list[bytes]:
    """What of a stream does not differ from run to run."""
    return [line.partition(b'"delta"')[2] for line in stream.splitlines() if b'"delta"' in line]


def test_an_open_circuit_of_a_lower_layer_is_not_retried(session: Session, gateway: Gateway) -> None:
    """What the lower layer refuses goes up at once, and no circuit above learns from it."""
    lower, upper = brains(2)
    add_layers(session, lower, upper)
    lower.breakers.force_open(gateway.url.removeprefix("http://"))

    with pytest.raises(gr.CircuitOpenError) as caught:
        session.post(chat_url(gateway))

    report = gr.report(caught.value)
    assert report is not None
    assert (report.outcome, gateway.requests) == ("refused", [])
    assert upper.metrics.snapshot().retries == 0


# ---- what is not an attempt of the layer above ----------------------------------------------------------------


def test_another_request_inside_an_attempt_keeps_its_attempts(session: Session, gateway: Gateway) -> None:
    """Before each attempt something in between asks elsewhere: a call of its own, tried as often as any."""
    gateway.plan = FaultPlan.always(OVERLOADED, path="/v1/chat/completions") + FaultPlan.always(
        Status(503), path=MODELS
    )
    other = open_session(session.harness)
    add_layers(other, *brains(2, budget=gr.BudgetConfig(mode="off")))

    async def fetch(where: str) -> None:
        if where == "send":
            await settled(other.client.get(nowhere(gateway)))

    interpose(session, acting(session, fetch))
    add_layers(session, *brains(2))

    async def scenario() -> None:
        await settled(chat(session.client, chat_url(gateway)))
        if session.portal is not None:
            await other.client.aclose()

    play(session, scenario)
    other.close()

    assert (asked(gateway), asked(gateway, MODELS)) == (4, 4 * 3)


def test_a_call_of_its_own_gives_the_attempt_back(session: Session, gateway: Gateway) -> None:
    """After it, the attempt it was made in goes on, and the layer beneath knows it."""
    gateway.plan = FaultPlan.always(OVERLOADED, path="/v1/chat/completions")
    other = open_session(session.harness)
    add_layers(other, *brains(2))

    async def fetch(where: str) -> None:
        if where == "send":
            await settled(other.client.get(nowhere(gateway)))

    add_layers(session, *brains(1))
    interpose(session, acting(session, fetch))
    add_layers(session, *brains(1))

    async def scenario() -> None:
        await settled(chat(session.client, chat_url(gateway)))
        if session.portal is not None:
            await other.client.aclose()

    play(session, scenario)
    other.close()

    assert (asked(gateway), asked(gateway, MODELS)) == (4, 4)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({}, True, id="the-same"),
        pytest.param({"url": "http://h/v1/chat?api-version=2"}, True, id="query"),
        pytest.param({"url": "http://user:word@H/v1/chat"}, True, id="user-and-case"),
        pytest.param({"method": "post"}, True, id="case-of-the-method"),
        pytest.param({"method": "GET"}, False, id="method"),
        pytest.param({"url": "http://h/v1/token"}, False, id="path"),
        pytest.param({"url": "http://other/v1/chat"}, False, id="host"),
        pytest.param({"url": "http://h:81/v1/chat"}, False, id="port"),
    ],
)
def test_the_rule(change: dict[str, str], same: bool) -> None:
    """Method, host and path make the attempt; what may be added on the way does not."""
    with Layer(object(), "POST", "http://h/v1/chat"):
        below = Layer(object(), **{"method": "POST", "url": "http://h/v1/chat", **change})

    assert (below.above is not None) is same


def test_only_the_attempt_right_above_counts() -> None:
    """A request inside a call that is itself another one inside an attempt."""
    with Layer(1, "POST", "http://h/a"), Layer(2, "GET", "http://h/b"):
        assert Layer(3, "POST", "http://h/a").above is None
        assert Layer(3, "GET", "http://h/b").above is not None


@pytest.mark.parametrize("layers", [1, 2])
def test_what_follows_a_failed_call_is_a_call_of_its_own(
    layers: int, session: Session, gateway: Gateway
) -> None:
    """The mark is gone after an answer, an error of the client's, of somebody's in between, and a cancellation."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    scopes: list[Any] = []
    troubles: list[Any] = [
        None,
        session.harness.errors.ReadTimeout("late"),
        ZeroDivisionError(),
        KeyboardInterrupt(),
    ]
    if session.portal is not None:
        troubles.append("cancel")
    current: list[Any] = []

    async def act(where: str) -> None:
        if where != "send" or not current:
            return
        trouble = current.pop()
        if trouble == "cancel":
            scopes[-1].cancel()
            await anyio.lowlevel.checkpoint()
        elif trouble is not None:
            raise trouble

    interpose(session, acting(session, act))
    add_layers(session, *brains(layers))
    sent = []

    async def scenario() -> None:
        for trouble in troubles:
            current[:] = [trouble]
            try:
                if session.portal is None:
                    await settled(chat(session.client, chat_url(gateway)))
                else:
                    with anyio.CancelScope() as scope:
                        scopes.append(scope)
                        await settled(chat(session.client, chat_url(gateway)))
            except (Exception, KeyboardInterrupt):
                pass
            current.clear()
            gateway.clear()
            await settled(chat(session.client, chat_url(gateway)))
            sent.append(len(gateway.requests))

    play(session, scenario)

    assert sent == [4] * len(troubles)


def test_while_a_stream_is_read_calls_are_calls_of_their_own(session: Session, gateway: Gateway) -> None:
    """An answer in hand is no attempt under way, though the layer goes on looking after it."""
    gateway.plan = FaultPlan.script([Ok()]) + FaultPlan.always(OVERLOADED)
    add_layers(session, *brains(2, budget=gr.BudgetConfig(mode="off")))
    client, url = session.client, chat_url(gateway)
    sent: list[int] = []

    def blocking(pieces: Iterator[bytes]) -> None:
        for _ in pieces:
            gateway.clear()
            chat(client, url)
            sent.append(len(gateway.requests))

    async def awaiting() -> None:
        async with client.stream("POST", url, json=EXACT) as response:
            async for _ in response.aiter_raw():
                gateway.clear()
                await chat(client, url)
                sent.append(len(gateway.requests))

    if session.portal is not None:
        session.portal.call(awaiting)
    elif session.harness.name == "requests":
        blocking(client.post(url, json=EXACT, stream=True).iter_content(None))
    else:
        with client.stream("POST", url, json=EXACT) as response:
            blocking(response.iter_raw())

    assert sent
    assert sent == [4] * len(sent)


# ---- at the same time -----------------------------------------------------------------------------------------


def test_calls_at_the_same_time_do_not_see_each_other(session: Session, gateway: Gateway) -> None:
    """While an attempt is under way in one task or thread, the same request in another has all its attempts."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    others: list[int] = []
    add_layers(session, *brains(1))
    first: list[bool] = [True]

    if session.portal is None:

        def beside() -> None:
            chat(session.client, chat_url(gateway))

        def act(where: str) -> None:
            if where == "send" and first and first.pop():
                thread = threading.Thread(target=beside)
                thread.start()
                thread.join()
                others.append(len(gateway.requests))

        interpose(session, act)
        add_layers(session, *brains(1))
        chat(session.client, chat_url(gateway))
    else:
        go: list[anyio.Event] = []

        async def abeside() -> None:
            await go[0].wait()
            await chat(session.client, chat_url(gateway))
            others.append(len(gateway.requests))
            go[1].set()

        async def aact(where: str) -> None:
            if where == "send" and first and first.pop():
                go[0].set()
                await go[1].wait()

        interpose(session, aact)
        add_layers(session, *brains(1))

        async def scenario() -> None:
            go[:] = [anyio.Event(), anyio.Event()]
            async with anyio.create_task_group() as group:
                group.start_soon(abeside)
                await chat(session.client, chat_url(gateway))

        session.portal.call(scenario)

    assert (others, len(gateway.requests)) == ([4], 8)


def test_a_task_that_outlives_the_attempt_it_was_begun_in_is_free(session: Session, gateway: Gateway) -> None:
    """It inherited the mark, but the attempt is over."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    contexts: list[contextvars.Context] = []

    async def act(where: str) -> None:
        if where == "send":
            contexts.append(contextvars.copy_context())

    interpose(session, acting(session, act))
    add_layers(session, *brains(1))

    async def scenario() -> int:
        await settled(chat(session.client, chat_url(gateway)))
        gateway.clear()
        if session.portal is None:
            contexts[0].run(chat, session.client, chat_url(gateway))
        else:
            async with anyio.create_task_group() as group:
                # A task runs in a copy of the context it is started in.
                contexts[0].run(group.start_soon, chat, session.client, chat_url(gateway))
        return len(gateway.requests)

    assert play(session, scenario) == 4


def test_a_mark_that_is_taken_off_in_another_context_does_no_harm() -> None:
    """A coroutine that is thrown away is ended by the collector, wherever that runs."""
    layer = Layer(object(), "POST", "http://h/a")
    contextvars.copy_context().run(layer.__enter__)

    layer.__exit__(None, None, None)

    assert not layer.sending
    assert Layer(object(), "POST", "http://h/a").above is None


def test_a_layer_shows_nothing_of_the_request() -> None:
    """Its URL may hold a key."""
    with Layer(1, "POST", "http://h/a?key=planted"):
        assert repr(Layer(1, "POST", "http://h/a?key=planted")) == (
            "<Layer POST above=<Layer POST sending above=None>>"
        )


# ---- loops ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempt", "sent"), [(0, 4), (1, 1), (2, 1)])
def test_a_loop_says_that_it_retries(attempt: int, sent: int, session: Session, gateway: Gateway) -> None:
    """Its first round has all attempts, the later ones one each, and it is told when to stop."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    add_layers(session, *brains(2))

    async def scenario() -> Any:
        with gr.outer_retry(attempt):
            return await settled(chat(session.client, chat_url(gateway)))

    response = play(session, scenario)

    assert (len(gateway.requests), response.headers["x-should-retry"]) == (sent, "false")
    report = gr.report(response)
    assert report is not None
    assert len(report.attempts) == sent


def test_a_loop_that_listens_and_one_that_does_not(session: Session, gateway: Gateway) -> None:
    """The loop of the documentation stops after its first round; one that goes on sends 4 + 1 + 1, not 12."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    add_layers(session, *brains(1))

    async def rounds(heed: bool) -> int:
        gateway.clear()
        for attempt in range(3):
            with gr.outer_retry(attempt):
                response = await settled(chat(session.client, chat_url(gateway)))
            if heed and response.headers.get("x-should-retry") == "false":
                break
        return len(gateway.requests)

    assert play(session, lambda: rounds(True)) == 4
    assert play(session, lambda: rounds(False)) == 6


def test_a_later_round_may_succeed(session: Session, gateway: Gateway) -> None:
    """A good answer is not told to stop anything."""
    add_layers(session, *brains(1))

    async def scenario() -> Any:
        with gr.outer_retry(1):
            return await settled(chat(session.client, chat_url(gateway)))

    response = play(session, scenario)

    assert response.status_code == 200
    assert "x-should-retry" not in response.headers


def test_a_loop_around_an_open_circuit_is_answered(session: Session, gateway: Gateway) -> None:
    """As under an SDK: ``on_open="auto"`` answers who retries by himself."""
    (brain,) = brains(1)
    add_layers(session, brain)
    brain.breakers.force_open(gateway.url.removeprefix("http://"))

    async def scenario() -> Any:
        with gr.outer_retry(0):
            return await settled(chat(session.client, chat_url(gateway)))

    response = play(session, scenario)

    assert (response.status_code, response.headers["x-should-retry"]) == (503, "false")
    assert gateway.requests == []


def test_a_stream_is_mended_in_every_round(session: Session, gateway: Gateway) -> None:
    """No loop goes on where a stream broke."""
    gateway.plan = FaultPlan.script([BreakStream(how="fin"), Ok()])
    add_layers(session, *brains(1))

    with gr.outer_retry(1), Live(session, chat_url(gateway), EXACT) as live:
        assert live.read().endswith(b"data: [DONE]\n\n")

    assert len(gateway.requests) == 2


def test_the_inner_word_wins_and_ends_with_its_block(session: Session, gateway: Gateway) -> None:
    """Blocks nest, and end when they are left, by an error too."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    add_layers(session, *brains(1, budget=gr.BudgetConfig(mode="off")))
    sent = []

    async def send() -> None:
        gateway.clear()
        await settled(chat(session.client, chat_url(gateway)))
        sent.append(len(gateway.requests))

    async def scenario() -> None:
        with gr.outer_retry(1):
            with gr.outer_retry(0):
                await send()
            await send()
            with pytest.raises(ZeroDivisionError), gr.outer_retry(0):
                raise ZeroDivisionError
            await send()
        await send()

    play(session, scenario)

    assert sent == [4, 1, 1, 4]


def test_a_loop_speaks_of_its_own_calls(session: Session, gateway: Gateway) -> None:
    """What is asked elsewhere inside an attempt was tried for the first time, unless a loop there says otherwise."""
    gateway.plan = FaultPlan.always(Status(503))
    other = open_session(session.harness)
    add_layers(other, *brains(1))
    sent = []

    async def fetch(where: str) -> None:
        if where == "send":
            for begin in (0, 1):
                gateway.clear()
                if begin:
                    with gr.outer_retry(1):
                        await settled(other.client.get(nowhere(gateway)))
                else:
                    await settled(other.client.get(nowhere(gateway)))
                sent.append(len(gateway.requests))

    interpose(session, acting(session, fetch))
    add_layers(session, *brains(1))

    async def scenario() -> None:
        with gr.outer_retry(1):
            await settled(chat(session.client, chat_url(gateway)))
        if session.portal is not None:
            await other.client.aclose()

    play(session, scenario)
    other.close()

    assert sent == [3, 1]


def test_an_error_leads_a_loop_to_the_report(session: Session) -> None:
    """Where there is no answer, what was done is found by the error."""
    add_layers(session, *brains(1))

    async def scenario() -> Any:
        with gr.outer_retry(1):
            try:
                await settled(chat(session.client, "http://127.0.0.1:9/v1/chat/completions"))
            except Exception as error:
                return gr.report(error)

    report = play(session, scenario)

    assert [attempt.code for attempt in report.attempts] == ["connect_error"]


@pytest.mark.parametrize(
    ("attempt", "error", "says"),
    [
        (-1, ValueError, "attempt: expected an int >= 0, got -1"),
        (1.0, TypeError, "attempt: expected an int, counted from 0, got float"),
        (True, TypeError, "attempt: expected an int, counted from 0, got bool"),
        (None, TypeError, "attempt: expected an int, counted from 0, got NoneType"),
    ],
)
def test_a_wrong_round(attempt: Any, error: type[Exception], says: str) -> None:
    """It is refused when it is said, and named."""
    with pytest.raises(error, match=f"^{says}$"):
        gr.outer_retry(attempt)
