"""Custom images and masks, and the report of their evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["own_arguments", "own_data", "report_of"]


def own_data(folder: Path, count: int, make_image: Callable[..., Image.Image], first: int = 1) -> None:
    """Images with masks of two classes, in two subfolders, and a class file."""
    for i in range(count):
        place = f"{'ab'[i % 2]}/{i:03}"
        for kind in ("images", "masks"):
            (folder / kind / place).parent.mkdir(parents=True, exist_ok=True)
        make_image(48 + 16 * (i % 3), 48, seed=i).save(folder / "images" / f"{place}.jpg")
        mask = np.zeros((48, 48 + 16 * (i % 3)), np.uint8)
        mask[i % 40 :, :20], mask[:, 30:], mask[:4] = first, first + 1, 255
        Image.fromarray(mask).save(folder / "masks" / f"{place}.png")
    (folder / "classes.txt").write_text("dog\ngrass: green grass, lawn\n")


def own_arguments(folder: Path, model: Path) -> tuple[object, ...]:
    own = ("--images", folder / "images", "--masks", folder / "masks", "--classes-file", folder / "classes.txt")
    return ("evaluate", *own, "-m", model)


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report
