"""Where the error is: from the bytes of an answer to the one mapping that holds its code.

Servers put an error in many places: ``{"error": {...}}``, the same in a list, flat beside
``"object": "error"``, in ``{"errors": [...]}``, in problem+json, under ``detail``, in a ``data:`` line of an
event stream, on a bare line after one, in a chunk beside ``"choices": []``. This module finds it and reads
its *names* (code, type, number); what the names mean is not its business. It is total: any bytes give an
answer, in time linear in their length, and no exception.

Only names leave this module. Messages are looked at by nobody but the caller of `Found.error`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gip_resilience.hints import Headers

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error body that are looked at. The longest error body in the field, an HTML page with inlined
pictures aside, is a few KiB."""

MAX_NAME = 64
"""Characters kept of a code or type no table knows; the longest documented one has 45."""

_MAX_NESTING = 4
"""Envelopes within envelopes that are opened: a gateway's around a gateway's around a provider's is three."""

_PAYLOAD = ("choices", "output", "data", "id", "candidates", "content")
"""Keys of a successful answer: beside one of them, ``error`` is a field of the answer, not the answer."""

_BLANK = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_SSE_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_HTML_STARTS = (b"<!doctype html", b"<html")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")

# JSON quoted inside a message has its quotes escaped, so it does not match: what matches is a key.
_NAMED_STRING = re.compile(
    rb'"(code|type|status|error_code|error_type|object|__type)"\s*:\s*"([^"\\]{1,128})"'
)
_NAMED_NUMBER = re.compile(rb'"(code|raw_status_code)"\s*:\s*(\d{1,9})(?!\d)')


@dataclass(slots=True)
class Found:
    """What an answer said about its error, in names only. Not changed once it is made.

    Attributes:
        shape: ``nested`` (under ``error``), ``flat`` (marked as an error, no envelope), ``bare`` (unmarked),
            ``text`` (not JSON) or ``nothing`` (no body).
        code: the ``code``, if it is not a number.
        type: the ``type``.
        detail: the more specific code some dialects keep under ``details.error_code``.
        digits: the ``code``, if it is a number (``"429"``, ``1300``), as text.
        number: an HTTP status the body itself names.
        listed: whether the error came in a list, as Google sends it.
        error: the mapping the names were read from.
        root: the decoded body; what it was before, where it is not JSON.
    """

    shape: str = "nothing"
    code: str | None = None
    type: str | None = None
    detail: str | None = None
    digits: str | None = None
    number: int | None = None
    listed: bool = False
    error: Mapping[str, Any] = field(default_factory=dict, repr=False)
    root: Any = field(default=None, repr=False)

    @property
    def is_json(self) -> bool:
        """Whether the body was understood as JSON."""
        return self.shape in {"nested", "flat", "bare"}


NOTHING = Found()


def pairs(headers: Headers) -> Iterator[tuple[str, str]]:
    """Yield header names in lower case with their values; what is not text is skipped."""
    items = getattr(headers, "items", None)
    entries: Any = headers if items is None else items()
    for name, value in entries:
        if isinstance(name, str) and isinstance(value, str):
            yield name.lower(), value


def media_type(headers: Headers) -> str:
    """Return the media type of an answer in lower case, without parameters; empty when it has none."""
    for name, value in pairs(headers):
        if name == "content-type":
            return value[:256].partition(";")[0].strip().lower()
    return ""


def is_json_type(media: str) -> bool:
    """Whether *media* promises exactly one JSON document."""
    return media == "application/json" or (media.endswith("+json") and "stream" not in media)


def as_bytes(body: object) -> bytes | None:
    """Return a raw body as bytes; ``None`` for a body that is already decoded, or absent."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8", "replace")
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    return None


def is_html(raw: bytes) -> bool:
    """Whether *raw* begins like an HTML page."""
    return raw[:256].removeprefix(_BOM).lstrip(_BLANK).lower().startswith(_HTML_STARTS)


def is_broken_json(raw: bytes) -> bool:
    """Whether *raw*, which should be one JSON document, breaks off or is garbled.

    Lenient where a client's own parser is: ``NaN``, another encoding and a second document are not breaks,
    and neither is a document too deep to check.
    """
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
        return False
    except RecursionError:
        return False
    except ValueError:
        import json  # only on this rare path

    try:
        json.loads(raw.decode(json.detect_encoding(raw), "replace").removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        return error.msg != "Extra data"
    except RecursionError:
        return False
    except ValueError:  # a number too long for an int: whole, if odd
        return False
    return False


def find_error(body: object, *, failed: bool, in_stream: bool = False) -> Found | None:
    """Find the error in *body*.

    Args:
        body: bytes or text as received, or a decoded JSON value.
        failed: whether the status already says that this is an error. If so the search is lenient and always
            finds something; if not, only what is marked as an error counts.
        in_stream: whether *body* is one event of a stream. Then an event's payload keys do not hide an error.

    Returns:
        The error, or ``None`` when *body* is not one.
    """
    raw = as_bytes(body)
    if body is None:
        return NOTHING if failed else None
    if raw is None:
        return _in_value(body, failed=failed, in_stream=in_stream)
    if failed:
        raw = raw[:MAX_ERROR_BODY]
    text = raw.removeprefix(_BOM).strip(_BLANK)
    if not text:
        return NOTHING if failed else None
    if text.startswith(_SSE_FIELDS):
        found = _in_events(text)
        return Found("text", root=raw) if found is None and failed else found
    if text.startswith((b"{", b"[")):
        return _in_json(text, failed=failed, in_stream=in_stream)
    # Data that is no JSON was called an error by whoever brought it here.
    return Found("text", root=raw) if failed or in_stream else None


def _in_json(text: bytes, *, failed: bool, in_stream: bool) -> Found | None:
    try:
        return _in_value(msgspec.json.decode(text), failed=failed, in_stream=in_stream)
    except (ValueError, RecursionError):
        found = _in_events(text)
        if found is None and (failed or (in_stream and b'"error"' in text)):
            found = _in_prefix(text[:MAX_ERROR_BODY])
        return found


def _in_value(value: object, *, failed: bool, in_stream: bool) -> Found | None:
    """Find the error in a decoded JSON value."""
    top, listed = value, False
    if isinstance(value, list | tuple):
        listed = True
        top = next((item for item in value[:_MAX_NESTING] if isinstance(item, Mapping)), None)
    if not isinstance(top, Mapping):
        if not failed:
            return None
        return Found("bare" if listed else "text", root=value, listed=listed)
    located = _locate(top)
    if located is None or not (failed or _is_marked(top, located[0], in_stream=in_stream)):
        return Found("bare", root=value, listed=listed) if failed else None
    shape, error = located
    return _read(shape, error, top, root=value, listed=listed)


def _locate(top: Mapping[Any, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return the shape of the error in *top* and the mapping that holds its names."""
    error = top.get("error")
    response = top.get("response")
    if error is None and top.get("type") == "response.failed" and isinstance(response, Mapping):
        error = response.get("error")
    for _ in range(_MAX_NESTING):
        if isinstance(error, list) and error:
            error = error[0]
        if not isinstance(error, Mapping):
            break
        inner = error.get("error")
        if not isinstance(inner, Mapping) or error.get("code") or error.get("type"):
            return "nested", error
        error = inner
    if isinstance(error, str) and error:
        if _IDENTIFIER.fullmatch(error) and not top.get("code"):
            return "nested", {**top, "code": error}
        return "nested", top
    if top.get("object") == "error" or top.get("type") == "error" or "__type" in top:
        return "flat", top
    for key in ("errors", "detail"):
        inside = top.get(key)
        if isinstance(inside, list):
            inside = next((item for item in inside[:_MAX_NESTING] if isinstance(item, Mapping)), None)
        if isinstance(inside, Mapping):
            within = inside.get("error") or inside.get("extensions")
            return "bare", {**inside, **within} if isinstance(within, Mapping) else inside
    if len(top) == 1:
        # Bedrock's in-stream exceptions: {"throttlingException": {"message": ...}}.
        name, inside = next(iter(top.items()))
        if isinstance(name, str) and name.endswith("Exception") and isinstance(inside, Mapping):
            return "flat", {**inside, "__type": name[:1].upper() + name[1:]}
    return "bare", top


def _is_marked(top: Mapping[str, Any], shape: str, *, in_stream: bool) -> bool:
    """Whether a body under a good status is an error all the same."""
    if shape == "flat":
        return True
    if shape == "nested":
        # A chunk with no choices beside its error carries no answer.
        return in_stream or top.get("choices") == [] or not any(key in top for key in _PAYLOAD)
    if not in_stream or any(key in top for key in _PAYLOAD):
        return False
    return "errors" in top or (isinstance(top.get("message"), str) and ("code" in top or "type" in top))


def _read(
    shape: str, error: Mapping[str, Any], top: Mapping[str, Any], *, root: object, listed: bool
) -> Found:
    """Read the names out of *error*, the mapping found in *top*."""
    details = error.get("details")
    code = error.get("code")
    if code is None:
        code = error.get("error_code")
    if code is None and top is not error:
        code = top.get("code")
    type_ = error.get("type") or error.get("error_type") or top.get("error_type")
    digits = number = None
    if isinstance(code, str):
        if code.isdigit():
            digits, code = (code[:9] if code.isascii() else None), None
    elif isinstance(code, int) and 0 <= code < 10**9 and code is not True and code is not False:
        digits = str(code)
    if digits is not None and is_status(int(digits)):
        number = int(digits)
    if number is None:
        for value in (top.get("raw_status_code"), error.get("status"), error.get("status_code")):
            if isinstance(value, int) and is_status(value):
                number = value
                break
    return Found(
        shape,
        code if isinstance(code, str) and code else None,
        type_ if isinstance(type_, str) and type_ != "error" and type_ else None,
        _text(details.get("error_code")) if isinstance(details, Mapping) else None,
        digits,
        number,
        listed,
        error,
        root,
    )


def is_status(number: int) -> bool:
    """Whether *number* can be an HTTP status."""
    return 100 <= number <= 599


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _in_events(text: bytes) -> Found | None:
    """Find the first error among the events, or the bare JSON, of a piece of an event stream."""
    lines = [*text.splitlines(), b""]
    named_error, data, rest_tried = False, list[bytes](), False
    for index, line in enumerate(lines):
        found = None
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif line.startswith(b"event:"):
            named_error = line[6:].strip() == b"error"
        elif line.startswith((b"{", b"[")):
            if line.endswith((b"}", b"]")):
                found = _in_data(line)
            elif not rest_tried:  # printed over several lines; tried once, so that time stays linear
                rest_tried = True
                found = _in_data(b"\n".join(lines[index:]))
        elif not line:
            if data or named_error:
                found = _in_data(b"\n".join(data), named_error=named_error)
            data = []
        if found is not None:
            return found
    return None


def _in_data(data: bytes, *, named_error: bool = False) -> Found | None:
    """Find the error in the data of one event; an event named ``error`` is one whatever its data."""
    try:
        return _in_value(msgspec.json.decode(data), failed=named_error, in_stream=True)
    except (ValueError, RecursionError):
        return _in_prefix(data) if named_error else None


def _in_prefix(text: bytes) -> Found:
    """Read the names out of JSON that breaks off or is garbled: the first of each that is whole."""
    error: dict[str, Any] = {}
    top: dict[str, Any] = {"error": error}
    for match in _NAMED_STRING.finditer(text):
        key, value = match[1].decode(), match[2].decode("utf-8", "replace")
        if (key in {"type", "object"} and value == "error") or key == "__type":
            top.setdefault(key, value)
        elif key == "error_code":
            error.setdefault("details", {key: value})
        elif key != "object":
            error.setdefault(key, value)
    for match in _NAMED_NUMBER.finditer(text):
        key = match[1].decode()
        (top if key == "raw_status_code" else error).setdefault(key, int(match[2]))
    if not error and len(top) == 1:
        return Found("text", root=text)
    if "object" in top or "__type" in top:
        return _read("flat", {**error, **top}, top, root=text, listed=False)
    return _read("nested", error, top, root=text, listed=False)


def clean(name: str) -> str | None:
    """Return *name* fit to be kept: printable ASCII, at most `MAX_NAME` characters; ``None`` for nothing.

    A name with a blank in it is no name but prose, and prose may quote what the caller sent.
    """
    name = name.strip()
    if len(name) > MAX_NAME or not (name.isascii() and name.isprintable()):
        name = "".join(char for char in name[: 4 * MAX_NAME] if " " <= char <= "~").strip()[:MAX_NAME]
    return None if " " in name else name or None
