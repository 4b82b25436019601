"""Clients whose transports answer from memory, and what is compared around them: bare, passed through, ours."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter

import gip_resilience as gr

if TYPE_CHECKING:
    from types import ModuleType

HOST: Final = "gateway.test"
URL: Final = f"http://{HOST}/v1/chat/completions"
MODEL: Final = "azure/openai/gpt-5-mini"
BODY: Final = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
AUTH: Final = {"authorization": "Bearer not-a-key"}
REPLY: Final = json.dumps({"id": "x", "choices": [{"message": {"content": "hello " * 30}}]}).encode()
HEADERS: Final = {"content-type": "application/json", "content-length": str(len(REPLY))}


def null_transport(library: ModuleType) -> Any:
    """A transport of *library* (httpx or httpx2) that answers from memory, in both colours."""
    kit: Any = library

    class Null(kit.BaseTransport, kit.AsyncBaseTransport):  # type: ignore[misc]  # a base that is known at run time
        def handle_request(self, request: Any) -> Any:
            return kit.Response(200, headers=HEADERS, stream=kit.ByteStream(REPLY))

        async def handle_async_request(self, request: Any) -> Any:
            return kit.Response(200, headers=HEADERS, stream=kit.ByteStream(REPLY))

    return Null()


def pass_through(library: ModuleType, inner: Any) -> Any:
    """The least that a wrapper can do: a transport that hands on."""
    kit: Any = library

    class Passing(kit.BaseTransport, kit.AsyncBaseTransport):  # type: ignore[misc]  # as above
        def handle_request(self, request: Any) -> Any:
            return inner.handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            return await inner.handle_async_request(request)

        def close(self) -> None:
            inner.close()

        async def aclose(self) -> None:
            await inner.aclose()

    return Passing()


class NullAdapter(HTTPAdapter):
    """An adapter of requests that answers from memory."""

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        raw = urllib3.HTTPResponse(io.BytesIO(REPLY), headers=HEADERS, status=200, preload_content=False)
        return self.build_response(request, raw)


class PassingAdapter(BaseAdapter):
    """The least that a wrapper can do."""

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self._inner = inner

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        return self._inner.send(request, *args, **options)

    def close(self) -> None:
        self._inner.close()


def session(adapter: BaseAdapter | None = None) -> requests.Session:
    """A session whose plain addresses are answered by *adapter*."""
    made = requests.Session()
    made.trust_env = False
    if adapter is not None:
        made.mount("http://", adapter)
    return made


def guarded(client: Any, brain: gr.Resilience | None = None) -> Any:
    """*client*, with ours mounted: everything on, as it comes."""
    gr.mount(client, brain)
    return client


def post(client: Any) -> Any:
    """One call."""
    return client.post(URL, json=BODY, headers=AUTH)
