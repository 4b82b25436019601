"""Watch a running process: calls, codes, circuits and waits, read from its Prometheus endpoint.

What is shown are rates between two scrapes; of a file, or with ``--once``, counts since the process began.
"""

from __future__ import annotations

import io
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from gip_resilience.cli.output import CommandError
from gip_resilience.cli.scrape import NotAScrapeError, Scrape, compare, read

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import Console

MAX_SIZE = 10 << 20
"""Bytes of a scrape that are read; a thousand models take less than one of these ten megabytes."""

TIMEOUT = 5.0
"""Seconds a scrape may take."""


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "source",
        metavar="URL|FILE",
        help="where metrics are scraped (localhost:9100, http://host/metrics), or a file that holds a scrape",
    )
    parser.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between two scrapes (2)"
    )
    parser.add_argument("--once", action="store_true", help="show one scrape and end")
    parser.add_argument("--svg", metavar="FILE", help="save one frame as a picture, and end")
    parser.add_argument("--width", type=int, default=0, metavar="COLUMNS", help="instead of the terminal's")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600.0:
        raise ValueError(text)
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    try:
        from rich.console import Console
    except ImportError:
        raise CommandError("needs rich: pip install 'gip-resilience[cli]'") from None
    fetch = fetcher(arguments.source)
    console = Console(width=arguments.width or None)
    first = fetch()
    if arguments.svg:
        console = Console(width=arguments.width or 100, record=True, file=io.StringIO(), force_terminal=True)
        show(console, first, None, arguments.source, height=60)
        picture = console.export_svg(title="gip-resilience top", unique_id="top")
        Path(arguments.svg).write_text(picture, encoding="utf-8")
        return 0
    if arguments.once or not console.is_terminal or not _is_url(arguments.source):
        show(console, first, None, arguments.source, height=1000)
        return 0
    with suppress(KeyboardInterrupt):  # how it is left
        _watch(console, fetch, first, arguments.source, arguments.interval)
    return 0


def show(console: Console, now: Scrape, before: Scrape | None, source: str, *, height: int) -> None:
    """Print one frame."""
    from gip_resilience.cli.board import draw

    console.print(draw(compare(now, before), source, width=console.width, height=height))


def _watch(
    console: Console, fetch: Callable[[], Scrape], first: Scrape, source: str, interval: float
) -> None:
    from rich.live import Live

    from gip_resilience.cli.board import draw

    before: Scrape | None = None
    now, note = first, ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            view = compare(now, before)
            live.update(
                draw(view, source, width=console.width, height=console.height, note=note), refresh=True
            )
            time.sleep(interval)  # noqa: TID251 - a command's own loop, which no test runs through
            try:
                before, now, note = now, fetch(), ""
            except CommandError:
                note = note or f"no answer since {time.strftime('%H:%M:%S')}"


def _is_url(source: str) -> bool:
    """Whatever is no file."""
    return not Path(source).is_file()


def fetcher(source: str, clock: Callable[[], float] = time.monotonic) -> Callable[[], Scrape]:
    """What fetches a scrape from there.

    Raises:
        CommandError: from what it returns, when there is no answer, or none of ours.
    """
    parse, parse_open = _parsers()
    where = _url(source) if _is_url(source) else source

    def fetch() -> Scrape:
        if not _is_url(source):
            text, kind = _load(source), ""
        else:
            text, kind = _get(where)
        at = clock()
        openly = "openmetrics" in kind or text.rstrip().endswith("# EOF")
        try:
            return read(text, at, parse_open if openly else parse)
        except NotAScrapeError as error:
            raise CommandError(f"{where}: {error}") from None

    return fetch


def _parsers() -> tuple[Any, Any]:
    try:
        from prometheus_client import parser
        from prometheus_client.openmetrics import parser as open_parser
    except ImportError:
        raise CommandError("needs prometheus-client: pip install 'gip-resilience[prometheus]'") from None
    return parser.text_string_to_metric_families, open_parser.text_string_to_metric_families


def _url(source: str) -> str:
    parts = urlsplit(source if "://" in source else f"http://{source}")
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise CommandError(f"{source}: expected a file that exists, or a URL of http or https")
    return urlunsplit(parts if parts.path.strip("/") else parts._replace(path="/metrics"))


def _get(url: str) -> tuple[str, str]:
    try:
        with urlopen(Request(url, headers={"Accept": "text/plain"}), timeout=TIMEOUT) as answer:  # noqa: S310 - http or https, as was seen
            body = answer.read(MAX_SIZE + 1)
            kind = answer.headers.get("content-type", "")
    except URLError as error:
        raise CommandError(f"{url}: {error.reason if not hasattr(error, 'code') else error}") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{url}: {str(error) or type(error).__name__}") from None
    return _text(body, url), kind


def _load(source: str) -> str:
    try:
        with Path(source).open("rb") as file:
            return _text(file.read(MAX_SIZE + 1), source)
    except OSError as error:
        raise CommandError(f"{source}: {error.strerror}") from None


def _text(body: bytes, where: str) -> str:
    if len(body) > MAX_SIZE:
        raise CommandError(f"{where}: more than {MAX_SIZE >> 20} MiB")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise CommandError(f"{where}: not what Prometheus scrapes (not UTF-8)") from None
