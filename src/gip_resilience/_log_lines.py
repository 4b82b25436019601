"""What a log line says of each event: text for people, fields for machines. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from gip_resilience import events
    from gip_resilience._report import CallReport

MAX_TEXT = 300
"""Characters of a reason or a file name that came from elsewhere."""

Value: TypeAlias = str | int | float | bool | None
Fields: TypeAlias = dict[str, Value]
Line: TypeAlias = tuple[str, Fields]
_OfCircuit: TypeAlias = "events.CircuitChanged | events.CircuitOverruled | events.ProbeSent"


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


def doubt(maybe_executed: bool) -> str:
    """What a line says of a request that nobody knows the fate of."""
    return ", may have been executed" if maybe_executed else ""


def retry(event: events.RetryScheduled) -> Line:
    """See `gip_resilience.events`."""
    text = (
        f"retry {_at(event)}: {event.code}, attempt {event.attempt} of {event.max_attempts},"
        f" waiting {event.wait:.3f} s ({event.reason}){doubt(event.maybe_executed)}"
    )
    names = "code", "attempt", "max_attempts", "wait", "reason", "maybe_executed"
    return text, _of(event, **_pick(event, *names))


def hint_honoured(event: events.HintHonoured) -> Line:
    """See `gip_resilience.events`."""
    hint = event.hint
    text = f"hint {_at(event)}: {event.code}, server asked for {hint.seconds:g} s ({hint.source}), honoured"
    return text, _of(event, code=event.code, hint=hint.seconds, hint_source=hint.source, wait=event.wait)


def hint_refused(event: events.HintRefused) -> Line:
    """See `gip_resilience.events`."""
    hint = event.hint
    text = (
        f"hint {_at(event)}: {event.code}, server asked for {hint.seconds:g} s ({hint.source}),"
        f" not waited: {event.reason}"
    )
    return text, _of(event, code=event.code, hint=hint.seconds, hint_source=hint.source, reason=event.reason)


def budget_refused(event: events.BudgetRefused) -> Line:
    """See `gip_resilience.events`."""
    text = f"budget {_at(event)}: {event.code} is not tried again, the retry budget is spent"
    return text, _of(event, code=event.code, cost=event.cost)


def gave_up(event: events.CallGaveUp) -> Line:
    """See `gip_resilience.events`."""
    report = event.report
    what = f"{len(report.attempts)} attempt(s) in" if report.attempts else "nothing was sent,"
    last = f"{report.attempts[-1].code}, " if report.attempts else ""
    text = (
        f"gave up {report.host} {_model(report)}: {last}{what} {report.elapsed:.3f} s ({report.reason})"
        f"{doubt(report.maybe_executed)}"
    )
    return text, _reported(event.call, report)


def gate_waited(event: events.GateWaited) -> Line:
    """See `gip_resilience.events`."""
    return f"rate limited {_at(event)}: waiting {event.wait:.3f} s", _of(event, wait=event.wait)


def gate_closed(event: events.GateClosed) -> Line:
    """See `gip_resilience.events`."""
    done = "stays closed" if event.lengthened else "closed"
    text = f"gate {_at(event)}: {done} for {event.seconds:.3f} s ({event.source})"
    where: Fields = {"host": event.host, "model": event.model}
    return text, {**where, "wait": event.seconds, "source": event.source, "lengthened": event.lengthened}


def gate_opened(event: events.GateOpened) -> Line:
    """See `gip_resilience.events`."""
    text = f"gate {_at(event)}: open again after {event.closed_for:.3f} s"
    return text, {"host": event.host, "model": event.model, "closed_for": event.closed_for}


def circuit_changed(event: events.CircuitChanged) -> Line:
    """See `gip_resilience.events`."""
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


def circuit_overruled(event: events.CircuitOverruled) -> Line:
    """See `gip_resilience.events`."""
    control = str(event.control)
    return f"{_circuit(event)}: set to {control} by an operator", {**_scope(event), "control": control}


def probe_sent(event: events.ProbeSent) -> Line:
    """See `gip_resilience.events`."""
    return f"{_circuit(event)}: probe sent", _scope(event)


def shadow_refused(event: events.ShadowRefused) -> Line:
    """See `gip_resilience.events`."""
    text = f"metrics only {_at(event)}: the {event.guard} would have refused or held a request"
    return text, {"host": event.host, "model": event.model, "guard": event.guard}


def state_degraded(event: events.StateDegraded) -> Line:
    """See `gip_resilience.events`."""
    reason = _prose(event.reason)
    return f"state {event.component}: degraded: {reason}", {"component": event.component, "reason": reason}


def state_restored(event: events.StateRestored) -> Line:
    """See `gip_resilience.events`."""
    return f"state {event.component}: whole again", {"component": event.component}


def hop(event: events.StreamBroken | events.StreamDiverged | events.MarkerSupplied) -> Fields:
    """Where a stream broke, and what is done about it."""
    hop = event.hop
    return _of(event, code=hop.code, action=hop.action, phase=hop.phase, events=hop.events, reason=hop.reason)


def stream_broken(event: events.StreamBroken) -> Line:
    """See `gip_resilience.events`."""
    return f"stream {_at(event)}: {event.hop}", hop(event)


def stream_continued(event: events.StreamContinued) -> Line:
    """See `gip_resilience.events`."""
    text = f"stream {_at(event)}: goes on by {event.action}, attempt {event.attempt}"
    return text, _of(event, action=event.action, attempt=event.attempt)


def stream_diverged(event: events.StreamDiverged) -> Line:
    """See `gip_resilience.events`."""
    text = f"stream {_at(event)}: the replay is another answer, nothing of it was used: {event.hop.action}"
    return text, hop(event)


def marker_supplied(event: events.MarkerSupplied) -> Line:
    """See `gip_resilience.events`."""
    text = f"stream {_at(event)}: {event.hop.code} with only the terminal marker missing, supplied"
    return text, hop(event)


def config_reloaded(event: events.ConfigReloaded) -> Line:
    """See `gip_resilience.events`."""
    source, changed = _prose(event.source), ", ".join(event.changed)
    where = f" from {source}" if source else ""
    return f"config reloaded{where}, changed: {changed or 'nothing'}", {"source": source, "changed": changed}


def config_rejected(event: events.ConfigRejected) -> Line:
    """See `gip_resilience.events`."""
    source, reason = _prose(event.source), _prose(event.reason)
    text = f"config {source} rejected, the old one stays in force: {reason}"
    return text, {"source": source, "reason": reason}


# ---- the words of DEBUG --------------------------------------------------------------------------------------


def call_started(event: events.CallStarted) -> Line:
    """See `gip_resilience.events`."""
    text = f"call {event.call} {_at(event)}: {event.method} {event.url}".rstrip()
    return text, _of(event, part=event.part, method=event.method, url=event.url)


def attempt_started(event: events.AttemptStarted) -> Line:
    """See `gip_resilience.events`."""
    return f"call {event.call} {_at(event)}: attempt {event.number}", _of(event, attempt=event.number)


def attempt_ended(event: events.AttemptEnded) -> Line:
    """See `gip_resilience.events`."""
    attempt = event.attempt
    hint = attempt.hint
    text = (
        f"call {event.call} {_at(event)}: attempt {attempt.number}: {attempt.code}"
        f" ({attempt.status or 'no answer'}) in {attempt.elapsed:.3f} s{doubt(attempt.maybe_executed)}"
    )
    asked = None if hint is None else hint.seconds
    names = "code", "status", "elapsed", "waited", "maybe_executed"
    return text, _of(event, attempt=attempt.number, hint=asked, **_pick(attempt, *names))


def stream_opened(event: events.StreamOpened) -> Line:
    """See `gip_resilience.events`."""
    return f"call {event.call} {_at(event)}: stream opened", _of(event)


def call_refused(event: events.CallRefused) -> Line:
    """See `gip_resilience.events`."""
    later = "" if event.retry_after is None else f", again in {event.retry_after:.3f} s"
    text = f"call {event.call} {_at(event)}: not sent ({event.kind}{later})"
    return text, _of(event, kind=event.kind, retry_after=event.retry_after)


def deadline_reached(event: events.DeadlineReached) -> Line:
    """See `gip_resilience.events`."""
    text = f"call {event.call} {_at(event)}: deadline of {event.deadline:g} s after {event.elapsed:.3f} s"
    return text, _of(event, deadline=event.deadline, elapsed=event.elapsed)


def call_ended(event: events.CallEnded) -> Line:
    """See `gip_resilience.events`."""
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


def call_paused(event: events.CallPaused) -> Line:
    """See `gip_resilience.events`."""
    text = f"call {event.call} {_at(event)}: waits {event.seconds:.3f} s ({event.reason})"
    return text, _of(event, seconds=event.seconds, reason=event.reason)
