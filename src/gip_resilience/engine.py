"""The story of one call, told once for every client and colour.

Read `story`: it is the whole behaviour, in order. It is a generator of effects: it decides, and the driver
(`gip_resilience.drive`) does. It sees facts, never a request, a response or an exception, and it imports
nothing that can wait; time and chance come in through `Surroundings`.

A call that is admitted at once and succeeds never gets here: `Call.admit` asks the store, the driver sends,
`Call.succeed` reports. The story is told from the moment something goes wrong or has to wait.

The rules that shape it:

* a retry passes the gate and the circuits like any other request, and pays the budget before it waits;
* what to do is decided *before* a pause, so that an answer we will hand up is not thrown away first;
* a wait that would end past the deadline, or past ``max_elapsed``, is not begun;
* a call whose last word was an answer hands up that answer; we refuse with words of our own only when
  nothing was ever answered.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gip_resilience._record import SHORTEST_TIMEOUT, Record
from gip_resilience.defaults import HINT_JITTER, HINT_JITTER_CAP
from gip_resilience.effects import DELIVER, Deliver, Effect, Pause, Refuse, Send
from gip_resilience.events import (
    AttemptEnded,
    BudgetRefused,
    CallEnded,
    CallPaused,
    CallRefused,
    DeadlineReached,
    GateWaited,
    HintHonoured,
    HintRefused,
    RetryScheduled,
    ShadowRefused,
)
from gip_resilience.gate import Held, Place
from gip_resilience.state import Pending, Permit, Refused
from gip_resilience.taxonomy import Retry, Verdict

if TYPE_CHECKING:
    from collections.abc import Generator

    from gip_resilience.policy import ResolvedPolicy
    from gip_resilience.taxonomy import Fact


class Call(Record):
    """One call: what it holds and did (`Record`), and what it decides. Belongs to one thread or task at a time."""

    __slots__ = ()

    # ---- the everyday path -------------------------------------------------------------------------------

    def admit(self) -> bool:
        """Ask for leave to send the first attempt; without it the story begins with a wait or a refusal."""
        world = self.world
        answer = world.store.acquire(self.key, self.config, self.started, first=True)
        if isinstance(answer, Permit):
            self._permit = answer
            if answer.news:
                self.tell_all(answer.news)
            if world.announcer.attempts:
                self._sent()
            return True
        self._turned_away = answer
        return False

    def succeed(self, fact: Fact) -> None:
        """The first attempt succeeded: report it, count it, done."""
        if self.streaming:
            self._stream_opened(fact)
            return
        world, key = self.world, self.key
        self.fact = fact
        self.outcome = "success"
        self.ended = now = world.monotonic()
        world.metrics.succeeded(key.host, key.model, now - self._sent_at)
        everyday = world.announcer.everyday
        if everyday:
            attempt = self._attempt(fact, now)
            self._attempts = [attempt]
            self.follow(AttemptEnded(self.number, key.host, key.model, attempt))
        self._report(fact, now)
        if everyday:
            self.follow(CallEnded(self.number, self.report()))

    def _report(self, fact: Fact, now: float) -> None:
        """Tell the store of a success."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if fact.hint is not None and self._opened is None:  # or the beginning of its stream has told
            self.tell_all(self.world.store.exhausted(self.key, permit, fact.hint.seconds, now))
        reported = self.world.store.report(
            self.key, permit, fact, fact.host, fact.model, now, took=self._took(now)
        )
        if reported.news:
            self.tell_all(reported.news)

    def stream_ended(self) -> None:
        """The stream came to its end: now the attempt has succeeded."""
        fact, self.streaming = self._opened, False
        if fact is None:
            raise AssertionError("no stream was opened")
        if self._attempts is None:
            self.succeed(fact)
        else:
            self.finish(fact)

    # ---- decisions ---------------------------------------------------------------------------------------

    def judge(self, fact: Fact, hopeless: str = "") -> Pause | Deliver | Refuse:
        """An attempt failed: report it, and decide whether to hand it up or to retry after a pause.

        Args:
            fact: how it failed.
            hopeless: why it is not tried again, if that is known already.
        """
        now = self.world.monotonic()
        took = self._took(now)
        if self._opened is not None:
            # While a stream flowed no time was lost.
            self._flowed += now - self._opened_at
            self._opened = None
        number = self._record(fact, now)
        policy = self._policy(fact)
        permit, self._permit = self._permit, None
        open_for = gate_wait = 0.0
        early = False
        if permit is not None:
            host, model = _verdicts(fact, policy)
            reported = self.world.store.report(self.key, permit, fact, host, model, now, took=took)
            self.tell_all(reported.news)
            open_for, gate_wait, early = reported.open_for, reported.gate_wait, reported.early
        silent = fact.status is None or self.streaming
        if silent and self._deadline is not None and now >= self._deadline - SHORTEST_TIMEOUT:
            # A hair early is late: the clock that cut the attempt short need not be ours.
            return self._refuse("deadline", None, answered=False)
        final = self._reason_to_hand_up(fact, policy)
        reason = hopeless or final or self._reason_to_stop(fact, policy, number)
        if reason:
            return self._stop(reason, gave_up=not final)
        held = self._queue(now) if gate_wait > 0.0 else None
        wait, kind = self._wait(fact, policy, gate=0.0 if held is None else held.seconds)
        if open_for > wait:
            return self._stop("circuit open")
        too_late = self._too_late(now, wait)
        whose = self.number, self.key.host, self.key.model
        if too_late:
            if fact.hint is not None:
                self.tell(HintRefused(*whose, fact.code, fact.hint, too_late))
            return self._stop(too_late)
        if held is not None and not held.patient:
            return self._stop("there is no use in waiting at the gate")
        if not self._afford(fact, policy, now, free=early and self.config.gate.mode == "on"):
            self.tell(BudgetRefused(*whose, fact.code, policy.cost))
            return self._stop("retry budget exhausted")
        if fact.hint is not None:
            self.tell(HintHonoured(*whose, fact.code, fact.hint, wait))
        self.tell(
            RetryScheduled(
                *whose, fact.code, number, self._allowance, wait, kind, maybe_executed=fact.maybe_executed
            )
        )
        return self._pause(wait, kind)

    def _policy(self, fact: Fact) -> ResolvedPolicy:
        policy = self.config.policy(fact.code, fact.policy)
        if fact.should_retry and policy.max_attempts == 1:
            # The server's own word outranks a table that would not retry; once, like anything nobody knows.
            return self.config.policy(fact.code, "limited")
        return policy

    def _reason_to_hand_up(self, fact: Fact, policy: ResolvedPolicy) -> str:
        """Why this is nothing to try again, or not for us; or an empty string."""
        if fact.should_retry is False:
            return "the server forbids a retry"
        if policy.max_attempts == 1 or (fact.retry is Retry.IF_HINT and fact.hint is None):
            return f"{fact.code} is not retried"
        if self.single and not self.streaming:  # no SDK sends a stream again once it has begun
            return "a layer above retries"
        return ""

    def _reason_to_stop(self, fact: Fact, policy: ResolvedPolicy, number: int) -> str:
        """Why there is no further attempt at what is tried again by policy; or an empty string."""
        exhausted = self._exhausted(fact, policy, number)
        if exhausted:
            return exhausted
        if fact.maybe_executed and policy.on_ambiguous == "fail":
            return "the request may have been executed"
        if not self.replayable:
            return "the body cannot be sent again"
        if fact.hint is not None and fact.hint.seconds > policy.max_hint:
            reason = f"the server asks for {fact.hint.seconds:g} s"
            self.tell(HintRefused(self.number, self.key.host, self.key.model, fact.code, fact.hint, reason))
            return reason
        return ""

    def _exhausted(self, fact: Fact, policy: ResolvedPolicy, number: int) -> str:
        """Why no attempt is left, or an empty string.

        A class of failures is allowed its own number of attempts, so that a body that breaks off once is sent
        again also when a rate limit came before it; and the call as a whole has as many as the most generous
        class it met, so that failures that take turns do not add up.
        """
        failures = self._failures[fact.policy] = self._failures.get(fact.policy, 0) + 1
        self._allowance = max(self._allowance, policy.max_attempts)
        if number >= self._allowance:
            return f"all {self._allowance} attempts used"
        if failures >= policy.max_attempts:
            return f"all {policy.max_attempts} attempts used that {fact.code} allows"
        return ""

    def _wait(self, fact: Fact, policy: ResolvedPolicy, gate: float) -> tuple[float, str]:
        """Seconds to wait before the next attempt, and what kind of wait it is.

        Args:
            fact: the failure.
            policy: what applies to it.
            gate: seconds until the gate opens, if this call stands in line there. It gives out turns, so the wait
                needs no chance of its own.
        """
        chance = self.world.chance
        delays = self._delays.get(fact.code)
        if delays is None:
            delays = self._delays[fact.code] = policy.delays()
        backoff = policy.jittered(next(delays), chance())
        if fact.hint is None:
            return (gate, "gate") if gate > backoff else (backoff, "backoff")
        asked = fact.hint.seconds
        wait, kind = gate, "gate"
        if not gate:
            wait, kind = asked + chance() * min(HINT_JITTER * asked, HINT_JITTER_CAP), "hint"
        if self._hinted or asked == 0.0:
            # A hint that did not help the first time, or that says "now", must not become a tight loop.
            wait = max(wait, backoff)
        self._hinted = True
        return wait, kind

    def _too_late(self, now: float, wait: float) -> str:
        """Why a wait of this length must not be begun, or an empty string."""
        if self._deadline is not None and now + wait >= self._deadline:
            self._meet_deadline(now)
            return "the deadline would pass"
        if now + wait >= self._last_start():
            return "max_elapsed would pass"
        return ""

    def _meet_deadline(self, now: float) -> None:
        deadline = self.config.deadline
        if deadline is not None:
            used = now - self.started
            self.tell(DeadlineReached(self.number, self.key.host, self.key.model, deadline, used))

    def _last_start(self) -> float:
        """When the last attempt may start, by ``max_elapsed``."""
        limit = self.config.max_elapsed
        return inf if limit is None else self.started + self._flowed + limit

    def _afford(self, fact: Fact, policy: ResolvedPolicy, now: float, *, free: bool) -> bool:
        """Pay for the retry.

        A rate-limited request that was on its way before the gate closed is only late to the news, and what is
        held at the gate costs nothing. A request that provably was not processed (a refused HTTP/2 stream) is
        free once: the server asked for it to be sent again.
        """
        if self.config.budget.mode == "off" or free:
            return True
        if fact.code == "refused_stream" and not self._spared:
            self._spared = True
            return True
        if self.world.store.withdraw(self.key, self.config, policy.cost, now):
            return True
        if self.config.budget.mode != "metrics_only":
            return False
        self.tell(ShadowRefused(self.key.host, self.key.model, "budget"))
        return True

    def _stop(self, reason: str, *, gave_up: bool = True) -> Deliver:
        self._gave_up = gave_up
        self._end("failure", reason)
        return DELIVER

    def _pause(self, seconds: float, kind: str) -> Pause:
        self._paused += seconds
        self._waited += seconds
        self.tell(CallPaused(self.number, self.key.host, self.key.model, seconds, kind))
        return Pause(seconds)

    # ---- admission ---------------------------------------------------------------------------------------

    def enter(self) -> Pause | Deliver | Refuse | None:
        """Ask for leave to send. ``None`` grants it; a pause means ask again; anything else ends the call."""
        answer, self._turned_away = self._turned_away, None
        if answer is None or isinstance(answer, Held):
            now = self.world.monotonic()
            if self._deadline is not None and now >= self._deadline:
                return self._refuse("deadline", None)
            granted = self.world.store.acquire(self.key, self.config, now, first=False, place=self._in_line())
            if isinstance(granted, Permit):
                self._permit = granted
                self._sent_at = now
                if granted.news:
                    self.tell_all(granted.news)
                if self.world.announcer.attempts:
                    self._sent()
                return None
            answer = granted
        if isinstance(answer, Held):
            return self._hold(answer)
        if isinstance(answer, Pending):
            return self._await_answer(answer)
        return self._meet_open_circuit(answer)

    def _in_line(self) -> Place:
        """What this call waits in line with."""
        latest = self._last_start()
        if self._deadline is not None:
            latest = min(latest, self._deadline)
        if self._place is None:
            self._place = Place(self.started)
        self._place.latest = latest
        return self._place

    def _queue(self, now: float) -> Held | None:
        return self.world.store.queue(self.key, self.config, now, self._in_line())

    def _hold(self, held: Held) -> Pause | Deliver | Refuse:
        if not held.patient or self._too_late(self.world.monotonic(), held.seconds):
            return self._refuse("rate_limited", held.retry_after)
        self.tell(GateWaited(self.number, self.key.host, self.key.model, held.seconds))
        return self._pause(held.seconds, "gate")

    def _await_answer(self, pending: Pending) -> Pause | Deliver | Refuse:
        """Others are asked whether they probe already: a matter of milliseconds, and bounded by ``store.timeout``."""
        self.tell_all(pending.news)
        if self._too_late(self.world.monotonic(), pending.seconds):
            return self._refuse("circuit_open", pending.seconds)
        return self._pause(pending.seconds, "store")

    def _meet_open_circuit(self, refused: Refused) -> Pause | Deliver | Refuse:
        self.tell_all(refused.news)
        wait = refused.retry_after
        patient = self.config.on_open == "wait" and self._attempts is None
        if patient and not self._too_late(self.world.monotonic(), wait):
            # A little chance, or all who wait would come back in the same instant and one of them would pass.
            return self._pause(wait * (1.0 + HINT_JITTER * self.world.chance()), "circuit")
        return self._refuse("circuit_open", wait)

    def _refuse(
        self, kind: str, retry_after: float | None, *, answered: bool | None = None
    ) -> Deliver | Refuse:
        """No further attempt is made. What was answered, or failed, before is the better last word."""
        self.tell(CallRefused(self.number, self.key.host, self.key.model, kind, retry_after))
        if kind == "deadline":
            self._meet_deadline(self.world.monotonic())
        self._gave_up = True
        if answered is None:
            answered = self.fact is not None
        self._end("failure" if self.fact else "refused", kind.replace("_", " "))
        if answered:
            return DELIVER
        on_open = self.config.on_open
        respond = kind != "deadline" and (on_open == "respond" or (on_open == "auto" and self.sdk))
        return Refuse(kind, self.key.host, self.key.model, retry_after, respond)

    def finish(self, fact: Fact) -> None:
        """A later attempt succeeded."""
        if self.streaming:
            self._stream_opened(fact)
            return
        now = self.world.monotonic()
        self._record(fact, now)
        self._report(fact, now)
        self._end("success", "")


def story(call: Call, fact: Fact | None) -> Generator[Effect, Fact | None, None]:
    """One call, from its first failure to its end. Decides everything, does nothing.

    Args:
        call: the call.
        fact: what the first attempt taught us; ``None`` when it was not admitted and so not yet sent.

    Yields:
        Any number of `Send` (answered with a `Fact`) and `Pause`, then exactly one `Deliver` or `Refuse`.
    """
    while True:
        if fact is None:
            while (obstacle := call.enter()) is not None:
                yield obstacle
                if not isinstance(obstacle, Pause):
                    return
            fact = yield Send(call.timeout())
            if fact is None:
                raise AssertionError("a driver answers Send with a Fact")
        if fact.ok:
            call.finish(fact)
            yield DELIVER
            return
        decision = call.judge(fact)
        yield decision
        if not isinstance(decision, Pause):
            return
        fact = None


def _verdicts(fact: Fact, policy: ResolvedPolicy) -> tuple[Verdict, Verdict]:
    """What the circuits of the host and of the model are told, once the policy has had its say."""
    if policy.breaker == "auto":
        return fact.host, fact.model
    if policy.breaker == "ignore":
        return Verdict.NEUTRAL, Verdict.NEUTRAL
    return fact.host, Verdict.TRIP if policy.breaker == "trip" else Verdict.FAILURE
