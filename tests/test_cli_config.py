"""A configuration file, from the first one to a faulty one: ``config init``, ``config schema`` and ``check``."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import gip_resilience as gr
from gip_resilience.cli import config, main
from gip_resilience.policy import DEFAULTS, Policy

WRONG = tomllib.loads((Path(__file__).parent / "data" / "wrong_configs.toml").read_text())["case"]
SCHEMA = config.json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

ONLY_WE_SEE = {"a longest wait below the first one", "a first wait above the default longest"}
"""Faults that no schema can tell: they are between two settings."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is."""
    return tmp_path / "gip-resilience.toml"


# ---- check -------------------------------------------------------------------------------------------------


def test_there_are_forty() -> None:
    """As many faults as were promised, each another."""
    assert len({case["text"] for case in WRONG}) == len({case["name"] for case in WRONG}) == len(WRONG) >= 40


@pytest.mark.parametrize("case", WRONG, ids=[case["name"] for case in WRONG])
def test_check_says_where_and_what(
    case: dict[str, Any], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, line, setting and what was expected, in one line on standard error; exit code 1."""
    file.write_text(case["text"], encoding="utf-8")

    assert main(["check", str(file)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert str(file) in printed.err
    assert re.search(rf"\bline {case['line']}\b", printed.err), printed.err
    assert f"{case['path']}: expected {case['expected']}".removeprefix(": ") in printed.err
    assert ("did you mean" in printed.err) == ("suggestion" in case)


@pytest.mark.parametrize("case", WRONG, ids=[case["name"] for case in WRONG])
def test_check_says_it_to_programs(
    case: dict[str, Any], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same in JSON, on standard output."""
    file.write_text(case["text"], encoding="utf-8")

    assert main(["check", "--json", str(file)]) == 1
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert printed.err == ""
    assert (said["file"], said["ok"]) == (str(file), False)
    error = said["error"]
    assert (error["line"], error["path"]) == (case["line"], case["path"])
    assert error["expected"].startswith(case["expected"])
    assert error["suggestion"] == case.get("suggestion")


def test_check_says_what_differs_to_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound file is one, too."""
    file.write_text("deadline = 10\n")

    assert main(["check", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(file),
        "ok": True,
        "differences": [{"path": "deadline", "value": "10", "default": "none"}],
    }


def test_check_for_programs_without_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be read is no configuration with a fault: one line on standard error."""
    assert main(["check", "--json", str(file)]) == 1
    assert capsys.readouterr() == ("", f"gip-resilience check: {file}: No such file or directory\n")


# ---- init --------------------------------------------------------------------------------------------------


def test_init_says_nothing_yet(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it writes is a sound configuration, the same as the default one."""
    assert main(["config", "init", str(file)]) == 0
    assert capsys.readouterr().out == f"{file} written; everything in it is at its default\n"

    assert gr.Config.load(file) == gr.Config()


def test_init_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Without its "# ", each line is the setting at its default: nothing is left out, and nothing is off."""
    assert main(["config", "init"]) == 0
    text = capsys.readouterr().out
    values = tomllib.loads(re.sub(r"^# ", "", text, flags=re.MULTILINE).replace("## ", "# "))

    assert list(values) == sorted(gr.Config.kinds, key=list(values).index)
    assert values.keys() == gr.Config.kinds.keys()
    shown = values.pop("policies")
    assert gr.Config.from_dict(values) == gr.Config()
    for name, group in values.items():
        if isinstance(group, dict):
            assert list(group) == list(getattr(gr.Config(), name).kinds)
    assert list(shown) == ["model_overloaded"]
    assert list(shown["model_overloaded"]) == list(Policy.kinds)
    assert DEFAULTS["overload"].merged(Policy(**shown["model_overloaded"])) == DEFAULTS["overload"]


def test_init_speaks_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Not of Python, which the file cannot hold; in lines of at most 100 columns, each setting with a comment."""
    assert main(["config", "init"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert [line for line in lines if re.search("callable|urllib3|`None`|mapping", line)] == []
    assert max(map(len, lines)) <= 100
    for before, line in pairwise(lines):
        if re.match(r"# \w+ = ", line):
            assert before.startswith("## ")


def test_init_spares_what_is_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is written over only by ``--force``."""
    file.write_text("deadline = 10\n")

    assert main(["config", "init", str(file)]) == 1
    assert capsys.readouterr().err == f"gip-resilience config: {file} exists; --force writes over it\n"
    assert file.read_text() == "deadline = 10\n"
    assert main(["config", "init", "--force", str(file)]) == 0
    assert gr.Config.load(file) == gr.Config()


def test_init_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there is the user's mistake: one line."""
    assert main(["config", "init", str(tmp_path / "none" / "x.toml")]) == 1
    assert capsys.readouterr().err.endswith("x.toml: No such file or directory\n")


# ---- schema ------------------------------------------------------------------------------------------------


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed, is valid by its own standard, and every setting has a meaning."""
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(SCHEMA))

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    groups = [
        SCHEMA,
        SCHEMA["$defs"]["Policy"],
        *(p for p in SCHEMA["properties"].values() if "properties" in p),
    ]
    for group in groups:
        if group is not SCHEMA["properties"]["policies"]:
            assert all(setting["description"] for setting in group["properties"].values())


@pytest.mark.parametrize("case", WRONG, ids=[case["name"] for case in WRONG])
def test_the_schema_sees_what_check_sees(case: dict[str, Any]) -> None:
    """An editor marks every fault that is within one setting."""
    try:
        values = tomllib.loads(case["text"])
    except tomllib.TOMLDecodeError:
        return  # any editor sees that
    assert VALIDATOR.is_valid(values) == (case["name"] in ONLY_WE_SEE | NUMBERS_OF_TOML_ALONE)


NUMBERS_OF_TOML_ALONE = {"infinite", "not a number"}
"""JSON has none of them, so that its schema says nothing about them."""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "deadline = 10\nmax_elapsed = 'none'\non_open = 'wait'\ndialect = 'openai'",
        "idempotency_header = 'Idempotency-Key'\n[policies.model_overloaded]\nmax_attempts = 6",
        "[policies.overload]\njitter = 'none'\n[policies.'custom:x']\ncost = 0",
        "[breaker]\nslow_call = 'none'\nprobe_lease = 3\nopen_jitter = 0\n[stream]\nresume = '/v1/events'",
        "[stream]\nresume = []\nrestart = false\n[body]\njson_limit = 0",
    ],
)
def test_the_schema_takes_what_check_takes(text: str) -> None:
    """Nothing that is right is marked."""
    gr.Config.from_dict(tomllib.loads(text))

    VALIDATOR.validate(tomllib.loads(text))
