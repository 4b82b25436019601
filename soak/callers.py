"""Callers: each makes one call after the other, and says what it saw."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio

import gip_resilience as gr

from .errands import CANCELLED, FORGOTTEN, LEFT, READ
from .kinds import ERRORS
from .ledger import current

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .errands import Errand, Errands
    from .kinds import Awaiting, Blocking, Requests
    from .ledger import Ledger, Note
    from .pacing import Pacer

DONE = b"data: [DONE]\n\n"


class Company:
    """What the callers of one population share.

    Args:
        brain: mounted on all their clients.
        ledger: where they say what they saw.
        pacer: when they call.
        url: of the gateway, and of the one that turns connections away.
    """

    def __init__(self, brain: gr.Resilience, ledger: Ledger, pacer: Pacer, url: str, door: str) -> None:
        self.brain = brain
        self.ledger = ledger
        self.pacer = pacer
        self._urls = (url, door)
        self._texts: dict[tuple[Any, ...], int] = {}

    def url(self, errand: Errand) -> str:
        """Where an errand leads."""
        return self._urls[errand.door] + errand.path

    @staticmethod
    def headers(errand: Errand, note: Note) -> dict[str, str]:
        """What a call carries. At the door each request has a connection of its own, so that these can be counted."""
        return {"x-soak-call": note.name} | ({"connection": "close"} if errand.door else {})

    def limits(self, errand: Errand) -> AbstractContextManager[None]:
        """What holds for it besides the configuration."""
        return nullcontext() if errand.deadline is None else self.brain.override(deadline=errand.deadline)

    def begin(self, errand: Errand) -> tuple[Note, float]:
        """A call begins now."""
        note = self.ledger.open(errand.kind, door=errand.door, deadline=errand.deadline)
        current.set(note)
        return note, time.monotonic()

    def end(self, note: Note, began: float) -> None:
        """It is over."""
        current.set(None)
        note.took = time.monotonic() - began
        self.ledger.close(note)

    def judge(self, note: Note, error: BaseException | None, response: Any = None) -> None:
        """What its caller was told of a call: by the error it ended in, or by its response."""
        found = gr.report(response if error is None else error)
        if found is None and response is not None:
            found = gr.report(response)
        if found is not None and found.outcome != "pending":
            note.seen = found.outcome
        else:
            note.seen = "cancelled" if error is None else "failure"
        if error is not None and not isinstance(error, ERRORS):
            self.ledger.complain(f"{note.kind} ended in {type(error).__module__}.{type(error).__qualname__}")
        if note.seen == "success" and error is None and response is not None and response.status_code >= 400:
            self.ledger.complain(f"{note.kind}: status {response.status_code} is a success")

    def examine(self, note: Note, errand: Errand, response: Any, body: bytes) -> None:
        """The gateway says the same at every time: what was mended must be what was never broken."""
        if note.seen != "success" or "text/event-stream" not in response.headers.get("content-type", ""):
            return
        if errand.path == "/v1/chat/completions" and not body.endswith(DONE):
            self.ledger.complain("a stream without its end is a success")
        model = errand.body["model"]
        if model.startswith("new") or errand.body.get("background"):
            return
        asked = (errand.path, model, errand.body.get("temperature"))
        if self._texts.setdefault(asked, hash(body)) != hash(body):
            self.ledger.complain("a stream is not what it was at other times")


class BlockingCaller:
    """A caller in a thread.

    Args:
        company: whom it belongs to.
        kind: its library.
        client: shared with others.
        errands: what it does.
    """

    def __init__(self, company: Company, kind: Requests | Blocking, client: Any, errands: Errands) -> None:
        self._company = company
        self._kind = kind
        self._client = client
        self._errands = errands

    def run(self) -> None:
        """Call until told to leave."""
        while self._company.pacer.rest():
            self._call(self._errands.next())

    def _call(self, errand: Errand) -> None:
        note, began = self._company.begin(errand)
        try:
            if errand.fresh:
                client = self._kind.open(self._company.brain)
                try:
                    self._make(client, errand, note)
                finally:
                    client.close()
            else:
                self._make(self._client, errand, note)
        except Exception as error:
            self._company.judge(note, error)
        self._company.end(note, began)

    def _make(self, client: Any, errand: Errand, note: Note) -> None:
        company = self._company
        with company.limits(errand):
            response = self._kind.send(client, company.url(errand), errand, company.headers(errand, note))
        note.handed = True
        if not errand.stream:
            company.judge(note, None, response)
            return
        body: list[bytes] = []
        try:
            for piece in self._kind.pieces(response):
                body.append(piece)
                if errand.treatment in (LEFT, FORGOTTEN) and len(body) >= errand.pieces:
                    break
        except Exception as error:
            company.judge(note, error, response)
            response.close()
            return
        if errand.treatment != FORGOTTEN:
            response.close()
        company.judge(note, None, response)
        if errand.treatment == READ:
            company.examine(note, errand, response, b"".join(body))


class AwaitingCaller:
    """A caller in a task. See `BlockingCaller`."""

    def __init__(self, company: Company, kind: Awaiting, client: Any, errands: Errands) -> None:
        self._company = company
        self._kind = kind
        self._client = client
        self._errands = errands

    async def run(self) -> None:
        """Call until told to leave."""
        while await self._company.pacer.arest():
            await self._call(self._errands.next())

    async def _call(self, errand: Errand) -> None:
        note, began = self._company.begin(errand)
        patience = errand.patience if errand.treatment == CANCELLED else None
        try:
            with anyio.move_on_after(patience) if patience is not None else nullcontext() as scope:
                if errand.fresh:
                    async with self._kind.open(self._company.brain) as client:
                        await self._make(client, errand, note)
                else:
                    await self._make(self._client, errand, note)
            if scope is not None and scope.cancelled_caught and not note.seen:
                note.seen = "cancelled"
        except Exception as error:
            self._company.judge(note, error)
        self._company.end(note, began)

    async def _make(self, client: Any, errand: Errand, note: Note) -> None:
        company = self._company
        with company.limits(errand):
            response = await self._kind.send(
                client, company.url(errand), errand, company.headers(errand, note)
            )
        note.handed = True
        if not errand.stream:
            company.judge(note, None, response)
            return
        body: list[bytes] = []
        pieces = self._kind.pieces(response)
        try:
            async for piece in pieces:
                body.append(piece)
                if errand.treatment in (LEFT, FORGOTTEN) and len(body) >= errand.pieces:
                    break
        except Exception as error:
            company.judge(note, error, response)
            await response.aclose()
            return
        except BaseException:
            with anyio.CancelScope(shield=True):
                await response.aclose()
            company.judge(note, None, response)
            raise
        if errand.treatment != FORGOTTEN:
            await response.aclose()
        company.judge(note, None, response)
        if errand.treatment == READ:
            company.examine(note, errand, response, b"".join(body))
