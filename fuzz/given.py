"""What a target makes of the bytes it is given, where raw bytes are too weak. Needs no fuzzer: a replay uses it too.

Values are taken from the front, one byte for a choice; what is exhausted gives zeros and empty texts, so that every
input means something and a short one stays short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")


class Check(Protocol):
    """A target: raises when a promise is broken."""

    def __call__(self, data: bytes, /) -> None: ...


class Given:
    """An input, taken piece by piece."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not taken."""
        return max(0, len(self._data) - self._at)

    def byte(self) -> int:
        """0 to 255."""
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def below(self, limit: int) -> int:
        """0 up to, but not including, *limit*, which is at most 256."""
        return self.byte() % limit

    def flag(self) -> bool:
        """One choice of two."""
        return bool(self.byte() & 1)

    def one_of(self, values: Sequence[T]) -> T:
        """One of at most 256."""
        return values[self.byte() % len(values)]

    def take(self, size: int) -> bytes:
        """That many bytes, or what there is."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def piece(self, limit: int = 64) -> bytes:
        """Some bytes, as many as the next one says."""
        return self.take(self.below(limit))

    def text(self, limit: int = 64) -> str:
        """The same as text of any characters up to U+00FF, as headers are read."""
        return self.piece(limit).decode("latin-1")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def sizes(self) -> list[int]:
        """How to cut something: 1 to 3 sizes, small ones, for `cut`."""
        return [1 + self.below(24) for _ in range(1 + self.below(3))]

    def headers(self, names: Sequence[str], values: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Up to 5 headers; most have one of *names*, and some one of *values*."""
        return [
            (
                self.text(24) if self.below(8) == 7 else self.one_of(names),
                self.one_of(values) if values and self.flag() else self.text(48),
            )
            for _ in range(self.below(6))
        ]

    def value(self, words: Sequence[str], depth: int = 4) -> Any:
        """A JSON value, in which names and texts are often *words*."""
        kind = self.below(12 if depth else 8)
        match kind:
            case 0:
                return self.one_of((None, True, False))
            case 1:
                return self.byte()
            case 2:
                return int.from_bytes(self.piece(20), "big", signed=True)
            case 3:
                return self.one_of(NUMBERS)
            case 4 | 5 | 6:
                return self.one_of(words)
            case 7:
                return self.piece().decode("utf-8", "replace")
            case 8:
                return [self.value(words, depth - 1) for _ in range(self.below(4))]
            case _:
                return {self.one_of(words): self.value(words, depth - 1) for _ in range(self.below(5))}


NUMBERS = (
    0, -1, 1, 400, 429, 500, 503, 599, 2**31, 2**53, 2**63, 2**64, 10**20, 10**400, -(10**400),
    0.0, -0.0, 0.5, -0.5, 1e-320, 1e9, 1.7672256e9, 1.7672256e12, 1e308, -1e308,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
"""Numbers at which something changes."""


def cut(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """*data* in pieces of these sizes, over and over."""
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)]
        yield data[at : at + size]
        at += size
        number += 1
