"""From a raster of any size to a file of labels or polygons."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cliper.errors import ImageError, InputError, OutputError, quote_path
from cliper.files import atomic_write
from cliper.raster.reader import import_rasterio, open_raster
from cliper.raster.tiles import Tiling, tile_maps
from cliper.raster.writer import import_pyogrio, write_category_names, write_labels, write_polygons

if TYPE_CHECKING:
    from torch import Tensor

    from cliper.prompts import Classes
    from cliper.segmenter import Segmenter
    from cliper.settings import Settings

__all__ = ["RASTER_SUFFIXES", "RasterResult", "check_installed", "segment_raster"]

RASTER_SUFFIXES = (".tif", ".tiff", ".gpkg")
"""Of the files that :func:`segment_raster` writes."""

_STRIP = 2**20  # pixels of labels in memory; arrays of 32 MiB, malloc's threshold, would fragment the heap
_MAX_TILE_ROW = 2**28  # pixels of a row of tiles


@dataclass(frozen=True)
class RasterResult:
    """What was found in a raster: its size, and by class the share of the pixels with data, and the confidence."""

    width: int
    height: int
    areas: dict[str, float]
    confidence: dict[str, float]


def segment_raster(
    segmenter: Segmenter,
    path: str | Path,
    out: str | Path,
    classes: Classes,
    background: Classes | None = "auto",
    *,
    tiling: Tiling | None = None,
    bands: Sequence[int] = (),
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> RasterResult:
    """Segment a raster in tiles, in memory that does not grow with its height, and write labels or polygons.

    Labels are those of the whole raster, as :func:`.segment_tiled` gives them: a class has one confidence and one range
    of scores in all tiles.

    Args:
        segmenter: runs on each tile.
        path: a TIFF, PNG or JPEG.
        out: ``.tif`` or ``.tiff`` for a GeoTIFF of labels, and a file ``.aux.xml`` with the names of classes; ``.gpkg``
            for polygons.
        classes: as for :meth:`cliper.Segmenter.__call__`.
        background: as for :meth:`cliper.Segmenter.__call__`.
        tiling: None is ``Tiling()``.
        bands: as for :func:`.open_raster`.
        on_tile: called with the number of tiles done and of all tiles.

    Raises:
        MissingExtraError: rasterio, or for polygons pyogrio, is not installed.
        ImageError, InputError: as :func:`.open_raster`; or ``out`` is the raster itself.
        OutputError: the file cannot be written; nothing is left of it then.
        ClassListError, ResourceError: as :meth:`cliper.Segmenter.__call__`.
    """
    from cliper.ops import class_confidence
    from cliper.prompts import parse_classes

    tiling, out = tiling or Tiling(), Path(out)
    suffix, names = out.suffix.lower(), [item.name for item in parse_classes(classes)]
    if suffix not in RASTER_SUFFIXES:
        raise OutputError(f"{quote_path(out)}: expected a name ending in {', '.join(RASTER_SUFFIXES)}")
    if out.resolve() == Path(path).resolve():
        raise InputError(f"{quote_path(out)} is the raster itself; give another name")
    check_installed(out)
    with open_raster(path, bands) as reader:
        if reader.width * min(tiling.size, reader.height) > _MAX_TILE_ROW:
            raise ImageError(
                f"expected a row of tiles of at most {_MAX_TILE_ROW / 1e6:.0f} megapixels, got {reader.width} x "
                f"{tiling.size}: {quote_path(path)}; lower --tile"
            )
        maps, refined = tile_maps(segmenter, reader, classes, background, tiling, on_tile)
        confidence = class_confidence(refined, maps).tolist()
        strips = _strips(maps, refined, (reader.height, reader.width), segmenter.settings)
        if suffix == ".gpkg":
            with tempfile.TemporaryDirectory(prefix="cliper-") as folder:
                labels = Path(folder) / "labels.tif"
                counts = write_labels(labels, reader, strips, names, out)
                write_polygons(out, labels, names)
        else:
            with atomic_write(out) as temporary:
                counts = write_labels(temporary, reader, strips, names, out)
            write_category_names(out, names)
    shares = (counts / max(1, counts.sum())).tolist()
    areas, scores = dict(zip(names, shares[1:], strict=True)), dict(zip(names, confidence, strict=True))
    return RasterResult(reader.width, reader.height, areas, scores)


def check_installed(out: Path) -> None:
    """Check that the packages for a file of :func:`segment_raster` are installed. Raises MissingExtraError."""
    import_rasterio()
    if out.suffix.lower() == ".gpkg":
        import_pyogrio()


def _strips(
    maps: Tensor, refined: Tensor, size: tuple[int, int], settings: Settings
) -> Iterator[npt.NDArray[np.integer[Any]]]:
    from cliper.ops import label_strips

    score_threshold, background_threshold = settings.thresholds()
    strips = label_strips(
        refined,
        maps,
        size,
        max(1, _STRIP // size[1]),
        background_threshold=background_threshold,
        score_threshold=score_threshold,
        normalize=settings.normalize,
    )
    for strip in strips:
        yield strip.cpu().numpy()
