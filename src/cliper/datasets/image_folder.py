"""Custom data as a benchmark: a folder of images, a folder of masks, a list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cliper.datasets.benchmark import Benchmark, Sample
from cliper.datasets.texts import BenchmarkTexts
from cliper.errors import InputError, quote_path
from cliper.prompts import ClassPrompt

__all__ = ["custom_benchmark"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".heic", ".heif"}


def custom_benchmark(
    images: str | Path,
    masks: str | Path,
    classes: Sequence[ClassPrompt],
    *,
    background: Sequence[ClassPrompt] | str = (),
    ignore: Sequence[int] | None = None,
    offset: int = 0,
    name: str = "custom",
) -> Benchmark:
    """A benchmark of custom data.

    Each image below ``images`` has its mask below ``masks``, in the same subfolder and with the same name and the
    suffix ``.png``. A mask is an indexed PNG, or a grey PNG of 8 or 16 bit. Images are rotated by their EXIF
    orientation: a mask belongs to the image as viewers show it.

    Args:
        images: folder of images, with subfolders.
        masks: folder of masks, with the same subfolders.
        classes: C classes in the order of their values in the masks.
        background: prompts of the background, or ``"auto"``.
        ignore: values of the masks whose pixels are not counted; None means 255, unless 255 is a class. With 0
            among them (and ``offset`` 0) there is no background class.
        offset: 0 if masks hold 0 for background and 1 to C for classes; 1 if they have no background and number
            classes from 0.
        name: name in reports.

    Raises:
        InputError: a folder is missing, there are no classes, a class is called background, or ``offset`` is neither
            0 nor 1.
    """
    image_folder, mask_folder = (Path(folder).expanduser() for folder in (images, masks))
    for kind, folder in (("images", image_folder), ("masks", mask_folder)):
        if not folder.is_dir():
            raise InputError(f"expected a folder of {kind}, got no folder at {quote_path(folder)}; check the path")
    if offset not in (0, 1):
        raise InputError(f"offset: expected 0 (masks hold 0 for background) or 1 (classes from 0), got {offset!r}")
    if not classes:
        raise InputError("expected at least one class, got none; name them in the order of the masks' values")
    names = tuple(item.name for item in classes)
    if any(name.strip().casefold() == "background" for name in names):
        raise InputError("expected classes other than background, which has value 0 in every mask; rename the class")
    if ignore is None:
        ignore = () if 255 in range(1 - offset, len(names) + 1 - offset) else (255,)
    samples = _find_samples(image_folder, mask_folder)
    benchmark = Benchmark(
        name=name,
        title=f"{len(samples)} images of {quote_path(image_folder)}",
        texts=BenchmarkTexts(tuple(classes), background if isinstance(background, str) else tuple(background)),
        class_names=names,
        ignore=(),
        samples=partial(_copy_samples, tuple(samples)),
        accepted_sizes=(len(samples),),
        offset=offset,
        mask_ignore=tuple(ignore),
        apply_exif=True,
    )
    uncounted = (0, benchmark.ignore_label) if offset or 0 in ignore else (benchmark.ignore_label,)
    return replace(benchmark, ignore=uncounted)


def _copy_samples(samples: tuple[Sample, ...], root: Path) -> list[Sample]:
    """The samples; custom data does not depend on the root folder of the published data sets."""
    return list(samples)


def _find_samples(images: Path, masks: Path) -> list[Sample]:
    """Images sorted by path, each with the expected path of its mask.

    Raises:
        InputError: there are no images, no masks, or two images share a mask.
    """
    samples: dict[str, Sample] = {}
    for path in sorted(images.rglob("*")):
        relative = path.relative_to(images)
        if path.suffix.lower() not in _SUFFIXES or any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.with_suffix("").as_posix()
        if name in samples:
            raise InputError(
                f"expected unique image names, got {quote_path(samples[name].image)} and {quote_path(path)}, which "
                "would share a mask; rename one"
            )
        samples[name] = Sample(name, path, masks / f"{name}.png")
    if not samples:
        raise InputError(f"expected images below {quote_path(images)}, got none; check the path")
    if not any(sample.mask.is_file() for sample in samples.values()):
        example = next(iter(samples.values())).mask
        raise InputError(
            f"expected masks below {quote_path(masks)} with the names of the images, such as {quote_path(example)}, "
            "got none; check the path"
        )
    return list(samples.values())
