"""Streams that nobody closes: they are collected, and the call ends when the next one begins."""

from __future__ import annotations

import gc
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.breaker import State
from gip_resilience.gateway import Error, FaultPlan, Huge, SlowBody
from happenings import Witness
from harness import HARNESSES
from leftovers import assert_idle, network
from live import STREAMED

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway, Reply
    from gip_resilience.testing import FakeClock
    from harness import Harness, Session


# The connection of such a stream is httpx's to close, and bare httpx leaves it to the collector too, which complains.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def open_and_forget(session: Session, url: str, pieces: int = 0) -> None:
    """A streamed call whose response nobody keeps, but for itself: only the collector finds it."""
    ring: list[Any] = []
    ring.append(ring)
    if session.harness.name == "requests":
        response = session.client.post(url, json=STREAMED, stream=True, timeout=5)
        ring += [response, *islice(response.iter_content(None), pieces)]
        return
    request = session.client.build_request("POST", url, json=STREAMED)
    if session.portal is None:
        response = session.client.send(request, stream=True)
        ring += [response, *islice(response.iter_raw(), pieces)]
        return

    async def send() -> None:
        ring.append(await session.client.send(request, stream=True))

    session.portal.call(send)


def test_a_dropped_stream_is_counted_and_told_of(
    harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """As cancelled; by a snapshot, or at the next call."""
    witness = Witness()
    brain = gr.Resilience(clock=clock, observers=[witness])
    url = gateway.url + "/v1/chat/completions"
    with harness.open(brain) as session:
        open_and_forget(session, url)
        gc.collect()
        assert brain.metrics.snapshot().total("cancelled") == 1
        open_and_forget(session, url)
        gc.collect()
        session.post(url)

    seen = brain.metrics.snapshot()
    assert (seen.total("cancelled"), seen.total("success"), seen.sent()) == (2, 1, 3)
    assert [word for word in witness.words if word.startswith(("cancelled", "success"))] == [
        "cancelled 1",
        "cancelled 1",
        "success 1",
    ]


def test_a_dropped_stream_gives_the_probe_back(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """The next caller is not kept away until its lease has run out."""
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    brain = gr.Resilience(clock=clock, chance=lambda: 0.5)
    url = gateway.url + "/v1/chat/completions"
    with harness.open(brain) as session:
        session.post(url)
        clock.advance(5.5)
        open_and_forget(session, url)
        gc.collect()
        assert session.post(url).status == 200

    (model,) = [view for key, view in brain.breakers.all().items() if key.model]
    assert model.state is State.CLOSED


def test_a_stream_that_is_dropped_inside_a_lock_of_ours(gateway: Gateway, clock: FakeClock) -> None:
    """The collector runs where it likes, in the middle of the store's or the counters' work too: it must not wait."""
    brain = gr.Resilience(clock=clock)
    done = threading.Event()

    def collect_inside() -> None:
        with brain.metrics._lock, brain.store._lock:  # type: ignore[attr-defined]  # what nobody else would do
            gc.collect()
        done.set()

    for harness in HARNESSES[:2]:
        with harness.open(brain) as session:
            gc.disable()
            try:
                open_and_forget(session, gateway.url + "/v1/chat/completions")
                assert not brain._dropped
                thread = threading.Thread(target=collect_inside, daemon=True)
                thread.start()
                assert done.wait(10), "the collector hangs in one of our locks"
                thread.join(10)
                assert len(brain._dropped) == 1
            finally:
                gc.enable()
        done.clear()

    assert brain.metrics.snapshot().total("cancelled") == 2


def pool_lock(session: Session) -> Any:
    """What a blocking client holds while it gives out its connections."""
    transport = network(session)
    if session.harness.name == "requests":
        (key,) = transport.poolmanager.pools.keys()
        return transport.poolmanager.pools[key].pool.mutex
    return transport._pool._optional_thread_lock


@pytest.mark.parametrize(
    ("harness", "reply"),
    [
        pytest.param(harness, reply, id=f"{harness}-{reply.kind}")
        for harness in HARNESSES
        for reply in (SlowBody(0, 0.01), Huge(300_000, status=500))
        # An answer of requests is urllib3's own.
        if harness.colour == "sync" and (harness.name != "requests" or reply.kind == "slow_body")
    ],
)
def test_a_body_that_is_dropped_inside_a_lock_of_the_client(
    reply: Reply, harness: Harness, gateway: Gateway, clock: FakeClock
) -> None:
    """The collector may be at work where the client gives out connections: it must not wait for that client."""
    url = gateway.url + "/v1/chat/completions"
    done = threading.Event()
    with harness.open(gr.Resilience(clock=clock)) as session:

        def collect_inside() -> None:
            with pool_lock(session):
                gc.collect()
            done.set()

        gateway.plan = FaultPlan.script([reply])
        gc.disable()
        try:
            open_and_forget(session, url, pieces=1)
            thread = threading.Thread(target=collect_inside, daemon=True)
            thread.start()
            assert done.wait(10), "the collector hangs in a lock of the client's"
            thread.join(10)
        finally:
            gc.enable()
        assert session.post(url).status == 200
        assert_idle(session)
