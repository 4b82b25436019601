"""What a client did wrong, read off what reached the gateway; no I/O.

The judge knows nothing of the library: it looks at times, answers and connections, so it judges a client of any kind,
in any language. Requests belong to one call when they are the same: same method, path, body, key and idempotency key,
or when they go back to a stream or response of it. A call is over with the first answer that was good and whole. So
give each call of a test words of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from gip_resilience.gateway import Seen

Fault: TypeAlias = Literal["early", "hopeless", "no_backoff", "storm", "truncated", "leaked"]

MAX_ATTEMPTS: Final = 6
"""Requests of one call; SDKs send 3 by default, this library 4 at most."""

MAX_AMPLIFICATION: Final = 2.0
"""Requests per call while calls fail. Three layers that each send a request three times come to 27; "Addressing
Cascading Failures" in Google's SRE book would stop at 1.1 across all calls."""

MIN_BACKOFF: Final = 0.01
"""Seconds. With full jitter one wait may be as short as nothing; all of them hardly."""

HOPELESS_STATUSES: Final = frozenset({400, 401, 403, 404, 405, 413, 414, 415, 422})
"""The request itself is at fault, and stays so."""

HOPELESS_CODES: Final = frozenset({"failed_request", "insufficient_quota", "unknown_workspace"})
"""The same, under a status that does not show it."""

EARLY: Final = 0.01
"""Seconds by which a timer, or two clocks, may be off."""

_MANY: Final = 10
"""Calls, or waits, that it takes to speak of all of them together."""

_SETTLE: Final = 1.0
"""Real seconds in which the gateway must have noticed that a client closed a connection."""

_LOOK: Final = 0.02


class Record(Protocol):
    """Where requests were recorded: a `Gateway` or a `ScriptedUpstream`."""

    @property
    def requests(self) -> Sequence[Seen]:
        """The requests in order of arrival."""

    @property
    def open_connections(self) -> AbstractSet[int]:
        """The numbers of the connections that are open now."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a client did wrong.

    Attributes:
        fault: what kind of thing.

            * ``"early"``: it came again before the moment the answer had asked it to wait for.
            * ``"hopeless"``: it sent a request again that cannot succeed.
            * ``"no_backoff"``: it came again and again without waiting.
            * ``"storm"``: it sent a call too often, or all calls together did.
            * ``"truncated"``: it took for whole what was cut off, or broke in the middle.
            * ``"leaked"``: it left a connection open that it does not use any more.
        text: what happened, for humans.
        requests: the requests it is about, by their place in the record, from 0.
    """

    fault: Fault
    text: str
    requests: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.fault}: {self.text}"


def judge(
    record: Record,
    *,
    answered: int | None = None,
    closed: bool = False,
    max_attempts: int = MAX_ATTEMPTS,
    max_amplification: float = MAX_AMPLIFICATION,
    min_backoff: float = MIN_BACKOFF,
) -> list[Finding]:
    """What the client did wrong, as far as it can be seen in *record*.

    Times are those of the recording: give the gateway the clock that the client waits by, if that is not the
    machine's (``Gateway(clock=clock.monotonic)``).

    Args:
        record: a `Gateway` or a `ScriptedUpstream`.
        answered: how many calls the caller took for answered, streams read to their end included. Only the caller
            knows; without it, a broken stream that the client never came back for counts as taken for whole.
        closed: the client has been closed, so no connection may be open at all. A `Gateway` is given a second to
            notice. Let go of responses and errors first: requests keeps a pool open for as long as one of them lives.
        max_attempts: the most requests of one call.
        max_amplification: the most requests per call, over all calls, where ten calls or more met with failure.
        min_backoff: seconds; when all waits of a call were shorter, and it had two, it did not wait. Answers that
            said how long to wait, connections that broke and streams that are mended are left out of this.

    Returns:
        The findings, in the order of `Finding.fault`; empty for a client that did nothing wrong.
    """
    seen = record.requests
    calls = _calls(seen)
    found = [
        *_all_early(calls),
        *_all_hopeless(calls),
        *_all_hasty(calls, min_backoff),
        *_storms(calls, max_attempts, max_amplification),
        *_truncated(calls, answered),
        *_settled(lambda: list(_leaked(calls, seen, record.open_connections, closed))),
    ]
    order = get_args(Fault)
    return sorted(found, key=lambda finding: order.index(finding.fault))


def assert_resilient(
    record: Record,
    *,
    answered: int | None = None,
    closed: bool = False,
    allow: Collection[Fault] = (),
    max_attempts: int = MAX_ATTEMPTS,
    max_amplification: float = MAX_AMPLIFICATION,
    min_backoff: float = MIN_BACKOFF,
) -> None:
    """Fail unless the client did nothing wrong; the arguments are those of `judge`.

    Args:
        record: a `Gateway` or a `ScriptedUpstream`.
        answered: how many calls the caller took for answered.
        closed: the client has been closed.
        allow: faults to overlook.
        max_attempts: the most requests of one call.
        max_amplification: the most requests per call, over all calls.
        min_backoff: seconds; the least that counts as waiting.

    Raises:
        AssertionError: it did; the text says what, request by request, without a key or a body.
        ValueError: *allow* names no kind of fault.
    """
    __tracebackhide__ = True
    unknown = set(allow) - set(get_args(Fault))
    if unknown:
        raise ValueError(f"allow: expected some of {', '.join(get_args(Fault))}, got {', '.join(unknown)}")
    found = judge(
        record,
        answered=answered,
        closed=closed,
        max_attempts=max_attempts,
        max_amplification=max_amplification,
        min_backoff=min_backoff,
    )
    found = [finding for finding in found if finding.fault not in allow]
    if found:
        lines = "".join(f"\n  {finding}" for finding in found)
        raise AssertionError(f"the client is not resilient, in {len(record.requests)} requests:{lines}")


@dataclass(slots=True)
class _Sent:
    """One request, by its place in the record."""

    place: int
    seen: Seen

    def __str__(self) -> str:
        seen = self.seen
        if seen.status is None:
            came = "no answer"
        else:
            broken = "" if seen.whole or not 200 <= seen.status < 300 else ", broken"
            came = f"{seen.status}{f' {seen.code}' if seen.code else ''}{broken}"
        return f"request {self.place} ({seen.method} {seen.path}: {came})"


@dataclass(slots=True)
class _Call:
    """The requests of one call."""

    sent: list[_Sent] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.sent[-1].seen.whole

    @property
    def failed(self) -> bool:
        return not self.sent[0].seen.whole

    def retries(self) -> Iterator[tuple[_Sent, _Sent]]:
        """A request that came to nothing, and the one after it."""
        return pairwise(self.sent)


def _calls(seen: Iterable[Seen]) -> list[_Call]:
    calls: list[_Call] = []
    current: dict[tuple[str | None, ...], _Call] = {}
    for place, request in enumerate(seen):
        key = _key(request)
        call = current.get(key)
        if call is None or call.over:
            call = _asked_again(request, calls) or _Call()
            current[key] = call
            if not call.sent:
                calls.append(call)
        call.sent.append(_Sent(place, request))
    return calls


def _key(request: Seen) -> tuple[str | None, ...]:
    secrets = (request.header(name) for name in ("authorization", "x-api-key", "api-key"))
    return (
        request.method,
        request.path,
        request.body_sha256,
        request.header("idempotency-key"),
        *secrets,
    )


def _asked_again(request: Seen, calls: Sequence[_Call]) -> _Call | None:
    """The call whose broken stream is asked for by another request: by the id of its response, or of an event."""
    if request.method != "GET":
        return None
    for call in reversed(calls):
        first, last = call.sent[0].seen, call.sent[-1].seen
        comes_back = request.path.startswith(f"{first.path}/") or (
            request.path == first.path and request.header("last-event-id") is not None
        )
        if comes_back and first.method == "POST" and not last.whole:
            return call
    return None


def _all_early(calls: Iterable[_Call]) -> Iterator[Finding]:
    for call in calls:
        for before, after in call.retries():
            asked = before.seen.not_before
            if asked is not None and after.seen.at < asked - EARLY:
                text = (
                    f"request {after.place} came {after.seen.at - before.seen.at:.3f} s after {before},"
                    f" which had asked for {asked - before.seen.at:.3f} s"
                )
                yield Finding("early", text, (before.place, after.place))


def _all_hopeless(calls: Iterable[_Call]) -> Iterator[Finding]:
    for call in calls:
        for before, after in call.retries():
            seen = before.seen
            if seen.status in HOPELESS_STATUSES or seen.code in HOPELESS_CODES:
                text = f"request {after.place} repeats {before}, which cannot succeed"
                yield Finding("hopeless", text, (before.place, after.place))


def _all_hasty(calls: Sequence[_Call], least: float) -> Iterator[Finding]:
    alone: list[float] = []
    places: list[int] = []
    for call in calls:
        waits = [
            (after.seen.at - before.seen.at, after.place)
            for before, after in call.retries()
            if _is_overloaded(before.seen)
        ]
        if len(waits) > 1 and max(waits)[0] < least:
            text = f"{len(waits)} retries of {call.sent[0]} without a wait of {least} s"
            yield Finding("no_backoff", text, tuple(place for _, place in waits))
        elif len(waits) == 1:
            alone.append(waits[0][0])
            places.append(waits[0][1])
    if len(alone) >= _MANY and sorted(alone)[len(alone) // 2] < least:
        text = f"{len(alone)} calls were sent again once, most of them without a wait of {least} s"
        yield Finding("no_backoff", text, tuple(places))


def _is_overloaded(seen: Seen) -> bool:
    """Whether the answer means too much work, and did not say how long to wait."""
    return seen.not_before is None and seen.status is not None and (seen.status >= 500 or seen.status == 429)


def _storms(calls: Sequence[_Call], most: int, amplification: float) -> Iterator[Finding]:
    for call in calls:
        if len(call.sent) > most:
            text = f"{call.sent[0]} was sent {len(call.sent)} times, more than {most}"
            yield Finding("storm", text, tuple(sent.place for sent in call.sent))
    failed = [call for call in calls if call.failed]
    requests = sum(len(call.sent) for call in failed)
    if len(failed) >= _MANY and requests > amplification * len(failed):
        text = (
            f"{len(failed)} calls that met with failure were sent {requests} times,"
            f" {requests / len(failed):.2f} times each and more than {amplification}"
        )
        yield Finding("storm", text)


def _truncated(calls: Sequence[_Call], answered: int | None) -> Iterator[Finding]:
    if answered is not None:
        whole = sum(call.over for call in calls)
        if answered > whole:
            text = f"{answered} calls were taken for answered, but {whole} had a whole answer"
            yield Finding("truncated", text, tuple(c.sent[-1].place for c in calls if not c.over))
        return
    for call in calls:
        last = call.sent[-1]
        if last.seen.status is not None and 200 <= last.seen.status < 300 and not last.seen.whole:
            text = f"{last}, and nobody asked again; say answered= if the caller was told"
            yield Finding("truncated", text, (last.place,))


def _leaked(
    calls: Iterable[_Call], seen: Sequence[Seen], open_now: AbstractSet[int], closed: bool
) -> Iterator[Finding]:
    last_use = {request.connection: place for place, request in enumerate(seen)}
    named: set[int] = set()
    for call in calls:
        for before, after in call.retries():
            number = before.seen.connection
            given_up = number != after.seen.connection and last_use[number] == before.place
            if given_up and number in open_now and number not in named:
                named.add(number)
                text = f"{before} came over connection {number}, which is still open and was not used again"
                yield Finding("leaked", text, (before.place,))
    left = sorted(open_now - named) if closed else []
    if left:
        text = f"the client is closed, but {len(left)} connections are open"
        yield Finding("leaked", text, tuple(last_use[number] for number in left if number in last_use))


def _settled(find: Callable[[], list[Finding]]) -> list[Finding]:
    """What is found still when the gateway has had the time to notice what the client closed."""
    patience = time.monotonic() + _SETTLE
    while (found := find()) and time.monotonic() < patience:
        time.sleep(_LOOK)  # noqa: TID251 - the other side of a socket has no clock of ours
    return found
