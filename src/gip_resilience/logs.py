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
from typing import TYPE_CHECKING, Any

from gip_resilience import _log_lines as words
from gip_resilience._config_groups import ObserveConfig
from gip_resilience._log_limits import NONE, LineLimits
from gip_resilience.breaker import Control, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience import events

__all__ = ["DebugLog", "LogObserver", "logger", "structured"]

logger = logging.getLogger("gip_resilience")

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

    def use_clock(self, monotonic: Callable[[], float]) -> None:
        """Count time by another clock, which is not behind."""
        self._monotonic = monotonic

    def say(self, level: int, event: str, make: Callable[[Any], words.Line], about: Any) -> None:
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
        lines = _Lines(self._limits, monotonic)
        self.use_clock = lines.use_clock
        self._say = lines.say

    def limit(self, limits: ObserveConfig) -> None:
        """Change how many lines of one kind are written."""
        self._limits.limit(limits.log_burst, limits.log_rate)

    # ---- calls -------------------------------------------------------------------------------------------

    def on_retry_scheduled(self, event: events.RetryScheduled) -> None:
        """INFO."""
        self._say(logging.INFO, "retry_scheduled", words.retry, event)

    def on_hint_honoured(self, event: events.HintHonoured) -> None:
        """INFO."""
        self._say(logging.INFO, "hint_honoured", words.hint_honoured, event)

    def on_hint_refused(self, event: events.HintRefused) -> None:
        """WARNING."""
        self._say(logging.WARNING, "hint_refused", words.hint_refused, event)

    def on_budget_refused(self, event: events.BudgetRefused) -> None:
        """WARNING."""
        self._say(logging.WARNING, "budget_refused", words.budget_refused, event)

    def on_call_gave_up(self, event: events.CallGaveUp) -> None:
        """ERROR, for want of attempts, budget or time; WARNING where nothing was sent.

        What was not sent was kept back on purpose, because of a circuit or a gate that has had a line of its own.
        """
        refused = event.report.outcome == "refused"
        self._say(logging.WARNING if refused else logging.ERROR, "call_gave_up", words.gave_up, event)

    # ---- what calls share --------------------------------------------------------------------------------

    def on_gate_waited(self, event: events.GateWaited) -> None:
        """INFO."""
        self._say(logging.INFO, "gate_waited", words.gate_waited, event)

    def on_gate_closed(self, event: events.GateClosed) -> None:
        """INFO; DEBUG where it was closed already: each late answer to a burst lengthens it by a little."""
        self._say(
            logging.DEBUG if event.lengthened else logging.INFO, "gate_closed", words.gate_closed, event
        )

    def on_gate_opened(self, event: events.GateOpened) -> None:
        """INFO."""
        self._say(logging.INFO, "gate_opened", words.gate_opened, event)

    def on_circuit_changed(self, event: events.CircuitChanged) -> None:
        """WARNING when it opens, INFO otherwise."""
        opens = event.transition.after is State.OPEN
        self._say(logging.WARNING if opens else logging.INFO, "circuit_changed", words.circuit_changed, event)

    def on_circuit_overruled(self, event: events.CircuitOverruled) -> None:
        """WARNING while an operator's word is in force, INFO when it is taken back."""
        level = logging.INFO if event.control is Control.AUTO else logging.WARNING
        self._say(level, "circuit_overruled", words.circuit_overruled, event)

    def on_probe_sent(self, event: events.ProbeSent) -> None:
        """INFO."""
        self._say(logging.INFO, "probe_sent", words.probe_sent, event)

    def on_shadow_refused(self, event: events.ShadowRefused) -> None:
        """INFO: nothing was refused, and somebody wants to see what would have been."""
        self._say(logging.INFO, "shadow_refused", words.shadow_refused, event)

    def on_state_degraded(self, event: events.StateDegraded) -> None:
        """WARNING."""
        self._say(logging.WARNING, "state_degraded", words.state_degraded, event)

    def on_state_restored(self, event: events.StateRestored) -> None:
        """INFO."""
        self._say(logging.INFO, "state_restored", words.state_restored, event)

    # ---- event streams -----------------------------------------------------------------------------------

    def on_stream_broken(self, event: events.StreamBroken) -> None:
        """WARNING where nothing can be done, INFO otherwise.

        Nothing where another event says it better: a replay that diverged, a marker that was supplied.
        """
        hop = event.hop
        if hop.code == "stream_diverged" or hop.action == "marker":
            return
        level = logging.WARNING if hop.action in {"fail", "unguarded"} else logging.INFO
        self._say(level, "stream_broken", words.stream_broken, event)

    def on_stream_continued(self, event: events.StreamContinued) -> None:
        """INFO."""
        self._say(logging.INFO, "stream_continued", words.stream_continued, event)

    def on_stream_diverged(self, event: events.StreamDiverged) -> None:
        """WARNING."""
        self._say(logging.WARNING, "stream_diverged", words.stream_diverged, event)

    def on_marker_supplied(self, event: events.MarkerSupplied) -> None:
        """INFO."""
        self._say(logging.INFO, "marker_supplied", words.marker_supplied, event)

    # ---- configuration -----------------------------------------------------------------------------------

    def on_config_reloaded(self, event: events.ConfigReloaded) -> None:
        """INFO."""
        self._say(logging.INFO, "config_reloaded", words.config_reloaded, event)

    def on_config_rejected(self, event: events.ConfigRejected) -> None:
        """WARNING."""
        self._say(logging.WARNING, "config_rejected", words.config_rejected, event)


class DebugLog:
    """Logs every call and every attempt at DEBUG; for whoever looks for a fault.

    Add it where it is wanted, ``Resilience(observers=[DebugLog()])``: from then on every call pays for its events,
    also while DEBUG is off. There is no limit to its lines.
    """

    def __init__(self) -> None:
        self._say = _Lines(None, time.monotonic).say

    def on_call_started(self, event: events.CallStarted) -> None:
        """A call begins."""
        self._say(logging.DEBUG, "call_started", words.call_started, event)

    def on_attempt_started(self, event: events.AttemptStarted) -> None:
        """A request goes out."""
        self._say(logging.DEBUG, "attempt_started", words.attempt_started, event)

    def on_attempt_ended(self, event: events.AttemptEnded) -> None:
        """An attempt has its verdict."""
        self._say(logging.DEBUG, "attempt_ended", words.attempt_ended, event)

    def on_stream_opened(self, event: events.StreamOpened) -> None:
        """An event stream begins."""
        self._say(logging.DEBUG, "stream_opened", words.stream_opened, event)

    def on_call_refused(self, event: events.CallRefused) -> None:
        """A request was not sent."""
        self._say(logging.DEBUG, "call_refused", words.call_refused, event)

    def on_call_paused(self, event: events.CallPaused) -> None:
        """A call waits."""
        self._say(logging.DEBUG, "call_paused", words.call_paused, event)

    def on_deadline_reached(self, event: events.DeadlineReached) -> None:
        """A call ends because of its deadline."""
        self._say(logging.DEBUG, "deadline_reached", words.deadline_reached, event)

    def on_call_ended(self, event: events.CallEnded) -> None:
        """A call is over."""
        self._say(logging.DEBUG, "call_ended", words.call_ended, event)
