"""How many log lines of one kind are let through."""

from __future__ import annotations

import threading

import pytest

from gip_resilience._log_limits import MAX_KINDS, NONE, LeftOut, LineLimits


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0], [NONE]),
        ([0.0, 0.0, 0.0], [NONE, NONE, None]),
        ([0.0, 0.0, 0.0, 0.1, 0.5], [NONE, NONE, None, None, LeftOut(2, 0.5)]),
        ([0.0, 0.0, 0.5, 0.5, 1.0], [NONE, NONE, NONE, None, LeftOut(1, 0.5)]),
        (
            [0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.5],
            [NONE, NONE, None, LeftOut(1, 9.0), NONE, None, LeftOut(1, 0.5)],
        ),
        ([5.0, 5.0, 5.0, 1.0, 5.5], [NONE, NONE, None, None, LeftOut(2, 0.5)]),
    ],
    ids=[
        "the first",
        "a burst",
        "a token comes back",
        "slow enough",
        "no more than a burst",
        "time goes back",
    ],
)
def test_lines_of_one_kind(times: list[float], expected: list[LeftOut | None]) -> None:
    """Two at once, two a second; the next line tells of what was left out, once."""
    limits = LineLimits(2, 2.0)

    assert [limits.take("kind", now) for now in times] == expected


def test_kinds_are_apart() -> None:
    """A storm of one kind takes no line of another."""
    limits = LineLimits(1, 1.0)

    assert [limits.take(kind, 0.0) for kind in ("a", "a", "b")] == [NONE, None, NONE]
    assert limits.waiting() == {"a": 1}


def test_kinds_are_bounded() -> None:
    """Kinds beyond the bound share a bucket: memory stays, and so does the limit."""
    limits = LineLimits(1, 1.0)

    passed = [limits.take(f"kind {number}", 0.0) for number in range(MAX_KINDS + 10)]

    assert passed.count(NONE) == MAX_KINDS + 1
    assert limits.waiting() == {"rest": 9}


@pytest.mark.parametrize(
    ("burst", "passed"),
    [(1, 1), (10, 2)],
    ids=["a smaller burst counts at once", "a larger one is filled by time"],
)
def test_limits_change(burst: int, passed: int) -> None:
    """What was left out stays counted."""
    limits = LineLimits(3, 1.0)
    for _ in range(5):
        limits.take("kind", 0.0)

    limits.limit(burst, 2.0)

    taken = [limits.take("kind", 1.0) for _ in range(4)]
    assert taken[0] == LeftOut(2, 1.0)
    assert sum(line is not None for line in taken) == passed


def test_threads_lose_no_line() -> None:
    """What passed, what was told of and what waits add up."""
    limits = LineLimits(5, 10.0)
    answers: list[LeftOut | None] = []

    def storm() -> None:
        for step in range(1000):
            answers.append(limits.take("kind", step / 1000))  # noqa: PERF401 - one by one, as threads do

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    passed = [line for line in answers if line is not None]
    assert 5 <= len(passed) <= 15
    assert len(passed) + sum(line.lines for line in passed) + sum(limits.waiting().values()) == 4000
