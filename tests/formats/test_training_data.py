"""Data sets for training: class ids in PNGs of one channel, copies of the images, and the files that describe them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from format_helpers import CLASSES, NAMES, labels_of, make_run, result_of
from PIL import Image

from cliper.errors import InputError
from cliper.formats import FormatOptions, ImageInfo, ImageOutput, find_format
from cliper.formats.archive import pack_results

IGNORE = FormatOptions(ignore_background=True)


def read_ids(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image).astype(int)


@pytest.mark.parametrize("name", ["yolo-semantic", "hf-dataset"])
def test_masks_are_grey_class_ids_with_background_as_0_or_255(name: str, tmp_path: Path) -> None:
    for options in (FormatOptions(), IGNORE):
        run = make_run(tmp_path / str(options.ignore_background), find_format(name), options)
        for output in run.outputs:
            labels = run.results[output.info.name].labels
            expected = np.where(labels == 0, 255, labels - 1) if options.ignore_background else labels
            np.testing.assert_array_equal(read_ids(output.path), expected)


def test_semantic_yaml_names_folders_and_ids(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("yolo-semantic"))
    (path,) = run.paths
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {
        "train": "images",
        "val": "images",
        "masks_dir": "masks",
        "names": dict(enumerate(["background", *CLASSES])),
    }
    assert [output.path.relative_to(tmp_path).as_posix() for output in run.outputs] == [
        "masks/a.png",
        "masks/deep/er/b.png",
        "masks/deep/c d.png",
    ]


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (("train/a.png", "val/b.png"), {"train": "images/train", "val": "images/val"}),
        (
            ("train/x/a.png", "val/b.png", "test/c.png"),
            {"train": "images/train", "val": "images/val", "test": "images/test"},
        ),
        (("train/a.png", "val/b.png", "c.png"), {"train": "images", "val": "images"}),
        (("train/a.png", "b.png"), {"train": "images", "val": "images"}),
    ],
)
def test_folders_called_train_and_val_are_splits(
    names: tuple[str, ...], folders: dict[str, str], tmp_path: Path
) -> None:
    outputs = [ImageOutput(ImageInfo(name, 1, 1), tmp_path / "none") for name in names]
    (path,) = find_format("yolo-semantic").merge(outputs, tmp_path, CLASSES, IGNORE)
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert data == {**folders, "masks_dir": "masks", "names": dict(enumerate(CLASSES))}


def test_folder_called_images_is_refused(tmp_path: Path) -> None:
    write = find_format("yolo-semantic").write
    write(result_of(labels_of(0)), tmp_path / "a.png", ImageInfo("images.png", 60, 40), FormatOptions())
    with pytest.raises(InputError, match="no folder called images"):
        write(result_of(labels_of(0)), tmp_path / "b.png", ImageInfo("images/b.png", 60, 40), FormatOptions())


def test_class_lists_that_do_not_fit_are_refused() -> None:
    for name in ("yolo-semantic", "hf-dataset"):
        check = find_format(name).check_classes
        check([str(number) for number in range(254)], IGNORE)
        with pytest.raises(InputError, match="at most 254 classes"):
            check([str(number) for number in range(255)], FormatOptions())
    check = find_format("yolo-semantic").check_classes
    check(["dog"], FormatOptions())
    with pytest.raises(InputError, match="expected two classes or more"):
        check(["dog"], IGNORE)


def test_hf_metadata_pairs_images_and_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("hf-dataset"), IGNORE)
    metadata, card, names = run.paths
    rows = [json.loads(line) for line in metadata.read_text(encoding="utf-8").splitlines()]
    stems = [name.rpartition(".")[0] for name in NAMES]
    assert rows == [{"file_name": f"images/{stem}.png", "label_file_name": f"labels/{stem}.png"} for stem in stems]
    assert json.loads(names.read_text(encoding="utf-8")) == {str(i): name for i, name in enumerate(CLASSES)}
    header, text = card.read_text(encoding="utf-8").split("---\n")[1:3]
    assert yaml.safe_load(header)["configs"][0]["data_files"][0]["path"][0] == "metadata.jsonl"
    assert "| 255 | background, to be ignored |" in text.splitlines()


def test_card_holds_names_that_are_no_markdown(tmp_path: Path) -> None:
    _, card, _ = find_format("hf-dataset").merge([], tmp_path, ["a|b\nc"], FormatOptions())
    assert "| 1 | a\\|b c |" in card.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", ["a\\b.png", "\udcff.png"])
def test_names_that_metadata_cannot_hold_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hf-dataset cannot have"):
        find_format("hf-dataset").write(result_of(labels_of(0)), tmp_path / "a", ImageInfo(name, 60, 40), IGNORE)


def test_images_are_copied_without_loss(tmp_path: Path) -> None:
    run = make_run(tmp_path, find_format("images"))
    for output in run.outputs:
        with Image.open(output.path) as image:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(run.results[output.info.name].image))


@pytest.mark.parametrize(("name", "folder"), [("yolo-semantic", "masks"), ("hf-dataset", "labels")])
def test_a_download_holds_the_images_too(name: str, folder: str) -> None:
    result = result_of(labels_of(0))
    content, file, _ = pack_results(find_format(name), [("a.jpg", result)], CLASSES, FormatOptions())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {"images/a.png", f"{folder}/a.png"} <= set(archive.namelist())
    assert file == f"{name}.zip"
