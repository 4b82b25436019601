"""One call that succeeds, in process: the bare client against the mounted one, interleaved; medians of ratios.

The transport underneath answers from memory, so nothing but the client and we are measured.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import httpx2
import requests
import urllib3
from requests.adapters import HTTPAdapter

import gip_resilience as gr

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "http://gateway.test/v1/chat/completions"
BODY = {"model": "azure/openai/gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
REPLY = json.dumps({"id": "x", "choices": [{"message": {"content": "hello " * 30}}]}).encode()
HEADERS = {"content-type": "application/json", "content-length": str(len(REPLY))}
AUTH = {"authorization": "Bearer not-a-key"}


def null_transport(library: Any) -> Any:
    """A transport of *library* that answers from memory, in both colours."""

    class Null(library.BaseTransport, library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            return library.Response(200, headers=HEADERS, stream=library.ByteStream(REPLY))

        async def handle_async_request(self, request: Any) -> Any:
            return library.Response(200, headers=HEADERS, stream=library.ByteStream(REPLY))

    return Null()


class NullAdapter(HTTPAdapter):
    """An adapter that answers from memory."""

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        raw = urllib3.HTTPResponse(io.BytesIO(REPLY), headers=HEADERS, status=200, preload_content=False)
        return self.build_response(request, raw)


def session(*, mounted: bool) -> requests.Session:
    """A requests session over the null adapter."""
    made = requests.Session()
    made.mount("http://", NullAdapter())
    if mounted:
        gr.mount(made)
    return made


def blocking(client: Any, calls: int) -> float:
    """Seconds for *calls* calls."""
    start = time.perf_counter()
    for _ in range(calls):
        client.post(URL, json=BODY, headers=AUTH)
    return time.perf_counter() - start


def awaiting(client: Any, calls: int) -> float:
    """Seconds for *calls* awaited calls, the event loop's start not counted."""

    async def run() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            await client.post(URL, json=BODY, headers=AUTH)
        return time.perf_counter() - start

    return anyio.run(run)


def cases() -> dict[str, tuple[Callable[[Any, int], float], Any, Any]]:
    """Name to (runner, bare client, mounted client)."""
    found: dict[str, tuple[Callable[[Any, int], float], Any, Any]] = {
        "requests": (blocking, session(mounted=False), session(mounted=True))
    }
    for name, library in (("httpx", httpx), ("httpx2", httpx2)):
        bare, ours = (library.Client(transport=null_transport(library)) for _ in range(2))
        gr.mount(ours)
        found[name] = (blocking, bare, ours)
        bare, ours = (library.AsyncClient(transport=null_transport(library)) for _ in range(2))
        gr.mount(ours)
        found[f"{name} asyncio"] = (awaiting, bare, ours)
    return found


def main() -> None:
    """Run and print one line per client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {options.rounds} rounds of {options.calls} calls, medians")
    print(f"{'client':16}{'bare µs':>10}{'mounted µs':>12}{'ratio':>8}{'min':>8}{'max':>8}")
    for name, (run, bare, ours) in cases().items():
        run(bare, 20)
        run(ours, 20)
        pairs = [(run(bare, options.calls), run(ours, options.calls)) for _ in range(options.rounds)]
        ratios = sorted(ours / bare for bare, ours in pairs)
        per_call = 1e6 / options.calls
        print(
            f"{name:16}{statistics.median(b for b, _ in pairs) * per_call:10.1f}"
            f"{statistics.median(o for _, o in pairs) * per_call:12.1f}"
            f"{statistics.median(ratios):8.3f}{ratios[0]:8.3f}{ratios[-1]:8.3f}"
        )


if __name__ == "__main__":
    main()
