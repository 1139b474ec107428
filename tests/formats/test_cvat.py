"""CVAT files, read by the rules of CVAT's reader."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from format_helpers import CLASSES, NAMES, labels_of, make_run, result_of
from PIL import Image

from cliper.errors import InputError
from cliper.formats import FormatOptions, ImageInfo, ImageOutput, cvat, find_format, voc_palette

OPTIONS = FormatOptions()
LIST = "ImageSets/Segmentation/default.txt"


def read_mask(archive: zipfile.ZipFile, member: str, colours: dict[tuple[int, ...], int]) -> np.ndarray:
    """As CVAT's reader does: by colour, not by index."""
    with archive.open(member) as stream, Image.open(stream) as png:
        assert png.mode == "P"
        pixels = np.asarray(png.convert("RGB"))
    return np.array([[colours[tuple(pixel)] for pixel in row] for row in pixels.tolist()])


def read_list(data: bytes) -> list[str]:
    """As CVAT's reader does: lines are stripped; blank lines and comments are skipped."""
    lines = (line.strip() for line in io.StringIO(data.decode("utf-8"), newline=None))
    return [line for line in lines if line and not line.startswith("#")]


def test_run_is_read_back(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("cvat"))
    assert [path.name for path in run.paths] == ["cvat.zip"]
    with zipfile.ZipFile(run.paths[0]) as archive:
        assert archive.testzip() is None
        lines = archive.read("labelmap.txt").decode().splitlines()
        entries = [line.split(":") for line in lines if not line.startswith("#")]
        assert {len(entry) for entry in entries} == {4}
        assert [entry[0] for entry in entries] == ["background", *CLASSES]
        colours = {tuple(map(int, entry[1].split(","))): label for label, entry in enumerate(entries)}
        stems = archive.read(LIST).decode().splitlines()
        assert stems == ["a", "deep/er/b", "deep/c d"]
        instances = {tuple(colour): number for number, colour in enumerate(voc_palette().tolist())}
        for stem, name in zip(stems, NAMES, strict=True):
            labels = run.results[name].labels
            np.testing.assert_array_equal(read_mask(archive, f"SegmentationClass/{stem}.png", colours), labels)
            numbers = read_mask(archive, f"SegmentationObject/{stem}.png", instances)
            np.testing.assert_array_equal(numbers > 0, labels > 0)
            for number in set(np.unique(numbers)) - {0}:  # an object has one class
                assert len(np.unique(labels[numbers == number])) == 1


def test_objects_are_regions_or_with_more_than_255_regions_classes() -> None:
    assert cvat.number_regions(np.array([[2, 0, 2], [0, 1, 0]])).tolist() == [[2, 0, 3], [0, 1, 0]]
    board = np.indices((40, 40)).sum(axis=0) % 2 * 5 + np.zeros((40, 40), int)
    board[:2] = 9
    assert set(np.unique(cvat.number_regions(board)[2:])) == {0, 1}
    assert set(np.unique(cvat.number_regions(board)[:2])) == {2}


@pytest.mark.parametrize(
    "stem",
    [
        "#hash",
        " lead",
        "trail ",
        "\ttab",
        "two\nlines",
        "two\rlines",
        "end\u2028",
        "caf\udce9",
        "#folder/a",
        "a/trail\t",
        "a\\b",
        "c:a",
    ],
)
def test_image_names_that_cvat_would_not_find_are_refused(stem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"CVAT's list of images cannot have .*; rename it") as caught:
        find_format("cvat").write(result_of(labels_of(1)), tmp_path / "a", ImageInfo(f"{stem}.png", 60, 40), OPTIONS)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stem", ["a/#hash", "a/ lead", "c d", "tab\tinside", "caf\xe9", '"', "ab:c", "狗"])
def test_image_names_that_cvat_finds_are_listed(stem: str, tmp_path: Path) -> None:
    info = ImageInfo(f"{stem}.png", 60, 40)
    find_format("cvat").write(result_of(labels_of(1)), tmp_path / "a.zip", info, OPTIONS)
    (path,) = find_format("cvat").merge([ImageOutput(info, tmp_path / "a.zip")], tmp_path, CLASSES, OPTIONS)
    for file in (tmp_path / "a.zip", path):
        with zipfile.ZipFile(file) as archive:
            assert read_list(archive.read(LIST)) == [stem]
            assert {f"SegmentationClass/{stem}.png", f"SegmentationObject/{stem}.png"} < set(archive.namelist())


@pytest.mark.parametrize("name", ["background", "#1 fan", "a:b", "two\nlines", " lead", "trail "])
def test_class_names_that_cvat_cannot_have_are_refused(name: str, tmp_path: Path) -> None:
    format = find_format("cvat")
    with pytest.raises(InputError, match=r"CVAT.*give it another name"):
        format.check_classes(("dog", name), FormatOptions())
    with pytest.raises(InputError, match="CVAT"):
        format.write(result_of(labels_of(1), ("dog", name, "x")), tmp_path / "a", ImageInfo("a", 60, 40), OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_more_than_255_classes_are_refused() -> None:
    format = find_format("cvat")
    format.check_classes([f"class {i}" for i in range(255)], FormatOptions())
    with pytest.raises(InputError, match=r"at most 255 classes.*256"):
        format.check_classes([f"class {i}" for i in range(256)], FormatOptions())


def test_large_runs_are_split_into_several_zips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvat, "_IMAGES_PER_ZIP", 2)
    run = make_run(tmp_path, find_format("cvat"))
    assert [path.name for path in run.paths] == ["cvat.zip", "cvat-2.zip"]
    assert [read_list(zipfile.ZipFile(path).read(LIST)) for path in run.paths] == [["a", "deep/er/b"], ["deep/c d"]]
