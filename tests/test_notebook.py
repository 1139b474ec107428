"""The notebook: its form, and its cells from first to last."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from cliper import Segmentation

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return content


def test_notebook_has_the_form_of_nbformat_4(notebook: dict[str, Any]) -> None:
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        wanted = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            wanted |= {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])  # it is stored without results
        assert set(cell) == wanted
        assert all(line.endswith("\n") for line in cell["source"][:-1])


@pytest.mark.full
def test_notebook_runs(
    notebook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            code = ast.parse("".join(cell["source"]))
            last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
            exec(compile(code, cell["id"], "exec"), names)
            value = None if last is None else eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
            if value is not None:  # as Jupyter does
                shown.append(value)
    assert len(shown) == 4  # three overlays, and the path of a file
    results = [one for one in shown if isinstance(one, Segmentation)]
    assert all("horse" in one._repr_html_() for one in results)
    assert len(results) == 3
    assert results[0]["horse"].mean() > 0.1  # horses fill a part of the photo
    assert "horse" in results[0].boxes
    assert capsys.readouterr().out.count("Segmentation(") == 4  # the first result, and three lists of words
    assert {path.name for path in tmp_path.iterdir()} == {"labels.png", "overlay.png"}
