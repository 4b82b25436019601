"""Policy: how one kind of failure is retried, and what holds by default.

A `Policy` is a frozen value: safe to share between threads, tasks and processes, and changed by making a new one.
Every field may be left unset; `gip_resilience.config.Config` lays the policies of a code and of its class over the
`DEFAULTS` of that class.

Pure: nothing here waits, reads a clock or draws a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from gip_resilience import _waits, defaults, taxonomy
from gip_resilience._config_errors import ConfigError, closest, join, label, show
from gip_resilience._config_fields import (
    Choice,
    Group,
    Integer,
    Kind,
    Number,
    Settings,
    build,
)

__all__ = ["DEFAULTS", "ConfigError", "Policies", "Policy", "PolicyTable", "ResolvedPolicy"]

Jitter: TypeAlias = Literal["full", "random", "none"] | Callable[[float], float]
Wait: TypeAlias = Literal["expo", "fibo", "constant"] | Callable[[], Generator[float, Any, None]]
OnAmbiguous: TypeAlias = Literal["retry", "fail"]
BreakerRule: TypeAlias = Literal["auto", "ignore", "failure", "trip"]
RetryCount: TypeAlias = Literal["status", "connect", "read", "other"]

SECONDS = Number(at_least=0)
COUNT = Integer(at_least=1)
CUSTOM = "custom:"
"""Prefix of a key in ``policies`` for a code that no table of ours knows."""


class Policy(Settings, frozen=True, kw_only=True):
    """How failures of one code, or of one policy class, are retried.

    Every field is unset by default, and an unset field inherits from the layer below (see the module's text).

    Attributes:
        max_attempts: attempts in all, the first included; at least 1, which means no retry.
        base_delay: seconds before the first retry; a callable ``wait`` does not use it.
        max_delay: seconds no wait of the generator exceeds, before jitter.
        jitter: ``"full"`` spreads a wait over 0 to the whole of it, ``"random"`` adds up to one second,
            ``"none"`` leaves it. A callable takes the wait and returns another, such as
            ``backoff.full_jitter``; it brings its own source of chance.
        wait: ``"expo"`` doubles, ``"fibo"`` grows like the Fibonacci numbers, ``"constant"`` does not grow;
            each is the wait generator of that name in the ``backoff`` package, scaled by ``base_delay``. A
            callable returns a wait generator of that package's kind, such as
            ``functools.partial(backoff.expo, base=3)``; its values are seconds as they stand.
        max_hint: seconds; when the server asks for a longer wait the call stops instead.
        on_ambiguous: whether a request that may have been executed is sent again.
        breaker: what the circuit is told; ``"auto"`` is the taxonomy's verdict.
        cost: retry-budget tokens per retry.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or ``max_delay`` is below ``base_delay``.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "max_attempts": COUNT,
        "base_delay": SECONDS,
        "max_delay": SECONDS,
        "jitter": Choice("full", "random", "none", callables=True),
        "wait": Choice("expo", "fibo", "constant", callables=True),
        "max_hint": SECONDS,
        "on_ambiguous": Choice("retry", "fail"),
        "breaker": Choice("auto", "ignore", "failure", "trip"),
        "cost": SECONDS,
    }
    ordered: ClassVar[tuple[tuple[str, str], ...]] = (("base_delay", "max_delay"),)
    partial: ClassVar[bool] = True

    max_attempts: int | UnsetType = UNSET
    base_delay: float | UnsetType = UNSET
    max_delay: float | UnsetType = UNSET
    jitter: Jitter | UnsetType = UNSET
    wait: Wait | UnsetType = UNSET
    max_hint: float | UnsetType = UNSET
    on_ambiguous: OnAmbiguous | UnsetType = UNSET
    breaker: BreakerRule | UnsetType = UNSET
    cost: float | UnsetType = UNSET

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A policy from plain values, such as a table of a TOML file.

        Raises:
            ConfigError: a name is unknown or a value is wrong.
        """
        return build(cls, values)

    @classmethod
    def from_urllib3(cls, retry: Any, *, count: RetryCount = "status") -> Self:
        """The policy that comes closest to a ``urllib3.Retry``, which is read and not imported.

        urllib3 waits ``backoff_factor * 2 ** (n - 1)`` seconds before retry ``n``, plus up to
        ``backoff_jitter``, at most ``backoff_max`` (``Retry.get_backoff_time`` of urllib3 2.8). What carries
        over: the smaller of ``total`` and ``count`` as ``max_attempts`` (retries plus the first attempt), the
        factor as ``base_delay``, ``backoff_max`` as ``max_delay``, jitter as ``"none"`` or ``"random"``,
        and a ``retry_after_max`` other than urllib3's default of six hours as ``max_hint``. What differs:

        * urllib3 sends the first retry at once and waits from the second on; here the first waits too.
        * ``backoff_factor=0``, its default, says nothing about waiting: the waits are inherited.
        * ``"random"`` adds up to one second whatever ``backoff_jitter`` is, and adds it after the cap.
        * urllib3 cuts a longer ``Retry-After`` down to ``retry_after_max``; here the call stops.
        * Without a bound, ``max_attempts`` is inherited: nothing here retries for ever.
        * ``status_forcelist`` and ``allowed_methods`` are not read: the error code decides.

        Args:
            retry: a ``urllib3.Retry``, of version 1.26 or newer.
            count: which of its counts applies beside ``total``.

        Raises:
            ConfigError: ``retry`` is something else, or one of its values is out of range.
        """
        if not _is_urllib3_retry(retry):
            raise ConfigError("", "a urllib3.Retry", show(retry))
        values: dict[str, Any] = {}
        # False is urllib3's way to say "no retry, raise"; as a number it is the 0 that means the same.
        counts = [n for n in (retry.total, getattr(retry, count, None)) if n is not None]
        if counts:
            values["max_attempts"] = 1 + max(0, int(min(counts)))
        longest = getattr(retry, "backoff_max", 120)  # version 1.26 has the same number as a constant
        if retry.backoff_factor:
            values["base_delay"] = min(retry.backoff_factor, longest)
            values["max_delay"] = longest
            values["jitter"] = "random" if getattr(retry, "backoff_jitter", 0) else "none"
            values["wait"] = "expo"
        hint = getattr(retry, "retry_after_max", None)
        if hint is not None and hint != getattr(retry, "DEFAULT_RETRY_AFTER_MAX", None):
            values["max_hint"] = hint
        return cls(**values)

    def merged(self, other: Policy) -> Self:
        """This policy with the set fields of ``other`` laid over it.

        The later word wins: when ``other`` sets only one of ``base_delay`` and ``max_delay`` and the two
        would cross, the one it did not set follows.
        """
        changes = other._set_fields()
        match changes:
            case {"base_delay": _, "max_delay": _}:
                pass
            case {"base_delay": base} if self.max_delay is not UNSET:
                changes["max_delay"] = max(base, self.max_delay)
            case {"max_delay": longest} if self.base_delay is not UNSET:
                changes["base_delay"] = min(longest, self.base_delay)
        return msgspec.structs.replace(self, **changes) if changes else self

    def _set_fields(self) -> dict[str, Any]:
        return {name: value for name in self.kinds if (value := getattr(self, name)) is not UNSET}

    def delays(self) -> Iterator[float]:
        """The waits before each retry in seconds, without jitter, without end.

        They come from the ``backoff`` package's wait generators. Each value is between 0 and ``max_delay``,
        whatever a generator of the user's yields: a negative value becomes 0; one that is infinite, NaN or no
        number becomes ``max_delay``. A generator that ends or raises has its last value repeated, or
        ``base_delay`` if there was none. Unset fields count as those of ``DEFAULTS["other"]``.
        """
        policy = self if isinstance(self, ResolvedPolicy) else DEFAULTS["other"].merged(self)
        return _waits.delays(policy.wait, policy.base_delay, policy.max_delay)

    def jittered(self, delay: float, chance: float) -> float:
        """A wait moved by chance, so that callers that failed together do not return together.

        Args:
            delay: seconds, a value of `delays`.
            chance: a number drawn uniformly from [0, 1); a callable ``jitter`` does not use it.

        Returns:
            Finite seconds, not negative: ``delay * chance`` for ``"full"`` (``backoff.full_jitter``) and for
            an unset jitter, ``delay + chance`` for ``"random"`` (``backoff.random_jitter``), ``delay`` for
            ``"none"``. A callable that raises, or returns something that is not a finite number, leaves
            ``delay`` as it is.
        """
        return _waits.jittered("full" if self.jitter is UNSET else self.jitter, delay, chance)


class ResolvedPolicy(Policy, frozen=True, kw_only=True):
    """A policy with every field set: what `Config.policy` returns and an engine reads. See `Policy`.

    A different type from `Policy`, so that a type checker knows that nothing is unset; never equal to one.
    """

    partial: ClassVar[bool] = False

    max_attempts: int
    base_delay: float
    max_delay: float
    jitter: Jitter
    wait: Wait
    max_hint: float
    on_ambiguous: OnAmbiguous
    breaker: BreakerRule
    cost: float


def _row(row: tuple[int, float, float, float]) -> ResolvedPolicy:
    attempts, base, longest, cost = row
    return ResolvedPolicy(
        max_attempts=attempts,
        base_delay=base,
        max_delay=longest,
        jitter="full",  # fewest calls and least time of the four jitters, by Brooker's simulation of 2015
        wait="expo",
        max_hint=defaults.MAX_HINT,
        on_ambiguous="retry",
        breaker="auto",
        cost=cost,
    )


DEFAULTS: Mapping[str, ResolvedPolicy] = MappingProxyType(
    {
        "rate_limit": _row(defaults.RATE_LIMIT),
        "overload": _row(defaults.OVERLOAD),
        "server": _row(defaults.SERVER),
        "timeout": _row(defaults.TIMEOUT),
        "unavailable": _row(defaults.UNAVAILABLE),
        "stream": _row(defaults.STREAM),
        "intermediary": _row(defaults.INTERMEDIARY),
        "limited": _row(defaults.LIMITED),
        "connect": _row(defaults.CONNECT),
        "pool": _row(defaults.POOL),
        "other": _row(defaults.OTHER),
    }
)
"""The policy of each class, fully set. Where it allows one attempt, the waits serve users who allow more."""


class PolicyTable(Mapping[str, Policy]):
    """Policies by error code or policy class; a mapping that cannot be changed and can be hashed."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Policy] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> Policy:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[type[PolicyTable], tuple[dict[str, Policy]]]:
        return type(self), (self._items,)

    def merged(self, other: Mapping[str, Policy]) -> PolicyTable:
        """This table with each policy of ``other`` laid over the one of the same key."""
        overlaid = {key: self._items[key].merged(p) if key in self._items else p for key, p in other.items()}
        return PolicyTable({**self._items, **overlaid})


NO_POLICIES = PolicyTable()


class Policies(Group):
    """The kind of the ``policies`` setting: known keys; policies, mappings or urllib3 retries as values."""

    __slots__ = ()
    keyed: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(Policy)

    def accept(self, value: object, path: str) -> PolicyTable:
        """See `Kind.accept`."""
        if isinstance(value, PolicyTable):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(path, self.expected, show(value))
        table: dict[str, Policy] = {}
        for given, policy in value.items():
            key = _policy_key(given, path)
            table[key] = _policy(key, policy, join(path, key))
        return PolicyTable(table)

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        reference = {"$ref": "#/$defs/Policy"}
        known = sorted({*taxonomy.known_codes(), *taxonomy.POLICY_CLASSES})
        return {
            "type": "object",
            "properties": dict.fromkeys(known, reference),
            "patternProperties": {f"^{CUSTOM}.": reference},
            "additionalProperties": False,
        }


def _policy_key(key: object, path: str) -> str:
    """A code or class by its plain name.

    Raises:
        ConfigError: no table knows it and it does not start with ``custom:``.
    """
    expected = f'an error code, a policy class or "{CUSTOM}<code>"'
    if not isinstance(key, str):
        raise ConfigError(path, expected, show(key))
    key = str.__str__(key)
    if key in taxonomy.POLICY_CLASSES or key in _GIP_CODES or (key.startswith(CUSTOM) and key != CUSTOM):
        return key
    known = taxonomy.known_codes()  # reads the tables of the other dialects
    if key in known:
        return key
    raise ConfigError(
        join(path, label(key)), expected, show(key), closest(key, {*known, *taxonomy.POLICY_CLASSES})
    )


def _policy(key: str, value: object, path: str) -> Policy:
    if isinstance(value, Policy):
        return value
    if isinstance(value, Mapping):
        return build(Policy, value, path)
    try:
        return Policy.from_urllib3(value, count=_URLLIB3_COUNTS.get(key, "status"))
    except ConfigError as error:
        if error.path:
            raise error.under(path) from None
        raise ConfigError(path, "a table, a Policy or a urllib3.Retry", show(value)) from None


_GIP_CODES = frozenset(map(str, taxonomy.Code))
_URLLIB3_COUNTS: Mapping[str, RetryCount] = {
    "connect": "connect",
    "connect_error": "connect",
    "connect_timeout": "connect",
    "timeout": "read",
    "read_timeout": "read",
    "pool": "other",
    "pool_timeout": "other",
}


def _is_urllib3_retry(value: object) -> bool:
    return all(hasattr(value, name) for name in ("total", "status", "connect", "backoff_factor"))
