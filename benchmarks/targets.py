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
        why: where it is missed, what stands in the way, and what it would take.
    """

    what: str
    limit: float
    bench: str
    subject: str
    case: str = OURS
    unit: str = "×"
    least: bool = False
    reverse: bool = False
    why: str = ""


_CALL: Final = (
    "With everything on, a call looks up its policy, asks gate, budget and two circuits for leave under"
    " one lock, reads the answer's headers and JSON, and counts what came of it: some sixty functions of"
    " Python, of which the limit has room for ten. A breaker that does no more than count exceptions"
    " already takes more than the limit. It would take these modules compiled; what it does cannot be left"
    " out."
)
_LOOPBACK: Final = (
    "The same microseconds as in process, on a call that never leaves the machine, and that the machine's"
    " other work moves by more than that. A real gateway's answer takes a thousand times as long."
)
_EVENT: Final = (
    "That its JSON is whole, and says nothing but more of the answer, is one pass of msgspec over its"
    " bytes, a third of the time; remembering it, and four calls of Python from the wire to the caller,"
    " are the rest. Less would take the path compiled."
)


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
            Target(f"a call of {name}, in process, over bare", limit, "calls", name, why=_CALL)
            for name, limit in limits.items()
        ),
        *(
            Target(f"a call of {name}, on loopback, over bare", 1.02, "loopback", name, why=_LOOPBACK)
            for name in limits
        ),
    ]


TARGETS: Final = (
    *_calls(),
    Target(
        "an event of chat in our wrapper alone",
        1.0,
        "flowing",
        "an event of chat, our wrapper alone",
        unit="µs",
        why=_EVENT,
    ),
    Target(
        "an event of messages in our wrapper alone",
        1.0,
        "flowing",
        "an event of messages, our wrapper alone",
        unit="µs",
        why=_EVENT,
    ),
    Target(
        "an event under the OpenAI SDK, over bare",
        1.01,
        "flowing",
        "an event under the OpenAI SDK",
        why=_EVENT,
    ),
    Target("the same with asyncio", 1.01, "flowing", "an event under the OpenAI SDK asyncio", why=_EVENT),
    Target(
        "decoding, times faster than httpx-sse, at the worst size of chunk",
        3.0,
        "decoding",
        "an event, in chunks",
        least=True,
        reverse=True,
        why=(
            "Large chunks are decoded in one go, and keep the limit. Of a chunk that holds an event or"
            " three, most of the time goes into being called, joining what was held, and finding the last"
            " blank line; httpx-sse, which is told text and looks at it line by line, has no more to do"
            " there."
        ),
    ),
    Target(
        "a line of up to 10 MB, over joining its bytes and making them text (linear: flat)",
        2.5,
        "decoding",
        "the same, beside the least there is to do",
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
        why=(
            "What a call asks here is gate, budget and two circuits with sliding windows, at once; one"
            " circuit of ours, in the row of that name, is what the others are. The fastest of them has no"
            " lock, and counts nothing but failures in a row."
        ),
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
