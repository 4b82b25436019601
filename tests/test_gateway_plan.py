"""Plans: which request gets which reply, and how they are written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience.gateway import (
    Close,
    EmptyReply,
    Error,
    FaultPlan,
    Garbage,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Huge,
    Ok,
    PlanError,
    RateLimited,
    Raw,
    Redirect,
    Reply,
    Reset,
    Rule,
    Slow,
    SlowBody,
    Stall,
    Status,
    WrongType,
)
from gip_resilience.gateway.plan import HEALTH, Playback

A, B, C = Error("model_overloaded"), Error("model_timeout"), Html(502)
CHAT = "/v1/chat/completions"


def play(
    plan: FaultPlan, count: int, *, seed: int = 0, model: str | None = "m", path: str = CHAT
) -> list[Reply]:
    """The replies to *count* equal requests."""
    playback = Playback(plan, seed)
    return [playback.reply_to(path, "POST", model, 0.0) for _ in range(count)]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        pytest.param(FaultPlan(), [Ok()] * 3, id="empty"),
        pytest.param(FaultPlan.script([A, B, Ok()]), [A, B, Ok(), Ok()], id="script then ok"),
        pytest.param(FaultPlan.script([A]) + FaultPlan.always(C), [A, C, C], id="script then something else"),
        pytest.param(
            FaultPlan.script([Ok(), A]) | FaultPlan.always(C), [Ok(), A, C], id="an ok counts as a step"
        ),
        pytest.param(FaultPlan.always(A), [A, A, A], id="always"),
        pytest.param(FaultPlan.always(A, times=2), [A, A, Ok(), Ok()], id="times"),
        pytest.param(FaultPlan.always(A, nth=2), [Ok(), A, Ok()], id="nth"),
        pytest.param(FaultPlan.always(A, first=2, last=3), [Ok(), A, A, Ok()], id="from to"),
        pytest.param(FaultPlan.always(A, first=2, times=1), [Ok(), A, Ok()], id="first with times"),
        pytest.param(FaultPlan.always(A, p=0.0), [Ok()] * 3, id="never by chance"),
        pytest.param(FaultPlan.always(A, p=1.0), [A] * 3, id="surely by chance"),
        pytest.param(
            FaultPlan((Rule(A, times=1), Rule(B, nth=1), Rule(C))),
            [A, B, C],
            id="nth counts what reached the rule",
        ),
    ],
)
def test_a_plan_answers_request_by_request(plan: FaultPlan, expected: list[Reply]) -> None:
    """The first rule that fires decides; where none does the answer is Ok."""
    assert play(plan, len(expected)) == expected


@pytest.mark.parametrize(
    ("selector", "request_", "hit"),
    [
        pytest.param({"path": CHAT}, (CHAT, "POST", "m"), True, id="path"),
        pytest.param({"path": CHAT}, ("/v1/models", "GET", None), False, id="other path"),
        pytest.param({"path": "/v1/*"}, (CHAT, "POST", "m"), True, id="path pattern"),
        pytest.param({"method": "GET"}, (CHAT, "POST", "m"), False, id="other method"),
        pytest.param(
            {"model": "azure/openai/*"}, (CHAT, "POST", "azure/openai/gpt-5-mini"), True, id="model pattern"
        ),
        pytest.param({"model": "a[1]"}, (CHAT, "POST", "a[1]"), True, id="a model that looks like a pattern"),
        pytest.param({"model": "*"}, ("/v1/models", "GET", None), False, id="no model"),
        pytest.param({}, (HEALTH, "GET", None), False, id="health is spared"),
        pytest.param({"path": HEALTH}, (HEALTH, "GET", None), True, id="health when named"),
    ],
)
def test_selectors(selector: dict[str, Any], request_: tuple[str, str, str | None], hit: bool) -> None:
    """A rule is reached only by the requests it selects."""
    playback = Playback(FaultPlan.always(A, **selector))
    path, method, model = request_
    assert playback.reply_to(path, method, model, 0.0) == (A if hit else Ok())


@pytest.mark.parametrize(
    ("elapsed", "hit"), [(0.0, False), (9.9, False), (10.0, True), (19.9, True), (20.0, False), (1e9, False)]
)
def test_time_window(elapsed: float, hit: bool) -> None:
    """A rule is in force from *after* (included) to *until* (excluded)."""
    playback = Playback(FaultPlan.always(A, after=10.0, until=20.0))
    assert playback.reply_to(CHAT, "POST", "m", elapsed) == (A if hit else Ok())


def test_per_model_counts_each_model_by_itself() -> None:
    """A script of one model is not used up by requests for another."""
    plan = FaultPlan.per_model({"x": [A, B], "y": C, "z*": FaultPlan.always(B, nth=2)})
    playback = Playback(plan)
    asked = ["y", "x", "y", "z1", "x", "z2", "x", "w"]
    got = [playback.reply_to(CHAT, "POST", model, 0.0) for model in asked]
    assert got == [C, A, C, Ok(), B, B, Ok(), Ok()]


def test_chance_is_a_function_of_the_seed() -> None:
    """The same seed plays the same, another seed does not, and the share is about p."""
    plan = FaultPlan.always(A, p=0.3)
    first, again, other = play(plan, 1000), play(plan, 1000), play(plan, 1000, seed=1)
    assert first == again
    assert first != other
    assert 250 < first.count(A) < 350


def test_chance_of_two_rules_is_independent() -> None:
    """Two rules with the same probability do not fall together."""
    draws = play(FaultPlan.always(A, p=0.5) + FaultPlan.always(B, p=0.5), 1000)
    assert 200 < draws.count(B) < 300


@pytest.mark.parametrize(
    ("plan", "at_accept", "at_request"),
    [
        pytest.param(FaultPlan.script([Reset("accept"), A]), Reset("accept"), A, id="first step"),
        pytest.param(FaultPlan.script([A, Reset("accept")]), None, A, id="not its turn"),
        pytest.param(
            FaultPlan.always(A, model="m") + FaultPlan.always(Close("accept"), times=1),
            Close("accept"),
            A,
            id="rules that need the request are passed over",
        ),
        pytest.param(FaultPlan.always(Reset("accept"), after=1.0), None, Ok(), id="not its time"),
    ],
)
def test_a_connection_can_be_refused_before_it_speaks(
    plan: FaultPlan, at_accept: Reply | None, at_request: Reply
) -> None:
    """A reply at accept uses up its step; otherwise the connection costs nothing."""
    playback = Playback(plan)
    assert playback.reply_to_connection(0.0) == at_accept
    assert playback.reply_to(CHAT, "POST", "m", 0.0) == at_request


EVERY_REPLY: list[Reply] = [
    Ok(headers={"x-a": "b"}),
    Error("model_overloaded", 529, {"x": "y"}, 1.5, "text", "kind"),
    Status(503, "html", {"x": "y"}, "Wed, 21 Oct 2026 07:28:00 GMT"),
    Html(504),
    RateLimited(7),
    Redirect("http://localhost/", 301),
    Huge(10, chunked=True),
    Raw("HTTP/1.1 200 OK\r\n\r\n", "stall"),
    Garbage(),
    EmptyReply(),
    Slow(1.0, A),
    SlowBody(3, 0.5, A),
    Reset("body", A),
    Close("headers", A),
    HalfHeaders("rst", A),
    HalfBody("bad_chunk", Slow(1.0, A)),
    Stall(),
    Gzip(A),
    WrongType("text/plain", A),
]


@pytest.mark.parametrize("reply", EVERY_REPLY, ids=lambda reply: reply.kind)
def test_every_reply_can_be_written_down(reply: Reply) -> None:
    """A plan survives the way through plain values, as TOML tables hold them."""
    plan = FaultPlan((Rule(reply, path="/v1/*" if not isinstance(reply, Reset) else None, times=2),))
    assert FaultPlan.from_dict(msgspec.to_builtins(plan)) == plan


TOML = """
[[rules]]
model = "azure/openai/gpt-5-mini"
times = 2
reply = {kind = "error", code = "model_overloaded", retry_after = 1.5}

[[rules]]
p = 0.1
until = 60
[rules.reply]
kind = "slow"
seconds = 2
then = {kind = "half_body", how = "rst"}
"""
FROM_TOML = FaultPlan(
    (
        Rule(Error("model_overloaded", retry_after=1.5), model="azure/openai/gpt-5-mini", times=2),
        Rule(Slow(2.0, HalfBody("rst")), p=0.1, until=60.0),
    )
)


def test_plan_from_toml_text() -> None:
    """Text is recognised as text."""
    assert FaultPlan.from_toml(TOML) == FROM_TOML
    assert FaultPlan.from_toml("") == FaultPlan()


@pytest.mark.parametrize("as_text", [True, False], ids=["str", "Path"])
def test_plan_from_toml_file(tmp_path: Path, as_text: bool) -> None:
    """A path may be a string or a Path."""
    file = tmp_path / "plan.toml"
    file.write_text(TOML, encoding="utf-8")
    assert FaultPlan.from_toml(str(file) if as_text else file) == FROM_TOML


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        pytest.param("x = ", "", "not TOML", id="not toml"),
        pytest.param("x = " + "9" * 5000, "", "not TOML", id="number too long"),
        pytest.param("x = " + "[" * 20_000, "", "not TOML", id="too deep"),
        pytest.param("x = 1", "", "unknown field x", id="unknown field"),
        pytest.param("rules = 3", "rules", "expected array, got int", id="rules is no list"),
        pytest.param("[[rules]]", "rules[0]", "missing required field reply", id="no reply"),
        pytest.param(
            'rules = [{reply = {kind = "nope"}}]', "rules[0].reply.kind", "'nope'", id="unknown kind"
        ),
        pytest.param('rules = [{reply = {kind = "error"}}]', "rules[0].reply", "field code", id="no code"),
        pytest.param(
            'rules = [{reply = {kind = "error", code = "x", status = "503"}}]',
            "rules[0].reply.status",
            "expected int | null, got str",
            id="status is text",
        ),
        pytest.param(
            'rules = [{reply = {kind = "status", status = 99}}]',
            "rules[0].reply",
            "within 200 and 999",
            id="status",
        ),
        pytest.param(
            'rules = [{reply = {kind = "slow", seconds = 1, then = {kind = "reset", when = "never"}}}]',
            "rules[0].reply.then.when",
            "'never'",
            id="nested",
        ),
        pytest.param(
            'rules = [{reply = {kind = "ok", headers = {x = "a\\r\\nb"}}}]',
            "rules[0].reply",
            "header x",
            id="crlf",
        ),
        pytest.param('rules = [{reply = {kind = "ok"}, nth = 0}]', "rules[0]", "nth must be", id="nth 0"),
        pytest.param('rules = [{reply = {kind = "ok"}, p = 1.5}]', "rules[0]", "p must be", id="p above 1"),
        pytest.param('rules = [{reply = {kind = "ok"}, p = nan}]', "rules[0]", "p must be", id="p nan"),
        pytest.param(
            'rules = [{reply = {kind = "ok"}, after = 5, until = 5}]', "rules[0]", "until", id="until"
        ),
        pytest.param(
            'rules = [{reply = {kind = "reset", when = "accept"}, model = "m"}]',
            "rules[0]",
            "accepted",
            id="accept",
        ),
    ],
)
def test_a_bad_plan_says_where(text: str, path: str, problem: str) -> None:
    """Errors name the place and what is wrong there."""
    with pytest.raises(PlanError) as caught:
        FaultPlan.from_toml(text)
    assert caught.value.path == path
    assert problem in str(caught.value)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: Error("x", status=1), id="status"),
        pytest.param(lambda: Error("x", retry_after="a\nb"), id="retry_after"),
        pytest.param(lambda: Status(503, "text"), id="status body"),  # type: ignore[arg-type]
        pytest.param(lambda: Ok({"a b": "c"}), id="header name"),
        pytest.param(lambda: Redirect("http://x/\r\n"), id="location"),
        pytest.param(lambda: WrongType("a\nb"), id="content type"),
        pytest.param(lambda: Raw(1), id="raw"),  # type: ignore[arg-type]
        pytest.param(lambda: Slow(-1), id="negative delay"),
        pytest.param(lambda: Slow(float("nan")), id="nan delay"),
        pytest.param(lambda: SlowBody(-1, 0), id="negative piece"),
        pytest.param(lambda: SlowBody(1, -1), id="negative interval"),
        pytest.param(lambda: Huge(-1), id="negative size"),
        pytest.param(lambda: Rule(Ok(), times=0), id="times"),
        pytest.param(lambda: Rule(Ok(), after=-1), id="after"),
        pytest.param(lambda: FaultPlan.per_model({"m": Reset("accept")}), id="accept by model"),
    ],
)
def test_bad_values_are_refused_where_they_are_made(build: Any) -> None:
    """A reply that cannot be played does not exist."""
    with pytest.raises(ValueError):
        build()


def test_plans_are_values() -> None:
    """Plans cannot be changed, compare by value, and say in their repr only what is set."""
    plan = FaultPlan.script([A])
    with pytest.raises(AttributeError):
        plan.rules = ()  # type: ignore[misc]
    assert plan == FaultPlan.script([A])
    assert repr(Rule(A, times=1)) == "Rule(reply=Error(code='model_overloaded'), times=1)"


rules = st.builds(
    Rule,
    st.sampled_from([A, B, C, Ok(), Reset("accept")]),
    nth=st.none() | st.integers(1, 4),
    first=st.none() | st.integers(1, 4),
    last=st.none() | st.integers(1, 4),
    times=st.none() | st.integers(1, 4),
    p=st.floats(0, 1),
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(rules, max_size=4), st.integers(0, 3), st.lists(st.booleans(), max_size=20))
def test_every_play_of_a_plan_is_the_same(rules: list[Rule], seed: int, order: list[bool]) -> None:
    """Connections and requests in any order: two playings agree, and no rule fires more often than it may."""
    plan = FaultPlan(tuple(rules))

    def run() -> list[Reply | None]:
        playback = Playback(plan, seed)
        return [
            playback.reply_to(CHAT, "POST", None, 0.0) if asks else playback.reply_to_connection(0.0)
            for asks in order
        ]

    first = run()
    assert first == run()
    if all(rule.times is not None for rule in rules):
        faults = [reply for reply in first if reply not in (None, Ok())]
        assert len(faults) <= sum(rule.times or 0 for rule in rules)
