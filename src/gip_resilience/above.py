"""Who is above a call and retries as well: a loop of the user's own, or another layer of ours.

Layers that each retry multiply: four attempts over four are sixteen requests, sent while the server can bear them
least. So one layer retries, and the others send once and hand up what they get. An SDK says by a header of its
requests that it retries (``x-stainless-retry-count``); the other two cannot, and say so in context variables.

*A loop* says so itself, with `outer_retry`.

*Another layer of ours* is known by the attempt it has under way. What is sent inside that attempt with the same
method, host and path is that attempt, and is sent once. Anything else is a call of its own and keeps its full
policy: a token that is fetched before a request is signed, a guard that asks another service. Neither the identity
of the request, nor its headers, query or body are compared: what lies between two layers is there to change them
(it copies, signs, adds a version). What is sent elsewhere by something in between is not recognised, because it looks
like any other call; and something in between that asks the very same endpoint a question of its own gets one
attempt for it, which is the lesser harm.

A layer counts only while its attempt is being sent. It does not while its answer is read, nor in tasks and threads
that inherited the variable and outlived the attempt.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from contextvars import Token
    from typing import Self

__all__ = ["Layer", "outer_retry"]

_REPEAT_WITH_CARE = frozenset({"POST", "PATCH"})
"""Methods whose requests do their work anew when they come again (RFC 9110, 9.2.2)."""

_layer: ContextVar[Layer | None] = ContextVar("gip_resilience.layer", default=None)
"""The layer whose attempt the running code is part of, if that attempt still runs."""

_loop: ContextVar[_Round | None] = ContextVar("gip_resilience.loop", default=None)
"""What `outer_retry` said last."""


class _Round(NamedTuple):
    """How often a loop has tried already, and inside which attempt it said so."""

    attempt: int
    inside: Layer | None


def outer_retry(attempt: int) -> AbstractContextManager[None]:
    """Say that a loop of your own retries the calls made inside the block.

    Without it, three rounds of a loop over our four attempts are twelve requests. With it they are at most six:
    the first round does all there is to do, and each later one sends once::

        for attempt in range(3):
            with gr.outer_retry(attempt):
                response = client.post(url, json=question)
            if response.is_success or response.headers.get("x-should-retry") == "false":
                break
            time.sleep(2**attempt)

    The same goes for a library that loops (with tenacity: ``gr.outer_retry(state.attempt_number - 1)``). It is what
    SDKs say by the header ``x-stainless-retry-count``, and means the same: in the first round calls behave as ever,
    but an answer we give up on carries ``x-should-retry: false``, and with ``on_open="auto"`` an open circuit is
    answered and not raised; in later rounds each call gets one attempt. A stream that breaks is mended in every
    round, because no loop goes on where it broke. What was done about a call is in ``gr.report(response)`` or
    ``gr.report(error)``.

    Works under every client and SDK, because it travels in a context variable: for this thread or task and those
    tasks it starts. Blocks nest; the inner word wins.

    Args:
        attempt: which round it is, counted from 0.

    Raises:
        TypeError: *attempt* is not an int.
        ValueError: *attempt* is negative.
    """
    if isinstance(attempt, bool) or not isinstance(attempt, int):
        raise TypeError(f"attempt: expected an int, counted from 0, got {type(attempt).__name__}")
    if attempt < 0:
        raise ValueError(f"attempt: expected an int >= 0, got {attempt}")
    return _outer_retry(attempt)


@contextmanager
def _outer_retry(attempt: int) -> Iterator[None]:
    token = _loop.set(_Round(attempt, _under_way()))
    try:
        yield
    finally:
        _loop.reset(token)


def _under_way() -> Layer | None:
    layer = _layer.get()
    return layer if layer is not None and layer.sending else None


class Layer:
    """One call of one layer, as the layers beneath it see it. For adapters.

    A context manager to send an attempt in: not reentrant, and done anew for each attempt.

    Args:
        brain: whose layer it is.
        method: of the request.
        url: of the request; anything whose ``str`` is the URL. Only looked at beneath another layer.

    Attributes:
        brain: see above.
        above: the layer whose attempt this call is; ``None`` for a call of its own.
        loop: how often a loop around this call has tried already; ``None`` without a loop. A loop speaks of the
            calls its user makes, and not of what is sent beneath one of their attempts.
    """

    __slots__ = ("_key", "_method", "_token", "_url", "above", "brain", "loop")

    def __init__(self, brain: object, method: str, url: Any) -> None:
        self.brain = brain
        self._method = method
        self._url = url
        self._key = ""
        self._token: Token[Layer | None] | None = None
        above = _layer.get()
        if above is not None and not (above.sending and above.asks() == self.asks()):
            above = None
        self.above: Layer | None = above
        said = _loop.get()
        self.loop: int | None = None if said is None or said.inside is not _under_way() else said.attempt

    @property
    def sending(self) -> bool:
        """Whether an attempt is under way."""
        return self._token is not None

    def __repr__(self) -> str:
        return f"<Layer {self._method}{' sending' if self.sending else ''} above={self.above!r}>"

    @property
    def doubled(self) -> bool:
        """Whether a layer above is the same brain's, which counts and remembers for both."""
        link = self.above
        while link is not None:
            if link.brain is self.brain:
                return True
            link = link.above
        return False

    def key_for(self, header: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The idempotency key that the request is to be given in *header*; empty when it needs none.

        One for each call of the user's, however many layers and attempts it goes through.

        Args:
            header: the name of the header.
            headers: what the request has already.
        """
        if self._method.upper() not in _REPEAT_WITH_CARE:
            return ""
        name = header.lower().encode("ascii")
        return "" if any(found.lower() == name for found, _ in headers) else self.call_key()

    def call_key(self) -> str:
        """The idempotency key of the user's call, made when it is first needed."""
        if self.above is not None:
            return self.above.call_key()
        if not self._key:
            self._key = str(uuid.uuid4())
        return self._key

    def __enter__(self) -> Self:
        self._token = _layer.set(self)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            _layer.reset(token)
        except ValueError:
            return  # a coroutine that was thrown away half-done ends where the collector runs, in another context

    def asks(self) -> tuple[str, str, str]:
        """What makes two requests the same attempt: method, host and path."""
        url = urlsplit(str(self._url))
        return self._method.upper(), url.netloc.rpartition("@")[2].lower(), url.path or "/"
