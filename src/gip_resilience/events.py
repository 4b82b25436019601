"""What happened, as frozen values, and how to be told of it.

An observer is any object; it has a method for each kind of event it wants, named after the event::

    class Pager:
        def on_circuit_changed(self, event: CircuitChanged) -> None: ...

Observers are called in the thread or task of the call that caused the event, outside every lock. One that
raises is logged once and does not disturb the call.

No event holds a key, a prompt, a header's value or a body. Names that came from outside (hosts, models, codes) are
cut and stripped of control characters before they get here.

Events are `msgspec.Struct`: cheap to make (an event nobody wants is not made at all), comparable, and
``msgspec.to_builtins(event)`` is ready for JSON. ``call`` is the call's number, unique in its process, so that what
belongs together can be found together; what belongs to a whole scope (circuits, gates) carries none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, TypeAlias, get_args

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience._keys import CircuitKey
    from gip_resilience._report import Attempt, CallReport, Hop
    from gip_resilience.breaker import Control, Transition
    from gip_resilience.hints import Hint

__all__ = [
    "METHODS",
    "AttemptEnded",
    "AttemptStarted",
    "BudgetRefused",
    "CallEnded",
    "CallEvent",
    "CallGaveUp",
    "CallPaused",
    "CallRefused",
    "CallStarted",
    "CircuitChanged",
    "CircuitOverruled",
    "ConfigRejected",
    "ConfigReloaded",
    "DeadlineReached",
    "Event",
    "GateClosed",
    "GateOpened",
    "GateWaited",
    "HintHonoured",
    "HintRefused",
    "MarkerSupplied",
    "ProbeSent",
    "RetryScheduled",
    "ShadowRefused",
    "StateDegraded",
    "StateRestored",
    "StreamBroken",
    "StreamContinued",
    "StreamDiverged",
    "StreamOpened",
    "Trace",
    "Tracer",
]


class CallEvent(msgspec.Struct, frozen=True):
    """What every event of a call has.

    Attributes:
        call: number of the call.
        host: whom the call is for.
        model: the model, or an empty string.
    """

    call: int
    host: str
    model: str


# ---- calls and attempts ------------------------------------------------------------------------------------


class CallStarted(CallEvent, frozen=True):
    """A call begins.

    Attributes:
        part: which part of the model it is for; mostly empty.
        method: HTTP method.
        url: without user, password, query and fragment.
    """

    part: str
    method: str
    url: str


class AttemptStarted(CallEvent, frozen=True):
    """A request goes out.

    Attributes:
        number: of the attempt, from 1.
    """

    number: int


class AttemptEnded(CallEvent, frozen=True):
    """An attempt has its verdict: it was answered, or failed; a stream's comes when the stream ends.

    Attributes:
        attempt: what it came to.
    """

    attempt: Attempt


class RetryScheduled(CallEvent, frozen=True):
    """An attempt failed and another one follows.

    Attributes:
        code: the code of the failure.
        attempt: number of the attempt that failed, from 1.
        max_attempts: how many the call has, by the policies of what it met so far.
        wait: seconds until the next attempt.
        reason: what the wait is: ``backoff``, ``hint`` or ``gate``.
        maybe_executed: whether the failed attempt may have been executed all the same.
    """

    code: str
    attempt: int
    max_attempts: int
    wait: float
    reason: str
    maybe_executed: bool


class CallPaused(CallEvent, frozen=True):
    """A call waits, for whatever reason.

    Attributes:
        seconds: how long.
        reason: ``backoff``, ``hint``, ``gate``, ``circuit`` or ``store`` (a matter of milliseconds).
    """

    seconds: float
    reason: str


class HintHonoured(CallEvent, frozen=True):
    """The server said how long to wait, and the call waits at least as long.

    Attributes:
        code: the code of the failure.
        hint: what the server asked for.
        wait: seconds the call waits.
    """

    code: str
    hint: Hint
    wait: float


class HintRefused(CallEvent, frozen=True):
    """The server asked for a wait that is not waited: the call ends instead, and carries the hint.

    Attributes:
        code: the code of the failure.
        hint: what the server asked for.
        reason: why it is not waited.
    """

    code: str
    hint: Hint
    reason: str


class BudgetRefused(CallEvent, frozen=True):
    """A retry was not sent because the scope's retry budget is spent.

    Attributes:
        code: the code of the failure.
        cost: tokens the retry would have cost.
    """

    code: str
    cost: float


class DeadlineReached(CallEvent, frozen=True):
    """The call ends because of its deadline: it has passed, or the next wait would not end before it.

    Attributes:
        deadline: seconds the call was given.
        elapsed: seconds it has used.
    """

    deadline: float
    elapsed: float


class CallRefused(CallEvent, frozen=True):
    """A request was not sent: no leave was given, or none could be waited for.

    Attributes:
        kind: ``circuit_open``, ``rate_limited`` or ``deadline``.
        retry_after: seconds after which it makes sense to try again; ``None`` when nobody knows.
    """

    kind: str
    retry_after: float | None


class CallGaveUp(msgspec.Struct, frozen=True):
    """A call ends without success though its failure is one that is tried again.

    It was for want of attempts, budget, time, or leave. A failure that nobody would try again is handed up without
    this, and so is one that a layer above tries again.

    Attributes:
        call: number of the call.
        report: what it did.
    """

    call: int
    report: CallReport


class CallEnded(msgspec.Struct, frozen=True):
    """A call is over, one way or another.

    Attributes:
        call: number of the call.
        report: what it did.
    """

    call: int
    report: CallReport


# ---- what calls share --------------------------------------------------------------------------------------


class GateClosed(msgspec.Struct, frozen=True):
    """A rate-limit gate closed, or stays closed for longer.

    Attributes:
        host: whose.
        model: the model it is of; empty where it is the whole credential's.
        seconds: until it opens.
        source: ``hint`` (the server said how long), ``guess``, or ``quota`` (a good answer used it up).
        lengthened: it was closed already.
    """

    host: str
    model: str
    seconds: float
    source: str
    lengthened: bool = False


class GateOpened(msgspec.Struct, frozen=True):
    """The first caller passes a gate that was closed: it opens by the clock, and nobody looks until somebody comes.

    Attributes:
        host: whose.
        model: the model it is of; empty where it is the whole credential's.
        closed_for: seconds it was closed.
    """

    host: str
    model: str
    closed_for: float


class GateWaited(CallEvent, frozen=True):
    """A call found the rate-limit gate closed and waits ``wait`` seconds before its next attempt."""

    wait: float


class CircuitChanged(msgspec.Struct, frozen=True):
    """A circuit opened, closed, or let a probe through."""

    circuit: CircuitKey
    transition: Transition


class CircuitOverruled(msgspec.Struct, frozen=True):
    """An operator took a circuit's decisions over, or gave them back.

    Attributes:
        circuit: which.
        control: who decides from now on.
    """

    circuit: CircuitKey
    control: Control


class ProbeSent(msgspec.Struct, frozen=True):
    """A half-open circuit let one request through, to see."""

    circuit: CircuitKey


class ShadowRefused(msgspec.Struct, frozen=True):
    """A guard in ``metrics_only`` mode would have refused, or held, a request that goes out all the same.

    Attributes:
        host: whom the request is for.
        model: the model, or an empty string.
        guard: ``circuit``, ``gate`` or ``budget``.
    """

    host: str
    model: str
    guard: str


class StateDegraded(msgspec.Struct, frozen=True):
    """Shared state is not what it should be; calls go on with what there is.

    Attributes:
        component: which store.
        reason: what is wrong.
    """

    component: str
    reason: str


class StateRestored(msgspec.Struct, frozen=True):
    """Shared state is whole again.

    Attributes:
        component: which store.
    """

    component: str


# ---- event streams -----------------------------------------------------------------------------------------


class StreamOpened(CallEvent, frozen=True):
    """An event stream begins. The attempt's verdict, and the call's, come when it ends."""


class StreamBroken(CallEvent, frozen=True):
    """An event stream broke, and this is what is done about it.

    Attributes:
        hop: how it broke, and what is done.
    """

    hop: Hop


class StreamContinued(CallEvent, frozen=True):
    """A broken stream goes on: the attempt to mend it was answered.

    Attributes:
        action: how: ``restart``, ``resume`` or ``replay``.
        attempt: number of the attempt that goes on with it.
    """

    action: str
    attempt: int


class StreamDiverged(CallEvent, frozen=True):
    """A replay turned out to be another answer. Nothing of it was handed up.

    Attributes:
        hop: what is done.
    """

    hop: Hop


class MarkerSupplied(CallEvent, frozen=True):
    """An answer was whole but for its terminal marker, and was given one.

    Attributes:
        hop: how it ended.
    """

    hop: Hop


# ---- configuration -----------------------------------------------------------------------------------------


class ConfigReloaded(msgspec.Struct, frozen=True):
    """Another configuration is in force for the calls that start from now on.

    Attributes:
        source: the file it came from; empty where a program said it.
        changed: names of the settings that differ.
    """

    source: str
    changed: tuple[str, ...]


class ConfigRejected(msgspec.Struct, frozen=True):
    """A watched configuration file is wrong, or gone; the old configuration stays in force.

    Attributes:
        source: the file.
        reason: what is wrong, with the setting's path; the value is quoted, cut to 40 characters.
    """

    source: str
    reason: str


Event: TypeAlias = (
    CallStarted
    | AttemptStarted
    | AttemptEnded
    | RetryScheduled
    | CallPaused
    | HintHonoured
    | HintRefused
    | BudgetRefused
    | DeadlineReached
    | CallRefused
    | CallGaveUp
    | CallEnded
    | GateClosed
    | GateOpened
    | GateWaited
    | CircuitChanged
    | CircuitOverruled
    | ProbeSent
    | ShadowRefused
    | StateDegraded
    | StateRestored
    | StreamOpened
    | StreamBroken
    | StreamContinued
    | StreamDiverged
    | MarkerSupplied
    | ConfigReloaded
    | ConfigRejected
)

METHODS: dict[type[Event], str] = {
    kind: "on" + re.sub(r"(?=[A-Z])", "_", kind.__name__).lower() for kind in get_args(Event)
}
"""The observer's method for each kind of event: ``on_`` and its name."""


# ---- telling -----------------------------------------------------------------------------------------------


class Trace(Protocol):
    """What follows one call closely; made by a tracer's ``trace`` when the call starts.

    Belongs to the call, and to one thread or task at a time as the call does. What it raises is logged once and
    disturbs nothing.

    Attributes:
        surrounds: whether `enter` and `leave` are wanted at all.
    """

    surrounds: bool

    def tell(self, event: Event) -> None:
        """Something happened to the call. It is told everything but what starts: `CallStarted`, `AttemptStarted`."""

    def enter(self, number: int) -> Mapping[str, str]:
        """Attempt *number* is about to be sent, by this thread or task. Returns headers for it to carry."""

    def leave(self) -> None:
        """The attempt has an answer, or failed; its body is yet to be read. Same thread or task as `enter`."""


class Tracer(Protocol):
    """An observer that follows each call by itself."""

    def trace(self, started: CallStarted) -> Trace | None:
        """A call starts. ``None`` for not this one."""
