"""What nobody may miss: errors that no caller sees, warnings of things left open, and a machine that is late."""

from __future__ import annotations

import re
import sys
import threading
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from .sampling import errors_logged, listen_for_errors

if TYPE_CHECKING:
    from typing import Self

THEIRS: Final = re.compile(r"Async generator '(httpx2?|httpcore2?)\._")
"""Trio tells of generators of the clients that are dropped before their end: a request was cancelled, or a loop
over a response is not run to its end. Bare clients do the same. It is a notice, and no leak: whether the connection
behind it was given back is checked by itself. They are counted."""

BEAT: Final = 0.05
"""Seconds between two beats of the heart that tells how late the machine is."""


class Guard:
    """Listens for what goes wrong behind everybody's back, while in use as a context manager.

    Attributes:
        found: what was heard, and how often.
        theirs: warnings about what the HTTP libraries leave behind by themselves.
    """

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.theirs = 0
        self._lag = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="soak-heart", daemon=True)

    def __enter__(self) -> Self:
        self._before = sys.unraisablehook, threading.excepthook, warnings.showwarning, warnings.filters[:]
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._thread_died
        warnings.simplefilter("always")
        warnings.showwarning = self._warned
        listen_for_errors()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()
        sys.unraisablehook, threading.excepthook, warnings.showwarning, warnings.filters[:] = self._before

    def problems(self) -> list[str]:
        """All of it, in words."""
        logged = Counter(errors_logged())
        return [f"{what}: {count}" for what, count in (self.found + logged).items()]

    def lag(self) -> float:
        """How late a thread that slept was woken at worst, in seconds, since this was asked last."""
        lag, self._lag = self._lag, 0.0
        return lag

    def _beat(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            self._ended.wait(BEAT)
            self._lag = max(self._lag, time.monotonic() - began - BEAT)

    def _unraisable(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        self._note(
            f"unraisable {type(error).__name__}: {error} ({unraisable.err_msg or unraisable.object!r})"
        )

    def _thread_died(self, args: Any) -> None:
        self._note(
            f"thread {getattr(args.thread, 'name', '?')} ended in {args.exc_type.__name__}: {args.exc_value}"
        )

    def _warned(self, message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        if THEIRS.search(str(message)):
            self.theirs += 1
            return
        place = "/".join(filename.split("/")[-2:])
        self._note(f"{category.__name__}: {message} ({place}:{lineno})")

    def _note(self, what: str) -> None:
        # Addresses and numbers of descriptors differ from time to time, and are of no use to anybody.
        text = re.sub(r"0x[0-9a-f]+|fd=\d+|, \d{4,5}\)", "...", what)
        if len(self.found) < 50 or text in self.found:
            self.found[text[:400]] += 1
