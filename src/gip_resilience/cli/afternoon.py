"""A bad afternoon: the work there is to do, and what goes wrong meanwhile. The same for everybody, by seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gip_resilience.gateway import Error, FaultPlan, HalfBody, Html, RateLimit, Reset, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVE: Final = "azure/openai/gpt-5-mini"
DEAD: Final = "openai/retired-model"

EVERY: Final = 0.1
"""Seconds between the beginnings of two calls. Callers do not wait for each other, as users do not."""

_DEAD_EVERY: Final = 10
# Of the afternoon, and of the requests in that time.
_BURST: Final = 2 / 15
_BURST_SHARE: Final = 0.5
_LIMIT: Final = RateLimit(requests=16, window=2.0)
_RESETS, _PAGES, _CUTS = 0.03, 0.05, 0.03


@dataclass(frozen=True, slots=True)
class Job:
    """One call to make.

    Attributes:
        at: seconds after the start at which it begins.
        model: whom to ask.
        prompt: what to ask; different for each call, so that nobody can be given another one's answer.
    """

    at: float
    model: str
    prompt: str

    @property
    def possible(self) -> bool:
        """Whether anybody could get an answer to it."""
        return self.model != DEAD


@dataclass(frozen=True, slots=True)
class Afternoon:
    """How much is to do, and what chance decides.

    Attributes:
        calls: number of calls, `EVERY` tenth of a second one.
        seed: decides which requests are hit.
    """

    calls: int = 60
    seed: int = 4

    @property
    def length(self) -> float:
        """Seconds until the last call begins."""
        return self.calls * EVERY

    @property
    def burst(self) -> float:
        """Seconds of one burst of overload."""
        return self.length * _BURST

    @property
    def possible(self) -> int:
        """Calls that can be answered: all but those to the dead model."""
        return sum(job.possible for job in self.jobs())

    @property
    def limit(self) -> RateLimit:
        """What the key may use."""
        return _LIMIT

    def jobs(self) -> Iterator[Job]:
        """The calls, in the order in which they begin."""
        for number in range(self.calls):
            model = DEAD if number % _DEAD_EVERY == _DEAD_EVERY // 2 else LIVE
            yield Job(number * EVERY, model, f"question {number}")

    @property
    def plan(self) -> FaultPlan:
        """What goes wrong."""
        bursts = [(begin, begin + self.burst) for begin in (0.3 * self.length, 0.65 * self.length)]
        overloaded = Error("model_overloaded", retry_after=1)
        return FaultPlan(
            (
                Rule(Error("model_unavailable"), model=DEAD),
                *(Rule(overloaded, p=_BURST_SHARE, after=begin, until=end) for begin, end in bursts),
                Rule(Reset("request"), p=_RESETS),
                Rule(Html(502), p=_PAGES),
                Rule(HalfBody("short_length"), p=_CUTS),
            )
        )

    def describe(self) -> list[str]:
        """The same in words."""
        limit = f"a key may make {_LIMIT.requests} requests per {_LIMIT.window:g} s"
        bursts = (
            f"two bursts of {self.burst:.1f} s in which {_BURST_SHARE:.0%} of the requests find the model"
        )
        chance = f"{_RESETS:.0%} of the requests meet a reset, {_PAGES:.0%} a proxy's HTML page (502)"
        hopeless = self.calls - self.possible
        dead = [f"another model is dead: {hopeless} of the calls cannot succeed, for anybody"]
        return [
            f"{self.calls} calls in {self.length:g} s, one every {EVERY:g} s; {limit}",
            f"{bursts} overloaded (retry after 1 s)",
            *(dead if hopeless else ()),
            f"{chance}, {_CUTS:.0%} a JSON answer that breaks off under a 200",
        ]
