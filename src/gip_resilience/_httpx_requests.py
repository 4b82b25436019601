"""What is read off a request of httpx and httpx2 as its call begins, and what is added to it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gip_resilience._multipart import model_in_fields
from gip_resilience.target import look_at, model_in_body, model_in_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gip_resilience._answers import Noted
    from gip_resilience._httpx_kit import Kit
    from gip_resilience.target import Target


def host_of(request: Any) -> str:
    """Host and, unless it is the scheme's own, port."""
    url = request.url
    return _netloc(url.raw_host, url.port)


@lru_cache(maxsize=1024)
def _netloc(host: bytes, port: int | None) -> str:
    name = host.decode("latin-1").lower()
    if ":" in name:
        name = f"[{name}]"
    return name if port is None else f"{name}:{port}"


def path_of(request: Any) -> str:
    """The path, without its percent encoding."""
    return _path(request.url.raw_path)


@lru_cache(maxsize=1024)
def _path(raw: bytes) -> str:
    return unquote(raw.partition(b"?")[0].decode("ascii"))


def model_of(request: Any, noted: Noted, kit: Kit) -> str:
    """The model that the request names, in a header, its body or its path."""
    if noted.model:
        return noted.model
    stream = request.stream
    if isinstance(stream, kit.byte_stream):
        found = model_in_body(kit.content(stream), noted.content_type)
    else:
        found = model_in_fields(stream)
    return found or model_in_path(path_of(request))


def target_of(request: Any, model: str) -> Target:
    """The request, as a key function may see it."""
    return look_at(request.method, str(request.url), host_of(request), model, request.headers.raw)


def asked_of(request: Any) -> tuple[str, str]:
    """Method and URL, for those who follow every call; the URL without what may hold secrets."""
    url = request.url
    path = url.raw_path.partition(b"?")[0].decode("ascii")
    return request.method, f"{url.scheme}://{host_of(request)}{path}"


def carrying(pairs: list[tuple[bytes, bytes]], extra: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers with others added, in the place of those of the same name."""
    added = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in extra.items()]
    names = {name for name, _ in added}
    return [pair for pair in pairs if pair[0].lower() not in names] + added


def keyed(request: Any, name: str, noted: Noted, kit: Kit) -> Any:
    """The request as it is sent: itself, or a copy with an idempotency key in the header *name* if it has none."""
    key = noted.layer.key_for(name, request.headers.raw)
    if not key:
        return request
    headers = [*request.headers.raw, (name.encode("ascii"), key.encode("ascii"))]
    extensions = request.extensions
    return kit.request(
        request.method, request.url, headers=headers, stream=request.stream, extensions=extensions
    )
