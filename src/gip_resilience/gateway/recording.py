"""What the gateway remembers of a request: enough to assert on, and no secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gip_resilience.gateway.http1 import Headers, Request

_SECRET_NAME: Final = re.compile(
    r"authorization|api[-_]?key|token\b|secret|password|credential|cookie", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SECRET_VALUE: Final = re.compile(r"\bsk-[\w-]{8,}|\bBearer\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, recorded before the first byte of its answer is sent.

    Attributes:
        at: seconds since the gateway started.
        method: HTTP method; empty when the bytes were no request.
        path: path, percent-decoded, without the query (which may carry a key).
        headers: pairs in order of arrival; the values of credentials are replaced by a short keyed digest,
            the same for the same value within one gateway.
        body_size: bytes.
        body_sha256: hexadecimal.
        model: the model it names.
        stream: whether it asks for a stream.
        connection: number of the TCP connection, from 1.
        retry_count: what ``x-stainless-retry-count`` says, if anything.
        reply: kind of the reply the plan chose (``"ok"``, ``"half_body"``); ``"malformed"`` when the bytes
            were no request.
        status: HTTP status sent; `None` when none went out.
        code: error code sent.
        whole: whether the client was sent all of a good answer: a 2xx without an error in it, to the last byte with a
            meaning (the mark of a stream's end has none).
        not_before: the answer asked not to come back before this moment, in seconds since the gateway started;
            `None` when it did not say.
        body: the body, when bodies are recorded.
    """

    at: float
    method: str
    path: str
    headers: Headers
    body_size: int
    body_sha256: str
    model: str | None
    stream: bool
    connection: int
    retry_count: int | None
    reply: str
    status: int | None
    code: str | None
    whole: bool
    not_before: float | None = None
    body: bytes | None = field(default=None, repr=False)

    def header(self, name: str) -> str | None:
        """The first value of header *name* (any case), or `None`."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


class Redactor:
    """Replaces credentials by digests under a key that nobody else has.

    Args:
        key: up to 64 bytes; random, so that a digest cannot be found by trying likely credentials.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, secret: str) -> str:
        """A name for *secret*: the same for the same text."""
        return blake2b(secret.encode("utf-8", "surrogateescape"), key=self._key, digest_size=8).hexdigest()

    def headers(self, request: Request) -> Headers:
        """The headers of *request* without credentials, wherever they appear."""
        credential = credential_of(request)
        return tuple((name, self._value(name, value, credential)) for name, value in request.headers)

    def _value(self, name: str, value: str, credential: str) -> str:
        if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value) or (credential and credential in value):
            return f"redacted:{self.digest(value)}"
        return value


def asked_to_wait(headers: Headers) -> float | None:
    """Seconds that an answer with *headers* asks to wait: ``retry-after-ms``, ``Retry-After`` as number or date."""
    named = {name.lower(): value for name, value in headers}
    for name, per_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if _NUMBER.fullmatch(named.get(name, "")):
            return float(named[name]) / per_second
    try:
        until, sent = (parsedate_to_datetime(named[name]) for name in ("retry-after", "date"))
        return max(0.0, (until - sent).total_seconds())
    except (KeyError, ValueError, TypeError):  # no such header, no date, or one without a time zone
        return None


def credential_of(request: Request) -> str:
    """The API key in *request*: ``Authorization: Bearer``, ``x-api-key`` or ``api-key``; empty if none."""
    scheme, _, token = request.header("authorization").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.header("x-api-key") or request.header("api-key")


def retry_count_of(request: Request) -> int | None:
    """The number of the attempt as the SDKs count it, from 0."""
    text = request.header("x-stainless-retry-count")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
