"""What can be told of a multipart stream of httpx and httpx2 without sending it.

Both packages keep its fields in an attribute that is not documented; a stream without it is treated as one that
can be read once, which is safe for all.
"""

from __future__ import annotations

from typing import Any

from gip_resilience.target import clean_name


def rewinds(stream: Any) -> bool:
    """Whether a multipart stream can be iterated anew: each of its files is bytes, or can be rewound.

    The packages rewind such files by themselves; but one that cannot seek they send shortened, without a word.
    """
    fields = getattr(stream, "fields", None)
    if not isinstance(fields, list):
        return False
    return all(_can_rewind(getattr(field, "file", b"")) for field in fields)


def _can_rewind(file: Any) -> bool:
    if isinstance(file, (bytes, str)):
        return True
    seekable = getattr(file, "seekable", None)
    return bool(seekable()) if callable(seekable) else False


def model_in_fields(stream: Any) -> str:
    """The form field ``model`` of a multipart stream, without reading any of its files."""
    for field in getattr(stream, "fields", None) or ():
        if getattr(field, "name", None) == "model":
            value = getattr(field, "value", "")
            return clean_name(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
    return ""
