"""Hooks of mkdocs: the pages of the repository's top folder, and links to files that are not on the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

# File in the top folder -> page of the site.
TOP_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s:]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^<!--.*?-->$", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):<code>[~.]*")  # of Sphinx, in docstrings


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the top folder."""
    for name, page in TOP_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at the site's pages; the path of a file that is not on the site becomes text."""
    folder = "" if page.file.src_uri in TOP_PAGES.values() else "docs"

    def link(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, path))
        uri = TOP_PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri) and (path in TOP_PAGES or path.startswith("docs/")):
            return f"{mark}[{text}]({uri}{hash_}{anchor})"
        return text if path in text else f"{text} (`{path}`)"

    parts = _FENCE.split(markdown)  # every second one is a block of code
    parts[::2] = [_LINK.sub(link, _COMMENT.sub("", part)) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Remove the roles of Sphinx that docstrings have."""
    return _ROLE.sub("<code>", html)
