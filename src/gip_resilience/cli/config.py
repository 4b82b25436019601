"""Write a configuration file to begin with, or a schema that editors check one by."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gip_resilience._config_fields import Group, Settings, documented, schema_of
from gip_resilience.cli.output import CommandError
from gip_resilience.config import Config
from gip_resilience.policy import DEFAULTS, Policy

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

WIDTH: Final = 100
"""Columns of a configuration file."""


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="COMMAND")
    summary = "Write a commented TOML file in which every setting stands at its default."
    init = parts.add_parser("init", help=summary, description=summary)
    init.add_argument(
        "file", nargs="?", metavar="FILE.toml", help="a new file; standard output, if not given"
    )
    init.add_argument("--force", action="store_true", help="write over a file that is there")
    init.epilog = """\
examples:
  gip-resilience config init gip-resilience.toml
  gip-resilience check gip-resilience.toml"""
    summary = "Print the JSON Schema of a configuration, for editors."
    schema = parts.add_parser("schema", help=summary, description=summary)
    schema.epilog = """\
examples:
  gip-resilience config schema > gip-resilience.schema.json
Editors that know Taplo (Even Better TOML and others) read it when the first line of the configuration is
  #:schema ./gip-resilience.schema.json"""


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.part == "schema":
        print(json.dumps(json_schema(), indent=2))
    elif arguments.file is None:
        print(commented(), end="")
    else:
        _write(Path(arguments.file), commented(), force=arguments.force)
        print(f"{arguments.file} written; everything in it is at its default")
    return 0


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"{path} exists; --force writes over it") from None
    except OSError as problem:
        raise CommandError(f"{path}: {problem.strerror or problem}") from None


# ---- the schema --------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """What a configuration file may hold, as JSON Schema (draft 2020-12).

    It is a little wider than `Config`: that one setting may not exceed another cannot be said in it.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gip_resilience configuration",
        **schema_of(Config),
        "$defs": {"Policy": schema_of(Policy)},
    }


# ---- the file ----------------------------------------------------------------------------------------------


def commented() -> str:
    """A TOML file that says nothing and shows everything: each setting at its default, commented out."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _comment(
        "The configuration of gip_resilience. Every setting is shown at its default, and commented out: take the"
        ' "# " in front of what you change away, and that of its [table] too. Times are seconds, sizes are bytes;'
        ' "none" lifts a limit.'
    )
    config, told = Config(), documented(Config)
    groups = {name: kind.group for name, kind in Config.kinds.items() if isinstance(kind, Group)}
    for name in Config.kinds:
        if name not in groups:
            yield ""
            yield from _setting(name, getattr(config, name), told.get(name, ""), Config.kinds[name].expected)
    for name, group in groups.items():
        yield ""
        yield ""
        yield from _comment(_without_python(told.get(name, "")) + ".")
        if group is Policy:
            yield from _policies()
        else:
            yield from _table(f"[{name}]", group, getattr(config, name))


def _policies() -> Iterator[str]:
    """The default policy of each class in a line, then one in full."""
    yield "#"
    yield from _comment(
        "By default, and in the order attempts, base_delay, max_delay, cost:",
        *(
            f"  {name:<13} {policy.max_attempts}, {policy.base_delay:g}, {policy.max_delay:g}, {policy.cost:g}"
            for name, policy in DEFAULTS.items()
        ),
    )
    yield "#"
    yield from _comment('A code of your own gateway is written [policies."custom:gpu_on_fire"].')
    yield ""
    yield from _table("[policies.model_overloaded]", Policy, DEFAULTS["overload"])


def _table(heading: str, group: type[Settings], values: Settings) -> Iterator[str]:
    yield f"# {heading}"
    told = documented(group)
    for name, kind in group.kinds.items():
        yield ""
        yield from _setting(name, getattr(values, name), told.get(name, ""), kind.expected)


def _setting(name: str, value: object, meaning: str, expected: str) -> Iterator[str]:
    accepted = expected.removesuffix(" or a callable")
    meaning = _without_python(meaning)
    yield from _comment(f"{meaning} ({accepted})" if meaning else accepted)
    yield f"# {name} = {_toml(value)}"


def _without_python(text: str) -> str:
    """The meaning of a setting, without what only Python can give it."""
    sentences = text.replace("`None`", '"none"').split(". ")
    told = (sentence for sentence in sentences if not _PYTHON.search(sentence.partition("; ")[0]))
    parts = (part for part in ". ".join(told).split("; ") if not _PYTHON.search(part))
    return "; ".join(parts)


_PYTHON: Final = re.compile(r"\bcallable\b|urllib3")
"""What a file cannot hold."""


def _comment(*paragraphs: str) -> Iterable[str]:
    for text in paragraphs:
        yield from textwrap.wrap(
            text[:1].upper() + text[1:],
            WIDTH,
            initial_indent="## ",
            subsequent_indent="## ",
            break_on_hyphens=False,
        )


def _toml(value: object) -> str:
    """A default as TOML."""
    if value is None:
        return '"none"'
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
