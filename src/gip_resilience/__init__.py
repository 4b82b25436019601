"""Resilience middleware for requests, httpx and httpx2 that decides by the error code.

    import gip_resilience as gr

    res = gr.mount(client)   # a requests.Session, an httpx or httpx2 client, or an SDK object that owns one

Importing this package imports no HTTP library, and next to nothing else: a name below is fetched from its module
when it is first used (PEP 562), and each adapter when it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from gip_resilience._version import __version__

if TYPE_CHECKING:
    from gip_resilience import hints, sse
    from gip_resilience._gip import Code
    from gip_resilience._report import Attempt, CallReport, Hop, report
    from gip_resilience._watching import ConfigWatch
    from gip_resilience.above import outer_retry
    from gip_resilience.clock import Clock, SystemClock
    from gip_resilience.config import (
        BodyConfig,
        BreakerConfig,
        BudgetConfig,
        Config,
        ConfigError,
        GateConfig,
        ObserveConfig,
        Overrides,
        StoreConfig,
        StreamConfig,
    )
    from gip_resilience.errors import (
        CircuitOpenError,
        DeadlineExceededError,
        RateLimitedError,
        ResilienceError,
        StreamDivergedError,
        StreamInterruptedError,
    )
    from gip_resilience.facts import Category, Fact, Retry, Scope, Verdict
    from gip_resilience.hints import Hint
    from gip_resilience.memory import MemoryStore
    from gip_resilience.mounting import mount, unmount
    from gip_resilience.policy import Policy
    from gip_resilience.resilience import Resilience
    from gip_resilience.target import Target
    from gip_resilience.taxonomy import classify

__all__ = [
    "Attempt",
    "BodyConfig",
    "BreakerConfig",
    "BudgetConfig",
    "CallReport",
    "Category",
    "CircuitOpenError",
    "Clock",
    "Code",
    "Config",
    "ConfigError",
    "ConfigWatch",
    "DeadlineExceededError",
    "Fact",
    "GateConfig",
    "Hint",
    "Hop",
    "MemoryStore",
    "ObserveConfig",
    "Overrides",
    "Policy",
    "RateLimitedError",
    "Resilience",
    "ResilienceError",
    "Retry",
    "Scope",
    "StoreConfig",
    "StreamConfig",
    "StreamDivergedError",
    "StreamInterruptedError",
    "SystemClock",
    "Target",
    "Verdict",
    "__version__",
    "classify",
    "hints",
    "mount",
    "outer_retry",
    "report",
    "sse",
    "unmount",
]

_HOMES = {
    "_gip": ("Code",),
    "_report": ("Attempt", "CallReport", "Hop", "report"),
    "_watching": ("ConfigWatch",),
    "above": ("outer_retry",),
    "clock": ("Clock", "SystemClock"),
    "config": (
        "BodyConfig",
        "BreakerConfig",
        "BudgetConfig",
        "Config",
        "ConfigError",
        "GateConfig",
        "ObserveConfig",
        "Overrides",
        "StoreConfig",
        "StreamConfig",
    ),
    "errors": (
        "CircuitOpenError",
        "DeadlineExceededError",
        "RateLimitedError",
        "ResilienceError",
        "StreamDivergedError",
        "StreamInterruptedError",
    ),
    "facts": ("Category", "Fact", "Retry", "Scope", "Verdict"),
    "hints": ("Hint", "hints"),
    "memory": ("MemoryStore",),
    "mounting": ("mount", "unmount"),
    "policy": ("Policy",),
    "resilience": ("Resilience",),
    "sse": ("sse",),
    "target": ("Target",),
    "taxonomy": ("classify",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{home}")
    value: object = module if name == home else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
