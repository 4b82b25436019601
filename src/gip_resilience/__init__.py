"""Resilience middleware for requests, httpx and httpx2 that decides by the error code.

    import gip_resilience as gr

    res = gr.mount(client)   # a requests.Session, an httpx or httpx2 client, or an SDK object that owns one

Importing this package imports no HTTP library; each adapter is imported when it is needed.
"""

from gip_resilience import hints
from gip_resilience._report import Attempt, CallReport, report
from gip_resilience._version import __version__
from gip_resilience.clock import Clock, SystemClock
from gip_resilience.errors import (
    CircuitOpenError,
    DeadlineExceededError,
    RateLimitedError,
    ResilienceError,
)
from gip_resilience.hints import Hint
from gip_resilience.mounting import mount, unmount
from gip_resilience.policy import (
    BodyConfig,
    BreakerConfig,
    BudgetConfig,
    Config,
    ConfigError,
    GateConfig,
    Overrides,
    Policy,
)
from gip_resilience.resilience import Resilience
from gip_resilience.state import MemoryStore
from gip_resilience.taxonomy import Category, Code, Fact, Retry, Scope, Verdict, classify

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
    "DeadlineExceededError",
    "Fact",
    "GateConfig",
    "Hint",
    "MemoryStore",
    "Overrides",
    "Policy",
    "RateLimitedError",
    "Resilience",
    "ResilienceError",
    "Retry",
    "Scope",
    "SystemClock",
    "Verdict",
    "__version__",
    "classify",
    "hints",
    "mount",
    "report",
    "unmount",
]
