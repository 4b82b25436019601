"""Links between the Markdown files lead somewhere, every page is in the site's nav, and the nav names no other.

What MkDocs itself checks (``make docs``, where a warning is an error) is not in reach of ``make test``.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from docs.tools.places import API, OUTSIDE, grouped, modules

from pages import DOCS, FENCE, ROOT

FILES = sorted(
    {
        ROOT / "README.md",
        ROOT / "SECURITY.md",
        ROOT / "CHANGELOG.md",
        *DOCS.rglob("*.md"),
        *(
            path
            for folder in ("benchmarks", "fuzz", "observability", "soak")
            for path in (ROOT / folder).glob("*.md")
        ),
    }
)


def prose(path: Path) -> str:
    """A file without its blocks and code spans."""
    return re.sub(r"`[^`\n]+`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """What headings of a file are called, by GitHub and by MkDocs alike."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in plain}


def links(path: Path) -> list[str]:
    """Where links and pictures of a file lead, but for those to the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """To a file that is there or a module's page that the site makes, and to a heading of it."""
    for link in links(path):
        target, _, heading = unquote(link).partition("#")
        there = (path.parent / target).resolve() if target else path
        if there.is_relative_to(DOCS / API):
            assert there.stem in modules(), link
            continue
        assert there.exists(), link
        if heading:
            assert heading in anchors(there), link


def test_every_page_is_in_the_nav_once() -> None:
    """And nothing else is."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = yaml.safe_load(text)["nav"]
    there = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]

    assert sorted(named(nav)) == sorted([*there, *OUTSIDE.values(), API])


def named(nav: object) -> list[str]:
    """The pages a nav names."""
    if isinstance(nav, str):
        return [nav]
    entries = nav if isinstance(nav, list) else list(nav.values()) if isinstance(nav, dict) else []
    return [page for entry in entries for page in named(entry)]


def test_every_public_module_has_a_page() -> None:
    """But the command line, which has one of its own, and what a package shows for its parts. No private one has."""
    package = ROOT / "src" / "gip_resilience"
    files = (path for path in package.glob("*.py") if not path.name.startswith("_"))
    public = {f"gip_resilience.{path.stem}" for path in files}
    shown = set(modules())

    assert public <= shown
    assert not [name for name in shown if "._" in name]
    assert {
        "gip_resilience",
        "gip_resilience.gateway",
        "gip_resilience.testing",
        "gip_resilience.dialects",
    } <= shown


def test_every_module_is_in_the_nav_once() -> None:
    """In one group, and none that is not there."""
    assert sorted(name for names in grouped().values() for name in names) == modules()


def test_what_is_outside_is_there() -> None:
    """The pages that the site takes from other directories."""
    assert [source for source in OUTSIDE if not (ROOT / source).is_file()] == []


def test_every_picture_has_words() -> None:
    """For those who do not see it."""
    assert [path.name for path in FILES if "![](" in prose(path)] == []


def test_no_link_says_here() -> None:
    """A link's words say where it leads."""
    said = [words for path in FILES for words in re.findall(r"\[([^]]*)\]\(", prose(path))]

    assert {"here", "this", "link", "click here"}.isdisjoint(words.lower() for words in said)
