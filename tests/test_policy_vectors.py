"""What the default policies do, as data: ``data/policy_vectors.json``, replayed through the engine and its store.

The shape is that of the vectors by which the AWS SDKs hold their languages to one behaviour: what is given, and for
each response what is expected.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from facts import OK
from gip_resilience.config import Config
from gip_resilience.policy import DEFAULTS
from gip_resilience.taxonomy import POLICY_CLASSES, Fact, classify, stream_fact, transport_fact
from vectors import CIRCUITS, Conversation, Played, Replay, Step

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "policy_vectors.json").read_text(encoding="utf-8")
)
CASES: dict[str, dict[str, Any]] = VECTORS["cases"]


def facts_of(response: Step) -> tuple[Fact, Fact | None]:
    """What a response of the vectors teaches, and how its stream ends, if it is one."""
    if "transport" in response:
        return transport_fact(response["transport"]), None
    if "stream" in response:
        end = response["stream"]
        return OK, OK if end == "complete" else stream_fact(end)
    code = response.get("error_code")
    body = code and json.dumps({"error": {"type": "error", "code": code, "message": "-"}})
    return classify(response["status_code"], response.get("headers", {}), body), None


def play(case: dict[str, Any], steps: int) -> tuple[Replay, Conversation, list[Played]]:
    """Replay the first *steps* of a case; the last one's wait is not begun."""
    given = case["given"]
    replay = Replay(Config.from_dict(given.get("config", {})), given["chance"])
    call: Conversation | None = None
    played: list[Played] = []
    for step in case["responses"][:steps]:
        if call is not None and not call.over:
            assert "after" not in step, "no call begins here"
            call.wait()
        else:
            replay.clock.advance(step.get("after", 0.0))
            call = replay.begin()
        if step["response"] is None:
            played.append(call.refused())
        else:
            fact, broken = facts_of(step["response"])
            played.append(call.answer(fact, broken=broken))
    assert call is not None
    return replay, call, played


STEPS = [
    pytest.param(case, number, id=f"{name}-{number + 1}")
    for name, case in CASES.items()
    for number in range(len(case["responses"]))
]


@pytest.mark.parametrize(("case", "number"), STEPS)
def test_a_step_of_a_vector(case: dict[str, Any], number: int) -> None:
    """Outcome, wait, attempts, tokens, circuits and gate are what the vector says."""
    replay, call, played = play(case, number + 1)
    expected = dict(case["responses"][number]["expected"])
    seen = played[number]

    assert seen.outcome == expected.pop("outcome")
    assert seen.attempts == expected.pop("attempts")
    assert seen.retry_after == pytest.approx(expected.pop("retry_after", None))
    circuits = expected.pop("breaker_state")
    assert {name: replay.circuit(circuit) for name, circuit in CIRCUITS.items()} == circuits
    assert replay.closed_for() == pytest.approx(expected.pop("gate_until", 0.0))
    # The rest changes what is looked at, and comes last.
    delay = None if call.over else call.wait()
    assert delay == pytest.approx(expected.pop("delay", None))
    assert replay.tokens() == pytest.approx(expected.pop("retry_quota"), abs=1e-5)
    assert expected == {}, "nothing is expected that is not looked at"


def test_every_policy_class_has_a_vector_with_its_first_failure() -> None:
    """A class that is added needs one too."""
    covered = {policy for case in CASES.values() for policy in case["given"]["policies"]}

    assert covered == set(POLICY_CLASSES)


@pytest.mark.parametrize("name", CASES)
def test_a_vector_is_about_the_classes_it_names(name: str) -> None:
    """And it changes none of their policies: the vectors hold what applies by default."""
    case = CASES[name]
    met = set()
    for step in case["responses"]:
        if step["response"] is not None:
            fact, broken = facts_of(step["response"])
            met |= {one.policy for one in (fact, broken) if one is not None and not one.ok}

    assert met == set(case["given"]["policies"])
    assert "policies" not in case["given"].get("config", {})


@pytest.mark.parametrize("policy", POLICY_CLASSES)
def test_the_vectors_use_every_attempt_of_a_class_up(policy: str) -> None:
    """For each class some call ends for want of attempts, after as many as the class has."""
    ends = {
        step["expected"]["attempts"]
        for case in CASES.values()
        if case["given"]["policies"] == [policy]
        for step in case["responses"]
        if step["expected"]["outcome"] in {"max_attempts_exceeded", "fail_request"}
    }

    assert DEFAULTS[policy].max_attempts in ends
