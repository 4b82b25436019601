"""The configuration: every way to write it, every way to get it wrong, and which policy applies."""

from __future__ import annotations

import copy
import pickle
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import backoff
import msgspec
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.config import (
    BodyConfig,
    BreakerConfig,
    BudgetConfig,
    Config,
    ConfigError,
    GateConfig,
    ObserveConfig,
    Overrides,
    StoreConfig,
    StreamConfig,
)
from gip_resilience.policy import DEFAULTS, Policy, ResolvedPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SETTINGS = settings(deadline=None, derandomize=True, max_examples=100)
PREFIX = "GIP_RESILIENCE_"


def write(values: Mapping[str, Any], table: str = "") -> str:
    """Plain values as TOML: enough of a writer for what a configuration holds."""
    lines = [] if not table else [f"[{table}]"]
    lines += [f"{name} = {_scalar(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for name, value in values.items():
        if isinstance(value, dict):
            key = name if name.replace("_", "a").isalnum() else f'"{name}"'
            lines.append(write(value, f"{table}.{key}" if table else key))
    return "\n".join(lines) + "\n"


def _scalar(value: object) -> str:
    match value:
        case None:
            return '"none"'
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(_scalar, value))}]"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return repr(value)


def environ(values: Mapping[str, Any], prefix: str = PREFIX) -> dict[str, str]:
    """Plain values as environment variables."""
    variables: dict[str, str] = {}
    for name, value in values.items():
        key = prefix + name.upper().replace(":", "__")
        if isinstance(value, dict):
            variables |= environ(value, f"{key}__")
        else:
            variables[key] = ",".join(value) if isinstance(value, list) else _variable(value)
    return variables


def _variable(value: object) -> str:
    return "none" if value is None else str(value)


# --- Defaults and values ------------------------------------------------------------------------------------


def test_the_default_is_empty_to_look_at() -> None:
    """``Config()`` differs from nothing, prints as nothing and writes as nothing."""
    assert repr(Config()) == "Config()"
    assert Config().to_dict() == {}
    assert Config.from_dict({}) == Config()
    assert Config.from_env({}) == Config()


# Written out, so that a default cannot change without this table.
FIELDS = [
    ("breaker", "window", 10.0),
    ("breaker", "buckets", 10),
    ("breaker", "ratio", 0.5),
    ("breaker", "min_calls", 20),
    ("breaker", "consecutive", 5),
    ("breaker", "slow_call", None),
    ("breaker", "slow_ratio", 0.8),
    ("breaker", "open_time", 5.0),
    ("breaker", "open_jitter", 0.2),
    ("breaker", "growth", 1.0),
    ("breaker", "max_open", 120.0),
    ("breaker", "success_threshold", 1),
    ("breaker", "probe_lease", None),
    ("breaker", "mode", "on"),
    ("gate", "spread", 0.5),
    ("gate", "max_wait", 120.0),
    ("gate", "base_delay", 2.0),
    ("gate", "max_delay", 30.0),
    ("gate", "max_waiters", 1000),
    ("gate", "exhausted", "certain"),
    ("gate", "scope", "model"),
    ("gate", "mode", "on"),
    ("budget", "capacity", 10.0),
    ("budget", "min_capacity", 2.0),
    ("budget", "per_rate", 5.0),
    ("budget", "deposit", 0.2),
    ("budget", "mode", "on"),
    ("body", "replay_limit", 1048576),
    ("body", "error_limit", 65536),
    ("body", "error_timeout", 5.0),
    ("body", "json_limit", 1048576),
    ("stream", "mode", "on"),
    ("stream", "marker", True),
    ("stream", "restart", True),
    ("stream", "cursor", True),
    ("stream", "resume", ()),
    ("stream", "replay", "auto"),
    ("stream", "idle_timeout", None),
    ("stream", "max_event", 16777216),
    ("stream", "max_held", 65536),
    ("stream", "max_delivered", 4194304),
    ("observe", "max_hosts", 200),
    ("observe", "max_models", 200),
    ("observe", "max_codes", 200),
    ("observe", "log_burst", 50),
    ("observe", "log_rate", 5.0),
    ("store", "timeout", 0.05),
    ("store", "interval", 0.5),
    ("store", "quorum", 2),
    ("store", "budget", "local"),
    ("store", "budget_capacity", 50.0),
    ("", "deadline", None),
    ("", "max_elapsed", 120.0),
    ("", "on_open", "auto"),
    ("", "dialect", "auto"),
    ("", "idempotency_header", None),
]


@pytest.mark.parametrize(("group", "name", "value"), FIELDS, ids=[f"{row[0]}.{row[1]}" for row in FIELDS])
def test_default_values(group: str, name: str, value: object) -> None:
    """Every setting has the default of the design, of the same type."""
    holder = getattr(Config(), group) if group else Config()
    found = getattr(holder, name)

    assert found == value
    assert type(found) is type(value)


def test_every_setting_is_in_the_table() -> None:
    """A new setting needs a row above."""
    groups = {
        "breaker": BreakerConfig,
        "gate": GateConfig,
        "budget": BudgetConfig,
        "body": BodyConfig,
        "stream": StreamConfig,
        "observe": ObserveConfig,
        "store": StoreConfig,
    }
    named = {(group, name) for group, kind in groups.items() for name in kind.__struct_fields__}
    named |= {("", name) for name in Config.__struct_fields__ if name not in groups and name != "policies"}

    assert {row[:2] for row in FIELDS} == named


FULL = {
    "policies": {
        "model_overloaded": {"max_attempts": 5, "max_delay": 20.0},
        "rate_limit": {"jitter": "none", "wait": "fibo", "max_hint": 30.0},
        "custom:my_code": {"on_ambiguous": "fail", "breaker": "trip", "cost": 0.5},
    },
    "breaker": {"ratio": 0.8, "min_calls": 4, "slow_call": 30.0, "growth": 2.0, "mode": "metrics_only"},
    "gate": {"spread": 1.0, "exhausted": "off", "scope": "credential", "mode": "metrics_only"},
    "budget": {"capacity": 20.0, "mode": "off"},
    "body": {"replay_limit": 0, "error_timeout": 1.5},
    "stream": {"resume": ["/events", "/v1/*"], "replay": "never", "marker": False, "idle_timeout": 90.0},
    "observe": {"max_models": 20, "log_rate": 0.5},
    "store": {"timeout": 0.02, "quorum": 3, "budget": "fleet"},
    "deadline": 30.0,
    "max_elapsed": None,
    "on_open": "respond",
    "dialect": "openai",
    "idempotency_header": "Idempotency-Key",
}


def full() -> Config:
    """The same as `FULL`, made in Python."""
    return Config(
        policies={
            "model_overloaded": Policy(max_attempts=5, max_delay=20),
            "rate_limit": Policy(jitter="none", wait="fibo", max_hint=30),
            "custom:my_code": Policy(on_ambiguous="fail", breaker="trip", cost=0.5),
        },
        breaker=BreakerConfig(ratio=0.8, min_calls=4, slow_call=30, growth=2, mode="metrics_only"),
        gate=GateConfig(spread=1, exhausted="off", scope="credential", mode="metrics_only"),
        budget=BudgetConfig(capacity=20, mode="off"),
        body=BodyConfig(replay_limit=0, error_timeout=1.5),
        stream=StreamConfig(resume=("/events", "/v1/*"), replay="never", marker=False, idle_timeout=90),
        observe=ObserveConfig(max_models=20, log_rate=0.5),
        store=StoreConfig(timeout=0.02, quorum=3, budget="fleet"),
        deadline=30,
        max_elapsed=None,
        on_open="respond",
        dialect="openai",
        idempotency_header="Idempotency-Key",
    )


def test_four_ways_to_write_the_same(tmp_path: Path) -> None:
    """Python, a dict, TOML and the environment are one model."""
    file = tmp_path / "gip.toml"
    file.write_text(write(FULL), encoding="utf-8")

    assert Config.from_dict(FULL) == full()
    assert Config.load(file) == full()
    assert Config.load(str(file)) == full()
    assert Config.from_env(environ(FULL)) == full()
    assert full().to_dict() == FULL


def test_repr_shows_what_differs() -> None:
    """The repr can be pasted into a bug report and holds nothing that was not set."""
    config = Config(
        policies={"overload": Policy(max_attempts=2)}, breaker=BreakerConfig(ratio=0.9), max_elapsed=None
    )

    assert repr(config) == (
        "Config(policies={'overload': Policy(max_attempts=2)}, breaker=BreakerConfig(ratio=0.9),"
        " max_elapsed=None)"
    )


def test_copies_are_equal() -> None:
    """Pickling and copying keep value and hash, whether or not a policy has been asked for."""
    config = full()
    config.policy("model_overloaded", "overload")

    for twin in (pickle.loads(pickle.dumps(config)), copy.copy(config), copy.deepcopy(config), full()):
        assert twin == config
        assert hash(twin) == hash(config)
        assert repr(twin) == repr(config)


def test_frozen_all_the_way_down() -> None:
    """Neither a field nor the table of policies can be changed; the dict it came from is not kept."""
    given = {"overload": Policy(max_attempts=2)}
    config = Config(policies=given)
    given["overload"] = Policy(max_attempts=9)

    with pytest.raises(AttributeError):
        config.deadline = 1.0  # type: ignore[misc]
    with pytest.raises(AttributeError):
        config.breaker.ratio = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.policies["overload"] = Policy()  # type: ignore[index]
    assert config.policies == {"overload": Policy(max_attempts=2)}


def test_replace() -> None:
    """A changed copy is checked like a new value; the original stays."""
    config = Config(deadline=5)

    assert config.replace(max_elapsed=None) == Config(deadline=5, max_elapsed=None)
    assert config == Config(deadline=5)
    with pytest.raises(ConfigError, match=r"^deadline: expected float > 0 or none, got -1$"):
        config.replace(deadline=-1)
    with pytest.raises(TypeError):
        config.replace(dedline=1)


class Name(StrEnum):
    """A key that is a string of another type."""

    OVERLOAD = "overload"


@pytest.mark.parametrize(
    ("given", "policies"),
    [
        pytest.param({"overload": {"max_attempts": 2}}, {"overload": Policy(max_attempts=2)}, id="dict"),
        pytest.param({Name.OVERLOAD: Policy(cost=2)}, {"overload": Policy(cost=2)}, id="enum_key"),
        pytest.param({"overload": urllib3.Retry(3)}, {"overload": Policy(max_attempts=4)}, id="urllib3"),
        pytest.param(
            {"connect": urllib3.Retry(9, connect=1), "timeout": urllib3.Retry(9, read=2)},
            {"connect": Policy(max_attempts=2), "timeout": Policy(max_attempts=3)},
            id="urllib3_count_of_the_class",
        ),
        pytest.param({"other": DEFAULTS["server"]}, {"other": DEFAULTS["server"]}, id="resolved"),
        pytest.param({"http_502": Policy()}, {"http_502": Policy()}, id="synthetic_code"),
        pytest.param({"read_timeout": Policy()}, {"read_timeout": Policy()}, id="transport_code"),
        pytest.param({"overloaded_error": Policy()}, {"overloaded_error": Policy()}, id="anthropic_code"),
        pytest.param({"RESOURCE_EXHAUSTED": Policy()}, {"RESOURCE_EXHAUSTED": Policy()}, id="google_code"),
        pytest.param({"custom:X-1": Policy()}, {"custom:X-1": Policy()}, id="custom_code"),
    ],
)
def test_forms_of_a_policy(given: Any, policies: Mapping[str, Policy]) -> None:
    """A policy may be given as a value, a mapping or a urllib3 retry, under any known key."""
    config = Config(policies=given)

    assert config.policies == policies
    assert all(type(key) is str for key in config.policies)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"breaker": {"ratio": 1, "open_jitter": 0}}, id="ratio_and_no_jitter"),
        pytest.param({"breaker": {"open_jitter": 1, "max_open": 0}}, id="jitter_and_no_hint"),
        pytest.param({"gate": {"base_delay": 30, "spread": 0}}, id="gate_without_growth"),
        pytest.param({"budget": {"capacity": 0, "min_capacity": 0, "deposit": 0}}, id="budget_of_nothing"),
        pytest.param({"policies": {"overload": {"max_attempts": 1, "max_delay": 0}}}, id="policy_of_nothing"),
    ],
)
def test_bounds_are_inside(values: dict[str, Any]) -> None:
    """The least and the greatest value of a setting are accepted."""
    config = Config.from_dict(values)

    for group, given_values in values.items():
        for name, value in given_values.items():
            if group != "policies":
                assert getattr(getattr(config, group), name) == value


def test_groups_may_be_mappings() -> None:
    """A group given as a mapping in Python is the same as the group."""
    assert Config(breaker={"ratio": 0.9}) == Config(breaker=BreakerConfig(ratio=0.9))  # type: ignore[arg-type]


# --- Wrong in every form ------------------------------------------------------------------------------------

TABLE_OF = "a table, a Policy or a urllib3.Retry"
KEY = 'an error code, a policy class or "custom:<code>"'
LONG = "x" * 200

DIALECTS = (
    'expected one of "auto", "gip", "openai", "anthropic", "google", "bedrock", "azure_openai", "mistral",'
    ' "openrouter", "groq", "together", "vllm", "litellm"'
)

# id, values, path, what the message says after the path. Each row runs as a dict, as Python keywords, as TOML
# and, where a text can spell it, as environment variables.
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("deadline_zero", {"deadline": 0}, "deadline", "expected float > 0 or none, got 0"),
    ("deadline_negative", {"deadline": -1.5}, "deadline", "expected float > 0 or none, got -1.5"),
    ("deadline_text", {"deadline": "soon"}, "deadline", 'expected float > 0 or none, got "soon"'),
    ("deadline_bool", {"deadline": True}, "deadline", "expected float > 0 or none, got true"),
    ("deadline_nan", {"deadline": float("nan")}, "deadline", "expected float > 0 or none, got nan"),
    ("deadline_inf", {"deadline": float("inf")}, "deadline", "expected float > 0 or none, got inf"),
    ("deadline_list", {"deadline": [1]}, "deadline", "expected float > 0 or none, got a list"),
    ("deadline_table", {"deadline": {}}, "deadline", "expected float > 0 or none, got a table"),
    ("max_elapsed", {"max_elapsed": 0.0}, "max_elapsed", "expected float > 0 or none, got 0.0"),
    (
        "on_open",
        {"on_open": "respnd"},
        "on_open",
        'expected one of "auto", "respond", "raise", "wait", got "respnd" (did you mean "respond"?)',
    ),
    ("on_open_int", {"on_open": 1}, "on_open", 'expected one of "auto", "respond", "raise", "wait", got 1'),
    (
        "dialect",
        {"dialect": "open_ai"},
        "dialect",
        f'{DIALECTS}, got "open_ai" (did you mean "openai"?)',
    ),
    (
        "idempotency_header",
        {"idempotency_header": "Idempotency Key"},
        "idempotency_header",
        'expected a header name or none, got "Idempotency Key"',
    ),
    (
        "idempotency_header_empty",
        {"idempotency_header": ""},
        "idempotency_header",
        'expected a header name or none, got ""',
    ),
    (
        "idempotency_header_colon",
        {"idempotency_header": "Idempotency-Key:"},
        "idempotency_header",
        'expected a header name or none, got "Idempotency-Key:"',
    ),
    (
        "idempotency_header_switch",
        {"idempotency_header": True},
        "idempotency_header",
        "expected a header name or none, got true",
    ),
    (
        "unknown",
        {"dedline": 1},
        "dedline",
        'expected a known setting, got "dedline" (did you mean "deadline"?)',
    ),
    ("unknown_far", {"qqq": 1}, "qqq", 'expected a known setting, got "qqq"'),
    ("breaker_number", {"breaker": 3}, "breaker", "expected a table, got 3"),
    ("breaker_list", {"breaker": []}, "breaker", "expected a table, got a list"),
    (
        "breaker_unknown",
        {"breaker": {"opn_time": 1}},
        "breaker.opn_time",
        'expected a known setting, got "opn_time" (did you mean "open_time"?)',
    ),
    ("window_zero", {"breaker": {"window": 0}}, "breaker.window", "expected float > 0, got 0"),
    ("buckets_zero", {"breaker": {"buckets": 0}}, "breaker.buckets", "expected int >= 1, got 0"),
    ("buckets_float", {"breaker": {"buckets": 1.5}}, "breaker.buckets", "expected int >= 1, got 1.5"),
    ("buckets_bool", {"breaker": {"buckets": True}}, "breaker.buckets", "expected int >= 1, got true"),
    ("ratio_zero", {"breaker": {"ratio": 0}}, "breaker.ratio", "expected float > 0 and <= 1, got 0"),
    ("ratio_high", {"breaker": {"ratio": 1.01}}, "breaker.ratio", "expected float > 0 and <= 1, got 1.01"),
    (
        "ratio_percent",
        {"breaker": {"ratio": "50%"}},
        "breaker.ratio",
        'expected float > 0 and <= 1, got "50%"',
    ),
    ("min_calls", {"breaker": {"min_calls": 0}}, "breaker.min_calls", "expected int >= 1, got 0"),
    ("consecutive", {"breaker": {"consecutive": -1}}, "breaker.consecutive", "expected int >= 1, got -1"),
    ("open_time", {"breaker": {"open_time": 0}}, "breaker.open_time", "expected float > 0, got 0"),
    (
        "open_jitter",
        {"breaker": {"open_jitter": 1.5}},
        "breaker.open_jitter",
        "expected float >= 0 and <= 1, got 1.5",
    ),
    ("max_open", {"breaker": {"max_open": -1}}, "breaker.max_open", "expected float >= 0, got -1"),
    (
        "breaker_mode",
        {"breaker": {"mode": "metrics-only"}},
        "breaker.mode",
        'expected one of "on", "metrics_only", "off", got "metrics-only" (did you mean "metrics_only"?)',
    ),
    (
        "mode_bool",
        {"breaker": {"mode": True}},
        "breaker.mode",
        'expected one of "on", "metrics_only", "off", got true',
    ),
    ("spread", {"gate": {"spread": -0.1}}, "gate.spread", "expected float >= 0, got -0.1"),
    ("max_wait", {"gate": {"max_wait": "2m"}}, "gate.max_wait", 'expected float >= 0, got "2m"'),
    ("scope", {"gate": {"scope": "host"}}, "gate.scope", 'expected one of "model", "credential", got "host"'),
    (
        "gate_mode",
        {"gate": {"mode": "no"}},
        "gate.mode",
        'expected one of "on", "metrics_only", "off", got "no"',
    ),
    (
        "budget_mode",
        {"budget": {"mode": "metrics"}},
        "budget.mode",
        'expected one of "on", "metrics_only", "off", got "metrics" (did you mean "metrics_only"?)',
    ),
    ("observe_hosts", {"observe": {"max_hosts": 0}}, "observe.max_hosts", "expected int >= 1, got 0"),
    ("observe_rate", {"observe": {"log_rate": -0.5}}, "observe.log_rate", "expected float > 0, got -0.5"),
    (
        "observe_name",
        {"observe": {"max_model": 5}},
        "observe.max_model",
        'expected a known setting, got "max_model" (did you mean "max_models"?)',
    ),
    (
        "gate_order",
        {"gate": {"base_delay": 5, "max_delay": 1}},
        "gate.max_delay",
        "expected float >= base_delay (5), got 1.0",
    ),
    (
        "gate_order_against_default",
        {"gate": {"base_delay": 60}},
        "gate.base_delay",
        "expected float <= max_delay (30), got 60.0",
    ),
    ("capacity", {"budget": {"capacity": -1}}, "budget.capacity", "expected float >= 0, got -1"),
    ("deposit", {"budget": {"deposit": float("-inf")}}, "budget.deposit", "expected float >= 0, got -inf"),
    ("per_rate", {"budget": {"per_rate": "x"}}, "budget.per_rate", 'expected float >= 0, got "x"'),
    (
        "budget_order",
        {"budget": {"min_capacity": 20}},
        "budget.min_capacity",
        "expected float <= capacity (10), got 20.0",
    ),
    (
        "budget_order_set",
        {"budget": {"min_capacity": 3, "capacity": 1}},
        "budget.capacity",
        "expected float >= min_capacity (3), got 1.0",
    ),
    (
        "replay_float",
        {"body": {"replay_limit": 1e6}},
        "body.replay_limit",
        "expected int >= 0, got 1000000.0",
    ),
    ("replay_text", {"body": {"replay_limit": "1MB"}}, "body.replay_limit", 'expected int >= 0, got "1MB"'),
    ("error_limit", {"body": {"error_limit": -1}}, "body.error_limit", "expected int >= 0, got -1"),
    ("error_timeout", {"body": {"error_timeout": 0}}, "body.error_timeout", "expected float > 0, got 0"),
    ("json_limit", {"body": {"json_limit": -5}}, "body.json_limit", "expected int >= 0, got -5"),
    ("policies_number", {"policies": 3}, "policies", "expected a table, got 3"),
    ("policies_list", {"policies": []}, "policies", "expected a table, got a list"),
    (
        "key_misspelled",
        {"policies": {"model_overlaoded": {"cost": 1}}},
        "policies.model_overlaoded",
        f'expected {KEY}, got "model_overlaoded" (did you mean "model_overloaded"?)',
    ),
    (
        "class_misspelled",
        {"policies": {"rate_limits": {"cost": 1}}},
        "policies.rate_limits",
        f'expected {KEY}, got "rate_limits" (did you mean "rate_limit"?)',
    ),
    (
        "key_unknown",
        {"policies": {"zzzzzz": {"cost": 1}}},
        "policies.zzzzzz",
        f'expected {KEY}, got "zzzzzz"',
    ),
    (
        "policy_number",
        {"policies": {"overload": 5}},
        "policies.overload",
        f"expected {TABLE_OF}, got 5",
    ),
    (
        "policy_text",
        {"policies": {"overload": "fast"}},
        "policies.overload",
        f'expected {TABLE_OF}, got "fast"',
    ),
    (
        "policy_unknown",
        {"policies": {"overload": {"max_attemps": 5}}},
        "policies.overload.max_attemps",
        'expected a known setting, got "max_attemps" (did you mean "max_attempts"?)',
    ),
    (
        "max_attempts_zero",
        {"policies": {"model_overloaded": {"max_attempts": 0}}},
        "policies.model_overloaded.max_attempts",
        "expected int >= 1, got 0",
    ),
    (
        "max_attempts_float",
        {"policies": {"model_overloaded": {"max_attempts": 2.0}}},
        "policies.model_overloaded.max_attempts",
        "expected int >= 1, got 2.0",
    ),
    (
        "max_delay_text",
        {"policies": {"model_overloaded": {"max_delay": "soon"}}},
        "policies.model_overloaded.max_delay",
        'expected float >= 0, got "soon"',
    ),
    (
        "max_delay_below_base",
        {"policies": {"model_overloaded": {"base_delay": 2, "max_delay": 1.5}}},
        "policies.model_overloaded.max_delay",
        "expected float >= base_delay (2), got 1.5",
    ),
    (
        "base_delay_nan",
        {"policies": {"overload": {"base_delay": float("nan")}}},
        "policies.overload.base_delay",
        "expected float >= 0, got nan",
    ),
    (
        "max_hint",
        {"policies": {"rate_limit_exceeded": {"max_hint": -1}}},
        "policies.rate_limit_exceeded.max_hint",
        "expected float >= 0, got -1",
    ),
    (
        "cost",
        {"policies": {"timeout": {"cost": float("inf")}}},
        "policies.timeout.cost",
        "expected float >= 0, got inf",
    ),
    (
        "jitter",
        {"policies": {"overload": {"jitter": "ful"}}},
        "policies.overload.jitter",
        'expected one of "full", "random", "none" or a callable, got "ful" (did you mean "full"?)',
    ),
    (
        "wait",
        {"policies": {"overload": {"wait": "exponential"}}},
        "policies.overload.wait",
        'expected one of "expo", "fibo", "constant" or a callable, got "exponential"',
    ),
    (
        "wait_number",
        {"policies": {"overload": {"wait": 3}}},
        "policies.overload.wait",
        'expected one of "expo", "fibo", "constant" or a callable, got 3',
    ),
    (
        "on_ambiguous",
        {"policies": {"timeout": {"on_ambiguous": False}}},
        "policies.timeout.on_ambiguous",
        'expected one of "retry", "fail", got false',
    ),
    (
        "breaker_rule",
        {"policies": {"server": {"breaker": "open"}}},
        "policies.server.breaker",
        'expected one of "auto", "ignore", "failure", "trip", got "open"',
    ),
    (
        "custom_is_checked_too",
        {"policies": {"custom:my_code": {"max_attempts": -3}}},
        "policies.custom:my_code.max_attempts",
        "expected int >= 1, got -3",
    ),
    (
        "long_value",
        {"policies": {"server": {"cost": LONG}}},
        "policies.server.cost",
        f'expected float >= 0, got "{"x" * 39}…"',
    ),
    ("long_name", {LONG: 1}, f'"{"x" * 39}…"', f'expected a known setting, got "{"x" * 39}…"'),
    (
        "unprintable",
        {"on_open": "a\nb"},
        "on_open",
        'expected one of "auto", "respond", "raise", "wait", got "a?b"',
    ),
]
IDS = [row[0] for row in WRONG]
ROWS = [row[1:] for row in WRONG]


def check(error: ConfigError, path: str, says: str) -> None:
    """The error has this path and, apart from the place it adds, this text."""
    text = str(error)
    if error.source is not None:
        assert text.endswith(f" (in {error.source})")
        text = text.removesuffix(f" (in {error.source})")
    assert error.path == path
    assert text == f"{path}: {says}"
    assert error.expected in says


@pytest.mark.parametrize(("values", "path", "says"), ROWS, ids=IDS)
def test_wrong_dict(values: dict[str, Any], path: str, says: str) -> None:
    """A dict with one thing wrong is refused with its path, what was expected and what was there."""
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(values)
    check(caught.value, path, says)
    assert caught.value.source is None


@pytest.mark.parametrize(
    ("values", "path", "says"),
    [
        pytest.param(*row, id=name)
        for name, row in zip(IDS, ROWS, strict=True)
        if "a known setting" not in row[2]
    ],
)
def test_wrong_python(values: dict[str, Any], path: str, says: str) -> None:
    """The constructor says the same; only an unknown keyword is Python's own ``TypeError``."""
    with pytest.raises(ConfigError) as caught:
        Config(**values)
    check(caught.value, path, says)


@pytest.mark.parametrize(("values", "path", "says"), ROWS, ids=IDS)
def test_wrong_toml(values: dict[str, Any], path: str, says: str, tmp_path: Path) -> None:
    """A file with the same thing wrong says the same, and names the file and the line."""
    file = tmp_path / "gip.toml"
    text = "# a comment\n\n" + write(values)
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    check(caught.value, path, says)
    source = caught.value.source or ""
    assert source.startswith(str(file))
    if LONG not in text:
        last = path.rpartition(".")[2]
        number = int(source.removeprefix(f"{file}, line "))
        assert last in text.splitlines()[number - 1]


# A text is all an environment variable can hold, so a value of a wrong type reads as the text of it.
ENV_SAYS = {
    "deadline_zero": "expected float > 0 or none, got 0.0",
    "deadline_bool": 'expected float > 0 or none, got "True"',
    "on_open_int": 'expected one of "auto", "respond", "raise", "wait", got "1"',
    "breaker_number": 'expected a table, got "3"',
    "window_zero": "expected float > 0, got 0.0",
    "buckets_float": 'expected int >= 1, got "1.5"',
    "buckets_bool": 'expected int >= 1, got "True"',
    "ratio_zero": "expected float > 0 and <= 1, got 0.0",
    "open_time": "expected float > 0, got 0.0",
    "max_open": "expected float >= 0, got -1.0",
    "mode_bool": 'expected one of "on", "metrics_only", "off", got "true"',
    "capacity": "expected float >= 0, got -1.0",
    "replay_float": 'expected int >= 0, got "1000000.0"',
    "error_timeout": "expected float > 0, got 0.0",
    "policies_number": 'expected a table, got "3"',
    "policy_number": f'expected {TABLE_OF}, got "5"',
    "max_attempts_float": 'expected int >= 1, got "2.0"',
    "max_hint": "expected float >= 0, got -1.0",
    "wait_number": 'expected one of "expo", "fibo", "constant" or a callable, got "3"',
    "on_ambiguous": 'expected one of "retry", "fail", got "false"',
}
NOT_IN_ENV = {
    "deadline_list",
    "deadline_table",
    "breaker_list",
    "policies_list",
    "idempotency_header_empty",  # counts as not set
    "idempotency_header_switch",  # any word may name a header
}


@pytest.mark.parametrize(
    ("name", "values", "path", "says"),
    [row for row in WRONG if row[0] not in NOT_IN_ENV],
    ids=lambda v: str(v)[:20],
)
def test_wrong_environment(name: str, values: dict[str, Any], path: str, says: str) -> None:
    """A variable with the same thing wrong says the same, and is named."""
    variables = environ(values)
    with pytest.raises(ConfigError) as caught:
        Config.from_env(variables)
    check(caught.value, path, ENV_SAYS.get(name, says))
    assert caught.value.source in variables


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Policy(max_attempts=0), "max_attempts: expected int >= 1, got 0", id="policy"),
        pytest.param(
            lambda: Policy(max_attempts=None),  # type: ignore[arg-type]
            "max_attempts: expected int >= 1, got none",
            id="none_is_not_unset",
        ),
        pytest.param(
            lambda: Policy(base_delay=3, max_delay=2),
            "max_delay: expected float >= base_delay (3), got 2.0",
            id="policy_order",
        ),
        pytest.param(
            lambda: Policy(cost=10**400),
            f"cost: expected float >= 0, got 1{'0' * 38}…",
            id="huge",
        ),
        pytest.param(
            lambda: Policy(cost=10**5000),
            "cost: expected float >= 0, got a very large int",
            id="too_many_digits",
        ),
        pytest.param(
            lambda: Policy(cost=b"1"),  # type: ignore[arg-type]
            "cost: expected float >= 0, got bytes",
            id="other_type",
        ),
        pytest.param(
            lambda: Policy(max_delay=len),  # type: ignore[arg-type]
            "max_delay: expected float >= 0, got builtins.len",
            id="callable",
        ),
        pytest.param(
            lambda: BreakerConfig(ratio=2), "breaker.ratio: expected float > 0 and <= 1, got 2", id="group"
        ),
        pytest.param(
            lambda: BudgetConfig(min_capacity=11),
            "budget.min_capacity: expected float <= capacity (10), got 11.0",
            id="group_order",
        ),
        pytest.param(
            lambda: Config(breaker=GateConfig()),  # type: ignore[arg-type]
            "breaker: expected a table, got GateConfig",
            id="other_group",
        ),
        pytest.param(
            lambda: Config(breaker=None),  # type: ignore[arg-type]
            "breaker: expected a table, got none",
            id="no_group",
        ),
        pytest.param(
            lambda: Config(deadline=msgspec.UNSET),  # type: ignore[arg-type]
            "deadline: expected float > 0 or none, got UnsetType",
            id="unset",
        ),
        pytest.param(
            lambda: Config(policies={5: Policy()}),  # type: ignore[dict-item]
            f"policies: expected {KEY}, got 5",
            id="key_type",
        ),
        pytest.param(
            lambda: Config(policies={"custom:": Policy()}),
            f'policies.custom:: expected {KEY}, got "custom:"',
            id="custom_nothing",
        ),
        pytest.param(
            lambda: Config(policies={"overload": urllib3.Retry(3, backoff_factor=-1)}),  # type: ignore[dict-item]
            "policies.overload.base_delay: expected float >= 0, got -1",
            id="urllib3",
        ),
        pytest.param(
            lambda: Config(policies={"overload": {5: 6}}),  # type: ignore[dict-item]
            "policies.overload.5: expected a known setting, got 5",
            id="name_type",
        ),
        pytest.param(
            lambda: Overrides(deadline=0), "deadline: expected float > 0 or none, got 0", id="override"
        ),
        pytest.param(
            lambda: Overrides(model=""), 'model: expected a non-empty string, got ""', id="override_model"
        ),
        pytest.param(
            lambda: Overrides(idempotency_header="a b"),
            'idempotency_header: expected a header name or none, got "a b"',
            id="override_idempotency_header",
        ),
        pytest.param(
            lambda: Overrides.build(model_overloaded={"cost": "x"}),
            'policies.model_overloaded.cost: expected float >= 0, got "x"',
            id="override_policy",
        ),
        pytest.param(
            lambda: Overrides.build(deadlin=3),
            f'policies.deadlin: expected {KEY}, got "deadlin"',
            id="override_unknown",
        ),
        pytest.param(
            lambda: Config(policies={"overload": Policy(wait=backoff.fibo)}).to_dict(),
            "policies.overload.wait: expected a name that can be written down, got backoff._wait_gen.fibo",
            id="to_dict",
        ),
        pytest.param(lambda: Config.from_dict([]), "expected a table, got a list", id="no_mapping"),  # type: ignore[arg-type]
    ],
)
def test_wrong_in_python_only(make: Callable[[], object], message: str) -> None:
    """What only Python can get wrong is refused in the same words."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == message


def test_the_error_is_a_value_error_and_can_be_pickled() -> None:
    """It keeps its parts across processes."""
    error = ConfigError("a.b", "int", '"x"', "c", "file.toml, line 3")
    twin = pickle.loads(pickle.dumps(error))

    assert isinstance(error, ValueError)
    assert str(twin) == str(error) == 'a.b: expected int, got "x" (did you mean "c"?) (in file.toml, line 3)'
    assert (twin.path, twin.expected, twin.source) == ("a.b", "int", "file.toml, line 3")


# --- Files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"deadline = ", "expected valid TOML: Invalid value (at end of document)", id="cut"),
        pytest.param(
            b"[breaker]\nratio 3\n",
            "expected valid TOML: Expected '=' after a key in a key/value pair (at line 2, column 7)",
            id="no_equals",
        ),
        pytest.param(
            b"a = 1\na = 2\n",
            "expected valid TOML: Cannot overwrite a value (at line 2, column 6)",
            id="twice",
        ),
        pytest.param(b"\xff\xfe", "expected UTF-8 text", id="utf16"),
        pytest.param(
            b"deadline = " + b"9" * 5000, "expected valid TOML: a number is too long", id="number too long"
        ),
        pytest.param(
            b"deadline = " + b"[" * 20_000, "expected valid TOML: values are nested too deeply", id="too deep"
        ),
    ],
)
def test_a_file_that_is_not_toml(content: bytes, message: str, tmp_path: Path) -> None:
    """What is wrong with the text is said, with the file."""
    file = tmp_path / "gip.toml"
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    line = ", line 1" if "at end of document" in message else ""  # the others name it themselves
    assert str(caught.value) == f"{message} (in {file}{line})"
    assert caught.value.path == ""


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """A file that is not there is not a wrong setting."""
    with pytest.raises(FileNotFoundError):
        Config.load(tmp_path / "nowhere.toml")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Some editors write one."""
    file = tmp_path / "gip.toml"
    file.write_bytes(b"\xef\xbb\xbfdeadline = 3\n")

    assert Config.load(file) == Config(deadline=3)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("deadline = 1\n\npolicies.overload.cost = -1\n", 3, id="dotted_key"),
        pytest.param("[policies]\noverload.cost = -1\n", 2, id="dotted_in_table"),
        pytest.param("[ policies . overload ]\n  cost=-1\n", 2, id="spaces"),
        pytest.param("[policies.'overload']\n\"cost\" = -1\n", 2, id="quotes"),
        pytest.param("\n[policies]\noverload = {cost = -1}\n", 3, id="inline_table"),
        pytest.param("policies = {overload = {cost = -1}}\n", 1, id="inline_tables"),
        pytest.param(
            "[policies.server]\ncost = 1\n[policies.overload]\ncost = -1 # here\n", 4, id="second_table"
        ),
        pytest.param("[breaker]\n[policies.overload]\n# cost = 1\ncost = -1\n", 4, id="comment"),
    ],
)
def test_the_line_is_found(text: str, line: int, tmp_path: Path) -> None:
    """However a setting is written, the message names the line, or that of the table it is in."""
    file = tmp_path / "gip.toml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        Config.load(file)
    assert str(caught.value) == (
        f"policies.overload.cost: expected float >= 0, got -1 (in {file}, line {line})"
    )


# --- Environment --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "config"),
    [
        pytest.param({"DEADLINE": "10"}, Config(deadline=10), id="deadline"),
        pytest.param({"DEADLINE": " 10 "}, Config(deadline=10), id="spaces"),
        pytest.param({"DEADLINE": ""}, Config(), id="empty_is_unset"),
        pytest.param({"MAX_ELAPSED": "none"}, Config(max_elapsed=None), id="none"),
        pytest.param({"MAX_ELAPSED": "None"}, Config(max_elapsed=None), id="none_in_any_case"),
        pytest.param({"ON_OPEN": " raise "}, Config(on_open="raise"), id="choice_with_spaces"),
        pytest.param({"ON_OPEN": "Raise"}, Config(on_open="raise"), id="choice_in_any_case"),
        pytest.param(
            {"BREAKER__OPEN_TIME": "3", "BREAKER__BUCKETS": "5"},
            Config(breaker=BreakerConfig(open_time=3, buckets=5)),
            id="group",
        ),
        pytest.param(
            {"breaker__open_time": "3"}, Config(breaker=BreakerConfig(open_time=3)), id="lower_case"
        ),
        pytest.param(
            {"POLICIES__MODEL_OVERLOADED__MAX_ATTEMPTS": "5", "POLICIES__RATE_LIMIT__JITTER": "none"},
            Config(
                policies={"model_overloaded": Policy(max_attempts=5), "rate_limit": Policy(jitter="none")}
            ),
            id="policies",
        ),
        pytest.param(
            {"POLICIES__CUSTOM__MY_CODE__COST": "2"},
            Config(policies={"custom:my_code": Policy(cost=2)}),
            id="custom",
        ),
        pytest.param(
            {"POLICIES__RESOURCE_EXHAUSTED__COST": "2"},
            Config(policies={"RESOURCE_EXHAUSTED": Policy(cost=2)}),
            id="code_with_capitals",
        ),
    ],
)
def test_environment(variables: dict[str, str], config: Config) -> None:
    """Two underscores enter a table; texts become what the setting needs."""
    others = {"PATH": "/bin", "GIP_OTHER": "x", "DEADLINE": "99"}

    assert Config.from_env(others | {PREFIX + name: value for name, value in variables.items()}) == config


def test_environment_with_another_prefix() -> None:
    """The prefix is the caller's choice."""
    assert Config.from_env({"APP_DEADLINE": "3", "GIP_RESILIENCE_DEADLINE": "9"}, prefix="APP_") == Config(
        deadline=3
    )


def test_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the variables are those of the process."""
    monkeypatch.setenv("GIP_RESILIENCE_DEADLINE", "7")

    assert Config.from_env() == Config(deadline=7)


def test_environment_over_a_file(tmp_path: Path) -> None:
    """The file is the base, and a variable changes one field of it."""
    file = tmp_path / "gip.toml"
    file.write_text(write(FULL), encoding="utf-8")
    config = Config.from_env(
        {
            "GIP_RESILIENCE_CONFIG": str(file),
            "GIP_RESILIENCE_BREAKER__RATIO": "0.9",
            "GIP_RESILIENCE_POLICIES__MODEL_OVERLOADED__MAX_ATTEMPTS": "2",
            "GIP_RESILIENCE_POLICIES__SERVER__COST": "3",
        }
    )

    assert config == full().replace(
        breaker=BreakerConfig(ratio=0.9, min_calls=4, slow_call=30, growth=2, mode="metrics_only"),
        policies={
            **full().policies,
            "model_overloaded": Policy(max_attempts=2, max_delay=20),
            "server": Policy(cost=3),
        },
    )


def test_a_wrong_file_named_by_the_environment(tmp_path: Path) -> None:
    """The message names the file, where the mistake is."""
    file = tmp_path / "gip.toml"
    file.write_text("deadline = -1\n", encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        Config.from_env({"GIP_RESILIENCE_CONFIG": str(file)})
    assert str(caught.value) == f"deadline: expected float > 0 or none, got -1 (in {file}, line 1)"


@pytest.mark.parametrize(
    ("variables", "path", "says", "source"),
    [
        pytest.param(
            {"DEADLINE__X": "1"},
            "deadline.x",
            'expected a known setting, got "x"',
            "DEADLINE__X",
            id="too_deep",
        ),
        pytest.param(
            {"BREAKER__": "1"}, 'breaker.""', 'expected a known setting, got ""', "BREAKER__", id="no_name"
        ),
        pytest.param(
            {"BREAKER": "1", "BREAKER__RATIO": "1"},
            "breaker",
            'expected a table, got "1"',
            "BREAKER",
            id="both",
        ),
        pytest.param(
            {"POLICIES__OVERLOAD": "1", "POLICIES__OVERLOAD__COST": "1"},
            "policies.overload",
            f'expected {TABLE_OF}, got "1"',
            "POLICIES__OVERLOAD",
            id="policy_both",
        ),
        pytest.param(
            {"POLICIES__CUSTOM__COST": "1"},
            "policies.custom:cost",
            f'expected {TABLE_OF}, got "1"',
            "POLICIES__CUSTOM__COST",
            id="custom_without_a_field",
        ),
        pytest.param(
            {"GATE__MAX_DELAY": "1"},
            "gate.max_delay",
            "expected float >= base_delay (2), got 1.0",
            "GATE__MAX_DELAY",
            id="order",
        ),
        pytest.param(
            {"API_KEY": "hush-hush"},
            "api_key",
            'expected a known setting, got "api_key"',
            "API_KEY",
            id="secret",
        ),
    ],
)
def test_wrong_variables(variables: dict[str, str], path: str, says: str, source: str) -> None:
    """What only the environment can get wrong; the value of a variable that is not ours is not repeated."""
    with pytest.raises(ConfigError) as caught:
        Config.from_env({PREFIX + name: value for name, value in variables.items()})
    check(caught.value, path, says)
    assert caught.value.source == PREFIX + source
    assert "hush" not in str(caught.value)


# --- Round trips --------------------------------------------------------------------------------------------

seconds = st.floats(min_value=0, max_value=1e6)
positive = st.floats(min_value=1e-3, max_value=1e6)
counts = st.integers(min_value=1, max_value=1000)


def _policy(values: dict[str, Any]) -> dict[str, Any]:
    if values.keys() >= {"base_delay", "max_delay"}:
        values["base_delay"], values["max_delay"] = sorted((values["base_delay"], values["max_delay"]))
    return values


plain_policies = st.fixed_dictionaries(
    {},
    optional={
        "max_attempts": counts,
        "base_delay": seconds,
        "max_delay": seconds,
        "jitter": st.sampled_from(["full", "random", "none"]),
        "wait": st.sampled_from(["expo", "fibo", "constant"]),
        "max_hint": seconds,
        "on_ambiguous": st.sampled_from(["retry", "fail"]),
        "breaker": st.sampled_from(["auto", "ignore", "failure", "trip"]),
        "cost": seconds,
    },
).map(_policy)
keys = st.sampled_from(
    [
        "model_overloaded",
        "rate_limit",
        "other",
        "http_502",
        "RESOURCE_EXHAUSTED",
        "custom:my_code",
        "custom:a b",
    ]
)
plain_configs = st.fixed_dictionaries(
    {},
    optional={
        "policies": st.dictionaries(keys, plain_policies, max_size=4),
        "breaker": st.fixed_dictionaries(
            {},
            optional={
                "window": positive,
                "buckets": counts,
                "ratio": st.floats(0.01, 1),
                "open_time": positive,
            },
        ),
        "gate": st.fixed_dictionaries({}, optional={"spread": seconds, "base_delay": st.floats(0, 30)}),
        "budget": st.fixed_dictionaries({}, optional={"capacity": st.floats(2, 99), "mode": st.just("off")}),
        "body": st.fixed_dictionaries({}, optional={"replay_limit": st.integers(0, 10**9)}),
        "deadline": st.none() | positive,
        "max_elapsed": st.none() | positive,
        "on_open": st.sampled_from(["auto", "respond", "raise", "wait"]),
        "dialect": st.sampled_from(["auto", "gip", "azure_openai"]),
        "idempotency_header": st.none() | st.sampled_from(["Idempotency-Key", "x-request-key"]),
    },
)


@SETTINGS
@given(plain_configs)
def test_a_config_survives_its_dict(values: dict[str, Any]) -> None:
    """`to_dict` and `from_dict` are inverse, and what is written holds nothing that equals the default."""
    config = Config.from_dict(values)
    written = config.to_dict()

    assert Config.from_dict(written) == config
    assert Config.from_dict(written).to_dict() == written
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples of a property."""
    return tmp_path_factory.mktemp("config") / "gip.toml"


@SETTINGS
@given(plain_configs)
def test_toml_is_the_same_as_a_dict(file: Path, values: dict[str, Any]) -> None:
    """The text and the dict it was written from give equal configurations."""
    file.write_text(write(values), encoding="utf-8")

    assert Config.load(file) == Config.from_dict(values)


@SETTINGS
@given(plain_configs)
def test_the_environment_is_the_same_as_a_dict(values: dict[str, Any]) -> None:
    """The variables and the dict they were written from give equal configurations, empty tables aside."""
    policies = {key: value for key, value in values.get("policies", {}).items() if value}
    values = {**values, "policies": policies}

    assert Config.from_env(environ(values)) == Config.from_dict(values)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from([*Config.__struct_fields__, *Policy.__struct_fields__, "overload"]), inner
        )
    ),
    max_leaves=6,
)


def attempt(values: dict[str, Any]) -> Config | ConfigError:
    """The configuration, or what is wrong with it."""
    try:
        return Config.from_dict(values)
    except ConfigError as error:
        return error


@SETTINGS
@given(st.dictionaries(st.sampled_from(Config.__struct_fields__), junk, max_size=3))
def test_junk_is_refused_with_a_path_or_accepted(values: dict[str, Any]) -> None:
    """No input makes anything but a `Config` or a `ConfigError` that names a place in it."""
    answer = attempt(values)

    if isinstance(answer, ConfigError):
        assert answer.path.partition(".")[0] in values
        assert str(answer).startswith(f"{answer.path}: expected {answer.expected}, got ")


# --- Which policy applies -----------------------------------------------------------------------------------


def test_defaults_apply_by_class() -> None:
    """Without policies of one's own the class decides, whatever the code."""
    config = Config()

    for name, policy in DEFAULTS.items():
        assert config.policy("any_code", name) == policy
    assert config.policy("any_code", "no_such_class") == DEFAULTS["other"]


def resolved(name: str, **changes: Any) -> ResolvedPolicy:
    """A default with changes."""
    return msgspec.structs.replace(DEFAULTS[name], **changes)


@pytest.mark.parametrize(
    ("policies", "code", "policy_class", "expected"),
    [
        pytest.param(
            {"overload": Policy(max_attempts=2)},
            "model_overloaded",
            "overload",
            resolved("overload", max_attempts=2),
            id="class",
        ),
        pytest.param(
            {"model_overloaded": Policy(max_attempts=5)},
            "model_overloaded",
            "overload",
            resolved("overload", max_attempts=5),
            id="code",
        ),
        pytest.param(
            {"overload": Policy(max_attempts=2, cost=9), "model_overloaded": Policy(max_attempts=5)},
            "model_overloaded",
            "overload",
            resolved("overload", max_attempts=5, cost=9.0),
            id="code_over_class",
        ),
        pytest.param(
            {"model_overloaded": Policy(max_attempts=5)},
            "slow_down",
            "overload",
            resolved("overload"),
            id="another_code",
        ),
        pytest.param(
            {"other": Policy(max_attempts=5)},
            "x",
            "overload",
            resolved("overload"),
            id="other_is_a_class_too",
        ),
        pytest.param(
            {"other": Policy(max_attempts=5)}, "x", "other", resolved("other", max_attempts=5), id="other"
        ),
        pytest.param(
            {"other": Policy(max_attempts=5)},
            "x",
            "new_class",
            resolved("other", max_attempts=5),
            id="unknown_class",
        ),
        pytest.param(
            {"custom:my_code": Policy(max_attempts=5)},
            "my_code",
            "limited",
            resolved("limited", max_attempts=5),
            id="custom",
        ),
        pytest.param(
            {"model_overloaded": Policy(cost=1), "custom:model_overloaded": Policy(cost=2)},
            "model_overloaded",
            "overload",
            resolved("overload", cost=1.0),
            id="known_before_custom",
        ),
        pytest.param(
            {"overload": Policy(base_delay=45)},
            "x",
            "overload",
            resolved("overload", base_delay=45.0, max_delay=45.0),
            id="cap_follows_base",
        ),
        pytest.param(
            {"overload": Policy(base_delay=45), "model_overloaded": Policy(max_delay=5)},
            "model_overloaded",
            "overload",
            resolved("overload", base_delay=5.0, max_delay=5.0),
            id="base_follows_cap",
        ),
    ],
)
def test_layers(policies: Any, code: str, policy_class: str, expected: ResolvedPolicy) -> None:
    """The default of the class, then the user's policy of the class, then that of the code."""
    config = Config(policies=policies)

    assert config.policy(code, policy_class) == expected
    assert config.policy(code, policy_class) is config.policy(code, policy_class)


def test_made_up_codes_do_not_fill_the_memory() -> None:
    """Codes come from a server; only those with a policy of their own are kept apart."""
    config = Config(policies={"model_overloaded": Policy(cost=3)})
    for number in range(1000):
        config.policy(f"code_{number}", "overload")
        config.policy("model_overloaded", f"class_{number}")

    assert len(config._resolved) == 2


def test_policies_can_be_asked_for_by_many_threads() -> None:
    """However many threads ask first, all get the same."""
    config = Config(policies={"model_overloaded": Policy(cost=3)})
    barrier = threading.Barrier(8)
    answers: list[ResolvedPolicy] = []

    def ask() -> None:
        barrier.wait()
        answers.append(config.policy("model_overloaded", "overload"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [resolved("overload", cost=3.0)] * 8


# --- Overrides ----------------------------------------------------------------------------------------------

BASE = Config(policies={"model_overloaded": Policy(max_attempts=5, cost=2)}, deadline=60)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(Overrides(), BASE, id="nothing"),
        pytest.param(Overrides(deadline=10), BASE.replace(deadline=10), id="deadline"),
        pytest.param(Overrides(deadline=None), BASE.replace(deadline=None), id="no_deadline"),
        pytest.param(Overrides(max_elapsed=None), BASE.replace(max_elapsed=None), id="no_max_elapsed"),
        pytest.param(Overrides(on_open="raise"), BASE.replace(on_open="raise"), id="on_open"),
        pytest.param(Overrides(model="m"), BASE, id="model_is_not_configuration"),
        pytest.param(
            Overrides(idempotency_header="x-key"), BASE.replace(idempotency_header="x-key"), id="idempotency"
        ),
        pytest.param(
            Overrides.build(model_overloaded=Policy(max_attempts=1)),
            BASE.replace(policies={"model_overloaded": Policy(max_attempts=1, cost=2)}),
            id="policy",
        ),
        pytest.param(
            Overrides.build(overload={"cost": 1}, deadline=1),
            BASE.replace(policies={**BASE.policies, "overload": Policy(cost=1)}, deadline=1),
            id="another_policy",
        ),
    ],
)
def test_apply(overrides: Overrides, expected: Config) -> None:
    """What is set is laid over the configuration; the rest stays."""
    assert overrides.apply(BASE) == expected


def test_apply_is_cheap_to_repeat() -> None:
    """The same configuration gives the same object, another one gives another; nothing set gives it back."""
    overrides = Overrides(deadline=10)

    first = overrides.apply(BASE)
    assert overrides.apply(BASE) is first
    assert overrides.apply(Config()) == Config(deadline=10)
    assert overrides.apply(BASE) == first
    assert Overrides(model="m").apply(BASE) is BASE
    assert pickle.loads(pickle.dumps(overrides)) == overrides == Overrides(deadline=10)


def test_a_code_outranks_its_class_in_overrides_too() -> None:
    """Which layer set a policy does not matter, only how specific its key is."""
    config = Overrides.build(overload=Policy(max_attempts=1, cost=7)).apply(BASE)

    assert config.policy("model_overloaded", "overload") == resolved("overload", max_attempts=5, cost=2.0)
    assert config.policy("slow_down", "overload") == resolved("overload", max_attempts=1, cost=7.0)


def test_build_sorts_fields_from_policies() -> None:
    """A keyword is a field, or a code or class."""
    built = Overrides.build(
        deadline=10,
        model="m",
        policies={"server": Policy(cost=1), "overload": Policy(cost=2)},
        overload=Policy(max_attempts=3),
        **{"custom:mine": {"max_attempts": 4}},
    )

    assert built == Overrides(
        deadline=10,
        model="m",
        policies={
            "server": Policy(cost=1),
            "overload": Policy(cost=2, max_attempts=3),
            "custom:mine": Policy(max_attempts=4),
        },
    )


@pytest.mark.parametrize(
    ("outer", "inner", "merged"),
    [
        pytest.param(Overrides(), Overrides(), Overrides(), id="nothing"),
        pytest.param(Overrides(deadline=1), Overrides(), Overrides(deadline=1), id="inherits"),
        pytest.param(Overrides(deadline=1), Overrides(deadline=2), Overrides(deadline=2), id="inner_wins"),
        pytest.param(
            Overrides(deadline=1), Overrides(deadline=None), Overrides(deadline=None), id="none_is_set"
        ),
        pytest.param(
            Overrides.build(overload=Policy(cost=1, max_attempts=2), server=Policy(cost=3)),
            Overrides.build(overload=Policy(cost=4), model="m"),
            Overrides.build(overload=Policy(cost=4, max_attempts=2), server=Policy(cost=3), model="m"),
            id="policies_by_field",
        ),
    ],
)
def test_overrides_merged(outer: Overrides, inner: Overrides, merged: Overrides) -> None:
    """Nested overrides add up, and the inner word stands."""
    assert outer.merged(inner) == merged


def test_overrides_are_frozen_values() -> None:
    """They hash, print what is set, and cannot be changed."""
    overrides = Overrides(deadline=3)

    assert repr(overrides) == "Overrides(deadline=3.0)"
    assert hash(overrides) == hash(Overrides(deadline=3.0))
    with pytest.raises(AttributeError):
        overrides.deadline = 4.0  # type: ignore[misc]


# --- Weight -------------------------------------------------------------------------------------------------


def test_import_is_light() -> None:
    """The module itself brings in nothing that waits, parses TOML or compares texts until it is needed."""
    import subprocess
    import sys

    code = (
        "import sys, gip_resilience.config as c, gip_resilience.policy as p;"
        "c.Config(policies={'overload': p.Policy(max_attempts=2)}).policy('x', 'overload');"
        "print(*sorted({'asyncio', 'backoff', 'difflib', 'tomllib', 'urllib3'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
