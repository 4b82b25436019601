"""`Resilience`: one brain for any number of clients, threads and event loops."""

from __future__ import annotations

import random
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from gip_resilience._drains import Drains
from gip_resilience._record import Surroundings
from gip_resilience.breaker import BreakerView, Control
from gip_resilience.clock import SystemClock
from gip_resilience.config import Config, Overrides
from gip_resilience.engine import Call
from gip_resilience.events import Announcer, CircuitChanged
from gip_resilience.logs import LogObserver
from gip_resilience.metrics import Metrics
from gip_resilience.state import CircuitKey, MemoryStore, ScopeKey
from gip_resilience.target import clean_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gip_resilience.clock import Clock
    from gip_resilience.state import Store
    from gip_resilience.target import Target

_overrides: ContextVar[tuple[tuple[int, Overrides], ...]] = ContextVar("gip_resilience.overrides", default=())
"""What `Resilience.override` put in force around the running code, by the brain it was said to."""


class Resilience:
    """Policy, shared state and counters of the clients it is mounted on.

    Args:
        config: the policy; `Config()` is the default one.
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
    as its configuration and its ``part``: circuits, gates and counts belong to a process (and so do observers).
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        store: Store | None = None,
        observers: Iterable[object] = (),
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
        part: Callable[[Target], str] | None = None,
    ) -> None:
        if config is None:
            config = Config()
        elif not isinstance(config, Config):
            raise TypeError(
                f"config: expected a gip_resilience.Config, got {type(config).__name__}"
                " (Config.from_dict and Config.load make one)"
            )
        if part is not None and not callable(part):
            raise TypeError(
                f"part: expected a function of a gip_resilience.Target, got {type(part).__name__}"
            )
        self.config = config
        self._part = part
        self.clock: Clock = SystemClock() if clock is None else clock
        self.store: Store = MemoryStore(chance=chance) if store is None else store
        self.metrics = Metrics()
        announcer = Announcer((LogObserver(), *observers))
        self.breakers = Breakers(self, announcer)
        self.drains = Drains(self.clock.monotonic)
        self._world = Surroundings(self.store, self.clock.monotonic, chance, self.metrics, announcer)

    def __repr__(self) -> str:
        return f"Resilience({self.config!r}, store={self.store!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config,), None if self._part is None else {"_part": self._part}

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
    ) -> Call:
        """Begin a call; for adapters.

        Args:
            host: host and, unless it is the scheme's own, port.
            credential: a digest of the request's key; see `gip_resilience.target.credential_digest`.
            model: the model's name, empty when the request does not say.
            sdk: whether an SDK above retries by itself and heeds ``x-should-retry``.
            single: whether that SDK is already retrying.
            overrides: for this request alone, over those of `override`.
            part: the part of the model it is for, unless the key function says.
            target: given the model's name, what the key function is shown; not called without such a function.

        Raises:
            TypeError: the key function returned something else than a string.
        """
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
        return Call(self._world, config, ScopeKey(host, credential, model, part), sdk=sdk, single=single)


class Breakers:
    """The circuits of a `Resilience`, to read and to overrule.

    A circuit is named by its host and, for a model's own, the model; where a key function tells parts of it apart
    (``Resilience(part=...)``), the part comes third, and is part of the name: ``model@part``. Iterating gives the
    names, pairs of host and model. All methods are thread-safe.
    """

    def __init__(self, brain: Resilience, announcer: Announcer) -> None:
        self._brain = brain
        self._announcer = announcer

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
        for circuit, change in self._brain.store.reset(key):
            self._announcer.tell(CircuitChanged(circuit, change))

    def _control(self, key: CircuitKey, control: Control) -> None:
        self._brain.store.control(key, control, self._brain.config)
