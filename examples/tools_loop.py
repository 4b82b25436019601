"""An agent's loop on the openai package: the model asks for tools until it has its answer.

    python examples/tools_loop.py

A run of many calls is as weak as its weakest call, and a tool must not act twice. The mounted client repeats what may
be repeated; the tools run once for each call the model asked for. One deadline holds for each step.

GIP_BASE_URL and GIP_API_KEY say where the gateway is; without them a local one is started, which fails at every step.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import openai

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, HalfBody, Ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

MODEL = "azure/openai/gpt-5-mini"
STEPS = 5
BAD_DAY = FaultPlan.script([Error("model_overloaded", retry_after=0.05), Ok(), HalfBody("fin"), Ok()])
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "count_letters",
            "description": "Counts the letters of a text.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        },
    }
]


@contextmanager
def gateway() -> Iterator[str]:
    """The base URL to call: the one that is set, or that of a local gateway."""
    if url := os.environ.get("GIP_BASE_URL"):
        yield url
        return
    with Gateway(BAD_DAY) as local:
        yield local.base_url


def count_letters(arguments: str) -> str:
    """The tool."""
    text = json.loads(arguments)["text"]
    return json.dumps({"letters": sum(letter.isalpha() for letter in text)})


def run(client: openai.OpenAI, question: str) -> str:
    """Step by step until the model has no more calls.

    Raises:
        openai.APIError: a step failed for good.
        RuntimeError: it was not done after `STEPS` steps.
    """
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": question}]
    for _ in range(STEPS):
        answer = (
            client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS).choices[0].message
        )
        if not answer.tool_calls:
            return answer.content or ""
        messages.append({"role": "assistant", "content": answer.content, "tool_calls": [
            {"id": call.id, "type": "function", "function": call.function.to_dict()}  # type: ignore[typeddict-item]
            for call in answer.tool_calls if call.type == "function"
        ]})  # fmt: skip
        for call in answer.tool_calls:
            if call.type == "function":
                result = count_letters(call.function.arguments)
                print(f"tool: {call.function.name} -> {result}")
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    raise RuntimeError(f"not done after {STEPS} steps")


def main() -> None:
    """One question that needs a tool."""
    with (
        gateway() as base_url,
        openai.OpenAI(base_url=base_url, api_key=os.environ.get("GIP_API_KEY", "any")) as client,
    ):
        brain = gr.mount(client, gr.Resilience(gr.Config(deadline=60)))
        print("answer:", run(client, "Use the tool on: hello"))
        counts = brain.metrics.snapshot()
        print(f"{counts.total('success')} of {counts.total()} steps answered, {counts.sent()} requests")


if __name__ == "__main__":
    main()
