"""Plan of the masks to make, and writing them. Existing masks are skipped; a failed mask does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cliper.errors import ImageError, InputError, ResourceError, quote_path, reraise
from cliper.files import atomic_write
from cliper.formats import read_label_png, write_label_png

__all__ = ["MaskJob", "MaskPlan", "WriteSummary", "no_progress", "remap_labels", "write_masks"]

T = TypeVar("T")


@dataclass(frozen=True)
class MaskJob:
    """One mask: its file, and the function that makes its labels [H, W]; InputError if it cannot."""

    target: Path
    make: Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True)
class MaskPlan:
    """Masks of one data set.

    Args:
        folder: folder of the masks.
        jobs: one per mask.
        split: path and sample names of the list to write, if any.
        problems: one line for each entry of the annotations that gives no mask.
    """

    folder: Path
    jobs: Sequence[MaskJob]
    split: tuple[Path, Sequence[str]] | None = None
    problems: Sequence[str] = ()


@dataclass
class WriteSummary:
    """Number of masks written, number skipped because they exist, and one line for each failed mask."""

    written: int = 0
    skipped: int = 0
    errors: list[str] = field(default_factory=list)


def no_progress(items: Sequence[T], title: str) -> Iterable[T]:
    """The items, without reporting progress: the default of the parameters called ``progress``."""
    return items


def write_masks(
    plan: MaskPlan, progress: Callable[[Sequence[MaskJob], str], Iterable[MaskJob]] = no_progress
) -> WriteSummary:
    """Make the masks that do not exist yet, or that are damaged. An interrupted run is resumed by the next one.

    Args:
        plan: from one of this package's functions.
        progress: called with the jobs and a title; returns the jobs and may report the progress.

    Raises:
        OutputError: a file cannot be written; no further mask is made.
    """
    if plan.split is not None:
        path, names = plan.split
        with atomic_write(path) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    summary = WriteSummary(errors=list(plan.problems))
    for job in progress(plan.jobs, plan.folder.name):
        try:
            with reraise(MemoryError, ResourceError, f"cannot make {quote_path(job.target)}", "free some memory"):
                if _is_complete(job.target):
                    summary.skipped += 1
                    continue
                labels = job.make()
        except (InputError, ResourceError) as error:
            summary.errors.append(str(error))
            continue
        write_label_png(job.target, labels)
        summary.written += 1
    return summary


def _is_complete(path: Path) -> bool:
    """Whether a mask exists and can be decoded to its end."""
    try:
        read_label_png(path)
    except ImageError:
        return False
    return True


def remap_labels(
    mapping: Mapping[int, int], source: Path, read: Callable[[Path], npt.NDArray[Any]] = read_label_png
) -> npt.NDArray[np.uint8]:
    """The values [H, W] of a file replaced by ``mapping``, as uint8 [H, W].

    Raises:
        ImageError: the file cannot be read, or a value is not in ``mapping``.
    """
    values = read(source)
    present, inverse = np.unique(values, return_inverse=True)
    unknown = [value for value in present.tolist() if value not in mapping]
    if unknown:
        raise ImageError(
            f"expected the data set's own labels ({min(mapping)} to {max(mapping)}), got {unknown[0]}: "
            f"{quote_path(source)}; check the file"
        )
    return np.array([mapping[value] for value in present.tolist()], np.uint8)[inverse].reshape(values.shape)
