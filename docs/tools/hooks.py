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

from places import API, BESIDE, OUTSIDE, ROOT, grouped, modules

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

PRIVATE: Final = re.compile(r' title="[^"]*gip_resilience[\w.]*\._[^"]*"')

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
                    {group: [{name.removeprefix("gip_resilience."): f"{API}{name}.md"} for name in names]}
                    for group, names in grouped().items()
                ]
            else:
                _expand(place)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name in modules():
        # Values are what `defaults` is about; elsewhere they would show what is private.
        options = f"    options:\n      show_attribute_values: {str(name.endswith('.defaults')).lower()}\n"
        text = f"# {name}\n\n::: {name}\n{options}"
        files.append(File.generated(config, f"{API}{name}.md", content=text))
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
    """Give the theme's search dialog the name that a screen reader says, and take private names out of tooltips."""
    return PRIVATE.sub("", output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1))


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would ask anybody else for anything, or that names a private module.

    Raises:
        PluginError: a page, a style or a picture does; it says which.
    """
    site = Path(config.site_dir)
    texts = {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(site.rglob("*"))
        if path.suffix in {".html", ".css", ".svg"}
    }
    found = [
        f"{name} asks an outside host: {hit[0]}"
        for name, text in texts.items()
        for hit in OTHERS.finditer(text)
    ]
    found += [
        f"{name} names a private module: {hit[0]}"
        for name, text in texts.items()
        if name.startswith(API)
        for hit in re.finditer(r"gip_resilience\._\w+", text)
    ]
    if found:
        raise PluginError("\n".join(found))
