"""Custom data as a benchmark: folders of images and masks, and a class list."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cliper.datasets import Benchmark, custom_benchmark
from cliper.errors import ImageError, InputError
from cliper.prompts import parse_classes, read_classes
from dataset_trees import read_sample

CLASSES = parse_classes("dog; grass; sky: sky, clouds")
MASK = np.array([[0, 1, 2], [3, 255, 0]])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three images, one in a subfolder, and their masks in a folder with the same structure."""
    images, masks = tmp_path / "images", tmp_path / "labels"
    for name in ("b.jpg", "a.PNG", "sub/folder/b.jpeg"):
        image, mask = images / name, (masks / name).with_suffix(".png")
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(image)
        Image.fromarray(MASK.astype(np.uint8)).save(mask)
    return images, masks


def labels(benchmark: Benchmark) -> np.ndarray:
    return read_sample(benchmark, benchmark.samples(Path("anywhere"))[0])[1]


def test_benchmark_from_folders_and_class_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    class_file = tmp_path / "classes.txt"
    class_file.write_text("dog\ngrass\nsky: sky, clouds\n")
    benchmark = custom_benchmark(*folders, read_classes(class_file), background=parse_classes("wall"))
    assert [s.name for s in benchmark.samples(tmp_path)] == ["a", "b", "sub/folder/b"]
    assert (benchmark.class_names, benchmark.num_labels, benchmark.accepted_sizes) == (("dog", "grass", "sky"), 4, (3,))
    assert benchmark.texts.classes[2].prompts == ("sky", "clouds")
    assert [item.name for item in benchmark.texts.background] == ["wall"]
    for sample in benchmark.samples(tmp_path):
        image, values = read_sample(benchmark, sample)
        assert image.size == (3, 2)
        np.testing.assert_array_equal(values, MASK)


def test_value_zero_is_background_ignored_or_first_class(folders: tuple[Path, Path]) -> None:
    counted = custom_benchmark(*folders, CLASSES)
    assert counted.ignore == (255,)
    np.testing.assert_array_equal(labels(counted), [[0, 1, 2], [3, 255, 0]])

    not_counted = custom_benchmark(*folders, CLASSES, ignore=(0, 255))
    assert not_counted.ignore == (0, 255)
    np.testing.assert_array_equal(labels(not_counted), [[255, 1, 2], [3, 255, 255]])

    four = custom_benchmark(*folders, [*CLASSES, *parse_classes("cat")], offset=1)
    assert four.ignore == (0, 255)
    np.testing.assert_array_equal(labels(four), [[1, 2, 3], [4, 255, 1]])


def test_custom_ignore_value(folders: tuple[Path, Path]) -> None:
    benchmark = custom_benchmark(*folders, CLASSES, ignore=(2, 255))
    np.testing.assert_array_equal(labels(benchmark), [[0, 1, 255], [3, 255, 0]])
    with pytest.raises(ImageError, match=r"expected labels 0 to 3, got 255"):
        labels(custom_benchmark(*folders, CLASSES, ignore=()))


def test_class_with_value_255_is_counted(tmp_path: Path) -> None:
    Image.new("RGB", (300, 1)).save(tmp_path / "a.png")
    (tmp_path / "m").mkdir()
    Image.fromarray(np.arange(300)[None].astype(np.uint16)).save(tmp_path / "m" / "a.png")
    many, few = (
        custom_benchmark(tmp_path, tmp_path / "m", parse_classes([f"class {i}" for i in range(count)]))
        for count in (299, 254)
    )
    assert not np.isin(labels(many), many.ignore).any()
    with pytest.raises(ImageError, match="expected labels 0 to 254 or 255, got 256"):
        labels(few)


def test_class_named_background_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="expected classes other than background"):
        custom_benchmark(*folders, parse_classes("dog; Background"))


def test_wrong_offset_gives_out_of_range_label(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ImageError, match=r"expected labels 0 to 2 or 255, got 3"):
        labels(custom_benchmark(*folders, CLASSES, offset=1))


@settings(deadline=None, max_examples=25)  # each writes files; the examples cover the limits 254 to 256
@given(st.integers(1, 600), st.booleans())
@example(254, True)
@example(255, False)
@example(256, True)
def test_every_class_count_keeps_labels_distinct(
    tmp_path_factory: pytest.TempPathFactory, count: int, from_zero: bool
) -> None:
    """Every class has its own label, and none equals the ignore label."""
    folder = tmp_path_factory.mktemp("own")
    Image.new("RGB", (count, 1)).save(folder / "a.png")
    stored = np.arange(count)[None] + (0 if from_zero else 1)
    (folder / "m").mkdir()
    Image.fromarray(stored.astype(np.uint16)).save(folder / "m" / "a.png")
    classes = parse_classes([f"class {i}" for i in range(count)])
    benchmark = custom_benchmark(folder, folder / "m", classes, ignore=(), offset=int(from_zero))
    # The folder of masks is inside the folder of images: only a.png has a mask.
    values = read_sample(benchmark, benchmark.samples(folder)[0])[1]
    np.testing.assert_array_equal(values, np.arange(1, count + 1)[None])
    assert benchmark.ignore_label >= benchmark.num_labels


def test_exif_orientation_is_applied(folders: tuple[Path, Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2, 3)).save(folders[0] / "b.jpg", exif=exif)
    benchmark = custom_benchmark(*folders, CLASSES)
    assert read_sample(benchmark, benchmark.samples(folders[0])[1])[0].size == (3, 2)


def test_custom_benchmark_can_be_pickled(folders: tuple[Path, Path]) -> None:
    benchmark = pickle.loads(pickle.dumps(custom_benchmark(*folders, CLASSES)))
    assert len(benchmark.samples(Path())) == 3


def test_missing_mask_is_reported_on_read(folders: tuple[Path, Path]) -> None:
    (folders[1] / "a.png").unlink()
    benchmark = custom_benchmark(*folders, CLASSES)
    with pytest.raises(ImageError, match=r"a\.png.*nothing there"):
        labels(benchmark)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, masks: (images / "no", masks), "expected a folder of images"),
        (lambda images, masks: (images, masks / "no"), "expected a folder of masks"),
        (lambda images, masks: (masks / "sub" / "folder" / "..", images), "with the names of the images, such as"),
    ],
)
def test_unusable_folders_are_refused(
    change: Callable[[Path, Path], tuple[Path, Path]], message: str, folders: tuple[Path, Path]
) -> None:
    with pytest.raises(InputError, match=message):
        custom_benchmark(*change(*folders), CLASSES)


def test_two_images_with_one_name_are_refused(folders: tuple[Path, Path]) -> None:
    Image.new("RGB", (3, 2)).save(folders[0] / "b.png")
    with pytest.raises(InputError, match=r"b\.jpg.*b\.png.*rename one"):
        custom_benchmark(*folders, CLASSES)


def test_missing_images_missing_classes_and_invalid_offset_are_refused(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected images below"):
        custom_benchmark(tmp_path / "empty", folders[1], CLASSES)
    with pytest.raises(InputError, match="at least one class"):
        custom_benchmark(*folders, [])
    with pytest.raises(InputError, match="offset: expected 0"):
        custom_benchmark(*folders, CLASSES, offset=2)
