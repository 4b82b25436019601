"""Any stream, cut anywhere in any way, under every client: whole in the end, or an error that says it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

import gip_resilience as gr
from endpoints import ENDPOINTS, PROMPT, TEXT, Endpoint
from gip_resilience.gateway import BreakStream, FaultPlan, StreamOptions
from gip_resilience.gateway.replies import BodyFraming, Break
from gip_resilience.testing import ScriptedUpstream, judge
from streamed import Outcome
from test_testing_upstream import connect

if TYPE_CHECKING:
    from harness import Harness, Session

HOWS = [how for how in get_args(Break) if how != "stall"]
"""Silence takes time; it has tests of its own."""

faults = st.builds(
    BreakStream,
    how=st.sampled_from(HOWS),
    byte=st.integers(0, 4000),
    char=st.booleans(),
    framing=st.sampled_from(get_args(BodyFraming)),
    gzip=st.booleans(),
    chunk=st.sampled_from([0, 1, 7, 100]),
)


def run(session: Session, endpoint: Endpoint, breaks: list[BreakStream], exact: bool, ids: bool) -> None:
    """One call, and what must hold of it."""
    upstream = ScriptedUpstream(FaultPlan.script(breaks), streams=StreamOptions(event_ids=ids))
    connect(session, upstream)
    gr.mount(session.client, gr.Resilience(clock=upstream.clock, chance=lambda: 0.5))
    body: dict[str, Any] = {**endpoint.ask(PROMPT), "stream": True}
    if exact:
        body |= endpoint.cold()[0]
    answered, content = 0, b""
    try:
        answer, pieces = session.stream("POST", upstream.url + endpoint.path, json=body)
        # An error that came as an event is handed up as one, for the SDK above to raise.
        answered, content = int(answer.report.outcome == "success"), b"".join(pieces)
    except gr.StreamInterruptedError:
        pass
    finally:
        gr.unmount(session.client)
    if answered:
        text = Outcome(content).events.text(endpoint)
        assert text == TEXT if exact else text.startswith(f"You said: {PROMPT}")
    found = {finding.fault for finding in judge(upstream, answered=answered)}
    assert found <= {"leaked"}


def test_any_cut_of_any_stream(harness: Harness) -> None:
    """The caller gets the whole text exactly once, or an error; and the gateway saw no cut answer taken for whole."""
    with harness.open() as session:

        @settings(max_examples=60, deadline=None, derandomize=True, database=None)
        @given(
            endpoint=st.sampled_from(ENDPOINTS),
            breaks=st.lists(faults, min_size=1, max_size=3),
            exact=st.booleans(),
            ids=st.booleans(),
        )
        def check(endpoint: Endpoint, breaks: list[BreakStream], exact: bool, ids: bool) -> None:
            run(session, endpoint, breaks, exact, ids)

        check()
