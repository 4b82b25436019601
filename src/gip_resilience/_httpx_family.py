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

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import anyio

from gip_resilience._answers import Question, Told, success
from gip_resilience._async_flow import AsyncFlow
from gip_resilience._config_errors import ConfigError, show
from gip_resilience._flow import Flow, message
from gip_resilience._httpx_deadlines import Deadline, hasten, shorter
from gip_resilience._httpx_kit import breakage, explain, refusal_error
from gip_resilience._httpx_reading import Reading
from gip_resilience._httpx_requests import asked_of, carrying, host_of, keyed, model_of, path_of, target_of
from gip_resilience._httpx_streams import aclose_for_certain, aclose_read
from gip_resilience._inflating import UnknownEncodingError, inflater
from gip_resilience._multipart import rewinds
from gip_resilience._recording import AsyncRecorder, Recorder
from gip_resilience._refusals import refusal_answer
from gip_resilience._splice import Splice
from gip_resilience.config import Overrides
from gip_resilience.drive import sign, uncovered
from gip_resilience.recovery import UNKNOWN, asked
from gip_resilience.taxonomy import stream_fact, transport_fact

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from gip_resilience._answers import Noted
    from gip_resilience._httpx_kit import Kit, Maker
    from gip_resilience._inflating import Inflater
    from gip_resilience._recording import Tape
    from gip_resilience.clock import Clock
    from gip_resilience.config import Config
    from gip_resilience.effects import Refuse
    from gip_resilience.engine import Call
    from gip_resilience.errors import StreamInterruptedError
    from gip_resilience.recovery import Asked, Onward, Origin
    from gip_resilience.resilience import Resilience
    from gip_resilience.target import Target
    from gip_resilience.taxonomy import Fact

EXTENSION = "gip_resilience"
"""Key in ``request.extensions`` (an `Overrides`) and in ``response.extensions`` (the call, for its report)."""


class BasePort:
    """What does not depend on colour: preparing attempts, judging answers, handing up."""

    blocking = True
    __slots__ = (
        "_body",
        "_brain",
        "_cause",
        "_config",
        "_extensions",
        "_inner",
        "_kit",
        "_noted",
        "_onward",
        "_question",
        "_request",
        "_source",
        "_tape",
        "_whole",
        "call",
        "clock",
        "closed",
        "error_timeout",
        "failure",
        "inflater",
        "response",
        "sent",
        "stopped",
    )

    def __init__(self, kit: Kit, brain: Resilience, inner: Any, request: Any, noted: Noted) -> None:
        self._kit = kit
        self._brain = brain
        self._inner = inner
        self._request = request
        self._noted = noted
        self._tape: Tape | None = None
        self._body: Any = None
        self._whole = False
        self._cause: Exception | None = None
        self._question: Question | None = None
        self._onward: Onward | None = None
        self._source: Any = None
        self._extensions: dict[str, Any] = {}
        self.closed = self.stopped = False
        self.inflater: Inflater | None = None
        self.response: Any = None
        self.failure: Exception | None = None
        self.clock: Clock = brain.clock
        overrides = request.extensions.get(EXTENSION)
        if overrides is not None and not isinstance(overrides, Overrides):
            raise ConfigError(f"extensions.{EXTENSION}", "a gip_resilience.Overrides", show(overrides))
        self.call: Call = brain.call(
            host_of(request),
            brain.store.digest(noted.credential) if noted.credential else "",
            model_of(request, noted, kit),
            sdk=noted.sdk,
            single=noted.single,
            overrides=overrides,
            target=self._target,
            asked=self._asked_for,
        )
        self._config: Config = self.call.config
        self.error_timeout = self._config.body.error_timeout
        header = self._config.idempotency_header
        if header is not None:
            self._request = keyed(request, header, noted, kit)
        self.sent = self._request

    def _target(self, model: str) -> Target:
        return target_of(self._request, model)

    def _asked_for(self) -> tuple[str, str]:
        return asked_of(self._request)

    def _begin(self) -> None:
        if self.closed:
            raise self.interruption("stream_closed")
        self.response = self.failure = self._cause = self._source = self.inflater = None
        self._whole = self.stopped = False

    def _outgoing(self, timeout: float | None) -> Any:
        """The request of the next attempt: the caller's own, or a copy where something must differ."""
        request, onward = self._request, self._onward
        carried = self.call.carried
        own = self._body is None and timeout is None and onward is None and not carried
        if own and self._config.stream.idle_timeout is None:
            return request
        extensions = dict(request.extensions)
        if timeout is not None:
            hasten(extensions, timeout, self.call, self._inner if self.blocking else None)
        stream = request.stream if self._body is None else self._body
        if onward is None:
            method, url, headers = request.method, request.url, request.headers
        else:
            method, url, headers = onward.method, onward.url, onward.headers(request.headers.raw)
            if not onward.body:
                stream = self._kit.byte_stream(b"")
        if carried:
            headers = carrying(headers.raw if onward is None else headers, carried)
        self.sent = self._kit.request(method, url, headers=headers, stream=stream, extensions=extensions)
        return self.sent

    def _cut(self) -> Fact:
        """The deadline has ended the attempt."""
        self.response = None
        error = self._kit.read_timeout("the deadline of the call has passed")
        return self._failed(error, transport_fact("read_timeout"))

    def explain(self, error: Exception) -> Fact | None:
        """The fact behind an error of the client; ``None`` lets the error pass."""
        tape = self._tape
        if tape is not None and tape.source_failed:
            return None
        return explain(error, self._kit)

    def _ask(self, response: Any) -> Question:
        request = self._request
        self._question = question = Question(
            request.method,
            path_of(request),
            self._noted,
            response.status_code,
            Told(self._kit.entries(response.headers)),
        )
        return question

    def _replayable(self) -> bool:
        if self._onward is not None and not self._onward.body:
            return True
        return self._tape is None or self._tape.replayable

    def _failed(self, error: Exception, fact: Fact) -> Fact:
        self.failure = error
        self.call.replayable = self._replayable()
        return fact

    def _conclude(self, response: Any, fact: Fact) -> Fact:
        self.response = response
        good = fact.ok
        if self._onward is not None and good and self._source is None:
            if response.status_code == 204:
                self.stopped = True
            else:
                fact = replace(stream_fact("not_a_stream"), status=response.status_code)
                good = False
        if not good:
            self.call.replayable = self._replayable()
        elif self._question is not None and self._question.told.spent:
            pairs = response.headers.multi_items
            fact = self._question.foresee(fact, pairs, self._config, self.clock.time)
        return fact

    def _pass(self, response: Any, relay: Maker, begin: Callable[[Any], Any]) -> Fact:
        """An answer of which nothing is read: its caller does, until the deadline."""
        body = response.stream
        if self._config.deadline is not None and not isinstance(body, self._kit.byte_stream):
            response.stream = relay([], begin(body), body, None, Deadline.of(self.call, self._kit))
        return self._conclude(response, success(response.status_code))

    # ---- event streams -----------------------------------------------------------------------------------

    def _is_stream(self, question: Question) -> bool:
        """Whether the answer is an event stream that we can look into."""
        if not question.streams(self._config, self._onward):
            return False
        try:
            self.inflater = inflater(question.told.encoding)
        except UnknownEncodingError:
            return False
        return True

    def _stream(self, response: Any, source: Any) -> Fact:
        """An event stream: its bytes are read when the caller reads them."""
        self._source = source
        self._extensions = response.extensions
        self.call.streaming = True
        return self._conclude(response, success(response.status_code))

    def origin(self) -> Origin:
        """See `gip_resilience._flow.Flow`."""
        if self._question is None:
            raise AssertionError("no answer in hand")
        return self._question.origin(str(self._request.url), self._config)

    def _splice(self) -> Splice:
        return Splice(self._config, self._request.url.path, self.origin(), self._asked, self.clock.time)

    def _asked(self) -> Asked:
        stream = self._request.stream
        if isinstance(stream, self._kit.byte_stream):
            return asked(self._kit.content(stream))
        return UNKNOWN if self._tape is None else asked(self._tape.content())

    def prepare(self, onward: Onward) -> None:
        """See `gip_resilience._flow.Flow`."""
        self._onward = onward
        self.call.replayable = self._replayable()

    def broke(self, error: Exception) -> str:
        """See `gip_resilience._flow.Flow`."""
        return breakage(error, self._kit)

    def interruption(self, code: str) -> StreamInterruptedError:
        """See `gip_resilience._flow.Flow`."""
        kinds = self._kit.interruptions
        return kinds.get(code, kinds[""])(message(code))

    def drainable(self) -> bool:
        """Whether reading what is left of a body spares a connection: a stream of HTTP/2 is none."""
        return self._extensions.get("http_version") != b"HTTP/2"

    def socket(self) -> socket.socket | None:
        """See `gip_resilience._flow.Flow`."""
        if not self.drainable():
            return None
        network = self._extensions.get("network_stream")
        found: socket.socket | None = None if network is None else network.get_extra_info("socket")
        return found

    def _digest(self, question: Question, response: Any, reading: Reading, rest: Any, relay: Maker) -> Fact:
        """The body was read, as far as it is: put it back, and say what the answer means."""
        self._whole = reading.whole
        self._cause = reading.cause
        raw = b"".join(reading.chunks)
        if reading.whole:
            response.stream = self._kit.byte_stream(raw)
        else:
            response.stream = relay(
                reading.chunks, rest, response.stream, reading.cause, Deadline.of(self.call, self._kit)
            )
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
        if call.streaming:
            return self._deliver_stream(response)
        if self._cause is not None:
            # It is raised when the body is read to there, and most callers then never see the response.
            sign(self._cause, call)
            self._cause = None
        if self._noted.forbids(call):
            response.headers["x-should-retry"] = "false"
        return response

    def _deliver_stream(self, response: Any) -> Any:
        if self.inflater is not None:
            # What comes out of our hands is decoded, and its length nobody knows.
            for name in ("content-encoding", "content-length"):
                response.headers.pop(name, None)
        response.stream = self._mended(self._splice())
        self.response = None  # or response, stream, flow and port form a cycle
        self._question = None  # it was about this answer; another one brings its own
        return response

    def _mended(self, splice: Splice) -> Any:
        raise NotImplementedError

    def refuse(self, refusal: Refuse, call: Call) -> Any:
        """Answer, or raise, in our own words."""
        if refusal.respond:
            status, headers, body = refusal_answer(refusal)
            stream = self._kit.byte_stream(body)
            return self._kit.response(status, headers=headers, stream=stream, extensions={EXTENSION: call})
        error = refusal_error(refusal, call, self._kit)
        try:
            raise error from self.failure
        finally:
            del error  # or error, traceback, frame and error form a cycle


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
            with self.call.sending(self._noted.layer):
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
        question = self._ask(response)
        if self._is_stream(question):
            return self._begin_stream(response)
        limit = question.wants(self._config)
        if not limit:
            return self._pass(response, self._kit.sync_relay, iter)
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
        elif reading.cut():
            response.stream.close()
            return self._cut()
        return self._digest(question, response, reading, rest, self._kit.sync_relay)

    def _begin_stream(self, response: Any) -> Fact:
        idle = self._config.stream.idle_timeout
        given = self.sent.extensions.get("timeout")
        if idle is not None and isinstance(given, dict):
            # Of a copy of our own; both packages read it when the body is first asked for.
            self.sent.extensions["timeout"] = shorter(given, idle)
        relay = self._kit.sync_relay([], iter(response.stream), response.stream, None)
        return self._stream(response, relay)

    def _mended(self, splice: Splice) -> Any:
        return self._kit.sync_mended(Flow(self.call, self, splice, self.clock, self._brain.drains))

    def pull(self) -> bytes | None:
        """See `gip_resilience._flow.Flow`."""
        return next(self._source, None)

    def release(self) -> None:
        """Give the connection back. What was read to its end already has."""
        if self._source is not None:
            self._source.close()
        elif self.response is not None and not self._whole:
            self.response.stream.close()


_UNLIMITED = cast("anyio.CancelScope", nullcontext())
"""Instead of a scope that would never be cancelled: making one costs more than all the rest of a healthy call."""


class AsyncPort(BasePort):
    """One call of an awaiting client. See `gip_resilience.drive.AsyncPort`."""

    blocking = False
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
                with self.call.sending(self._noted.layer):
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
        return self._cut()

    async def _read(self, response: Any) -> Fact:
        question = self._ask(response)
        if self._is_stream(question):
            return self._begin_stream(response)
        limit = question.wants(self._config)
        if not limit:
            return self._pass(response, self._kit.async_relay, aiter)
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
            await aclose_read(response.stream)
        elif reading.cut():
            await self._kit.async_relay([], rest, response.stream, None).aclose()
            return self._cut()
        return self._digest(question, response, reading, rest, self._kit.async_relay)

    def _begin_stream(self, response: Any) -> Fact:
        relay = self._kit.async_relay([], aiter(response.stream), response.stream, None)
        return self._stream(response, relay)

    def _mended(self, splice: Splice) -> Any:
        return self._kit.async_mended(AsyncFlow(self.call, self, splice, self.clock, self._brain.drains))

    def pull(self) -> Awaitable[bytes | None]:
        """See `gip_resilience._flow.Flow`."""
        return anext(self._source, None)

    async def release(self) -> None:
        """Give the connection back, cancelled or not."""
        if self._source is not None:
            await self._source.aclose()
        elif self.response is not None and not self._whole:
            await aclose_for_certain(self.response.stream)
