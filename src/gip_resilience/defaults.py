"""Every number that holds by default: what it is, why it is that, and what others chose.

Change them through `gip_resilience.Config`, not here. Times are in seconds. Where it says *simulated*, the
shipped engine was run against a simulated gateway on a virtual clock: ``docs/overload.md`` for the defaults, and for
another value ``python -m benchmarks.overload --policy ours --config '{"breaker": {"ratio": 0.1}}'`` and the like,
with 200 clients of two calls a second unless something else is said. The numbers of others are from their sources or
documentation: Polly 8, resilience4j 2, Finagle, Linkerd, Envoy, gRPC A6 (client retries), the AWS SDKs' standard mode
of 2020 and 2026, Google's SRE book, the OpenAI SDK 3.54 and ``httpx-retries``; those of Hystrix, and Linkerd's of
failures in a row, are quoted from memory.
"""

from __future__ import annotations

from typing import Final

# ---- circuit breaker -------------------------------------------------------------------------------------

BREAKER_WINDOW: Final = 10.0
"""Length of the sliding window. Long enough for twenty calls of a process that makes two a second, short enough to
forget an outage. Hystrix 10 s; Polly, Finagle 30 s; resilience4j counts calls (100) instead."""

BREAKER_BUCKETS: Final = 10
"""Parts of the window, so that one second is the most by which it is off. Linkerd and Hystrix 10."""

BREAKER_RATIO: Final = 0.5
"""Failed share that opens. A tenth of 100 calls in 30 s (Polly) makes 78 % success of a harmless 10 % brown-out
for a client of 20 calls a second, where this gives 99.99 % (simulated). At 0.8 an outage is noticed later: 0.26
requests a call for 0.20. resilience4j and Hystrix 0.5; Finagle 0.2."""

BREAKER_MIN_CALLS: Final = 20
"""Calls before the share counts. Half of ten fail by chance often enough to open circuits in a 30 % brown-out: 81 %
success with 10, 82.5 % with 20, and nothing is lost in an outage, where failures in a row open first (simulated).
With 100 in 30 s (Polly) or 100 calls (resilience4j) the circuit of a process that makes two calls a second never
opens. Hystrix 20, Finagle 5."""

BREAKER_CONSECUTIVE: Final = 5
"""Failures in a row that open while the window holds fewer calls than that: for clients with little traffic. As
a rule for everybody it cuts a 30 % brown-out from 82 % success to 56 % for a client of 20 calls a second
(simulated). More than the attempts of any policy, so that one call cannot open a circuit by itself. Finagle 5,
Linkerd 7."""

BREAKER_SLOW_CALL: Final = None
"""Duration from which a call counts as slow. Off: a good answer of a language model takes from one second to
many minutes, and no number fits two models. resilience4j 60 s; Polly, Hystrix and Finagle have none."""

BREAKER_SLOW_RATIO: Final = 0.8
"""Slow share that opens, where slowness counts at all. resilience4j 1.0, with which one quick call in the window
hides nine that hang."""

BREAKER_OPEN_TIME: Final = 5.0
"""How long a circuit stays open. Recovery takes about this long: 7 s after an outage, 6 s after silence
(simulated). Polly, Hystrix and Finagle's first 5 s; resilience4j 60 s."""

BREAKER_OPEN_JITTER: Final = 0.2
"""Part of it by which it varies, so that processes that opened together do not probe together. Finagle 0.5;
Polly, resilience4j and Hystrix none."""

BREAKER_GROWTH: Final = 1.0
"""Factor on the open time for each time a probe fails. None: doubling up to 30 s makes 14.5 s of the 7 s until
an outage is over, for 0.14 requests a call in place of 0.20 (simulated). Finagle doubles from 5 s to 300 s,
Linkerd from 1 s to 60 s."""

BREAKER_MAX_OPEN: Final = 120.0
"""Longest open time, whatever growth, jitter and the server's hints make of it: the longest wait anybody is
asked to bear here (`MAX_HINT`)."""

BREAKER_SUCCESS_THRESHOLD: Final = 1
"""Probes that must succeed, one after the other, to close. One answer of a language model is seconds of good
work, and each further probe is a further wait. Polly, Hystrix, Finagle and Linkerd 1; resilience4j 10."""

BREAKER_PROBE_LEASE: Final = None
"""How long a probe keeps everybody else away; ``None`` is the longest open time, 6 s. A probe that hangs, or
whose process died, delays the next by that and no more. Exactly 5 s sends 0.31 requests a call in a minute of
silence, 6 s 0.30 (simulated). resilience4j waits for its probes without end unless told otherwise."""

# ---- rate-limit gate -------------------------------------------------------------------------------------

GATE_SPREAD: Final = 0.5
"""Those who wait are released over this multiple of the wait. Releasing all at the reset puts 21 times the mean
load into the first second, 0.5 2.8 times at a 99th percentile of 14 s, 1.0 1.7 times at 24 s (simulated). The
AWS SDKs add up to 5 s, the OpenAI SDK nothing."""

GATE_MAX_WAIT: Final = 120.0
"""A hint beyond it does not close the gate for longer: twice the longest window (a minute) that quotas of language
models are counted in. The OpenAI SDK does not wait for longer than 120 s either."""

GATE_BASE_DELAY: Final = 2.0
"""How long the gate closes when the server gives no hint. The AWS SDKs' base after throttling is 1 s for each
caller on its own; here one answer stops all of them."""

GATE_MAX_DELAY: Final = 30.0
"""The guess doubles up to this: half of the common window of a minute. A guess that stayed short would bring
everybody back every two seconds for as long as the window lasts. The AWS SDKs 20 s."""

GATE_MAX_WAITERS: Final = 1000
"""Callers that may wait at one gate. A queue without a bound turns a rate limit into answers that come when nobody
wants them any more; beyond this the caller is told at once. The rivals have no line, and so no end of it."""

GATE_PROBE_LEAD: Final = 1.0
"""Seconds by which the first caller goes ahead of the others at most: long enough for a 429 to come back, by
which the others learn that it is too early."""

GATE_PROBE_SHARE: Final = 0.25
"""Part of the spread that this lead may take, so that a gate that was closed for 40 ms is not held for a
second."""

GATE_EXHAUSTED: Final = "certain"
"""Believe a success that says ``remaining: 0`` as far as it is certain. OpenAI's and Anthropic's resets are
when a bucket is full again: whoever waits for that, and its spread, gets a minute's quota in a minute and a
half. The SDKs of OpenAI and AWS do not read a success."""

# ---- retry budget ----------------------------------------------------------------------------------------

BUDGET_CAPACITY: Final = 10.0
"""Tokens at the start, and the most there can be. What an outage costs the server is this, times the processes,
over the calls they make. gRPC 10; the AWS SDKs 500 at 5 a retry (100 retries) until 2026, then 500 at 14; Envoy
20 % of what is in flight, at least 3."""

BUDGET_MIN_CAPACITY: Final = 2.0
"""What the capacity never shrinks below: one retry of the dearest kind. While one model of five hangs, 1,000
processes of 0.4 calls a second send 1.09 requests a call with ten tokens each, at a 99th percentile of 7.4 s;
with two 1.03 at 3.2 s (simulated). The AWS SDKs, gRPC and Envoy do not look at the rate; Envoy's least is 3."""

BUDGET_PER_RATE: Final = 5.0
"""Tokens of capacity per own call per second: five seconds' worth of everybody failing. Finagle keeps 10 s of
deposits."""

BUDGET_HOST_FACTOR: Final = 2.0
"""How many times the tokens of one of its scopes a host has for all of them. One model that is down leaves half
of them to the others; fifty that are down cost what two do. gRPC and the AWS SDKs have one budget per server or
client."""

BUDGET_RATE_WINDOW: Final = 10.0
"""Over which the caller's own rate is measured: the breaker's window, so that both see the same."""

BUDGET_DEPOSIT: Final = 0.2
"""Tokens a success brings back: up to one retry for five successes. With 0.1 (gRPC) a 10 % brown-out brings 99.0 %
success to a client of 20 calls a second, with 0.2 99.99 % (simulated). Finagle and SRE deposit per *request*, and
Finagle 10 a second on top, which feeds the storm that a budget exists to end."""

# ---- calls -----------------------------------------------------------------------------------------------

DEADLINE: Final = None
"""For the whole call. Off: only the caller knows. gRPC and Polly none; the OpenAI SDK 600 s per attempt."""

MAX_ELAPSED: Final = 120.0
"""After this no further attempt starts: two windows of a minute, so that a rate limit can be waited for.
``backoff`` and ``tenacity`` none."""

MAX_HINT: Final = 120.0
"""A longer wait is not begun; whoever called is told instead. The OpenAI SDK does the same beyond the same 120
s; the AWS SDKs cut a hint to 5 s more than their own wait, and come back too early."""

HINT_JITTER: Final = 0.1
"""Part of a hint that may be added to it. Upward only: a server that says 10 s means not before 10 s. The OpenAI
SDK subtracts up to 25 % of its own waits."""

HINT_JITTER_CAP: Final = 1.0
"""What is added to a hint at most: beyond a second more spread buys nothing but delay."""

# ---- policies: attempts, base and longest wait, cost in tokens -----------------------------------------------

RATE_LIMIT: Final = (4, 2.0, 60.0, 1.0)
"""A rate limit is lifted by waiting, so more waits than elsewhere are worth it; the longest is a minute, the common
window."""

OVERLOAD: Final = (4, 1.0, 30.0, 1.0)
"""``model_overloaded``: the server says that it is a matter of time. OpenAI 3 attempts from 0.5 s,
the AWS SDKs 3 from 1 s."""

SERVER: Final = (3, 0.25, 8.0, 1.0)
"""``model_server_error``: a fault of one moment. AWS 2026: 3 attempts, 0.05 to 20 s; OpenAI 3, 0.5 to 8 s;
``httpx-retries`` 11 attempts; SRE at most 3."""

TIMEOUT: Final = (2, 0.5, 8.0, 2.0)
"""The request may have been executed, at the price of a whole answer: once more, and it counts double. The AWS SDKs
charged double for it until 2026."""

UNAVAILABLE: Final = (1, 0.5, 8.0, 1.0)
"""``model_unavailable``: the circuit opens instead."""

STREAM: Final = (3, 0.25, 8.0, 1.0)
"""A stream that broke is taken up twice at most. Nobody else takes one up."""

INTERMEDIARY: Final = (3, 0.5, 8.0, 1.0)
"""502 and 503 without a code of the gateway's: "temporarily unavailable". OpenAI 3 attempts, ``httpx-retries``
11."""

LIMITED: Final = (2, 0.5, 8.0, 2.0)
"""504 and 5xx that nobody knows: once more, at double cost, since something may have been executed."""

CONNECT: Final = (3, 0.1, 2.0, 1.0)
"""Nothing was sent, so a retry is cheap and safe; a restarted listener is back in tenths of a second.
``requests`` 0 unless asked."""

POOL: Final = (1, 0.1, 2.0, 1.0)
"""The pool is ours: what is short is our own connections, and a retry needs one more."""

OTHER: Final = (1, 0.5, 8.0, 1.0)
"""Everything that cannot succeed: the caller's own errors. No rival knows them apart from the rest by their
code."""

# ---- bodies and streams, in bytes and seconds ------------------------------------------------------------

BODY_REPLAY_LIMIT: Final = 1 << 20
"""Of a request body recorded while it is sent. Chat requests are kilobytes; what carries images is sent from memory
and needs no recording."""

BODY_ERROR_LIMIT: Final = 64 << 10
"""Read of an error's body to learn its code: error pages are a few kilobytes, and a hostile one is endless."""

BODY_ERROR_TIMEOUT: Final = 5.0
"""That reading may take: an error is written at once, or by nobody."""

BODY_JSON_LIMIT: Final = 1 << 20
"""Up to which a JSON answer is read under the retry. Chat answers are far below; what is longer is not held in
memory twice."""

STREAM_MAX_EVENT: Final = 16 << 20
"""One event: an image as base64 fits. A longer one is passed through unguarded."""

STREAM_MAX_HELD: Final = 64 << 10
"""Held back before the first output: opening events of every protocol are below 20 KiB."""

STREAM_MAX_DELIVERED: Final = 4 << 20
"""Of a stream, remembered to go on after a break: about 16,000 events of the common size."""

STREAM_IDLE_TIMEOUT: Final = None
"""Silence after which a stream counts as stalled. Off: Anthropic was seen silent for 167 s while it buffered the
arguments of a tool. The client's own read timeout still holds."""

OBSERVE_MAX_NAMES: Final = 200
"""Hosts, models and codes counted apart, each. A client that invents names, or a server that invents codes, must not
grow us; the gateway lists fewer models than this."""

OBSERVE_LOG_BURST: Final = 50
"""Lines of one kind at once: what a person reads of a bad minute. A storm of 200 clients has thousands."""

OBSERVE_LOG_RATE: Final = 5.0
"""Lines of one kind per second while a storm lasts: it can be followed, and fills no disk (1 GB takes 11 days at 200
bytes a line)."""

# ---- shared state --------------------------------------------------------------------------------------------

STORE_TIMEOUT: Final = 0.05
"""Seconds a call may wait for the store where a question must be asked. Asking takes 0.15 ms on one machine and a few
milliseconds in a data centre; redis-py's own defaults wait 4 to 40 s for a server that is dead."""

STORE_INTERVAL: Final = 0.5
"""Seconds between two reports. In simulation an open flag that is a second old serves as well as a fresh one; two
small commands a second and process are no load."""

STORE_QUORUM: Final = 2
"""Processes that must see a circuit fail: one with a broken network of its own must not close the way for the rest
(Polly and opossum refuse to share state for that reason)."""

STORE_BUDGET_CAPACITY: Final = 50.0
"""Retry tokens of a model for the whole fleet. With 1,000 processes one bucket of 50 lowers the sends of an outage
from 1.42 to 1.01 per call, and costs goodput in a brown-out: the default is ``"local"``."""
