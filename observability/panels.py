"""What the dashboard shows: panels in rows, with the questions they ask Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RATE = "$__rate_interval"
MARK = "2m"
"""Of annotations: Grafana gets the variable above wrong for them. Their step is a minute."""

JOB = 'job=~"$job"'
WHERE = f'{JOB}, host=~"$host", model=~"$model"'

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"


def rate(metric: str, *matchers: str, by: str = "", where: str = WHERE) -> str:
    """Per second, summed over processes, and over all labels but those in *by*."""
    inside = ", ".join((where, *matchers))
    return f"sum{_by(by)}(rate(gip_resilience_{metric}{{{inside}}}[{RATE}]))"


def now(how: str, metric: str, *matchers: str, by: str = "", where: str = WHERE) -> str:
    """A gauge as it is now, brought together over processes by *how*."""
    inside = ", ".join((where, *matchers))
    return f"{how}{_by(by)}(gip_resilience_{metric}{{{inside}}})"


def quantile(share: float, metric: str, by: str = "", where: str = WHERE) -> str:
    """About the value below which *share* of a histogram lie."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(metric + '_bucket', by=labels, where=where)})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


FAILED = 'outcome=~"failure|refused"'


@dataclass(frozen=True)
class Panel:
    """One panel; ``queries`` are pairs of expression and legend.

    Attributes:
        kind: Grafana's name of the panel's type.
        title: says what is seen.
        about: says how to read it, and when to worry.
        unit: Grafana's name of the unit.
        queries: expressions and what their series are called.
        width: of 24.
        height: in Grafana's rows.
        stack: whether series are stacked.
        steps: thresholds, colour and from where on.
        colours: of series, by the end of their name.
        mappings: values shown as words, with their colour.
        decimals: shown; ``None`` for what Grafana finds right.
        top: of a share, 1.
    """

    kind: str
    title: str
    about: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 8
    height: int = 8
    stack: bool = False
    steps: tuple[tuple[str, float | None], ...] = ()
    colours: tuple[tuple[str, str], ...] = ()
    mappings: tuple[tuple[float, str, str], ...] = ()
    decimals: int | None = None
    top: float | None = None


def graph(title: str, about: str, unit: str, *queries: tuple[str, str], **more: Any) -> Panel:
    """Series over time."""
    return Panel("timeseries", title, about, unit, queries, **more)


def stat(title: str, about: str, unit: str, query: str, **more: Any) -> Panel:
    """One number."""
    return Panel("stat", title, about, unit, ((query, ""),), width=4, height=4, **more)


OUTCOMES = (("success", GREEN), ("failure", RED), ("refused", ORANGE), ("cancelled", "text"))
LATENCY = (("p50", GREEN), ("p95", YELLOW), ("p99", RED))
SUCCESS = 'outcome="success"'
OPENED = 'state="open"'
BREACHED = 'state=~"open|half_open"'

# Where nothing has ever succeeded there is no such series; that is a share of 0, not of nothing.
ANSWERED = f"({rate('calls_total', SUCCESS)} or vector(0)) / {rate('calls_total')}"
ANSWERED_BY_HOST = (
    f"({rate('calls_total', SUCCESS, by='host')} or 0 * {rate('calls_total', by='host')})"
    f" / {rate('calls_total', by='host')}"
)
WORST_STATE = (
    f"max by (host, model) (2 * gip_resilience_circuit_state{{{WHERE}, {OPENED}}}"
    f' or gip_resilience_circuit_state{{{WHERE}, state="half_open"}})'
)
NOT_CLOSED = f"count({now('max', 'circuit_state', BREACHED, by='host, model')} == 1) or vector(0)"
GATES_CLOSED = f"count({now('max', 'gate_closed_seconds', by='host, model')} > 0) or vector(0)"
TIME_NOT_CLOSED = (
    f"{rate('circuit_state_seconds_total', BREACHED, by='host, model')}"
    f" / {rate('circuit_state_seconds_total', by='host, model')}"
    " or avg by (host, model) (clamp_max(sum by (job, instance, host, model) "
    f"(avg_over_time(gip_resilience_circuit_state{{{WHERE}, {BREACHED}}}[{RATE}])), 1))"
)
WORST_CALLS = (
    "topk(10, sum by (host, model, code) "
    f"(increase(gip_resilience_calls_total{{{WHERE}, {FAILED}}}[$__range])))"
)
BUDGET_LEFT = (
    f"min by (host, model) (gip_resilience_budget_tokens{{{WHERE}}}"
    f" / gip_resilience_budget_capacity_tokens{{{WHERE}}})"
)
_FAILED_STREAMS = rate("streams_total", 'event="fail"', where=JOB)
_OPENED_STREAMS = rate("streams_total", 'event="opened"', where=JOB)
STREAMS_FAILED = f"({_FAILED_STREAMS} or vector(0)) / {_OPENED_STREAMS}"

OVERVIEW = (
    stat(
        "Calls",
        "Calls that ended, per second. A stream counts when it ends.",
        "reqps",
        rate("calls_total"),
    ),
    stat(
        "Answered",
        "Share of calls that were answered well, after every retry. Requests that are wrong in themselves (a 400)"
        " count against it here; the alerts leave them out.",
        "percentunit",
        ANSWERED,
        steps=((RED, None), (ORANGE, 0.95), (YELLOW, 0.99), (GREEN, 0.999)),
        decimals=2,
        top=1,
    ),
    stat(
        "Requests per call",
        "1.0 when nothing is tried again. The retry budget keeps it near 1.1 while a server is down. Below 1: calls"
        " are refused before anything is sent.",
        "none",
        f"{rate('attempts_total')} / {rate('calls_total')}",
        steps=((GREEN, None), (YELLOW, 1.1), (RED, 1.5)),
        decimals=2,
    ),
    stat(
        "95th percentile",
        "Nineteen calls in twenty took less, waits and retries included.",
        "s",
        quantile(0.95, "call_duration_seconds"),
    ),
    stat(
        "Circuits not closed",
        "Circuits that are open or half open in at least one process.",
        "none",
        NOT_CLOSED,
        steps=((GREEN, None), (RED, 1)),
    ),
    stat(
        "Gates closed",
        "Models (or whole credentials, without a model) whose rate limit holds calls back in at least one process.",
        "none",
        GATES_CLOSED,
        steps=((GREEN, None), (YELLOW, 1)),
    ),
    graph(
        "Calls by outcome",
        "Failure: the server's last error was handed up. Refused: nothing was sent, or nothing more, because of a"
        " circuit, a gate or the deadline.",
        "reqps",
        (rate("calls_total", by="outcome"), "{{outcome}}"),
        stack=True,
        colours=OUTCOMES,
    ),
    graph(
        "Answered, by host",
        "Share of calls that were answered well.",
        "percentunit",
        (ANSWERED_BY_HOST, "{{host}}"),
        top=1,
    ),
    graph(
        "Requests and retries",
        "Requests sent, those of them that were not a call's first, and calls that were given up although their"
        " failure is one that is tried again. The last two are of all hosts and models.",
        "reqps",
        (rate("attempts_total"), "requests"),
        (rate("retries_total", where=JOB), "retries"),
        (rate("gave_up_total", where=JOB), "given up"),
        colours=(("requests", BLUE), ("retries", YELLOW), ("given up", RED)),
    ),
)

ERRORS = (
    graph(
        "Failed attempts by code",
        "Every request that failed, also where a later one succeeded. This is what the servers do.",
        "reqps",
        (rate("attempts_total", 'code!="ok"', by="code"), "{{code}}"),
        stack=True,
    ),
    graph(
        "Failed calls by code",
        "Calls that failed or were refused, by their last code. This is what users see.",
        "reqps",
        (rate("calls_total", FAILED, by="code"), "{{code}}"),
        stack=True,
    ),
    graph(
        "Not sent, by reason",
        "Calls, or further attempts of them, that were not sent. Of all hosts and models.",
        "reqps",
        (rate("refusals_total", by="reason", where=JOB), "{{reason}}"),
        stack=True,
    ),
    Panel(
        "bargauge",
        "Most failed calls",
        "Calls that failed or were refused in the time shown, by model and code: the ten worst.",
        "none",
        (
            (
                WORST_CALLS,
                "{{host}} {{model}} {{code}}",
            ),
        ),
        width=24,
        decimals=0,
        steps=((RED, None),),
    ),
)

CIRCUITS = (
    Panel(
        "state-timeline",
        "State of each circuit",
        "The worst over all processes. A circuit without a model is the host's own.",
        "none",
        ((WORST_STATE, "{{host}} {{model}}"),),
        width=16,
        mappings=((0, "closed", GREEN), (1, "half open", YELLOW), (2, "open", RED)),
    ),
    graph(
        "Share of time not closed",
        "Over all processes. It tells a circuit that opened once from one that flaps.",
        "percentunit",
        (
            TIME_NOT_CLOSED,
            "{{host}} {{model}}",
        ),
        top=1,
    ),
    graph(
        "Transitions",
        "Changes of state by their cause. One opening, one probe and one closing is an incident that ended; many"
        " are one that goes on.",
        "cps",
        (rate("circuit_transitions_total", by="state, cause"), "{{state}}: {{cause}}"),
    ),
    graph(
        "Probes",
        "Requests that half-open circuits let through, to see.",
        "reqps",
        (rate("probes_total", by="host, model"), "{{host}} {{model}}"),
    ),
    graph(
        "Overruled, or watching only",
        "Circuits that an operator took over (1), and requests per second that a guard in metrics_only mode would"
        " have stopped.",
        "none",
        (now("max", "circuit_forced", by="host, model, control"), "{{control}}: {{host}} {{model}}"),
        (rate("shadow_refusals_total", by="guard", where=JOB), "would stop: {{guard}}"),
    ),
)

LIMITS = (
    graph(
        "Gates: until they open",
        "Seconds for which calls are held back: what the server said, or a guess. The longest over all processes.",
        "s",
        (now("max", "gate_closed_seconds", by="host, model"), "{{host}} {{model}}"),
    ),
    graph(
        "Gates: who waits",
        "Calls in line at a closed gate, over all processes. They leave one after the other, not all at once.",
        "none",
        (now("sum", "gate_waiters", by="host, model"), "{{host}} {{model}}"),
    ),
    graph(
        "Gates: how often they close",
        "One closing is one answer that said that the quota is used up; those of the same burst count once.",
        "cps",
        (rate("gate_closings_total", by="host, model"), "{{host}} {{model}}"),
    ),
    graph(
        "Time spent waiting",
        "Seconds of waiting per second, by reason: 3 means that three calls are waiting at any moment. Of all hosts"
        " and models.",
        "none",
        (rate("wait_seconds_sum", by="reason", where=JOB), "{{reason}}"),
        stack=True,
    ),
    graph(
        "Length of a wait",
        "95th percentile, by reason. Above 82 s it is only known to be more.",
        "s",
        (quantile(0.95, "wait_seconds", by="reason", where=JOB), "{{reason}}"),
    ),
    graph(
        "What servers asked for",
        "Waits that servers asked for and that were waited, or were too long: then the call ended at once.",
        "reqps",
        (rate("hints_total", by="verdict", where=JOB), "{{verdict}}"),
        colours=(("honoured", GREEN), ("refused", RED)),
    ),
)

BUDGETS = (
    graph(
        "Retry budget left",
        "Of the process that has least. At 0 nothing is tried again until calls succeed. Without a model it is the"
        " host's.",
        "percentunit",
        (
            BUDGET_LEFT,
            "{{host}} {{model}}",
        ),
        width=12,
        top=1,
    ),
    graph(
        "Retries kept back",
        "Retries that were not sent because the budget was spent, beside those that were sent. Of all hosts and"
        " models.",
        "reqps",
        (rate("refusals_total", 'reason="budget"', where=JOB), "kept back"),
        (rate("retries_total", where=JOB), "sent"),
        width=12,
        colours=(("kept back", RED), ("sent", YELLOW)),
    ),
)

STREAMS = (
    graph(
        "Event streams",
        "Opened, broken, and what was done about it. A stream that is begun anew is opened once more. Of all hosts"
        " and models.",
        "reqps",
        (rate("streams_total", by="event", where=JOB), "{{event}}"),
    ),
    graph(
        "Breaks by code and remedy",
        "How streams broke, and what was tried. 'fail' is what users see; 'end' lost nothing.",
        "reqps",
        (rate("stream_breaks_total", by="code, action"), "{{code}}: {{action}}"),
        stack=True,
    ),
    graph(
        "Streams that failed",
        "Share of opened streams that broke beyond repair. Of all hosts and models.",
        "percentunit",
        (
            STREAMS_FAILED,
            "failed",
        ),
        top=1,
        colours=(("failed", RED),),
    ),
)

TIMES = (
    Panel(
        "heatmap",
        "How long calls took",
        "From the first request to the answer, or the stream's end; waits included. Two bands are two kinds of"
        " call, or one kind and its retries.",
        "s",
        (
            (
                f"sum by (le) (increase(gip_resilience_call_duration_seconds_bucket{{{WHERE}}}[{RATE}]))",
                "{{le}}",
            ),
        ),
        width=12,
    ),
    graph(
        "Calls",
        "Waits and retries included.",
        "s",
        *((quantile(share / 100, "call_duration_seconds"), f"p{share}") for share in (50, 95, 99)),
        width=12,
        colours=LATENCY,
    ),
    graph(
        "Attempts",
        "From sending to the verdict: what the servers need. Where calls are slower than this, they waited.",
        "s",
        *((quantile(share / 100, "attempt_duration_seconds"), f"p{share}") for share in (50, 95, 99)),
        colours=LATENCY,
    ),
    graph(
        "Calls, by model",
        "95th percentile of calls, by model.",
        "s",
        (quantile(0.95, "call_duration_seconds", by="host, model"), "{{host}} {{model}}"),
    ),
    graph(
        "Attempts per call",
        "95th percentile over calls: 1 while at least nineteen in twenty need one.",
        "none",
        (quantile(0.95, "call_attempts", by="host"), "{{host}}"),
    ),
)

HEALTH = (
    graph(
        "Configuration reloads",
        "Applied, and rejected: a rejected file changes nothing, and the one before stays in force.",
        "none",
        (
            f"sum by (result) (increase(gip_resilience_config_reloads_total{{{JOB}}}[{RATE}]))",
            "{{result}}",
        ),
        colours=(("applied", GREEN), ("rejected", RED)),
    ),
    graph(
        "Faults of our own",
        "Observers that raised, and shared state that was not what it should be. Calls are not disturbed by either.",
        "none",
        (f"sum(increase(gip_resilience_observer_failures_total{{{JOB}}}[{RATE}]))", "observers"),
        (
            f"sum by (component) (increase(gip_resilience_state_degraded_total{{{JOB}}}[{RATE}]))",
            "{{component}}",
        ),
        (
            f"sum by (component) (increase(gip_resilience_state_restored_total{{{JOB}}}[{RATE}]))",
            "{{component}} again",
        ),
    ),
    graph(
        "Processes",
        "That are scraped, by version.",
        "none",
        (f"count by (version) (gip_resilience_info{{{JOB}}})", "{{version}}"),
        stack=True,
    ),
)

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("Overview", OVERVIEW),
    ("Errors by code", ERRORS),
    ("Circuits", CIRCUITS),
    ("Rate limits and waits", LIMITS),
    ("Retry budgets", BUDGETS),
    ("Event streams", STREAMS),
    ("Latency", TIMES),
    ("Configuration and health", HEALTH),
)
