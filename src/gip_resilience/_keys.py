"""What names a scope and a circuit. Pure."""

from __future__ import annotations

from typing import NamedTuple, Self


class ScopeKey(NamedTuple):
    """Whom a call is for, and on whose account.

    Attributes:
        host: host and, unless it is the scheme's own, port.
        credential: a keyed digest of the key the request carries, never the key; empty without one.
        model: the model's full name; empty when it is not known.
        part: which of several that serve the model (a deployment, a region); empty where there is one.
    """

    host: str
    credential: str
    model: str
    part: str = ""


class _HostAndModel(NamedTuple):
    host: str
    model: str = ""


class CircuitKey(_HostAndModel):
    """Names a circuit: of a host (``model`` is empty), or of a model behind it. Compares and unpacks as the two."""

    __slots__ = ()

    def __new__(cls, host: str, model: str = "", part: str = "") -> Self:
        """One tuple of two.

        Args:
            host: host and, unless it is the scheme's own, port.
            model: the model's full name; empty for the host's own circuit.
            part: which part of the model it is of, where parts are told apart; it goes into the model's name,
                behind an ``@``.
        """
        return super().__new__(cls, host, f"{model}@{part}" if part else model)
