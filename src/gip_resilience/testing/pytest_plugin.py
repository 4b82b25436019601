"""Fixtures for pytest, loaded only where they are asked for.

In a ``conftest.py``, or with ``-p`` on the command line::

    pytest_plugins = ["gip_resilience.testing.pytest_plugin"]

* ``gip_clock``: a `FakeClock`.
* ``gip_gateway``: a running `Gateway`. A test that asks for ``gip_clock`` as well gets one that counts time by it.
* ``gip_upstream``: a `ScriptedUpstream`, on ``gip_clock``.
* ``@pytest.mark.gip_plan(...)``: what the last two play: a `FaultPlan`, replies one after the other, or the path of
  a plan in TOML, from the directory of the test.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import pytest

from gip_resilience.gateway import FaultPlan, Gateway
from gip_resilience.testing.clocks import FakeClock
from gip_resilience.testing.upstream import ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["gip_clock", "gip_gateway", "gip_upstream", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "gip_plan(*replies): what gip_gateway and gip_upstream play: a FaultPlan, replies in order, or a file",
    )


@pytest.fixture
def gip_clock() -> FakeClock:
    """A clock on which sleeping is free; hand it to ``Resilience(clock=...)``."""
    return FakeClock()


@pytest.fixture
def gip_gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway on loopback, running until the test ends."""
    plan = _plan(request)
    if "gip_clock" in request.fixturenames:
        clock: FakeClock = request.getfixturevalue("gip_clock")
        gateway = Gateway(plan, clock=clock.monotonic)
    else:
        gateway = Gateway(plan)
    with gateway:
        yield gateway


@pytest.fixture
def gip_upstream(request: pytest.FixtureRequest, gip_clock: FakeClock) -> ScriptedUpstream:
    """An upstream without a socket, on the test's clock."""
    return ScriptedUpstream(_plan(request), clock=gip_clock)


def _plan(request: pytest.FixtureRequest) -> FaultPlan:
    mark = request.node.get_closest_marker("gip_plan")
    if mark is None:
        return FaultPlan()
    if len(mark.args) != 1:
        return FaultPlan.script(mark.args)
    (only,) = mark.args
    if isinstance(only, FaultPlan):
        return only
    if isinstance(only, (str, PathLike)):
        return FaultPlan.from_toml(request.path.parent / only)
    return FaultPlan.script([only])
