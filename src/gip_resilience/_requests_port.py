"""One call of a session: how it is sent, read, mended and handed up."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3.response import HTTPResponse
from urllib3.util import Timeout

from gip_resilience._answers import Question, Told, success
from gip_resilience._flow import Flow, message
from gip_resilience._inflating import UnknownEncodingError, inflater
from gip_resilience._recording import Recorder, pieces
from gip_resilience._refusals import refusal_answer
from gip_resilience._requests_bodies import CHUNK, Reading, Rest, put_back, read_some, shorten_timeout
from gip_resilience._requests_deadlines import bounded, send_in_time
from gip_resilience._requests_errors import (
    INTERRUPTIONS,
    StreamInterruptedError,
    breakage,
    explain,
    read_timeout,
    refusal_error,
)
from gip_resilience._requests_streams import streamed
from gip_resilience._splice import Splice
from gip_resilience.drive import sign, uncovered
from gip_resilience.recovery import UNKNOWN, asked
from gip_resilience.target import bare_url, look_at, model_in_body, model_in_path
from gip_resilience.taxonomy import stream_fact, transport_fact

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    from gip_resilience import errors
    from gip_resilience._answers import Entry, Noted
    from gip_resilience._inflating import Inflater
    from gip_resilience._recording import Tape
    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.recovery import Asked, Onward, Origin
    from gip_resilience.resilience import Resilience
    from gip_resilience.taxonomy import Fact

REPORT = "gip_resilience"
"""Attribute of a response that holds its call; `gip_resilience.report` reads it."""


def raw_headers(request: PreparedRequest) -> Iterator[tuple[bytes, bytes]]:
    """A request's headers as bytes, in order."""
    for name, value in request.headers.items():
        yield latin(name), latin(value)


def entries_of(headers: Mapping[str, str]) -> list[Entry]:
    """Headers as `gip_resilience._answers` reads them."""
    lower_items = getattr(headers, "lower_items", None)
    if (
        lower_items is not None
    ):  # as the library's own have it; to ask them for their items costs ten times as much
        return [(b"", latin(name), latin(value)) for name, value in lower_items()]
    return [(b"", latin(name).lower(), latin(value)) for name, value in headers.items()]


def latin(text: str | bytes) -> bytes:
    """A name or a value as bytes; requests has them in both forms."""
    return text.encode("utf-8", "replace") if isinstance(text, str) else text


def _keep() -> None:
    """What ``release_conn`` of a raw response does while its stream is ours."""


class Port:
    """One call of a session. See `gip_resilience.drive.Port`."""

    __slots__ = (
        "_adapter",
        "_brain",
        "_cause",
        "_clone",
        "_ended",
        "_noted",
        "_onward",
        "_options",
        "_path",
        "_position",
        "_question",
        "_request",
        "_rest",
        "_send",
        "_sends",
        "_source",
        "_tape",
        "_timeout",
        "_whole",
        "call",
        "closed",
        "failure",
        "inflater",
        "response",
        "stopped",
    )

    def __init__(
        self,
        adapter: HTTPAdapter,
        brain: Resilience,
        send: Callable[..., Response],
        request: PreparedRequest,
        noted: Noted,
        timeout: Any,
        options: dict[str, Any],
    ) -> None:
        self._adapter = adapter
        self._brain = brain
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
        self._question: Question | None = None
        self._onward: Onward | None = None
        self._source: Any = None
        self._ended = self._whole = False
        self.inflater: Inflater | None = None
        self.closed = self.stopped = False
        self.response: Response | None = None
        self.failure: Exception | None = None
        url = urlsplit(request.url if isinstance(request.url, str) else "")
        self._path = url.path
        host = url.netloc.rpartition("@")[2].lower()
        body: Any = request.body
        model = noted.model
        if not model and isinstance(body, (str, bytes)):
            model = model_in_body(body.encode() if isinstance(body, str) else body, noted.content_type)
        self.call = brain.call(
            host,
            brain.store.digest(noted.credential) if noted.credential else "",
            model or model_in_path(url.path),
            sdk=noted.sdk,
            single=noted.single,
            target=lambda named: look_at(
                request.method or "GET", url.geturl(), host, named, raw_headers(request)
            ),
            asked=lambda: (request.method or "GET", bare_url(url.geturl())),
        )
        if body is not None and not isinstance(body, (str, bytes)):
            self._prepare_body(body)
        if self.call.config.idempotency_header is not None:
            self._add_key(self.call.config.idempotency_header)

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

    def _add_key(self, name: str) -> None:
        key = self._noted.layer.key_for(name, raw_headers(self._request))
        if key:
            self._clone = self._request.copy() if self._clone is None else self._clone
            self._clone.headers[name] = key

    def attempt(self, timeout: float | None) -> Fact:
        """Send once and read what must be read."""
        if self.closed:
            raise self.interruption("stream_closed")
        self.response = self.failure = self._cause = None
        self._rest = self._source = self.inflater = None
        self.stopped = self._whole = False
        self._sends += 1
        if self._position is not None and self._sends > 1:
            self._request.body.seek(self._position)  # type: ignore[union-attr]  # a file, as was found before
        try:
            if timeout is None:
                with self.call.sending(self._noted.layer):
                    response = self._send(self._outgoing(), timeout=self._timeout, **self._options)
            else:
                options = {**self._options, "timeout": _within(self._timeout, timeout)}
                with self.call.sending(self._noted.layer):
                    response = send_in_time(self.call, self._send, self._outgoing(), options)
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
        self.call.replayable = self._replayable()
        return fact

    def _outgoing(self) -> PreparedRequest:
        """The request of the next attempt: the caller's own, or a copy where something must differ."""
        request = self._request if self._clone is None else self._clone
        onward, carried = self._onward, self.call.carried
        if onward is None and not carried:
            return request
        copy = request.copy()
        if onward is None:
            copy.headers.update(carried)
            return copy
        copy.method = onward.method
        copy.url = onward.url
        copy.headers.clear()
        for name, value in onward.headers(raw_headers(request)):
            copy.headers[name.decode("latin-1")] = value.decode("latin-1")
        if not onward.body:
            copy.body = None
        elif self._position is not None or self._clone is not None:
            copy.body = request.body
        copy.headers.update(carried)
        return copy

    def _replayable(self) -> bool:
        if self._onward is not None and not self._onward.body:
            return True
        return self._tape is None or self._tape.replayable

    def _read(self, response: Response) -> Fact:
        self.response = response
        response.request = self._request
        # Or a digest authentication's second leg would go past us.
        response.connection = self._adapter
        told = Told(entries_of(response.headers))
        self._question = question = Question(
            self._request.method or "GET", self._path, self._noted, response.status_code, told
        )
        config = self.call.config
        if self._is_stream(question):
            return self._begin_stream(response)
        limit = question.wants(config)
        headless = _must_have_body(response, told)
        if not limit and not headless:
            if config.deadline is not None:
                bounded(response.raw, self.call, self._request)
            return self._conclude(_silent(response.status_code))
        reading = Reading(self._brain.clock.monotonic, response, config.body.error_timeout, self.call)
        reading.read(limit or 1)
        if reading.cut():
            response.close()
            self.response = None
            return self._failed(read_timeout(self._request), transport_fact("read_timeout"))
        self._cause = reading.cause
        raw = b"".join(reading.chunks)
        if headless and reading.whole and not raw:
            return self._conclude(transport_fact("connection_lost"))
        if reading.whole and not (told.encoding or self._options["stream"] or self._noted.nested):
            # The session, which is above us, would read it before anybody sees the response. So it has.
            vars(response).update(_content=raw, _content_consumed=True)
            self._whole = True
        else:
            self._rest = Rest(reading.chunks, response.raw, reading.cause, whole=reading.whole)
            response.raw = put_back(response.raw, self._rest)
            if config.deadline is not None and not reading.whole and reading.cause is None:
                bounded(response.raw, self.call, self._request)
        fact = question.judge(
            getattr(response.raw, "headers", response.headers).items,
            raw,
            config,
            self._brain.clock.time,
            whole=reading.whole,
            broken=reading.broken,
        )
        return self._conclude(fact)

    def _conclude(self, fact: Fact) -> Fact:
        good = fact.ok
        if self._onward is not None and good and self._source is None and self.response is not None:
            if self.response.status_code == 204:
                self.stopped = True
            else:
                fact = replace(stream_fact("not_a_stream"), status=self.response.status_code)
                good = False
        if not good:
            self.call.replayable = self._replayable()
        elif self._question is not None and self._question.told.spent and self.response is not None:
            pairs, time = self.response.headers.items, self._brain.clock.time
            fact = self._question.foresee(fact, pairs, self.call.config, time)
        return fact

    # ---- event streams: see `gip_resilience._flow.Flow` --------------------------------------------------

    def _is_stream(self, question: Question) -> bool:
        """Whether the answer is an event stream that we can look into."""
        if not question.streams(self.call.config, self._onward):
            return False
        try:
            self.inflater = inflater(question.told.encoding)
        except UnknownEncodingError:
            return False
        return True

    def _begin_stream(self, response: Response) -> Fact:
        self._source = response.raw
        self._ended = False
        if isinstance(response.raw, HTTPResponse):
            # urllib3 gives the connection back within the read that finds the end; it stays ours until `release`,
            # or what bounds a drain could shut down a connection that is somebody else's by then.
            vars(response.raw)["release_conn"] = _keep
        self.call.streaming = True
        idle = self.call.config.stream.idle_timeout
        if idle is not None:
            shorten_timeout(response.raw, idle)
        return self._conclude(success(response.status_code))

    def _asked(self) -> Asked:
        body = self._request.body
        if self._tape is not None:
            return asked(self._tape.content())
        if isinstance(body, str):
            body = body.encode()
        return asked(body) if isinstance(body, bytes) else UNKNOWN

    def pull(self) -> bytes | None:
        """The next bytes off the wire; ``None`` at the end."""
        piece = read_some(self._source, CHUNK)
        self._ended = not piece
        return piece or None

    def broke(self, error: Exception) -> str:
        """How an error of `pull` breaks a stream."""
        return breakage(error)

    def prepare(self, onward: Onward) -> None:
        """What the next attempt sends."""
        self._onward = onward
        self.call.replayable = self._replayable()

    def interruption(self, code: str) -> errors.StreamInterruptedError:
        """Our error for a break."""
        kind = INTERRUPTIONS.get(code, StreamInterruptedError)
        return kind(message(code), request=self._request)  # type: ignore[call-arg]

    def socket(self) -> socket.socket | None:
        """The connection's socket, if what is left of the body can be read off it."""
        found: socket.socket | None = getattr(getattr(self._source, "connection", None), "sock", None)
        return found

    def origin(self) -> Origin:
        """What taking up the stream in hand again takes."""
        if self._question is None:
            raise AssertionError("no answer in hand")
        return self._question.origin(self._request.url or "", self.call.config)

    def _deliver_stream(self, response: Response, call: Call) -> Response:
        brain = self._brain
        splice = Splice(call.config, self._path, self.origin(), self._asked, brain.clock.time)
        # What comes out of our hands is decoded, and its length nobody knows.
        for name in ("content-encoding", "content-length") if self.inflater is not None else ():
            response.headers.pop(name, None)
        flow = Flow(call, self, splice, brain.clock, brain.drains)
        response.raw = streamed(response.raw, flow, lambda: self._source)
        self.response = None  # or response, stream, flow and port form a cycle
        return response

    def release(self) -> None:
        """Give the connection back. What was read to its end already has."""
        if self._source is not None:
            self._release_stream(self._source)
        elif self._rest is not None:
            self._rest.let_go()
        elif self.response is not None and not self._whole:
            self.response.close()

    def _release_stream(self, source: Any) -> None:
        if isinstance(source, HTTPResponse):
            vars(source).pop("release_conn", None)
        if not self._ended:
            source.close()
        give_back = getattr(source, "release_conn", None)
        if callable(give_back):
            give_back()
        source.close()

    def deliver(self, call: Call) -> Response:
        """Hand the response up, with its report, and tell an SDK above not to try again in vain."""
        response = self.response
        if response is None:
            raise AssertionError("no response in hand")
        setattr(response, REPORT, call)
        if call.streaming:
            return self._deliver_stream(response, call)
        if self._cause is not None:
            # It is raised when the body is read to there, and most callers then never see the response.
            sign(self._cause, call)
            self._cause = None
        if self._noted.forbids(call):
            response.headers["x-should-retry"] = "false"
        return response

    def refuse(self, refusal: Refuse, call: Call) -> Response:
        """Answer, or raise, in our own words."""
        if not refusal.respond:
            error = refusal_error(refusal, call, self._request)
            try:
                raise error from self.failure
            finally:
                del error  # or error, traceback, frame and error form a cycle
        status, headers, body = refusal_answer(refusal)
        raw = HTTPResponse(io.BytesIO(body), headers=dict(headers), status=status, preload_content=False)
        response = self._adapter.build_response(self._request, raw)
        setattr(response, REPORT, call)
        return response


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
