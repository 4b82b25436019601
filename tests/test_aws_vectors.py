"""The retry cases that the AWS SDKs hold their languages to, replayed through our policies, engine and budget.

The cases are published by others and not part of this project; the environment variable ``AWS_RETRY_VECTORS`` names
a JSON file of them. Configured with AWS' numbers we do what AWS does, in all but what is written down here:
`DIFFERS` has the steps that end otherwise, and with what; `NOT_OURS` the cases about something we do not have.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gip_resilience.config import BreakerConfig, BudgetConfig, Config, GateConfig
from gip_resilience.policy import DEFAULTS, Policy
from gip_resilience.taxonomy import Fact, Retry, classify, transport_fact
from vectors import Conversation, Replay

COMMIT = "6373a5f747998ea0b1d2c82b677952368d4307e1"

if "AWS_RETRY_VECTORS" not in os.environ:
    pytest.skip(
        "AWS_RETRY_VECTORS names no file; the cases are published in smithy-lang/smithy-kotlin, at commit "
        f"{COMMIT}: runtime/runtime-core/jvm/test/aws/smithy/kotlin/runtime/retries/impl",
        allow_module_level=True,
    )

FILE: dict[str, Any] = json.loads(Path(os.environ["AWS_RETRY_VECTORS"]).read_text(encoding="utf-8"))
Step = dict[str, Any]

# ---- what is not the same --------------------------------------------------------------------------------

NO_REFUND = (
    "a success brings back one deposit whatever came before it: with a refund, a retry that succeeds is free"
)
OWN_WAITS = "each code has waits of its own, so a 502 after a 500 begins anew"
IN_FULL = "a hint is waited for in full, not cut to five seconds more than our own wait"
NO_LONG_POLL = "nothing is slept that no attempt follows, whatever the operation"

DIFFERS: dict[str, dict[int, tuple[Step, str]]] = {
    "2020: Retry eventually succeeds": {2: ({"retry_quota": 491}, NO_REFUND)},
    "2026: Retry eventually succeeds": {2: ({"retry_quota": 473}, NO_REFUND)},
    "2026: Throttling error token bucket drain and backoff duration": {1: ({"retry_quota": 496}, NO_REFUND)},
    "2026: Honor x-amz-retry-after header": {1: ({"retry_quota": 487}, NO_REFUND)},
    "2026: x-amz-retry-after minimum is exponential backoff duration": {1: ({"retry_quota": 487}, NO_REFUND)},
    "2026: x-amz-retry-after maximum is 5+exponential backoff duration": {
        0: ({"delay": 10.0}, IN_FULL),
        1: ({"retry_quota": 487}, NO_REFUND),
    },
    "2026: Invalid x-amz-retry-after falls back to exponential backoff": {
        1: ({"retry_quota": 487}, NO_REFUND)
    },
    "2026: Long-polling backoff after transient error when token bucket empty": {
        0: ({"delay": None}, NO_LONG_POLL)
    },
    "2026: Long-polling backoff after throttling error when token bucket empty": {
        0: ({"delay": None}, NO_LONG_POLL)
    },
    "2026: Retry quota recovery after successful responses": {
        1: ({"delay": 0.05}, OWN_WAITS),
        2: ({"retry_quota": 3}, NO_REFUND),
        3: ({"outcome": "retry_quota_exceeded", "retry_quota": 3, "delay": None}, NO_REFUND),
        4: ({"retry_quota": 4}, NO_REFUND),
    },
    "2026: Shared multi-threaded scenarios": {
        3: ({"retry_quota": 459}, NO_REFUND),
        4: ({"retry_quota": 460}, NO_REFUND),
    },
}
"""By case and step, counted from 0: what we do instead, and why. Everything else of those steps is AWS' number."""

NO_RATE = "the rate of first attempts is not adapted: a gate waits for the limit the server names"
NOT_OURS = {
    "adaptive: Cubic success #1": NO_RATE,
    "adaptive: Cubic success #2": NO_RATE,
    "adaptive: End-to-end test for client sending rates": NO_RATE,
}
"""Cases about something that we do not have, and why."""

UNKNOWN = "a code that no table here has, since Bedrock does not send it: the status decides"
CLASSIFIED_OTHERWISE: dict[tuple[int, str | None], tuple[str | None, str]] = {
    (400, "Throttling"): (None, UNKNOWN),
    (503, "SlowDown"): ("transient", UNKNOWN),
    (509, "BandwidthLimitExceeded"): ("transient", UNKNOWN),
    (403, "RequestThrottled"): (None, UNKNOWN),
    (400, "RequestTimeout"): (None, UNKNOWN),
}
"""By status and code: what we take it for."""

TURNS = (0, 0, 1, 1, 0)
"""Which of the two threads is answered, step by step: the only order that explains the quotas AWS expects."""


# ---- the cases of the file -------------------------------------------------------------------------------


def cases_of(section: str, groups: tuple[str, ...]) -> dict[str, Any]:
    """The cases of some groups of a section, by name."""
    year = section.removeprefix("standard_")
    named = [(f"{year}: {name}", case) for group in groups for name, case in FILE[section][group].items()]
    assert len(dict(named)) == len(named), "two cases have one name"
    return dict(named)


CASES = cases_of("standard_2020", ("integration",)) | cases_of(
    "standard_2026", ("integration", "long_polling", "multi_invocation", "multi_threaded")
)
OTHERS = cases_of("adaptive", ("cubic", "end_to_end"))


def steps_of(case: dict[str, Any]) -> list[tuple[int, Step]]:
    """The steps of a case in their order, each with the number of its thread."""
    if "responses" in case:
        return [(0, step) for step in case["responses"]]
    queues = [iter(steps) for steps in case["threads"]]
    steps = [(thread, next(queues[thread])) for thread in TURNS]
    assert [next(queue, None) for queue in queues] == [None] * len(queues), "a step was left out"
    return steps


KNOWN = {
    "max_attempts",
    "initial_retry_tokens",
    "exponential_base",
    "exponential_power",
    "max_backoff_time",
    # A service whose operations poll, and that they do: we have no such thing, and see what is done then.
    "service",
    "long_polling",
}


def config_of(name: str, jitter: str) -> Config:
    """Our settings for a case: AWS' numbers, no circuits and no gate.

    A code that no table of ours has is retried by a policy of its own, as users write one.
    """
    section = "standard_" + name.split(":")[0]
    semantics, given = FILE["semantics"][section], CASES[name]["given"]
    assert set(given) <= KNOWN, "something else is given"
    assert given.get("exponential_power", 2) == 2, "waits double"
    recent = section == "standard_2026"
    transient = Policy(
        max_attempts=given.get("max_attempts", semantics["max_attempts"]),
        base_delay=0.05 if recent else 1.0,
        max_delay=given.get("max_backoff_time", 20.0),
        jitter=jitter,  # type: ignore[arg-type]  # one of two words
        cost=semantics["retry_cost"],
    )
    timeout = Policy(cost=semantics["timeout_retry_cost"]) if not recent else Policy()
    throttling = Policy(base_delay=1.0, max_delay=20.0, cost=semantics.get("throttling_retry_cost", 5))
    tokens = given.get("initial_retry_tokens", semantics["initial_retry_tokens"])
    return Config(
        policies={
            "limited": transient,
            "intermediary": transient,
            "timeout": transient.merged(timeout),
            "rate_limit": transient.merged(throttling),
            "custom:Throttling": transient.merged(throttling),
        },
        breaker=BreakerConfig(mode="off"),
        gate=GateConfig(mode="off"),
        # The quota of a process neither shrinks nor grows with its rate.
        budget=BudgetConfig(capacity=tokens, min_capacity=tokens, deposit=semantics["no_retry_increment"]),
        max_elapsed=None,
    )


def fact_of(response: Step) -> Fact:
    """A response of the file as an adapter would see it."""
    headers = dict(response.get("headers", {}))
    if response.get("error_code") is not None:
        headers["x-amzn-errortype"] = response["error_code"]
    return classify(response["status_code"], headers, dialect="bedrock")


def play(name: str, steps: int, jitter: str, chance: float) -> tuple[list[Step], float]:
    """What we do in the first *steps* of a case, in the file's words; and the tokens left in the end."""
    replay = Replay(config_of(name, jitter), chance)
    calls: dict[int, Conversation] = {}
    seen: list[Step] = []
    for thread, step in steps_of(CASES[name])[:steps]:
        call = calls.get(thread)
        if call is None or call.over:
            call = calls[thread] = replay.begin()
        played = call.answer(fact_of(step["response"]))
        seen.append({"outcome": played.outcome, "delay": None if call.over else call.wait()})
    return seen, replay.tokens()


ALMOST_ONE = 1.0 - 2.0**-53
"""Chance is drawn from [0, 1): the closest to the file's ``exponential_base`` of 1."""

PINNED = [
    pytest.param(name, jitter, chance, id=f"{name}-{jitter}")
    for name, case in CASES.items()
    for jitter, chance in (("none", 0.0), ("full", ALMOST_ONE))
    # Chance lengthens a hint too, which AWS' does not: with a hint it is pinned to 0 only.
    if jitter == "none" or not any("headers" in step["response"] for _, step in steps_of(case))
]


@pytest.mark.parametrize(("name", "jitter", "chance"), PINNED)
def test_a_case_is_replayed(name: str, jitter: str, chance: float) -> None:
    """Outcome, wait and quota after every step are AWS', but for what is written down."""
    case = CASES[name]
    assert case["given"]["exponential_base"] == 1
    for number, (_, step) in enumerate(steps_of(case)):
        expected = step["expected"] | DIFFERS.get(name, {}).get(number, ({}, ""))[0]
        if expected["outcome"] != "retry_request":
            expected.setdefault("delay", None)
        seen, tokens = play(name, number + 1, jitter, chance)
        got = seen[number] | {"retry_quota": tokens}

        assert set(expected) <= set(got)
        for word, value in expected.items():
            assert got[word] == pytest.approx(value), f"step {number}: {word}"


def test_what_two_threads_leave_is_the_sum_of_what_they_did() -> None:
    """AWS refunds two retries of three; we count two successes."""
    name = "2026: Shared multi-threaded scenarios"
    _, tokens = play(name, len(TURNS), "none", 0.0)

    assert (tokens, CASES[name]["expected_final_quota"]) == (500 - 3 * 14 + 2, 500 - 14)


def test_every_case_of_the_file_is_replayed_or_named() -> None:
    """And nothing is named that is not in it."""
    assert FILE["source"]["commit"] == COMMIT
    assert len(CASES) + len(OTHERS) == FILE["case_count"]
    assert set(OTHERS) == set(NOT_OURS)
    assert set(DIFFERS) <= set(CASES)
    sections = {section: set(FILE[section]) for section in ("standard_2020", "standard_2026", "adaptive")}
    assert sections == {
        "standard_2020": {"integration"},
        "standard_2026": {"integration", "long_polling", "multi_invocation", "multi_threaded"},
        "adaptive": {"params", "cubic", "end_to_end"},
    }


@pytest.mark.parametrize("name", DIFFERS)
def test_a_difference_is_one(name: str) -> None:
    """What is written down as different is not what AWS expects."""
    steps = steps_of(CASES[name])
    for number, (ours, reason) in DIFFERS[name].items():
        expected = steps[number][1]["expected"]
        assert reason
        assert all(word in expected and expected[word] != value for word, value in ours.items()), number


# ---- what counts as what ---------------------------------------------------------------------------------


def kind_of(fact: Fact) -> str | None:
    """What AWS calls such a failure, by what we do about it."""
    if fact.retry is Retry.AFTER_RESET:
        return "throttling"
    return "transient" if DEFAULTS[fact.policy].max_attempts > 1 else None


CLASSIFIED = {(status, code): kind for status, code, kind in FILE["classification"]["cases"]}


@pytest.mark.parametrize(("status", "code"), CLASSIFIED)
@pytest.mark.parametrize("place", ["header", "body"])
def test_an_error_is_classified(status: int, code: str | None, place: str) -> None:
    """As AWS does, but for what is written down."""
    expected = CLASSIFIED[status, code]
    if (status, code) in CLASSIFIED_OTHERWISE:
        ours, _ = CLASSIFIED_OTHERWISE[status, code]
        assert ours != expected, "it is no difference"
        expected = ours
    read = partial(classify, status, dialect="bedrock")
    named = {"error_code": code} if code else {}
    fact = (
        fact_of({"status_code": status} | named)
        if place == "header"
        else read({}, json.dumps({"__type": code, "message": "-"}) if code else None)
    )

    assert kind_of(fact) == expected


def test_every_difference_in_classification_is_a_case() -> None:
    """None is stale."""
    assert set(CLASSIFIED_OTHERWISE) <= set(CLASSIFIED)


@pytest.mark.parametrize("code", FILE["classification"]["throttling_codes"])
def test_a_throttling_code_on_a_429_is_a_rate_limit(code: str) -> None:
    """Known or not: there the status says it. By its code alone we know only what Bedrock's models say."""
    assert kind_of(fact_of({"status_code": 429, "error_code": code})) == "throttling"
    known = kind_of(fact_of({"status_code": 400, "error_code": code})) == "throttling"
    assert known is (code == "ThrottlingException")


@pytest.mark.parametrize("status", FILE["classification"]["transient_statuses"])
def test_a_transient_status_is_retried(status: int) -> None:
    """Without any code, or with one for timeouts that nobody here knows."""
    for code in (None, *FILE["classification"]["transient_codes"]):
        assert kind_of(fact_of({"status_code": status, "error_code": code})) == "transient"


@pytest.mark.parametrize(
    ("exception", "kinds"),
    [
        ("ConnectionError", ["connect_error", "connect_timeout", "connection_lost"]),
        ("HTTPClientError", ["read_timeout", "write_timeout", "protocol_error"]),
    ],
)
def test_a_transient_exception_is_retried(exception: str, kinds: list[str]) -> None:
    """Whatever breaks below HTTP."""
    assert exception in FILE["classification"]["transient_exceptions"]
    assert {kind_of(transport_fact(kind)) for kind in kinds} == {"transient"}


def test_the_waits_of_eleven_retries() -> None:
    """Doubling from 50 ms, and 20 s from the tenth on."""
    vectors = FILE["backoff_vectors_2026"]
    waits = vectors["delays_by_attempt_1..11"]
    policy = Policy(base_delay=0.05, max_delay=vectors["max_backoff"], wait="expo", jitter="full")
    delays = policy.delays()

    assert vectors["random"] == 1
    assert [policy.jittered(next(delays), ALMOST_ONE) for _ in waits] == pytest.approx(waits)
