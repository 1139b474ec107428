"""LabelMe files, read by the rules of LabelMe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from format_helpers import CLASSES, NAMES, filled, labels_of, make_run, result_of

from cliper.formats import FormatOptions, ImageInfo, find_format

FORMAT = find_format("labelme")


def test_polygons_filled_again_are_the_label_map(tmp_path: Path) -> None:
    run = make_run(tmp_path, FORMAT, FormatOptions(tolerance=0))
    for output, name in zip(run.outputs, NAMES, strict=True):
        document = json.loads(output.path.read_text())
        assert (output.path.parent / document["imagePath"]).relative_to(run.folder).as_posix() == name
        assert document["imageData"] is None
        size = document["imageHeight"], document["imageWidth"]
        labels = np.zeros(size, int)
        for shape in document["shapes"]:
            assert shape["shape_type"] == "polygon"
            assert len(shape["points"]) > 2
            assert all(type(value) is float for point in shape["points"] for value in point)
            labels += (CLASSES.index(shape["label"]) + 1) * filled(np.array(shape["points"]), size)
        np.testing.assert_array_equal(labels, run.results[name].labels)


def test_image_path_is_relative_to_the_file(tmp_path: Path) -> None:
    """LabelMe joins the file's folder and imagePath, in which a backslash is a slash."""
    photos, out = tmp_path / "photos", tmp_path / "some where" / "out"
    (tmp_path / "real" / "out").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "real", target_is_directory=True)
    for folder in (out, tmp_path / "linked" / "out", photos):  # ".." of a link is not the folder that its name says
        for name in ("cat.jpg", "garden/é [1].jpg"):
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            (photos / name).write_bytes(name.encode())
            info = ImageInfo(name, 60, 40, source=photos / name)
            path = folder / f"{info.stem}.json"
            FORMAT.write(result_of(labels_of(1)), path, info, FormatOptions())
            image = json.loads(path.read_text())["imagePath"]
            assert "\\" not in image
            assert not image.startswith("/")
            assert (path.parent / image).read_bytes() == name.encode()


def test_image_without_a_path_is_stored_by_name(tmp_path: Path) -> None:
    FORMAT.write(result_of(labels_of(1)), tmp_path / "a.json", ImageInfo("x/a.jpg", 60, 40), FormatOptions())
    assert json.loads((tmp_path / "a.json").read_text())["imagePath"] == "a.jpg"
