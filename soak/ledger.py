"""What callers saw and what the library says of it, call by call; settled, and forgotten, at every quiet point."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted

OUTCOMES = ("success", "failure", "refused", "cancelled")

UNSENT = ("connect_timeout", "connect_error", "pool_timeout")
"""What an attempt is called that ended before anything was sent."""

BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds of the histogram of seconds per call."""


@dataclass(slots=True, eq=False)
class Note:
    """One call.

    Attributes:
        name: what it is called, in a header, at the gateway.
        kind: what its caller did.
        door: whether it went to the gateway that turns connections away.
        deadline: seconds it was given.
        took: seconds it took.
        seen: what its caller saw.
        handed: whether its caller had an answer in hand.
        started: attempts that the library told of as they went out.
        ended: code and status of those that had a verdict.
        outcome: what the library says it came to.
        begun: how often it was told of as it started, and ``closed`` as it ended.
    """

    name: str
    kind: str
    door: bool = False
    deadline: float | None = None
    took: float = 0.0
    seen: str = ""
    handed: bool = False
    started: int = 0
    ended: list[tuple[str, int | None]] = field(default_factory=list)
    outcome: str = ""
    begun: int = 0
    closed: int = 0


current: ContextVar[Note | None] = ContextVar("soak.current", default=None)
"""The call that this thread or task makes; the library tells of a call where it is made."""


@dataclass(slots=True)
class Account:
    """What the calls of one population came to, in all or in one round.

    Attributes:
        calls: by what their callers saw.
        kinds: the same by what they did.
        sends: requests that the gateways saw of them.
        attempts: attempts that had a verdict.
        exact: calls whose attempts are the requests that the gateways saw, to the unit.
        bounded: calls that were cut off while a request was on its way, where it may have been seen or not.
        took: how many calls took how long, by `BOUNDS`.
        longest: the longest call, in seconds.
        latest: how long after its deadline the latest call ended, in seconds.
    """

    calls: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sends: int = 0
    attempts: int = 0
    exact: int = 0
    bounded: int = 0
    took: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    longest: float = 0.0
    latest: float = 0.0

    def add(self, other: Account) -> None:
        """Take in another one."""
        self.calls.update(other.calls)
        self.kinds.update(other.kinds)
        for name in ("sends", "attempts", "exact", "bounded"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.took = [mine + theirs for mine, theirs in zip(self.took, other.took, strict=True)]
        self.longest = max(self.longest, other.longest)
        self.latest = max(self.latest, other.latest)


class Ledger:
    """The calls of one population. Thread-safe.

    Args:
        name: of the population.
        observed: whether it is an observer of its `Resilience`, too; without that, only sums can be compared.
    """

    def __init__(self, name: str, *, observed: bool) -> None:
        self.name = name
        self.observed = observed
        self._lock = threading.Lock()
        self._number = 0
        self._notes: dict[str, Note] = {}
        self._by_call: dict[int, Note] = {}
        self._finished: list[Note] = []
        self._wrong: Counter[str] = Counter()

    # ---- what callers say ----------------------------------------------------------------------------------

    def open(self, kind: str, *, door: bool, deadline: float | None) -> Note:
        """A call begins."""
        with self._lock:
            self._number += 1
            note = Note(f"{self.name}-{self._number}", kind, door, deadline)
            self._notes[note.name] = note
        return note

    def close(self, note: Note) -> None:
        """Its caller is done with it."""
        with self._lock:
            del self._notes[note.name]
            self._finished.append(note)

    def complain(self, what: str) -> None:
        """A caller saw what it must not see."""
        with self._lock:
            self._wrong[what] += 1

    def under_way(self) -> list[str]:
        """Calls whose callers are not done."""
        with self._lock:
            return [f"{note.name} ({note.kind})" for note in self._notes.values()]

    # ---- what the library says -----------------------------------------------------------------------------

    def on_call_started(self, event: CallStarted) -> None:
        """Told where the call is made."""
        note = current.get()
        with self._lock:
            if note is None:
                self._wrong["a call was started that nobody made"] += 1
                return
            note.begun += 1
            self._by_call[event.call] = note

    def on_attempt_started(self, event: AttemptStarted) -> None:
        """A request goes out."""
        self._find(event.call).started += 1

    def on_attempt_ended(self, event: AttemptEnded) -> None:
        """It has its verdict."""
        self._find(event.call).ended.append((event.attempt.code, event.attempt.status))

    def on_call_ended(self, event: CallEnded) -> None:
        """It is over. That of a stream that was dropped may be told where another call begins."""
        with self._lock:
            note = self._by_call.pop(event.call, None)
            if note is None:
                self._wrong["the end of a call was told twice"] += 1
                return
            note.closed += 1
            note.outcome = event.report.outcome
            if len(event.report.attempts) != len(note.ended):
                self._wrong["a report holds other attempts than were told"] += 1

    def _find(self, number: int) -> Note:
        with self._lock:
            note = self._by_call.get(number)
            if note is None:
                self._wrong["an attempt was told of a call that is over"] += 1
                return Note("", "")
            return note

    # ---- at a quiet point ----------------------------------------------------------------------------------

    def settle(self, sends: Mapping[str, int]) -> tuple[Account, list[str]]:
        """Compare what was said since the last quiet point, and forget it.

        Args:
            sends: requests that the gateways saw, by the name of the call.

        Returns:
            What it came to, and what does not agree.
        """
        with self._lock:
            notes, self._finished = self._finished, []
            wrong, self._wrong = self._wrong, Counter()
            open_calls = len(self._by_call)
        account = Account()
        problems = Counter(wrong)
        if open_calls:
            problems["calls have not ended"] = open_calls
        for note in notes:
            self._enter(account, note)
            account.sends += sends.get(note.name, 0)
            if self.observed:
                _compare(note, sends.get(note.name, 0), account, problems)
        unknown = sends.keys() - {note.name for note in notes}
        if unknown:
            problems["requests were seen of calls that nobody made"] = len(unknown)
        return account, [f"{self.name}: {what}: {count}" for what, count in sorted(problems.items())]

    @staticmethod
    def _enter(account: Account, note: Note) -> None:
        account.calls[note.seen] += 1
        account.kinds[f"{note.kind}, {note.seen}"] += 1
        account.attempts += len(note.ended)
        account.took[bisect_left(BOUNDS, note.took)] += 1
        account.longest = max(account.longest, note.took)
        if note.deadline is not None:
            account.latest = max(account.latest, note.took - note.deadline)


def _compare(note: Note, sends: int, account: Account, problems: Counter[str]) -> None:
    """One call: its caller's story, the library's and the gateway's."""
    if (note.begun, note.closed) != (1, 1):
        problems[f"a call was started {note.begun} and ended {note.closed} times"] += 1
    # A caller may be cancelled, or meet its deadline, while it reads the rest of an answer that was handed up.
    if note.outcome != note.seen and not (note.seen == "cancelled" and _answered(note)):
        problems[f"{note.kind}: its caller saw {note.seen}, and it was counted as {note.outcome}"] += 1
    if note.door:
        return  # what is turned away at the door is compared in sum
    if _cut_off(note):
        account.bounded += 1
        least = sum(status is not None for _, status in note.ended)
        if not least <= sends <= note.started:
            problems[
                f"{note.kind}: between {least} and {note.started} requests were sent, and {sends} seen"
            ] += 1
        return
    account.exact += 1
    unsent = sum(code in UNSENT for code, _ in note.ended)
    if not len(note.ended) == note.started == sends + unsent:
        codes = " ".join(code for code, _ in note.ended)
        problems[f"{note.kind}: {note.started} requests were sent ({codes}), {sends} were seen"] += 1


def _answered(note: Note) -> bool:
    return bool(note.ended) and note.ended[-1][1] is not None


def _cut_off(note: Note) -> bool:
    """Whether a request may have been on its way when time was up."""
    codes = {code for code, status in note.ended if status is None}
    return note.seen == "cancelled" or "write_timeout" in codes or (note.deadline is not None and bool(codes))


def sums(seen: Account, snapshot: Mapping[str, int]) -> list[str]:
    """What differs between the calls that were made and the library's own counts of them.

    Args:
        seen: what callers saw, since the beginning.
        snapshot: calls by outcome, and ``sent``, since the beginning.
    """
    made, counted = sum(seen.calls.values()), sum(snapshot[name] for name in OUTCOMES)
    found = []
    if made != counted:
        found.append(f"{made} calls were made and {counted} counted")
    # A call that was cancelled while its caller read the rest of an answer has the outcome of that answer.
    late = seen.calls["cancelled"] - snapshot["cancelled"]
    for name in ("success", "failure", "refused"):
        if not 0 <= snapshot[name] - seen.calls[name] <= max(0, late):
            found.append(  # noqa: PERF401 - one line for each is easier to read
                f"{seen.calls[name]} calls ended in {name}, and {snapshot[name]} were counted"
            )
    return found


def merged(accounts: Mapping[str, Account]) -> Account:
    """All of them together."""
    found = Account()
    for account in accounts.values():
        found.add(account)
    return found


def plain(account: Account) -> dict[str, Any]:
    """An account as plain values."""
    return {
        "calls": dict(account.calls),
        "kinds": dict(account.kinds),
        "sends": account.sends,
        "attempts": account.attempts,
        "exact": account.exact,
        "bounded": account.bounded,
        "took": account.took,
        "longest": round(account.longest, 3),
        "latest": round(account.latest, 3),
    }
