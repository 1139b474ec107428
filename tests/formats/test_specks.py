"""Small regions: left out of formats of objects by default, kept in label maps and masks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from format_helpers import decode_brush, result_of
from PIL import Image

from cliper.errors import InputError
from cliper.formats import FormatOptions, ImageInfo, find_format
from cliper.formats.json_result import encode_polygons

LABELS = np.zeros((100, 250), int)  # of which 0.01 % are 2.5 pixels
LABELS[10:30, 10:40] = 1
LABELS[50, 50] = LABELS[60, 70:72] = 1
LABELS[80:82, 80:82] = 2


def coco_regions(path: Path) -> int:
    return len(json.loads(path.read_text())["annotations"])


def labelme_regions(path: Path) -> int:
    return len(json.loads(path.read_text())["shapes"])


def yolo_regions(path: Path) -> int:
    return len(path.read_text().splitlines())


def cvat_regions(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        maps = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()[:2]]
    assert ((maps[0] > 0) == (maps[1] > 0)).all()
    return int(maps[1].max())


def label_studio_pixels(path: Path) -> int:
    masks = json.loads(path.read_text())[0]["predictions"][0]["result"]
    return sum(np.count_nonzero(decode_brush(mask["value"]["rle"])[::4]) for mask in masks)


COUNTS: dict[str, tuple[Callable[[Path], int], int, int]] = {
    "coco": (coco_regions, 2, 4),
    "labelme": (labelme_regions, 2, 4),
    "yolo": (yolo_regions, 2, 4),
    "cvat": (cvat_regions, 2, 4),
    "label-studio": (label_studio_pixels, 604, 607),
}


@pytest.mark.parametrize("name", COUNTS)
def test_specks_are_left_out_unless_all_regions_are_asked_for(name: str, tmp_path: Path) -> None:
    count, large, every = COUNTS[name]
    format, info = find_format(name), ImageInfo("a.png", 250, 100)
    path = tmp_path / f"a{format.suffix}"
    for options, expected in ((FormatOptions(), large), (FormatOptions(min_area=0), every)):
        format.write(result_of(LABELS), path, info, options)
        assert count(path) == expected


@pytest.mark.parametrize("name", ["labels", "masks", "npz", "coco-panoptic", "gallery"])
def test_label_maps_and_masks_keep_specks(name: str, tmp_path: Path) -> None:
    format, info = find_format(name), ImageInfo("a.png", 250, 100)
    written = []
    for options in (FormatOptions(), FormatOptions(min_area=0)):
        path = tmp_path / f"{len(written)}{format.suffix}"
        format.write(result_of(LABELS), path, info, options)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_python_documents_leave_specks_out_by_default() -> None:
    result = result_of(LABELS)
    assert len(result.to_coco()["annotations"]) == 2
    assert len(result.to_coco(min_area=0)["annotations"]) == 4
    masks = [result.to_label_studio(min_area=area)["predictions"][0]["result"] for area in ("50%", 0)]
    assert [len(found) for found in masks] == [0, 2]


def test_clean_takes_a_share() -> None:
    result = result_of(LABELS)
    assert result.clean(min_area="0.01%").labels.sum() == 600 + 2 * 4
    assert (result.clean(min_area="0.01%").labels == result.clean(min_area=3).labels).all()


@pytest.mark.parametrize("area", ["5 pixels", "-1", "101%", "%", True, -1])
def test_wrong_area_is_refused(area: int | str) -> None:
    with pytest.raises(InputError, match=r"min_area: expected pixels or a share such as 0\.01%"):
        FormatOptions(min_area=area)


def test_polygons_of_the_api_leave_out_specks() -> None:
    assert [one["area"] for one in encode_polygons(LABELS)] == [600, 4]
    assert len(encode_polygons(LABELS, min_area=0)) == 4
