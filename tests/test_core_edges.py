"""The deciding modules where they are rarely entered: odd input, second calls, answers that come too late."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from typing import Any, NamedTuple

import pytest

import gip_resilience as gr
from facts import HOST, MODEL, OK
from gip_resilience import cli
from gip_resilience._config_fields import Switch, Text, Texts
from gip_resilience._fleet_breaker import FIRST_LOOK
from gip_resilience._fleet_words import CircuitState
from gip_resilience._otel_metrics import Series
from gip_resilience._otel_words import OURS, PORT, _flatten, about
from gip_resilience._recording import Tape
from gip_resilience._refusals import refusal_answer
from gip_resilience._replay_past import Past
from gip_resilience._replay_readers import read_chunk
from gip_resilience._shapes import find_error, is_broken_json
from gip_resilience.above import Layer
from gip_resilience.breaker import Breaker
from gip_resilience.config import BreakerConfig, Config, ConfigError
from gip_resilience.drive import uncovered
from gip_resilience.effects import Refuse
from gip_resilience.events import CallStarted
from gip_resilience.taxonomy import classify
from gip_resilience.testing import FakeClock
from test_fleet import CIRCUIT, FLEET_BUDGET, KEY, NOW, VERSION, Scene

FIELDS: list[tuple[Any, object]] = [
    (Text(), ""),
    (Text(), 7),
    (Texts(), [""]),
    (Texts(), 7),
    (Switch(), "yes"),
    (Switch(), 1),
]


@pytest.mark.parametrize(("kind", "value"), FIELDS, ids=[f"{type(k).__name__}-{v!r}" for k, v in FIELDS])
def test_a_field_says_what_it_expects(kind: Any, value: object) -> None:
    """The path, what is expected, and what was given."""
    with pytest.raises(ConfigError, match=f"some.path: expected {kind.expected}"):
        kind.accept(value, "some.path")


def test_a_number_has_an_end() -> None:
    """No whole number is longer than the machine's, or a configuration could not even be printed."""
    assert Config.from_dict({"body": {"replay_limit": 2**63 - 1}}).body.replay_limit == 2**63 - 1
    for number in (2**63, 10**5000):
        with pytest.raises(ConfigError, match=r"body.replay_limit: expected int >= 0 and < 2\*\*63"):
            Config.from_dict({"body": {"replay_limit": number}})


def test_texts_are_read_from_the_environment() -> None:
    """One text is itself; several are separated by commas."""
    assert Text().parse(" a, b ") == " a, b "
    assert Texts().parse("a, b") == ["a", "b"]
    assert Texts().parse(" ") == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview], ids=lambda kind: kind.__name__)
def test_any_kind_of_bytes_is_read(kind: Any) -> None:
    """A body may come from a buffer of the caller's own."""
    assert classify(503, {}, kind(b'{"error": {"code": "model_overloaded"}}')).code == "model_overloaded"


def test_headers_that_are_no_text_are_passed_over() -> None:
    """What is not text is nobody's hint."""
    pairs: Any = [(b"retry-after", b"7"), ("retry-after", 7), ("Retry-After", "3")]
    hint = classify(503, pairs, b"").hint
    assert hint is not None
    assert hint.seconds == 3.0


def test_a_number_without_end_is_a_whole_answer() -> None:
    """A JSON number that is too long for an int breaks nothing off."""
    assert not is_broken_json(b'{"n": ' + b"9" * 10_000 + b"}")


def test_an_error_that_is_nested_too_deep() -> None:
    """Nobody nests errors like that, and nobody looks for them there."""
    body: Any = {"code": "model_overloaded"}
    for _ in range(20):
        body = {"error": body}
    found = find_error(body, failed=True)
    assert found is None or found.code != "model_overloaded"


@pytest.mark.parametrize(
    "text",
    [
        b'event: error\ndata: {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "bro\n\n',
        b'event: error\ndata: {"object": "chat", "error_code": "REQUEST_LIMIT_EXCEEDED", "mess\n\n',
    ],
    ids=["broken-off", "with-an-object"],
)
def test_names_are_read_out_of_what_breaks_off(text: bytes) -> None:
    """The names of an error stand at its beginning, so half of it may be enough."""
    found = find_error(text, failed=False, in_stream=True)
    assert found is not None
    assert found.error["details"] == {"error_code": "REQUEST_LIMIT_EXCEEDED"}


def test_a_circuit_of_ones_own_asks_nobody() -> None:
    """Only the circuits of a fleet have an answer to wait for."""
    assert Breaker(BreakerConfig(), 0.0).answer_due(5.0) == 0.0


def test_an_error_that_was_never_raised_is_left_as_it_is() -> None:
    """There is no traceback to tidy."""
    error = ValueError("never raised")
    uncovered(error)
    assert error.__traceback__ is None


def test_a_success_is_reported_once() -> None:
    """A call that has given its permit back has nothing more to tell."""
    brain = gr.Resilience(clock=FakeClock())
    call = brain.call(HOST, "c", MODEL)
    assert call.admit()
    call.succeed(OK)
    call._report(OK, 1.0)
    call.close()
    assert brain.breakers[HOST, MODEL].calls == 1


def test_leaving_an_attempt_twice() -> None:
    """The mark of a layer is taken away once."""
    layer = Layer(object(), "POST", "http://host/")
    with layer:
        assert layer.sending
    layer.__exit__(None, None, None)
    assert not layer.sending


def test_a_refusal_without_a_moment_to_come_back() -> None:
    """It has no ``Retry-After``, and says nothing of trying again."""
    _, headers, body = refusal_answer(Refuse("circuit_open", HOST, MODEL, None, respond=True))
    assert "retry-after" not in dict(headers)
    assert b"try again" not in body


def test_a_tape_that_overflowed_keeps_nothing_more() -> None:
    """Past its limit a recording is given up for good, even for a piece that would fit."""
    tape = Tape(4)
    for piece in (b"12345", b"", b"6"):
        tape.add(piece)
    assert tape.overflowed
    assert tape.content() is None


def test_a_gate_that_is_watched_and_open_tells_nothing() -> None:
    """Where nobody would have waited there is no shadow to count."""
    brain = gr.Resilience(Config.from_dict({"gate": {"mode": "metrics_only"}}), clock=FakeClock())
    call = brain.call(HOST, "c", MODEL)
    assert call.admit()
    call.succeed(OK)
    call.close()
    assert not brain.metrics.snapshot().shadowed


def test_a_report_of_another_kind_is_none() -> None:
    """Something that has a configuration and a report need not be one of our calls."""

    class Theirs:
        config = 1

        def report(self) -> str:
            return "theirs"

    class Answer:
        extensions = {"gip_resilience": Theirs()}  # noqa: RUF012 - as httpx has them

    assert gr.report(Answer()) is None


class View(NamedTuple):
    """Something named."""

    left: float


def test_attributes_of_spans_are_flat() -> None:
    """A tuple becomes a text, a named one several attributes, and nothing becomes none."""
    into: dict[str, Any] = {}
    for name, value in {"a": ("x", 1), "b": View(2.0), "c": None, "d": True}.items():
        _flatten(name, value, into)
    assert into == {"a": "x,1", "b.left": 2.0, "d": True}


def test_a_call_whose_port_nobody_knows() -> None:
    """A scheme of somebody's own has no port; a part of a model is told in our own words."""
    started = CallStarted(1, HOST, MODEL, part="east", method="POST", url="own://host/v1/chat/completions")
    known = about(started)
    assert PORT not in known.call
    assert known.span[OURS + "part"] == "east"


def test_what_is_known_of_no_dialect() -> None:
    """An exception's name that says nothing is passed over for the next."""
    body = b'{"__type": "com.amazon#", "message": "x"}'
    assert classify(400, {"x-amzn-errortype": "ThrottlingException:http://x"}, body).code
    assert classify(400, {"x-amzn-requestid": "1"}, body).status == 400


def test_an_error_with_a_failed_generation_is_groqs() -> None:
    """The field is theirs alone."""
    body = b'{"error": {"message": "m", "type": "invalid_request_error", "failed_generation": "x"}}'
    assert classify(400, {}, body).dialect == "groq"


# ---- one of a fleet ------------------------------------------------------------------------------------------------


def broken(scene: Scene) -> Any:
    """Its circuit, which has been opened."""
    scene.run(gr.classify(502, {}, b'{"error": {"code": "model_unavailable"}}'))
    return scene.store._circuits[CIRCUIT]


def state(**changes: Any) -> CircuitState:
    """What the store answers."""
    usual = CircuitState(open=True, version=VERSION, left=0.0, kind="trip", granted=-1, wait=0.0)
    return usual._replace(**changes)


def test_nobody_waits_for_an_answer_that_was_not_asked_for() -> None:
    """The first look at it comes soon."""
    assert broken(Scene()).answer_due(NOW) == FIRST_LOOK


def test_a_lease_that_comes_too_late_is_let_go_once() -> None:
    """A probe that was granted after it was given up is given back, unless it is already under way."""
    scene = Scene()
    breaker = broken(scene)
    scene.heard_of()
    breaker.answered(state(granted=1, wait=5.0), NOW, "probe")
    assert [question.script for question in scene.heard_of()] in (["release"], [])


def test_a_record_that_was_set_back_is_believed_next_time() -> None:
    """A store that lost its memory counts from anew; the answer after that is taken at its word."""
    scene = Scene()
    breaker = broken(scene)
    breaker.version, breaker._seen_at = VERSION + 10, NOW
    breaker.answered(state(version=VERSION), NOW, "probe")
    assert breaker.version == 0


def test_a_record_as_it_was_and_open() -> None:
    """What is left of the open time is the later of both."""
    scene = Scene()
    breaker = broken(scene)
    breaker.version = VERSION
    later = NOW + 3.0
    breaker.answered(state(left=5.0), later, "probe")
    assert breaker.retry_after(later) == pytest.approx(5.0)


def test_a_budget_nobody_used_brings_nothing() -> None:
    """Successes are counted for the fleet once somebody has asked for a retry."""
    scene = Scene(FLEET_BUDGET)
    scene.run(OK, 3)
    scene.store.withdraw(KEY, FLEET_BUDGET, 1.0, NOW)
    assert scene.last("budget").args[3] == 0


# ---- what listens --------------------------------------------------------------------------------------------------


def test_without_metrics_nothing_waits_to_be_recorded() -> None:
    """Flushing is for those who measure."""
    from opentelemetry.sdk.trace import TracerProvider

    from gip_resilience.otel import OpenTelemetry

    observer = OpenTelemetry(tracer_provider=TracerProvider(), metrics=False)
    observer.flush()
    assert repr(observer) == "OpenTelemetry(traces=True, metrics=False)"


def test_an_observer_of_many_processes_reads_well(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit for a bug report; and a brain that is gone is not told of new limits."""
    script = (
        f"import os, gc; os.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(tmp_path)!r}\n"
        "import gip_resilience as gr\n"
        "from gip_resilience.prometheus import MultiProcessObserver\n"
        "observer = MultiProcessObserver()\n"
        "gone = gr.Resilience(observers=[observer])\n"
        "kept = gr.Resilience(observers=[observer])\n"
        "del gone; gc.collect()\n"
        "kept.reload(gr.Config.from_dict({'observe': {'max_models': 7}}))\n"
        "print(repr(observer))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == "MultiProcessObserver()"


def test_only_what_was_proposed_is_agreed_to() -> None:
    """Agreeing to nothing counts no break."""
    call = gr.Resilience(clock=FakeClock()).call(HOST, "c", MODEL)
    call.agree()
    assert call.report().hops == ()
    call.close()


def test_looking_for_a_change_where_nothing_is_watched() -> None:
    """A configuration that came from no file does not change by itself."""
    brain = gr.Resilience()
    before = brain.config
    brain.check_config()
    assert brain.config is before


def test_an_empty_type_beside_a_detail() -> None:
    """A detail says by itself what happened."""
    assert classify(429, {}, b'{"error": {"type": "", "details": {"error_code": "x"}}}').status == 429


# ---- commands ------------------------------------------------------------------------------------------------------


def test_a_run_that_came_to_nothing_says_why() -> None:
    """The demonstration ends with the reason, and without a traceback."""
    from types import SimpleNamespace

    from gip_resilience.cli import CommandError, demo

    run: Any = SimpleNamespace(score=None, problem=OSError("no port"), client=SimpleNamespace(name="httpx"))
    with pytest.raises(CommandError, match=r"httpx came to nothing: OSError\('no port'\)"):
        demo._score(run)


def test_a_window_is_seconds() -> None:
    """What was said, as a number."""
    from gip_resilience.cli import parser

    assert parser().parse_args(["gateway", "--limit-window", "2.5"]).limit_window == 2.5


class Raced(deque[Any]):
    """What another thread empties between the look and the grasp."""

    def popleft(self) -> Any:
        self.clear()
        return super().popleft()


def test_a_dropped_stream_is_ended_by_whoever_is_quicker() -> None:
    """Two threads may see the same note; the one that comes too late does nothing."""
    brain = gr.Resilience(clock=FakeClock())
    brain._dropped = Raced([object()])
    brain._sweep()
    assert not brain._dropped


def test_a_duration_is_recorded_by_whoever_is_quicker() -> None:
    """Two threads may empty the same series; the one that comes too late records nothing."""
    recorded: list[float] = []

    class Histogram:
        def record(self, seconds: float, *_: object) -> None:
            recorded.append(seconds)

    series = Series(Any, Histogram(), {})  # type: ignore[arg-type]  # only the histogram is used
    series.aside.extend([1.0, 2.0])
    series.record(1)
    assert recorded == [1.0]
    series.aside = Raced([2.0])
    series.record(1)
    assert recorded == [1.0]


def test_the_fleet_needs_redis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without redis-py the command names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "redis", None)
    assert cli.main(["fleet", "status", "--url", "redis://127.0.0.1:1"]) != 0
    assert "pip install gip-resilience[redis]" in capsys.readouterr().err


def test_an_empty_field_of_a_delta_is_no_news() -> None:
    """Many servers spell out every field: an empty role opens nothing, an empty unknown one hinders nothing."""
    past = Past()
    read_chunk(past, {"choices": [{"index": 0, "delta": {"role": "", "audio": None, "other": None}}]}, b"")
    assert (past.opened, past.obstacle) == (False, Past().obstacle)
    read_chunk(past, {"choices": [{"index": 0, "delta": {"role": "assistant", "audio": {"id": "a"}}}]}, b"")
    assert past.opened
    assert past.obstacle == "audio was delivered"
