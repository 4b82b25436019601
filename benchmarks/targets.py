"""What the library is to cost at most, and whether it does, by a result file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS: Final = "ours"
RIVALS: Final = "rivals"


class Target(NamedTuple):
    """One thing that is promised.

    Attributes:
        what: for people.
        limit: what it may be at most, or must be at least.
        bench, subject: where it is measured.
        case: the row that counts; `RIVALS` for the best of those that are not ours.
        unit: of the limit; ``×`` for a ratio of the row.
        least: whether the limit is a lower one.
        reverse: whether the ratio is to be turned round: how many times faster.
    """

    what: str
    limit: float
    bench: str
    subject: str
    case: str = OURS
    unit: str = "×"
    least: bool = False
    reverse: bool = False


class Outcome(NamedTuple):
    """What became of a target: the worst of the rows it looks at, with its quartiles; ``None`` if there is none."""

    target: Target
    measured: tuple[float, float, float] | None

    @property
    def met(self) -> bool:
        """Whether the median keeps the limit. What was not measured does not."""
        if self.measured is None:
            return False
        middle = self.measured[0]
        return middle >= self.target.limit if self.target.least else middle <= self.target.limit

    @property
    def close(self) -> bool:
        """Whether the limit lies between the quartiles: another run may say otherwise."""
        return self.measured is not None and self.measured[1] < self.target.limit < self.measured[2]


def _calls() -> list[Target]:
    limits = {"requests": 1.03, "httpx": 1.04, "httpx asyncio": 1.04, "httpx2": 1.05, "httpx2 asyncio": 1.05}
    return [
        *(
            Target(f"a call of {name}, in process, over bare", limit, "calls", name)
            for name, limit in limits.items()
        ),
        *(Target(f"a call of {name}, on loopback, over bare", 1.02, "loopback", name) for name in limits),
    ]


TARGETS: Final = (
    *_calls(),
    Target(
        "an event of chat in our wrapper alone",
        1.0,
        "flowing",
        "an event of chat, our wrapper alone",
        unit="µs",
    ),
    Target(
        "an event of messages in our wrapper alone",
        1.0,
        "flowing",
        "an event of messages, our wrapper alone",
        unit="µs",
    ),
    Target("an event under the OpenAI SDK, over bare", 1.01, "flowing", "an event under the OpenAI SDK"),
    Target("the same with asyncio", 1.01, "flowing", "an event under the OpenAI SDK asyncio"),
    Target(
        "decoding, times faster than httpx-sse, at the worst size of chunk",
        3.0,
        "decoding",
        "an event, in chunks",
        least=True,
        reverse=True,
    ),
    Target(
        "a byte of a line of 10 MB, over one of 1 MB (linear: 1)",
        1.5,
        "decoding",
        "a byte of a line of 10 MB, to one of 1 MB",
        unit="× of value",
    ),
    Target(
        "first token, more than bare", 0.2, "flowing", "first token, loopback", "ours less bare", unit="ms"
    ),
    Target(
        "leave and report, 16 threads, times faster than the best rival",
        2.0,
        "breaking",
        "16 threads",
        RIVALS,
        least=True,
    ),
    Target(
        "1,000 streams at once: memory of each, less bare and text",
        4096.0,
        "holding",
        "a stream, 20 events delivered",
        "ours less bare and text",
        unit="B",
    ),
    Target(
        "import, over bare Python", 20.0, "starting", "import, less bare Python", "gip_resilience", unit="ms"
    ),
)


def outcomes(result: Mapping[str, Any]) -> list[Outcome]:
    """What became of each target, by a result file."""
    return [Outcome(target, measured(target, result)) for target in TARGETS]


def measured(target: Target, result: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """The worst of the rows that *target* looks at: median and quartiles; ``None`` if none was measured."""
    found = []
    for row in result["benches"].get(target.bench, {}).get("rows", ()):
        of_it = row["case"] == target.case or (target.case == RIVALS and not row["case"].startswith(OURS))
        if row["subject"] != target.subject or not of_it:
            continue
        spread = row.get("ratio") if target.unit == "×" else row["value"]
        if spread is None:
            continue
        middle, low, high = spread
        found.append((1 / middle, 1 / high, 1 / low) if target.reverse else (middle, low, high))
    if not found:
        return None
    return min(found) if target.least else max(found)
