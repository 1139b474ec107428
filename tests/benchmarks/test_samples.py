"""From a data set on disk to pictures and labels: order, offsets, ignored labels, halves."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliper.benchmarks import Benchmark, benchmark_names, find_benchmark
from cliper.errors import ImageError, InputError
from dataset_trees import NAMES, build_tree, expected
from dataset_trees.content import picture_of

# The published protocol's: docs/method.md, section 5.
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
# Label -> class, at both ends and somewhere between.
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


def test_the_benchmarks_are_those_of_the_protocol() -> None:
    assert benchmark_names() == list(PROTOCOL) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_the_protocol_says(name: str) -> None:
    benchmark = find_benchmark(name)
    classes, ignore, sizes = PROTOCOL[name]
    assert benchmark.name == name
    assert benchmark.ignore == ignore
    assert (benchmark.size, *benchmark.also_sizes) == sizes
    assert len(benchmark.class_names) == len(benchmark.texts.classes) == classes
    assert benchmark.num_labels == classes + 1
    assert len(set(benchmark.class_names)) == classes
    assert {label: benchmark.class_names[label - 1] for label in CLASSES[name]} == CLASSES[name]


def test_plain_names_are_those_of_the_prompts_or_stand_for_them() -> None:
    for name in NAMES:
        benchmark = find_benchmark(name)
        for plain, prompt in zip(benchmark.class_names, benchmark.texts.classes, strict=True):
            assert plain == prompt.name or not set(plain) & set(",;:")
            assert "human" not in plain


@pytest.mark.parametrize("name", NAMES)
def test_samples_and_labels(name: str, tmp_path: Path) -> None:
    build_tree(name, tmp_path)
    benchmark = find_benchmark(name)
    samples = benchmark.samples(tmp_path)
    wanted = expected(name)
    assert [sample.name for sample in samples] == list(wanted)
    for sample in samples:
        picture, labels = benchmark.read(sample)
        assert picture.mode == "RGB"
        assert labels.dtype == np.uint8
        assert labels.flags.c_contiguous
        assert picture.size == labels.shape[::-1]
        np.testing.assert_array_equal(labels, wanted[sample.name])
    # No label is lost in the miniature, so one that moved would be seen.
    seen = set(np.unique(np.concatenate([labels.ravel() for labels in wanted.values()])).tolist())
    assert seen >= set(range(1, benchmark.num_labels))


def test_cityscapes_halves_are_of_picture_and_mask_alike(tmp_path: Path) -> None:
    build_tree("cityscapes", tmp_path)
    benchmark = find_benchmark("cityscapes")
    whole = np.asarray(picture_of("cityscapes", 0))
    left, right = (benchmark.read(sample) for sample in benchmark.samples(tmp_path)[:2])
    middle = whole.shape[1] // 2
    np.testing.assert_array_equal(np.asarray(left[0]), whole[:, :middle])
    np.testing.assert_array_equal(np.asarray(right[0]), whole[:, middle:])
    assert left[1].shape == right[1].shape == (whole.shape[0], middle)


def test_halves_of_an_odd_width_share_no_pixel_and_leave_none_out(tmp_path: Path) -> None:
    Image.new("RGB", (7, 2)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((2, 7), np.uint8)).save(tmp_path / "m.png")
    benchmark = find_benchmark("cityscapes")
    build_tree("cityscapes", tmp_path)
    halves = [replace(s, image=tmp_path / "a.png", mask=tmp_path / "m.png") for s in benchmark.samples(tmp_path)[:2]]
    assert sum(benchmark.read(half)[1].shape[1] for half in halves) == 7


@pytest.mark.parametrize("folder", ["ADEchallengeData2016", "ADEChallengeData2016"])
def test_ade_in_both_spellings(folder: str, tmp_path: Path) -> None:
    build_tree("ade150", tmp_path)
    (tmp_path / "ADEChallengeData2016").rename(tmp_path / folder)
    samples = find_benchmark("ade150").samples(tmp_path)
    assert [sample.name for sample in samples] == list(expected("ade150"))


def test_voc_without_the_augmented_masks_takes_its_own(tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    (folder / "SegmentationClassAug").rename(folder / "SegmentationClass")
    samples = find_benchmark("voc21").samples(tmp_path)
    assert {sample.mask.parent.name for sample in samples} == {"SegmentationClass"}
    assert all(sample.mask.is_file() for sample in samples)


def test_the_order_is_that_of_the_list(tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    names = list(expected("voc21"))[::-1]
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    assert [sample.name for sample in find_benchmark("voc21").samples(tmp_path)] == names


def test_context_prefers_its_own_list(tmp_path: Path) -> None:
    build_tree("context60", tmp_path)
    own = tmp_path / "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt"
    own.parent.mkdir()
    own.write_text("2008_000009\n")
    assert [sample.name for sample in find_benchmark("context60").samples(tmp_path)] == ["2008_000009"]


def test_coco_object_goes_by_the_list_and_leaves_train_out(tmp_path: Path) -> None:
    build_tree("coco-object", tmp_path)
    folder = tmp_path / "coco2014"
    (folder / "coco_seg_anno" / "000000000009.png").write_bytes(b"of train2014")
    samples = find_benchmark("coco-object").samples
    assert [sample.name for sample in samples(tmp_path)] == list(expected("coco-object"))
    (folder / "val2017.txt").write_text("000000000285\n")
    assert [sample.name for sample in samples(tmp_path)] == ["000000000285"]


@pytest.mark.parametrize("name", NAMES)
def test_a_root_without_the_data_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected its data at .*, got nothing there") as caught:
        find_benchmark(name).samples(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "a\nb\na\n"])
def test_a_list_that_is_empty_or_repeats_itself(text: str, tmp_path: Path) -> None:
    build_tree("voc21", tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text(text)
    with pytest.raises(InputError, match=r"expected names, each once.*val\.txt"):
        find_benchmark("voc21").samples(tmp_path)


def test_a_name_nearly_right() -> None:
    with pytest.raises(InputError, match="did you mean voc21"):
        find_benchmark("voc12")
    assert find_benchmark(" VOC21 ").name == "voc21"


# --- what cannot be read: one line, naming the file ----------------------------------------------------------


def first(name: str, root: Path) -> tuple[Benchmark, Path, Path]:
    build_tree(name, root)
    benchmark = find_benchmark(name)
    sample = benchmark.samples(root)[0]
    return benchmark, sample.image, sample.mask


def complaint(benchmark: Benchmark, root: Path) -> str:
    with pytest.raises(ImageError) as caught:
        benchmark.read(benchmark.samples(root)[0])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("which", ["image", "mask"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_file_that_cannot_be_read(which: str, damage: str, tmp_path: Path) -> None:
    benchmark, image, mask = first("voc21", tmp_path)
    path = image if which == "image" else mask
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"<html>not found"}[damage])
    assert str(path) in complaint(benchmark, tmp_path)


def test_a_mask_that_is_not_there(tmp_path: Path) -> None:
    benchmark, _, mask = first("voc21", tmp_path)
    mask.unlink()
    said = complaint(benchmark, tmp_path)
    assert str(mask) in said
    assert "nothing there" in said


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    benchmark, _, mask = first("ade150", tmp_path)
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(mask)
    said = complaint(benchmark, tmp_path)
    assert "got 4x5" in said
    assert str(mask) in said


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("voc21", 21, "expected labels 0 to 20 or 255, got 21"),
        ("context59", 60, "expected labels 0 to 59 or 255, got 60"),
        ("coco-object", 81, "expected labels 0 to 80 or 255, got 81"),
        ("coco-stuff171", 171, "expected labels 0 to 170 or 255, got 171"),
        ("ade150", 254, "expected labels 0 to 150 or 255, got 254"),
        ("cityscapes", 19, "expected labels 0 to 18 or 255, got 19"),
    ],
)
def test_a_label_out_of_range(name: str, value: int, allowed: str, tmp_path: Path) -> None:
    benchmark, _, mask = first(name, tmp_path)
    values = np.array(Image.open(mask))
    values[0, 0] = value
    Image.fromarray(values).save(mask)
    said = complaint(benchmark, tmp_path)
    assert allowed in said
    assert str(mask) in said


def test_stored_pixels_are_not_turned(tmp_path: Path) -> None:
    """The published masks belong to the pixels as they are stored."""
    benchmark, image, _ = first("voc21", tmp_path)
    stored = Image.open(image)
    size = stored.size
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(image, exif=exif)
    picture, _ = benchmark.read(benchmark.samples(tmp_path)[0])
    assert picture.size == size
    assert not picture.getexif()  # nor will the segmenter turn it


# SHA-256 of the names, of the class prompts and of the background prompts, one a line, in order. Made when they had
# been compared with the published protocol word by word; two that change places are noticed here.
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
def test_the_order_of_classes_and_texts_is_the_protocols(name: str) -> None:
    benchmark = find_benchmark(name)
    texts = (benchmark.texts.classes, benchmark.texts.background)
    lists = [benchmark.class_names, *([prompt for item in part for prompt in item.prompts] for part in texts)]
    digests = (hashlib.sha256("\n".join(each).encode()).hexdigest()[:16] for each in lists)
    assert tuple(digests) == ORDERS[name]
