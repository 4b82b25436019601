"""Many embeddings in batches, several at once, with a progress bar; the rate limit is waited out together.

    python examples/embeddings.py [FILE]

Embeds each line of FILE (or 200 lines of its own) and writes one line of JSON for each to the standard output.
GIP_BASE_URL and GIP_API_KEY say where the gateway is; without them a local one is started, which limits the rate and
is overloaded now and then.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, Ok, RateLimited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MODEL = "openai/text-embedding-3-small"
BATCH = 16
AT_ONCE = 4
BAD_DAY = FaultPlan.script(
    [
        Ok(),
        Ok(),
        RateLimited(0.1),
        Ok(),
        Error("model_overloaded", retry_after=0.05),
        Ok(),
        Error("model_server_error"),
    ]
)


@contextmanager
def gateway() -> Iterator[str]:
    """The base URL to call: the one that is set, or that of a local gateway."""
    if url := os.environ.get("GIP_BASE_URL"):
        yield url
        return
    with Gateway(BAD_DAY) as local:
        yield local.base_url


def batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines, so many at a time."""
    rest = iter(lines)
    while batch := list(islice(rest, BATCH)):
        yield batch


async def embed(client: httpx2.AsyncClient, batch: list[str]) -> list[list[float]]:
    """The vectors of one batch, in its order."""
    response = await client.post("/embeddings", json={"model": MODEL, "input": batch})
    response.raise_for_status()
    return [item["embedding"] for item in sorted(response.json()["data"], key=lambda item: item["index"])]


async def embed_all(base_url: str, lines: list[str], progress: Progress) -> list[list[float]]:
    """The vectors of all lines, in their order.

    A rate limit closes the gate for every worker: none of them finds out for itself, and they are let go one after
    the other.
    """
    key = {"authorization": f"Bearer {os.environ.get('GIP_API_KEY', 'any')}"}
    found: dict[int, list[list[float]]] = {}
    work = enumerate(batches(lines))
    async with httpx2.AsyncClient(base_url=base_url, headers=key, timeout=60) as client:
        brain = gr.mount(client)
        bar = progress.add_task("embedding", total=len(lines), told="")

        async def worker() -> None:
            for number, batch in work:  # shared: each takes the next batch that nobody has
                found[number] = await embed(client, batch)
                counts = brain.metrics.snapshot()
                told = f"{counts.retries} retries, waited {sum(counts.waits.values()):.1f} s"
                progress.update(bar, advance=len(batch), told=told)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())
    return [vector for number in sorted(found) for vector in found[number]]


def main() -> None:
    """Read, embed, write."""
    if len(sys.argv) > 1:
        lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    else:
        lines = [f"line {number}" for number in range(1, 201)]
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[told]}"))
    with gateway() as base_url, Progress(*columns, console=Console(stderr=True)) as progress:
        vectors = asyncio.run(embed_all(base_url, lines, progress))
    for line, vector in zip(lines, vectors, strict=True):
        print(json.dumps({"text": line, "embedding": vector}))


if __name__ == "__main__":
    main()
