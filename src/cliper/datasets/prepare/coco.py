"""Masks of COCO-Object, made from COCO's instances, and of COCO-Stuff, made from its published maps."""

from __future__ import annotations

import reprlib
from functools import partial
from pathlib import Path
from typing import Any

from cliper.datasets.benchmark import match_files
from cliper.datasets.prepare.annotations import plan_annotated_masks
from cliper.datasets.prepare.masks import MaskJob, MaskPlan, remap_labels
from cliper.datasets.prepare.rasterize import is_integer
from cliper.datasets.prepare.readers import first_existing, get_list, read_json_object, require_pycocotools
from cliper.datasets.published import coco_object_image, find_benchmark
from cliper.errors import InputError, quote_path, reraise

__all__ = ["coco_object_masks", "coco_stuff_masks"]

_VAL_INSTANCES = "instances_val2017.json"
# COCO-Stuff's maps hold COCO's ids minus 1, up to 181. COCO never used the ids 12, 26, ...
_UNUSED_IDS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_USED_IDS = [value for value in range(182) if value not in _UNUSED_IDS]
_STUFF_LABELS = {value: label for label, value in enumerate(_USED_IDS)} | {255: 255}


def coco_object_masks(root: Path, instances: Path | None = None) -> MaskPlan:
    """Plan ``coco2014/coco_seg_anno``.

    Args:
        root: root folder of all data sets.
        instances: ``instances_val2017.json``, which lists the benchmark's 5,000 images (they are written to
            ``coco2014/val2017.txt``), or another of COCO's instances files, of which all images are used.

    Raises:
        InputError: the file is missing, or is not an instances file.
        MissingExtraError: pycocotools is not installed.
    """
    folder = root / "coco2014"
    defaults = [root / part / "annotations" / _VAL_INSTANCES for part in ("coco2014", "coco2017", "")]
    source = first_existing("COCO's instances", instances, defaults)
    require_pycocotools()
    data = read_json_object("COCO's instances", source)
    return plan_annotated_masks(
        data,
        source,
        _identify,
        key="annotations",
        labels=_object_labels(get_list(data, "categories", source), source),
        folder=folder / "coco_seg_anno",
        image_path=partial(coco_object_image, folder),
        split=folder / "val2017.txt" if source.name == _VAL_INSTANCES else None,
    )


def coco_stuff_masks(root: Path, maps: Path | None = None) -> MaskPlan:
    """Plan ``coco2017/stuff_anno164/val2017``: 171 classes with consecutive labels.

    Args:
        root: root folder of all data sets.
        maps: the unpacked ``stuffthingmaps_trainval2017``; by default in the root folder or in ``coco2017``.

    Raises:
        InputError: the maps are missing.
    """
    defaults = [root / part / "stuffthingmaps_trainval2017" for part in ("coco2017", "")]
    source = first_existing("COCO-Stuff's maps", maps, defaults)
    source = source / "val2017" if (source / "val2017").is_dir() else source
    target = root / "coco2017" / "stuff_anno164" / "val2017"
    paths = match_files("coco-stuff171", source, "*.png")
    return MaskPlan(target, [MaskJob(target / path.name, partial(remap_labels, _STUFF_LABELS, path)) for path in paths])


def _identify(item: dict[str, Any]) -> tuple[int, str]:
    number = item.get("id")
    if not is_integer(number) or not 0 <= number < 10**12:
        raise InputError(f"expected an image with an integer id of at most 12 digits, got {reprlib.repr(number)}")
    return number, f"{number:012d}"


def _object_labels(categories: list[Any], source: Path) -> dict[int, int]:
    """COCO's 80 category ids, which are not consecutive, to labels 1 to 80."""
    message = f"expected COCO's 80 categories: {quote_path(source)}"
    with reraise((KeyError, TypeError), InputError, message, "give an instances file"):
        names = {item["id"]: item["name"] for item in sorted(categories, key=lambda item: item["id"])}
    if tuple(names.values()) != find_benchmark("coco-object").class_names:
        raise InputError(f"{message}: got {len(names)} other categories; give an instances file")
    return {number: label for label, number in enumerate(names, 1)}
