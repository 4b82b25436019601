"""Shared state on a real server: what arrives where and when, and what happens while the server is in trouble."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import time
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import pytest
import redis
import redis.asyncio
from redis.connection import AbstractConnection

import gip_resilience as gr
from facts import FAILED, HOST, MODEL, OK, UNAVAILABLE, limited
from gip_resilience.breaker import State
from gip_resilience.events import StateDegraded, StateRestored
from gip_resilience.redis import RedisStore
from gip_resilience.state import CircuitKey, Pending, Permit, Refused, ScopeKey
from servers import BINARIES, Cluster, Proxy, Server, until
from stores import SettledStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.taxonomy import Fact

KEY = ScopeKey(HOST, "credential", MODEL)
CIRCUIT = CircuitKey(HOST, MODEL)
QUICK = gr.Config(
    breaker=gr.BreakerConfig(open_time=0.3, open_jitter=0.0), store=gr.StoreConfig(interval=0.1)
)
BOUND = 0.060
"""Seconds: no call is slowed by more because of the store."""

STANDING = 0.2
"""Seconds from which an answer of the store's must have been waited for: its own connections wait 0.25 s."""


@pytest.fixture(scope="module", params=BINARIES)
def running(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that all tests of this module share."""
    with Server(request.param) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """As if it had just been started."""
    running.clean()
    return running


class Member:
    """One member of the fleet, in this process.

    Attributes:
        told: events of the store's state, as they were told.
    """

    def __init__(self, where: Any, config: gr.Config = QUICK, **options: Any) -> None:
        self.told: list[object] = []
        self._waits: list[float] = []
        self._stood: list[float] = []
        self.config = config
        self.store = where if isinstance(where, RedisStore) else RedisStore(where, **options)
        self.brain = gr.Resilience(config, store=self.store, observers=[self])

    def on_state_degraded(self, event: StateDegraded) -> None:
        """The store is away."""
        self.told.append(event)

    def on_state_restored(self, event: StateRestored) -> None:
        """It is back."""
        self.told.append(event)

    def __enter__(self) -> Self:
        self.ask()
        self.store.flush(5.0)
        return self

    def __exit__(self, *exc: object) -> None:
        self.store.close(5.0)

    def ask(self, key: ScopeKey = KEY) -> object:
        """May a request be sent? Waits for the store as a call would."""
        waited = 0.0
        answer = self._timed(lambda: self.store.acquire(key, self.config, time.monotonic(), first=True))
        while isinstance(answer, Pending):
            waited += answer.seconds
            time.sleep(answer.seconds)  # noqa: TID251 - the server answers in real time
            answer = self._timed(lambda: self.store.acquire(key, self.config, time.monotonic(), first=False))
        if waited:
            self._waits.append(waited)
        return answer

    def call(self, fact: Fact, key: ScopeKey = KEY) -> bool:
        """A call that ends like that. Returns whether it was sent."""
        permit = self.ask(key)
        if not isinstance(permit, Permit):
            return False
        now = time.monotonic()
        self._timed(lambda: self.store.report(key, permit, fact, fact.host, fact.model, now))
        return True

    def _timed(self, ask: Callable[[], object]) -> object:
        began = time.monotonic()
        answer = ask()
        took = time.monotonic() - began
        if took > STANDING:
            self._stood.append(took)
        return answer

    @property
    def waited(self) -> float:
        """The longest that the store told one call to wait for it, in seconds."""
        return max(self._waits, default=0.0)

    def probes_due(self, keys: list[ScopeKey]) -> bool:
        """Whether the circuits of these models are open by the fleet, and the next call of each is a probe."""
        now = time.monotonic()
        views = self.store.circuits(now)
        chosen = [views[CircuitKey(key.host, key.model)] for key in keys]
        return all(view.state is not State.CLOSED and view.retry_after == 0.0 for view in chosen)

    def was_not_kept(self) -> None:
        """No call was slowed beyond the bound because of the store. A busy machine may stop anybody now and then."""
        assert self.waited < BOUND
        assert len(self._stood) <= 2, self._stood

    @property
    def state(self) -> State:
        """Of the model's circuit."""
        return self.store.circuits(time.monotonic())[CIRCUIT].state

    @property
    def held(self) -> float:
        """Seconds that the gate stays closed."""
        gates = self.store.gates(time.monotonic())
        return gates[KEY].remaining if KEY in gates else 0.0


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[Member, Member]]:
    """Two members that know of each other's model."""
    with Member(server.url) as one, Member(server.url) as other:
        yield one, other


# ---- what arrives ----------------------------------------------------------------------------------------------


def test_a_trip_opens_the_circuit_of_the_other(pair: tuple[Member, Member]) -> None:
    """Pushed, not polled: long before the next report."""
    one, other = pair
    one.call(UNAVAILABLE)

    took = until(lambda: other.state is State.OPEN, "the other's circuit opens")
    assert took < QUICK.store.interval / 2 + 1.0
    assert isinstance(other.ask(), Refused)


def test_a_429_closes_the_gate_of_the_other(pair: tuple[Member, Member]) -> None:
    """For as long as the server asked."""
    one, other = pair
    one.call(limited(30.0))

    until(lambda: other.held > 0.0, "the other's gate closes")
    assert 29.0 < other.held <= 30.0


def test_one_probes_and_its_success_is_everybodys(pair: tuple[Member, Member]) -> None:
    """Half-open: one call of the whole fleet is let through."""
    one, other = pair
    one.call(UNAVAILABLE)
    until(lambda: other.state is State.OPEN, "the other's circuit opens")
    until(
        lambda: time.monotonic() > 0 and one.store.circuits(time.monotonic())[CIRCUIT].retry_after == 0,
        "half-open",
    )

    permit = one.ask()
    assert isinstance(permit, Permit)
    assert isinstance(other.ask(), Refused)
    one.store.report(KEY, permit, OK, OK.host, OK.model, time.monotonic())
    until(lambda: other.state is State.CLOSED, "the other's circuit closes")
    assert isinstance(other.ask(), Permit)


def test_failures_of_several_add_up(server: Server) -> None:
    """Eight members with three failures each: none would open its circuit for them, all do for the sum."""
    with ExitStack() as stack:
        members = [stack.enter_context(Member(server.url)) for _ in range(8)]
        for member in members:
            for _ in range(3):
                member.call(FAILED)
        until(lambda: all(member.state is State.OPEN for member in members), "all circuits open")


def test_two_bad_nodes_of_eight_open_nothing_for_the_rest(server: Server) -> None:
    """Ninety per cent failures there are 22 per cent in all."""
    with ExitStack() as stack:
        members = [stack.enter_context(Member(server.url)) for _ in range(8)]
        for number in range(40):
            for place, member in enumerate(members):
                member.call(FAILED if place < 2 and number % 10 else OK)
            if number % 10 == 9:
                assert all(member.store.flush() for member in members)

        assert [member.state for member in members[2:]] == [State.CLOSED] * 6
        assert [member.state for member in members[:2]] == [State.OPEN] * 2


def test_one_bad_node_is_no_quorum(server: Server) -> None:
    """However many calls it has: the others' few are not outvoted."""
    with Member(server.url) as bad, Member(server.url) as good:
        bad_config = gr.Config(breaker=gr.BreakerConfig(mode="metrics_only"), store=QUICK.store)
        bad.config = bad_config
        bad.brain.reload(bad_config)
        for _ in range(200):
            bad.call(FAILED)
        assert bad.store.flush()
        assert good.store.flush()

        assert good.state is State.CLOSED


def test_a_namespace_of_its_own(server: Server) -> None:
    """Two fleets on one server do not hear of each other."""
    with Member(server.url, namespace="a") as one, Member(server.url, namespace="b") as other:
        one.call(UNAVAILABLE)
        one.call(limited(30.0), ScopeKey(HOST, "credential", "another"))
        assert one.store.flush()
        assert other.store.flush()

        assert other.state is State.CLOSED


def test_who_comes_later_is_told(server: Server) -> None:
    """A process that starts while the circuit is open, and the gate closed, knows with its first report."""
    limited_model = ScopeKey(HOST, "credential", "limited")
    config = QUICK.replace(breaker=gr.BreakerConfig(open_time=30.0))
    with Member(server.url, config) as one:
        one.call(UNAVAILABLE)
        one.call(limited(30.0), limited_model)
        assert one.store.flush()
        with Member(server.url, config) as late:
            late.ask(limited_model)
            assert late.store.flush()

            assert late.state is State.OPEN
            assert late.store.gates(time.monotonic())[limited_model].remaining > 28.0


def test_what_was_missed_is_found_by_the_next_report(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publications are at most once; whoever heard none asks."""
    with Member(server.url) as one, Member(server.url) as deaf:
        monkeypatch.setattr(deaf.store, "heard", lambda payload, now: ())
        one.call(UNAVAILABLE)
        assert one.store.flush()
        deaf.call(OK)
        until(lambda: deaf.state is State.OPEN, "the deaf one's circuit opens", 2.0)


# ---- on the caller's path --------------------------------------------------------------------------------------


def test_successes_make_no_round_trip(server: Server) -> None:
    """A thousand calls: nothing is said at once, and one small pipeline per interval in the background."""
    config = gr.Config(store=gr.StoreConfig(interval=60.0))
    store = SettledStore(server)
    with Member(store, config) as member:
        store.settle(time.monotonic())
        before = member.store.traffic
        for _ in range(1000):
            member.call(OK)
        assert member.store.traffic == before
        assert member.store.flush()
        after = member.store.traffic

    assert after.trips - before.trips == 1
    assert after.scripts - before.scripts <= 4


def test_nothing_waits_where_nothing_is_asked(server: Server) -> None:
    """The store is frozen: open circuits refuse, closed ones let pass, at once."""
    with Member(server.url) as member:
        server.freeze()
        try:
            for _ in range(200):
                member.call(OK)
            member.call(UNAVAILABLE)
            assert isinstance(member.ask(), Refused)
        finally:
            server.thaw()

        member.was_not_kept()


# ---- trouble -----------------------------------------------------------------------------------------------------


def kill(server: Server) -> None:
    """It dies, with all it had."""
    server.kill()


def debug_sleep(server: Server) -> None:
    """It sleeps, and answers nobody."""
    client = server.client(socket_timeout=0.05)
    try:
        client.execute_command("DEBUG", "SLEEP", "1.5")
    except redis.TimeoutError:
        pass
    finally:
        client.close()


def client_pause(server: Server) -> None:
    """It holds every command back."""
    server.run("CLIENT", "PAUSE", "1500", "ALL")


def fill(server: Server) -> None:
    """It is full, and throws nothing out."""
    server.run("CONFIG", "SET", "maxmemory", "1")


def read_only(server: Server) -> None:
    """It has become a replica."""
    server.run("CONFIG", "SET", "replica-serve-stale-data", "yes")
    server.run("REPLICAOF", "127.0.0.1", "1")


def revive(server: Server) -> None:
    """It starts again, empty."""
    server.start()


def wait_out(server: Server) -> None:
    """It wakes by itself."""
    until(lambda: server.run("PING"), "the server answers")


def empty(server: Server) -> None:
    """It has room again."""
    server.run("CONFIG", "SET", "maxmemory", "0")


def writable(server: Server) -> None:
    """It is a master again."""
    server.run("REPLICAOF", "NO", "ONE")


TROUBLES: dict[str, tuple[Callable[[Server], None], Callable[[Server], None]]] = {
    "killed": (kill, revive),
    "asleep": (debug_sleep, wait_out),
    "paused": (client_pause, wait_out),
    "frozen": (Server.freeze, Server.thaw),
    "full": (fill, empty),
    "read-only": (read_only, writable),
}
"""What happens to the server, and what ends it."""


@pytest.fixture
def talkers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the threads that have anything to do with a connection."""
    seen: set[str] = set()

    def watched(method: Callable[..., object]) -> Callable[..., object]:
        def use(*args: object, **options: object) -> object:
            seen.add(threading.current_thread().name)
            return method(*args, **options)

        return use

    for name in ("connect", "send_packed_command", "can_read", "read_response"):
        monkeypatch.setattr(AbstractConnection, name, watched(getattr(AbstractConnection, name)))
    return seen


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_call_is_slowed_or_fails_because_of_the_store(trouble: str, talkers: set[str]) -> None:
    """Ten thousand calls of four threads while it is in trouble; a second after it ends all are of one mind again."""
    begin, end = TROUBLES[trouble]
    models = [ScopeKey(HOST, "credential", f"m{number}") for number in range(5)]
    with Server() as server, Member(server.url) as one, Member(server.url) as other:
        for member in (one, other):
            for key in models:
                member.call(OK, key)
            assert member.store.flush()
        # The first calls meet circuits that may be probed: the one thing about which the store is asked.
        for key in models[:4]:
            one.call(UNAVAILABLE, key)
        until(lambda: all(member.probes_due(models[:4]) for member in (one, other)), "probes are due")
        begin(server)
        failures: list[BaseException] = []

        def drive(member: Member) -> None:
            try:
                for number in range(2500):
                    key = models[number % 4]
                    member.call(UNAVAILABLE if number % 50 == 49 else OK, key)
            except BaseException as error:  # whatever it is, the test must know
                failures.append(error)

        threads = [
            threading.Thread(target=drive, args=(member,), name="caller") for member in (one, other) * 2
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        one.was_not_kept()
        other.was_not_kept()
        assert "caller" not in talkers
        assert any(name.startswith("gip-resilience-store") for name in talkers)
        one.call(UNAVAILABLE, models[4])
        end(server)

        circuit = CircuitKey(HOST, "m4")
        took = until(
            lambda: other.store.circuits(time.monotonic())[circuit].opened > 0, "the other knows", 5.0
        )
        assert took < 1.0
        until(lambda: one.store.up and other.store.up, "both are back", 1.0)
        for member in (one, other):
            until(lambda member=member: len(member.told) in {0, 2}, "it is told", 1.0)  # type: ignore[misc]  # a default is no argument
            assert [type(event) for event in member.told] in ([], [StateDegraded, StateRestored])


def test_a_proxy_that_loses_half_of_everything(server: Server) -> None:
    """Pieces of the conversation are swallowed, both ways: no call notices, and it is mended when it ends."""
    with Proxy(server.port, seed=7) as proxy, Member(proxy.url) as one, Member(server.url) as other:
        proxy.lose(0.5)
        for number in range(10_000):
            one.call(
                UNAVAILABLE if number % 500 == 499 else OK, ScopeKey(HOST, "credential", f"m{number % 3}")
            )
        one.was_not_kept()
        proxy.lose(0.0)
        one.call(UNAVAILABLE)
        assert until(lambda: other.state is State.OPEN, "the other knows", 5.0) < 1.0


def test_connections_that_are_cut_are_no_outage(server: Server) -> None:
    """One attempt to connect again is made at once: nobody needs to be told."""
    with Proxy(server.port) as proxy, Member(proxy.url) as one, Member(server.url) as other:
        for _ in range(5):
            proxy.cut()
            one.call(OK)
            assert one.store.flush()
        one.call(UNAVAILABLE)
        until(lambda: other.state is State.OPEN, "the other knows")

        assert one.told == []


def test_a_server_that_comes_back_empty_is_told_what_still_holds(server: Server) -> None:
    """And tells those who come then."""
    config = QUICK.replace(breaker=gr.BreakerConfig(open_time=30.0))
    with Server() as own, Member(own.url, config) as one:
        one.call(UNAVAILABLE)
        one.call(limited(30.0), ScopeKey(HOST, "credential", "limited"))
        assert one.store.flush()
        own.restart()
        with Member(own.url, config) as late:
            until(lambda: late.state is State.OPEN, "the late one is told", 5.0)


def test_a_replica_that_is_promoted(server: Server) -> None:
    """The master dies; another server takes its place at the same address. What it had is there."""
    with Server() as master, Server(settings={"replicaof": f"127.0.0.1 {master.port}"}) as replica:
        until(lambda: master.run("INFO", "replication")["connected_slaves"] == 1, "the replica is connected")
        with Proxy(master.port) as front, Member(front.url) as one, Member(front.url) as other:
            one.call(OK)
            assert one.store.flush()
            master.kill()
            front.lead_to(replica.port)
            front.cut()
            for _ in range(500):
                one.call(OK)
            one.was_not_kept()
            replica.run("REPLICAOF", "NO", "ONE")
            one.call(UNAVAILABLE)
            assert until(lambda: other.state is State.OPEN, "the other knows", 5.0) < 1.0


def test_scripts_that_the_server_forgot_are_loaded_again(pair: tuple[Member, Member], server: Server) -> None:
    """``SCRIPT FLUSH`` is no trouble."""
    one, other = pair
    server.run("SCRIPT", "FLUSH")
    one.call(UNAVAILABLE)
    until(lambda: other.state is State.OPEN, "the other's circuit opens")

    assert one.told == []


@pytest.mark.parametrize("poison", ["string", "list", "hash of nonsense"])
def test_what_somebody_else_put_at_a_key_is_thrown_away(server: Server, poison: str) -> None:
    """A record that cannot be read is no record; the store goes on."""
    with Member(server.url) as one, Member(server.url) as other, server.client() as client:
        names = one.store.names
        tag = names.circuit(CIRCUIT)
        for kind in ("circuit", "window"):
            key = names.key(tag, kind)
            if poison == "string":
                client.set(key, "mine")
            elif poison == "list":
                client.lpush(key, "mine")
            else:
                client.hset(
                    key, mapping={"state": "ajar", "version": "x", "until": "y", "9:c": "z", "n:": "n"}
                )
        client.lpush(names.key(tag, "probe"), "mine")
        one.call(FAILED)
        assert one.store.flush()
        one.call(UNAVAILABLE)
        until(lambda: other.state is State.OPEN, "the other's circuit opens")
        until(
            lambda: (
                one.state is not State.OPEN or one.store.circuits(time.monotonic())[CIRCUIT].retry_after == 0
            ),
            "half-open",
        )
        assert one.call(OK)
        until(lambda: other.state is State.CLOSED, "the other's circuit closes")

        assert one.told == other.told == []


def test_junk_on_the_channel_is_ignored(pair: tuple[Member, Member], server: Server) -> None:
    """Whoever may publish may publish anything."""
    one, other = pair
    names = one.store.names
    with server.client() as client:
        for payload in (
            b"",
            b"\xff" * 300,
            b"c",
            f"c {names.circuit(CIRCUIT)} 1 open 99 trip".encode() * 9,
            b"g x 1 1",
        ):
            client.publish(names.channel, payload)
    one.call(UNAVAILABLE)
    until(lambda: other.state is State.OPEN, "the other's circuit opens")


# ---- a member and its life -------------------------------------------------------------------------------------


def of_ours() -> list[str]:
    """Threads that talk to a store."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("gip-resilience-store")]


def test_no_thread_before_the_first_call(server: Server) -> None:
    """A program that forks its workers first gives each its own."""
    store = RedisStore(server.url)
    assert of_ours() == []
    with Member(store):
        assert len(of_ours()) == 2
    assert of_ours() == []


def test_closing_leaves_nothing(server: Server) -> None:
    """No thread, no connection; calls go on as with a store of their own. Closing twice is closing."""
    with server.client() as client:
        before = len(client.client_list())
        with Member(server.url) as member:
            until(lambda: len(client.client_list()) == before + 2, "both connections are there")
            member.store.close()
            member.store.close()
            until(lambda: len(client.client_list()) == before, "both connections are gone")
            assert member.call(UNAVAILABLE)
            assert isinstance(member.ask(), Refused)
            assert not member.store.up
            assert not member.store.flush(60.0)
    assert of_ours() == []


def test_closing_before_the_first_call_is_closing(server: Server) -> None:
    """No thread is started any more, and calls go on."""
    with RedisStore(server.url) as store:
        pass
    with Member(store) as member:
        assert member.call(OK)
        assert of_ours() == []


def test_a_mistake_of_ours_is_no_trouble_of_the_callers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should the thread that asks end by a bug, nobody goes on waiting for its answers."""
    with Member(server.url) as member:
        monkeypatch.setattr(threading, "excepthook", lambda problem: None)
        monkeypatch.setattr(member.store, "due", lambda now: 1 / 0)
        until(lambda: not member.store.up, "the store goes on by itself")
        until(lambda: of_ours() == [], "both threads end")
        assert member.call(UNAVAILABLE)
        member.was_not_kept()


def test_a_store_that_is_dropped_ends_by_itself(server: Server) -> None:
    """Nobody closed it, nobody holds it: threads and connections end."""
    member = Member(server.url)
    member.call(OK)
    assert member.store.flush()
    reference = weakref.ref(member.store)
    del member
    gc.collect()

    until(lambda: reference() is None, "it is collected")
    until(lambda: of_ours() == [], "its threads end")


def test_the_last_words_are_said(server: Server) -> None:
    """What became of the last calls, and that the probe will not be waited for."""
    with (
        Member(server.url, QUICK.replace(store=gr.StoreConfig(interval=60.0))) as one,
        server.client() as client,
    ):
        for _ in range(3):
            one.call(FAILED)
        one.store.close()
        window = client.hgetall(one.store.names.key(one.store.names.circuit(CIRCUIT), "window"))

    assert {name.rpartition(b":")[2]: value for name, value in window.items() if name[:1].isdigit()} == {
        b"c": b"3",
        b"f": b"3",
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_a_member_of_its_own(server: Server) -> None:
    """Its own name, threads and connections; the parent's go on."""
    with Member(server.url) as parent:
        mine = parent.store._member.node
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                parent.ask()
                joined = parent.store.flush(5.0)
                other = parent.store._member.node
                parent.call(UNAVAILABLE)
                parent.store.flush(5.0)
                code = 0 if joined and other != mine and len(of_ours()) == 2 else 2
                os.write(writing, b"x")
            finally:
                os._exit(code)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        os.close(reading)

        assert os.waitstatus_to_exitcode(status) == 0
        until(lambda: parent.state is State.OPEN, "the parent knows what the child saw")


def test_a_brain_takes_its_store_along(server: Server) -> None:
    """It pickles by its URL; a copy is a member of its own."""
    brain = gr.Resilience(QUICK, store=RedisStore(server.url, namespace="x", secret="s"))
    copy = pickle.loads(pickle.dumps(brain))

    assert isinstance(copy.store, RedisStore)
    assert isinstance(brain.store, RedisStore)
    assert copy.store.names.channel == brain.store.names.channel
    assert copy.store.digest(b"key") == brain.store.digest(b"key")
    with server.client() as client, pytest.raises(TypeError, match="made from a URL"):
        pickle.dumps(RedisStore(client))


def test_memory_is_flat_while_the_store_is_away() -> None:
    """Nothing is kept to be said later but what is in the machines anyway."""
    with Server() as own, Member(own.url) as member:
        own.kill()
        until(lambda: not member.store.up, "it is noticed", 5.0) if member.call(OK) else None
        for number in range(2000):
            member.call(FAILED if number % 3 else OK)

        assert member.store._link._outbox.qsize() < 10


# ---- ways to say where -----------------------------------------------------------------------------------------


WAYS: dict[str, Callable[[Server], Any]] = {
    "url": lambda server: server.url,
    "client": lambda server: server.client(),
    "asyncio client": lambda server: redis.asyncio.Redis(host="127.0.0.1", port=server.port),
    "asyncio client from a URL": lambda server: redis.asyncio.Redis.from_url(server.url),
    "client with decoded answers": lambda server: server.client(decode_responses=True),
    "client of RESP3": lambda server: server.client(protocol=3),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_say_where(server: Server, way: str) -> None:
    """Only address and credentials are taken from a client: how it waits and decodes is not our business."""
    place = WAYS[way](server)
    with Member(place) as one, Member(server.url) as other:
        one.call(UNAVAILABLE)
        until(lambda: other.state is State.OPEN, "the other's circuit opens")
    if isinstance(place, redis.Redis):
        place.close()


@pytest.mark.parametrize("way", ["url", "client", "asyncio client"])
def test_a_cluster(way: str) -> None:
    """One record lies on one node, and what is published reaches all."""
    with Cluster() as cluster, ExitStack() as stack:
        where: Any = cluster.url
        if way == "client":
            where = redis.RedisCluster.from_url(cluster.url, protocol=2)
            stack.callback(where.close)
        elif way == "asyncio client":
            where = redis.asyncio.RedisCluster.from_url(cluster.url)
        one = stack.enter_context(Member(where, cluster=way == "url"))
        other = stack.enter_context(Member(cluster.url, cluster=True))
        for number in range(20):
            key = ScopeKey(HOST, "credential", f"m{number}")
            other.ask(key)
            one.call(UNAVAILABLE, key)
        until(
            lambda: sum(view.opened for view in other.store.circuits(time.monotonic()).values()) == 20,
            "all the other's circuits open",
        )


def test_a_password(server: Server) -> None:
    """It is used, and said nowhere."""
    with Server(settings={"requirepass": "hunter2"}) as own, Member(own.url) as one, Member(own.url) as other:
        one.call(UNAVAILABLE)
        until(lambda: other.state is State.OPEN, "the other's circuit opens")
        assert "hunter2" not in repr(one.store) + repr(one.brain)
    wrong = own.url.replace("hunter2", "hunter3")
    with Server(settings={"requirepass": "hunter2"}, port=own.port), Member(wrong) as stranger:
        until(lambda: bool(stranger.told), "it is told")
        assert "hunter" not in repr(stranger.told)
        assert stranger.call(OK)


@pytest.mark.parametrize(
    ("server", "options", "error", "said"),
    [
        ("localhost:6379", {}, ValueError, "expected a URL"),
        ("http://localhost", {}, ValueError, "expected a URL"),
        ("unix:///tmp/x", {"cluster": True}, ValueError, "for a cluster"),
        (None, {}, TypeError, "got NoneType"),
        (6379, {}, TypeError, "got int"),
        ("redis://h", {"namespace": "a b"}, ValueError, "namespace: expected"),
        ("redis://h:port", {}, ValueError, "server: expected"),
    ],
)
def test_wrong_ways(server: Any, options: dict[str, Any], error: type[Exception], said: str) -> None:
    """Said at once, and without the URL, which may hold a password."""
    with pytest.raises(error, match=said):
        RedisStore(server, **options)


def test_a_server_that_was_never_there() -> None:
    """No exception, one event, calls as with a store of one's own."""
    with Server() as gone:
        url = gone.url
    with Member(url) as member:
        for _ in range(100):
            assert member.call(OK)
        until(lambda: bool(member.told), "it is told")
        assert [type(event) for event in member.told] == [StateDegraded]
        member.was_not_kept()


ACL = (
    "on >pw resetkeys ~gip-resilience:* resetchannels &gip-resilience:* -@all +evalsha +script|load +unlink"
    " +subscribe +unsubscribe +ping +select +client|setinfo +client|setname +time +hmget +hset +hgetall +hincrby"
    " +hdel +pexpire +publish +get +set +del +pttl"
)


def test_a_user_who_may_do_no_more_than_needed(server: Server) -> None:
    """The rights that the documentation lists are enough."""
    server.run("ACL", "SETUSER", "gip", *ACL.split(" "))
    url = server.url.replace("redis://", "redis://gip:pw@")
    with Member(url) as one, Member(url) as other:
        one.call(FAILED)
        one.call(UNAVAILABLE)
        until(lambda: other.state is State.OPEN, "the other's circuit opens")
        until(lambda: one.store.circuits(time.monotonic())[CIRCUIT].retry_after == 0, "half-open")
        assert one.call(OK)
        until(lambda: other.state is State.CLOSED, "the other's circuit closes")
        assert one.told == other.told == []


def test_a_user_who_may_not_is_told_why(server: Server) -> None:
    """By an event that names the reason."""
    server.run("ACL", "SETUSER", "poor", "on", ">pw", "~*", "&*", "-@all", "+ping", "+select", "+client")
    with Member(server.url.replace("redis://", "redis://poor:pw@")) as member:
        until(lambda: bool(member.told), "it is told")
        (event,) = member.told
        assert isinstance(event, StateDegraded)
        assert "permission" in event.reason.lower()


def test_everything_on_the_server_ends_by_itself(pair: tuple[Member, Member], server: Server) -> None:
    """Every key has an end; nothing holds a credential; the number of keys is bounded by that of scopes."""
    one, _ = pair
    secret = one.store.digest(b"sk-very-secret-key")
    for number in range(20):
        key = ScopeKey(HOST, secret, f"m{number}")
        one.call(FAILED, key)
        one.call(limited(5.0), key)
    one.call(UNAVAILABLE)
    assert one.store.flush()
    with server.client() as client:
        found = list(client.scan_iter())
        assert found
        assert all(0 < client.pttl(key) <= 120_000 for key in found)
        assert all(key.startswith(b"gip-resilience:1:default:{") for key in found)
        dump = b"".join(client.dump(key) or b"" for key in found) + b"".join(found)
        assert b"sk-very" not in dump
        assert secret.encode() not in dump
        assert len(found) <= 4 * 23
