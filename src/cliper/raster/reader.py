"""Rasters read row by row as 8-bit RGB, by rasterio."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cliper.errors import ImageError, InputError, MissingExtraError, quote_path, reraise
from cliper.images import check_file

__all__ = ["RasterReader", "import_rasterio", "open_raster"]

# GDAL reads many more formats, some of which refer to other files or addresses. Of these three it never holds more
# than a block, a scan or, of an interlaced PNG, 100 MB in memory.
_DRIVERS = {"TIFF": "GTiff", "PNG": "PNG", "JPEG": "JPEG"}
_MAX_BLOCK = 2**28  # bytes of a strip or tile, all bands
_MAX_ROW = 2**20  # pixels
_STATISTICS = 1024  # pixels a side at most of the reduced raster whose percentiles are taken
_PERCENTILES = (2, 98)
_OPTIONS = {"GDAL_CACHEMAX": 64 * 2**20, "GDAL_PAM_ENABLED": False}  # bytes; no files are written beside the raster


def import_rasterio() -> Any:
    """The package rasterio. Raises MissingExtraError."""
    try:
        import rasterio
    except ImportError:
        raise MissingExtraError("rasters need rasterio, which is not installed; pip install 'cliper[geo]'") from None
    return rasterio


@contextlib.contextmanager
def open_raster(path: str | Path, bands: Sequence[int] = ()) -> Iterator[RasterReader]:
    """Open a GeoTIFF, or another TIFF, PNG or JPEG of any number of pixels.

    Args:
        path: a file.
        bands: numbers from 1 of the bands that are red, green and blue, or of one that is shown in grey. By default the
            first three, or the first if there are less.

    Raises:
        MissingExtraError: rasterio is not installed.
        ImageError: the file is none of these, is damaged, or cannot be read in parts.
        InputError: bands that it does not have.
    """
    rasterio = import_rasterio()
    name = quote_path(path)
    driver = _DRIVERS.get(check_file(path))
    if driver is None:
        raise ImageError(f"expected a TIFF, PNG or JPEG to read in parts, got another format: {name}; convert it")
    message = f"expected a raster that can be read, got {name}"
    with rasterio.Env(**_OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with reraise(rasterio.errors.RasterioError, ImageError, message, "fetch or export it again"):
            dataset = rasterio.open(Path(path).absolute(), driver=driver)
        with dataset:
            yield RasterReader(dataset, bands, name)


class RasterReader:
    """A raster that is open: ``width``, ``height``, and its rows as RGB; a :class:`.PixelSource`.

    8-bit values stay as they are, and palettes are applied. Values of other types are stretched: for each band, the 2nd
    to the 98th percentile of the valid values of the raster reduced to 1024 pixels become 0 to 255.
    """

    def __init__(self, dataset: Any, bands: Sequence[int], name: str) -> None:
        self.dataset, self.name = dataset, name
        self.width, self.height = dataset.width, dataset.height
        chosen = tuple(bands) or ((1, 2, 3) if dataset.count >= 3 else (1,))
        if len(chosen) not in (1, 3) or not all(1 <= band <= dataset.count for band in chosen):
            numbers = ",".join(map(str, chosen))
            raise InputError(f"--bands: expected one or three numbers from 1 to {dataset.count}, got {numbers}: {name}")
        self._bands = chosen
        self._check_layout()
        all_valid = [import_rasterio().enums.MaskFlags.all_valid]
        kinds = {dataset.dtypes[band - 1] for band in chosen}
        self._has_nan = any(np.issubdtype(kind, np.floating) for kind in kinds)
        self.has_nodata = self._has_nan or any(flags != all_valid for flags in dataset.mask_flag_enums)
        self._palette = self._read_palette()
        self._ranges = [self._stretch(band) if dataset.dtypes[band - 1] != "uint8" else None for band in chosen]

    def read(self, top: int, bottom: int) -> npt.NDArray[np.uint8]:
        """[bottom - top, W, 3] uint8. Raises ImageError where the raster is cut off or damaged."""
        pixels = np.empty((bottom - top, self.width, 3), np.uint8)
        for channel, (band, extremes) in enumerate(zip(self._bands, self._ranges, strict=True)):
            values = self._read(band, top, bottom)
            if extremes is not None:
                low, high = extremes
                scaled = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
                scaled -= low
                scaled *= 255 / (high - low)
                values = np.rint(scaled.clip(0, 255, out=scaled), out=scaled)
            pixels[..., channel] = values
        if self._palette is not None:
            return self._palette[pixels[..., 0]]
        if len(self._bands) == 1:
            pixels[..., 1:] = pixels[..., :1]
        return pixels

    def valid(self, top: int, bottom: int) -> npt.NDArray[np.bool_] | None:
        """[bottom - top, W]: neither nodata, masked, transparent nor NaN; None if all pixels are valid."""
        if not self.has_nodata:
            return None
        with self._damage():
            valid: npt.NDArray[np.bool_] = self.dataset.dataset_mask(window=self._window(top, bottom)) > 0
        if self._has_nan:
            for band in self._bands:
                valid &= np.isfinite(self._read(band, top, bottom))
        return valid

    def _read(self, band: int, top: int, bottom: int) -> npt.NDArray[Any]:
        with self._damage():
            values: npt.NDArray[Any] = self.dataset.read(band, window=self._window(top, bottom))
        return values

    def _window(self, top: int, bottom: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (top, bottom), (0, self.width)

    def _damage(self) -> contextlib.AbstractContextManager[None]:
        message = f"expected a whole raster, got a truncated or damaged one: {self.name}"
        return reraise(
            (import_rasterio().errors.RasterioError, OSError), ImageError, message, "fetch or export it again"
        )

    def _check_layout(self) -> None:
        dataset = self.dataset
        if self.width > _MAX_ROW:
            raise ImageError(f"expected rows of at most {_MAX_ROW:,} pixels, got {self.width:,}: {self.name}; cut it")
        kinds = [np.dtype(kind) for kind in dataset.dtypes]
        if any(kind.kind == "c" for kind in kinds):
            raise ImageError(f"expected real numbers, got {dataset.dtypes[0]}: {self.name}; write amplitudes first")
        size = max(math.prod(shape) for shape in dataset.block_shapes) * sum(kind.itemsize for kind in kinds)
        if size > _MAX_BLOCK:
            raise ImageError(
                f"expected a raster in blocks of at most {_MAX_BLOCK // 2**20} MiB, got {size // 2**20} MiB: "
                f"{self.name}; tile it first: gdal_translate -co TILED=YES"
            )

    def _read_palette(self) -> npt.NDArray[np.uint8] | None:
        palette = import_rasterio().enums.ColorInterp.palette
        if self._bands != (1,) or self.dataset.colorinterp[0] != palette or self.dataset.dtypes[0] != "uint8":
            return None
        with self._damage():
            colours = self.dataset.colormap(1)
        return np.array([colours.get(index, (0, 0, 0))[:3] for index in range(256)], np.uint8)

    def _stretch(self, band: int) -> tuple[float, float]:
        shape = (min(_STATISTICS, self.height), min(_STATISTICS, self.width))
        with self._damage():
            values = self.dataset.read(band, out_shape=shape, masked=True)
        numbers = values.compressed().astype(np.float64)
        numbers = numbers[np.isfinite(numbers)]
        low, high = np.percentile(numbers, _PERCENTILES).tolist() if len(numbers) else (0.0, 1.0)
        return low, high if high > low else low + 1
