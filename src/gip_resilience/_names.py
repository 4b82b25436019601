"""Names that are counted apart, and how many of them: what comes from outside must not fill the memory. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gip_resilience._config_groups import ObserveConfig

OTHER = "other"
"""Where names are counted that are too many to be counted apart."""

MAX_SCOPES = 1000
"""Pairs of host and model counted apart: 200 hosts with 200 models each would take 40,000."""


class Names:
    """Remembers the first names it is told, and calls the others `OTHER`.

    Args:
        limits: how many hosts, models and codes are remembered.

    Not thread-safe by itself, and cannot be broken by threads either: of names that come at the same moment a few
    more than the limit may be remembered.
    """

    __slots__ = ("_codes", "_hosts", "_models", "_pairs", "limits")

    def __init__(self, limits: ObserveConfig) -> None:
        self.limits = limits
        self._hosts: set[str] = set()
        # What we call things ourselves takes nobody's place: the host as a whole, a success, nothing sent.
        self._models = {"", OTHER}
        self._codes = {"ok", "none", OTHER}
        self._pairs: set[tuple[str, str]] = set()

    def where(self, host: str, model: str) -> tuple[str, str]:
        """A host and a model behind it."""
        pair = host, model
        if pair in self._pairs:
            return pair
        pair = (
            _bounded(self._hosts, host, self.limits.max_hosts),
            _bounded(self._models, model, self.limits.max_models + 2),
        )
        if pair not in self._pairs:
            if len(self._pairs) >= MAX_SCOPES:
                return OTHER, OTHER
            self._pairs.add(pair)
        return pair

    def code(self, code: str) -> str:
        """A code."""
        return _bounded(self._codes, code, self.limits.max_codes + 3)


def _bounded(seen: set[str], name: str, most: int) -> str:
    if name in seen:
        return name
    if len(seen) >= most:
        return OTHER
    seen.add(name)
    return name
