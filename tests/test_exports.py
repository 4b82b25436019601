"""The public surface: complete, sorted, documented, and readable in a bug report."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
import pytest

import gip_resilience as gr
import gip_resilience.gateway
import gip_resilience.httpx
import gip_resilience.httpx2
import gip_resilience.requests
from gip_resilience.events import CallEnded, CircuitChanged, GateWaited, RetryScheduled
from gip_resilience.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


def public_modules() -> Iterator[ModuleType]:
    """Every module of the package whose name, and its folders' names, are public, and that has an ``__all__``."""
    yield gr
    for found in pkgutil.walk_packages(gr.__path__, "gip_resilience."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            module = importlib.import_module(found.name)
            if hasattr(module, "__all__"):
                yield module


PUBLIC = list(public_modules())
"""Modules whose ``__all__`` is a promise."""

EXPORTING = frozenset(
    {
        *(
            "breaker",
            "clock",
            "config",
            "errors",
            "events",
            "gateway",
            "hints",
            "httpx",
            "httpx2",
            "logs",
            "memory",
        ),
        *("mounting", "otel", "policy", "prometheus", "redis", "requests", "resilience", "snapshots", "sse"),
        *("state", "taxonomy", "testing", "testing.pytest_plugin"),
    }
)
"""What a user may import by name; none of these does without an ``__all__``."""

SUBMODULES = ["defaults", "facts", "metrics", "target"]
"""Modules of public things without an ``__all__``: their text and their docstrings are public all the same."""

modules = pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)

CHECKED = [*PUBLIC, *(importlib.import_module(f"gip_resilience.{name}") for name in SUBMODULES)]


def type_checkers_view() -> set[str]:
    """The names of the package as a type checker sees them: it does not run the code that fetches them."""
    tree = ast.parse(Path(gr.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    names = [alias.asname or alias.name for node in block.body for alias in node.names]  # type: ignore[attr-defined]
    return {*names, "__version__"}


def public_things(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public classes and functions of a module, and the public members of its classes."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        thing = getattr(module, name)
        if not str(getattr(thing, "__module__", "")).startswith("gip_resilience"):
            continue
        if inspect.isclass(thing) or inspect.isroutine(thing):
            yield name, thing
        if inspect.isclass(thing):
            yield from ((f"{name}.{member}", value) for member, value in public_members(thing))


def public_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties a class defines itself."""
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        function = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
        if inspect.isfunction(function):
            yield name, function


def is_inherited(cls: type, name: str) -> bool:
    """Whether the member is another class's by its name, which is where it is described."""
    return any(
        getattr(getattr(base, name, None), "__doc__", None) for base in cls.__mro__[1:] if base is not object
    )


# ---- names ----------------------------------------------------------------------------------------------------


@modules
def test_exports_are_sorted_and_there(module: ModuleType) -> None:
    """``__all__`` is sorted, without doubles, and every name in it can be had."""
    assert module.__all__ == sorted(set(module.__all__), key=_as_sorted(module))
    for name in module.__all__:
        getattr(module, name)


@modules
def test_exports_are_complete(module: ModuleType) -> None:
    """A class or function without an underscore that a module defines is in its ``__all__``."""
    defined = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and thing.__module__ == module.__name__
    }

    assert defined - set(module.__all__) == set()


def test_what_users_import_says_what_it_exports() -> None:
    """The modules of the documentation have an ``__all__``."""
    assert {f"gip_resilience.{name}" for name in EXPORTING} - {module.__name__ for module in PUBLIC} == set()


def _as_sorted(module: ModuleType) -> Any:
    """Constants, classes, then the rest, as the formatter has it."""
    return lambda name: (not name.isupper(), not name.lstrip("_")[0].isupper(), name)


def test_type_checkers_see_what_python_sees() -> None:
    """The names that are fetched when they are used are those a type checker is shown, and all are exported."""
    assert type_checkers_view() == set(gr.__all__)
    assert set(gr._HOME) | {"__version__"} == set(gr.__all__)
    assert set(gr.__all__) <= set(dir(gr))


def test_each_name_is_fetched_from_its_own_module() -> None:
    """The table of homes says where a thing is defined, so that pickles and tracebacks name the same place."""
    for name, home in gr._HOME.items():
        module = getattr(getattr(gr, name), "__module__", None)
        if name != home:
            assert module is not None
            parts = {"gip_resilience._config_errors", "gip_resilience._config_groups"}
            assert module in {f"gip_resilience.{home}", *parts}


def test_no_submodule_hides_a_public_name() -> None:
    """Importing a submodule sets its name on the package: none may be called like something else we export."""
    stems = {path.stem for path in Path(gr.__file__).parent.iterdir()}

    assert stems & set(gr.__all__) == {"hints", "sse"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Names that do not exist fail as they do in any module."""
    with pytest.raises(AttributeError, match="module 'gip_resilience' has no attribute 'nonsense'"):
        gr.nonsense  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "name", ["", "errors", "gateway", "httpx", "httpx2", "otel", "redis", "requests", "sse", "testing"]
)
def test_type_checkers_are_asked_about_every_name(name: str) -> None:
    """Each public name is used in ``tests/typing``, where the checkers look at it as a user's would."""
    module = importlib.import_module(f"gip_resilience.{name}".rstrip("."))
    text = "\n".join(path.read_text() for path in sorted((Path(__file__).parent / "typing").glob("*.py")))
    used = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    renamed = {
        "CircuitOpenError",
        "ResilientTransport",
        "AsyncResilientTransport",
    }  # imported under a name of its own

    assert set(module.__all__) - used - renamed == set()


@pytest.mark.parametrize("adapter", ["httpx", "httpx2", "requests"])
def test_an_adapter_exports_what_it_defines(adapter: str) -> None:
    """Every public class of an adapter is in its ``__all__``."""
    module = importlib.import_module(f"gip_resilience.{adapter}")
    defined = {
        name
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
    }

    assert defined == set(module.__all__)


def test_every_adapter_has_kin_of_every_refusal() -> None:
    """Whatever we raise ourselves, each library's users can catch by their library's own classes."""
    refusals = {name for name in gr.__all__ if name.endswith("Error")} - {"ConfigError", "ResilienceError"}

    for module in (gip_resilience.httpx, gip_resilience.httpx2, gip_resilience.requests):
        assert refusals <= set(module.__all__)
        for name in refusals:
            assert issubclass(getattr(module, name), getattr(gr, name))


# ---- documentation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", CHECKED, ids=lambda module: module.__name__)
def test_everything_public_is_documented(module: ModuleType) -> None:
    """Each public class, function, method and property says what it does."""
    silent = []
    for name, thing in public_things(module):
        cls = getattr(module, name.partition(".")[0])
        if not (thing.__doc__ or "").strip() and not (
            "." in name and is_inherited(cls, name.partition(".")[2])
        ):
            silent.append(name)

    assert module.__doc__
    assert silent == []


@pytest.mark.parametrize("module", CHECKED, ids=lambda module: module.__name__)
def test_documentation_names_only_parameters_that_exist(module: ModuleType) -> None:
    """What an ``Args:`` section describes is in the signature."""
    for name, thing in public_things(module):
        described = re.search(
            r"\n( *)Args:\n(.*?)(\n\n|\Z)", inspect.cleandoc(thing.__doc__ or ""), re.DOTALL
        )
        if described is None:
            continue
        parameters = set(inspect.signature(thing).parameters)
        for parameter in re.findall(r"^ {4}(\w+):", described[2], re.MULTILINE):
            assert parameter in parameters, f"{name}: {parameter}"


# ---- representations ------------------------------------------------------------------------------------------

HINT = gr.Hint(1.5, "retry-after")
ATTEMPT = gr.Attempt(1, "model_overloaded", 503, 0.25, 0.0, HINT, maybe_executed=False)
REPORT = gr.CallReport("gip.invalid", "m", "failure", "all 1 attempts used", (ATTEMPT,), 0.25, 0.0, HINT)

HOP = gr.Hop("replay", "stream_reset", "output", 3)


def watched() -> gr.ConfigWatch:
    """One that follows an empty file."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "gip.toml")
        file.touch()
        return gr.Config.watch(file)


EXAMPLES: dict[str, Any] = {
    "Attempt": ATTEMPT,
    "BodyConfig": gr.BodyConfig(),
    "BreakerConfig": gr.BreakerConfig(),
    "BudgetConfig": gr.BudgetConfig(),
    "CallReport": REPORT,
    "Category": gr.Category.OVERLOAD,
    "CircuitOpenError": gr.CircuitOpenError("circuit breaker is open for gip.invalid"),
    "Code": gr.Code.MODEL_OVERLOADED,
    "Config": gr.Config(policies={"model_overloaded": gr.Policy(max_attempts=5)}),
    "ConfigError": gr.ConfigError("policies.overload", "a table", "5"),
    "ConfigWatch": watched(),
    "DeadlineExceededError": gr.DeadlineExceededError("late"),
    "Fact": gr.classify(503),
    "GateConfig": gr.GateConfig(),
    "Hint": HINT,
    "Hop": HOP,
    "MemoryStore": gr.MemoryStore(),
    "ObserveConfig": gr.ObserveConfig(),
    "Overrides": gr.Overrides(deadline=3.0),
    "Policy": gr.Policy(max_attempts=5),
    "RateLimitedError": gr.RateLimitedError("not yet"),
    "Resilience": gr.Resilience(),
    "ResilienceError": gr.ResilienceError("failed"),
    "Retry": gr.Retry.BACKOFF,
    "Scope": gr.Scope.HOST,
    "StoreConfig": gr.StoreConfig(),
    "StreamConfig": gr.StreamConfig(replay="always"),
    "StreamDivergedError": gr.StreamDivergedError("another answer"),
    "StreamInterruptedError": gr.StreamInterruptedError("broke off"),
    "SystemClock": gr.SystemClock(),
    "Target": gr.Target("POST", "https://gip.invalid/v1", "gip.invalid", "m", {}),
    "Verdict": gr.Verdict.TRIP,
}
"""One of each public class."""

OTHERS: dict[str, Any] = {
    "Breakers": gr.Resilience().breakers,
    "Metrics": gr.Resilience().metrics,
    "Snapshot": gr.Resilience().metrics.snapshot(),
    "FakeClock": FakeClock(),
    "Gateway": gip_resilience.gateway.Gateway(),
    "FaultPlan": gip_resilience.gateway.FaultPlan.always(gip_resilience.gateway.Error("model_overloaded")),
    "httpx transport": gip_resilience.httpx.ResilientTransport(),
    "httpx async transport": gip_resilience.httpx.AsyncResilientTransport(),
    "httpx2 transport": gip_resilience.httpx2.ResilientTransport(
        inner=httpx2.MockTransport(lambda request: None)
    ),  # type: ignore[arg-type, return-value]
    "httpx2 async transport": gip_resilience.httpx2.AsyncResilientTransport(),
    "requests adapter": gip_resilience.requests.ResilientAdapter(),
    "RetryScheduled": RetryScheduled(1, "gip.invalid", "m", "model_overloaded", 1, 4, 0.5, "backoff", False),
    "GateWaited": GateWaited(1, "gip.invalid", "m", 2.0),
    "CircuitChanged": CircuitChanged,
    "CallEnded": CallEnded(1, REPORT),
}
"""What public objects lead to, and what the adapters and fakes are."""


def test_there_is_an_example_of_every_public_class() -> None:
    """A new public class gets its line above. A protocol has no objects of its own."""
    classes = {name for name in gr.__all__ if inspect.isclass(getattr(gr, name))} - {"Clock"}

    assert EXAMPLES.keys() == classes


@pytest.mark.parametrize("name", [*EXAMPLES, *OTHERS])
def test_objects_are_readable_in_a_bug_report(name: str) -> None:
    """The representation names the class and says something; it is not the default one with an address."""
    thing = EXAMPLES.get(name) or OTHERS[name]
    text = repr(thing)

    assert f"{type(thing).__qualname__} object at 0x" not in text
    if not isinstance(thing, type):
        assert type(thing).__repr__ is not object.__repr__
        assert type(thing).__name__ in text
    assert len(text) < 1000


def test_a_representation_of_a_value_can_be_read_back() -> None:
    """Policies, configurations and overrides print as the call that makes them."""
    for name in ("Policy", "Config", "Overrides", "BreakerConfig"):
        value = EXAMPLES[name]
        assert eval(repr(value), dict(vars(gr)), {}) == value


def test_values_cannot_be_changed() -> None:
    """Policies, configurations, facts and reports are frozen: they are shared between threads."""
    for name in ("Attempt", "CallReport", "Config", "Fact", "Hint", "Overrides", "Policy"):
        value = EXAMPLES[name]
        field = getattr(value, "__struct_fields__", None) or list(value.__dataclass_fields__)
        with pytest.raises(AttributeError):
            setattr(value, field[0], None)
        assert isinstance(value, msgspec.Struct) or hash(value) is not None
