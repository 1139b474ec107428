"""Prompts of the benchmarks in the published protocol."""

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
    """Prompts of one family of benchmarks. Class i has label ``i + 1``.

    Args:
        classes: prompts in label order; each is one text, commas included.
        background: names of the background, or ``"auto"``, see :meth:`cliper.Segmenter.__call__`.
    """

    classes: tuple[ClassPrompt, ...]
    background: tuple[ClassPrompt, ...] | str


def benchmark_texts(family: str) -> BenchmarkTexts:
    """Prompts of the published protocol. Source: ``docs/method.md``, section 5.

    Args:
        family: ``"voc"``, ``"context"``, ``"coco-object"``, ``"coco-stuff"``, ``"ade"`` or ``"cityscapes"``.

    Raises:
        InputError: the family is unknown.

    Example:
        >>> len(benchmark_texts("voc").classes)
        20
    """
    families = _load_texts()
    if family not in families:
        raise InputError(f"expected one of {', '.join(families)}, got {family!r}")
    return families[family]


@cache
def _load_texts() -> dict[str, BenchmarkTexts]:
    text = (resources.files("cliper") / "assets" / "benchmark_texts.yaml").read_text(encoding="utf-8")
    return {
        name: BenchmarkTexts(*(tuple(ClassPrompt(t, (t,)) for t in lists[key]) for key in ("classes", "background")))
        for name, lists in yaml.safe_load(text).items()
    }
