"""Cityscapes' labelTrainIds, made from labelIds or polygons."""

from __future__ import annotations

import math
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cliper.datasets.benchmark import missing_data_error
from cliper.datasets.prepare.masks import MaskJob, MaskPlan, remap_labels
from cliper.datasets.prepare.readers import read_json_object
from cliper.datasets.published import find_benchmark
from cliper.errors import ImageError, quote_path, reraise
from cliper.images import MAX_PIXELS, check_pixels, decoding_memory_errors

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
    # The file is untrusted: a missing key, a wrong type, and Pillow raise many kinds of exception.
    message = f"cannot draw Cityscapes' polygons {quote_path(path)}"
    with reraise(Exception, ImageError, message, "download the file again"), decoding_memory_errors(quote_path(path)):
        size = (int(data["imgWidth"]), int(data["imgHeight"]))
        check_pixels(size, MAX_PIXELS, quote_path(path))
        image = Image.new("L", size, _IGNORE)
        draw = ImageDraw.Draw(image)
        for item in data["objects"]:
            label = _class_name(item["label"])
            if not item.get("deleted") and label != _NOT_DRAWN:
                points = [(x, y) for x, y in item["polygon"]]
                if not all(math.isfinite(x) and math.isfinite(y) for x, y in points):
                    raise ValueError("a coordinate is not finite")
                draw.polygon(points, fill=_train_ids()[label])
    return np.asarray(image)


@cache
def _train_ids() -> dict[str, int]:
    return dict.fromkeys(_LABELS, _IGNORE) | {
        name: i for i, name in enumerate(find_benchmark("cityscapes").class_names)
    }


def _class_name(label: str) -> str:
    """The class of an object, or of a group of objects ("cargroup")."""
    known = (*_LABELS, _NOT_DRAWN)
    name = label if label in known else label.removesuffix("group")
    if name not in known:
        raise ValueError(f"unknown label {label!r}")
    return name
