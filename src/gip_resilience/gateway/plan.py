"""Which request gets which reply: an immutable list of rules, and the place where one playing of it stands.

A `FaultPlan` is a value and can be shared; `Playback` holds what changes: how often each rule was reached and
fired. Nothing here reads a clock or draws a random number. "By chance" is a function of the seed, the rule's
place in the plan and the number of the request, so a plan plays the same every time and in every order of
threads.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gip_resilience.gateway.replies import Ok, Reply, at_accept

if TYPE_CHECKING:
    from os import PathLike
    from typing import Self

HEALTH: Final = "/healthz"
"""Answered healthily unless a rule names it: it must not use up a step of a script."""


class PlanError(ValueError):
    """A plan cannot be read.

    Attributes:
        path: the place in the plan (``rules[0].reply.status``), empty for the whole.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """A reply, and the requests that get it. All selectors must hold; without any, every request gets it.

    A request *reaches* a rule when no earlier rule answered it and this rule's path, method, model and time
    window fit. *nth*, *first*, *last* and *p* look at the number of requests that reached the rule so far.

    Attributes:
        reply: what to answer.
        path: path, or a shell pattern (``"/v1/*"``).
        method: HTTP method.
        model: model named in the request, or a shell pattern.
        nth: only the nth request that reaches the rule, from 1.
        first: only from this one on.
        last: only up to this one.
        times: at most so many replies.
        p: probability from 0 to 1.
        after: only when so many seconds passed since the plan was put in.
        until: only before so many seconds passed.
    """

    reply: Reply
    path: str | None = None
    method: str | None = None
    model: str | None = None
    nth: int | None = None
    first: int | None = None
    last: int | None = None
    times: int | None = None
    p: float = 1.0
    after: float = 0.0
    until: float | None = None

    def __post_init__(self) -> None:
        for name, count in (
            ("nth", self.nth),
            ("first", self.first),
            ("last", self.last),
            ("times", self.times),
        ):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1")
        if not 0.0 <= self.p <= 1.0:
            raise ValueError("p must be within 0 and 1")
        if not self.after >= 0.0:
            raise ValueError("after must not be negative")
        if self.until is not None and not self.until > self.after:
            raise ValueError("until must be later than after")
        if at_accept(self.reply) and (self.path or self.method or self.model):
            raise ValueError("a connection is accepted before path, method and model are known")

    def admits(self, path: str, method: str, model: str | None, elapsed: float) -> bool:
        """Whether a request with these features, *elapsed* seconds into the plan, reaches the rule."""
        return (
            _fits(self.path, path)
            and not (path == HEALTH and self.path is None)
            and (self.method is None or self.method == method)
            and _fits(self.model, model)
            and self.in_window(elapsed)
        )

    def in_window(self, elapsed: float) -> bool:
        """Whether the rule is in force *elapsed* seconds into the plan."""
        return self.after <= elapsed and (self.until is None or elapsed < self.until)

    def fires(self, reached: int, fired: int, chance: float) -> bool:
        """Whether the rule answers the *reached*-th request, having answered *fired*; *chance* in [0, 1)."""
        return (
            (self.nth is None or reached == self.nth)
            and (self.first is None or reached >= self.first)
            and (self.last is None or reached <= self.last)
            and (self.times is None or fired < self.times)
            and chance < self.p
        )


class FaultPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """An ordered list of rules; the first that fires decides, and where none does the answer is `Ok`.

    Plans compose: ``a + b`` (or ``a | b``) asks the rules of *a* first.

    Attributes:
        rules: in order of precedence.
    """

    rules: tuple[Rule, ...] = ()

    @classmethod
    def script(cls, replies: Iterable[Reply], *, path: str | None = None, model: str | None = None) -> Self:
        """Play *replies* one per request, in order; then it says nothing more, which means `Ok`.

        Args:
            replies: the replies in order.
            path: count and answer only requests with this path or shell pattern.
            model: count and answer only requests for this model or shell pattern.
        """
        return cls(tuple(Rule(reply, path=path, model=model, times=1) for reply in replies))

    @classmethod
    def always(
        cls,
        reply: Reply,
        *,
        path: str | None = None,
        method: str | None = None,
        model: str | None = None,
        nth: int | None = None,
        first: int | None = None,
        last: int | None = None,
        times: int | None = None,
        p: float = 1.0,
        after: float = 0.0,
        until: float | None = None,
    ) -> Self:
        """One rule; the selectors are those of `Rule`."""
        return cls((Rule(reply, path, method, model, nth, first, last, times, p, after, until),))

    @classmethod
    def per_model(cls, plans: Mapping[str, Reply | FaultPlan | Iterable[Reply]]) -> Self:
        """A plan for each model.

        Args:
            plans: by model name or shell pattern: a reply (given always), several (a script), or a plan whose
                rules get the model as one more selector.
        """
        rules: list[Rule] = []
        for model, plan in plans.items():
            rules.extend(msgspec.structs.replace(rule, model=model) for rule in _as_plan(plan).rules)
        return cls(tuple(rules))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A plan from plain values: ``{"rules": [{"reply": {"kind": "error", "code": …}, "times": 2}, …]}``.

        Raises:
            PlanError: a value is wrong; `PlanError.path` says which.
        """
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise _plan_error(error) from None

    @classmethod
    def from_toml(cls, source: str | PathLike[str]) -> Self:
        """A plan from TOML, as an array of tables ``[[rules]]``.

        Args:
            source: the text, or a path. A string is taken as text when it is empty or has a line break,
                a ``=`` or a ``[`` in it.

        Raises:
            PlanError: the text is not TOML, or a value is wrong.
            OSError: the file cannot be read.
        """
        is_text = isinstance(source, str) and (not source or any(mark in source for mark in "\n=["))
        text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PlanError("", f"not TOML: {error}") from None
        except ValueError:  # thousands of digits
            raise PlanError("", "not TOML: a number is too long") from None
        except RecursionError:
            raise PlanError("", "not TOML: values are nested too deeply") from None
        return cls.from_dict(data)

    def __add__(self, other: FaultPlan) -> FaultPlan:
        """The rules of both, these first."""
        return FaultPlan(self.rules + other.rules)

    __or__ = __add__


class Playback:
    """One playing of a plan: counts what its rules have seen. Not thread-safe; one task must own it.

    Args:
        plan: what to play.
        seed: decides what happens by chance.
    """

    def __init__(self, plan: FaultPlan, seed: int = 0) -> None:
        self.plan = plan
        self._seed = seed
        self._reached = [0] * len(plan.rules)
        self._fired = [0] * len(plan.rules)

    def reply_to(self, path: str, method: str, model: str | None, elapsed: float) -> Reply:
        """The reply to a request that arrived *elapsed* seconds into the plan."""
        for place, rule in enumerate(self.plan.rules):
            if not rule.admits(path, method, model, elapsed):
                continue
            self._reached[place] += 1
            if self._would_fire(place, self._reached[place]):
                self._fired[place] += 1
                return rule.reply
        return Ok()

    def reply_to_connection(self, elapsed: float) -> Reply | None:
        """The reply to a new connection, if the first rule that would answer it does so at accept.

        Rules that select by path, method or model are passed over: nothing was read yet. When the first of
        the other rules wants to see the request, nothing is counted: `reply_to` will be asked.
        """
        for place, rule in enumerate(self.plan.rules):
            if rule.path or rule.method or rule.model or not rule.in_window(elapsed):
                continue
            if not self._would_fire(place, self._reached[place] + 1):
                continue
            if not at_accept(rule.reply):
                return None
            self._reached[place] += 1
            self._fired[place] += 1
            return rule.reply
        return None

    def _would_fire(self, place: int, reached: int) -> bool:
        chance = _chance(self._seed, place, reached)
        return self.plan.rules[place].fires(reached, self._fired[place], chance)


def _chance(seed: int, place: int, number: int) -> float:
    """A number in [0, 1) that depends on nothing else; uniform, because blake2b is."""
    digest = blake2b(f"{seed}:{place}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _fits(pattern: str | None, value: str | None) -> bool:
    return pattern is None or (value is not None and (pattern == value or fnmatchcase(value, pattern)))


def _as_plan(plan: Reply | FaultPlan | Iterable[Reply]) -> FaultPlan:
    if isinstance(plan, FaultPlan):
        return plan
    if isinstance(plan, Iterable):
        return FaultPlan.script(plan)
    return FaultPlan.always(plan)


def _plan_error(error: msgspec.ValidationError) -> PlanError:
    """Msgspec's ``Expected `int`, got `str` - at `$.rules[0].nth``` with the path in front."""
    problem, _, path = str(error).partition(" - at `$")
    problem = problem.replace("`", "")
    return PlanError(path.rstrip("`").lstrip("."), problem[:1].lower() + problem[1:])
