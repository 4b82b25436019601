"""What the story of a call asks of the world, as values; a driver performs them."""

from __future__ import annotations

from typing import NamedTuple


class Send(NamedTuple):
    """Send the request; answer with the `Fact`. ``timeout`` is what is left of the deadline, in seconds."""

    timeout: float | None


class Pause(NamedTuple):
    """Give back the connection, wait ``seconds``, answer with nothing."""

    seconds: float


class Deliver(NamedTuple):
    """Hand up what came last: return the answer, or raise the error. The call is over."""


class Refuse(NamedTuple):
    """Hand up a refusal of our own. The call is over.

    Attributes:
        kind: ``circuit_open``, ``rate_limited`` or ``deadline``.
        host: whom the call was for.
        model: the model, or an empty string.
        retry_after: seconds after which it makes sense to try again; ``None`` when nobody knows.
        respond: answer with a response in the gateway's error shape instead of raising.
    """

    kind: str
    host: str
    model: str
    retry_after: float | None
    respond: bool


Effect = Send | Pause | Deliver | Refuse

DELIVER = Deliver()
