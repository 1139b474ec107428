"""A gallery of a run: one folder of pages that open from disk, without a server or a network.

A page's pictures come in a script, because pages from disk may load scripts but not data, and the labels in it as run
lengths, because such pages may draw pictures but not read them back.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cliper.files import dumps, read_json, to_utf8, write_json, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.palette import voc_palette

__all__ = ["GALLERY", "gallery_card"]

# Longest side of a thumbnail in pixels, and its quality as a JPEG.
_SIDE, _QUALITY = 360, 82

_IMAGES_PER_PAGE = 48


def gallery_card(picture: Image.Image, labels: npt.NDArray[Any], name: str) -> dict[str, Any]:
    """What the gallery knows of one picture.

    Args:
        picture: RGB.
        labels: [H, W] integers of the picture's size.
        name: shown below it.

    Returns:
        ``name``; ``size``, the picture's; ``image``, the thumbnail as a data address; ``grid``, the thumbnail's width
        and height; ``runs``, the thumbnail's labels in reading order, label and length in turn; ``areas``, label and
        share of the picture in turn, largest first.
    """
    width, height = picture.size
    scale = min(1.0, _SIDE / max(width, height))
    grid = max(1, round(width * scale)), max(1, round(height * scale))
    stream = io.BytesIO()
    picture.resize(grid, Image.Resampling.BOX, reducing_gap=None).save(stream, format="JPEG", quality=_QUALITY)

    columns = ((np.arange(grid[0]) + 0.5) * width / grid[0]).astype(np.int64)
    rows = ((np.arange(grid[1]) + 0.5) * height / grid[1]).astype(np.int64)
    small = labels[np.ix_(rows, columns)].ravel()
    ends = np.concatenate([np.flatnonzero(small[1:] != small[:-1]) + 1, [small.size]])
    runs = np.stack([small[ends - 1], np.diff(ends, prepend=0)], axis=1)

    counts = np.bincount(labels.ravel())
    order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    areas = [value for label in order for value in (label, round(int(counts[label]) / labels.size, 5))]
    return {
        "name": to_utf8(name),
        "size": [width, height],
        "image": "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii"),
        "grid": list(grid),
        "runs": runs.ravel().tolist(),
        "areas": areas,
    }


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_json(path, gallery_card(result.image, result.labels, info.name))


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    place = folder / "gallery"
    paths: list[Path] = []
    count = 0
    rest = iter(outputs)
    while some := list(islice(rest, _IMAGES_PER_PAGE)):
        count += len(some)
        paths.append(place / "pages" / f"{len(paths) + 1}.js")
        cards = ",\n".join(dumps(read_json(output.path, dict)) for output in some)
        write_text(paths[-1], f"showPage({len(paths)}, [\n{cards}\n]);\n")
    index = place / "index.html"
    write_text(index, _index(classes, pages=len(paths), pictures=count))
    return [index, *paths]


def _index(classes: Sequence[str], *, pages: int, pictures: int) -> str:
    about = {
        "classes": ["background", *map(to_utf8, classes)],
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in voc_palette(len(classes) + 1).tolist()],
        "pages": pages,
        "pictures": pictures,
    }
    template = (resources.files("cliper") / "assets" / "gallery.html").read_text(encoding="utf-8")
    # Inside a script element nothing may look like its end.
    return template.replace("/*RUN*/", dumps(about).replace("<", "\\u003c"))


GALLERY = Format(
    "gallery",
    ".gallery.json",
    "pages to look through: gallery/index.html for the run",
    _write,
    _merge,
    merged_files=("gallery/index.html", "gallery/pages/*.js"),
)
