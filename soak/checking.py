"""What must hold of the samples and counts of a run. Pure: each check says what is wrong, in words; or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sampling import TRANSIENT
from .settings import TURNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .ledger import Account
    from .sampling import Sample
    from .settings import Settings

MIB = 1 << 20

LEAST = 3
"""Samples below which nothing can be said of a trend."""

STEADY = {
    "descriptors": "open files besides pooled connections",
    "threads": "threads",
    "tasks": "tasks in event loops",
    "stored": "connections to the shared store",
}
"""What must be the same number at each quiet point."""

NOTHING = {
    "used": "connections are in use while nobody calls",
    "out": "permits have not come back",
    "waiting": "callers stand in line at a gate while nobody calls",
    "probing": "circuits wait for a probe that nobody sends",
    "dropped": "dropped streams have not been ended",
}
"""What must be zero at each quiet point."""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth per second, by linear regression (least squares)."""
    count = len(points)
    middle = sum(x for x, _ in points) / count
    mean = sum(y for _, y in points) / count
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - mean) for x, y in points) / spread if spread else 0.0


def growth(samples: Sequence[Sample], values: Sequence[float]) -> float:
    """By how much *values* grew from the first sample to the last, by their regression."""
    points = [(sample.at, value) for sample, value in zip(samples, values, strict=True)]
    return slope(points) * (samples[-1].at - samples[0].at)


def at_rest(sample: Sample) -> list[str]:
    """One quiet point: nothing is under way, and what is open is accounted for."""
    found = [f"{getattr(sample, name)} {what}" for name, what in NOTHING.items() if getattr(sample, name)]
    if sample.sockets != sample.pooled:
        found.append(f"{sample.sockets} connections are open, and the clients know of {sample.pooled}")
    if sample.accepted > sample.sockets:
        found.append(f"the gateway has {sample.accepted} connections open, and the clients {sample.sockets}")
    found += [f"the gateway logged: {line}" for line in sample.peer.get("logged", ())]
    for kind in TRANSIENT:
        if sample.objects.get(kind):
            found.append(f"{sample.objects[kind]} {kind} are alive while nobody calls")
    return found


def steady(samples: Sequence[Sample]) -> list[str]:
    """What must not change has not."""
    found = []
    for name, what in STEADY.items():
        values = [getattr(sample, name) for sample in samples]
        if len(set(values)) > 1:
            found.append(
                f"{what}: {values[0]} at first, then {min(values)} to {max(values)}, {values[-1]} at last"
            )
    peers = [
        (one.peer["threads"], one.peer["descriptors"] - one.peer["connections"])
        for one in samples
        if one.peer
    ]
    if len(set(peers)) > 1:
        found.append(f"the gateway's threads and open files: {peers[0]} at first, {peers[-1]} at last")
    return found


def flat(samples: Sequence[Sample], settings: Settings) -> list[str]:
    """What may breathe has no trend."""
    if len(samples) < LEAST:
        return [f"{len(samples)} samples are too few to see a trend in"]
    found = []
    grown = growth(samples, [sample.memory / MIB for sample in samples])
    if grown > settings.memory:
        found.append(
            f"resident memory grew by {grown:.1f} MiB (tolerated: {settings.memory:g}){_grew(samples)}"
        )
    grown = growth(samples, [sample.blocks for sample in samples])
    if grown > settings.blocks:
        found.append(f"memory blocks grew by {grown:.0f} (tolerated: {settings.blocks}){_grew(samples)}")
    for kind in sorted({kind for sample in samples for kind in sample.objects}):
        grown = growth(samples, [sample.objects.get(kind, 0) for sample in samples])
        if grown > settings.objects:
            found.append(f"instances of {kind} grew by {grown:.0f} (tolerated: {settings.objects})")
    grown = growth(samples, [sample.peer["memory"] / MIB for sample in samples]) if samples[0].peer else 0.0
    if grown > settings.memory:
        found.append(f"the gateway's memory grew by {grown:.1f} MiB (tolerated: {settings.memory:g})")
    return found


def _grew(samples: Sequence[Sample]) -> str:
    """Which types of objects there are more of."""
    first, last = ({**sample.others, **sample.objects} for sample in (samples[0], samples[-1]))
    more = {kind: count - first.get(kind, 0) for kind, count in last.items()}
    most = sorted((kind for kind in more if more[kind] > 0), key=lambda kind: -more[kind])[:5]
    return "; there are more of " + ", ".join(f"{kind} (+{more[kind]})" for kind in most) if most else ""


def on_time(account: Account, settings: Settings, lag: float) -> list[str]:
    """No call took longer than it may.

    Args:
        account: of the calls since the last quiet point.
        settings: what is tolerated.
        lag: how late the machine itself was.
    """
    found = []
    if account.latest > settings.deadline_margin + TURNS * lag:
        found.append(
            f"a call ended {account.latest:.2f} s after its deadline "
            f"(tolerated: {settings.deadline_margin:g} s, and {TURNS} times the {lag:.2f} s of the machine)"
        )
    if account.longest > settings.patience + lag:
        found.append(f"a call took {account.longest:.1f} s")
    return found


def given_back(name: str, permits: Mapping[str, int]) -> list[str]:
    """Each permit was reported or abandoned, once."""
    found = []
    if permits["granted"] != permits["reported"] + permits["abandoned"]:
        found.append(
            f"{name}: {permits['granted']} permits were given out, {permits['reported']} came back with a verdict "
            f"and {permits['abandoned']} without"
        )
    if permits["strays"]:
        found.append(f"{name}: {permits['strays']} permits came back twice")
    return found


def left_over(before: Sample, after: Sample) -> list[str]:
    """When everything is closed there is no more than there was at first."""
    return [
        f"{what} after the end: {getattr(after, name)}, before the beginning: {getattr(before, name)}"
        for name, what in STEADY.items()
        if getattr(after, name) > getattr(before, name)
    ]
