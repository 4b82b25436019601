"""Requests on the wire for each call of a user while a model is out: what a resilience layer does to who is down.

100 calls, one after the other, each answered with 503 at every attempt, over a transport that answers from memory.
Nobody waits: rivals are told to wait 0 s, and our clock is a fake one that advances instead, as a real one would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx2
from requests.adapters import HTTPAdapter
from urllib3 import Retry

import gip_resilience as gr
from benchmarks.answers import UNAVAILABLE, Answer
from benchmarks.clients import AUTH, BODY, URL, guarded, session
from benchmarks.measuring import Effort, Found, Row, Spread
from benchmarks.rivals import ATTEMPTS, RETRIED, arounds, fitting, transports
from gip_resilience.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

CALLS: Final = 100

OUTAGES: Final[dict[str, Answer]] = {
    "503 with the code model_unavailable": UNAVAILABLE,
    "503 without a code": (503, {"content-type": "text/plain"}, b"Service Unavailable"),
}


class Down:
    """What answers everything with a failure, and counts."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.sent = 0

    def transport(self, library: ModuleType) -> Any:
        """A transport of *library*."""
        kit: Any = library
        status, headers, body = self._answer
        down = self

        class Failing(kit.BaseTransport):  # type: ignore[misc]  # a base that is known at run time
            def handle_request(self, request: Any) -> Any:
                down.sent += 1
                return kit.Response(status, headers=headers, stream=kit.ByteStream(body))

        return Failing()


def bench(effort: Effort) -> Found:
    """Each kind of outage, and everybody in it."""
    found = Found()
    calls = effort.times(CALLS)
    for name, answer in OUTAGES.items():
        for who, (down, call) in _everybody(answer, found).items():
            for _ in range(calls):
                _dare(call)
            count = down.sent / calls
            found.rows.append(Row(name, who, Spread(count, count, count), "requests"))
    found.skipped["urllib3.Retry"] = (
        "it works within urllib3: without a breaker it sends every attempt it may"
    )
    found.notes.append(
        f"Rivals that retry are allowed {ATTEMPTS} attempts, ours decides by the code; calls come without a pause,"
        " so a breaker stays open once it is."
    )
    return found


def _everybody(answer: Answer, found: Found) -> dict[str, tuple[Down, Callable[[], Any]]]:
    everybody: dict[str, tuple[Down, Callable[[], Any]]] = {}

    def add(who: str, down: Down, client: Any, around: Callable[[Any], Any] | None = None) -> None:
        def call() -> Any:
            return client.post(URL, json=BODY, headers=AUTH)

        everybody[who] = down, call if around is None else around(call)

    down = Down(answer)
    add("bare", down, httpx2.Client(transport=down.transport(httpx2)))
    down = Down(answer)
    client = guarded(httpx2.Client(transport=down.transport(httpx2)), gr.Resilience(clock=FakeClock()))
    add("ours", down, client)
    for library in (httpx, httpx2):
        kit: Any = library
        for who, wrap in fitting(transports(library, awaiting=False), {}, "").items():
            down = Down(answer)
            add(who, down, kit.Client(transport=wrap(down.transport(library))))
    for who, around in fitting(arounds(awaiting=False), found.skipped, "outages").items():
        down = Down(answer)
        add(who, down, httpx2.Client(transport=down.transport(httpx2)), around)
    for retries, who in ((2, "OpenAI SDK"), (2, "OpenAI SDK, ours mounted")):
        down = Down(answer)
        client = httpx2.Client(transport=down.transport(httpx2))
        if who.endswith("mounted"):
            guarded(client, gr.Resilience(clock=FakeClock()))
        try:
            everybody[who] = down, _sdk(client, retries)
        except ImportError:
            found.skipped["openai"] = "not installed"
    return everybody


def _sdk(client: httpx2.Client, retries: int) -> Callable[[], Any]:
    import openai

    class Hasty(openai.OpenAI):
        """It waits no time between its attempts."""

        def _calculate_retry_timeout(self, *args: Any, **options: Any) -> float:
            return 0.0

    sdk: Any = Hasty(
        api_key="not-a-key", base_url="http://gateway.test/v1", http_client=client, max_retries=retries
    )
    return lambda: sdk.chat.completions.create(**BODY)


def _urllib3(url: str) -> float:
    """What `urllib3.Retry` sends for a call; it says so itself."""
    retry = Retry(ATTEMPTS - 1, allowed_methods=None, status_forcelist=RETRIED, raise_on_status=False)
    with session(HTTPAdapter(max_retries=retry)) as client:
        response = client.post(url, json=BODY, headers=AUTH)
        return float(len(response.raw.retries.history) + 1)


def _dare(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:  # every library has an error of its own for a failure
        if isinstance(error, TypeError | AttributeError | AssertionError):
            raise
