"""What is said between a process and the shared store: questions, answers, news. Pure.

A question is one run of a script (``lua/``). What comes back, and what others publish, is hostile until it is read:
whatever does not look right is as if it had not been said, and every number is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from gip_resilience._fleet_names import TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST: Final = 86_400.0
"""Seconds: nothing on the store is believed to last longer than a day."""

RATIO: Final = "ratio"
TRIP: Final = "trip"

_LARGEST: Final = 2**53
"""From here on the scripts' numbers are no longer exact."""

Reply: TypeAlias = "int | bytes | str | Sequence[Reply] | None"
"""What a script may answer."""


class Question(NamedTuple):
    """One run of a script.

    Attributes:
        script: its name.
        tag: of the scope it is about.
        keys: the keys it uses, all with that tag.
        args: what it is told.
    """

    script: str
    tag: str
    keys: tuple[str, ...]
    args: tuple[str | int, ...]


class CircuitState(NamedTuple):
    """What the fleet has written down of a circuit.

    Attributes:
        open: whether it is open (or half-open, when nothing of its open time is left).
        version: of the record; 0 when there is none.
        left: seconds of the open time that are left.
        kind: why it is open: ``trip`` or ``ratio``.
        granted: to a question for the probe: 1 yes, 0 another one has it, -1 the record is not as the question
            assumes.
        wait: seconds until it makes sense to ask for the probe again; for 1, how long the lease is.
    """

    open: bool
    version: int
    left: float
    kind: str
    granted: int = -1
    wait: float = 0.0


class GateState(NamedTuple):
    """How long the fleet has a gate closed.

    Attributes:
        left: seconds; 0 when it is open.
        claimed: seconds that the server asked for.
        opened: whether an operator has opened it.
    """

    left: float
    claimed: float
    opened: bool = False


class Freed(NamedTuple):
    """A probe came to nothing; the next may be sent."""


class Opened(NamedTuple):
    """An operator opened a gate."""


class Overruled(NamedTuple):
    """An operator closed all circuits and opened all gates of a scope (`Names.scopes`).

    Attributes:
        version: what happened before it is older.
    """

    version: int


Said: TypeAlias = CircuitState | GateState | Freed | Opened | Overruled


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up: nobody is told to come back too early."""
    return max(0, -int(-seconds * 1000.0 // 1))


def read_circuit(reply: Reply) -> CircuitState | None:
    """An answer of ``count``, ``open``, ``close`` or ``probe``; ``None`` when it is not one."""
    if not isinstance(reply, (list, tuple)) or len(reply) not in {4, 6}:
        return None
    numbers = [_number(part) for part in (*reply[:3], *reply[4:])]
    if None in numbers:
        return None
    is_open, version, left, *more = [part or 0 for part in numbers]
    kind = _text(reply[3])
    granted, wait = more or (-1, 0)
    return CircuitState(is_open == 1, version, _seconds(left), kind, granted, _seconds(wait))


def read_gate(reply: Reply) -> GateState | None:
    """An answer of ``gate``; ``None`` when it is not one."""
    if not isinstance(reply, (list, tuple)) or len(reply) != 2:
        return None
    left, claimed = _number(reply[0]), _number(reply[1])
    return (
        None
        if left is None or claimed is None
        else GateState(_seconds(left), _seconds(claimed), claimed == -1)
    )


def read_budget(reply: Reply) -> tuple[float, float] | None:
    """An answer of ``budget``: tokens given, tokens left; ``None`` when it is not one."""
    if not isinstance(reply, (list, tuple)) or len(reply) != 2:
        return None
    given, left = _number(reply[0]), _number(reply[1])
    return None if given is None or left is None else (max(0, given) / 1000.0, max(0, left) / 1000.0)


def read_news(payload: object) -> tuple[str, Said] | None:
    """What was published, and the tag of what it is about; ``None`` for anything that is not news of ours."""
    if not isinstance(payload, bytes) or len(payload) > 200:
        return None
    word, *rest = _text(payload).split(" ")
    if not rest or not TAG.fullmatch(rest[0]):
        return None
    tag = rest[0]
    if word == "c" and len(rest) == 5 and rest[2] in {"open", "closed"}:
        version, left = _number(rest[1]), _number(rest[3])
        if version is not None and left is not None:
            return tag, CircuitState(rest[2] == "open", version, _seconds(left), rest[4])
    elif word == "g" and len(rest) == 3:
        state = read_gate([rest[1], rest[2]])
        return None if state is None else (tag, state)
    elif word == "r" and len(rest) == 2:
        version = _number(rest[1])
        return None if version is None else (tag, Overruled(version))
    elif word == "f" and len(rest) == 1:
        return tag, Freed()
    elif word == "o" and len(rest) == 1:
        return tag, Opened()
    return None


def _text(part: object) -> str:
    if isinstance(part, bytes):
        return part.decode("ascii", "replace")
    return part if isinstance(part, str) else ""


def _number(part: object) -> int | None:
    if isinstance(part, int):
        number = part
    else:
        text = _text(part)
        digits = text.removeprefix("-")
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 16:
            return None
        number = int(text)
    return number if -_LARGEST <= number <= _LARGEST else None


def _seconds(number: int) -> float:
    return min(max(0, number) / 1000.0, LONGEST)
