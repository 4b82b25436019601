"""Idempotency keys: one for each call of the user's, the same on every attempt, seen on the wire."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.adapters import BaseAdapter

import gip_resilience as gr
import gip_resilience.requests
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Gateway, Ok, Status, StreamOptions
from gip_resilience.testing import FakeClock
from harness import CHAT, HARNESSES
from layered import add_layers, brains, chat, play, settled
from live import EXACT, Live
from matrix import chat_url
from sending import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from harness import Harness, Session

KEY = "idempotency-key"
OVERLOADED = Error("model_overloaded")
HOPS = FaultPlan.script(
    [OVERLOADED, BreakStream(how="fin"), BreakStream(how="fin", events=3), Status(503), Ok()]
)
"""Before its stream begins, before its first event, and after output: a way for an attempt to fail in each phase."""


@pytest.fixture
def session(harness: Harness) -> Iterator[Session]:
    """Each of the seven clients, bare."""
    with open_session(harness) as opened:
        yield opened


def mounted(session: Session, **config: Any) -> gr.Resilience:
    """A brain that is mounted on the client, with enough attempts for all of `HOPS`."""
    generous = dict.fromkeys(("stream", "overload", "intermediary"), gr.Policy(max_attempts=9))
    (brain,) = brains(1, policies=generous, **config)
    return gr.mount(session.client, brain)


def keys(gateway: Gateway, name: str = KEY) -> list[str | None]:
    """What each request carried in the header *name*."""
    return [seen.header(name) for seen in gateway.requests]


# ---- the caller's own -----------------------------------------------------------------------------------------


def test_a_key_of_the_callers_goes_with_every_attempt_and_hop(session: Session, gateway: Gateway) -> None:
    """Whether something is switched on or not."""
    gateway.plan = HOPS
    mounted(session)

    with Live(session, chat_url(gateway), EXACT, headers={"Idempotency-Key": "mine"}) as live:
        assert live.read().endswith(b"data: [DONE]\n\n")

    assert keys(gateway) == ["mine"] * 5


@pytest.mark.parametrize("name", ["Idempotency-Key", "IDEMPOTENCY-KEY", "idempotency-key"])
def test_a_key_of_the_callers_stays(name: str, session: Session, gateway: Gateway) -> None:
    """Nothing is generated over it, or beside it, however it is spelt."""
    gateway.plan = FaultPlan.script([OVERLOADED])
    mounted(session, idempotency_header="Idempotency-Key")

    session.post(chat_url(gateway), headers={name: "mine"})

    assert keys(gateway) == ["mine"] * 2
    assert [[name.lower() for name, _ in seen.headers].count(KEY) for seen in gateway.requests] == [1, 1]


# ---- ours -----------------------------------------------------------------------------------------------------


def test_a_generated_key_goes_with_every_attempt_and_hop(session: Session, gateway: Gateway) -> None:
    """One for the whole call, and another one for the next call."""
    mounted(session, idempotency_header="Idempotency-Key")
    calls = []
    for _ in range(2):
        gateway.plan = HOPS
        gateway.clear()
        with Live(session, chat_url(gateway), EXACT) as live:
            assert live.read().endswith(b"data: [DONE]\n\n")
        calls.append(keys(gateway))

    first, second = calls
    assert first == [first[0]] * 5
    assert second == [second[0]] * 5
    assert first[0] != second[0]
    assert uuid.UUID(str(first[0])).version == 4


def test_a_resumed_stream_carries_the_key(harness: Harness) -> None:
    """Also where only the rest is asked for."""
    with Gateway(streams=StreamOptions(event_ids=True)) as gateway, open_session(harness) as session:
        gateway.plan = FaultPlan.script([BreakStream(how="rst", events=4)])
        mounted(session, idempotency_header="x-request-key")

        with Live(session, chat_url(gateway)) as live:
            live.read()

        assert [seen.header("last-event-id") is None for seen in gateway.requests] == [True, False]
        first, second = keys(gateway, "x-request-key")
        assert first == second is not None


def generator_of(session: Session, body: bytes) -> Any:
    """A body that can be read once."""

    def blocking() -> Iterator[bytes]:
        yield body

    async def awaiting() -> AsyncIterator[bytes]:
        yield body

    return blocking() if session.portal is None else awaiting()


@pytest.mark.parametrize("kind", ["bytes", "generator", "file"])
def test_every_kind_of_body_keeps_its_bytes(kind: str, session: Session, gateway: Gateway) -> None:
    """The copy that carries the key sends what the caller's request would have sent."""
    gateway.plan = FaultPlan.script([OVERLOADED, OVERLOADED])
    mounted(session, idempotency_header="Idempotency-Key")
    body = b'{"model": "azure/openai/gpt-5-mini", "messages": []}'
    options: dict[str, Any] = session.content(body)
    if kind == "generator":
        options = session.content(generator_of(session, body))
    elif kind == "file":
        options = {"files": {"model": ("body.json", io.BytesIO(body))}}

    session.post(chat_url(gateway), **options)

    first = gateway.requests[0]
    assert first.body_size >= len(body)
    assert [(seen.body_size, seen.body_sha256, seen.header(KEY)) for seen in gateway.requests] == [
        (first.body_size, first.body_sha256, first.header(KEY))
    ] * 3
    assert first.header(KEY)


@pytest.mark.parametrize(
    ("method", "keyed"),
    [
        ("POST", True),
        ("PATCH", True),
        ("GET", False),
        ("HEAD", False),
        ("PUT", False),
        ("DELETE", False),
        ("OPTIONS", False),
    ],
)
def test_only_what_may_not_be_repeated_gets_a_key(
    method: str, keyed: bool, session: Session, gateway: Gateway
) -> None:
    """POST and PATCH; the other methods can be repeated as they are."""
    mounted(session, idempotency_header="Idempotency-Key")

    session.request(method, gateway.base_url + "/models")

    assert [key is not None for key in keys(gateway)] == [keyed]


def test_off_by_default(session: Session, gateway: Gateway) -> None:
    """Nothing is added that nobody asked for."""
    gateway.plan = FaultPlan.script([OVERLOADED])
    mounted(session)

    session.post(chat_url(gateway))

    assert keys(gateway) == [None, None]


def test_for_a_while(session: Session, gateway: Gateway) -> None:
    """`Resilience.override` names another header for the calls of a block, or none."""
    brain = mounted(session, idempotency_header="Idempotency-Key")
    url = chat_url(gateway)

    async def scenario() -> None:
        await settled(chat(session.client, url))
        with brain.override(idempotency_header="x-request-key"):
            await settled(chat(session.client, url))
        with brain.override(idempotency_header=None):
            await settled(chat(session.client, url))

    play(session, scenario)

    assert [key is not None for key in keys(gateway)] == [True, False, False]
    assert [key is not None for key in keys(gateway, "x-request-key")] == [False, True, False]


@pytest.mark.parametrize("harness", [h for h in HARNESSES if h.name != "requests"], ids=repr)
def test_for_one_request(harness: Harness, gateway: Gateway) -> None:
    """An extension of a request of httpx and httpx2 does."""
    with open_session(harness) as session:
        mounted(session)

        session.post(
            chat_url(gateway), extensions={"gip_resilience": gr.Overrides(idempotency_header="x-request-key")}
        )

    assert keys(gateway, "x-request-key") != [None]


def test_the_callers_request_is_left_alone(session: Session, gateway: Gateway) -> None:
    """What the caller made, and what the answer says was asked, has no header that the caller did not set."""
    gateway.plan = FaultPlan.script([OVERLOADED])
    mounted(session, idempotency_header="Idempotency-Key")
    client = session.client
    if session.harness.name == "requests":
        request = client.prepare_request(requests.Request("POST", chat_url(gateway), json=CHAT))
    else:
        request = client.build_request("POST", chat_url(gateway), json=CHAT)
    before = (list(request.headers.items()), request.method, str(request.url))

    async def scenario() -> Any:
        return await settled(client.send(request))

    response = play(session, scenario)

    assert (list(request.headers.items()), request.method, str(request.url)) == before
    assert response.request is request
    assert None not in keys(gateway)


class Echo(BaseAdapter):
    """Keeps what it is asked to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []

    def send(self, request: Any, **options: Any) -> requests.Response:
        """Answer that there is nothing."""
        self.sent.append(request)
        response = requests.Response()
        response.status_code = 204
        response.raw = io.BytesIO()
        response.request = request
        return response

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("harness", [h for h in HARNESSES if h.colour == "sync"], ids=repr)
@pytest.mark.parametrize(("header", "same"), [(None, True), ("Idempotency-Key", False)])
def test_nothing_is_copied_when_it_is_off(header: str | None, same: bool, harness: Harness) -> None:
    """Below us comes the very object the caller made."""
    brain = gr.Resilience(gr.Config(idempotency_header=header), clock=FakeClock())
    if harness.name == "requests":
        echo = Echo()
        prepared = requests.Request("POST", "http://peer.invalid/").prepare()
        gip_resilience.requests.ResilientAdapter(brain, echo).send(prepared)
        assert (echo.sent[0] is prepared) is same
        return
    sent: list[Any] = []

    def answer(request: Any) -> Any:
        sent.append(request)
        return harness.library.Response(204)

    with open_session(harness, transport=harness.library.MockTransport(answer)) as session:
        gr.mount(session.client, brain)
        request = session.client.build_request("POST", "http://peer.invalid/")
        session.client.send(request)

    assert (sent[0] is request) is same


@pytest.mark.parametrize(
    ("lower", "upper"), [(True, False), (False, True), (True, True)], ids=["lower", "upper", "both"]
)
def test_layers_agree_on_one_key(lower: bool, upper: bool, session: Session, gateway: Gateway) -> None:
    """Whichever layer is told to send one, it is the same on every attempt: the call is the upper one's."""
    gateway.plan = FaultPlan.always(OVERLOADED)
    stack = [brains(1, idempotency_header="Idempotency-Key" if on else None)[0] for on in (lower, upper)]
    add_layers(session, *stack)

    session.post(chat_url(gateway))

    assert keys(gateway) == [keys(gateway)[0]] * 4
    assert keys(gateway)[0] is not None
