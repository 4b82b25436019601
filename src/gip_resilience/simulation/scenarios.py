"""Scenarios as users write them: TOML files, in terms that hold for any number of clients.

Traffic is what one client does; the gateway's size, its queue and its limit are multiples of the normal load.
`Scenario` turns that into a `Trouble` for so many clients. A wrong setting is a
`gip_resilience.config.ConfigError` that names the setting, what would do, and the file and line.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from gip_resilience._config_errors import ConfigError, show
from gip_resilience._config_fields import (
    Choice,
    Group,
    Integer,
    Kind,
    Number,
    Settings,
    Switch,
    Text,
    Texts,
    build,
)
from gip_resilience._config_sources import Document, parse_toml, read_toml
from gip_resilience.simulation.troubles import WATCHED, Break, Streams, Trouble

if TYPE_CHECKING:
    import os

POSITIVE = Number(above=0)
SECONDS = Number(at_least=0)
SHARE = Number(at_least=0, at_most=1)
LIMIT = Number(above=0, optional=True)
COUNT = Integer(at_least=1)

MOST_CALLS = 20_000_000
"""More than this would take a quarter of an hour for each policy, and gigabytes."""

MOST_CLIENTS = 100_000
"""Each has circuits, counters and a log of its own: gigabytes."""

MOST_WORDS = 10_000

BREAKS: tuple[Break, ...] = ("end", "reset", "stall", "error")
SHIPPED = ("outage", "brownout", "overload", "ratelimit", "dead-model", "flapping", "streams")
"""The scenarios that come with the library, in the order in which they are listed."""


def _require_at_most(path: str, value: int, most: int) -> None:
    if value > most:
        raise ConfigError(path, f"int >= 1 and <= {most}", show(value))


class Traffic(Settings, frozen=True, kw_only=True):
    """What the clients do.

    Attributes:
        clients: how many there are.
        processes: how many processes they share, each with a `gip_resilience.Resilience` of its own; 0 for one each.
        call_every: seconds from one call of a client to its next, on average.
        arrivals: ``"random"`` (a Poisson process) or ``"even"``.
        deadline: seconds a user waits for a call, unless the configuration has a deadline; ``"none"`` for no limit.
        attempt_timeout: seconds after which the HTTP client gives up a request that is not answered, and a stream
            that is silent.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "clients": COUNT,
        "processes": Integer(at_least=0),
        "call_every": POSITIVE,
        "arrivals": Choice("random", "even"),
        "deadline": LIMIT,
        "attempt_timeout": POSITIVE,
    }
    location: ClassVar[str] = "traffic"

    clients: int = 1000
    processes: int = 0
    call_every: float = 15.0
    arrivals: Literal["random", "even"] = "random"
    deadline: float | None = 60.0
    attempt_timeout: float = 10.0

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        _require_at_most("traffic.clients", self.clients, MOST_CLIENTS)


class GatewaySize(Settings, frozen=True, kw_only=True):
    """How large the gateway is, and how fast.

    Attributes:
        service: seconds of work on a request, on average.
        spread: standard deviation of that time's logarithm (it is lognormal); 0 for always the same.
        capacity: requests it can work on at once, as a multiple of what the normal load needs.
        queue: seconds of work it lets wait; a request more is refused with ``model_overloaded``.
        models: how many models the calls are spread over.
        answers: ``"plain"``, or ``"streams"`` for event streams; then ``service`` is the time to the last byte.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "service": POSITIVE,
        "spread": SECONDS,
        "capacity": POSITIVE,
        "queue": SECONDS,
        "models": COUNT,
        "answers": Choice("plain", "streams"),
    }
    location: ClassVar[str] = "gateway"

    service: float = 1.0
    spread: float = 0.5
    capacity: float = 1.25
    queue: float = 12.0
    models: int = 1
    answers: Literal["plain", "streams"] = "plain"


class Limit(Settings, frozen=True, kw_only=True):
    """The provider's rate limit.

    Attributes:
        rate: requests it accepts, as a multiple of the normal load; ``"none"`` for no limit.
        window: seconds of its fixed window; a 429 says how long it lasts.
        told: whether good answers say what is left of the quota.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {"rate": LIMIT, "window": POSITIVE, "told": Switch()}
    location: ClassVar[str] = "limit"

    rate: float | None = None
    window: float = 20.0
    told: bool = False


class StreamKind(Settings, frozen=True, kw_only=True):
    """What streams are like, where answers are streams.

    Attributes:
        words: of an answer; an event each.
        repeatable: share of the calls that ask for the same answer every time (temperature 0, or a seed).
        divergent: share of the repeated answers that differ all the same.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {"words": COUNT, "repeatable": SHARE, "divergent": SHARE}
    location: ClassVar[str] = "streams"

    words: int = 40
    repeatable: float = 0.5
    divergent: float = 0.0

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        _require_at_most("streams.words", self.words, MOST_WORDS)


class FaultKind(Settings, frozen=True, kw_only=True):
    """What goes wrong, and when.

    Attributes:
        kind: ``"none"``; ``"refuse"``: every request is answered with an error at once; ``"silence"``: none is
            answered; ``"errors"``: a share of them fails; ``"hang"``: requests keep their place for ``held`` seconds
            and come to nothing; ``"load"``: the clients call more often; ``"streams"``: streams break.
        start: seconds from the beginning of the run.
        length: seconds it lasts.
        every: seconds from one beginning to the next; ``"none"`` for once.
        status: of the error.
        code: of the error; ``"none"`` for a page of HTML, as a proxy answers.
        share: of the requests that fail (``errors``), or of the streams that break (``streams``).
        period: seconds it stays on, then off, and so on; ``"none"`` for a fault that stays on.
        held: seconds a request hangs (``hang``).
        load: multiple of the normal load (``load``).
        models: how many of the gateway's models it is about; ``"none"`` for all.
        breaks: how streams break, one of them at random: ``"end"`` (in order, too early), ``"reset"``, ``"stall"``,
            ``"error"`` (an event says so, with ``code``, or ``stream_error`` without one).

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "kind": Choice("none", "refuse", "silence", "errors", "hang", "load", "streams"),
        "start": SECONDS,
        "length": POSITIVE,
        "every": LIMIT,
        "status": Integer(at_least=400),
        "code": Text(),
        "share": SHARE,
        "period": LIMIT,
        "held": POSITIVE,
        "load": POSITIVE,
        "models": Integer(at_least=0),
        "breaks": Texts(),
    }
    location: ClassVar[str] = "fault"

    kind: Literal["none", "refuse", "silence", "errors", "hang", "load", "streams"] = "none"
    start: float = 120.0
    length: float = 60.0
    every: float | None = None
    status: int = 503
    code: str = "none"
    share: float = 1.0
    period: float | None = None
    held: float = 15.0
    load: float = 2.0
    models: int = 0
    breaks: tuple[str, ...] = BREAKS

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if self.status > 599:
            raise ConfigError("fault.status", "int >= 400 and <= 599", show(self.status))
        if not self.code.isascii() or not self.code.replace("_", "a").isalnum():
            raise ConfigError("fault.code", "an error code of letters, digits and _", show(self.code))
        for wrong in [name for name in self.breaks if name not in BREAKS] or (
            [""] if not self.breaks else []
        ):
            raise ConfigError("fault.breaks", f"some of {', '.join(map(show, BREAKS))}", show(wrong))
        if self.every is not None and self.every < self.length + WATCHED:
            raise ConfigError(
                "fault.every",
                f"float >= fault.length + {WATCHED:g} ({self.length + WATCHED:g})",
                show(self.every),
            )


class Scenario(Settings, frozen=True, kw_only=True):
    """A scenario. The file has the same names.

    Attributes:
        summary: what it is, in a line.
        minutes: how long the run is.
        traffic: what the clients do.
        gateway: how large it is.
        limit: its rate limit.
        streams: what its streams are like.
        fault: what goes wrong.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or two of them do not go together.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "summary": Text(),
        "minutes": POSITIVE,
        "traffic": Group(Traffic),
        "gateway": Group(GatewaySize),
        "limit": Group(Limit),
        "streams": Group(StreamKind),
        "fault": Group(FaultKind),
    }

    summary: str = "a scenario of your own"
    minutes: float = 60.0
    traffic: Traffic = Traffic()
    gateway: GatewaySize = GatewaySize()
    limit: Limit = Limit()
    streams: StreamKind = StreamKind()
    fault: FaultKind = FaultKind()

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        fault = self.fault
        needed = (fault.start + fault.length + WATCHED) / 60.0
        if self.minutes < needed:
            raise ConfigError(
                "minutes", f"float >= {needed:g}, for the fault and the minute after it", show(self.minutes)
            )
        traffic = self.traffic
        calls = self.minutes * 60.0 * traffic.clients / traffic.call_every * max(1.0, fault.load)
        if not calls <= MOST_CALLS:
            expected = f"so many that no more than {MOST_CALLS} calls are made"
            raise ConfigError("traffic.call_every", expected, show(traffic.call_every))
        if fault.kind == "streams" and self.gateway.answers != "streams":
            raise ConfigError("gateway.answers", '"streams", as it is them that break', show("plain"))
        if fault.models > self.gateway.models:
            raise ConfigError(
                "fault.models", f"int <= gateway.models ({self.gateway.models})", show(fault.models)
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A scenario from nested plain values.

        Raises:
            ConfigError: a name is unknown or a value is wrong.
        """
        return build(cls, values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """A scenario from a TOML file.

        Raises:
            ConfigError: the file is not TOML, or something in it is wrong.
            OSError: the file cannot be read.
        """
        return cls._of(read_toml(path))

    @classmethod
    def shipped(cls, name: str) -> Self:
        """One of those that come with the library; *name* is one of `SHIPPED`."""
        return cls._of(parse_toml(text_of(name), f"{name}.toml"))

    @classmethod
    def _of(cls, document: Document) -> Self:
        try:
            return cls.from_dict(document.values)
        except ConfigError as error:
            raise error.at(document.locate(error.path)) from None

    def changed(
        self, *, clients: int | None = None, processes: int | None = None, minutes: float | None = None
    ) -> Self:
        """The same with another number of clients or processes, or another length.

        Raises:
            ConfigError: the fault does not fit into so many minutes.
        """
        values = self.to_dict()
        if minutes is not None:
            values["minutes"] = minutes
        for name, value in (("clients", clients), ("processes", processes)):
            if value is not None:
                values["traffic"] = {**values.get("traffic", {}), name: value}
        return type(self).from_dict(values)

    def trouble(self, name: str) -> Trouble:
        """The run this is, in absolute numbers."""
        traffic, gateway, limit, fault = self.traffic, self.gateway, self.limit, self.fault
        load = traffic.clients / traffic.call_every
        busy = load * gateway.service
        plain = fault.code == "none"
        kind = "none" if fault.kind == "load" else fault.kind
        streams = None
        if gateway.answers == "streams":
            streams = Streams(
                self.streams.words,
                self.streams.repeatable,
                self.streams.divergent,
                tuple(name for name in BREAKS if name in fault.breaks),
                "stream_error" if plain else fault.code,
            )
        return Trouble(
            name,
            kind,
            f"{fault.status}" if plain else f"{fault.status} {fault.code}",
            load=load,
            fault_load=load * fault.load if fault.kind == "load" else None,
            start=fault.start,
            length=fault.length,
            after=self.minutes * 60.0 - fault.start - fault.length,
            slots=max(1, round(busy * gateway.capacity)),
            queue=round(gateway.queue * load),
            share=fault.share,
            held=fault.held,
            period=fault.period or 0.0,
            models=gateway.models,
            hit=fault.models,
            limit=0 if limit.rate is None else max(1, round(limit.rate * load * limit.window)),
            window=limit.window,
            quota=limit.told,
            every=fault.every or 0.0,
            service=gateway.service,
            spread=gateway.spread,
            patience=traffic.attempt_timeout,
            even=traffic.arrivals == "even",
            streams=streams,
        )


def text_of(name: str) -> str:
    """The TOML of a shipped scenario; a start for one's own."""
    return (resources.files(__package__) / "shipped" / f"{name}.toml").read_text(encoding="utf-8")
