"""COCO instances: every region one annotation, as compressed run lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError
from cliper.files import as_json, atomic_path, read_json, write_items, write_json
from cliper.formats.base import Format, FormatOptions, LabeledImage, Part, Picture
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
    labels: npt.NDArray[Any], classes: Sequence[str], picture: Picture, confidence: Sequence[float] | None = None
) -> dict[str, Any]:
    """What a COCO file of one picture holds.

    Args:
        labels: [H, W] integers, 0 is background, i + 1 is ``classes[i]``.
        classes: C names.
        picture: whose name and id are taken.
        confidence: C numbers, each annotation's ``score``; None leaves it out.

    Example:
        >>> document = coco_document(np.array([[0, 1]]), ["dog"], Picture("a.png", 2, 1))
        >>> document["annotations"][0]["bbox"]
        [1, 0, 1, 1]
    """
    height, width = labels.shape
    annotations = []
    for number, region in enumerate(find_regions(labels), start=1):
        counts = mask_counts(region.mask, left=region.left, top=region.top, size=(height, width))
        annotation: dict[str, Any] = {
            "id": number,
            "image_id": picture.id,
            "category_id": region.label,
            "segmentation": {"size": [height, width], "counts": compress_counts(counts)},
            "area": region.area,
            "bbox": list(region.box),
            "iscrowd": 0,
        }
        if confidence is not None:
            annotation["score"] = float(confidence[region.label - 1])
        annotations.append(annotation)
    return {"images": [image_entry(picture)], "annotations": annotations, "categories": categories(classes)}


def image_entry(picture: Picture) -> dict[str, Any]:
    """A picture in COCO's list of images."""
    return {"id": picture.id, "file_name": picture.name, "width": picture.width, "height": picture.height}


def _write(result: LabeledImage, path: Path, picture: Picture, options: FormatOptions) -> None:
    write_json(path, coco_document(result.labels, result.classes, picture, np.asarray(result.confidence).tolist()))


def _assemble(parts: Iterable[Part], folder: Path, classes: tuple[str, ...], options: FormatOptions) -> list[Path]:
    path = folder / "coco.json"
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write('{"categories":' + as_json(categories(classes)) + ',\n"images":')
        write_items(stream, (image_entry(part.picture) for part in parts))
        stream.write(',\n"annotations":')
        write_items(stream, _renumbered(parts))
        stream.write("}\n")
    return [path]


def _renumbered(parts: Iterable[Part]) -> Iterator[dict[str, Any]]:
    number = 0
    for part in parts:
        try:
            annotations = read_json(part.path, dict)["annotations"]
            for annotation in annotations:
                number += 1
                yield {**annotation, "id": number, "image_id": part.picture.id}
        except (KeyError, TypeError):
            raise InputError(f"expected COCO annotations in {part.path}, got none; run the picture again") from None


COCO = Format(
    "coco",
    ".coco.json",
    "COCO instances with run lengths; coco.json for the run",
    _write,
    _assemble,
    run_files=("coco.json",),
)
