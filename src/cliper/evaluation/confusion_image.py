"""A confusion matrix as an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cliper.errors import ShapeError
from cliper.formats.legend import find_font

__all__ = ["draw_confusion"]

_TEXT, _EMPTY = (28, 30, 33), (238, 239, 241)
_LOW, _HIGH = np.array([255, 255, 255]), np.array([8, 48, 107])
_MAX_NAME = 24  # characters


def draw_confusion(matrix: npt.ArrayLike, names: Sequence[str], title: str = "") -> Image.Image:
    """The matrix with each row as shares of its sum.

    Up to 40 classes have their shares as numbers, in percent; 0 is left blank. A row without a pixel is grey.

    Args:
        matrix: [K, K] counts; rows are ground truth, columns predictions.
        names: K names.
        title: one line above.

    Returns:
        An image in mode RGB.

    Raises:
        ShapeError: the matrix is not square, or the names are not as many as its rows.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    if counts.shape != (len(names), len(names)) or not names:
        raise ShapeError(f"expected a square matrix and a name for each row, got {counts.shape} and {len(names)} names")
    sums = counts.sum(1, keepdims=True)
    shares = np.divide(counts, sums, out=np.zeros_like(counts), where=sums > 0)
    cell, em = (34, 14) if len(names) <= 40 else (14, 11)
    shown = [name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…" for name in map(_one_line, names)]
    font, small = find_font("".join(shown), em), find_font("0", 12)
    margin = math.ceil(max(font.getlength(name) for name in shown)) + 3 * em
    head, side = 3 * em, cell * len(names)
    total = max(margin + side + 2 * em, math.ceil(font.getlength(title)) + 2 * em)
    canvas = Image.new("RGB", (total, head + margin + side + em), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((em, em), _one_line(title), fill=_TEXT, font=find_font(title, em))
    top = head + margin
    for index, name in enumerate(shown):
        middle = index * cell + cell // 2
        pen.text((margin - em // 2, top + middle), name, fill=_TEXT, font=font, anchor="rm")
        column = Image.new("RGB", (margin - em // 2, cell), "white")
        ImageDraw.Draw(column).text((0, cell // 2), name, fill=_TEXT, font=font, anchor="lm")
        canvas.paste(column.transpose(Image.Transpose.ROTATE_90), (margin + index * cell, head))
    for (row, column), share in np.ndenumerate(shares):
        left, upper = margin + column * cell, top + row * cell
        colour = _EMPTY if sums[row] == 0 else tuple(np.round(_LOW + (_HIGH - _LOW) * share**0.7).astype(int).tolist())
        pen.rectangle((left, upper, left + cell - 1, upper + cell - 1), fill=colour, outline=(225, 227, 230))
        if cell >= 34 and round(100 * share) > 0:
            text, fill = f"{100 * share:.0f}", "white" if share > 0.35 else _TEXT
            pen.text((left + cell // 2, upper + cell // 2), text, fill=fill, font=small, anchor="mm")
    return canvas


def _one_line(text: str) -> str:
    return "".join(character for character in " ".join(text.split()) if character.isprintable())
