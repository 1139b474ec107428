"""Somebody's own data as a benchmark: a folder of pictures, a folder of masks, a list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cliper.benchmarks.base import Benchmark, Sample
from cliper.benchmarks.texts import BenchmarkTexts
from cliper.errors import InputError
from cliper.prompts import ClassPrompt

__all__ = ["custom_benchmark"]

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif"}


def custom_benchmark(
    images: str | Path,
    masks: str | Path,
    classes: Sequence[ClassPrompt],
    *,
    background: Sequence[ClassPrompt] = (),
    ignore: Sequence[int] | None = None,
    offset: int = 0,
    name: str = "custom",
) -> Benchmark:
    """A benchmark of one's own files.

    Each picture below ``images`` has its mask below ``masks``, in the same subfolder and of the same name with the
    suffix ``.png``. A mask is an indexed PNG, or a grey one of 8 or 16 bit. Pictures are turned as their EXIF
    orientation says: a mask belongs to the picture as it is seen.

    Args:
        images: folder of pictures, subfolders too.
        masks: folder of masks, a mirror of it.
        classes: C classes in the order of their values in the masks.
        background: prompts of what is not a class.
        ignore: values of the masks whose pixels are not counted; None takes 255, unless that is a class. With 0
            among them (and ``offset`` 0) nothing counts as background.
        offset: 0 where masks hold 0 for background and 1 to C for classes; 1 where they have no background and
            number classes from 0.
        name: what reports call it.

    Raises:
        InputError: one of the folders is not there, there are no classes or one is called background, or ``offset``
            is neither 0 nor 1.
    """
    from cliper.decoding import shown_path

    folders = [Path(folder).expanduser() for folder in (images, masks)]
    for what, folder in zip(("pictures", "masks"), folders, strict=True):
        if not folder.is_dir():
            raise InputError(f"expected a folder of {what}, got no folder at {shown_path(folder)}; check the path")
    if offset not in (0, 1):
        raise InputError(f"offset: expected 0 (masks hold 0 for background) or 1 (classes from 0), got {offset!r}")
    if not classes:
        raise InputError("expected at least one class, got none; name them in the order of the masks' values")
    names = tuple(item.name for item in classes)
    if any(name.strip().casefold() == "background" for name in names):
        raise InputError("expected classes other than background, which every mask has as 0; name it otherwise")
    if ignore is None:
        ignore = () if 255 in range(1 - offset, len(names) + 1 - offset) else (255,)
    void = 255 if len(names) < 255 else 65535
    samples = _pairs(*folders)
    return Benchmark(
        name=name,
        title=f"{len(samples)} pictures of {shown_path(folders[0])}",
        texts=BenchmarkTexts(tuple(classes), tuple(background)),
        class_names=names,
        ignore=(0, void) if offset or 0 in ignore else (void,),
        size=len(samples),
        samples=partial(_found, tuple(samples)),
        offset=offset,
        mask_ignore=tuple(ignore),
        upright=True,
    )


def _found(samples: tuple[Sample, ...], root: Path | None = None) -> list[Sample]:
    """The samples; the root folder of the published data sets has no part in them."""
    return list(samples)


def _pairs(images: Path, masks: Path) -> list[Sample]:
    """Pictures in the order of their names, each with the mask that it should have."""
    from cliper.decoding import shown_path

    samples: dict[str, Sample] = {}
    for path in sorted(images.rglob("*")):
        relative = path.relative_to(images)
        if path.suffix.lower() not in _PICTURES or any(part.startswith(".") for part in relative.parts):
            continue
        stem = relative.with_suffix("")
        key = stem.as_posix()
        if key in samples:
            raise InputError(
                f"expected one picture a name, got {shown_path(samples[key].image)} and "
                f"{shown_path(path)}, which would have the same mask; rename one"
            )
        samples[key] = Sample(key, path, masks / stem.with_name(f"{stem.name}.png"))
    if not samples:
        raise InputError(f"expected pictures below {shown_path(images)}, got none; check the path")
    if not any(sample.mask.is_file() for sample in samples.values()):
        first = next(iter(samples.values()))
        raise InputError(
            f"expected masks below {shown_path(masks)} named as their pictures, got none of those looked for, such as "
            f"{shown_path(first.mask)}; check the path"
        )
    return list(samples.values())
