"""``gip-resilience fleet``: what a person sees of shared state, and what happens when they overrule it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import gip_resilience as gr
from facts import HOST, MODEL, UNAVAILABLE, limited
from gip_resilience._keys import CircuitKey, ScopeKey
from gip_resilience.breaker import State
from gip_resilience.cli import main
from servers import Cluster, Server, until
from test_redis import KEY, Member

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = gr.Config(
    breaker=gr.BreakerConfig(open_time=60.0, open_jitter=0.0),
    store=gr.StoreConfig(interval=0.1, budget="fleet"),
)
LIMITED = ScopeKey(HOST, "sk-digest", "limited/model")
LINE = f"{HOST}  {MODEL}"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server for all of this."""
    with Server() as server:
        yield server


@pytest.fixture
def url(running: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it is; the commands are told by the environment."""
    running.clean()
    monkeypatch.setenv("REDIS_URL", running.url)
    return running.url


@pytest.fixture
def member(url: str) -> Iterator[Member]:
    """A process that has opened a circuit, closed a gate, and used a retry."""
    with Member(url, CONFIG) as member:
        member.call(UNAVAILABLE)
        member.call(limited(30.0), LIMITED)
        member.store.withdraw(LIMITED, CONFIG, 1.0, 0.0)
        assert member.store.flush()
        yield member


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command prints."""
    assert main(["fleet", *arguments]) == code
    out, err = capsys.readouterr()
    assert bool(err) is bool(code)
    return err if code else out


def test_status(member: Member, capsys: pytest.CaptureFixture[str]) -> None:
    """Who is there, what is open and for how long, and by whom."""
    shown = said(capsys, "status")
    node = member.store._member.node

    assert shown.startswith(f"1 process (version {gr.__version__})\n\ncircuit")
    (circuit,) = [line for line in shown.splitlines() if LINE in line]
    assert circuit.split()[2:4] == ["open", "trip"]
    assert 50.0 < float(circuit.split()[4]) <= 60.0
    assert circuit.endswith(node)
    assert f"{HOST}  limited/model" in shown
    assert "45.0" in shown
    assert "sk-digest" not in shown


def test_status_for_programs(member: Member, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as JSON."""
    fleet = json.loads(said(capsys, "status", "--json"))

    assert list(fleet) == ["nodes", "circuits", "gates", "budgets"]
    assert list(fleet["nodes"]) == [member.store._member.node]
    (circuit,), (gate,), (budget,) = fleet["circuits"], fleet["gates"], fleet["budgets"]
    assert (circuit["host"], circuit["model"], circuit["state"], circuit["kind"]) == (
        HOST,
        MODEL,
        "open",
        "trip",
    )
    assert 28.0 < gate["left"] <= 30.0
    assert budget["tokens"] == 45.0


def test_a_fleet_at_rest(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to see is said, too."""
    assert said(capsys, "status") == (
        "0 processes (version -)\n\nNo circuit has been opened by the fleet within the last minute.\n\n"
        "No gate is closed.\n"
    )


def test_names_cannot_speak_to_the_terminal(
    running: Server, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What lies on the store may be anybody's."""
    key = "gip-resilience:1:default:{0123456789abcdef}"
    with running.client() as client:
        client.hset(f"{key}:circuit", mapping={"state": "open", "host": "\x1b[31mred\r\n", "until": "x" * 40})
        client.set("gip-resilience:1:default:{fedcba9876543210}:circuit", "mine")
        client.set("gip-resilience:1:default:{nonsense}:circuit", "mine")
        client.set("gip-resilience:1:other:{0123456789abcdef}:node", "mine")
        client.lpush("gip-resilience:1:default:{0011223344556677}:node", "mine")
    shown = said(capsys, "status")

    assert shown.isascii()
    assert "\x1b" not in shown
    assert "[31mred" in shown
    assert shown.startswith("0 processes")


@pytest.mark.parametrize("arguments", [["--all"], ["--host", HOST]], ids=str)
def test_reset(member: Member, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Every process is told: circuits close, gates open."""
    shown = said(capsys, "reset", *arguments)

    assert f"closed: {HOST} {MODEL}" in shown
    assert "1 gate: every process that is there has been told." in shown
    until(lambda: member.state is State.CLOSED, "the circuit is closed")
    until(lambda: not member.store.gates(0.0) or not member.held, "the gate is open")
    assert "closed for" not in said(capsys, "status")


def test_reset_of_one_model(member: Member, capsys: pytest.CaptureFixture[str]) -> None:
    """The others stay as they are."""
    report = json.loads(said(capsys, "reset", "--host", HOST, "--model", "limited/model", "--json"))

    assert report == {"circuits": [{"host": HOST, "model": "limited/model"}], "gates": 1}
    assert member.store.flush()
    assert member.state is State.OPEN


def test_a_circuit_that_a_process_opened_for_itself_is_reset_too(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no record, but a name."""
    from facts import FAILED

    with Member(url, CONFIG) as member:
        for _ in range(5):
            member.call(FAILED)
        assert member.state is State.OPEN
        said(capsys, "reset", "--host", HOST, "--model", MODEL)
        until(lambda: member.state is State.CLOSED, "the circuit is closed")


def test_who_missed_a_reset_does_not_undo_it(
    member: Member, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection broke: it asks about everything, and hears of it."""
    monkeypatch.setattr(member.store, "heard", lambda payload, now: ())
    said(capsys, "reset", "--all")
    member.store.missed()
    assert member.store.flush()

    until(lambda: member.state is State.CLOSED, "the circuit is closed")
    assert "closed for" not in said(capsys, "status")


FORGED = 2**53 - 1
"""A version that no real one is greater than."""


@pytest.mark.parametrize(
    "arguments", [["--all"], ["--host", HOST], ["--host", HOST, "--model", MODEL]], ids=lambda a: a[-1]
)
def test_a_reset_undoes_news_that_somebody_made_up(
    url: str, running: Server, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """They leave no record, and have a version that outranks all others: each process is told all the same."""
    with Member(url, CONFIG) as member, running.client() as client:
        names = member.store.names
        client.publish(
            names.channel, f"c {names.circuit(CircuitKey(HOST, MODEL))} {FORGED} open 86400000 trip"
        )
        client.publish(names.channel, f"g {names.gate(KEY)} 86400000 86400000")
        until(lambda: member.state is State.OPEN and member.held > 30.0, "the news are believed")
        said(capsys, "reset", *arguments)
        until(lambda: member.state is State.CLOSED, "the circuit is closed")
        until(lambda: member.held == 0.0, "the gate is open")
        assert member.call(UNAVAILABLE), "it is asked again, and its word counts"
        assert member.store.flush()
        assert f"{HOST}  {MODEL}" in said(capsys, "status")


def test_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """Records of all its nodes."""
    with Cluster() as cluster, Member(cluster.url, CONFIG, cluster=True) as member:
        for number in range(20):
            member.call(UNAVAILABLE, ScopeKey(HOST, "c", f"m{number}"))
        assert member.store.flush()
        fleet = json.loads(said(capsys, "status", "--json", "--cluster", "--url", cluster.url))
        assert len(fleet["circuits"]) == 20
        assert said(capsys, "reset", "--all", "--cluster", "--url", cluster.url).count("closed: ") == 20
        circuits = [CircuitKey(HOST, f"m{number}") for number in range(20)]
        until(
            lambda: all(member.store.circuits(0.0)[key].state is State.CLOSED for key in circuits),
            "all are closed",
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "--url", ""], "expected --url, or REDIS_URL"),
        (["status", "--url", "localhost"], "expected a URL"),
        (["status", "--namespace", "a b"], "namespace: expected"),
        (["reset"], "expected --all, or --host"),
        (["reset", "--all", "--host", "h"], "expected --all, or --host"),
        (["reset", "--all", "--model", "m"], "expected --host with --model"),
    ],
)
def test_wrong_usage(
    running: Server,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a line, with the exit code of wrong usage."""
    if "--namespace" in arguments:
        monkeypatch.setenv("REDIS_URL", running.url)
    else:
        monkeypatch.delenv("REDIS_URL", raising=False)

    assert words in said(capsys, *arguments, code=2)


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it was looked for, without the password."""
    with Server() as gone:
        port = gone.port
    shown = said(capsys, "status", "--url", f"redis://:hunter2@127.0.0.1:{port}", code=1)

    assert shown.startswith(f"gip-resilience fleet: 127.0.0.1:{port}: ")
    assert "hunter2" not in shown
