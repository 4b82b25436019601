"""What every test may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gip_resilience.gateway import Gateway
from gip_resilience.testing import FakeClock
from harness import HARNESSES, Harness

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


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A local gateway that answers well until it is given a plan."""
    with Gateway() as running:
        yield running
