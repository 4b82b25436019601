"""Coverage-guided fuzzing of whatever reads what others wrote. How to run it is in README.md here."""

TARGETS = (
    "sse",
    "inflating",
    "classify",
    "answers",
    "hints",
    "grammars",
    "config",
    "http1",
    "gateway",
    "plan",
    "splice",
    "records",
)
"""The modules here that have a ``check``."""
