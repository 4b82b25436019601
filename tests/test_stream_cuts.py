"""Every byte: streams cut at each offset, in each way, under each client, are one whole stream or a typed failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from cutting import (
    ANTHROPIC,
    BACKGROUND,
    CHAT,
    RESPONSES,
    TOOL,
    TWO,
    Fixture,
    Taken,
    Told,
    assert_one_stream,
    read,
    take,
)
from gip_resilience.gateway import FaultPlan, Gateway
from gip_resilience.gateway.replies import BreakStream
from gip_resilience.gateway.streaming import StreamOptions
from gip_resilience.testing import FakeClock
from harness import HARNESSES, Harness, Session
from matrix import read_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = gr.Config(breaker={"mode": "off"}, budget={"mode": "off"})  # type: ignore[arg-type]
"""They would end the experiment, not the stream."""

WAYS: dict[str, dict[str, Any]] = {
    "eof": {"how": "eof"},
    "close": {"how": "eof", "framing": "close"},
    "fin": {"how": "fin"},
    "rst": {"how": "rst"},
    "error": {"how": "error"},
    "stall": {"how": "stall"},
    "gzip": {"how": "eof", "gzip": True},
}
FIXTURES = [CHAT, TWO, TOOL, ANTHROPIC, RESPONSES, BACKGROUND]
SILENCE = 0.15
"""Seconds until a stall is noticed."""

STEP = 211
"""Every how many bytes a stream is cut, beside the places around its events."""

FEW = 331
"""The same for stalls, which take their time, and without these places."""


@pytest.fixture(scope="module")
def rechunking() -> Iterator[Gateway]:
    """A gateway whose answers are cut into other pieces, and have other ids, in every request."""
    with Gateway(streams=StreamOptions(rechunk=True)) as started:
        yield started


@pytest.fixture(scope="module", params=HARNESSES, ids=repr)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Each client in turn, mounted."""
    harness: Harness = request.param
    with harness.open(gr.Resilience(CONFIG, clock=FakeClock()), verify=False) as opened:
        yield opened


def whole_stream(session: Session, gateway: Gateway, fixture: Fixture) -> tuple[bytes, Told]:
    """The stream when nothing breaks it."""
    gateway.plan = FaultPlan()
    taken = take(session, gateway.url + fixture.path, fixture.body)
    assert taken.error is None
    told = read(taken.data)
    assert told.last == fixture.final
    return taken.data, told


def offsets(data: bytes, step: int) -> list[int]:
    """Where a stream is cut: every *step* bytes, and around the end of each event unless these are to be few."""
    ends = [end for end in range(len(data) + 1) if data[:end].endswith(b"\n\n")]
    chosen = {0, len(data), *range(0, len(data), step)}
    if step == FEW:
        return sorted(chosen)
    chosen |= {end + by for end in ends for by in (-1, 0, 1) if 0 <= end + by <= len(data)}
    return sorted(chosen)


def check(taken: Taken, whole: Told, fixture: Fixture, cut: str, *, mended: bool) -> None:
    """One cell: the whole text, or a typed failure that says why; and never anything twice."""
    got = read(taken.data)
    assert_one_stream(got, whole)
    report = gr.report(taken.response)
    assert report is not None
    if taken.error is None and not got.counts["error"]:
        assert got.text == whole.text, cut
        assert got.last == fixture.final
        assert got.counts["marker"] == 1
        assert report.outcome == "success"
        return
    assert not mended, (cut, taken.error)
    assert report.outcome == "failure"
    if taken.error is None:
        assert got.last != fixture.final
        return
    assert isinstance(taken.error, gr.StreamInterruptedError), repr(taken.error)
    assert taken.error.delivered == got.text.get("content 0", "")
    assert taken.error.report == report
    assert taken.error.code.startswith("stream_")


def cut_everywhere(session: Session, gateway: Gateway, fixture: Fixture, way: str, step: int) -> None:
    """Cut *fixture* in one way, at one place after the other."""
    data, whole = whole_stream(session, gateway, fixture)
    options = read_timeout(session.harness, SILENCE) if way == "stall" else {}
    for offset in offsets(data, step):
        cut = f"{fixture.name}, {way}, byte {offset} of {len(data)}"
        gateway.plan = FaultPlan.script([BreakStream(byte=offset, **WAYS[way])])
        gateway.clear()
        taken = take(session, gateway.url + fixture.path, fixture.body, **options)
        # An error that is written into the middle of an event is part of it, and may mean anything.
        smeared = way == "error" and not (not offset or data[:offset].endswith(b"\n\n"))
        check(taken, whole, fixture, cut, mended=fixture.mended and not smeared)
        report = gr.report(taken.response)
        assert report is not None
        again = [hop for hop in report.hops if hop.action in {"restart", "replay", "resume"}]
        assert len(gateway.requests) == 1 + len(again), (cut, report)


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
@pytest.mark.parametrize("way", WAYS)
def test_a_cut_stream_is_one_stream_or_a_typed_failure(
    session: Session, running: Gateway, fixture: Fixture, way: str
) -> None:
    """Cut around every event, and at places in between."""
    cut_everywhere(session, running, fixture, way, FEW if way == "stall" else STEP)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_cut_at_every_byte(session: Session, running: Gateway, fixture: Fixture, way: str) -> None:
    """The same at every byte; a stall at every seventh."""
    cut_everywhere(session, running, fixture, way, 7 if way == "stall" else 1)


@pytest.mark.parametrize("fixture", [CHAT, TOOL, ANTHROPIC], ids=lambda fixture: fixture.name)
@pytest.mark.parametrize("way", ["eof", "rst", "error"])
def test_a_replay_may_come_in_other_pieces(
    session: Session, rechunking: Gateway, fixture: Fixture, way: str
) -> None:
    """The second answer is chunked differently, and has other ids; the caller cannot tell."""
    cut_everywhere(session, rechunking, fixture, way, FEW)


def test_nothing_is_left_behind(harness: Harness, running: Gateway) -> None:
    """After a stream that broke twice and was mended, its last connection is ready for the next call."""
    running.plan = FaultPlan.script([BreakStream(events=3, how="rst"), BreakStream(events=5, how="fin")])
    with harness.open(gr.Resilience(CONFIG, clock=FakeClock()), verify=False) as session:
        taken = take(session, running.url + CHAT.path, CHAT.body)
        before = running.connections
        again = take(session, running.url + CHAT.path, CHAT.body)

    assert taken.error is again.error is None
    assert running.connections == before
