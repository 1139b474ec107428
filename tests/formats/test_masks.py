"""Zips of masks and cut-outs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from format_helpers import labels_of, result_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cliper.formats import FormatOptions, ImageInfo, find_format
from cliper.formats.masks import class_file_name


def unzip(name: str, labels: np.ndarray, folder: Path) -> tuple[dict[str, Image.Image], object]:
    result, format = result_of(labels), find_format(name)
    path = folder / f"a{format.suffix}"
    format.write(result, path, ImageInfo("a.jpg", *result.image.size), FormatOptions())
    with zipfile.ZipFile(path) as archive:
        return {n: Image.open(io.BytesIO(archive.read(n))) for n in archive.namelist()}, result


def test_masks_are_the_pixels_of_each_class_found(tmp_path: Path) -> None:
    labels = labels_of(1)
    files, result = unzip("masks", labels, tmp_path)
    found = [label for label in np.unique(labels).tolist() if label]
    assert list(files) == [class_file_name(label, result.classes[label - 1]) for label in found]
    for label, image in zip(found, files.values(), strict=True):
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), np.where(labels == label, 255, 0))


def test_cutouts_hold_the_pixels_of_a_class_in_its_box(tmp_path: Path) -> None:
    labels = labels_of(1)
    files, result = unzip("cutouts", labels, tmp_path)
    found = [label for label in np.unique(labels).tolist() if label]
    for label, image in zip(found, files.values(), strict=True):
        left, top, right, bottom = result.boxes[result.classes[label - 1]]
        inside = labels[top:bottom, left:right] == label
        pixels = np.asarray(image)
        np.testing.assert_array_equal(pixels[..., 3], np.where(inside, 255, 0))
        photo = np.asarray(result.image)[top:bottom, left:right]
        np.testing.assert_array_equal(pixels[..., :3][inside], photo[inside])


def test_image_without_a_class_gives_an_empty_zip(tmp_path: Path) -> None:
    assert unzip("masks", np.zeros((4, 5), np.int32), tmp_path)[0] == {}


@given(st.lists(st.text(max_size=200), min_size=1, max_size=20))
def test_file_names_are_safe_and_differ(names: list[str]) -> None:
    files = [class_file_name(label, name) for label, name in enumerate(names, start=1)]
    assert len({file.casefold() for file in files}) == len(files)
    assert all(Path(file).name == file and "\\" not in file and len(file.encode()) < 500 for file in files)
