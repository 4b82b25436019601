"""What MkDocs is told beyond mkdocs.yml: pages from outside docs/, a page for each public module, links between them.

The Markdown files are written to be read where they lie, on a forge or in an editor, and link to each other by their
paths in the repository. Here a link to a file that the site has elsewhere is turned into one to its place there.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs runs this file by its path

from places import API, OUTSIDE, ROOT, modules

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

OTHERS: Final = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|(?:url\(|@import\s)\s*["']?(?:https?:)?//""",
    re.IGNORECASE,
)
"""What makes a browser ask somebody else than the site."""

LINK: Final = re.compile(r"(\]\()([^)\s#]+)")
FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the modules' pages into the nav."""
    _expand(config.nav)
    return config


def _expand(nav: Any) -> None:
    for entry in nav if isinstance(nav, list) else ():
        for title, place in list(entry.items()):
            if place == API:
                entry[title] = [
                    {name.removeprefix("gip_resilience."): f"{API}{name}.md"} for name in modules()
                ]
            else:
                _expand(place)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for name in modules():
        files.append(File.generated(config, f"{API}{name}.md", content=f"# {name}\n\n::: {name}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs calls it by these names
    """Turn links within the repository into links within the site."""
    place = page.file.src_uri
    if place == "index.md":
        page.meta["hide"] = ["navigation"]
    sources = {there: source for source, there in OUTSIDE.items()}
    folder = posixpath.dirname(sources.get(place, f"docs/{place}"))

    def moved(link: re.Match[str]) -> str:
        target = link[2]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        there = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if there is None or place.startswith(API):
            return link[0]
        return link[1] + posixpath.relpath(there, posixpath.dirname(place) or ".")

    pieces, last = [], 0
    for fence in FENCE.finditer(markdown):
        pieces += [LINK.sub(moved, markdown[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*pieces, LINK.sub(moved, markdown[last:])])


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001 - MkDocs calls it by these names
    """See `_named`."""
    return _named(output)


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:  # noqa: ARG001 - as above
    """See `_named`."""
    return _named(output) if template_name.endswith(".html") else output


def _named(output: str) -> str:
    """Give the theme's search dialog the name that a screen reader says."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would ask anybody else for anything.

    Raises:
        PluginError: a page, a style or a picture would; it says which.
    """
    site = Path(config.site_dir)
    found = [
        f"{path.relative_to(site)}: {hit[0]}"
        for path in sorted(site.rglob("*"))
        if path.suffix in {".html", ".css", ".svg"}
        for hit in OTHERS.finditer(path.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError("asks outside hosts:\n" + "\n".join(found))
