"""VOC's SegmentationClassAug: VOC's own masks, and those of SBD for the pictures that VOC has none for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.benchmarks.base import list_files
from cliper.benchmarks.prepare.plan import Job, Plan, renumber
from cliper.benchmarks.prepare.sources import first_there, read_mat

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["voc_aug_masks"]


def voc_aug_masks(root: Path, sbd: Path | None = None) -> Plan:
    """Plan ``VOCdevkit/VOC2012/SegmentationClassAug``.

    Args:
        root: the folder of all data sets.
        sbd: SBD's folder, the one with ``dataset/cls`` or ``cls`` in it. The masks of val need none of it: without,
            only VOC's own masks are taken.

    Raises:
        InputError: VOC's ``SegmentationClass``, or SBD's folder, is not there.
    """
    folder = root / "VOCdevkit" / "VOC2012"
    target = folder / "SegmentationClassAug"
    own = {path.stem: path for path in list_files("voc", folder / "SegmentationClass", "*.png")}
    jobs = [Job(target / f"{name}.png", partial(_own, path)) for name, path in own.items()]
    if sbd is not None:
        places = (sbd / "benchmark_RELEASE" / "dataset" / "cls", sbd / "dataset" / "cls", sbd / "cls")
        mats = list_files("voc", first_there("SBD's class masks", None, places), "*.mat")
        jobs += [Job(target / f"{path.stem}.png", partial(_of_sbd, path)) for path in mats if path.stem not in own]
    return Plan(target, jobs)


def _own(path: Path) -> npt.NDArray[Any]:
    from cliper.formats import read_label_png

    return renumber(read_label_png(path), {value: value for value in (*range(21), 255)}, path)


def _of_sbd(path: Path) -> npt.NDArray[Any]:
    return renumber(read_mat(path, "GTcls", "Segmentation"), {value: value for value in range(21)}, path)
