"""A mended event stream as it is pulled by its caller, who awaits. The blocking twin is `gip_resilience._flow`."""

from __future__ import annotations

import anyio

from gip_resilience._draining import adrain
from gip_resilience._flow import Stage
from gip_resilience.drive import aperform
from gip_resilience.effects import Refuse
from gip_resilience.recovery import Action


class AsyncFlow(Stage):
    """A mended stream of an awaiting client; see `Flow`. What its port does, it awaits."""

    __slots__ = ()

    async def take(self) -> bytes:
        """See `Flow.take`. A cancellation closes the stream, and is no break of it."""
        try:
            while True:
                if self._closed:  # perhaps by another task, while a request was under way
                    await self._let_go()
                    return b""
                if self._splice.broken is not None:
                    out = await self._mend()
                elif self._splice.over:
                    return await self._finish()
                else:
                    out = await self._read_on()
                if out:
                    return out
        except BaseException:
            self._splice.over = self._drained = True
            await self._let_go()
            raise

    async def _read_on(self) -> bytes:
        port = self._port
        limit = self._limit() if self._timed else self._idle
        try:
            if limit is None:
                piece: bytes | None = await (port.pull() if port.inflater is None else self._piece())
            else:
                with anyio.fail_after(limit):
                    piece = await self._piece()
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
            await self._port.release()
        return out

    async def _piece(self) -> bytes | None:
        """See `Flow._piece`."""
        while True:
            if self._inflated is not None:
                piece = next(self._inflated, None)
                if piece is not None:
                    return piece
                self._inflated = None
            chunk: bytes | None = await self._port.pull()
            if chunk is None or self._port.inflater is None:
                return chunk
            self._inflated = self._port.inflater.feed(chunk)

    async def _mend(self) -> bytes:
        fact, decision, script = self._decide()
        if decision.action in (Action.END, Action.MARKER):
            await self._port.release()
            return self._complete(decision)
        if script is not None:
            self._inflated = None
            effect = await aperform(script, self._port, self._clock, self._first)
            self._port.failure, failure = None, self._port.failure
            if isinstance(effect, Refuse):
                self._refuse(effect, failure)
            if self._call.streaming and self._goes_on(decision):
                return b""
            if self._splice.over:
                await self._port.release()
                return b""
        else:
            self._call.judge(fact, decision.reason)
        await self._port.release()
        return self._give_up(fact)

    async def _finish(self) -> bytes:
        """See `Flow._finish`."""
        if self._drained:
            return b""
        self._drained = True
        late: list[bytes] = []

        async def pull() -> bytes | None:
            piece = await self._piece()
            if piece:
                late.append(self._splice.after(piece))
            return piece

        host = self._call.key.host
        try:
            if self._port.drainable() and self._drains.worth(host):
                self._drains.tell(host, await adrain(pull))
        finally:
            await self._port.release()
        return b"".join(late)

    async def _let_go(self) -> None:
        try:
            await self._port.release()
        finally:
            self._call.stream_left()

    async def aclose(self) -> None:
        """Close the stream, cancelled or not. Idempotent. No request is sent any more."""
        if self._closed:
            return
        self._closed = self._port.closed = True
        try:
            if self._splice.over:
                await self._finish()
        finally:
            await self._let_go()
