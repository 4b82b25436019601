"""Policy and configuration: one typed model, the same from Python, a dict, TOML and the environment.

`Policy` says how one kind of failure is retried. `Config` holds a policy per error code or policy class and
the settings of everything shared. `Overrides` changes some of it for a while. All three are frozen values:
safe to share between threads, tasks and processes, and changed by making a new one.

Which policy applies to a failure is decided by layers, each overlaying only the fields it sets::

    DEFAULTS["other"] <- DEFAULTS[class] <- config.policies[class] <- config.policies[code]

A code therefore outranks its class, whoever set it.

Pure: nothing here waits, reads a clock or draws a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from gip_resilience import _waits, taxonomy
from gip_resilience._config_errors import ConfigError, closest, join, label, show
from gip_resilience._config_fields import (
    ON_OFF,
    Choice,
    Group,
    Integer,
    Kind,
    Mode,
    Number,
    Settings,
    Text,
    build,
    require_known,
)

if TYPE_CHECKING:
    import os

__all__ = [
    "DEFAULTS",
    "BodyConfig",
    "BreakerConfig",
    "BudgetConfig",
    "Config",
    "ConfigError",
    "GateConfig",
    "Overrides",
    "Policy",
    "ResolvedPolicy",
]

Jitter: TypeAlias = Literal["full", "random", "none"] | Callable[[float], float]
Wait: TypeAlias = Literal["expo", "fibo", "constant"] | Callable[[], Generator[float, Any, None]]
OnAmbiguous: TypeAlias = Literal["retry", "fail"]
BreakerRule: TypeAlias = Literal["auto", "ignore", "failure", "trip"]
OnOpen: TypeAlias = Literal["auto", "respond", "raise", "wait"]
RetryCount: TypeAlias = Literal["status", "connect", "read", "other"]

SECONDS = Number(at_least=0)
POSITIVE = Number(above=0)
LIMIT = Number(above=0, optional=True)
SHARE = Number(at_least=0, at_most=1)
COUNT = Integer(at_least=1)
SIZE = Integer(at_least=0)
ON_OPEN = Choice("auto", "respond", "raise", "wait")
DIALECTS = (
    "auto",
    "gip",
    "openai",
    "anthropic",
    "google",
    "bedrock",
    "azure_openai",
    "mistral",
    "openrouter",
    "groq",
    "together",
    "vllm",
    "litellm",
)
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


def _row(attempts: int, base: float, longest: float, cost: float = 1.0) -> ResolvedPolicy:
    return ResolvedPolicy(
        max_attempts=attempts,
        base_delay=base,
        max_delay=longest,
        jitter="full",  # fewest calls and least time of the four jitters, by Brooker's simulation of 2015
        wait="expo",
        max_hint=120.0,  # longer, and whoever asked is better told than kept waiting
        on_ambiguous="retry",
        breaker="auto",
        cost=cost,
    )


DEFAULTS: Mapping[str, ResolvedPolicy] = MappingProxyType(
    {
        "rate_limit": _row(4, 2.0, 60.0),
        "overload": _row(4, 1.0, 30.0),
        "server": _row(3, 0.25, 8.0),
        # The request may have been executed, at the price of a whole answer: once more, and it counts double.
        "timeout": _row(2, 0.5, 8.0, cost=2.0),
        "unavailable": _row(1, 0.5, 8.0),
        "stream": _row(3, 0.25, 8.0),
        "intermediary": _row(3, 0.5, 8.0),
        "limited": _row(2, 0.5, 8.0, cost=2.0),
        # Nothing was sent, so a retry is cheap and safe; a restarted listener is back in tenths of a second.
        "connect": _row(3, 0.1, 2.0),
        # The pool is ours: what is short is our own connections, and a retry needs one more.
        "pool": _row(1, 0.1, 2.0),
        "other": _row(1, 0.5, 8.0),
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


class BreakerConfig(Settings, frozen=True, kw_only=True):
    """When a circuit opens, and for how long.

    Attributes:
        window: seconds of the sliding window.
        buckets: parts the window slides by.
        ratio: failed share of the window's calls that opens the circuit.
        min_calls: calls the window must hold before the share counts.
        consecutive: failures in a row that open the circuit while the window holds fewer than ``min_calls``.
        open_time: seconds the circuit stays open; also the least time between two probes.
        open_jitter: part of ``open_time`` by which it varies, up or down.
        max_open: seconds up to which a server's hint may lengthen it.
        mode: ``"metrics_only"`` counts and never refuses; ``"off"`` does not even count.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "window": POSITIVE,
        "buckets": COUNT,
        "ratio": Number(above=0, at_most=1),
        "min_calls": COUNT,
        "consecutive": COUNT,
        "open_time": POSITIVE,
        "open_jitter": SHARE,
        "max_open": SECONDS,
        "mode": Choice("on", "metrics_only", "off"),
    }
    location: ClassVar[str] = "breaker"

    window: float = 10.0
    buckets: int = 10
    ratio: float = 0.5
    min_calls: int = 10
    consecutive: int = 5
    open_time: float = 5.0
    open_jitter: float = 0.2
    max_open: float = 120.0
    mode: Literal["on", "metrics_only", "off"] = "on"


class GateConfig(Settings, frozen=True, kw_only=True):
    """How callers wait together for a rate limit to reset.

    Attributes:
        spread: callers are released over this multiple of the wait, so that they do not arrive at once.
        max_wait: seconds; a hint beyond it does not close the gate for longer.
        base_delay: seconds the gate closes when the server gives no hint; doubles while it goes on.
        max_delay: seconds the doubling stops at.
        scope: whether a limit is shared by the calls of a model, or by all calls of a credential.
        mode: ``"off"`` lets every call wait for itself.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or ``max_delay`` is below ``base_delay``.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "spread": SECONDS,
        "max_wait": SECONDS,
        "base_delay": SECONDS,
        "max_delay": SECONDS,
        "scope": Choice("model", "credential"),
        "mode": ON_OFF,
    }
    location: ClassVar[str] = "gate"
    ordered: ClassVar[tuple[tuple[str, str], ...]] = (("base_delay", "max_delay"),)

    spread: float = 0.5
    max_wait: float = 120.0
    base_delay: float = 2.0
    max_delay: float = 30.0
    scope: Literal["model", "credential"] = "model"
    mode: Mode = "on"


class BudgetConfig(Settings, frozen=True, kw_only=True):
    """How many retries a process may send while nothing succeeds.

    Attributes:
        capacity: tokens at the start, and the most there can be.
        min_capacity: tokens the capacity never shrinks below.
        per_rate: tokens of capacity per own call per second, once the rate is known.
        deposit: tokens every success brings back.
        mode: ``"off"`` lets every policy spend what it likes.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or ``min_capacity`` exceeds ``capacity``.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "capacity": SECONDS,
        "min_capacity": SECONDS,
        "per_rate": SECONDS,
        "deposit": SECONDS,
        "mode": ON_OFF,
    }
    location: ClassVar[str] = "budget"
    ordered: ClassVar[tuple[tuple[str, str], ...]] = (("min_capacity", "capacity"),)

    capacity: float = 10.0
    min_capacity: float = 2.0
    per_rate: float = 5.0
    deposit: float = 0.2
    mode: Mode = "on"


class BodyConfig(Settings, frozen=True, kw_only=True):
    """How much of a body is held in memory.

    Attributes:
        replay_limit: bytes of a request body recorded while it is sent, so that it can be sent again.
        error_limit: bytes of an error's body that are read to learn its code.
        error_timeout: seconds that reading may take.
        json_limit: bytes of a JSON answer up to which it is read under the retry.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "replay_limit": SIZE,
        "error_limit": SIZE,
        "error_timeout": POSITIVE,
        "json_limit": SIZE,
    }
    location: ClassVar[str] = "body"

    replay_limit: int = 1 << 20
    error_limit: int = 64 << 10
    error_timeout: float = 5.0
    json_limit: int = 1 << 20


class Config(Settings, frozen=True, kw_only=True, dict=True):
    """Everything that can be set. ``Config()`` is the default.

    Attributes:
        policies: policies by error code (``model_overloaded``), by policy class (``overload``), or by
            ``custom:<code>`` for a code of your own gateway. A value may also be a mapping, or a
            ``urllib3.Retry`` (see `Policy.from_urllib3`).
        breaker: when circuits open.
        gate: how callers wait for a rate limit.
        budget: how many retries may be sent in all.
        body: how much of a body is held.
        deadline: seconds for a whole call with all its attempts and waits; ``None`` for no limit.
        max_elapsed: seconds after which no further attempt starts; ``None`` for no limit.
        on_open: what an open circuit does with a call: answer it with a 503 (``"respond"``), raise, wait for
            the circuit, or (``"auto"``) answer under an SDK that retries by itself and raise elsewhere.
        dialect: whose error codes to expect; ``"auto"`` tells by the shape of each error.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or a key of ``policies`` is unknown.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "policies": Policies(),
        "breaker": Group(BreakerConfig),
        "gate": Group(GateConfig),
        "budget": Group(BudgetConfig),
        "body": Group(BodyConfig),
        "deadline": LIMIT,
        "max_elapsed": LIMIT,
        "on_open": ON_OPEN,
        "dialect": Choice(*DIALECTS),
    }

    policies: Mapping[str, Policy] = NO_POLICIES
    breaker: BreakerConfig = BreakerConfig()
    gate: GateConfig = GateConfig()
    budget: BudgetConfig = BudgetConfig()
    body: BodyConfig = BodyConfig()
    deadline: float | None = None
    max_elapsed: float | None = 120.0
    on_open: OnOpen = "auto"
    dialect: str = "auto"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A configuration from nested plain values.

        Args:
            values: as in a TOML file; ``None`` and ``"none"`` both mean "no limit" where that is possible.

        Raises:
            ConfigError: a name is unknown or a value is wrong.
        """
        return build(cls, values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """A configuration from a TOML file.

        Raises:
            ConfigError: the file is not TOML, or a setting in it is wrong; the message names the file, the
                setting and, where it can be found, the line.
            OSError: the file cannot be read.
        """
        from gip_resilience import _config_sources

        document = _config_sources.read_toml(path)
        try:
            return cls.from_dict(document.values)
        except ConfigError as error:
            raise error.at(document.locate(error.path)) from None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, prefix: str = "GIP_RESILIENCE_") -> Self:
        """A configuration from environment variables, over that of a file or the defaults.

        ``<prefix>CONFIG`` names the TOML file to start from. Every other variable with the prefix is a
        setting; two underscores enter a table::

            GIP_RESILIENCE_DEADLINE=10
            GIP_RESILIENCE_BREAKER__OPEN_TIME=3
            GIP_RESILIENCE_POLICIES__MODEL_OVERLOADED__MAX_ATTEMPTS=5
            GIP_RESILIENCE_POLICIES__CUSTOM__MY_CODE__MAX_ATTEMPTS=2

        Case does not matter after the prefix, and an underscore stands for any punctuation in a code; a
        code after ``CUSTOM__`` is taken in lower case. An empty variable counts as not set; ``none`` lifts a
        limit.

        Args:
            environ: the variables; ``os.environ`` by default.
            prefix: what the names of ours start with.

        Raises:
            ConfigError: a variable names no setting or its value is wrong; the message names the variable.
            OSError: the file cannot be read.
        """
        from gip_resilience import _config_sources

        found = _config_sources.read_env(cls, environ, prefix)
        base = cls.load(found.file) if found.file else cls()
        try:
            return base.overlaid(found.values)
        except ConfigError as error:
            raise error.at(found.locate(error.path)) from None

    def overlaid(self, values: Mapping[str, Any]) -> Self:
        """This configuration with nested plain values laid over it, field by field.

        Raises:
            ConfigError: a name is unknown or a value is wrong.
        """
        changes: dict[str, Any] = {}
        for name, value in values.items():
            require_known(name, self.kinds, "")
            current = getattr(self, name)
            if isinstance(current, PolicyTable):
                changes[name] = current.merged(self.kinds[name].accept(value, name))
            elif isinstance(current, Settings) and isinstance(value, Mapping):
                changes[name] = {**msgspec.structs.asdict(current), **value}
            else:
                changes[name] = value
        return self.replace(**changes)

    def replace(self, **changes: Any) -> Self:
        """The same configuration with other values for the named fields.

        Raises:
            ConfigError: a value is wrong.
            TypeError: there is no such field.
        """
        return msgspec.structs.replace(self, **changes)

    def policy(self, code: str, policy_class: str) -> ResolvedPolicy:
        """The policy that applies to a failure, every field set.

        Thread-safe: results are kept, and computing one twice gives the same.

        Args:
            code: the error code, known or not.
            policy_class: the class its taxonomy puts it in; an unknown class counts as ``"other"``.
        """
        # A code comes from a server. Only those with a policy of their own are kept apart, so that a server
        # that makes up codes cannot fill the memory.
        own = code if code in self.policies else CUSTOM + code
        key = (own if own in self.policies else "", policy_class if policy_class in DEFAULTS else "other")
        found = self._resolved.get(key)
        if found is None:
            found = self._resolved[key] = self._resolve(*key)
        return found

    @cached_property
    def _resolved(self) -> dict[tuple[str, str], ResolvedPolicy]:
        """Outside the fields, so that it takes no part in equality, hash, repr and pickling."""
        return {}

    def _resolve(self, key: str, policy_class: str) -> ResolvedPolicy:
        policy = DEFAULTS[policy_class]
        for layer in (policy_class, key):
            if layer in self.policies:
                policy = policy.merged(self.policies[layer])
        return policy


class Overrides(Settings, frozen=True, kw_only=True, dict=True):
    """What differs from the configuration for one request, or for a while. An unset field changes nothing.

    Attributes:
        policies: policies laid over those of the configuration, key by key; a code still outranks its class.
        deadline: see `Config`; ``None`` lifts the limit.
        max_elapsed: see `Config`; ``None`` lifts the limit.
        on_open: see `Config`.
        model: name of the model, for the scope of circuits and limits, when it cannot be read from the body.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or a key of ``policies`` is unknown.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "policies": Policies(),
        "deadline": LIMIT,
        "max_elapsed": LIMIT,
        "on_open": ON_OPEN,
        "model": Text(),
    }
    partial: ClassVar[bool] = True

    policies: Mapping[str, Policy] = NO_POLICIES
    deadline: float | UnsetType | None = UNSET
    max_elapsed: float | UnsetType | None = UNSET
    on_open: OnOpen | UnsetType = UNSET
    model: str | UnsetType = UNSET

    @classmethod
    def build(cls, **settings: Any) -> Self:
        """Overrides from keywords.

        Args:
            settings: the fields by name; any other keyword is an error code or policy class, and its value a
                `Policy` or a mapping.

        Raises:
            ConfigError: a keyword is neither, or a value is wrong.
        """
        fields = {name: settings.pop(name) for name in cls.__struct_fields__ if name in settings}
        if settings:
            given = cls(policies=fields.get("policies", {}))
            named = cls(policies=settings)
            fields["policies"] = PolicyTable(given.policies).merged(named.policies)
        return cls(**fields)

    def merged(self, inner: Overrides) -> Self:
        """These overrides with the set fields of ``inner`` laid over them."""
        changes = {name: value for name, value in inner._changed() if name != "policies"}
        if inner.policies:
            changes["policies"] = PolicyTable(self.policies).merged(inner.policies)
        return msgspec.structs.replace(self, **changes) if changes else self

    def apply(self, config: Config) -> Config:
        """``config`` with these overrides laid over it.

        Cheap to repeat: the last result is kept. Thread-safe: it is kept in one assignment, and computing it
        twice gives the same.
        """
        last: tuple[Config, Config] | None = self.__dict__.get("_last")
        if last is not None and last[0] is config:
            return last[1]
        changes = {name: value for name, value in self._changed() if name not in ("policies", "model")}
        if self.policies:
            changes["policies"] = PolicyTable(config.policies).merged(self.policies)
        result = config.replace(**changes) if changes else config
        self.__dict__["_last"] = (config, result)
        return result
