"""Check a configuration file, and say in what it differs from the defaults."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from gip_resilience.cli.explain import find
from gip_resilience.cli.output import CommandError, columns
from gip_resilience.cli.settings import load
from gip_resilience.config import Config, ConfigError
from gip_resilience.policy import CUSTOM, DEFAULTS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE.toml", help="the configuration")
    parser.add_argument("--json", action="store_true", help="for programs, faults too")
    parser.epilog = """\
examples:
  gip-resilience check gip-resilience.toml
  gip-resilience check --json gip-resilience.toml | jq .error.line"""


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.json:
        return _for_programs(arguments.file)
    config = load(arguments.file)
    found = list(differences(config))
    print(f"{arguments.file}: OK" + ("" if found else ", the same as the defaults"))
    if found:
        print(columns((f"  {name}", f"= {value}", f"(default: {default})") for name, value, default in found))
    return 0


def _for_programs(file: str) -> int:
    """The same as one JSON object on standard output, whether the file is sound or not."""
    try:
        config = Config.load(file)
    except ConfigError as problem:
        line = re.search(r", line (\d+)$", problem.source or "") or re.search(
            r"at line (\d+)", problem.expected
        )
        error = {
            "line": int(line[1]) if line else None,
            "path": problem.path,
            "expected": problem.expected,
            "got": problem.got,
            "suggestion": problem.suggestion,
            "message": str(problem),
        }
        print(json.dumps({"file": file, "ok": False, "error": error}, indent=2))
        return 1
    except OSError as problem:
        raise CommandError(f"{file}: {problem.strerror or problem}") from None
    changed = [
        {"path": name, "value": value, "default": default} for name, value, default in differences(config)
    ]
    print(json.dumps({"file": file, "ok": True, "differences": changed}, indent=2))
    return 0


def differences(config: Config) -> Iterator[tuple[str, str, str]]:
    """Name, value and default of every setting that is not as it is by default."""
    for name in config.kinds:
        value, default = getattr(config, name), getattr(Config(), name)
        if name == "policies":
            yield from _policies(config)
        elif hasattr(value, "kinds"):
            for field in value.kinds:
                yield from _setting(f"{name}.{field}", getattr(value, field), getattr(default, field))
        else:
            yield from _setting(name, value, default)


def _policies(config: Config) -> Iterator[tuple[str, str, str]]:
    for key, policy in config.policies.items():
        # What the file says about a code's class comes first: the code is compared with what else would hold.
        group = policy_class(key)
        below = DEFAULTS[group] if key == group else _without(config, key).policy(key, group)
        above = config.policy(key.removeprefix(CUSTOM), group)
        for field in policy.kinds:
            yield from _setting(f"policies.{key}.{field}", getattr(above, field), getattr(below, field))


def _without(config: Config, key: str) -> Config:
    return config.replace(policies={name: policy for name, policy in config.policies.items() if name != key})


def policy_class(key: str) -> str:
    """The policy class of a key of ``policies``: itself, or the class its code is in."""
    if key in DEFAULTS:
        return key
    found = find(key)
    return found[0].policy if found else "other"


def _setting(name: str, value: Any, default: Any) -> Iterator[tuple[str, str, str]]:
    if value != default:
        yield name, _shown(value), _shown(default)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
