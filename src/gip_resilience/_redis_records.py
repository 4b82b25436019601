"""What lies on the store, for a person to look at and to overrule.

The keys say only whose record it is (a tag); names are in the records. Values may be anybody's: what does not look
right is left out.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis import ResponseError

from gip_resilience._fleet_names import PREFIX, TAG, Names
from gip_resilience._fleet_words import Question
from gip_resilience._keys import CircuitKey
from gip_resilience._redis_asking import Asker, load_scripts
from gip_resilience.target import clean_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis

    from gip_resilience._redis_clients import Place, Wire

SCAN: int = 1000
"""Keys that the server looks at in one go."""


class Circuit(NamedTuple):
    """A circuit that the fleet has opened, or has closed within the last minute.

    Attributes:
        tag: its name in keys.
        host: as the processes call it.
        model: likewise; empty for the host's own.
        state: ``open``, ``half-open`` or ``closed``.
        kind: why it is open: ``trip`` (an answer said so) or ``ratio`` (too many failures in all); ``reset``.
        left: seconds of the open time that are left.
        probing: seconds that the probe under way may still take; 0 when there is none.
        node: the process that opened it.
    """

    tag: str
    host: str
    model: str
    state: str
    kind: str
    left: float
    probing: float
    node: str


class Gate(NamedTuple):
    """A gate that is closed.

    Attributes:
        tag: its name in keys.
        host: as the processes call it.
        model: likewise; empty where all models of a credential share one.
        left: seconds until it opens.
        node: the process that closed it.
    """

    tag: str
    host: str
    model: str
    left: float
    node: str


class Budget(NamedTuple):
    """A retry budget that is not full.

    Attributes:
        tag: its name in keys.
        host: as the processes call it.
        model: likewise.
        tokens: what is left.
    """

    tag: str
    host: str
    model: str
    tokens: float


class Fleet(NamedTuple):
    """All of a namespace.

    Attributes:
        nodes: processes that have given a sign of life within the last 15 seconds, by their versions.
        circuits: see `Circuit`.
        gates: see `Gate`.
        budgets: see `Budget`.
    """

    nodes: dict[str, str]
    circuits: tuple[Circuit, ...]
    gates: tuple[Gate, ...]
    budgets: tuple[Budget, ...]


class Records:
    """The records of a namespace.

    Args:
        place: where the store is.
        namespace: whose records.
        patience: seconds that one answer may take.

    Raises:
        ValueError: the namespace is none.
        redis.RedisError: the store cannot be reached.

    Belongs to one thread.
    """

    def __init__(self, place: Place, namespace: str, patience: float) -> None:
        self._names = Names(namespace)
        self._wire: Wire = place.open(patience)
        self._asker = Asker(self._wire, load_scripts())

    def close(self) -> None:
        """Close the connections."""
        self._asker.close()

    def look(self) -> Fleet:
        """All there is now. Goes through the keys of the server in steps; safe on one that is in use."""
        nodes: dict[str, str] = {}
        circuits: list[Circuit] = []
        gates: list[Gate] = []
        budgets: list[Budget] = []
        for client in self._wire.everywhere():
            seconds, micros = client.time()
            now = seconds * 1000 + micros // 1000
            for tag, kind, key in self._keys(client):
                if kind == "node":
                    with suppress(ResponseError):  # somebody else's, of another type
                        nodes[tag] = _text(client.get(key))
                elif kind == "circuit":
                    circuits.append(self._circuit(client, tag, key, now))
                elif kind == "gate":
                    host, model, node, until, length = _fields(
                        client, key, "host", "model", "node", "until", "length"
                    )
                    left = _left(until, length, now)
                    if left > 0.0:
                        gates.append(Gate(tag, host, model, left, node))
                elif kind == "budget":
                    host, model, tokens = _fields(client, key, "host", "model", "tokens")
                    budgets.append(Budget(tag, host, model, _number(tokens) / 1000.0))
        circuits.sort(key=_by_name)
        gates.sort(key=_by_name)
        budgets.sort(key=_by_name)
        return Fleet(nodes, tuple(circuits), tuple(gates), tuple(budgets))

    def _keys(self, client: Redis) -> Iterator[tuple[str, str, Any]]:
        beginning = f"{PREFIX}:{self._names.namespace}:{{"
        for key in client.scan_iter(match=f"{beginning}*", count=SCAN):
            tag, _, kind = _text(key).removeprefix(beginning).partition("}:")
            if TAG.fullmatch(tag):
                yield tag, kind, key

    def _circuit(self, client: Redis, tag: str, key: Any, now: int) -> Circuit:
        host, model, node, until, length, word, kind = _fields(
            client, key, "host", "model", "node", "until", "length", "state", "kind"
        )
        left = _left(until, length, now)
        state = "closed"
        if word == "open":
            state = "open" if left > 0.0 else "half-open"
        probing = max(0, client.pttl(self._names.key(tag, "probe"))) / 1000.0
        return Circuit(tag, host, model, state, kind, left, probing, node)

    def reset(self, host: str | None, model: str | None) -> tuple[list[CircuitKey], int]:
        """Close circuits and open gates, for every process.

        Args:
            host: of that host only.
            model: of that model only; empty for what is of the host itself.

        Returns:
            The circuits, and how many gates.
        """
        fleet = self.look()

        def meant(record: Circuit | Gate) -> bool:
            return host in {None, record.host} and model in {None, record.model}

        circuits = {
            record.tag: CircuitKey(record.host, record.model) for record in fleet.circuits if meant(record)
        }
        if host is not None:
            # A circuit that processes opened each by itself has no record; its name is known all the same.
            key = CircuitKey(host, model or "")
            circuits[self._names.circuit(key)] = key
        gates = [record.tag for record in fleet.gates if meant(record)]
        kinds = [(tag, ("circuit", "window", "probe")) for tag in circuits] + [
            (tag, ("gate",)) for tag in gates
        ]
        questions = [
            Question(
                "reset",
                tag,
                tuple(self._names.key(tag, kind) for kind in kind_of),
                (self._names.channel, tag),
            )
            for tag, kind_of in kinds
        ]
        if questions:
            self._asker.ask(questions)
        self._overrule(host, model)
        return sorted(circuits.values()), len(gates)

    def _overrule(self, host: str | None, model: str | None) -> None:
        """What a process knows need not be on record: it opened a circuit alone, or somebody made news up."""
        names = self._names
        if host is None:
            scope = names.everything
        else:
            scope = names.host(host) if model is None else names.circuit(CircuitKey(host, model))
        client = next(iter(self._wire.everywhere()))  # on a cluster each node passes it on to all
        seconds, micros = client.time()
        client.publish(names.channel, f"r {scope} {seconds * 1_000_000 + micros}")


def _by_name(record: Circuit | Gate | Budget) -> tuple[str, str, str]:
    return record.host, record.model, record.tag


def _text(value: object) -> str:
    # What a name may look like is decided where names are read: no control characters, not endless.
    return clean_name(value.decode("utf-8", "replace")) if isinstance(value, bytes) else ""


def _fields(client: Redis, key: Any, *names: str) -> list[str]:
    try:
        values: Sequence[object] = client.hmget(key, list(names))
    except ResponseError:
        values = [None] * len(names)
    return [_text(value) for value in values]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 17 else 0


def _left(until: str, length: str, now: int) -> float:
    return max(0, min(_number(until) - now, _number(length))) / 1000.0
