"""Ways to a store, and to its end: every client library, TLS, Sentinel with a failover, programs that just stop."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import redis
import trustme
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.sentinel import Sentinel

import gip_resilience as gr
from facts import MODEL, OK, UNAVAILABLE
from gip_resilience.breaker import State
from gip_resilience.gateway import Error, FaultPlan
from gip_resilience.redis import RedisStore
from gip_resilience.state import CircuitKey, ScopeKey
from harness import CHAT
from servers import Server, TlsFront, Watched, until
from test_redis import QUICK, Member

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gip_resilience.gateway import Gateway
    from harness import Harness


@pytest.fixture(scope="module")
def serving() -> Iterator[Server]:
    """A server for all of this."""
    with Server() as server:
        yield server


@pytest.fixture
def server(serving: Server) -> Server:
    """As if it had just been started."""
    serving.clean()
    return serving


def test_every_client_is_one_of_the_fleet(harness: Harness, gateway: Gateway, server: Server) -> None:
    """A trip at one brain is an open circuit at the client of another; the probe goes out, and closes it for both."""
    gateway.plan = FaultPlan.script([Error("model_unavailable")])
    config = QUICK.replace(on_open="wait")
    circuit = CircuitKey(gateway.url.split("/")[2], MODEL)
    with RedisStore(server.url) as one, RedisStore(server.url) as other:
        tripping, waiting = gr.Resilience(QUICK, store=one), gr.Resilience(config, store=other)
        with harness.open(waiting) as session:
            other.acquire(ScopeKey(circuit.host, "", MODEL), config, time.monotonic(), first=True)
            assert other.flush(5.0)
            with harness.open(tripping) as first:
                assert first.post(gateway.url + "/v1/chat/completions", json=CHAT).status == 502
            until(lambda: waiting.breakers[circuit].state is State.OPEN, "the other's circuit opens")

            began = time.monotonic()
            answer = session.post(gateway.url + "/v1/chat/completions", json=CHAT)
            assert answer.status == 200
            assert time.monotonic() - began < QUICK.breaker.open_time * 1.5 + 1.0
        until(lambda: tripping.breakers[circuit].state is State.CLOSED, "the first one's circuit closes")
        counts = waiting.metrics.snapshot()
        assert counts.waits["store"] < 0.06
        assert len(gateway.requests) == 2


def test_tls(server: Server, tmp_path: Path) -> None:
    """The server's certificate is checked, by the authority that the URL names."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with TlsFront(server.port, context) as front:
        plain = f"rediss://127.0.0.1:{front.port}"
        with Member(f"{plain}?ssl_ca_certs={tmp_path / 'ca.pem'}") as one, Member(server.url) as other:
            one.call(UNAVAILABLE)
            until(lambda: other.state is State.OPEN, "the other's circuit opens")
            assert one.told == []
        with Member(plain) as stranger:
            until(lambda: bool(stranger.told), "the one who does not trust it says so")
            assert "certificate" in str(stranger.told[0]).lower()


def promoted(replica: Server) -> bool:
    """Whether it is master now; while its role changes it cuts connections."""
    with contextlib.suppress(redis.ConnectionError):
        return bool(replica.run("ROLE")[0] == b"master")
    return False


@pytest.mark.parametrize("kind", [Sentinel, AsyncSentinel], ids=["blocking", "asyncio"])
def test_a_failover_by_sentinel(kind: type) -> None:
    """The master dies, the replica is promoted, and the store follows: no call is slowed, and state is one again."""
    with Watched() as watched:
        master = kind([("127.0.0.1", watched.port)]).master_for(watched.name)
        with Member(master) as one, Member(master) as other:
            one.call(OK)
            assert one.store.flush()
            assert one.store.up
            watched.master.kill()
            deadline = time.monotonic() + 20.0
            while not promoted(watched.replica) and time.monotonic() < deadline:
                one.call(OK)
                time.sleep(0.001)  # noqa: TID251 - the Sentinel takes its time
            one.was_not_kept()
            one.call(UNAVAILABLE)
            # Sentinel says who is master a moment after it is; a second is for us.
            assert until(lambda: other.state is State.OPEN, "the other knows", 10.0) < 3.0
            until(lambda: one.store.up and other.store.up, "both are back")
        assert "(Sentinel)" in repr(one.store)


PROGRAM = """
import sys, time
import gip_resilience as gr
from gip_resilience.redis import RedisStore
from gip_resilience.state import ScopeKey
store = RedisStore(sys.argv[1])
brain = gr.Resilience(store=store)
store.acquire(ScopeKey("h", "c", "m"), brain.config, time.monotonic(), first=True)
if sys.argv[2] == "wait":
    store.flush()
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "raise":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("way", ["wait", "at once", "raise"])
@pytest.mark.parametrize("trouble", ["none", "frozen", "gone"])
def test_a_program_that_ends(server: Server, way: str, trouble: str) -> None:
    """No close, no join: it ends as it would without a store, within a second, whatever the server does."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, server.url, way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        if trouble == "frozen":
            server.freeze()
        elif trouble == "gone":
            server.kill()
        began = time.monotonic()
        _, err = process.communicate("go\n", timeout=20)
        took = time.monotonic() - began
    finally:
        server.thaw()
        if trouble == "gone":
            server.start()

    assert process.returncode == (3 if way == "raise" else 0)
    assert [line for line in err.splitlines() if "degraded" not in line] == []
    assert took < 2.0
