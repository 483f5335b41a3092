"""What mkdocs does to the pages of docs/ beyond rendering them; mkdocs.yml names this file.

On GitHub a page may link to any file of the repository. The site has pages of its own for a few of these; the others
are copied into it, below `repository/`, so that it needs neither a server nor the internet.
"""

import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from options_tables import fill  # type: ignore[import-not-found]  # mypy knows it as scripts.options_tables

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "conf": "options.md",
}
"""What stands outside of docs/, and the page of the site that says it."""

TAKEN = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Those that become pages as they are."""

LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]+)(?P<after>(?:#[^)\s]*)?\))")
DESCRIPTION = re.compile(r"\[[^]]+\]\(docs/(?P<page>[\w./-]+)\): (?P<says>.+?)(?=<br>| \|$)", re.MULTILINE)
"""How README's table says what a page is about."""

LOADED = re.compile(
    r"<(?:script|img|iframe|link)\b(?![^>]*rel=\"(?:prev|next|canonical)\")[^>]*(?:src|href)=\"(?:https?:)?//[^>]*>"
)

log = logging.getLogger("mkdocs.hooks.site")


def leave(target: str, source: str) -> str | None:
    """Where a link of the repository leads to on the site, seen from the top of docs/.

    Args:
        target: The link as the page writes it: ../benchmarks/results/peers_cpu.json.
        source: The page's file, from the top of the repository: docs/performance.md.

    Returns:
        repository/benchmarks/results/peers_cpu.json, or None where the link is right as it is.
    """
    if ":" in target or target.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/") if not source.startswith("docs/") else None
    return f"repository/{path}" if (ROOT / path).is_file() else None


def outside(text: str, source: str) -> set[str]:
    """The files that a page links to and that the site has to copy."""
    targets = (leave(found["target"], source) for found in LINK.finditer(text))
    return {target.removeprefix("repository/") for target in targets if target and target.startswith("repository/")}


def rewrite(text: str, source: str, page: str) -> str:
    """Turn a page's links out of docs/ into links within the site.

    Args:
        text: The page.
        source: Its file, from the top of the repository.
        page: Its place on the site, from the top of docs/.
    """

    def replace(found: re.Match[str]) -> str:
        target = leave(found["target"], source)
        if target is None:
            return found[0]
        return found["before"] + posixpath.relpath(target, posixpath.dirname(page) or ".") + found["after"]

    return LINK.sub(replace, text)


def descriptions() -> dict[str, str]:
    """What README's table says of each page, by its name."""
    return {found["page"]: found["says"] for found in DESCRIPTION.finditer((ROOT / "README.md").read_text())}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that stand outside of docs/."""
    for name in TAKEN:
        files.append(File.generated(config, PAGES[name], abs_src_path=str(ROOT / name)))
    linked: set[str] = set()
    for file in files.documentation_pages():
        linked |= outside(file.content_string, _source(file))
    for path in sorted(linked):
        files.append(File.generated(config, f"repository/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in the tables of the options, turn links, and describe the page."""
    says = re.sub(r"\[([^]]+)\]\([^)]+\)|[`*]", r"\1", descriptions().get(page.file.src_uri, ""))
    if says:
        page.meta["description"] = says
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]  # which would hold the page itself alone
    return rewrite(fill(markdown), _source(page.file), page.file.src_uri)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Warn, which ends a strict build, of what the browser would load from elsewhere."""
    for found in LOADED.findall(output):
        log.warning("%s loads something from the internet: %s", page.file.src_uri, found)
    return output


def _source(file: File) -> str:
    return next((name for name in TAKEN if PAGES[name] == file.src_uri), f"docs/{file.src_uri}")
