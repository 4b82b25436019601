"""Plans of the gateway from TOML and from plain values: read, or refused by the one error that says where."""

from __future__ import annotations

from fuzz.given import Given
from gip_resilience.gateway.plan import FaultPlan, PlanError, Playback

_WORDS = ("rules", "reply", "kind", "ok", "error", "status", "html", "half_body", "slow", "rate_limited", "redirect",
          "huge", "reset", "code", "model_overloaded", "then", "how", "rst", "fin", "path", "/v1/*", "method", "model",
          "nth", "first", "last", "times", "p", "after", "until", "headers", "retry_after", "body", "json", "seconds",
          "size", "to", "message", "type", "break_stream", "at", "gzip", "raw", "content_type", "")  # fmt: skip


def check(data: bytes) -> None:
    """See the module."""
    given = Given(data)
    try:
        match given.below(3):
            case 0:
                plan = FaultPlan.from_dict({"rules": [given.value(_WORDS, 4) for _ in range(given.below(3))]})
            case 1:
                reply = {"kind": given.one_of(_WORDS)} | _table(given)
                plan = FaultPlan.from_dict({"rules": [{"reply": reply} | _table(given)]})
            case _:
                plan = FaultPlan.from_toml(given.rest().decode("utf-8", "replace") + "\n")
    except PlanError as error:
        assert str(error)
        return
    assert FaultPlan(plan.rules) == plan
    assert len((plan + plan).rules) == 2 * len(plan.rules)
    played = []
    for _ in range(2):
        playback = Playback(plan, 1)
        replies = [playback.reply_to_connection(0.0)]
        replies += [
            playback.reply_to("/v1/chat/completions", "POST", "m", elapsed) for elapsed in (0.0, 0.5, 9.0)
        ]
        played.append(replies)
    assert repr(played[0]) == repr(played[1])


def _table(given: Given) -> dict[str, object]:
    return {given.one_of(_WORDS): given.value(_WORDS, 2) for _ in range(given.below(4))}
