"""Benchmarks read from disk: order of samples, label offsets, ignored labels, halves of Cityscapes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliper.datasets import Benchmark, benchmark_names, find_benchmark
from cliper.errors import ImageError, InputError
from dataset_trees import NAMES, build_tree, expected, read_sample
from dataset_trees.content import make_image

# The published protocol: docs/method.md, section 5. Number of classes, ignored labels, accepted sizes.
PROTOCOL = {
    "voc21": (20, (255,), (1449,)),
    "voc20": (20, (0, 255), (1449,)),
    "context60": (59, (255,), (5104, 5105)),
    "context59": (59, (0, 255), (5104, 5105)),
    "coco-object": (80, (255,), (5000,)),
    "coco-stuff171": (171, (0, 255), (5000,)),
    "ade150": (150, (0, 255), (2000,)),
    "cityscapes": (19, (0, 255), (1000,)),
}
# Label -> class: the first, the last and some between.
CLASSES = {
    "voc21": {1: "aeroplane", 3: "bird", 15: "person", 20: "tvmonitor"},
    "voc20": {1: "aeroplane", 9: "chair", 20: "tvmonitor"},
    "context60": {1: "aeroplane", 7: "bird", 37: "person", 59: "wood"},
    "context59": {1: "aeroplane", 17: "chair", 55: "tvmonitor", 59: "wood"},
    "coco-object": {1: "person", 4: "motorcycle", 57: "chair", 63: "tv", 80: "toothbrush"},
    "coco-stuff171": {1: "person", 80: "toothbrush", 81: "banner", 171: "wood"},
    "ade150": {1: "wall", 13: "person", 150: "flag"},
    "cityscapes": {1: "road", 12: "person", 19: "bicycle"},
}


def test_benchmark_names_match_the_protocol() -> None:
    assert benchmark_names() == list(PROTOCOL) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_matches_the_protocol(name: str) -> None:
    benchmark = find_benchmark(name)
    classes, ignore, sizes = PROTOCOL[name]
    assert benchmark.name == name
    assert benchmark.ignore == ignore
    assert benchmark.accepted_sizes == sizes
    assert len(benchmark.class_names) == len(benchmark.texts.classes) == classes
    assert benchmark.num_labels == classes + 1
    assert len(set(benchmark.class_names)) == classes
    assert {label: benchmark.class_names[label - 1] for label in CLASSES[name]} == CLASSES[name]


def test_plain_names_equal_prompts_or_are_shorter() -> None:
    for name in NAMES:
        benchmark = find_benchmark(name)
        for plain, prompt in zip(benchmark.class_names, benchmark.texts.classes, strict=True):
            assert plain == prompt.name or not set(plain) & set(",;:")
            assert "human" not in plain


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_expected_names_and_labels(name: str, tmp_path: Path) -> None:
    build_tree(name, tmp_path)
    benchmark = find_benchmark(name)
    samples = benchmark.samples(tmp_path)
    expected_labels = expected(name)
    assert [sample.name for sample in samples] == list(expected_labels)
    for sample in samples:
        image, labels = read_sample(benchmark, sample)
        assert image.mode == "RGB"
        assert labels.dtype == np.uint8
        assert labels.flags.c_contiguous
        assert image.size == labels.shape[::-1]
        np.testing.assert_array_equal(labels, expected_labels[sample.name])
    # Every label occurs, so that a shifted label would be noticed.
    present = set(np.unique(np.concatenate([labels.ravel() for labels in expected_labels.values()])).tolist())
    assert present >= set(range(1, benchmark.num_labels))


def test_cityscapes_halves_crop_image_and_mask(tmp_path: Path) -> None:
    build_tree("cityscapes", tmp_path)
    benchmark = find_benchmark("cityscapes")
    whole = np.asarray(make_image("cityscapes", 0))
    left, right = (read_sample(benchmark, sample) for sample in benchmark.samples(tmp_path)[:2])
    middle = whole.shape[1] // 2
    np.testing.assert_array_equal(np.asarray(left[0]), whole[:, :middle])
    np.testing.assert_array_equal(np.asarray(right[0]), whole[:, middle:])
    assert left[1].shape == right[1].shape == (whole.shape[0], middle)


def test_halves_of_odd_width_cover_each_column_once(tmp_path: Path) -> None:
    Image.new("RGB", (7, 2)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((2, 7), np.uint8)).save(tmp_path / "m.png")
    benchmark = find_benchmark("cityscapes")
    build_tree("cityscapes", tmp_path)
    halves = [replace(s, image=tmp_path / "a.png", mask=tmp_path / "m.png") for s in benchmark.samples(tmp_path)[:2]]
    assert sum(read_sample(benchmark, half)[1].shape[1] for half in halves) == 7


@pytest.mark.parametrize("folder", ["ADEchallengeData2016", "ADEChallengeData2016"])
def test_ade_folder_in_both_spellings(folder: str, tmp_path: Path) -> None:
    build_tree("ade150", tmp_path)
    (tmp_path / "ADEChallengeData2016").rename(tmp_path / folder)
    samples = find_benchmark("ade150").samples(tmp_path)
    assert [sample.name for sample in samples] == list(expected("ade150"))


def test_voc_without_augmented_masks_uses_its_own(tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    (folder / "SegmentationClassAug").rename(folder / "SegmentationClass")
    samples = find_benchmark("voc21").samples(tmp_path)
    assert {sample.mask.parent.name for sample in samples} == {"SegmentationClass"}
    assert all(sample.mask.is_file() for sample in samples)


def test_samples_follow_the_order_of_the_list(tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    names = list(expected("voc21"))[::-1]
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    assert [sample.name for sample in find_benchmark("voc21").samples(tmp_path)] == names


def test_context_list_replaces_voc_list(tmp_path: Path) -> None:
    build_tree("context60", tmp_path)
    own = tmp_path / "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt"
    own.parent.mkdir()
    own.write_text("2008_000009\n")
    assert [sample.name for sample in find_benchmark("context60").samples(tmp_path)] == ["2008_000009"]


def test_coco_object_uses_the_list_and_skips_train_masks(tmp_path: Path) -> None:
    build_tree("coco-object", tmp_path)
    folder = tmp_path / "coco2014"
    (folder / "coco_seg_anno" / "000000000009.png").write_bytes(b"of train2014")
    samples = find_benchmark("coco-object").samples
    assert [sample.name for sample in samples(tmp_path)] == list(expected("coco-object"))
    (folder / "val2017.txt").write_text("000000000285\n")
    assert [sample.name for sample in samples(tmp_path)] == ["000000000285"]


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_error_names_the_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected its data at .*, got nothing there") as caught:
        find_benchmark(name).samples(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a\nb\na\n"])
def test_list_that_is_empty_or_has_duplicates_is_refused(text: str, tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(text)
    with pytest.raises(InputError, match=r"expected unique names in .*val\.txt"):
        find_benchmark("voc21").samples(tmp_path)


def test_misspelled_name_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean voc21"):
        find_benchmark("voc12")
    assert find_benchmark(" VOC21 ").name == "voc21"


# --- unreadable files: a one-line error that names the file ----------------------------------------------------------


def build_first(name: str, root: Path) -> tuple[Benchmark, Path, Path]:
    build_tree(name, root)
    benchmark = find_benchmark(name)
    sample = benchmark.samples(root)[0]
    return benchmark, sample.image, sample.mask


def read_error(benchmark: Benchmark, root: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_sample(benchmark, benchmark.samples(root)[0])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("which", ["image", "mask"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_unreadable_file_is_named(which: str, damage: str, tmp_path: Path) -> None:
    benchmark, image, mask = build_first("voc21", tmp_path)
    path = image if which == "image" else mask
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"<html>not found"}[damage])
    assert str(path) in read_error(benchmark, tmp_path)


def test_missing_mask_is_named(tmp_path: Path) -> None:
    benchmark, _, mask = build_first("voc21", tmp_path)
    mask.unlink()
    message = read_error(benchmark, tmp_path)
    assert str(mask) in message
    assert "nothing there" in message


def test_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    benchmark, _, mask = build_first("ade150", tmp_path)
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(mask)
    message = read_error(benchmark, tmp_path)
    assert "got 4x5" in message
    assert str(mask) in message


@pytest.mark.parametrize(
    ("name", "value", "expected_message"),
    [
        ("voc21", 21, "expected labels 0 to 20 or 255, got 21"),
        ("context59", 60, "expected labels 0 to 59 or 255, got 60"),
        ("coco-object", 81, "expected labels 0 to 80 or 255, got 81"),
        ("coco-stuff171", 171, "expected labels 0 to 170 or 255, got 171"),
        ("ade150", 254, "expected labels 0 to 150 or 255, got 254"),
        ("cityscapes", 19, "expected labels 0 to 18 or 255, got 19"),
    ],
)
def test_label_out_of_range_is_refused(name: str, value: int, expected_message: str, tmp_path: Path) -> None:
    benchmark, _, mask = build_first(name, tmp_path)
    values = np.array(Image.open(mask))
    values[0, 0] = value
    Image.fromarray(values).save(mask)
    message = read_error(benchmark, tmp_path)
    assert expected_message in message
    assert str(mask) in message


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    """The published masks belong to the stored pixels."""
    benchmark, image, _ = build_first("voc21", tmp_path)
    stored = Image.open(image)
    size = stored.size
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(image, exif=exif)
    loaded, _ = read_sample(benchmark, benchmark.samples(tmp_path)[0])
    assert loaded.size == size
    assert not loaded.getexif()  # so that the segmenter does not apply it either


# SHA-256 of the names, the class prompts and the background prompts, one per line, in order. Computed after they were
# compared with the published protocol word by word; detects two entries that change places.
ORDERS = {
    "voc21": ("7d877f185c807bc5", "3f1922c71826f97c", "bb063b8a0aaa19e5"),
    "voc20": ("7d877f185c807bc5", "3f1922c71826f97c", "bb063b8a0aaa19e5"),
    "context60": ("cd808465f06a1616", "0503703f8cc47d1c", "89b91df19d9d75d4"),
    "context59": ("cd808465f06a1616", "0503703f8cc47d1c", "89b91df19d9d75d4"),
    "coco-object": ("d7654b2610157284", "5b829848c2c20068", "3a62a50fccc5c610"),
    "coco-stuff171": ("fb98709b9ab1baff", "fb98709b9ab1baff", "89b91df19d9d75d4"),
    "ade150": ("e53ded02c488bdb9", "321c8ac04ecfe9d1", "89b91df19d9d75d4"),
    "cityscapes": ("5995d02d6c574d51", "5995d02d6c574d51", "89b91df19d9d75d4"),
}


@pytest.mark.parametrize("name", NAMES)
def test_order_of_classes_and_prompts_matches_the_protocol(name: str) -> None:
    benchmark = find_benchmark(name)
    texts = (benchmark.texts.classes, benchmark.texts.background)
    lists = [benchmark.class_names, *([prompt for item in part for prompt in item.prompts] for part in texts)]
    digests = (hashlib.sha256("\n".join(each).encode()).hexdigest()[:16] for each in lists)
    assert tuple(digests) == ORDERS[name]
