"""Tiles and rasters of ``cliper segment``: options, and images that are segmented from file to file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.cli.errors import echo_status, is_quiet
from cliper.cli.help import option, option_group
from cliper.errors import ImageError, ImageSizeError, InputError, MissingExtraError

if TYPE_CHECKING:
    from cliper.prompts import Classes
    from cliper.raster import RasterResult, Tiling
    from cliper.segmenter import Segmenter

__all__ = ["check_raster_out", "read_tiling", "require_packages", "segment_to_file", "tile_options"]

_INTERVAL = 20.0  # seconds between lines of progress

tile_options = option_group(
    "Tiles",
    option(
        "--tile PIXELS",
        "Cut images into overlapping tiles of this side, each seen at --size: finer, and for images of any size.",
        show_default="off; 1024 for GeoTIFF, GeoPackage and images of over 128 megapixels",
    ),
    option("--tile-overlap X", "Overlap of neighbouring tiles, as a share of a tile; less is faster.", default=0.5),
    option(
        "--bands NUMBERS",
        "Bands of a raster that are red, green and blue, such as 4,3,2, or one that is grey.",
        show_default="1,2,3, or 1",
    ),
)
"""``--tile``, ``--tile-overlap`` and ``--bands``."""


def read_tiling(options: dict[str, Any]) -> tuple[Tiling, list[int]]:
    """The tiling of :data:`tile_options`, by default with tiles of 1024 pixels, and the bands. Raises InputError."""
    from cliper.raster import Tiling

    try:
        bands = [int(number) for number in (options["bands"] or "").split(",") if number.strip()]
    except ValueError:
        raise InputError(f"--bands: expected numbers such as 4,3,2, got {options['bands']!r}") from None
    size = Tiling.size if options["tile"] is None else options["tile"]
    return Tiling(size, options["tile_overlap"]), bands


def check_raster_out(out: Path, images: Sequence[Path], formats: Sequence[str]) -> None:
    """Check, before a model is loaded, that one image can be written to a GeoTIFF or GeoPackage.

    Raises:
        InputError: several images, standard input, a format, or the image itself as the result.
        MissingExtraError: a package that is needed is not installed.
    """
    from cliper.raster import check_installed

    check_installed(out)
    if len(images) > 1:
        raise InputError(f"--out: expected a folder for {len(images)} images, got {out}")
    if str(images[0]) == "-":
        raise InputError(f"--out: {out.suffix[1:]} is written from a file, got standard input; name a file")
    if formats:
        raise InputError(f"--format: {out} holds labels or polygons only; leave it out, or name a folder with --out")
    if out.resolve() == images[0].resolve():
        raise InputError(f"{out} is the image itself; give another name with --out")


def require_packages(out: Path, error: ImageSizeError) -> None:
    """Raise ImageError with the reason if an image above the pixel limit cannot be segmented in tiles either."""
    from cliper.raster import check_installed

    try:
        check_installed(out)
    except MissingExtraError as missing:
        raise ImageError(f"{error}, or segment it in tiles: {missing}") from None


def segment_to_file(
    segmenter: Segmenter,
    image: Path,
    out: Path,
    classes: Classes,
    background: Classes | None,
    tiling: Tiling,
    bands: Sequence[int],
) -> RasterResult:
    """Segment a raster in tiles into a GeoTIFF or GeoPackage; errors are those of :func:`.segment_raster`."""
    from cliper.raster import segment_raster

    return segment_raster(
        segmenter, image, out, classes, background, tiling=tiling, bands=bands, on_tile=_progress(image)
    )


def _progress(image: Path) -> Callable[[int, int], None]:
    """Prints a line now and then."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if not is_quiet() and time.monotonic() - last > _INTERVAL:
            last = time.monotonic()
            echo_status(f"{image.name}: {done} of {total} tiles")

    return show
