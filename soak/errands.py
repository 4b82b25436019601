"""What a caller does: which model it asks for what, and how it treats the answer. Drawn by chance, from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

MODELS = (
    *((f"fair-{number}", 10) for number in range(4)),
    *((f"wild-{number}", 14) for number in range(4)),
    ("dead", 2),
    ("limited", 4),
    ("slow", 3),
    ("new", 3),
)
"""Models and their weights; a ``new`` one has a name that was never used before."""

PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/responses")

TEXT = "Tell me of the sea, at some length."

READ, LEFT, FORGOTTEN, CANCELLED = "read", "left", "forgotten", "cancelled"


@dataclass(frozen=True, slots=True)
class Errand:
    """One call to make.

    Attributes:
        path: of the gateway's API.
        body: what is sent.
        stream: whether the answer is an event stream.
        treatment: whether the answer is read to its end, left half-read (and closed), forgotten half-read (and
            never closed), or whether the whole call is cancelled.
        pieces: after how many pieces it is left or forgotten.
        patience: after how many seconds it is cancelled.
        deadline: seconds for the whole call.
        door: whether it goes to the gateway that turns connections away.
        fresh: whether it is made by a client of its own, that is opened for it and closed behind it.
    """

    path: str
    body: dict[str, Any]
    stream: bool
    treatment: str = READ
    pieces: int = 0
    patience: float = 0.0
    deadline: float | None = None
    door: bool = False
    fresh: bool = False

    @property
    def kind(self) -> str:
        """In a few words."""
        what = "stream" if self.stream else "answer"
        where = " at the door" if self.door else ""
        return f"{what} {self.treatment}{where}" + " with a deadline" * (self.deadline is not None)


class Errands:
    """A source of errands.

    Args:
        draw: chance.
        awaiting: whether the caller can be cancelled. It forgets no stream then: an event loop cannot close what is
            dropped in it, and bare clients lose a connection and are warned by trio.
        name: unique among the callers: of the models that nobody else asks for.
    """

    def __init__(self, draw: random.Random, *, awaiting: bool, name: str) -> None:
        self._draw = draw
        self._awaiting = awaiting
        self._name = name
        self._count = 0
        self._models = [model for model, _ in MODELS]
        self._weights = [weight for _, weight in MODELS]

    def next(self) -> Errand:
        """The next one."""
        draw = self._draw
        self._count += 1
        if draw.random() < 0.03:
            return Errand("/v1/chat/completions", self._chat("fair-0"), stream=False, door=True)
        model = draw.choices(self._models, self._weights)[0]
        if model == "new":
            model = f"new-{self._name}-{self._count}"
        stream = draw.random() < 0.45
        path = draw.choices(PATHS, (6, 1, 2))[0]
        body = self._chat(model) if path != "/v1/responses" else {"model": model, "input": TEXT}
        body["stream"] = stream
        if path == "/v1/messages":
            body["max_tokens"] = 200
        if stream and draw.random() < 0.5:
            body["temperature"] = 0
        if path == "/v1/responses" and stream and draw.random() < 0.5:
            body["background"] = True
        treatment = READ
        chance = draw.random()
        if stream and chance < 0.12:
            treatment = LEFT
        elif stream and chance < 0.15 and not self._awaiting:
            treatment = FORGOTTEN
        elif self._awaiting and chance < 0.27:
            treatment = CANCELLED
        deadline = None
        if model == "slow" or draw.random() < 0.04:
            deadline = draw.choice((0.05, 0.2, 0.5))
        return Errand(
            path,
            body,
            stream,
            treatment,
            pieces=draw.randrange(1, 6),
            patience=draw.choice((0.0, 0.002, 0.01, 0.05)),
            deadline=deadline,
            fresh=draw.random() < 0.02,
        )

    @staticmethod
    def _chat(model: str) -> dict[str, Any]:
        return {"model": model, "messages": [{"role": "user", "content": TEXT}]}
