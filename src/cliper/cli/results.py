"""What ``cliper segment`` prints about an image: a table, or a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cliper.cli.errors import printable
from cliper.cli.tables import print_table

if TYPE_CHECKING:
    from cliper.raster import RasterResult
    from cliper.result import Segmentation
    from cliper.segmenter import Segmenter

__all__ = ["Summary"]

_MAX_ROWS = 20


@dataclass(frozen=True)
class Summary:
    """An image's size, and by class its area, its confidence and, of those without a pixel, why."""

    size: tuple[int, int]
    areas: dict[str, float]
    confidence: dict[str, float]
    absent: dict[str, str]

    @classmethod
    def of_result(cls, result: Segmentation) -> Summary:
        """Of an image in memory."""
        confidence = dict(zip(result.classes, result.confidence.tolist(), strict=True))
        return cls(result.image.size, result.areas, confidence, result.absent)

    @classmethod
    def of_raster(cls, result: RasterResult, segmenter: Segmenter) -> Summary:
        """Of a raster."""
        from cliper.result import why_absent

        absent = {
            name: why_absent(result.confidence[name], segmenter.settings)
            for name, area in result.areas.items()
            if not area
        }
        return cls((result.width, result.height), result.areas, result.confidence, absent)

    def print_json(self, segmenter: Segmenter, image: Path, files: Sequence[Path], seconds: float) -> None:
        """One line on standard output."""
        values = {
            "input": str(image),
            "outputs": [str(file) for file in files],
            "model": segmenter.checkpoint.name,
            "refiner": None if segmenter.refiner is None else str(segmenter.refiner.name),
            "seconds": round(seconds, 3),
            "areas": self.areas,
            "confidence": {name: min(1.0, value) for name, value in self.confidence.items()},
            "absent": self.absent,
        }
        click.echo(json.dumps(values, ensure_ascii=False))

    def print_table(self, image: Path, files: Sequence[Path], seconds: float) -> None:
        """A table on standard output."""
        confidence = [(name, min(1.0, value)) for name, value in self.confidence.items()]
        classes = sorted(confidence, key=lambda row: (-self.areas[row[0]], -row[1]))
        rows = [
            (name, f"{self.areas[name]:.1%}", f"{value:.2f}", self.absent.get(name, ""))
            for name, value in classes[:_MAX_ROWS]
        ]
        rows.append(("background", f"{max(0.0, 1 - sum(self.areas.values())):.1%}", "", ""))
        click.echo(f"\n{printable(str(image))}  {self.size[0]}x{self.size[1]}, {seconds:.2f} s")
        print_table(("class", "area", "confidence", ""), rows, numbers={"area", "confidence"})
        if len(classes) > _MAX_ROWS:
            click.echo(f"... and {len(classes) - _MAX_ROWS} more classes (--json has them all)")
        if len(self.absent) == len(classes):
            click.echo("nothing was found; a higher --sensitivity or other words may help: see docs/nothing-found.md")
        for file in files:
            click.echo(printable(f"wrote {file}"))
