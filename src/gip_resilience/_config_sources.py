"""Where a configuration can be written besides Python: a TOML file, and environment variables.

Each reader returns nested plain values, and what it takes to tell the user where a wrong one was written.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gip_resilience import taxonomy
from gip_resilience._config_errors import ConfigError, join
from gip_resilience._config_fields import Group, Kind, Settings, require_known

if TYPE_CHECKING:
    from collections.abc import Mapping


class Document(NamedTuple):
    """A TOML file that has been read."""

    name: str
    text: str
    values: dict[str, Any]

    def locate(self, path: str) -> str:
        """The file, and the line that holds the setting at ``path`` if it can be told."""
        line = line_of(self.text, path)
        return self.name if line is None else f"{self.name}, line {line}"


def read_toml(path: str | os.PathLike[str]) -> Document:
    """A TOML file as nested plain values.

    Raises:
        ConfigError: it is not UTF-8, or not TOML.
        OSError: it cannot be read.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except UnicodeDecodeError:
        raise ConfigError("", "UTF-8 text", source=name) from None
    return parse_toml(text, name)


def parse_toml(text: str, name: str) -> Document:
    """The text of a TOML file as nested plain values.

    Raises:
        ConfigError: it is not TOML, or more of it than Python reads.
    """
    try:
        return Document(name, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        # The message quotes no values, only the place and at most a key or a character.
        last = max(1, len(text.splitlines()))
        place = f"{name}, line {last}" if "at end of document" in str(error) else name
        raise ConfigError("", f"valid TOML: {error}", source=place) from None
    except ValueError:  # thousands of digits
        raise ConfigError("", "valid TOML: a number is too long", source=name) from None
    except RecursionError:
        raise ConfigError("", "valid TOML: values are nested too deeply", source=name) from None


_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_LINE = re.compile(rf"\s*(?:\[\s*(?P<table>{_DOTTED})\s*\]|(?P<key>{_DOTTED})\s*=)")


def line_of(text: str, path: str) -> int | None:
    """The line of a TOML text that sets ``path`` or, failing that, the nearest table around it.

    A scan by line, not a parser: it reads headers and keys where they stand at the start of a line, and what
    it gets wrong is a line number in a message.

    Returns:
        A line number that counts from 1; ``None`` when no line comes near.
    """
    table, best, line = "", 0, None
    for number, content in enumerate(text.splitlines(), start=1):
        match = _LINE.match(content)
        if match is None:
            continue
        if match["table"]:
            here = table = _plain_path(match["table"])
        else:
            here = join(table, _plain_path(match["key"]))
        if (path == here or path.startswith(f"{here}.")) and len(here) > best:
            best, line = len(here), number
    return line


def _plain_path(dotted: str) -> str:
    return ".".join(key.strip("\"'") for key in re.findall(_KEY, dotted))


class Variables(NamedTuple):
    """The environment variables of ours that have been read."""

    file: str
    """The TOML file to start from; empty for none."""
    values: dict[str, Any]
    names: dict[str, str]
    """The variable that set each path."""

    def locate(self, path: str) -> str | None:
        """The variable that set ``path``, or the first that set something below it."""
        return next(
            (name for set_path, name in self.names.items() if f"{set_path}.".startswith(f"{path}.")), None
        )


def read_env(model: type[Settings], environ: Mapping[str, str] | None, prefix: str) -> Variables:
    """The variables that start with ``prefix``, as nested values of ``model``.

    Raises:
        ConfigError: a variable names no setting.
    """
    environ = os.environ if environ is None else environ
    found = Variables(environ.get(f"{prefix}CONFIG", ""), {}, {})
    for variable in sorted(environ):
        text = environ[variable].strip()
        if variable == f"{prefix}CONFIG" or not variable.startswith(prefix) or not text:
            continue
        try:
            path, kind = _setting(model, variable.removeprefix(prefix).split("__"))
        except ConfigError as error:
            raise error.at(variable) from None
        _place(found.values, path, kind.parse(text))
        found.names[".".join(path)] = variable
    return found


def _setting(model: type[Settings], words: list[str]) -> tuple[list[str], Kind]:
    """The path of the setting that a variable names, and its kind.

    Raises:
        ConfigError: there is no such setting.
    """
    path: list[str] = []
    while True:
        name, *words = words
        name = name.lower()
        require_known(name, model.kinds, ".".join(path))
        path.append(name)
        kind = model.kinds[name]
        if words and isinstance(kind, Group) and kind.keyed:
            key, words = _policy_key(words)
            path.append(key)
        if not words:
            return path, kind
        if not isinstance(kind, Group):
            require_known(words[0].lower(), (), ".".join(path))
        else:
            model = kind.group


def _policy_key(words: list[str]) -> tuple[str, list[str]]:
    """The error code or policy class that the first words spell, and the words after it."""
    name, *rest = words
    name = name.lower()
    if name == "custom" and rest:
        return f"custom:{rest[0].lower()}", rest[1:]
    if name in taxonomy.POLICY_CLASSES:
        return name, rest
    # Codes of other dialects may have capitals, dots and dashes. A code that is spelled the same goes first.
    spelled = sorted(code for code in taxonomy.known_codes() if _spelled(code) == name)
    return (name if name in spelled or not spelled else spelled[0]), rest


def _spelled(code: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", code.lower())


def _place(values: dict[str, Any], path: list[str], value: object) -> None:
    """Put a value where ``path`` leads, unless a value stands where a table should: that will be refused."""
    *tables, name = path
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            return
        values = inner
    values[name] = value
