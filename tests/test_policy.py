"""One policy: its fields, the waits it gives, how policies combine, and what urllib3's ``Retry`` becomes."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import backoff
import msgspec
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from gip_resilience import _waits, defaults
from gip_resilience import policy as tables
from gip_resilience.config import ConfigError
from gip_resilience.policy import DEFAULTS, Policy, PolicyTable, ResolvedPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SETTINGS = settings(deadline=None, derandomize=True, max_examples=150)

seconds = st.floats(min_value=0, max_value=1e6)


def first(count: int, policy: Policy) -> list[float]:
    """The first waits of a policy."""
    return list(islice(policy.delays(), count))


# --- Fields -------------------------------------------------------------------------------------------------


def test_a_policy_says_nothing_by_default() -> None:
    """Every field is unset, so that it inherits; the repr shows nothing."""
    policy = Policy()

    assert all(getattr(policy, name) is msgspec.UNSET for name in Policy.__struct_fields__)
    assert repr(policy) == "Policy()"
    assert policy.to_dict() == {}


def test_repr_shows_what_is_set_the_same_in_every_run() -> None:
    """A callable is shown by name, without an address."""
    policy = Policy(max_attempts=3, base_delay=1, jitter=backoff.full_jitter)

    assert repr(policy) == "Policy(max_attempts=3, base_delay=1.0, jitter=backoff._jitter.full_jitter)"


def test_repr_of_a_partial_has_no_address() -> None:
    """A ``functools.partial`` has no name of its own, and its repr would hold an address."""
    assert repr(Policy(wait=partial(backoff.expo, base=3))) == "Policy(wait=functools.partial)"


def test_ints_become_floats() -> None:
    """Seconds are floats however they are written, and -0.0 is 0.0."""
    policy = Policy(base_delay=1, max_delay=2, max_hint=-0.0, cost=3)

    assert [type(value) for value in (policy.base_delay, policy.max_delay, policy.cost)] == [float] * 3
    assert math.copysign(1, policy.max_hint) == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize("name", Policy.__struct_fields__)
def test_frozen(name: str) -> None:
    """No field can be set or deleted."""
    policy = Policy()
    with pytest.raises(AttributeError):
        setattr(policy, name, 1)
    with pytest.raises(AttributeError):
        delattr(policy, name)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(Policy(), id="empty"),
        pytest.param(Policy(max_attempts=2, base_delay=0.5, jitter="none", wait="fibo"), id="names"),
        pytest.param(Policy(jitter=backoff.full_jitter, wait=backoff.fibo), id="functions"),
        pytest.param(DEFAULTS["rate_limit"], id="resolved"),
    ],
)
def test_copies_are_equal(policy: Policy) -> None:
    """Pickling and copying keep type, value and hash."""
    for twin in (pickle.loads(pickle.dumps(policy)), copy.copy(policy), copy.deepcopy(policy)):
        assert type(twin) is type(policy)
        assert twin == policy
        assert hash(twin) == hash(policy)


def test_unknown_keyword_is_a_type_error() -> None:
    """The constructor behaves as any Python function does."""
    with pytest.raises(TypeError, match="max_attemps"):
        Policy(max_attemps=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("policy", "plain"),
    [
        pytest.param(
            Policy(max_attempts=2, jitter="random"), {"max_attempts": 2, "jitter": "random"}, id="names"
        ),
        pytest.param(Policy(jitter=backoff.full_jitter), {"jitter": "full"}, id="full_jitter"),
        pytest.param(Policy(jitter=backoff.random_jitter), {"jitter": "random"}, id="random_jitter"),
    ],
)
def test_to_dict_writes_names(policy: Policy, plain: dict[str, Any]) -> None:
    """A jitter function of backoff is written by the name that does the same."""
    assert policy.to_dict() == plain


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        pytest.param(
            Policy(wait=backoff.expo),
            "wait: expected a name that can be written down, got backoff._wait_gen.expo",
            id="expo_is_not_scaled_by_base_delay",
        ),
        pytest.param(
            Policy(jitter=math.floor),
            "jitter: expected a name that can be written down, got math.floor",
            id="jitter",
        ),
        pytest.param(
            Policy(wait=partial(backoff.expo, base=3)),
            "wait: expected a name that can be written down, got functools.partial",
            id="partial",
        ),
    ],
)
def test_to_dict_refuses_other_callables(policy: Policy, message: str) -> None:
    """A function that no configuration file can name is refused, not dropped."""
    with pytest.raises(ConfigError) as caught:
        policy.to_dict()
    assert str(caught.value) == message


# --- Defaults -----------------------------------------------------------------------------------------------

# Class, attempts, base, cap, cost: the table of the design, written out.
TABLE = [
    ("rate_limit", 4, 2.0, 60.0, 1.0),
    ("overload", 4, 1.0, 30.0, 1.0),
    ("server", 3, 0.25, 8.0, 1.0),
    ("timeout", 2, 0.5, 8.0, 2.0),
    ("unavailable", 1, 0.5, 8.0, 1.0),
    ("stream", 3, 0.25, 8.0, 1.0),
    ("intermediary", 3, 0.5, 8.0, 1.0),
    ("limited", 2, 0.5, 8.0, 2.0),
    ("connect", 3, 0.1, 2.0, 1.0),
    ("pool", 1, 0.1, 2.0, 1.0),
    ("other", 1, 0.5, 8.0, 1.0),
]


@pytest.mark.parametrize(
    ("name", "attempts", "base", "longest", "cost"), TABLE, ids=[row[0] for row in TABLE]
)
def test_defaults(name: str, attempts: int, base: float, longest: float, cost: float) -> None:
    """Each class has the attempts, waits and cost of the design, and the rest in common."""
    assert DEFAULTS[name] == ResolvedPolicy(
        max_attempts=attempts,
        base_delay=base,
        max_delay=longest,
        jitter="full",
        wait="expo",
        max_hint=120.0,
        on_ambiguous="retry",
        breaker="auto",
        cost=cost,
    )


def test_defaults_cover_the_classes_of_the_taxonomy() -> None:
    """A class that the taxonomy can name has a default, and there is no other."""
    from gip_resilience.taxonomy import POLICY_CLASSES

    assert set(DEFAULTS) == set(POLICY_CLASSES) == {row[0] for row in TABLE}


def test_defaults_cannot_be_changed() -> None:
    """The table is shared by every configuration of the process."""
    with pytest.raises(TypeError):
        DEFAULTS["other"] = Policy()  # type: ignore[index]


def test_a_resolved_policy_has_no_unset_field() -> None:
    """It cannot be made without a field, nor with an unset one."""
    with pytest.raises(TypeError, match="max_attempts"):
        ResolvedPolicy()  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"^max_delay: expected float >= 0, got UnsetType$"):
        msgspec.structs.replace(DEFAULTS["other"], max_delay=msgspec.UNSET)


# --- Merging ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("below", "above", "merged"),
    [
        pytest.param(Policy(), Policy(), Policy(), id="nothing"),
        pytest.param(Policy(max_attempts=2), Policy(), Policy(max_attempts=2), id="unset_inherits"),
        pytest.param(Policy(), Policy(max_attempts=2), Policy(max_attempts=2), id="set_wins_over_unset"),
        pytest.param(
            Policy(max_attempts=2, cost=3),
            Policy(max_attempts=5),
            Policy(max_attempts=5, cost=3),
            id="set_wins_over_set",
        ),
        pytest.param(Policy(cost=3), Policy(cost=0), Policy(cost=0), id="zero_is_set"),
        pytest.param(
            Policy(base_delay=1, max_delay=8),
            Policy(base_delay=20),
            Policy(base_delay=20, max_delay=20),
            id="higher_base_lifts_the_cap",
        ),
        pytest.param(
            Policy(base_delay=4, max_delay=8),
            Policy(max_delay=2),
            Policy(base_delay=2, max_delay=2),
            id="lower_cap_lowers_the_base",
        ),
        pytest.param(
            Policy(base_delay=4, max_delay=8),
            Policy(base_delay=1),
            Policy(base_delay=1, max_delay=8),
            id="lower_base_leaves_the_cap",
        ),
        pytest.param(
            Policy(base_delay=1, max_delay=8),
            Policy(max_delay=4),
            Policy(base_delay=1, max_delay=4),
            id="lower_cap_leaves_the_base",
        ),
        pytest.param(
            Policy(base_delay=4, max_delay=8),
            Policy(base_delay=10, max_delay=20),
            Policy(base_delay=10, max_delay=20),
            id="both_win",
        ),
        pytest.param(
            Policy(max_delay=8),
            Policy(base_delay=10),
            Policy(base_delay=10, max_delay=10),
            id="base_over_cap_only",
        ),
        pytest.param(
            Policy(base_delay=8),
            Policy(max_delay=5),
            Policy(base_delay=5, max_delay=5),
            id="cap_over_base_only",
        ),
    ],
)
def test_merged(below: Policy, above: Policy, merged: Policy) -> None:
    """The set fields of the later policy win; waits that would cross follow the later word."""
    assert below.merged(above) == merged


def policies() -> st.SearchStrategy[Policy]:
    """Policies with any fields set, always correct."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "max_attempts": st.integers(1, 20),
        "base_delay": seconds,
        "max_delay": seconds,
        "jitter": st.sampled_from(["full", "random", "none"]),
        "wait": st.sampled_from(["expo", "fibo", "constant"]),
        "max_hint": seconds,
        "on_ambiguous": st.sampled_from(["retry", "fail"]),
        "breaker": st.sampled_from(["auto", "ignore", "failure", "trip"]),
        "cost": seconds,
    }
    return st.fixed_dictionaries({}, optional=fields).map(_in_order)


def _in_order(values: dict[str, Any]) -> Policy:
    if values.keys() >= {"base_delay", "max_delay"}:
        values["base_delay"], values["max_delay"] = sorted((values["base_delay"], values["max_delay"]))
    return Policy(**values)


@SETTINGS
@given(policies(), policies())
def test_merging_is_total_and_the_later_word_stands(below: Policy, above: Policy) -> None:
    """Any two policies merge, what the later one sets stands, and a default underneath completes them."""
    merged = below.merged(above)

    for name in Policy.__struct_fields__:
        if getattr(above, name) is not msgspec.UNSET:
            assert getattr(merged, name) == getattr(above, name)
    resolved = DEFAULTS["overload"].merged(merged)
    assert isinstance(resolved, ResolvedPolicy)
    assert resolved.base_delay <= resolved.max_delay


@SETTINGS
@given(policies())
def test_a_policy_survives_its_dict(policy: Policy) -> None:
    """What `to_dict` writes, `from_dict` reads."""
    assert Policy.from_dict(policy.to_dict()) == policy


# --- Waits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        pytest.param(Policy(wait="expo", base_delay=0.5, max_delay=8), [0.5, 1, 2, 4, 8, 8, 8], id="expo"),
        pytest.param(
            Policy(wait="expo", base_delay=2, max_delay=60), [2, 4, 8, 16, 32, 60, 60], id="expo_capped"
        ),
        pytest.param(Policy(wait="expo", base_delay=8, max_delay=8), [8, 8, 8], id="expo_at_the_cap"),
        pytest.param(
            Policy(wait="fibo", base_delay=0.5, max_delay=5), [0.5, 0.5, 1, 1.5, 2.5, 4, 5, 5], id="fibo"
        ),
        pytest.param(
            Policy(wait="fibo", base_delay=1, max_delay=4), [1, 1, 2, 3, 4, 4], id="fibo_between_numbers"
        ),
        pytest.param(Policy(wait="constant", base_delay=3, max_delay=8), [3, 3, 3], id="constant"),
        pytest.param(Policy(wait="expo", base_delay=0, max_delay=8), [0, 0, 0], id="expo_of_nothing"),
        pytest.param(Policy(wait="fibo", base_delay=0, max_delay=8), [0, 0, 0], id="fibo_of_nothing"),
        pytest.param(Policy(wait="constant", base_delay=0, max_delay=0), [0, 0, 0], id="constant_of_nothing"),
        pytest.param(Policy(), [0.5, 1, 2, 4, 8, 8], id="unset_is_other"),
        pytest.param(Policy(base_delay=10), [10, 10], id="unset_cap_follows"),
        pytest.param(
            Policy(wait=partial(backoff.expo, base=3), base_delay=7, max_delay=20),
            [1, 3, 9, 20, 20],
            id="partial_expo_is_not_scaled",
        ),
        pytest.param(Policy(wait=backoff.fibo, max_delay=4), [1, 1, 2, 3, 4, 4], id="function_of_backoff"),
        pytest.param(
            Policy(wait=partial(backoff.constant, interval=[1, 5, 2]), max_delay=9),
            [1, 5, 2, 2, 2],
            id="list_of_waits_repeats_its_last",
        ),
        pytest.param(
            Policy(wait=partial(backoff.constant, interval=[]), base_delay=3, max_delay=9),
            [3, 3],
            id="empty_list_is_base_delay",
        ),
    ],
)
def test_delays(policy: Policy, waits: list[float]) -> None:
    """The waits of backoff's generators, scaled and capped, computed by hand."""
    assert first(len(waits), policy) == waits


@pytest.mark.parametrize("name", ["expo", "fibo", "constant"])
def test_delays_are_those_of_backoff(name: str) -> None:
    """With a base of one second, the named waits are what backoff's generator of that name yields."""
    generator = getattr(backoff, name)()
    next(generator)

    assert first(8, Policy(wait=name, base_delay=1, max_delay=1000)) == list(islice(generator, 8))  # type: ignore[arg-type]


def test_each_call_has_waits_of_its_own() -> None:
    """Two calls under one policy do not share a generator."""
    policy = Policy(wait="expo", base_delay=1, max_delay=8)
    one, two = policy.delays(), policy.delays()

    assert [next(one), next(one), next(two), next(one)] == [1, 2, 1, 4]


def primed(*values: Any, then: BaseException | None = None) -> Callable[[], Generator[Any, Any, None]]:
    """A factory of generators of backoff's kind that yield ``values``, and may raise in the end."""

    def generator() -> Generator[Any, Any, None]:
        yield None
        yield from values
        if then is not None:
            raise then

    return generator


def broken_factory() -> Generator[float, Any, None]:
    """Fails when it is called."""
    raise RuntimeError


def broken_start() -> Generator[float, Any, None]:
    """Fails when its generator is started."""
    yield 1.0 / 0.0


@pytest.mark.parametrize(
    ("wait", "waits"),
    [
        pytest.param(primed(-1, -math.inf, -(10**400)), [0, 0, 0, 0], id="negative"),
        pytest.param(primed(math.inf, 10**400, 1), [8, 8, 1], id="infinite"),
        pytest.param(primed(math.nan, 1), [8, 1], id="nan"),
        pytest.param(primed(None, "1", b"", [1], True, 1), [8, 8, 8, 8, 8, 1], id="not_a_number"),
        pytest.param(primed(3, 4, 5), [3, 4, 5, 5, 5], id="ends"),
        pytest.param(primed(), [2, 2], id="ends_at_once"),
        pytest.param(primed(3, then=ZeroDivisionError()), [3, 3, 3], id="raises"),
        pytest.param(primed(then=ValueError()), [2, 2], id="raises_at_once"),
        pytest.param(broken_factory, [2, 2], id="factory_raises"),
        pytest.param(broken_start, [2, 2], id="raises_before_it_starts"),
        pytest.param(lambda: None, [2, 2], id="not_a_generator"),
        pytest.param(lambda: iter(()), [2, 2], id="never_starts"),
        pytest.param(lambda: iter([4.0, 5.0]), [4, 5, 5], id="plain_iterator_keeps_its_first_value"),
        pytest.param(partial(backoff.runtime, value=lambda answer: answer.seconds), [2, 2], id="runtime"),
    ],
)
def test_hostile_wait_generators(wait: Callable[[], Any], waits: list[float]) -> None:
    """Whatever a generator does, the waits go on within 0 and the cap."""
    assert first(len(waits), Policy(wait=wait, base_delay=2, max_delay=8)) == waits


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_swallowed(interrupt: type[BaseException]) -> None:
    """Only faults of the generator are passed over; the user's Ctrl-C is not one."""
    with pytest.raises(interrupt):
        first(1, Policy(wait=primed(then=interrupt())))


@SETTINGS
@given(st.sampled_from(["expo", "fibo", "constant"]), st.floats(0, 1e308), st.floats(0, 1e308))
def test_delays_are_bounded_and_never_fall(name: Any, one: float, two: float) -> None:
    """For any base and cap, two thousand waits are within the bounds and in order."""
    base, longest = sorted((one, two))
    waits = first(2000, Policy(wait=name, base_delay=base, max_delay=longest))

    assert len(waits) == 2000
    assert all(0 <= wait <= longest for wait in waits)
    assert waits == sorted(waits)
    assert waits[0] == base


@SETTINGS
@given(
    st.lists(st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans())), seconds
)
def test_delays_of_any_generator_are_bounded(values: list[Any], longest: float) -> None:
    """Nothing a generator yields gets past the bounds."""
    waits = first(len(values) + 3, Policy(wait=primed(*values), base_delay=0, max_delay=longest))

    assert all(math.isfinite(wait) and 0 <= wait <= longest for wait in waits)


# --- Jitter -------------------------------------------------------------------------------------------------


def raising(delay: float) -> float:
    """A jitter function with a fault in it."""
    raise RuntimeError(delay)


@pytest.mark.parametrize(
    ("jitter", "delay", "chance", "expected"),
    [
        pytest.param("full", 8, 0.25, 2, id="full"),
        pytest.param("full", 8, 0, 0, id="full_least"),
        pytest.param("full", 8, 0.75, 6, id="full_more"),
        pytest.param(msgspec.UNSET, 8, 0.25, 2, id="unset_is_full"),
        pytest.param("random", 8, 0.25, 8.25, id="random"),
        pytest.param("random", 0, 0.5, 0.5, id="random_of_nothing"),
        pytest.param("none", 8, 0.25, 8, id="none"),
        pytest.param(lambda delay: delay / 2, 8, 0.9, 4, id="callable"),
        pytest.param(lambda delay: delay * 3, 8, 0.9, 24, id="callable_may_lengthen"),
        pytest.param(lambda _: 7, 8, 0.9, 7, id="callable_int"),
        pytest.param(lambda _: -1, 8, 0.9, 0, id="callable_negative"),
        pytest.param(lambda _: math.nan, 8, 0.9, 8, id="callable_nan"),
        pytest.param(lambda _: math.inf, 8, 0.9, 8, id="callable_infinite"),
        pytest.param(lambda _: -math.inf, 8, 0.9, 8, id="callable_minus_infinite"),
        pytest.param(lambda _: 10**400, 8, 0.9, 8, id="callable_huge"),
        pytest.param(lambda _: None, 8, 0.9, 8, id="callable_none"),
        pytest.param(lambda _: "1", 8, 0.9, 8, id="callable_text"),
        pytest.param(raising, 8, 0.9, 8, id="callable_raises"),
        pytest.param("none", math.nan, 0.9, 0, id="nan_delay"),
        pytest.param("full", math.inf, 0.9, 0, id="infinite_delay"),
        pytest.param("random", -5, 0.5, 0, id="negative_delay"),
        pytest.param("none", -5, 0.5, 0, id="negative_delay_unmoved"),
    ],
)
def test_jittered(jitter: Any, delay: float, chance: float, expected: float) -> None:
    """The formulas of backoff's jitter functions with chance as an argument, and callables kept in bounds."""
    assert Policy(jitter=jitter).jittered(delay, chance) == expected


@pytest.mark.parametrize(
    ("name", "function"), [("full", backoff.full_jitter), ("random", backoff.random_jitter)]
)
def test_named_jitter_has_the_range_of_backoffs_function(
    name: Any, function: Callable[[float], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the same chance, the name and the function of backoff give the same wait."""
    import random

    for chance in (0.0, 0.25, 0.5, 0.999):
        monkeypatch.setattr(random, "random", lambda chance=chance: chance)
        monkeypatch.setattr(random, "uniform", lambda low, high, chance=chance: low + (high - low) * chance)
        assert Policy(jitter=name).jittered(6.0, chance) == Policy(jitter=function).jittered(6.0, 0.1)


@SETTINGS
@given(st.sampled_from(["full", "random", "none", math.sqrt, lambda d: -d]), st.floats(), st.floats(0, 1))
def test_a_jittered_wait_can_be_waited(jitter: Any, delay: float, chance: float) -> None:
    """Whatever the delay, the result is finite and not negative."""
    moved = Policy(jitter=jitter).jittered(delay, chance)

    assert math.isfinite(moved)
    assert moved >= 0


# --- urllib3 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry", "policy"),
    [
        pytest.param(urllib3.Retry(3), Policy(max_attempts=4), id="total"),
        pytest.param(urllib3.Retry(), Policy(max_attempts=11), id="urllib3_default"),
        pytest.param(urllib3.Retry(0), Policy(max_attempts=1), id="zero"),
        pytest.param(urllib3.Retry(False), Policy(max_attempts=1), id="false"),
        pytest.param(urllib3.Retry(True), Policy(max_attempts=2), id="true"),
        pytest.param(urllib3.Retry(5, status=2), Policy(max_attempts=3), id="status_below_total"),
        pytest.param(urllib3.Retry(2, status=5), Policy(max_attempts=3), id="total_below_status"),
        pytest.param(urllib3.Retry(5, status=False), Policy(max_attempts=1), id="status_false"),
        pytest.param(urllib3.Retry(None, status=2), Policy(max_attempts=3), id="status_only"),
        pytest.param(urllib3.Retry(None), Policy(), id="unbounded_inherits"),
        pytest.param(urllib3.Retry(5, connect=1), Policy(max_attempts=6), id="connect_does_not_count"),
        pytest.param(
            urllib3.Retry(3, backoff_factor=0.5),
            Policy(max_attempts=4, base_delay=0.5, max_delay=120, jitter="none", wait="expo"),
            id="factor",
        ),
        pytest.param(
            urllib3.Retry(3, backoff_factor=0.5, backoff_max=8, backoff_jitter=0.3),
            Policy(max_attempts=4, base_delay=0.5, max_delay=8, jitter="random", wait="expo"),
            id="factor_max_jitter",
        ),
        pytest.param(
            urllib3.Retry(3, backoff_factor=200),
            Policy(max_attempts=4, base_delay=120, max_delay=120, jitter="none", wait="expo"),
            id="factor_above_max",
        ),
        pytest.param(
            urllib3.Retry(3, retry_after_max=30), Policy(max_attempts=4, max_hint=30), id="retry_after_max"
        ),
    ],
)
def test_from_urllib3(retry: urllib3.Retry, policy: Policy) -> None:
    """The counts, waits and limits of a real ``Retry`` carry over."""
    assert Policy.from_urllib3(retry) == policy


@pytest.mark.parametrize(
    ("count", "attempts"), [("status", 4), ("connect", 2), ("read", 3), ("other", 5)], ids=str
)
def test_from_urllib3_counts(count: Any, attempts: int) -> None:
    """The count of the kind of failure applies beside the total."""
    retry = urllib3.Retry(10, status=3, connect=1, read=2, other=4)

    assert Policy.from_urllib3(retry, count=count).max_attempts == attempts


def test_from_urllib3_after_it_was_used_up() -> None:
    """A ``Retry`` that urllib3 has counted down below zero allows the first attempt only."""
    assert Policy.from_urllib3(urllib3.Retry(-1)).max_attempts == 1


def test_from_urllib3_waits_as_urllib3_does_from_the_second_retry_on() -> None:
    """Before retry n both wait factor * 2 ** (n - 1) seconds up to the cap; urllib3 skips the first."""
    retry = urllib3.Retry(8, backoff_factor=0.5, backoff_max=8)
    theirs = []
    for _ in range(7):
        retry = retry.increment("GET", "/")
        theirs.append(retry.get_backoff_time())
    ours = first(7, Policy.from_urllib3(urllib3.Retry(8, backoff_factor=0.5, backoff_max=8)))

    assert theirs[0] == 0
    assert ours[0] == 0.5
    assert ours[1:] == theirs[1:]


def test_from_urllib3_of_an_older_version() -> None:
    """Version 1.26 has neither ``backoff_max`` nor ``backoff_jitter`` nor ``retry_after_max``."""

    class Retry126:
        total, connect, read, redirect, status, other = 2, None, None, None, None, None
        backoff_factor = 1

    assert Policy.from_urllib3(Retry126()) == Policy(
        max_attempts=3, base_delay=1, max_delay=120, jitter="none", wait="expo"
    )


@pytest.mark.parametrize("value", [3, None, "3", Policy(), object()], ids=lambda value: type(value).__name__)
def test_from_urllib3_refuses_other_things(value: Any) -> None:
    """Only a ``Retry`` will do; in urllib3 itself a number would be a count, here it would be a guess."""
    with pytest.raises(ConfigError, match=r"^expected a urllib3\.Retry, got "):
        Policy.from_urllib3(value)


@pytest.mark.parametrize(
    ("retry", "message"),
    [
        pytest.param(
            urllib3.Retry(3, backoff_factor=-1), "base_delay: expected float >= 0, got -1", id="factor"
        ),
        pytest.param(
            urllib3.Retry(3, backoff_factor=math.inf, backoff_max=math.inf),
            "base_delay: expected float >= 0, got inf",
            id="infinite",
        ),
        pytest.param(
            urllib3.Retry(3, retry_after_max=-1), "max_hint: expected float >= 0, got -1", id="retry_after"
        ),
    ],
)
def test_from_urllib3_refuses_bad_numbers(retry: urllib3.Retry, message: str) -> None:
    """urllib3 does not check its numbers; the policy does."""
    with pytest.raises(ConfigError) as caught:
        Policy.from_urllib3(retry)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "error", [ImportError("broken"), OSError(24, "Too many open files")], ids=["import", "files"]
)
def test_a_sequence_that_cannot_be_loaded(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package it comes from is loaded when it is needed, perhaps with no file left: the base stands in."""

    class Refusing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "backoff":
                raise error

    monkeypatch.delitem(sys.modules, "backoff", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])

    assert first(3, Policy(base_delay=0.5, max_delay=8.0)) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("wait", ["expo", "fibo"])
def test_the_numbers_of_a_sequence_stay_small(wait: str) -> None:
    """They end at the longest wait themselves, or a long call would reckon in thousands of digits."""
    values = list(islice(_waits._values(wait, 1.0, 60.0), 2000))

    assert values[:3] == {"expo": [1.0, 2.0, 4.0], "fibo": [1.0, 1.0, 2.0]}[wait]
    assert values[-1] == 60.0


def test_a_retry_of_an_older_version_lacks_what_came_later() -> None:
    """What it does not say is not asked for."""
    retry = SimpleNamespace(total=3, status=None, connect=None, backoff_factor=0.5)

    assert Policy.from_urllib3(retry, count="other") == Policy(
        max_attempts=4, base_delay=0.5, max_delay=120, jitter="none", wait="expo"
    )
    retry.retry_after_max = 90
    assert Policy.from_urllib3(retry, count="other").max_hint == 90


def test_what_is_no_retry_is_named() -> None:
    """It stands nowhere in particular, and the error shows it."""
    with pytest.raises(ConfigError) as caught:
        Policy.from_urllib3("three")

    assert caught.value.path == ""
    assert str(caught.value) == 'expected a urllib3.Retry, got "three"'


def test_nothing_laid_over_a_policy_leaves_that_policy() -> None:
    """No copy is made."""
    policy = Policy(max_attempts=2)

    assert policy.merged(Policy()) is policy


def test_a_row_of_the_table_says_what_is_its_own() -> None:
    """Attempts, waits and cost; the rest is the same for all."""
    assert tables._row((2, 0.5, 8.0, 3.0)) == ResolvedPolicy(
        max_attempts=2,
        base_delay=0.5,
        max_delay=8.0,
        jitter="full",
        wait="expo",
        max_hint=defaults.MAX_HINT,
        on_ambiguous="retry",
        breaker="auto",
        cost=3.0,
    )


def test_a_table_of_policies_takes_what_a_policy_is_made_of() -> None:
    """And says what else it would take; a retry's number for statuses counts unless another one is meant."""
    kind = tables.Policies()

    table = kind.accept({"model_overloaded": urllib3.Retry(10, status=2, connect=4)}, "policies")

    assert table["model_overloaded"].max_attempts == 3
    assert kind.accept({"connect": urllib3.Retry(10, status=2, connect=4)}, "")["connect"].max_attempts == 5
    with pytest.raises(ConfigError) as caught:
        kind.accept(3, "policies")
    assert str(caught.value) == "policies: expected a table, got 3"


def test_tables_that_differ_are_told_apart_by_their_hashes() -> None:
    """As keys of one dictionary they would else be compared one by one."""
    several = [PolicyTable({"connect": Policy(max_attempts=number)}) for number in range(1, 9)]

    assert len({hash(table) for table in several}) > 1
    assert hash(several[0]) == hash(PolicyTable({"connect": Policy(max_attempts=1)}))
