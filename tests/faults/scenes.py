"""A scene: a fault that stands ready, and how a caller walks into it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gip_resilience as gr
from cutting import take
from gip_resilience.gateway import FaultPlan, Gateway
from gip_resilience.testing import FakeClock
from harness import CHAT
from live import DONE, FINISH, ROLE, delta
from loopback import Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from gip_resilience.gateway import Reply
    from harness import Harness, Session
    from loopback import Exchange

GOOD = b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"}}]}'
"""The right answer of the peers here."""

JSON = "content-type: application/json"
SSE = "content-type: text/event-stream"

HELLO = ROLE + delta("Hello") + delta(" wor") + delta("ld") + FINISH + DONE
"""The right stream of the peers here."""

PATIENT = 5.0
"""Seconds a client waits where it will be answered."""

BRIEF = 0.05
"""Seconds it waits where it never will."""

BEGUN = 0.25
"""Seconds it waits where an answer begins and does not go on: enough for the beginning to come."""

FAIR = 0.5
"""Seconds it waits where it will not be answered at first, but later: enough for a busy machine."""

QUICK = gr.Config(stream=gr.StreamConfig(resume=()))
"""The default policy."""


@dataclass
class Outcome:
    """What the caller got.

    Attributes:
        status: of the answer; 0 without one.
        body: as far as it came.
        error: what was raised, if anything was.
    """

    status: int = 0
    body: bytes = b""
    error: BaseException | None = None

    @property
    def sight(self) -> tuple[str, int, bytes]:
        """What can be compared with what another client got."""
        return (type(self.error).__name__ if self.error else "", self.status, self.body)


class Meanwhile(FakeClock):
    """A clock on which something happens during the first pause."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self._happens = happens

    def sleep(self, seconds: float) -> None:
        """Pause, and let it happen."""
        if not self.slept:
            self._happens()
        super().sleep(seconds)


@dataclass
class Scene:
    """A fault that stands ready.

    Attributes:
        url: where a call meets it.
        arrived: requests that came to the peer so far; ``None`` where nobody can count them.
        config: the policy of the call.
        clock: on which it waits.
        client: options the client is made with.
        sending: options of each request.
        timeout: seconds to connect, and to wait for an answer.
        play: what the caller does, if not one simple request.
        right: whether an outcome is the right one.
        store: shared state of the call; in memory by default.
        method: of the request.
        together: whether several calls run at once, so that the order of their attempts means nothing.
    """

    url: str
    arrived: Callable[[], int] | None = None
    config: gr.Config = QUICK
    clock: Any = field(default_factory=FakeClock)
    client: dict[str, Any] = field(default_factory=dict)
    sending: dict[str, Any] = field(default_factory=dict)
    timeout: tuple[float, float] = (PATIENT, PATIENT)
    play: Callable[[Session, Scene], Outcome] | None = None
    right: Callable[[Outcome], bool] = lambda outcome: (outcome.status, outcome.body) == (200, GOOD)
    store: Any = None
    method: str = "POST"
    together: bool = False

    @property
    def lags(self) -> bool:
        """Whether the client may give up before its peer has even read the request, on a busy machine."""
        return self.timeout[1] < PATIENT or self.config.deadline is not None

    def act(self, session: Session) -> Outcome:
        """Walk into it."""
        return (self.play or ask)(session, self)

    def options(self, session: Session) -> dict[str, Any]:
        """The options of a request under this client."""
        connect, read = self.timeout
        known = session.harness.name == "requests"
        timeout = (
            (connect, read) if known else session.harness.library.Timeout(PATIENT, connect=connect, read=read)
        )
        return {"timeout": timeout, **self.sending}


def ask(session: Session, scene: Scene) -> Outcome:
    """One request, read to its end."""
    options = scene.options(session)
    if scene.method != "GET" and not {"data", "content"} & options.keys():
        options.setdefault("json", CHAT)
    try:
        answer = session.request(scene.method, scene.url, **options)
    except Exception as error:
        return Outcome(error=error)
    return Outcome(answer.status, answer.content)


def listen(body: dict[str, Any]) -> Callable[[Session, Scene], Outcome]:
    """One request for a stream, read piece by piece."""

    def play(session: Session, scene: Scene) -> Outcome:
        taken = take(session, scene.url, body, **scene.options(session))
        status = 0 if taken.response is None else taken.response.status_code
        return Outcome(status, taken.data, taken.error)

    return play


Maker = "Callable[[str, Harness], AbstractContextManager[Scene]]"

SCENES: dict[str, Callable[[str, Harness], AbstractContextManager[Scene]]] = {}
"""Every fault by name, as far as it is played in this process."""


def scene(name: str) -> Callable[[Callable[[str, Harness], Iterator[Scene]]], None]:
    """Register what makes the scene of a fault for an act and a client."""

    def register(make: Callable[[str, Harness], Iterator[Scene]]) -> None:
        assert name not in SCENES, name
        SCENES[name] = contextmanager(make)

    return register


def good(exchange: Exchange) -> None:
    """The right answer."""
    if exchange.read_body() is not None:
        exchange.answer(200, GOOD, JSON)


def exchanges(name: str, **more: Any) -> Callable[[Callable[[Exchange], None]], None]:
    """Register a fault of single exchanges: of the first one, or of all.

    Args:
        name: of the fault.
        more: attributes of the scene; ``silent`` is how long a client waits that is never answered (`BRIEF`, or
            `BEGUN` where there is a beginning),
            ``well`` for what the peer does when it does well, ``counted`` for whether it sees all requests, and
            ``once`` for attributes that differ where it heals.
    """
    silent, well = more.pop("silent", 0.0), more.pop("well", good)
    counted, once = more.pop("counted", True), more.pop("once", {})

    def register(bad: Callable[[Exchange], None]) -> None:
        def handler(act: str) -> Callable[[Exchange], None]:
            def handle(exchange: Exchange) -> None:
                (well if act == "once" and exchange.number > 1 else bad)(exchange)

            return handle

        @scene(name)
        def _(act: str, harness: Harness) -> Iterator[Scene]:
            with Loopback(handler(act)) as peer:
                options = {**more, **(once if act == "once" else {})}
                if silent:
                    options["timeout"] = (PATIENT, FAIR if act == "once" else silent)
                if counted:
                    options["arrived"] = lambda: peer.count
                yield Scene(peer.url + "/v1/chat/completions", **options)

    return register


def replies(name: str, *bad: Reply, **more: Any) -> None:
    """Register a fault the gateway plays: once each, or for ever the last of them."""
    path, options = more.pop("path", "/chat/completions"), more.pop("gateway", {})
    again = more.pop("again", None)

    @scene(name)
    def _(act: str, harness: Harness) -> Iterator[Scene]:
        plan = FaultPlan.script(bad) if act == "once" else FaultPlan.always(bad[-1])
        with Gateway(plan, **options) as gateway:
            chosen = {"right": answered, **more}
            if again is not None:
                chosen["play"] = again
            yield Scene(gateway.base_url + path, lambda: len(gateway.requests), **chosen)


def answered(outcome: Outcome) -> bool:
    """Whether the gateway's own good answer came whole."""
    return outcome.status == 200 and outcome.body.endswith(b"}") and b'"choices"' in outcome.body
