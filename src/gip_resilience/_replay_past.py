"""What was delivered of an answer that is replayed, and how much of it has come again. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN = "unknown output"
_FINISH = "the finish reason"


class Diverged(Exception):  # noqa: N818 - it says what became of an answer; callers never see it
    """The new answer is another one. The message tells where, and quotes nothing.

    Attributes:
        at: how many characters agreed, of the channel.
        channel: which part of the answer differs, or was left out.
    """

    def __init__(self, at: int, channel: str) -> None:
        super().__init__(at, channel)
        self.at = at
        self.channel = channel

    def __str__(self) -> str:
        return f"the new answer differs after {self.at} characters of {self.channel}"


class Past:
    """What was delivered, and how much of it the new answer has said again.

    First it records, then (`replaying`) it compares. The same readers walk over the events of both answers, and
    replace what they find by what this says is new of it.

    Attributes:
        replaying: whether it compares.
        obstacle: why the answer cannot be replayed.
        opened: whether the caller has been told what begins an answer: a role, or a ``message_start``.
        behind: the channels and marks that have not been seen again, in the order of their delivery.
        news: the last channel or mark of the present event that goes beyond what was delivered.
        ends: whether the present event ends the answer.
    """

    __slots__ = (
        "_at",
        "_ended",
        "_ids",
        "_marks",
        "_metered",
        "_texts",
        "behind",
        "ends",
        "news",
        "obstacle",
        "opened",
        "replaying",
    )

    def __init__(self) -> None:
        self.replaying = False
        self.obstacle = ""
        self.opened = False
        self.behind: dict[str, None] = {}
        self.news = ""
        self.ends = False
        self._texts: dict[str, bytearray] = {}
        self._at: dict[str, int] = {}
        self._marks: dict[str, str] = {}
        self._ids: dict[str, Any] = {}
        self._metered: set[bool] = set()
        self._ended = False

    def hinder(self, obstacle: str) -> None:
        """Record what cannot be replayed."""
        if not self.replaying and not self.obstacle:
            self.obstacle = obstacle

    def unknown(self, obstacle: str = UNKNOWN) -> None:
        """Take output that cannot be compared."""
        self.hinder(obstacle)
        self.news = UNKNOWN

    def text(self, channel: str, piece: str) -> str:
        """Take a piece of text; return what of it is new."""
        if not piece:
            return ""
        units = piece.encode("utf-16-le", "surrogatepass")
        if not self.replaying:
            self.behind[channel] = None
            self._texts.setdefault(channel, bytearray()).extend(units)
            return piece
        if channel not in self.behind:
            self.news = channel
            return piece
        whole, at = self._texts[channel], self._at.get(channel, 0)
        old = units[: len(whole) - at]
        if not whole.startswith(old, at):
            pairs = enumerate(zip(_string(whole), _string(whole[:at] + units), strict=False))
            raise Diverged(next(number for number, (one, other) in pairs if one != other), channel)
        self._at[channel] = at + len(old)
        if self._at[channel] == len(whole):
            del self.behind[channel]
        if len(old) < len(units):
            self.news = channel
        return _string(units[len(old) :])

    def mark(self, name: str, value: str = "") -> bool:
        """Take a mark; return whether the caller has it."""
        if not self.replaying:
            self.behind[name] = None
            if self._marks.setdefault(name, value) != value:
                self.hinder(UNKNOWN)  # it came in pieces
            return True
        if name not in self._marks:
            self.news = name
            return False
        if self._marks[name] != value:
            raise Diverged(0, name)
        self.behind.pop(name, None)
        return True

    def end(self, reason: str) -> bool:
        """Take a finish reason; return whether the caller has one."""
        if self._ended:
            return True  # this answer has told it, and tells it again
        self.ends = True
        had = self.mark(_FINISH, reason)
        self._ended = not had
        return had

    def meter(self, *, alone: bool) -> bool:
        """Take a usage; return whether the caller has one of its kind.

        Some servers tell one beside every piece of the answer, and another one *alone* when all is said.
        """
        if not self.replaying:
            self._metered.add(alone)
        return alone in self._metered

    def identify(self, event: dict[str, Any], keys: Iterable[str]) -> None:
        """Learn the ids of the first answer, and put them into the events of the second one."""
        if self.replaying:
            event.update(self._ids)
            return
        for key in keys:
            # Azure's first event has them all, and all are empty.
            if key not in self._ids and event.get(key):
                self._ids[key] = event[key]

    def settle(self) -> None:
        """Raise `Diverged` if the event just read goes on, or ends, where it must not."""
        if (self.behind and (self.news or self.ends)) or (self.news and _FINISH in self._marks):
            raise self.divergence()

    def divergence(self) -> Diverged:
        """Where the new answer left the first one, when all it has said is the same."""
        for channel in self.behind:
            if channel in self._texts:
                return Diverged(len(_string(self._texts[channel][: self._at.get(channel, 0)])), channel)
        if self.news in self._texts:
            return Diverged(len(_string(self._texts[self.news])), self.news)
        return Diverged(0, next(iter(self.behind), self.news))

    def prose(self) -> str:
        """The channels that are meant to be read, joined."""
        found = [text for channel, text in self._texts.items() if channel.startswith(("content", "text"))]
        return b"".join(found).decode("utf-16-le", "replace")


def _string(units: bytes | bytearray) -> str:
    return units.decode("utf-16-le", "surrogatepass")
