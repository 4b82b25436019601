"""What goes to another origin: never more than the bare client would send; the list is docs/threats.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import gip_resilience as gr
from endpoints import CHAT, RESPONSES
from gip_resilience.testing import FakeClock
from replays import DONE, chat
from splicing import identified
from streamed import Play, Script, ask, brain
from test_threats import delta, response

if TYPE_CHECKING:
    from harness import Harness
    from streamed import Heard

SECRETS = {
    "authorization": "Bearer planted-key",
    "x-api-key": "planted-api-key",
    "api-key": "planted-azure-key",
    "x-goog-api-key": "planted-google-key",
    "cookie": "session=planted-cookie",
    "proxy-authorization": "Basic planted-proxy",
}
FOLLOWS = {"x-api-key", "api-key", "x-goog-api-key"}
"""What no library takes for a key."""
JSON = "application/json"
BROKEN = Play(b"{}", status=503, content_type=JSON)
GOOD = Play(b"{}", content_type=JSON)


def lines(heard: Heard) -> set[str]:
    """The head of a request, but for the name of the server it went to."""
    head = heard.head.decode("latin-1").split("\r\n")
    return {line for line in head[1:] if line and not line.lower().startswith("host:")}


@pytest.mark.parametrize("status", [303, 307])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"], ids=["another port", "another host"])
@pytest.mark.parametrize("how", ["headers", "userinfo"])
def test_no_hop_takes_more_along_than_the_bare_clients(
    harness: Harness, clock: FakeClock, status: int, name: str, how: str
) -> None:
    """Keys, cookies (sent, kept, set by the redirect itself), user and password: the same heads, on every try."""
    bare, mounted = (followed(harness, resilience, status, name, how) for resilience in (None, brain(clock)))

    assert [len(heard) for heard in bare] == [1, 1]
    assert [len(heard) for heard in mounted] == [2, 2]
    for without, with_us in zip(bare, mounted, strict=True):
        assert [lines(heard) for heard in with_us] == [lines(without[0])] * 2
    here, there = mounted[0][0], mounted[1][0]
    assert here.header("authorization")
    assert there.header("authorization") is None
    assert {key for key in FOLLOWS if there.header(key)} == (FOLLOWS if how == "headers" else set())


def followed(
    harness: Harness, resilience: gr.Resilience | None, status: int, name: str, how: str
) -> tuple[list[Heard], list[Heard]]:
    """What the first server and the other one hear; each fails once where somebody tries again."""
    first = [BROKEN] if resilience is not None else []
    options = {} if harness.name == "requests" else {"follow_redirects": True}
    with Script(*first, GOOD) as other:
        place = other.url.replace("127.0.0.1", name)
        there = Play(
            status=status,
            headers=(f"location: {place}/there", "set-cookie: planted=1; Path=/"),
            content_type=JSON,
        )
        with Script(*first, there) as server, harness.open(resilience, **options) as session:
            session.client.cookies.set("kept", "planted-in-jar", domain="127.0.0.1")
            url = server.url + "/v1/models"
            if how == "userinfo":
                session.get(url.replace("http://", "http://user:planted-password@"))
            else:
                session.get(url, headers=SECRETS)
            return server.heard, other.heard


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("by", ["last-event-id", "starting_after"])
def test_a_stream_is_not_taken_up_where_a_redirect_leads(
    harness: Harness, clock: FakeClock, status: int, by: str
) -> None:
    """The request that takes it up carries the key: it goes to the origin of the first, and no further."""
    if by == "last-event-id":
        path, body = CHAT.path, {"stream": True}
        first = Play(identified(chat({"content": "a"}), "1"), "fin", headers=("x-gip-resume: last-event-id",))
    else:
        path, body = RESPONSES.path, {"stream": True, "background": True}
        first = Play(response(0, "response.created", "resp_1") + delta(1), "fin")
    whole = Play(identified(chat({"content": "b"}, "stop"), "2") + DONE)
    options = {} if harness.name == "requests" else {"follow_redirects": True}
    with Script(*[whole] * 9) as other:
        away = Play(status=status, headers=(f"location: {other.url}/there",), content_type=None)
        with Script(first, *[away] * 9) as server:
            with harness.open(brain(clock), **options) as session:
                outcome = ask(session, server.url + path, body, headers=SECRETS)
            again = server.heard[1:]
        assert other.heard == []

    assert again
    assert {heard.header("authorization") for heard in again} == {SECRETS["authorization"].encode()}
    assert isinstance(outcome.error, gr.StreamInterruptedError)


def test_a_stream_behind_a_redirect_is_taken_up_with_what_went_there(
    harness: Harness, clock: FakeClock
) -> None:
    """At the origin that it comes from, without the key that the client left behind."""
    first = Play(identified(chat({"content": "a"}), "1"), "fin", headers=("x-gip-resume: last-event-id",))
    rest = Play(identified(chat({"content": "b"}, "stop"), "2") + DONE)
    options = {} if harness.name == "requests" else {"follow_redirects": True}
    with Script(first, rest) as other:
        away = Play(status=307, headers=(f"location: {other.url}{CHAT.path}",), content_type=None)
        with Script(away) as server, harness.open(brain(clock), **options) as session:
            outcome = ask(session, server.url + CHAT.path, {"stream": True}, headers=SECRETS)
            assert len(server.heard) == 1
        one, two = other.heard

    assert outcome.content == first.body + rest.body
    assert two.header("last-event-id") == b"1"
    assert one.header("authorization") is two.header("authorization") is None
    assert {key for key in SECRETS if two.header(key)} <= {key for key in SECRETS if one.header(key)}
