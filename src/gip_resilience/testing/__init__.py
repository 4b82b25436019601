"""What tests of resilient code need; the tests of this library use the same.

* `FakeClock`: goes into ``Resilience(clock=...)``. Every pause is over at once, and written down.
* `instant`: the same for code that makes its own `Resilience` where a test cannot reach it.
* `Gateway`: a real server on loopback that fails on a plan (`FaultPlan`); see `gip_resilience.gateway`.
* `ScriptedUpstream`: plays the same plans inside the client, without a socket and without waiting.
* `judge` and `assert_resilient`: what the client did wrong, read off the record of either.
* ``gip_resilience.testing.pytest_plugin``: fixtures of all that, for those who ask for them.

```python
from gip_resilience.gateway import Error, Ok

clock = FakeClock()
upstream = ScriptedUpstream([Error("model_overloaded", retry_after=2), Ok()], clock=clock)
with httpx.Client(transport=upstream.httpx_transport(), base_url=upstream.base_url) as client:
    gr.mount(client, gr.Resilience(clock=clock))
    assert client.post("/chat/completions", json=question).status_code == 200
assert_resilient(upstream, answered=1)
```
"""

from gip_resilience.gateway import FaultPlan, Gateway, StreamOptions
from gip_resilience.testing.clocks import FakeClock, instant
from gip_resilience.testing.judging import Finding, assert_resilient, judge
from gip_resilience.testing.upstream import ScriptedUpstream

__all__ = [
    "FakeClock",
    "FaultPlan",
    "Finding",
    "Gateway",
    "ScriptedUpstream",
    "StreamOptions",
    "assert_resilient",
    "instant",
    "judge",
]
