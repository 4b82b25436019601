"""Every default number has a name, a reason and a use, and is what `Config` says without being told anything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from gip_resilience import defaults
from gip_resilience._config_fields import Settings
from gip_resilience.config import Config
from gip_resilience.policy import DEFAULTS

SOURCE = Path(defaults.__file__).parent

SWITCHES = {
    "breaker.mode": "on",
    "gate.scope": "model",
    "gate.mode": "on",
    "budget.mode": "on",
    "stream.mode": "on",
    "stream.marker": True,
    "stream.restart": True,
    "stream.cursor": True,
    "stream.resume": (),
    "stream.replay": "auto",
    "store.budget": "local",
    "policies": {},
    "on_open": "auto",
    "dialect": "auto",
    "idempotency_header": None,
}
"""What is chosen and not measured, so that no number stands behind it."""


SHARED = {
    "observe.max_hosts": "OBSERVE_MAX_NAMES",
    "observe.max_models": "OBSERVE_MAX_NAMES",
    "observe.max_codes": "OBSERVE_MAX_NAMES",
}
"""Settings that are given one number, for one reason."""


def _settings(group: Settings, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name in group.kinds:
        value = getattr(group, name)
        if isinstance(value, Settings):
            found.update(_settings(value, f"{name}."))
        else:
            found[prefix + name] = value
    return found


SETTINGS = _settings(Config())


def _constants() -> dict[str, str | None]:
    """The constants by name, and the text under each."""
    body = ast.parse((SOURCE / "defaults.py").read_text(encoding="utf-8")).body
    found: dict[str, str | None] = {}
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                match following:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[name] = text
                    case _:
                        found[name] = None
    return found


CONSTANTS = _constants()


def _used() -> set[str]:
    """The constants that the rest of the source reads."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if path.name == "defaults.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.asname or alias.name: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "gip_resilience.defaults"
            for alias in node.names
        }
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id="defaults"), attr=name):
                    found.add(name)
                case ast.Name(id=name, ctx=ast.Load()) if name in imported:
                    found.add(imported[name])
    return found


USED = _used()


@pytest.mark.parametrize("setting", sorted(SETTINGS.keys() - SWITCHES.keys()))
def test_every_default_is_its_constant(setting: str) -> None:
    """The constant is called like the setting, so that nobody has to search, unless several share it."""
    constant = SHARED.get(setting, setting.replace(".", "_").upper())

    assert SETTINGS[setting] == getattr(defaults, constant)


@pytest.mark.parametrize("setting", sorted(SWITCHES))
def test_every_switch_stands_where_it_is_said_to(setting: str) -> None:
    """And is no number."""
    value = SETTINGS[setting]

    assert value == SWITCHES[setting]
    assert isinstance(value, bool) or not isinstance(value, int | float)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_every_policy_is_its_constant(name: str) -> None:
    """Attempts, base and longest wait, and cost; the longest hint is one for all."""
    policy = DEFAULTS[name]

    row = (policy.max_attempts, policy.base_delay, policy.max_delay, policy.cost)
    assert row == getattr(defaults, name.upper())
    assert policy.max_hint == defaults.MAX_HINT
    assert (policy.jitter, policy.wait) == ("full", "expo")
    assert (policy.on_ambiguous, policy.breaker) == ("retry", "auto")


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_every_constant_says_why(name: str) -> None:
    """In at least a sentence, right under it."""
    text = CONSTANTS[name]

    assert text is not None, f"{name} has no text"
    assert len(text.strip()) >= 40, f"{name} says too little"
    assert text.rstrip().endswith("."), f"{name} breaks off"


@pytest.mark.parametrize("name", sorted(CONSTANTS))
def test_every_constant_is_used(name: str) -> None:
    """Somewhere in the source, or it would say what does not hold."""
    assert name in USED


def test_no_constant_is_missed() -> None:
    """What is read from the source is what the module has; and there are as many as one would expect."""
    public = {name for name in vars(defaults) if name.isupper()}

    assert public == CONSTANTS.keys()
    assert public >= USED
    assert len(public) > 40


def test_no_setting_has_a_number_of_its_own() -> None:
    """The groups of settings take every number from there."""
    numbers = []
    for name in ("_config_groups.py", "config.py"):
        for node in ast.walk(ast.parse((SOURCE / name).read_text(encoding="utf-8"))):
            match node:
                case ast.AnnAssign(target=ast.Name(id=setting), value=ast.Constant(value=value)):
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        numbers.append(f"{name}: {setting}")
    assert numbers == []
