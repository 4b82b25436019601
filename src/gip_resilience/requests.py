"""Adapter for requests.

    session.mount("https://", ResilientAdapter())

`gip_resilience.mount` does the same for every adapter a session already has, and keeps those adapters: their
pools, certificates and proxies.

requests gives its transport adapters no per-request options, so overrides travel by `Resilience.override`. urllib3's
own retries are pinned off beneath us, or two layers would multiply; `gip_resilience.Policy.from_urllib3` turns a
``urllib3.Retry`` into a policy.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import Response, exceptions
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.exceptions import (
    ConnectTimeoutError,
    EmptyPoolError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.response import HTTPResponse
from urllib3.util import Timeout
from urllib3.util.retry import Retry

from gip_resilience import errors
from gip_resilience._answers import Noted, Question, Told, success
from gip_resilience._recording import Recorder, pieces
from gip_resilience._refusals import refusal_answer, refusal_message
from gip_resilience._requests_bodies import CHUNK, Reading, Rest, put_back
from gip_resilience.drive import drive, sign, uncovered
from gip_resilience.errors import ResilienceError
from gip_resilience.resilience import Resilience
from gip_resilience.target import credential_digest, model_in_body, model_in_path
from gip_resilience.taxonomy import transport_fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from requests import PreparedRequest

    from gip_resilience._recording import Tape
    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.taxonomy import Fact

__all__ = ["CircuitOpenError", "DeadlineExceededError", "RateLimitedError", "ResilientAdapter"]

REPORT = "gip_resilience"
"""Attribute of a response that holds its call; `gip_resilience.report` reads it."""

_NEVER_CONNECTED = (ConnectTimeoutError, NewConnectionError, NameResolutionError)


class CircuitOpenError(errors.CircuitOpenError, exceptions.ConnectionError):
    """The circuit is open; nothing was sent."""


class RateLimitedError(errors.RateLimitedError, exceptions.ConnectionError):
    """The rate limit resets later than this call may wait; nothing was sent."""


class DeadlineExceededError(errors.DeadlineExceededError, exceptions.Timeout):
    """The deadline of the whole call has passed."""


_REFUSALS: Mapping[str, type[ResilienceError]] = {
    "circuit_open": CircuitOpenError,
    "rate_limited": RateLimitedError,
    "deadline": DeadlineExceededError,
}


class ResilientAdapter(HTTPAdapter):
    """An adapter that makes another one resilient.

    Args:
        resilience: policy, state and counters; one of its own by default.
        inner: the adapter that sends. By default this one does, with the pool options of ``HTTPAdapter``. The
            retries of an ``HTTPAdapter`` given here are switched off while we are around it.
        pool: ``pool_connections``, ``pool_maxsize`` and ``pool_block`` as for ``HTTPAdapter``; not with *inner*.

    Raises:
        TypeError: pool options together with *inner*, or ``max_retries``.

    Thread-safe as far as requests is. It pickles with its session: the `Resilience` as its configuration.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "resilience", "inner", "_unpinned"]  # noqa: RUF012 - as requests has it

    def __init__(
        self, resilience: Resilience | None = None, inner: BaseAdapter | None = None, **pool: Any
    ) -> None:
        if "max_retries" in pool:
            raise TypeError(
                "max_retries: retries are this adapter's own business; "
                "Policy.from_urllib3(retry) turns a urllib3.Retry into a policy"
            )
        if inner is not None and pool:
            raise TypeError(f"{', '.join(sorted(pool))}: the pool belongs to the inner adapter")
        super().__init__(max_retries=_no_retries(), **pool)
        self.resilience = Resilience() if resilience is None else resilience
        self.inner = inner
        self._unpinned: Retry | None = None
        if isinstance(inner, HTTPAdapter):
            self._unpinned = inner.max_retries
            inner.max_retries = _no_retries()

    def __repr__(self) -> str:
        return f"ResilientAdapter({self.resilience!r}, inner={self.inner!r})"

    def restore(self) -> BaseAdapter | None:
        """Give the inner adapter its retries back and return it; this adapter is not used afterwards."""
        if self._unpinned is not None and isinstance(self.inner, HTTPAdapter):
            self.inner.max_retries = self._unpinned
        return self.inner

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send *request*, as often as the policy of its failures says.

        Raises:
            CircuitOpenError: refused, the circuit is open.
            RateLimitedError: refused, the rate limit resets too late.
            DeadlineExceededError: the call's deadline has passed.
            requests.exceptions.RequestException: the last attempt's own error.
        """
        noted = Noted(_raw_headers(request))
        options = {"stream": stream, "verify": verify, "cert": cert, "proxies": proxies}
        send = super().send if self.inner is None else self.inner.send
        if noted.upgrade:
            return send(request, timeout=timeout, **options)
        port = _Port(self, send, request, noted, timeout, options)
        return drive(port.call, port, self.resilience.clock)

    def close(self) -> None:
        """Close the pools, the inner adapter's too."""
        super().close()
        if self.inner is not None:
            self.inner.close()


def _no_retries() -> Retry:
    return Retry(0, read=False)


def _raw_headers(request: PreparedRequest) -> Iterator[tuple[bytes, bytes]]:
    for name, value in request.headers.items():
        yield _latin(name), _latin(value)


def _latin(text: str | bytes) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text


class _Port:
    """One call of a session. See `gip_resilience.drive.Port`."""

    __slots__ = (
        "_adapter",
        "_cause",
        "_clone",
        "_noted",
        "_options",
        "_path",
        "_position",
        "_request",
        "_rest",
        "_send",
        "_sends",
        "_tape",
        "_timeout",
        "call",
        "failure",
        "response",
    )

    def __init__(
        self,
        adapter: ResilientAdapter,
        send: Callable[..., Response],
        request: PreparedRequest,
        noted: Noted,
        timeout: Any,
        options: dict[str, Any],
    ) -> None:
        self._adapter = adapter
        self._send = send
        self._request = request
        self._noted = noted
        self._timeout = timeout
        self._options = options
        self._sends = 0
        self._rest: Rest | None = None
        self._cause: Exception | None = None
        self._tape: Tape | None = None
        self._clone: PreparedRequest | None = None
        self._position: int | None = None
        self.response: Response | None = None
        self.failure: Exception | None = None
        url = urlsplit(request.url if isinstance(request.url, str) else "")
        self._path = url.path
        body: Any = request.body
        model = noted.model
        if not model and isinstance(body, (str, bytes)):
            model = model_in_body(body.encode() if isinstance(body, str) else body, noted.content_type)
        self.call = adapter.resilience.call(
            url.netloc.rpartition("@")[2].lower(),
            credential_digest(noted.credential) if noted.credential else "",
            model or model_in_path(url.path),
            sdk=noted.sdk,
            single=noted.single,
        )
        if body is not None and not isinstance(body, (str, bytes)):
            self._prepare_body(body)

    def _prepare_body(self, body: Any) -> None:
        """Decide before the first attempt how the body is sent a second time: rewound, or recorded."""
        position = getattr(self._request, "_body_position", None)
        if isinstance(position, int) and hasattr(body, "seek"):
            self._position = position
            return
        recorder = Recorder(pieces(body, CHUNK), self.call.config.body.replay_limit)
        self._tape = recorder.tape
        clone = self._request.copy()
        clone.body = recorder  # type: ignore[assignment]  # an iterable, which is what is sent in chunks
        self._clone = clone

    def attempt(self, timeout: float | None) -> Fact:
        """Send once and read what must be read."""
        self.response = self.failure = self._cause = None
        self._rest = None
        self._sends += 1
        if self._position is not None and self._sends > 1:
            self._request.body.seek(self._position)  # type: ignore[union-attr]  # a file, as was found before
        try:
            response = self._send(
                self._request if self._clone is None else self._clone,
                timeout=self._timeout if timeout is None else _within(self._timeout, timeout),
                **self._options,
            )
        except Exception as error:
            fact = self._explain(error)
            if fact is None:
                uncovered(error)
                raise
            return self._failed(error, fact)
        try:
            return self._read(response)
        except BaseException as error:
            uncovered(error)
            response.close()
            raise

    def _explain(self, error: Exception) -> Fact | None:
        if self._tape is not None and self._tape.source_failed:
            return None
        return explain(error)

    def _failed(self, error: Exception, fact: Fact) -> Fact:
        self.failure = error
        self.call.replayable = self._tape is None or self._tape.replayable
        return fact

    def _read(self, response: Response) -> Fact:
        self.response = response
        response.request = self._request
        # Or a digest authentication's second leg would go past us.
        response.connection = self._adapter
        told = Told((_latin(name), _latin(value)) for name, value in response.headers.items())
        question = Question(
            self._request.method or "GET", self._path, self._noted, response.status_code, told
        )
        config = self.call.config
        limit = question.wants(config)
        headless = _must_have_body(response, told)
        if not limit and not headless:
            return self._conclude(_silent(response.status_code))
        reading = Reading(self._adapter.resilience.clock.monotonic, response, config.body.error_timeout)
        reading.read(limit or 1)
        self._cause = reading.cause
        raw = b"".join(reading.chunks)
        if headless and reading.whole and not raw:
            return self._conclude(transport_fact("connection_lost"))
        self._rest = Rest(reading.chunks, response.raw, reading.cause, whole=reading.whole)
        response.raw = put_back(response.raw, self._rest)
        fact = question.judge(
            response.raw.headers.items,
            raw,
            config,
            self._adapter.resilience.clock.time,
            whole=reading.whole,
            broken=reading.broken,
        )
        return self._conclude(fact)

    def _conclude(self, fact: Fact) -> Fact:
        if not fact.ok:
            self.call.replayable = self._tape is None or self._tape.replayable
        return fact

    def release(self) -> None:
        """Give the connection back. What was read to its end already has."""
        if self._rest is not None:
            self._rest.let_go()
        elif self.response is not None:
            self.response.close()

    def deliver(self, call: Call) -> Response:
        """Hand the response up, with its report, and tell an SDK above not to try again in vain."""
        response = self.response
        if response is None:
            raise AssertionError("no response in hand")
        setattr(response, REPORT, call)
        if self._cause is not None:
            # It is raised when the body is read to there, and most callers then never see the response.
            sign(self._cause, call)
            self._cause = None
        if call.sdk and call.outcome != "success":
            response.headers["x-should-retry"] = "false"
        return response

    def refuse(self, refusal: Refuse, call: Call) -> Response:
        """Answer, or raise, in our own words."""
        if not refusal.respond:
            error = _REFUSALS[refusal.kind](refusal_message(refusal), request=self._request)  # type: ignore[call-arg]
            error.report = call.report()
            error.retry_after = refusal.retry_after
            try:
                raise error from self.failure
            finally:
                del error  # or error, traceback, frame and error form a cycle
        status, headers, body = refusal_answer(refusal)
        raw = HTTPResponse(io.BytesIO(body), headers=dict(headers), status=status, preload_content=False)
        response = self._adapter.build_response(self._request, raw)
        setattr(response, REPORT, call)
        return response


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


def _silent(status: int) -> Fact:
    """An answer whose body says nothing. One that ends with 1xx never came to its point."""
    if status < 200 and status != 101:
        return transport_fact("protocol_error")
    return success(status)


def _must_have_body(response: Response, told: Told) -> bool:
    """Whether an answer that turns out to have no body was cut inside its header.

    ``http.client`` takes the end of the connection for the end of the header, so a cut there comes out as a 200
    without an error, and with the headers that came before it. So it is where nothing says how long the body
    is, or what it is unless it is said to be empty.
    """
    if told.sized and (told.content_type or told.length == 0):
        return False
    if not 200 <= response.status_code < 300 or response.status_code in {204, 205}:
        return False
    return (response.request.method or "") not in {"HEAD", "CONNECT"}


def _within(given: Any, left: float) -> tuple[float, float]:
    """The (connect, read) timeouts of an attempt that must end in *left* seconds."""
    if isinstance(given, Timeout):
        connect, read = given.connect_timeout, given.read_timeout
    elif isinstance(given, tuple):
        connect, read = given
    else:
        connect = read = given
    return _smaller(connect, left), _smaller(read, left)


def _smaller(given: Any, left: float) -> float:
    return min(float(given), left) if isinstance(given, (int, float)) else left
