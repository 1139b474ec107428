"""Images too large for one pass: segmented in overlapping tiles, from and to georeferenced rasters.

:mod:`~cliper.raster.tiles` blends the class maps of tiles, :mod:`~cliper.raster.reader` reads rasters row by row,
:mod:`~cliper.raster.writer` writes label maps and polygons, :mod:`~cliper.raster.segment` does all of it for a file.
"""

from cliper.raster.reader import RasterReader, open_raster
from cliper.raster.segment import RASTER_SUFFIXES, RasterResult, check_installed, segment_raster
from cliper.raster.tiles import Tiling, segment_tiled, tile_maps

__all__ = [
    "RASTER_SUFFIXES",
    "RasterReader",
    "RasterResult",
    "Tiling",
    "check_installed",
    "open_raster",
    "segment_raster",
    "segment_tiled",
    "tile_maps",
]
