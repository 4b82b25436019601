"""A chat server on FastAPI: answers are streamed from the gateway to the browser, whole or with an honest error.

    python examples/chat_app.py --port 8000
    curl -N -X POST localhost:8000/chat -H 'content-type: application/json' -d '{"text": "hello"}'

One client for the whole application, made and mounted in the lifespan: its connections, circuits and rate-limit gates
serve every request. GIP_BASE_URL and GIP_API_KEY say where the gateway is; without them a local one is started, on
which the first call is refused, then cut off in the middle, and one model is gone.
"""

import argparse
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import gip_resilience as gr
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Gateway

BAD_DAY = FaultPlan.per_model(
    {"openai/retired": FaultPlan.always(Error("model_unavailable"))}
) + FaultPlan.script([Error("model_overloaded", retry_after=0.05), BreakStream(how="rst", events=4)])


class Ask(BaseModel):
    """What the browser sends."""

    text: str
    model: str = "azure/openai/gpt-5-mini"


@contextmanager
def gateway() -> Iterator[str]:
    """The base URL to call: the one that is set, or that of a local gateway."""
    if url := os.environ.get("GIP_BASE_URL"):
        yield url
        return
    with Gateway(BAD_DAY) as local:
        yield local.base_url


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The one client, from the server's start to its end."""
    key = {"authorization": f"Bearer {os.environ.get('GIP_API_KEY', 'any')}"}
    with gateway() as base_url:
        async with httpx.AsyncClient(base_url=base_url, headers=key, timeout=60) as client:
            app.state.client = client
            app.state.brain = gr.mount(client, gr.Resilience(gr.Config(deadline=120)))
            yield


app = FastAPI(lifespan=lifespan)


@app.post("/chat")
async def chat(ask: Ask, request: Request) -> StreamingResponse:
    """The answer as server-sent events; what fails before its first word has the gateway's own status."""
    # At temperature 0 a stream that breaks in the middle can be compared with a second one, and gone on with.
    messages = [{"role": "user", "content": ask.text}]
    body = {"model": ask.model, "messages": messages, "stream": True, "temperature": 0}
    client: httpx.AsyncClient = request.app.state.client
    try:
        response = await client.send(
            client.build_request("POST", "/chat/completions", json=body), stream=True
        )
    except gr.CircuitOpenError as refused:  # nothing was sent: say when to come back
        seconds = max(1, round(refused.retry_after or 1))
        raise HTTPException(503, str(refused), {"retry-after": str(seconds)}) from refused
    except httpx.HTTPError as error:
        raise HTTPException(502, str(error)) from error
    if response.status_code != 200:
        await response.aread()
        raise HTTPException(response.status_code, response.json()["error"]["code"])
    return StreamingResponse(events(response), media_type="text/event-stream")


async def events(response: httpx.Response) -> AsyncIterator[str]:
    """Words as they come; in the end ``done``, or ``error`` when the stream broke and could not be mended."""
    decoder = gr.sse.SSEDecoder()
    try:
        async for chunk in response.aiter_bytes():
            for event in decoder.feed(chunk):
                if event.data != "[DONE]":
                    for choice in json.loads(event.data)["choices"]:
                        yield f"data: {json.dumps(choice['delta'].get('content', ''))}\n\n"
        yield "event: done\ndata:\n\n"
    except httpx.HTTPError as error:
        yield f"event: error\ndata: {json.dumps(str(error))}\n\n"
    finally:
        await response.aclose()  # also when the browser has left


@app.get("/health")
async def health(request: Request) -> dict[str, object]:
    """Circuits and counts."""
    counts = request.app.state.brain.metrics.snapshot()
    circuits = {" ".join(where): view.state for where, view in counts.circuits.items()}
    return {
        "circuits": circuits,
        "sent": counts.sent(),
        "retries": counts.retries,
        "streams": dict(counts.streams),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port)
