"""What a gateway answers, and what that is taken to mean: codes, statuses, hints, redirects of blame."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from faults.scenes import GOOD, QUICK, Meanwhile, Outcome, Scene, answered, ask, replies, scene
from gip_resilience.gateway import Error, FaultPlan, Gateway, Html, RateLimited, Status
from gip_resilience.testing import FakeClock
from harness import CHAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Harness, Session

# ---- the gateway's own codes ------------------------------------------------------------------------------------

for _code in (
    "model_overloaded",
    "model_server_error",
    "model_timeout",
    "model_unavailable",
    "rate_limit_exceeded",
    "internal_error",
    "failed_request",
    "context_length_exceeded",
    "invalid_request",
    "unknown_model",
    "insufficient_quota",
    "a_code_of_the_future",
):
    replies(f"code-{_code.replace('_', '-')}", Error(_code))
replies("code-future-4xx", Error("a_code_of_the_future", status=418))

# ---- statuses without a code -----------------------------------------------------------------------------------

for _status in (
    400,
    401,
    403,
    404,
    408,
    409,
    413,
    421,
    422,
    425,
    429,
    500,
    501,
    502,
    503,
    504,
    507,
    520,
    529,
):
    replies(f"status-{_status}", Status(_status))
replies("html-502", Html(502))
replies("html-504", Html(504))
replies("html-403", Html(403))
replies("status-503-empty", Status(503, "empty"))
replies("status-500-not-json", Status(500, b"{'error': oops"))

# ---- hints -----------------------------------------------------------------------------------------------------

EPOCH = 1_767_225_600.0
"""What a fake clock starts from."""


def hinted(name: str, **headers: str) -> None:
    """Register a 429 with these headers."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    replies(f"429-{name}", Error("rate_limit_exceeded", headers=named))


hinted("seconds", retry_after="7")
hinted("date", retry_after=formatdate(EPOCH + 5, usegmt=True))
hinted("past-date", retry_after=formatdate(EPOCH - 3600, usegmt=True))
hinted("zero", retry_after="0")
hinted("negative", retry_after="-5")
hinted("nan", retry_after="NaN")
hinted("infinite", retry_after="1e999")
hinted("a-year", retry_after="31536000")
hinted("words", retry_after="in a moment")
hinted("milliseconds", retry_after_ms="1500")
hinted("reset-seconds", x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="12")
hinted("reset-duration", x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="1m3.5s")
hinted("reset-epoch", x_ratelimit_remaining="0", x_ratelimit_reset=str(int(EPOCH) + 9))
replies("503-with-hint", Status(503, retry_after=3))
replies("503-with-long-hint", Status(503, retry_after=900))


@scene("429-two-hints")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    from faults.http1 import JSON
    from loopback import Loopback

    def serve(exchange: Any) -> None:
        exchange.read_body()
        if act == "once" and exchange.number > 1:
            exchange.answer(200, GOOD, JSON)
        else:
            exchange.answer(429, b"", "retry-after: 1", "retry-after: 4")

    with Loopback(serve) as peer:
        yield Scene(peer.url, lambda: peer.count)


# ---- who is to blame -------------------------------------------------------------------------------------------


@scene("one-model-limited")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The limit of one model does not keep the callers of another one."""
    other = {**CHAT, "model": "another"}

    def play(session: Session, at: Scene) -> Outcome:
        ask(session, at)
        at.sending = {"json": other}
        return ask(session, at)

    from gip_resilience.gateway import Rule

    plan = FaultPlan(rules=(Rule(RateLimited(retry_after=500), model=CHAT["model"]),))
    with Gateway(plan) as gateway:
        yield Scene(
            gateway.base_url + "/chat/completions", lambda: len(gateway.requests), play=play, right=answered
        )


@scene("one-model-unavailable")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The circuit of one model does not keep the callers of another one; its own are refused at once."""

    def play(session: Session, at: Scene) -> Outcome:
        ask(session, at)
        own = ask(session, at)
        at.sending = {"json": {**CHAT, "model": "another"}}
        other = ask(session, at)
        return other if type(own.error).__name__ == "CircuitOpenError" else own

    from gip_resilience.gateway import Rule

    plan = FaultPlan(rules=(Rule(Error("model_unavailable"), model=CHAT["model"]),))
    with Gateway(plan) as gateway:
        yield Scene(
            gateway.base_url + "/chat/completions", lambda: len(gateway.requests), play=play, right=answered
        )


@scene("outage-long")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Thirty calls into an outage: the circuit opens and the budget ends, and after it the next probe closes it."""

    def play(session: Session, at: Scene) -> Outcome:
        for _ in range(30):
            ask(session, at)
        assert len(gateway.requests) < 12, "an outage is hammered"
        if act == "once":
            gateway.plan = FaultPlan()
            at.clock.advance(10)
        return ask(session, at)

    with Gateway(FaultPlan.always(Status(503))) as gateway:
        yield Scene(gateway.base_url + "/chat/completions", play=play, right=answered)


@scene("flapping")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Well and sick in turns of three requests: every call that is let through ends well in time."""

    def play(session: Session, at: Scene) -> Outcome:
        outcomes = [ask(session, at) for _ in range(6)]
        return next((one for one in outcomes if one.status != 200), outcomes[-1])

    script = [Status(503), Status(503), *[None] * 3] * 6
    from gip_resilience.gateway import Ok

    with Gateway(FaultPlan.script([one or Ok() for one in script])) as gateway:
        yield Scene(gateway.base_url + "/chat/completions", play=play, right=answered)


@scene("slow-success")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """Ten times slower than usual, and right: nothing is sent twice for it."""
    with Gateway(latency=0.05) as gateway:
        yield Scene(gateway.base_url + "/chat/completions", lambda: len(gateway.requests), right=answered)


@scene("body-cannot-be-sent-again")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The request's body is a generator that is larger than what is recorded of it."""
    size = 2 << 20

    def blocks() -> Iterator[bytes]:
        for _ in range(size >> 16):
            yield b" " * 65536

    async def ablocks() -> Any:
        for block in blocks():
            yield block

    def play(session: Session, at: Scene) -> Outcome:
        body = blocks() if session.harness.colour == "sync" else ablocks()
        at.sending = {**session.content(body), "headers": {"content-type": "application/json"}}
        return ask(session, at)

    plan = FaultPlan.script([Status(503)]) if act == "once" else FaultPlan.always(Status(503))
    with Gateway(plan) as gateway:
        yield Scene(
            gateway.base_url + "/chat/completions", lambda: len(gateway.requests), play=play, right=answered
        )


# ---- clocks ----------------------------------------------------------------------------------------------------


class Jumping(Meanwhile):
    """A clock whose Unix time is set by somebody during the first pause."""

    def __init__(self, by: float) -> None:
        super().__init__(self._jump)
        self._by = by

    def _jump(self) -> None:
        self._time += self._by


def jumping(name: str, by: float) -> None:
    """Register a change of the wall clock while a call waits for a date at the gate."""

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        limited = Error("rate_limit_exceeded", retry_after=formatdate(EPOCH + 5, usegmt=True))
        plan = FaultPlan.script([limited]) if act == "once" else FaultPlan.always(limited)
        with Gateway(plan) as gateway:
            yield Scene(
                gateway.base_url + "/chat/completions",
                lambda: len(gateway.requests),
                clock=Jumping(by),
                right=answered,
            )


jumping("wall-clock-an-hour-on", 3600)
jumping("wall-clock-an-hour-back", -3600)


@scene("machine-asleep")
def _(act: str, harness: Harness) -> Iterator[Scene]:
    """The machine sleeps for two hours during the first pause: no further attempt is begun that late."""

    class Sleeping(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds + (7200 if not self.slept else 0))

    with Gateway(FaultPlan.script([Error("model_overloaded")])) as gateway:
        yield Scene(
            gateway.base_url + "/chat/completions",
            lambda: len(gateway.requests),
            clock=Sleeping(),
            config=QUICK,
            right=answered,
        )
