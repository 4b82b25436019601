"""For each kind of thing that can happen: exactly the events, counters, spans and log lines that tell of it.

The table is `happenings.SCENES`; it is played under every client, and the telling is the same under each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gip_resilience import events
from happenings import SCENES, Scene, Witness, counted

if TYPE_CHECKING:
    from gip_resilience.gateway import Gateway
    from gip_resilience.testing import FakeClock
    from harness import Harness


@pytest.mark.parametrize("scene", SCENES, ids=repr)
def test_what_is_told_and_counted(scene: Scene, harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """Every event in order, every counter, and nothing else."""
    witness = Witness()

    brain = scene.play(harness, gateway, clock, witness)

    assert witness.words == scene.told
    assert counted(brain) == scene.counts
    calls = [event for event in witness.events if isinstance(event, events.CallStarted)]
    assert len({event.call for event in calls}) == len(calls)


def test_counts_do_not_need_an_observer(gateway: Gateway, clock: FakeClock, harness: Harness) -> None:
    """They are the same when nobody listens."""
    for scene in SCENES:
        assert counted(scene.play(harness, gateway, clock)) == scene.counts, scene


def test_the_scenes_show_everything_there_is() -> None:
    """Of the events, none is missing from the table but those that no store of this package causes by itself."""
    told = " / ".join(line for scene in SCENES for line in scene.told)
    words = {
        "call ", "attempt ", "answer ", "retry ", "waited ", "refused: ", "no budget ", "deadline ", "refused ",
        "gave up", "success ", "gate closed", "gate opened", "gate waited", "closed -> open", "forced_open",
        "probe ", "shadow ", "degraded ", "stream /", "broken ", "continued ", "diverged", "marker", "reloaded",
        "rejected",
    }  # fmt: skip

    assert {word for word in words if word not in told} == set()
    assert len(words) == len(events.METHODS) - 1  # state is restored by stores that can be away
