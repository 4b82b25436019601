"""`Resilience`: one brain for any number of clients, threads and event loops."""

from __future__ import annotations

import random
import threading
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from gip_resilience._announcer import Announcer
from gip_resilience._drains import Drains
from gip_resilience._forgotten import close_forgotten, forgotten
from gip_resilience._record import Record, Surroundings
from gip_resilience._watching import ConfigWatch
from gip_resilience.breaker import BreakerView, Control
from gip_resilience.clock import current, follow
from gip_resilience.config import Config, Overrides
from gip_resilience.engine import Call
from gip_resilience.events import CircuitOverruled, ConfigRejected, ConfigReloaded
from gip_resilience.gate import GateView
from gip_resilience.logs import LogObserver
from gip_resilience.memory import MemoryStore
from gip_resilience.metrics import Metrics, Present
from gip_resilience.state import CircuitKey, ScopeKey
from gip_resilience.target import clean_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gip_resilience.budget import BudgetView
    from gip_resilience.clock import Clock
    from gip_resilience.events import Event
    from gip_resilience.state import Store
    from gip_resilience.target import Target

__all__ = ["Breakers", "Resilience"]

_key = cast("Callable[[type[ScopeKey], tuple[str, str, str, str]], ScopeKey]", tuple.__new__)
"""Makes the key of a call without the call of ``ScopeKey.__new__`` in between, which costs more than the key."""

_overrides: ContextVar[tuple[tuple[int, Overrides], ...]] = ContextVar("gip_resilience.overrides", default=())
"""What `Resilience.override` put in force around the running code, by the brain it was said to."""


class Resilience:
    """Policy, shared state and counters of the clients it is mounted on.

    Args:
        config: the policy; `Config()` is the default one. A `ConfigWatch` (`Config.watch`) is followed: a call that
            starts after the file has changed has the new policy.
        store: shared state; a `MemoryStore` of its own by default.
        observers: objects that want to be told what happens; see `gip_resilience.events`.
        clock: where time comes from and how to wait; the machine's clock by default.
        chance: random numbers in [0, 1) for jitter; `random.random` by default.
        part: names the part of a model that a request is for, where several serve it (a deployment, a region):
            each then has a circuit, a gate and a budget of its own. It is given a `Target` and returns a label;
            an empty one means the model as a whole. What it raises comes out of the call.

    Raises:
        TypeError: ``config`` is not a `Config`, ``part`` cannot be called, or an observer observes nothing.

    Thread-safe and task-safe: one may serve threads, several asyncio loops and trio runs at once. It pickles
    as its configuration and its ``part``, and with a store that processes share (its password is then in the pickle,
    see `gip_resilience.redis.RedisStore`); circuits, gates and counts belong to a process (and so do observers).
    """

    def __init__(
        self,
        config: Config | ConfigWatch[Config] | None = None,
        *,
        store: Store | None = None,
        observers: Iterable[object] = (),
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        part: Callable[[Target], str] | None = None,
    ) -> None:
        self._watch = config if isinstance(config, ConfigWatch) else None
        self._version = 0
        if self._watch is not None:
            self._version, config = self._watch.version, self._watch.config
        config = Config() if config is None else _require_config(config)
        if part is not None and not callable(part):
            raise TypeError(
                f"part: expected a function of a gip_resilience.Target, got {type(part).__name__}"
            )
        observers = tuple(observers)
        self.config = config
        self._part = part
        self.clock: Clock = current() if clock is None else clock
        self.store: Store = MemoryStore(chance=chance) if store is None else store
        self.metrics = Metrics(config.observe, self._present)
        self._logs = LogObserver(self.clock.monotonic, config.observe)
        self._announcer = Announcer((self._logs, *observers), self.metrics.observer_failed)
        self.breakers = Breakers(self)
        self.drains = Drains(self.clock.monotonic)
        self._dropped: deque[Record] = deque()
        self._world = Surroundings(
            self.store, self.clock.monotonic, chance, self.metrics, self._announcer, self._dropped.append
        )
        self._reloading = threading.Lock()
        for observer in (self.store, *observers):
            if callable(bind := getattr(observer, "bind", None)):
                bind(self)
        if clock is None and (latest := follow(self)) is not self.clock:
            self.use_clock(latest)  # it was changed since
        if self._watch is not None and self._watch.reason:
            self.tell(ConfigRejected(self._watch.source, self._watch.reason))

    def __repr__(self) -> str:
        return f"Resilience({self.config!r}, store={self.store!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        store = self.store if getattr(self.store, "travels", False) else None
        return _remake, (type(self), self._watch or self.config, store, self._part)

    def reload(self, config: Config, *, source: str = "") -> None:
        """Put another configuration in force, for every call that starts from now on.

        Calls under way keep the policies they started with, streams included. What calls share takes the new
        settings at once and keeps what it knows: an open circuit stays open until it would have closed, a closed gate
        closed, a half-spent budget half-spent. What was said by `override` goes on top of the new configuration.

        Thread-safe: one reload after the other, and each call sees one configuration or the other. Where a file is
        watched, its next change takes the place of what was said here.

        Args:
            config: takes the place of the whole configuration; `Config.replace` makes one that differs in parts.
            source: where it comes from, for those who are told (`gip_resilience.events.ConfigReloaded`).

        Raises:
            TypeError: ``config`` is not a `Config`.
        """
        with self._reloading:
            changed = self._take(_require_config(config))
        self.tell(ConfigReloaded(source, changed))

    def _take(self, config: Config) -> tuple[str, ...]:
        """Returns what differs (needs the lock)."""
        before = self.config
        self.store.configure(config)
        self.metrics.limit(config.observe)
        self._logs.limit(config.observe)
        self.config = config
        return tuple(name for name in config.kinds if getattr(config, name) != getattr(before, name))

    def use_clock(self, clock: Clock) -> None:
        """Go by another clock, for every call that starts from now on.

        Args:
            clock: must not be behind the one before: circuits and gates have written down moments.
        """
        self.clock = clock
        self._logs.use_clock(clock.monotonic)
        self.drains.use_clock(clock.monotonic)
        self._world = self._world._replace(monotonic=clock.monotonic)
        if callable(bind := getattr(self.store, "bind", None)):
            bind(self)

    def check_config(self) -> None:
        """Look whether the watched file has changed, if it is time to. Every call does so as it starts.

        Never raises; without a watch it does nothing. For programs that make no calls for a while and want to be
        told of a wrong file all the same.
        """
        watch = self._watch
        if watch is None:
            return
        now = self.clock.monotonic()
        if watch.due(now):
            watch.check(now)
        if watch.version != self._version:
            self._catch_up(watch)

    def _catch_up(self, watch: ConfigWatch[Config]) -> None:
        with self._reloading:
            change = watch.since(self._version)
            if change is None:
                return
            self._version = change.version
            changed = None if change.config is None else self._take(change.config)
        if changed is not None:
            self.tell(ConfigReloaded(watch.source, changed))
        if change.reason:
            self.tell(ConfigRejected(watch.source, change.reason))

    def tell(self, event: Event) -> None:
        """Count an event, and tell observers of it; for stores and adapters."""
        self.metrics.count(event)
        self._announcer.tell(event)

    def _present(self) -> Present:
        """What there is now. Of several credentials of a model the worst is shown."""
        self._sweep()
        now = self.clock.monotonic()
        gates: dict[tuple[str, str], GateView] = {}
        for key, gate in self.store.gates(now).items():
            seen = gates.get((key.host, key.model))
            if seen is not None:
                gate = GateView(max(gate.remaining, seen.remaining), gate.waiting + seen.waiting)
            gates[key.host, key.model] = gate
        budgets: dict[tuple[str, str], BudgetView] = {}
        for key, budget in self.store.budgets().items():
            where = (key.host, key.model)
            budgets[where] = min(budgets.get(where, budget), budget)
        return Present(dict(self.store.circuits(now).items()), gates, budgets)

    def _sweep(self) -> None:
        """End the calls whose streams were dropped.

        The collector that found them may have been at work inside one of our locks, so it can only leave a note.
        """
        close_forgotten()
        while self._dropped:
            try:
                call = self._dropped.popleft()
            except IndexError:
                return
            call.stream_left("the stream was dropped before its end")

    @contextmanager
    def override(self, **changes: Any) -> Iterator[None]:
        """Change policy for the calls made inside the block, by this thread or task and those it starts.

        Works under every client and SDK, because it travels in a context variable. Blocks nest; the inner word
        wins. Other threads are not affected (a context variable does not cross into a thread by itself).

        Args:
            changes: the fields of `Overrides` by name (``deadline``, ``on_open``, ``model``, …); any other name is
                an error code or a policy class, its value a `Policy`.

        Raises:
            ConfigError: a name is unknown or a value is wrong.
        """
        outer = _overrides.get()
        overrides = Overrides.build(**changes)
        token = _overrides.set((*outer, (id(self), overrides)))
        try:
            yield
        finally:
            _overrides.reset(token)

    def call(
        self,
        host: str,
        credential: str,
        model: str,
        *,
        sdk: bool = False,
        single: bool = False,
        overrides: Overrides | None = None,
        part: str = "",
        target: Callable[[str], Target] | None = None,
        asked: Callable[[], tuple[str, str]] | None = None,
    ) -> Call:
        """Begin a call; for adapters.

        Args:
            host: host and, unless it is the scheme's own, port.
            credential: a digest of the request's key; see `gip_resilience.state.Store.digest`.
            model: the model's name, empty when the request does not say.
            sdk: whether an SDK above retries by itself and heeds ``x-should-retry``.
            single: whether that SDK is already retrying.
            overrides: for this request alone, over those of `override`.
            part: the part of the model it is for, unless the key function says.
            target: given the model's name, what the key function is shown; not called without such a function.
            asked: says method and URL of the request, for those who follow every call.

        Raises:
            TypeError: the key function returned something else than a string.
        """
        if self._dropped or forgotten:
            self._sweep()
        if self._watch is not None:
            self.check_config()
        config = self.config
        active = _overrides.get()
        if active or overrides is not None:
            mine = [said for brain, said in active if brain == id(self)]
            if overrides is not None:
                mine.append(overrides)
            for said in mine:
                config = said.apply(config)
                if isinstance(said.model, str):
                    model = said.model
        if self._part is not None and target is not None:
            label = self._part(target(model))
            if not isinstance(label, str):
                raise TypeError(f"part: expected the function to return a str, got {type(label).__name__}")
            part = clean_name(label)
        key = _key(ScopeKey, (host, credential, model, part))
        return Call(self._world, config, key, sdk=sdk, single=single, asked=asked)


def _remake(
    kind: type[Resilience],
    config: Config | ConfigWatch[Config],
    store: Store | None,
    part: Callable[[Target], str] | None,
) -> Resilience:
    return kind(config, store=store, part=part)


def _require_config(config: object) -> Config:
    if not isinstance(config, Config):
        raise TypeError(
            f"config: expected a gip_resilience.Config, got {type(config).__name__}"
            " (Config.from_dict and Config.load make one)"
        )
    return config


class Breakers:
    """The circuits of a `Resilience`, to read and to overrule.

    A circuit is named by its host and, for a model's own, the model; where a key function tells parts of it apart
    (``Resilience(part=...)``), the part comes third, and is part of the name: ``model@part``. Iterating gives the
    names, pairs of host and model. All methods are thread-safe.
    """

    def __init__(self, brain: Resilience) -> None:
        self._brain = brain

    def __repr__(self) -> str:
        states = {" ".join(filter(None, key)): str(view.state) for key, view in self.all().items()}
        return f"<Breakers {states}>"

    def all(self) -> dict[CircuitKey, BreakerView]:
        """Every circuit there is, as it looks now."""
        return self._brain.store.circuits(self._brain.clock.monotonic())

    def __iter__(self) -> Iterator[CircuitKey]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self.all())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and len(key) in {2, 3} and CircuitKey(*key) in self.all()

    def __getitem__(self, key: tuple[str, str] | tuple[str, str, str]) -> BreakerView:
        """The circuit ``breakers[host, model]`` or ``[host, model, part]``; ``model`` is empty for the host's own.

        Raises:
            KeyError: no call has needed that circuit yet.
        """
        return self.all()[CircuitKey(*key)]

    def force_open(self, host: str, model: str = "", part: str = "") -> None:
        """Refuse every call until `auto` or `reset` is said."""
        self._control(CircuitKey(host, model, part), Control.FORCED_OPEN)

    def force_close(self, host: str, model: str = "", part: str = "") -> None:
        """Let every call through, and learn nothing from them, until `auto` or `reset` is said."""
        self._control(CircuitKey(host, model, part), Control.FORCED_CLOSED)

    def metrics_only(self, host: str, model: str = "", part: str = "") -> None:
        """Go on deciding and counting, but let every call through: a shadow roll-out."""
        self._control(CircuitKey(host, model, part), Control.METRICS_ONLY)

    def auto(self, host: str, model: str = "", part: str = "") -> None:
        """Take an operator's decision away: the circuit decides again."""
        self._control(CircuitKey(host, model, part), Control.AUTO)

    def reset(self, host: str | None = None, model: str = "", part: str = "") -> None:
        """Close a circuit, or all of them, and forget what was learned. Observers are told of each that closes."""
        key = None if host is None else CircuitKey(host, model, part)
        for event in self._brain.store.reset(key, self._brain.clock.monotonic()):
            self._brain.tell(event)

    def _control(self, key: CircuitKey, control: Control) -> None:
        self._brain.store.control(key, control, self._brain.config, self._brain.clock.monotonic())
        self._brain.tell(CircuitOverruled(key, control))
