"""How the tests of bodies send and read: without certificates, and piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import gip_resilience as gr
    from harness import Harness, Session


def open_session(harness: Harness, brain: gr.Resilience | None = None, **options: Any) -> Session:
    """A client without certificates, which take longer to load than a test to run."""
    return harness.open(brain, verify=False, trust_env=False, **options)


def read_pieces(
    session: Session, method: str, url: str, keep: Callable[[bytes], None], **options: Any
) -> Any:
    """Send, and read the raw body piece by piece; returns the library's response."""
    if session.harness.name == "requests":
        options.setdefault("timeout", 10)
        with session.client.request(method, url, stream=True, **options) as response:
            while piece := response.raw.read1(65536, decode_content=False):
                keep(piece)
        return response
    if session.harness.colour == "sync":
        with session.client.stream(method, url, **options) as response:
            for piece in response.iter_raw():
                keep(piece)
        return response

    async def read() -> Any:
        async with session.client.stream(method, url, **options) as response:
            async for piece in response.aiter_raw():
                keep(piece)
        return response

    return session.portal.call(read)
