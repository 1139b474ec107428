"""The example of a Gradio app: short, on the public API alone, and it runs."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import cliper
from cliper.segmenter import Segmenter

SPACE = Path(__file__).parents[2] / "examples" / "gradio_space"


def test_app_is_short_and_uses_the_public_api_alone() -> None:
    text = (SPACE / "app.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    tree = ast.parse(text)
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"cliper", "gradio", "os"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cliper"
    }
    assert used <= set(cliper.__all__)


def test_header_of_the_space_names_the_app() -> None:
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert header["sdk"] == "gradio"
    assert (SPACE / header["app_file"]).is_file()
    assert "cliper" in (SPACE / "requirements.txt").read_text(encoding="utf-8")


@pytest.mark.full
def test_app_answers_a_client(run_script: Callable[..., Any], mini: Segmenter) -> None:
    found = run_script("call_gradio_app.py", SPACE / "app.py", cliper.example_photo())
    for words in ("horse; grass", "horse; submarine"):
        result = mini(cliper.example_photo(), words)
        areas, absent = found[words]
        assert areas == pytest.approx({name: area for name, area in result.areas.items() if area}, abs=1e-3)
        assert all(name in absent for name in result.absent)
    assert "horse" in found["horse; grass"][0]
    assert "expected" in found["error"]
