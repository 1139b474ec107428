"""A gallery of a run: a folder of HTML pages that open from disk, without a server or a network.

The images of a page are stored in a script, because pages opened from disk may load scripts but no other data, and
label maps as run lengths, because such pages may not read pixels of images.
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
from PIL import Image

from cliper.files import dumps, to_utf8, write_json, write_text
from cliper.formats.base import Format, FormatOptions, ImageInfo, ImageOutput, LabeledImage
from cliper.formats.palette import hex_colours

__all__ = ["GALLERY", "gallery_card"]

# Longest side of an image in pixels, and its JPEG quality: it is shown small, and enlarged.
_IMAGE_SIDE, _IMAGE_QUALITY = 640, 82

_IMAGES_PER_PAGE = 48
_MAX_FAILURES = 1000  # that are listed


def gallery_card(result: LabeledImage, name: str) -> dict[str, Any]:
    """The gallery's data of one image.

    Args:
        result: what to show.
        name: shown below the image.

    Returns:
        ``name``; ``size``, width and height of the image; ``image``, a smaller copy as a data URL; ``grid``, width and
        height of the copy; ``runs``, the copy's labels in reading order, alternately label and run length;
        ``areas``, alternately label and share of the image, largest first.
    """
    width, height = result.image.size
    scale = min(1.0, _IMAGE_SIDE / max(width, height))
    grid = max(1, round(width * scale)), max(1, round(height * scale))
    stream = io.BytesIO()
    copy = result.image.resize(grid, Image.Resampling.BOX, reducing_gap=None)
    copy.save(stream, format="JPEG", quality=_IMAGE_QUALITY)

    columns = ((np.arange(grid[0]) + 0.5) * width / grid[0]).astype(np.int64)
    rows = ((np.arange(grid[1]) + 0.5) * height / grid[1]).astype(np.int64)
    small = result.labels[np.ix_(rows, columns)].ravel()
    ends = np.concatenate([np.flatnonzero(small[1:] != small[:-1]) + 1, [small.size]])
    runs = np.stack([small[ends - 1], np.diff(ends, prepend=0)], axis=1)

    counts = np.bincount(result.labels.ravel())
    order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    areas = [value for label in order for value in (label, round(int(counts[label]) / result.labels.size, 5))]
    return {
        "name": to_utf8(name),
        "size": [width, height],
        "image": "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii"),
        "grid": list(grid),
        "runs": runs.ravel().tolist(),
        "areas": areas,
    }


def _write(result: LabeledImage, path: Path, info: ImageInfo, options: FormatOptions) -> None:
    write_json(path, gallery_card(result, info.name))


def _merge(outputs: Iterable[ImageOutput], folder: Path, classes: Sequence[str], options: FormatOptions) -> list[Path]:
    index = folder / "gallery" / "index.html"
    pages: list[Path] = []
    labels: list[list[int]] = []  # of each page
    counts = [0] * (len(classes) + 1)  # images with each label
    images = 0
    rest = iter(outputs)
    while batch := list(islice(rest, _IMAGES_PER_PAGE)):
        images += len(batch)
        pages.append(index.parent / "pages" / f"{len(pages) + 1}.js")
        cards = [output.read_json(dict) for output in batch]
        found = []
        for output, card in zip(batch, cards, strict=True):
            with output.reading():
                found += card["areas"][::2]
                for label in card["areas"][::2]:
                    counts[label] += 1
        labels.append(sorted(set(found)))
        text = ",\n".join(map(dumps, cards))
        write_text(pages[-1], f"showPage({len(pages)}, [\n{text}\n]);\n")
    write_text(index, _index_html(classes, labels, counts, images))
    return [index, *pages]


def _write_failed(failures: Iterable[tuple[str, str]], folder: Path) -> list[Path]:
    """``failed.js``, a list of images and reasons; none if there are none."""
    rest = iter(failures)
    listed = [[to_utf8(name), to_utf8(reason)] for name, reason in islice(rest, _MAX_FAILURES)]
    count = len(listed) + sum(1 for _ in rest)
    path = folder / "gallery" / "failed.js"
    if listed:
        write_text(path, f"showFailed({count}, {dumps(listed)});\n")
    return [path] if listed else []


def _index_html(classes: Sequence[str], pages: list[list[int]], counts: list[int], images: int) -> str:
    run = {
        "classes": ["background", *map(to_utf8, classes)],
        "colours": hex_colours(len(classes) + 1),
        "pages": pages,
        "counts": counts,
        "images": images,
    }
    template = (resources.files("cliper") / "assets" / "gallery.html").read_text(encoding="utf-8")
    # Inside a script element nothing may look like the end of it.
    return template.replace("/*RUN*/", dumps(run).replace("<", "\\u003c"))


GALLERY = Format(
    "gallery",
    ".gallery.json",
    "pages to look through: gallery/index.html for the run",
    _write,
    _merge,
    merged_files=("gallery/index.html", "gallery/failed.js", "gallery/pages/*.js"),
    shows_image=True,
    write_failed=_write_failed,
)
