"""Watch a running process: calls, codes, circuits and waits, read from its Prometheus endpoint.

What is shown are rates between two scrapes; of a file, or with ``--once``, counts since the process began.
"""

from __future__ import annotations

import argparse
import io
import re
import signal
import sys
import time
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from gip_resilience.cli.output import CommandError
from gip_resilience.cli.scrape import NotAScrapeError, Scrape, View, compare, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.client import HTTPResponse
    from types import FrameType

    from rich.console import Console

MAX_SIZE = 10 << 20
"""Bytes of a scrape that are read; a thousand models take less than one of these ten megabytes."""

TIMEOUT = 5.0
"""Seconds without a byte, and seconds that a whole answer may take."""

WRONG_USAGE = 2


class WrongSourceError(CommandError):
    """What was given is no place to read from, whatever is running."""


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
    parser.add_argument(
        "--width", type=_columns, default=0, metavar="COLUMNS", help="20 to 1000, instead of the terminal's"
    )
    parser.epilog = """\
examples:
  gip-resilience top localhost:9100
  gip-resilience top http://10.0.0.7:9100/metrics --interval 5
  gip-resilience top scrape.txt --svg board.svg"""


def _seconds(text: str) -> float:
    return _between(text, 0.1, 3600.0)


def _columns(text: str) -> int:
    return int(_between(text, 20, 1000))


def _between(text: str, least: float, most: float) -> float:
    with suppress(ValueError):
        if least <= float(text) <= most:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text!r}")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    try:
        return _run(arguments)
    except WrongSourceError as problem:
        print(f"gip-resilience top: {problem}", file=sys.stderr)
        return WRONG_USAGE


def _run(arguments: argparse.Namespace) -> int:
    try:
        from rich.console import Console
    except ImportError:
        raise CommandError("needs rich: pip install 'gip-resilience[cli]'") from None
    fetch = fetcher(arguments.source)
    source = shown(arguments.source)
    console = Console(width=arguments.width or None)
    first = fetch()
    if arguments.svg:
        console = Console(width=arguments.width or 100, record=True, file=io.StringIO(), force_terminal=True)
        show(console, first, source, height=60)
        picture = console.export_svg(title="gip-resilience top", unique_id="top")
        # rich has the viewer fetch fonts from the web. It names others after them, which are there.
        picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
        try:
            Path(arguments.svg).write_text(picture, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{arguments.svg}: {error.strerror}") from None
        return 0
    if arguments.once or not console.is_terminal or _is_file(arguments.source):
        show(console, first, source, height=1000)
        return 0
    with suppress(KeyboardInterrupt):  # how it is left
        _watch(console, watched(fetch, first), source, arguments.interval)
    return 0


def show(console: Console, now: Scrape, source: str, *, height: int) -> None:
    """Print one frame of what was counted since the process began."""
    from gip_resilience.cli.board import draw

    console.print(draw(compare(now, None), source, width=console.width, height=height))


def watched(
    fetch: Callable[[], Scrape],
    first: Scrape,
    say_time: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
) -> Iterator[tuple[View, str]]:
    """What is seen scrape by scrape, without end, and what is wrong with the source.

    Where there is no answer the last that was seen stays.

    Args:
        fetch: makes another scrape.
        first: the one that is there.
        say_time: the time of day.
    """
    before: Scrape | None = None
    now, note = first, ""
    while True:
        yield compare(now, before), note
        try:
            before, now, note = now, fetch(), ""
        except CommandError:
            note = note or f"no answer since {say_time()}"


def _watch(console: Console, views: Iterator[tuple[View, str]], source: str, interval: float) -> None:
    from rich.live import Live

    from gip_resilience.cli.board import draw

    with _noticing() as interrupted, Live(console=console, screen=True, auto_refresh=False) as live:
        for view, note in views:
            frame = draw(view, source, width=console.width, height=console.height, note=note)
            live.update(frame, refresh=True)
            if interrupted:
                return
            time.sleep(interval)  # noqa: TID251 - a command's own loop; what it does in between is `watched`


@contextmanager
def _noticing() -> Iterator[list[bool]]:
    """Holds something once there was an interrupt: one that comes while a frame is written can be lost in there."""
    interrupted: list[bool] = []
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupted
        return

    def notice(number: int, frame: FrameType | None) -> NoReturn:
        interrupted.append(True)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_file(source: str) -> bool:
    """A pipe is one, too: what a shell makes of ``<(command)``."""
    try:
        return Path(source).exists() and not Path(source).is_dir()
    except (OSError, ValueError):  # too long for a file's name, or impossible in one
        return False


def shown(source: str) -> str:
    """The source as it may be seen: nothing that speaks to a terminal, no query."""
    if not _is_file(source):
        source = source.partition("?")[0]
    return _printable(source)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def fetcher(source: str, clock: Callable[[], float] = time.monotonic) -> Callable[[], Scrape]:
    """What fetches a scrape from there.

    Raises:
        WrongSourceError: it is neither a file nor a URL.
        CommandError: from what it returns, when there is no answer, or none of ours.
    """
    parse, parse_open = _parsers()
    is_file = _is_file(source)
    url = "" if is_file else _url(source)
    where = shown(url or source)
    hint = "" if is_file or "://" in source else f" (nor is there a file {shown(source)})"

    def fetch() -> Scrape:
        try:
            text, kind = (_load(source), "") if is_file else _get(url)
        except CommandError as error:
            raise CommandError(f"{where}: {error}{hint}") from None
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
    wrong = WrongSourceError(f"{shown(source)}: expected a file that exists, or a URL of http or https")
    try:
        parts = urlsplit(source if "://" in source else f"http://{source}")
        if parts.username or parts.password:  # not to be shown
            raise WrongSourceError("a URL with a user or a password is not supported")
        good = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:  # a port that is none, half an address
        raise wrong from None
    blank = any(c.isspace() or not c.isprintable() for c in source)
    if not good or blank or (parts.hostname or "").startswith(".") or source.startswith("~"):
        raise wrong
    return urlunsplit(parts if parts.path.strip("/") else parts._replace(path="/metrics"))


def _get(url: str) -> tuple[str, str]:
    ends = time.monotonic() + TIMEOUT
    try:
        with urlopen(Request(url, headers={"Accept": "text/plain"}), timeout=TIMEOUT) as answer:  # noqa: S310 - http or https, as was seen
            body = _body(answer, ends)
            kind = answer.headers.get("content-type", "")
    except URLError as error:
        raise CommandError(_printable(str(error if hasattr(error, "code") else error.reason))) from None
    except HTTPException as error:
        raise CommandError(f"the answer is not HTTP, or breaks off ({type(error).__name__})") from None
    except (OSError, ValueError) as error:
        raise CommandError(_printable(str(error)) or type(error).__name__) from None
    return _text(body), kind


def _body(answer: HTTPResponse, ends: float) -> bytes:
    """All of it, or a byte more than may be read."""
    body = bytearray()
    while len(body) <= MAX_SIZE:
        part = answer.read1(1 << 16)
        if not part:
            if answer.length:  # what was promised and did not come
                raise CommandError("the answer breaks off")
            break
        body += part
        if time.monotonic() > ends:
            raise CommandError(f"the answer takes longer than {TIMEOUT:g} s")
    return bytes(body)


def _load(source: str) -> str:
    try:
        with Path(source).open("rb") as file:
            return _text(file.read(MAX_SIZE + 1))
    except OSError as error:
        raise CommandError(str(error.strerror)) from None


def _text(body: bytes) -> str:
    if len(body) > MAX_SIZE:
        raise CommandError(f"more than {MAX_SIZE >> 20} MiB")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise CommandError("not what Prometheus scrapes (not UTF-8)") from None
