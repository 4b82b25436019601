"""What the tests that go through every client share: clients kept open, and answers that can be compared.

Making a client costs more than a dozen requests on loopback, so a module makes two of each kind, one bare and one to
mount on, and every test mounts a brain of its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gip_resilience as gr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gip_resilience.gateway import Gateway
    from harness import Answer, Harness, Session

RANDOM = {"date", "x-request-id"}
"""Headers whose values the gateway makes anew for every answer."""


@dataclass
class Pair:
    """Two open clients of one kind."""

    harness: Harness
    bare: Session
    session: Session

    @contextmanager
    def mounted(self, brain: gr.Resilience) -> Iterator[Session]:
        """The second client with *brain* mounted for as long as the block lasts."""
        gr.mount(self.session.client, brain)
        try:
            yield self.session
        finally:
            gr.unmount(self.session.client)


@contextmanager
def pair(harness: Harness) -> Iterator[Pair]:
    """Open the two clients of *harness*; without certificates, which take long to load and are not needed here."""
    with harness.open(verify=False) as bare, harness.open(verify=False) as session:
        yield Pair(harness, bare, session)


def chat_url(gateway: Gateway) -> str:
    """Where chat requests go."""
    return gateway.base_url + "/chat/completions"


def read_timeout(harness: Harness, seconds: float) -> dict[str, Any]:
    """The option for a client that waits for an answer no longer than *seconds*, and patiently for all else."""
    return {"timeout": (5, seconds) if harness.name == "requests" else (5, seconds, 5, 5)}


def header_pairs(answer: Answer) -> list[tuple[str, str]]:
    """Every header in order, repeated ones apart; of those that differ by nature only the name."""
    headers = answer.response.headers
    items = headers.multi_items() if hasattr(headers, "multi_items") else answer.response.raw.headers.items()
    return [(name.lower(), "" if name.lower() in RANDOM else value) for name, value in items]


def perform(session: Session, make: Callable[[], Any]) -> Any:
    """What *make* returns; under an awaiting client awaited first, in the client's loop."""
    if session.harness.colour == "sync":
        return make()

    async def awaited() -> Any:
        return await make()

    return session.portal.call(awaited)


def raised(make: Callable[[], Any]) -> BaseException:
    """The error that *make* ends in."""
    try:
        made = make()
    except Exception as error:
        return error
    raise AssertionError(f"expected an error, got {made!r}")
