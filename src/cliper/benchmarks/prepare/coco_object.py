"""COCO-Object's masks, painted from COCO's instances."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from cliper.benchmarks.coco_object import coco_object
from cliper.benchmarks.prepare.plan import Job, Plan
from cliper.benchmarks.prepare.sources import check_coco_api, first_there, paint_regions, read_json
from cliper.errors import InputError

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
    regions = defaultdict(list)
    try:
        labels = _labels(data["categories"], source)
        for item in data["annotations"]:
            regions[item["image_id"]].append((labels[item["category_id"]], item["segmentation"]))
        pictures = {f"{int(item['id']):012d}": item for item in data["images"]}
        target = folder / "coco_seg_anno"
        jobs = []
        for name, item in pictures.items():
            paint = partial(paint_regions, name, item["height"], item["width"], regions[item["id"]])
            jobs.append(Job(target / f"{name}.png", paint))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"expected COCO's instances json, got another one ({error!r}): {shown_path(source)}") from None
    split = (folder / "val2017.txt", tuple(sorted(pictures))) if source.name == _MINIVAL else None
    return Plan(target, jobs, split)


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
