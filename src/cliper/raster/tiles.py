"""Class maps of an image of any size from overlapping tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from cliper.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from cliper.prompts import Classes
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["PixelSource", "Tiling", "segment_tiled", "tile_maps"]

_MIN_TILE = 32
_MAX_CELLS = 2**27  # numbers in the class maps of the whole image: 512 MiB; above it, cells are larger


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles.

    Args:
        size: side of a tile in pixels, 32 or more; each tile is resized to the settings' ``size``.
        overlap: of neighbouring tiles, as a share of a tile, 0 to 0.9.

    Raises:
        InputError: a value out of range.
    """

    size: int = 1024
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.size < _MIN_TILE:
            raise InputError(f"tile: expected at least {_MIN_TILE} pixels, got {self.size}")
        if not 0 <= self.overlap <= 0.9:
            raise InputError(f"tile overlap: expected a share of the tile from 0 to 0.9, got {self.overlap:g}")


class PixelSource(Protocol):
    """An image that is read row by row, from the top."""

    width: int
    height: int

    def read(self, top: int, bottom: int) -> npt.NDArray[np.uint8]:
        """[bottom - top, W, 3], RGB. ``top`` is not above the end of the last call."""

    def valid(self, top: int, bottom: int) -> npt.NDArray[np.bool_] | None:
        """[bottom - top, W], which pixels have data; None if all have."""


class _ArraySource:
    def __init__(self, image: Image.Image) -> None:
        self.width, self.height = image.size
        self._image = image

    def read(self, top: int, bottom: int) -> npt.NDArray[np.uint8]:
        return np.asarray(self._image.crop((0, top, self.width, bottom)))

    def valid(self, top: int, bottom: int) -> None:
        return None


def segment_tiled(
    segmenter: Segmenter,
    image: Image.Image,
    classes: Classes,
    background: Classes | None = "auto",
    tiling: Tiling | None = None,
) -> Segmentation:
    """Segment an image in tiles: finer than in one pass, which reduces the whole image to the settings' ``size``.

    Args:
        segmenter: runs on each tile.
        image: as :func:`cliper.images.load_image` gives it.
        classes: as for :meth:`cliper.Segmenter.__call__`.
        background: as for :meth:`cliper.Segmenter.__call__`.
        tiling: None is ``Tiling()``.

    Raises:
        ClassListError, ResourceError: as :meth:`cliper.Segmenter.__call__`.
    """
    maps, refined = tile_maps(segmenter, _ArraySource(image), classes, background, tiling or Tiling())
    return segmenter.assign_labels(image, classes, maps, refined)


def tile_maps(
    segmenter: Segmenter,
    source: PixelSource,
    classes: Classes,
    background: Classes | None,
    tiling: Tiling,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Tensor, Tensor]:
    """Class maps of a whole image before and after refinement, blended from those of its tiles.

    In memory are a row of tiles, and the maps: a cell for each of a tile's, or larger cells if they would take more
    than 512 MiB. Tiles without valid pixels are left out.

    Args:
        segmenter, classes, background, tiling: as for :func:`segment_tiled`.
        source: the image.
        on_tile: called with the number of tiles done and of all tiles.

    Returns:
        [C, h, w] and [C, S, S'] float32.
    """
    height, width = min(tiling.size, source.height), min(tiling.size, source.width)
    rows = _Rows(source, height)
    first = next(_predict(segmenter, rows.pixels, [0], width, classes, background))  # all have its shape
    if (height, width) == (source.height, source.width):
        return first
    # Without a refiner both maps are one.
    grids = [_Grid(maps, source, (height, width)) for maps in (first if first[0] is not first[1] else first[:1])]
    tops, lefts = grids[-1].tile_starts(tiling.overlap)
    for index, top in enumerate(tops):
        rows.move(top)
        valid = rows.valid
        columns = [left for left in lefts if valid is None or valid[:, left : left + width].any()]
        found = _predict(segmenter, rows.pixels, columns, width, classes, background)
        for number, (left, maps) in enumerate(zip(columns, found, strict=True)):
            for grid, one in zip(grids, maps[-len(grids) :], strict=True):
                grid.add(one, top, left)
            on_tile(index * len(lefts) + number + 1, len(tops) * len(lefts))
    blended = [grid.blender.blended() for grid in grids]
    return blended[0], blended[-1]


class _Rows:
    """The rows of a source in which a row of tiles lies; each is read at most once."""

    def __init__(self, source: PixelSource, height: int) -> None:
        self._source, self._top = source, 0
        self.pixels = source.read(0, height)
        self.valid = source.valid(0, height)

    def move(self, top: int) -> None:
        """Move down to ``top``."""
        height = len(self.pixels)
        if top > self._top:
            new = self._source.read(max(self._top + height, top), top + height)
            self.pixels = np.concatenate([self.pixels[top - self._top :], new])
            self.valid = self._source.valid(top, top + len(self.pixels))
            self._top = top


class _Grid:
    """The cells of class maps: of a tile, and of the whole image."""

    def __init__(self, maps: Tensor, source: PixelSource, tile: tuple[int, int]) -> None:
        from cliper.ops import TileBlender

        size = (source.height, source.width)
        cells = (maps.shape[1], maps.shape[2])
        numbers = len(maps) * math.prod(n * full / part for n, full, part in zip(cells, size, tile, strict=True))
        shrink = min(1.0, math.sqrt(_MAX_CELLS / numbers))
        self._tile_pixels, self._pixels = tile, size
        self._tile = (max(1, int(cells[0] * shrink)), max(1, int(cells[1] * shrink)))
        self._whole = [round(n * full / part) for n, full, part in zip(self._tile, size, tile, strict=True)]
        self.blender = TileBlender(len(maps), (self._whole[0], self._whole[1]), maps.device)

    def tile_starts(self, overlap: float) -> list[list[int]]:
        """Rows and columns in pixels at which tiles begin: those of cells."""
        from cliper.ops import tile_starts

        found = []
        for whole, tile, pixels, part in zip(self._whole, self._tile, self._pixels, self._tile_pixels, strict=True):
            # The number of cells is rounded: a tile's cells may be more pixels than a tile has.
            cells = max(1, min(tile, part * whole // pixels))
            starts = [min(round(cell * pixels / whole), pixels - part) for cell in tile_starts(whole, cells, overlap)]
            found.append(starts if starts[-1] == pixels - part else [*starts, pixels - part])
        return found

    def add(self, maps: Tensor, top: int, left: int) -> None:
        """Add the maps of the tile at pixel (top, left)."""
        starts = zip((top, left), self._whole, self._tile, self._pixels, strict=True)
        row, column = (min(round(start * n / pixels), n - m) for start, n, m, pixels in starts)
        self.blender.add(maps, row, column, self._tile)


def _predict(
    segmenter: Segmenter,
    pixels: npt.NDArray[np.uint8],
    columns: list[int],
    width: int,
    classes: Classes,
    background: Classes | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Class maps of the tiles at columns of a row of tiles."""
    from PIL import Image

    for start in range(0, len(columns), segmenter.batch_size):
        batch = columns[start : start + segmenter.batch_size]
        images = [Image.fromarray(np.ascontiguousarray(pixels[:, left : left + width])) for left in batch]
        for one in segmenter.encode_images(images, [segmenter.preprocess(image) for image in images]):
            yield segmenter.predict_maps(one, classes, background)
