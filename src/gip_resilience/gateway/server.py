"""The gateway on a socket: how it is started and asked.

What it decides, and what it remembers, is a `Service`; that is asked by the loop's thread alone, except where a lock
says otherwise. The methods of `Gateway` may be called from any thread.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from gip_resilience.gateway.connections import Decisions, Runner
from gip_resilience.gateway.service import Front, Service
from gip_resilience.gateway.wire import Operation, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from gip_resilience.gateway.http1 import BadRequest, Request
    from gip_resilience.gateway.limits import RateLimit
    from gip_resilience.gateway.plan import FaultPlan
    from gip_resilience.gateway.streaming import StreamOptions

HOST: Final = "127.0.0.1"
"""The only address the gateway listens on: it takes any key by default and injects faults on purpose."""

_BACKLOG: Final = 1024
"""Connections the system holds for us while all of ours are taken."""


class Gateway(Front):
    """A local GIP gateway that fails on request.

    Use it as a context manager, or with `start` and `stop`. All methods may be called from any thread.

    Args:
        plan: which request gets which fault; by default none does.
        models: the models it knows; empty for any.
        api_keys: the keys it takes; `None` for any key and for none. Only digests of them are kept.
        seed: decides the wording of answers and what happens by chance.
        rate_limit: limit per key, announced in headers; `None` for none.
        latency: seconds before every answer.
        record_bodies: keep request bodies in `requests`.
        streams: how streams look: sampled, cut anew, with ids, with comments; by default none of it.
        clock: monotonic seconds, for rate windows, the times of a plan and of the recording. Delays are real.
        port: TCP port; 0 lets the system choose.
    """

    def __init__(
        self,
        plan: FaultPlan | None = None,
        *,
        models: Iterable[str] = (),
        api_keys: Iterable[str] | None = None,
        seed: int = 0,
        rate_limit: RateLimit | None = None,
        latency: float = 0.0,
        record_bodies: bool = False,
        streams: StreamOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
        port: int = 0,
    ) -> None:
        self._service = Service(
            plan,
            models=models,
            api_keys=api_keys,
            seed=seed,
            rate_limit=rate_limit,
            latency=latency,
            record_bodies=record_bodies,
            streams=streams,
            clock=clock,
        )
        self._wanted_port = port
        self._port: int | None = None
        self._runner: Runner | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = repr(self.url) if self._port is not None else "stopped"
        return f"<Gateway {where}, {len(self.requests)} requests on {self.connections} connections>"

    def start(self) -> None:
        """Listen and serve in a thread of its own; returns when connections are taken.

        Raises:
            RuntimeError: it runs already.
            OSError: the port cannot be had.
        """
        if self._runner is not None:
            raise RuntimeError("the gateway runs already")
        listener = socket.create_server((HOST, self._wanted_port), backlog=_BACKLOG)
        listener.setblocking(False)
        self._port = cast("int", listener.getsockname()[1])
        self._service.start()
        decisions = Decisions(self._service.accept, self._answer, self._refuse, self._service.closed)
        self._runner = Runner(decisions, listener)
        self._runner.start()

    def stop(self) -> None:
        """Close every connection and end the thread; does nothing when it does not run."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self._port = None
            runner.stop()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``.

        Raises:
            RuntimeError: the gateway does not run.
        """
        if self._port is None:
            raise RuntimeError("the gateway does not run")
        return f"http://{HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """The base URL for OpenAI-shaped clients: `url` and ``/v1``."""
        return self.url + "/v1"

    # What follows is called by the loop's thread.

    def _answer(self, request: Request, connection: int) -> Iterator[Operation]:
        return operations(self._service.decide(request, connection), request)

    def _refuse(self, problem: BadRequest, connection: int) -> Iterator[Operation]:
        return operations(*self._service.refuse(problem, connection))


def serve(
    host_port: str = f"{HOST}:0",
    plan: FaultPlan | None = None,
    *,
    models: Iterable[str] = (),
    api_keys: Iterable[str] | None = None,
    seed: int = 0,
    rate_limit: RateLimit | None = None,
    latency: float = 0.0,
) -> None:
    """Run a gateway in the foreground: print its URL, then serve until interrupted from the keyboard.

    Args:
        host_port: ``"127.0.0.1:8080"``, ``"localhost:8080"``, ``":8080"`` or ``"8080"``.
        plan: as for `Gateway`, like the other arguments.
        models: the models it knows.
        api_keys: the keys it takes.
        seed: decides the wording of answers and what happens by chance.
        rate_limit: limit per key.
        latency: seconds before every answer.

    Raises:
        ValueError: *host_port* is not an address of this machine alone.
        OSError: the port cannot be had.
    """
    gateway = Gateway(
        plan,
        models=models,
        api_keys=api_keys,
        seed=seed,
        rate_limit=rate_limit,
        latency=latency,
        port=_port_of(host_port),
    )
    with gateway, suppress(KeyboardInterrupt):
        print(gateway.url, flush=True)
        threading.Event().wait()


def _port_of(host_port: str) -> int:
    host, _, port = host_port.rpartition(":")
    if host not in ("", HOST, "localhost"):
        raise ValueError(f"the gateway listens on {HOST} only")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError("a port is a number from 0 to 65535")
    return int(port)
