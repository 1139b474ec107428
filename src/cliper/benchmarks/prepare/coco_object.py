"""COCO-Object's masks, painted from COCO's instances."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.benchmarks.coco_object import coco_object, image_path
from cliper.benchmarks.prepare.plan import Job, Plan
from cliper.benchmarks.prepare.regions import check_image_size, group_annotations, is_integer, rasterize
from cliper.benchmarks.prepare.sources import check_coco_api, first_there, read_json
from cliper.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cliper.benchmarks.prepare.regions import Annotation

__all__ = ["coco_object_masks"]

_MINIVAL = "instances_val2017.json"


def coco_object_masks(root: Path, instances: Path | None = None) -> Plan:
    """Plan ``coco2014/coco_seg_anno``.

    Args:
        root: the folder of all data sets.
        instances: ``instances_val2017.json``, which lists the benchmark's 5,000 pictures (they are written to
            ``coco2014/val2017.txt``), or another of COCO's instances files, of which all pictures are made.

    Raises:
        InputError: the file is not there, or is something else.
        MissingExtraError: pycocotools is not installed.
    """
    from cliper.decoding import shown_path

    folder = root / "coco2014"
    usual = [root / part / "annotations" / _MINIVAL for part in ("coco2014", "coco2017", "")]
    source = first_there("COCO's instances", instances, usual)
    check_coco_api()
    data = read_json("COCO's instances", source)
    name = shown_path(source)
    try:
        labels = _labels(data["categories"], source)
        images, problems = _images(data["images"], name)
        annotations, unassigned = group_annotations(data["annotations"], "annotations", name, images)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"expected COCO's instances json, got another one ({error!r}): {name}") from None
    target = folder / "coco_seg_anno"
    jobs = []
    for number, item in images.items():
        make = partial(_paint, f"{name}: image {number}", item, annotations.get(number, ()), labels, folder)
        jobs.append(Job(target / f"{_stem(number)}.png", make))
    split = (folder / "val2017.txt", tuple(map(_stem, sorted(images)))) if source.name == _MINIVAL else None
    return Plan(target, jobs, split, [*problems, *unassigned])


def _images(items: Any, source: str) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """The entries of images by their id, and a line for each that has none."""
    if not isinstance(items, list):
        raise TypeError("images is no list")
    images: dict[int, dict[str, Any]] = {}
    problems = []
    for index, item in enumerate(items):
        number = item.get("id") if isinstance(item, dict) else None
        if not is_integer(number) or not 0 <= number < 10**12:
            problems.append(
                f"{source}: images[{index}]: expected an id of at most 12 digits, got {reprlib.repr(item)}; "
                "fetch the file again"
            )
        elif number in images:
            problems.append(f"{source}: images[{index}]: expected each image once, got id {number} again; remove one")
        else:
            images[number] = item
    return images, problems


def _paint(
    title: str, image: dict[str, Any], annotations: Sequence[Annotation], labels: dict[int, int], folder: Path
) -> npt.NDArray[np.uint8]:
    height, width = image.get("height"), image.get("width")
    check_image_size(title, height, width, image_path(folder, _stem(image["id"])))
    return rasterize(title, height, width, annotations, labels)


def _stem(number: int) -> str:
    return f"{number:012d}"


def _labels(categories: list[dict[str, Any]], source: Path) -> dict[int, int]:
    """COCO's 80 ids, which leave some numbers out, to labels 1 to 80."""
    from cliper.decoding import shown_path

    ordered = sorted(categories, key=lambda item: item["id"])
    names = coco_object().class_names
    if tuple(item["name"] for item in ordered) != names:
        raise InputError(
            f"expected COCO's 80 categories, {names[0]} to {names[-1]}, got {len(ordered)} others: "
            f"{shown_path(source)}; take an instances file"
        )
    return {item["id"]: i + 1 for i, item in enumerate(ordered)}
