"""Every example in a docstring runs and prints the expected output."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import cliper

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(cliper.__path__, "cliper.")
    if name != "cliper.__main__"  # it runs the command
]


def examples(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module, name) if test.examples]


@pytest.mark.parametrize("name", ["cliper", *MODULES])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in examples(name):
        runner.run(test, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said)
    assert list(tmp_path.iterdir()) == []  # examples leave nothing behind


def test_modules_have_examples() -> None:
    assert sum(bool(examples(name)) for name in ["cliper", *MODULES]) > 15
