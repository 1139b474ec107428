"""What ``cliper segment`` imports and says before it computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cliper
from cliper.cli.main import run

# Runs the command line, and prints the modules that were imported: when "loading" was said, and at the end.
RECORD = """
import io, json, sys

class Errors(io.StringIO):
    loaded = None

    def write(self, text):
        if "loading" in text:
            Errors.loaded = sorted(sys.modules)
        return super().write(text)

for name in json.loads(sys.argv[1]):
    sys.modules[name] = None  # importing it raises ImportError
out, sys.stdout, sys.stderr, errors = sys.stdout, io.StringIO(), Errors(), sys.stderr
from cliper.cli.main import run
code = run(sys.argv[2:])
errors.write(sys.stderr.getvalue())
print(json.dumps([code, Errors.loaded, sorted(name for name, module in sys.modules.items() if module)]), file=out)
"""


POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")
"""Modules that Windows does not have."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Segment the bundled photo in a process without :data:`POSIX_ONLY`; packages imported when "loading" was
    printed, and at the end."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["segment", str(cliper.example_photo()), "-c", "horse; grass", "-o", str(out)]
    code = [sys.executable, "-c", RECORD, json.dumps(POSIX_ONLY), *arguments]
    environment = {**os.environ, "CLIPER_CACHE": str(out / "cache")}
    done = subprocess.run(code, capture_output=True, text=True, timeout=300, check=True, env=environment)
    status, before, after = json.loads(done.stdout)
    assert (status, done.stderr) == (0, "cliper: loading mini ...\n")
    assert (out / "horses.labels.png").is_file()
    return {name.partition(".")[0] for name in before}, {name.partition(".")[0] for name in after}


def test_segmenting_imports_no_library_that_it_does_not_use(imported: tuple[set[str], set[str]]) -> None:
    before, after = imported
    assert "click" in before
    assert not {"torch", "numpy", "PIL"} & before  # the line appears before what takes time
    assert {"torch", "tokenizers"} <= after  # the words were not in the cache
    assert not {"transformers", "diffusers", "huggingface_hub", "fsspec", "scipy"} & after


def test_segmenting_needs_no_module_of_posix_only(imported: tuple[set[str], set[str]]) -> None:
    assert not {*POSIX_ONLY} & imported[1]


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_quiet_says_nothing_while_loading(
    option: str, clip_folder: Path, photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["segment", str(photo), "-c", "dog", "-m", str(clip_folder), "-o", str(tmp_path / "out"), option]) == 0
    printed = capfd.readouterr()
    assert printed.err == ("" if option == "--quiet" else f"cliper: loading {clip_folder} ...\n")
    assert len(printed.out.splitlines()) == (0 if option == "--quiet" else 1)
