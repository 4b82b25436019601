"""Make ``docs/observability/scrape.txt``: what would be scraped after a bad half hour. Seeded; needs no network.

python observability/make_scrape.py
python -m gip_resilience top docs/observability/scrape.txt --width 110 --svg docs/observability/top.svg
"""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client import CollectorRegistry, generate_latest

import gip_resilience as gr
from gip_resilience.prometheus import ResilienceCollector
from gip_resilience.testing import FakeClock

TARGET = Path(__file__).parents[1] / "docs" / "observability" / "scrape.txt"
URL = "https://gateway.example/v1/chat/completions"

MODELS = {
    "azure/openai/gpt-5-mini": (30, 0.02, 1.2),
    "anthropic/claude-sonnet": (20, 0.01, 2.6),
    "mistral/mistral-large": (12, 0.0, 0.9),
    "google/gemini-flash": (14, 0.005, 0.7),
    "azure/openai/gpt-5": (20, 0.08, 4.0),
    "legacy/retired": (1, 1.0, 0.2),
}
"""How often each is called, how often it fails, and its mean seconds."""

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Afternoon:
    """A gateway that has seen better days, in this process, on a clock of its own."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.clock = FakeClock()

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        asked = json.loads(request.content)
        _, failing, mean = MODELS[asked["model"]]
        self.clock.advance(self.draw.lognormvariate(0, 0.4) * mean)
        chance = self.draw.random()
        if asked["model"] == "legacy/retired":
            return _error(503, "model_unavailable")
        if chance < failing:
            return _error(503, "model_overloaded")
        if chance < failing + 0.004:
            return _error(400, "invalid_request")
        if asked["model"] == "azure/openai/gpt-5" and self.draw.random() < 0.01:
            return _error(429, "rate_limit_exceeded", {"retry-after": "9"})
        if asked["stream"]:
            whole = self.draw.random()
            pieces = [ROLE, WORD, END] if whole > 0.05 else [ROLE] if whole > 0.01 else [ROLE, WORD]
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=iter(pieces))
        return httpx2.Response(200, json={"choices": [{"message": {"content": "Hello"}}]})

    def call(self, client: httpx2.Client) -> None:
        """One call, whatever becomes of it."""
        model = self.draw.choices(list(MODELS), [weight for weight, *_ in MODELS.values()])[0]
        body: dict[str, Any] = {"model": model, "messages": [], "stream": self.draw.random() < 0.3}
        try:
            client.post(URL, json=body)
        except httpx2.TransportError as error:
            if gr.report(error) is None:
                raise


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    error = {"type": "model_error", "code": code, "message": "not now"}
    return httpx2.Response(status, headers=headers, json={"error": error})


def main() -> None:
    """Make it."""
    logging.disable(logging.CRITICAL)
    afternoon = Afternoon(seed=7)
    brain = gr.Resilience(clock=afternoon.clock, chance=afternoon.draw.random)
    with httpx2.Client(transport=httpx2.MockTransport(afternoon.answer)) as client:
        gr.mount(client, brain)
        for _ in range(1500):
            afternoon.call(client)
        # It ends with a model that is away, and a limit that was just met.
        with brain.override(rate_limit=gr.Policy(max_attempts=1)):
            for model, code in (("legacy/retired", "model_unavailable"), ("azure/openai/gpt-5", "")):
                transport = httpx2.MockTransport(
                    lambda _, code=code: (
                        _error(503, code)
                        if code
                        else _error(429, "rate_limit_exceeded", {"retry-after": "30"})
                    )
                )
                with httpx2.Client(transport=transport) as last:
                    gr.mount(last, brain)
                    last.post(URL, json={"model": model})
    registry = CollectorRegistry()
    registry.register(ResilienceCollector(brain))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(generate_latest(registry))


if __name__ == "__main__":
    main()
