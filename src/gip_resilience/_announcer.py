"""Who is told what happens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gip_resilience.events import METHODS, AttemptEnded, AttemptStarted, CallEnded, CallStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gip_resilience.events import Event, Tracer

logger = logging.getLogger("gip_resilience")


class Announcer:
    """Tells observers. Immutable but for remembering which of them has already been reported as broken.

    Args:
        observers: objects with any of the methods in `METHODS` (``on_retry_scheduled``, ``on_call_ended``, ...);
            at most one of them may be a `Tracer`.
        failed: called whenever one of them raised.

    Raises:
        TypeError: an observer has none of these methods, or there are two tracers.

    Attributes:
        tracer: the observer that follows each call by itself, if there is one.
        everyday: whether anybody wants to know of calls that succeed at once.
        starts: whether anybody wants to know of each call as it starts.
        attempts: whether anybody wants to know of each attempt as it starts.
    """

    __slots__ = ("_broken", "_failed", "_listeners", "attempts", "everyday", "starts", "tracer")

    def __init__(self, observers: Iterable[object], failed: Callable[[], None] | None = None) -> None:
        self._broken: set[int] = set()
        self._listeners: dict[type[Event], list[Callable[[Event], object]]] = {}
        self._failed = failed
        self.tracer: Tracer | None = None
        for observer in observers:
            methods = {kind: getattr(observer, name, None) for kind, name in METHODS.items()}
            wanted = {kind: method for kind, method in methods.items() if callable(method)}
            traces = callable(getattr(observer, "trace", None))
            if not wanted and not traces:
                expected = ", ".join(METHODS.values())
                raise TypeError(f"observer {observer!r} has none of the methods {expected}, trace")
            if traces:
                if self.tracer is not None:
                    raise TypeError(f"observer {observer!r} traces calls, and so does {self.tracer!r}")
                self.tracer = observer  # type: ignore[assignment]  # it has the method, as was just seen
            for kind, method in wanted.items():
                self._listeners.setdefault(kind, []).append(method)
        self.starts = self.tracer is not None or self.wants(CallStarted)
        self.attempts = self.wants(AttemptStarted)
        self.everyday = self.tracer is not None or any(
            self.wants(kind) for kind in (CallStarted, AttemptStarted, AttemptEnded, CallEnded)
        )

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody listens: an event nobody wants need not be made."""
        return kind in self._listeners

    def tell(self, event: Event) -> None:
        """Tell everybody who wants this kind of event."""
        for method in self._listeners.get(type(event), ()):
            try:
                method(event)
            except Exception as error:
                self.failed(getattr(method, "__self__", method), error)

    def failed(self, observer: object, error: Exception) -> None:
        """An observer raised: say so, once for each of them."""
        if self._failed is not None:
            self._failed()
        if id(observer) not in self._broken:
            self._broken.add(id(observer))
            logger.error("an observer failed; its further failures are not reported", exc_info=error)
