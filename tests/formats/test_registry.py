"""All formats alike: found by name, whole files, the same bytes each time, clear lines for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_results import CLASSES, Outputs, labels_of, make_run, result_of
from PIL import Image

from cliper.errors import InputError, OutputError
from cliper.formats.registry import FormatOptions, ImageInfo, ImageOutput, find_format, format_names

ASSEMBLED = [name for name in format_names() if find_format(name).merge]


def test_names() -> None:
    assert format_names() == (
        "labels",
        "overlay",
        "overlay-jpg",
        "overlay-webp",
        "npz",
        "coco",
        "coco-panoptic",
        "cvat",
        "label-studio",
        "labelme",
        "yolo",
        "gallery",
    )
    suffixes = [find_format(name).suffix for name in format_names()]
    assert len(set(suffixes)) == len(suffixes)
    assert all(find_format(name).summary for name in format_names())


@pytest.mark.parametrize(("name", "hint"), [("coc", "did you mean coco?"), ("lableme", "labelme"), ("tiff", "known:")])
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"got {name!r}.*{hint}"):
        find_format(name)
    assert find_format(" YOLO ").name == "yolo"


def test_options_out_of_range() -> None:
    for wrong in ({"tolerance": -1}, {"tolerance": float("nan")}, {"quality": 0}, {"quality": 101}, {"quality": 9.5}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            FormatOptions(**wrong)


def test_stems() -> None:
    stems = [ImageInfo(name, 1, 1).stem for name in ("a.b.png", "x.y/a", "x/.hidden")]
    assert stems == ["a.b", "x.y/a", "x/.hidden"]


@pytest.mark.parametrize("name", format_names())
def test_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    format, picture = find_format(name), ImageInfo("new/a.jpg", 60, 40)
    written = []
    for folder in ("one", "two"):
        path = tmp_path / folder / f"a{format.suffix}"
        format.write(result_of(labels_of(1)), path, picture, FormatOptions())
        written.append(path.read_bytes())
        assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ASSEMBLED)
def test_the_run_has_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    format = find_format(name)
    run = make_run(tmp_path, format)
    first = {path: path.read_bytes() for path in run.paths}
    outputs = {output.path: output.path.read_bytes() for output in run.outputs}
    assert run.outputs.times <= 3  # the writer's two, and the line above
    again = format.merge(Outputs(run.outputs.items), run.folder, CLASSES, FormatOptions())
    assert {path: path.read_bytes() for path in again} == first
    assert {path: path.read_bytes() for path in outputs} == outputs
    there = {path for path in run.folder.rglob("*") if path.is_file()}
    assert there == {*first, *outputs}


@pytest.mark.parametrize("name", ASSEMBLED)
def test_no_picture_at_all(name: str, tmp_path: Path) -> None:
    for path in find_format(name).merge([], tmp_path, CLASSES, FormatOptions()):
        assert path.stat().st_size


@pytest.mark.parametrize("name", [name for name in ASSEMBLED if name != "yolo"])
@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_damaged_parts_are_named_and_nothing_is_half_written(name: str, damage: str, tmp_path: Path) -> None:
    format = find_format(name)
    run = make_run(tmp_path, format)
    for path in run.paths:
        path.unlink()
    path = run.outputs.items[1].path
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20] if damage == "cut" else b'"?"')
    before = {file for file in run.folder.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=rf"{path.name}.*run the picture again"):
        format.merge(run.outputs, run.folder, CLASSES, FormatOptions())
    assert {file for file in run.folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", format_names())
def test_a_folder_that_is_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    format = find_format(name)
    with pytest.raises(OutputError, match="file, not a folder"):
        format.write(result_of(labels_of(1)), tmp_path / "file" / f"a{format.suffix}", ImageInfo("a", 60, 40), _OPTIONS)


_OPTIONS = FormatOptions()


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("labels", [np.zeros((1, 1)), np.ones((1, 1)), np.full((3, 2), 3)], ids=["none", "one", "all"])
def test_the_smallest_results(name: str, labels: np.ndarray, tmp_path: Path) -> None:
    format = find_format(name)
    picture = ImageInfo("a.png", labels.shape[1], labels.shape[0])
    path = tmp_path / f"a{format.suffix}"
    format.write(result_of(labels), path, picture, _OPTIONS)
    if format.merge:
        assert format.merge([ImageOutput(picture, path)], tmp_path, CLASSES, _OPTIONS)


@pytest.mark.parametrize("name", [name for name in format_names() if name != "cvat"])  # which names them as failed
def test_names_that_are_no_text(name: str, tmp_path: Path) -> None:
    format, picture = find_format(name), ImageInfo("x/\udcff\u2028</script>'\"&.png", 60, 40)
    path = tmp_path / f"a{format.suffix}"
    format.write(result_of(labels_of(1)), path, picture, _OPTIONS)
    if format.merge:
        assert format.merge([ImageOutput(picture, path)], tmp_path, CLASSES, _OPTIONS)


@pytest.mark.parametrize(("name", "kind"), [("overlay", "PNG"), ("overlay-jpg", "JPEG"), ("overlay-webp", "WEBP")])
def test_overlays_and_their_quality(name: str, kind: str, tmp_path: Path) -> None:
    format = find_format(name)
    sizes = []
    for quality in (20, 95):
        path = tmp_path / f"{quality}{format.suffix}"
        format.write(result_of(labels_of(1)), path, ImageInfo("a", 60, 40), FormatOptions(quality=quality))
        with Image.open(path) as picture:
            assert picture.format == kind
        sizes.append(path.stat().st_size)
    assert sizes[0] == sizes[1] if name == "overlay" else sizes[0] < sizes[1]
