"""One event stream made out of the pieces of several: what is handed up, and when it is whole. Pure.

Bytes go in as they come (without content encoding), and whole events come out, unchanged while nothing fails. A
`Splice` knows at every moment how far the answer has come *as the caller has seen it*, and that decides what can be
done about a break:

* What only opens an answer (a role, an id) is held back until the first output, so that until then a new attempt can
  take the place of the failed one without a trace.
* What was handed up is remembered by reference, and only looked at again after a break.
* In a resumed stream, what was seen before is dropped; a replayed one is compared, and nothing of it comes out that
  the caller has, or that does not continue it.

A stream nobody can make sense of is passed through, untouched.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from gip_resilience._delivered import Delivered
from gip_resilience._replay import Replay
from gip_resilience._replay_past import Diverged
from gip_resilience.hints import Hint
from gip_resilience.recovery import Action, Broken, Decision, Phase, decide
from gip_resilience.sse import EventSplitter, parse
from gip_resilience.streams import Kind, confirm, grammar_for, is_bare_error
from gip_resilience.taxonomy import classify, stream_fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from gip_resilience.config import Config
    from gip_resilience.recovery import Asked, Origin
    from gip_resilience.sse import Block
    from gip_resilience.streams import Grammar, Said
    from gip_resilience.taxonomy import Fact

BOM = b"\xef\xbb\xbf"

_CR = 13

_UNLIMITED = sys.maxsize


class Splice:
    """One stream for the caller, out of the answers to one or more requests.

    Feed it (`feed`, `end`, `lose`), and hand up what comes out. When `broken` is set it waits for a decision:
    `decide`, then `begin` with the next answer, `complete`, or `fail`.

    Args:
        config: limits, what is allowed, and the dialect of errors.
        path: of the request's URL; tells which protocol to expect.
        origin: the request, for taking the stream up again.
        body: gives the request's body, or ``None``; asked only when it matters.
        time: gives the Unix time, for hints that name a date.

    Attributes:
        broken: how the stream broke; ``None`` while it flows.
        over: whether nothing more will come out.
        flowing: whether the last bytes only carried the answer on: there is nothing to ask about them.
        diverged_at: how many characters of a replay agreed, after it diverged.
    """

    __slots__ = (
        "_asked",
        "_attempts",
        "_body",
        "_choosy",
        "_config",
        "_confirmed",
        "_error",
        "_expected",
        "_final",
        "_fresh",
        "_generic",
        "_glance",
        "_grammar",
        "_had",
        "_numbered",
        "_opening",
        "_origin",
        "_overflowed",
        "_pause",
        "_replay",
        "_resuming",
        "_settings",
        "_settled",
        "_skip",
        "_splitter",
        "_time",
        "_trailed",
        "_unguarded",
        "_warning",
        "broken",
        "diverged_at",
        "flowing",
        "over",
    )

    def __init__(
        self,
        config: Config,
        path: str,
        origin: Origin,
        body: Callable[[], Asked],
        time: Callable[[], float],
    ) -> None:
        self._config = config
        self._settings = config.stream
        self._origin = origin
        self._body = body
        self._asked: Asked | None = None
        self._time = time
        self._expect(grammar_for(path))
        self._settled = self._confirmed = False
        self._generic = self._grammar is None and origin.resumable
        self._unguarded = False
        self._splitter = EventSplitter(max_event=_UNLIMITED)
        self._attempts = 1
        self._fresh = True
        self._had = Delivered(config.stream, resumable=origin.resumable)
        # How this attempt goes on from there.
        self._replay: Replay | None = None
        self._resuming = self.flowing = False
        self._pause: int | None = None
        self._error = b""
        self._final = False
        self.broken: Fact | None = None
        self.over = False
        self._trailed = self._overflowed = False
        self._warning = ""
        self.diverged_at = 0

    def _expect(self, grammar: Grammar | None) -> None:
        """Which protocol this is, as far as is known; how its everyday events are told is kept at hand."""
        self._expected = self._grammar = grammar
        if grammar is not None:
            self._opening, self._glance = grammar.opening, grammar.glance
            self._skip = len(grammar.opening)
            self._choosy, self._numbered = grammar.mark == "choice", grammar.mark == "number"

    # ---- the stream as it comes --------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what can be handed up of them, possibly nothing."""
        if self.flowing:
            skip = self._skip
            if data.find(b"\n", skip) != len(data) - 2:  # more than one event, or less
                if self._go_on(data):
                    return data
            elif data.startswith(self._opening) and data[-1:] == b"\n" and _CR not in data:
                mark, had = self._glance(data[skip:-2]), self._had
                if mark >= 0 and (not self._choosy or mark in had.spoken):
                    had.keep(data)
                    if self._numbered:
                        had.sequence = mark
                    if had.forgotten and self._overflows():
                        self.flowing = False
                    return data
        out = self._look_into(data)
        self.flowing = self._flows() and not self._overflows()
        return out

    def _overflows(self) -> bool:
        """Whether more went up than is remembered, and nobody was told yet."""
        before, self._overflowed = self._overflowed, self._had.forgotten
        return self._overflowed is not before

    def _flows(self) -> bool:
        """Whether from here on an event that only carries the answer on changes nothing but what is remembered."""
        had = self._had
        return (
            had.committed
            and self._confirmed
            and self._grammar is not None
            and not (self._generic or self._unguarded or self._resuming or self.over)
            and self._replay is None
            and self.broken is None
            and not had.holds
            and not self._splitter.size
        )

    def _go_on(self, data: bytes) -> bool:
        """Whether *data* is whole events that only carry the answer on, as nearly all are; then they are remembered.

        What it says of no other: whoever is not sure looks into it properly.
        """
        if data[-2:] != b"\n\n" or _CR in data:
            return False
        skip, opening, had = self._skip, self._opening, self._had
        blocks = [block + b"\n\n" for block in data[:-2].split(b"\n\n")]
        for block in blocks:
            if not block.startswith(opening) or block.find(b"\n", skip) != len(block) - 2:
                return False
            mark = self._glance(block[skip:-2])
            if mark < 0 or (self._choosy and mark not in had.spoken):
                return False
        for block in blocks:
            had.keep(block)
        if self._numbered:
            had.sequence = mark
        if had.forgotten and self._overflows():
            self.flowing = False
        return True

    def _look_into(self, data: bytes) -> bytes:
        if self._unguarded:
            return data
        splitter = self._splitter
        aligned = not splitter.size and self._replay is None
        blocks = splitter.feed(data)
        out: list[bytes] = []
        for number, raw in enumerate(blocks, 1):
            self._take(raw, out)
            if self.over:
                out += self._trailing(blocks[number:])
                break
            if self.broken is not None:
                break
            if not self.guarded and self._confirmed:
                return b"".join([*out, *blocks[number:], self._rest()])
        if splitter.size > self._settings.max_event and not self.over and self.broken is None:
            self._too_long(out)
        if aligned and not splitter.size and len(out) == len(blocks) and out and out[0] is blocks[0]:
            return data  # unchanged: spare the copy
        return out[0] if len(out) == 1 else b"".join(out)

    def end(self) -> bytes:
        """The body came to its end, in order; return what can be handed up of what was left."""
        tail = self._splitter.pending
        grammar = self._grammar
        if self._generic:
            # Without a marker nobody can say whether this was meant; a server that resumes tells us when we ask.
            if self._had.last_id or self._origin.method == "GET":
                self._break(stream_fact("stream_terminated"))
            else:
                self.over = True
            return b""
        if self._unguarded or grammar is None:
            self.over = True
            return tail
        if tail.strip():
            if is_bare_error(tail):
                self._break_in_band(tail, final=False)
                return b""
            block = tail.rstrip(b"\r\n") + b"\n\n"
            if grammar.read(parse(block), block).kind is Kind.END:
                # Some servers leave out the last line end; every byte of the answer is there.
                out: list[bytes] = []
                self._take(block, out)
                return b"".join(out)
        if self.phase is Phase.TAIL and not grammar.marker:
            self.over = True  # this protocol has no marker
            return b"" if tail.strip() else tail  # the LF of the last CRLF
        self._break(stream_fact("stream_terminated"))
        return b""

    def lose(self, kind: str) -> None:
        """The body broke off; *kind* is one of `gip_resilience.facts.STREAM`."""
        self._break(stream_fact(kind))

    def after(self, data: bytes) -> bytes:
        """Take bytes that came after the terminal marker; return what belongs to the stream all the same."""
        return b"".join(self._trailing(self._splitter.feed(data)))

    def _trailing(self, blocks: list[bytes]) -> list[bytes]:
        """What may follow the terminal event: a gateway's ``[DONE]``, where the protocol has none of its own."""
        grammar = self._grammar
        if grammar is None or not grammar.trailing_done or self._trailed:
            return []
        found: list[bytes] = []
        # Blank lines are no block, nor is the LF of a CRLF that was cut in two.
        raw = next((block for block in blocks if block.strip(b"\r\n")), None)
        if raw is None:
            return []
        self._trailed = True  # what comes behind the first block after the end is no part of the stream
        if grammar.read(parse(raw), raw).kind is Kind.END:
            self._had.add(raw, found)
        return found

    def _take(self, raw: bytes, out: list[bytes]) -> None:
        """Look at one whole block, and say what becomes of it."""
        if self._fresh:
            self._fresh = False
            if raw.startswith(BOM):
                bare = raw[3:]
                block = parse(bare)
                if self._attempts > 1:
                    raw = bare  # only the first bytes of a stream may be a mark
            else:
                block = parse(raw)
        else:
            block = parse(raw)
        if block.retry is not None:
            self._pause = block.retry
        if not self._confirmed and block.data is not None and not self._confirm(block, raw, out):
            return
        grammar = self._grammar
        if grammar is None or self._generic:
            self._take_generic(block, raw, out)
            return
        said = grammar.read(block, raw)
        kind = said.kind
        if kind is Kind.ERROR:
            self._break_in_band(raw, final=said.final)
        elif kind is Kind.GARBLED:
            self._break(stream_fact("stream_garbled"))
        elif self._replay is not None:
            self._take_replayed(said, block, raw, out)
        elif self._resuming and self._was_seen(said, block, raw):
            pass
        else:
            self._hand_up(said, block, raw, out)

    def _confirm(self, block: Block, raw: bytes, out: list[bytes]) -> bool:
        """Learn from the first event which protocol this is; whether to go on with it."""
        found = confirm(self._expected, block, raw)
        self._confirmed = True
        if self._settled:
            if found is not None and self._grammar is not None and found.name == self._grammar.name:
                return True
            if self._generic:
                return True
            self._break(stream_fact("stream_garbled"))
            return False
        self._settled = True
        self._expect(found)
        self._generic = found is None and self._origin.resumable
        if found is not None or self._generic:
            return True
        self._let_go(out)
        out.append(raw)
        return False

    def _hand_up(self, said: Said, block: Block, raw: bytes, out: list[bytes]) -> None:
        """A block that is new to the caller: hand it up, or hold it back."""
        had, kind = self._had, said.kind
        if kind is Kind.OUTPUT or kind is Kind.FINISH:
            if had.holds:
                had.release(out)
            had.note_choices(said)
        elif kind is Kind.END:
            had.release(out)
            had.done = self.over = True
        elif not had.committed and (kind is Kind.LIFECYCLE or had.holds):
            if said.background or said.response_id:
                had.note(said)
            if not self._is_kept(block):
                if not had.hold(raw, counts=kind is not Kind.NOTHING):
                    had.release(out)
                    had.committed = True
                return
            had.release(out)
            had.committed = True
        if said.usage or said.sequence is not None:
            had.note(said)
        if block.id is not None:
            had.note_id(block)
        self._forward(raw, out, counts=kind is not Kind.NOTHING)

    def _forward(self, raw: bytes, out: list[bytes], *, counts: bool) -> None:
        if counts:
            self._had.add(raw, out)
        else:
            out.append(raw)

    def _take_generic(self, block: Block, raw: bytes, out: list[bytes]) -> None:
        """A block of a stream whose protocol is not known: while it can be resumed, its ids matter."""
        if self._resuming and self._had.has_id(block):
            return
        self._had.note_id(block)
        if block.data is not None:
            self._had.committed = True
        self._forward(raw, out, counts=block.data is not None)

    def _take_replayed(self, said: Said, block: Block, raw: bytes, out: list[bytes]) -> None:
        """A block of a second answer: only what continues the first comes out."""
        replay = self._replay
        if replay is None:
            raise AssertionError("no replay")
        try:
            if said.kind is Kind.END:
                replay.finish()
                self._hand_up(said, block, raw, out)
                return
            new = replay.feed(raw)
        except Diverged as divergence:
            self.diverged_at = divergence.at
            self._break(stream_fact("stream_diverged"))
            return
        if new:
            if said.kind is Kind.FINISH:
                self._had.note_choices(said)
            self._had.note(said)
            self._forward(new, out, counts=said.kind is not Kind.NOTHING)

    def _was_seen(self, said: Said, block: Block, raw: bytes) -> bool:
        """Whether the caller has a block of a resumed stream already; or the stream left one out (it broke)."""
        last = self._had.sequence
        if said.sequence is not None and last is not None:
            if said.sequence > last + 1:
                self._break(stream_fact("stream_gap"))
            return said.sequence != last + 1
        if self._had.has_id(block):
            return True
        if last is None and self._had.is_other_run(raw):
            # Another answer, from its start: the server did not resume.
            self._break(stream_fact("stream_gap"))
            return True
        return False

    def _is_kept(self, block: Block) -> bool:
        """Whether what opens an answer need not be held back: the server can go on from it."""
        if self._origin.resumable and block.id:
            return True
        if not self._settings.cursor or not self._had.response_id:
            return False
        return self._had.background or self._origin.method == "GET" or self._request().background

    def _too_long(self, out: list[bytes]) -> None:
        """An event is longer than we hold: let it through, and all that follows."""
        if self._replay is not None or self._resuming:
            self._break(stream_fact("stream_garbled"))  # there is no way to tell what of it is new
            return
        self._warning = "an event is longer than stream.max_event"
        self._let_go(out)
        out.append(self._rest())

    def _let_go(self, out: list[bytes]) -> None:
        self._had.release(out)
        self._had.committed = self._unguarded = True

    def _rest(self) -> bytes:
        """What has come of an event that nobody waits for the end of."""
        splitter, self._splitter = self._splitter, EventSplitter(max_event=_UNLIMITED)
        return splitter.pending

    # ---- breaks ------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """How far the answer has come."""
        return self._had.phase(lambda: self._request().choices)

    @property
    def events(self) -> int:
        """How many events came out."""
        return self._had.events

    @property
    def notice(self) -> str:
        """Why the stream is not, or not fully, guarded any more, once that is so."""
        return self._warning or ("longer than stream.max_delivered" if self._had.forgotten else "")

    @property
    def guarded(self) -> bool:
        """Whether a break of this stream is ours to deal with."""
        return not self._unguarded and (self._grammar is not None or self._generic)

    @property
    def in_band(self) -> bool:
        """Whether the server said within the stream that it broke."""
        return bool(self._error)

    def _request(self) -> Asked:
        if self._asked is None:
            self._asked = self._body()
        return self._asked

    def _break(self, fact: Fact) -> None:
        if self._pause is not None and fact.hint is None:
            fact = replace(fact, hint=Hint(self._pause / 1000.0, "sse.retry"))
        self.broken = fact
        self._error = b""
        self._final = False

    def _break_in_band(self, raw: bytes, *, final: bool) -> None:
        fact = classify(
            200, (), raw, dialect=self._config.dialect, now=self._time(), in_stream=True, complete=True
        )
        self._break(stream_fact("stream_terminated") if fact.ok else fact)
        self._error = raw
        self._final = final

    def decide(self) -> Decision:
        """What to do about the break: see `gip_resilience.recovery`."""
        fact = self.broken
        if fact is None:
            raise AssertionError("the stream is whole")
        if self._unguarded:
            return Decision(Action.FAIL, self.notice or "the protocol is not known")
        if fact.code in ("stream_diverged", "stream_gap"):
            return Decision(Action.FAIL, f"{fact.code} is not retried")
        grammar, had = self._grammar, self._had
        broken = Broken(
            phase=self.phase,
            in_band=self.in_band,
            known=fact.known,
            final=self._final,
            response_id=had.response_id,
            sequence=had.sequence,
            background=had.background,
            last_event_id=None if had.forgotten else had.last_id,
            eventful=grammar is not None and not self._generic,
            markered=grammar is not None and bool(grammar.marker),
            too_long=had.forgotten,
        )
        return decide(broken, self._origin, self._request(), self._settings, self._obstacle)

    def _obstacle(self) -> str:
        return self._compare().obstacle

    def _compare(self) -> Replay:
        grammar = self._grammar
        return Replay("" if grammar is None else grammar.name, self._had.blocks)

    @property
    def text(self) -> str | None:
        """What a person would have read so far; ``None`` when it was too long to be remembered."""
        return None if self._had.forgotten else self._compare().text

    @property
    def usage_missing(self) -> bool:
        """Whether a usage chunk was asked for and has not come."""
        return not self._had.usage and self._request().usage

    def begin(self, action: Action, origin: Origin | None = None) -> None:
        """The next answer is there.

        Args:
            action: how it follows on what the caller has.
            origin: what its headers say about taking it up again, which counts when it begins anew.
        """
        self._attempts += 1
        self.flowing = False
        self.broken = None
        self._error = b""
        self._splitter = EventSplitter(max_event=_UNLIMITED)
        self._fresh = True
        self._confirmed = False
        self._replay = self._compare() if action is Action.REPLAY else None
        self._resuming = action is Action.RESUME
        if action is Action.RESTART:
            self._settled = False
            self._origin = origin or self._origin
            self._had.resumable = self._origin.resumable
            self._had.forget_opening()

    def complete(self, action: Action) -> bytes:
        """Nothing of the answer is missing: end the stream, with the marker supplied if that is the action."""
        self.broken = None
        self.over = True
        grammar = self._grammar
        if action is not Action.MARKER or grammar is None:
            return b""
        self._had.done = True
        self._had.events += 1
        return grammar.marker

    def stop(self) -> bool:
        """The server says that there is no more; whether that is a good end."""
        if not self._generic:
            return False
        self.broken = None
        self.over = True
        return True

    def fail(self) -> bytes:
        """Nothing can be done. Return the server's own last word, unchanged, if it has said one."""
        self.broken = None
        self.over = True
        if not self._error:
            return b""
        out: list[bytes] = []
        self._had.release(out)
        return b"".join([*out, self._error])
