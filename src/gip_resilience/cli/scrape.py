"""What a scrape says, as values to be shown. Pure: text and time come in, nothing is fetched or drawn."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gip_resilience.snapshots import SECONDS, Histogram
from gip_resilience.target import clean_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "gip_resilience_"

Where = tuple[str, str]
"""Host and model."""


class NotAScrapeError(ValueError):
    """The text is not what Prometheus scrapes, or nothing of ours is in it."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """Samples of ours at one moment.

    Attributes:
        at: seconds, on any clock that is the same for all scrapes.
        samples: by name, without the prefix, and labels.
    """

    at: float
    samples: Mapping[str, Mapping[frozenset[tuple[str, str]], float]]

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Sums of a metric's samples by some of its labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for key, value in self.samples.get(name, {}).items():
            named = dict(key)
            found[tuple(named.get(label, "") for label in labels)] += value
        return dict(found)

    def total(self, name: str) -> float:
        """The sum of all of a metric's samples."""
        return sum(self.samples.get(name, {}).values())

    def histogram(self, name: str, where: Where) -> Histogram:
        """Of a place, not cumulative."""
        upper: dict[float, float] = defaultdict(float)
        for key, value in self.samples.get(name + "_bucket", {}).items():
            named = dict(key)
            if (named.get("host", ""), named.get("model", "")) == where:
                upper[float(named.get("le", "inf"))] += value
        counts, below = [], 0.0
        for bound in sorted(upper):
            counts.append(int(upper[bound] - below))
            below = upper[bound]
        bounds = tuple(sorted(bound for bound in upper if bound != float("inf")))
        return Histogram(bounds or SECONDS, tuple(counts) or (0,) * (len(SECONDS) + 1), 0.0)


def read(text: str, at: float, parse: Callable[[str], Iterable[object]]) -> Scrape:
    """The samples of ours in a scrape.

    Args:
        text: what was scraped.
        at: when.
        parse: a parser of ``prometheus_client``.

    Raises:
        NotAScrapeError: the text cannot be parsed, or holds nothing of ours.
    """
    samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    try:
        for family in parse(text):
            for name, labels, value, *_ in family.samples:  # type: ignore[attr-defined]  # a metric of theirs
                if name.startswith(PREFIX) and not name.endswith("_created"):
                    key = frozenset((label, clean_name(text)) for label, text in labels.items())
                    series = samples.setdefault(name.removeprefix(PREFIX), {})
                    series[key] = series.get(key, 0.0) + value
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NotAScrapeError(f"not what Prometheus scrapes ({type(error).__name__})") from None
    if not samples:
        raise NotAScrapeError(f"there is no metric in it that is called {PREFIX}...")
    return Scrape(at, samples)


@dataclass(frozen=True, slots=True)
class Place:
    """A model at a host, or a host without one.

    Attributes:
        host: whom calls go to.
        model: which model.
        state: of its circuit; empty without one.
        forced: who overruled it; empty if nobody did.
        calls: calls that ended.
        failed: of them those that failed or were refused.
        sent: requests.
        median: of a call's duration, in seconds.
        slow: the 95th percentile of it.
        codes: of requests that failed, the most frequent first.
        gate: seconds until its gate opens; 0 where it is open.
        waiting: calls in line there.
        tokens: retries that can be afforded; ``None`` if nobody knows.
    """

    host: str
    model: str
    state: str
    forced: str
    calls: float
    failed: float
    sent: float
    median: float
    slow: float
    codes: tuple[tuple[str, float], ...]
    gate: float
    waiting: float
    tokens: float | None

    @property
    def trouble(self) -> tuple[bool, bool, float, float]:
        """To put the worst first."""
        return self.state not in {"", "closed"} or bool(self.forced), self.gate > 0, self.failed, self.calls


@dataclass(frozen=True, slots=True)
class View:
    """What is shown.

    Attributes:
        span: seconds between the two scrapes that were compared; ``None`` where there was one, and counts are those
            since the process began.
        calls: by outcome.
        codes: requests by code.
        retries: requests that were not a call's first.
        gave_up: calls.
        sent: requests.
        median: of a call's duration, in seconds.
        slow: the 95th percentile of it.
        waits: number of pauses and seconds in all, by reason.
        refusals: by reason.
        shadowed: by guard.
        streams: by what happened.
        places: the worst first.
    """

    span: float | None
    calls: Mapping[str, float]
    codes: Mapping[str, float]
    retries: float
    gave_up: float
    sent: float
    median: float
    slow: float
    waits: Mapping[str, tuple[float, float]]
    refusals: Mapping[str, float]
    shadowed: Mapping[str, float]
    streams: Mapping[str, float]
    places: tuple[Place, ...] = field(default_factory=tuple)

    @property
    def total(self) -> float:
        """Calls that ended."""
        return sum(self.calls.values())

    @property
    def success(self) -> float:
        """The share of calls that succeeded, of those that were not cancelled; 1 without any."""
        counted = self.total - self.calls.get("cancelled", 0.0)
        return self.calls.get("success", 0.0) / counted if counted else 1.0


def compare(now: Scrape, before: Scrape | None) -> View:
    """What happened between two scrapes; since the process began where there is one, or where it began anew."""
    if before is not None and (now.at <= before.at or _began_anew(now, before)):
        before = None
    since = now if before is None else _difference(now, before)
    calls = since.sums("calls_total", "outcome")
    overall = _everywhere(since)
    return View(
        span=None if before is None else now.at - before.at,
        calls=_flat(calls),
        codes=_flat(since.sums("attempts_total", "code")),
        retries=since.total("retries_total"),
        gave_up=since.total("gave_up_total"),
        sent=since.total("attempts_total"),
        median=overall.quantile(0.5),
        slow=overall.quantile(0.95),
        waits=_waits(since),
        refusals=_flat(since.sums("refusals_total", "reason")),
        shadowed=_flat(since.sums("shadow_refusals_total", "guard")),
        streams=_flat(since.sums("streams_total", "event")),
        places=tuple(sorted(_places(since, now), key=lambda place: place.trouble, reverse=True)),
    )


def _began_anew(now: Scrape, before: Scrape) -> bool:
    """Whether a counter went down: then the process is another one."""
    for name in ("calls_total", "attempts_total"):
        earlier = before.samples.get(name, {})
        later = now.samples.get(name, {})
        if any(later.get(key, 0.0) < value for key, value in earlier.items()):
            return True
    return False


def _difference(now: Scrape, before: Scrape) -> Scrape:
    """Of everything; what is no count is not read off it."""
    samples = {}
    for name, series in now.samples.items():
        earlier = before.samples.get(name, {})
        samples[name] = {key: value - earlier.get(key, 0.0) for key, value in series.items()}
    return Scrape(now.at, samples)


def _flat(sums: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    return {key[0]: value for key, value in sorted(sums.items(), key=lambda item: -item[1]) if value > 0}


def _waits(since: Scrape) -> dict[str, tuple[float, float]]:
    counts = since.sums("wait_seconds_count", "reason")
    totals = since.sums("wait_seconds_sum", "reason")
    return {key[0]: (count, totals.get(key, 0.0)) for key, count in sorted(counts.items()) if count > 0}


def _everywhere(since: Scrape) -> Histogram:
    sums: dict[float, float] = defaultdict(float)
    for (bound,), value in since.sums("call_duration_seconds_bucket", "le").items():
        sums[float(bound or "inf")] += value
    merged = {frozenset({("le", str(bound))}): value for bound, value in sums.items()}
    return Scrape(since.at, {"x_bucket": merged}).histogram("x", ("", ""))


def _places(since: Scrape, now: Scrape) -> list[Place]:
    where = ("host", "model")
    calls = since.sums("calls_total", *where)
    failed: dict[Where, float] = defaultdict(float)
    for (host, model, outcome), value in since.sums("calls_total", *where, "outcome").items():
        if outcome in {"failure", "refused"}:
            failed[host, model] += value
    sent = since.sums("attempts_total", *where)
    states = {
        (host, model): state
        for (host, model, state), value in now.sums("circuit_state", *where, "state").items()
        if value > 0
    }
    forced = {
        (host, model): control
        for (host, model, control), value in now.sums("circuit_forced", *where, "control").items()
        if value > 0
    }
    gates = now.sums("gate_closed_seconds", *where)
    waiting = now.sums("gate_waiters", *where)
    tokens = now.sums("budget_tokens", *where)
    codes: dict[tuple[str, ...], list[tuple[str, float]]] = defaultdict(list)
    for (host, model, code), value in since.sums("attempts_total", *where, "code").items():
        if code != "ok" and value > 0:
            codes[host, model].append((code, value))
    found = []
    for key in sorted({*calls, *sent, *states, *gates}):
        host, model = key
        spread = since.histogram("call_duration_seconds", (host, model))
        found.append(
            Place(
                host,
                model,
                states.get((host, model), ""),
                forced.get((host, model), ""),
                calls.get(key, 0.0),
                failed[host, model],
                sent.get(key, 0.0),
                spread.quantile(0.5),
                spread.quantile(0.95),
                tuple(sorted(codes.get(key, []), key=lambda pair: -pair[1])),
                gates.get(key, 0.0),
                waiting.get(key, 0.0),
                tokens.get(key),
            )
        )
    return found
