"""YOLO segmentation: a text file of polygons for each image, and data.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cliper.files import to_utf8, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.polygons import region_polygon
from cliper.formats.regions import DEFAULT_MIN_AREA, find_regions

__all__ = ["YOLO", "data_yaml", "yolo_lines"]


def yolo_lines(labels: npt.ArrayLike, tolerance: float = 1.0, min_area: int | str = DEFAULT_MIN_AREA) -> str:
    """A line for each region: the class, counted from 0, and the corners as fractions of width and height.

    A line is one polygon, so holes are bridged to the outer border; the area stays right.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is class i.
        tolerance: of the polygons, in pixels.
        min_area: smaller regions are left out; pixels, or a share of the image.

    Example:
        >>> yolo_lines([[0, 2], [0, 2]])
        '1 0.5 0 1 0 1 1 0.5 1\\n'
    """
    size = np.array(np.shape(labels)[::-1], dtype=np.float64)
    lines = []
    for region in find_regions(labels, min_area):
        corners = (region_polygon(region, tolerance) / size).ravel().tolist()
        # 7 digits: less than a tenth of a pixel up to a million pixels a side.
        lines.append(" ".join([str(region.label - 1), *(f"{corner:.7g}" for corner in corners)]) + "\n")
    return "".join(lines)


def data_yaml(classes: Sequence[str]) -> str:
    """The file that names the classes; images are expected in ``images`` beside its folder.

    Example:
        >>> print(data_yaml(["dog"]), end="")
        train: ../images
        val: ../images
        names:
          0: dog
    """
    import yaml

    names = {index: to_utf8(name) for index, name in enumerate(classes)}
    content = {"train": "../images", "val": "../images", "names": names}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return text


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_text(path, yolo_lines(result.labels, options.tolerance, options.min_area))


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    path = folder / "data.yaml"
    write_text(path, data_yaml(classes))
    return [path]


YOLO = Format(
    "yolo", ".txt", "YOLO segmentation polygons; data.yaml for the run", _write, _merge, merged_files=("data.yaml",)
)
