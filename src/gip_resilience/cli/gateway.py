"""Serve a local gateway that fails on request.

It listens on this machine only, takes any key, and needs no network.
"""

from __future__ import annotations

import argparse
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gip_resilience.cli.output import CommandError

if TYPE_CHECKING:
    from gip_resilience.gateway import FaultPlan, RateLimit

LOOPBACK = ("127.0.0.1", "localhost")


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--host", choices=LOOPBACK, default=LOOPBACK[0], help="this machine, and no other")
    parser.add_argument("--port", type=_port, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--plan", type=Path, metavar="FILE.toml", help="which request gets which fault")
    parser.add_argument("--seed", type=int, default=0, help="decides what happens by chance")
    parser.add_argument(
        "--latency", type=_seconds, default=0.0, metavar="S", help="seconds before every answer"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="a model it knows; any, if not given"
    )
    limits = parser.add_argument_group("rate limit of a key (none, unless one of these is given)")
    limits.add_argument("--limit-requests", type=_count, metavar="N", help="requests in a window")
    limits.add_argument("--limit-tokens", type=_count, metavar="N", help="tokens in a window")
    limits.add_argument("--limit-window", type=_window, metavar="S", help="seconds of a window (default: 60)")
    parser.epilog = """\
examples:
  gip-resilience gateway --limit-requests 60
  gip-resilience gateway --plan plan.toml --seed 7
a plan in TOML, such as
  [[rules]]
  reply = { kind = "error", code = "model_overloaded", retry_after = 2 }
  p = 0.2"""


def run(arguments: argparse.Namespace) -> int:
    """Run the command: serve until interrupted or told to end."""
    from gip_resilience.gateway import Gateway

    gateway = Gateway(
        _plan(arguments.plan),
        models=arguments.model,
        seed=arguments.seed,
        rate_limit=_limit(arguments),
        latency=arguments.latency,
        port=arguments.port,
    )
    try:
        gateway.start()
    except OSError as problem:
        raise CommandError(f"port {arguments.port} cannot be had: {problem.strerror or problem}") from None
    # A container or a service manager ends it with SIGTERM; both ways are a normal end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        print(
            f"{gateway.base_url}   (base URL for OpenAI-shaped clients; any key will do; Ctrl-C ends)",
            flush=True,
        )
        threading.Event().wait()
    seen = len(gateway.requests)
    gateway.stop()
    print(f"\n{seen} request{'' if seen == 1 else 's'} on {gateway.connections} connections", flush=True)
    return 0


def _plan(path: Path | None) -> FaultPlan | None:
    from gip_resilience.gateway import FaultPlan, PlanError

    if path is None:
        return None
    try:
        return FaultPlan.from_toml(path)
    except (PlanError, UnicodeDecodeError) as problem:
        raise CommandError(f"{path}: {problem}") from None
    except OSError as problem:
        raise CommandError(f"{path}: {problem.strerror or problem}") from None


def _limit(arguments: argparse.Namespace) -> RateLimit | None:
    from gip_resilience.gateway import RateLimit

    given = {
        "requests": arguments.limit_requests,
        "tokens": arguments.limit_tokens,
        "window": arguments.limit_window,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return RateLimit(**chosen) if chosen else None


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 65536:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("must be seconds, and not negative")
    return number


def _window(text: str) -> float:
    number = _seconds(text)
    if number == 0.0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number
