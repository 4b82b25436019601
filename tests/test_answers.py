"""The answer the caller gets works as without us: raw reading, decoding, cookies, hooks, history, pickling."""

from __future__ import annotations

import contextlib
import gzip
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from gip_resilience.gateway import Error, FaultPlan, Gateway, Gzip, Html, Ok, Redirect, Slow, Status
from harness import CHAT, HARNESSES
from matrix import Pair, chat_url, header_pairs, pair, perform, raised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gip_resilience.gateway import Reply
    from gip_resilience.testing import FakeClock
    from harness import Harness, Session


ANSWERS: dict[str, Reply] = {
    "success": Ok(),
    "error": Error("model_overloaded"),
    "error, compressed": Gzip(Error("model_overloaded")),
    "refusal": Error("invalid_request"),
    "page": Html(502),
    "page, compressed": Gzip(Html(502)),
    "nothing": Status(503, "empty"),
    "beyond what is read": Status(503, b"x" * 200_000),
    "latin-1": Status(
        500, "Zahl überlaufen".encode("latin-1"), {"content-type": "text/plain; charset=latin-1"}
    ),
    "binary": Status(500, bytes(range(256)), {"content-type": "application/octet-stream"}),
}
"""Last answers, one for each way in which a body is read and put back."""


@pytest.fixture(params=ANSWERS.values(), ids=ANSWERS)
def last(request: pytest.FixtureRequest) -> Reply:
    """The answer that goes on for ever."""
    reply: Reply = request.param
    return reply


def test_bytes_text_and_headers(last: Reply, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """What was read under the retry is read again by the caller: decoded bytes, text, encoding, every header."""
    gateway.plan = FaultPlan.always(last)
    bare = clients.bare.post(chat_url(gateway))

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.content == bare.content
    assert (answer.response.text, answer.response.encoding) == (bare.response.text, bare.response.encoding)
    assert header_pairs(answer) == header_pairs(bare)
    assert reason(answer.response) == reason(bare.response)


def test_raw_bytes(last: Reply, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Raw reading gives the bytes as they came over the wire, still compressed."""
    gateway.plan = FaultPlan.always(last)
    _, theirs = clients.bare.stream_raw("POST", chat_url(gateway), json=CHAT)

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer, ours = mounted.stream_raw("POST", chat_url(gateway), json=CHAT)

    assert len(ours) == len(theirs)
    assert unpacked(answer.headers, ours) == unpacked(answer.headers, theirs)
    if isinstance(last, Gzip):
        assert ours[:2] == b"\x1f\x8b"


def test_piecewise(last: Reply, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Reading piece by piece gives the decoded body."""
    gateway.plan = FaultPlan.always(last)
    bare = clients.bare.post(chat_url(gateway))

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer, pieces = mounted.stream("POST", chat_url(gateway), json=CHAT)

    assert b"".join(pieces) == answer.content
    assert len(answer.content) == len(bare.content)
    assert bytes(answer.content).startswith(bare.content[:10])


def test_not_reading_at_all(last: Reply, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """A caller who looks at the status and leaves leaves nothing behind: the next call goes through."""
    gateway.plan = FaultPlan.always(last)

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        status = peek(mounted, chat_url(gateway))
        again = mounted.get(gateway.url + "/healthz")

    assert status == clients.bare.post(chat_url(gateway)).status
    assert again.status == 200


def test_elapsed_is_the_whole_call(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """``elapsed`` runs from the first attempt to the end of the last, and is set on answers that were read."""
    gateway.plan = FaultPlan.script(
        [Slow(0.05, Status(503)), Slow(0.05, Status(503)), Slow(0.05, Status(503))]
    )

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.response.elapsed.total_seconds() >= 0.15


@pytest.mark.parametrize("failures", [0, 2, 3], ids=["at once", "after two failures", "never"])
def test_the_request_is_the_callers_own(
    failures: int, clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """``response.request`` is the very request the caller sent, unchanged."""
    gateway.plan = FaultPlan.script([Status(503)] * failures)

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        request = built(mounted, "POST", chat_url(gateway))
        before = (str(request.url), request.method, dict(request.headers), body(request))
        response = perform(mounted, lambda: mounted.client.send(request))

    assert response.request is request
    assert (str(request.url), request.method, dict(request.headers), body(request)) == before
    assert response.status_code == (503 if failures == 3 else 200)


def test_the_request_is_the_callers_own_whatever_its_body(
    clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Also where what was sent was a copy of it, because its body can be read only once."""
    gateway.plan = FaultPlan.script([Status(503)])

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        request = built(mounted, "PUT", gateway.url + "/echo", pieces(clients.harness.colour))
        response = perform(mounted, lambda: mounted.client.send(request))

    assert response.request is request
    assert [seen.body_size for seen in gateway.requests] == [6, 6]


def test_hooks_see_the_last_answer_only(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Response hooks are the caller's: one call, one answer, and it is readable in the hook."""
    gateway.plan = FaultPlan.script([Status(503), Error("model_overloaded")])
    seen: list[tuple[int, bytes]] = []

    with clients.mounted(gr.Resilience(clock=clock)) as mounted, hooked(mounted, seen):
        answer = mounted.post(chat_url(gateway))

    assert seen == [(200, answer.content)]
    assert len(gateway.requests) == 3


def test_cookies_of_the_last_answer(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """The last answer's cookies reach the jar; those of attempts nobody sees do not, nor the next attempt."""
    gateway.plan = FaultPlan.script(
        [Status(503, headers={"set-cookie": "lost=1"}), Ok(headers={"set-cookie": "kept=2"}), Ok()]
    )

    with harness.open(gr.Resilience(clock=clock), verify=False) as mounted:
        answer = mounted.post(chat_url(gateway))
        jar = dict(mounted.client.cookies)
        mounted.post(chat_url(gateway))

    assert dict(answer.response.cookies) == {"kept": "2"}
    assert jar == {"kept": "2"}
    assert [seen.header("cookie") is not None for seen in gateway.requests] == [False, False, True]


def test_cookies_of_a_failure(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """A failure that is handed up brings its cookies as any answer does."""
    gateway.plan = FaultPlan.always(Gzip(Status(503, headers={"set-cookie": "seen=1"})))

    with harness.open(gr.Resilience(clock=clock), verify=False) as mounted:
        answer = mounted.post(chat_url(gateway))
        jar = dict(mounted.client.cookies)

    assert dict(answer.response.cookies) == jar == {"seen": "1"}


def test_redirects_are_followed_and_remembered(clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Every hop is a call of its own: it is retried by itself, and history holds the hops, not the attempts."""
    gateway.plan = FaultPlan.script([Redirect("/v1/models", 302)], path="/moved") + FaultPlan.script(
        [Status(503), Status(502)], path="/v1/models"
    )
    options: dict[str, Any] = {} if clients.harness.name == "requests" else {"follow_redirects": True}

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.get(gateway.url + "/moved", **options)

    assert answer.status == 200
    assert [(hop.status_code, str(hop.url)) for hop in answer.history] == [(302, gateway.url + "/moved")]
    assert [seen.path for seen in gateway.requests] == ["/moved", *["/v1/models"] * 3]
    assert len(answer.report.attempts) == 3


@pytest.mark.parametrize("failures", [0, 3], ids=["success", "failure"])
def test_an_answer_pickles(failures: int, clients: Pair, gateway: Gateway, clock: FakeClock) -> None:
    """Responses are put into caches and sent between processes; that goes on working."""
    gateway.plan = FaultPlan.script([Status(503)] * failures)

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))
        again = pickle.loads(pickle.dumps(answer.response))

    assert (again.status_code, again.content) == (answer.status, answer.content)
    assert dict(again.headers) == dict(answer.response.headers)


@pytest.mark.parametrize("harness", HARNESSES[1:], ids=repr)
def test_extensions_stay(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """What the library below says about the exchange is still there, beside the call's report."""
    gateway.plan = FaultPlan.always(Status(503))

    with harness.open(gr.Resilience(clock=clock), verify=False) as mounted:
        answer = mounted.post(chat_url(gateway))

    assert answer.response.http_version == "HTTP/1.1"
    assert answer.response.extensions["reason_phrase"] == b"Service Unavailable"
    assert "network_stream" in answer.response.extensions
    assert answer.response.is_closed
    assert answer.response.num_bytes_downloaded == len(answer.content)


def test_raw_attributes_stay(gateway: Gateway, clock: FakeClock) -> None:
    """What others read off ``response.raw`` of requests is still there."""
    gateway.plan = FaultPlan.always(Gzip(Error("model_overloaded", headers={"set-cookie": "a=1"})))

    with pair(HARNESSES[0]) as clients, clients.mounted(gr.Resilience(clock=clock)) as mounted:
        response = mounted.client.post(chat_url(gateway), json=CHAT, stream=True, timeout=5)
        raw = response.raw
        whole = raw.read(decode_content=True)

    assert (raw.status, raw.reason, raw.version) == (503, "Service Unavailable", 11)
    assert raw.headers["set-cookie"] == "a=1"
    assert b"model_overloaded" in whole
    assert raw.closed
    assert response.raw.read() == b""


def test_basic_and_digest_authentication(harness: Harness, gateway: Gateway, clock: FakeClock) -> None:
    """An authentication that takes two legs goes through us with both, and each leg is retried by itself."""
    challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
    gateway.plan = FaultPlan.script(
        [Status(503), Status(401, "empty", {"www-authenticate": challenge}), Status(503), Ok()]
    )
    brain = gr.Resilience(clock=clock)
    digest: Any = (
        harness.library.auth.HTTPDigestAuth if harness.name == "requests" else harness.library.DigestAuth
    )

    with harness.open(brain, verify=False) as mounted:
        answer = mounted.get(gateway.base_url + "/models", auth=digest("ada", "lovelace"))

    assert answer.status == 200
    assert [seen.header("authorization") is not None for seen in gateway.requests] == [
        False,
        False,
        True,
        True,
    ]
    assert brain.metrics.snapshot().total() == 2


def test_error_of_raise_for_status_leads_to_the_report(
    clients: Pair, gateway: Gateway, clock: FakeClock
) -> None:
    """Whoever catches the library's own status error can ask what was tried."""
    gateway.plan = FaultPlan.always(Status(502, "html"))

    with clients.mounted(gr.Resilience(clock=clock)) as mounted:
        answer = mounted.post(chat_url(gateway))
    error = raised(answer.response.raise_for_status)

    assert isinstance(error, clients.harness.errors.HTTPError)
    report = gr.report(error)
    assert report is not None
    assert [attempt.code for attempt in report.attempts] == ["http_502"] * 3


def reason(response: Any) -> str:
    """The reason phrase."""
    return str(response.reason_phrase if hasattr(response, "reason_phrase") else response.reason)


def unpacked(headers: dict[str, str], raw: bytes) -> bytes:
    """What *raw* says, apart from ids that differ between two answers."""
    return gzip.decompress(raw) if "gzip" in headers.get("content-encoding", "") else raw


def built(session: Session, method: str, url: str, content: Any = None) -> Any:
    """A request the client has made and not sent; a chat request, or with *content* for its body."""
    options: dict[str, Any] = {"json": CHAT} if content is None else session.content(content)
    if session.harness.name != "requests":
        return session.client.build_request(method, url, **options)
    made = session.harness.library.Request(method, url, **options)
    return session.client.prepare_request(made)


def pieces(colour: str) -> Any:
    """A body of six bytes that can be read once."""
    if colour == "sync":
        return iter([b"one", b"two"])

    async def generated() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    return generated()


def body(request: Any) -> Any:
    """The body of a request of any of the libraries."""
    return request.content if hasattr(request, "content") else request.body


def peek(session: Session, url: str) -> int:
    """The status of an answer whose body is never read."""
    if session.harness.name == "requests":
        with session.client.post(url, json=CHAT, stream=True, timeout=5) as response:
            return int(response.status_code)
    if session.harness.colour == "sync":
        with session.client.stream("POST", url, json=CHAT) as response:
            return int(response.status_code)

    async def status() -> int:
        async with session.client.stream("POST", url, json=CHAT) as response:
            return int(response.status_code)

    return int(perform(session, status))


def hooked(session: Session, seen: list[tuple[int, bytes]]) -> Any:
    """A block in which the client's response hook writes down what it sees."""

    def note(response: Any, **_: Any) -> None:
        seen.append((response.status_code, response.content))

    def read(response: Any) -> None:
        response.read()
        note(response)

    async def aread(response: Any) -> None:
        await response.aread()
        note(response)

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        client = session.client
        if session.harness.name == "requests":
            client.hooks["response"].append(note)
        else:
            client.event_hooks = {"response": [read if session.harness.colour == "sync" else aread]}
        try:
            yield
        finally:
            if session.harness.name == "requests":
                client.hooks["response"].clear()
            else:
                client.event_hooks = {}

    return block()
