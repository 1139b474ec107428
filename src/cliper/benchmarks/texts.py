"""What the benchmarks prompt with, in the published protocol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from cliper.errors import InputError
from cliper.prompts import ClassPrompt

__all__ = ["BenchmarkTexts", "benchmark_texts"]


@dataclass(frozen=True)
class BenchmarkTexts:
    """Texts of one family of benchmarks. Class i is label ``i + 1``.

    Args:
        classes: prompts in label order; each is one text, commas and all.
        background: names of what is not a class.
    """

    classes: tuple[ClassPrompt, ...]
    background: tuple[ClassPrompt, ...]


def benchmark_texts(family: str) -> BenchmarkTexts:
    """The published protocol's texts. Source: ``docs/method.md``, section 5.

    Args:
        family: ``"voc"``, ``"context"``, ``"coco-object"``, ``"coco-stuff"``, ``"ade"`` or ``"cityscapes"``.

    Raises:
        InputError: there is no such family.

    Example:
        >>> len(benchmark_texts("voc").classes)
        20
    """
    known = _texts()
    if family not in known:
        raise InputError(f"expected one of {', '.join(known)}, got {family!r}")
    return known[family]


@cache
def _texts() -> dict[str, BenchmarkTexts]:
    text = (resources.files("cliper") / "assets" / "benchmark_texts.yaml").read_text(encoding="utf-8")
    return {
        name: BenchmarkTexts(*(tuple(ClassPrompt(t, (t,)) for t in lists[key]) for key in ("classes", "background")))
        for name, lists in yaml.safe_load(text).items()
    }
