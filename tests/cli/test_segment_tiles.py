"""``cliper segment --tile``, and rasters from file to file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cliper.images.loading
from cliper.formats import read_label_png
from cliper.raster import Tiling, segment_tiled

CLASSES = "dog; green grass; person: man, woman"


@pytest.fixture
def large(tmp_path: Path, make_image: Any) -> Path:
    make_image(150, 120, seed=4).save(tmp_path / "large.png")
    return tmp_path / "large.png"


def test_image_in_tiles(command: Any, own_tiny: Any, clip_folder: Path, large: Path, tmp_path: Path) -> None:
    flags = ["--tile", 64, "--tile-overlap", 0.25]
    ended = command("segment", large, "-c", CLASSES, "-m", clip_folder, *flags, "-o", tmp_path / "out", "--json")
    assert (ended.code, ended.err.count("\n")) == (0, 0)
    with Image.open(large) as image:
        expected = segment_tiled(own_tiny, image.convert("RGB"), CLASSES, tiling=Tiling(64, 0.25))
        assert not np.array_equal(expected.labels, own_tiny(image, CLASSES).labels)
    assert np.array_equal(read_label_png(tmp_path / "out" / "large.labels.png"), expected.labels)
    assert (tmp_path / "out" / "large.overlay.png").is_file()
    assert json.loads(ended.out)["areas"] == expected.areas


@pytest.mark.parametrize("name", ["out.tif", "out.gpkg"])
def test_raster_from_file_to_file(command: Any, clip_folder: Path, large: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("rasterio")
    arguments = ["segment", large, "-c", CLASSES, "-m", clip_folder, "--tile", 64]
    ended = command(*arguments, "--bands", "3,2,1", "-o", tmp_path / name)
    assert (ended.code, ended.err) == (0, "")
    assert f"wrote {tmp_path / name}" in ended.out
    assert f"{large}  150x120, " in ended.out
    assert (tmp_path / name).is_file()


def test_image_above_the_pixel_limit(
    command: Any, clip_folder: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Any
) -> None:
    monkeypatch.setattr(cliper.images.loading.load_image, "__kwdefaults__", {"max_pixels": 10_000})
    out = tmp_path / "out"
    arguments = ["segment", large, "-c", CLASSES, "-m", clip_folder, "-o", out]
    if sys.modules.get("rasterio") is None and not _has_rasterio():
        ended = command(*arguments)
        assert (ended.code, "pip install 'cliper[geo]'" in ended.err) == (1, True)
        return
    ended = command(*arguments)
    assert ended.code == 0
    assert "expected an image of at most 0.01 megapixels" in ended.err
    assert "large.labels.tif" in tree(out)
    assert "large.labels.png" not in tree(out)
    ended = command(*arguments[:-1], tmp_path / "one.png")
    assert (ended.code, (tmp_path / "one.png").exists()) == (1, False)


def _has_rasterio() -> bool:
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tile", 8], "tile: expected at least 32 pixels, got 8"),
        (["--tile", 64, "--tile-overlap", 1], "expected a share of the tile from 0 to 0.9, got 1"),
        (["--bands", "1,2,3"], "--bands: it is for rasters that are written as .tif or .gpkg"),
        (["-o", "out.tif", "-f", "overlay"], "out.tif holds labels or polygons only"),
        (["-o", "out.gpkg", "--scores"], "out.gpkg holds labels or polygons only"),
        (["-o", "out.tif", "--bands", "red"], "--bands: expected numbers such as 4,3,2, got 'red'"),
    ],
)
def test_options_that_do_not_fit(
    command: Any,
    clip_folder: Path,
    large: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[Any],
    message: str,
) -> None:
    if "out.tif" in flags or "out.gpkg" in flags:
        pytest.importorskip("rasterio")
    monkeypatch.chdir(tmp_path)
    ended = command("segment", large, "-c", CLASSES, "-m", clip_folder, *flags)
    assert (ended.code, message in ended.err) == (2, True), ended.err


def test_missing_extra(
    command: Any, clip_folder: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    ended = command("segment", large, "-c", CLASSES, "-m", clip_folder, "-o", tmp_path / "out.tif")
    assert (ended.code, "pip install 'cliper[geo]'" in ended.err) == (2, True)
    assert not (tmp_path / "out.tif").exists()
