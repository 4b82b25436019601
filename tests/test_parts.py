"""The key function: it names the part of a model that a request is for, and each part has a circuit of its own."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, RateLimited
from gip_resilience.state import CircuitKey, ScopeKey
from gip_resilience.target import MAX_NAME, look_at
from gip_resilience.testing import FakeClock
from harness import CHAT
from layered import chat, play, settled
from matrix import chat_url
from sending import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Answer, Harness, Session

MODEL = str(CHAT["model"])


@pytest.fixture
def session(harness: Harness) -> Iterator[Session]:
    """Each of the seven clients, bare."""
    with open_session(harness) as opened:
        yield opened


def region(target: gr.Target) -> str:
    """What a user might write."""
    return target.headers.get("x-region", "")


def brain_with(part: Callable[[gr.Target], Any] | None, **config: Any) -> gr.Resilience:
    """A brain with a key function, in whose pauses no time passes."""
    return gr.Resilience(gr.Config(**config), clock=FakeClock(), part=part)


def ask(session: Session, gateway: Gateway, where: str = "", **headers: str) -> Answer:
    """A chat request to one region."""
    named = {"x-region": where} if where else {}
    return session.post(chat_url(gateway), headers={**named, **headers})


def host_of(gateway: Gateway) -> str:
    """As circuits name it."""
    return gateway.url.removeprefix("http://")


def test_a_part_that_fails_leaves_the_others_alone(session: Session, gateway: Gateway) -> None:
    """The circuit that opens is the part's own."""
    brain = gr.mount(session.client, brain_with(region, on_open="respond"))
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    ask(session, gateway, "east")

    again, other, none = ask(session, gateway, "east"), ask(session, gateway, "west"), ask(session, gateway)

    assert [answer.status for answer in (again, other, none)] == [503, 200, 200]
    assert len(gateway.requests) == 3
    host = host_of(gateway)
    assert set(brain.breakers) == {
        (host, ""),
        (host, f"{MODEL}@east"),
        (host, f"{MODEL}@west"),
        (host, MODEL),
    }
    assert brain.breakers[host, MODEL, "east"].state == "open"
    assert brain.breakers[host, MODEL, "west"].state == "closed"
    assert brain.breakers[host, MODEL].state == "closed"
    assert f"{host} {MODEL}@east" in repr(brain.breakers)


def test_a_part_that_is_rate_limited_holds_no_other_up(session: Session, gateway: Gateway) -> None:
    """The gate is the part's own too."""
    brain = brain_with(region, policies={"rate_limit": gr.Policy(max_attempts=1)})
    clock: Any = brain.clock
    gr.mount(session.client, brain)
    gateway.plan = FaultPlan.script([RateLimited(30)])
    ask(session, gateway, "east")

    ask(session, gateway, "west")
    assert clock.slept == []
    ask(session, gateway, "east")
    assert sum(clock.slept) >= 30


def test_what_the_function_is_shown(session: Session, gateway: Gateway) -> None:
    """All that tells parts apart, and no secret."""
    seen: list[gr.Target] = []

    def part(target: gr.Target) -> str:
        seen.append(target)
        return ""

    gr.mount(session.client, brain_with(part))
    url = chat_url(gateway)
    secrets = {
        "Authorization": "Bearer planted",
        "X-Api-Key": "planted",
        "api-key": "planted",
        "X-Goog-Api-Key": "planted",
        "Cookie": "planted=1",
        "Proxy-Authorization": "planted",
    }

    session.post(f"{url}?key=planted#planted", headers={"X-Region": "east", **secrets})

    (target,) = seen
    assert target[:4] == ("POST", url, host_of(gateway), MODEL)
    assert target.headers["x-region"] == "east"
    assert target.headers["content-type"] == "application/json"
    assert "planted" not in repr(target)
    with pytest.raises(TypeError):
        target.headers["x-region"] = "west"  # type: ignore[index]


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("https://user:planted@h.invalid:8443/a/b;c?key=planted#x", "https://h.invalid:8443/a/b;c"),
        ("https://planted@h.invalid/%2F", "https://h.invalid/%2F"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
    ],
)
def test_the_url_without_its_secrets(url: str, bare: str) -> None:
    """Scheme, host, port and path."""
    assert look_at("GET", url, "h", "", ()).url == bare


def test_a_repeated_header_is_joined() -> None:
    """As HTTP has it."""
    pairs = [(b"X-Tag", b"a"), (b"x-tag", b"b"), (b"api-KEY", b"planted")]

    assert dict(look_at("GET", "http://h/", "h", "", pairs).headers) == {"x-tag": "a, b"}


def test_it_is_asked_once_a_call(session: Session, gateway: Gateway) -> None:
    """And not for each attempt: a call belongs to one part."""
    seen: list[gr.Target] = []

    def part(target: gr.Target) -> str:
        seen.append(target)
        return str(len(seen))

    brain = gr.mount(session.client, brain_with(part))
    gateway.plan = FaultPlan.script([Error("model_overloaded")] * 2)

    session.post(chat_url(gateway))

    assert (len(gateway.requests), len(seen)) == (3, 1)
    assert [circuit.model for circuit in brain.breakers if circuit.model] == [f"{MODEL}@1"]


def test_it_is_shown_the_model_that_was_said(session: Session, gateway: Gateway) -> None:
    """An override names the model of the circuit, and so for the function."""
    brain = gr.mount(session.client, brain_with(lambda target: target.model.rpartition("/")[2]))

    async def scenario() -> None:
        with brain.override(model="azure/another"):
            await settled(chat(session.client, chat_url(gateway)))

    play(session, scenario)

    assert (host_of(gateway), "azure/another", "another") in brain.breakers


@pytest.mark.parametrize(
    ("label", "part"),
    [
        ("", ""),
        ("  ", ""),
        ("east", "east"),
        (" eu west\n1\x1b ", "eu_west_1"),
        ("x" * 999, "x" * MAX_NAME),
    ],
)
def test_labels_are_cleaned(label: str, part: str) -> None:
    """They enter log lines and counters, as the names of models do."""
    target = gr.Target("GET", "http://h/", "h", "m", {})
    call = brain_with(lambda _: label).call("h", "c", "m", target=lambda _: target)

    assert call.key.part == part


def test_without_a_model_a_part_has_a_circuit_all_the_same(session: Session, gateway: Gateway) -> None:
    """Where the model cannot be told, the part still can."""
    brain = gr.mount(session.client, brain_with(region))

    session.get(gateway.base_url + "/models", headers={"x-region": "east"})

    assert set(brain.breakers) == {(host_of(gateway), ""), (host_of(gateway), "@east")}


def test_what_it_raises_comes_out(session: Session, gateway: Gateway) -> None:
    """Its code, its bug: nothing is sent, nothing retried, and nothing in its way."""
    trouble = LookupError("no such region")

    def part(target: gr.Target) -> str:
        raise trouble

    brain = gr.mount(session.client, brain_with(part))

    with pytest.raises(LookupError) as caught:
        session.post(chat_url(gateway))

    assert caught.value is trouble
    assert (gateway.requests, len(brain.breakers)) == ([], 0)


@pytest.mark.parametrize("label", [None, 1, b"east"])
def test_a_label_that_is_none(label: Any, session: Session, gateway: Gateway) -> None:
    """The error names the argument it came by."""
    gr.mount(session.client, brain_with(lambda target: label))

    with pytest.raises(
        TypeError, match=r"^part: expected the function to return a str, got (NoneType|int|bytes)$"
    ):
        session.post(chat_url(gateway))

    assert gateway.requests == []


def test_a_function_that_is_none() -> None:
    """It is refused where it is given."""
    with pytest.raises(TypeError, match=r"^part: expected a function of a gip_resilience\.Target, got str$"):
        gr.Resilience(part="east")  # type: ignore[arg-type]


def test_an_operator_overrules_one_part(gateway: Gateway, harness: Harness) -> None:
    """Each of the operator's words can be about a part, and leaves the others alone."""
    brain = brain_with(region, on_open="respond")
    host = host_of(gateway)
    with open_session(harness, brain) as session:

        def statuses() -> list[int]:
            return [ask(session, gateway, where).status for where in ("east", "west", "")]

        brain.breakers.force_open(host, MODEL, "east")
        assert statuses() == [503, 200, 200]
        brain.breakers.force_close(host, MODEL, "east")
        assert statuses() == [200, 200, 200]
        brain.breakers.force_open(host, MODEL, part="east")
        brain.breakers.metrics_only(host, MODEL, "east")
        assert statuses() == [200, 200, 200]
        brain.breakers.force_open(host, MODEL, "east")
        brain.breakers.auto(host, MODEL, "east")
        assert statuses() == [200, 200, 200]
        brain.breakers.force_open(host, MODEL, "east")
        brain.breakers.reset(host, MODEL, "west")
        assert statuses() == [503, 200, 200]
        brain.breakers.reset(host, MODEL, "east")
        assert statuses() == [200, 200, 200]
        brain.breakers.force_open(host, MODEL)
        assert statuses() == [200, 200, 503]


def test_the_key_of_a_call() -> None:
    """An adapter may name the part itself; a function outranks it."""
    target = gr.Target("GET", "http://h/", "h", "m", {"x-region": "east"})

    def told(model: str) -> gr.Target:
        return target._replace(model=model)

    assert brain_with(None).call("h", "c", "m", part="p").key == ScopeKey("h", "c", "m", "p")
    assert brain_with(None).call("h", "c", "m", target=told).key == ScopeKey("h", "c", "m", "")
    assert brain_with(region).call("h", "c", "m", part="p", target=told).key == ScopeKey(
        "h", "c", "m", "east"
    )


def test_circuits_are_found_by_short_keys() -> None:
    """A key without a part is that of the model as a whole."""
    brain = brain_with(None)
    brain.breakers.force_open("h", "m")

    assert brain.breakers["h", "m"] == brain.breakers["h", "m", ""] == brain.breakers[CircuitKey("h", "m")]
    with pytest.raises(KeyError):
        _ = brain.breakers["h", "m", "east"]


def test_a_brain_pickles_with_its_function() -> None:
    """It belongs to what is decided, not to what was learned; one that cannot be pickled says so."""
    assert pickle.loads(pickle.dumps(brain_with(region)))._part is region
    assert pickle.loads(pickle.dumps(brain_with(None)))._part is None
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(brain_with(lambda target: ""))
