"""Docstrings as the site shows them: written for people who read the source, in plain text with a little of reST.

What differs from Markdown is turned into it: ``::`` before an indented block, a table drawn with ``=``, and a name in
single backticks, which becomes a link where the site has the thing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from griffe import Extension, NameResolutionError

if TYPE_CHECKING:
    from griffe import Object

LITERAL: Final = re.compile(r"(\S)?::$", re.MULTILINE)
DRAWN: Final = re.compile(r"^=[= ]+\n.*?^=[= ]+\n(?:.*?^=[= ]+$)?", re.MULTILINE | re.DOTALL)
NAME: Final = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")


class Docstrings(Extension):
    """What mkdocstrings loads."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Turn one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = turned(obj.docstring.value, obj)


def turned(text: str, obj: Object) -> str:
    """A docstring in Markdown."""
    text = LITERAL.sub(lambda found: f"{found[1]}:" if found[1] else "", text)
    text = DRAWN.sub(_table, text)
    return NAME.sub(lambda found: _linked(found, obj), text)


def _table(drawn: re.Match[str]) -> str:
    rows = [re.split(r" {2,}", line.strip()) for line in drawn[0].splitlines() if not line.startswith("=")]
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _linked(found: re.Match[str], obj: Object) -> str:
    name = found[1]
    try:
        path = name if name.startswith("gip_resilience") else obj.resolve(name)
    except NameResolutionError:
        return found[0]
    if "._" in path or not path.startswith("gip_resilience"):
        return found[0]
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
