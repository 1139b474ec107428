"""The generated pages are current, links resolve, and no file contains paths of the development machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cliper.checkpoints import entries
from cliper.settings import presets

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# ``docs/method.md``, section 2, "Sliding windows" (over a line's end too)
_SECTION = re.compile(r'method(?:\.md)?`*,\s+section\s+(\d+)(?:,\s+"([^"]+)")?', re.IGNORECASE)


def headings(page: Path) -> list[str]:
    """The texts of a page's headings, in order."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that code hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_command_line_page_is_current() -> None:
    check = [sys.executable, str(DOCS / "generate_command_line.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["generate_performance.py", "generate_accuracy.py"])
def test_tables_of_measurements_are_current(script: str) -> None:
    check = [sys.executable, str(DOCS / script), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_command_line_page_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    test_command_line_page_is_current()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, wanted = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        inside = path == ROOT or ROOT in path.parents
        anchors = {anchor(text) for text in headings(path)} if path.suffix == ".md" and path.is_file() else set()
        if not inside or not path.exists() or (wanted and wanted not in anchors):
            broken.append(target)
    assert not broken, f"{page.name}: {broken}"


def test_site_lists_every_page() -> None:
    listed = re.findall(r"^ +- .*: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.name for path in DOCS.glob("*.md")} <= set(listed)


def test_sections_that_the_source_names_exist() -> None:
    numbered = {text.split(".")[0] for text in headings(DOCS / "method.md") if re.match(r"\d+\. ", text)}
    plain = set(headings(DOCS / "method.md"))
    named = 0
    for path in sorted((ROOT / "src" / "cliper").rglob("*.py")):
        for number, title in _SECTION.findall(path.read_text(encoding="utf-8")):
            named += 1
            assert number in numbered, f"{path.name} names section {number} of docs/method.md"
            assert not title or title in plain, f"{path.name} names {title!r} of docs/method.md"
    assert named > 5, "the search for sections finds none: has their form changed?"


def test_weights_page_lists_the_registry() -> None:
    rows = (DOCS / "weights.md").read_text(encoding="utf-8").splitlines()
    for entry in entries():
        row = next((line for line in rows if line.startswith(f"| `{entry.alias}` |")), "")
        pins = [source.revision[:12] for source in entry.sources if source.revision]
        recommended = [entry.recommended] if entry.recommended in presets() else []
        wanted = [f"{entry.megabytes} MB", entry.licence, *(s.repo for s in entry.sources), *pins, *recommended]
        assert not [text for text in wanted if text not in row], f"docs/weights.md, row of {entry.alias}: {wanted}"


def _is_made(part: str) -> bool:
    return part in {".venv", ".git", "__pycache__", "build", "dist"} or part.endswith(("_cache", ".egg-info"))


def repository_files() -> list[Path]:
    """Tracked and untracked files that git does not ignore; without git all files."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
        paths = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for path in ROOT.rglob("*") if not any(map(_is_made, path.relative_to(ROOT).parts))]
    return [path for path in paths if path.is_file()]


def test_no_file_contains_paths_of_the_development_machine() -> None:
    # Joined here, so that this file does not contain them.
    forbidden = [("/" + "work").encode(), (".." + "/shared").encode()]
    # Only at the start of a path: "network/workers" is allowed.
    pattern = re.compile(rb"(?<![\w.])(?:" + b"|".join(re.escape(item) for item in forbidden) + rb")(?![\w-])")
    found = []
    for path in repository_files():
        data = path.read_bytes()
        if b"\0" not in data[:8192] and pattern.search(data):
            found.append(str(path.relative_to(ROOT)))
    assert not found
