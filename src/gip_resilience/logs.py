"""One log line for each thing that happens to calls and that a person may have to know.

Everything goes to the logger ``gip_resilience``. INFO tells what was done about a failure (a retry, a wait, a
circuit that closes), WARNING what may need somebody (a circuit opens, a call is refused, a setting is wrong), and
ERROR that a call was given up although its failure is one that is tried again. An error that nobody would try again,
such as a 400, is the caller's business and no line of ours.

Lines are for people; their ``extra`` is for machines: flat, plain values, all named ``gip_...`` (``gip_event``,
``gip_call``, ``gip_host``, ``gip_model``, ``gip_code``, ...). Where the program has configured structlog the lines go
there, with the same names without ``gip_``.

A storm is not written down line by line: of each kind ``observe.log_burst`` lines are written at once and
``observe.log_rate`` per second after that, and the next line says how many were left out.

A line never holds a key, a header's value, a prompt or a body. Names that came from outside are cut and stripped of
control characters before they reach us, so a line stays a line.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from gip_resilience._config_groups import ObserveConfig
from gip_resilience._log_limits import NONE, LineLimits
from gip_resilience.breaker import Control, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience import events
    from gip_resilience._report import CallReport

logger = logging.getLogger("gip_resilience")

MAX_TEXT = 300
"""Characters of a reason or a file name that came from elsewhere."""

Value: TypeAlias = str | int | float | bool | None
Fields: TypeAlias = dict[str, Value]
_OfCircuit: TypeAlias = "events.CircuitChanged | events.CircuitOverruled | events.ProbeSent"

_NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


def structured(level: int) -> Callable[..., object] | None:
    """The method of structlog's logger for *level*, where the program has configured structlog; else ``None``.

    Asked for each line, since a program may configure it after we are made. We never import it ourselves.
    """
    structlog = sys.modules.get("structlog")
    configured = getattr(structlog, "is_configured", None)  # absent while the import is still under way
    if structlog is None or configured is None or not configured():
        return None
    try:
        bound = structlog.get_logger("gip_resilience").bind()
    except Exception:  # an awaiting logger cannot be made outside a loop; the line must not be lost
        return None
    kind = type(bound)  # asked of the logger itself, structlog's plainest one takes any name for a level
    if hasattr(kind, "sync_bl"):
        bound = bound.sync_bl  # nobody would await the lines of an awaiting one
        kind = type(bound)
    if hasattr(kind, "is_enabled_for") and not bound.is_enabled_for(level):
        return _nothing
    method: Callable[..., object] | None = getattr(bound, _NAMES[level], None)
    return method


def _nothing(*args: object, **fields: object) -> None:
    """Where a line goes that structlog would drop."""


class _Lines:
    """Writes lines; what both observers share. ``limits`` may be ``None`` for no limit."""

    def __init__(self, limits: LineLimits | None, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic

    def say(self, level: int, event: str, make: Callable[[Any], tuple[str, Fields]], about: Any) -> None:
        """Write one line, unless its level is off or there were too many of its kind.

        ``make`` makes text and fields *about* the event; it is called only for a line that is written.
        """
        write = structured(level)
        if write is _nothing or (write is None and not logger.isEnabledFor(level)):
            return
        limits = self._limits
        before = NONE if limits is None else limits.take(f"{event}:{level}", self._monotonic())
        if before is None:
            return
        text, fields = make(about)
        if before.lines:
            fields["left_out"] = before.lines
            fields["left_out_seconds"] = round(before.seconds, 3)
            text = f"{text} ({before.lines} more like it in {before.seconds:.1f} s)"
        if write is not None:
            write(event, **fields)
            return
        extra = {f"gip_{name}": value for name, value in fields.items()}
        # Without arguments: what groups lines by their template would take all of ours for one.
        logger.log(level, text, extra={"gip_event": event, **extra})


class LogObserver:
    """The observer that every `Resilience` has.

    It does not listen to what happens to every call, so that a call that succeeds at once costs nothing here; see
    `DebugLog`.

    Args:
        monotonic: seconds on a clock that does not go back; only for the limits.
        limits: how many lines of one kind are written.

    Thread-safe and task-safe: no lock is held while a line is written, so that a handler may do what it likes.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, limits: ObserveConfig | None = None
    ) -> None:
        chosen = ObserveConfig() if limits is None else limits
        self._limits = LineLimits(chosen.log_burst, chosen.log_rate)
        self._say = _Lines(self._limits, monotonic).say

    def limit(self, limits: ObserveConfig) -> None:
        """Change how many lines of one kind are written."""
        self._limits.limit(limits.log_burst, limits.log_rate)

    # ---- calls -------------------------------------------------------------------------------------------

    def on_retry_scheduled(self, event: events.RetryScheduled) -> None:
        """INFO."""
        self._say(logging.INFO, "retry_scheduled", _retry, event)

    def on_hint_honoured(self, event: events.HintHonoured) -> None:
        """INFO."""
        self._say(logging.INFO, "hint_honoured", _hint_honoured, event)

    def on_hint_refused(self, event: events.HintRefused) -> None:
        """WARNING."""
        self._say(logging.WARNING, "hint_refused", _hint_refused, event)

    def on_budget_refused(self, event: events.BudgetRefused) -> None:
        """WARNING."""
        self._say(logging.WARNING, "budget_refused", _budget_refused, event)

    def on_call_gave_up(self, event: events.CallGaveUp) -> None:
        """ERROR, for want of attempts, budget or time; WARNING where nothing was sent.

        What was not sent was kept back on purpose, because of a circuit or a gate that has had a line of its own.
        """
        refused = event.report.outcome == "refused"
        self._say(logging.WARNING if refused else logging.ERROR, "call_gave_up", _gave_up, event)

    # ---- what calls share --------------------------------------------------------------------------------

    def on_gate_waited(self, event: events.GateWaited) -> None:
        """INFO."""
        self._say(logging.INFO, "gate_waited", _gate_waited, event)

    def on_gate_closed(self, event: events.GateClosed) -> None:
        """INFO; DEBUG where it was closed already: each late answer to a burst lengthens it by a little."""
        self._say(logging.DEBUG if event.lengthened else logging.INFO, "gate_closed", _gate_closed, event)

    def on_gate_opened(self, event: events.GateOpened) -> None:
        """INFO."""
        self._say(logging.INFO, "gate_opened", _gate_opened, event)

    def on_circuit_changed(self, event: events.CircuitChanged) -> None:
        """WARNING when it opens, INFO otherwise."""
        opens = event.transition.after is State.OPEN
        self._say(logging.WARNING if opens else logging.INFO, "circuit_changed", _circuit_changed, event)

    def on_circuit_overruled(self, event: events.CircuitOverruled) -> None:
        """WARNING while an operator's word is in force, INFO when it is taken back."""
        level = logging.INFO if event.control is Control.AUTO else logging.WARNING
        self._say(level, "circuit_overruled", _circuit_overruled, event)

    def on_probe_sent(self, event: events.ProbeSent) -> None:
        """INFO."""
        self._say(logging.INFO, "probe_sent", _probe_sent, event)

    def on_shadow_refused(self, event: events.ShadowRefused) -> None:
        """INFO: nothing was refused, and somebody wants to see what would have been."""
        self._say(logging.INFO, "shadow_refused", _shadow_refused, event)

    def on_state_degraded(self, event: events.StateDegraded) -> None:
        """WARNING."""
        self._say(logging.WARNING, "state_degraded", _state_degraded, event)

    def on_state_restored(self, event: events.StateRestored) -> None:
        """INFO."""
        self._say(logging.INFO, "state_restored", _state_restored, event)

    # ---- event streams -----------------------------------------------------------------------------------

    def on_stream_broken(self, event: events.StreamBroken) -> None:
        """WARNING where nothing can be done, INFO otherwise.

        Nothing where another event says it better: a replay that diverged, a marker that was supplied.
        """
        hop = event.hop
        if hop.code == "stream_diverged" or hop.action == "marker":
            return
        level = logging.WARNING if hop.action in {"fail", "unguarded"} else logging.INFO
        self._say(level, "stream_broken", _stream_broken, event)

    def on_stream_continued(self, event: events.StreamContinued) -> None:
        """INFO."""
        self._say(logging.INFO, "stream_continued", _stream_continued, event)

    def on_stream_diverged(self, event: events.StreamDiverged) -> None:
        """WARNING."""
        self._say(logging.WARNING, "stream_diverged", _stream_diverged, event)

    def on_marker_supplied(self, event: events.MarkerSupplied) -> None:
        """INFO."""
        self._say(logging.INFO, "marker_supplied", _marker_supplied, event)

    # ---- configuration -----------------------------------------------------------------------------------

    def on_config_reloaded(self, event: events.ConfigReloaded) -> None:
        """INFO."""
        self._say(logging.INFO, "config_reloaded", _config_reloaded, event)

    def on_config_rejected(self, event: events.ConfigRejected) -> None:
        """WARNING."""
        self._say(logging.WARNING, "config_rejected", _config_rejected, event)


class DebugLog:
    """Logs every call and every attempt at DEBUG; for whoever looks for a fault.

    Add it where it is wanted, ``Resilience(observers=[DebugLog()])``: from then on every call pays for its events,
    also while DEBUG is off. There is no limit to its lines.
    """

    def __init__(self) -> None:
        self._say = _Lines(None, time.monotonic).say

    def on_call_started(self, event: events.CallStarted) -> None:
        """A call begins."""
        self._say(logging.DEBUG, "call_started", _call_started, event)

    def on_attempt_started(self, event: events.AttemptStarted) -> None:
        """A request goes out."""
        self._say(logging.DEBUG, "attempt_started", _attempt_started, event)

    def on_attempt_ended(self, event: events.AttemptEnded) -> None:
        """An attempt has its verdict."""
        self._say(logging.DEBUG, "attempt_ended", _attempt_ended, event)

    def on_stream_opened(self, event: events.StreamOpened) -> None:
        """An event stream begins."""
        self._say(logging.DEBUG, "stream_opened", _stream_opened, event)

    def on_call_refused(self, event: events.CallRefused) -> None:
        """A request was not sent."""
        self._say(logging.DEBUG, "call_refused", _call_refused, event)

    def on_deadline_reached(self, event: events.DeadlineReached) -> None:
        """A call ends because of its deadline."""
        self._say(logging.DEBUG, "deadline_reached", _deadline_reached, event)

    def on_call_ended(self, event: events.CallEnded) -> None:
        """A call is over."""
        self._say(logging.DEBUG, "call_ended", _call_ended, event)


# ---- the words -----------------------------------------------------------------------------------------------


def _of(event: events.CallEvent, **more: Value) -> Fields:
    return {"call": event.call, "host": event.host, "model": event.model, **more}


def _pick(thing: object, *names: str) -> Fields:
    return {name: getattr(thing, name) for name in names}


def _at(event: events.CallEvent | events.GateClosed | events.GateOpened | events.ShadowRefused) -> str:
    return f"{event.host} {event.model or '-'}"


def _circuit(event: _OfCircuit) -> str:
    return " ".join(part for part in ("circuit", *event.circuit) if part)


def _scope(event: _OfCircuit) -> Fields:
    return {"host": event.circuit.host, "model": event.circuit.model}


def _prose(text: str) -> str:
    """Text that may quote a store or a file, as part of one line."""
    cut = text[:MAX_TEXT]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)


def _doubt(maybe_executed: bool) -> str:
    return ", may have been executed" if maybe_executed else ""


def _retry(event: events.RetryScheduled) -> tuple[str, Fields]:
    text = (
        f"retry {_at(event)}: {event.code}, attempt {event.attempt} of {event.max_attempts},"
        f" waiting {event.wait:.3f} s ({event.reason}){_doubt(event.maybe_executed)}"
    )
    names = "code", "attempt", "max_attempts", "wait", "reason", "maybe_executed"
    return text, _of(event, **_pick(event, *names))


def _hint_honoured(event: events.HintHonoured) -> tuple[str, Fields]:
    hint = event.hint
    text = f"hint {_at(event)}: {event.code}, server asked for {hint.seconds:g} s ({hint.source}), honoured"
    return text, _of(event, code=event.code, hint=hint.seconds, hint_source=hint.source, wait=event.wait)


def _hint_refused(event: events.HintRefused) -> tuple[str, Fields]:
    hint = event.hint
    text = (
        f"hint {_at(event)}: {event.code}, server asked for {hint.seconds:g} s ({hint.source}),"
        f" not waited: {event.reason}"
    )
    return text, _of(event, code=event.code, hint=hint.seconds, hint_source=hint.source, reason=event.reason)


def _budget_refused(event: events.BudgetRefused) -> tuple[str, Fields]:
    text = f"budget {_at(event)}: {event.code} is not tried again, the retry budget is spent"
    return text, _of(event, code=event.code, cost=event.cost)


def _gave_up(event: events.CallGaveUp) -> tuple[str, Fields]:
    report = event.report
    what = f"{len(report.attempts)} attempt(s) in" if report.attempts else "nothing was sent,"
    last = f"{report.attempts[-1].code}, " if report.attempts else ""
    text = (
        f"gave up {report.host} {_model(report)}: {last}{what} {report.elapsed:.3f} s ({report.reason})"
        f"{_doubt(report.maybe_executed)}"
    )
    return text, _reported(event.call, report)


def _gate_waited(event: events.GateWaited) -> tuple[str, Fields]:
    return f"rate limited {_at(event)}: waiting {event.wait:.3f} s", _of(event, wait=event.wait)


def _gate_closed(event: events.GateClosed) -> tuple[str, Fields]:
    done = "stays closed" if event.lengthened else "closed"
    text = f"gate {_at(event)}: {done} for {event.seconds:.3f} s ({event.source})"
    where: Fields = {"host": event.host, "model": event.model}
    return text, {**where, "wait": event.seconds, "source": event.source, "lengthened": event.lengthened}


def _gate_opened(event: events.GateOpened) -> tuple[str, Fields]:
    text = f"gate {_at(event)}: open again after {event.closed_for:.3f} s"
    return text, {"host": event.host, "model": event.model, "closed_for": event.closed_for}


def _circuit_changed(event: events.CircuitChanged) -> tuple[str, Fields]:
    change = event.transition
    lasting = "" if change.open_for is None else f", for {change.open_for:.3f} s"
    text = f"{_circuit(event)}: {change.before} -> {change.after} ({change.reason}{lasting})"
    return text, {
        **_scope(event),
        "before": str(change.before),
        "after": str(change.after),
        "reason": str(change.reason),
        "open_for": change.open_for,
    }


def _circuit_overruled(event: events.CircuitOverruled) -> tuple[str, Fields]:
    control = str(event.control)
    return f"{_circuit(event)}: set to {control} by an operator", {**_scope(event), "control": control}


def _probe_sent(event: events.ProbeSent) -> tuple[str, Fields]:
    return f"{_circuit(event)}: probe sent", _scope(event)


def _shadow_refused(event: events.ShadowRefused) -> tuple[str, Fields]:
    text = f"metrics only {_at(event)}: the {event.guard} would have refused or held a request"
    return text, {"host": event.host, "model": event.model, "guard": event.guard}


def _state_degraded(event: events.StateDegraded) -> tuple[str, Fields]:
    reason = _prose(event.reason)
    return f"state {event.component}: degraded: {reason}", {"component": event.component, "reason": reason}


def _state_restored(event: events.StateRestored) -> tuple[str, Fields]:
    return f"state {event.component}: whole again", {"component": event.component}


def _hop(event: events.StreamBroken | events.StreamDiverged | events.MarkerSupplied) -> Fields:
    hop = event.hop
    return _of(event, code=hop.code, action=hop.action, phase=hop.phase, events=hop.events, reason=hop.reason)


def _stream_broken(event: events.StreamBroken) -> tuple[str, Fields]:
    return f"stream {_at(event)}: {event.hop}", _hop(event)


def _stream_continued(event: events.StreamContinued) -> tuple[str, Fields]:
    text = f"stream {_at(event)}: goes on by {event.action}, attempt {event.attempt}"
    return text, _of(event, action=event.action, attempt=event.attempt)


def _stream_diverged(event: events.StreamDiverged) -> tuple[str, Fields]:
    text = f"stream {_at(event)}: the replay is another answer, nothing of it was used: {event.hop.action}"
    return text, _hop(event)


def _marker_supplied(event: events.MarkerSupplied) -> tuple[str, Fields]:
    text = f"stream {_at(event)}: {event.hop.code} with only the terminal marker missing, supplied"
    return text, _hop(event)


def _config_reloaded(event: events.ConfigReloaded) -> tuple[str, Fields]:
    source, changed = _prose(event.source), ", ".join(event.changed)
    where = f" from {source}" if source else ""
    return f"config reloaded{where}, changed: {changed or 'nothing'}", {"source": source, "changed": changed}


def _config_rejected(event: events.ConfigRejected) -> tuple[str, Fields]:
    source, reason = _prose(event.source), _prose(event.reason)
    text = f"config {source} rejected, the old one stays in force: {reason}"
    return text, {"source": source, "reason": reason}


# ---- the words of DEBUG --------------------------------------------------------------------------------------


def _call_started(event: events.CallStarted) -> tuple[str, Fields]:
    text = f"call {event.call} {_at(event)}: {event.method} {event.url}".rstrip()
    return text, _of(event, part=event.part, method=event.method, url=event.url)


def _attempt_started(event: events.AttemptStarted) -> tuple[str, Fields]:
    return f"call {event.call} {_at(event)}: attempt {event.number}", _of(event, attempt=event.number)


def _attempt_ended(event: events.AttemptEnded) -> tuple[str, Fields]:
    attempt = event.attempt
    hint = attempt.hint
    text = (
        f"call {event.call} {_at(event)}: attempt {attempt.number}: {attempt.code}"
        f" ({attempt.status or 'no answer'}) in {attempt.elapsed:.3f} s{_doubt(attempt.maybe_executed)}"
    )
    asked = None if hint is None else hint.seconds
    names = "code", "status", "elapsed", "waited", "maybe_executed"
    return text, _of(event, attempt=attempt.number, hint=asked, **_pick(attempt, *names))


def _stream_opened(event: events.StreamOpened) -> tuple[str, Fields]:
    return f"call {event.call} {_at(event)}: stream opened", _of(event)


def _call_refused(event: events.CallRefused) -> tuple[str, Fields]:
    later = "" if event.retry_after is None else f", again in {event.retry_after:.3f} s"
    text = f"call {event.call} {_at(event)}: not sent ({event.kind}{later})"
    return text, _of(event, kind=event.kind, retry_after=event.retry_after)


def _deadline_reached(event: events.DeadlineReached) -> tuple[str, Fields]:
    text = f"call {event.call} {_at(event)}: deadline of {event.deadline:g} s after {event.elapsed:.3f} s"
    return text, _of(event, deadline=event.deadline, elapsed=event.elapsed)


def _call_ended(event: events.CallEnded) -> tuple[str, Fields]:
    report = event.report
    why = f" ({report.reason})" if report.reason else ""
    text = (
        f"call {event.call} {report.host} {_model(report)}: {report.outcome} after"
        f" {len(report.attempts)} attempt(s) in {report.elapsed:.3f} s{why}"
    )
    return text, _reported(event.call, report)


def _model(report: CallReport) -> str:
    """The model by the name its circuit has."""
    return (f"{report.model}@{report.part}" if report.part else report.model) or "-"


def _reported(call: int, report: CallReport) -> Fields:
    last = report.attempts[-1] if report.attempts else None
    names = "host", "model", "part", "outcome", "reason", "elapsed", "waited", "maybe_executed"
    return {
        "call": call,
        **_pick(report, *names),
        "code": None if last is None else last.code,
        "status": None if last is None else last.status,
        "attempts": len(report.attempts),
    }
