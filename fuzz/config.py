"""Configuration from TOML, plain values and the environment: the typed error, or a value that can be written down."""

from __future__ import annotations

import os
import pickle
import tempfile
from functools import cache
from pathlib import Path

from fuzz.given import Given
from gip_resilience.config import Config, ConfigError, Overrides
from gip_resilience.policy import Policy

_GROUPS = tuple(name for name, kind in Config.kinds.items() if hasattr(kind, "group"))
_FIELDS = {name: tuple(getattr(Config.kinds[name], "group").kinds) for name in _GROUPS}  # noqa: B009 - not every kind has it
_OTHERS = tuple(name for name in Config.kinds if name not in _GROUPS)
_KEYS = ("model_overloaded", "overload", "rate_limit", "other", "http_502", "custom:x", "RESOURCE_EXHAUSTED",
         "rate_limit_error", "modle_overloaded", "custom:", "")  # fmt: skip
_WORDS = ("none", "on", "off", "detect", "metrics_only", "auto", "retry", "fail", "full", "random", "expo", "fibo",
          "constant", "trip", "ignore", "raise", "respond", "wait", "local", "fleet", "certain", "reset", "always",
          "never", "model", "credential", "true", "false", "0", "1", "10", "1.5", "-1", "1e400", "nan", "1_0", "٣",
          "Idempotency-Key", "/v1/*", "gip", "openai", "", "x" * 100)  # fmt: skip
_PREFIX = "GIP_RESILIENCE_"


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    try:
        match given.below(5):
            case 0:
                config = _from_toml(given.rest())
            case 1:
                config = _from_toml(_toml(given).encode("utf-8", "surrogatepass"))
            case 2:
                config = Config.from_dict(_values(given))
            case 3:
                config = Config.from_env(_environ(given))
            case _:
                config = Overrides.build(**_keywords(given)).apply(Config())
    except ConfigError as error:
        assert str(error)
        assert type(error)(*error.__reduce__()[1]).args == error.args  # type: ignore[arg-type]
        return
    _can_be_written_down(config)


def _can_be_written_down(config: Config) -> None:
    plain = config.to_dict()
    assert Config.from_dict(plain) == config, plain
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(Config.from_dict(plain))
    assert repr(config)
    for key in ("model_overloaded", "nobody_knows"):
        policy = config.policy(key, "overload")
        assert policy.max_attempts >= 1
        waits = policy.delays()
        for _ in range(3):
            assert 0.0 <= next(waits) <= policy.max_delay


@cache
def _file() -> Path:
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None  # no disk, where that can be had
    handle, name = tempfile.mkstemp(".toml", dir=folder)
    os.close(handle)
    return Path(name)


def forget() -> None:
    """Remove what the target has left behind."""
    if _file.cache_info().currsize:
        _file().unlink(missing_ok=True)
        _file.cache_clear()


def _from_toml(text: bytes) -> Config:
    _file().write_bytes(text)
    return Config.load(_file())


def _toml(given: Given) -> str:
    lines = []
    for _ in range(given.below(6)):
        if given.below(3) == 0:
            group = given.one_of(_GROUPS)
            lines.append(f"[{group}.{given.one_of(_KEYS)}]" if group == "policies" else f"[{group}]")
        name = given.one_of((*given.one_of(tuple(_FIELDS.values())), *_OTHERS))
        word = given.one_of(_WORDS)
        lines.append(f'{name} = "{word}"' if given.flag() else f"{name} = {word}")
    return "\n".join(lines)


def _values(given: Given) -> dict[str, object]:
    values: dict[str, object] = {}
    for _ in range(given.below(5)):
        group = given.one_of((*_GROUPS, *_OTHERS))
        if group == "policies":
            values[group] = {given.one_of(_KEYS): _group(given, group) for _ in range(given.below(3))}
        elif group in _GROUPS:
            values[group] = _group(given, group)
        else:
            values[group] = given.value(_WORDS, 1)
    return values


def _group(given: Given, group: str) -> object:
    if given.below(12) == 0:
        return given.value(_WORDS, 2)
    return {given.one_of(_FIELDS[group]): given.value(_WORDS, 1) for _ in range(given.below(4))}


def _environ(given: Given) -> dict[str, str]:
    environ = {}
    for _ in range(given.below(5)):
        group = given.one_of((*_GROUPS, *_OTHERS))
        name = group
        if group == "policies":
            name += "__" + given.one_of(_KEYS).replace(":", "__")
        if group in _GROUPS:
            name += "__" + given.one_of(_FIELDS[group])
        elif given.below(8) == 0:
            name = given.text(16)
        value = given.one_of(_WORDS) if given.flag() else given.text(24)
        environ[_PREFIX + name.upper()] = value
    environ.pop(_PREFIX + "CONFIG", None)  # the name of a file, which is read
    return environ


def _keywords(given: Given) -> dict[str, object]:
    names = ("model_overloaded", "overload", "deadline", "on_open", "stream", "model", "max_elapsed",
             "idempotency_header", "policies", "http_502", "nobody_knows")  # fmt: skip
    found: dict[str, object] = {}
    for _ in range(given.below(4)):
        name = given.one_of(names)
        if name in ("model_overloaded", "overload", "http_502"):
            found[name] = _group(given, "policies") if given.flag() else Policy(max_attempts=1 + given.byte())
        elif name == "stream":
            found[name] = _group(given, "stream")
        else:
            found[name] = given.value(_WORDS, 2)
    return found
