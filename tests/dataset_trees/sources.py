"""The miniature data sets as they are downloaded, in the formats of their publishers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataset_trees.content import CONTENT, labels_of
from dataset_trees.prepared import VOC2010, VOC2012, write_images, write_lists, write_png

# Numbers that the publishers give to the classes, in the order of the benchmarks' labels, from their documentation.
COCO_IDS = [
    *range(1, 12),
    *range(13, 26),
    *(27, 28),
    *range(31, 45),
    *range(46, 66),
    *(67, 70),
    *range(72, 83),
    *range(84, 91),
]
STUFF_IDS = range(92, 183)
CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
CITYSCAPES_NAMES = (
    "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,person,rider,car,truck,"
    "bus,train,motorcycle,bicycle"
)
CONTEXT_NUMBERS = (
    "2 9 18 19 22 23 25 31 33 34 44 45 46 59 65 68 72 80 85 98 104 105 113 115 144 158 159 162 187 189 207 220 232 "
    "258 259 260 284 295 296 308 324 326 347 349 354 355 360 366 368 397 415 416 420 424 427 440 445 454 458"
)
COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)


def build_sources(benchmark: str, root: Path, *, form: str = "") -> None:
    """Write what is downloaded of one benchmark below ``root``.

    ``form`` chooses where there are two: "json" (the default) or "mat" for PASCAL-Context, "numbers" (the default) or
    "polygons" for Cityscapes.
    """
    write_images(benchmark, root)
    write_lists(benchmark, root)
    masks = {name: labels_of(benchmark, number) for number, name in enumerate(CONTENT[benchmark][0])}
    if benchmark.startswith("voc"):
        _voc(root, masks)
    elif benchmark.startswith("context"):
        (_context_mat if form == "mat" else _context_json)(root, masks)
    elif benchmark == "coco-object":
        _coco(root, masks)
    elif benchmark == "coco-stuff171":
        _stuff(root, masks)
    elif benchmark == "cityscapes":
        _cityscapes(root, masks, polygons=form == "polygons")
    else:
        for name, labels in masks.items():
            write_png(root / "ADEChallengeData2016" / "annotations" / "validation" / f"{name}.png", labels)


def runs(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(label, where it is) of everything but 0 and 255."""
    for label in np.unique(labels):
        if label not in (0, 255):
            yield int(label), (labels == label).astype(np.uint8)


def rectangles(where: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of the squares that a region is made of, ends excluded."""
    from dataset_trees.content import BLOCK

    for top, left in np.argwhere(where[::BLOCK, ::BLOCK]) * BLOCK:
        yield int(left), int(top), int(left) + BLOCK, int(top) + BLOCK


def compressed(where: np.ndarray) -> dict[str, Any]:
    """As COCO's API writes a region."""
    from pycocotools import mask

    encoded = mask.encode(np.asfortranarray(where))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def save_mat(path: Path, content: dict[str, Any]) -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content, do_compression=True)


def _voc(root: Path, masks: dict[str, np.ndarray]) -> None:
    """VOC's masks, and SBD with one of the same images, labelled otherwise, and one of train."""
    for name, labels in masks.items():
        write_png(root / VOC2012 / "SegmentationClass" / f"{name}.png", labels, indexed=True)
    folder = root / "benchmark_RELEASE" / "dataset" / "cls"
    first = next(iter(masks))
    for name, labels in ((first, np.zeros_like(masks[first])), ("2008_009999", np.arange(21).reshape(3, 7))):
        parts = {"Segmentation": labels.astype(np.uint8), "CategoriesPresent": np.array([[1], [2]], np.uint8)}
        save_mat(folder / f"{name}.mat", {"GTcls": parts})


def _context_mat(root: Path, masks: dict[str, np.ndarray]) -> None:
    numbers = np.zeros(256, np.uint16)
    numbers[1:60] = [int(number) for number in CONTEXT_NUMBERS.split()]
    for name, labels in masks.items():
        raw = numbers[labels]
        raw[(labels == 0) & (np.indices(labels.shape)[1] % 2 == 0)] = 1  # a class that is none of the 59
        save_mat(root / VOC2010 / "trainval" / f"{name}.mat", {"LabelMap": raw})


def _context_json(root: Path, masks: dict[str, np.ndarray]) -> None:
    numbers = [0, *(int(number) for number in CONTEXT_NUMBERS.split())]
    images = [
        {"image_id": i, "file_name": f"{name}.jpg", "phase": "val", "height": m.shape[0], "width": m.shape[1]}
        for i, (name, m) in enumerate(masks.items())
    ]
    images.append({"image_id": 99, "file_name": "2008_000003.jpg", "phase": "train", "height": 2, "width": 2})
    regions = [
        {"image_id": i, "category_id": numbers[label], "segmentation": compressed(where), "parts": []}
        for i, labels in enumerate(masks.values())
        for label, where in runs(labels)
    ]
    path = root / VOC2010 / "trainval_merged.json"
    path.write_text(json.dumps({"images": images, "annos_segmentation": regions, "categories": []}))


def _coco(root: Path, masks: dict[str, np.ndarray]) -> None:
    """Polygons, compressed regions and plain run lengths by turns, one of them of a crowd."""
    regions: list[dict[str, Any]] = []
    for name, labels in masks.items():
        for label, where in runs(labels):
            form = len(regions) % 3
            polygons = [[x, y, right, y, right, bottom, x, bottom] for x, y, right, bottom in rectangles(where)]
            flat = where.ravel(order="F")
            edges = np.flatnonzero(np.diff(flat)) + 1
            counts = np.diff([0, *edges, flat.size]).tolist()
            plain = {"size": list(where.shape), "counts": [0, *counts] if flat[0] else counts}
            regions.append(
                {
                    "id": len(regions) + 1,
                    "image_id": int(name),
                    "category_id": COCO_IDS[label - 1],
                    "segmentation": [polygons, compressed(where), plain][form],
                    "iscrowd": int(form == 2),
                    "area": int(where.sum()),
                }
            )
    images = [
        {"id": int(name), "file_name": f"{name}.jpg", "height": m.shape[0], "width": m.shape[1]}
        for name, m in masks.items()
    ]
    names = [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO_NAMES.split(","), strict=True)]
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": regions, "categories": names}))


def _stuff(root: Path, masks: dict[str, np.ndarray]) -> None:
    raw = np.full(256, 255, np.uint8)
    raw[1:172] = [number - 1 for number in (*COCO_IDS, *STUFF_IDS)]
    for name, labels in masks.items():
        write_png(root / "stuffthingmaps_trainval2017" / "val2017" / f"{name}.png", raw[labels])


def _cityscapes(root: Path, masks: dict[str, np.ndarray], *, polygons: bool) -> None:
    for name, labels in masks.items():
        stem = root / "CityScapes" / "gtFine" / "val" / name.partition("_")[0] / f"{name}_gtFine"
        stem.parent.mkdir(parents=True, exist_ok=True)
        if polygons:
            data = {"imgHeight": labels.shape[0], "imgWidth": labels.shape[1], "objects": _objects(labels)}
            stem.with_name(stem.name + "_polygons.json").write_text(json.dumps(data))
            continue
        numbers = np.zeros(256, np.uint8)
        numbers[1:20] = CITYSCAPES_IDS
        numbers[255] = 4  # "static", which is not evaluated
        write_png(stem.with_name(stem.name + "_labelIds.png"), numbers[labels])


def _objects(labels: np.ndarray) -> list[dict[str, Any]]:
    """Something large that all else lies over, then the labels, then what is not to be drawn."""
    height, width = labels.shape
    everywhere = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    names = CITYSCAPES_NAMES.split(",")
    found = [{"label": "static", "polygon": everywhere}]
    for label, where in runs(labels):
        name = names[label - 1]
        name = f"{name}group" if name == "car" else name
        for left, top, right, bottom in rectangles(where):
            corners = [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]]
            found.append({"label": name, "polygon": corners})
    found.append({"label": "license plate", "polygon": everywhere})
    found.append({"label": "sky", "polygon": everywhere, "deleted": 1})
    return found
