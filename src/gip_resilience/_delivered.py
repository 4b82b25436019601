"""What the caller of an event stream has, and what is held back from them. Pure.

Blocks are kept by reference, up to a limit, and looked at only after the stream broke. What matters before that is
noted when a block goes up: ids and numbers to go on from, and which choices have ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from gip_resilience.recovery import Phase
from gip_resilience.sse import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.config import StreamConfig
    from gip_resilience.sse import Block
    from gip_resilience.streams import Said

_OVERHEAD = 80
"""Bytes that remembering one event costs beside its text, about: the object, and its place in a list."""

_NO_CHOICE: Final = frozenset[int]()
_FIRST_CHOICE: Final = frozenset((0,))
"""What nearly every stream has of choices, shared: a set takes 216 bytes."""


class Delivered:
    """What the caller has.

    Args:
        settings: how much may be held and remembered.
        resumable: whether the server takes up the stream by its ids, so that they are worth keeping.

    Attributes:
        blocks: the events that went up, unless they were `forgotten`.
        events: how many went up.
        forgotten: whether they are more than may be remembered.
        committed: whether anything went up that a new attempt could not take the place of.
        done: whether the terminal marker did.
        usage: whether a usage did.
        response_id: of a run the server may keep.
        sequence: number of the last event, where they are numbered.
        background: whether the server said that it keeps the run.
        last_id: the last event id; ``None`` before the first.
        resumable: see above.
        spoken: the choices of which something went up.
    """

    __slots__ = (
        "_finished",
        "_held",
        "_held_size",
        "_ids",
        "_settings",
        "_size",
        "background",
        "blocks",
        "committed",
        "done",
        "events",
        "forgotten",
        "last_id",
        "response_id",
        "resumable",
        "sequence",
        "spoken",
        "usage",
    )

    def __init__(self, settings: StreamConfig, *, resumable: bool) -> None:
        self._settings = settings
        self.resumable = resumable
        self.blocks: list[bytes] = []
        self._size = 0
        self._held: list[tuple[bytes, bool]] = []
        self._held_size = 0
        self.spoken = self._finished = _NO_CHOICE
        self._ids: set[bytes] | None = None
        self.events = 0
        self.forgotten = self.committed = self.done = self.usage = self.background = False
        self.response_id = ""
        self.sequence: int | None = None
        self.last_id: bytes | None = None

    # ---- going up ----------------------------------------------------------------------------------------

    def hold(self, raw: bytes, *, counts: bool = True) -> bool:
        """Hold a block back until the first output; whether there is room for more.

        Args:
            raw: the block.
            counts: whether it is an event, and not a comment or blank lines.
        """
        self._held.append((raw, counts))
        self._held_size += len(raw) + _OVERHEAD
        return self._held_size <= self._settings.max_held

    @property
    def holds(self) -> bool:
        """Whether anything is held back."""
        return bool(self._held)

    def release(self, out: list[bytes]) -> None:
        """Hand up what was held back."""
        for raw, counts in self._held:
            if b"id" in raw:
                self.note_id(parse(raw))
            if counts:
                self.add(raw, out)
            else:
                out.append(raw)
        self._held.clear()
        self._held_size = 0

    def forget_opening(self) -> None:
        """Another attempt takes the place of one that never came to its first output."""
        self._held.clear()
        self._held_size = 0
        self.response_id = ""
        self.sequence = None

    def add(self, raw: bytes, out: list[bytes]) -> None:
        """Hand up an event, and remember it."""
        out.append(raw)
        self.keep(raw)

    def keep(self, raw: bytes) -> None:
        """Remember an event that goes up."""
        self.events += 1
        if self.forgotten:
            return
        self._size += len(raw) + _OVERHEAD
        if self._size > self._settings.max_delivered:
            self.forgotten = True
            self.blocks.clear()
            self._ids = None
        else:
            self.blocks.append(raw)

    def note(self, said: Said) -> None:
        """An event that goes up says something to go on from."""
        if said.usage:
            self.usage = True
        if said.sequence is not None:
            self.sequence = said.sequence
        if said.response_id:
            self.response_id = said.response_id
        if said.background:
            self.background = True

    def note_choices(self, said: Said) -> None:
        """An event with output, or the end of a choice, goes up."""
        self.committed = True
        if said.indexes:
            self.spoken = _with(self.spoken, said.indexes)
        if said.finished:
            self._finished = _with(self._finished, said.finished)

    def note_id(self, block: Block) -> None:
        """A block that goes up may have an id; committed also where it has no data."""
        if block.id is not None:
            self.last_id = block.id
            if self.resumable and not self.forgotten:
                if self._ids is None:
                    self._ids = set()
                self._ids.add(block.id)

    # ---- what is there -----------------------------------------------------------------------------------

    def has_id(self, block: Block) -> bool:
        """Whether a block with this id went up."""
        return block.id is not None and self._ids is not None and block.id in self._ids

    def is_other_run(self, raw: bytes) -> bool:
        """Whether a block belongs to another answer than what went up."""
        if not self.blocks:
            return False
        if b"message_start" in raw[:64]:
            return True
        mine, other = _run(self.blocks[-1]), _run(raw)
        return bool(mine) and bool(other) and mine != other

    def phase(self, choices: Callable[[], int]) -> Phase:
        """How far the answer has come; *choices* tells how many were asked for, if that matters."""
        if self.done:
            return Phase.DONE
        if not self.committed:
            return Phase.NONE
        if not self._finished or not self.spoken <= self._finished:
            return Phase.OUTPUT
        whole = all(index in self._finished for index in range(choices()))
        return Phase.TAIL if whole else Phase.OUTPUT


class _Run(msgspec.Struct):
    id: str = ""


_run_decoder = msgspec.json.Decoder(_Run)


def _run(raw: bytes) -> str:
    """What names the run an event belongs to, where its protocol repeats that in every event; else nothing."""
    data = parse(raw).data
    try:
        return str(_run_decoder.decode(data).id) if data else ""
    except (msgspec.MsgspecError, RecursionError):
        return ""


def _with(choices: frozenset[int], more: tuple[int, ...]) -> frozenset[int]:
    """Some choices, and *more*."""
    if choices.issuperset(more):
        return choices
    return _FIRST_CHOICE if not choices and set(more) == _FIRST_CHOICE else choices.union(more)
