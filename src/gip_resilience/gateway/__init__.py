"""A local GIP gateway that fails on request, for tests and demonstrations.

```python
with Gateway(FaultPlan.script([Error("model_overloaded"), Ok()])) as gateway:
    client = openai.OpenAI(base_url=gateway.base_url, api_key="any")
    ...
    assert [seen.code for seen in gateway.requests] == ["model_overloaded", None]
```

It listens on 127.0.0.1 only, needs no network and no key, and keeps no secret it is sent. Nothing in it is
meant for production.
"""

from gip_resilience.gateway.limits import RateLimit
from gip_resilience.gateway.plan import FaultPlan, PlanError, Rule
from gip_resilience.gateway.recording import Seen
from gip_resilience.gateway.replies import (
    BreakStream,
    Close,
    EmptyReply,
    Error,
    Garbage,
    Gzip,
    HalfBody,
    HalfHeaders,
    Html,
    Huge,
    Ok,
    RateLimited,
    Raw,
    Redirect,
    Reply,
    Reset,
    Slow,
    SlowBody,
    Stall,
    Status,
    WrongType,
)
from gip_resilience.gateway.server import Gateway, serve
from gip_resilience.gateway.streaming import StreamOptions

__all__ = [
    "BreakStream",
    "Close",
    "EmptyReply",
    "Error",
    "FaultPlan",
    "Garbage",
    "Gateway",
    "Gzip",
    "HalfBody",
    "HalfHeaders",
    "Html",
    "Huge",
    "Ok",
    "PlanError",
    "RateLimit",
    "RateLimited",
    "Raw",
    "Redirect",
    "Reply",
    "Reset",
    "Rule",
    "Seen",
    "Slow",
    "SlowBody",
    "Stall",
    "Status",
    "StreamOptions",
    "WrongType",
    "serve",
]
