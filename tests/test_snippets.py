"""Every snippet of README and docs runs as it stands.

Python snippets of a page run one after the other in one namespace. Of shell snippets the ``cliper`` commands run in a
folder with a photo, a folder of photos, masks and a class list; commands that need a network, a server, or weights or
files that are not in the package (``NOT_HERE``) are only parsed. Other programs (pip, curl, ...) are not started.
"""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

import cliper
from cliper.checkpoints import resolve
from cliper.cli.main import cli
from cliper.vocabulary import taught_words
from dataset_trees import build_tree

ROOT = Path(__file__).resolve().parents[1]
# docs/command-line.md is generated from the help texts, whose examples are tested with the command line.
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "command-line.md")]
NOT_HERE = re.compile(
    r"ViT-|sd2\.1|sd1\.|dino|vit-[bl]-|path/to|s3://|/shared/|/data/|--engine ray|\bserve\b|\bdemo\b|data prepare"
    r"|--ablation|models (fetch|verify)|mine\.yaml|report\.json|film\.mp4|\.tif\b|\bexport\b"
)
# Its packages are in another environment: tests/formats/test_ultralytics_package.py and tests/integrations run it.
OTHER_PACKAGES = {"training.md"}


def snippets(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The arguments of every ``cliper`` command in shell snippets, also after ``NAME=value``."""
    text = "\n".join(snippets(page, "sh")).replace("\\\n", " ")
    lines = re.findall(r"^(?:[A-Z_]+=(?:\$\([^)]*\)|\S*) )?cliper (.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


LONG = {"batch", "evaluate", "tune"}
COMMANDS = [
    pytest.param(
        arguments,
        id=f"{page.stem}-{index}-{arguments[0] if arguments else 'cliper'}",
        marks=[pytest.mark.full] if LONG & set(arguments) and not NOT_HERE.search(" ".join(arguments)) else [],
    )
    for page in PAGES
    for index, arguments in enumerate(commands(page))
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder that the snippets assume."""
    photo = cliper.example_photo()
    for name in ("photo.jpg", "photos/horses.jpg", "photos/garden/cat.jpg", "garden/cat.jpg", "images/horses.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / name)
    with Image.open(photo) as image:
        size = (image.height, image.width)
    for name, label in (("truth/horses.png", 1), ("truth/garden/cat.png", 2), ("masks/horses.png", 1)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(size, label, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "classes.txt").write_text("horse\ndog\n", encoding="utf-8")
    (tmp_path / "tuned.yaml").write_text("classes: horse\n", encoding="utf-8")
    build_tree("voc21", tmp_path / "ROOT")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(arguments: list[str]) -> None:
    """Check names and types of all options; fails as the command line would."""
    context = cli.make_context("cliper", list(arguments), resilient_parsing=False)
    command: click.Command = cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group) and rest:
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None, f"no command {name}"
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []


@pytest.mark.parametrize("arguments", COMMANDS)
def test_command_of_a_snippet_works(arguments: list[str], folder: Path, command: Callable[..., object]) -> None:
    if NOT_HERE.search(" ".join(arguments)):
        parse(arguments)
        return
    ended = command(*arguments)
    # The miniature ROOT lacks most data sets, which `data verify` reports.
    allowed = {0, 1, 2} if arguments[:2] == ["data", "verify"] else {0}
    assert ended.code in allowed, ended.err  # type: ignore[attr-defined]


PYTHON_PAGES = [page for page in PAGES if snippets(page, "python") and page.name not in OTHER_PACKAGES]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_snippets_run(page: Path, folder: Path, mini: cliper.Segmenter) -> None:
    namespace: dict[str, object] = {"segmenter": mini}
    for block in snippets(page, "python"):
        exec(compile(block, str(page), "exec"), namespace)


def test_words_of_commands_are_known_to_the_bundled_checkpoint() -> None:
    known = set(taught_words(resolve("mini", "clip").folder))
    for page in PAGES:
        for arguments in commands(page):
            if NOT_HERE.search(" ".join(arguments)):
                continue
            given = [value for flag, value in itertools.pairwise(arguments) if flag == "-c"]
            words = {word.strip() for text in given for word in re.split(r"[;:,]", text)}
            assert words <= known, f"{page.name}: mini was not taught {sorted(words - known)}"
