"""The second part of the demo: streams that break, each in its own way, read bare and mounted.

What a reader does is what programs do: take the text out of the events until there are no more. Whether that was all
of it, the reader cannot tell; the demo can.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from gip_resilience.cli.output import columns
from gip_resilience.gateway import BreakStream, FaultPlan, Gateway
from gip_resilience.mounting import mount
from gip_resilience.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gip_resilience.gateway import Reply

WAYS: Final[tuple[tuple[str, Reply], ...]] = (
    ("ends in order, too early", BreakStream(how="eof", events=4)),
    ("the same, on a connection that closes", BreakStream(how="eof", events=4, framing="close")),
    ("the same, compressed", BreakStream(how="eof", events=4, gzip=True)),
    ("ends inside a character", BreakStream(how="eof", events=4, char=True)),
    ("nothing after the headers", BreakStream(how="eof", events=0)),
    ("the connection closes", BreakStream(how="fin", events=4)),
    ("the connection is reset", BreakStream(how="rst", events=4)),
    ("an error is the first event", BreakStream(how="error", events=0)),
    ("an error in the middle, then [DONE]", BreakStream(how="error", events=4, done=True)),
    ("an event is garbled", BreakStream(how="garbled", events=4)),
    ("all is there, then a reset", BreakStream(how="rst", events=1000)),
)
"""How the streams break, in words and for the gateway. Each is asked for once."""

QUESTION: Final = "Grüße"
_ENDING: Final = "You said: Grüße "
PATIENCE: Final = 10.0


@dataclass(slots=True)
class Tally:
    """What came of one reader's streams.

    Attributes:
        name: of the reader.
        mounted: whether resilience was mounted.
        counts: streams that were ``whole``; cut ``short``, with nobody the wiser; and those that ``failed``.
        requests: requests the gateway saw.
    """

    name: str
    mounted: bool
    counts: Counter[str] = field(default_factory=Counter)
    requests: int = 0


def _payload(model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "stream": True, "temperature": 0}


def _texts(lines: Iterable[str]) -> str:
    """What a program makes of the lines of a stream."""
    text = ""
    for line in lines:
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        event = json.loads(data)
        if "error" in event:
            raise RuntimeError(event["error"]["code"])
        text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return text


def _requests(base_url: str, brain: Resilience | None) -> Callable[[str], str]:
    import requests

    session = requests.Session()
    session.trust_env = False
    if brain is not None:
        mount(session, brain)

    def read(model: str) -> str:
        with session.post(
            f"{base_url}/chat/completions", json=_payload(model), stream=True, timeout=PATIENCE
        ) as response:
            response.raise_for_status()
            return _texts(line.decode() for line in response.iter_lines())

    return read


def _httpx_like(library: str) -> Callable[[str, Resilience | None], Callable[[str], str]]:
    def opened(base_url: str, brain: Resilience | None) -> Callable[[str], str]:
        httpx: Any = __import__(library)
        client = httpx.Client(base_url=base_url, timeout=PATIENCE, trust_env=False, verify=False)
        if brain is not None:
            mount(client, brain)

        def read(model: str) -> str:
            with client.stream("POST", "/chat/completions", json=_payload(model)) as response:
                response.raise_for_status()
                return _texts(response.iter_lines())

        return read

    return opened


def _openai(base_url: str, brain: Resilience | None) -> Callable[[str], str]:
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="demo", timeout=PATIENCE)
    if brain is not None:
        mount(client, brain)

    def read(model: str) -> str:
        chunks = client.chat.completions.create(**_payload(model))
        return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)

    return read


READERS: Final[tuple[tuple[str, Callable[[str, Resilience | None], Callable[[str], str]]], ...]] = (
    ("requests", _requests),
    ("httpx", _httpx_like("httpx")),
    ("httpx2", _httpx_like("httpx2")),
    ("openai", _openai),
)
"""Who reads. The awaiting clients do the same."""


def run(chosen: Sequence[str]) -> list[Tally]:
    """Let every reader that is installed, and *chosen*, read every stream, bare and mounted.

    Args:
        chosen: names of clients; a reader takes part when a client of its library does.
    """
    present = [
        (name, opened)
        for name, opened in READERS
        if find_spec(name) is not None and any(client.partition(" ")[0] == name for client in chosen)
    ]
    tallies = [Tally(name, mounted) for name, _ in present for mounted in (False, True)]
    opener = dict(present)
    threads = [
        threading.Thread(target=_read_all, args=(tally, opener[tally.name]), daemon=True) for tally in tallies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tallies


def _read_all(tally: Tally, opened: Callable[[str, Resilience | None], Callable[[str], str]]) -> None:
    # A model for each way: what happens to one of them must not open a circuit in front of the next.
    plan = FaultPlan.per_model({f"model-{number}": [reply] for number, (_, reply) in enumerate(WAYS)})
    with Gateway(plan) as gateway:
        read = opened(gateway.base_url, Resilience() if tally.mounted else None)
        for number in range(len(WAYS)):
            try:
                text = read(f"model-{number}")
            except Exception:
                tally.counts["failed"] += 1
            else:
                tally.counts["whole" if text.startswith(_ENDING) and text.endswith(".") else "short"] += 1
        tally.requests = len(gateway.requests)


def table(tallies: Sequence[Tally]) -> list[str]:
    """The table as text: two lines of headings, a rule, a line per reader."""
    rows = [["streams", "", "whole", "cut short,", "error", "requests"]]
    rows += [["", "", f"of {len(WAYS)}", "unnoticed", "", ""]]
    for tally in tallies:
        counts = [str(tally.counts[what]) for what in ("whole", "short", "failed")]
        how = "mounted" if tally.mounted else "bare"
        rows.append(["" if tally.mounted else tally.name, how, *counts, str(tally.requests)])
    lines = columns(rows, right=frozenset(range(2, 6)), gap="  ").split("\n")
    return [*lines[:2], "-" * max(map(len, lines)), *lines[2:]]


def reading(tallies: Sequence[Tally]) -> list[str]:
    """How to read the table, in sentences."""
    bare = sum((tally.counts for tally in tallies if not tally.mounted), Counter[str]())
    ours = sum((tally.counts for tally in tallies if tally.mounted), Counter[str]())
    said = (
        f"Streams that break after their 200, in {len(WAYS)} ways. Bare, {bare['short']} of {bare.total()} answers"
        f" were only a part, and nobody could tell; {bare['failed']} came to nothing, some with every word there."
        f" Mounted, {ours['whole']} came whole and {ours['short']} short."
    )
    how = (
        "What broke before its first word was begun anew. After it, the answer was asked for again, compared with"
        " what had been handed up, and gone on with where that ended: temperature 0 asks for the same every time."
    )
    return [said, how]
