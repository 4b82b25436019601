"""Where things are on the site that are not files of docs/; for MkDocs' hooks, and for tests without MkDocs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "src" / "gip_resilience"

OUTSIDE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples/index.md",
    "fuzz/README.md": "fuzzing.md",
    "observability/README.md": "dashboards.md",
    "soak/README.md": "endurance.md",
}
"""Pages whose source is not in docs/: path in the repository, and on the site."""

BESIDE: Final = ("examples/*.py", "examples/*.ipynb")
"""Files that those pages link to, and that the site has at the same place as the repository."""

API: Final = "reference/api/"
"""Where the modules' pages are; in the nav it stands for all of them."""

GROUPS: Final = {
    "To use": (
        "",
        "mounting",
        "requests",
        "httpx",
        "httpx2",
        "resilience",
        "config",
        "policy",
        "defaults",
        "errors",
        "above",
        "target",
        "clock",
        "hints",
        "sse",
    ),
    "To watch": ("events", "metrics", "snapshots", "logs", "prometheus", "otel"),
    "To share": ("redis", "fleet", "state", "memory"),
    "To test": ("testing", "testing.pytest_plugin", "gateway"),
    "To simulate": ("simulation", "simulation.scenarios", "simulation.runs"),
}
"""The modules in the nav, in the order in which they are needed; those that are not here are "Inside"."""

WHOLE: Final = ("dialects", "gateway", "testing")
"""Packages that show their parts themselves: that is where they are imported from."""


def modules() -> list[str]:
    """The public modules, in order: no part of their name begins with an underscore.

    The package ``cli`` is the command and no library: its reference is the page of the command line.
    """
    found = {"gip_resilience", "gip_resilience.testing.pytest_plugin"}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        first, *rest = parts
        if first == "cli" or any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        if first == "simulation" and rest[0] not in {"__init__", "runs", "scenarios"}:
            continue  # how it is done: of use to no other program
        if rest in ([], ["__init__"]) or first not in WHOLE:
            found.add(".".join(("gip_resilience", *(part for part in parts if part != "__init__"))))
    return sorted(found)


def grouped() -> dict[str, list[str]]:
    """All of them, by what they are for."""
    groups = {
        title: [f"gip_resilience.{name}".rstrip(".") for name in names] for title, names in GROUPS.items()
    }
    named = {name for names in groups.values() for name in names}
    return {**groups, "Inside": [name for name in modules() if name not in named]}
