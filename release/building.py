"""Builds the source distribution and the wheel, and compares them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = "gip_resilience"
EPOCH = "1767225600"
"""2026-01-01 00:00:00 UTC, in place of the time of day, where no other was set."""


class Built(NamedTuple):
    """What is handed out."""

    sdist: Path
    wheel: Path


def build(out: Path, source: Path = ROOT, *only: str) -> None:
    """Build into *out*: by default the sdist, and the wheel from that sdist; with ``--wheel`` the wheel alone.

    With the backend that is installed here, so nothing is fetched. The same source and `SOURCE_DATE_EPOCH` give the
    same bytes.

    Raises:
        RuntimeError: it failed; with what was said.
    """
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *only, str(source)]
    done = subprocess.run(
        command,
        env={"SOURCE_DATE_EPOCH": EPOCH, **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout)


def build_both(out: Path) -> Built:
    """Both, once each.

    Raises:
        RuntimeError: it failed; with what was said.
    """
    build(out)
    return Built(next(out.glob("*.tar.gz")), next(out.glob("*.whl")))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return sha256(path.read_bytes()).hexdigest()


def in_wheel(wheel: Path) -> set[str]:
    """The names in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def in_sdist(sdist: Path) -> set[str]:
    """The names in a source distribution, without the folder that everything is in."""
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}
