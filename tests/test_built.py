"""What is handed out: the wheel and the source distribution, what is in them, and that they can be made again."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))
if not (PROJECT / "src").is_dir():
    pytest.skip("the suite runs on what was built already", allow_module_level=True)

from release.building import Built, build, build_both, digest, in_sdist, in_wheel  # noqa: E402 - after the path
from release.installing import NEEDED, PROMISES, extras, program  # noqa: E402 - likewise

INFO = "gip_resilience-{}.dist-info"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, and the wheel that was made of it."""
    return build_both(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def version(built: Built) -> str:
    """As the wheel's name has it."""
    return built.wheel.name.split("-")[1]


def test_the_checkout_builds_the_same_wheel_as_the_sdist(built: Built, tmp_path: Path) -> None:
    """Byte for byte: whoever builds from either gets what was tested."""
    build(tmp_path, PROJECT, "--wheel")

    assert digest(tmp_path / built.wheel.name) == digest(built.wheel)


def test_a_build_can_be_repeated(built: Built, tmp_path: Path) -> None:
    """The sdist built again from the unpacked sdist, later and elsewhere, has the same bytes."""
    with tarfile.open(built.sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 brought it
        archive.extractall(tmp_path)
    unpacked = next(tmp_path.iterdir())
    for path in unpacked.rglob("*.py"):
        os.utime(path, (1, 1))

    build(tmp_path / "again", unpacked, "--sdist")

    assert digest(tmp_path / "again" / built.sdist.name) == digest(built.sdist)


def test_the_wheel_has_the_package_and_nothing_else(built: Built, version: str) -> None:
    """Every file of the package, the licence, and what a wheel says about itself."""
    package = PROJECT / "src"
    ours = {
        path.relative_to(package).as_posix()
        for path in (package / "gip_resilience").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    info = INFO.format(version)
    said = {
        f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }

    assert in_wheel(built.wheel) == ours | said
    assert "gip_resilience/py.typed" in ours
    assert built.wheel.name.endswith("-py3-none-any.whl")


def test_the_sdist_has_what_the_tests_need(built: Built) -> None:
    """Whoever packages it for a distribution can run the suite; no leavings of a run are in it."""
    names = in_sdist(built.sdist)

    for need in NEEDED:
        assert any(name == need or name.startswith(f"{need}/") for name in names), need
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "dist"))]


def test_the_wheel_runs_where_it_is_unpacked(built: Built, tmp_path: Path) -> None:
    """Imported from the wheel's own files, it finds its data: scripts for the store, tables, the version."""
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import gip_resilience as gr\n"
        "from gip_resilience._redis_asking import load_scripts\n"
        "from importlib.metadata import version\n"
        "assert len(load_scripts()) >= 8\n"
        "assert gr.__version__ == version('gip-resilience')\n"
        "print(gr.__file__)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == str(tmp_path / "gip_resilience" / "__init__.py")


def test_the_metadata_says_what_it_is(built: Built, version: str) -> None:
    """Licence by its SPDX name and file, the Pythons it runs on, typed; the README is the long text."""
    with zipfile.ZipFile(built.wheel) as archive:
        said = message_from_string(archive.read(f"{INFO.format(version)}/METADATA").decode())
    classifiers = said.get_all("Classifier", [])

    assert said["License-Expression"] == "Apache-2.0"
    assert said.get_all("License-File") == ["LICENSE"]
    assert said["Requires-Python"] == ">=3.11"
    assert said["Description-Content-Type"] == "text/markdown"
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)
    assert "Typing :: Typed" in classifiers
    assert classifiers == sorted(classifiers)
    assert not any(name.startswith("License ::") for name in classifiers)  # not beside an expression


def test_every_extra_promises_something() -> None:
    """`make extras` has a program for each that users may ask for; ``all`` is the sum of them."""
    assert {*PROMISES, "all"} == set(extras())
    for extra in extras():
        compile(program(extra), extra, "exec")
