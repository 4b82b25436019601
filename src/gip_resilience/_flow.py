"""A mended event stream as it is pulled by its caller, who blocks. `gip_resilience._async_flow` is its awaiting twin.

Nothing is read ahead: bytes are asked for when the caller asks for bytes. Nothing is decided here. What a block
means, and what is done about a break, is `gip_resilience._splice` and `gip_resilience.recovery`; whether an attempt
may be made, and after what wait, is `gip_resilience.engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gip_resilience._draining import drain
from gip_resilience._forgotten import forget
from gip_resilience._inflating import DamagedError
from gip_resilience._report import Hop
from gip_resilience.drive import perform, sign, untraced
from gip_resilience.effects import Pause, Refuse
from gip_resilience.engine import story
from gip_resilience.errors import StreamDivergedError, StreamInterruptedError
from gip_resilience.recovery import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gip_resilience._drains import Drains
    from gip_resilience._splice import Splice
    from gip_resilience.clock import Clock
    from gip_resilience.drive import Script
    from gip_resilience.effects import Effect
    from gip_resilience.engine import Call
    from gip_resilience.recovery import Decision, Phase
    from gip_resilience.taxonomy import Fact


class Stage:
    """What both colours keep of a stream, and what they do that takes no time.

    Args:
        call: the call whose answer it is.
        port: the client's side of it; see `Flow`.
        splice: what becomes of its bytes.
        clock: how to wait.
        drains: which origins are worth draining.

    Belongs to one thread or task at a time, as a response does; only `close` may come from another.
    """

    __slots__ = (
        "_call",
        "_cause",
        "_clock",
        "_closed",
        "_drained",
        "_drains",
        "_first",
        "_idle",
        "_inflated",
        "_noticed",
        "_port",
        "_splice",
        "_timed",
    )

    def __init__(self, call: Call, port: Any, splice: Splice, clock: Clock, drains: Drains) -> None:
        self._call = call
        self._port: Any = port
        self._splice = splice
        self._clock = clock
        self._drains = drains
        self._inflated: Iterator[bytes] | None = None
        self._cause: Exception | None = None
        self._first: Effect | None = None
        self._noticed = False
        self._drained = False
        self._closed = False
        self._timed = call.config.deadline is not None
        self._idle = call.config.stream.idle_timeout

    def forsake(self) -> None:
        """The stream is being collected; see `gip_resilience._record.Record.drop`."""
        self._call.drop()

    def _took(self, out: bytes) -> bytes:
        """Some bytes went through the splice: say what that means for the call."""
        splice = self._splice
        if splice.notice and not self._noticed:
            self._noticed = True
            self._call.hop(Hop("unguarded", "ok", str(splice.phase), splice.events, splice.notice))
        if splice.over and self._call.streaming:
            self._call.stream_ended()
        return out

    def _decide(self) -> tuple[Fact, Decision, Script | None]:
        """Decide what to do about the break, and write it down.

        For a further attempt the engine is asked first, whose story goes on from there: without its leave nothing is
        sent, and then it was no restart, resume or replay.
        """
        splice, call = self._splice, self._call
        fact = splice.broken
        if fact is None:
            raise AssertionError("the stream is whole")
        decision = splice.decide()
        reason = decision.reason
        if decision.action is Action.MARKER and splice.usage_missing:
            reason = "the usage is missing"
        hop = Hop(str(decision.action), fact.code, str(splice.phase), splice.events, reason)
        if decision.onward is None:
            call.hop(hop)
            return fact, decision, None
        self._port.prepare(decision.onward)
        call.propose(hop)
        script = story(call, fact)
        self._first = next(script)
        if isinstance(self._first, Pause):
            call.agree()
        return fact, decision, script

    def _complete(self, decision: Decision) -> bytes:
        self._drained = True
        return self._took(self._splice.complete(decision.action))

    def _goes_on(self, decision: Decision) -> bool:
        """Another answer is in hand; whether the stream goes on with it, or is over, or gives up."""
        if not self._port.stopped:
            self._cause = None
            self._call.continued(str(decision.action))
            self._splice.begin(decision.action, self._port.origin())
            return True
        fact = self._splice.broken
        if self._splice.stop() or fact is None:
            self._drained = True
            self._took(b"")
        else:
            self._call.judge(fact, "the server has no more of it")
        return False

    def _refuse(self, refusal: Refuse, failure: Exception | None) -> None:
        """The deadline has passed."""
        self._port.failure = self._cause or failure
        self._cause = None
        try:
            self._port.refuse(refusal, self._call)
        finally:
            self._port.failure = None
            del failure

    def _give_up(self, fact: Fact) -> bytes:
        """Nothing can be done: hand up the server's own word, or raise ours."""
        splice, call, cause = self._splice, self._call, self._cause
        self._cause = None
        self._drained = True
        phase, guarded = splice.phase, splice.guarded
        last = splice.fail()
        if last:
            return last
        if not guarded and cause is not None:
            sign(cause, call)
            try:
                raise cause
            finally:
                del cause
        error: StreamInterruptedError = self._port.interruption(fact.code)
        _fill(error, fact, phase, splice, call)
        try:
            raise error from cause
        finally:
            del error, cause  # or error, traceback, frame and error form a cycle

    def _broke(self, error: Exception) -> bool:
        """Reading failed; whether that is a break of the stream, and not an error of somebody else's."""
        kind = "stream_garbled" if isinstance(error, DamagedError) else self._port.broke(error)
        if not kind:
            return False
        # It is raised, or chained, elsewhere; the way it came to us is of no use to anybody.
        self._cause = untraced(error)
        self._splice.lose(kind)
        return True

    def _overdue(self) -> bool:
        if not self._call.overdue():
            return False
        self._splice.lose("stream_stalled")
        return True

    def _limit(self) -> float | None:
        """Seconds the next bytes may take; ``None`` where only the client's own read timeout counts."""
        left = self._call.timeout()
        return left if self._idle is None or left is None else min(left, self._idle)


def _fill(error: StreamInterruptedError, fact: Fact, phase: Phase, splice: Splice, call: Call) -> None:
    report = call.report()
    error.code = fact.code
    error.phase = str(phase)
    error.delivered = splice.text
    error.events = splice.events
    error.attempts = len(report.attempts)
    error.report = report
    error.retry_after = None if fact.hint is None else fact.hint.seconds
    if isinstance(error, StreamDivergedError):
        error.at = splice.diverged_at
    error.add_note(f"gip_resilience: {report}")


def message(code: str) -> str:
    """One line for people."""
    return _MESSAGES.get(code, "the stream broke off") + f" ({code})"


_MESSAGES = {
    "stream_terminated": "the stream ended before its terminal marker",
    "stream_reset": "the connection broke in the middle of the stream",
    "stream_stalled": "the stream fell silent",
    "stream_garbled": "the stream holds an event that is not what its protocol promises",
    "not_a_stream": "the attempt to go on was not answered with an event stream",
    "stream_diverged": "the replay of a broken stream was another answer",
    "stream_gap": "the attempt to resume left events out, or began another answer",
}


class Flow(Stage):
    """A mended stream of a blocking client.

    Its port is a `gip_resilience.drive.Port` that has a stream in hand, and these besides: ``inflater`` (undoes the
    stream's content encoding), ``stopped`` (the server said that there is no more), ``closed`` (send nothing more),
    ``pull()`` (the next bytes off the wire, ``None`` at the end), ``broke(error)`` (how an error of ``pull`` breaks a
    stream, or nothing), ``prepare(onward)`` (what the next attempt sends), ``origin()`` (what taking up the answer in
    hand again takes), ``socket()`` and ``interruption(code)``.
    """

    __slots__ = ()

    def take(self) -> bytes:
        """The next piece, whole events; empty at the end. Raises what no attempt could mend, once."""
        try:
            while True:
                if self._closed:  # perhaps by another thread, while a request was under way
                    self._let_go()
                    return b""
                if self._splice.broken is not None:
                    out = self._mend()
                elif self._splice.over:
                    return self._finish()
                else:
                    out = self._read_on()
                if out:
                    return out
        except BaseException:
            self._splice.over = self._drained = True
            self._let_go()
            raise

    def _read_on(self) -> bytes:
        port = self._port
        try:
            piece: bytes | None = port.pull() if port.inflater is None else self._piece()
        except Exception as error:
            if not self._broke(error):
                raise
            return b""
        if self._timed and self._overdue():
            return b""
        splice = self._splice
        if piece is not None:
            out = splice.feed(piece)
            return out if splice.flowing else self._took(out)
        out = self._took(splice.end())
        if splice.over:
            self._drained = True
            self._port.release()
        return out

    def _piece(self) -> bytes | None:
        """The next bytes without their content encoding; ``None`` at the end of the body."""
        while True:
            if self._inflated is not None:
                piece = next(self._inflated, None)
                if piece is not None:
                    return piece
                self._inflated = None
            chunk: bytes | None = self._port.pull()
            if chunk is None or self._port.inflater is None:
                return chunk
            self._inflated = self._port.inflater.feed(chunk)

    def _mend(self) -> bytes:
        fact, decision, script = self._decide()
        if decision.action in (Action.END, Action.MARKER):
            self._port.release()
            return self._complete(decision)
        if script is not None:
            self._inflated = None
            effect = perform(script, self._port, self._clock, self._first)
            self._port.failure, failure = None, self._port.failure
            if isinstance(effect, Refuse):
                self._refuse(effect, failure)
            if self._call.streaming and self._goes_on(decision):
                return b""
            if self._splice.over:
                self._port.release()
                return b""
        else:
            self._call.judge(fact, decision.reason)
        self._port.release()
        return self._give_up(fact)

    def _finish(self) -> bytes:
        """The end: read what is left, so that the connection can be used again."""
        if self._drained:
            return b""
        self._drained = True
        late: list[bytes] = []

        def pull() -> bytes | None:
            piece = self._piece()
            if piece:
                late.append(self._splice.after(piece))
            return piece

        host = self._call.key.host
        sock = self._port.socket() if self._drains.worth(host) else None
        if sock is not None:
            self._drains.tell(host, drain(pull, sock))
        self._port.release()
        return b"".join(late)

    def _let_go(self) -> None:
        try:
            self._port.release()
        finally:
            self._call.stream_left()

    def close(self) -> None:
        """Close the stream. Idempotent. No request is sent any more, also when a wait for one is under way."""
        if self._closed:
            return
        self._closed = self._port.closed = True
        try:
            if self._splice.over:
                self._finish()
        finally:
            self._let_go()

    def drop(self) -> None:
        """The stream is being collected: leave a note.

        The collector may be at work in a thread that holds a lock of the store's, of the counters' or of the client's
        pool. The call is ended, and what it holds is given back, when the next one begins.
        """
        self._closed = self._port.closed = True
        self.forsake()
        forget(self._port.release)
