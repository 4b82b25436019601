"""Configuration: one typed model, the same from Python, a dict, TOML and the environment.

`Config` holds a policy per error code or policy class and the settings of everything shared. `Overrides` changes
some of it for a while. Both are frozen values: safe to share between threads, tasks and processes, and changed by
making a new one.

Which policy applies to a failure is decided by layers, each overlaying only the fields it sets::

    DEFAULTS["other"] <- DEFAULTS[class] <- config.policies[class] <- config.policies[code]

A code therefore outranks its class, whoever set it.

Pure: nothing here waits, reads a clock or draws a random number.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from gip_resilience._config_errors import ConfigError
from gip_resilience._config_fields import (
    ON_OFF,
    Choice,
    Group,
    Integer,
    Kind,
    Mode,
    Number,
    Settings,
    Switch,
    Text,
    Texts,
    build,
    require_known,
)
from gip_resilience.policy import (
    COUNT,
    CUSTOM,
    DEFAULTS,
    NO_POLICIES,
    SECONDS,
    Policies,
    Policy,
    PolicyTable,
    ResolvedPolicy,
)
from gip_resilience.taxonomy import DIALECTS

if TYPE_CHECKING:
    import os

__all__ = [
    "BodyConfig",
    "BreakerConfig",
    "BudgetConfig",
    "Config",
    "ConfigError",
    "GateConfig",
    "Overrides",
    "StreamConfig",
]

OnOpen: TypeAlias = Literal["auto", "respond", "raise", "wait"]

POSITIVE = Number(above=0)
LIMIT = Number(above=0, optional=True)
SHARE = Number(at_least=0, at_most=1)
SIZE = Integer(at_least=0)
ON_OPEN = Choice("auto", "respond", "raise", "wait")


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


class StreamConfig(Settings, frozen=True, kw_only=True):
    """What is done about event streams that break after their 200.

    Attributes:
        mode: ``"detect"`` sends nothing again: a broken stream is a typed failure; ``"off"`` does not look into
            streams at all.
        marker: whether a missing terminal marker is supplied when every choice had its finish reason.
        restart: whether a stream that broke before any output is begun anew.
        cursor: whether a background run is taken up where it was, by the server's cursor.
        resume: paths (shell patterns) whose server takes up a stream by ``Last-Event-ID``. A server may also
            say so itself, with the header ``x-gip-resume: last-event-id``.
        replay: whether a stream that broke after output is sent for again and compared with what was handed up:
            ``"auto"`` when the temperature is 0 or a seed is set.
        idle_timeout: seconds of silence after which a stream counts as stalled; ``None`` leaves it to the
            client's read timeout. Anthropic was seen silent for 167 s while it buffered a tool's arguments.
        max_event: bytes of one event; a stream with a longer one goes on unguarded.
        max_held: bytes held back before the first output, to be able to begin anew.
        max_delivered: bytes of a stream that are remembered, to be able to go on after a break; a longer one
            goes on, and cannot be replayed.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "mode": Choice("on", "detect", "off"),
        "marker": Switch(),
        "restart": Switch(),
        "cursor": Switch(),
        "resume": Texts(),
        "replay": Choice("auto", "always", "never"),
        "idle_timeout": LIMIT,
        "max_event": COUNT,
        "max_held": SIZE,
        "max_delivered": SIZE,
    }
    location: ClassVar[str] = "stream"

    mode: Literal["on", "detect", "off"] = "on"
    marker: bool = True
    restart: bool = True
    cursor: bool = True
    resume: tuple[str, ...] = ()
    replay: Literal["auto", "always", "never"] = "auto"
    idle_timeout: float | None = None
    max_event: int = 16 << 20
    max_held: int = 64 << 10
    max_delivered: int = 4 << 20


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
        stream: what is done about event streams that break.
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
        "stream": Group(StreamConfig),
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
    stream: StreamConfig = StreamConfig()
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
        stream: see `Config`; takes the place of all of it.
        model: name of the model, for the scope of circuits and limits, when it cannot be read from the body.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or a key of ``policies`` is unknown.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "policies": Policies(),
        "deadline": LIMIT,
        "max_elapsed": LIMIT,
        "on_open": ON_OPEN,
        "stream": Group(StreamConfig),
        "model": Text(),
    }
    partial: ClassVar[bool] = True

    policies: Mapping[str, Policy] = NO_POLICIES
    deadline: float | UnsetType | None = UNSET
    max_elapsed: float | UnsetType | None = UNSET
    on_open: OnOpen | UnsetType = UNSET
    stream: StreamConfig | UnsetType = UNSET
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
