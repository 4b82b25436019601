"""What a scrape says, as values to be shown. Pure: text and time come in, nothing is fetched or drawn."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gip_resilience.snapshots import Histogram
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

    def peaks(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The largest of a metric's samples by some of its labels."""
        found: dict[tuple[str, ...], float] = {}
        for key, value in self.samples.get(name, {}).items():
            named = dict(key)
            of = tuple(named.get(label, "") for label in labels)
            found[of] = max(value, found.get(of, value))
        return found

    def histograms(self, name: str, *labels: str) -> dict[tuple[str, ...], Histogram]:
        """Of a metric by some of its labels, not cumulative; without the sums of values."""
        upper: dict[tuple[str, ...], dict[float, float]] = defaultdict(dict)
        for (*of, bound), value in self.sums(name + "_bucket", *labels, "le").items():
            below = upper[tuple(of)]
            below[float(bound)] = below.get(float(bound), 0.0) + value
        return {of: _spread(below) for of, below in upper.items()}


def _spread(upper: Mapping[float, float]) -> Histogram:
    """Of how many values lie below each bound."""
    bounds = tuple(sorted(bound for bound in upper if bound != math.inf))
    counts, below = [], 0.0
    for bound in (*bounds, math.inf):
        most = max(below, upper.get(bound, below))  # a bucket that is not there has nothing of its own
        counts.append(int(most - below))
        below = most
    return Histogram(bounds, tuple(counts), 0.0)


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
                if name.startswith(PREFIX) and not name.endswith("_created") and math.isfinite(value):
                    if name.endswith("_bucket") and math.isnan(float(labels["le"])):
                        raise ValueError("no bound")
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
        state: of its circuit; empty without one. Of several clients' that which lets least through.
        away: the share of the time that its circuit was not closed; ``None`` if nobody knows.
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
    away: float | None
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
        breaks: of streams, by code.
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
    breaks: Mapping[str, float]
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
    overall = since.histograms("call_duration_seconds").get((), _NOTHING)
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
        breaks=_flat(since.sums("stream_breaks_total", "code")),
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
    """Of everything; what is no count is not read off it. A count that went down began anew, and counts in full."""
    samples = {}
    for name, series in now.samples.items():
        earlier = before.samples.get(name, {})
        samples[name] = {
            key: value - earlier[key] if earlier.get(key, math.inf) <= value else value
            for key, value in series.items()
        }
    return Scrape(now.at, samples)


def _flat(sums: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    return {key[0]: value for key, value in sorted(sums.items(), key=lambda item: -item[1]) if value > 0}


def _waits(since: Scrape) -> dict[str, tuple[float, float]]:
    counts = since.sums("wait_seconds_count", "reason")
    totals = since.sums("wait_seconds_sum", "reason")
    return {key[0]: (count, totals.get(key, 0.0)) for key, count in sorted(counts.items()) if count > 0}


_NOTHING = Histogram((), (0,), 0.0)
_SHUT = ("closed", "half_open", "open")
"""States by how little they let through."""


def _states(now: Scrape) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    for (host, model, state), value in now.peaks("circuit_state", "host", "model", "state").items():
        if value > 0 and _shut(state) > _shut(found.get((host, model), "")):
            found[host, model] = state
    return found


def _shut(state: str) -> int:
    return _SHUT.index(state) + 1 if state in _SHUT else bool(state)


def _away(since: Scrape) -> dict[tuple[str, ...], float]:
    """The share of the time that circuits were not closed."""
    closed: dict[tuple[str, ...], float] = defaultdict(float)
    total: dict[tuple[str, ...], float] = defaultdict(float)
    for (host, model, state), spent in since.sums(
        "circuit_state_seconds_total", "host", "model", "state"
    ).items():
        total[host, model] += spent
        closed[host, model] += spent if state == "closed" else 0.0
    return {where: 1.0 - closed[where] / spent for where, spent in total.items() if spent > 0}


def _places(since: Scrape, now: Scrape) -> list[Place]:
    where = ("host", "model")
    calls = since.sums("calls_total", *where)
    failed: dict[Where, float] = defaultdict(float)
    for (host, model, outcome), value in since.sums("calls_total", *where, "outcome").items():
        if outcome in {"failure", "refused"}:
            failed[host, model] += value
    sent = since.sums("attempts_total", *where)
    states, away = _states(now), _away(since)
    spreads = since.histograms("call_duration_seconds", *where)
    forced = {
        (host, model): control
        for (host, model, control), value in now.sums("circuit_forced", *where, "control").items()
        if value > 0
    }
    gates = now.peaks("gate_closed_seconds", *where)
    waiting = now.sums("gate_waiters", *where)
    tokens = now.sums("budget_tokens", *where)
    codes: dict[tuple[str, ...], list[tuple[str, float]]] = defaultdict(list)
    for (host, model, code), value in since.sums("attempts_total", *where, "code").items():
        if code != "ok" and value > 0:
            codes[host, model].append((code, value))
    found = []
    for key in sorted({*calls, *sent, *states, *away, *gates}):
        host, model = key
        spread = spreads.get(key, _NOTHING)
        found.append(
            Place(
                host,
                model,
                states.get(key, ""),
                away.get(key),
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
