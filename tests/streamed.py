"""Streams over the wire: a server that plays a script, and what the caller of any client gets of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import gip_resilience as gr
from endpoints import Events
from gip_resilience.config import BreakerConfig, BudgetConfig
from loopback import Exchange, Loopback
from sending import open_session, read_pieces

if TYPE_CHECKING:
    from gip_resilience.testing import FakeClock
    from harness import Harness, Session

QUIET: dict[str, Any] = {"breaker": BreakerConfig(mode="off"), "budget": BudgetConfig(mode="off")}
"""For tests whose subject is neither."""


def brain(clock: FakeClock, *observers: object, **config: Any) -> gr.Resilience:
    """A `Resilience` in which pauses cost no time, without chance; *config* is laid over `QUIET`."""
    return gr.Resilience(
        gr.Config(**{**QUIET, **config}), clock=clock, observers=observers, chance=lambda: 0.5
    )


@dataclass
class Outcome:
    """What the caller got.

    Attributes:
        content: the body, as far as it came.
        response: the library's own, if reading it ended well.
        error: what was raised otherwise.
    """

    content: bytes
    response: Any = None
    error: Exception | None = None

    @property
    def report(self) -> gr.CallReport:
        """The report of the call behind it."""
        found = gr.report(self.error if self.response is None else self.response)
        assert found is not None
        return found

    @property
    def actions(self) -> list[str]:
        """What was done about each break."""
        return [hop.action for hop in self.report.hops]

    @property
    def events(self) -> Events:
        """The stream, which must be of whole events."""
        text = self.content.decode().replace("\r\n", "\n")
        assert text.endswith("\n\n") or not text
        return Events(text.split("\n\n")[:-1])

    @property
    def interruption(self) -> gr.StreamInterruptedError:
        """The error, which must be ours."""
        assert isinstance(self.error, gr.StreamInterruptedError)
        return self.error


def ask(session: Session, url: str, body: Any = None, method: str = "POST", **options: Any) -> Outcome:
    """Ask for a stream, and read it to its end."""
    kept: list[bytes] = []
    if body is not None:
        options["json"] = body
    try:
        response = read_pieces(session, method, url, kept.append, **options)
    except Exception as error:  # whatever the caller's would be
        return Outcome(b"".join(kept), error=error)
    return Outcome(b"".join(kept), response)


def asked_once(harness: Harness, resilience: gr.Resilience, url: str, *args: Any, **options: Any) -> Outcome:
    """The same with a client for this one request."""
    with open_session(harness, resilience) as session:
        return ask(session, url, *args, **options)


class Play(NamedTuple):
    """One answer of a `Script`.

    Attributes:
        body: its bytes.
        end: in order; closed before the end that was promised; reset; or silence.
        status: HTTP status.
        headers: beside the framing and the content type.
        content_type: of the body.
    """

    body: bytes = b""
    end: Literal["eof", "fin", "rst", "stall"] = "eof"
    status: int = 200
    headers: tuple[str, ...] = ()
    content_type: str | None = "text/event-stream"


@dataclass(frozen=True)
class Heard:
    """A request that a `Script` got."""

    method: str
    path: str
    head: bytes = field(repr=False)
    body: bytes = b""

    def header(self, name: str) -> bytes | None:
        """The value of a header, as it came; ``None`` without one."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.lower().encode():
                return value.strip()
        return None


class Script(Loopback):
    """A server that gives each request the next of its answers, and 410 when there is none left."""

    def __init__(self, *plays: Play) -> None:
        super().__init__(self._play)
        self.heard: list[Heard] = []
        self._plays = plays

    def _play(self, exchange: Exchange) -> None:
        body = exchange.read_body() or b""
        method, path, _ = exchange.head.split(b"\r\n")[0].decode("latin-1").split(" ")
        self.heard.append(Heard(method, path, exchange.head, body))
        number = len(self.heard) - 1
        play = self._plays[number] if number < len(self._plays) else Play(status=410, content_type=None)
        lines = [f"HTTP/1.1 {play.status} Any", *play.headers]
        if play.content_type is not None:
            lines.append(f"content-type: {play.content_type}")
        if play.status == 204:
            exchange.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
            return
        lines.append("transfer-encoding: chunked")
        chunk = b"%x\r\n%b\r\n" % (len(play.body), play.body) if play.body else b""
        exchange.send(
            "\r\n".join([*lines, "", ""]).encode("latin-1"), chunk, b"0\r\n\r\n" if play.end == "eof" else b""
        )
        if play.end == "fin":
            exchange.close()
        elif play.end == "rst":
            exchange.reset()
        elif play.end == "stall":
            exchange.wait_for_end()


def deltas(content: bytes) -> dict[str, Any]:
    """What an assembler makes of a stream of chat: texts joined, tool calls put together, counts of the rest."""
    found: dict[str, Any] = {
        "text": "",
        "tools": {},
        "roles": 0,
        "finish": [],
        "usage": 0,
        "ids": set(),
        "done": 0,
    }
    for block in content.decode().split("\n\n")[:-1]:
        data = next((line[6:] for line in block.split("\n") if line.startswith("data: ")), None)
        if data == "[DONE]":
            found["done"] += 1
        if data is None or data == "[DONE]":
            continue
        assert not found["done"]
        event = json.loads(data)
        found["ids"].add(event["id"])
        found["usage"] += event.get("usage") is not None
        for choice in event["choices"]:
            delta = choice["delta"]
            found["text"] += delta.get("content") or ""
            found["roles"] += "role" in delta
            found["finish"] += [choice["finish_reason"]] if choice["finish_reason"] else []
            for call in delta.get("tool_calls", ()):
                tool = found["tools"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                tool["id"] += call.get("id", "")
                tool["name"] += call["function"].get("name", "")
                tool["arguments"] += call["function"].get("arguments", "")
    return found
