"""One log line per retry, one per circuit that changes.

Everything goes to the logger ``gip_resilience``. A line names host, model, code, attempt and wait; never a key,
a header's value, a prompt or a body. Names that came from outside are cut and stripped of control characters
before they reach us, so a line stays a line.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gip_resilience.breaker import State

if TYPE_CHECKING:
    from gip_resilience.events import CircuitChanged, GateWaited, RetryScheduled, StreamBroken

logger = logging.getLogger("gip_resilience")


class LogObserver:
    """The observer that every `Resilience` has: INFO for retries and waits, WARNING when a circuit opens."""

    def on_retry_scheduled(self, event: RetryScheduled) -> None:
        """Log the retry."""
        logger.info(
            "retry %s %s: %s, attempt %d of %d, waiting %.3f s (%s)%s",
            event.host,
            event.model or "-",
            event.code,
            event.attempt,
            event.max_attempts,
            event.wait,
            event.reason,
            ", may have been executed" if event.maybe_executed else "",
        )

    def on_gate_waited(self, event: GateWaited) -> None:
        """Log the wait."""
        logger.info("rate limited %s %s: waiting %.3f s", event.host, event.model or "-", event.wait)

    def on_circuit_changed(self, event: CircuitChanged) -> None:
        """Log the change."""
        change = event.transition
        level = logging.WARNING if change.after is State.OPEN else logging.INFO
        where = " ".join(part for part in event.circuit if part)
        logger.log(level, "circuit %s: %s -> %s (%s)", where, change.before, change.after, change.reason)

    def on_stream_broken(self, event: StreamBroken) -> None:
        """Log how the stream broke and what is done: a WARNING where nothing can be."""
        level = logging.WARNING if event.hop.action in {"fail", "unguarded"} else logging.INFO
        logger.log(level, "stream %s %s: %s", event.host, event.model or "-", event.hop)
