"""The image of a confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cliper.errors import ShapeError
from cliper.evaluation.confusion_image import draw_confusion


def dark_cells(image: Image.Image) -> int:
    """Pixels of nearly the colour of a full cell."""
    pixels = np.asarray(image).astype(int)
    return int((np.abs(pixels - (8, 48, 107)).max(-1) < 12).sum())


@pytest.mark.parametrize("count", [1, 21, pytest.param(151, marks=pytest.mark.full)])
def test_full_cells_are_dark_and_as_many_as_classes(count: int) -> None:
    names = [f"class {number}" for number in range(count)]
    full = draw_confusion(5 * np.eye(count, dtype=int), names, "title")
    cell = 34 if count <= 40 else 14
    # At most a third of a cell is its border and its number.
    assert 2 / 3 * count * cell**2 < dark_cells(full) <= count * cell**2
    assert dark_cells(draw_confusion(np.zeros((count, count)), names)) == 0


def test_rows_are_shares() -> None:
    one = draw_confusion([[3, 1], [0, 10]], ["a", "b"])
    assert np.array_equal(np.asarray(one), np.asarray(draw_confusion([[300, 100], [0, 7]], ["a", "b"])))


def test_names_of_any_length_and_script_are_drawn() -> None:
    image = draw_confusion(np.eye(3), ["x" * 500, "犬\n猫", ""], "t" * 300)
    assert image.width < 4000


@pytest.mark.parametrize(("matrix", "names"), [([[1, 2]], ["a"]), ([[1]], ["a", "b"]), ([], [])])
def test_other_shapes_are_refused(matrix: list[list[int]], names: list[str]) -> None:
    with pytest.raises(ShapeError, match="expected a square matrix and a name for each row"):
        draw_confusion(matrix, names)
