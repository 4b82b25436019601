"""Mutation testing of the modules that decide. How to run it, and how to read it, is in README.md here."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT / "src" / "gip_resilience"
RESULT = PROJECT / "docs" / "mutation.json"
PAGE = PROJECT / "docs" / "mutation.md"
REASONS = PROJECT / "mutation" / "survivors.toml"

MODULES = (
    "engine",
    "breaker",
    "budget",
    "gate",
    "taxonomy",
    "dialects",
    "hints",
    "_hint_headers",
    "_hint_bodies",
    "_moments",
    "sse",
    "_splice",
    "policy",
    "_waits",
    "streams",
    "recovery",
    "_grammars",
    "_replay",
    "_replay_past",
    "_replay_readers",
    "_delivered",
    "_refusals",
    "_record",
)
"""What is mutated, in this order."""

TESTS = (
    "aws_vectors",
    "breaker",
    "breaker_options",
    "breaker_table",
    "budget",
    "config",
    "core_edges",
    "defaults",
    "dialects",
    "drive",
    "engine",
    "engine_told",
    "gate",
    "grammars",
    "hints",
    "policy",
    "policy_vectors",
    "recording",
    "recovery",
    "reload",
    "replay",
    "replay_divergence",
    "replay_properties",
    "splice",
    "splice_attempts",
    "sse",
    "state",
    "streams",
    "target",
    "taxonomy",
)
"""The files of tests that mutants have to pass: those of the pure modules, which need no client."""

LEFT_OUT = "subprocess or process or linear or ten_thousand or flood or bounded or valkey or cluster or junk"
"""Words in the names of tests that are left out: what starts an interpreter of its own, which knows nothing of a
mutant; what measures time, which says nothing about one; what needs a server, or
thousands of keys, or seconds.
"""


def path_of(module: str) -> Path:
    """Where the source of a module of ours is."""
    package = SOURCE.joinpath(*module.split("."))
    return package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
