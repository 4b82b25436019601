"""What fuzzing has found, and what it needs to reach all it has reached: replayed, without a fuzzer."""

from __future__ import annotations

import importlib
import sys
from base64 import b64decode
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import TARGETS
from fuzz import config as fuzzed_config
from fuzz import seeds as fuzzed_seeds

PROJECT = Path(__file__).parents[1]
CORPUS = PROJECT / "fuzz" / "corpus"

FOUND = [
    pytest.param(
        "http1",
        b"\x01\x00\x05PUT / HTTP/1.1\r\nHost: localhost....\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        id="a head that just fits, cut in its last line end",
    ),
    pytest.param(
        "gateway",
        b"\x01\x00\x00\x00\x00\x00\x00\x00" + b'{"model":"\xc2"}',
        id="a text that is no UTF-8",
    ),
    pytest.param("config", b"\x00deadline = " + b"9" * 5000, id="a setting of thousands of digits"),
    pytest.param("config", b"\x00deadline = " + b"[" * 20_000, id="a setting nested too deeply"),
    pytest.param("plan", b"\x02x = " + b"9" * 5000, id="a plan's number of thousands of digits"),
    pytest.param("plan", b"\x02x = " + b"[" * 20_000, id="a plan nested too deeply"),
    pytest.param(
        "splice",
        b"\x00\x04\x00\x00\x00\x00\x00\x00data: x\r\n\r\n",
        id="a line end that is cut in two",
    ),
    pytest.param(
        "splice",
        b"\x05\x02\x01\x01\x00\x01\x02\x00\x00\x00"
        b'data:{"type":"content_block_start","":0,"content_block":{"":""}}\n\r\n\ndata:{"":""}\n\n',
        id="a blank line that is held back and counted",
    ),
    pytest.param(
        "splice",
        b64decode(
            "AgD/AAMAAAAAAAD//wAA/v/+/yKeiZpudI3WkJHeOiIKZGF0YTogW0RPTkVdOiV2ZW504gAA"
            "AAACAAZldmVpIjo1LCJ0ZXhydApkYSFlbnR0YTogeyJqeQQAAAAAAGGMYiI65CJwCg0KCgBl"
            "bgQAAAAAAGEKZGF0YTogW0RPTkVdOiV2ZW504gAAAAACAIwiOuQicAoNCgoQAAB0X2JsbyJj"
        ),
        id="a line end that is cut in two before a further marker",
    ),
]
"""Inputs that broke a promise once."""


@pytest.fixture(scope="module", autouse=True)
def _tidy() -> object:
    """The file that one target writes is removed."""
    yield
    fuzzed_config.forget()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    """No input that is kept breaks a promise."""
    check = importlib.import_module(f"fuzz.{name}").check
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        try:
            check(path.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {path.relative_to(PROJECT)}")
            raise


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found(name: str, data: bytes) -> None:
    """What broke a promise once does not break it again."""
    importlib.import_module(f"fuzz.{name}").check(data)


def test_the_real_cases(tmp_path: Path) -> None:
    """Every case that the corpora begin with keeps the promises; every target has some."""
    fuzzed_seeds.main(str(tmp_path))
    for name in TARGETS:
        check = importlib.import_module(f"fuzz.{name}").check
        inputs = sorted((tmp_path / name).iterdir())
        assert inputs
        for path in inputs:
            check(path.read_bytes())


def test_the_corpora_stay_small() -> None:
    """Every folder belongs to a target, and all of them together are no burden."""
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert len(files) < 300
    assert sum(path.stat().st_size for path in files) < 300_000
