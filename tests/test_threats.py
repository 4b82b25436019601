"""What a hostile or careless party can try, and what comes of it; the list is docs/threats.md."""

from __future__ import annotations

import ast
import json
import logging
import pickle
import pickletools
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gip_resilience as gr
from endpoints import CHAT as CHAT_ENDPOINT
from endpoints import RESPONSES
from facts import HOST
from gip_resilience import taxonomy
from gip_resilience._fleet_names import TAG, Names
from gip_resilience.gateway import Error, FaultPlan, Gateway, Ok, PlanError, Redirect, Status
from gip_resilience.hints import retry_hint
from gip_resilience.logs import DebugLog
from gip_resilience.memory import MemoryStore
from gip_resilience.redis import RedisStore
from gip_resilience.sse import EventSplitter, SSEDecoder
from gip_resilience.state import CircuitKey, ScopeKey
from gip_resilience.target import model_in_json
from gip_resilience.testing import FakeClock, ScriptedUpstream
from happenings import Witness
from harness import CHAT
from replays import DONE, chat, event
from splicing import identified
from streamed import Play, Script, asked_once, brain
from test_testing_upstream import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Harness

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
PACKAGE = Path(gr.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
DEMONSTRATION = {"breaks.py", "clients.py"}
"""The bare clients of ``gip-resilience demo``, at a gateway without TLS on this machine."""

# ---- a hostile server ----------------------------------------------------------------------------------------------

UNSENDABLE = [" x", "x ", "\t", "a\x01b", "a\x0bb", "a\x7fb", "\x1b[31m", "x" * 1025, "x" * 1_000_000]
SENDABLE = ["1", "a b", "é", "x" * 1024]


@pytest.mark.parametrize("id_", [*UNSENDABLE, *SENDABLE], ids=lambda id_: ascii(id_)[:16])
def test_an_event_id_is_sent_whole_or_not_at_all(harness: Harness, clock: FakeClock, id_: str) -> None:
    """What the server chose goes into a header only where it is one, of a length that servers take."""
    first = identified(chat({"content": "a"}), id_)
    second = identified(chat({"content": "b"}, "stop"), "2") + DONE
    resumable = ("x-gip-resume: last-event-id",)
    with Script(Play(first, "fin", headers=resumable), Play(second)) as server:
        outcome = asked_once(harness, brain(clock), server.url + CHAT_ENDPOINT.path, {"stream": True})
    sent = [heard.header("last-event-id") for heard in server.heard]
    assert sent == ([None, id_.encode()] if id_ in SENDABLE else [None])
    assert (outcome.error is None) == (id_ in SENDABLE)
    if outcome.error is not None:
        assert outcome.interruption.code == "stream_reset"


PLACES = ["/a\x01b", "/a\x7fb", "/" + "a" * 60_000]
RUNS = ["", ".", "..", "a\x00b", "a\r\nX-Y: z", "\ud800", "r" * 100_000]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ascii(place)[:16])
def test_a_place_that_is_no_address_is_not_gone_to(harness: Harness, clock: FakeClock, place: str) -> None:
    """Where a stream is said to go on must be an address; else it ends with an error of ours, and a report."""
    headers = (f"location: {place}", "x-gip-resume: last-event-id")
    with Script(Play(identified(chat({"content": "a"}), "1"), "fin", headers=headers)) as server:
        outcome = asked_once(harness, brain(clock), server.url + CHAT_ENDPOINT.path, {"stream": True})
    assert len(server.heard) == 1
    assert (outcome.interruption.code, outcome.report.outcome) == ("stream_reset", "failure")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: ascii(run)[:16])
def test_a_run_that_is_no_name_is_not_asked_for(harness: Harness, clock: FakeClock, run: str) -> None:
    """Its name becomes a part of an address, with the key: only one that stays a single part of it."""
    first = response(0, "response.created", run) + delta(1)
    with Script(Play(first, "fin")) as server:
        outcome = asked_once(harness, brain(clock), server.url + RESPONSES.path, {"background": True})
    assert [heard.path for heard in server.heard] == [RESPONSES.path]
    assert (outcome.interruption.code, outcome.report.outcome) == ("stream_reset", "failure")


def response(number: int, kind: str, run: str) -> bytes:
    """An event of the Responses API that holds a run kept by the server."""
    held = {"id": run, "status": "in_progress", "background": True}
    return event({"type": kind, "sequence_number": number, "response": held}, kind)


def delta(number: int) -> bytes:
    """A piece of its text."""
    kind = "response.output_text.delta"
    return event({"type": kind, "sequence_number": number, "item_id": "i", "delta": "a"}, kind)


WAITS = [
    {"retry-after": "1e9"},
    {"retry-after": "99999999999999999999"},
    {"retry-after": "-5"},
    {"retry-after": "NaN"},
    {"retry-after": "inf"},
    {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"},
    {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"retry-after": "9" * 4000},
    {"retry-after-ms": "1e300"},
    {"x-ratelimit-reset-requests": "9999999h"},
    {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1e18"},
]


@pytest.mark.parametrize("headers", WAITS, ids=lambda headers: "-".join(headers.values())[:30])
@pytest.mark.parametrize("code", ["rate_limit_exceeded", "model_overloaded"])
def test_no_server_makes_us_wait_for_ever(harness: Harness, headers: dict[str, str], code: str) -> None:
    """No call waits longer than the policy allows, and after as long again all is as before."""
    upstream = ScriptedUpstream([Error(code, headers=headers)] * 9)
    config = gr.Config()
    longest = max(config.gate.max_wait, config.policy(code, taxonomy.GIP[code].policy).max_hint)
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(config, clock=upstream.clock))
        for _ in range(2):
            with suppress(gr.RateLimitedError):
                session.post(upstream.base_url + "/chat/completions")
        upstream.plan = FaultPlan()
        upstream.clock.advance(longest + config.gate.base_delay)
        assert session.post(upstream.base_url + "/chat/completions").status == 200
    slept = upstream.clock.slept
    assert max(slept, default=0.0) <= longest + config.gate.base_delay
    assert sum(slept) <= 2 * (config.max_elapsed or 0)


def test_a_success_closes_no_gate_for_ever(harness: Harness) -> None:
    """A quota that a good answer calls used up is believed for as long as a refusal would be, and no longer."""
    used_up = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1000000s"}
    upstream = ScriptedUpstream(FaultPlan.always(Ok(headers=used_up)))
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(clock=upstream.clock))
        for _ in range(3):
            assert session.post(upstream.base_url + "/chat/completions").status == 200
    assert upstream.clock.total <= 3 * gr.Config().gate.max_wait


def test_a_server_that_asks_for_retries_gets_no_more_of_them(harness: Harness) -> None:
    """``x-should-retry: true`` is a word among others; attempts have an end."""
    upstream = ScriptedUpstream(
        FaultPlan.always(Error("model_overloaded", headers={"x-should-retry": "true"}))
    )
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, gr.Resilience(clock=upstream.clock))
        session.post(upstream.base_url + "/chat/completions")
    assert (
        len(upstream.requests)
        <= gr.Config().policy("model_overloaded", taxonomy.GIP["model_overloaded"].policy).max_attempts
    )


def test_a_redirect_takes_no_more_along_than_the_bare_client_would(harness: Harness) -> None:
    """To another origin the key in ``Authorization`` does not go, mounted or not."""
    seen: list[list[tuple[str | None, str | None]]] = []
    options = {} if harness.name == "requests" else {"follow_redirects": True}
    for resilience in (None, gr.Resilience(clock=FakeClock())):
        with Gateway() as other, Gateway(FaultPlan.always(Redirect(other.url + "/healthz", 303))) as gateway:
            with harness.open(resilience, **options) as session:
                session.post(
                    gateway.base_url + "/chat/completions",
                    headers={"authorization": "Bearer key", "x-note": "kept"},
                )
            seen.append([(one.header("authorization"), one.header("x-note")) for one in other.requests])
    assert seen[0] == seen[1] == [(None, "kept")]


# ---- a hostile answer ----------------------------------------------------------------------------------------------

HOSTILE = "evil\r\nX-Injected:1\x1b[2J\x00\u202e{0}%s\x85\u2028</script>"
"""Ends lines, steers terminals, turns text around, and would be filled in. No blank: prose is no name."""

TEXTS: dict[str, Callable[[], Error | Status]] = {
    "code": lambda: Error(HOSTILE, status=503),
    "type": lambda: Error("model_overloaded", type=HOSTILE),
    "message": lambda: Error("model_overloaded", message=HOSTILE),
    "page": lambda: Status(503, body=HOSTILE.encode()),
}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


class Lines(logging.Handler):
    """Keeps what is written, with all its fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.written.append(record.getMessage())
        self.written += [str(value) for name, value in vars(record).items() if name.startswith("gip_")]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """All lines of ours."""
    logger = logging.getLogger("gip_resilience")
    level, handler = logger.level, Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.parametrize("where", [*TEXTS, "model"])
def test_no_answer_writes_into_our_lines(harness: Harness, lines: Lines, where: str) -> None:
    """Log lines, events, reports, names of counters and notes on errors are of one line, and steer no terminal."""
    reply: Any = TEXTS[where]() if where in TEXTS else Error("model_overloaded")
    model = HOSTILE if where == "model" else CHAT["model"]
    upstream = ScriptedUpstream(FaultPlan.always(reply))
    witness = Witness()
    resilience = gr.Resilience(clock=upstream.clock, observers=[witness, DebugLog()])
    with harness.open() as session:
        connect(session, upstream)
        gr.mount(session.client, resilience)
        answer = session.post(upstream.base_url + "/chat/completions", json=CHAT | {"model": model})
        said = [*lines.written, str(answer.report), repr(answer.report), repr(resilience)]
        said += [json.dumps(resilience.metrics.snapshot().as_dict(), ensure_ascii=False)]
        said += [repr(event) for event in witness.events]
    assert lines.written
    found = [text for text in said if CONTROL.search(text) or "\nX-Injected" in text]
    assert found == []


GROWING: dict[str, tuple[Callable[[int], Any], Callable[[Any], object], int]] = {
    "json-nested": (lambda n: b'{"error":' * n, lambda b: gr.classify(500, {}, b), 20_000),
    "json-lists": (lambda n: b"[" * n, lambda b: gr.classify(500, {}, b), 100_000),
    "json-cut-off": (lambda n: b'{"error":{"x":"' + b"\\\\" * n, lambda b: gr.classify(500, {}, b), 50_000),
    "json-strings": (lambda n: b'{"error":{' + b'"code' * n, lambda b: gr.classify(500, {}, b), 20_000),
    "html": (lambda n: b"<html>" + b"<a " * n, lambda b: gr.classify(502, {}, b), 50_000),
    "event-lines": (
        lambda n: b"data: x\n" * n + b"\n",
        lambda b: SSEDecoder(max_event=1 << 30).feed(b),
        5_000,
    ),
    "event-comments": (lambda n: b":\n" * n, lambda b: SSEDecoder(max_event=1 << 30).feed(b), 20_000),
    "event-one-line": (
        lambda n: b"data: " + b"x" * n,
        lambda b: EventSplitter(max_event=1 << 30).feed(b),
        2_000_000,
    ),
    "event-returns": (lambda n: b"\r" * n, lambda b: SSEDecoder(max_event=1 << 30).feed(b), 20_000),
    "hint-prose": (
        lambda n: {"error": {"message": "try again in " * n}},
        lambda t: retry_hint(429, {}, t, 0.0),
        2_000,
    ),
    "hint-digits": (
        lambda n: "9" * n + "x",
        lambda t: retry_hint(429, {"retry-after": t}, b"", 0.0),
        200_000,
    ),
    "hint-durations": (
        lambda n: "1h1m" * n,
        lambda t: retry_hint(429, {"x-ratelimit-reset-tokens": t}, b"", 0.0),
        50_000,
    ),
    "hint-lists": (
        lambda n: '"a";r=0;t=1,' * n,
        lambda t: retry_hint(429, {"ratelimit": t}, b"", 0.0),
        5_000,
    ),
    "model-blanks": (lambda n: b"{" + b" " * n, model_in_json, 2_000_000),
    "model-escapes": (lambda n: b'{"model":"' + b"\\u0041" * n, model_in_json, 200_000),
}
"""Texts made to make a parser slow: how to make them, what reads them, and how much of it takes a moment."""

MORE, SLACK = 32, 2.0
"""A text so many times as long may take this many times its share.

Seconds of the processor and not a count of instructions: the parsers are C for the most part, and what counts their
instructions (`make bench-check`) takes minutes. A long text costs a sixth more per byte than a short one, since it
does not fit the caches; a busy machine adds some. A cost of which 4 % grows with the square fails.
"""


def cost(read: Callable[[Any], object], text: Any) -> float:
    """Processor seconds of one reading, at best of several; of many where one is too short for the clock."""
    times, best = 1, float("inf")
    for _ in range(6):
        began = time.process_time()
        for _ in range(times):
            read(text)
        one = (time.process_time() - began) / times
        best, times = min(best, one), max(1, min(1000, round(0.002 / max(one, 1e-6))))
    return best


@pytest.mark.parametrize("kind", GROWING)
def test_no_text_costs_more_than_its_length(kind: str) -> None:
    """Thirty-two times as much takes thirty-two times as long, and not a thousand times."""
    make, read, size = GROWING[kind]
    short, long = make(size // 4), make(size // 4 * MORE)
    seen = []
    while len(seen) < 3 and not any(growth < SLACK * MORE for growth in seen):
        seen.append(cost(read, long) / cost(read, short))
    assert min(seen) < SLACK * MORE, seen


def test_a_cost_that_grows_with_the_square_is_seen() -> None:
    """One that looks at all that came before, once for every four hundred bytes."""

    def look(text: bytes) -> int:
        return sum(text.rfind(b"x", 0, at) for at in range(0, len(text), 400))

    assert cost(look, b" " * 4_000 * MORE) / cost(look, b" " * 4_000) > SLACK * MORE


# ---- a hostile configuration ---------------------------------------------------------------------------------------

FILES = {
    "nested": "x = " + "[" * 5_000 + "]" * 5_000,
    "dotted": "a." * 5_000 + "b = 1",
    "huge-number": "deadline = " + "9" * 5_000,
    "not-a-number": "deadline = nan",
    "endless": "deadline = inf\n[policies.model_overloaded]\nbase_delay = inf",
    "unknown": 'exec = "import os"',
    "control": 'dialect = "\\u001b[2J"',
    "many": "\n".join(f"[policies.code_{number}]\nmax_attempts = 2" for number in range(2_000)),
    "many-attempts": "[policies.model_overloaded]\nmax_attempts = 1000000000",
}


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_is_accepted_or_refused_and_never_run(name: str, tmp_path: Path) -> None:
    """Whatever stands in it: a typed error that fits a line, or a configuration, in a moment."""
    path = tmp_path / "hostile.toml"
    path.write_text(FILES[name])
    began = time.process_time()
    said = ""
    try:
        gr.Config.load(path)
    except gr.ConfigError as error:
        said = str(error)
    assert len(said) < 600
    assert not CONTROL.search(said)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", ["x = " + "[" * 5_000, 'rules = [{reply = {kind = "exec"}}]', "rules = 7"])
def test_a_plan_is_refused_with_its_place(text: str) -> None:
    """The gateway's plans are read as carefully."""
    with pytest.raises(PlanError):
        FaultPlan.from_toml(text)


# ---- a hostile neighbour on the store ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [HOSTILE, "}{", "a}:b{c", "*", "x" * 1_000_000, "\ud800"], ids=lambda m: ascii(m)[:12]
)
def test_a_name_makes_no_key_of_its_own(model: str) -> None:
    """Hosts, models and credentials get into the names of the store's keys as digests alone."""
    names = Names("shop", b"secret")
    key = ScopeKey(HOST, "credential", model)
    for tag in (names.circuit(CircuitKey(HOST, model)), names.gate(key), names.budget(key)):
        assert TAG.fullmatch(tag)
        assert names.key(tag, "gate") == f"gip-resilience:1:shop:{{{tag}}}:gate"


# ---- a careless user -----------------------------------------------------------------------------------------------


def test_a_pickle_with_a_store_holds_its_password_and_no_key_of_a_caller() -> None:
    """Another process must be able to connect; what this one has learned, and whose keys it saw, stays here."""
    url = "redis://shop:hunter2@127.0.0.1:1/0"
    store = RedisStore(url, namespace="shop", secret="the fleet's own")
    brain = gr.Resilience(store=store)
    scope = ScopeKey(HOST, store.digest(b"sk-callers-key"), "some/model")
    MemoryStore.acquire(store, scope, brain.config, 0.0, first=True)  # as a call does; no thread is started
    pickled = pickle.dumps(brain)
    texts = [argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)]

    assert {text for text in texts if "hunter2" in text} == {url}
    assert "the fleet's own" in texts
    for word in (scope.credential, "sk-callers-key", scope.model, HOST):
        assert word.encode() not in pickled
    assert "hunter2" not in repr(brain) + repr(store) + str(store)
    assert b"hunter2" not in pickle.dumps(gr.Resilience(brain.config))


def test_the_gateway_listens_on_this_machine_alone() -> None:
    """At one address of the loopback: not at the next one, where all addresses would be, nor by IPv6."""
    with Gateway() as gateway:
        port = int(gateway.url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), 5.0).close()
        for other in ("127.0.0.2", "::1"):
            with pytest.raises(OSError):  # refused, or no such address: each system has its own
                socket.create_connection((other, port), 5.0)


# ---- the code itself -----------------------------------------------------------------------------------------------

UNSAFE_MODULES = {"pickle", "_pickle", "marshal", "shelve", "dill", "yaml", "xml", "ctypes"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}
UNSAFE_NAMES = {"_create_unverified_context", "CERT_NONE", "create_subprocess_shell"}


def unsafe(source: str) -> list[str]:
    """What runs, or brings to life, what somebody wrote."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNSAFE_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            function = node.func
            bare = isinstance(function, ast.Name) or (
                isinstance(function, ast.Attribute)
                and getattr(function.value, "id", "") in {"os", "builtins"}
            )
            name = getattr(function, "id", None) or getattr(function, "attr", "")
            if bare and name in UNSAFE_CALLS:
                found.append(name)
            found += [
                "shell" for word in node.keywords if word.arg == "shell" and getattr(word.value, "value", 1)
            ]
            found += [
                "verify"
                for word in node.keywords
                if word.arg == "verify" and not getattr(word.value, "value", 1)
            ]
        elif isinstance(node, ast.Assign):
            targets = {getattr(target, "attr", "") for target in node.targets}
            if "check_hostname" in targets and not getattr(node.value, "value", 1):
                found.append("check_hostname")
        if getattr(node, "attr", getattr(node, "id", "")) in UNSAFE_NAMES:
            found.append("unsafe name")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_nothing_is_brought_to_life(path: Path) -> None:
    """No unpickling, no evaluation, no shell, no certificate left unchecked."""
    allowed = {"__import__", "verify"} if path.name in DEMONSTRATION else set()
    assert set(unsafe(path.read_text(encoding="utf-8"))) - allowed == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "import os; os.system('x')",
        "f(verify=False)",
        "f(shell=s)",
        "f(shell=True)",
        "f(shell=1)",
        "f(verify=0)",
        "import _pickle",
        "import ssl; ssl._create_unverified_context()",
        "context.check_hostname = False",
        "asyncio.create_subprocess_shell('x')",
    ],
)
def test_the_search_for_it_can_fail(source: str) -> None:
    """Each of them is seen."""
    assert unsafe(source)


def test_mounting_weakens_no_certificate(harness: Harness) -> None:
    """The client's own transport does the work, with what it was given: verification, certificates, proxies."""
    with harness.open() as session:
        if harness.name == "requests":
            session.client.verify, session.client.cert = "own-ca.pem", "own-cert.pem"
            inner = session.client.get_adapter("https://x/")
            gr.mount(session.client)
            assert session.client.get_adapter("https://x/").inner is inner
            assert (session.client.verify, session.client.cert) == ("own-ca.pem", "own-cert.pem")
            assert session.client.trust_env
            return
        inner = session.client._transport
        gr.mount(session.client)
        assert session.client._transport.inner is inner


# ---- the page ------------------------------------------------------------------------------------------------------


def named() -> set[tuple[str, str]]:
    """The tests that the page names: file and function."""
    return set(re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE))


def test_every_test_the_page_names_is_there() -> None:
    """A threat whose test is gone is not answered any more."""
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named())
        if not (ROOT / file).exists() or f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_test_here_is_on_the_page() -> None:
    """What is tried here is told there."""
    files = sorted(Path(__file__).parent.glob("test_threats*.py"))
    here = {
        (f"tests/{path.name}", name)
        for path in files
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    about_the_page = {
        "test_every_test_the_page_names_is_there",
        "test_every_test_here_is_on_the_page",
        "test_every_threat_has_an_answer",
        "test_the_search_for_it_can_fail",
        "test_a_cost_that_grows_with_the_square_is_seen",
    }
    told = {(file, name) for file, name in named() if file.startswith("tests/test_threats")}
    assert {(file, name) for file, name in here if name not in about_the_page} == told


def test_every_threat_has_an_answer() -> None:
    """Each line of the tables says what is done, and by which test that is seen."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert len(rows) > 30
    assert [row for row in rows if "tests/" not in row] == []
    # A matrix of thousands of cells shows no threat by itself: a row names the test that is about it as well.
    assert [
        row for row in rows if "tests/" not in row.replace("`tests/test_faults.py::test_a_cell`", "")
    ] == []
