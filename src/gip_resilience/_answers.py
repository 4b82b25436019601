"""What an answer means, and how much of it must be read to know: the same for every client. Pure."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from gip_resilience._bodies import INFLATED_LIMIT, breaks_off, inflated, is_html, is_json, streams_json
from gip_resilience.hints import used_up
from gip_resilience.recovery import Origin
from gip_resilience.streams import is_event_stream
from gip_resilience.target import CREDENTIAL_HEADERS, MODEL_HEADER, clean_name
from gip_resilience.taxonomy import classify, transport_fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gip_resilience.above import Layer
    from gip_resilience.config import Config
    from gip_resilience.engine import Call
    from gip_resilience.recovery import Onward
    from gip_resilience.taxonomy import Fact

ENVELOPE = 64 * 1024
"""Bytes of a successful answer in which an error envelope is looked for; one that long is no envelope."""

RETRY_COUNT = b"x-stainless-retry-count"
"""Sent by SDKs that retry by themselves; the value is how often this request was retried already."""

RESUME = b"x-gip-resume"
"""A server's word that it takes up a stream where it broke: ``last-event-id``."""

_NOTED = CREDENTIAL_HEADERS | {
    RETRY_COUNT,
    MODEL_HEADER.encode(),
    b"accept",
    b"content-type",
    b"upgrade",
}


Entry: TypeAlias = tuple[bytes, bytes, bytes]
"""A header: its name as it is sent, its name in lower case, its value. It is how httpx and httpx2 keep them."""

_SAYS_NOTHING: set[bytes] = set()
"""Names of headers that tell nothing of a body, as they were met; bounded."""

_REMEMBERED = 1024
"""How many of them are remembered; the others are looked at each time."""


class Noted:
    """What is known of a request before it is sent: what its headers say, found in one pass, and who is above it.

    Args:
        entries: its headers.
        layer: the call it begins, as the layers beneath see it.

    Attributes:
        credential: the value that authenticates it, if any. Not kept beyond the call's beginning.
        content_type: of its body.
        expects_json: whether its sender can do nothing with a web page.
        layer: see above.
        model: named by a header.
        nested: whether it is an attempt of another layer of ours, which decides what becomes of the answer.
        passes: whether it is not for us: another protocol's, or looked after by the same brain above.
        sdk: whether an SDK or a loop above retries by itself, and heeds ``x-should-retry``.
        single: whether somebody above is retrying already: then one attempt is this call's share.
    """

    __slots__ = (
        "content_type",
        "credential",
        "expects_json",
        "layer",
        "model",
        "nested",
        "passes",
        "sdk",
        "single",
    )

    def __init__(self, entries: Iterable[Entry], layer: Layer) -> None:
        self.layer = layer
        self.credential = b""
        self.content_type = ""
        self.expects_json = False
        self.model = ""
        retries: bytes | None = None
        upgrade = False
        for _, name, value in entries:
            if name not in _NOTED:
                continue
            if name in CREDENTIAL_HEADERS:
                self.credential = value
            elif name == b"content-type":
                self.content_type, promised = _media(value)
                self.expects_json = self.expects_json or promised
            elif name == b"accept":
                self.expects_json = self.expects_json or _accepts_json(value)
            elif name == RETRY_COUNT:
                retries = value
            elif name == b"upgrade":
                upgrade = True
            else:
                self.model = clean_name(value.decode("latin-1"))
        self.nested = nested = layer.above is not None
        self.passes = upgrade or (nested and layer.doubled)
        self.sdk = retries is not None or layer.loop is not None
        self.single = nested or bool(layer.loop) or (retries is not None and retries != b"0")

    def forbids(self, call: Call) -> bool:
        """Whether who is above is told not to try again; a layer of ours decides that for itself."""
        return call.outcome != "success" and call.sdk and not self.nested


@lru_cache(maxsize=256)
def _media(value: bytes) -> tuple[str, bool]:
    """A request's content type, and whether it speaks of JSON. Few differ, and each call has one."""
    return value.decode("latin-1"), b"json" in value


@lru_cache(maxsize=256)
def _accepts_json(value: bytes) -> bool:
    return b"json" in value or b"event-stream" in value


@lru_cache(maxsize=256)
def _media_type(value: bytes) -> tuple[str, bool]:
    """An answer's content type in lower case, and whether it promises one JSON document."""
    found = value.decode("latin-1").lower()
    return found, is_json(found)


@lru_cache(maxsize=128)
def success(status: int) -> Fact:
    """The fact of an answer that needs no further look."""
    return classify(status)


class Told:
    """What the headers of an answer say about its body, found in one pass.

    Attributes:
        content_type: in lower case, as far as it was sent.
        encoding: the content encoding, in lower case; empty without one.
        json: whether the content type promises one JSON document.
        length: the announced length; ``None`` when none was announced, or nonsense.
        sized: whether anything says where the body ends, other than the end of the connection.
        location: another place the answer can be had from.
        resumable: whether the server says that it takes up a stream by ``Last-Event-ID``.
        spent: whether a quota may be used up: then it is worth to read what the headers say of quotas.
    """

    __slots__ = ("content_type", "encoding", "json", "length", "location", "resumable", "sized", "spent")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.content_type = ""
        self.json = False
        self.encoding = ""
        self.length: int | None = None
        self.sized = False
        self.location = ""
        self.resumable = False
        self.spent = False
        for _, name, value in entries:
            if name in _SAYS_NOTHING:
                continue
            if name == b"content-type":
                self.content_type, self.json = _media_type(value)
            elif name == b"content-length":
                # Longer digits than any length has are nonsense, and slow to convert.
                self.length = int(value) if value.isdigit() and len(value) < 20 else None
                self.sized = True
            elif name == b"content-encoding":
                encoding = value.decode("latin-1").strip().lower()
                self.encoding = f"{self.encoding},{encoding}" if self.encoding else encoding
            elif name == b"transfer-encoding":
                self.sized = True
            elif name == b"location":
                self.location = value.decode("latin-1")
            elif name == RESUME:
                self.resumable = value.strip().lower() == b"last-event-id"
            elif name.endswith(b"ratelimit"):
                self.spent = self.spent or b"=0" in value
            elif b"remaining" in name:
                self.spent = self.spent or value.strip() == b"0"
            elif len(_SAYS_NOTHING) < _REMEMBERED:
                _SAYS_NOTHING.add(name)


class Question:
    """One answer, to be judged.

    Args:
        method: of the request.
        path: of the request's URL.
        noted: what the request's headers say.
        status: of the answer.
        told: what the answer's headers say.
    """

    __slots__ = ("_method", "_noted", "_path", "_status", "told")

    def __init__(self, method: str, path: str, noted: Noted, status: int, told: Told) -> None:
        self._method = method
        self._path = path
        self._noted = noted
        self._status = status
        self.told = told

    def streams(self, config: Config, onward: Onward | None) -> bool:
        """Whether the answer is an event stream that we look after. One layer does, the uppermost.

        Args:
            config: what is allowed.
            onward: what was asked for, after a break. The rest of a stream comes with a 200, or not at all.
        """
        told = self.told
        if told.json or not is_event_stream(told.content_type):
            return False
        status = self._status
        rest = onward is not None and onward.resumes
        return (
            (status == 200 if rest else 200 <= status < 300 and status != 204)
            and self._method != "HEAD"
            and config.stream.mode != "off"
            and not self._noted.nested
        )

    def origin(self, url: str, config: Config) -> Origin:
        """What taking up the answer's stream again takes."""
        told = self.told
        resumable = told.resumable or any(fnmatchcase(self._path, path) for path in config.stream.resume)
        return Origin(self._method, url, resumable, told.location if resumable else "")

    def wants(self, config: Config) -> int:
        """Bytes of the body that are read under the retry; 0 lets it stream through untouched."""
        status = self._status
        if self._method == "HEAD" or status == 204:
            return 0
        if status >= 400:
            return config.body.error_limit
        if not 200 <= status < 300:
            return 0
        told = self.told
        if told.json and not streams_json(self._path):
            limit = config.body.json_limit
            return 0 if told.length is not None and told.length > limit else limit
        if self._noted.expects_json and is_html(told.content_type):
            return config.body.error_limit
        return 0

    def judge(
        self,
        pairs: Callable[[], Iterable[tuple[str, str]]],
        raw: bytes,
        config: Config,
        time: Callable[[], float],
        *,
        whole: bool,
        broken: Fact | None,
    ) -> Fact:
        """What the answer means.

        Args:
            pairs: gives its headers, repeated ones included.
            raw: what was read of its body, as it came over the wire.
            config: limits and dialect.
            time: gives the Unix time, for hints that name a date.
            whole: whether the body came to its end.
            broken: what ended it too early, if something did.
        """
        status, told = self._status, self.told
        text, state = raw, "whole"
        if told.encoding:
            # As little of an error is unpacked as is looked at.
            limit = config.body.error_limit if status >= 400 else INFLATED_LIMIT
            text, state = inflated(raw, told.encoding, limit)
        if status < 300:
            if broken is not None or (whole and told.json and self._is_cut(text, state)):
                stalled = broken is not None and broken.code == "read_timeout"
                return replace(transport_fact("read_timeout" if stalled else "truncated_body"), status=status)
            if not (whole and text.find(b'"error"', 0, ENVELOPE) >= 0) and (
                told.json or not is_html(told.content_type)
            ):
                return success(status)
        return classify(
            status,
            pairs(),
            text,
            dialect=config.dialect,
            now=time(),
            complete=whole,
            expect_json=self._noted.expects_json,
        )

    def foresee(
        self,
        fact: Fact,
        pairs: Callable[[], Iterable[tuple[str, str]]],
        config: Config,
        time: Callable[[], float],
    ) -> Fact:
        """A success, with how long the next request would be refused as its hint, where the headers tell."""
        said = config.gate.exhausted
        hint = None if said == "off" else used_up(pairs(), time(), refills=said == "certain")
        return fact if hint is None else replace(fact, hint=hint)

    def _is_cut(self, text: bytes, state: str) -> bool:
        """Whether a JSON document that came to its end is only the beginning of what was meant.

        Also checked where the length was announced and kept: a gateway passes on faithfully what its upstream
        cut. Only a body that was announced as empty is taken to be empty on purpose.
        """
        if state == "cut":
            return True
        return state == "whole" and self.told.length != 0 and breaks_off(text)
