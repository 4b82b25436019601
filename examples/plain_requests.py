"""A plain script on requests: ten questions, and what became of each.

    python examples/plain_requests.py
    GIP_BASE_URL=https://gateway.example/v1 GIP_API_KEY=... python examples/plain_requests.py

Without GIP_BASE_URL it starts a gateway of its own that has a bad day: an overloaded model, a proxy that answers in
HTML, a rate limit, a connection that is reset.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, Html, Ok, RateLimited, Reset

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "azure/openai/gpt-5-mini"
BAD_DAY = FaultPlan.script(
    [Ok(), Error("model_overloaded", retry_after=0.05), Html(502), Ok(), RateLimited(0.05), Ok(), Reset()]
)


@contextmanager
def gateway() -> Iterator[str]:
    """The base URL to call: the one that is set, or that of a local gateway."""
    if url := os.environ.get("GIP_BASE_URL"):
        yield url
        return
    with Gateway(BAD_DAY) as local:
        yield local.base_url


def ask(session: requests.Session, base_url: str, text: str) -> str:
    """One question. A failure that no retry could mend is told in a line."""
    question = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    try:
        response = session.post(f"{base_url}/chat/completions", json=question, timeout=30)
        response.raise_for_status()
    except requests.RequestException as error:  # ours are of its kin: an open circuit, a deadline
        report = gr.report(error)
        return f"failed: {report.reason if report else error}"
    report = gr.report(response)
    codes = " -> ".join(attempt.code for attempt in report.attempts) if report else "not mounted"
    return f"{response.json()['choices'][0]['message']['content'][:30]!r:34} {codes}"


def main() -> None:
    """Ask, then show the counts."""
    with gateway() as base_url, requests.Session() as session:
        session.headers["authorization"] = f"Bearer {os.environ.get('GIP_API_KEY', 'any')}"
        brain = gr.mount(session, gr.Resilience(gr.Config(deadline=60)))
        for number in range(1, 11):
            print(number, ask(session, base_url, f"question {number}"))
        counts = brain.metrics.snapshot()
        print(f"{counts.total('success')} of {counts.total()} answered, {counts.retries} retries")


if __name__ == "__main__":
    main()
