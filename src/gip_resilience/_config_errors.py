"""One kind of error for every wrong setting, wherever it was written.

A setting can be written in Python, in a dict, in TOML or in an environment variable. The message is the
same in all four, because it names the setting by its path in the model and not by the place it came from:
``policies.model_overloaded.max_delay: expected float >= 0, got "soon"``. The place is added at the end
when it is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = 40
"""Characters of a wrong value that a message repeats; a secret pasted into the wrong line is longer."""


class ConfigError(ValueError):
    """A setting has a value it cannot have, or no such setting exists.

    Attributes:
        path: where the setting is in the model, such as ``breaker.open_time``; empty when the document as a
            whole could not be read.
        expected: what would have been accepted, such as ``float > 0``.
        got: what was there instead, in one short phrase; empty when there is nothing to show.
        suggestion: the name that was probably meant, if one is close.
        source: the file and line, or the environment variable, that holds the value, if known.
    """

    def __init__(
        self,
        path: str,
        expected: str,
        got: str = "",
        suggestion: str | None = None,
        source: str | None = None,
    ) -> None:
        self.path = path
        self.expected = expected
        self.got = got
        self.suggestion = suggestion
        self.source = source
        message = f"{path}: expected {expected}" if path else f"expected {expected}"
        if got:
            message += f", got {got}"
        if suggestion is not None:
            message += f" (did you mean {show(suggestion)}?)"
        if source is not None:
            message += f" (in {source})"
        super().__init__(message)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, str, str | None, str | None]]:
        return type(self), (self.path, self.expected, self.got, self.suggestion, self.source)

    def under(self, prefix: str) -> ConfigError:
        """The same error, seen from a model that holds this one at ``prefix``."""
        return type(self)(join(prefix, self.path), self.expected, self.got, self.suggestion, self.source)

    def at(self, source: str | None) -> ConfigError:
        """The same error, with the place where the value was written."""
        return type(self)(self.path, self.expected, self.got, self.suggestion, source)


def join(prefix: str, path: str) -> str:
    """A dotted path; either part may be empty."""
    return f"{prefix}.{path}" if prefix and path else prefix or path


def show(value: object) -> str:
    """A wrong value in a few characters, spelled as a configuration file would spell it."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{_cut("".join(c if c.isprintable() else "?" for c in value[: SHOWN + 1]))}"'
        case float():
            return repr(float(value))
        case int():
            return _cut(_digits(value))
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case _ if callable(value):
            return callable_name(value)
    return type(value).__name__


def callable_name(value: object) -> str:
    """A callable by name; its ``repr`` would show an address that differs from run to run."""
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    module = getattr(value, "__module__", None) or type(value).__module__
    return _cut(f"{module}.{name}", limit=2 * SHOWN)


def label(name: object) -> str:
    """A wrong name as a part of a path."""
    plain = isinstance(name, str) and name and name.isprintable() and len(name) <= SHOWN
    return str(name) if plain else show(name)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, or ``None`` when none is near."""
    import difflib  # only a wrong name pays for it

    spelled = {word.lower(): word for word in sorted(known)}
    near = difflib.get_close_matches(name[: 2 * SHOWN].lower(), spelled, n=1, cutoff=0.7)
    return spelled[near[0]] if near else None


def _cut(text: str, limit: int = SHOWN) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _digits(value: int) -> str:
    try:
        return repr(int(value))
    except ValueError:  # above sys.get_int_max_str_digits()
        return "a very large int"
