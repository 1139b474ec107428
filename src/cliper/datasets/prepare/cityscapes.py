"""Cityscapes' labelTrainIds, made from labelIds or polygons."""

from __future__ import annotations

import reprlib
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cliper.datasets.benchmark import missing_data_error
from cliper.datasets.prepare.masks import MaskJob, MaskPlan, remap_labels
from cliper.datasets.prepare.rasterize import check_polygons, check_size, paint_annotations
from cliper.datasets.prepare.readers import get_list, read_json_object
from cliper.datasets.published import find_benchmark
from cliper.errors import InputError, quote_path

__all__ = ["cityscapes_masks"]

# All labels of the data set in the order of their ids from 0; the license plate has the id -1.
# fmt: off
_LABELS = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)
# fmt: on
_NOT_DRAWN = "license plate"
_IGNORE = 255
_MAX_EDGE_ROWS = 2 * 10**9  # Pillow looks at every edge of a polygon in each of its rows
_IDS, _POLYGONS, _TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_polygons.json", "_gtFine_labelTrainIds.png"


def cityscapes_masks(root: Path) -> MaskPlan:
    """Plan the ``labelTrainIds`` of ``CityScapes/gtFine/val``, from ``labelIds`` if they exist, else from ``polygons``.

    Raises:
        InputError: neither exists.
    """
    folder = root / "CityScapes" / "gtFine" / "val"
    jobs = {}
    for suffix, make in ((_POLYGONS, _polygon_labels), (_IDS, _id_labels)):  # labelIds replace polygons
        for path in folder.glob(f"*/*{suffix}"):
            if not path.name.startswith("."):
                target = path.with_name(path.name.removesuffix(suffix) + _TRAIN_IDS)
                jobs[target] = MaskJob(target, partial(make, path))
    if not jobs:
        raise missing_data_error("cityscapes", folder / f"*/*{_IDS}")
    return MaskPlan(folder, [jobs[target] for target in sorted(jobs)])


def _id_labels(path: Path) -> npt.NDArray[Any]:
    return remap_labels({i: _train_ids()[name] for i, name in enumerate(_LABELS)}, path)


def _polygon_labels(path: Path) -> npt.NDArray[Any]:
    """Polygons drawn in the order of the file, a later one over an earlier one, without the deleted ones."""
    data = read_json_object("Cityscapes' polygons", path)
    title, objects = quote_path(path), get_list(data, "objects", path)
    height: Any = data.get("imgHeight")
    width: Any = data.get("imgWidth")
    check_size(title, height, width, len(objects))
    image = Image.new("L", (width, height), _IGNORE)
    draw = ImageDraw.Draw(image)
    outlines, edge_rows = 0.0, 0

    def paint(item: Any) -> None:
        nonlocal outlines, edge_rows
        if not isinstance(item, dict):
            raise InputError(f"expected an object with label and polygon, got {reprlib.repr(item)}")
        label, points = _class_name(item.get("label")), item.get("polygon")
        if item.get("deleted") or label == _NOT_DRAWN:
            return
        if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
            raise InputError(f"expected a polygon [[x, y], [x, y], ...], got {reprlib.repr(points)}")
        edge_rows += len(points) * height
        if edge_rows > _MAX_EDGE_ROWS:
            raise InputError(f"expected at most {_MAX_EDGE_ROWS:.0e} points of all polygons times rows, got more")
        polygon = list(chain.from_iterable(points))
        outlines = check_polygons([polygon], height, width, outlines)
        draw.polygon(polygon, fill=_train_ids()[label])

    paint_annotations(title, ((f"objects[{i}]", item) for i, item in enumerate(objects)), paint)
    return np.asarray(image)


@cache
def _train_ids() -> dict[str, int]:
    return dict.fromkeys(_LABELS, _IGNORE) | {
        name: i for i, name in enumerate(find_benchmark("cityscapes").class_names)
    }


def _class_name(label: Any) -> str:
    """The class of an object, or of a group of objects ("cargroup").

    Raises:
        InputError: there is no such class.
    """
    known = (*_LABELS, _NOT_DRAWN)
    name = label.removesuffix("group") if isinstance(label, str) and label not in known else label
    if name not in known:
        raise InputError(f"expected a label of Cityscapes, got {reprlib.repr(label)}")
    return name
