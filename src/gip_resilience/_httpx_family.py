"""What httpx and httpx2 have in common: everything but their classes.

The two packages have the same shape and share no type. `Kit` brings the classes of one of them; the ports here
bring the behaviour for both. The rules behind the details:

* A transport never calls ``response.read()``: that would break ``.elapsed`` and the caller's ``iter_raw()``. The
  raw stream is read instead, and put back.
* An answer that is not handed up is read to its end (up to a limit) and closed *before* the pause: that keeps
  the connection, and a pool of one cannot deadlock.
* The caller's request is sent as it is, or a copy of it; it is never changed.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio

from gip_resilience._answers import Question, Told, success
from gip_resilience._config_errors import ConfigError, show
from gip_resilience._httpx_streams import aclose_for_certain
from gip_resilience._multipart import model_in_fields, rewinds
from gip_resilience._recording import AsyncRecorder, Recorder
from gip_resilience._refusals import refusal_answer, refusal_message
from gip_resilience.config import Overrides
from gip_resilience.drive import sign, uncovered, untraced
from gip_resilience.errors import ResilienceError
from gip_resilience.target import credential_digest, model_in_body, model_in_path
from gip_resilience.taxonomy import transport_fact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from gip_resilience._answers import Noted
    from gip_resilience._recording import Tape
    from gip_resilience.clock import Clock
    from gip_resilience.config import Config
    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.resilience import Resilience
    from gip_resilience.taxonomy import Fact

EXTENSION = "gip_resilience"
"""Key in ``request.extensions`` (an `Overrides`) and in ``response.extensions`` (the call, for its report)."""


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
        transport_error: base of the errors a transport may raise.
        kinds: error class name to the kind of failure it is (see `gip_resilience.taxonomy.transport_fact`).
        read_timeout: raised when the deadline cuts an attempt short.
        refusals: our exceptions as kin of the package's own, by kind of refusal.
        recording: stream classes over a recorded request body, sync and async.
        relay: stream classes over a response body that was begun, sync and async.
    """

    request: Maker
    response: Maker
    byte_stream: type
    transport_error: type[Exception]
    read_timeout: Maker
    refusals: Mapping[str, type[ResilienceError]]
    sync_recording: Maker
    async_recording: Maker
    sync_relay: Maker
    async_relay: Maker


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


def _was_refused_stream(error: Exception) -> bool:
    """HTTP/2 says when a request was not processed; httpcore passes that on only as text."""
    text = str(error)
    return ("StreamReset" in text and "error_code:7," in text + ",") or (
        "ConnectionTerminated" in text and "last_stream_id:0," in text + ","
    )


class BasePort:
    """What does not depend on colour: preparing attempts, judging answers, handing up."""

    __slots__ = (
        "_body",
        "_cause",
        "_config",
        "_inner",
        "_kit",
        "_noted",
        "_request",
        "_tape",
        "_whole",
        "call",
        "clock",
        "error_timeout",
        "failure",
        "response",
        "sent",
    )

    def __init__(self, kit: Kit, brain: Resilience, inner: Any, request: Any, noted: Noted) -> None:
        self._kit = kit
        self._inner = inner
        self._request = request
        self._noted = noted
        self._tape: Tape | None = None
        self._body: Any = None
        self._whole = False
        self._cause: Exception | None = None
        self.response: Any = None
        self.failure: Exception | None = None
        self.clock: Clock = brain.clock
        overrides = request.extensions.get(EXTENSION)
        if overrides is not None and not isinstance(overrides, Overrides):
            raise ConfigError(f"extensions.{EXTENSION}", "a gip_resilience.Overrides", show(overrides))
        self.call: Call = brain.call(
            _host(request.url),
            credential_digest(noted.credential) if noted.credential else "",
            self._model(),
            sdk=noted.sdk,
            single=noted.single,
            overrides=overrides,
        )
        self._config: Config = self.call.config
        self.error_timeout = self._config.body.error_timeout
        self.sent = request

    def _model(self) -> str:
        request, noted = self._request, self._noted
        if noted.model:
            return noted.model
        stream = request.stream
        if isinstance(stream, self._kit.byte_stream):
            found = model_in_body(b"".join(stream), noted.content_type)  # type: ignore[arg-type]
        else:
            found = model_in_fields(stream)
        return found or model_in_path(request.url.path)

    def _begin(self) -> None:
        self.response = self.failure = self._cause = None
        self._whole = False

    def _outgoing(self, timeout: float | None) -> Any:
        """The request of the next attempt: the caller's own, or a copy where something must differ."""
        request = self._request
        if self._body is None and timeout is None:
            return request
        extensions = request.extensions
        if timeout is not None:
            extensions = {**extensions, "timeout": _within(extensions.get("timeout"), timeout)}
        self.sent = self._kit.request(
            request.method,
            request.url,
            headers=request.headers,
            stream=request.stream if self._body is None else self._body,
            extensions=extensions,
        )
        return self.sent

    def explain(self, error: Exception) -> Fact | None:
        """The fact behind an error of the client; ``None`` lets the error pass."""
        tape = self._tape
        if tape is not None and tape.source_failed:
            return None
        return explain(error, self._kit)

    def _question(self, response: Any) -> Question:
        request = self._request
        return Question(
            request.method, request.url.path, self._noted, response.status_code, Told(response.headers.raw)
        )

    def _failed(self, error: Exception, fact: Fact) -> Fact:
        self.failure = error
        self.call.replayable = self._tape is None or self._tape.replayable
        return fact

    def _conclude(self, response: Any, fact: Fact) -> Fact:
        self.response = response
        if not fact.ok:
            self.call.replayable = self._tape is None or self._tape.replayable
        return fact

    def _digest(self, question: Question, response: Any, reading: Reading, rest: Any, relay: Maker) -> Fact:
        """The body was read, as far as it is: put it back, and say what the answer means."""
        self._whole = reading.whole
        self._cause = reading.cause
        raw = b"".join(reading.chunks)
        if reading.whole:
            response.stream = self._kit.byte_stream(raw)
        else:
            response.stream = relay(reading.chunks, rest, response.stream, reading.cause)
        fact = question.judge(
            response.headers.multi_items,
            raw,
            self._config,
            self.clock.time,
            whole=reading.whole,
            broken=reading.broken,
        )
        return self._conclude(response, fact)

    def deliver(self, call: Call) -> Any:
        """Hand the response up, with its report, and tell an SDK above not to try again in vain."""
        response = self.response
        response.extensions[EXTENSION] = call
        if self._cause is not None:
            # It is raised when the body is read to there, and most callers then never see the response.
            sign(self._cause, call)
            self._cause = None
        if call.sdk and call.outcome != "success":
            response.headers["x-should-retry"] = "false"
        return response

    def refuse(self, refusal: Refuse, call: Call) -> Any:
        """Answer, or raise, in our own words."""
        if refusal.respond:
            status, headers, body = refusal_answer(refusal)
            return self._kit.response(
                status,
                headers=headers,
                stream=self._kit.byte_stream(body),
                extensions={EXTENSION: call},
            )
        error = self._kit.refusals[refusal.kind](refusal_message(refusal))
        error.report = call.report()
        error.retry_after = refusal.retry_after
        try:
            raise error from self.failure
        finally:
            del error  # or error, traceback, frame and error form a cycle


def _host(url: Any) -> str:
    netloc: bytes = url.netloc
    return netloc.decode("latin-1").lower()


def _within(timeouts: Any, left: float) -> dict[str, float]:
    """The timeouts of an attempt that must end in *left* seconds."""
    given = timeouts if isinstance(timeouts, dict) else {}
    return {
        phase: left if given.get(phase) is None else min(given[phase], left)
        for phase in ("connect", "read", "write", "pool")
    }


class Reading:
    """A body being read under the retry: how far it got, and what ended it."""

    __slots__ = ("_failing", "_give_up", "_limit", "_port", "_size", "broken", "cause", "chunks", "whole")

    def __init__(self, port: BasePort, response: Any, limit: int) -> None:
        self._port = port
        self._limit = limit
        self._failing = response.status_code >= 400
        self._give_up = port.clock.monotonic() + port.error_timeout
        self._size = 0
        self.chunks: list[bytes] = []
        self.whole = False
        self.broken: Fact | None = None
        self.cause: Exception | None = None

    def goes_on(self, chunk: bytes | None) -> bool:
        """Keep one chunk (``None``: the end came); whether to read another."""
        if chunk is None:
            self.whole = True
            return False
        self.chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= self._limit:
            return False
        return not self._failing or self._port.clock.monotonic() < self._give_up

    def broke(self, error: Exception) -> bool:
        """The body ended in an error; whether that is the client's own, and so a failed exchange."""
        self.broken = self._port.explain(error)
        if self.broken is None:
            return False
        # It is raised anew when the caller reads that far; the way it came to us is of no use to anybody.
        self.cause = untraced(error)
        return True

    def impatience(self) -> AbstractContextManager[None]:
        """Read an error body with a short timeout of its own; a stalled one must not hold up the decision.

        Both packages read the timeout of a body from the request's extensions when its first chunk is asked
        for, so that is when the shorter one is in place.
        """
        if not self._failing:
            return nullcontext()
        return _shorter_reads(self._port.sent.extensions, self._port.error_timeout)


@contextmanager
def _shorter_reads(extensions: dict[str, Any], seconds: float) -> Iterator[None]:
    given = extensions.get("timeout")
    if not isinstance(given, dict):
        yield
        return
    read = given.get("read")
    extensions["timeout"] = {**given, "read": seconds if read is None else min(read, seconds)}
    try:
        yield
    finally:
        extensions["timeout"] = given


class SyncPort(BasePort):
    """One call of a blocking client. See `gip_resilience.drive.Port`."""

    __slots__ = ()

    def __init__(self, kit: Kit, brain: Resilience, inner: Any, request: Any, noted: Noted) -> None:
        super().__init__(kit, brain, inner, request, noted)
        stream = request.stream
        if not isinstance(stream, kit.byte_stream) and not rewinds(stream):
            recorder = Recorder(stream, self._config.body.replay_limit)
            self._tape = recorder.tape
            self._body = kit.sync_recording(recorder)

    def attempt(self, timeout: float | None) -> Fact:
        """Send once and read what must be read."""
        self._begin()
        try:
            response = self._inner.handle_request(self._outgoing(timeout))
        except Exception as error:
            fact = self.explain(error)
            if fact is None:
                uncovered(error)
                raise
            return self._failed(error, fact)
        try:
            return self._read(response)
        except BaseException as error:
            uncovered(error)
            response.stream.close()
            raise

    def _read(self, response: Any) -> Fact:
        question = self._question(response)
        limit = question.wants(self._config)
        if not limit:
            return self._conclude(response, success(response.status_code))
        reading = Reading(self, response, limit)
        rest: Any = None
        try:
            with reading.impatience():
                rest = iter(response.stream)
                chunk = next(rest, None)
            while reading.goes_on(chunk):
                chunk = next(rest, None)
        except Exception as error:
            if not reading.broke(error):
                raise
        if reading.whole:
            response.stream.close()
        return self._digest(question, response, reading, rest, self._kit.sync_relay)

    def release(self) -> None:
        """Give the connection back. What was read to its end already has."""
        if self.response is not None and not self._whole:
            self.response.stream.close()


_UNLIMITED = cast("anyio.CancelScope", nullcontext())
"""Instead of a scope that would never be cancelled: making one costs more than all the rest of a healthy call."""


class AsyncPort(BasePort):
    """One call of an awaiting client. See `gip_resilience.drive.AsyncPort`."""

    __slots__ = ()

    def __init__(self, kit: Kit, brain: Resilience, inner: Any, request: Any, noted: Noted) -> None:
        super().__init__(kit, brain, inner, request, noted)
        stream = request.stream
        if not isinstance(stream, kit.byte_stream) and not rewinds(stream):
            recorder = AsyncRecorder(stream, self._config.body.replay_limit)
            self._tape = recorder.tape
            self._body = kit.async_recording(recorder)

    async def attempt(self, timeout: float | None) -> Fact:
        """Send once and read what must be read, within *timeout* to the instant."""
        with _UNLIMITED if timeout is None else anyio.move_on_after(timeout):
            self._begin()
            try:
                response = await self._inner.handle_async_request(self._outgoing(timeout))
            except Exception as error:
                fact = self.explain(error)
                if fact is None:
                    uncovered(error)
                    raise
                return self._failed(error, fact)
            try:
                return await self._read(response)
            except BaseException as error:
                uncovered(error)
                await aclose_for_certain(response.stream)
                raise
        self.response = None
        self.failure = self._kit.read_timeout("the deadline of the call has passed")
        return transport_fact("read_timeout")

    async def _read(self, response: Any) -> Fact:
        question = self._question(response)
        limit = question.wants(self._config)
        if not limit:
            return self._conclude(response, success(response.status_code))
        reading = Reading(self, response, limit)
        rest: Any = None
        try:
            with reading.impatience():
                rest = aiter(response.stream)
                chunk = await anext(rest, None)
            while reading.goes_on(chunk):
                chunk = await anext(rest, None)
        except Exception as error:
            if not reading.broke(error):
                raise
        if reading.whole:
            await aclose_for_certain(response.stream)
        return self._digest(question, response, reading, rest, self._kit.async_relay)

    async def release(self) -> None:
        """Give the connection back, cancelled or not."""
        if self.response is not None and not self._whole:
            await aclose_for_certain(self.response.stream)
