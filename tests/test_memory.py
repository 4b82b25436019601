"""Memory stays bounded whatever names there are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from pathlib import Path
import gip_resilience as gr
from gip_resilience.events import AttemptEnded
from gip_resilience.taxonomy import classify
from gip_resilience._answers import success

CALLS, MODELS = int(sys.argv[1]), 10_000
names = [f"vendor/family/model-{number}" for number in range(MODELS)]
good, bad = success(200), classify(503, [], b'{"error": {"code": "model_unavailable"}}')
brain = gr.Resilience()

def call(number):
    one = brain.call("gateway.example", "digest", names[number // 10 % MODELS])
    if one.admit():
        if number % 97:
            one.succeed(good)
        else:
            one.judge(bad)
    else:
        one.enter()
    one.close()

def held():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024

before = held()
for number in range(CALLS):
    call(number)
seen = brain.metrics.snapshot()
grown = held() - before
print(json.dumps({"grown": grown, "total": seen.total(), "names": len({key[1] for key in seen.calls})}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_calls_over_ten_thousand_models_stay_under_twenty_megabytes() -> None:
    """Counters, circuits, gates and budgets together; every call is counted."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "1000000"], capture_output=True, text=True, check=True, timeout=300
    )

    found = json.loads(ran.stdout)
    assert found["total"] == 1_000_000
    assert found["names"] == 201
    assert found["grown"] < 20e6, found
