"""What every test may ask for."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import pytest

from gip_resilience.gateway import FaultPlan, Gateway
from gip_resilience.testing import FakeClock
from harness import HARNESSES, Harness
from matrix import Pair, pair

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure() -> None:
    """Let programs that tests start be interrupted, also where a shell started us in the background, deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of the garbage collector's sight; see `_set_aside`."""
    _set_aside()


def pytest_sessionfinish() -> None:
    """The last look is at everything, as if nothing had been set aside."""
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _out_of_sight() -> Iterator[None]:
    """The same for what the runner keeps of a module's tests."""
    yield
    _set_aside()


def _set_aside() -> None:
    """Tell the collector to look no more at what is alive now: it stays for as long as the run.

    There is so much of it that each `gc.collect` of a test would take half a second. What is garbage is collected
    first, with all its warnings, and so is, as ever, what a test makes.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=HARNESSES, ids=repr)
def harness(request: pytest.FixtureRequest) -> Harness:
    """Each of the seven clients in turn."""
    found: Harness = request.param
    return found


@pytest.fixture
def clock() -> FakeClock:
    """A clock on which sleeping is free."""
    return FakeClock()


@pytest.fixture(scope="module", params=HARNESSES, ids=repr)
def clients(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two open clients of each kind in turn, one bare and one to mount on."""
    with pair(request.param) as both:
        yield both


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    """One gateway for the module."""
    with Gateway() as started:
        yield started


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    """A local gateway that answers well until it is given a plan, with nothing recorded."""
    running.plan = FaultPlan()
    running.clear()
    return running
