"""The gateway, in a process of its own, and how it is asked what it saw."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .processes import die_with_parent
from .sampling import (
    descriptors,
    errors_logged,
    few_arenas,
    give_back,
    listen_for_errors,
    own,
    resident,
    sockets,
    threads,
)

if TYPE_CHECKING:
    from typing import Self

    from gip_resilience.gateway import Gateway

LIMIT = 20.0
"""Seconds it may take to answer."""


class Peer:
    """The gateway process, as its parent sees it.

    Attributes:
        url: of the gateway that plays the storm, and ``door`` of the one that turns connections away.
    """

    def __init__(self, seed: int) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-X", "faulthandler", "-m", "soak.peer", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            preexec_fn=die_with_parent,  # noqa: PLW1509 - it calls the kernel, and nothing else
        )
        hello = self._hear()
        self.url: str = hello["url"]
        self.door: str = hello["door"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def ports(self) -> set[int]:
        """Where the two listen."""
        return {int(url.rpartition(":")[2]) for url in (self.url, self.door)}

    def tally(self) -> dict[str, Any]:
        """What it saw since it was asked last, and how it is. See `tally`."""
        return self._ask("tally")

    def state(self) -> dict[str, Any]:
        """How it is."""
        return self._ask("state")

    def _ask(self, what: str) -> dict[str, Any]:
        if self._process.stdin is None:
            raise AssertionError("no way to ask")
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise AssertionError("no way to hear")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the gateway's process has ended: {self._process.wait(LIMIT)}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def tally(gateway: Gateway, door: Gateway) -> dict[str, Any]:
    """What both saw since they were asked last. Only to be asked while nobody calls.

    Returns:
        ``sends``: requests that either saw, by the name of their call; ``kinds``: those of the first by the kind of
        reply; ``accepted``: connections to the second, which serves one request on each, or none.
    """
    seen, at_door, accepted = gateway.requests, door.requests, door.connections
    gateway.clear()
    door.clear()
    return {
        "sends": Counter(one.header("x-soak-call") or "" for one in seen + at_door),
        "kinds": Counter(one.reply for one in seen),
        "accepted": accepted,
    }


def state() -> dict[str, Any]:
    """What this process holds."""
    give_back()
    return {
        "memory": resident(),
        "blocks": sys.getallocatedblocks(),
        "descriptors": descriptors(),
        "connections": sum(sockets().values()),
        "threads": threads(),
        "objects": dict(own()),
        "logged": errors_logged(),
    }


def main() -> None:
    """Serve until the parent has gone."""
    from gip_resilience.gateway import Gateway

    from .weather import DOOR, STORM

    few_arenas()
    listen_for_errors()
    seed = int(sys.argv[1])
    logging.getLogger().addHandler(logging.StreamHandler())
    with Gateway(STORM, seed=seed) as gateway, Gateway(DOOR, seed=seed) as door:
        print(json.dumps({"url": gateway.url, "door": door.url}), flush=True)
        for line in sys.stdin:
            found = state()
            if line.strip() == "tally":
                found |= tally(gateway, door)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
