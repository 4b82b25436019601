"""The groups of settings that a `gip_resilience.config.Config` is made of: frozen values, correct once they exist.

Pure: nothing here waits, reads a clock or draws a random number.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations
from typing import ClassVar, Literal

from gip_resilience import defaults
from gip_resilience._config_fields import (
    Choice,
    Integer,
    Kind,
    Number,
    Settings,
    Switch,
    Texts,
)
from gip_resilience.policy import COUNT, SECONDS

POSITIVE = Number(above=0)
LIMIT = Number(above=0, optional=True)
SHARE = Number(at_least=0, at_most=1)
SIZE = Integer(at_least=0)


class BreakerConfig(Settings, frozen=True, kw_only=True):
    """When a circuit opens, and for how long.

    Attributes:
        window: seconds of the sliding window.
        buckets: parts the window slides by.
        ratio: failed share of the window's calls that opens the circuit.
        min_calls: calls the window must hold before the share counts.
        consecutive: failures in a row that open the circuit while the window holds fewer than ``min_calls``.
        slow_call: seconds from which a call counts as slow, measured to the end of an answer that is read under
            the retry and to the beginning of any other; ``None`` for never.
        slow_ratio: slow share of the window's calls that opens the circuit, where there are ``min_calls``. A probe
            that is slow has failed.
        open_time: seconds the circuit stays open.
        open_jitter: part of the open time by which it varies, up or down.
        growth: factor on the open time for every probe that failed since the circuit was last closed.
        max_open: seconds up to which growth and a server's hint may lengthen the open time.
        success_threshold: probes that must succeed in a row to close it; one is under way at a time.
        probe_lease: seconds after which a probe that has not reported no longer keeps the next one away;
            ``None`` for the longest open time, jitter included.
        mode: ``"metrics_only"`` counts and never refuses; ``"off"`` does not even count.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "window": POSITIVE,
        "buckets": COUNT,
        "ratio": Number(above=0, at_most=1),
        "min_calls": COUNT,
        "consecutive": COUNT,
        "slow_call": LIMIT,
        "slow_ratio": Number(above=0, at_most=1),
        "open_time": POSITIVE,
        "open_jitter": SHARE,
        "growth": Number(at_least=1),
        "max_open": SECONDS,
        "success_threshold": COUNT,
        "probe_lease": LIMIT,
        "mode": Choice("on", "metrics_only", "off"),
    }
    location: ClassVar[str] = "breaker"

    window: float = defaults.BREAKER_WINDOW
    buckets: int = defaults.BREAKER_BUCKETS
    ratio: float = defaults.BREAKER_RATIO
    min_calls: int = defaults.BREAKER_MIN_CALLS
    consecutive: int = defaults.BREAKER_CONSECUTIVE
    slow_call: float | None = defaults.BREAKER_SLOW_CALL
    slow_ratio: float = defaults.BREAKER_SLOW_RATIO
    open_time: float = defaults.BREAKER_OPEN_TIME
    open_jitter: float = defaults.BREAKER_OPEN_JITTER
    growth: float = defaults.BREAKER_GROWTH
    max_open: float = defaults.BREAKER_MAX_OPEN
    success_threshold: int = defaults.BREAKER_SUCCESS_THRESHOLD
    probe_lease: float | None = defaults.BREAKER_PROBE_LEASE
    mode: Literal["on", "metrics_only", "off"] = "on"


class GateConfig(Settings, frozen=True, kw_only=True):
    """How callers wait together for a rate limit to reset.

    Attributes:
        spread: callers are released over this multiple of the wait, so that they do not arrive at once.
        max_wait: seconds; a hint beyond it does not close the gate for longer.
        base_delay: seconds the gate closes when the server gives no hint; doubles while it goes on.
        max_delay: seconds the doubling stops at.
        max_waiters: callers that may wait at one gate; further ones are refused at once.
        exhausted: what an answer does that succeeded and says that a quota is used up (``remaining: 0``).
            ``"certain"`` closes the gate for as long as the next request is certain to be refused: until the reset
            of a window, or until a bucket that refills all the time holds one unit (`gip_resilience.hints.used_up`).
            ``"reset"`` takes every reset for that of a window; ``"off"`` waits for the 429.
        scope: whether a limit is shared by the calls of a model, or by all calls of a credential.
        mode: ``"off"`` lets every call wait for itself; ``"metrics_only"`` does too, and counts what the gate
            would have held.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or ``max_delay`` is below ``base_delay``.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "spread": SECONDS,
        "max_wait": SECONDS,
        "base_delay": SECONDS,
        "max_delay": SECONDS,
        "max_waiters": COUNT,
        "exhausted": Choice("certain", "reset", "off"),
        "scope": Choice("model", "credential"),
        "mode": Choice("on", "metrics_only", "off"),
    }
    location: ClassVar[str] = "gate"
    ordered: ClassVar[tuple[tuple[str, str], ...]] = (("base_delay", "max_delay"),)

    spread: float = defaults.GATE_SPREAD
    max_wait: float = defaults.GATE_MAX_WAIT
    base_delay: float = defaults.GATE_BASE_DELAY
    max_delay: float = defaults.GATE_MAX_DELAY
    max_waiters: int = defaults.GATE_MAX_WAITERS
    exhausted: Literal["certain", "reset", "off"] = defaults.GATE_EXHAUSTED
    scope: Literal["model", "credential"] = "model"
    mode: Literal["on", "metrics_only", "off"] = "on"


class BudgetConfig(Settings, frozen=True, kw_only=True):
    """How many retries a process may send while nothing succeeds.

    Attributes:
        capacity: tokens at the start, and the most there can be.
        min_capacity: tokens the capacity never shrinks below.
        per_rate: tokens of capacity per own call per second, once the rate is known.
        deposit: tokens every success brings back.
        mode: ``"off"`` lets every policy spend what it likes; ``"metrics_only"`` does too, and counts what could
            not have been afforded.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or ``min_capacity`` exceeds ``capacity``.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "capacity": SECONDS,
        "min_capacity": SECONDS,
        "per_rate": SECONDS,
        "deposit": SECONDS,
        "mode": Choice("on", "metrics_only", "off"),
    }
    location: ClassVar[str] = "budget"
    ordered: ClassVar[tuple[tuple[str, str], ...]] = (("min_capacity", "capacity"),)

    capacity: float = defaults.BUDGET_CAPACITY
    min_capacity: float = defaults.BUDGET_MIN_CAPACITY
    per_rate: float = defaults.BUDGET_PER_RATE
    deposit: float = defaults.BUDGET_DEPOSIT
    mode: Literal["on", "metrics_only", "off"] = "on"


class BodyConfig(Settings, frozen=True, kw_only=True):
    """How much of a body is held in memory.

    Attributes:
        replay_limit: bytes of a request body recorded while it is sent, so that it can be sent again.
        error_limit: bytes of an error's body that are read to learn its code.
        error_timeout: seconds that reading may take.
        json_limit: bytes of a JSON answer up to which it is read under the retry.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "replay_limit": SIZE,
        "error_limit": SIZE,
        "error_timeout": POSITIVE,
        "json_limit": SIZE,
    }
    location: ClassVar[str] = "body"

    replay_limit: int = defaults.BODY_REPLAY_LIMIT
    error_limit: int = defaults.BODY_ERROR_LIMIT
    error_timeout: float = defaults.BODY_ERROR_TIMEOUT
    json_limit: int = defaults.BODY_JSON_LIMIT


class StreamConfig(Settings, frozen=True, kw_only=True):
    """What is done about event streams that break after their 200.

    Attributes:
        mode: ``"detect"`` sends nothing again: a broken stream is a typed failure; ``"off"`` does not look into
            streams at all.
        marker: whether a missing terminal marker is supplied when every choice had its finish reason.
        restart: whether a stream that broke before any output is begun anew.
        cursor: whether a background run is taken up where it was, by the server's cursor.
        resume: paths (shell patterns) whose server takes up a stream by ``Last-Event-ID``. A server may also
            say so itself, with the header ``x-gip-resume: last-event-id``.
        replay: whether a stream that broke after output is sent for again and compared with what was handed up:
            ``"auto"`` when the temperature is 0 or a seed is set.
        idle_timeout: seconds of silence after which a stream counts as stalled; ``None`` leaves it to the
            client's read timeout. Anthropic was seen silent for 167 s while it buffered a tool's arguments.
        max_event: bytes of one event; a stream with a longer one goes on unguarded.
        max_held: bytes held back before the first output, to be able to begin anew.
        max_delivered: bytes of a stream that are remembered, to be able to go on after a break; a longer one
            goes on, and cannot be replayed.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "mode": Choice("on", "detect", "off"),
        "marker": Switch(),
        "restart": Switch(),
        "cursor": Switch(),
        "resume": Texts(),
        "replay": Choice("auto", "always", "never"),
        "idle_timeout": LIMIT,
        "max_event": COUNT,
        "max_held": SIZE,
        "max_delivered": SIZE,
    }
    location: ClassVar[str] = "stream"

    mode: Literal["on", "detect", "off"] = "on"
    marker: bool = True
    restart: bool = True
    cursor: bool = True
    resume: tuple[str, ...] = ()
    replay: Literal["auto", "always", "never"] = "auto"
    idle_timeout: float | None = defaults.STREAM_IDLE_TIMEOUT
    max_event: int = defaults.STREAM_MAX_EVENT
    max_held: int = defaults.STREAM_MAX_HELD
    max_delivered: int = defaults.STREAM_MAX_DELIVERED


class ObserveConfig(Settings, frozen=True, kw_only=True):
    """How much is remembered and said of what happens.

    Attributes:
        max_hosts: hosts counted apart; the rest is counted as ``other``.
        max_models: models counted apart; the rest is counted as ``other``.
        max_codes: codes counted apart; the rest is counted as ``other``.
        log_burst: lines of one kind that are logged at once; what is left out is counted, and said by the next
            line of the kind.
        log_rate: lines of one kind per second that are logged while a storm lasts.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "max_hosts": COUNT,
        "max_models": COUNT,
        "max_codes": COUNT,
        "log_burst": COUNT,
        "log_rate": POSITIVE,
    }
    location: ClassVar[str] = "observe"

    max_hosts: int = defaults.OBSERVE_MAX_NAMES
    max_models: int = defaults.OBSERVE_MAX_NAMES
    max_codes: int = defaults.OBSERVE_MAX_NAMES
    log_burst: int = defaults.OBSERVE_LOG_BURST
    log_rate: float = defaults.OBSERVE_LOG_RATE


class StoreConfig(Settings, frozen=True, kw_only=True):
    """How processes share what they know (`gip_resilience.redis.RedisStore`). Without such a store it means nothing.

    Attributes:
        timeout: seconds that a call may wait for the store, where a question must be asked (who sends the probe);
            after that the process decides alone. No other call waits for it at all.
        interval: seconds between two reports of what became of this process's calls; by then a lost publication is
            made good for, too.
        quorum: processes that must see a circuit fail before the sum of all failures opens it for everybody.
        budget: whether retries are paid for by each process (``"local"``) or also by the fleet as a whole
            (``"fleet"``).
        budget_capacity: retry tokens of a model, for the whole fleet.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "timeout": SECONDS,
        "interval": POSITIVE,
        "quorum": COUNT,
        "budget": Choice("local", "fleet"),
        "budget_capacity": SECONDS,
    }
    location: ClassVar[str] = "store"

    timeout: float = defaults.STORE_TIMEOUT
    interval: float = defaults.STORE_INTERVAL
    quorum: int = defaults.STORE_QUORUM
    budget: Literal["local", "fleet"] = "local"
    budget_capacity: float = defaults.STORE_BUDGET_CAPACITY
