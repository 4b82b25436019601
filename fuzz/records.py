"""What lies on a shared store, or comes from it: anybody's, and read without an error into bounded values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from redis import ResponseError

from fuzz.given import Given
from gip_resilience._fleet_words import (
    LONGEST,
    CircuitState,
    GateState,
    Reply,
    read_budget,
    read_circuit,
    read_gate,
    read_news,
)
from gip_resilience._redis_records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAG = "0123456789abcdef"
_KINDS = ("circuit", "gate", "budget", "node", "window", "probe", "")
_VALUES = (None, b"", b"0", b"1", b"-1", b"open", b"closed", b"trip", b"ratio", b"9007199254740993", b"1e5", b"nan",
           b" 5", b"+5", b"--5", b"\xff\xfe", b"\x1b[2J", b"\xc2\xb2", b"x" * 3000, b"1767225600000")  # fmt: skip
_NEWS = ("c", "g", "f", "o", "open", "closed", _TAG, "1", "-1", "5000", "99999999999999999", "trip", "")


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    match given.below(3):
        case 0:
            raw = given.rest()
            _believed(read_news(raw))
        case 1:
            _believed(read_news(" ".join(given.one_of(_NEWS) for _ in range(given.below(8))).encode()))
            reply = _reply(given, 3)
            for read in (read_circuit, read_gate, read_budget):
                _believed(read(reply))
        case _:
            _looked(given)


def _reply(given: Given, depth: int) -> Reply:
    match given.below(7 if depth else 5):
        case 0:
            return None
        case 1:
            return int.from_bytes(given.piece(10), "big", signed=True)
        case 2:
            return given.piece(24)
        case 3:
            return given.text(24)
        case 4:
            return given.one_of(_VALUES)
        case _:
            return [_reply(given, depth - 1) for _ in range(given.one_of((2, 4, 6, 3, 0)))]


def _believed(found: object) -> None:
    match found:
        case (str(), said):
            _believed(said)
        case CircuitState():
            assert 0.0 <= found.left <= LONGEST
            assert 0.0 <= found.wait <= LONGEST
        case GateState():
            assert 0.0 <= found.left <= LONGEST
            assert 0.0 <= found.claimed <= LONGEST
        case (float(), float()):
            assert all(0.0 <= number < math.inf for number in found)


class _Poisoned:
    """A server, its node and its wire, with anything as its records."""

    def __init__(self, given: Given) -> None:
        self._given = given

    def open(self, _patience: float) -> _Poisoned:
        return self

    def everywhere(self) -> list[_Poisoned]:
        return [self]

    def time(self) -> tuple[int, int]:
        return (1767225600, 5)

    def scan_iter(self, match: str, count: int) -> Iterator[bytes]:
        beginning = match.removesuffix("*").encode()
        for _ in range(min(count, self._given.below(5))):
            tag = _TAG.encode() if self._given.below(4) else self._given.piece(24)
            yield beginning + tag + b"}:" + self._given.one_of(_KINDS).encode()

    def get(self, _key: bytes) -> Any:
        return self._value()

    def hmget(self, _key: bytes, names: list[str]) -> list[Any]:
        if self._given.below(16) == 15:
            raise ResponseError("WRONGTYPE")
        return [self._value() for _ in names]

    def pttl(self, _key: str) -> int:
        return self._given.byte() - 2

    def close(self) -> None:
        pass

    def _value(self) -> Any:
        return self._given.one_of(_VALUES) if self._given.flag() else self._given.piece(24)


def _looked(given: Given) -> None:
    place: Any = _Poisoned(given)
    records = Records(place, "fleet", 1.0)
    fleet = records.look()
    for circuit in fleet.circuits:
        assert circuit.state in ("open", "half-open", "closed")
        assert 0.0 <= circuit.left < math.inf
        assert 0.0 <= circuit.probing < math.inf
    assert all(0.0 < gate.left < math.inf for gate in fleet.gates)
    assert all(0.0 <= budget.tokens < math.inf for budget in fleet.budgets)
    for record in (*fleet.circuits, *fleet.gates, *fleet.budgets):
        assert all(text.isprintable() and len(text) < 1000 for text in (record.host, record.model))
    records.close()
