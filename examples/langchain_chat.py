"""LangChain's ChatOpenAI, mounted: one call each for `invoke`, `ainvoke`, `stream` and `astream`.

    python examples/langchain_chat.py

`mount` finds the two HTTP clients that the model owns through its openai clients, blocking and asyncio. The openai
package's own retries stand back, so attempts do not multiply: no `max_retries=0` is needed.

GIP_BASE_URL and GIP_API_KEY say where the gateway is; without them a local one is started, which fails
once each time.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

import gip_resilience as gr
from gip_resilience.gateway import BreakStream, Error, FaultPlan, Gateway, Ok

if TYPE_CHECKING:
    from collections.abc import Iterator

OVERLOADED = Error("model_overloaded", retry_after=0.05)
CUT = BreakStream(how="eof", events=4)  # in good order, and yet not whole: nobody would notice
BAD_DAY = FaultPlan.script([OVERLOADED, Ok(), OVERLOADED, Ok(), CUT, Ok(), CUT, Ok()])


@contextmanager
def gateway() -> Iterator[str]:
    """The base URL to call: the one that is set, or that of a local gateway."""
    if url := os.environ.get("GIP_BASE_URL"):
        yield url
        return
    with Gateway(BAD_DAY) as local:
        yield local.base_url


async def awaiting(llm: ChatOpenAI) -> tuple[str, str]:
    """The same in asyncio, whole and streamed."""
    whole = await llm.ainvoke("hello, asyncio")
    pieces = [piece.text async for piece in llm.astream("hello, asyncio stream")]
    return whole.text, "".join(pieces)


def main() -> None:
    """Call in every way, and show what was sent for it."""
    with gateway() as base_url:
        llm = ChatOpenAI(
            model="azure/openai/gpt-5-mini",
            base_url=base_url,
            api_key=SecretStr(os.environ.get("GIP_API_KEY", "any")),
            temperature=0,  # a broken stream can be gone on with
        )
        brain = gr.mount(llm)
        print("invoke: ", llm.invoke("hello").text)
        ainvoke, astream = asyncio.run(awaiting(llm))
        print("ainvoke:", ainvoke)
        print("astream:", astream)
        print("stream: ", "".join(piece.text for piece in llm.stream("hello, stream")))
        counts = brain.metrics.snapshot()
        print(f"{counts.total('success')} of {counts.total()} answered, {counts.sent()} requests")


if __name__ == "__main__":
    main()
