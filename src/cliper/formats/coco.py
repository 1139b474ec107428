"""COCO instances: every region one annotation, as compressed run lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError
from cliper.files import atomic_write, dumps, read_json, write_json, write_json_list
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.coco_rle import compress_counts, mask_counts
from cliper.formats.regions import find_regions

__all__ = ["COCO", "categories", "coco_document", "image_entry"]


def categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's list of categories: category ``i + 1`` is class i, as in the label map.

    Example:
        >>> categories(["dog"])
        [{'id': 1, 'name': 'dog', 'supercategory': ''}]
    """
    return [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(classes, start=1)]


def coco_document(
    labels: npt.NDArray[Any], classes: Sequence[str], info: ImageInfo, confidence: Sequence[float] | None = None
) -> dict[str, Any]:
    """What a COCO file of one picture holds.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        picture: whose name and id are taken.
        confidence: C numbers, each annotation's ``score``; None leaves it out.

    Example:
        >>> document = coco_document(np.array([[0, 1]]), ["dog"], ImageInfo("a.png", 2, 1))
        >>> document["annotations"][0]["bbox"]
        [1, 0, 1, 1]
    """
    height, width = labels.shape
    annotations = []
    for number, region in enumerate(find_regions(labels), start=1):
        counts = mask_counts(region.mask, left=region.left, top=region.top, size=(height, width))
        annotation: dict[str, Any] = {
            "id": number,
            "image_id": info.id,
            "category_id": region.label,
            "segmentation": {"size": [height, width], "counts": compress_counts(counts)},
            "area": region.area,
            "bbox": list(region.box),
            "iscrowd": 0,
        }
        if confidence is not None:
            annotation["score"] = float(confidence[region.label - 1])
        annotations.append(annotation)
    return {"images": [image_entry(info)], "annotations": annotations, "categories": categories(classes)}


def image_entry(info: ImageInfo) -> dict[str, Any]:
    """A picture in COCO's list of images."""
    return {"id": info.id, "file_name": info.name, "width": info.width, "height": info.height}


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_json(path, coco_document(result.labels, result.classes, info, np.asarray(result.confidence).tolist()))


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    path = folder / "coco.json"
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write('{"categories":' + dumps(categories(classes)) + ',\n"images":')
        write_json_list(stream, (image_entry(output.info) for output in outputs))
        stream.write(',\n"annotations":')
        write_json_list(stream, _renumbered(outputs))
        stream.write("}\n")
    return [path]


def _renumbered(outputs: Iterable[ImageOutput]) -> Iterator[dict[str, Any]]:
    number = 0
    for output in outputs:
        try:
            annotations = read_json(output.path, dict)["annotations"]
            for annotation in annotations:
                number += 1
                yield {**annotation, "id": number, "image_id": output.info.id}
        except (KeyError, TypeError):
            raise InputError(f"expected COCO annotations in {output.path}, got none; run the picture again") from None


COCO = Format(
    "coco",
    ".coco.json",
    "COCO instances with run lengths; coco.json for the run",
    _write,
    _merge,
    merged_files=("coco.json",),
)
