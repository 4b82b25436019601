"""How the modules lean on each other: imports point one way, and what decides cannot wait.

Read off the source, so that an import hidden in a function counts too. Imports for type checkers alone do not: they
are never executed.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import gip_resilience

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "gip_resilience"
ROOT = Path(gip_resilience.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    # The words of the domain.
    (
        "_version",
        "_moments",
        "_hint_headers",
        "_hint_bodies",
        "hints",
        "facts",
        "errors",
        "_gip",
        "_shapes",
        "dialects",
        "taxonomy",
    ),
    # The words of event streams.
    ("sse", "_grammars", "streams", "_replay_past", "_replay_readers", "_replay"),
    # Policy, the pure machines, and what is told of a call.
    (
        "defaults",
        "_config_errors",
        "_config_fields",
        "_config_sources",
        "_waits",
        "policy",
        "_config_groups",
        "config",
        "_watching",
    ),
    (
        "_keys",
        "breaker",
        "gate",
        "budget",
        "_report",
        "events",
        "_announcer",
        "effects",
        "clock",
        "_drains",
        "_forgotten",
    ),
    ("_names", "snapshots", "metrics"),
    # What is done about a stream that breaks.
    ("recovery", "_delivered", "_splice"),
    # What is read off requests and answers, the same for every client; what listens.
    ("above", "target", "_bodies", "_recording", "_multipart", "_answers", "_inflating"),
    ("_log_lines", "_log_limits", "logs"),
    ("state", "memory", "_fleet_names", "_fleet_words", "_fleet_machines", "_fleet_breaker", "fleet"),
    ("_record", "engine"),
    ("_refusals", "drive", "resilience"),
    # What tells others, and what asks them; each needs a library of its own.
    (
        "_otel_words",
        "_otel_metrics",
        "_otel_traces",
        "otel",
        "_prometheus_families",
        "_prometheus_shared",
        "prometheus",
        "_redis_clients",
        "_redis_asking",
        "_redis_link",
        "_redis_records",
        "redis",
    ),
    ("_draining", "_flow", "_async_flow"),
    (
        "_httpx_kit",
        "_httpx_deadlines",
        "_httpx_reading",
        "_httpx_requests",
        "_httpx_streams",
        "_httpx_family",
        "httpx",
        "httpx2",
        "_requests_errors",
        "_requests_bodies",
        "_requests_deadlines",
        "_requests_streams",
        "_requests_port",
        "requests",
    ),
    ("mounting",),
    # Public fakes. The gateway stands alone: what tests the library must not share its mistakes.
    ("gateway",),
    ("testing",),
    # The engine in made-up weather.
    ("simulation",),
    ("cli", "__main__"),
    ("",),
)
"""From the bottom up. A module imports from its own layer and from those below. A package stands for all in it."""

ISLANDS = {"gateway": {"gateway"}, "testing": {"testing", "gateway", "clock"}}
"""Modules that import, of ours, nothing but these. The clock is what `instant` takes the place of."""

RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

PURE = (
    "_moments",
    "_hint_headers",
    "_hint_bodies",
    "hints",
    "facts",
    "_gip",
    "_shapes",
    "taxonomy",
    "dialects",
    "dialects.statuses",
    "dialects.tables",
    "defaults",
    "_config_errors",
    "_config_fields",
    "_config_sources",
    "_waits",
    "policy",
    "_config_groups",
    "config",
    "breaker",
    "gate",
    "budget",
    "_report",
    "errors",
    "target",
    "_bodies",
    "_recording",
    "_answers",
    "_refusals",
    "effects",
    "_record",
    "engine",
    "sse",
    "_grammars",
    "streams",
    "_replay_past",
    "_replay_readers",
    "_replay",
    "recovery",
    "_delivered",
    "_splice",
    "_inflating",
    "_keys",
    "_fleet_names",
    "_fleet_words",
    "_fleet_machines",
    "_fleet_breaker",
    "_names",
    "snapshots",
    "_log_lines",
    "_otel_words",
)
"""What decides: time and chance come in as arguments."""

IMPURE = frozenset(
    {
        "_thread",
        "aiohttp",
        "anyio",
        "asyncio",
        "asyncore",
        "concurrent",
        "h11",
        "http",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
        "multiprocessing",
        "queue",
        "random",
        "redis",
        "requests",
        "sched",
        "secrets",
        "select",
        "selectors",
        "signal",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "threading",
        "time",
        "timeit",
        "trio",
        "urllib3",
        "uuid",
        "valkey",
    }
)
"""Modules that wait, read a clock, draw a random number, or reach the network."""

IMPURE_CALLS = frozenset(
    {"now", "utcnow", "today", "fromtimestamp", "localtime", "import_module", "__import__"}
)
"""What reads a clock, or a time zone, by another way; and what imports by a name no reader can see."""


class Import(NamedTuple):
    """One import statement.

    Attributes:
        module: what is imported, in full; for ``from a import b`` both ``a`` and ``a.b``.
        line: where.
    """

    module: str
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package by its name within it; the package itself has none."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def rank(module: str) -> int | None:
    """The layer of a module of ours, counted from 0; its package's if it has none of its own."""
    while module not in RANK and "." in module:
        module = module.rpartition(".")[0]
    return RANK.get(module)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All of a module that can be executed: without the blocks for type checkers."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def imports(source: str, module: str) -> list[Import]:
    """What *module* imports when it runs, at any depth."""
    found = []
    for node in nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = f"{PACKAGE}.{module}".split(".")[: -node.level]
                base = ".".join([*here, *filter(None, [base])])
            found.append(Import(base, node.lineno))
            found += [Import(f"{base}.{alias.name}", node.lineno) for alias in node.names]
    return found


def ours(source: str, module: str) -> set[str]:
    """The modules of ours that *module* imports, by their names within the package."""
    known = modules()
    found = set()
    for name, _ in imports(source, module):
        head, _, rest = name.partition(".")
        if head == PACKAGE and rest in known:
            found.add(rest)
    # ``from gip_resilience import x`` is about x, not about the package's own names.
    return found - {""}


def upward(source: str, module: str) -> list[str]:
    """The imports of *module* that point up."""
    mine = rank(module)
    assert mine is not None
    return sorted(name for name in ours(source, module) if (other := rank(name)) is None or other > mine)


def impurities(source: str) -> list[str]:
    """What a module does that a pure one does not."""
    found = [
        f"line {line}: imports {name}"
        for name, line in imports(source, "x")
        if name.partition(".")[0] in IMPURE
    ]
    for node in nodes(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in IMPURE_CALLS:
                found.append(f"line {node.lineno}: calls {name}")
    return found


@pytest.mark.parametrize("module", modules())
def test_every_module_has_its_layer(module: str) -> None:
    """A new module is given its place in the table above, deliberately."""
    assert rank(module) is not None


def test_the_tables_name_what_exists() -> None:
    """No line of the tables is about a module that is gone."""
    known = modules()

    assert [module for module in (*RANK, *PURE, *ISLANDS) if module not in known] == []


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    """A module imports from its own layer and from those below."""
    assert upward(modules()[module].read_text(), module) == []


@pytest.mark.parametrize("module", [module for module in modules() if module.partition(".")[0] in ISLANDS])
def test_the_fakes_stand_alone(module: str) -> None:
    """The gateway judges by nothing that it is used to judge."""
    allowed = ISLANDS[module.partition(".")[0]]

    assert {name.partition(".")[0] for name in ours(modules()[module].read_text(), module)} <= allowed


@pytest.mark.parametrize("module", PURE)
def test_what_decides_cannot_wait(module: str) -> None:
    """A pure module imports nothing that waits, reads a clock, draws a random number or reaches the network."""
    assert impurities(modules()[module].read_text()) == []


def test_the_adapters_alone_know_the_http_libraries() -> None:
    """Each HTTP library is imported by its own adapter, its own fake, and by nobody else but the demonstration."""
    libraries = {"httpx", "httpx2", "requests", "urllib3", "httpcore", "httpcore2"}
    users = {
        (module, name.partition(".")[0])
        for module, path in modules().items()
        for name, _ in imports(path.read_text(), module)
        if name.partition(".")[0] in libraries and module.partition(".")[0] != "cli"
    }

    assert users == {
        ("httpx", "httpx"),
        ("httpx2", "httpx2"),
        ("_requests_bodies", "urllib3"),
        ("_requests_deadlines", "urllib3"),
        ("_requests_errors", "requests"),
        ("_requests_errors", "urllib3"),
        ("_requests_port", "urllib3"),
        ("_requests_streams", "urllib3"),
        ("requests", "requests"),
        ("requests", "urllib3"),
        ("testing._over_httpx", "httpx"),
        ("testing._over_httpx2", "httpx2"),
        ("testing._over_requests", "requests"),
        ("testing._over_requests", "urllib3"),
    }


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import time", id="import"),
        pytest.param("from time import monotonic", id="from"),
        pytest.param("import os, random as chance", id="alias"),
        pytest.param("def f():\n    import asyncio.events", id="in-a-function"),
        pytest.param("try:\n    pass\nexcept E:\n    from threading import Lock", id="in-a-handler"),
        pytest.param("if TYPE_CHECKING:\n    pass\nelse:\n    import socket", id="beside-type-checking"),
        pytest.param("from datetime import datetime\nx = datetime.now()", id="clock-of-datetime"),
        pytest.param("x = __import__('time')", id="by-name"),
    ],
)
def test_the_check_of_purity_can_fail(source: str) -> None:
    """Each way to reach a clock, chance or a lock is seen."""
    assert impurities(source) != []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("if TYPE_CHECKING:\n    import asyncio", id="for-type-checkers"),
        pytest.param("from datetime import date\nfrom gip_resilience.clock import Clock", id="harmless"),
    ],
)
def test_the_check_of_purity_is_not_overdone(source: str) -> None:
    """What is not executed, or does no harm, is let be."""
    assert impurities(source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("taxonomy", "from gip_resilience import policy", id="from-the-package"),
        pytest.param("breaker", "import gip_resilience.engine", id="import"),
        pytest.param("state", "def f():\n    from gip_resilience.drive import drive", id="in-a-function"),
        pytest.param("dialects.tables", "from ..state import MemoryStore", id="relative"),
        pytest.param("engine", "from gip_resilience.cli.demo import x", id="package"),
    ],
)
def test_the_check_of_direction_can_fail(module: str, source: str) -> None:
    """Each way to import a higher module is seen."""
    known = modules()
    source = source if "cli.demo" not in source or "cli.demo" in known else "import gip_resilience.cli"

    assert upward(source, module) != []
