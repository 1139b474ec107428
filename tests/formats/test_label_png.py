"""Label maps as PNG."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_helpers import result_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from cliper.errors import ImageError, InputError, OutputError, ResourceError, ShapeError
from cliper.formats import FormatOptions, ImageInfo, find_format, read_label_png, voc_palette, write_label_png
from hostile_images import png_texts

SHAPES = npst.array_shapes(min_dims=2, max_dims=2, max_side=12)
DTYPES = st.sampled_from([np.uint8, np.uint16, np.int32, np.int64])


@st.composite
def label_maps(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(DTYPES)
    high = draw(st.sampled_from([1, 20, 255, 256, 65535]))
    values = st.integers(0, min(high, np.iinfo(dtype).max))
    return draw(npst.arrays(dtype, draw(SHAPES), elements=values))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(labels=label_maps())
def test_round_trip(tmp_path: Path, labels: np.ndarray) -> None:
    write_label_png(tmp_path / "a.png", labels)
    read = read_label_png(tmp_path / "a.png")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels)
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == ("P" if labels.max() <= 255 else "I;16")


def test_number_of_classes_selects_the_depth(tmp_path: Path) -> None:
    """All label maps of a run have one depth, whatever labels occur in them."""
    labels = np.array([[0, 7]], np.int32)
    for count, mode in ((255, "P"), (256, "I;16")):
        result = result_of(labels, tuple(f"class {number}" for number in range(count)))
        find_format("labels").write(result, tmp_path / "run.png", ImageInfo("a.png", 2, 1), FormatOptions())
        result.save(tmp_path / "saved.png")
        for name in ("run.png", "saved.png"):
            with Image.open(tmp_path / name) as stored:
                assert stored.mode == mode
            assert read_label_png(tmp_path / name).tolist() == labels.tolist()


def test_colours_are_those_of_voc(tmp_path: Path) -> None:
    write_label_png(tmp_path / "a.png", np.arange(256).reshape(16, 16))
    with Image.open(tmp_path / "a.png") as stored:
        np.testing.assert_array_equal(np.asarray(stored.convert("RGB")).reshape(256, 3), voc_palette())
        np.testing.assert_array_equal(np.asarray(stored).ravel(), np.arange(256))


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        (np.zeros((1, 2, 2), int), ShapeError, "1x2x2"),
        (np.zeros((0, 2), int), ShapeError, "0x2"),
        (3, ShapeError, "single number"),
        (np.zeros((2, 2)), InputError, "float64"),
        (np.zeros((2, 2), bool), InputError, "bool"),
        (np.array([[0, -1]]), InputError, "-1 to 0"),
        (np.array([[0, 65536]]), InputError, "65536"),
    ],
)
def test_arrays_that_are_no_labels_are_refused(tmp_path: Path, labels: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        write_label_png(tmp_path / "a.png", labels)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_label_png(tmp_path / "a.png", [[1, 2]])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_label_png(tmp_path / "a.png", [[3, 4]])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert read_label_png(tmp_path / "a.png").tolist() == [[1, 2]]


def test_indexed_png_of_any_depth_and_8_bit_grey_are_read(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 3]], dtype=np.uint8))
    image.save(tmp_path / "grey.png")
    image.putpalette(voc_palette(4).tobytes())
    image.save(tmp_path / "two_bit.png", bits=2)
    assert read_label_png(tmp_path / "grey.png").tolist() == [[0, 1, 3]]
    assert read_label_png(tmp_path / "two_bit.png").tolist() == [[0, 1, 3]]


def test_images_that_hold_no_labels_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    Image.new("1", (2, 2)).save(tmp_path / "one_bit.png")
    Image.new("L", (2, 2)).save(tmp_path / "jpeg.png", format="JPEG")
    for name in ("rgb.png", "one_bit.png", "jpeg.png"):
        with pytest.raises(ImageError, match=f"indexed PNG.*{name}"):
            read_label_png(tmp_path / name)
    with pytest.raises(ImageError, match="nothing there"):
        read_label_png(tmp_path / "no.png")


def test_hostile_file_is_refused_as_label_map(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_texts(60))
    with pytest.raises(ImageError, match="32 MiB of metadata"):
        read_label_png(tmp_path / "a.png")


def test_out_of_memory_is_not_reported_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "a.png")

    def run_out(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("cliper.formats.label_png.np.asarray", run_out)
    with pytest.raises(ResourceError, match="memory ran out"):
        read_label_png(tmp_path / "a.png")
