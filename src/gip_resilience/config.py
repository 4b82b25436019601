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

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from gip_resilience import defaults
from gip_resilience._config_errors import ConfigError, show
from gip_resilience._config_fields import Choice, Group, Kind, Settings, Text, build, require_known
from gip_resilience._config_groups import (
    LIMIT,
    BodyConfig,
    BreakerConfig,
    BudgetConfig,
    GateConfig,
    ObserveConfig,
    StoreConfig,
    StreamConfig,
)
from gip_resilience.policy import (
    CUSTOM,
    DEFAULTS,
    NO_POLICIES,
    Policies,
    Policy,
    PolicyTable,
    ResolvedPolicy,
)
from gip_resilience.taxonomy import DIALECTS

if TYPE_CHECKING:
    import os

    from gip_resilience._watching import ConfigWatch

__all__ = [
    "BodyConfig",
    "BreakerConfig",
    "BudgetConfig",
    "Config",
    "ConfigError",
    "GateConfig",
    "ObserveConfig",
    "Overrides",
    "StoreConfig",
    "StreamConfig",
]

OnOpen: TypeAlias = Literal["auto", "respond", "raise", "wait"]

ON_OPEN = Choice("auto", "respond", "raise", "wait")


class _HeaderName:
    """The name of a header, or none."""

    __slots__ = ()
    expected = "a header name or none"

    def accept(self, value: object, path: str) -> str | None:
        """See `gip_resilience._config_fields.Kind.accept`. ``"none"`` stands for ``None``."""
        if value is None or value == "none":
            return None
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise ConfigError(path, self.expected, show(value))
        return str.__str__(value)

    def parse(self, text: str) -> object:
        """See `gip_resilience._config_fields.Kind.parse`."""
        return text.lower() if text.lower() == "none" else text

    def schema(self) -> dict[str, Any]:
        """See `gip_resilience._config_fields.Kind.schema`."""
        return {"type": "string", "pattern": f"^{_TOKEN.pattern}$"}  # "none" is one, too


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What a header may be called (RFC 9110, 5.6.2)."""


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
        observe: how much is remembered and said of what happens.
        store: how processes share what they know.
        deadline: seconds for a whole call with all its attempts and waits, and with its body when that is read
            later; ``None`` for no limit. An awaiting client keeps it to the instant, a blocking one to within one
            read timeout (the client's own, or what is left if that is less).
        max_elapsed: seconds after which no further attempt starts; ``None`` for no limit.
        on_open: what an open circuit does with a call: answer it with a 503 (``"respond"``), raise, wait for
            the circuit, or (``"auto"``) answer under an SDK that retries by itself and raise elsewhere.
        dialect: whose error codes to expect; ``"auto"`` tells by the shape of each error.
        idempotency_header: the name of a header (``"Idempotency-Key"``) in which a POST or PATCH that carries
            none is given a key of its own, the same for every attempt of the call; ``None`` adds nothing. For
            servers that execute a request once per key.

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
        "observe": Group(ObserveConfig),
        "store": Group(StoreConfig),
        "deadline": LIMIT,
        "max_elapsed": LIMIT,
        "on_open": ON_OPEN,
        "dialect": Choice(*DIALECTS),
        "idempotency_header": _HeaderName(),
    }

    policies: Mapping[str, Policy] = NO_POLICIES
    breaker: BreakerConfig = BreakerConfig()
    gate: GateConfig = GateConfig()
    budget: BudgetConfig = BudgetConfig()
    body: BodyConfig = BodyConfig()
    stream: StreamConfig = StreamConfig()
    observe: ObserveConfig = ObserveConfig()
    store: StoreConfig = StoreConfig()
    deadline: float | None = defaults.DEADLINE
    max_elapsed: float | None = defaults.MAX_ELAPSED
    on_open: OnOpen = "auto"
    dialect: str = "auto"
    idempotency_header: str | None = None

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
    def watch(cls, path: str | os.PathLike[str], *, interval: float = 1.0) -> ConfigWatch[Self]:
        """A configuration from a TOML file that is read again whenever it changes; for `Resilience`.

        The file is read at once, and later by the calls themselves: no thread, nothing to close. A file that is
        wrong, or gone, changes nothing and is told as `gip_resilience.events.ConfigRejected`. What happens when, and
        how long it takes, is said at `ConfigWatch`.

        Args:
            path: the file.
            interval: seconds from one look at the file to the next. While calls come in, a change is in force
                within two of them.

        Raises:
            ConfigError: the file is wrong, as in `load`, or larger than a configuration is; or the interval is.
            OSError: the file cannot be read.
        """
        from gip_resilience._watching import ConfigWatch

        return ConfigWatch(path, interval=interval, model=cls)

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
        limit. The file is read once; one that is to be read again when it changes is given to `watch`.

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
        idempotency_header: see `Config`; ``None`` adds nothing.
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
        "idempotency_header": _HeaderName(),
        "model": Text(),
    }
    partial: ClassVar[bool] = True

    policies: Mapping[str, Policy] = NO_POLICIES
    deadline: float | UnsetType | None = UNSET
    max_elapsed: float | UnsetType | None = UNSET
    on_open: OnOpen | UnsetType = UNSET
    stream: StreamConfig | UnsetType = UNSET
    idempotency_header: str | UnsetType | None = UNSET
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
