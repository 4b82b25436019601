"""Our exceptions as kin of those of requests, and what the errors of requests mean."""

from __future__ import annotations

from http.client import HTTPException
from typing import TYPE_CHECKING

from requests import exceptions
from urllib3.exceptions import (
    ConnectTimeoutError,
    EmptyPoolError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from gip_resilience import errors
from gip_resilience._refusals import refusal_message
from gip_resilience.errors import ResilienceError
from gip_resilience.taxonomy import transport_fact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.taxonomy import Fact

_NEVER_CONNECTED = (ConnectTimeoutError, NewConnectionError, NameResolutionError)


class CircuitOpenError(errors.CircuitOpenError, exceptions.ConnectionError):
    """The circuit is open; nothing was sent."""

    __module__ = "gip_resilience.requests"


class RateLimitedError(errors.RateLimitedError, exceptions.ConnectionError):
    """The rate limit resets later than this call may wait; nothing was sent."""

    __module__ = "gip_resilience.requests"


class DeadlineExceededError(errors.DeadlineExceededError, exceptions.Timeout):
    """The deadline of the whole call has passed."""

    __module__ = "gip_resilience.requests"


class StreamInterruptedError(errors.StreamInterruptedError, exceptions.ChunkedEncodingError):
    """An event stream broke, and could not be mended."""

    __module__ = "gip_resilience.requests"


class StreamStalledError(errors.StreamInterruptedError, exceptions.ConnectionError, exceptions.ReadTimeout):
    """An event stream fell silent, and could not be mended. requests itself raises ``ConnectionError`` for that."""

    __module__ = "gip_resilience.requests"


class StreamDivergedError(errors.StreamDivergedError, exceptions.ChunkedEncodingError):
    """A broken event stream was replayed, and the answer was another one."""

    __module__ = "gip_resilience.requests"


INTERRUPTIONS: Mapping[str, type[errors.StreamInterruptedError]] = {
    "stream_stalled": StreamStalledError,
    "stream_diverged": StreamDivergedError,
}

REFUSALS: Mapping[str, type[ResilienceError]] = {
    "circuit_open": CircuitOpenError,
    "rate_limited": RateLimitedError,
    "deadline": DeadlineExceededError,
}


def refusal_error(refusal: Refuse, call: Call, request: PreparedRequest) -> ResilienceError:
    """A refusal in requests' own words."""
    # Each is an error of requests' too, and those take the request.
    error = REFUSALS[refusal.kind](refusal_message(refusal), request=request)  # type: ignore[call-arg]
    error.report = report = call.report()
    error.retry_after = refusal.retry_after
    error.add_note(f"gip_resilience: {report}")
    return error


def read_timeout(request: PreparedRequest) -> Exception:
    """What an attempt ends with that the deadline has cut."""
    return exceptions.ReadTimeout("the deadline of the call has passed", request=request)


def explain(error: Exception) -> Fact | None:
    """Tell what an error of requests means, or ``None`` when it is not about the exchange at all."""
    if isinstance(error, ResilienceError):
        return None
    kind: str | None = None
    match error:
        case exceptions.ConnectTimeout() | exceptions.ProxyError():
            kind = "connect_timeout" if isinstance(error, exceptions.ConnectTimeout) else "connect_error"
        case exceptions.ReadTimeout():
            kind = "read_timeout"
        case exceptions.SSLError():
            # A certificate that does not verify now will not verify in a second either.
            kind = "tls_error" if "CERTIFICATE_VERIFY_FAILED" in str(error) else "connection_lost"
        case exceptions.ConnectionError():
            kind = _kind_of_connection_error(error)
        case exceptions.ChunkedEncodingError() | exceptions.ContentDecodingError():
            kind = "truncated_body"
        case exceptions.InvalidHeader():
            # Of the answer: a request's own are looked at before it comes to an adapter.
            kind = "protocol_error"
        case _:
            return None
    return transport_fact(kind)


def _kind_of_connection_error(error: exceptions.ConnectionError) -> str:
    """One class stands for "could not connect" and "the connection broke"; urllib3's reason tells."""
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    if isinstance(reason, EmptyPoolError):
        return "pool_timeout"
    return "connect_error" if isinstance(reason, _NEVER_CONNECTED) else "connection_lost"


def breakage(error: Exception) -> str:
    """How an error breaks a stream that is being read (a key of `gip_resilience.facts.STREAM`), or nothing."""
    if isinstance(error, ResilienceError):
        return ""
    if isinstance(error, (ReadTimeoutError, TimeoutError, exceptions.ReadTimeout)):
        return "stream_stalled"
    return "stream_reset" if isinstance(error, (HTTPError, HTTPException, OSError)) else ""
