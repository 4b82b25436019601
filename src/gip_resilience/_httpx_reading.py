"""A body of httpx or httpx2 that is read under the retry."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from gip_resilience._httpx_deadlines import shorter
from gip_resilience.drive import untraced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from gip_resilience.clock import Clock
    from gip_resilience.engine import Call
    from gip_resilience.taxonomy import Fact


_PATIENCE: AbstractContextManager[None] = nullcontext()


class Owner(Protocol):
    """Whose body is read: a port.

    Attributes:
        call: how long it may take in all.
        clock: tells how long it takes.
        error_timeout: seconds that an error's body may take.
        sent: the request.
    """

    call: Call
    clock: Clock
    error_timeout: float
    sent: Any

    def explain(self, error: Exception) -> Fact | None:
        """The fact behind an error of the client."""


class Reading:
    """A body being read under the retry: how far it got, and what ended it."""

    __slots__ = (
        "_failing",
        "_give_up",
        "_limit",
        "_port",
        "_size",
        "_timed",
        "broken",
        "cause",
        "chunks",
        "whole",
    )

    def __init__(self, port: Owner, response: Any, limit: int) -> None:
        self._port = port
        self._limit = limit
        self._failing = failing = response.status_code >= 400
        self._give_up = port.clock.monotonic() + port.error_timeout if failing else 0.0
        self._timed = port.call.config.deadline is not None
        self._size = 0
        self.chunks: list[bytes] = []
        self.whole = False
        self.broken: Fact | None = None
        self.cause: Exception | None = None

    def goes_on(self, chunk: bytes | None) -> bool:
        """Keep one chunk (``None``: the end came); whether to read another."""
        if chunk is None:
            self.whole = True
            return False
        self.chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= self._limit or (self._timed and self._port.call.overdue()):
            return False
        return not self._failing or self._port.clock.monotonic() < self._give_up

    def broke(self, error: Exception) -> bool:
        """The body ended in an error; whether that is the client's own, and so a failed exchange."""
        self.broken = self._port.explain(error)
        if self.broken is None:
            return False
        # It is raised anew when the caller reads that far; the way it came to us is of no use to anybody.
        self.cause = untraced(error)
        return True

    def cut(self) -> bool:
        """Whether the deadline of the call has ended it."""
        if self.whole or not self._port.call.overdue():
            return False
        return self.broken is None or self.broken.code == "read_timeout"

    def impatience(self) -> AbstractContextManager[None]:
        """Read an error body with a short timeout of its own; a stalled one must not hold up the decision.

        Both packages read the timeout of a body from the request's extensions when its first chunk is asked
        for, so that is when the shorter one is in place.
        """
        if not self._failing:
            return _PATIENCE
        return _shorter_reads(self._port.sent.extensions, self._port.error_timeout)


@contextmanager
def _shorter_reads(extensions: dict[str, Any], seconds: float) -> Iterator[None]:
    given = extensions.get("timeout")
    if not isinstance(given, dict):
        yield
        return
    extensions["timeout"] = shorter(given, seconds)
    try:
        yield
    finally:
        extensions["timeout"] = given
