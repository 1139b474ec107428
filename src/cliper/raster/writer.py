"""Label maps as GeoTIFF, and their regions as polygons in a GeoPackage."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from cliper.errors import MissingExtraError, OutputError, quote_path, short_reason
from cliper.files import atomic_write, write_text
from cliper.formats.palette import voc_palette
from cliper.raster.reader import RasterReader, import_rasterio

__all__ = ["import_pyogrio", "write_category_names", "write_labels", "write_polygons"]

_BLOCK = 256


def import_pyogrio() -> Any:
    """The package pyogrio. Raises MissingExtraError."""
    try:
        import pyogrio
    except ImportError:
        raise MissingExtraError("GeoPackages need pyogrio, which is not installed; pip install 'cliper[geo]'") from None
    return pyogrio


def write_labels(
    path: Path, reader: RasterReader, strips: Iterable[npt.NDArray[np.integer[Any]]], classes: Sequence[str], name: Path
) -> npt.NDArray[np.int64]:
    """Write a GeoTIFF of labels: tiled, deflated, with VOC's colours, the classes' names and the raster's reference.

    Labels are uint8, or uint16 for more than 254 classes. Pixels without data have the highest number of that type,
    which is the file's nodata value; a raster in which all pixels are valid has no such value.

    Args:
        path: the file, which is not written atomically.
        reader: the raster; its reference and its valid pixels are taken over.
        strips: [rows, W] labels from the top, as many rows as the raster has.
        classes: C names; label ``i + 1`` is ``classes[i]``.
        name: of the file in error messages.

    Returns:
        [C + 1] numbers of pixels by label, background first.

    Raises:
        OutputError: it cannot be written.
    """
    rasterio = import_rasterio()
    dtype = np.uint8 if len(classes) < 255 else np.uint16
    nodata = int(np.iinfo(dtype).max)
    source, counts, top = reader.dataset, np.zeros(nodata + 1, np.int64), 0
    options: dict[str, Any] = {"nodata": nodata} if reader.has_nodata else {}
    if source.crs is not None:
        options["crs"] = source.crs
    if not source.transform.is_identity:
        options["transform"] = source.transform
    elif source.gcps[0]:
        options |= {"gcps": source.gcps[0], "crs": source.gcps[1]}
    if source.rpcs is not None:
        options["rpcs"] = source.rpcs
    size = {"width": reader.width, "height": reader.height, "count": 1, "dtype": np.dtype(dtype).name}
    layout = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "deflate", "bigtiff": "if_safer"}
    with _write_errors(name), rasterio.open(path, "w", driver="GTiff", **size, **layout, **options) as out:
        colours = voc_palette(len(classes) + 1).tolist()
        out.write_colormap(1, {index: (*colour, 255) for index, colour in enumerate(colours)})
        out.update_tags(1, **{f"LABEL_{i}": name for i, name in enumerate(("background", *classes))})
        for strip in strips:
            rows, labels = len(strip), strip.astype(dtype)
            valid = reader.valid(top, top + rows)
            if valid is not None:
                labels[~valid] = nodata
            out.write(labels, 1, window=((top, top + rows), (0, reader.width)))
            counts += np.bincount(labels.ravel(), minlength=nodata + 1)
            top += rows
    # A full disk is not always reported before the file is closed.
    with _write_errors(name), rasterio.open(path) as written:
        found = sum(
            np.bincount(written.read(1, window=window).ravel(), minlength=nodata + 1)
            for _, window in written.block_windows(1)
        )
    if not np.array_equal(found, counts):
        raise OutputError(f"cannot write {quote_path(name)}: what was written cannot be read; is the disk full?")
    return counts[: len(classes) + 1]


def write_category_names(path: Path, classes: Sequence[str]) -> None:
    """Write ``PATH.aux.xml``, from which GDAL and QGIS take the names of labels. Raises OutputError."""
    names = "".join(f"<Category>{escape(name)}</Category>" for name in ("background", *classes))
    band = f'<PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand>'
    write_text(f"{path}.aux.xml", f"<PAMDataset>{band}</PAMDataset>\n")


def write_polygons(path: Path, labels: Path, classes: Sequence[str]) -> None:
    """Write the regions of a label map as polygons with ``label`` and ``class``, one layer ``labels``.

    Regions are connected along sides. Background and pixels without data have no polygons. Ground control points give
    the affine transform that fits them best. Without a reference coordinates are pixels. All polygons are in memory.

    Args:
        path: the GeoPackage, written atomically.
        labels: a GeoTIFF of :func:`write_labels`.
        classes: as there.

    Raises:
        OutputError: it cannot be written.
    """
    rasterio, pyogrio = import_rasterio(), import_pyogrio()
    from rasterio.features import shapes

    shape_bytes: list[bytes] = []
    numbers: list[int] = []
    with rasterio.open(labels) as dataset:
        points, crs = dataset.gcps if dataset.gcps[0] else ((), dataset.crs)
        # GDAL applies the file's own transform, which it has none of beside points.
        place = rasterio.transform.from_gcps(points) if points else rasterio.Affine.identity()
        for shape, value in shapes(rasterio.band(dataset, 1), connectivity=4, transform=dataset.transform):
            if 0 < value <= len(classes):
                shape_bytes.append(_polygon_wkb(shape["coordinates"], place))
                numbers.append(int(value))
    geometry, values = np.empty(len(numbers), object), np.array(numbers, np.int32)
    geometry[:] = shape_bytes
    names = np.array([classes[number - 1] for number in numbers], object)
    with atomic_write(path) as temporary, _write_errors(path):
        temporary.unlink()
        options: dict[str, Any] = {"layer": "labels", "driver": "GPKG", "geometry_type": "Polygon"}
        options["crs"] = crs.to_wkt() if crs else None
        with _no_crs_warning():
            pyogrio.raw.write(temporary, geometry, [values, names], ["label", "class"], **options)


def _polygon_wkb(rings: Sequence[Sequence[tuple[float, float]]], place: Any) -> bytes:
    """Well-known binary, little-endian, of a polygon moved by an affine transform."""
    parts = []
    for ring in rings:
        x, y = np.array(ring, "<f8").T
        moved = np.stack([place.a * x + place.b * y + place.c, place.d * x + place.e * y + place.f], axis=1)
        parts.append(struct.pack("<I", len(ring)) + moved.tobytes())
    return struct.pack("<BII", 1, 3, len(parts)) + b"".join(parts)


@contextlib.contextmanager
def _no_crs_warning() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        yield


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Errors of GDAL as OutputError."""
    rasterio = import_rasterio()
    errors: tuple[type[Exception], ...] = (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError, RuntimeError)
    try:
        yield
    except errors as error:
        raise OutputError(
            f"cannot write {quote_path(path)}: {short_reason(error)}; is the disk full? free space or write elsewhere"
        ) from None
