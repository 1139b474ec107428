"""Cityscapes' labelTrainIds, from its labelIds or its polygons."""

from __future__ import annotations

import math
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.benchmarks.base import missing_data
from cliper.benchmarks.cityscapes import cityscapes
from cliper.benchmarks.prepare.plan import Job, Plan, renumber
from cliper.benchmarks.prepare.sources import read_json
from cliper.errors import ImageError, InputError, ResourceError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["cityscapes_masks"]

# All labels of the data set in the order of their ids, which begin at 0; the license plate's is -1.
# fmt: off
_LABELS = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)
# fmt: on
_NOT_DRAWN = "license plate"
_IGNORED = 255


def cityscapes_masks(root: Path) -> Plan:
    """Plan the ``labelTrainIds`` of ``CityScapes/gtFine/val``, from ``labelIds`` where there, else from ``polygons``.

    Raises:
        InputError: there are neither.
    """
    folder = root / "CityScapes" / "gtFine" / "val"
    polygons, numbers = "_gtFine_polygons.json", "_gtFine_labelIds.png"
    found = {path.with_name(path.name.removesuffix(end)) for end in (polygons, numbers) for path in _all(folder, end)}
    if not found:
        raise missing_data("cityscapes", folder / f"*/*{numbers}")
    jobs = []
    for stem in sorted(found):
        source = stem.with_name(stem.name + numbers)
        make = partial(_of_numbers, source)
        if not source.is_file():
            make = partial(_of_polygons, stem.with_name(stem.name + polygons))
        jobs.append(Job(stem.with_name(f"{stem.name}_gtFine_labelTrainIds.png"), make))
    return Plan(folder, jobs)


def _all(folder: Path, end: str) -> list[Path]:
    return [path for path in folder.glob(f"*/*{end}") if not path.name.startswith(".")]


def _of_numbers(path: Path) -> npt.NDArray[Any]:
    from cliper.formats import read_label_png

    train_ids = _train_ids()
    return renumber(read_label_png(path), {i: train_ids[name] for i, name in enumerate(_LABELS)}, path)


def _of_polygons(path: Path) -> npt.NDArray[Any]:
    """Polygons in the order of the file, a later one over an earlier one; deleted ones are left out."""
    import numpy as np
    from PIL import Image, ImageDraw

    from cliper.decoding import check_pixels, decoding_memory_errors, one_line, shown_path
    from cliper.images import MAX_PIXELS

    try:
        data = read_json("Cityscapes' polygons", path)
        size = (int(data["imgWidth"]), int(data["imgHeight"]))
        check_pixels(size, MAX_PIXELS, shown_path(path))
        with decoding_memory_errors(shown_path(path)):
            picture = Image.new("L", size, _IGNORED)
        drawer = ImageDraw.Draw(picture)
        for item in data["objects"]:
            label = _ungrouped(item["label"])
            if not item.get("deleted") and label != _NOT_DRAWN:
                points = [(x, y) for x, y in item["polygon"]]
                if not all(math.isfinite(x) and math.isfinite(y) for x, y in points):
                    raise ValueError("a coordinate that is not finite")
                drawer.polygon(points, fill=_train_ids()[label])
    except (ImageError, ResourceError):
        raise
    except InputError as error:
        raise ImageError(str(error)) from None
    except Exception as error:
        raise ImageError(
            f"expected Cityscapes' polygons, could not draw {shown_path(path)} ({one_line(error)}); fetch it again"
        ) from None
    return np.asarray(picture)


@cache
def _train_ids() -> dict[str, int]:
    return dict.fromkeys(_LABELS, _IGNORED) | {name: i for i, name in enumerate(cityscapes().class_names)}


def _ungrouped(label: str) -> str:
    """The label of a thing, or of a group of such things ("cargroup")."""
    known = (*_LABELS, _NOT_DRAWN)
    name = label if label in known else label.removesuffix("group")
    if name not in known:
        raise ValueError(f"no label is called {label!r}")
    return name
