"""What every test may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gip_resilience.gateway import FaultPlan, Gateway
from gip_resilience.testing import FakeClock
from harness import HARNESSES, Harness
from matrix import Pair, pair

if TYPE_CHECKING:
    from collections.abc import Iterator


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
