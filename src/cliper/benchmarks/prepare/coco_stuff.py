"""COCO-Stuff's 171 classes with contiguous numbers, from the published maps of 164 thousand pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliper.benchmarks.base import list_files
from cliper.benchmarks.prepare.plan import Job, Plan, renumber
from cliper.benchmarks.prepare.sources import first_there

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["coco_stuff_masks"]

# COCO's ids 12, 26, ... were never given; the maps hold ids less 1, up to 181.
_NEVER_GIVEN = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_IN_USE = [value for value in range(182) if value not in _NEVER_GIVEN]
_NUMBERS = {value: i for i, value in enumerate(_IN_USE)} | {255: 255}


def coco_stuff_masks(root: Path, maps: Path | None = None) -> Plan:
    """Plan ``coco2017/stuff_anno164/val2017``.

    Args:
        root: the folder of all data sets.
        maps: the unpacked ``stuffthingmaps_trainval2017``; by default in the root folder or in ``coco2017``.

    Raises:
        InputError: the maps are not there.
    """
    usual = [root / part / "stuffthingmaps_trainval2017" for part in ("coco2017", "")]
    source = first_there("COCO-Stuff's maps", maps, usual)
    source = source / "val2017" if (source / "val2017").is_dir() else source
    target = root / "coco2017" / "stuff_anno164" / "val2017"
    paths = list_files("coco-stuff171", source, "*.png")
    return Plan(target, [Job(target / path.name, partial(_contiguous, path)) for path in paths])


def _contiguous(path: Path) -> npt.NDArray[Any]:
    from cliper.formats import read_label_png

    return renumber(read_label_png(path), _NUMBERS, path)
