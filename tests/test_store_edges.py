"""The shared store where it is rarely entered: places without a host and port, answers that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pytest
import redis
from redis import exceptions

from gip_resilience._fleet_words import Question
from gip_resilience._redis_asking import Asker, UnusableError, load_scripts
from gip_resilience._redis_clients import ClusterPlace, place_of
from gip_resilience.redis import RedisStore
from test_fleet import FLEET_BUDGET, KEY, NOW, Scene

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION = Question("gate", "tag", ("key",), ("a",))


def test_a_server_behind_a_file() -> None:
    """A socket in the file system has a path and no port."""
    for server in ("unix:///run/store.sock?db=2", redis.Redis(unix_socket_path="/run/store.sock")):
        place = place_of(server, cluster=False)
        assert str(place) == "/run/store.sock"
        wire = place.open(0.1)
        (client,) = wire.everywhere()
        assert client.connection_pool.connection_kwargs["path"] == "/run/store.sock"
        wire.refresh()
        wire.close()


def test_the_name_of_a_cluster() -> None:
    """By its nodes."""
    assert str(ClusterPlace([("a", 1), ("b", 2)], {}, tls=False)) == "a:1,b:2 (cluster)"


def test_a_client_of_one_server_is_no_cluster() -> None:
    """What was said and what was given must agree."""
    with pytest.raises(
        TypeError, match="cluster: expected a URL or a RedisCluster with cluster=True, got Redis"
    ):
        place_of(redis.Redis(), cluster=True)


class Pipeline:
    """Gives each question the next answer."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def evalsha(self, *args: Any) -> None:
        """One question."""
        self.asked += 1

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The answers."""
        answers, self.wire.answers = self.wire.answers[: self.asked], self.wire.answers[self.asked :]
        self.asked = 0
        return answers


class Wire:
    """A wire on which the answers are written out."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.done: list[str] = []

    def clients(self, questions: Sequence[Question]) -> Any:
        """One client for all."""
        return [(self, list(range(len(questions))))]

    def pipeline(self, **options: Any) -> Pipeline:
        """A pipeline of it."""
        return Pipeline(self)

    def refresh(self) -> None:
        """Somebody moved."""
        self.done.append("refresh")

    def unlink(self, *keys: str) -> None:
        """A record is thrown away."""
        self.done.append(f"unlink {keys[0]}")


WRONG_TYPE = exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")

CONVERSATIONS: list[tuple[str, list[Any], list[Any], list[str]]] = [
    ("moved", [exceptions.TryAgainError("moving"), [1]], [[1]], ["refresh"]),
    ("spoilt", [WRONG_TYPE, [1]], [[1]], ["unlink key"]),
    ("spoilt again", [WRONG_TYPE, WRONG_TYPE], [None], ["unlink key"]),
]


@pytest.mark.parametrize(
    ("answers", "wanted", "done"), [row[1:] for row in CONVERSATIONS], ids=[row[0] for row in CONVERSATIONS]
)
def test_a_question_is_asked_again(answers: list[Any], wanted: list[Any], done: list[str]) -> None:
    """Of another node, or after a record of somebody else's was thrown away; once."""
    wire: Any = Wire(*answers)
    assert Asker(wire, load_scripts()).ask([QUESTION]) == wanted
    assert wire.done == done


def test_a_store_that_answers_but_does_nothing() -> None:
    """It is full, or it may not: that is not to be asked again."""
    wire: Any = Wire(exceptions.ResponseError("OOM command not allowed"))
    with pytest.raises(UnusableError, match="OOM"):
        Asker(wire, load_scripts()).ask([QUESTION])


@pytest.mark.parametrize("kind", ["budget", "gate", "circuit"])
def test_an_answer_that_is_none_changes_nothing(kind: str) -> None:
    """A record that cannot be read leaves this process as it was."""
    scene = Scene(FLEET_BUDGET)
    scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)
    tags = {"budget": scene.names.budget(KEY), "gate": scene.gate_tag, "circuit": scene.tag}
    question = Question("any", tags[kind], ("key",), ())
    before = scene.store.circuits(NOW), scene.store.gates(NOW), scene.store.budgets()
    assert scene.store.answered(question, None, NOW) == ()
    assert (scene.store.circuits(NOW), scene.store.gates(NOW), scene.store.budgets()) == before


def test_a_store_without_a_thread_decides_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is ending can start no thread any more; its calls go on."""
    store = RedisStore("redis://127.0.0.1:9")

    def refuse(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(store._link, "start", refuse)
    scene = Scene()
    assert store.acquire(KEY, scene.config, NOW, first=True)
    store._start()  # once is enough
    store.close()
