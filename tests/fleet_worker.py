"""A process of a fleet, for tests and measurements: makes the calls it is told to, and says what happened.

Run as a program with a job as JSON on its command line; the answer is JSON on its standard output. Times are those
of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

import gip_resilience as gr
from gip_resilience.redis import RedisStore
from gip_resilience.state import ScopeKey

MODEL = "azure/openai/gpt-5-mini"


class Diary:
    """Observes what others brought about."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, str, str]] = []

    def wait_for(self, what: str) -> None:
        """Until that was heard; an empty word is always heard."""
        until = time.monotonic() + 10.0
        while what and not any(entry[1] == what for entry in self.entries):
            if time.monotonic() > until:
                raise TimeoutError(what)
            time.sleep(0.001)  # noqa: TID251 - likewise

    def on_circuit_changed(self, event: Any) -> None:
        """A circuit opened or closed."""
        self.entries.append((time.monotonic(), f"circuit {event.transition.reason}", event.circuit.model))

    def on_gate_closed(self, event: Any) -> None:
        """A gate closed."""
        self.entries.append((time.monotonic(), f"gate {event.source}", event.model))

    def on_probe_sent(self, event: Any) -> None:
        """A probe was granted."""
        self.entries.append((time.monotonic(), "probe", ""))

    def on_state_degraded(self, event: Any) -> None:
        """The store is away."""
        self.entries.append((time.monotonic(), "degraded", event.reason))

    def on_state_restored(self, event: Any) -> None:
        """It is back."""
        self.entries.append((time.monotonic(), "restored", ""))


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job.

    Args:
        job: ``gateway`` (base URL), ``calls``, ``pace`` (seconds from one to the next), ``store`` (URL, or nothing),
            ``config``, ``models`` (names to meet before the start, so that there is something to follow), ``after``
            (what must have been heard before the first call: ``gate fleet``).
    """
    logging.disable()
    diary = Diary()
    store = RedisStore(job["store"]) if job.get("store") else None
    res = gr.Resilience(gr.Config.from_dict(job.get("config", {})), store=store, observers=[diary])
    if store is not None:
        for model in job.get("models", ()):
            store.acquire(ScopeKey(job["host"], "", model), res.config, time.monotonic(), first=True)
        if not store.flush(10.0):
            raise RuntimeError("the store is away")
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    # There is no TLS here; loading certificates would take longer than all the calls.
    with httpx.Client(base_url=job["gateway"], timeout=5.0, verify=False) as client:
        gr.mount(client, res)
        print("ready", flush=True)
        sys.stdin.readline()
        diary.wait_for(job.get("after", ""))
        for number in range(job["calls"]):
            began = time.monotonic()
            body = {"model": job.get("model", MODEL), "messages": [{"role": "user", "content": f"{number}"}]}
            try:
                outcomes[str(client.post("chat/completions", json=body).status_code)] += 1
            except gr.ResilienceError as error:
                outcomes[type(error).__name__] += 1
            took = time.monotonic() - began
            slowest = max(slowest, took)
            time.sleep(max(0.0, job.get("pace", 0.0) - took))  # noqa: TID251 - a process of its own, in real time
    if store is not None:
        store.close()
    return {"pid": os.getpid(), "outcomes": outcomes, "slowest": slowest, "diary": diary.entries}


class Process:
    """One process of the fleet. Close it."""

    def __init__(self, **job: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it has met its models and is about to call."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def go(self) -> None:
        """Let it call."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()
        self._process.communicate()

    def result(self, timeout: float = 40.0) -> dict[str, Any]:
        """What it says in the end."""
        out, _ = self._process.communicate(timeout=timeout)
        found: dict[str, Any] = json.loads(out)
        return found

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self.kill()


if __name__ == "__main__":
    print(json.dumps(work(json.loads(sys.argv[1]))), flush=True)
