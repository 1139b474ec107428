"""COCO instances: an annotation for each region, its mask run-length encoded (RLE)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from cliper.files import dumps, json_list, write_json, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage, bounded_confidence
from cliper.formats.coco_rle import encode_coco_rle
from cliper.formats.regions import DEFAULT_MIN_AREA, find_regions

__all__ = ["COCO", "categories", "coco_document", "write_coco_json"]


def categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's list of categories: category ``i + 1`` is class i, as in the label map.

    Example:
        >>> categories(["dog"])
        [{'id': 1, 'name': 'dog', 'supercategory': ''}]
    """
    return [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(classes, start=1)]


def coco_document(result: LabeledImage, info: ImageInfo, min_area: int | str = DEFAULT_MIN_AREA) -> dict[str, Any]:
    """The COCO document of one image; the confidence of a region's class is its annotation's ``score``.

    Regions smaller than ``min_area`` (pixels, or a share of the image) are left out.
    """
    confidence = bounded_confidence(result.confidence).tolist()
    annotations = [
        {
            "id": number,
            "image_id": info.id,
            "category_id": region.label,
            "segmentation": encode_coco_rle(
                region.mask, left=region.left, top=region.top, size=(info.height, info.width)
            ),
            "area": region.area,
            "bbox": list(region.box),
            "iscrowd": 0,
            "score": confidence[region.label - 1],
        }
        for number, region in enumerate(find_regions(result.labels, min_area), start=1)
    ]
    return {"images": [_image_entry(info)], "annotations": annotations, "categories": categories(result.classes)}


def write_coco_json(
    path: Path,
    category_entries: Sequence[dict[str, Any]],
    outputs: Iterable[ImageOutput],
    annotations: Iterable[dict[str, Any]],
) -> None:
    """Write a COCO document of many images piece by piece.

    Raises:
        OutputError: the file cannot be written.
    """
    start = ['{"categories":' + dumps(category_entries) + ',\n"images":']
    images = json_list(_image_entry(output.info) for output in outputs)
    write_text(path, chain(start, images, [',\n"annotations":'], json_list(annotations), ["}\n"]))


def _image_entry(info: ImageInfo) -> dict[str, Any]:
    return {"id": info.id, "file_name": info.name, "width": info.width, "height": info.height}


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_json(path, coco_document(result, info, options.min_area))


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    path = folder / "coco.json"
    write_coco_json(path, categories(classes), outputs, _renumbered_annotations(outputs))
    return [path]


def _renumbered_annotations(outputs: Iterable[ImageOutput]) -> Iterator[dict[str, Any]]:
    numbers = count(1)
    for output in outputs:
        with output.reading():
            annotations = output.read_json(dict)["annotations"]
        for annotation in annotations:
            yield {**annotation, "id": next(numbers), "image_id": output.info.id}


COCO = Format(
    "coco",
    ".coco.json",
    "COCO instances with run lengths; coco.json for the run",
    _write,
    _merge,
    merged_files=("coco.json",),
)
