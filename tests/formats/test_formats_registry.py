"""What holds for every format: found by name, atomic files, reproducible bytes, errors of one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from format_helpers import CLASSES, Outputs, labels_of, make_run, result_of
from PIL import Image

from cliper.errors import InputError, OutputError
from cliper.formats import FormatOptions, ImageInfo, ImageOutput, find_format, format_names

MERGED = [name for name in format_names() if find_format(name).merge and name != "labels"]  # reads no image's file
OPTIONS = FormatOptions()


def test_names_and_suffixes_of_formats() -> None:
    assert format_names() == (
        "labels",
        "overlay",
        "overlay-jpg",
        "overlay-webp",
        "masks",
        "cutouts",
        "npz",
        "coco",
        "coco-panoptic",
        "cvat",
        "label-studio",
        "labelme",
        "yolo",
        "yolo-semantic",
        "hf-dataset",
        "images",
        "gallery",
    )
    names = [find_format(name).file_name("a") for name in format_names()]
    assert len(set(names)) == len(names)
    assert all(find_format(name).summary for name in format_names())


@pytest.mark.parametrize(("name", "hint"), [("coc", "did you mean coco?"), ("lableme", "labelme"), ("tiff", "known:")])
def test_unknown_name_gets_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"got {name!r}.*{hint}"):
        find_format(name)


def test_name_in_other_case_is_found() -> None:
    assert find_format(" YOLO ").name == "yolo"


@pytest.mark.parametrize("name", format_names())
def test_write_gives_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    format, info = find_format(name), ImageInfo("new/a.jpg", 60, 40)
    written = []
    for folder in ("one", "two"):
        path = tmp_path / folder / f"a{format.suffix}"
        format.write(result_of(labels_of(1)), path, info, OPTIONS)
        written.append(path.read_bytes())
        assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert written[0] == written[1]


@pytest.mark.parametrize("name", MERGED)
def test_merge_gives_the_same_bytes_each_time_and_changes_no_output(name: str, tmp_path: Path) -> None:
    format = find_format(name)
    run = make_run(tmp_path, format)
    assert run.outputs.iterations <= 2
    first = {path: path.read_bytes() for path in run.paths}
    before = {output.path: output.path.read_bytes() for output in run.outputs}
    again = format.merge(Outputs(run.outputs.items), run.folder, CLASSES, OPTIONS)
    assert {path: path.read_bytes() for path in again} == first
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in run.folder.rglob("*") if path.is_file()} == {*first, *before}


@pytest.mark.parametrize("name", MERGED)
def test_merge_of_no_images(name: str, tmp_path: Path) -> None:
    for path in find_format(name).merge([], tmp_path, CLASSES, OPTIONS):
        assert path.stat().st_size or path.name == "metadata.jsonl"  # which has a line for each image


# Those of the other formats need no output.
@pytest.mark.parametrize("name", [name for name in MERGED if name not in ("yolo", "yolo-semantic", "hf-dataset")])
@pytest.mark.parametrize("damage", ["missing", "truncated", "replaced"])
def test_merge_names_a_damaged_output_and_writes_nothing(name: str, damage: str, tmp_path: Path) -> None:
    format = find_format(name)
    run = make_run(tmp_path, format)
    for path in run.paths:
        path.unlink()
    path = run.outputs.items[1].path
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20] if damage == "truncated" else b'"?"')
    before = {file for file in run.folder.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=rf"{path.name}.*process the image again") as caught:
        format.merge(run.outputs, run.folder, CLASSES, OPTIONS)
    assert len(str(caught.value).splitlines()) == 1
    assert {file for file in run.folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", format_names())
def test_folder_that_is_a_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    format = find_format(name)
    with pytest.raises(OutputError, match="file, not a folder"):
        format.write(result_of(labels_of(1)), tmp_path / "file" / f"a{format.suffix}", ImageInfo("a", 60, 40), OPTIONS)


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("labels", [np.zeros((1, 1)), np.ones((1, 1)), np.full((3, 2), 3)], ids=["none", "one", "all"])
def test_smallest_results_are_written(name: str, labels: np.ndarray, tmp_path: Path) -> None:
    format = find_format(name)
    info = ImageInfo("a.png", labels.shape[1], labels.shape[0])
    path = tmp_path / f"a{format.suffix}"
    format.write(result_of(labels), path, info, OPTIONS)
    if format.merge:
        assert format.merge([ImageOutput(info, path)], tmp_path, CLASSES, OPTIONS)


@pytest.mark.parametrize("name", [name for name in format_names() if name not in ("cvat", "hf-dataset")])  # refused
def test_image_names_that_are_not_unicode_are_written(name: str, tmp_path: Path) -> None:
    format, info = find_format(name), ImageInfo("x/\udcff\u2028</script>'\"&.png", 60, 40)
    path = tmp_path / f"a{format.suffix}"
    format.write(result_of(labels_of(1)), path, info, OPTIONS)
    if format.merge:
        assert format.merge([ImageOutput(info, path)], tmp_path, CLASSES, OPTIONS)


@pytest.mark.parametrize(("name", "kind"), [("overlay", "PNG"), ("overlay-jpg", "JPEG"), ("overlay-webp", "WEBP")])
def test_overlay_formats_follow_the_quality_option(name: str, kind: str, tmp_path: Path) -> None:
    format = find_format(name)
    sizes = []
    for quality in (20, 95):
        path = tmp_path / f"{quality}{format.suffix}"
        format.write(result_of(labels_of(1)), path, ImageInfo("a", 60, 40), FormatOptions(quality=quality))
        with Image.open(path) as overlay:
            assert overlay.format == kind
        sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1] if name == "overlay" else sizes[0] < sizes[1]


@pytest.mark.parametrize("name", ["labelme", "yolo"])
def test_polygon_formats_follow_the_tolerance_option(name: str, tmp_path: Path) -> None:
    y, x = np.mgrid[:200, :200]
    result = result_of(((x - 100) ** 2 + (y - 90) ** 2 < 80**2) * 2)
    sizes = []
    for tolerance in (0, 1, 4):
        options = FormatOptions(tolerance=tolerance)
        find_format(name).write(result, tmp_path / "a", ImageInfo("a", 200, 200), options)
        sizes.append((tmp_path / "a").stat().st_size)
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[1] < sizes[0] / 5
