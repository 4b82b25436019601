"""The classes of httpx or httpx2 as the ports need them, and what the errors of either mean."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Protocol

from gip_resilience._refusals import refusal_message
from gip_resilience.errors import ResilienceError
from gip_resilience.taxonomy import transport_fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gip_resilience._answers import Entry
    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.errors import StreamInterruptedError
    from gip_resilience.taxonomy import Fact


class Maker(Protocol):
    """A class of the kit's package, called to make one of its objects."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Kit:
    """The classes of one package, as the ports need them.

    Attributes:
        request: the Request class.
        response: the Response class.
        byte_stream: its ByteStream class: a body in memory.
        entries: gives the headers of a request or a response.
        content: gives what a body in memory holds.
        transport_error: base of the errors a transport may raise.
        kinds: error class name to the kind of failure it is (see `gip_resilience.taxonomy.transport_fact`).
        read_timeout: raised when the deadline cuts an attempt short.
        refusals: our exceptions as kin of the package's own, by kind of refusal.
        interruptions: the same for a stream that breaks, by code; the empty code stands for all others.
        recording: stream classes over a recorded request body, sync and async.
        relay: stream classes over a response body that was begun, sync and async.
        mended: stream classes over an event stream that we look after, sync and async.
    """

    request: Maker
    response: Maker
    byte_stream: type
    entries: Callable[[Any], Iterable[Entry]]
    content: Callable[[Any], bytes]
    transport_error: type[Exception]
    read_timeout: Maker
    refusals: Mapping[str, type[ResilienceError]]
    interruptions: Mapping[str, type[StreamInterruptedError]]
    sync_recording: Maker
    async_recording: Maker
    sync_relay: Maker
    async_relay: Maker
    sync_mended: Maker
    async_mended: Maker


def entries_of(headers: type) -> Callable[[Any], Iterable[Entry]]:
    """How the headers of the package's own class are got at, without a copy where that can be.

    Args:
        headers: the class.
    """
    if getattr(headers([("A", "b")]), "_list", None) == [(b"A", b"a", b"b")]:
        return attrgetter("_list")
    return lambda kept: [(name, name.lower(), value) for name, value in kept.raw]


def content_of(byte_stream: type) -> Callable[[Any], bytes]:
    """How what a body in memory holds is got at.

    Args:
        byte_stream: its class.
    """
    if getattr(byte_stream(b"a"), "_stream", None) == b"a":
        return attrgetter("_stream")
    return b"".join


KINDS: Mapping[str, str] = {
    "ConnectTimeout": "connect_timeout",
    "ConnectError": "connect_error",
    "ProxyError": "connect_error",
    "PoolTimeout": "pool_timeout",
    "ReadTimeout": "read_timeout",
    "WriteTimeout": "write_timeout",
    "ReadError": "connection_lost",
    "WriteError": "connection_lost",
    "CloseError": "connection_lost",
    "RemoteProtocolError": "connection_lost",
    "LocalProtocolError": "invalid_request_local",
}
"""The packages' error classes, by name: the names are the same in both."""


def refusal_error(refusal: Refuse, call: Call, kit: Kit) -> ResilienceError:
    """A refusal in the package's own words."""
    error = kit.refusals[refusal.kind](refusal_message(refusal))
    error.report = report = call.report()
    error.retry_after = refusal.retry_after
    error.add_note(f"gip_resilience: {report}")
    return error


_CAUSES = 6
"""How many errors deep a reason is looked for: client, httpcore, anyio or trio, ssl, and some to spare."""


def explain(error: Exception, kit: Kit) -> Fact | None:
    """What an error of the client means, or ``None`` when it is not about the exchange at all.

    Our own errors (another layer of ours below), errors of the caller's, and requests the client would not
    even try are none of our business: they pass through.
    """
    if not isinstance(error, kit.transport_error) or isinstance(error, ResilienceError):
        return None
    for cls in type(error).__mro__:
        kind = KINDS.get(cls.__name__)
        if kind is None:
            continue
        if kind == "connect_error" and _is_certificate_error(error):
            kind = "tls_error"
        elif kind == "connection_lost" and _was_refused_stream(error):
            kind = "refused_stream"
        elif kind == "invalid_request_local" and _was_received(error):
            kind = "protocol_error"
        return transport_fact(kind)
    return None


def _is_certificate_error(error: object) -> bool:
    """A certificate that does not verify now will not verify in a second either.

    Under trio only a deeper cause says so, and httpcore hands its cause on as an argument. What was being handled
    around the call (``__context__``) is the caller's and no cause.
    """
    for _ in range(_CAUSES):
        if not isinstance(error, BaseException):
            return False
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or next(iter(error.args), None)
    return False


def _was_received(error: object) -> bool:
    """Over HTTP/2, a peer that breaks the protocol is called a local error, too: h2 has one word for both sides.

    The commonest is no breach at all: an answer in one read with the GOAWAY of a server that is about to stop, after
    which h2 accepts nothing more. What h2 says while it reads is not the request's fault.
    """
    for _ in range(_CAUSES):
        if not isinstance(error, BaseException):
            return False
        if type(error).__module__ == "h2.exceptions":
            return any(frame.f_code.co_name == "receive_data" for frame, _ in walk_tb(error.__traceback__))
        error = error.__cause__ or next(iter(error.args), None)
    return False


def _was_refused_stream(error: Exception) -> bool:
    """HTTP/2 says when a request was not processed; httpcore passes that on only as text."""
    text = str(error)
    return ("StreamReset" in text and "error_code:7," in text + ",") or (
        "ConnectionTerminated" in text and "last_stream_id:0," in text + ","
    )


_BELOW = frozenset({"anyio", "h11", "h2", "hpack", "httpcore", "httpcore2", "trio"})
"""Packages under the clients. Some of their errors come up untranslated while a body is read."""


def breakage(error: Exception, kit: Kit) -> str:
    """How an error breaks a stream that is being read (a key of `gip_resilience.facts.STREAM`), or nothing.

    Both packages let errors of the layers below through here (``ssl.SSLError``, ``anyio.EndOfStream``, h2's
    ``InvalidBodyLengthError``), so more counts than `explain` takes for theirs.
    """
    if isinstance(error, ResilienceError):
        return ""
    fact = explain(error, kit)
    if isinstance(error, TimeoutError) or (fact is not None and fact.code == "read_timeout"):
        return "stream_stalled"
    below = type(error).__module__.partition(".")[0] in _BELOW
    return "stream_reset" if fact is not None or below or isinstance(error, (OSError, EOFError)) else ""
