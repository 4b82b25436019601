"""What things are called on the shared store. Pure.

Every scope has a tag, a digest of what it is about; its keys carry the tag in braces, so that on a cluster they lie
on one node and one script may use them all. A credential only takes part as a digest that is keyed with the fleet's
secret, so that nobody who can read the store can tell, or try out, whose it is.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gip_resilience._keys import CircuitKey, ScopeKey

PREFIX: Final = "gip-resilience:1"
"""What every key and channel starts with. The number is the format's: two that differ do not see each other."""

NAMESPACE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a namespace may look like."""

TAG: Final = re.compile(r"[0-9a-f]{16}")
"""What a tag looks like."""


class Names:
    """The names of one namespace. Immutable, thread-safe.

    Args:
        namespace: keeps fleets apart that share a store.
        secret: keys the digests of credentials; the same for the whole fleet.

    Raises:
        ValueError: the namespace does not match `NAMESPACE`.

    Attributes:
        namespace: as given.
        channel: where changes are published.
        everything: what an operator's word about all there is is about.
    """

    __slots__ = ("_key", "_secret", "channel", "everything", "namespace")

    def __init__(self, namespace: str, secret: bytes = b"") -> None:
        if not NAMESPACE.fullmatch(namespace):
            raise ValueError(
                f"namespace: expected 1 to 64 letters, digits, dots, dashes or underscores, got {namespace[:80]!r}"
            )
        self.namespace = namespace
        self.channel = f"{PREFIX}:{namespace}:news"
        self._key = namespace.encode()
        self._secret = hashlib.blake2b(secret, key=self._key, digest_size=32).digest()
        self.everything = self._digest("everything")

    def digest(self, credential: bytes) -> str:
        """What stands for a credential: the same in the whole fleet, and not to be guessed without the secret."""
        return hashlib.blake2b(credential, key=self._secret, digest_size=8).hexdigest()

    def circuit(self, key: CircuitKey) -> str:
        """The tag of a circuit."""
        return self._digest("circuit", *key)

    def gate(self, key: ScopeKey) -> str:
        """The tag of a gate."""
        return self._digest("gate", *key)

    def budget(self, key: ScopeKey) -> str:
        """The tag of a budget."""
        return self._digest("budget", *key)

    def host(self, host: str) -> str:
        """The tag of a host with all its models."""
        return self._digest("host", host)

    def scopes(self, key: CircuitKey) -> tuple[str, str, str]:
        """What an operator's word may be about to be about that host and model, the widest first."""
        return self.everything, self.host(key.host), self.circuit(key)

    def key(self, tag: str, kind: str) -> str:
        """The key of a scope's record of that kind."""
        return f"{PREFIX}:{self.namespace}:{{{tag}}}:{kind}"

    def _digest(self, *parts: str) -> str:
        digest = hashlib.blake2b(key=self._key, digest_size=8)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            # With its length before it, no part can run into the next.
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()
