"""Class maps of overlapping tiles, blended."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cliper
from cliper.errors import InputError, ShapeError
from cliper.ops import TileBlender, assign_labels, label_strips, tile_starts
from cliper.raster import Tiling, segment_tiled, tile_maps
from segmenter_helpers import CLASSES, assert_same


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(100, 20, 0.5), (101, 20, 0.25), (40, 20, 0), (41, 20, 0.9), (7, 20, 0.5)]
)
def test_tiles_cover_the_length(length: int, tile: int, overlap: float) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    assert all(0 < b - a <= tile for a, b in itertools.pairwise(starts))


def test_equal_tiles_blend_to_themselves() -> None:
    whole = torch.rand(2, 9, 11)
    blender = TileBlender(2, (9, 11), torch.device("cpu"))
    for top in tile_starts(9, 4, 0.5):
        for left in tile_starts(11, 6, 0.25):
            blender.add(whole[:, top : top + 4, left : left + 6], top, left, (4, 6))
    torch.testing.assert_close(blender.blended(), whole)


def test_weights_fade_to_the_border() -> None:
    blender = TileBlender(1, (1, 6), torch.device("cpu"))
    blender.add(torch.zeros(1, 1, 4), 0, 0, (1, 4))
    blender.add(torch.ones(1, 1, 4), 0, 2, (1, 4))
    assert blender.blended()[0, 0].tolist() == pytest.approx([0, 0, 0.25, 0.75, 1, 1])


def test_tile_outside_of_the_image() -> None:
    with pytest.raises(ShapeError, match="expected a tile within"):
        TileBlender(1, (4, 4), torch.device("cpu")).add(torch.zeros(1, 3, 3), 2, 0, (3, 3))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("background_threshold", [0.0, 0.4])
def test_strips_are_the_rows_of_the_label_map(normalize: bool, background_threshold: float) -> None:
    refined = torch.rand(4, 13, 17)
    options: Any = {"normalize": normalize, "background_threshold": background_threshold, "score_threshold": 0.3}
    expected = assign_labels(refined, refined, (300, 410), **options)
    strips = list(label_strips(refined, refined, (300, 410), 64, **options))
    assert [len(strip) for strip in strips] == [64] * 4 + [44]
    assert (torch.cat(strips) != expected).float().mean() < 1e-4  # rounding
    assert len(expected.unique()) > 3


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [(16, 0.5, "at least 32 pixels"), (64, 0.95, "share of the tile"), (64, -1, "share")],
)
def test_tiling_out_of_range(size: int, overlap: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tiling(size, overlap)


def test_image_within_one_tile_is_segmented_as_a_whole(own_tiny: cliper.Segmenter, make_image: Any) -> None:
    image = make_image(90, 60)
    assert_same(segment_tiled(own_tiny, image, CLASSES, tiling=Tiling(96)), own_tiny(image, CLASSES))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("edge_weight", [0, 4])
def test_repeated_tile_gives_repeated_maps(
    own_tiny: cliper.Segmenter, make_image: Any, monkeypatch: pytest.MonkeyPatch, batch_size: int, edge_weight: float
) -> None:
    """Without overlap, each tile of a mosaic has the maps of its part."""
    monkeypatch.setattr(own_tiny, "batch_size", batch_size)
    segmenter = own_tiny.with_settings(own_tiny.settings.replace(edge_weight=edge_weight))
    part = make_image(64, 64, seed=3)
    image = Image.fromarray(np.tile(np.asarray(part), (2, 3, 1)))
    tiled, alone = segment_tiled(segmenter, image, CLASSES, tiling=Tiling(64, 0)), segmenter(part, CLASSES)
    assert np.abs(tiled.refined - np.tile(alone.refined, (1, 2, 3))).max() < 1e-5  # other sizes of batches
    assert np.abs(tiled.maps - np.tile(alone.maps, (1, 2, 3))).max() < 1e-5
    assert tiled.labels.shape == (128, 192)
    assert tiled.image.size == image.size


def test_tiles_without_data_are_left_out(own_tiny: cliper.Segmenter, make_image: Any) -> None:
    class Source:
        width, height = 256, 128
        image = np.asarray(make_image(256, 128))

        def read(self, top: int, bottom: int) -> Any:
            return self.image[top:bottom]

        def valid(self, top: int, bottom: int) -> Any:
            valid = np.zeros((bottom - top, 256), bool)
            valid[:, 200:] = True
            return valid

    seen: list[tuple[int, int]] = []
    _, refined = tile_maps(own_tiny, Source(), CLASSES, None, Tiling(64, 0), lambda *number: seen.append(number))
    assert not refined[..., :12].any()  # four cells a tile
    assert refined[..., 12:].amax((0, 1)).all()
    assert len(seen) == 2


def test_cells_grow_with_the_image(
    own_tiny: cliper.Segmenter, make_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliper.raster.tiles._MAX_CELLS", 3 * 8 * 8)
    result = segment_tiled(own_tiny, make_image(256, 256), CLASSES, tiling=Tiling(64))
    assert result.refined.shape == (3, 8, 8)


@pytest.mark.parametrize("overlap", [0, 0.02, 0.25, 0.9])
@pytest.mark.parametrize("height", [71, 99, 169, 638, 700])
def test_every_row_lies_in_a_tile(
    own_tiny: cliper.Segmenter, monkeypatch: pytest.MonkeyPatch, height: int, overlap: float
) -> None:
    """Of heights at which the number of cells is rounded down, and up."""

    class Source:
        width = 64

        def __init__(self) -> None:
            self.height, self.next = height, 0

        def read(self, top: int, bottom: int) -> Any:
            assert top == self.next
            assert bottom <= height
            self.next = bottom
            return np.full((bottom - top, 64, 3), np.arange(top, bottom)[:, None, None])

        def valid(self, top: int, bottom: int) -> None:
            return None

    tiles = []

    def predict(segmenter: Any, pixels: Any, columns: list[int], *_: Any) -> Any:
        for _column in columns:
            tiles.append(pixels[:, 0, 0].tolist())
            yield torch.ones(1, 21, 21), torch.ones(1, 21, 21)

    monkeypatch.setattr("cliper.raster.tiles._predict", predict)
    maps, _ = tile_maps(own_tiny, Source(), CLASSES, None, Tiling(64, overlap))
    assert all(rows == list(range(rows[0], rows[0] + 64)) for rows in tiles)
    assert set().union(*tiles) == set(range(height))
    assert maps.amin() > 0.99


@pytest.mark.full
def test_seams_are_invisible() -> None:
    """Of the bundled checkpoint, for tiles offset by half a tile, and by half the distance from tile to tile."""
    segmenter = cliper.Segmenter.from_pretrained("mini", device="cpu")
    photo = Image.open(cliper.example_photo()).convert("RGB")
    image, tiling, classes = photo.resize((1536, 996)), Tiling(512), ["horse", "grass", "sky"]
    whole = segment_tiled(segmenter, image, classes, "none", tiling).labels
    for offset in (256, 128):
        moved = segment_tiled(segmenter, image.crop((offset, offset, *image.size)), classes, "none", tiling).labels
        assert (moved == whole[offset:, offset:]).mean() > 0.98
