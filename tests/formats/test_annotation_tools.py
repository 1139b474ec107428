"""CVAT, Label Studio, LabelMe and YOLO files, read by the rules of the tools that they are for."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from made_results import CLASSES, NAMES, decode_brush, filled, labels_of, make_run, result_of
from PIL import Image

from cliper.errors import InputError
from cliper.formats import cvat, voc_palette
from cliper.formats.label_studio import labeling_config
from cliper.formats.registry import FormatOptions, ImageInfo, ImageOutput, find_format

_OPTIONS = FormatOptions()

# --- CVAT ------------------------------------------------------------------------------------------------


def colours_to_labels(archive: zipfile.ZipFile, member: str, colours: dict[tuple[int, ...], int]) -> np.ndarray:
    """As CVAT's reader does: by colour, not by index."""
    with archive.open(member) as stream, Image.open(stream) as picture:
        assert picture.mode == "P"
        pixels = np.asarray(picture.convert("RGB"))
    return np.array([[colours[tuple(pixel)] for pixel in row] for row in pixels.tolist()])


def test_cvat(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("cvat"))
    assert [path.name for path in run.paths] == ["cvat.zip"]
    with zipfile.ZipFile(run.paths[0]) as archive:
        assert archive.testzip() is None
        lines = archive.read("labelmap.txt").decode().splitlines()
        entries = [line.split(":") for line in lines if not line.startswith("#")]
        assert {len(entry) for entry in entries} == {4}
        assert [entry[0] for entry in entries] == ["background", *CLASSES]
        colours = {tuple(map(int, entry[1].split(","))): label for label, entry in enumerate(entries)}
        names = archive.read("ImageSets/Segmentation/default.txt").decode().splitlines()
        assert names == ["a", "deep/er/b", "deep/c d"]
        instances = {tuple(colour): number for number, colour in enumerate(voc_palette().tolist())}
        for name, picture in zip(names, NAMES, strict=True):
            labels = run.results[picture].labels
            found = colours_to_labels(archive, f"SegmentationClass/{name}.png", colours)
            np.testing.assert_array_equal(found, labels)
            numbers = colours_to_labels(archive, f"SegmentationObject/{name}.png", instances)
            np.testing.assert_array_equal(numbers > 0, labels > 0)
            for number in set(np.unique(numbers)) - {0}:  # an object has one class
                assert len(np.unique(labels[numbers == number])) == 1


def test_cvat_objects_are_regions_unless_there_are_too_many() -> None:
    assert cvat.number_regions(np.array([[2, 0, 2], [0, 1, 0]])).tolist() == [[2, 0, 3], [0, 1, 0]]
    board = np.indices((40, 40)).sum(axis=0) % 2 * 5 + np.zeros((40, 40), int)
    board[:2] = 9
    assert set(np.unique(cvat.number_regions(board)[2:])) == {0, 1}
    assert set(np.unique(cvat.number_regions(board)[:2])) == {2}


def listed_by_cvat(data: bytes) -> list[str]:
    """Its reader's rule: lines without what is blank at their ends; blank ones and comments are passed over."""
    lines = (line.strip() for line in io.StringIO(data.decode("utf-8"), newline=None))
    return [line for line in lines if line and not line.startswith("#")]


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
    ],
)
def test_pictures_that_cvat_would_not_find(stem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"CVAT's list of pictures cannot have .*; rename it") as caught:
        find_format("cvat").write(result_of(labels_of(1)), tmp_path / "a", ImageInfo(f"{stem}.png", 60, 40), _OPTIONS)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stem", ["a/#hash", "a/ lead", "c d", "tab\tinside", "caf\xe9", '"', "ab:c", "狗"])
def test_pictures_that_cvat_finds(stem: str, tmp_path: Path) -> None:
    picture = ImageInfo(f"{stem}.png", 60, 40)
    find_format("cvat").write(result_of(labels_of(1)), tmp_path / "a.zip", picture, _OPTIONS)
    (path,) = find_format("cvat").merge([ImageOutput(picture, tmp_path / "a.zip")], tmp_path, CLASSES, _OPTIONS)
    for file in (tmp_path / "a.zip", path):
        with zipfile.ZipFile(file) as archive:
            assert listed_by_cvat(archive.read("ImageSets/Segmentation/default.txt")) == [stem]
            assert {f"SegmentationClass/{stem}.png", f"SegmentationObject/{stem}.png"} < set(archive.namelist())


@pytest.mark.parametrize("name", ["background", "#1 fan", "a:b", "two\nlines", " lead", "trail "])
def test_names_that_cvat_cannot_have(name: str, tmp_path: Path) -> None:
    format = find_format("cvat")
    with pytest.raises(InputError, match=r"CVAT.*give it another name"):
        format.check_classes(("dog", name))
    with pytest.raises(InputError, match="CVAT"):
        format.write(
            result_of(labels_of(1), ("dog", name, "x")), tmp_path / "a", ImageInfo("a", 60, 40), FormatOptions()
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"at most 255 classes.*256"):
        format.check_classes(tuple(f"class {i}" for i in range(256)))
    format.check_classes(tuple(f"class {i}" for i in range(255)))


def test_cvat_zips_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvat, "_IMAGES_PER_ZIP", 2)
    run = make_run(tmp_path, find_format("cvat"))
    assert [path.name for path in run.paths] == ["cvat.zip", "cvat-2.zip"]
    listed = [zipfile.ZipFile(p).read("ImageSets/Segmentation/default.txt").decode().split("\n") for p in run.paths]
    assert listed == [["a", "deep/er/b", ""], ["deep/c d", ""]]


# --- Label Studio ----------------------------------------------------------------------------------------


def test_label_studio(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("label-studio"))
    tasks_path, config_path = run.paths
    config = ElementTree.fromstring(config_path.read_text(encoding="utf-8"))
    image, brush = config.find("Image"), config.find("BrushLabels")
    assert [label.get("value") for label in brush] == list(CLASSES)
    tasks = json.loads(tasks_path.read_text())
    variable = image.get("value").removeprefix("$")
    assert [task["data"][variable] for task in tasks] == [
        "/data/local-files/?d=a.jpg",
        "/data/local-files/?d=deep/er/b.png",
        "/data/local-files/?d=deep/c%20d.webp",
    ]
    for task, name in zip(tasks, NAMES, strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "some"
        labels = np.zeros((40, 60), int)
        for stroke in prediction["result"]:
            assert (stroke["from_name"], stroke["to_name"]) == (brush.get("name"), image.get("name"))
            assert (stroke["type"], stroke["value"]["format"]) == ("brushlabels", "rle")
            size = stroke["original_height"], stroke["original_width"], 4
            alpha = decode_brush(stroke["value"]["rle"]).reshape(size)[..., 3]
            (label,) = stroke["value"]["brushlabels"]
            labels[alpha > 0] = CLASSES.index(label) + 1
        np.testing.assert_array_equal(labels, run.results[name].labels)
        assert len({stroke["id"] for stroke in prediction["result"]}) == len(prediction["result"])
        assert prediction["score"] == pytest.approx(0.7)


def test_a_task_of_one_result() -> None:
    task = result_of(np.array([[0, 2]])).to_label_studio(image="https://a.example/b.jpg")
    assert task["data"] == {"image": "https://a.example/b.jpg"}
    assert [s["value"]["brushlabels"] for s in task["predictions"][0]["result"]] == [["wooden bench"]]
    nothing = result_of(np.zeros((2, 2))).to_label_studio()
    assert nothing["predictions"][0]["result"] == []
    assert nothing["predictions"][0]["score"] == 0


def test_label_studio_scores_are_shares() -> None:
    """It refuses predictions with a score above 1; a class's confidence may be larger, or below 0."""
    result = replace(result_of(np.array([[1, 2, 3]])), confidence=np.array([1.6, 0.5, -0.1], np.float32))
    (prediction,) = result.to_label_studio()["predictions"]
    assert [stroke["score"] for stroke in prediction["result"]] == [1.0, 0.5, 0.0]
    assert prediction["score"] == 0.5


def test_label_studio_colours_are_those_of_the_overlay() -> None:
    colours = [label.get("background") for label in ElementTree.fromstring(labeling_config(CLASSES)).iter("Label")]
    assert colours == ["#800000", "#008000", "#808000"]


def test_label_studio_serves_a_folder_below_its_root(tmp_path: Path) -> None:
    """Its root cannot be a storage itself, so addresses begin with the name of a folder in it."""
    options = FormatOptions(image_folder="my photos")
    find_format("label-studio").write(result_of(labels_of(1)), tmp_path / "a", ImageInfo("x/é.jpg", 60, 40), options)
    (task,) = json.loads((tmp_path / "a").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=my%20photos/x/%C3%A9.jpg"


@pytest.mark.parametrize(
    ("model", "shown"),
    [("/home/me/clips/tiny", "tiny"), ("./clips/tiny/", "tiny"), ("~/tiny", "tiny"), ("ViT-B/16", "ViT-B/16")],
)
def test_label_studio_is_told_no_path_of_this_machine(model: str, shown: str, tmp_path: Path) -> None:
    result = replace(result_of(labels_of(1)), model=model)
    assert result.to_label_studio()["predictions"][0]["model_version"] == shown
    find_format("label-studio").write(result, tmp_path / "a", ImageInfo("a", 60, 40), _OPTIONS)
    assert json.loads((tmp_path / "a").read_text())[0]["predictions"][0]["model_version"] == shown


@pytest.mark.parametrize("name", ["bell\a", "nul\0", "two\nlines", "tab\t", "\uffff", "no text \udcff", "\x85"])
def test_names_that_label_studio_cannot_have(name: str) -> None:
    with pytest.raises(InputError, match=r"Label Studio.*a class.*give it another name") as caught:
        find_format("label-studio").check_classes(("dog", name))
    assert str(caught.value).isprintable()


def test_label_studio_names_are_read_as_they_were() -> None:
    names = ("yes", "a: b", "<&>", "'", '"', "狗 🐕", "é\u2028x", "", " a  b ")
    find_format("label-studio").check_classes(names)
    labels = ElementTree.fromstring(labeling_config(names)).iter("Label")
    assert tuple(label.get("value") for label in labels) == names


# --- LabelMe and YOLO ------------------------------------------------------------------------------------


def test_labelme(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("labelme"), FormatOptions(tolerance=0))
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


def test_labelme_finds_the_picture(tmp_path: Path) -> None:
    """Its rule: the picture is at the file's folder / imagePath, where a backslash is a slash."""
    photos, out = tmp_path / "photos", tmp_path / "some where" / "out"
    (tmp_path / "real" / "out").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "real", target_is_directory=True)
    for folder in (out, tmp_path / "linked" / "out", photos):  # ".." after a link leads elsewhere than the name says
        for name in ("cat.jpg", "garden/é [1].jpg"):
            (photos / name).parent.mkdir(parents=True, exist_ok=True)
            (photos / name).write_bytes(name.encode())
            picture = ImageInfo(name, 60, 40, source=photos / name)
            path = folder / f"{picture.stem}.json"
            find_format("labelme").write(result_of(labels_of(1)), path, picture, _OPTIONS)
            image = json.loads(path.read_text())["imagePath"]
            assert "\\" not in image
            assert not image.startswith("/")
            assert (path.parent / image).read_bytes() == name.encode()


def test_labelme_of_a_picture_that_is_no_file(tmp_path: Path) -> None:
    find_format("labelme").write(result_of(labels_of(1)), tmp_path / "a.json", ImageInfo("x/a.jpg", 60, 40), _OPTIONS)
    assert json.loads((tmp_path / "a.json").read_text())["imagePath"] == "a.jpg"


def test_yolo(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("yolo"), FormatOptions(tolerance=0))
    data = yaml.safe_load(run.paths[0].read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(CLASSES))
    for output, name in zip(run.outputs, NAMES, strict=True):
        labels = np.zeros((40, 60), int)
        for line in output.path.read_text().splitlines():
            index, *shares = map(float, line.split())
            points = np.array(shares).reshape(-1, 2)
            assert points.min() >= 0
            assert points.max() <= 1
            # Written with 7 digits, a corner is within 1e-5 pixels of where it was.
            corners = points * [60, 40]
            np.testing.assert_allclose(corners, corners.round(), atol=1e-4)
            labels += (int(index) + 1) * filled(corners.round(), labels.shape)
        np.testing.assert_array_equal(labels, run.results[name].labels)


@pytest.mark.parametrize("name", ["labelme", "yolo"])
def test_a_tolerance_makes_files_smaller(name: str, tmp_path: Path) -> None:
    y, x = np.mgrid[:200, :200]
    result = result_of(((x - 100) ** 2 + (y - 90) ** 2 < 80**2) * 2)
    sizes = []
    for tolerance in (0, 1, 4):
        find_format(name).write(result, tmp_path / "a", ImageInfo("a", 200, 200), FormatOptions(tolerance=tolerance))
        sizes.append((tmp_path / "a").stat().st_size)
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[1] < sizes[0] / 5


def test_yolo_class_names_are_read_as_they_were(tmp_path: Path) -> None:
    names = ("yes", "1", "a: b", "# c", '"', "狗 🐕", "é\u2028x", "- d")
    format, picture = find_format("yolo"), ImageInfo("a", 1, 1)
    (path,) = format.merge([ImageOutput(picture, tmp_path / "a.txt")], tmp_path, names, FormatOptions())
    assert tuple(yaml.safe_load(path.read_text(encoding="utf-8"))["names"].values()) == names
