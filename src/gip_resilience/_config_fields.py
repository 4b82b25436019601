"""What a setting may be: a handful of kinds, and the struct that holds settings of those kinds.

msgspec checks types when it decodes, never in a constructor. A policy made in Python must be held to the same
rules as one read from a file, so the rules live here and run in ``__post_init__``; every way in ends there.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

import msgspec
from msgspec import UNSET

from gip_resilience._config_errors import ConfigError, callable_name, closest, join, label, show

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class Kind(Protocol):
    """A set of acceptable values, and how to read one from a text."""

    @property
    def expected(self) -> str:
        """The set in words, for messages."""
        ...

    def accept(self, value: object, path: str) -> Any:
        """``value`` in its normal form.

        Raises:
            ConfigError: the value is not acceptable.
        """
        ...

    def parse(self, text: str) -> object:
        """The value that ``text`` spells, not yet accepted; ``text`` itself when it spells none."""
        ...

    def schema(self) -> dict[str, Any]:
        """The set as JSON Schema, as far as a TOML file can hold its values."""
        ...


class Number:
    """A finite float within bounds. An int will do; a bool, NaN or infinity will not."""

    __slots__ = ("_above", "_at_least", "_at_most", "_optional", "expected")

    def __init__(
        self,
        *,
        above: float | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
        optional: bool = False,
    ) -> None:
        self._above = above
        self._at_least = at_least
        self._at_most = at_most
        self._optional = optional
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in ((">", above), (">=", at_least), ("<=", at_most))
            if bound is not None
        ]
        self.expected = f"float {' and '.join(bounds)}" + (" or none" if optional else "")

    def accept(self, value: object, path: str) -> float | None:
        """See `Kind.accept`. The word ``"none"`` stands for ``None``, which TOML cannot spell."""
        if self._optional and (value is None or value == "none"):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(path, self.expected, show(value))
        try:
            number = float(value) + 0.0  # -0.0 becomes 0.0
        except OverflowError:
            raise ConfigError(path, self.expected, show(value)) from None
        if not (isfinite(number) and self._within(number)):
            raise ConfigError(path, self.expected, show(value))
        return number

    def _within(self, number: float) -> bool:
        return (
            (self._above is None or number > self._above)
            and (self._at_least is None or number >= self._at_least)
            and (self._at_most is None or number <= self._at_most)
        )

    def parse(self, text: str) -> object:
        """See `Kind.parse`."""
        try:
            return float(text)
        except ValueError:
            return text.lower() if text.lower() == "none" else text

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        bounds = {"exclusiveMinimum": self._above, "minimum": self._at_least, "maximum": self._at_most}
        number = {"type": "number"} | {name: bound for name, bound in bounds.items() if bound is not None}
        return {"anyOf": [number, NONE]} if self._optional else number


NONE: Final = {"const": "none"}
"""What stands for no value in TOML, which has no null; as JSON Schema."""

_END: Final = 2**63
"""Where whole numbers end: those of TOML, too, reach no further."""


class Integer:
    """An int with a lower bound. Neither a bool nor a float with an integral value will do."""

    __slots__ = ("_at_least", "expected")

    def __init__(self, *, at_least: int) -> None:
        self._at_least = at_least
        self.expected = f"int >= {at_least}"

    def accept(self, value: object, path: str) -> int:
        """See `Kind.accept`."""
        if isinstance(value, bool) or not isinstance(value, int) or value < self._at_least:
            raise ConfigError(path, self.expected, show(value))
        if value >= _END:  # of thousands of digits Python would not even print one
            raise ConfigError(path, f"{self.expected} and < 2**63", show(value))
        return int(value)

    def parse(self, text: str) -> object:
        """See `Kind.parse`."""
        try:
            return int(text)
        except ValueError:
            return text

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        return {"type": "integer", "minimum": self._at_least, "exclusiveMaximum": _END}


class Choice:
    """One of a few words; optionally a callable in their place."""

    __slots__ = ("_callables", "_names", "expected")

    def __init__(self, *names: str, callables: bool = False) -> None:
        self._names = names
        self._callables = callables
        self.expected = f"one of {', '.join(map(show, names))}" + (" or a callable" if callables else "")

    def accept(self, value: object, path: str) -> object:
        """See `Kind.accept`."""
        if isinstance(value, str):
            if value in self._names:
                return str.__str__(value)
            raise ConfigError(path, self.expected, show(value), closest(value, self._names))
        if self._callables and callable(value):
            return value
        raise ConfigError(path, self.expected, show(value))

    def parse(self, text: str) -> object:
        """See `Kind.parse`."""
        return text.lower()

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        return {"enum": list(self._names)}


class Text:
    """A string that is not empty."""

    __slots__ = ()
    expected = "a non-empty string"

    def accept(self, value: object, path: str) -> str:
        """See `Kind.accept`."""
        if not isinstance(value, str) or not value:
            raise ConfigError(path, self.expected, show(value))
        return str.__str__(value)

    def parse(self, text: str) -> object:
        """See `Kind.parse`."""
        return text

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        return dict(_TEXT)


_TEXT: Final = {"type": "string", "minLength": 1}


class Texts:
    """Any number of strings that are not empty, kept as a tuple. One string by itself is a list of one."""

    __slots__ = ()
    expected = "a list of non-empty strings"

    def accept(self, value: object, path: str) -> tuple[str, ...]:
        """See `Kind.accept`."""
        given = (value,) if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not all(isinstance(item, str) and item for item in given):
            raise ConfigError(path, self.expected, show(value))
        return tuple(given)

    def parse(self, text: str) -> object:
        """See `Kind.parse`. Separated by commas."""
        return [part.strip() for part in text.split(",")] if text.strip() else []

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        return {"anyOf": [{"type": "array", "items": dict(_TEXT)}, dict(_TEXT)]}


class Switch:
    """``True`` or ``False``."""

    __slots__ = ()
    expected = "true or false"

    def accept(self, value: object, path: str) -> bool:
        """See `Kind.accept`."""
        if not isinstance(value, bool):
            raise ConfigError(path, self.expected, show(value))
        return value

    def parse(self, text: str) -> object:
        """See `Kind.parse`."""
        return {"true": True, "false": False}.get(text.lower(), text)

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        return {"type": "boolean"}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen group of settings that is correct once it exists.

    Subclasses list a `Kind` per field in `kinds`. Equality, hash and pickling are by value; ``repr`` and
    `to_dict` show what differs from the defaults.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {}
    location: ClassVar[str] = ""
    """Path of this group in the model; empty where it depends on who holds it."""
    ordered: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Pairs of fields of which the first may not exceed the second."""
    partial: ClassVar[bool] = False
    """Whether a field may be ``UNSET``."""

    def __post_init__(self) -> None:
        for name, kind in self.kinds.items():
            value = getattr(self, name)
            if value is UNSET and self.partial:
                continue
            accepted = kind.accept(value, join(self.location, name))
            if accepted is not value:
                msgspec.structs.force_setattr(self, name, accepted)
        for low, high in self.ordered:
            self._check_order(low, high)

    def _check_order(self, low: str, high: str) -> None:
        least, most = getattr(self, low), getattr(self, high)
        if least is UNSET or most is UNSET or least <= most:
            return
        if high in dict(self._changed()):
            raise ConfigError(join(self.location, high), f"float >= {low} ({least:g})", show(most))
        # The upper bound is the default, which nobody wrote: the lower one is what is wrong.
        raise ConfigError(join(self.location, low), f"float <= {high} ({most:g})", show(least))

    def _changed(self) -> Iterator[tuple[str, Any]]:
        """The fields that differ from their defaults, in order."""
        names, defaults = self.__struct_fields__, self.__struct_defaults__
        required = (msgspec.NODEFAULT,) * (len(names) - len(defaults))  # msgspec leaves them out in front
        for name, default in zip(names, required + defaults, strict=True):
            value = getattr(self, name)
            if value is not default and value != default:
                yield name, value

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={represent(value)}" for name, value in self._changed())
        return f"{type(self).__name__}({shown})"

    def to_dict(self) -> dict[str, Any]:
        """The settings that differ from the defaults, as plain values.

        Returns:
            A new dict that the matching ``from_dict`` turns into an equal value.

        Raises:
            ConfigError: a setting is a callable that has no name in a configuration file.
        """
        return {name: plain(value, join(self.location, name)) for name, value in self._changed()}


def represent(value: object) -> str:
    """``repr``, but the same in every run."""
    return callable_name(value) if callable(value) else repr(value)


NAMED_CALLABLES = {"backoff._jitter.full_jitter": "full", "backoff._jitter.random_jitter": "random"}
"""Functions of the ``backoff`` package that do what a word of ours does."""


def plain(value: object, path: str) -> object:
    """A setting as a configuration file could hold it."""
    if isinstance(value, Settings):
        try:
            return value.to_dict()
        except ConfigError as error:
            raise (error if value.location else error.under(path)) from None
    if isinstance(value, Mapping):
        return {key: plain(item, join(path, key)) for key, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    if callable(value):
        name = callable_name(value)
        if name not in NAMED_CALLABLES:
            raise ConfigError(path, "a name that can be written down", name)
        return NAMED_CALLABLES[name]
    return value


S = TypeVar("S", bound=Settings)


def build(group: type[S], values: object, path: str = "") -> S:
    """A group of settings from a mapping.

    Args:
        group: which group.
        values: field names and values; nested groups may be mappings too.
        path: where the group is in the model.

    Raises:
        ConfigError: a name is unknown or a value is wrong; the path starts with ``path``.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(path, "a table", show(values))
    for name in values:
        require_known(name, group.__struct_fields__, path)
    try:
        return group(**values)
    except ConfigError as error:
        raise (error if group.location else error.under(path)) from None


def require_known(name: object, known: Collection[str], path: str) -> None:
    """Refuse a name that no setting has.

    Raises:
        ConfigError: with the name that was probably meant.
    """
    if name in known:
        return
    suggestion = closest(name, known) if isinstance(name, str) else None
    raise ConfigError(join(path, label(name)), "a known setting", show(name), suggestion)


class Group:
    """A nested group of settings, given as itself or as a mapping."""

    __slots__ = ("group",)
    expected = "a table"
    keyed: ClassVar[bool] = False
    """Whether there are many groups of the same kind, each under a key of its own."""

    def __init__(self, group: type[Settings]) -> None:
        self.group = group

    def accept(self, value: object, path: str) -> object:
        """See `Kind.accept`."""
        return value if isinstance(value, self.group) else build(self.group, value, path)

    def parse(self, text: str) -> object:
        """See `Kind.parse`."""
        return text

    def schema(self) -> dict[str, Any]:
        """See `Kind.schema`."""
        return schema_of(self.group)


def schema_of(group: type[Settings]) -> dict[str, Any]:
    """A group of settings as JSON Schema, with the meaning and the default of each."""
    told = documented(group)
    properties = {}
    for name, kind in group.kinds.items():
        properties[name] = {"description": told.get(name, ""), **kind.schema()}
        if not (group.partial or isinstance(kind, Group)):
            default = getattr(group(), name)
            properties[name]["default"] = "none" if default is None else default
    return {"type": "object", "additionalProperties": False, "properties": properties}


def documented(thing: type) -> dict[str, str]:
    """The attributes that a class's docstring tells of, each in one line; empty under ``python -OO``."""
    import inspect  # only documentation pays for them
    import re

    found: dict[str, str] = {}
    _, _, section = inspect.cleandoc(thing.__doc__ or "").partition("Attributes:\n")
    name = ""
    for line in section.splitlines():
        if not line.strip():
            break
        if match := re.match(r"    (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        else:
            found[name] += " " + line.strip()
    return {name: text.replace("``", "`").rstrip(".") for name, text in found.items()}
